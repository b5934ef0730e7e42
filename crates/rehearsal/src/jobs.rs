//! Fine-tuning jobs: price, creation, and what the API tells of them.
//!
//! A job is stored as a plan and a moment; everything else is computed when somebody asks.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::course::{self, Moment, Outcome, Plan};
use crate::faults::chance;
use crate::order::{Order, Parent, order};
use crate::reply::{Handled, Reply};
use crate::request::{Now, Request, only};
use crate::state::{Job, State};
use crate::{Prices, models};

const NANO_DOLLARS_PER_TOKEN: u64 = 480;
const BYTES_PER_TOKEN: u64 = 4;
/// What the account may spend on one job, in dollars.
const USER_LIMIT: f64 = 100.0;
/// The least steps an epoch: a small rehearsal still shows a curve.
const MIN_STEPS_PER_EPOCH: u64 = 10;
const MAX_STEPS: u64 = 5000;

/// The fields of a creation that decide its price, which are those of an estimate beside the files.
const PRICED: [&str; 6] =
    ["model", "from_checkpoint", "n_epochs", "n_evals", "training_method", "training_type"];

pub fn estimate(state: &State, body: &Value, now: Now) -> Handled {
    only(body, &[&PRICED[..], &["training_file", "validation_file"]].concat())?;
    let text = |name: &str| body[name].as_str().filter(|text| !text.is_empty());
    let train = text("training_file").ok_or_else(|| Reply::missing("training_file"))?;
    text("model").map(models::find).transpose()?;
    for (role, id) in [("train", Some(train)), ("eval", text("validation_file"))] {
        let Some(id) = id else { continue };
        let missing = || Reply::error(400, format!("{role} file `{id}` does not exist"));
        let reason = match state.file(id).ok_or_else(missing)?.status(now) {
            Some("COMPLETED") => continue,
            Some("INVALID_FORMAT") => format!("{role}_file_invalid"),
            _ => format!("{role}_file_not_validated"),
        };
        return Ok(Reply::ok(&json!({ "estimation_available": false, "unavailable_reason": reason })));
    }
    let train_tokens = tokens_of(state, train) * body["n_epochs"].as_u64().unwrap_or(1);
    let eval_tokens = text("validation_file").map_or(0, |file| tokens_of(state, file));
    let eval_tokens = eval_tokens * body["n_evals"].as_u64().unwrap_or(0);
    let price = whole_price(state, body, train_tokens + eval_tokens) as f64 / 1e9;
    Ok(Reply::ok(&json!({
        "estimation_available": true,
        "estimated_total_price": price,
        "estimated_train_token_count": train_tokens,
        "estimated_eval_token_count": eval_tokens,
        "user_limit": USER_LIMIT,
        "allowed_to_proceed": price < USER_LIMIT,
    })))
}

fn tokens_of(state: &State, id: &str) -> u64 {
    let stored = state.file(id).filter(|file| file.stored.is_some());
    stored.map_or(0, |file| (file.bytes() / BYTES_PER_TOKEN).max(1))
}

pub fn create(state: &mut State, body: &Value, now: Now) -> Handled {
    let parent = |checkpoint: &str| {
        let found = named(state, checkpoint.split(':').next().unwrap_or_default())?;
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
    let nano_dollars = whole_price(state, body, tokens);
    let job = Job { id, order, plan, created: now, tokens, nano_dollars };
    let reply = Reply::ok(&value(state, &job, now));
    state.jobs.push(job);
    state.jobs_created += 1;
    Ok(reply)
}

fn named<'s>(state: &'s State, name: &str) -> Option<&'s Job> {
    state.jobs.iter().find(|job| job.id == name || output_name(job) == name)
}

/// Nano-dollars of a whole job, the same for the body of its estimate and for that of its creation.
fn whole_price(state: &State, body: &Value, tokens: u64) -> u64 {
    let Prices::Random(seed) = state.script.prices else { return tokens * NANO_DOLLARS_PER_TOKEN };
    let asked = PRICED.map(|name| &body[name]);
    let digest = Sha256::digest(json!(asked).to_string());
    let word = digest.iter().take(8).fold(0, |word: u64, byte| word << 8 | u64::from(*byte));
    1_000_000_000 + (chance(&[seed, word]) * 19e9) as u64
}

fn check_file(state: &State, id: &str, field: &str, now: Now) -> Result<(), Reply> {
    let Some(file) = state.file(id).filter(|file| file.stored.is_some()) else {
        return Err(Reply::field(field, format!("file `{id}` does not exist")));
    };
    let purpose = &file.announced.purpose;
    match file.status(now) {
        _ if purpose != "fine-tune" => {
            let message = format!("file `{id}` has the purpose `{purpose}`, not `fine-tune`");
            Err(Reply::field(field, message))
        }
        Some("INVALID_FORMAT") => Err(Reply::field(field, format!("file `{id}` has an invalid format"))),
        None => Err(Reply::field(field, format!("file `{id}` was never processed"))),
        Some(_) => Ok(()),
    }
}

fn plan(state: &State, order: &Order, id: &str) -> Plan {
    let verdict = |id: &String| state.file(id)?.verdict();
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

pub fn list(state: &State, now: Now) -> Reply {
    let listed = state.jobs.iter().filter(|job| job.seconds(now) >= state.script.listing_seconds);
    Reply::ok(&json!({ "data": listed.map(|job| value(state, job, now)).collect::<Vec<_>>() }))
}

pub fn get(state: &State, id: &str, now: Now) -> Handled {
    let job = job(state, id)?;
    let mut value = value(state, job, now);
    add_details(&mut value, state, job, &course::moment(&job.plan, job.seconds(now)));
    Ok(Reply::ok(&omit(state, value)))
}

pub fn cancel(state: &mut State, id: &str, now: Now) -> Handled {
    let index = position(state, id)?;
    let job = &mut state.jobs[index];
    let seconds = job.seconds(now);
    let status = course::moment(&job.plan, seconds).status;
    if course::is_terminal(status) || status == "cancel_requested" {
        return Err(Reply::error(400, format!("job {id} is {status} and cannot be cancelled")));
    }
    job.plan.cancelled = Some(seconds);
    Ok(Reply::ok(&value(state, &state.jobs[index], now)))
}

pub fn delete(state: &mut State, id: &str, now: Now) -> Handled {
    let index = position(state, id)?;
    let job = &state.jobs[index];
    let status = course::moment(&job.plan, job.seconds(now)).status;
    if !course::is_terminal(status) {
        return Err(Reply::error(400, format!("job {id} is {status}: cancel it first")));
    }
    state.jobs.remove(index);
    Ok(Reply::ok(&json!({ "message": format!("job {id} deleted") })))
}

fn position(state: &State, id: &str) -> Result<usize, Reply> {
    let position = state.jobs.iter().position(|job| job.id == id);
    position.ok_or_else(|| Reply::error(404, format!("job {id} not found")))
}

pub fn job<'s>(state: &'s State, id: &str) -> Result<&'s Job, Reply> {
    Ok(&state.jobs[position(state, id)?])
}

pub fn output_name(job: &Job) -> String {
    let base = job.order.model.name.rsplit('/').next().unwrap_or_default();
    let suffix = job.order.fields.get("suffix").and_then(Value::as_str).filter(|text| !text.is_empty());
    let hash = &job.id[3..11];
    match suffix {
        Some(suffix) => format!("rehearsal/{base}-{suffix}-{hash}"),
        None => format!("rehearsal/{base}-{hash}"),
    }
}

pub fn time_of(job: &Job, second: f64) -> jiff::Timestamp {
    let duration = jiff::SignedDuration::try_from_secs_f64(second).unwrap_or_default();
    job.created.time.checked_add(duration).unwrap_or(job.created.time)
}

fn value(state: &State, job: &Job, now: Now) -> Value {
    let seconds = job.seconds(now);
    let moment = course::moment(&job.plan, seconds);
    let mut value = echoed(job);
    value["id"] = json!(job.id);
    value["status"] = json!(status(state, job, seconds));
    value["user_id"] = json!("user-rehearsal");
    value["owner_address"] = json!("rehearsal");
    value["created_at"] = json!(job.created.time.to_string());
    value["updated_at"] = json!(now.time.to_string());
    value["model_output_name"] = json!(output_name(job));
    value["token_count"] = json!(if moment.training_seconds.is_some() { job.tokens } else { 0 });
    value["total_price"] = json!(price(job, &moment));
    value["events"] = json!([]);
    if moment.training_seconds.is_some() {
        value["started_at"] = json!(time_of(job, course::start(&job.plan)).to_string());
    }
    value["progress"] = json!({
        "estimate_available": moment.training_seconds.is_some() && !course::is_terminal(moment.status),
        "seconds_remaining": moment.training_seconds.map_or(0, |seconds| seconds.ceil() as i64),
    });
    omit(state, value)
}

fn omit(state: &State, mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| !state.script.faults.omit.contains(name));
    }
    value
}

/// What the body said, with the defaults for what it did not say.
fn echoed(job: &Job) -> Value {
    let order = &job.order;
    let mut value = json!({
        "model": order.model.name,
        "validation_file": "",
        "n_epochs": order.epochs,
        "n_evals": order.evals,
        "n_checkpoints": order.checkpoints,
        "learning_rate": order.learning_rate,
        "warmup_ratio": order.warmup_ratio,
        "packing": true,
        "random_seed": 42,
        "suffix": "",
        "training_method": { "method": "sft", "train_on_inputs": "auto" },
        "training_type": order.training_type,
    });
    for (name, said) in &order.fields {
        value[name] = said.clone();
    }
    value["batch_size"] = json!(order.batch_size);
    value
}

fn add_details(value: &mut Value, state: &State, job: &Job, moment: &Moment) {
    let file = state.file(&job.order.training_file);
    let samples = file.and_then(|file| file.verdict()).map_or(0, |verdict| verdict.samples);
    value["job_id"] = json!(job.id);
    value["queue_depth"] = json!(moment.queue_depth);
    value["param_count"] = json!(job.order.model.parameters);
    value["epochs_completed"] = json!(moment.epochs);
    value["eval_steps"] = json!(job.plan.steps.checked_div(job.order.evals).unwrap_or(0));
    value["trainingfile_numlines"] = json!(samples);
    value["trainingfile_size"] = json!(file.map_or(0, |file| file.bytes()));
    value["total_steps"] = json!(job.plan.steps);
    value["steps_completed"] = json!(moment.step);
    let is_completed = moment.status == "completed";
    if is_completed && !job.order.gives_adapter_only() {
        value["model_object_id"] = json!(object_id(job, "ml_"));
        value["model_object_name"] = json!(output_name(job));
        value["model_object_revision_id"] = json!(object_id(job, "rv_"));
        value["model_output_path"] = json!(format!("s3://rehearsal/{}/model", job.id));
    }
    if is_completed && job.order.is_lora() {
        value["adapter_object_id"] = json!(object_id(job, "ml_a"));
        value["adapter_object_name"] = json!(format!("{}-adapter", output_name(job)));
    }
}

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
pub fn limits(state: &State, request: &Request) -> Handled {
    let name = request.query("model_name").ok_or_else(|| Reply::missing("model_name"))?;
    Ok(models::limits(named(state, name).map_or(name, |job| job.order.model.name)))
}
