//! Endpoints and their deployments, as they were last asked to be.

use crate::request::Now;

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
    /// How many replicas it was last asked to have, and when.
    pub replicas: u64,
    pub scaled: Now,
}
