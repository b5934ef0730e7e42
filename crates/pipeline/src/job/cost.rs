//! What jobs cost, as far as anybody knows: what the service bills, and the estimate until it does.
//!
//! A job that ended with a price is billed that much; while it runs, its estimate is more than what it has cost
//! so far. Pure.

use std::path::Path;

use serde::Serialize;

use crate::job::ledger::{Account, LedgerError, Run, Uploads};
use ctxtune_service::together::{Ending, Job, JobId};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cost {
    Billed(f64),
    /// An estimate, or what a job that runs has cost so far where that is more.
    Expected(f64),
    Unknown,
}

impl Cost {
    /// The cost of `job`, which was estimated at so many dollars before it was created.
    pub fn of(job: &Job, estimated: Option<f64>) -> Cost {
        match (job.status.ending(), job.price(), estimated) {
            (Some(_), Some(billed), _) => Cost::Billed(billed),
            (None, so_far, Some(estimated)) => Cost::Expected(estimated.max(so_far.unwrap_or(0.0))),
            (Some(Ending::Completed), None, Some(estimated)) => Cost::Expected(estimated),
            // A job that waits has cost nothing, and that is not what it will cost.
            (None, Some(so_far), None) if so_far > 0.0 => Cost::Expected(so_far),
            _ => Cost::Unknown,
        }
    }

    pub fn dollars(self) -> Option<f64> {
        match self {
            Cost::Billed(dollars) | Cost::Expected(dollars) => Some(dollars),
            Cost::Unknown => None,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Total {
    /// Of jobs with a final price, in dollars.
    #[serde(rename = "billed_dollars")]
    pub billed: f64,
    /// Of jobs without one, as far as there are estimates, in dollars.
    #[serde(rename = "estimated_dollars")]
    pub estimated: f64,
    /// Jobs of which neither is known.
    #[serde(rename = "unpriced_jobs")]
    pub unknown: u64,
}

impl Total {
    pub fn of(costs: impl IntoIterator<Item = Cost>) -> Total {
        let mut total = Total::default();
        for cost in costs {
            match cost {
                Cost::Billed(dollars) => total.billed += dollars,
                Cost::Expected(dollars) => total.estimated += dollars,
                Cost::Unknown => total.unknown += 1,
            }
        }
        total
    }
}

/// A job of an output directory that runs while another one is about to be created.
#[derive(Debug, Clone)]
pub struct Beside {
    pub job: Job,
    /// What it was estimated at, in dollars.
    pub estimated: Option<f64>,
    /// Whether it trains on the same data, so that its parameters are what differs.
    pub has_same_data: bool,
}

/// The jobs of `out` among `jobs` that have not ended: those in its ledgers, and those from anywhere that train
/// on a file that was uploaded from it. `train_sha256` is the digest of what is about to be trained on.
pub(crate) fn running_beside(
    jobs: &[Job],
    out: &Path,
    account: &Account,
    train_sha256: &str,
) -> Result<Vec<Beside>, LedgerError> {
    let runs: Vec<Run> = Run::read_all(out)?.into_iter().filter(|run| run.account == *account).collect();
    let uploads = Uploads::read(out)?;
    let beside = |job: &Job| {
        let run = runs.iter().find(|run| run.job.as_ref() == Some(&job.id));
        let train = match run {
            Some(run) => Some(run.train_sha256.as_str()),
            None => {
                let file = job.file_ids().0?;
                uploads.of(account).find(|upload| upload.file_id == file).map(|upload| upload.sha256.as_str())
            }
        };
        Some(Beside {
            job: job.clone(),
            estimated: run.and_then(|run| run.estimated_dollars),
            has_same_data: train? == train_sha256,
        })
    };
    Ok(jobs.iter().filter(|job| job.status.ending().is_none()).filter_map(beside).collect())
}

/// Writes down in the ledger of `job` what it was estimated at, and the longest sequence of its model in tokens.
pub(crate) fn note_estimate(
    out: &Path,
    job: &JobId,
    dollars: Option<f64>,
    sequence_tokens: Option<u64>,
) -> Result<(), LedgerError> {
    let known = Run::read_all(out)?.into_iter().find(|run| run.job.as_ref() == Some(job));
    let Some(known) = known else { return Ok(()) };
    let mut run = known.clone();
    run.estimated_dollars = dollars.or(known.estimated_dollars);
    run.sequence_tokens = sequence_tokens.or(known.sequence_tokens);
    if run == known { Ok(()) } else { run.write(out) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(status: &str, nano_dollars: Value) -> Job {
        Job::read(&json!({ "id": "ft-1", "status": status, "total_price": nano_dollars })).unwrap()
    }

    #[test]
    fn a_final_price_is_billed_and_an_estimate_counts_until_then() {
        let check = |status: &str, nano_dollars: Value, estimated: Option<f64>, expected: Cost| {
            let cost = Cost::of(&job(status, nano_dollars.clone()), estimated);
            assert_eq!(cost, expected, "{status} {nano_dollars} {estimated:?}");
        };
        let dollar = json!(1_000_000_000);
        check("completed", dollar.clone(), Some(3.0), Cost::Billed(1.0));
        check("cancelled", json!(0), Some(3.0), Cost::Billed(0.0));
        check("error", dollar.clone(), None, Cost::Billed(1.0));
        check("running", dollar.clone(), Some(3.0), Cost::Expected(3.0));
        check("running", dollar.clone(), Some(0.5), Cost::Expected(1.0));
        check("running", dollar, None, Cost::Expected(1.0));
        check("pending", json!(0), None, Cost::Unknown);
        check("pending", Value::Null, Some(3.0), Cost::Expected(3.0));
        check("completed", Value::Null, Some(3.0), Cost::Expected(3.0));
        check("cancelled", Value::Null, Some(3.0), Cost::Unknown);
        check("completed", json!("NaN"), None, Cost::Unknown);
    }

    #[test]
    fn a_total_keeps_bills_and_estimates_apart() {
        let costs =
            [Cost::Billed(1.5), Cost::Expected(2.0), Cost::Unknown, Cost::Billed(0.25), Cost::Unknown];
        assert_eq!(Total::of(costs), Total { billed: 1.75, estimated: 2.0, unknown: 2 });
        assert_eq!(Total::of([]), Total::default());
    }
}
