//! A story into the messages that a model was trained to answer.
//!
//! Separate because training and use must not drift apart: the same compiled template that wrote the
//! examples is filled here, up to its last message, which is the assistant's and is what is asked for.
//! The way back, from an example to its story, is for what is written beside an answer.

use crate::generate::story::Story;
use crate::json::escape_once;
use crate::prepare::example::{Example, Message};
use crate::prepare::template::{Segment, Template};

/// Why a template asks nothing about a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// The context would have to be known before it is asked for.
    #[error("the template has {{context}} in a message before the last one")]
    ContextBefore,
    /// The story came without it.
    #[error("the template asks for {{{0}}}, and the story has none")]
    Missing(&'static str),
}

/// Whether `template` can ask about anything at all.
///
/// # Errors
/// When its context is needed before it is generated.
pub fn check(template: &Template) -> Result<(), PromptError> {
    if before_last(template).contains(&Segment::Context) {
        return Err(PromptError::ContextBefore);
    }
    Ok(())
}

/// The messages before the last one, filled with `story`.
///
/// # Errors
/// When the template asks for something that the story does not have.
pub fn messages(template: &Template, story: &Story) -> Result<Vec<Message>, PromptError> {
    for segment in before_last(template) {
        match segment {
            Segment::Question if story.question.is_none() => return Err(PromptError::Missing("question")),
            Segment::Answer if story.answer.is_none() => return Err(PromptError::Missing("answer")),
            _ => {}
        }
    }
    let line = filled(template, &|segment| match segment {
        Segment::Story => &story.text,
        Segment::Question => story.question.as_deref().unwrap_or_default(),
        Segment::Answer => story.answer.as_deref().unwrap_or_default(),
        Segment::Context | Segment::Fixed(_) => "",
    });
    let example = Example::from_line(&line);
    let mut messages = example.map(|example| example.messages).unwrap_or_default();
    messages.pop();
    Ok(messages)
}

/// What a training line was filled with before its last message. Nothing where the template does not
/// tell it apart: where two texts share a message, words between them could be words of theirs.
pub fn story_of(template: &Template, line: &[u8]) -> Option<Story> {
    // One more than those: what follows the last text.
    let segments = &template.segments[..=before_last(template).len()];
    let mut story = Story::default();
    let mut rest = line;
    for (index, segment) in segments.iter().enumerate() {
        let name = match segment {
            Segment::Fixed(bytes) => {
                rest = rest.strip_prefix(bytes.as_slice())?;
                continue;
            }
            Segment::Story => "story",
            Segment::Question => "question",
            Segment::Answer => "answer",
            Segment::Context => return None,
        };
        let Segment::Fixed(after) = segments.get(index + 1)? else { return None };
        if !ends_message(after) {
            return None;
        }
        let end = rest.windows(after.len()).position(|window| window == after)?;
        let json = format!("\"{}\"", std::str::from_utf8(&rest[..end]).ok()?);
        rest = &rest[end..];
        let text: String = serde_json::from_str(&json).ok()?;
        if story.fields.iter().all(|(known, _)| known != name) {
            story.fields.push((name.to_owned(), serde_json::value::to_raw_value(&text).ok()?));
        }
        match segment {
            Segment::Story => story.text = text,
            Segment::Question => story.question = Some(text),
            _ => story.answer = Some(text),
        }
    }
    Some(story)
}

/// Whether fixed text holds the quote at the end of a message, which is the only one that is not escaped.
fn ends_message(fixed: &[u8]) -> bool {
    let mut bytes = fixed.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return true,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
    false
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
    use crate::prepare::convert::{LineWriter, with_single_record};

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

    #[test]
    fn a_story_is_found_again_where_no_other_text_shares_its_message() {
        let line = |template: &Template| {
            let mut line = Vec::new();
            with_single_record(RECORD, |record| LineWriter::new(template).write_line(record, &mut line))
                .unwrap();
            line
        };
        let apart = "{role: user, content: 'so \"{story}\" now'}, {role: assistant, content: 'ok {question}'}, \
                     {role: user, content: 'go'}, {role: assistant, content: '{answer} {context}'}";
        for (template, question) in [(Template::chatml(), None), (template(apart), Some("Q?"))] {
            let back = story_of(&template, &line(&template)).unwrap();
            assert_eq!((&*back.text, back.question.as_deref()), ("Mia \"left\"\n. Noé ran.", question));
        }
        for message in ["{story}{question}", "{story} {question}", "{story} \\\" {question}"] {
            let shared = template(&format!(
                "{{role: user, content: '{message}'}}, {{role: assistant, content: '{{context}}'}}"
            ));
            assert!(story_of(&shared, &line(&shared)).is_none(), "{message}");
            assert!(story_of(&Template::chatml(), &line(&shared)).is_none());
        }
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
