//! The quick reader: records in the common shape, in one pass over the text.
//!
//! simd-json builds a tape of everything and unescapes every string, used or not; more
//! than half of a real record is not used. This scanner checks all of the JSON, but only
//! steps over what no template asks for. It never judges: whatever is unusual (any fault,
//! a repeated key, a float with an exponent, deep nesting, a story that is a list) makes it
//! decline, and the general path decides. In tests simd-json is its oracle.
//!
//! What was tried, with figures: see ARCHITECTURE.md.

use crate::record::buffers::RecordBuffers;
use crate::record::scanner::Scanner;
use crate::record::shape::{Shape, Slot, TextOf};
use crate::record::story::{self, StoryForm};
use crate::record::tape::first_duplicate;
use crate::record::{Context, Record, Step, Text, Timestep, split_item};

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

/// Reads the record in `text`, or declines. What it is made of comes from `buffers`, which is empty.
///
/// `group_field` names a further top-level string to borrow.
pub fn read<'a>(
    text: &'a str,
    group_field: Option<&str>,
    scratch: Scratch<'a>,
    buffers: &mut RecordBuffers<'a>,
) -> Option<Record<'a>> {
    let Scratch { strings, story, manual } = scratch;
    let mut scanner = Scanner::new(text, strings, manual, std::mem::take(buffers));
    let record = scanner.record(group_field, story).filter(|_| scanner.is_at_end());
    *buffers = scanner.buffers;
    record
}

/// The keys of a timestep.
#[derive(Clone, Copy)]
enum StepKey {
    Timestep,
    State,
    Observations,
    Actions,
}

/// A story as far as it is read when its key comes by.
enum Story<'a> {
    /// Its sentences are joined.
    Joined,
    /// It is this string.
    Written(&'a str),
}

impl<'a> Scanner<'a> {
    fn record(&mut self, group_field: Option<&str>, story_text: &'a mut String) -> Option<Record<'a>> {
        let (mut story, mut question, mut answer, mut is_correct) = (None, None, None, None);
        let (mut context, mut group_text) = (None, None);
        self.sequence(*b"{}", |scanner| {
            let key = scanner.key()?;
            scanner.buffers.record_keys.push(key);
            let start = scanner.position;
            match key {
                "story" => story = Some(scanner.story(story_text)?),
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
        let repeats_key = first_duplicate(&mut self.buffers.record_keys).is_some();
        if repeats_key || (group_field.is_some() && group_text.is_none()) {
            return None;
        }
        let (story, story_form) = match story? {
            Story::Joined => {
                story::check_is_there(story_text).ok()?;
                (story_text.as_str(), StoryForm::List)
            }
            Story::Written(text) => story::read(text, story_text).ok()?,
        };
        if story.chars().all(story::is_blank) {
            return None;
        }
        Some(Record {
            story,
            story_form,
            question: question?,
            answer: answer?,
            is_correct,
            context: context?,
            group_field: group_text,
            may_hold_nul: self.has_nul,
        })
    }

    /// The story here, its sentences joined in `joined` at once where they are as plain as most.
    fn story(&mut self, joined: &mut String) -> Option<Story<'a>> {
        match self.sentences(joined) {
            Some(()) => Some(Story::Joined),
            None => self.string().map(Story::Written),
        }
    }

    fn context(&mut self) -> Option<Context<'a>> {
        let was_escaped = std::mem::replace(&mut self.is_escaped, false);
        let (mut names, mut steps) = (None, None);
        self.sequence(*b"{}", |scanner| {
            let key = scanner.key()?;
            scanner.buffers.context_keys.push(key);
            match key {
                "agents_names" => names = Some(scanner.names()?),
                // A second list would append to the first one's pairs; it declines below in any case.
                "socialized_context" => steps = Some(scanner.steps()?),
                "context_manual" => scanner.skip_manual()?,
                _ => scanner.skip_value(1)?,
            }
            Some(())
        })?;
        if first_duplicate(&mut self.buffers.context_keys).is_some() {
            return None;
        }
        let has_plain_names = !self.is_escaped;
        self.is_escaped |= was_escaped;
        let names = names?;
        // The items were split at their first colon, which may belong to a name.
        if self.has_lists && names.iter().any(|name| name.contains(':')) {
            return None;
        }
        Context::new(names, steps?, std::mem::take(&mut self.buffers.pairs), has_plain_names)
    }

    fn names(&mut self) -> Option<Vec<&'a str>> {
        let mut names = std::mem::take(&mut self.buffers.names);
        self.sequence(*b"[]", |scanner| {
            names.push(scanner.string()?);
            Some(())
        })?;
        self.remember(names.iter().copied());
        Some(names)
    }

    /// Expects `agents` in the next list, unless one is there twice; tells whether all are different.
    fn remember(&mut self, agents: impl Iterator<Item = &'a str>) -> bool {
        self.buffers.agents.clear();
        self.buffers.agents.extend(agents);
        let are_different = first_duplicate(&mut self.buffers.agents).is_none();
        if !are_different {
            self.buffers.agents.clear();
        }
        are_different
    }

    fn steps(&mut self) -> Option<Vec<Step<'a>>> {
        let mut steps = std::mem::take(&mut self.buffers.steps);
        let mut shape = std::mem::take(&mut self.buffers.shape);
        self.sequence(*b"[]", |scanner| {
            let (position, first_pair) = (scanner.position, scanner.buffers.pairs.len());
            let step = match scanner.repeated_step(&shape, steps.len()) {
                Some(step) => step,
                None => {
                    scanner.position = position;
                    scanner.buffers.pairs.truncate(first_pair);
                    scanner.step(steps.len(), &mut shape)?
                }
            };
            steps.push(step);
            Some(())
        })?;
        self.buffers.shape = shape;
        Some(steps)
    }

    /// Takes the step here, the one at `index`, if all that differs from the one with `shape` are its texts.
    /// Where it declines, some pairs and bytes may be taken.
    #[inline]
    pub fn repeated_step(&mut self, shape: &Shape<'a>, index: usize) -> Option<Step<'a>> {
        if shape.slots.is_empty() {
            return None;
        }
        self.next_byte()?;
        let first_pair = self.buffers.pairs.len();
        let (mut timestep, mut state) = (Timestep::Place(index), None);
        // The bytes from `at` on have to be those from `seen` on.
        let (mut at, mut seen) = (self.position, shape.step.0);
        for &Slot { text: (start, end), of } in &shape.slots {
            at = self.same_bytes(at, seen, start)?;
            let text = self.text_from(at)?;
            at = self.position - 1;
            match of {
                TextOf::Timestep => timestep = Timestep::Text(text),
                TextOf::State => state = Some(text),
                TextOf::Agent(agent) => self.buffers.pairs.push((agent, text)),
            }
            seen = end;
        }
        self.position = self.same_bytes(at, seen, shape.step.1)?;
        let all = |(start, end)| (first_pair + start, first_pair + end);
        let mut step = Step::new(timestep, state?, all(shape.observations), all(shape.actions));
        step.repeats_agents = true;
        Some(step)
    }

    /// The place behind the bytes at `at`, if they are those from `start` to `end`.
    #[inline]
    fn same_bytes(&self, at: usize, start: usize, end: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let behind = at + (end - start);
        (bytes.get(at..behind)? == bytes.get(start..end)?).then_some(behind)
    }

    /// Takes the step here with all its keys; others may be compared with its `shape`.
    fn step(&mut self, index: usize, shape: &mut Shape<'a>) -> Option<Step<'a>> {
        let mut timestep = Timestep::Place(index);
        let (mut state, mut observations, mut actions) = (None, None, None);
        let mut has_timestep = false;
        self.next_byte()?;
        let first_pair = self.buffers.pairs.len();
        shape.begin(self.position);
        self.sequence(*b"{}", |scanner| {
            match scanner.step_key()? {
                StepKey::Timestep if !has_timestep => {
                    timestep = scanner.timestep(timestep, shape)?;
                    has_timestep = true;
                }
                StepKey::State if state.is_none() => state = Some(scanner.text(TextOf::State, shape)?),
                StepKey::Observations if observations.is_none() => observations = Some(scanner.pairs(shape)?),
                StepKey::Actions if actions.is_none() => actions = Some(scanner.pairs(shape)?),
                _ => return None,
            }
            Some(())
        })?;
        let step = Step::new(timestep, state?, observations?, actions?);
        shape.complete(self.position, first_pair, &step);
        // A number is none of the texts, and neither is a text that shares its string with an agent.
        if self.has_lists || matches!(timestep, Timestep::Number(_)) {
            shape.forget();
        }
        Some(step)
    }

    /// The text here, which the step's `shape` is told of.
    fn text(&mut self, of: TextOf<'a>, shape: &mut Shape<'a>) -> Option<Text<'a>> {
        self.take(b'"')?;
        let start = self.position;
        let text = self.text_from(start)?;
        shape.push(start, self.position - 1, of);
        Some(text)
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

    fn timestep(&mut self, place: Timestep<'a>, shape: &mut Shape<'a>) -> Option<Timestep<'a>> {
        match self.next_byte()? {
            b'"' => self.text(TextOf::Timestep, shape).map(Timestep::Text),
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
    fn pairs(&mut self, shape: &mut Shape<'a>) -> Option<(usize, usize)> {
        let start = self.buffers.pairs.len();
        let mut are_remembered = true;
        match self.next_byte()? {
            b'{' => self.sequence(*b"{}", |scanner| {
                let agent = match scanner.remembered_agent(scanner.buffers.pairs.len() - start) {
                    Some(agent) => agent,
                    None => {
                        are_remembered = false;
                        scanner.string()?
                    }
                };
                scanner.take(b':')?;
                let text = scanner.text(TextOf::Agent(agent), shape)?;
                scanner.buffers.pairs.push((agent, text));
                Some(())
            })?,
            _ => {
                are_remembered = false;
                self.sequence(*b"[]", |scanner| {
                    // A blank may be written as an escape: only the real text can be trimmed.
                    let (agent, text) = split_item(scanner.string()?, &[]).ok()?;
                    scanner.buffers.pairs.push((agent, Text::Real(text)));
                    Some(())
                })?;
                self.has_lists = true;
            }
        }
        let pairs = std::mem::take(&mut self.buffers.pairs);
        let are_different = are_remembered || self.remember(pairs[start..].iter().map(|(agent, _)| *agent));
        let end = pairs.len();
        self.buffers.pairs = pairs;
        are_different.then_some((start, end))
    }

    /// Takes the agent that stood at this place of the list before, if it stands here again.
    fn remembered_agent(&mut self, index: usize) -> Option<&'a str> {
        let agent = *self.buffers.agents.get(index)?;
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::plain_prefix;
    use crate::line::convert::LineWriter;
    use crate::line::template::Template;
    use crate::record::unused::{self, Reader};
    use crate::record::{self, AgentText, TextField};

    /// What the general path makes of `text`; `None` where it refuses.
    fn general(text: &str) -> Option<String> {
        let mut bytes = unused::overwritten(text, Reader::Record(Some("group"))).ok()?;
        let tape = simd_json::to_tape(&mut bytes).ok()?;
        let mut story = String::new();
        record::parse(&tape.0, Some("group"), &mut story).ok().map(|record| describe(&record))
    }

    /// The same of the quick reader; `None` where it declines. It has seen another record before, whose
    /// vectors are used again.
    fn quick(text: &str) -> Option<String> {
        let mut manual = br#"= Manual\nx\ny""#.to_vec();
        let mut buffers = RecordBuffers::default();
        let (mut strings, mut story) = (vec![0; REPEATED.len()], String::new());
        let scratch = Scratch { strings: &mut strings, story: &mut story, manual: &mut manual };
        let earlier = read(REPEATED, Some("group"), scratch, &mut buffers).unwrap();
        buffers.take_back(earlier.context);
        let mut buffers = buffers.emptied();
        let (mut strings, mut story) = (vec![0; text.len()], String::new());
        let scratch = Scratch { strings: &mut strings, story: &mut story, manual: &mut manual };
        let record = read(text, Some("group"), scratch, &mut buffers)?;
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
        let Record { story, story_form, question, answer, is_correct, context, group_field, may_hold_nul } =
            record;
        let others = [*question, *answer].map(std::borrow::Cow::Borrowed);
        let mut texts = context.texts().chain(others);
        assert!(*may_hold_nul || !texts.any(|text| text.contains('\0')));
        let step = |step: &Step<'_>| {
            let timestep = match step.timestep {
                Timestep::Text(text) => Err(real(text)),
                Timestep::Number(number) => Ok(number),
                Timestep::Place(index) => Ok(index as i128),
            };
            (timestep, real(step.state), pairs(context.observations(step)), pairs(context.actions(step)))
        };
        let steps: Vec<_> = context.steps.iter().map(step).collect();
        let names = &context.agents_names;
        let flags = (context.misses_an_agent(), context.names_a_stranger());
        format!(
            "{:?}",
            (
                story,
                story_form,
                question,
                answer,
                is_correct,
                group_field,
                names,
                steps,
                flags,
                lines(record)
            )
        )
    }

    /// The lines of `record` in both character sets and both forms.
    fn lines(record: &Record<'_>) -> [String; 3] {
        ["{}", "{ascii: true}", "{form: list, indent: 1}"].map(|context| {
            let yaml = format!("messages: [{{role: user, content: '{{story}}'}}, {{role: assistant, content: '{{context}}'}}]\ncontext: {context}");
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
        "reasoning": {"a": [1, -2.5, true, null, {}, [], NaN, 1e400, "\ud83d"], "b": "\/x\u0000"}, "answer": "é", "is_correct": false, "group": "g",
        "socialized_context": {"agents_names": ["Mia", "Z"], "context_manual": "= Manual\nx\ny", "socialized_context": [
        {"timestep": "0", "state": "none", "observations": {"Mia": "n", "Z": "m\t"}, "actions": {"Mia": "", "Z": "q"}},
        {"actions": ["Mia: a", "Z:b"], "timestep": 7, "observations": [], "state": "s"},
        {"state": "t", "timestep": null, "observations": {}, "actions": {"Mia": "x"}}]}, "last": "of \n= Manual\nx\ny", "extra": 0 }"#;

    /// Steps that differ in their texts only, as nearly all do; two of them in more.
    const REPEATED: &str = r#"{"story": "['Mia left.']", "question": "q", "answer": "a", "group": "g",
        "socialized_context": {"agents_names": ["Mia", "Z\u00eb"], "socialized_context": [
        {"timestep": "0", "state": "none", "observations": {"Mia": "n", "Z\u00eb": "m\t"}, "actions": {"Z\u00eb": "\ud83d\ude00"}},
        {"timestep": "1", "state": "a state of more than sixteen bytes", "observations": {"Mia": "", "Z\u00eb": "é"}, "actions": {"Z\u00eb": "\u0022\/"}},
        {"timestep": "\u0032", "state": "", "observations": {"Mia": "\"x\" \\", "Z\u00eb": "y"}, "actions": {"Z\u00eb": "\u001f"}},
        {"state": "no timestep", "observations": {"Mia": "n"}, "actions": {}},
        {"state": "none again", "observations": {"Mia": "\u0000"}, "actions": {}},
        {"state": "the first one", "observations": {"Mia": "n", "Z\u00eb": "m"}, "actions": {"Z\u00eb": "none"}, "timestep": null},
        {"state": "end", "observations": {"Mia": "n", "Z\u00eb": "m"}, "actions": {"Z\u00eb": "none"}, "timestep": null}]}}"#;

    #[test]
    fn a_repeated_step_is_read_as_the_general_path_reads_it() {
        let steps = |text: &str| {
            let (mut strings, mut story, mut manual) = (vec![0; text.len()], String::new(), Vec::new());
            let scratch = Scratch { strings: &mut strings, story: &mut story, manual: &mut manual };
            let record = read(text, None, scratch, &mut RecordBuffers::default()).unwrap();
            record.context.steps.iter().map(|step| step.repeats_agents).collect::<Vec<_>>()
        };
        assert_eq!(steps(REPEATED), [false, true, true, false, true, false, true]);
        assert!(quick(REPEATED).is_some());
        check_agreement(REPEATED);
        for (part, unusual) in [
            (r#""é"}, "actions""#, r#""é"}, "action""#),
            (r#""Mia": "", "Z\u00eb""#, r#""Mia": "", "Mia""#),
            (r#""Mia": "", "Z\u00eb""#, r#""Mia": "", "Zë""#),
            (r#""timestep": "1""#, r#""timestep": 1"#),
            (r#""timestep": "1", "#, ""),
            (r#""timestep": "1", "#, r#""timestep": "1", "x": 0, "#),
            (r#""\u0022\/"}}"#, r#""\u0022\/"}, "x": 0}"#),
            (r#""actions": {}},"#, r#""actions": []},"#),
            ("\"end\"", "\"\\ud800\""),
            ("\"end\"", "\"\u{1}\""),
            ("\"end\"", "\"end\\"),
            ("null}]", "null]"),
            ("null}]", "null}}"),
            ("null}]", "nil}]"),
        ] {
            let text = REPEATED.replacen(part, unusual, 1);
            assert_ne!(text, REPEATED, "{part}");
            check_agreement(&text);
        }
    }

    #[test]
    fn the_common_shape_is_read_as_the_general_path_reads_it() {
        assert!(quick(COMMON).is_some());
        check_agreement(COMMON);
        let plain = unused::overwritten(COMMON, Reader::Record(None)).unwrap();
        let compact = serde_json::from_slice::<serde_json::Value>(&plain).unwrap().to_string();
        assert!(quick(&compact).is_some());
        check_agreement(&compact);
    }

    #[test]
    fn what_is_unusual_is_left_to_the_general_path() {
        for (part, unusual) in [
            (r#""extra": 0"#, r#""extra": 00"#),
            (r#""extra": 0"#, r#""extra": +1"#),
            (r#""extra": 0"#, r#""extra": 1."#),
            (r#""extra": 0"#, r#""extra": 1e"#),
            (r#""extra": 0"#, r#""extra": -"#),
            (r#""extra": 0"#, r#""extra": -NaN"#),
            (r#""extra": 0"#, r#""extra": NaN1"#),
            (r#""extra": 0"#, r#""extra": "\ud80g""#),
            (r#""extra": 0"#, r#""extra": {"\ud800": 1}"#),
            (r#""extra": 0"#, r#""\ud800": 1"#),
            (r#""group": "g""#, r#""group": "\ud800""#),
            (r#""group": "g""#, r#""group": NaN"#),
            (r#""is_correct": false"#, r#""is_correct": NaN"#),
            (r#""timestep": 7"#, r#""timestep": NaN"#),
            (r#""timestep": 7"#, r#""timestep": 123456789012345678"#),
            (r#""state": "s""#, r#""state": "\udc00""#),
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
            (r#"["Mia", "Z"]"#, r#"["Mia", "Z", "Dr: X"]"#),
            (r#""story": "['"#, r#""story": "['M' '"#),
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

    #[test]
    fn a_value_that_only_python_reads_rejects_the_record_where_it_is_used() {
        let plain = unused::overwritten(COMMON, Reader::Record(Some("group"))).unwrap();
        let record: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&plain).unwrap();
        let expected = general(COMMON);
        for key in record.keys() {
            let mut spoiled = record.clone();
            spoiled[key] = "@".into();
            let spoiled = serde_json::to_string(&spoiled).unwrap().replace("\"@\"", "NaN");
            let read = general(&spoiled);
            assert!(
                read.is_none() || read == expected,
                "{key} is used, and `unused` does not know: {read:?}"
            );
            assert_eq!(quick(&spoiled), read, "{key}");
        }
        let missing = TextField::ALL.iter().find(|field| !record.contains_key(field.key()));
        assert_eq!(missing, None, "the record of these tests has every text");
    }

    #[test]
    fn unused_values_that_only_python_reads_are_stepped_over() {
        let plain = quick(COMMON);
        for value in [
            "NaN",
            "-Infinity",
            "[Infinity, {\"a\": NaN}]",
            "1e5",
            "-0.0E+400",
            "123456789012345678901234567890",
            "1e400",
            r#""\ud800""#,
            r#""\ude00\ud83d x""#,
        ] {
            for (part, holder) in [
                (r#""extra": 0"#, format!(r#""extra": {value}"#)),
                (r#""b": "\/x\u0000""#, format!(r#""b": [0, {value}]"#)),
                (r#""context_manual": "= Manual\nx\ny""#, format!(r#""x": {value} "#)),
                (r#""context_manual": "= Manual\nx\ny""#, format!(r#""context_manual": {value} "#)),
            ] {
                let text = COMMON.replacen(part, &holder, 1);
                assert_eq!(quick(&text), plain, "{text}");
                assert_eq!(general(&text), plain, "{text}");
            }
        }
    }

    /// Pieces that mean something in JSON, at any place of a record.
    const PIECES: [&str; 33] = [
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
        "NaN",
        "Infinity",
        "e400",
        "\\ude00",
        "12345678901234567890",
        "\\u0000",
        "\"x\":NaN,",
        "\"x\":[-Infinity,\"\\ud800\"],",
        "\"\\ud800\":1,",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn a_mutated_record_is_never_read_differently(
            whole in prop::sample::select(&[COMMON, REPEATED][..]),
            edits in proptest::collection::vec((0usize..1300, 0usize..3, prop::sample::select(&PIECES[..])), 1..4)
        ) {
            let mut text = whole.to_owned();
            for (place, removed, inserted) in edits {
                let start = (0..=place.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap();
                let end = (start + removed..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
                text.replace_range(start..end, inserted);
            }
            check_agreement(&text);
        }
    }
}
