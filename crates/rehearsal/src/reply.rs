//! What the server answers, before it is bytes: a status, headers, a body, and the API's shape of an error.

use serde_json::{Value, json};

/// What a handler answers. An error is sent like any other reply.
pub type Handled = Result<Reply, Reply>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// Without `Date` and the length: these come last.
    pub headers: Vec<(String, String)>,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Its length is said in advance.
    Whole(Vec<u8>),
    /// A stream, one chunk a frame.
    Frames(Vec<Vec<u8>>),
}

impl Reply {
    pub fn ok(value: &Value) -> Reply {
        Reply::json(200, value)
    }

    pub fn json(status: u16, value: &Value) -> Reply {
        Reply::bytes(status, "application/json", value.to_string().into_bytes())
    }

    pub fn bytes(status: u16, content_type: &str, bytes: Vec<u8>) -> Reply {
        Reply { status, headers: Vec::new(), content: Content::Whole(bytes) }
            .with("Content-Type", content_type)
    }

    pub fn redirect(status: u16, location: impl Into<String>) -> Reply {
        let content = Content::Whole(Vec::new());
        Reply { status, headers: Vec::new(), content }.with("Location", location)
    }

    pub fn error(status: u16, message: impl Into<String>) -> Reply {
        Reply::shaped(status, message.into(), None, None)
    }

    /// An error with a code that clients compare.
    pub fn coded(status: u16, code: &str, message: impl Into<String>) -> Reply {
        Reply::shaped(status, message.into(), None, Some(code))
    }

    pub fn field(param: &str, message: impl Into<String>) -> Reply {
        Reply::shaped(400, message.into(), Some(param), None)
    }

    pub fn missing(param: &str) -> Reply {
        Reply::field(param, format!("`{param}` is missing"))
    }

    pub fn unknown(param: &str) -> Reply {
        Reply::field(param, format!("`{param}` is not known"))
    }

    fn shaped(status: u16, message: String, param: Option<&str>, code: Option<&str>) -> Reply {
        let kind = match status {
            401 => "authentication_error",
            429 => "rate_limit",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let error = json!({ "message": message, "type": kind, "param": param, "code": code });
        Reply::json(status, &json!({ "error": error }))
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}
