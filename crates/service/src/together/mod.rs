//! The provider's API, one file a subject.
//!
//! Turns plain functions (`files::hand_over`, `jobs::create`) into calls and their answers into plain types,
//! leniently. The key goes to the origin of the base URL and nowhere else; no redirect is followed but by
//! `follow`, by hand. See <https://docs.together.ai/reference>.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::http::retry::parse_date;
use crate::http::{Answer, Body, Call, Client, Error as HttpError, Key, Method, SETTLING, without_query};

mod base;
pub mod chat;
pub mod download;
pub mod endpoints;
mod error;
pub mod file;
pub mod files;
mod follow;
pub mod hardware;
pub mod job;
pub mod jobs;
pub mod parts;
pub mod project;
pub mod unpack;

pub use crate::http::said::printable;
pub use crate::together::base::{BaseUrl, BaseUrlError, DEFAULT_BASE_URL};
pub use crate::together::error::{Certainty, Error};
pub use crate::together::file::FileId;
pub use crate::together::job::{Checkpoint, Ending, Event, Job, JobId, MetricRow, Status};
pub use crate::together::job::{last_error, number, read_time, text, time, whole};

use crate::together::error::Asked;

/// The pause before what was created a moment ago is asked about again.
const SETTLING_PAUSE: Duration = Duration::from_secs(2);

pub struct Together {
    client: Client,
    base: BaseUrl,
    key: Option<SecretString>,
    headers: Vec<(String, String)>,
    /// What was created a moment ago: its path, and when that is no longer a moment.
    created: Mutex<Vec<(String, Duration)>>,
}

impl fmt::Debug for Together {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Together {{ {} }}", self.base)
    }
}

/// Whose key it is; all that the server did not say is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The project's id, which the second version of the API wants.
    pub project_id: Option<String>,
    /// The project's short name, which stands in names of models.
    pub project_slug: Option<String>,
    pub project_name: Option<String>,
    pub organization_name: Option<String>,
    /// The key's id; not the key.
    pub key_id: Option<String>,
    pub date: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tries {
    /// Once: it must not be done twice.
    One,
    /// As often as the client's policy says: it may arrive twice without harm.
    Many,
}

impl Together {
    /// The API at `base`, asked through `client` with `key`, which is missed at the first call only.
    /// `headers` go along with every call to it; those that frame or authorize a request are left out.
    pub fn new(
        client: Client,
        base: BaseUrl,
        key: Option<SecretString>,
        mut headers: Vec<(String, String)>,
    ) -> Together {
        headers.retain(|(name, _)| !framed_by_us(name));
        Together { client, base, key, headers, created: Mutex::default() }
    }

    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whose key it is. A server that is too old to know leaves all but the date absent.
    pub fn whoami(&self) -> Result<Identity, Error> {
        self.identity(Tries::Many)
    }

    fn identity(&self, tries: Tries) -> Result<Identity, Error> {
        let url = self.url("/v3/whoami");
        let answer = self.answer(Method::Get, &url, Body::Empty, tries)?;
        let date = answer.header("date").and_then(parse_date);
        if answer.status == 404 && answer.is_page() {
            return Err(self.asked(Method::Get, &url).page(&answer));
        }
        if answer.status == 404 {
            return Ok(Identity { date, ..Identity::default() });
        }
        let value = self.asked(Method::Get, &url).value(&answer)?;
        let of = |object: &str, key: &str| text(value.get(object)?, &[key]);
        Ok(Identity {
            project_id: of("project", "id"),
            project_slug: of("project", "slug"),
            project_name: of("project", "name"),
            organization_name: of("organization", "name"),
            key_id: of("api_key", "id"),
            date,
        })
    }

    /// The URL of `path`, which begins with a slash and its version.
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn get(&self, path: &str) -> Result<Value, Error> {
        self.ask(Method::Get, path, Body::Empty, Tries::Many)
    }

    /// The error for JSON that is not what it must be.
    fn unlike(&self, (method, path): (Method, &str), value: &Value, reason: &str) -> Error {
        let answer = Answer { status: 200, headers: Vec::new(), body: value.to_string().into_bytes() };
        self.asked(method, &self.url(path)).unreadable(reason, &answer)
    }

    /// What `read` sees in the API's answer, which is no `kind` where that is nothing.
    fn object<T>(
        &self,
        (method, path): (Method, &str),
        body: Body<'_>,
        tries: Tries,
        (read, kind): (fn(&Value) -> Option<T>, &str),
    ) -> Result<T, Error> {
        let value = self.ask(method, path, body, tries)?;
        read(&value).ok_or_else(|| self.unlike((method, path), &value, &format!("it is no {kind}")))
    }

    fn ask(&self, method: Method, path: &str, body: Body<'_>, tries: Tries) -> Result<Value, Error> {
        let url = self.url(path);
        let mut asked = self.asked(method, &url);
        if let Body::Json(sent) = body {
            let others = ["wandb_key", "wandb_api_key", "hf_api_token"];
            asked.secrets.extend(others.iter().filter_map(|name| sent.get(name)?.as_str()));
        }
        asked.value(&self.answer(method, &url, body, tries)?)
    }

    fn answer(&self, method: Method, url: &str, body: Body<'_>, tries: Tries) -> Result<Answer, Error> {
        let call = self.call(method, url, body)?;
        if method == Method::Delete {
            self.created().retain(|(path, _)| self.url(path) != url);
        }
        loop {
            let answer = match tries {
                Tries::One => self.client.send(&call),
                Tries::Many => self.client.repeat(&call),
            }?;
            if answer.status != 404 || !self.is_settling(url) {
                return Ok(answer);
            }
            self.client.clock().wait(SETTLING_PAUSE).map_err(|_| HttpError::Stopped)?;
        }
    }

    fn note_created(&self, path: String, age: Duration) {
        let end = self.client.clock().elapsed().saturating_add(SETTLING.saturating_sub(age));
        self.created().push((path, end));
    }

    /// Whether what is at `url` was created a moment ago, so that a 404 there says nothing yet.
    fn is_settling(&self, url: &str) -> bool {
        let url = without_query(url);
        let now = self.client.clock().elapsed();
        self.created().iter().any(|(path, end)| now < *end && self.url(path) == url)
    }

    fn created(&self) -> MutexGuard<'_, Vec<(String, Duration)>> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call of the API. A URL of another origin gets neither the key nor our headers.
    fn call<'c>(&'c self, method: Method, url: &str, body: Body<'c>) -> Result<Call<'c>, Error> {
        let key = self.key.as_ref().ok_or(Error::NoKey)?;
        let mut call = Call { method, url: url.to_owned(), key: None, headers: Vec::new(), body };
        if self.base.is_same_origin(url) {
            call.key = Some(Key::Bearer(key));
            call.headers.push(("accept".to_owned(), "application/json".to_owned()));
            call.headers
                .retain(|(name, _)| !self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)));
            call.headers.extend(self.headers.iter().cloned());
        }
        Ok(call)
    }

    /// What was asked, for errors; a server may echo the key.
    fn asked<'a>(&'a self, method: Method, url: &'a str) -> Asked<'a> {
        let secrets = self.key.iter().map(|key| key.expose_secret()).collect();
        Asked { method, url, secrets, now: self.client.clock().now() }
    }
}

/// Whether the header of this name frames or authorizes a request: nobody else may set it.
fn framed_by_us(name: &str) -> bool {
    let ours = ["authorization", "connection", "content-length", "content-type", "host", "transfer-encoding"];
    ours.contains(&name.to_ascii_lowercase().as_str())
}
