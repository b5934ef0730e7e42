//! Fine-tuning jobs: what they may be, what they cost, and how they go.
//!
//! Every call may be repeated without harm but [`create`], which is sent once: whoever calls it must look for
//! the job before sending it again. See <https://docs.together.ai/reference>.

use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Body, Method};
use crate::together::base::encode;
use crate::together::files::items;
use crate::together::job::{Checkpoint, Event, Job, JobId, MetricRow, Status, number, text, whole};
use crate::together::{Error, Together, Tries};

const JOBS: &str = "/v1/fine-tunes";
const JOB: (fn(&Value) -> Option<Job>, &str) = (Job::read, "job");

/// What a model allows; all that the server did not say is absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub model_name: String,
    pub max_num_epochs: Option<u64>,
    pub max_num_evals: Option<u64>,
    pub max_num_checkpoints: Option<u64>,
    pub min_learning_rate: Option<f64>,
    pub max_learning_rate: Option<f64>,
    /// The longest sample in tokens, for supervised training.
    pub max_seq_length: Option<u64>,
    /// The least that may be asked for as the longest sample.
    pub min_max_seq_length: Option<u64>,
    pub supports_full_training: Option<bool>,
    /// Whether a trained adapter is merged into the model's weights. Where it is not, a job gives the
    /// adapter alone: there are no merged weights to download and no object to deploy.
    pub merges_lora: Option<bool>,
    /// What training an adapter allows; absent where it cannot be.
    pub lora: Option<BatchLimits>,
    pub full: Option<BatchLimits>,
    pub object: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// The highest rank; of adapters only.
    pub max_rank: Option<u64>,
    /// The rank that the server would take; of adapters only.
    pub default_rank: Option<u64>,
    pub max_batch_size: Option<u64>,
    pub min_batch_size: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    pub availability: Availability,
    pub dollars: Option<f64>,
    /// Tokens of the training file, all epochs.
    pub train_tokens: Option<u64>,
    /// Tokens of the validation file, all evaluations.
    pub eval_tokens: Option<u64>,
    /// What the account may still spend, in dollars.
    pub user_limit: Option<f64>,
    pub allowed_to_proceed: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    Available,
    Unavailable(String),
}

/// What `model` allows; nothing where it cannot be trained.
pub fn limits(together: &Together, model: &str) -> Result<Option<Limits>, Error> {
    let path = format!("{JOBS}/models/limits?model_name={}", encode(model));
    match together.get(&path) {
        Ok(value) if value.is_object() => Ok(Some(Limits::read(model, &value))),
        Ok(value) => Err(together.unlike((Method::Get, &path), &value, "it is no object")),
        Err(Error::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Limits {
    pub fn read(model: &str, object: &Value) -> Limits {
        let whole_of = |key: &str| whole(object, &[key]);
        let batch = |key: &str| {
            let limits = object.get(key).filter(|limits| limits.is_object())?;
            Some(BatchLimits {
                max_rank: whole(limits, &["max_rank"]),
                default_rank: whole(limits, &["default_rank"]),
                max_batch_size: whole(limits, &["max_batch_size"]),
                min_batch_size: whole(limits, &["min_batch_size"]),
            })
        };
        Limits {
            model_name: text(object, &["model_name"]).unwrap_or_else(|| model.to_owned()),
            max_num_epochs: whole_of("max_num_epochs"),
            max_num_evals: whole_of("max_num_evals"),
            max_num_checkpoints: whole_of("max_num_checkpoints"),
            min_learning_rate: number(object, &["min_learning_rate"]),
            max_learning_rate: number(object, &["max_learning_rate"]),
            max_seq_length: whole(object, &["max_seq_length_sft", "max_seq_length"]),
            min_max_seq_length: whole_of("min_max_seq_length"),
            supports_full_training: object.get("supports_full_training").and_then(Value::as_bool),
            merges_lora: object.get("merge_output_lora").and_then(Value::as_bool),
            lora: batch("lora_training"),
            full: batch("full_training"),
            object: object.clone(),
        }
    }
}

pub fn supported(together: &Together) -> Result<Vec<String>, Error> {
    let path = format!("{JOBS}/models/supported");
    let value = together.get(&path)?;
    let models = items(together, &path, value.get("models").unwrap_or(&value))?;
    let name = |model: &Value| {
        model.as_str().map(str::to_owned).or_else(|| text(model, &["model_name", "id", "name"]))
    };
    Ok(models.iter().filter_map(name).collect())
}

pub fn estimate(together: &Together, body: &Value) -> Result<Estimate, Error> {
    let path = format!("{JOBS}/estimate-price");
    let value = together.ask(Method::Post, &path, Body::Json(body), Tries::Many)?;
    if !value.is_object() {
        return Err(together.unlike((Method::Post, &path), &value, "it is no object"));
    }
    let is_available = value.get("estimation_available").and_then(Value::as_bool).unwrap_or(true);
    let reason = || text(&value, &["unavailable_reason"]).unwrap_or_default();
    Ok(Estimate {
        availability: if is_available {
            Availability::Available
        } else {
            Availability::Unavailable(reason())
        },
        dollars: number(&value, &["estimated_total_price"]),
        train_tokens: whole(&value, &["estimated_train_token_count"]),
        eval_tokens: whole(&value, &["estimated_eval_token_count"]),
        user_limit: number(&value, &["user_limit"]),
        allowed_to_proceed: value.get("allowed_to_proceed").and_then(Value::as_bool),
    })
}

/// A row of a training file as the service would train it.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizedRow {
    pub tokens: Vec<String>,
    /// Tokens that are trained: from, and to before.
    pub trained_spans: Vec<(usize, usize)>,
    /// How many tokens it has after it was cut.
    pub token_count: u64,
    pub trained_count: u64,
    pub is_truncated: bool,
}

/// The first rows of an uploaded file as the service would train them on `model`; free of charge.
pub fn preview(
    together: &Together,
    model: &str,
    training_file: &str,
    rows: u64,
    trains_on_inputs: bool,
) -> Result<Vec<TokenizedRow>, Error> {
    let path = format!("{JOBS}/preview");
    let body = json!({
        "model": model,
        "training_file": training_file,
        "top_k": rows,
        "train_on_inputs": trains_on_inputs,
        "training_method": "sft",
    });
    let value = together.ask(Method::Post, &path, Body::Json(&body), Tries::Many)?;
    let rows = value.get("rows").and_then(Value::as_array);
    let rows = rows.and_then(|rows| rows.iter().map(tokenized_row).collect());
    rows.ok_or_else(|| together.unlike((Method::Post, &path), &value, "it has no rows of tokens"))
}

fn tokenized_row(row: &Value) -> Option<TokenizedRow> {
    let tokens = row.get("tokens")?.as_array()?.iter();
    let spans = row.get("trained_spans")?.as_array()?.iter();
    Some(TokenizedRow {
        tokens: tokens.map(|token| token.as_str().map(str::to_owned)).collect::<Option<_>>()?,
        trained_spans: spans
            .map(|span| Some((span.get(0)?.as_u64()? as usize, span.get(1)?.as_u64()? as usize)))
            .collect::<Option<_>>()?,
        token_count: whole(row, &["num_tokens"])?,
        trained_count: whole(row, &["num_trained_tokens"])?,
        is_truncated: row.get("truncated")?.as_bool()?,
    })
}

/// Creates the job in `body`. It costs money and is sent once;
/// [`Error::certainty`] says what a failure leaves open.
pub fn create(together: &Together, body: &Value) -> Result<Job, Error> {
    let job = together.object((Method::Post, JOBS), Body::Json(body), Tries::One, JOB)?;
    note_created(together, &job.id, Duration::ZERO);
    Ok(job)
}

/// Notes that the job was created so long ago: the service may deny it for a moment, and is asked again then.
pub fn note_created(together: &Together, id: &JobId, age: Duration) {
    for path in [format!("{JOBS}/{id}"), format!("{JOBS}/{id}/cancel")] {
        together.note_created(path, age);
    }
}

/// Whether the service may still deny the job, or what belongs to it.
pub fn is_settling(together: &Together, id: &JobId) -> bool {
    together.is_settling(&together.url(&format!("{JOBS}/{id}")))
}

pub fn list(together: &Together) -> Result<Vec<Job>, Error> {
    let value = together.get(JOBS)?;
    let mut jobs = Vec::new();
    for object in items(together, JOBS, &value)? {
        let Some(id) = text(object, &["id", "job_id"]) else { continue };
        // Who looks for a job before creating it must not miss one.
        let id = JobId::new(&id).ok_or_else(|| {
            together.unlike((Method::Get, JOBS), object, "a job in it has an id that is none")
        })?;
        let status = Status::new(&text(object, &["status"]).unwrap_or_default());
        jobs.push(Job { id, status, object: object.clone() });
    }
    Ok(jobs)
}

pub fn retrieve(together: &Together, id: &JobId) -> Result<Job, Error> {
    let path = format!("{JOBS}/{id}");
    together.object((Method::Get, &path), Body::Empty, Tries::Many, JOB)
}

pub fn cancel(together: &Together, id: &JobId) -> Result<Job, Error> {
    let path = format!("{JOBS}/{id}/cancel");
    together.object((Method::Post, &path), Body::Empty, Tries::Many, JOB)
}

pub fn events(together: &Together, id: &JobId) -> Result<Vec<Event>, Error> {
    let path = format!("{JOBS}/{id}/events");
    let value = together.get(&path)?;
    Ok(items(together, &path, &value)?.iter().map(Event::read).collect())
}

/// The metrics of a job, from a training step on if one is given, in the order of the answer.
pub fn metrics(together: &Together, id: &JobId, from_step: Option<u64>) -> Result<Vec<MetricRow>, Error> {
    let query = from_step.map(|step| format!("?global_step_from={step}")).unwrap_or_default();
    let path = format!("{JOBS}/{id}/metrics{query}");
    let value = together.get(&path)?;
    let rows = items(together, &path, value.get("metrics").unwrap_or(&value))?;
    Ok(rows.iter().map(MetricRow::read).collect())
}

pub fn checkpoints(together: &Together, id: &JobId, tries: Tries) -> Result<Vec<Checkpoint>, Error> {
    let path = format!("{JOBS}/{id}/checkpoints");
    let value = together.ask(Method::Get, &path, Body::Empty, tries)?;
    Ok(items(together, &path, &value)?.iter().map(Checkpoint::read).collect())
}
