//! Whether a text can be a key, and what to do where there is none.
//!
//! A key that an editor or a chat has changed (`“tgp_…”`, a zero-width space) is refused by a server with words
//! that do not say so. What is said shows the character that is wrong, and nothing else of the key.

use secrecy::SecretString;

use crate::failure::{Exit, Failure};
use crate::text::printable;

/// What scripts know a missing Together key by.
pub(crate) const NO_KEY: &str = "no_key";

/// The key that `text` is, without the white space around it; `what` says whose it is and where it stands.
pub fn checked(text: &str, what: &str) -> Result<SecretString, Failure> {
    let key = text.trim();
    match key.chars().find(|character| !character.is_ascii() || character.is_ascii_control()) {
        None => Ok(SecretString::from(key)),
        Some(character) => {
            let code = u32::from(character);
            let message = printable(&format!("{what} contains {} (U+{code:04X})", kind(character)));
            let hint = "copy the key again, without quotation marks and from a plain text";
            Err(Failure::new(Exit::Key, "bad_key", message, hint))
        }
    }
}

/// What a character that no key has is, in words.
fn kind(character: char) -> &'static str {
    match character {
        '\n' | '\r' => "a line break",
        '\u{2018}'..='\u{201f}' | '\u{2032}'..='\u{2037}' | '\u{2039}' | '\u{203a}' => {
            "a typographic quotation mark"
        }
        '«' | '»' | '´' | '\u{300c}'..='\u{300f}' | '\u{301d}'..='\u{301f}' | '＂' | '＇' => {
            "a typographic quotation mark"
        }
        '\u{2010}'..='\u{2015}' | '\u{2212}' => "a typographic dash",
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{feff}' => {
            "an invisible character"
        }
        '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' => {
            "an invisible character"
        }
        '\u{e0000}'..='\u{e007f}' => "an invisible character",
        character if character.is_control() || character.is_whitespace() => "an invisible character",
        _ => "a character that is not ASCII",
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn white_space_around_a_key_is_no_part_of_it() {
        for text in ["tgp_v1_0-A", " tgp_v1_0-A", "tgp_v1_0-A\n", "\t tgp_v1_0-A \r\n", "\u{a0}tgp_v1_0-A"] {
            assert_eq!(checked(text, "k").unwrap().expose_secret(), "tgp_v1_0-A");
        }
    }

    #[test]
    fn a_character_that_no_key_has_is_named_and_the_key_is_not_shown() {
        let check = |text: &str, kind: &str, code: &str| {
            let failure = checked(text, "TOGETHER_API_KEY of `.env`").unwrap_err();
            assert_eq!((failure.exit, failure.code), (Exit::Key, "bad_key"));
            assert!(failure.message.contains(kind) && failure.message.contains(code), "{}", failure.message);
            assert!(!failure.message.contains("tgp"), "{}", failure.message);
        };
        check("“tgp_v1”", "quotation mark", "U+201C");
        check("tgp_v1’", "quotation mark", "U+2019");
        check("«tgp»", "quotation mark", "U+00AB");
        check("tgp\u{200b}_v1", "invisible", "U+200B");
        check("\u{feff}tgp_v1", "invisible", "U+FEFF");
        check("tgp\u{a0}v1", "invisible", "U+00A0");
        check("tgp_v1\u{2060}", "invisible", "U+2060");
        check("tgp\u{7f}", "invisible", "U+007F");
        check("tgp\nv1", "line break", "U+000A");
        check("tgp–v1", "dash", "U+2013");
        check("tgpé", "not ASCII", "U+00E9");
    }
}
