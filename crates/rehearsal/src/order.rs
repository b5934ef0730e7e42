//! The body that creates a job: every field known, of its type, within the model's limits.
//!
//! Separate because strictness is the use of a rehearsal: what the real service would refuse
//! after an upload is refused here. It judges a document; it creates nothing.

use serde_json::{Map, Value, json};

use crate::models::{self, Model};
use crate::reply::Reply;

/// What a job was asked to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The body as it was sent, without secrets.
    pub fields: Map<String, Value>,
    /// What it trains.
    pub model: &'static Model,
    /// File id.
    pub training_file: String,
    /// File id.
    pub validation_file: Option<String>,
    /// Passes over the training file.
    pub epochs: u64,
    /// Evaluations.
    pub evals: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Samples a step.
    pub batch_size: u64,
    /// The highest.
    pub learning_rate: f64,
    /// Part of the training in which it rises.
    pub warmup_ratio: f64,
    /// What was asked for, else the parent's, else the default.
    pub training_type: Value,
}

/// The job that another one goes on from.
#[derive(Debug, Clone)]
pub struct Parent {
    /// What it trained.
    pub model: &'static Model,
    /// How.
    pub training_type: Value,
}

impl Order {
    /// LoRA or all weights.
    pub fn is_lora(&self) -> bool {
        self.training_type["type"] != "Full"
    }

    /// Whether it gives an adapter and nothing merged.
    pub fn gives_adapter_only(&self) -> bool {
        self.is_lora() && !self.model.merges_lora
    }
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Count,
    Number,
    Flag,
    Object,
    /// A number of samples or `"max"`.
    Batch,
    /// A flag or `"auto"`.
    FlagOrAuto,
}

const FIELDS: [(&str, Kind); 36] = [
    ("training_file", Kind::Text),
    ("validation_file", Kind::Text),
    ("model", Kind::Text),
    ("from_checkpoint", Kind::Text),
    ("n_epochs", Kind::Count),
    ("n_evals", Kind::Count),
    ("n_checkpoints", Kind::Count),
    ("batch_size", Kind::Batch),
    ("gradient_accumulation_steps", Kind::Count),
    ("learning_rate", Kind::Number),
    ("lr_scheduler", Kind::Object),
    ("warmup_ratio", Kind::Number),
    ("weight_decay", Kind::Number),
    ("max_grad_norm", Kind::Number),
    ("packing", Kind::Flag),
    ("max_seq_length", Kind::Count),
    ("training_type", Kind::Object),
    ("training_method", Kind::Object),
    ("train_on_inputs", Kind::FlagOrAuto),
    ("suffix", Kind::Text),
    ("wandb_key", Kind::Text),
    ("wandb_api_key", Kind::Text),
    ("wandb_base_url", Kind::Text),
    ("wandb_project_name", Kind::Text),
    ("wandb_name", Kind::Text),
    ("wandb_entity", Kind::Text),
    ("random_seed", Kind::Count),
    ("early_stopping_enabled", Kind::Flag),
    ("early_stopping_patience", Kind::Count),
    ("early_stopping_min_delta", Kind::Number),
    ("early_stopping_warmup_evals", Kind::Count),
    ("multimodal_params", Kind::Object),
    ("from_hf_model", Kind::Text),
    ("hf_model_revision", Kind::Text),
    ("hf_api_token", Kind::Text),
    ("hf_output_repo_name", Kind::Text),
];

/// Fields of a body that are never given back.
const SECRETS: [&str; 3] = ["wandb_key", "wandb_api_key", "hf_api_token"];

const LORA: [(&str, Kind); 5] = [
    ("type", Kind::Text),
    ("lora_r", Kind::Count),
    ("lora_alpha", Kind::Count),
    ("lora_dropout", Kind::Number),
    ("lora_trainable_modules", Kind::Text),
];

const SCHEDULER: [(&str, Kind); 2] = [("lr_scheduler_type", Kind::Text), ("lr_scheduler_args", Kind::Object)];

const SCHEDULER_ARGS: [(&str, Kind); 2] = [("min_lr_ratio", Kind::Number), ("num_cycles", Kind::Number)];

const METHOD: [(&str, Kind); 7] = [
    ("method", Kind::Text),
    ("train_on_inputs", Kind::FlagOrAuto),
    ("dpo_beta", Kind::Number),
    ("dpo_normalize_logratios_by_length", Kind::Flag),
    ("dpo_reference_free", Kind::Flag),
    ("rpo_alpha", Kind::Number),
    ("simpo_gamma", Kind::Number),
];

/// The longest suffix, in characters.
const MAX_SUFFIX_CHARS: usize = 40;

impl Kind {
    fn fits(self, value: &Value) -> bool {
        match self {
            Kind::Text => value.is_string(),
            Kind::Count => value.is_u64(),
            Kind::Number => value.is_number(),
            Kind::Flag => value.is_boolean(),
            Kind::Object => value.is_object(),
            Kind::Batch => value.is_u64() || value == "max",
            Kind::FlagOrAuto => value.is_boolean() || value == "auto",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Text => "a string",
            Kind::Count => "an integer, not negative",
            Kind::Number => "a number",
            Kind::Flag => "true or false",
            Kind::Object => "an object",
            Kind::Batch => "an integer or \"max\"",
            Kind::FlagOrAuto => "true, false or \"auto\"",
        }
    }
}

/// Reads the body of `POST /v1/fine-tunes`. `parent` gives the job of a checkpoint.
///
/// # Errors
/// The reply to a body that the service would refuse, naming the first field that is wrong.
pub fn order(body: &Value, parent: impl Fn(&str) -> Option<Parent>) -> Result<Order, Reply> {
    let Some(fields) = body.as_object() else { return Err(Reply::error(400, "the body is no JSON object")) };
    check_fields(fields, "", &FIELDS)?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let count = |name: &str, absent: u64| fields.get(name).and_then(Value::as_u64).unwrap_or(absent);
    let (model, parent) = origin(text("model"), text("from_checkpoint"), parent)?;
    check_training_type(fields, model)?;
    let training_type = training_type(fields, model, parent.as_ref())?;
    let training_file =
        text("training_file").ok_or_else(|| Reply::field("training_file", "`training_file` is missing"))?;
    let order = Order {
        model,
        training_file: training_file.to_owned(),
        validation_file: text("validation_file").map(str::to_owned),
        epochs: count("n_epochs", 1),
        evals: count("n_evals", 0),
        checkpoints: count("n_checkpoints", 1),
        batch_size: count("batch_size", models::BATCH_SIZES[1]),
        learning_rate: fields.get("learning_rate").and_then(Value::as_f64).unwrap_or(1e-5),
        warmup_ratio: fields.get("warmup_ratio").and_then(Value::as_f64).unwrap_or(0.0),
        training_type,
        fields: fields.iter().filter(|(name, _)| !SECRETS.contains(&name.as_str())).map(owned).collect(),
    };
    check_bounds(&order)?;
    check_numbers(fields, model)?;
    check_method(fields)?;
    check_early_stopping(&order)?;
    Ok(order)
}

fn owned((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

fn check_fields(fields: &Map<String, Value>, inside: &str, known: &[(&str, Kind)]) -> Result<(), Reply> {
    for (name, value) in fields {
        let path = format!("{inside}{name}");
        match known.iter().find(|(known, _)| known == name) {
            None => return Err(Reply::field(&path, format!("`{path}` is not known"))),
            Some((_, kind)) if !kind.fits(value) => {
                return Err(Reply::field(&path, format!("`{path}` must be {}, not {value}", kind.name())));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The model that is trained, and the job that is gone on from, if there is one.
fn origin(
    name: Option<&str>,
    checkpoint: Option<&str>,
    parent: impl Fn(&str) -> Option<Parent>,
) -> Result<(&'static Model, Option<Parent>), Reply> {
    match (name, checkpoint) {
        (Some(name), None) => match models::find(name) {
            Some(model) => Ok((model, None)),
            None => {
                let message = format!("model `{name}` is not available for fine-tuning");
                Err(Reply::field("model", message))
            }
        },
        (None, Some(checkpoint)) => match parent(checkpoint) {
            Some(parent) => Ok((parent.model, Some(parent))),
            None => {
                let message = format!("checkpoint `{checkpoint}` does not exist");
                Err(Reply::field("from_checkpoint", message))
            }
        },
        _ => Err(Reply::field("model", "exactly one of `model` and `from_checkpoint` is needed")),
    }
}

/// What the job trains: a child trains what its parent did, and is refused where it asks for something else.
fn training_type(
    fields: &Map<String, Value>,
    model: &Model,
    parent: Option<&Parent>,
) -> Result<Value, Reply> {
    let inherited = match parent {
        Some(parent) => parent.training_type.clone(),
        None => json!({ "type": "Lora", "lora_r": model.max_rank, "lora_alpha": 2 * model.max_rank }),
    };
    let Some(asked) = fields.get("training_type") else { return Ok(inherited) };
    if parent.is_some() && whole_type(asked) != whole_type(&inherited) {
        let message = format!(
            "`training_type` {asked} differs from {inherited} of the parent job: leave it out to inherit it"
        );
        return Err(Reply::field("training_type", message));
    }
    Ok(asked.clone())
}

/// A training type with what may be left out of it.
fn whole_type(kind: &Value) -> [Value; 5] {
    let of = |name: &str, absent: Value| kind.get(name).cloned().unwrap_or(absent);
    let dropout = of("lora_dropout", json!(0.0)).as_f64();
    [
        of("type", Value::Null),
        of("lora_r", Value::Null),
        of("lora_alpha", Value::Null),
        json!(dropout),
        of("lora_trainable_modules", json!("all-linear")),
    ]
}

fn check_bounds(order: &Order) -> Result<(), Reply> {
    let [least_batch, most_batch] = models::BATCH_SIZES;
    let bounds = [
        ("n_epochs", order.epochs, 1, models::MAX_EPOCHS),
        ("n_evals", order.evals, 0, models::MAX_EVALS),
        ("n_checkpoints", order.checkpoints, 1, models::MAX_CHECKPOINTS),
        ("batch_size", order.batch_size, least_batch, most_batch),
    ];
    for (name, value, least, most) in bounds {
        if value < least || value > most {
            return Err(Reply::field(
                name,
                format!("`{name}` must be between {least} and {most}, not {value}"),
            ));
        }
    }
    if order.evals > 0 && order.validation_file.is_none() {
        return Err(Reply::field("n_evals", "`n_evals` above 0 needs a `validation_file`"));
    }
    let suffix = order.fields.get("suffix").and_then(Value::as_str).unwrap_or_default();
    if suffix.chars().count() > MAX_SUFFIX_CHARS {
        return Err(Reply::field("suffix", format!("`suffix` has more than {MAX_SUFFIX_CHARS} characters")));
    }
    Ok(())
}

fn check_numbers(fields: &Map<String, Value>, model: &Model) -> Result<(), Reply> {
    let [least_rate, most_rate] = models::LEARNING_RATES;
    let bounds = [
        ("learning_rate", least_rate, most_rate),
        ("warmup_ratio", 0.0, 1.0),
        ("weight_decay", 0.0, f64::MAX),
        ("max_grad_norm", 0.0, f64::MAX),
        ("max_seq_length", models::MIN_MAX_SEQ_LENGTH as f64, model.max_seq_length as f64),
    ];
    for (name, least, most) in bounds {
        let value = fields.get(name).and_then(Value::as_f64).unwrap_or(least);
        if value < least || value > most {
            return Err(Reply::field(
                name,
                format!("`{name}` must be between {least} and {most}, not {value}"),
            ));
        }
    }
    let Some(scheduler) = fields.get("lr_scheduler").and_then(Value::as_object) else { return Ok(()) };
    check_fields(scheduler, "lr_scheduler.", &SCHEDULER)?;
    let name = scheduler.get("lr_scheduler_type").and_then(Value::as_str);
    let allowed: &[(&str, Kind)] = match name {
        Some("cosine") => &SCHEDULER_ARGS,
        Some("linear") => &SCHEDULER_ARGS[..1],
        _ => return Err(Reply::field("lr_scheduler.lr_scheduler_type", "must be `linear` or `cosine`")),
    };
    let Some(args) = scheduler.get("lr_scheduler_args").and_then(Value::as_object) else { return Ok(()) };
    check_fields(args, "lr_scheduler.lr_scheduler_args.", allowed)
}

fn check_training_type(fields: &Map<String, Value>, model: &Model) -> Result<(), Reply> {
    let Some(kind) = fields.get("training_type").and_then(Value::as_object) else { return Ok(()) };
    match kind.get("type").and_then(Value::as_str) {
        Some("Lora") => check_fields(kind, "training_type.", &LORA)?,
        Some("Full") if model.has_full_training => return check_fields(kind, "training_type.", &LORA[..1]),
        Some("Full") => {
            let message = format!("full training is not supported for model `{}`", model.name);
            return Err(Reply::field("training_type.type", message));
        }
        _ => return Err(Reply::field("training_type.type", "must be `Lora` or `Full`")),
    }
    let rank = kind.get("lora_r").and_then(Value::as_u64);
    match rank {
        None => return Err(Reply::field("training_type.lora_r", "`training_type.lora_r` is missing")),
        Some(rank) if rank == 0 || rank > model.max_rank => {
            let message = format!("LoRA rank must be between 1 and {}, not {rank}", model.max_rank);
            return Err(Reply::field("training_type.lora_r", message));
        }
        Some(_) => {}
    }
    if kind.get("lora_alpha").and_then(Value::as_u64).is_none_or(|alpha| alpha == 0) {
        return Err(Reply::field("training_type.lora_alpha", "`training_type.lora_alpha` must be positive"));
    }
    let dropout = kind.get("lora_dropout").and_then(Value::as_f64).unwrap_or(0.0);
    if !(0.0..1.0).contains(&dropout) {
        return Err(Reply::field("training_type.lora_dropout", "LoRA dropout must be in [0, 1)"));
    }
    Ok(())
}

fn check_method(fields: &Map<String, Value>) -> Result<(), Reply> {
    let Some(method) = fields.get("training_method").and_then(Value::as_object) else { return Ok(()) };
    check_fields(method, "training_method.", &METHOD)?;
    let wrong = |name: &str| {
        let path = format!("training_method.{name}");
        Err(Reply::field(&path, format!("`{path}` does not go with this method")))
    };
    match method.get("method").and_then(Value::as_str) {
        Some("sft") => {
            match method.keys().find(|name| !["method", "train_on_inputs"].contains(&name.as_str())) {
                Some(name) => wrong(name),
                None if method.contains_key("train_on_inputs") => Ok(()),
                None => Err(Reply::field("training_method.train_on_inputs", "`train_on_inputs` is missing")),
            }
        }
        Some("dpo") if method.contains_key("train_on_inputs") => wrong("train_on_inputs"),
        Some("dpo") => Ok(()),
        _ => Err(Reply::field("training_method.method", "must be `sft` or `dpo`")),
    }
}

fn check_early_stopping(order: &Order) -> Result<(), Reply> {
    if order.fields.get("early_stopping_enabled") != Some(&Value::Bool(true)) {
        return Ok(());
    }
    let count = |name: &str, absent: u64| order.fields.get(name).and_then(Value::as_u64).unwrap_or(absent);
    let (patience, warmup) = (count("early_stopping_patience", 2), count("early_stopping_warmup_evals", 1));
    if patience == 0 {
        return Err(Reply::field("early_stopping_patience", "the patience is at least 1"));
    }
    let least = patience.saturating_add(warmup).saturating_add(1);
    if order.validation_file.is_none() || order.evals < least {
        let message = format!("early stopping needs a validation file and `n_evals` of at least {least}");
        return Err(Reply::field("early_stopping_enabled", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reply::Content;

    /// The body that the SDK sends with its defaults, changed by `change`.
    fn check(change: Value, expected: Result<(), &str>) {
        let mut body = json!({
            "training_file": "file-1", "validation_file": "", "packing": true, "model": "Qwen/Qwen3-8B",
            "n_epochs": 1, "learning_rate": 1e-05, "warmup_ratio": 0.0, "max_grad_norm": 1.0,
            "lr_scheduler": {
                "lr_scheduler_type": "cosine",
                "lr_scheduler_args": { "min_lr_ratio": 0.0, "num_cycles": 0.5 },
            },
            "weight_decay": 0.0, "n_checkpoints": 1, "n_evals": 0, "batch_size": "max",
            "early_stopping_enabled": false,
            "training_method": { "method": "sft", "train_on_inputs": "auto" },
        });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let result = order(&body, |_| None).map(|_| ());
        match (result, expected) {
            (Ok(()), Ok(())) => {}
            (Err(reply), Err(part)) => {
                let Content::Whole(bytes) = &reply.content else { panic!("{reply:?}") };
                let text = String::from_utf8_lossy(bytes);
                assert!(reply.status == 400 && text.contains(part), "{text}");
            }
            (result, expected) => panic!("{change}: {result:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn what_the_sdk_sends_is_taken() {
        check(json!({}), Ok(()));
        check(
            json!({ "training_type": { "type": "Lora", "lora_r": 64, "lora_alpha": 16, "lora_dropout": 0.0, "lora_trainable_modules": "all-linear" } }),
            Ok(()),
        );
        check(json!({ "training_type": { "type": "Full" } }), Ok(()));
        check(json!({ "validation_file": "file-2", "n_evals": 4, "early_stopping_enabled": true }), Ok(()));
        check(json!({ "suffix": "a".repeat(40), "random_seed": 42, "wandb_key": "secret" }), Ok(()));
    }

    #[test]
    fn a_field_that_is_missing_unknown_or_ill_typed_is_named() {
        check(json!({ "training_file": "" }), Err("\"param\":\"training_file\""));
        check(json!({ "modl": "x" }), Err("`modl` is not known"));
        check(json!({ "n_epochs": "3" }), Err("`n_epochs` must be an integer"));
        check(json!({ "n_epochs": null }), Err("`n_epochs` must be an integer"));
        check(json!({ "batch_size": "min" }), Err("`batch_size` must be an integer or"));
        check(
            json!({ "training_type": { "type": "Lora", "lora_r": 8.5, "lora_alpha": 1 } }),
            Err("training_type.lora_r"),
        );
        check(json!({ "training_type": { "type": "lora" } }), Err("must be `Lora` or `Full`"));
        check(
            json!({ "training_type": { "type": "Full", "lora_r": 8 } }),
            Err("`training_type.lora_r` is not known"),
        );
        check(json!({ "training_method": { "method": "sft" } }), Err("`train_on_inputs` is missing"));
        check(
            json!({ "training_method": { "method": "sft", "train_on_inputs": true, "dpo_beta": 0.1 } }),
            Err("does not go with"),
        );
        check(
            json!({ "lr_scheduler": { "lr_scheduler_type": "linear", "lr_scheduler_args": { "num_cycles": 1 } } }),
            Err("num_cycles` is not known"),
        );
        check(json!({ "from_checkpoint": "ft-1" }), Err("exactly one of"));
    }

    #[test]
    fn what_is_over_a_limit_is_refused() {
        check(
            json!({ "model": "meta-llama/Meta-Llama-3.1-8B-Instruct" }),
            Err("not available for fine-tuning"),
        );
        check(
            json!({ "training_type": { "type": "Lora", "lora_r": 128, "lora_alpha": 16 } }),
            Err("between 1 and 64, not 128"),
        );
        check(
            json!({ "model": "Qwen/Qwen3-0.6B", "training_type": { "type": "Full" } }),
            Err("full training is not supported"),
        );
        check(json!({ "n_epochs": 21 }), Err("between 1 and 20, not 21"));
        check(json!({ "n_evals": 1 }), Err("needs a `validation_file`"));
        check(json!({ "batch_size": 4 }), Err("between 8 and 64, not 4"));
        check(json!({ "learning_rate": 0.5 }), Err("`learning_rate` must be between"));
        check(json!({ "max_seq_length": 100 }), Err("`max_seq_length` must be between"));
        check(json!({ "suffix": "é".repeat(41) }), Err("more than 40 characters"));
        check(json!({ "early_stopping_enabled": true }), Err("early stopping needs"));
    }

    #[test]
    fn a_child_trains_what_its_parent_did_and_nothing_else() {
        let lora = |rank: u64| json!({ "type": "Lora", "lora_r": rank, "lora_alpha": 16 });
        let child = |parent: Value, asked: Option<Value>| {
            let mut body = json!({ "training_file": "f", "from_checkpoint": "ft-1" });
            if let Some(asked) = asked {
                body["training_type"] = asked;
            }
            let model = models::find("Qwen/Qwen3-8B").unwrap();
            let parent = Parent { model, training_type: parent };
            order(&body, |_| Some(parent.clone())).map(|order| order.training_type)
        };
        let full = || json!({ "type": "Full" });
        assert_eq!(child(lora(8), None).ok(), Some(lora(8)));
        assert_eq!(child(full(), None).ok(), Some(full()));
        let mut said = lora(8);
        said["lora_dropout"] = json!(0);
        said["lora_trainable_modules"] = json!("all-linear");
        assert_eq!(child(lora(8), Some(said.clone())).ok(), Some(said));
        assert_eq!(child(full(), Some(full())).ok(), Some(full()));
        for (parent, asked) in [(lora(8), lora(64)), (lora(8), full()), (full(), lora(8))] {
            assert_eq!(child(parent, Some(asked)).unwrap_err().status, 400);
        }
    }

    #[test]
    fn secrets_are_not_kept() {
        let body =
            json!({ "training_file": "f", "model": "Qwen/Qwen3-8B", "wandb_key": "a", "hf_api_token": "b" });
        let order = order(&body, |_| None).unwrap();
        assert_eq!(order.fields.keys().collect::<Vec<_>>(), ["training_file", "model"]);
    }
}
