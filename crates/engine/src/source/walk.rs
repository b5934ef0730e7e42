//! Finds what lies below a directory: records, containers, and what is neither.
//!
//! Nothing is asked of the file system but the names and the types that come with them. It opens nothing.

use std::io;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::error::Error;
use crate::source::{
    CONTAINER, Containers, DANGLING, HIDDEN, LINKED_DIRECTORY, LOOP, OTHER_ENDING, OUTPUT, SourceKind,
    container_of_name, is_hidden, plain_name,
};

/// What something below a directory, or named by itself, is to a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A record.
    Record,
    /// Records.
    Container(SourceKind),
    /// Neither; for these words. Whether it is named as records are, and is not hidden.
    NotRead(&'static str, bool),
}

/// A directory that is walked.
pub struct Directory<'d> {
    /// Where it is.
    pub root: &'d Path,
    /// What stands before all keys.
    pub prefix: &'d [u8],
    /// Whether containers below it are read.
    pub containers: Containers,
    /// A directory that is not entered where it lies below this one.
    pub skip: Option<&'d Path>,
}

/// Gets path, key and kind of what is found.
pub type Visit<'v> = dyn FnMut(&Path, &[u8], Found) -> Result<(), Error> + 'v;

/// Calls `each` with path, key and kind of everything below `directory` but its directories.
///
/// # Errors
/// When a directory cannot be listed; those of `each`.
pub fn walk(directory: &Directory<'_>, each: &mut Visit<'_>) -> Result<(), Error> {
    let &Directory { root, prefix, containers, skip } = directory;
    let skip = skip.and_then(|skip| below(root, skip));
    let mut walk = WalkDir::new(root).follow_root_links(true).into_iter();
    let mut key = prefix.to_vec();
    while let Some(entry) = walk.next() {
        let entry = entry.map_err(|error| walk_error(root, error))?;
        if entry.depth() == 0 {
            continue;
        }
        let is_dir = entry.file_type().is_dir();
        let found = match &skip {
            Some(skip) if is_dir && skip == entry.path() => {
                Some(Found::NotRead(OUTPUT, has_record_name(&entry)))
            }
            _ => found(&entry, containers)?,
        };
        let Some(found) = found else { continue };
        if is_dir {
            walk.skip_current_dir();
        }
        key.truncate(prefix.len());
        push_as_key(&mut key, path_below(root, entry.path()));
        each(entry.path(), &key, found)?;
    }
    Ok(())
}

/// What the object `name` below a place is, and how much of its name says so: what lies below something that is not
/// entered is that. `skip` is the output, where it lies below.
pub fn object(name: &str, containers: Containers, skip: Option<&str>) -> (usize, Found) {
    let mut start = 0;
    for part in name.split('/') {
        let end = start + part.len();
        let (is_dir, is_record) = (end < name.len(), part.ends_with(".json"));
        let found = match container_of_name(part.as_bytes()) {
            _ if is_dir && skip == Some(&name[..end]) => Found::NotRead(OUTPUT, is_record),
            _ if is_hidden(part.as_bytes()) => Found::NotRead(HIDDEN, false),
            _ if is_dir && is_record => Found::NotRead("directory", true),
            _ if is_dir => {
                start = end + 1;
                continue;
            }
            _ if is_record => Found::Record,
            Some(kind) if containers == Containers::Read => Found::Container(kind),
            Some(_) => Found::NotRead(CONTAINER, false),
            None => Found::NotRead(OTHER_ENDING, false),
        };
        return (end, found);
    }
    (name.len(), Found::NotRead(OTHER_ENDING, false))
}

/// What stands before the keys of the records of the container that has this key.
pub fn container_prefix(key: &[u8]) -> Vec<u8> {
    [&*plain_name(key).0, b"/"].concat()
}

/// The key of a record that is named by itself, and whether it is one.
///
/// # Errors
/// When there is nothing at `path`.
pub fn record(path: &Path) -> Result<(Vec<u8>, Found), Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file_type = std::fs::metadata(path).map_err(failed)?.file_type();
    let mut key = Vec::new();
    push_as_key(&mut key, path.strip_prefix(".").unwrap_or(path).as_os_str().as_encoded_bytes());
    Ok((key, kind_of(file_type).map_or(Found::Record, |kind| Found::NotRead(kind, true))))
}

fn has_record_name(entry: &walkdir::DirEntry) -> bool {
    entry.path().as_os_str().as_encoded_bytes().ends_with(b".json")
}

/// `None` for a directory to enter.
fn found(entry: &walkdir::DirEntry, containers: Containers) -> Result<Option<Found>, Error> {
    let file_type = entry.file_type();
    let path = entry.path().as_os_str().as_encoded_bytes();
    let separator = path.iter().rposition(|byte| std::path::is_separator(char::from(*byte)));
    let name = &path[separator.map_or(0, |separator| separator + 1)..];
    if is_hidden(name) {
        return Ok(Some(Found::NotRead(HIDDEN, false)));
    }
    let is_record = has_record_name(entry);
    if file_type.is_dir() && !is_record {
        return Ok(None);
    }
    Ok(Some(match kind(entry) {
        Ok(Some(kind)) => Found::NotRead(kind, is_record),
        Ok(None) if is_record => Found::Record,
        Err(error) if is_record => return Err(error),
        // A link that would not be read anyway may point wherever it likes.
        Err(error) => match (container_of_name(name), containers) {
            (Some(_), Containers::Read) => return Err(error),
            _ => Found::NotRead(OTHER_ENDING, false),
        },
        Ok(None) => match (container_of_name(name), containers) {
            (Some(kind), Containers::Read) => Found::Container(kind),
            (Some(_), _) => Found::NotRead(CONTAINER, false),
            (None, _) => Found::NotRead(OTHER_ENDING, false),
        },
    }))
}

/// `inner` as a path below `outer`, if it lies inside.
fn below(outer: &Path, inner: &Path) -> Option<PathBuf> {
    let (canonical, inner) = (outer.canonicalize().ok()?, inner.canonicalize().ok()?);
    Some(outer.join(inner.strip_prefix(canonical).ok()?))
}

/// `None` for a regular file or a link to one, else the word for what it is.
fn kind(entry: &walkdir::DirEntry) -> Result<Option<&'static str>, Error> {
    let file_type = entry.file_type();
    if !file_type.is_symlink() {
        return Ok(kind_of(file_type));
    }
    match std::fs::metadata(entry.path()) {
        Ok(target) if target.is_dir() => Ok(Some(LINKED_DIRECTORY)),
        Ok(target) => Ok(kind_of(target.file_type())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(DANGLING)),
        Err(error) if is_link_loop(&error) => Ok(Some(LOOP)),
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

/// The bytes of `path`, which walkdir made by joining names to `root`, behind it: to take both apart by their
/// components, as `Path::strip_prefix` does, costs more than all else that is done for a record's name.
fn path_below<'p>(root: &Path, path: &'p Path) -> &'p [u8] {
    let below = &path.as_os_str().as_encoded_bytes()[root.as_os_str().len()..];
    let is_separator = |byte: &&u8| std::path::is_separator(char::from(**byte));
    &below[below.iter().take_while(is_separator).count()..]
}

/// Appends the bytes of a path, with `/`.
fn push_as_key(key: &mut Vec<u8>, path: &[u8]) {
    let start = key.len();
    key.extend_from_slice(path);
    if std::path::MAIN_SEPARATOR == '\\' {
        key[start..].iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
    }
}

fn walk_error(corpus: &Path, error: walkdir::Error) -> Error {
    let path = error.path().unwrap_or(corpus).to_owned();
    let source = error.into_io_error().unwrap_or_else(|| io::Error::other("a loop of links"));
    Error::List { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_what_a_file_of_its_name_is() {
        let dir = tempfile::tempdir().unwrap();
        let names = [
            "0.json",
            "a/1.json",
            "a/b.jsonl",
            "c.tar.gz",
            ".hidden/x.json",
            "a/.x.json",
            "d.json/y.json",
            "a/x.txt",
            "out/z.json",
            "a/out/w.json",
            ".git/a/b",
            "__MACOSX/0.json",
            "a/b.json.gz",
        ];
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        for containers in [Containers::Skip, Containers::Read] {
            let (out, mut walked) = (dir.path().join("out"), Vec::new());
            let directory = Directory { root: dir.path(), prefix: b"", containers, skip: Some(&out) };
            walk(&directory, &mut |_, key, found| {
                walked.push((String::from_utf8(key.to_vec()).unwrap(), found));
                Ok(())
            })
            .unwrap();
            walked.sort_by(|one, other| one.0.cmp(&other.0));
            let mut objects: Vec<(String, Found)> = names
                .iter()
                .map(|name| (name, object(name, containers, Some("out"))))
                .map(|(name, (end, found))| (name[..end].to_owned(), found))
                .collect();
            objects.sort_by(|one, other| one.0.cmp(&other.0));
            assert_eq!(objects, walked);
        }
    }

    #[test]
    fn a_key_is_what_walkdir_joins_to_its_root() {
        for root in ["corpus", "corpus/", "corpus//", ".", "./", "/", "a/../b"] {
            let path = Path::new(root).join("x").join("0.json");
            let below = path_below(Path::new(root), &path);
            assert_eq!(below, Path::new("x").join("0.json").as_os_str().as_encoded_bytes(), "{root}");
        }
    }
}
