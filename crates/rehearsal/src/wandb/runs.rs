//! Runs: made and changed by `upsertBucket`, shown to whoever resumes them.
//!
//! Nothing is merged: what an update says replaces what was there, as the service does it, and what it leaves
//! out stays.

use serde_json::{Map, Value, json};

use crate::form;
use crate::request::Now;
use crate::state::State;
use crate::state::wandb::{Run, Sweep, WandbAlert};
use crate::wandb::ids::{ENTITY, PROJECT, is_ours, storage_id};
use crate::wandb::stream::read_json;

/// The header that goes with every file to the storage.
pub const UPLOAD_HEADER: (&str, &str) = ("x-ms-blob-type", "BlockBlob");
const MOST_TAG: usize = 64;
const MOST_DISPLAY_NAME: usize = 128;
/// The first length that the title of an alert may not have.
const ALERT_TITLE: usize = 64;

pub fn find<'s>(state: &'s State, project: &str, name: &str) -> Option<&'s Run> {
    state.wandb.runs.iter().find(|run| run.shown.project == project && run.shown.name == name)
}

pub fn check_entity(input: &Value, mutation: &str) -> Result<(), Refusal> {
    match input["entityName"].as_str() {
        Some(entity) if !is_ours(&input["entityName"]) => {
            Err(Refusal::new(404, format!("entity {entity} not found during {mutation}")))
        }
        _ => Ok(()),
    }
}

pub fn upsert(state: &mut State, input: &Value, now: Now) -> Result<Value, Refusal> {
    check_entity(input, "upsertBucket")?;
    let project = input["modelName"].as_str().filter(|project| !project.is_empty()).unwrap_or(PROJECT);
    let index = position(state, project, input)?;
    let old = index.map(|index| &state.wandb.runs[index].shown);
    check_texts(input)?;
    let config = object(input, "config")?;
    let sweep = input["sweep"].as_str().or_else(|| old?.sweep.as_deref());
    if let (Some(sweep), Some(config)) = (sweep, &config) {
        check_config(state, old.map_or(project, |run| &run.project), sweep, config)?;
    }
    let summary = object(input, "summaryMetrics")?;
    let inserted = index.is_none();
    let index = index.unwrap_or_else(|| {
        state.wandb.runs.push(Run::new(project, input["name"].as_str().unwrap_or_default(), now));
        state.wandb.runs.len() - 1
    });
    let run = &mut state.wandb.runs[index];
    run.heartbeat = now.time;
    // A run that has ended and is resumed is wanted again.
    run.is_stopped &= run.shown.exit_code.is_none();
    let shown = &mut run.shown;
    shown.config = config.unwrap_or_else(|| shown.config.take());
    shown.summary = summary.unwrap_or_else(|| shown.summary.take());
    match input["state"].as_str() {
        Some(state) => shown.state = state.to_owned(),
        None if shown.state == "pending" => shown.state = "running".to_owned(),
        None => {}
    }
    for (place, name) in [
        (&mut shown.sweep, "sweep"),
        (&mut shown.group, "groupName"),
        (&mut shown.job_type, "jobType"),
        (&mut shown.notes, "notes"),
        (&mut run.description, "description"),
    ] {
        if let Some(text) = input[name].as_str() {
            *place = Some(text.to_owned());
        }
    }
    if let Some(tags) = input["tags"].as_array() {
        shown.tags = tags.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    }
    if let Some(name) = input["displayName"].as_str() {
        name.clone_into(&mut shown.display_name);
    }
    if shown.display_name.is_empty() {
        shown.display_name = format!("rehearsal-run-{}", index + 1);
    }
    Ok(json!({ "bucket": value(run), "inserted": inserted }))
}

/// Refuses the config of a run that has a value its sweep did not offer.
fn check_config(state: &State, project: &str, sweep: &str, config: &Value) -> Result<(), Refusal> {
    let is_it = |known: &&Sweep| known.shown.project == project && known.shown.name == sweep;
    let found = state.wandb.sweeps.iter().find(is_it);
    let found = found.ok_or_else(|| Refusal::new(404, format!("sweep {sweep} not found")))?;
    let Some((name, value)) = found.space.not_offered(config) else { return Ok(()) };
    let message = format!(
        "Invalid value {value} for parameter {name}: {value} is not a permitted value of the categorical hyperparameter {name} in the current sweep"
    );
    Err(Refusal::new(400, message))
}

/// Which run is meant: by its storage id, else by its name; nothing when it is a new one.
fn position(state: &State, project: &str, input: &Value) -> Result<Option<usize>, Refusal> {
    let runs = &state.wandb.runs;
    if let Some(id) = input["id"].as_str().filter(|id| !id.is_empty()) {
        let index = runs.iter().position(|run| run.storage_id == id);
        let missing = || Refusal::new(404, format!("run {id} not found during upsertBucket"));
        return index.ok_or_else(missing).map(Some);
    }
    let name = input["name"].as_str().ok_or_else(|| Refusal::new(400, "neither id nor name of a run"))?;
    let is_invalid = |c: char| "/\\#?%:".contains(c) || c.is_control();
    if name.is_empty() || name.chars().count() > 128 || name.contains(is_invalid) {
        return Err(Refusal::new(400, format!("invalid run name: {name}")));
    }
    if state.wandb.deleted.iter().any(|(of, deleted)| of == project && deleted == name) {
        let message = format!("run {name} was previously created and deleted; try a new run name");
        return Err(Refusal::new(409, message));
    }
    Ok(runs.iter().position(|run| run.shown.project == project && run.shown.name == name))
}

fn check_texts(input: &Value) -> Result<(), Refusal> {
    for tag in input["tags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if tag.is_empty() || tag.chars().count() > MOST_TAG {
            return Err(Refusal::new(400, format!("a tag has 1 to {MOST_TAG} characters: {tag}")));
        }
    }
    if input["displayName"].as_str().is_some_and(|name| name.chars().count() > MOST_DISPLAY_NAME) {
        return Err(Refusal::new(400, format!("displayName has more than {MOST_DISPLAY_NAME} characters")));
    }
    Ok(())
}

/// A JSON text of the input, which must be of an object.
fn object(input: &Value, name: &str) -> Result<Option<Value>, Refusal> {
    let Some(text) = input[name].as_str() else { return Ok(None) };
    match read_json(text) {
        Ok(value) if value.is_object() => Ok(Some(value)),
        _ => Err(Refusal::new(400, format!("{name} is no JSON object"))),
    }
}

pub fn alert(state: &mut State, input: &Value) -> Result<Value, Refusal> {
    let text_of = |name: &str| input[name].as_str().unwrap_or_default().to_owned();
    let (title, text) = (text_of("title"), text_of("text"));
    if title.is_empty() || title.chars().count() >= ALERT_TITLE || text.is_empty() {
        let message = format!("an alert needs a text, and a title below {ALERT_TITLE}: {title}");
        return Err(Refusal::new(400, message));
    }
    let severity = input["severity"].as_str().unwrap_or("INFO").to_owned();
    named(state, input)?.shown.alerts.push(WandbAlert { title, text, severity });
    Ok(json!({ "success": true }))
}

/// A run as the schema shows it, but for what depends on arguments.
pub fn value(run: &Run) -> Value {
    let shown = &run.shown;
    json!({
        "__typename": "Run",
        "id": run.storage_id,
        "name": shown.name,
        "displayName": shown.display_name,
        "description": run.description,
        "notes": shown.notes,
        "tags": shown.tags,
        "group": shown.group,
        "jobType": shown.job_type,
        "state": shown.state,
        "exitcode": shown.exit_code,
        "config": shown.config.to_string(),
        "summaryMetrics": shown.summary.to_string(),
        "historyLineCount": shown.history.len(),
        "eventsLineCount": run.events.len(),
        "logLineCount": shown.log.len(),
        "historyTail": tail(&shown.history),
        "eventsTail": tail(&run.events),
        "sweepName": shown.sweep,
        "createdAt": run.created.to_string(),
        "heartbeatAt": run.heartbeat.to_string(),
        "stopped": run.is_stopped,
        "shouldStop": run.is_stopped,
        "failed": shown.state == "failed",
        "running": shown.state == "running",
        "project": project(&shown.project),
    })
}

/// A project as the schema shows it, but for its runs and sweeps.
pub fn project(name: &str) -> Value {
    json!({
        "__typename": "Project",
        "id": storage_id("Project", &[name, ENTITY]),
        "name": name,
        "entityName": ENTITY,
        "entity": entity(),
    })
}

pub fn entity() -> Value {
    json!({
        "__typename": "Entity",
        "id": storage_id("Entity", &["1"]),
        "name": ENTITY,
        "isTeam": false,
        "organization": { "id": "organization", "coreWeaveOrganizationId": null },
    })
}

/// The last rows, as JSON text of a list of JSON texts.
fn tail(rows: &[Value]) -> String {
    let last = &rows[rows.len().saturating_sub(2)..];
    json!(last.iter().map(Value::to_string).collect::<Vec<_>>()).to_string()
}

/// `wandbConfig(keys)`: those keys of what the client says about itself, as JSON text.
pub fn client_config(run: &Run, keys: &Value) -> Value {
    let mut own = run.shown.config["_wandb"]["value"].as_object().cloned().unwrap_or_default();
    if let Some(keys) = keys.as_array() {
        own.retain(|name, _| keys.iter().any(|key| key == name));
    }
    json!(Value::Object(own).to_string())
}

/// `sampledHistory(specs)`: for each of them the rows that have all its keys. Nothing is left out.
pub fn sampled(run: &Run, specs: &Value) -> Value {
    let sample = |spec: &Value| -> Value {
        let spec = spec.as_str().and_then(|text| read_json(text).ok()).unwrap_or_default();
        let keys: Vec<&str> =
            spec["keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let rows = run.shown.history.iter().filter_map(|row| {
            let pick = |key: &&str| Some(((*key).to_owned(), row.get(*key)?.clone()));
            keys.iter().map(pick).collect::<Option<Map<_, _>>>()
        });
        rows.filter(|row| !row.is_empty()).map(Value::Object).collect()
    };
    match specs {
        Value::Array(specs) => specs.iter().map(sample).collect(),
        one => Value::Array(vec![sample(one)]),
    }
}

/// Carries out `createRunFiles`: addresses at the storage, and the headers that go there.
pub fn create_files(state: &mut State, input: &Value) -> Result<Value, Refusal> {
    let storage = state.storage.clone();
    let run = named(state, input)?;
    let mut files = Vec::new();
    for name in input["files"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if name.split('/').any(|part| ["", ".", ".."].contains(&part)) {
            return Err(Refusal::new(400, format!("invalid file name: {name}")));
        }
        run.issued.insert(name.to_owned());
        let path = form::encode(&format!("{}/{}/{name}", run.shown.project, run.shown.name));
        let url = format!("{storage}/wandb/{path}?signature=rehearsal");
        files.push(json!({ "name": name, "uploadUrl": url }));
    }
    let header = format!("{}:{}", UPLOAD_HEADER.0, UPLOAD_HEADER.1);
    Ok(json!({ "runID": run.storage_id, "uploadHeaders": [header], "files": files }))
}

pub fn mark_uploaded(state: &mut State, input: &Value) -> Result<Value, Refusal> {
    named(state, input).map(|_| json!({ "success": true }))
}

fn named<'s>(state: &'s mut State, input: &Value) -> Result<&'s mut Run, Refusal> {
    let name = input["runName"].as_str().unwrap_or_default();
    let project = input["projectName"].as_str().unwrap_or(PROJECT);
    let is_it = |run: &&mut Run| run.shown.project == project && run.shown.name == name;
    let run = state.wandb.runs.iter_mut().find(is_it).filter(|_| is_ours(&input["entityName"]));
    run.ok_or_else(|| Refusal::new(404, format!("run {name} not found")))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub message: String,
    /// Whether only a client that is wrong asks for it.
    pub is_violation: bool,
}

impl Refusal {
    pub fn new(status: u16, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into(), is_violation: false }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::wandb::sweeps;

    const NOW: Now = Now { elapsed: std::time::Duration::ZERO, time: Timestamp::UNIX_EPOCH };

    fn said(state: &mut State, input: Value) -> Result<Value, Refusal> {
        upsert(state, &input, NOW)
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
            alert(&mut state, &input).map_err(|refusal| refusal.status)
        };
        assert_eq!(alert_of("b", "title"), Err(404));
        assert_eq!(alert_of("a", &"x".repeat(64)), Err(400));
        assert_eq!(alert_of("a", ""), Err(400));
        assert_eq!(alert_of("a", &"x".repeat(63)), Ok(json!({ "success": true })));
        assert_eq!(state.wandb.runs[0].shown.alerts.len(), 1);
        assert_eq!(state.wandb.runs[0].shown.alerts[0].severity, "ERROR");
    }

    #[test]
    fn a_file_has_a_name_below_its_run() {
        let mut state = State::default();
        said(&mut state, json!({ "name": "a", "modelName": "p" })).unwrap();
        let mut status = |file: &str| {
            let input = json!({ "entityName": ENTITY, "projectName": "p", "runName": "a", "files": [file] });
            create_files(&mut state, &input).map_or_else(|refusal| refusal.status, |_| 200)
        };
        let strange = ["../x", "/x", "a//b", "", "a/.."];
        assert_eq!(strange.map(&mut status), [400; 5]);
        assert_eq!([status("manifest.json"), status("data/train.jsonl")], [200, 200]);
    }

    #[test]
    fn a_sweep_refuses_a_value_that_it_did_not_offer() {
        let mut state = State::default();
        let yaml = "{method: grid, parameters: {b: {values: [\"max\", 8]}}}";
        let sweep = sweeps::upsert(&mut state, &json!({ "config": yaml }), NOW).unwrap();
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
        run.shown.config = json!({ "_wandb": { "value": { "t": { "12": "1" }, "m": [] } } });
        run.shown.history = vec![json!({ "_step": 0 }), json!({ "_step": 1, "loss": "NaN" })];
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
