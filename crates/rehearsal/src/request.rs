//! What a handler is given beside the state: a request that was read, whose body is asked by name and type, and the
//! moment.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::reply::Reply;
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

    /// The body, which is a JSON object.
    pub fn json(&self) -> Result<Value, Reply> {
        let content_type = self.head.header("content-type").unwrap_or_default();
        if !content_type.to_ascii_lowercase().starts_with("application/json") {
            return Err(Reply::error(400, format!("content type `{content_type}` is not application/json")));
        }
        match serde_json::from_slice(&self.body.kept) {
            Ok(body @ Value::Object(_)) => Ok(body),
            Ok(_) => Err(Reply::error(400, "the body is no JSON object")),
            Err(error) => Err(Reply::error(400, format!("the body is no JSON: {error}"))),
        }
    }
}

/// Refuses fields that are not `known`.
pub fn only(body: &Value, known: &[&str]) -> Result<(), Reply> {
    let mut fields = body.as_object().into_iter().flat_map(|fields| fields.keys());
    fields.find(|name| !known.contains(&name.as_str())).map_or(Ok(()), |name| Err(Reply::unknown(name)))
}

pub fn text<'b>(body: &'b Value, name: &str) -> Result<&'b str, Reply> {
    let wrong = || Reply::field(name, format!("`{name}` is missing or no string"));
    body[name].as_str().ok_or_else(wrong)
}

pub fn number(body: &Value, name: &str) -> Result<u64, Reply> {
    let wrong = || Reply::field(name, format!("`{name}` is missing or no number of things"));
    body[name].as_u64().ok_or_else(wrong)
}
