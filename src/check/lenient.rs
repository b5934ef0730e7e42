//! Judges a line that the fast parser refused, by the rules of Python's `json`.
//!
//! Python takes integers of up to 4,300 digits, numbers beyond the largest double, and a
//! nesting far deeper than the fast parser's 1,024 levels. It also takes `NaN` and lone
//! surrogates, which are no JSON: those are reported, and the sample is looked at all the
//! same. What is accepted is copied with the odd parts replaced, so that the fast parser
//! takes the copy. This is cold: it looks at each byte, and never recurses.

use crate::check::code::Code;

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
    if let Err(error) = std::str::from_utf8(line) {
        let at = error.valid_up_to();
        let reason = format!("not UTF-8: the byte 0x{:02x} does not belong there", line[at]);
        return Err(Fault { code: Code::Encoding, reason, at: at + 1 });
    }
    if line.starts_with("\u{feff}".as_bytes()) {
        let reason = "a byte order mark before the document".to_owned();
        return Err(Fault { code: Code::JsonSyntax, reason, at: 1 });
    }
    let mut scanner = Scanner {
        bytes: line,
        at: 0,
        open: Vec::new(),
        copy: Vec::with_capacity(line.len()),
        faults: Vec::new(),
    };
    scanner.document()?;
    Ok(Accepted { copy: scanner.copy, faults: scanner.faults })
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    /// Behind `[`.
    ValueOrEnd,
    Key,
    /// Behind `{`.
    KeyOrEnd,
    /// Behind a value.
    CommaOrEnd,
}

struct Scanner<'l> {
    bytes: &'l [u8],
    at: usize,
    /// The brackets that are open.
    open: Vec<u8>,
    copy: Vec<u8>,
    faults: Vec<Fault>,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), Fault> {
        let mut next = Next::Value;
        loop {
            self.blanks();
            if next == Next::CommaOrEnd && self.open.is_empty() {
                return match self.peek() {
                    None => Ok(()),
                    Some(_) => Err(self.syntax("something behind the document")),
                };
            }
            next = self.step(next)?;
        }
    }

    /// Reads one token that `next` allows.
    fn step(&mut self, next: Next) -> Result<Next, Fault> {
        match (next, self.peek(), self.open.last()) {
            (_, None, _) => Err(self.syntax("the line ends within the document")),
            (Next::ValueOrEnd | Next::CommaOrEnd, Some(b']'), Some(b'[')) => Ok(self.close(b']')),
            (Next::KeyOrEnd | Next::CommaOrEnd, Some(b'}'), Some(b'{')) => Ok(self.close(b'}')),
            (Next::CommaOrEnd, Some(b','), Some(open)) => {
                let next = if *open == b'{' { Next::Key } else { Next::Value };
                self.take(b",");
                Ok(next)
            }
            (Next::CommaOrEnd, _, Some(b'{')) => Err(self.syntax("expected `,` or `}`")),
            (Next::CommaOrEnd, _, _) => Err(self.syntax("expected `,` or `]`")),
            (Next::Key | Next::KeyOrEnd, Some(b'"'), _) => self.key(),
            (Next::Key | Next::KeyOrEnd, _, _) => Err(self.syntax("expected a key in quotes")),
            (Next::Value | Next::ValueOrEnd, Some(byte), _) => self.value(byte),
        }
    }

    fn value(&mut self, byte: u8) -> Result<Next, Fault> {
        match byte {
            b'{' => return self.enter(byte, Next::KeyOrEnd),
            b'[' => return self.enter(byte, Next::ValueOrEnd),
            b'"' => self.string()?,
            b'-' if self.rest().starts_with(b"-Infinity") => self.not_finite("-Infinity"),
            b'-' | b'0'..=b'9' => self.number()?,
            _ => self.word()?,
        }
        Ok(Next::CommaOrEnd)
    }

    fn word(&mut self) -> Result<(), Fault> {
        for word in ["true", "false", "null"] {
            if self.rest().starts_with(word.as_bytes()) {
                self.take(word.as_bytes());
                return Ok(());
            }
        }
        for word in ["NaN", "Infinity"] {
            if self.rest().starts_with(word.as_bytes()) {
                self.not_finite(word);
                return Ok(());
            }
        }
        Err(self.syntax("expected a value"))
    }

    fn key(&mut self) -> Result<Next, Fault> {
        self.string()?;
        self.blanks();
        if self.peek() != Some(b':') {
            return Err(self.syntax("expected `:` behind a key"));
        }
        self.take(b":");
        Ok(Next::Value)
    }

    fn enter(&mut self, bracket: u8, next: Next) -> Result<Next, Fault> {
        if self.open.len() == MAX_DEPTH {
            let reason = format!("nested deeper than {MAX_DEPTH} levels");
            return Err(self.fault(Code::TooDeep, reason));
        }
        if self.open.len() == COPIED_DEPTH {
            self.put(b"null");
        }
        self.open.push(bracket);
        self.take(&[bracket]);
        Ok(next)
    }

    fn close(&mut self, bracket: u8) -> Next {
        self.take(&[bracket]);
        self.open.pop();
        Next::CommaOrEnd
    }

    fn not_finite(&mut self, word: &str) {
        self.report(Code::NonFinite, format!("`{word}` is no JSON, though Python writes and reads it"));
        self.at += word.len();
        self.put(b"null");
    }

    fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let whole = self.digits();
        if whole == 0 {
            return Err(self.syntax("expected a digit"));
        }
        if whole > 1 && self.bytes[self.at - whole] == b'0' {
            // Python reads the zero alone, and then wants a comma.
            self.at -= whole - 1;
            return Err(self.syntax("a number that begins with 0"));
        }
        let is_integer = !self.fraction_and_exponent();
        if is_integer && whole > MAX_DIGITS {
            self.at = start;
            let reason = format!("an integer of {whole} digits, and the most is {MAX_DIGITS}");
            return Err(self.fault(Code::NumberRange, reason));
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).expect("digits, signs and points");
        let copied = match is_integer {
            true if whole < 19 => text.to_owned(),
            true => format!("{}{}", if text.starts_with('-') { "-" } else { "" }, i64::MAX),
            false => text.parse::<f64>().ok().filter(|number| number.is_finite()).map_or_else(
                || format!("{}1e300", if text.starts_with('-') { "-" } else { "" }),
                |number| format!("{number:e}"),
            ),
        };
        self.put(copied.as_bytes());
        Ok(())
    }

    /// Whether there is one of them. A point or an `e` without digits is left where it is.
    fn fraction_and_exponent(&mut self) -> bool {
        let start = self.at;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.at -= usize::from(self.digits() == 0);
        }
        let mark = self.at;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits() == 0 {
                self.at = mark;
            }
        }
        self.at > start
    }

    fn digits(&mut self) -> usize {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        digits
    }

    fn string(&mut self) -> Result<(), Fault> {
        self.take(b"\"");
        loop {
            let plain = self.rest().iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count();
            self.take(&self.bytes[self.at..self.at + plain]);
            match self.peek() {
                None => return Err(self.syntax("the line ends within a string")),
                Some(b'"') => {
                    self.take(b"\"");
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(byte) => {
                    let reason = format!("the control character 0x{byte:02x} in a string, not escaped");
                    return Err(self.fault(Code::JsonSyntax, reason));
                }
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.take(&self.bytes[self.at..self.at + 2]);
                Ok(())
            }
            Some(b'u') => self.unicode_escape(),
            _ => Err(self.syntax("a backslash before something that it does not escape")),
        }
    }

    fn unicode_escape(&mut self) -> Result<(), Fault> {
        let unit = self.unit(self.at).ok_or_else(|| self.syntax("`\\u` without four hexadecimal digits"))?;
        let is_high = (0xd800..0xdc00).contains(&unit);
        let has_low = self.unit(self.at + 6).is_some_and(|low| (0xdc00..0xe000).contains(&low));
        if is_high && has_low {
            self.take(&self.bytes[self.at..self.at + 12]);
        } else if (0xd800..0xe000).contains(&unit) {
            let reason = format!("`\\u{unit:04x}` is half of a character, without the other half");
            self.report(Code::LoneSurrogate, reason);
            self.at += 6;
            self.put("\u{fffd}".as_bytes());
        } else {
            self.take(&self.bytes[self.at..self.at + 6]);
        }
        Ok(())
    }

    /// The value of the `\uXXXX` at `at`, if one is there.
    fn unit(&self, at: usize) -> Option<u32> {
        let digits = self.bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
    }

    fn blanks(&mut self) {
        self.at += self.rest().iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Passes `token` by, and copies it.
    fn take(&mut self, token: &[u8]) {
        self.at += token.len();
        self.put(token);
    }

    fn put(&mut self, copied: &[u8]) {
        if self.open.len() <= COPIED_DEPTH {
            self.copy.extend_from_slice(copied);
        }
    }

    fn report(&mut self, code: Code, reason: String) {
        if self.faults.iter().all(|fault| fault.code != code) {
            let fault = self.fault(code, reason);
            self.faults.push(fault);
        }
    }

    fn syntax(&self, reason: &str) -> Fault {
        self.fault(Code::JsonSyntax, reason.to_owned())
    }

    fn fault(&self, code: Code, reason: String) -> Fault {
        Fault { code, reason, at: self.at + 1 }
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
