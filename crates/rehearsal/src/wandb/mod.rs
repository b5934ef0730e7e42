//! Weights & Biases as the rehearsal server speaks it: runs, their streams, sweeps and agents.
//!
//! Separate from the fine-tuning API, with which it shares the origin and nothing else. GraphQL goes
//! the way `syntax`, `validate`, `execute`; lines come through `stream`. What arrived is to be seen
//! by tests ([`WandbRun`]) and, from outside, below `/rehearsal/wandb/`, which is no part of the API.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::reply::Reply;
use crate::state::{Now, Request, State};
use crate::wandb::execute::Access;
use crate::wandb::runs::Run;
use crate::wandb::sweeps::{Agent, Sweep};

mod execute;
mod runs;
mod space;
mod stream;
mod sweeps;
mod syntax;
mod text;
mod token;
mod validate;

/// The one user and entity, which has every project.
pub const ENTITY: &str = "rehearsal";

/// The project of whoever names none.
pub const PROJECT: &str = "rehearsal";

/// What agents are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Orders {
    /// The next run, until the sweep is over.
    #[default]
    Suggest,
    /// To stop what runs, and nothing new.
    Stop,
    /// To end.
    Exit,
}

/// What is remembered.
#[derive(Debug, Default)]
pub struct Wandb {
    runs: Vec<Run>,
    sweeps: Vec<Sweep>,
    agents: Vec<Agent>,
    /// Projects and names of runs that somebody deleted: their names are never free again.
    deleted: Vec<(String, String)>,
}

/// An alert as it arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WandbAlert {
    /// Its subject.
    pub title: String,
    /// Its text.
    pub text: String,
    /// `INFO`, `WARN` or `ERROR`.
    pub severity: String,
}

/// A run as it arrived.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WandbRun {
    /// Whose it is.
    pub entity: String,
    /// The project that it is in.
    pub project: String,
    /// The id that the client gave it.
    pub name: String,
    /// What people see.
    pub display_name: String,
    /// The group that it is in.
    pub group: Option<String>,
    /// What it is for.
    pub job_type: Option<String>,
    /// What people search by.
    pub tags: Vec<String>,
    /// What people wrote.
    pub notes: Option<String>,
    /// As sent: every key holds an object with `value`.
    pub config: Value,
    /// As sent last.
    pub summary: Value,
    /// Rows by offset; `NaN` and the infinities are strings.
    pub history: Vec<Value>,
    /// Lines of the console by offset.
    pub log: Vec<String>,
    /// Names of the files that were uploaded, in order of arrival.
    pub files: Vec<String>,
    /// SHA-256 of each of them, by name.
    pub digests: BTreeMap<String, String>,
    /// Its alerts, in order of arrival.
    pub alerts: Vec<WandbAlert>,
    /// `pending`, `running`, `finished`, `failed`, ….
    pub state: String,
    /// As sent with the end.
    pub exit_code: Option<i64>,
    /// The name of its sweep.
    pub sweep: Option<String>,
    /// Requests to its stream.
    pub requests: usize,
}

/// A sweep as it arrived.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WandbSweep {
    /// Whose it is.
    pub entity: String,
    /// The project that it is in.
    pub project: String,
    /// Eight characters.
    pub name: String,
    /// As read from the YAML that was sent.
    pub config: Value,
    /// `PENDING`, `RUNNING`, `PAUSED`, `FINISHED`, `CANCELED`.
    pub state: String,
    /// Names of its runs, in the order of the suggestions.
    pub runs: Vec<String>,
    /// How many agents came.
    pub agents: usize,
}

/// Why something is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    status: u16,
    message: String,
}

impl Refusal {
    fn new(status: u16, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into() }
    }
}

/// Carries out a request to the origin of the API; nothing when its path is not W&B's.
pub fn api(state: &mut State, request: &Request, now: Now) -> Option<Reply> {
    let segments = text::segments(&request.path);
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let method = request.head.method.as_str();
    match (method, segments.as_slice()) {
        (_, ["graphql"]) => {
            let access = access(state, request);
            Some(execute::graphql(state, request, access, now))
        }
        ("POST", ["files", entity, project, run, "file_stream"]) => Some(match access(state, request) {
            Access::Granted => stream::stream(state, request, (entity, project, run), now),
            _ => Reply::json(401, &json!({ "error": "user is not logged in" })),
        }),
        ("GET", ["rehearsal", "wandb", "runs"]) => Some(Reply::json(200, &json!(wandb_runs(state)))),
        ("GET", ["rehearsal", "wandb", "sweeps"]) => Some(Reply::json(200, &json!(wandb_sweeps(state)))),
        ("POST", ["rehearsal", "wandb", "runs", run, "stop"]) => Some(press_stop(state, run)),
        ("POST", ["rehearsal", "wandb", "runs", run, "delete"]) => Some(match delete_run(state, run) {
            true => Reply::json(200, &json!({})),
            false => Reply::json(404, &json!({ "error": format!("no run {run}") })),
        }),
        ("GET", [ENTITY, project, "runs", run]) => runs::find(state, project, run).map(page),
        _ => None,
    }
}

/// The header that goes with every file to the storage.
const UPLOAD_HEADER: (&str, &str) = ("x-ms-blob-type", "BlockBlob");

/// Takes the bytes of a run's file, at the storage; nothing when the path is no such file's.
pub fn store(state: &mut State, request: &Request) -> Option<Reply> {
    let segments = text::segments(&request.path);
    let [first, project, run, name @ ..] = segments.as_slice() else { return None };
    let is_it = |known: &Run| known.project == *project && known.name == *run;
    if request.head.method != "PUT" || first != "wandb" || request.query("signature").is_none() {
        return None;
    }
    let index = state.wandb.runs.iter().position(is_it)?;
    let name = name.join("/");
    let (header, value) = UPLOAD_HEADER;
    let breach = if !state.wandb.runs[index].issued.contains(&name) {
        Some("nobody asked for its address".to_owned())
    } else if request.head.header(header) != Some(value) {
        Some(format!("the upload header `{header}: {value}` is missing"))
    } else {
        None
    };
    if let Some(breach) = breach {
        state.accuse(format!("upload of {name}: {breach}"));
        return Some(Reply::json(403, &json!({ "error": breach })));
    }
    let files = &mut state.wandb.runs[index].files;
    files.retain(|(known, _)| *known != name);
    files.push((name, request.body.sha256.clone()));
    Some(Reply::bytes(200, "text/plain", Vec::new()))
}

fn access(state: &State, request: &Request) -> Access {
    let expected = format!("Basic {}", text::base64(format!("api:{}", state.script.wandb_key).as_bytes()));
    match request.head.header("authorization") {
        None => Access::Anonymous,
        Some(sent) if sent == expected => Access::Granted,
        Some(_) => Access::Denied,
    }
}

/// Presses Stop, as somebody does on the run's page.
fn press_stop(state: &mut State, name: &str) -> Reply {
    match state.wandb.runs.iter_mut().find(|run| run.name == name) {
        Some(run) => {
            run.is_stopped = true;
            Reply::json(200, &json!({}))
        }
        None => Reply::json(404, &json!({ "error": format!("no run {name}") })),
    }
}

/// What a run's URL shows.
fn page(run: &Run) -> Reply {
    let (lines, state, summary) = (run.history.len(), &run.state, &run.summary);
    let text = format!("REHEARSAL: run {} is {state}, {lines} rows\n{summary:#}\n", run.name);
    Reply::bytes(200, "text/plain; charset=utf-8", text.into_bytes())
}

/// Every run, in order of creation.
pub fn wandb_runs(state: &State) -> Vec<WandbRun> {
    state.wandb.runs.iter().map(shown).collect()
}

fn shown(run: &Run) -> WandbRun {
    let text_of = |name: &str| run.said(name).as_str().map(str::to_owned);
    let tags = run.said("tags");
    let tags = tags.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    WandbRun {
        entity: ENTITY.to_owned(),
        project: run.project.clone(),
        name: run.name.clone(),
        display_name: text_of("displayName").unwrap_or_default(),
        group: text_of("groupName"),
        job_type: text_of("jobType"),
        tags: tags.collect(),
        notes: text_of("notes"),
        config: run.config.clone(),
        summary: run.summary.clone(),
        history: run.history.iter().filter_map(|line| text::read(line).ok()).collect(),
        log: run.log.clone(),
        files: run.files.iter().map(|(name, _)| name.clone()).collect(),
        digests: run.files.iter().cloned().collect(),
        alerts: run.alerts.clone(),
        state: run.state.clone(),
        exit_code: run.exit_code,
        sweep: run.sweep.clone(),
        requests: run.requests,
    }
}

/// Every sweep, in order of creation.
pub fn wandb_sweeps(state: &State) -> Vec<WandbSweep> {
    let shown = |sweep: &Sweep| WandbSweep {
        entity: ENTITY.to_owned(),
        project: sweep.project.clone(),
        name: sweep.name.clone(),
        config: sweep.config.clone(),
        state: sweep.state.clone(),
        runs: sweep.runs.clone(),
        agents: state.wandb.agents.iter().filter(|agent| agent.is_of(sweep)).count(),
    };
    state.wandb.sweeps.iter().map(shown).collect()
}

/// Deletes a run, as somebody does on its page; whether there was one.
pub fn delete_run(state: &mut State, name: &str) -> bool {
    let Some(index) = state.wandb.runs.iter().position(|run| run.name == name) else { return false };
    let run = state.wandb.runs.remove(index);
    state.wandb.deleted.push((run.project, run.name));
    true
}

/// Deletes a sweep, as somebody does on its page; its agents then hear a 404.
pub fn delete_sweep(state: &mut State, name: &str) {
    state.wandb.sweeps.retain(|sweep| sweep.name != name);
}
