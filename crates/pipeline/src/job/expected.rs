//! How long a job may take, said before anybody agrees to it.
//!
//! The service estimates no time before a job exists. What it does say is how long earlier jobs took: the
//! newest complete one of the same model is the best guess. Without one there are the figures that were
//! published, with their date. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::job::monitor::spoken;
use ctxtune_service::together::{Ending, Job, JobId};

/// What was published when this program's task was described: the queue, and training for three epochs.
const QUEUE: [Duration; 2] = [Duration::from_secs(5 * 60), Duration::from_secs(30 * 60)];
const TRAINING: [Duration; 2] = [Duration::from_secs(2 * 3600), Duration::from_secs(4 * 3600)];
const PUBLISHED: &str = "2025";
pub const DOCUMENTED: &str = "the service's documents of November 2026: the queue is mostly under 1h, a small LoRA job takes 10m to 30m";
/// Beyond this a job did not train all the time.
const LONGEST: Duration = Duration::from_secs(48 * 3600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// From its creation to its start: the least and the most.
    pub queue: [Duration; 2],
    /// From its start to its end: the least and the most.
    pub training: [Duration; 2],
    /// The job that took so long, and when it ended; nothing where the figures are the published ones.
    pub job: Option<(JobId, Timestamp)>,
}

impl Expected {
    pub fn published() -> Expected {
        Expected { queue: QUEUE, training: TRAINING, job: None }
    }

    /// What the newest complete job of `model` among `jobs` took, its training in proportion to the tokens where
    /// both are known; else the published figures.
    pub fn of(jobs: &[Job], model: &str, train_tokens: Option<u64>) -> Expected {
        let alike = jobs.iter().filter(|job| job.model().as_deref() == Some(model));
        let newest = alike
            .filter_map(|job| took(job, train_tokens))
            .max_by_key(|expected| expected.job.as_ref().map(|(_, ended)| *ended));
        newest.unwrap_or_else(Expected::published)
    }

    /// The year or the day that the figures are of.
    pub fn as_of(&self) -> String {
        self.job.as_ref().map_or(PUBLISHED.to_owned(), |(_, ended)| ended.strftime("%F").to_string())
    }

    pub fn report(&self) -> ExpectedReport {
        let seconds = |range: [Duration; 2]| range.map(|time| time.as_secs());
        ExpectedReport {
            queue_seconds: seconds(self.queue),
            training_seconds: seconds(self.training),
            from: if self.job.is_some() { "job" } else { "published" },
            job: self.job.as_ref().map(|(job, _)| job.clone()),
            as_of: self.as_of(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpectedReport {
    /// From its creation to its start: the least and the most, in seconds.
    pub queue_seconds: [u64; 2],
    /// From its start to its end: the least and the most, in seconds.
    pub training_seconds: [u64; 2],
    /// `job`: what another job took; `published`: the service's own figures.
    pub from: &'static str,
    /// That job; `null` for the service's own figures.
    pub job: Option<JobId>,
    /// The day of the figures.
    pub as_of: String,
}

fn took(job: &Job, train_tokens: Option<u64>) -> Option<Expected> {
    let (created, started, ended) = (job.created_at()?, job.started_at()?, job.updated_at()?);
    let between = |from: Timestamp, to: Timestamp| Duration::try_from(to.duration_since(from)).ok();
    let queue = between(created, started)?;
    let training = between(started, ended).filter(|training| !training.is_zero() && *training < LONGEST)?;
    let tokens = train_tokens.zip(job.token_count()).filter(|(_, of_job)| *of_job > 0);
    let factor = tokens.map_or(1.0, |(wanted, of_job)| wanted as f64 / of_job as f64);
    let training = Duration::try_from_secs_f64(training.as_secs_f64() * factor).ok()?;
    let is_complete = job.status.ending() == Some(Ending::Completed);
    is_complete.then(|| Expected {
        queue: [queue; 2],
        training: [training; 2],
        job: Some((job.id.clone(), ended)),
    })
}

impl std::fmt::Display for Expected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let about = |range: &[Duration; 2]| match range.map(|time| minutes(&time)) {
            [least, most] if least == most => format!("about {least}"),
            [least, most] => format!("{least} to {most}"),
        };
        let (queue, training) = (about(&self.queue), about(&self.training));
        match &self.job {
            Some((job, _)) => {
                write!(formatter, "{queue} in the queue, then {training}: as {job} took, {}", self.as_of())
            }
            None => write!(
                formatter,
                "{queue} in the queue, then {training} for 3 epochs: figures of {PUBLISHED}, not the service's"
            ),
        }
    }
}

/// In whole minutes, or in seconds below one.
fn minutes(time: &Duration) -> String {
    let seconds = time.as_secs();
    spoken(&if seconds < 60 { *time } else { Duration::from_secs((seconds + 30) / 60 * 60) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(id: &str, changes: Value) -> Job {
        let mut object = json!({
            "id": id, "status": "completed", "model": "m", "token_count": 1000,
            "created_at": "2026-11-20T10:00:00Z", "started_at": "2026-11-20T10:06:10Z", "updated_at": "2026-11-20T10:31:10Z",
        });
        object.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        Job::read(&object).unwrap()
    }

    #[track_caller]
    fn check(jobs: &[Job], tokens: Option<u64>, expected: &str) {
        assert_eq!(Expected::of(jobs, "m", tokens).to_string(), expected);
    }

    const PUBLISHED_TEXT: &str =
        "5m to 30m in the queue, then 2h to 4h for 3 epochs: figures of 2025, not the service's";

    #[test]
    fn the_newest_complete_job_of_the_model_says_how_long_it_takes() {
        let newest = job("ft-1", json!({}));
        let older = job("ft-2", json!({ "updated_at": "2026-11-20T10:07:00Z" }));
        let failed = job("ft-3", json!({ "status": "error", "updated_at": "2026-11-20T23:00:00Z" }));
        let other = job("ft-4", json!({ "model": "n", "updated_at": "2026-11-21T09:00:00Z" }));
        let all = [older, newest, failed, other];
        let expected = "about 6m in the queue, then about 25m: as ft-1 took, 2026-11-20";
        check(&all, None, expected);
        check(&all, Some(1000), expected);
        check(&all, Some(4000), "about 6m in the queue, then about 1h 40m: as ft-1 took, 2026-11-20");
        check(&all, Some(20), "about 6m in the queue, then about 30s: as ft-1 took, 2026-11-20");
    }

    #[test]
    fn without_such_a_job_the_published_figures_are_said_with_their_date() {
        check(&[], None, PUBLISHED_TEXT);
        for changes in [
            json!({ "started_at": null }),
            json!({ "status": "running" }),
            json!({ "updated_at": "2026-11-20T10:00:00Z" }),
            json!({ "updated_at": "2026-12-20T10:00:00Z" }),
            json!({ "created_at": "2026-11-20T11:00:00Z" }),
        ] {
            check(&[job("ft-1", changes)], None, PUBLISHED_TEXT);
        }
    }
}
