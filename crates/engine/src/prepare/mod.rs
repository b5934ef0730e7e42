//! The engine: a corpus of records becomes train and validation files.
//!
//! One order decides everything (`split`): records are listed and ranked by their keys,
//! converted from the lowest rank upward into train and from the highest downward into
//! validation, in one pass and in bounded memory, and published whole or not at all. The
//! bytes are a function of the accepted records, the seed, the ratio and the template.
//! Nothing here knows a network, a clock, the environment or a terminal.

use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;

use rayon::ThreadPoolBuilder;

use crate::output::manifest::{Counts, Grouping, Leakage, Manifest};

pub(crate) mod arrive;
pub(crate) mod outcome;
mod run;
pub(crate) mod visit;
pub(crate) mod worker;

pub use crate::error::{Error, FailedRejects};
pub use crate::line::convert::Readers;
use crate::line::template::Template;
use crate::output::key_lines::KEYS;
use crate::output::publish::Output;
pub use crate::output::publish::{Durability, Published};
use crate::record::reject::RejectLimit;
use crate::source::list::{self, Corpus};
use crate::source::names::NameLog;
use crate::source::spool::Spool;
use crate::source::{Source, SourceKind};
use crate::split::Ratio;
use crate::split::group::GroupBy;
pub use crate::watch::Watch;
use arrive::Arrival;
use run::{REJECTS, Run};

/// What to prepare, and how. Everything is decided: no value is looked up later.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the records come from.
    pub sources: Vec<Source>,
    /// Bytes that compressed sources and standard input may unpack to, together.
    pub max_spool_bytes: u64,
    /// Where the result goes; made if it is not there.
    pub output_dir: PathBuf,
    /// The part that validates.
    pub val_ratio: Ratio,
    /// The seed of the order.
    pub seed: u64,
    /// How a record becomes messages.
    pub template: Template,
    /// Records a shard; `None` for one file a side.
    pub shard_records: Option<NonZeroU64>,
    /// What must not be torn apart by the split.
    pub group_by: Option<GroupBy>,
    /// How many rejects the run bears.
    pub max_rejects: RejectLimit,
    /// Whether records with `is_correct: false` are left out.
    pub only_correct: bool,
    /// The largest record taken, in bytes, inclusive; at most 1 GiB.
    pub max_record_bytes: usize,
    /// Threads that convert.
    pub threads: NonZeroUsize,
    /// Whether the result is to survive a power loss.
    pub durability: Durability,
    /// Which readers records are shown to: for tests and benchmarks, which compare them.
    pub readers: Readers,
    /// What this run is for.
    pub purpose: Purpose,
}

impl Options {
    /// The sources as people read them: the first three, and how many more.
    pub fn shown_sources(&self) -> String {
        let mut shown: Vec<String> =
            self.sources.iter().take(3).map(|source| format!("`{}`", source.path.display())).collect();
        if self.sources.len() > shown.len() {
            shown.push(format!("{} more", self.sources.len() - shown.len()));
        }
        shown.join(", ")
    }
}

/// What one run is for, as opposed to the settings that decide its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose {
    /// Whether to write anything at all.
    pub mode: Mode,
    /// How many of the first training lines to give back for people to look at.
    pub show: usize,
    /// How many of the first rejects to give back.
    pub name_rejects: usize,
}

/// Whether a run writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Write and publish.
    Publish,
    /// Count, split, measure and collect rejects; write nothing.
    DryRun,
}

/// What a run did.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Counts of records.
    pub counts: Counts,
    /// Training examples.
    pub train_records: u64,
    /// Validation examples.
    pub val_records: u64,
    /// What validation shares with training.
    pub leakage: Leakage,
    /// The groups, where the split was made by groups.
    pub grouping: Option<Grouping>,
    /// Bytes of records read; with groups every record is read twice.
    pub bytes_read: u64,
    /// The rejects in rank order as JSON lines: as many as asked for.
    pub rejects: Vec<String>,
    /// What lies in the sources and was not read: its key, and what it is.
    pub not_read: Arc<NameLog>,
    /// The accepted records with something odd, by the names of [`crate::record::warning::Warning`].
    pub warned: Arc<NameLog>,
    /// The first training lines, as many as asked for.
    pub shown: Vec<Vec<u8>>,
    /// What was published; `None` in a dry run.
    pub result: Option<(Manifest, Published)>,
    /// Whether the output's file system has no locks, so that a mere file kept other runs out.
    pub has_no_locks: bool,
    /// Whether a README that is not ours was left where it is.
    pub kept_readme: bool,
}

/// Prepares a corpus as `options` say, reporting to `watch`.
///
/// # Errors
/// Whatever keeps the result from being complete; the old result is then intact, but for a
/// failure in the middle of publication, after which the output has no manifest.
pub fn prepare(options: &Options, watch: &dyn Watch) -> Result<Prepared, Error> {
    check_directories(options)?;
    let pool = ThreadPoolBuilder::new()
        .num_threads(options.threads.get())
        .thread_name(|index| format!("convert-{index}"))
        .build()
        .map_err(|error| Error::Threads(io::Error::other(error)))?;
    let output = match options.purpose.mode {
        Mode::Publish => Some(Output::open(&options.output_dir, options.durability)?),
        Mode::DryRun => None,
    };
    if let Some(output) = &output {
        output.check_foreign(fixed_names(options))?;
    }
    let staging = output.as_ref().map(Output::staging);
    let mut spool = Spool::new(staging.as_deref(), options.max_spool_bytes);
    let arrival = Arrival::new(options, &pool);
    let corpus = Corpus {
        sources: &options.sources,
        skip: Some(&options.output_dir),
        seed: options.seed,
        arrival: Some(&arrival),
    };
    let listing = pool.install(|| list::list(&corpus, &mut spool, watch))?;
    if listing.is_empty() {
        let not_read = Arc::clone(&listing.not_read);
        let root = match options.sources.as_slice() {
            [source] => Some(source.path.clone()),
            _ => None,
        };
        return Err(Error::NothingListed { sources: options.shown_sources(), root, not_read });
    }
    let run = Run { options, watch, pool: &pool, listing: &listing, output: output.as_ref() };
    run.prepare()
}

fn check_directories(options: &Options) -> Result<(), Error> {
    for source in options.sources.iter().filter(|source| matches!(source.kind, SourceKind::Directory(_))) {
        let no_corpus = |error| Error::NoCorpus { path: source.path.clone(), source: error };
        let corpus = source.path.canonicalize().map_err(no_corpus)?;
        match options.output_dir.canonicalize() {
            Ok(output) if output == corpus => return Err(Error::OutputIsCorpus(options.output_dir.clone())),
            _ => {}
        }
    }
    Ok(())
}

/// The names of the result's files that are known before anything is converted.
fn fixed_names(options: &Options) -> Vec<&'static str> {
    let mut names = vec![KEYS, REJECTS];
    if options.shard_records.is_none() {
        names.extend(["train.jsonl", "val.jsonl"]);
    }
    names
}
