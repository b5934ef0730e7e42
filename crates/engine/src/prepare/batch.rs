//! What becomes of consecutive records: a fate each, and the lines of those that are accepted.

use crate::parallel::Batch;
use crate::prepare::tally::Marks;
use crate::record::reject::RejectReason;

/// A batch beyond this belongs to huge records and gives its room back.
const KEPT_BYTES: usize = 2 << 20;

/// What became of one record.
#[derive(Debug)]
pub enum Verdict {
    /// It has a line.
    Accepted(Marks),
    /// It is usable, but its answer is wrong and `--only-correct` was given.
    Skipped,
    /// It is not usable.
    Rejected(RejectReason),
}

/// The outcome of consecutive records.
#[derive(Debug, Default)]
pub struct RecordBatch {
    /// The accepted records' lines.
    pub lines: Vec<u8>,
    /// The bytes of each line.
    pub lengths: Vec<u64>,
    /// Each record's position in rank order and its fate.
    pub verdicts: Vec<(u32, Verdict)>,
    /// Bytes read for them.
    pub bytes_read: u64,
    /// Whether the records stand on the side that trains.
    pub trains: bool,
}

impl Batch for RecordBatch {
    fn bytes(&self) -> usize {
        self.lines.len()
    }

    fn clear(&mut self) {
        self.lines.clear();
        self.lines.shrink_to(KEPT_BYTES);
        self.lengths.clear();
        self.verdicts.clear();
        self.bytes_read = 0;
    }
}

/// Whether a record will be read again, and must then be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fingerprints {
    /// It will not.
    None,
    /// Where the split is grouped, it will.
    Grouped,
}
