//! `ctxtune checkpoints`: the saved states of a job's weights, the last step first.

use std::cmp::Reverse;

use crate::args::CheckpointsArgs;
use crate::screen::report::Terminal;
use crate::screen::table::{Align, Cell, Table, moment};
use crate::session;
use ctxtune_pipeline::{Exit, Failure};
use ctxtune_service::together::{Checkpoint, JobId, Tries, jobs, read_time};
use serde::Serialize;

const COLUMNS: [(&str, Align); 4] =
    [("step", Align::Right), ("created (UTC)", Align::Left), ("kind", Align::Left), ("path", Align::Left)];

#[derive(Serialize)]
struct Report<'c> {
    /// The job.
    job: JobId,
    /// Its checkpoints, the last step first.
    checkpoints: Vec<Saved<'c>>,
}

#[derive(Serialize)]
struct Saved<'c> {
    /// The training step.
    step: Option<u64>,
    /// When, as the service writes it; empty where it does not say.
    created_at: &'c str,
    /// `model` or `adapter`; the label where the service says only that.
    kind: &'c str,
    /// What the service calls it.
    label: &'c str,
    /// Where the service keeps it.
    path: &'c str,
    /// Its object id; `null` where it has none.
    object_id: Option<&'c str>,
}

pub fn run(args: &CheckpointsArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let (job, saved) = list(args, terminal)?;
    if saved.is_empty() {
        terminal.say(&format!("the job {job} has kept no checkpoint so far"));
    }
    let table = Table::new(&COLUMNS, saved.iter().map(row).collect()).for_stdout();
    let report = Report { job, checkpoints: saved.iter().map(Saved::of).collect() };
    Ok(terminal.report(table.as_deref().map(str::as_bytes), &report))
}

fn list(args: &CheckpointsArgs, terminal: &Terminal) -> Result<(JobId, Vec<Checkpoint>), Failure> {
    let session = session::open(&args.remote, terminal)?;
    let job = session.job(Some(&args.target))?;
    let mut saved =
        jobs::checkpoints(&session.together, &job, Tries::Many).map_err(|error| session.explain(error))?;
    saved.sort_by_key(|checkpoint| Reverse(checkpoint.step));
    Ok((job, saved))
}

/// `model` or `adapter`; the words for people where the service says only these.
fn kind(checkpoint: &Checkpoint) -> &str {
    if checkpoint.kind.is_empty() { &checkpoint.label } else { &checkpoint.kind }
}

fn row(checkpoint: &Checkpoint) -> Vec<Cell> {
    vec![
        Cell::new(&checkpoint.step.map(|step| step.to_string()).unwrap_or_default()),
        match read_time(&checkpoint.created_at) {
            Some(at) => moment(Some(at)),
            None => Cell::new(&checkpoint.created_at),
        },
        Cell::new(kind(checkpoint)),
        Cell::new(&checkpoint.path),
    ]
}

impl Saved<'_> {
    fn of(checkpoint: &Checkpoint) -> Saved<'_> {
        let Checkpoint { step, created_at, label, path, object_id, .. } = checkpoint;
        Saved {
            step: *step,
            created_at,
            kind: kind(checkpoint),
            label,
            path,
            object_id: object_id.as_deref(),
        }
    }
}
