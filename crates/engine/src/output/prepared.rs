//! A prepared directory read back: its validation lines by the keys of the records they came from.
//!
//! For whoever judges or asks a model: the model has not been trained on these lines. A line has no
//! key of its own; `keys.tsv` says which record became which line, and both must agree. It writes nothing.

use std::io;
use std::path::{Path, PathBuf};

use crate::answer_file::AnswerNames;
use crate::error::Error;
use crate::output::key_lines::KEYS;
use crate::output::manifest::{self, DataKind, Manifest, ManifestError, Side};
use crate::source::records::Records;
use crate::source::{Source, SourceKind, plain_name};
use crate::watch::Watch;

/// Why validation lines cannot be had.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name them")]
pub enum PreparedError {
    /// The lines cannot be listed.
    #[error(transparent)]
    Records(#[from] Error),
    #[error("cannot read `{path}`: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{0}` was prepared without validation records")]
    NoValidation(PathBuf),
    #[error("`{0}` holds files as they are, whose lines have no keys of records")]
    WithoutKeys(PathBuf),
    #[error("`{0}` is not as it was prepared: its validation lines and `keys.tsv` do not agree")]
    NotAsPrepared(PathBuf),
}

/// The validation side of a prepared directory.
#[derive(Debug)]
pub struct Validation {
    /// Its lines.
    pub lines: Records,
    /// The keys of their records, each with its line's position in `lines`, in the order of the lines.
    pub keys: Vec<(Vec<u8>, usize)>,
    /// The names of answers to all records of the side, whatever the limit.
    pub names: AnswerNames,
}

/// The manifest of `path`, if that is a prepared directory. A file of that name that is none is a
/// record like others.
///
/// # Errors
/// When it is there and cannot be read.
pub fn manifest_of(path: &Path) -> Result<Option<Manifest>, PreparedError> {
    if !path.join(manifest::FILE_NAME).is_file() {
        return Ok(None);
    }
    match Manifest::read(path) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(ManifestError::Io { path, source }) => Err(PreparedError::Read { path, source }),
        Err(_) => Ok(None),
    }
}

impl Validation {
    /// Lists the validation lines of `dir`, whose manifest is `manifest`; with a `limit` only so many
    /// from the first on: the split puts them in an order that is as good as random.
    ///
    /// # Errors
    /// When there are none, they cannot be read, or are not those of the list of keys.
    pub fn list(
        (dir, manifest): (&Path, &Manifest),
        limit: Option<usize>,
        max_spool_bytes: u64,
        watch: &dyn Watch,
    ) -> Result<Validation, PreparedError> {
        if manifest.options.kind == DataKind::Files {
            return Err(PreparedError::WithoutKeys(dir.to_owned()));
        }
        let side = manifest.val.as_ref().ok_or_else(|| PreparedError::NoValidation(dir.to_owned()))?;
        let source = |file: &str| Source {
            path: dir.join(file),
            kind: SourceKind::Lines(plain_name(file.as_bytes()).1),
        };
        let sources: Vec<Source> = side.shards.iter().map(|shard| source(&shard.file)).collect();
        let lines = Records::list(&sources, max_spool_bytes, watch)?;
        let rows = read_keys(dir, side)?;
        let names = AnswerNames::of(rows.iter().map(|row| row.key.as_slice()));
        // Both by the lines' own keys: each row finds its line.
        let mut rows: Vec<(usize, LineKey)> = rows.into_iter().enumerate().collect();
        rows.sort_unstable_by(|(_, one), (_, other)| one.cmp(other));
        let mut known: Vec<(&[u8], usize)> =
            (0..lines.len()).map(|position| (lines.key(position), position)).collect();
        known.sort_unstable();
        let agree = rows.len() == known.len()
            && rows.iter().zip(&known).all(|((_, row), (line, _))| row.line.as_slice() == *line);
        if !agree {
            return Err(PreparedError::NotAsPrepared(dir.to_owned()));
        }
        let is_within = |number: usize| limit.is_none_or(|limit| number < limit);
        let mut keys: Vec<(usize, (Vec<u8>, usize))> = rows
            .into_iter()
            .zip(known)
            .filter(|((number, _), _)| is_within(*number))
            .map(|((number, row), (_, position))| (number, (row.key, position)))
            .collect();
        keys.sort_unstable();
        let keys = keys.into_iter().map(|(_, key)| key).collect();
        Ok(Validation { lines, keys, names })
    }
}

/// A row of the list of keys.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LineKey {
    /// The key that `Records` give the line.
    line: Vec<u8>,
    /// That of the record it came from.
    key: Vec<u8>,
}

/// The rows of the validation side, in the order of its lines.
fn read_keys(dir: &Path, side: &Side) -> Result<Vec<LineKey>, PreparedError> {
    let path = dir.join(KEYS);
    let rows = std::fs::read(&path).map_err(|source| PreparedError::Read { path: path.clone(), source })?;
    let mut keys = Vec::new();
    for row in rows.split(|&byte| byte == b'\n') {
        let Some(row) = row.strip_prefix(b"val\t") else { continue };
        let key = std::str::from_utf8(row).ok().and_then(|row| line_and_key(row, side));
        keys.push(key.ok_or_else(|| PreparedError::NotAsPrepared(dir.to_owned()))?);
    }
    Ok(keys)
}

/// What the rest of a row, `line, shard, key`, says.
fn line_and_key(row: &str, side: &Side) -> Option<LineKey> {
    let mut columns = row.splitn(3, '\t');
    let line: u64 = columns.next()?.parse().ok()?;
    let shard = plain_name(columns.next()?.as_bytes()).0;
    let key = key_bytes(columns.next()?)?;
    let number = line.checked_sub(1)?;
    let prefix = if side.shards.len() > 1 { [&*shard, b"/"].concat() } else { Vec::new() };
    Some(LineKey { line: [prefix, format!("#{number}").into_bytes()].concat(), key })
}

/// The key in a JSON string as `KeyText` writes it: `\udcXX` stands for a byte that is not UTF-8.
fn key_bytes(json: &str) -> Option<Vec<u8>> {
    let mut rest = json.strip_prefix('"')?.strip_suffix('"')?;
    let mut key = Vec::with_capacity(rest.len());
    while let Some(escape) = rest.find('\\') {
        key.extend_from_slice(&rest.as_bytes()[..escape]);
        let letter = rest.as_bytes().get(escape + 1)?;
        rest = rest.get(escape + 2..)?;
        key.push(match letter {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 0x08,
            b'f' => 0x0c,
            b'u' => {
                let unit = u16::from_str_radix(rest.get(..4)?, 16).ok()?;
                rest = &rest[4..];
                // U+0000 to U+001F, or a byte.
                (unit & 0xff) as u8
            }
            plain => *plain,
        });
    }
    key.extend_from_slice(rest.as_bytes());
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::KeyText;

    proptest! {
        #[test]
        fn a_key_comes_back_as_it_was(key in proptest::collection::vec(any::<u8>(), 0..20)) {
            prop_assert_eq!(key_bytes(&KeyText(&key).to_json()).unwrap(), key);
        }
    }
}
