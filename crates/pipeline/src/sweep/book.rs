//! What a sweep has started and what it cost, kept over restarts, so that its cap holds.
//!
//! `OUT/sweeps/<id>.json`, written whole after every change. A run that was started is never started
//! again; what it costs is its final price or, from the moment that its job is about to be asked for, its
//! estimate. It holds no key.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::job::ledger::{LedgerError, read_ledger, write_ledger};
use crate::job::price::is_amount;
use crate::sweep::{Assignment, Goal, Metric};
use ctxtune_engine::output::manifest::Hex;
use ctxtune_service::together::JobId;
use ctxtune_service::wandb::sweep::SweepIdentity;

const SCHEMA: &str = "ctxtune.sweep/1";
/// What the sum of prices may be off by for the sake of floating point, in dollars.
pub(crate) const ROUNDING: f64 = 1e-9;
pub(crate) const SWEEPS_DIR: &str = "sweeps";

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The values that are tried.
    pub values: Assignment,
    /// The run at W&B, if it chose the values.
    pub wandb_run_id: Option<String>,
    /// What it is expected to cost, in dollars.
    pub estimate: Option<f64>,
    /// Its job, as soon as it has one.
    pub job: Option<JobId>,
    /// The status that was seen last.
    pub status: Option<String>,
    /// What it has cost, when it has ended.
    pub price: Option<f64>,
    /// The metric's last value and its step.
    pub last: Option<Point>,
    /// The metric's best value and its step.
    pub best: Option<Point>,
    /// Steps that have a checkpoint.
    pub checkpoints: Vec<u64>,
    /// The tuned model's name.
    pub model: Option<String>,
    /// All evaluations, by step.
    pub curve: Vec<Point>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The training step.
    pub step: u64,
    /// The value.
    pub value: f64,
}

impl Trial {
    /// The status of a run whose job is about to be asked for.
    pub(crate) const INTENDED: &str = "intended";

    pub fn new(values: Assignment) -> Trial {
        Trial { values, ..Trial::default() }
    }

    /// Whether it has no job, and none was asked for: nothing can be billed for it.
    pub fn is_free(&self) -> bool {
        self.job.is_none() && self.status.as_deref() != Some(Trial::INTENDED)
    }

    pub fn has_ended(&self) -> bool {
        let status = self.status.as_deref().map(ctxtune_service::together::job::Status::new);
        status.is_some_and(|status| status.ending().is_some())
    }

    /// What it counts for under a cap: its final price or, while it may still be billed, what it is expected
    /// to cost. Nothing where that is not known.
    pub(crate) fn counted_cost(&self) -> Option<f64> {
        let price = self.price.filter(|price| is_amount(*price));
        let estimate = self.estimate.filter(|estimate| is_amount(*estimate));
        match estimate {
            _ if self.is_free() => Some(0.0),
            _ if self.has_ended() => price.or(estimate),
            // A job that has cost more than it was expected to has cost it.
            Some(estimate) => Some(estimate.max(price.unwrap_or(0.0))),
            None => None,
        }
    }

    /// The value it is ranked by: the best one only where that step has a checkpoint, else the last one.
    pub fn ranked_by(&self) -> Option<Point> {
        match self.best {
            Some(best) if self.checkpoints.contains(&best.step) => Some(best),
            _ => self.last,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Book {
    schema: String,
    /// What makes it the same sweep.
    pub id: String,
    /// What its file calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What its runs are ranked by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// The sweep at W&B, if there is one.
    pub wandb_sweep: Option<SweepIdentity>,
    /// The runs, in the order in which they are started.
    pub trials: Vec<Trial>,
}

impl Book {
    /// The ledger of the sweep `id` in `out`; nothing where it was never begun.
    pub fn read(out: &Path, id: &str) -> Result<Option<Book>, LedgerError> {
        let path = path(out, id);
        match read_ledger::<Book>(&path)? {
            Some(book) if book.schema != SCHEMA => {
                Err(LedgerError::Foreign { path, reason: format!("its schema is `{}`", book.schema) })
            }
            book => Ok(book),
        }
    }

    pub fn new(id: String, values: Vec<Assignment>) -> Book {
        let trials = values.into_iter().map(Trial::new).collect();
        Book { schema: SCHEMA.to_owned(), id, name: None, metric: None, wandb_sweep: None, trials }
    }

    pub fn write(&self, out: &Path) -> Result<(), LedgerError> {
        write_ledger(&path(out, &self.id), self)
    }

    /// What all its runs count for together, in dollars, as far as that is known.
    pub fn spent(&self) -> f64 {
        // The sum of nothing is -0.
        self.billed().filter_map(Trial::counted_cost).sum::<f64>() + 0.0
    }

    /// Whether it is known of every run what it counts for.
    pub(crate) fn is_spent_known(&self) -> bool {
        self.billed().all(|trial| trial.counted_cost().is_some())
    }

    /// The runs without those whose job another run has, too: a job is billed once.
    fn billed(&self) -> impl Iterator<Item = &Trial> {
        let is_first = |index: usize, trial: &Trial| {
            trial.job.is_none() || !self.trials[..index].iter().any(|earlier| earlier.job == trial.job)
        };
        self.trials
            .iter()
            .enumerate()
            .filter(move |(index, trial)| is_first(*index, trial))
            .map(|(_, trial)| trial)
    }

    /// Whether one more run at this estimate keeps the cap. Without an estimate, or where it is not known
    /// what was spent, none does.
    pub(crate) fn has_room_for(&self, estimate: Option<f64>, cap: Option<f64>) -> bool {
        match (cap, estimate.filter(|estimate| is_amount(*estimate))) {
            (None, _) => true,
            (Some(cap), Some(estimate)) => self.is_spent_known() && self.spent() + estimate <= cap + ROUNDING,
            (Some(_), None) => false,
        }
    }

    /// The runs that have a value, best first; equal values in the order of the runs.
    pub fn ranking(&self, goal: Goal) -> Vec<(usize, Point)> {
        let mut ranked: Vec<(usize, Point)> = self
            .trials
            .iter()
            .enumerate()
            .filter_map(|(index, trial)| Some((index, trial.ranked_by()?)))
            .collect();
        ranked.sort_by(|one, other| match goal {
            Goal::Minimize => one.1.value.total_cmp(&other.1.value),
            Goal::Maximize => other.1.value.total_cmp(&one.1.value),
        });
        ranked
    }
}

/// The id of a sweep over this document, on top of these parameters and this data: whoever runs the same
/// again goes on with it.
pub fn sweep_id(document: &Value, job: &str) -> String {
    let digest = Sha256::digest(format!("{document}\0{job}"));
    Hex(&digest[..4]).to_string()
}

fn path(out: &Path, id: &str) -> PathBuf {
    out.join(SWEEPS_DIR).join(format!("{id}.json"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trial(status: Option<&str>, estimate: f64, price: Option<f64>) -> Trial {
        Trial {
            job: status.and_then(|status| JobId::new(&format!("ft-{status}"))),
            status: status.map(str::to_owned),
            estimate: Some(estimate),
            price,
            ..Trial::new(vec![("n_epochs".to_owned(), json!(2))])
        }
    }

    #[test]
    fn the_cap_counts_final_prices_and_estimates_of_what_runs() {
        let mut book = Book::new("a".to_owned(), Vec::new());
        book.trials = vec![
            trial(Some("completed"), 5.0, Some(4.0)),
            trial(Some("running"), 5.0, Some(1.0)),
            trial(None, 5.0, None),
        ];
        assert!((book.spent() - 9.0).abs() < 1e-9);
        book.trials[2].status = Some(Trial::INTENDED.to_owned());
        assert!((book.spent() - 14.0).abs() < 1e-9, "a job that may exist is counted");
        book.trials[2].status = None;
        assert!(book.has_room_for(Some(1.0), Some(10.0)) && !book.has_room_for(Some(1.01), Some(10.0)));
        assert!(book.has_room_for(None, None) && !book.has_room_for(None, Some(100.0)));
        for strange in [-1.0, f64::NAN, f64::NEG_INFINITY] {
            assert!(!book.has_room_for(Some(strange), Some(100.0)), "{strange}");
            book.trials[0].price = Some(strange);
            assert!((book.spent() - 10.0).abs() < 1e-9, "{strange} is no price: the estimate counts");
        }
    }

    #[test]
    fn a_job_counts_once_and_at_what_it_has_cost_already() {
        let mut book = Book::new("a".to_owned(), Vec::new());
        book.trials = vec![trial(Some("running"), 5.0, Some(1.0)), trial(Some("running"), 5.0, Some(1.0))];
        assert!((book.spent() - 5.0).abs() < 1e-9, "both have the same job");
        book.trials[1].job = JobId::new("ft-2");
        book.trials[1].price = Some(7.0);
        assert!((book.spent() - 12.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_more_is_started_within_a_cap_while_a_price_is_not_known() {
        let mut book = Book::new("a".to_owned(), Vec::new());
        for status in ["running", Trial::INTENDED, "completed"] {
            book.trials = vec![Trial { estimate: None, ..trial(Some(status), 0.0, None) }];
            assert!(!book.is_spent_known() && !book.has_room_for(Some(1.0), Some(1e6)), "{status}");
            assert!(book.has_room_for(Some(1.0), None), "{status}");
        }
    }

    #[test]
    fn a_best_value_ranks_only_where_its_step_has_a_checkpoint() {
        let point = |step, value| Some(Point { step, value });
        let mut trial = trial(Some("completed"), 1.0, None);
        (trial.last, trial.best) = (point(30, 0.6), point(20, 0.5));
        assert_eq!(trial.ranked_by(), point(30, 0.6));
        trial.checkpoints = vec![10, 20, 30];
        assert_eq!(trial.ranked_by(), point(20, 0.5));
    }

    #[test]
    fn runs_are_ranked_and_kept() {
        let out = tempfile::tempdir().unwrap();
        let mut book = Book::new("a".to_owned(), Vec::new());
        for value in [0.7, 0.5, 0.6] {
            let last = Some(Point { step: 1, value });
            book.trials.push(Trial { last, ..trial(Some("completed"), 1.0, None) });
        }
        book.trials.push(trial(Some("error"), 1.0, None));
        book.write(out.path()).unwrap();
        let book = Book::read(out.path(), "a").unwrap().unwrap();
        let order = |goal| book.ranking(goal).iter().map(|(index, _)| *index).collect::<Vec<_>>();
        assert_eq!((order(Goal::Minimize), order(Goal::Maximize)), (vec![1, 2, 0], vec![0, 2, 1]));
        assert!(Book::read(out.path(), "b").unwrap().is_none());
    }

    #[test]
    fn another_document_or_job_is_another_sweep() {
        let id = sweep_id(&json!({ "method": "grid" }), "n_epochs=1");
        assert_eq!(id, sweep_id(&json!({ "method": "grid" }), "n_epochs=1"));
        assert_ne!(id, sweep_id(&json!({ "method": "random" }), "n_epochs=1"));
        assert_ne!(id, sweep_id(&json!({ "method": "grid" }), "n_epochs=2"));
    }
}
