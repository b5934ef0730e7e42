//! `ctxtune` turns a corpus of socialized-context JSONs into a fine-tuned model. This package is what a person types
//! and sees:
//!
//! - [`args`]: the command line as clap reads it.
//! - [`commands`]: one file a command; [`commands::run`] is the program.
//! - [`session`]: variables and clock, as workflows are given them.
//! - `screen`: how results are shown, and the terminal as a workflow's person.
//! - [`signals`]: what asks a run to stop.
//!
//! The work is done by the crates below `crates/`: `ctxtune-engine` (records to training lines), `ctxtune-service`
//! (requests), `ctxtune-pipeline` (prepared data to job and model) and `ctxtune-rehearsal` (a service on this
//! machine for trying and testing).

pub mod args;
pub mod commands;
mod screen;
pub mod session;
pub mod signals;
