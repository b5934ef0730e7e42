//! A context with its special tags replaced by what they stand for.
//!
//! As the context's manual has it: `<same_as_state />` in an observation is the state of its step;
//! `<same_as_last_action />`, in an observation or a state, is what was done in the step before: by all
//! who acted, in the order of their names; `<same_as_last_action_N />` is what agent N of `agents_names`,
//! counted from 0, did there. An action is told with its agent in front (`Mia opens the box`), unless it
//! begins with that name. The older forms `[SAME AS STATE]`, `[SAME AS LAST ACTION]`, `[SAME AS LAST ACTION N]`
//! mean the same. What begins like a tag and stands for nothing (another name, nobody acted, no step
//! before) stays as text and is counted. Actions are not looked into.

use std::borrow::Cow;

use memchr::memchr2;

use crate::record::context::{AgentText, Context};
use crate::record::story::is_blank;
use crate::score::words::is_none;

/// Bytes that tags of one context may stand for, together: a hostile one cannot fill the memory.
const MAX_INSERTED: usize = 64 << 20;

/// An agent and what it observes or does.
pub type Told<'a> = (&'a str, Cow<'a, str>);

/// A context without tags, its texts trimmed.
#[derive(Debug)]
pub struct Resolved<'a> {
    /// The agents, each once, by name.
    pub agents: Vec<&'a str>,
    /// The steps in their order.
    pub steps: Vec<ResolvedStep<'a>>,
    /// What begins like a tag and stands for nothing.
    pub unresolved: u64,
}

/// One step without tags.
#[derive(Debug)]
pub struct ResolvedStep<'a> {
    /// The state.
    pub state: Cow<'a, str>,
    /// The observations, by the agents' names.
    pub observations: Vec<Told<'a>>,
    /// The actions, by the agents' names.
    pub actions: Vec<Told<'a>>,
}

impl<'a> Resolved<'a> {
    /// Resolves `context`.
    pub fn of(context: &Context<'a>) -> Resolved<'a> {
        let mut agents = context.agents_names.clone();
        agents.sort_unstable();
        agents.dedup();
        let mut resolver = Resolver { names: &context.agents_names, unresolved: 0, budget: MAX_INSERTED };
        let mut steps: Vec<ResolvedStep<'a>> = Vec::with_capacity(context.steps.len());
        for step in &context.steps {
            let last = Last::of(steps.last());
            let state = resolver.resolve(step.state.to_real(), &last, None);
            let mut observations = told(context.observations(step));
            for (_, text) in &mut observations {
                let observed = std::mem::take(text);
                *text = resolver.resolve(observed, &last, Some(&state));
            }
            let mut actions = told(context.actions(step));
            actions.iter_mut().for_each(|(_, text)| *text = trimmed(std::mem::take(text)));
            steps.push(ResolvedStep { state, observations, actions });
        }
        Resolved { agents, steps, unresolved: resolver.unresolved }
    }
}

fn told<'a>(pairs: &[AgentText<'a>]) -> Vec<Told<'a>> {
    let mut told: Vec<Told<'a>> = pairs.iter().map(|(agent, text)| (*agent, text.to_real())).collect();
    told.sort_unstable_by_key(|(agent, _)| *agent);
    told
}

fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_matches(is_blank)),
        Cow::Owned(text) => match text.trim_matches(is_blank) {
            inner if inner.len() == text.len() => Cow::Owned(text),
            inner => Cow::Owned(inner.to_owned()),
        },
    }
}

/// What was done in the step before.
struct Last<'s, 'a> {
    actions: &'s [Told<'a>],
    /// All of it in one text; empty where nobody acted.
    all: String,
}

impl<'s, 'a> Last<'s, 'a> {
    fn of(step: Option<&'s ResolvedStep<'a>>) -> Self {
        let actions = step.map_or(&[][..], |step| &step.actions);
        let mut all = String::new();
        for (agent, action) in actions.iter().filter(|(_, action)| is_action(action)) {
            if !all.is_empty() {
                all.push(' ');
            }
            all.push_str(&told_by(agent, action));
        }
        Last { actions, all }
    }

    fn of_agent(&self, agent: &str) -> Option<Cow<'_, str>> {
        let found = self.actions.binary_search_by_key(&agent, |(name, _)| *name).ok()?;
        let (agent, action) = &self.actions[found];
        is_action(action).then(|| told_by(agent, action))
    }
}

fn is_action(action: &str) -> bool {
    !action.is_empty() && !is_none(action)
}

/// `action` with its agent in front.
fn told_by<'t>(agent: &str, action: &'t str) -> Cow<'t, str> {
    match action.strip_prefix(agent) {
        Some(rest) if !rest.starts_with(char::is_alphanumeric) => Cow::Borrowed(action),
        _ => Cow::Owned(format!("{agent} {action}")),
    }
}

/// A tag by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    State,
    LastActions,
    LastActionOf(usize),
}

struct Resolver<'n, 'a> {
    names: &'n [&'a str],
    unresolved: u64,
    budget: usize,
}

impl<'a> Resolver<'_, 'a> {
    /// `text` with its tags replaced; `state` is the state they may mean.
    fn resolve(&mut self, text: Cow<'a, str>, last: &Last<'_, '_>, state: Option<&str>) -> Cow<'a, str> {
        let mut resolved = String::new();
        let mut is_changed = false;
        let mut rest: &str = &text;
        while let Some(start) = memchr2(b'<', b'[', rest.as_bytes()) {
            let (before, here) = rest.split_at(start);
            let tag = tag(here);
            let meant = tag.and_then(|(tag, length)| Some((self.meaning(tag, last, state)?, length)));
            let (insert, length) = match meant {
                Some((meant, length)) if meant.len() <= self.budget => {
                    self.budget -= meant.len();
                    is_changed = true;
                    (meant, length)
                }
                _ => {
                    self.unresolved += u64::from(begins_like_tag(here));
                    (Cow::Borrowed(&here[..1]), 1)
                }
            };
            resolved.push_str(before);
            resolved.push_str(&insert);
            rest = &here[length..];
        }
        if !is_changed {
            return trimmed(text);
        }
        resolved.push_str(rest);
        trimmed(Cow::Owned(resolved))
    }

    fn meaning<'t>(&self, tag: Tag, last: &'t Last<'_, '_>, state: Option<&'t str>) -> Option<Cow<'t, str>> {
        match tag {
            Tag::State => state.map(Cow::Borrowed),
            Tag::LastActions => (!last.all.is_empty()).then_some(Cow::Borrowed(&last.all)),
            Tag::LastActionOf(index) => last.of_agent(self.names.get(index)?),
        }
    }
}

fn begins_like_tag(text: &str) -> bool {
    text.starts_with("<same_as_") || text.starts_with("[SAME AS ")
}

/// The tag at the start of `text` and its length.
fn tag(text: &str) -> Option<(Tag, usize)> {
    let (kind, rest) = match text.strip_prefix("<same_as_") {
        Some(rest) => tag_kind(rest, ["state", "last_action", "_"])?,
        None => tag_kind(text.strip_prefix("[SAME AS ")?, ["STATE", "LAST ACTION", " "])?,
    };
    let rest = match text.starts_with('<') {
        true => rest.trim_start_matches(' ').strip_prefix("/>")?,
        false => rest.strip_prefix(']')?,
    };
    Some((kind, text.len() - rest.len()))
}

fn tag_kind<'t>(text: &'t str, [state, action, before_index]: [&str; 3]) -> Option<(Tag, &'t str)> {
    if let Some(rest) = text.strip_prefix(state) {
        return Some((Tag::State, rest));
    }
    let rest = text.strip_prefix(action)?;
    let digits = match rest.strip_prefix(before_index) {
        Some(digits) if digits.starts_with(|character: char| character.is_ascii_digit()) => digits,
        _ => return Some((Tag::LastActions, rest)),
    };
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    Some((Tag::LastActionOf(digits[..end].parse().ok()?), &digits[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::parser::with_single_context;

    /// What A observes in the last of two steps, and how many tags stay, where `actions` came before.
    fn check(actions: &str, observation: &str, expected: &str, unresolved: u64) {
        let json = format!(
            r#"{{"agents_names":["B","A"],"socialized_context":[
            {{"state":"first","observations":{{}},"actions":{actions}}},
            {{"state":"none <same_as_last_action />","observations":{{"A":"{observation}"}},"actions":{{}}}}]}}"#
        );
        let found = with_single_context(json.as_bytes(), |context| {
            let resolved = Resolved::of(context);
            (resolved.steps[1].observations[0].1.to_string(), resolved.unresolved)
        });
        assert_eq!(found.unwrap(), (expected.to_owned(), unresolved), "{actions} {observation}");
    }

    #[test]
    fn tags_stand_for_states_and_actions() {
        let actions = r#"{"B":" runs","A":"A sits."}"#;
        check(actions, "<same_as_state />", "none A sits. B runs", 0);
        check(actions, "[SAME AS STATE]", "none A sits. B runs", 0);
        check(actions, "<same_as_state/> It rains. ", "none A sits. B runs It rains.", 0);
        check(actions, "<same_as_last_action />", "A sits. B runs", 0);
        check(actions, "[SAME AS LAST ACTION]", "A sits. B runs", 0);
        check(actions, "<same_as_last_action_0 />", "B runs", 0);
        check(actions, "x [SAME AS LAST ACTION 1][SAME AS LAST ACTION 0]", "x A sits.B runs", 0);
        check(r#"{"A":"Arrives"}"#, "<same_as_last_action />", "A Arrives", 0);
        check(
            actions,
            " a < b [c] <mental_state>d</mental_state>",
            "a < b [c] <mental_state>d</mental_state>",
            0,
        );
    }

    #[test]
    fn a_tag_that_stands_for_nothing_stays_and_is_counted() {
        let idle = r#"{"A":"None","B":" "}"#;
        // The state of that step has one of its own.
        check(idle, "<same_as_last_action />", "<same_as_last_action />", 2);
        check(idle, "<same_as_last_action_1 />", "<same_as_last_action_1 />", 2);
        let active = r#"{"A":"runs"}"#;
        for tag in [
            "<same_as_last_action_0 />",
            "<same_as_last_action_2 />",
            "<same_as_last_action_99999999999999999999999 />",
            "<same_as_last_action_x />",
            "<same_as_next_state />",
            "<same_as_state >",
            "[SAME AS STATE 1]",
            "[SAME AS LAST ACTION",
        ] {
            check(active, tag, tag, 1);
        }
        check(active, "<same_as_state>", "<same_as_state>", 1);
    }

    #[test]
    fn the_first_step_has_nothing_before_it() {
        let json = r#"{"agents_names":["A"],"socialized_context":[{"state":"<same_as_state /> s",
            "observations":{"A":"<same_as_last_action /> <same_as_last_action_0 />"},"actions":{"A":"<same_as_state />"}}]}"#;
        let unresolved = with_single_context(json.as_bytes(), |context| Resolved::of(context).unresolved);
        assert_eq!(unresolved.unwrap(), 3);
    }

    #[test]
    fn tags_cannot_fill_the_memory() {
        let state = "s".repeat(1 << 20);
        let observation = "<same_as_state />".repeat(100);
        let json = format!(
            r#"{{"agents_names":["A"],"socialized_context":[{{"state":"{state}","observations":{{"A":"{observation}"}},"actions":{{}}}}]}}"#
        );
        let found = with_single_context(json.as_bytes(), |context| {
            let resolved = Resolved::of(context);
            (resolved.unresolved, resolved.steps[0].observations[0].1.len())
        });
        assert_eq!(found.unwrap(), (36, (64 << 20) + 36 * "<same_as_state />".len()));
    }
}
