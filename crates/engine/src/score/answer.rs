//! One answer and what it is worth: read, judged, compared with its reference.
//!
//! What is missing, cannot be read, or is no usable context counts 0 in every measure, but that a
//! well-formed one counts as JSON. It is never an error: the other answers are scored all the same.

use serde_json::Value;

use crate::error::Error;
use crate::record::context::Context;
use crate::record::reject::{Code, RejectReason};
use crate::score::agreement::{ContextTally, compare};
use crate::score::generated::{Found, Generated};
use crate::score::measure::{Measure, Scores};
use crate::score::resolve::Resolved;
use crate::score::structure::Structure;
use crate::score::words::Comparer;
use crate::source::records::RecordReader;

/// The weight of the form in the overall score; the rest is what agents observe.
const STRUCTURAL_WEIGHT: f64 = 0.3;

/// What became of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is a usable context.
    Valid,
    /// It is none.
    Invalid,
    /// It cannot be read, or is not to be.
    Unreadable,
    /// There is none.
    Missing,
}

impl Status {
    /// Every status, in the order of the documentation.
    pub const ALL: [Status; 4] = [Status::Valid, Status::Invalid, Status::Unreadable, Status::Missing];

    /// The name as it stands in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Valid => "valid",
            Status::Invalid => "invalid",
            Status::Unreadable => "unreadable",
            Status::Missing => "missing",
        }
    }
}

/// One answer and what it is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What became of it.
    pub status: Status,
    /// Why it is not valid.
    pub reason: Option<String>,
    /// What it is worth.
    pub scores: Scores,
    /// How far it agrees with the reference; empty unless it is valid.
    pub tally: ContextTally,
    /// Its tags that stand for nothing.
    pub unresolved: u64,
}

impl Answer {
    fn without_context(status: Status, reason: Option<String>) -> Answer {
        Answer {
            status,
            reason,
            scores: [0.0; Measure::ALL.len()],
            tally: ContextTally::default(),
            unresolved: 0,
        }
    }

    fn refused(reason: &RejectReason) -> Answer {
        let at = if reason.at.is_empty() { String::new() } else { format!(" at {}", reason.at) };
        let words = format!("{}: {}{at}", reason.code, reason.reason);
        let status = match reason.code {
            Code::TooLarge | Code::HostileMember => Status::Unreadable,
            _ => Status::Invalid,
        };
        let mut answer = Answer::without_context(status, Some(words));
        answer.scores[Measure::Json.index()] = f64::from(u8::from(is_json(reason.code)));
        answer
    }

    /// The worth of the context `generated`, whose reference is `gold`.
    pub fn of(gold: &Resolved<'_>, generated: &Context<'_>, comparer: &mut Comparer) -> Answer {
        let structure = Structure::of(generated);
        let generated = Resolved::of(generated);
        let tally = compare(gold, &generated, comparer);
        let is = |condition: bool| f64::from(u8::from(condition));
        let scores = Measure::ALL.map(|measure| match measure {
            Measure::Overall => {
                STRUCTURAL_WEIGHT * structure.score() + (1.0 - STRUCTURAL_WEIGHT) * tally.observations.f1()
            }
            Measure::Structural => structure.score(),
            Measure::Json | Measure::Shape => 1.0,
            Measure::AgentsInSteps => structure.agents,
            Measure::Timesteps => structure.timesteps,
            Measure::SameAgents => is(gold.agents == generated.agents),
            Measure::SameSteps => is(gold.steps.len() == generated.steps.len()),
            Measure::StateExact => tally.state.exact(),
            Measure::StateF1 => tally.state.f1(),
            Measure::ObservationsExact => tally.observations.exact(),
            Measure::ObservationsF1 => tally.observations.f1(),
            Measure::ActionsExact => tally.actions.exact(),
            Measure::ActionsF1 => tally.actions.f1(),
        });
        Answer { status: Status::Valid, reason: None, scores, tally, unresolved: generated.unresolved }
    }
}

/// Whether a record refused for this was a JSON document.
fn is_json(code: Code) -> bool {
    !matches!(
        code,
        Code::TooLarge
            | Code::Empty
            | Code::Encoding
            | Code::JsonSyntax
            | Code::TooDeep
            | Code::LoneSurrogate
            | Code::NonFinite
            | Code::NumberRange
            | Code::HostileMember
    )
}

/// Reads and judges the answers of one set: one thread's tools.
pub struct AnswerReader<'g> {
    records: RecordReader<'g>,
    comparer: Comparer,
}

impl<'g> AnswerReader<'g> {
    /// Tools for the answers of `generated`, of up to `max_record_bytes` each.
    pub fn new(generated: &'g Generated, max_record_bytes: usize) -> Self {
        let records = RecordReader::new(generated.records(), max_record_bytes);
        AnswerReader { records, comparer: Comparer::default() }
    }

    /// The answer to `gold` that was found.
    pub fn answer(&mut self, found: Option<Found>, gold: &Resolved<'_>) -> Answer {
        let (records, comparer) = (&mut self.records, &mut self.comparer);
        match found {
            None => Answer::without_context(Status::Missing, None),
            Some(Found::Record(position)) => {
                let read = records.with_context(position, |context| Answer::of(gold, context, comparer));
                match read {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(reason)) => Answer::refused(&reason),
                    Err(error) => unreadable(&error),
                }
            }
            Some(Found::Refused(position)) => match records.bytes(position) {
                Ok(Ok(bytes)) => Answer::without_context(Status::Invalid, Some(reason_of(bytes))),
                Ok(Err(reason)) => Answer::refused(&reason),
                Err(error) => unreadable(&error),
            },
        }
    }
}

fn unreadable(error: &Error) -> Answer {
    Answer::without_context(Status::Unreadable, Some(error.to_string()))
}

/// The reason that is left of an invalid answer.
fn reason_of(bytes: &[u8]) -> String {
    let left: Option<Value> = serde_json::from_slice(bytes).ok();
    let reason = left.as_ref().and_then(|left| left.get("reason")).and_then(Value::as_str);
    reason.unwrap_or("it was invalid; the file does not say why").to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::record::parser::with_single_context;

    /// What the context `generated` is worth against `gold`, and how far it agrees.
    fn answer(gold: &str, generated: &str) -> Answer {
        with_single_context(gold.as_bytes(), |gold| {
            with_single_context(generated.as_bytes(), |generated| {
                Answer::of(&Resolved::of(gold), generated, &mut Comparer::default())
            })
            .unwrap()
        })
        .unwrap()
    }

    #[test]
    fn a_missing_timestep_costs_what_was_published() {
        let context = |timesteps: [&str; 2]| {
            let step = |timestep: &str| {
                format!(r#"{{{timestep}"state":"s","observations":{{"A":"o p"}},"actions":{{"A":"a"}}}}"#)
            };
            format!(
                r#"{{"agents_names":["A"],"socialized_context":[{},{}]}}"#,
                step(timesteps[0]),
                step(timesteps[1])
            )
        };
        let gold = context([r#""timestep":0,"#, r#""timestep":1,"#]);
        let score = |generated: &str| answer(&gold, generated).scores;
        assert_eq!(score(&context([r#""timestep":0,"#, r#""timestep":1,"#])), [1.0; Measure::ALL.len()]);
        let scores = score(&context(["", ""]).replace("o p", "o"));
        assert!((scores[Measure::Structural.index()] - 0.85).abs() < 1e-12);
        let f1 = 2.0 / 3.0;
        assert!((scores[Measure::Overall.index()] - (0.3 * 0.85 + 0.7 * f1)).abs() < 1e-12);
    }

    #[test]
    fn the_reason_of_an_invalid_answer_is_found() {
        assert_eq!(reason_of(br#"{"reason": "cut short", "answer": 3}"#), "cut short");
        assert_eq!(reason_of(b"{"), "it was invalid; the file does not say why");
        assert_eq!(reason_of(br#"["reason"]"#), "it was invalid; the file does not say why");
    }
    /// Agents with what they observe and do, a state: a step.
    type Step = (Vec<(String, String)>, String);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let text = "none|[ab]{1,3}( <same_as_state />)?|<same_as_last_action(_[0-2])? /> ?c?|";
        let told = proptest::collection::vec((text, text), 3);
        proptest::collection::vec((told, "none|[de]{1,3}"), 1..5)
    }

    /// A context of these steps; the agents of each list turned by `turn`.
    fn context(steps: &[Step], turn: usize) -> String {
        let names = ["A", "B", "C"];
        let list = |told: &[(String, String)], of: fn(&(String, String)) -> &str| {
            let mut pairs: Vec<(String, Value)> =
                names.iter().zip(told).map(|(name, told)| ((*name).to_owned(), json!(of(told)))).collect();
            pairs.rotate_left(turn % 3);
            Value::Object(pairs.into_iter().collect())
        };
        let steps: Vec<Value> = steps
            .iter()
            .enumerate()
            .map(|(index, (told, state))| {
                let (observations, actions) = (list(told, |told| &told.0), list(told, |told| &told.1));
                json!({ "timestep": index, "state": state, "observations": observations, "actions": actions })
            })
            .collect();
        json!({ "agents_names": names, "socialized_context": steps }).to_string()
    }

    proptest! {
        #[test]
        fn the_order_of_agents_does_not_matter(
            gold in steps(), generated in steps(), turn in 0usize..3, other in 0usize..3
        ) {
            let plain = answer(&context(&gold, 0), &context(&generated, 0));
            prop_assert_eq!(&plain, &answer(&context(&gold, turn), &context(&generated, other)));
            prop_assert!(plain.scores.iter().all(|score| (0.0..=1.0).contains(score)), "{:?}", plain.scores);
            prop_assert!(plain.tally.observations.exact() <= plain.tally.observations.f1());
            let turned = answer(&context(&generated, turn), &context(&gold, other));
            prop_assert_eq!(&plain.tally, &turned.tally);
        }

        #[test]
        fn a_context_agrees_with_itself(steps in steps(), turn in 0usize..3) {
            let found = answer(&context(&steps, 0), &context(&steps, turn));
            prop_assert_eq!(found.scores, [1.0; Measure::ALL.len()]);
        }
    }
}
