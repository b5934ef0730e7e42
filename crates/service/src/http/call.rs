//! A request and its answer, as values.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::http::body::FileBody;
use crate::http::key::Key;
use ctxtune_python_json as python_json;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A name's resolution; and a connection, its TLS handshake included.
    pub connect: Duration,
    /// A call whose answer is small, from its beginning to the last byte of the answer.
    pub call: Duration,
    /// One read or write of an upload, a download or a stream. Also the time within which
    /// 16 KiB must have moved; the answer to an upload may take five times as long.
    pub idle: Duration,
}

impl Timeouts {
    pub const DEFAULT: Timeouts = Timeouts {
        connect: Duration::from_secs(10),
        call: Duration::from_secs(60),
        idle: Duration::from_secs(60),
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }
}

pub struct Call<'c> {
    pub method: Method,
    pub url: String,
    /// The caller sees to it that the URL may know it.
    pub key: Option<Key<'c>>,
    pub headers: Vec<(String, String)>,
    pub body: Body<'c>,
}

impl fmt::Debug for Call<'_> {
    /// Without the key, the query, the headers and the body: each may hold a secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Call {{ {} {} }}", self.method.as_str(), without_query(&self.url))
    }
}

#[derive(Clone, Copy)]
pub enum Body<'c> {
    Empty,
    Json(&'c Value),
    Form(&'c [(&'c str, String)]),
    /// Ranges of files, opened anew at each try, and who is told the bytes sent in this try.
    File(&'c FileBody, &'c (dyn Fn(u64) + Sync)),
}

#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body; empty where it went elsewhere.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of that name, which is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON, where it is JSON; a number that is none (`NaN`) is `null`.
    pub fn json(&self) -> Option<Value> {
        python_json::read(&self.body)
    }

    pub(crate) fn is_html(&self) -> bool {
        self.header("content-type")
            .is_some_and(|kind| kind.trim().to_ascii_lowercase().starts_with("text/html"))
    }

    /// Whether it is a web page and no document: what a proxy or a login page answers in place of an API.
    pub fn is_page(&self) -> bool {
        begins_like_page(&self.body) || (self.is_html() && !self.body.is_empty() && self.json().is_none())
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl fmt::Debug for Answer {
    /// Without headers and body: a `Location` may be a signed URL.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Answer {{ {}, {} bytes }}", self.status, self.body.len())
    }
}

/// Whether `body` begins as a web page does, which no document of an API does.
pub fn begins_like_page(body: &[u8]) -> bool {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start().starts_with(b"<")
}

/// What arrives of an answer whose body is not kept.
pub enum Piece<'p> {
    Head(&'p Answer),
    Bytes(&'p [u8]),
}

pub fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}
