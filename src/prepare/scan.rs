//! The quick reader: records in the common shape, in one pass over the text.
//!
//! simd-json builds a tape of everything and unescapes every string, used or not; more
//! than half of a real record is not used. This scanner checks all of the JSON, but only
//! steps over what no template asks for. It never judges: whatever is unusual (any fault,
//! a repeated key, a float with an exponent, deep nesting, a story that is a list) makes it
//! decline, and the general path decides. In tests simd-json is its oracle.
//!
//! Measured on 100,000 records: see ARCHITECTURE.md.

use crate::json::{plain_bytes, plain_prefix};
use crate::prepare::record::{AgentText, Context, Record, Step, Text, Timestep, first_duplicate, split_item};
use crate::prepare::story;

/// Deeper values are left to the general path.
const MAX_DEPTH: usize = 32;

/// More digits could leave 64 bits, or need rounding that must be the parser's.
const MAX_DIGITS: usize = 17;

/// Shorter and longer manuals are not remembered.
const MIN_MANUAL: usize = 64;
const MAX_MANUAL: usize = 64 << 10;

/// The characters that make an escape with a backslash and nothing more.
const IS_SHORT_ESCAPE: [bool; 256] = {
    let mut table = [false; 256];
    let mut letters: &[u8] = br#""\/bfnrt"#;
    while let [letter, others @ ..] = letters {
        table[*letter as usize] = true;
        letters = others;
    }
    table
};

/// Room for what the scanner cannot borrow from the text.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// For unescaped strings; at least as long as the text.
    pub strings: &'a mut [u8],
    /// For a story that has to be joined.
    pub story: &'a mut String,
    /// The manual of the record before: most corpora repeat one in every record, and bytes that were
    /// stepped over once need only be compared. With its closing quote.
    pub manual: &'a mut Vec<u8>,
}

/// Reads the record in `text`, or declines.
///
/// `group_field` names a further top-level string to borrow.
pub fn read<'a>(text: &'a str, group_field: Option<&str>, scratch: Scratch<'a>) -> Option<Record<'a>> {
    let Scratch { strings, story, manual } = scratch;
    let agents = Vec::with_capacity(8);
    let manual_head = head(manual);
    let mut scanner = Scanner { text, position: 0, strings, manual, manual_head, is_escaped: false, agents };
    let record = scanner.record(group_field, story)?;
    scanner.is_at_end().then_some(record)
}

/// The keys of a timestep.
#[derive(Clone, Copy)]
enum StepKey {
    Timestep,
    State,
    Observations,
    Actions,
}

fn head(manual: &[u8]) -> [u8; 8] {
    manual.first_chunk().copied().unwrap_or_default()
}

struct Scanner<'a> {
    text: &'a str,
    position: usize,
    strings: &'a mut [u8],
    manual: &'a mut Vec<u8>,
    /// The first bytes of `manual`; a control character, which no string holds, if there is none.
    manual_head: [u8; 8],
    /// Whether some string unescaped so far holds a character that JSON escapes.
    is_escaped: bool,
    /// The agents of the list before, none twice: nearly always the next list names the same.
    agents: Vec<&'a str>,
}

impl<'a> Scanner<'a> {
    fn record(&mut self, group_field: Option<&str>, story_text: &'a mut String) -> Option<Record<'a>> {
        let (mut story, mut question, mut answer, mut is_correct) = (None, None, None, None);
        let (mut context, mut group_text) = (None, None);
        let mut root_keys = Vec::with_capacity(16);
        self.sequence(*b"{}", |scanner| {
            let key = scanner.key()?;
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
        self.sequence(*b"{}", |scanner| {
            let key = scanner.key()?;
            context_keys.push(key);
            match key {
                "agents_names" => names = Some(scanner.names()?),
                // A second list would append to the first one's pairs; it declines below in any case.
                "socialized_context" => steps = Some(scanner.steps(&mut pairs)?),
                "context_manual" => scanner.skip_manual()?,
                _ => scanner.skip_value(1)?,
            }
            Some(())
        })?;
        if first_duplicate(&mut context_keys).is_some() {
            return None;
        }
        let has_plain_names = !self.is_escaped;
        self.is_escaped |= was_escaped;
        Context::new(names?, steps?, pairs, has_plain_names)
    }

    fn names(&mut self) -> Option<Vec<&'a str>> {
        let mut names = Vec::with_capacity(4);
        self.sequence(*b"[]", |scanner| {
            names.push(scanner.string()?);
            Some(())
        })?;
        self.remember(names.iter().copied());
        Some(names)
    }

    /// Expects `agents` in the next list, unless one is there twice; tells whether all are different.
    fn remember(&mut self, agents: impl Iterator<Item = &'a str>) -> bool {
        self.agents.clear();
        self.agents.extend(agents);
        let are_different = first_duplicate(&mut self.agents).is_none();
        if !are_different {
            self.agents.clear();
        }
        are_different
    }

    fn steps(&mut self, pairs: &mut Vec<AgentText<'a>>) -> Option<Vec<Step<'a>>> {
        let mut steps = Vec::with_capacity(16);
        self.sequence(*b"[]", |scanner| {
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
        self.sequence(*b"{}", |scanner| {
            match scanner.step_key()? {
                StepKey::Timestep if !has_timestep => {
                    timestep = scanner.timestep(timestep)?;
                    has_timestep = true;
                }
                StepKey::State if state.is_none() => state = Some(scanner.text()?),
                StepKey::Observations if observations.is_none() => observations = Some(scanner.pairs(pairs)?),
                StepKey::Actions if actions.is_none() => actions = Some(scanner.pairs(pairs)?),
                _ => return None,
            }
            Some(())
        })?;
        Some(Step::new(timestep, state?, observations?, actions?))
    }

    /// The key here, its colon taken too. An unused key might be there twice, and a used one written
    /// with escapes: neither is the common shape.
    #[inline]
    fn step_key(&mut self) -> Option<StepKey> {
        self.next_byte()?;
        let rest = &self.text.as_bytes()[self.position..];
        // Compared as constants, a key costs a few instructions; read as a string, fifty.
        let (key, behind) = if let Some(behind) = rest.strip_prefix(br#""state""#) {
            (StepKey::State, behind)
        } else if let Some(behind) = rest.strip_prefix(br#""actions""#) {
            (StepKey::Actions, behind)
        } else if let Some(behind) = rest.strip_prefix(br#""timestep""#) {
            (StepKey::Timestep, behind)
        } else {
            (StepKey::Observations, rest.strip_prefix(br#""observations""#)?)
        };
        self.position = self.text.len() - behind.len();
        self.take(b':')?;
        Some(key)
    }

    fn timestep(&mut self, place: Timestep<'a>) -> Option<Timestep<'a>> {
        match self.next_byte()? {
            b'"' => self.text().map(Timestep::Text),
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
        let mut are_remembered = true;
        match self.next_byte()? {
            b'{' => self.sequence(*b"{}", |scanner| {
                let agent = match scanner.remembered_agent(pairs.len() - start) {
                    Some(agent) => agent,
                    None => {
                        are_remembered = false;
                        scanner.string()?
                    }
                };
                scanner.take(b':')?;
                pairs.push((agent, scanner.text()?));
                Some(())
            })?,
            _ => {
                are_remembered = false;
                self.sequence(*b"[]", |scanner| {
                    // A blank may be written as an escape: only the real text can be trimmed.
                    let (agent, text) = split_item(scanner.string()?).ok()?;
                    pairs.push((agent, Text::Real(text)));
                    Some(())
                })?;
            }
        }
        let are_different = are_remembered || self.remember(pairs[start..].iter().map(|(agent, _)| *agent));
        are_different.then_some((start, pairs.len()))
    }

    /// Takes the agent that stood at this place of the list before, if it stands here again.
    fn remembered_agent(&mut self, index: usize) -> Option<&'a str> {
        let agent = *self.agents.get(index)?;
        self.next_byte()?;
        let rest = self.text.as_bytes()[self.position..].strip_prefix(b"\"")?;
        // An agent with a quote or a backslash is not written the way it reads.
        if self.is_escaped || rest.get(agent.len()) != Some(&b'"') || !rest.starts_with(agent.as_bytes()) {
            return None;
        }
        self.position += agent.len() + 2;
        Some(agent)
    }

    fn optional_bool(&mut self) -> Option<Option<bool>> {
        match self.next_byte()? {
            b't' => self.word("true").map(|()| Some(true)),
            b'f' => self.word("false").map(|()| Some(false)),
            _ => self.word("null").map(|()| None),
        }
    }

    /// Calls `each` at every member of the object or list here, whose brackets are given; `each` takes it.
    #[inline]
    fn sequence(&mut self, brackets: [u8; 2], mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(brackets[0])?;
        if self.next_byte()? == brackets[1] {
            self.position += 1;
            return Some(());
        }
        loop {
            each(self)?;
            let byte = self.next_byte()?;
            self.position += 1;
            if byte != b',' {
                return (byte == brackets[1]).then_some(());
            }
        }
    }

    /// The key here, its colon taken too.
    #[inline]
    fn key(&mut self) -> Option<&'a str> {
        let key = self.string()?;
        self.take(b':')?;
        Some(key)
    }

    /// Steps over a value without keeping any of it.
    fn skip_value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.next_byte()? {
            b'"' => self.skip_string(),
            b'{' => self.sequence(*b"{}", |scanner| {
                scanner.skip_string()?;
                scanner.take(b':')?;
                scanner.skip_value(depth + 1)
            }),
            b'[' => self.sequence(*b"[]", |scanner| scanner.skip_value(depth + 1)),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number().map(drop),
        }
    }

    /// Steps over the manual, at one glance where it is that of the record before.
    fn skip_manual(&mut self) -> Option<()> {
        let is_string = self.next_byte()? == b'"';
        let inside = self.position + 1;
        let rest = self.text.as_bytes().get(inside..)?;
        if is_string && self.is_manual(rest) {
            self.position = inside + self.manual.len();
            return Some(());
        }
        self.skip_value(1)?;
        let length = self.position - inside;
        if is_string && (MIN_MANUAL..MAX_MANUAL).contains(&length) {
            self.manual.clear();
            self.manual.extend_from_slice(&rest[..length]);
            self.manual_head = head(self.manual);
        }
        Some(())
    }

    fn is_manual(&self, rest: &[u8]) -> bool {
        !self.manual.is_empty() && rest.starts_with(self.manual)
    }

    /// The next byte that is not blank, not yet taken.
    #[inline]
    fn next_byte(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        let mut byte = *bytes.get(self.position)?;
        if byte == b' ' {
            // One blank behind each comma and colon is what `json.dumps` writes.
            self.position += 1;
            byte = *bytes.get(self.position)?;
        }
        if byte <= b' ' {
            self.skip_blanks();
            byte = *bytes.get(self.position)?;
        }
        Some(byte)
    }

    fn skip_blanks(&mut self) {
        let mut rest = &self.text.as_bytes()[self.position..];
        while let [b' ' | b'\n' | b'\t' | b'\r', behind @ ..] = rest {
            rest = behind;
            // Indentation comes in runs.
            while let Some((run, behind)) = rest.split_first_chunk::<8>() {
                let others = u64::from_le_bytes(*run) ^ u64::from_le_bytes([b' '; 8]);
                if others != 0 {
                    rest = &rest[others.trailing_zeros() as usize / 8..];
                    break;
                }
                rest = behind;
            }
        }
        self.position = self.text.len() - rest.len();
    }

    #[inline]
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
        let end = self.plain_end(start);
        match self.text.as_bytes().get(end)? {
            b'"' => {
                self.position = end + 1;
                Some(&self.text[start..end])
            }
            b'\\' => self.unescaped(start, end),
            _ => None,
        }
    }

    /// The string here as a text of the context: unescaped only where it must be.
    fn text(&mut self) -> Option<Text<'a>> {
        self.take(b'"')?;
        let bytes = self.text.as_bytes();
        let start = self.position;
        let first = self.plain_end(start);
        let mut end = first;
        loop {
            match *bytes.get(end)? {
                b'"' => break,
                b'\\' if matches!(bytes.get(end + 1)?, b'"' | b'\\' | b'n' | b't' | b'r' | b'b' | b'f') => {
                    end = self.plain_end(end + 2);
                }
                b'\\' => return self.unescaped(start, first).map(Text::Real),
                _ => return None,
            }
        }
        self.position = end + 1;
        let text = &self.text[start..end];
        Some(if end == first { Text::Plain(text) } else { Text::Raw(text) })
    }

    /// Steps over a string that nobody asks for, checking it.
    fn skip_string(&mut self) -> Option<()> {
        self.take(b'"')?;
        let bytes = self.text.as_bytes();
        let mut rest = &bytes[self.position..];
        loop {
            let stop = match rest.split_first_chunk::<8>() {
                // The published corpus repeats the manual at the end of another unused string.
                Some((chunk, _)) if *chunk == self.manual_head && self.is_manual(rest) => {
                    rest = &rest[self.manual.len()..];
                    break;
                }
                Some((chunk, behind)) => match plain_bytes(*chunk) {
                    8 => {
                        rest = behind;
                        continue;
                    }
                    stop => stop,
                },
                None => plain_prefix(rest),
            };
            // An escape of two characters, in nearly all cases.
            if *rest.get(stop)? == b'"' {
                rest = &rest[stop + 1..];
                break;
            }
            if rest[stop] != b'\\' {
                return None;
            }
            if IS_SHORT_ESCAPE[usize::from(*rest.get(stop + 1)?)] {
                rest = &rest[stop + 2..];
            } else {
                self.position = bytes.len() - rest.len() + stop;
                self.escape()?;
                rest = &bytes[self.position..];
            }
        }
        self.position = bytes.len() - rest.len();
        Some(())
    }

    /// The place of the first byte from `start` on that does not stand for itself.
    #[inline]
    fn plain_end(&self, start: usize) -> usize {
        start + plain_prefix(&self.text.as_bytes()[start..])
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
            end = self.plain_end(from);
        }
        self.position = end + 1;
        let (string, rest) = room.split_at_mut(length);
        self.strings = rest;
        std::str::from_utf8(string).ok()
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
    use crate::prepare::convert::LineWriter;
    use crate::prepare::record;
    use crate::prepare::template::Template;

    /// What the general path makes of `text`; `None` where it refuses.
    fn general(text: &str) -> Option<String> {
        let mut bytes = text.as_bytes().to_vec();
        let tape = simd_json::to_tape(&mut bytes).ok()?;
        let mut story = String::new();
        record::parse(&tape.0, Some("group"), &mut story).ok().map(|record| describe(&record))
    }

    /// The same of the quick reader; `None` where it declines. It has seen another record before.
    fn quick(text: &str) -> Option<String> {
        let mut strings = vec![0; text.len()];
        let mut story = String::new();
        let mut manual = br#"= Manual\nx\ny""#.to_vec();
        let scratch = Scratch { strings: &mut strings, story: &mut story, manual: &mut manual };
        let record = read(text, Some("group"), scratch)?;
        let is_plain = |text: &str| plain_prefix(text.as_bytes()) == text.len();
        let context = &record.context;
        if context.has_plain_names {
            assert!(context.agents_names.iter().all(|name| is_plain(name)), "{text}");
        }
        let pairs = context.steps.iter().flat_map(|step| [context.observations(step), context.actions(step)]);
        for (agent, agent_text) in pairs.flatten() {
            assert!(!context.has_plain_names || is_plain(agent), "{text}");
            assert!(!matches!(agent_text, Text::Plain(plain) if !is_plain(plain)), "{text}");
        }
        Some(describe(&record))
    }

    /// Everything in `record`, and its lines: a text may be held in several forms.
    fn describe(record: &Record<'_>) -> String {
        let real = |text: Text<'_>| match text {
            Text::Plain(text) | Text::Real(text) => text.to_owned(),
            Text::Raw(raw) => serde_json::from_str(&format!("\"{raw}\"")).unwrap(),
        };
        let pairs = |pairs: &[AgentText<'_>]| -> Vec<_> {
            pairs.iter().map(|&(agent, text)| (agent.to_owned(), real(text))).collect()
        };
        let Record { story, question, answer, is_correct, context, group_field } = record;
        let step = |step: &Step<'_>| {
            let timestep = match step.timestep {
                Timestep::Text(text) => Err(real(text)),
                Timestep::Number(number) => Ok(number),
            };
            (timestep, real(step.state), pairs(context.observations(step)), pairs(context.actions(step)))
        };
        let steps: Vec<_> = context.steps.iter().map(step).collect();
        let names = &context.agents_names;
        let flags = (context.misses_an_agent(), context.names_a_stranger());
        format!("{:?}", (story, question, answer, is_correct, group_field, names, steps, flags, lines(record)))
    }

    /// The lines of `record` in both character sets.
    fn lines(record: &Record<'_>) -> [String; 2] {
        ["false", "true"].map(|ascii| {
            let yaml = format!("messages: [{{role: user, content: '{{story}}'}}, {{role: assistant, content: '{{context}}'}}]\ncontext: {{form: object, ascii: {ascii}}}");
            let template = Template::parse(&yaml, "t").unwrap();
            let mut line = Vec::new();
            LineWriter::new(&template).write_line(record, &mut line);
            String::from_utf8(line).unwrap()
        })
    }

    /// The quick reader never takes what the general path refuses, and reads the rest the same way.
    fn check_agreement(text: &str) {
        if let Some(record) = quick(text) {
            assert_eq!(Some(record), general(text), "{text}");
        }
    }

    const COMMON: &str = r#"{ "story": "['Mia l\\'eft.', 'Zo\u00eb ran.']", "question": "a \"b\" \ud83d\ude00?",
        "reasoning": {"a": [1, -2.5, true, null, {}, []], "b": "\/x\u0000"}, "answer": "é", "is_correct": false, "group": "g",
        "socialized_context": {"agents_names": ["Mia", "Z"], "context_manual": "= Manual\nx\ny", "socialized_context": [
        {"timestep": "0", "state": "none", "observations": {"Mia": "n", "Z": "m\t"}, "actions": {"Mia": "", "Z": "q"}},
        {"actions": ["Mia: a", "Z:b"], "timestep": 7, "observations": [], "state": "s"},
        {"state": "t", "timestep": null, "observations": {}, "actions": {"Mia": "x"}}]}, "last": "of \n= Manual\nx\ny", "extra": 0 }"#;

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
            (r#""context_manual": "= Manual\nx\ny""#, r#""agents_names": []"#),
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
