//! Files, and uploads in parts that are under way.

use std::time::Duration;

use serde_json::{Value, json};

use crate::request::Now;
use crate::verdict::{Verdict, verdict};
use crate::wire::Body;

#[derive(Debug)]
pub struct Announced {
    /// `fine-tune`, `eval`, ….
    pub purpose: String,
    pub name: String,
    /// `jsonl`, `csv`, `parquet`.
    pub kind: String,
    pub checksum: Option<String>,
}

#[derive(Debug)]
pub struct File {
    pub id: String,
    pub announced: Announced,
    pub created: Now,
    pub upload_path: String,
    /// What arrived at the storage, with what the service will say of it.
    pub stored: Option<(Body, Verdict)>,
    /// When its verdict is there; nothing before it was asked for.
    pub verdict_at: Option<Duration>,
}

impl File {
    pub fn store(&mut self, body: Body) {
        let verdict = verdict(&body.kept, body.bytes == body.kept.len() as u64);
        self.stored = Some((body, verdict));
    }

    pub fn is_there(&self) -> bool {
        self.stored.is_some() && self.verdict_at.is_some()
    }

    pub fn bytes(&self) -> u64 {
        self.stored.as_ref().map_or(0, |(body, _)| body.bytes)
    }

    pub fn verdict(&self) -> Option<&Verdict> {
        self.stored.as_ref().map(|(_, verdict)| verdict)
    }

    /// `PENDING`, then the verdict; nothing before it was asked for.
    pub fn status(&self, now: Now) -> Option<&'static str> {
        let (verdict, at) = (self.verdict()?, self.verdict_at?);
        Some(if now.elapsed < at { "PENDING" } else { verdict.status() })
    }

    pub fn value(&self, now: Now) -> Value {
        let mut value = json!({
            "id": self.id,
            "object": "file",
            "created_at": self.created.time.as_second(),
            "filename": self.announced.name,
            "bytes": self.bytes(),
            "purpose": self.announced.purpose,
            "FileType": self.announced.kind,
        });
        if let (Some(status), Some(verdict)) = (self.status(now), self.verdict()) {
            value["processing_status"] = json!(status);
            if status != "PENDING" {
                value["validation_report"] = verdict.report(&self.id);
            }
        }
        value
    }
}

#[derive(Debug)]
pub struct Multipart {
    pub id: String,
    pub file_id: String,
    pub bytes: u64,
    pub parts: Vec<Option<Body>>,
}
