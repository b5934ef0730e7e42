//! Method and path into the handler that knows the answer; the key is asked for first.
//!
//! Separate so that the whole API is one table. It must not answer anything itself but what has
//! no other place: who the key belongs to, and that a path does not exist.

use serde_json::{Value, json};

use crate::endpoints::{PROJECT, SLUG};
use crate::reply::Reply;
use crate::state::{Now, Request, State};
use crate::{chat, download, endpoints, files, jobs, models, multipart, progress, wandb};

/// Carries out a request to the API.
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
    let method = request.head.method.as_str();
    let result = match segments.as_slice() {
        ["v3", "whoami"] if method == "GET" => Ok(whoami()),
        ["v1", "files", rest @ ..] => of_files(state, request, (method, rest), now),
        ["v1", "fine-tunes", rest @ ..] => of_jobs(state, request, (method, rest), now),
        ["v1", "finetune", "download"] if method == "GET" => download::download(state, request, now),
        ["v2", "public", "inference-instance-types"] if method == "GET" => Ok(endpoints::machines()),
        ["v2", "projects", PROJECT, rest @ ..] => of_project(state, request, (method, rest), now),
        ["v2", "projects", other, ..] => Err(Reply::error(403, format!("no access to project {other}"))),
        ["v1", "chat", "completions"] if method == "POST" => {
            body(request).and_then(|body| chat::completions(state, &body, now))
        }
        _ => Err(nowhere(request)),
    };
    result.unwrap_or_else(|reply| reply)
}

fn of_files(state: &mut State, request: &Request, line: (&str, &[&str]), now: Now) -> Result<Reply, Reply> {
    match line {
        ("POST", []) => files::announce(state, request, now),
        ("GET", []) => Ok(files::list(state, now)),
        ("POST", ["multipart", "initiate"]) => multipart::initiate(state, &body(request)?, now),
        ("POST", ["multipart", "complete"]) => multipart::complete(state, &body(request)?, now),
        ("POST", ["multipart", "abort"]) => multipart::abort(state, &body(request)?),
        ("POST", [id, "preprocess"]) if request.body.bytes == 0 => files::preprocess(state, id, now),
        ("POST", [_, "preprocess"]) => Err(Reply::error(400, "preprocess takes no body")),
        ("GET", [id]) => files::get(state, id, now),
        ("GET", [id, "content"]) => files::content(state, id),
        ("DELETE", [id]) => files::delete(state, id),
        _ => Err(nowhere(request)),
    }
}

fn of_jobs(state: &mut State, request: &Request, line: (&str, &[&str]), now: Now) -> Result<Reply, Reply> {
    match line {
        ("GET", ["models", "limits"]) => jobs::limits(state, request),
        ("GET", ["models", "supported"]) => Ok(models::supported()),
        ("POST", ["estimate-price"]) => jobs::estimate(state, &body(request)?, now),
        ("POST", []) => jobs::create(state, &body(request)?, now),
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

fn of_project(state: &mut State, request: &Request, line: (&str, &[&str]), now: Now) -> Result<Reply, Reply> {
    match line {
        ("GET", ["models", id]) => endpoints::model(state, id, now),
        ("GET", ["configs"]) => endpoints::configs(request),
        ("GET", ["endpoints"]) => Ok(endpoints::list(state, now)),
        ("POST", ["endpoints"]) => endpoints::create(state, &body(request)?, now),
        ("GET", ["endpoints", id]) => endpoints::get(state, id, now),
        ("PATCH", ["endpoints", id]) => endpoints::split(state, (request, &body(request)?), id, now),
        ("GET", ["endpoints", id, "deployments"]) => endpoints::deployments(state, id, now),
        ("POST", ["endpoints", id, "deployments"]) => endpoints::deploy(state, &body(request)?, id, now),
        ("GET", ["endpoints", id, "deployments", one]) => endpoints::deployment(state, (id, one), now),
        ("PATCH", ["endpoints", id, "deployments", one]) => {
            endpoints::scale(state, (request, &body(request)?), (id, one), now)
        }
        ("DELETE", ["endpoints", id, "deployments", one]) => endpoints::remove(state, (id, one), now),
        _ => Err(nowhere(request)),
    }
}

/// Carries out a request to the storage.
pub fn storage(state: &mut State, request: &Request) -> Reply {
    if let Some(reply) = wandb::store(state, request) {
        return reply;
    }
    let segments: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    let result = match (request.head.method.as_str(), segments.as_slice()) {
        ("PUT", ["storage", "parts", id, number]) => multipart::store_part(state, request, (id, number)),
        ("PUT", ["storage", _]) => files::store(state, request),
        _ => Err(files::denied()),
    };
    result.unwrap_or_else(|reply| reply)
}

/// Accuses a client that carries its key to the storage.
pub fn guard_key(state: &mut State, headers: &[(String, String)], path: &str) {
    let keys = [state.script.key.clone(), state.script.wandb_key.clone()];
    let carries = |(name, value): &&(String, String)| {
        let has_key = keys.iter().any(|key| !key.is_empty() && value.contains(key));
        name.eq_ignore_ascii_case("authorization") || has_key
    };
    if let Some((name, _)) = headers.iter().find(carries) {
        state.accuse(format!("{path}: the key arrived at the storage, in the header `{name}`"));
    }
}

fn body(request: &Request) -> Result<Value, Reply> {
    let content_type = request.head.header("content-type").unwrap_or_default();
    if !content_type.to_ascii_lowercase().starts_with("application/json") {
        return Err(Reply::error(400, format!("content type `{content_type}` is not application/json")));
    }
    serde_json::from_slice(&request.body.kept)
        .map_err(|error| Reply::error(400, format!("the body is no JSON: {error}")))
}

fn whoami() -> Reply {
    Reply::json(
        200,
        &json!({
            "type": "project_api_key",
            "api_key": { "id": "key-rehearsal" },
            "project": { "id": PROJECT, "name": "Rehearsal", "slug": SLUG },
            "organization": { "id": "org-rehearsal", "name": "Rehearsal" },
        }),
    )
}

fn nowhere(request: &Request) -> Reply {
    Reply::error(404, format!("no such route: {} {}", request.head.method, request.path))
}
