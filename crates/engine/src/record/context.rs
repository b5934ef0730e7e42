//! A socialized context as it is read: agents and timesteps, borrowed, in the record's order.
//!
//! Separate from the rules that accept one (`record`): both readers build it, and templates and
//! scores take it apart. Agents and what they observe stay lists of pairs: no map ever stands
//! between input and output.

use std::borrow::Cow;
use std::ptr;

use memchr::memchr;

use crate::json::read_escape;

/// What each agent observes and does at each timestep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context<'a> {
    /// The agents, at least one, in the record's order.
    pub agents_names: Vec<&'a str>,
    /// The timesteps, at least one, in the record's order.
    pub steps: Vec<Step<'a>>,
    /// All pairs of agent and text, one step behind the other: two vectors a step would be
    /// sixteen allocations a record.
    pairs: Vec<AgentText<'a>>,
    /// Whether no agent's name holds a character that JSON escapes; `false` also where nobody looked.
    pub has_plain_names: bool,
}

/// A text of a context, in the form that its reader had at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text<'a> {
    /// The text; nothing in it needs an escape in JSON.
    Plain(&'a str),
    /// The inside of the JSON string as it was written, every escape in it checked. The line needs nearly
    /// that: to unescape it would only mean to escape it again.
    Raw(&'a str),
    /// The text; whether it needs escapes is not known.
    Real(&'a str),
}

impl<'a> Text<'a> {
    /// The text without the escapes of a JSON string.
    pub fn to_real(self) -> Cow<'a, str> {
        match self {
            Text::Plain(text) | Text::Real(text) => Cow::Borrowed(text),
            Text::Raw(raw) => Cow::Owned(unescaped(raw)),
        }
    }
}

/// `raw` without its escapes.
fn unescaped(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(backslash) = memchr(b'\\', rest.as_bytes()) {
        let (before, escape) = rest.split_at(backslash);
        let (character, length) = read_escape(escape.as_bytes()).expect("the reader checked the escapes");
        text.push_str(before);
        text.push(character);
        rest = &escape[length..];
    }
    text.push_str(rest);
    text
}

/// An agent and what it observes or does.
pub type AgentText<'a> = (&'a str, Text<'a>);

/// One timestep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<'a> {
    /// The timestep's name.
    pub timestep: Timestep<'a>,
    /// The state of the world before anyone acts.
    pub state: Text<'a>,
    observations: (usize, usize),
    actions: (usize, usize),
    /// Whether both lists name the agents of the step before, in its order; `false` also where nobody looked.
    pub repeats_agents: bool,
}

/// A timestep's name: text in most records, else its number, else its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timestep<'a> {
    /// As written.
    Text(Text<'a>),
    /// An integer.
    Number(i128),
    /// None is given: the place in the list, counted from 0, stands for it.
    Place(usize),
}

impl<'a> Step<'a> {
    /// A step whose observations and actions are these ranges of the context's pairs.
    pub fn new(
        timestep: Timestep<'a>,
        state: Text<'a>,
        observations: (usize, usize),
        actions: (usize, usize),
    ) -> Self {
        Step { timestep, state, observations, actions, repeats_agents: false }
    }

    /// The ranges of the context's pairs that are its observations and its actions.
    pub fn ranges(&self) -> ((usize, usize), (usize, usize)) {
        (self.observations, self.actions)
    }
}

impl<'a> Context<'a> {
    /// A context of these parts, unless it has no agents or no steps.
    pub fn new(
        agents_names: Vec<&'a str>,
        steps: Vec<Step<'a>>,
        pairs: Vec<AgentText<'a>>,
        has_plain_names: bool,
    ) -> Option<Self> {
        let is_usable = !agents_names.is_empty() && !steps.is_empty();
        is_usable.then_some(Context { agents_names, steps, pairs, has_plain_names })
    }

    /// What each agent observes in `step`, in the record's order.
    pub fn observations(&self, step: &Step<'a>) -> &[AgentText<'a>] {
        &self.pairs[step.observations.0..step.observations.1]
    }

    /// What each agent does in `step`, in the record's order.
    pub fn actions(&self, step: &Step<'a>) -> &[AgentText<'a>] {
        &self.pairs[step.actions.0..step.actions.1]
    }

    /// Every text of the context: agents, timesteps, states, observations, actions.
    pub fn texts(&self) -> impl Iterator<Item = Cow<'a, str>> + '_ {
        let timestep = |step: &Step<'a>| match step.timestep {
            Timestep::Text(text) => Some(text.to_real()),
            Timestep::Number(_) | Timestep::Place(_) => None,
        };
        let names = self.agents_names.iter().map(|name| Cow::Borrowed(*name));
        let steps =
            self.steps.iter().flat_map(move |step| timestep(step).into_iter().chain([step.state.to_real()]));
        let pairs = self.pairs.iter().flat_map(|&(agent, text)| [Cow::Borrowed(agent), text.to_real()]);
        names.chain(steps).chain(pairs)
    }

    /// Its agents, its steps and their pairs, for whoever reuses the vectors.
    pub fn into_parts(self) -> (Vec<&'a str>, Vec<Step<'a>>, Vec<AgentText<'a>>) {
        (self.agents_names, self.steps, self.pairs)
    }

    /// The lists of agents that steps have, but for those known to repeat the ones before.
    fn lists(&self) -> impl Iterator<Item = &[AgentText<'a>]> {
        let steps = self.steps.iter().filter(|step| !step.repeats_agents);
        steps.flat_map(|step| [self.observations(step), self.actions(step)])
    }

    /// Whether some agent of `agents_names` is missing from a step.
    pub fn misses_an_agent(&self) -> bool {
        self.lists().any(|pairs| {
            !in_order(&self.agents_names, pairs)
                && self.agents_names.iter().any(|name| pairs.iter().all(|(agent, _)| agent != name))
        })
    }

    /// Whether some agent observes or acts without standing in `agents_names`.
    pub fn names_a_stranger(&self) -> bool {
        self.lists().any(|pairs| {
            !in_order(&self.agents_names, pairs)
                && pairs.iter().any(|(agent, _)| !self.agents_names.contains(agent))
        })
    }
}

/// Whether `pairs` name exactly the agents, in their order: the common case, seen at one glance.
fn in_order(agents: &[&str], pairs: &[AgentText<'_>]) -> bool {
    agents.len() == pairs.len()
        && agents.iter().zip(pairs).all(|(name, (agent, _))| ptr::eq(*name, *agent) || name == agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_text_reads_as_it_was_meant() {
        assert_eq!(Text::Raw(r#"a\"b\\n\n\té\/\u00e9\ud83d\ude00"#).to_real(), "a\"b\\n\n\té/é😀");
        assert_eq!(Text::Plain("a").to_real(), "a");
    }
}
