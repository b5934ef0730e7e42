//! The quick reader: records in the common shape, in one pass over the text.
//!
//! simd-json builds a tape of everything and unescapes every string, used or not; more
//! than half of a real record is not used. This scanner checks all of the JSON, but only
//! steps over what no template asks for. It never judges: whatever is unusual (any fault,
//! a repeated key, a float with an exponent, deep nesting, a story that is a list) makes it
//! decline, and the general path decides. In tests simd-json is its oracle.
//!
//! Measured on 100,000 records: see ARCHITECTURE.md.

use memchr::memchr2;

use crate::json::plain_prefix;
use crate::prepare::record::{AgentText, Context, Record, Step, Timestep, first_duplicate, split_item};
use crate::prepare::story;

/// Deeper values are left to the general path.
const MAX_DEPTH: usize = 32;

/// More digits could leave 64 bits, or need rounding that must be the parser's.
const MAX_DIGITS: usize = 17;

/// Room for what the scanner cannot borrow from the text.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// For unescaped strings; at least as long as the text.
    pub strings: &'a mut [u8],
    /// For a story that has to be joined.
    pub story: &'a mut String,
}

/// Reads the record in `text`, or declines.
///
/// `group_field` names a further top-level string to borrow.
pub fn read<'a>(text: &'a str, group_field: Option<&str>, scratch: Scratch<'a>) -> Option<Record<'a>> {
    let Scratch { strings, story } = scratch;
    let mut scanner = Scanner { text, position: 0, strings, is_escaped: false, keys: Vec::with_capacity(16) };
    let record = scanner.record(group_field, story)?;
    scanner.is_at_end().then_some(record)
}

struct Scanner<'a> {
    text: &'a str,
    position: usize,
    strings: &'a mut [u8],
    /// Whether some string taken so far holds a character that JSON escapes.
    is_escaped: bool,
    /// The keys of the object at hand; a vector of its own would be an allocation an object.
    keys: Vec<&'a str>,
}

impl<'a> Scanner<'a> {
    fn record(&mut self, group_field: Option<&str>, story_text: &'a mut String) -> Option<Record<'a>> {
        let (mut story, mut question, mut answer, mut is_correct) = (None, None, None, None);
        let (mut context, mut group_text) = (None, None);
        let mut root_keys = Vec::with_capacity(16);
        self.fields(|scanner, key| {
            root_keys.push(key);
            let start = scanner.position;
            match key {
                "story" => story = Some(scanner.string()?),
                "question" => question = Some(scanner.string()?),
                "answer" => answer = Some(scanner.string()?),
                "is_correct" => is_correct = scanner.optional_bool()?,
                "socialized_context" => context = Some(scanner.context()?),
                _ => scanner.skip_value(0)?,
            }
            if group_field == Some(key) {
                scanner.position = start;
                group_text = Some(scanner.string()?);
            }
            Some(())
        })?;
        if first_duplicate(&mut root_keys).is_some() || (group_field.is_some() && group_text.is_none()) {
            return None;
        }
        Some(Record {
            story: story_of(story?, story_text)?,
            question: question?,
            answer: answer?,
            is_correct,
            context: context?,
            group_field: group_text,
        })
    }

    fn context(&mut self) -> Option<Context<'a>> {
        let was_escaped = std::mem::replace(&mut self.is_escaped, false);
        let (mut names, mut steps, mut pairs) = (None, None, Vec::with_capacity(64));
        let mut context_keys = Vec::with_capacity(4);
        self.fields(|scanner, key| {
            context_keys.push(key);
            match key {
                "agents_names" => names = Some(scanner.names()?),
                // A second list would append to the first one's pairs; it declines below in any case.
                "socialized_context" => steps = Some(scanner.steps(&mut pairs)?),
                _ => scanner.skip_value(1)?,
            }
            Some(())
        })?;
        if first_duplicate(&mut context_keys).is_some() {
            return None;
        }
        let is_plain = !self.is_escaped;
        self.is_escaped |= was_escaped;
        Context::new(names?, steps?, pairs, is_plain)
    }

    fn names(&mut self) -> Option<Vec<&'a str>> {
        let mut names = Vec::with_capacity(4);
        self.items(|scanner| {
            names.push(scanner.string()?);
            Some(())
        })?;
        Some(names)
    }

    fn steps(&mut self, pairs: &mut Vec<AgentText<'a>>) -> Option<Vec<Step<'a>>> {
        let mut steps = Vec::with_capacity(16);
        self.items(|scanner| {
            let step = scanner.step(steps.len(), pairs)?;
            steps.push(step);
            Some(())
        })?;
        Some(steps)
    }

    fn step(&mut self, index: usize, pairs: &mut Vec<AgentText<'a>>) -> Option<Step<'a>> {
        let mut timestep = Timestep::Number(index as i128);
        let (mut state, mut observations, mut actions) = (None, None, None);
        let mut has_timestep = false;
        self.fields(|scanner, key| {
            match key {
                "timestep" if !has_timestep => {
                    timestep = scanner.timestep(timestep)?;
                    has_timestep = true;
                }
                "state" if state.is_none() => state = Some(scanner.string()?),
                "observations" if observations.is_none() => observations = Some(scanner.pairs(pairs)?),
                "actions" if actions.is_none() => actions = Some(scanner.pairs(pairs)?),
                // An unused key might be there twice, and a used one is: not the common shape.
                _ => return None,
            }
            Some(())
        })?;
        Some(Step::new(timestep, state?, observations?, actions?))
    }

    fn timestep(&mut self, place: Timestep<'a>) -> Option<Timestep<'a>> {
        match self.next_byte()? {
            b'"' => self.string().map(Timestep::Text),
            b'n' => self.word("null").map(|()| place),
            _ => {
                let digits = self.number()?;
                // A float, and the integer -0, are not for this path.
                if digits.contains('.') || digits == "-0" {
                    None
                } else {
                    digits.parse().ok().map(Timestep::Number)
                }
            }
        }
    }

    /// Appends the pairs of one observations or actions value; gives their range.
    fn pairs(&mut self, pairs: &mut Vec<AgentText<'a>>) -> Option<(usize, usize)> {
        let start = pairs.len();
        match self.next_byte()? {
            b'{' => self.fields(|scanner, agent| {
                pairs.push((agent, scanner.string()?));
                Some(())
            })?,
            _ => self.items(|scanner| {
                pairs.push(split_item(scanner.string()?).ok()?);
                Some(())
            })?,
        }
        self.keys.clear();
        self.keys.extend(pairs[start..].iter().map(|(agent, _)| *agent));
        if first_duplicate(&mut self.keys).is_some() { None } else { Some((start, pairs.len())) }
    }

    fn optional_bool(&mut self) -> Option<Option<bool>> {
        match self.next_byte()? {
            b't' => self.word("true").map(|()| Some(true)),
            b'f' => self.word("false").map(|()| Some(false)),
            _ => self.word("null").map(|()| None),
        }
    }

    /// Calls `each` with every key of the object here; `each` takes the value.
    fn fields(&mut self, mut each: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        if self.next_byte()? == b'}' {
            return self.take(b'}');
        }
        loop {
            let key = self.string()?;
            self.take(b':')?;
            each(self, key)?;
            match self.next_byte()? {
                b',' => self.take(b',')?,
                _ => return self.take(b'}'),
            }
        }
    }

    /// Calls `each` at every item of the list here; `each` takes the item.
    fn items(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(b'[')?;
        if self.next_byte()? == b']' {
            return self.take(b']');
        }
        loop {
            each(self)?;
            match self.next_byte()? {
                b',' => self.take(b',')?,
                _ => return self.take(b']'),
            }
        }
    }

    /// Steps over a value without keeping any of it.
    fn skip_value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.next_byte()? {
            b'"' => self.skip_string(),
            b'{' => self.fields_skipping(depth),
            b'[' => self.items(|scanner| scanner.skip_value(depth + 1)),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number().map(drop),
        }
    }

    fn fields_skipping(&mut self, depth: usize) -> Option<()> {
        self.take(b'{')?;
        if self.next_byte()? == b'}' {
            return self.take(b'}');
        }
        loop {
            self.skip_string()?;
            self.take(b':')?;
            self.skip_value(depth + 1)?;
            match self.next_byte()? {
                b',' => self.take(b',')?,
                _ => return self.take(b'}'),
            }
        }
    }

    /// The next byte that is not blank, not yet taken.
    fn next_byte(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        let first = *bytes.get(self.position)?;
        if first > b' ' {
            return Some(first);
        }
        // One blank behind each comma and colon is what `json.dumps` writes.
        if first == b' ' && *bytes.get(self.position + 1)? > b' ' {
            self.position += 1;
            return bytes.get(self.position).copied();
        }
        self.skip_blanks();
        bytes.get(self.position).copied()
    }

    fn skip_blanks(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = bytes.get(self.position) {
            self.position += 1;
            // Indentation comes in runs.
            while bytes.get(self.position..self.position + 8).is_some_and(|run| run == b"        ") {
                self.position += 8;
            }
        }
    }

    fn take(&mut self, expected: u8) -> Option<()> {
        if self.next_byte()? != expected {
            return None;
        }
        self.position += 1;
        Some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.next_byte()?;
        if !self.text.as_bytes()[self.position..].starts_with(word.as_bytes()) {
            return None;
        }
        self.position += word.len();
        Some(())
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_blanks();
        self.position == self.text.len()
    }

    /// The text of a plain number: an integer, or digits with a point.
    fn number(&mut self) -> Option<&'a str> {
        self.next_byte()?;
        let start = self.position;
        let bytes = self.text.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let whole = start + usize::from(bytes[start] == b'-');
        let mut count = digits(whole);
        let mut end = whole + count;
        if count == 0 || (count > 1 && bytes[whole] == b'0') {
            return None;
        }
        if bytes.get(end) == Some(&b'.') {
            let decimals = digits(end + 1);
            if decimals == 0 {
                return None;
            }
            count += decimals;
            end += 1 + decimals;
        }
        if count > MAX_DIGITS || matches!(bytes.get(end), Some(b'e' | b'E')) {
            return None;
        }
        self.position = end;
        Some(&self.text[start..end])
    }

    /// The text of the string here, borrowed where it has no escape.
    fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let start = self.position;
        let end = start + plain_prefix(&self.text.as_bytes()[start..]);
        match self.text.as_bytes().get(end)? {
            b'"' => {
                self.position = end + 1;
                Some(&self.text[start..end])
            }
            b'\\' => self.unescaped(start, end),
            _ => None,
        }
    }

    /// The string that begins at `start` and has its first backslash at `backslash`.
    fn unescaped(&mut self, start: usize, backslash: usize) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let room = std::mem::take(&mut self.strings);
        let (mut from, mut end, mut length) = (start, backslash, 0);
        loop {
            room.get_mut(length..length + end - from)?.copy_from_slice(&bytes[from..end]);
            length += end - from;
            match bytes.get(end)? {
                b'"' => break,
                b'\\' => {
                    self.position = end;
                    let character = self.escape()?;
                    self.is_escaped |= matches!(character, '"' | '\\' | '\0'..='\u{1f}');
                    length +=
                        character.encode_utf8(room.get_mut(length..)?.get_mut(..character.len_utf8())?).len();
                }
                _ => return None,
            }
            from = self.position;
            end = from + plain_prefix(&bytes[from..]);
        }
        self.position = end + 1;
        let (string, rest) = room.split_at_mut(length);
        self.strings = rest;
        std::str::from_utf8(string).ok()
    }

    fn skip_string(&mut self) -> Option<()> {
        self.take(b'"')?;
        let start = self.position;
        let bytes = self.text.as_bytes();
        loop {
            // Unused strings are long: here a search by whole vectors pays.
            self.position += memchr2(b'"', b'\\', bytes.get(self.position..)?)?;
            if bytes[self.position] == b'"' {
                break;
            }
            self.escape()?;
        }
        let has_control =
            bytes[start..self.position].iter().fold(false, |found, &byte| found | (byte < b' '));
        self.position += 1;
        (!has_control).then_some(())
    }

    /// The character of the escape here; a surrogate alone is none.
    fn escape(&mut self) -> Option<char> {
        let letter = *self.text.as_bytes().get(self.position + 1)?;
        self.position += 2;
        Some(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let unit = self.hex()?;
                match unit {
                    0xd800..0xdc00 => {
                        self.text.as_bytes()[self.position..].starts_with(b"\\u").then_some(())?;
                        self.position += 2;
                        let low = self.hex()?;
                        (0xdc00..0xe000).contains(&low).then_some(())?;
                        char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00))?
                    }
                    unit => char::from_u32(unit)?,
                }
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.position..self.position + 4)?;
        self.position += 4;
        digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
    }
}

fn story_of<'a>(text: &'a str, story_text: &'a mut String) -> Option<&'a str> {
    let story = if story::is_literal(text) {
        story::parse_literal(text, story_text).ok()?;
        story_text
    } else {
        text
    };
    if story.chars().all(story::is_blank) { None } else { Some(story) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prepare::record;

    /// What the general path makes of `text`; `None` where it refuses.
    fn general(text: &str) -> Option<String> {
        let mut bytes = text.as_bytes().to_vec();
        let tape = simd_json::to_tape(&mut bytes).ok()?;
        let mut story = String::new();
        record::parse(&tape.0, Some("group"), &mut story).ok().map(|record| describe(&record))
    }

    /// The same of the quick reader; `None` where it declines.
    fn quick(text: &str) -> Option<String> {
        let mut strings = vec![0; text.len()];
        let mut story = String::new();
        let scratch = Scratch { strings: &mut strings, story: &mut story };
        let record = read(text, Some("group"), scratch)?;
        if record.context.is_plain {
            let is_plain = |text: &str| plain_prefix(text.as_bytes()) == text.len();
            assert!(record.context.texts().all(is_plain), "{text}");
        }
        Some(describe(&record))
    }

    fn describe(record: &Record<'_>) -> String {
        let Record { story, question, answer, is_correct, context, group_field } = record;
        let steps: Vec<_> = context
            .steps
            .iter()
            .map(|step| (step.timestep, step.state, context.observations(step), context.actions(step)))
            .collect();
        let names = &context.agents_names;
        format!("{:?}", (story, question, answer, is_correct, group_field, names, steps))
    }

    /// The quick reader never takes what the general path refuses, and reads the rest the same way.
    fn check_agreement(text: &str) {
        if let Some(record) = quick(text) {
            assert_eq!(Some(record), general(text), "{text}");
        }
    }

    const COMMON: &str = r#"{ "story": "['Mia l\\'eft.', 'Zo\u00eb ran.']", "question": "a \"b\" \ud83d\ude00?",
        "reasoning": {"a": [1, -2.5, true, null, {}, []], "b": "\/x\u0000"}, "answer": "é", "is_correct": false, "group": "g",
        "socialized_context": {"agents_names": ["Mia", "Z"], "context_manual": "x\ny", "socialized_context": [
        {"timestep": "0", "state": "none", "observations": {"Mia": "n", "Z": "m\t"}, "actions": {"Mia": "", "Z": "q"}},
        {"actions": ["Mia: a", "Z:b"], "timestep": 7, "observations": [], "state": "s"},
        {"state": "t", "timestep": null, "observations": {}, "actions": {"Mia": "x"}}]}, "extra": 0 }"#;

    #[test]
    fn the_common_shape_is_read_as_the_general_path_reads_it() {
        assert!(quick(COMMON).is_some());
        check_agreement(COMMON);
        let compact = serde_json::from_str::<serde_json::Value>(COMMON).unwrap().to_string();
        assert!(quick(&compact).is_some());
        check_agreement(&compact);
    }

    #[test]
    fn what_is_unusual_is_left_to_the_general_path() {
        for (part, unusual) in [
            (r#""extra": 0"#, r#""extra": 00"#),
            (r#""extra": 0"#, r#""extra": 1e5"#),
            (r#""extra": 0"#, r#""extra": 123456789012345678"#),
            (r#""extra": 0"#, r#""extra": "\ud800""#),
            (r#""extra": 0"#, "\"extra\": \"\n\""),
            (r#""extra": 0"#, r#""group": "g""#),
            (r#""extra": 0"#, r#""answer": "g""#),
            (r#""extra": 0 }"#, r#""extra": 0 } x"#),
            (r#""extra": 0 }"#, r#""extra": 0, }"#),
            (r#""extra": 0"#, r#""extra": nul"#),
            (r#""timestep": 7"#, r#""timestep": 7.0"#),
            (r#""timestep": 7"#, r#""timestep": 7, "timestep": 7"#),
            (r#""timestep": 7"#, r#""state": "s""#),
            (r#""context_manual": "x\ny""#, r#""agents_names": []"#),
            (r#"["Mia", "Z"]"#, "[]"),
            (r#""Mia: a""#, r#""Z: a""#),
            (r#""Mia: a""#, r#""Mia a""#),
            (r#""group": "g","#, ""),
            (r#""is_correct": false"#, r#""is_correct": 1"#),
        ] {
            let text = COMMON.replacen(part, unusual, 1);
            assert_ne!(text, COMMON, "{part}");
            assert_eq!(quick(&text), None, "{unusual}");
        }
        let bombs = format!(r#""extra": {}{}"#, "[".repeat(500), "]".repeat(500));
        let deep = COMMON.replace(r#""extra": 0"#, &bombs);
        assert_eq!(quick(&deep), None);
        assert!(general(&deep).is_some());
    }

    /// Pieces that mean something in JSON, at any place of a record.
    const PIECES: [&str; 24] = [
        "\"",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "0",
        "-",
        ".",
        "e",
        "null",
        "\\u",
        "\\ud83d",
        "\0",
        "\n",
        "é",
        "1",
        "\"state\":\"\",",
        "\"x\":1,",
        "[[",
        "\\\\",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn a_mutated_record_is_never_read_differently(
            edits in proptest::collection::vec((0usize..1200, 0usize..3, prop::sample::select(&PIECES[..])), 1..4)
        ) {
            let mut text = COMMON.to_owned();
            for (place, removed, inserted) in edits {
                let start = (0..=place.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap();
                let end = (start + removed..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
                text.replace_range(start..end, inserted);
            }
            check_agreement(&text);
        }
    }
}
