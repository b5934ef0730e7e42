//! Is this JSONL fit for training? Structure first, then the rules of a conversation.
//!
//! Any number of files, and directories that `prepare` wrote, are read once by all threads
//! in bounded memory: a block a thread, eight bytes a sample, and the findings that are
//! kept. *Structure* says what the provider's client would say before an upload,
//! *conversation* what its server would say after it. Nothing here knows a network, a
//! clock, the environment or a terminal.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::output::manifest::{FileDigest, ManifestError};

pub mod code;
mod content;
pub mod conversation;
pub mod counter;
mod duplicates;
mod file;
pub mod finding;
pub mod judge;
mod keys;
mod lenient;
mod lines;
mod longest;
mod messages;
mod ordered;
mod prepared;
pub mod single;
pub mod stats;
pub mod structure;
mod tape;
mod worker;

use code::{Code, Level};
use counter::{Counter, Method};
pub use file::FileReport;
use finding::{Findings, Keep};
pub use longest::Long;
use longest::Longest;
use prepared::Prepared;
use worker::Tally;

/// What to check, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// JSONL files, and output directories of `prepare`.
    pub paths: Vec<PathBuf>,
    /// Threads that check; the digests of a prepared directory take one more.
    pub threads: NonZeroUsize,
    /// How many findings of each code are kept with their words.
    pub keep: Keep,
    /// The most tokens a sample may have.
    pub max_tokens: Option<u64>,
    /// What counts tokens; without it they are estimated.
    pub counter: Option<Arc<dyn Counter>>,
}

/// Where a check reports how far it is, and learns whether it is to stop.
pub trait Watch: Sync {
    /// So many bytes more are to be checked.
    fn expects(&self, bytes: u64);
    /// So many bytes more are checked; the last block of a file counts as whole.
    fn checked(&self, bytes: u64);
    /// Whether somebody asked the check to stop.
    fn is_stopped(&self) -> bool;

    /// [`Error::Interrupted`] when the check is to stop.
    ///
    /// # Errors
    /// That one.
    fn check_stop(&self) -> Result<(), Error> {
        if self.is_stopped() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// Why a check came to no verdict.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name them")]
pub enum Error {
    /// There is no such file, or it is a device, a pipe or the like.
    #[error("`{path}` is no regular file and no directory: {reason}")]
    NotFile { path: PathBuf, reason: String },
    /// A directory without a manifest to believe.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("cannot read `{path}`: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot unpack `{path}` to a temporary file: {source}")]
    Unpack { path: PathBuf, source: io::Error },
    #[error("`{path}` changed while it was being checked")]
    Changed { path: PathBuf },
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    #[error("interrupted")]
    Interrupted,
}

/// What a check says.
#[derive(Debug, Clone)]
pub struct Report {
    /// The files that were checked or found fault with; findings name them by number.
    pub paths: Vec<PathBuf>,
    /// The JSONL files, in the order in which they were checked.
    pub files: Vec<FileReport>,
    /// What was found, in the order of files and lines.
    pub findings: Findings,
    /// Lengths of all samples as they stand in the files, in bytes.
    pub lengths: stats::Histogram,
    /// The tokens of all samples.
    pub tokens: stats::TokenLengths,
    /// How they were counted.
    pub method: Method,
    /// The longest samples, each with its source record's key as a JSON string where that is known.
    pub longest: Vec<(Long, Option<String>)>,
}

impl Report {
    /// Whether no error was found.
    pub fn is_passed(&self) -> bool {
        self.findings.total(Level::Error) == 0
    }

    /// The path with this number.
    pub fn path(&self, index: u32) -> &Path {
        &self.paths[index as usize]
    }
}

/// Checks what `options` name, reporting to `watch`.
///
/// # Errors
/// Whatever keeps the check from a verdict. Faults of the data are no errors, but findings.
pub fn check(options: &Options, watch: &dyn Watch) -> Result<Report, Error> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(options.threads.get())
        .thread_name(|index| format!("check-{index}"))
        .build()
        .map_err(|error| Error::Threads(io::Error::other(error)))?;
    let mut run = Run::new(options, watch, &pool);
    for path in &options.paths {
        if is_directory(path)? {
            prepared::check_prepared(&mut run, path)?;
        } else {
            file::check_file(&mut run, path)?;
        }
    }
    duplicates::find_duplicates(&mut run)?;
    run.findings.sort();
    keys::find_keys(&mut run)?;
    Ok(run.report())
}

/// Whether `path` is a directory and not a regular file. What is neither is never opened: that
/// could wait for ever.
fn is_directory(path: &Path) -> Result<bool, Error> {
    let not_file = |reason: String| Error::NotFile { path: path.to_owned(), reason };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(false),
        Ok(metadata) if metadata.is_dir() => Ok(true),
        Ok(_) => Err(not_file("it is a pipe, a device or the like".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_file(error.to_string())),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// What all files of one check share.
struct Run<'r> {
    options: &'r Options,
    watch: &'r dyn Watch,
    pool: &'r ThreadPool,
    paths: Vec<PathBuf>,
    /// What the compressed ones of them unpack to.
    unpacked: BTreeMap<u32, FileDigest>,
    files: Vec<FileReport>,
    findings: Findings,
    tally: Tally,
    digests: Vec<u64>,
    longest: Longest,
    longest_keys: Vec<Option<String>>,
    prepared: Vec<Prepared>,
}

impl<'r> Run<'r> {
    fn new(options: &'r Options, watch: &'r dyn Watch, pool: &'r ThreadPool) -> Self {
        Run {
            options,
            watch,
            pool,
            paths: Vec::new(),
            unpacked: BTreeMap::new(),
            files: Vec::new(),
            findings: Findings::new(options.keep),
            tally: Tally::default(),
            digests: Vec::new(),
            longest: Longest::default(),
            longest_keys: Vec::new(),
            prepared: Vec::new(),
        }
    }

    /// Gives `path` the next number.
    fn add_path(&mut self, path: &Path) -> u32 {
        self.paths.push(path.to_owned());
        (self.paths.len() - 1) as u32
    }

    /// The number of `path`, which it may get only now.
    fn path_of(&mut self, path: &Path) -> u32 {
        match self.paths.iter().rposition(|known| known == path) {
            Some(index) => index as u32,
            None => self.add_path(path),
        }
    }

    /// Adds a finding about the whole file `path`.
    fn say(&mut self, path: u32, code: Code, message: String) {
        let mut findings = Findings::new(self.findings.keep());
        findings.push(code, None, || message);
        self.findings.append(findings, path, 0);
    }

    fn add_digests(&mut self, more: &[u64]) {
        if self.digests.capacity() - self.digests.len() < more.len() {
            // An eighth more, not twice as much: the room is what bounds the memory.
            self.digests.reserve_exact(more.len().max(self.digests.len() / 8));
        }
        self.digests.extend_from_slice(more);
    }

    fn report(self) -> Report {
        let mut keys = self.longest_keys.into_iter();
        let longest = self.longest.samples().iter().map(|long| (*long, keys.next().flatten())).collect();
        Report {
            paths: self.paths,
            files: self.files,
            findings: self.findings,
            lengths: self.tally.lengths,
            tokens: self.tally.tokens,
            method: self.options.counter.as_deref().map_or(Method::About, Counter::method),
            longest,
        }
    }
}
