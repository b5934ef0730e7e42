//! Runs: made and changed by `upsertBucket`, shown to whoever resumes them.
//!
//! Separate from the stream that fills them. Nothing is merged: what an update says replaces what
//! was there, as the service does it, and what it leaves out stays.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::state::{Now, State};
use crate::wandb::{ENTITY, PROJECT, Refusal, UPLOAD_HEADER, WandbAlert, space, text};

/// The most characters of a tag, and of what people see of a run.
const MOST_TAG: usize = 64;
const MOST_DISPLAY_NAME: usize = 128;

/// The first length that the subject of an alert may not have.
const ALERT_TITLE: usize = 64;

/// A run, from its creation on.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Opaque to clients.
    pub storage_id: String,
    /// The project that it is in.
    pub project: String,
    /// The id that its client gave it.
    pub name: String,
    /// What was last said of it, by the name in the mutation.
    pub said: Map<String, Value>,
    /// As sent: every key holds an object with `value`.
    pub config: Value,
    /// As sent last.
    pub summary: Value,
    /// Lines as sent, by offset.
    pub history: Vec<String>,
    /// Lines as sent, by offset.
    pub events: Vec<String>,
    /// Lines as sent, by offset.
    pub log: Vec<String>,
    /// Names that an address at the storage was given for.
    pub issued: BTreeSet<String>,
    /// Files whose bytes arrived, with their SHA-256.
    pub files: Vec<(String, String)>,
    /// Alerts about it.
    pub alerts: Vec<WandbAlert>,
    /// `pending`, `running`, `finished`, `failed`, `preempting`, or what the client said.
    pub state: String,
    /// As sent with the end.
    pub exit_code: Option<i64>,
    /// The name of its sweep.
    pub sweep: Option<String>,
    /// Requests to its stream.
    pub requests: usize,
    /// Whether somebody wants it stopped.
    pub is_stopped: bool,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When something came last.
    pub heard: Option<Timestamp>,
}

impl Run {
    /// One that nothing is known of yet.
    pub fn new(project: &str, name: &str, now: Now) -> Run {
        Run {
            storage_id: text::storage_id("Run", [name, project, ENTITY]),
            project: project.to_owned(),
            name: name.to_owned(),
            config: json!({}),
            summary: json!({}),
            state: "running".to_owned(),
            created: Some(now.time),
            heard: Some(now.time),
            ..Run::default()
        }
    }

    /// What was last said under this name of the mutation.
    pub fn said(&self, name: &str) -> Value {
        self.said.get(name).cloned().unwrap_or_default()
    }
}

/// The run of this place.
pub fn find<'s>(state: &'s State, project: &str, name: &str) -> Option<&'s Run> {
    state.wandb.runs.iter().find(|run| run.project == project && run.name == name)
}

/// Carries out `upsertBucket`: the payload.
///
/// # Errors
/// When the entity, the run or the sweep is not there, or a value is not allowed.
pub fn upsert(state: &mut State, input: &Map<String, Value>, now: Now) -> Result<Value, Refusal> {
    let text_of = |name: &str| input.get(name).and_then(Value::as_str);
    let entity = text_of("entityName").filter(|entity| !entity.is_empty()).unwrap_or(ENTITY);
    if entity != ENTITY {
        return Err(Refusal::new(404, format!("entity {entity} not found during upsertBucket")));
    }
    let project = text_of("modelName").filter(|project| !project.is_empty()).unwrap_or(PROJECT);
    let index = position(state, project, input)?;
    let old = index.map(|index| &state.wandb.runs[index]);
    check_words(input)?;
    let sweep = text_of("sweep").map(str::to_owned).or_else(|| old.and_then(|run| run.sweep.clone()));
    let config = read(input, "config")?;
    if let (Some(sweep), Some(config)) = (&sweep, &config) {
        let project = old.map_or(project, |run| &run.project);
        space::check_config(state, (project, sweep), config)?;
    }
    let summary = read(input, "summaryMetrics")?;
    let inserted = index.is_none();
    let index = index.unwrap_or_else(|| {
        state.wandb.runs.push(Run::new(project, text_of("name").unwrap_or_default(), now));
        state.wandb.runs.len() - 1
    });
    let run = &mut state.wandb.runs[index];
    run.heard = Some(now.time);
    // Whoever goes on with a run that has ended wants it to run.
    run.is_stopped &= run.exit_code.is_none();
    run.sweep = sweep;
    run.config = config.unwrap_or_else(|| run.config.take());
    run.summary = summary.unwrap_or_else(|| run.summary.take());
    match text_of("state") {
        Some(state) => run.state = state.to_owned(),
        None if run.state == "pending" => run.state = "running".to_owned(),
        None => {}
    }
    let kept = ["config", "summaryMetrics", "state", "sweep", "id", "name", "modelName", "entityName"];
    for (name, value) in
        input.iter().filter(|(name, value)| !value.is_null() && !kept.contains(&name.as_str()))
    {
        run.said.insert(name.clone(), value.clone());
    }
    if run.said("displayName").is_null() {
        run.said.insert("displayName".to_owned(), json!(format!("rehearsal-run-{}", index + 1)));
    }
    Ok(json!({ "bucket": value(&state.wandb.runs[index]), "inserted": inserted }))
}

/// Which run is meant: by its storage id, else by its name; nothing when it is a new one.
fn position(state: &State, project: &str, input: &Map<String, Value>) -> Result<Option<usize>, Refusal> {
    let text_of = |name: &str| input.get(name).and_then(Value::as_str);
    if let Some(id) = text_of("id").filter(|id| !id.is_empty()) {
        let index = state.wandb.runs.iter().position(|run| run.storage_id == id);
        return match index {
            Some(index) => Ok(Some(index)),
            None => Err(Refusal::new(404, format!("run {id} not found during upsertBucket"))),
        };
    }
    let name = text_of("name").ok_or_else(|| Refusal::new(400, "neither id nor name of a run"))?;
    check_name(name)?;
    if state.wandb.deleted.iter().any(|(of, deleted)| of == project && deleted == name) {
        let message = format!("run {name} was previously created and deleted; try a new run name");
        return Err(Refusal::new(409, message));
    }
    Ok(state.wandb.runs.iter().position(|run| run.project == project && run.name == name))
}

/// Asks for a run to be stopped: `stopRun`.
///
/// # Errors
/// When there is none.
pub fn stop(state: &mut State, input: &Map<String, Value>) -> Result<Value, Refusal> {
    let id = input.get("id").and_then(Value::as_str).unwrap_or_default();
    let run = state.wandb.runs.iter_mut().find(|run| run.storage_id == id);
    run.ok_or_else(|| Refusal::new(404, format!("run {id} not found")))?.is_stopped = true;
    Ok(json!({ "success": true }))
}

/// Refuses what people read of a run where it is empty or too long.
fn check_words(input: &Map<String, Value>) -> Result<(), Refusal> {
    let text_of = |name: &str| input.get(name).and_then(Value::as_str);
    let tags = input.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for tag in tags {
        if tag.is_empty() || tag.chars().count() > MOST_TAG {
            return Err(Refusal::new(400, format!("a tag has 1 to {MOST_TAG} characters: {tag}")));
        }
    }
    match text_of("displayName") {
        Some(name) if name.chars().count() > MOST_DISPLAY_NAME => {
            Err(Refusal::new(400, format!("displayName has more than {MOST_DISPLAY_NAME} characters")))
        }
        _ => Ok(()),
    }
}

/// Carries out `notifyScriptableRunAlert`.
///
/// # Errors
/// When the run is not there, or the subject is empty or too long.
pub fn alert(state: &mut State, input: &Map<String, Value>) -> Result<Value, Refusal> {
    let text_of = |name: &str| input.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (title, text) = (text_of("title"), text_of("text"));
    if title.is_empty() || title.chars().count() >= ALERT_TITLE || text.is_empty() {
        return Err(Refusal::new(
            400,
            format!("an alert needs a text, and a title below {ALERT_TITLE}: {title}"),
        ));
    }
    let severity = input.get("severity").and_then(Value::as_str).unwrap_or("INFO").to_owned();
    named(state, input)?.alerts.push(WandbAlert { title, text, severity });
    Ok(json!({ "success": true }))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let is_strange = |c: char| "/\\#?%:".contains(c) || c.is_control();
    if name.is_empty() || name.chars().count() > 128 || name.contains(is_strange) {
        return Err(Refusal::new(400, format!("invalid run name: {name}")));
    }
    Ok(())
}

/// A JSONString of the input as an object.
fn read(input: &Map<String, Value>, name: &str) -> Result<Option<Value>, Refusal> {
    let Some(text) = input.get(name).and_then(Value::as_str) else { return Ok(None) };
    match text::read(text) {
        Ok(value) if value.is_object() => Ok(Some(value)),
        _ => Err(Refusal::new(400, format!("{name} is no JSON object"))),
    }
}

/// A run as the schema shows it.
pub fn value(run: &Run) -> Value {
    let is_running = run.state == "running";
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    json!({
        "id": run.storage_id,
        "name": run.name,
        "displayName": run.said("displayName"),
        "description": run.said("description"),
        "notes": run.said("notes"),
        "tags": run.said.get("tags").cloned().unwrap_or_else(|| json!([])),
        "group": run.said("groupName"),
        "jobType": run.said("jobType"),
        "host": run.said("host"),
        "state": run.state,
        "exitcode": run.exit_code,
        "config": run.config.to_string(),
        "summaryMetrics": run.summary.to_string(),
        "historyLineCount": run.history.len(),
        "eventsLineCount": run.events.len(),
        "logLineCount": run.log.len(),
        "historyTail": tail(&run.history),
        "eventsTail": tail(&run.events),
        "sweepName": run.sweep,
        "createdAt": time(run.created),
        "heartbeatAt": time(run.heard),
        "stopped": run.is_stopped,
        "shouldStop": run.is_stopped,
        "failed": run.state == "failed",
        "running": is_running,
        "project": project(&run.project),
    })
}

/// A project as the schema shows it, without its runs and sweeps.
pub fn project(name: &str) -> Value {
    json!({
        "id": text::base64(format!("Project:v1:{name}:{ENTITY}").as_bytes()),
        "name": name,
        "entityName": ENTITY,
        "entity": entity(),
    })
}

/// The one entity.
pub fn entity() -> Value {
    let organization = json!({ "id": "organization", "coreWeaveOrganizationId": null });
    json!({ "id": text::base64(b"Entity:1"), "name": ENTITY, "isTeam": false, "organization": organization })
}

/// The last lines, as JSON text of a list of JSON texts: such that everybody can read.
fn tail(lines: &[String]) -> String {
    let last = lines[lines.len().saturating_sub(2)..].iter();
    json!(last.map(|line| text::finite(line)).collect::<Vec<_>>()).to_string()
}

/// `wandbConfig(keys)`: those keys of what the client says about itself, as JSON text.
pub fn client_config(run: &Run, keys: &Value) -> Value {
    let own = run.config.pointer("/_wandb/value").and_then(Value::as_object).cloned().unwrap_or_default();
    let is_wanted =
        |name: &str| keys.as_array().is_none_or(|keys| keys.iter().any(|key| key.as_str() == Some(name)));
    let wanted: Map<String, Value> = own.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    json!(Value::Object(wanted).to_string())
}

/// `sampledHistory(specs)`: for each of them the rows that have all its keys. Nothing is left out.
pub fn sampled(run: &Run, specs: &Value) -> Value {
    let specs = match specs {
        Value::Array(specs) => specs.clone(),
        one => vec![one.clone()],
    };
    let sample = |spec: &Value| {
        let spec = spec.as_str().and_then(|text| text::read(text).ok()).unwrap_or_default();
        let keys: Vec<&str> =
            spec["keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let rows = run.history.iter().filter_map(|line| text::read(line).ok());
        let picked = rows.filter_map(|row| {
            let pick = |key: &&str| row.get(*key).map(|value| ((*key).to_owned(), value.clone()));
            keys.iter().map(pick).collect::<Option<Map<_, _>>>()
        });
        let picked: Vec<Value> = picked.filter(|row| !row.is_empty()).map(Value::Object).collect();
        Value::Array(picked)
    };
    Value::Array(specs.iter().map(sample).collect())
}

/// Carries out `createRunFiles`: addresses at the storage, and the headers that go there.
///
/// # Errors
/// When the run is not there, or a name is none of a file below the run's own place.
pub fn create_files(state: &mut State, input: &Map<String, Value>) -> Result<Value, Refusal> {
    let storage = state.storage.clone();
    let run = named(state, input)?;
    let names = input.get("files").and_then(Value::as_array).into_iter().flatten();
    let mut files = Vec::new();
    for name in names.filter_map(Value::as_str) {
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !name.split('/').all(is_plain) {
            return Err(Refusal::new(400, format!("invalid file name: {name}")));
        }
        run.issued.insert(name.to_owned());
        let path = text::encode(&format!("{}/{}/{name}", run.project, run.name));
        let url = format!("{storage}/wandb/{path}?signature=rehearsal");
        files.push(json!({ "name": name, "uploadUrl": url }));
    }
    let header = format!("{}:{}", UPLOAD_HEADER.0, UPLOAD_HEADER.1);
    Ok(json!({ "runID": run.storage_id, "uploadHeaders": [header], "files": files }))
}

/// Carries out `markRunFilesUploaded`.
///
/// # Errors
/// When the run is not there.
pub fn mark_uploaded(state: &mut State, input: &Map<String, Value>) -> Result<Value, Refusal> {
    named(state, input).map(|_| json!({ "success": true }))
}

/// The run that `input` names.
fn named<'s>(state: &'s mut State, input: &Map<String, Value>) -> Result<&'s mut Run, Refusal> {
    let text_of = |name: &str| input.get(name).and_then(Value::as_str);
    let name = text_of("runName").unwrap_or_default();
    let project = text_of("projectName").unwrap_or(PROJECT);
    let is_it = |run: &&mut Run| run.project == project && run.name == name;
    let is_ours = text_of("entityName").is_none_or(|entity| entity == ENTITY);
    let run = state.wandb.runs.iter_mut().find(is_it).filter(|_| is_ours);
    run.ok_or_else(|| Refusal::new(404, format!("run {name} not found")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wandb::sweeps;

    const NOW: Now = Now { elapsed: std::time::Duration::ZERO, time: Timestamp::UNIX_EPOCH };

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn said(state: &mut State, input: Value) -> Result<Value, Refusal> {
        upsert(state, &object(input), NOW)
    }

    #[track_caller]
    fn check_refused(input: Value, status: u16, expected: &str) {
        let refusal = said(&mut State::default(), input).unwrap_err();
        assert_eq!(refusal.status, status);
        assert!(refusal.message.contains(expected), "{}", refusal.message);
    }

    #[test]
    fn what_an_update_leaves_out_stays_and_a_config_is_replaced() {
        let mut state = State::default();
        let first = json!({ "name": "a", "config": "{\"x\":{\"value\":1}}", "notes": "n", "tags": ["t"] });
        let made = said(&mut state, first).unwrap();
        assert_eq!(
            (&made["inserted"], &made["bucket"]["displayName"]),
            (&json!(true), &json!("rehearsal-run-1"))
        );
        let id = made["bucket"]["id"].clone();
        let again =
            said(&mut state, json!({ "id": id, "config": "{\"y\":{\"value\":NaN}}", "tags": null })).unwrap();
        assert_eq!(again["inserted"], false);
        let bucket = &again["bucket"];
        assert_eq!(bucket["config"], "{\"y\":{\"value\":\"NaN\"}}");
        assert_eq!((&bucket["notes"], &bucket["tags"]), (&json!("n"), &json!(["t"])));
        let third = said(&mut state, json!({ "name": "a", "summaryMetrics": "{\"loss\":1}" })).unwrap();
        assert_eq!(third["bucket"]["config"], bucket["config"]);
        assert_eq!(third["bucket"]["summaryMetrics"], "{\"loss\":1}");
        assert_eq!(state.wandb.runs.len(), 1);
    }

    #[test]
    fn what_cannot_be_a_run_is_refused() {
        check_refused(
            json!({ "name": "a", "entityName": "x" }),
            404,
            "entity x not found during upsertBucket",
        );
        check_refused(json!({ "id": "x" }), 404, "run x not found");
        check_refused(json!({}), 400, "neither id nor name");
        check_refused(json!({ "name": "a/b" }), 400, "invalid run name");
        check_refused(json!({ "name": "a".repeat(129) }), 400, "invalid run name");
        check_refused(json!({ "name": "a", "config": "[]" }), 400, "config is no JSON object");
        check_refused(json!({ "name": "a", "sweep": "s", "config": "{}" }), 404, "sweep s not found");
    }

    #[test]
    fn a_deleted_run_is_never_made_again() {
        let mut state = State::default();
        said(&mut state, json!({ "name": "a", "modelName": "p" })).unwrap();
        assert!(crate::wandb::delete_run(&mut state, "a"));
        assert!(!crate::wandb::delete_run(&mut state, "a"));
        let refusal = said(&mut state, json!({ "name": "a", "modelName": "p" })).unwrap_err();
        assert_eq!(refusal.status, 409);
        assert!(refusal.message.contains("previously created and deleted"), "{}", refusal.message);
        said(&mut state, json!({ "name": "a", "modelName": "q" })).unwrap();
        said(&mut state, json!({ "name": "b", "modelName": "p" })).unwrap();
    }

    #[test]
    fn words_that_are_too_long_are_refused() {
        check_refused(json!({ "name": "a", "tags": [""] }), 400, "a tag has 1 to 64 characters");
        check_refused(json!({ "name": "a", "tags": ["t", "x".repeat(65)] }), 400, "a tag has 1 to 64");
        check_refused(json!({ "name": "a", "displayName": "x".repeat(129) }), 400, "more than 128");
    }

    #[test]
    fn an_alert_is_about_a_run_that_is_there() {
        let mut state = State::default();
        said(&mut state, json!({ "name": "a", "modelName": "p" })).unwrap();
        let mut alert_of = |run: &str, title: &str| {
            let input = json!({
                "entityName": ENTITY, "projectName": "p", "runName": run, "title": title, "text": "t",
                "severity": "ERROR",
            });
            alert(&mut state, &object(input)).map_err(|refusal| refusal.status)
        };
        assert_eq!(alert_of("b", "title"), Err(404));
        assert_eq!(alert_of("a", &"x".repeat(64)), Err(400));
        assert_eq!(alert_of("a", ""), Err(400));
        assert_eq!(alert_of("a", &"x".repeat(63)), Ok(json!({ "success": true })));
        assert_eq!(state.wandb.runs[0].alerts.len(), 1);
        assert_eq!(state.wandb.runs[0].alerts[0].severity, "ERROR");
    }

    #[test]
    fn a_file_has_a_name_below_its_run() {
        let mut state = State::default();
        said(&mut state, json!({ "name": "a", "modelName": "p" })).unwrap();
        let mut status = |file: &str| {
            let input = json!({ "entityName": ENTITY, "projectName": "p", "runName": "a", "files": [file] });
            create_files(&mut state, &object(input)).map_or_else(|refusal| refusal.status, |_| 200)
        };
        let strange = ["../x", "/x", "a//b", "", "a/.."];
        assert_eq!(strange.map(&mut status), [400; 5]);
        assert_eq!([status("manifest.json"), status("data/train.jsonl")], [200, 200]);
    }

    #[test]
    fn a_sweep_refuses_a_value_that_it_did_not_offer() {
        let mut state = State::default();
        let yaml = "{method: grid, parameters: {b: {values: [\"max\", 8]}}}";
        let sweep = sweeps::upsert(&mut state, &object(json!({ "config": yaml })), NOW).unwrap();
        let mut run_with = |value: Value| {
            let config = json!({ "b": { "value": value } }).to_string();
            said(&mut state, json!({ "name": "a", "sweep": sweep["sweep"]["name"], "config": config }))
        };
        run_with(json!("max")).unwrap();
        let refusal = run_with(json!(16)).unwrap_err();
        assert_eq!(refusal.status, 400);
        let expected = "16 is not a permitted value of the categorical hyperparameter b";
        assert!(refusal.message.contains(expected), "{}", refusal.message);
    }

    #[test]
    fn whoever_resumes_sees_the_last_rows_and_what_the_client_says_of_itself() {
        let mut run = Run::new("p", "a", NOW);
        run.config = json!({ "_wandb": { "value": { "t": { "12": "1" }, "m": [] } } });
        run.history = vec!["{\"_step\":0}".to_owned(), "{\"_step\":1,\"loss\":NaN}".to_owned()];
        let value = value(&run);
        let tail: Vec<String> = serde_json::from_str(value["historyTail"].as_str().unwrap()).unwrap();
        assert_eq!(tail, ["{\"_step\":0}", "{\"_step\":1,\"loss\":\"NaN\"}"]);
        assert_eq!(value["historyLineCount"], 2);
        assert_eq!(client_config(&run, &json!(["t"])), "{\"t\":{\"12\":\"1\"}}");
        assert_eq!(
            sampled(&run, &json!(["{\"keys\":[\"_step\",\"loss\"]}"])),
            json!([[{ "_step": 1, "loss": "NaN" }]])
        );
    }
}
