//! How many tokens a job will train and evaluate on, and what they cost at the last known rate: said before the upload.
//!
//! Nothing is agreed to by it: the service's estimate follows.

use crate::job::parameters::Settled;
use crate::job::price::{Extent, dollars_text};
use crate::job::rates;
use crate::session::Session;
use crate::text::{counted, grouped};
use ctxtune_engine::check::Report;
use ctxtune_engine::check::counter::Method;
use ctxtune_engine::check::stats::Tokens;
use ctxtune_service::together::jobs::Limits;

/// What the checked data of `report` comes to in tokens, and in dollars at the last known rate.
pub(crate) fn told(
    report: &Report,
    settled: &Settled,
    extent: Extent,
    limits: &Limits,
    session: &Session,
) -> String {
    let (epochs, evals) = (settled.parameters.n_epochs, settled.n_evals);
    let mut tokens = Tokens::default();
    for file in &report.files {
        let name = report.path(file.path).file_name().unwrap_or_default();
        let times = if name.to_string_lossy().starts_with("val") { evals } else { epochs };
        tokens += Tokens { low: file.tokens.low * times, high: file.tokens.high * times };
    }
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
