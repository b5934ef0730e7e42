//! What somebody chose about a fine-tuning job: keys of the file, flags, and the seed's defaults.
//!
//! One list serves the file and the command line, so that every key is also a flag. Which
//! values a model allows is not known here: `tune` asks the service.

use std::str::FromStr;

use clap::{Args, Parser};
use serde_json::Value;

use crate::config::value::{number, parsed, whole};
use crate::config::{ConfigError, ConfigFile, prepare, suggestion};
use crate::job::parameters::{
    BatchSize, Chosen, Origin, Parameters, SEED_MODEL, SEED_SUFFIX, Scheduler, TrainOnInputs,
};

/// The keys of a configuration file that are about a job.
pub const KEYS: [&str; 30] = [
    "base_model",
    "from_checkpoint",
    "n_epochs",
    "n_evals",
    "n_checkpoints",
    "learning_rate",
    "batch_size",
    "lora",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_trainable_modules",
    "lr_scheduler",
    "min_lr_ratio",
    "lr_num_cycles",
    "warmup_ratio",
    "weight_decay",
    "max_grad_norm",
    "packing",
    "max_seq_length",
    "gradient_accumulation_steps",
    "train_on_inputs",
    "random_seed",
    "suffix",
    "early_stopping",
    "early_stopping_patience",
    "early_stopping_min_delta",
    "early_stopping_warmup_evals",
    "wandb_project",
    "wandb_run_name",
];

/// A truth value as YAML and Python write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch(pub bool);

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Switch, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(Switch(true)),
            "false" | "no" | "off" | "0" => Ok(Switch(false)),
            _ => Err("expected `true` or `false`".to_owned()),
        }
    }
}

/// What somebody chose about a job; `None` where nothing was said.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Training")]
pub struct TuneChoices {
    /// Model to start from [default: meta-llama/Meta-Llama-3.1-8B-Instruct]
    #[arg(long, value_name = "MODEL")]
    pub base_model: Option<String>,
    /// Job or tuned model to go on from, instead of a base model
    #[arg(long, value_name = "JOB|MODEL[:STEP]")]
    pub from_checkpoint: Option<String>,
    /// Epochs [default: 3]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub n_epochs: Option<u64>,
    /// Evaluations on the validation data [default: one an epoch]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub n_evals: Option<u64>,
    /// Checkpoints to keep [default: one an epoch, where the model allows]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub n_checkpoints: Option<u64>,
    /// Learning rate, sent exactly as set [default: 1e-5]
    #[arg(long, value_name = "RATE", value_parser = number)]
    pub learning_rate: Option<f64>,
    /// Samples a step, or `max` [default: max]
    #[arg(long, value_name = "max|N", value_parser = parsed::<BatchSize>)]
    pub batch_size: Option<BatchSize>,
    /// Train LoRA matrices; false trains all weights [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub lora: Option<Switch>,
    /// LoRA rank [default: 64]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub lora_rank: Option<u64>,
    /// LoRA alpha [default: 16]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub lora_alpha: Option<u64>,
    /// LoRA dropout, from 0 to below 1 [default: 0]
    #[arg(long, value_name = "PART", value_parser = number)]
    pub lora_dropout: Option<f64>,
    /// Modules that LoRA trains [default: all-linear]
    #[arg(long, value_name = "NAMES")]
    pub lora_trainable_modules: Option<String>,
    /// How the learning rate falls [default: cosine]
    #[arg(long, value_name = "cosine|linear")]
    pub lr_scheduler: Option<Scheduler>,
    /// Part of the learning rate that is left at the end [default: 0]
    #[arg(long, value_name = "PART", value_parser = number)]
    pub min_lr_ratio: Option<f64>,
    /// Cycles of the cosine [default: 0.5]
    #[arg(long, value_name = "N", value_parser = number)]
    pub lr_num_cycles: Option<f64>,
    /// Part of the steps in which the learning rate rises [default: 0]
    #[arg(long, value_name = "PART", value_parser = number)]
    pub warmup_ratio: Option<f64>,
    /// Weight decay [default: 0]
    #[arg(long, value_name = "X", value_parser = number)]
    pub weight_decay: Option<f64>,
    /// Where gradients are clipped; 0 for nowhere [default: 1]
    #[arg(long, value_name = "X", value_parser = number)]
    pub max_grad_norm: Option<f64>,
    /// Let samples share a sequence; without it every sample costs a whole one [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub packing: Option<Switch>,
    /// Longest sequence in tokens [default: the model's]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub max_seq_length: Option<u64>,
    /// Steps whose gradients are added up [default: the service's]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub gradient_accumulation_steps: Option<u64>,
    /// Count tokens of the prompt in the loss [default: auto]
    #[arg(long, value_name = "auto|BOOL")]
    pub train_on_inputs: Option<TrainOnInputs>,
    /// Seed of the training [default: the seed of the split]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub random_seed: Option<u64>,
    /// What the tuned model's name ends in; at most 31 characters [default: socialized-context-generator]
    #[arg(long, value_name = "TEXT")]
    pub suffix: Option<String>,
    /// Stop when the validation loss no longer falls [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub early_stopping: Option<Switch>,
    /// Evaluations without progress to bear [default: the service's]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub early_stopping_patience: Option<u64>,
    /// Least progress that counts [default: the service's]
    #[arg(long, value_name = "X", value_parser = number)]
    pub early_stopping_min_delta: Option<f64>,
    /// Evaluations before it counts [default: the service's]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub early_stopping_warmup_evals: Option<u64>,
}

impl ConfigFile {
    /// What the file says about a job.
    ///
    /// # Errors
    /// When a value is not of its key's type.
    pub fn tune_choices(&self) -> Result<TuneChoices, ConfigError> {
        Ok(TuneChoices {
            base_model: self.text("base_model"),
            from_checkpoint: self.text("from_checkpoint"),
            n_epochs: self.whole("n_epochs")?,
            n_evals: self.whole("n_evals")?,
            n_checkpoints: self.whole("n_checkpoints")?,
            learning_rate: self.number("learning_rate")?,
            batch_size: self.parse("batch_size")?,
            lora: self.parse("lora")?,
            lora_rank: self.whole("lora_rank")?,
            lora_alpha: self.whole("lora_alpha")?,
            lora_dropout: self.number("lora_dropout")?,
            lora_trainable_modules: self.text("lora_trainable_modules"),
            lr_scheduler: self.parse("lr_scheduler")?,
            min_lr_ratio: self.number("min_lr_ratio")?,
            lr_num_cycles: self.number("lr_num_cycles")?,
            warmup_ratio: self.number("warmup_ratio")?,
            weight_decay: self.number("weight_decay")?,
            max_grad_norm: self.number("max_grad_norm")?,
            packing: self.parse("packing")?,
            max_seq_length: self.whole("max_seq_length")?,
            gradient_accumulation_steps: self.whole("gradient_accumulation_steps")?,
            train_on_inputs: self.parse("train_on_inputs")?,
            random_seed: self.whole("random_seed")?,
            suffix: self.text("suffix"),
            early_stopping: self.parse("early_stopping")?,
            early_stopping_patience: self.whole("early_stopping_patience")?,
            early_stopping_min_delta: self.number("early_stopping_min_delta")?,
            early_stopping_warmup_evals: self.whole("early_stopping_warmup_evals")?,
        })
    }
}

/// Flags alone, for values that come from elsewhere than the command line.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Flags {
    #[command(flatten)]
    choices: TuneChoices,
}

impl TuneChoices {
    /// The choices that these values of a sweep are, each under its key.
    ///
    /// # Errors
    /// When a key is none of a job's, or a value is not of its key's type.
    pub fn of_values(values: &[(String, Value)]) -> Result<TuneChoices, String> {
        let mut arguments = Vec::new();
        for (key, value) in values {
            TuneChoices::check_key(key)?;
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                other => {
                    return Err(format!("`{key}`: expected text, a number or a truth value, got {other}"));
                }
            };
            let argument = format!("--{}={text}", key.replace('_', "-"));
            if let Err(error) = Flags::try_parse_from([&argument]) {
                let expected =
                    std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
                return Err(format!("`{key}`: {expected}, got `{text}`"));
            }
            arguments.push(argument);
        }
        let flags = Flags::try_parse_from(&arguments).map_err(|error| error.kind().to_string())?;
        Ok(flags.choices)
    }

    /// Refuses a key that is none of a job's.
    ///
    /// # Errors
    /// That, and which key may have been meant.
    pub fn check_key(key: &str) -> Result<(), String> {
        // Where a job is logged is no part of it.
        if KEYS.contains(&key) && !key.starts_with("wandb_") {
            return Ok(());
        }
        Err(format!("`{key}` is not a parameter of a job{}", where_it_belongs(key)))
    }

    /// The keys that say something.
    pub fn keys(&self) -> Vec<&'static str> {
        let keys = [
            ("base_model", self.base_model.is_some()),
            ("from_checkpoint", self.from_checkpoint.is_some()),
            ("n_epochs", self.n_epochs.is_some()),
            ("n_evals", self.n_evals.is_some()),
            ("n_checkpoints", self.n_checkpoints.is_some()),
            ("learning_rate", self.learning_rate.is_some()),
            ("batch_size", self.batch_size.is_some()),
            ("lora", self.lora.is_some()),
            ("lora_rank", self.lora_rank.is_some()),
            ("lora_alpha", self.lora_alpha.is_some()),
            ("lora_dropout", self.lora_dropout.is_some()),
            ("lora_trainable_modules", self.lora_trainable_modules.is_some()),
            ("lr_scheduler", self.lr_scheduler.is_some()),
            ("min_lr_ratio", self.min_lr_ratio.is_some()),
            ("lr_num_cycles", self.lr_num_cycles.is_some()),
            ("warmup_ratio", self.warmup_ratio.is_some()),
            ("weight_decay", self.weight_decay.is_some()),
            ("max_grad_norm", self.max_grad_norm.is_some()),
            ("packing", self.packing.is_some()),
            ("max_seq_length", self.max_seq_length.is_some()),
            ("gradient_accumulation_steps", self.gradient_accumulation_steps.is_some()),
            ("train_on_inputs", self.train_on_inputs.is_some()),
            ("random_seed", self.random_seed.is_some()),
            ("suffix", self.suffix.is_some()),
            ("early_stopping", self.early_stopping.is_some()),
            ("early_stopping_patience", self.early_stopping_patience.is_some()),
            ("early_stopping_min_delta", self.early_stopping_min_delta.is_some()),
            ("early_stopping_warmup_evals", self.early_stopping_warmup_evals.is_some()),
        ];
        keys.into_iter().filter_map(|(key, is_said)| is_said.then_some(key)).collect()
    }

    /// These choices where they say something, else those of `lower`.
    #[must_use]
    pub fn over(self, lower: TuneChoices) -> TuneChoices {
        TuneChoices {
            base_model: self.base_model.or(lower.base_model),
            from_checkpoint: self.from_checkpoint.or(lower.from_checkpoint),
            n_epochs: self.n_epochs.or(lower.n_epochs),
            n_evals: self.n_evals.or(lower.n_evals),
            n_checkpoints: self.n_checkpoints.or(lower.n_checkpoints),
            learning_rate: self.learning_rate.or(lower.learning_rate),
            batch_size: self.batch_size.or(lower.batch_size),
            lora: self.lora.or(lower.lora),
            lora_rank: self.lora_rank.or(lower.lora_rank),
            lora_alpha: self.lora_alpha.or(lower.lora_alpha),
            lora_dropout: self.lora_dropout.or(lower.lora_dropout),
            lora_trainable_modules: self.lora_trainable_modules.or(lower.lora_trainable_modules),
            lr_scheduler: self.lr_scheduler.or(lower.lr_scheduler),
            min_lr_ratio: self.min_lr_ratio.or(lower.min_lr_ratio),
            lr_num_cycles: self.lr_num_cycles.or(lower.lr_num_cycles),
            warmup_ratio: self.warmup_ratio.or(lower.warmup_ratio),
            weight_decay: self.weight_decay.or(lower.weight_decay),
            max_grad_norm: self.max_grad_norm.or(lower.max_grad_norm),
            packing: self.packing.or(lower.packing),
            max_seq_length: self.max_seq_length.or(lower.max_seq_length),
            gradient_accumulation_steps: self
                .gradient_accumulation_steps
                .or(lower.gradient_accumulation_steps),
            train_on_inputs: self.train_on_inputs.or(lower.train_on_inputs),
            random_seed: self.random_seed.or(lower.random_seed),
            suffix: self.suffix.or(lower.suffix),
            early_stopping: self.early_stopping.or(lower.early_stopping),
            early_stopping_patience: self.early_stopping_patience.or(lower.early_stopping_patience),
            early_stopping_min_delta: self.early_stopping_min_delta.or(lower.early_stopping_min_delta),
            early_stopping_warmup_evals: self
                .early_stopping_warmup_evals
                .or(lower.early_stopping_warmup_evals),
        }
    }

    /// These flags over what the `file` says, over the seed's defaults. `seed` is the seed of the split.
    pub fn resolve(self, file: TuneChoices, seed: u64) -> Parameters {
        let switch = |of: Option<Switch>| of.map(|Switch(truth)| truth);
        Parameters {
            base_model: pick(self.base_model, file.base_model, SEED_MODEL.to_owned()),
            from_checkpoint: said(self.from_checkpoint, file.from_checkpoint),
            n_epochs: pick(self.n_epochs, file.n_epochs, 3),
            n_evals: said(self.n_evals, file.n_evals),
            n_checkpoints: said(self.n_checkpoints, file.n_checkpoints),
            learning_rate: pick(self.learning_rate, file.learning_rate, 1e-5),
            batch_size: pick(self.batch_size, file.batch_size, BatchSize::Max),
            lora: pick(switch(self.lora), switch(file.lora), true),
            lora_rank: pick(self.lora_rank, file.lora_rank, 64),
            lora_alpha: pick(self.lora_alpha, file.lora_alpha, 16),
            lora_dropout: pick(self.lora_dropout, file.lora_dropout, 0.0),
            lora_trainable_modules: pick(
                self.lora_trainable_modules,
                file.lora_trainable_modules,
                "all-linear".to_owned(),
            ),
            lr_scheduler: pick(self.lr_scheduler, file.lr_scheduler, Scheduler::Cosine),
            min_lr_ratio: pick(self.min_lr_ratio, file.min_lr_ratio, 0.0),
            lr_num_cycles: pick(self.lr_num_cycles, file.lr_num_cycles, 0.5),
            warmup_ratio: pick(self.warmup_ratio, file.warmup_ratio, 0.0),
            weight_decay: pick(self.weight_decay, file.weight_decay, 0.0),
            max_grad_norm: pick(self.max_grad_norm, file.max_grad_norm, 1.0),
            packing: pick(switch(self.packing), switch(file.packing), true),
            max_seq_length: said(self.max_seq_length, file.max_seq_length),
            gradient_accumulation_steps: said(
                self.gradient_accumulation_steps,
                file.gradient_accumulation_steps,
            ),
            train_on_inputs: pick(self.train_on_inputs, file.train_on_inputs, TrainOnInputs::Auto),
            random_seed: pick(self.random_seed, file.random_seed, seed),
            suffix: pick(self.suffix, file.suffix, SEED_SUFFIX.to_owned()),
            early_stopping: pick(switch(self.early_stopping), switch(file.early_stopping), false),
            early_stopping_patience: said(self.early_stopping_patience, file.early_stopping_patience),
            early_stopping_min_delta: said(self.early_stopping_min_delta, file.early_stopping_min_delta),
            early_stopping_warmup_evals: said(
                self.early_stopping_warmup_evals,
                file.early_stopping_warmup_evals,
            ),
        }
    }
}

/// What to do with a key that a sweep cannot vary.
fn where_it_belongs(key: &str) -> String {
    if prepare::KEYS.contains(&key) || KEYS.contains(&key) {
        return ", and a sweep varies nothing else: set it as a flag or in the configuration file".to_owned();
    }
    suggestion(key).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default()
}

/// What was said, the flag before the file.
fn said<T>(flag: Option<T>, file: Option<T>) -> Option<Chosen<T>> {
    let flag = flag.map(|value| Chosen { value, origin: Origin::Flag });
    flag.or_else(|| file.map(|value| Chosen { value, origin: Origin::File }))
}

fn pick<T>(flag: Option<T>, file: Option<T>, default: T) -> Chosen<T> {
    said(flag, file).unwrap_or(Chosen { value: default, origin: Origin::Default })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::limits::settle;
    use crate::job::parameters::tests::settled;
    use crate::job::parameters::{Files, PRICED};
    use crate::job::price::{Extent, Price};
    use crate::job::tag::Identity;
    use ctxtune_service::together::jobs::{Availability, Estimate, Limits};

    #[test]
    fn values_of_a_sweep_are_choices() {
        let check = |values: &[(&str, Value)]| {
            TuneChoices::of_values(
                &values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect::<Vec<_>>(),
            )
        };
        let choices =
            check(&[("learning_rate", json!(1e-6)), ("lora", json!(true)), ("batch_size", json!("max"))]);
        let choices = choices.unwrap().over(TuneChoices { n_epochs: Some(2), ..TuneChoices::default() });
        assert_eq!((choices.learning_rate, choices.n_epochs), (Some(1e-6), Some(2)));
        assert_eq!((choices.lora, choices.batch_size), (Some(Switch(true)), Some(BatchSize::Max)));
        assert!(check(&[("lora_rnk", json!(3))]).unwrap_err().contains("did you mean `lora_rank`"));
        let whole = check(&[("n_epochs", json!(2.0)), ("batch_size", json!(16.0))]).unwrap();
        assert_eq!((whole.n_epochs, whole.batch_size), (Some(2), Some(BatchSize::Samples(16))));
        let said = check(&[("val_ratio", json!(0.2))]).unwrap_err();
        assert!(said.contains("`val_ratio`") && said.contains("configuration file"), "{said}");
        assert!(
            check(&[("n_epochs", json!("many"))])
                .unwrap_err()
                .contains("expected a whole number, got `many`")
        );
        assert!(check(&[("n_epochs", json!([1]))]).unwrap_err().contains("`n_epochs`"));
    }

    /// Two values for every key of a job.
    const SAMPLES: [(&str, [&str; 2]); 28] = [
        ("base_model", ["a", "b"]),
        ("from_checkpoint", ["ft-1", "ft-2"]),
        ("n_epochs", ["1", "2"]),
        ("n_evals", ["1", "2"]),
        ("n_checkpoints", ["1", "2"]),
        ("learning_rate", ["1e-5", "1e-4"]),
        ("batch_size", ["8", "16"]),
        ("lora", ["true", "false"]),
        ("lora_rank", ["8", "16"]),
        ("lora_alpha", ["8", "16"]),
        ("lora_dropout", ["0.1", "0.2"]),
        ("lora_trainable_modules", ["all-linear", "q_proj"]),
        ("lr_scheduler", ["cosine", "linear"]),
        ("min_lr_ratio", ["0.1", "0.2"]),
        ("lr_num_cycles", ["0.5", "1"]),
        ("warmup_ratio", ["0.1", "0.2"]),
        ("weight_decay", ["0.1", "0.2"]),
        ("max_grad_norm", ["1", "2"]),
        ("packing", ["true", "false"]),
        ("max_seq_length", ["512", "1024"]),
        ("gradient_accumulation_steps", ["1", "2"]),
        ("train_on_inputs", ["true", "false"]),
        ("random_seed", ["1", "2"]),
        ("suffix", ["a", "b"]),
        ("early_stopping", ["true", "false"]),
        ("early_stopping_patience", ["1", "2"]),
        ("early_stopping_min_delta", ["0.1", "0.2"]),
        ("early_stopping_warmup_evals", ["1", "2"]),
    ];

    #[test]
    fn every_key_that_says_something_is_listed() {
        for (key, [value, _]) in SAMPLES {
            let choices = TuneChoices::of_values(&[(key.to_owned(), json!(value))]).unwrap();
            assert_eq!(choices.keys(), [key]);
        }
        assert_eq!(SAMPLES.len() + ["wandb_project", "wandb_run_name"].len(), KEYS.len());
        assert!(TuneChoices::default().keys().is_empty());
    }

    #[test]
    fn the_price_depends_on_the_keys_that_are_listed_for_it_and_on_no_other() {
        let estimate = Estimate {
            availability: Availability::Available,
            dollars: Some(3.0),
            train_tokens: Some(2_000_000),
            eval_tokens: Some(1_000_000),
            user_limit: None,
            allowed_to_proceed: None,
        };
        // The length of a sequence counts only where samples do not share one.
        let price = |key: &str, value: &str, packing: &str| {
            let mut values = vec![(key.to_owned(), json!(value))];
            if key != "packing" {
                values.push(("packing".to_owned(), json!(packing)));
            }
            let parameters = TuneChoices::of_values(&values).unwrap().resolve(TuneChoices::default(), 42);
            let settled = settle(parameters, &Limits::read("", &Value::Null), true);
            let max_seq_length = settled.parameters.max_seq_length.map_or(8192, |length| length.value);
            let extent =
                Extent { train_samples: 1000, val_samples: 100, max_seq_length: Some(max_seq_length) };
            let body = settled.estimate_body(Files { train: "t", val: Some("v") });
            (body, Price::of(&estimate, &settled, extent).dollars)
        };
        for (key, [one, other]) in SAMPLES {
            let depends = ["true", "false"]
                .iter()
                .any(|packing| price(key, one, packing) != price(key, other, packing));
            assert_eq!(depends, PRICED.contains(&key), "{key}");
        }
    }

    #[test]
    fn every_key_is_part_of_what_makes_a_job_the_same_job() {
        let set = |more: &str| {
            let values = format!(
                "{{\"early_stopping\":true,\"max_seq_length\":512,\"gradient_accumulation_steps\":1,\
                  \"early_stopping_patience\":1,\"early_stopping_min_delta\":0.1,\"early_stopping_warmup_evals\":1{more}}}"
            );
            let values: serde_json::Map<String, Value> = serde_json::from_str(&values).unwrap();
            let values: Vec<(String, Value)> = values.into_iter().collect();
            let parameters = TuneChoices::of_values(&values).unwrap().resolve(TuneChoices::default(), 42);
            let identity = Identity {
                project: String::new(),
                train_sha256: String::new(),
                val_sha256: Some(String::new()),
                settled: settled(parameters),
                wandb_run_id: Some(String::new()),
            };
            identity.text(1)
        };
        let text = set("") + &set(",\"from_checkpoint\":\"ft-1\"");
        let names: std::collections::BTreeSet<&str> =
            text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        // Where a job is logged does not make it another job.
        let logging = ["wandb_project", "wandb_run_name"];
        let keys: Vec<&str> = KEYS.into_iter().filter(|key| !logging.contains(key)).collect();
        let missing: Vec<&&str> = keys.iter().filter(|key| !names.contains(*key)).collect();
        assert_eq!(missing, Vec::<&&str>::new());
        let others: Vec<&&str> = names.iter().filter(|name| !keys.contains(name)).collect();
        assert_eq!(others, [&"attempt", &"project", &"train_sha256", &"val_sha256", &"wandb_run_id"]);
    }

    #[test]
    fn a_flag_wins_over_the_file_and_says_so() {
        let flags = TuneChoices { n_epochs: Some(2), ..TuneChoices::default() };
        let file = TuneChoices { n_epochs: Some(5), lora_rank: Some(32), ..TuneChoices::default() };
        let parameters = flags.resolve(file, 7);
        assert_eq!(parameters.n_epochs, Chosen { value: 2, origin: Origin::Flag });
        assert_eq!(parameters.lora_rank, Chosen { value: 32, origin: Origin::File });
        assert_eq!(parameters.random_seed, Chosen { value: 7, origin: Origin::Default });
    }

    #[test]
    fn every_key_of_a_job_is_in_the_configuration_of_its_run() {
        let parameters = TuneChoices::default().resolve(TuneChoices::default(), 42);
        let settled = crate::job::parameters::tests::settled(parameters);
        let body = settled.body(crate::job::parameters::Files { train: "t", val: Some("v") }, "s");
        let config = crate::job::run_config::parameters(&body);
        let logged: Vec<&str> = config.keys().map(String::as_str).collect();
        let keys: Vec<&str> = KEYS.into_iter().filter(|key| !key.starts_with("wandb_")).collect();
        assert_eq!(logged, keys);
    }
}
