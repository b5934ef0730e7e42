//! Endpoints, their deployments, and what these run on: simulated by the second, as jobs are.
//!
//! A deployment is stored as what it was last asked for and when; its state is computed when somebody asks. It
//! is strict about names, since they are what keeps a deployment from being paid twice.

use serde_json::{Value, json};

use crate::jobs::{object_id, output_name};
use crate::reply::{Handled, Reply};
use crate::request::{Now, Request, only};
use crate::state::{Deployment, Endpoint, Job, State};
use crate::{course, models};

pub const PROJECT: &str = "proj-rehearsal";
pub const SLUG: &str = "rehearsal";
const PUBLIC: &str = "proj-public";
/// The hardware of every configuration, how many of what; $0.06 a minute.
const HARDWARE: &str = "1xnvidia-h100-80gb";
const CENTS_AN_HOUR: u64 = 360;

/// Whether requests may name this model: an endpoint with or without one of its deployments.
pub fn is_callable(state: &State, model: &str, now: Now) -> bool {
    let Some(name) = model.strip_prefix(&format!("{SLUG}/")) else { return false };
    state.endpoints.iter().any(|endpoint| {
        let is_routed = |one: &&Deployment| match name.strip_prefix(&endpoint.name) {
            Some("") => endpoint.share(&one.id) > 0.0,
            Some(rest) => rest.strip_prefix('/') == Some(&one.name),
            None => false,
        };
        endpoint.deployments.iter().filter(is_routed).any(|one| one.state(state, now) == "READY")
    })
}

impl Deployment {
    fn state(&self, state: &State, now: Now) -> &'static str {
        let seconds = state.script.deployment_seconds;
        let passed = now.seconds_since(self.scaled.elapsed);
        match self.replicas {
            0 if passed < seconds / 2.0 => "STOPPING",
            0 => "STOPPED",
            _ if passed < seconds / 2.0 => "PROVISIONING",
            _ if passed < seconds => "SCALING",
            _ => "READY",
        }
    }

    /// As the API writes it: within its endpoint with a `state`, by itself with a `status`, here with both.
    fn value(&self, endpoint: &Endpoint, state: &State, now: Now) -> Value {
        let is = self.state(state, now);
        let ready = if is == "READY" { self.replicas } else { 0 };
        let is = format!("DEPLOYMENT_STATE_{is}");
        json!({
            "id": self.id,
            "name": format!("{SLUG}/{}/{}", endpoint.name, self.name),
            "projectId": PROJECT,
            "endpointId": endpoint.id,
            "model": self.model,
            "modelId": id_after(&self.model, "models"),
            "modelRevisionId": id_after(&self.model, "revisions"),
            "config": self.config,
            "configId": id_after(&self.config, "configs"),
            "hardware": HARDWARE,
            "autoscaling": { "minReplicas": self.replicas, "maxReplicas": self.replicas },
            "desiredReplicas": self.replicas,
            "inactiveTimeout": self.idle_minutes,
            "createdAt": self.created.time.to_string(),
            "updatedAt": self.scaled.time.to_string(),
            "trafficMode": "TRAFFIC_MODE_LIVE",
            "estimatedEffectiveTrafficShare": endpoint.share(&self.id),
            "etag": self.scaled.time.to_string(),
            "readyReplicas": ready,
            "state": is,
            "status": { "state": is, "message": "as rehearsed", "readyReplicas": ready },
        })
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

    fn value(&self, state: &State, now: Now) -> Value {
        let weighted = |(id, weight): &(String, f64)| json!({ "deploymentId": id, "weight": weight });
        let deployments = self.deployments.iter().map(|one| one.value(self, state, now));
        json!({
            "id": self.id,
            "name": format!("{SLUG}/{}", self.name),
            "projectId": PROJECT,
            "endpointType": "ENDPOINT_TYPE_DEDICATED",
            "visibility": "VISIBILITY_PRIVATE",
            "createdAt": self.created.time.to_string(),
            "updatedAt": now.time.to_string(),
            "etag": self.version.to_string(),
            "trafficSplit": self.split.iter().map(weighted).collect::<Vec<_>>(),
            "deployments": deployments.collect::<Vec<_>>(),
        })
    }

    fn deployment(&self, id: &str) -> Result<&Deployment, Reply> {
        let missing = || Reply::error(404, format!("deployment {id} not found"));
        self.deployments.iter().find(|one| one.id == id).ok_or_else(missing)
    }
}

fn listed(values: Vec<Value>) -> Reply {
    Reply::ok(&json!({ "object": "list", "data": values, "next_cursor": null }))
}

pub fn instance_types() -> Reply {
    listed(vec![json!({
        "id": "it_rehearsal", "name": HARDWARE, "description": "one GPU that is none", "gpuCount": 1,
        "gpuMemoryGib": 80, "gpuType": "H100", "priceCentsPerHour": CENTS_AN_HOUR, "regions": [],
    })])
}

/// The base models that can be deployed, as the service's catalogue lists them.
pub fn hosted() -> Reply {
    let (count, kind) = HARDWARE.split_once('x').unwrap_or_default();
    let count: u64 = count.parse().unwrap_or_default();
    let entry = |model: &models::Model| {
        let (name, id) = (model.name, base_id(model.name));
        let path = format!("projects/{PUBLIC}/models/{id}");
        let profile = |config: &str, mode: &str| {
            json!({
                "profileId": config, "certifiedConfigRevisionId": config, "certifiedModelRevisionId": id, "model": path,
                "config": format!("projects/{PUBLIC}/configs/{config}"), "modelName": name, "gpuType": kind,
                "gpuCount": count, "parallelism": "TP1", "quantization": "", "adapterMode": mode,
                "performanceBenchmarks": {},
            })
        };
        json!({
            "id": id, "name": name, "displayName": name, "displayType": "chat", "publisher": "rehearsal",
            "status": "SUPPORTED_MODEL_STATUS_SUPPORTED", "baseModel": path, "baseModelId": id,
            "products": ["PRODUCT_DEDICATED", "PRODUCT_FINE_TUNING"], "capabilities": ["CAPABILITY_CHAT"],
            "inputModalities": ["MODALITY_TEXT"], "outputModalities": ["MODALITY_TEXT"],
            "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
            "deploymentProfiles": [
                profile("cr_adapters", "ADAPTER_MODE_DYNAMIC"), profile("cr_whole", "ADAPTER_MODE_DISABLED"),
            ],
        })
    };
    listed(models::MODELS.iter().filter(|model| is_deployable(model.name)).map(entry).collect())
}

fn base_id(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    format!("ml_base{}", letters.collect::<String>().to_ascii_lowercase())
}

/// The complete job whose model has this id.
fn trained<'s>(state: &'s State, model: &str, now: Now) -> Option<&'s Job> {
    let has_model = |job: &&Job| {
        let is_completed = course::moment(&job.plan, job.seconds(now)).status == "completed";
        is_completed && !job.order.gives_adapter_only() && object_id(job, "ml_") == model
    };
    state.jobs.iter().find(has_model)
}

fn is_deployable(base: &str) -> bool {
    !base.ends_with("-Reference")
}

pub fn model(state: &State, id: &str, now: Now) -> Handled {
    let job = trained(state, id, now).ok_or_else(|| Reply::error(404, format!("model {id} not found")))?;
    let base = base_id(job.order.model.name);
    Ok(Reply::ok(&json!({
        "id": id, "name": output_name(job), "projectId": PROJECT, "organizationId": "org-rehearsal",
        "visibility": "VISIBILITY_PRIVATE", "baseModelId": base,
        "baseModel": format!("projects/{PUBLIC}/models/{base}"),
    })))
}

pub fn configs(request: &Request) -> Handled {
    let model = request.query("referenceModelId").ok_or_else(|| Reply::missing("referenceModelId"))?;
    let is_fit = |known: &models::Model| is_deployable(known.name) && base_id(known.name) == model;
    let (count, kind) = HARDWARE.split_once('x').unwrap_or_default();
    let config = |id: &str, adapters: &str| {
        json!({
            "id": id, "projectId": PUBLIC, "referenceModelId": model,
            "referenceModel": format!("projects/{PUBLIC}/models/{model}"), "certifications": [],
            "selectors": [
                { "key": "accelerator_type", "value": kind },
                { "key": "accelerator_count", "value": count },
                { "key": "adapter_mode", "value": adapters },
            ],
        })
    };
    let all = [config("cr_adapters", "dynamic"), config("cr_whole", "none")];
    Ok(listed(if models::MODELS.iter().any(is_fit) { all.to_vec() } else { Vec::new() }))
}

pub fn list(state: &State, now: Now) -> Reply {
    listed(state.endpoints.iter().map(|endpoint| endpoint.value(state, now)).collect())
}

pub fn create(state: &mut State, body: &Value, now: Now) -> Handled {
    let name = name_in(body)?;
    if state.endpoints.iter().any(|known| known.name == name) {
        return Err(Reply::error(409, format!("an endpoint named {name} exists")));
    }
    let id = state.next_id("ep_");
    let (split, deployments) = (Vec::new(), Vec::new());
    let endpoint = Endpoint { id, name, created: now, version: 1, split, deployments };
    let reply = Reply::ok(&endpoint.value(state, now));
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

fn position(state: &State, id: &str) -> Result<usize, Reply> {
    let position = state.endpoints.iter().position(|endpoint| endpoint.id == id);
    position.ok_or_else(|| Reply::error(404, format!("endpoint {id} not found")))
}

pub fn get(state: &State, id: &str, now: Now) -> Handled {
    Ok(Reply::ok(&state.endpoints[position(state, id)?].value(state, now)))
}

/// `PATCH /v2/projects/{project}/endpoints/{id}`: where requests go.
pub fn split(state: &mut State, request: &Request, id: &str, now: Now) -> Handled {
    require_mask(request, "trafficSplit")?;
    let body = request.json()?;
    let index = position(state, id)?;
    let endpoint = &mut state.endpoints[index];
    if body["etag"].as_str().is_some_and(|etag| etag != endpoint.version.to_string()) {
        return Err(Reply::error(409, "the endpoint was changed since"));
    }
    let entries = body["trafficSplit"].as_array().ok_or_else(|| Reply::missing("trafficSplit"))?;
    let mut split = Vec::new();
    for entry in entries {
        let weight = entry["weight"].as_f64().filter(|weight| *weight >= 0.0);
        let weight = weight.ok_or_else(|| Reply::field("trafficSplit", "a weight is missing"))?;
        let deployment = endpoint.deployment(entry["deploymentId"].as_str().unwrap_or_default())?;
        split.push((deployment.id.clone(), weight));
    }
    endpoint.split = split;
    endpoint.version += 1;
    get(state, id, now)
}

fn require_mask(request: &Request, mask: &str) -> Result<(), Reply> {
    match request.query("updateMask") {
        Some(named) if named == mask => Ok(()),
        named => Err(Reply::field("updateMask", format!("`updateMask` is {named:?}, not {mask}"))),
    }
}

pub fn deployments(state: &State, id: &str, now: Now) -> Handled {
    let endpoint = &state.endpoints[position(state, id)?];
    Ok(listed(endpoint.deployments.iter().map(|one| one.value(endpoint, state, now)).collect()))
}

pub fn deploy(state: &mut State, body: &Value, id: &str, now: Now) -> Handled {
    only(body, &["name", "model", "config", "autoscaling", "inactiveTimeout"])?;
    let name = name_in(body)?;
    let model = check_model(state, body, now)?;
    let config = body["config"].as_str().unwrap_or_default().to_owned();
    if config != format!("projects/{PUBLIC}/configs/cr_whole") {
        return Err(Reply::field("config", format!("config `{config}` does not fit the model")));
    }
    let idle_minutes = body["inactiveTimeout"].as_u64().unwrap_or(0);
    if idle_minutes != 0 && !(30..=1440).contains(&idle_minutes) {
        return Err(Reply::field("inactiveTimeout", "`inactiveTimeout` is 0 or 30 to 1440"));
    }
    let replicas = replicas_in(body)?;
    let deployment_id = state.next_id("dep_");
    let index = position(state, id)?;
    let endpoint = &mut state.endpoints[index];
    if endpoint.deployments.iter().any(|known| known.name == name) {
        return Err(Reply::error(409, format!("a deployment named {name} exists")));
    }
    endpoint.deployments.push(Deployment {
        id: deployment_id.clone(),
        name,
        model,
        config,
        idle_minutes,
        created: now,
        replicas,
        scaled: now,
    });
    endpoint.version += 1;
    state.deployments_created += 1;
    deployment(state, id, &deployment_id, now)
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

pub fn deployment(state: &State, id: &str, one: &str, now: Now) -> Handled {
    let endpoint = &state.endpoints[position(state, id)?];
    Ok(Reply::ok(&endpoint.deployment(one)?.value(endpoint, state, now)))
}

/// `PATCH /v2/projects/{project}/endpoints/{id}/deployments/{one}`: how many replicas it has.
pub fn scale(state: &mut State, request: &Request, id: &str, one: &str, now: Now) -> Handled {
    require_mask(request, "autoscaling")?;
    let replicas = replicas_in(&request.json()?)?;
    let index = position(state, id)?;
    let found = state.endpoints[index].deployments.iter_mut().find(|known| known.id == one);
    if let Some(found) = found.filter(|found| found.replicas != replicas) {
        (found.replicas, found.scaled) = (replicas, now);
    }
    deployment(state, id, one, now)
}

pub fn remove(state: &mut State, id: &str, one: &str, now: Now) -> Handled {
    let index = position(state, id)?;
    if state.endpoints[index].deployment(one)?.state(state, now) != "STOPPED" {
        return Err(Reply::error(400, format!("deployment {one} has not stopped")));
    }
    let endpoint = &mut state.endpoints[index];
    if endpoint.split.iter().any(|(routed, _)| routed == one) {
        return Err(Reply::error(400, format!("deployment {one} is in the traffic split")));
    }
    endpoint.deployments.retain(|known| known.id != one);
    endpoint.version += 1;
    Ok(Reply::ok(&json!({})))
}
