//! Resolves what the user wants: defaults, below the configuration file, below flags.
//!
//! What was chosen ([`PrepareChoices`]) and what the engine needs ([`Options`]) are two
//! types with one conversion between them, where everything is checked. The file is the
//! seed's YAML; a key nobody knows is an error with a suggestion, since a misspelt
//! `learning_rate` would cost a job.

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::prepare::group::GroupBy;
use crate::prepare::reject::RejectLimit;
use crate::prepare::source::{Source, SourceKind};
use crate::prepare::split::Ratio;
use crate::prepare::template::{Template, TemplateError};
use crate::prepare::{Durability, Options, Purpose};

/// Where data goes unless somebody says otherwise.
pub const DEFAULT_OUTPUT_DIR: &str = "training/output";

/// The largest record that `--max-record-bytes` can allow: the parser counts in 32 bits.
pub const MAX_RECORD_BYTES: u64 = 1 << 30;

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
    /// The template file cannot be used.
    #[error("template `{path}`: {source}")]
    Template {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TemplateError,
    },
    /// A file that is neither a record nor a known container.
    #[error("`{0}` is no directory, and its name says of no known container")]
    UnknownSource(PathBuf),
    /// Nobody said which corpus.
    #[error("no corpus was named")]
    NoCorpus,
}

/// The keys of a configuration file: the seed's, then the options of `prepare`.
const KEYS: [&str; 24] = [
    "base_model",
    "n_epochs",
    "learning_rate",
    "batch_size",
    "lora",
    "lora_rank",
    "lora_alpha",
    "val_ratio",
    "wandb_project",
    "wandb_run_name",
    "n_checkpoints",
    "seed",
    "data_dir",
    "output_dir",
    "template",
    "shard_records",
    "group_by",
    "max_rejects",
    "strict",
    "only_correct",
    "max_record_bytes",
    "threads",
    "no_sync",
    "max_spool_bytes",
];

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
        if let Some(key) = values.keys().find(|key| !KEYS.contains(&key.as_str())) {
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

    /// The value of `key`, unless it is absent or null.
    fn get<T: DeserializeOwned>(&self, key: &'static str) -> Result<Option<T>, ConfigError> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                serde_json::from_value(value.clone()).map(Some).map_err(|error| self.error(key, error))
            }
        }
    }

    /// The value of `key`, a string or a number, read as a flag's text would be.
    fn parse<T: FromStr<Err: fmt::Display>>(&self, key: &'static str) -> Result<Option<T>, ConfigError> {
        let text = match self.values.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(other) => {
                return Err(self.error(key, format!("expected a string or a number, found {other}")));
            }
        };
        text.parse().map(Some).map_err(|error| self.error(key, error))
    }

    /// What the file says about preparing.
    ///
    /// # Errors
    /// When a value is not of its key's type.
    pub fn prepare_choices(&self) -> Result<PrepareChoices, ConfigError> {
        let max_rejects = match self.get("strict")? {
            Some(true) => Some(RejectLimit::Count(0)),
            Some(false) | None => self.parse("max_rejects")?,
        };
        Ok(PrepareChoices {
            sources: self.get("data_dir")?.into_iter().collect(),
            files_from: None,
            max_spool_bytes: self.parse("max_spool_bytes")?,
            output_dir: self.get("output_dir")?,
            val_ratio: self.parse("val_ratio")?,
            seed: self.get("seed")?,
            template: self.get("template")?,
            shard_records: self.get("shard_records")?,
            group_by: self.parse("group_by")?,
            max_rejects,
            only_correct: self.get("only_correct")?,
            max_record_bytes: self.parse("max_record_bytes")?,
            threads: self.get("threads")?,
            no_sync: self.get("no_sync")?,
        })
    }
}

/// The known key nearest to `key`, if any is near.
fn suggestion(key: &str) -> Option<&'static str> {
    let key = key.replace('-', "_").to_lowercase();
    let near = KEYS.iter().map(|known| (strsim::damerau_levenshtein(&key, known), *known));
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

/// What somebody chose about preparing; `None` where nothing was said.
#[derive(Debug, Clone, Default)]
pub struct PrepareChoices {
    /// The sources named one by one, or `data_dir`
    pub sources: Vec<PathBuf>,
    /// A file that names further sources
    pub files_from: Option<PathBuf>,
    /// `max_spool_bytes`
    pub max_spool_bytes: Option<Bytes>,
    /// `output_dir`
    pub output_dir: Option<PathBuf>,
    /// `val_ratio`
    pub val_ratio: Option<Ratio>,
    /// `seed`
    pub seed: Option<u64>,
    /// `template`: `chatml` or a file
    pub template: Option<PathBuf>,
    /// `shard_records`
    pub shard_records: Option<NonZeroU64>,
    /// `group_by`
    pub group_by: Option<GroupBy>,
    /// `max_rejects`, or `strict` as a limit of 0
    pub max_rejects: Option<RejectLimit>,
    /// `only_correct`
    pub only_correct: Option<bool>,
    /// `max_record_bytes`
    pub max_record_bytes: Option<Bytes>,
    /// `threads`
    pub threads: Option<NonZeroUsize>,
    /// `no_sync`
    pub no_sync: Option<bool>,
}

impl PrepareChoices {
    /// These choices where they say something, else those of `lower`.
    #[must_use]
    pub fn over(self, lower: PrepareChoices) -> PrepareChoices {
        let names_sources = !self.sources.is_empty() || self.files_from.is_some();
        PrepareChoices {
            sources: if names_sources { self.sources } else { lower.sources },
            files_from: self.files_from.or(lower.files_from),
            max_spool_bytes: self.max_spool_bytes.or(lower.max_spool_bytes),
            output_dir: self.output_dir.or(lower.output_dir),
            val_ratio: self.val_ratio.or(lower.val_ratio),
            seed: self.seed.or(lower.seed),
            template: self.template.or(lower.template),
            shard_records: self.shard_records.or(lower.shard_records),
            group_by: self.group_by.or(lower.group_by),
            max_rejects: self.max_rejects.or(lower.max_rejects),
            only_correct: self.only_correct.or(lower.only_correct),
            max_record_bytes: self.max_record_bytes.or(lower.max_record_bytes),
            threads: self.threads.or(lower.threads),
            no_sync: self.no_sync.or(lower.no_sync),
        }
    }

    /// Puts defaults where nothing was chosen and checks the rest; `cores` is the number of threads by
    /// default.
    ///
    /// # Errors
    /// When no corpus was named, a value is out of bounds, or the template cannot be used.
    pub fn resolve(self, purpose: Purpose, cores: NonZeroUsize) -> Result<Options, ConfigError> {
        let Bytes(max_record_bytes) = self.max_record_bytes.unwrap_or(Bytes(64 << 20));
        if max_record_bytes == 0 || max_record_bytes > MAX_RECORD_BYTES {
            let reason = format!("{max_record_bytes} bytes; it is from 1 byte to 1GiB");
            return Err(ConfigError::Value { key: "max_record_bytes", place: String::new(), reason });
        }
        let Bytes(max_spool_bytes) = self.max_spool_bytes.unwrap_or(Bytes(64 << 30));
        let sources = sources(self.sources, self.files_from.as_deref())?;
        Ok(Options {
            prefixes_keys: sources.iter().filter(|source| source.kind != SourceKind::Record).count() > 1,
            sources,
            max_spool_bytes,
            output_dir: self.output_dir.unwrap_or_else(|| DEFAULT_OUTPUT_DIR.into()),
            val_ratio: self.val_ratio.unwrap_or_else(|| "0.1".parse().expect("a decimal below 1")),
            seed: self.seed.unwrap_or(42),
            template: match self.template {
                Some(name) => read_template(&name)?,
                None => Template::chatml(),
            },
            shard_records: self.shard_records,
            group_by: self.group_by,
            max_rejects: self.max_rejects.unwrap_or_else(|| "5%".parse().expect("a percentage")),
            only_correct: self.only_correct.unwrap_or(false),
            max_record_bytes: max_record_bytes as usize,
            threads: self.threads.unwrap_or(cores),
            durability: match self.no_sync {
                Some(true) => Durability::NoSync,
                Some(false) | None => Durability::Sync,
            },
            purpose,
        })
    }
}

/// What the named paths hold, in their order, followed by what the file `from` names.
fn sources(mut paths: Vec<PathBuf>, from: Option<&Path>) -> Result<Vec<Source>, ConfigError> {
    if let Some(from) = from {
        paths.extend(listed_paths(from)?);
    }
    if paths.is_empty() {
        return Err(ConfigError::NoCorpus);
    }
    let is_stdin = |path: &Path| path == Path::new("-");
    let readers =
        paths.iter().filter(|path| is_stdin(path)).count() + usize::from(from.is_some_and(is_stdin));
    if readers > 1 {
        let reason = "standard input can be read once only".to_owned();
        return Err(ConfigError::Value { key: "-", place: String::new(), reason });
    }
    let source = |path: PathBuf| match Source::of(&path) {
        Some(source) => Ok(source),
        // Nothing is there: the engine says so, in the system's words.
        None if !path.exists() => Ok(Source { path, kind: SourceKind::Directory }),
        None => Err(ConfigError::UnknownSource(path)),
    };
    paths.into_iter().map(source).collect()
}

/// The paths in `file` (`-`: standard input), separated by NUL if there is one, else by newlines.
fn listed_paths(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let read = || match file == Path::new("-") {
        true => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
        }
        false => std::fs::read(file),
    };
    let failed = |source| ConfigError::Read { path: file.to_owned(), source };
    let bytes = read().map_err(failed)?;
    let separator = if bytes.contains(&0) { 0 } else { b'\n' };
    let lines = bytes.split(|&byte| byte == separator);
    let path = |line: &[u8]| match separator {
        0 => path_of_bytes(line),
        _ => path_of_bytes(line.strip_suffix(b"\r").unwrap_or(line)),
    };
    let paths = lines.map(path).filter(|path| !path.as_ref().is_ok_and(|path| path.as_os_str().is_empty()));
    paths.collect::<std::io::Result<_>>().map_err(failed)
}

#[cfg(unix)]
fn path_of_bytes(bytes: &[u8]) -> std::io::Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::OsStr::from_bytes(bytes).into())
}

#[cfg(not(unix))]
fn path_of_bytes(bytes: &[u8]) -> std::io::Result<PathBuf> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
    Ok(text.into())
}

/// The built-in template of that name, or the one in the file.
fn read_template(name: &Path) -> Result<Template, ConfigError> {
    if name == Path::new("chatml") {
        return Ok(Template::chatml());
    }
    let path = name.to_owned();
    let text = match std::fs::read_to_string(name) {
        Ok(text) => text,
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    let stem = name.file_stem().unwrap_or_default().to_string_lossy();
    Template::parse(&text, &stem).map_err(|source| ConfigError::Template { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::Mode;

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
