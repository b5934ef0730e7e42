//! The fields of a form, `multipart/form-data` or urlencoded; the query of a URL and the parts of its path.
//!
//! It reads plain fields only; a file in a form is refused.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The fields of a form, by its content type. The error says why the body is none.
pub fn fields(content_type: &str, body: &[u8]) -> Result<Vec<(String, String)>, String> {
    let text = std::str::from_utf8(body).map_err(|_| "the form is not UTF-8".to_owned())?;
    let lower = content_type.to_ascii_lowercase();
    if lower.starts_with("application/x-www-form-urlencoded") {
        return Ok(urlencoded(text));
    }
    let boundary = lower.find("boundary=").map(|start| &content_type[start + "boundary=".len()..]);
    match boundary.map(|rest| rest.split(';').next().unwrap_or_default().trim_matches('"')) {
        Some(boundary) if lower.starts_with("multipart/form-data") && !boundary.is_empty() => {
            parts(text, &format!("--{boundary}"))
        }
        _ => Err(format!("content type `{content_type}` is no form")),
    }
}

fn parts(text: &str, delimiter: &str) -> Result<Vec<(String, String)>, String> {
    let mut fields = Vec::new();
    for part in text.split(delimiter).skip(1) {
        if part.starts_with("--") {
            return Ok(fields);
        }
        let part = part.strip_prefix("\r\n").ok_or("a part does not begin with a line end")?;
        let (head, value) = part.split_once("\r\n\r\n").ok_or("a part has no blank line")?;
        let value = value.strip_suffix("\r\n").ok_or("a part does not end with a line end")?;
        if head.to_ascii_lowercase().contains("filename=") {
            return Err("a file in the form: only plain fields are expected".to_owned());
        }
        let name = head.split("name=\"").nth(1).and_then(|rest| rest.split('"').next());
        fields.push((name.ok_or("a part has no name")?.to_owned(), value.to_owned()));
    }
    Err("the form has no end".to_owned())
}

/// `a=b&c=d`, decoded; `+` is a space.
pub fn urlencoded(text: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| decode(&text.replace('+', " "));
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

pub fn segments(path: &str) -> Vec<String> {
    path.trim_matches('/').split('/').map(decode).collect()
}

/// A path, encoded; slashes stay.
pub fn encode(path: &str) -> String {
    const ESCAPED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    utf8_percent_encode(path, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content_type: &str, body: &str, expected: Result<&[(&str, &str)], &str>) {
        let fields = fields(content_type, body.as_bytes());
        match expected {
            Ok(expected) => {
                let fields = fields.unwrap();
                let seen: Vec<_> = fields.iter().map(|(name, value)| (&name[..], &value[..])).collect();
                assert_eq!(seen, expected);
            }
            Err(part) => assert!(fields.as_ref().is_err_and(|error| error.contains(part)), "{fields:?}"),
        }
    }

    #[test]
    fn fields_are_read_from_both_forms() {
        let body = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb c\r\n--x\r\nContent-Disposition: form-data; name=\"d\"\r\n\r\n\r\n--x--\r\n";
        check("multipart/form-data; boundary=x", body, Ok(&[("a", "b c"), ("d", "")]));
        check("multipart/form-data; boundary=\"x\"", body, Ok(&[("a", "b c"), ("d", "")]));
        check("application/x-www-form-urlencoded", "a=b+c&d=%2Fe%", Ok(&[("a", "b c"), ("d", "/e%")]));
    }

    #[test]
    fn what_is_no_form_of_plain_fields_is_refused() {
        check("application/json", "{}", Err("is no form"));
        check("multipart/form-data", "", Err("is no form"));
        check("multipart/form-data; boundary=x", "--x\r\n", Err("no blank line"));
        check("multipart/form-data; boundary=x", "--x\r\nname=\"a\"\r\n\r\nb\r\n", Err("has no end"));
        let file = "--x\r\nContent-Disposition: form-data; name=\"a\"; filename=\"b\"\r\n\r\nc\r\n--x--";
        check("multipart/form-data; boundary=x", file, Err("a file in the form"));
    }

    #[test]
    fn parts_of_a_path_are_decoded() {
        assert_eq!(segments("/files/a%20b/c+d/e%2Ff"), ["files", "a b", "c+d", "e/f"]);
        assert_eq!(encode("a b/ä+.txt"), "a%20b/%C3%A4%2B.txt");
    }
}
