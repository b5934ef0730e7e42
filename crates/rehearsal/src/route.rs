//! Method and path into the handler that knows the answer; the key is asked for first.

use serde_json::json;

use crate::endpoints::{PROJECT, SLUG};
use crate::reply::{Handled, Reply};
use crate::request::{Now, Request};
use crate::state::State;
use crate::{WANDB_KEY, chat, download, endpoints, files, jobs, models, multipart, preview, progress, wandb};

pub fn api(state: &mut State, request: &Request, now: Now) -> Reply {
    if let Some(reply) = wandb::api(state, request, now) {
        return reply;
    }
    let key = &state.script.key;
    let expected = (!key.is_empty()).then(|| format!("Bearer {key}"));
    if request.head.header("authorization") != expected.as_deref() {
        return Reply::coded(401, "invalid_api_key", "Invalid API key provided");
    }
    let segments: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    let handled = match segments.as_slice() {
        ["v2", "projects", project, ..] if *project != PROJECT => {
            Err(Reply::error(403, format!("no access to project {project}")))
        }
        ["v2", "projects", _, rest @ ..] => of_project(state, request, rest, now),
        ["v1", "fine-tunes", rest @ ..] => of_jobs(state, request, rest, now),
        _ => of_files_and_models(state, request, &segments, now),
    };
    handled.unwrap_or_else(|reply| reply)
}

fn of_files_and_models(state: &mut State, request: &Request, path: &[&str], now: Now) -> Handled {
    let body = || request.json();
    match (request.head.method.as_str(), path) {
        ("GET", ["v3", "whoami"]) => Ok(whoami()),
        ("POST", ["v1", "files"]) => files::announce(state, request, now),
        ("GET", ["v1", "files"]) => Ok(files::list(state, now)),
        ("POST", ["v1", "files", "multipart", "initiate"]) => multipart::initiate(state, &body()?, now),
        ("POST", ["v1", "files", "multipart", "complete"]) => multipart::complete(state, &body()?, now),
        ("POST", ["v1", "files", "multipart", "abort"]) => multipart::abort(state, &body()?),
        ("POST", ["v1", "files", id, "preprocess"]) => files::preprocess(state, request, id, now),
        ("GET", ["v1", "files", id]) => files::get(state, id, now),
        ("GET", ["v1", "files", id, "content"]) => files::content(state, id),
        ("DELETE", ["v1", "files", id]) => files::delete(state, id),
        ("GET", ["v1", "finetune", "download"]) => download::download(state, request, now),
        ("GET", ["v2", "public", "inference-instance-types"]) => Ok(endpoints::instance_types()),
        ("GET", ["v2", "supported-models"]) => Ok(endpoints::hosted()),
        ("POST", ["v1", "chat", "completions"]) => chat::completions(state, &body()?, now),
        _ => Err(nowhere(request)),
    }
}

fn of_jobs(state: &mut State, request: &Request, path: &[&str], now: Now) -> Handled {
    let body = || request.json();
    match (request.head.method.as_str(), path) {
        ("GET", ["models", "limits"]) => jobs::limits(state, request),
        ("GET", ["models", "supported"]) => Ok(models::supported()),
        ("POST", ["estimate-price"]) => jobs::estimate(state, &body()?, now),
        ("POST", ["preview"]) => preview::preview(state, &body()?, now),
        ("POST", []) => jobs::create(state, &body()?, now),
        ("GET", []) => Ok(jobs::list(state, now)),
        ("GET", [id]) => jobs::get(state, id, now),
        ("POST", [id, "cancel"]) => jobs::cancel(state, id, now),
        ("DELETE", [id]) => jobs::delete(state, id, now),
        ("GET", [id, "events"]) => progress::events(state, id, now),
        ("GET", [id, "metrics"]) => progress::metrics(state, request, id, now),
        ("GET", [id, "checkpoints"]) => progress::checkpoints(state, id, now),
        _ => Err(nowhere(request)),
    }
}

fn of_project(state: &mut State, request: &Request, path: &[&str], now: Now) -> Handled {
    let body = || request.json();
    match (request.head.method.as_str(), path) {
        ("GET", ["models", id]) => endpoints::model(state, id, now),
        ("GET", ["configs"]) => endpoints::configs(request),
        ("GET", ["endpoints"]) => Ok(endpoints::list(state, now)),
        ("POST", ["endpoints"]) => endpoints::create(state, &body()?, now),
        ("GET", ["endpoints", id]) => endpoints::get(state, id, now),
        ("PATCH", ["endpoints", id]) => endpoints::split(state, request, id, now),
        ("GET", ["endpoints", id, "deployments"]) => endpoints::deployments(state, id, now),
        ("POST", ["endpoints", id, "deployments"]) => endpoints::deploy(state, &body()?, id, now),
        ("GET", ["endpoints", id, "deployments", one]) => endpoints::deployment(state, id, one, now),
        ("PATCH", ["endpoints", id, "deployments", one]) => endpoints::scale(state, request, id, one, now),
        ("DELETE", ["endpoints", id, "deployments", one]) => endpoints::remove(state, id, one, now),
        _ => Err(nowhere(request)),
    }
}

pub fn storage(state: &mut State, request: &Request) -> Reply {
    if let Some(reply) = wandb::store(state, request) {
        return reply;
    }
    let segments: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    let handled = match (request.head.method.as_str(), segments.as_slice()) {
        ("PUT", ["storage", "parts", id, number]) => multipart::store_part(state, request, id, number),
        ("PUT", ["storage", _]) => files::store(state, request),
        _ => Err(files::denied()),
    };
    handled.unwrap_or_else(|reply| reply)
}

/// Records the violation of a client that sends its key to the storage.
pub fn guard_key(state: &mut State, headers: &[(String, String)], path: &str) {
    let keys = [state.script.key.as_str(), WANDB_KEY];
    let has_key = |value: &str| keys.iter().any(|key| !key.is_empty() && value.contains(key));
    let carries =
        |(name, value): &&(String, String)| name.eq_ignore_ascii_case("authorization") || has_key(value);
    if let Some((name, _)) = headers.iter().find(carries) {
        state.record_violation(format!("{path}: the key arrived at the storage, in the header `{name}`"));
    }
}

fn whoami() -> Reply {
    Reply::ok(&json!({
        "type": "project_api_key",
        "api_key": { "id": "key-rehearsal" },
        "project": { "id": PROJECT, "name": "Rehearsal", "slug": SLUG },
        "organization": { "id": "org-rehearsal", "name": "Rehearsal" },
    }))
}

fn nowhere(request: &Request) -> Reply {
    Reply::error(404, format!("no such route: {} {}", request.head.method, request.path))
}
