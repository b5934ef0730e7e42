//! The body that creates a job: every field known, of its type, within the model's limits.
//!
//! Strictness is the use of a rehearsal: what the real service would refuse after an upload is refused here. It
//! judges a document; it creates nothing.

use serde_json::{Map, Value, json};

use crate::models::{self, MAX_LORA_RANK, Model};
use crate::reply::Reply;

#[derive(Debug)]
pub struct Order {
    /// The body as it was sent, without secrets.
    pub fields: Map<String, Value>,
    pub model: &'static Model,
    pub training_file: String,
    pub validation_file: Option<String>,
    pub epochs: u64,
    pub evals: u64,
    pub checkpoints: u64,
    pub batch_size: u64,
    /// The highest.
    pub learning_rate: f64,
    /// Part of the training in which the learning rate rises.
    pub warmup_ratio: f64,
    /// What was asked for, else the parent's, else the default.
    pub training_type: Value,
}

#[derive(Debug, Clone)]
pub struct Parent {
    pub model: &'static Model,
    pub training_type: Value,
}

impl Order {
    pub fn is_lora(&self) -> bool {
        self.training_type["type"] != "Full"
    }

    /// Whether it gives an adapter and nothing merged.
    pub fn gives_adapter_only(&self) -> bool {
        self.is_lora() && !self.model.merges_lora
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Count,
    Number,
    Flag,
    Object,
    /// A number of samples or `"max"`.
    Batch,
    FlagOrAuto,
}

type Fields = &'static [(Kind, &'static [&'static str])];

const FIELDS: Fields = &[
    (Kind::Text, &["training_file", "validation_file", "model", "from_checkpoint", "suffix"]),
    (Kind::Count, &["n_epochs", "n_evals", "n_checkpoints", "random_seed"]),
    (Kind::Batch, &["batch_size"]),
    (Kind::Count, &["gradient_accumulation_steps", "max_seq_length"]),
    (Kind::Number, &["learning_rate", "warmup_ratio", "weight_decay", "max_grad_norm"]),
    (Kind::Flag, &["packing", "early_stopping_enabled"]),
    (Kind::Object, &["lr_scheduler", "training_type", "training_method", "multimodal_params"]),
    (Kind::FlagOrAuto, &["train_on_inputs"]),
    (Kind::Count, &["early_stopping_patience", "early_stopping_warmup_evals"]),
    (Kind::Number, &["early_stopping_min_delta"]),
    (Kind::Text, &["wandb_key", "wandb_api_key", "wandb_base_url"]),
    (Kind::Text, &["wandb_project_name", "wandb_name", "wandb_entity"]),
    (Kind::Text, &["from_hf_model", "hf_model_revision", "hf_api_token", "hf_output_repo_name"]),
];

/// Fields of a body that are never given back.
const SECRETS: [&str; 3] = ["wandb_key", "wandb_api_key", "hf_api_token"];

const LORA: Fields = &[
    (Kind::Text, &["type", "lora_trainable_modules"]),
    (Kind::Count, &["lora_r", "lora_alpha"]),
    (Kind::Number, &["lora_dropout"]),
];
const FULL: Fields = &[(Kind::Text, &["type"])];
const SCHEDULER: Fields = &[(Kind::Text, &["lr_scheduler_type"]), (Kind::Object, &["lr_scheduler_args"])];
const LINEAR_ARGS: Fields = &[(Kind::Number, &["min_lr_ratio"])];
const COSINE_ARGS: Fields = &[(Kind::Number, &["min_lr_ratio", "num_cycles"])];
const SFT: Fields = &[(Kind::Text, &["method"]), (Kind::FlagOrAuto, &["train_on_inputs"])];
const DPO: Fields = &[
    (Kind::Text, &["method"]),
    (Kind::Number, &["dpo_beta", "rpo_alpha", "simpo_gamma"]),
    (Kind::Flag, &["dpo_normalize_logratios_by_length", "dpo_reference_free"]),
];

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

/// Reads the body of `POST /v1/fine-tunes`, or says which field the service would refuse first. `parent`
/// gives the job of a checkpoint.
pub fn order(body: &Value, parent: impl Fn(&str) -> Option<Parent>) -> Result<Order, Reply> {
    check_fields(body, "", FIELDS)?;
    let text = |name: &str| body[name].as_str().filter(|text| !text.is_empty());
    let count = |name: &str, absent: u64| body[name].as_u64().unwrap_or(absent);
    let (model, parent) = origin(text("model"), text("from_checkpoint"), parent)?;
    check_training_type(&body["training_type"], model)?;
    let training_type = training_type(&body["training_type"], parent.as_ref())?;
    let training_file = text("training_file").ok_or_else(|| Reply::missing("training_file"))?;
    let mut fields = body.as_object().cloned().unwrap_or_default();
    fields.retain(|name, _| !SECRETS.contains(&name.as_str()));
    let order = Order {
        model,
        training_file: training_file.to_owned(),
        validation_file: text("validation_file").map(str::to_owned),
        epochs: count("n_epochs", 1),
        evals: count("n_evals", 0),
        checkpoints: count("n_checkpoints", 1),
        batch_size: count("batch_size", models::BATCH_SIZES[1]),
        learning_rate: body["learning_rate"].as_f64().unwrap_or(1e-5),
        warmup_ratio: body["warmup_ratio"].as_f64().unwrap_or(0.0),
        training_type,
        fields,
    };
    check_bounds(&order, body)?;
    check_scheduler(&body["lr_scheduler"])?;
    check_method(&body["training_method"])?;
    check_early_stopping(&order, body)?;
    Ok(order)
}

/// Refuses fields of an object that are not known or of another type; `inside` is the path to it.
fn check_fields(object: &Value, inside: &str, known: Fields) -> Result<(), Reply> {
    for (name, value) in object.as_object().into_iter().flatten() {
        let path = format!("{inside}{name}");
        match known.iter().find(|(_, names)| names.contains(&name.as_str())) {
            None => return Err(Reply::unknown(&path)),
            Some((kind, _)) if !kind.fits(value) => {
                return Err(Reply::field(&path, format!("`{path}` must be {}, not {value}", kind.name())));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The model that is trained, and the job whose checkpoint it continues from, if there is one.
fn origin(
    name: Option<&str>,
    checkpoint: Option<&str>,
    parent: impl Fn(&str) -> Option<Parent>,
) -> Result<(&'static Model, Option<Parent>), Reply> {
    match (name, checkpoint) {
        (Some(name), None) => Ok((models::find(name)?, None)),
        (None, Some(checkpoint)) => {
            let message = || format!("checkpoint `{checkpoint}` does not exist");
            let parent = parent(checkpoint).ok_or_else(|| Reply::field("from_checkpoint", message()))?;
            Ok((parent.model, Some(parent)))
        }
        _ => Err(Reply::field("model", "exactly one of `model` and `from_checkpoint` is needed")),
    }
}

/// What the job trains: a child trains what its parent did, and is refused where it asks for something else.
fn training_type(asked: &Value, parent: Option<&Parent>) -> Result<Value, Reply> {
    match parent.map(|parent| &parent.training_type) {
        None if asked.is_null() => {
            Ok(json!({ "type": "Lora", "lora_r": MAX_LORA_RANK, "lora_alpha": 2 * MAX_LORA_RANK }))
        }
        Some(inherited) if asked.is_null() => Ok(inherited.clone()),
        Some(inherited) if whole_type(asked) != whole_type(inherited) => Err(Reply::field(
            "training_type",
            format!(
                "`training_type` {asked} differs from {inherited} of the parent job: leave it out to inherit it"
            ),
        )),
        _ => Ok(asked.clone()),
    }
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

fn check_bounds(order: &Order, body: &Value) -> Result<(), Reply> {
    if order.evals > 0 && order.validation_file.is_none() {
        return Err(Reply::field("n_evals", "`n_evals` above 0 needs a `validation_file`"));
    }
    if body["suffix"].as_str().unwrap_or_default().chars().count() > MAX_SUFFIX_CHARS {
        return Err(Reply::field("suffix", format!("`suffix` has more than {MAX_SUFFIX_CHARS} characters")));
    }
    let bounds = [
        ("n_epochs", 1.0, models::MAX_EPOCHS as f64),
        ("n_evals", 0.0, models::MAX_EVALS as f64),
        ("n_checkpoints", 1.0, models::MAX_CHECKPOINTS as f64),
        ("batch_size", models::BATCH_SIZES[0] as f64, models::BATCH_SIZES[1] as f64),
        ("learning_rate", models::LEARNING_RATES[0], models::LEARNING_RATES[1]),
        ("warmup_ratio", 0.0, 1.0),
        ("weight_decay", 0.0, f64::MAX),
        ("max_grad_norm", 0.0, f64::MAX),
        ("max_seq_length", models::MIN_MAX_SEQ_LENGTH as f64, order.model.max_seq_length as f64),
    ];
    for (name, least, most) in bounds {
        let value = body[name].as_f64().unwrap_or(least);
        if value < least || value > most {
            let message = format!("`{name}` must be between {least} and {most}, not {value}");
            return Err(Reply::field(name, message));
        }
    }
    Ok(())
}

fn check_scheduler(scheduler: &Value) -> Result<(), Reply> {
    let known = match scheduler["lr_scheduler_type"].as_str() {
        _ if scheduler.is_null() => return Ok(()),
        Some("cosine") => COSINE_ARGS,
        Some("linear") => LINEAR_ARGS,
        _ => return Err(Reply::field("lr_scheduler.lr_scheduler_type", "must be `linear` or `cosine`")),
    };
    check_fields(scheduler, "lr_scheduler.", SCHEDULER)?;
    check_fields(&scheduler["lr_scheduler_args"], "lr_scheduler.lr_scheduler_args.", known)
}

fn check_training_type(kind: &Value, model: &Model) -> Result<(), Reply> {
    match kind["type"].as_str() {
        _ if kind.is_null() => return Ok(()),
        Some("Lora") => check_fields(kind, "training_type.", LORA)?,
        Some("Full") if model.has_full_training => return check_fields(kind, "training_type.", FULL),
        Some("Full") => {
            let message = format!("full training is not supported for model `{}`", model.name);
            return Err(Reply::field("training_type.type", message));
        }
        _ => return Err(Reply::field("training_type.type", "must be `Lora` or `Full`")),
    }
    let rank = kind["lora_r"].as_u64().ok_or_else(|| Reply::missing("training_type.lora_r"))?;
    if rank == 0 || rank > MAX_LORA_RANK {
        let message = format!("LoRA rank must be between 1 and {MAX_LORA_RANK}, not {rank}");
        return Err(Reply::field("training_type.lora_r", message));
    }
    if kind["lora_alpha"].as_u64().unwrap_or(0) == 0 {
        return Err(Reply::field("training_type.lora_alpha", "`training_type.lora_alpha` must be positive"));
    }
    if !(0.0..1.0).contains(&kind["lora_dropout"].as_f64().unwrap_or(0.0)) {
        return Err(Reply::field("training_type.lora_dropout", "LoRA dropout must be in [0, 1)"));
    }
    Ok(())
}

fn check_method(method: &Value) -> Result<(), Reply> {
    match method["method"].as_str() {
        _ if method.is_null() => Ok(()),
        Some("sft") if method["train_on_inputs"].is_null() => {
            Err(Reply::missing("training_method.train_on_inputs"))
        }
        Some("sft") => check_fields(method, "training_method.", SFT),
        Some("dpo") => check_fields(method, "training_method.", DPO),
        _ => Err(Reply::field("training_method.method", "must be `sft` or `dpo`")),
    }
}

fn check_early_stopping(order: &Order, body: &Value) -> Result<(), Reply> {
    if body["early_stopping_enabled"] != true {
        return Ok(());
    }
    let count = |name: &str, absent: u64| body[name].as_u64().unwrap_or(absent);
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
        check(json!({ "training_method": { "method": "sft" } }), Err("train_on_inputs` is missing"));
        check(
            json!({ "training_method": { "method": "sft", "train_on_inputs": true, "dpo_beta": 0.1 } }),
            Err("`training_method.dpo_beta` is not known"),
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
