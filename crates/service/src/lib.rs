//! The requests to the service that trains, and to Weights & Biases.
//!
//! - [`http`] sends requests, with timeouts and one retry loop.
//! - [`together`] is the API of the service that trains; [`wandb`] that of Weights & Biases.
//! - [`clock`] is time as it is passed in: nothing here reads one of its own.

pub mod clock;
pub mod http;
pub mod together;
pub mod wandb;

pub use clock::{Clock, Stopped};
