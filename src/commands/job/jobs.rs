//! `ctxtune jobs`: the jobs of the project, newest first, and what they cost.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::args::JobsArgs;
use crate::screen::report::Terminal;
use crate::screen::table::{Align, Cell, Table, moment};
use crate::session;
use ctxtune_pipeline::job::cost::{Cost, Total};
use ctxtune_pipeline::job::estimates;
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::text::{counted, grouped, marked};
use ctxtune_pipeline::{Exit, Failure};
use ctxtune_service::together::{Job, JobId, jobs};
use serde::Serialize;

const COLUMNS: [(&str, Align); 6] = [
    ("job", Align::Left),
    ("status", Align::Left),
    ("created (UTC)", Align::Left),
    ("price", Align::Right),
    ("base model", Align::Middle),
    ("tuned model", Align::Left),
];

struct Listed {
    /// The newest first; those that bear no date last, in the order of the service.
    jobs: Vec<Job>,
    estimates: BTreeMap<JobId, f64>,
    /// Jobs without a date, which `--since` leaves out.
    undated: usize,
}

#[derive(Serialize)]
struct Report {
    /// How many there are.
    total: usize,
    /// The newest of them, as many as `--limit` says.
    jobs: Vec<PricedJob>,
    /// The moment of `--since`, as RFC 3339; `null` without it.
    since: Option<String>,
    /// What all of them cost.
    totals: Total,
}

#[derive(Serialize)]
pub struct JobSummary {
    /// Its id.
    job: JobId,
    /// Its status, as the service calls it.
    status: String,
    /// When it was created, as RFC 3339.
    created_at: Option<String>,
    /// When it was started, as RFC 3339.
    started_at: Option<String>,
    /// The model that it tunes.
    base_model: Option<String>,
    /// The tuned model's name; `null` until there is one.
    model: Option<String>,
}

impl JobSummary {
    pub fn of(job: &Job) -> JobSummary {
        JobSummary {
            job: job.id.clone(),
            status: job.status.as_str().to_owned(),
            created_at: job.created_at().map(|at| at.to_string()),
            started_at: job.started_at().map(|at| at.to_string()),
            base_model: job.model(),
            model: job.model_output_name(),
        }
    }
}

#[derive(Serialize)]
struct PricedJob {
    #[serde(flatten)]
    job: JobSummary,
    /// What it is billed, in dollars; `null` where the service does not say.
    price_dollars: Option<f64>,
    /// Its estimate before it was created, in dollars; `null` where this machine does not know it.
    estimated_dollars: Option<f64>,
}

pub fn run(args: &JobsArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let listed = list(args, terminal)?;
    let count = listed.jobs.len();
    let shown = if args.limit > 0 { &listed.jobs[..count.min(args.limit)] } else { &listed.jobs };
    let total = Total::of(listed.jobs.iter().map(|job| listed.cost(job)));
    let report = Report {
        total: count,
        jobs: shown.iter().map(|job| listed.priced(job)).collect(),
        since: args.since.map(|since| since.to_string()),
        totals: total,
    };
    let rows = shown.iter().map(|job| row(job, listed.cost(job))).collect();
    let table = Table::new(&COLUMNS, rows).for_stdout();
    let exit = terminal.report(table.as_deref().map(str::as_bytes), &report);
    say(&listed, (shown.len(), &total), terminal);
    Ok(exit)
}

fn list(args: &JobsArgs, terminal: &Terminal) -> Result<Listed, Failure> {
    let session = session::open(&args.remote, terminal)?;
    let mut jobs = jobs::list(&session.together).map_err(|error| session.explain(error))?;
    session.note_statuses(&jobs);
    jobs.sort_by_key(|job| Reverse(job.created_at()));
    let mut undated = 0;
    if let Some(since) = args.since {
        undated = jobs.iter().filter(|job| job.created_at().is_none()).count();
        jobs.retain(|job| job.created_at().is_some_and(|created| created >= since));
    }
    Ok(Listed { jobs, estimates: estimates::known(&session, None), undated })
}

fn say(listed: &Listed, (shown, total): (usize, &Total), terminal: &Terminal) {
    let count = listed.jobs.len();
    if count == 0 {
        terminal.say("no jobs");
    } else if shown < count {
        let all = counted(count as u64, "job");
        terminal.say(&format!("{} of {all}; -n 0 shows all", grouped(shown as u64)));
    }
    if listed.undated > 0 {
        let undated = counted(listed.undated as u64, "job");
        terminal.warn(&format!("{undated} without a date of creation left out: see them without --since"));
    }
    if count > 0 {
        let jobs = |count: u64| counted(count, "job");
        let estimated = (total.estimated > 0.0)
            .then(|| format!("~{} for jobs without a final price", dollars_text(total.estimated)));
        let unknown = (total.unknown > 0).then(|| format!("{} without a known price", jobs(total.unknown)));
        let parts = [Some(format!("{} billed", dollars_text(total.billed))), estimated, unknown];
        let of = jobs(count as u64);
        let parts = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        terminal.label("total", &format!("{parts} (of {of})"));
    }
}

impl Listed {
    fn cost(&self, job: &Job) -> Cost {
        Cost::of(job, self.estimates.get(&job.id).copied())
    }

    fn priced(&self, job: &Job) -> PricedJob {
        PricedJob {
            job: JobSummary::of(job),
            price_dollars: job.price(),
            estimated_dollars: self.estimates.get(&job.id).copied(),
        }
    }
}

fn row(job: &Job, cost: Cost) -> Vec<Cell> {
    let mark = if matches!(cost, Cost::Billed(_)) { "" } else { "~" };
    let exact = cost.dollars().map(|dollars| format!("{mark}{dollars:.4}")).unwrap_or_default();
    vec![
        Cell::new(job.id.as_str()),
        Cell::new(job.status.as_str()),
        moment(job.created_at()),
        Cell::of(&exact, &marked(cost)),
        model(job.model()),
        model(job.model_output_name()),
    ]
}

/// A model: for people without whose it is, since lines are short.
fn model(name: Option<String>) -> Cell {
    let name = name.unwrap_or_default();
    Cell::of(&name, name.rsplit('/').next().unwrap_or_default())
}
