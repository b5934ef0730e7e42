//! All that the server remembers, in memory: files, uploads, jobs, requests, breaches of the protocol.
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
use crate::files::{File, Multipart};
use crate::order::Order;
use crate::wandb::Wandb;
use crate::wire::{Body, Head, hex};
use crate::{Script, Seen};

/// The bytes of a file that are kept, for its content and its verdict.
pub const KEPT_BYTES: usize = 64 << 20;

/// The moment at which a request is handled.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Of the clock that never goes back.
    pub elapsed: Duration,
    /// Of the day.
    pub time: Timestamp,
}

impl Now {
    /// Seconds since `then`.
    pub fn seconds_since(&self, then: Duration) -> f64 {
        self.elapsed.saturating_sub(then).as_secs_f64()
    }
}

/// One request, read to its end.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its first line and its headers.
    pub head: Head,
    /// Without the query.
    pub path: String,
    /// Decoded.
    pub query: Vec<(String, String)>,
    /// What it carried.
    pub body: Body,
}

impl Request {
    /// The first value of this name in the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A job.
#[derive(Debug, Clone)]
pub struct Job {
    /// `ft-…`.
    pub id: String,
    /// What was asked for.
    pub order: Order,
    /// What happens to it.
    pub plan: Plan,
    /// When it was created.
    pub created: Now,
    /// The tokens that it trains on and validates with.
    pub tokens: u64,
    /// What it costs when it is complete.
    pub nano_dollars: u64,
}

/// What the server remembers.
#[derive(Debug, Default)]
pub struct State {
    /// How it behaves.
    pub script: Script,
    /// Origin of the API.
    pub api: String,
    /// Origin of the storage.
    pub storage: String,
    /// Every request, in order of arrival.
    pub seen: Vec<Seen>,
    /// Breaches of the protocol by the client.
    pub violations: Vec<String>,
    /// One for each rule of the faults.
    pub counts: Vec<Count>,
    /// By id, in order of creation.
    pub files: Vec<File>,
    /// Uploads in parts that are under way.
    pub multiparts: Vec<Multipart>,
    /// In order of creation.
    pub jobs: Vec<Job>,
    /// How many were created, deleted ones too.
    pub jobs_created: usize,
    /// What came to W&B.
    pub wandb: Wandb,
    /// In order of creation.
    pub endpoints: Vec<Endpoint>,
    /// How many deployments were created, deleted ones too.
    pub deployments_created: usize,
    /// How often each prompt was asked.
    pub prompts: BTreeMap<String, u64>,
    /// How many names were given.
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

    /// Records a breach of the protocol.
    pub fn accuse(&mut self, breach: String) {
        self.violations.push(breach);
    }

    /// The file of this id.
    pub fn file(&self, id: &str) -> Option<&File> {
        self.files.iter().find(|file| file.id == id)
    }

    /// The job of this id.
    pub fn job(&self, id: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.id == id)
    }
}
