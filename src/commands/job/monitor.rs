//! `ctxtune monitor`: watches a job on whatever screen there is, and ends as the job did.
//!
//! Stopping never cancels the job. What a directory's ledger knows of the job is brought up to date.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::args::{MonitorArgs, WatchArgs};
use crate::commands::job::using::Use;
use crate::commands::report::write_beside;
use crate::screen::block::Block;
use crate::screen::canvas::{Canvas, Notices, Unechoed};
use crate::screen::chart::Charset;
use crate::screen::curve::Curve;
use crate::screen::ndjson::Ndjson;
use crate::screen::report::{Terminal, fields};
use crate::screen::svg::picture;
use crate::screen::watch::{Lines, event, steps};
use crate::session::open;
use ctxtune_pipeline::job::monitor::{
    BUDGET, Cause, Finished, MonitorError, MonitorOptions, Screen, Several, monitor,
};
use ctxtune_pipeline::job::progress::Progress;
use ctxtune_pipeline::job::wandb::{self, Chosen};
use ctxtune_pipeline::job::wandb_run::{Log, OnStop};
use ctxtune_pipeline::job::watch::{LAST_EVENTS, Watched, settle};
use ctxtune_pipeline::job::{estimates, submit};
use ctxtune_pipeline::text::{one_line, printable};
use ctxtune_pipeline::{Exit, Failure, Session, shell};
use ctxtune_service::together::{Ending, Job, JobId, last_error};

pub struct Shown {
    /// The directory whose ledger knows the job.
    pub out: Option<PathBuf>,
    /// The directory that gets a page at the end.
    pub page: Option<PathBuf>,
    /// What the document says beside the watch: how the job came about.
    pub submitted: Option<submit::Report>,
    /// Whether everything that happens goes to stdout, in place of the model's name.
    pub streams: bool,
    pub wandb: Chosen,
}

pub fn run(args: &MonitorArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    try_picture(args.watch.svg.as_deref())?;
    let session = open(&args.remote, terminal)?;
    let job = session.job(args.job.target.as_deref())?;
    let wandb = wandb::resolve(&args.wandb, None, &session.environment, terminal)?;
    let shown = Shown {
        out: args.job.target.as_ref().map(PathBuf::from).filter(|target| target.is_dir()),
        page: None,
        submitted: None,
        streams: args.events,
        wandb,
    };
    Ok(watch(&session, &job, &args.watch, shown, terminal))
}

pub fn watch(session: &Session, job: &JobId, args: &WatchArgs, shown: Shown, terminal: &Terminal) -> Exit {
    terminal.label("job", &format!("{job}  {}", session.dashboard(job)));
    let options = MonitorOptions { poll: args.poll, timeout: args.timeout, budget: BUDGET };
    let mut screens = Screens::new(session, terminal);
    let clock = session.clock.as_ref();
    screens.stream = shown.streams.then(|| Ndjson::new(Box::new(io::stdout()), clock, job.as_str()));
    let on_stop = if args.cancel_on_stop { OnStop::Cancel } else { OnStop::Report };
    screens.log = Log::begin(session, &shown.wandb, on_stop, job, shown.out.as_deref());
    let unechoed = screens.block.is_some().then(Unechoed::begin);
    let result = monitor(&session.together, job, &options, &mut screens.all());
    // Before anything else can wait: a second signal would leave the terminal as it is.
    drop(unechoed);
    let watched = settle(session, job, shown.out.as_deref(), result, screens.log.take());
    terminal.send_notices(Notices::Said);
    let streamed = screens.stream.as_mut().map_or(Ok(()), Ndjson::result);
    if let Some(path) = &args.svg {
        let progress = watched.progress();
        let model = progress.job().and_then(Job::model).unwrap_or_default();
        write_picture(path, &Curve::of(progress), &format!("{job} {model}"), terminal);
    }
    // A reader that has gone is told nothing more.
    let is_closed = matches!(&watched.result, Err(error) if matches!(error.cause, Cause::Closed));
    if let Some(job) = watched.progress().job().filter(|_| !is_closed) {
        terminal.label("price", &estimates::billed_and_estimated(job, watched.estimated));
    }
    if let Some(out) = shown.page.as_ref().filter(|_| !session.signals.is_stopped()) {
        write_beside(session, out, terminal);
    }
    let document = document(session, &watched, &shown);
    match &watched.result {
        Ok(finished) => end(session, finished, &watched, document, &shown, terminal),
        Err(_) if is_closed => closed(streamed, terminal),
        Err(error) => {
            say_run(watched.run_page.as_deref(), terminal);
            terminal.fail(&stopped(session, job, error), document)
        }
    }
}

/// How the job came about, and above it how it is now.
fn document(session: &Session, watched: &Watched, shown: &Shown) -> Map<String, Value> {
    let mut document = shown.submitted.as_ref().map(fields).unwrap_or_default();
    document.extend(fields(&watched.report(session)));
    document
}

/// Ends a stream that cannot be written: a reader that has gone is owed no word, a full disk is.
fn closed(streamed: io::Result<()>, terminal: &Terminal) -> Exit {
    match streamed {
        Ok(()) => Exit::Done,
        Err(error) => {
            let message = format!("cannot write to standard output: {error}");
            let failure = Failure::failed("write", message, "free some space, then run it again");
            terminal.fail(&failure, Map::new())
        }
    }
}

#[derive(Default)]
struct Screens<'s> {
    block: Option<Block<'s>>,
    lines: Option<Lines<'s>>,
    stream: Option<Ndjson<'s>>,
    log: Option<Log<'s>>,
}

impl<'s> Screens<'s> {
    fn new(session: &'s Session, terminal: &Terminal) -> Screens<'s> {
        let clock = session.clock.as_ref();
        let mut screens = Screens::default();
        let canvas = terminal.may_draw().then(Canvas::on_stderr);
        terminal.send_notices(match (&canvas, terminal.flags().verbose) {
            (Some(canvas), true) => Notices::Above(canvas.clone()),
            (None, true) => Notices::Said,
            (canvas, false) => Notices::WithoutRetries(canvas.clone()),
        });
        if let Some(canvas) = canvas {
            let charset = if session.environment.is_utf8() { Charset::Unicode } else { Charset::Ascii };
            screens.block = Some(Block::new(canvas, clock, charset).with_banner(terminal.banner()));
        } else if !terminal.flags().quiet {
            screens.lines = Some(Lines::new(Box::new(io::stderr()), clock, terminal.columns()));
        }
        screens
    }

    fn all(&mut self) -> Several<'_> {
        let block = self.block.as_mut().map(|screen| screen as &mut dyn Screen);
        let lines = self.lines.as_mut().map(|screen| screen as &mut dyn Screen);
        let stream = self.stream.as_mut().map(|screen| screen as &mut dyn Screen);
        let log = self.log.as_mut().map(|screen| screen as &mut dyn Screen);
        Several([block, lines, stream, log].into_iter().flatten().collect())
    }
}

/// Tries whether the picture can be written at the end, before anything that costs money or hours.
pub fn try_picture(path: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let is_new = !path.exists();
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|error| {
        let message = format!("cannot write --svg `{}`: {error}", path.display());
        Failure::usage("svg", message, "name a file in a directory that exists and is writable")
    })?;
    if is_new {
        // Only tried: a run that fails leaves no empty picture. One that cannot be removed does no harm.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

pub fn write_picture(path: &Path, curve: &Curve, title: &str, terminal: &Terminal) {
    let svg = picture(curve, title);
    if let Err(error) = std::fs::write(path, svg) {
        terminal.warn(&printable(&format!("cannot write `{}`: {error}", path.display())));
    }
}

fn end(
    session: &Session,
    finished: &Finished,
    watched: &Watched,
    mut document: Map<String, Value>,
    shown: &Shown,
    terminal: &Terminal,
) -> Exit {
    let Finished { progress, ending } = finished;
    let Some(job) = progress.job() else { return Exit::Failed };
    if *ending == Ending::Completed {
        say_model(session, job, watched.run_page.as_deref(), terminal);
        let Some(name) = job.model_output_name() else {
            return terminal.fail(&unnamed(job), document);
        };
        // The server of a rehearsal is gone in a moment, and its model never was.
        if terminal.banner().is_none() {
            let out = session.directory_of(shown.out.as_deref(), &job.id);
            let using = Use::of(Some(session), job, out.as_deref());
            using.say(terminal);
            document.extend(fields(&using));
        }
        let line = (!shown.streams).then(|| printable(&name));
        return terminal.succeed(line.as_deref().map(str::as_bytes), document);
    }
    say_failure(job, progress, terminal);
    say_run(watched.run_page.as_deref(), terminal);
    let (exit, code, verb) = match ending {
        Ending::Cancelled => (Exit::JobCancelled, "job_cancelled", "was cancelled"),
        _ if job.status.as_str() == "expired" => (Exit::JobFailed, "job_failed", "expired"),
        _ => (Exit::JobFailed, "job_failed", "failed"),
    };
    let words = last_words(progress).map(|words| format!(": {words}")).unwrap_or_default();
    let message = format!("the job {} {verb}{words}", job.id);
    let again = match &shown.out {
        Some(out) => format!("ctxtune submit {} --new-job", shell::path(out)),
        None => "ctxtune submit OUT --new-job".to_owned(),
    };
    let hint = format!(
        "fix what the service names, then `{again}`: it uses the files that are there, and pays for another job"
    );
    terminal.fail(&Failure::new(exit, code, message, hint), document)
}

fn unnamed(job: &Job) -> Failure {
    let message = format!("the job {} is complete, and the service gives no name of its model", job.id);
    let hint = format!(
        "`ctxtune status {0}` asks for the name again; `ctxtune download {0}` fetches the weights without it",
        job.id
    );
    Failure::failed("no_model_name", message, hint)
}

fn say_model(session: &Session, job: &Job, run_page: Option<&str>, terminal: &Terminal) {
    let say = |label: &str, text: Option<String>| {
        if let Some(text) = text {
            terminal.label(label, &one_line(&text));
        }
    };
    terminal.done("fine-tuning complete");
    if job.is_early_stopped() {
        terminal.label("note", "early stopping ended it: the validation loss no longer fell");
    }
    say("model", job.model_output_name());
    say("object", job.model_object_id());
    say("page", Some(session.dashboard(&job.id)));
    say("W&B", run_page.map(str::to_owned).or_else(|| job.wandb_url()));
    if terminal.banner().is_some() {
        terminal.label("next", "with an account: TOGETHER_API_KEY=… ctxtune finetune SOURCE");
    }
}

fn say_failure(job: &Job, progress: &Progress, terminal: &Terminal) {
    let events = progress.events();
    for last in &events[events.len().saturating_sub(LAST_EVENTS)..] {
        terminal.label("event", &event(last));
    }
    if let Some(steps) = steps(progress) {
        terminal.label("reached", &steps);
    }
    let (train, val) = job.file_ids();
    let files: Vec<String> = [train, val].into_iter().flatten().collect();
    terminal.label("files", &format!("{} stay at the service", one_line(&files.join(", "))));
}

fn say_run(page: Option<&str>, terminal: &Terminal) {
    if let Some(page) = page {
        terminal.label("W&B", page);
    }
}

fn last_words(progress: &Progress) -> Option<String> {
    last_error(progress.events()).map(one_line).filter(|words| !words.is_empty())
}

fn stopped(session: &Session, job: &JobId, error: &MonitorError) -> Failure {
    let resume = format!("the job still runs; to resume watching: ctxtune monitor {job}");
    let message = error.to_string();
    match &error.cause {
        Cause::Refused { source, .. } => Failure { message, ..Failure::from(&**source) },
        Cause::Lost { .. } => Failure::network("network", message, resume),
        Cause::TimedOut { .. } => Failure::new(Exit::JobRunning, "timed_out", message, resume),
        Cause::Stopped | Cause::Closed => {
            Failure::new(session.signals.exit(), "interrupted", message, resume)
        }
    }
}
