//! Holds what was chosen against what the model allows, before anything is uploaded or paid for.
//!
//! Pure: the chosen values and the service's answer become one table, in which every row
//! knows its limit and whether it keeps it. Nothing is clamped: a value that was set is sent
//! as it is or refused by name. A limit the service does not tell is not enforced.

use serde_json::Value;

use crate::job::parameters::{Origin, Parameters, SUFFIX_CHARACTERS, Settled};
use ctxtune_service::together::jobs::{BatchLimits, Limits};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: String,
    pub value: String,
    pub origin: Origin,
    /// What is allowed, in words; empty where nothing is known.
    pub limit: String,
    /// What it would have to be to be sent, as "must be between 1 and 64".
    pub refusal: Option<String>,
    pub note: Option<&'static str>,
}

impl Row {
    pub fn refused(&self) -> Option<String> {
        let must_be = self.refusal.as_ref()?;
        Some(format!("`{}` {must_be}, got {}", self.key, self.value))
    }
}

/// Puts the defaults that depend on the model and on the data where nothing was chosen.
pub fn settle(parameters: Parameters, limits: &Limits, has_val: bool) -> Settled {
    let at_most = |limit: Option<u64>| parameters.n_epochs.min(limit.unwrap_or(u64::MAX));
    let evals = if has_val { at_most(limits.max_num_evals) } else { 0 };
    let checkpoints = at_most(limits.max_num_checkpoints).max(1);
    Settled {
        n_evals: parameters.n_evals.unwrap_or(evals),
        n_checkpoints: parameters.n_checkpoints.unwrap_or(checkpoints),
        parameters,
    }
}

pub fn rows(settled: &Settled, limits: &Limits, has_val: bool) -> Vec<Row> {
    let check = Check { settled, limits, has_val };
    let mut rows: Vec<Row> = settled.values().iter().map(|(key, value)| check.row(key, value)).collect();
    if settled.parameters.inherits_training_type() {
        let at = rows.iter().position(|row| row.key == "batch_size").map_or(0, |at| at + 1);
        let row = check.row("training_type", &"inherited".into());
        rows.insert(at, Row { origin: Origin::Parent, ..row });
    }
    rows
}

struct Check<'c> {
    settled: &'c Settled,
    limits: &'c Limits,
    has_val: bool,
}

impl Check<'_> {
    fn row(&self, key: &str, value: &Value) -> Row {
        let (least, most) = self.bounds(key, value);
        let is_out =
            |number: f64| least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most);
        let bounds = between(least, most);
        let refusal = match (value.as_f64().filter(|number| is_out(*number)), least, most) {
            (None, ..) => self.refusal(key),
            (_, Some(least), Some(most)) => {
                Some(format!("must be between {} and {}", number(least), number(most)))
            }
            _ => Some(format!("must be {bounds}")),
        };
        Row {
            key: key.to_owned(),
            value: shown(value),
            origin: self.settled.parameters.origin(key),
            limit: self.limit(key).unwrap_or(bounds),
            refusal,
            note: self.note(key),
        }
    }

    fn bounds(&self, key: &str, value: &Value) -> (Option<f64>, Option<f64>) {
        let limits = self.limits;
        let count = |least: Option<u64>, most: Option<u64>| {
            (least.map(|least| least as f64), most.map(|most| most as f64))
        };
        match key {
            "n_epochs" => count(Some(1), limits.max_num_epochs),
            "n_evals" => count(None, limits.max_num_evals),
            "n_checkpoints" => count(Some(1), limits.max_num_checkpoints),
            "learning_rate" => (limits.min_learning_rate.or(Some(0.0)), limits.max_learning_rate),
            "batch_size" => {
                let batch = self.batch_limits();
                let least = batch.and_then(|batch| batch.min_batch_size);
                count(least.or(value.is_u64().then_some(1)), batch.and_then(|batch| batch.max_batch_size))
            }
            "lora_rank" => count(Some(1), limits.lora.as_ref().and_then(|lora| lora.max_rank)),
            "max_seq_length" => count(limits.min_max_seq_length, limits.max_seq_length),
            "lora_alpha" | "gradient_accumulation_steps" | "early_stopping_patience" => (Some(1.0), None),
            "lora_dropout" | "min_lr_ratio" | "warmup_ratio" => (Some(0.0), Some(1.0)),
            "lr_num_cycles" | "weight_decay" | "max_grad_norm" | "early_stopping_min_delta" => {
                (Some(0.0), None)
            }
            _ => (None, None),
        }
    }

    fn batch_limits(&self) -> Option<&BatchLimits> {
        let (lora, full) = (self.limits.lora.as_ref(), self.limits.full.as_ref());
        let batches = |limits: &BatchLimits| (limits.min_batch_size, limits.max_batch_size);
        let parameters = &self.settled.parameters;
        match (lora, full) {
            _ if !parameters.inherits_training_type() => {
                if parameters.lora {
                    lora
                } else {
                    full
                }
            }
            // Nobody here knows the parent's kind: only what binds both is enforced.
            (Some(lora), Some(full)) if batches(lora) != batches(full) => None,
            _ => lora.or(full),
        }
    }

    /// Why the value of `key` cannot be sent although it is within its bounds.
    fn refusal(&self, key: &str) -> Option<String> {
        let (chosen, limits) = (&self.settled.parameters, self.limits);
        let refused = match key {
            "n_evals" if self.settled.n_evals > 0 && !self.has_val => {
                "must be 0 where there is no validation data"
            }
            "learning_rate" if chosen.learning_rate == 0.0 => "must be above 0",
            "lr_num_cycles" if chosen.lr_num_cycles == 0.0 => "must be above 0",
            "lora_dropout" if chosen.lora_dropout == 1.0 => "must be below 1",
            "lora" if chosen.lora && limits.lora.is_none() && limits.full.is_some() => {
                "must be false, since this model cannot be tuned with LoRA"
            }
            "lora" if !chosen.lora && trains_lora_only(limits) => {
                "must be true, since this model can be tuned with LoRA only"
            }
            "suffix" => return suffix_refusal(&chosen.suffix),
            "early_stopping" if chosen.early_stopping && !self.has_val => {
                "must be false where there is no validation data"
            }
            "early_stopping" if chosen.early_stopping && self.settled.n_evals < self.evals_to_stop() => {
                let needed = self.evals_to_stop();
                return Some(format!(
                    "must be false unless n_evals is at least {needed}, its patience + warm-up + 1"
                ));
            }
            _ => return None,
        };
        Some(refused.to_owned())
    }

    /// The fewest evaluations with which training can stop early.
    fn evals_to_stop(&self) -> u64 {
        let chosen = &self.settled.parameters;
        let (patience, warmup) = (chosen.early_stopping_patience, chosen.early_stopping_warmup_evals);
        patience.unwrap_or(2).saturating_add(warmup.unwrap_or(1)).saturating_add(1)
    }

    /// What is allowed where that is more than two bounds.
    fn limit(&self, key: &str) -> Option<String> {
        let chosen = &self.settled.parameters;
        match key {
            "lora" | "training_type" if gives_adapter_only(chosen, self.limits) => {
                Some("adapter only".to_owned())
            }
            "suffix" => Some(format!("at most {SUFFIX_CHARACTERS} characters")),
            "early_stopping" if chosen.early_stopping => {
                Some(format!("n_evals at least {}", self.evals_to_stop()))
            }
            _ => None,
        }
    }

    fn note(&self, key: &str) -> Option<&'static str> {
        let chosen = &self.settled.parameters;
        let trains_lora = chosen.lora && !chosen.inherits_training_type();
        match key {
            "learning_rate" if trains_lora && chosen.learning_rate <= 2e-5 => {
                Some("low for LoRA, whose usual rates are 1e-4 to 1e-3; it is sent as set")
            }
            "lora_alpha" if chosen.lora_alpha < chosen.lora_rank => {
                Some("below lora_rank; usual is twice the rank; it is sent as set")
            }
            "lora" | "training_type" if gives_adapter_only(chosen, self.limits) => Some(
                "adapter only: LoRA is not merged into this model, so that there are no merged weights to download and nothing to deploy at Together",
            ),
            _ => None,
        }
    }
}

fn trains_lora_only(limits: &Limits) -> bool {
    let is_lora_all = limits.full.is_none() && limits.lora.is_some();
    limits.supports_full_training.map_or(is_lora_all, |supports| !supports)
}

/// Whether the job gives an adapter alone. Where the training type is inherited, it may be that of all
/// weights, if the model allows that.
pub fn gives_adapter_only(parameters: &Parameters, limits: &Limits) -> bool {
    let trains_lora = match parameters.inherits_training_type() {
        true => limits.supports_full_training != Some(true),
        false => parameters.lora,
    };
    trains_lora && limits.merges_lora == Some(false)
}

fn suffix_refusal(suffix: &str) -> Option<String> {
    let is_of_name = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if suffix.chars().count() > SUFFIX_CHARACTERS {
        Some(format!(
            "must have at most {SUFFIX_CHARACTERS} characters, since our tag needs the rest of the service's 40"
        ))
    } else if suffix.is_empty() {
        Some("must not be empty".to_owned())
    } else if !suffix.chars().all(is_of_name) {
        Some("must be made of letters, digits, `-`, `_` and `.`".to_owned())
    } else {
        None
    }
}

fn between(least: Option<f64>, most: Option<f64>) -> String {
    match (least.map(number), most.map(number)) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (None, Some(most)) => format!("at most {most}"),
        (Some(least), None) => format!("at least {least}"),
        (None, None) => String::new(),
    }
}

/// A number as people write it: small ones as `1e-5`.
fn number(number: f64) -> String {
    if number != 0.0 && number.abs() < 1e-3 { format!("{number:e}") } else { number.to_string() }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(real) if real.is_f64() => real.as_f64().map(number).unwrap_or_default(),
        other => other.to_string(),
    }
}

/// The names in `supported` that look most like `model`, nearest first, at most three.
pub fn nearest(model: &str, supported: &[String]) -> Vec<String> {
    let lower = model.to_ascii_lowercase();
    let name = |model: &str| model.rsplit('/').next().unwrap_or_default().to_owned();
    let distance = |other: &String| {
        let other = other.to_ascii_lowercase();
        // The part behind the publisher says more than the whole.
        strsim::damerau_levenshtein(&name(&lower), &name(&other)) * 2
            + strsim::damerau_levenshtein(&lower, &other)
    };
    let mut ranked: Vec<(usize, &String)> = supported.iter().map(|other| (distance(other), other)).collect();
    ranked.sort();
    ranked.into_iter().take(3).map(|(_, other)| other.clone()).collect()
}

pub(crate) fn sequence_length(settled: &Settled, limits: &Limits) -> Option<u64> {
    settled.parameters.max_seq_length.or(limits.max_seq_length)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::parameters::BatchSize;
    use crate::job::parameters::tests::seed;

    fn limits() -> Limits {
        Limits::read(
            "m",
            &json!({
                "max_num_epochs": 20, "max_num_evals": 100, "max_num_checkpoints": 2,
                "min_learning_rate": 1e-8, "max_learning_rate": 0.01, "max_seq_length_sft": 8192,
                "min_max_seq_length": 512, "supports_full_training": false,
                "lora_training": { "max_rank": 64, "min_batch_size": 8, "max_batch_size": 64 },
            }),
        )
    }

    /// The keys refused after `change`.
    fn refused(change: impl FnOnce(&mut Parameters)) -> Vec<String> {
        let mut parameters = seed();
        change(&mut parameters);
        let settled = settle(parameters, &limits(), true);
        rows(&settled, &limits(), true)
            .into_iter()
            .filter(|row| row.refusal.is_some())
            .map(|row| row.key)
            .collect()
    }

    #[test]
    fn the_seeds_values_are_within_the_limits() {
        assert!(refused(|_| {}).is_empty());
    }

    #[test]
    fn every_value_over_its_limit_is_refused_by_name() {
        assert_eq!(refused(|of| of.lora_rank = 128), ["lora_rank"]);
        assert_eq!(refused(|of| of.n_epochs = 21), ["n_epochs"]);
        assert_eq!(refused(|of| of.n_epochs = 0), ["n_epochs"]);
        assert_eq!(refused(|of| of.n_evals = Some(101)), ["n_evals"]);
        assert_eq!(refused(|of| of.n_checkpoints = Some(3)), ["n_checkpoints"]);
        assert_eq!(refused(|of| of.learning_rate = 0.02), ["learning_rate"]);
        assert_eq!(refused(|of| of.learning_rate = 0.0), ["learning_rate"]);
        assert_eq!(refused(|of| of.batch_size = BatchSize::Samples(4)), ["batch_size"]);
        assert_eq!(refused(|of| of.batch_size = BatchSize::Samples(65)), ["batch_size"]);
        assert_eq!(refused(|of| of.lora = false), ["lora"]);
        assert_eq!(refused(|of| of.lora_dropout = 1.0), ["lora_dropout"]);
        assert_eq!(refused(|of| of.warmup_ratio = 1.5), ["warmup_ratio"]);
        assert_eq!(refused(|of| of.max_seq_length = Some(256)), ["max_seq_length"]);
        assert_eq!(refused(|of| of.suffix = "x".repeat(32)), ["suffix"]);
        assert_eq!(refused(|of| of.suffix = "a b".to_owned()), ["suffix"]);
        assert_eq!(refused(|of| of.early_stopping = true), ["early_stopping"], "3 evaluations of 4");
    }

    #[test]
    fn a_refusal_names_value_and_bound() {
        let mut parameters = seed();
        parameters.lora_rank = 128;
        parameters.origins.insert("lora_rank".to_owned(), Origin::Flag);
        let settled = settle(parameters, &limits(), true);
        let rows = rows(&settled, &limits(), true);
        let row = rows.iter().find(|row| row.key == "lora_rank").unwrap();
        assert_eq!((row.value.as_str(), row.origin, row.limit.as_str()), ("128", Origin::Flag, "1 to 64"));
        assert_eq!(row.refusal.as_deref(), Some("must be between 1 and 64"));
    }

    #[test]
    fn defaults_follow_the_data_and_the_model() {
        let settled = settle(seed(), &limits(), true);
        assert_eq!((settled.n_evals, settled.n_checkpoints), (3, 2));
        assert_eq!(settle(seed(), &limits(), false).n_evals, 0);
        assert_eq!(settle(seed(), &Limits::read("m", &json!({})), true).n_checkpoints, 3);
    }

    #[test]
    fn evaluations_without_validation_data_are_refused() {
        let mut parameters = seed();
        parameters.n_evals = Some(3);
        let settled = settle(parameters, &limits(), false);
        assert!(
            rows(&settled, &limits(), false).iter().any(|row| row.key == "n_evals" && row.refusal.is_some())
        );
    }

    #[test]
    fn unusual_values_are_noted_and_kept() {
        let rows = rows(&settle(seed(), &limits(), true), &limits(), true);
        let noted: Vec<&str> = rows.iter().filter(|row| row.note.is_some()).map(|row| &*row.key).collect();
        assert_eq!(noted, ["learning_rate", "lora_alpha"]);
        assert!(rows.iter().any(|row| row.key == "learning_rate" && row.value == "1e-5"));
    }

    #[test]
    fn an_inherited_training_type_is_one_row_and_binds_no_value_of_lora() {
        let mut parameters = seed();
        parameters.from_checkpoint = Some("ft-1".to_owned());
        // Above what the model allows, and not sent.
        parameters.lora_rank = 128;
        let rows = rows(&settle(parameters, &limits(), true), &limits(), true);
        assert!(rows.iter().all(|row| row.refusal.is_none() && !row.key.starts_with("lora")), "{rows:?}");
        let row = rows.iter().find(|row| row.key == "training_type").unwrap();
        assert_eq!((row.value.as_str(), row.origin, row.note), ("inherited", Origin::Parent, None));
        assert!(rows.iter().all(|row| row.note.is_none()), "nothing is said of LoRA: {rows:?}");
    }

    #[test]
    fn a_batch_is_held_against_what_binds_whatever_is_inherited() {
        let refused = |full: serde_json::Value| {
            let limits =
                Limits { full: Limits::read("m", &json!({ "full_training": full })).full, ..limits() };
            let mut parameters = seed();
            parameters.from_checkpoint = Some("ft-1".to_owned());
            parameters.batch_size = BatchSize::Samples(65);
            let rows = rows(&settle(parameters, &limits, true), &limits, true);
            rows.iter().any(|row| row.refusal.is_some())
        };
        assert!(refused(serde_json::Value::Null));
        assert!(refused(json!({ "min_batch_size": 8, "max_batch_size": 64 })));
        assert!(!refused(json!({ "min_batch_size": 8, "max_batch_size": 128 })));
    }

    #[test]
    fn a_model_into_which_lora_is_not_merged_gives_an_adapter_only() {
        let check = |expected: bool, supports_full: bool, change: fn(&mut Parameters)| {
            let limits =
                Limits { merges_lora: Some(false), supports_full_training: Some(supports_full), ..limits() };
            let mut parameters = seed();
            change(&mut parameters);
            assert_eq!(gives_adapter_only(&parameters, &limits), expected);
            let rows = rows(&settle(parameters, &limits, true), &limits, true);
            let is_said = rows.iter().any(|row| row.limit == "adapter only" && row.note.is_some());
            assert_eq!(is_said, expected, "{rows:?}");
        };
        check(true, true, |_| {});
        check(false, true, |of| of.lora = false);
        check(true, false, |of| of.from_checkpoint = Some("ft-1".to_owned()));
        check(false, true, |of| of.from_checkpoint = Some("ft-1".to_owned()));
        for merges_lora in [None, Some(true)] {
            assert!(!gives_adapter_only(&seed(), &Limits { merges_lora, ..limits() }));
        }
    }

    #[test]
    fn the_nearest_names_come_first() {
        let supported =
            ["Qwen/Qwen3-8B", "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference", "google/gemma-3"]
                .map(str::to_owned);
        assert_eq!(nearest("qwen/Qwen3-8b", &supported)[0], "Qwen/Qwen3-8B");
        assert_eq!(nearest("llama/Meta-Llama-3.1-8B-Instruct", &supported)[0], supported[1]);
    }
}
