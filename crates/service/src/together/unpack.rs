//! The archive of a trained model into a directory, which appears when all of it is there.
//!
//! Separate from `download`, which brings the archive. An archive is not trusted: only plain files and
//! directories below the new directory are made, from names without `..`, and nothing that exists is written
//! over. What it is packed with is read from its first bytes, so no other program is needed.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use crate::clock::Clock;

/// Bytes that are copied between two looks at the clock.
const PIECE: usize = 256 << 10;
/// Where `ustar` stands in the first header of a tar.
const USTAR: std::ops::Range<usize> = 257..262;

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("`{0}` exists, and nothing is unpacked into it")]
    Exists(PathBuf),
    #[error("`{0}` is of an unsupported file type: expected .tar.zst or .tar.gz")]
    Type(PathBuf),
    #[error("cannot read the archive `{path}`: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the archive `{path}` has a member `{member}` that {reason}")]
    Member { path: PathBuf, member: String, reason: &'static str },
    #[error("cannot write `{path}`: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("interrupted")]
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The files, below the directory, in the order of the archive.
    pub files: Vec<PathBuf>,
    pub bytes: u64,
}

/// Refuses where something is at `to`, if only a link that leads nowhere.
pub fn require_absent(to: &Path) -> Result<(), UnpackError> {
    match to.symlink_metadata() {
        Ok(_) => Err(UnpackError::Exists(to.to_owned())),
        Err(_) => Ok(()),
    }
}

/// Unpacks `archive` to the new directory `to`, by way of one beside it. Fails when something is at `to`, the
/// archive is broken or has a member that is no file or directory below `to`, or the system refuses. Then there
/// is no `to`.
pub fn unpack(archive: &Path, to: &Path, clock: &dyn Clock) -> Result<Unpacked, UnpackError> {
    require_absent(to)?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".unpacking-");
    // For everybody whom the umask lets, as any new directory.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let staged = builder.tempdir_in(parent).map_err(|source| cannot_write(parent, source))?;
    let unpacked = Unpacking { archive, root: staged.path(), clock }.run()?;
    require_absent(to)?;
    fs::rename(staged.path(), to).map_err(|source| cannot_write(to, source))?;
    // It has another name now, under which it stays.
    let _ = staged.keep();
    // Where a directory cannot be synced, its system sees to that by itself.
    let _ = File::open(parent).and_then(|dir| dir.sync_all());
    Ok(unpacked)
}

fn cannot_write(path: &Path, source: io::Error) -> UnpackError {
    UnpackError::Write { path: path.to_owned(), source }
}

/// An archive on its way into a directory that nobody else uses.
struct Unpacking<'u> {
    archive: &'u Path,
    root: &'u Path,
    clock: &'u dyn Clock,
}

impl Unpacking<'_> {
    fn run(&self) -> Result<Unpacked, UnpackError> {
        let opened = File::open(self.archive).and_then(decoder).map_err(|source| self.cannot_read(source))?;
        let mut archive =
            tar::Archive::new(opened.ok_or_else(|| UnpackError::Type(self.archive.to_owned()))?);
        let mut unpacked = Unpacked { files: Vec::new(), bytes: 0 };
        for member in archive.entries().map_err(|source| self.cannot_read(source))? {
            let mut member = member.map_err(|source| self.cannot_read(source))?;
            let name = member.path().map_err(|source| self.cannot_read(source))?.into_owned();
            let below = below(&name).ok_or_else(|| self.refused(&name, "is outside of the directory"))?;
            let path = self.root.join(&below);
            let kind = member.header().entry_type();
            if kind.is_dir() {
                fs::create_dir_all(&path).map_err(|source| cannot_write(&below, source))?;
            } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
                unpacked.bytes += self.copy(&mut member, (&path, &below))?;
                unpacked.files.push(below);
            } else if kind.is_symlink() || kind.is_hard_link() {
                return Err(self.refused(&name, "is a link"));
            } else if !kind.is_pax_global_extensions() {
                return Err(self.refused(&name, "is neither a file nor a directory"));
            }
        }
        // Checksums stand behind the last member.
        self.drain(&mut archive.into_inner())?;
        if unpacked.files.is_empty() {
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, "no file is in it");
            return Err(self.cannot_read(source));
        }
        Ok(unpacked)
    }

    /// Writes one file, whose name for people is the second path.
    fn copy(&self, member: &mut dyn Read, (path, below): (&Path, &Path)) -> Result<u64, UnpackError> {
        let cannot_write = |source| cannot_write(below, source);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(cannot_write)?;
        }
        let mut file = File::create_new(path).map_err(cannot_write)?;
        let mut bytes = 0;
        self.pieces(member, &mut |piece| {
            bytes += piece.len() as u64;
            file.write_all(piece).map_err(cannot_write)
        })?;
        file.sync_all().map_err(cannot_write)?;
        Ok(bytes)
    }

    fn drain(&self, rest: &mut dyn Read) -> Result<(), UnpackError> {
        self.pieces(rest, &mut |_| Ok(()))
    }

    fn pieces(
        &self,
        from: &mut dyn Read,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        let mut buffer = vec![0; PIECE];
        loop {
            if self.clock.is_stopped() {
                return Err(UnpackError::Stopped);
            }
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => take(&buffer[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.cannot_read(source)),
            }
        }
    }

    fn cannot_read(&self, source: io::Error) -> UnpackError {
        UnpackError::Read { path: self.archive.to_owned(), source }
    }

    fn refused(&self, member: &Path, reason: &'static str) -> UnpackError {
        let member = member.to_string_lossy().into_owned();
        UnpackError::Member { path: self.archive.to_owned(), member, reason }
    }
}

/// The bytes of the tar in `file`; nothing where its first bytes are no tar's and no packed one's.
fn decoder(file: File) -> io::Result<Option<Box<dyn Read>>> {
    let mut reader = BufReader::with_capacity(PIECE, file);
    Ok(match reader.fill_buf()? {
        // A frame of Zstandard, or one that is skipped, with which parallel packers begin.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Some(Box::new(zstd::Decoder::with_buffer(reader)?))
        }
        [0x1f, 0x8b, ..] => Some(Box::new(flate2::bufread::MultiGzDecoder::new(reader))),
        start if start.get(USTAR) == Some(b"ustar") => Some(Box::new(reader)),
        _ => None,
    })
}

/// `name` as a path below a directory; nothing where it leads out of it, or stands for the directory itself
/// though it has a name.
fn below(name: &Path) -> Option<PathBuf> {
    let mut below = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => below.push(part),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => return None,
        }
    }
    Some(below)
}

#[cfg(test)]
mod tests {
    use tar::EntryType;

    use super::*;
    use crate::clock::still::Still;

    /// A tar of these members: type, name, content or the target of a link.
    fn tarred(members: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (kind, name, content) in members {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            // Written by hand: the builder refuses the names that are tried here.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            if is_link {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            let content = if is_link { "" } else { content };
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append(&header, content.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn zst(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// What unpacking `archive` to `model` says, in a directory that is given back.
    fn unpacked(archive: &[u8]) -> (tempfile::TempDir, Result<Unpacked, String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("archive");
        fs::write(&path, archive).unwrap();
        let said = unpack(&path, &dir.path().join("model"), &Still).map_err(|error| error.to_string());
        (dir, said)
    }

    /// Fails unless `archive` is refused with `said`, and nothing else is left.
    #[track_caller]
    fn check_refused(archive: &[u8], said: &str) {
        let (dir, result) = unpacked(archive);
        let error = result.unwrap_err();
        assert!(error.contains(said), "{said}: {error}");
        let left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["archive"], "{said}");
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn every_container_of_the_service_is_unpacked() {
        let members = [
            (EntryType::Directory, "./", ""),
            (FILE, "./adapter_config.json", "{}"),
            (FILE, "deep/er/weights", "12345"),
        ];
        let tar = tarred(&members);
        let split = tar.len() / 2;
        let frames = [zst(&tar[..split]), zst(&tar[split..])].concat();
        for archive in [tar.clone(), zst(&tar), gz(&tar), frames] {
            let (dir, result) = unpacked(&archive);
            let files = ["adapter_config.json", "deep/er/weights"].map(PathBuf::from).to_vec();
            assert_eq!(result, Ok(Unpacked { files, bytes: 7 }));
            let read = |name: &str| fs::read_to_string(dir.path().join("model").join(name)).unwrap();
            assert_eq!((read("adapter_config.json"), read("deep/er/weights")), ("{}".into(), "12345".into()));
        }
    }

    #[test]
    fn nothing_is_written_outside_of_the_directory() {
        let alone = |kind, name, content| tarred(&[(FILE, "a", "1"), (kind, name, content)]);
        for name in ["/tmp/x", "../x", "a/../../x", "..", "./../x"] {
            check_refused(&alone(FILE, name, "1"), "is outside of the directory");
            check_refused(&alone(EntryType::Directory, name, ""), "is outside of the directory");
        }
        check_refused(&alone(EntryType::Symlink, "l", "/etc"), "`l` that is a link");
        check_refused(&alone(EntryType::Symlink, "l", "a"), "`l` that is a link");
        check_refused(&alone(EntryType::Link, "l", "../../secret"), "`l` that is a link");
        for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
            check_refused(&alone(kind, "d", ""), "`d` that is neither a file nor a directory");
        }
        check_refused(&alone(FILE, "a", "2"), "cannot write `a`");
        check_refused(&alone(FILE, "a/b", "2"), "cannot write `a/b`");
        check_refused(&alone(FILE, ".", "2"), "cannot write");
    }

    #[test]
    fn an_archive_that_is_cut_or_is_none_leaves_nothing() {
        let tar = tarred(&[(FILE, "a", &"1".repeat(100_000)), (FILE, "b", "2")]);
        let (packed, gzipped) = (zst(&tar), gz(&tar));
        for archive in
            [&tar[..90_000], &packed[..packed.len() - 2], &gzipped[..gzipped.len() - 2], &packed[..10]]
        {
            check_refused(archive, "cannot read the archive");
        }
        let mut spoiled = packed.clone();
        *spoiled.last_mut().unwrap() ^= 1;
        check_refused(&spoiled, "cannot read the archive");
        check_refused(&tarred(&[]), "unsupported file type");
        check_refused(&zst(&tarred(&[])), "no file is in it");
        for archive in [&b""[..], b"PK\x03\x04", b"<html>"] {
            check_refused(archive, "expected .tar.zst or .tar.gz");
        }
    }

    #[test]
    fn what_is_there_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive");
        fs::write(&archive, tarred(&[(FILE, "a", "1")])).unwrap();
        let refused = |to: &Path| matches!(unpack(&archive, to, &Still), Err(UnpackError::Exists(_)));
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        assert!(refused(&empty) && refused(&archive) && refused(Path::new(".")));
        #[cfg(unix)]
        {
            let link = dir.path().join("link");
            std::os::unix::fs::symlink("nowhere", &link).unwrap();
            assert!(refused(&link));
        }
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    }
}
