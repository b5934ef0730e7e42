//! `ctxtune jobs`: the jobs of the project, newest first.

use std::cmp::Reverse;

use serde_json::{Map, Value};

use crate::cli::Signals;
use crate::cli::args::JobsArgs;
use crate::cli::exit::{Exit, Failure};
use crate::cli::report::{Terminal, counted, grouped};
use crate::cli::service::Service;
use crate::cli::status::summary;
use crate::cli::table::{Align, Cell, Table};
use crate::together::job::Job;
use crate::together::jobs;

const COMMAND: &str = "jobs";

const COLUMNS: [(&str, Align); 5] = [
    ("job", Align::Left),
    ("status", Align::Left),
    ("created (UTC)", Align::Left),
    ("base model", Align::Left),
    ("tuned model", Align::Left),
];

/// Runs the command.
pub fn run(args: &JobsArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    let mut listed = match list(args, signals, terminal) {
        Ok(listed) => listed,
        Err(failure) => return terminal.fail(COMMAND, &failure, Map::new()),
    };
    let total = listed.len();
    if args.limit > 0 {
        listed.truncate(args.limit);
    }
    match (listed.len(), total) {
        (_, 0) => terminal.say("no jobs"),
        (shown, total) if shown < total => {
            terminal.say(&format!(
                "{} of {}; -n 0 shows all",
                grouped(shown as u64),
                counted(total as u64, "job")
            ));
        }
        _ => {}
    }
    let mut fields = Map::new();
    fields.insert("total".to_owned(), total.into());
    fields.insert("jobs".to_owned(), listed.iter().map(|job| Value::from(summary(job))).collect());
    let table = Table::new(&COLUMNS, listed.iter().map(row).collect()).for_stdout();
    terminal.succeed(COMMAND, table.as_deref().map(str::as_bytes), fields)
}

/// All jobs, the newest first; those that bear no date last, in the order of the service.
fn list(args: &JobsArgs, signals: &Signals, terminal: &Terminal) -> Result<Vec<Job>, Failure> {
    let service = Service::open(&args.remote, signals, terminal)?;
    let mut listed = jobs::list(&service.together).map_err(|error| service.explain(error))?;
    listed.sort_by_key(|job| Reverse(job.created_at()));
    Ok(listed)
}

fn row(job: &Job) -> Vec<Cell> {
    vec![
        Cell::new(job.id.as_str()),
        Cell::new(job.status.as_str()),
        moment(job.created_at()),
        model(job.model()),
        model(job.model_output_name()),
    ]
}

/// A model: for people without whose it is, since lines are short.
fn model(name: Option<String>) -> Cell {
    let name = name.unwrap_or_default();
    Cell::of(&name, name.rsplit('/').next().unwrap_or_default())
}

/// A moment: to the second for programs, to the minute for people.
pub fn moment(at: Option<jiff::Timestamp>) -> Cell {
    at.map_or_else(
        || Cell::new(""),
        |at| Cell::of(&at.strftime("%FT%TZ").to_string(), &at.strftime("%F %R").to_string()),
    )
}
