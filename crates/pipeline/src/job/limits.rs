//! Holds what was chosen against what the model allows, before anything is uploaded or paid for.
//!
//! Pure: the chosen values and the service's answer become one table, in which every row
//! knows its limit and whether it keeps it. Nothing is clamped: a value that was set is sent
//! as it is or refused by name. A limit the service does not tell is not enforced.

use crate::job::parameters::{BatchSize, Chosen, Origin, Parameters, SUFFIX_CHARACTERS, Settled};
use ctxtune_service::together::jobs::{BatchLimits, Limits};

/// A value as a table shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key, as in the configuration file.
    pub key: &'static str,
    /// The value.
    pub value: String,
    /// Who chose it.
    pub origin: Origin,
    /// What is allowed, in words; empty where nothing is known.
    pub limit: String,
    /// What it would have to be to be sent, as "must be between 1 and 64".
    pub refusal: Option<String>,
    /// What is unusual about it.
    pub note: Option<&'static str>,
}

impl Row {
    /// Why it cannot be sent, with its key and its value.
    pub fn refused(&self) -> Option<String> {
        let must_be = self.refusal.as_ref()?;
        Some(format!("`{}` {must_be}, got {}", self.key, self.value))
    }
}

/// Puts the defaults that depend on the model and on the data where nothing was chosen.
pub fn settle(parameters: Parameters, limits: &Limits, has_val: bool) -> Settled {
    let unsaid = |value| Chosen { value, origin: Origin::Default };
    let epochs = parameters.n_epochs.value;
    let at_most = |limit: Option<u64>| epochs.min(limit.unwrap_or(u64::MAX));
    let evals = if has_val { at_most(limits.max_num_evals) } else { 0 };
    let checkpoints = at_most(limits.max_num_checkpoints).max(1);
    Settled {
        n_evals: parameters.n_evals.unwrap_or(unsaid(evals)),
        n_checkpoints: parameters.n_checkpoints.unwrap_or(unsaid(checkpoints)),
        parameters,
    }
}

/// Every value with its limit, in the order of the table.
pub fn rows(settled: &Settled, limits: &Limits, has_val: bool) -> Vec<Row> {
    let chosen = &settled.parameters;
    let mut rows = vec![match &chosen.from_checkpoint {
        Some(checkpoint) => row("from_checkpoint", checkpoint, String::new()),
        None => row("base_model", &chosen.base_model, String::new()),
    }];
    rows.push(whole("n_epochs", chosen.n_epochs, Some(1), limits.max_num_epochs));
    rows.push(evals(settled, limits, has_val));
    rows.push(whole("n_checkpoints", settled.n_checkpoints, Some(1), limits.max_num_checkpoints));
    rows.push(learning_rate(settled, limits));
    rows.push(batch_size(settled, limits));
    rows.extend(training_type(settled, limits));
    rows.push(row("lr_scheduler", &chosen.lr_scheduler, String::new()));
    rows.push(real("min_lr_ratio", chosen.min_lr_ratio, (0.0, 1.0)));
    if chosen.lr_scheduler.value == crate::job::parameters::Scheduler::Cosine {
        let cycles = real("lr_num_cycles", chosen.lr_num_cycles, (0.0, f64::MAX));
        rows.push(refused_if(cycles, chosen.lr_num_cycles.value == 0.0, "must be above 0"));
    }
    rows.push(real("warmup_ratio", chosen.warmup_ratio, (0.0, 1.0)));
    rows.push(real("weight_decay", chosen.weight_decay, (0.0, f64::MAX)));
    rows.push(real("max_grad_norm", chosen.max_grad_norm, (0.0, f64::MAX)));
    rows.push(row("packing", &chosen.packing, String::new()));
    if let Some(length) = chosen.max_seq_length {
        rows.push(whole("max_seq_length", length, limits.min_max_seq_length, limits.max_seq_length));
    }
    if let Some(steps) = chosen.gradient_accumulation_steps {
        rows.push(whole("gradient_accumulation_steps", steps, Some(1), None));
    }
    rows.push(row("train_on_inputs", &chosen.train_on_inputs, String::new()));
    rows.push(row("random_seed", &chosen.random_seed, String::new()));
    rows.push(suffix(&chosen.suffix));
    rows.extend(early_stopping(settled, has_val));
    rows
}

/// The limits that hold for the kind of training that was chosen.
fn batch_limits<'l>(settled: &Settled, limits: &'l Limits) -> Option<&'l BatchLimits> {
    if settled.parameters.inherits_training_type() {
        // Nobody here knows the parent's kind: only what binds both is enforced.
        return match (&limits.lora, &limits.full) {
            (Some(lora), Some(full)) if !have_equal_batches(lora, full) => None,
            (lora, full) => lora.as_ref().or(full.as_ref()),
        };
    }
    if settled.parameters.lora.value { limits.lora.as_ref() } else { limits.full.as_ref() }
}

fn have_equal_batches(one: &BatchLimits, other: &BatchLimits) -> bool {
    (one.min_batch_size, one.max_batch_size) == (other.min_batch_size, other.max_batch_size)
}

fn evals(settled: &Settled, limits: &Limits, has_val: bool) -> Row {
    let row = whole("n_evals", settled.n_evals, None, limits.max_num_evals);
    refused_if(row, settled.n_evals.value > 0 && !has_val, "must be 0 where there is no validation data")
}

fn learning_rate(settled: &Settled, limits: &Limits) -> Row {
    let chosen = &settled.parameters;
    let bounds = (limits.min_learning_rate.unwrap_or(0.0), limits.max_learning_rate.unwrap_or(f64::MAX));
    let row = real("learning_rate", chosen.learning_rate, bounds);
    let mut row = refused_if(row, chosen.learning_rate.value <= 0.0, "must be above 0");
    let trains_lora = chosen.lora.value && !chosen.inherits_training_type();
    if trains_lora && chosen.learning_rate.value <= 2e-5 {
        row.note = Some("low for LoRA, whose usual rates are 1e-4 to 1e-3; it is sent as set");
    }
    row
}

fn batch_size(settled: &Settled, limits: &Limits) -> Row {
    let limits = batch_limits(settled, limits);
    let (least, most) = limits.map_or((None, None), |limits| (limits.min_batch_size, limits.max_batch_size));
    let chosen = settled.parameters.batch_size;
    match chosen.value {
        BatchSize::Samples(samples) => {
            whole("batch_size", Chosen { value: samples, origin: chosen.origin }, least.or(Some(1)), most)
        }
        BatchSize::Max => row("batch_size", &chosen, between(least, most)),
    }
}

fn training_type(settled: &Settled, limits: &Limits) -> Vec<Row> {
    let chosen = &settled.parameters;
    if chosen.inherits_training_type() {
        let inherited = Chosen { value: "inherited", origin: Origin::Parent };
        return vec![adapter_only(row("training_type", &inherited, String::new()), settled, limits)];
    }
    let lora = adapter_only(row("lora", &chosen.lora, String::new()), settled, limits);
    if !chosen.lora.value {
        let is_impossible = limits.supports_full_training == Some(false)
            || (limits.supports_full_training.is_none() && limits.full.is_none() && limits.lora.is_some());
        return vec![refused_if(
            lora,
            is_impossible,
            "must be true, since this model can be tuned with LoRA only",
        )];
    }
    let is_impossible = limits.lora.is_none() && limits.full.is_some();
    let max_rank = limits.lora.as_ref().and_then(|lora| lora.max_rank);
    let dropout = real("lora_dropout", chosen.lora_dropout, (0.0, 1.0));
    let mut alpha = whole("lora_alpha", chosen.lora_alpha, Some(1), None);
    if chosen.lora_alpha.value < chosen.lora_rank.value {
        alpha.note = Some("below lora_rank; usual is twice the rank; it is sent as set");
    }
    vec![
        refused_if(lora, is_impossible, "must be false, since this model cannot be tuned with LoRA"),
        whole("lora_rank", chosen.lora_rank, Some(1), max_rank),
        alpha,
        refused_if(dropout, chosen.lora_dropout.value >= 1.0, "must be below 1"),
        row("lora_trainable_modules", &chosen.lora_trainable_modules, String::new()),
    ]
}

/// The row, with a word where the job gives an adapter and nothing merged.
fn adapter_only(mut row: Row, settled: &Settled, limits: &Limits) -> Row {
    if gives_adapter_only(&settled.parameters, limits) {
        row.limit = "adapter only".to_owned();
        row.note = Some(
            "adapter only: LoRA is not merged into this model, so that there are no merged weights to download and nothing to deploy at Together",
        );
    }
    row
}

/// Whether the job gives an adapter alone. Where the training type is inherited, it may be that of all
/// weights, if the model allows that.
pub fn gives_adapter_only(parameters: &Parameters, limits: &Limits) -> bool {
    let trains_lora = match parameters.inherits_training_type() {
        true => limits.supports_full_training != Some(true),
        false => parameters.lora.value,
    };
    trains_lora && limits.merges_lora == Some(false)
}

fn suffix(suffix: &Chosen<String>) -> Row {
    let row = row("suffix", suffix, format!("at most {SUFFIX_CHARACTERS} characters"));
    let is_of_name = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let is_long = suffix.value.chars().count() > SUFFIX_CHARACTERS;
    let most = format!(
        "must have at most {SUFFIX_CHARACTERS} characters, since our tag needs the rest of the service's 40"
    );
    let row = refused_if(row, is_long, &most);
    let row = refused_if(row, suffix.value.is_empty(), "must not be empty");
    let is_name = suffix.value.chars().all(is_of_name);
    refused_if(row, !is_name, "must be made of letters, digits, `-`, `_` and `.`")
}

fn early_stopping(settled: &Settled, has_val: bool) -> Vec<Row> {
    let chosen = &settled.parameters;
    let switch = row("early_stopping", &chosen.early_stopping, String::new());
    if !chosen.early_stopping.value {
        return vec![switch];
    }
    let value = |of: Option<Chosen<u64>>, default: u64| of.map_or(default, |chosen| chosen.value);
    let needed = value(chosen.early_stopping_patience, 2) + value(chosen.early_stopping_warmup_evals, 1) + 1;
    let switch = refused_if(switch, !has_val, "must be false where there is no validation data");
    let is_short = has_val && settled.n_evals.value < needed;
    let reason = format!("must be false unless n_evals is at least {needed}, its patience + warm-up + 1");
    let mut switch = refused_if(switch, is_short, &reason);
    switch.limit = format!("n_evals at least {needed}");
    let patience =
        chosen.early_stopping_patience.map(|of| whole("early_stopping_patience", of, Some(1), None));
    let delta =
        chosen.early_stopping_min_delta.map(|of| real("early_stopping_min_delta", of, (0.0, f64::MAX)));
    let warmup =
        chosen.early_stopping_warmup_evals.map(|of| whole("early_stopping_warmup_evals", of, None, None));
    [Some(switch), patience, delta, warmup].into_iter().flatten().collect()
}

fn row<T: std::fmt::Display>(key: &'static str, chosen: &Chosen<T>, limit: String) -> Row {
    let value = chosen.value.to_string();
    Row { key, value, origin: chosen.origin, limit, refusal: None, note: None }
}

/// The row, refused for this reason unless it already is for another.
fn refused_if(mut row: Row, is_refused: bool, reason: &str) -> Row {
    if is_refused && row.refusal.is_none() {
        row.refusal = Some(reason.to_owned());
    }
    row
}

fn between(least: Option<u64>, most: Option<u64>) -> String {
    match (least, most) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (None, Some(most)) => format!("at most {most}"),
        (Some(least), None) => format!("at least {least}"),
        (None, None) => String::new(),
    }
}

fn whole(key: &'static str, chosen: Chosen<u64>, least: Option<u64>, most: Option<u64>) -> Row {
    let row = row(key, &chosen, between(least, most));
    let is_out =
        least.is_some_and(|least| chosen.value < least) || most.is_some_and(|most| chosen.value > most);
    let bounds = (least.map(|least| least.to_string()), most.map(|most| most.to_string()));
    refused_if(row, is_out, &must_be(bounds))
}

/// What a number must be.
fn must_be(bounds: (Option<String>, Option<String>)) -> String {
    match bounds {
        (Some(least), Some(most)) => format!("must be between {least} and {most}"),
        (None, Some(most)) => format!("must be at most {most}"),
        (Some(least), None) => format!("must be at least {least}"),
        (None, None) => String::new(),
    }
}

fn real(key: &'static str, chosen: Chosen<f64>, (least, most): (f64, f64)) -> Row {
    let limit = match most {
        f64::MAX => format!("at least {}", shown(least)),
        _ => format!("{} to {}", shown(least), shown(most)),
    };
    let value = shown(chosen.value);
    let is_out = !(least..=most).contains(&chosen.value);
    let reason = must_be((Some(shown(least)), (most != f64::MAX).then(|| shown(most))));
    let row = Row { key, value, origin: chosen.origin, limit, refusal: None, note: None };
    refused_if(row, is_out, &reason)
}

/// A number as people write it: small ones as `1e-5`.
fn shown(number: f64) -> String {
    if number != 0.0 && number.abs() < 1e-3 { format!("{number:e}") } else { number.to_string() }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
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
    fn refused(change: impl FnOnce(&mut Parameters)) -> Vec<&'static str> {
        let mut parameters = seed();
        change(&mut parameters);
        let settled = settle(parameters, &limits(), true);
        rows(&settled, &limits(), true)
            .iter()
            .filter(|row| row.refusal.is_some())
            .map(|row| row.key)
            .collect()
    }

    fn set<T>(value: T) -> Option<Chosen<T>> {
        Some(Chosen { value, origin: Origin::Flag })
    }

    #[test]
    fn the_seeds_values_are_within_the_limits() {
        assert!(refused(|_| {}).is_empty());
    }

    #[test]
    fn every_value_over_its_limit_is_refused_by_name() {
        assert_eq!(refused(|of| of.lora_rank.value = 128), ["lora_rank"]);
        assert_eq!(refused(|of| of.n_epochs.value = 21), ["n_epochs"]);
        assert_eq!(refused(|of| of.n_epochs.value = 0), ["n_epochs"]);
        assert_eq!(refused(|of| of.n_evals = set(101)), ["n_evals"]);
        assert_eq!(refused(|of| of.n_checkpoints = set(3)), ["n_checkpoints"]);
        assert_eq!(refused(|of| of.learning_rate.value = 0.02), ["learning_rate"]);
        assert_eq!(refused(|of| of.learning_rate.value = f64::NAN), ["learning_rate"]);
        assert_eq!(refused(|of| of.batch_size.value = BatchSize::Samples(4)), ["batch_size"]);
        assert_eq!(refused(|of| of.batch_size.value = BatchSize::Samples(65)), ["batch_size"]);
        assert_eq!(refused(|of| of.lora.value = false), ["lora"]);
        assert_eq!(refused(|of| of.lora_dropout.value = 1.0), ["lora_dropout"]);
        assert_eq!(refused(|of| of.warmup_ratio.value = 1.5), ["warmup_ratio"]);
        assert_eq!(refused(|of| of.max_seq_length = set(256)), ["max_seq_length"]);
        assert_eq!(refused(|of| of.suffix.value = "x".repeat(32)), ["suffix"]);
        assert_eq!(refused(|of| of.suffix.value = "a b".to_owned()), ["suffix"]);
        assert_eq!(refused(|of| of.early_stopping.value = true), ["early_stopping"], "3 evaluations of 4");
    }

    #[test]
    fn a_refusal_names_value_and_bound() {
        let mut parameters = seed();
        parameters.lora_rank = Chosen { value: 128, origin: Origin::Flag };
        let settled = settle(parameters, &limits(), true);
        let rows = rows(&settled, &limits(), true);
        let row = rows.iter().find(|row| row.key == "lora_rank").unwrap();
        assert_eq!((row.value.as_str(), row.origin, row.limit.as_str()), ("128", Origin::Flag, "1 to 64"));
        assert_eq!(row.refusal.as_deref(), Some("must be between 1 and 64"));
    }

    #[test]
    fn defaults_follow_the_data_and_the_model() {
        let settled = settle(seed(), &limits(), true);
        assert_eq!((settled.n_evals.value, settled.n_checkpoints.value), (3, 2));
        assert_eq!(settle(seed(), &limits(), false).n_evals.value, 0);
        assert_eq!(settle(seed(), &Limits::read("m", &json!({})), true).n_checkpoints.value, 3);
    }

    #[test]
    fn evaluations_without_validation_data_are_refused() {
        let mut parameters = seed();
        parameters.n_evals = set(3);
        let settled = settle(parameters, &limits(), false);
        assert!(
            rows(&settled, &limits(), false).iter().any(|row| row.key == "n_evals" && row.refusal.is_some())
        );
    }

    #[test]
    fn unusual_values_are_noted_and_kept() {
        let rows = rows(&settle(seed(), &limits(), true), &limits(), true);
        let noted: Vec<&str> = rows.iter().filter(|row| row.note.is_some()).map(|row| row.key).collect();
        assert_eq!(noted, ["learning_rate", "lora_alpha"]);
        assert!(rows.iter().any(|row| row.key == "learning_rate" && row.value == "1e-5"));
    }

    #[test]
    fn an_inherited_training_type_is_one_row_and_binds_no_value_of_lora() {
        let mut parameters = seed();
        parameters.from_checkpoint = set("ft-1".to_owned());
        // Above what the model allows, and not sent.
        parameters.lora_rank.value = 128;
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
            parameters.from_checkpoint = set("ft-1".to_owned());
            parameters.batch_size.value = BatchSize::Samples(65);
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
        check(false, true, |of| of.lora.value = false);
        check(true, false, |of| of.from_checkpoint = set("ft-1".to_owned()));
        check(false, true, |of| of.from_checkpoint = set("ft-1".to_owned()));
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
