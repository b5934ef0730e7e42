//! Runs: who the key belongs to, a run as the service has it, a run made or changed, and alerts about it.
//!
//! The place of a run is taken from the answer, never from the request. Configurations are replaced as a whole
//! by the service, so that whoever changes one says all of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::wandb::{Error, Operation, RunIdentity, Wandb, encoded};
use ctxtune_python_json as python_json;

pub(crate) const UPSERT_NAME: &str = "UpsertBucket";

const VIEWER: Operation =
    Operation { name: "Viewer", text: "query Viewer { viewer { id entity username flags } }" };

const RESUME: Operation = Operation {
    name: "RunResumeStatus",
    text: "query RunResumeStatus($project: String, $entity: String, $name: String!) { \
           model(name: $project, entityName: $entity) { id name entity { id name } \
           bucket(name: $name, missingOk: true) { id name summaryMetrics historyLineCount logLineCount \
           historyTail config } } }",
};

const SUMMARY: Operation = Operation {
    name: "RunSummary",
    text: "query RunSummary($project: String, $entity: String, $name: String!) { \
           model(name: $project, entityName: $entity) { \
           bucket(name: $name, missingOk: true) { id summaryMetrics } } }",
};

const UPSERT: Operation = Operation {
    name: UPSERT_NAME,
    text: "mutation UpsertBucket($input: UpsertBucketInput!) { upsertBucket(input: $input) { \
           bucket { id name displayName project { id name entity { id name } } } inserted } }",
};

/// The config key with the job's id; a run that has it was described by this program before.
pub const JOB_KEY: &str = "job_id";
/// The config key with values that the service derived; newer values replace older ones.
pub const RESOLVED_KEY: &str = "resolved";
/// The config keys that W&B shows at the top of a run's page.
const PINNED: [&str; 1] = ["job_page"];

/// Where a run is to be, and everything that is said of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Its id.
    pub run: String,
    /// What the job's suffix ends in; the same as the id unless an agent chose that.
    pub tag: String,
    /// Whose it is; nothing: the key's own entity.
    pub entity: Option<String>,
    /// The project that it is in.
    pub project: String,
    /// What people see; nothing: the service invents it.
    pub display_name: Option<String>,
    /// The group that it is in.
    pub group: Option<String>,
    /// What it is for.
    pub job_type: Option<String>,
    /// What people search by.
    pub tags: Vec<String>,
    /// What people wrote.
    pub notes: Option<String>,
    /// The metadata of a new run, where none was chosen.
    pub defaults: Metadata,
    /// The sweep that it belongs to.
    pub sweep: Option<String>,
    /// What was chosen, by name.
    pub config: Map<String, Value>,
    /// The metrics that are shown over the first of them.
    pub metrics: Vec<String>,
    /// Whether the service that trains logs by itself, so that nothing is logged here.
    pub is_elsewhere: bool,
    /// Whether no alert is sent at its end.
    pub no_alert: bool,
    /// Whether the prepared data is uploaded to it.
    pub uploads_data: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// What it is called.
    pub display_name: Option<String>,
    /// What it is for.
    pub job_type: Option<String>,
    /// What people search by.
    pub tags: Vec<String>,
    /// What stands under its name.
    pub notes: Option<String>,
}

impl Plan {
    /// The same, with the default metadata where none was chosen: for a new run.
    #[must_use]
    pub(crate) fn with_defaults(mut self) -> Plan {
        let defaults = std::mem::take(&mut self.defaults);
        self.display_name = self.display_name.or(defaults.display_name);
        self.job_type = self.job_type.or(defaults.job_type);
        self.notes = self.notes.or(defaults.notes);
        if self.tags.is_empty() {
            self.tags = defaults.tags;
        }
        self
    }

    /// What is sent for the run that is `found` at the service, or for a new one. Default metadata is sent once, so
    /// that later changes on the run's page are kept.
    #[must_use]
    pub(crate) fn for_run(self, found: Option<&Found>) -> Plan {
        let is_described = found.is_some_and(|found| found.config.contains_key(JOB_KEY));
        if is_described { self } else { self.with_defaults() }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Found {
    pub summary: Map<String, Value>,
    pub config: Map<String, Value>,
    pub rows: u64,
    pub lines: u64,
    /// The `_step` that its next row may have.
    pub next_step: u64,
}

pub fn viewer(wandb: &Wandb) -> Result<String, Error> {
    let data = wandb.graphql(VIEWER, &json!({}))?;
    let viewer = data.get("viewer").filter(|viewer| viewer.is_object());
    let viewer = viewer.ok_or_else(|| Error::Key { host: wandb.host() })?;
    Ok(viewer.get("entity").and_then(Value::as_str).unwrap_or_default().to_owned())
}

pub fn find(wandb: &Wandb, entity: &str, plan: &Plan) -> Result<Option<Found>, Error> {
    let data = wandb.graphql(RESUME, &place(entity, &plan.project, &plan.run))?;
    let Some(bucket) = data.pointer("/model/bucket").filter(|bucket| bucket.is_object()) else {
        return Ok(None);
    };
    let count = |key: &str| bucket.get(key).and_then(Value::as_u64).unwrap_or(0);
    let rows = count("historyLineCount");
    let summary = embedded(bucket, "summaryMetrics");
    let step = |row: &Map<String, Value>| row.get("_step").and_then(Value::as_u64);
    let last = last_row(bucket).as_ref().and_then(step).max(step(&summary));
    Ok(Some(Found {
        config: plain(embedded(bucket, "config")),
        rows,
        lines: count("logLineCount"),
        next_step: if rows == 0 { 0 } else { last.map_or(rows, |last| last + 1) },
        summary,
    }))
}

/// The summary of a run as it is now; nothing where the run is gone.
pub fn summary(wandb: &Wandb, run: &RunIdentity) -> Result<Option<Map<String, Value>>, Error> {
    let data = wandb.graphql(SUMMARY, &place(&run.entity, &run.project, &run.name))?;
    let bucket = data.pointer("/model/bucket").filter(|bucket| bucket.is_object());
    Ok(bucket.map(|bucket| embedded(bucket, "summaryMetrics")))
}

fn place(entity: &str, project: &str, name: &str) -> Value {
    json!({ "entity": Some(entity).filter(|entity| !entity.is_empty()), "project": project, "name": name })
}

/// Makes the run of `plan`, or changes what is said of it. Without a `config` the one that is there stays.
pub fn upsert(
    wandb: &Wandb,
    entity: &str,
    plan: &Plan,
    config: Option<&Map<String, Value>>,
) -> Result<RunIdentity, Error> {
    let config = config.map(|config| document(config, &plan.metrics).to_string());
    let mut input = json!({
        "name": plan.run, "modelName": plan.project, "displayName": plan.display_name,
        "entityName": Some(entity).filter(|entity| !entity.is_empty()),
        "groupName": plan.group, "jobType": plan.job_type, "notes": plan.notes, "sweep": plan.sweep,
        "config": config,
    });
    if !plan.tags.is_empty() {
        input["tags"] = json!(plan.tags);
    }
    let data = wandb.graphql(UPSERT, &json!({ "input": input }))?;
    let text = |place: &str| {
        let text = data.pointer(&format!("/upsertBucket/bucket/{place}")).and_then(Value::as_str);
        text.map(str::to_owned)
            .ok_or_else(|| wandb.unreadable(UPSERT_NAME, &format!("it has no `bucket/{place}`")))
    };
    let (entity, project, name) = (text("project/entity/name")?, text("project/name")?, text("name")?);
    let url = url(wandb.app(), [&entity, &project, &name]);
    Ok(RunIdentity { storage_id: text("id")?, entity, project, name, url })
}

/// Makes the run of `plan` unless it is there; what was said of it there stays.
pub fn make(wandb: &Wandb, plan: &Plan) -> Result<RunIdentity, Error> {
    let own = viewer(wandb)?;
    let entity = plan.entity.clone().unwrap_or(own);
    let found = find(wandb, &entity, plan)?;
    let config = match &found {
        Some(found) => merged(&found.config, &plan.config),
        None => plan.config.clone(),
    };
    upsert(wandb, &entity, &plan.clone().for_run(found.as_ref()), Some(&config))
}

/// Their config with our keys added: a value that is there is kept, so that a sweep's values stay as suggested.
/// Only derived values are replaced.
pub fn merged(theirs: &Map<String, Value>, ours: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = theirs.clone();
    for (key, value) in ours {
        match (merged.get_mut(key), value) {
            (Some(Value::Object(known)), Value::Object(new)) if key == RESOLVED_KEY => {
                known.extend(new.clone());
            }
            (None | Some(Value::Null), _) => {
                merged.insert(key.clone(), value.clone());
            }
            _ => {}
        }
    }
    merged
}

pub fn url(app: &str, [entity, project, name]: [&str; 3]) -> String {
    format!("{app}/{}/{}/runs/{}", encoded(entity), encoded(project), encoded(name))
}

/// A configuration as it goes over the wire. The reserved key shows readers that the run has begun,
/// and over which of the `metrics` the others are drawn: the first.
pub fn document(config: &Map<String, Value>, metrics: &[String]) -> Value {
    let mut document: Map<String, Value> =
        config.iter().map(|(key, value)| (key.clone(), json!({ "value": value }))).collect();
    let version = env!("CARGO_PKG_VERSION");
    let metric = |(index, name): (usize, &String)| match index {
        0 => json!({ "1": name, "6": [3] }),
        _ => json!({ "1": name, "5": 1, "6": [3] }),
    };
    let metrics: Vec<Value> = metrics.iter().enumerate().map(metric).collect();
    let mut own = json!({ "cli_version": version, "m": metrics, "t": { "12": version } });
    let pinned: Vec<&str> = PINNED.into_iter().filter(|key| config.contains_key(*key)).collect();
    if !pinned.is_empty() {
        own["pinned_keys"] = json!(pinned);
    }
    document.insert("_wandb".to_owned(), json!({ "value": own }));
    Value::Object(document)
}

fn plain(document: Map<String, Value>) -> Map<String, Value> {
    let values = document.into_iter().filter(|(key, _)| key != "_wandb");
    values.filter_map(|(key, value)| Some((key, value.get("value")?.clone()))).collect()
}

/// The object that stands as JSON text in `value`; what is none is empty.
fn embedded(value: &Value, key: &str) -> Map<String, Value> {
    let text = value.get(key).and_then(Value::as_str).unwrap_or_default();
    match python_json::read(text.as_bytes()) {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

fn last_row(bucket: &Value) -> Option<Map<String, Value>> {
    let tail: Vec<String> = serde_json::from_str(bucket.get("historyTail")?.as_str()?).ok()?;
    match python_json::read(tail.last()?.as_bytes())? {
        Value::Object(row) => Some(row),
        _ => None,
    }
}

const NOTIFY: Operation = Operation {
    name: "NotifyScriptableRunAlert",
    text: "mutation NotifyScriptableRunAlert($input: NotifyScriptableRunAlertInput!) {
           notifyScriptableRunAlert(input: $input) { success } }",
};

const MOST_TITLE: usize = 63;
/// How long W&B suppresses another alert with the same title.
const PAUSE: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// `INFO`
    Info,
    /// `WARN`
    Warn,
    /// `ERROR`
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The title; cut to the service's limit.
    pub title: String,
    /// The text; not empty.
    pub text: String,
    /// Its level.
    pub severity: Severity,
}

pub fn send_alert(wandb: &Wandb, [entity, project, run]: [&str; 3], alert: &Alert) -> Result<(), Error> {
    let title: String = alert.title.chars().take(MOST_TITLE).collect();
    let input = json!({
        "entityName": entity, "projectName": project, "runName": run,
        "title": title, "text": alert.text, "severity": alert.severity,
        "waitDuration": PAUSE.as_millis() as u64,
    });
    wandb.graphql(NOTIFY, &json!({ "input": input })).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_goes_there_and_back() {
        let config = json!({ "learning_rate": 1e-6, "lora": true, "data": { "train": "sha" } });
        let config = config.as_object().unwrap();
        let metrics = ["train/step", "val/loss"].map(str::to_owned);
        let document = document(config, &metrics);
        assert_eq!(document["learning_rate"], json!({ "value": 1e-6 }));
        let own = &document["_wandb"]["value"];
        assert_eq!(own["m"], json!([{ "1": "train/step", "6": [3] }, { "1": "val/loss", "5": 1, "6": [3] }]));
        assert!(own["t"]["12"].is_string());
        assert_eq!(&plain(document.as_object().unwrap().clone()), config);
    }

    #[test]
    fn the_page_of_the_job_is_pinned_where_it_is_known() {
        let pinned = |config: Value| {
            document(config.as_object().unwrap(), &[])["_wandb"]["value"]["pinned_keys"].clone()
        };
        assert_eq!(pinned(json!({ "job_page": "[ft-1](https://example)" })), json!(["job_page"]));
        assert_eq!(pinned(json!({ "job_id": "ft-1" })), Value::Null);
    }

    #[test]
    fn what_is_there_stays_and_what_was_worked_out_is_brought_up_to_date() {
        let theirs =
            json!({ "learning_rate": "1e-6", "lora": null, "resolved": { "batch_size": 8, "a": 1 } });
        let ours =
            json!({ "learning_rate": 1e-6, "lora": true, "n_epochs": 3, "resolved": { "batch_size": 16 } });
        let merged = merged(theirs.as_object().unwrap(), ours.as_object().unwrap());
        let expected = json!({
            "learning_rate": "1e-6", "lora": true, "resolved": { "batch_size": 16, "a": 1 }, "n_epochs": 3,
        });
        assert_eq!(Value::Object(merged), expected);
    }

    #[test]
    fn defaults_describe_a_new_run_and_leave_a_described_one_alone() {
        let text = |text: &str| Some(text.to_owned());
        let defaults = Metadata {
            display_name: text("d"),
            job_type: text("fine-tune"),
            tags: vec!["t".to_owned()],
            notes: text("n"),
        };
        let plan = Plan { notes: text("chosen"), defaults, ..Plan::default() };
        let described = |config: Value| {
            let found = Found { config: config.as_object().unwrap().clone(), ..Found::default() };
            plan.clone().for_run(Some(&found))
        };
        for plan in [plan.clone().for_run(None), described(json!({ "learning_rate": 1 }))] {
            assert_eq!((plan.display_name, plan.job_type), (text("d"), text("fine-tune")));
            assert_eq!((plan.notes, plan.tags), (text("chosen"), vec!["t".to_owned()]));
        }
        let plan = described(json!({ "job_id": "ft-1" }));
        assert_eq!((plan.display_name, plan.notes, plan.tags), (None, text("chosen"), Vec::new()));
    }

    #[test]
    fn the_last_row_stands_in_text_in_text() {
        let bucket = json!({ "historyTail": json!([r#"{"_step":1}"#, r#"{"_step":2}"#]).to_string() });
        assert_eq!(last_row(&bucket).unwrap()["_step"], 2);
        for strange in [json!({}), json!({ "historyTail": "[]" }), json!({ "historyTail": "[1]" })] {
            assert!(last_row(&strange).is_none());
        }
    }
}
