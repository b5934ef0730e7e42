//! Submission: a prepared directory becomes a job at the service, once, and is watched to its end.
//!
//! In the order of a run: [`model`] asks what the model allows, [`limits`] holds the
//! [`parameters`] against it, `upload` brings the files there, [`price`] says what it will
//! cost, [`create`] creates the job or finds it, [`monitor`] watches it. [`ledger`] is what keeps
//! all of that from happening twice. Nothing here talks to people: a `Ui` does.

pub mod cost;
pub mod create;
pub mod data;
pub mod dry_run;
pub mod estimates;
pub mod expected;
pub(crate) mod journal;
pub mod ledger;
pub mod limits;
pub mod logging;
pub mod mismatch;
pub mod model;
pub mod models;
pub mod monitor;
pub(crate) mod pace;
pub mod parameters;
pub mod plan;
pub mod price;
pub mod progress;
pub mod rates;
pub(crate) mod run_config;
pub mod seen;
pub mod submit;
pub(crate) mod tag;
pub mod tokens;
pub(crate) mod upload;
pub mod uploads;
pub mod wandb;
pub mod wandb_run;
pub mod watch;
