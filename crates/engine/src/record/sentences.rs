//! A story as nearly every corpus has it, a Python list of plain strings, read straight from its JSON string.
//!
//! Otherwise it is unescaped as JSON, then taken apart as Python: two copies of text that needs neither. Here
//! sentences go from the record to the joined story. What is not that plain (a rare escape of Python's, strings
//! side by side, blanks elsewhere than behind a comma) declines, and `story` reads it, which has the rules.
//! In tests `story` is the oracle.

use crate::json::read_escape;
use crate::mask::{BLOCK, not_plain_or_apostrophe};
use crate::record::scanner::Scanner;

impl Scanner<'_> {
    /// Takes the string here, the sentences of a list, and leaves them in `joined`, separated by one blank each.
    /// Where it declines, nothing is taken.
    pub fn sentences(&mut self, joined: &mut String) -> Option<()> {
        self.next_byte()?;
        let bytes = self.text.as_bytes();
        let start = self.position + 2;
        bytes[self.position..].starts_with(b"\"[").then_some(())?;
        joined.clear();
        let mut at = self.sentence(start, joined)?;
        while bytes[at..].starts_with(b", ") {
            joined.push(' ');
            at = self.sentence(at + 2, joined)?;
        }
        bytes[at..].starts_with(b"]\"").then_some(())?;
        self.position = at + 2;
        Some(())
    }

    /// Appends the Python string at `start`; gives the place behind it.
    fn sentence(&self, start: usize, joined: &mut String) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let quote = [&b"'"[..], b"\\\""].into_iter().find(|quote| bytes[start..].starts_with(quote))?;
        let mut from = start + quote.len();
        loop {
            let stop = self.sentence_stop(from)?;
            joined.push_str(self.text.get(from..stop)?);
            from = match &bytes[stop..] {
                rest if rest.starts_with(quote) => return Some(stop + quote.len()),
                // Between double quotes it stands for itself.
                [b'\'', ..] => {
                    joined.push('\'');
                    stop + 1
                }
                [b'\\', b'u', ..] => {
                    let (character, length) = read_escape(&bytes[stop..])?;
                    // ASCII has characters that mean something in a Python string, or end a line.
                    (!character.is_ascii()).then(|| joined.push(character))?;
                    stop + length
                }
                [b'\\', b'"', ..] => {
                    joined.push('"');
                    stop + 2
                }
                rest => {
                    let (character, length) = python_escape(rest.strip_prefix(br"\\")?)?;
                    joined.push(character);
                    stop + 2 + length
                }
            };
        }
    }

    /// The place of the first apostrophe, quote, backslash or control character from `from` on, well before
    /// the end of the record.
    #[inline]
    fn sentence_stop(&self, mut from: usize) -> Option<usize> {
        loop {
            let block = self.text.as_bytes().get(from..)?.first_chunk::<BLOCK>()?;
            match not_plain_or_apostrophe(block) {
                0 => from += BLOCK,
                found => return Some(from + found.trailing_zeros() as usize),
            }
        }
    }
}

/// The character that a backslash of Python's stands for with what is behind it in JSON, and the bytes of that:
/// the escapes that `repr` writes in nearly every story that has one.
fn python_escape(behind: &[u8]) -> Option<(char, usize)> {
    match behind {
        [b'\'', ..] => Some(('\'', 1)),
        [b'n', ..] => Some(('\n', 1)),
        [b'\\', letter @ (b'"' | b'\\'), ..] => Some((char::from(*letter), 2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::record::buffers::RecordBuffers;
    use crate::record::scanner::Scanner;
    use crate::record::story::parse_literal;

    /// What is read of the JSON string `json`, and how many bytes of it.
    fn sentences(json: &str) -> Option<(String, usize)> {
        // A record does not end with its story.
        let text = format!("{json}, \"question\": \"Where is it?\"}}");
        let mut manual = Vec::new();
        let mut scanner = Scanner::new(&text, &mut [], &mut manual, RecordBuffers::default());
        let mut joined = "an earlier story".to_owned();
        let taken = scanner.sentences(&mut joined);
        assert_eq!(taken.is_none(), scanner.position == 0, "{json}");
        taken.map(|()| (joined, scanner.position))
    }

    fn check(story: &str, expected: Option<&str>) {
        let json = serde_json::to_string(story).unwrap();
        assert_eq!(sentences(&json), expected.map(|text| (text.to_owned(), json.len())), "{story}");
    }

    #[test]
    fn a_list_of_plain_strings_is_read_at_once() {
        check("['Mia left.']", Some("Mia left."));
        check("['Mia left the room.', 'Zoë ran.', '']", Some("Mia left the room. Zoë ran. "));
        check(r#"["Mia's box.", '"Ran"']"#, Some(r#"Mia's box. "Ran""#));
        check(r#"['Mia\'s \"box\".\n', 'a \\ b']"#, Some("Mia's \"box\".\n a \\ b"));
        let escaped = r#""['Zo\u00eb \ud83d\ude00.']""#;
        assert_eq!(sentences(escaped), Some(("Zoë 😀.".to_owned(), escaped.len())));
    }

    #[test]
    fn what_is_less_plain_is_left_to_the_general_reader() {
        for story in [
            "Mia left.",
            "[]",
            "['a'",
            "['a]",
            "['a',]",
            "['a' 'b']",
            "['a','b']",
            "[ 'a']",
            "['a'] ",
            " ['a']",
            r"['a\tb']",
            r"['a\x41']",
            "['a\nb']",
            "[r'a']",
            "[['a']]",
            "('a', 'b')",
            "['''a''']",
            "['a', 1]",
        ] {
            check(story, None);
        }
        assert_eq!(sentences(r#""['\u0000']""#), None);
        assert_eq!(sentences(r#""['\u0027']""#), None);
        assert_eq!(sentences(r#""['\ud800']""#), None);
        assert_eq!(sentences(r#"["a"]"#), None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_the_literal_means(
            pieces in prop::collection::vec(prop::sample::select(&[
                "'", "\"", "\\", ", ", "]", "[", "a", "Mia left the room early.", "é", "\n", "\r", "u", "n", "\\n", "\\'", "\\\"", "\u{0}", " ",
            ][..]), 0..12),
            is_ascii: bool,
        ) {
            let story = format!("['{}']", pieces.concat());
            let mut json = serde_json::to_string(&story).unwrap();
            if is_ascii {
                json = json.replace('é', "\\u00e9");
            }
            if let Some((joined, length)) = sentences(&json) {
                let mut expected = String::new();
                parse_literal(&story, &mut expected).unwrap();
                prop_assert_eq!((joined, length), (expected, json.len()));
            }
        }
    }
}
