//! An output in a bucket: empty, or holding what the same order makes.
//!
//! A store renames nothing and locks nobody out. A mark says which order is being published there: where it lies, what
//! is there may be replaced; where it does not, nothing is overwritten. The old manifest goes first, the new one comes
//! last, and the mark goes behind it.

use std::io::{self, Write};
use std::sync::Arc;

use crate::error::Error;
use crate::output::manifest;
use crate::output::publish::{FAILED_REJECTS, Published};
use crate::storage::{Object, Storage, Stores};

/// The mark: the digest of the order whose publication has begun.
const PUBLISHING: &str = ".ctxtune-publishing";

/// An output in a bucket.
pub struct StoredOutput {
    storage: Arc<dyn Storage>,
    there: Vec<Object>,
    has_mark: bool,
}

/// A file of the result.
pub enum Content<'c> {
    /// An object of the working directory, of that size.
    Object(&'c str, u64),
    /// These bytes.
    Bytes(&'c [u8]),
    /// What is written.
    Written(&'c dyn Fn(&mut dyn Write) -> Result<(), Error>, u64),
}

impl Content<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Content::Object(_, bytes) | Content::Written(_, bytes) => *bytes,
            Content::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

impl StoredOutput {
    /// The output at `address` for the order of this digest.
    ///
    /// # Errors
    /// When something lies there that is not known to be of that order; the store's.
    pub fn open(address: &str, order: &str, stores: &dyn Stores) -> Result<StoredOutput, Error> {
        let failed = |object: String| move |source| Error::Store { object, source };
        let storage = stores.open(address).map_err(failed(address.to_owned()))?;
        let mut there = Vec::new();
        let mut keep = |object: Object| {
            there.push(object);
            Ok(())
        };
        storage.list("", &mut keep).map_err(failed(address.to_owned()))?;
        let mark = storage.get(PUBLISHING).map_err(failed(storage.shown(PUBLISHING)))?;
        let has_mark = mark.as_deref() == Some(order.as_bytes());
        let may_be_ours = |name: &str| has_mark || [FAILED_REJECTS, PUBLISHING].contains(&name);
        let has_manifest = there.iter().any(|object| object.name == manifest::FILE_NAME);
        if let Some(object) = there.iter().find(|object| !may_be_ours(&object.name) && !has_manifest) {
            return Err(Error::Foreign { path: storage.shown(&object.name).into() });
        }
        if mark.is_some() && !has_mark {
            return Err(Error::OtherResult { output: address.to_owned() });
        }
        Ok(StoredOutput { storage, there, has_mark })
    }

    /// Publishes `files`, and `manifest` last; `work` is where objects come from.
    ///
    /// # Errors
    /// [`Error::OtherResult`] where another result is there; the stores'.
    pub fn publish(
        &self,
        order: &str,
        work: &dyn Storage,
        files: &[(&str, Content<'_>)],
        manifest: &str,
        is_durable: bool,
    ) -> Result<Published, Error> {
        let there = self.storage.get(manifest::FILE_NAME).map_err(self.failed(manifest::FILE_NAME))?;
        let is_there = |(name, content): &(&str, Content<'_>)| {
            self.there.iter().any(|object| object.name == *name && object.bytes == content.bytes())
        };
        if there.as_deref() == Some(manifest.as_bytes()) && files.iter().all(is_there) {
            self.delete(&[FAILED_REJECTS, PUBLISHING])?;
            return Ok(Published::Unchanged);
        }
        if there.is_some_and(|there| there != manifest.as_bytes()) && !self.has_mark {
            return Err(Error::OtherResult { output: self.storage.shown("") });
        }
        self.put(PUBLISHING, order.as_bytes())?;
        let mut stale = vec![manifest::FILE_NAME];
        let of_result = |name: &str| files.iter().any(|(file, _)| *file == name) || name == PUBLISHING;
        stale.extend(self.there.iter().map(|object| object.name.as_str()).filter(|name| !of_result(name)));
        self.delete(&stale)?;
        for (name, content) in files {
            match content {
                Content::Bytes(bytes) => self.put(name, bytes)?,
                Content::Object(from, bytes) => {
                    let object = Object { name: (*from).to_owned(), bytes: *bytes, tag: String::new() };
                    self.storage.copy_from(work, &object, name, is_durable).map_err(self.failed(name))?;
                }
                Content::Written(write, _) => {
                    let mut new = self.storage.begin().map_err(self.failed(name))?;
                    write(&mut new)?;
                    new.finish(name, is_durable).map_err(self.failed(name))?;
                }
            }
        }
        self.storage.end_unfinished().map_err(self.failed(""))?;
        self.put(manifest::FILE_NAME, manifest.as_bytes())?;
        self.delete(&[PUBLISHING])?;
        Ok(Published::New)
    }

    /// Keeps the reasons of a failed run, and says where.
    ///
    /// # Errors
    /// Those of `write`; the store's.
    pub fn write_failed_rejects(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
    ) -> Result<String, Error> {
        let mut new = self.storage.begin().map_err(self.failed(FAILED_REJECTS))?;
        write(&mut new)?;
        new.finish(FAILED_REJECTS, true).map_err(self.failed(FAILED_REJECTS))?;
        Ok(self.storage.shown(FAILED_REJECTS))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let put = || {
            let mut new = self.storage.begin()?;
            new.write_all(bytes)?;
            new.finish(name, true)
        };
        put().map_err(self.failed(name))
    }

    fn delete(&self, names: &[&str]) -> Result<(), Error> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.storage.delete_all(&names).map_err(self.failed(""))
    }

    fn failed(&self, name: &str) -> impl FnOnce(io::Error) -> Error {
        let object = self.storage.shown(name);
        |source| Error::Store { object, source }
    }
}
