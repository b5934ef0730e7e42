//! The arguments of `sweep`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::{CorpusArgs, RemoteArgs, SpendingArgs};
use ctxtune_pipeline::config::TuneChoices;
use ctxtune_pipeline::config::wandb::WandbArgs;
use ctxtune_pipeline::value::{dollars, positive, whole};

const SWEEP_HELP: &str = "\
Examples:
  ctxtune sweep run sweep.yaml contexts -o out --max-cost 60
  ctxtune sweep run sweep.yaml contexts -o out --dry-run";

#[derive(Debug, Args)]
#[command(after_help = SWEEP_HELP)]
pub struct SweepArgs {
    /// What to do
    #[command(subcommand)]
    pub command: SweepCommand,
}

/// What to do with a sweep.
#[derive(Debug, Subcommand)]
pub enum SweepCommand {
    /// Run a sweep to its ranked table; resumes wherever it was stopped
    Run(Box<SweepRunArgs>),
    /// Write a sweep that the stock `wandb sweep` and `wandb agent` run with this program
    Init(Box<SweepInitArgs>),
}

const RUN_HELP: &str = "\
Examples:
  ctxtune sweep run sweep.yaml contexts -o out --max-cost 60
  ctxtune sweep run sweep.yaml contexts -o out --count 5 --parallel 2 --yes

stdout: the best run's tuned model, where there is one. Run again, it resumes: no job is started twice.
Exit codes: 0 at least one run completed, 2 usage or a combination over a limit, 3 unfit data, 4 key, 5 network, \
6 every run failed, 9 the plan costs more than --max-cost, or it was not confirmed, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = RUN_HELP)]
pub struct SweepRunArgs {
    /// The sweep: a YAML file with `method`, `metric` and `parameters`
    #[arg(value_name = "SWEEP")]
    pub file: PathBuf,
    /// Where the records are and how they become examples; without a source OUT is taken as it is.
    #[command(flatten)]
    pub corpus: CorpusArgs,
    /// At most this many runs; `random` and `bayes` need it, unless the file has a `run_cap`
    #[arg(long, value_name = "N", help_heading = "Sweep", value_parser = positive)]
    pub count: Option<u64>,
    /// Jobs at the same time [default: 1]
    #[arg(long, value_name = "K", default_value_t = 1, hide_default_value = true, help_heading = "Sweep", value_parser = whole::<usize>)]
    pub parallel: usize,
    /// Seed of `random` draws [default: 42]
    #[arg(long, value_name = "N", default_value_t = 42, hide_default_value = true, help_heading = "Sweep", value_parser = whole::<u64>)]
    pub sweep_seed: u64,
    /// Show the plan and send nothing
    #[arg(long, help_heading = "Sweep")]
    pub dry_run: bool,
    /// Write the validation curves of all runs to this file as SVG
    #[arg(long, value_name = "FILE", help_heading = "Sweep")]
    pub svg: Option<PathBuf>,
    /// Write no OUT/report.html at the end
    #[arg(long, help_heading = "Sweep")]
    pub no_report: bool,
    #[command(flatten)]
    pub spending: SpendingArgs,
    /// What the jobs are asked to do, where the sweep does not say.
    #[command(flatten)]
    pub choices: TuneChoices,
    /// Who logs, and suggests values.
    #[command(flatten)]
    pub wandb: WandbArgs,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

const INIT_HELP: &str = "\
Examples:
  ctxtune sweep init s.yml --data-dir in -o out --count 8 --max-cost 9 > a.yml
  ctxtune sweep init s.yml --data-dir in -o out --count 2 --max-cost 5 --json

stdout: the sweep, for `wandb sweep a.yml`, then `wandb agent ENTITY/PROJECT/SWEEP_ID`. Its agents' runs share \
one budget, and the uploads of one OUT.";

#[derive(Debug, Args)]
#[command(after_help = INIT_HELP)]
pub struct SweepInitArgs {
    /// The sweep: a YAML file with `method`, `metric` and `parameters`
    #[arg(value_name = "SWEEP")]
    pub file: PathBuf,
    /// Where the records are
    #[arg(long, value_name = "SOURCE", required = true)]
    pub data_dir: PathBuf,
    /// Directory for the data, shared by all runs
    #[arg(short, long, value_name = "OUT", required = true)]
    pub output_dir: PathBuf,
    /// YAML file with settings for all runs
    #[arg(long, alias = "config", value_name = "FILE")]
    pub config_path: Option<PathBuf>,
    /// At most this many runs
    #[arg(long, value_name = "N", required = true, value_parser = positive)]
    pub count: u64,
    /// What the whole sweep may cost, by estimate: an agent's runs have nobody to ask
    #[arg(long, value_name = "USD", required = true, value_parser = dollars)]
    pub max_cost: f64,
}
