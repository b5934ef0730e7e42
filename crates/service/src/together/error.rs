//! Why the API did not do what was asked, and what that means for asking again.
//!
//! Separate because money depends on [`Error::certainty`]: a job is created again only if
//! the first request certainly was not accepted. Messages name the server's words, which
//! [`crate::http::said`] makes fit to print; answers are data, and only a long key is replaced in them.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::http;
use crate::http::retry;
use crate::http::said::{after_colon, page_title, redact, said};

/// Why a call of the API failed. URLs are without their query.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no API key")]
    NoKey,
    #[error(transparent)]
    Http(http::Error),
    #[error("{method} {url}: {status} from server{}", after_colon(.said))]
    Refused {
        method: &'static str,
        url: String,
        status: u16,
        retry_after: Option<Duration>,
        /// The server's words, fit to print; may be empty.
        said: String,
    },
    /// An answer that does not say what it must: whether it was done is unknown.
    #[error("{method} {url}: the answer cannot be understood: {reason}{}", after_colon(.said))]
    Unreadable { method: &'static str, url: String, reason: String, said: String },
    /// A web page in place of an answer: whether it was done is unknown.
    #[error(
        "{method} {url}: the answer is a web page and not the API: a proxy or a login page{}", after_colon(.title)
    )]
    Page { method: &'static str, url: String, title: String },
    #[error("cannot write `{path}`: {source}")]
    Write { path: PathBuf, source: io::Error },
}

impl From<http::Error> for Error {
    fn from(error: http::Error) -> Error {
        Error::Http(error)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// It was not accepted, and may be sent again.
    NotAccepted,
    /// It was refused, and would be again.
    Refused,
    Unknown,
}

impl Error {
    pub fn certainty(&self) -> Certainty {
        match self {
            Error::Http(http::Error::NotSent { .. }) => Certainty::NotAccepted,
            Error::NoKey | Error::Http(http::Error::Invalid { .. }) => Certainty::Refused,
            // The certificate comes before the request.
            Error::Http(http::Error::Tls { reason, .. }) if reason.contains("invalid peer certificate") => {
                Certainty::Refused
            }
            Error::Refused { status: 429, .. } => Certainty::NotAccepted,
            Error::Refused { status: 503, retry_after: Some(_), .. } => Certainty::NotAccepted,
            Error::Refused { status: 408 | 409, .. } => Certainty::Unknown,
            Error::Refused { status: 400..=499, .. } => Certainty::Refused,
            _ => Certainty::Unknown,
        }
    }

    /// Whether somebody who waits for something should go on asking.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Http(error) => matches!(
                error,
                http::Error::NotSent { .. } | http::Error::Lost { .. } | http::Error::TooLarge { .. }
            ),
            Error::Refused { status, .. } => *status >= 500 || retry::is_passing(*status),
            Error::Unreadable { .. } | Error::Page { .. } => true,
            Error::NoKey | Error::Write { .. } => false,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The status that the server answered with, if that is what went wrong.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

pub struct Asked<'a> {
    pub method: http::Method,
    pub url: &'a str,
    /// What the server may echo and nobody may see.
    pub secrets: Vec<&'a str>,
    /// When it was answered: what a date to come back at is counted from.
    pub now: Timestamp,
}

impl Asked<'_> {
    pub fn refused(&self, answer: &http::Answer) -> Error {
        Error::Refused {
            method: self.method.as_str(),
            url: http::without_query(self.url).to_owned(),
            status: answer.status,
            retry_after: retry::parse_retry_after(&answer.headers, self.now),
            said: said(&answer.body, &self.secrets),
        }
    }

    /// The JSON in `answer`, which must be a success, with long keys masked.
    pub fn value(&self, answer: &http::Answer) -> Result<Value, Error> {
        let mut value = self.content(answer)?;
        redact(&mut value, &self.secrets);
        Ok(value)
    }

    /// The JSON in `answer`, which must be a success, as it came: for whoever refuses what has a key in it.
    pub fn content(&self, answer: &http::Answer) -> Result<Value, Error> {
        if !answer.is_success() {
            return Err(self.refused(answer));
        }
        answer.json().ok_or_else(|| self.unreadable("it is no JSON", answer))
    }

    /// The error for a stream that was no whole answer; `reason` is fit to print.
    pub(crate) fn broken_off(&self, reason: String) -> Error {
        let url = http::without_query(self.url).to_owned();
        Error::Unreadable { method: self.method.as_str(), url, reason, said: String::new() }
    }

    pub fn page(&self, answer: &http::Answer) -> Error {
        Error::Page {
            method: self.method.as_str(),
            url: http::without_query(self.url).to_owned(),
            title: page_title(&answer.body, &self.secrets),
        }
    }

    pub fn unreadable(&self, reason: impl Into<String>, answer: &http::Answer) -> Error {
        if answer.is_page() {
            return self.page(answer);
        }
        Error::Unreadable {
            method: self.method.as_str(),
            url: http::without_query(self.url).to_owned(),
            reason: reason.into(),
            said: said(&answer.body, &self.secrets),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, retry_after: Option<Duration>) -> Error {
        let (method, url) = ("POST", "https://a.example/v1/fine-tunes".to_owned());
        Error::Refused { method, url, status, retry_after, said: "no".to_owned() }
    }

    fn tls(reason: &str) -> Error {
        Error::Http(http::Error::Tls { url: String::new(), reason: reason.to_owned() })
    }

    #[test]
    fn only_what_certainly_was_not_accepted_may_be_sent_again() {
        for status in 300..=599 {
            for retry_after in [None, Some(Duration::from_secs(1))] {
                let expected = match (status, retry_after) {
                    (429, _) | (503, Some(_)) => Certainty::NotAccepted,
                    (408 | 409, _) => Certainty::Unknown,
                    (400..=499, _) => Certainty::Refused,
                    _ => Certainty::Unknown,
                };
                assert_eq!(refused(status, retry_after).certainty(), expected, "{status}");
            }
        }
        let (url, reason) = (String::new(), String::new());
        let not_sent = Error::Http(http::Error::NotSent { url: url.clone(), reason: reason.clone() });
        assert_eq!(not_sent.certainty(), Certainty::NotAccepted);
        let lost = Error::Http(http::Error::Lost { url, reason });
        assert_eq!(lost.certainty(), Certainty::Unknown);
        assert_eq!(Error::Http(http::Error::Stopped).certainty(), Certainty::Unknown);
        assert_eq!(tls("io: invalid peer certificate: UnknownIssuer").certainty(), Certainty::Refused);
        assert_eq!(tls("received fatal alert: CertificateRequired").certainty(), Certainty::Unknown);
        assert_eq!(Error::NoKey.certainty(), Certainty::Refused);
    }

    #[test]
    fn a_waiting_poll_outlives_what_passes() {
        for status in [408, 429, 500, 501, 502, 503, 504, 599] {
            assert!(refused(status, None).is_passing(), "{status}");
        }
        for status in [302, 400, 401, 403, 404, 409, 422] {
            assert!(!refused(status, None).is_passing(), "{status}");
        }
        assert!(!Error::NoKey.is_passing() && !tls("").is_passing());
        assert!(!Error::Http(http::Error::Stopped).is_passing());
    }

    #[test]
    fn a_message_has_the_place_and_the_words_of_the_server() {
        let expected = "POST https://a.example/v1/fine-tunes: 400 from server: no";
        assert_eq!(refused(400, None).to_string(), expected);
    }
}
