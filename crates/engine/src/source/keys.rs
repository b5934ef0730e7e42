//! Keeps the keys of a corpus: one arena of bytes, and eight bytes a key.
//!
//! A million keys must fit beside everything else, without a vector that doubles. It
//! knows neither files nor ranks.

use crate::source::index::{Extent, Refusal};

/// The longest key in bytes; a path this long cannot be opened anyway.
pub const MAX_KEY_BYTES: usize = u16::MAX as usize;

/// Sources are numbered from 0 to below this.
pub const MAX_SOURCES: u16 = HAS_EXTENT;

/// Large enough for the longest key, small enough not to matter.
const BLOCK_BYTES: usize = 1 << 20;

/// Keys one behind the other. An entry is the number of its source and the key's length, two bytes
/// each, the key, and for a record in a container its offset and length, eight bytes each.
#[derive(Debug, Default)]
pub struct KeyArena {
    blocks: Vec<Vec<u8>>,
    /// The number of keys.
    pub count: usize,
}

/// Where a key stands in the arena: block and offset.
#[derive(Debug, Clone, Copy)]
pub struct KeyRef {
    block: u32,
    offset: u32,
}

/// Bytes of an entry before its key.
const HEAD_BYTES: usize = 4;

/// Set in the number of the source where a place follows the key.
const HAS_EXTENT: u16 = 1 << 15;

/// The offset of an extent that is none: its length then says why the member is refused.
const REFUSED: u64 = u64::MAX;

impl KeyArena {
    /// Adds a key of at most [`MAX_KEY_BYTES`], with its place if it is in a container.
    pub fn push(&mut self, source: u16, key: &[u8], extent: Option<Extent>) -> KeyRef {
        let length = u16::try_from(key.len()).expect("the listing refuses longer keys");
        let needed = HEAD_BYTES + key.len() + 16;
        if self.blocks.last().is_none_or(|block| block.capacity() - block.len() < needed) {
            self.blocks.push(Vec::with_capacity(BLOCK_BYTES));
        }
        let index = self.blocks.len() - 1;
        let block = &mut self.blocks[index];
        let offset = block.len();
        let head = if extent.is_some() { source | HAS_EXTENT } else { source };
        block.extend_from_slice(&head.to_le_bytes());
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(key);
        let place = extent.map(|extent| match extent {
            Extent::Bytes(start, length) => [start, length],
            Extent::Refused(refusal) => [REFUSED, refusal as u64],
        });
        for number in place.into_iter().flatten() {
            block.extend_from_slice(&number.to_le_bytes());
        }
        self.count += 1;
        KeyRef { block: index as u32, offset: offset as u32 }
    }

    /// The entry that begins at `key`.
    pub fn entry(&self, key: KeyRef) -> Entry<'_> {
        let bytes = &self.blocks[key.block as usize][key.offset as usize..];
        let head = u16::from_le_bytes([bytes[0], bytes[1]]);
        let length = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
        let (key, rest) = bytes[HEAD_BYTES..].split_at(length);
        let number = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().expect("eight bytes"));
        let extent = (head & HAS_EXTENT != 0).then(|| match (number(0), number(8)) {
            (REFUSED, reason) => Extent::Refused(Refusal::from_number(reason)),
            (start, length) => Extent::Bytes(start, length),
        });
        Entry { source: head & !HAS_EXTENT, key, extent }
    }

    /// The key itself.
    pub fn get(&self, key: KeyRef) -> &[u8] {
        self.entry(key).key
    }

    /// The keys in the order in which they were pushed.
    pub fn iter(&self) -> impl Iterator<Item = KeyRef> + '_ {
        self.blocks.iter().enumerate().flat_map(move |(index, block)| {
            let mut offset = 0;
            std::iter::from_fn(move || {
                let start = offset;
                if start >= block.len() {
                    return None;
                }
                let key = KeyRef { block: index as u32, offset: start as u32 };
                let entry = self.entry(key);
                offset = start + HEAD_BYTES + entry.key.len() + if entry.extent.is_some() { 16 } else { 0 };
                Some(key)
            })
        })
    }
}

/// An entry of the arena.
pub struct Entry<'a> {
    /// The number of its source.
    pub source: u16,
    /// The key.
    pub key: &'a [u8],
    /// Its place, if it is in a container.
    pub extent: Option<Extent>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_its_place_in_a_container() {
        let mut arena = KeyArena::default();
        let places = [
            None,
            Some(Extent::Bytes(5, 7)),
            Some(Extent::Bytes(u64::MAX - 1, 0)),
            Some(Extent::Refused(Refusal::Climbing)),
        ];
        for place in places {
            arena.push(3, b"key", place);
        }
        let entries: Vec<_> = arena.iter().map(|key| arena.entry(key)).collect();
        assert_eq!(entries.iter().map(|entry| entry.extent).collect::<Vec<_>>(), places);
        assert!(entries.iter().all(|entry| entry.source == 3 && entry.key == b"key"));
    }
}
