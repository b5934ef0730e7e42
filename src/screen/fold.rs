//! Lines no wider than the terminal, broken at blanks only.

use console::{measure_text_width, strip_ansi_codes};

/// `text` with no line wider than `columns`, broken at blanks only and indented as the line began: a word or
/// number that is wider stays whole. What is behind a label continues behind it, or at the first column where
/// only that has room for a word.
pub fn folded(text: &str, columns: usize) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| folded_line(line, columns)).collect();
    lines.join("\n")
}

fn folded_line(line: &str, columns: usize) -> String {
    if measure_text_width(line) < columns {
        return line.to_owned();
    }
    let plain = strip_ansi_codes(line);
    let is_labelled =
        plain.as_bytes().get(9) == Some(&b' ') && plain.as_bytes().get(10).is_some_and(|byte| *byte != b' ');
    let blanks = plain.len() - plain.trim_start().len();
    let indent = if is_labelled && blanks == 0 { 10 } else { blanks }.min(columns / 2);
    let mut text = String::new();
    let mut width = 0;
    for word in words(line, columns) {
        let bare = measure_text_width(word.trim_end());
        let fits_at_start_only = bare < columns && indent + bare >= columns;
        if width + bare >= columns && (width > indent || fits_at_start_only && width > 0) {
            let indent = if fits_at_start_only { 0 } else { indent };
            text.truncate(text.trim_end().len());
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            width = indent;
        }
        text.push_str(&word);
        width += measure_text_width(&word);
    }
    text
}

/// The words of `line`, each with the blanks behind it; what stands between backquotes is one, if it fits.
fn words(line: &str, columns: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for piece in line.split_inclusive(' ') {
        let is_open =
            |word: &&mut String| word.matches('`').count() % 2 == 1 && word.len() + piece.len() < columns;
        match words.last_mut().filter(is_open) {
            Some(word) => word.push_str(piece),
            None => words.push(piece.to_owned()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_or_number_is_broken() {
        let check = |text: &str, columns, expected: &str| assert_eq!(folded(text, columns), expected);
        check("short", 80, "short");
        check(
            "price     about $4.80 for 1,234,567 tokens",
            24,
            "price     about $4.80\n          for 1,234,567\n          tokens",
        );
        check("  key  value", 10, "  key\n  value");
        check("page      https://a.b/12345678", 21, "page\nhttps://a.b/12345678");
        check("page      https://a.b/12345678", 20, "page      https://a.b/12345678");
        check("one 0123456789abcdef two", 10, "one\n0123456789abcdef\ntwo");
        check("it is shown by `ctxtune jobs -n 0` alone", 26, "it is shown by\n`ctxtune jobs -n 0` alone");
        check("an open ` stays a character", 20, "an open\n` stays a character");
        let text = "warning: the value 1,234.5678 of learning_rate is above what the model allows";
        for columns in 12..90 {
            let lines = folded(text, columns);
            assert!(lines.lines().all(|line| line.len() < columns || !line.trim().contains(' ')), "{lines}");
            assert_eq!(
                lines.split_whitespace().collect::<Vec<_>>(),
                text.split_whitespace().collect::<Vec<_>>()
            );
        }
    }
}
