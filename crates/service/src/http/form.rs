//! Plain fields as `multipart/form-data`, and text as a piece of a URL.

use std::fmt::Write;

/// `text` as a piece of a URL: what is no letter, digit or one of `plain` is percent-encoded, byte by byte.
pub(crate) fn percent_encoded(text: &str, plain: &[u8]) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

pub fn encode(fields: &[(&str, String)]) -> (String, Vec<u8>) {
    let is_free = |boundary: &String| fields.iter().all(|(_, value)| !value.contains(boundary.as_str()));
    let mut boundary = "ctxtune-form".to_owned();
    while !is_free(&boundary) {
        boundary.push('-');
    }
    let mut body = String::new();
    for (name, value) in fields {
        // Writing to a `String` cannot fail.
        let _ = write!(
            body,
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        );
    }
    let _ = write!(body, "--{boundary}--\r\n");
    (format!("multipart/form-data; boundary={boundary}"), body.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_between_boundaries() {
        let (kind, body) = encode(&[("purpose", "fine-tune".to_owned()), ("name", "a\"b".to_owned())]);
        assert_eq!(kind, "multipart/form-data; boundary=ctxtune-form");
        let expected = "--ctxtune-form\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n\
            --ctxtune-form\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\na\"b\r\n--ctxtune-form--\r\n";
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    #[test]
    fn the_boundary_is_in_no_value() {
        let (kind, _) = encode(&[("a", "--ctxtune-form--\r\n".to_owned())]);
        assert_eq!(kind, "multipart/form-data; boundary=ctxtune-form---");
    }
}
