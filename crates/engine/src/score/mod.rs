//! Generated contexts against reference ones: how good a model is, without asking anybody.
//!
//! References and answers are read as `prepare` reads records and matched by their keys. Each answer is
//! judged by its form (`structure`) and by how far it agrees with its reference (`agreement`), with the
//! special tags resolved first (`resolve`); totals are means over all references, with intervals
//! (`bootstrap`). The result is a function of the bytes read, the seed and the number of resamples. Nothing
//! here knows a network, a clock, the environment or a terminal.

use std::io;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::ThreadPoolBuilder;
use rayon::prelude::*;

use crate::output::prepared::PreparedError;
use crate::prepare;
use crate::record::reject::RejectReason;
use crate::source::names::NameLog;
use crate::source::{Containers, Source, Unsupported, is_url, unsupported};

pub mod agreement;
pub mod aligned;
pub mod answer;
pub mod bootstrap;
mod generated;
pub mod gold;
pub mod measure;
pub mod report;
pub mod resolve;
pub mod structure;
pub mod words;

use answer::AnswerReader;
use bootstrap::Draws;
use generated::{Generated, Matched};
use gold::{Gold, GoldReader};
pub use report::Report;
use report::{GoldReport, RecordReport, difference, set_report};
use resolve::Resolved;

/// What to score, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The references: a source as `prepare` reads it, or what it made.
    pub gold: PathBuf,
    /// Of a prepared directory only so many validation lines, from the first on.
    pub limit: Option<usize>,
    /// Whether containers below a directory are read as well.
    pub containers: Containers,
    /// The sets of answers, each a source; the difference is taken of the first two.
    pub generated: Vec<PathBuf>,
    /// The seed of the resamples.
    pub seed: u64,
    /// How many resamples the intervals are made of.
    pub resamples: NonZeroU32,
    /// Threads that score.
    pub threads: NonZeroUsize,
    /// The largest record read, in bytes, inclusive.
    pub max_record_bytes: usize,
    /// Bytes that each compressed source may unpack to.
    pub max_spool_bytes: u64,
}

/// Where a scoring reports how far it is, and learns whether it is to stop.
pub trait Watch: Sync {
    /// There are so many references.
    fn expects(&self, records: u64);
    /// One more reference is done.
    fn scored(&self);
    /// Whether somebody asked the scoring to stop.
    fn is_stopped(&self) -> bool;
}

/// A listing's view of whoever watches.
pub struct Watched<'w>(pub &'w dyn Watch);

impl prepare::Watch for Watched<'_> {
    fn listed(&self, _records: u64) {}
    fn converted(&self, _records: u64, _bytes: u64, _rejects: u64) {}
    fn publishing(&self, _step: &str) {}

    fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}

/// Why there are no scores.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name them")]
pub enum Error {
    #[error("`{0}` does not exist")]
    Absent(PathBuf),
    /// A URL, or a file of a known format that is not read.
    #[error("`{path}` {}", unsupported.what())]
    Unsupported { path: PathBuf, unsupported: Unsupported },
    #[error("unsupported source `{0}`: not a directory, and its name has no known ending")]
    UnknownSource(PathBuf),
    /// A source cannot be listed, or a reference not be read.
    #[error(transparent)]
    Records(#[from] prepare::Error),
    /// The validation side of a prepared directory cannot be had.
    #[error(transparent)]
    Prepared(PreparedError),
    #[error("no record of `{path}` can be a reference: {why}")]
    NoReference {
        path: PathBuf,
        /// Why the first record cannot, if there is one at all.
        why: String,
    },
    #[error("nothing in `{generated}` answers any of {references} records of `{gold}`")]
    NothingMatches { gold: PathBuf, references: u64, generated: PathBuf },
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    #[error("interrupted")]
    Interrupted,
}

impl From<PreparedError> for Error {
    fn from(error: PreparedError) -> Error {
        match error {
            PreparedError::Records(error) => Error::Records(error),
            error => Error::Prepared(error),
        }
    }
}

/// The source at `path`.
fn source(path: &Path, containers: Containers) -> Result<Source, Error> {
    let found = Source::of(path, containers);
    let is_there = path == Path::new("-") || path.exists();
    let is_known = if is_there { found.is_none() } else { is_url(path) };
    if let Some(unsupported) = unsupported(path).filter(|_| is_known) {
        return Err(Error::Unsupported { path: path.to_owned(), unsupported });
    }
    if !is_there {
        return Err(Error::Absent(path.to_owned()));
    }
    found.ok_or_else(|| Error::UnknownSource(path.to_owned()))
}

/// Scores as `options` say, reporting to `watch`.
///
/// # Errors
/// Whatever keeps the references from being scored. A bad answer is no error, but counts 0.
pub fn score(options: &Options, watch: &dyn Watch) -> Result<Report, Error> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(options.threads.get())
        .thread_name(|index| format!("score-{index}"))
        .build()
        .map_err(|error| Error::Threads(io::Error::other(error)))?;
    pool.install(|| run(options, watch))
}

fn run(options: &Options, watch: &dyn Watch) -> Result<Report, Error> {
    let watched = Watched(watch);
    let gold = Gold::list(&options.gold, options, &watched)?;
    let mut sets = Vec::with_capacity(options.generated.len());
    let mut not_read = vec![(options.gold.clone(), Arc::clone(gold.not_read()))];
    for path in &options.generated {
        let generated = Generated::list(path, options, &watched)?;
        not_read.push((path.clone(), Arc::clone(generated.records().not_read())));
        let matched = generated.matched(gold.keys().iter().map(|(key, _)| key.as_slice()), &gold.names);
        // Answers to lines beyond the limit have references, which are not asked for.
        let extra = if options.limit.is_some() { Vec::new() } else { matched.extra };
        sets.push((generated, Matched { extra, ..matched }));
    }
    not_read.retain(|(_, log)| log.total() > 0);
    watch.expects(gold.keys().len() as u64);
    let (records, rejected) = judge_all(&gold, &sets, options, watch)?;
    if records.is_empty() {
        let why = match rejected.first() {
            Some((key, reason)) => {
                format!("{}: {}: {}", String::from_utf8_lossy(key), reason.code, reason.reason)
            }
            None => nothing_but(gold.not_read()),
        };
        return Err(Error::NoReference { path: options.gold.clone(), why });
    }
    let draws = Draws { seed: options.seed, resamples: options.resamples.get() };
    let is_stopped = || watch.is_stopped();
    let mut reports = Vec::with_capacity(sets.len());
    for (index, (_, matched)) in sets.into_iter().enumerate() {
        let set =
            set_report(&records, (index, matched.extra), draws, &is_stopped).ok_or(Error::Interrupted)?;
        if set.count(answer::Status::Missing) == records.len() as u64 {
            return Err(Error::NothingMatches {
                gold: options.gold.clone(),
                references: records.len() as u64,
                generated: options.generated[index].clone(),
            });
        }
        reports.push(set);
    }
    let difference = difference(&records, draws, &is_stopped).ok_or(Error::Interrupted)?;
    let unresolved = records.iter().map(|record| record.unresolved).sum();
    let gold = GoldReport { form: gold.form, rejected, unresolved };
    Ok(Report { gold, sets: reports, difference, records, not_read })
}

/// Says that there is no record, and names the first of what is there and not read.
fn nothing_but(not_read: &NameLog) -> String {
    let mut named = Vec::new();
    not_read
        .first(|kind, key| {
            named.push(format!("`{}` ({kind})", String::from_utf8_lossy(key)));
            Ok(())
        })
        .expect("pushing cannot fail");
    match named.as_slice() {
        [] => "there is none".to_owned(),
        named => format!("there is none; not read: {}", named.join(", ")),
    }
}

/// Records that were judged, and those that are no reference.
type Judged = (Vec<RecordReport>, Vec<(Vec<u8>, RejectReason)>);

fn judge_all(
    gold: &Gold,
    sets: &[(Generated, Matched)],
    options: &Options,
    watch: &dyn Watch,
) -> Result<Judged, Error> {
    let worker = || Worker {
        gold: gold.reader(options.max_record_bytes),
        answers: sets.iter().map(|(set, _)| AnswerReader::new(set, options.max_record_bytes)).collect(),
    };
    let judged: Result<Vec<Result<RecordReport, RejectReason>>, Error> = gold
        .keys()
        .par_iter()
        .enumerate()
        .map_init(worker, |worker, (index, (key, position))| {
            if watch.is_stopped() {
                return Err(Error::Interrupted);
            }
            let found = sets.iter().map(|(_, matched)| matched.answers[index]);
            let judged = worker.judge(key, *position, &found.collect::<Vec<_>>());
            watch.scored();
            judged
        })
        .collect();
    let (mut records, mut rejected) = (Vec::new(), Vec::new());
    for ((key, _), judged) in gold.keys().iter().zip(judged?) {
        match judged {
            Ok(record) => records.push(record),
            Err(reason) => rejected.push((key.clone(), reason)),
        }
    }
    Ok((records, rejected))
}

/// One thread's tools.
struct Worker<'g> {
    gold: GoldReader<'g>,
    answers: Vec<AnswerReader<'g>>,
}

impl Worker<'_> {
    /// Judges the answers `found` to the reference at `position`.
    fn judge(
        &mut self,
        key: &[u8],
        position: usize,
        found: &[Option<generated::Found>],
    ) -> Result<Result<RecordReport, RejectReason>, Error> {
        let answers = &mut self.answers;
        self.gold.with_context(position, |context| {
            let gold = Resolved::of(context);
            let answers = answers.iter_mut().zip(found).map(|(reader, found)| reader.answer(*found, &gold));
            RecordReport { key: key.to_vec(), answers: answers.collect(), unresolved: gold.unresolved }
        })
    }
}
