//! What somebody chose about preparing, and what the engine makes of it.
//!
//! Defaults stand below the file and the file below flags; the one conversion to [`Options`] is
//! where everything is checked.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Arg, Args, Command, FromArgMatches};

use crate::config::{Bytes, ConfigError, ConfigFile};
use crate::value::{at_home, parsed, whole};
use ctxtune_engine::address::address;
use ctxtune_engine::line::template::{Template, TemplateError};
use ctxtune_engine::output::compress::Compress;
use ctxtune_engine::prepare::{Amount, Durability, GivenFiles, Mix, Options, Purpose, Readers, mix_counts};
use ctxtune_engine::ratio::Ratio;
use ctxtune_engine::record::reject::RejectLimit;
use ctxtune_engine::source::{
    Containers, DEFAULT_RECORD_BYTES, DEFAULT_SPOOL_BYTES, Source, SourceKind, is_url, unsupported,
};
use ctxtune_engine::split::group::GroupBy;
use ctxtune_engine::yaml;

pub const DEFAULT_OUTPUT_DIR: &str = "training/output";
const DEFAULT_SEED: u64 = 42;
/// The largest record that `--max-record-bytes` can allow: the parser counts in 32 bits.
pub(crate) const MAX_RECORD_BYTES: u64 = 1 << 30;

/// What somebody chose about preparing: the flags, and the keys of a configuration file. `None` where nothing
/// was said.
#[derive(Debug, Clone, Default, Args)]
pub struct PrepareChoices {
    /// Directories of *.json records, .jsonl or .ndjson files, .tar archives (each also .gz or
    /// .zst; .tgz, .tzst), s3://bucket/prefix, or - for JSONL on standard input
    #[arg(value_name = "SOURCE", conflicts_with = "data_dir")]
    pub sources: Vec<PathBuf>,
    /// The same as one SOURCE: a directory of *.json records, a .jsonl file, a .tar archive
    #[arg(long, value_name = "SOURCE")]
    pub data_dir: Option<PathBuf>,
    /// File (or -) with further sources or record files, one a line or separated by NUL
    #[arg(long, value_name = "FILE")]
    pub files_from: Option<PathBuf>,
    /// Also read the .jsonl, .ndjson and .tar files (also compressed) below a directory
    #[arg(long)]
    pub containers: bool,
    /// Directory, or s3://bucket/prefix, for the result [default: training/output]
    #[arg(short, long, value_name = "OUT")]
    pub output_dir: Option<PathBuf>,

    /// Validation fraction of the records, a decimal below 1; 0 for none [default: 0.1]
    #[arg(long, value_name = "RATIO", help_heading = "Split", value_parser = parsed::<Ratio>)]
    pub val_ratio: Option<Ratio>,
    /// Seed of the order [default: 42]
    #[arg(long, value_name = "N", help_heading = "Split", value_parser = whole::<u64>)]
    pub seed: Option<u64>,
    /// Keep records together that share their story, their set of agents, or a top-level FIELD
    #[arg(long, value_name = "story|agents|FIELD", help_heading = "Split")]
    pub group_by: Option<GroupBy>,
    /// Train on the first N training records only; the validation records stay the same
    #[arg(long, value_name = "N", help_heading = "Split", value_parser = whole::<NonZeroU64>)]
    pub limit: Option<NonZeroU64>,
    /// Add general chat lines of FILE to the training lines: so many, or a share of all training lines; several
    /// FILEs are separated by commas
    #[arg(long, value_delimiter = ',', value_name = "FILE=COUNT|FILE=SHARE%", help_heading = "Split", value_parser = parsed::<MixChoice>)]
    pub mix: Vec<MixChoice>,
    /// Records per shard; without it one file per split
    #[arg(long, value_name = "N", help_heading = "Split", value_parser = whole::<NonZeroU64>)]
    pub shard_records: Option<NonZeroU64>,
    /// Compress the training and validation files: .jsonl.zst or .jsonl.gz
    #[arg(long, value_name = "zst|gz", help_heading = "Split", value_parser = parsed::<Compress>)]
    pub compress: Option<Compress>,

    /// The records are chat lines, with `messages`: take them as they are
    #[arg(long, help_heading = "Records")]
    pub chat: bool,
    /// Layout of the messages: the built-in `chatml`, or a YAML file [default: chatml]
    #[arg(long, value_name = "chatml|FILE", help_heading = "Records")]
    pub template: Option<PathBuf>,
    /// Rejected records to allow, a number or a percentage of all [default: 5%]
    #[arg(long, value_name = "N|P%", help_heading = "Records", value_parser = parsed::<RejectLimit>)]
    pub max_rejects: Option<RejectLimit>,
    /// Allow no rejected record: --max-rejects 0
    #[arg(long, help_heading = "Records", conflicts_with = "max_rejects")]
    pub strict: bool,
    /// Leave out records with `is_correct: false`
    #[arg(long, help_heading = "Records")]
    pub only_correct: bool,
    /// Largest record to take, up to 1GiB [default: 64MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Records", value_parser = parsed::<Bytes>)]
    pub max_record_bytes: Option<Bytes>,

    /// Bytes that compressed sources and standard input may unpack to, together [default: 64GiB]
    #[arg(long, value_name = "SIZE", help_heading = "Run", value_parser = parsed::<Bytes>)]
    pub max_spool_bytes: Option<Bytes>,
    /// Threads that convert; they do not change a byte [default: the cores available]
    #[arg(long, value_name = "N", help_heading = "Run", value_parser = whole::<NonZeroUsize>)]
    pub threads: Option<NonZeroUsize>,
    /// Do not wait for the disk: faster, but a power loss can damage the result
    #[arg(long, help_heading = "Run")]
    pub no_sync: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixChoice {
    path: PathBuf,
    amount: Amount,
}

impl FromStr for MixChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, amount) = text
            .rsplit_once('=')
            .filter(|(path, _)| !path.is_empty())
            .ok_or("expected FILE=COUNT or FILE=SHARE%, such as general.jsonl=5%")?;
        Ok(MixChoice { path: path.into(), amount: amount.parse()? })
    }
}

impl MixChoice {
    fn resolve(self) -> Result<Mix, ConfigError> {
        let source = Source::of(&self.path, Containers::Skip);
        let source =
            source.filter(|source| matches!(source.kind, SourceKind::Lines(_)) && !source.is_stdin());
        let is_there = address(&self.path).is_some() || self.path.is_file();
        let source = source.filter(|_| is_there).ok_or_else(|| {
            let path = self.path.display();
            value_error("mix", "", &format!("expected a .jsonl file (also .gz or .zst), got `{path}`"))
        })?;
        Ok(Mix { source, amount: self.amount })
    }
}

fn value_error(key: &str, place: &str, reason: &str) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), place: place.to_owned(), reason: reason.to_owned() }
}

pub(crate) fn command() -> Command {
    let command = Command::new("prepare").no_binary_name(true).disable_help_flag(true);
    PrepareChoices::augment_args(command)
}

pub(crate) fn keys() -> Vec<String> {
    let is_key = |flag: &&Arg| !flag.is_positional() && flag.get_id() != "files_from";
    command().get_arguments().filter(is_key).map(|flag| flag.get_id().to_string()).collect()
}

impl ConfigFile {
    pub fn prepare_choices(&self) -> Result<PrepareChoices, ConfigError> {
        let mut arguments = self.arguments(&command())?;
        if arguments.contains_key("strict") {
            arguments.remove("max_rejects");
        }
        let matches = command().try_get_matches_from(arguments.into_values());
        let choices = matches.and_then(|matches| PrepareChoices::from_arg_matches(&matches));
        let mut choices = choices.expect("every argument was read, and no two of them conflict");
        for mix in &mut choices.mix {
            mix.path = at_home(&mix.path, self.home.as_deref());
        }
        Ok(choices)
    }
}

impl PrepareChoices {
    pub fn names_sources(&self) -> bool {
        !self.sources.is_empty() || self.data_dir.is_some() || self.files_from.is_some()
    }

    pub fn out(&self) -> PathBuf {
        self.output_dir.clone().unwrap_or_else(|| DEFAULT_OUTPUT_DIR.into())
    }

    /// The file that these choices name as a source, and `val`, as they are: none of the choices that shape
    /// data apply. `file` is what a configuration file says. Fails when it is not one file, or a flag says how
    /// to shape it.
    pub fn given(self, val: Option<PathBuf>, file: PrepareChoices) -> Result<GivenFiles, ConfigError> {
        let key = if val.is_some() { "val" } else { "as_is" };
        let shaping = [
            ("val_ratio", self.val_ratio.is_some()),
            ("group_by", self.group_by.is_some()),
            ("limit", self.limit.is_some()),
            ("mix", !self.mix.is_empty()),
            ("shard_records", self.shard_records.is_some()),
            ("compress", self.compress.is_some()),
            ("chat", self.chat),
            ("template", self.template.is_some()),
            ("max_rejects", self.reject_limit().is_some()),
            ("only_correct", self.only_correct),
        ];
        if let Some((shaping, _)) = shaping.into_iter().find(|(_, is_said)| *is_said) {
            let reason = "the file is taken as it is: leave this flag out, or prepare the file first";
            return Err(value_error(shaping, &format!(" with `{key}`"), reason));
        }
        let all = self.over(file);
        let output_dir = all.out();
        let mut sources = all.sources.into_iter().chain(all.data_dir);
        match (sources.next(), sources.next(), all.files_from) {
            (Some(train), None, None) if !train.is_file() => {
                let reason = format!("expected one JSONL file to train on, got `{}`", train.display());
                Err(value_error(key, "", &reason))
            }
            (Some(train), None, None) => Ok(GivenFiles {
                train,
                val,
                output_dir,
                seed: all.seed.unwrap_or(DEFAULT_SEED),
                durability: if all.no_sync { Durability::NoSync } else { Durability::Sync },
            }),
            _ => Err(value_error(key, "", "expected one JSONL file to train on, TRAIN.jsonl, as the source")),
        }
    }

    fn reject_limit(&self) -> Option<RejectLimit> {
        if self.strict { Some(RejectLimit::Count(0)) } else { self.max_rejects }
    }

    /// These choices where they say something, else those of `lower`.
    #[must_use]
    pub fn over(self, lower: PrepareChoices) -> PrepareChoices {
        let max_rejects = self.reject_limit().or(lower.reject_limit());
        let (sources, data_dir, files_from) = match self.names_sources() {
            true => (self.sources, self.data_dir, self.files_from),
            false => (lower.sources, lower.data_dir, lower.files_from),
        };
        PrepareChoices {
            max_rejects,
            strict: false,
            sources,
            data_dir,
            files_from,
            containers: self.containers || lower.containers,
            output_dir: self.output_dir.or(lower.output_dir),
            val_ratio: self.val_ratio.or(lower.val_ratio),
            seed: self.seed.or(lower.seed),
            group_by: self.group_by.or(lower.group_by),
            limit: self.limit.or(lower.limit),
            mix: if self.mix.is_empty() { lower.mix } else { self.mix },
            shard_records: self.shard_records.or(lower.shard_records),
            compress: self.compress.or(lower.compress),
            chat: self.chat || lower.chat,
            template: self.template.or(lower.template),
            only_correct: self.only_correct || lower.only_correct,
            max_record_bytes: self.max_record_bytes.or(lower.max_record_bytes),
            max_spool_bytes: self.max_spool_bytes.or(lower.max_spool_bytes),
            threads: self.threads.or(lower.threads),
            no_sync: self.no_sync || lower.no_sync,
        }
    }

    /// What was chosen for contexts only, where the records are chat lines.
    fn unfit_for_chat(&self) -> Option<ConfigError> {
        let (key, reason) = match &self.group_by {
            Some(GroupBy::Story | GroupBy::Agents) => {
                ("group_by", "chat lines have no story and no agents: name a FIELD of theirs")
            }
            _ if self.template.is_some() => {
                ("template", "chat lines are taken as they are, without a template")
            }
            _ if self.only_correct => ("only_correct", "chat lines have no `is_correct`"),
            _ => return None,
        };
        self.chat.then(|| value_error(key, " with `chat`", reason))
    }

    /// Puts defaults where nothing was chosen and checks the rest; `cores` is the number of threads by
    /// default.
    pub fn resolve(self, purpose: Purpose, cores: NonZeroUsize) -> Result<Options, ConfigError> {
        let Bytes(max_record_bytes) = self.max_record_bytes.unwrap_or(Bytes(DEFAULT_RECORD_BYTES as u64));
        if max_record_bytes == 0 || max_record_bytes > MAX_RECORD_BYTES {
            let reason = format!("must be between 1 byte and 1GiB, got {max_record_bytes} bytes");
            return Err(value_error("max_record_bytes", "", &reason));
        }
        if let Some(error) = self.unfit_for_chat() {
            return Err(error);
        }
        let Bytes(max_spool_bytes) = self.max_spool_bytes.unwrap_or(Bytes(DEFAULT_SPOOL_BYTES));
        let containers = if self.containers { Containers::Read } else { Containers::Skip };
        let (output_dir, max_rejects) = (self.out(), self.reject_limit());
        let mix: Vec<Mix> = self.mix.into_iter().map(MixChoice::resolve).collect::<Result<_, _>>()?;
        let amounts: Vec<Amount> = mix.iter().map(|mix| mix.amount).collect();
        if mix_counts(&amounts, 1).is_none() {
            return Err(value_error("mix", "", "the shares must be less than 100 % together"));
        }
        let paths = self.sources.into_iter().chain(self.data_dir).collect();
        Ok(Options {
            sources: sources(paths, self.files_from.as_deref(), containers)?,
            max_spool_bytes,
            output_dir,
            val_ratio: self.val_ratio.unwrap_or_else(|| "0.1".parse().expect("a decimal below 1")),
            seed: self.seed.unwrap_or(DEFAULT_SEED),
            chat: self.chat,
            template: match self.template {
                Some(name) => read_template(&name)?,
                None => Template::chatml(),
            },
            limit: self.limit,
            mix,
            shard_records: self.shard_records,
            compress: self.compress,
            group_by: self.group_by,
            max_rejects: max_rejects.unwrap_or_else(|| "5%".parse().expect("a percentage")),
            only_correct: self.only_correct,
            max_record_bytes: max_record_bytes as usize,
            threads: self.threads.unwrap_or(cores),
            durability: if self.no_sync { Durability::NoSync } else { Durability::Sync },
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
        return Err(ConfigError::Value { key: "-".to_owned(), place: String::new(), reason });
    }
    let source = |path: PathBuf| {
        let is_there = is_stdin(&path) || address(&path).is_some() || path.exists();
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
pub(crate) fn read_template(name: &Path) -> Result<Template, ConfigError> {
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
