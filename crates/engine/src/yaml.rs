//! YAML files as text and as values, with what is wrong said by line and in words of this program.
//!
//! Separate because four kinds of files are YAML, and the parser's own messages are for programmers.

use serde::de::DeserializeOwned;
use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter};

/// The text of a file; a byte order mark is the parser's to skip.
///
/// # Errors
/// When it is not UTF-8: what it is, and where.
pub fn text(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err("expected UTF-8 text, got UTF-16".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        format!("line {line}: expected UTF-8 text")
    })
}

/// The value that `text` is.
///
/// # Errors
/// When it is not YAML, or another value: what is wrong, and where.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| explain(&error))
}

fn explain(error: &Error) -> String {
    let error = error.without_snippet();
    let at = error.location().filter(|at| at.line() > 0);
    let what = match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` is there twice"),
        Error::MultipleDocuments { .. } => "expected one document, got a second one (`---`)".to_owned(),
        Error::NonFiniteFloat { value, .. } => format!("expected a finite number, got `{value}`"),
        error => UserMessageFormatter.format_message(error).into_owned(),
    };
    match at {
        Some(at) => format!("line {}, column {}: {what}", at.line(), at.column()),
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[track_caller]
    fn check(yaml: &str, expected: &str) {
        let said = parse::<Value>(yaml).map_or_else(|error| error, |value| value.to_string());
        assert_eq!(said, expected);
    }

    #[test]
    fn what_is_wrong_is_said_by_line_and_without_words_about_code() {
        check("seed: 7\n", r#"{"seed":7}"#);
        check("\u{feff}seed: 7\n", r#"{"seed":7}"#);
        check("seed: 1\nseed: 2\n", "line 2, column 1: the key `seed` is there twice");
        check("seed: 7\n---\nseed: 8\n", "line 3, column 1: expected one document, got a second one (`---`)");
        check("a: .nan\n", "line 1, column 4: expected a finite number, got `.nan`");
        check("a: b: c\n", "line 1, column 5: mapping values are not allowed in this context");
        check("a: [1\n", "line 1, column 4: unclosed bracket '['");
        check("a: 'x\n", "line 1, column 4: unclosed quote");
        check("a: *b\n", "line 1, column 4: reference to unknown value");
    }

    #[test]
    fn text_is_utf8() {
        assert_eq!(text(b"a: 1\n".to_vec()).as_deref(), Ok("a: 1\n"));
        assert_eq!(text(b"\xff\xfea\0".to_vec()).unwrap_err(), "expected UTF-8 text, got UTF-16");
        assert_eq!(text(b"a: 1\nb: \xe9\n".to_vec()).unwrap_err(), "line 2: expected UTF-8 text");
    }
}
