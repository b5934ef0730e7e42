//! What is known of the jobs of a directory: their ledgers and, where the service is asked, what was measured since.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::job::ledger::{Run, RunState};
use crate::job::mismatch::Mismatch;
use crate::job::parameters::{Origin, Parameters, place};
use crate::job::progress::Progress;
use crate::job::seen::Seen;
use crate::report::path::without_path;
use crate::session::Session;
use crate::sweep::shown_value;
use ctxtune_service::together::{self, Job, JobId, jobs};

#[derive(Debug, Serialize)]
pub struct JobReport {
    /// Its id.
    pub id: JobId,
    /// Its status when it was last seen; nothing where nobody asked.
    pub status: Option<String>,
    /// The model it starts from.
    pub base: Option<String>,
    /// The tuned model's name, as soon as there is one.
    pub model: Option<String>,
    /// When the service created it (RFC 3339).
    pub created_at: Option<String>,
    /// What it was asked to do, in the order of the flags.
    pub parameters: Vec<Parameter>,
    /// What it was estimated at, in dollars.
    pub estimated_dollars: Option<f64>,
    /// The longest sequence of its model, in tokens; what is longer is cut. Known where it was when the job
    /// was created, it was set, or the service is asked.
    pub sequence_tokens: Option<u64>,
    /// Where the measurements are from.
    pub source: Source,
    /// What was measured.
    pub seen: Option<Seen>,
    /// Whether the directory holds other data now than it was trained on.
    pub has_other_data: bool,
    /// Whether it is a run of a sweep.
    pub is_of_sweep: bool,
    /// How its model is used, where there is one.
    pub using: Option<Using>,
    /// The job itself, as the service shows it or the ledger knows it.
    #[serde(skip)]
    pub job: Job,
}

#[derive(Debug, Serialize)]
pub struct Parameter {
    /// Its key in the configuration file.
    pub key: String,
    /// The value.
    pub value: String,
    /// Who chose it: `default`, `file`, `flag`, `parent`; nothing where that was not kept.
    pub origin: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The service was asked now.
    Service,
    /// The ledger has what was seen when the job was last watched.
    Ledger,
    /// Nothing was measured that anybody here knows of.
    Nothing,
}

#[derive(Debug, Default, Serialize)]
pub struct Using {
    /// What it needs before.
    pub note: String,
    /// Commands of a shell, in their order.
    pub commands: Vec<String>,
    /// Python that calls it; nothing where it cannot be deployed at the service.
    pub python: Option<String>,
}

/// The jobs that `out` knows, the newest first.
pub(crate) fn of(out: &Path, session: Option<&Session>, troubles: &mut Vec<String>) -> Vec<JobReport> {
    let runs = Run::read_all(out).unwrap_or_else(|error| {
        troubles.push(without_path(&error.to_string(), out));
        Vec::new()
    });
    let created = runs.iter().rev().filter(|run| run.state == RunState::Created);
    created.filter_map(|run| JobReport::of(out, run, session, troubles)).collect()
}

impl JobReport {
    fn of(out: &Path, run: &Run, session: Option<&Session>, troubles: &mut Vec<String>) -> Option<JobReport> {
        let id = run.job.clone()?;
        let session = session.filter(|session| session.together.base().origin() == run.account.api);
        let asked = session.and_then(|session| match measured(session, &id) {
            Ok(progress) => Some((Seen::of(&progress, session.clock.now()), progress.job()?.clone())),
            Err(error) => {
                let kept = if run.seen.is_some() {
                    "what was seen before is shown"
                } else {
                    "its curves are missing"
                };
                troubles.push(format!("the service did not answer about {id}: {error}; {kept}"));
                None
            }
        });
        let (source, seen, job) = match (asked, &run.seen) {
            (Some((seen, job)), _) => (Source::Service, Some(seen), job),
            (None, Some(seen)) => (Source::Ledger, Some(seen.clone()), known_job(run, &id)?),
            (None, None) => (Source::Nothing, None, known_job(run, &id)?),
        };
        let base = job.model();
        Some(JobReport {
            status: Some(job.status.to_string()).filter(|status| status != UNKNOWN),
            model: job.model_output_name(),
            created_at: job.created_at().map(|at| at.to_string()),
            parameters: parameters(run),
            estimated_dollars: run.estimated_dollars,
            sequence_tokens: sequence_tokens(run, session, base.as_deref()),
            source,
            seen,
            has_other_data: Mismatch::of_job(out, &id).is_some(),
            is_of_sweep: false,
            using: None,
            base,
            id,
            job,
        })
    }

    pub fn value(&self, key: &str) -> Option<&str> {
        let parameter = self.parameters.iter().find(|parameter| parameter.key == key);
        parameter.map(|parameter| parameter.value.as_str())
    }

    /// Dollars that the service billed, or bills so far.
    pub fn price_dollars(&self) -> Option<f64> {
        self.seen.as_ref().and_then(|seen| seen.price_dollars)
    }
}

/// The status of a job that nobody asked about.
const UNKNOWN: &str = "unknown";

/// Asks the service for everything that is measured of a job.
fn measured(session: &Session, id: &JobId) -> Result<Progress, together::Error> {
    let mut progress = Progress::default();
    progress.absorb_job(jobs::retrieve(&session.together, id)?);
    progress.absorb_events(jobs::events(&session.together, id)?);
    progress.absorb_metrics(&jobs::metrics(&session.together, id, None)?);
    Ok(progress)
}

/// The job as the ledger knows it: what was asked for, and what came of it.
fn known_job(run: &Run, id: &JobId) -> Option<Job> {
    let mut object: Map<String, Value> = run.body.as_object().cloned().unwrap_or_default();
    object.insert("id".to_owned(), json!(id));
    object.insert("status".to_owned(), json!(run.status.as_deref().unwrap_or(UNKNOWN)));
    object.insert("created_at".to_owned(), json!(run.created_at));
    object.insert("model_output_name".to_owned(), json!(run.model));
    object.insert("model_object_id".to_owned(), json!(run.model_object));
    Job::read(&Value::Object(object))
}

/// The parameters in the body of the creation.
fn parameters(run: &Run) -> Vec<Parameter> {
    let parameter = |key: String| {
        let value = run.body.pointer(&place(&key)).filter(|value| !value.is_null())?;
        let origin = |origins: &std::collections::BTreeMap<String, String>| {
            origins.get(&key).cloned().unwrap_or_else(|| Origin::Default.to_string())
        };
        Some(Parameter { value: shown_value(value), origin: run.origins.as_ref().map(origin), key })
    };
    Parameters::keys().into_iter().filter_map(parameter).collect()
}

/// The longest sequence: what was set, else the model's.
fn sequence_tokens(run: &Run, session: Option<&Session>, base: Option<&str>) -> Option<u64> {
    let set = run.sequence_tokens.or_else(|| run.body.get("max_seq_length").and_then(Value::as_u64));
    // Without an answer no limit is drawn.
    set.or_else(|| jobs::limits(&session?.together, base?).ok()??.max_seq_length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::parameters::Files;
    use crate::job::parameters::tests::{seed, settled};
    use crate::job::progress::EvalPoint;

    fn run() -> Value {
        let body = settled(seed()).body(Files { train: "file-t", val: None }, "s-0123abcd");
        json!({
            "schema": "ctxtune.run/1", "tag": "0123abcd", "attempt": 1,
            "account": { "api": "http://127.0.0.1:1", "project": "p" }, "state": "created",
            "intended_at": "2026-11-24T10:00:00Z", "train_sha256": "t", "val_sha256": null, "body": body,
            "origins": { "learning_rate": "flag" }, "estimated_dollars": 4.7, "job": "ft-1",
            "created_at": "2026-11-24T10:00:01Z", "status": "completed", "model": "me/m-s-0123abcd",
            "model_object": "ml_1", "refusal": null,
        })
    }

    #[test]
    fn without_the_service_a_job_is_what_its_ledger_knows_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("runs")).unwrap();
        let write =
            |run: &Value| std::fs::write(dir.path().join("runs/0123abcd.json"), run.to_string()).unwrap();
        let read = || of(dir.path(), None, &mut Vec::new()).remove(0);
        let mut ledger = run();
        write(&ledger);
        let job = read();
        assert_eq!((job.source, job.seen.is_none(), job.price_dollars()), (Source::Nothing, true, None));
        assert_eq!(
            (job.status.as_deref(), job.model.as_deref()),
            (Some("completed"), Some("me/m-s-0123abcd"))
        );
        assert_eq!(job.estimated_dollars, Some(4.7));
        let of_key = |key: &str| job.parameters.iter().find(|parameter| parameter.key == key).unwrap();
        assert_eq!(of_key("learning_rate").origin.as_deref(), Some("flag"));
        assert_eq!(
            (of_key("lora").value.as_str(), of_key("lora").origin.as_deref()),
            ("Lora", Some("default"))
        );
        let eval = EvalPoint { step: 20, loss: 1.5, timestamp_ns: None };
        ledger["seen"] = json!({
            "at": "2026-11-24T11:00:00Z", "total_steps": 20, "steps": 0, "train": [], "eval": [eval],
            "checkpoints": [], "price_dollars": 4.1, "started_at": null, "ended_at": null, "is_early_stopped": false,
        });
        ledger.as_object_mut().unwrap().remove("origins");
        write(&ledger);
        let job = read();
        assert_eq!((job.source, job.price_dollars()), (Source::Ledger, Some(4.1)));
        assert!(job.parameters.iter().all(|parameter| parameter.origin.is_none()), "an old ledger kept none");
    }

    #[test]
    fn a_ledger_that_cannot_be_read_is_a_trouble_without_a_path() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("runs")).unwrap();
        std::fs::write(dir.path().join("runs/x.json"), "{").unwrap();
        let mut troubles = Vec::new();
        assert!(of(dir.path(), None, &mut troubles).is_empty());
        assert!(troubles[0].contains("runs/x.json"), "{troubles:?}");
        assert!(!troubles[0].contains(&*dir.path().to_string_lossy()), "{troubles:?}");
    }
}
