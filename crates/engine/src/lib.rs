//! Records in, training lines out.
//!
//! - [`prepare`]: a corpus of records becomes train and validation JSONL; [`manifest`] is what it leaves, the
//!   one document that later steps believe.
//! - [`check`] says whether a JSONL file is fit for training; [`score`] compares contexts.
//! - [`lock`] lets one run at a time into an output directory; [`answer_file`] names the files of answers.
//! - [`json`] holds the escapes that all of them share; [`special_token`] the rule for `<|name|>`;
//!   [`yaml`] the files that people write.
//!
//! No network, no clock, no environment, no terminal: what is needed is passed in.

pub mod answer_file;
pub mod check;
pub mod json;
pub mod lock;
pub mod manifest;
mod mask;
pub mod prepare;
pub mod score;
pub mod special_token;
pub mod yaml;
