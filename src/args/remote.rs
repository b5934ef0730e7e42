//! The arguments of the commands that bring data to the service and start jobs.

use std::path::PathBuf;

use clap::Args;

use crate::args::{CorpusArgs, WatchArgs};
use ctxtune_pipeline::config::TuneChoices;
use ctxtune_pipeline::config::tokens::TokenizerArgs;
use ctxtune_pipeline::config::wandb::WandbArgs;
use ctxtune_pipeline::value::dollars;

/// Which service to speak to.
#[derive(Debug, Clone, Args)]
pub struct RemoteArgs {
    /// The API, with or without /v1 [default: $TOGETHER_BASE_URL, else that of Together AI]
    #[arg(long, value_name = "URL", help_heading = "Service", global = true)]
    pub base_url: Option<String>,
}

/// What may be spent.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Money")]
pub struct SpendingArgs {
    /// Start the job without asking
    #[arg(short, long)]
    pub yes: bool,
    /// Start the job without asking if the estimate is at most this; it caps the estimate, not the bill
    #[arg(long, value_name = "USD", value_parser = dollars)]
    pub max_cost: Option<f64>,
    /// Start another job where the last one of the same data and parameters has ended
    #[arg(long)]
    pub new_job: bool,
}

const UPLOAD_HELP: &str = "\
Examples:
  ctxtune upload out
  ctxtune upload train.jsonl val.jsonl
  TRAIN=$(ctxtune upload out | awk '$1 == \"train\" {print $2}')

stdout: a line a file, `train<TAB>id` and `val<TAB>id`.
Exit codes: 0 done, 1 failed, 2 usage, 3 unfit data, 4 key, 5 network, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = UPLOAD_HELP)]
pub struct UploadArgs {
    /// A directory of `prepare`, or JSONL files
    #[arg(value_name = "OUT|FILE", required = true)]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

const SUBMIT_HELP: &str = "\
Examples:
  ctxtune submit out
  ctxtune submit out --max-cost 5 --n-epochs 2
  JOB=$(ctxtune submit out --yes) && ctxtune monitor \"$JOB\"
  ctxtune submit out --dry-run
  ctxtune submit train.jsonl --val val.jsonl -o job --max-cost 5

stdout: the job's id. Run again, it finds the same job and starts no other.
Exit codes: 0 done, 1 failed, 2 usage or a value over a limit, 3 unfit data, 4 key, 5 network (run it again), \
6 the job has failed, 7 it was cancelled, 9 refused to spend, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = SUBMIT_HELP)]
pub struct SubmitArgs {
    /// A directory of `prepare` [default: output_dir of the configuration, else training/output]; or a JSONL file of
    /// chat lines, which is trained on as it is
    #[arg(value_name = "OUT|TRAIN.jsonl")]
    pub data: Option<PathBuf>,
    /// JSONL file to validate with, as it is; only beside TRAIN.jsonl
    #[arg(long, value_name = "FILE", requires = "data")]
    pub val: Option<PathBuf>,
    /// Directory for TRAIN.jsonl and its job [default: as for OUT]
    #[arg(short, long, value_name = "OUT")]
    pub output_dir: Option<PathBuf>,
    /// YAML file with settings; flags win over it
    #[arg(long, alias = "config", value_name = "FILE")]
    pub config_path: Option<PathBuf>,
    /// Print the requests, keys redacted, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Submit although samples may be longer than the model's sequences, and are then cut
    #[arg(long)]
    pub allow_truncation: bool,
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    #[command(flatten)]
    pub spending: SpendingArgs,
    #[command(flatten)]
    pub choices: TuneChoices,
    #[command(flatten)]
    pub wandb: WandbArgs,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

const FINETUNE_HELP: &str = "\
Examples:
  ctxtune finetune --config-path=training/finetune_config.yaml
  ctxtune finetune --data-dir=contexts --output-dir=out --max-cost 10
  JOB=$(ctxtune finetune contexts -o out --yes --detach)
  ctxtune finetune train.jsonl --val val.jsonl -o job --max-cost 5

stdout: the tuned model's name (with --detach the job's id).
Exit codes: those of prepare, submit and monitor.";

#[derive(Debug, Args)]
#[command(after_help = FINETUNE_HELP)]
pub struct FinetuneArgs {
    #[command(flatten)]
    pub corpus: CorpusArgs,
    /// JSONL file to validate with, as it is: SOURCE is then the training file, as it is too
    #[arg(long, value_name = "FILE")]
    pub val: Option<PathBuf>,
    /// Train on SOURCE, one JSONL file of chat lines, as it is, without a validation file
    #[arg(long, conflicts_with = "val")]
    pub as_is: bool,
    /// End after the submission, with the job's id on stdout
    #[arg(long)]
    pub detach: bool,
    /// Write no OUT/report.html at the end
    #[arg(long)]
    pub no_report: bool,
    /// For `ctxtune sweep init`: what all runs of W&B's sweep may cost together, by estimate
    #[arg(long, value_name = "USD", hide = true, value_parser = dollars, conflicts_with_all = ["yes", "max_cost"])]
    pub sweep_max_cost: Option<f64>,
    /// Submit although samples may be longer than the model's sequences, and are then cut
    #[arg(long)]
    pub allow_truncation: bool,
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    #[command(flatten)]
    pub spending: SpendingArgs,
    #[command(flatten)]
    pub choices: TuneChoices,
    #[command(flatten)]
    pub watch: WatchArgs,
    #[command(flatten)]
    pub wandb: WandbArgs,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

const DOCTOR_HELP: &str = "\
Examples:
  ctxtune doctor
  ctxtune doctor out --config-path=training/finetune_config.yaml

Takes the flags and the file of `submit`, asks the session, and creates nothing there or here.
Exit codes: 0 all well, warnings among it, 1 OUT cannot be written, 2 a value over a limit or an unknown \
model, 4 key, 5 network, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = DOCTOR_HELP)]
pub struct DoctorArgs {
    /// The output directory to show [default: output_dir of the configuration, else training/output]
    #[arg(value_name = "OUT")]
    pub output_dir: Option<PathBuf>,
    /// YAML file with settings; flags win over it
    #[arg(long, alias = "config", value_name = "FILE")]
    pub config_path: Option<PathBuf>,
    #[command(flatten)]
    pub choices: TuneChoices,
    #[command(flatten)]
    pub remote: RemoteArgs,
}
