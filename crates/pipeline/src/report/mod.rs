//! What is known of prepared data, its jobs and its sweeps, gathered for a report that is read later and elsewhere.
//!
//! Plain types, of which a page is made; nothing here knows what it looks like. They are read from what is in the
//! directory. Only what was measured in a job comes from the service, where somebody gives a session; else from the job's
//! ledger, and a job says which. No absolute path and no key is in any of them.

use std::path::Path;

use serde::Serialize;

use crate::failure::Failure;
use crate::job::parameters::SEED_MODEL;
use crate::report::data::Seeing;
use crate::session::Session;
use crate::session::environment::Environment;
use crate::signals::Signals;
use ctxtune_engine::check;

pub mod data;
pub mod job;
mod path;
pub mod sweep;

pub use data::DataReport;
pub use job::JobReport;
pub use path::without_path;
pub use sweep::SweepReport;

#[derive(Debug, Serialize)]
pub struct OutReport {
    /// The directory's own name.
    pub name: String,
    /// The data.
    pub data: DataReport,
    /// Its jobs, the newest first.
    pub jobs: Vec<JobReport>,
    /// Its sweeps, by their id.
    pub sweeps: Vec<SweepReport>,
    /// What is not in here although it should be, and why.
    pub troubles: Vec<String>,
}

/// Gathers what is known of `out`; what was measured in its jobs is asked of the service of `session`. Tokens are
/// counted with `tokenizer`, else with what `environment` says where it is.
pub fn gather(
    out: &Path,
    session: Option<&Session>,
    (tokenizer, environment): (Option<&str>, &Environment),
    (signals, watch): (&Signals, &dyn check::Watch),
) -> Result<OutReport, Failure> {
    let mut troubles = Vec::new();
    let mut jobs = job::of(out, session, &mut troubles);
    let newest = jobs.first();
    let seeing = Seeing {
        model: newest.and_then(|job| job.base.clone()).unwrap_or_else(|| SEED_MODEL.to_owned()),
        max_tokens: jobs.iter().find_map(|job| job.sequence_tokens),
        trains_on_inputs: newest.is_some_and(|job| job.value("train_on_inputs") == Some("true")),
    };
    let data = DataReport::of(out, &seeing, (tokenizer, environment), (signals, watch), &mut troubles)?;
    let sweeps = sweep::of(out, &mut troubles);
    for job in &mut jobs {
        job.is_of_sweep = sweeps.iter().any(|sweep| sweep.has_job(&job.id));
    }
    let name =
        std::fs::canonicalize(out).ok().and_then(|out| Some(out.file_name()?.to_string_lossy().into_owned()));
    Ok(OutReport { name: name.unwrap_or_else(|| "out".to_owned()), data, jobs, sweeps, troubles })
}
