//! Commands about jobs, and all that a job needs or leaves at the service.

pub(crate) mod agent;
pub(crate) mod cancel;
pub(crate) mod checkpoints;
pub(crate) mod download;
pub(crate) mod dry_run;
pub(crate) mod estimates;
pub(crate) mod files;
pub(crate) mod finetune;
pub(crate) mod jobs;
pub(crate) mod mismatch;
pub(crate) mod monitor;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod sweep;
pub(crate) mod sweep_make;
pub(crate) mod sweep_price;
pub(crate) mod sweep_run;
pub(crate) mod sweep_table;
pub(crate) mod upload;
pub(crate) mod using;
pub(crate) mod wandb;
pub(crate) mod wandb_run;
pub(crate) mod wandb_sync;
