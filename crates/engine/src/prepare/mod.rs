//! The engine: a corpus of records becomes train and validation files.
//!
//! One order decides everything (`split`): records are listed and ranked by their keys,
//! converted from the lowest rank upward into train and from the highest downward into
//! validation, in one pass and in bounded memory, and published whole or not at all. The
//! bytes are a function of the accepted records, the seed, the ratio and the template.
//! Nothing here knows a network, a clock, the environment or a terminal.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};

mod arrive;
mod batch;
mod chat;
mod mix;
mod options;
mod outcome;
mod run;
mod take;
mod tally;
mod visit;
mod worker;

pub use crate::error::{Error, FailedRejects};
pub use crate::line::template::Template;
use crate::output::key_lines::KEYS;
pub use crate::output::publish::{Durability, Published};
use crate::output::publish::{Output, check_foreign};
use crate::output::shard::shard_name;
pub(crate) use crate::prepare::arrive::Arrival;
pub(crate) use crate::prepare::batch::Verdict;
pub use crate::prepare::mix::{Amount, Mix, counts as mix_counts};
pub(crate) use crate::prepare::mix::{
    PREFIX as MIX_PREFIX, key_prefixes as mix_prefixes, places as mix_places,
};
pub use crate::prepare::options::{Mode, Options, Purpose};
pub use crate::prepare::run::{Prepared, REJECTS};
pub(crate) use crate::prepare::run::{Run, Selection, manifest};
pub use crate::prepare::take::GivenFiles;
pub use crate::record::parser::Readers;
use crate::source::SourceKind;
use crate::source::list::{self, Corpus};
use crate::source::spool::Spool;
pub use crate::watch::Watch;

/// Prepares a corpus as `options` say, reporting to `watch`.
///
/// # Errors
/// Whatever keeps the result from being complete; the old result is then intact, but for a
/// failure in the middle of publication, after which the output has no manifest.
pub fn prepare(options: &Options, watch: &dyn Watch) -> Result<Prepared, Error> {
    check_directories(options)?;
    let pool = threads(options.threads)?;
    let output = match options.purpose.mode {
        Mode::Publish => Some(Output::open(&options.output_dir, options.durability)?),
        Mode::DryRun => None,
    };
    if output.is_some() {
        check_output(options)?;
    }
    let staging = output.as_ref().map(Output::staging);
    let mut spool = Spool::new(staging.as_deref(), options.max_spool_bytes);
    let arrival = Arrival::new(options, &pool, watch);
    let corpus = Corpus {
        sources: &options.sources,
        skip: Some(&options.output_dir),
        within: b"",
        seed: options.seed,
        convert: Some(&|plain, limit, store, found| arrival.convert(plain, limit, store, found)),
        // Where the split is grouped, that saves the first of two passes; else a line is read, and written, once more.
        converts_plain_files: options.group_by.is_some(),
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

/// So many threads that convert.
///
/// # Errors
/// When they cannot be started.
pub(crate) fn threads(threads: NonZeroUsize) -> Result<ThreadPool, Error> {
    let pool =
        ThreadPoolBuilder::new().num_threads(threads.get()).thread_name(|index| format!("convert-{index}"));
    pool.build().map_err(|error| Error::Threads(io::Error::other(error)))
}

/// Fails where the output directory is a source.
///
/// # Errors
/// That, or when a source is not there.
pub(crate) fn check_directories(options: &Options) -> Result<(), Error> {
    let directories = options.sources.iter().filter(|source| matches!(source.kind, SourceKind::Directory(_)));
    for source in directories {
        if let Some(address) = source.address() {
            let output = crate::address::address(&options.output_dir);
            match output.is_some_and(|output| output.trim_end_matches('/') == address.trim_end_matches('/')) {
                true => return Err(Error::OutputIsCorpus(options.output_dir.clone())),
                false => continue,
            }
        }
        let no_corpus = |error| Error::NoCorpus { path: source.path.clone(), source: error };
        let corpus = source.path.canonicalize().map_err(no_corpus)?;
        match options.output_dir.canonicalize() {
            Ok(output) if output == corpus => return Err(Error::OutputIsCorpus(options.output_dir.clone())),
            _ => {}
        }
    }
    Ok(())
}

/// Fails where a file of the result, as far as their names are known before anything is converted, would overwrite one
/// that no manifest calls ours.
///
/// # Errors
/// That, or when a file of the manifest's name is none.
pub(crate) fn check_output(options: &Options) -> Result<(), Error> {
    let mut names = vec![KEYS.to_owned(), REJECTS.to_owned()];
    if options.shard_records.is_none() {
        names.extend(["train", "val"].map(|side| shard_name(side, None, options.compress)));
    }
    check_foreign(&options.output_dir, names.iter().map(String::as_str))
}
