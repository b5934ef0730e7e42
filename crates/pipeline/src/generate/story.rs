//! A record's bytes into what is asked about it: its story, and its fields as they were written.
//!
//! Separate from the engine's reader, since a story needs no context yet: a line `{"story": "…"}` is
//! enough. The story's own rules are the engine's. Other fields are carried as raw JSON, so that what
//! is written beside a new context is what was read; what is no JSON there becomes `null`, and is counted.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};
use serde_json::value::RawValue;

use ctxtune_engine::record::reject::{Code, RejectReason};
use ctxtune_engine::record::story::{self, is_blank};
use ctxtune_engine::record::unused::{self, Reader};
use ctxtune_engine::record::{TextField, story_reason};
use ctxtune_python_json::Kind;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A story with the record that it came in.
#[derive(Debug, Clone, Default)]
pub struct Story {
    pub text: String,
    /// The other texts of its record that a template may ask for, as far as there are any.
    pub others: Vec<(TextField, String)>,
    pub fields: Vec<Field>,
    /// Whether another story could be meant: it was taken from a prompt whose template does not tell.
    pub is_guessed: bool,
}

/// A field of a record, as it is written beside a new context.
#[derive(Debug, Clone)]
pub struct Field {
    pub name: String,
    pub json: Box<RawValue>,
    /// The values in it that are no JSON, and are `null` now.
    pub nulls: u64,
}

impl Field {
    pub fn new(name: &str, json: Box<RawValue>) -> Field {
        Field { name: name.to_owned(), json, nulls: 0 }
    }

    /// The field `name` with the value `written`, which may hold what only Python's `json` reads.
    fn carried(name: String, written: &str) -> Result<Field, RejectReason> {
        let (mut json, mut copied, mut nulls) = (String::with_capacity(written.len()), 0, 0);
        unused::visit(written, Reader::Nobody, |token| {
            // A number of any size is JSON.
            if token.kind != Kind::Number {
                json.push_str(&written[copied..token.start]);
                json.push_str("null");
                copied = token.end;
                nulls += 1;
            }
        })?;
        json.push_str(&written[copied..]);
        let json = RawValue::from_string(json)
            .map_err(|error| RejectReason::new(Code::JsonSyntax, error.to_string(), name.clone()))?;
        Ok(Field { name, json, nulls })
    }
}

impl Story {
    /// What a template that asks for `field` gets, if there is anything.
    pub fn get(&self, field: TextField) -> Option<&str> {
        match field {
            TextField::Story => Some(&self.text),
            _ => self.others.iter().find(|(known, _)| *known == field).map(|(_, text)| text.as_str()),
        }
    }

    /// The story that `text` is: prose, or a list of strings as Python or JSON writes it.
    pub fn of(text: &str) -> Result<Story, RejectReason> {
        let json = serde_json::value::to_raw_value(text);
        let json = json.map_err(|error| RejectReason::new(Code::JsonSyntax, error.to_string(), "story"))?;
        Ok(Story { text: text_of(&json)?, fields: vec![Field::new("story", json)], ..Story::default() })
    }

    pub fn read(bytes: &[u8]) -> Result<Story, RejectReason> {
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        let text = std::str::from_utf8(bytes).map_err(|error| {
            RejectReason::new(Code::Encoding, "not UTF-8", format!("byte {}", error.valid_up_to() + 1))
        })?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(RejectReason::new(Code::Empty, "no text at all", ""));
        }
        let fit = unused::overwritten(text, Reader::Story)?;
        let Fields(fields) = serde_json::from_slice(&fit).map_err(|error| refusal(&error))?;
        let find = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, raw)| *raw);
        let missing = || RejectReason::new(Code::MissingKey, "the key `story` is missing", "story");
        let story = text_of(find("story").ok_or_else(missing)?)?;
        let others = TextField::ALL.into_iter().filter(|field| *field != TextField::Story);
        let others = others
            .filter_map(|field| Some(string(find(field.key())?, field.key()).map(|text| (field, text))));
        let others = others.collect::<Result<_, _>>()?;
        let fields = fields.into_iter().map(|(name, raw)| {
            // Nothing was moved when the record was made fit to parse.
            let start = raw.get().as_ptr().addr() - fit.as_ptr().addr();
            Field::carried(name, &text[start..start + raw.get().len()])
        });
        Ok(Story { text: story, others, fields: fields.collect::<Result<_, _>>()?, is_guessed: false })
    }
}

fn refusal(error: &serde_json::Error) -> RejectReason {
    let message = error.to_string();
    let words = message.split(" at line ").next().unwrap_or(&message);
    let code = match words {
        _ if error.is_data() && words.starts_with(TWICE) => Code::DuplicateKey,
        _ if error.is_data() => Code::WrongType,
        _ => Code::JsonSyntax,
    };
    RejectReason::new(code, words, format!("line {} column {}", error.line(), error.column()))
}

fn string(raw: &RawValue, name: &str) -> Result<String, RejectReason> {
    serde_json::from_str(raw.get()).map_err(|_| RejectReason::new(Code::WrongType, "expected a string", name))
}

fn text_of(raw: &RawValue) -> Result<String, RejectReason> {
    let text = if raw.get().starts_with('[') {
        let sentences: Vec<String> = serde_json::from_str(raw.get())
            .map_err(|_| RejectReason::new(Code::WrongType, "expected a list of strings", "story"))?;
        let text = sentences.join(" ");
        story::check_is_there(&text).map_err(|error| story_reason(&text, error))?;
        text
    } else {
        let text = string(raw, "story")?;
        let mut joined = String::new();
        let (story, _) = story::read(&text, &mut joined).map_err(|error| story_reason(&text, error))?;
        story.to_owned()
    };
    if text.chars().all(is_blank) {
        return Err(RejectReason::new(Code::EmptyStory, "the story has no text", "story"));
    }
    Ok(text)
}

const TWICE: &str = "the key is there twice: ";

/// The fields of an object in their order, each name once.
struct Fields<'de>(Vec<(String, &'de RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Fields<'de>, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a record, which is a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields: Vec<(String, &RawValue)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(de::Error::custom(format!("{TWICE}`{name}`")));
            }
            fields.push((name, value));
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_is_read_in_every_form() {
        let check = |json: &str, expected: &str| {
            let story = Story::read(json.as_bytes()).unwrap();
            assert_eq!(story.text, expected, "{json}");
        };
        check(r#"{"story": "Mia left."}"#, "Mia left.");
        check(r#"{"story": ["Mia left.", "Noah ran."], "x": 1e2}"#, "Mia left. Noah ran.");
        check(r#"{"story": "['Mia left.', 'Noah ran.']"}"#, "Mia left. Noah ran.");
        check("\u{feff}{\"story\": \"Mia left.\"}\n", "Mia left.");
        assert_eq!(Story::of("('Mia left.',)").unwrap().text, "Mia left.");
        assert_eq!(Story::of("Mia \"left\".\n").unwrap().fields[0].json.get(), "\"Mia \\\"left\\\".\\n\"");
    }

    #[test]
    fn fields_are_carried_as_written() {
        let json = r#"{"story":"s","n":1.50,"big":123456789012345678901,"question":"q","o":{ "a" : [ ] }}"#;
        let story = Story::read(json.as_bytes()).unwrap();
        let fields: Vec<(&str, &str)> =
            story.fields.iter().map(|field| (field.name.as_str(), field.json.get())).collect();
        assert_eq!(fields[1..3], [("n", "1.50"), ("big", "123456789012345678901")]);
        assert_eq!(fields[4], ("o", "{ \"a\" : [ ] }"));
        assert_eq!((story.get(TextField::Question), story.get(TextField::Answer)), (Some("q"), None));
    }

    #[test]
    fn what_is_no_json_is_carried_as_null_and_counted() {
        let json = r#"{"n": NaN, "story": "s", "o": {"a": [1e400, -Infinity, "\ud83d\ude00"], "b": "\udc00 x"},
            "socialized_context": {"agents_names": NaN}, "é": [{"NaN": "NaN"}]}"#;
        let story = Story::read(format!("\u{feff}{json}").as_bytes()).unwrap();
        let fields: Vec<(&str, &str, u64)> =
            story.fields.iter().map(|field| (field.name.as_str(), field.json.get(), field.nulls)).collect();
        let expected = [
            ("n", "null", 1),
            ("story", "\"s\"", 0),
            ("o", r#"{"a": [1e400, null, "\ud83d\ude00"], "b": null}"#, 2),
            ("socialized_context", r#"{"agents_names": null}"#, 1),
            ("é", r#"[{"NaN": "NaN"}]"#, 0),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_has_no_story_is_refused() {
        let check = |json: &[u8], code: Code| {
            let reason = Story::read(json).unwrap_err();
            assert_eq!(reason.code, code, "{reason:?}");
        };
        check(b"", Code::Empty);
        check(b"{", Code::JsonSyntax);
        check(b"[1]", Code::WrongType);
        check(b"{\"story\": \"\xff\"}", Code::Encoding);
        check(br#"{"question": "q"}"#, Code::MissingKey);
        check(br#"{"story": 7}"#, Code::WrongType);
        check(br#"{"story": ["a", 7]}"#, Code::WrongType);
        check(br#"{"story": "s", "story": "t"}"#, Code::DuplicateKey);
        check(br#"{"story": "['a'"}"#, Code::StoryLiteral);
        check(br#"{"story": " \n"}"#, Code::EmptyStory);
        check(br#"{"story": "s", "question": 1}"#, Code::WrongType);
        check(br#"{"story": "s", "question": NaN}"#, Code::NonFinite);
        check(br#"{"story": "\ud800"}"#, Code::LoneSurrogate);
        check(br#"{"story": "s", "x": [{"\ud800": 1}]}"#, Code::LoneSurrogate);
        check(br#"{"story": "s", "x": NaN, "y": 01}"#, Code::JsonSyntax);
        check(br#"{"story": " None "}"#, Code::StoryLiteral);
        check(br#"{"story": ["nan"]}"#, Code::StoryLiteral);
        check(br#"{"story": "['a' 'b']"}"#, Code::StoryLiteral);
    }
}
