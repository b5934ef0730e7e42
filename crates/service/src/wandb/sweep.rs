//! A sweep at W&B: made, asked for values, ended. The values of `bayes` come from nowhere else.
//!
//! Five calls of GraphQL, as the service's own agent makes them. Nothing here starts or prices anything.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::wandb::{Error, Operation, Wandb, encoded};
use ctxtune_python_json as python_json;

const UPSERT_SWEEP: Operation = Operation {
    name: "UpsertSweep",
    text: "mutation UpsertSweep($input: UpsertSweepInput!) { upsertSweep(input: $input) {
           sweep { id name project { name entity { name } } } } }",
};

const CREATE_AGENT: Operation = Operation {
    name: "CreateAgent",
    text: "mutation CreateAgent($input: CreateAgentInput!) { createAgent(input: $input) { agent { id } } }",
};

const AGENT_HEARTBEAT: Operation = Operation {
    name: "AgentHeartbeat",
    text: "mutation AgentHeartbeat($input: AgentHeartbeatInput!) { agentHeartbeat(input: $input) {
           agent { id } commands } }",
};

const SWEEP_RUNS: Operation = Operation {
    name: "SweepRuns",
    text: "query SweepRuns($entity: String, $project: String, $sweep: String!) {
           project(name: $project, entityName: $entity) { sweep(sweepName: $sweep) {
           runs { edges { node { name state config } } } } } }",
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepIdentity {
    /// The service's own id of it; opaque.
    pub storage_id: String,
    /// Whose it is.
    pub entity: String,
    /// The project that it is in.
    pub project: String,
    /// Its id.
    pub name: String,
    /// Its page.
    pub url: String,
}

/// A run of a sweep that was suggested to somebody and that nobody has begun.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingRun {
    pub run: String,
    /// Its values, as far as they can be read.
    pub values: Vec<(String, Value)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Run { run: String, values: Vec<(String, Value)> },
    Exit,
}

/// Makes a sweep of `document` in `project`; `entity` empty: the key's own.
pub fn create(
    wandb: &Wandb,
    (entity, project): (&str, &str),
    document: &Map<String, Value>,
) -> Result<SweepIdentity, Error> {
    // JSON is YAML, and its numbers are numbers in every version of it.
    let config = Value::Object(document.clone()).to_string();
    let entity = Some(entity).filter(|entity| !entity.is_empty());
    let input = json!({ "config": config, "entityName": entity, "projectName": project });
    let data = wandb.graphql(UPSERT_SWEEP, &json!({ "input": input }))?;
    let text = |place: &str| {
        let text = data.pointer(&format!("/upsertSweep/sweep/{place}")).and_then(Value::as_str);
        text.map(str::to_owned)
            .ok_or_else(|| wandb.unreadable(UPSERT_SWEEP.name, &format!("it has no `sweep/{place}`")))
    };
    let (entity, project, name) = (text("project/entity/name")?, text("project/name")?, text("name")?);
    let url = page(wandb, [&entity, &project, &name]);
    Ok(SweepIdentity { storage_id: text("id")?, entity, project, name, url })
}

pub fn page(wandb: &Wandb, [entity, project, name]: [&str; 3]) -> String {
    format!("{}/{}/{}/sweeps/{}", wandb.app(), encoded(entity), encoded(project), encoded(name))
}

/// Says that a sweep has ended; its running runs are left alone.
pub fn finish(wandb: &Wandb, sweep: &SweepIdentity) -> Result<(), Error> {
    let input = json!({ "id": sweep.storage_id, "state": "FINISHED" });
    wandb.graphql(UPSERT_SWEEP, &json!({ "input": input })).map(|_| ())
}

pub fn register(wandb: &Wandb, sweep: &SweepIdentity) -> Result<String, Error> {
    let input = json!({
        "host": "ctxtune", "projectName": sweep.project, "entityName": sweep.entity, "sweep": sweep.name,
    });
    let data = wandb.graphql(CREATE_AGENT, &json!({ "input": input }))?;
    let id = data.pointer("/createAgent/agent/id").and_then(Value::as_str);
    id.map(str::to_owned).ok_or_else(|| wandb.unreadable(CREATE_AGENT.name, "it has no `agent/id`"))
}

/// What the agent, which runs nothing at the moment, is to do next.
pub fn next(wandb: &Wandb, agent: &str) -> Result<Vec<Command>, Error> {
    let input = json!({ "id": agent, "metrics": "{}", "runState": "{}" });
    let data = wandb.graphql(AGENT_HEARTBEAT, &json!({ "input": input }))?;
    let commands = data.pointer("/agentHeartbeat/commands").and_then(Value::as_str).unwrap_or("[]");
    let commands = python_json::read(commands.as_bytes())
        .ok_or_else(|| wandb.unreadable(AGENT_HEARTBEAT.name, "its `commands` are no JSON"))?;
    Ok(commands.as_array().into_iter().flatten().filter_map(read_command).collect())
}

/// The runs of the sweep that were suggested and that nobody has begun, oldest first. They are not suggested
/// again.
pub fn pending(wandb: &Wandb, sweep: &SweepIdentity) -> Result<Vec<PendingRun>, Error> {
    let place = json!({ "entity": sweep.entity, "project": sweep.project, "sweep": sweep.name });
    let data = wandb.graphql(SWEEP_RUNS, &place)?;
    let runs = data.pointer("/project/sweep/runs/edges").and_then(Value::as_array);
    let runs = runs.ok_or_else(|| wandb.unreadable(SWEEP_RUNS.name, "it has no runs of this sweep"))?;
    Ok(runs.iter().filter_map(|edge| read_pending(edge.get("node")?)).collect())
}

fn read_pending(run: &Value) -> Option<PendingRun> {
    if run.get("state").and_then(Value::as_str) != Some("pending") {
        return None;
    }
    let config = run.get("config").and_then(Value::as_str).unwrap_or_default();
    let config = python_json::read(config.as_bytes());
    let config = config.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
    let value = |(key, field): (String, Value)| Some((key, field.get("value").cloned()?));
    let values = config.into_iter().filter(|(key, _)| key != "_wandb").filter_map(value).collect();
    Some(PendingRun { run: run.get("name")?.as_str()?.to_owned(), values })
}

/// A command; what is not known here, and what is about runs that are no longer ours, is passed over.
fn read_command(command: &Value) -> Option<Command> {
    match command.get("type").and_then(Value::as_str)? {
        "run" | "resume" => {
            let args = command.get("args").and_then(Value::as_object)?;
            let value = |(key, arg): (&String, &Value)| Some((key.clone(), arg.get("value").cloned()?));
            let run = command.get("run_id").and_then(Value::as_str)?.to_owned();
            Some(Command::Run { run, values: args.iter().filter_map(value).collect() })
        }
        "exit" => Some(Command::Exit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_runs_that_nobody_has_begun_are_pending() {
        let run = |state: &str| {
            let config = json!({ "n_epochs": { "value": 2 }, "_wandb": { "value": {} } }).to_string();
            json!({ "name": "r", "state": state, "config": config })
        };
        let values = vec![("n_epochs".to_owned(), json!(2))];
        assert_eq!(read_pending(&run("pending")), Some(PendingRun { run: "r".to_owned(), values }));
        for state in ["running", "finished", "crashed", "killed", "failed"] {
            assert_eq!(read_pending(&run(state)), None, "{state}");
        }
        let unreadable = json!({ "name": "r", "state": "pending", "config": "{" });
        assert_eq!(read_pending(&unreadable), Some(PendingRun { run: "r".to_owned(), values: Vec::new() }));
    }

    #[test]
    fn commands_are_read_and_strange_ones_passed_over() {
        let run =
            json!({ "type": "run", "run_id": "r", "program": "p", "args": { "n_epochs": { "value": 2 } } });
        let values = vec![("n_epochs".to_owned(), json!(2))];
        assert_eq!(read_command(&run), Some(Command::Run { run: "r".to_owned(), values }));
        assert_eq!(read_command(&json!({ "type": "exit" })), Some(Command::Exit));
        for strange in
            [json!({ "type": "dance" }), json!({ "type": "run" }), json!(3), json!({ "type": "stop" })]
        {
            assert_eq!(read_command(&strange), None, "{strange}");
        }
    }
}
