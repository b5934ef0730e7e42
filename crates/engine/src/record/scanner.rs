//! JSON for the quick reader: brackets, strings and numbers, taken one behind the other.
//!
//! Unused values are only checked and stepped over, what Python adds to JSON included; strings are borrowed where they can be. It knows
//! JSON and how a corpus repeats itself, but not what a record is: that is `scan`.

use crate::json::{plain_prefix, read_escape, utf16_unit};
use crate::mask::{STRETCH, StringMarks, escaped};
use crate::record::Text;
use crate::record::buffers::RecordBuffers;

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
    /// What the record is made of. The agents in it are those of the list before, none twice: nearly always
    /// the next list names the same.
    pub buffers: RecordBuffers<'a>,
}

fn head(manual: &[u8]) -> [u8; 8] {
    manual.first_chunk().copied().unwrap_or_default()
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of `text`.
    pub fn new(
        text: &'a str,
        strings: &'a mut [u8],
        manual: &'a mut Vec<u8>,
        buffers: RecordBuffers<'a>,
    ) -> Self {
        let manual_head = head(manual);
        Scanner {
            text,
            position: 0,
            strings,
            manual,
            manual_head,
            is_escaped: false,
            has_nul: false,
            has_lists: false,
            buffers,
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
        if let Some(end) = self.behind_manual(inside).filter(|_| is_string) {
            self.position = end;
            return Some(());
        }
        self.skip_value(1)?;
        let length = self.position - inside;
        if is_string && (MIN_MANUAL..MAX_MANUAL).contains(&length) {
            self.manual.clear();
            self.manual.extend_from_slice(&self.text.as_bytes()[inside..self.position]);
            self.manual_head = head(self.manual);
        }
        Some(())
    }

    /// The place behind the manual of the record before, if it is at `at`: inside a string, which ends with it.
    #[inline]
    fn behind_manual(&self, at: usize) -> Option<usize> {
        let rest = self.text.as_bytes().get(at..)?;
        let is_there = rest.first_chunk() == Some(&self.manual_head) && rest.starts_with(self.manual);
        is_there.then(|| at + self.manual.len())
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

    /// The string whose first character is at `start` as a text of the context, its escapes checked and left
    /// as they are; taken with its closing quote.
    #[inline(always)]
    pub fn text_from(&mut self, start: usize) -> Option<Text<'a>> {
        let end = self.plain_end(start);
        if *self.text.as_bytes().get(end)? != b'"' {
            return self.raw_text(start, end);
        }
        self.position = end + 1;
        Some(Text::Plain(&self.text[start..end]))
    }

    /// The same where the first escape is at `backslash`.
    #[inline(never)]
    fn raw_text(&mut self, start: usize, backslash: usize) -> Option<Text<'a>> {
        let mut end = backslash;
        while *self.text.as_bytes().get(end)? != b'"' {
            let behind = self.behind_escape(end)?;
            end = self.plain_end(behind);
        }
        self.position = end + 1;
        Some(Text::Raw(&self.text[start..end]))
    }

    /// The place behind the escape at `at`, in a string that is used.
    fn behind_escape(&mut self, at: usize) -> Option<usize> {
        let escape = self.text.as_bytes().get(at..)?.strip_prefix(b"\\")?;
        if IS_SHORT_ESCAPE[usize::from(*escape.first()?)] {
            return Some(at + 2);
        }
        let (character, length) = read_escape(&self.text.as_bytes()[at..])?;
        self.has_nul |= character == '\0';
        Some(at + length)
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
                _ => self.position = self.behind_escape(self.position)?,
            }
        }
    }

    /// Steps over a string that nobody asks for, checking it.
    fn skip_string(&mut self) -> Option<()> {
        self.take(b'"')?;
        // The published corpus repeats the manual at the end of another unused string, on a line of its own.
        if let Some(end) = self.behind_manual(self.position) {
            self.position = end;
            return Some(());
        }
        let bytes = self.text.as_bytes();
        let mut is_first_escaped = false;
        while let Some(stretch) = bytes[self.position..].first_chunk() {
            let marks = StringMarks::of(stretch);
            let (escaped, is_next_escaped) = escaped(marks.backslashes, is_first_escaped);
            let end = marks.quotes & !escaped;
            // All bytes before the end; all, where it is not here.
            let inside = end.wrapping_sub(1) & !end;
            if marks.controls & inside != 0 {
                return None;
            }
            // A quote or a backslash may stand behind a backslash; of other letters each is looked at.
            let mut others = escaped & inside & !(marks.quotes | marks.backslashes);
            while others != 0 {
                let at = self.position + others.trailing_zeros() as usize;
                others &= others - 1;
                self.behind_unused_escape(at - 1)?;
                if bytes[at] == b'n'
                    && let Some(end) = self.behind_manual(at + 1)
                {
                    self.position = end;
                    return Some(());
                }
            }
            if end != 0 {
                self.position += end.trailing_zeros() as usize + 1;
                return Some(());
            }
            self.position += STRETCH;
            is_first_escaped = is_next_escaped;
        }
        // From the escape that is cut, if there is one.
        self.position -= usize::from(is_first_escaped);
        self.skip_last_string()
    }

    /// Steps over the rest of an unused string, close to the end of the record.
    fn skip_last_string(&mut self) -> Option<()> {
        loop {
            let at = self.plain_end(self.position);
            if *self.text.as_bytes().get(at)? == b'"' {
                self.position = at + 1;
                return Some(());
            }
            self.position = self.behind_unused_escape(at)?;
        }
    }

    /// The place behind the escape at `at`. Half of a surrogate pair is as good as another unit, where nobody
    /// uses it.
    #[inline]
    fn behind_unused_escape(&self, at: usize) -> Option<usize> {
        let escape = self.text.as_bytes().get(at..)?;
        match escape {
            [b'\\', letter, ..] if IS_SHORT_ESCAPE[usize::from(*letter)] => Some(at + 2),
            _ => utf16_unit(escape).map(|_| at + 6),
        }
    }

    /// The place of the first byte from `start` on that does not stand for itself.
    #[inline]
    fn plain_end(&self, start: usize) -> usize {
        start + self.text.as_bytes().get(start..).map_or(0, plain_prefix)
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
                    let (character, escape) = read_escape(&bytes[end..])?;
                    self.has_nul |= character == '\0';
                    self.is_escaped |= matches!(character, '"' | '\\' | '\0'..='\u{1f}');
                    let place = room.get_mut(length..)?.get_mut(..character.len_utf8())?;
                    length += character.encode_utf8(place).len();
                    from = end + escape;
                }
                _ => return None,
            }
            end = self.plain_end(from);
        }
        self.position = end + 1;
        let (string, rest) = room.split_at_mut(length);
        self.strings = rest;
        simdutf8::basic::from_utf8(string).ok()
    }
}
