//! What the server's model says: a context made of the story in the prompt, or one of the ways to miss it.
//!
//! Separate from the protocol, so that answers are a function of the prompt, the form that is wanted, and
//! how often was asked. Agents are the capitalised names of the story, and each sentence is a step. It
//! must not share the client's idea of a context: both sides must agree on the wire.

use serde_json::{Map, Value, json};

use crate::rehearsal::faults::chance;

/// How a question is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
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

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its text.
    pub text: String,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

/// The answer to `prompt`, asked for the time of this number, counted from 1.
pub fn answer(prompt: &str, manner: Manner, asked: u64, wants_lists: bool) -> Said {
    let manner = if manner == Manner::Mixed { mixed(prompt, asked) } else { manner };
    let story = story(prompt);
    let is_list = manner == Manner::List || (manner == Manner::Plain && wants_lists);
    let context = context(story, is_list, manner == Manner::Invalid).to_string();
    let stop = |text| Said { text, finish_reason: "stop" };
    match manner {
        Manner::Fenced => stop(format!("Here is the context:\n\n```json\n{context}\n```\n")),
        Manner::Words => stop("I am sorry, but I have nothing to say about this story.".to_owned()),
        Manner::Cut => {
            let half = context.chars().take(context.chars().count() / 2).collect();
            Said { text: half, finish_reason: "length" }
        }
        Manner::Plain | Manner::List | Manner::Invalid | Manner::Mixed => stop(context),
    }
}

fn mixed(prompt: &str, asked: u64) -> Manner {
    let words = prompt.bytes().fold(asked, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    match chance(&[words]) {
        part if part < 0.6 => Manner::Plain,
        part if part < 0.75 => Manner::Fenced,
        part if part < 0.85 => Manner::List,
        part if part < 0.9 => Manner::Cut,
        part if part < 0.95 => Manner::Invalid,
        _ => Manner::Words,
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

fn context(story: &str, is_list: bool, lacks_an_agent: bool) -> Value {
    let names = names(story);
    let sentences = sentences(story);
    let mut steps = Vec::new();
    for (index, sentence) in sentences.iter().enumerate() {
        let actor = names.iter().find(|name| sentence.contains(**name)).unwrap_or(&names[0]);
        let is_last = index + 1 == sentences.len();
        let all = if lacks_an_agent && is_last { &names[1..] } else { &names[..] };
        let observed =
            all.iter().map(|name| (*name, if index == 0 { "none" } else { "<same_as_last_action />" }));
        let done = all.iter().map(|name| (*name, if name == actor { *sentence } else { "none" }));
        steps.push(json!({
            "timestep": index.to_string(),
            "state": if index == 0 { "none" } else { sentences[index - 1] },
            "observations": formed(observed, is_list),
            "actions": formed(done, is_list),
        }));
    }
    json!({ "agents_names": names, "socialized_context": steps })
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

    #[test]
    fn a_context_has_the_names_and_sentences_of_the_story() {
        let said = answer(PROMPT, Manner::Plain, 1, false);
        let context: Value = serde_json::from_str(&said.text).unwrap();
        assert_eq!(context["agents_names"], json!(["Mia", "Oliver"]));
        let steps = context["socialized_context"].as_array().unwrap();
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[1]["timestep"], "1");
        assert_eq!(steps[1]["actions"], json!({ "Mia": "none", "Oliver": "Oliver left!" }));
        assert_eq!(said.finish_reason, "stop");
    }

    #[test]
    fn every_manner_misses_in_its_own_way() {
        let text = |manner| answer(PROMPT, manner, 1, false).text;
        let json = |manner| serde_json::from_str::<Value>(&text(manner));
        assert!(text(Manner::Fenced).contains("```json\n{"));
        assert!(json(Manner::List).unwrap()["socialized_context"][0]["actions"].is_array());
        assert!(
            json(Manner::Cut).is_err() && answer(PROMPT, Manner::Cut, 1, false).finish_reason == "length"
        );
        let invalid = json(Manner::Invalid).unwrap();
        assert_eq!(invalid["socialized_context"][1]["actions"].as_object().unwrap().len(), 1);
        assert!(json(Manner::Words).is_err());
        assert!(answer(PROMPT, Manner::Plain, 1, true).text.contains("\"Mia: none\""));
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
