//! Converts the lines of a container in the order in which they arrive.
//!
//! Whoever is free unpacks the next block and then converts its lines, while another one unpacks: so
//! unpacking, converting and spooling overlap on all threads. What becomes of each line is kept behind what
//! became of those before it, and gathered by rank later: by then nothing is unpacked or parsed again. It
//! knows neither ranks nor sides.

use memchr::{memchr, memchr_iter, memrchr};
use rayon::ThreadPool;

use crate::error::Error;
use crate::line::convert::LineWriter;
use crate::parallel::{Next, run_in_order};
use crate::prepare::batch::{Fingerprints, RecordBatch};
use crate::prepare::options::Options;
use crate::prepare::outcome::Outcome;
use crate::prepare::worker::Converter;
use crate::read_buffer::ReadBuffer;
use crate::record::layout::Unit;
use crate::record::parser::PADDING;
use crate::record::reject::RejectReason;
use crate::source::index::Extent;
use crate::source::list::FoundLine;
use crate::source::read::{Bytes, Effort, too_large};
use crate::source::section::Section;
use crate::source::spool::{Store, UnpackLimit};
use crate::source::unpack::{BLOCK_BYTES, Plain};
use crate::watch::Watch;

/// Where one huge line has left more room than this, it is given back.
const KEPT_BYTES: usize = 4 << 20;

/// How lines are converted.
pub struct Arrival<'r> {
    options: &'r Options,
    pool: &'r ThreadPool,
    watch: &'r dyn Watch,
    lines: LineWriter<'r>,
}

impl<'r> Arrival<'r> {
    /// Converts as `options` say, on the threads of `pool`.
    pub fn new(options: &'r Options, pool: &'r ThreadPool, watch: &'r dyn Watch) -> Self {
        Arrival { options, pool, watch, lines: LineWriter::new(&options.template) }
    }

    /// Converts every non-blank line of `plain` and keeps what became of it in `store`. `found` gets the number of
    /// each, from 0, and where its [`Outcome`] lies in the section that is returned, in the order of the lines.
    ///
    /// # Errors
    /// When the container cannot be read or is damaged, it unpacks to more than `limit`, the disk
    /// is full, somebody asks to stop; and those of `found`.
    pub fn convert(
        &self,
        plain: Plain<'_>,
        limit: Option<&mut UnpackLimit>,
        store: &mut Store,
        found: FoundLine<'_>,
    ) -> Result<Section, Error> {
        let mut section = store.section()?;
        let mut feed = Feed::new(plain, limit, self.options.max_record_bytes);
        let mut number = 0;
        run_in_order(
            self.pool,
            || LineConverter {
                converter: Converter::new(self.options, &self.lines, Fingerprints::None),
                block: Block::default(),
                buffer: Vec::new(),
                max_record_bytes: self.options.max_record_bytes,
            },
            RecordBatch::default,
            |lines, _| feed.next(&mut lines.block),
            |lines, _, batch, part| lines.convert_block(batch, self.watch, part),
            |batch| {
                let mut start = section.length;
                store.append(&mut section, &batch.lines)?;
                for &length in &batch.lengths {
                    found(number, Extent::Bytes(start, length))?;
                    number += 1;
                    start += length;
                }
                Ok(())
            },
        )?;
        Ok(section)
    }
}

/// One thread's tools.
struct LineConverter<'r> {
    converter: Converter<'r>,
    block: Block,
    buffer: Vec<u8>,
    max_record_bytes: usize,
}

impl LineConverter<'_> {
    /// Adds what became of each line of the block to `batch`, whose lengths are then those of the entries.
    fn convert_block(
        &mut self,
        batch: &mut RecordBatch,
        watch: &dyn Watch,
        part: &dyn Fn(&mut RecordBatch) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let LineConverter { converter, block, buffer, max_record_bytes } = self;
        let mut convert = |bytes: Option<&[u8]>, start: u64| {
            watch.check_stop()?;
            let (entries, first, read_before) = (batch.lengths.len(), batch.lines.len(), batch.bytes_read);
            let mut line = Line { bytes, buffer, max_record_bytes: *max_record_bytes };
            let verdict = converter.convert(&mut line, batch)?;
            Outcome { verdict, start, bytes: batch.bytes_read - read_before }.write(&mut batch.lines);
            batch.lengths.truncate(entries);
            batch.lengths.push((batch.lines.len() - first) as u64);
            part(batch)
        };
        for line in lines(block.unpacked.bytes()) {
            let bytes = &block.unpacked.bytes()[line.clone()];
            if !is_blank(bytes) {
                convert(Some(bytes), block.start + line.start as u64)?;
            }
        }
        match block.too_large.take() {
            Some(start) => convert(None, start),
            None => Ok(()),
        }
    }
}

/// The ranges of the lines of `bytes`, without their newlines.
fn lines(bytes: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let mut start = 0;
    let ends = memchr_iter(b'\n', bytes).chain((!bytes.ends_with(b"\n")).then_some(bytes.len()));
    ends.map(move |end| std::mem::replace(&mut start, end + 1)..end)
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_whitespace)
}

/// A line in a block; `None` for one that was too large to keep.
struct Line<'b> {
    bytes: Option<&'b [u8]>,
    buffer: &'b mut Vec<u8>,
    max_record_bytes: usize,
}

impl Bytes for Line<'_> {
    fn read(&mut self, _: Effort) -> Result<Result<usize, RejectReason>, Error> {
        let Some(bytes) = self.bytes.filter(|bytes| bytes.len() <= self.max_record_bytes) else {
            return Ok(Err(too_large(self.max_record_bytes)));
        };
        if self.buffer.len() > KEPT_BYTES {
            self.buffer.clear();
            self.buffer.shrink_to(bytes.len() + PADDING);
        }
        if self.buffer.len() < bytes.len() + PADDING {
            self.buffer.resize(bytes.len() + PADDING, 0);
        }
        self.buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(Ok(bytes.len()))
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.buffer
    }

    fn unit(&self) -> Unit {
        Unit::Line
    }
}

/// Bytes that are unpacked behind each other into room that is reused.
#[derive(Default)]
struct Unpacked {
    buffer: ReadBuffer,
    length: usize,
}

impl Unpacked {
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// Room behind them for so many more.
    fn room_for(&mut self, bytes: usize) -> &mut [u8] {
        let needed = self.length + bytes;
        if self.buffer.len() < needed {
            self.buffer.grow(needed.next_multiple_of(BLOCK_BYTES));
        }
        &mut self.buffer[self.length..needed]
    }

    /// Keeps nothing but `bytes`.
    fn replace(&mut self, bytes: &[u8]) {
        if self.buffer.len() > KEPT_BYTES {
            self.buffer = ReadBuffer::default();
        }
        self.length = 0;
        self.room_for(bytes.len()).copy_from_slice(bytes);
        self.length = bytes.len();
    }
}

/// Consecutive whole lines.
#[derive(Default)]
struct Block {
    unpacked: Unpacked,
    /// The offset of the first byte.
    start: u64,
    /// The offset of a line behind them of more bytes than a record may have.
    too_large: Option<u64>,
}

/// Gives out the blocks of a container in their order.
struct Feed<'p> {
    plain: Plain<'p>,
    limit: Option<&'p mut UnpackLimit>,
    max_record_bytes: usize,
    /// What follows the last whole line so far, and its offset.
    rest: Vec<u8>,
    start: u64,
    is_over: bool,
}

impl<'p> Feed<'p> {
    fn new(plain: Plain<'p>, limit: Option<&'p mut UnpackLimit>, max_record_bytes: usize) -> Self {
        Feed { plain, limit, max_record_bytes, rest: Vec::new(), start: 0, is_over: false }
    }

    /// Unpacks the next block, if there is one.
    fn next(&mut self, block: &mut Block) -> Result<Next, Error> {
        if self.is_over {
            return Ok(Next::End);
        }
        let Block { unpacked, start, too_large } = block;
        unpacked.replace(&self.rest);
        self.rest.clear();
        *start = self.start;
        let mut end = after_last_line(unpacked.bytes());
        while !self.is_over && (end == 0 || unpacked.length < BLOCK_BYTES) {
            if end == 0 && unpacked.length > self.max_record_bytes {
                *too_large = self.pass_line(unpacked)?;
                return Ok(Next::Chunk);
            }
            let from = unpacked.length;
            self.read(unpacked)?;
            end = match after_last_line(&unpacked.bytes()[from..]) {
                0 => end,
                more => from + more,
            };
        }
        if !self.is_over {
            self.keep(&unpacked.bytes()[end..]);
            unpacked.length = end;
        }
        self.start = *start + unpacked.length as u64;
        Ok(Next::Chunk)
    }

    /// Reads on to the end of a line that is too large to be kept, of which `unpacked` holds the beginning, and
    /// leaves nothing of it. Its offset, unless it is blank.
    fn pass_line(&mut self, unpacked: &mut Unpacked) -> Result<Option<u64>, Error> {
        let start = self.start;
        let mut length = 0;
        let mut is_all_blank = true;
        loop {
            let bytes = unpacked.bytes();
            let end = memchr(b'\n', bytes);
            let line = &bytes[..end.unwrap_or(bytes.len())];
            is_all_blank = is_all_blank && is_blank(line);
            length += line.len() as u64;
            if let Some(end) = end {
                self.keep(&bytes[end + 1..]);
            }
            unpacked.replace(&[]);
            if end.is_some() || self.is_over {
                self.start = start + length + 1;
                return Ok((!is_all_blank).then_some(start));
            }
            self.read(unpacked)?;
        }
    }

    fn keep(&mut self, rest: &[u8]) {
        self.rest.clear();
        self.rest.shrink_to(KEPT_BYTES);
        self.rest.extend_from_slice(rest);
    }

    /// Adds what is unpacked next to `unpacked`.
    fn read(&mut self, unpacked: &mut Unpacked) -> Result<(), Error> {
        let read = self.plain.read(unpacked.room_for(BLOCK_BYTES))?;
        unpacked.length += read;
        self.is_over = read == 0;
        match &mut self.limit {
            Some(limit) => limit.take(self.plain.source(), read),
            None => Ok(()),
        }
    }
}

/// The offset behind the last line end in `bytes`; 0 where there is none.
fn after_last_line(bytes: &[u8]) -> usize {
    memrchr(b'\n', bytes).map_or(0, |newline| newline + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Compression, Source, SourceKind};

    /// The lines that a feed gives out for `text`, each with its offset; `None` for one that is too large.
    fn fed(text: &[u8], max_record_bytes: usize) -> Vec<(u64, Option<Vec<u8>>)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let source = Source { path: file.path().to_owned(), kind: SourceKind::Lines(Compression::None) };
        let plain = Plain::open(&source, Some(file.reopen().unwrap())).unwrap();
        let mut feed = Feed::new(plain, None, max_record_bytes);
        let mut block = Block::default();
        let mut found = Vec::new();
        while feed.next(&mut block).unwrap() == Next::Chunk {
            for range in lines(block.unpacked.bytes()) {
                let line = &block.unpacked.bytes()[range.clone()];
                if !is_blank(line) {
                    found.push((block.start + range.start as u64, Some(line.to_vec())));
                }
            }
            found.extend(block.too_large.take().map(|start| (start, None)));
        }
        found
    }

    #[test]
    fn a_feed_gives_out_every_line_once() {
        let check = |text: &[u8], max_record_bytes: usize| {
            let mut start = 0;
            let mut expected = Vec::new();
            for line in text.split(|&byte| byte == b'\n') {
                if !is_blank(line) {
                    expected.push((start, line.to_vec()));
                }
                start += line.len() as u64 + 1;
            }
            let found = fed(text, max_record_bytes);
            assert_eq!(found.len(), expected.len());
            for ((found_at, found), (at, line)) in found.into_iter().zip(expected) {
                assert_eq!(found_at, at);
                match found {
                    Some(found) => assert!(found == line, "the line at {at}"),
                    None => assert!(line.len() > max_record_bytes, "the line at {at} is not too large"),
                }
            }
        };
        let lines_of = |lengths: &[usize], byte: u8| -> Vec<u8> {
            let line = |&length: &usize| [vec![byte; length], b"\n".to_vec()].concat();
            lengths.iter().flat_map(line).collect()
        };
        let block = BLOCK_BYTES;
        for lengths in [
            &[][..],
            &[0, 0],
            &[3, 0, 5],
            &[block - 1, block, block + 1],
            &[10, 3 * block, 10, 5 * block, 1],
            &[5 * block],
            &[9; 100_000],
        ] {
            for byte in *b"x " {
                let mut text = lines_of(lengths, byte);
                for max_record_bytes in [20, block + 10, 1 << 30] {
                    check(&text, max_record_bytes);
                }
                text.extend_from_slice(b"the last one");
                check(&text, 2 * block);
            }
        }
    }
}
