//! What a handler is given beside the state: a request that was read, and the moment.

use std::time::Duration;

use jiff::Timestamp;

use crate::wire::{Body, Head};

#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Of the clock that never goes back.
    pub elapsed: Duration,
    /// Of the day.
    pub time: Timestamp,
}

impl Now {
    pub fn seconds_since(&self, then: Duration) -> f64 {
        self.elapsed.saturating_sub(then).as_secs_f64()
    }
}

#[derive(Debug)]
pub struct Request {
    pub head: Head,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub body: Body,
}

impl Request {
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
