//! What is left of a watch when it is over: the job's last state, what was logged, what it costs.

use std::path::Path;

use serde::Serialize;

use crate::job::estimates;
use crate::job::monitor::{Finished, MonitorError};
use crate::job::progress::{EvalPoint, Progress};
use crate::job::wandb_run::Log;
use crate::session::Session;
use ctxtune_service::together::{Job, JobId};

pub const LAST_EVENTS: usize = 5;

pub struct Watched {
    pub result: Result<Finished, Box<MonitorError>>,
    pub run_page: Option<String>,
    pub unsent_rows: u64,
    pub estimated: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The page of its run at W&B; `null` where it has none.
    pub wandb_url: Option<String>,
    /// Rows that could not be sent to W&B yet.
    pub wandb_unsent_rows: u64,
    /// Its estimate before the start, in dollars; `null` where this machine does not know it.
    pub estimated_dollars: Option<f64>,
    /// The job; `null` where the service was not reached.
    pub job: Option<JobId>,
    /// Its status, as the service calls it.
    pub status: Option<String>,
    /// The tuned model's name; `null` until there is one.
    pub model: Option<String>,
    /// The tuned model's id.
    pub model_object: Option<String>,
    /// The job's page.
    pub url: Option<String>,
    /// The step it has reached.
    pub step: Option<u64>,
    /// The steps of the whole job.
    pub total_steps: Option<u64>,
    /// The last training loss.
    pub train_loss: Option<f64>,
    /// The last validation loss.
    pub eval_loss: Option<EvalPoint>,
    /// The lowest validation loss.
    pub best_eval_loss: Option<EvalPoint>,
    /// What it has cost, in dollars; `null` where the service does not say.
    pub price_dollars: Option<f64>,
    /// The ids of the files it is trained on.
    pub files: TrainedOn,
    /// The newest events, the oldest of them first.
    pub last_events: Vec<LastEvent>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainedOn {
    /// The training file.
    pub train: Option<String>,
    /// The validation file.
    pub val: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastEvent {
    /// When, as the service writes it.
    pub created_at: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its level.
    pub level: String,
    /// What it says.
    pub message: String,
}

/// Closes the log of a watch that is over, and keeps what is known of its job in the ledger of `out`.
pub fn settle(
    session: &Session,
    job: &JobId,
    out: Option<&Path>,
    result: Result<Finished, MonitorError>,
    log: Option<Log<'_>>,
) -> Watched {
    let closed = log.map(Log::close).unwrap_or_default();
    let watched = Watched {
        result: result.map_err(Box::new),
        run_page: closed.page,
        unsent_rows: closed.unsent,
        estimated: estimates::known(session, out).get(job).copied(),
    };
    session.note_seen(out, watched.progress());
    watched
}

impl Watched {
    pub fn progress(&self) -> &Progress {
        match &self.result {
            Ok(finished) => &finished.progress,
            Err(error) => &error.progress,
        }
    }

    pub fn report(&self, session: &Session) -> Report {
        let progress = self.progress();
        let job = progress.job();
        let (train, val) = job.map(Job::file_ids).unwrap_or_default();
        let events = progress.events();
        let last = events[events.len().saturating_sub(LAST_EVENTS)..].iter().map(|event| LastEvent {
            created_at: event.created_at.clone(),
            kind: event.kind.clone(),
            level: event.level.clone(),
            message: event.message.clone(),
        });
        Report {
            wandb_url: self.run_page.clone(),
            wandb_unsent_rows: self.unsent_rows,
            estimated_dollars: self.estimated,
            job: job.map(|job| job.id.clone()),
            status: job.map(|job| job.status.as_str().to_owned()),
            model: job.and_then(Job::model_output_name),
            model_object: job.and_then(Job::model_object_id),
            url: job.map(|job| session.dashboard(&job.id)),
            step: progress.step(),
            total_steps: progress.total_steps(),
            train_loss: progress.train_loss(),
            eval_loss: progress.last_eval(),
            best_eval_loss: progress.best_eval(),
            price_dollars: progress.price(),
            files: TrainedOn { train, val },
            last_events: last.collect(),
        }
    }
}
