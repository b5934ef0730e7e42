//! `ctxtune endpoints`: what runs and costs money by the minute, and how it is stopped.
//!
//! Stopping never asks: it saves money, and a deployment can be brought up again. What other
//! programs deployed is shown too, since it costs as much, and is stopped only where that is typed.

use crate::args::{EndpointsArgs, EndpointsCommand};
use crate::screen::finding::Finding;
use crate::screen::report::Terminal;
use crate::screen::table::{Align, Cell, Table, moment};
use crate::session;
use ctxtune_pipeline::deploy::running::{Running, RunningReport, project, running, say_stopped};
use ctxtune_pipeline::deploy::{Down, Reach, bring_down};
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::text::one_line;
use ctxtune_pipeline::{Exit, Failure, shell};
use ctxtune_service::together::Tries;
use ctxtune_service::together::endpoints::{Endpoint, Endpoints};
use serde::Serialize;

const COLUMNS: [(&str, Align); 7] = [
    ("model", Align::Left),
    ("state", Align::Left),
    ("$ a minute", Align::Right),
    ("$ so far", Align::Right),
    ("created (UTC)", Align::Left),
    ("deployment", Align::Left),
    ("stop it with", Align::Left),
];

#[derive(Serialize)]
struct Report {
    /// What is billed per minute.
    endpoints: Vec<RunningReport>,
    /// The sums.
    totals: Totals,
}

#[derive(Serialize)]
struct Totals {
    /// What it has cost, in dollars, as far as prices are known.
    dollars_so_far: f64,
    /// What a minute costs, in dollars, as far as prices are known.
    price_per_minute: f64,
    /// How many have no known price.
    unpriced_endpoints: usize,
}

#[derive(Serialize)]
struct Stopped<'e> {
    /// The endpoint's name.
    endpoint: &'e str,
    /// Its id.
    endpoint_id: &'e str,
    #[serde(flatten)]
    down: Down,
}

pub fn run(args: &EndpointsArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    match &args.command {
        None | Some(EndpointsCommand::List) => list(args, terminal),
        Some(EndpointsCommand::Stop { endpoint, all }) => {
            let reach = if *all { Reach::All } else { Reach::Ours };
            stop(args, (endpoint, reach), terminal)
        }
    }
}

pub fn finding(running: Option<&[Running]>) -> Finding {
    match running {
        None => Finding::off("not known: the service does not tell"),
        Some([]) => Finding::ok("nothing runs and costs money by the minute"),
        Some(running) => {
            let said: Vec<String> = running.iter().map(Running::said).collect();
            let commands: Vec<String> = running.iter().map(Running::stop_command).collect();
            Finding::warn(said.join("; "), format!("to stop: {}", commands.join("; ")))
        }
    }
}

fn row(running: &Running) -> Vec<Cell> {
    let exact =
        |dollars: Option<f64>| Cell::new(&dollars.map(|dollars| format!("{dollars:.4}")).unwrap_or_default());
    vec![
        Cell::new(&running.endpoint.name),
        Cell::new(running.deployment.state.as_str()),
        exact(running.dollars_a_minute),
        exact(running.dollars_so_far),
        moment(running.deployment.created_at),
        Cell::new(running.deployment.bare_name()),
        Cell::new(&running.stop_command()),
    ]
}

fn list(args: &EndpointsArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let session = session::open(&args.remote, terminal)?;
    let (project, now) = project(&session)?;
    let api = Endpoints { together: &session.together, project: &project };
    let all = api.list(Tries::Many).map_err(|error| session.explain(error))?;
    let listed = running(&session, &all, now);
    let totals = Totals {
        dollars_so_far: listed.iter().filter_map(|running| running.dollars_so_far).sum(),
        price_per_minute: listed.iter().filter_map(|running| running.dollars_a_minute).sum(),
        unpriced_endpoints: listed.iter().filter(|running| running.dollars_so_far.is_none()).count(),
    };
    if listed.is_empty() {
        terminal.say("nothing runs");
    } else {
        let Totals { dollars_so_far, price_per_minute, unpriced_endpoints } = &totals;
        let without =
            (*unpriced_endpoints > 0).then(|| format!(", {unpriced_endpoints} without a known price"));
        let without = without.unwrap_or_default();
        let so_far = dollars_text(*dollars_so_far);
        terminal.label("total", &format!("about {so_far} so far, ${price_per_minute:.4} a minute{without}"));
    }
    let table = Table::new(&COLUMNS, listed.iter().map(row).collect()).for_stdout();
    let report = Report { endpoints: listed.iter().map(Running::report).collect(), totals };
    Ok(terminal.report(table.as_deref().map(str::as_bytes), &report))
}

fn stop(args: &EndpointsArgs, what: (&str, Reach), terminal: &Terminal) -> Result<Exit, Failure> {
    let (endpoint, down) = try_stop(args, what, terminal)?;
    show(&endpoint, &down, terminal);
    let lines = one_a_line(&down.removed);
    let report = Stopped { endpoint: endpoint.bare_name(), endpoint_id: &endpoint.id, down };
    Ok(terminal.report(lines.as_deref().map(str::as_bytes), &report))
}

fn one_a_line(names: &[String]) -> Option<String> {
    let lines: Vec<String> = names.iter().map(|name| one_line(name)).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn try_stop(
    args: &EndpointsArgs,
    (name, reach): (&str, Reach),
    terminal: &Terminal,
) -> Result<(Endpoint, Down), Failure> {
    let session = session::open(&args.remote, terminal)?;
    let (project, _) = project(&session)?;
    let api = Endpoints { together: &session.together, project: &project };
    let all = api.list(Tries::Many).map_err(|error| session.explain(error))?;
    let is_meant =
        |endpoint: &Endpoint| [&*endpoint.id, &*endpoint.name, endpoint.bare_name()].contains(&name);
    let endpoint = all.into_iter().find(is_meant).ok_or_else(|| {
        let message = format!("there is no endpoint `{name}`");
        Failure::usage("no_endpoint", message, "`ctxtune endpoints` lists what runs")
    })?;
    let mut tell = |name: &str| say_stopped(name, terminal);
    let down = bring_down(api, &endpoint, reach, &mut tell);
    Ok((endpoint, down.map_err(|error| session.explain(error))?))
}

fn show(endpoint: &Endpoint, down: &Down, terminal: &Terminal) {
    for name in &down.removed {
        terminal.label("removed", &one_line(name));
    }
    for name in down.stopped.iter().filter(|name| !down.removed.contains(name)) {
        let text =
            format!("{} stays, and costs nothing; run it again to remove what ctxtune made", one_line(name));
        terminal.label("left", &text);
    }
    for name in &down.left {
        let endpoint = shell::word(&one_line(endpoint.bare_name()));
        terminal.warn(&format!(
            "{} still runs and costs money; ctxtune did not deploy it: ctxtune endpoints stop {endpoint} --all",
            one_line(name)
        ));
    }
    if down.stopped.is_empty() && down.removed.is_empty() && down.left.is_empty() {
        terminal.say("nothing runs there");
    }
}
