//! What makes a job the same job, and the eight digits at the end of its suffix that say so.
//!
//! Frozen: another release, or another machine, must compute the same tag for the same job, or the job is
//! paid for again. So the tag is made of named values as text, not of the body that is sent, whose form
//! is the service's. Nothing that the service decides enters: where a default depends on a model's limits,
//! the value before the limit does. A parameter that is new enters only where it is not its default.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::job::model::REFERENCE;
use crate::job::parameters::{SEED_MODEL, Settled};
use ctxtune_engine::output::manifest::Hex;

pub(crate) const TAG_DIGITS: usize = 8;
const VERSION: &str = "ctxtune.tag/2";

/// What makes a job the same job: whoever has the same of these gets the same tag.
#[derive(Debug, Clone)]
pub struct Identity {
    pub project: String,
    pub train_sha256: String,
    pub val_sha256: Option<String>,
    pub settled: Settled,
    /// `WANDB_RUN_ID`, if an agent set it.
    pub wandb_run_id: Option<String>,
}

impl Identity {
    /// The tag of the attempt with this number, counted from 1: the first 8 hexadecimal digits of the
    /// SHA-256 of [`Identity::text`].
    pub fn tag(&self, attempt: u32) -> String {
        let digest = Sha256::digest(self.text(attempt));
        Hex(&digest[..TAG_DIGITS / 2]).to_string()
    }

    /// What is hashed: the version, then a line `name=value` for each named value, sorted by name. In a
    /// value a backslash is `\\` and a newline is `\n`.
    pub fn text(&self, attempt: u32) -> String {
        let mut named = self.parameters();
        let beside = [
            ("attempt", Some(attempt.to_string())),
            ("project", Some(self.project.clone())),
            ("train_sha256", Some(self.train_sha256.clone())),
            ("val_sha256", self.val_sha256.clone()),
            ("wandb_run_id", self.wandb_run_id.clone()),
        ];
        named.extend(beside.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        let line = |(name, value): (String, String)| {
            format!("{name}={}\n", value.replace('\\', "\\\\").replace('\n', "\\n"))
        };
        let lines: String = named.into_iter().map(line).collect();
        format!("{VERSION}\n{lines}")
    }

    fn parameters(&self) -> BTreeMap<String, String> {
        let chosen = &self.settled.parameters;
        let mut values = self.settled.values();
        let mut put = |key: &str, value: Value| values.insert(key.to_owned(), value);
        let default_evals = if self.val_sha256.is_some() { chosen.n_epochs } else { 0 };
        put("n_evals", chosen.n_evals.unwrap_or(default_evals).into());
        put("n_checkpoints", chosen.n_checkpoints.unwrap_or(chosen.n_epochs).into());
        // The seed's model and its tunable twin are one, whichever of them the service knows today.
        if chosen.from_checkpoint.is_none() && chosen.base_model == SEED_MODEL {
            put("base_model", format!("{SEED_MODEL}{REFERENCE}").into());
        }
        values.into_iter().map(|(key, value)| (key, text(value))).collect()
    }
}

/// A value as text; a number that is no whole one in decimal digits.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Number(number) if number.is_f64() => number.as_f64().map(decimal).unwrap_or_default(),
        other => other.to_string(),
    }
}

/// The fewest decimal digits that say `number` exactly, never with an exponent: `0.00001`, `2`.
fn decimal(number: f64) -> String {
    // -0 is 0.
    (number + 0.0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::parameters::tests::{seed, settled};
    use crate::job::parameters::{BatchSize, Origin, Parameters, Scheduler, TrainOnInputs};

    fn identity(change: impl FnOnce(&mut Parameters)) -> Identity {
        let mut parameters = seed();
        change(&mut parameters);
        Identity {
            project: "proj-1".to_owned(),
            train_sha256: "0a".repeat(32),
            val_sha256: Some("0b".repeat(32)),
            settled: settled(parameters),
            wandb_run_id: None,
        }
    }

    #[test]
    fn the_text_of_the_seeds_job_is_frozen() {
        let expected = format!(
            "ctxtune.tag/2\nattempt=1\nbase_model=meta-llama/Meta-Llama-3.1-8B-Instruct-Reference\n\
             batch_size=max\nearly_stopping=false\nlearning_rate=0.00001\nlora=true\nlora_alpha=16\n\
             lora_dropout=0\nlora_rank=64\nlora_trainable_modules=all-linear\nlr_num_cycles=0.5\n\
             lr_scheduler=cosine\nmax_grad_norm=1\nmin_lr_ratio=0\nn_checkpoints=3\nn_epochs=3\nn_evals=3\n\
             packing=true\nproject=proj-1\nrandom_seed=42\nsuffix=socialized-context-generator\n\
             train_on_inputs=auto\ntrain_sha256={}\nval_sha256={}\nwarmup_ratio=0\nweight_decay=0\n",
            "0a".repeat(32),
            "0b".repeat(32)
        );
        assert_eq!(identity(|_| {}).text(1), expected);
    }

    /// A change of these tags pays again for every job that is there: they may never change.
    #[test]
    fn the_tags_of_this_release_are_those_of_every_release() {
        let check = |tag: &str, identity: Identity| assert_eq!(identity.tag(1), tag, "{}", identity.text(1));
        check("02a0c774", identity(|_| {}));
        check("81191345", identity(|of| of.learning_rate = 2.5e-4));
        check("2ee4e5d3", identity(|of| of.batch_size = BatchSize::Samples(16)));
        check("1414058d", identity(|of| of.lora = false));
        check("c3c84b0b", identity(|of| of.from_checkpoint = Some("ft-1:20".to_owned())));
        check(
            "87474ad3",
            identity(|of| {
                of.from_checkpoint = Some("ft-1:20".to_owned());
                of.origins.insert("lora_rank".to_owned(), Origin::File);
            }),
        );
        check("e2306f3e", identity(|of| of.lr_scheduler = Scheduler::Linear));
        check("c90bf410", identity(|of| of.train_on_inputs = TrainOnInputs::Always(false)));
        check(
            "f474b252",
            identity(|of| {
                of.early_stopping = true;
                of.n_evals = Some(8);
                of.early_stopping_patience = Some(3);
                of.early_stopping_min_delta = Some(0.001);
                of.early_stopping_warmup_evals = Some(0);
                of.max_seq_length = Some(4096);
                of.gradient_accumulation_steps = Some(2);
            }),
        );
        check("718ee27d", Identity { val_sha256: None, ..identity(|_| {}) });
        check("d192e2b8", Identity { wandb_run_id: Some("r\n1".to_owned()), ..identity(|_| {}) });
        assert_eq!(identity(|_| {}).tag(2), "ceb2244e");
    }

    #[test]
    fn the_same_job_said_in_other_words_has_the_same_tag() {
        let check =
            |change: fn(&mut Parameters)| assert_eq!(identity(change).tag(1), identity(|_| {}).tag(1));
        // What limits make of a default does not enter; what it is before them does.
        check(|of| of.n_evals = Some(3));
        check(|of| of.n_checkpoints = Some(3));
        check(|of| of.base_model = format!("{SEED_MODEL}{REFERENCE}"));
        check(|of| of.weight_decay = -0.0);
        check(|of| of.early_stopping_patience = Some(9));
        let limited = |evals, checkpoints| {
            let of = identity(|_| {});
            let settled = Settled { n_evals: evals, n_checkpoints: checkpoints, ..of.settled.clone() };
            Identity { settled, ..of }.tag(1)
        };
        assert_eq!(limited(1, 2), limited(3, 3));
    }

    #[test]
    fn whatever_makes_another_job_makes_another_tag() {
        let mut tags = vec![identity(|_| {}).tag(1), identity(|_| {}).tag(2)];
        tags.push(Identity { project: "proj-2".to_owned(), ..identity(|_| {}) }.tag(1));
        tags.push(Identity { train_sha256: "0c".repeat(32), ..identity(|_| {}) }.tag(1));
        tags.push(Identity { val_sha256: None, ..identity(|_| {}) }.tag(1));
        tags.push(Identity { wandb_run_id: Some("r".to_owned()), ..identity(|_| {}) }.tag(1));
        // A value that looks like two lines is one.
        let suffix = "s\ntrain_on_inputs=auto";
        tags.push(identity(|of| of.suffix = suffix.to_owned()).tag(1));
        tags.push(identity(|of| of.suffix = suffix.replace('\n', "\\n")).tag(1));
        tags.push(identity(|of| of.n_evals = Some(0)).tag(1));
        tags.push(identity(|of| of.from_checkpoint = Some("ft-1".to_owned())).tag(1));
        let count = tags.len();
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), count);
        assert!(tags.iter().all(|tag| tag.len() == TAG_DIGITS), "{tags:?}");
    }

    #[test]
    fn numbers_have_no_exponent_and_no_empty_fraction() {
        let check = |number: f64, expected: &str| assert_eq!(decimal(number), expected);
        check(1e-5, "0.00001");
        check(2.5e-4, "0.00025");
        check(1.0, "1");
        check(-0.0, "0");
        check(1e22, "10000000000000000000000");
        check(0.1 + 0.2, "0.30000000000000004");
    }
}
