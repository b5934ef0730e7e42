//! The names behind a count: the first few at hand, all of them in an unlinked temporary file.
//!
//! A summary names a few of what it counts, and all with `--verbose`. There may be as many as there
//! are records, so they are kept in a file, in sorted runs of bounded size; no file is made for a few.
//! It knows neither what is named nor how names are shown.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::record::warning::Warning;
use crate::source::NOT_READ;

/// How many names a summary shows unless all are asked for.
pub const FIRST: usize = 5;

/// Names are sorted and written out when they take this many bytes.
const RUN_BYTES: usize = 1 << 20;

/// What a name takes in memory beside its bytes.
const OVERHEAD_BYTES: usize = 64;

/// A name and why it is listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    key: Vec<u8>,
    kind: u8,
}

/// Names by kind, counted exactly.
///
/// The first [`FIRST`] are the first by their bytes, whatever order they came in. All of them come
/// sorted where they take less than 1 MiB, else in runs of that size.
#[derive(Debug, Default)]
pub struct NameLog {
    dir: Option<PathBuf>,
    kinds: Vec<(&'static str, u64)>,
    first: Vec<Name>,
    pending: Vec<Name>,
    pending_bytes: usize,
    file: Option<File>,
}

impl NameLog {
    /// A log whose file, if one is needed, lies below `dir` or in the system's place for temporary files.
    pub fn new(dir: Option<&Path>) -> NameLog {
        NameLog { dir: dir.map(Path::to_owned), ..NameLog::default() }
    }

    /// Adds the name `key`, listed for `kind`: a few fixed words, at most 256 different ones.
    ///
    /// # Errors
    /// When the temporary file cannot be written.
    pub fn push(&mut self, kind: &'static str, key: &[u8]) -> io::Result<()> {
        let index = self.kinds.iter().position(|(known, _)| *known == kind).unwrap_or_else(|| {
            self.kinds.push((kind, 0));
            self.kinds.len() - 1
        });
        self.kinds[index].1 += 1;
        let name = Name { key: key.to_owned(), kind: u8::try_from(index).expect("there are few kinds") };
        if self.first.len() < FIRST || self.first.last().is_some_and(|last| name < *last) {
            let place = self.first.partition_point(|other| *other <= name);
            self.first.insert(place, name.clone());
            self.first.truncate(FIRST);
        }
        self.pending_bytes += name.key.len() + OVERHEAD_BYTES;
        self.pending.push(name);
        if self.pending_bytes >= RUN_BYTES { self.write_run() } else { Ok(()) }
    }

    /// Writes a run: for each name its kind, its length in four bytes, and its bytes.
    fn write_run(&mut self) -> io::Result<()> {
        self.pending.sort_unstable();
        let mut run = Vec::with_capacity(self.pending_bytes);
        for Name { key, kind } in self.pending.drain(..) {
            run.push(kind);
            run.extend_from_slice(&(key.len() as u32).to_le_bytes());
            run.extend_from_slice(&key);
        }
        self.pending_bytes = 0;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(match &self.dir {
                Some(dir) => tempfile::tempfile_in(dir)?,
                None => tempfile::tempfile()?,
            }),
        };
        file.seek(SeekFrom::End(0))?;
        file.write_all(&run)
    }

    /// How many names there are.
    pub fn total(&self) -> u64 {
        self.kinds.iter().map(|(_, count)| count).sum()
    }

    /// The kinds that occurred with their numbers, in alphabetical order.
    pub fn by_kind(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let mut kinds = self.kinds.clone();
        kinds.sort_unstable();
        kinds.into_iter()
    }

    /// Hands kind and bytes of the first [`FIRST`] names to `look`, in the order of their bytes.
    ///
    /// # Errors
    /// Those of `look`.
    pub fn first(&self, mut look: impl FnMut(&'static str, &[u8]) -> io::Result<()>) -> io::Result<()> {
        self.first.iter().try_for_each(|name| look(self.kind(name.kind), &name.key))
    }

    /// Hands kind and bytes of every name to `look`.
    ///
    /// # Errors
    /// When the temporary file cannot be read; those of `look`.
    pub fn all(&self, mut look: impl FnMut(&'static str, &[u8]) -> io::Result<()>) -> io::Result<()> {
        if let Some(file) = &self.file {
            let end = { file }.seek(SeekFrom::End(0))?;
            { file }.seek(SeekFrom::Start(0))?;
            let mut reader = BufReader::new(file);
            let (mut at, mut key) = (0, Vec::new());
            while at < end {
                let mut head = [0; 5];
                reader.read_exact(&mut head)?;
                let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
                key.resize(length as usize, 0);
                reader.read_exact(&mut key)?;
                at += head.len() as u64 + u64::from(length);
                look(self.kind(head[0]), &key)?;
            }
        }
        let mut pending: Vec<&Name> = self.pending.iter().collect();
        pending.sort_unstable();
        pending.into_iter().try_for_each(|name| look(self.kind(name.kind), &name.key))
    }

    fn kind(&self, index: u8) -> &'static str {
        self.kinds[usize::from(index)].0
    }

    /// Adds what [`write_names`] wrote. Kinds of other versions are dropped.
    ///
    /// # Errors
    /// When the temporary file cannot be written.
    pub fn push_all(&mut self, mut names: &[u8]) -> io::Result<()> {
        while let [kind, low, high, rest @ ..] = names {
            let length = usize::from(u16::from_le_bytes([*low, *high]));
            let (kind, rest) = rest.split_at(usize::from(*kind).min(rest.len()));
            let (key, rest) = rest.split_at(length.min(rest.len()));
            names = rest;
            if let Some(kind) = kinds().find(|known| known.as_bytes() == kind) {
                self.push(kind, key)?;
            }
        }
        Ok(())
    }
}

/// Every kind that a name can have.
fn kinds() -> impl Iterator<Item = &'static str> {
    NOT_READ.into_iter().chain(Warning::ALL.into_iter().map(Warning::as_str))
}

/// Writes every name of `log`: the bytes of its kind (1) and of its key (2), then both.
///
/// # Errors
/// When the temporary file cannot be read.
pub fn write_names(log: &NameLog, names: &mut Vec<u8>) -> io::Result<()> {
    log.all(|kind, key| {
        names.push(kind.len() as u8);
        names.extend_from_slice(&(key.len() as u16).to_le_bytes());
        names.extend_from_slice(kind.as_bytes());
        names.extend_from_slice(key);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(
        read: impl FnOnce(&mut dyn FnMut(&'static str, &[u8]) -> io::Result<()>) -> io::Result<()>,
    ) -> Vec<String> {
        let mut found = Vec::new();
        read(&mut |kind, key| {
            found.push(format!("{} {kind}", String::from_utf8_lossy(key)));
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn few_names_come_sorted_and_without_a_file() {
        let mut log = NameLog::new(Some(Path::new("/nowhere")));
        for (kind, key) in [("b", "7"), ("a", "1"), ("b", "3"), ("b", "1"), ("a", "9"), ("a", "8")] {
            log.push(kind, key.as_bytes()).unwrap();
        }
        assert_eq!(log.total(), 6);
        assert_eq!(log.by_kind().collect::<Vec<_>>(), [("a", 3), ("b", 3)]);
        assert_eq!(listed(|look| log.first(look)), ["1 b", "1 a", "3 b", "7 b", "8 a"]);
        assert_eq!(listed(|look| log.all(look)), ["1 b", "1 a", "3 b", "7 b", "8 a", "9 a"]);
    }

    #[test]
    fn names_that_were_written_are_read_again() {
        let mut log = NameLog::default();
        let kinds: Vec<&str> = kinds().collect();
        for (number, kind) in kinds.iter().enumerate() {
            log.push(kind, &vec![0xff; number * 9000 % 65_000]).unwrap();
        }
        let mut names = Vec::new();
        write_names(&log, &mut names).unwrap();
        let mut again = NameLog::default();
        again.push_all(&names).unwrap();
        assert_eq!(listed(|look| again.all(look)), listed(|look| log.all(look)));
        assert_eq!(again.total(), kinds.len() as u64);
    }

    #[test]
    fn many_names_are_all_there_and_little_of_them_in_memory() {
        let mut log = NameLog::default();
        let name = |number: usize| format!("{number:0>90}");
        // 7919 is coprime to the count: every number once, in no order.
        for number in 0..50_000 {
            log.push("x", name(number * 7919 % 50_000).as_bytes()).unwrap();
            assert!(log.pending_bytes < RUN_BYTES);
        }
        assert!(log.file.is_some());
        let mut found = listed(|look| log.all(look));
        assert_eq!(found, listed(|look| log.all(look)), "read again");
        found.sort();
        assert_eq!(found, (0..50_000).map(|number| format!("{} x", name(number))).collect::<Vec<_>>());
        assert_eq!(listed(|look| log.first(look)), found[..FIRST]);
    }
}
