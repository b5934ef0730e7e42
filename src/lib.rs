//! `ctxtune` turns a corpus of socialized-context JSONs into a fine-tuned model.
//!
//! [`cli`] is the terminal: arguments, progress, summaries, exit codes; [`mod@env`] names the variables that it
//! reads. The work is done by the crates below `crates/`: `ctxtune-engine` (records to training lines),
//! `ctxtune-service` (requests), `ctxtune-pipeline` (prepared data to job and model) and `ctxtune-rehearsal`
//! (a service on this machine for trying and testing).
//!
//! The program `ctxtune` is a thin shell around [`cli::run`].

pub mod cli;
pub mod env;
