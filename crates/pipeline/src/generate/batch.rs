//! Questions for one model, and the directory that their answers go to: looked over, agreed to, asked.
//!
//! The order is the promise: what is finished is found first; then somebody agrees to the rest; then it is
//! asked. What was paid for is on the disk before it is counted.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::config::asking::AskingArgs;
use crate::failure::Failure;
use crate::generate::ask::Asker;
use crate::generate::budget::Spent;
use crate::generate::file::Output;
use crate::generate::many::{End, Error, Named, Plan, Retry, Run, Scan, Tally};
use crate::generate::pace::Pace;
use crate::generate::question::Questions;
use crate::generate::request::Delivery;
use crate::generate::setup::{Setup, UsageReport, over_budget};
use crate::job::price::dollars_text;
use crate::session::consent::{ASK_AGAIN, Spending};
use crate::text::{counted, grouped};
use crate::ui::{Detail, StatusLine, Ui};
use ctxtune_engine::output::lock::OutputLock;
use ctxtune_engine::prepare::Watch;
use ctxtune_service::Clock;

/// Lines of progress, where nothing is redrawn, are so far apart.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// A line is redrawn no more often.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How many stories of a kind are named, unless `--verbose`.
const NAMED: usize = 5;
const AGAIN: &str = "run the same command again: no finished story is requested twice";

pub struct AnswerDir {
    dir: PathBuf,
    output: Output,
    _lock: OutputLock,
}

impl AnswerDir {
    /// Makes `dir` where it is not there, and keeps other runs out of it.
    pub fn open(dir: &Path) -> Result<AnswerDir, Failure> {
        let cannot_write =
            |source| Failure::from(Error::File { verb: "write", path: dir.to_owned(), source });
        std::fs::create_dir_all(dir).map_err(cannot_write)?;
        let lock = OutputLock::acquire(dir)?;
        let output = Output::open(dir).map_err(cannot_write)?;
        Ok(AnswerDir { dir: dir.to_owned(), output, _lock: lock })
    }
}

/// Stops a listing at a signal; there is nothing to draw.
pub struct StopOnly<'c>(pub &'c dyn Clock);

impl Watch for StopOnly<'_> {
    fn listed(&self, _: u64) {}
    fn converted(&self, _: u64, _: u64, _: u64) {}

    fn publishing(&self, _: &str) {}

    fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}

pub struct Batch<'b> {
    setup: &'b Setup,
    questions: &'b Questions,
    answers: AnswerDir,
    retry: Retry,
    weights: Option<String>,
    scan: Scan,
}

pub struct BatchResult {
    pub tally: Tally,
    took: Duration,
    spent: Spent,
}

impl<'b> Batch<'b> {
    /// Looks which questions are open, and says so. The service is only asked what the model's name stands for.
    pub fn open(
        setup: &'b Setup,
        questions: &'b Questions,
        answers: AnswerDir,
        retry: Retry,
    ) -> Result<Batch<'b>, Failure> {
        let weights = setup.target.weights(&setup.session);
        let mut batch = Batch { setup, questions, answers, retry, weights, scan: Scan::default() };
        let scanned = batch.plan().scan(setup.session.clock.as_ref());
        batch.scan = scanned.map_err(|error| setup.session.explain(error))?;
        batch.say();
        Ok(batch)
    }

    fn plan(&self) -> Plan<'_> {
        Plan {
            questions: self.questions,
            template: &self.setup.template,
            parameters: &self.setup.parameters,
            weights: self.weights.as_deref(),
            dir: &self.answers.dir,
            retry: self.retry,
        }
    }

    fn say(&self) {
        let scan = &self.scan;
        let todo = scan.todo.len() as u64;
        let most = match (todo, self.setup.budget.dollars(scan.most_tokens)) {
            (0, _) => String::new(),
            (_, Some(most)) => format!(", at most {} if each is answered once", dollars_text(most)),
            (_, None) => format!(", at most {} tokens if each is answered once", grouped(scan.most_tokens)),
        };
        let text = format!(
            "{}: {} finished before, {} to generate{most}",
            grouped(self.questions.len() as u64),
            grouped(scan.there + scan.invalid.len() as u64),
            grouped(todo)
        );
        self.setup.session.ui.label("stories", &text);
    }

    pub fn is_open(&self) -> bool {
        !self.scan.todo.is_empty()
    }

    pub fn run(&self, asking: &AskingArgs) -> (BatchResult, End) {
        let setup = self.setup;
        let asker = Asker {
            chat: &setup.target.chat,
            parameters: &setup.parameters,
            attempts: asking.attempts.get(),
            delivery: Delivery::Whole,
            pace: &Pace::new(asking.rpm),
            budget: &setup.budget,
        };
        // Another model may have spent of the same budget.
        let before = setup.budget.spent();
        let began = setup.session.clock.elapsed();
        let progress = Progress::begin(setup, before);
        let tell = |tally: &Tally| progress.show(tally);
        let plan = self.plan();
        let (output, concurrency) = (&self.answers.output, asking.concurrency);
        let run = Run { plan: &plan, asker: &asker, output, concurrency, tell: &tell };
        let (tally, end) = run.run(&self.scan.todo);
        drop(progress);
        let took = setup.session.clock.elapsed().saturating_sub(began);
        (BatchResult { tally, took, spent: setup.budget.spent().since(before) }, end)
    }

    pub fn sum_up(&self, ran: &BatchResult) {
        let (scan, tally) = (&self.scan, &ran.tally);
        let invalid: Vec<&Named> = self.invalid(ran).collect();
        let stories = scan.there + invalid.len() as u64 + tally.total - tally.invalid.len() as u64;
        let ui = &*self.setup.session.ui;
        ui.label("valid", &format!("{} of {}", grouped(scan.there + tally.valid), grouped(stories)));
        name(ui, "invalid", &invalid);
        name(ui, "rejected", &self.rejected().iter().collect::<Vec<_>>());
        if tally.nulls > 0 {
            let values = counted(tally.nulls, "value");
            ui.label(
                "nulls",
                &format!("{values} of carried fields written as null: not JSON (NaN and the like)"),
            );
        }
        if tally.effort.requests > 0 {
            ui.label("asked", &cost(self.setup, tally, ran.took, ran.spent).join(", "));
        }
    }

    /// The stories that ended without a context, in this run or before.
    pub fn invalid<'r>(&'r self, ran: &'r BatchResult) -> impl Iterator<Item = &'r Named> {
        self.scan.invalid.iter().chain(&ran.tally.invalid)
    }

    pub fn rejected(&self) -> &[Named] {
        &self.scan.rejected
    }

    /// Why not everything was asked; nothing where it was.
    pub fn cut_short(&self, ran: &BatchResult, end: End) -> Option<Failure> {
        let setup = self.setup;
        let left = ran.tally.total - ran.tally.finished();
        let with_rest = |failure: Failure| {
            let message = format!("{} stories are left: {}", grouped(left), failure.message);
            Some(Failure { message, ..failure })
        };
        match end {
            End::Done => None,
            End::OverBudget => {
                let one = self.scan.most_tokens / (self.scan.todo.len() as u64).max(1);
                with_rest(over_budget(setup, one))
            }
            End::Server(error) => with_rest(setup.target.explain(&setup.session, error, AGAIN)),
            End::Local(error) => {
                let mut failure = setup.session.explain(error);
                if failure.exit == setup.session.signals.exit() {
                    failure.hint = Some(AGAIN.to_owned());
                }
                Some(failure)
            }
        }
    }

    pub fn report(&self, ran: &BatchResult) -> BatchReport {
        let Batch { setup, scan, .. } = self;
        let BatchResult { tally, took, spent } = ran;
        BatchReport {
            model: setup.parameters.model.clone(),
            server: setup.target.chat.base().origin(),
            template: setup.template.name.clone(),
            output_dir: self.answers.dir.to_string_lossy().into_owned(),
            valid: scan.there + tally.valid,
            invalid: scan.invalid.len() + tally.invalid.len(),
            rejected: scan.rejected.len(),
            left: tally.total - tally.finished(),
            finished_before: scan.there + scan.invalid.len() as u64,
            nulls: tally.nulls,
            requests: tally.effort.requests,
            repeated: tally.effort.repeats,
            usage: tally.effort.usage.map(UsageReport::of),
            dollars: setup.budget.dollars(spent.known.total()),
            dollars_of_lost_answers: setup.budget.dollars(spent.unknown),
            seconds: took.as_secs_f64(),
            invalid_stories: self.invalid(ran).map(NamedReport::of).collect(),
            rejected_records: scan.rejected.iter().map(NamedReport::of).collect(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BatchReport {
    /// The model.
    pub model: String,
    /// Where it was asked.
    pub server: String,
    /// The template of the prompts.
    pub template: String,
    /// Where the answers are.
    pub output_dir: String,
    /// Stories with a context.
    pub valid: u64,
    /// Stories that ended without one.
    pub invalid: usize,
    /// Records that no prompt can be made of.
    pub rejected: usize,
    /// Stories that are still open.
    pub left: u64,
    /// Stories that were finished before this run.
    pub finished_before: u64,
    /// Values of carried fields that are no JSON, written as `null`.
    pub nulls: u64,
    /// Requests of this run.
    pub requests: u64,
    /// Those among them that repeated one without an answer.
    pub repeated: u64,
    /// Tokens of this run; `null` where the server does not say.
    pub usage: Option<UsageReport>,
    /// What they cost, in dollars, at `--price-per-million`; `null` without it.
    pub dollars: Option<f64>,
    /// What answers that were lost cost at most, in dollars, likewise.
    pub dollars_of_lost_answers: Option<f64>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Stories without a context, and why.
    pub invalid_stories: Vec<NamedReport>,
    /// Records that no prompt can be made of, and why.
    pub rejected_records: Vec<NamedReport>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NamedReport {
    /// Its key, a text or what a carried key is.
    pub key: Value,
    /// The code of the reason.
    pub code: String,
    /// The reason.
    pub reason: String,
}

impl NamedReport {
    fn of(named: &Named) -> NamedReport {
        let key = serde_json::from_str(&named.key).unwrap_or_else(|_| named.key.clone().into());
        NamedReport { key, code: named.code.to_string(), reason: named.reason.clone() }
    }
}

/// A yes to all that is left to ask about.
pub fn agree(batches: &[&Batch<'_>], asking: &AskingArgs) -> Result<(), Failure> {
    let is_open = |batch: &&&Batch<'_>| !batch.scan.todo.is_empty() && batch.setup.target.is_paid();
    let open: Vec<&&Batch<'_>> = batches.iter().filter(is_open).collect();
    let Some(Batch { setup, .. }) = open.first() else { return Ok(()) };
    match Spending::of(asking.yes, asking.max_cost, &*setup.session.ui) {
        Spending::Agreed { .. } => Ok(()),
        Spending::Impossible => Err(Failure::unspent(
            "no_consent",
            "answers to many stories cost money, and this is not a terminal to ask at",
            "agree with --yes, or with --max-cost USD and --price-per-million USD",
        )),
        Spending::Asked => {
            let each = open.iter().map(|batch| {
                let count = grouped(batch.scan.todo.len() as u64);
                format!("{} about {count} stories", batch.setup.parameters.model)
            });
            let each = each.collect::<Vec<_>>().join(" and ");
            let most_tokens = open.iter().map(|batch| batch.scan.most_tokens).sum();
            let price = match setup.budget.dollars(most_tokens) {
                Some(most) => format!("for at most about {}", dollars_text(most)),
                None => "at a price nobody knows here (--price-per-million tells)".to_owned(),
            };
            let answer =
                setup.session.confirm(&format!("Ask {each}, {price}?"), "nothing was asked", ASK_AGAIN);
            answer.map_err(|failure| match failure.code {
                "declined" => failure,
                _ => Failure { hint: Some(AGAIN.to_owned()), ..failure },
            })
        }
    }
}

struct Progress<'p> {
    setup: &'p Setup,
    line: Box<dyn StatusLine + 'p>,
    before: Spent,
    began: Duration,
    shown: Mutex<Duration>,
}

impl<'p> Progress<'p> {
    fn begin(setup: &'p Setup, before: Spent) -> Self {
        let began = setup.session.clock.elapsed();
        Progress { setup, line: setup.session.ui.status_line(), before, began, shown: Mutex::new(began) }
    }

    fn show(&self, tally: &Tally) {
        let now = self.setup.session.clock.elapsed();
        let apart = if self.line.is_redrawn() { DRAW_EVERY } else { LINE_EVERY };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(*shown) < apart {
            return;
        }
        *shown = now;
        self.line.show(&self.text(tally, now.saturating_sub(self.began)));
    }

    fn text(&self, tally: &Tally, took: Duration) -> String {
        let mut parts = vec![format!("{} of {} stories", grouped(tally.finished()), grouped(tally.total))];
        if !tally.invalid.is_empty() {
            parts.push(format!("{} invalid", grouped(tally.invalid.len() as u64)));
        }
        let spent = self.setup.budget.spent().since(self.before);
        parts.extend(cost(self.setup, tally, took, spent));
        parts.join(", ")
    }
}

fn cost(setup: &Setup, tally: &Tally, took: Duration, spent: Spent) -> Vec<String> {
    let effort = &tally.effort;
    let per_second = effort.requests as f64 / took.as_secs_f64().max(0.001);
    let mut parts = vec![format!("{} ({per_second:.1}/s)", counted(effort.requests, "request"))];
    if effort.repeats > 0 {
        parts.push(format!("{} of them repeated without an answer", grouped(effort.repeats)));
    }
    if spent.known.total() > 0 {
        parts.push(format!("{} tokens", grouped(spent.known.total())));
    }
    parts.extend(setup.budget.dollars(spent.known.total()).map(dollars_text));
    if let Some(unknown) = setup.budget.dollars(spent.unknown).filter(|unknown| *unknown > 0.0) {
        parts.push(format!("at most {} more for lost answers", dollars_text(unknown)));
    }
    parts
}

fn name(ui: &dyn Ui, label: &str, named: &[&Named]) {
    if named.is_empty() {
        return;
    }
    ui.label(label, &grouped(named.len() as u64));
    let shown = if ui.detail() == Detail::Verbose { named.len() } else { NAMED };
    for Named { key, reason, .. } in named.iter().take(shown) {
        ui.say(&format!("  {key}: {reason}"));
    }
    if named.len() > shown {
        ui.say(&format!("  and {} more (-v names them)", grouped((named.len() - shown) as u64)));
    }
}
