//! Keeps what cannot be read at random where it can: the plain bytes of compressed archives and standard
//! input, and what became of lines that were converted as they arrived.
//!
//! All of it goes once into an unlinked file beside the output, one container behind the other, which
//! vanishes with the process. A container that grows without end stops at a limit. It interprets nothing.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::source::Source;
use crate::source::section::Section;
use crate::source::unpack::{BLOCK_BYTES, Plain};
use crate::watch::Watch;

/// Where spools go, and how much may be unpacked.
#[derive(Debug)]
pub struct Spool {
    /// What may be unpacked.
    pub limit: UnpackLimit,
    /// What is kept.
    pub store: Store,
}

/// How much containers may unpack to, together.
#[derive(Debug)]
pub struct UnpackLimit {
    bytes: u64,
    used: u64,
}

impl UnpackLimit {
    /// How much was unpacked.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Takes note of `bytes` that `source` has unpacked to.
    ///
    /// # Errors
    /// When the limit is reached.
    pub fn take(&mut self, source: &Source, bytes: usize) -> Result<(), Error> {
        self.used += bytes as u64;
        match self.used > self.bytes {
            true => Err(Error::SpoolLimit { path: source.path.clone(), limit: self.bytes }),
            false => Ok(()),
        }
    }
}

/// An unlinked file that grows.
#[derive(Debug)]
pub struct Store {
    dir: Option<PathBuf>,
    length: u64,
    /// One for all containers: there may be more of them than files can be open.
    file: Option<Arc<File>>,
}

impl Store {
    fn file(&mut self) -> Result<Arc<File>, Error> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let unlinked = match &self.dir {
            Some(dir) => tempfile::tempfile_in(dir),
            None => tempfile::tempfile(),
        };
        let unlinked = unlinked.map_err(|source| self.write_error(source))?;
        Ok(Arc::clone(self.file.insert(Arc::new(unlinked))))
    }

    fn write_error(&self, source: std::io::Error) -> Error {
        let path = self.dir.clone().unwrap_or_else(|| "a temporary file".into());
        Error::Write { path, source }
    }

    /// What is kept from now on, with no byte yet.
    ///
    /// # Errors
    /// When no file can be made.
    pub fn section(&mut self) -> Result<Section, Error> {
        Ok(Section { file: self.file()?, start: self.length, length: 0 })
    }

    /// Adds `bytes` to `section`, which is the last one that was begun.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn append(&mut self, section: &mut Section, bytes: &[u8]) -> Result<(), Error> {
        let mut file = &*section.file;
        // Where reading at an offset moves the file's own position.
        let written = file.seek(SeekFrom::Start(self.length)).and_then(|_| file.write_all(bytes));
        written.map_err(|source| self.write_error(source))?;
        section.length += bytes.len() as u64;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

impl Spool {
    /// Spools below `dir`, or in the system's place for temporary files, for containers of `limit` plain bytes
    /// in all.
    pub fn new(dir: Option<&Path>, limit: u64) -> Self {
        let store = Store { dir: dir.map(Path::to_owned), length: 0, file: None };
        Spool { limit: UnpackLimit { bytes: limit, used: 0 }, store }
    }

    /// The directory of temporary files; `None` for the system's place.
    pub fn dir(&self) -> Option<&Path> {
        self.store.dir.as_deref()
    }

    /// The plain bytes of `source`, to be read at random; `file` is what it is open as, `None` for standard
    /// input.
    ///
    /// # Errors
    /// When the source cannot be read or is damaged, the limit is reached, or the disk is full.
    pub fn unpack(
        &mut self,
        source: &Source,
        file: Option<File>,
        watch: &dyn Watch,
    ) -> Result<Section, Error> {
        let mut plain = Plain::open(source, file)?;
        let mut section = self.store.section()?;
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            watch.check_stop()?;
            match plain.read(&mut block)? {
                0 => return Ok(section),
                read => {
                    self.limit.take(source, read)?;
                    self.store.append(&mut section, &block[..read])?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Repack;
    use crate::source::{Compression, SourceKind};
    use crate::watch::Unwatched;

    fn unpack(bytes: &[u8]) -> Result<Section, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl.zst");
        std::fs::write(&path, bytes).unwrap();
        let source = Source { path, kind: SourceKind::Lines(Compression::Zstd) };
        let file = File::open(&source.path).unwrap();
        Spool::new(None, 1 << 30).unpack(&source, Some(file), &Unwatched)
    }

    #[test]
    fn zstd_that_needs_more_than_its_bytes_is_told_from_damage() {
        // One frame in one segment, made with the dictionary 7, of one raw block of five bytes.
        let packed = [b"\x28\xb5\x2f\xfd\x21\x07\x05\x29\0\0", &b"hello"[..]].concat();
        assert!(matches!(unpack(&packed), Err(Error::Repack { repack: Repack::Dictionary, .. })));

        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(&[b'x'; 100_000]).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(matches!(unpack(&packed), Err(Error::Repack { repack: Repack::Window, .. })));
        assert!(matches!(unpack(&packed[..9]), Err(Error::Repack { repack: Repack::Window, .. })));
        assert!(matches!(unpack(b"no zstd at all"), Err(Error::Damaged { .. })));
    }

    #[test]
    fn containers_lie_one_behind_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(Some(dir.path()), 10);
        let sections = ["one", "", "three"].map(|text| {
            let path = dir.path().join(format!("{text}.jsonl.zst"));
            std::fs::write(&path, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
            let source = Source { path, kind: SourceKind::Lines(Compression::Zstd) };
            let file = File::open(&source.path).unwrap();
            spool.unpack(&source, Some(file), &Unwatched).unwrap()
        });
        let read = |section: &Section| std::io::read_to_string(section.reader()).unwrap();
        assert_eq!(sections.each_ref().map(read), ["one", "", "three"]);
        assert!(Arc::ptr_eq(&sections[0].file, &sections[2].file));
        // Eight of ten bytes are used.
        let path = dir.path().join("four.jsonl");
        std::fs::write(&path, "four").unwrap();
        let source = Source { path, kind: SourceKind::Lines(Compression::None) };
        let file = File::open(&source.path).unwrap();
        let unpacked = spool.unpack(&source, Some(file), &Unwatched);
        assert!(matches!(unpacked, Err(Error::SpoolLimit { limit: 10, .. })));
    }
}
