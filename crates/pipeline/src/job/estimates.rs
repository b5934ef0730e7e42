//! What jobs were estimated at, from the ledgers and the journal of this machine; and what one comes to before its
//! upload, at the last known rate.
//!
//! For showing costs only. What cannot be read is not known: nobody pays by it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::config::DEFAULT_OUTPUT_DIR;
use crate::job::cost::note_estimate;
use crate::job::ledger::Run;
use crate::job::parameters::Settled;
use crate::job::price::{Extent, dollars_text};
use crate::job::{journal, rates};
use crate::session::Session;
use crate::text::{counted, grouped};
use crate::ui::Ui;
use ctxtune_engine::check::Report;
use ctxtune_engine::check::counter::Method;
use ctxtune_engine::check::stats::Tokens;
use ctxtune_engine::output::manifest::{Manifest, Shard};
use ctxtune_service::together::jobs::Limits;
use ctxtune_service::together::{Job, JobId};

/// Estimates in dollars, by job: those of the journal, of the directories it names, of `out`, and of the default
/// output directory.
pub fn known(session: &Session, out: Option<&Path>) -> BTreeMap<JobId, f64> {
    let journal = session.environment.journal();
    let started = journal.and_then(|path| journal::all(&path).ok()).unwrap_or_default();
    let mut dirs: BTreeSet<PathBuf> =
        started.iter().map(|started| started.output_dir.clone().into()).collect();
    dirs.extend(out.map(Path::to_owned));
    dirs.insert(DEFAULT_OUTPUT_DIR.into());
    let of_journal =
        started.into_iter().filter_map(|started| Some((started.job, started.estimated_dollars?)));
    let mut estimates: BTreeMap<JobId, f64> = of_journal.collect();
    let runs = dirs.iter().flat_map(|dir| Run::read_all(dir).unwrap_or_default());
    estimates.extend(runs.filter_map(|run| Some((run.job?, run.estimated_dollars?))));
    estimates
}

/// Writes down in `out` what `job` was estimated at, and the longest sequence of its model in tokens; that this fails is said and changes nothing.
pub fn note(out: &Path, job: &JobId, dollars: Option<f64>, sequence_tokens: Option<u64>, ui: &dyn Ui) {
    if let Err(error) = note_estimate(out, job, dollars, sequence_tokens) {
        ui.warn(&format!("the estimate of {job} is not kept: {error}"));
    }
}

/// What `job` was billed, or has cost so far, and what it was estimated at.
pub fn billed_and_estimated(job: &Job, estimated: Option<f64>) -> String {
    let is_over = job.status.ending().is_some();
    let price = match (job.price(), is_over) {
        (Some(price), true) => format!("billed {}", dollars_text(price)),
        (Some(price), false) => format!("{} so far", dollars_text(price)),
        (None, true) => "what was billed is not known yet".to_owned(),
        (None, false) => "what it has cost so far is not known".to_owned(),
    };
    match estimated {
        Some(estimated) => format!("{price}, estimated {}", dollars_text(estimated)),
        None => format!("{price}; no estimate is known on this machine"),
    }
}

/// What the checked data of `report` comes to in tokens, and in dollars at the last known rate.
pub(crate) fn forecast(
    report: &Report,
    manifest: &Manifest,
    settled: &Settled,
    limits: &Limits,
    session: &Session,
) -> String {
    let (epochs, evals) = (settled.parameters.n_epochs, settled.n_evals);
    let mut tokens = Tokens::default();
    for file in &report.files {
        let is_it = |shard: &Shard| report.path(file.path).ends_with(&shard.file);
        let is_val = manifest.val.as_ref().is_some_and(|val| val.shards.iter().any(is_it));
        let times = if is_val { evals } else { epochs };
        tokens += Tokens { low: file.tokens.low * times, high: file.tokens.high * times };
    }
    let extent = Extent::of(manifest, settled, limits);
    let whole = extent.max_seq_length.filter(|_| !settled.parameters.packing);
    if let Some(length) = whole {
        let all = (extent.train_samples * epochs + extent.val_samples * evals) * length;
        tokens = Tokens { low: all, high: all };
    }
    let number = match report.method {
        _ if whole.is_some() => {
            format!("{} tokens in whole sequences (packing is off)", grouped(tokens.high))
        }
        Method::Exact => format!("{} tokens", grouped(tokens.high)),
        Method::AtMost => format!("at most {} tokens", grouped(tokens.high)),
        Method::About => format!("about {} to {} tokens", grouped(tokens.low), grouped(tokens.high)),
    };
    let times = format!("{} and {}", counted(epochs, "epoch"), counted(evals, "evaluation"));
    let number = format!("{number} over {times}");
    match rates::of(&rates::known(session), &limits.model_name, settled.parameters.lora) {
        Some(rate) => format!(
            "{number}: about {} at the rate seen on {}",
            dollars_text(rate.dollars_per_million_tokens * tokens.high as f64 / 1e6),
            rate.day(),
        ),
        None => number,
    }
}
