//! All that the server remembers, in memory: files, uploads, jobs, requests, violations of the protocol.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::course::Plan;
use crate::faults::Count;
use crate::order::Order;
use crate::request::Now;
use crate::state::files::{File, Multipart};
use crate::state::wandb::Wandb;
use crate::wire::hex;
use crate::{Script, Seen};

pub mod files;
pub mod wandb;

#[derive(Debug)]
pub struct Job {
    pub id: String,
    pub order: Order,
    pub plan: Plan,
    pub created: Now,
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
    pub seen: Vec<Seen>,
    pub violations: Vec<String>,
    pub counts: Vec<Count>,
    pub files: Vec<File>,
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

#[derive(Debug)]
pub struct Endpoint {
    pub id: String,
    pub name: String,
    pub created: Now,
    pub version: u64,
    pub split: Vec<(String, f64)>,
    pub deployments: Vec<Deployment>,
}

#[derive(Debug)]
pub struct Deployment {
    pub id: String,
    pub name: String,
    pub model: String,
    pub config: String,
    pub idle_minutes: u64,
    pub created: Now,
    pub replicas: u64,
    pub scaled: Now,
}
