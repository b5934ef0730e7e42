//! Commands about data on this machine.

pub mod check;
pub mod prepare;
pub mod score;
pub mod score_models;
