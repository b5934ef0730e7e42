//! Events, metrics and checkpoints of a job, as the API writes them and as faults change them.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::course::{self, Event, Row, Values};
use crate::faults::{Faults, chance};
use crate::jobs::{job, object_id, output_name, time_of};
use crate::reply::{Handled, Reply};
use crate::request::{Now, Request};
use crate::state::{Job, State};

pub fn events(state: &State, id: &str, now: Now) -> Handled {
    let job = job(state, id)?;
    let happened = course::events(&job.plan, job.seconds(now));
    let mut events: Vec<Value> =
        happened.iter().enumerate().map(|(index, event)| event_value(job, index, event)).collect();
    spoil(&mut events, &state.script.faults);
    Ok(Reply::ok(&json!({ "data": events })))
}

fn event_value(job: &Job, index: usize, event: &Event) -> Value {
    let level = if event.kind.ends_with("ERROR") { "Error" } else { "Info" };
    let path = match event.kind {
        "CHECKPOINT_SAVE" => format!("s3://rehearsal/{}/checkpoints/{}", job.id, event.step),
        _ => String::new(),
    };
    json!({
        "object": "fine-tune-event",
        "created_at": time_of(job, event.second).to_string(),
        "level": level,
        "message": event.message,
        "type": event.kind,
        "step": event.step,
        "total_steps": if event.step > 0 { job.plan.steps } else { 0 },
        "token_count": 0,
        "param_count": 0,
        "wandb_url": "",
        "checkpoint_path": path,
        "model_path": "",
        "training_offset": 0,
        "hash": format!("{}-{index}", &job.id[3..11]),
    })
}

/// Doubles and shuffles, always in the same way.
fn spoil(events: &mut Vec<Value>, faults: &Faults) {
    if faults.double_events {
        *events = events.iter().flat_map(|event| [event.clone(), event.clone()]).collect();
    }
    if faults.shuffle_events {
        for index in (1..events.len()).rev() {
            let other = chance(&[faults.seed, index as u64]) * (index + 1) as f64;
            events.swap(index, other as usize);
        }
    }
}

pub fn metrics(state: &State, request: &Request, id: &str, now: Now) -> Handled {
    let job = job(state, id)?;
    let known = ["global_step_from", "global_step_to", "logged_at_from", "logged_at_to", "resolution"];
    if let Some((name, _)) = request.query.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(Reply::unknown(name));
    }
    // Bounds are inclusive.
    let steps: [Option<u64>; 2] = [parsed(request, "global_step_from")?, parsed(request, "global_step_to")?];
    let times: [Option<Timestamp>; 2] =
        [parsed(request, "logged_at_from")?, parsed(request, "logged_at_to")?];
    let resolution: Option<usize> = parsed(request, "resolution")?;
    let mut rows = course::rows(&job.plan, job.seconds(now));
    rows.retain(|row| is_within(steps, row.step) && is_within(times, time_of(job, row.second)));
    let train = rows.iter().filter(|row| matches!(row.values, Values::Train { .. })).count();
    if let Some(resolution) = resolution.filter(|resolution| *resolution < train) {
        let mut index = 0;
        rows.retain(|row| {
            let is_eval = matches!(row.values, Values::Eval { .. });
            index += usize::from(!is_eval);
            // The rows at which the scaled number grows are evenly spread.
            is_eval || index * resolution / train > (index - 1) * resolution / train
        });
    }
    let has_nan = state.script.faults.nan_metrics;
    let values: Vec<Value> = rows.iter().map(|row| row_value(job, row, has_nan)).collect();
    let mut text = json!({ "metrics": values }).to_string();
    for word in ["-Infinity", BARE_NAN] {
        // As Python's `json` writes them, which is no JSON.
        text = text.replace(&format!("\"{word}\""), word.trim());
    }
    Ok(Reply::bytes(200, "application/json", text.into_bytes()))
}

/// A loss that is written without quotes.
const BARE_NAN: &str = "NaN ";

fn is_within<T: PartialOrd>([from, to]: [Option<T>; 2], value: T) -> bool {
    from.is_none_or(|from| value >= from) && to.is_none_or(|to| value <= to)
}

fn parsed<T: std::str::FromStr>(request: &Request, name: &str) -> Result<Option<T>, Reply> {
    let wrong = |text: &str| Reply::field(name, format!("`{name}` cannot be `{text}`"));
    request.query(name).map(|text| text.parse().map_err(|_| wrong(text))).transpose()
}

fn row_value(job: &Job, row: &Row, has_nan: bool) -> Value {
    // A number above 2^53: whoever reads it as a float loses its end.
    let timestamp = time_of(job, row.second).as_nanosecond() as i64;
    match row.values {
        Values::Train { epoch, loss, grad_norm, learning_rate } => json!({
            "timestamp": timestamp,
            "train/global_step": row.step,
            "train/epoch": epoch,
            "train/loss": match row.step % 5 {
                1 if has_nan => json!(BARE_NAN),
                2 if has_nan => Value::Null,
                3 if has_nan => json!("-Infinity"),
                4 if has_nan => json!("NaN"),
                _ => json!(loss),
            },
            "train/grad_norm": grad_norm,
            "train/learning_rate": learning_rate,
        }),
        Values::Eval { loss } => {
            json!({ "timestamp": timestamp, "train/global_step": row.step, "eval/loss": loss })
        }
    }
}

pub fn checkpoints(state: &State, id: &str, now: Now) -> Handled {
    let job = job(state, id)?;
    let saved = course::checkpoints(&job.plan, job.seconds(now));
    let mut values = Vec::new();
    for checkpoint in saved.iter().rev() {
        let mut add = |label: &str, kind: &str| {
            let name = if checkpoint.is_final { "Final" } else { "Intermediate" };
            values.push(json!({
                "step": checkpoint.step,
                "created_at": time_of(job, checkpoint.second).to_string(),
                "path": format!("s3://rehearsal/{}/checkpoints/{}/{kind}", job.id, checkpoint.step),
                "checkpoint_type": format!("{name}{label} (step {})", checkpoint.step),
                "checkpoint": kind,
                "object_id": object_id(job, if kind == "adapter" { "ml_a" } else { "ml_" }),
                "object_name": output_name(job),
                "object_revision_id": object_id(job, "rv_"),
            }));
        };
        match (job.order.is_lora(), checkpoint.is_final) {
            (true, true) if !job.order.gives_adapter_only() => {
                add(" Merged", "model");
                add(" Adapter", "adapter");
            }
            (true, _) => add(" Adapter", "adapter"),
            (false, _) => add("", "model"),
        }
    }
    Ok(Reply::ok(&json!({ "data": values })))
}
