//! What is chosen on the command line about Weights & Biases.

use clap::{Args, ValueEnum};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// This program, while it watches the job
    Native,
    /// The service that trains: the key is sent to it
    Together,
    /// Nobody
    Off,
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Weights & Biases")]
pub struct WandbArgs {
    /// Who logs the job; `together` sends your key to the service [default: native where there is a key]
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
