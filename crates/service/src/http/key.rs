//! What lets a request in: a key, and the form in which a server wants it.
//!
//! The one place where a key becomes text. The caller sees to it that the URL may know the key.

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
                vec![base64(format!("{user}:{password}").as_bytes()), password.to_owned()]
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

/// `bytes` in the standard alphabet, padded.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_everybody() {
        let check = |text: &str, expected: &str| assert_eq!(base64(text.as_bytes()), expected);
        check("", "");
        check("f", "Zg==");
        check("fo", "Zm8=");
        check("foo", "Zm9v");
        check("foobar", "Zm9vYmFy");
        check("api:k\u{ff}?>", "YXBpOmvDvz8+");
    }

    #[test]
    fn a_key_that_no_header_may_have_is_none() {
        let key = SecretString::from("a\nb");
        assert!(Key::Bearer(&key).header().is_none());
        // Inside of base64 anything goes.
        assert!(Key::Basic { user: "api", password: &key }.header().unwrap().is_sensitive());
    }
}
