//! `ctxtune check`: what was found, line by line, and what the data looks like.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::{CheckArgs, CountingArgs};
use crate::screen::checked::{Bar, say_findings, summarize};
use crate::screen::report::{LongList, Terminal, fields};
use crate::session::environment::{config_file, of_cache};
use crate::session::stores::stores;
use ctxtune_engine::address::address;
use ctxtune_engine::check::code::{Code, Level};
use ctxtune_engine::check::conversation::Format;
use ctxtune_engine::check::counter::Counter;
use ctxtune_engine::check::finding::{Finding, Keep};
use ctxtune_engine::check::judge::Role;
use ctxtune_engine::check::stats::{self, Histogram, Tokens};
use ctxtune_engine::check::structure::{MAX_FILE_BYTES, SINGLE_UPLOAD_BYTES, Structure};
use ctxtune_engine::check::{FileReport, Long, Options, Report, check};
use ctxtune_engine::error::Error as EngineError;
use ctxtune_engine::output::manifest::{self, Manifest};
use ctxtune_engine::parts::stored_manifest;
use ctxtune_engine::storage::Stores;
use ctxtune_pipeline::config::ConfigFile;
use ctxtune_pipeline::job::data::{NAMED, threads, unfit};
use ctxtune_pipeline::job::parameters::SEED_MODEL;
use ctxtune_pipeline::job::tokens::{self, ModelTokens, TOKENIZER};
use ctxtune_pipeline::text::without_surrogates;
use ctxtune_pipeline::{Environment, Exit, Failure};

const BARS: usize = 8;
/// Texts of more bytes are not counted unasked.
const COUNTED_BYTES: u64 = 1_000_000_000;

pub fn run(args: &CheckArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let copies = Copies::of(&args.paths, terminal)?;
    let is_all = terminal.flags().json || terminal.flags().verbose;
    let counter = counter(args, &copies.paths)?;
    let how = counter.as_ref().map_or_else(|| "an estimate".to_owned(), ModelTokens::described);
    let options = Options {
        paths: copies.paths.clone(),
        threads: args.threads.unwrap_or_else(threads),
        keep: if is_all { Keep::All } else { Keep::First(NAMED) },
        max_tokens: args.max_tokens,
        counter: counter.map(|counter| Arc::new(counter) as Arc<dyn Counter>),
    };
    let start = Instant::now();
    let mut report = check(&options, &Bar::new(terminal)).map_err(|error| terminal.signals.explain(error))?;
    report.paths.iter_mut().for_each(|path| copies.name(path, &args.paths));
    let options = Options { paths: args.paths.clone(), ..options };
    let duration = start.elapsed();
    summarize(&report, &how, duration, terminal);
    say_findings(&report, terminal);
    let document = fields(&CheckReport::of(&options, &report, duration));
    let write = |out: &mut dyn Write| write_findings(&report, out);
    let findings = LongList { name: "findings", write: &write };
    if !report.is_passed() {
        return Ok(terminal.fail_with(&unfit(&report), document, &[findings]));
    }
    let lines: Vec<&[u8]> = options.paths.iter().map(|path| path.as_os_str().as_encoded_bytes()).collect();
    Ok(terminal.succeed_with(Some(&lines.join(&b'\n')), document, &[findings]))
}

/// Outputs that lie in buckets, copied to be checked.
struct Copies {
    dir: Option<tempfile::TempDir>,
    /// What is checked, one for each path that is named.
    paths: Vec<PathBuf>,
}

impl Copies {
    fn of(named: &[PathBuf], terminal: &Terminal) -> Result<Copies, Failure> {
        let mut copies = Copies { dir: None, paths: named.to_vec() };
        if named.iter().all(|path| address(path).is_none()) {
            return Ok(copies);
        }
        let failed = |source| EngineError::Write { path: std::env::temp_dir(), source };
        let explained = |error: EngineError| terminal.signals.explain(Failure::of_parts(error));
        let dir = tempfile::tempdir().map_err(failed).map_err(explained)?;
        let stores = stores(terminal, Some(dir.path()));
        for (number, path) in copies.paths.iter_mut().enumerate() {
            let Some(address) = address(path) else { continue };
            let copy = dir.path().join(number.to_string());
            copy_output(address, &copy, &*stores).map_err(explained)?;
            *path = copy;
        }
        copies.dir = Some(dir);
        Ok(copies)
    }

    /// Calls a path below a copy as what was copied.
    fn name(&self, path: &mut PathBuf, named: &[PathBuf]) {
        let mut copies = self.paths.iter().zip(named).filter(|(copy, named)| copy != named);
        let below = copies.find_map(|(copy, named)| Some(named.join(path.strip_prefix(copy).ok()?)));
        if let Some(below) = below {
            *path = below;
        }
    }
}

fn copy_output(address: &str, to: &Path, stores: &dyn Stores) -> Result<(), EngineError> {
    let failed = |source| EngineError::Store { object: address.to_owned(), source };
    let manifest = stored_manifest(address, stores)?;
    let storage = stores.open(address).map_err(failed)?;
    std::fs::create_dir(to).map_err(failed)?;
    for name in manifest.file_names().into_iter().chain([manifest::FILE_NAME]) {
        // What is missing, `check` misses.
        let Some(object) = storage.find(name).map_err(failed)? else { continue };
        let mut file = File::create(to.join(name)).map_err(failed)?;
        storage.read_through(&object, 0..object.bytes, &mut file).map_err(failed)?;
    }
    Ok(())
}

/// Whether tokens are counted: of large data only where that is wanted.
fn is_counted(args: &CheckArgs, paths: &[PathBuf]) -> bool {
    let is_wanted = args.tokens || args.counting.tokenizer.tokenizer.is_some();
    is_wanted || (!args.no_tokens && paths.iter().map(|path| bytes(path)).sum::<u64>() <= COUNTED_BYTES)
}

/// The bytes of a file, or of the lines of a directory.
fn bytes(path: &Path) -> u64 {
    match Manifest::read(path) {
        Ok(manifest) => manifest.sides().map(|(_, side)| side.content().0).sum(),
        Err(_) => path.metadata().map_or(0, |metadata| metadata.len()),
    }
}

pub struct Counting {
    pub tokenizer: Option<String>,
    pub model: String,
    pub environment: Environment,
    file: Option<ConfigFile>,
}

impl Counting {
    pub fn text(&self, key: &str) -> Option<String> {
        self.file.as_ref()?.text(key)
    }
}

pub fn counting(args: &CountingArgs) -> Result<Counting, Failure> {
    let file = config_file(args.config_path.as_deref())?;
    let text = |flag: &Option<String>, key: &str| flag.clone().or_else(|| file.as_ref()?.text(key));
    Ok(Counting {
        tokenizer: text(&args.tokenizer.tokenizer, TOKENIZER),
        model: text(&args.base_model, "base_model").unwrap_or_else(|| SEED_MODEL.to_owned()),
        environment: of_cache(),
        file,
    })
}

fn counter(args: &CheckArgs, paths: &[PathBuf]) -> Result<Option<ModelTokens>, Failure> {
    if !is_counted(args, paths) {
        return Ok(None);
    }
    let Counting { tokenizer, model, environment, .. } = counting(&args.counting)?;
    tokens::counter(tokenizer.as_deref(), &model, &environment)
}

/// What a script is told of the data. `findings` follow, since there may be many.
#[derive(Serialize)]
struct CheckReport<'r> {
    /// The paths as given.
    paths: Vec<Cow<'r, str>>,
    /// The JSONL files, in the order in which they were checked.
    files: Vec<CheckedFile<'r>>,
    /// Samples of all files.
    samples: u64,
    /// How many errors were found.
    errors: u64,
    /// How many warnings were found.
    warnings: u64,
    /// What was found, by code: `stage`, `level` and `count`.
    counts: Map<String, Value>,
    /// The lengths of all samples, in bytes.
    length_bytes: Lengths<u64>,
    /// How their tokens were counted: `exact`, `at_most` (the highest is certain) or `about`.
    token_method: &'static str,
    /// Their tokens, each the lowest and the highest; the same where they were counted exactly.
    estimated_tokens: Lengths<[u64; 2]>,
    /// The tokens of all samples, the lowest and the highest.
    total_tokens: [u64; 2],
    /// Samples whose tokens are not certain although they were counted.
    about_samples: u64,
    /// The lengths in at most eight bars, in bytes.
    histogram: Vec<stats::Bar>,
    /// The highest numbers of tokens in at most eight bars.
    token_histogram: Vec<stats::Bar>,
    /// The longest samples, the longest first.
    longest: Vec<LongSample<'r>>,
    /// The limits that were applied.
    limits: UploadLimits,
    /// How long it took, in seconds.
    seconds: f64,
}

#[derive(Serialize)]
struct CheckedFile<'r> {
    /// Its path.
    file: Cow<'r, str>,
    /// Its length in bytes; of a compressed one that of what it unpacks to.
    bytes: u64,
    /// Its lines, blank ones included.
    lines: u64,
    /// Its blank lines.
    blank_lines: u64,
    /// Its lines that are objects.
    samples: u64,
    /// What the check of the service's Python client says; `null` where it does not come to it.
    structure: Structure,
    /// What the service would say.
    conversation: Conversation,
    /// Samples by format.
    formats: Map<String, Value>,
    /// Messages by role.
    roles: Map<String, Value>,
}

/// What the service would say of a file.
#[derive(Serialize)]
struct Conversation {
    /// Whether it would take every sample; `null` of a file that was not opened.
    is_check_passed: Option<bool>,
}

/// How long samples are. Quantiles are exact to within 1.6 %.
#[derive(Serialize)]
struct Lengths<T> {
    /// The shortest.
    min: T,
    /// A tenth is no longer.
    p10: T,
    /// Half is no longer.
    p50: T,
    /// 90 % are no longer.
    p90: T,
    /// 95 % are no longer.
    p95: T,
    /// 99 % are no longer.
    p99: T,
    /// The longest.
    max: T,
    /// The mean.
    mean: T,
}

#[derive(Serialize)]
struct LongSample<'r> {
    /// The file that it is in.
    file: Cow<'r, str>,
    /// Its line, from 1.
    line: u64,
    /// Its source record's key; `null` where it is not known.
    key: Value,
    /// Its length in bytes.
    bytes: u64,
    /// Its tokens: the lowest and the highest.
    estimated_tokens: [u64; 2],
}

#[derive(Serialize)]
struct UploadLimits {
    /// The largest file that one request uploads, in bytes.
    single_upload_bytes: u64,
    /// The largest file that can be uploaded, in bytes.
    file_bytes: u64,
    /// The most tokens of a sample, as `--max-tokens` says; `null` without it.
    max_tokens: Option<u64>,
}

impl<'r> CheckReport<'r> {
    fn of(options: &'r Options, report: &'r Report, duration: Duration) -> CheckReport<'r> {
        let long_sample = |(long, key): &'r (Long, Option<String>)| LongSample {
            file: report.path(long.path).to_string_lossy(),
            line: long.line,
            key: key_value(key.as_deref()),
            bytes: long.bytes,
            estimated_tokens: pair(long.tokens),
        };
        CheckReport {
            paths: options.paths.iter().map(|path| path.to_string_lossy()).collect(),
            files: report.files.iter().map(|file| CheckedFile::of(report, file)).collect(),
            samples: report.files.iter().map(|file| file.samples).sum(),
            errors: report.findings.total(Level::Error),
            warnings: report.findings.total(Level::Warning),
            counts: counts_value(report),
            length_bytes: Lengths::of(|figure| figure(&report.lengths)),
            token_method: report.method.as_str(),
            estimated_tokens: Lengths::of(|figure| [figure(&report.tokens.low), figure(&report.tokens.high)]),
            total_tokens: pair(report.tokens.total()),
            about_samples: report.tokens.about,
            histogram: report.lengths.bars(BARS),
            token_histogram: report.tokens.high.bars(BARS),
            longest: report.longest.iter().map(long_sample).collect(),
            limits: UploadLimits {
                single_upload_bytes: SINGLE_UPLOAD_BYTES,
                file_bytes: MAX_FILE_BYTES,
                max_tokens: options.max_tokens,
            },
            seconds: duration.as_secs_f64(),
        }
    }
}

impl<'r> CheckedFile<'r> {
    fn of(report: &'r Report, file: &FileReport) -> CheckedFile<'r> {
        let named = |names: &[&str], counts: &[u64]| -> Map<String, Value> {
            names.iter().zip(counts).map(|(name, count)| ((*name).to_owned(), json!(count))).collect()
        };
        CheckedFile {
            file: report.path(file.path).to_string_lossy(),
            bytes: file.bytes,
            lines: file.lines,
            blank_lines: file.blank_lines,
            samples: file.samples,
            structure: file.structure,
            conversation: Conversation { is_check_passed: file.is_conversation_passed },
            formats: named(&Format::ALL.map(Format::as_str), &file.formats),
            roles: named(&Role::ALL.map(Role::as_str), &file.roles),
        }
    }
}

impl<T> Lengths<T> {
    /// What `of` makes of each figure of a histogram.
    fn of(of: impl Fn(&dyn Fn(&Histogram) -> u64) -> T) -> Lengths<T> {
        let quantile = |percent| of(&|lengths| lengths.quantile(percent));
        Lengths {
            min: of(&Histogram::least),
            p10: quantile(10),
            p50: quantile(50),
            p90: quantile(90),
            p95: quantile(95),
            p99: quantile(99),
            max: of(&Histogram::most),
            mean: of(&Histogram::mean),
        }
    }
}

/// Every code that occurred, with its stage, its level and its number.
fn counts_value(report: &Report) -> Map<String, Value> {
    let occurred =
        Code::all().map(|code| (code, report.findings.count(code))).filter(|(_, count)| *count > 0);
    let value = |(code, count): (Code, u64)| {
        let value = json!({ "stage": code.stage().as_str(), "level": code.level().as_str(), "count": count });
        (code.as_str().to_owned(), value)
    };
    occurred.map(value).collect()
}

/// A line each, since there may be millions of them.
fn write_findings(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for (index, finding) in report.findings.kept().iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\n{}", json!(FindingReport::of(report, finding)))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct FindingReport<'r> {
    /// The file.
    file: Cow<'r, str>,
    /// The line, from 1; `null`: the whole file.
    line: Option<u64>,
    /// The source record's key; `null` where it is not known.
    key: Value,
    /// The code of what is wrong.
    code: &'static str,
    /// Which check says it: `structure`, `conversation`, `length` or `prepared`.
    stage: &'static str,
    /// `error` or `warning`.
    level: &'static str,
    /// What is wrong.
    message: &'r str,
}

impl<'r> FindingReport<'r> {
    fn of(report: &'r Report, finding: &'r Finding) -> FindingReport<'r> {
        FindingReport {
            file: report.path(finding.path).to_string_lossy(),
            line: finding.line,
            key: key_value(finding.key.as_deref()),
            code: finding.code.as_str(),
            stage: finding.code.stage().as_str(),
            level: finding.code.level().as_str(),
            message: &finding.message,
        }
    }
}

fn key_value(key: Option<&str>) -> Value {
    key.and_then(|key| serde_json::from_str(&without_surrogates(key)).ok()).unwrap_or(Value::Null)
}

fn pair(tokens: Tokens) -> [u64; 2] {
    [tokens.low, tokens.high]
}
