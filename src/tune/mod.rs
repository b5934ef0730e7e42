//! From a prepared directory to a finished job.

pub mod progress;
