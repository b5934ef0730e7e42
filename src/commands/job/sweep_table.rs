//! How a sweep ends: the ranked table, the curves over one another, the document, the exit code.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::commands::job::monitor::write_picture;
use crate::commands::report::write_beside;
use crate::screen::chart::{Charset, Frame, chart};
use crate::screen::curve::Curve;
use crate::screen::report::{Terminal, fields};
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::sweep::book::{Book, Point, Trial};
use ctxtune_pipeline::sweep::claims::Ended;
use ctxtune_pipeline::sweep::price::Quote;
use ctxtune_pipeline::sweep::run::Ran;
use ctxtune_pipeline::sweep::runs::Runs;
use ctxtune_pipeline::sweep::shown_values;
use ctxtune_pipeline::text::{counted, loss, printable};
use ctxtune_pipeline::{Exit, Failure, Session};
use ctxtune_service::together::JobId;
use ctxtune_service::wandb::sweep;

/// The lines of the curves, and their columns where no terminal says how many there are.
const CURVE_LINES: usize = 17;
const WIDEST: usize = 80;

/// The table, best first, the curves, and how it all ended; `svg` names the file for the curves, and OUT gets a page
/// where it `has_page`.
pub fn end(
    session: &Session,
    ran: &Ran,
    (svg, has_page): (Option<&Path>, bool),
    terminal: &Terminal,
) -> Exit {
    let Ran { runs, ended: Ended { book, is_short }, quote, failure } = ran;
    let ranking = book.ranking(runs.metric.goal);
    table(runs, book, &ranking, terminal);
    curves(session, runs, book, svg, terminal);
    if has_page && !session.signals.is_stopped() {
        write_beside(session, &runs.out, terminal);
    }
    let report = Report::of(runs, book, quote, &ranking);
    if let Some(failure) = failure {
        return terminal.fail(failure, fields(&report));
    }
    let wanted = runs.suggestions.as_ref().map_or(0, |suggestions| suggestions.count);
    let finished = book.trials.iter().filter(|trial| trial.has_ended()).count();
    let left = book.trials.len().max(wanted) - finished;
    match left {
        0 => finish_suggestions(runs, terminal),
        left if *is_short => {
            let left = counted(left as u64, "run");
            terminal.warn(&format!("{left} not started: one more could cost more than --max-cost"));
        }
        left => terminal.warn(&format!("{} not started: W&B suggests no more", counted(left as u64, "run"))),
    }
    let best = ranking.iter().find_map(|(index, _)| book.trials[*index].model.clone());
    if best.is_none() {
        let message = "no run of the sweep completed";
        let failure = Failure::new(
            Exit::JobFailed,
            "sweep_failed",
            message,
            "`ctxtune status JOB` says why each run ended",
        );
        return terminal.fail(&failure, fields(&report));
    }
    terminal.label("spent", &dollars_text(book.spent()));
    terminal.report(best.as_deref().map(str::as_bytes), &report)
}

/// Says at W&B that the sweep is over; that this fails is said and changes nothing.
fn finish_suggestions(runs: &Runs, terminal: &Terminal) {
    let Some(suggestions) = &runs.suggestions else { return };
    if let Err(error) = sweep::finish(&suggestions.wandb, &suggestions.sweep) {
        terminal.warn(&printable(&format!("W&B: the sweep is not marked as finished: {error}")));
    }
}

fn table(runs: &Runs, book: &Book, ranking: &[(usize, Point)], terminal: &Terminal) {
    let width = book.trials.iter().map(|trial| shown_values(&trial.values).len()).max().unwrap_or(0);
    terminal.say(&format!("  rank  run  {:<9}  {:<width$}  price    status", runs.metric.name, "parameters"));
    let row = |rank: String, index: usize, value: String| {
        let trial = &book.trials[index];
        let price = trial.price.map(dollars_text).unwrap_or_default();
        let status = trial.status.as_deref().unwrap_or("not started");
        let line = format!(
            "  {rank:<4}  {:<3}  {value:<9}  {:<width$}  {price:<7}  {status}",
            index + 1,
            shown_values(&trial.values)
        );
        terminal.say(printable(&line).trim_end());
    };
    for (rank, (index, point)) in ranking.iter().enumerate() {
        row((rank + 1).to_string(), *index, loss(point.value));
        let trial = &book.trials[*index];
        if let (Some(best), true) =
            (trial.best, trial.best.map(|best| best.step) == Some(point.step) && trial.best != trial.last)
        {
            terminal.say(&format!("              the checkpoint of step {}", best.step));
        }
        if let Some(model) = &trial.model {
            terminal.say(&printable(&format!("              {model}")));
        }
    }
    for index in 0..book.trials.len() {
        if !ranking.iter().any(|(ranked, _)| *ranked == index) {
            row("-".to_owned(), index, "-".to_owned());
        }
    }
}

fn curves(session: &Session, runs: &Runs, book: &Book, svg: Option<&Path>, terminal: &Terminal) {
    let curve = Curve::of_sweep(&book.trials, &runs.metric.name);
    let charset = if session.environment.is_utf8() { Charset::Unicode } else { Charset::Ascii };
    let width = terminal.columns().map_or(WIDEST, |columns| columns.saturating_sub(1));
    if curve.ranges().is_some() {
        let frame = Frame { width, height: CURVE_LINES, charset };
        chart(&curve, &frame).iter().for_each(|line| terminal.say(&printable(line)));
    }
    if let Some(path) = svg {
        write_picture(path, &curve, &runs.metric.name, terminal);
    }
}

#[derive(Serialize)]
struct Report<'s> {
    /// Its id.
    sweep: &'s str,
    /// The name in its file; `null` where it has none.
    name: Option<&'s str>,
    /// What runs are ranked by.
    metric: &'s str,
    /// What it was to cost before the start, in dollars; `null` where that was not known.
    quoted_dollars: Option<f64>,
    /// Final prices, and the estimates of what runs or may run, in dollars.
    spent_dollars: f64,
    /// The runs, in the order of their numbers.
    runs: Vec<RunReport<'s>>,
}

#[derive(Serialize)]
struct RunReport<'s> {
    /// Its number, from 1.
    run: usize,
    /// Its place among the runs that are ranked, from 1; `null` where it has no value.
    rank: Option<usize>,
    /// The values that it tries.
    parameters: Map<String, Value>,
    /// Its job; `null` where it has none yet.
    job: Option<&'s JobId>,
    /// The status that was seen last; `null` where it was not started.
    status: Option<&'s str>,
    /// The value that it is ranked by; `null` where it has none.
    value: Option<f64>,
    /// The step of that value.
    step: Option<u64>,
    /// The metric's last value.
    last: Option<Point>,
    /// The metric's best value.
    best: Option<Point>,
    /// Its estimate, in dollars; `null` where there is none.
    estimated_dollars: Option<f64>,
    /// What it has cost, in dollars; `null` until it has ended.
    price_dollars: Option<f64>,
    /// The tuned model's name; `null` where there is none yet.
    model: Option<&'s str>,
}

impl<'s> Report<'s> {
    fn of(runs: &'s Runs, book: &'s Book, quote: &Quote, ranking: &[(usize, Point)]) -> Report<'s> {
        let run = |(index, trial): (usize, &'s Trial)| RunReport {
            run: index + 1,
            rank: ranking.iter().position(|(ranked, _)| *ranked == index).map(|rank| rank + 1),
            parameters: trial.values.iter().cloned().collect(),
            job: trial.job.as_ref(),
            status: trial.status.as_deref(),
            value: trial.ranked_by().map(|point| point.value),
            step: trial.ranked_by().map(|point| point.step),
            last: trial.last,
            best: trial.best,
            estimated_dollars: trial.estimate,
            price_dollars: trial.price,
            model: trial.model.as_deref(),
        };
        Report {
            sweep: &book.id,
            name: runs.name.as_deref(),
            metric: &runs.metric.name,
            quoted_dollars: quote.total,
            spent_dollars: book.spent(),
            runs: book.trials.iter().enumerate().map(run).collect(),
        }
    }
}
