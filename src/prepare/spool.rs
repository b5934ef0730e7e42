//! Unpacks what cannot be read at random: compressed containers and standard input.
//!
//! The plain bytes go once into an unlinked file beside the output, which vanishes with
//! the process. A container that is cut or damaged fails the run and names the byte; one
//! that grows without end stops at a limit. It interprets nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::prepare::source::{Compression, Source, SourceKind};
use crate::prepare::{Error, Watch};

const BLOCK_BYTES: usize = 256 << 10;

/// Counts what a decompressor has taken, for the place of an error.
struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

/// Where spools go, and how much may go there.
#[derive(Debug)]
pub struct Spool {
    dir: Option<PathBuf>,
    limit: u64,
    used: u64,
}

impl Spool {
    /// Spools below `dir`, or in the system's place for temporary files, of `limit` bytes in all.
    pub fn new(dir: Option<&Path>, limit: u64) -> Self {
        Spool { dir: dir.map(Path::to_owned), limit, used: 0 }
    }

    /// The directory of temporary files; `None` for the system's place.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// The plain bytes of `source` as a file that can be read at random.
    ///
    /// # Errors
    /// When the source cannot be read or is damaged, the limit is reached, or the disk is full.
    pub fn unpack(&mut self, source: &Source, watch: &dyn Watch) -> Result<File, Error> {
        let compression = match source.kind {
            SourceKind::Lines(compression) | SourceKind::Tar(compression) => compression,
            SourceKind::Directory | SourceKind::Record => Compression::None,
        };
        if source.is_stdin() {
            return self
                .copy(source, &mut io::stdin().lock(), watch)
                .map_err(|failure| failure.at(source, 0));
        }
        let read_error = |error| Error::Read { path: source.path.clone(), source: error };
        let file = File::open(&source.path).map_err(read_error)?;
        let mut packed = Counted { inner: file, bytes: 0 };
        let result = match compression {
            Compression::None => self.copy(source, &mut packed, watch),
            Compression::Gzip => {
                let mut plain = flate2::read::MultiGzDecoder::new(&mut packed);
                self.copy(source, &mut plain, watch)
            }
            Compression::Zstd => match zstd::stream::read::Decoder::new(&mut packed) {
                Ok(mut plain) => self.copy(source, &mut plain, watch),
                Err(error) => Err(Failure::Reading(error)),
            },
        };
        result.map_err(|failure| failure.at(source, packed.bytes))
    }

    fn copy(&mut self, source: &Source, plain: &mut dyn Read, watch: &dyn Watch) -> Result<File, Failure> {
        let write_error = |error| {
            let path = self.dir.clone().unwrap_or_else(|| "a temporary file".into());
            Failure::Run(Error::Write { path, source: error })
        };
        let unlinked = match &self.dir {
            Some(dir) => tempfile::tempfile_in(dir),
            None => tempfile::tempfile(),
        };
        let mut file = unlinked.map_err(write_error)?;
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            watch.check_stop().map_err(Failure::Run)?;
            let read = match plain.read(&mut block) {
                Ok(0) => return Ok(file),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Reading(error)),
            };
            self.used += read as u64;
            if self.used > self.limit {
                let error = Error::SpoolLimit { path: source.path.clone(), limit: self.limit };
                return Err(Failure::Run(error));
            }
            file.write_all(&block[..read]).map_err(write_error)?;
        }
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
                Error::Damaged { path: source.path.clone(), byte, reason: error.to_string() }
            }
        }
    }
}
