//! What a store, or the way to it, said: as an error of the kind that the engine tells apart, in words without markup.
//!
//! The body of an answer may hold an access key or a session token: of it only the code and the message are shown.

use std::error::Error;
use std::io;

use ctxtune_engine::storage::Unusable;
use object_store::Error as StoreError;

/// What to do where the store does not know who we are.
pub const KEY_HINT: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN); where the AWS CLI \
                            knows a profile: eval \"$(aws configure export-credentials --format env)\"";

/// An answer that is no success, or none.
#[derive(Debug)]
pub struct Refusal {
    /// The status, where there was an answer.
    pub status: Option<u16>,
    /// What was said.
    pub said: String,
    /// The region that the bucket is in, where the answer names one.
    pub region: Option<String>,
}

impl Refusal {
    /// The error of it.
    pub fn into_io(self, bucket: &str) -> io::Error {
        let said = self.said;
        match self.status {
            Some(404) if said.contains("NoSuchBucket") => {
                Unusable::NoBucket { bucket: bucket.to_owned(), said }.into()
            }
            Some(404) => io::Error::new(io::ErrorKind::NotFound, said),
            Some(401 | 403) => refused(&said),
            Some(412) => io::Error::new(io::ErrorKind::StaleNetworkFileHandle, said),
            Some(416) => io::Error::new(io::ErrorKind::UnexpectedEof, said),
            _ => io::Error::other(said),
        }
    }
}

/// An error of the library.
pub fn of_store(error: &StoreError, bucket: &str) -> io::Error {
    let said = said(&innermost(error).to_string());
    let status = match error {
        StoreError::NotFound { .. } => Some(404),
        StoreError::Precondition { .. } | StoreError::NotModified { .. } => Some(412),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => Some(403),
        _ if said.starts_with("416 ") => Some(416),
        _ => None,
    };
    // An answer whose end is missing, which the library leaves to us; others it has asked for again already.
    let is_lost = status.is_none() && !said.starts_with(|first: char| first.is_ascii_digit());
    if is_lost && matches!(error, StoreError::Generic { .. }) && !error.to_string().contains("max_retries") {
        return io::Error::new(io::ErrorKind::ConnectionAborted, said);
    }
    Refusal { status, said, region: None }.into_io(bucket)
}

fn refused(said: &str) -> io::Error {
    Unusable::Key { message: format!("the store refuses the credentials: {said}"), hint: KEY_HINT.to_owned() }
        .into()
}

/// The error at the bottom: those above it add addresses and counts.
pub fn innermost<'e>(error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner
}

/// A text without markup: status, code and message of an answer in XML, else its first line.
pub fn said(text: &str) -> String {
    let text = text.strip_prefix("Server returned non-2xx status code: ").unwrap_or(text);
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    let plain = text.split(['<', '{', '\n']).next().unwrap_or_default().trim().trim_end_matches(':');
    let parts = [Some(plain).filter(|plain| !plain.is_empty()), element("Code"), element("Message")];
    let said = parts.into_iter().flatten().collect::<Vec<_>>().join(": ");
    said.chars().take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_body_only_the_code_and_the_message_are_shown() {
        let body = "Server returned non-2xx status code: 400 Bad Request: <?xml version=\"1.0\"?>\n<Error><Code>ExpiredToken\
                    </Code><Message>The provided token has expired.</Message><Token-0>SECRET</Token-0></Error>";
        assert_eq!(said(body), "400 Bad Request: ExpiredToken: The provided token has expired.");
        assert_eq!(said("Connection refused (os error 111)"), "Connection refused (os error 111)");
        assert_eq!(said("400 Bad Request: {\"token\": \"SECRET\"}"), "400 Bad Request");
        assert_eq!(said(""), "");
    }
}
