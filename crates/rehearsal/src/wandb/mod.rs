//! Weights & Biases as the rehearsal server speaks it: runs, their streams, sweeps and agents.
//!
//! Separate from the fine-tuning API, with which it shares the origin and nothing else. `document` reads
//! GraphQL, `graphql` answers it, `stream` takes lines. What arrived can be read by tests ([`WandbRun`])
//! and, from outside, below `/rehearsal/wandb/`, which is no part of the API.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Serialize;
use serde_json::{Value, json};

use crate::reply::Reply;
use crate::state::{Now, Request, State};
use crate::wandb::graphql::Access;
use crate::wandb::runs::Run;
use crate::wandb::sweeps::Sweep;
use crate::{WANDB_KEY, form};

mod document;
mod graphql;
mod runs;
mod space;
mod stream;
mod sweeps;

/// The one user and entity, which has every project.
pub const ENTITY: &str = "rehearsal";

/// The project of whoever names none.
const PROJECT: &str = "rehearsal";

#[derive(Debug, Default)]
pub struct Wandb {
    runs: Vec<Run>,
    sweeps: Vec<Sweep>,
    /// The storage id of each agent's sweep, by the agent's id.
    agents: BTreeMap<String, String>,
    /// Projects and names of deleted runs: their names are never free again.
    deleted: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WandbAlert {
    pub title: String,
    pub text: String,
    pub severity: String,
}

/// A run as it arrived.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WandbRun {
    pub entity: String,
    pub project: String,
    pub name: String,
    pub display_name: String,
    pub group: Option<String>,
    pub job_type: Option<String>,
    pub tags: Vec<String>,
    pub notes: Option<String>,
    /// As sent: every key holds an object with `value`.
    pub config: Value,
    pub summary: Value,
    /// Rows by offset; `NaN` and the infinities are strings.
    pub history: Vec<Value>,
    pub log: Vec<String>,
    pub files: Vec<String>,
    pub digests: BTreeMap<String, String>,
    pub alerts: Vec<WandbAlert>,
    pub state: String,
    pub exit_code: Option<i64>,
    pub sweep: Option<String>,
    pub requests: usize,
}

/// A sweep as it arrived.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WandbSweep {
    pub entity: String,
    pub project: String,
    pub name: String,
    /// As read from the YAML that was sent.
    pub config: Value,
    pub state: String,
    /// Names of its runs, in the order of the suggestions.
    pub runs: Vec<String>,
    pub agents: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    status: u16,
    message: String,
    /// Whether only a client that is wrong asks for it.
    is_violation: bool,
}

impl Refusal {
    fn new(status: u16, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into(), is_violation: false }
    }
}

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

/// The header that goes with every file to the storage.
const UPLOAD_HEADER: (&str, &str) = ("x-ms-blob-type", "BlockBlob");

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

/// Whether an argument names no entity, or the one that there is.
fn is_ours(entity: &Value) -> bool {
    entity.as_str().is_none_or(|entity| entity.is_empty() || entity == ENTITY)
}

fn storage_id(kind: &str, parts: &[&str]) -> String {
    BASE64_STANDARD.encode(format!("{kind}:v1:{}", parts.join(":")))
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

/// JSON as Python writes it: `NaN` and the infinities become strings.
fn read_json(text: &str) -> Result<Value, serde_json::Error> {
    let mut json = String::with_capacity(text.len());
    let mut is_string = false;
    for part in text.split_inclusive('"') {
        if is_string {
            json.push_str(part);
            let inside = part.strip_suffix('"').unwrap_or(part);
            let backslashes = inside.len() - inside.trim_end_matches('\\').len();
            is_string = backslashes % 2 == 1;
        } else {
            let words = part.replace("NaN", "\"NaN\"").replace("Infinity", "\"Infinity\"");
            json.push_str(&words.replace("-\"Infinity\"", "\"-Infinity\""));
            is_string = true;
        }
    }
    serde_json::from_str(&json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_become_strings() {
        let check = |text: &str, expected: Value| assert_eq!(read_json(text).unwrap(), expected);
        check(
            r#"{"a": NaN, "b": [-Infinity, Infinity, 1]}"#,
            json!({ "a": "NaN", "b": ["-Infinity", "Infinity", 1] }),
        );
        check(
            r#"{"NaN": "is NaN \" NaN \\", "é": NaN, "": ""}"#,
            json!({ "NaN": "is NaN \" NaN \\", "é": "NaN", "": "" }),
        );
        assert!(read_json("{\"a\": nan}").is_err());
    }
}
