//! `keys.tsv`: the side, the line (from 1) in its shard, the shard and the key of every record that
//! became a line, the key as a JSON string.
//!
//! The lines are made on all threads, since nothing else is left to do by then.

use std::io::{self, Write};

use rayon::ThreadPool;

use crate::json::KeyText;
use crate::output::manifest::Side;
use crate::parallel::{Batch, Next, run_in_order};
use crate::source::list::Listing;

/// The file's name.
pub const KEYS: &str = "keys.tsv";

/// Its first line.
pub const HEADER: &[u8] = b"split\tline\tshard\tkey\n";

/// Lines made at once.
const CHUNK_LINES: usize = 4096;

/// A side of the result: its name, its shards, and the records' positions in the order of its lines.
pub struct SideKeys<'s> {
    /// `train` or `val`.
    pub name: &'s str,
    /// What its manifest says.
    pub side: &'s Side,
    /// By rank, as in `listing`; behind those of the listing begin those of the mixed lines.
    pub positions: Vec<u32>,
}

/// Consecutive lines of one shard.
struct Chunk<'s> {
    split: &'s str,
    shard: &'s str,
    /// The line before the first one.
    lines_before: usize,
    positions: &'s [u32],
}

/// Writes the lines of `sides` to `out`; `mixed` are the keys of the mixed lines.
///
/// # Errors
/// Those of `out`.
pub fn write_key_lines(
    sides: &[SideKeys<'_>],
    listing: &Listing,
    mixed: &[&[u8]],
    pool: &ThreadPool,
    out: &mut (dyn Write + Send),
) -> io::Result<()> {
    out.write_all(HEADER)?;
    let mut chunks = Vec::new();
    for SideKeys { name, side, positions } in sides {
        let mut rest = &positions[..];
        for shard in &side.shards {
            let (own, others) = rest.split_at(shard.records as usize);
            chunks.extend(own.chunks(CHUNK_LINES).enumerate().map(|(index, positions)| Chunk {
                split: name,
                shard: &shard.file,
                lines_before: index * CHUNK_LINES,
                positions,
            }));
            rest = others;
        }
    }
    run_in_order(
        pool,
        || (),
        Text::default,
        |(), index| Ok(Next::of(index, chunks.len())),
        |(), index, text, _| {
            chunks[index].write_to(listing, mixed, &mut text.0);
            Ok(())
        },
        |text| out.write_all(&text.0),
    )
}

impl Chunk<'_> {
    fn write_to(&self, listing: &Listing, mixed: &[&[u8]], out: &mut Vec<u8>) {
        let mut lines = KeyLines::new(self.split, self.shard, self.lines_before);
        for &position in self.positions {
            let position = position as usize;
            let key = match position.checked_sub(listing.len()) {
                None => listing.key(position),
                Some(position) => mixed[position],
            };
            lines.write(key, out);
        }
    }
}

/// The lines of one shard, one after the other.
pub struct KeyLines<'s> {
    split: &'s str,
    shard: &'s str,
    line: Counter,
}

impl<'s> KeyLines<'s> {
    /// Those of the shard of this name, of the side of this name, behind so many.
    pub fn new(split: &'s str, shard: &'s str, lines_before: usize) -> KeyLines<'s> {
        KeyLines { split, shard, line: Counter::new(lines_before) }
    }

    /// Adds the line of the record with this key to `out`.
    pub fn write(&mut self, key: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(self.split.as_bytes());
        out.push(b'\t');
        out.extend_from_slice(self.line.count_up());
        out.push(b'\t');
        out.extend_from_slice(self.shard.as_bytes());
        out.push(b'\t');
        KeyText(key).write_json(out);
        out.push(b'\n');
    }
}

/// Made lines on their way to the file.
#[derive(Default)]
struct Text(Vec<u8>);

impl Batch for Text {
    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A number that is counted up as text.
struct Counter(Vec<u8>);

impl Counter {
    fn new(number: usize) -> Counter {
        Counter(number.to_string().into_bytes())
    }

    /// The next number.
    fn count_up(&mut self) -> &[u8] {
        for digit in self.0.iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return &self.0;
            }
            *digit = b'0';
        }
        self.0.insert(0, b'1');
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_counts_as_numbers_are_written() {
        for start in [0, 8, 98, 4095, 99_998] {
            let mut counter = Counter::new(start);
            for number in start + 1..start + 200 {
                assert_eq!(counter.count_up(), number.to_string().as_bytes());
            }
        }
    }
}
