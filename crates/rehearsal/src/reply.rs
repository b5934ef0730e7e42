//! What the server answers, before it is bytes: a status, headers, a body, and the API's shape of an error.
//!
//! Separate so that every handler says what it means in a line. It must not know a route.

use serde_json::{Value, json};

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Without `Date` and the length: these come last.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub content: Content,
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Its length is said in advance.
    Whole(Vec<u8>),
    /// A stream, one chunk a frame.
    Frames(Vec<Vec<u8>>),
}

impl Reply {
    /// A JSON document.
    pub fn json(status: u16, value: &Value) -> Reply {
        Reply::bytes(status, "application/json", value.to_string().into_bytes())
    }

    /// Bytes of a type.
    pub fn bytes(status: u16, content_type: &str, bytes: Vec<u8>) -> Reply {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Reply { status, headers, content: Content::Whole(bytes) }
    }

    /// An error about the request as a whole.
    pub fn error(status: u16, message: impl Into<String>) -> Reply {
        Reply::coded(status, "", message)
    }

    /// An error with a code that clients compare.
    pub fn coded(status: u16, code: &str, message: impl Into<String>) -> Reply {
        Reply::shaped(status, message.into(), [Value::Null, optional(code)])
    }

    /// An error about one field of the body.
    pub fn field(param: &str, message: impl Into<String>) -> Reply {
        Reply::shaped(400, message.into(), [json!(param), Value::Null])
    }

    fn shaped(status: u16, message: String, [param, code]: [Value; 2]) -> Reply {
        let kind = match status {
            401 => "authentication_error",
            429 => "rate_limit",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let error = json!({ "message": message, "type": kind, "param": param, "code": code });
        Reply::json(status, &json!({ "error": error }))
    }

    /// The same with one more header.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

fn optional(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}
