//! Cuts a file into blocks and each block into the lines that begin in it.
//!
//! Blocks are read where they lie, by several threads at once, and never mapped: a file
//! that somebody truncates meanwhile is an error, not a death. A line belongs to the
//! block in which it begins, however long it is. As in Python, `\n`, `\r` and `\r\n` end
//! a line. Nothing here knows what a line holds.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use memchr::memchr2;

use crate::check::{Error, Watch};
use crate::output::compress::Packer;
use crate::output::manifest::FileDigest;
use crate::read_buffer::ReadBuffer;
use crate::source::section::read_exact_at;
use crate::source::unpack::open_plain;

/// Bytes of a block. It stays in a core's cache from the read to the parse.
pub const BLOCK: usize = 1 << 20;

/// Bytes read beyond a block, so that its last line mostly comes with it.
const TAIL: usize = 32 << 10;

/// Bytes that the parser may read, but not interpret, behind a line.
pub const PADDING: usize = simd_json::INPUT_PADDING;

/// The longest line that is looked at, in bytes: ten images of the largest size, seven times over.
pub const MAX_LINE: usize = 1 << 30;

/// A buffer grown by one huge line is given back beyond this size.
const KEPT_BYTES: usize = 8 << 20;

/// A file that is read from several threads.
#[derive(Debug)]
pub struct Source {
    file: File,
    /// Its path.
    pub path: PathBuf,
    /// Bytes of the file when it was opened.
    pub size: u64,
}

impl Source {
    /// Opens the regular file at `path`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(path: &Path) -> Result<Source, Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let size = file.metadata().map_err(read)?.len();
        Ok(Source { file, path: path.to_owned(), size })
    }

    /// What the compressed file at `path` unpacks to, in a temporary file, if that is `expected`; else what it is.
    ///
    /// # Errors
    /// When the system refuses, or somebody asked to stop.
    pub fn unpack(
        path: &Path,
        expected: &FileDigest,
        watch: &dyn Watch,
    ) -> Result<Result<Source, String>, Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let write = |source| Error::Unpack { path: path.to_owned(), source };
        let mut plain = open_plain(path).map_err(read)?;
        let file = tempfile::tempfile().map_err(write)?;
        let mut packer = Packer::new(None, file).map_err(write)?;
        let (mut block, mut size) = (vec![0; BLOCK], 0);
        // What unpacks to more than it should is not unpacked to its end: it may have none.
        while size <= expected.bytes {
            watch.check_stop()?;
            match plain.read(&mut block) {
                Ok(0) => break,
                Ok(bytes) => {
                    size += bytes as u64;
                    packer.write_all(&block[..bytes]).map_err(write)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error().is_some() => return Err(read(error)),
                Err(error) => return Ok(Err(format!("it cannot be unpacked: {error}"))),
            }
        }
        let (file, packed) = packer.finish().map_err(write)?;
        if size != expected.bytes || packed.sha256 != expected.sha256 {
            return Ok(Err("what it unpacks to is not what the manifest says".to_owned()));
        }
        Ok(Ok(Source { file, path: path.to_owned(), size }))
    }

    /// How many blocks it has.
    pub fn blocks(&self) -> usize {
        usize::try_from(self.size.div_ceil(BLOCK as u64)).expect("a file has fewer than 2^52 bytes")
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// When the system refuses, or the file has become shorter.
    pub fn read_exact(&self, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
        let path = || self.path.clone();
        read_exact_at(&self.file, buffer, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::Changed { path: path() },
            _ => Error::Read { path: path(), source },
        })
    }
}

/// A line without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Its bytes are these of the buffer.
    At {
        /// The first.
        start: usize,
        /// The one behind the last.
        end: usize,
    },
    /// It is longer than the window allows.
    TooLong,
}

/// The part of a file in which one thread is at work: a block, and the rest of its last line.
#[derive(Debug)]
pub struct Window {
    /// The longest line that is looked at, in bytes.
    max_line: usize,
    buffer: ReadBuffer,
    /// Where in the file the buffer begins.
    offset: u64,
    /// Bytes of the file in the buffer; [`PADDING`] more follow them.
    length: usize,
    /// Where in the buffer the next line begins.
    next: usize,
    /// Where in the buffer the next block begins.
    block_end: usize,
}

impl Window {
    /// A window that looks at lines of up to `max_line` bytes, inclusive.
    pub fn new(max_line: usize) -> Window {
        Window { max_line, buffer: ReadBuffer::default(), offset: 0, length: 0, next: 0, block_end: 0 }
    }

    /// Reads the block `index` of `source` and stands before its first line.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn fill(&mut self, source: &Source, index: usize) -> Result<(), Error> {
        if self.buffer.len() > KEPT_BYTES {
            self.buffer = ReadBuffer::default();
        }
        let start = index as u64 * BLOCK as u64;
        // The byte before the block tells whether a line begins with the block.
        self.offset = start.saturating_sub(1);
        self.length = 0;
        self.block_end = (start - self.offset) as usize + BLOCK;
        self.extend_to(source, self.block_end + TAIL)?;
        self.block_end = self.block_end.min(self.length);
        self.next = 0;
        if index > 0 {
            self.next = match self.find_end(source, 0, self.block_end)? {
                Some((_, next)) => next,
                None => self.block_end,
            };
        }
        Ok(())
    }

    /// The next line that begins in the block.
    ///
    /// # Errors
    /// When the rest of a line cannot be read.
    pub fn next_line(&mut self, source: &Source) -> Result<Option<Line>, Error> {
        let start = self.next;
        if start >= self.block_end {
            return Ok(None);
        }
        match self.find_end(source, start, usize::MAX)? {
            Some((end, next)) => {
                self.next = next;
                Ok(Some(if end - start > self.max_line { Line::TooLong } else { Line::At { start, end } }))
            }
            // It covers the rest of the block and more.
            None => {
                self.next = self.block_end;
                Ok(Some(Line::TooLong))
            }
        }
    }

    /// The end of the line that holds the byte at `from`, and where the next one begins. It is
    /// searched before `limit` only; of a line longer than the window allows no end is found.
    fn find_end(
        &mut self,
        source: &Source,
        from: usize,
        limit: usize,
    ) -> Result<Option<(usize, usize)>, Error> {
        let mut searched = from;
        loop {
            let until = self.length.min(limit);
            if let Some(found) = memchr2(b'\n', b'\r', &self.buffer[searched..until]) {
                let end = searched + found;
                if self.buffer[end] == b'\r' {
                    self.extend_to(source, end + 2)?;
                }
                let is_pair = self.buffer[end..self.length].starts_with(b"\r\n");
                return Ok(Some((end, end + if is_pair { 2 } else { 1 })));
            }
            if until == limit {
                return Ok(None);
            }
            if self.offset + self.length as u64 >= source.size {
                return Ok(Some((self.length, self.length)));
            }
            if self.length - from > self.max_line {
                return Ok(None);
            }
            searched = until;
            self.extend_to(source, self.length.saturating_mul(2))?;
        }
    }

    /// Makes the buffer hold at least the first `wanted` bytes behind its offset, or all there are.
    fn extend_to(&mut self, source: &Source, wanted: usize) -> Result<(), Error> {
        let there = usize::try_from(source.size - self.offset).unwrap_or(usize::MAX);
        let wanted = wanted.min(there);
        if wanted > self.length {
            self.buffer.grow(wanted + PADDING);
            let read = &mut self.buffer[self.length..wanted];
            source.read_exact(read, self.offset + self.length as u64)?;
            self.length = wanted;
        }
        Ok(())
    }

    /// The bytes from `start` on: a line, what follows it, and at least [`PADDING`] bytes more.
    pub fn bytes_from(&mut self, start: usize) -> &mut [u8] {
        &mut self.buffer[start..]
    }

    /// Where in the file the byte at `start` lies.
    pub fn position(&self, start: usize) -> u64 {
        self.offset + start as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(content: &[u8]) -> Vec<Vec<u8>> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, content).unwrap();
        let source = Source::open(file.path()).unwrap();
        let mut window = Window::new(MAX_LINE);
        let mut lines = Vec::new();
        for block in 0..source.blocks() {
            window.fill(&source, block).unwrap();
            while let Some(line) = window.next_line(&source).unwrap() {
                let Line::At { start, end } = line else { panic!("no line is this long") };
                assert!(window.bytes_from(end).len() >= PADDING);
                lines.push(window.bytes_from(start)[..end - start].to_vec());
            }
        }
        lines
    }

    /// The lines as Python's `open(…, newline="")` gives them, without their ends.
    fn expected(content: &[u8]) -> Vec<Vec<u8>> {
        let text = String::from_utf8(content.to_vec()).unwrap().replace("\r\n", "\n").replace('\r', "\n");
        text.strip_suffix('\n')
            .map(|text| text.split('\n').map(|line| line.as_bytes().to_vec()).collect())
            .unwrap_or_else(|| match text.as_str() {
                "" => Vec::new(),
                text => text.split('\n').map(|line| line.as_bytes().to_vec()).collect(),
            })
    }

    fn check(content: &[u8]) {
        assert_eq!(read(content), expected(content));
    }

    #[test]
    fn every_line_end_counts() {
        for content in ["", "a", "a\n", "\n", "\r", "\r\n", "a\rb\r\nc\nd", "\r\r\n\n\r", "a\r\n\rb\n"] {
            check(content.as_bytes());
        }
    }

    #[test]
    fn a_line_end_on_the_edge_of_a_block_is_seen_once() {
        for end in ["\n", "\r", "\r\n", "\n\r", "\r\r\n"] {
            for before in BLOCK - 4..BLOCK + 2 {
                let content = format!("{}{end}{}{end}z", "x".repeat(before), "y".repeat(BLOCK - 1));
                check(content.as_bytes());
            }
        }
    }

    #[test]
    fn a_line_over_several_blocks_is_read_whole() {
        for length in [BLOCK, BLOCK + TAIL, 3 * BLOCK - 1, 3 * BLOCK, 5 * BLOCK + 17] {
            for end in ["", "\n", "\r", "\r\n", "\nrest"] {
                check(format!("a\n{}{end}", "x".repeat(length)).as_bytes());
            }
        }
    }

    #[test]
    fn a_line_over_the_limit_keeps_its_neighbours() {
        let limit = 2 * BLOCK;
        for (length, is_taken) in [(limit, true), (limit + 1, false), (5 * BLOCK, false)] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), format!("a\n{}\nb\n", "x".repeat(length))).unwrap();
            let source = Source::open(file.path()).unwrap();
            let mut window = Window::new(limit);
            let mut lengths = Vec::new();
            for block in 0..source.blocks() {
                window.fill(&source, block).unwrap();
                while let Some(line) = window.next_line(&source).unwrap() {
                    lengths.push(match line {
                        Line::At { start, end } => Some(end - start),
                        Line::TooLong => None,
                    });
                }
            }
            assert_eq!(lengths, [Some(1), is_taken.then_some(length), Some(1)]);
        }
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a\nb\n").unwrap();
        let source = Source::open(file.path()).unwrap();
        std::fs::write(file.path(), "a").unwrap();
        assert!(matches!(Window::new(MAX_LINE).fill(&source, 0), Err(Error::Changed { .. })));
    }

    proptest! {
        #[test]
        fn lines_are_those_of_python(pieces in proptest::collection::vec("[ab]{0,3}(\n|\r|\r\n)?", 0..40)) {
            check(pieces.concat().as_bytes());
        }
    }
}
