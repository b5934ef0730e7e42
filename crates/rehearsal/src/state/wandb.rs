//! Runs and sweeps as they arrived, and what the server keeps of them beside.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::request::Now;
use crate::wandb::ids::{ENTITY, storage_id};
use crate::wandb::space::Space;

#[derive(Debug, Default)]
pub struct Wandb {
    pub runs: Vec<Run>,
    pub sweeps: Vec<Sweep>,
    /// The storage id of each agent's sweep, by the agent's id.
    pub agents: BTreeMap<String, String>,
    /// Projects and names of deleted runs: their names are never free again.
    pub deleted: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WandbAlert {
    pub title: String,
    pub text: String,
    pub severity: String,
}

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

#[derive(Debug, Clone, Default)]
pub struct Run {
    pub shown: WandbRun,
    /// Opaque to clients.
    pub storage_id: String,
    pub description: Option<String>,
    /// System metrics by offset.
    pub events: Vec<Value>,
    pub issued: BTreeSet<String>,
    pub is_stopped: bool,
    pub created: Timestamp,
    pub heartbeat: Timestamp,
}

impl Run {
    pub fn new(project: &str, name: &str, now: Now) -> Run {
        let shown = WandbRun {
            entity: ENTITY.to_owned(),
            project: project.to_owned(),
            name: name.to_owned(),
            config: json!({}),
            summary: json!({}),
            state: "running".to_owned(),
            ..WandbRun::default()
        };
        let storage_id = storage_id("Run", &[name, project, ENTITY]);
        Run { shown, storage_id, created: now.time, heartbeat: now.time, ..Run::default() }
    }
}

#[derive(Debug, Default)]
pub struct Sweep {
    pub shown: WandbSweep,
    /// Opaque to clients.
    pub storage_id: String,
    pub yaml: String,
    pub space: Space,
    /// What was last said of it, by the name in the mutation.
    pub said: Map<String, Value>,
}
