//! Small encodings of the W&B wire: JSON with `NaN` in it, base64, ids, parts of a path.
//!
//! Separate because they know nothing of runs. Only what this server needs.

use std::borrow::Cow;

use serde_json::Value;

use crate::form;

/// JSON as Python writes it, with `NaN` and the infinities as strings; other text is unchanged.
pub fn finite(text: &str) -> Cow<'_, str> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut is_string = false;
    while let Some(first) = rest.chars().next() {
        let word = ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| rest.starts_with(word));
        let length = match (first, word) {
            (_, Some(word)) if !is_string => {
                out.push_str(&format!("\"{word}\""));
                word.len()
            }
            ('\\', _) if is_string => {
                let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..length]);
                length
            }
            _ => {
                is_string ^= first == '"';
                out.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    Cow::Owned(out)
}

/// Reads JSON as Python writes it.
///
/// # Errors
/// When it is none.
pub fn read(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(&finite(text))
}

/// With padding.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) & 63;
            out.push(if digit <= chunk.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    out
}

/// An id in the service's form.
pub fn storage_id(kind: &str, parts: [&str; 3]) -> String {
    base64(format!("{kind}:v1:{}", parts.join(":")).as_bytes())
}

/// The parts of a path, decoded.
pub fn segments(path: &str) -> Vec<String> {
    // A plus is one in a path.
    path.trim_matches('/').split('/').map(|part| form::decode(&part.replace('+', "%2B"))).collect()
}

/// A part of a path, encoded; slashes stay.
pub fn encode(part: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let encode =
        |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    part.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(finite(text), expected);
        assert!(read(text).is_ok());
    }

    #[test]
    fn numbers_that_json_lacks_become_strings() {
        check(
            r#"{"a": NaN, "b": [-Infinity, Infinity, 1]}"#,
            r#"{"a": "NaN", "b": ["-Infinity", "Infinity", 1]}"#,
        );
        check(r#"{"NaN": "is NaN \" NaN \\", "é": NaN}"#, r#"{"NaN": "is NaN \" NaN \\", "é": "NaN"}"#);
    }

    #[test]
    fn bytes_become_base64() {
        let encoded: Vec<String> =
            ["", "a", "ab", "abc", "api:key"].map(|text| base64(text.as_bytes())).into();
        assert_eq!(encoded, ["", "YQ==", "YWI=", "YWJj", "YXBpOmtleQ=="]);
    }

    #[test]
    fn parts_of_a_path_are_decoded() {
        assert_eq!(segments("/files/a%20b/c+d/e%2Ff"), ["files", "a b", "c+d", "e/f"]);
        assert_eq!(encode("a b/ä+.txt"), "a%20b/%C3%A4%2B.txt");
    }
}
