//! Where a run reports how far it is, and learns whether it is to stop.

use std::time::Duration;

use crate::error::Error;

/// Where a run reports how far it is, and learns whether it is to stop.
pub trait Watch: Sync {
    /// `records` have been found so far.
    fn listed(&self, records: u64);
    /// So many objects of buckets will be read, of so many bytes, by so many requests.
    fn stored(&self, _objects: u64, _bytes: u64, _requests: u64) {}
    /// A batch is done: so many more records, bytes read and rejects.
    fn converted(&self, records: u64, bytes: u64, rejects: u64);
    /// Publication begins its next step; from the first one on it cannot be stopped.
    fn publishing(&self, step: &str);
    /// Work in parts goes on to a `part` or a `shard`: its number, from 0, and how many there are.
    fn step(&self, _what: &str, _number: u64, _of: u64) {}
    /// Whether somebody asked the run to stop.
    fn is_stopped(&self) -> bool;

    /// Time since a fixed moment, by which reads are measured: where they are slow, files are read before
    /// their turn. On a clock that stands still none is slow.
    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    /// [`Error::Interrupted`] when the run is to stop.
    ///
    /// # Errors
    /// That one.
    fn check_stop(&self) -> Result<(), Error> {
        if self.is_stopped() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// Nobody who watches, and nothing that stops a run.
pub struct Unwatched;

impl Watch for Unwatched {
    fn listed(&self, _: u64) {}
    fn converted(&self, _: u64, _: u64, _: u64) {}
    fn publishing(&self, _: &str) {}
    fn is_stopped(&self) -> bool {
        false
    }
}
