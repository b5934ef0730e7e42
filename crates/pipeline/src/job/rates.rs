//! What a token cost by the last estimate that each model got, kept in the user's state directory.
//!
//! It tells what a job may cost before its data is uploaded. Nothing is agreed to by it: consent needs an estimate
//! of the service for the data itself. A line that cannot be read is passed over.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::journal;
use crate::job::price::is_amount;
use crate::session::Session;
use ctxtune_service::together::jobs::{Availability, Estimate};

/// What a token of one model cost, and when that was said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The API's origin.
    pub api: String,
    /// The base model.
    pub model: String,
    /// Whether adapters were to be trained, and not all weights.
    pub lora: bool,
    /// Dollars for a million tokens, of training and of evaluation alike.
    pub dollars_per_million_tokens: f64,
    /// When the service estimated it (RFC 3339).
    pub seen_at: String,
}

impl Rate {
    /// The rate of `estimate`, which `body` was asked for; nothing where it tells none.
    fn of(session: &Session, body: &Value, estimate: &Estimate) -> Option<Rate> {
        let tokens = estimate.train_tokens? + estimate.eval_tokens.unwrap_or(0);
        let is_told = estimate.availability == Availability::Available && tokens > 0;
        let dollars = estimate.dollars.filter(|dollars| is_told && is_amount(*dollars) && *dollars > 0.0)?;
        Some(Rate {
            api: session.together.base().origin(),
            model: body["model"].as_str()?.to_owned(),
            lora: body["training_type"]["type"] != "Full",
            dollars_per_million_tokens: dollars / tokens as f64 * 1e6,
            seen_at: session.clock.now().to_string(),
        })
    }

    fn is_of(&self, other: &Rate) -> bool {
        (&self.api, &self.model, self.lora) == (&other.api, &other.model, other.lora)
    }

    /// Its day: what changes in between is not worth a line.
    pub fn day(&self) -> &str {
        self.seen_at.split('T').next().unwrap_or_default()
    }
}

/// Keeps the rate of `estimate`, for which `body` was sent. That it cannot be kept is said and changes nothing.
pub fn note(session: &Session, body: &Value, estimate: &Estimate) {
    let Some(path) = session.environment.rates() else { return };
    let Some(rate) = Rate::of(session, body, estimate) else { return };
    let known = known_at(&path).into_iter().rfind(|known| known.is_of(&rate));
    let is_known = known.is_some_and(|known| {
        let change = known.dollars_per_million_tokens / rate.dollars_per_million_tokens - 1.0;
        known.day() == rate.day() && change.abs() < 1e-3
    });
    if is_known {
        return;
    }
    if let Err(error) = journal::add(&path, &rate) {
        session.ui.warn(&format!("the price of a token is not kept in `{}`: {error}", path.display()));
    }
}

/// The rates of the session's API that this machine has seen, the newest last.
pub fn known(session: &Session) -> Vec<Rate> {
    let mut rates = session.environment.rates().map(|path| known_at(&path)).unwrap_or_default();
    let api = session.together.base().origin();
    rates.retain(|rate| rate.api == api);
    rates
}

/// The last rate of `model` among `known`; adapters' first, unless only `lora: false` was estimated.
pub fn last<'r>(known: &'r [Rate], model: &str) -> Option<&'r Rate> {
    of(known, model, true).or_else(|| of(known, model, false))
}

pub fn of<'r>(known: &'r [Rate], model: &str, lora: bool) -> Option<&'r Rate> {
    known.iter().rfind(|rate| rate.model == model && rate.lora == lora)
}

fn known_at(path: &Path) -> Vec<Rate> {
    journal::lines(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_told_apart_by_service_model_and_kind_of_training() {
        let rate = Rate {
            api: "https://a".to_owned(),
            model: "m".to_owned(),
            lora: true,
            dollars_per_million_tokens: 0.48,
            seen_at: "2026-11-28T06:00:00Z".to_owned(),
        };
        assert!(rate.is_of(&Rate {
            seen_at: String::new(),
            dollars_per_million_tokens: 1.0,
            ..rate.clone()
        }));
        for other in [
            Rate { api: "https://b".to_owned(), ..rate.clone() },
            Rate { model: "n".to_owned(), ..rate.clone() },
            Rate { lora: false, ..rate.clone() },
        ] {
            assert!(!rate.is_of(&other), "{other:?}");
        }
        assert_eq!(rate.day(), "2026-11-28");
    }
}
