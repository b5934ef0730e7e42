//! The form of a context by itself: the published structural score, computed on one context.
//!
//! - *fields*, weight 0.3: `agents_names` and `socialized_context` are there. Here they are also of
//!   their types, since only a usable context comes this far; what is none counts 0 as a whole.
//! - *agents*, weight 0.4: the part of the steps in which the agents of `observations` and those of
//!   `actions` are both exactly the set of `agents_names`.
//! - *timesteps*, weight 0.3: 1 where they are integers (or text that reads as one) counting from 0, or
//!   from 1, in steps of 1; 1/2 where they are integers that never fall; 1/3 where some are no integers but
//!   all are given; else 0. One that is not given counts as 0, as in the published code.
//!
//! It knows no reference.

use crate::record::context::{AgentText, Context, Timestep};
use crate::record::story::is_blank;

/// What the form of one context is worth, from 0 to 1 each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Structure {
    /// The part of the steps with exactly the agents.
    pub agents: f64,
    /// The order of the timesteps.
    pub timesteps: f64,
}

impl Structure {
    /// Measures `context`.
    pub fn of(context: &Context<'_>) -> Structure {
        let mut names = context.agents_names.clone();
        names.sort_unstable();
        names.dedup();
        let is_whole = |pairs: &[AgentText<'_>]| {
            // No agent stands twice in a list: with equal numbers, inside is equal.
            pairs.len() == names.len() && pairs.iter().all(|(agent, _)| names.binary_search(agent).is_ok())
        };
        let whole = context
            .steps
            .iter()
            .filter(|step| is_whole(context.observations(step)) && is_whole(context.actions(step)))
            .count();
        let timesteps: Vec<Timestep<'_>> = context.steps.iter().map(|step| step.timestep).collect();
        Structure { agents: whole as f64 / context.steps.len() as f64, timesteps: order(&timesteps) }
    }

    /// The three parts by their weights.
    pub fn score(self) -> f64 {
        (0.3 + 0.4 * self.agents + 0.3 * self.timesteps).min(1.0)
    }
}

fn order(timesteps: &[Timestep<'_>]) -> f64 {
    let numbers: Option<Vec<i128>> = timesteps.iter().map(|timestep| number(*timestep)).collect();
    let Some(numbers) = numbers else {
        let are_given = timesteps.iter().all(|timestep| !matches!(timestep, Timestep::Place(_)));
        return if are_given { 1.0 / 3.0 } else { 0.0 };
    };
    let counts_from = |start: i128| numbers.iter().zip(start..).all(|(number, place)| *number == place);
    if counts_from(0) || counts_from(1) {
        1.0
    } else if numbers.is_sorted() {
        0.5
    } else {
        0.0
    }
}

fn number(timestep: Timestep<'_>) -> Option<i128> {
    match timestep {
        Timestep::Text(text) => text.to_real().trim_matches(is_blank).parse().ok(),
        Timestep::Number(number) => Some(number),
        Timestep::Place(_) => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::parser::with_single_context;

    fn structure(steps: &str) -> Structure {
        let json = format!(r#"{{"agents_names":["B","A"],"socialized_context":[{steps}]}}"#);
        with_single_context(json.as_bytes(), Structure::of).unwrap()
    }

    #[test]
    fn timesteps_count_by_their_order() {
        let check = |timesteps: &[&str], expected: f64| {
            let step =
                |timestep: &&str| format!(r#"{{{timestep}"state":"","observations":{{}},"actions":{{}}}}"#);
            let steps: Vec<String> = timesteps.iter().map(step).collect();
            let found = structure(&steps.join(",")).timesteps;
            assert!((found - expected).abs() < 1e-12, "{timesteps:?}: {found}");
        };
        let (zero, one, two) = (r#""timestep":"0","#, r#""timestep":" 1 ","#, r#""timestep":2,"#);
        check(&[zero, one, two], 1.0);
        check(&[one, two], 1.0);
        check(&[two], 0.5);
        check(&[zero, two, two], 0.5);
        check(&[two, one], 0.0);
        check(&[r#""timestep":"later","#, zero], 1.0 / 3.0);
        check(&[r#""timestep":"1.0","#], 1.0 / 3.0);
        check(&[r#""timestep":"later","#, ""], 0.0);
        check(&[""], 1.0);
        check(&["", r#""timestep":null,"#], 0.5);
        check(&["", one], 1.0);
    }

    #[test]
    fn a_step_counts_with_exactly_the_agents() {
        let check = |observations: &str, actions: &str, expected: f64| {
            let step =
                format!(r#"{{"timestep":0,"state":"","observations":{observations},"actions":{actions}}}"#);
            let whole = r#"{"timestep":1,"state":"","observations":{"A":"","B":""},"actions":["B:","A:"]}"#;
            let found = structure(&format!("{step},{whole}"));
            assert_eq!(found.agents, expected, "{observations} {actions}");
            assert_eq!(found.score(), 0.3 + 0.4 * expected + 0.3);
        };
        check(r#"{"A":"","B":""}"#, r#"{"B":"","A":""}"#, 1.0);
        check(r#"{"A":""}"#, r#"{"B":"","A":""}"#, 0.5);
        check(r#"{"A":"","B":"","C":""}"#, r#"{"B":"","A":""}"#, 0.5);
        check(r#"{"A":"","B":""}"#, r#"{"B":"","C":""}"#, 0.5);
    }

    #[test]
    fn an_agent_named_twice_is_one() {
        let json = r#"{"agents_names":["A","A"],"socialized_context":[
            {"timestep":0,"state":"","observations":{"A":""},"actions":{"A":""}}]}"#;
        assert_eq!(with_single_context(json.as_bytes(), Structure::of).unwrap().score(), 1.0);
    }
}
