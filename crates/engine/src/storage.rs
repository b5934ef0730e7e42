//! A place that holds objects under names: a directory of this machine, or what begins with a prefix in a bucket.
//!
//! All that work in parts asks of it: whole objects that appear at once and never change, small ones that are put
//! only where nothing is, ranges, listings. It blocks; who needs many reads at once has as many threads, or
//! [`Storage::read_all`]. It knows neither records nor plans.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::source::section::read_exact_at;

/// What a listing says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name below the place, components divided by `/`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// What changes whenever its bytes do: its ETag; empty where the store has none.
    pub tag: String,
}

/// A place that holds objects.
pub trait Storage: Send + Sync + fmt::Debug {
    /// The object `name` as people write it: a path, or an address.
    fn shown(&self, name: &str) -> String;

    /// The file that the object `name` is, where it is one of this machine.
    fn path(&self, name: &str) -> Option<PathBuf>;

    /// All bytes of a small object; `None` where there is none of that name.
    ///
    /// # Errors
    /// The store's.
    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// The store's; `NotFound`, and `UnexpectedEof` where the object is shorter.
    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Puts a small object where there is none of that name. Whether there was none: where a store cannot put so,
    /// several callers may be told that. `is_durable` asks that it survives a power loss.
    ///
    /// # Errors
    /// The store's.
    fn put_new(&self, name: &str, bytes: &[u8], is_durable: bool) -> io::Result<bool>;

    /// Begins an object. Its name may depend on its bytes, so it is told at the end.
    ///
    /// # Errors
    /// The store's.
    fn begin(&self) -> io::Result<Box<dyn NewObject + '_>>;

    /// Calls `each` with every object whose name begins with `prefix`, in the order of their bytes.
    ///
    /// # Errors
    /// The store's; those of `each`.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Object) -> io::Result<()>) -> io::Result<()>;

    /// As [`Storage::list`] with every object, in any order: a store that lists a thousand at a time is asked for
    /// several ranges of names at once.
    ///
    /// # Errors
    /// The store's; those of `each`.
    fn list_unordered(&self, each: &mut dyn FnMut(Object) -> io::Result<()>) -> io::Result<()> {
        self.list("", each)
    }

    /// What a listing would say of one object; `None` where there is none of that name.
    ///
    /// # Errors
    /// The store's.
    fn find(&self, name: &str) -> io::Result<Option<Object>>;

    /// Removes an object; none of that name is as good.
    ///
    /// # Errors
    /// The store's.
    fn delete(&self, name: &str) -> io::Result<()>;

    /// Removes objects, many by one request where the store can.
    ///
    /// # Errors
    /// The store's; some are gone then.
    fn delete_all(&self, names: &[String]) -> io::Result<()> {
        names.iter().try_for_each(|name| self.delete(name))
    }

    /// Puts a copy of an object of any place as `name`, by the store alone where it can.
    ///
    /// # Errors
    /// Those of both stores; an object whose tag is not the one given as [`Storage::read_all`] has it.
    fn copy_from(&self, from: &dyn Storage, object: &Object, name: &str, is_durable: bool) -> io::Result<()> {
        let mut new = self.begin()?;
        from.read_through(object, 0..object.bytes, &mut new)?;
        new.finish(name, is_durable)
    }

    /// Ends the uploads to this place that stopped processes left open, which a store keeps and bills. For when
    /// nobody writes.
    ///
    /// # Errors
    /// The store's.
    fn end_unfinished(&self) -> io::Result<()> {
        Ok(())
    }

    /// How many requests it takes to read an object.
    fn requests(&self, _object: &Object) -> u64 {
        0
    }

    /// Writes a range of an object of any size, reading ahead where that is quicker. A tag that is not the one given
    /// is an error as in [`Storage::read_all`].
    ///
    /// # Errors
    /// The store's; those of `to`.
    fn read_through(&self, object: &Object, range: Range<u64>, to: &mut dyn Write) -> io::Result<()>;

    /// Calls `each` with the number of each of `objects` and its bytes, in their order, reading many at once where
    /// that is quicker. An object whose tag is not the one given is an error of the kind `StaleNetworkFileHandle`.
    ///
    /// # Errors
    /// The store's; those of `each`.
    fn read_all(
        &self,
        objects: &[Object],
        each: &mut dyn FnMut(usize, &[u8]) -> io::Result<()>,
    ) -> io::Result<()>;
}

/// An object in the making. Dropped before its end it leaves nothing.
pub trait NewObject: Write + Send {
    /// Ends it as `name`, replacing what is there; `is_durable` asks that it survives a power loss.
    ///
    /// # Errors
    /// The store's.
    fn finish(self: Box<Self>, name: &str, is_durable: bool) -> io::Result<()>;
}

/// What opens the places at addresses.
pub trait Stores: Send + Sync + fmt::Debug {
    /// The place at `address`, which is there and lets us in. It costs little where its bucket is open already.
    ///
    /// # Errors
    /// [`Unusable`] within; others where the store cannot be reached.
    fn open(&self, address: &str) -> io::Result<Arc<dyn Storage>>;
}

/// Opens no place: what a build without buckets has.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoStores;

impl Stores for NoStores {
    fn open(&self, address: &str) -> io::Result<Arc<dyn Storage>> {
        Err(Unusable::NoBuckets(address.to_owned()).into())
    }
}

/// Why a store cannot be used as it was asked for: to try again does not help. It is the inner error of an
/// [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The address or a setting is none.
    #[error("{0}")]
    Address(String),
    /// This program was built without buckets.
    #[error("cannot open `{0}`: this program was built without buckets, the feature `cloud`")]
    NoBuckets(String),
    /// The bucket does not exist.
    #[error("the bucket `{bucket}` does not exist: {said}")]
    NoBucket {
        /// Its name.
        bucket: String,
        /// What the store said.
        said: String,
    },
    /// There are no credentials, or the store refuses them.
    #[error("{message}")]
    Key {
        /// What failed, and what was said.
        message: String,
        /// What to do.
        hint: String,
    },
}

impl Unusable {
    /// The one within an error.
    pub fn within(error: &io::Error) -> Option<&Unusable> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<Unusable> for io::Error {
    fn from(unusable: Unusable) -> io::Error {
        io::Error::other(unusable)
    }
}

/// A directory of this machine.
#[derive(Debug)]
pub struct LocalStorage {
    dir: PathBuf,
}

impl LocalStorage {
    /// The directory at `dir`, which need not be there yet.
    pub fn new(dir: &Path) -> LocalStorage {
        LocalStorage { dir: dir.to_owned() }
    }
}

/// What objects in the making are called; nothing else begins so.
pub(crate) const UNFINISHED: &str = ".unfinished-";

impl Storage for LocalStorage {
    fn shown(&self, name: &str) -> String {
        let path = if name.is_empty() { self.dir.clone() } else { self.dir.join(name) };
        path.display().to_string()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.join(name))
    }

    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some),
        }
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        read_exact_at(&File::open(self.dir.join(name))?, buffer, offset)
    }

    fn put_new(&self, name: &str, bytes: &[u8], is_durable: bool) -> io::Result<bool> {
        let mut object = LocalObject::begin(&self.dir)?;
        object.write_all(bytes)?;
        if is_durable {
            object.file.as_file().sync_all()?;
        }
        let path = self.dir.join(name);
        match object.file.persist_noclobber(&path) {
            Ok(_) if is_durable => sync_parent(&path).map(|()| true),
            Ok(_) => Ok(true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.error),
        }
    }

    fn begin(&self) -> io::Result<Box<dyn NewObject + '_>> {
        Ok(Box::new(LocalObject::begin(&self.dir)?))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(Object) -> io::Result<()>) -> io::Result<()> {
        let (below, _) = prefix.rsplit_once('/').unwrap_or_default();
        let dir = self.dir.join(below);
        let mut names = Vec::new();
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // What is ours has plain names.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = if below.is_empty() { name } else { format!("{below}/{name}") };
            if name.starts_with(prefix) && !name.contains(UNFINISHED) && entry.file_type()?.is_file() {
                names.push(name);
            }
        }
        names.sort_unstable();
        names.iter().try_for_each(|name| self.find(name)?.map_or(Ok(()), &mut *each))
    }

    fn find(&self, name: &str) -> io::Result<Option<Object>> {
        match self.dir.join(name).metadata() {
            Ok(seen) => Ok(Some(Object { name: name.to_owned(), bytes: seen.len(), tag: String::new() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn read_through(&self, object: &Object, range: Range<u64>, to: &mut dyn Write) -> io::Result<()> {
        let mut file = File::open(self.dir.join(&object.name))?;
        file.seek(SeekFrom::Start(range.start))?;
        io::copy(&mut file.take(range.end - range.start), to).map(drop)
    }

    fn read_all(
        &self,
        objects: &[Object],
        each: &mut dyn FnMut(usize, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        for (number, object) in objects.iter().enumerate() {
            each(number, &std::fs::read(self.dir.join(&object.name))?)?;
        }
        Ok(())
    }
}

/// A file in the making: beside the directories of the place, so that it is moved, not copied.
struct LocalObject<'d> {
    dir: &'d Path,
    file: tempfile::NamedTempFile,
}

impl LocalObject<'_> {
    fn begin(dir: &Path) -> io::Result<LocalObject<'_>> {
        let mut builder = tempfile::Builder::new();
        // As files are made that are not temporary: who may read the result is the umask's to say.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        Ok(LocalObject { dir, file: builder.prefix(UNFINISHED).tempfile_in(dir)? })
    }
}

impl Write for LocalObject<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewObject for LocalObject<'_> {
    fn finish(self: Box<Self>, name: &str, is_durable: bool) -> io::Result<()> {
        let LocalObject { dir, file } = *self;
        if is_durable {
            file.as_file().sync_all()?;
        }
        let path = dir.join(name);
        file.persist(&path).map_err(|error| error.error)?;
        if is_durable { sync_parent(&path) } else { Ok(()) }
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if cfg!(unix) => OpenOptions::new().read(true).open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(storage: &LocalStorage, prefix: &str) -> Vec<(String, u64)> {
        let mut names = Vec::new();
        let mut each = |object: Object| {
            names.push((object.name, object.bytes));
            Ok(())
        };
        storage.list(prefix, &mut each).unwrap();
        names
    }

    #[test]
    fn an_object_is_put_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let storage = LocalStorage::new(dir.path());
        assert!(storage.put_new("a", b"first", true).unwrap());
        assert!(!storage.put_new("a", b"second", true).unwrap());
        assert_eq!(storage.get("a").unwrap().unwrap(), b"first");
        assert_eq!(storage.get("b").unwrap(), None);
        let mut buffer = [0; 3];
        storage.read_at("a", 2, &mut buffer).unwrap();
        assert_eq!(&buffer, b"rst");
        let short = storage.read_at("a", 3, &mut buffer).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_object_without_its_end_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let storage = LocalStorage::new(dir.path());
        let mut object = storage.begin().unwrap();
        object.write_all(b"x").unwrap();
        assert_eq!(names(&storage, ""), []);
        drop(object);
        let mut object = storage.begin().unwrap();
        object.write_all(b"xy").unwrap();
        object.finish("d/b", true).unwrap();
        assert!(storage.put_new("d/a", b"", true).unwrap());
        assert_eq!(names(&storage, "d/"), [("d/a".to_owned(), 0), ("d/b".to_owned(), 2)]);
        assert_eq!(names(&storage, "d/b"), [("d/b".to_owned(), 2)]);
        assert_eq!(names(&storage, "e/"), []);
        storage.delete("d/a").unwrap();
        storage.delete("d/a").unwrap();
        let mut found = Vec::new();
        let object = Object { name: "d/b".to_owned(), bytes: 2, tag: String::new() };
        let mut each = |number, bytes: &[u8]| {
            found.push((number, bytes.to_vec()));
            Ok(())
        };
        storage.read_all(&[object], &mut each).unwrap();
        assert_eq!(found, [(0, b"xy".to_vec())]);
        assert_eq!(storage.find("d/c").unwrap(), None);
        let object = storage.find("d/b").unwrap().unwrap();
        storage.copy_from(&storage, &object, "d/c", false).unwrap();
        assert_eq!(names(&storage, ""), []);
        assert_eq!(names(&storage, "d/"), [("d/b".to_owned(), 2), ("d/c".to_owned(), 2)]);
        storage.delete_all(&["d/c".to_owned(), "d/none".to_owned()]).unwrap();
        assert_eq!(storage.find("d/c").unwrap(), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
