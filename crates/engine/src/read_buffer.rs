//! A buffer for what is read, which begins where the kernel copies to quickly.
//!
//! What is read of a file mostly begins with a page, and a large vector begins 16 bytes behind the start of one. To a
//! place 1 to 31 bytes behind the start of a page some processors (AMD's Zen 3) copy a whole page four times slower
//! than to any other.

use std::ops::{Deref, DerefMut};

/// Bytes at the start of the vector that are not used.
const HEAD_BYTES: usize = 48;

/// Bytes that are all initialized.
#[derive(Debug, Default)]
pub struct ReadBuffer(Vec<u8>);

impl ReadBuffer {
    /// A buffer of `length` bytes.
    pub fn new(length: usize) -> ReadBuffer {
        ReadBuffer(vec![0; HEAD_BYTES + length])
    }

    /// Makes room for at least `length` bytes; those that are there stay.
    pub fn grow(&mut self, length: usize) {
        if self.len() < length {
            self.0.resize(HEAD_BYTES + length, 0);
        }
    }
}

impl Deref for ReadBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.get(HEAD_BYTES..).unwrap_or_default()
    }
}

impl DerefMut for ReadBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.get_mut(HEAD_BYTES..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays() {
        let mut buffer = ReadBuffer::default();
        assert!(buffer.is_empty());
        buffer.grow(3);
        buffer.copy_from_slice(b"abc");
        buffer.grow(2);
        buffer.grow(5);
        assert_eq!(*buffer, *b"abc\0\0");
        assert_eq!(ReadBuffer::new(7).len(), 7);
    }
}
