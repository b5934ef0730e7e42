//! Why a run failed, and what is known of its rejects then.
//!
//! A bad record is no error: see `reject`. What to do about an error is said in `cli`.

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
    /// The names of what is not read cannot be kept.
    #[error("cannot keep names in a temporary file: {0}")]
    NameLog(io::Error),
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
    #[error("no record in {sources}")]
    NothingListed {
        /// The sources as people read them.
        sources: String,
        /// The source, where there is one only.
        root: Option<PathBuf>,
        /// What is there instead.
        not_read: Arc<NameLog>,
    },
    /// Two records cannot be told apart.
    #[error("the key {key} is there twice: {first} and {second}")]
    EqualKeys {
        /// The key as a JSON string.
        key: String,
        /// Where it is first.
        first: String,
        /// Where it is again.
        second: String,
    },
    /// More sources than can be numbered.
    #[error("{0} sources are more than can be read at once")]
    TooManySources(usize),
    /// A container is cut or damaged.
    #[error("`{path}` is damaged at byte {byte}: {reason}")]
    Damaged {
        /// The container.
        path: PathBuf,
        /// How far it could be read; in its own bytes, compressed or not.
        byte: u64,
        /// What is wrong.
        reason: String,
    },
    /// A container that Git has not fetched.
    #[error("`{0}` is a Git LFS pointer, not the file itself")]
    LfsPointer(PathBuf),
    /// A container that has to be packed in another way.
    #[error("`{path}` {}", repack.what())]
    Repack {
        /// The container.
        path: PathBuf,
        /// What is unusual about it.
        repack: Repack,
    },
    /// A compressed source grows beyond the limit.
    #[error("`{path}` unpacks to more than {limit} bytes, together with the sources before it")]
    SpoolLimit {
        /// The source.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
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
    /// A file changed between two looks at it.
    #[error("`{path}` changed while it was being prepared")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Somebody asked the run to stop.
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
