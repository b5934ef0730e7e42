//! Prepared data to a job, a model and contexts. It decides, and never prints.
//!
//! - [`config`] resolves what the user wants: defaults, then the file, then flags.
//! - [`job`] takes a prepared directory to a finished job, once; [`sweep`] many of them within one cap.
//! - [`deploy`] runs a tuned model on an endpoint.
//! - [`report`] gathers what is known of prepared data, its jobs and its sweeps.
//! - [`preview`] shows samples as the model sees them.
//! - [`generate`] turns stories into contexts with a tuned model, asked as it was trained.

pub mod config;
pub mod deploy;
pub mod env;
pub mod failure;
pub mod finetune;
pub mod generate;
pub mod job;
pub mod preview;
pub mod report;
pub mod session;
pub mod shell;
pub mod signals;
pub mod slurm;
pub mod sweep;
pub mod text;
pub mod ui;
pub mod value;

pub use failure::{Exit, Failure};
pub use session::Session;
pub use session::environment::Environment;
pub use signals::Signals;
pub use ui::Ui;
