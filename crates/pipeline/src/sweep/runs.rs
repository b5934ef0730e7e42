//! What the runs of a sweep have in common.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::failure::Failure;
use crate::job::ledger::Account;
use crate::job::parameters::Files;
use crate::job::wandb::Chosen;
use crate::session::Session;
use crate::sweep::book::Trial;
use crate::sweep::make::JobTemplate;
use crate::sweep::{Assignment, Goal, Metric};
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_service::together::jobs::Estimate;
use ctxtune_service::wandb::Wandb;
use ctxtune_service::wandb::sweep::SweepIdentity;

/// Estimates by their body, each asked for once.
#[derive(Default)]
pub struct Estimates {
    pub known: Mutex<BTreeMap<String, Estimate>>,
}

pub struct Runs {
    pub out: PathBuf,
    pub account: Account,
    pub manifest: Manifest,
    pub template: JobTemplate,
    pub estimates: Estimates,
    pub name: Option<String>,
    /// Who chooses the values, if it is W&B.
    pub suggestions: Option<Suggestions>,
    pub train_file: String,
    pub val_file: Option<String>,
    /// The longest sequence that every one of them allows, in tokens.
    pub sequence_tokens: Option<u64>,
    pub metric: Metric,
    pub parallel: usize,
    /// What the whole sweep may cost, in dollars.
    pub cap: Option<f64>,
}

/// W&B as the one who chooses the values, and logs the runs.
pub struct Suggestions {
    pub wandb: Wandb,
    pub sweep: SweepIdentity,
    pub chosen: Chosen,
    pub count: usize,
}

impl Runs {
    /// Runs over this data, not yet uploaded.
    pub fn new(out: PathBuf, account: Account, manifest: Manifest, template: JobTemplate) -> Runs {
        Runs {
            out,
            account,
            manifest,
            template,
            estimates: Estimates::default(),
            name: None,
            suggestions: None,
            train_file: String::new(),
            val_file: None,
            sequence_tokens: None,
            metric: Metric { name: "val/loss".to_owned(), goal: Goal::Minimize },
            parallel: 1,
            cap: None,
        }
    }

    pub fn files(&self) -> Files<'_> {
        Files { train: &self.train_file, val: self.val_file.as_deref() }
    }

    /// The run that W&B suggests with these values, if the model allows it.
    pub fn suggested(&self, session: &Session, run: String, values: Assignment) -> Result<Trial, Failure> {
        let combination = self.template.make(session, &values, self.manifest.val.is_some())?;
        if let Some(refused) = combination.refused.first() {
            let hint = "cut the parameters of the sweep to the model's bounds";
            return Err(Failure::usage("over_limit", format!("W&B suggests {refused}"), hint));
        }
        let estimate = self.estimates.price(session, self, &combination)?.dollars;
        Ok(Trial { wandb_run_id: Some(run), estimate, ..Trial::new(values) })
    }
}
