//! What a SOURCE is: a directory, a file of lines, an archive, or standard input.
//!
//! Decides by the name alone, but for directories, and gives the words that stand before
//! a record's key where there are several sources. It opens nothing.

pub(crate) mod ahead;
pub(crate) mod gunzip;
pub(crate) mod index;
pub(crate) mod input;
pub(crate) mod keys;
pub(crate) mod list;
pub mod names;
pub mod read;
pub mod records;
pub(crate) mod section;
pub mod spool;
pub mod unpack;
pub(crate) mod walk;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::address::{address, place_of};

/// The largest record that is read unless somebody says otherwise, in bytes, inclusive.
pub const DEFAULT_RECORD_BYTES: usize = 64 << 20;

/// What compressed sources and standard input may unpack to, together, unless somebody says otherwise.
pub const DEFAULT_SPOOL_BYTES: u64 = 64 << 30;

/// What is not read because it is hidden, or made by a tool: see [`is_hidden`].
pub const HIDDEN: &str = "hidden";

/// What is not read because a link to a directory is not followed.
pub const LINKED_DIRECTORY: &str = "linked directory";

/// What is not read because containers below a directory are read on request only.
pub const CONTAINER: &str = "container";

/// What is not read because its name does not end in `.json`.
pub const OTHER_ENDING: &str = "other ending";

/// What is not read because it is where the result goes.
pub const OUTPUT: &str = "output directory";

/// What is not read because it points nowhere.
pub const DANGLING: &str = "dangling link";

/// What is not read because it points to itself.
pub const LOOP: &str = "link loop";

/// Everything that something that is not read can be.
pub const NOT_READ: [&str; 11] = [
    HIDDEN,
    LINKED_DIRECTORY,
    CONTAINER,
    OTHER_ENDING,
    OUTPUT,
    DANGLING,
    LOOP,
    "directory",
    "FIFO",
    "socket",
    "device",
];

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
    Directory(Containers),
    /// One record: a file `*.json` named by itself.
    Record,
    /// One record a line.
    Lines(Compression),
    /// An archive of `*.json`.
    Tar(Compression),
}

/// Whether containers below a directory are read as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Containers {
    /// They are named as not read.
    #[default]
    Skip,
    /// Their records are records of the directory.
    Read,
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

impl SourceKind {
    /// Whether it is a container that has to be unpacked.
    pub fn is_compressed(self) -> bool {
        let (SourceKind::Lines(compression) | SourceKind::Tar(compression)) = self else { return false };
        compression != Compression::None
    }
}

impl Source {
    /// The source at `path`; `None` where its name is of no known kind and it is no directory.
    pub fn of(path: &Path, containers: Containers) -> Option<Source> {
        let kind = match path.to_str() {
            Some("-") => SourceKind::Lines(Compression::None),
            _ if address(path).is_some() => {
                kind_of_address(path).unwrap_or(SourceKind::Directory(containers))
            }
            _ if path.is_dir() => SourceKind::Directory(containers),
            _ => kind_of_name(path.file_name()?.as_encoded_bytes())?,
        };
        Some(Source { path: path.to_owned(), kind })
    }

    /// Its address, where it is in a bucket.
    pub fn address(&self) -> Option<&str> {
        address(&self.path)
    }

    /// Whether the records come from standard input.
    pub fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }

    /// The components of the path from the last one upward: the plain base name, then those of its real
    /// directory.
    fn components(&self) -> Vec<Vec<u8>> {
        if let Some(address) = address(&self.path) {
            let (_, path) = address.split_once("://").unwrap_or_default();
            let names = path.trim_end_matches('/').rsplit('/').map(|name| name.as_bytes().to_vec());
            return names
                .enumerate()
                .map(|(depth, name)| match depth {
                    0 => plain_name(&name).0.into_owned(),
                    _ => name,
                })
                .collect();
        }
        let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let (name, directory) = match self.path.file_name() {
            _ if self.is_stdin() => return vec![b"-".to_vec()],
            Some(name) => (name.to_owned(), self.path.parent().map(Path::to_owned).unwrap_or_default()),
            // `.` and `..` have no name of their own.
            None => {
                let path = canonical(&self.path);
                let name = path.file_name().unwrap_or(self.path.as_os_str()).to_owned();
                (name, path.parent().map(Path::to_owned).unwrap_or_default())
            }
        };
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { &directory };
        let directory = canonical(directory);
        let normal = directory.components().rev().filter_map(|component| match component {
            Component::Normal(name) => Some(name.as_encoded_bytes().to_vec()),
            _ => None,
        });
        let (name, _) = plain_name(name.as_encoded_bytes());
        std::iter::once(name.into_owned()).chain(normal).collect()
    }
}

/// What stands before the keys of each source, in their order: where several hold more than one record,
/// the base name without a compression's suffix, and `/`. Equal base names become the shortest paths
/// that tell their sources apart.
pub fn prefixes(sources: &[Source]) -> Vec<Vec<u8>> {
    let mut prefixes = vec![Vec::new(); sources.len()];
    // A record named by itself has its path for a key: there is nothing else to tell it by.
    let several: Vec<usize> =
        (0..sources.len()).filter(|index| sources[*index].kind != SourceKind::Record).collect();
    if several.len() < 2 {
        return prefixes;
    }
    let components: Vec<Vec<Vec<u8>>> = sources.iter().map(Source::components).collect();
    let mut groups = vec![several];
    for depth in 0.. {
        let mut undecided = Vec::new();
        for group in groups {
            let mut by_component: BTreeMap<Option<&[u8]>, Vec<usize>> = BTreeMap::new();
            for index in group {
                let component = components[index].get(depth).map(Vec::as_slice);
                by_component.entry(component).or_default().push(index);
            }
            for (component, indices) in by_component {
                // Sources that have no more components are one and the same.
                if indices.len() == 1 || component.is_none() {
                    for index in indices {
                        let taken = components[index].iter().take(depth + 1).rev();
                        prefixes[index] = taken.flat_map(|name| [name, &b"/"[..]].concat()).collect();
                    }
                } else {
                    undecided.push(indices);
                }
            }
        }
        if undecided.is_empty() {
            break;
        }
        groups = undecided;
    }
    prefixes
}

/// A file's name without the suffix of its compression, and which one that is.
pub fn plain_name(name: &[u8]) -> (Cow<'_, [u8]>, Compression) {
    let suffixes = [
        (&b".gz"[..], &b""[..], Compression::Gzip),
        (b".zst", b"", Compression::Zstd),
        (b".tgz", b".tar", Compression::Gzip),
        (b".tzst", b".tar", Compression::Zstd),
    ];
    for (suffix, plain, compression) in suffixes {
        if let Some(stem) = name.strip_suffix(suffix) {
            let name = if plain.is_empty() { Cow::Borrowed(stem) } else { [stem, plain].concat().into() };
            return (name, compression);
        }
    }
    (Cow::Borrowed(name), Compression::None)
}

/// The container that a file of this name is.
pub fn container_of_name(name: &[u8]) -> Option<SourceKind> {
    let (stem, compression) = plain_name(name);
    match stem.as_ref() {
        stem if stem.ends_with(b".jsonl") || stem.ends_with(b".ndjson") => {
            Some(SourceKind::Lines(compression))
        }
        stem if stem.ends_with(b".tar") => Some(SourceKind::Tar(compression)),
        _ => None,
    }
}

/// What is no source, but known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsupported {
    /// An address of another kind than that of a bucket.
    Url,
    /// Comma-separated values.
    Csv,
    /// Apache Parquet.
    Parquet,
    /// A ZIP archive.
    Zip,
    /// One record, compressed.
    CompressedRecord(Compression),
    /// Anything compressed with xz.
    Xz,
    /// Anything compressed with bzip2.
    Bzip2,
    /// A record or a container whose ending is not in lower case.
    Capitals,
}

impl Unsupported {
    /// What it is, in words that stand behind its path.
    pub fn what(self) -> &'static str {
        match self {
            Unsupported::Url => "is a URL that is not read",
            Unsupported::Csv => "is CSV, which is not read",
            Unsupported::Parquet => "is Parquet, which is not read",
            Unsupported::Zip => "is a ZIP archive, which is not read",
            Unsupported::CompressedRecord(_) => "is one compressed record, which is not read",
            Unsupported::Xz => "is compressed with xz, which is not read",
            Unsupported::Bzip2 => "is compressed with bzip2, which is not read",
            Unsupported::Capitals => "has an ending in capitals, which is not read",
        }
    }
}

/// Whether `path` is a URL rather than a path.
pub fn is_url(path: &Path) -> bool {
    let scheme = path.to_str().and_then(|text| text.split_once("://")).map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// What is known of a path that names no source, by its name.
pub fn unsupported(path: &Path) -> Option<Unsupported> {
    if is_url(path) {
        return Some(Unsupported::Url);
    }
    let name = path.file_name()?.as_encoded_bytes();
    let lower = name.to_ascii_lowercase();
    let endings = [
        (".csv", Unsupported::Csv),
        (".parquet", Unsupported::Parquet),
        (".zip", Unsupported::Zip),
        (".json.gz", Unsupported::CompressedRecord(Compression::Gzip)),
        (".json.zst", Unsupported::CompressedRecord(Compression::Zstd)),
        (".xz", Unsupported::Xz),
        (".bz2", Unsupported::Bzip2),
    ];
    let found = endings.into_iter().find(|(ending, _)| lower.ends_with(ending.as_bytes()));
    let is_in_capitals = || kind_of_name(name).is_none() && kind_of_name(&lower).is_some();
    found.map(|(_, unsupported)| unsupported).or_else(|| is_in_capitals().then_some(Unsupported::Capitals))
}

/// What an object is by its name; `None` for what objects lie below.
fn kind_of_address(path: &Path) -> Option<SourceKind> {
    kind_of_name(place_of(address(path)?).1.as_bytes())
}

fn kind_of_name(name: &[u8]) -> Option<SourceKind> {
    container_of_name(name).or_else(|| name.ends_with(b".json").then_some(SourceKind::Record))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> Option<Source> {
        Source::of(Path::new(name), Containers::Skip)
    }

    #[test]
    fn a_name_says_what_it_holds() {
        let check = |name: &str, kind| {
            assert_eq!(source(name).map(|source| source.kind), kind, "{name}");
        };
        check("a/b.jsonl", Some(SourceKind::Lines(Compression::None)));
        check("b.ndjson.gz", Some(SourceKind::Lines(Compression::Gzip)));
        check("b.jsonl.zst", Some(SourceKind::Lines(Compression::Zstd)));
        check("c.tar", Some(SourceKind::Tar(Compression::None)));
        check("c.tar.gz", Some(SourceKind::Tar(Compression::Gzip)));
        check("c.tgz", Some(SourceKind::Tar(Compression::Gzip)));
        check("c.tar.zst", Some(SourceKind::Tar(Compression::Zstd)));
        check("c.tzst", Some(SourceKind::Tar(Compression::Zstd)));
        check("d.json", Some(SourceKind::Record));
        check("-", Some(SourceKind::Lines(Compression::None)));
        check("e.json.gz", None);
        check("e.txt", None);
        check("e", None);
        check("s3://b/c.tar", Some(SourceKind::Tar(Compression::None)));
        check("s3://b/d.json", Some(SourceKind::Record));
        check("s3://b/d.json/", Some(SourceKind::Directory(Containers::Skip)));
        check("s3://b", Some(SourceKind::Directory(Containers::Skip)));
    }

    #[test]
    fn what_is_no_source_is_told_by_its_name() {
        let check = |name: &str, expected| assert_eq!(unsupported(Path::new(name)), expected, "{name}");
        for url in ["s3://b/k", "gs://b/k.jsonl", "hf://datasets/me/tomi", "https://host/x.jsonl"] {
            check(url, Some(Unsupported::Url));
        }
        check("a/x.csv", Some(Unsupported::Csv));
        check("x.PARQUET", Some(Unsupported::Parquet));
        check("x.zip", Some(Unsupported::Zip));
        check("x.json.gz", Some(Unsupported::CompressedRecord(Compression::Gzip)));
        check("x.json.zst", Some(Unsupported::CompressedRecord(Compression::Zstd)));
        check("x.tar.xz", Some(Unsupported::Xz));
        check("x.jsonl.bz2", Some(Unsupported::Bzip2));
        for name in ["x.Json", "x.JSONL", "X.TAR.GZ", "x.tar.GZ", "x.TGZ"] {
            check(name, Some(Unsupported::Capitals));
        }
        for other in ["x.json", "X.jsonl", "x.txt", "x", "..", "://x", "a b://x"] {
            check(other, None);
        }
    }

    #[test]
    fn a_prefix_is_the_shortest_path_that_tells_its_source_apart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("x/y")).unwrap();
        let check = |names: &[&str], expected: &[&str]| {
            let path = |name: &&str| if *name == "-" { "-".into() } else { dir.path().join(name) };
            let sources: Vec<Source> =
                names.iter().map(path).map(|path| Source::of(&path, Containers::Skip).unwrap()).collect();
            let found: Vec<String> =
                prefixes(&sources).into_iter().map(|prefix| String::from_utf8(prefix).unwrap()).collect();
            assert_eq!(found, expected, "{names:?}");
        };
        check(&["x/a.jsonl"], &[""]);
        check(&["x/a.jsonl", "b.json"], &["", ""]);
        check(&["x/a.jsonl", "b.tgz", "-"], &["a.jsonl/", "b.tar/", "-/"]);
        check(&["x/a.tar", "y/a.tgz", "y/b.tar"], &["x/a.tar/", "y/a.tar/", "b.tar/"]);
        check(&["p/x/a.tar", "q/x/a.tar", "y/a.tar"], &["p/x/a.tar/", "q/x/a.tar/", "y/a.tar/"]);
        check(
            &["x/../a.tar", "x/a.tar", "x/."],
            &[&format!("{}/a.tar/", tail(dir.path())), "x/a.tar/", "x/"],
        );
        check(&["x", "x/y/../../x"], &[&whole(dir.path(), "x"), &whole(dir.path(), "x")]);
    }

    fn tail(path: &Path) -> String {
        path.canonicalize().unwrap().file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// A source that is there twice cannot be told from itself.
    fn whole(dir: &Path, name: &str) -> String {
        let path = dir.canonicalize().unwrap().join(name);
        let components = path.components().filter(|component| matches!(component, Component::Normal(_)));
        components.map(|component| format!("{}/", component.as_os_str().to_str().unwrap())).collect()
    }
}
