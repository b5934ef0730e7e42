//! What a model is asked about: stories in records, or the prompts of validation examples.
//!
//! A validation example already is the prompt that the model was trained on: nothing of it is made anew. Its
//! story is only needed for the record that is written beside the answer, and is found again by the template;
//! where that leaves several possibilities, the record says so. Nothing is sent here.

use std::path::Path;

use serde_json::{Value, json};

use crate::generate::file::{NoPlace, Place, place};
use crate::generate::prompt::{Filled, filled_in, messages};
use crate::generate::story::{Field, Story};
use ctxtune_engine::answer_file::AnswerNames;
use ctxtune_engine::line::example::{Example, Message};
use ctxtune_engine::line::template::Template;
use ctxtune_engine::output::prepared::Validation;
use ctxtune_engine::prepare;
use ctxtune_engine::record::TextField;
use ctxtune_engine::record::reject::Code;
use ctxtune_engine::record::story::{is_blank, is_prose};
use ctxtune_engine::source::DEFAULT_RECORD_BYTES;
use ctxtune_engine::source::records::{RecordReader, Records};

/// What a model is asked, one question a record.
#[derive(Debug)]
pub struct Questions {
    from: From,
    names: AnswerNames,
}

#[derive(Debug)]
enum From {
    Records(Records),
    /// The prompts of a prepared directory's validation lines.
    Validation(Validation),
}

#[derive(Debug)]
pub struct Question {
    pub story: Story,
    pub messages: Vec<Message>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoQuestion {
    pub code: &'static str,
    pub reason: String,
}

impl NoQuestion {
    fn new(code: Code, reason: impl Into<String>) -> NoQuestion {
        NoQuestion { code: code.as_str(), reason: reason.into() }
    }
}

impl Questions {
    pub fn of_records(records: Records) -> Questions {
        let names = AnswerNames::of((0..records.len()).map(|position| records.key(position)));
        Questions { from: From::Records(records), names }
    }

    pub fn of_validation(mut side: Validation) -> Questions {
        let names = std::mem::take(&mut side.names);
        Questions { from: From::Validation(side), names }
    }

    pub fn len(&self) -> usize {
        match &self.from {
            From::Records(records) => records.len(),
            From::Validation(side) => side.keys.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of the record that the question at `position`, counted from 0, comes from.
    pub fn key(&self, position: usize) -> &[u8] {
        match &self.from {
            From::Records(records) => records.key(position),
            From::Validation(side) => &side.keys[position].0,
        }
    }

    /// Where the answer to the question at `position` goes, below `dir`.
    pub fn place(&self, dir: &Path, position: usize) -> Result<Place, NoPlace> {
        place(dir, self.names.stem(self.key(position)))
    }

    /// The question at `position`; `template` is the one that the examples were made with.
    pub fn read(
        &self,
        position: usize,
        template: &Template,
    ) -> Result<Result<Question, NoQuestion>, prepare::Error> {
        let (records, position) = match &self.from {
            From::Records(records) => (records, position),
            From::Validation(side) => (&side.lines, side.keys[position].1),
        };
        let mut reader = RecordReader::new(records, DEFAULT_RECORD_BYTES);
        let read = match (&self.from, reader.bytes(position)?) {
            (From::Records(_), Ok(bytes)) => Story::read(bytes),
            (From::Validation(_), Ok(line)) => return Ok(of_line(line, template)),
            (_, Err(reason)) => Err(reason),
        };
        let story = match read {
            Ok(story) => story,
            Err(reason) => {
                let reason = reader.named(position, reason)?;
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
    let story = story_of(line, template, &messages);
    Ok(Question { story, messages })
}

/// The record that a training line was made of, as far as its prompt, `messages`, tells. It always has a story.
fn story_of(line: &[u8], template: &Template, messages: &[Message]) -> Story {
    let filled = filled_in(template, line).unwrap_or(Filled { fields: Vec::new(), is_unique: false });
    let text = |name: &str| {
        filled
            .fields
            .iter()
            .find(|(known, text)| *known == name && !text.is_empty())
            .map(|(_, text)| text.clone())
    };
    let told = text("story").filter(|story| !story.chars().all(is_blank));
    let is_guessed = !filled.is_unique || told.is_none();
    let user = messages.iter().rfind(|message| message.role == "user");
    let prompt = || user.map(|message| message.content.clone()).unwrap_or_default();
    let story = told.unwrap_or_else(prompt);
    // What would be read as a literal is written as a list of one text, which is read as that text.
    let json = if is_prose(&story) { json!(story) } else { json!([story]) };
    let others = TextField::ALL.into_iter().filter(|field| *field != TextField::Story);
    let others: Vec<(TextField, String)> =
        others.filter_map(|field| Some((field, text(field.key())?))).collect();
    let raw = |(name, value): (&str, Value)| {
        let value = serde_json::value::to_raw_value(&value).expect("a text or a list of texts");
        Field::new(name, value)
    };
    let written = others.iter().map(|(field, text)| (field.key(), json!(text)));
    let fields = std::iter::once(("story", json)).chain(written).map(raw).collect();
    Story { text: story, others, fields, is_guessed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctxtune_engine::line::convert::LineWriter;
    use ctxtune_engine::record::parser::with_single_record;

    /// The record beside an answer to the line that `message` makes of a record with this story.
    fn kept(message: &str, story: &str) -> (Value, bool) {
        let record = json!({
            "story": [story], "question": "Where is it?", "answer": "", "socialized_context": {
                "agents_names": ["A"], "socialized_context": [{ "state": "s", "observations": {}, "actions": {} }],
            },
        });
        let template = format!(
            "messages: [{{role: user, content: '{message}'}}, {{role: assistant, content: '{{context}}'}}]"
        );
        let template = Template::parse(&template, "t").unwrap();
        let mut line = Vec::new();
        let record = record.to_string();
        with_single_record(record.as_bytes(), |record| {
            LineWriter::new(&template).write_line(record, &mut line);
        })
        .unwrap();
        let story = of_line(&line, &template).unwrap().story;
        // It is read again as the same story.
        let fields: serde_json::Map<String, Value> = story
            .fields
            .iter()
            .map(|field| (field.name.clone(), serde_json::from_str(field.json.get()).unwrap()))
            .collect();
        let fields = Value::Object(fields);
        assert_eq!(Story::read(fields.to_string().as_bytes()).unwrap().text, story.text);
        (fields, story.is_guessed)
    }

    #[test]
    fn every_template_leaves_a_record_with_a_story() {
        let question = "Where is it?";
        assert_eq!(kept("{story}", "Mia left."), (json!({ "story": "Mia left." }), false));
        let both = json!({ "story": "Mia left.", "question": question });
        assert_eq!(kept("{story}|{question}", "Mia left."), (both, false));
        let longest = json!({ "story": "Mia left. Where is", "question": "it?" });
        assert_eq!(kept("{story} {question}", "Mia left."), (longest, true));
        assert_eq!(
            kept("{story}{question}", "Mia left."),
            (json!({ "story": "Mia left.Where is it?" }), true)
        );
        let without = json!({ "story": "Q: Where is it?", "question": question });
        assert_eq!(kept("Q: {question}", "Mia left."), (without, true));
        assert_eq!(kept("go", "Mia left."), (json!({ "story": "go" }), true));
        let literal = "['Mia left.']";
        assert_eq!(kept("{story}", literal), (json!({ "story": [literal] }), false));
        assert_eq!(kept("{story}", "b'a'"), (json!({ "story": ["b'a'"] }), false));
        assert_eq!(kept("{story}", "[1] Mia left."), (json!({ "story": "[1] Mia left." }), false));
    }
}
