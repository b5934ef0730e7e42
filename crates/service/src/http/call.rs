//! A request and its answer, as values.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::http::body::FileBody;
use crate::http::key::Key;
use ctxtune_python_json as python_json;

/// How long anything may take.
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
    /// What is used outside tests.
    pub const DEFAULT: Timeouts = Timeouts {
        connect: Duration::from_secs(10),
        call: Duration::from_secs(60),
        idle: Duration::from_secs(60),
    };
}

/// What is done to a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Read it.
    Get,
    /// Do something there.
    Post,
    /// Store something there.
    Put,
    /// Change a part of it.
    Patch,
    /// Remove it.
    Delete,
}

impl Method {
    /// As it stands in a request.
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

/// A request.
pub struct Call<'c> {
    /// What to do.
    pub method: Method,
    /// Where; `http` or `https`.
    pub url: String,
    /// The caller sees to it that the URL may know it.
    pub key: Option<Key<'c>>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// What is sent along.
    pub body: Body<'c>,
}

impl fmt::Debug for Call<'_> {
    /// Without the key, the query, the headers and the body: each may hold a secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Call {{ {} {} }}", self.method.as_str(), without_query(&self.url))
    }
}

/// What a request sends along.
#[derive(Clone, Copy)]
pub enum Body<'c> {
    /// Nothing.
    Empty,
    /// A JSON document.
    Json(&'c Value),
    /// Plain fields as `multipart/form-data`.
    Form(&'c [(&'c str, String)]),
    /// Ranges of files, opened anew at each try, and who is told the bytes sent in this try.
    File(&'c FileBody, &'c (dyn Fn(u64) + Sync)),
}

/// An answer, of whatever status.
#[derive(Clone)]
pub struct Answer {
    /// The status.
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

    /// Whether it says that it is a web page.
    pub(crate) fn is_html(&self) -> bool {
        self.header("content-type")
            .is_some_and(|kind| kind.trim().to_ascii_lowercase().starts_with("text/html"))
    }

    /// Whether it is a web page and no document: what a proxy or a login page answers in place of an API.
    pub fn is_page(&self) -> bool {
        begins_like_page(&self.body) || (self.is_html() && !self.body.is_empty() && self.json().is_none())
    }

    /// Whether the server did what was asked.
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
    /// Its status and headers, before any of its body.
    Head(&'p Answer),
    /// The next bytes of its body.
    Bytes(&'p [u8]),
}

/// `url` without its query and its fragment.
pub fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}
