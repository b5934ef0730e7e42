//! The records of a corpus one by one, by the keys that a preparation would give them.
//!
//! For whoever reads records without preparing them, and for the one thread's reading that the
//! engine shares with them. A record that cannot be used is a reason, not an error; one that
//! cannot be read is an error, and says nothing about the others. It writes nothing.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::record::Context;
use crate::record::layout::Unit;
use crate::record::parser::{ParseFailure, Parser};
use crate::record::reject::{Code, RejectReason};
use crate::source::list::{self, Corpus, Listing, Place};
use crate::source::names::NameLog;
use crate::source::read::{self, Bytes, Effort, Length, Reader, too_large};
use crate::source::spool::Spool;
use crate::source::{Source, SourceKind};
use crate::watch::Watch;

/// Every record of some sources.
#[derive(Debug)]
pub struct Records(Listing);

impl Records {
    /// Lists `sources`; keys begin with the name of their source where there are several.
    ///
    /// What is compressed, and standard input, is unpacked to unlinked temporary files of `max_spool_bytes`
    /// in all. Sorting runs in the current rayon pool.
    ///
    /// # Errors
    /// When a source cannot be listed or unpacked, two records have one key, or somebody asked to stop.
    pub fn list(sources: &[Source], max_spool_bytes: u64, watch: &dyn Watch) -> Result<Records, Error> {
        let corpus =
            Corpus { sources, skip: None, within: b"", seed: 0, convert: None, converts_plain_files: false };
        list::list(&corpus, &mut Spool::new(None, max_spool_bytes), watch).map(Records)
    }

    /// The same for a run that writes to the directory `out`, which is there: it is not entered where it
    /// lies inside a source, and what is unpacked lies in it.
    ///
    /// # Errors
    /// As [`Records::list`]; and when `out` is a source itself.
    pub fn list_beside(
        sources: &[Source],
        out: &Path,
        max_spool_bytes: u64,
        watch: &dyn Watch,
    ) -> Result<Records, Error> {
        for source in sources.iter().filter(|source| matches!(source.kind, SourceKind::Directory(_))) {
            let no_corpus = |error| Error::NoCorpus { path: source.path.clone(), source: error };
            let root = source.path.canonicalize().map_err(no_corpus)?;
            if out.canonicalize().is_ok_and(|out| out == root) {
                return Err(Error::OutputIsCorpus(out.to_owned()));
            }
        }
        let corpus = Corpus {
            sources,
            skip: Some(out),
            within: b"",
            seed: 0,
            convert: None,
            converts_plain_files: false,
        };
        list::list(&corpus, &mut Spool::new(Some(out), max_spool_bytes), watch).map(Records)
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of the record at `position`, counted from 0, in an order that depends on the keys alone.
    pub fn key(&self, position: usize) -> &[u8] {
        self.0.key(position)
    }

    /// What lies in the sources and is not read: its key, and what it is.
    pub fn not_read(&self) -> &Arc<NameLog> {
        &self.0.not_read
    }
}

/// Reads records of one listing into one buffer.
#[derive(Debug)]
pub struct RecordBytes<'l> {
    listing: &'l Listing,
    reader: Reader,
    path: PathBuf,
    max_record_bytes: usize,
}

impl<'l> RecordBytes<'l> {
    /// A reader that takes records of up to `max_record_bytes`, inclusive.
    pub fn new(listing: &'l Listing, max_record_bytes: usize) -> Self {
        let reader = Reader::new(max_record_bytes);
        RecordBytes { listing, reader, path: PathBuf::new(), max_record_bytes }
    }

    /// Reads the record at `position`: so many bytes at the start of the buffer, or why they are not
    /// to be read.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn read(&mut self, position: usize, effort: Effort) -> Result<Result<usize, RejectReason>, Error> {
        let below = self.listing.open_below(position).map(|file| self.reader.read_file(file, effort));
        let result = match below {
            Some(Ok(length)) => Ok(length),
            // What is wrong is said of the path.
            Some(Err(_)) | None => match self.listing.place(position, &mut self.path) {
                Place::File => self.reader.read(&self.path, effort),
                Place::Range { file, start, length } => self.reader.read_range(file, start, length),
                Place::Reopen { seen, start, length } => match reopen(&self.path, seen) {
                    Ok(Some(file)) => self.reader.read_range(&file, start, length),
                    Ok(None) => return Err(Error::Changed { path: self.path.clone() }),
                    Err(error) => Err(error),
                },
                // Whoever lists records to read them converts none.
                Place::Converted { .. } => Err(io::ErrorKind::Unsupported.into()),
                Place::Refused(refusal) => {
                    return Ok(Err(RejectReason::new(Code::HostileMember, refusal.reason(), "")));
                }
            },
        };
        self.judged(result)
    }

    /// The same for a record file whose `beginning` has been read, and the `rest` if there is one not.
    ///
    /// # Errors
    /// When the rest cannot be read.
    pub fn read_on(
        &mut self,
        position: usize,
        beginning: &[u8],
        rest: Option<File>,
    ) -> Result<Result<usize, RejectReason>, Error> {
        let result = self.reader.read_on(beginning, rest);
        if result.is_err() {
            self.listing.place(position, &mut self.path);
        }
        self.judged(result)
    }

    fn judged(&self, result: io::Result<Length>) -> Result<Result<usize, RejectReason>, Error> {
        match result {
            Ok(Length::Bytes(length)) => Ok(Ok(length)),
            Ok(Length::TooLarge) => Ok(Err(too_large(self.max_record_bytes))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Error::Changed { path: self.path.clone() })
            }
            Err(source) => Err(Error::Read { path: self.path.clone(), source }),
        }
    }

    /// The record at `position` alone.
    pub fn at(&mut self, position: usize) -> OneRecord<'_, 'l> {
        OneRecord { bytes: self, position }
    }

    /// The buffer: what was read last, then at least the parser's padding.
    pub fn buffer(&mut self) -> &mut [u8] {
        self.reader.buffer()
    }

    /// How the record at `position` lies in its source.
    pub fn unit(&self, position: usize) -> Unit {
        self.listing.unit(position)
    }
}

/// One record of a listing.
pub struct OneRecord<'b, 'l> {
    bytes: &'b mut RecordBytes<'l>,
    position: usize,
}

impl Bytes for OneRecord<'_, '_> {
    fn read(&mut self, effort: Effort) -> Result<Result<usize, RejectReason>, Error> {
        self.bytes.read(self.position, effort)
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.bytes.buffer()
    }

    fn unit(&self) -> Unit {
        self.bytes.unit(self.position)
    }
}

/// The container at `path`, unless it has changed since it was `seen`.
fn reopen(path: &Path, seen: &Metadata) -> io::Result<Option<File>> {
    let file = File::open(path)?;
    let now = file.metadata()?;
    let is_same = now.len() == seen.len() && now.modified().ok() == seen.modified().ok();
    Ok(is_same.then_some(file))
}

/// Reads and parses records of one listing: one thread's tools.
pub struct RecordReader<'r> {
    bytes: RecordBytes<'r>,
    parser: Parser,
}

impl<'r> RecordReader<'r> {
    /// A reader that takes records of up to `max_record_bytes`, inclusive.
    pub fn new(records: &'r Records, max_record_bytes: usize) -> Self {
        RecordReader { bytes: RecordBytes::new(&records.0, max_record_bytes), parser: Parser::default() }
    }

    /// The bytes of the record at `position`, or why they are not to be read.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn bytes(&mut self, position: usize) -> Result<Result<&[u8], RejectReason>, Error> {
        let read = self.bytes.read(position, Effort::ToTheEnd)?;
        Ok(read.map(|length| &self.bytes.buffer()[..length]))
    }

    /// Hands the context of the record at `position` to `look`, or gives why there is none.
    ///
    /// Only the context is asked for: a record may lack its story or its question, or be the bare context.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn with_context<T>(
        &mut self,
        position: usize,
        mut look: impl FnMut(&Context<'_>) -> T,
    ) -> Result<Result<T, RejectReason>, Error> {
        let length = match self.bytes.read(position, Effort::OneRead)? {
            Ok(length) => length,
            Err(reason) => return Ok(Err(reason)),
        };
        match self.parser.with_context(self.bytes.buffer(), length, &mut look) {
            Ok(value) => return Ok(Ok(value)),
            Err(ParseFailure::Record(reason)) => return self.named(position, reason).map(Err),
            Err(ParseFailure::Json(_)) => {}
        }
        // Parsing has changed the bytes, and the read may have been cut short.
        let looked = match self.bytes.read(position, Effort::ToTheEnd)? {
            Ok(length) => self.parser.with_context_again(self.bytes.buffer(), length, &mut look),
            Err(reason) => Err(reason),
        };
        match looked {
            Ok(value) => Ok(Ok(value)),
            Err(reason) => self.named(position, reason).map(Err),
        }
    }

    /// `reason`, why the record at `position` is refused, in better words where its layout is a known one.
    ///
    /// # Errors
    /// When the record cannot be read again.
    pub fn named(&mut self, position: usize, reason: RejectReason) -> Result<RejectReason, Error> {
        read::named(&mut self.bytes.at(position), reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Containers;
    use crate::watch::Unwatched;

    /// The steps of each record of `source`, or why it has none, by key.
    fn steps(source: &Path) -> Vec<(String, Result<usize, &'static str>)> {
        let records =
            Records::list(&[Source::of(source, Containers::Skip).unwrap()], 1 << 20, &Unwatched).unwrap();
        let mut reader = RecordReader::new(&records, 500);
        let mut found: Vec<_> = (0..records.len())
            .map(|position| {
                let steps = reader.with_context(position, |context| context.steps.len()).unwrap();
                let key = String::from_utf8(records.key(position).to_vec()).unwrap();
                (key, steps.map_err(|reason| reason.code.as_str()))
            })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn records_and_bare_contexts_are_read_by_their_keys() {
        let dir = tempfile::tempdir().unwrap();
        let context =
            r#"{"agents_names":["A"],"socialized_context":[{"state":"","observations":{},"actions":{}}]}"#;
        let record = format!(r#"{{"socialized_context":{context}}}"#);
        let write = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).unwrap();
        write("a.json", context);
        write("b.json", &record);
        write("c.json", "{");
        write("d.json", &format!("{context}{}", " ".repeat(500)));
        write("e.json", "{}");
        let expected = [
            ("a.json".to_owned(), Ok(1)),
            ("b.json".to_owned(), Ok(1)),
            ("c.json".to_owned(), Err("json_syntax")),
            ("d.json".to_owned(), Err("too_large")),
            ("e.json".to_owned(), Err("missing_key")),
        ];
        assert_eq!(steps(dir.path()), expected);
        write("x.jsonl", &format!("{context}\n\n{record}\n"));
        let expected = [("#0".to_owned(), Ok(1)), ("#1".to_owned(), Ok(1))];
        assert_eq!(steps(&dir.path().join("x.jsonl")), expected);
    }

    #[test]
    fn a_container_that_changes_is_an_error_unless_it_was_held_open() {
        let dir = tempfile::tempdir().unwrap();
        let context =
            r#"{"agents_names":["A"],"socialized_context":[{"state":"","observations":{},"actions":{}}]}"#;
        let path = |number: usize| dir.path().join(format!("{number}.jsonl"));
        for number in 0..list::HELD + 5 {
            std::fs::write(path(number), context).unwrap();
        }
        let source = Source::of(dir.path(), Containers::Read).unwrap();
        let records = Records::list(&[source], 0, &Unwatched).unwrap();
        let read = || {
            let mut reader = RecordReader::new(&records, 500);
            let outcomes = (0..records.len()).map(|position| reader.with_context(position, |_| ()));
            let outcomes: Vec<_> = outcomes.collect();
            let good = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Ok(())))).count();
            let changed = outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::Changed { .. })));
            (good, changed.count())
        };
        assert_eq!(read(), (list::HELD + 5, 0));
        for number in 0..list::HELD + 5 {
            // As editors do: a new file under the old name.
            std::fs::remove_file(path(number)).unwrap();
            std::fs::write(path(number), format!("\n{context}")).unwrap();
        }
        assert_eq!(read(), (list::HELD, 5));
    }
}
