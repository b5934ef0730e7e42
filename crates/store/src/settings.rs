//! What a place is opened with. Nothing here reads an environment or a clock by itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What a place is opened with.
#[derive(Clone)]
pub struct Settings {
    /// Variables by name: those of the environment that begin with `AWS_`, `GOOGLE_` or `AZURE_`. They mean what they
    /// mean to the tools of these services; `AWS_MAX_ATTEMPTS` is 10 where it is not there.
    pub variables: BTreeMap<String, String>,
    /// The directory of the user, for `.aws`.
    pub home: Option<PathBuf>,
    /// A proxy's URL, and hosts with commas that are reached without it.
    pub proxy: Option<(String, String)>,
    /// The AWS CLI, which is asked for the keys of a profile.
    pub aws: OsString,
    /// Where an object is kept until it is put.
    pub scratch: PathBuf,
    /// How long an answer, or its next bytes, are waited for before the request is made again.
    pub patience: Duration,
    /// The clock.
    pub now: fn() -> SystemTime,
    /// Whether somebody asks the program to stop: calls end with the kind `Interrupted` then.
    pub is_stopped: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Settings {
    /// A variable that is there and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}
