//! `file_stream`: lines at their offsets, the summary, the end of a run.
//!
//! A body that does not fit is refused as a whole, and is a violation: a line that is no JSON, a gap, a step
//! that does not rise, an unknown field.

use serde_json::{Map, Value, json};

use crate::reply::Reply;
use crate::request::{Now, Request};
use crate::state::State;
use crate::state::wandb::Run;
use crate::wandb::ids::ENTITY;

const HISTORY: &str = "wandb-history.jsonl";
const SUMMARY: &str = "wandb-summary.json";
const EVENTS: &str = "wandb-events.jsonl";
const LOG: &str = "output.log";

/// Carries out a request to the stream of the run of this entity, project and name.
pub fn stream(state: &mut State, request: &Request, [entity, project, name]: [&str; 3], now: Now) -> Reply {
    let is_it = |run: &&mut Run| entity == ENTITY && run.shown.project == project && run.shown.name == name;
    let Some(run) = state.wandb.runs.iter_mut().find(is_it) else {
        let message = format!("run {entity}/{project}/{name} not found");
        return Reply::json(404, &json!({ "error": message }));
    };
    run.shown.requests += 1;
    run.heartbeat = now.time;
    match parse(request).and_then(|body| apply(run, &body)) {
        Ok(()) if run.is_stopped || state.script.wandb_stop => Reply::ok(&json!({ "stopped": true })),
        Ok(()) => Reply::ok(&json!({})),
        Err(breach) => {
            state.record_violation(format!("file_stream of {name}: {breach}"));
            Reply::json(400, &json!({ "error": breach }))
        }
    }
}

fn parse(request: &Request) -> Result<Map<String, Value>, String> {
    if let Some(encoding) = request.head.header("content-encoding") {
        return Err(format!("content encoding `{encoding}`: the server said that it takes none"));
    }
    let content_type = request.head.header("content-type").unwrap_or_default();
    if !content_type.starts_with("application/json") {
        return Err(format!("content type `{content_type}` is not application/json"));
    }
    match serde_json::from_slice(&request.body.kept) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err("the body is no object".to_owned()),
        Err(error) => Err(format!("the body is no JSON: {error}")),
    }
}

fn apply(run: &mut Run, body: &Map<String, Value>) -> Result<(), String> {
    let mut changed = run.clone();
    let mut exit_code = None;
    let mut is_complete = false;
    for (name, value) in body {
        match (name.as_str(), value) {
            ("files", Value::Object(files)) => {
                for (file, chunk) in files {
                    apply_file(&mut changed, file, chunk).map_err(|why| format!("{file}: {why}"))?;
                }
            }
            ("uploaded", Value::Array(names)) if names.iter().all(Value::is_string) => {
                let has_arrived = |name: &&Value| changed.shown.files.iter().any(|file| *name == file);
                if let Some(absent) = names.iter().find(|name| !has_arrived(name)) {
                    return Err(format!("`uploaded` names {absent}, which has not arrived"));
                }
            }
            ("preempting", Value::Bool(true)) => changed.shown.state = "preempting".to_owned(),
            ("preempting", Value::Bool(false)) => {}
            ("complete", Value::Bool(complete)) => is_complete = *complete,
            ("exitcode", Value::Number(code)) if code.is_i64() => exit_code = code.as_i64(),
            ("files" | "uploaded" | "preempting" | "complete" | "exitcode", _) => {
                return Err(format!("`{name}` is {value}"));
            }
            _ => return Err(format!("unknown field `{name}`")),
        }
    }
    match (is_complete, exit_code) {
        (true, None) => return Err("`complete` without `exitcode`".to_owned()),
        (false, Some(_)) => return Err("`exitcode` without `complete`".to_owned()),
        (true, Some(code)) => {
            changed.shown.exit_code = Some(code);
            changed.shown.state = if code == 0 { "finished" } else { "failed" }.to_owned();
        }
        // More lines resume a run that has ended, and begin one that was pending.
        (false, None) if changed.shown.state != "preempting" => {
            changed.shown.exit_code = None;
            changed.shown.state = "running".to_owned();
        }
        (false, None) => {}
    }
    *run = changed;
    Ok(())
}

fn apply_file(run: &mut Run, file: &str, chunk: &Value) -> Result<(), String> {
    let fields = chunk.as_object().ok_or("not an object")?;
    if let Some(strange) = fields.keys().find(|name| !["offset", "content"].contains(&name.as_str())) {
        return Err(format!("unknown field `{strange}`"));
    }
    let offset = fields.get("offset").and_then(Value::as_u64).ok_or("`offset` is no line number")?;
    let offset = usize::try_from(offset).map_err(|error| error.to_string())?;
    let content = fields.get("content").and_then(Value::as_array).ok_or("`content` is no list")?;
    let lines = content.iter().map(|line| line.as_str().map(str::to_owned));
    let lines: Vec<String> = lines.collect::<Option<_>>().ok_or("a line of `content` is no string")?;
    match file {
        HISTORY => {
            let history = &mut run.shown.history;
            put(history, offset, rows(&lines)?)?;
            check_steps(&history[offset.saturating_sub(1)..])
        }
        EVENTS => put(&mut run.events, offset, rows(&lines)?),
        LOG => put(&mut run.shown.log, offset, lines),
        SUMMARY => {
            run.shown.summary = rows(&lines)?.pop().ok_or("no line")?;
            Ok(())
        }
        _ => Err("unknown file".to_owned()),
    }
}

fn rows(lines: &[String]) -> Result<Vec<Value>, String> {
    let row = |line: &String| match read_json(line) {
        Ok(row) if row.is_object() => Ok(row),
        Ok(_) => Err(format!("the line is no object: {line}")),
        Err(error) => Err(format!("the line is no JSON: {error}: {line}")),
    };
    lines.iter().map(row).collect()
}

/// Writes `lines` from `offset` on, over what is there.
fn put<T>(file: &mut Vec<T>, offset: usize, lines: Vec<T>) -> Result<(), String> {
    if offset > file.len() {
        return Err(format!("a gap: offset {offset} after {} lines", file.len()));
    }
    let end = (offset + lines.len()).min(file.len());
    file.splice(offset..end, lines);
    Ok(())
}

fn check_steps(history: &[Value]) -> Result<(), String> {
    let mut last = None;
    for row in history {
        let step = row["_step"].as_i64();
        if step.is_some() && step <= last {
            return Err(format!("`_step` does not rise: {row}"));
        }
        last = step.or(last);
    }
    Ok(())
}

/// JSON as Python writes it: `NaN` and the infinities become strings.
pub fn read_json(text: &str) -> Result<Value, serde_json::Error> {
    let mut json = String::with_capacity(text.len());
    let mut is_string = false;
    for part in text.split_inclusive('"') {
        if is_string {
            json.push_str(part);
            let inside = part.strip_suffix('"').unwrap_or(part);
            let backslashes = inside.len() - inside.trim_end_matches('\\').len();
            is_string = backslashes % 2 == 1;
        } else {
            let words = part.replace("NaN", "\"NaN\"").replace("Infinity", "\"Infinity\"");
            json.push_str(&words.replace("-\"Infinity\"", "\"-Infinity\""));
            is_string = true;
        }
    }
    serde_json::from_str(&json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wandb::WandbRun;

    /// What the bodies make of a run, or the first refusal.
    fn run_of(bodies: &[Value]) -> Result<WandbRun, String> {
        let mut run = Run::default();
        run.shown.state = "pending".to_owned();
        for body in bodies {
            apply(&mut run, body.as_object().unwrap())?;
        }
        Ok(run.shown)
    }

    fn history(offset: usize, steps: &[i64]) -> Value {
        let content: Vec<String> = steps.iter().map(|step| json!({ "_step": step }).to_string()).collect();
        json!({ "files": { HISTORY: { "offset": offset, "content": content } } })
    }

    #[track_caller]
    fn check_refused(bodies: &[Value], expected: &str) {
        let refusal = run_of(bodies).unwrap_err();
        assert!(refusal.contains(expected), "{refusal}");
    }

    #[test]
    fn lines_are_written_at_their_offset_and_over_what_is_there() {
        let run = run_of(&[history(0, &[0, 1]), history(2, &[2]), history(1, &[1, 2, 3])]).unwrap();
        let steps: Vec<Value> = (0..4).map(|step| json!({ "_step": step })).collect();
        assert_eq!(run.history, steps);
        assert_eq!(run.state, "running");
    }

    #[test]
    fn a_body_that_comes_twice_changes_nothing() {
        let bodies = [history(0, &[0, 1]), history(2, &[2])];
        let once = run_of(&bodies).unwrap();
        let twice =
            run_of(&[bodies[0].clone(), bodies[0].clone(), bodies[1].clone(), bodies[1].clone()]).unwrap();
        assert_eq!(once.history, twice.history);
    }

    #[test]
    fn a_gap_or_a_step_that_does_not_rise_is_refused() {
        check_refused(&[history(1, &[0])], "a gap: offset 1 after 0 lines");
        check_refused(&[history(0, &[0, 1]), history(3, &[3])], "a gap: offset 3 after 2 lines");
        check_refused(&[history(0, &[1, 1])], "`_step` does not rise");
        check_refused(&[history(0, &[5]), history(1, &[4])], "`_step` does not rise");
    }

    #[test]
    fn what_is_unknown_or_of_another_type_is_refused() {
        check_refused(&[json!({ "dropped": 1 })], "unknown field `dropped`");
        check_refused(&[json!({ "complete": 1 })], "`complete` is 1");
        check_refused(&[json!({ "uploaded": ["x"] })], "`uploaded` names \"x\", which has not arrived");
        check_refused(&[json!({ "complete": true })], "`complete` without `exitcode`");
        check_refused(&[json!({ "exitcode": 0 })], "`exitcode` without `complete`");
        let file = |chunk: Value| json!({ "files": { HISTORY: chunk } });
        check_refused(&[file(json!({ "offset": 0, "content": [{}] }))], "is no string");
        check_refused(&[file(json!({ "offset": 0, "content": ["[]"] }))], "the line is no object");
        check_refused(&[file(json!({ "offset": 0, "content": ["{"] }))], "the line is no JSON");
        check_refused(&[file(json!({ "offset": -1, "content": [] }))], "`offset` is no line number");
        check_refused(&[file(json!({ "offset": 0 }))], "`content` is no list");
        check_refused(&[file(json!({ "offset": 0, "content": [], "more": 1 }))], "unknown field `more`");
        check_refused(
            &[json!({ "files": { "x.txt": { "offset": 0, "content": [] } } })],
            "x.txt: unknown file",
        );
    }

    #[test]
    fn a_refused_body_changes_nothing() {
        let mut run = Run::default();
        apply(&mut run, history(0, &[0]).as_object().unwrap()).unwrap();
        let mut body = history(1, &[1]);
        body["exitcode"] = json!(0);
        apply(&mut run, body.as_object().unwrap()).unwrap_err();
        assert_eq!(run.shown.history.len(), 1);
    }

    #[test]
    fn the_end_is_as_the_exit_code_says_and_more_lines_undo_it() {
        let end = |code: i64| json!({ "complete": true, "exitcode": code });
        assert_eq!(run_of(&[end(0)]).unwrap().state, "finished");
        let failed = run_of(&[end(0), end(3)]).unwrap();
        assert_eq!((failed.state.as_str(), failed.exit_code), ("failed", Some(3)));
        let again = run_of(&[end(1), history(0, &[0])]).unwrap();
        assert_eq!((again.state.as_str(), again.exit_code), ("running", None));
    }

    #[test]
    fn numbers_that_json_lacks_are_read_from_python() {
        let content = json!([r#"{"_step": 0, "loss": NaN}"#]);
        let run = run_of(&[json!({ "files": { HISTORY: { "offset": 0, "content": content } } })]).unwrap();
        assert_eq!(run.history, [json!({ "_step": 0, "loss": "NaN" })]);
    }

    #[test]
    fn numbers_that_json_lacks_become_strings() {
        let check = |text: &str, expected: Value| assert_eq!(read_json(text).unwrap(), expected);
        check(
            r#"{"a": NaN, "b": [-Infinity, Infinity, 1]}"#,
            json!({ "a": "NaN", "b": ["-Infinity", "Infinity", 1] }),
        );
        check(
            r#"{"NaN": "is NaN \" NaN \\", "é": NaN, "": ""}"#,
            json!({ "NaN": "is NaN \" NaN \\", "é": "NaN", "": "" }),
        );
        assert!(read_json("{\"a\": nan}").is_err());
    }
}
