//! What a SOURCE is: a directory, a file of lines, an archive, or standard input.
//!
//! Decides by the name alone, but for directories, and gives the words that stand before
//! a record's key where there are several sources. It opens nothing.

use std::path::{Path, PathBuf};

/// The largest record that is read unless somebody says otherwise, in bytes, inclusive.
pub const DEFAULT_RECORD_BYTES: usize = 64 << 20;

/// What compressed sources and standard input may unpack to, together, unless somebody says otherwise.
pub const DEFAULT_SPOOL_BYTES: u64 = 64 << 30;

/// What is not read because it is hidden, or made by a tool: see [`is_hidden`].
pub const HIDDEN: &str = "hidden";

/// What is not read because its name does not end in `.json`.
pub const OTHER_ENDING: &str = "other ending";

/// Whether `name`, a component of a key below its source, is hidden (`.git`, `.DS_Store`, `._0.json`) or
/// the directory that macOS adds to archives. Such names are passed over.
pub fn is_hidden(name: &[u8]) -> bool {
    (name.first() == Some(&b'.') && name != b"." && name != b"..") || name == b"__MACOSX"
}

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The path as it was given; `-` for standard input.
    pub path: PathBuf,
    /// What is there.
    pub kind: SourceKind,
}

/// What a source holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A directory of `*.json`.
    Directory,
    /// One record: a file `*.json` named by itself.
    Record,
    /// One record a line.
    Lines(Compression),
    /// An archive of `*.json`.
    Tar(Compression),
}

/// How a container is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: it is read in place.
    None,
    /// gzip, one member or several.
    Gzip,
    /// Zstandard, one frame or several.
    Zstd,
}

impl Source {
    /// The source at `path`; `None` where its name is of no known kind and it is no directory.
    pub fn of(path: &Path) -> Option<Source> {
        let kind = match path.to_str() {
            Some("-") => SourceKind::Lines(Compression::None),
            _ if path.is_dir() => SourceKind::Directory,
            _ => kind_of_name(path.file_name()?.as_encoded_bytes())?,
        };
        Some(Source { path: path.to_owned(), kind })
    }

    /// Whether the records come from standard input.
    pub fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }

    /// What stands before the keys where there are several sources: the base name without a
    /// compression's suffix, and `/`.
    pub fn prefix(&self) -> Vec<u8> {
        let canonical;
        let name = match self.path.file_name() {
            Some(name) => name,
            // `.` and `..` have no name of their own.
            None => {
                canonical = self.path.canonicalize().unwrap_or_default();
                canonical.file_name().unwrap_or(self.path.as_os_str())
            }
        };
        let mut prefix = name.as_encoded_bytes().to_vec();
        for suffix in [&b".gz"[..], b".zst"] {
            if prefix.ends_with(suffix) {
                prefix.truncate(prefix.len() - suffix.len());
                break;
            }
        }
        prefix.push(b'/');
        prefix
    }
}

fn kind_of_name(name: &[u8]) -> Option<SourceKind> {
    let (stem, compression) = match name {
        name if name.ends_with(b".gz") => (&name[..name.len() - 3], Compression::Gzip),
        name if name.ends_with(b".zst") => (&name[..name.len() - 4], Compression::Zstd),
        name => (name, Compression::None),
    };
    match stem {
        stem if stem.ends_with(b".jsonl") || stem.ends_with(b".ndjson") => {
            Some(SourceKind::Lines(compression))
        }
        stem if stem.ends_with(b".tar") => Some(SourceKind::Tar(compression)),
        stem if stem.ends_with(b".json") && compression == Compression::None => Some(SourceKind::Record),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_holds() {
        let check = |name: &str, kind, prefix: &str| {
            let source = Source::of(Path::new(name));
            assert_eq!(source.as_ref().map(|source| source.kind), kind, "{name}");
            if let Some(source) = source {
                assert_eq!(String::from_utf8(source.prefix()).unwrap(), prefix);
            }
        };
        check("a/b.jsonl", Some(SourceKind::Lines(Compression::None)), "b.jsonl/");
        check("b.ndjson.gz", Some(SourceKind::Lines(Compression::Gzip)), "b.ndjson/");
        check("b.jsonl.zst", Some(SourceKind::Lines(Compression::Zstd)), "b.jsonl/");
        check("c.tar", Some(SourceKind::Tar(Compression::None)), "c.tar/");
        check("c.tar.zst", Some(SourceKind::Tar(Compression::Zstd)), "c.tar/");
        check("d.json", Some(SourceKind::Record), "d.json/");
        check("-", Some(SourceKind::Lines(Compression::None)), "-/");
        check("e.json.gz", None, "");
        check("e.txt", None, "");
        check("e", None, "");
    }
}
