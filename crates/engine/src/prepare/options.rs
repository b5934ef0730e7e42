//! What to prepare, and how: everything is decided, and no value is looked up later.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use crate::address::address;
use crate::line::template::Template;
use crate::output::compress::Compress;
use crate::output::publish::Durability;
use crate::prepare::mix::Mix;
use crate::ratio::Ratio;
use crate::record::parser::Readers;
use crate::record::reject::RejectLimit;
use crate::source::Source;
use crate::split::group::GroupBy;

/// What to prepare, and how.
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
    /// Whether the records are chat lines, which are taken as they are.
    pub chat: bool,
    /// How a record becomes messages, unless it is a chat line.
    pub template: Template,
    /// Records a shard; `None` for one file a side.
    pub shard_records: Option<NonZeroU64>,
    /// How the shards are compressed.
    pub compress: Option<Compress>,
    /// The most training records, the first by rank; the others are left out behind the split.
    pub limit: Option<NonZeroU64>,
    /// What is mixed into the training lines.
    pub mix: Vec<Mix>,
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
    /// Whether a source, or the output, is in a bucket.
    pub fn is_stored(&self) -> bool {
        let mixed = self.mix.iter().map(|mix| &mix.source);
        let mut sources = self.sources.iter().chain(mixed);
        sources.any(|source| source.address().is_some()) || address(&self.output_dir).is_some()
    }

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
