//! A range of a file, read at random: a container as its owner has it, or our spool of it.
//!
//! Reads name their offset and leave the file's own position alone, so that threads share one file. It
//! interprets nothing.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

/// So many bytes of a file, from `start` on.
#[derive(Debug, Clone)]
pub struct Section {
    /// The file.
    pub file: Arc<File>,
    /// The offset of the first byte.
    pub start: u64,
    /// How many bytes.
    pub length: u64,
}

impl Section {
    /// Reads at `offset`, counted from the section's start, and never behind its end.
    ///
    /// # Errors
    /// The system's, unchanged.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.length.saturating_sub(offset);
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        read_at(&self.file, &mut buffer[..room], self.start + offset)
    }

    /// A reader of its own that begins at the section's start.
    pub fn reader(&self) -> SectionReader {
        SectionReader { section: self.clone(), position: 0 }
    }
}

/// Reads a section in order.
#[derive(Debug)]
pub struct SectionReader {
    section: Section,
    position: u64,
}

impl Read for SectionReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.section.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for SectionReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.section.length.checked_add_signed(offset),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// Fills `buffer` from `offset` on.
///
/// # Errors
/// The system's, unchanged; `UnexpectedEof` where the file has become shorter.
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match read_at(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads some bytes at `offset`.
///
/// # Errors
/// The system's, unchanged.
#[cfg(unix)]
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_section_is_a_file_of_its_own() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before|inside|after").unwrap();
        let section = Section { file: Arc::new(file), start: 7, length: 6 };
        let mut text = String::new();
        section.reader().read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside");
        let mut reader = section.reader();
        assert_eq!(reader.seek(SeekFrom::End(-2)).unwrap(), 4);
        let mut rest = [0; 9];
        assert_eq!((reader.read(&mut rest).unwrap(), &rest[..2]), (2, &b"de"[..]));
        assert_eq!(reader.read(&mut rest).unwrap(), 0);
        assert!(reader.seek(SeekFrom::Current(-7)).is_err());
        assert_eq!(section.read_at(&mut rest, 100).unwrap(), 0);
    }
}
