//! Commands that use a tuned model.

pub(crate) mod deploy;
pub(crate) mod endpoints;
pub(crate) mod generate;
pub(crate) mod generate_many;
pub(crate) mod models;
