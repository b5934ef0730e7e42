//! Why a run failed, and what is known of its rejects then.
//!
//! A bad record is no error: see `reject`. What to do about an error is said in `failure` of the pipeline.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::output::lock::LockError;
use crate::output::manifest::ManifestError;
use crate::parallel::Stopped;
use crate::ratio::Ratio;
use crate::record::reject::{RejectCounts, RejectLimit};
use crate::source::names::NameLog;

/// Why a run failed. Nothing is published then.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name them")]
pub enum Error {
    #[error("the output directory `{0}` is the corpus itself")]
    OutputIsCorpus(PathBuf),
    #[error("the corpus `{path}` is no readable directory: {source}")]
    NoCorpus { path: PathBuf, source: io::Error },
    #[error("cannot list `{path}`: {source}")]
    List { path: PathBuf, source: io::Error },
    #[error("cannot read `{path}`: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write `{path}`: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot keep the rejects in a temporary file: {0}")]
    RejectLog(io::Error),
    #[error("cannot keep names in a temporary file: {0}")]
    NameLog(io::Error),
    /// The output directory is not ours now.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What stands in the manifest's place is not one.
    #[error(transparent)]
    Manifest(ManifestError),
    #[error("`{path}` is in the way: this tool did not make it, and does not overwrite it")]
    Foreign { path: PathBuf },
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    #[error("no record in {sources}")]
    NothingListed {
        sources: String,
        /// The source, where there is one only.
        root: Option<PathBuf>,
        /// What is there instead.
        not_read: Arc<NameLog>,
    },
    #[error("the key {key} is there twice: {first} and {second}")]
    EqualKeys {
        /// The key as a JSON string.
        key: String,
        first: String,
        second: String,
    },
    #[error("{0} sources are more than can be read at once")]
    TooManySources(usize),
    #[error("`{path}` is damaged at byte {byte}: {reason}")]
    Damaged {
        path: PathBuf,
        /// How far it could be read; in its own bytes, compressed or not.
        byte: u64,
        reason: String,
    },
    #[error("`{0}` is a Git LFS pointer, not the file itself")]
    LfsPointer(PathBuf),
    #[error("`{path}` {}", repack.what())]
    Repack { path: PathBuf, repack: Repack },
    #[error("`{path}` unpacks to more than {limit} bytes, together with the sources before it")]
    SpoolLimit { path: PathBuf, limit: u64 },
    #[error("{} of {listed} records are rejected, and the limit is {limit}", failed.counts.total())]
    TooManyRejects { listed: u64, limit: RejectLimit, failed: FailedRejects },
    #[error("none of {listed} records is left to train on: {} rejected, {skipped} skipped", failed.counts.total())]
    NothingAccepted { listed: u64, skipped: u64, failed: FailedRejects },
    #[error("--mix `{path}`: {reason}")]
    Mix { path: PathBuf, reason: String },
    #[error("the {side} side is empty: {accepted} records, ratio {ratio}{groups}")]
    EmptySide {
        /// `train` or `validation`.
        side: &'static str,
        accepted: u64,
        ratio: Ratio,
        /// How many groups there are, as text, where there are any.
        groups: String,
    },
    #[error("`{path}` changed while it was being prepared")]
    Changed { path: PathBuf },
    #[error("`{object}`: {source}")]
    Store {
        /// An object of the working directory.
        object: String,
        source: io::Error,
    },
    #[error("`{output}` holds another result")]
    OtherResult { output: String },
    #[error("no plan in `{work}`")]
    NoPlan { work: String },
    #[error("the plan in `{work}` is another one: {reason}")]
    OtherPlan { work: String, reason: String },
    #[error("`{object}` was changed: {reason}")]
    Altered { object: String, reason: String },
    #[error("{what} is not there yet")]
    NotYet { what: String },
    #[error("`{record}` says something else than this attempt found: the input changed, or this is a bug")]
    Differ { record: String },
    #[error("`{path}` can be read once only, and parts may be read again")]
    Indivisible { path: PathBuf },
    #[error("the working directory `{work}` and `{of}` lie within each other")]
    Misplaced { work: PathBuf, of: PathBuf },
    #[error("the working directory `{work}` is on another file system than the output `{output}`")]
    OtherFileSystem { work: PathBuf, output: PathBuf },
    #[error("`{dir}` has room for {free} bytes, and this part may need {needed}")]
    NoRoom { dir: PathBuf, free: u64, needed: u64 },
    #[error("interrupted")]
    Interrupted,
}

/// A container that is whole, and packed in a way that is not unpacked here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repack {
    /// Zstandard with a dictionary.
    Dictionary,
    /// Zstandard whose window is larger than the format's reference decoder takes by itself.
    Window,
}

impl Repack {
    /// What is unusual about it.
    pub fn what(self) -> &'static str {
        match self {
            Repack::Dictionary => "was compressed with a zstd dictionary",
            Repack::Window => {
                "was compressed with `zstd --long`, for which more than 128 MiB of memory are needed"
            }
        }
    }
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
