//! `ctxtune generate SOURCE… --output-dir GEN`: contexts of many stories, each asked about once.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::args::{GenerateArgs, home};
use crate::screen::names::{Named, counts_value, first_names, say_not_read};
use crate::screen::report::{Terminal, fields};
use ctxtune_engine::source::names::NameLog;
use ctxtune_engine::source::records::Records;
use ctxtune_engine::source::{DEFAULT_SPOOL_BYTES, Source};
use ctxtune_pipeline::generate::batch::{AnswerDir, Batch, BatchReport, BatchResult, StopOnly, agree};
use ctxtune_pipeline::generate::many::{End, Error, Retry};
use ctxtune_pipeline::generate::question::Questions;
use ctxtune_pipeline::generate::setup::Setup;
use ctxtune_pipeline::job::mismatch::Mismatch;
use ctxtune_pipeline::text::grouped;
use ctxtune_pipeline::value::at_home;
use ctxtune_pipeline::{Exit, Failure};

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    asked: Option<BatchReport>,
    /// How many files of the sources were not read, by kind.
    not_read_by_kind: Map<String, Value>,
    /// The first five of them by name; `null` where they cannot be read.
    not_read: Option<Vec<Named>>,
    /// Only where the directory of the model's data holds other data now.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_mismatch: Option<Mismatch>,
}

pub fn run(args: &GenerateArgs, setup: &Setup, dir: &Path, terminal: &Terminal) -> Result<Exit, Failure> {
    let Prepared { questions, answers, not_read } = prepared(args, setup, dir, terminal)?;
    let mut report = Report {
        asked: None,
        not_read_by_kind: counts_value(&not_read),
        not_read: first_names(&not_read),
        data_mismatch: setup.mismatch.clone(),
    };
    let failure = match ask(args, setup, dir, &questions, answers) {
        Ok((asked, failure)) => {
            report.asked = Some(asked);
            failure
        }
        Err(failure) => Some(failure),
    };
    Ok(match failure {
        Some(failure) => terminal.fail(&failure, fields(&report)),
        None => terminal.report(Some(dir.as_os_str().as_encoded_bytes()), &report),
    })
}

/// Asks all questions that are open: the report, and why it is not all well.
fn ask(
    args: &GenerateArgs,
    setup: &Setup,
    dir: &Path,
    questions: &Questions,
    answers: AnswerDir,
) -> Result<(BatchReport, Option<Failure>), Failure> {
    let retry = if args.retry_invalid { Retry::Invalid } else { Retry::Nothing };
    let batch = Batch::open(setup, questions, answers, retry)?;
    agree(&[&batch], &args.asking)?;
    let (ran, end) = batch.run(&args.asking);
    batch.sum_up(&ran);
    // Whoever is gone, or refuses, is not asked for more.
    if ran.tally.effort.requests > 0 && matches!(end, End::Done | End::OverBudget) {
        setup.target.say_running(&setup.session);
    }
    Ok((batch.report(&ran), failure(&batch, dir, (&ran, end))))
}

struct Prepared {
    questions: Questions,
    answers: AnswerDir,
    not_read: Arc<NameLog>,
}

/// The stories of the sources, and the directory, which is held before they are listed.
fn prepared(
    args: &GenerateArgs,
    setup: &Setup,
    dir: &Path,
    terminal: &Terminal,
) -> Result<Prepared, Failure> {
    let sources = sources(args)?;
    let answers = AnswerDir::open(dir)?;
    let stop = StopOnly(setup.session.clock.as_ref());
    let listed = Records::list_beside(&sources, dir, DEFAULT_SPOOL_BYTES, &stop);
    let records = listed.map_err(|error| setup.session.explain(Error::from(error)))?;
    let not_read = Arc::clone(records.not_read());
    say_not_read(&not_read, terminal);
    Ok(Prepared { questions: Questions::of_records(records), answers, not_read })
}

fn failure(batch: &Batch<'_>, dir: &Path, (ran, end): (&BatchResult, End)) -> Option<Failure> {
    if let Some(failure) = batch.cut_short(ran, end) {
        return Some(failure);
    }
    let invalid = batch.invalid(ran).count();
    if invalid > 0 {
        let message = format!("{} ended without a context", counted_stories(invalid));
        let hint = format!(
            "{}/*.invalid.json say why; --retry-invalid asks again, more --max-tokens helps where answers were cut",
            dir.display()
        );
        return Some(Failure::data("invalid_answers", message, hint));
    }
    let rejected = batch.rejected().len();
    let message = || format!("{} could not be requested", counted_stories(rejected));
    let hint = "fix the records named above, then run it again";
    (rejected > 0).then(|| Failure::data("rejects", message(), hint))
}

fn counted_stories(count: usize) -> String {
    if count == 1 { "1 story".to_owned() } else { format!("{} stories", grouped(count as u64)) }
}

fn sources(args: &GenerateArgs) -> Result<Vec<Source>, Failure> {
    use ctxtune_engine::prepare::{Mode, Purpose};
    use ctxtune_pipeline::config::{ConfigError, PrepareChoices};
    // A story is no path: it is only here that `~/` can be meant.
    let choices = PrepareChoices {
        sources: args.inputs.iter().map(|input| at_home(input, home().as_deref())).collect(),
        containers: args.containers,
        ..PrepareChoices::default()
    };
    let purpose = Purpose { mode: Mode::DryRun, show: 0, name_rejects: 0 };
    let options: Result<_, ConfigError> = choices.resolve(purpose, std::num::NonZeroUsize::MIN);
    Ok(options?.sources)
}
