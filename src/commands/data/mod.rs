//! Commands about data on this machine.

pub(crate) mod check;
pub(crate) mod distributed;
pub(crate) mod prepare;
pub(crate) mod preview;
pub(crate) mod score;
pub(crate) mod score_models;
pub(crate) mod slurm;
