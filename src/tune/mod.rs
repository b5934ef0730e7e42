//! From a prepared directory to a finished job.

pub mod monitor;
pub mod pace;
pub mod progress;
