//! Numbers with their units, and texts of others, as people read them on any screen.

use crate::job::cost::Cost;
use crate::job::price::dollars_text;

/// `text` without characters that would command the terminal; newlines and tabs stay.
pub fn printable(text: &str) -> String {
    let show = |character: char| match character {
        '\n' | '\t' => character.to_string(),
        character if character.is_control() => character.escape_default().to_string(),
        character => character.to_string(),
    };
    text.chars().map(show).collect()
}

/// Text of the service on one line, without what would command the terminal.
pub fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    printable(&words.join(" "))
}

/// A loss with four decimals, or an exponent where these would not say much.
pub fn loss(loss: f64) -> String {
    let is_plain = loss == 0.0 || (0.001..10_000.0).contains(&loss.abs());
    if is_plain { format!("{loss:.4}") } else { format!("{loss:.3e}") }
}

/// A cost for people: what is not final has `~` in front; nothing where nobody knows.
pub fn marked(cost: Cost) -> String {
    let mark = if matches!(cost, Cost::Billed(_)) { "" } else { "~" };
    cost.dollars().map_or_else(String::new, |amount| format!("{mark}{}", dollars_text(amount)))
}

/// `3179` as `3,179`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun: `1 record`, `2 records`.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Bytes in decimal units: `18.2 MB`.
pub fn sized(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if amount < 999.95 || unit == "GB" {
            return if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1000.0;
    }
    unreachable!("the last unit takes everything")
}

/// `part` of `whole` in per cent with one decimal; 0.0 of nothing.
pub fn percent(part: u64, whole: u64) -> String {
    let percent = if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    format!("{percent:.1} %")
}

/// JSON that serde_json reads: a key's undecodable bytes are `\udcXX` escapes, shown as `\xXX`.
pub fn without_surrogates(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(start) = rest.find('\\') {
        text.push_str(&rest[..start]);
        let escape = &rest[start..];
        // An escaped backslash is passed over whole: what follows it is text.
        let (shown, after) = match escape.strip_prefix("\\udc") {
            Some(digits) => ("\\\\x", digits),
            None => escape.split_at(2),
        };
        text.push_str(shown);
        rest = after;
    }
    text.push_str(rest);
    text
}

/// A key that stands as a JSON string in a file, for people.
pub fn key_text(json: &str) -> String {
    let key = serde_json::from_str(&without_surrogates(json));
    printable(&key.unwrap_or_else(|_| json.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            (grouped(0), grouped(999), grouped(1000), grouped(1_234_567)),
            ("0".into(), "999".into(), "1,000".into(), "1,234,567".into())
        );
        assert_eq!((counted(1, "record"), counted(0, "record")), ("1 record".into(), "0 records".into()));
        assert_eq!(
            (sized(999), sized(1000), sized(999_960), sized(18_200_000)),
            ("999 B".into(), "1.0 kB".into(), "1.0 MB".into(), "18.2 MB".into())
        );
        assert_eq!((percent(259, 354), percent(0, 0)), ("73.2 %".into(), "0.0 %".into()));
    }

    #[test]
    fn a_terminal_is_not_commanded() {
        assert_eq!(printable("a\u{1b}[31mb\u{7}\n\tc"), "a\\u{1b}[31mb\\u{7}\n\tc");
    }
}
