//! `ctxtune checkpoints`: the saved states of a job's weights, the last step first.

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

use crate::args::CheckpointsArgs;
use crate::screen::report::Terminal;
use crate::screen::table::{Align, Cell, Table, moment};
use crate::session;
use ctxtune_pipeline::failure::{Exit, Failure};
use ctxtune_pipeline::signals::Signals;
use ctxtune_service::together::job::{Checkpoint, JobId, read_time};
use ctxtune_service::together::jobs;

const COMMAND: &str = "checkpoints";

const COLUMNS: [(&str, Align); 4] =
    [("step", Align::Right), ("created (UTC)", Align::Left), ("kind", Align::Left), ("path", Align::Left)];

/// Runs the command.
pub fn run(args: &CheckpointsArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    let (job, saved) = match list(args, signals, terminal) {
        Ok(listed) => listed,
        Err(failure) => return terminal.fail(COMMAND, &failure, Map::new()),
    };
    if saved.is_empty() {
        terminal.say(&format!("the job {job} has kept no checkpoint so far"));
    }
    let mut fields = Map::new();
    fields.insert("job".to_owned(), job.as_str().into());
    fields.insert("checkpoints".to_owned(), saved.iter().map(value).collect());
    let table = Table::new(&COLUMNS, saved.iter().map(row).collect()).for_stdout();
    terminal.succeed(COMMAND, table.as_deref().map(str::as_bytes), fields)
}

fn list(
    args: &CheckpointsArgs,
    signals: &Signals,
    terminal: &Terminal,
) -> Result<(JobId, Vec<Checkpoint>), Failure> {
    let session = session::open(&args.remote, signals, terminal)?;
    let job = session.job(Some(&args.target))?;
    let mut saved = jobs::checkpoints(&session.together, &job).map_err(|error| session.explain(error))?;
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

fn value(checkpoint: &Checkpoint) -> Value {
    json!({
        "step": checkpoint.step, "created_at": checkpoint.created_at, "kind": kind(checkpoint),
        "label": checkpoint.label, "path": checkpoint.path, "object_id": checkpoint.object_id,
    })
}
