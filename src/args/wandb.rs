//! The arguments about Weights & Biases.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::args::Voice;

/// Who logs a job to Weights & Biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// This program, while it watches the job
    Native,
    /// The service that trains: the key is handed to it
    Together,
    /// Nobody
    Off,
}

/// Where a job's curves are logged.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Weights & Biases")]
pub struct WandbArgs {
    /// Who logs the job; `together` hands the key over [default: native where there is a key]
    #[arg(long, value_name = "WHO")]
    pub wandb: Option<By>,
    /// Project of the run [default: $WANDB_PROJECT, else social-world-model-finetuning]
    #[arg(long, value_name = "NAME")]
    pub wandb_project: Option<String>,
    /// What the run is called [default: $WANDB_NAME, else the suffix with its tag]
    #[arg(long, value_name = "NAME")]
    pub wandb_run_name: Option<String>,
    /// User or team whose run it is [default: $WANDB_ENTITY, else that of the key]
    #[arg(long, value_name = "NAME")]
    pub wandb_entity: Option<String>,
    /// Also upload the prepared data (texts, keys, reports) to the run; without it only the manifest
    #[arg(long)]
    pub wandb_data: bool,
    /// Send no alert at the end of the job or the sweep
    #[arg(long)]
    pub no_alert: bool,
}

const SYNC_HELP: &str = "\
Examples:
  ctxtune wandb-sync out
  ctxtune wandb-sync

Rows that could not be sent while a job was watched, and runs of WANDB_MODE=offline, are kept in OUT/wandb. \
Run it when no monitor logs the job any more: one that still does gives way. A run that W&B refuses is reported, \
and the others are sent.
stdout: a line a run that was behind, `run<TAB>rows<TAB>page`.
Exit codes: 0 all is there, 1 a run was refused, or failed, 2 usage, 4 key, 5 network, 130 SIGINT, 143 SIGTERM.";

/// The arguments of `wandb-sync`.
#[derive(Debug, Args)]
#[command(after_help = SYNC_HELP)]
pub struct WandbSyncArgs {
    /// A directory of `prepare` [default: where jobs without one are kept on this machine]
    #[arg(value_name = "OUT")]
    pub output_dir: Option<PathBuf>,
    /// How much to say.
    #[command(flatten)]
    pub voice: Voice,
}
