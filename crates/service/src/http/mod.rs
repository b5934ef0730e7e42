//! HTTP as the rest of the program uses it: one request at a time, blocking, and one retry loop.
//!
//! Every request has timeouts, a limit on the answer, no redirect that is followed unseen, and no variable of
//! the environment. Who retries: [`Client::repeat`], for calls that may arrive twice without harm; the others
//! go through [`Client::send`], which tries once. What is worth another try is decided in [`retry`]; a TLS
//! error and a request that cannot be made are permanent. A connection is never used twice: a kept one that the
//! server has just closed would turn a call that costs money into one of unknown outcome. It must not know
//! whose API it speaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, io};

use crate::clock::Clock;
use crate::http::retry::{Decision, Notice, Outcome, Policy};
use crate::http::wire::Wire;

pub mod body;
mod call;
mod error;
pub(crate) mod form;
mod key;
pub mod proxy;
pub mod retry;
pub mod said;
pub mod sse;
mod watch;
mod wire;

pub use crate::http::call::{Answer, Body, Call, Method, Piece, Timeouts, begins_like_page, without_query};
pub use crate::http::error::Error;
pub use crate::http::key::Key;

/// How long a service may deny what it has just created: until then a 404 says nothing.
pub(crate) const SETTLING: Duration = Duration::from_secs(120);

pub struct Settings {
    pub user_agent: String,
    /// The proxy, or none: the environment is not asked. See [`proxy::parse`].
    pub proxy: Option<ureq::Proxy>,
    pub timeouts: Timeouts,
    pub policy: Policy,
}

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

    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Sends `call` once. An answer of any status is an answer. Fails when there is no whole answer, or
    /// somebody asks the program to stop.
    pub fn send(&self, call: &Call<'_>) -> Result<Answer, Error> {
        self.wire.exchange(&*self.clock, call, None)
    }

    /// Sends `call` until the answer is worth having or the tries are used up, and gives
    /// back the last answer. Only for calls that may arrive twice without harm.
    pub fn repeat(&self, call: &Call<'_>) -> Result<Answer, Error> {
        let what = format!("{} {}", call.method.as_str(), without_query(&call.url));
        self.retry(&what, &mut || self.send(call))
    }

    /// Sends `call` once; the body of a 200 or 206 goes to `sink`, that of another status into the answer.
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
    pub fn stream(
        &self,
        call: &Call<'_>,
        sink: &mut dyn FnMut(Piece<'_>) -> io::Result<()>,
    ) -> Result<Answer, Error> {
        self.wire.exchange(&*self.clock, call, Some(sink))
    }

    /// The one retry loop: `attempt` until its outcome is worth having or the tries are used
    /// up; `what` names it for people.
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
    pub(crate) fn wait_for_another_try(
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
