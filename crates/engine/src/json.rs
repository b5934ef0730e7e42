//! JSON text by hand: escaping, once and twice, and keys that need not be UTF-8.
//!
//! An assistant message is JSON inside a JSON string. Writing both levels in one pass
//! is what makes the converter fast, so the escapes of both are here, side by side.
//! The forms are those of Python's `json.dumps`, since that is what published corpora
//! were written with. Of JSON, only an escape is read here.

use serde::{Serialize, Serializer};

use crate::mask::{BLOCK, not_plain, not_plain_ascii};

/// Which characters the inner text may hold as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// Everything but `"`, `\` and control characters below U+0020 (`ensure_ascii=False`).
    Utf8,
    /// U+0020 to U+007E only, the rest as `\uXXXX` (`ensure_ascii=True`).
    Ascii,
}

/// The number of bytes at the start of `bytes` that need no escape.
#[inline]
fn clean_prefix(bytes: &[u8], charset: Charset) -> usize {
    let to_escape = match charset {
        Charset::Utf8 => not_plain,
        Charset::Ascii => not_plain_ascii,
    };
    let mut rest = bytes;
    while let Some((block, behind)) = rest.split_first_chunk() {
        match to_escape(block) {
            0 => rest = behind,
            found => return bytes.len() - rest.len() + found.trailing_zeros() as usize,
        }
    }
    if rest.is_empty() {
        return bytes.len();
    }
    let first = |block: &[u8; BLOCK]| (to_escape(block) | 1 << BLOCK).trailing_zeros() as usize;
    match bytes.last_chunk() {
        // The bytes before `rest` are known to be clean: looking at some again is cheaper than a copy.
        Some(block) => bytes.len() - BLOCK + first(block),
        None => {
            let mut padded = [b' '; BLOCK];
            padded[..rest.len()].copy_from_slice(rest);
            first(&padded).min(rest.len())
        }
    }
}

/// The letter of the two-character escape of a control character, if JSON has one.
fn short_escape(byte: u8) -> Option<u8> {
    match byte {
        b'\n' => Some(b'n'),
        b'\r' => Some(b'r'),
        b'\t' => Some(b't'),
        0x08 => Some(b'b'),
        0x0c => Some(b'f'),
        _ => None,
    }
}

fn push_hex(out: &mut Vec<u8>, unit: u16) {
    out.push(b'u');
    for shift in [12, 8, 4, 0] {
        let digit = usize::from(unit >> shift & 0xf);
        out.push(b"0123456789abcdef"[digit]);
    }
}

/// The number of bytes at the start of `bytes` that stand for themselves inside a JSON string:
/// all up to the first quote, backslash or control character.
#[inline]
pub fn plain_prefix(bytes: &[u8]) -> usize {
    clean_prefix(bytes, Charset::Utf8)
}

/// Appends `text` as the inside of a JSON string, UTF-8 as it is.
pub fn escape_once(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let clean = clean_prefix(rest, Charset::Utf8);
        out.extend_from_slice(&rest[..clean]);
        let Some(&byte) = rest.get(clean) else { return };
        out.push(b'\\');
        match (byte, short_escape(byte)) {
            (_, Some(letter)) => out.push(letter),
            (b'"' | b'\\', _) => out.push(byte),
            _ => push_hex(out, u16::from(byte)),
        }
        rest = &rest[clean + 1..];
    }
}

/// Appends `text` as the inside of a JSON string that itself stands inside a JSON string:
/// a quote becomes `\\\"`, a newline `\\n`.
pub fn escape_twice(out: &mut Vec<u8>, text: &str, charset: Charset) {
    let mut rest = text;
    loop {
        let clean = clean_prefix(rest.as_bytes(), charset);
        out.extend_from_slice(&rest.as_bytes()[..clean]);
        if clean == rest.len() {
            return;
        }
        // An escape is due at an ASCII byte or, in `Ascii`, at the first byte of a character:
        // continuation bytes are never reached, since whole characters are consumed.
        let Some(character) = rest[clean..].chars().next() else { return };
        push_twice(out, character, charset);
        rest = &rest[clean + character.len_utf8()..];
    }
}

/// Appends the inside of a JSON string, as its reader checked it, as the inside of a JSON string that
/// itself stands inside a JSON string: the same as [`escape_twice`] of the text it stands for.
pub fn escape_raw(out: &mut Vec<u8>, raw: &str, charset: Charset) {
    let mut rest = raw;
    loop {
        let clean = clean_prefix(rest.as_bytes(), charset);
        out.extend_from_slice(&rest.as_bytes()[..clean]);
        rest = &rest[clean..];
        let Some(first) = rest.chars().next() else { return };
        let (character, length) = match first {
            '\\' => read_escape(rest.as_bytes()).expect("the reader of the string checked its escapes"),
            _ => (first, first.len_utf8()),
        };
        push_twice(out, character, charset);
        rest = &rest[length..];
    }
}

/// Appends `character` to the inside of a string inside a string, with an escape where it needs one.
fn push_twice(out: &mut Vec<u8>, character: char, charset: Charset) {
    match character {
        '"' | '\\' => out.extend_from_slice(&[b'\\', b'\\', b'\\', character as u8]),
        '\0'..='\u{1f}' => {
            out.extend_from_slice(br"\\");
            match short_escape(character as u8) {
                Some(letter) => out.push(letter),
                None => push_hex(out, character as u16),
            }
        }
        '\u{7f}'.. if charset == Charset::Ascii => {
            out.extend_from_slice(br"\\");
            push_units(out, character);
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// The value of each hexadecimal digit; more than 15 for what is none.
const HEX: [u8; 256] = {
    let mut table = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        table[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

/// The character of the escape at the start of `bytes`, and how many bytes the escape has. `None` for what
/// JSON does not know as an escape, and for half a surrogate pair.
#[inline]
pub fn read_escape(bytes: &[u8]) -> Option<(char, usize)> {
    let character = match *bytes.get(1)? {
        letter @ (b'"' | b'\\' | b'/') => char::from(letter),
        b'n' => '\n',
        b't' => '\t',
        b'r' => '\r',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'u' => return read_unicode_escape(bytes),
        _ => return None,
    };
    Some((character, 2))
}

/// The same of `\uXXXX`, or of a pair of them.
fn read_unicode_escape(bytes: &[u8]) -> Option<(char, usize)> {
    let first = utf16_unit(bytes)?;
    if first & 0xfc00 != 0xd800 {
        return Some((char::from_u32(first)?, 6));
    }
    let second = utf16_unit(&bytes[6..]).filter(|second| second & 0xfc00 == 0xdc00)?;
    Some((char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))?, 12))
}

/// The number in the `\uXXXX` at the start of `bytes`.
#[inline]
pub fn utf16_unit(bytes: &[u8]) -> Option<u32> {
    let [b'\\', b'u', a, b, c, d, ..] = *bytes else { return None };
    let [a, b, c, d] = [a, b, c, d].map(|digit| u32::from(HEX[usize::from(digit)]));
    (a | b | c | d < 16).then_some(a << 12 | b << 8 | c << 4 | d)
}

/// Appends a character without the backslashes before its first `u`, inside two strings.
fn push_units(out: &mut Vec<u8>, character: char) {
    let mut units = [0; 2];
    let units = character.encode_utf16(&mut units);
    push_hex(out, units[0]);
    if let Some(&low) = units.get(1) {
        out.extend_from_slice(br"\\");
        push_hex(out, low);
    }
}

/// A key as text. File names need not be UTF-8: a byte that is not becomes the escape
/// `\udcXX`, as in Python's `json.dumps(os.fsdecode(name))`, so that no key is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyText<'a>(pub &'a [u8]);

impl KeyText<'_> {
    /// The key as a JSON string with its quotes.
    pub fn to_json(self) -> String {
        let mut json = Vec::with_capacity(self.0.len() + 2);
        self.write_json(&mut json);
        String::from_utf8(json).expect("UTF-8 chunks and ASCII escapes")
    }

    /// Appends the key as a JSON string with its quotes.
    pub fn write_json(self, json: &mut Vec<u8>) {
        json.push(b'"');
        match std::str::from_utf8(self.0) {
            Ok(text) => escape_once(json, text),
            Err(_) => self.write_chunks(json),
        }
        json.push(b'"');
    }

    fn write_chunks(self, json: &mut Vec<u8>) {
        for chunk in self.0.utf8_chunks() {
            escape_once(json, chunk.valid());
            for &byte in chunk.invalid() {
                json.push(b'\\');
                push_hex(json, 0xdc00 | u16::from(byte));
            }
        }
    }
}

impl Serialize for KeyText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Through a raw value: no serializer writes a lone surrogate, and it must be exact.
        let raw = serde_json::value::RawValue::from_string(self.to_json());
        raw.map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn once(text: &str) -> String {
        let mut out = Vec::new();
        escape_once(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    fn twice(text: &str, charset: Charset) -> String {
        let mut out = Vec::new();
        escape_twice(&mut out, text, charset);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes_are_those_of_python() {
        assert_eq!(once("a\"b\\c\n\u{1}\u{7f}é"), "a\\\"b\\\\c\\n\\u0001\u{7f}é");
        assert_eq!(twice("a\"\\\n\u{1}é\u{7f}😀", Charset::Utf8), "a\\\\\\\"\\\\\\\\\\\\n\\\\u0001é\u{7f}😀");
        assert_eq!(twice("é\u{7f}😀~", Charset::Ascii), "\\\\u00e9\\\\u007f\\\\ud83d\\\\ude00~");
    }

    fn raw(inside: &str, charset: Charset) -> String {
        let mut out = Vec::new();
        escape_raw(&mut out, inside, charset);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_escapes_of_json_are_read() {
        let check = |bytes: &str, expected| assert_eq!(read_escape(bytes.as_bytes()), expected, "{bytes}");
        for (letter, character) in
            r#""\/"#.chars().zip(r#""\/"#.chars()).chain("bfnrt".chars().zip("\u{8}\u{c}\n\r\t".chars()))
        {
            check(&format!("\\{letter}u0041"), Some((character, 2)));
        }
        check(r"\u00E9x", Some(('é', 6)));
        check(r"\u00e9", Some(('é', 6)));
        check(r"\ud83d\uDE00", Some(('😀', 12)));
        for other in
            [r"\", r"\x", r"\u00e", r"\u00eg", r"\ud83d", r"\ud83d\u0041", r"\ud83d\ud83d", r"\ude00", r"\'"]
        {
            check(other, None);
        }
    }

    #[test]
    fn every_byte_is_found_at_every_place() {
        for charset in [Charset::Utf8, Charset::Ascii] {
            for byte in 0..=255u8 {
                let is_beyond = charset == Charset::Ascii && byte >= 0x7f;
                let is_special = byte < 0x20 || byte == b'"' || byte == b'\\' || is_beyond;
                for place in 0..40 {
                    let mut bytes = [b'x'; 40];
                    bytes[place] = byte;
                    let expected = if is_special { place } else { 40 };
                    assert_eq!(clean_prefix(&bytes, charset), expected, "{byte:#x} at {place}");
                }
            }
        }
    }

    #[test]
    fn a_key_that_is_not_utf8_keeps_its_bytes() {
        assert_eq!(KeyText(b"a/\xff\"\xc3\xa9.json").to_json(), "\"a/\\udcff\\\"é.json\"");
        assert_eq!(serde_json::to_string(&KeyText(b"\xff")).unwrap(), "\"\\udcff\"");
    }

    /// Every unit of UTF-16 but for surrogates, each in both cases of its digits; some pairs; every short
    /// escape; and what needs none.
    fn piece_of_a_string() -> impl Strategy<Value = String> {
        let unit = prop_oneof![0u16..0x200, 0u16..0xd800, 0xe000u16..];
        prop_oneof![
            unit.clone().prop_map(|unit| format!("\\u{unit:04x}")),
            unit.prop_map(|unit| format!("\\u{unit:04X}")),
            (0xd800u16..0xdc00, 0xdc00u16..0xe000)
                .prop_map(|(high, low)| format!("\\u{high:04x}\\u{low:04X}")),
            prop::sample::select(&br#""\/bfnrt"#[..]).prop_map(|letter| format!("\\{}", char::from(letter))),
            "[ !#-\\[\\]-~é😀\u{7f}]{0,20}",
        ]
    }

    proptest! {
        #[test]
        fn a_raw_string_is_escaped_as_the_text_it_stands_for(
            pieces in proptest::collection::vec(piece_of_a_string(), 0..12)
        ) {
            let inside = pieces.concat();
            let text: String = serde_json::from_str(&format!("\"{inside}\"")).unwrap();
            for charset in [Charset::Utf8, Charset::Ascii] {
                prop_assert_eq!(raw(&inside, charset), twice(&text, charset));
            }
        }

        #[test]
        fn an_escaped_text_reads_back_as_itself(text in "\\PC*|(?s).*") {
            let read = |json: &str| serde_json::from_str::<String>(&format!("\"{json}\"")).unwrap();
            prop_assert_eq!(&read(&once(&text)), &text);
            for charset in [Charset::Utf8, Charset::Ascii] {
                let inner = read(&twice(&text, charset));
                prop_assert_eq!(&read(&inner), &text);
                prop_assert_eq!(raw(&once(&text), charset), twice(&text, charset));
                if charset == Charset::Ascii {
                    prop_assert!(inner.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
                }
            }
        }
    }
}
