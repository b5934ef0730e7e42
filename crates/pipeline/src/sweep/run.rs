//! The runs of a sweep: started within the cap, watched side by side, ranked at the end.
//!
//! Each run is submitted like any other job: found by its tag or created once, so that a sweep that was killed
//! goes on. The book is written after every change. A run that fails is shown, and the others go on.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Map;

use crate::failure::Failure;
use crate::job::create::{CreateError, Known, Submission};
use crate::job::estimates;
use crate::job::monitor::{BUDGET, Cause, MonitorError, MonitorOptions, Screen, Several, monitor};
use crate::job::price::dollars_text;
use crate::job::progress::{News, Progress};
use crate::job::submit::identity;
use crate::job::wandb_run::{self, Log, OnStop};
use crate::session::Session;
use crate::sweep::book::{Book, Point, Trial};
use crate::sweep::claims::{self, Claims, Ended, Next};
use crate::sweep::price::Quote;
use crate::sweep::runs::{Runs, Suggestions};
use crate::sweep::{Goal, Metric, shown_values};
use crate::text::loss;
use ctxtune_engine::output::lock::OutputLock;
use ctxtune_service::together::{Ending, Job, Tries, jobs};
use ctxtune_service::wandb;
use ctxtune_service::wandb::run::{Alert, Severity};
use ctxtune_service::wandb::sweep::{self, Command};

/// The pause between two looks of an agent that was told nothing, and how many it takes.
const AGENT_PAUSE: Duration = Duration::from_secs(5);
const SILENT_LOOKS: usize = 60;

struct Shared<'s> {
    session: &'s Session,
    runs: &'s Runs,
    claims: Claims,
    turn: Turn,
    failure: Mutex<Option<Failure>>,
}

/// OUT's lock, held while any thread submits: other processes are kept out, and threads do not wait for each
/// other, since their jobs have different tags.
#[derive(Default)]
struct Turn(Mutex<Holders>);

#[derive(Default)]
struct Holders {
    count: usize,
    lock: Option<OutputLock>,
}

struct Holding<'t>(&'t Turn);

impl Turn {
    fn take(&self, shared: &Shared<'_>) -> Result<Holding<'_>, Failure> {
        // Who waits here waits for another process, as the others then have to.
        let mut holders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if holders.lock.is_none() {
            holders.lock = Some(shared.session.wait_for_lock(&shared.runs.out)?);
        }
        holders.count += 1;
        Ok(Holding(self))
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        let mut holders = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        holders.count -= 1;
        if holders.count == 0 {
            holders.lock = None;
        }
    }
}

pub struct Ran {
    pub runs: Runs,
    /// Its runs, and whether the cap left some out.
    pub ended: Ended,
    pub quote: Quote,
    pub failure: Option<Failure>,
}

pub(crate) fn run_all(session: &Session, runs: Runs, book: Book, quote: Quote) -> Ran {
    let suggestions = runs.suggestions.as_ref().map(|suggestions| claims::Suggestions {
        count: suggestions.count,
        dearest: quote.space.as_ref().map(|space| space.dearest),
    });
    let ended_before = ended(&book);
    let shared = Shared {
        session,
        runs: &runs,
        claims: Claims::new(runs.out.clone(), book, runs.cap, suggestions),
        turn: Turn::default(),
        failure: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..runs.parallel {
            scope.spawn(|| work(&shared));
        }
    });
    let Shared { claims, failure, .. } = shared;
    let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    let ending = claims.end();
    if ended(&ending.book) > ended_before && !session.signals.is_stopped() {
        send_alert(session, &runs, &ending.book, failure.as_ref());
    }
    Ran { runs, ended: ending, quote, failure }
}

fn ended(book: &Book) -> usize {
    book.trials.iter().filter(|trial| trial.has_ended()).count()
}

/// Sends the one alert of a sweep, attached to its best run. A failure is a warning.
fn send_alert(session: &Session, runs: &Runs, book: &Book, failure: Option<&Failure>) {
    let Some(suggestions) = runs.suggestions.as_ref().filter(|of| !of.chosen.plan.no_alert) else { return };
    let ranking = book.ranking(runs.metric.goal);
    let best = ranking.first().map(|(index, point)| (&book.trials[*index], point));
    let about = best.map(|(trial, _)| trial).or(book.trials.iter().rfind(|trial| trial.has_ended()));
    let Some(run) = about.and_then(|trial| trial.wandb_run_id.as_deref()) else { return };
    let sweep = &suggestions.sweep;
    let lines = [
        Some(format!(
            "{} of {} runs ended, {} spent.",
            ended(book),
            book.trials.len(),
            dollars_text(book.spent())
        )),
        failure.map(|failure| format!("It stopped: {}", failure.message)),
        best.map(|(trial, point)| {
            let (name, values) = (&runs.metric.name, shown_values(&trial.values));
            format!("best: {name} {} at step {} ({values})", loss(point.value), point.step)
        }),
        best.and_then(|(trial, _)| trial.model.as_ref()).map(|model| format!("model: {model}")),
        Some(sweep.url.clone()),
    ];
    let (verb, severity) = match (failure, best) {
        (Some(_), _) => ("stopped", Severity::Error),
        (None, None) => ("ended without a result", Severity::Error),
        (None, Some(_)) => ("ended", Severity::Info),
    };
    let text = lines.into_iter().flatten().collect::<Vec<_>>().join("\n");
    let alert = Alert { title: format!("sweep {} {verb}", sweep.name), text, severity };
    if let Err(error) =
        wandb::run::send_alert(&suggestions.wandb, [&sweep.entity, &sweep.project, run], &alert)
    {
        session.ui.warn(&format!("W&B: no alert was sent: {error}"));
    }
}

impl Shared<'_> {
    /// The next run to go on with or to start; nothing where none is left, or the cap or a failure says stop.
    fn claim(&self, agent: &mut Option<String>) -> Result<Option<usize>, Failure> {
        let next = self.claims.next()?;
        let next = match (next, &self.runs.suggestions) {
            (Next::Ask, Some(suggestions)) => match self.ask(suggestions, agent) {
                Ok(Some(trial)) => self.claims.suggested(trial)?,
                none => {
                    self.claims.not_suggested();
                    none.map(|_| Next::Nothing)?
                }
            },
            (next, _) => next,
        };
        Ok(match next {
            Next::Run(index) => Some(index),
            Next::Ask | Next::Nothing => None,
        })
    }

    /// Asks W&B for the next values; nothing where it has no more.
    fn ask(&self, suggestions: &Suggestions, agent: &mut Option<String>) -> Result<Option<Trial>, Failure> {
        let trouble = |error: wandb::Error| {
            let hint = "run it again when W&B answers: it resumes the same sweep";
            Failure::network("wandb", format!("W&B suggests no values: {error}"), hint)
        };
        if agent.is_none() {
            *agent = Some(sweep::register(&suggestions.wandb, &suggestions.sweep).map_err(trouble)?);
        }
        let agent = agent.as_deref().unwrap_or_default();
        for _ in 0..SILENT_LOOKS {
            match sweep::next(&suggestions.wandb, agent).map_err(trouble)?.into_iter().next() {
                Some(Command::Run { run, values }) => {
                    return self.runs.suggested(self.session, run, values).map(Some);
                }
                Some(Command::Exit) => return Ok(None),
                None => {
                    let stopped = self.session.clock.wait(AGENT_PAUSE);
                    stopped.map_err(|stopped| self.session.explain(stopped))?;
                }
            }
        }
        Ok(None)
    }

    fn fail(&self, failure: Failure) {
        self.claims.stop();
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    fn say(&self, index: usize, text: &str) {
        self.session.ui.say(&format!("run {}  {text}", index + 1));
    }
}

/// One thread's work: one run after the other.
fn work(shared: &Shared<'_>) {
    let mut agent = None;
    loop {
        let done = match shared.claim(&mut agent) {
            Ok(Some(index)) => run_one(shared, index),
            Ok(None) => return,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = done {
            shared.fail(failure);
        }
    }
}

fn run_one(shared: &Shared<'_>, index: usize) -> Result<(), Failure> {
    let job = submit(shared, index)?;
    if job.status.ending().is_none() {
        shared.say(index, &format!("{}  {}", job.id, shared.session.dashboard(&job.id)));
    }
    let options = MonitorOptions { poll: None, timeout: None, budget: BUDGET };
    let mut screen = RunScreen { shared, index };
    let mut log = begin_log(shared, index, &job);
    let logged = log.as_mut().map(|log| log as &mut dyn Screen);
    let mut screens = Several([Some(&mut screen as &mut dyn Screen), logged].into_iter().flatten().collect());
    let watched = monitor(&shared.session.together, &job.id, &options, &mut screens);
    if let Some(log) = log {
        log.close();
    }
    match watched {
        Ok(finished) => record(shared, index, &finished.progress),
        Err(MonitorError { cause, .. }) => {
            let failure = match cause {
                Cause::Refused { source, .. } => Failure::from(*source),
                Cause::Stopped => ctxtune_service::clock::Stopped.into(),
                other => Failure::network("network", other, "run the same command again: it resumes"),
            };
            Err(shared.session.explain(failure))
        }
    }
}

/// Begins to log a run that W&B suggested, with its values exactly as they came.
fn begin_log<'l>(shared: &Shared<'l>, index: usize, job: &Job) -> Option<Log<'l>> {
    let suggestions = shared.runs.suggestions.as_ref()?;
    let Trial { values, wandb_run_id, .. } = shared.claims.trial(index);
    let run = wandb_run_id?;
    let has_val = shared.runs.manifest.val.is_some();
    let combination = shared.runs.template.make(shared.session, &values, has_val).ok()?;
    let mut chosen = suggestions.chosen.clone();
    chosen.plan.run = run;
    chosen.plan.sweep = Some(suggestions.sweep.name.clone());
    chosen.plan.entity = Some(suggestions.sweep.entity.clone());
    chosen.plan.project.clone_from(&suggestions.sweep.project);
    let known = wandb_run::Known {
        manifest: &shared.runs.manifest,
        settled: &combination.settled,
        limits: &combination.limits,
        price: None,
    };
    let mut config = wandb_run::config(&known, job);
    config.extend(values);
    wandb_run::plan(shared.session, &chosen, &shared.runs.out, config, job);
    Log::begin(shared.session, &chosen, OnStop::Report, &job.id, Some(&shared.runs.out))
}

enum NoJob {
    NotCreated(Failure),
    Open(Failure),
}

/// Finds the run's job, or creates it, and writes it down.
fn submit(shared: &Shared<'_>, index: usize) -> Result<Job, Failure> {
    let trial = shared.claims.trial(index);
    match find_or_create(shared, &trial) {
        Ok(job) => {
            shared.claims.bind(index, &job)?;
            let length = shared.runs.sequence_tokens;
            estimates::note(&shared.runs.out, &job.id, trial.estimate, length, &*shared.session.ui);
            shared.say(index, &shown_values(&trial.values));
            Ok(job)
        }
        Err(NoJob::NotCreated(failure)) => {
            shared.claims.release(index)?;
            Err(failure)
        }
        Err(NoJob::Open(failure)) => Err(failure),
    }
}

fn find_or_create(shared: &Shared<'_>, trial: &Trial) -> Result<Job, NoJob> {
    let Shared { session, runs, .. } = shared;
    let combination = runs.template.make(session, &trial.values, runs.manifest.val.is_some());
    let combination = combination.map_err(NoJob::NotCreated)?;
    let identity =
        identity(&runs.account, &runs.manifest, &combination.settled, trial.wandb_run_id.as_deref());
    let _turn = shared.turn.take(shared).map_err(NoJob::NotCreated)?;
    let submission = Submission {
        together: &session.together,
        out: &runs.out,
        account: &runs.account,
        identity: &identity,
        grace: session.grace(),
        renews: false,
        secret_fields: &Map::new(),
    };
    let found = submission.find().map_err(|error| NoJob::NotCreated(session.explain(error)))?;
    match found {
        Known::Job(adopted) => Ok(adopted.job),
        Known::Nothing { attempt, pending_since } => {
            let suffix = format!("{}-{}", combination.settled.parameters.suffix, identity.tag(attempt));
            let body = combination.settled.body(runs.files(), &suffix);
            let created = submission.create(attempt, pending_since, body);
            created.map(|adopted| adopted.job).map_err(|error| match error {
                CreateError::Api(_) | CreateError::Unclear { .. } => {
                    NoJob::NotCreated(session.explain(error))
                }
                CreateError::Ledger(_) | CreateError::Unknown { .. } | CreateError::Stopped(_) => {
                    NoJob::Open(session.explain(error))
                }
            })
        }
    }
}

fn record(shared: &Shared<'_>, index: usize, progress: &Progress) -> Result<(), Failure> {
    let Some(job) = progress.job() else { return Ok(()) };
    shared.session.note_seen(Some(&shared.runs.out), progress);
    let curve = points(progress, &shared.runs.metric);
    let better = |one: &&Point, other: &&Point| match shared.runs.metric.goal {
        Goal::Minimize => one.value.total_cmp(&other.value),
        Goal::Maximize => other.value.total_cmp(&one.value),
    };
    let best = curve.iter().min_by(better).copied();
    // A list of checkpoints that cannot be had leaves the run ranked by its last value.
    let checkpoints = jobs::checkpoints(&shared.session.together, &job.id, Tries::Many).unwrap_or_default();
    let name = &shared.runs.metric.name;
    let said = match curve.last() {
        Some(last) => format!("{}: {name} {} at step {}", job.status, loss(last.value), last.step),
        None => format!("{}: no {name}", job.status),
    };
    shared.say(index, &said);
    let change = |trial: &mut Trial| {
        trial.status = Some(job.status.as_str().to_owned());
        trial.price = progress.price();
        trial.last = curve.last().copied();
        trial.best = best;
        trial.checkpoints = checkpoints.iter().filter_map(|checkpoint| checkpoint.step).collect();
        trial.model = job.model_output_name().filter(|_| job.status.ending() == Some(Ending::Completed));
        trial.curve = curve;
    };
    Ok(shared.claims.change(index, change)?)
}

fn points(progress: &Progress, metric: &Metric) -> Vec<Point> {
    if metric.name == "train/loss" {
        let point =
            |point: &crate::job::progress::TrainPoint| Some(Point { step: point.step, value: point.loss? });
        return progress.train().filter_map(point).collect();
    }
    progress.eval().map(|point| Point { step: point.step, value: point.loss }).collect()
}

struct RunScreen<'s> {
    shared: &'s Shared<'s>,
    index: usize,
}

impl Screen for RunScreen<'_> {
    fn news(&mut self, _: &Progress, news: &[News]) {
        for news in news {
            match news {
                News::Status { to, .. } => self.shared.say(self.index, &format!("status: {to}")),
                News::Eval(point) => {
                    let text = format!("validation loss {} at step {}", loss(point.loss), point.step);
                    self.shared.say(self.index, &text);
                }
                _ => {}
            }
        }
    }

    fn waiting(&mut self, _: &Progress, _: Duration) {}

    fn trouble(&mut self, what: &str, _: Duration) {
        self.shared.say(self.index, &format!("trouble: {what}"));
    }

    fn slept(&mut self, slept: Duration) {
        self.shared.say(self.index, &format!("this machine slept for {} s", slept.as_secs()));
    }

    fn finished(&mut self, _: &Progress, _: Ending) {}
}
