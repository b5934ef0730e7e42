//! Finds the place and the kind of an error in JSON that simd-json refused.
//!
//! simd-json is fast and says little: its positions are often 0. This is the cold second
//! look, with serde_json's positions. It never accepts what simd-json refused; where it
//! finds no fault itself, simd-json's word stands.

use std::fmt;

use serde::de::{self, Deserializer as _, MapAccess, SeqAccess, Visitor};

use crate::record::reject::{Code, RejectReason};

/// simd-json's limit: deeper documents are refused.
pub const MAX_DEPTH: usize = 1024;

/// Explains why `bytes`, a record as it was read, is refused; `error` is what simd-json said.
pub fn diagnose(bytes: &[u8], error: &simd_json::Error) -> RejectReason {
    encoding(bytes).or_else(|| depth(bytes)).or_else(|| syntax(bytes)).unwrap_or_else(|| unexplained(error))
}

/// Why `bytes` are no text, or none to speak of, if that is so.
pub fn encoding(bytes: &[u8]) -> Option<RejectReason> {
    let reason = |code, text: String, at: String| Some(RejectReason::new(code, text, at));
    let named = |name: &str| reason(Code::Encoding, format!("{name}, not UTF-8 text"), String::new());
    match bytes {
        [0x1f, 0x8b, ..] => return named("gzip data"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return named("zstd data"),
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return named("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return named("UTF-16"),
        _ => {}
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        let byte = bytes[error.valid_up_to()];
        return reason(
            Code::Encoding,
            format!("not UTF-8: the byte 0x{byte:02x} does not belong there"),
            format!("byte {}", error.valid_up_to() + 1),
        );
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if text.iter().all(u8::is_ascii_whitespace) {
        let what = if text.is_empty() { "no text at all" } else { "only blanks" };
        return reason(Code::Empty, what.to_owned(), String::new());
    }
    let nul = bytes.iter().position(|&byte| byte == 0)?;
    reason(
        Code::Encoding,
        "a NUL byte: UTF-16, UTF-32, or a damaged file".to_owned(),
        format!("byte {}", nul + 1),
    )
}

/// Counts brackets outside strings, so that no recursion ever meets a depth bomb.
fn depth(bytes: &[u8]) -> Option<RejectReason> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            let reason = format!("nested deeper than {MAX_DEPTH} levels");
            return Some(RejectReason::new(Code::TooDeep, reason, format!("byte {}", index + 1)));
        }
    }
    None
}

fn syntax(bytes: &[u8]) -> Option<RejectReason> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = serde_json::Deserializer::from_slice(text);
    // The depth is bounded by `depth` above, so the default limit of 128 may go.
    reader.disable_recursion_limit();
    let result = reader.deserialize_any(Validate).and_then(|()| reader.end());
    let error = result.err()?;
    let at = format!("line {} column {}", error.line(), error.column());
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or(&message);
    let code = match message {
        _ if message.contains("surrogate") || message.contains("unexpected end of hex escape") => {
            Code::LoneSurrogate
        }
        _ if message.contains("number out of range") => Code::NumberRange,
        _ => Code::JsonSyntax,
    };
    Some(RejectReason::new(code, message, at))
}

fn unexplained(error: &simd_json::Error) -> RejectReason {
    use simd_json::ErrorType;
    let (code, reason) = match error.error() {
        // serde_json turns a long integer into a double; here it is refused, not rounded.
        ErrorType::InvalidNumber | ErrorType::ExpectedNumber | ErrorType::InvalidExponent => {
            (Code::NumberRange, "a number that 64 bits do not hold exactly".to_owned())
        }
        ErrorType::InvalidUnicodeCodepoint | ErrorType::InvalidUnicodeEscape => {
            (Code::LoneSurrogate, "a \\u escape that is no character".to_owned())
        }
        other => (Code::JsonSyntax, format!("not JSON ({other:?})")),
    };
    let at = if error.index() == 0 { String::new() } else { format!("byte {}", error.index() + 1) };
    RejectReason::new(code, reason, at)
}

/// Visits everything and keeps nothing, but unescapes each string, so that a lone
/// surrogate is seen (`IgnoredAny` passes over it).
struct Validate;

impl<'de> de::DeserializeSeed<'de> for Validate {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Validate {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Validate)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_key_seed(Validate)?.is_some() {
            fields.next_value_seed(Validate)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], code: Code, at: &str) {
        let mut copy = bytes.to_vec();
        let error = simd_json::to_tape(&mut copy).expect_err("simd-json refuses it");
        let reason = diagnose(bytes, &error);
        assert_eq!((reason.code, reason.at.as_str()), (code, at), "{reason:?}");
    }

    #[test]
    fn each_fault_has_its_code_and_place() {
        check(b"", Code::Empty, "");
        check(b" \n\t", Code::Empty, "");
        check(b"\xff\xfe{\0}\0", Code::Encoding, "");
        check(b"{\0}\0", Code::Encoding, "byte 2");
        check(b"{\"a\": \"caf\xe9\"}", Code::Encoding, "byte 11");
        check(b"\x1f\x8b\x08\0", Code::Encoding, "");
        check(b"{\"a\": 1", Code::JsonSyntax, "line 1 column 7");
        check(b"{\"a\":\n \"\\x\"}", Code::JsonSyntax, "line 2 column 4");
        check(b"{\"a\": \"x\ny\"}", Code::JsonSyntax, "line 2 column 0");
        check(b"{} {}", Code::JsonSyntax, "line 1 column 4");
        check(b"{\"a\": NaN}", Code::JsonSyntax, "line 1 column 7");
        check(b"{\"a\": \"\\ud800\"}", Code::LoneSurrogate, "line 1 column 14");
        check(b"{\"a\": \"\\udc00x\"}", Code::LoneSurrogate, "line 1 column 13");
        check(b"{\"a\": 1e400}", Code::NumberRange, "line 1 column 11");
        check(b"{\"a\": 123456789012345678901234567890}", Code::NumberRange, "byte 27");
    }

    #[test]
    fn a_depth_bomb_is_refused_on_a_small_stack() {
        let small = std::thread::Builder::new().stack_size(2 << 20);
        let thread = small.spawn(|| {
            for open in ["[", "{\"a\":"] {
                check(
                    open.repeat(100_000).as_bytes(),
                    Code::TooDeep,
                    if open == "[" { "byte 1025" } else { "byte 5121" },
                );
            }
        });
        thread.unwrap().join().unwrap();
    }

    #[test]
    fn an_error_below_the_deepest_allowed_level_is_still_found() {
        let small = std::thread::Builder::new().stack_size(8 << 20);
        let thread = small.spawn(|| {
            check("[".repeat(MAX_DEPTH).as_bytes(), Code::JsonSyntax, "line 1 column 1024");
        });
        thread.unwrap().join().unwrap();
    }
}
