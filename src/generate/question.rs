//! What a model is asked about: stories in records, or the prompts of validation examples.
//!
//! Separate from `many`, which asks: a validation example already is the prompt that the model was
//! trained on, and nothing of it is made anew. Its story is only needed for the record that is written
//! beside the answer, and is found again by the template. Nothing is sent here.

use crate::generate::prompt::{messages, story_of};
use crate::generate::story::Story;
use crate::prepare;
use crate::prepare::example::{Example, Message};
use crate::prepare::prepared::Validation;
use crate::prepare::records::{RecordReader, Records};
use crate::prepare::reject::Code;
use crate::prepare::source::DEFAULT_RECORD_BYTES;
use crate::prepare::template::Template;

/// Where questions come from.
#[derive(Debug)]
pub enum Questions {
    /// Stories in records.
    Records(Records),
    /// The prompts of a prepared directory's validation lines.
    Validation(Validation),
}

/// A question.
#[derive(Debug)]
pub struct Question {
    /// The story, with the fields of its record.
    pub story: Story,
    /// What is asked.
    pub messages: Vec<Message>,
}

/// Why there is no question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoQuestion {
    /// A stable name for what is wrong.
    pub code: &'static str,
    /// The same for people.
    pub reason: String,
}

impl NoQuestion {
    fn new(code: Code, reason: impl Into<String>) -> NoQuestion {
        NoQuestion { code: code.as_str(), reason: reason.into() }
    }
}

impl Questions {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Questions::Records(records) => records.len(),
            Questions::Validation(side) => side.keys.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of the record that the question at `position`, counted from 0, comes from.
    pub fn key(&self, position: usize) -> &[u8] {
        match self {
            Questions::Records(records) => records.key(position),
            Questions::Validation(side) => &side.keys[position].0,
        }
    }

    /// The question at `position`; `template` is the one that the examples were made with.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn read(
        &self,
        position: usize,
        template: &Template,
    ) -> Result<Result<Question, NoQuestion>, prepare::Error> {
        let (records, position) = match self {
            Questions::Records(records) => (records, position),
            Questions::Validation(side) => (&side.lines, side.keys[position].1),
        };
        let mut reader = RecordReader::new(records, DEFAULT_RECORD_BYTES);
        let read = match (self, reader.bytes(position)?) {
            (Questions::Records(_), Ok(bytes)) => Story::read(bytes),
            (Questions::Validation(_), Ok(line)) => return Ok(of_line(line, template)),
            (_, Err(reason)) => Err(reason),
        };
        let story = match read {
            Ok(story) => story,
            Err(reason) => {
                let at = if reason.at.is_empty() { String::new() } else { format!(" at {}", reason.at) };
                return Ok(Err(NoQuestion::new(reason.code, format!("{}{at}", reason.reason))));
            }
        };
        Ok(match messages(template, &story) {
            Ok(messages) => Ok(Question { story, messages }),
            Err(error) => Err(NoQuestion { code: "prompt", reason: error.to_string() }),
        })
    }
}

/// The question that a training line asks: all of its messages but the last.
fn of_line(line: &[u8], template: &Template) -> Result<Question, NoQuestion> {
    let example = Example::from_line(line);
    let mut messages = example
        .map(|example| example.messages)
        .map_err(|error| NoQuestion::new(Code::JsonSyntax, error.to_string()))?;
    if messages.pop().is_none_or(|last| last.role != "assistant") {
        return Err(NoQuestion::new(Code::JsonSyntax, "the line does not end with the assistant"));
    }
    let story = story_of(template, line).unwrap_or_default();
    Ok(Question { story, messages })
}
