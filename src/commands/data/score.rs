//! `ctxtune score`: how far generated contexts agree with reference ones.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::ScoreArgs;
use crate::commands::data::score_models::{self, Answered};
use crate::commands::report::{check_is_ours, write};
use crate::screen::chart::Charset;
use crate::screen::html::score::ScoreSection;
use crate::screen::html::{Page, page};
use crate::screen::names::{Named, counts_value, first_names, say_not_read_in};
use crate::screen::report::{LongList, Terminal, fields};
use crate::screen::scoreboard::{coverage, notes, references, table};
use crate::session::clock::SystemClock;
use crate::session::environment;
use ctxtune_engine::json::KeyText;
use ctxtune_engine::record::reject::RejectReason;
use ctxtune_engine::score::aligned::align;
use ctxtune_engine::score::answer::{Answer, Status};
use ctxtune_engine::score::gold::Form;
use ctxtune_engine::score::measure::Measure;
use ctxtune_engine::score::report::{Pairs, RecordReport, Report, SetReport, Total};
use ctxtune_engine::score::{Options, Watch, score};
use ctxtune_engine::source::names::NameLog;
use ctxtune_engine::source::{Containers, DEFAULT_RECORD_BYTES, DEFAULT_SPOOL_BYTES};
use ctxtune_pipeline::generate::batch::BatchReport;
use ctxtune_pipeline::job::mismatch::Mismatch;
use ctxtune_pipeline::text::{printable, without_surrogates};
use ctxtune_pipeline::{Environment, Exit, Failure};
use ctxtune_service::Clock;

/// Keys of a kind that are named, unless all are asked for.
const NAMED: usize = 5;

pub fn run(args: &ScoreArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    // Scoring files alone needs no variable, and warns of none.
    let environment = match args.models.is_empty() {
        true => environment::with_locale([]),
        false => environment::read(None, terminal)?,
    };
    let mut answered = Answered::default();
    let asked = args
        .val
        .as_deref()
        .map_or(Ok(()), |val| score_models::ask((args, val), &environment, &mut answered, terminal));
    match asked.and_then(|()| report(args, &environment, &answered, terminal)) {
        Ok((subject, report, duration)) => Ok(end(args, &subject, (&report, duration), terminal)),
        Err(failure) if args.models.is_empty() => Err(failure),
        Err(failure) => {
            let Answered { asked, mismatch, .. } = &answered;
            let asked = Asked { asked: Some(asked), data_mismatch: mismatch.as_ref() };
            Ok(terminal.fail(&failure, fields(&asked)))
        }
    }
}

pub struct Subject {
    options: Options,
    names: Vec<String>,
    /// How models were asked, where any was.
    asked: Option<Vec<BatchReport>>,
    mismatch: Option<Mismatch>,
}

pub fn report(
    args: &ScoreArgs,
    environment: &Environment,
    answered: &Answered,
    terminal: &Terminal,
) -> Result<(Subject, Report, Duration), Failure> {
    let subject = subject(args, answered);
    let start = Instant::now();
    let report = scored(&subject.options, terminal)?;
    let duration = start.elapsed();
    summarize(&subject, &report, environment.is_utf8(), terminal);
    if let Some(path) = &args.per_record {
        write_rows(path, &subject, &report).map_err(|error| {
            let message = format!("cannot write `{}`: {error}", path.display());
            let hint = "free some space, or name another file with --per-record";
            Failure::failed("write", message, hint)
        })?;
    }
    if let Some(path) = &args.report {
        write_page(path, &subject, &report, terminal);
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
        asked: has_asked.then(|| answered.asked.clone()),
        mismatch: answered.mismatch.clone(),
    }
}

/// The line on stdout, or the document; and whether the score is high enough.
fn end(
    args: &ScoreArgs,
    subject: &Subject,
    (report, duration): (&Report, Duration),
    terminal: &Terminal,
) -> Exit {
    let overall: Vec<f64> = report.sets.iter().map(|set| set.total(Measure::Overall).mean).collect();
    let line = overall.iter().map(|score| format!("{score:.4}")).collect::<Vec<_>>().join("\t");
    let document = fields(&ScoreReport::of(subject, report, duration, args.min_score));
    let write = |out: &mut dyn Write| write_records(report, out);
    let records = LongList { name: "records", write: &write };
    let least = args.min_score.zip(overall.last().copied()).filter(|(least, score)| score < least);
    let Some((least, score)) = least else {
        return terminal.succeed_with(Some(line.as_bytes()), document, &[records]);
    };
    if !terminal.flags().json {
        terminal.deliver(format!("{line}\n").as_bytes());
    }
    let message = format!("the overall score is {score:.4}, below {least}");
    let hint = "the table and `--per-record` say where it falls short";
    let failure = Failure::data("below_min_score", message, hint);
    terminal.fail_with(&failure, document, &[records])
}

fn scored(options: &Options, terminal: &Terminal) -> Result<Report, Failure> {
    let bar = Bar::new(terminal);
    let result = score(options, &bar);
    bar.drawn.finish_and_clear();
    result.map_err(|error| terminal.signals.explain(error))
}

struct Bar<'s> {
    terminal: &'s Terminal,
    drawn: ProgressBar,
}

impl<'s> Bar<'s> {
    fn new(terminal: &'s Terminal) -> Self {
        let drawn = terminal.bar("{bar:30} {human_pos}/{human_len} {per_sec}  {eta} left");
        drawn.set_length(0);
        drawn.enable_steady_tick(Duration::from_millis(100));
        Bar { terminal, drawn }
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
        self.terminal.signals.is_stopped()
    }
}

fn summarize(subject: &Subject, report: &Report, is_utf8: bool, terminal: &Terminal) {
    if terminal.flags().quiet {
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
    let limit = if terminal.flags().verbose { usize::MAX } else { NAMED };
    for line in notes(report, &names, limit) {
        // A reason may quote what a model wrote.
        terminal.say(&printable(&line).replace('\n', "\\n"));
    }
}

/// Writes the page; trouble with it is one warning.
fn write_page(path: &Path, subject: &Subject, report: &Report, terminal: &Terminal) {
    let options = &subject.options;
    let own = |path: &Path| printable(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
    let names: Vec<String> = match &subject.asked {
        Some(_) => subject.names.clone(),
        None => options.generated.iter().map(|path| own(path)).collect(),
    };
    let clock = SystemClock::new(terminal.signals.clone(), 1.0);
    let written = check_is_ours(path).map_err(|error| error.to_string()).and_then(|()| {
        let bar = Bar::new(terminal);
        bar.drawn.finish_and_clear();
        let worst = (0..report.sets.len()).map(|index| {
            let keys = report.worst(index, NAMED).into_iter().map(|record| record.key.clone());
            align(options, index, &keys.collect::<Vec<_>>(), &bar)
        });
        let worst: Result<Vec<_>, _> = worst.collect();
        let score = ScoreSection {
            gold: references(report, &own(&options.gold)),
            names: &names,
            report,
            worst: worst.map_err(|error| error.to_string())?,
            sources: options.generated.iter().chain([&options.gold]).map(PathBuf::as_path).collect(),
        };
        let title = format!("Scores against {}", own(&options.gold));
        let written = clock.now().strftime("%F %TZ").to_string();
        let banner = terminal.banner();
        let page = page(&Page { title: &title, written: &written, banner, outs: &[], score: Some(&score) });
        write(path, &page).map_err(|error| error.to_string())
    });
    match written {
        Ok(()) => terminal.label("report", &path.display().to_string()),
        Err(error) => terminal.warn(&printable(&format!("cannot write `{}`: {error}", path.display()))),
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

/// What a script is told of a scoring. `records` follow, since there may be many.
#[derive(Serialize)]
struct ScoreReport<'r> {
    /// The references.
    gold: GoldReport<'r>,
    /// The sets of answers, as they were named.
    sets: Vec<SetScores<'r>>,
    /// The second set less the first, where both answer a reference; `null` for one set.
    difference: Option<DifferenceReport>,
    /// Only where something in a source was not read: which sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_read: Vec<NotRead<'r>>,
    /// The seed of the resamples.
    seed: u64,
    /// How many resamples the intervals are made of.
    resamples: NonZeroU32,
    /// How long scoring took, in seconds.
    seconds: f64,
    #[serde(flatten)]
    asked: Asked<'r>,
    /// The lowest score that passes, as `--min-score` says; `null` without it.
    min_score: Option<f64>,
}

/// How models were asked, also where nothing was scored.
#[derive(Serialize)]
struct Asked<'r> {
    /// For each of `--models` what became of its stories; `null` without it.
    asked: Option<&'r [BatchReport]>,
    /// Only where a model was trained on other data than it is scored by.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_mismatch: Option<&'r Mismatch>,
}

#[derive(Serialize)]
struct GoldReport<'r> {
    /// Where they are.
    path: Cow<'r, str>,
    /// `records` or `prepared`.
    form: &'static str,
    /// How many there are.
    references: usize,
    /// Records that are no reference.
    rejected: Vec<RejectedGold<'r>>,
    /// Tags that stand for nothing.
    unresolved_tags: u64,
}

#[derive(Serialize)]
struct RejectedGold<'r> {
    /// Its key.
    key: Value,
    /// The code of the reason.
    code: &'static str,
    /// The reason.
    reason: &'r str,
    /// Where in the record; `null` where that is not known.
    at: Option<&'r str>,
}

#[derive(Serialize)]
struct SetScores<'r> {
    /// Where they are.
    path: Cow<'r, str>,
    /// References by what became of their answers.
    coverage: Coverage,
    /// Keys of answers without a reference.
    extra: Vec<Value>,
    /// The mean over all references and its 95 % interval, by measure: `mean`, `low`, `high`.
    scores: Map<String, Value>,
    /// Texts of the valid answers that were compared.
    pairs: Pairs,
    /// Tags that stand for nothing.
    unresolved_tags: u64,
    /// The worst five answers, the worst first.
    worst: Vec<WorstAnswer<'r>>,
}

#[derive(Serialize)]
struct Coverage {
    /// Answers that are a usable context.
    valid: u64,
    /// Answers that are not.
    invalid: u64,
    /// Answers that cannot be read.
    unreadable: u64,
    /// References without an answer.
    missing: u64,
}

#[derive(Serialize)]
struct WorstAnswer<'r> {
    /// The reference's key.
    key: Value,
    /// The overall score.
    overall: f64,
    /// `valid`, `invalid` or `unreadable`.
    status: &'static str,
    /// Why it is not valid; `null` where it is.
    reason: Option<&'r str>,
}

#[derive(Serialize)]
struct DifferenceReport {
    /// References that both answer.
    references: u64,
    /// The mean difference and its 95 % interval, by measure: `mean`, `low`, `high`.
    scores: Map<String, Value>,
}

#[derive(Serialize)]
struct NotRead<'r> {
    /// The source.
    path: Cow<'r, str>,
    /// How many files, by kind.
    by_kind: Map<String, Value>,
    /// The first five by name; `null` where they cannot be read.
    names: Option<Vec<Named>>,
}

impl<'r> ScoreReport<'r> {
    fn of(
        subject: &'r Subject,
        report: &'r Report,
        duration: Duration,
        min_score: Option<f64>,
    ) -> ScoreReport<'r> {
        let options = &subject.options;
        let rejected = |(key, reason): &'r (Vec<u8>, RejectReason)| RejectedGold {
            key: key_value(key),
            code: reason.code.as_str(),
            reason: &reason.reason,
            at: Some(&*reason.at).filter(|at| !at.is_empty()),
        };
        let sets = options.generated.iter().zip(&report.sets).enumerate();
        let difference = report.difference.as_ref().map(|difference| DifferenceReport {
            references: difference.records,
            scores: totals_value(&difference.totals),
        });
        let not_read = |(path, log): &'r (PathBuf, Arc<NameLog>)| NotRead {
            path: path.to_string_lossy(),
            by_kind: counts_value(log),
            names: first_names(log),
        };
        ScoreReport {
            gold: GoldReport {
                path: options.gold.to_string_lossy(),
                form: if report.gold.form == Form::Prepared { "prepared" } else { "records" },
                references: report.records.len(),
                rejected: report.gold.rejected.iter().map(rejected).collect(),
                unresolved_tags: report.gold.unresolved,
            },
            sets: sets.map(|(index, (path, set))| SetScores::of(report, index, (path, set))).collect(),
            difference,
            not_read: report.not_read.iter().map(not_read).collect(),
            seed: options.seed,
            resamples: options.resamples,
            seconds: duration.as_secs_f64(),
            asked: Asked { asked: subject.asked.as_deref(), data_mismatch: subject.mismatch.as_ref() },
            min_score,
        }
    }
}

impl<'r> SetScores<'r> {
    fn of(report: &'r Report, index: usize, (path, set): (&'r Path, &SetReport)) -> SetScores<'r> {
        let worst = |record: &'r RecordReport| WorstAnswer {
            key: key_value(&record.key),
            overall: record.answers[index].scores[Measure::Overall.index()],
            status: record.answers[index].status.as_str(),
            reason: record.answers[index].reason.as_deref(),
        };
        SetScores {
            path: path.to_string_lossy(),
            coverage: Coverage {
                valid: set.count(Status::Valid),
                invalid: set.count(Status::Invalid),
                unreadable: set.count(Status::Unreadable),
                missing: set.count(Status::Missing),
            },
            extra: set.extra.iter().map(|key| key_value(key)).collect(),
            scores: totals_value(&set.totals),
            pairs: set.pairs,
            unresolved_tags: set.unresolved,
            worst: report.worst(index, NAMED).into_iter().map(worst).collect(),
        }
    }
}

fn totals_value(totals: &[Total; Measure::ALL.len()]) -> Map<String, Value> {
    let value = |(measure, total): (Measure, &Total)| {
        let value = json!({ "mean": total.mean, "low": total.interval.low, "high": total.interval.high });
        (measure.as_str().to_owned(), value)
    };
    Measure::ALL.into_iter().zip(totals).map(value).collect()
}

/// A line each, since there may be millions of them.
fn write_records(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for (index, record) in report.records.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\n{}", json!(RecordScores::of(record)))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct RecordScores<'r> {
    /// Its key.
    key: Value,
    /// Its own tags that stand for nothing.
    unresolved_tags: u64,
    /// The answer of each set.
    answers: Vec<AnswerScores<'r>>,
}

#[derive(Serialize)]
struct AnswerScores<'r> {
    /// `valid`, `invalid`, `unreadable` or `missing`.
    status: &'static str,
    /// Why it is not valid; `null` where it is.
    reason: Option<&'r str>,
    /// By measure, from 0 to 1.
    scores: Map<String, Value>,
    /// By agent `observations_exact`, `observations_f1`, `actions_exact` and `actions_f1`.
    agents: BTreeMap<&'r str, AgentScores>,
    /// Texts that were compared.
    pairs: Pairs,
    /// Its tags that stand for nothing.
    unresolved_tags: u64,
}

#[derive(Serialize)]
struct AgentScores {
    observations_exact: f64,
    observations_f1: f64,
    actions_exact: f64,
    actions_f1: f64,
}

impl RecordScores<'_> {
    fn of(record: &RecordReport) -> RecordScores<'_> {
        let answers = record.answers.iter().map(AnswerScores::of).collect();
        RecordScores { key: key_value(&record.key), unresolved_tags: record.unresolved, answers }
    }
}

impl AnswerScores<'_> {
    fn of(answer: &Answer) -> AnswerScores<'_> {
        let tally = &answer.tally;
        let scores = Measure::ALL.into_iter().zip(&answer.scores);
        let agents = tally.agents.iter().map(|(agent, tally)| {
            let scores = AgentScores {
                observations_exact: tally.observations.exact(),
                observations_f1: tally.observations.f1(),
                actions_exact: tally.actions.exact(),
                actions_f1: tally.actions.f1(),
            };
            (&**agent, scores)
        });
        AnswerScores {
            status: answer.status.as_str(),
            reason: answer.reason.as_deref(),
            scores: scores.map(|(measure, score)| (measure.as_str().to_owned(), json!(score))).collect(),
            agents: agents.collect(),
            pairs: Pairs { state: tally.state, observations: tally.observations, actions: tally.actions },
            unresolved_tags: answer.unresolved,
        }
    }
}

fn key_value(key: &[u8]) -> Value {
    serde_json::from_str(&without_surrogates(&KeyText(key).to_json())).unwrap_or(Value::Null)
}
