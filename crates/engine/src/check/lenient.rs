//! Judges a line that the fast parser refused, by the rules of Python's `json`.
//!
//! Python takes integers of up to 4,300 digits, numbers beyond the largest double, and a
//! nesting far deeper than the fast parser's 1,024 levels. It also takes `NaN` and lone
//! surrogates, which are no JSON: those are reported, and the sample is looked at all the
//! same. What is accepted is copied with the odd parts replaced, so that the fast parser
//! takes the copy. This is cold: it looks at each byte, and never recurses.

use std::borrow::Cow;

use crate::check::code::Code;
use ctxtune_python_json::{
    self as python_json, Escape, FaultKind, Kind, Token, Tokens, half_of_a_character, non_finite,
};

/// Deeper nesting is refused. Python's own limit lies between 1,000 and some ten thousand
/// levels, depending on its version.
pub const MAX_DEPTH: usize = 10_000;

/// The most digits an integer may have, as in Python.
pub const MAX_DIGITS: usize = 4300;

/// Containers deeper than this are `null` in the copy.
const COPIED_DEPTH: usize = 1000;

/// What is wrong with a line, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its stable name.
    pub code: Code,
    /// What is wrong.
    pub reason: String,
    /// The byte of the line at which it is seen, counted from 1.
    pub at: usize,
}

/// A line that Python takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The same document as far as the rules of a sample can tell, fit for the fast parser.
    pub copy: Vec<u8>,
    /// What Python takes and JSON does not: the first of each kind.
    pub faults: Vec<Fault>,
}

/// Judges `line`, which has no blanks around it.
///
/// # Errors
/// The first reason for which Python refuses it too.
pub fn judge(line: &[u8]) -> Result<Accepted, Fault> {
    let text = std::str::from_utf8(line).map_err(|error| {
        let at = error.valid_up_to();
        let reason = format!("not UTF-8: the byte 0x{:02x} does not belong there", line[at]);
        Fault { code: Code::Encoding, reason, at: at + 1 }
    })?;
    if text.starts_with('\u{feff}') {
        let reason = "a byte order mark before the document".to_owned();
        return Err(Fault { code: Code::JsonSyntax, reason, at: 1 });
    }
    let mut tokens = Tokens::new(text, MAX_DEPTH);
    let mut accepted = Accepted { copy: Vec::with_capacity(line.len()), faults: Vec::new() };
    while let Some(token) = tokens.next_token().map_err(refusal)? {
        let copied = accepted.fit(&text[token.start..token.end], token)?;
        if token.depth <= COPIED_DEPTH {
            accepted.copy.extend_from_slice(copied.as_bytes());
        } else if token.kind == Kind::Open && token.depth == COPIED_DEPTH + 1 {
            accepted.copy.extend_from_slice(b"null");
        }
    }
    Ok(accepted)
}

fn refusal(fault: python_json::Fault) -> Fault {
    let (code, reason) = match fault.kind {
        FaultKind::Syntax(reason) => (Code::JsonSyntax, reason.to_owned()),
        FaultKind::Control(byte) => {
            (Code::JsonSyntax, format!("the control character 0x{byte:02x} in a string, not escaped"))
        }
        FaultKind::TooDeep => (Code::TooDeep, format!("nested deeper than {MAX_DEPTH} levels")),
    };
    Fault { code, reason, at: fault.at + 1 }
}

impl Accepted {
    /// `written`, the text of `token`, as the fast parser takes it.
    fn fit<'w>(&mut self, written: &'w str, token: Token) -> Result<Cow<'w, str>, Fault> {
        Ok(match token.kind {
            Kind::NonFinite => {
                self.report(Code::NonFinite, non_finite(written), token.start);
                Cow::Borrowed("null")
            }
            Kind::Number => Cow::Owned(number(written, token.start)?),
            Kind::Key(Some(_)) | Kind::String(Some(_)) => {
                Cow::Owned(self.without_halves(written, token.start))
            }
            _ => Cow::Borrowed(written),
        })
    }

    /// The string `written`, which begins at `start`, with U+FFFD for each half of a surrogate pair.
    fn without_halves(&mut self, written: &str, start: usize) -> String {
        let mut text = String::with_capacity(written.len());
        let mut rest = written;
        while let Some(backslash) = rest.find('\\') {
            let escape = Escape::at(rest.as_bytes(), backslash).expect("the string was read before");
            let end = backslash + escape.length();
            if let Escape::Half(unit) = escape {
                let at = start + written.len() - rest.len() + backslash;
                self.report(Code::LoneSurrogate, half_of_a_character(unit), at);
                text.push_str(&rest[..backslash]);
                text.push('\u{fffd}');
            } else {
                text.push_str(&rest[..end]);
            }
            rest = &rest[end..];
        }
        text + rest
    }

    fn report(&mut self, code: Code, reason: String, at: usize) {
        if self.faults.iter().all(|fault| fault.code != code) {
            self.faults.push(Fault { code, reason, at: at + 1 });
        }
    }
}

/// The number `written`, which begins at `start`, as the fast parser takes it.
fn number(written: &str, start: usize) -> Result<String, Fault> {
    let digits = written.trim_start_matches('-');
    let sign = if digits.len() < written.len() { "-" } else { "" };
    if digits.contains(['.', 'e', 'E']) {
        let number = written.parse::<f64>().ok().filter(|number| number.is_finite());
        return Ok(number.map_or_else(|| format!("{sign}1e300"), |number| format!("{number:e}")));
    }
    match digits.len() {
        ..19 => Ok(written.to_owned()),
        19..=MAX_DIGITS => Ok(format!("{sign}{}", i64::MAX)),
        whole => {
            let reason = format!("an integer of {whole} digits, and the most is {MAX_DIGITS}");
            Err(Fault { code: Code::NumberRange, reason, at: start + 1 })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(line: &str, code: Code, at: usize) {
        let fault = judge(line.as_bytes()).expect_err(line);
        assert_eq!((fault.code, fault.at), (code, at), "{line}: {fault:?}");
    }

    #[test]
    fn what_python_refuses_is_refused_with_its_place() {
        let syntax = Code::JsonSyntax;
        for (line, at) in [
            ("", 1),
            ("{", 2),
            ("{\"a\"}", 5),
            ("{\"a\":1,}", 8),
            ("[1,]", 4),
            ("[1 2]", 4),
            ("{\"a\":1]", 7),
            ("{} {}", 4),
            ("01", 2),
            ("-", 2),
            ("1.", 2),
            ("1.e5", 2),
            ("1e", 2),
            ("+1", 1),
            (".5", 1),
            ("tru", 1),
            ("-NaN", 2),
            ("'a'", 1),
            ("\"a", 3),
            ("\"\\x\"", 2),
            ("\"\\u12g4\"", 2),
            ("\"\t\"", 2),
            ("\u{feff}{}", 1),
            ("{\u{b}}", 2),
            ("{\u{a0}}", 2),
            ("]", 1),
        ] {
            refused(line, syntax, at);
        }
        refused(&"1".repeat(4301), Code::NumberRange, 1);
        refused(&"[".repeat(MAX_DEPTH + 1), Code::TooDeep, MAX_DEPTH + 1);
        assert_eq!(judge(b"{\"a\": \"caf\xe9\"}").unwrap_err().code, Code::Encoding);
    }

    fn accepted(line: &str, copy: &str, faults: &[(Code, usize)]) {
        let accepted = judge(line.as_bytes()).expect(line);
        assert_eq!(String::from_utf8(accepted.copy.clone()).unwrap(), copy);
        let found: Vec<_> = accepted.faults.iter().map(|fault| (fault.code, fault.at)).collect();
        assert_eq!(found, faults, "{line}");
    }

    #[test]
    fn what_python_takes_is_copied_for_the_fast_parser() {
        accepted(
            " {\"a\" : [1, -2.5e3, true ,null], \"b\":{} } ",
            "{\"a\":[1,-2.5e3,true,null],\"b\":{}}",
            &[],
        );
        accepted(
            &format!("[{}, -{}]", "9".repeat(4300), "1".repeat(19)),
            &format!("[{0},-{0}]", i64::MAX),
            &[],
        );
        accepted("[1e400, -1e400, 0.1e-999]", "[1e300,-1e300,0e0]", &[]);
        accepted("[NaN, -Infinity, Infinity]", "[null,null,null]", &[(Code::NonFinite, 2)]);
        accepted(
            "[\"\\ud800x\\udc00\", \"\\ud83d\\ude00\\/\"]",
            "[\"\u{fffd}x\u{fffd}\",\"\\ud83d\\ude00\\/\"]",
            &[(Code::LoneSurrogate, 3)],
        );
        accepted("\"\\ud800\\ud83d\\ude00\"", "\"\u{fffd}\\ud83d\\ude00\"", &[(Code::LoneSurrogate, 2)]);
    }

    #[test]
    fn deep_nesting_is_cut_from_the_copy() {
        for depth in [COPIED_DEPTH, COPIED_DEPTH + 1, MAX_DEPTH] {
            let line = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
            let mut copy = judge(line.as_bytes()).unwrap().copy;
            simd_json::to_tape(&mut copy).unwrap();
        }
    }

    proptest! {
        /// The fast parser and this one agree where both speak, and what is accepted is parsed in the end.
        #[test]
        fn the_fast_parser_takes_nothing_else(
            tokens in proptest::collection::vec(
                prop_oneof![
                    Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\"a\""), Just("\"\\n\""),
                    Just("\"\\u00e9\""), Just("\"\\ud800\""), Just("1"), Just("-0"), Just("0.5"), Just("1e5"),
                    Just("1e400"), Just("01"), Just("1."), Just("-"), Just("NaN"), Just("true"), Just("nul"),
                    Just(" "), Just("\t"), Just("\u{c}"), Just("é"), Just("\"\u{1}\""), Just("\\"), Just("\""),
                    Just("18446744073709551616"), Just("1E+2"), Just("2.5E-3"), Just("{\"a\":"), Just("[1,"),
                ],
                0..12,
            )
        ) {
            let line = tokens.concat();
            let line = line.trim_matches(|character: char| character.is_whitespace());
            let mut bytes = line.as_bytes().to_vec();
            let is_taken = simd_json::to_tape(&mut bytes).is_ok();
            match judge(line.as_bytes()) {
                Ok(mut accepted) => {
                    prop_assert!(!is_taken || accepted.faults.is_empty(), "{}", line);
                    prop_assert!(simd_json::to_tape(&mut accepted.copy).is_ok(), "{}", line);
                }
                Err(fault) => prop_assert!(!is_taken, "{}: {:?}", line, fault),
            }
        }
    }
}
