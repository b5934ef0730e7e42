//! What somebody chose about preparing, and what the engine makes of it.
//!
//! Defaults stand below the file and the file below flags; the one conversion to [`Options`] is
//! where everything is checked.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

use crate::config::{Bytes, ConfigError, ConfigFile};
use ctxtune_engine::line::template::{Template, TemplateError};
use ctxtune_engine::prepare::{Durability, Options, Purpose, Readers};
use ctxtune_engine::record::reject::RejectLimit;
use ctxtune_engine::source::{
    Containers, DEFAULT_RECORD_BYTES, DEFAULT_SPOOL_BYTES, Source, SourceKind, is_url, unsupported,
};
use ctxtune_engine::split::Ratio;
use ctxtune_engine::split::group::GroupBy;
use ctxtune_engine::yaml;

/// Where data goes unless somebody says otherwise.
pub const DEFAULT_OUTPUT_DIR: &str = "training/output";

/// The largest record that `--max-record-bytes` can allow: the parser counts in 32 bits.
pub const MAX_RECORD_BYTES: u64 = 1 << 30;

/// The keys of a configuration file that are about preparing.
pub const KEYS: [&str; 15] = [
    "data_dir",
    "containers",
    "output_dir",
    "val_ratio",
    "seed",
    "template",
    "shard_records",
    "group_by",
    "max_rejects",
    "strict",
    "only_correct",
    "max_record_bytes",
    "max_spool_bytes",
    "threads",
    "no_sync",
];

impl ConfigFile {
    /// What the file says about preparing.
    ///
    /// # Errors
    /// When a value is not of its key's type.
    pub fn prepare_choices(&self) -> Result<PrepareChoices, ConfigError> {
        let max_rejects = match self.switch("strict")? {
            Some(true) => Some(RejectLimit::Count(0)),
            Some(false) | None => self.parse("max_rejects")?,
        };
        Ok(PrepareChoices {
            sources: self.file("data_dir").into_iter().collect(),
            files_from: None,
            containers: self.switch("containers")?,
            max_spool_bytes: self.parse("max_spool_bytes")?,
            output_dir: self.file("output_dir"),
            val_ratio: self.parse("val_ratio")?,
            seed: self.whole("seed")?,
            template: self.file("template"),
            shard_records: self.whole("shard_records")?,
            group_by: self.parse("group_by")?,
            max_rejects,
            only_correct: self.switch("only_correct")?,
            max_record_bytes: self.parse("max_record_bytes")?,
            threads: self.whole("threads")?,
            no_sync: self.switch("no_sync")?,
        })
    }
}

/// What somebody chose about preparing; `None` where nothing was said.
#[derive(Debug, Clone, Default)]
pub struct PrepareChoices {
    /// The sources named one by one, or `data_dir`
    pub sources: Vec<PathBuf>,
    /// A file that names further sources
    pub files_from: Option<PathBuf>,
    /// `containers`
    pub containers: Option<bool>,
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
            containers: self.containers.or(lower.containers),
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
        let Bytes(max_record_bytes) = self.max_record_bytes.unwrap_or(Bytes(DEFAULT_RECORD_BYTES as u64));
        if max_record_bytes == 0 || max_record_bytes > MAX_RECORD_BYTES {
            let reason = format!("must be between 1 byte and 1GiB, got {max_record_bytes} bytes");
            return Err(ConfigError::Value { key: "max_record_bytes", place: String::new(), reason });
        }
        let Bytes(max_spool_bytes) = self.max_spool_bytes.unwrap_or(Bytes(DEFAULT_SPOOL_BYTES));
        let containers = match self.containers {
            Some(true) => Containers::Read,
            Some(false) | None => Containers::Skip,
        };
        Ok(Options {
            sources: sources(self.sources, self.files_from.as_deref(), containers)?,
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
            readers: Readers::default(),
            purpose,
        })
    }
}

/// What the named paths hold, in their order, followed by what the file `from` names.
fn sources(
    paths: Vec<PathBuf>,
    from: Option<&Path>,
    containers: Containers,
) -> Result<Vec<Source>, ConfigError> {
    let is_stdin = |path: &Path| path == Path::new("-");
    let listed = from.map_or_else(|| Ok(Vec::new()), listed_paths)?;
    let paths: Vec<PathBuf> = paths.into_iter().chain(listed).collect();
    if paths.is_empty() {
        return Err(ConfigError::NoCorpus);
    }
    let readers =
        paths.iter().filter(|path| is_stdin(path)).count() + usize::from(from.is_some_and(is_stdin));
    if readers > 1 {
        let reason = "standard input can be read once only".to_owned();
        return Err(ConfigError::Value { key: "-", place: String::new(), reason });
    }
    let source = |path: PathBuf| {
        let is_there = is_stdin(&path) || path.exists();
        let found = if is_there { Source::of(&path, containers) } else { None };
        // A URL may end as a container does.
        let is_known = if is_there { found.is_none() } else { is_url(&path) };
        if let Some(unsupported) = unsupported(&path).filter(|_| is_known) {
            return Err(ConfigError::Unsupported { path, unsupported });
        }
        match found {
            Some(source) => Ok(source),
            // Nothing is there: the engine says so, in the system's words.
            None if !is_there => Ok(Source { path, kind: SourceKind::Directory(containers) }),
            None => Err(ConfigError::UnknownSource(path)),
        }
    };
    paths.into_iter().map(source).collect()
}

/// The paths in `file` (`-`: standard input), separated by NUL if there is one, else by newlines. Each is there,
/// and there once.
fn listed_paths(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let is_stdin = file == Path::new("-");
    let read = if is_stdin {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    let failed = |source| ConfigError::Read { path: file.to_owned(), source };
    let bytes = read.map_err(failed)?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        let reason = "expected UTF-8 text, got UTF-16".to_owned();
        return Err(ConfigError::Yaml { path: file.to_owned(), reason });
    }
    let separator = if bytes.contains(&0) { 0 } else { b'\n' };
    let mut listed = Vec::new();
    for (index, entry) in bytes.split(|&byte| byte == separator).enumerate() {
        let entry = match separator {
            0 => entry,
            _ => entry.strip_suffix(b"\r").unwrap_or(entry),
        };
        let bom = "\u{feff}".as_bytes();
        let entry = if index == 0 { entry.strip_prefix(bom).unwrap_or(entry) } else { entry };
        if !entry.is_empty() {
            listed.push((path_of_bytes(entry).map_err(failed)?, index + 1));
        }
    }
    let unfit = |(path, number): &(PathBuf, usize), what| ConfigError::Listed {
        list: if is_stdin { "standard input".into() } else { file.to_owned() },
        number: *number,
        path: path.clone(),
        what,
    };
    if let Some(missing) =
        listed.iter().find(|(path, _)| path != Path::new("-") && !path.exists() && !is_url(path))
    {
        return Err(unfit(missing, "no such file".to_owned()));
    }
    let mut sorted: Vec<&(PathBuf, usize)> = listed.iter().collect();
    sorted.sort();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(unfit(twice[1], format!("listed twice, first as number {}", twice[0].1)));
    }
    Ok(listed.into_iter().map(|(path, _)| path).collect())
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
///
/// # Errors
/// When the file cannot be read, or is no template.
pub fn read_template(name: &Path) -> Result<Template, ConfigError> {
    if name == Path::new("chatml") {
        return Ok(Template::chatml());
    }
    let path = name.to_owned();
    let text = match std::fs::read(name) {
        Ok(bytes) => yaml::text(bytes),
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    let text = text.map_err(|reason| ConfigError::Template {
        path: path.clone(),
        source: TemplateError::Yaml(reason),
    })?;
    let stem = name.file_stem().unwrap_or_default().to_string_lossy();
    Template::parse(&text, &stem).map_err(|source| ConfigError::Template { path, source })
}
