//! A GraphQL request into its answer: read, checked against the schema, carried out, cut to what was asked for.
//!
//! Separate from what the fields mean, which is in `runs` and `sweeps`: every value is built whole
//! there, and only what is selected leaves here. Errors have the service's shape, and so its status.

use serde_json::{Map, Value, json};

use crate::reply::Reply;
use crate::state::{Now, Request, State};
use crate::wandb::syntax::{self, Document, Field, Operation};
use crate::wandb::validate::{self, Schema, validate};
use crate::wandb::{ENTITY, PROJECT, Refusal, runs, sweeps};

/// Whether the request has the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It has.
    Granted,
    /// It has none.
    Anonymous,
    /// It has another.
    Denied,
}

/// Carries out a request to `/graphql`.
pub fn graphql(state: &mut State, request: &Request, access: Access, now: Now) -> Reply {
    let Asked { document, index, variables } = match asked(request) {
        Ok(asked) => asked,
        Err(message) => return invalid(state, message),
    };
    let operation = &document.operations[index];
    let fields = validate::fields(&document, &operation.selections);
    let is_viewer = fields.iter().all(|field| field.name == "viewer");
    match access {
        Access::Granted => {}
        Access::Anonymous if is_viewer => return Reply::json(200, &json!({ "data": { "viewer": null } })),
        _ => {
            let refusal = Refusal::new(401, "user is not logged in");
            return refused(&refusal, fields.first().map_or("", |field| &field.key));
        }
    }
    let schema = Schema::new();
    let variables = match validate(&schema, &document, operation, &variables) {
        Ok(variables) => variables,
        Err(message) => return invalid(state, message),
    };
    let mut run = Execution { state, document: &document, schema: &schema, variables, now };
    match run.root(operation) {
        Ok(data) => Reply::json(200, &json!({ "data": data })),
        Err((key, refusal)) => refused(&refusal, &key),
    }
}

struct Asked {
    document: Document,
    index: usize,
    variables: Map<String, Value>,
}

fn asked(request: &Request) -> Result<Asked, String> {
    if request.head.method != "POST" {
        return Err("GraphQL only supports POST requests.".to_owned());
    }
    let body: Value =
        serde_json::from_slice(&request.body.kept).map_err(|_| "POST body sent invalid JSON.")?;
    let body = body.as_object().ok_or("POST body is no object.")?;
    let known = ["query", "variables", "operationName", "extensions"];
    if let Some(strange) = body.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("unknown field `{strange}` in the body"));
    }
    let text = body.get("query").and_then(Value::as_str).ok_or("Must provide query string.")?;
    let document = syntax::document(text)?;
    let variables = match body.get("variables") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(variables)) => variables.clone(),
        Some(_) => return Err("Variables are invalid JSON.".to_owned()),
    };
    let wanted = body.get("operationName").and_then(Value::as_str).filter(|name| !name.is_empty());
    let index = match wanted {
        Some(name) => {
            let index = document.operations.iter().position(|operation| operation.name == name);
            index.ok_or_else(|| format!("Unknown operation named \"{name}\"."))?
        }
        None if document.operations.len() > 1 => {
            return Err("Must provide operation name if query contains multiple operations.".to_owned());
        }
        None => 0,
    };
    Ok(Asked { document, index, variables })
}

fn invalid(state: &mut State, message: String) -> Reply {
    state.accuse(format!("graphql: {message}"));
    Reply::json(400, &json!({ "errors": [{ "message": message }] }))
}

fn refused(refusal: &Refusal, key: &str) -> Reply {
    let mut error = json!({ "message": refusal.message, "path": [key] });
    if refusal.status == 403 {
        error["extensions"] = json!({ "code": "PERMISSION_ERROR" });
    }
    Reply::json(refusal.status, &json!({ "errors": [error], "data": { key: null } }))
}

struct Execution<'e> {
    state: &'e mut State,
    document: &'e Document,
    schema: &'e Schema,
    variables: Map<String, Value>,
    now: Now,
}

impl<'e> Execution<'e> {
    fn root(&mut self, operation: &'e Operation) -> Result<Value, (String, Refusal)> {
        let mut data = Map::new();
        for field in validate::fields(self.document, &operation.selections) {
            let value = self.field(operation.root, &Value::Null, field);
            data.insert(field.key.clone(), value.map_err(|refusal| (field.key.clone(), refusal))?);
        }
        Ok(Value::Object(data))
    }

    /// The value of a field of `parent`, cut to what is asked for of it.
    fn field(&mut self, of: &str, parent: &Value, field: &'e Field) -> Result<Value, Refusal> {
        if field.name == "__typename" {
            return Ok(json!(of));
        }
        let arguments = syntax::values(&field.arguments, &self.variables);
        let whole = self.resolve(of, parent, (&field.name, &arguments))?;
        let schema = self.schema;
        let kind = schema.member(of, &field.name).map_or("", |member| member.kind.base());
        self.cut(kind, whole, field)
    }

    fn cut(&mut self, kind: &str, whole: Value, field: &'e Field) -> Result<Value, Refusal> {
        match whole {
            Value::Array(items) => {
                items.into_iter().map(|item| self.cut(kind, item, field)).collect::<Result<_, _>>()
            }
            Value::Object(_) if !field.selections.is_empty() => {
                let mut cut = Map::new();
                for inner in validate::fields(self.document, &field.selections) {
                    cut.insert(inner.key.clone(), self.field(kind, &whole, inner)?);
                }
                Ok(Value::Object(cut))
            }
            plain => Ok(plain),
        }
    }

    fn resolve(
        &mut self,
        of: &str,
        parent: &Value,
        (name, arguments): (&str, &Map<String, Value>),
    ) -> Result<Value, Refusal> {
        let text_of = |name: &str| arguments.get(name).and_then(Value::as_str);
        match (of, name) {
            ("Query", "viewer") => Ok(viewer()),
            ("Query", "serverInfo") => {
                Ok(json!({ "features": [{ "name": "FILESTREAM_GZIP", "isEnabled": false }] }))
            }
            ("Query", "entity") => {
                let is_known = text_of("name").is_none_or(|name| name == ENTITY);
                Ok(if is_known { runs::entity() } else { Value::Null })
            }
            ("Query", _) => Ok(self.project(arguments)),
            ("Project", "run" | "bucket") => self.run_of(parent, arguments),
            ("Project", "sweep") => Ok(self.sweep_of(parent, text_of("sweepName").unwrap_or_default())),
            ("Run", "wandbConfig" | "sampledHistory") => {
                let run = self.state.wandb.runs.iter().find(|run| json!(run.storage_id) == parent["id"]);
                let argument = |name: &str| arguments.get(name).cloned().unwrap_or_default();
                Ok(run.map_or(Value::Null, |run| match name {
                    "wandbConfig" => runs::client_config(run, &argument("keys")),
                    _ => runs::sampled(run, &argument("specs")),
                }))
            }
            ("Run", "stopped" | "shouldStop") if self.state.script.wandb_stop => Ok(json!(true)),
            ("Mutation", name) => {
                let empty = Map::new();
                let input = arguments.get("input").and_then(Value::as_object).unwrap_or(&empty);
                self.mutate(name, input)
            }
            _ => Ok(parent.get(name).cloned().unwrap_or_default()),
        }
    }

    fn mutate(&mut self, name: &str, input: &Map<String, Value>) -> Result<Value, Refusal> {
        match name {
            "upsertBucket" => runs::upsert(self.state, input, self.now),
            "createRunFiles" => runs::create_files(self.state, input),
            "markRunFilesUploaded" => runs::mark_uploaded(self.state, input),
            "stopRun" => runs::stop(self.state, input),
            "notifyScriptableRunAlert" => runs::alert(self.state, input),
            "upsertSweep" => sweeps::upsert(self.state, input, self.now),
            "createAgent" => sweeps::create_agent(self.state, input),
            "agentHeartbeat" => sweeps::heartbeat(self.state, input, self.now),
            _ => Err(Refusal::new(501, format!("{name} is not implemented"))),
        }
    }

    /// A project that something was logged to.
    fn project(&self, arguments: &Map<String, Value>) -> Value {
        let text_of =
            |name: &str| arguments.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let name = text_of("name").unwrap_or(PROJECT);
        let wandb = &self.state.wandb;
        let has_runs = wandb.runs.iter().any(|run| run.project == name);
        let has_sweeps = wandb.sweeps.iter().any(|sweep| sweep.project == name);
        let is_known = name == PROJECT || has_runs || has_sweeps;
        if is_known && text_of("entityName").is_none_or(|entity| entity == ENTITY) {
            runs::project(name)
        } else {
            Value::Null
        }
    }

    fn run_of(&self, parent: &Value, arguments: &Map<String, Value>) -> Result<Value, Refusal> {
        let project = parent["name"].as_str().unwrap_or_default();
        let name = arguments.get("name").and_then(Value::as_str).unwrap_or_default();
        match runs::find(self.state, project, name) {
            Some(run) => Ok(runs::value(run)),
            None if arguments.get("missingOk") == Some(&json!(true)) => Ok(Value::Null),
            None => Err(Refusal::new(404, format!("could not find run {ENTITY}/{project}/{name}"))),
        }
    }

    fn sweep_of(&self, parent: &Value, name: &str) -> Value {
        let sweeps = &self.state.wandb.sweeps;
        let is_it = |sweep: &sweeps::Sweep| json!(sweep.project) == parent["name"] && sweep.name == name;
        let index = sweeps.iter().position(is_it);
        index.map_or(Value::Null, |index| sweeps::value(self.state, index, self.now))
    }
}

fn viewer() -> Value {
    json!({
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
    fn only_what_is_selected_leaves() {
        check("{ viewer { name: entity __typename } }", 200, {
            json!({ "data": { "viewer": { "name": "rehearsal", "__typename": "User" } } })
        });
        check(
            "{ project { run(name: \"a\") { ...F } } } fragment F on Run { state stopped project { name } }",
            200,
            {
                let run = json!({ "state": "running", "stopped": false, "project": { "name": "rehearsal" } });
                json!({ "data": { "project": { "run": run } } })
            },
        );
        check("{ serverInfo { features { isEnabled } } }", 200, {
            json!({ "data": { "serverInfo": { "features": [{ "isEnabled": false }] } } })
        });
        check("{ project(name: \"other\") { id } }", 200, json!({ "data": { "project": null } }));
        check("{ model { bucket(name: \"b\", missingOk: true) { id } } }", 200, {
            json!({ "data": { "model": { "bucket": null } } })
        });
    }

    #[test]
    fn errors_have_the_service_s_shape() {
        check("{ nobody }", 400, {
            json!({ "errors": [{ "message": "Cannot query field \"nobody\" on type \"Query\"." }] })
        });
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
    fn a_body_that_is_no_request_is_refused_and_its_client_accused() {
        for (body, expected) in [
            (json!([]), "POST body is no object."),
            (json!({}), "Must provide query string."),
            (json!({ "query": "{ viewer { id } }", "more": 1 }), "unknown field `more` in the body"),
            (json!({ "query": "{ viewer { id } }", "variables": 1 }), "Variables are invalid JSON."),
            (json!({ "query": "{ viewer { id } }", "operationName": "x" }), "Unknown operation named \"x\"."),
        ] {
            let mut state = State::default();
            let (status, answer) = ask(&mut state, &body, Access::Granted);
            assert_eq!((status, &answer["errors"][0]["message"]), (400, &json!(expected)));
            assert_eq!(state.violations, [format!("graphql: {expected}")]);
        }
    }
}
