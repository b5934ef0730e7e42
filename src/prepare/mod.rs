//! The engine: a corpus of records becomes train and validation files.
//!
//! One order decides everything (`split`): records are listed and ranked by their keys,
//! converted from the lowest rank upward into train and from the highest downward into
//! validation, in one pass and in bounded memory, and published whole or not at all. The
//! bytes are a function of the accepted records, the seed, the ratio and the template.
//! Nothing here knows a network, a clock, the environment or a terminal.

use std::collections::BTreeMap;
use std::io;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::json::KeyText;
use crate::manifest::{
    Counts, Grouping, Leakage, Manifest, ManifestError, OptionsUsed, SCHEMA, TemplateUsed,
};

mod card;
pub mod convert;
pub mod diagnose;
pub mod example;
pub mod group;
mod leakage;
mod list;
pub mod lock;
mod publish;
pub mod read;
pub mod record;
pub mod reject;
mod shard;
pub mod split;
pub mod story;
mod tally;
pub mod template;
mod window;
mod worker;

use convert::LineWriter;
use group::{GroupBy, GroupedSplit, split_groups};
use list::Listing;
pub use list::NotRegular;
use lock::LockError;
use publish::Output;
pub use publish::{Durability, Published};
use reject::{RejectCounts, RejectLimit, RejectLog};
use shard::{SideWriter, move_tail};
use split::Ratio;
use tally::{Order, Tally};
use template::Template;
use window::{Stopped, run_in_order};
use worker::{RecordBatch, Verdict, Worker};

/// Records a chunk: their lines fill a write of some hundred KiB.
const CHUNK_RECORDS: usize = 64;

/// How many rejects a summary names.
pub const REJECTS_SHOWN: usize = 5;

/// What to prepare, and how. Everything is decided: no value is looked up later.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory whose `*.json` are the records.
    pub corpus: PathBuf,
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
    /// Whether to write anything at all.
    pub mode: Mode,
    /// How many of the first training lines to give back for people to look at.
    pub show: usize,
}

/// What a run is for.
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
    /// The rejects in rank order as JSON lines: the first [`REJECTS_SHOWN`], or all in a dry run.
    pub rejects: Vec<String>,
    /// What was named like a record and was no regular file.
    pub not_regular: Vec<NotRegular>,
    /// The first training lines, as many as asked for.
    pub shown: Vec<Vec<u8>>,
    /// What was published; `None` in a dry run.
    pub result: Option<(Manifest, Published)>,
    /// Whether the output's file system has no locks, so that a mere file kept other runs out.
    pub has_no_locks: bool,
    /// Whether a README that is not ours was left where it is.
    pub kept_readme: bool,
}

/// Where a run reports how far it is, and learns whether it is to stop.
pub trait Watch: Sync {
    /// `records` have been found so far.
    fn listed(&self, records: u64);
    /// A batch is done: so many more records, bytes read and rejects.
    fn converted(&self, records: u64, bytes: u64, rejects: u64);
    /// Publication begins its next step; from the first one on it cannot be stopped.
    fn publishing(&self, step: &str);
    /// Whether somebody asked the run to stop.
    fn is_stopped(&self) -> bool;

    /// [`Error::Interrupted`] when the run is to stop.
    ///
    /// # Errors
    /// That one.
    fn check_stop(&self) -> Result<(), Error> {
        if self.is_stopped() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// Why a run failed. Nothing is published then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input is the output.
    #[error("the output directory `{0}` is the corpus itself")]
    OutputIsCorpus(PathBuf),
    /// There is no such directory.
    #[error("the corpus `{path}` is no readable directory: {source}")]
    NoCorpus {
        /// What was named.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory below the corpus cannot be listed.
    #[error("cannot list `{path}`: {source}")]
    List {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be read; that says nothing about what is in it.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Rejects cannot be kept.
    #[error("cannot keep the rejects in a temporary file: {0}")]
    RejectLog(io::Error),
    /// The output directory is not ours now.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What stands in the manifest's place is not one.
    #[error(transparent)]
    Manifest(ManifestError),
    /// A file of the result would overwrite a file that no manifest calls ours.
    #[error("`{path}` is in the way: this tool did not make it, and does not overwrite it")]
    Foreign {
        /// The foreign file.
        path: PathBuf,
    },
    /// No thread could be started.
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    /// There is nothing to prepare.
    #[error("no `*.json` file below `{0}`")]
    NothingListed(PathBuf),
    /// Too many records are unusable.
    #[error("{} of {listed} records are rejected, and the limit is {limit}", failed.counts.total())]
    TooManyRejects {
        /// Records found.
        listed: u64,
        /// The limit.
        limit: RejectLimit,
        /// The rejects.
        failed: FailedRejects,
    },
    /// Nothing is left to train on.
    #[error("none of {listed} records is left to train on: {} rejected, {skipped} skipped", failed.counts.total())]
    NothingAccepted {
        /// Records found.
        listed: u64,
        /// Records skipped.
        skipped: u64,
        /// The rejects.
        failed: FailedRejects,
    },
    /// The split leaves a side without records.
    #[error("the {side} side is empty: {accepted} records, ratio {ratio}{groups}")]
    EmptySide {
        /// `train` or `validation`.
        side: &'static str,
        /// Usable records.
        accepted: u64,
        /// The part that validates.
        ratio: Ratio,
        /// How many groups there are, as text, where there are any.
        groups: String,
    },
    /// A file changed between the two passes of a grouped run.
    #[error("`{path}` changed while it was being prepared")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Somebody asked the run to stop.
    #[error("interrupted")]
    Interrupted,
}

/// The rejects of a run that published nothing.
#[derive(Debug, Clone)]
pub struct FailedRejects {
    /// Their number by code.
    pub counts: RejectCounts,
    /// The first ones (all in a dry run) as JSON lines.
    pub rejects: Vec<String>,
    /// The file that has them all; `None` in a dry run.
    pub report: Option<PathBuf>,
}

impl Stopped for Error {
    fn stopped() -> Self {
        Error::Interrupted
    }
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
    let output = match options.mode {
        Mode::Publish => Some(Output::open(&options.output_dir, options.durability)?),
        Mode::DryRun => None,
    };
    if let Some(output) = &output {
        output.check_foreign(fixed_names(options))?;
    }
    let skip = below_corpus(options);
    let listing = pool.install(|| list::list(&options.corpus, skip.as_deref(), options.seed, watch))?;
    if listing.is_empty() {
        return Err(Error::NothingListed(options.corpus.clone()));
    }
    let run = Run { options, watch, pool: &pool, listing: &listing, output: output.as_ref() };
    run.prepare()
}

fn check_directories(options: &Options) -> Result<(), Error> {
    let no_corpus = |source| Error::NoCorpus { path: options.corpus.clone(), source };
    let corpus = options.corpus.canonicalize().map_err(no_corpus)?;
    if !corpus.is_dir() {
        return Err(no_corpus(io::ErrorKind::NotADirectory.into()));
    }
    match options.output_dir.canonicalize() {
        Ok(output) if output == corpus => Err(Error::OutputIsCorpus(options.output_dir.clone())),
        _ => Ok(()),
    }
}

/// The output directory as a path below the corpus, if it lies inside.
fn below_corpus(options: &Options) -> Option<PathBuf> {
    let (corpus, output) = (options.corpus.canonicalize().ok()?, options.output_dir.canonicalize().ok()?);
    Some(options.corpus.join(output.strip_prefix(corpus).ok()?))
}

/// The names of the result's files that are known before anything is converted.
fn fixed_names(options: &Options) -> Vec<&'static str> {
    let mut names = vec![KEYS, REJECTS];
    if options.shard_records.is_none() {
        names.extend(["train.jsonl", "val.jsonl"]);
    }
    names
}

const KEYS: &str = "keys.tsv";
const REJECTS: &str = "rejects.jsonl";

/// What all steps of one run share.
struct Run<'r> {
    options: &'r Options,
    watch: &'r dyn Watch,
    pool: &'r ThreadPool,
    listing: &'r Listing,
    output: Option<&'r Output>,
}

/// What the passes over the records leave behind.
struct Converted {
    tally: Tally,
    rejects: RejectLog,
    bytes_read: u64,
    shown: Vec<Vec<u8>>,
    sides: Sides,
    grouped: Option<GroupedSplit>,
}

/// Both sides while they are staged.
struct Sides {
    train: SideWriter,
    val: SideWriter,
}

impl Sides {
    fn append(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let side = if batch.trains { &mut self.train } else { &mut self.val };
        side.append(&batch.lines, &batch.lengths).map_err(write_error)
    }
}

fn write_error((path, source): shard::FileError) -> Error {
    Error::Write { path, source }
}

/// The order in which a pass visits the records.
enum Visit<'v> {
    /// By rank, all of them.
    All,
    /// The first so many by rank upward, then the others from the last one downward.
    BothEnds(usize),
    /// These positions; the first so many train.
    Chosen(&'v [u32], usize),
}

impl Run<'_> {
    fn prepare(&self) -> Result<Prepared, Error> {
        let mut converted = match self.options.group_by {
            None => self.convert_by_rank()?,
            Some(_) => self.convert_by_group()?,
        };
        self.judge(&mut converted)?;
        let order = match &converted.grouped {
            Some(split) => Order::Grouped(&split.order, split.train),
            None => Order::ByRank(converted.sides.train.records()),
        };
        let leakage = converted.tally.leakage(&order);
        let grouping = converted.grouped.as_ref().map(|split| Grouping {
            groups: split.groups,
            train_groups: split.train_groups,
            deviation: split.deviation,
        });
        let shown_rejects = self.shown_rejects(&mut converted.rejects)?;
        let mut prepared = Prepared {
            counts: self.counts(&converted),
            train_records: converted.sides.train.records(),
            val_records: converted.sides.val.records(),
            leakage,
            grouping,
            bytes_read: converted.bytes_read,
            rejects: shown_rejects,
            not_regular: self.listing.not_regular.clone(),
            shown: converted.shown,
            result: None,
            has_no_locks: self.output.is_some_and(Output::has_no_locks),
            kept_readme: false,
        };
        if let Some(output) = self.output {
            let sides = converted.sides;
            let mut manifest = self.manifest(&prepared, sides)?;
            self.stage_rejects(output, &mut converted.rejects, &mut manifest)?;
            self.stage_keys(output, &order, &converted.tally, &mut manifest)?;
            self.watch.check_stop()?;
            prepared.kept_readme = !output.may_write_card()?;
            let published = output.publish(&mut manifest, self.watch)?;
            prepared.result = Some((manifest, published));
        }
        Ok(prepared)
    }

    /// One pass: both sides grow toward each other, then the tails are put right.
    fn convert_by_rank(&self) -> Result<Converted, Error> {
        let listed = self.listing.len();
        let mut converted = self.start()?;
        let expected = self.options.val_ratio.train_count(listed as u64) as usize;
        let Converted { tally, rejects, bytes_read, shown, sides, .. } = &mut converted;
        self.pass(&Visit::BothEnds(expected), |batch| {
            *bytes_read += batch.bytes_read;
            self.count(batch, tally, rejects)?;
            self.show(batch, shown);
            sides.append(batch)
        })?;
        let exact = self.options.val_ratio.train_count(tally.accepted);
        let Sides { train, val } = sides;
        let moved = match train.records().checked_sub(exact) {
            Some(surplus) => move_tail(train, val, surplus),
            None => move_tail(val, train, exact - train.records()),
        };
        moved.map_err(write_error)?;
        shown.truncate(usize::try_from(exact).unwrap_or(usize::MAX));
        Ok(converted)
    }

    /// Two passes: the first finds out which records are accepted and to which groups they
    /// belong, the second writes. A file that changed in between ends the run.
    fn convert_by_group(&self) -> Result<Converted, Error> {
        let mut converted = self.start()?;
        let Converted { tally, rejects, bytes_read, shown, sides, grouped } = &mut converted;
        self.pass(&Visit::All, |batch| {
            *bytes_read += batch.bytes_read;
            self.count(batch, tally, rejects)
        })?;
        // Judged before the second pass as well, which a failed run need not make.
        if self.is_over_limit(rejects) || tally.accepted == 0 {
            return Ok(converted);
        }
        let accepted = tally.accepted_positions().collect();
        let split = split_groups(accepted, |position| tally.group(position), self.options.val_ratio);
        self.pass(&Visit::Chosen(&split.order, split.train), |batch| {
            *bytes_read += batch.bytes_read;
            for (position, verdict) in &batch.verdicts {
                match verdict {
                    Verdict::Accepted(marks) if tally.is_same(*position, marks.content) => {}
                    _ => return Err(Error::Changed { path: self.path(*position) }),
                }
            }
            self.show(batch, shown);
            sides.append(batch)
        })?;
        *grouped = Some(split);
        Ok(converted)
    }

    fn start(&self) -> Result<Converted, Error> {
        let staging = self.output.map(Output::staging);
        let side =
            |name| SideWriter::new(name, staging.as_deref(), self.options.shard_records.map(NonZeroU64::get));
        Ok(Converted {
            tally: Tally::new(self.listing.len(), self.options.group_by.is_some()),
            rejects: RejectLog::create(staging.as_deref()).map_err(Error::RejectLog)?,
            bytes_read: 0,
            shown: Vec::new(),
            sides: Sides { train: side("train"), val: side("val") },
            grouped: None,
        })
    }

    /// Converts the records that `visit` names on all threads and hands them to `sink` in that order.
    fn pass(
        &self,
        visit: &Visit<'_>,
        mut sink: impl FnMut(&RecordBatch) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let listed = self.listing.len();
        let (total, train) = match visit {
            Visit::All => (listed, listed),
            Visit::BothEnds(train) => (listed, *train),
            Visit::Chosen(order, train) => (order.len(), *train),
        };
        let position = |index: usize| match visit {
            Visit::BothEnds(train) if index >= *train => (listed - 1 - (index - train)) as u32,
            Visit::All | Visit::BothEnds(_) => index as u32,
            Visit::Chosen(order, _) => order[index],
        };
        // No chunk lies on both sides.
        let train_chunks = train.div_ceil(CHUNK_RECORDS);
        let chunks = train_chunks + (total - train).div_ceil(CHUNK_RECORDS);
        let lines = LineWriter::new(&self.options.template);
        run_in_order(
            self.pool,
            chunks,
            || Worker::new(self.options, self.listing, &lines),
            RecordBatch::default,
            |worker, chunk, batch, part| {
                let (start, end) = match chunk.checked_sub(train_chunks) {
                    None => (chunk * CHUNK_RECORDS, train),
                    Some(chunk) => (train + chunk * CHUNK_RECORDS, total),
                };
                batch.trains = chunk < train_chunks;
                for index in start..end.min(start + CHUNK_RECORDS) {
                    self.watch.check_stop()?;
                    worker.convert(position(index), batch)?;
                    part(batch)?;
                }
                Ok(())
            },
            |batch| {
                sink(batch)?;
                let is_reject = |(_, verdict): &&(u32, Verdict)| matches!(verdict, Verdict::Rejected(_));
                let rejects = batch.verdicts.iter().filter(is_reject).count();
                self.watch.converted(batch.verdicts.len() as u64, batch.bytes_read, rejects as u64);
                Ok(())
            },
        )
    }

    fn count(&self, batch: &RecordBatch, tally: &mut Tally, rejects: &mut RejectLog) -> Result<(), Error> {
        for (position, verdict) in &batch.verdicts {
            match verdict {
                Verdict::Accepted(marks) => tally.accept(*position, marks),
                Verdict::Skipped => tally.skip(),
                Verdict::Rejected(reason) => {
                    let key = self.listing.key(*position as usize);
                    let pushed = match batch.trains {
                        true => rejects.push_ascending(key, reason),
                        false => rejects.push_descending(key, reason),
                    };
                    pushed.map_err(Error::RejectLog)?;
                }
            }
        }
        Ok(())
    }

    fn show(&self, batch: &RecordBatch, shown: &mut Vec<Vec<u8>>) {
        if !batch.trains || shown.len() >= self.options.show {
            return;
        }
        let lines = batch.lines.split_inclusive(|&byte| byte == b'\n');
        shown.extend(lines.take(self.options.show - shown.len()).map(<[u8]>::to_vec));
    }

    fn path(&self, position: u32) -> PathBuf {
        let mut path = PathBuf::new();
        list::record_path(&self.options.corpus, self.listing.key(position as usize), &mut path);
        path
    }

    fn is_over_limit(&self, rejects: &RejectLog) -> bool {
        self.options.max_rejects.is_exceeded(rejects.counts().total(), self.listing.len() as u64)
    }

    /// Ends the run where its result would not be worth publishing.
    fn judge(&self, converted: &mut Converted) -> Result<(), Error> {
        let listed = self.listing.len() as u64;
        let accepted = converted.tally.accepted;
        if accepted == 0 {
            let failed = self.failed_rejects(&mut converted.rejects)?;
            return Err(Error::NothingAccepted { listed, skipped: converted.tally.skipped, failed });
        }
        if self.is_over_limit(&converted.rejects) {
            let failed = self.failed_rejects(&mut converted.rejects)?;
            return Err(Error::TooManyRejects { listed, limit: self.options.max_rejects, failed });
        }
        let ratio = self.options.val_ratio;
        let side = match (converted.sides.train.records(), converted.sides.val.records()) {
            (0, _) => "train",
            (_, 0) if !ratio.is_zero() => "validation",
            _ => return Ok(()),
        };
        let groups = converted.grouped.as_ref().map(|split| format!(", {} groups", split.groups));
        Err(Error::EmptySide { side, accepted, ratio, groups: groups.unwrap_or_default() })
    }

    fn failed_rejects(&self, rejects: &mut RejectLog) -> Result<FailedRejects, Error> {
        let report = match self.output {
            Some(output) if rejects.counts().total() > 0 => {
                Some(output.write_failed_rejects(|out| rejects.write_to(out))?)
            }
            _ => None,
        };
        let counts = rejects.counts().clone();
        Ok(FailedRejects { counts, rejects: self.shown_rejects(rejects)?, report })
    }

    fn shown_rejects(&self, rejects: &mut RejectLog) -> Result<Vec<String>, Error> {
        let limit = match self.options.mode {
            Mode::Publish => REJECTS_SHOWN,
            Mode::DryRun => usize::MAX - 1,
        };
        rejects.first(limit).map_err(Error::RejectLog)
    }

    fn counts(&self, converted: &Converted) -> Counts {
        let rejects = converted.rejects.counts();
        Counts {
            listed: self.listing.len() as u64,
            rejected: rejects.total(),
            not_regular: self.listing.not_regular.len() as u64,
            rejected_by_code: rejects.by_code().map(|(code, count)| (code.to_owned(), count)).collect(),
            ..converted.tally.counts()
        }
    }

    /// The manifest but for the files beside the shards.
    fn manifest(&self, prepared: &Prepared, sides: Sides) -> Result<Manifest, Error> {
        let options = self.options;
        let val = match options.val_ratio.is_zero() {
            true => None,
            false => Some(sides.val.finish().map_err(write_error)?),
        };
        Ok(Manifest {
            schema: SCHEMA.to_owned(),
            tool: concat!("ctxtune ", env!("CARGO_PKG_VERSION")).to_owned(),
            options: OptionsUsed {
                seed: options.seed,
                val_ratio: options.val_ratio.to_string(),
                group_by: options.group_by.as_ref().map(GroupBy::to_string),
                shard_records: options.shard_records.map(NonZeroU64::get),
                only_correct: options.only_correct,
                max_record_bytes: options.max_record_bytes as u64,
            },
            counts: prepared.counts.clone(),
            leakage: prepared.leakage,
            grouping: prepared.grouping,
            template: TemplateUsed {
                name: options.template.name.clone(),
                text: options.template.text.clone(),
            },
            keys_sha256: self.listing.keys_sha256.clone(),
            train: sides.train.finish().map_err(write_error)?,
            val,
            files: BTreeMap::new(),
        })
    }

    fn stage_rejects(
        &self,
        output: &Output,
        rejects: &mut RejectLog,
        manifest: &mut Manifest,
    ) -> Result<(), Error> {
        let digest = output.stage(REJECTS, |out| rejects.write_to(out))?;
        manifest.files.insert(REJECTS.to_owned(), digest);
        Ok(())
    }

    /// `keys.tsv`: the split, the line (from 1) in its shard, the shard, the key as a JSON string.
    fn stage_keys(
        &self,
        output: &Output,
        order: &Order<'_>,
        tally: &Tally,
        manifest: &mut Manifest,
    ) -> Result<(), Error> {
        let digest = output.stage(KEYS, |out| {
            writeln!(out, "split\tline\tshard\tkey")?;
            for (split, side) in manifest.sides() {
                let mut positions =
                    if split == "train" { order.train(tally) } else { order.validation(tally) };
                for shard in &side.shards {
                    for (line, position) in (1..=shard.records).zip(&mut positions) {
                        let key = KeyText(self.listing.key(position as usize)).to_json();
                        writeln!(out, "{split}\t{line}\t{}\t{key}", shard.file)?;
                    }
                }
            }
            Ok(())
        })?;
        manifest.files.insert(KEYS.to_owned(), digest);
        Ok(())
    }
}
