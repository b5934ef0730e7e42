//! Preparing and checking data as steps of something larger.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::PrepareChoices;
use crate::failure::Failure;
use crate::job::mismatch::Mismatch;
use crate::job::tokens::counter;
use crate::session::Session;
use crate::shell;
use crate::signals::Signals;
use crate::text::{counted, grouped};
use crate::ui::Ui;
use ctxtune_engine::check::code::{Level, Stage};
use ctxtune_engine::check::conversation::Format;
use ctxtune_engine::check::counter::Counter;
use ctxtune_engine::check::finding::Keep;
use ctxtune_engine::check::{self, FileReport, Report, check};
use ctxtune_engine::output::manifest::{self, Side};
use ctxtune_engine::prepare::{GivenFiles, Mode, Options, Published, Purpose, prepare};

/// How many findings of each code, or rejects, are named unless all are asked for.
pub const NAMED: usize = 5;

pub fn threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

pub(crate) fn prepare_corpus(choices: PrepareChoices, session: &Session) -> Result<Options, Failure> {
    let purpose = Purpose { mode: Mode::Publish, show: 0, name_rejects: NAMED };
    let options = choices.resolve(purpose, threads())?;
    if options.is_stored() {
        let message = "a source or the output is in a bucket, and jobs begin with files of this machine";
        let hint = "prepare it first with `ctxtune prepare`, then copy the result: `aws s3 sync OUT DIR`";
        return Err(Failure::usage("no_file", message, hint));
    }
    let start = session.clock.elapsed();
    let prepared = prepare(&options, &*session.ui.watch_prepare());
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

/// Checks `files` and takes them as they are, in the place of a preparation.
pub fn take_files(files: &GivenFiles, ui: &dyn Ui, signals: &Signals) -> Result<(), Failure> {
    refuse_own(files)?;
    let options = check::Options {
        paths: std::iter::once(&files.train).chain(&files.val).cloned().collect(),
        threads: threads(),
        keep: Keep::First(NAMED),
        max_tokens: None,
        counter: None,
    };
    let report = verified(&options, ui, signals)?;
    let is_chat = |file: &FileReport| file.formats[Format::Messages as usize] == file.samples;
    if let Some(file) = report.files.iter().find(|file| !is_chat(file)) {
        let message = format!("`{}` does not hold chat lines", report.path(file.path).display());
        let hint = "each line needs `messages`; other formats are not converted";
        return Err(Failure::data("not_chat", message, hint));
    }
    let taken = files.take(&*ui.watch_prepare());
    let (manifest, published) = taken.map_err(|error| signals.explain(error))?;
    let lines = |side: &Side| counted(side.records, "line");
    let val = manifest.val.as_ref().map(|val| format!(" + {} to validate", lines(val)));
    let verb = if published == Published::New { "taken" } else { "unchanged" };
    let out = files.output_dir.display();
    ui.label(
        verb,
        &format!("{out}: {} to train{}, as they are", lines(&manifest.train), val.unwrap_or_default()),
    );
    if let Some(mismatch) = Mismatch::of_newest(&files.output_dir, &manifest) {
        mismatch.warn(ui);
    }
    Ok(())
}

/// A file of the directory to which it would be taken: its other side would be lost.
fn refuse_own(files: &GivenFiles) -> Result<(), Failure> {
    let out = files.output_dir.canonicalize().ok();
    let is_own = |path: &&PathBuf| {
        out.is_some() && path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned)) == out
    };
    let Some(own) = std::iter::once(&files.train).chain(&files.val).find(is_own) else { return Ok(()) };
    let out = &files.output_dir;
    let message = format!("`{}` lies in the output directory `{}` itself", own.display(), out.display());
    let hint = match out.join(manifest::FILE_NAME).exists() {
        true => format!("what is prepared is submitted with: ctxtune submit {}", shell::path(out)),
        false => "choose another --output-dir".to_owned(),
    };
    Err(Failure::usage("output_is_source", message, &hint))
}

/// Whether `paths` are fit for training, as an upload wants to know it: findings are named, and errors
/// fail. Tokens are counted for `model`, if that is known. Of samples longer than `max_tokens`, only those
/// that certainly are, or by every estimate, are errors.
pub fn verify(
    paths: &[PathBuf],
    model: Option<&str>,
    max_tokens: Option<u64>,
    session: &Session,
) -> Result<Report, Failure> {
    let counter = match model {
        Some(model) => counter(session.tokenizer.as_deref(), model, &session.environment)?,
        None => None,
    };
    let options = check::Options {
        paths: paths.to_vec(),
        threads: threads(),
        keep: Keep::First(NAMED),
        max_tokens,
        counter: counter.map(|counter| Arc::new(counter) as Arc<dyn Counter>),
    };
    verified(&options, &*session.ui, &session.signals)
}

fn verified(options: &check::Options, ui: &dyn Ui, signals: &Signals) -> Result<Report, Failure> {
    let report = check(options, &*ui.watch_check());
    let report = report.map_err(|error| signals.explain(error))?;
    ui.findings(&report);
    if report.is_passed() { Ok(report) } else { Err(unfit(&report)) }
}

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
    Failure::data("check_failed", message, hint)
}
