//! A record becomes one training line: which messages (`template`), and their bytes (`convert`).

pub mod convert;
pub mod example;
pub(crate) mod frame;
pub mod template;
