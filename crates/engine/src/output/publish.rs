//! Makes a staged result the published one, or leaves the old one as it was.
//!
//! Everything is staged in a directory inside the output directory and synced. Then the
//! old manifest goes into the staging directory, the files are renamed over the old ones,
//! and the new manifest comes last: at each moment the output directory holds the whole
//! old result, the whole new one, or no manifest. The manifests left in staging tell the
//! next run which files are its own to delete. Foreign files are never touched.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::output::card;
use crate::output::compress::DigestWriter;
use crate::output::lock::OutputLock;
use crate::output::manifest::{self, FileDigest, Hex, Manifest, ManifestError};
use crate::watch::Watch;

/// The staging directory inside the output directory.
pub const STAGING: &str = ".ctxtune-staging";

/// In staging: the manifest that was published before. Its presence says that publication
/// has begun; it is empty where there was none.
const OLD_MANIFEST: &str = "old-manifest.json";

/// Where the reasons of a run over the limit are kept.
pub const FAILED_REJECTS: &str = "rejects-failed.jsonl";

/// How often a wait for the disk looks whether the run is to stop.
const SYNC_POLL: Duration = Duration::from_millis(100);

/// Whether results are synced to disk before they are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives a power loss.
    Sync,
    /// Survives a killed process only.
    NoSync,
}

/// What publication did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The result is there.
    New,
    /// The same result was already there, and was not touched.
    Unchanged,
}

/// An output directory that this run has locked and stages into.
#[derive(Debug)]
pub struct Output {
    dir: PathBuf,
    durability: Durability,
    was_made: bool,
    /// Held for its `Drop`: released after everything else here.
    lock: Option<OutputLock>,
}

impl Output {
    /// Makes and locks `dir`, cleans up after a killed run, and makes the staging directory.
    ///
    /// # Errors
    /// When another run is at work, the directory holds a foreign manifest, or the system refuses.
    pub fn open(dir: &Path, durability: Durability) -> Result<Output, Error> {
        let was_made = !dir.exists();
        std::fs::create_dir_all(dir).map_err(|source| Error::Write { path: dir.to_owned(), source })?;
        let lock = OutputLock::acquire(dir).inspect_err(|_| {
            if was_made {
                // Fails, as it should, unless the directory is empty.
                let _ = std::fs::remove_dir(dir);
            }
        })?;
        let output = Output { dir: dir.to_owned(), durability, was_made, lock: Some(lock) };
        output.clean_up()?;
        let staging = output.staging();
        std::fs::create_dir(&staging).map_err(|source| Error::Write { path: staging, source })?;
        Ok(output)
    }

    /// Where files are staged, under the names they will have.
    pub fn staging(&self) -> PathBuf {
        self.dir.join(STAGING)
    }

    /// Whether the file system has no locks and a mere file keeps other runs out.
    pub fn has_no_locks(&self) -> bool {
        self.lock.as_ref().is_some_and(|lock| lock.is_exclusive_file)
    }

    /// Removes what a killed run left: its staging directory and, where it died while
    /// publishing, its half of a result.
    fn clean_up(&self) -> Result<(), Error> {
        let staging = self.staging();
        if !staging.exists() {
            return Ok(());
        }
        let died_publishing =
            staging.join(OLD_MANIFEST).exists() && !self.dir.join(manifest::FILE_NAME).exists();
        if died_publishing {
            for name in [OLD_MANIFEST, manifest::FILE_NAME] {
                // One that cannot be read is the empty mark, or was never complete.
                let Ok(Some(manifest)) = Manifest::read_file(&staging.join(name)) else { continue };
                for file in manifest.file_names() {
                    if file != card::FILE_NAME || is_our_card(&self.dir, &manifest)? {
                        remove_if_there(&self.dir.join(file))?;
                    }
                }
            }
        }
        std::fs::remove_dir_all(&staging).map_err(|source| Error::Write { path: staging, source })
    }

    /// The manifest published now, if there is one.
    ///
    /// # Errors
    /// When a file of that name is there which is not a manifest.
    pub fn published(&self) -> Result<Option<Manifest>, Error> {
        Ok(Manifest::read_file(&self.dir.join(manifest::FILE_NAME))?)
    }

    /// Fails where a file of the result would overwrite one that no manifest calls ours.
    ///
    /// # Errors
    /// Names the foreign file.
    pub fn check_foreign<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<(), Error> {
        check_foreign(&self.dir, names)
    }

    /// Publishes the staged shards together with `files` (their contents by name), completing `manifest`.
    ///
    /// # Errors
    /// The system's refusals. Before the first rename the old result is intact.
    pub fn publish(&self, manifest: &mut Manifest, watch: &dyn Watch) -> Result<Published, Error> {
        let card = card::card(manifest);
        let digest = self.stage(card::FILE_NAME, |out| out.write_all(card.as_bytes()))?;
        manifest.files.insert(card::FILE_NAME.to_owned(), digest);
        self.stage(manifest::FILE_NAME, |out| out.write_all(manifest.to_json().as_bytes()))?;

        let published = self.published()?;
        let may_write_card = self.may_write_card()?;
        let mut names = manifest.file_names();
        names.retain(|name| may_write_card || *name != card::FILE_NAME);
        self.check_foreign(names.iter().copied())?;
        if self.is_published(&names)? {
            remove_if_there(&self.dir.join(FAILED_REJECTS))?;
            return Ok(Published::Unchanged);
        }
        let mut staged: Vec<PathBuf> = names.iter().map(|name| self.staging().join(name)).collect();
        staged.push(self.staging().join(manifest::FILE_NAME));
        staged.push(self.staging());
        self.sync(staged, watch)?;
        watch.check_stop()?;

        watch.publishing("the old manifest is set aside");
        self.set_old_manifest_aside()?;
        for name in &names {
            watch.publishing("a file is renamed");
            self.rename(name)?;
        }
        if let Some(old) = &published {
            for name in old.file_names() {
                if !names.contains(&name) && name != card::FILE_NAME {
                    watch.publishing("an old file is removed");
                    remove_if_there(&self.dir.join(name))?;
                }
            }
        }
        watch.publishing("the directory is synced");
        self.sync_directory()?;
        watch.publishing("the manifest is renamed");
        self.rename(manifest::FILE_NAME)?;
        watch.publishing("the manifest is synced");
        self.sync_directory()?;
        watch.publishing("the staging directory is removed");
        remove_if_there(&self.dir.join(FAILED_REJECTS))?;
        Ok(Published::New)
    }

    /// Writes the reasons of a failed run beside the untouched old result, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_failed_rejects(
        &self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<PathBuf, Error> {
        let path = self.dir.join(FAILED_REJECTS);
        let failed = |source| Error::Write { path: path.clone(), source };
        let mut file = tempfile::NamedTempFile::new_in(self.staging()).map_err(failed)?;
        let mut buffered = io::BufWriter::new(file.as_file_mut());
        write(&mut buffered).and_then(|()| buffered.flush()).map_err(failed)?;
        drop(buffered);
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(path)
    }

    /// Stages the file `name` with what `write` writes, and takes its digest on the way.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn stage(
        &self,
        name: &str,
        write: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>,
    ) -> Result<FileDigest, Error> {
        let path = self.staging().join(name);
        let failed = |source| Error::Write { path: path.clone(), source };
        let file = File::create(&path).map_err(failed)?;
        let mut out = io::BufWriter::with_capacity(1 << 18, DigestWriter::new(file));
        write(&mut out).map_err(failed)?;
        let DigestWriter { tally, .. } = out.into_inner().map_err(|error| failed(error.into_error()))?;
        Ok(FileDigest { bytes: tally.bytes, sha256: tally.hex() })
    }

    /// A README that is ours to replace: none, or the one the published manifest vouches for, unedited.
    ///
    /// # Errors
    /// When the published manifest cannot be read.
    pub fn may_write_card(&self) -> Result<bool, Error> {
        let there = self.dir.join(card::FILE_NAME).symlink_metadata().is_ok();
        match self.published()? {
            Some(manifest) if there => is_our_card(&self.dir, &manifest),
            _ => Ok(!there),
        }
    }

    /// Whether every file named, and the manifest, is already there with the same bytes.
    fn is_published(&self, names: &[&str]) -> Result<bool, Error> {
        for name in names.iter().chain(&[manifest::FILE_NAME]) {
            let (staged, there) = (self.staging().join(name), self.dir.join(name));
            match have_equal_bytes(&staged, &there) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(source) => return Err(Error::Read { path: there, source }),
            }
        }
        Ok(true)
    }

    fn set_old_manifest_aside(&self) -> Result<(), Error> {
        let (there, aside) = (self.dir.join(manifest::FILE_NAME), self.staging().join(OLD_MANIFEST));
        let result = match std::fs::rename(&there, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::write(&aside, ""),
            result => result,
        };
        result.map_err(|source| Error::Write { path: there, source })?;
        // The mark must be on disk before any file it speaks of changes.
        if self.durability == Durability::Sync {
            sync_directory(&self.staging())?;
        }
        self.sync_directory()
    }

    fn rename(&self, name: &str) -> Result<(), Error> {
        let path = self.dir.join(name);
        std::fs::rename(self.staging().join(name), &path).map_err(|source| Error::Write { path, source })
    }

    fn sync_directory(&self) -> Result<(), Error> {
        match self.durability {
            Durability::Sync => sync_directory(&self.dir),
            Durability::NoSync => Ok(()),
        }
    }

    /// Syncs `paths` on a thread of its own, since nothing can interrupt a slow disk: a
    /// run that is told to stop leaves the thread behind.
    fn sync(&self, paths: Vec<PathBuf>, watch: &dyn Watch) -> Result<(), Error> {
        if self.durability == Durability::NoSync {
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("sync".to_owned()).spawn(move || {
            let result = paths.iter().try_for_each(|path| sync_path(path));
            // Nobody listens any more where the run was stopped.
            let _ = sender.send(result);
        });
        thread.map_err(Error::Threads)?;
        loop {
            match receiver.recv_timeout(SYNC_POLL) {
                Ok(result) => return result,
                Err(mpsc::RecvTimeoutError::Timeout) => watch.check_stop()?,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(Error::Threads(io::Error::other("the syncing thread is gone")));
                }
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let staging = self.staging();
        // Publication that failed half way needs its marks: they tell the next run what is ours.
        let is_half_published =
            staging.join(OLD_MANIFEST).exists() && !self.dir.join(manifest::FILE_NAME).exists();
        if is_half_published {
            give_space_back(&staging);
        } else {
            let _ = std::fs::remove_dir_all(&staging);
        }
        self.lock = None;
        if self.was_made {
            // Fails, as it should, unless the directory is empty.
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}

/// Fails where a file of the result in `dir` would overwrite one that no manifest calls ours.
///
/// # Errors
/// Names the foreign file.
pub fn check_foreign<'n>(dir: &Path, names: impl IntoIterator<Item = &'n str>) -> Result<(), Error> {
    let published = Manifest::read_file(&dir.join(manifest::FILE_NAME))?;
    let ours: BTreeSet<&str> = published.iter().flat_map(Manifest::file_names).collect();
    let is_foreign = |name: &&str| {
        *name != card::FILE_NAME && !ours.contains(name) && dir.join(name).symlink_metadata().is_ok()
    };
    match names.into_iter().find(is_foreign) {
        Some(name) => Err(Error::Foreign { path: dir.join(name) }),
        None => Ok(()),
    }
}

/// Removes all staged files but the manifests.
fn give_space_back(staging: &Path) {
    let Ok(entries) = std::fs::read_dir(staging) else { return };
    for entry in entries.flatten() {
        if entry.file_name() != OLD_MANIFEST && entry.file_name() != manifest::FILE_NAME {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether the card in `dir` is, byte for byte, the one that `manifest` vouches for.
fn is_our_card(dir: &Path, manifest: &Manifest) -> Result<bool, Error> {
    let path = dir.join(card::FILE_NAME);
    match std::fs::read(&path) {
        Ok(card) => Ok(manifest.files.get(card::FILE_NAME) == Some(&digest_of(&card))),
        Err(error) if error.kind() == io::ErrorKind::NotFound || path.is_dir() => Ok(false),
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// Size and SHA-256 of `content`.
pub fn digest_of(content: &[u8]) -> FileDigest {
    FileDigest { bytes: content.len() as u64, sha256: Hex(&Sha256::digest(content)).to_string() }
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Write { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

fn have_equal_bytes(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let length = a.metadata()?.len();
    if length != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    let mut rest = length;
    while rest > 0 {
        let block = rest.min(left.len() as u64) as usize;
        a.read_exact(&mut left[..block])?;
        b.read_exact(&mut right[..block])?;
        if left[..block] != right[..block] {
            return Ok(false);
        }
        rest -= block as u64;
    }
    Ok(true)
}

fn sync_path(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return sync_directory(path);
    }
    let synced = File::options().read(true).write(true).open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| Error::Write { path: path.to_owned(), source })
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> Result<(), Error> {
    match File::open(path).and_then(|directory| directory.sync_all()) {
        // Some file systems cannot sync a directory and say so: nothing more can be done.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result.map_err(|source| Error::Write { path: path.to_owned(), source }),
    }
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> Result<(), Error> {
    // Windows has no such call; renames are journalled with the directory.
    Ok(())
}

impl From<ManifestError> for Error {
    fn from(error: ManifestError) -> Error {
        Error::Manifest(error)
    }
}
