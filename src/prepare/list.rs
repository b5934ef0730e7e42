//! Turns a directory into keys in rank order.
//!
//! A million keys must fit beside everything else, so they are kept as one arena of
//! bytes with 8 bytes a key, and nothing is asked of the file system but the names and
//! the types that come with them. Files are not opened here; what is no regular file is
//! named and left alone.

use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::manifest::Hex;
use crate::prepare::split::{Rank, rank};
use crate::prepare::{Error, Watch};

/// The longest key in bytes; a path this long cannot be opened anyway.
const MAX_KEY_BYTES: usize = u16::MAX as usize;

/// Large enough for the longest key, small enough not to matter.
const BLOCK_BYTES: usize = 1 << 20;

/// Keys one behind the other, each after its length in two bytes.
#[derive(Debug, Default)]
struct KeyArena {
    blocks: Vec<Vec<u8>>,
}

/// Where a key stands in the arena: block and offset.
#[derive(Debug, Clone, Copy)]
struct KeyRef {
    block: u32,
    offset: u32,
}

impl KeyArena {
    fn push(&mut self, key: &[u8]) -> KeyRef {
        let length = u16::try_from(key.len()).expect("the listing refuses longer keys");
        let needed = key.len() + 2;
        if self.blocks.last().is_none_or(|block| block.capacity() - block.len() < needed) {
            self.blocks.push(Vec::with_capacity(BLOCK_BYTES));
        }
        let index = self.blocks.len() - 1;
        let block = &mut self.blocks[index];
        let offset = block.len();
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(key);
        KeyRef { block: index as u32, offset: offset as u32 }
    }

    fn get(&self, key: KeyRef) -> &[u8] {
        let bytes = &self.blocks[key.block as usize][key.offset as usize..];
        let length = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        &bytes[2..2 + length]
    }

    /// The keys in the order in which they were pushed.
    fn iter(&self) -> impl Iterator<Item = KeyRef> + '_ {
        self.blocks.iter().enumerate().flat_map(|(index, block)| {
            let mut offset = 0;
            std::iter::from_fn(move || {
                let start = offset;
                let length = u16::from_le_bytes([*block.get(start)?, *block.get(start + 1)?]);
                offset = start + 2 + usize::from(length);
                Some(KeyRef { block: index as u32, offset: start as u32 })
            })
        })
    }
}

/// Something named like a record that is not a regular file, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRegular {
    /// Its path below the corpus, as a key.
    pub key: Vec<u8>,
    /// `FIFO`, `socket`, `device`, `directory`, `linked directory`, `dangling link` or `link loop`.
    pub kind: &'static str,
}

/// The records of a corpus in rank order.
#[derive(Debug)]
pub struct Listing {
    arena: KeyArena,
    by_rank: Vec<KeyRef>,
    /// SHA-256 of the keys sorted bytewise, each followed by NUL, in lower-case hex.
    pub keys_sha256: String,
    /// What was passed over, in the order of its names.
    pub not_regular: Vec<NotRegular>,
}

impl Listing {
    /// The number of records.
    pub fn len(&self) -> usize {
        self.by_rank.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.by_rank.is_empty()
    }

    /// The key at `position` in rank order, counted from 0.
    pub fn key(&self, position: usize) -> &[u8] {
        self.arena.get(self.by_rank[position])
    }
}

/// Lists every `*.json` below `corpus` and sorts by rank under `seed`.
///
/// A link to a file counts as a file; linked directories and directories named
/// `*.json` are not entered. `skip` (the output directory, if it lies inside) is not entered.
/// Sorting runs in the current rayon pool.
///
/// # Errors
/// When a directory cannot be read, or the run is stopped.
pub fn list(corpus: &Path, skip: Option<&Path>, seed: u64, watch: &dyn Watch) -> Result<Listing, Error> {
    let mut arena = KeyArena::default();
    let mut not_regular = Vec::new();
    let mut walk = WalkDir::new(corpus).follow_root_links(true).into_iter();
    let mut seen = 0u64;
    while let Some(entry) = walk.next() {
        let entry = entry.map_err(|error| walk_error(corpus, error))?;
        let file_type = entry.file_type();
        if entry.depth() == 0 {
            continue;
        }
        if file_type.is_dir() && skip.is_some_and(|skip| entry.path() == skip) {
            walk.skip_current_dir();
            continue;
        }
        if !entry.file_name().as_encoded_bytes().ends_with(b".json") {
            continue;
        }
        let key = key_below(corpus, entry.path())?;
        match kind(&entry)? {
            None => {
                arena.push(&key);
                seen += 1;
                if seen.is_multiple_of(4096) {
                    watch.listed(seen);
                    watch.check_stop()?;
                }
            }
            Some(kind) => {
                if file_type.is_dir() {
                    walk.skip_current_dir();
                }
                not_regular.push(NotRegular { key, kind });
            }
        }
    }
    watch.listed(seen);
    not_regular.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(sorted(arena, seed, not_regular))
}

/// `None` for a regular file or a link to one, else the word for what it is.
fn kind(entry: &walkdir::DirEntry) -> Result<Option<&'static str>, Error> {
    let file_type = entry.file_type();
    if !file_type.is_symlink() {
        return Ok(kind_of(file_type));
    }
    match std::fs::metadata(entry.path()) {
        Ok(target) if target.is_dir() => Ok(Some("linked directory")),
        Ok(target) => Ok(kind_of(target.file_type())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some("dangling link")),
        Err(error) if is_link_loop(&error) => Ok(Some("link loop")),
        Err(source) => Err(Error::Read { path: entry.path().to_owned(), source }),
    }
}

fn is_link_loop(error: &io::Error) -> bool {
    // `ErrorKind::FilesystemLoop` is not stable: ELOOP is 40 on Linux and 62 on macOS.
    cfg!(unix) && matches!(error.raw_os_error(), Some(40 | 62))
}

#[cfg(unix)]
fn kind_of(file_type: std::fs::FileType) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt;
    match file_type {
        file_type if file_type.is_file() => None,
        file_type if file_type.is_dir() => Some("directory"),
        file_type if file_type.is_fifo() => Some("FIFO"),
        file_type if file_type.is_socket() => Some("socket"),
        _ => Some("device"),
    }
}

#[cfg(not(unix))]
fn kind_of(file_type: std::fs::FileType) -> Option<&'static str> {
    match file_type {
        file_type if file_type.is_file() => None,
        file_type if file_type.is_dir() => Some("directory"),
        _ => Some("device"),
    }
}

/// The path below `corpus` as bytes with `/`.
fn key_below(corpus: &Path, path: &Path) -> Result<Vec<u8>, Error> {
    let below = path.strip_prefix(corpus).expect("walkdir gives paths below its root");
    let mut key = below.as_os_str().as_encoded_bytes().to_vec();
    if std::path::MAIN_SEPARATOR == '\\' {
        key.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
    }
    if key.len() > MAX_KEY_BYTES {
        let source = io::Error::from(io::ErrorKind::InvalidFilename);
        return Err(Error::Read { path: path.to_owned(), source });
    }
    Ok(key)
}

fn walk_error(corpus: &Path, error: walkdir::Error) -> Error {
    let path = error.path().unwrap_or(corpus).to_owned();
    let source = error.into_io_error().unwrap_or_else(|| io::Error::other("a loop of links"));
    Error::List { path, source }
}

/// A key and its rank while the listing is sorted.
struct Ranked {
    rank: Rank,
    key: KeyRef,
}

fn sorted(arena: KeyArena, seed: u64, not_regular: Vec<NotRegular>) -> Listing {
    // Counted first: a vector that doubles would take half as much again at its peak.
    let count = arena.iter().count();
    let mut ranked = Vec::with_capacity(count);
    ranked.extend(arena.iter().map(|key| Ranked { rank: Rank::default(), key }));
    // The place of the rank first holds the key's beginning, which decides nearly every comparison
    // without a look into the arena.
    ranked.par_iter_mut().for_each(|entry| entry.rank = beginning(arena.get(entry.key)));
    let by_rank_then_key =
        |a: &Ranked, b: &Ranked| a.rank.cmp(&b.rank).then_with(|| arena.get(a.key).cmp(arena.get(b.key)));
    ranked.par_sort_unstable_by(by_rank_then_key);
    let mut digest = Sha256::new();
    for entry in &ranked {
        digest.update(arena.get(entry.key));
        digest.update([0]);
    }
    let keys_sha256 = Hex(&digest.finalize()).to_string();
    ranked.par_iter_mut().for_each(|entry| entry.rank = rank(seed, arena.get(entry.key)));
    ranked.par_sort_unstable_by(by_rank_then_key);
    let by_rank = ranked.into_iter().map(|entry| entry.key).collect();
    Listing { arena, by_rank, keys_sha256, not_regular }
}

/// The first bytes of `key`, filled up with NULs, which sort before everything.
fn beginning(key: &[u8]) -> Rank {
    let mut beginning = Rank::default();
    let length = key.len().min(beginning.len());
    beginning[..length].copy_from_slice(&key[..length]);
    beginning
}

/// The path of the record `key` of `corpus`, built in `path`, which is reused.
pub fn record_path<'a>(corpus: &Path, key: &[u8], path: &'a mut PathBuf) -> &'a Path {
    path.as_mut_os_string().clear();
    path.as_mut_os_string().push(corpus);
    path.push(key_as_path(key));
    path
}

#[cfg(unix)]
fn key_as_path(key: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(key))
}

#[cfg(not(unix))]
fn key_as_path(key: &[u8]) -> std::borrow::Cow<'_, Path> {
    // A name with half a surrogate pair, which only Windows allows, is then not found: an error, not a loss.
    match String::from_utf8_lossy(key) {
        std::borrow::Cow::Borrowed(text) => std::borrow::Cow::Borrowed(Path::new(text)),
        std::borrow::Cow::Owned(text) => std::borrow::Cow::Owned(PathBuf::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_in_rank_order_across_blocks() {
        let mut arena = KeyArena::default();
        let keys: Vec<String> = (0..30_000).map(|n| format!("{n:0>60}.json")).collect();
        for key in &keys {
            arena.push(key.as_bytes());
        }
        assert!(arena.blocks.len() > 1);
        let listing = sorted(arena, 7, Vec::new());
        let mut expected: Vec<&str> = keys.iter().map(String::as_str).collect();
        expected.sort_by_key(|key| rank(7, key.as_bytes()));
        let listed: Vec<&str> =
            (0..listing.len()).map(|n| std::str::from_utf8(listing.key(n)).unwrap()).collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_windows_or_unix_key_leads_back_to_its_file() {
        let mut path = PathBuf::new();
        assert_eq!(record_path(Path::new("corpus"), b"a/b.json", &mut path), Path::new("corpus/a/b.json"));
        assert_eq!(record_path(Path::new("c"), b"d.json", &mut path), Path::new("c/d.json"));
    }
}
