//! What the API says of an uploaded file, read leniently.
//!
//! Pure, like [`crate::together::job`]. The verdict on a file is spelt in two ways: `processing_status` with a
//! report, and the older `Processed`.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::together::job::{JobId, text, time, whole};

/// A file's id: opaque, not empty, safe in a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId(String);

impl FileId {
    /// `text` as an id; nothing where it could leave its place in a URL or a path.
    pub fn new(text: &str) -> Option<FileId> {
        // The rule is that of jobs.
        JobId::new(text).map(|id| FileId(id.as_str().to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What is said of a file that older servers have not processed.
const UNPROCESSED: &str = "not processed yet";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Processing {
    /// It has not come to a verdict; the status as it stands.
    Waiting(String),
    Completed,
    /// The file is not; the words of the report.
    Invalid(String),
    /// The server failed; its words.
    Failed(String),
    /// It says nothing, so that there is no verdict to wait for.
    Untold,
}

impl Processing {
    /// Whether this status of a file that waits is one that is documented.
    pub fn is_known(status: &str) -> bool {
        ["PENDING", "QUEUED", "RUNNING", UNPROCESSED].iter().any(|known| known.eq_ignore_ascii_case(status))
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct FileObject {
    pub id: FileId,
    /// Its name; empty where unknown.
    pub filename: String,
    pub bytes: Option<u64>,
    pub created_at: Option<Timestamp>,
    pub purpose: String,
    pub processing: Processing,
    pub object: Value,
}

impl FileObject {
    /// Reads a file object; nothing where it has no id.
    pub fn read(object: &Value) -> Option<FileObject> {
        Some(FileObject {
            id: FileId::new(&text(object, &["id", "file_id"])?)?,
            filename: text(object, &["filename", "file_name"]).unwrap_or_default(),
            bytes: whole(object, &["bytes", "size"]),
            created_at: time(object, &["created_at"]),
            purpose: text(object, &["purpose"]).unwrap_or_default(),
            processing: processing(object),
            object: object.clone(),
        })
    }
}

fn processing(object: &Value) -> Processing {
    let Some(status) = text(object, &["processing_status"]) else {
        return match object.get("Processed").or_else(|| object.get("processed")).and_then(Value::as_bool) {
            Some(true) => Processing::Completed,
            Some(false) => Processing::Waiting(UNPROCESSED.to_owned()),
            None => Processing::Untold,
        };
    };
    let words = || {
        let report = object.get("validation_report");
        report.and_then(|report| text(report, &["error", "message", "error_type"])).unwrap_or_default()
    };
    match status.to_ascii_uppercase().as_str() {
        "COMPLETED" | "SUCCEEDED" => Processing::Completed,
        "INVALID_FORMAT" => Processing::Invalid(words()),
        "FAILED" | "ERROR" | "EXPIRED" | "CANCELLED" | "CANCELED" => Processing::Failed(words()),
        // A status that nobody knows is no verdict.
        _ => Processing::Waiting(status),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(object: Value, expected: Processing) {
        let mut whole = json!({ "id": "file-1" });
        whole.as_object_mut().unwrap().extend(object.as_object().unwrap().clone());
        assert_eq!(FileObject::read(&whole).unwrap().processing, expected, "{whole}");
    }

    #[test]
    fn the_verdict_is_read_in_both_spellings() {
        let waiting = |status: &str| Processing::Waiting(status.to_owned());
        check(json!({ "processing_status": "COMPLETED" }), Processing::Completed);
        check(json!({ "processing_status": "completed", "Processed": false }), Processing::Completed);
        check(json!({ "processing_status": "PENDING" }), waiting("PENDING"));
        check(json!({ "processing_status": "ENCHANTED" }), waiting("ENCHANTED"));
        let report = json!({ "valid": false, "error_type": "INVALID_FORMAT", "error": "line 3: no role" });
        check(
            json!({ "processing_status": "INVALID_FORMAT", "validation_report": report }),
            Processing::Invalid("line 3: no role".to_owned()),
        );
        check(json!({ "processing_status": "FAILED" }), Processing::Failed(String::new()));
        check(json!({ "processing_status": "Succeeded" }), Processing::Completed);
        for ended in ["error", "EXPIRED", "cancelled", "Canceled"] {
            check(json!({ "processing_status": ended }), Processing::Failed(String::new()));
        }
        check(json!({ "Processed": true }), Processing::Completed);
        check(json!({ "processed": false }), waiting("not processed yet"));
        check(json!({ "processing_status": null }), Processing::Untold);
        check(json!({}), Processing::Untold);
    }

    #[test]
    fn a_file_is_read_from_an_id_alone() {
        let file = FileObject::read(&json!({ "id": "file-1", "bytes": "12", "filename": 7 })).unwrap();
        assert_eq!((file.id.as_str(), file.bytes, file.filename.as_str()), ("file-1", Some(12), ""));
        assert!(FileObject::read(&json!({ "id": "../secret" })).is_none());
        assert!(FileObject::read(&json!({ "filename": "a" })).is_none());
        assert!(FileObject::read(&json!([])).is_none());
    }
}
