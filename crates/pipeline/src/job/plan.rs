//! What a submission is about to do, as it is shown before anything is uploaded, and refused where a value is over a
//! limit of the model.

use std::path::Path;

use crate::failure::Failure;
use crate::job::cost::Beside;
use crate::job::expected::Expected;
use crate::job::ledger::Account;
use crate::job::limits::Row;
use crate::job::model::Chosen;
use crate::job::parameters::Settled;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_service::together::Job;
use ctxtune_service::together::jobs::Limits;

pub struct Plan<'p> {
    pub out: &'p Path,
    pub manifest: &'p Manifest,
    pub account: &'p Account,
    pub chosen: &'p Chosen,
    pub settled: &'p Settled,
    pub rows: &'p [Row],
    pub running: &'p [Beside],
    pub jobs: &'p [Job],
}

impl Plan<'_> {
    pub fn expected(&self, train_tokens: Option<u64>) -> Expected {
        Expected::of(self.jobs, &self.chosen.limits.model_name, train_tokens)
    }
}

pub fn refuse(rows: &[Row], limits: &Limits) -> Result<(), Failure> {
    let refused =
        rows.iter().filter_map(|row| Some(format!("{} (chosen by {})", row.refused()?, row.origin)));
    let refused: Vec<String> = refused.collect();
    if refused.is_empty() {
        return Ok(());
    }
    let message = format!("cannot be sent for {}: {}", limits.model_name, refused.join("; "));
    Err(Failure::usage(
        "over_limit",
        message,
        "set them within their bounds, as flags or in the configuration file; nothing was uploaded",
    ))
}
