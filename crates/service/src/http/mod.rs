//! HTTP as the rest of the program uses it: one request at a time, blocking, and one retry loop.
//!
//! Separate so that what every request must have stands in one place: timeouts, a limit on
//! the answer, no redirect that is followed unseen, no variable of the environment read.
//! Who retries: [`Client::repeat`], for calls that may arrive twice without harm; the others
//! go through [`Client::send`], which tries once. What is worth another try is decided in
//! [`retry`]; a TLS error and a request that cannot be made are permanent. A connection is
//! never used twice: a kept one that the server has just closed would turn a call that
//! costs money into one of unknown outcome. It must not know whose API it speaks.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::clock::Clock;
use crate::http::body::FileBody;
use crate::http::retry::{Decision, Notice, Outcome, Policy};
use crate::http::wire::Wire;
use ctxtune_python_json as python_json;

pub mod body;
mod error;
pub mod form;
mod key;
pub mod proxy;
pub mod retry;
pub mod said;
pub mod sse;
mod watch;
mod wire;

pub use crate::http::error::{Error, without_query};
pub use crate::http::key::Key;

/// How long a service may deny what it has just created: until then a 404 says nothing.
pub(crate) const SETTLING: Duration = Duration::from_secs(120);

/// What a client needs to know.
pub struct Settings {
    /// The `User-Agent` of every request.
    pub user_agent: String,
    /// The proxy, or none: the environment is not asked. See [`proxy::parse`].
    pub proxy: Option<ureq::Proxy>,
    /// How long anything may take.
    pub timeouts: Timeouts,
    /// How often and how soon a call is repeated.
    pub policy: Policy,
}

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
    pub fn is_html(&self) -> bool {
        self.header("content-type")
            .is_some_and(|kind| kind.trim().to_ascii_lowercase().starts_with("text/html"))
    }

    /// Whether it is a web page and no document: what a proxy or a login page answers in place of an API.
    pub fn is_page(&self) -> bool {
        begins_like_page(&self.body) || (self.is_html() && !self.body.is_empty() && self.json().is_none())
    }

    /// Whether the server did what was asked.
    pub fn is_success(&self) -> bool {
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

/// Who sends requests.
pub struct Client {
    wire: Wire,
    policy: Policy,
    clock: Arc<dyn Clock>,
    tell: Arc<dyn Fn(&Notice) + Send + Sync>,
    /// How many delays were drawn, so that two drawn in one instant differ.
    drawn: AtomicU64,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Client")
    }
}

impl Client {
    /// A client; `tell` hears of each try that failed and is repeated.
    pub fn new(
        settings: Settings,
        clock: Arc<dyn Clock>,
        tell: Arc<dyn Fn(&Notice) + Send + Sync>,
    ) -> Client {
        let policy = settings.policy;
        let wire = Wire::new(&settings.user_agent, settings.proxy, settings.timeouts);
        Client { wire, policy, clock, tell, drawn: AtomicU64::new(0) }
    }

    /// The clock that its waits go through.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// How often and how soon it repeats.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Sends `call` once. An answer of any status is an answer.
    ///
    /// # Errors
    /// When there is no whole answer, or somebody asks the program to stop.
    pub fn send(&self, call: &Call<'_>) -> Result<Answer, Error> {
        self.wire.exchange(&*self.clock, call, None)
    }

    /// Sends `call` until the answer is worth having or the tries are used up, and gives
    /// back the last answer. Only for calls that may arrive twice without harm.
    ///
    /// # Errors
    /// The last one, when the last try brought no answer.
    pub fn repeat(&self, call: &Call<'_>) -> Result<Answer, Error> {
        let what = format!("{} {}", call.method.as_str(), without_query(&call.url));
        self.retry(&what, &mut || self.send(call))
    }

    /// Sends `call` once; the body of a 200 or 206 goes to `sink`, that of another status
    /// into the answer.
    ///
    /// # Errors
    /// As [`Client::send`]; and when `sink` fails.
    pub fn download(
        &self,
        call: &Call<'_>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Answer, Error> {
        self.stream(call, &mut |piece| match piece {
            Piece::Head(_) => Ok(()),
            Piece::Bytes(bytes) => sink(bytes),
        })
    }

    /// Like [`Client::download`], and `sink` sees the head of a 200 or 206 before its body.
    ///
    /// # Errors
    /// As [`Client::download`].
    pub fn stream(
        &self,
        call: &Call<'_>,
        sink: &mut dyn FnMut(Piece<'_>) -> io::Result<()>,
    ) -> Result<Answer, Error> {
        self.wire.exchange(&*self.clock, call, Some(sink))
    }

    /// The one retry loop: `attempt` until its outcome is worth having or the tries are used
    /// up; `what` names it for people.
    ///
    /// # Errors
    /// The last one of `attempt`; and when somebody asks the program to stop.
    pub fn retry(
        &self,
        what: &str,
        attempt: &mut dyn FnMut() -> Result<Answer, Error>,
    ) -> Result<Answer, Error> {
        let mut tries = 0;
        loop {
            let result = attempt();
            tries += 1;
            if !self.wait_for_another_try(what, tries, &result)? {
                return result;
            }
        }
    }

    /// After `tries` tries, the last of which brought `result`: waits and says that there
    /// shall be another one, or says that there shall be none.
    ///
    /// # Errors
    /// When somebody asks the program to stop.
    pub fn wait_for_another_try(
        &self,
        what: &str,
        tries: u32,
        result: &Result<Answer, Error>,
    ) -> Result<bool, Error> {
        let outcome = match result {
            Ok(answer) => Outcome::Status {
                status: answer.status,
                retry_after: retry::parse_retry_after(&answer.headers, self.clock.now()),
            },
            Err(error) => error.outcome(),
        };
        match retry::decide(&self.policy, tries, outcome, self.draw()) {
            Decision::Stop => Ok(false),
            Decision::Again { after } => {
                let why = match result {
                    Ok(answer) => format!("{what}: {}", answer.status),
                    Err(error) => error.to_string(),
                };
                let tries_left = self.policy.tries.saturating_sub(tries);
                (self.tell)(&Notice { what: why, tries_left, after });
                self.clock.wait(after).map_err(|_| Error::Stopped)?;
                Ok(true)
            }
        }
    }

    /// A number in `0.0..1.0` that differs between processes and calls. Nothing depends on
    /// its quality but that many clients do not come back in one moment.
    fn draw(&self) -> f64 {
        let count = self.drawn.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now().as_nanosecond() as u64 ^ u64::from(std::process::id()) << 40;
        retry::scatter(now.wrapping_add(count.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }
}
