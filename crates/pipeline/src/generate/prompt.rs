//! A story into the messages that a model was trained to answer.
//!
//! Separate because training and use must not drift apart: the same compiled template that wrote the
//! examples is filled here, up to its last message, which is the assistant's and is what is asked for.
//! The way back, from an example to its story, is for what is written beside an answer.

use crate::generate::story::Story;
use ctxtune_engine::json::escape_once;
use ctxtune_engine::line::example::{Example, Message};
use ctxtune_engine::line::template::{Segment, Template};
use ctxtune_engine::record::TextField;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    #[error("the template has {{context}} in a message before the last one")]
    ContextBefore,
    #[error("the template asks for {{{0}}}, and the story has none")]
    Missing(&'static str),
}

pub fn check(template: &Template) -> Result<(), PromptError> {
    if before_last(template).contains(&Segment::Context) {
        return Err(PromptError::ContextBefore);
    }
    Ok(())
}

/// The messages before the last one, filled with `story`.
pub fn messages(template: &Template, story: &Story) -> Result<Vec<Message>, PromptError> {
    for segment in before_last(template) {
        if let Segment::Text(field) = segment
            && story.get(*field).is_none()
        {
            return Err(PromptError::Missing(field.key()));
        }
    }
    let line = filled(template, &|segment| match segment {
        Segment::Text(field) => story.get(*field).unwrap_or_default(),
        Segment::Context | Segment::Fixed(_) => "",
    });
    let example = Example::from_line(&line);
    let mut messages = example.map(|example| example.messages).unwrap_or_default();
    messages.pop();
    Ok(messages)
}

/// The fields that a training line was filled with before its last message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filled {
    /// Names and texts, in the order in which they first stand in the line.
    pub fields: Vec<(&'static str, String)>,
    /// Whether these can be the only texts. Where two fields share a message, the words between them can be
    /// words of theirs; then the story is the longest possible, and the same template makes the same line of it.
    pub is_unique: bool,
}

/// The fields that `template` was filled with in `line`, before its last message; nothing where the line was not
/// made with it.
pub(crate) fn filled_in(template: &Template, line: &[u8]) -> Option<Filled> {
    // One more than those before the last message: what follows the last text.
    let mut segments = template.segments[..=before_last(template).len()].iter().peekable();
    let mut filled = Filled { fields: Vec::new(), is_unique: true };
    let mut rest = line;
    while let Some(segment) = segments.next() {
        if let Segment::Fixed(bytes) = segment {
            rest = rest.strip_prefix(bytes.as_slice())?;
            continue;
        }
        // To the end of the message: the texts in it, and what stands between them.
        let mut run = Run { names: vec![name(segment)?], between: Vec::new() };
        let mut between = Vec::new();
        let end = loop {
            match segments.next()? {
                Segment::Fixed(bytes) if message_end(bytes).is_some() => break bytes,
                Segment::Fixed(bytes) => between.extend_from_slice(bytes),
                field => {
                    run.names.push(name(field)?);
                    run.between.push(std::mem::take(&mut between));
                }
            }
        };
        between.extend_from_slice(&end[..message_end(end)?]);
        let length = message_end(rest)?;
        let texts = rest[..length].strip_suffix(between.as_slice())?;
        rest = rest[length..].strip_prefix(&end[message_end(end)?..])?;
        run.take(texts, &mut filled)?;
    }
    Some(filled)
}

struct Run {
    names: Vec<&'static str>,
    /// What stands between each two of them, escaped.
    between: Vec<Vec<u8>>,
}

impl Run {
    /// Adds the texts in `texts`, escaped, to those of `filled`.
    fn take(&self, texts: &[u8], filled: &mut Filled) -> Option<()> {
        let [first, last] = [self.leftmost(texts)?, self.rightmost(texts)?];
        filled.is_unique &= first == last;
        // As little as possible before the story and behind it.
        let story =
            self.names.iter().position(|name| *name == TextField::Story.key()).unwrap_or(self.names.len());
        let starts = first[..story.min(first.len())].iter().chain(&last[story.min(last.len())..]);
        let mut from = 0;
        let ends = starts.copied().zip(self.between.iter().map(Vec::len)).chain([(texts.len(), 0)]);
        for (name, (end, between)) in self.names.iter().zip(ends) {
            let json = format!("\"{}\"", std::str::from_utf8(texts.get(from..end)?).ok()?);
            let text: String = serde_json::from_str(&json).ok()?;
            from = end + between;
            match filled.fields.iter().find(|(known, _)| known == name) {
                Some((_, known)) => filled.is_unique &= *known == text,
                None => filled.fields.push((name, text)),
            }
        }
        Some(())
    }

    /// Where what stands between two texts begins, each time as early as possible.
    fn leftmost(&self, texts: &[u8]) -> Option<Vec<usize>> {
        let boundaries = boundaries(texts);
        let mut from = 0;
        let find = |between: &Vec<u8>| {
            let fits = |at: &&usize| **at >= from && texts[**at..].starts_with(between);
            let start = *boundaries.iter().find(fits)?;
            from = start + between.len();
            Some(start)
        };
        self.between.iter().map(find).collect()
    }

    /// The same, as late as possible.
    fn rightmost(&self, texts: &[u8]) -> Option<Vec<usize>> {
        let boundaries = boundaries(texts);
        let mut to = texts.len();
        let find = |between: &Vec<u8>| {
            let fits = |at: &&usize| **at + between.len() <= to && texts[**at..].starts_with(between);
            to = *boundaries.iter().rev().find(fits)?;
            Some(to)
        };
        let mut starts: Vec<usize> = self.between.iter().rev().map(find).collect::<Option<_>>()?;
        starts.reverse();
        Some(starts)
    }
}

/// Where escaped text can be cut without cutting an escape or a character; its end too.
fn boundaries(escaped: &[u8]) -> Vec<usize> {
    let mut boundaries = Vec::new();
    let mut at = 0;
    while at < escaped.len() {
        boundaries.push(at);
        at += match &escaped[at..] {
            [b'\\', b'u', ..] => 6,
            [b'\\', ..] => 2,
            rest => 1 + rest[1..].iter().take_while(|&&byte| byte & 0xc0 == 0x80).count(),
        };
    }
    boundaries.push(escaped.len());
    boundaries
}

fn name(segment: &Segment) -> Option<&'static str> {
    match segment {
        Segment::Text(field) => Some(field.key()),
        Segment::Context | Segment::Fixed(_) => None,
    }
}

/// Where a message ends in escaped text: at its first quote without an escape.
fn message_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The segments of all messages but the last. Where a message begins stands in fixed text, escaped;
/// its texts cannot hold it, as their quotes are.
fn before_last(template: &Template) -> &[Segment] {
    let begins = |segment: &Segment| match segment {
        Segment::Fixed(bytes) => bytes.windows(BEGIN.len()).any(|window| window == BEGIN),
        _ => false,
    };
    let last = template.segments.iter().rposition(begins).unwrap_or(0);
    &template.segments[..last]
}

const BEGIN: &[u8] = br#"{"role":"assistant","content":""#;

fn filled<'a>(template: &'a Template, text: &dyn Fn(&'a Segment) -> &'a str) -> Vec<u8> {
    let mut line = Vec::new();
    for segment in &template.segments {
        match segment {
            Segment::Fixed(bytes) => line.extend_from_slice(bytes),
            other => escape_once(&mut line, text(other)),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctxtune_engine::line::convert::LineWriter;
    use ctxtune_engine::record::parser::with_single_record;

    const RECORD: &[u8] = br#"{"story": "['Mia \"left\"\\n.', 'No\u00e9 ran.']", "question": "Q?", "answer": "A", "socialized_context":
        {"agents_names": ["Mia"], "socialized_context": [{"state": "s", "observations": {}, "actions": {}}]}}"#;

    fn template(messages: &str) -> Template {
        Template::parse(&format!("messages: [{messages}]"), "t").unwrap()
    }

    #[test]
    fn the_prompt_is_the_beginning_of_the_training_example() {
        let several = "{role: user, content: '{story} {question}'}, {role: assistant, content: '{answer}, [\"{\"role\":\"assistant\",\"content\":\"]'}, \
                       {role: user, content: '{x} now'}, {role: assistant, content: 'here: {context}.'}";
        for template in [Template::chatml(), template(several)] {
            let mut line = Vec::new();
            with_single_record(RECORD, |record| LineWriter::new(&template).write_line(record, &mut line))
                .unwrap();
            let mut trained = Example::from_line(&line).unwrap().messages;
            trained.pop();
            assert!(!trained.is_empty());
            assert_eq!(check(&template), Ok(()));
            let story = Story::read(RECORD).unwrap();
            assert_eq!(messages(&template, &story).unwrap(), trained);
        }
    }

    fn line(template: &Template, record: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        with_single_record(record, |record| LineWriter::new(template).write_line(record, &mut line)).unwrap();
        line
    }

    fn shared(message: &str) -> Template {
        template(&format!(
            "{{role: user, content: '{message}'}}, {{role: assistant, content: '{{context}}'}}"
        ))
    }

    const STORY_TEXT: &str = "Mia \"left\"\n. Noé ran.";

    #[test]
    fn fields_are_found_again_where_only_these_texts_make_the_line() {
        let apart = "{role: user, content: 'so \"{story}\" now'}, {role: assistant, content: 'ok {question}'}, \
                     {role: user, content: 'go'}, {role: assistant, content: '{answer} {context}'}";
        let check = |template: &Template, fields: &[(&'static str, &str)]| {
            let fields = fields.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
            let expected = Filled { fields, is_unique: true };
            assert_eq!(filled_in(template, &line(template, RECORD)), Some(expected), "{template:?}");
        };
        let (story, question) = (("story", STORY_TEXT), ("question", "Q?"));
        check(&Template::chatml(), &[story]);
        check(&template(apart), &[story, question]);
        check(&shared("Story: {story}\n\nQuestion: {question}"), &[story, question]);
        check(&shared("{question}<>{story}||{answer}"), &[question, story, ("answer", "A")]);
        check(&shared("{story}||{story}"), &[story]);
        // A backslash and an `n`, not the newline of the story.
        check(&shared("{story}\\n{question}"), &[story, question]);
    }

    #[test]
    fn texts_that_cannot_be_told_apart_make_the_same_line_again() {
        for message in [
            "{story}{question}",
            "{story} {question}",
            "{question}{story}",
            "{answer}{question}{story}",
            "{question}: {story}n{answer}",
            "{story}. {question}",
        ] {
            let template = shared(message);
            let line = line(&template, RECORD);
            let filled = filled_in(&template, &line).unwrap();
            let text = |name: &str| {
                let field = filled.fields.iter().find(|(known, _)| *known == name);
                field.map(|(_, text)| text.clone())
            };
            let others = [TextField::Question, TextField::Answer].into_iter();
            let others = others.filter_map(|field| Some((field, text(field.key())?))).collect();
            let story = Story { text: text("story").unwrap(), others, ..Story::default() };
            let mut trained = Example::from_line(&line).unwrap().messages;
            trained.pop();
            assert_eq!(messages(&template, &story).unwrap(), trained, "{message}");
            assert!(story.text.len() >= STORY_TEXT.len(), "{message}: {}", story.text);
            assert!(!filled.is_unique, "{message}");
        }
    }

    #[test]
    fn a_line_of_another_template_has_no_fields() {
        let shared = shared("{story} {question}");
        assert_eq!(filled_in(&Template::chatml(), &line(&shared, RECORD)), None);
        assert_eq!(filled_in(&shared, &line(&Template::chatml(), RECORD)), None);
    }

    #[test]
    fn what_the_story_lacks_is_missed_only_where_it_is_asked_for() {
        let story = Story::of("Mia left.").unwrap();
        let asks =
            template("{role: user, content: '{story} {question}'}, {role: assistant, content: '{context}'}");
        assert_eq!(messages(&asks, &story), Err(PromptError::Missing("question")));
        let after =
            template("{role: user, content: '{story}'}, {role: assistant, content: '{answer} {context}'}");
        assert_eq!(messages(&after, &story).unwrap()[0].content, "Mia left.");
    }

    #[test]
    fn a_context_in_the_prompt_cannot_be_asked_for() {
        let shown = "{role: user, content: '{story}'}, {role: assistant, content: '{context}'}, {role: user, content: again}, \
                     {role: assistant, content: '{context}'}";
        assert_eq!(check(&template(shown)), Err(PromptError::ContextBefore));
    }
}
