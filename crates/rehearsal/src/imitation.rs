//! What the server's model says: a context made of the story in the prompt, or one of the ways to miss it.
//!
//! Separate from the protocol, so that answers are a function of the prompt, the form that is wanted, who
//! answers, and how often was asked. Agents are the capitalised names of the story, and its sentences are the
//! steps. It must not share the client's idea of a context: both sides must agree on the wire.

use serde_json::{Map, Value, json};

use crate::faults::chance;

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

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// A model as it came: each sentence is a step, told as it stands.
    Base,
    /// A model that plays at having been trained: a scene to begin with, deeds without the doer's name.
    Tuned,
}

/// A question.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The last message of the user.
    pub prompt: &'a str,
    /// How often that was asked, this time included.
    pub number: u64,
    /// Whether the schema asks for lists.
    pub wants_lists: bool,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its text.
    pub text: String,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

/// What `voice` says in this manner.
pub fn answer(asked: Asked<'_>, manner: Manner, voice: Voice) -> Said {
    let manner = if manner == Manner::Mixed { mixed(asked.prompt, asked.number) } else { manner };
    let is_list = manner == Manner::List || (manner == Manner::Plain && asked.wants_lists);
    let steps = steps(story(asked.prompt), voice);
    let context = context(&steps, is_list, manner == Manner::Invalid).to_string();
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

/// What a story is taken for.
struct Steps<'s> {
    names: Vec<&'s str>,
    /// A state and what is done in it, each.
    steps: Vec<(&'s str, &'s str)>,
    voice: Voice,
}

fn steps(story: &str, voice: Voice) -> Steps<'_> {
    let sentences = sentences(story);
    // Whoever has seen contexts begins with a scene; one who has not begins with a deed.
    let is_scene = voice == Voice::Tuned && sentences.len() > 1;
    let deeds = &sentences[usize::from(is_scene)..];
    let first = if is_scene { sentences[0] } else { "none" };
    let states = std::iter::once(first).chain(deeds.iter().copied());
    // After the last deed there is a look at what came of it.
    let deeds = deeds.iter().copied().chain(is_scene.then_some("none"));
    Steps { names: names(story), steps: states.zip(deeds).collect(), voice }
}

fn context(story: &Steps<'_>, is_list: bool, lacks_an_agent: bool) -> Value {
    let Steps { names, steps, voice } = story;
    let first_look = if *voice == Voice::Tuned { "<same_as_state />" } else { "none" };
    let mut all_steps = Vec::new();
    for (index, (state, deed)) in steps.iter().enumerate() {
        let actor = names.iter().find(|name| deed.contains(**name)).unwrap_or(&names[0]);
        let deed = if *voice == Voice::Tuned { without_name(deed, actor) } else { deed };
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

    const ASKED: Asked<'_> = Asked { prompt: PROMPT, number: 1, wants_lists: false };

    #[test]
    fn a_context_has_the_names_and_sentences_of_the_story() {
        let said = answer(ASKED, Manner::Plain, Voice::Base);
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
        let text = |manner| answer(ASKED, manner, Voice::Base).text;
        let json = |manner| serde_json::from_str::<Value>(&text(manner));
        assert!(text(Manner::Fenced).contains("```json\n{"));
        assert!(json(Manner::List).unwrap()["socialized_context"][0]["actions"].is_array());
        assert!(
            json(Manner::Cut).is_err() && answer(ASKED, Manner::Cut, Voice::Base).finish_reason == "length"
        );
        let invalid = json(Manner::Invalid).unwrap();
        assert_eq!(invalid["socialized_context"][1]["actions"].as_object().unwrap().len(), 1);
        assert!(json(Manner::Words).is_err());
        let lists = Asked { wants_lists: true, ..ASKED };
        assert!(answer(lists, Manner::Plain, Voice::Base).text.contains("\"Mia: none\""));
    }

    #[test]
    fn who_plays_at_having_been_trained_begins_with_a_scene() {
        let said = answer(ASKED, Manner::Plain, Voice::Tuned);
        let context: Value = serde_json::from_str(&said.text).unwrap();
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
