//! Where the API is, and which other places a client may be sent to.
//!
//! Pure text. Three promises rest on it: the key goes to one origin only, and to another machine only with TLS,
//! and a base URL is understood however it is written.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

use crate::http::form::percent_encoded;

pub const DEFAULT_BASE_URL: &str = "https://api.together.ai";

/// The beginning of every URL of the API, without `/v1` and without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

/// Why a text is no base URL. What may be a password is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    #[error("`{0}` is no URL such as {DEFAULT_BASE_URL}")]
    Unreadable(String),
    #[error("a base URL may hold no user name or password")]
    UserInfo,
    #[error("the base URL {0} may have no query and no fragment")]
    Query(String),
    #[error("the base URL {0} must begin with https://: a key is sent over plain http to this machine only")]
    Insecure(String),
}

impl BaseUrl {
    /// `text` as a base URL, with or without `/v1` and slashes at its end.
    pub fn parse(text: &str) -> Result<BaseUrl, BaseUrlError> {
        let base = BaseUrl::parse_keyless(text)?;
        if base.is_in_clear() { Err(BaseUrlError::Insecure(base.0)) } else { Ok(base) }
    }

    /// The same for a server that gets no key: plain http to any host is allowed.
    pub fn parse_keyless(text: &str) -> Result<BaseUrl, BaseUrlError> {
        let text = text.trim();
        if text.contains('@') {
            return Err(BaseUrlError::UserInfo);
        }
        let bare = crate::http::without_query(text);
        if bare.len() != text.len() {
            return Err(BaseUrlError::Query(bare.to_owned()));
        }
        let origin = Origin::of(text).ok_or_else(|| BaseUrlError::Unreadable(text.to_owned()))?;
        let path_at = text.find("://").map_or(0, |at| at + 3);
        let path_at = text[path_at..].find('/').map_or(text.len(), |at| path_at + at);
        let path = text[path_at..].trim_end_matches('/');
        let path = path.strip_suffix("/v1").unwrap_or(path).trim_end_matches('/');
        Ok(BaseUrl(format!("{origin}{path}")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Scheme, host and port, the latter where it is not the scheme's own.
    pub fn origin(&self) -> String {
        Origin::of(&self.0).map(|origin| origin.to_string()).unwrap_or_default()
    }

    pub fn is_loopback(&self) -> bool {
        Origin::of(&self.0).is_some_and(|origin| origin.is_loopback())
    }

    /// Whether what is sent there can be read on the way: over plain http to another machine.
    pub fn is_in_clear(&self) -> bool {
        Origin::of(&self.0).is_none_or(|origin| !origin.is_secure() && !origin.is_loopback())
    }

    pub(crate) fn is_same_origin(&self, url: &str) -> bool {
        Origin::of(url).is_some_and(|origin| Some(origin) == Origin::of(&self.0))
    }

    /// Whether the API may send us to `url`: with TLS, or on this machine if it is here itself.
    pub(crate) fn may_send_to(&self, url: &str) -> bool {
        let has_user = url.split(['/', '?', '#']).nth(2).is_some_and(|authority| authority.contains('@'));
        Origin::of(url).is_some_and(|origin| {
            !has_user && (origin.is_secure() || (origin.is_loopback() && self.is_loopback()))
        })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[derive(PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn of(url: &str) -> Option<Origin> {
        let uri: Uri = crate::http::without_query(url).parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let own_port = own_port(&scheme)?;
        let authority = uri.authority()?;
        // A port that is no port must not become the scheme's own.
        let port_text = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
        let has_port = port_text.len() != authority.host().len();
        let port = if has_port { authority.port_u16()? } else { own_port };
        let host = authority.host().to_ascii_lowercase();
        (!host.is_empty()).then_some(Origin { scheme, host, port })
    }

    fn is_secure(&self) -> bool {
        self.scheme == "https"
    }

    fn is_loopback(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        self.host == "localhost" || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme, self.host)?;
        if own_port(&self.scheme) == Some(self.port) { Ok(()) } else { write!(formatter, ":{}", self.port) }
    }
}

fn own_port(scheme: &str) -> Option<u16> {
    match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

/// Where `location` leads, seen from `url`; nothing where it is no place that we understand.
pub fn resolve(url: &str, location: &str) -> Option<String> {
    let origin = Origin::of(url)?;
    if location.starts_with("//") {
        Some(format!("{}:{location}", origin.scheme))
    } else if location.starts_with('/') {
        Some(format!("{origin}{location}"))
    } else {
        Origin::of(location).map(|_| location.to_owned())
    }
}

/// `text` as a value in a query.
pub fn encode(text: &str) -> String {
    percent_encoded(text, b"-._~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_understood_however_it_is_written() {
        let check = |text: &str, expected: &str, origin: &str| {
            let base = BaseUrl::parse(text).unwrap();
            assert_eq!((base.as_str(), base.origin().as_str()), (expected, origin), "{text}");
        };
        let usual = "https://api.together.ai";
        check(usual, usual, usual);
        check("https://api.together.ai/", usual, usual);
        check("https://api.together.ai/v1", usual, usual);
        check(" HTTPS://API.Together.ai:443/v1// ", usual, usual);
        check("https://api.together.ai/v1/v1", "https://api.together.ai/v1", usual);
        check("https://proxy.corp:8443/to/v1/", "https://proxy.corp:8443/to", "https://proxy.corp:8443");
        check("https://proxy.corp/rev1", "https://proxy.corp/rev1", "https://proxy.corp");
        check("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080", "http://127.0.0.1:8080");
        check("http://127.9.9.9", "http://127.9.9.9", "http://127.9.9.9");
        check("http://localhost:1/", "http://localhost:1", "http://localhost:1");
        check("http://[::1]:99/v1", "http://[::1]:99", "http://[::1]:99");
        check(DEFAULT_BASE_URL, DEFAULT_BASE_URL, DEFAULT_BASE_URL);
    }

    #[test]
    fn a_base_url_that_would_betray_the_key_is_refused() {
        let check = |text: &str| BaseUrl::parse(text).unwrap_err();
        assert!(matches!(check("http://api.together.ai"), BaseUrlError::Insecure(_)));
        assert!(matches!(check("http://127.0.0.1.example.com"), BaseUrlError::Insecure(_)));
        assert!(matches!(check("http://localhost.example.com"), BaseUrlError::Insecure(_)));
        assert!(matches!(check("http://[::2]/"), BaseUrlError::Insecure(_)));
        assert!(matches!(check("http://0.0.0.0/"), BaseUrlError::Insecure(_)));
        assert!(matches!(check("https://u:secret@api.together.ai"), BaseUrlError::UserInfo));
        assert!(!check("https://u:secret@api.together.ai").to_string().contains("secret"));
        assert!(matches!(check("https://api.together.ai/?key=secret"), BaseUrlError::Query(_)));
        assert!(!check("https://api.together.ai/?key=secret").to_string().contains("secret"));
        assert!(matches!(check("https://api.together.ai/#x"), BaseUrlError::Query(_)));
        for text in ["", "api.together.ai", "ftp://api.together.ai", "https://", "https://a:b/", "/v1"] {
            assert!(matches!(check(text), BaseUrlError::Unreadable(_)), "{text}");
        }
    }

    #[test]
    fn a_server_that_gets_no_key_may_be_asked_over_plain_http() {
        let check = |text: &str, is_in_clear: bool| {
            let base = BaseUrl::parse_keyless(text).unwrap();
            assert_eq!((base.as_str(), base.is_in_clear()), (text, is_in_clear));
        };
        check("http://gpu-node-7:8000", true);
        check("http://10.0.0.7:8000", true);
        check("http://127.0.0.1.example.com", true);
        check("http://localhost:8000", false);
        check("https://gpu-node-7:8000", false);
        assert!(matches!(BaseUrl::parse_keyless("http://u:p@node"), Err(BaseUrlError::UserInfo)));
        assert!(matches!(BaseUrl::parse_keyless("node:8000"), Err(BaseUrlError::Unreadable(_))));
    }

    #[test]
    fn the_key_belongs_to_one_scheme_host_and_port() {
        let check = |base: &str, url: &str, expected: bool| {
            assert_eq!(BaseUrl::parse(base).unwrap().is_same_origin(url), expected, "{base} {url}");
        };
        let usual = DEFAULT_BASE_URL;
        check(usual, "https://API.together.ai:443/x?y=z", true);
        check(usual, "https://api.together.ai:444/", false);
        check(usual, "http://api.together.ai/", false);
        check(usual, "https://api.together.ai.evil.example/", false);
        check(usual, "https://evil.example/api.together.ai", false);
        check(usual, "https://api.together.ai@evil.example/", false);
        check(usual, "https://api.together.ai:443x/", false);
        check("http://127.0.0.1:80", "http://127.0.0.1/", true);
        check("http://127.0.0.1:81", "http://127.0.0.1:82/", false);
        check("http://127.0.0.1:81", "http://localhost:81/", false);
        check("http://[::1]:81", "http://[::1]:81/a", true);
    }

    #[test]
    fn nobody_is_sent_where_there_is_no_tls_but_on_this_machine() {
        let check = |base: &str, url: &str, expected: bool| {
            assert_eq!(BaseUrl::parse(base).unwrap().may_send_to(url), expected, "{base} {url}");
        };
        let usual = DEFAULT_BASE_URL;
        check(usual, "https://storage.example/b?sig=1", true);
        check(usual, "http://storage.example/b", false);
        check(usual, "http://127.0.0.1:1/b", false);
        check(usual, "https://u:p@storage.example/b", false);
        check(usual, "https://storage.example/b?mail=a@b", true);
        check(usual, "file:///etc/passwd", false);
        check("http://127.0.0.1:1", "http://127.0.0.1:2/b", true);
        check("http://127.0.0.1:1", "http://[::1]:2/b", true);
        check("http://127.0.0.1:1", "http://storage.example/b", false);
        check("http://127.0.0.1:1", "https://storage.example/b", true);
    }

    #[test]
    fn a_location_is_resolved_by_hand() {
        let check = |location: &str, expected: Option<&str>| {
            assert_eq!(resolve("https://a.example/x?y", location).as_deref(), expected, "{location}");
        };
        check("https://b.example/z?s=1", Some("https://b.example/z?s=1"));
        check("/z?s=1", Some("https://a.example/z?s=1"));
        check("//b.example/z", Some("https://b.example/z"));
        check("z", None);
        check("", None);
        check("javascript:1", None);
    }

    #[test]
    fn values_of_a_query_are_encoded() {
        assert_eq!(encode("meta/Llama 3.1&ü~"), "meta%2FLlama%203.1%26%C3%BC~");
    }
}
