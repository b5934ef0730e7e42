//! Commands about jobs, and all that a job needs or leaves at the service.

pub mod agent;
pub mod cancel;
pub mod checkpoints;
pub mod download;
pub mod dry_run;
pub mod estimates;
pub mod files;
pub mod finetune;
pub mod jobs;
pub mod mismatch;
pub mod monitor;
pub mod status;
pub mod submit;
pub mod sweep;
pub mod sweep_make;
pub mod sweep_price;
pub mod sweep_run;
pub mod upload;
pub mod wandb;
pub mod wandb_run;
pub mod wandb_sync;
