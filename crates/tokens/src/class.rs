//! Characters as split patterns tell them apart, and those that patterns of different age do not agree about.

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory as _};

/// What a character is to a split pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `\p{L}`.
    Letter,
    /// `\p{N}`.
    Number,
    /// `[\r\n]`.
    Newline,
    /// `\s` without the line ends.
    Blank,
    /// All others.
    Other,
    /// One that is a letter or a number to some versions of Unicode and none to others. Those that it is
    /// none to call it unassigned; the newest one's class is [`class`]'s.
    Disputed,
}

const ASCII: [Class; 128] = {
    let mut classes = [Class::Other; 128];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
            b'0'..=b'9' => Class::Number,
            b'\r' | b'\n' => Class::Newline,
            b'\t' | b' ' | 0x0b | 0x0c => Class::Blank,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

/// The class of `character`, which is never [`Class::Disputed`].
#[inline]
pub fn class(character: char) -> Class {
    match ASCII.get(character as usize) {
        Some(class) => *class,
        None => rare(character),
    }
}

fn rare(character: char) -> Class {
    match character.general_category_group() {
        GeneralCategoryGroup::Letter => Class::Letter,
        GeneralCategoryGroup::Number => Class::Number,
        _ if character.is_whitespace() => Class::Blank,
        _ => Class::Other,
    }
}

/// The class of `character`, as far as all versions of Unicode since 12 agree about it and all later ones will.
#[inline]
pub fn agreed(character: char) -> Class {
    match ASCII.get(character as usize) {
        Some(class) => *class,
        None if is_disputed(character) => Class::Disputed,
        None => rare(character),
    }
}

fn is_disputed(character: char) -> bool {
    let is_young = || {
        let at = YOUNG.partition_point(|(_, last)| *last < character);
        YOUNG.get(at).is_some_and(|(first, _)| *first <= character)
    };
    is_young() || character.general_category() == GeneralCategory::Unassigned
}

/// Where all letters and numbers lie that Unicode has got since version 12, with older ones between them.
#[rustfmt::skip]
const YOUNG: [(char, char); 40] = [
    ('\u{558}', '\u{58c}'), ('\u{870}', '\u{8c9}'), ('\u{c5c}', '\u{c5d}'), ('\u{cdc}', '\u{d04}'),
    ('\u{170d}', '\u{171f}'), ('\u{1b4c}', '\u{1b4c}'), ('\u{1c89}', '\u{1c8a}'),
    ('\u{208f}', '\u{209f}'), ('\u{2c2f}', '\u{2c5f}'), ('\u{31bb}', '\u{31bf}'), ('\u{4db6}', '\u{4dbf}'),
    ('\u{9ff0}', '\u{9fff}'), ('\u{a7c0}', '\u{a7f6}'), ('\u{ab68}', '\u{ab6d}'), ('\u{10570}', '\u{113d3}'),
    ('\u{11460}', '\u{11461}'), ('\u{116d0}', '\u{116e3}'), ('\u{11740}', '\u{11746}'), ('\u{11900}', '\u{11959}'),
    ('\u{11ab0}', '\u{11f59}'), ('\u{11fb0}', '\u{11fb0}'), ('\u{1246f}', '\u{12ff0}'), ('\u{1342f}', '\u{143fa}'),
    ('\u{16100}', '\u{16ff6}'), ('\u{187f8}', '\u{191d2}'), ('\u{1aff0}', '\u{1b168}'), ('\u{1ccf0}', '\u{1ccf9}'),
    ('\u{1d2c0}', '\u{1d2d3}'), ('\u{1d6a6}', '\u{1d6a6}'), ('\u{1df00}', '\u{1e06d}'), ('\u{1e290}', '\u{1e4f9}'),
    ('\u{1e5d0}', '\u{1e7fe}'), ('\u{1fbf0}', '\u{1fbf9}'), ('\u{2a6d7}', '\u{2a6df}'), ('\u{2b735}', '\u{2b73f}'),
    ('\u{2b81e}', '\u{2b81e}'), ('\u{2cea2}', '\u{2cead}'), ('\u{2ebf0}', '\u{2ee5d}'), ('\u{30000}', '\u{33479}'),
    ('\u{3d000}', '\u{3fc3f}'),
];
