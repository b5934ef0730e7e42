//! Time as the server sees it, passed in: a test lets a job's hours pass at once.

use std::time::Duration;

use jiff::Timestamp;

pub trait Clock: Send + Sync {
    /// The time of day, for dates in answers.
    fn now(&self) -> Timestamp;
    /// Time since a fixed moment; never goes back.
    fn elapsed(&self) -> Duration;
    /// Waits; false as soon as somebody asks the program to stop.
    fn wait(&self, duration: Duration) -> bool;
}
