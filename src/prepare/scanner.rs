//! JSON for the quick reader: brackets, strings and numbers, taken one behind the other.
//!
//! Unused values are only checked and stepped over, what Python adds to JSON included; strings are borrowed where they can be. It knows
//! JSON and how a corpus repeats itself, but not what a record is: that is `scan`.

use crate::json::plain_prefix;
use crate::mask::{BLOCK, not_plain};
use crate::prepare::record::Text;

/// Deeper values are left to the general path.
const MAX_DEPTH: usize = 32;

/// More digits could leave 64 bits, or need rounding that must be the parser's.
const MAX_DIGITS: usize = 17;

/// Shorter and longer manuals are not remembered.
const MIN_MANUAL: usize = 64;
const MAX_MANUAL: usize = 64 << 10;

/// The characters that make an escape with a backslash and nothing more.
const IS_SHORT_ESCAPE: [bool; 256] = {
    let mut table = [false; 256];
    let mut letters: &[u8] = br#""\/bfnrt"#;
    while let [letter, others @ ..] = letters {
        table[*letter as usize] = true;
        letters = others;
    }
    table
};

/// A place in the text of one record. Every step declines (`None`) at what is not plain, correct JSON.
pub struct Scanner<'a> {
    /// The record.
    pub text: &'a str,
    /// The bytes taken so far.
    pub position: usize,
    strings: &'a mut [u8],
    manual: &'a mut Vec<u8>,
    /// The first bytes of `manual`; a control character, which no string holds, if there is none.
    manual_head: [u8; 8],
    /// Whether some string unescaped so far holds a character that JSON escapes.
    pub is_escaped: bool,
    /// Whether some used string so far holds U+0000, unescaped or carried as it was written.
    pub has_nul: bool,
    /// Whether some observations or actions were a list.
    pub has_lists: bool,
    /// The agents of the list before, none twice: nearly always the next list names the same.
    pub agents: Vec<&'a str>,
}

fn head(manual: &[u8]) -> [u8; 8] {
    manual.first_chunk().copied().unwrap_or_default()
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of `text`.
    pub fn new(text: &'a str, strings: &'a mut [u8], manual: &'a mut Vec<u8>) -> Self {
        let manual_head = head(manual);
        let agents = Vec::with_capacity(8);
        Scanner {
            text,
            position: 0,
            strings,
            manual,
            manual_head,
            is_escaped: false,
            has_nul: false,
            has_lists: false,
            agents,
        }
    }

    /// Calls `each` at every member of the object or list here, whose brackets are given; `each` takes it.
    #[inline]
    pub fn sequence(
        &mut self,
        brackets: [u8; 2],
        mut each: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.take(brackets[0])?;
        if self.next_byte()? == brackets[1] {
            self.position += 1;
            return Some(());
        }
        loop {
            each(self)?;
            let byte = self.next_byte()?;
            self.position += 1;
            if byte != b',' {
                return (byte == brackets[1]).then_some(());
            }
        }
    }

    /// The key here, its colon taken too.
    #[inline]
    pub fn key(&mut self) -> Option<&'a str> {
        let key = self.string()?;
        self.take(b':')?;
        Some(key)
    }

    /// Steps over a value without keeping any of it.
    pub fn skip_value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.next_byte()? {
            b'"' => self.skip_string(),
            b'{' => self.sequence(*b"{}", |scanner| {
                scanner.skip_key()?;
                scanner.take(b':')?;
                scanner.skip_value(depth + 1)
            }),
            b'[' => self.sequence(*b"[]", |scanner| scanner.skip_value(depth + 1)),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            b'N' => self.word("NaN"),
            b'I' => self.word("Infinity"),
            _ => self.skip_number(),
        }
    }

    /// Steps over the manual, at one glance where it is that of the record before.
    pub fn skip_manual(&mut self) -> Option<()> {
        let is_string = self.next_byte()? == b'"';
        let inside = self.position + 1;
        let rest = self.text.as_bytes().get(inside..)?;
        if is_string && self.is_manual(rest) {
            self.position = inside + self.manual.len();
            return Some(());
        }
        self.skip_value(1)?;
        let length = self.position - inside;
        if is_string && (MIN_MANUAL..MAX_MANUAL).contains(&length) {
            self.manual.clear();
            self.manual.extend_from_slice(&rest[..length]);
            self.manual_head = head(self.manual);
        }
        Some(())
    }

    fn is_manual(&self, rest: &[u8]) -> bool {
        !self.manual.is_empty() && rest.starts_with(self.manual)
    }

    /// The next byte that is not blank, not yet taken.
    #[inline]
    pub fn next_byte(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        let mut byte = *bytes.get(self.position)?;
        if byte == b' ' {
            // One blank behind each comma and colon is what `json.dumps` writes.
            self.position += 1;
            byte = *bytes.get(self.position)?;
        }
        if byte <= b' ' {
            self.skip_blanks();
            byte = *bytes.get(self.position)?;
        }
        Some(byte)
    }

    fn skip_blanks(&mut self) {
        let mut rest = &self.text.as_bytes()[self.position..];
        while let [b' ' | b'\n' | b'\t' | b'\r', behind @ ..] = rest {
            rest = behind;
            // Indentation comes in runs.
            while let Some((run, behind)) = rest.split_first_chunk::<8>() {
                let others = u64::from_le_bytes(*run) ^ u64::from_le_bytes([b' '; 8]);
                if others != 0 {
                    rest = &rest[others.trailing_zeros() as usize / 8..];
                    break;
                }
                rest = behind;
            }
        }
        self.position = self.text.len() - rest.len();
    }

    /// Takes `expected`.
    #[inline]
    pub fn take(&mut self, expected: u8) -> Option<()> {
        if self.next_byte()? != expected {
            return None;
        }
        self.position += 1;
        Some(())
    }

    /// Takes `word`.
    pub fn word(&mut self, word: &str) -> Option<()> {
        self.next_byte()?;
        if !self.text.as_bytes()[self.position..].starts_with(word.as_bytes()) {
            return None;
        }
        self.position += word.len();
        Some(())
    }

    /// Whether only blanks are left.
    pub fn is_at_end(&mut self) -> bool {
        self.skip_blanks();
        self.position == self.text.len()
    }

    /// Steps over a number of any size, or `-Infinity`.
    fn skip_number(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let is_negative = bytes[self.position] == b'-';
        let whole = self.position + usize::from(is_negative);
        let mut end = match bytes.get(whole)? {
            b'0' => whole + 1,
            b'1'..=b'9' => whole + digits(whole),
            b'I' if is_negative => {
                self.position = whole;
                return self.word("Infinity");
            }
            _ => return None,
        };
        if bytes.get(end) == Some(&b'.') {
            let decimals = digits(end + 1);
            end += 1 + decimals;
            (decimals > 0).then_some(())?;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            end += 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end);
            end += exponent;
            (exponent > 0).then_some(())?;
        }
        self.position = end;
        Some(())
    }

    /// The text of a plain number: an integer, or digits with a point.
    pub fn number(&mut self) -> Option<&'a str> {
        self.next_byte()?;
        let start = self.position;
        let bytes = self.text.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let whole = start + usize::from(bytes[start] == b'-');
        let mut count = digits(whole);
        let mut end = whole + count;
        if count == 0 || (count > 1 && bytes[whole] == b'0') {
            return None;
        }
        if bytes.get(end) == Some(&b'.') {
            let decimals = digits(end + 1);
            if decimals == 0 {
                return None;
            }
            count += decimals;
            end += 1 + decimals;
        }
        if count > MAX_DIGITS || matches!(bytes.get(end), Some(b'e' | b'E')) {
            return None;
        }
        self.position = end;
        Some(&self.text[start..end])
    }

    /// The text of the string here, borrowed where it has no escape.
    pub fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let start = self.position;
        let end = self.plain_end(start);
        match self.text.as_bytes().get(end)? {
            b'"' => {
                self.position = end + 1;
                Some(&self.text[start..end])
            }
            b'\\' => self.unescaped(start, end),
            _ => None,
        }
    }

    /// The string here as a text of the context: unescaped only where it must be.
    pub fn text(&mut self) -> Option<Text<'a>> {
        self.take(b'"')?;
        let bytes = self.text.as_bytes();
        let start = self.position;
        let first = self.plain_end(start);
        let mut end = first;
        loop {
            match *bytes.get(end)? {
                b'"' => break,
                b'\\' if matches!(bytes.get(end + 1)?, b'"' | b'\\' | b'n' | b't' | b'r' | b'b' | b'f') => {
                    end = self.plain_end(end + 2);
                }
                b'\\' => return self.unescaped(start, first).map(Text::Real),
                _ => return None,
            }
        }
        self.position = end + 1;
        let text = &self.text[start..end];
        Some(if end == first { Text::Plain(text) } else { Text::Raw(text) })
    }

    /// Steps over the name of an unused member: it must be text.
    fn skip_key(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            self.position = self.plain_end(self.position);
            match self.text.as_bytes().get(self.position)? {
                b'"' => {
                    self.position += 1;
                    return Some(());
                }
                b'\\' => _ = self.escape()?,
                _ => return None,
            }
        }
    }

    /// Steps over a string that nobody asks for, checking it.
    fn skip_string(&mut self) -> Option<()> {
        self.take(b'"')?;
        let bytes = self.text.as_bytes();
        let mut rest = &bytes[self.position..];
        loop {
            let stop = match rest.split_first_chunk::<BLOCK>() {
                // The published corpus repeats the manual at the end of another unused string.
                Some((block, _)) if block.starts_with(&self.manual_head) && self.is_manual(rest) => {
                    rest = &rest[self.manual.len()..];
                    break;
                }
                Some((block, behind)) => match not_plain(block) {
                    0 => {
                        rest = behind;
                        continue;
                    }
                    marks => marks.trailing_zeros() as usize,
                },
                None => plain_prefix(rest),
            };
            // An escape of two characters, in nearly all cases.
            if *rest.get(stop)? == b'"' {
                rest = &rest[stop + 1..];
                break;
            }
            if rest[stop] != b'\\' {
                return None;
            }
            if IS_SHORT_ESCAPE[usize::from(*rest.get(stop + 1)?)] {
                rest = &rest[stop + 2..];
            } else {
                // Half of a surrogate pair is as good as another unit, where nobody uses it.
                self.position = bytes.len() - rest.len() + stop + 2;
                if rest[stop + 1] != b'u' {
                    return None;
                }
                self.hex()?;
                rest = &bytes[self.position..];
            }
        }
        self.position = bytes.len() - rest.len();
        Some(())
    }

    /// The place of the first byte from `start` on that does not stand for itself.
    #[inline]
    fn plain_end(&self, start: usize) -> usize {
        start + plain_prefix(&self.text.as_bytes()[start..])
    }

    /// The string that begins at `start` and has its first backslash at `backslash`.
    fn unescaped(&mut self, start: usize, backslash: usize) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let room = std::mem::take(&mut self.strings);
        let (mut from, mut end, mut length) = (start, backslash, 0);
        loop {
            room.get_mut(length..length + end - from)?.copy_from_slice(&bytes[from..end]);
            length += end - from;
            match bytes.get(end)? {
                b'"' => break,
                b'\\' => {
                    self.position = end;
                    let character = self.escape()?;
                    self.has_nul |= character == '\0';
                    self.is_escaped |= matches!(character, '"' | '\\' | '\0'..='\u{1f}');
                    length +=
                        character.encode_utf8(room.get_mut(length..)?.get_mut(..character.len_utf8())?).len();
                }
                _ => return None,
            }
            from = self.position;
            end = self.plain_end(from);
        }
        self.position = end + 1;
        let (string, rest) = room.split_at_mut(length);
        self.strings = rest;
        std::str::from_utf8(string).ok()
    }

    /// The character of the escape here; a surrogate alone is none.
    fn escape(&mut self) -> Option<char> {
        let letter = *self.text.as_bytes().get(self.position + 1)?;
        self.position += 2;
        Some(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let unit = self.hex()?;
                match unit {
                    0xd800..0xdc00 => {
                        self.text.as_bytes()[self.position..].starts_with(b"\\u").then_some(())?;
                        self.position += 2;
                        let low = self.hex()?;
                        (0xdc00..0xe000).contains(&low).then_some(())?;
                        char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00))?
                    }
                    unit => char::from_u32(unit)?,
                }
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.position..self.position + 4)?;
        self.position += 4;
        digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
    }
}
