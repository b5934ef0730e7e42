//! `ctxtune check`: what was found, line by line, and what the data looks like.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::args::CheckArgs;
use crate::screen::checked::{Bar, say_findings, summarize};
use crate::screen::prepared::without_surrogates;
use crate::screen::report::{LongList, Terminal};
use ctxtune_engine::check::code::{Code, Level};
use ctxtune_engine::check::conversation::Format;
use ctxtune_engine::check::finding::{Finding, Keep};
use ctxtune_engine::check::judge::Role;
use ctxtune_engine::check::stats::{Histogram, tokens};
use ctxtune_engine::check::structure::{MAX_FILE_BYTES, SINGLE_UPLOAD_BYTES};
use ctxtune_engine::check::{FileReport, Options, Report, check};
use ctxtune_pipeline::failure::Exit;
use ctxtune_pipeline::job::data::{NAMED, not_checked, threads, unfit};
use ctxtune_pipeline::signals::Signals;

const COMMAND: &str = "check";

/// Bars of the histogram.
const BARS: usize = 8;

/// What quantiles are reported, in per cent.
const QUANTILES: [u64; 5] = [10, 50, 90, 95, 99];

/// Runs the command.
pub fn run(args: &CheckArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    let is_all = args.voice.json || args.voice.verbose;
    let options = Options {
        paths: args.paths.clone(),
        threads: args.threads.unwrap_or_else(threads),
        keep: if is_all { Keep::All } else { Keep::First(NAMED) },
        max_tokens: args.max_tokens,
    };
    let start = Instant::now();
    let report = match check(&options, &Bar::new(signals, terminal.may_draw())) {
        Ok(report) => report,
        Err(error) => return terminal.fail(COMMAND, &not_checked(error, signals), Map::new()),
    };
    let duration = start.elapsed();
    summarize(&report, duration, terminal);
    say_findings(&report, terminal);
    let fields = document(&options, &report, duration);
    let write = |out: &mut dyn Write| write_findings(&report, out);
    let findings = LongList { name: "findings", write: &write };
    if !report.is_passed() {
        return terminal.fail_with(COMMAND, &unfit(&report), fields, &[findings]);
    }
    let lines: Vec<&[u8]> = options.paths.iter().map(|path| path.as_os_str().as_encoded_bytes()).collect();
    terminal.succeed_with(COMMAND, Some(&lines.join(&b'\n')), fields, &[findings])
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
