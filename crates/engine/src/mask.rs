//! Which bytes of a block mean something in a JSON string, one bit each.
//!
//! The compares and their bit masks come from `wide`: vectors where the target has them, plain loops where
//! it has none. The tests hold every mask against its definition, one byte after the other.

use wide::u8x16;

/// Bytes looked at in one step.
pub const BLOCK: usize = 16;

/// The bytes that do not stand for themselves inside a JSON string: quotes, backslashes and control
/// characters. The first byte has the lowest bit.
#[inline(always)]
pub fn not_plain(block: &[u8; BLOCK]) -> u32 {
    let bytes = u8x16::new(*block);
    // Flipping bit 1 puts the quote (0x22) at 0x20, right behind the control characters: one test for both.
    let quotes_and_controls = at_most(bytes ^ u8x16::splat(2), 0x20);
    (quotes_and_controls | bytes.simd_eq(u8x16::splat(b'\\'))).to_bitmask()
}

/// The same, and everything from U+007F on.
#[inline(always)]
pub fn not_plain_ascii(block: &[u8; BLOCK]) -> u32 {
    not_plain(block) | (at_most(u8x16::new(*block), 0x7e).to_bitmask() ^ 0xffff)
}

/// The same as [`not_plain`], and apostrophes.
#[inline(always)]
pub fn not_plain_or_apostrophe(block: &[u8; BLOCK]) -> u32 {
    not_plain(block) | u8x16::new(*block).simd_eq(u8x16::splat(b'\'')).to_bitmask()
}

/// Bytes of an unused string looked at in one step: what is done once a step costs as much as its compares.
pub const STRETCH: usize = 4 * BLOCK;

/// What a stretch of a string holds that has a meaning, one mask each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StringMarks {
    /// Quotes, escaped or not.
    pub quotes: u64,
    /// Backslashes, escaping or not.
    pub backslashes: u64,
    /// Characters below U+0020, which no string may hold.
    pub controls: u64,
}

impl StringMarks {
    /// The masks of `stretch`.
    #[inline(always)]
    pub fn of(stretch: &[u8; STRETCH]) -> StringMarks {
        let mut marks = StringMarks { quotes: 0, backslashes: 0, controls: 0 };
        for (number, block) in stretch.as_chunks().0.iter().enumerate() {
            let bytes = u8x16::new(*block);
            let mask = |found: u8x16| u64::from(found.to_bitmask()) << (number * BLOCK);
            marks.quotes |= mask(bytes.simd_eq(u8x16::splat(b'"')));
            marks.backslashes |= mask(bytes.simd_eq(u8x16::splat(b'\\')));
            marks.controls |= mask(at_most(bytes, 0x1f));
        }
        marks
    }
}

/// The bytes that stand behind an escaping backslash, and whether the byte behind the last one does too;
/// `is_first_escaped` says so of the first byte.
///
/// In a run of backslashes every other one escapes. Subtracting the runs from the odd places carries to the end
/// of each run, which tells the runs of even length from those of odd length without a loop over them.
#[inline(always)]
pub fn escaped(backslashes: u64, is_first_escaped: bool) -> (u64, bool) {
    const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    let first = u64::from(is_first_escaped);
    let may_escape = backslashes & !first;
    let behind_or_odd = may_escape << 1 | ODD;
    // The escaping backslashes, and what stands behind a run of odd length.
    let escaping_or_behind = behind_or_odd.wrapping_sub(may_escape) ^ ODD;
    let escaped = escaping_or_behind ^ (backslashes | first);
    (escaped, (escaping_or_behind & backslashes) >> (STRETCH - 1) != 0)
}

#[inline(always)]
fn at_most(bytes: u8x16, limit: u8) -> u8x16 {
    bytes.min(u8x16::splat(limit)).simd_eq(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One bit for every byte of `block` for which `is_meant` holds.
    fn defined(block: &[u8; BLOCK], is_meant: impl Fn(u8) -> bool) -> u32 {
        let bits = block.iter().enumerate().map(|(place, &byte)| u32::from(is_meant(byte)) << place);
        bits.sum()
    }

    fn check(block: &[u8; BLOCK]) {
        let is_special = |byte| byte < b' ' || byte == b'"' || byte == b'\\';
        assert_eq!(not_plain(block), defined(block, is_special), "{block:?}");
        let is_beyond = |byte| is_special(byte) || byte >= 0x7f;
        assert_eq!(not_plain_ascii(block), defined(block, is_beyond), "{block:?}");
        let is_special = |byte| is_special(byte) || byte == b'\'';
        assert_eq!(not_plain_or_apostrophe(block), defined(block, is_special), "{block:?}");
    }

    /// [`escaped`] by its definition, one byte after the other.
    fn escaped_one_by_one(backslashes: u64, is_first_escaped: bool) -> (u64, bool) {
        let (mut escaped, mut is_escaped) = (0, is_first_escaped);
        for place in 0..STRETCH {
            escaped |= u64::from(is_escaped) << place;
            is_escaped = !is_escaped && backslashes >> place & 1 == 1;
        }
        (escaped, is_escaped)
    }

    #[test]
    fn every_byte_is_known_at_every_place() {
        for byte in 0..=255 {
            for place in 0..BLOCK {
                let mut block = [b'x'; BLOCK];
                block[place] = byte;
                check(&block);
            }
        }
    }

    proptest! {
        #[test]
        fn every_mask_is_as_defined(block: [u8; BLOCK]) {
            check(&block);
        }

        #[test]
        fn every_mark_of_a_string_is_as_defined(
            halves in prop::array::uniform2(prop::array::uniform32(
                prop_oneof![any::<u8>(), prop::sample::select(&b"\"\\\x1f "[..])]
            ))
        ) {
            let stretch: &[u8; STRETCH] = halves.as_flattened().try_into().unwrap();
            let bits = |is_meant: fn(u8) -> bool| -> u64 {
                stretch.iter().enumerate().map(|(place, &byte)| u64::from(is_meant(byte)) << place).sum()
            };
            let expected = StringMarks {
                quotes: bits(|byte| byte == b'"'),
                backslashes: bits(|byte| byte == b'\\'),
                controls: bits(|byte| byte < b' '),
            };
            prop_assert_eq!(StringMarks::of(stretch), expected);
        }

        #[test]
        fn every_other_backslash_of_a_run_escapes(one: u64, other: u64, is_first_escaped: bool) {
            // Both or either, for runs that are long as well as short.
            for backslashes in [one, one | other, one & other, u64::MAX, one | 0xffff_ffff] {
                let expected = escaped_one_by_one(backslashes, is_first_escaped);
                prop_assert_eq!(escaped(backslashes, is_first_escaped), expected, "{:064b}", backslashes);
            }
        }
    }
}
