//! `ctxtune cancel`: shows the job, asks, and has the service stop it.
//!
//! What was trained is billed whatever is cancelled, and that is said before. A job that has ended
//! is not asked for again: the service would say no less clearly.

use std::path::Path;

use serde::Serialize;

use crate::args::CancelArgs;
use crate::screen::report::{Terminal, fields};
use crate::session;
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::session::consent::ASK_AGAIN;
use ctxtune_pipeline::text::one_line;
use ctxtune_pipeline::{Exit, Failure, Session, Ui, shell};
use ctxtune_service::together::{self, Ending, Job, JobId, jobs};

/// A status between the request and the end.
const REQUESTED: &str = "cancel_requested";

/// A job that was not cancelled, with what is known of it.
struct Refusal {
    failure: Failure,
    job: Option<Box<Job>>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal { failure, job: None }
    }
}

#[derive(Serialize)]
struct Report {
    /// The job.
    job: JobId,
    /// Its status, as the service calls it.
    status: String,
    /// What it is billed, in dollars; `null` where the service does not say.
    price_dollars: Option<f64>,
}

impl Report {
    fn of(job: &Job) -> Report {
        Report { job: job.id.clone(), status: job.status.as_str().to_owned(), price_dollars: job.price() }
    }
}

pub fn run(args: &CancelArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    Ok(match cancel(args, terminal) {
        Ok(job) => {
            let status = one_line(job.status.as_str());
            terminal.label("status", &status);
            if job.status.ending().is_none() {
                terminal.label("next", &format!("ctxtune monitor {} waits for its end", job.id));
            }
            terminal.report(Some(status.as_bytes()), &Report::of(&job))
        }
        Err(Refusal { failure, job }) => {
            let known = job.map(|job| fields(&Report::of(&job)));
            terminal.fail(&failure, known.unwrap_or_default())
        }
    })
}

fn cancel(args: &CancelArgs, terminal: &Terminal) -> Result<Job, Refusal> {
    let id = id(&args.job)?;
    if !args.yes && !terminal.has_person() {
        return Err(Failure::unspent(
            "no_consent",
            format!("this is not a terminal to ask at whether {id} is to be cancelled"),
            "agree with --yes",
        )
        .into());
    }
    let session = session::open(&args.remote, terminal)?;
    let job = jobs::retrieve(&session.together, &id).map_err(|error| session.explain(error))?;
    session.note_status(None, &job);
    show(&session, &job, terminal);
    if let Some(failure) = refusal(&job) {
        return Err(Refusal { failure, job: Some(Box::new(job)) });
    }
    if !args.yes {
        let runs = format!("the job {} still runs", job.id);
        if let Err(failure) = session.confirm("Cancel it?", &runs, ASK_AGAIN) {
            let hint = if failure.code == "declined" { failure.hint } else { Some(runs) };
            return Err(Refusal { failure: Failure { hint, ..failure }, job: Some(Box::new(job)) });
        }
    }
    let job = request(&session, job)?;
    session.note_status(None, &job);
    Ok(job)
}

/// The id of a job, which nobody may name by a directory here: what is cancelled is seen in the line.
fn id(text: &str) -> Result<JobId, Failure> {
    if Path::new(text).is_dir() {
        let message = format!("`{text}` is a directory, and a job is cancelled by its id");
        let hint = format!("`ctxtune status {}` shows the id of its newest job", shell::word(text));
        return Err(Failure::usage("no_job", message, hint));
    }
    JobId::new(text).ok_or_else(|| {
        Failure::usage("no_job", format!("`{text}` is no job's id"), "`ctxtune jobs` lists the jobs")
    })
}

fn show(session: &Session, job: &Job, terminal: &Terminal) {
    terminal.label("job", &format!("{}  {}", job.id, one_line(job.status.as_str())));
    let models = [job.model(), job.model_output_name()];
    for (label, text) in ["base", "model"].into_iter().zip(models) {
        if let Some(text) = text {
            terminal.label(label, &one_line(&text));
        }
    }
    terminal.label("page", &session.dashboard(&job.id));
    let price =
        job.price().map_or("not known yet".to_owned(), |price| format!("{} so far", dollars_text(price)));
    terminal.label("price", &format!("{price}; steps already done are billed, cancelled or not"));
}

fn refusal(job: &Job) -> Option<Failure> {
    let said = match job.status.ending() {
        Some(Ending::Completed) => "is complete",
        Some(Ending::Failed) => "has failed",
        Some(Ending::Cancelled) => "is cancelled already",
        None if job.status.as_str() == REQUESTED => "is being cancelled already",
        None => return None,
    };
    let message = format!("the job {} {said}: there is nothing to cancel", job.id);
    Some(Failure::failed("not_running", message, format!("ctxtune status {}", job.id)))
}

/// Has the service cancel `job`, and gives the job as it is then.
fn request(session: &Session, job: Job) -> Result<Job, Refusal> {
    let error = match jobs::cancel(&session.together, &job.id) {
        Ok(cancelled) => return Ok(cancelled),
        Err(error) => error,
    };
    if !matches!(error, together::Error::Refused { status: 400 | 409, .. }) {
        return Err(Refusal { failure: session.explain(error), job: Some(Box::new(job)) });
    }
    // The request may have been heard although its reply was lost, or the job may have ended since.
    let now = jobs::retrieve(&session.together, &job.id).map_err(|error| session.explain(error))?;
    let is_cancelled = now.status.ending() == Some(Ending::Cancelled) || now.status.as_str() == REQUESTED;
    if is_cancelled {
        return Ok(now);
    }
    let failure = refusal(&now).unwrap_or_else(|| session.explain(error));
    Err(Refusal { failure, job: Some(Box::new(now)) })
}
