//! The arguments of `score`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::Args;

use crate::cli::args::Voice;

const SCORE_HELP: &str = "\
Examples:
  ctxtune score contexts generated
  ctxtune score out generated --min-score 0.8
  ctxtune score out base tuned --per-record scores.tsv
  ctxtune score contexts.jsonl generated.jsonl.zst --json | jq '.sets[0].scores'

GOLD and GEN are matched by their keys. What GEN lacks, and what is no usable context, counts 0.
The last line of the summary, alone on stdout, is the overall score: 0.3 of the structural score and
0.7 of the token F1 of what agents observe; with two GENs both, separated by a tab.

Exit codes: 0 done, 1 a file cannot be read, 2 usage, 3 nothing matches, or the score is below
--min-score, 130 SIGINT, 143 SIGTERM.";

/// The arguments of `score`.
#[derive(Debug, Args)]
#[command(after_help = SCORE_HELP)]
pub struct ScoreArgs {
    /// Reference contexts: records as `prepare` reads them (a directory, JSONL, an archive), or an
    /// output directory of `prepare`, whose validation side is taken
    #[arg(value_name = "GOLD")]
    pub gold: PathBuf,
    /// Generated contexts: records in the same form. With two, the second is compared with the first
    #[arg(value_name = "GEN", required = true, num_args = 1..=2)]
    pub generated: Vec<PathBuf>,

    /// Fail (exit 3) where the overall score of the last GEN is below X, from 0 to 1
    #[arg(long, value_name = "X", value_parser = part)]
    pub min_score: Option<f64>,
    /// Write a row for every record and GEN to FILE, separated by tabs
    #[arg(long, value_name = "FILE")]
    pub per_record: Option<PathBuf>,
    /// Seed of the intervals
    #[arg(long, value_name = "N", default_value_t = 42, help_heading = "Intervals")]
    pub seed: u64,
    /// How often the records are drawn again for the intervals
    #[arg(long, value_name = "N", default_value = "1000", help_heading = "Intervals")]
    pub resamples: NonZeroU32,
    /// Threads that score; they do not change a digit [default: the cores available]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// How much to say.
    #[command(flatten)]
    pub voice: Voice,
}

fn part(text: &str) -> Result<f64, String> {
    let part: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&part) { Ok(part) } else { Err("not between 0 and 1".to_owned()) }
}
