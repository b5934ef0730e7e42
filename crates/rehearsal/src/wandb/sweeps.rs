//! Sweeps and their agents: what is suggested next, and when it is over.
//!
//! A grid is exhaustive, everything else is drawn by the seed of the script; no model is fitted and nothing is
//! ended early, and the sweep's warnings say so.

use serde_json::{Value, json};

use crate::request::Now;
use crate::state::State;
use crate::state::wandb::{Run, Sweep, WandbSweep};
use crate::wandb::ids::{ENTITY, PROJECT, storage_id};
use crate::wandb::runs;
use crate::wandb::runs::Refusal;
use crate::wandb::space::{Space, space};
use crate::wandb::stream::read_json;

const STATES: [&str; 4] = ["RUNNING", "PAUSED", "FINISHED", "CANCELED"];

pub fn upsert(state: &mut State, input: &Value, now: Now) -> Result<Value, Refusal> {
    runs::check_entity(input, "upsertSweep")?;
    let config = input["config"].as_str().map(read).transpose();
    let config = config.map_err(|why| Refusal::new(400, format!("Invalid sweep config: {why}")))?;
    if let Some(wanted) = input["state"].as_str().filter(|wanted| !STATES.contains(wanted)) {
        return Err(Refusal::new(400, format!("invalid sweep state: {wanted}")));
    }
    let index = match input["id"].as_str().filter(|id| !id.is_empty()) {
        Some(id) => position(state, id)?,
        None if config.is_none() => return Err(Refusal::new(400, "sweep config is required")),
        None => {
            begin(state, input["projectName"].as_str().filter(|name| !name.is_empty()).unwrap_or(PROJECT))
        }
    };
    let sweep = &mut state.wandb.sweeps[index];
    let mut warnings = Vec::new();
    if let Some((config, space)) = config {
        if !sweep.shown.runs.is_empty() {
            let message = format!("sweep {} has runs: its config is fixed", sweep.shown.name);
            return Err(Refusal::new(400, message));
        }
        warnings = warnings_of(&config);
        sweep.yaml = input["config"].as_str().unwrap_or_default().to_owned();
        (sweep.shown.config, sweep.space) = (config, space);
    }
    if let Some(wanted) = input["state"].as_str() {
        wanted.clone_into(&mut sweep.shown.state);
    }
    for name in ["description", "displayName", "controller", "scheduler"] {
        if !input[name].is_null() {
            sweep.said.insert(name.to_owned(), input[name].clone());
        }
    }
    let sweep = value(state, &state.wandb.sweeps[index], now);
    Ok(json!({ "sweep": sweep, "configValidationWarnings": warnings }))
}

fn begin(state: &mut State, project: &str) -> usize {
    let name = short_id(state);
    let storage_id = storage_id("Sweep", &[&name, project, ENTITY]);
    let (entity, project, pending) = (ENTITY.to_owned(), project.to_owned(), "PENDING".to_owned());
    let shown = WandbSweep { entity, project, name, state: pending, ..WandbSweep::default() };
    state.wandb.sweeps.push(Sweep { shown, storage_id, ..Sweep::default() });
    state.wandb.sweeps.len() - 1
}

/// Eight characters that no other has.
fn short_id(state: &mut State) -> String {
    state.next_id("")[..8].to_owned()
}

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

pub fn value(state: &State, sweep: &Sweep, now: Now) -> Value {
    let shown = &sweep.shown;
    let is_its =
        |run: &&Run| run.shown.project == shown.project && run.shown.sweep.as_ref() == Some(&shown.name);
    let runs = state.wandb.runs.iter().filter(is_its);
    let edges: Vec<Value> = runs.map(|run| json!({ "node": runs::value(run) })).collect();
    let time = now.time.to_string();
    json!({
        "__typename": "Sweep",
        "id": sweep.storage_id,
        "name": shown.name,
        "displayName": sweep.said.get("displayName"),
        "method": shown.config["method"],
        "state": shown.state,
        "description": sweep.said.get("description"),
        "config": sweep.yaml,
        "createdAt": time,
        "heartbeatAt": time,
        "updatedAt": time,
        "earlyStopJobRunning": false,
        "bestLoss": null,
        "controller": sweep.said.get("controller"),
        "scheduler": sweep.said.get("scheduler"),
        "controllerRunName": null,
        "runCount": edges.len(),
        "project": runs::project(&shown.project),
        "runs": { "edges": edges },
    })
}

pub fn create_agent(state: &mut State, input: &Value) -> Result<Value, Refusal> {
    let name = input["sweep"].as_str().unwrap_or_default();
    let project = input["projectName"].as_str();
    let is_it = |sweep: &&mut Sweep| {
        sweep.shown.name == name && project.is_none_or(|project| sweep.shown.project == project)
    };
    let found = state.wandb.sweeps.iter_mut().find(is_it);
    let sweep = found.ok_or_else(|| Refusal::new(404, format!("could not find sweep {name}")))?;
    sweep.shown.agents += 1;
    let sweep_id = sweep.storage_id.clone();
    let id = storage_id("Agent", &[&state.next_id("")]);
    state.wandb.agents.insert(id.clone(), sweep_id);
    Ok(json!({ "agent": { "id": id } }))
}

/// Carries out `agentHeartbeat`: what the agent is to do.
pub fn heartbeat(state: &mut State, input: &Value, now: Now) -> Result<Value, Refusal> {
    let id = input["id"].as_str().unwrap_or_default();
    let sweep_id = state.wandb.agents.get(id).ok_or_else(|| Refusal::new(404, "could not find agent"))?;
    let index = position(state, sweep_id)?;
    let running = running(input["runState"].as_str().unwrap_or("{}"))?;
    let commands = commands(state, index, &running, now);
    Ok(json!({ "agent": { "id": id }, "commands": json!(commands).to_string() }))
}

fn running(text: &str) -> Result<Vec<String>, Refusal> {
    let unreadable = || Refusal::new(400, format!("runState is no object of truth values: {text}"));
    let Ok(Value::Object(states)) = read_json(text) else { return Err(unreadable()) };
    if !states.values().all(Value::is_boolean) {
        return Err(unreadable());
    }
    Ok(states.into_iter().filter(|(_, is_running)| *is_running == true).map(|(name, _)| name).collect())
}

fn commands(state: &mut State, index: usize, running: &[String], now: Now) -> Vec<Value> {
    let sweep = &state.wandb.sweeps[index].shown;
    let is_unwanted = |name: &&String| {
        sweep.state == "CANCELED" || runs::find(state, &sweep.project, name).is_some_and(|run| run.is_stopped)
    };
    let stop = |run: &String| json!({ "type": "stop", "run_id": run });
    let stops: Vec<Value> = running.iter().filter(is_unwanted).map(stop).collect();
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
    let (seed, name) = (state.script.faults.seed, short_id(state));
    let sweep = &mut state.wandb.sweeps[index];
    let shown = &mut sweep.shown;
    let number = shown.runs.len() as u64;
    let arguments = match shown.config["method"].as_str() {
        _ if shown.config["run_cap"].as_u64().is_some_and(|cap| number >= cap) => None,
        Some("grid") => sweep.space.grid(number),
        _ => Some(sweep.space.random(seed, number)),
    };
    let Some(arguments) = arguments else {
        shown.state = "FINISHED".to_owned();
        return json!({ "type": "exit" });
    };
    shown.state = "RUNNING".to_owned();
    shown.runs.push(name.clone());
    let mut run = Run::new(&shown.project, &name, now);
    run.shown.state = "pending".to_owned();
    run.shown.sweep = Some(shown.name.clone());
    run.shown.config = Value::Object(arguments.clone());
    run.shown.display_name = format!("sweep-{}-{}", shown.name, number + 1);
    state.wandb.runs.push(run);
    json!({ "type": "run", "run_id": name, "program": shown.config["program"], "args": arguments })
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    const NOW: Now = Now { elapsed: std::time::Duration::ZERO, time: jiff::Timestamp::UNIX_EPOCH };

    const GRID: &str =
        "{method: grid, program: a.py, parameters: {lr: {values: [1e-6, 5e-6]}, n: {values: [1, 3]}}}";

    /// A server with this sweep and one agent of it: the sweep's storage id and the agent's id.
    fn begun(yaml: &str) -> (State, String, String) {
        let mut state = State::default();
        let sweep = upsert(&mut state, &json!({ "config": yaml }), NOW).unwrap()["sweep"].clone();
        let agent = create_agent(&mut state, &json!({ "host": "h", "sweep": sweep["name"] })).unwrap();
        let text_of = |value: &Value| value.as_str().unwrap().to_owned();
        (state, text_of(&sweep["id"]), text_of(&agent["agent"]["id"]))
    }

    fn beat(state: &mut State, agent: &str, running: &[&str]) -> Result<Vec<Value>, Refusal> {
        let running: Map<String, Value> =
            running.iter().map(|run| ((*run).to_owned(), json!(true))).collect();
        let input = json!({ "id": agent, "runState": json!(running).to_string() });
        let commands = heartbeat(state, &input, NOW)?["commands"].clone();
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
        let made = upsert(&mut State::default(), &json!({ "config": bayes }), NOW).unwrap();
        assert!(made["configValidationWarnings"][0].as_str().unwrap().contains("random draws"), "{made}");
    }

    #[test]
    fn a_run_is_there_before_its_program_is() {
        let (mut state, _, agent) = begun(GRID);
        let command = beat(&mut state, &agent, &[]).unwrap().remove(0);
        let run = &state.wandb.runs[0].shown;
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
            upsert(state, &json!({ "id": id, "state": wanted }), NOW).map(drop)
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
    fn a_stopped_run_and_a_deleted_sweep_reach_the_agent() {
        let (mut state, _, agent) = begun(GRID);
        let run = beat(&mut state, &agent, &[]).unwrap()[0]["run_id"].as_str().unwrap().to_owned();
        state.wandb.runs[0].is_stopped = true;
        assert_eq!(beat(&mut state, &agent, &[&run]).unwrap()[0]["type"], "stop");
        state.wandb.sweeps.clear();
        assert_eq!(beat(&mut state, &agent, &[]).unwrap_err().status, 404);
        assert_eq!(beat(&mut state, "nobody", &[]).unwrap_err().status, 404);
    }

    #[track_caller]
    fn check_refused(yaml: &str, expected: &str) {
        let refusal = upsert(&mut State::default(), &json!({ "config": yaml }), NOW).unwrap_err();
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
        let change = json!({ "id": id, "config": GRID.replace("[1, 3]", "[2]") });
        upsert(&mut state, &change, NOW).unwrap();
        beat(&mut state, &agent, &[]).unwrap();
        assert_eq!(upsert(&mut state, &change, NOW).unwrap_err().status, 400);
    }
}
