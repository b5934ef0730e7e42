//! The arguments of `models`, `init`, `report` and `rehearse`.

use std::path::PathBuf;

use clap::Args;

use crate::args::RemoteArgs;
use ctxtune_pipeline::value::whole;

const MODELS_HELP: &str = "\
Examples:
  ctxtune models
  ctxtune models Qwen/Qwen3-8B
  ctxtune models llama --for out

stdout: a line a model, those first that can be tuned and then deployed: \
`name<TAB>deploy<TAB>training<TAB>tokens` (training: `LoRA` with its highest rank, `full`); a table on a terminal.
Exit codes: 0 done, 2 no such model, 4 key, 5 network, 130 SIGINT, 143 SIGTERM.";

/// The arguments of `models`.
#[derive(Debug, Args)]
#[command(after_help = MODELS_HELP)]
pub struct ModelsArgs {
    /// Only models whose name contains this; a whole name shows all limits of the model
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Also show what tokens cost, by the last estimates on this machine, and an endpoint an hour; that of
    /// OUT's tuned model where it has one
    #[arg(long = "for", value_name = "OUT")]
    pub out: Option<PathBuf>,
    /// Which service to speak to.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

const INIT_HELP: &str = "\
Examples:
  ctxtune init
  ctxtune init -o settings.yaml

Every key with its meaning, its range and its default, commented out. Asks nothing, and overwrites nothing.
stdout: the file.
Exit codes: 0 done, 1 the file exists or cannot be written, 2 usage.";

/// The arguments of `init`.
#[derive(Debug, Args)]
#[command(after_help = INIT_HELP)]
pub struct InitArgs {
    /// The file to write
    #[arg(short, long, value_name = "FILE", default_value = "finetune_config.yaml")]
    pub output: PathBuf,
}

const REPORT_HELP: &str = "\
Examples:
  ctxtune report out
  ctxtune report out -o report.html --offline

The page opens from disk: it needs no network and no other file. With a key the service is asked for the curves of \
jobs, else they are those that were seen when a job was last watched here. `finetune` and `sweep run` write \
OUT/report.html at their end.

stdout: the path of the page.
Exit codes: 0 done, 1 failed, 2 usage, no prepared data, or FILE is no report, 4 key, 130 SIGINT, 143 SIGTERM.";

/// The arguments of `report`.
#[derive(Debug, Args)]
#[command(after_help = REPORT_HELP)]
pub struct ReportArgs {
    /// Output directories of `prepare`, with what is known of their jobs and sweeps
    #[arg(value_name = "OUT", required = true)]
    pub outs: Vec<PathBuf>,
    /// The page; one that is there is replaced if it is a report
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
    /// Ask no service, even with a key
    #[arg(long)]
    pub offline: bool,
    /// Which service to speak to.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

const REHEARSE_HELP: &str = "\
Examples:
  ctxtune rehearse
  ctxtune rehearse contexts -o out --svg curve.svg
  ctxtune rehearse --serve --port 8080 --job-seconds 60

Exit codes: those of finetune, and at the end those of score.";

#[derive(Debug, Args)]
#[command(after_help = REHEARSE_HELP)]
pub struct RehearseArgs {
    /// The corpus to rehearse with [default: 24 example records]
    #[arg(value_name = "SOURCE", conflicts_with = "serve")]
    pub source: Option<PathBuf>,
    /// Also read the .jsonl, .ndjson and .tar files (also compressed) below a directory
    #[arg(long, conflicts_with = "serve")]
    pub containers: bool,
    /// Keep the result here [default: a temporary directory]
    #[arg(short, long, value_name = "OUT", conflicts_with = "serve")]
    pub output_dir: Option<PathBuf>,
    /// YAML file with settings, as `finetune` takes it
    #[arg(long, alias = "config", value_name = "FILE", conflicts_with = "serve")]
    pub config_path: Option<PathBuf>,
    /// Write the loss curve to this file as SVG
    #[arg(long, value_name = "FILE", conflicts_with = "serve")]
    pub svg: Option<PathBuf>,
    /// Only serve: print the base URL and answer until a signal
    #[arg(long)]
    pub serve: bool,
    /// Port of 127.0.0.1 to serve on; 0 for a free one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = whole::<u16>)]
    pub port: u16,
    /// YAML or JSON file that says which requests go wrong, and how
    #[arg(long, value_name = "FILE")]
    pub faults: Option<PathBuf>,
    /// Seconds that a job takes
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    pub job_seconds: f64,
    /// The key that is accepted; not a real one
    #[arg(long, value_name = "KEY", default_value = ctxtune_rehearsal::KEY)]
    pub key: String,
}

/// A number of seconds, not negative.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Ok(seconds),
        _ => Err("expected a number of seconds, 0 or more".to_owned()),
    }
}
