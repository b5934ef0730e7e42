//! The jobs this machine started, newest last, so that `--last` needs no other name.
//!
//! A convenience beside the ledgers: one JSON line a job in the user's state directory. A line
//! that cannot be read is passed over, and nobody relies on it for money.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use ctxtune_service::together::JobId;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Started {
    /// The job.
    pub job: JobId,
    /// The API's origin.
    pub api: String,
    /// When (RFC 3339).
    pub started_at: String,
    /// The output directory, absolute.
    pub output_dir: String,
    /// What it was estimated at, in dollars, if that was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_dollars: Option<f64>,
}

/// Adds `entry` as a line to the file at `path`, making the directories above it.
pub fn add(path: &Path, entry: &impl Serialize) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut line = serde_json::to_vec(entry).map_err(io::Error::other)?;
    line.push(b'\n');
    // One write: two processes that add at the same time do not mix their lines.
    options.open(path)?.write_all(&line)
}

/// The newest job of the API at `api`.
pub fn newest(path: &Path, api: &str) -> io::Result<Option<Started>> {
    last(path, |started| started.api == api)
}

pub fn started(path: &Path, job: &JobId) -> io::Result<Option<Started>> {
    last(path, |started| started.job == *job)
}

/// All jobs that were started here, the newest last.
pub fn all(path: &Path) -> io::Result<Vec<Started>> {
    lines(path)
}

/// The lines of the file at `path` that can be read, the newest last.
pub fn lines<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn last(path: &Path, is_it: impl Fn(&Started) -> bool) -> io::Result<Option<Started>> {
    Ok(all(path)?.into_iter().rfind(is_it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_job_of_the_same_api_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/ctxtune/jobs.jsonl");
        assert_eq!(newest(&path, "a").unwrap(), None);
        let started = |job: &str, api: &str| Started {
            job: JobId::new(job).unwrap(),
            api: api.to_owned(),
            started_at: "2026-11-24T00:00:00Z".to_owned(),
            output_dir: "/o".to_owned(),
            estimated_dollars: None,
        };
        for (job, api) in [("ft-1", "a"), ("ft-2", "a"), ("ft-3", "b")] {
            add(&path, &started(job, api)).unwrap();
        }
        std::fs::write(&path, format!("{}cut", std::fs::read_to_string(&path).unwrap())).unwrap();
        assert_eq!(newest(&path, "a").unwrap(), Some(started("ft-2", "a")));
    }
}
