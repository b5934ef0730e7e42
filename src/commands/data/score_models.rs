//! `ctxtune score --models A,B --val OUT`: two models asked about the same validation records.
//!
//! Separate from the scoring, which knows no network: what is asked here ends as files, a directory a
//! model, and they are scored as any others are. The prompts are those of the validation lines, and answers
//! are drawn at temperature 0 with a fixed seed, so that the models are all that differs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::args::ScoreArgs;
use crate::screen::report::Terminal;
use crate::session::runtime;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_engine::output::prepared::{PreparedError, Validation};
use ctxtune_engine::source::DEFAULT_SPOOL_BYTES;
use ctxtune_pipeline::generate::batch::{AnswerDir, Batch, BatchReport, StopOnly, agree};
use ctxtune_pipeline::generate::budget::Budget;
use ctxtune_pipeline::generate::many::{End, Retry};
use ctxtune_pipeline::generate::question::Questions;
use ctxtune_pipeline::generate::setup::{Choice, Sampling, Setup, budget, server};
use ctxtune_pipeline::job::mismatch::Mismatch;
use ctxtune_pipeline::text::printable;
use ctxtune_pipeline::{Environment, Failure};

const GENERATED: &str = "generated";
const SEED: u64 = 42;

#[derive(Debug, Default)]
pub struct Answered {
    pub models: Vec<String>,
    pub directories: Vec<PathBuf>,
    /// What became of the stories of each that was asked.
    pub asked: Vec<BatchReport>,
    /// Where the last one's context of the first record is, if it has one.
    pub example: Option<PathBuf>,
    pub mismatch: Option<Mismatch>,
}

/// Asks every model about what it has not answered yet. What was asked is in `answered`, also where it fails.
/// Fails when nobody agrees, a model cannot be asked, or a cap or a signal leaves questions open.
pub fn ask(
    (args, val): (&ScoreArgs, &Path),
    environment: &Environment,
    answered: &mut Answered,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let budget = budget(&args.asking)?;
    let setups = setups((args, val), environment, &budget, terminal)?;
    let [first, ..] = setups.as_slice() else { return Ok(()) };
    answered.mismatch = mismatch(&setups);
    if let Some(mismatch) = &answered.mismatch {
        if !args.allow_mismatch {
            return Err(mismatch.refusal());
        }
        mismatch.warn(terminal);
    }
    let questions = questions((args, val), first)?;
    let room = args.output_dir.clone().unwrap_or_else(|| val.join(GENERATED));
    answered.models = setups.iter().map(|setup| setup.target.model.clone()).collect();
    answered.directories = answered.models.iter().map(|model| room.join(directory_name(model))).collect();
    let place = answered.directories.last().and_then(|dir| questions.place(dir, 0).ok());
    answered.example = place.map(|place| place.valid);
    let retry = if args.retry_invalid { Retry::Invalid } else { Retry::Nothing };
    let mut batches = Vec::new();
    first.warn_if_in_clear();
    for (setup, dir) in setups.iter().zip(&answered.directories) {
        setup.say();
        batches.push(Batch::open(setup, &questions, AnswerDir::open(dir)?, retry)?);
    }
    agree(&batches.iter().collect::<Vec<_>>(), &args.asking)?;
    let mut has_asked = false;
    let mut failure = None;
    for (batch, model) in batches.iter().zip(&answered.models) {
        if batch.is_open() {
            terminal.label("asking", &printable(model));
        }
        let (ran, end) = batch.run(&args.asking);
        batch.sum_up(&ran);
        answered.asked.push(batch.report(&ran));
        has_asked |= ran.tally.effort.requests > 0 && matches!(end, End::Done | End::OverBudget);
        failure = batch.cut_short(&ran, end);
        if failure.is_some() {
            break;
        }
    }
    if has_asked {
        first.target.say_running(&first.session);
    }
    failure.map_or(Ok(()), Err)
}

fn setups(
    (args, val): (&ScoreArgs, &Path),
    environment: &Environment,
    budget: &Arc<Budget>,
    terminal: &Terminal,
) -> Result<Vec<Setup>, Failure> {
    let usage = |message: String, hint: &str| Failure::usage("usage", message, hint);
    if args.models.len() > 2 {
        let message = format!("--models names {} models, and two can be compared", args.models.len());
        return Err(usage(message, "score them in pairs: what was answered once is not asked again"));
    }
    let base_url = &args.asking.base_url;
    let mut setups: Vec<Setup> = Vec::new();
    for model in &args.models {
        let session = server(&args.asking, runtime(environment.clone(), terminal))?;
        let choice =
            Choice { model: Some(model), out: Some(val), template: None, base_url: base_url.as_deref() };
        let sampling = Sampling { temperature: 0.0, top_p: None, seed: Some(SEED) };
        let setup = Setup::new(session, &choice, &args.asking, sampling, budget)?;
        let name = directory_name(&setup.target.model);
        if let Some(other) = setups.iter().find(|other| directory_name(&other.target.model) == name) {
            if other.target.model == setup.target.model {
                let message = format!("--models names `{name}` twice", name = other.target.model);
                return Err(usage(message, "name two different models, or one"));
            }
            let message = format!("`{}` and `{model}` would have one directory, {name}", other.target.model);
            return Err(usage(message, "name two different models"));
        }
        setups.push(setup);
    }
    Ok(setups)
}

/// The mismatch of a model whose job is known; where none is, that of the newest job.
fn mismatch(setups: &[Setup]) -> Option<Mismatch> {
    let is_known = |setup: &&Setup| setup.target.run.is_some();
    let is_any_known = setups.iter().any(|setup| is_known(&setup));
    let meant = setups.iter().filter(|setup| !is_any_known || is_known(setup));
    meant.filter_map(|setup| setup.mismatch.clone()).next()
}

fn questions((args, val): (&ScoreArgs, &Path), setup: &Setup) -> Result<Questions, Failure> {
    let manifest = Manifest::read(val)?;
    let stop = StopOnly(setup.session.clock.as_ref());
    let limit = args.limit.map(std::num::NonZeroUsize::get);
    let listed = Validation::list((val, &manifest), limit, DEFAULT_SPOOL_BYTES, &stop);
    listed.map(Questions::of_validation).map_err(|error| match error {
        PreparedError::Records(ctxtune_engine::prepare::Error::Interrupted) => {
            setup.session.explain(ctxtune_service::clock::Stopped)
        }
        error => error.into(),
    })
}

/// The name of a model's directory: `/` becomes `--`, as in the caches of Hugging Face, and what a file
/// name should not hold becomes `_`.
fn directory_name(model: &str) -> String {
    let plain = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => character,
        _ => '_',
    };
    let name: String = model.replace('/', "--").chars().map(plain).collect();
    // `.` and `..` are directories of their own, and names with a point in front are not listed.
    if name.starts_with('.') { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_directory_can_stand_anywhere() {
        let check = |model: &str, expected: &str| assert_eq!(directory_name(model), expected, "{model}");
        check("Qwen/Qwen3-8B", "Qwen--Qwen3-8B");
        check("me/base:suffix:ft-1", "me--base_suffix_ft-1");
        check("../x", "_..--x");
        check("..", "_..");
        check("modèle", "mod_le");
    }
}
