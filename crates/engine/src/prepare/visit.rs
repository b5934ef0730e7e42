//! One thread's visits to the records of a listing: each is converted where it lies, or what became of it
//! when it arrived is gathered.
//!
//! The place where both kinds of sources meet: behind it a record is a verdict and perhaps a line. It writes
//! no file.

use crate::error::Error;
use crate::line::convert::LineWriter;
use crate::prepare::batch::{Fingerprints, RecordBatch, Verdict};
use crate::prepare::options::Options;
use crate::prepare::outcome::Outcome;
use crate::prepare::worker::Converter;
use crate::record::layout::Unit;
use crate::record::reject::RejectReason;
use crate::source::ahead::{Turns, Visit};
use crate::source::list::{Entry, Listing};
use crate::source::read::{Bytes, Effort};
use crate::source::records::RecordBytes;
use crate::source::section::read_exact_at;

/// One thread's tools.
pub struct Visitor<'r> {
    listing: &'r Listing,
    turns: Turns<'r>,
    bytes: RecordBytes<'r>,
    converter: Converter<'r>,
}

impl<'r> Visitor<'r> {
    /// Tools for the records of `listing`, which are read by `turns`.
    pub fn new(
        options: &'r Options,
        listing: &'r Listing,
        lines: &'r LineWriter<'r>,
        turns: Turns<'r>,
    ) -> Self {
        Visitor {
            listing,
            turns,
            bytes: RecordBytes::new(listing, options.max_record_bytes),
            converter: Converter::new(options, lines, Fingerprints::Grouped),
        }
    }

    /// Adds the record of `visit` to `batch`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn visit(&mut self, visit: Visit, batch: &mut RecordBatch) -> Result<(), Error> {
        let verdict = match self.listing.converted(visit.position as usize) {
            Some(entry) => {
                self.turns.pass(visit);
                gather(&entry, batch)?
            }
            None => {
                let Visitor { turns, bytes, .. } = self;
                self.converter.convert(&mut Visited { turns, bytes, visit }, batch)?
            }
        };
        batch.verdicts.push((visit.position, verdict));
        Ok(())
    }
}

/// Adds the line of `entry`, if it has one, to `batch`.
fn gather(entry: &Entry<'_>, batch: &mut RecordBatch) -> Result<Verdict, Error> {
    let RecordBatch { lines, lengths, bytes_read, .. } = batch;
    let start = lines.len();
    lines.resize(start + entry.length, 0);
    let read = read_exact_at(entry.file, &mut lines[start..], entry.start);
    read.map_err(|source| Error::Read { path: entry.container.to_owned(), source })?;
    let (outcome, line) = Outcome::read(&lines[start..]);
    lines.truncate(start + line);
    if matches!(outcome.verdict, Verdict::Accepted(_)) {
        lengths.push(line as u64);
    }
    *bytes_read += outcome.bytes;
    Ok(outcome.verdict)
}

/// The record of one visit.
struct Visited<'v, 'r> {
    turns: &'v mut Turns<'r>,
    bytes: &'v mut RecordBytes<'r>,
    visit: Visit,
}

impl Bytes for Visited<'_, '_> {
    fn read(&mut self, effort: Effort) -> Result<Result<usize, RejectReason>, Error> {
        match effort {
            // The first read of every record is one read.
            Effort::OneRead => self.turns.read(self.visit, self.bytes),
            Effort::ToTheEnd => self.bytes.read(self.visit.position as usize, effort),
        }
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.bytes.buffer()
    }

    fn unit(&self) -> Unit {
        self.bytes.unit(self.visit.position as usize)
    }
}
