//! The arguments of `distributed`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::args::data::{CorpusArgs, PartsArgs, ScratchArgs};
use ctxtune_pipeline::value::whole;

const DISTRIBUTED_HELP: &str = "\
Examples:
  ctxtune distributed plan contexts -o out --work-dir work
  ctxtune distributed convert --work-dir work --part 0
  ctxtune distributed split --work-dir work
  ctxtune distributed write --work-dir work --shard 0-1
  ctxtune distributed status --work-dir work --missing shards
  ctxtune distributed publish --work-dir work

stdout: a line of JSON for each thing that is done; the output directory (publish); numbers (status).
Exit codes: 0 done, or done before, 1 two attempts differ, 2 usage, or another plan, 3 data, 4 keys (of a \
bucket), 5 try again: nothing was committed, 130 SIGINT, 143 SIGTERM.";

/// The arguments of `distributed`.
#[derive(Debug, Args)]
#[command(after_help = DISTRIBUTED_HELP)]
pub struct DistributedArgs {
    /// What to do
    #[command(subcommand)]
    pub command: DistributedCommand,
}

#[derive(Debug, Subcommand)]
pub enum DistributedCommand {
    #[command(flatten)]
    Step(StepCommand),
    /// Print the script of an array job for what is missing, or submit it
    #[command(after_help = SLURM_HELP)]
    Slurm(SlurmArgs),
}

/// The steps of a preparation in parts.
#[derive(Debug, Subcommand)]
pub enum StepCommand {
    /// Divide a corpus into parts
    Plan(Box<PlanArgs>),
    /// Convert parts; any number at once, on any machine
    Convert(ConvertArgs),
    /// Decide which lines train, once all parts are converted
    Split(SplitArgs),
    /// Write shards; any number at once, on any machine
    Write(WriteArgs),
    /// Publish the result, once all shards are written
    Publish(WorkArgs),
    /// Print what is missing
    Status(StatusArgs),
}

/// The working directory.
#[derive(Debug, Args)]
pub struct WorkArgs {
    /// Working directory, on the file system of OUT, or in a bucket
    #[arg(long, value_name = "WORK")]
    pub work_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub corpus: CorpusArgs,
    /// Working directory, on the file system of OUT, or in a bucket [default: OUT.ctxtune-work]
    #[arg(long, value_name = "WORK", help_heading = "Parts")]
    pub work_dir: Option<PathBuf>,
    #[command(flatten)]
    pub parts: PartsArgs,
    /// Not possible here: nothing would be left to convert
    #[arg(long, hide = true)]
    pub dry_run: bool,
    /// Not possible here: nothing is converted yet
    #[arg(long, hide = true)]
    pub show: Option<String>,
}

/// Threads and temporary files of one step.
#[derive(Debug, Args)]
pub struct MeansArgs {
    #[command(flatten)]
    pub work: WorkArgs,
    /// Threads; they do not change a byte [default: the cores available]
    #[arg(long, value_name = "N", value_parser = whole::<NonZeroUsize>)]
    pub threads: Option<NonZeroUsize>,
    #[command(flatten)]
    pub scratch: ScratchArgs,
}

#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// Parts to convert, from 0: 3,7-9
    #[arg(long, value_name = "N,N-N")]
    pub part: String,
    #[command(flatten)]
    pub means: MeansArgs,
}

#[derive(Debug, Args)]
pub struct SplitArgs {
    #[command(flatten)]
    pub means: MeansArgs,
}

#[derive(Debug, Args)]
pub struct WriteArgs {
    /// Shards to write, from 0: 3,7-9
    #[arg(long, value_name = "N,N-N")]
    pub shard: String,
    #[command(flatten)]
    pub means: MeansArgs,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub work: WorkArgs,
    /// What to look for
    #[arg(long, value_name = "WHAT")]
    pub missing: MissingArg,
}

const SLURM_HELP: &str = "\
Examples:
  ctxtune distributed slurm --work-dir work --submit -- --partition=short --time=01:00:00
  ctxtune distributed slurm --work-dir work | sbatch

stdout: the script; with --submit the output directory.
Exit codes: those of `ctxtune distributed`; 5 also where arrays commit nothing any more.";

#[derive(Debug, Args)]
pub struct SlurmArgs {
    #[command(flatten)]
    pub work: WorkArgs,
    /// Submit arrays until nothing is missing, split, write, publish
    #[arg(long)]
    pub submit: bool,
    /// Directory that all nodes see, for the logs of tasks [default: logs in WORK]
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Options of sbatch
    #[arg(last = true, value_name = "SBATCH OPTION")]
    pub options: Vec<String>,
}

/// What can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MissingArg {
    /// Parts that are not converted
    Parts,
    /// Shards that are not written
    Shards,
}
