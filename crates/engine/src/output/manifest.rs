//! What a preparation produced: the one document that both halves of the tool share.
//!
//! The engine writes it last, the submitter believes nothing else. It holds no time,
//! host, thread count or absolute path, so that two machines write the same bytes.
//! Reading is strict: a directory without a readable manifest holds no result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::output::compress::{Compress, Packed};
pub use crate::output::hex::Hex;
use crate::record::warning::Warning;

/// The manifest's file name in an output directory.
pub const FILE_NAME: &str = "manifest.json";

/// The schema this version writes and reads.
pub const SCHEMA: &str = "ctxtune.manifest/1";

/// The whole manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// Name and version of the program that wrote it.
    pub tool: String,
    /// What decided the bytes.
    pub options: OptionsUsed,
    /// How many records of which kind.
    pub counts: Counts,
    /// What validation shares with training.
    pub leakage: Leakage,
    /// The groups, where the split was made by groups.
    pub grouping: Option<Grouping>,
    /// What was mixed into the training lines, by file; only where something was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mix: Vec<Mixed>,
    /// The template, whole; `null` where lines were taken as they are.
    pub template: Option<TemplateUsed>,
    /// SHA-256 of all listed keys, sorted bytewise, each followed by NUL.
    pub keys_sha256: String,
    /// The training examples.
    pub train: Side,
    /// The validation examples; `null` at ratio 0.
    pub val: Option<Side>,
    /// The other files, by name.
    pub files: BTreeMap<String, FileDigest>,
}

/// What became the lines of a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataKind {
    /// Contexts, through a template.
    #[default]
    Contexts,
    /// Chat lines, as they are.
    Chat,
    /// The lines of files that were split already, as they are.
    Files,
}

impl DataKind {
    fn is_contexts(&self) -> bool {
        *self == DataKind::Contexts
    }
}

/// The options that decide what is in the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionsUsed {
    /// What became lines: `chat`, chat lines as they are, or `files`, whole files; absent for contexts.
    #[serde(default, skip_serializing_if = "DataKind::is_contexts")]
    pub kind: DataKind,
    /// The seed of the order.
    pub seed: u64,
    /// The part that validates, as a decimal; `given` of files.
    pub val_ratio: String,
    /// `story`, `agents` or a field's name; `null` for none.
    pub group_by: Option<String>,
    /// Records a shard; `null` for one file a side.
    pub shard_records: Option<u64>,
    /// How the shards are compressed, `zst` or `gz`; only where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<Compress>,
    /// The most training records; only where there is such a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Whether records with `is_correct: false` were left out.
    pub only_correct: bool,
    /// The largest record taken, in bytes.
    pub max_record_bytes: u64,
}

/// Counts of records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Found in the corpus.
    pub listed: u64,
    /// Converted to an example.
    pub accepted: u64,
    /// Refused, each with a line in `rejects.jsonl`.
    pub rejected: u64,
    /// Left out by `--only-correct`.
    pub skipped: u64,
    /// Accepted training records beyond `--limit`, which have no line; only where there are any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub beyond_limit: u64,
    /// Named like records, but no regular files.
    pub not_regular: u64,
    /// Refused, by code.
    pub rejected_by_code: BTreeMap<String, u64>,
    /// What the usable records (accepted or skipped) say of their answers.
    pub is_correct: IsCorrect,
    /// Accepted records with something odd; one can count in several.
    pub warnings: Warnings,
}

/// The values of `is_correct`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsCorrect {
    /// Records with `true`.
    pub r#true: u64,
    /// Records with `false`.
    pub r#false: u64,
    /// Records without it, or with `null`.
    pub missing: u64,
}

impl Counts {
    /// Adds the counts of other records.
    pub fn add(&mut self, other: &Counts) {
        self.listed += other.listed;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.skipped += other.skipped;
        self.beyond_limit += other.beyond_limit;
        self.not_regular += other.not_regular;
        for (code, count) in &other.rejected_by_code {
            *self.rejected_by_code.entry(code.clone()).or_default() += count;
        }
        self.is_correct.r#true += other.is_correct.r#true;
        self.is_correct.r#false += other.is_correct.r#false;
        self.is_correct.missing += other.is_correct.missing;
        let mut theirs = other.warnings;
        for warning in Warning::ALL {
            *self.warnings.count_mut(warning) += *theirs.count_mut(warning);
        }
    }
}

impl IsCorrect {
    /// Counts a record that says so.
    pub fn count(&mut self, is_correct: Option<bool>) {
        match is_correct {
            Some(true) => self.r#true += 1,
            Some(false) => self.r#false += 1,
            None => self.missing += 1,
        }
    }
}

/// Accepted records with something odd, by kind; one record can count in several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warnings {
    /// An agent of `agents_names` is missing from a step's observations or actions.
    pub agent_missing_from_step: u64,
    /// An agent observes or acts without standing in `agents_names`.
    pub agent_not_in_names: u64,
    /// `[SAME AS …]` and `<same_as… />` in one record.
    pub mixed_tags: u64,
    /// A text holds something like `<|eot_id|>`, which a tokenizer may read as its own.
    pub special_tokens: u64,
    /// The story begins with `[` or `(` and was taken for prose.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bracketed_prose: u64,
    /// A text holds U+0000.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nul_characters: u64,
    /// A text holds U+FFFD, which stands for what could not be decoded.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replacement_characters: u64,
    /// In a chat line: a system message that is not the first one, or a conversation that the assistant begins.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub role_order: u64,
    /// In a chat line: an assistant message without text.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub empty_assistant: u64,
    /// In a chat line: a key twice in a message, of which the last one counts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeated_keys: u64,
    /// Chat lines with columns other than `messages`, `tools` and `weight`, which are left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub other_columns: u64,
}

impl Warnings {
    /// How many records of this kind there are.
    pub fn count_mut(&mut self, warning: Warning) -> &mut u64 {
        match warning {
            Warning::AgentMissingFromStep => &mut self.agent_missing_from_step,
            Warning::AgentNotInNames => &mut self.agent_not_in_names,
            Warning::MixedTags => &mut self.mixed_tags,
            Warning::SpecialTokens => &mut self.special_tokens,
            Warning::BracketedProse => &mut self.bracketed_prose,
            Warning::NulCharacters => &mut self.nul_characters,
            Warning::ReplacementCharacters => &mut self.replacement_characters,
            Warning::RoleOrder => &mut self.role_order,
            Warning::EmptyAssistant => &mut self.empty_assistant,
            Warning::RepeatedKeys => &mut self.repeated_keys,
            Warning::OtherColumns => &mut self.other_columns,
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Validation records that share something with a training record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leakage {
    /// Validation records whose story text is also a training record's; only of contexts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_sharing_story: Option<u64>,
    /// Validation records whose set of agents is also a training record's; only of contexts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_sharing_agents: Option<u64>,
    /// Validation lines whose user messages are also those of a training line; only of chat lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_sharing_text: Option<u64>,
}

/// A split by groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grouping {
    /// Groups among the accepted records.
    pub groups: u64,
    /// Groups that train.
    pub train_groups: u64,
    /// Training records more (or fewer, negative) than the ratio asks for.
    pub deviation: i64,
}

/// The lines of one file of `--mix`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mixed {
    /// The file, as it stands in the keys of its lines.
    pub file: String,
    /// How many were asked for: a number, or a share of all training lines (`5%`).
    pub asked: String,
    /// Lines in the file.
    pub listed: u64,
    /// Lines that were rejected before enough were found; `rejects.jsonl` names them last.
    pub rejected: u64,
    /// Lines that were mixed in.
    pub records: u64,
    /// Those of them with something odd, by the names of the warnings; only where there are any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub warnings: BTreeMap<String, u64>,
    /// SHA-256 of all keys of the file, sorted bytewise, each followed by NUL.
    pub keys_sha256: String,
}

/// The template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateUsed {
    /// Its name.
    pub name: String,
    /// Its full YAML text.
    pub text: String,
}

/// One side of the split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Examples.
    pub records: u64,
    /// Bytes of all shards.
    pub bytes: u64,
    /// SHA-256 of the file; of several shards that of their digests, each followed by a newline.
    pub sha256: String,
    /// Both as they are of the same lines without compression; only where the shards are compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncompressed: Option<FileDigest>,
    /// The shards in order.
    pub shards: Vec<Shard>,
}

impl Side {
    /// The side that consists of `shards`.
    pub fn of(shards: Vec<Shard>) -> Side {
        let sum = |of: fn(&Shard) -> u64| shards.iter().map(of).fold(0, u64::saturating_add);
        let digest = |of: fn(&Shard) -> &str| side_digest(&shards.iter().map(of).collect::<Vec<_>>());
        let is_compressed = shards.iter().any(|shard| shard.uncompressed.is_some());
        Side {
            records: sum(|shard| shard.records),
            bytes: sum(|shard| shard.bytes),
            sha256: digest(|shard| &shard.sha256),
            uncompressed: is_compressed.then(|| FileDigest {
                bytes: sum(|shard| shard.content().0),
                sha256: digest(|shard| shard.content().1),
            }),
            shards,
        }
    }

    /// Bytes and digest of its lines, the same whether and however they are compressed.
    pub fn content(&self) -> (u64, &str) {
        content(self.uncompressed.as_ref(), self.bytes, &self.sha256)
    }
}

fn content<'d>(uncompressed: Option<&'d FileDigest>, bytes: u64, sha256: &'d str) -> (u64, &'d str) {
    uncompressed.map_or((bytes, sha256), |file| (file.bytes, &file.sha256))
}

/// The digest of a side: the SHA-256 of its file where it is one file, else the SHA-256 of the digests of
/// its shards in order, each in lower-case hexadecimal and followed by a newline.
///
/// It needs the digests alone, so that it can be computed where no machine has all shards.
fn side_digest(shards: &[&str]) -> String {
    if let [only] = shards {
        return (*only).to_owned();
    }
    let mut hasher = Sha256::new();
    for sha256 in shards {
        hasher.update(sha256);
        hasher.update(b"\n");
    }
    Hex(&hasher.finalize()).to_string()
}

/// One file of examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its name in the output directory.
    pub file: String,
    /// Examples, one a line.
    pub records: u64,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// Size and SHA-256 of what it unpacks to; only where it is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncompressed: Option<FileDigest>,
}

impl Shard {
    /// The shard `file` with what was written to it.
    pub fn of(file: String, records: u64, packed: Packed) -> Shard {
        let Packed { bytes, sha256, plain_bytes, plain_sha256 } = packed;
        let uncompressed = FileDigest { bytes: plain_bytes, sha256: plain_sha256 };
        let is_compressed = Compress::of_name(&file).is_some();
        Shard { file, records, bytes, sha256, uncompressed: is_compressed.then_some(uncompressed) }
    }

    /// Bytes and digest of its lines, the same whether and however they are compressed.
    pub fn content(&self) -> (u64, &str) {
        content(self.uncompressed.as_ref(), self.bytes, &self.sha256)
    }
}

/// The size and digest of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// Why there is no manifest to believe.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name them")]
pub enum ManifestError {
    #[error("`{0}` holds no prepared data: it has no {FILE_NAME}")]
    Missing(PathBuf),
    #[error("cannot read `{path}`: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("`{path}` is not a manifest this version knows ({SCHEMA}): {reason}")]
    Foreign { path: PathBuf, reason: String },
}

/// Whether `name` names a file of the directory itself: a manifest must not reach elsewhere.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(part)), None) if part == name)
}

impl Manifest {
    /// Reads the manifest of the output directory `dir`.
    ///
    /// # Errors
    /// When there is none, or none that can be believed.
    pub fn read(dir: &Path) -> Result<Manifest, ManifestError> {
        Manifest::read_file(&dir.join(FILE_NAME))
            .and_then(|found| found.ok_or_else(|| ManifestError::Missing(dir.to_owned())))
    }

    /// Reads a manifest at `path`, or `None` where no such file is.
    ///
    /// # Errors
    /// When the file cannot be read or is not a manifest.
    pub fn read_file(path: &Path) -> Result<Option<Manifest>, ManifestError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ManifestError::Io { path: path.to_owned(), source }),
        };
        Manifest::parse(path, &bytes).map(Some)
    }

    /// The manifest that `bytes` are, found at `path`.
    ///
    /// # Errors
    /// When they are none, or one of another version.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let foreign = |reason: String| ManifestError::Foreign { path: path.to_owned(), reason };
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| foreign(error.to_string()))?;
        if manifest.schema != SCHEMA {
            return Err(foreign(format!("its schema is `{}`", manifest.schema)));
        }
        if let Some(name) = manifest.file_names().into_iter().find(|name| !is_plain_name(name)) {
            return Err(foreign(format!("`{name}` is no file name")));
        }
        // Whoever takes a packed file for lines uploads what is none.
        for (_, side) in manifest.sides() {
            let is_told = |shard: &&Shard| {
                let is_compressed = Compress::of_name(&shard.file).is_some();
                [&side.uncompressed, &shard.uncompressed].iter().all(|told| told.is_some() == is_compressed)
            };
            if let Some(shard) = side.shards.iter().find(|shard| !is_told(shard)) {
                return Err(foreign(format!("`{}` and `uncompressed` do not agree", shard.file)));
            }
        }
        Ok(manifest)
    }

    /// The manifest as it stands in its file.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("strings and numbers only");
        json.push('\n');
        json
    }

    /// Both sides with their names, training first.
    pub fn sides(&self) -> impl Iterator<Item = (&'static str, &Side)> {
        std::iter::once(("train", &self.train)).chain(self.val.iter().map(|side| ("val", side)))
    }

    /// The training records of the split, without what was mixed in.
    pub fn own_train_records(&self) -> u64 {
        self.mix.iter().fold(self.train.records, |records, mixed| records.saturating_sub(mixed.records))
    }

    /// The names of all files this manifest vouches for, itself excluded.
    pub fn file_names(&self) -> Vec<&str> {
        let shards = self.sides().flat_map(|(_, side)| &side.shards).map(|shard| shard.file.as_str());
        shards.chain(self.files.keys().map(String::as_str)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(digests: &[&str], expected: &str) {
        assert_eq!(side_digest(digests), expected);
    }

    #[test]
    fn warnings_are_counted_under_their_names() {
        let mut warnings = Warnings::default();
        for (index, warning) in Warning::ALL.into_iter().enumerate() {
            assert_eq!(warning as usize, index);
            *warnings.count_mut(warning) = index as u64 + 1;
        }
        let json = serde_json::to_value(warnings).unwrap();
        let found: Vec<(&str, u64)> = json
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, count)| (name.as_str(), count.as_u64().unwrap()))
            .collect();
        let expected: Vec<(&str, u64)> =
            Warning::ALL.into_iter().map(|warning| (warning.as_str(), warning as u64 + 1)).collect();
        assert_eq!(found, expected);
        // What no old manifest has is not written where there is none.
        assert_eq!(serde_json::to_value(Warnings::default()).unwrap().as_object().unwrap().len(), 4);
    }

    #[test]
    fn the_digest_of_a_side_needs_the_digests_of_its_shards_alone() {
        check(&["aa"], "aa");
        // printf 'aa\nbb\n' | sha256sum
        check(&["aa", "bb"], "329d670e59ead1543a2d36865895972560bc434204c5f4a0c8219005dd312719");
    }
}
