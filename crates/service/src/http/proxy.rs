//! A proxy from the text of the usual variables, which are read elsewhere.
//!
//! The HTTP library would read the environment by itself, and takes the entries of `NO_PROXY` more narrowly
//! than people write them.

use ureq::ProxyProtocol;

pub use ureq::Proxy;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// It is no URL of a proxy. The text is not repeated: it may hold a password.
    #[error("the proxy is no URL such as http://host:port")]
    Unreadable,
    #[error("a {0} proxy is not supported, only http and https")]
    Unsupported(String),
}

/// The proxy at `url` (`HTTPS_PROXY`, else `ALL_PROXY`), past which the hosts in `exceptions`
/// (`NO_PROXY`, with commas) are asked directly. `example.com` means its subdomains too,
/// white space is ignored, and the machine itself is never asked through a proxy.
pub fn parse(url: &str, exceptions: &str) -> Result<Proxy, ProxyError> {
    let plain = Proxy::new(url.trim()).map_err(|_| ProxyError::Unreadable)?;
    if !matches!(plain.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) {
        return Err(ProxyError::Unsupported(plain.protocol().to_string()));
    }
    let mut builder = Proxy::builder(plain.protocol()).host(plain.host()).port(plain.port());
    if let Some(name) = plain.username() {
        builder = builder.username(name);
    }
    if let Some(password) = plain.password() {
        builder = builder.password(password);
    }
    let own = ["localhost", "127.*", "[::1]"].map(str::to_owned);
    let named = exceptions.split(',').map(str::trim).filter(|entry| !entry.is_empty()).flat_map(spellings);
    own.into_iter()
        .chain(named)
        .fold(builder, |builder, entry| builder.no_proxy(&entry))
        .build()
        .map_err(|_| ProxyError::Unreadable)
}

/// What an entry of `NO_PROXY` is for the library.
fn spellings(entry: &str) -> Vec<String> {
    // A port cannot be told apart there; the host is what is meant.
    let host = match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => host,
        _ => entry,
    };
    match host.strip_prefix('.') {
        _ if host.contains('*') => vec![host.to_owned()],
        Some(domain) => vec![domain.to_owned(), host.to_owned()],
        None if host.contains(':') && !host.starts_with('[') => vec![format!("[{host}]")],
        None => vec![host.to_owned(), format!(".{host}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_read_as_people_write_them() {
        let proxy =
            parse("http://u:p%40@proxy.corp:8080", " example.com, .b.org,10.0.0.1:80,::2 ,,").unwrap();
        let check = |url: &str, is_direct: bool| {
            assert_eq!(proxy.is_no_proxy(&url.parse().unwrap()), is_direct, "{url}");
        };
        check("https://example.com/x", true);
        check("https://api.Example.com/x", true);
        check("https://notexample.com/x", false);
        check("https://a.b.org", true);
        check("https://b.org", true);
        check("https://10.0.0.1", true);
        check("https://[::2]:9", true);
        check("https://api.together.ai", false);
        check("http://127.0.0.1:9", true);
        check("http://localhost:9", true);
        check("http://[::1]:9", true);
        assert_eq!((proxy.username(), proxy.password()), (Some("u"), Some("p@")));
        assert_eq!((proxy.host(), proxy.port()), ("proxy.corp", 8080));
        assert!(parse("proxy.corp:1", "*").unwrap().is_no_proxy(&"https://any".parse().unwrap()));
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_its_password() {
        assert_eq!(parse("http://", "").unwrap_err(), ProxyError::Unreadable);
        let error = parse("socks5://u:secret@h:1", "").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(matches!(error, ProxyError::Unsupported(_)));
    }
}
