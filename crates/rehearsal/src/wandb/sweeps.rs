//! Sweeps and their agents: what is suggested next, and when it is over.
//!
//! Separate from the parameters, which are pure. A grid is exhaustive, everything else is drawn by the
//! seed of the script; no model is fitted and nothing is ended early, and the sweep's warnings say so.

use serde_json::{Map, Value, json};

use crate::state::{Now, State};
use crate::wandb::runs::{self, Run};
use crate::wandb::space::{Space, space};
use crate::wandb::{ENTITY, Orders, PROJECT, Refusal, text};

/// What a client may make of a sweep.
const STATES: [&str; 4] = ["RUNNING", "PAUSED", "FINISHED", "CANCELED"];

/// A sweep.
#[derive(Debug, Clone, Default)]
pub struct Sweep {
    /// Opaque to clients.
    pub storage_id: String,
    /// The project that it is in.
    pub project: String,
    /// Eight characters.
    pub name: String,
    /// As sent.
    pub yaml: String,
    /// The same, read.
    pub config: Value,
    /// What it chooses from.
    pub space: Space,
    /// `PENDING` until an agent comes.
    pub state: String,
    /// What was last said of it, by the name in the mutation.
    pub said: Map<String, Value>,
    /// Names of its runs, in the order of the suggestions.
    pub runs: Vec<String>,
    /// How many suggestions were made.
    pub suggested: u64,
}

/// Who carries out the suggestions of a sweep.
#[derive(Debug, Clone)]
pub struct Agent {
    id: String,
    sweep_id: String,
}

impl Agent {
    /// Whether it works for this sweep.
    pub fn is_of(&self, sweep: &Sweep) -> bool {
        self.sweep_id == sweep.storage_id
    }
}

/// Carries out `upsertSweep`: the payload.
///
/// # Errors
/// When the sweep is not there or what is said of it makes no sense.
pub fn upsert(state: &mut State, input: &Map<String, Value>, now: Now) -> Result<Value, Refusal> {
    let text_of = |name: &str| input.get(name).and_then(Value::as_str);
    let entity = text_of("entityName").filter(|entity| !entity.is_empty()).unwrap_or(ENTITY);
    if entity != ENTITY {
        return Err(Refusal::new(404, format!("entity {entity} not found during upsertSweep")));
    }
    let config = text_of("config")
        .map(read)
        .transpose()
        .map_err(|why| Refusal::new(400, format!("Invalid sweep config: {why}")))?;
    if let Some(wanted) = text_of("state").filter(|wanted| !STATES.contains(wanted)) {
        return Err(Refusal::new(400, format!("invalid sweep state: {wanted}")));
    }
    let index = match text_of("id").filter(|id| !id.is_empty()) {
        Some(id) => position(state, id)?,
        None if config.is_none() => return Err(Refusal::new(400, "sweep config is required")),
        None => begin(state, text_of("projectName").filter(|name| !name.is_empty()).unwrap_or(PROJECT)),
    };
    let sweep = &mut state.wandb.sweeps[index];
    let mut warnings = Vec::new();
    if let Some((config, space)) = config {
        if !sweep.runs.is_empty() {
            return Err(Refusal::new(400, format!("sweep {} has runs: its config is fixed", sweep.name)));
        }
        warnings = warnings_of(&config);
        sweep.yaml = text_of("config").unwrap_or_default().to_owned();
        (sweep.config, sweep.space) = (config, space);
    }
    if let Some(wanted) = text_of("state") {
        sweep.state = wanted.to_owned();
    }
    for name in ["description", "displayName", "controller", "scheduler"] {
        if let Some(value) = input.get(name).filter(|value| !value.is_null()) {
            sweep.said.insert(name.to_owned(), value.clone());
        }
    }
    let sweep = value(state, index, now);
    Ok(json!({ "sweep": sweep, "configValidationWarnings": warnings }))
}

fn begin(state: &mut State, project: &str) -> usize {
    let name = state.next_id("sweep-")["sweep-".len()..][..8].to_owned();
    let storage_id = text::storage_id("Sweep", [&name, project, ENTITY]);
    let sweep = Sweep {
        storage_id,
        project: project.to_owned(),
        name,
        state: "PENDING".to_owned(),
        ..Sweep::default()
    };
    state.wandb.sweeps.push(sweep);
    state.wandb.sweeps.len() - 1
}

/// The position of the sweep with this storage id.
fn position(state: &State, id: &str) -> Result<usize, Refusal> {
    let position = state.wandb.sweeps.iter().position(|sweep| sweep.storage_id == id);
    position.ok_or_else(|| Refusal::new(404, format!("could not find sweep {id}")))
}

fn read(yaml: &str) -> Result<(Value, Space), String> {
    let config: Value = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
    let space = space(&config["parameters"])?;
    match config["method"].as_str() {
        Some("grid") => {
            if let Some(name) = space.endless() {
                return Err(format!("method grid: parameter {name} has no end of values"));
            }
        }
        Some("random" | "bayes") => {}
        _ => return Err("`method` is none of grid, random, bayes".to_owned()),
    }
    if !config["run_cap"].is_null() && config["run_cap"].as_u64().is_none_or(|cap| cap == 0) {
        return Err(format!("`run_cap` is {}", config["run_cap"]));
    }
    Ok((config, space))
}

fn warnings_of(config: &Value) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if config["method"] == "bayes" {
        warnings.push("method bayes: this is a rehearsal, its suggestions are random draws of a seed");
    }
    if !config["early_terminate"].is_null() {
        warnings.push("early_terminate: this is a rehearsal, no run is ended early");
    }
    warnings
}

/// A sweep as the schema shows it.
pub fn value(state: &State, index: usize, now: Now) -> Value {
    let sweep = &state.wandb.sweeps[index];
    let runs = state
        .wandb
        .runs
        .iter()
        .filter(|run| run.project == sweep.project && run.sweep.as_deref() == Some(sweep.name.as_str()));
    let edges: Vec<Value> = runs.map(|run| json!({ "node": runs::value(run) })).collect();
    let said = |name: &str| sweep.said.get(name).cloned().unwrap_or_default();
    json!({
        "id": sweep.storage_id,
        "name": sweep.name,
        "displayName": said("displayName"),
        "method": sweep.config["method"],
        "state": sweep.state,
        "description": said("description"),
        "config": sweep.yaml,
        "createdAt": now.time.to_string(),
        "heartbeatAt": now.time.to_string(),
        "updatedAt": now.time.to_string(),
        "earlyStopJobRunning": false,
        "bestLoss": null,
        "controller": said("controller"),
        "scheduler": said("scheduler"),
        "controllerRunName": null,
        "runCount": edges.len(),
        "project": runs::project(&sweep.project),
        "runs": { "edges": edges },
    })
}

/// Carries out `createAgent`.
///
/// # Errors
/// When the sweep is not there.
pub fn create_agent(state: &mut State, input: &Map<String, Value>) -> Result<Value, Refusal> {
    let text_of = |name: &str| input.get(name).and_then(Value::as_str);
    let name = text_of("sweep").unwrap_or_default();
    let is_it = |sweep: &&Sweep| {
        sweep.name == name && text_of("projectName").is_none_or(|project| sweep.project == project)
    };
    let found = state.wandb.sweeps.iter().find(is_it).map(|sweep| sweep.storage_id.clone());
    let sweep_id = found.ok_or_else(|| Refusal::new(404, format!("could not find sweep {name}")))?;
    let id = text::base64(state.next_id("agent-").as_bytes());
    state.wandb.agents.push(Agent { id: id.clone(), sweep_id });
    Ok(json!({ "agent": { "id": id } }))
}

/// Carries out `agentHeartbeat`: what the agent is to do.
///
/// # Errors
/// When the agent or its sweep is not there, or what it says cannot be read.
pub fn heartbeat(state: &mut State, input: &Map<String, Value>, now: Now) -> Result<Value, Refusal> {
    let id = input.get("id").and_then(Value::as_str).unwrap_or_default();
    let agent = state.wandb.agents.iter().find(|agent| agent.id == id);
    let sweep_id = agent.ok_or_else(|| Refusal::new(404, "could not find agent"))?.sweep_id.clone();
    let index = position(state, &sweep_id)?;
    let running = running(input.get("runState"))?;
    let commands = match state.script.wandb_agents {
        Orders::Exit => vec![json!({ "type": "exit" })],
        Orders::Stop if !running.is_empty() => running.iter().map(stop).collect(),
        Orders::Stop => Vec::new(),
        Orders::Suggest => orders(state, index, &running, now),
    };
    Ok(json!({ "agent": { "id": id }, "commands": json!(commands).to_string() }))
}

/// The runs that `runState` says are running.
fn running(said: Option<&Value>) -> Result<Vec<String>, Refusal> {
    let text = said.and_then(Value::as_str).unwrap_or("{}");
    let unreadable = || Refusal::new(400, format!("runState is no object of truth values: {text}"));
    let Ok(Value::Object(states)) = text::read(text) else { return Err(unreadable()) };
    if !states.values().all(Value::is_boolean) {
        return Err(unreadable());
    }
    Ok(states
        .into_iter()
        .filter(|(_, is_running)| *is_running == json!(true))
        .map(|(name, _)| name)
        .collect())
}

fn stop(run: &String) -> Value {
    json!({ "type": "stop", "run_id": run })
}

fn orders(state: &mut State, index: usize, running: &[String], now: Now) -> Vec<Value> {
    let sweep = &state.wandb.sweeps[index];
    let is_wanted_away = |name: &&String| {
        sweep.state == "CANCELED" || runs::find(state, &sweep.project, name).is_some_and(|run| run.is_stopped)
    };
    let stops: Vec<Value> = running.iter().filter(is_wanted_away).map(stop).collect();
    if !stops.is_empty() {
        return stops;
    }
    match sweep.state.as_str() {
        _ if !running.is_empty() => Vec::new(),
        "PAUSED" => Vec::new(),
        "FINISHED" | "CANCELED" => vec![json!({ "type": "exit" })],
        _ => vec![suggest(state, index, now)],
    }
}

fn suggest(state: &mut State, index: usize, now: Now) -> Value {
    let seed = state.script.faults.seed;
    let sweep = &mut state.wandb.sweeps[index];
    sweep.state = "RUNNING".to_owned();
    let is_capped = sweep.config["run_cap"].as_u64().is_some_and(|cap| sweep.suggested >= cap);
    let arguments = match sweep.config["method"].as_str() {
        _ if is_capped => None,
        Some("grid") => sweep.space.grid(sweep.suggested),
        _ => Some(sweep.space.random(seed, sweep.suggested)),
    };
    let Some(arguments) = arguments else {
        sweep.state = "FINISHED".to_owned();
        return json!({ "type": "exit" });
    };
    sweep.suggested += 1;
    let program = sweep.config["program"].clone();
    let name = state.next_id("run-")["run-".len()..][..8].to_owned();
    let sweep = &mut state.wandb.sweeps[index];
    sweep.runs.push(name.clone());
    let mut run = Run::new(&sweep.project, &name, now);
    run.state = "pending".to_owned();
    run.sweep = Some(sweep.name.clone());
    run.config = Value::Object(arguments.clone());
    run.said.insert("displayName".to_owned(), json!(format!("sweep-{}-{}", sweep.name, sweep.suggested)));
    state.wandb.runs.push(run);
    json!({ "type": "run", "run_id": name, "program": program, "args": arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { elapsed: std::time::Duration::ZERO, time: jiff::Timestamp::UNIX_EPOCH };

    const GRID: &str =
        "{method: grid, program: a.py, parameters: {lr: {values: [1e-6, 5e-6]}, n: {values: [1, 3]}}}";

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    /// A server with this sweep and one agent of it: the sweep's storage id and the agent's id.
    fn begun(yaml: &str) -> (State, String, String) {
        let mut state = State::default();
        let sweep = upsert(&mut state, &object(json!({ "config": yaml })), NOW).unwrap()["sweep"].clone();
        let agent =
            create_agent(&mut state, &object(json!({ "host": "h", "sweep": sweep["name"] }))).unwrap();
        let text_of = |value: &Value| value.as_str().unwrap().to_owned();
        (state, text_of(&sweep["id"]), text_of(&agent["agent"]["id"]))
    }

    fn beat(state: &mut State, agent: &str, running: &[&str]) -> Result<Vec<Value>, Refusal> {
        let running: Map<String, Value> =
            running.iter().map(|run| ((*run).to_owned(), json!(true))).collect();
        let input = json!({ "id": agent, "runState": json!(running).to_string() });
        let commands = heartbeat(state, &object(input), NOW)?["commands"].clone();
        Ok(serde_json::from_str(commands.as_str().unwrap()).unwrap())
    }

    /// The suggestions of an agent that runs each of them at once: their values, a line each, and
    /// then the last command.
    fn suggestions(yaml: &str, seed: u64, most: usize) -> Vec<String> {
        let (mut state, _, agent) = begun(yaml);
        state.script.faults.seed = seed;
        let mut lines = Vec::new();
        for _ in 0..most {
            let command = beat(&mut state, &agent, &[]).unwrap().remove(0);
            let Some(arguments) = command["args"].as_object() else {
                lines.push(command["type"].to_string());
                break;
            };
            let values: Vec<String> = arguments.values().map(|value| value["value"].to_string()).collect();
            lines.push(values.join(" "));
        }
        lines
    }

    #[test]
    fn a_grid_is_handed_out_to_its_end() {
        assert_eq!(suggestions(GRID, 1, 9), ["1e-6 1", "1e-6 3", "5e-6 1", "5e-6 3", "\"exit\""]);
    }

    #[test]
    fn a_cap_ends_a_sweep_early() {
        assert_eq!(suggestions(&GRID.replace("method: grid", "method: random, run_cap: 2"), 1, 9).len(), 3);
        assert_eq!(suggestions(&GRID.replace("method:", "run_cap: 3, method:"), 1, 9).len(), 4);
    }

    #[test]
    fn draws_are_decided_by_the_seed_and_bayes_says_that_it_draws() {
        let yaml = "{method: random, parameters: {lr: {min: 0.0, max: 1.0}}}";
        assert_eq!(suggestions(yaml, 7, 5), suggestions(yaml, 7, 5));
        assert_ne!(suggestions(yaml, 7, 5), suggestions(yaml, 8, 5));
        let bayes = yaml.replace("random", "bayes");
        assert_eq!(suggestions(yaml, 7, 5), suggestions(&bayes, 7, 5));
        let made = upsert(&mut State::default(), &object(json!({ "config": bayes })), NOW).unwrap();
        assert!(made["configValidationWarnings"][0].as_str().unwrap().contains("random draws"), "{made}");
    }

    #[test]
    fn a_run_is_there_before_its_program_is() {
        let (mut state, _, agent) = begun(GRID);
        let command = beat(&mut state, &agent, &[]).unwrap().remove(0);
        let run = &state.wandb.runs[0];
        assert_eq!((json!(run.name), run.state.as_str()), (command["run_id"].clone(), "pending"));
        assert_eq!(command["program"], "a.py");
        let name = run.name.clone();
        assert_eq!(beat(&mut state, &agent, &[&name]).unwrap(), Vec::<Value>::new());
    }

    #[test]
    fn the_state_of_a_sweep_decides_what_agents_do() {
        let (mut state, id, agent) = begun(GRID);
        let first = beat(&mut state, &agent, &[]).unwrap().remove(0);
        let run = first["run_id"].as_str().unwrap();
        let set = |state: &mut State, wanted: &str| {
            upsert(state, &object(json!({ "id": id, "state": wanted })), NOW).map(drop)
        };
        set(&mut state, "PAUSED").unwrap();
        assert_eq!(beat(&mut state, &agent, &[]).unwrap(), Vec::<Value>::new());
        set(&mut state, "RUNNING").unwrap();
        assert_eq!(beat(&mut state, &agent, &[]).unwrap()[0]["type"], "run");
        set(&mut state, "FINISHED").unwrap();
        assert_eq!(beat(&mut state, &agent, &[run]).unwrap(), Vec::<Value>::new());
        assert_eq!(beat(&mut state, &agent, &[]).unwrap()[0]["type"], "exit");
        set(&mut state, "CANCELED").unwrap();
        assert_eq!(beat(&mut state, &agent, &[run]).unwrap(), [json!({ "type": "stop", "run_id": run })]);
        assert_eq!(beat(&mut state, &agent, &[]).unwrap()[0]["type"], "exit");
        assert_eq!(set(&mut state, "DONE").unwrap_err().status, 400);
    }

    #[test]
    fn a_stopped_run_a_script_and_a_deletion_reach_the_agent() {
        let (mut state, _, agent) = begun(GRID);
        let run = beat(&mut state, &agent, &[]).unwrap()[0]["run_id"].as_str().unwrap().to_owned();
        state.wandb.runs[0].is_stopped = true;
        assert_eq!(beat(&mut state, &agent, &[&run]).unwrap()[0]["type"], "stop");
        state.script.wandb_agents = Orders::Exit;
        assert_eq!(beat(&mut state, &agent, &[&run]).unwrap()[0]["type"], "exit");
        state.script.wandb_agents = Orders::Stop;
        assert_eq!(beat(&mut state, &agent, &[&run]).unwrap()[0]["type"], "stop");
        state.wandb.sweeps.clear();
        assert_eq!(beat(&mut state, &agent, &[]).unwrap_err().status, 404);
        assert_eq!(beat(&mut state, "nobody", &[]).unwrap_err().status, 404);
    }

    #[track_caller]
    fn check_refused(yaml: &str, expected: &str) {
        let refusal = upsert(&mut State::default(), &object(json!({ "config": yaml })), NOW).unwrap_err();
        assert_eq!(refusal.status, 400);
        assert!(refusal.message.contains(expected), "{}", refusal.message);
    }

    #[test]
    fn a_config_that_makes_no_sense_is_refused() {
        check_refused("[", "Invalid sweep config");
        check_refused("{method: grid}", "parameters: no mapping");
        check_refused("{method: best, parameters: {a: {value: 1}}}", "`method` is none of");
        check_refused("{method: grid, parameters: {a: {min: 0.0, max: 1.0}}}", "parameter a has no end");
        check_refused("{run_cap: 0, method: grid, parameters: {a: {value: 1}}}", "`run_cap` is 0");
    }

    #[test]
    fn a_config_is_fixed_once_there_are_runs() {
        let (mut state, id, agent) = begun(GRID);
        let change = object(json!({ "id": id, "config": GRID.replace("[1, 3]", "[2]") }));
        upsert(&mut state, &change, NOW).unwrap();
        beat(&mut state, &agent, &[]).unwrap();
        assert_eq!(upsert(&mut state, &change, NOW).unwrap_err().status, 400);
    }
}
