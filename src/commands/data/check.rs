//! `ctxtune check`: what was found, line by line, and what the data looks like.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::args::CheckArgs;
use crate::commands::data::prepare::without_surrogates;
use crate::exit::{Exit, Failure};
use crate::screen::report::{LongList, Style, Terminal, counted, grouped, percent, printable, sized};
use crate::signals::Signals;
use ctxtune_engine::check::code::{Code, Level, Stage};
use ctxtune_engine::check::conversation::Format;
use ctxtune_engine::check::finding::{Finding, Keep};
use ctxtune_engine::check::judge::Role;
use ctxtune_engine::check::stats::{Histogram, tokens};
use ctxtune_engine::check::structure::{MAX_FILE_BYTES, SINGLE_UPLOAD_BYTES};
use ctxtune_engine::check::{Error, FileReport, Options, Report, Watch, check};

const COMMAND: &str = "check";

/// How many findings of each code are named, unless all are asked for.
const FINDINGS_SHOWN: usize = 5;

/// Bars of the histogram, and how long the longest is.
const BARS: usize = 8;
const BAR_WIDTH: u64 = 30;

/// What quantiles are reported, in per cent.
const QUANTILES: [u64; 5] = [10, 50, 90, 95, 99];

/// Runs the command.
pub fn run(args: &CheckArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let is_all = args.voice.json || args.voice.verbose;
    let options = Options {
        paths: args.paths.clone(),
        threads: args.threads.unwrap_or(cores),
        keep: if is_all { Keep::All } else { Keep::First(FINDINGS_SHOWN) },
        max_tokens: args.max_tokens,
    };
    let start = Instant::now();
    let report = match checked(&options, signals, terminal) {
        Ok(report) => report,
        Err(failure) => return terminal.fail(COMMAND, &failure, Map::new()),
    };
    let duration = start.elapsed();
    summarize(&report, duration, terminal);
    say_findings(&report, terminal);
    let fields = document(&options, &report, duration);
    let write = |out: &mut dyn Write| write_findings(&report, out);
    let findings = LongList { name: "findings", write: &write };
    if !report.is_passed() {
        return terminal.fail_with(COMMAND, &failure(&report), fields, &[findings]);
    }
    let lines: Vec<&[u8]> = options.paths.iter().map(|path| path.as_os_str().as_encoded_bytes()).collect();
    terminal.succeed_with(COMMAND, Some(&lines.join(&b'\n')), fields, &[findings])
}

fn checked(options: &Options, signals: &Signals, terminal: &Terminal) -> Result<Report, Failure> {
    let bar = Bar::new(signals, terminal.may_draw());
    let result = check(options, &bar);
    bar.drawn.finish_and_clear();
    result.map_err(|error| {
        let is_interrupted = matches!(error, Error::Interrupted);
        let mut failure = Failure::from(error);
        if is_interrupted {
            failure.exit = signals.exit();
        }
        failure
    })
}

/// Whether `paths` are fit for training, as an upload wants to know it: findings are named, and errors
/// fail. Of samples longer than `max_tokens`, if that is known, only those that are longer by every
/// estimate are errors.
///
/// # Errors
/// When they are not fit, or there is no verdict.
pub fn verify(
    paths: &[PathBuf],
    max_tokens: Option<u64>,
    signals: &Signals,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let keep = Keep::First(FINDINGS_SHOWN);
    let options = Options { paths: paths.to_vec(), threads: cores, keep, max_tokens };
    let report = checked(&options, signals, terminal)?;
    say_findings(&report, terminal);
    if report.is_passed() { Ok(()) } else { Err(failure(&report)) }
}

fn failure(report: &Report) -> Failure {
    let errors = report.findings.total(Level::Error);
    let stages = [Stage::Structure, Stage::Conversation, Stage::Length, Stage::Prepared];
    let by_stage: Vec<String> = stages
        .iter()
        .map(|stage| (report.findings.errors(*stage), stage.as_str()))
        .filter(|(errors, _)| *errors > 0)
        .map(|(errors, stage)| format!("{stage} {}", grouped(errors)))
        .collect();
    let message = format!("not fit for training: {} ({})", counted(errors, "error"), by_stage.join(", "));
    let hint = match (report.findings.errors(Stage::Prepared), report.findings.errors(Stage::Length)) {
        (0, long) if long == errors => {
            "shorten these records; a larger limit, or --allow-truncation of `submit`, lets them pass"
        }
        (0, _) => "mend the lines named above; `--json` and `--verbose` name all of them",
        _ => "prepare the directory again: it is not what its manifest says",
    };
    Failure::new(Exit::Data, "check_failed", message, hint)
}

/// Draws progress on a terminal and passes signals on.
struct Bar<'s> {
    signals: &'s Signals,
    drawn: ProgressBar,
}

impl<'s> Bar<'s> {
    fn new(signals: &'s Signals, may_draw: bool) -> Self {
        let drawn = if may_draw { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style =
            ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
        drawn.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        drawn.enable_steady_tick(Duration::from_millis(100));
        Bar { signals, drawn }
    }
}

impl Watch for Bar<'_> {
    fn expects(&self, bytes: u64) {
        self.drawn.inc_length(bytes);
    }

    fn checked(&self, bytes: u64) {
        if !self.drawn.is_hidden() {
            self.drawn.inc(bytes);
        }
    }

    fn is_stopped(&self) -> bool {
        self.signals.is_stopped()
    }
}

fn summarize(report: &Report, duration: Duration, terminal: &Terminal) {
    let say = |label: &str, text: String| {
        terminal.say(&format!(
            "{} {}",
            terminal.paint(Style::Label, &format!("{label:<12}")),
            printable(&text)
        ));
    };
    let sum = |of: fn(&FileReport) -> u64| report.files.iter().map(of).sum::<u64>();
    let bytes = sum(|file| file.bytes);
    let rate = bytes as f64 / duration.as_secs_f64().max(1e-6);
    say(
        "checked",
        format!(
            "{}, {}, {}, {} in {:.2} s ({}/s)",
            counted(report.files.len() as u64, "file"),
            counted(sum(|file| file.samples), "sample"),
            counted(sum(|file| file.blank_lines), "blank line"),
            sized(bytes),
            duration.as_secs_f64(),
            sized(rate as u64),
        ),
    );
    for stage in [Stage::Structure, Stage::Conversation] {
        say(stage.as_str(), verdict(report, stage));
    }
    say("formats", by_name(&totals(report, |file| file.formats), Format::ALL.map(Format::as_str)));
    say("roles", by_name(&totals(report, |file| file.roles), Role::ALL.map(Role::as_str)));
    say("duplicates", counted(report.findings.count(Code::Duplicate), "sample"));
    if report.lengths.count() > 0 {
        say("length", quantiles(&report.lengths, |bytes| format!("{} B", grouped(bytes))));
        let estimate = |weight| format!("{}–{}", grouped(tokens(weight).low), grouped(tokens(weight).high));
        say("tokens", format!("{}; an estimate", quantiles(&report.weights, estimate)));
        draw_histogram(&report.lengths, terminal);
        say_longest(report, terminal);
    }
}

fn verdict(report: &Report, stage: Stage) -> String {
    match report.findings.errors(stage) {
        0 if stage == Stage::Conversation && report.lengths.count() == 0 => "nothing to look at".to_owned(),
        0 => "passed".to_owned(),
        errors => counted(errors, "error"),
    }
}

fn totals<const N: usize>(report: &Report, of: fn(&FileReport) -> [u64; N]) -> [u64; N] {
    let mut totals = [0; N];
    for file in &report.files {
        totals.iter_mut().zip(of(file)).for_each(|(total, more)| *total += more);
    }
    totals
}

fn by_name<const N: usize>(counts: &[u64; N], names: [&str; N]) -> String {
    let named = names.iter().zip(counts).filter(|(_, count)| **count > 0);
    let named: Vec<String> = named.map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
    if named.is_empty() { "none".to_owned() } else { named.join(", ") }
}

fn quantiles(lengths: &Histogram, shown: impl Fn(u64) -> String) -> String {
    format!(
        "least {}, median {}, 90 % up to {}, 99 % up to {}, most {}",
        shown(lengths.least()),
        shown(lengths.quantile(50)),
        shown(lengths.quantile(90)),
        shown(lengths.quantile(99)),
        shown(lengths.most())
    )
}

fn draw_histogram(lengths: &Histogram, terminal: &Terminal) {
    let bars = lengths.bars(BARS);
    let highest = bars.iter().map(|bar| bar.samples).max().unwrap_or(1).max(1);
    let width = grouped(lengths.most()).len();
    for bar in bars {
        let length = (bar.samples * BAR_WIDTH).div_ceil(highest) as usize;
        terminal.say(&format!(
            "  {:>width$}–{:<width$} B {:<30} {} ({})",
            grouped(bar.from),
            grouped(bar.to),
            "#".repeat(length),
            grouped(bar.samples),
            percent(bar.samples, lengths.count()),
        ));
    }
}

fn say_longest(report: &Report, terminal: &Terminal) {
    terminal.say(&terminal.paint(Style::Label, "longest"));
    for (long, key) in &report.longest {
        let estimate = tokens(long.weight);
        let key = key.as_ref().map(|key| format!(", record {key}")).unwrap_or_default();
        terminal.say(&printable(&format!(
            "  {}:{}: {} B, an estimated {}–{} tokens{key}",
            report.path(long.path).display(),
            long.line,
            grouped(long.bytes),
            grouped(estimate.low),
            grouped(estimate.high)
        )));
    }
}

/// Names the first findings of each code, and how many more there are.
fn say_findings(report: &Report, terminal: &Terminal) {
    for level in [Level::Warning, Level::Error] {
        for code in Code::all().filter(|code| code.level() == level) {
            let count = report.findings.count(code);
            if count == 0 {
                continue;
            }
            let style = if level == Level::Error { Style::Error } else { Style::Notice };
            let heading = terminal.paint(style, &format!("{} {code}", level.as_str()));
            terminal.say(&format!("{heading} ({}): {}", code.stage().as_str(), grouped(count)));
            let limit = if terminal.voice().verbose { usize::MAX } else { FINDINGS_SHOWN };
            let mut shown = 0;
            for finding in report.findings.kept().iter().filter(|kept| kept.code == code).take(limit) {
                terminal.say(&printable(&line_of(report, finding)));
                shown += 1;
            }
            if count > shown {
                terminal.say(&format!("  and {} more", grouped(count - shown)));
            }
        }
    }
}

/// `file:line: code: message`, and the record's key where it is known.
fn line_of(report: &Report, finding: &Finding) -> String {
    let path = report.path(finding.path).display();
    let line = finding.line.map(|line| format!(":{line}")).unwrap_or_default();
    let key = finding.key.as_ref().map(|key| format!(" (record {key})")).unwrap_or_default();
    format!("{path}{line}: {}: {}{key}", finding.code, finding.message)
}

/// The fields of the JSON document beside the common ones.
fn document(options: &Options, report: &Report, duration: Duration) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    let paths: Vec<_> = options.paths.iter().map(|path| path.to_string_lossy()).collect();
    put("paths", json!(paths));
    put("files", report.files.iter().map(|file| file_value(report, file)).collect());
    put("samples", json!(report.files.iter().map(|file| file.samples).sum::<u64>()));
    put("errors", json!(report.findings.total(Level::Error)));
    put("warnings", json!(report.findings.total(Level::Warning)));
    put("counts", counts_value(report));
    put("length_bytes", lengths_value(&report.lengths, |bytes| json!(bytes)));
    put("estimated_tokens", lengths_value(&report.weights, tokens_value));
    let bars = report.lengths.bars(BARS);
    let bars = bars.iter().map(|bar| json!({ "from": bar.from, "to": bar.to, "samples": bar.samples }));
    put("histogram", bars.collect());
    put("longest", longest_value(report));
    put(
        "limits",
        json!({
            "single_upload_bytes": SINGLE_UPLOAD_BYTES,
            "file_bytes": MAX_FILE_BYTES,
            "max_tokens": options.max_tokens,
        }),
    );
    put("seconds", json!(duration.as_secs_f64()));
    fields
}

fn file_value(report: &Report, file: &FileReport) -> Value {
    let named = |names: &[&str], counts: &[u64]| -> Map<String, Value> {
        names.iter().zip(counts).map(|(name, count)| ((*name).to_owned(), json!(count))).collect()
    };
    let structure = &file.structure;
    json!({
        "file": report.path(file.path).to_string_lossy(),
        "bytes": file.bytes,
        "lines": file.lines,
        "blank_lines": file.blank_lines,
        "samples": file.samples,
        "structure": {
            "is_check_passed": structure.is_check_passed,
            "file_size": structure.file_size,
            "utf8": structure.utf8,
            "load_json": structure.load_json,
            "line_type": structure.line_type,
            "has_min_samples": structure.has_min_samples,
            "num_samples": structure.num_samples,
            "first_bad_line": structure.first_bad_line,
        },
        "conversation": { "is_check_passed": file.is_conversation_passed },
        "formats": named(&Format::ALL.map(Format::as_str), &file.formats),
        "roles": named(&Role::ALL.map(Role::as_str), &file.roles),
    })
}

/// Every code that occurred, with its stage, its level and its number.
fn counts_value(report: &Report) -> Value {
    let occurred =
        Code::all().map(|code| (code, report.findings.count(code))).filter(|(_, count)| *count > 0);
    let value = |(code, count): (Code, u64)| {
        let value = json!({ "stage": code.stage().as_str(), "level": code.level().as_str(), "count": count });
        (code.as_str().to_owned(), value)
    };
    Value::Object(occurred.map(value).collect())
}

/// A line each, since there may be millions of them.
fn write_findings(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for (index, finding) in report.findings.kept().iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\n{}", finding_value(report, finding))?;
    }
    Ok(())
}

fn finding_value(report: &Report, finding: &Finding) -> Value {
    json!({
        "file": report.path(finding.path).to_string_lossy(),
        "line": finding.line,
        "key": key_value(finding.key.as_deref()),
        "code": finding.code.as_str(),
        "stage": finding.code.stage().as_str(),
        "level": finding.code.level().as_str(),
        "message": finding.message,
    })
}

fn key_value(key: Option<&str>) -> Value {
    key.and_then(|key| serde_json::from_str(&without_surrogates(key)).ok()).unwrap_or(Value::Null)
}

fn tokens_value(weight: u64) -> Value {
    json!([tokens(weight).low, tokens(weight).high])
}

fn lengths_value(lengths: &Histogram, value: impl Fn(u64) -> Value) -> Value {
    let mut fields = Map::new();
    let mut put = |key: String, length: u64| fields.insert(key, value(length));
    put("min".to_owned(), lengths.least());
    for percent in QUANTILES {
        put(format!("p{percent}"), lengths.quantile(percent));
    }
    put("max".to_owned(), lengths.most());
    put("mean".to_owned(), lengths.mean());
    Value::Object(fields)
}

fn longest_value(report: &Report) -> Value {
    let value = |(long, key): &(ctxtune_engine::check::Long, Option<String>)| {
        json!({
            "file": report.path(long.path).to_string_lossy(),
            "line": long.line,
            "key": key_value(key.as_deref()),
            "bytes": long.bytes,
            "estimated_tokens": tokens_value(long.weight),
        })
    };
    report.longest.iter().map(value).collect()
}
