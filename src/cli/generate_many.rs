//! `ctxtune generate SOURCE… --output-dir GEN`: contexts of many stories, each asked about once.
//!
//! The order is the promise: what is finished is found first, without the network; then somebody agrees
//! to the rest; then it is asked. What was paid for is on the disk before it is counted.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::args::{GenerateArgs, SpendingArgs};
use crate::cli::canvas::Canvas;
use crate::cli::consent::{Spending, ask};
use crate::cli::exit::{Exit, Failure};
use crate::cli::generate::{COMMAND, Setup, dollars, over_budget, sources, usage_value};
use crate::cli::report::{Terminal, counted, grouped, printable};
use crate::cli::service::Notices;
use crate::clock::Clock;
use crate::generate::ask::Asker;
use crate::generate::file::Output;
use crate::generate::many::{End, Error, Named, Plan, Retry, Run, Scan, Tally};
use crate::generate::pace::Pace;
use crate::generate::question::Questions;
use crate::generate::request::Delivery;
use crate::lock::OutputLock;
use crate::prepare::records::Records;
use crate::prepare::{self, Watch};

/// Lines of progress, where nothing is redrawn, are so far apart.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A line is redrawn no more often.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// What compressed sources and standard input may unpack to, together.
const MAX_SPOOL_BYTES: u64 = 64 << 30;

/// How many stories of a kind are named, unless `--verbose`.
const NAMED: usize = 5;

/// What a run came to.
struct Ended {
    scan: Scan,
    tally: Tally,
    end: End,
    took: Duration,
}

/// Runs the command.
pub fn run(args: &GenerateArgs, setup: &Setup, dir: &Path, terminal: &mut Terminal) -> Exit {
    match generate(args, setup, dir, terminal) {
        Ok(result) => conclude(setup, dir, result, terminal),
        Err(failure) => terminal.fail(COMMAND, &failure, Map::new()),
    }
}

fn generate(args: &GenerateArgs, setup: &Setup, dir: &Path, terminal: &Terminal) -> Result<Ended, Failure> {
    let sources = sources(&args.inputs)?;
    std::fs::create_dir_all(dir).map_err(|source| cannot_write(dir, source))?;
    let _lock = OutputLock::acquire(dir)?;
    let output = Output::open(dir).map_err(|source| cannot_write(dir, source))?;
    let stop = StopOnly(setup.service.clock.as_ref());
    let explain = |error: Error| setup.service.explain(error);
    let records =
        Records::list_beside(&sources, dir, MAX_SPOOL_BYTES, &stop).map_err(|error| explain(error.into()))?;
    for passed in records.not_regular() {
        let key = crate::json::KeyText(&passed.key).to_json();
        terminal.warn(&printable(&format!("{key} is a {}, and is passed over", passed.kind)));
    }
    let questions = Questions::Records(records);
    let plan = Plan {
        questions: &questions,
        template: &setup.template,
        parameters: &setup.parameters,
        dir,
        retry: if args.retry_invalid { Retry::Invalid } else { Retry::Nothing },
    };
    let scan = plan.scan(setup.service.clock.as_ref()).map_err(explain)?;
    show_scan(&scan, questions.len(), setup, terminal);
    agree(args, setup, &scan, terminal)?;
    let asker = Asker {
        chat: &setup.target.chat,
        parameters: &setup.parameters,
        attempts: args.attempts.get(),
        delivery: Delivery::Whole,
        pace: &Pace::new(args.rpm),
        budget: &setup.budget,
    };
    let began = setup.service.clock.elapsed();
    let progress = Progress::begin(setup, terminal);
    let tell = |tally: &Tally| progress.show(tally);
    let run = Run { plan: &plan, asker: &asker, output: &output, concurrency: args.concurrency, tell: &tell };
    let (tally, end) = run.run(&scan.todo);
    progress.end();
    let took = setup.service.clock.elapsed().saturating_sub(began);
    Ok(Ended { scan, tally, end, took })
}

fn cannot_write(dir: &Path, source: std::io::Error) -> Failure {
    Error::File { verb: "write", path: dir.to_owned(), source }.into()
}

/// Stops a listing at a signal; there is nothing to draw.
struct StopOnly<'c>(&'c dyn Clock);

impl Watch for StopOnly<'_> {
    fn listed(&self, _: u64) {}

    fn converted(&self, _: u64, _: u64, _: u64) {}

    fn publishing(&self, _: &str) {}

    fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}

fn show_scan(scan: &Scan, listed: usize, setup: &Setup, terminal: &Terminal) {
    let todo = scan.todo.len() as u64;
    let finished = scan.there + scan.invalid.len() as u64;
    let most = match (todo, setup.budget.dollars(scan.most_tokens)) {
        (0, _) => String::new(),
        (_, Some(most)) => format!(", at most {} if each is answered once", dollars(most)),
        (_, None) => format!(", at most {} tokens if each is answered once", grouped(scan.most_tokens)),
    };
    let text = format!(
        "{}: {} finished before, {} to ask about{most}",
        grouped(listed as u64),
        grouped(finished),
        grouped(todo)
    );
    terminal.label("stories", &text);
}

/// A yes to what is left to ask about.
fn agree(args: &GenerateArgs, setup: &Setup, scan: &Scan, terminal: &Terminal) -> Result<(), Failure> {
    if scan.todo.is_empty() || !setup.target.is_paid() {
        return Ok(());
    }
    let flags = SpendingArgs { yes: args.yes, max_cost: args.max_cost, new_job: false };
    match Spending::of(&flags) {
        Spending::Agreed { .. } => Ok(()),
        Spending::Impossible => Err(Failure::new(
            Exit::Unspent,
            "no_consent",
            "answers to many stories cost money, and nobody is at a terminal to agree to it",
            "agree with --yes, or with --max-cost USD and --price-per-million USD",
        )),
        Spending::Asked => {
            let count = grouped(scan.todo.len() as u64);
            let price = match setup.budget.dollars(scan.most_tokens) {
                Some(most) => format!("for at most about {}", dollars(most)),
                None => "at a price nobody knows here (--price-per-million tells)".to_owned(),
            };
            let question = format!("Ask {} about {count} stories, {price}?", setup.parameters.model);
            match ask(&question, &setup.service.signals, terminal) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Failure::new(
                    Exit::Unspent,
                    "declined",
                    "nothing was asked: the answer was no",
                    "run it again to be asked again",
                )),
                Err(stopped) => Err(setup.service.explain(stopped)),
            }
        }
    }
}

/// Draws how far a run is.
struct Progress<'p> {
    setup: &'p Setup,
    terminal: &'p Terminal,
    canvas: Option<Canvas>,
    began: Duration,
    shown: Mutex<Duration>,
}

impl<'p> Progress<'p> {
    fn begin(setup: &'p Setup, terminal: &'p Terminal) -> Self {
        let canvas = terminal.may_draw().then(Canvas::on_stderr);
        // Single tries are counted; with many at a time each would be a line.
        match &canvas {
            _ if !terminal.voice().verbose => setup.service.send_notices(Notices::Unsaid),
            Some(canvas) => setup.service.send_notices(Notices::Above(canvas.clone())),
            None => {}
        }
        let began = setup.service.clock.elapsed();
        Progress { setup, terminal, canvas, began, shown: Mutex::new(began) }
    }

    fn show(&self, tally: &Tally) {
        let now = self.setup.service.clock.elapsed();
        let apart = if self.canvas.is_some() { DRAW_EVERY } else { LINE_EVERY };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(*shown) < apart {
            return;
        }
        *shown = now;
        let line = self.line(tally, now.saturating_sub(self.began));
        match &self.canvas {
            Some(canvas) => canvas.draw(vec![line]),
            None => self.terminal.say(&line),
        }
    }

    fn line(&self, tally: &Tally, took: Duration) -> String {
        let mut parts = vec![format!("{} of {} stories", grouped(tally.finished()), grouped(tally.total))];
        if !tally.invalid.is_empty() {
            parts.push(format!("{} invalid", grouped(tally.invalid.len() as u64)));
        }
        parts.extend(cost(self.setup, tally, took));
        parts.join(", ")
    }

    fn end(&self) {
        if let Some(canvas) = &self.canvas {
            canvas.draw(Vec::new());
        }
        self.setup.service.send_notices(Notices::Said);
    }
}

/// Requests, tokens and dollars, for people.
fn cost(setup: &Setup, tally: &Tally, took: Duration) -> Vec<String> {
    let effort = &tally.effort;
    let per_second = effort.requests as f64 / took.as_secs_f64().max(0.001);
    let mut parts = vec![format!("{} ({per_second:.1}/s)", counted(effort.requests, "request"))];
    if effort.repeats > 0 {
        parts.push(format!("{} of them repeated without an answer", grouped(effort.repeats)));
    }
    let spent = setup.budget.spent();
    if spent.known.total() > 0 {
        parts.push(format!("{} tokens", grouped(spent.known.total())));
    }
    parts.extend(setup.budget.dollars(spent.known.total()).map(dollars));
    if let Some(unknown) = setup.budget.dollars(spent.unknown).filter(|unknown| *unknown > 0.0) {
        parts.push(format!("at most {} more for lost answers", dollars(unknown)));
    }
    parts
}

fn conclude(setup: &Setup, dir: &Path, result: Ended, terminal: &mut Terminal) -> Exit {
    let Ended { scan, tally, end, took } = result;
    let fields = document(setup, dir, (&scan, &tally, took));
    let invalid: Vec<&Named> = scan.invalid.iter().chain(&tally.invalid).collect();
    let stories = scan.there + invalid.len() as u64 + tally.total - tally.invalid.len() as u64;
    terminal.label("valid", &format!("{} of {}", grouped(scan.there + tally.valid), grouped(stories)));
    name("invalid", &invalid, terminal);
    name("rejected", &scan.rejected.iter().collect::<Vec<_>>(), terminal);
    if tally.effort.requests > 0 {
        terminal.label("asked", &cost(setup, &tally, took).join(", "));
        // Whoever is gone, or refuses, is not asked for more.
        if matches!(end, End::Done | End::OverBudget) {
            setup.target.say_running(&setup.service, terminal);
        }
    }
    match failure(setup, dir, (&scan, &tally, invalid.len()), end) {
        Some(failure) => terminal.fail(COMMAND, &failure, fields),
        None => terminal.succeed(COMMAND, Some(dir.as_os_str().as_encoded_bytes()), fields),
    }
}

fn failure(
    setup: &Setup,
    dir: &Path,
    (scan, tally, invalid): (&Scan, &Tally, usize),
    end: End,
) -> Option<Failure> {
    let left = tally.total - tally.finished();
    let again = "run the same command again: no finished story is asked about twice";
    match end {
        End::OverBudget => {
            let one = scan.most_tokens / (scan.todo.len() as u64).max(1);
            let mut failure = over_budget(setup, one);
            failure.message = format!("{} stories are left: {}", grouped(left), failure.message);
            Some(failure)
        }
        End::Server(error) => {
            let mut failure = setup.target.explain(&setup.service, error, again);
            failure.message = format!("{} stories are left: {}", grouped(left), failure.message);
            Some(failure)
        }
        End::Local(error) => {
            let mut failure = setup.service.explain(error);
            if failure.exit == setup.service.signals.exit() {
                failure.hint = Some(again.to_owned());
            }
            Some(failure)
        }
        End::Done if invalid > 0 => Some(Failure::new(
            Exit::Data,
            "invalid_answers",
            format!("{} ended without a context", counted_stories(invalid)),
            format!(
                "{}/*.invalid.json say why; --retry-invalid asks again, more --max-tokens helps where answers were cut",
                dir.display()
            ),
        )),
        End::Done if !scan.rejected.is_empty() => Some(Failure::new(
            Exit::Data,
            "rejects",
            format!("{} could not be asked about", counted_stories(scan.rejected.len())),
            "mend the records named above, then run it again",
        )),
        End::Done => None,
    }
}

fn counted_stories(count: usize) -> String {
    if count == 1 { "1 story".to_owned() } else { format!("{} stories", grouped(count as u64)) }
}

fn name(label: &str, named: &[&Named], terminal: &Terminal) {
    if named.is_empty() {
        return;
    }
    terminal.label(label, &grouped(named.len() as u64));
    let shown = if terminal.voice().verbose { named.len() } else { NAMED };
    for Named { key, reason, .. } in named.iter().take(shown) {
        terminal.say(&printable(&format!("  {key}: {reason}")));
    }
    if named.len() > shown {
        terminal.say(&format!("  and {} more (-v names them)", grouped((named.len() - shown) as u64)));
    }
}

fn document(setup: &Setup, dir: &Path, (scan, tally, took): (&Scan, &Tally, Duration)) -> Map<String, Value> {
    let named = |named: &Named| {
        let key: Value = serde_json::from_str(&named.key).unwrap_or_else(|_| named.key.clone().into());
        json!({ "key": key, "code": named.code, "reason": named.reason })
    };
    let spent = setup.budget.spent();
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("model", setup.parameters.model.clone().into());
    put("server", setup.target.chat.base().origin().into());
    put("template", setup.template.name.clone().into());
    put("output_dir", dir.to_string_lossy().into_owned().into());
    put("valid", (scan.there + tally.valid).into());
    put("invalid", (scan.invalid.len() + tally.invalid.len()).into());
    put("rejected", scan.rejected.len().into());
    put("left", (tally.total - tally.finished()).into());
    put("finished_before", (scan.there + scan.invalid.len() as u64).into());
    put("requests", tally.effort.requests.into());
    put("repeated", tally.effort.repeats.into());
    put("usage", usage_value(tally.effort.usage));
    put("dollars", setup.budget.dollars(spent.known.total()).into());
    put("dollars_of_lost_answers", setup.budget.dollars(spent.unknown).into());
    put("seconds", took.as_secs_f64().into());
    put("invalid_stories", scan.invalid.iter().chain(&tally.invalid).map(named).collect());
    put("rejected_records", scan.rejected.iter().map(named).collect());
    fields
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Source(prepare::Error::Interrupted) | Error::Stopped => crate::clock::Stopped.into(),
            Error::Source(error) => error.into(),
            Error::File { verb: "read", .. } => {
                Failure::new(Exit::Failed, "read", &error, "mend the file's permissions, then run it again")
            }
            Error::File { .. } => Failure::new(
                Exit::Failed,
                "write",
                &error,
                "free some space or mend the permissions, then run it again: what is finished stays",
            ),
            Error::Foreign(_) => Failure::new(
                Exit::Failed,
                "foreign_file",
                &error,
                "move that file away, or choose another --output-dir",
            ),
            Error::Twice { .. } => {
                Failure::new(Exit::Data, "equal_keys", &error, "rename one of them, or leave one source out")
            }
            Error::Nothing => Failure::new(
                Exit::Data,
                "nothing_listed",
                &error,
                "stories are in files whose names end in `.json`, in lines of JSON, or in an archive",
            ),
        }
    }
}
