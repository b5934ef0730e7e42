//! Cuts a text into the pieces of a published split pattern, none of which a token crosses.
//!
//! Written out by hand for a few patterns, which differ little, since an engine for regular expressions is many
//! times slower. [`Pattern::of`] knows them by their words.

use crate::class::Class;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Of cl100k, Llama 3 and what follows them; numbers in pieces of so many digits.
    Llama {
        /// The most digits in a piece.
        digits: usize,
    },
    /// GPT-2's.
    Gpt2,
}

/// Llama 3's pattern but for its numbers.
const BEFORE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}";
const BEHIND: &str = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Pattern {
    /// Llama 3's.
    pub const LLAMA_3: Pattern = Pattern::Llama { digits: 3 };

    /// The pattern that `regex` writes; none of those that are known here.
    pub fn of(regex: &str) -> Option<Pattern> {
        match regex.strip_prefix(BEFORE)?.strip_suffix(BEHIND)? {
            "{1,3}" => Some(Pattern::LLAMA_3),
            "" => Some(Pattern::Llama { digits: 1 }),
            _ => None,
        }
    }

    /// Where the piece ends that begins at the byte `at`, which is before the end of `text`. `class` tells
    /// characters apart and hears each that the answer depends on.
    #[inline]
    pub fn end(self, text: &str, at: usize, class: impl Fn(char) -> Class) -> usize {
        let peek = |at: usize| {
            let byte = *text.as_bytes().get(at)?;
            let character = if byte < 0x80 { char::from(byte) } else { text[at..].chars().next()? };
            Some((class(character), at + character.len_utf8()))
        };
        let is = |peeked: Option<(Class, usize)>, class: Class| peeked.filter(|(found, _)| *found == class);
        let run = |mut at: usize, class: Class, most: usize| {
            for _ in 0..most {
                let Some((_, next)) = is(peek(at), class) else { break };
                at = next;
            }
            at
        };
        if let Some(length) = self.contraction(&text.as_bytes()[at..]) {
            return at + length;
        }
        let Some((first, next)) = peek(at) else { return at };
        let is_space = text.as_bytes()[at] == b' ';
        match (self, first) {
            (_, Class::Letter) => return run(next, Class::Letter, usize::MAX),
            (Pattern::Llama { digits }, Class::Number) => return run(next, Class::Number, digits - 1),
            (Pattern::Gpt2, Class::Number) => return run(next, Class::Number, usize::MAX),
            _ => {}
        }
        let may_lead = match self {
            Pattern::Llama { .. } => first != Class::Newline,
            Pattern::Gpt2 => is_space,
        };
        match peek(next) {
            Some((Class::Letter, behind)) if may_lead => return run(behind, Class::Letter, usize::MAX),
            Some((Class::Number, behind)) if may_lead && self == Pattern::Gpt2 => {
                return run(behind, Class::Number, usize::MAX);
            }
            Some((Class::Other, _)) if is_space => {}
            _ if first == Class::Other => {}
            _ => return self.blanks(at, peek),
        }
        let end = run(next, Class::Other, usize::MAX);
        if self == Pattern::Gpt2 { end } else { run(end, Class::Newline, usize::MAX) }
    }

    /// The end of the blanks from `at`: behind the last line end; without one, before the last of several if
    /// they lead to something.
    fn blanks(self, at: usize, peek: impl Fn(usize) -> Option<(Class, usize)>) -> usize {
        let (mut end, mut last, mut line_end) = (at, at, None);
        let is_over = loop {
            match peek(end) {
                Some((class @ (Class::Blank | Class::Newline), next)) => {
                    (last, end) = (end, next);
                    if class == Class::Newline {
                        line_end = Some(next);
                    }
                }
                met => break met.is_none(),
            }
        };
        match line_end {
            Some(line_end) if self != Pattern::Gpt2 => line_end,
            _ if is_over || last == at => end,
            _ => last,
        }
    }

    /// The length of an English contraction at the beginning of `text`, such as `'ll`.
    fn contraction(self, text: &[u8]) -> Option<usize> {
        let [b'\'', rest @ ..] = text else { return None };
        let fold = |byte: &u8| if self == Pattern::Gpt2 { *byte } else { byte.to_ascii_lowercase() };
        match (rest.first().map(fold)?, rest.get(1).map(fold)) {
            (b's' | b't' | b'm' | b'd', _) => Some(2),
            (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(3),
            // The long s: where case is ignored it is an s.
            (0xc5, _) if rest.get(1) == Some(&0xbf) && self != Pattern::Gpt2 => Some(3),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::class;

    fn pieces(pattern: Pattern, text: &str) -> Vec<&str> {
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let end = pattern.end(text, at, class);
            assert!(end > at, "{text:?} at {at}");
            pieces.push(&text[at..end]);
            at = end;
        }
        pieces
    }

    #[test]
    fn pieces_are_those_of_llamas_pattern() {
        let check = |text: &str, expected: &[&str]| assert_eq!(pieces(Pattern::LLAMA_3, text), expected);
        check("Mia's hat, 12345!", &["Mia", "'s", " hat", ",", " ", "123", "45", "!"]);
        check("we'LL 'story", &["we", "'LL", " '", "story"]);
        check("a  b\t c", &["a", " ", " b", "\t", " c"]);
        check("a \n \n  b", &["a", " \n \n", " ", " b"]);
        check("(a) {\n\n\"b\":", &["(a", ")", " {\n\n", "\"b", "\":"]);
        check("end  ", &["end", "  "]);
        check("été日本 ½", &["été日本", " ", "½"]);
        check("\u{a0}\u{a0}x", &["\u{a0}", "\u{a0}x"]);
        check("\r\nx", &["\r\n", "x"]);
    }

    #[test]
    fn other_patterns_differ_in_numbers_and_spaces() {
        assert_eq!(pieces(Pattern::Llama { digits: 1 }, "a 12"), ["a", " ", "1", "2"]);
        assert_eq!(
            pieces(Pattern::Gpt2, "I'LL \"a 123 b\n\n c"),
            ["I", "'", "LL", " \"", "a", " 123", " b", "\n\n", " c"]
        );
    }

    #[test]
    fn a_pattern_is_known_by_its_words() {
        let of = |digits: &str| Pattern::of(&format!("{BEFORE}{digits}{BEHIND}"));
        assert_eq!(of("{1,3}"), Some(Pattern::LLAMA_3));
        assert_eq!(of(""), Some(Pattern::Llama { digits: 1 }));
        assert_eq!(of("{2}"), None);
        assert_eq!(Pattern::of(r"\w+"), None);
    }
}
