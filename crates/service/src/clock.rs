//! Time, passed in: what waits or dates something asks a clock that it was given.
//!
//! The real clock is the program's; nothing below reads one of its own.

use std::time::Duration;

use jiff::Timestamp;

/// Somebody asked the program to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Stopped;

pub trait Clock: Send + Sync {
    /// The time of day, for dates in ledgers and reports; it can jump.
    fn now(&self) -> Timestamp;
    /// Time since a fixed moment; never goes back, and goes on while the machine sleeps.
    fn elapsed(&self) -> Duration;
    /// Waits. Fails as soon as somebody asks the program to stop.
    fn wait(&self, duration: Duration) -> Result<(), Stopped>;
    fn is_stopped(&self) -> bool;
}

/// A clock that stands still, for the tests of whatever dates something.
pub mod still {
    use std::time::Duration;

    use jiff::Timestamp;

    use crate::clock::{Clock, Stopped};

    /// It is ten o'clock in the morning of 24 November 2026.
    pub struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::constant(1_795_514_400, 0)
        }

        fn elapsed(&self) -> Duration {
            Duration::ZERO
        }

        fn wait(&self, _: Duration) -> Result<(), Stopped> {
            Ok(())
        }

        fn is_stopped(&self) -> bool {
            false
        }
    }
}
