//! Sorts more than fits into memory: by a key, bytewise, in runs that go to unlinked temporary files.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::parts::merge::{Merge, Stream};
use crate::source::section::read_exact_at;

/// Entries that are kept before they are sorted and written, with what it takes to sort them.
const RUN_BYTES: usize = 48 << 20;

/// What an entry takes beside its bytes.
const OVERHEAD_BYTES: usize = size_of::<Kept>();

/// What is read of a run at once.
const BLOCK_BYTES: usize = 64 << 10;

/// Entries in the making. Each is a key and what belongs to it.
pub struct Sorter {
    dir: Option<PathBuf>,
    bytes: Vec<u8>,
    kept: Vec<Kept>,
    runs: Vec<Run>,
    run_bytes: usize,
}

/// An entry in `bytes`: where it begins, and how long key and value are.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// The key's beginning, which decides nearly every comparison.
    beginning: u64,
    start: u32,
    key: u16,
    value: u32,
}

struct Run {
    file: Arc<File>,
    length: u64,
}

impl Sorter {
    /// Sorts with temporary files below `dir`, or in the system's place for them.
    pub fn new(dir: Option<&Path>) -> Sorter {
        let dir = dir.map(Path::to_owned);
        Sorter { dir, bytes: Vec::new(), kept: Vec::new(), runs: Vec::new(), run_bytes: RUN_BYTES }
    }

    /// Adds an entry; the key has at most 65,535 bytes.
    ///
    /// # Errors
    /// When a run cannot be written.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let mut beginning = [0; 8];
        let length = key.len().min(8);
        beginning[..length].copy_from_slice(&key[..length]);
        self.kept.push(Kept {
            beginning: u64::from_be_bytes(beginning),
            start: self.bytes.len() as u32,
            key: key.len() as u16,
            value: value.len() as u32,
        });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        match self.bytes.len() + self.kept.len() * OVERHEAD_BYTES >= self.run_bytes {
            true => self.write_run(),
            false => Ok(()),
        }
    }

    fn write_run(&mut self) -> Result<(), Error> {
        let failed = |source| Error::Write { path: "a temporary file".into(), source };
        let bytes = &self.bytes;
        let key = |kept: &Kept| &bytes[kept.start as usize..][..usize::from(kept.key)];
        self.kept.sort_unstable_by(|a, b| {
            a.beginning.cmp(&b.beginning).then_with(|| key(a).cmp(key(b))).then(a.start.cmp(&b.start))
        });
        let file =
            self.dir.as_ref().map_or_else(tempfile::tempfile, tempfile::tempfile_in).map_err(failed)?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        let mut length = 0;
        for kept in self.kept.drain(..) {
            let (key, value) = (usize::from(kept.key), kept.value as usize);
            let entry = &bytes[kept.start as usize..][..key + value];
            let head = [&kept.key.to_le_bytes()[..], &kept.value.to_le_bytes()].concat();
            out.write_all(&head).and_then(|()| out.write_all(entry)).map_err(failed)?;
            length += (head.len() + entry.len()) as u64;
        }
        let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        self.runs.push(Run { file: Arc::new(file), length });
        self.bytes.clear();
        Ok(())
    }

    /// The entries by their keys; equal ones in the order in which they were pushed.
    ///
    /// # Errors
    /// When a run cannot be written or read.
    pub fn sorted(mut self) -> Result<Merge<RunStream>, Error> {
        self.write_run()?;
        let Sorter { runs, bytes, kept, .. } = self;
        drop((bytes, kept));
        let stream = |run| {
            let mut stream = RunStream {
                run,
                next: 0,
                block: Vec::new(),
                at: 0,
                key: Vec::new(),
                value: Vec::new(),
                is_over: false,
            };
            stream.advance().map(|()| stream)
        };
        Ok(Merge::new(runs.into_iter().map(stream).collect::<Result<_, _>>()?))
    }
}

/// A sorted run while it is read.
pub struct RunStream {
    run: Run,
    next: u64,
    block: Vec<u8>,
    at: u64,
    /// The key of the current entry.
    pub key: Vec<u8>,
    /// What belongs to it.
    pub value: Vec<u8>,
    is_over: bool,
}

impl RunStream {
    /// Where the next `length` bytes begin in `block`.
    fn load(&mut self, length: usize) -> Result<usize, Error> {
        let end = self.next + length as u64;
        if self.next < self.at || end > self.at + self.block.len() as u64 {
            let wanted = (self.run.length - self.next).min(BLOCK_BYTES.max(length) as u64);
            self.block.resize(wanted as usize, 0);
            let failed = |source| Error::Read { path: "a temporary file".into(), source };
            read_exact_at(&self.run.file, &mut self.block, self.next).map_err(failed)?;
            self.at = self.next;
        }
        let start = (self.next - self.at) as usize;
        self.next = end;
        Ok(start)
    }
}

impl Stream for RunStream {
    fn is_over(&self) -> bool {
        self.is_over
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }

    fn advance(&mut self) -> Result<(), Error> {
        self.is_over = self.next >= self.run.length;
        if self.is_over {
            return Ok(());
        }
        let start = self.load(6)?;
        let head: [u8; 6] = self.block[start..start + 6].try_into().expect("six bytes");
        let key = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let value = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
        let start = self.load(key + value)?;
        self.key.clear();
        self.key.extend_from_slice(&self.block[start..start + key]);
        self.value.clear();
        self.value.extend_from_slice(&self.block[start + key..start + key + value]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_sorted_however_many_runs_they_take() {
        for run_bytes in [1, 1000, RUN_BYTES] {
            let mut sorter = Sorter { run_bytes, ..Sorter::new(None) };
            // 7919 is coprime to the count: every number once, in no order; then one of them again.
            for number in (0..500).map(|number| number * 7919 % 500).chain([7]) {
                let value = "v".repeat(number % 5 * 40_000);
                sorter.push(format!("same beginning {number:0>3}").as_bytes(), value.as_bytes()).unwrap();
            }
            let mut merge = sorter.sorted().unwrap();
            let mut expected: Vec<usize> = (0..500).chain([7]).collect();
            expected.sort_unstable();
            for number in expected {
                let (_, entry) = merge.peek().unwrap();
                assert_eq!(entry.key, format!("same beginning {number:0>3}").as_bytes());
                assert_eq!(entry.value.len(), number % 5 * 40_000);
                merge.advance().unwrap();
            }
            assert!(merge.peek().is_none());
        }
    }
}
