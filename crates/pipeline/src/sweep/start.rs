//! A sweep begins: what it would try and cost, agreed to once, and W&B as the one who chooses values.
//!
//! Every combination is held against the model's limits, and the whole is priced, before the first job
//! is started. The runs themselves are [`run`](crate::sweep::run)'s.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::config::{PrepareChoices, TuneChoices};
use crate::failure::{Exit, Failure};
use crate::job::data::{prepare_corpus, verify};
use crate::job::limits::sequence_length;
use crate::job::logging::DEFAULT_PROJECT;
use crate::job::submit::files;
use crate::job::uploads::upload_sides;
use crate::job::wandb::{Chosen, Way};
use crate::job::wandb_run;
use crate::session::Session;
use crate::session::consent::Spending;
use crate::sweep::book::{Book, SWEEPS_DIR, Trial, sweep_id};
use crate::sweep::make::JobTemplate;
use crate::sweep::price::{Quote, agree, price_book, price_space};
use crate::sweep::run::{Ran, run_all};
use crate::sweep::runs::{Runs, Suggestions};
use crate::sweep::{Assignment, Goal, Method, Sweep, SweepError};
use crate::ui::Ui;
use ctxtune_engine::output::lock::OutputLock;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_service::wandb::sweep::{self as wandb_sweep, PendingRun};

const MOST_RUNS: usize = 10_000;
/// What a call of W&B may take before the start.
const WANDB_CALL: Duration = Duration::from_secs(20);

impl From<SweepError> for Failure {
    fn from(error: SweepError) -> Failure {
        let hint = "docs/sweeps.md lists the keys of a sweep file; nothing was sent";
        Failure::usage("sweep_file", error, hint)
    }
}

pub fn usage(message: String, hint: &str) -> Failure {
    Failure::usage("sweep", message, hint)
}

pub struct Order {
    pub sweep: Sweep,
    pub out: PathBuf,
    /// What is prepared before; nothing: the directory is taken as it is.
    pub data: Option<PrepareChoices>,
    /// What the jobs are asked to do where the sweep does not say, as flags say.
    pub flags: TuneChoices,
    pub file: TuneChoices,
    pub count: Option<u64>,
    /// Seed of random draws.
    pub seed: u64,
    pub parallel: usize,
    pub spending: Spending,
    pub wandb: Chosen,
}

/// How many runs there are at the most, where the command line or the file says.
fn limit(sweep: &Sweep, count: Option<u64>) -> Option<usize> {
    let count = count.into_iter().chain(sweep.run_cap).min();
    count.map(|count| usize::try_from(count).unwrap_or(usize::MAX))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chooser {
    Own,
    Wandb,
}

pub struct Wanted {
    /// The values of all runs, in their order; where W&B chooses them, what is held against the limits.
    pub values: Vec<Assignment>,
    pub count: usize,
}

impl Wanted {
    /// At most `count` runs of `sweep`; `seed` is that of random draws.
    pub fn of(sweep: &Sweep, count: Option<u64>, seed: u64, chooser: Chooser) -> Result<Wanted, Failure> {
        let hint = "give every parameter `values`, or use `method: random` with --count";
        if let Some(count) = limit(sweep, count).filter(|count| *count > MOST_RUNS) {
            let message = format!("a sweep must have between 1 and {MOST_RUNS} runs, got {count}");
            return Err(usage(message, "lower --count, or `run_cap`"));
        }
        let grid = || sweep.grid().map_err(|reason| usage(reason, hint));
        let count = limit(sweep, count);
        let values = match (sweep.method, count, chooser) {
            (Method::Grid, None, _) | (Method::Grid, _, Chooser::Wandb) => grid()?,
            (Method::Grid, Some(count), Chooser::Own) => grid()?.into_iter().take(count).collect(),
            (Method::Random | Method::Bayes, None, _) => {
                let message = format!("`method: {}` has no end of its own", sweep.method);
                return Err(usage(message, "say how many runs: --count N"));
            }
            (Method::Random | Method::Bayes, Some(_), Chooser::Wandb) => sweep.probes(),
            (Method::Random, Some(count), Chooser::Own) => {
                (0..count as u64).map(|number| sweep.draw(seed, number)).collect()
            }
            (Method::Bayes, Some(_), Chooser::Own) => {
                return Err(usage(
                    "`method: bayes` is W&B's: it learns from the runs it has seen".to_owned(),
                    "log to W&B (export WANDB_API_KEY), or use `method: grid` or `random`",
                ));
            }
        };
        let count = match sweep.method {
            Method::Grid => values.len().min(count.unwrap_or(usize::MAX)),
            Method::Random | Method::Bayes => count.unwrap_or_default(),
        };
        Ok(Wanted { values, count })
    }
}

/// Refuses a metric that no run has, and warns where the worst run would win.
pub fn check_metric(sweep: &Sweep, ui: &dyn Ui) -> Result<(), Failure> {
    let known = ["val/loss", "eval/loss", "train/loss"];
    if known.contains(&sweep.metric.name.as_str()) {
        if sweep.metric.goal == Goal::Maximize {
            let name = &sweep.metric.name;
            ui.warn(&format!(
                "`metric.goal: maximize` ranks the run with the highest {name} first, which is the worst one; use minimize"
            ));
        }
        return Ok(());
    }
    let message = format!("`metric.name` is `{}`, which no run has", sweep.metric.name);
    Err(usage(message, "the metrics are val/loss (also eval/loss) and train/loss"))
}

/// Refuses a flag for a parameter that the sweep varies: it would have no effect.
pub fn refuse_varied_flags(sweep: &Sweep, flags: &TuneChoices) -> Result<(), Failure> {
    let is_varied = |key: &&str| sweep.parameters.iter().any(|(name, _)| name == key);
    let Some(key) = flags.keys().into_iter().find(is_varied) else { return Ok(()) };
    let message = format!("--{} is set, and the sweep varies `{key}`", key.replace('_', "-"));
    Err(usage(message, "leave out the flag, or set the value in the sweep file: `value: ...`"))
}

/// Who chooses the values of a sweep that begins now.
pub fn chooser(chosen: &Chosen) -> Chooser {
    if matches!(chosen.way, Way::Online { .. }) { Chooser::Wandb } else { Chooser::Own }
}

/// Prices, asks, and runs a sweep that can be run. Fails when it cannot be begun; what ends it later is part of
/// what it returns.
pub fn sweep(session: &Session, order: Order) -> Result<Ran, Failure> {
    let online = chooser(&order.wandb);
    if order.spending == Spending::Impossible {
        return Err(Spending::refusal());
    }
    session.require_key()?;
    if let Some(data) = &order.data {
        prepare_corpus(data.clone(), session)?;
    }
    let manifest = Manifest::read(&order.out)?;
    let template = JobTemplate::new(order.flags.clone(), order.file.clone(), manifest.options.seed);
    let mut runs = Runs::new(order.out.clone(), session.account()?, manifest, template);
    runs.name.clone_from(&order.sweep.name);
    runs.metric = order.sweep.metric.clone();
    runs.parallel = order.parallel.max(1);
    runs.cap = match order.spending {
        Spending::Agreed { max_cost } => max_cost,
        Spending::Asked | Spending::Impossible => None,
    };
    let document = Value::Object(order.sweep.document.clone());
    let id = sweep_id(&document, &runs.template.identity(&runs.manifest));
    // Two processes would each count what they spend themselves.
    let _lock = lock_sweep(&runs.out, &id)?;
    let mut book = match Book::read(&runs.out, &id)? {
        Some(book) => book,
        None => Book::new(id, Vec::new()),
    };
    if book.wandb_sweep.is_some() && online == Chooser::Own {
        // Values of our own would be other jobs than those that W&B chose, and paid for again.
        let hint = "resume it at W&B, or take another --output-dir";
        return Err(usage("W&B chose this sweep's values so far, and is off now".to_owned(), hint));
    }
    let has_begun = !book.trials.is_empty() && book.wandb_sweep.is_none();
    let chooser = if has_begun { Chooser::Own } else { online };
    let wanted = Wanted::of(&order.sweep, order.count, order.seed, chooser)?;
    check_all(session, &runs, &wanted.values)?;
    if chooser == Chooser::Own {
        plan_trials(session, &runs, &mut book, &wanted.values)?;
    }
    upload(session, &mut runs, &wanted.values)?;
    let more = wanted.count.saturating_sub(book.trials.len());
    let to_choose = match (chooser, more) {
        (Chooser::Wandb, 1..) => Some((more, price_space(session, &runs, &order.sweep)?)),
        _ => None,
    };
    let unknown = price_book(session, &runs, &mut book)?;
    let quote = Quote::of(&book, to_choose, unknown);
    agree(session, &runs, &book, &quote, order.spending)?;
    if chooser == Chooser::Wandb {
        begin_suggestions(session, &mut runs, &mut book, &order, wanted.count)?;
    }
    book.name.clone_from(&runs.name);
    book.metric = Some(runs.metric.clone());
    book.write(&runs.out)?;
    Ok(run_all(session, runs, book, quote))
}

/// The sweep's own lock: it is held until the last run has ended, while OUT's is held for each submission.
fn lock_sweep(out: &Path, id: &str) -> Result<OutputLock, Failure> {
    let dir = out.join(SWEEPS_DIR);
    let failed = |error| {
        let message = format!("cannot make the directory `{}`: {error}", dir.display());
        Failure::failed("lock", message, "check the permissions of the output directory")
    };
    std::fs::create_dir_all(&dir).map_err(failed)?;
    Ok(OutputLock::acquire_named(&dir, id)?)
}

/// Brings the runs of `book` that have no job in line with `wanted`: each job once. What may exist already
/// stays.
fn plan_trials(
    session: &Session,
    runs: &Runs,
    book: &mut Book,
    wanted: &[Assignment],
) -> Result<(), Failure> {
    // A smaller --count leaves out runs that were not started, a larger one adds runs.
    book.trials.retain(|trial| !trial.is_free() || wanted.contains(&trial.values));
    for values in wanted {
        let is_there = book.trials.iter().any(|trial| trial.values == *values);
        // With another --sweep-seed the runs of the former one count, too.
        if !is_there && book.trials.len() < wanted.len() {
            book.trials.push(Trial::new(values.clone()));
        }
    }
    let has_val = runs.manifest.val.is_some();
    let mut keys = Vec::new();
    for trial in &book.trials {
        keys.push(runs.template.make(session, &trial.values, has_val)?.key);
    }
    // Equal draws are one job: the run that has it, or else the first one.
    let stays = |index: usize| {
        let same = (0..keys.len()).filter(|other| keys[*other] == keys[index]);
        let first = same
            .min_by_key(|other| (book.trials[*other].job.is_none(), book.trials[*other].is_free(), *other));
        book.trials[index].job.is_some() || first == Some(index)
    };
    let kept: Vec<usize> = (0..keys.len()).filter(|index| stays(*index)).collect();
    book.trials = kept.into_iter().map(|index| book.trials[index].clone()).collect();
    Ok(())
}

/// Checks the data and brings it to the service, once for all runs.
fn upload(session: &Session, runs: &mut Runs, values: &[Assignment]) -> Result<(), Failure> {
    let _lock = OutputLock::acquire(&runs.out)?;
    let has_val = runs.manifest.val.is_some();
    let (mut shortest, mut model) = (None, None);
    for values in values {
        let of = runs.template.make(session, values, has_val)?;
        let length = sequence_length(&of.settled, &of.limits);
        model = Some(of.limits.model_name.clone());
        shortest = shortest.into_iter().chain(length).min();
    }
    runs.sequence_tokens = shortest;
    verify(std::slice::from_ref(&runs.out), model.as_deref(), shortest, session)?;
    let uploaded = upload_sides(session, &runs.account, &runs.out, &runs.manifest)?;
    let ids = files(&uploaded);
    (runs.train_file, runs.val_file) = (ids.train.to_owned(), ids.val.map(str::to_owned));
    Ok(())
}

/// Has W&B choose the values: makes the sweep there, or goes on with the one that is there.
fn begin_suggestions(
    session: &Session,
    runs: &mut Runs,
    book: &mut Book,
    order: &Order,
    count: usize,
) -> Result<(), Failure> {
    let Way::Online { settings, .. } = &order.wandb.way else { return Ok(()) };
    let wandb =
        wandb_run::connect(settings.clone(), WANDB_CALL, &session.environment, Arc::clone(&session.clock))?;
    let failed = |what: &'static str| {
        move |error: ctxtune_service::wandb::Error| {
            let hint = "run it again when W&B answers, or with --wandb off; no job was started";
            Failure::network("wandb", format!("cannot {what} at W&B: {error}"), hint)
        }
    };
    let sweep = match book.wandb_sweep.clone() {
        Some(sweep) => {
            let pending = wandb_sweep::pending(&wandb, &sweep).map_err(failed("look up the sweep's runs"))?;
            take_pending(session, runs, book, &order.sweep, pending, count)?;
            sweep
        }
        None => {
            let mut document = order.sweep.document.clone();
            document.insert("run_cap".to_owned(), count.into());
            let plan = &order.wandb.plan;
            let project = if plan.project.is_empty() { DEFAULT_PROJECT } else { &plan.project };
            let entity = plan.entity.clone().unwrap_or_default();
            let made = wandb_sweep::create(&wandb, (&entity, project), &document);
            made.map_err(failed("make the sweep"))?
        }
    };
    book.wandb_sweep = Some(sweep.clone());
    session.ui.label("W&B", &sweep.url);
    runs.suggestions = Some(Suggestions { wandb, sweep, chosen: order.wandb.clone(), count });
    Ok(())
}

/// Takes the runs into the book that W&B suggested and that did not arrive: it does not suggest them again.
fn take_pending(
    session: &Session,
    runs: &Runs,
    book: &mut Book,
    sweep: &Sweep,
    pending: Vec<PendingRun>,
    count: usize,
) -> Result<(), Failure> {
    for PendingRun { run, values } in pending {
        let is_known = book.trials.iter().any(|trial| trial.wandb_run_id.as_ref() == Some(&run));
        if is_known || book.trials.len() >= count {
            continue;
        }
        let is_varied = |key: &str| sweep.parameters.iter().any(|(name, _)| name == key);
        let values: Assignment = values.into_iter().filter(|(key, _)| is_varied(key)).collect();
        let taken = if values.len() == sweep.parameters.len() {
            runs.suggested(session, run.clone(), values)
        } else {
            Err(usage("W&B does not show all of its values".to_owned(), ""))
        };
        match taken {
            Ok(trial) => {
                session.ui.say(&format!("W&B suggested the run {run} earlier, and nobody began it"));
                book.trials.push(trial);
            }
            Err(failure) if failure.exit == Exit::Usage => {
                let why = failure.message;
                session.ui.warn(&format!("the run {run}, which W&B suggested earlier, is not begun: {why}"));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

fn check_all(session: &Session, runs: &Runs, values: &[Assignment]) -> Result<(), Failure> {
    let mut refused: Vec<String> = Vec::new();
    for values in values {
        for said in runs.template.make(session, values, runs.manifest.val.is_some())?.refused {
            if !refused.contains(&said) {
                refused.push(said);
            }
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    let message = format!("the sweep asks for what the model refuses: {}", refused.join("; "));
    let hint = "cut the lists of values to the bounds; nothing was uploaded or started";
    Err(Failure::usage("over_limit", message, hint))
}

/// Refuses a sweep over what is no parameter of a job, or over values that cannot be its.
pub fn check_values(sweep: &Sweep) -> Result<(), Failure> {
    let unfit = |reason| usage(reason, "a sweep varies parameters of the job; data is prepared once");
    for (name, domain) in &sweep.parameters {
        for value in domain.extremes() {
            TuneChoices::of_values(&[(name.clone(), value)]).map_err(unfit)?;
        }
    }
    sweep.drawn_elsewhere.iter().try_for_each(|name| TuneChoices::check_key(name).map_err(unfit))
}
