//! A range of an object, read in pieces from its start to its end or from its end to its start.
//!
//! Only a block of it is in memory, and no file stays open between two blocks: thousands of spans can be read
//! side by side. It interprets nothing.

use std::sync::Arc;

use crate::error::Error;
use crate::read_buffer::ReadBuffer;
use crate::storage::Storage;

/// The unit of the page cache.
const PAGE_BYTES: u64 = 4096;

/// Blocks for which a page more does not matter.
const ALIGNED_BYTES: u64 = 16 * PAGE_BYTES;

/// A range of an object while it is read.
#[derive(Debug)]
pub struct Span {
    storage: Arc<dyn Storage>,
    name: Arc<str>,
    /// The offsets in the object of its first byte, and behind its last one.
    start: u64,
    end: u64,
    block: ReadBuffer,
    /// Where the block begins, counted from `start`, and how many bytes of it are read.
    at: u64,
    read: usize,
    block_bytes: usize,
}

impl Span {
    /// `length` bytes of the object `name` from `start` on, read by blocks of `block_bytes`.
    pub fn new(
        storage: &Arc<dyn Storage>,
        name: &Arc<str>,
        start: u64,
        length: u64,
        block_bytes: usize,
    ) -> Span {
        Span {
            storage: Arc::clone(storage),
            name: Arc::clone(name),
            start,
            end: start + length,
            block: ReadBuffer::default(),
            at: 0,
            read: 0,
            block_bytes,
        }
    }

    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.end - self.start
    }

    /// `length` bytes at `offset`. What is read beside them are those behind, or with `backward` those before.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn get(&mut self, offset: u64, length: usize, backward: bool) -> Result<&[u8], Error> {
        let end = offset + length as u64;
        if offset < self.at || end > self.at + self.read as u64 {
            debug_assert!(end <= self.length(), "{}: {end} of {}", self.name, self.length());
            let wanted = length.max(self.block_bytes) as u64;
            let (from, to) = match backward {
                true => (end.saturating_sub(wanted), end),
                false => (offset, (offset + wanted).min(self.length())),
            };
            // Large blocks from the start of a page, from which the kernel copies quickest.
            let before = if wanted >= ALIGNED_BYTES { (self.start + from) % PAGE_BYTES } else { 0 };
            let from = from.saturating_sub(before);
            self.read = (to - from) as usize;
            self.at = from;
            self.block.grow(self.read);
            let block = &mut self.block[..self.read];
            if let Err(source) = self.storage.read_at(&self.name, self.start + from, block) {
                self.read = 0;
                return Err(Error::Store { object: self.storage.shown(&self.name), source });
            }
        }
        let start = (offset - self.at) as usize;
        Ok(&self.block[start..start + length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::LocalStorage;

    #[test]
    fn pieces_are_the_same_in_both_directions_and_for_every_size_of_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..100).collect();
        std::fs::write(dir.path().join("x"), &content).unwrap();
        let storage: Arc<dyn Storage> = Arc::new(LocalStorage::new(dir.path()));
        for block_bytes in [1, 7, 1000] {
            for backward in [false, true] {
                let mut span = Span::new(&storage, &"x".into(), 10, 80, block_bytes);
                let mut places: Vec<u64> = (0..80).step_by(5).collect();
                if backward {
                    places.reverse();
                }
                for place in places {
                    let start = 10 + place as usize;
                    assert_eq!(span.get(place, 5, backward).unwrap(), &content[start..start + 5]);
                }
            }
        }
        let mut beyond = Span::new(&storage, &"x".into(), 90, 20, 4);
        assert!(matches!(beyond.get(8, 4, false), Err(Error::Store { .. })));
    }
}
