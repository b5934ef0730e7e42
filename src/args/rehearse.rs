//! The arguments of `rehearse`.

use std::path::PathBuf;

use clap::Args;

use ctxtune_pipeline::value::whole;

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
