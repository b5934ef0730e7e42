//! What a part leaves beside its lines, as sorted rows: how they are written, and read as streams.
//!
//! All numbers are big-endian, so that rows compare as their bytes do. Where the split is not grouped there are no
//! ranks of groups.
//!
//! | section | sorted by | a row |
//! |---|---|---|
//! | rows | rank | rank, [rank of the group,] bytes of the line (8), bytes of the key (2) |
//! | keys | rank | the key |
//! | rejects | rank | rank, bytes of the line (4), the line of `rejects.jsonl` |
//! | listed | key | bytes of the key (2), the key |
//! | groups | rank of the group | rank of the group, records (8) |
//! | stories, agents | mark | mark (8), rank, [rank of the group] |

use std::cmp::Ordering;

use crate::error::Error;
use crate::parts::merge::Stream;
use crate::parts::span::Span;
use crate::split::Rank;
use crate::split::leakage::Mark;

const RANK_BYTES: usize = size_of::<Rank>();

/// A line of a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// The record's rank.
    pub rank: Rank,
    /// The rank of its group, where the split is grouped.
    pub group: Rank,
    /// Bytes of its line.
    pub line: u64,
    /// Bytes of its key.
    pub key: u16,
}

impl Row {
    /// The bytes of a row.
    pub fn bytes(is_grouped: bool) -> usize {
        RANK_BYTES * if is_grouped { 2 } else { 1 } + 10
    }

    /// Adds the row to `out`.
    pub fn write(&self, is_grouped: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.rank);
        if is_grouped {
            out.extend_from_slice(&self.group);
        }
        out.extend_from_slice(&self.line.to_be_bytes());
        out.extend_from_slice(&self.key.to_be_bytes());
    }

    fn read(bytes: &[u8], is_grouped: bool) -> Row {
        let group = if is_grouped { rank_at(bytes, RANK_BYTES) } else { Rank::default() };
        let numbers = &bytes[bytes.len() - 10..];
        Row {
            rank: rank_at(bytes, 0),
            group,
            line: u64::from_be_bytes(numbers[..8].try_into().expect("eight bytes")),
            key: u16::from_be_bytes([numbers[8], numbers[9]]),
        }
    }
}

fn rank_at(bytes: &[u8], at: usize) -> Rank {
    bytes[at..at + RANK_BYTES].try_into().expect("sixteen bytes")
}

/// A place in a part: so many rows, and bytes of lines and keys, lie before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Rows.
    pub rows: u64,
    /// Bytes of lines.
    pub lines: u64,
    /// Bytes of keys.
    pub keys: u64,
}

impl Place {
    /// The bytes of a place when it is written.
    pub const BYTES: usize = 24;

    /// Adds the place to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        for number in [self.rows, self.lines, self.keys] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }

    /// Reads a place.
    pub fn read(bytes: &[u8]) -> Place {
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Place { rows: number(0), lines: number(8), keys: number(16) }
    }
}

/// The rows of a part between two places: from the lowest rank up, or from the highest down.
#[derive(Debug)]
pub struct RowStream {
    span: Span,
    is_grouped: bool,
    is_backward: bool,
    end: Place,
    /// Before the current row.
    place: Place,
    row: Row,
    is_over: bool,
}

impl RowStream {
    /// Those from `start` to `end` of the section `span`.
    ///
    /// # Errors
    /// When the first row cannot be read.
    pub fn new(
        span: Span,
        is_grouped: bool,
        is_backward: bool,
        start: Place,
        end: Place,
    ) -> Result<RowStream, Error> {
        let (place, end) = if is_backward { (end, start) } else { (start, end) };
        let (row, is_over) = (Row::default(), false);
        let mut stream = RowStream { span, is_grouped, is_backward, end, place, row, is_over };
        stream.read()?;
        Ok(stream)
    }

    /// The current row.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// Where the current row lies, or the next one would.
    pub fn place(&self) -> Place {
        self.place
    }

    fn read(&mut self) -> Result<(), Error> {
        self.is_over = self.place.rows == self.end.rows;
        if self.is_over {
            return Ok(());
        }
        let bytes = Row::bytes(self.is_grouped);
        let index = if self.is_backward { self.place.rows - 1 } else { self.place.rows };
        let read = self.span.get(index * bytes as u64, bytes, self.is_backward)?;
        self.row = Row::read(read, self.is_grouped);
        if self.is_backward {
            self.place = Place {
                rows: index,
                lines: self.place.lines - self.row.line,
                keys: self.place.keys - u64::from(self.row.key),
            };
        }
        Ok(())
    }
}

impl Stream for RowStream {
    fn is_over(&self) -> bool {
        self.is_over
    }

    fn compare(&self, other: &Self) -> Ordering {
        let order = self.row.rank.cmp(&other.row.rank);
        if self.is_backward { order.reverse() } else { order }
    }

    fn advance(&mut self) -> Result<(), Error> {
        if !self.is_backward {
            self.place = Place {
                rows: self.place.rows + 1,
                lines: self.place.lines + self.row.line,
                keys: self.place.keys + u64::from(self.row.key),
            };
        }
        self.read()
    }
}

/// A section of rows of equal length, sorted by their bytes.
#[derive(Debug)]
pub struct FixedStream<const BYTES: usize> {
    span: Span,
    next: u64,
    row: [u8; BYTES],
    is_over: bool,
}

impl<const BYTES: usize> FixedStream<BYTES> {
    /// The rows of `span`.
    ///
    /// # Errors
    /// When the first one cannot be read.
    pub fn new(span: Span) -> Result<Self, Error> {
        let mut stream = FixedStream { span, next: 0, row: [0; BYTES], is_over: false };
        stream.advance()?;
        Ok(stream)
    }

    /// The current row.
    pub fn row(&self) -> &[u8; BYTES] {
        &self.row
    }
}

impl<const BYTES: usize> Stream for FixedStream<BYTES> {
    fn is_over(&self) -> bool {
        self.is_over
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.row.cmp(&other.row)
    }

    fn advance(&mut self) -> Result<(), Error> {
        self.is_over = self.next >= self.span.length();
        if !self.is_over {
            self.row.copy_from_slice(self.span.get(self.next, BYTES, false)?);
            self.next += BYTES as u64;
        }
        Ok(())
    }
}

/// The rank of a group and how many records it has in one part.
pub const GROUP_BYTES: usize = RANK_BYTES + 8;

/// Adds a row of a group to `out`.
pub fn write_group(group: &Rank, records: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(group);
    out.extend_from_slice(&records.to_be_bytes());
}

/// Reads a row of a group.
pub fn read_group(row: &[u8; GROUP_BYTES]) -> (Rank, u64) {
    (rank_at(row, 0), u64::from_be_bytes(row[RANK_BYTES..].try_into().expect("eight bytes")))
}

/// A mark and a rank.
pub const MARK_BYTES: usize = 8 + RANK_BYTES;

/// A mark, a rank and the rank of a group.
pub const GROUPED_MARK_BYTES: usize = MARK_BYTES + RANK_BYTES;

/// A row of marks: the mark, the record's rank, and the rank of its group (zeros where there are no groups).
pub fn read_mark(row: &[u8]) -> (Mark, Rank, Rank) {
    let mark = u64::from_be_bytes(row[..8].try_into().expect("eight bytes"));
    let group = if row.len() > MARK_BYTES { rank_at(row, MARK_BYTES) } else { Rank::default() };
    (mark, rank_at(row, 8), group)
}

/// Adds a row of marks to `out`.
pub fn write_mark(mark: Mark, rank: &Rank, group: Option<&Rank>, out: &mut Vec<u8>) {
    out.extend_from_slice(&mark.to_be_bytes());
    out.extend_from_slice(rank);
    out.extend_from_slice(group.map_or(&[][..], |group| group));
}

/// All keys of a part, bytewise.
#[derive(Debug)]
pub struct KeyStream {
    span: Span,
    next: u64,
    key: Vec<u8>,
    is_over: bool,
}

impl KeyStream {
    /// The keys of `span`.
    ///
    /// # Errors
    /// When the first one cannot be read.
    pub fn new(span: Span) -> Result<KeyStream, Error> {
        let mut stream = KeyStream { span, next: 0, key: Vec::new(), is_over: false };
        stream.advance()?;
        Ok(stream)
    }

    /// The current key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

/// Adds a key to `out`, which is at most 65,535 bytes long.
pub fn write_key(key: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(key);
}

impl Stream for KeyStream {
    fn is_over(&self) -> bool {
        self.is_over
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }

    fn advance(&mut self) -> Result<(), Error> {
        self.is_over = self.next >= self.span.length();
        if !self.is_over {
            let head = self.span.get(self.next, 2, false)?;
            let length = usize::from(u16::from_be_bytes([head[0], head[1]]));
            let key = self.span.get(self.next + 2, length, false)?;
            self.key.clear();
            self.key.extend_from_slice(key);
            self.next += 2 + length as u64;
        }
        Ok(())
    }
}

/// The rejects of a part, by rank.
#[derive(Debug)]
pub struct RejectStream {
    span: Span,
    next: u64,
    rank: Rank,
    line: Vec<u8>,
    is_over: bool,
}

impl RejectStream {
    /// The rejects of `span`.
    ///
    /// # Errors
    /// When the first one cannot be read.
    pub fn new(span: Span) -> Result<RejectStream, Error> {
        let mut stream =
            RejectStream { span, next: 0, rank: Rank::default(), line: Vec::new(), is_over: false };
        stream.advance()?;
        Ok(stream)
    }

    /// The rank of the record.
    pub fn rank(&self) -> &Rank {
        &self.rank
    }

    /// Its line in `rejects.jsonl`, newline included.
    pub fn line(&self) -> &[u8] {
        &self.line
    }
}

/// Adds a reject to `out`.
pub fn write_reject(rank: &Rank, line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(rank);
    out.extend_from_slice(&(line.len() as u32).to_be_bytes());
    out.extend_from_slice(line);
}

impl Stream for RejectStream {
    fn is_over(&self) -> bool {
        self.is_over
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }

    fn advance(&mut self) -> Result<(), Error> {
        const HEAD: usize = RANK_BYTES + 4;
        self.is_over = self.next >= self.span.length();
        if !self.is_over {
            let head = self.span.get(self.next, HEAD, false)?;
            self.rank = rank_at(head, 0);
            let length = u32::from_be_bytes(head[RANK_BYTES..].try_into().expect("four bytes")) as usize;
            let line = self.span.get(self.next + HEAD as u64, length, false)?;
            self.line.clear();
            self.line.extend_from_slice(line);
            self.next += (HEAD + length) as u64;
        }
        Ok(())
    }
}
