//! The arguments of `report`.

use std::path::PathBuf;

use clap::Args;

use crate::args::RemoteArgs;

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
