//! What a job is asked to do: values as they were chosen, each with its origin, and the body
//! that says all of them.
//!
//! Pure. Nothing is left to the service's defaults, which change, and nothing is rounded or
//! mended on the way: what was set is what is sent. The fields are those of
//! `POST /v1/fine-tunes`.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Number, Value, json};

/// Who chose a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    Default,
    /// The configuration file.
    File,
    /// An environment variable.
    Env,
    /// A flag of the command line.
    Flag,
    /// The job that this one goes on from.
    Parent,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Env => "env",
            Origin::Flag => "flag",
            Origin::Parent => "parent",
        })
    }
}

/// A value and who chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen<T> {
    /// The value.
    pub value: T,
    /// Who chose it.
    pub origin: Origin,
}

/// Samples a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSize {
    /// The model's maximum, found by the service.
    Max,
    /// So many.
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

impl fmt::Display for BatchSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchSize::Max => formatter.write_str("max"),
            BatchSize::Samples(samples) => samples.fmt(formatter),
        }
    }
}

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl fmt::Display for Scheduler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Scheduler::Cosine => "cosine",
            Scheduler::Linear => "linear",
        })
    }
}

/// Whether the loss counts tokens of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainOnInputs {
    /// As the data's format has it: not for `messages`.
    Auto,
    /// Yes or no.
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

impl TrainOnInputs {
    fn value(self) -> Value {
        match self {
            TrainOnInputs::Auto => "auto".into(),
            TrainOnInputs::Always(truth) => truth.into(),
        }
    }
}

impl fmt::Display for TrainOnInputs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrainOnInputs::Auto => formatter.write_str("auto"),
            TrainOnInputs::Always(truth) => truth.fmt(formatter),
        }
    }
}

/// The model the seed names; today only its `-Reference` twin can be tuned.
pub const SEED_MODEL: &str = "meta-llama/Meta-Llama-3.1-8B-Instruct";

/// What a job's model is called at its end, unless somebody says otherwise.
pub const SEED_SUFFIX: &str = "socialized-context-generator";

/// The most characters of a suffix that leave room for the tag: the service takes 40.
pub const SUFFIX_CHARACTERS: usize = 31;

/// Everything that was chosen about a job. What is `None` was not said.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// The model to start from.
    pub base_model: Chosen<String>,
    /// A job or a tuned model to go on from, `:step` behind it or not; then `base_model` is not sent.
    pub from_checkpoint: Option<Chosen<String>>,
    /// Epochs.
    pub n_epochs: Chosen<u64>,
    /// Evaluations; `None`: one an epoch where there is validation data.
    pub n_evals: Option<Chosen<u64>>,
    /// Checkpoints; `None`: one an epoch where the model's limits allow.
    pub n_checkpoints: Option<Chosen<u64>>,
    /// The learning rate, exactly as set.
    pub learning_rate: Chosen<f64>,
    /// Samples a step.
    pub batch_size: Chosen<BatchSize>,
    /// Whether to train LoRA matrices instead of all weights.
    pub lora: Chosen<bool>,
    /// LoRA rank.
    pub lora_rank: Chosen<u64>,
    /// LoRA alpha.
    pub lora_alpha: Chosen<u64>,
    /// LoRA dropout, from 0 to below 1.
    pub lora_dropout: Chosen<f64>,
    /// The modules that LoRA trains.
    pub lora_trainable_modules: Chosen<String>,
    /// How the learning rate falls.
    pub lr_scheduler: Chosen<Scheduler>,
    /// The part of the learning rate that is left at the end, 0 to 1.
    pub min_lr_ratio: Chosen<f64>,
    /// Cycles of the cosine, above 0.
    pub lr_num_cycles: Chosen<f64>,
    /// The part of the steps in which the learning rate rises, 0 to 1.
    pub warmup_ratio: Chosen<f64>,
    /// Weight decay, from 0.
    pub weight_decay: Chosen<f64>,
    /// Where gradients are clipped; 0 for nowhere.
    pub max_grad_norm: Chosen<f64>,
    /// Whether several samples share a sequence.
    pub packing: Chosen<bool>,
    /// The longest sequence in tokens; `None`: the model's.
    pub max_seq_length: Option<Chosen<u64>>,
    /// Steps whose gradients are added up; `None`: the service's.
    pub gradient_accumulation_steps: Option<Chosen<u64>>,
    /// Whether the loss counts tokens of the prompt.
    pub train_on_inputs: Chosen<TrainOnInputs>,
    /// The seed of the training.
    pub random_seed: Chosen<u64>,
    /// What the tuned model's name ends in, before our tag.
    pub suffix: Chosen<String>,
    /// Whether training stops when the validation loss no longer falls.
    pub early_stopping: Chosen<bool>,
    /// Evaluations without progress that it bears; `None`: the service's 2.
    pub early_stopping_patience: Option<Chosen<u64>>,
    /// The least progress that counts; `None`: the service's.
    pub early_stopping_min_delta: Option<Chosen<f64>>,
    /// Evaluations before it begins to count; `None`: the service's 1.
    pub early_stopping_warmup_evals: Option<Chosen<u64>>,
}

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
    /// Whether the job's training type is that of the job it goes on from: nobody set a key of LoRA.
    /// Any that was sent would be another one than the parent's.
    pub fn inherits_training_type(&self) -> bool {
        let origins = [
            self.lora.origin,
            self.lora_rank.origin,
            self.lora_alpha.origin,
            self.lora_dropout.origin,
            self.lora_trainable_modules.origin,
        ];
        self.from_checkpoint.is_some() && origins.iter().all(|origin| *origin == Origin::Default)
    }
}

/// The files a job reads.
#[derive(Debug, Clone, Copy)]
pub struct Files<'f> {
    /// The training file's id.
    pub train: &'f str,
    /// The validation file's id.
    pub val: Option<&'f str>,
}

/// Parameters for one model and one corpus: nothing is open any more.
#[derive(Debug, Clone)]
pub struct Settled {
    /// What was chosen; `base_model` is the name the service knows.
    pub parameters: Parameters,
    /// Evaluations.
    pub n_evals: Chosen<u64>,
    /// Checkpoints.
    pub n_checkpoints: Chosen<u64>,
}

impl Settled {
    /// The body of `POST /v1/fine-tunes`, every value said.
    pub fn body(&self, files: Files<'_>, suffix: &str) -> Value {
        let chosen = &self.parameters;
        let mut body = Map::new();
        let mut put = |key: &str, value: Value| body.insert(key.to_owned(), value);
        put("training_file", files.train.into());
        put("validation_file", files.val.unwrap_or_default().into());
        match &chosen.from_checkpoint {
            Some(checkpoint) => put("from_checkpoint", checkpoint.value.clone().into()),
            None => put("model", chosen.base_model.value.clone().into()),
        };
        put("n_epochs", chosen.n_epochs.value.into());
        put("n_evals", self.n_evals.value.into());
        put("n_checkpoints", self.n_checkpoints.value.into());
        put(
            "batch_size",
            match chosen.batch_size.value {
                BatchSize::Max => "max".into(),
                BatchSize::Samples(samples) => samples.into(),
            },
        );
        put("learning_rate", real(chosen.learning_rate.value));
        put("lr_scheduler", self.scheduler());
        put("warmup_ratio", real(chosen.warmup_ratio.value));
        put("max_grad_norm", real(chosen.max_grad_norm.value));
        put("weight_decay", real(chosen.weight_decay.value));
        put("packing", chosen.packing.value.into());
        if let Some(kind) = self.training_type() {
            put("training_type", kind);
        }
        let train_on_inputs = chosen.train_on_inputs.value.value();
        put("training_method", json!({ "method": "sft", "train_on_inputs": train_on_inputs }));
        put("suffix", suffix.into());
        put("random_seed", chosen.random_seed.value.into());
        put("early_stopping_enabled", chosen.early_stopping.value.into());
        body.extend(self.optional());
        Value::Object(body)
    }

    fn scheduler(&self) -> Value {
        let chosen = &self.parameters;
        let mut args = Map::new();
        args.insert("min_lr_ratio".to_owned(), real(chosen.min_lr_ratio.value));
        if chosen.lr_scheduler.value == Scheduler::Cosine {
            args.insert("num_cycles".to_owned(), real(chosen.lr_num_cycles.value));
        }
        json!({ "lr_scheduler_type": chosen.lr_scheduler.value.to_string(), "lr_scheduler_args": args })
    }

    /// What `training_type` says, also for an estimate of the price; nothing where it is inherited.
    pub fn training_type(&self) -> Option<Value> {
        let chosen = &self.parameters;
        if chosen.inherits_training_type() {
            return None;
        }
        if !chosen.lora.value {
            return Some(json!({ "type": "Full" }));
        }
        Some(json!({
            "type": "Lora",
            "lora_r": chosen.lora_rank.value,
            "lora_alpha": chosen.lora_alpha.value,
            "lora_dropout": real(chosen.lora_dropout.value),
            "lora_trainable_modules": chosen.lora_trainable_modules.value,
        }))
    }

    /// The fields that are sent only where somebody set them.
    fn optional(&self) -> impl Iterator<Item = (String, Value)> {
        let chosen = &self.parameters;
        let whole = |of: &Option<Chosen<u64>>| of.map(|chosen| Value::from(chosen.value));
        let stopping = chosen.early_stopping.value;
        let fields = [
            ("max_seq_length", whole(&chosen.max_seq_length)),
            ("gradient_accumulation_steps", whole(&chosen.gradient_accumulation_steps)),
            ("early_stopping_patience", whole(&chosen.early_stopping_patience).filter(|_| stopping)),
            (
                "early_stopping_min_delta",
                chosen.early_stopping_min_delta.map(|delta| real(delta.value)).filter(|_| stopping),
            ),
            ("early_stopping_warmup_evals", whole(&chosen.early_stopping_warmup_evals).filter(|_| stopping)),
        ];
        fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)))
    }

    /// The body of `POST /v1/fine-tunes/estimate-price`.
    pub fn estimate_body(&self, files: Files<'_>) -> Value {
        let chosen = &self.parameters;
        let train_on_inputs = chosen.train_on_inputs.value.value();
        let mut body = json!({
            "training_file": files.train,
            "n_epochs": chosen.n_epochs.value,
            "n_evals": self.n_evals.value,
            "training_method": { "method": "sft", "train_on_inputs": train_on_inputs },
        });
        if let Some(kind) = self.training_type() {
            body["training_type"] = kind;
        }
        if let Some(val) = files.val {
            body["validation_file"] = val.into();
        }
        match &chosen.from_checkpoint {
            Some(checkpoint) => body["from_checkpoint"] = checkpoint.value.clone().into(),
            None => body["model"] = chosen.base_model.value.clone().into(),
        }
        body
    }
}

/// A finite number in JSON, with the fewest digits that say it exactly.
fn real(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// The seed's parameters, for this module's tests and its neighbours'.
#[cfg(test)]
pub mod tests {
    use super::*;

    /// A value that nobody chose.
    pub fn chosen<T>(value: T) -> Chosen<T> {
        Chosen { value, origin: Origin::Default }
    }

    /// The seed's parameters.
    pub fn seed() -> Parameters {
        Parameters {
            base_model: chosen(SEED_MODEL.to_owned()),
            from_checkpoint: None,
            n_epochs: chosen(3),
            n_evals: None,
            n_checkpoints: None,
            learning_rate: chosen(1e-5),
            batch_size: chosen(BatchSize::Max),
            lora: chosen(true),
            lora_rank: chosen(64),
            lora_alpha: chosen(16),
            lora_dropout: chosen(0.0),
            lora_trainable_modules: chosen("all-linear".to_owned()),
            lr_scheduler: chosen(Scheduler::Cosine),
            min_lr_ratio: chosen(0.0),
            lr_num_cycles: chosen(0.5),
            warmup_ratio: chosen(0.0),
            weight_decay: chosen(0.0),
            max_grad_norm: chosen(1.0),
            packing: chosen(true),
            max_seq_length: None,
            gradient_accumulation_steps: None,
            train_on_inputs: chosen(TrainOnInputs::Auto),
            random_seed: chosen(42),
            suffix: chosen(SEED_SUFFIX.to_owned()),
            early_stopping: chosen(false),
            early_stopping_patience: None,
            early_stopping_min_delta: None,
            early_stopping_warmup_evals: None,
        }
    }

    /// These parameters with evaluations and checkpoints of three epochs.
    pub fn settled(parameters: Parameters) -> Settled {
        Settled { parameters, n_evals: chosen(3), n_checkpoints: chosen(3) }
    }

    #[test]
    fn the_body_says_every_value_exactly_as_set() {
        let files = Files { train: "file-t", val: Some("file-v") };
        let body = settled(seed()).body(files, "socialized-context-generator-0123abcd");
        assert_eq!(
            body.to_string(),
            concat!(
                r#"{"training_file":"file-t","validation_file":"file-v","#,
                r#""model":"meta-llama/Meta-Llama-3.1-8B-Instruct","n_epochs":3,"n_evals":3,"n_checkpoints":3,"#,
                r#""batch_size":"max","learning_rate":0.00001,"lr_scheduler":{"lr_scheduler_type":"cosine","#,
                r#""lr_scheduler_args":{"min_lr_ratio":0.0,"num_cycles":0.5}},"warmup_ratio":0.0,"#,
                r#""max_grad_norm":1.0,"weight_decay":0.0,"packing":true,"training_type":{"type":"Lora","#,
                r#""lora_r":64,"lora_alpha":16,"lora_dropout":0.0,"lora_trainable_modules":"all-linear"},"#,
                r#""training_method":{"method":"sft","train_on_inputs":"auto"},"#,
                r#""suffix":"socialized-context-generator-0123abcd","random_seed":42,"early_stopping_enabled":false}"#,
            )
        );
    }

    #[test]
    fn what_is_set_beyond_the_seed_is_sent_too() {
        let mut parameters = seed();
        parameters.lora = Chosen { value: false, origin: Origin::Flag };
        parameters.lr_scheduler.value = Scheduler::Linear;
        parameters.from_checkpoint = Some(chosen("ft-1:20".to_owned()));
        parameters.batch_size.value = BatchSize::Samples(16);
        parameters.max_seq_length = Some(chosen(4096));
        parameters.early_stopping.value = true;
        parameters.early_stopping_patience = Some(chosen(2));
        parameters.train_on_inputs.value = TrainOnInputs::Always(true);
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
        let sent = |change: fn(&mut Parameters)| {
            let mut parameters = seed();
            parameters.from_checkpoint = Some(chosen("ft-1".to_owned()));
            change(&mut parameters);
            let settled = settled(parameters);
            let (body, estimate) = (settled.body(files, "s"), settled.estimate_body(files));
            assert_eq!(body.get("training_type"), estimate.get("training_type"));
            body.get("training_type").cloned()
        };
        assert_eq!(sent(|_| {}), None);
        assert_eq!(sent(|of| of.n_epochs.origin = Origin::Flag), None);
        for origin in [Origin::File, Origin::Env, Origin::Flag] {
            let mut parameters = seed();
            parameters.from_checkpoint = Some(chosen("ft-1".to_owned()));
            parameters.lora_alpha.origin = origin;
            assert!(!parameters.inherits_training_type(), "{origin}");
        }
        let rank = |of: &mut Parameters| of.lora_rank = Chosen { value: 8, origin: Origin::Flag };
        assert_eq!(sent(rank).unwrap()["lora_r"], 8);
        assert!(sent(|of| of.lora.origin = Origin::File).is_some());
        assert!(sent(|of| of.lora_dropout.origin = Origin::File).is_some());
        assert!(sent(|of| of.lora_trainable_modules.origin = Origin::File).is_some());
        assert!(sent(|of| (of.from_checkpoint, of.lora.origin) = (None, Origin::Default)).is_some());
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
