//! Fine-tuning jobs: price, creation, and what the API tells of them.
//!
//! Separate from their course, which knows no JSON, and from what a create body may say. A job
//! is stored as a plan and a moment; everything else is computed when somebody asks.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::Prices;
use crate::course::{self, Moment, Outcome, Plan};
use crate::faults::chance;
use crate::models;
use crate::order::{Order, Parent, order};
use crate::reply::Reply;
use crate::state::{Job, Now, Request, State};

/// Nano-dollars a token: $0.48 a million.
const NANO_DOLLARS_PER_TOKEN: u64 = 480;

/// What the account may spend on one job, in dollars.
const USER_LIMIT: f64 = 100.0;

/// Bytes a token.
const BYTES_PER_TOKEN: u64 = 4;

/// The least steps an epoch: a small rehearsal still shows a curve.
const MIN_STEPS_PER_EPOCH: u64 = 10;

/// The most steps of a job.
const MAX_STEPS: u64 = 5000;

/// `POST /v1/fine-tunes/estimate-price`.
///
/// # Errors
/// When a file or a field is not known.
pub fn estimate(state: &State, body: &Value, now: Now) -> Result<Reply, Reply> {
    let known = ["training_file", "validation_file", "model", "from_checkpoint", "n_epochs", "n_evals"];
    let nested = ["training_method", "training_type"];
    let Some(fields) = body.as_object() else { return Err(Reply::error(400, "the body is no JSON object")) };
    let is_known = |name: &String| known.contains(&name.as_str()) || nested.contains(&name.as_str());
    if let Some(name) = fields.keys().find(|name| !is_known(name)) {
        return Err(Reply::field(name, format!("`{name}` is not known")));
    }
    let text = |name: &str| body[name].as_str().filter(|text| !text.is_empty());
    let train =
        text("training_file").ok_or_else(|| Reply::field("training_file", "`training_file` is missing"))?;
    if let Some(model) = text("model").filter(|model| models::find(model).is_none()) {
        return Err(Reply::field("model", format!("model `{model}` is not available for fine-tuning")));
    }
    let mut tokens = [0, 0];
    let roles = [("train", Some(train), "n_epochs", 1), ("eval", text("validation_file"), "n_evals", 0)];
    for (index, (role, id, factor, absent)) in roles.into_iter().enumerate() {
        let Some(id) = id else { continue };
        let missing = || Reply::error(400, format!("{role} file `{id}` does not exist"));
        let file = state.file(id).ok_or_else(missing)?;
        let reason = match file.status(now) {
            Some("COMPLETED") => None,
            Some("INVALID_FORMAT") => Some(format!("{role}_file_invalid")),
            _ => Some(format!("{role}_file_not_validated")),
        };
        if let Some(reason) = reason {
            let answer = json!({ "estimation_available": false, "unavailable_reason": reason });
            return Ok(Reply::json(200, &answer));
        }
        tokens[index] = tokens_of(state, id) * body[factor].as_u64().unwrap_or(absent);
    }
    let price = whole_price(state, fields, tokens[0] + tokens[1]) as f64 / 1e9;
    Ok(Reply::json(
        200,
        &json!({
            "estimation_available": true,
            "estimated_total_price": price,
            "estimated_train_token_count": tokens[0],
            "estimated_eval_token_count": tokens[1],
            "user_limit": USER_LIMIT,
            "allowed_to_proceed": price < USER_LIMIT,
        }),
    ))
}

fn tokens_of(state: &State, id: &str) -> u64 {
    let stored = state.file(id).and_then(|file| file.stored.as_ref());
    stored.map_or(0, |stored| (stored.bytes / BYTES_PER_TOKEN).max(1))
}

/// `POST /v1/fine-tunes`.
///
/// # Errors
/// When the body, a file or a value is not one that can be trained with.
pub fn create(state: &mut State, body: &Value, now: Now) -> Result<Reply, Reply> {
    let parent = |checkpoint: &str| {
        let name = checkpoint.split(':').next().unwrap_or_default();
        let is_parent = |job: &&Job| job.id == name || output_name(job) == name;
        let found = state.jobs.iter().find(is_parent)?;
        Some(Parent { model: found.order.model, training_type: found.order.training_type.clone() })
    };
    let order = order(body, parent)?;
    check_file(state, &order.training_file, "training_file", now)?;
    if let Some(id) = &order.validation_file {
        check_file(state, id, "validation_file", now)?;
    }
    let id = state.next_id("ft-");
    let plan = plan(state, &order, &id);
    let eval_tokens = order.validation_file.as_ref().map_or(0, |file| tokens_of(state, file));
    let tokens = tokens_of(state, &order.training_file) * order.epochs + eval_tokens * order.evals;
    let nano_dollars = whole_price(state, &order.fields, tokens);
    let job = Job { id, order, plan, created: now, tokens, nano_dollars };
    let reply = Reply::json(200, &value(state, &job, now, Detail::Truncated));
    state.jobs.push(job);
    state.jobs_created += 1;
    Ok(reply)
}

/// Nano-dollars of a whole job, the same for the body of its estimate and for that of its creation.
fn whole_price(state: &State, fields: &Map<String, Value>, tokens: u64) -> u64 {
    let Prices::Random(seed) = state.script.prices else { return tokens * NANO_DOLLARS_PER_TOKEN };
    let asked = ["model", "from_checkpoint", "n_epochs", "n_evals", "training_method", "training_type"];
    let asked: Vec<Option<&Value>> = asked.iter().map(|name| fields.get(*name)).collect();
    let digest = Sha256::digest(json!(asked).to_string());
    let word = digest.iter().take(8).fold(0, |word: u64, byte| word << 8 | u64::from(*byte));
    1_000_000_000 + (chance(&[seed, word]) * 19e9) as u64
}

fn check_file(state: &State, id: &str, field: &str, now: Now) -> Result<(), Reply> {
    let Some(file) = state.file(id).filter(|file| file.stored.is_some()) else {
        return Err(Reply::field(field, format!("file `{id}` does not exist")));
    };
    if file.announced.purpose != "fine-tune" {
        let message = format!("file `{id}` has the purpose `{}`, not `fine-tune`", file.announced.purpose);
        return Err(Reply::field(field, message));
    }
    match file.status(now) {
        Some("INVALID_FORMAT") => Err(Reply::field(field, format!("file `{id}` has an invalid format"))),
        None => Err(Reply::field(field, format!("file `{id}` was never processed"))),
        Some(_) => Ok(()),
    }
}

fn plan(state: &State, order: &Order, id: &str) -> Plan {
    let verdict = |id: &str| Some(state.file(id)?.stored.as_ref()?.verdict.clone());
    let files = [Some(&order.training_file), order.validation_file.as_ref()];
    // A file may still be pending now, and turn out unfit.
    let is_unfit = |id: &&String| verdict(id).is_some_and(|verdict| verdict.error.is_some());
    let samples = verdict(&order.training_file).map_or(0, |verdict| verdict.samples);
    let steps = samples.div_ceil(order.batch_size).max(MIN_STEPS_PER_EPOCH) * order.epochs;
    let digits = id.bytes().filter(u8::is_ascii_hexdigit);
    Plan {
        seconds: state.script.job_seconds,
        steps: steps.min(MAX_STEPS),
        epochs: order.epochs,
        evals: order.evals,
        checkpoints: order.checkpoints,
        learning_rate: order.learning_rate,
        warmup_ratio: order.warmup_ratio,
        outcome: if files.iter().flatten().any(is_unfit) { Outcome::UserError } else { state.script.outcome },
        cancelled: None,
        seed: digits.fold(7, |seed: u64, digit| seed.wrapping_mul(31).wrapping_add(u64::from(digit))),
    }
}

/// How much of a job is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Truncated,
    Full,
}

/// `GET /v1/fine-tunes`.
pub fn list(state: &State, now: Now) -> Reply {
    let is_listed = |job: &&Job| now.seconds_since(job.created.elapsed) >= state.script.listing_seconds;
    let jobs: Vec<Value> =
        state.jobs.iter().filter(is_listed).map(|job| value(state, job, now, Detail::Truncated)).collect();
    Reply::json(200, &json!({ "data": jobs }))
}

/// `GET /v1/fine-tunes/{id}`.
///
/// # Errors
/// When there is none.
pub fn get(state: &State, id: &str, now: Now) -> Result<Reply, Reply> {
    Ok(Reply::json(200, &value(state, job(state, id)?, now, Detail::Full)))
}

/// `POST /v1/fine-tunes/{id}/cancel`.
///
/// # Errors
/// When there is none, or it is over.
pub fn cancel(state: &mut State, id: &str, now: Now) -> Result<Reply, Reply> {
    let known = job(state, id)?;
    let seconds = now.seconds_since(known.created.elapsed);
    let status = course::moment(&known.plan, seconds).status;
    if course::is_terminal(status) || status == "cancel_requested" {
        return Err(Reply::error(400, format!("job {id} is {status} and cannot be cancelled")));
    }
    if let Some(job) = state.jobs.iter_mut().find(|job| job.id == id) {
        job.plan.cancelled = Some(seconds);
    }
    Ok(Reply::json(200, &value(state, job(state, id)?, now, Detail::Truncated)))
}

/// `DELETE /v1/fine-tunes/{id}`.
///
/// # Errors
/// When there is none, or it is not over.
pub fn delete(state: &mut State, id: &str, now: Now) -> Result<Reply, Reply> {
    let known = job(state, id)?;
    let status = course::moment(&known.plan, now.seconds_since(known.created.elapsed)).status;
    if !course::is_terminal(status) {
        return Err(Reply::error(400, format!("job {id} is {status}: cancel it first")));
    }
    state.jobs.retain(|job| job.id != id);
    Ok(Reply::json(200, &json!({ "message": format!("job {id} deleted") })))
}

/// The job of this id.
///
/// # Errors
/// The reply that there is none.
pub fn job<'s>(state: &'s State, id: &str) -> Result<&'s Job, Reply> {
    state.job(id).ok_or_else(|| Reply::error(404, format!("job {id} not found")))
}

/// The name that the job's model gets.
pub fn output_name(job: &Job) -> String {
    let base = job.order.model.name.rsplit('/').next().unwrap_or_default();
    let suffix = job.order.fields.get("suffix").and_then(Value::as_str).filter(|text| !text.is_empty());
    let hash = &job.id[3..11];
    match suffix {
        Some(suffix) => format!("rehearsal/{base}-{suffix}-{hash}"),
        None => format!("rehearsal/{base}-{hash}"),
    }
}

/// The moment of a second of the job.
pub fn time_of(job: &Job, second: f64) -> jiff::Timestamp {
    let duration = jiff::SignedDuration::try_from_secs_f64(second).unwrap_or_default();
    job.created.time.checked_add(duration).unwrap_or(job.created.time)
}

fn value(state: &State, job: &Job, now: Now, detail: Detail) -> Value {
    let seconds = now.seconds_since(job.created.elapsed);
    let moment = course::moment(&job.plan, seconds);
    let mut fields = echoed(job);
    let mut put = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    put("id", json!(job.id));
    put("status", json!(status(state, job, seconds)));
    put("user_id", json!("user-rehearsal"));
    put("owner_address", json!("rehearsal"));
    put("created_at", json!(job.created.time.to_string()));
    put("updated_at", json!(now.time.to_string()));
    put("model_output_name", json!(output_name(job)));
    put("token_count", json!(if moment.training_seconds.is_some() { job.tokens } else { 0 }));
    put("total_price", json!(price(job, &moment)));
    put("events", json!([]));
    if let Some(training) = moment.training_seconds {
        put("started_at", json!(time_of(job, course::start(&job.plan)).to_string()));
        let is_open = !course::is_terminal(moment.status);
        let remaining = training.ceil() as i64;
        put("progress", json!({ "estimate_available": is_open, "seconds_remaining": remaining }));
    } else {
        put("progress", json!({ "estimate_available": false, "seconds_remaining": 0 }));
    }
    if detail == Detail::Full {
        add_details(&mut fields, state, job, &moment);
    }
    for name in &state.script.faults.omit {
        fields.shift_remove(name);
    }
    Value::Object(fields)
}

/// What the body said, with the defaults for what it did not say.
fn echoed(job: &Job) -> Map<String, Value> {
    let order = &job.order;
    let mut fields = order.fields.clone();
    let defaults = [
        ("model", json!(order.model.name)),
        ("validation_file", json!("")),
        ("n_epochs", json!(order.epochs)),
        ("n_evals", json!(order.evals)),
        ("n_checkpoints", json!(order.checkpoints)),
        ("learning_rate", json!(order.learning_rate)),
        ("warmup_ratio", json!(order.warmup_ratio)),
        ("packing", json!(true)),
        ("random_seed", json!(42)),
        ("suffix", json!("")),
        ("training_method", json!({ "method": "sft", "train_on_inputs": "auto" })),
        ("training_type", order.training_type.clone()),
    ];
    for (name, value) in defaults {
        fields.entry(name.to_owned()).or_insert(value);
    }
    fields.insert("batch_size".to_owned(), json!(order.batch_size));
    fields
}

fn add_details(fields: &mut Map<String, Value>, state: &State, job: &Job, moment: &Moment) {
    let stored = state.file(&job.order.training_file).and_then(|file| file.stored.as_ref());
    let mut put = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    put("job_id", json!(job.id));
    put("queue_depth", json!(moment.queue_depth));
    put("param_count", json!(job.order.model.parameters));
    put("epochs_completed", json!(moment.epochs));
    put("eval_steps", json!(job.plan.steps.checked_div(job.order.evals).unwrap_or(0)));
    put("trainingfile_numlines", json!(stored.map_or(0, |stored| stored.verdict.samples)));
    put("trainingfile_size", json!(stored.map_or(0, |stored| stored.bytes)));
    put("total_steps", json!(job.plan.steps));
    put("steps_completed", json!(moment.step));
    if moment.status == "completed" {
        if !job.order.gives_adapter_only() {
            put("model_object_id", json!(object_id(job, "ml_")));
            put("model_object_name", json!(output_name(job)));
            put("model_object_revision_id", json!(object_id(job, "rv_")));
            put("model_output_path", json!(format!("s3://rehearsal/{}/model", job.id)));
        }
        if job.order.is_lora() {
            put("adapter_object_id", json!(object_id(job, "ml_a")));
            put("adapter_object_name", json!(format!("{}-adapter", output_name(job))));
        }
    }
}

/// An id of the model registry that belongs to the job.
pub fn object_id(job: &Job, prefix: &str) -> String {
    format!("{prefix}{}", job.id[3..].replace('-', ""))
}

/// Nano-dollars for what was trained so far.
fn price(job: &Job, moment: &Moment) -> u64 {
    let part = u128::from(job.nano_dollars) * u128::from(moment.step) / u128::from(job.plan.steps.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// The status, or the undocumented one that the script puts in its place.
fn status(state: &State, job: &Job, seconds: f64) -> String {
    let regular = course::moment(&job.plan, seconds).status;
    let latest = state.script.faults.statuses.iter().rfind(|(second, _)| *second <= seconds);
    match latest {
        Some((second, odd)) if course::moment(&job.plan, *second).status == regular => odd.clone(),
        _ => regular.to_owned(),
    }
}

/// `GET /v1/fine-tunes/models/limits`, whose model may also be named by a checkpoint of ours.
///
/// # Errors
/// When no model is named.
pub fn limits(state: &State, request: &Request) -> Result<Reply, Reply> {
    let name =
        request.query("model_name").ok_or_else(|| Reply::field("model_name", "`model_name` is missing"))?;
    let is_named = |job: &&Job| job.id == name || output_name(job) == name;
    Ok(match state.jobs.iter().find(is_named) {
        Some(job) => models::limits(job.order.model.name),
        None => models::limits(name),
    })
}
