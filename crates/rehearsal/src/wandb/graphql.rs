//! A GraphQL request into its answer: the root field decides what is done, and only what is asked for is sent.
//!
//! What the fields mean is in `runs` and `sweeps`, which build every value whole. A field that the value does
//! not have is one that the service does not know. Errors have the service's shape, and so its status.

use serde_json::{Map, Value, json};

use crate::reply::Reply;
use crate::request::{Now, Request};
use crate::state::State;
use crate::state::wandb::Sweep;
use crate::wandb::document::{Field, Operation, operation};
use crate::wandb::ids::{ENTITY, PROJECT, is_ours};
use crate::wandb::runs::Refusal;
use crate::wandb::{runs, sweeps};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Granted,
    Anonymous,
    Denied,
}

pub fn graphql(state: &mut State, request: &Request, access: Access, now: Now) -> Reply {
    let operation = match read(request) {
        Ok(operation) => operation,
        Err(message) => return invalid(state, message),
    };
    let mut data = Map::new();
    for field in &operation.fields {
        let answer = match access {
            Access::Granted => root(state, &operation, field, now),
            Access::Anonymous if field.name == "viewer" => Ok(Value::Null),
            _ => Err(Refusal::new(401, "user is not logged in")),
        };
        match answer.and_then(|whole| select(state, &whole, &field.fields, now)) {
            Ok(value) => data.insert(field.key.clone(), value),
            Err(Refusal { is_violation: true, message, .. }) => return invalid(state, message),
            Err(Refusal { status, message, .. }) => {
                let error = json!({ "message": message, "path": [field.key] });
                return Reply::json(status, &json!({ "errors": [error], "data": { &field.key: null } }));
            }
        };
    }
    Reply::ok(&json!({ "data": data }))
}

fn invalid(state: &mut State, message: String) -> Reply {
    state.record_violation(format!("graphql: {message}"));
    Reply::json(400, &json!({ "errors": [{ "message": message }] }))
}

fn read(request: &Request) -> Result<Operation, String> {
    if request.head.method != "POST" {
        return Err("GraphQL only supports POST requests.".to_owned());
    }
    let body: Value =
        serde_json::from_slice(&request.body.kept).map_err(|_| "POST body sent invalid JSON.")?;
    let fields = body.as_object().ok_or("POST body is no object.")?;
    let known = ["query", "variables", "operationName", "extensions"];
    if let Some(unknown) = fields.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("unknown field `{unknown}` in the body"));
    }
    let variables = match &body["variables"] {
        Value::Null => &Map::new(),
        Value::Object(variables) => variables,
        _ => return Err("Variables are invalid JSON.".to_owned()),
    };
    let text = body["query"].as_str().ok_or("Must provide query string.")?;
    operation(text, variables)
}

fn root(state: &mut State, operation: &Operation, field: &Field, now: Now) -> Result<Value, Refusal> {
    let (arguments, input) = (&field.arguments, &field.arguments["input"]);
    Ok(match (operation.is_mutation, field.name.as_str()) {
        (false, "viewer") => viewer(),
        (false, "serverInfo") => json!({ "features": [{ "name": "FILESTREAM_GZIP", "isEnabled": false }] }),
        (false, "entity") if is_ours(&arguments["name"]) => runs::entity(),
        (false, "entity") => Value::Null,
        (false, "project" | "model") => project(state, arguments),
        (true, "upsertBucket") => runs::upsert(state, input, now)?,
        (true, "createRunFiles") => runs::create_files(state, input)?,
        (true, "markRunFilesUploaded") => runs::mark_uploaded(state, input)?,
        (true, "notifyScriptableRunAlert") => runs::alert(state, input)?,
        (true, "upsertSweep") => sweeps::upsert(state, input, now)?,
        (true, "createAgent") => sweeps::create_agent(state, input)?,
        (true, "agentHeartbeat") => sweeps::heartbeat(state, input, now)?,
        (is_mutation, name) => return Err(unknown(name, if is_mutation { "Mutation" } else { "Query" })),
    })
}

fn unknown(field: &str, of: &str) -> Refusal {
    let message = format!("Cannot query field \"{field}\" on type \"{of}\".");
    Refusal { is_violation: true, ..Refusal::new(400, message) }
}

fn select(state: &State, whole: &Value, fields: &[Field], now: Now) -> Result<Value, Refusal> {
    match whole {
        Value::Array(items) => items.iter().map(|item| select(state, item, fields, now)).collect(),
        Value::Object(_) if !fields.is_empty() => {
            let selected = |field: &Field| {
                let value = member(state, whole, field, now)?;
                Ok((field.key.clone(), select(state, &value, &field.fields, now)?))
            };
            fields.iter().map(selected).collect::<Result<Map<_, _>, _>>().map(Value::Object)
        }
        plain => Ok(plain.clone()),
    }
}

/// The whole value of a field of `parent`: one that it has, or one that depends on arguments.
fn member(state: &State, parent: &Value, field: &Field, now: Now) -> Result<Value, Refusal> {
    let arguments = &field.arguments;
    let run = || state.wandb.runs.iter().find(|run| parent["id"] == run.storage_id);
    Ok(match (parent["__typename"].as_str().unwrap_or("Object"), field.name.as_str()) {
        ("Run", "stopped" | "shouldStop") if state.script.wandb_stop => json!(true),
        ("Run", "wandbConfig") => {
            run().map_or(Value::Null, |run| runs::client_config(run, &arguments["keys"]))
        }
        ("Run", "sampledHistory") => run().map_or(Value::Null, |run| runs::sampled(run, &arguments["specs"])),
        ("Project", "run" | "bucket") => {
            let project = parent["name"].as_str().unwrap_or_default();
            let name = arguments["name"].as_str().unwrap_or_default();
            match runs::find(state, project, name) {
                Some(run) => runs::value(run),
                None if arguments["missingOk"] == true => Value::Null,
                None => {
                    let message = format!("could not find run {ENTITY}/{project}/{name}");
                    return Err(Refusal::new(404, message));
                }
            }
        }
        ("Project", "sweep") => {
            let is_it = |sweep: &&Sweep| {
                parent["name"] == sweep.shown.project && arguments["sweepName"] == sweep.shown.name
            };
            let sweep = state.wandb.sweeps.iter().find(is_it);
            sweep.map_or(Value::Null, |sweep| sweeps::value(state, sweep, now))
        }
        (kind, name) => parent.get(name).cloned().ok_or_else(|| unknown(name, kind))?,
    })
}

fn project(state: &State, arguments: &Value) -> Value {
    let name = arguments["name"].as_str().filter(|name| !name.is_empty()).unwrap_or(PROJECT);
    let is_known = name == PROJECT
        || state.wandb.runs.iter().any(|run| run.shown.project == name)
        || state.wandb.sweeps.iter().any(|sweep| sweep.shown.project == name);
    if is_known && is_ours(&arguments["entityName"]) { runs::project(name) } else { Value::Null }
}

fn viewer() -> Value {
    json!({
        "__typename": "User",
        "id": "VXNlcjox",
        "entity": ENTITY,
        "username": ENTITY,
        "name": "Rehearsal",
        "email": "rehearsal@example.org",
        "admin": false,
        "flags": "{}",
        "teams": { "edges": [{ "node": runs::entity() }] },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Content;
    use crate::wire::{Body, Head};

    const NOW: Now = Now { elapsed: std::time::Duration::ZERO, time: jiff::Timestamp::UNIX_EPOCH };

    /// The status and the answer to this body.
    fn ask(state: &mut State, body: &Value, access: Access) -> (u16, Value) {
        let head = Head {
            method: "POST".to_owned(),
            target: "/graphql".to_owned(),
            headers: Vec::new(),
            is_kept_alive: true,
        };
        let body = Body { kept: body.to_string().into_bytes(), is_whole: true, ..Body::default() };
        let request = Request { head, path: "/graphql".to_owned(), query: Vec::new(), body };
        let reply = graphql(state, &request, access, NOW);
        let Content::Whole(bytes) = reply.content else { panic!("a stream") };
        (reply.status, serde_json::from_slice(&bytes).unwrap())
    }

    #[track_caller]
    fn check(query: &str, status: u16, expected: Value) {
        let mut state = State::default();
        let made = "mutation { upsertBucket(input: {name: \"a\"}) { inserted } }";
        ask(&mut state, &json!({ "query": made }), Access::Granted);
        let answer = ask(&mut state, &json!({ "query": query }), Access::Granted);
        assert_eq!(answer, (status, expected));
    }

    #[test]
    fn only_what_is_selected_is_sent() {
        check("{ viewer { name: entity __typename } }", 200, {
            json!({ "data": { "viewer": { "name": "rehearsal", "__typename": "User" } } })
        });
        check("{ project { run(name: \"a\") { state stopped project { name } } } }", 200, {
            let run = json!({ "state": "running", "stopped": false, "project": { "name": "rehearsal" } });
            json!({ "data": { "project": { "run": run } } })
        });
        check("{ serverInfo { features { isEnabled } } }", 200, {
            json!({ "data": { "serverInfo": { "features": [{ "isEnabled": false }] } } })
        });
        check("{ project(name: \"other\") { id } }", 200, json!({ "data": { "project": null } }));
        check("{ model { bucket(name: \"b\", missingOk: true) { id } } }", 200, {
            json!({ "data": { "model": { "bucket": null } } })
        });
    }

    #[test]
    fn errors_have_the_services_shape() {
        for (query, field, of) in [
            ("{ nobody }", "nobody", "Query"),
            ("{ upsertBucket { inserted } }", "upsertBucket", "Query"),
            ("{ viewer { id age } }", "age", "User"),
            ("{ project { run(name: \"a\") { loss } } }", "loss", "Run"),
        ] {
            let message = format!("Cannot query field \"{field}\" on type \"{of}\".");
            check(query, 400, json!({ "errors": [{ "message": message }] }));
        }
        check("{ p: project { run(name: \"b\") { id } } }", 404, {
            let message = "could not find run rehearsal/rehearsal/b";
            json!({ "errors": [{ "message": message, "path": ["p"] }], "data": { "p": null } })
        });
    }

    #[test]
    fn without_the_key_nobody_is_logged_in() {
        let viewer = json!({ "query": "{ viewer { id } }" });
        let mutation = json!({ "query": "mutation { upsertBucket(input: {name: \"a\"}) { inserted } }" });
        let mut state = State::default();
        let anonymous = (200, json!({ "data": { "viewer": null } }));
        assert_eq!(ask(&mut state, &viewer, Access::Anonymous), anonymous);
        for (body, access) in
            [(&viewer, Access::Denied), (&mutation, Access::Denied), (&mutation, Access::Anonymous)]
        {
            let (status, answer) = ask(&mut state, body, access);
            assert_eq!((status, &answer["errors"][0]["message"]), (401, &json!("user is not logged in")));
        }
        assert!(state.wandb.runs.is_empty() && state.violations.is_empty());
    }

    #[test]
    fn a_body_that_is_no_request_is_refused_and_a_violation() {
        for (body, expected) in [
            (json!([]), "POST body is no object."),
            (json!({}), "Must provide query string."),
            (json!({ "query": "{ viewer { id } }", "more": 1 }), "unknown field `more` in the body"),
            (json!({ "query": "{ viewer { id } }", "variables": 1 }), "Variables are invalid JSON."),
            (json!({ "query": "{ viewer { age } }" }), "Cannot query field \"age\" on type \"User\"."),
        ] {
            let mut state = State::default();
            let (status, answer) = ask(&mut state, &body, Access::Granted);
            assert_eq!((status, &answer["errors"][0]["message"]), (400, &json!(expected)));
            assert_eq!(state.violations, [format!("graphql: {expected}")]);
        }
    }
}
