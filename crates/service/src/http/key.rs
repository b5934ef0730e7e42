//! What lets a request in: a key, and the form in which a server wants it.
//!
//! The one place where a key becomes text. The caller sees to it that the URL may know the key.

use base64::prelude::{BASE64_STANDARD, Engine};
use secrecy::{ExposeSecret, SecretString};
use ureq::http::HeaderValue;

#[derive(Clone, Copy)]
pub enum Key<'k> {
    Bearer(&'k SecretString),
    /// `Authorization: Basic`, the key being the password.
    Basic {
        user: &'k str,
        password: &'k SecretString,
    },
}

impl Key<'_> {
    /// What of it a server may echo and nobody may see.
    pub fn secrets(self) -> Vec<String> {
        match self {
            Key::Bearer(key) => vec![key.expose_secret().to_owned()],
            Key::Basic { user, password } => {
                let password = password.expose_secret();
                vec![BASE64_STANDARD.encode(format!("{user}:{password}")), password.to_owned()]
            }
        }
    }

    /// The header's value, marked so that nothing shows it; nothing where no header can hold it.
    pub fn header(self) -> Option<HeaderValue> {
        let text = match self {
            Key::Bearer(key) => format!("Bearer {}", key.expose_secret()),
            Key::Basic { .. } => format!("Basic {}", self.secrets()[0]),
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_base64_of_the_user_and_the_key() {
        let key = SecretString::from("k\u{ff}?>");
        let value = Key::Basic { user: "api", password: &key }.header().unwrap();
        assert_eq!(value.to_str().unwrap(), "Basic YXBpOmvDvz8+");
    }

    #[test]
    fn a_key_that_no_header_may_have_is_none() {
        let key = SecretString::from("a\nb");
        assert!(Key::Bearer(&key).header().is_none());
        // Inside of base64 anything goes.
        assert!(Key::Basic { user: "api", password: &key }.header().unwrap().is_sensitive());
    }
}
