//! `ctxtune prepare`: progress while it runs, a summary that reads in ten lines.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::{CorpusArgs, PartsArgs, PrepareArgs};
use crate::screen::names::{Shown, counts_value, write_names};
use crate::screen::prepared::{Bar, say_failed, show_examples, summarize};
use crate::screen::report::{LongList, Terminal, fields};
use crate::session::clock::SystemClock;
use crate::session::environment::{config_file, time_scale};
use crate::session::stores::{stores, work};
use ctxtune_engine::address::{address, place_of};
use ctxtune_engine::output::manifest::{Counts, Grouping, Leakage, Mixed, Side};
use ctxtune_engine::parts::{self, Means, Plan, PlanOrder, Work};
use ctxtune_engine::prepare::{Error, Mode, Options, Prepared, Published, Purpose, Readers, Watch, prepare};
use ctxtune_engine::source::names::NameLog;
use ctxtune_engine::storage::Stores;
use ctxtune_pipeline::config::{Bytes, ConfigError, PrepareChoices};
use ctxtune_pipeline::job::data::{NAMED, threads};
use ctxtune_pipeline::job::mismatch::Mismatch;
use ctxtune_pipeline::text::without_surrogates;
use ctxtune_pipeline::{Exit, Failure, shell};
use ctxtune_service::Clock;

/// How often work in parts is tried again, where it may succeed then.
const RETRIES: u32 = 4;

pub fn run(args: &PrepareArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let stores = stores(terminal, args.parts.scratch.scratch_dir.as_deref());
    let resolved = resolve(args, terminal.flags().verbose);
    let is_stored = resolved.as_ref().is_ok_and(Options::is_stored);
    if is_stored && (args.dry_run || args.show > 0) {
        return survey(&expanded(resolved?, &stores, terminal)?, args, &*stores, terminal);
    }
    if is_stored || args.work_dir.is_some() || args.parts.are_chosen() {
        return run_in_parts(args, resolved, stores, terminal);
    }
    let options = resolved?;
    let start = Instant::now();
    let bar = Bar::new(terminal);
    let prepared = prepare(&options, &bar);
    let duration = start.elapsed();
    drop(bar);
    Ok(match prepared {
        Ok(prepared) => succeed(&options, &prepared, duration, terminal),
        Err(error) => say_failed_prepare(error, Failure::from, terminal),
    })
}

fn run_in_parts(
    args: &PrepareArgs,
    resolved: Result<Options, ConfigError>,
    stores: Arc<dyn Stores>,
    terminal: &Terminal,
) -> Result<Exit, Failure> {
    let start = Instant::now();
    let asked = asked(&args.corpus, &args.parts);
    let (ordered, work) =
        order_in(&args.corpus, args.work_dir.as_deref(), &asked, resolved, &stores, terminal)?;
    let means = Means {
        threads: match &ordered {
            Ordered::Options(options) => options.threads,
            Ordered::Plan(..) => args.corpus.choices.threads.unwrap_or_else(threads),
        },
        scratch: args.parts.scratch.scratch_dir.clone(),
        name_rejects: named(args, terminal.flags().verbose),
        readers: Readers::default(),
        stores: Arc::clone(&stores),
    };
    let mut retry = Retry::new(terminal);
    let mut again = |error: Error| retry.wait(error);
    let bar = Bar::new(terminal);
    let (options, prepared) = match ordered {
        Ordered::Options(options) => {
            let order = order(&options, &args.parts, &*stores, &asked);
            let prepared = parts::prepare_in_parts(&order, &work, &means, &bar, &mut again);
            (*options, prepared)
        }
        Ordered::Plan(plan, error) => {
            let options = plan.options(&work, &means).map_err(Failure::of_parts)?;
            match parts::resume(&plan, &work, &means, &bar, &mut again) {
                Ok(None) => return Err(error.into()),
                Ok(Some(prepared)) => (options, Ok(prepared)),
                Err(error) => (options, Err(error)),
            }
        }
    };
    drop(bar);
    Ok(match prepared {
        Ok(prepared) => succeed(&options, &prepared, start.elapsed(), terminal),
        Err(error) => say_failed_prepare(error, Failure::of_parts, terminal),
    })
}

/// What is to be prepared.
pub enum Ordered {
    /// What was chosen.
    Options(Box<Options>),
    /// What was planned in the same words: why that cannot be read any more does not matter then.
    Plan(Box<Plan>, ConfigError),
}

/// What `resolved` says, or what was planned before in the same words, `asked`; and where.
pub fn order_in(
    corpus: &CorpusArgs,
    work_dir: Option<&Path>,
    asked: &str,
    resolved: Result<Options, ConfigError>,
    stores: &Arc<dyn Stores>,
    terminal: &Terminal,
) -> Result<(Ordered, Work), Failure> {
    let dir = match (work_dir, &resolved) {
        (Some(dir), _) => dir.to_owned(),
        (None, Ok(options)) => default_work(&options.output_dir)?,
        (None, Err(_)) => default_work(&corpus.choices.out())?,
    };
    let work = work(&dir, &**stores).map_err(|error| terminal.signals.explain(Failure::of_parts(error)))?;
    let ordered = match resolved {
        Ok(options) => Ordered::Options(Box::new(expanded(options, stores, terminal)?)),
        Err(error) => match parts::asked_plan(&work, asked) {
            Ok(Some(plan)) => Ordered::Plan(Box::new(plan), error),
            _ => return Err(error.into()),
        },
    };
    Ok((ordered, work))
}

/// `options` with the objects that patterns in their sources stand for.
fn expanded(mut options: Options, stores: &Arc<dyn Stores>, terminal: &Terminal) -> Result<Options, Failure> {
    let sources = parts::expand(&options.sources, &**stores);
    options.sources = sources.map_err(|error| terminal.signals.explain(Failure::of_parts(error)))?;
    Ok(options)
}

/// The words in which a plan is ordered: they mean the same plan though files that they name are gone.
pub fn asked(corpus: &CorpusArgs, args: &PartsArgs) -> String {
    let choices = PrepareChoices { threads: None, ..corpus.choices.clone() };
    let here = std::env::current_dir();
    format!("{here:?} {choices:?} {:?} {:?} {}", corpus.config_path, args.part_bytes, args.pin)
}

/// Waits before something is tried again.
pub struct Retry<'r> {
    terminal: &'r Terminal,
    tries: u32,
}

impl Retry<'_> {
    pub fn new(terminal: &Terminal) -> Retry<'_> {
        Retry { terminal, tries: 0 }
    }

    /// Waits after `error`, where another try may succeed.
    ///
    /// # Errors
    /// `error` where it may not, or was tried often enough; [`Error::Interrupted`].
    pub fn wait(&mut self, error: Error) -> Result<(), Error> {
        if !Failure::may_pass(&error) || self.tries == RETRIES {
            return Err(error);
        }
        let wait = Duration::from_secs(1 << self.tries);
        self.tries += 1;
        self.terminal.warn(&format!("{error}; trying again in {} s", wait.as_secs()));
        let clock = SystemClock::new(self.terminal.signals.clone(), time_scale());
        clock.wait(wait).map_err(|_| Error::Interrupted)
    }
}

pub fn succeed(options: &Options, prepared: &Prepared, duration: Duration, terminal: &Terminal) -> Exit {
    show_examples(prepared, terminal);
    summarize(options, prepared, duration, terminal);
    let mismatch = Mismatch::of_prepared(options, prepared);
    mismatch.iter().for_each(|mismatch| mismatch.warn(terminal));
    let report = fields(&Report::of(options, prepared, duration, mismatch));
    terminal.label("next", &next_command(options, prepared));
    let out = options.output_dir.as_os_str().as_encoded_bytes();
    let line = (options.purpose.mode == Mode::Publish).then_some(out);
    let shown = Shown::by(terminal);
    let (not_read, warned) = (write_list(&prepared.not_read, shown), write_list(&prepared.warned, shown));
    let lists = [
        LongList { name: "not_read", write: &not_read },
        LongList { name: "warned_records", write: &warned },
    ];
    terminal.succeed_with(line, report, &lists)
}

/// Shows why nothing was prepared, which `failure` makes of the error.
pub fn say_failed_prepare(error: Error, failure: fn(Error) -> Failure, terminal: &Terminal) -> Exit {
    let not_read = match &error {
        Error::NothingListed { not_read, .. } => Some(Arc::clone(not_read)),
        _ => None,
    };
    say_failed(&error, terminal);
    let report = fields(&FailedReport::of(&error));
    let failure = terminal.signals.explain(failure(error));
    let write = not_read.as_deref().map(|log| write_list(log, Shown::by(terminal)));
    let list = write.as_ref().map(|write| LongList { name: "not_read", write });
    terminal.fail_with(&failure, report, list.as_slice())
}

/// What flags and the configuration file say about preparing.
pub fn chosen(corpus: &CorpusArgs) -> Result<PrepareChoices, ConfigError> {
    let choices = corpus.choices.clone();
    match config_file(corpus.config_path.as_deref())? {
        Some(file) => Ok(choices.over(file.prepare_choices()?)),
        None => Ok(choices),
    }
}

/// The working directory of a result in `output` where none is named: beside it.
pub fn default_work(output: &Path) -> Result<PathBuf, Failure> {
    let Some(address) = address(output) else {
        let mut name = OsString::from(output.components().as_path());
        name.push(".ctxtune-work");
        return Ok(name.into());
    };
    let address = address.trim_end_matches('/');
    match place_of(address) {
        (_, "") => {
            let message = format!("`{address}` is a whole bucket, with no place beside it for the work");
            Err(Failure::usage("work_dir", message, "name a prefix in it, or a --work-dir"))
        }
        _ => Ok(format!("{address}.ctxtune-work").into()),
    }
}

/// What to plan.
pub fn order<'o>(
    options: &'o Options,
    args: &'o PartsArgs,
    stores: &'o dyn Stores,
    asked: &'o str,
) -> PlanOrder<'o> {
    PlanOrder {
        options,
        part_bytes: args.part_bytes.map(|Bytes(bytes)| bytes),
        pin: args.pin,
        scratch: args.scratch.scratch_dir.as_deref(),
        stores,
        asked,
    }
}

/// Says what would be read of buckets: to read it is what a dry run of them is there to avoid.
fn survey(
    options: &Options,
    args: &PrepareArgs,
    stores: &dyn Stores,
    terminal: &Terminal,
) -> Result<Exit, Failure> {
    if args.show > 0 {
        let message = "--show needs converted records, and of a bucket a dry run only lists";
        return Err(Failure::usage("usage", message, "copy some records to this machine, and try those"));
    }
    let bar = Bar::new(terminal);
    let totals = match order(options, &args.parts, stores, "").survey(&bar) {
        Ok(totals) => totals,
        Err(error) => return Ok(say_failed_prepare(error, Failure::of_parts, terminal)),
    };
    bar.stored(totals.objects, totals.bytes, totals.requests);
    Ok(terminal.succeed(None, fields(&totals)))
}

fn resolve(args: &PrepareArgs, is_verbose: bool) -> Result<Options, ConfigError> {
    let purpose = Purpose {
        mode: if args.dry_run { Mode::DryRun } else { Mode::Publish },
        show: args.show,
        name_rejects: named(args, is_verbose),
    };
    chosen(&args.corpus)?.resolve(purpose, threads())
}

/// How many rejects are named.
fn named(args: &PrepareArgs, is_verbose: bool) -> usize {
    if args.dry_run || is_verbose { usize::MAX - 1 } else { NAMED }
}

fn write_list(log: &NameLog, shown: Shown) -> impl Fn(&mut dyn Write) -> io::Result<()> {
    move |out| write_names(log, shown, out)
}

fn next_command(options: &Options, prepared: &Prepared) -> String {
    match &prepared.result {
        None => "the same without --dry-run".to_owned(),
        Some(_) => format!("ctxtune check {}", shell::path(&options.output_dir)),
    }
}

/// What a script is told of a corpus that was prepared. `not_read` and `warned_records` follow, since they may be long.
#[derive(Serialize)]
struct Report<'p> {
    /// OUT.
    output_dir: String,
    /// Whether nothing was written.
    dry_run: bool,
    /// `new` or `unchanged`; `null` in a dry run.
    published: Option<&'static str>,
    /// Numbers of records.
    counts: &'p Counts,
    /// How many records are on each side.
    split: Split,
    /// What validation shares with training.
    leakage: Leakage,
    /// The groups of `--group-by`; `null` without it.
    grouping: Option<Grouping>,
    /// What `--mix` added, by file; only with it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    mix: &'p [Mixed],
    /// The first five rejects, in a dry run all: `key`, `code`, `reason`, `at`.
    rejects: Vec<Value>,
    /// How many files were not read, by kind.
    not_read_by_kind: Map<String, Value>,
    /// The training data; `null` in a dry run.
    train: Option<&'p Side>,
    /// The validation data; `null` in a dry run, or where there is none.
    val: Option<&'p Side>,
    /// Bytes of records that were read; with `--group-by` each is read twice.
    bytes_read: u64,
    /// How long it took, in seconds.
    seconds: f64,
    /// Only where OUT was prepared again after a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_mismatch: Option<Mismatch>,
}

#[derive(Serialize)]
struct Split {
    /// Training records.
    train: u64,
    /// Validation records.
    val: u64,
}

impl Report<'_> {
    fn of<'p>(
        options: &Options,
        prepared: &'p Prepared,
        duration: Duration,
        data_mismatch: Option<Mismatch>,
    ) -> Report<'p> {
        let manifest = prepared.result.as_ref().map(|(manifest, _)| manifest);
        Report {
            output_dir: options.output_dir.to_string_lossy().into_owned(),
            dry_run: options.purpose.mode == Mode::DryRun,
            published: prepared.result.as_ref().map(|(_, published)| match published {
                Published::New => "new",
                Published::Unchanged => "unchanged",
            }),
            counts: &prepared.counts,
            split: Split { train: prepared.train_records, val: prepared.val_records },
            leakage: prepared.leakage,
            grouping: prepared.grouping,
            mix: &prepared.mix,
            rejects: rejects_value(&prepared.rejects),
            not_read_by_kind: counts_value(&prepared.not_read),
            train: manifest.map(|manifest| &manifest.train),
            val: manifest.and_then(|manifest| manifest.val.as_ref()),
            bytes_read: prepared.bytes_read,
            seconds: duration.as_secs_f64(),
            data_mismatch,
        }
    }
}

fn rejects_value(rejects: &[String]) -> Vec<Value> {
    rejects
        .iter()
        .map(|reject| serde_json::from_str::<Value>(&without_surrogates(reject)).unwrap_or(Value::Null))
        .collect()
}

#[derive(Default, Serialize)]
struct FailedReport {
    /// How many files were not read, by kind; only where there is no record.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_read_by_kind: Option<Map<String, Value>>,
    #[serde(flatten)]
    rejected: Option<RejectedReport>,
}

#[derive(Serialize)]
struct RejectedReport {
    /// How many records were rejected, by code.
    rejected_by_code: Map<String, Value>,
    /// The first five rejects, in a dry run all: `key`, `code`, `reason`, `at`.
    rejects: Vec<Value>,
    /// The file with all of them; `null` in a dry run.
    rejects_file: Option<String>,
}

impl FailedReport {
    fn of(error: &Error) -> FailedReport {
        let mut report = FailedReport::default();
        match error {
            Error::NothingListed { not_read, .. } => report.not_read_by_kind = Some(counts_value(not_read)),
            Error::TooManyRejects { failed, .. } | Error::NothingAccepted { failed, .. } => {
                let by_code = failed.counts.by_code();
                report.rejected = Some(RejectedReport {
                    rejected_by_code: by_code.map(|(code, count)| (code.to_owned(), json!(count))).collect(),
                    rejects: rejects_value(&failed.rejects),
                    rejects_file: failed.report.as_ref().map(|path| path.to_string_lossy().into_owned()),
                });
            }
            _ => {}
        }
        report
    }
}
