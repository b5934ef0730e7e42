//! The reference: records, or what `prepare` made of them, by the same keys.
//!
//! Of a prepared directory the validation side is read, since the model has not been trained on it: the
//! context is in the assistant's message. Anything else is a source as `prepare` reads it. A record whose
//! context cannot be used is no reference, and is named.

use std::path::Path;
use std::sync::Arc;

use crate::answer_file::AnswerNames;
use crate::line::example::Example;
use crate::output::prepared::{Validation, manifest_of};
use crate::record::context::Context;
use crate::record::parser::{Parser, padded};
use crate::record::reject::{Code, RejectReason};
use crate::score::{Error, Options, Watched, source};
use crate::source::names::NameLog;
use crate::source::records::{RecordReader, Records};

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
    /// The names of the answers to them.
    pub names: AnswerNames,
}

impl Gold {
    /// Lists the references at `path`.
    ///
    /// # Errors
    /// When there is none, or it cannot be listed.
    pub fn list(path: &Path, options: &Options, watch: &Watched<'_>) -> Result<Gold, Error> {
        match manifest_of(path)? {
            Some(manifest) => {
                let from = (path, &manifest);
                let Validation { lines, mut keys, names } =
                    Validation::list(from, options.limit, options.max_spool_bytes, watch)?;
                keys.sort_unstable();
                Ok(Gold { form: Form::Prepared, records: lines, keys, names })
            }
            None => {
                let source = source(path, options.containers)?;
                let records = Records::list(&[source], options.max_spool_bytes, watch)?;
                let mut keys: Vec<(Vec<u8>, usize)> =
                    (0..records.len()).map(|position| (records.key(position).to_vec(), position)).collect();
                keys.sort_unstable();
                let names = AnswerNames::of(keys.iter().map(|(key, _)| key.as_slice()));
                Ok(Gold { form: Form::Records, keys, records, names })
            }
        }
    }

    /// Each key and the position of its record, by key.
    pub fn keys(&self) -> &[(Vec<u8>, usize)] {
        &self.keys
    }

    /// What lies in the source and is not read.
    pub fn not_read(&self) -> &Arc<NameLog> {
        self.records.not_read()
    }

    /// One thread's tools to read references.
    pub fn reader(&self, max_record_bytes: usize) -> GoldReader<'_> {
        let records = RecordReader::new(&self.records, max_record_bytes);
        GoldReader { form: self.form, records, parser: Parser::default() }
    }
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
            self.parser.with_context_again(&mut padded(answer.as_bytes()), answer.len(), &mut look)
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
    use super::*;

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
}
