//! `ctxtune status`: one job as it is now, on one screen.
//!
//! A look, not a wait: it ends well whatever the status. Events and metrics only tell how far the
//! training is; that they cannot be had is said and changes nothing.

use std::path::Path;

use crate::args::JobArgs;
use crate::commands::job::jobs::JobSummary;
use crate::screen::report::Terminal;
use crate::screen::watch::{epochs, eval_loss, steps, train_loss};
use crate::session;
use ctxtune_pipeline::deploy::running::{self, Running, RunningReport};
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::job::progress::{EvalPoint, Progress};
use ctxtune_pipeline::job::watch::TrainedOn;
use ctxtune_pipeline::job::{estimates, wandb_run};
use ctxtune_pipeline::text::{one_line, printable};
use ctxtune_pipeline::{Exit, Failure, Session};
use ctxtune_service::together::{self, Ending, Job, jobs};
use serde::Serialize;

pub fn run(args: &JobArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let (session, progress) = look(args, terminal)?;
    let Some(job) = progress.job() else { return Ok(Exit::Failed) };
    let out = args.job.target.as_deref().map(Path::new).filter(|target| target.is_dir());
    let run_page = wandb_run::page(&session, job, out).or_else(|| job.wandb_url());
    show(&session, job, (&progress, run_page.as_deref()), terminal);
    let running = running::glance(&session, None);
    running::say_running(running.as_deref().unwrap_or_default(), terminal);
    let status = one_line(job.status.as_str());
    let report = Report::of(&session, job, &progress, run_page, running.as_deref());
    Ok(terminal.report(Some(status.as_bytes()), &report))
}

fn look(args: &JobArgs, terminal: &Terminal) -> Result<(Session, Progress), Failure> {
    let session = session::open(&args.remote, terminal)?;
    let id = session.job(args.job.target.as_deref())?;
    let job = jobs::retrieve(&session.together, &id).map_err(|error| session.explain(error))?;
    session.note_status(args.job.target.as_deref().map(Path::new), &job);
    let mut progress = Progress::default();
    let has_started = job.started_at().is_some() || job.status.ending().is_some();
    progress.absorb_job(job);
    if has_started && let Err(error) = measure(&session, &mut progress) {
        let failure = session.explain(error);
        if terminal.signals.is_stopped() {
            return Err(failure);
        }
        terminal.warn(&printable(&format!("how far it is cannot be told: {}", failure.message)));
    }
    Ok((session, progress))
}

/// Asks for the events, and for the metrics from the last step they name.
fn measure(session: &Session, progress: &mut Progress) -> Result<(), together::Error> {
    let Some(id) = progress.job().map(|job| job.id.clone()) else { return Ok(()) };
    progress.absorb_events(jobs::events(&session.together, &id)?);
    let from = progress.events().iter().filter_map(|event| event.step).max();
    progress.absorb_metrics(&jobs::metrics(&session.together, &id, from)?);
    Ok(())
}

fn show(session: &Session, job: &Job, (progress, run_page): (&Progress, Option<&str>), terminal: &Terminal) {
    let unknown = if job.status.is_known() { "" } else { " (a status that is new here)" };
    terminal.label("job", &format!("{}  {}{unknown}", job.id, one_line(job.status.as_str())));
    let say = |label: &str, text: Option<String>| {
        if let Some(text) = text {
            terminal.label(label, &one_line(&text));
        }
    };
    let is_open = job.status.ending().is_none();
    say("base", job.model());
    say("created", job.created_at().map(|at| at.strftime("%F %TZ").to_string()));
    let depth = job.queue_depth().filter(|depth| is_open && *depth > 0);
    say("queue", depth.map(|depth| format!("{depth} before it")));
    let epochs = epochs(progress).filter(|_| progress.epoch() > Some(0.0));
    let reached: Vec<String> = [steps(progress), epochs].into_iter().flatten().collect();
    say("reached", (!reached.is_empty()).then(|| reached.join(", ")));
    say("loss", train_loss(progress));
    say("", eval_loss(progress));
    let so_far = if is_open { " so far" } else { "" };
    say("price", job.price().map(|price| format!("{}{so_far}", dollars_text(price))));
    if job.is_early_stopped() {
        terminal.label("note", "early stopping ended it: the validation loss no longer fell");
    }
    let is_complete = job.status.ending() == Some(Ending::Completed);
    let unnamed = is_complete.then(|| "the service gives no name of it".to_owned());
    say("model", job.model_output_name().or(unnamed));
    say("object", job.model_object_id());
    say("W&B", run_page.map(str::to_owned));
    say("page", Some(session.dashboard(&job.id)));
    say("next", Some(next(job)));
}

fn next(job: &Job) -> String {
    let id = &job.id;
    match job.status.ending() {
        None => format!("ctxtune monitor {id}"),
        Some(Ending::Completed) if job.trains_all_weights() => format!("ctxtune download {id}"),
        Some(Ending::Completed) => format!("ctxtune download {id} --adapter"),
        Some(Ending::Failed) => format!("ctxtune monitor {id} shows how it ended"),
        Some(Ending::Cancelled) => format!("ctxtune checkpoints {id} lists what was kept"),
    }
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    job: JobSummary,
    /// The job's page.
    url: String,
    /// The id of the tuned model.
    model_object: Option<String>,
    /// How many jobs are before it in the queue; `null` where the service does not say.
    queue_depth: Option<u64>,
    /// The step it has reached.
    step: Option<u64>,
    /// The steps of the whole job.
    total_steps: Option<u64>,
    /// The epoch it has reached.
    epoch: Option<f64>,
    /// The epochs of the whole job.
    n_epochs: Option<u64>,
    /// The last training loss.
    train_loss: Option<f64>,
    /// The last validation loss.
    eval_loss: Option<EvalPoint>,
    /// What it has cost, in dollars; `null` where the service does not say.
    price_dollars: Option<f64>,
    /// Whether early stopping ended it.
    early_stopped: bool,
    /// The ids of what it is trained on.
    files: TrainedOn,
    /// Its estimate before it was created, in dollars; `null` where this machine does not know it.
    estimated_dollars: Option<f64>,
    /// The page of its run at W&B.
    wandb_url: Option<String>,
    /// What runs and is billed per minute; `null` where the service does not say.
    endpoints: Option<Vec<RunningReport>>,
}

impl Report {
    fn of(
        session: &Session,
        job: &Job,
        progress: &Progress,
        wandb_url: Option<String>,
        running: Option<&[Running]>,
    ) -> Report {
        let (train, val) = job.file_ids();
        Report {
            job: JobSummary::of(job),
            url: session.dashboard(&job.id),
            model_object: job.model_object_id(),
            queue_depth: job.queue_depth(),
            step: progress.step(),
            total_steps: progress.total_steps(),
            epoch: progress.epoch(),
            n_epochs: job.n_epochs(),
            train_loss: progress.train_loss(),
            eval_loss: progress.last_eval(),
            price_dollars: job.price(),
            early_stopped: job.is_early_stopped(),
            files: TrainedOn { train, val },
            estimated_dollars: estimates::known(session, None).get(&job.id).copied(),
            wandb_url,
            endpoints: running.map(|running| running.iter().map(Running::report).collect()),
        }
    }
}
