//! Resolves what the user wants: defaults, below the configuration file, below flags.
//!
//! What was chosen ([`PrepareChoices`], [`TuneChoices`]) and what the work needs are two types
//! each, with one conversion between them, where everything is checked. The file is the
//! seed's YAML; a key nobody knows is an error with a suggestion, since a misspelt
//! `learning_rate` would cost a job.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::prepare::source::Unsupported;
use crate::prepare::template::TemplateError;

mod prepare;
mod tune;

pub use prepare::{DEFAULT_OUTPUT_DIR, MAX_RECORD_BYTES, PrepareChoices, read_template};
pub use tune::{Switch, TuneChoices};

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration file is not a YAML mapping.
    #[error("`{path}` is not a configuration: {reason}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        reason: String,
    },
    /// A key nobody knows.
    #[error("`{path}` has the unknown key `{key}`")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// A known key that looks like it.
        suggestion: Option<&'static str>,
    },
    /// A value that the key cannot have.
    #[error("`{key}`{place}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// ` in <file>`, or nothing for a flag.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A list of files names what cannot be read.
    #[error("`{list}:{number}` names `{path}`: {what}")]
    Listed {
        /// The list.
        list: PathBuf,
        /// Its line, or its entry between NULs, from 1.
        number: usize,
        /// What stands there.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The template file cannot be used.
    #[error("template `{path}`: {source}")]
    Template {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TemplateError,
    },
    /// A file that is neither a record nor a known container.
    #[error("unsupported source `{0}`: not a directory, and its name has no known ending")]
    UnknownSource(PathBuf),
    /// A URL, or a file of a known format that is not read.
    #[error("`{path}` {}", unsupported.what)]
    Unsupported {
        /// What was named.
        path: PathBuf,
        /// What it is, and what to do.
        unsupported: Unsupported,
    },
    /// Nobody said which corpus.
    #[error("no corpus was named")]
    NoCorpus,
}

/// The keys of a configuration file.
fn keys() -> impl Iterator<Item = &'static str> {
    prepare::KEYS.into_iter().chain(tune::KEYS)
}

/// A configuration file, its keys checked.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
    values: serde_json::Map<String, Value>,
}

impl ConfigFile {
    /// Reads the YAML file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is not a mapping, or has an unknown key.
    pub fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let yaml = |reason: String| ConfigError::Yaml { path: path.to_owned(), reason };
        let value: Value = serde_saphyr::from_str(&text).map_err(|error| yaml(error.to_string()))?;
        let values = match value {
            Value::Object(values) => values,
            Value::Null => serde_json::Map::new(),
            _ => return Err(yaml("it is not a mapping of keys to values".to_owned())),
        };
        if let Some(key) = values.keys().find(|key| !keys().any(|known| known == key.as_str())) {
            return Err(ConfigError::UnknownKey {
                path: path.to_owned(),
                key: key.clone(),
                suggestion: suggestion(key),
            });
        }
        Ok(ConfigFile { path: path.to_owned(), values })
    }

    fn error(&self, key: &'static str, reason: impl fmt::Display) -> ConfigError {
        ConfigError::Value {
            key,
            place: format!(" in `{}`", self.path.display()),
            reason: reason.to_string(),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value of `key`, unless it is absent or null.
    ///
    /// # Errors
    /// When it is of another type.
    pub fn get<T: DeserializeOwned>(&self, key: &'static str) -> Result<Option<T>, ConfigError> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                serde_json::from_value(value.clone()).map(Some).map_err(|error| self.error(key, error))
            }
        }
    }

    /// The value of `key`, a string, a number or a truth value, read as a flag's text would be.
    ///
    /// # Errors
    /// When it is of another type, or no such value.
    pub fn parse<T: FromStr<Err: fmt::Display>>(&self, key: &'static str) -> Result<Option<T>, ConfigError> {
        let text = match self.values.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(truth)) => truth.to_string(),
            Some(other) => {
                return Err(self.error(key, format!("expected a string or a number, found {other}")));
            }
        };
        text.parse().map(Some).map_err(|error| self.error(key, error))
    }
}

/// The known key nearest to `key`, if any is near.
fn suggestion(key: &str) -> Option<&'static str> {
    let key = key.replace('-', "_").to_lowercase();
    let near = keys().map(|known| (strsim::damerau_levenshtein(&key, known), known));
    near.filter(|(distance, known)| *distance <= 3.max(known.len() / 3)).min().map(|(_, known)| known)
}

/// A number of bytes as people write it: `67108864`, `64MiB`, `1.5 GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let explain = || format!("`{text}` is not a size such as 1000000, 64MiB or 1.5GB");
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
    use std::num::NonZeroUsize;

    use super::*;
    use crate::prepare::reject::RejectLimit;
    use crate::prepare::{Mode, Options, Purpose};

    fn file(yaml: &str) -> Result<ConfigFile, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, yaml).unwrap();
        ConfigFile::read(&path)
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
            Err(ConfigError::UnknownKey { suggestion, .. }) => assert_eq!(suggestion, expected, "{yaml}"),
            other => panic!("{other:?}"),
        };
        check("learning_rat: 1", Some("learning_rate"));
        check("val-ratio: 0.1", Some("val_ratio"));
        check("outputdir: x", Some("output_dir"));
        check("zzzzzzzzzzzz: 1", None);
    }

    #[test]
    fn a_wrong_value_names_its_key() {
        let check = |yaml: &str, expected: &str| {
            let error = file(yaml).and_then(|file| file.prepare_choices()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{expected}` in `")), "{error}");
        };
        check("val_ratio: 1.5", "val_ratio");
        check("val_ratio: [1]", "val_ratio");
        check("seed: abc", "seed");
        check("shard_records: 0", "shard_records");
        check("max_rejects: many", "max_rejects");
        check("strict: 3", "strict");
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
        for bytes in [0, MAX_RECORD_BYTES + 1] {
            let choices = PrepareChoices {
                sources: vec!["c".into()],
                max_record_bytes: Some(Bytes(bytes)),
                ..PrepareChoices::default()
            };
            assert!(matches!(resolve(choices), Err(ConfigError::Value { key: "max_record_bytes", .. })));
        }
    }
}
