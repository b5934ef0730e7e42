//! How a command ends where it fails: exit code, a stable name, what was said, and what to do. The numbers and names are
//! a contract with scripts.
//!
//! Every error of the engine (`data.rs`) and of the service (`service.rs`) gets its exit code and its hint here, so that a
//! workflow fails with the same words whoever calls it.

pub mod conversion;
mod data;
mod service;

use serde::Serialize;

/// Flags of commands that no configuration file has, by the command that is named for them.
pub const ONLY_FLAGS: [(&str, &[&str]); 2] = [
    (
        "finetune",
        &[
            "allow-truncation",
            "as-is",
            "base-url",
            "cancel-on-stop",
            "config-path",
            "detach",
            "files-from",
            "json",
            "max-cost",
            "new-job",
            "no-alert",
            "no-report",
            "poll",
            "quiet",
            "svg",
            "timeout",
            "val",
            "verbose",
            "wandb",
            "wandb-data",
            "wandb-entity",
            "yes",
        ],
    ),
    ("prepare", &["dry-run", "part-bytes", "pin", "scratch-dir", "show", "work-dir"]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The data is not fit: too many rejects, an empty side.
    Data = 3,
    Key = 4,
    /// The network or the service failed: try again.
    Network = 5,
    JobFailed = 6,
    JobCancelled = 7,
    /// Nobody waits any longer; the job runs.
    JobRunning = 8,
    /// Money would be spent that nobody agreed to.
    Unspent = 9,
    Interrupted = 130,
    Terminated = 143,
}

#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// How the program ends.
    #[serde(skip)]
    pub exit: Exit,
    /// A stable name for scripts.
    pub code: &'static str,
    /// What failed, where, and what was said.
    pub message: String,
    /// What to do, where there is something.
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, code: &'static str, message: impl ToString, hint: impl Into<String>) -> Failure {
        Failure { exit, code, message: message.to_string(), hint: Some(hint.into()) }
    }

    pub fn usage(code: &'static str, message: impl ToString, hint: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, code, message, hint)
    }

    pub fn failed(code: &'static str, message: impl ToString, hint: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, code, message, hint)
    }

    pub fn data(code: &'static str, message: impl ToString, hint: impl Into<String>) -> Failure {
        Failure::new(Exit::Data, code, message, hint)
    }

    pub fn network(code: &'static str, message: impl ToString, hint: impl Into<String>) -> Failure {
        Failure::new(Exit::Network, code, message, hint)
    }

    pub fn unspent(code: &'static str, message: impl ToString, hint: impl Into<String>) -> Failure {
        Failure::new(Exit::Unspent, code, message, hint)
    }
}
