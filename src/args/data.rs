//! The arguments of the commands that need no account: `prepare` and `check`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::args::RemoteArgs;

use ctxtune_pipeline::config::tokens::TokenizerArgs;
use ctxtune_pipeline::config::{Bytes, PrepareChoices};
use ctxtune_pipeline::value::{parsed, whole};

const PREPARE_HELP: &str = "\
Examples:
  ctxtune prepare contexts --output-dir out
  ctxtune prepare contexts -o out --group-by agents --val-ratio 0.2
  ctxtune prepare contexts --dry-run --show 2
  ctxtune prepare contexts -o pilot --limit 100
  ctxtune prepare contexts -o out --mix general.jsonl=5%
  ctxtune prepare chat.jsonl --chat -o out
  ctxtune prepare more.jsonl.zst contexts.tar -o out
  ctxtune prepare downloads --containers -o out
  ctxtune prepare contexts -o out --work-dir work
  ctxtune prepare s3://bucket/contexts -o s3://bucket/out

Exit codes: 0 done, 1 failed, 2 usage, 3 data (too many rejects, an empty side), 4 keys (of a bucket), 5 try again (in \
parts), 130 SIGINT, 143 SIGTERM.";

/// Where the records are and how they become examples: of `prepare` and of `finetune`.
#[derive(Debug, Default, Args)]
pub struct CorpusArgs {
    #[command(flatten)]
    pub choices: PrepareChoices,
    /// YAML file with settings; flags win over it
    #[arg(long, alias = "config", value_name = "FILE")]
    pub config_path: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = PREPARE_HELP)]
pub struct PrepareArgs {
    #[command(flatten)]
    pub corpus: CorpusArgs,
    /// Count, split, measure and list rejects; write nothing
    #[arg(long, help_heading = "Run")]
    pub dry_run: bool,
    /// Show the first N training examples on stderr
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = "Run", value_parser = whole::<usize>)]
    pub show: usize,
    /// Prepare in parts, in this directory or bucket: killed and run again, it resumes
    #[arg(long, value_name = "WORK", help_heading = "Parts", conflicts_with_all = ["dry_run", "show"])]
    pub work_dir: Option<PathBuf>,
    #[command(flatten)]
    pub parts: PartsArgs,
}

/// How a corpus is divided into parts.
#[derive(Debug, Args)]
pub struct PartsArgs {
    /// Bytes of inputs per part [default: 256MiB, more where that makes over 2,000 parts]
    #[arg(long, value_name = "SIZE", help_heading = "Parts", value_parser = parsed::<Bytes>, conflicts_with_all = ["dry_run", "show"])]
    pub part_bytes: Option<Bytes>,
    /// Fail where a record file changes later on, too: keeps size and time of each
    #[arg(long, help_heading = "Parts", conflicts_with_all = ["dry_run", "show"])]
    pub pin: bool,
    #[command(flatten)]
    pub scratch: ScratchArgs,
}

impl PartsArgs {
    /// Whether any of them was chosen: then the work is done in parts.
    pub fn are_chosen(&self) -> bool {
        self.part_bytes.is_some() || self.pin || self.scratch.scratch_dir.is_some()
    }
}

/// Where temporary files go.
#[derive(Debug, Args)]
pub struct ScratchArgs {
    /// Directory for temporary files of parts [default: that of the system, TMPDIR]
    #[arg(long, value_name = "DIR", help_heading = "Parts")]
    pub scratch_dir: Option<PathBuf>,
}

/// What counts tokens, and for which model: of `check` and `preview`.
#[derive(Debug, Args)]
pub struct CountingArgs {
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    /// Model whose tokens are counted [default: base_model of the configuration, else that of finetune]
    #[arg(long, value_name = "NAME")]
    pub base_model: Option<String>,
    /// YAML file with settings (base_model, tokenizer); flags win over it
    #[arg(long, alias = "config", value_name = "FILE")]
    pub config_path: Option<PathBuf>,
}

const CHECK_HELP: &str = "\
Examples:
  ctxtune check train.jsonl val.jsonl
  ctxtune check out
  ctxtune prepare contexts -o out && ctxtune check out --max-tokens 8192

Exit codes: 0 fit for training, 1 a file cannot be read, 2 usage, 3 not fit, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = CHECK_HELP)]
pub struct CheckArgs {
    /// JSONL files, or output directories of `prepare`
    #[arg(value_name = "FILE|OUT", required = true)]
    pub paths: Vec<PathBuf>,
    /// Fail samples that have more than N tokens, as far as they can be counted
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub max_tokens: Option<u64>,
    /// What counts tokens, and for which model.
    #[command(flatten)]
    pub counting: CountingArgs,
    /// Count tokens whatever the size of the data [default: up to 1 GB]
    #[arg(long)]
    pub tokens: bool,
    /// Estimate tokens from bytes, which is quicker
    #[arg(long, conflicts_with_all = ["tokens", "tokenizer"])]
    pub no_tokens: bool,
    /// Threads that check [default: the cores available]
    #[arg(long, value_name = "N", value_parser = whole::<NonZeroUsize>)]
    pub threads: Option<NonZeroUsize>,
}

const PREVIEW_HELP: &str = "\
Examples:
  ctxtune preview out
  ctxtune preview out --longest --max-tokens 8192
  ctxtune preview out --key 7.json
  ctxtune preview train.jsonl -n 3 --json

stdout: the samples, with what is trained, masked and cut in colours, or in brackets with NO_COLOR or in a file.
Exit codes: 0 done, 1 a file cannot be read, 2 usage, 3 a sample that cannot be shown.";

/// The sides of prepared data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Split {
    /// What is trained on
    Train,
    /// What validates
    Validation,
}

/// The arguments of `preview`.
#[derive(Debug, Args)]
#[command(after_help = PREVIEW_HELP)]
pub struct PreviewArgs {
    /// An output directory of `prepare`, or a JSONL file
    #[arg(value_name = "OUT|FILE")]
    pub path: PathBuf,
    /// How many samples to show
    #[arg(short, long, value_name = "N", default_value = "1", value_parser = whole::<NonZeroUsize>)]
    pub number: NonZeroUsize,
    /// Show the sample of this record
    #[arg(long, value_name = "KEY", conflicts_with_all = ["longest", "number"])]
    pub key: Option<String>,
    /// Show the samples of the most tokens
    #[arg(long)]
    pub longest: bool,
    /// Which side of an output directory
    #[arg(long, value_name = "SIDE", default_value = "train")]
    pub split: Split,
    /// Tokens of a sequence: what lies beyond is struck out [default: max_seq_length of the configuration]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub max_tokens: Option<u64>,
    /// What counts tokens, and for which model.
    #[command(flatten)]
    pub counting: CountingArgs,
    /// Ask the service as well how it would train them; OUT is uploaded (free of charge)
    #[arg(long, conflicts_with_all = ["key", "longest"])]
    pub service: bool,
    #[command(flatten)]
    pub remote: RemoteArgs,
}
