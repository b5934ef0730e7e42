//! `ctxtune monitor`: watches a job on whatever screen there is, and ends as the job did.
//!
//! Stopping never cancels the job. What a directory's ledger knows of the job is brought up to date.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::args::{MonitorArgs, WatchArgs};
use crate::commands::job::estimates;
use crate::commands::job::using::Use;
use crate::commands::job::wandb::{self, Chosen};
use crate::commands::job::wandb_run::{Log, OnStop};
use crate::exit::{Exit, Failure};
use crate::screen::block::Block;
use crate::screen::canvas::{Canvas, Unechoed};
use crate::screen::chart::Charset;
use crate::screen::curve::Curve;
use crate::screen::ndjson::Ndjson;
use crate::screen::report::{Terminal, printable};
use crate::screen::shell;
use crate::screen::svg::picture;
use crate::screen::watch::{Lines, Several, event, one_line, steps};
use crate::session::service::{Notices, Service};
use crate::signals::Signals;
use ctxtune_pipeline::job::monitor::{
    BUDGET, Cause, Finished, MonitorError, MonitorOptions, Screen, monitor,
};
use ctxtune_pipeline::job::progress::Progress;
use ctxtune_service::together::job::{Ending, Job, JobId, last_error};

/// How many events a failed job's end repeats.
const LAST_EVENTS: usize = 5;

/// Whether everything that happens goes to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// It does.
    Streamed,
    /// stdout is the model's name.
    Silent,
}

/// How a watching is shown, and under which name.
pub struct Shown {
    /// The command that the document names.
    pub command: &'static str,
    /// The directory whose ledger knows the job.
    pub out: Option<PathBuf>,
    /// Further fields of the document.
    pub fields: Map<String, Value>,
    /// What goes to stdout.
    pub events: Events,
    /// Where the job is logged.
    pub wandb: Chosen,
    /// The page of its run there, once that is known.
    pub run_page: Option<String>,
}

/// Runs the command.
pub fn run(args: &MonitorArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    let found = try_picture(args.watch.svg.as_deref());
    let found = found.and_then(|()| Service::open(&args.remote, signals, terminal)).and_then(|service| {
        let job = service.job(args.target.as_deref())?;
        let wandb = wandb::resolve(&args.wandb, None, &service.environment, terminal)?;
        Ok((service, job, wandb))
    });
    let (service, job, wandb) = match found {
        Ok(found) => found,
        Err(failure) => return terminal.fail("monitor", &failure, Map::new()),
    };
    let shown = Shown {
        command: "monitor",
        out: args.target.as_ref().map(PathBuf::from).filter(|target| target.is_dir()),
        fields: Map::new(),
        events: if args.events { Events::Streamed } else { Events::Silent },
        wandb,
        run_page: None,
    };
    watch(&service, &job, (&args.watch, shown), terminal)
}

/// Watches `job` until it ends or watching stops.
pub fn watch(
    service: &Service,
    job: &JobId,
    (args, mut shown): (&WatchArgs, Shown),
    terminal: &mut Terminal,
) -> Exit {
    terminal.label("job", &format!("{job}  {}", service.dashboard(job)));
    let options = MonitorOptions { poll: args.poll, timeout: args.timeout, budget: BUDGET };
    let mut screens = Screens::new(service, job, shown.events, terminal);
    let on_stop = if args.cancel_on_stop { OnStop::Cancel } else { OnStop::Report };
    screens.log = Log::begin(service, (&shown.wandb, on_stop), (job, shown.out.as_deref()), terminal);
    let unechoed = screens.block.is_some().then(Unechoed::begin);
    let watched = monitor(&service.together, job, &options, &mut screens.all());
    // Before anything else can wait: a second signal would leave the terminal as it is.
    drop(unechoed);
    let logged = screens.log.take().map(Log::close).unwrap_or_default();
    shown.run_page.clone_from(&logged.page);
    shown.fields.insert("wandb_url".to_owned(), logged.page.into());
    shown.fields.insert("wandb_unsent_rows".to_owned(), logged.unsent.into());
    service.send_notices(Notices::Said);
    let streamed = screens.stream.as_mut().map_or(Ok(()), Ndjson::result);
    let progress = match &watched {
        Ok(finished) => &finished.progress,
        Err(error) => &error.progress,
    };
    if let Some(path) = &args.svg {
        write_picture(path, job, progress, terminal);
    }
    if let Some(seen) = progress.job() {
        service.note_status(shown.out.as_deref(), seen, terminal);
    }
    let estimated = estimates::known(service, shown.out.as_deref()).get(job).copied();
    shown.fields.insert("estimated_dollars".to_owned(), estimated.into());
    // A reader that has gone is told nothing more.
    let is_closed = matches!(&watched, Err(MonitorError { cause: Cause::Closed, .. }));
    if let Some(job) = progress.job().filter(|_| !is_closed) {
        terminal.label("price", &estimates::billed_and_estimated(job, estimated));
    }
    match watched {
        Ok(finished) => end(service, &finished, shown, terminal),
        Err(_) if is_closed => closed(streamed, &shown, terminal),
        Err(error) => stop(service, job, (error, shown), terminal),
    }
}

/// Ends a stream that cannot be written: a reader that has gone is owed no word, a full disk is.
fn closed(streamed: io::Result<()>, shown: &Shown, terminal: &mut Terminal) -> Exit {
    match streamed {
        Ok(()) => Exit::Done,
        Err(error) => {
            let message = format!("cannot write to standard output: {error}");
            let failure = Failure::new(Exit::Failed, "write", message, "free some space, then run it again");
            terminal.fail(shown.command, &failure, Map::new())
        }
    }
}

/// Every screen there is a place for.
#[derive(Default)]
struct Screens<'s> {
    block: Option<Block<'s>>,
    lines: Option<Lines<'s>>,
    stream: Option<Ndjson<'s>>,
    log: Option<Log<'s>>,
}

impl<'s> Screens<'s> {
    fn new(service: &'s Service, job: &JobId, events: Events, terminal: &Terminal) -> Screens<'s> {
        let clock = service.clock.as_ref();
        let mut screens = Screens::default();
        let canvas = terminal.may_draw().then(Canvas::on_stderr);
        service.send_notices(match (&canvas, terminal.voice().verbose) {
            (Some(canvas), true) => Notices::Above(canvas.clone()),
            (None, true) => Notices::Said,
            (canvas, false) => Notices::Unsaid(canvas.clone()),
        });
        if let Some(canvas) = canvas {
            let charset = if service.environment.is_utf8() { Charset::Unicode } else { Charset::Ascii };
            screens.block = Some(Block::new(canvas, clock, charset).with_banner(terminal.banner()));
        } else if !terminal.voice().quiet {
            screens.lines = Some(Lines::new(Box::new(io::stderr()), clock, terminal.columns()));
        }
        if events == Events::Streamed {
            screens.stream = Some(Ndjson::new(Box::new(io::stdout()), clock, job.as_str()));
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
///
/// # Errors
/// When the file cannot be opened for writing.
pub fn try_picture(path: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let is_new = !path.exists();
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|error| {
        let message = format!("cannot write --svg `{}`: {error}", path.display());
        Failure::new(Exit::Usage, "svg", message, "name a file in a directory that exists and is writable")
    })?;
    if is_new {
        // Only tried: a run that fails leaves no empty picture. One that cannot be removed does no harm.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

fn write_picture(path: &Path, job: &JobId, progress: &Progress, terminal: &Terminal) {
    let model = progress.job().and_then(Job::model).unwrap_or_default();
    let svg = picture(&Curve::of(progress), &format!("{job} {model}"));
    if let Err(error) = std::fs::write(path, svg) {
        terminal.warn(&printable(&format!("cannot write `{}`: {error}", path.display())));
    }
}

/// Ends as the job ended.
fn end(service: &Service, finished: &Finished, shown: Shown, terminal: &mut Terminal) -> Exit {
    let Finished { progress, ending } = finished;
    let mut fields = document(service, progress, shown.fields);
    let Some(job) = progress.job() else { return Exit::Failed };
    if *ending == Ending::Completed {
        say_model(service, job, shown.run_page.as_deref(), terminal);
        let Some(name) = job.model_output_name() else {
            return terminal.fail(shown.command, &unnamed(job), fields);
        };
        // The server of a rehearsal is gone in a moment, and its model never was.
        if terminal.banner().is_none() {
            let out = service.directory_of(shown.out.as_deref(), &job.id);
            let using = Use::of(service, job, out.as_deref());
            using.say(terminal);
            using.add(&mut fields);
        }
        let line = (shown.events == Events::Silent).then(|| printable(&name));
        return terminal.succeed(shown.command, line.as_deref().map(str::as_bytes), fields);
    }
    say_failure(job, progress, terminal);
    say_run(shown.run_page.as_deref(), terminal);
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
        "mend what the service names, then `{again}`: it uses the files that are there, and pays for another job"
    );
    terminal.fail(shown.command, &Failure::new(exit, code, message, hint), fields)
}

/// The failure of a complete job whose model nobody can name.
fn unnamed(job: &Job) -> Failure {
    let message = format!("the job {} is complete, and the service gives no name of its model", job.id);
    let hint = format!(
        "`ctxtune status {0}` asks for the name again; `ctxtune download {0}` fetches the weights without it",
        job.id
    );
    Failure::new(Exit::Failed, "no_model_name", message, hint)
}

/// What there is now, and where.
fn say_model(service: &Service, job: &Job, run_page: Option<&str>, terminal: &Terminal) {
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
    say("page", Some(service.dashboard(&job.id)));
    say("W&B", run_page.map(str::to_owned).or_else(|| job.wandb_url()));
    if terminal.banner().is_some() {
        terminal.label("next", "with an account: TOGETHER_API_KEY=… ctxtune finetune SOURCE");
    }
}

/// The last events, how far it came, and what is left at the service.
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

/// The page of the job's run at W&B.
fn say_run(page: Option<&str>, terminal: &Terminal) {
    if let Some(page) = page {
        terminal.label("W&B", page);
    }
}

/// The service's words about why a job failed.
fn last_words(progress: &Progress) -> Option<String> {
    last_error(progress.events()).map(one_line).filter(|words| !words.is_empty())
}

/// Ends while the job runs on.
fn stop(
    service: &Service,
    job: &JobId,
    (error, shown): (MonitorError, Shown),
    terminal: &mut Terminal,
) -> Exit {
    say_run(shown.run_page.as_deref(), terminal);
    let fields = document(service, &error.progress, shown.fields);
    let resume = format!("the job runs on; to go on watching: ctxtune monitor {job}");
    let message = error.to_string();
    let failure = match error.cause {
        Cause::Refused { source, .. } => Failure { message, ..Failure::from(*source) },
        Cause::Lost { .. } => Failure::new(Exit::Network, "network", message, resume),
        Cause::TimedOut { .. } => Failure::new(Exit::JobRunning, "timed_out", message, resume),
        Cause::Stopped => Failure::new(service.signals.exit(), "interrupted", message, resume),
        Cause::Closed => return Exit::Done,
    };
    terminal.fail(shown.command, &failure, fields)
}

/// The fields of the JSON document beside the common ones.
fn document(service: &Service, progress: &Progress, mut fields: Map<String, Value>) -> Map<String, Value> {
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    let job = progress.job();
    let text = |of: fn(&Job) -> Option<String>| Value::from(job.and_then(of));
    put("job", job.map(|job| job.id.as_str()).into());
    put("status", job.map(|job| job.status.as_str()).into());
    put("model", text(Job::model_output_name));
    put("model_object", text(Job::model_object_id));
    put("url", job.map(|job| service.dashboard(&job.id)).into());
    put("step", progress.step().into());
    put("total_steps", progress.total_steps().into());
    put("train_loss", progress.train_loss().into());
    let point = |point: Option<ctxtune_pipeline::job::progress::EvalPoint>| {
        point.map_or(Value::Null, |point| json!({ "step": point.step, "loss": point.loss }))
    };
    put("eval_loss", point(progress.last_eval()));
    put("best_eval_loss", point(progress.best_eval()));
    put("price_dollars", progress.price().into());
    let files = job.map(Job::file_ids).unwrap_or_default();
    put("files", json!({ "train": files.0, "val": files.1 }));
    let events = progress.events();
    let last = events[events.len().saturating_sub(LAST_EVENTS)..].iter().map(|event| {
        json!({
            "created_at": event.created_at, "type": event.kind, "level": event.level, "message": event.message,
        })
    });
    put("last_events", last.collect());
    fields
}
