//! Which model is tuned, and what it allows, asked before anything is uploaded.

use crate::job::limits::nearest;
use crate::job::parameters::{Parameters, SEED_MODEL};
use ctxtune_service::together::jobs::{self, Limits};
use ctxtune_service::together::{self, Job, Together};

/// What a base model ends in that can be tuned but not deployed at the service.
pub const REFERENCE: &str = "-Reference";

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Api(#[from] together::Error),
    #[error("the service does not tune `{model}`")]
    Unknown {
        model: String,
        /// Names that look like it and can be tuned, nearest first.
        nearest: Vec<String>,
    },
}

#[derive(Debug, Clone)]
pub struct Chosen {
    pub limits: Limits,
    /// The name that was asked for, where another stands for it.
    pub replaced: Option<String>,
}

impl Chosen {
    /// Whether what is tuned can only be downloaded: such a base cannot be deployed at the service.
    pub fn is_download_only(&self, parameters: &Parameters) -> bool {
        parameters.from_checkpoint.is_none() && parameters.base_model.ends_with(REFERENCE)
    }
}

/// Whether `job` gives an adapter and nothing merged, by what it shows, else by its model's limits.
pub fn gives_adapter_only(together: &Together, job: &Job) -> bool {
    if job.trains_all_weights() || job.model_object_id().is_some() {
        return false;
    }
    // Limits that cannot be had leave it to what the job shows.
    let limits = job.model().and_then(|model| jobs::limits(together, &model).ok().flatten());
    let merges = limits.and_then(|limits| limits.merges_lora);
    merges.map_or_else(|| job.has_adapter_only(), |merges| !merges)
}

/// Asks for the limits of the model in `parameters`. The seed's default model, which can no longer be
/// tuned under its name, becomes its `-Reference` twin; any other name stands as it is.
pub fn choose(together: &Together, parameters: &mut Parameters) -> Result<Chosen, ModelError> {
    if let Some(checkpoint) = &parameters.from_checkpoint {
        let model = checkpoint.split(':').next().unwrap_or_default();
        return match jobs::limits(together, model)? {
            Some(limits) => Ok(Chosen { limits, replaced: None }),
            None => Err(ModelError::Unknown { model: model.to_owned(), nearest: Vec::new() }),
        };
    }
    let model = parameters.base_model.clone();
    if let Some(limits) = jobs::limits(together, &model)? {
        return Ok(Chosen { limits, replaced: None });
    }
    if model == SEED_MODEL {
        let twin = format!("{model}{REFERENCE}");
        if let Some(limits) = jobs::limits(together, &twin)? {
            parameters.base_model = twin;
            return Ok(Chosen { limits, replaced: Some(model) });
        }
    }
    let nearest = nearest(&model, &jobs::supported(together)?);
    Err(ModelError::Unknown { model, nearest })
}
