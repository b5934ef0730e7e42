//! Texts to tokens: split into pieces, each joined from its bytes.
//!
//! The bound is cl100k: its 100,256 merges are the first of Llama 3's, and the others only join more.

use std::cell::Cell;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::bpe::{Bpe, Merges, NONE, Vocabulary};
use crate::class::{Class, agreed, class};
use crate::split::Pattern;

/// Tokens of cl100k, and of Llama 3 without its special ones.
pub const CL100K_TOKENS: usize = 100_256;
pub const LLAMA_3_TOKENS: usize = 128_000;
/// Longer texts and longer runs of characters that are all blank or none are cut by Meta's tokenizer.
const LONGEST_TEXT: usize = 400_000;
const LONGEST_RUN: usize = 25_000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub tokens: u64,
    /// Whether the model's own tokenizer may cut the text elsewhere: it or a run in it is very long, or it has
    /// characters that versions of Unicode differ about (a bound holds for all of them).
    pub is_about: bool,
}

/// Turns texts into tokens, as far as counting them goes.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    pub(crate) bpe: Bpe,
    pub(crate) pattern: Pattern,
    /// Whether texts are composed (NFC) before they are split.
    pub(crate) is_composed: bool,
    /// Texts that are a token each wherever they stand, the longest first.
    pub(crate) added: Vec<String>,
    /// Whether it counts what no version of Unicode can exceed.
    pub(crate) is_bound: bool,
}

impl Tokenizer {
    /// An upper bound for all models with Llama 3's vocabulary. Takes some milliseconds to make.
    pub fn bound() -> Tokenizer {
        // A name of eight bytes, the number of tokens in four; then each token's rank, length and bytes.
        let mut rest = splintr_vocab_cl100k::CL100K_BASE_VOCAB_PACKED.get(12..).unwrap_or_default();
        let tokens = (0..CL100K_TOKENS).map(|number| {
            assert_eq!(packed_number(&mut rest), number, "ranks ascend without a gap");
            let length = packed_number(&mut rest);
            let (token, behind) = rest.split_at(length);
            rest = behind;
            token
        });
        Tokenizer { is_bound: true, ..Tokenizer::ranked(Vocabulary::new(tokens)) }
    }

    /// A vocabulary whose numbers are its ranks, split as Llama 3 does.
    pub(crate) fn ranked(vocabulary: Vocabulary) -> Tokenizer {
        let whole = vec![true; vocabulary.len()];
        let bpe = Bpe { vocabulary, merges: Merges::ByBytes, whole };
        let (is_composed, added) = (false, Vec::new());
        Tokenizer { bpe, pattern: Pattern::LLAMA_3, is_composed, added, is_bound: false }
    }

    /// Its tokens in the order of their numbers, or their names where it came with names.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.bpe.vocabulary.tokens()
    }

    /// Whether it gives a bound and no exact number.
    pub fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// Whether its tokens are cl100k's and as many more as Llama 3 has.
    pub fn has_llama_3_vocabulary(&self) -> bool {
        let theirs = &self.bpe.vocabulary;
        self.pattern == Pattern::LLAMA_3
            && theirs.len() == LLAMA_3_TOKENS
            && Tokenizer::bound().tokens().all(|token| theirs.get(token) != NONE)
    }

    pub fn count(&self, text: &str) -> Count {
        let mut tokens = 0;
        let mut is_about = is_cut(text);
        self.composed(text, |text| is_about |= self.split(text, |_| tokens += 1));
        Count { tokens, is_about }
    }

    /// The end of each token of `text` in bytes; of a text that is composed first, those of what it becomes.
    /// A token may end within a character.
    pub fn ends(&self, text: &str) -> Vec<usize> {
        let mut ends = Vec::new();
        self.composed(text, |text| {
            self.split(text, |end| ends.push(end));
        });
        ends
    }

    fn composed(&self, text: &str, mut take: impl FnMut(&str)) {
        if self.is_composed && is_nfc_quick(text.chars()) != IsNormalized::Yes {
            return take(&text.nfc().collect::<String>());
        }
        take(text);
    }

    /// Calls `token` with the end of each, and says whether versions of Unicode may differ about them.
    fn split(&self, text: &str, mut token: impl FnMut(usize)) -> bool {
        if self.is_bound {
            self.split_bound(text, token);
            return false;
        }
        let is_disputed = Cell::new(false);
        let class = |character| match agreed(character) {
            Class::Disputed => {
                is_disputed.set(true);
                class(character)
            }
            class => class,
        };
        let mut at = 0;
        while at < text.len() {
            let added = self.next_added(&text[at..]);
            let (end, behind) = added.map_or((text.len(), text.len()), |(from, to)| (at + from, at + to));
            while at < end {
                let piece = self.pattern.end(&text[..end], at, class);
                self.bpe.split(&text.as_bytes()[at..piece], |length| token(at + length));
                at = piece;
            }
            if behind > end {
                token(behind);
            }
            at = behind;
        }
        is_disputed.get()
    }

    /// The first text in `text` that is a token wherever it stands, the longest of several.
    fn next_added(&self, text: &str) -> Option<(usize, usize)> {
        let found = self.added.iter().filter_map(|added| Some((text.find(added.as_str())?, added.len())));
        found.min_by_key(|(at, length)| (*at, usize::MAX - length)).map(|(at, length)| (at, at + length))
    }

    /// One token a byte from a piece that versions of Unicode do not agree about to where all cut again:
    /// behind a letter or a number, if none follows.
    fn split_bound(&self, text: &str, mut token: impl FnMut(usize)) {
        let mut at = 0;
        while at < text.len() {
            let is_disputed = Cell::new(false);
            let end = self.pattern.end(text, at, |character| match agreed(character) {
                Class::Disputed => {
                    is_disputed.set(true);
                    Class::Other
                }
                class => class,
            });
            if is_disputed.get() {
                let end = agreed_end(text, at);
                (at..end).for_each(|byte| token(byte + 1));
                at = end;
            } else {
                self.bpe.split(&text.as_bytes()[at..end], |length| token(at + length));
                at = end;
            }
        }
    }
}

/// Reads a number of seven bits a byte, the lowest first.
fn packed_number(rest: &mut &[u8]) -> usize {
    let (mut number, mut shift) = (0, 0);
    while let Some((byte, behind)) = rest.split_first() {
        *rest = behind;
        number |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

/// Behind the first disputed character from `at` on, the first place that every version cuts at.
fn agreed_end(text: &str, at: usize) -> usize {
    let (mut is_met, mut before) = (false, Class::Other);
    for (index, character) in text[at..].char_indices() {
        let class = agreed(character);
        let is_cut = matches!(before, Class::Letter | Class::Number) && class != before;
        if is_met && is_cut && class != Class::Disputed {
            return at + index;
        }
        is_met |= class == Class::Disputed;
        before = class;
    }
    text.len()
}

/// Whether Meta's tokenizer would cut `text` before it splits it.
fn is_cut(text: &str) -> bool {
    if text.len() <= LONGEST_RUN {
        return false;
    }
    let (mut run, mut is_blank, mut characters) = (0, false, 0);
    text.chars().any(|character| {
        characters += 1;
        let is_same = character.is_whitespace() == is_blank;
        run = if is_same { run + 1 } else { 1 };
        is_blank = character.is_whitespace();
        run > LONGEST_RUN || characters > LONGEST_TEXT
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_counts_what_cl100k_does() {
        let bound = Tokenizer::bound();
        let check = |text: &str, tokens: u64| {
            assert_eq!(bound.count(text), Count { tokens, is_about: false }, "{text:?}");
            let ends = bound.ends(text);
            assert_eq!((ends.len() as u64, ends.last().copied().unwrap_or(0)), (tokens, text.len()));
        };
        check("", 0);
        check("hello world", 2);
        check("tiktoken is great!", 6);
        check("antidisestablishmentarianism", 6);
        check("2 + 2 = 4", 7);
        check("お誕生日おめでとう", 9);
        check("<|endoftext|>", 7);
        check("   \n\n  x", 3);
    }

    #[test]
    fn what_is_too_long_for_metas_tokenizer_is_about() {
        let bound = Tokenizer::bound();
        let check = |text: String, is_about| assert_eq!(bound.count(&text).is_about, is_about);
        check("a".repeat(25_000), false);
        check("a".repeat(25_001), true);
        check(" ".repeat(25_001), true);
        check("a ".repeat(200_000), false);
        check("a ".repeat(200_001), true);
        check("é".repeat(20_000), false);
    }

    #[test]
    fn a_disputed_letter_costs_its_bytes_and_those_around_it() {
        let bound = Tokenizer::bound();
        let tokens = |text: &str| bound.count(text).tokens;
        // Assigned in Unicode 14, 16 and not yet.
        for young in ['\u{1df00}', '\u{105c0}', '\u{3ff00}'] {
            let text = format!("dog {young}s barks");
            assert_eq!(tokens(&text), tokens("dog") + 6 + tokens(" barks"), "{young:x?}");
        }
    }
}
