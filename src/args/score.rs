//! The arguments of `score`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::Args;

use ctxtune_pipeline::config::asking::AskingArgs;
use ctxtune_pipeline::value::{ruled, whole};

const SCORE_HELP: &str = "\
Examples:
  ctxtune score contexts generated
  ctxtune score out generated --min-score 0.8
  ctxtune score out base tuned --per-record scores.tsv --report scores.html
  ctxtune score --models Qwen/Qwen3-8B,my-project/contexts --val out --yes

GOLD and GEN are matched by their keys. What GEN lacks, and what is no usable context, counts 0. \
The last line of the summary, alone on stdout, is the overall score: 0.3 of the structural score and \
0.7 of the token F1 of what agents observe; with two GENs both, separated by a tab.

With --models the answers are asked for first, at temperature 0 with a fixed seed, and kept: run \
again, it requests no finished story twice. Requests cost money, after a confirmation, unless --base-url names \
a server on this machine.

Exit codes: 0 done, 1 a file cannot be read, 2 usage, 3 nothing matches, the score is below \
--min-score, or OUT was prepared again since the model's job, 4 key, 5 network (run it again), 9 refused to spend, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = SCORE_HELP)]
pub struct ScoreArgs {
    /// Reference contexts: records as `prepare` reads them (a directory, JSONL, an archive), or an
    /// output directory of `prepare`, whose validation side is taken
    #[arg(
        value_name = "GOLD",
        required_unless_present = "models",
        conflicts_with_all = ["models", "val", "limit", "output_dir", "retry_invalid", "allow_mismatch", "AskingArgs"]
    )]
    pub gold: Option<PathBuf>,
    /// Generated contexts: records in the same form. With two, the second is compared with the first
    #[arg(value_name = "GEN", required_unless_present = "models", num_args = 1..=2)]
    pub generated: Vec<PathBuf>,

    /// Also read the .jsonl, .ndjson and .tar files (also compressed) below a directory
    #[arg(long)]
    pub containers: bool,

    /// Ask one or two models for the contexts, instead of GOLD and GEN. The second is compared with the first
    #[arg(long, value_name = "A,B", value_delimiter = ',', requires = "val", help_heading = "Models")]
    pub models: Vec<String>,
    /// A directory of `prepare`: its validation records are the references, their prompts are asked
    #[arg(long, value_name = "OUT", requires = "models", help_heading = "Models")]
    pub val: Option<PathBuf>,
    /// Only N of them; they are in an order that is as good as random
    #[arg(long, value_name = "N", help_heading = "Models", value_parser = whole::<NonZeroUsize>)]
    pub limit: Option<NonZeroUsize>,
    /// Keep the answers here, in a directory a model [default: OUT/generated]
    #[arg(short, long, value_name = "DIR", help_heading = "Models")]
    pub output_dir: Option<PathBuf>,
    /// Ask again about stories that ended without a context
    #[arg(long, help_heading = "Models")]
    pub retry_invalid: bool,
    /// Score even if OUT was prepared again after the model's job was created: its validation records may be
    /// part of the model's training data
    #[arg(long, help_heading = "Models")]
    pub allow_mismatch: bool,
    #[command(flatten)]
    pub asking: AskingArgs,

    /// Fail (exit 3) where the overall score of the last GEN is below X, from 0 to 1
    #[arg(long, value_name = "X", value_parser = part)]
    pub min_score: Option<f64>,
    /// Write a row for every record and GEN to FILE, separated by tabs
    #[arg(long, value_name = "FILE")]
    pub per_record: Option<PathBuf>,
    /// Write a page with the scores and the worst answers beside their references to FILE
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Seed of the intervals
    #[arg(long, value_name = "N", default_value_t = 42, help_heading = "Intervals", value_parser = whole::<u64>)]
    pub seed: u64,
    /// How often the records are drawn again for the intervals
    #[arg(long, value_name = "N", default_value = "1000", help_heading = "Intervals", value_parser = whole::<NonZeroU32>)]
    pub resamples: NonZeroU32,
    /// Threads that score; they do not change a digit [default: the cores available]
    #[arg(long, value_name = "N", value_parser = whole::<NonZeroUsize>)]
    pub threads: Option<NonZeroUsize>,
}

fn part(text: &str) -> Result<f64, String> {
    ruled(text, "between 0 and 1", |part| (0.0..=1.0).contains(&part))
}
