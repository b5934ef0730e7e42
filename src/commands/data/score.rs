//! `ctxtune score`: how far generated contexts agree with reference ones.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::args::ScoreArgs;
use crate::commands::data::score_models::{self, Answered};
use crate::screen::chart::Charset;
use crate::screen::names::{counts_value, first_value, say_not_read_in};
use crate::screen::prepared::without_surrogates;
use crate::screen::report::{LongList, Terminal};
use crate::screen::scoreboard::{coverage, notes, references, table};
use crate::session::environment;
use ctxtune_engine::json::KeyText;
use ctxtune_engine::score::agreement::Tally;
use ctxtune_engine::score::answer::{Answer, Status};
use ctxtune_engine::score::gold::Form;
use ctxtune_engine::score::measure::{Measure, Scores};
use ctxtune_engine::score::report::{Pairs, RecordReport, Report, SetReport, Total};
use ctxtune_engine::score::{Options, Watch, score};
use ctxtune_engine::source::names::NameLog;
use ctxtune_engine::source::{Containers, DEFAULT_RECORD_BYTES, DEFAULT_SPOOL_BYTES};
use ctxtune_pipeline::failure::{Exit, Failure};
use ctxtune_pipeline::job::mismatch::Mismatch;
use ctxtune_pipeline::session::environment::Environment;
use ctxtune_pipeline::signals::Signals;
use ctxtune_pipeline::text::printable;

const COMMAND: &str = "score";

/// Keys of a kind that are named, unless all are asked for.
const NAMED: usize = 5;

/// Runs the command.
pub fn run(args: &ScoreArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    // Scoring files alone needs no variable, and warns of none.
    let read = if args.models.is_empty() {
        Ok(environment::with_locale([]))
    } else {
        environment::read(None, terminal)
    };
    let environment = match read {
        Ok(environment) => environment,
        Err(failure) => return terminal.fail(COMMAND, &failure, Map::new()),
    };
    let mut answered = Answered::default();
    let asked = args.val.as_deref().map_or(Ok(()), |val| {
        score_models::ask((args, val), (&environment, signals), &mut answered, terminal)
    });
    match asked.and_then(|()| report(args, (&environment, signals), &answered, terminal)) {
        Ok((subject, report, duration)) => end(args, &subject, (&report, duration), terminal),
        Err(failure) if args.models.is_empty() => terminal.fail(COMMAND, &failure, Map::new()),
        Err(failure) => {
            let asked = answered.documents.into();
            let mut fields = Map::from_iter([("asked".to_owned(), asked)]);
            fields.extend(answered.mismatch.map(|mismatch| ("data_mismatch".to_owned(), json!(mismatch))));
            terminal.fail(COMMAND, &failure, fields)
        }
    }
}

/// What is scored.
pub struct Subject {
    options: Options,
    /// What each set of answers is called.
    names: Vec<String>,
    /// How models were asked; null where none was.
    asked: Value,
    /// Where a model was trained on other data than it is scored by.
    mismatch: Option<Mismatch>,
}

/// Scores what there is, and shows the table.
///
/// # Errors
/// When nothing can be scored.
pub fn report(
    args: &ScoreArgs,
    (environment, signals): (&Environment, &Signals),
    answered: &Answered,
    terminal: &Terminal,
) -> Result<(Subject, Report, Duration), Failure> {
    let subject = subject(args, answered);
    let start = Instant::now();
    let report = scored(&subject.options, signals, terminal)?;
    let duration = start.elapsed();
    summarize(&subject, &report, environment.is_utf8(), terminal);
    if let Some(path) = &args.per_record {
        write_rows(path, &subject, &report).map_err(|error| {
            let message = format!("cannot write `{}`: {error}", path.display());
            let hint = "free some space, or name another file with --per-record";
            Failure::new(Exit::Failed, "write", message, hint)
        })?;
    }
    Ok((subject, report, duration))
}

fn subject(args: &ScoreArgs, answered: &Answered) -> Subject {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let has_asked = args.val.is_some();
    let generated = if has_asked { &answered.directories } else { &args.generated };
    let gold = args.val.as_ref().or(args.gold.as_ref());
    let names = if has_asked {
        answered.models.iter().map(|model| printable(model)).collect()
    } else {
        generated.iter().map(|path| shown(path)).collect()
    };
    Subject {
        options: Options {
            gold: gold.cloned().unwrap_or_default(),
            limit: args.limit.map(NonZeroUsize::get),
            containers: if args.containers { Containers::Read } else { Containers::Skip },
            generated: generated.clone(),
            seed: args.seed,
            resamples: args.resamples,
            threads: args.threads.unwrap_or(cores),
            max_record_bytes: DEFAULT_RECORD_BYTES,
            max_spool_bytes: DEFAULT_SPOOL_BYTES,
        },
        names,
        asked: if has_asked { answered.documents.clone().into() } else { Value::Null },
        mismatch: answered.mismatch.clone(),
    }
}

/// The line on stdout, or the document; and whether the score is high enough.
fn end(
    args: &ScoreArgs,
    subject: &Subject,
    (report, duration): (&Report, Duration),
    terminal: &mut Terminal,
) -> Exit {
    let overall: Vec<f64> = report.sets.iter().map(|set| set.total(Measure::Overall).mean).collect();
    let line = overall.iter().map(|score| format!("{score:.4}")).collect::<Vec<_>>().join("\t");
    let mut fields = document(&subject.options, report, duration);
    fields.insert("asked".to_owned(), subject.asked.clone());
    fields.extend(subject.mismatch.as_ref().map(|mismatch| ("data_mismatch".to_owned(), json!(mismatch))));
    fields.insert("min_score".to_owned(), json!(args.min_score));
    let write = |out: &mut dyn Write| write_records(report, out);
    let records = LongList { name: "records", write: &write };
    let least = args.min_score.zip(overall.last().copied()).filter(|(least, score)| score < least);
    let Some((least, score)) = least else {
        return terminal.succeed_with(COMMAND, Some(line.as_bytes()), fields, &[records]);
    };
    if !args.voice.json {
        terminal.deliver(COMMAND, format!("{line}\n").as_bytes());
    }
    let message = format!("the overall score is {score:.4}, below {least}");
    let hint = "the table and `--per-record` say where it falls short";
    let failure = Failure::new(Exit::Data, "below_min_score", message, hint);
    terminal.fail_with(COMMAND, &failure, fields, &[records])
}

fn scored(options: &Options, signals: &Signals, terminal: &Terminal) -> Result<Report, Failure> {
    let bar = Bar::new(signals, terminal.may_draw());
    let result = score(options, &bar);
    bar.drawn.finish_and_clear();
    result.map_err(|error| {
        let mut failure = Failure::from(error);
        if failure.exit == Exit::Interrupted {
            failure.exit = signals.exit();
        }
        failure
    })
}

/// Draws progress on a terminal and passes signals on.
struct Bar<'s> {
    signals: &'s Signals,
    drawn: ProgressBar,
}

impl<'s> Bar<'s> {
    fn new(signals: &'s Signals, may_draw: bool) -> Self {
        let drawn = if may_draw { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} {per_sec}  {eta} left");
        drawn.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        if may_draw {
            drawn.enable_steady_tick(Duration::from_millis(100));
        }
        Bar { signals, drawn }
    }
}

impl Watch for Bar<'_> {
    fn expects(&self, records: u64) {
        self.drawn.set_length(records);
    }

    fn scored(&self) {
        if !self.drawn.is_hidden() {
            self.drawn.inc(1);
        }
    }

    fn is_stopped(&self) -> bool {
        self.signals.is_stopped()
    }
}

fn summarize(subject: &Subject, report: &Report, is_utf8: bool, terminal: &Terminal) {
    if terminal.voice().quiet {
        return;
    }
    let charset = if is_utf8 { Charset::Unicode } else { Charset::Ascii };
    terminal.label("gold", &references(report, &shown(&subject.options.gold)));
    let letters = ["A", "B"].into_iter().map(str::to_owned);
    let names: Vec<String> = match subject.names.as_slice() {
        [only] => vec![only.clone()],
        several => letters.take(several.len()).collect(),
    };
    for ((full, name), set) in subject.names.iter().zip(&names).zip(&report.sets) {
        let called = if name == full { full.clone() } else { format!("{name} = {full}") };
        terminal.label("generated", &format!("{called}: {}", coverage(set)));
    }
    for (path, log) in &report.not_read {
        say_not_read_in(path, log, terminal);
    }
    for line in table(report, charset) {
        terminal.say(&line);
    }
    let limit = if terminal.voice().verbose { usize::MAX } else { NAMED };
    for line in notes(report, &names, limit) {
        // A reason may quote what a model wrote.
        terminal.say(&printable(&line).replace('\n', "\\n"));
    }
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// A row for every record and set; the numbers to six decimals.
fn write_rows(path: &Path, subject: &Subject, report: &Report) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    let measures = Measure::ALL.map(Measure::as_str).join("\t");
    writeln!(out, "key\tgenerated\tstatus\t{measures}\tunresolved_tags\treason")?;
    for record in &report.records {
        let key = KeyText(&record.key).to_json();
        for (answer, generated) in record.answers.iter().zip(&subject.options.generated) {
            let generated = json!(generated.to_string_lossy());
            write!(out, "{key}\t{generated}\t{}", answer.status.as_str())?;
            answer.scores.iter().try_for_each(|score| write!(out, "\t{score:.6}"))?;
            writeln!(out, "\t{}\t{}", answer.unresolved, json!(answer.reason))?;
        }
    }
    out.flush()
}

/// The fields of the JSON document beside the common ones.
fn document(options: &Options, report: &Report, duration: Duration) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    let rejected: Vec<Value> = report
        .gold
        .rejected
        .iter()
        .map(|(key, reason)| {
            let at = (!reason.at.is_empty()).then_some(&reason.at);
            json!({ "key": key_value(key), "code": reason.code.as_str(), "reason": reason.reason, "at": at })
        })
        .collect();
    put(
        "gold",
        json!({
            "path": options.gold.to_string_lossy(),
            "form": if report.gold.form == Form::Prepared { "prepared" } else { "records" },
            "references": report.records.len(),
            "rejected": rejected,
            "unresolved_tags": report.gold.unresolved,
        }),
    );
    let sets = options.generated.iter().zip(&report.sets).enumerate();
    put("sets", sets.map(|(index, (path, set))| set_value(report, index, (path, set))).collect());
    let difference = report.difference.as_ref().map(
        |difference| json!({ "references": difference.records, "scores": totals_value(&difference.totals) }),
    );
    put("difference", json!(difference));
    if !report.not_read.is_empty() {
        let value = |(path, log): &(PathBuf, Arc<NameLog>)| json!({ "path": path.to_string_lossy(), "by_kind": counts_value(log), "names": first_value(log) });
        put("not_read", report.not_read.iter().map(value).collect());
    }
    put("seed", json!(options.seed));
    put("resamples", json!(options.resamples));
    put("seconds", json!(duration.as_secs_f64()));
    fields
}

fn set_value(report: &Report, index: usize, (path, set): (&Path, &SetReport)) -> Value {
    let coverage: Map<String, Value> =
        Status::ALL.iter().map(|status| (status.as_str().to_owned(), json!(set.count(*status)))).collect();
    let worst = report.worst(index, NAMED).into_iter().map(|record| {
        let answer = &record.answers[index];
        json!({
            "key": key_value(&record.key),
            "overall": answer.scores[Measure::Overall.index()],
            "status": answer.status.as_str(),
            "reason": answer.reason,
        })
    });
    let extra = set.extra.iter().map(|key| key_value(key));
    json!({
        "path": path.to_string_lossy(),
        "coverage": coverage,
        "extra": extra.collect::<Vec<_>>(),
        "scores": totals_value(&set.totals),
        "pairs": pairs_value(&set.pairs),
        "unresolved_tags": set.unresolved,
        "worst": worst.collect::<Vec<_>>(),
    })
}

fn totals_value(totals: &[Total; Measure::ALL.len()]) -> Value {
    let value = |(measure, total): (Measure, &Total)| {
        let value = json!({ "mean": total.mean, "low": total.interval.low, "high": total.interval.high });
        (measure.as_str().to_owned(), value)
    };
    Value::Object(Measure::ALL.into_iter().zip(totals).map(value).collect())
}

fn pairs_value(pairs: &Pairs) -> Value {
    let value = |tally: &Tally| json!({ "pairs": tally.pairs, "none": tally.none });
    json!({
        "state": value(&pairs.state),
        "observations": value(&pairs.observations),
        "actions": value(&pairs.actions),
    })
}

/// A line each, since there may be millions of them.
fn write_records(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for (index, record) in report.records.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\n{}", record_value(record))?;
    }
    Ok(())
}

fn record_value(record: &RecordReport) -> Value {
    let answers: Vec<Value> = record.answers.iter().map(answer_value).collect();
    json!({ "key": key_value(&record.key), "unresolved_tags": record.unresolved, "answers": answers })
}

fn answer_value(answer: &Answer) -> Value {
    let tally = &answer.tally;
    let pairs = Pairs { state: tally.state, observations: tally.observations, actions: tally.actions };
    let agents: Map<String, Value> = tally
        .agents
        .iter()
        .map(|(agent, tally)| {
            let value = json!({
                "observations_exact": tally.observations.exact(),
                "observations_f1": tally.observations.f1(),
                "actions_exact": tally.actions.exact(),
                "actions_f1": tally.actions.f1(),
            });
            (agent.clone(), value)
        })
        .collect();
    json!({
        "status": answer.status.as_str(),
        "reason": answer.reason,
        "scores": scores_value(&answer.scores),
        "agents": agents,
        "pairs": pairs_value(&pairs),
        "unresolved_tags": answer.unresolved,
    })
}

fn scores_value(scores: &Scores) -> Value {
    let named = Measure::ALL.into_iter().zip(scores);
    Value::Object(named.map(|(measure, score)| (measure.as_str().to_owned(), json!(score))).collect())
}

fn key_value(key: &[u8]) -> Value {
    serde_json::from_str(&without_surrogates(&KeyText(key).to_json())).unwrap_or(Value::Null)
}
