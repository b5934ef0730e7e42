//! `ctxtune` turns a corpus of socialized-context JSONs into a fine-tuned model.
//!
//! The tour, in the order in which data flows:
//!
//! - [`prepare`] is the engine: a directory of records becomes train and validation JSONL.
//! - [`manifest`] is what it leaves, the one document that later steps believe.
//! - [`check`] says whether a JSONL file is fit for training, before anybody pays for it.
//! - [`score`] compares generated contexts with reference ones.
//! - [`config`] resolves what the user wants: defaults, then the file, then flags; [`mod@env`] names the variables.
//! - [`cli`] is the terminal: arguments, progress, summaries, exit codes.
//! - [`http`] sends requests, with timeouts and one retry loop.
//! - [`together`] is the API of the service that trains.
//! - [`tune`] takes a prepared directory to a finished job.
//! - [`wandb`] logs what a job shows to Weights & Biases.
//! - [`generate`] turns stories into contexts with a tuned model, asked as it was trained.
//! - [`clock`] is time as it is passed in: only `cli` reads a real one.
//! - [`rehearsal`] is a loopback server that speaks the API, for trying everything without an account.
//! - [`lock`] lets one run at a time into an output directory.
//! - [`answer_file`] names the files of answers, by the records they answer.
//! - [`json`] holds the escapes that all of them share; [`special_token`] the rule for `<|name|>`;
//!   [`python_json`] what Python's `json` reads beyond JSON.
//!
//! The program `ctxtune` is a thin shell around [`cli::run`].

pub mod answer_file;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod env;
pub mod generate;
pub mod http;
pub mod json;
pub mod lock;
pub mod manifest;
mod mask;
pub mod prepare;
pub mod python_json;
pub mod rehearsal;
pub mod score;
pub mod special_token;
pub mod together;
pub mod tune;
pub mod wandb;
pub mod yaml;
