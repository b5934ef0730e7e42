//! Prepared data to a job, a model and contexts. It decides, and never prints.
//!
//! - [`config`] resolves what the user wants: defaults, then the file, then flags.
//! - [`tune`] takes a prepared directory to a finished job.
//! - [`generate`] turns stories into contexts with a tuned model, asked as it was trained.

pub mod config;
pub mod generate;
pub mod tune;
