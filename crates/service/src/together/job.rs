//! What the API says of a job, read leniently: job objects, events, metrics, checkpoints.
//!
//! Pure: values in, plain types out. Fields come and go between versions of the service and are spelt in two
//! ways; only an id and a status are required, everything else may be missing, `null` or of a type nobody
//! expected, and is then absent. Unknown statuses are statuses. See <https://docs.together.ai/reference>.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A job's id: opaque, not empty, safe in a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId(String);

impl JobId {
    /// `text` as an id; nothing where it could leave its place in a URL or a path.
    pub fn new(text: &str) -> Option<JobId> {
        let is_safe = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        let is_id = !text.is_empty() && text.len() <= 200 && text.chars().all(is_safe);
        (is_id && !text.starts_with('.')).then(|| JobId(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A job's status, in lower case as the service spells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// `completed` or `succeeded`; also after early stopping.
    Completed,
    /// `error`, `user_error`, `failed` or `expired`.
    Failed,
    /// `cancelled` or `canceled`.
    Cancelled,
}

impl Status {
    pub fn new(text: &str) -> Status {
        Status(text.trim().to_ascii_lowercase())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How the job ended; nothing while it runs, and what is unknown runs.
    pub fn ending(&self) -> Option<Ending> {
        match self.0.as_str() {
            "completed" | "succeeded" => Some(Ending::Completed),
            "error" | "user_error" | "failed" | "expired" => Some(Ending::Failed),
            "cancelled" | "canceled" => Some(Ending::Cancelled),
            _ => None,
        }
    }

    /// Whether this is one of the statuses that are documented, or known from use.
    pub fn is_known(&self) -> bool {
        let known = [
            "pending",
            "queued",
            "running",
            "compressing",
            "uploading",
            "cancel_requested",
            "model_downloading",
        ];
        self.ending().is_some() || known.contains(&self.0.as_str())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A job as an answer shows it. Lists and creations show less than a single look-up.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: JobId,
    pub status: Status,
    /// The whole object as it came, for fields that nobody here knows.
    pub object: Value,
}

impl Job {
    /// Reads a job object; nothing where it has no id or no status.
    pub fn read(object: &Value) -> Option<Job> {
        let id = text(object, &["id", "job_id"])?;
        let status = text(object, &["status"])?;
        Some(Job { id: JobId::new(&id)?, status: Status::new(&status), object: object.clone() })
    }

    pub fn model(&self) -> Option<String> {
        text(&self.object, &["model", "base_model"])
    }

    /// The tuned model's name; opaque.
    pub fn model_output_name(&self) -> Option<String> {
        text(&self.object, &["model_output_name", "output_name"])
    }

    /// The tuned model's object id (`ml_…`): what a deployment needs.
    pub fn model_object_id(&self) -> Option<String> {
        text(&self.object, &["model_object_id"])
    }

    /// The adapter's object id, where LoRA was trained.
    pub fn adapter_object_id(&self) -> Option<String> {
        text(&self.object, &["adapter_object_id"])
    }

    /// Whether it is complete and has an adapter and no model: LoRA was not merged.
    pub fn has_adapter_only(&self) -> bool {
        self.status.ending() == Some(Ending::Completed)
            && self.adapter_object_id().is_some()
            && self.model_object_id().is_none()
    }

    pub fn suffix(&self) -> Option<String> {
        text(&self.object, &["suffix"])
    }

    /// Whether the object says anything about its suffix or its output name, if only `null`.
    pub fn names_suffix(&self) -> bool {
        ["suffix", "model_output_name", "output_name"].iter().any(|key| self.object.get(key).is_some())
    }

    pub fn created_at(&self) -> Option<Timestamp> {
        time(&self.object, &["created_at"])
    }

    pub fn started_at(&self) -> Option<Timestamp> {
        time(&self.object, &["started_at"])
    }

    pub fn updated_at(&self) -> Option<Timestamp> {
        time(&self.object, &["updated_at"])
    }

    pub fn queue_depth(&self) -> Option<u64> {
        whole(&self.object, &["queue_depth"])
    }

    pub fn n_epochs(&self) -> Option<u64> {
        whole(&self.object, &["n_epochs"])
    }

    pub fn epochs_completed(&self) -> Option<u64> {
        whole(&self.object, &["epochs_completed"])
    }

    pub fn token_count(&self) -> Option<u64> {
        whole(&self.object, &["token_count"])
    }

    /// The price so far in dollars; the wire has nano-dollars. A negative number is not a price.
    pub fn price(&self) -> Option<f64> {
        number(&self.object, &["total_price"]).filter(|nano| *nano >= 0.0).map(|nano| nano / 1e9)
    }

    /// Seconds that the current stage takes, counted from [`Job::started_at`]; an estimate.
    pub fn stage_seconds(&self) -> Option<f64> {
        let progress = self.object.get("progress")?;
        match progress.get("estimate_available") {
            Some(Value::Bool(false)) => None,
            _ => number(progress, &["seconds_remaining"]).filter(|seconds| *seconds > 0.0),
        }
    }

    /// The page of a W&B run that the service itself writes.
    pub fn wandb_url(&self) -> Option<String> {
        text(&self.object, &["wandb_url"])
    }

    pub fn is_early_stopped(&self) -> bool {
        self.object.get("early_stopped").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Whether all weights are trained rather than an adapter; where it is not said, an adapter is.
    pub fn trains_all_weights(&self) -> bool {
        let kind = self.object.get("training_type").and_then(|kind| text(kind, &["type"]));
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case("full"))
    }

    pub fn lora_rank(&self) -> Option<u64> {
        self.object.get("training_type").and_then(|kind| whole(kind, &["lora_r"]))
    }

    /// The ids of the training and the validation file.
    pub fn file_ids(&self) -> (Option<String>, Option<String>) {
        (text(&self.object, &["training_file"]), text(&self.object, &["validation_file"]))
    }

    pub fn events(&self) -> Vec<Event> {
        let events = self.object.get("events").and_then(Value::as_array);
        events.into_iter().flatten().map(Event::read).collect()
    }
}

/// One event of a job. Events carry no loss: that is what metrics are for.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When, as the service wrote it; empty where it did not.
    pub created_at: String,
    /// What kind, in lower case: `job_start`, `checkpoint_save`, `billing_limit`, …
    pub kind: String,
    /// `info`, `warning`, `error`, in lower case and without `legacy_`; empty where unknown.
    pub level: String,
    pub message: String,
    /// The training step it is about; absent where it says 0.
    pub step: Option<u64>,
    pub total_steps: Option<u64>,
    pub hash: String,
    pub checkpoint_path: String,
}

impl Event {
    /// Reads an event object; what is missing is empty.
    pub fn read(object: &Value) -> Event {
        let text = |key: &str| text(object, &[key]).unwrap_or_default();
        let count = |key: &str| whole(object, &[key]).filter(|count| *count > 0);
        let level = text("level").to_ascii_lowercase();
        Event {
            created_at: text("created_at"),
            kind: text("type").to_ascii_lowercase(),
            level: level.strip_prefix("legacy_").unwrap_or(&level).to_owned(),
            message: text("message"),
            step: count("step"),
            total_steps: count("total_steps"),
            hash: text("hash"),
            checkpoint_path: text("checkpoint_path"),
        }
    }

    /// What makes it the same event when it comes again.
    pub fn identity(&self) -> (String, String, Option<u64>, String) {
        if self.hash.is_empty() {
            (self.created_at.clone(), self.kind.clone(), self.step, self.message.clone())
        } else {
            (String::new(), String::new(), None, self.hash.clone())
        }
    }

    /// When, as a moment; unreadable dates sort first.
    pub fn time(&self) -> Option<Timestamp> {
        read_time(&self.created_at)
    }
}

/// The last of `events` that tells of an error: the service's words about why a job failed.
pub fn last_error(events: &[Event]) -> Option<&str> {
    let tells = |event: &&Event| event.level == "error" || event.kind.ends_with("error");
    events.iter().rev().find(tells).map(|event| event.message.as_str())
}

/// One row of a job's metrics; numbers that are not finite are absent.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricRow {
    pub step: Option<u64>,
    pub epoch: Option<f64>,
    pub train_loss: Option<f64>,
    pub learning_rate: Option<f64>,
    pub grad_norm: Option<f64>,
    pub eval_loss: Option<f64>,
    /// `timestamp`, nanoseconds since 1970.
    pub timestamp_ns: Option<i64>,
    pub object: Value,
}

impl MetricRow {
    pub fn read(object: &Value) -> MetricRow {
        MetricRow {
            step: whole(object, &["train/global_step", "train/step", "global_step", "step"]),
            epoch: number(object, &["train/epoch", "epoch"]),
            train_loss: number(object, &["train/loss"]),
            learning_rate: number(object, &["train/learning_rate"]),
            grad_norm: number(object, &["train/grad_norm"]),
            eval_loss: number(object, &["eval/loss", "val/loss"]),
            timestamp_ns: object.get("timestamp").and_then(Value::as_i64),
            object: object.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub step: Option<u64>,
    pub created_at: String,
    /// What it is called for people.
    pub label: String,
    /// `model` or `adapter`.
    pub kind: String,
    pub path: String,
    pub object_id: Option<String>,
}

impl Checkpoint {
    pub fn read(object: &Value) -> Checkpoint {
        let text_of = |key: &str| text(object, &[key]).unwrap_or_default();
        Checkpoint {
            step: whole(object, &["step"]),
            created_at: text_of("created_at"),
            label: text_of("checkpoint_type"),
            kind: text_of("checkpoint"),
            path: text_of("path"),
            object_id: text(object, &["object_id"]),
        }
    }
}

/// The first of `keys` that holds text with something in it.
pub fn text(object: &Value, keys: &[&str]) -> Option<String> {
    let texts = keys.iter().filter_map(|key| object.get(key)?.as_str());
    texts.map(str::to_owned).find(|text| !text.is_empty())
}

/// The first of `keys` that holds a whole number from 0 upward; `3.0` and `"3"` are 3.
pub fn whole(object: &Value, keys: &[&str]) -> Option<u64> {
    let read = |value: &Value| match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64()?;
            (float >= 0.0 && float.fract() == 0.0 && float < 9e15).then_some(float as u64)
        }),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    keys.iter().find_map(|key| read(object.get(key)?))
}

/// The first of `keys` that holds a finite number, or text that is one.
pub fn number(object: &Value, keys: &[&str]) -> Option<f64> {
    let read = |value: &Value| match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let numbers = keys.iter().filter_map(|key| read(object.get(key)?));
    numbers.into_iter().find(|number: &f64| number.is_finite())
}

/// The first of `keys` that holds a moment: RFC 3339, with or without a fraction or a zone, or seconds.
pub fn time(object: &Value, keys: &[&str]) -> Option<Timestamp> {
    let read = |value: &Value| match value {
        Value::String(text) => read_time(text),
        Value::Number(number) => Timestamp::from_second(number.as_f64()? as i64).ok(),
        _ => None,
    };
    keys.iter().find_map(|key| read(object.get(key)?))
}

/// A moment as the API writes it; without a zone it is UTC.
pub fn read_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse().ok().or_else(|| format!("{text}Z").parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_read_from_an_id_and_a_status_alone() {
        let job =
            Job::read(&json!({ "id": "ft-1", "status": "RUNNING", "events": null, "total_price": null }));
        let job = job.unwrap();
        assert_eq!((job.id.as_str(), job.status.as_str(), job.price()), ("ft-1", "running", None));
        assert!(job.events().is_empty() && !job.names_suffix() && job.suffix().is_none());
        assert!(Job::read(&json!({ "id": "ft-1" })).is_none());
        assert!(Job::read(&json!({ "status": "running" })).is_none());
        assert!(Job::read(&json!({ "id": "../x", "status": "running" })).is_none());
        assert!(Job::read(&json!([])).is_none());
    }

    #[test]
    fn only_the_last_statuses_end_a_job_in_any_case() {
        let check = |status: &str, ending: Option<Ending>| {
            assert_eq!(Status::new(status).ending(), ending, "{status}");
        };
        check("completed", Some(Ending::Completed));
        check("Completed", Some(Ending::Completed));
        check("error", Some(Ending::Failed));
        check("user_error", Some(Ending::Failed));
        check("cancelled", Some(Ending::Cancelled));
        check("SUCCEEDED", Some(Ending::Completed));
        check("Failed", Some(Ending::Failed));
        check("expired", Some(Ending::Failed));
        check(" Canceled ", Some(Ending::Cancelled));
        for running in ["pending", "queued", "cancel_requested", "model_downloading", "paused", "", "failed?"]
        {
            check(running, None);
        }
        assert!(!Status::new("paused").is_known() && Status::new("queued").is_known());
    }

    #[test]
    fn prices_are_nano_dollars_and_may_be_large() {
        let price = |value: Value| {
            Job::read(&json!({ "id": "a", "status": "running", "total_price": value })).unwrap().price()
        };
        assert_eq!(price(json!(4_200_000_000_u64)), Some(4.2));
        assert_eq!(price(json!("18014398509481985")), Some(18_014_398.509_481_985));
        assert_eq!(price(json!("much")), None);
        assert_eq!(price(json!(-1)), None);
    }

    #[test]
    fn times_are_read_with_and_without_fraction_and_zone() {
        let expected: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        for text in ["2026-11-24T10:00:00Z", "2026-11-24T10:00:00", "2026-11-24T11:00:00+01:00"] {
            assert_eq!(read_time(text), Some(expected), "{text}");
        }
        assert_eq!(read_time("2026-11-24T10:00:00.250Z").unwrap().subsec_millisecond(), 250);
        assert_eq!(read_time("yesterday"), None);
        assert_eq!(time(&json!({ "created_at": 1_795_514_400 }), &["created_at"]), Some(expected));
    }

    #[test]
    fn events_are_read_in_either_case() {
        let event = Event::read(&json!({
            "type": "CHECKPOINT_SAVE", "level": "legacy_Info", "step": 0, "total_steps": 30, "message": "m",
        }));
        assert_eq!((event.kind.as_str(), event.level.as_str()), ("checkpoint_save", "info"));
        assert_eq!((event.step, event.total_steps), (None, Some(30)));
    }

    #[test]
    fn the_last_error_is_told_by_its_level_or_its_kind() {
        let event = |kind: &str, level: &str, message: &str| {
            Event::read(&json!({ "type": kind, "level": level, "message": message }))
        };
        let mut events = vec![event("warning", "error", "first"), event("JOB_ERROR", "", "second")];
        assert_eq!(last_error(&events), Some("second"));
        events.push(event("job_stopped", "info", "third"));
        assert_eq!((last_error(&events), last_error(&events[..1])), (Some("second"), Some("first")));
        assert_eq!(last_error(&events[2..]), None);
    }

    #[test]
    fn metrics_bear_nulls_texts_and_what_is_no_number() {
        let row = MetricRow::read(&json!({
            "timestamp": 1_795_514_400_123_456_789_i64, "train/global_step": 3.0, "train/loss": "NaN",
            "train/grad_norm": null, "eval/loss": "0.5",
        }));
        assert_eq!((row.step, row.train_loss, row.eval_loss), (Some(3), None, Some(0.5)));
        assert_eq!(row.timestamp_ns, Some(1_795_514_400_123_456_789));
    }
}
