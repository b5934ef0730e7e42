//! How far two texts agree: exactly, and by the words they share.
//!
//! A word is a longest run of letters and digits, as Unicode has them, and `_`, in lower case; order
//! does not count, number does. F1 is twice the words that both have, by the words of both. Where one
//! text has no words it is 0; where neither has, 1. `none` (in any case) is no text but the word for
//! nothing: with itself it agrees, with any other text it does not, whatever words that has.

use crate::record::story::is_blank;

/// Whether `text` says that there is nothing.
pub fn is_none(text: &str) -> bool {
    text.trim_matches(is_blank).eq_ignore_ascii_case("none")
}

/// How far two texts agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Whether they are the same.
    pub is_exact: bool,
    /// Whether both are `none`.
    pub is_none: bool,
    /// The words they share, from 0 to 1.
    pub f1: f64,
}

/// Compares texts; its room is used again.
#[derive(Debug, Default)]
pub struct Comparer {
    left: Words,
    right: Words,
}

impl Comparer {
    /// How far `left` and `right` agree. Both are trimmed.
    pub fn compare(&mut self, left: &str, right: &str) -> Agreement {
        let is_none = match (is_none(left), is_none(right)) {
            (false, false) => false,
            (true, true) => true,
            _ => return Agreement { is_exact: false, is_none: false, f1: 0.0 },
        };
        if is_none || left == right {
            return Agreement { is_exact: true, is_none, f1: 1.0 };
        }
        Agreement { is_exact: false, is_none, f1: self.f1(left, right) }
    }

    fn f1(&mut self, left: &str, right: &str) -> f64 {
        self.left.read(left);
        self.right.read(right);
        let words = self.left.places.len() + self.right.places.len();
        if words == 0 {
            return 1.0;
        }
        2.0 * self.shared() as f64 / words as f64
    }

    /// How many words both have, each as often as in the text that has it less often.
    fn shared(&self) -> usize {
        let (mut left, mut right) = (self.left.sorted().peekable(), self.right.sorted().peekable());
        let mut shared = 0;
        while let (Some(one), Some(other)) = (left.peek(), right.peek()) {
            let order = one.cmp(other);
            if order.is_le() {
                left.next();
            }
            if order.is_ge() {
                right.next();
            }
            shared += usize::from(order.is_eq());
        }
        shared
    }
}

/// The words of a text, sorted.
#[derive(Debug, Default)]
struct Words {
    text: String,
    places: Vec<(usize, usize)>,
}

impl Words {
    fn read(&mut self, text: &str) {
        self.text.clear();
        self.places.clear();
        let is_of_word = |character: char| character.is_alphanumeric() || character == '_';
        for word in text.split(|character| !is_of_word(character)).filter(|word| !word.is_empty()) {
            let start = self.text.len();
            if word.is_ascii() {
                self.text.push_str(word);
                self.text[start..].make_ascii_lowercase();
            } else {
                self.text.push_str(&word.to_lowercase());
            }
            self.places.push((start, self.text.len()));
        }
        let Words { text, places } = self;
        places.sort_unstable_by_key(|&(start, end)| &text.as_bytes()[start..end]);
    }

    fn sorted(&self) -> impl Iterator<Item = &str> {
        self.places.iter().map(|&(start, end)| &self.text[start..end])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(left: &str, right: &str, is_exact: bool, f1: f64) {
        for (left, right) in [(left, right), (right, left)] {
            let found = Comparer::default().compare(left, right);
            assert_eq!(found.is_exact, is_exact, "{left:?} {right:?}");
            assert!((found.f1 - f1).abs() < 1e-12, "{left:?} {right:?}: {}", found.f1);
        }
    }

    #[test]
    fn words_count_in_any_order_and_case() {
        check("The box is red.", "the BOX is red", false, 1.0);
        check("red is the box", "The box is red", false, 1.0);
        check("the box", "the the box", false, 0.8);
        check("Zoë's café", "zoë café", false, 0.8);
        check("a_b", "a b", false, 0.0);
        check("盒子 2", "盒子 3", false, 0.5);
        check("ŒUVRE", "œuvre", false, 1.0);
    }

    #[test]
    fn a_text_without_words_shares_none() {
        check("", "", true, 1.0);
        check("...", "!", false, 1.0);
        check("", "!", false, 1.0);
        check("", "a", false, 0.0);
        check("...", "a", false, 0.0);
    }

    #[test]
    fn none_agrees_with_itself_only() {
        check("none", "None", true, 1.0);
        check("none", "none of them sees it", false, 0.0);
        check("none", "", false, 0.0);
        check("none.", "none", false, 0.0);
        assert!(Comparer::default().compare("none", "NONE").is_none);
    }

    proptest! {
        #[test]
        fn agreement_is_symmetric_and_bounded(left in "[aB Ω_.é1]{0,12}|none", right in "[aB Ω_.é1]{0,12}|none") {
            let mut comparer = Comparer::default();
            let found = comparer.compare(&left, &right);
            prop_assert_eq!(found, comparer.compare(&right, &left));
            prop_assert!((0.0..=1.0).contains(&found.f1));
            prop_assert!(!found.is_exact || found.f1 == 1.0);
            prop_assert!(comparer.compare(&left, &left).is_exact);
        }
    }
}
