//! A training line read back: the messages as a person or a chat request sees them.
//!
//! The converter writes lines without building messages first; whoever needs messages
//! reads them from the finished line, so that what is shown is what was written.

use serde::{Deserialize, Serialize};

/// One training example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The messages in order.
    pub messages: Vec<Message>,
}

/// One message of an example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

impl Example {
    /// Reads a line, with or without its newline.
    ///
    /// # Errors
    /// When the line is not `{"messages":[{"role":…,"content":…},…]}`.
    pub fn from_line(line: &[u8]) -> serde_json::Result<Example> {
        serde_json::from_slice(line)
    }
}
