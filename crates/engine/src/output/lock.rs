//! One run at a time in an output directory.
//!
//! The lock is the operating system's, so that it vanishes with its process. Its file is
//! removed on release; whoever takes the lock makes sure that the file it holds is still
//! the one in the directory. Where a file system has no locks (NFS and Lustre can be
//! mounted so), a file made exclusively serves, which a killed run leaves behind.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The lock's file name in an output directory.
pub const FILE_NAME: &str = ".ctxtune.lock";

/// What follows the name where the file system has no locks.
const EXCLUSIVE: &str = ".exclusive";

/// A lock on an output directory, held until it is dropped.
#[derive(Debug)]
pub struct OutputLock {
    path: PathBuf,
    file: File,
    /// Whether the file system has no locks, so that only this run's file keeps others out.
    pub is_exclusive_file: bool,
}

/// Why the directory is not ours.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name them")]
pub enum LockError {
    #[error("another run is at work in `{dir}`: {holder}")]
    Held {
        dir: PathBuf,
        /// Who holds it, as it said itself.
        holder: String,
    },
    #[error("cannot lock `{path}`: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl OutputLock {
    /// Takes the lock on `dir` or says who holds it.
    ///
    /// # Errors
    /// When another run holds it, or no lock file can be made.
    pub fn acquire(dir: &Path) -> Result<OutputLock, LockError> {
        acquire_with(dir, FILE_NAME, File::try_lock)
    }

    /// Takes the lock of this name in `dir`, which others of the directory do not exclude.
    ///
    /// # Errors
    /// When another run holds it, or no lock file can be made.
    pub fn acquire_named(dir: &Path, name: &str) -> Result<OutputLock, LockError> {
        acquire_with(dir, &format!(".{name}.lock"), File::try_lock)
    }
}

fn acquire_with(
    dir: &Path,
    name: &str,
    try_lock: impl Fn(&File) -> Result<(), TryLockError>,
) -> Result<OutputLock, LockError> {
    let path = dir.join(name);
    let failed = |source| LockError::Io { path: path.clone(), source };
    loop {
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match try_lock(&file) {
            Ok(()) if is_still_there(&file, &path) => {
                let mut lock = OutputLock { path: path.clone(), file, is_exclusive_file: false };
                write_holder(&mut lock.file).map_err(failed)?;
                return Ok(lock);
            }
            // The run before us has removed this file on its way out.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { dir: dir.to_owned(), holder: read_holder(&mut file) });
            }
            Err(TryLockError::Error(error)) if has_no_locks(&error) => {
                drop(file);
                // Only removes the empty file this attempt may have made.
                let _ = std::fs::remove_file(&path);
                return acquire_exclusive(dir, name);
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

fn acquire_exclusive(dir: &Path, name: &str) -> Result<OutputLock, LockError> {
    let path = dir.join(format!("{name}{EXCLUSIVE}"));
    let failed = |source| LockError::Io { path: path.clone(), source };
    for _ in 0..2 {
        match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                let mut lock = OutputLock { path: path.clone(), file, is_exclusive_file: true };
                write_holder(&mut lock.file).map_err(failed)?;
                return Ok(lock);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let holder = File::open(&path).map(|mut file| read_holder(&mut file)).unwrap_or_default();
        if !is_dead(&holder) {
            let holder = format!("{holder} (if that run is gone, delete `{}`)", path.display());
            return Err(LockError::Held { dir: dir.to_owned(), holder });
        }
        std::fs::remove_file(&path).map_err(failed)?;
    }
    Err(LockError::Held { dir: dir.to_owned(), holder: "a run that began just now".to_owned() })
}

fn has_no_locks(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let without = [Errno::NOSYS, Errno::NOLCK, Errno::OPNOTSUPP];
        without.iter().any(|errno| Some(errno.raw_os_error()) == error.raw_os_error())
    }
    #[cfg(not(unix))]
    {
        error.kind() == io::ErrorKind::Unsupported
    }
}

#[cfg(unix)]
fn is_still_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_still_there(_: &File, path: &Path) -> bool {
    path.exists()
}

/// This process, for whoever finds the directory locked.
fn holder() -> String {
    format!("process {} on {}", std::process::id(), host_name())
}

#[cfg(unix)]
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn host_name() -> String {
    "this machine".to_owned()
}

/// Whether `holder` names a process of this machine that is no more. Only Linux can tell without a guess.
fn is_dead(holder: &str) -> bool {
    let Some((process, host)) =
        holder.trim().strip_prefix("process ").and_then(|rest| rest.split_once(" on "))
    else {
        return false;
    };
    cfg!(target_os = "linux") && host == host_name() && !Path::new("/proc").join(process).exists()
}

fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(holder().as_bytes())
}

fn read_holder(file: &mut File) -> String {
    let mut holder = String::new();
    // Windows forbids reading what another process has locked; the message then does without.
    let _ = file.take(256).read_to_string(&mut holder);
    let holder: String = holder.chars().filter(|character| !character.is_control()).collect();
    if holder.is_empty() { "it has not said who it is".to_owned() } else { holder }
}

impl Drop for OutputLock {
    fn drop(&mut self) {
        // Removed before it is unlocked: the next run then makes a file of its own.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_told_who_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let lock = OutputLock::acquire(dir.path()).unwrap();
        let second = OutputLock::acquire(dir.path()).unwrap_err().to_string();
        assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
        drop(lock);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the lock's file is gone");
        OutputLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn locks_of_different_names_do_not_exclude_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let _one = OutputLock::acquire_named(dir.path(), "a").unwrap();
        let _other = OutputLock::acquire_named(dir.path(), "b").unwrap();
        let _whole = OutputLock::acquire(dir.path()).unwrap();
        assert!(matches!(OutputLock::acquire_named(dir.path(), "a"), Err(LockError::Held { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn without_locks_an_exclusive_file_serves() {
        for errno in [rustix::io::Errno::NOSYS, rustix::io::Errno::NOLCK, rustix::io::Errno::OPNOTSUPP] {
            let dir = tempfile::tempdir().unwrap();
            let none =
                |_: &File| Err(TryLockError::Error(io::Error::from_raw_os_error(errno.raw_os_error())));
            let lock = acquire_with(dir.path(), FILE_NAME, none).unwrap();
            assert!(lock.is_exclusive_file);
            let second = acquire_with(dir.path(), FILE_NAME, none).unwrap_err().to_string();
            assert!(second.contains("process") && second.contains("delete"), "{second}");
            drop(lock);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_exclusive_file_of_a_dead_process_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let none = |_: &File| Err(TryLockError::Error(io::ErrorKind::Unsupported.into()));
        let none =
            |file: &File| none(file).map_err(|_| TryLockError::Error(io::Error::from_raw_os_error(38)));
        let path = dir.path().join(format!("{FILE_NAME}{EXCLUSIVE}"));
        std::fs::write(&path, format!("process 4999999 on {}", host_name())).unwrap();
        assert!(acquire_with(dir.path(), FILE_NAME, none).unwrap().is_exclusive_file);
        std::fs::write(&path, "process 1 on some-other-host").unwrap();
        assert!(acquire_with(dir.path(), FILE_NAME, none).is_err());
    }

    #[test]
    fn another_error_is_not_taken_for_no_locks() {
        let dir = tempfile::tempdir().unwrap();
        let denied = |_: &File| Err(TryLockError::Error(io::ErrorKind::PermissionDenied.into()));
        assert!(matches!(acquire_with(dir.path(), FILE_NAME, denied), Err(LockError::Io { .. })));
    }
}
