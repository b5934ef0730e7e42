//! What lists and single views say of a job alike.

use serde::Serialize;

use ctxtune_service::together::{Job, JobId};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobSummary {
    /// Its id.
    pub job: JobId,
    /// Its status, as the service calls it.
    pub status: String,
    /// When it was created, as RFC 3339.
    pub created_at: Option<String>,
    /// When it was started, as RFC 3339.
    pub started_at: Option<String>,
    /// The model that it tunes.
    pub base_model: Option<String>,
    /// The tuned model's name; `null` until there is one.
    pub model: Option<String>,
}

impl JobSummary {
    pub fn of(job: &Job) -> JobSummary {
        JobSummary {
            job: job.id.clone(),
            status: job.status.as_str().to_owned(),
            created_at: job.created_at().map(|at| at.to_string()),
            started_at: job.started_at().map(|at| at.to_string()),
            base_model: job.model(),
            model: job.model_output_name(),
        }
    }
}
