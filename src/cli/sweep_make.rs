//! A sweep's values made parameters of a job, held against what their model allows.
//!
//! Separate from the runs, since values are checked before the start as well as when W&B suggests them.
//! The service is asked about each model once.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::cli::exit::{Exit, Failure};
use crate::cli::service::Service;
use crate::config::TuneChoices;
use crate::together::jobs::Limits;
use crate::tune::limits::{rows, settle};
use crate::tune::model;
use crate::tune::parameters::{Files, Parameters, Settled};
use crate::tune::sweep::Assignment;

/// One combination, ready to be sent unless it is refused.
pub struct Combination {
    /// Its parameters.
    pub settled: Settled,
    /// What its model allows.
    pub limits: Limits,
    /// What the model refuses, by key, value and bound.
    pub refused: Vec<String>,
}

/// What all runs of a sweep have in common.
pub struct Maker {
    choices: TuneChoices,
    file: TuneChoices,
    seed: u64,
    known: Mutex<Vec<(String, model::Chosen)>>,
}

impl Maker {
    /// Values over these flags, over what the file says; `seed` is that of the split.
    pub fn new(choices: TuneChoices, file: TuneChoices, seed: u64) -> Maker {
        Maker { choices, file, seed, known: Mutex::default() }
    }

    /// The parameters of a run with these values.
    ///
    /// # Errors
    /// When a key is no parameter of a job, or a value is not of its type.
    pub fn parameters(&self, values: &Assignment) -> Result<Parameters, Failure> {
        let chosen = TuneChoices::of_values(values).map_err(|reason| {
            let hint = "a sweep varies parameters of the job; data is prepared once";
            Failure::new(Exit::Usage, "sweep", reason, hint)
        })?;
        Ok(chosen.over(self.choices.clone()).resolve(self.file.clone(), self.seed))
    }

    /// What the jobs are asked to do where the sweep does not say: part of the sweep's identity.
    pub fn identity(&self) -> Value {
        let parameters = self.choices.clone().resolve(self.file.clone(), self.seed);
        let settled = settle(parameters, &Limits::read("", &Value::Null), true);
        settled.body(Files { train: "", val: None }, &settled.parameters.suffix.value)
    }

    /// The combination of these values.
    ///
    /// # Errors
    /// When they are no parameters, or the service does not tune their model.
    pub fn make(
        &self,
        service: &Service,
        values: &Assignment,
        has_val: bool,
    ) -> Result<Combination, Failure> {
        let mut parameters = self.parameters(values)?;
        let model = self.model(service, &mut parameters)?;
        let settled = settle(parameters, &model.limits, has_val);
        let refused = rows(&settled, &model.limits, has_val).into_iter().filter_map(|row| {
            let reason = row.refusal?;
            Some(format!("`{}` is {}: {reason}", row.key, row.value))
        });
        Ok(Combination { refused: refused.collect(), settled, limits: model.limits })
    }

    fn model(&self, service: &Service, parameters: &mut Parameters) -> Result<model::Chosen, Failure> {
        let name = match &parameters.from_checkpoint {
            Some(checkpoint) => checkpoint.value.clone(),
            None => parameters.base_model.value.clone(),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, model)) = known.iter().find(|(known, _)| *known == name) {
            if parameters.from_checkpoint.is_none() && model.replaced.is_some() {
                parameters.base_model.value.clone_from(&model.limits.model_name);
            }
            return Ok(model.clone());
        }
        let model = model::choose(&service.together, parameters).map_err(|error| service.explain(error))?;
        known.push((name, model.clone()));
        Ok(model)
    }
}
