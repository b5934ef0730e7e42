//! The client's local check of a file before an upload: the same verdict, field by field.
//!
//! Its rules are those of the provider's Python library 3.x for JSONL. It stops at the
//! first bad line; we go on, and say here what it would have said. Deliberate differences
//! are listed in `docs/check.md`.

use std::ops::Range;
use std::path::Path;

use serde::Serialize;

use crate::check::code::Code;

/// The largest file that one request uploads, in bytes: 5 GiB.
pub const SINGLE_UPLOAD_BYTES: u64 = 5 << 30;

/// The largest file that can be uploaded, in bytes: 50.1 GiB, rounded down.
pub const MAX_FILE_BYTES: u64 = 53_794_465_382;

/// What the client's check says of a file. `None` is what it never came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Structure {
    /// Whether the client would upload the file.
    pub is_check_passed: bool,
    /// Bytes of the file.
    pub file_size: u64,
    /// Whether all of it is UTF-8.
    pub utf8: Option<bool>,
    /// Whether each line is JSON up to the first bad one.
    pub load_json: Option<bool>,
    /// Whether the first bad line, if there is one, is bad for another reason than being no object.
    pub line_type: Option<bool>,
    /// Whether there is at least one sample; not said of a file with a bad line.
    pub has_min_samples: Option<bool>,
    /// Samples; said only of a file that passes.
    pub num_samples: Option<u64>,
    /// The line at which the client stops, counted from 1.
    pub first_bad_line: Option<u64>,
}

/// A line that ends the client's check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLine {
    /// The line.
    pub line: u64,
    /// Whether it is JSON, but no object.
    pub is_not_object: bool,
}

impl Structure {
    /// The verdict on a file that was not opened, for its name or its size.
    pub fn unopened(file_size: u64) -> Structure {
        Structure { file_size, ..Structure::default() }
    }

    /// The verdict on a file that was read.
    pub fn of(file_size: u64, is_utf8: bool, bad: Option<BadLine>, samples: u64) -> Structure {
        let read = Structure { utf8: Some(is_utf8), ..Structure::unopened(file_size) };
        match bad {
            _ if !is_utf8 => read,
            Some(BadLine { line, is_not_object }) => Structure {
                load_json: Some(false),
                line_type: Some(!is_not_object),
                first_bad_line: Some(line),
                ..read
            },
            None => Structure {
                is_check_passed: samples > 0,
                load_json: Some(true),
                line_type: Some(true),
                has_min_samples: Some(samples > 0),
                num_samples: Some(samples).filter(|samples| *samples > 0),
                ..read
            },
        }
    }
}

/// Why a file of this name and size is not opened, with words.
pub fn fault_of_file(path: &Path, bytes: u64) -> Option<(Code, String)> {
    if bytes > MAX_FILE_BYTES {
        let gib = bytes as f64 / f64::from(1 << 30);
        return Some((Code::FileTooLarge, format!("{gib:.3} GiB, and the most is 50.1 GiB")));
    }
    if bytes == 0 {
        return Some((Code::EmptyFile, "the file is empty".to_owned()));
    }
    if path.extension().is_none_or(|extension| extension != "jsonl") {
        return Some((Code::Extension, "the file's name does not end in `.jsonl`".to_owned()));
    }
    None
}

/// What is left of a line without the blanks around it, as by Python's `str.strip`; empty for a blank
/// line. A line that is not UTF-8 stays as it is.
pub fn stripped(line: &[u8]) -> Range<usize> {
    match line {
        [b'{', .., b'}'] | [b'{'] => return 0..line.len(),
        _ => {}
    }
    let Ok(text) = std::str::from_utf8(line) else { return 0..line.len() };
    let start = line.len() - text.trim_start_matches(is_python_space).len();
    let length = text[start..].trim_end_matches(is_python_space).len();
    start..start + length
}

/// Whether Python's `str.isspace` holds: Unicode's white space and the four separators of ASCII.
fn is_python_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_stripped_as_python_does() {
        let check = |line: &str, expected: &str| assert_eq!(&line[stripped(line.as_bytes())], expected);
        for same in ["{}", "{\"a\": 1}", "{", "x", "\u{feff}{}", "\u{200b}"] {
            check(same, same);
        }
        for blank in ["", " ", "\t\u{b}\u{c}", "\u{1c}\u{1d}\u{1e}\u{1f}", "\u{85}\u{a0}\u{2028}\u{3000} "] {
            check(blank, "");
        }
        check(" \u{a0}{} \u{3000}\u{1f}", "{}");
        check("{}\u{2009}", "{}");
        assert_eq!(stripped(b" \xff "), 0..3);
    }

    #[test]
    fn the_size_limit_is_the_clients() {
        let code = |bytes| fault_of_file(Path::new("a.jsonl"), bytes).map(|(code, _)| code);
        assert_eq!(code(MAX_FILE_BYTES), None);
        assert_eq!(code(MAX_FILE_BYTES + 1), Some(Code::FileTooLarge));
        assert!(MAX_FILE_BYTES as f64 <= 50.1 * f64::from(1 << 30));
        assert!((MAX_FILE_BYTES + 1) as f64 > 50.1 * f64::from(1 << 30));
        assert_eq!(code(0), Some(Code::EmptyFile));
    }

    #[test]
    fn only_jsonl_is_opened() {
        for (name, is_opened) in [
            ("a.jsonl", true),
            ("a.b.jsonl", true),
            ("a.JSONL", false),
            ("a.jsonl.gz", false),
            (".jsonl", false),
            ("jsonl", false),
            ("a.jsonl.", false),
        ] {
            assert_eq!(fault_of_file(Path::new(name), 1).is_none(), is_opened, "{name}");
        }
    }
}
