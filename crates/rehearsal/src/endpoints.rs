//! Endpoints, their deployments, and what these run on: played by the second, as jobs are.
//!
//! Separate from jobs, whose models are deployed here. A deployment is stored as what it was last
//! asked for and when; its state is computed when somebody asks. It is strict about names, since
//! they are what keeps a deployment from being paid twice.

use serde_json::{Map, Value, json};

use crate::jobs::{object_id, output_name};
use crate::reply::Reply;
use crate::state::{Job, Now, Request, State};
use crate::{course, models};

/// The project of the one key.
pub const PROJECT: &str = "proj-rehearsal";

/// Its short name.
pub const SLUG: &str = "rehearsal";

/// Whose the public configurations are.
const PUBLIC: &str = "proj-public";

/// The machine of every configuration.
const MACHINE: &str = "1xnvidia-h100-80gb";

/// What it costs: $0.06 a minute.
const CENTS_AN_HOUR: u64 = 360;

/// Minutes that may be set for stopping what nobody asks.
const IDLE_MINUTES: [u64; 2] = [30, 1440];

/// An endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    id: String,
    name: String,
    created: Now,
    version: u64,
    split: Vec<(String, f64)>,
    deployments: Vec<Deployment>,
}

/// A deployment.
#[derive(Debug, Clone)]
pub struct Deployment {
    id: String,
    name: String,
    model: String,
    config: String,
    idle_minutes: u64,
    created: Now,
    /// How many machines it was last asked to have, and when.
    replicas: (u64, Now),
}

/// What requests name as their model, with and without a deployment of its own.
pub fn is_callable(state: &State, model: &str, now: Now) -> bool {
    let seconds = state.script.deployment_seconds;
    let Some(name) = model.strip_prefix(&format!("{SLUG}/")) else { return false };
    state.endpoints.iter().any(|endpoint| {
        let is_routed = |one: &&Deployment| {
            let weight =
                endpoint.split.iter().find(|(id, _)| *id == one.id).map_or(0.0, |(_, weight)| *weight);
            match name.strip_prefix(&endpoint.name) {
                Some("") => weight > 0.0,
                Some(rest) => rest.strip_prefix('/') == Some(&one.name),
                None => false,
            }
        };
        endpoint.deployments.iter().filter(is_routed).any(|one| one.state(seconds, now) == "READY")
    })
}

impl Deployment {
    fn state(&self, seconds: f64, now: Now) -> &'static str {
        let (replicas, since) = self.replicas;
        let passed = now.seconds_since(since.elapsed);
        match replicas {
            0 if passed < seconds / 2.0 => "STOPPING",
            0 => "STOPPED",
            _ if passed < seconds / 2.0 => "PROVISIONING",
            _ if passed < seconds => "SCALING",
            _ => "READY",
        }
    }

    fn fields(&self, endpoint: &Endpoint, (seconds, now): (f64, Now)) -> Map<String, Value> {
        let value = json!({
            "id": self.id,
            "name": format!("{SLUG}/{}/{}", endpoint.name, self.name),
            "projectId": PROJECT,
            "endpointId": endpoint.id,
            "model": self.model,
            "modelId": id_after(&self.model, "models"),
            "modelRevisionId": id_after(&self.model, "revisions"),
            "config": self.config,
            "configId": id_after(&self.config, "configs"),
            "hardware": MACHINE,
            "autoscaling": { "minReplicas": self.replicas.0, "maxReplicas": self.replicas.0 },
            "desiredReplicas": self.replicas.0,
            "inactiveTimeout": self.idle_minutes,
            "createdAt": self.created.time.to_string(),
            "updatedAt": self.replicas.1.time.to_string(),
            "trafficMode": "TRAFFIC_MODE_LIVE",
            "estimatedEffectiveTrafficShare": endpoint.share(&self.id),
            "etag": self.replicas.1.time.to_string(),
        });
        let Value::Object(mut fields) = value else { unreachable!("it was written as an object") };
        let is_ready = self.state(seconds, now) == "READY";
        fields.insert("readyReplicas".to_owned(), json!(if is_ready { self.replicas.0 } else { 0 }));
        fields
    }

    fn value(&self, endpoint: &Endpoint, at: (f64, Now)) -> Value {
        let mut fields = self.fields(endpoint, at);
        let ready = fields.shift_remove("readyReplicas").unwrap_or_default();
        let state = format!("DEPLOYMENT_STATE_{}", self.state(at.0, at.1));
        let status = json!({ "state": state, "message": "as rehearsed", "readyReplicas": ready });
        fields.insert("status".to_owned(), status);
        Value::Object(fields)
    }

    fn summary(&self, endpoint: &Endpoint, at: (f64, Now)) -> Value {
        let mut fields = self.fields(endpoint, at);
        fields.insert("state".to_owned(), json!(format!("DEPLOYMENT_STATE_{}", self.state(at.0, at.1))));
        Value::Object(fields)
    }
}

/// The id that follows the name of its kind in a resource name.
fn id_after<'n>(name: &'n str, kind: &str) -> &'n str {
    let mut parts = name.split('/').skip_while(|part| *part != kind);
    parts.nth(1).unwrap_or_default()
}

impl Endpoint {
    /// The part of the requests that goes to a deployment.
    fn share(&self, deployment: &str) -> f64 {
        let all: f64 = self.split.iter().map(|(_, weight)| weight).sum();
        let own = self.split.iter().filter(|(id, _)| id == deployment).map(|(_, weight)| weight);
        if all > 0.0 { own.sum::<f64>() / all } else { 0.0 }
    }

    fn value(&self, at: (f64, Now)) -> Value {
        let split: Vec<Value> =
            self.split.iter().map(|(id, weight)| json!({ "deploymentId": id, "weight": weight })).collect();
        json!({
            "id": self.id,
            "name": format!("{SLUG}/{}", self.name),
            "projectId": PROJECT,
            "endpointType": "ENDPOINT_TYPE_DEDICATED",
            "visibility": "VISIBILITY_PRIVATE",
            "createdAt": self.created.time.to_string(),
            "updatedAt": at.1.time.to_string(),
            "etag": self.version.to_string(),
            "trafficSplit": split,
            "deployments": self.deployments.iter().map(|one| one.summary(self, at)).collect::<Vec<_>>(),
        })
    }
}

/// `GET /v2/public/inference-instance-types`.
pub fn machines() -> Reply {
    let machine = json!({
        "id": "it_rehearsal", "name": MACHINE, "description": "one GPU that is none", "gpuCount": 1,
        "gpuMemoryGib": 80, "gpuType": "H100", "priceCentsPerHour": CENTS_AN_HOUR, "regions": [],
    });
    Reply::json(200, &json!({ "object": "list", "data": [machine], "next_cursor": null }))
}

/// The id of a base model.
fn base_id(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    format!("ml_base{}", letters.collect::<String>().to_ascii_lowercase())
}

/// The complete job whose model has this id.
fn trained<'s>(state: &'s State, model: &str, now: Now) -> Option<&'s Job> {
    let has_object = |job: &&Job| {
        let seconds = now.seconds_since(job.created.elapsed);
        course::moment(&job.plan, seconds).status == "completed" && !job.order.gives_adapter_only()
    };
    state.jobs.iter().filter(has_object).find(|job| object_id(job, "ml_") == model)
}

/// Whether what is tuned from it can be deployed.
fn is_deployable(base: &str) -> bool {
    !base.ends_with("-Reference")
}

/// `GET /v2/projects/{project}/models/{id}`.
///
/// # Errors
/// When there is none.
pub fn model(state: &State, id: &str, now: Now) -> Result<Reply, Reply> {
    let job = trained(state, id, now).ok_or_else(|| Reply::error(404, format!("model {id} not found")))?;
    let base = base_id(job.order.model.name);
    let value = json!({
        "id": id, "name": output_name(job), "projectId": PROJECT, "organizationId": "org-rehearsal",
        "visibility": "VISIBILITY_PRIVATE", "baseModelId": base,
        "baseModel": format!("projects/{PUBLIC}/models/{base}"),
    });
    Ok(Reply::json(200, &value))
}

/// `GET /v2/projects/{project}/configs`.
///
/// # Errors
/// When no model is named.
pub fn configs(request: &Request) -> Result<Reply, Reply> {
    let model = request
        .query("referenceModelId")
        .ok_or_else(|| Reply::field("referenceModelId", "`referenceModelId` is missing"))?;
    let known = models::MODELS.iter().filter(|known| is_deployable(known.name));
    let fitting = known.filter(|known| base_id(known.name) == model);
    let selectors = |adapters: &str| {
        let (count, kind) = MACHINE.split_once('x').unwrap_or_default();
        json!([
            { "key": "accelerator_type", "value": kind },
            { "key": "accelerator_count", "value": count },
            { "key": "adapter_mode", "value": adapters },
        ])
    };
    let config = |id: &str, adapters: &str| {
        json!({
            "id": id, "projectId": PUBLIC, "referenceModelId": model,
            "referenceModel": format!("projects/{PUBLIC}/models/{model}"), "certifications": [],
            "selectors": selectors(adapters),
        })
    };
    let all: Vec<Value> =
        fitting.flat_map(|_| [config("cr_adapters", "dynamic"), config("cr_whole", "none")]).collect();
    Ok(Reply::json(200, &json!({ "object": "list", "data": all, "next_cursor": null })))
}

/// `GET /v2/projects/{project}/endpoints`.
pub fn list(state: &State, now: Now) -> Reply {
    let at = (state.script.deployment_seconds, now);
    let all: Vec<Value> = state.endpoints.iter().map(|endpoint| endpoint.value(at)).collect();
    Reply::json(200, &json!({ "object": "list", "data": all, "next_cursor": null }))
}

/// `POST /v2/projects/{project}/endpoints`.
///
/// # Errors
/// When the name is none, or taken.
pub fn create(state: &mut State, body: &Value, now: Now) -> Result<Reply, Reply> {
    let name = name_in(body)?;
    if state.endpoints.iter().any(|known| known.name == name) {
        return Err(Reply::error(409, format!("an endpoint named {name} exists")));
    }
    let endpoint = Endpoint {
        id: state.next_id("ep_"),
        name,
        created: now,
        version: 1,
        split: Vec::new(),
        deployments: Vec::new(),
    };
    let reply = Reply::json(200, &endpoint.value((state.script.deployment_seconds, now)));
    state.endpoints.push(endpoint);
    Ok(reply)
}

fn name_in(body: &Value) -> Result<String, Reply> {
    let is_fit = |name: &&str| {
        !name.is_empty()
            && name.len() <= 63
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let name = body["name"].as_str().filter(is_fit);
    name.map(str::to_owned)
        .ok_or_else(|| Reply::field("name", "`name` must be lower-case letters, digits and dashes"))
}

fn endpoint_of<'s>(state: &'s mut State, id: &str) -> Result<&'s mut Endpoint, Reply> {
    let missing = || Reply::error(404, format!("endpoint {id} not found"));
    state.endpoints.iter_mut().find(|endpoint| endpoint.id == id).ok_or_else(missing)
}

fn deployment_of<'e>(endpoint: &'e mut Endpoint, id: &str) -> Result<&'e mut Deployment, Reply> {
    let missing = || Reply::error(404, format!("deployment {id} not found"));
    endpoint.deployments.iter_mut().find(|one| one.id == id).ok_or_else(missing)
}

/// `GET /v2/projects/{project}/endpoints/{id}`.
///
/// # Errors
/// When there is none.
pub fn get(state: &mut State, id: &str, now: Now) -> Result<Reply, Reply> {
    let at = (state.script.deployment_seconds, now);
    Ok(Reply::json(200, &endpoint_of(state, id)?.value(at)))
}

/// `PATCH /v2/projects/{project}/endpoints/{id}`: where requests go.
///
/// # Errors
/// When there is none, it was changed since, or a deployment is not there.
pub fn split(
    state: &mut State,
    (request, body): (&Request, &Value),
    id: &str,
    now: Now,
) -> Result<Reply, Reply> {
    let at = (state.script.deployment_seconds, now);
    require_mask(request, "trafficSplit")?;
    let endpoint = endpoint_of(state, id)?;
    if body["etag"].as_str().is_some_and(|etag| etag != endpoint.version.to_string()) {
        return Err(Reply::error(409, "the endpoint was changed since"));
    }
    let Some(entries) = body["trafficSplit"].as_array() else {
        return Err(Reply::field("trafficSplit", "`trafficSplit` is missing"));
    };
    let mut split = Vec::new();
    for entry in entries {
        let id = entry["deploymentId"].as_str().unwrap_or_default();
        let weight = entry["weight"].as_f64().filter(|weight| *weight >= 0.0);
        let weight = weight.ok_or_else(|| Reply::field("trafficSplit", "a weight is missing"))?;
        deployment_of(endpoint, id)?;
        split.push((id.to_owned(), weight));
    }
    endpoint.split = split;
    endpoint.version += 1;
    Ok(Reply::json(200, &endpoint.value(at)))
}

fn require_mask(request: &Request, mask: &str) -> Result<(), Reply> {
    match request.query("updateMask") {
        Some(named) if named == mask => Ok(()),
        named => Err(Reply::field("updateMask", format!("`updateMask` is {named:?}, not {mask}"))),
    }
}

/// `GET /v2/projects/{project}/endpoints/{id}/deployments`.
///
/// # Errors
/// When there is no such endpoint.
pub fn deployments(state: &mut State, id: &str, now: Now) -> Result<Reply, Reply> {
    let at = (state.script.deployment_seconds, now);
    let endpoint = endpoint_of(state, id)?.clone();
    let all: Vec<Value> = endpoint.deployments.iter().map(|one| one.value(&endpoint, at)).collect();
    Ok(Reply::json(200, &json!({ "object": "list", "data": all, "next_cursor": null })))
}

/// `POST /v2/projects/{project}/endpoints/{id}/deployments`.
///
/// # Errors
/// When the name is taken, or the model, its configuration or another value cannot be deployed.
pub fn deploy(state: &mut State, body: &Value, id: &str, now: Now) -> Result<Reply, Reply> {
    let at = (state.script.deployment_seconds, now);
    let known = ["name", "model", "config", "autoscaling", "inactiveTimeout"];
    let fields = body.as_object().ok_or_else(|| Reply::error(400, "the body is no JSON object"))?;
    if let Some(name) = fields.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(Reply::field(name, format!("`{name}` is not known")));
    }
    let name = name_in(body)?;
    let model = check_model(state, body, now)?;
    let config = body["config"].as_str().unwrap_or_default().to_owned();
    if config != format!("projects/{PUBLIC}/configs/cr_whole") {
        return Err(Reply::field("config", format!("config `{config}` does not fit the model")));
    }
    let idle_minutes = body["inactiveTimeout"].as_u64().unwrap_or(0);
    if idle_minutes != 0 && !(IDLE_MINUTES[0]..=IDLE_MINUTES[1]).contains(&idle_minutes) {
        return Err(Reply::field("inactiveTimeout", "`inactiveTimeout` is 0 or 30 to 1440"));
    }
    let replicas = (replicas_in(body)?, now);
    let deployment_id = state.next_id("dep_");
    let endpoint = endpoint_of(state, id)?;
    if endpoint.deployments.iter().any(|known| known.name == name) {
        return Err(Reply::error(409, format!("a deployment named {name} exists")));
    }
    let deployment =
        Deployment { id: deployment_id, name, model, config, idle_minutes, created: now, replicas };
    let reply = Reply::json(200, &deployment.value(endpoint, at));
    endpoint.deployments.push(deployment);
    endpoint.version += 1;
    state.deployments_created += 1;
    Ok(reply)
}

fn check_model(state: &State, body: &Value, now: Now) -> Result<String, Reply> {
    let path = body["model"].as_str().unwrap_or_default();
    let id = path.strip_prefix(&format!("projects/{PROJECT}/models/")).unwrap_or_default();
    let job = trained(state, id, now);
    let job = job.ok_or_else(|| Reply::field("model", format!("model `{path}` does not exist")))?;
    if !is_deployable(job.order.model.name) {
        let message = format!("models tuned from {} cannot be deployed", job.order.model.name);
        return Err(Reply::field("model", message));
    }
    Ok(format!("{path}/revisions/{}", object_id(job, "rv_")))
}

fn replicas_in(body: &Value) -> Result<u64, Reply> {
    let bound = |name: &str| body["autoscaling"][name].as_u64();
    match (bound("minReplicas"), bound("maxReplicas")) {
        (Some(least), Some(most)) if least == most => Ok(least),
        _ => Err(Reply::field("autoscaling", "`minReplicas` and `maxReplicas` must be one number here")),
    }
}

/// `GET /v2/projects/{project}/endpoints/{id}/deployments/{id}`.
///
/// # Errors
/// When there is none.
pub fn deployment(state: &mut State, (id, one): (&str, &str), now: Now) -> Result<Reply, Reply> {
    let at = (state.script.deployment_seconds, now);
    let endpoint = endpoint_of(state, id)?;
    let found = deployment_of(endpoint, one)?.clone();
    Ok(Reply::json(200, &found.value(endpoint, at)))
}

/// `PATCH /v2/projects/{project}/endpoints/{id}/deployments/{id}`: how many machines it has.
///
/// # Errors
/// When there is none, or the numbers are none.
pub fn scale(
    state: &mut State,
    (request, body): (&Request, &Value),
    (id, one): (&str, &str),
    now: Now,
) -> Result<Reply, Reply> {
    require_mask(request, "autoscaling")?;
    let replicas = replicas_in(body)?;
    let found = deployment_of(endpoint_of(state, id)?, one)?;
    if found.replicas.0 != replicas {
        found.replicas = (replicas, now);
    }
    deployment(state, (id, one), now)
}

/// `DELETE /v2/projects/{project}/endpoints/{id}/deployments/{id}`.
///
/// # Errors
/// When there is none, or it still has machines or requests.
pub fn remove(state: &mut State, (id, one): (&str, &str), now: Now) -> Result<Reply, Reply> {
    let seconds = state.script.deployment_seconds;
    let endpoint = endpoint_of(state, id)?;
    let found = deployment_of(endpoint, one)?;
    if found.state(seconds, now) != "STOPPED" {
        return Err(Reply::error(400, format!("deployment {one} has not stopped")));
    }
    if endpoint.split.iter().any(|(routed, _)| routed == one) {
        return Err(Reply::error(400, format!("deployment {one} is in the traffic split")));
    }
    endpoint.deployments.retain(|known| known.id != one);
    endpoint.version += 1;
    Ok(Reply::json(200, &json!({})))
}
