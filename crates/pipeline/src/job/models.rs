//! What the service tunes, what of that it can also deploy, and what both allow.
//!
//! Whether a base can be deployed is told by its name (`-Reference` cannot), its limits (a job may give an adapter alone)
//! and the service's list of models for dedicated endpoints. Where that list cannot be had, the first two decide.

use std::sync::Mutex;

use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::job::limits::nearest;
use crate::job::model::{ModelError, REFERENCE};
use crate::job::rates::{self, Rate};
use crate::session::Session;
use ctxtune_service::together;
use ctxtune_service::together::hardware::hosted;
use ctxtune_service::together::jobs::{self, BatchLimits, Limits};

/// Models asked about at the same time.
const REQUESTS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deployment {
    Yes,
    /// A job gives an adapter and no merged weights: it is downloaded and served elsewhere.
    Adapter,
    No,
}

impl Deployment {
    /// `hosted` are the names of the models that the service deploys, where they are known.
    fn of(limits: &Limits, hosted: Option<&[String]>) -> Deployment {
        let name = &limits.model_name;
        let is_unlisted = hosted.is_some_and(|hosted| !hosted.contains(name));
        match limits.merges_lora {
            _ if name.ends_with(REFERENCE) || is_unlisted => Deployment::No,
            Some(false) => Deployment::Adapter,
            _ => Deployment::Yes,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Deployment::Yes => "yes",
            Deployment::Adapter => "adapter",
            Deployment::No => "no",
        }
    }
}

/// A model that can be tuned. What is `null` the service does not tell.
#[derive(Debug, Clone, Serialize)]
pub struct TunableModel {
    /// Its name, for `--base-model`.
    pub name: String,
    /// Whether what is tuned can be deployed: `yes`, `adapter` (a job gives an adapter only) or `no`.
    pub deploy: &'static str,
    /// Whether adapters can be trained.
    pub lora: bool,
    /// Whether all weights can be trained.
    pub full: bool,
    /// The most epochs.
    pub max_epochs: Option<u64>,
    /// The highest LoRA rank.
    pub max_lora_rank: Option<u64>,
    /// The smallest batch.
    pub min_batch_size: Option<u64>,
    /// The largest batch.
    pub max_batch_size: Option<u64>,
    /// The longest sequence in tokens.
    pub max_seq_length: Option<u64>,
    /// The lowest learning rate.
    pub min_learning_rate: Option<f64>,
    /// The highest learning rate.
    pub max_learning_rate: Option<f64>,
    /// Dollars for a million tokens by the last estimate on this machine.
    pub dollars_per_million_tokens: Option<f64>,
    /// When that was estimated (RFC 3339).
    pub rate_seen_at: Option<String>,
    /// All that the service says.
    pub limits: Value,
}

impl TunableModel {
    fn of(limits: Limits, hosted: Option<&[String]>, rate: Option<&Rate>) -> TunableModel {
        let batch = limits.lora.as_ref().or(limits.full.as_ref());
        let of_batch = |of: fn(&BatchLimits) -> Option<u64>| batch.and_then(of);
        TunableModel {
            deploy: Deployment::of(&limits, hosted).as_str(),
            lora: limits.lora.is_some(),
            full: limits.full.is_some() || limits.supports_full_training == Some(true),
            max_epochs: limits.max_num_epochs,
            max_lora_rank: limits.lora.and_then(|lora| lora.max_rank),
            min_batch_size: of_batch(|batch| batch.min_batch_size),
            max_batch_size: of_batch(|batch| batch.max_batch_size),
            max_seq_length: limits.max_seq_length,
            min_learning_rate: limits.min_learning_rate,
            max_learning_rate: limits.max_learning_rate,
            dollars_per_million_tokens: rate.map(|rate| rate.dollars_per_million_tokens),
            rate_seen_at: rate.map(|rate| rate.seen_at.clone()),
            name: limits.model_name,
            limits: limits.object,
        }
    }
}

/// The models whose name contains `name`, whatever its case: those first that can be tuned and deployed, then
/// by name. A whole name is that model alone. Fails when there is none, or the service cannot be asked.
pub fn models(session: &Session, name: Option<&str>) -> Result<Vec<TunableModel>, Failure> {
    let explain = |error: together::Error| session.explain(error);
    let supported = jobs::supported(&session.together).map_err(explain)?;
    let lower = name.unwrap_or_default().to_ascii_lowercase();
    let mut chosen: Vec<&String> =
        supported.iter().filter(|known| known.to_ascii_lowercase().contains(&lower)).collect();
    if let Some(only) = supported.iter().find(|known| known.to_ascii_lowercase() == lower) {
        chosen = vec![only];
    }
    if let (true, Some(name)) = (chosen.is_empty(), name) {
        let error = ModelError::Unknown { model: name.to_owned(), nearest: nearest(name, &supported) };
        return Err(session.explain(error));
    }
    let mut limits = limits_of(session, &chosen).map_err(explain)?;
    let hosted = hosted(&session.together);
    if let Err(error) = &hosted {
        session
            .ui
            .warn(&format!("the models that can be deployed are not known, only those that cannot: {error}"));
    }
    let hosted = hosted.ok();
    let order = |limits: &Limits| (Deployment::of(limits, hosted.as_deref()), limits.model_name.clone());
    limits.sort_by_cached_key(order);
    let rates = rates::known(session);
    let of = |limits: Limits| {
        let rate = rates::last(&rates, &limits.model_name);
        TunableModel::of(limits, hosted.as_deref(), rate)
    };
    Ok(limits.into_iter().map(of).collect())
}

/// The limits of `models`, several asked for at the same time. One that is listed and cannot be tuned is left out.
fn limits_of(session: &Session, models: &[&String]) -> Result<Vec<Limits>, together::Error> {
    let rest = Mutex::new(models.iter());
    let next = || rest.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let ask = || {
        let mut known = Vec::new();
        while let Some(model) = next() {
            known.extend(jobs::limits(&session.together, model)?);
        }
        Ok(known)
    };
    let answers: Vec<Result<Vec<Limits>, together::Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..REQUESTS.min(models.len())).map(|_| scope.spawn(ask)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut all = Vec::new();
    for answer in answers {
        all.extend(answer?);
    }
    Ok(all)
}
