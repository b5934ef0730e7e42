//! JSON text by hand: escaping, once and twice, and keys that need not be UTF-8.
//!
//! An assistant message is JSON inside a JSON string. Writing both levels in one pass
//! is what makes the converter fast, so the escapes of both are here, side by side.
//! The forms are those of Python's `json.dumps`, since that is what published corpora
//! were written with. Nothing here reads JSON.

use serde::{Serialize, Serializer};

/// Which characters the inner text may hold as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// Everything but `"`, `\` and control characters below U+0020 (`ensure_ascii=False`).
    Utf8,
    /// U+0020 to U+007E only, the rest as `\uXXXX` (`ensure_ascii=True`).
    Ascii,
}

const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

/// The number of bytes at the start of `bytes` that need no escape.
#[inline]
fn clean_prefix(bytes: &[u8], charset: Charset) -> usize {
    let mut rest = bytes;
    while let Some((chunk, behind)) = rest.split_first_chunk::<8>() {
        match first_to_escape(*chunk, charset) {
            8 => rest = behind,
            found => return bytes.len() - rest.len() + found,
        }
    }
    if rest.is_empty() {
        return bytes.len();
    }
    match bytes.last_chunk::<8>() {
        // The bytes before `rest` are known to be clean: looking at some again is cheaper than a copy.
        Some(chunk) => bytes.len() - 8 + first_to_escape(*chunk, charset),
        None => {
            let mut padded = [b' '; 8];
            padded[..rest.len()].copy_from_slice(rest);
            first_to_escape(padded, charset).min(rest.len())
        }
    }
}

/// The place of the first byte that needs an escape, or 8.
#[inline]
fn first_to_escape(chunk: [u8; 8], charset: Charset) -> usize {
    let word = u64::from_le_bytes(chunk);
    // Bit 7 of a difference flags a byte below the limit; exact up to and including the lowest flag.
    // Flipping bit 1 puts the quote (0x22) at 0x20, right behind the control characters: one test for both.
    let mut found = (word ^ (ONES * 2)).wrapping_sub(ONES * 0x21) | (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    match charset {
        Charset::Utf8 => found &= !word,
        Charset::Ascii => found |= word | (word ^ (ONES * 0x7f)).wrapping_sub(ONES),
    }
    // 64 zeros, hence 8, where nothing was found.
    (found & HIGHS).trailing_zeros() as usize / 8
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

/// The same of eight bytes.
#[inline]
pub fn plain_bytes(chunk: [u8; 8]) -> usize {
    first_to_escape(chunk, Charset::Utf8)
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
        out.extend_from_slice(br"\\");
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            '\0'..='\u{1f}' => match short_escape(character as u8) {
                Some(letter) => out.push(letter),
                None => push_hex(out, character as u16),
            },
            _ => push_units(out, character),
        }
        rest = &rest[clean + character.len_utf8()..];
    }
}

/// Appends the inside of a JSON string, all its escapes the two-character ones that [`escape_twice`]
/// writes, as the inside of a JSON string that itself stands inside a JSON string.
pub fn escape_raw(out: &mut Vec<u8>, raw: &str, charset: Charset) {
    let mut rest = raw;
    loop {
        let clean = clean_prefix(rest.as_bytes(), charset);
        out.extend_from_slice(&rest.as_bytes()[..clean]);
        let Some(character) = rest[clean..].chars().next() else { return };
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            _ => {
                out.extend_from_slice(br"\\");
                push_units(out, character);
            }
        }
        rest = &rest[clean + character.len_utf8()..];
    }
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
        let mut json = vec![b'"'];
        for chunk in self.0.utf8_chunks() {
            escape_once(&mut json, chunk.valid());
            for &byte in chunk.invalid() {
                json.push(b'\\');
                push_hex(&mut json, 0xdc00 | u16::from(byte));
            }
        }
        json.push(b'"');
        String::from_utf8(json).expect("UTF-8 chunks and ASCII escapes")
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

    proptest! {
        #[test]
        fn an_escaped_text_reads_back_as_itself(text in "\\PC*|(?s).*") {
            let read = |json: &str| serde_json::from_str::<String>(&format!("\"{json}\"")).unwrap();
            prop_assert_eq!(&read(&once(&text)), &text);
            for charset in [Charset::Utf8, Charset::Ascii] {
                let inner = read(&twice(&text, charset));
                prop_assert_eq!(&read(&inner), &text);
                let mut out = Vec::new();
                if !text.bytes().any(|byte| byte < b' ' && short_escape(byte).is_none()) {
                    escape_raw(&mut out, &once(&text), charset);
                    prop_assert_eq!(out, twice(&text, charset).into_bytes());
                }
                if charset == Charset::Ascii {
                    prop_assert!(inner.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
                }
            }
        }
    }
}
