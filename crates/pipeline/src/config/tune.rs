//! What somebody chose about a job, layer by layer: the command line, the configuration file, a sweep.
//!
//! A layer is arguments of the command line by key, whoever said them, so that every key is also a flag, one
//! reader reads all, and a wrong value is refused in the same words. Which values a model allows is not known
//! here: `job::limits` holds them against it.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde_json::Value;

use crate::config::{self, ConfigError, ConfigFile, argument, read, suggestion};
use crate::job::parameters::{Origin, Parameters};

/// What somebody chose about a job: by key, the argument that says it, each read once.
#[derive(Debug, Clone, Default)]
pub struct TuneChoices(BTreeMap<String, OsString>);

impl FromArgMatches for TuneChoices {
    fn from_arg_matches(matches: &ArgMatches) -> Result<TuneChoices, clap::Error> {
        let typed = |key: String| {
            let source = matches.value_source(&key);
            let argument = argument(&key, matches.get_raw(&key)?.next_back()?);
            (source == Some(ValueSource::CommandLine)).then_some((key, argument))
        };
        Ok(TuneChoices(Parameters::keys().into_iter().filter_map(typed).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(TuneChoices::from_arg_matches(matches)?.0);
        Ok(())
    }
}

impl Args for TuneChoices {
    fn augment_args(command: Command) -> Command {
        Parameters::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Parameters::augment_args_for_update(command)
    }
}

impl ConfigFile {
    pub fn tune_choices(&self) -> Result<TuneChoices, ConfigError> {
        self.arguments(&Parameters::command()).map(TuneChoices)
    }
}

impl TuneChoices {
    /// The choices that these values of a sweep are, each under its key.
    pub fn of_values(values: &[(String, Value)]) -> Result<TuneChoices, String> {
        let mut choices = TuneChoices::default();
        for (key, value) in values {
            TuneChoices::check_key(key)?;
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                other => {
                    return Err(format!("`{key}`: expected text, a number or a truth value, got {other}"));
                }
            };
            let argument = argument(key, &text);
            read(&Parameters::command(), Some(&argument))
                .map_err(|expected| format!("`{key}`: {expected}, got `{text}`"))?;
            choices.0.insert(key.clone(), argument);
        }
        Ok(choices)
    }

    /// Refuses a key that is none of a job's.
    pub(crate) fn check_key(key: &str) -> Result<(), String> {
        if Parameters::keys().iter().any(|known| known == key) {
            return Ok(());
        }
        Err(format!("`{key}` is not a parameter of a job{}", where_it_belongs(key)))
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// These choices where they say something, else those of `lower`.
    #[must_use]
    pub fn over(self, mut lower: TuneChoices) -> TuneChoices {
        lower.0.extend(self.0);
        lower
    }

    /// These flags over what the `file` says, over the defaults. `seed` is the seed of the split.
    pub fn resolve(self, file: TuneChoices, seed: u64) -> Parameters {
        let origins = file.0.keys().map(|key| (key.clone(), Origin::File));
        let origins = origins.chain(self.0.keys().map(|key| (key.clone(), Origin::Flag))).collect();
        let seed = argument("random_seed", seed.to_string());
        let defaults = TuneChoices(BTreeMap::from([("random_seed".to_owned(), seed)]));
        let parameters = Parameters::command()
            .try_get_matches_from(self.over(file.over(defaults)).0.values())
            .and_then(|matches| Parameters::from_arg_matches(&matches))
            .expect("every argument was read when its layer was made");
        Parameters { origins, ..parameters }
    }
}

/// What to do with a key that a sweep cannot vary.
fn where_it_belongs(key: &str) -> String {
    if config::keys().iter().any(|known| known == key) {
        return ", and a sweep varies nothing else: set it as a flag or in the configuration file".to_owned();
    }
    suggestion(key).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::limits::settle;
    use crate::job::parameters::tests::settled;
    use crate::job::parameters::{BatchSize, Files, PRICED};
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
        let choices = choices.unwrap().over(check(&[("n_epochs", json!(2))]).unwrap());
        assert_eq!(choices.keys().collect::<Vec<_>>(), ["batch_size", "learning_rate", "lora", "n_epochs"]);
        let chosen = choices.resolve(TuneChoices::default(), 42);
        assert_eq!((chosen.learning_rate, chosen.n_epochs), (1e-6, 2));
        assert_eq!((chosen.lora, chosen.batch_size), (true, BatchSize::Max));
        assert!(check(&[("lora_rnk", json!(3))]).unwrap_err().contains("did you mean `lora_rank`"));
        let whole = check(&[("n_epochs", json!(2.0)), ("batch_size", json!(16.0))]).unwrap();
        let whole = whole.resolve(TuneChoices::default(), 42);
        assert_eq!((whole.n_epochs, whole.batch_size), (2, BatchSize::Samples(16)));
        for key in ["val_ratio", "wandb_project"] {
            let said = check(&[(key, json!(0.2))]).unwrap_err();
            assert!(said.contains(&format!("`{key}`")) && said.contains("configuration file"), "{said}");
        }
        assert!(
            check(&[("n_epochs", json!("many"))])
                .unwrap_err()
                .contains("expected a whole number, got `many`")
        );
        assert!(check(&[("n_epochs", json!([1]))]).unwrap_err().contains("`n_epochs`"));
    }

    /// Two values for every key of a job, of the first kind that it takes.
    fn samples() -> Vec<(String, [&'static str; 2])> {
        let kinds = [["true", "false"], ["1", "2"], ["cosine", "linear"]];
        let is_read = |key: &str, pair: &[&str; 2]| {
            pair.iter().all(|text| TuneChoices::of_values(&[(key.to_owned(), json!(text))]).is_ok())
        };
        let sample = |key: String| {
            let pair = kinds.into_iter().find(|pair| is_read(&key, pair));
            (key, pair.unwrap())
        };
        Parameters::keys().into_iter().map(sample).collect()
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
            let max_seq_length = settled.parameters.max_seq_length.unwrap_or(8192);
            let extent =
                Extent { train_samples: 1000, val_samples: 100, max_seq_length: Some(max_seq_length) };
            let body = settled.estimate_body(Files { train: "t", val: Some("v") });
            (body, Price::of(&estimate, &settled, extent).dollars)
        };
        for (key, [one, other]) in samples() {
            let depends = ["true", "false"]
                .iter()
                .any(|packing| price(&key, one, packing) != price(&key, other, packing));
            assert_eq!(depends, PRICED.contains(&key.as_str()), "{key}");
        }
    }

    #[test]
    fn every_key_is_part_of_what_makes_a_job_the_same_job() {
        let text = |key: &str, value: &str| {
            // Its keys count only where it is on.
            let mut values = vec![("early_stopping".to_owned(), json!(true))];
            values.retain(|(known, _)| known != key);
            values.push((key.to_owned(), json!(value)));
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
        for (key, [one, other]) in samples() {
            assert!(text(&key, one).contains(&format!("\n{key}={one}\n")), "{key}");
            assert_ne!(text(&key, one), text(&key, other), "{key}");
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_says_so() {
        let choices = |values: &[(&str, u64)]| {
            let values: Vec<_> =
                values.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
            TuneChoices::of_values(&values).unwrap()
        };
        let flags = choices(&[("n_epochs", 2)]);
        let parameters = flags.resolve(choices(&[("n_epochs", 5), ("lora_rank", 32)]), 7);
        let chosen = (parameters.n_epochs, parameters.lora_rank, parameters.random_seed);
        assert_eq!(chosen, (2, 32, 7));
        let origins = ["n_epochs", "lora_rank", "random_seed"].map(|key| parameters.origin(key));
        assert_eq!(origins, [Origin::Flag, Origin::File, Origin::Default]);
    }
}
