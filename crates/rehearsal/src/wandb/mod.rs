//! Weights & Biases as the rehearsal server speaks it: runs, their streams, sweeps and agents.
//!
//! `document` reads GraphQL, `graphql` answers it, `stream` takes lines. What arrived can be read by tests
//! ([`WandbRun`]) and, from outside, below `/rehearsal/wandb/`, which is no part of the API.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::json;

use crate::reply::Reply;
use crate::request::{Now, Request};
use crate::state::State;
use crate::state::wandb::{Run, WandbRun, WandbSweep};
use crate::wandb::graphql::Access;
use crate::wandb::ids::ENTITY;
use crate::wandb::runs::UPLOAD_HEADER;
use crate::{WANDB_KEY, form};

mod document;
mod graphql;
pub mod ids;
mod runs;
pub mod space;
mod stream;
mod sweeps;

/// Carries out a request to the origin of the API; nothing when its path is not W&B's.
pub fn api(state: &mut State, request: &Request, now: Now) -> Option<Reply> {
    let segments = form::segments(&request.path);
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    Some(match (request.head.method.as_str(), segments.as_slice()) {
        (_, ["graphql"]) => graphql::graphql(state, request, access(request), now),
        ("POST", ["files", entity, project, run, "file_stream"]) => match access(request) {
            Access::Granted => stream::stream(state, request, [entity, project, run], now),
            _ => Reply::json(401, &json!({ "error": "user is not logged in" })),
        },
        ("GET", ["rehearsal", "wandb", "runs"]) => Reply::ok(&json!(wandb_runs(state))),
        ("GET", ["rehearsal", "wandb", "sweeps"]) => Reply::ok(&json!(wandb_sweeps(state))),
        ("POST", ["rehearsal", "wandb", "runs", name, what @ ("stop" | "delete")]) => {
            let run = state.wandb.runs.iter_mut().find(|run| run.shown.name == *name);
            let Some(run) = run else {
                return Some(Reply::json(404, &json!({ "error": format!("no run {name}") })));
            };
            run.is_stopped = true;
            if *what == "delete" {
                delete_run(state, name);
            }
            Reply::ok(&json!({}))
        }
        ("GET", [ENTITY, project, "runs", name]) => page(&runs::find(state, project, name)?.shown),
        _ => return None,
    })
}

/// Takes the bytes of a run's file, at the storage; nothing when the path is no such file's.
pub fn store(state: &mut State, request: &Request) -> Option<Reply> {
    let segments = form::segments(&request.path);
    let [first, project, run, name @ ..] = segments.as_slice() else { return None };
    if request.head.method != "PUT" || first != "wandb" || request.query("signature").is_none() {
        return None;
    }
    let is_it = |known: &&mut Run| known.shown.project == *project && known.shown.name == *run;
    let run = state.wandb.runs.iter_mut().find(is_it)?;
    let name = name.join("/");
    let (header, value) = UPLOAD_HEADER;
    let breach = if !run.issued.contains(&name) {
        "nobody asked for its address".to_owned()
    } else if request.head.header(header) != Some(value) {
        format!("the upload header `{header}: {value}` is missing")
    } else {
        run.shown.files.retain(|known| *known != name);
        run.shown.digests.insert(name.clone(), request.body.sha256.clone());
        run.shown.files.push(name);
        return Some(Reply::bytes(200, "text/plain", Vec::new()));
    };
    state.record_violation(format!("upload of {name}: {breach}"));
    Some(Reply::json(403, &json!({ "error": breach })))
}

fn access(request: &Request) -> Access {
    let expected = format!("Basic {}", BASE64_STANDARD.encode(format!("api:{WANDB_KEY}")));
    match request.head.header("authorization") {
        None => Access::Anonymous,
        Some(sent) if sent == expected => Access::Granted,
        Some(_) => Access::Denied,
    }
}

fn page(run: &WandbRun) -> Reply {
    let (lines, state, summary) = (run.history.len(), &run.state, &run.summary);
    let text = format!("REHEARSAL: run {} is {state}, {lines} rows\n{summary:#}\n", run.name);
    Reply::bytes(200, "text/plain; charset=utf-8", text.into_bytes())
}

pub fn wandb_runs(state: &State) -> Vec<WandbRun> {
    state.wandb.runs.iter().map(|run| run.shown.clone()).collect()
}

pub fn wandb_sweeps(state: &State) -> Vec<WandbSweep> {
    state.wandb.sweeps.iter().map(|sweep| sweep.shown.clone()).collect()
}

/// Deletes a run, as somebody does on its page; whether there was one.
pub fn delete_run(state: &mut State, name: &str) -> bool {
    let Some(index) = state.wandb.runs.iter().position(|run| run.shown.name == name) else { return false };
    let run = state.wandb.runs.remove(index).shown;
    state.wandb.deleted.push((run.project, run.name));
    true
}
