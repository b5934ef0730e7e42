//! Preparing and checking data as steps of something larger.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::config::PrepareChoices;
use crate::failure::{Exit, Failure};
use crate::job::mismatch::Mismatch;
use crate::session::Session;
use crate::text::{counted, grouped};
use ctxtune_engine::check::code::{Level, Stage};
use ctxtune_engine::check::finding::Keep;
use ctxtune_engine::check::{self, Report, check};
use ctxtune_engine::prepare::{Mode, Options, Purpose, prepare};

/// How many findings of each code, or rejects, are named unless all are asked for.
pub const NAMED: usize = 5;

/// One for each core.
pub fn threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Prepares what `choices` name and publishes it.
///
/// # Errors
/// When the choices cannot be resolved, or nothing is published.
pub(crate) fn prepare_corpus(choices: PrepareChoices, session: &Session) -> Result<Options, Failure> {
    let purpose = Purpose { mode: Mode::Publish, show: 0, name_rejects: NAMED };
    let options = choices.resolve(purpose, threads())?;
    let start = session.clock.elapsed();
    let prepared = prepare(&options, &*session.ui.watch_prepare(&session.signals));
    let prepared = prepared.map_err(|error| {
        session.ui.not_prepared(&error);
        session.explain(error)
    })?;
    session.ui.prepared(&options, &prepared, session.clock.elapsed().saturating_sub(start));
    if let Some(mismatch) = Mismatch::of_prepared(&options, &prepared) {
        mismatch.warn(&*session.ui);
    }
    Ok(options)
}

/// Whether `paths` are fit for training, as an upload wants to know it: findings are named, and errors
/// fail. Of samples longer than `max_tokens`, if that is known, only those that are longer by every
/// estimate are errors.
///
/// # Errors
/// When they are not fit, or there is no verdict.
pub fn verify(paths: &[PathBuf], max_tokens: Option<u64>, session: &Session) -> Result<(), Failure> {
    let keep = Keep::First(NAMED);
    let options = check::Options { paths: paths.to_vec(), threads: threads(), keep, max_tokens };
    let report = check(&options, &*session.ui.watch_check(&session.signals));
    let report = report.map_err(|error| session.explain(error))?;
    session.ui.findings(&report);
    if report.is_passed() { Ok(()) } else { Err(unfit(&report)) }
}

/// The failure of a check that found errors.
pub fn unfit(report: &Report) -> Failure {
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
        (0, _) => "fix the lines named above; `--json` and `--verbose` name all of them",
        _ => "prepare the directory again: it is not what its manifest says",
    };
    Failure::new(Exit::Data, "check_failed", message, hint)
}
