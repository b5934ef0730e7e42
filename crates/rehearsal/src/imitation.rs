//! What the server's model says: a context made of the story in the prompt, or one of the ways to miss it.
//!
//! Agents are the capitalised names of the story, and its sentences are the steps. It must not share the
//! client's idea of a context: both sides must agree on the wire.

use serde_json::{Map, Value, json};

use crate::faults::chance;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerStyle {
    /// With a context in the form that the schema asks for; without a schema as an object.
    Plain,
    /// The same inside a Markdown fence, with words around it.
    Fenced,
    /// With lists, whatever the schema asks for.
    List,
    /// With the first half only, as if the limit of tokens had been met.
    Cut,
    /// With a context whose last step lacks an agent.
    Invalid,
    /// With words that are no JSON.
    Words,
    /// In any of these ways, chosen by the prompt and how often it was asked; mostly plain.
    Mixed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// A base model: each sentence is a step, told as it stands.
    Base,
    /// One that plays at having been trained: a scene to begin with, deeds without the agent's name.
    Tuned,
}

#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub prompt: &'a str,
    /// How often that was asked, this time included.
    pub number: u64,
    pub wants_lists: bool,
}

#[derive(Debug)]
pub struct Completion {
    pub text: String,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

pub fn answer(question: Question<'_>, style: AnswerStyle, speaker: Speaker) -> Completion {
    let style = match style {
        AnswerStyle::Mixed => mixed(question.prompt, question.number),
        style => style,
    };
    let is_list = style == AnswerStyle::List || (style == AnswerStyle::Plain && question.wants_lists);
    let story = story(question.prompt);
    let context = context(story, speaker, is_list, style == AnswerStyle::Invalid).to_string();
    let text = match style {
        AnswerStyle::Fenced => format!("Here is the context:\n\n```json\n{context}\n```\n"),
        AnswerStyle::Words => "I am sorry, but I have nothing to say about this story.".to_owned(),
        AnswerStyle::Cut => context.chars().take(context.chars().count() / 2).collect(),
        _ => context,
    };
    Completion { text, finish_reason: if style == AnswerStyle::Cut { "length" } else { "stop" } }
}

fn mixed(prompt: &str, asked: u64) -> AnswerStyle {
    let words = prompt.bytes().fold(asked, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    match chance(&[words]) {
        part if part < 0.6 => AnswerStyle::Plain,
        part if part < 0.75 => AnswerStyle::Fenced,
        part if part < 0.85 => AnswerStyle::List,
        part if part < 0.9 => AnswerStyle::Cut,
        part if part < 0.95 => AnswerStyle::Invalid,
        _ => AnswerStyle::Words,
    }
}

/// The story in a prompt: what stands behind the last `story:`, up to a blank line; else all of it.
fn story(prompt: &str) -> &str {
    let lower = prompt.to_ascii_lowercase();
    let Some(at) = lower.rfind("story:") else { return prompt };
    let rest = prompt[at + "story:".len()..].trim_start();
    rest.split("\n\n").next().unwrap_or(rest).trim_end()
}

fn names(story: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        let mut characters = word.chars();
        characters.next().is_some_and(char::is_uppercase)
            && characters.as_str().chars().count() > 1
            && characters.all(|character| character.is_lowercase() || character.is_numeric())
    };
    let skipped = ["The", "It", "Story", "Question", "Where", "What", "Who", "How", "You", "Then", "After"];
    let mut names: Vec<&str> = Vec::new();
    let words = story.split(|character: char| !character.is_alphanumeric());
    for word in words.filter(is_name).filter(|word| !skipped.contains(word)) {
        if !names.contains(&word) {
            names.push(word);
        }
    }
    if names.is_empty() { vec!["Somebody"] } else { names }
}

fn sentences(story: &str) -> Vec<&str> {
    let parts = story.split_inclusive(['.', '!', '?']).map(str::trim);
    parts.filter(|part| part.chars().any(char::is_alphanumeric)).collect()
}

fn context(story: &str, speaker: Speaker, is_list: bool, lacks_an_agent: bool) -> Value {
    let (names, sentences) = (names(story), sentences(story));
    // A tuned model begins with a scene; a base model, and a story of one sentence, with a deed.
    let is_scene = speaker == Speaker::Tuned && sentences.len() > 1;
    let deeds = &sentences[usize::from(is_scene)..];
    let first = if is_scene { sentences[0] } else { "none" };
    let states = std::iter::once(first).chain(deeds.iter().copied());
    // After the last deed it is observed what came of it.
    let deeds = deeds.iter().copied().chain(is_scene.then_some("none"));
    let steps: Vec<(&str, &str)> = states.zip(deeds).collect();
    let first_look = if speaker == Speaker::Tuned { "<same_as_state />" } else { "none" };
    let mut all_steps = Vec::new();
    for (index, (state, deed)) in steps.iter().enumerate() {
        let actor = names.iter().find(|name| deed.contains(**name)).unwrap_or(&names[0]);
        let deed = if speaker == Speaker::Tuned { without_name(deed, actor) } else { deed };
        let is_last = index + 1 == steps.len();
        let all = if lacks_an_agent && is_last { &names[1..] } else { &names[..] };
        let look = if index == 0 { first_look } else { "<same_as_last_action />" };
        let observed = all.iter().map(|name| (*name, look));
        let done = all.iter().map(|name| (*name, if name == actor { deed } else { "none" }));
        all_steps.push(json!({
            "timestep": index.to_string(),
            "state": state,
            "observations": formed(observed, is_list),
            "actions": formed(done, is_list),
        }));
    }
    json!({ "agents_names": names, "socialized_context": all_steps })
}

/// A deed without the name of who did it in front.
fn without_name<'d>(deed: &'d str, actor: &str) -> &'d str {
    let bare = deed.strip_prefix(actor).map(str::trim_start).unwrap_or(deed);
    bare.trim_end_matches('.')
}

fn formed<'t>(pairs: impl Iterator<Item = (&'t str, &'t str)>, is_list: bool) -> Value {
    if is_list {
        pairs.map(|(name, text)| Value::from(format!("{name}: {text}"))).collect()
    } else {
        Value::Object(pairs.map(|(name, text)| (name.to_owned(), text.into())).collect::<Map<_, _>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &str =
        "Read this.\n\nStory:\nMia met Oliver in the hall. Oliver left!\n\nAnswer with one JSON document.";

    const QUESTION: Question<'_> = Question { prompt: PROMPT, number: 1, wants_lists: false };

    #[test]
    fn a_context_has_the_names_and_sentences_of_the_story() {
        let answered = answer(QUESTION, AnswerStyle::Plain, Speaker::Base);
        let context: Value = serde_json::from_str(&answered.text).unwrap();
        assert_eq!(context["agents_names"], json!(["Mia", "Oliver"]));
        let steps = context["socialized_context"].as_array().unwrap();
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[1]["timestep"], "1");
        assert_eq!(steps[1]["actions"], json!({ "Mia": "none", "Oliver": "Oliver left!" }));
        assert_eq!(answered.finish_reason, "stop");
    }

    #[test]
    fn every_style_misses_in_its_own_way() {
        let text = |style| answer(QUESTION, style, Speaker::Base).text;
        let json = |style| serde_json::from_str::<Value>(&text(style));
        assert!(text(AnswerStyle::Fenced).contains("```json\n{"));
        assert!(json(AnswerStyle::List).unwrap()["socialized_context"][0]["actions"].is_array());
        assert!(
            json(AnswerStyle::Cut).is_err()
                && answer(QUESTION, AnswerStyle::Cut, Speaker::Base).finish_reason == "length"
        );
        let invalid = json(AnswerStyle::Invalid).unwrap();
        assert_eq!(invalid["socialized_context"][1]["actions"].as_object().unwrap().len(), 1);
        assert!(json(AnswerStyle::Words).is_err());
        let lists = Question { wants_lists: true, ..QUESTION };
        assert!(answer(lists, AnswerStyle::Plain, Speaker::Base).text.contains("\"Mia: none\""));
    }

    #[test]
    fn who_plays_at_having_been_trained_begins_with_a_scene() {
        let answered = answer(QUESTION, AnswerStyle::Plain, Speaker::Tuned);
        let context: Value = serde_json::from_str(&answered.text).unwrap();
        let expected = json!([
            {
                "timestep": "0",
                "state": "Mia met Oliver in the hall.",
                "observations": { "Mia": "<same_as_state />", "Oliver": "<same_as_state />" },
                "actions": { "Mia": "none", "Oliver": "left!" },
            },
            {
                "timestep": "1",
                "state": "Oliver left!",
                "observations": { "Mia": "<same_as_last_action />", "Oliver": "<same_as_last_action />" },
                "actions": { "Mia": "none", "Oliver": "none" },
            },
        ]);
        assert_eq!(context["socialized_context"], expected);
    }

    #[test]
    fn mixed_answers_are_of_every_kind_and_always_the_same() {
        let mut kinds: Vec<String> =
            (0..400).map(|number| format!("{:?}", mixed(&format!("story {number}"), 1))).collect();
        assert_eq!(format!("{:?}", mixed("story 7", 1)), kinds[7]);
        kinds.sort();
        kinds.dedup();
        assert_eq!(kinds, ["Cut", "Fenced", "Invalid", "List", "Plain", "Words"]);
    }
}
