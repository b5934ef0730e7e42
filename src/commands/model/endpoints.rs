//! `ctxtune endpoints`: what runs and costs money by the minute, and how it is stopped.
//!
//! Stopping never asks: it saves money, and a deployment can be brought up again. What other
//! programs deployed is shown too, since it costs as much, and is stopped only where that is typed.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::args::{EndpointsArgs, EndpointsCommand};
use crate::screen::finding::Finding;
use crate::screen::report::Terminal;
use crate::screen::table::{Align, Cell, Table, moment};
use crate::session;
use ctxtune_pipeline::deploy::{Down, Reach, bring_down, is_ours, name_of};
use ctxtune_pipeline::failure::{Exit, Failure};
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::session::Session;
use ctxtune_pipeline::shell;
use ctxtune_pipeline::signals::Signals;
use ctxtune_pipeline::text::one_line;
use ctxtune_service::together::endpoints::{self, Deployment, Endpoint};
use ctxtune_service::together::job::JobId;
use ctxtune_service::together::project::Project;

const COMMAND: &str = "endpoints";

const COLUMNS: [(&str, Align); 7] = [
    ("model", Align::Left),
    ("state", Align::Left),
    ("$ a minute", Align::Right),
    ("$ so far", Align::Right),
    ("created (UTC)", Align::Left),
    ("deployment", Align::Left),
    ("stop it with", Align::Left),
];

/// Runs the command.
pub fn run(args: &EndpointsArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    match &args.command {
        None | Some(EndpointsCommand::List) => list(args, signals, terminal),
        Some(EndpointsCommand::Stop { endpoint, all }) => {
            let reach = if *all { Reach::All } else { Reach::Ours };
            stop(args, (endpoint, reach), signals, terminal)
        }
    }
}

/// Something that costs money by the minute.
pub struct Running {
    endpoint: Endpoint,
    deployment: Deployment,
    dollars_a_minute: Option<f64>,
    dollars_so_far: Option<f64>,
}

/// What of `endpoints` costs money, and has cost until `now`.
fn running(session: &Session, endpoints: &[Endpoint], now: Timestamp) -> Vec<Running> {
    let catalogue = endpoints::prices(&session.together, endpoints);
    let of_endpoint = |endpoint: &Endpoint| {
        let billed = endpoint.deployments.iter().filter(|deployment| deployment.state.is_billed());
        let running = |deployment: &Deployment| {
            let dollars_a_minute = deployment.dollars_a_minute(&catalogue);
            // Clocks differ: what begins in the future has lasted no time.
            let age =
                |created: Timestamp| Duration::try_from(now.duration_since(created)).unwrap_or_default();
            let so_far = |(dollars, created)| costs(dollars, age(created));
            Running {
                endpoint: endpoint.clone(),
                deployment: deployment.clone(),
                dollars_a_minute,
                dollars_so_far: dollars_a_minute.zip(deployment.created_at).map(so_far),
            }
        };
        billed.map(running).collect::<Vec<_>>()
    };
    endpoints.iter().flat_map(of_endpoint).collect()
}

/// What runs, for commands that are about something else: nothing where it cannot be known at once.
pub fn glance(session: &Session, project: Option<Project>) -> Option<Vec<Running>> {
    let endpoints = endpoints::glance(&session.together, project).ok()??;
    Some(running(session, &endpoints, session.clock.now()))
}

/// The name under which the model of a job answers now, if a deployment of ours runs it: nothing where that
/// cannot be known at once.
pub fn callable_name(session: &Session, job: &JobId, project: Option<Project>) -> Option<String> {
    let endpoints = endpoints::glance(&session.together, project).ok()??;
    let name = name_of(job);
    let is_it = |one: &Deployment| one.bare_name() == name && one.state.is_ready();
    endpoints.iter().find(|endpoint| endpoint.asked().any(is_it)).map(|endpoint| endpoint.name.clone())
}

/// The weights behind a name that requests give, if that is an endpoint's: the models of the deployments
/// that answer. Nothing where that cannot be known at once.
pub fn weights(session: &Session, model: &str) -> Option<String> {
    let endpoints = endpoints::glance(&session.together, None).ok()??;
    let endpoint = endpoints.iter().find(|endpoint| endpoint.name == model)?;
    let mut models: Vec<&str> = endpoint.asked().map(|one| one.model.as_deref()).collect::<Option<_>>()?;
    models.sort_unstable();
    (!models.is_empty()).then(|| models.join(" "))
}

/// Says that a deployment was brought down.
pub fn say_stopped(name: &str, terminal: &Terminal) {
    terminal.label("stopped", &format!("{}: it is given no machines any more", one_line(name)));
}

/// What `doctor` finds in what runs.
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

/// Says what runs, and how to stop it; nothing where nothing does.
pub fn say_running(running: &[Running], terminal: &Terminal) {
    for running in running {
        terminal.label("running", &running.said());
        terminal.label("stop", &running.stop_command());
    }
}

impl Running {
    /// The command that stops it.
    pub fn stop_command(&self) -> String {
        let all = if is_ours(&self.deployment) { "" } else { " --all" };
        format!("ctxtune endpoints stop {}{all}", shell::word(&one_line(self.endpoint.bare_name())))
    }

    /// What it is, in what state, at what price.
    pub fn said(&self) -> String {
        let so_far = self.dollars_so_far.map(|so_far| format!(", about {} so far", dollars_text(so_far)));
        format!(
            "{} is {}, at {}{}",
            one_line(&self.endpoint.name),
            one_line(&self.deployment.state.to_string()),
            a_minute(self.dollars_a_minute),
            so_far.unwrap_or_default()
        )
    }

    /// As documents have it.
    pub fn value(&self) -> Value {
        let deployment = &self.deployment;
        json!({
            "endpoint": self.endpoint.bare_name(), "endpoint_id": self.endpoint.id,
            "model": self.endpoint.name, "deployment": deployment.bare_name(),
            "deployment_id": deployment.id, "state": deployment.state.as_str(),
            "replicas": deployment.replicas, "price_per_minute": self.dollars_a_minute,
            "dollars_so_far": self.dollars_so_far,
            "created_at": deployment.created_at.map(|at: Timestamp| at.to_string()),
            "stop": self.stop_command(),
        })
    }

    fn row(&self) -> Vec<Cell> {
        let exact = |dollars: Option<f64>| {
            Cell::new(&dollars.map(|dollars| format!("{dollars:.4}")).unwrap_or_default())
        };
        vec![
            Cell::new(&self.endpoint.name),
            Cell::new(self.deployment.state.as_str()),
            exact(self.dollars_a_minute),
            exact(self.dollars_so_far),
            moment(self.deployment.created_at),
            Cell::new(self.deployment.bare_name()),
            Cell::new(&self.stop_command()),
        ]
    }
}

/// A price by the minute, and by the hour since that is easier to feel.
pub fn a_minute(dollars: Option<f64>) -> String {
    match dollars {
        Some(dollars) => format!("${dollars:.4} a minute ({} an hour)", dollars_text(dollars * 60.0)),
        None => "a price that is not known".to_owned(),
    }
}

/// What `time` costs.
pub fn costs(dollars_a_minute: f64, time: Duration) -> f64 {
    dollars_a_minute * time.as_secs_f64() / 60.0
}

/// The project that the endpoints belong to, and what time it is there.
///
/// # Errors
/// When the service cannot be asked, or does not say it.
pub fn project(session: &Session) -> Result<(Project, Timestamp), Failure> {
    let identity = session.together.whoami().map_err(|error| session.explain(error))?;
    let project = Project::of(&identity).ok_or_else(|| {
        let message = format!("{} does not say whose key it is", session.together.base().origin());
        let hint = "endpoints belong to a project: is this base URL meant?";
        Failure::new(Exit::Failed, "no_project", message, hint)
    })?;
    Ok((project, identity.date.unwrap_or_else(|| session.clock.now())))
}

fn list(args: &EndpointsArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    let look = || {
        let session = session::open(&args.remote, signals, terminal)?;
        let (project, now) = project(&session)?;
        let all = endpoints::list(&session.together, &project).map_err(|error| session.explain(error))?;
        Ok(running(&session, &all, now))
    };
    let listed: Vec<Running> = match look() {
        Ok(listed) => listed,
        Err(failure) => return terminal.fail(COMMAND, &failure, Map::new()),
    };
    let so_far: f64 = listed.iter().filter_map(|running| running.dollars_so_far).sum();
    let a_minute: f64 = listed.iter().filter_map(|running| running.dollars_a_minute).sum();
    let unpriced = listed.iter().filter(|running| running.dollars_so_far.is_none()).count();
    if listed.is_empty() {
        terminal.say("nothing runs");
    } else {
        let without = (unpriced > 0).then(|| format!(", {unpriced} without a known price"));
        let without = without.unwrap_or_default();
        let text = format!("about {} so far, ${a_minute:.4} a minute{without}", dollars_text(so_far));
        terminal.label("total", &text);
    }
    let mut fields = Map::new();
    fields.insert("endpoints".to_owned(), listed.iter().map(Running::value).collect());
    fields.insert(
        "totals".to_owned(),
        json!({ "dollars_so_far": so_far, "price_per_minute": a_minute, "unpriced_endpoints": unpriced }),
    );
    let table = Table::new(&COLUMNS, listed.iter().map(Running::row).collect()).for_stdout();
    terminal.succeed(COMMAND, table.as_deref().map(str::as_bytes), fields)
}

fn stop(args: &EndpointsArgs, what: (&str, Reach), signals: &Signals, terminal: &mut Terminal) -> Exit {
    let (endpoint, down) = match try_stop(args, what, signals, terminal) {
        Ok(stopped) => stopped,
        Err(failure) => return terminal.fail(COMMAND, &failure, Map::new()),
    };
    show(&endpoint, &down, terminal);
    let mut fields = Map::new();
    fields.insert("endpoint".to_owned(), endpoint.bare_name().into());
    fields.insert("endpoint_id".to_owned(), endpoint.id.clone().into());
    fields.insert("stopped".to_owned(), down.stopped.clone().into());
    fields.insert("removed".to_owned(), down.removed.clone().into());
    fields.insert("left".to_owned(), down.left.clone().into());
    let lines = one_a_line(&down.removed);
    terminal.succeed(COMMAND, lines.as_deref().map(str::as_bytes), fields)
}

fn one_a_line(names: &[String]) -> Option<String> {
    let lines: Vec<String> = names.iter().map(|name| one_line(name)).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn try_stop(
    args: &EndpointsArgs,
    (name, reach): (&str, Reach),
    signals: &Signals,
    terminal: &Terminal,
) -> Result<(Endpoint, Down), Failure> {
    let session = session::open(&args.remote, signals, terminal)?;
    let (project, _) = project(&session)?;
    let all = endpoints::list(&session.together, &project).map_err(|error| session.explain(error))?;
    let is_meant =
        |endpoint: &Endpoint| [&*endpoint.id, &*endpoint.name, endpoint.bare_name()].contains(&name);
    let endpoint = all.into_iter().find(is_meant).ok_or_else(|| {
        let message = format!("there is no endpoint `{name}`");
        Failure::new(Exit::Usage, "no_endpoint", message, "`ctxtune endpoints` lists what runs")
    })?;
    let mut tell = |name: &str| say_stopped(name, terminal);
    let down = bring_down(&session.together, &project, (&endpoint, reach), &mut tell);
    Ok((endpoint, down.map_err(|error| session.explain(error))?))
}

/// What became of it.
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
