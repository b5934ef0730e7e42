//! All that the server remembers, in memory: files, uploads, jobs, requests, violations of the protocol.
//!
//! Separate so that every handler is a function of the state, a request and a moment. It must
//! not hold a socket or a clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::course::Plan;
use crate::endpoints::Endpoint;
use crate::faults::Count;
use crate::files::File;
use crate::multipart::Multipart;
use crate::order::Order;
use crate::wandb::Wandb;
use crate::wire::{Body, Head, hex};
use crate::{Script, Seen};

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

#[derive(Debug)]
pub struct Job {
    pub id: String,
    pub order: Order,
    pub plan: Plan,
    pub created: Now,
    /// The tokens that it trains on and validates with.
    pub tokens: u64,
    /// What it costs when it is complete.
    pub nano_dollars: u64,
}

impl Job {
    pub fn seconds(&self, now: Now) -> f64 {
        now.seconds_since(self.created.elapsed)
    }
}

/// What the server remembers; lists are in order of creation.
#[derive(Debug, Default)]
pub struct State {
    pub script: Script,
    pub api: String,
    pub storage: String,
    /// Every request, in order of arrival.
    pub seen: Vec<Seen>,
    pub violations: Vec<String>,
    /// One for each rule of the faults.
    pub counts: Vec<Count>,
    pub files: Vec<File>,
    /// Uploads in parts that are under way.
    pub multiparts: Vec<Multipart>,
    pub jobs: Vec<Job>,
    /// Deleted ones too.
    pub jobs_created: usize,
    pub wandb: Wandb,
    pub endpoints: Vec<Endpoint>,
    /// Deleted ones too.
    pub deployments_created: usize,
    pub prompts: BTreeMap<String, u64>,
    pub ids: u64,
}

impl State {
    /// A name in the form of a UUID, different each time and on each server.
    pub fn next_id(&mut self, prefix: &str) -> String {
        self.ids += 1;
        let digest = hex(&Sha256::digest(format!("{}:{prefix}:{}", self.api, self.ids)));
        let parts = [&digest[..8], &digest[8..12], &digest[12..16], &digest[16..20], &digest[20..32]];
        format!("{prefix}{}", parts.join("-"))
    }

    pub fn record_violation(&mut self, violation: String) {
        self.violations.push(violation);
    }

    pub fn file(&self, id: &str) -> Option<&File> {
        self.files.iter().find(|file| file.id == id)
    }
}
