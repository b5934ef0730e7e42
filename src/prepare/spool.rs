//! Unpacks what cannot be read at random: compressed containers and standard input.
//!
//! The plain bytes go once into an unlinked file beside the output, one container behind the other, which
//! vanishes with the process. A container that is cut or damaged fails the run and names the byte; one
//! that grows without end stops at a limit. It interprets nothing.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::prepare::gunzip::Gunzip;
use crate::prepare::section::Section;
use crate::prepare::source::{Compression, Source, SourceKind};
use crate::prepare::{Error, Watch};

const BLOCK_BYTES: usize = 256 << 10;

/// Counts what a decompressor has taken, for the place of an error.
struct Counted {
    inner: BufReader<File>,
    bytes: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

impl BufRead for Counted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.inner.consume(bytes);
        self.bytes += bytes as u64;
    }
}

/// Where spools go, and how much may go there.
#[derive(Debug)]
pub struct Spool {
    dir: Option<PathBuf>,
    limit: u64,
    used: u64,
    /// One for all containers: there may be more of them than files can be open.
    file: Option<Arc<File>>,
}

impl Spool {
    /// Spools below `dir`, or in the system's place for temporary files, of `limit` bytes in all.
    pub fn new(dir: Option<&Path>, limit: u64) -> Self {
        Spool { dir: dir.map(Path::to_owned), limit, used: 0, file: None }
    }

    /// The directory of temporary files; `None` for the system's place.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
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
        let compression = match source.kind {
            SourceKind::Lines(compression) | SourceKind::Tar(compression) => compression,
            SourceKind::Directory(_) | SourceKind::Record => Compression::None,
        };
        let Some(file) = file else {
            let copied = self.copy(source, &mut io::stdin().lock(), watch);
            return copied.map_err(|failure| failure.at(source, 0));
        };
        let mut packed = Counted { inner: BufReader::with_capacity(BLOCK_BYTES, file), bytes: 0 };
        let result = match compression {
            Compression::None => self.copy(source, &mut packed, watch),
            Compression::Gzip => {
                let mut plain = Gunzip::new(&mut packed);
                self.copy(source, &mut plain, watch)
            }
            Compression::Zstd => match zstd::stream::read::Decoder::with_buffer(&mut packed) {
                Ok(mut plain) => self.copy(source, &mut plain, watch),
                Err(error) => Err(Failure::Reading(error)),
            },
        };
        result.map_err(|failure| failure.at(source, packed.bytes))
    }

    fn copy(&mut self, source: &Source, plain: &mut dyn Read, watch: &dyn Watch) -> Result<Section, Failure> {
        let write_error = |error| {
            let path = self.dir.clone().unwrap_or_else(|| "a temporary file".into());
            Failure::Run(Error::Write { path, source: error })
        };
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let unlinked = match &self.dir {
                    Some(dir) => tempfile::tempfile_in(dir),
                    None => tempfile::tempfile(),
                };
                Arc::clone(self.file.insert(Arc::new(unlinked.map_err(write_error)?)))
            }
        };
        let start = self.used;
        let mut out = &*file;
        out.seek(SeekFrom::Start(start)).map_err(write_error)?;
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            watch.check_stop().map_err(Failure::Run)?;
            let read = match plain.read(&mut block) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Reading(error)),
            };
            self.used += read as u64;
            if self.used > self.limit {
                let error = Error::SpoolLimit { path: source.path.clone(), limit: self.limit };
                return Err(Failure::Run(error));
            }
            out.write_all(&block[..read]).map_err(write_error)?;
        }
        Ok(Section { file, start, length: self.used - start })
    }
}

/// What went wrong, before its place is known.
enum Failure {
    /// The source cannot be read or unpacked.
    Reading(io::Error),
    /// Anything else.
    Run(Error),
}

impl Failure {
    fn at(self, source: &Source, byte: u64) -> Error {
        match self {
            Failure::Run(error) => error,
            // The system's own errors have a number; the decompressors' have none.
            Failure::Reading(error) if error.raw_os_error().is_some() => {
                Error::Read { path: source.path.clone(), source: error }
            }
            Failure::Reading(error) => {
                let (path, reason) = (source.path.clone(), error.to_string());
                match Repack::of(&reason) {
                    Some(repack) => Error::Repack { path, repack },
                    None => Error::Damaged { path, byte, reason },
                }
            }
        }
    }
}

/// A container that is whole, and packed in a way that is not unpacked here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repack {
    /// Zstandard with a dictionary.
    Dictionary,
    /// Zstandard whose window is larger than the format's reference decoder takes by itself.
    Window,
}

impl Repack {
    /// By the words of the zstd library, which has no other way to say it.
    fn of(reason: &str) -> Option<Repack> {
        match reason {
            _ if reason.contains("Dictionary mismatch") => Some(Repack::Dictionary),
            _ if reason.contains("too much memory") => Some(Repack::Window),
            _ => None,
        }
    }

    /// What is unusual about it.
    pub fn what(self) -> &'static str {
        match self {
            Repack::Dictionary => "was compressed with a zstd dictionary",
            Repack::Window => {
                "was compressed with `zstd --long`, for which more than 128 MiB of memory are needed"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Unwatched;

    impl Watch for Unwatched {
        fn listed(&self, _: u64) {}
        fn converted(&self, _: u64, _: u64, _: u64) {}
        fn publishing(&self, _: &str) {}
        fn is_stopped(&self) -> bool {
            false
        }
    }

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
