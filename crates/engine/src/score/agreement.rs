//! One generated context against its reference: state by state, agent by agent.
//!
//! Steps are compared by their place, whatever their timesteps are called. A pair is one text on each
//! side: a step's state, or what one agent observes or does in a step. Where only one side has it (a
//! step more, an agent less) the pair counts as 0. The order of agents in a list does not matter.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::score::resolve::{Resolved, Told};
use crate::score::words::{Agreement, Comparer};

/// Sums over pairs of texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Pairs compared.
    pub pairs: u64,
    /// Pairs that are `none` on both sides.
    pub none: u64,
    /// Pairs that are the same, those of `none` included.
    #[serde(skip)]
    pub exact: u64,
    /// The sum of their F1.
    #[serde(skip)]
    pub f1: f64,
}

impl Tally {
    /// The part of the pairs that are the same; 1 where there are none.
    pub fn exact(&self) -> f64 {
        if self.pairs == 0 { 1.0 } else { self.exact as f64 / self.pairs as f64 }
    }

    /// Their mean F1; 1 where there are none.
    pub fn f1(&self) -> f64 {
        if self.pairs == 0 { 1.0 } else { self.f1 / self.pairs as f64 }
    }

    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Tally) {
        self.pairs += other.pairs;
        self.none += other.none;
        self.exact += other.exact;
        self.f1 += other.f1;
    }

    /// Adds a pair; `None` where only one side has its text.
    fn count(&mut self, agreement: Option<Agreement>) {
        self.pairs += 1;
        if let Some(agreement) = agreement {
            self.none += u64::from(agreement.is_none);
            self.exact += u64::from(agreement.is_exact);
            self.f1 += agreement.f1;
        }
    }
}

/// How far what one agent observes and does agrees.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AgentTally {
    /// Observations.
    pub observations: Tally,
    /// Actions.
    pub actions: Tally,
}

/// How far a context agrees with its reference.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContextTally {
    /// States.
    pub state: Tally,
    /// Observations of all agents.
    pub observations: Tally,
    /// Actions of all agents.
    pub actions: Tally,
    /// Each agent that one of the sides knows.
    pub agents: BTreeMap<String, AgentTally>,
}

/// Compares `generated` with `gold`.
pub fn compare(gold: &Resolved<'_>, generated: &Resolved<'_>, comparer: &mut Comparer) -> ContextTally {
    let mut tally = ContextTally::default();
    for agent in gold.agents.iter().chain(&generated.agents) {
        tally.agents.entry((*agent).to_owned()).or_default();
    }
    let ContextTally { state, observations, actions, agents } = &mut tally;
    for place in 0..gold.steps.len().max(generated.steps.len()) {
        let steps = [gold.steps.get(place), generated.steps.get(place)];
        state.count(match steps {
            [Some(left), Some(right)] => Some(comparer.compare(&left.state, &right.state)),
            _ => None,
        });
        each_agent(steps.map(|step| step.map_or(&[][..], |step| &step.observations)), |agent, sides| {
            let agreement = sides.map(|[left, right]| comparer.compare(left, right));
            observations.count(agreement);
            tally_of(agents, agent).observations.count(agreement);
        });
        each_agent(steps.map(|step| step.map_or(&[][..], |step| &step.actions)), |agent, sides| {
            let agreement = sides.map(|[left, right]| comparer.compare(left, right));
            actions.count(agreement);
            tally_of(agents, agent).actions.count(agreement);
        });
    }
    tally
}

fn tally_of<'t>(agents: &'t mut BTreeMap<String, AgentTally>, agent: &str) -> &'t mut AgentTally {
    if !agents.contains_key(agent) {
        agents.insert(agent.to_owned(), AgentTally::default());
    }
    agents.get_mut(agent).expect("it was just put there")
}

/// Hands every agent of two sorted lists to `look`, with both texts where both lists have it.
fn each_agent<'t>(
    [mut left, mut right]: [&'t [Told<'t>]; 2],
    mut look: impl FnMut(&'t str, Option<[&'t str; 2]>),
) {
    loop {
        let order = match (left.first(), right.first()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        match order {
            Ordering::Equal => look(left[0].0, Some([&left[0].1, &right[0].1])),
            Ordering::Less => look(left[0].0, None),
            Ordering::Greater => look(right[0].0, None),
        }
        left = &left[usize::from(order.is_le())..];
        right = &right[usize::from(order.is_ge())..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::parser::with_single_context;

    fn compare_json(gold: &str, generated: &str) -> ContextTally {
        with_single_context(gold.as_bytes(), |gold| {
            with_single_context(generated.as_bytes(), |generated| {
                compare(&Resolved::of(gold), &Resolved::of(generated), &mut Comparer::default())
            })
            .unwrap()
        })
        .unwrap()
    }

    fn context(names: &str, steps: &[&str]) -> String {
        format!(r#"{{"agents_names":{names},"socialized_context":[{}]}}"#, steps.join(","))
    }

    fn tally(pairs: u64, none: u64, exact: u64, f1: f64) -> Tally {
        Tally { pairs, none, exact, f1 }
    }

    const GOLD: &str = r#"{"state":"the box","observations":{"A":"none","B":"<same_as_state />"},"actions":{"A":"runs","B":"none"}}"#;

    #[test]
    fn a_context_agrees_with_itself_in_any_order_and_form() {
        let gold = context(r#"["A","B"]"#, &[GOLD]);
        let turned = context(
            r#"["B","A"]"#,
            &[
                r#"{"state":"the box","observations":["B: the box","A: none"],"actions":["B: none","A: runs"]}"#,
            ],
        );
        let found = compare_json(&gold, &turned);
        assert_eq!(found, compare_json(&turned, &gold));
        assert_eq!(found.state, tally(1, 0, 1, 1.0));
        assert_eq!((found.observations, found.actions), (tally(2, 1, 2, 2.0), tally(2, 1, 2, 2.0)));
        let of_a = AgentTally { observations: tally(1, 1, 1, 1.0), actions: tally(1, 0, 1, 1.0) };
        assert_eq!(found.agents["A"], of_a);
    }

    #[test]
    fn what_only_one_side_has_counts_as_nothing() {
        let gold = context(r#"["A","B"]"#, &[GOLD, GOLD]);
        let other = r#"{"state":"a box","observations":{"A":"none","C":"none"},"actions":{"A":"runs far"}}"#;
        let found = compare_json(&gold, &context(r#"["A","D"]"#, &[other]));
        assert_eq!(found.state, tally(2, 0, 0, 0.5));
        assert_eq!(found.observations, tally(5, 1, 1, 1.0));
        assert_eq!(found.actions, tally(4, 0, 0, 2.0 / 3.0));
        let agents: Vec<&str> = found.agents.keys().map(String::as_str).collect();
        assert_eq!(agents, ["A", "B", "C", "D"]);
        assert_eq!(found.agents["C"].observations, tally(1, 0, 0, 0.0));
        assert_eq!((found.agents["D"].actions.exact(), found.agents["D"].actions.f1()), (1.0, 1.0));
    }
}
