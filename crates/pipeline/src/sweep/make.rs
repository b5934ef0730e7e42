//! A sweep's values made parameters of a job, held against what their model allows.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::config::TuneChoices;
use crate::failure::Failure;
use crate::job::limits::{Row, rows, settle};
use crate::job::model;
use crate::job::parameters::{Files, Parameters, Settled};
use crate::job::tag::Identity;
use crate::session::Session;
use crate::sweep::Assignment;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_service::together::jobs::Limits;

/// One combination, ready to be sent unless it is refused.
pub struct Combination {
    pub settled: Settled,
    pub limits: Limits,
    /// What the model refuses, by key, value and bound.
    pub refused: Vec<String>,
    /// What makes it the same job as another combination, where this program chooses the values.
    pub key: String,
}

/// What makes a job with these parameters the same job as another one over the same data.
fn key(settled: &Settled, has_val: bool) -> String {
    let val_sha256 = has_val.then(String::new);
    let (project, train_sha256) = (String::new(), String::new());
    Identity { project, train_sha256, val_sha256, settled: settled.clone(), wandb_run_id: None }.text(1)
}

pub struct JobTemplate {
    choices: TuneChoices,
    file: TuneChoices,
    seed: u64,
    known: Mutex<Vec<(String, model::Chosen)>>,
}

impl JobTemplate {
    /// Values over these flags, over what the file says; `seed` is that of the split.
    pub fn new(choices: TuneChoices, file: TuneChoices, seed: u64) -> JobTemplate {
        JobTemplate { choices, file, seed, known: Mutex::default() }
    }

    pub fn parameters(&self, values: &Assignment) -> Result<Parameters, Failure> {
        let chosen = TuneChoices::of_values(values).map_err(|reason| {
            let hint = "a sweep varies parameters of the job; data is prepared once";
            Failure::usage("sweep", reason, hint)
        })?;
        Ok(chosen.over(self.choices.clone()).resolve(self.file.clone(), self.seed))
    }

    /// The values without those that ask for the same job as earlier ones, as far as that can be told without
    /// the service.
    pub fn distinct(&self, values: Vec<Assignment>) -> Result<Vec<Assignment>, Failure> {
        let mut keys = BTreeSet::new();
        let mut kept = Vec::new();
        for values in values {
            let settled = settle(self.parameters(&values)?, &Limits::read("", &Value::Null), true);
            if keys.insert(key(&settled, true)) {
                kept.push(values);
            }
        }
        Ok(kept)
    }

    /// How many different estimates these combinations have, as far as that can be told without the service.
    pub fn estimates(&self, combinations: &[Assignment]) -> Result<usize, Failure> {
        let mut bodies = BTreeSet::new();
        for values in combinations {
            let settled = settle(self.parameters(values)?, &Limits::read("", &Value::Null), true);
            bodies.insert(settled.estimate_body(Files { train: "", val: None }).to_string());
        }
        Ok(bodies.len())
    }

    /// What the jobs are asked to do where the sweep does not say, and over which data: part of the sweep's
    /// identity, the same in every release.
    pub fn identity(&self, manifest: &Manifest) -> String {
        let parameters = self.choices.clone().resolve(self.file.clone(), self.seed);
        let val_sha256 = manifest.val.as_ref().map(|val| val.content().1.to_owned());
        let identity = Identity {
            project: String::new(),
            train_sha256: manifest.train.content().1.to_owned(),
            settled: settle(parameters, &Limits::read("", &Value::Null), val_sha256.is_some()),
            val_sha256,
            wandb_run_id: None,
        };
        identity.text(1)
    }

    pub fn make(
        &self,
        session: &Session,
        values: &Assignment,
        has_val: bool,
    ) -> Result<Combination, Failure> {
        let mut parameters = self.parameters(values)?;
        let model = self.model(session, &mut parameters)?;
        let settled = settle(parameters, &model.limits, has_val);
        let rows = rows(&settled, &model.limits, has_val);
        let refused = rows.iter().filter_map(Row::refused).collect();
        Ok(Combination { refused, key: key(&settled, has_val), settled, limits: model.limits })
    }

    fn model(&self, session: &Session, parameters: &mut Parameters) -> Result<model::Chosen, Failure> {
        let name = match &parameters.from_checkpoint {
            Some(checkpoint) => checkpoint.clone(),
            None => parameters.base_model.clone(),
        };
        // The mutex is not held while the service is asked.
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let model = known().iter().find(|(known, _)| *known == name).map(|(_, model)| model.clone());
        if let Some(model) = model {
            if parameters.from_checkpoint.is_none() && model.replaced.is_some() {
                parameters.base_model.clone_from(&model.limits.model_name);
            }
            return Ok(model);
        }
        let model = model::choose(&session.together, parameters).map_err(|error| session.explain(error))?;
        known().push((name, model.clone()));
        Ok(model)
    }
}
