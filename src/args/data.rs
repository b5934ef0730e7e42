//! The arguments of the commands that need no account: `prepare` and `check`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use ctxtune_pipeline::config::PrepareChoices;
use ctxtune_pipeline::value::whole;

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

Exit codes: 0 done, 1 failed, 2 usage, 3 data (too many rejects, an empty side), 130 SIGINT, 143 SIGTERM.";

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
    /// Fail samples that have more than N tokens, by estimate
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub max_tokens: Option<u64>,
    /// Threads that check [default: the cores available]
    #[arg(long, value_name = "N", value_parser = whole::<NonZeroUsize>)]
    pub threads: Option<NonZeroUsize>,
}
