//! Reads one record's bytes: one open, one read, one close, or one read inside a container,
//! into a buffer that is reused.
//!
//! No `stat`, no memory map and no vector a file: measured, each costs more than the
//! parsing it would spare. A record over the size limit is read to the limit plus one
//! byte and no further.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::error::Error;
use crate::read_buffer::ReadBuffer;
use crate::record::layout::{self, Unit};
use crate::record::parser::PADDING;
use crate::record::reject::{Code, RejectReason};
use crate::source::section::read_exact_at;

/// What most records fit into.
const INITIAL_BYTES: usize = 64 << 10;

/// A buffer grown by one huge record is given back beyond this size.
const KEPT_BYTES: usize = 4 << 20;

/// How much of a file to read before it is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// What one `read` gives. A regular file comes whole; where it does not (some network
    /// file systems), the cut record cannot be valid JSON and is read again.
    OneRead,
    /// Until the end of the file is seen.
    ToTheEnd,
}

/// The outcome of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// The record's bytes are the first so many of the buffer.
    Bytes(usize),
    /// The record is larger than the limit.
    TooLarge,
}

/// The bytes of one record, as often as they are needed: parsing changes them.
pub trait Bytes {
    /// Gets the record to the start of the buffer: its length, or why it is not to be read.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&mut self, effort: Effort) -> Result<Result<usize, RejectReason>, Error>;

    /// The buffer: what was read last, then at least [`PADDING`] bytes.
    fn buffer(&mut self) -> &mut [u8];

    /// How the record lies in its source.
    fn unit(&self) -> Unit;
}

/// `reason`, why `record` is refused, in better words where its layout is a known one.
///
/// # Errors
/// When the record cannot be read again.
pub fn named(record: &mut impl Bytes, reason: RejectReason) -> Result<RejectReason, Error> {
    if !layout::has_words_for(reason.code) {
        return Ok(reason);
    }
    Ok(match record.read(Effort::ToTheEnd)? {
        Ok(length) => {
            let unit = record.unit();
            layout::name(&record.buffer()[..length], unit, reason)
        }
        Err(_) => reason,
    })
}

/// Why a record of more than `max_record_bytes` is refused.
pub fn too_large(max_record_bytes: usize) -> RejectReason {
    RejectReason::new(Code::TooLarge, format!("larger than {max_record_bytes} bytes"), "")
}

/// A reusable buffer with room for the parser's padding.
#[derive(Debug)]
pub struct Reader {
    buffer: ReadBuffer,
    max_record_bytes: usize,
}

impl Reader {
    /// A reader that takes records of up to `max_record_bytes`, inclusive.
    pub fn new(max_record_bytes: usize) -> Self {
        Reader { buffer: ReadBuffer::new(INITIAL_BYTES + PADDING), max_record_bytes }
    }

    /// The buffer: the record, then at least [`PADDING`] bytes.
    pub fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Gives back what one huge record has taken.
    fn give_back(&mut self) {
        if self.buffer.len() > KEPT_BYTES {
            self.buffer = ReadBuffer::new(INITIAL_BYTES + PADDING);
        }
    }

    /// Reads `length` bytes of `file` from `start` on to the start of the buffer.
    ///
    /// # Errors
    /// The system's, unchanged; `UnexpectedEof` where the file has become shorter.
    pub fn read_range(&mut self, file: &File, start: u64, length: u64) -> io::Result<Length> {
        let length = match usize::try_from(length) {
            Ok(length) if length <= self.max_record_bytes => length,
            _ => return Ok(Length::TooLarge),
        };
        self.give_back();
        self.buffer.grow(length + PADDING);
        read_exact_at(file, &mut self.buffer[..length], start)?;
        Ok(Length::Bytes(length))
    }

    /// Reads the file at `path` to the start of the buffer.
    ///
    /// # Errors
    /// The system's, unchanged: a record that cannot be read is not a malformed record.
    pub fn read(&mut self, path: &Path, effort: Effort) -> io::Result<Length> {
        self.read_file(File::open(path)?, effort)
    }

    /// Reads `file` to the start of the buffer.
    ///
    /// # Errors
    /// The system's, unchanged.
    pub fn read_file(&mut self, file: File, effort: Effort) -> io::Result<Length> {
        self.give_back();
        self.read_from(0, file, effort)
    }

    /// Copies `beginning`, which has been read of a file, to the start of the buffer, and reads the `rest` if
    /// there is one.
    ///
    /// # Errors
    /// The system's, unchanged.
    pub fn read_on(&mut self, beginning: &[u8], rest: Option<File>) -> io::Result<Length> {
        self.give_back();
        if beginning.len() > self.max_record_bytes {
            return Ok(Length::TooLarge);
        }
        self.buffer[..beginning.len()].copy_from_slice(beginning);
        match rest {
            Some(file) => self.read_from(beginning.len(), file, Effort::OneRead),
            None => Ok(Length::Bytes(beginning.len())),
        }
    }

    /// Reads `file` to the buffer behind the first `length` bytes, which are there.
    fn read_from(&mut self, mut length: usize, mut file: File, effort: Effort) -> io::Result<Length> {
        loop {
            let end = (self.buffer.len() - PADDING).min(self.max_record_bytes + 1);
            let room = end - length;
            let read = match file.read(&mut self.buffer[length..end]) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            length += read;
            if length > self.max_record_bytes {
                return Ok(Length::TooLarge);
            }
            if read == 0 || (read < room && effort == Effort::OneRead) {
                return Ok(Length::Bytes(length));
            }
            if length == end {
                let doubled = (self.buffer.len() * 2).min(self.max_record_bytes + 1 + PADDING);
                self.buffer.grow(doubled.max(end + 1 + PADDING));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: usize, limit: usize, expected: Length) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        let content: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let mut reader = Reader::new(limit);
        for effort in [Effort::OneRead, Effort::ToTheEnd] {
            assert_eq!(reader.read(&path, effort).unwrap(), expected);
            if let Length::Bytes(length) = expected {
                assert_eq!(&reader.buffer()[..length], &content[..]);
                assert!(reader.buffer().len() >= length + PADDING);
            }
        }
    }

    #[test]
    fn a_record_of_any_size_up_to_the_limit_is_read_whole() {
        for bytes in [0, 1, 65_535, 65_536, 65_537, 200_000, 1_000_000] {
            check(bytes, 1_000_000, Length::Bytes(bytes));
        }
    }

    #[test]
    fn one_byte_over_the_limit_is_too_large() {
        check(1_000_001, 1_000_000, Length::TooLarge);
        check(3_000_000, 1_000_000, Length::TooLarge);
        check(11, 10, Length::TooLarge);
        check(10, 10, Length::Bytes(10));
    }
}
