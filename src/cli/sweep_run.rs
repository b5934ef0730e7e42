//! The runs of a sweep: started within the cap, watched side by side, ranked at the end.
//!
//! Each run is submitted like any other job: found by its tag or created once, so that a sweep that
//! was killed goes on. The book is written after every change. A run that fails is shown, and the
//! others go on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::exit::{Exit, Failure};
use crate::cli::overlay::{Series, overlay, overlay_picture};
use crate::cli::report::{Terminal, printable};
use crate::cli::service::Service;
use crate::cli::submit::identity;
use crate::cli::sweep::{shown_values, sweep_files};
use crate::cli::watch::{dollars, loss};
use crate::lock::OutputLock;
use crate::manifest::Manifest;
use crate::together::job::{Ending, Job};
use crate::together::jobs::{self, Limits};
use crate::tune::book::{Book, Point, Trial};
use crate::tune::create::{Known, Renewal, Submission};
use crate::tune::ledger::Account;
use crate::tune::monitor::{BUDGET, MonitorError, MonitorOptions, Screen, monitor};
use crate::tune::parameters::Settled;
use crate::tune::progress::{News, Progress};
use crate::tune::sweep::{Goal, Metric};

/// One combination, ready to be sent.
pub struct Combination {
    /// Its parameters.
    pub settled: Settled,
    /// What its model allows.
    pub limits: Limits,
}

/// Everything the runs of a sweep share.
pub struct Runs {
    /// The prepared directory.
    pub out: PathBuf,
    /// Whose jobs they are.
    pub account: Account,
    /// The data.
    pub manifest: Manifest,
    /// The combinations, one a run.
    pub combinations: Vec<Combination>,
    /// The training file's id.
    pub train_file: String,
    /// The validation file's id.
    pub val_file: Option<String>,
    /// What runs are ranked by.
    pub metric: Metric,
    /// Jobs at the same time.
    pub parallel: usize,
    /// What the whole sweep may cost, in dollars.
    pub cap: Option<f64>,
    /// Where the curves go.
    pub svg: Option<PathBuf>,
}

impl Runs {
    /// Runs over this data, not yet uploaded.
    pub fn new(out: PathBuf, account: Account, manifest: Manifest, combinations: Vec<Combination>) -> Runs {
        Runs {
            out,
            account,
            manifest,
            combinations,
            train_file: String::new(),
            val_file: None,
            metric: Metric { name: "val/loss".to_owned(), goal: Goal::Minimize },
            parallel: 1,
            cap: None,
            svg: None,
        }
    }

    /// What the jobs are asked to do where the sweep does not say: part of the sweep's identity.
    pub fn identity(&self) -> Value {
        let files = crate::tune::parameters::Files { train: "", val: None };
        let body = |of: &Combination| of.settled.body(files, &of.settled.parameters.suffix.value);
        self.combinations.first().map_or(Value::Null, body)
    }
}

/// What the threads of a sweep share.
struct Shared<'s> {
    service: &'s Service,
    runs: &'s Runs,
    terminal: &'s Terminal,
    state: Mutex<State>,
}

struct State {
    book: Book,
    claimed: BTreeSet<usize>,
    failure: Option<Failure>,
}

/// Runs everything that is open, and ends with the ranked table.
pub fn run_all(service: &Service, runs: Runs, book: Book, terminal: &mut Terminal) -> Exit {
    let state = State { book, claimed: BTreeSet::new(), failure: None };
    let voice = terminal.clone();
    let shared = Shared { service, runs: &runs, terminal: &voice, state: Mutex::new(state) };
    std::thread::scope(|scope| {
        for _ in 0..runs.parallel {
            scope.spawn(|| work(&shared));
        }
    });
    let State { book, failure, .. } = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    end(&runs, &book, (failure, service), terminal)
}

impl Shared<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next run to go on with or to start, running ones first; nothing where the cap or a failure
    /// says stop.
    fn claim(&self) -> Option<usize> {
        let mut state = self.state();
        if state.failure.is_some() {
            return None;
        }
        let State { book, claimed, .. } = &*state;
        let is_open = |(index, trial): &(usize, &Trial)| !trial.has_ended() && !claimed.contains(index);
        let mut open = book.trials.iter().enumerate().filter(is_open);
        let running = open.clone().find(|(_, trial)| trial.is_running()).map(|(index, _)| index);
        let next = running.or_else(|| {
            let (index, trial) = open.next()?;
            book.has_room_for(trial.estimate, self.runs.cap).then_some(index)
        })?;
        state.claimed.insert(next);
        Some(next)
    }

    /// Changes a run and writes the book.
    fn change(&self, index: usize, change: impl FnOnce(&mut Trial)) -> Result<(), Failure> {
        let mut state = self.state();
        change(&mut state.book.trials[index]);
        Ok(state.book.write(&self.runs.out)?)
    }

    fn say(&self, index: usize, text: &str) {
        self.terminal.say(&printable(&format!("run {}  {text}", index + 1)));
    }
}

/// One thread's work: one run after the other.
fn work(shared: &Shared<'_>) {
    while let Some(index) = shared.claim() {
        if let Err(failure) = run_one(shared, index) {
            shared.state().failure.get_or_insert(failure);
        }
    }
}

fn run_one(shared: &Shared<'_>, index: usize) -> Result<(), Failure> {
    let job = submit(shared, index)?;
    if job.status.ending().is_none() {
        shared.say(index, &format!("{}  {}", job.id, shared.service.dashboard(&job.id)));
    }
    let options = MonitorOptions { poll: None, timeout: None, budget: BUDGET };
    let mut screen = RunScreen { shared, index };
    match monitor(&shared.service.together, &job.id, &options, &mut screen) {
        Ok(finished) => record(shared, index, &finished.progress),
        Err(MonitorError { cause, .. }) => {
            let failure = match cause {
                crate::tune::monitor::Cause::Refused { source, .. } => Failure::from(*source),
                crate::tune::monitor::Cause::Stopped => crate::clock::Stopped.into(),
                other => {
                    Failure::new(Exit::Network, "network", other, "run the same command again: it goes on")
                }
            };
            Err(shared.service.explain(failure))
        }
    }
}

/// Finds the run's job, or creates it; one thread at a time, since OUT has one lock.
fn submit(shared: &Shared<'_>, index: usize) -> Result<Job, Failure> {
    let Shared { service, runs, .. } = shared;
    let mut state = shared.state();
    let trial = &state.book.trials[index];
    let combination = &runs.combinations[index];
    let identity =
        identity(&runs.account, &runs.manifest, &combination.settled, trial.wandb_run_id.as_deref());
    let _lock = OutputLock::acquire(&runs.out)?;
    let submission = Submission {
        together: &service.together,
        out: &runs.out,
        account: &runs.account,
        identity: &identity,
        grace: service.grace(),
        renewal: Renewal::Keep,
        secret_fields: &Map::new(),
    };
    let found = submission.find().map_err(|error| service.explain(error))?;
    let job = match found {
        Known::Job(adopted) => adopted.job,
        Known::Nothing { attempt, pending_since } => {
            let suffix = format!("{}-{}", combination.settled.parameters.suffix.value, identity.tag(attempt));
            let body = combination.settled.body(sweep_files(runs), &suffix);
            submission.create(attempt, pending_since, body).map_err(|error| service.explain(error))?.job
        }
    };
    let values = shown_values(&state.book.trials[index].values);
    let trial = &mut state.book.trials[index];
    trial.job = Some(job.id.clone());
    trial.status = Some(job.status.as_str().to_owned());
    state.book.write(&runs.out)?;
    drop(state);
    shared.say(index, &values);
    Ok(job)
}

/// Takes over what is known of a run that has ended.
fn record(shared: &Shared<'_>, index: usize, progress: &Progress) -> Result<(), Failure> {
    let Some(job) = progress.job() else { return Ok(()) };
    let curve = points(progress, &shared.runs.metric);
    let better = |one: &&Point, other: &&Point| match shared.runs.metric.goal {
        Goal::Minimize => one.value.total_cmp(&other.value),
        Goal::Maximize => other.value.total_cmp(&one.value),
    };
    let best = curve.iter().min_by(better).copied();
    // A list of checkpoints that cannot be had leaves the run ranked by its last value.
    let checkpoints = jobs::checkpoints(&shared.service.together, &job.id).unwrap_or_default();
    let name = &shared.runs.metric.name;
    let said = match curve.last() {
        Some(last) => format!("{}: {name} {} at step {}", job.status, loss(last.value), last.step),
        None => format!("{}: no {name}", job.status),
    };
    shared.say(index, &said);
    shared.change(index, |trial| {
        trial.status = Some(job.status.as_str().to_owned());
        trial.price = progress.price();
        trial.last = curve.last().copied();
        trial.best = best;
        trial.checkpoints = checkpoints.iter().filter_map(|checkpoint| checkpoint.step).collect();
        trial.model = job.model_output_name().filter(|_| job.status.ending() == Some(Ending::Completed));
        trial.curve = curve;
    })
}

fn points(progress: &Progress, metric: &Metric) -> Vec<Point> {
    if metric.name == "train/loss" {
        let point =
            |point: &crate::tune::progress::TrainPoint| Some(Point { step: point.step, value: point.loss? });
        return progress.train().filter_map(point).collect();
    }
    progress.eval().map(|point| Point { step: point.step, value: point.loss }).collect()
}

/// A run's happenings, a line each.
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

/// The table, best first, the curves, and how it all ended.
fn end(
    runs: &Runs,
    book: &Book,
    (failure, service): (Option<Failure>, &Service),
    terminal: &mut Terminal,
) -> Exit {
    let ranking = book.ranking(runs.metric.goal);
    table(runs, book, &ranking, terminal);
    curves(runs, book, (service, terminal));
    let fields = document(runs, book, &ranking);
    if let Some(failure) = failure {
        return terminal.fail("sweep", &failure, fields);
    }
    let left = book.trials.iter().filter(|trial| !trial.has_ended()).count();
    if left > 0 {
        terminal.warn(&format!("{left} runs were not started: one more could cost more than --max-cost"));
    }
    let best = ranking.iter().find_map(|(index, _)| book.trials[*index].model.clone());
    if best.is_none() {
        let message = "no run of the sweep completed";
        let failure = Failure::new(
            Exit::JobFailed,
            "sweep_failed",
            message,
            "`ctxtune status JOB` says why each run ended",
        );
        return terminal.fail("sweep", &failure, fields);
    }
    terminal.label("spent", &dollars(book.spent()));
    terminal.succeed("sweep", best.as_deref().map(str::as_bytes), fields)
}

fn table(runs: &Runs, book: &Book, ranking: &[(usize, Point)], terminal: &Terminal) {
    let width = book.trials.iter().map(|trial| shown_values(&trial.values).len()).max().unwrap_or(0);
    terminal.say(&format!("  rank  run  {:<9}  {:<width$}  price    status", runs.metric.name, "parameters"));
    let row = |rank: String, index: usize, value: String| {
        let trial = &book.trials[index];
        let price = trial.price.map(dollars).unwrap_or_default();
        let status = trial.status.as_deref().unwrap_or("not started");
        let line = format!(
            "  {rank:<4}  {:<3}  {value:<9}  {:<width$}  {price:<7}  {status}",
            index + 1,
            shown_values(&trial.values)
        );
        terminal.say(printable(&line).trim_end());
    };
    for (rank, (index, point)) in ranking.iter().enumerate() {
        row((rank + 1).to_string(), *index, loss(point.value));
        let trial = &book.trials[*index];
        if let (Some(best), true) =
            (trial.best, trial.best.map(|best| best.step) == Some(point.step) && trial.best != trial.last)
        {
            terminal.say(&format!("              the checkpoint of step {}", best.step));
        }
        if let Some(model) = &trial.model {
            terminal.say(&printable(&format!("              {model}")));
        }
    }
    for index in 0..book.trials.len() {
        if !ranking.iter().any(|(ranked, _)| *ranked == index) {
            row("-".to_owned(), index, "-".to_owned());
        }
    }
}

fn curves(runs: &Runs, book: &Book, (service, terminal): (&Service, &Terminal)) {
    let series = |(index, trial): (usize, &Trial)| Series {
        name: (index + 1).to_string(),
        label: shown_values(&trial.values),
        points: trial.curve.iter().map(|point| (point.step, point.value)).collect(),
    };
    let series: Vec<Series> =
        book.trials.iter().enumerate().filter(|(_, trial)| !trial.curve.is_empty()).map(series).collect();
    for line in overlay(&series, service.environment.is_utf8()) {
        terminal.say(&line);
    }
    if let Some(path) = &runs.svg {
        write_picture(path, &overlay_picture(&series, &runs.metric.name), terminal);
    }
}

fn write_picture(path: &Path, svg: &str, terminal: &Terminal) {
    if let Err(error) = std::fs::write(path, svg) {
        terminal.warn(&printable(&format!("cannot write `{}`: {error}", path.display())));
    }
}

/// The fields of the JSON document beside the common ones.
fn document(runs: &Runs, book: &Book, ranking: &[(usize, Point)]) -> Map<String, Value> {
    let trial = |(index, trial): (usize, &Trial)| {
        let values: Map<String, Value> = trial.values.iter().cloned().collect();
        let rank = ranking.iter().position(|(ranked, _)| *ranked == index).map(|rank| rank + 1);
        json!({
            "run": index + 1, "rank": rank, "parameters": values, "job": trial.job, "status": trial.status,
            "value": trial.ranked_by().map(|point| point.value), "step": trial.ranked_by().map(|point| point.step),
            "last": trial.last, "best": trial.best, "estimated_dollars": trial.estimate,
            "price_dollars": trial.price, "model": trial.model,
        })
    };
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("sweep", book.id.clone().into());
    put("metric", runs.metric.name.clone().into());
    put("spent_dollars", book.spent().into());
    put("runs", book.trials.iter().enumerate().map(trial).collect());
    fields
}
