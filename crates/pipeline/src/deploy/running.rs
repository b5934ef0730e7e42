//! What runs at the service and costs money by the minute.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::deploy::{is_ours, name_of};
use crate::failure::Failure;
use crate::job::ledger::Run;
use crate::job::price::dollars_text;
use crate::session::Session;
use crate::shell;
use crate::text::one_line;
use crate::ui::Ui;
use ctxtune_service::together::JobId;
use ctxtune_service::together::endpoints::{self, Deployment, Endpoint};
use ctxtune_service::together::hardware::{Catalogue, configs};
use ctxtune_service::together::project::Project;

/// Something that costs money by the minute.
pub struct Running {
    pub endpoint: Endpoint,
    pub deployment: Deployment,
    pub dollars_a_minute: Option<f64>,
    pub dollars_so_far: Option<f64>,
}

/// What of `endpoints` costs money, and has cost until `now`.
pub fn running(session: &Session, endpoints: &[Endpoint], now: Timestamp) -> Vec<Running> {
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

pub fn say_stopped(name: &str, ui: &dyn Ui) {
    ui.label("stopped", &format!("{}: scaled to zero", one_line(name)));
}

/// Says what runs, and how to stop it; nothing where nothing does.
pub fn say_running(running: &[Running], ui: &dyn Ui) {
    for running in running {
        ui.label("running", &running.said());
        ui.label("stop", &running.stop_command());
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunningReport {
    /// The endpoint's name.
    pub endpoint: String,
    /// Its id.
    pub endpoint_id: String,
    /// What requests name as their model.
    pub model: String,
    /// The deployment's name.
    pub deployment: String,
    /// Its id.
    pub deployment_id: String,
    /// Its state, as the service calls it.
    pub state: String,
    /// How many machines it has.
    pub replicas: u64,
    /// What a minute costs, in dollars; `null` where that is not known.
    pub price_per_minute: Option<f64>,
    /// What a minute costs, times the minutes since `created_at`: more than the bill if it did not run all the time.
    pub dollars_so_far: Option<f64>,
    /// When it was created, as RFC 3339.
    pub created_at: Option<String>,
    /// The command that stops it.
    pub stop: String,
}

impl Running {
    pub fn stop_command(&self) -> String {
        let all = if is_ours(&self.deployment) { "" } else { " --all" };
        format!("ctxtune endpoints stop {}{all}", shell::word(&one_line(self.endpoint.bare_name())))
    }

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

    pub fn report(&self) -> RunningReport {
        let deployment = &self.deployment;
        RunningReport {
            endpoint: self.endpoint.bare_name().to_owned(),
            endpoint_id: self.endpoint.id.clone(),
            model: self.endpoint.name.clone(),
            deployment: deployment.bare_name().to_owned(),
            deployment_id: deployment.id.clone(),
            state: deployment.state.as_str().to_owned(),
            replicas: deployment.replicas,
            price_per_minute: self.dollars_a_minute,
            dollars_so_far: self.dollars_so_far,
            created_at: deployment.created_at.map(|at| at.to_string()),
            stop: self.stop_command(),
        }
    }
}

/// A price by the minute, and by the hour since that is easier to feel.
pub(crate) fn a_minute(dollars: Option<f64>) -> String {
    match dollars {
        Some(dollars) => format!("${dollars:.4} a minute ({} an hour)", dollars_text(dollars * 60.0)),
        None => "a price that is not known".to_owned(),
    }
}

pub fn costs(dollars_a_minute: f64, time: Duration) -> f64 {
    dollars_a_minute * time.as_secs_f64() / 60.0
}

/// The project that the endpoints belong to, and what time it is there.
pub fn project(session: &Session) -> Result<(Project, Timestamp), Failure> {
    let identity = session.together.whoami().map_err(|error| session.explain(error))?;
    let project = Project::of(&identity).ok_or_else(|| {
        let message = format!("{} does not say whose key it is", session.together.base().origin());
        let hint = "endpoints belong to a project: is this base URL meant?";
        Failure::failed("no_project", message, hint)
    })?;
    Ok((project, identity.date.unwrap_or_else(|| session.clock.now())))
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndpointCost {
    /// The machine.
    pub hardware: String,
    /// Dollars an hour while it is deployed.
    pub dollars_an_hour: f64,
    /// The tuned model whose machine it is; `null` where it is the cheapest of the service.
    pub model: Option<String>,
}

/// What an endpoint of the newest tuned model of `out` costs; where there is none, or its machine is not known, what
/// the cheapest machine costs. Nothing where the service tells no price: nothing is guessed.
pub fn endpoint_cost(session: &Session, out: &Path) -> Option<EndpointCost> {
    let catalogue = Catalogue::look_up(&session.together);
    let of_model = || {
        let runs = Run::read_all(out).ok()?;
        let run = runs.into_iter().rev().find(|run| run.model_object.is_some())?;
        let project = Project::of(&session.together.whoami().ok()?)?;
        let fitting = configs(&session.together, &project, run.model_object.as_deref()?).ok()?;
        let config = fitting.into_iter().find(|config| !config.is_for_adapters)?;
        let hardware = config.hardware?;
        let dollars_an_hour = catalogue.dollars_a_minute(&hardware)? * 60.0;
        Some(EndpointCost { hardware, dollars_an_hour, model: run.model })
    };
    let cheapest = || {
        let (hardware, dollars_an_hour) = catalogue.cheapest()?;
        Some(EndpointCost { hardware: hardware.to_owned(), dollars_an_hour, model: None })
    };
    of_model().or_else(cheapest)
}
