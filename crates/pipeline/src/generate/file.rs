//! The files of generated records: their names, their text, and whether one is finished.
//!
//! A file is a record in the seed's format, so that `prepare` reads it, and carries under `generated`
//! what made it. That digest is the whole memory of a run: there is no other ledger that could
//! disagree with the files. A file is whole or not there: it is made aside, flushed, and renamed.
//! What nobody here has made is never written over.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::generate::ask::{Effort, Outcome};
use crate::generate::story::Story;
use crate::generate::verdict::{Fault, Flaw};
use ctxtune_engine::answer_file::{INVALID, MOST_NAME_BYTES, VALID};

const STAGING: &str = ".ctxtune-generate";
/// The fields of a record that are not carried from the story's.
const OURS: [&str; 4] = ["socialized_context", "generated", "reason", "raw_answer"];

/// What made a record, under the key `generated`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin<'o> {
    pub key: &'o [u8],
    pub model: &'o str,
    pub template: &'o str,
    /// What the model's name stood for, where that is known: a name can be given to other weights.
    pub weights: Option<&'o str>,
    /// What was asked; see [`crate::generate::request::Parameters::digest`].
    pub digest: &'o str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing of this request.
    Open,
    Valid,
    Invalid(Flaw),
    /// A file that is not ours, at this path.
    Foreign(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub valid: PathBuf,
    /// The one that says why there is none.
    pub invalid: PathBuf,
}

/// Why an answer has no place in the output directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error("its key leads out of the output directory: name its directory as the source")]
    Outside,
    #[error(
        "its name is too long for `NAME{INVALID}`: at most {most} bytes before that, and {MOST_NAME_BYTES} \
         for a directory", most = MOST_NAME_BYTES - INVALID.len()
    )]
    LongName,
}

impl NoPlace {
    pub fn as_str(self) -> &'static str {
        match self {
            NoPlace::Outside => "key",
            NoPlace::LongName => "long_name",
        }
    }
}

/// Where the files go whose names begin with `stem`, which is made by
/// [`AnswerNames`](ctxtune_engine::answer_file::AnswerNames) of a record's key, below the output directory.
/// Fails when it would be elsewhere, or a name would be too long.
pub fn place(dir: &Path, stem: &[u8]) -> Result<Place, NoPlace> {
    let path = path_of(stem).ok_or(NoPlace::Outside)?;
    let (name, parent) = path.file_name().zip(path.parent()).ok_or(NoPlace::Outside)?;
    let mut below = dir.to_owned();
    for component in parent.components() {
        match component {
            Component::Normal(part) if part.len() > MOST_NAME_BYTES => return Err(NoPlace::LongName),
            Component::Normal(part) => below.push(part),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            Component::ParentDir => return Err(NoPlace::Outside),
        }
    }
    if name.len() + INVALID.len() > MOST_NAME_BYTES {
        return Err(NoPlace::LongName);
    }
    let with = |ending: &str| {
        let mut name = name.to_owned();
        name.push(ending);
        below.join(name)
    };
    Ok(Place { valid: with(VALID), invalid: with(INVALID) })
}

#[cfg(unix)]
fn path_of(key: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(key)))
}

#[cfg(not(unix))]
fn path_of(key: &[u8]) -> Option<PathBuf> {
    // A JSONL key `#1` is a fine name; one with half a surrogate pair is not text.
    std::str::from_utf8(key).ok().map(PathBuf::from)
}

#[derive(Deserialize)]
struct Written {
    generated: Option<Generated>,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Generated {
    request_sha256: String,
    weights: Option<String>,
    invalid: Option<String>,
}

/// What is there of the story at `place`, asked as `digest` says, of these `weights`. Where either side
/// does not know the weights, they are taken to be the same: nothing is paid for twice on a suspicion.
pub fn standing(place: &Place, digest: &str, weights: Option<&str>) -> io::Result<Standing> {
    // Should both be there, the run was killed between a context and the end of what was before it.
    for path in [&place.valid, &place.invalid] {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let written: Option<Written> = serde_json::from_slice(&bytes).ok();
        let Some((generated, reason)) = written.and_then(|file| Some((file.generated?, file.reason))) else {
            return Ok(Standing::Foreign(path.clone()));
        };
        let are_others =
            generated.weights.as_deref().zip(weights).is_some_and(|(known, weights)| known != weights);
        if generated.request_sha256 != digest || are_others {
            continue;
        }
        let fault = generated.invalid.and_then(|name| Fault::ALL.into_iter().find(|of| of.as_str() == name));
        match fault {
            None => return Ok(Standing::Valid),
            // A refusal costs nothing, and may be over.
            Some(Fault::Refused) => {}
            Some(fault) => {
                return Ok(Standing::Invalid(Flaw { fault, reason: reason.unwrap_or_default() }));
            }
        }
    }
    Ok(Standing::Open)
}

/// How many values of the fields that are carried from the story's record are no JSON, and written as `null`.
pub fn nulls(story: &Story) -> u64 {
    let carried = story.fields.iter().filter(|field| !OURS.contains(&field.name.as_str()));
    carried.map(|field| field.nulls).sum()
}

pub fn text(
    origin: &Origin<'_>,
    story: &Story,
    effort: &Effort,
    outcome: &Outcome,
) -> serde_json::Result<Vec<u8>> {
    let context: Option<Value> =
        outcome.context.as_ref().ok().map(|context| serde_json::from_str(context)).transpose()?;
    let mut fields: Vec<(&str, Part<'_>)> = Vec::new();
    for field in &story.fields {
        match (field.name.as_str(), &context) {
            // The context stands where the old one stood.
            ("socialized_context", Some(context)) => {
                fields.push(("socialized_context", Part::Ours(context.clone())));
            }
            (name, _) if OURS.contains(&name) => {}
            (name, _) => fields.push((name, Part::Raw(&field.json))),
        }
    }
    let has = |fields: &[(&str, Part<'_>)], name: &str| fields.iter().any(|(known, _)| *known == name);
    for name in ["question", "answer"] {
        if !has(&fields, name) {
            fields.push((name, Part::Ours(json!(""))));
        }
    }
    if let Some(context) = context.filter(|_| !has(&fields, "socialized_context")) {
        fields.push(("socialized_context", Part::Ours(context)));
    }
    if let Err(flaw) = &outcome.context {
        fields.push(("reason", Part::Ours(flaw.reason.clone().into())));
        fields.push(("raw_answer", Part::Ours(outcome.raw.clone().into())));
    }
    fields.push(("generated", Part::Origin(Described { origin, story, effort, outcome })));
    let mut text = serde_json::to_vec_pretty(&Fields(fields))?;
    text.push(b'\n');
    Ok(text)
}

struct Fields<'f>(Vec<(&'f str, Part<'f>)>);

enum Part<'f> {
    Raw(&'f RawValue),
    Ours(Value),
    Origin(Described<'f>),
}

struct Described<'f> {
    origin: &'f Origin<'f>,
    story: &'f Story,
    effort: &'f Effort,
    outcome: &'f Outcome,
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, part)| (name, part)))
    }
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Part::Raw(raw) => raw.serialize(serializer),
            Part::Ours(value) => value.serialize(serializer),
            Part::Origin(described) => described.serialize(serializer),
        }
    }
}

impl Serialize for Described<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let Described { origin, story, effort, outcome } = self;
        let usage = effort.usage.map(|usage| {
            json!({ "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens })
        });
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("by", concat!("ctxtune ", env!("CARGO_PKG_VERSION")))?;
        // For people: `prepare` rejects the lone surrogates that would keep every byte.
        map.serialize_entry("key", &String::from_utf8_lossy(origin.key))?;
        map.serialize_entry("model", origin.model)?;
        if let Some(weights) = origin.weights {
            map.serialize_entry("weights", weights)?;
        }
        map.serialize_entry("template", origin.template)?;
        if story.is_guessed {
            map.serialize_entry("story_from", "prompt")?;
        }
        map.serialize_entry("request_sha256", origin.digest)?;
        map.serialize_entry("attempts", &effort.attempts)?;
        map.serialize_entry("finish_reason", &outcome.finish_reason)?;
        map.serialize_entry("usage", &usage)?;
        if let Err(flaw) = &outcome.context {
            map.serialize_entry("invalid", flaw.fault.as_str())?;
        }
        map.end()
    }
}

/// An output directory that files are put into, one run at a time.
#[derive(Debug)]
pub struct Output {
    staging: PathBuf,
}

impl Output {
    /// Opens `dir`, which is there and locked; what a killed run left half made is removed.
    pub fn open(dir: &Path) -> io::Result<Output> {
        let staging = dir.join(STAGING);
        match std::fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::create_dir(&staging)?;
        Ok(Output { staging })
    }

    /// Puts `text` at one of the two files of `place`, whole or not at all, and removes the other one. `number`
    /// tells threads apart. Fails when it cannot be written; what was there is still there then.
    pub fn put(&self, number: usize, place: &Place, fault: Option<Fault>, text: &[u8]) -> io::Result<()> {
        let (path, other) = match fault {
            None => (&place.valid, &place.invalid),
            Some(_) => (&place.invalid, &place.valid),
        };
        let aside = self.staging.join(number.to_string());
        let mut file = File::create(&aside)?;
        file.write_all(text)?;
        file.sync_all()?;
        drop(file);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::rename(&aside, path)?;
        match std::fs::remove_file(other) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // What cannot be removed is removed by the next run.
        let _ = std::fs::remove_dir_all(&self.staging);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stem_has_a_place_below_the_directory_or_none() {
        let check = |stem: &str, expected: Result<&str, NoPlace>| {
            let place = place(Path::new("gen"), stem.as_bytes());
            let expected = expected.map(|name| Place {
                valid: Path::new("gen").join(format!("{name}.json")),
                invalid: Path::new("gen").join(format!("{name}.invalid.json")),
            });
            assert_eq!(place, expected, "{stem}");
        };
        check("a", Ok("a"));
        check("a/b.c", Ok("a/b.c"));
        check("#7", Ok("#7"));
        check("x.jsonl/#7", Ok("x.jsonl/#7"));
        check("a.invalid.json", Ok("a.invalid.json"));
        check("/abs/a", Ok("abs/a"));
        check("./a", Ok("a"));
        check("../a", Err(NoPlace::Outside));
        check("a/../../b", Err(NoPlace::Outside));
        check("", Err(NoPlace::Outside));
        let (longest, longer) = ("n".repeat(242), "n".repeat(243));
        check(&longest, Ok(&longest));
        check(&longer, Err(NoPlace::LongName));
        check(&format!("{}/a", "d".repeat(255)), Ok(&format!("{}/a", "d".repeat(255))));
        check(&format!("{}/a", "d".repeat(256)), Err(NoPlace::LongName));
    }

    fn outcome(context: Result<String, Flaw>) -> Outcome {
        Outcome { context, raw: "the \"raw\" answer".to_owned(), finish_reason: None }
    }

    /// A directory with one story's place.
    fn scene() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path(), b"sub/a").unwrap();
        (dir, place)
    }

    fn text_of(digest: &str, context: Result<String, Flaw>) -> Vec<u8> {
        let story =
            Story::read(br#"{"id": 1.50, "story": "s", "socialized_context": {"old": 1}, "after": []}"#)
                .unwrap();
        let weights = Some("projects/p/models/ml_1");
        let origin = Origin { key: b"sub/\xff.json", model: "m", weights, template: "t", digest };
        text(&origin, &story, &Effort::default(), &outcome(context)).unwrap()
    }

    #[test]
    fn a_file_is_put_whole_and_is_known_by_its_digest() {
        let (dir, place) = scene();
        let output = Output::open(dir.path()).unwrap();
        let flaw = |fault| Flaw { fault, reason: "why".to_owned() };
        assert_eq!(standing(&place, "d", None).unwrap(), Standing::Open);
        for (fault, known) in [
            (Some(Fault::Cut), Standing::Invalid(flaw(Fault::Cut))),
            (Some(Fault::Refused), Standing::Open),
            (None, Standing::Valid),
            (Some(Fault::Agents), Standing::Invalid(flaw(Fault::Agents))),
        ] {
            let context = fault.map_or(Ok("{}".to_owned()), |fault| Err(flaw(fault)));
            output.put(0, &place, fault, &text_of("d", context)).unwrap();
            assert_eq!(standing(&place, "d", None).unwrap(), known);
            assert_eq!(standing(&place, "e", None).unwrap(), Standing::Open, "another request");
            assert_eq!(standing(&place, "d", Some("projects/p/models/ml_1")).unwrap(), known);
            let others = standing(&place, "d", Some("projects/p/models/ml_2")).unwrap();
            assert_eq!(others, Standing::Open, "another model under the name");
            assert_ne!(place.valid.exists(), place.invalid.exists(), "one of the two");
        }
        std::fs::write(&place.valid, "{\"story\": \"mine\"}").unwrap();
        assert_eq!(standing(&place, "d", None).unwrap(), Standing::Foreign(place.valid.clone()));
        drop(output);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside");
    }

    #[test]
    fn fields_keep_their_order_and_the_new_context_stands_where_the_old_one_stood() {
        let names = |text: &[u8]| -> Vec<String> {
            let value: serde_json::Map<String, Value> = serde_json::from_slice(text).unwrap();
            value.keys().cloned().collect()
        };
        let valid = text_of("d", Ok(r#"{"agents_names": ["A"]}"#.to_owned()));
        assert_eq!(
            names(&valid),
            ["id", "story", "socialized_context", "after", "question", "answer", "generated"]
        );
        assert!(String::from_utf8(valid).unwrap().contains("\"id\": 1.50,\n"), "as it was written");
        let invalid = text_of("d", Err(Flaw { fault: Fault::Cut, reason: "why".to_owned() }));
        assert_eq!(
            names(&invalid),
            ["id", "story", "after", "question", "answer", "reason", "raw_answer", "generated"]
        );
    }
}
