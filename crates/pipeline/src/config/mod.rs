//! Resolves what the user wants: defaults, below the configuration file, below flags.
//!
//! What was chosen ([`PrepareChoices`], [`TuneChoices`]) and what the work needs are two types each, with one
//! conversion between them, where everything is checked. The file is the seed's YAML; a key nobody knows is an
//! error with a suggestion, since a misspelt `learning_rate` would cost a job.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Arg, ArgAction, Command};
use serde_json::Value;

use crate::job::parameters::Parameters;
use crate::job::tokens::TOKENIZER;
use crate::value;

use ctxtune_engine::line::template::TemplateError;
use ctxtune_engine::source::Unsupported;
use ctxtune_engine::yaml;

pub mod asking;
mod prepare;
pub mod template;
pub mod tokens;
mod tune;
pub mod wandb;

pub(crate) use prepare::read_template;
pub use prepare::{DEFAULT_OUTPUT_DIR, PrepareChoices};
pub use tune::TuneChoices;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read `{path}`: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{path}`: {reason}")]
    Yaml { path: PathBuf, reason: String },
    #[error("`{path}` has the unknown key `{key}`")]
    UnknownKey { path: PathBuf, key: String, suggestion: Option<String> },
    #[error("`{key}`{place}: {reason}")]
    Value {
        key: String,
        /// ` in <file>`, or nothing for a flag.
        place: String,
        reason: String,
    },
    #[error("`{list}:{number}` names `{path}`: {what}")]
    Listed {
        list: PathBuf,
        /// Its line, or its entry between NULs, from 1.
        number: usize,
        path: PathBuf,
        what: String,
    },
    #[error("template `{path}`: {source}")]
    Template { path: PathBuf, source: TemplateError },
    #[error("unsupported source `{0}`: not a directory, and its name has no known ending")]
    UnknownSource(PathBuf),
    #[error("`{path}` {}", unsupported.what())]
    Unsupported { path: PathBuf, unsupported: Unsupported },
    #[error("no corpus was named")]
    NoCorpus,
}

pub fn keys() -> Vec<String> {
    let others = ["wandb_project", "wandb_run_name", TOKENIZER].map(str::to_owned);
    prepare::keys().into_iter().chain(Parameters::keys()).chain(others).collect()
}

#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
    home: Option<PathBuf>,
    /// Every value as it is written; all are scalars, and null is absent.
    values: BTreeMap<String, String>,
}

impl ConfigFile {
    /// Reads the YAML file at `path`; `home` is what `~/` in it stands for.
    pub fn read(path: &Path, home: Option<&Path>) -> Result<ConfigFile, ConfigError> {
        let bytes =
            std::fs::read(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let failed = |reason: String| ConfigError::Yaml { path: path.to_owned(), reason };
        let text = yaml::text(bytes).map_err(failed)?;
        let mut file =
            ConfigFile { path: path.to_owned(), home: home.map(Path::to_owned), values: BTreeMap::new() };
        match yaml::parse(&text).map_err(failed)? {
            Value::Object(values) => file.check(&values)?,
            Value::Null => return Ok(file),
            _ => return Err(failed("expected keys with values, such as `n_epochs: 3`".to_owned())),
        }
        // Once more, as text: to YAML `2024` is a number and `no` a truth value, also where a name is meant.
        let values: BTreeMap<String, Option<String>> = yaml::parse(&text).map_err(failed)?;
        file.values = values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        Ok(file)
    }

    fn check(&self, values: &serde_json::Map<String, Value>) -> Result<(), ConfigError> {
        let known = keys();
        for (key, value) in values {
            if !known.contains(key) {
                return Err(ConfigError::UnknownKey {
                    path: self.path.clone(),
                    key: key.clone(),
                    suggestion: suggestion(key),
                });
            }
            let got = match value {
                Value::Array(values) => match values.iter().map(Value::as_str).collect::<Option<Vec<_>>>() {
                    Some(texts) => format!("a list: write it as `{key}: {}`", texts.join(",")),
                    None => "a list".to_owned(),
                },
                Value::Object(_) => "a mapping".to_owned(),
                _ => continue,
            };
            return Err(self.error(key, format!("expected one value, got {got}")));
        }
        Ok(())
    }

    fn error(&self, key: &str, reason: String) -> ConfigError {
        ConfigError::Value { key: key.to_owned(), place: format!(" in `{}`", self.path.display()), reason }
    }

    /// The value of `key` as it is written, unless it is absent or null.
    pub fn text(&self, key: &str) -> Option<String> {
        self.values.get(key).cloned()
    }

    /// What the file says in the place of the flags of `command`: by key, the argument that says the same.
    fn arguments(&self, command: &Command) -> Result<BTreeMap<String, OsString>, ConfigError> {
        let mut arguments = BTreeMap::new();
        for flag in command.get_arguments() {
            let key = flag.get_id().as_str();
            let Some(text) = self.values.get(key) else { continue };
            let argument = self.argument(flag, text);
            let read = argument.and_then(|argument| read(command, argument.as_deref()).map(|()| argument));
            match read {
                Ok(argument) => arguments.extend(argument.map(|argument| (key.to_owned(), argument))),
                Err(expected) => return Err(self.error(key, format!("{expected}, got `{text}`"))),
            }
        }
        Ok(arguments)
    }

    /// The argument that says what `text` says as the value of `flag`; none for a switch that is off.
    fn argument(&self, flag: &Arg, text: &str) -> Result<Option<OsString>, String> {
        let key = flag.get_id().as_str();
        if matches!(flag.get_action(), ArgAction::SetTrue) {
            return Ok(value::truth(text)?.then(|| dashed(key).into()));
        }
        let kind = flag.get_value_parser().type_id();
        let whole = [TypeId::of::<u64>(), TypeId::of::<NonZeroU64>(), TypeId::of::<NonZeroUsize>()];
        // Python reads `017` as 15 and YAML 1.2 as 17.
        let is_octal = text.starts_with('0') && text[1..].starts_with(|next: char| next.is_ascii_digit());
        if is_octal && whole.iter().any(|whole| kind == *whole) {
            return Err("expected a whole number without 0 in front: YAML readers differ about it".to_owned());
        }
        if kind == TypeId::of::<PathBuf>() {
            return Ok(Some(argument(key, value::at_home(Path::new(text), self.home.as_deref()))));
        }
        Ok(Some(argument(key, text)))
    }
}

/// `--n-epochs` for `n_epochs`.
fn dashed(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

pub fn argument(key: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut argument = OsString::from(dashed(key) + "=");
    argument.push(value);
    argument
}

/// Reads one argument of `command`, or says what its value must be.
fn read(command: &Command, argument: Option<&OsStr>) -> Result<(), String> {
    let matches = command.clone().try_get_matches_from(argument);
    let expected = |error: clap::Error| match error.source() {
        Some(expected) => expected.to_string(),
        None => "expected a value".to_owned(),
    };
    matches.map(drop).map_err(expected)
}

/// Names that other tools give to our keys.
const ALIASES: [(&str, &str); 30] = [
    ("lr", "learning_rate"),
    ("epochs", "n_epochs"),
    ("num_epochs", "n_epochs"),
    ("num_train_epochs", "n_epochs"),
    ("evals", "n_evals"),
    ("checkpoints", "n_checkpoints"),
    ("model", "base_model"),
    ("model_name", "base_model"),
    ("model_name_or_path", "base_model"),
    ("rank", "lora_rank"),
    ("r", "lora_rank"),
    ("lora_r", "lora_rank"),
    ("alpha", "lora_alpha"),
    ("dropout", "lora_dropout"),
    ("target_modules", "lora_trainable_modules"),
    ("lora_target_modules", "lora_trainable_modules"),
    ("scheduler", "lr_scheduler"),
    ("lr_scheduler_type", "lr_scheduler"),
    ("per_device_train_batch_size", "batch_size"),
    ("bs", "batch_size"),
    ("max_seq_len", "max_seq_length"),
    ("max_length", "max_seq_length"),
    ("warmup", "warmup_ratio"),
    ("dataset", "data_dir"),
    ("data", "data_dir"),
    ("output", "output_dir"),
    ("val_split", "val_ratio"),
    ("project", "wandb_project"),
    ("run_name", "wandb_run_name"),
    ("wandb_name", "wandb_run_name"),
];

/// The known key that `key` may be meant for, if any: another tool's name of it, or one with few other letters.
fn suggestion(key: &str) -> Option<String> {
    let key = key.replace('-', "_").to_lowercase();
    if let Some((_, known)) = ALIASES.iter().find(|(alias, _)| *alias == key) {
        return Some((*known).to_owned());
    }
    let near = keys().into_iter().map(|known| (strsim::damerau_levenshtein(&key, &known), known));
    near.filter(|(distance, known)| *distance <= key.len().max(known.len()) / 3).min().map(|(_, known)| known)
}

/// A number of bytes as people write it: `67108864`, `64MiB`, `1.5 GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let explain = || "expected a size such as 1000000, 64MiB or 1.5GB".to_owned();
        let end = text.find(|character: char| character != '.' && !character.is_ascii_digit());
        let (number, unit) = text.split_at(end.unwrap_or(text.len()));
        let unit: f64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "k" | "kib" => 1024.0,
            "m" | "mib" => 1024.0 * 1024.0,
            "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            _ => return Err(explain()),
        };
        let number: f64 = number.parse().map_err(|_| explain())?;
        let bytes = number * unit;
        // Above 2^53 a double no longer tells neighbouring sizes apart, and no size here comes near.
        if bytes > 9e15 { Err(explain()) } else { Ok(Bytes(bytes as u64)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::parameters::BatchSize;
    use ctxtune_engine::prepare::{Mode, Options, Purpose};
    use ctxtune_engine::record::reject::RejectLimit;

    fn file(yaml: &str) -> Result<ConfigFile, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, yaml).unwrap();
        ConfigFile::read(&path, Some(Path::new("/home/mia")))
    }

    fn parameters(file: &ConfigFile) -> Parameters {
        TuneChoices::default().resolve(file.tune_choices().unwrap(), 42)
    }

    fn resolve(choices: PrepareChoices) -> Result<Options, ConfigError> {
        let purpose = Purpose { mode: Mode::Publish, show: 0, name_rejects: 0 };
        choices.resolve(purpose, NonZeroUsize::MIN)
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let yaml = "data_dir: corpus\nval_ratio: 0.25\nseed: 7\nstrict: true\nmax_record_bytes: 1MiB\nlearning_rate: 1e-5\n";
        let flags = PrepareChoices { seed: Some(8), ..PrepareChoices::default() };
        let options = resolve(flags.over(file(yaml).unwrap().prepare_choices().unwrap())).unwrap();
        assert_eq!((options.seed, options.val_ratio.to_string().as_str()), (8, "0.25"));
        assert_eq!((options.max_rejects, options.max_record_bytes), (RejectLimit::Count(0), 1 << 20));
        assert_eq!(options.output_dir, Path::new(DEFAULT_OUTPUT_DIR));
    }

    #[test]
    fn an_unknown_key_is_refused_with_a_suggestion() {
        let check = |yaml: &str, expected| match file(yaml) {
            Err(ConfigError::UnknownKey { suggestion, .. }) => {
                assert_eq!(suggestion.as_deref(), expected, "{yaml}");
            }
            other => panic!("{other:?}"),
        };
        check("learning_rat: 1", Some("learning_rate"));
        check("val-ratio: 0.1", Some("val_ratio"));
        check("outputdir: x", Some("output_dir"));
        check("lr: 1e-5", Some("learning_rate"));
        check("num_train_epochs: 3", Some("n_epochs"));
        check("lora_rnk: 3", Some("lora_rank"));
        check("zzzzzzzzzzzz: 1", None);
        check("wandb_entity: my-team", None);
    }

    /// What is wrong with a file that has this text.
    #[track_caller]
    fn wrong(yaml: &str) -> String {
        let read = |file: ConfigFile| file.prepare_choices().and_then(|_| file.tune_choices());
        file(yaml).and_then(read).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_value_is_said_with_its_key_and_what_was_expected() {
        let check = |yaml: &str, expected: &str| {
            let (key, value) = yaml.split_once(": ").unwrap();
            let said = wrong(yaml);
            assert!(said.starts_with(&format!("`{key}` in `")), "{said}");
            assert!(said.contains(&format!("`: {expected}")), "{said}");
            assert!(said.ends_with(&format!(", got `{value}`")) || value.starts_with(['[', '{']), "{said}");
        };
        assert!(wrong("output_dir: ''").ends_with("`: expected a value, got ``"));
        check("seed: 017", "expected a whole number without 0 in front");
        check("lora_rank: 032", "expected a whole number without 0 in front");
        check("seed: abc", "expected a whole number");
        check("n_epochs: 1.5", "expected a whole number");
        check("n_evals: none", "expected a whole number");
        check("n_epochs: -1", "expected a whole number, not below 0");
        check("shard_records: 0", "expected a whole number, at least 1");
        check("compress: xz", "expected zst or gz");
        check("warmup_ratio: 10%", "expected a number such as");
        check("learning_rate: fast", "expected a number such as");
        check("batch_size: MAX", "expected `max` or a whole number");
        check("batch_size: 0", "expected `max` or a whole number");
        check("lora: maybe", "expected `true` or `false`");
        check("strict: 3", "expected `true` or `false`");
        check("val_ratio: 1.5", "expected a decimal from 0");
        check("max_rejects: many", "expected a number of records");
        check("max_record_bytes: big", "expected a size");
        check("lr_scheduler: step", "expected `cosine` or `linear`");
        check("train_on_inputs: no", "expected `auto`");
        check("val_ratio: [1]", "expected one value, got a list");
        check("suffix: {a: b}", "expected one value, got a mapping");
        check(
            "lora_trainable_modules: [q_proj, v_proj]",
            "expected one value, got a list: write it as `lora_trainable_modules: q_proj,v_proj`",
        );
    }

    #[test]
    fn what_the_parser_says_is_said_in_our_words() {
        let check = |yaml: &str, expected: &str| {
            let said = wrong(yaml);
            assert!(said.ends_with(&format!("`: {expected}")), "{said}");
        };
        check("seed: 7\n---\nseed: 8\n", "line 3, column 1: expected one document, got a second one (`---`)");
        check("seed: 1\nseed: 2\n", "line 2, column 1: the key `seed` is there twice");
        check("learning_rate: .nan\n", "line 1, column 16: expected a finite number, got `.nan`");
        check("- a\n- b", "expected keys with values, such as `n_epochs: 3`");
    }

    #[test]
    fn a_value_is_read_as_its_key_wants_it_and_not_as_yaml_guesses() {
        let yaml = "n_epochs: 3.0\nbatch_size: 16.0\nseed: \"7\"\nlora: yes\nonly_correct: \"true\"\nsuffix: 0123\n\
            wandb_run_name: 2024\nwandb_project: no\noutput_dir: 1e3\nmax_rejects: 20.0\nn_evals:\n";
        let file = file(yaml).unwrap();
        let (data, tune) = (file.prepare_choices().unwrap(), parameters(&file));
        assert_eq!((tune.n_epochs, tune.n_evals, tune.suffix.as_str()), (3, None, "0123"));
        assert_eq!((tune.batch_size, tune.lora), (BatchSize::Samples(16), true));
        assert_eq!((data.seed, data.only_correct), (Some(7), true));
        assert_eq!((data.output_dir, data.max_rejects), (Some("1e3".into()), Some(RejectLimit::Count(20))));
        let text = |key| file.text(key);
        assert_eq!((text("wandb_run_name"), text("wandb_project")), (Some("2024".into()), Some("no".into())));
    }

    #[test]
    fn a_tilde_in_a_path_is_the_home_directory() {
        let file = file("data_dir: ~/ctx\noutput_dir: ~/out\ntemplate: ~/t.yaml\nsuffix: ~/x\n").unwrap();
        let data = file.prepare_choices().unwrap();
        assert_eq!(data.data_dir, Some("/home/mia/ctx".into()));
        assert_eq!(
            (data.output_dir, data.template),
            (Some("/home/mia/out".into()), Some("/home/mia/t.yaml".into()))
        );
        assert_eq!(parameters(&file).suffix, "~/x");
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        assert!(matches!(file("- a\n- b"), Err(ConfigError::Yaml { .. })));
        assert!(matches!(file("a: b: c"), Err(ConfigError::Yaml { .. })));
        assert!(matches!(file("seed: 1\nseed: 2"), Err(ConfigError::Yaml { .. })));
        assert!(file("# nothing yet\n").is_ok());
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(text.parse::<Bytes>().ok().map(|Bytes(bytes)| bytes), expected, "{text}");
        };
        check("64MiB", Some(64 << 20));
        check("64m", Some(64 << 20));
        check("1.5 GB", Some(1_500_000_000));
        check("100", Some(100));
        check("", None);
        check("MiB", None);
        check("-1", None);
        check("5 parsecs", None);
    }

    #[test]
    fn a_record_limit_out_of_bounds_is_refused() {
        for bytes in [0, prepare::MAX_RECORD_BYTES + 1] {
            let choices = PrepareChoices {
                sources: vec!["c".into()],
                max_record_bytes: Some(Bytes(bytes)),
                ..PrepareChoices::default()
            };
            let refused = resolve(choices).unwrap_err().to_string();
            assert!(refused.starts_with("`max_record_bytes`: must be between"), "{refused}");
        }
    }
}
