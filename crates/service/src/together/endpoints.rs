//! Endpoints and their deployments: the names under which a tuned model can be called, and what runs there.
//!
//! A running deployment costs money by the minute, so its creation is sent once: whoever calls it must
//! look for the deployment before sending it again. Every other call may be repeated without harm. See
//! <https://docs.together.ai/reference>.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::http::{Body, Method};
use crate::together::base::encode;
use crate::together::hardware::{Catalogue, Config};
use crate::together::job::{number, text, time, whole};
use crate::together::project::{Project, pages};
use crate::together::{Error, Together, Tries};

const ENDPOINT: (fn(&Value) -> Option<Endpoint>, &str) = (Endpoint::read, "endpoint");
const DEPLOYMENT: (fn(&Value) -> Option<Deployment>, &str) = (Deployment::read, "deployment");

/// Deployments by id, with their weights.
pub type Split = Vec<(String, f64)>;

/// A name that is called, and where its requests go.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    pub id: String,
    /// What requests name as their model: `<project>/<name>`.
    pub name: String,
    pub split: Split,
    pub deployments: Vec<Deployment>,
    pub etag: Option<String>,
}

impl Endpoint {
    fn read(object: &Value) -> Option<Endpoint> {
        let entries = object.get("trafficSplit").and_then(Value::as_array);
        let entry = |entry: &Value| {
            Some((text(entry, &["deploymentId"])?, number(entry, &["weight"]).unwrap_or_default()))
        };
        let deployments = object.get("deployments").and_then(Value::as_array);
        Some(Endpoint {
            id: text(object, &["id"])?,
            name: text(object, &["name"])?,
            split: entries.into_iter().flatten().filter_map(entry).collect(),
            deployments: deployments.into_iter().flatten().filter_map(Deployment::read).collect(),
            etag: text(object, &["etag"]),
        })
    }

    pub fn bare_name(&self) -> &str {
        bare(&self.name)
    }

    /// The deployments that its requests go to.
    pub fn asked(&self) -> impl Iterator<Item = &Deployment> {
        let is_asked = |one: &&Deployment| self.split.iter().any(|(id, part)| *id == one.id && *part > 0.0);
        self.deployments.iter().filter(is_asked)
    }
}

/// A model on machines.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    pub id: String,
    /// `<project>/<endpoint>/<name>`, or the last of them.
    pub name: String,
    pub state: State,
    /// Why, in the service's words; may be empty.
    pub message: String,
    /// The model's resource name.
    pub model: Option<String>,
    pub hardware: Option<String>,
    /// How many machines it has or shall have, whichever is more.
    pub replicas: u64,
    pub bounds: Option<(u64, u64)>,
    /// Minutes without a request after which the service stops it; absent where it does not.
    pub idle_minutes: Option<u64>,
    pub created_at: Option<Timestamp>,
}

impl Deployment {
    fn read(object: &Value) -> Option<Deployment> {
        let status = object.get("status").filter(|status| status.is_object()).unwrap_or(object);
        let autoscaling = object.get("autoscaling").unwrap_or(&Value::Null);
        let bounds = whole(autoscaling, &["minReplicas"]).zip(whole(autoscaling, &["maxReplicas"]));
        let counts = [
            whole(status, &["readyReplicas"]),
            whole(status, &["scheduledReplicas"]),
            whole(object, &["desiredReplicas"]),
            bounds.map(|(least, _)| least),
        ];
        Some(Deployment {
            id: text(object, &["id"])?,
            name: text(object, &["name"]).unwrap_or_default(),
            state: State::new(&text(status, &["state"]).unwrap_or_default()),
            message: text(status, &["message"]).unwrap_or_default(),
            model: text(object, &["model", "modelId"]),
            hardware: text(object, &["hardware"]),
            replicas: counts.into_iter().flatten().max().unwrap_or(1),
            bounds,
            idle_minutes: whole(object, &["inactiveTimeout"]).filter(|minutes| *minutes > 0),
            created_at: time(object, &["createdAt"]),
        })
    }

    pub fn bare_name(&self) -> &str {
        bare(&self.name)
    }

    pub fn is_scaled_down(&self) -> bool {
        self.bounds == Some((0, 0))
    }

    /// Whether it has machines, or may have, and nobody has asked for none.
    pub fn is_wanted(&self) -> bool {
        self.state.is_billed() && !self.is_scaled_down()
    }

    /// The same, and it is not on its way down for another reason.
    pub fn is_up(&self) -> bool {
        self.is_wanted() && self.state.as_str() != "stopping"
    }

    /// Dollars a minute of all its machines, where the catalogue knows them.
    pub fn dollars_a_minute(&self, catalogue: &Catalogue) -> Option<f64> {
        let one = catalogue.dollars_a_minute(self.hardware.as_deref()?)?;
        Some(one * self.replicas.max(1) as f64)
    }
}

/// What a deployment is doing, in the service's words without their prefix and in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State(String);

impl State {
    fn new(text: &str) -> State {
        let text = text.to_ascii_lowercase();
        State(text.strip_prefix("deployment_state_").unwrap_or(&text).to_owned())
    }

    /// In a word: `provisioning`, `scaling`, `ready`, `degraded`, `stopping`, `stopped`, `failed`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_ready(&self) -> bool {
        self.0 == "ready"
    }

    pub fn is_failed(&self) -> bool {
        self.0 == "failed"
    }

    /// Whether it has no machines any more, nor will have any.
    pub fn is_stopped(&self) -> bool {
        self.0 == "stopped"
    }

    /// Whether it has machines, or may have: whatever is not known to have none costs money.
    pub fn is_billed(&self) -> bool {
        !self.is_stopped() && !self.is_failed()
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_empty() { "in no known state" } else { &self.0 })
    }
}

#[derive(Debug, Clone, Copy)]
pub struct NewDeployment<'n> {
    pub name: &'n str,
    /// The model's object id (`ml_…`), of the same project.
    pub model: &'n str,
    pub config: &'n Config,
    /// Minutes without a request after which the service stops it.
    pub idle_minutes: Option<u64>,
}

/// The endpoints of a project, and what runs there.
#[derive(Clone, Copy)]
pub struct Endpoints<'e> {
    pub together: &'e Together,
    pub project: &'e Project,
}

impl Endpoints<'_> {
    pub fn list(&self, tries: Tries) -> Result<Vec<Endpoint>, Error> {
        let path = self.project.path();
        let read = |object: &Value| {
            // Who looks for an endpoint before creating it must not miss one.
            Endpoint::read(object).ok_or_else(|| {
                self.together.unlike((Method::Get, &path), object, "an endpoint in it has no id or name")
            })
        };
        pages(self.together, &path, tries)?.iter().map(read).collect()
    }

    pub fn retrieve(&self, id: &str) -> Result<Endpoint, Error> {
        let path = format!("{}/{}", self.project.path(), encode(id));
        self.together.object((Method::Get, &path), Body::Empty, Tries::Many, ENDPOINT)
    }

    /// Creates an endpoint, which costs nothing. One try: a name that is taken is a refusal.
    pub fn create(&self, name: &str) -> Result<Endpoint, Error> {
        let body = json!({ "name": name });
        let endpoint = self.together.object(
            (Method::Post, &self.project.path()),
            Body::Json(&body),
            Tries::One,
            ENDPOINT,
        )?;
        self.together
            .note_created(format!("{}/{}", self.project.path(), encode(&endpoint.id)), Duration::ZERO);
        self.together.note_created(self.deployments_path(&endpoint.id), Duration::ZERO);
        Ok(endpoint)
    }

    /// Says which deployments of `endpoint` answer, unless somebody changed it since it was read.
    pub fn set_split(&self, endpoint: &Endpoint, split: &[(String, f64)]) -> Result<Endpoint, Error> {
        let path = format!("{}/{}?updateMask=trafficSplit", self.project.path(), encode(&endpoint.id));
        let entries: Vec<Value> =
            split.iter().map(|(id, weight)| json!({ "deploymentId": id, "weight": weight })).collect();
        let mut body = json!({ "trafficSplit": entries });
        if let Some(etag) = &endpoint.etag {
            body["etag"] = etag.clone().into();
        }
        self.together.object((Method::Patch, &path), Body::Json(&body), Tries::Many, ENDPOINT)
    }

    pub fn deployments(&self, endpoint: &str) -> Result<Vec<Deployment>, Error> {
        let path = self.deployments_path(endpoint);
        let read = |object: &Value| {
            Deployment::read(object).ok_or_else(|| {
                self.together.unlike((Method::Get, &path), object, "a deployment in it has no id")
            })
        };
        pages(self.together, &path, Tries::Many)?.iter().map(read).collect()
    }

    /// One deployment. One try: whoever waits for it asks again.
    pub fn deployment(&self, (endpoint, id): (&str, &str)) -> Result<Deployment, Error> {
        let path = format!("{}/{}", self.deployments_path(endpoint), encode(id));
        self.together.object((Method::Get, &path), Body::Empty, Tries::One, DEPLOYMENT)
    }

    /// Creates a deployment of one machine. It costs money and is sent once; [`Error::certainty`] says what
    /// a failure leaves open.
    pub fn create_deployment(&self, endpoint: &str, new: &NewDeployment<'_>) -> Result<Deployment, Error> {
        let mut body = json!({
            "name": new.name,
            "model": format!("projects/{}/models/{}", self.project.id, new.model),
            "config": new.config.path(),
            "autoscaling": { "minReplicas": 1, "maxReplicas": 1 },
        });
        if let Some(minutes) = new.idle_minutes {
            body["inactiveTimeout"] = minutes.into();
        }
        let path = self.deployments_path(endpoint);
        let deployment =
            self.together.object((Method::Post, &path), Body::Json(&body), Tries::One, DEPLOYMENT)?;
        self.together.note_created(format!("{path}/{}", encode(&deployment.id)), Duration::ZERO);
        Ok(deployment)
    }

    /// Gives a deployment exactly this many machines; with none it costs nothing.
    pub fn scale(&self, (endpoint, id): (&str, &str), replicas: u64) -> Result<Deployment, Error> {
        let path = format!("{}/{}?updateMask=autoscaling", self.deployments_path(endpoint), encode(id));
        let body = json!({ "autoscaling": { "minReplicas": replicas, "maxReplicas": replicas } });
        self.together.object((Method::Patch, &path), Body::Json(&body), Tries::Many, DEPLOYMENT)
    }

    /// Removes a deployment, which must have stopped. One that is not there is removed.
    pub fn delete_deployment(&self, (endpoint, id): (&str, &str)) -> Result<(), Error> {
        let url = self.together.url(&format!("{}/{}", self.deployments_path(endpoint), encode(id)));
        // The answer of a success may be empty, which is no JSON.
        let answer = self.together.answer(Method::Delete, &url, Body::Empty, Tries::Many)?;
        if answer.is_success() || answer.status == 404 {
            return Ok(());
        }
        Err(self.together.asked(Method::Delete, &url).refused(&answer))
    }

    fn deployments_path(&self, endpoint: &str) -> String {
        format!("{}/{}/deployments", self.project.path(), encode(endpoint))
    }
}

/// The project of the key, asked for once: nothing where the service does not say it, or not at once.
pub fn own_project(together: &Together) -> Option<Project> {
    Project::of(&together.identity(Tries::One).ok()?)
}

/// The endpoints, asked for once: for commands that are about something else. Nothing where the service
/// knows no endpoints, or no project.
pub fn glance(together: &Together, project: Option<Project>) -> Result<Option<Vec<Endpoint>>, Error> {
    let project = match project {
        Some(project) => Some(project),
        None => Project::of(&together.identity(Tries::One)?),
    };
    let Some(project) = project else { return Ok(None) };
    match (Endpoints { together, project: &project }).list(Tries::One) {
        Ok(endpoints) => Ok(Some(endpoints)),
        Err(Error::Refused { status: 403 | 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The prices of what runs: only where something does is the catalogue asked for.
pub fn prices(together: &Together, endpoints: &[Endpoint]) -> Catalogue {
    if endpoints.iter().any(is_running) { Catalogue::look_up(together) } else { Catalogue::default() }
}

fn is_running(endpoint: &Endpoint) -> bool {
    endpoint.deployments.iter().any(|deployment| deployment.state.is_billed())
}

fn bare(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_read_from_a_whole_look_and_from_a_summary() {
        let whole_look = Deployment::read(&json!({
            "id": "dep_1", "name": "me/ep/ctxtune-1", "model": "projects/p/models/ml_1/revisions/rv_1",
            "status": { "state": "DEPLOYMENT_STATE_SCALING", "message": "waiting", "readyReplicas": 0 },
            "autoscaling": { "minReplicas": 1, "maxReplicas": 2 }, "hardware": "1xh100", "inactiveTimeout": 60,
            "createdAt": "2026-11-24T10:00:00Z",
        }))
        .unwrap();
        assert_eq!((whole_look.bare_name(), whole_look.state.as_str()), ("ctxtune-1", "scaling"));
        assert_eq!((whole_look.replicas, whole_look.bounds), (1, Some((1, 2))));
        assert_eq!((whole_look.idle_minutes, whole_look.message.as_str()), (Some(60), "waiting"));
        let summary = Deployment::read(&json!({
            "id": "dep_1", "name": "n", "state": "DEPLOYMENT_STATE_READY", "desiredReplicas": 3, "readyReplicas": 2,
            "autoscaling": { "minReplicas": 1, "maxReplicas": 4 },
        }))
        .unwrap();
        assert!(summary.state.is_ready());
        assert_eq!((summary.replicas, summary.idle_minutes), (3, None));
        assert_eq!(Deployment::read(&json!({ "name": "n" })), None);
    }

    #[test]
    fn what_is_not_known_to_have_stopped_is_billed() {
        let check = |state: &str, is_billed: bool| {
            assert_eq!(State::new(state).is_billed(), is_billed, "{state}");
        };
        for state in ["PROVISIONING", "SCALING", "READY", "DEGRADED", "STOPPING", "DANCING"] {
            check(&format!("DEPLOYMENT_STATE_{state}"), true);
        }
        check("", true);
        check("DEPLOYMENT_STATE_STOPPED", false);
        check("DEPLOYMENT_STATE_FAILED", false);
    }

    #[test]
    fn an_endpoint_is_its_name_its_split_and_what_runs_there() {
        let endpoint = Endpoint::read(&json!({
            "id": "ep_1", "name": "me/ep", "etag": "7", "trafficSplit": [{ "deploymentId": "dep_1", "weight": 1 }],
            "deployments": [{ "id": "dep_1", "state": "DEPLOYMENT_STATE_STOPPED" }],
        }))
        .unwrap();
        assert_eq!(
            (endpoint.bare_name(), endpoint.split.as_slice()),
            ("ep", &[("dep_1".to_owned(), 1.0)][..])
        );
        assert!(!is_running(&endpoint));
        assert_eq!(Endpoint::read(&json!({ "id": "ep_1" })), None);
    }
}
