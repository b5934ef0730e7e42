//! Integration tests: the program as a user runs it, one binary, one topic a file.
//!
//! What needs `../shared/data`, Python packages or tools that may be absent says that it
//! skips, and passes.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says when it skips"
)]

mod agent;
mod architecture;
mod chat;
mod check;
mod check_prepared;
mod check_sdk;
mod cli;
mod compress;
mod consent;
mod datasets;
#[cfg(unix)]
mod deploy;
mod determinism;
mod differential;
mod docs;
mod doctor;
mod dotenv;
mod every_request;
#[cfg(target_os = "linux")]
#[cfg(unix)]
mod examples;
mod faults;
mod generate;
mod given;
mod http;
mod input;
mod masking;
mod mix;
mod models;
mod monitor;
mod never_twice;
mod packed;
mod parts;
#[cfg(unix)]
mod parts_chaos;
mod pilot;
mod preview;
#[cfg(unix)]
mod process;
mod provenance;
#[cfg(target_os = "linux")]
mod pty;
mod publish;
mod python;
mod readers;
mod real_data;
mod rehearsal;
mod rehearse;
mod remote;
mod report;
mod s3;
mod score;
mod score_models;
#[cfg(unix)]
mod script;
mod secrets;
mod server;
mod service;
mod settings;
#[cfg(target_os = "linux")]
mod slow_storage;
#[cfg(unix)]
mod slurm;
mod support;
mod sweep;
mod sweep_money;
mod tls;
mod together;
mod tokens;
mod transfer;
mod unused;
mod upload;
mod using;
mod wandb;
mod watching;
mod workflow;
