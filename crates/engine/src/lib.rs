//! Records in, training lines out.
//!
//! The way of a record, folder by folder:
//!
//! - [`source`]: sources become keys in rank order, and bytes.
//! - [`record`]: bytes become a `Record`, or the reason why not.
//! - [`mod@line`]: a `Record` becomes one training line, by a template.
//! - [`split`]: ranks, groups, leakage.
//! - [`output`]: shards, rejects, keys, the manifest, publication.
//! - [`mod@prepare`] runs all of these: a corpus in, train and validation JSONL out.
//!
//! Beside it, on what it leaves: [`check`] says whether a JSONL file is fit for training; [`score`] compares
//! contexts; [`answer_file`] names the files of answers.
//! - [`json`] holds the escapes that all of them share; [`special_token`] the rule for `<|name|>`;
//!   [`ratio`] exact parts of a whole; [`yaml`] the files that people write.
//!
//! No network, no clock, no environment, no terminal: what is needed is passed in.

pub mod address;
pub mod answer_file;
pub mod check;
pub mod error;
pub mod json;
pub mod line;
mod mask;
pub mod output;
mod parallel;
pub mod parts;
pub mod prepare;
pub mod ratio;
mod read_buffer;
pub mod record;
pub mod score;
pub mod source;
pub mod special_token;
pub mod split;
pub mod storage;
pub mod watch;
pub mod yaml;
