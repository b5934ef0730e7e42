//! Why a call brought no answer, and how sure it is that it never arrived.
//!
//! The words of the HTTP library are sorted here: into requests that certainly did not arrive, TLS errors, and
//! everything else, which may have arrived. In doubt a request may have arrived. No message has a URL's query
//! in it, as signed URLs are secrets.

use std::path::PathBuf;
use std::time::Duration;
use std::{error, io};

use crate::http::body::Unreadable;
use crate::http::call::{Timeouts, without_query};
use crate::http::retry::Outcome;

/// Why there is no whole answer. URLs are without their query.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make a request to {url}: {reason}")]
    Invalid { url: String, reason: String },
    /// The request certainly did not arrive.
    #[error("cannot reach {url}: {reason}")]
    NotSent { url: String, reason: String },
    #[error("no secure connection to {url}: {reason}")]
    Tls { url: String, reason: String },
    /// The request was sent at least in part, and no whole answer came.
    #[error("no answer from {url}: {reason}")]
    Lost { url: String, reason: String },
    #[error("the answer from {url} is larger than {limit} bytes")]
    TooLarge { url: String, limit: u64 },
    /// A file that should be sent cannot be read, or is shorter than it was.
    #[error("cannot read `{path}`: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("cannot take what was downloaded: {source}")]
    Sink { source: io::Error },
    #[error("interrupted")]
    Stopped,
}

impl Error {
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::NotSent { .. } => Outcome::NotSent,
            Error::Lost { .. } => Outcome::Lost,
            Error::Invalid { .. }
            | Error::Tls { .. }
            | Error::TooLarge { .. }
            | Error::File { .. }
            | Error::Sink { .. }
            | Error::Stopped => Outcome::Permanent,
        }
    }

    pub(crate) fn from_library(error: ureq::Error, url: &str, timeouts: &Timeouts) -> Error {
        let url = without_query(url).to_owned();
        match error {
            ureq::Error::Timeout(timeout) => from_timeout(timeout, url, timeouts),
            ureq::Error::Io(error) => from_io(error, url),
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::InvalidProxyUrl
            | ureq::Error::ConnectProxyFailed(_) => Error::NotSent { url, reason: error.to_string() },
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) | ureq::Error::TlsRequired => {
                Error::Tls { url, reason: error.to_string() }
            }
            // Its text could repeat the URL.
            ureq::Error::BadUri(_) => Error::Invalid { url, reason: "it is no URL of a server".to_owned() },
            ureq::Error::Http(_) => Error::Invalid { url, reason: error.to_string() },
            other => Error::Lost { url, reason: other.to_string() },
        }
    }
}

/// Which of the timeouts it was; those before the request is sent leave no doubt.
fn from_timeout(timeout: ureq::Timeout, url: String, timeouts: &Timeouts) -> Error {
    let seconds = |duration: Duration| duration.as_secs_f64();
    match timeout {
        ureq::Timeout::Resolve | ureq::Timeout::Connect => {
            let reason = format!("no connection within {} s", seconds(timeouts.connect));
            Error::NotSent { url, reason }
        }
        ureq::Timeout::PerRead => {
            let reason = format!("nothing came for {} s", seconds(timeouts.idle));
            Error::Lost { url, reason }
        }
        ureq::Timeout::PerWrite => {
            let reason = format!("nothing could be sent for {} s", seconds(timeouts.idle));
            Error::Lost { url, reason }
        }
        ureq::Timeout::Global => {
            let reason = format!("no whole answer within {} s", seconds(timeouts.call));
            Error::Lost { url, reason }
        }
        other => Error::Lost { url, reason: format!("too slow ({other})") },
    }
}

fn from_io(error: io::Error, url: String) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Unreadable>()) {
        return from_file(error);
    }
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the connection ended too early".to_owned(),
        _ => error.to_string(),
    };
    if is_tls(&error) {
        return Error::Tls { url, reason };
    }
    // These come from opening a connection: an open one has other ways to fail within our timeouts.
    let is_from_connecting = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::QuotaExceeded
    );
    // The standard library has no kind for a name that is not found.
    let is_from_resolving = reason.starts_with("failed to lookup address");
    if is_from_connecting || is_from_resolving {
        Error::NotSent { url, reason }
    } else {
        Error::Lost { url, reason }
    }
}

fn from_file(error: io::Error) -> Error {
    let inner: Option<Box<dyn error::Error + Send + Sync>> = error.into_inner();
    match inner.and_then(|inner| inner.downcast::<Unreadable>().ok()) {
        Some(unreadable) => Error::File { path: unreadable.path, source: unreadable.source },
        None => Error::File { path: PathBuf::new(), source: io::Error::other("unreadable") },
    }
}

/// Whether TLS itself failed: the library wraps that as invalid data. A record that cannot
/// be decrypted is a broken connection rather than a server that cannot be trusted.
fn is_tls(error: &io::Error) -> bool {
    let is_from_inside = error.kind() == io::ErrorKind::InvalidData && error.get_ref().is_some();
    let text = error.to_string();
    let is_broken_record = ["decrypt", "BadRecordMac", "InternalError", "CloseNotify", "UserCanceled"]
        .iter()
        .any(|word| text.contains(word));
    is_from_inside && !is_broken_record
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://s.example/a?signature=secret#x";

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Kind {
        Invalid,
        NotSent,
        Tls,
        Lost,
    }

    #[track_caller]
    fn check(error: ureq::Error, expected: Kind) {
        let error = Error::from_library(error, URL, &Timeouts::DEFAULT);
        let kind = match &error {
            Error::Invalid { .. } => Kind::Invalid,
            Error::NotSent { .. } => Kind::NotSent,
            Error::Tls { .. } => Kind::Tls,
            Error::Lost { .. } => Kind::Lost,
            other => panic!("{other}"),
        };
        assert_eq!(kind, expected, "{error}");
        let text = format!("{error} {error:?}");
        assert!(text.contains("https://s.example/a") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn only_what_fails_before_the_request_is_sent_is_not_sent() {
        use io::ErrorKind;
        check(ureq::Error::Timeout(ureq::Timeout::Resolve), Kind::NotSent);
        check(ureq::Error::Timeout(ureq::Timeout::Connect), Kind::NotSent);
        check(ureq::Error::HostNotFound, Kind::NotSent);
        check(ureq::Error::ConnectProxyFailed("407".to_owned()), Kind::NotSent);
        check(ureq::Error::Io(ErrorKind::ConnectionRefused.into()), Kind::NotSent);
        check(ureq::Error::Io(ErrorKind::NetworkUnreachable.into()), Kind::NotSent);
        let unknown = "failed to lookup address information: Name or service not known";
        check(ureq::Error::Io(io::Error::other(unknown)), Kind::NotSent);
        for timeout in [ureq::Timeout::Global, ureq::Timeout::PerRead, ureq::Timeout::SendRequest] {
            check(ureq::Error::Timeout(timeout), Kind::Lost);
        }
        for kind in [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof] {
            check(ureq::Error::Io(kind.into()), Kind::Lost);
        }
        check(ureq::Error::LargeResponseHeader(2, 1), Kind::Lost);
        check(ureq::Error::BadUri("https://s.example/a?signature=secret".to_owned()), Kind::Invalid);
    }

    #[test]
    fn a_broken_record_is_no_untrusted_server() {
        let tls = |text: &str| ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, text.to_owned()));
        check(tls("invalid peer certificate: UnknownIssuer"), Kind::Tls);
        check(tls("received corrupt message of type InvalidContentType"), Kind::Tls);
        check(tls("received fatal alert: HandshakeFailure"), Kind::Tls);
        check(tls("cannot decrypt peer's message"), Kind::Lost);
        check(tls("received fatal alert: BadRecordMac"), Kind::Lost);
        check(ureq::Error::TlsRequired, Kind::Tls);
        check(ureq::Error::Io(io::ErrorKind::InvalidData.into()), Kind::Lost);
    }
}
