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
    }
}
