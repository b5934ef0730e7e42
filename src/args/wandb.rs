//! The arguments about Weights & Biases.

use std::path::PathBuf;

use clap::Args;

const SYNC_HELP: &str = "\
Examples:
  ctxtune wandb-sync out
  ctxtune wandb-sync

Rows that could not be sent while a job was watched, and runs of WANDB_MODE=offline, are kept in OUT/wandb. \
Run it when no monitor logs the job any more: one that still does gives way. A run that W&B refuses is reported, \
and the others are sent.
stdout: a line a run that was behind, `run<TAB>rows<TAB>page`.
Exit codes: 0 all is there, 1 a run was refused, or failed, 2 usage, 4 key, 5 network, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = SYNC_HELP)]
pub struct WandbSyncArgs {
    /// A directory of `prepare` [default: where jobs without one are kept on this machine]
    #[arg(value_name = "OUT")]
    pub output_dir: Option<PathBuf>,
}
