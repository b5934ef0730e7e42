//! The words of a server, made fit to print.
//!
//! Separate because they come from outside: they may be JSON in several shapes, a page of a
//! proxy, or empty; they may echo the key, hold escape sequences for the terminal, or be
//! endless. Pure.

use serde_json::Value;

/// The most bytes that are kept of a server's words.
pub const MOST_BYTES: usize = 2048;

/// What `body` says, on one line, without control characters, each of `secrets` replaced by
/// `[key]`, at most [`MOST_BYTES`] long.
pub fn said(body: &[u8], secrets: &[&str]) -> String {
    // Most of a long page is of no use to anybody; the cut is far above what is kept.
    let text = String::from_utf8_lossy(&body[..body.len().min(64 << 10)]);
    let words = match serde_json::from_slice::<Value>(body) {
        Ok(value) => words_of(&value).unwrap_or_else(|| text.clone().into_owned()),
        Err(_) => title(&text).unwrap_or_else(|| text.clone().into_owned()),
    };
    printable(&words, secrets)
}

/// `text` fit to print: see [`said`].
pub fn printable(text: &str, secrets: &[&str]) -> String {
    let mut plain = plain(text);
    // After control characters are gone, lest one inside a key hides it; before the cut, lest half a key stays.
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        plain = plain.replace(secret, "[key]");
    }
    cut(&plain, MOST_BYTES)
}

/// Replaces each of `secrets` in every text of `value`, keys of objects included, as [`said`] does: a
/// server may echo the key where all is well.
pub fn redact(value: &mut Value, secrets: &[&str]) {
    match value {
        Value::String(text) => redact_text(text, secrets),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, secrets)),
        Value::Object(fields) => {
            *fields = std::mem::take(fields)
                .into_iter()
                .map(|(mut name, mut item)| {
                    redact_text(&mut name, secrets);
                    redact(&mut item, secrets);
                    (name, item)
                })
                .collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn redact_text(text: &mut String, secrets: &[&str]) {
    let holds =
        |secret: &&str| !secret.is_empty() && text.len() >= secret.len() && plain(text).contains(*secret);
    if secrets.iter().any(holds) {
        *text = printable(text, secrets);
    }
}

/// On one line, without what steers a terminal or turns the direction of text.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for character in text.chars() {
        match character {
            _ if character.is_whitespace() => {
                if !plain.ends_with(' ') && !plain.is_empty() {
                    plain.push(' ');
                }
            }
            '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' => {}
            _ if character.is_control() => {}
            _ => plain.push(character),
        }
    }
    plain.truncate(plain.trim_end().len());
    plain
}

fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// `{"error": {"message", "code"}}`, `{"error": "text"}`, `{"errors": [{"message"}]}`, `{"message"}`,
/// `{"detail"}`.
fn words_of(value: &Value) -> Option<String> {
    let text = |value: &Value, key: &str| value.get(key)?.as_str().map(str::to_owned);
    let first = value.get("errors").and_then(|errors| errors.get(0)).filter(|error| error.is_object());
    let error = match value.get("error") {
        Some(error) if error.is_object() => error,
        Some(Value::String(words)) => return Some(words.clone()),
        _ => first.unwrap_or(value),
    };
    let message = text(error, "message").or_else(|| text(error, "detail")).or_else(|| {
        // Words in a shape that nobody knows are still words.
        (!std::ptr::eq(error, value)).then(|| error.to_string())
    })?;
    let code = text(error, "code").filter(|code| !code.is_empty() && !message.contains(code.as_str()));
    Some(code.map_or(message.clone(), |code| format!("{message} ({code})")))
}

/// The title of an HTML page.
fn title(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let is_page =
        lower.trim_start().starts_with('<') && (lower.contains("<html") || lower.contains("<!doctype"));
    let start = lower.find("<title").filter(|_| is_page)?;
    let start = start + lower[start..].find('>')? + 1;
    let end = start + lower[start..].find("</title")?;
    let title = text[start..end].trim();
    (!title.is_empty()).then(|| title.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "tgp_v1_abcdef";

    fn check(body: &str, expected: &str) {
        assert_eq!(said(body.as_bytes(), &[KEY]), expected, "{body}");
    }

    #[test]
    fn words_are_found_in_every_shape() {
        check(r#"{"id":"x","error":{"message":"no","type":"t","param":null,"code":null}}"#, "no");
        check(
            r#"{"error":{"message":"no such model","code":"model_not_available"}}"#,
            "no such model (model_not_available)",
        );
        check(r#"{"error":{"message":"bad: x","code":"x"}}"#, "bad: x");
        check(r#"{"message":"not tunable"}"#, "not tunable");
        check(r#"{"error":"text"}"#, "text");
        check(r#"{"detail":"gone"}"#, "gone");
        check(r#"{"error":{"reason":7}}"#, r#"{"reason":7}"#);
        check(
            r#"{"errors":[{"message":"permission denied","path":["x"]}],"data":null}"#,
            "permission denied",
        );
        check(r#"{"errors":[1]}"#, r#"{"errors":[1]}"#);
        check("upstream connect error\n", "upstream connect error");
        check("", "");
        check("<html><head><TITLE >502 Bad\n Gateway</TITLE></head><body>x</body></html>", "502 Bad Gateway");
        check("<!DOCTYPE html><p>no title</p>", "<!DOCTYPE html><p>no title</p>");
        check(r#"{"error": {"mess"#, r#"{"error": {"mess"#);
    }

    #[test]
    fn an_echoed_key_is_not_repeated() {
        check(r#"{"error":"bad key tgp_v1_abcdef and tgp_v1_abcdef"}"#, "bad key [key] and [key]");
        check(r#"{"error":"\u0074gp_v1_abcdef"}"#, "[key]");
        check("tgp_v1\u{1b}_abc\u{0}def", "[key]");
        check("tgp_v1_\u{200b}abcdef", "[key]");
        check(r#"{"unknown":"tgp_v1_abcdef"}"#, r#"{"unknown":"[key]"}"#);
        check("<html><title>tgp_v1_abcdef</title>", "[key]");
        let long = format!("{}{KEY}", "a".repeat(MOST_BYTES - 8));
        assert!(!said(long.as_bytes(), &[KEY]).contains("tgp"), "half a key is left");
        assert_eq!(said(b"abc", &[""]), "abc");
    }

    #[test]
    fn a_key_in_an_answer_is_not_kept() {
        let mut value = serde_json::json!({
            "id": "ft-1", "n": 1, "events": [{ "message": "a tgp_v1_\u{200b}abcdef" }], "tgp_v1_abcdef": "tgp_v1",
        });
        redact(&mut value, &[KEY, ""]);
        let expected = serde_json::json!({
            "id": "ft-1", "n": 1, "events": [{ "message": "a [key]" }], "[key]": "tgp_v1",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn nothing_steers_the_terminal() {
        check("a\u{1b}[31mb\u{7}\u{9b}2J\r\n\tc\u{85}d\u{202e}e", "a[31mb2J c de");
    }

    #[test]
    fn the_length_is_bounded_on_a_character() {
        for text in ["ü".repeat(5000), "a".repeat(100_000), "€".repeat(2000)] {
            let words = said(text.as_bytes(), &[]);
            assert!(words.len() <= MOST_BYTES && words.len() > MOST_BYTES - 8, "{}", words.len());
            assert!(words.ends_with('…'));
        }
        assert_eq!(said("ü".repeat(1024).as_bytes(), &[]), "ü".repeat(1024));
        let broken = [b"ab\xff".as_slice(), &[b'c'; 10]].concat();
        assert_eq!(said(&broken, &[]), "ab\u{fffd}cccccccccc");
    }
}
