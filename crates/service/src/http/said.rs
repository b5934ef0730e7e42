//! Keys in what a server sends, and its error messages in a form that can be printed.
//!
//! Error bodies may be JSON in several shapes, a page of a proxy, or empty; they may echo the key, hold escape
//! sequences for the terminal, or be endless.
//!
//! Two rules, by what the text is. In a message for people a key of [`LONG_KEY`] characters or more is always
//! masked, a shorter one from `SHORT_KEY` on only where it stands alone, and one that is shorter still never: a
//! placeholder such as `none` is a word. In data only the characters of a long key are replaced, and nothing
//! else is changed, folded or cut; what a model generates is not even masked: see [`has_key`].

use std::borrow::Cow;

use serde_json::Value;

use ctxtune_python_json as python_json;

/// The most bytes of an error message that are kept.
pub const MOST_BYTES: usize = 2048;
/// Characters from which on a key cannot be part of a text by chance.
pub const LONG_KEY: usize = 16;
/// Characters from which on a key that stands alone is taken for the key.
pub(crate) const SHORT_KEY: usize = 8;
const MASK: &str = "[key]";

/// The error message in `body`, on one line, without control characters, with `secrets` masked, at most
/// [`MOST_BYTES`] long.
pub fn said(body: &[u8], secrets: &[&str]) -> String {
    let text = beginning(body);
    let words = match python_json::read(body) {
        Some(value) => words_of(&value).unwrap_or_else(|| text.clone().into_owned()),
        None => title(&text).unwrap_or_else(|| text.clone().into_owned()),
    };
    printable(&words, secrets)
}

/// What was said, behind a colon, for the end of a sentence; nothing where nothing was.
pub fn after_colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// The title of the web page in `body`, likewise; empty where it has none.
pub fn page_title(body: &[u8], secrets: &[&str]) -> String {
    let text = beginning(body);
    title(text.trim_start_matches('\u{feff}')).map(|title| printable(&title, secrets)).unwrap_or_default()
}

/// Most of a long page is of no use to anybody; the cut is far above what is kept.
fn beginning(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&body[..body.len().min(64 << 10)])
}

/// A message for people: see [`said`].
pub fn printable(text: &str, secrets: &[&str]) -> String {
    // After control characters are gone, lest one inside a key hides it; before the cut, lest half a key stays.
    let masked = secrets.iter().fold(plain(text), |text, secret| masked(&text, secret));
    cut(&masked, MOST_BYTES)
}

fn masked(text: &str, secret: &str) -> String {
    match secret.chars().count() {
        LONG_KEY.. => text.replace(secret, MASK),
        SHORT_KEY.. => masked_alone(text, secret),
        _ => text.to_owned(),
    }
}

/// `text` with `secret` masked where no letter, digit, `-` or `_` touches it.
fn masked_alone(text: &str, secret: &str) -> String {
    let is_of_word = |character: char| character.is_alphanumeric() || "-_".contains(character);
    let mut masked = String::new();
    let mut done = 0;
    for (start, _) in text.match_indices(secret) {
        let end = start + secret.len();
        let touches = text[..start].ends_with(is_of_word) || text[end..].starts_with(is_of_word);
        if !touches {
            masked.push_str(&text[done..start]);
            masked.push_str(MASK);
            done = end;
        }
    }
    masked.push_str(&text[done..]);
    masked
}

/// Whether `text` has one of `secrets` in it that is long enough not to be there by chance, also where
/// control characters or marks without width stand inside it.
pub fn has_key(text: &str, secrets: &[&str]) -> bool {
    let mut long = secrets.iter().filter(|secret| is_long(secret)).peekable();
    if long.peek().is_none() {
        return false;
    }
    let plain = plain(text);
    long.any(|secret| text.contains(*secret) || plain.contains(*secret))
}

pub fn is_long(secret: &str) -> bool {
    secret.chars().count() >= LONG_KEY
}

/// Masks the long ones of `secrets` in every text of `value`, names of fields included: a server may
/// echo the key in a successful answer. Everything else is kept to the byte.
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
    for secret in secrets.iter().filter(|secret| is_long(secret)) {
        if text.contains(*secret) {
            *text = text.replace(secret, MASK);
        }
    }
    // What hides a key is no data.
    if has_key(text, secrets) {
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

    const KEY: &str = "tgp_v1_abcdef0123";

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
        check(
            r#"{"error":"bad key tgp_v1_abcdef0123 and xtgp_v1_abcdef0123x"}"#,
            "bad key [key] and x[key]x",
        );
        check(r#"{"error":"\u0074gp_v1_abcdef0123"}"#, "[key]");
        check("tgp_v1\u{1b}_abc\u{0}def0123", "[key]");
        check("tgp_v1_\u{200b}abcdef0123", "[key]");
        check(r#"{"unknown":"tgp_v1_abcdef0123"}"#, r#"{"unknown":"[key]"}"#);
        check("<html><title>tgp_v1_abcdef0123</title>", "[key]");
        let long = format!("{}{KEY}", "a".repeat(MOST_BYTES - 8));
        assert!(!said(long.as_bytes(), &[KEY]).contains("tgp"), "half a key is left");
        assert_eq!(said(b"abc", &[""]), "abc");
    }

    #[test]
    fn a_short_key_is_masked_where_it_stands_alone_and_a_word_never() {
        let check = |secret: &str, text: &str, expected: &str| {
            assert_eq!(printable(text, &[secret]), expected, "{secret} in {text}");
        };
        check("none", "none of them: none", "none of them: none");
        check("EMPTY-7", "EMPTY-7", "EMPTY-7");
        let eight = "w-secret";
        check(eight, "w-secret, (w-secret) w-secret", "[key], ([key]) [key]");
        check(eight, "xw-secret w-secrets w-secret-2 _w-secret", "xw-secret w-secrets w-secret-2 _w-secret");
        check("local-key-12345", "a local-key-12345.", "a [key].");
        check("local-key-123456", "alocal-key-123456b", "a[key]b");
        check("ключключ", "ключключ и ключключи", "[key] и ключключи");
    }

    #[test]
    fn in_data_only_a_long_key_is_replaced_and_nothing_else_changes() {
        let text = format!("a \u{200b} {KEY}\r\n\tb\u{7}  {}", "ü".repeat(3000));
        let mut value = serde_json::json!({
            "id": "ft-1", "n": 1, "events": [{ "message": text }], "tgp_v1_abcdef0123": "tgp_v1",
        });
        redact(&mut value, &[KEY, "", "ft-1", "a-short-key"]);
        let expected = serde_json::json!({
            "id": "ft-1", "n": 1, "events": [{ "message": text.replace(KEY, "[key]") }], "[key]": "tgp_v1",
        });
        assert_eq!(value, expected);
        let mut hidden = serde_json::json!("a tgp_v1_\u{200b}abcdef0123");
        redact(&mut hidden, &[KEY]);
        assert_eq!(hidden, "a [key]");
        let mut words = serde_json::json!({ "none": "none  a-short-key\n" });
        redact(&mut words, &["none", "a-short-key"]);
        assert_eq!(words, serde_json::json!({ "none": "none  a-short-key\n" }));
    }

    #[test]
    fn only_a_long_key_counts_as_one_in_a_text() {
        assert!(has_key("a{tgp_v1_abcdef0123}", &["none", KEY]));
        assert!(has_key("tgp_v1_\u{200b}abcdef0123", &[KEY]));
        assert!(!has_key("none tgp_v1_abcdef012", &["none", "", KEY]));
        assert!(!has_key("fifteen-letters", &["fifteen-letters"]));
        assert!(has_key("sixteen-letters!", &["sixteen-letters!"]));
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
