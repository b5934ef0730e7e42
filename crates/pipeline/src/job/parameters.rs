//! What a job is asked to do, and the body that says so.
//!
//! [`Parameters`] is the one list of parameters: a field is a flag, a key of the configuration file, what a
//! sweep may vary, a line of the table, a key of the W&B run and part of the tag. A new one is an `Option`:
//! it is sent, and part of the tag, only where somebody set it.
//!
//! Pure. Nothing is rounded or corrected on the way: what was set is what is sent. The fields of the body are
//! those of `POST /v1/fine-tunes`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use clap::{ArgAction, Args, Command, FromArgMatches};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::value::{number, parsed, truth, whole};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Default,
    File,
    Flag,
    /// The job that this one goes on from.
    Parent,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Flag => "flag",
            Origin::Parent => "parent",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSize {
    /// The model's maximum, found by the service.
    Max,
    Samples(u64),
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<BatchSize, String> {
        match text.parse() {
            Ok(samples @ 1..) => Ok(BatchSize::Samples(samples)),
            Err(_) if text == "max" => Ok(BatchSize::Max),
            Ok(0) | Err(_) => Err("expected `max` or a whole number, at least 1".to_owned()),
        }
    }
}

impl Serialize for BatchSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            BatchSize::Max => serializer.serialize_str("max"),
            BatchSize::Samples(samples) => serializer.serialize_u64(*samples),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// Along a cosine.
    Cosine,
    /// Along a line.
    Linear,
}

impl FromStr for Scheduler {
    type Err = String;

    fn from_str(text: &str) -> Result<Scheduler, String> {
        match text {
            "cosine" => Ok(Scheduler::Cosine),
            "linear" => Ok(Scheduler::Linear),
            _ => Err("expected `cosine` or `linear`".to_owned()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainOnInputs {
    /// As the data's format has it: not for `messages`.
    Auto,
    Always(bool),
}

impl FromStr for TrainOnInputs {
    type Err = String;

    fn from_str(text: &str) -> Result<TrainOnInputs, String> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(TrainOnInputs::Auto),
            "true" => Ok(TrainOnInputs::Always(true)),
            "false" => Ok(TrainOnInputs::Always(false)),
            _ => Err("expected `auto`, `true` or `false`".to_owned()),
        }
    }
}

impl Serialize for TrainOnInputs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            TrainOnInputs::Auto => serializer.serialize_str("auto"),
            TrainOnInputs::Always(truth) => serializer.serialize_bool(*truth),
        }
    }
}

/// The model the seed names; today only its `-Reference` twin can be tuned.
pub const SEED_MODEL: &str = "meta-llama/Meta-Llama-3.1-8B-Instruct";
/// What a job's model is called at its end, unless somebody says otherwise.
pub(crate) const SEED_SUFFIX: &str = "socialized-context-generator";
/// The most characters of a suffix that leave room for the tag: the service takes 40.
pub(crate) const SUFFIX_CHARACTERS: usize = 31;

/// Everything that is chosen about a job. What is `None` was not said.
#[derive(Debug, Clone, Args, Serialize)]
#[command(next_help_heading = "Training")]
pub struct Parameters {
    /// Model to start from
    #[arg(long, value_name = "MODEL", default_value = SEED_MODEL)]
    pub base_model: String,
    /// Job or tuned model to continue from, instead of a base model
    #[arg(long, value_name = "JOB|MODEL[:STEP]")]
    pub from_checkpoint: Option<String>,
    /// Epochs
    #[arg(long, value_name = "N", default_value = "3", value_parser = whole::<u64>)]
    pub n_epochs: u64,
    /// Evaluations on the validation data [default: one an epoch]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub n_evals: Option<u64>,
    /// Checkpoints to keep [default: one an epoch, where the model allows]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub n_checkpoints: Option<u64>,
    /// Learning rate, sent exactly as set
    #[arg(long, value_name = "RATE", default_value = "1e-5", value_parser = number)]
    pub learning_rate: f64,
    /// Batch size in samples, or `max`
    #[arg(long, value_name = "max|N", default_value = "max", value_parser = parsed::<BatchSize>)]
    pub batch_size: BatchSize,
    /// Train LoRA matrices; false trains all weights
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set, value_parser = truth)]
    pub lora: bool,
    /// LoRA rank
    #[arg(long, value_name = "N", default_value = "64", value_parser = whole::<u64>)]
    pub lora_rank: u64,
    /// LoRA alpha
    #[arg(long, value_name = "N", default_value = "16", value_parser = whole::<u64>)]
    pub lora_alpha: u64,
    /// LoRA dropout, from 0 to below 1
    #[arg(long, value_name = "PART", default_value = "0", value_parser = number)]
    pub lora_dropout: f64,
    /// Modules that LoRA trains
    #[arg(long, value_name = "NAMES", default_value = "all-linear")]
    pub lora_trainable_modules: String,
    /// Learning rate scheduler
    #[arg(long, value_name = "cosine|linear", default_value = "cosine")]
    pub lr_scheduler: Scheduler,
    /// Learning rate at the end, as a fraction of the learning rate
    #[arg(long, value_name = "PART", default_value = "0", value_parser = number)]
    pub min_lr_ratio: f64,
    /// Cycles of the cosine
    #[arg(long, value_name = "N", default_value = "0.5", value_parser = number)]
    pub lr_num_cycles: f64,
    /// Learning rate warmup, as a fraction of the steps
    #[arg(long, value_name = "PART", default_value = "0", value_parser = number)]
    pub warmup_ratio: f64,
    /// Weight decay
    #[arg(long, value_name = "X", default_value = "0", value_parser = number)]
    pub weight_decay: f64,
    /// Max gradient norm for clipping; 0 turns clipping off
    #[arg(long, value_name = "X", default_value = "1", value_parser = number)]
    pub max_grad_norm: f64,
    /// Sequence packing; without it every sample costs a whole sequence
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set, value_parser = truth)]
    pub packing: bool,
    /// Longest sequence in tokens [default: the model's]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub max_seq_length: Option<u64>,
    /// Gradient accumulation steps [default: the service's]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub gradient_accumulation_steps: Option<u64>,
    /// Count tokens of the prompt in the loss
    #[arg(long, value_name = "auto|BOOL", default_value = "auto")]
    pub train_on_inputs: TrainOnInputs,
    /// Seed of the training [default: the seed of the split]
    #[arg(long, value_name = "N", default_value = "42", hide_default_value = true, value_parser = whole::<u64>)]
    pub random_seed: u64,
    /// What the tuned model's name ends in; at most 31 characters
    #[arg(long, value_name = "TEXT", default_value = SEED_SUFFIX)]
    pub suffix: String,
    /// Stop when the validation loss no longer falls
    #[arg(long, value_name = "BOOL", default_value = "false", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set, value_parser = truth)]
    pub early_stopping: bool,
    /// Early-stopping patience, in evaluations [default: the service's]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub early_stopping_patience: Option<u64>,
    /// Least improvement of the validation loss that counts [default: the service's]
    #[arg(long, value_name = "X", value_parser = number)]
    pub early_stopping_min_delta: Option<f64>,
    /// Evaluations before early stopping begins [default: the service's]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub early_stopping_warmup_evals: Option<u64>,

    /// Who chose the values that are no defaults, by key.
    #[arg(skip)]
    #[serde(skip)]
    pub(crate) origins: BTreeMap<String, Origin>,
}

/// Where the body has a parameter that is not at its top under its key.
const PLACES: [(&str, &str); 11] = [
    ("base_model", "/model"),
    ("lora", "/training_type/type"),
    ("lora_rank", "/training_type/lora_r"),
    ("lora_alpha", "/training_type/lora_alpha"),
    ("lora_dropout", "/training_type/lora_dropout"),
    ("lora_trainable_modules", "/training_type/lora_trainable_modules"),
    ("lr_scheduler", "/lr_scheduler/lr_scheduler_type"),
    ("min_lr_ratio", "/lr_scheduler/lr_scheduler_args/min_lr_ratio"),
    ("lr_num_cycles", "/lr_scheduler/lr_scheduler_args/num_cycles"),
    ("train_on_inputs", "/training_method/train_on_inputs"),
    ("early_stopping", "/early_stopping_enabled"),
];

/// The JSON pointer to `key` in the body, and in the job that the service shows.
pub(crate) fn place(key: &str) -> String {
    PLACES
        .iter()
        .find(|(known, _)| *known == key)
        .map_or_else(|| format!("/{key}"), |(_, place)| (*place).to_owned())
}

/// The fields of the body that an estimate of the price takes, too.
const ESTIMATED: [&str; 8] = [
    "training_file",
    "validation_file",
    "model",
    "from_checkpoint",
    "n_epochs",
    "n_evals",
    "training_type",
    "training_method",
];

/// The keys of all that the price of a job depends on, by the body of its estimate or by what an estimate
/// leaves out.
pub const PRICED: [&str; 12] = [
    "base_model",
    "from_checkpoint",
    "n_epochs",
    "n_evals",
    "lora",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_trainable_modules",
    "train_on_inputs",
    "packing",
    "max_seq_length",
];

impl Parameters {
    /// The command line that knows the parameters and nothing else: it reads every value, wherever it was said.
    pub(crate) fn command() -> Command {
        Parameters::augment_args(Command::new("parameters").no_binary_name(true).disable_help_flag(true))
    }

    pub(crate) fn of_defaults() -> Parameters {
        let matches = Parameters::command().try_get_matches_from(Vec::<String>::new());
        matches.and_then(|matches| Parameters::from_arg_matches(&matches)).expect("every default can be read")
    }

    /// The keys, in the order of the fields.
    pub(crate) fn keys() -> Vec<String> {
        Parameters::command().get_arguments().map(|argument| argument.get_id().to_string()).collect()
    }

    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).copied().unwrap_or(Origin::Default)
    }

    /// Whether the job's training type is that of the job it continues from: nobody set a key of LoRA.
    /// Any that was sent would be another one than the parent's.
    pub(crate) fn inherits_training_type(&self) -> bool {
        let is_of_lora = |key: &str| key == "lora" || key.starts_with("lora_");
        self.from_checkpoint.is_some() && !self.origins.keys().any(|key| is_of_lora(key))
    }

    /// Whether `key` means anything beside the other values.
    fn applies(&self, key: &str) -> bool {
        match key {
            "base_model" => self.from_checkpoint.is_none(),
            "lora" => !self.inherits_training_type(),
            "lr_num_cycles" => self.lr_scheduler == Scheduler::Cosine,
            _ if key.starts_with("lora_") => self.lora && !self.inherits_training_type(),
            _ if key.starts_with("early_stopping_") => self.early_stopping,
            _ => true,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Files<'f> {
    pub train: &'f str,
    pub val: Option<&'f str>,
}

/// Parameters for one model and one corpus: nothing is open any more.
#[derive(Debug, Clone)]
pub struct Settled {
    /// What was chosen; `base_model` is the name the service knows.
    pub parameters: Parameters,
    pub n_evals: u64,
    pub n_checkpoints: u64,
}

impl Settled {
    pub(crate) fn values(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut values)) = serde_json::to_value(&self.parameters) else {
            unreachable!("a struct of numbers and texts is an object");
        };
        values.insert("n_evals".to_owned(), self.n_evals.into());
        values.insert("n_checkpoints".to_owned(), self.n_checkpoints.into());
        values.retain(|key, value| !value.is_null() && self.parameters.applies(key));
        values
    }

    /// The body of `POST /v1/fine-tunes`.
    pub fn body(&self, files: Files<'_>, suffix: &str) -> Value {
        let mut body = json!({
            "training_file": files.train,
            "validation_file": files.val.unwrap_or_default(),
            "training_method": { "method": "sft" },
        });
        for (key, value) in self.values() {
            let place = place(&key);
            let field = place.split('/').skip(1).fold(&mut body, |object, name| &mut object[name]);
            *field = match key.as_str() {
                "lora" => if self.parameters.lora { "Lora" } else { "Full" }.into(),
                "suffix" => suffix.into(),
                _ => value,
            };
        }
        body
    }

    /// The body of `POST /v1/fine-tunes/estimate-price`.
    pub(crate) fn estimate_body(&self, files: Files<'_>) -> Value {
        let body = self.body(files, "");
        let is_sent = |field: &&str| *field != "validation_file" || files.val.is_some();
        let fields = ESTIMATED.into_iter().filter(is_sent);
        fields.filter_map(|field| Some((field.to_owned(), body.get(field)?.clone()))).collect()
    }
}

/// The seed's parameters, for this module's tests and its neighbours'.
#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::config::TuneChoices;

    /// The seed's parameters.
    pub fn seed() -> Parameters {
        TuneChoices::default().resolve(TuneChoices::default(), 42)
    }

    /// These parameters with evaluations and checkpoints of three epochs.
    pub fn settled(parameters: Parameters) -> Settled {
        Settled { parameters, n_evals: 3, n_checkpoints: 3 }
    }

    #[test]
    fn the_body_says_every_value_exactly_as_set() {
        let files = Files { train: "file-t", val: Some("file-v") };
        let body = settled(seed()).body(files, "socialized-context-generator-0123abcd");
        assert_eq!(
            body.to_string(),
            concat!(
                r#"{"training_file":"file-t","validation_file":"file-v","#,
                r#""training_method":{"method":"sft","train_on_inputs":"auto"},"#,
                r#""model":"meta-llama/Meta-Llama-3.1-8B-Instruct","n_epochs":3,"n_evals":3,"n_checkpoints":3,"#,
                r#""learning_rate":0.00001,"batch_size":"max","training_type":{"type":"Lora","lora_r":64,"#,
                r#""lora_alpha":16,"lora_dropout":0.0,"lora_trainable_modules":"all-linear"},"#,
                r#""lr_scheduler":{"lr_scheduler_type":"cosine","lr_scheduler_args":{"min_lr_ratio":0.0,"num_cycles":0.5}},"#,
                r#""warmup_ratio":0.0,"weight_decay":0.0,"max_grad_norm":1.0,"packing":true,"random_seed":42,"#,
                r#""suffix":"socialized-context-generator-0123abcd","early_stopping_enabled":false}"#,
            )
        );
    }

    #[test]
    fn an_estimate_is_asked_for_what_the_price_depends_on() {
        let settled = settled(seed());
        let estimate = |val| settled.estimate_body(Files { train: "file-t", val });
        assert_eq!(
            estimate(Some("file-v")),
            json!({
                "training_file": "file-t", "validation_file": "file-v", "n_epochs": 3, "n_evals": 3,
                "model": "meta-llama/Meta-Llama-3.1-8B-Instruct",
                "training_type": {
                    "type": "Lora", "lora_r": 64, "lora_alpha": 16, "lora_dropout": 0.0,
                    "lora_trainable_modules": "all-linear",
                },
                "training_method": { "method": "sft", "train_on_inputs": "auto" },
            })
        );
        assert_eq!(estimate(None).get("validation_file"), None);
    }

    #[test]
    fn what_is_set_beyond_the_seed_is_sent_too() {
        let parameters = Parameters {
            lora: false,
            origins: [("lora".to_owned(), Origin::Flag)].into(),
            lr_scheduler: Scheduler::Linear,
            from_checkpoint: Some("ft-1:20".to_owned()),
            batch_size: BatchSize::Samples(16),
            max_seq_length: Some(4096),
            early_stopping: true,
            early_stopping_patience: Some(2),
            train_on_inputs: TrainOnInputs::Always(true),
            ..seed()
        };
        let body = settled(parameters).body(Files { train: "file-t", val: None }, "s");
        assert_eq!(body["training_type"], json!({ "type": "Full" }));
        assert_eq!(body["lr_scheduler"]["lr_scheduler_args"], json!({ "min_lr_ratio": 0.0 }));
        assert_eq!((&body["from_checkpoint"], body.get("model")), (&json!("ft-1:20"), None));
        assert_eq!((&body["batch_size"], &body["max_seq_length"]), (&json!(16), &json!(4096)));
        assert_eq!(body["early_stopping_patience"], 2);
        assert_eq!(body["training_method"]["train_on_inputs"], true);
        assert_eq!(body["validation_file"], "");
    }

    #[test]
    fn a_job_from_a_checkpoint_inherits_its_training_type_unless_a_lora_key_was_set() {
        let files = Files { train: "file-t", val: None };
        let sent = |checkpoint: Option<&str>, key: &str, origin: Origin| {
            let from_checkpoint = checkpoint.map(str::to_owned);
            let parameters =
                Parameters { from_checkpoint, origins: [(key.to_owned(), origin)].into(), ..seed() };
            let settled = settled(parameters);
            let (body, estimate) = (settled.body(files, "s"), settled.estimate_body(files));
            assert_eq!(body.get("training_type"), estimate.get("training_type"));
            body.get("training_type").is_some()
        };
        assert!(!sent(Some("ft-1"), "n_epochs", Origin::Flag));
        for key in ["lora", "lora_rank", "lora_alpha", "lora_dropout", "lora_trainable_modules"] {
            assert!(sent(Some("ft-1"), key, Origin::File) && sent(Some("ft-1"), key, Origin::Flag), "{key}");
        }
        assert!(sent(None, "n_epochs", Origin::Flag));
    }

    #[test]
    fn values_are_read_as_people_write_them() {
        assert_eq!("max".parse(), Ok(BatchSize::Max));
        assert_eq!("8".parse(), Ok(BatchSize::Samples(8)));
        assert!("0".parse::<BatchSize>().is_err() && "big".parse::<BatchSize>().is_err());
        assert_eq!("True".parse(), Ok(TrainOnInputs::Always(true)));
        assert!("sine".parse::<Scheduler>().is_err());
    }
}
