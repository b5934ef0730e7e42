//! The names of what is measured, and one value for each.
//!
//! Separate so that every list of scores (a record's, a total, a difference, a column of a table)
//! has the same length and order. It computes nothing.

/// One thing that is measured, from 0 to 1; more is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// 0.3 of `Structural` and 0.7 of `ObservationsF1`.
    Overall,
    /// The published structural score: see `structure`.
    Structural,
    /// Whether the answer is JSON.
    Json,
    /// Whether it is a usable context: the rules of a record's context.
    Shape,
    /// The part of the steps in which exactly the agents of `agents_names` observe and act.
    AgentsInSteps,
    /// Whether the timesteps are in sequence.
    Timesteps,
    /// Whether `agents_names` are the reference's, in any order.
    SameAgents,
    /// Whether there are as many steps as in the reference.
    SameSteps,
    /// States that are the reference's, character by character.
    StateExact,
    /// How many words states share with the reference's.
    StateF1,
    /// The same of observations.
    ObservationsExact,
    /// The same of observations.
    ObservationsF1,
    /// The same of actions.
    ActionsExact,
    /// The same of actions.
    ActionsF1,
}

/// A value for each measure, in the order of [`Measure::ALL`].
pub type Scores = [f64; Measure::ALL.len()];

impl Measure {
    /// Every measure, in the order of the documentation.
    pub const ALL: [Measure; 14] = [
        Measure::Overall,
        Measure::Structural,
        Measure::Json,
        Measure::Shape,
        Measure::AgentsInSteps,
        Measure::Timesteps,
        Measure::SameAgents,
        Measure::SameSteps,
        Measure::StateExact,
        Measure::StateF1,
        Measure::ObservationsExact,
        Measure::ObservationsF1,
        Measure::ActionsExact,
        Measure::ActionsF1,
    ];

    /// The name as it stands in documents and columns.
    pub fn as_str(self) -> &'static str {
        match self {
            Measure::Overall => "overall",
            Measure::Structural => "structural",
            Measure::Json => "json",
            Measure::Shape => "shape",
            Measure::AgentsInSteps => "agents_in_steps",
            Measure::Timesteps => "timesteps",
            Measure::SameAgents => "same_agents",
            Measure::SameSteps => "same_steps",
            Measure::StateExact => "state_exact",
            Measure::StateF1 => "state_f1",
            Measure::ObservationsExact => "observations_exact",
            Measure::ObservationsF1 => "observations_f1",
            Measure::ActionsExact => "actions_exact",
            Measure::ActionsF1 => "actions_f1",
        }
    }

    /// Its place in [`Scores`].
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_stands_at_its_place() {
        for (index, measure) in Measure::ALL.into_iter().enumerate() {
            assert_eq!(measure.index(), index, "{}", measure.as_str());
        }
    }
}
