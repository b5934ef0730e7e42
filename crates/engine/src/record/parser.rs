//! One thread's parser: bytes become a [`Record`], the quick reader first, the general one where that declines.
//!
//! All its buffers are reused. What goes wrong with a record leaves here as a `RejectReason`; finding its place
//! is cold work (`diagnose`). It knows no files.

use simd_json::{Buffers, Node, Tape};

use crate::record::buffers::RecordBuffers;
use crate::record::diagnose::diagnose;
use crate::record::reject::RejectReason;
use crate::record::scan::{self, Scratch};
use crate::record::unused::{self, Reader};
use crate::record::{self, Context, Record};

/// Bytes that the parser may read, but not interpret, behind a record.
pub const PADDING: usize = simd_json::INPUT_PADDING;

const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// Buffers that a record beyond this has grown are given back before the next such record.
const KEPT_BYTES: usize = 4 << 20;

/// Which readers a record is shown to. The result does not depend on it: only tests and benchmarks choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Readers {
    /// The quick one, and the general one where that declines.
    #[default]
    Both,
    /// The general one.
    General,
}

/// A parser with its buffers, to be reused for every record of a thread.
pub struct Parser {
    readers: Readers,
    buffers: Buffers,
    tape: Tape<'static>,
    story_text: String,
    strings: Vec<u8>,
    manual: Vec<u8>,
    record_buffers: RecordBuffers<'static>,
}

impl Default for Parser {
    fn default() -> Self {
        Parser::new(Readers::default())
    }
}

impl Parser {
    /// A parser that shows records to `readers`.
    pub fn new(readers: Readers) -> Self {
        Parser {
            readers,
            buffers: Buffers::default(),
            tape: Tape::null().reset(),
            story_text: String::new(),
            strings: Vec::new(),
            manual: Vec::new(),
            record_buffers: RecordBuffers::default(),
        }
    }

    /// The record in `document`, where the quick reader takes it.
    fn scan<'a>(
        &'a mut self,
        document: &'a [u8],
        group_field: Option<&str>,
        record_buffers: &mut RecordBuffers<'a>,
    ) -> Option<Record<'a>> {
        if self.readers == Readers::General {
            return None;
        }
        let text = simdutf8::basic::from_utf8(document).ok()?;
        if self.strings.len() < text.len() {
            self.strings.resize(text.len(), 0);
        }
        let scratch =
            Scratch { strings: &mut self.strings, story: &mut self.story_text, manual: &mut self.manual };
        scan::read(text, group_field, scratch, record_buffers)
    }

    /// Parses the record in the first `length` bytes of `buffer`, which has [`PADDING`] more, and
    /// hands it to `look`. The bytes are changed: strings are unescaped in place.
    ///
    /// # Errors
    /// Why the record is refused. A syntax error has no useful place yet: see [`diagnose`].
    pub fn with_record<T>(
        &mut self,
        buffer: &mut [u8],
        length: usize,
        group_field: Option<&str>,
        look: impl FnOnce(&Record<'_>) -> T,
    ) -> Result<T, ParseFailure> {
        self.give_back(length);
        let bom = bom(&buffer[..length]);
        let mut record_buffers = std::mem::take(&mut self.record_buffers).emptied();
        if let Some(record) = self.scan(&buffer[bom..length], group_field, &mut record_buffers) {
            let looked = look(&record);
            record_buffers.take_back(record.context);
            self.record_buffers = record_buffers.emptied();
            return Ok(looked);
        }
        self.record_buffers = record_buffers.emptied();
        // The general path, with every rule of a record and its reason.
        self.with_tape(&mut buffer[bom..], length - bom, |nodes, story_text| {
            record::parse(nodes, group_field, story_text).map(|record| look(&record))
        })
    }

    /// The second look at a record whose first one ended with [`ParseFailure::Json`]; `buffer` holds its
    /// bytes as they were read. Values that nobody uses are overwritten where no parser takes them.
    ///
    /// # Errors
    /// Why the record is refused, with its place.
    pub fn with_record_again<T>(
        &mut self,
        buffer: &mut [u8],
        length: usize,
        group_field: Option<&str>,
        look: impl FnOnce(&Record<'_>) -> T,
    ) -> Result<T, RejectReason> {
        let document = fit_to_parse(buffer, length, Reader::Record(group_field))?;
        self.with_record(buffer, length, group_field, look).map_err(|failure| failure.explain(&document))
    }

    /// Parses only the context of the record, or the bare context, in the first `length` bytes of `buffer`,
    /// which has [`PADDING`] more, and hands it to `look`. The bytes are changed.
    ///
    /// # Errors
    /// Why the context is refused. A syntax error has no useful place yet: see [`diagnose`].
    pub fn with_context<T>(
        &mut self,
        buffer: &mut [u8],
        length: usize,
        look: impl FnOnce(&Context<'_>) -> T,
    ) -> Result<T, ParseFailure> {
        self.give_back(length);
        let bom = bom(&buffer[..length]);
        self.with_tape(&mut buffer[bom..], length - bom, |nodes, _| {
            record::parse_context(nodes).map(|context| look(&context))
        })
    }

    /// The second look at a context, as [`Parser::with_record_again`] is at a record.
    ///
    /// # Errors
    /// Why the context is refused, with its place.
    pub fn with_context_again<T>(
        &mut self,
        buffer: &mut [u8],
        length: usize,
        look: impl FnOnce(&Context<'_>) -> T,
    ) -> Result<T, RejectReason> {
        let document = fit_to_parse(buffer, length, Reader::Context)?;
        self.with_context(buffer, length, look).map_err(|failure| failure.explain(&document))
    }

    /// One huge record must not leave its buffers behind.
    fn give_back(&mut self, length: usize) {
        if length > KEPT_BYTES {
            *self = Parser::new(self.readers);
        }
    }

    /// Hands simd-json's tape to `read`, with room for a story.
    fn with_tape<T>(
        &mut self,
        document: &mut [u8],
        length: usize,
        read: impl FnOnce(&[Node<'_>], &mut String) -> Result<T, RejectReason>,
    ) -> Result<T, ParseFailure> {
        let mut tape = std::mem::replace(&mut self.tape, Tape::null()).reset();
        let parsed = simd_json::fill_tape_padded(document, length, &mut self.buffers, &mut tape);
        let result = match parsed {
            Ok(()) => read(&tape.0, &mut self.story_text).map_err(ParseFailure::Record),
            Err(error) => Err(ParseFailure::Json(error)),
        };
        self.tape = tape.reset();
        result
    }
}

/// How many bytes at the start of `document` are a byte order mark.
fn bom(document: &[u8]) -> usize {
    if document.starts_with(UTF8_BOM) { UTF8_BOM.len() } else { 0 }
}

/// Overwrites what nobody uses and no parser takes in the first `length` bytes of `buffer`; gives a copy of
/// the bytes as they are then, since parsing changes them.
fn fit_to_parse(buffer: &mut [u8], length: usize, reader: Reader<'_>) -> Result<Vec<u8>, RejectReason> {
    let bom = bom(&buffer[..length]);
    let document = &mut buffer[bom..length];
    if let Ok(text) = std::str::from_utf8(document) {
        let fit = unused::overwritten(text, reader)?;
        document.copy_from_slice(&fit);
    }
    Ok(buffer[..length].to_vec())
}

/// Why a record could not be read.
pub enum ParseFailure {
    /// The JSON is well-formed; the record is not usable.
    Record(RejectReason),
    /// simd-json refused the text.
    Json(simd_json::Error),
}

impl ParseFailure {
    /// The reason with its place; `document` is what was parsed, as it was before.
    pub fn explain(self, document: &[u8]) -> RejectReason {
        match self {
            ParseFailure::Record(reason) => reason,
            ParseFailure::Json(error) => diagnose(document, &error),
        }
    }
}

/// Parses one record that stands alone, for tests, benchmarks and single records.
///
/// # Errors
/// Why the record is refused, with its place.
pub fn with_single_record<T>(bytes: &[u8], look: impl FnOnce(&Record<'_>) -> T) -> Result<T, RejectReason> {
    Parser::default().with_record_again(&mut padded(bytes), bytes.len(), None, look)
}

/// Parses one context that stands alone: an answer of a model, or a record's.
///
/// # Errors
/// Why the context is refused, with its place.
#[cfg(test)]
pub(crate) fn with_single_context<T>(
    bytes: &[u8],
    look: impl FnOnce(&Context<'_>) -> T,
) -> Result<T, RejectReason> {
    Parser::default().with_context_again(&mut padded(bytes), bytes.len(), look)
}

/// `bytes` with the room behind them that the parser reads.
pub fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut buffer = bytes.to_vec();
    buffer.resize(bytes.len() + PADDING, 0);
    buffer
}
