//! Commands about jobs, and all that a job needs or leaves at the service.

pub(crate) mod cancel;
pub(crate) mod checkpoints;
pub(crate) mod download;
pub(crate) mod files;
pub(crate) mod finetune;
pub(crate) mod jobs;
pub(crate) mod monitor;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod sweep;
pub(crate) mod sweep_table;
pub(crate) mod upload;
pub(crate) mod using;
pub(crate) mod wandb_sync;
