//! The records of sources as bytes, for whoever wants something else of them than examples.
//!
//! The same listing and the same reading as a preparation's: keys, limits and refusals are one.
//! Separate so that nobody outside has to know a listing. What is in a record is not looked at.

use std::io;
use std::path::{Path, PathBuf};

use crate::prepare::index::Refusal;
use crate::prepare::list::{self, Corpus, Listing, NotRegular, Place};
use crate::prepare::read::{Effort, Length, Reader};
use crate::prepare::reject::{Code, RejectReason};
use crate::prepare::source::{Source, SourceKind};
use crate::prepare::spool::Spool;
use crate::prepare::{Error, Watch};

/// What to list.
#[derive(Debug)]
pub struct Wanted<'w> {
    /// The sources in their order.
    pub sources: &'w [Source],
    /// A directory that is not entered where it lies inside a source.
    pub skip: Option<&'w Path>,
    /// Bytes that compressed sources and standard input may unpack to, together.
    pub max_spool_bytes: u64,
    /// The largest record taken, in bytes, inclusive.
    pub max_record_bytes: usize,
}

/// The records of sources, listed.
#[derive(Debug)]
pub struct Records {
    listing: Listing,
    max_record_bytes: usize,
}

impl Records {
    /// Lists every record of `wanted`. Their order is that of a preparation with seed 42: no source
    /// comes first.
    ///
    /// # Errors
    /// When a source cannot be listed or unpacked, two records have one key, or `watch` ends it.
    pub fn list(wanted: &Wanted<'_>, watch: &dyn Watch) -> Result<Records, Error> {
        let sources = wanted.sources;
        for source in sources.iter().filter(|source| source.kind == SourceKind::Directory) {
            let no_corpus = |error| Error::NoCorpus { path: source.path.clone(), source: error };
            let root = source.path.canonicalize().map_err(no_corpus)?;
            if let Some(skip) = wanted.skip.filter(|skip| skip.canonicalize().is_ok_and(|skip| skip == root))
            {
                return Err(Error::OutputIsCorpus(skip.to_owned()));
            }
        }
        let mut spool = Spool::new(wanted.skip, wanted.max_spool_bytes);
        let is_whole = |source: &&Source| source.kind != SourceKind::Record;
        let prefixes_keys = sources.iter().filter(is_whole).count() > 1;
        let corpus = Corpus { sources, skip: wanted.skip, seed: 42, prefixes_keys };
        let listing = list::list(&corpus, &mut spool, watch)?;
        Ok(Records { listing, max_record_bytes: wanted.max_record_bytes })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.listing.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.listing.is_empty()
    }

    /// The key of the record at `position`, counted from 0.
    pub fn key(&self, position: usize) -> &[u8] {
        self.listing.key(position)
    }

    /// What was named like a record and is no regular file.
    pub fn not_regular(&self) -> &[NotRegular] {
        &self.listing.not_regular
    }

    /// The bytes of the record at `position`, or why they are not taken.
    ///
    /// # Errors
    /// When it cannot be read: that says nothing about what is in it.
    pub fn read(&self, position: usize) -> Result<Result<Vec<u8>, RejectReason>, Error> {
        let mut path = PathBuf::new();
        let mut reader = Reader::new(self.max_record_bytes);
        let length = match self.listing.place(position, &mut path) {
            Place::File => reader.read(&path, Effort::ToTheEnd),
            Place::Range { file, start, length } => reader.read_range(file, start, length),
            Place::Refused(refusal) => return Ok(Err(hostile(refusal))),
        };
        match length {
            Ok(Length::Bytes(length)) => Ok(Ok(reader.buffer()[..length].to_vec())),
            Ok(Length::TooLarge) => {
                let reason = format!("larger than {} bytes", self.max_record_bytes);
                Ok(Err(RejectReason::new(Code::TooLarge, reason, "")))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Changed { path }),
            Err(source) => Err(Error::Read { path, source }),
        }
    }
}

fn hostile(refusal: Refusal) -> RejectReason {
    RejectReason::new(Code::HostileMember, refusal.reason(), "")
}
