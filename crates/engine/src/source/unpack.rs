//! The plain bytes of a container, however it is compressed.
//!
//! A container that is cut or damaged fails the run and names the byte. Nothing is interpreted or kept.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Repack};
use crate::source::gunzip::Gunzip;
use crate::source::{Compression, Source, SourceKind, plain_name};

/// What is unpacked, and handed on, in one go.
pub const BLOCK_BYTES: usize = 256 << 10;

/// What is read of a container in one go. Larger vectors begin where the kernel copies to slowly, see `read_buffer`.
const PACKED_BYTES: usize = 64 << 10;

/// Counts what a decompressor has taken, for the place of an error.
struct Counted {
    inner: BufReader<File>,
    bytes: Arc<AtomicU64>,
}

impl Counted {
    fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count(read);
        Ok(read)
    }
}

impl BufRead for Counted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.inner.consume(bytes);
        self.count(bytes);
    }
}

/// What `packed` unpacks to.
///
/// # Errors
/// When a decompressor cannot be made.
pub fn decoder(
    packed: impl BufRead + Send + 'static,
    compression: Compression,
) -> io::Result<Box<dyn Read + Send>> {
    Ok(match compression {
        Compression::None => Box::new(packed),
        Compression::Gzip => Box::new(Gunzip::new(packed)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
    })
}

/// The plain bytes of the file at `path`, compressed as its name says.
///
/// # Errors
/// When it cannot be opened.
pub fn open_plain(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    decoder(BufReader::with_capacity(PACKED_BYTES, File::open(path)?), plain_name(name).1)
}

/// A container while it is unpacked.
pub struct Plain<'s> {
    source: &'s Source,
    reader: Box<dyn Read + Send>,
    /// Bytes of the container that were taken.
    taken: Arc<AtomicU64>,
}

impl<'s> Plain<'s> {
    /// The plain bytes of `source`; `file` is what it is open as, `None` for standard input.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(source: &'s Source, file: Option<File>) -> Result<Plain<'s>, Error> {
        let taken = Arc::new(AtomicU64::new(0));
        let Some(file) = file else {
            return Ok(Plain { source, reader: Box::new(io::stdin()), taken });
        };
        let compression = match source.kind {
            SourceKind::Lines(compression) | SourceKind::Tar(compression) => compression,
            SourceKind::Directory(_) | SourceKind::Record => Compression::None,
        };
        let packed =
            Counted { inner: BufReader::with_capacity(PACKED_BYTES, file), bytes: Arc::clone(&taken) };
        let reader = decoder(packed, compression).map_err(|error| reading_error(source, 0, error))?;
        Ok(Plain { source, reader, taken })
    }

    /// What is unpacked.
    pub fn source(&self) -> &'s Source {
        self.source
    }

    /// Reads some bytes to the start of `buffer`; none are left where it gives 0.
    ///
    /// # Errors
    /// When the container cannot be read or is damaged.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.reader.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    let at = || self.taken.load(Ordering::Relaxed);
                    return read.map_err(|error| reading_error(self.source, at(), error));
                }
            }
        }
    }
}

/// Why `source` cannot be read or unpacked from `byte` on.
fn reading_error(source: &Source, byte: u64, error: io::Error) -> Error {
    let path = source.path.clone();
    // The system's own errors have a number; the decompressors' have none.
    if error.raw_os_error().is_some() {
        return Error::Read { path, source: error };
    }
    let reason = error.to_string();
    match repack_of(&reason) {
        Some(repack) => Error::Repack { path, repack },
        None => Error::Damaged { path, byte, reason },
    }
}

/// By the words of the zstd library, which has no other way to say it.
fn repack_of(reason: &str) -> Option<Repack> {
    match reason {
        _ if reason.contains("Dictionary mismatch") => Some(Repack::Dictionary),
        _ if reason.contains("too much memory") => Some(Repack::Window),
        _ => None,
    }
}
