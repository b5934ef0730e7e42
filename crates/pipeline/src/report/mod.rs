//! What is known of prepared data, its jobs and its sweeps, gathered for a report that is read later and elsewhere.
//!
//! Plain types, of which a page is made; nothing here knows what it looks like. They are read from what is in the
//! directory. Only what was measured in a job comes from the service, where somebody gives a session; else from the job's
//! ledger, and a job says which. No absolute path and no key is in any of them.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::failure::Failure;
use crate::job::parameters::SEED_MODEL;
use crate::job::tokens;
use crate::session::Session;
use crate::signals::Signals;
use ctxtune_engine::check;
use ctxtune_engine::check::counter::Counter;

pub mod data;
pub mod job;
pub mod sweep;

pub use data::DataReport;
pub use job::JobReport;
pub use sweep::SweepReport;

/// What is known of one output directory.
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

/// Gathers what is known of `out`; what was measured in its jobs is asked of the service of `session`.
///
/// # Errors
/// When `out` holds no prepared data, or it cannot be read. What else is missing is one of the troubles.
pub fn gather(
    out: &Path,
    session: Option<&Session>,
    signals: &Signals,
    watch: &dyn check::Watch,
) -> Result<OutReport, Failure> {
    let mut troubles = Vec::new();
    let mut jobs = job::of(out, session, &mut troubles);
    let counter = counter(jobs.first(), session);
    let data = DataReport::of(out, counter, signals, watch, &mut troubles)?;
    let sweeps = sweep::of(out, &mut troubles);
    for job in &mut jobs {
        job.is_of_sweep = sweeps.iter().any(|sweep| sweep.has_job(&job.id));
    }
    let name =
        std::fs::canonicalize(out).ok().and_then(|out| Some(out.file_name()?.to_string_lossy().into_owned()));
    Ok(OutReport { name: name.unwrap_or_else(|| "out".to_owned()), data, jobs, sweeps, troubles })
}

/// What counts tokens for the model of the newest job, or of the job that is next. A tokenizer that cannot be used
/// makes no report impossible.
fn counter(newest: Option<&JobReport>, session: Option<&Session>) -> Option<Arc<dyn Counter>> {
    let named = session.and_then(|session| session.tokenizer.as_deref());
    let environment = session.map(|session| session.environment.clone()).unwrap_or_default();
    let model = newest.and_then(|job| job.base.as_deref()).unwrap_or(SEED_MODEL);
    let counter = tokens::counter(named, model, &environment).ok().flatten()?;
    Some(Arc::new(counter))
}

/// `text` without the directories before the name of `out`: a report is read elsewhere.
pub fn without_path(text: &str, out: &Path) -> String {
    let absolute = std::fs::canonicalize(out).unwrap_or_else(|_| out.to_owned());
    let name = absolute.file_name().map_or_else(|| "out".into(), |name| name.to_string_lossy());
    let mut text = text.to_owned();
    for path in [absolute.to_string_lossy(), out.to_string_lossy()] {
        if path.contains('/') {
            text = text.replace(path.trim_end_matches('/'), &name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_left_out_of_what_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("my out");
        std::fs::create_dir(&out).unwrap();
        let said = format!("cannot read `{}/keys.tsv`: no", out.display());
        assert_eq!(without_path(&said, &out), "cannot read `my out/keys.tsv`: no");
        assert_eq!(without_path("from a/b/out/", Path::new("a/b/out")), "from out/");
        assert_eq!(without_path("--out out", Path::new("out")), "--out out");
    }
}
