//! What is known of prepared data: the manifest, what a check finds, and what samples look like.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;
use crate::job::data::threads;
use crate::job::tokens::{counter, counter_or_about};
use crate::preview::{self, Pick, ShownSample};
use crate::report::path::without_path;
use crate::session::environment::Environment;
use crate::signals::Signals;
use crate::text::{key_text, without_surrogates};
use ctxtune_engine::check::code::{Code, Level};
use ctxtune_engine::check::counter::{Counter, Method};
use ctxtune_engine::check::finding::Keep;
use ctxtune_engine::check::stats::{Bar, Histogram};
use ctxtune_engine::check::{self, check};
use ctxtune_engine::line::example::Example;
use ctxtune_engine::output::manifest::{DataKind, Manifest, Side};
use ctxtune_engine::prepare::REJECTS;
use ctxtune_engine::source::unpack::open_plain;

/// Examples of rejects, and of findings, by code.
const EXAMPLES: usize = 3;
/// Bars of a histogram; of few samples fewer, so that most hold one.
const BARS: std::ops::RangeInclusive<usize> = 8..=40;
/// Samples that are shown whole, of training and of validation.
const SHOWN: [usize; 2] = [7, 3];
/// The size of data whose tokens are counted; of more they are estimated.
const COUNTED_BYTES: u64 = 1_000_000_000;
/// Samples of a side whose agents and steps are counted: the first of an order that is as good as random.
const COUNTED: usize = 20_000;

#[derive(Debug, Serialize)]
pub struct DataReport {
    /// What was prepared, and how.
    pub manifest: Manifest,
    /// Refused records by code, the most frequent first.
    pub rejects: Vec<Rejects>,
    /// What a check finds, by code.
    pub findings: Vec<Findings>,
    /// How many errors a check finds; data with any is not fit for training.
    pub errors: u64,
    /// How long samples are.
    pub lengths: Lengths,
    /// The longest samples, the longest first.
    pub longest: Vec<LongSample>,
    /// How many agents and steps contexts have.
    pub shapes: Shapes,
    /// Some samples whole.
    pub samples: Vec<Sample>,
}

#[derive(Debug, Serialize)]
pub struct Rejects {
    /// The code.
    pub code: String,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<Reject>,
}

#[derive(Debug, Serialize)]
pub struct Reject {
    /// Its key.
    pub key: String,
    /// Why.
    pub reason: String,
    /// Where in it; empty where that is not known.
    pub at: String,
}

#[derive(Debug, Serialize)]
pub struct Findings {
    /// The code.
    pub code: &'static str,
    /// Whether it is an error.
    pub is_error: bool,
    /// How many.
    pub count: u64,
    /// The first of them: where, and what.
    pub examples: Vec<String>,
}

/// How long samples are, in tokens: at most so many.
#[derive(Debug, Serialize)]
pub struct Lengths {
    /// How they were counted: `exact`, `at_most` or `about`.
    pub method: &'static str,
    /// How many samples there are.
    pub samples: u64,
    /// The shortest, the median, what 90 % and 99 % do not exceed, and the longest.
    pub quantiles: [u64; 5],
    /// How many samples have how many tokens.
    pub bars: Vec<Bar>,
}

#[derive(Debug, Serialize)]
pub struct LongSample {
    /// Its file and line.
    pub place: String,
    /// Its record; empty where that is not known.
    pub key: String,
    /// Its bytes.
    pub bytes: u64,
    /// Its tokens, as [`Lengths`] counts them.
    pub tokens: u64,
}

#[derive(Debug, Default, Serialize)]
pub struct Shapes {
    /// Samples by the number of agents.
    pub agents: BTreeMap<u64, u64>,
    /// Samples by the number of steps.
    pub steps: BTreeMap<u64, u64>,
    /// Samples that were counted: all, or the first of each side.
    pub counted: u64,
    /// Samples whose answer holds no context.
    pub without_context: u64,
}

#[derive(Debug, Serialize)]
pub struct Sample {
    /// `train` or `val`.
    pub split: &'static str,
    /// The sample; its file is named without its directory.
    #[serde(flatten)]
    pub shown: ShownSample,
}

/// What decides how samples are counted and shown: the newest job's, or the defaults.
#[derive(Debug)]
pub(crate) struct Seeing {
    pub model: String,
    pub max_tokens: Option<u64>,
    pub trains_on_inputs: bool,
}

impl DataReport {
    pub(crate) fn of(
        out: &Path,
        seeing: &Seeing,
        (tokenizer, environment): (Option<&str>, &Environment),
        (signals, watch): (&Signals, &dyn check::Watch),
        troubles: &mut Vec<String>,
    ) -> Result<DataReport, Failure> {
        let manifest = Manifest::read(out)?;
        let bytes: u64 = manifest.sides().map(|(_, side)| side.content().0).sum();
        // What counts nothing for certain only splits texts into pieces.
        let counted = counter(tokenizer, &seeing.model, environment).unwrap_or_else(|failure| {
            troubles.push(without_path(&failure.message, out));
            None
        });
        let counted = counted.filter(|_| bytes <= COUNTED_BYTES);
        let is_counted = counted.is_some();
        let model = match counted {
            Some(model) => model,
            None => counter_or_about(None, &seeing.model, environment)?,
        };
        let model = Arc::new(model);
        let options = check::Options {
            paths: vec![out.to_owned()],
            threads: threads(),
            keep: Keep::First(EXAMPLES),
            max_tokens: None,
            counter: is_counted.then(|| Arc::clone(&model) as Arc<dyn Counter>),
        };
        let report = check(&options, watch).map_err(|error| signals.explain(error))?;
        let mut trouble = |what: &str, error: io::Error| {
            let error = without_path(&error.to_string(), out);
            troubles.push(format!("{what} cannot be read: {error}"));
        };
        let rejects = rejects(out, &manifest).unwrap_or_else(|error| {
            trouble(REJECTS, error);
            Vec::new()
        });
        let (mut shapes, mut samples) = (Shapes::default(), Vec::new());
        for ((split, side), shown) in manifest.sides().zip(SHOWN) {
            if let Err(error) = shapes.read(out, side, signals) {
                if signals.is_stopped() {
                    return Err(Failure::new(signals.exit(), "interrupted", "interrupted", "run it again"));
                }
                trouble(split, error);
            }
            let Some(first) = side.shards.first() else { continue };
            // The lines of files that were split already have no other names.
            let is_named = manifest.options.kind != DataKind::Files;
            let order = preview::Order {
                path: if is_named { out.to_owned() } else { out.join(&first.file) },
                is_validation: split == "val",
                pick: Pick::First(shown),
                max_tokens: seeing.max_tokens,
                trains_on_inputs: seeing.trains_on_inputs,
            };
            match preview::samples(&order, &model) {
                Ok(shown) => samples.extend(shown.into_iter().map(|shown| Sample {
                    split,
                    shown: ShownSample { file: file_name(Path::new(&shown.file)), ..shown },
                })),
                Err(failure) => trouble(split, io::Error::other(failure.message)),
            }
        }
        Ok(DataReport {
            rejects,
            findings: findings(&report),
            errors: report.findings.total(Level::Error),
            lengths: Lengths::of(report.method, &report.tokens.high),
            longest: longest(&report),
            shapes,
            samples,
            manifest,
        })
    }

    /// How many samples have the same bytes as an earlier one.
    pub fn duplicates(&self) -> u64 {
        let duplicates = self.findings.iter().find(|found| found.code == Code::Duplicate.as_str());
        duplicates.map_or(0, |found| found.count)
    }
}

impl Lengths {
    fn of(method: Method, tokens: &Histogram) -> Lengths {
        let wanted = (tokens.count() as f64).sqrt() as usize * 2;
        Lengths {
            method: method.as_str(),
            samples: tokens.count(),
            quantiles: [
                tokens.least(),
                tokens.quantile(50),
                tokens.quantile(90),
                tokens.quantile(99),
                tokens.most(),
            ],
            bars: tokens.bars(wanted.clamp(*BARS.start(), *BARS.end())),
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn findings(report: &check::Report) -> Vec<Findings> {
    let found = |code: Code| {
        let kept = report.findings.kept().iter().filter(|finding| finding.code == code);
        let example = |finding: &check::finding::Finding| {
            let line = finding.line.map(|line| format!(":{line}")).unwrap_or_default();
            let key = finding.key.as_deref().map(|key| format!(" (record {})", key_text(key)));
            let place = file_name(report.path(finding.path));
            format!("{place}{line}: {}{}", finding.message, key.unwrap_or_default())
        };
        Findings {
            code: code.as_str(),
            is_error: code.level() == Level::Error,
            count: report.findings.count(code),
            examples: kept.take(EXAMPLES).map(example).collect(),
        }
    };
    Code::all().map(found).filter(|found| found.count > 0).collect()
}

fn longest(report: &check::Report) -> Vec<LongSample> {
    let long = |(long, key): &(check::Long, Option<String>)| LongSample {
        place: format!("{}:{}", file_name(report.path(long.path)), long.line),
        key: key.as_deref().map(key_text).unwrap_or_default(),
        bytes: long.bytes,
        tokens: long.tokens.high,
    };
    report.longest.iter().map(long).collect()
}

/// A line of `rejects.jsonl`, whose key may hold bytes that are no text.
#[derive(Deserialize)]
struct RejectLine {
    key: String,
    code: String,
    reason: String,
    at: Option<String>,
}

/// The refused records by code, with the first of each.
fn rejects(out: &Path, manifest: &Manifest) -> io::Result<Vec<Rejects>> {
    let by_code = manifest.counts.rejected_by_code.iter();
    let mut rejects: Vec<Rejects> = by_code
        .map(|(code, count)| Rejects { code: code.clone(), count: *count, examples: Vec::new() })
        .collect();
    rejects.sort_by_key(|rejects| std::cmp::Reverse(rejects.count));
    if rejects.is_empty() {
        return Ok(rejects);
    }
    for line in BufReader::new(File::open(out.join(REJECTS))?).lines() {
        let Ok(line) = serde_json::from_str::<RejectLine>(&without_surrogates(&line?)) else { continue };
        let of_code = rejects.iter_mut().find(|rejects| rejects.code == line.code);
        if let Some(rejects) = of_code.filter(|rejects| rejects.examples.len() < EXAMPLES) {
            let at = line.at.unwrap_or_default();
            rejects.examples.push(Reject { key: line.key, reason: line.reason, at });
        }
        if rejects.iter().all(|rejects| rejects.examples.len() as u64 == rejects.count.min(EXAMPLES as u64)) {
            break;
        }
    }
    Ok(rejects)
}

impl Shapes {
    fn read(&mut self, out: &Path, side: &Side, signals: &Signals) -> io::Result<()> {
        let mut number = 0;
        for shard in &side.shards {
            for line in BufReader::new(open_plain(&out.join(&shard.file))?).split(b'\n') {
                let line = line?;
                if number == COUNTED || signals.is_stopped() {
                    return if signals.is_stopped() {
                        Err(io::ErrorKind::Interrupted.into())
                    } else {
                        Ok(())
                    };
                }
                // Blank lines are no samples; what is no example is a finding of the check.
                if let Ok(example) = Example::from_line(&line) {
                    number += 1;
                    self.count(&example);
                }
            }
        }
        Ok(())
    }

    /// Counts the agents and steps of the context in the last answer of `example`; a template may set words around it.
    fn count(&mut self, example: &Example) {
        self.counted += 1;
        let answer = example.messages.iter().rfind(|message| message.role == "assistant");
        let content = answer.map(|answer| answer.content.as_str()).unwrap_or_default();
        let braces = content.find('{').zip(content.rfind('}')).filter(|(start, end)| start < end);
        let context: Option<Value> =
            braces.and_then(|(start, end)| serde_json::from_str(&content[start..=end]).ok());
        let length = |field: &str| Some(context.as_ref()?.get(field)?.as_array()?.len() as u64);
        match (length("agents_names"), length("socialized_context")) {
            (Some(agents), Some(steps)) => {
                *self.agents.entry(agents).or_default() += 1;
                *self.steps.entry(steps).or_default() += 1;
            }
            _ => self.without_context += 1,
        }
    }
}
