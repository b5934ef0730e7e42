//! What a plan keeps of everything that holds records: its key, where it is, and what it was like.
//!
//! Written one behind the other, numbers little-endian: a kind (1 byte, its highest bit for a pin), the number of the
//! root (2), the key's length (2) and the key; of a pinned one size (8) and time (16); of a container its layout (1),
//! the path's length (4) and the path; of a range of lines its start, its end and the number of its first line (8
//! each). Of an object of a bucket, as its next to highest bit says, size (8), the tag's length (2) and the tag follow.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::source::{Compression, SourceKind};

/// Something that holds records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The number of the root that a record lies below; of containers it says nothing.
    pub root: u16,
    /// The record's key, or what stands before those of a container's records.
    pub key: Vec<u8>,
    /// What it was like when it was found, where that is held against what it is like later.
    pub pin: Option<Pin>,
    /// What it is.
    pub what: What,
    /// What it was like, where it is an object in a bucket.
    pub object: Option<Seen>,
}

/// What is known of an object in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its size.
    pub bytes: u64,
    /// Its tag.
    pub tag: String,
}

/// A directory that records lie below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Where it is.
    pub path: PathBuf,
    /// How many bytes stand before the paths in the keys of its records.
    pub prefix: usize,
}

/// What an input is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file that is a record, at the path that its key says.
    Record,
    /// A container at this path.
    Container(SourceKind, PathBuf),
    /// Some lines of the file at this path.
    Lines(PathBuf, LineRange),
}

/// Consecutive lines of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineRange {
    /// The offset of their first byte.
    pub start: u64,
    /// The offset behind their last one.
    pub end: u64,
    /// How many non-blank lines stand before them.
    pub first: u64,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// Its size.
    pub bytes: u64,
    /// When it was last modified, in nanoseconds since 1970; negative before.
    pub modified: i128,
}

impl Pin {
    /// What `seen` says.
    ///
    /// # Errors
    /// On a system without times of modification.
    pub fn of(seen: &Metadata) -> io::Result<Pin> {
        let modified = match seen.modified()?.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_nanos() as i128,
            Err(before) => -(before.duration().as_nanos() as i128),
        };
        Ok(Pin { bytes: seen.len(), modified })
    }
}

const PINNED: u8 = 0x80;
const STORED: u8 = 0x40;

const LAYOUTS: [SourceKind; 6] = [
    SourceKind::Lines(Compression::None),
    SourceKind::Lines(Compression::Gzip),
    SourceKind::Lines(Compression::Zstd),
    SourceKind::Tar(Compression::None),
    SourceKind::Tar(Compression::Gzip),
    SourceKind::Tar(Compression::Zstd),
];

impl Input {
    /// Its path; records lie below `roots`.
    pub fn path(&self, roots: &[Root]) -> PathBuf {
        match &self.what {
            What::Container(_, path) | What::Lines(path, _) => path.clone(),
            What::Record => {
                let root = &roots[usize::from(self.root)];
                root.path.join(path_of(&self.key[root.prefix..]).unwrap_or_default())
            }
        }
    }

    /// Its address, of one in a bucket; records lie below `roots`.
    pub fn address(&self, roots: &[Root]) -> String {
        let root = &roots.get(usize::from(self.root));
        match (&self.what, root) {
            (What::Container(_, path) | What::Lines(path, _), _) => path.to_string_lossy().into_owned(),
            (What::Record, Some(root)) if !root.path.as_os_str().is_empty() => {
                let root_address = root.path.to_string_lossy();
                let name = String::from_utf8_lossy(&self.key[root.prefix..]);
                format!("{}/{name}", root_address.strip_suffix('/').unwrap_or(&root_address))
            }
            (What::Record, _) => String::from_utf8_lossy(&self.key).into_owned(),
        }
    }

    /// Adds the input to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let kind = match &self.what {
            What::Record => 0,
            What::Container(..) => 1,
            What::Lines(..) => 2,
        };
        let pinned = if self.pin.is_some() { PINNED } else { 0 };
        let stored = if self.object.is_some() { STORED } else { 0 };
        out.push(kind | pinned | stored);
        out.extend_from_slice(&self.root.to_le_bytes());
        out.extend_from_slice(&(self.key.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.key);
        if let Some(pin) = self.pin {
            out.extend_from_slice(&pin.bytes.to_le_bytes());
            out.extend_from_slice(&pin.modified.to_le_bytes());
        }
        let mut write_path = |layout: SourceKind, path: &Path| {
            out.push(LAYOUTS.iter().position(|known| *known == layout).unwrap_or_default() as u8);
            let path = path.as_os_str().as_encoded_bytes();
            out.extend_from_slice(&(path.len() as u32).to_le_bytes());
            out.extend_from_slice(path);
        };
        match &self.what {
            What::Record => {}
            What::Container(layout, path) => write_path(*layout, path),
            What::Lines(path, LineRange { start, end, first }) => {
                write_path(LAYOUTS[0], path);
                [start, end, first]
                    .into_iter()
                    .for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
            }
        }
        if let Some(Seen { bytes, tag }) = &self.object {
            out.extend_from_slice(&bytes.to_le_bytes());
            out.extend_from_slice(&(tag.len() as u16).to_le_bytes());
            out.extend_from_slice(tag.as_bytes());
        }
    }

    /// Reads the input at the start of `bytes`, and goes behind it; `None` where there is none.
    pub fn read(bytes: &mut &[u8]) -> Option<Input> {
        let kind = take(bytes, 1)?[0];
        let root = u16::from_le_bytes(take(bytes, 2)?.try_into().ok()?);
        let length = u16::from_le_bytes(take(bytes, 2)?.try_into().ok()?);
        let key = take(bytes, length.into())?.to_vec();
        let pin = match kind & PINNED {
            0 => None,
            _ => Some(Pin {
                bytes: number(bytes)?,
                modified: i128::from_le_bytes(take(bytes, 16)?.try_into().ok()?),
            }),
        };
        let mut place = || {
            let layout = *LAYOUTS.get(usize::from(take(bytes, 1)?[0]))?;
            let length = u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?);
            Some((layout, path_of(take(bytes, length as usize)?)?))
        };
        let what = match kind & !(PINNED | STORED) {
            0 => What::Record,
            1 => {
                let (layout, path) = place()?;
                What::Container(layout, path)
            }
            _ => {
                let (_, path) = place()?;
                What::Lines(
                    path,
                    LineRange { start: number(bytes)?, end: number(bytes)?, first: number(bytes)? },
                )
            }
        };
        let object = match kind & STORED {
            0 => None,
            _ => {
                let seen = number(bytes)?;
                let length = u16::from_le_bytes(take(bytes, 2)?.try_into().ok()?);
                let tag = String::from_utf8(take(bytes, length.into())?.to_vec()).ok()?;
                Some(Seen { bytes: seen, tag })
            }
        };
        Some(Input { root, key, pin, what, object })
    }
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?))
}

/// The path of these bytes.
#[cfg(unix)]
pub fn path_of(bytes: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    Some(OsString::from_vec(bytes.to_vec()).into())
}

/// The path of these bytes.
#[cfg(not(unix))]
pub fn path_of(bytes: &[u8]) -> Option<PathBuf> {
    String::from_utf8(bytes.to_vec()).ok().map(|text| OsString::from(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_read_as_they_were_written() {
        let pin = Some(Pin { bytes: 7, modified: -3 });
        let range = LineRange { start: 5, end: 1 << 40, first: 9 };
        let input =
            |root, key: &[u8], pin, what, object| Input { root, key: key.to_vec(), pin, what, object };
        let seen = |tag: &str| Some(Seen { bytes: 3, tag: tag.to_owned() });
        let inputs = [
            input(300, b"a/\xff\n.json", None, What::Record, None),
            input(0, b"", pin, What::Record, None),
            input(1, b"x/", pin, What::Container(LAYOUTS[5], "/x.tzst".into()), None),
            input(1, b"y/", pin, What::Lines("/y.jsonl".into(), range), None),
            input(1, b"z", None, What::Record, seen("\"tag\"")),
            input(1, b"y/", None, What::Lines("s3://b/y.jsonl".into(), range), seen("")),
        ];
        let mut bytes = Vec::new();
        inputs.iter().for_each(|input| input.write(&mut bytes));
        let mut rest = &bytes[..];
        let read: Vec<Input> = std::iter::from_fn(|| Input::read(&mut rest)).collect();
        assert_eq!(read, inputs);
        // One that is cut is none.
        assert_eq!(Input::read(&mut &bytes[..4]), None);
    }
}
