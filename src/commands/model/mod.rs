//! Commands that use a tuned model.

pub mod batch;
pub mod deploy;
pub mod endpoints;
pub mod generate;
pub mod generate_many;
pub mod hold;
