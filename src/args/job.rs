//! The arguments of the commands about jobs, files and runs that exist.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::args::{RemoteArgs, target};
use ctxtune_pipeline::config::wandb::WandbArgs;
use ctxtune_pipeline::value::whole;

/// How to watch a job.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Watching")]
pub struct WatchArgs {
    /// Ask this often [default: every 5 s, growing to 60 s while nothing happens]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub poll: Option<Duration>,
    /// Stop watching after this time, sleep of the machine included; the job runs on (exit 8)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Write the loss curve to this file as SVG
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Cancel the job when somebody presses Stop on its page at Weights & Biases
    #[arg(long)]
    pub cancel_on_stop: bool,
}

/// A time as people write it: `90s`, `4h`, `1h 30m`; a bare number is seconds.
pub(in crate::args) fn duration(text: &str) -> Result<Duration, String> {
    let explain = || "expected a time such as 90s, 15m or 4h".to_owned();
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| explain())?,
        Err(_) => {
            let span: jiff::SignedDuration = text.parse().map_err(|_| explain())?;
            Duration::try_from(span).map_err(|_| explain())?
        }
    };
    if duration.is_zero() { Err(explain()) } else { Ok(duration) }
}

/// Which job is meant.
#[derive(Debug, Args)]
pub struct NamedJob {
    /// A job's id, or a directory of `prepare`
    #[arg(value_name = "JOB|OUT", required_unless_present = "last", value_parser = target)]
    pub target: Option<String>,
    /// The newest job that this machine started
    #[arg(long, conflicts_with = "target")]
    pub last: bool,
}

const MONITOR_HELP: &str = "\
Examples:
  ctxtune monitor ft-0123abcd
  ctxtune monitor out
  ctxtune monitor --last --timeout 4h
  ctxtune monitor out --events | grep '\"type\":\"eval\"'

stdout: the tuned model's name. Stopping never cancels the job. With a key of Weights & Biases it is logged \
there; trouble with that changes nothing else.
Exit codes: 0 completed, 2 no such job, 4 key, 5 network, 6 the job failed, 7 it was cancelled, \
8 stopped waiting while it runs, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = MONITOR_HELP)]
pub struct MonitorArgs {
    #[command(flatten)]
    pub job: NamedJob,
    /// Print everything that happens on stdout, one JSON object a line, instead of the model's name
    #[arg(long, conflicts_with = "json")]
    pub events: bool,
    #[command(flatten)]
    pub watch: WatchArgs,
    #[command(flatten)]
    pub wandb: WandbArgs,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

const STATUS_HELP: &str = "\
Examples:
  ctxtune status ft-0123abcd
  ctxtune status --last
  [ \"$(ctxtune status -q out)\" = completed ] && ctxtune download out

stdout: the status, one word. It does not wait: `ctxtune monitor` waits.
Exit codes: 0 whatever the status, 2 no such job, 4 key, 5 network, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = STATUS_HELP)]
pub struct JobArgs {
    #[command(flatten)]
    pub job: NamedJob,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

const CANCEL_HELP: &str = "\
Examples:
  ctxtune cancel ft-0123abcd
  ctxtune cancel --yes \"$JOB\"

What was trained until then is billed. stdout: the status afterwards.
Exit codes: 0 done, 1 it has ended or is being cancelled, 2 no such job, 4 key, 5 network, \
9 not confirmed, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = CANCEL_HELP)]
pub struct CancelArgs {
    /// The job's id
    #[arg(value_name = "JOB")]
    pub job: String,
    /// Cancel without asking
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

const JOBS_HELP: &str = "\
Examples:
  ctxtune jobs
  ctxtune jobs -n 0 | awk -F '\\t' '$2 == \"running\" {print $1}'
  ctxtune jobs --since 2026-11-01

stdout: a line a job, `id<TAB>status<TAB>created<TAB>dollars<TAB>base model<TAB>tuned model`; a table on a terminal. \
A `~` marks a price that is not final: the estimate of a job that this machine started, or what a running job has cost \
so far. stderr: the total.
Exit codes: 0 done, 4 key, 5 network, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = JOBS_HELP)]
pub struct JobsArgs {
    /// Show this many, newest first; 0 shows all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = whole::<usize>)]
    pub limit: usize,
    /// List and add up only jobs created since then: a date (UTC) or a moment, 2026-11-01T12:00:00Z
    #[arg(long, value_name = "DATE", value_parser = since)]
    pub since: Option<Timestamp>,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// A date, which begins at midnight UTC, or a moment.
fn since(text: &str) -> Result<Timestamp, String> {
    let explain = |_| "expected a date such as 2026-11-01, or 2026-11-01T12:00:00Z".to_owned();
    format!("{text}T00:00:00Z").parse().or_else(|_| text.parse()).map_err(explain)
}

const FILES_HELP: &str = "\
Examples:
  ctxtune files
  ctxtune files delete file-0123abcd file-4567ef01

stdout: a line a file, `id<TAB>bytes<TAB>created<TAB>purpose<TAB>processing<TAB>name`; a table on a terminal. \
`delete` prints the ids that it deleted. A file that is needed again is uploaded again.
Exit codes: 0 done, 1 failed, 2 no such file, 4 key, 5 network, 9 not confirmed, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = FILES_HELP)]
pub struct FilesArgs {
    /// What to do; without it the files are listed.
    #[command(subcommand)]
    pub command: Option<FilesCommand>,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What to do with files.
#[derive(Debug, Subcommand)]
pub enum FilesCommand {
    /// List the files, newest first
    List,
    /// Delete files; asks before
    Delete {
        /// Their ids
        #[arg(value_name = "FILE_ID", required = true)]
        ids: Vec<String>,
        /// Delete without asking
        #[arg(short, long)]
        yes: bool,
    },
}

const CHECKPOINTS_HELP: &str = "\
Examples:
  ctxtune checkpoints ft-0123abcd
  ctxtune checkpoints out | tail -1 | cut -f 1

stdout: a line a checkpoint, the last step first: `step<TAB>created<TAB>kind<TAB>path`; a table on a terminal.
Exit codes: 0 done, 2 no such job, 4 key, 5 network, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = CHECKPOINTS_HELP)]
pub struct CheckpointsArgs {
    /// A job's id, or a directory of `prepare`
    #[arg(value_name = "JOB|OUT", value_parser = target)]
    pub target: String,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

const DOWNLOAD_HELP: &str = "\
Examples:
  ctxtune download ft-0123abcd --adapter --extract adapter
  ctxtune download out --checkpoint 40 -o adapter.tar.zst

A download that was cut resumes where it stopped. stdout: the file, or with --extract DIR.
Exit codes: 0 done, 1 another file or DIR is in the way, 2 no such job or checkpoint, 4 key, 5 network, \
6 the job failed, 7 it was cancelled, 8 it still runs, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = DOWNLOAD_HELP)]
pub struct DownloadArgs {
    /// A job's id, or a directory of `prepare`
    #[arg(value_name = "JOB|OUT", value_parser = target)]
    pub target: String,
    /// The checkpoint of this training step instead of the last one
    #[arg(long, value_name = "STEP", value_parser = whole::<u64>)]
    pub checkpoint: Option<u64>,
    /// Only what LoRA trained; the default where the model's LoRA is not merged
    #[arg(long, conflicts_with = "merged")]
    pub adapter: bool,
    /// The whole model, which is the default where there is one
    #[arg(long)]
    pub merged: bool,
    /// Where to write it, a file or a directory [default: the model's name in this directory]
    #[arg(short, long = "output", value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Unpack the archive to this new directory, and keep it only with --output
    #[arg(long, value_name = "DIR")]
    pub extract: Option<PathBuf>,
    #[command(flatten)]
    pub remote: RemoteArgs,
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

#[derive(Debug, Args)]
#[command(after_help = SYNC_HELP)]
pub struct WandbSyncArgs {
    /// A directory of `prepare` [default: where jobs without one are kept on this machine]
    #[arg(value_name = "OUT")]
    pub output_dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(duration(text).ok(), seconds.map(Duration::from_secs), "{text}");
        };
        check("90", Some(90));
        check("90s", Some(90));
        check("4h", Some(4 * 3600));
        check("1h 30m", Some(5400));
        check("0", None);
        check("-3s", None);
        check("soon", None);
        check("1e400", None);
    }
}
