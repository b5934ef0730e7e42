//! Values that nobody uses cannot reject a record, even where they are no JSON.
//!
//! pandas writes `NaN`, dumps of log probabilities hold `-Infinity`, crawled text holds half a surrogate
//! pair. Where such a value is not used it is overwritten, in a copy, by one that any parser takes,
//! so that no offset moves; where it is used, the record is rejected in the words of `check`. This
//! is the cold path: the quick reader steps over such values itself. It accepts nothing by itself:
//! the copy is parsed, and what is not JSON otherwise is refused there.

use std::borrow::Cow;

use crate::record::TextField;
use crate::record::diagnose::MAX_DEPTH;
use crate::record::reject::{Code, RejectReason};
use ctxtune_python_json::{Escape, Kind, Token, Tokens, half_of_a_character, non_finite};

/// Who reads a record, which decides what is used of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader<'r> {
    /// `prepare`: all that a template may ask for, and the field of `--group-by`.
    Record(Option<&'r str>),
    /// `score`: the context alone, in its record or bare.
    Context,
    /// `generate`: the texts that a template may ask for.
    Story,
    /// Nobody.
    Nobody,
}

/// What a value is, or holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Context,
    Steps,
    Step,
    Used,
    Unused,
}

impl Reader<'_> {
    fn root(self) -> Place {
        if self == Reader::Nobody { Place::Unused } else { Place::Root }
    }

    /// What the member `key` of the root holds.
    fn member(self, key: &str) -> Place {
        let is_text = TextField::ALL.iter().any(|field| field.key() == key);
        match (self, key) {
            (Reader::Record(_) | Reader::Story, _) if is_text => Place::Used,
            (Reader::Record(_), "is_correct") => Place::Used,
            (Reader::Record(_) | Reader::Context, "socialized_context") => Place::Context,
            (Reader::Record(Some(field)), key) if key == field => Place::Used,
            (Reader::Context, "agents_names") => Place::Used,
            _ => Place::Unused,
        }
    }
}

impl Place {
    /// What a container with this bracket is where a value of this kind stands.
    fn opened(self, bracket: u8) -> Place {
        match (self, bracket) {
            (Place::Root | Place::Context | Place::Step, b'{') => self,
            // A context that stands alone has its steps where a record has its context.
            (Place::Steps | Place::Context, b'[') => Place::Steps,
            (Place::Unused, _) => Place::Unused,
            _ => Place::Used,
        }
    }

    /// What the items of a list of this kind are.
    fn item(self) -> Place {
        match self {
            Place::Steps => Place::Step,
            Place::Unused => Place::Unused,
            _ => Place::Used,
        }
    }

    /// What the member `key` of an object of this kind holds.
    fn member(self, key: &str, reader: Reader<'_>) -> Place {
        match (self, key) {
            (Place::Root, key) => reader.member(key),
            (Place::Context, "agents_names") => Place::Used,
            (Place::Context, "socialized_context") => Place::Steps,
            (Place::Step, "timestep" | "state" | "observations" | "actions") => Place::Used,
            (Place::Context | Place::Step | Place::Unused, _) => Place::Unused,
            _ => Place::Used,
        }
    }
}

/// Hands every unused value of `text` to `found` that a JSON parser may refuse: what Python adds to
/// JSON, and numbers. Ends early where `text` is not what Python's `json` takes.
///
/// # Errors
/// When a used value, or any key, is none that JSON has.
pub fn visit(text: &str, reader: Reader<'_>, mut found: impl FnMut(Token)) -> Result<(), RejectReason> {
    let mut tokens = Tokens::new(text, MAX_DEPTH);
    let mut open: Vec<Place> = Vec::new();
    let mut value = reader.root();
    // Whoever parses the text says what is wrong with it.
    while let Ok(Some(token)) = tokens.next_token() {
        let written = &text[token.start..token.end];
        match token.kind {
            Kind::Open => {
                let place = value.opened(written.as_bytes()[0]);
                open.push(place);
                value = place.item();
            }
            Kind::Close => _ = open.pop(),
            Kind::Comma => value = open.last().map_or(Place::Used, |place| place.item()),
            Kind::Key(None) => {
                let place = open.last().copied().unwrap_or(Place::Used);
                value = place.member(&unescaped(written), reader);
            }
            Kind::Key(Some(at)) => return Err(half(text, at)),
            Kind::Colon | Kind::Word | Kind::String(None) => {}
            Kind::String(Some(_)) | Kind::NonFinite | Kind::Number if value == Place::Unused => found(token),
            Kind::String(Some(at)) => return Err(half(text, at)),
            Kind::NonFinite => {
                let at = shown_place(text, token.start);
                return Err(RejectReason::new(Code::NonFinite, non_finite(written), at));
            }
            // A used number must be one that is held exactly: the parser says so.
            Kind::Number => {}
        }
    }
    Ok(())
}

/// `text` with every unused value that a parser may refuse overwritten, byte for byte in its place.
///
/// # Errors
/// As [`visit`].
pub fn overwritten(text: &str, reader: Reader<'_>) -> Result<Vec<u8>, RejectReason> {
    let mut copy = text.as_bytes().to_vec();
    visit(text, reader, |token| {
        // A string of blanks has the length of any token but a digit.
        if let [first, inside @ .., last] = &mut copy[token.start..token.end] {
            (*first, *last) = (b'"', b'"');
            inside.fill(b' ');
        }
    })?;
    Ok(copy)
}

/// The key in its quotes, as it reads.
fn unescaped(quoted: &str) -> Cow<'_, str> {
    let inside = &quoted[1..quoted.len() - 1];
    if !inside.contains('\\') {
        return Cow::Borrowed(inside);
    }
    serde_json::from_str(quoted).map_or(Cow::Borrowed(inside), Cow::Owned)
}

fn half(text: &str, at: usize) -> RejectReason {
    let reason = match Escape::at(text.as_bytes(), at) {
        Ok(Escape::Half(unit)) => half_of_a_character(unit),
        _ => "half of a character".to_owned(),
    };
    RejectReason::new(Code::LoneSurrogate, reason, shown_place(text, at))
}

/// The byte at `at` by line and column.
fn shown_place(text: &str, at: usize) -> String {
    let before = &text.as_bytes()[..at];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = at - before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1) + 1;
    format!("line {line} column {column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, reader: Reader<'_>, expected: &str) {
        let copy = overwritten(text, reader).expect(text);
        assert_eq!(String::from_utf8(copy).unwrap(), expected);
        assert_eq!(expected.len(), text.len());
    }

    const RECORD: Reader<'_> = Reader::Record(Some("group"));

    #[test]
    fn unused_values_are_overwritten_in_their_place() {
        check(
            r#"{"a": NaN, "b": [-Infinity, Infinity]}"#,
            RECORD,
            r#"{"a": " ", "b": ["       ", "      "]}"#,
        );
        check(
            r#"{"a": {"story": 1e400, "b": -12345678901234567890}, "c": [{}, true, 7]}"#,
            RECORD,
            r#"{"a": {"story": "   ", "b": "                   "}, "c": [{}, true, 7]}"#,
        );
        check(r#"["\ud800x", "\ud83d\ude00"]"#, Reader::Nobody, r#"["       ", "\ud83d\ude00"]"#);
        let used =
            r#"{"story": 1e400, "is_correct": 12, "group": 20, "question": [30], "answer": {"x": 40}}"#;
        check(used, RECORD, used);
        check(
            r#"{"agents_names": NaN, "socialized_context": {"x": 10, "socialized_context": [{"y": NaN}, {"timestep": 30}]}}"#,
            RECORD,
            r#"{"agents_names": " ", "socialized_context": {"x": "", "socialized_context": [{"y": " "}, {"timestep": 30}]}}"#,
        );
        // Python stops here too: what is left is the parser's to refuse.
        check(r#"{"a": NaN, "b": 01, "c": NaN}"#, RECORD, r#"{"a": " ", "b": 01, "c": NaN}"#);
        check(r#"{"a": NaN5}"#, RECORD, r#"{"a": " "5}"#);
        check(r#"{"a": 1e400.5}"#, RECORD, r#"{"a": "   ".5}"#);
        check(r#"{"a": "\ud800"x}"#, RECORD, r#"{"a": "      "x}"#);
    }

    #[test]
    fn each_reader_has_its_own_use_of_a_record() {
        let text = r#"{"story": NaN, "agents_names": 10, "socialized_context": [{"x": NaN, "state": 10}]}"#;
        let expected =
            r#"{"story": " ", "agents_names": 10, "socialized_context": [{"x": " ", "state": 10}]}"#;
        check(text, Reader::Context, expected);
        let text = r#"{"story": 10, "is_correct": NaN, "socialized_context": {"agents_names": NaN}}"#;
        let expected = r#"{"story": 10, "is_correct": " ", "socialized_context": {"agents_names": " "}}"#;
        check(text, Reader::Story, expected);
    }

    #[test]
    fn used_values_and_keys_reject_by_name() {
        let refused = |text: &str, reader: Reader<'_>, code: Code, at: &str| {
            let reason = overwritten(text, reader).expect_err(text);
            assert_eq!((reason.code, reason.at.as_str()), (code, at), "{text}: {reason:?}");
        };
        let (non_finite, half) = (Code::NonFinite, Code::LoneSurrogate);
        refused("{\"x\": 1,\n \"story\": NaN}", RECORD, non_finite, "line 2 column 11");
        refused(r#"{"st\u006fry": NaN}"#, RECORD, non_finite, "line 1 column 16");
        refused(r#"{"group": -Infinity}"#, RECORD, non_finite, "line 1 column 11");
        refused(r#"{"answer": ["\udc00"]}"#, RECORD, half, "line 1 column 14");
        refused(r#"{"x": [{"\ud800": 1}]}"#, RECORD, half, "line 1 column 10");
        refused(r#"{"x": [{"\ud800": 1}]}"#, Reader::Nobody, half, "line 1 column 10");
        let inner = r#"{"socialized_context": {"socialized_context": [{"observations": {"A": "\ud800"}}]}}"#;
        refused(inner, RECORD, half, "line 1 column 72");
        refused(inner, Reader::Context, half, "line 1 column 72");
        refused(
            r#"{"socialized_context": [{"state": Infinity}]}"#,
            Reader::Context,
            non_finite,
            "line 1 column 35",
        );
        refused(r#"{"agents_names": [NaN]}"#, Reader::Context, non_finite, "line 1 column 19");
        refused("NaN", RECORD, non_finite, "line 1 column 1");
    }

    #[test]
    fn depth_is_no_danger() {
        let bomb = "[".repeat(1_000_000);
        check(&bomb, Reader::Nobody, &bomb);
    }
}
