//! The reference: records, or what `prepare` made of them, by the same keys.
//!
//! Of a prepared directory the validation side is read, since the model has not been trained on it: the
//! context is in the assistant's message, the key in `keys.tsv`. Anything else is a source as `prepare`
//! reads it. A record whose context cannot be used is no reference, and is named.

use std::path::Path;

use crate::manifest::{self, Manifest, ManifestError, Side};
use crate::prepare::context::Context;
use crate::prepare::convert::{Parser, padded};
use crate::prepare::example::Example;
use crate::prepare::records::{RecordReader, Records};
use crate::prepare::reject::{Code, RejectReason};
use crate::prepare::source::{Compression, Source, SourceKind};
use crate::score::{Error, Options, Watched, source};

const KEYS: &str = "keys.tsv";

/// What the reference was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Records.
    Records,
    /// The validation side of a prepared directory.
    Prepared,
}

/// The references by their keys.
#[derive(Debug)]
pub struct Gold {
    /// What they were read from.
    pub form: Form,
    records: Records,
    /// Keys and positions, by key.
    keys: Vec<(Vec<u8>, usize)>,
}

impl Gold {
    /// Lists the references at `path`.
    ///
    /// # Errors
    /// When there is none, or it cannot be listed.
    pub fn list(path: &Path, options: &Options, watch: &Watched<'_>) -> Result<Gold, Error> {
        match prepared(path)? {
            Some(manifest) => Gold::list_prepared(path, &manifest, options, watch),
            None => {
                let source = source(path)?;
                let records = Records::list(&[source], options.max_spool_bytes, watch)?;
                let keys = (0..records.len()).map(|position| (records.key(position).to_vec(), position));
                Ok(Gold { form: Form::Records, keys: sorted(keys.collect()), records })
            }
        }
    }

    fn list_prepared(
        dir: &Path,
        manifest: &Manifest,
        options: &Options,
        watch: &Watched<'_>,
    ) -> Result<Gold, Error> {
        let side = manifest.val.as_ref().ok_or_else(|| Error::NoValidation(dir.to_owned()))?;
        let source = |file: &str| Source { path: dir.join(file), kind: SourceKind::Lines(Compression::None) };
        let sources: Vec<Source> = side.shards.iter().map(|shard| source(&shard.file)).collect();
        let records = Records::list(&sources, options.max_spool_bytes, watch)?;
        let mut keys = read_keys(dir, side)?;
        // Both in the order of the lines' own keys: each finds its line.
        let lines = (0..records.len()).map(|position| (records.key(position).to_vec(), position));
        let lines = sorted(lines.collect());
        keys.sort_unstable();
        let agree =
            keys.len() == lines.len() && keys.iter().zip(&lines).all(|((line, _), (known, _))| line == known);
        if !agree {
            return Err(Error::NotAsPrepared(dir.to_owned()));
        }
        let keys = keys.into_iter().zip(lines).map(|((_, key), (_, position))| (key, position));
        Ok(Gold { form: Form::Prepared, keys: sorted(keys.collect()), records })
    }

    /// Each key and the position of its record, by key.
    pub fn keys(&self) -> &[(Vec<u8>, usize)] {
        &self.keys
    }

    /// One thread's tools to read references.
    pub fn reader(&self, max_record_bytes: usize) -> GoldReader<'_> {
        let records = RecordReader::new(&self.records, max_record_bytes);
        GoldReader { form: self.form, records, parser: Parser::default() }
    }
}

/// The manifest of `path`, if that is a prepared directory. A file of that name that is none is a
/// record like others.
fn prepared(path: &Path) -> Result<Option<Manifest>, Error> {
    if !path.join(manifest::FILE_NAME).is_file() {
        return Ok(None);
    }
    match Manifest::read(path) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(ManifestError::Io { path, source }) => Err(Error::Read { path, source }),
        Err(_) => Ok(None),
    }
}

fn sorted(mut keys: Vec<(Vec<u8>, usize)>) -> Vec<(Vec<u8>, usize)> {
    keys.sort_unstable();
    keys
}

/// The key that `Records` give a line, and that of the record it came from.
type LineKey = (Vec<u8>, Vec<u8>);

/// The keys of every line of the side.
fn read_keys(dir: &Path, side: &Side) -> Result<Vec<LineKey>, Error> {
    let path = dir.join(KEYS);
    let rows = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let mut keys = Vec::new();
    for row in rows.split(|&byte| byte == b'\n') {
        let Some(row) = row.strip_prefix(b"val\t") else { continue };
        let key = std::str::from_utf8(row).ok().and_then(|row| line_and_key(row, side));
        keys.push(key.ok_or_else(|| Error::NotAsPrepared(dir.to_owned()))?);
    }
    Ok(keys)
}

/// What the rest of a row, `line, shard, key`, says.
fn line_and_key(row: &str, side: &Side) -> Option<LineKey> {
    let mut columns = row.splitn(3, '\t');
    let line: u64 = columns.next()?.parse().ok()?;
    let shard = columns.next()?;
    let key = key_bytes(columns.next()?)?;
    let number = line.checked_sub(1)?;
    let line = if side.shards.len() > 1 { format!("{shard}/#{number}") } else { format!("#{number}") };
    Some((line.into_bytes(), key))
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

/// Reads references: one thread's tools.
pub struct GoldReader<'g> {
    form: Form,
    records: RecordReader<'g>,
    parser: Parser,
}

impl GoldReader<'_> {
    /// Hands the context at `position` to `look`, or gives why there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn with_context<T>(
        &mut self,
        position: usize,
        mut look: impl FnMut(&Context<'_>) -> T,
    ) -> Result<Result<T, RejectReason>, Error> {
        if self.form == Form::Records {
            return Ok(self.records.with_context(position, look)?);
        }
        let answer = match self.records.bytes(position)? {
            Ok(line) => assistant(line),
            Err(reason) => Err(reason),
        };
        Ok(answer.and_then(|answer| {
            let result = self.parser.with_context(&mut padded(answer.as_bytes()), answer.len(), &mut look);
            result.map_err(|failure| failure.explain(answer.as_bytes()))
        }))
    }
}

/// The context in the assistant's message of a training line: a template may set words around it.
fn assistant(line: &[u8]) -> Result<String, RejectReason> {
    let syntax = |reason: String| RejectReason::new(Code::JsonSyntax, reason, "");
    let example = Example::from_line(line).map_err(|error| syntax(error.to_string()))?;
    let message = example.messages.into_iter().rfind(|message| message.role == "assistant");
    let content = message.ok_or_else(|| syntax("the line has no assistant".to_owned()))?.content;
    let braces = content.find('{').zip(content.rfind('}')).filter(|(start, end)| start < end);
    let context = braces.map(|(start, end)| content[start..=end].to_owned());
    context.ok_or_else(|| syntax("the assistant's message holds no context".to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::KeyText;

    #[test]
    fn the_context_is_found_among_a_templates_words() {
        let line = |content: &str| {
            serde_json::json!({ "messages": [{ "role": "user", "content": "{}" }, { "role": "assistant", "content": content }] })
                .to_string()
        };
        assert_eq!(assistant(line("The context:\n{\"a\": {}}\n").as_bytes()).unwrap(), "{\"a\": {}}");
        assert_eq!(assistant(line("}{").as_bytes()).unwrap_err().code, Code::JsonSyntax);
        assert_eq!(assistant(b"{}").unwrap_err().code, Code::JsonSyntax);
    }

    proptest! {
        #[test]
        fn a_key_comes_back_as_it_was(key in proptest::collection::vec(any::<u8>(), 0..20)) {
            prop_assert_eq!(key_bytes(&KeyText(&key).to_json()).unwrap(), key);
        }
    }
}
