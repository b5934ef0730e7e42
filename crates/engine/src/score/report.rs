//! What a scoring says: coverage, totals with their intervals, the difference of two sets.
//!
//! Every total is a mean over all references, so that a missing answer counts 0. The difference
//! of two sets is taken on the references that both answer, validly or not.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::record::reject::RejectReason;
use crate::score::agreement::Tally;
use crate::score::answer::{Answer, Status};
use crate::score::bootstrap::{Draws, Interval, intervals, means};
use crate::score::gold::Form;
use crate::score::measure::{Measure, Scores};
use crate::source::names::NameLog;

/// The outcome.
#[derive(Debug, Clone)]
pub struct Report {
    /// The references.
    pub gold: GoldReport,
    /// The sets of answers, in the order in which they were named.
    pub sets: Vec<SetReport>,
    /// The second set less the first, where there are two and some reference has both.
    pub difference: Option<Difference>,
    /// Each reference with an answer of each set, by key.
    pub records: Vec<RecordReport>,
    /// What lies in the sources and was not read, for each source that holds such.
    pub not_read: Vec<(PathBuf, Arc<NameLog>)>,
}

/// The references.
#[derive(Debug, Clone)]
pub struct GoldReport {
    /// What they were read from.
    pub form: Form,
    /// Records that are no reference, with their keys, and why.
    pub rejected: Vec<(Vec<u8>, RejectReason)>,
    /// Tags that stand for nothing.
    pub unresolved: u64,
}

/// One set of answers.
#[derive(Debug, Clone)]
pub struct SetReport {
    /// References by what became of their answers, in the order of [`Status::ALL`].
    pub coverage: [u64; Status::ALL.len()],
    /// The keys of what answers no reference.
    pub extra: Vec<Vec<u8>>,
    /// The mean over all references, with its interval, in the order of [`Measure::ALL`].
    pub totals: [Total; Measure::ALL.len()],
    /// Pairs of states, observations and actions of the valid answers.
    pub pairs: Pairs,
    /// Tags that stand for nothing.
    pub unresolved: u64,
}

impl SetReport {
    /// How many references have this status.
    pub fn count(&self, status: Status) -> u64 {
        self.coverage[status as usize]
    }

    /// The total of `measure`.
    pub fn total(&self, measure: Measure) -> Total {
        self.totals[measure.index()]
    }
}

/// Sums over pairs of texts.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Pairs {
    /// States.
    pub state: Tally,
    /// Observations.
    pub observations: Tally,
    /// Actions.
    pub actions: Tally,
}

/// A mean and its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Total {
    /// The mean.
    pub mean: f64,
    /// Where it lies with 95 %.
    pub interval: Interval,
}

/// The second set less the first.
#[derive(Debug, Clone)]
pub struct Difference {
    /// References that both answer.
    pub records: u64,
    /// The mean difference with its interval, in the order of [`Measure::ALL`].
    pub totals: [Total; Measure::ALL.len()],
}

/// One reference.
#[derive(Debug, Clone)]
pub struct RecordReport {
    /// Its key.
    pub key: Vec<u8>,
    /// The answer of each set.
    pub answers: Vec<Answer>,
    /// Its own tags that stand for nothing.
    pub unresolved: u64,
}

impl Report {
    /// The answers of the set `index` that are worst by their overall score, of those that there are and
    /// that are not perfect.
    pub fn worst(&self, index: usize, count: usize) -> Vec<&RecordReport> {
        let overall = |record: &&RecordReport| record.answers[index].scores[Measure::Overall.index()];
        let is_bad =
            |record: &&RecordReport| record.answers[index].status != Status::Missing && overall(record) < 1.0;
        let mut records: Vec<&RecordReport> = self.records.iter().filter(is_bad).collect();
        // Stable: equals stay in the order of their keys.
        records.sort_by(|a, b| overall(a).total_cmp(&overall(b)));
        records.truncate(count);
        records
    }
}

/// What a set of answers comes to; `None` as soon as `is_stopped`. There is at least one record.
pub fn set_report(
    records: &[RecordReport],
    (index, extra): (usize, Vec<Vec<u8>>),
    draws: Draws,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Option<SetReport> {
    let answers = || records.iter().map(|record| &record.answers[index]);
    let rows: Vec<Scores> = answers().map(|answer| answer.scores).collect();
    let mut report = SetReport {
        coverage: Status::ALL.map(|status| answers().filter(|answer| answer.status == status).count() as u64),
        extra,
        totals: totals(&rows, draws, is_stopped)?,
        pairs: Pairs::default(),
        unresolved: answers().map(|answer| answer.unresolved).sum(),
    };
    for answer in answers() {
        report.pairs.state.add(&answer.tally.state);
        report.pairs.observations.add(&answer.tally.observations);
        report.pairs.actions.add(&answer.tally.actions);
    }
    Some(report)
}

/// The second set less the first; `Some(None)` where no reference has both, `None` as soon as `is_stopped`.
pub fn difference(
    records: &[RecordReport],
    draws: Draws,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Option<Option<Difference>> {
    let mut rows: Vec<Scores> = Vec::new();
    for record in records {
        if let [first, second] = record.answers.as_slice()
            && first.status != Status::Missing
            && second.status != Status::Missing
        {
            rows.push(std::array::from_fn(|measure| second.scores[measure] - first.scores[measure]));
        }
    }
    if rows.is_empty() {
        return Some(None);
    }
    let totals = totals(&rows, draws, is_stopped)?;
    Some(Some(Difference { records: rows.len() as u64, totals }))
}

fn totals(
    rows: &[Scores],
    draws: Draws,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Option<[Total; Measure::ALL.len()]> {
    let means = means(rows);
    let intervals = intervals(rows, draws, is_stopped)?;
    Some(std::array::from_fn(|measure| Total { mean: means[measure], interval: intervals[measure] }))
}
