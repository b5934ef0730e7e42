//! The arguments of the commands that need no account: `prepare` and `check`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::Args;

use crate::args::{Voice, path};
use ctxtune_engine::record::reject::RejectLimit;
use ctxtune_engine::split::Ratio;
use ctxtune_engine::split::group::GroupBy;
use ctxtune_pipeline::config::value::{parsed, whole};
use ctxtune_pipeline::config::{Bytes, PrepareChoices};

const PREPARE_HELP: &str = "\
Examples:
  ctxtune prepare contexts --output-dir out
  ctxtune prepare contexts -o out --group-by agents --val-ratio 0.2
  ctxtune prepare contexts --dry-run --show 2
  ctxtune prepare more.jsonl.zst contexts.tar -o out
  ctxtune prepare downloads --containers -o out

Exit codes: 0 done, 1 failed, 2 usage, 3 data (too many rejects, an empty side), 130 SIGINT, 143 SIGTERM.";

/// Where the records are and how they become examples: of `prepare` and of `finetune`.
#[derive(Debug, Default, Args)]
pub struct CorpusArgs {
    /// Directories of *.json records, .jsonl or .ndjson files, .tar archives (each also .gz or
    /// .zst; .tgz, .tzst), or - for JSONL on standard input
    #[arg(value_name = "SOURCE", conflicts_with = "data_dir", value_parser = path())]
    pub sources: Vec<PathBuf>,
    /// The same as one SOURCE
    #[arg(long, value_name = "SOURCE", value_parser = path())]
    pub data_dir: Option<PathBuf>,
    /// File (or -) with further sources or record files, one a line or separated by NUL
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub files_from: Option<PathBuf>,
    /// Also read the .jsonl, .ndjson and .tar files (also compressed) below a directory
    #[arg(long)]
    pub containers: bool,
    /// Directory for the result [default: training/output]
    #[arg(short, long, value_name = "OUT", value_parser = path())]
    pub output_dir: Option<PathBuf>,
    /// YAML file with settings; flags win over it
    #[arg(long, alias = "config", value_name = "FILE", value_parser = path())]
    pub config_path: Option<PathBuf>,

    /// Part of the records that validates, a decimal below 1; 0 for none [default: 0.1]
    #[arg(long, value_name = "RATIO", help_heading = "Split")]
    pub val_ratio: Option<Ratio>,
    /// Seed of the order [default: 42]
    #[arg(long, value_name = "N", help_heading = "Split", value_parser = whole::<u64>)]
    pub seed: Option<u64>,
    /// Keep records together that share their story, their set of agents, or a top-level FIELD
    #[arg(long, value_name = "story|agents|FIELD", help_heading = "Split")]
    pub group_by: Option<GroupBy>,
    /// Records a shard; without it one file a side
    #[arg(long, value_name = "N", help_heading = "Split", value_parser = whole::<NonZeroU64>)]
    pub shard_records: Option<NonZeroU64>,

    /// Layout of the messages: the built-in `chatml`, or a YAML file [default: chatml]
    #[arg(long, value_name = "chatml|FILE", help_heading = "Records", value_parser = path())]
    pub template: Option<PathBuf>,
    /// Rejected records to bear, a number or a percentage of all [default: 5%]
    #[arg(long, value_name = "N|P%", help_heading = "Records", value_parser = parsed::<RejectLimit>)]
    pub max_rejects: Option<RejectLimit>,
    /// Bear no rejected record: --max-rejects 0
    #[arg(long, help_heading = "Records", conflicts_with = "max_rejects")]
    pub strict: bool,
    /// Leave out records with `is_correct: false`
    #[arg(long, help_heading = "Records")]
    pub only_correct: bool,
    /// Largest record to take, up to 1GiB [default: 64MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Records", value_parser = parsed::<Bytes>)]
    pub max_record_bytes: Option<Bytes>,

    /// Bytes that compressed sources and standard input may unpack to, together [default: 64GiB]
    #[arg(long, value_name = "SIZE", help_heading = "Run", value_parser = parsed::<Bytes>)]
    pub max_spool_bytes: Option<Bytes>,
    /// Threads that convert; they do not change a byte [default: the cores available]
    #[arg(long, value_name = "N", help_heading = "Run", value_parser = whole::<NonZeroUsize>)]
    pub threads: Option<NonZeroUsize>,
    /// Do not wait for the disk: faster, but a power loss can damage the result
    #[arg(long, help_heading = "Run")]
    pub no_sync: bool,
}

/// The arguments of `prepare`.
#[derive(Debug, Args)]
#[command(after_help = PREPARE_HELP)]
pub struct PrepareArgs {
    /// Where the records are and how they become examples.
    #[command(flatten)]
    pub corpus: CorpusArgs,
    /// Count, split, measure and list rejects; write nothing
    #[arg(long, help_heading = "Run")]
    pub dry_run: bool,
    /// Show the first N training examples on stderr
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = "Run", value_parser = whole::<usize>)]
    pub show: usize,

    /// How much to say.
    #[command(flatten)]
    pub voice: Voice,
}

impl CorpusArgs {
    /// What the flags say.
    pub fn choices(&self) -> PrepareChoices {
        let given = |flag: bool| flag.then_some(true);
        PrepareChoices {
            sources: match &self.data_dir {
                Some(source) => vec![source.clone()],
                None => self.sources.clone(),
            },
            files_from: self.files_from.clone(),
            containers: given(self.containers),
            max_spool_bytes: self.max_spool_bytes,
            output_dir: self.output_dir.clone(),
            val_ratio: self.val_ratio,
            seed: self.seed,
            template: self.template.clone(),
            shard_records: self.shard_records,
            group_by: self.group_by.clone(),
            max_rejects: if self.strict { Some(RejectLimit::Count(0)) } else { self.max_rejects },
            only_correct: given(self.only_correct),
            max_record_bytes: self.max_record_bytes,
            threads: self.threads,
            no_sync: given(self.no_sync),
        }
    }
}

const CHECK_HELP: &str = "\
Examples:
  ctxtune check train.jsonl val.jsonl
  ctxtune check out
  ctxtune prepare contexts -o out && ctxtune check out --max-tokens 8192

Exit codes: 0 fit for training, 1 a file cannot be read, 2 usage, 3 not fit, 130 SIGINT, 143 SIGTERM.";

/// The arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = CHECK_HELP)]
pub struct CheckArgs {
    /// JSONL files, or output directories of `prepare`
    #[arg(value_name = "FILE|OUT", required = true, value_parser = path())]
    pub paths: Vec<PathBuf>,
    /// Fail samples that have more than N tokens, by estimate
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub max_tokens: Option<u64>,
    /// Threads that check [default: the cores available]
    #[arg(long, value_name = "N", value_parser = whole::<NonZeroUsize>)]
    pub threads: Option<NonZeroUsize>,

    /// How much to say.
    #[command(flatten)]
    pub voice: Voice,
}
