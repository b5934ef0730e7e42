//! Weights & Biases as a client of its own: GraphQL for runs, `file_stream` for what they log.
//!
//! Turns plain values into the two requests of the wire and their answers into plain types. Nothing
//! here retries: who logs has time, and tries again on a clock of its own. Every call may arrive
//! twice without harm, as runs are named by the client and lines have offsets. It knows no job;
//! rows are objects whose meaning is `tune`'s. The key goes to the base URL and nowhere else.

use std::time::Duration;
use std::{fmt, io};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::http::form::percent_encoded;
use crate::http::said::{after_colon, printable, said};
use crate::http::{self, Answer, Body, Call, Client, Key, Method, retry};

pub(crate) mod files;
pub mod history;
pub mod host;
pub mod logged;
pub mod offline;
pub mod run;
pub mod session;
pub mod sweep;
pub mod worker;

const USER: &str = "api";

#[derive(Clone)]
pub struct Settings {
    /// The API, without a slash at its end.
    pub base: String,
    /// The pages for people, without a slash at their end.
    pub app: String,
    pub key: SecretString,
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Settings {{ {} }}", self.base)
    }
}

#[derive(Debug)]
pub struct Wandb {
    client: Client,
    settings: Settings,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunIdentity {
    /// Whose it is.
    pub entity: String,
    /// The project that it is in.
    pub project: String,
    /// Its id.
    pub name: String,
    /// The service's own id of it; opaque.
    pub storage_id: String,
    /// Its page.
    pub url: String,
}

#[derive(Debug, Clone, Copy)]
pub struct Operation {
    pub name: &'static str,
    pub text: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub is_stopped: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Http(#[from] http::Error),
    #[error("{what}: {status} from {host}{}", after_colon(.said))]
    Refused {
        what: &'static str,
        host: String,
        /// The status; 200 where GraphQL says no in an answer of that status.
        status: u16,
        retry_after: Option<Duration>,
        /// The server's words, fit to print; may be empty.
        said: String,
    },
    #[error("{what}: the answer of {host} cannot be understood: {reason}")]
    Unreadable { what: &'static str, host: String, reason: String },
    #[error("{what}: {host} does not show yet what it has created: 404")]
    NotYet { what: &'static str, host: String },
    #[error(
        "{what}: {url} answers with a web page and is not the API: a proxy or a login page; log in to the network, \
         or check WANDB_BASE_URL and the proxy"
    )]
    Page { what: &'static str, url: String },
    #[error("cannot write down what was logged: {0}")]
    Disk(#[from] io::Error),
    #[error("{host} does not accept the key")]
    Key { host: String },
}

impl Error {
    /// Whether waiting mends nothing.
    pub fn is_permanent(&self) -> bool {
        match self {
            Error::Http(error) => matches!(error, http::Error::Invalid { .. }),
            // A run that is being made elsewhere is a conflict that passes; a deleted one stays deleted.
            Error::Refused { what: run::UPSERT_NAME, status: 409, .. } => self.is_deleted(),
            Error::Refused { status, .. } => {
                matches!(status, 200 | 400 | 401 | 403 | 404 | 409 | 410 | 413 | 422 | 501)
            }
            Error::Unreadable { .. } | Error::NotYet { .. } | Error::Page { .. } | Error::Disk(_) => false,
            Error::Key { .. } => true,
        }
    }

    /// Whether the run was deleted at the service, which never takes its id again.
    pub fn is_deleted(&self) -> bool {
        match self {
            Error::Refused { status: 410, .. } => true,
            Error::Refused { what: run::UPSERT_NAME, status: 409, said, .. } => said.contains("deleted"),
            _ => false,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl Wandb {
    pub fn new(client: Client, settings: Settings) -> Wandb {
        Wandb { client, settings }
    }

    pub fn app(&self) -> &str {
        &self.settings.app
    }

    pub fn graphql(&self, operation: Operation, variables: &Value) -> Result<Value, Error> {
        let body =
            json!({ "query": operation.text, "variables": variables, "operationName": operation.name });
        let url = format!("{}/graphql", self.settings.base);
        let answer = self.post(&url, &body)?;
        let value = self.value(operation.name, &answer)?;
        let has_errors =
            value.get("errors").and_then(Value::as_array).is_some_and(|errors| !errors.is_empty());
        if has_errors {
            return Err(self.refused(operation.name, &answer));
        }
        match value.get("data") {
            Some(data) if data.is_object() => Ok(data.clone()),
            _ => Err(self.unreadable(operation.name, "it has no `data`")),
        }
    }

    /// Sends lines, a summary, an end, or with an empty `body` a sign of life.
    pub fn stream(&self, run: &RunIdentity, body: &Value) -> Result<Heard, Error> {
        let [entity, project, name] = [&run.entity, &run.project, &run.name].map(|part| encoded(part));
        let url = format!("{}/files/{entity}/{project}/{name}/file_stream", self.settings.base);
        let answer = self.post(&url, body)?;
        if !answer.is_success() {
            return Err(self.refused("file_stream", &answer));
        }
        if answer.is_page() {
            return Err(self.page("file_stream"));
        }
        // An answer without JSON is still a yes.
        let stopped = answer.json().and_then(|value| value.get("stopped")?.as_bool());
        Ok(Heard { is_stopped: stopped.unwrap_or(false) })
    }

    fn key(&self) -> Key<'_> {
        Key::Basic { user: USER, password: &self.settings.key }
    }

    fn post(&self, url: &str, body: &Value) -> Result<Answer, Error> {
        let key = Some(self.key());
        let call = Call {
            method: Method::Post,
            url: url.to_owned(),
            key,
            headers: Vec::new(),
            body: Body::Json(body),
        };
        Ok(self.client.send(&call)?)
    }

    fn value(&self, what: &'static str, answer: &Answer) -> Result<Value, Error> {
        if !answer.is_success() {
            return Err(self.refused(what, answer));
        }
        answer.json().ok_or_else(|| match answer.is_page() {
            true => self.page(what),
            false => self.unreadable(what, "it is no JSON"),
        })
    }

    fn page(&self, what: &'static str) -> Error {
        Error::Page { what, url: self.settings.base.clone() }
    }

    fn host(&self) -> String {
        let base = &self.settings.base;
        base.split_once("://").map_or(base.as_str(), |(_, host)| host).to_owned()
    }

    fn refused(&self, what: &'static str, answer: &Answer) -> Error {
        if answer.status == 401 {
            return Error::Key { host: self.host() };
        }
        self.refused_by(&self.host(), what, answer)
    }

    fn refused_by(&self, host: &str, what: &'static str, answer: &Answer) -> Error {
        let secrets = self.key().secrets();
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let retry_after = retry::parse_retry_after(&answer.headers, self.client.clock().now());
        let reset = || answer.header("ratelimit-reset")?.parse().ok().map(Duration::from_secs);
        Error::Refused {
            what,
            host: host.to_owned(),
            status: answer.status,
            retry_after: retry_after.or_else(|| reset().filter(|_| answer.status == 429)),
            said: said(&answer.body, &secrets),
        }
    }

    fn unreadable(&self, what: &'static str, reason: &str) -> Error {
        Error::Unreadable { what, host: self.host(), reason: printable(reason, &[]) }
    }
}

/// `part` as a piece of a path: what is not plain is percent-encoded, as the service does.
pub fn encoded(part: &str) -> String {
    percent_encoded(part, b"-_.~=+&$@")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_path_stay_in_their_place() {
        assert_eq!(encoded("a b/c?d#e%ü"), "a%20b%2Fc%3Fd%23e%25%C3%BC");
        assert_eq!(encoded("a=b+c&d$e@f-_.~9"), "a=b+c&d$e@f-_.~9");
    }

    #[test]
    fn a_refusal_is_permanent_where_the_sdk_gives_up_too() {
        let refused = |what: &'static str, status: u16| Error::Refused {
            what,
            host: String::new(),
            status,
            retry_after: None,
            said: String::new(),
        };
        let permanent: Vec<u16> =
            (300..600).filter(|status| refused("file_stream", *status).is_permanent()).collect();
        assert_eq!(permanent, [400, 401, 403, 404, 409, 410, 413, 422, 501]);
        assert!(!refused(run::UPSERT_NAME, 409).is_permanent());
        let mut deleted = refused(run::UPSERT_NAME, 409);
        if let Error::Refused { said, .. } = &mut deleted {
            "run r was previously created and deleted; try a new run name".clone_into(said);
        }
        assert!(deleted.is_permanent() && deleted.is_deleted());
        assert!(refused(run::UPSERT_NAME, 410).is_permanent());
        assert!(Error::Key { host: String::new() }.is_permanent());
    }
}
