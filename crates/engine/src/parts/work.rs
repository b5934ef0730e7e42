//! The working directory of a preparation in parts: what lies in it, and who may believe what.
//!
//! | object | what |
//! |---|---|
//! | `plan.json` | the plan: options, roots, digests of the next two |
//! | `plan/*.listing`, `plan/*.index` | the inputs, part by part; a row for each part |
//! | `parts/*` | what a part became: lines, rows, keys, rejects |
//! | `split/*` | the rejects, the places of the shards in every part, the lines that are mixed in |
//! | `shards/*` | a shard's lines, and its part of `keys.tsv` |
//! | `done/part-00003.json`, `done/split.json`, `done/shard-00000.json` | commit records |
//! | `published` | the result is published: what is left here serves nobody |
//!
//! Objects have names that hold their digests, so that attempts at the same work write the same object. A commit
//! record is put where there is none, and comes last: what none names does not exist for anybody.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::output::manifest::{FileDigest, Hex};
use crate::storage::{LocalStorage, NewObject, Object, Storage};

/// The plan.
pub const PLAN: &str = "plan.json";

/// The mark that is left by publication.
pub const PUBLISHED: &str = "published";

/// Directories of what is written here, in the order in which they may go.
const DIRECTORIES: [&str; 5] = ["parts", "split", "shards", "plan", "done"];

/// A working directory.
#[derive(Debug, Clone)]
pub struct Work {
    /// What it lies in.
    pub storage: Arc<dyn Storage>,
    dir: Option<PathBuf>,
}

/// A part, a shard, or the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The conversion of the part of this number.
    Part(u64),
    /// The split.
    Split,
    /// The writing of the shard of this number.
    Shard(u64),
}

impl Step {
    /// The name of its commit record.
    pub fn record(self) -> String {
        match self {
            Step::Part(part) => format!("done/part-{part:05}.json"),
            Step::Split => "done/split.json".to_owned(),
            Step::Shard(shard) => format!("done/shard-{shard:05}.json"),
        }
    }
}

impl Work {
    /// The directory `dir` of this machine.
    pub fn local(dir: &Path) -> Work {
        Work { storage: Arc::new(LocalStorage::new(dir)), dir: Some(dir.to_owned()) }
    }

    /// What lies in a store, below a place of its own.
    pub fn remote(storage: Arc<dyn Storage>) -> Work {
        Work { storage, dir: None }
    }

    /// The directory, if it is one of this machine.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// The place as people write it.
    pub fn shown(&self) -> String {
        self.storage.shown("")
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// The system's.
    pub fn create(&self) -> Result<(), Error> {
        let Some(dir) = &self.dir else { return Ok(()) };
        for name in DIRECTORIES {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).map_err(|source| Error::Write { path, source })?;
        }
        Ok(())
    }

    /// What the store said of the object `name`.
    pub fn failed(&self, name: &str) -> impl FnOnce(io::Error) -> Error {
        let object = self.storage.shown(name);
        |source| Error::Store { object, source }
    }

    /// The bytes of a small object; `None` where there is none.
    ///
    /// # Errors
    /// The store's.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.storage.get(name).map_err(self.failed(name))
    }

    /// Begins an object whose digest is taken on the way.
    ///
    /// # Errors
    /// The store's.
    pub fn begin(&self) -> Result<DigestObject<'_>, Error> {
        let object = self.storage.begin().map_err(self.failed(""))?;
        Ok(DigestObject { work: self, object, digest: Sha256::new(), bytes: 0 })
    }

    /// The commit record of `step` of the plan `plan`, if it is done.
    ///
    /// # Errors
    /// When it cannot be read, or is none of that plan.
    pub fn record<R: Content>(&self, step: Step, plan: &str) -> Result<Option<Record<R>>, Error> {
        let name = step.record();
        let Some(bytes) = self.get(&name)? else { return Ok(None) };
        let altered = |reason: String| Error::Altered { object: self.storage.shown(&name), reason };
        let content: R = serde_json::from_slice(&bytes).map_err(|error| altered(error.to_string()))?;
        if content.plan() != plan {
            return Err(altered("it is of another plan".to_owned()));
        }
        let line = String::from_utf8(bytes).map_err(|error| altered(error.to_string()))?;
        Ok(Some(Record { content, line: line.trim_end().to_owned() }))
    }

    /// What `step` of the plan `plan` leaves: as it was committed before, or as `make` makes it now. `None` where the
    /// result was published meanwhile: then nothing is left of this attempt.
    ///
    /// # Errors
    /// Those of `make`; the store's; [`Error::Differ`] where another attempt left something else.
    pub fn attempt<R: Content>(
        &self,
        step: Step,
        plan: &str,
        make: impl FnOnce() -> Result<R, Error>,
    ) -> Result<Option<Record<R>>, Error> {
        if let Some(done) = self.record(step, plan)? {
            return Ok(Some(done));
        }
        let (result, made) = match make() {
            Ok(content) => (self.commit(step, plan, &content), Some(content)),
            Err(error) => (Err(error), None),
        };
        let objects = made.iter().flat_map(Content::objects);
        // Only then may somebody have taken away what this attempt stands on.
        if self.is_published().unwrap_or(false) {
            objects.for_each(|name| drop(self.delete(name)));
            self.delete(&step.record())?;
            return Ok(None);
        }
        if matches!(result, Err(Error::Differ { .. })) {
            objects.for_each(|name| drop(self.delete(name)));
        }
        result.map(Some)
    }

    fn commit<R: Content>(&self, step: Step, plan: &str, content: &R) -> Result<Record<R>, Error> {
        let name = step.record();
        let mut line = serde_json::to_string(content).expect("strings and numbers only");
        line.push('\n');
        self.storage.put_new(&name, line.as_bytes()).map_err(self.failed(&name))?;
        // Read again in any case: a store that cannot put so tells several attempts that theirs is the one.
        match self.record(step, plan)? {
            Some(record) if record.line == line.trim_end() => Ok(record),
            Some(_) => Err(Error::Differ { record: self.storage.shown(&name) }),
            None => Err(Error::NotYet { what: format!("`{}`", self.storage.shown(&name)) }),
        }
    }

    /// Whether the result is published, or the whole place is gone, as it then goes.
    ///
    /// # Errors
    /// The store's.
    pub fn is_published(&self) -> Result<bool, Error> {
        Ok(self.get(PUBLISHED)?.is_some() || self.get(PLAN)?.is_none())
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        self.storage.delete(name).map_err(self.failed(name))
    }

    /// Removes everything that is written here, the plan last but for the mark; a directory only where nothing else
    /// lies in it.
    ///
    /// # Errors
    /// The store's.
    pub fn clear(&self) -> Result<(), Error> {
        for directory in DIRECTORIES {
            let mut names = Vec::new();
            let prefix = format!("{directory}/");
            let mut list = |object: Object| {
                names.push(object.name);
                Ok(())
            };
            self.storage.list(&prefix, &mut list).map_err(self.failed(&prefix))?;
            self.storage.delete_all(&names).map_err(self.failed(&prefix))?;
        }
        self.storage.end_unfinished().map_err(self.failed(""))?;
        self.delete(PLAN)?;
        if let Some(dir) = &self.dir {
            self.remove_unfinished(dir);
            // Those that hold something else stay.
            DIRECTORIES.iter().for_each(|name| drop(std::fs::remove_dir(dir.join(name))));
        }
        self.delete(PUBLISHED)?;
        if let Some(dir) = &self.dir {
            let _ = std::fs::remove_dir(dir);
        }
        Ok(())
    }

    /// Removes what killed attempts left: they had not come to its end, so no record names it.
    fn remove_unfinished(&self, dir: &Path) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(crate::storage::UNFINISHED.as_bytes()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// What a commit record says.
pub trait Content: Serialize + DeserializeOwned {
    /// The plan that it belongs to.
    fn plan(&self) -> &str;

    /// The objects that it names.
    fn objects(&self) -> Vec<&str>;
}

/// A commit record.
#[derive(Debug, Clone)]
pub struct Record<R> {
    /// What it says.
    pub content: R,
    /// Its line, without the newline.
    pub line: String,
}

/// An object in the making.
pub struct DigestObject<'w> {
    work: &'w Work,
    object: Box<dyn NewObject + 'w>,
    digest: Sha256,
    /// Bytes so far.
    pub bytes: u64,
}

impl DigestObject<'_> {
    /// Ends it as `directory/name-DIGEST`, and gives that name with size and digest.
    ///
    /// # Errors
    /// The store's.
    pub fn finish(self, prefix: &str, is_durable: bool) -> Result<(String, FileDigest), Error> {
        let sha256 = Hex(&self.digest.finalize()).to_string();
        let name = format!("{prefix}-{}", &sha256[..32]);
        self.object.finish(&name, is_durable).map_err(self.work.failed(&name))?;
        Ok((name, FileDigest { bytes: self.bytes, sha256 }))
    }

    /// Adds `bytes`.
    ///
    /// # Errors
    /// The store's.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.write_all(bytes).map_err(self.work.failed(""))
    }
}

impl Write for DigestObject<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.object.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.object.flush()
    }
}
