//! Turns the sources of a corpus into keys in rank order, and keys into places to read.
//!
//! Record files are not opened here; what lies in a source and is not read is counted and named.
//! Containers are indexed, and read later by rank.

use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::address::address;
use crate::error::Error;
use crate::json::KeyText;
use crate::record::layout::{Unit, is_lfs_pointer};
use crate::source::index::{Extent, Member, Refusal, index_lines, index_tar};
use crate::source::input::{Input, LineRange, Root, What};
use crate::source::keys::{KeyArena, KeyRef, MAX_KEY_BYTES, MAX_SOURCES};
use crate::source::names::NameLog;
use crate::source::section::{Section, read_at, read_exact_at};
use crate::source::spool::{Spool, Store, UnpackLimit};
use crate::source::unpack::Plain;
use crate::source::walk::{self, Directory, Found, container_prefix, walk};
use crate::source::{Compression, Source, SourceKind, prefixes};
use crate::split::{Rank, Ranks};
use crate::watch::Watch;

/// A source while its records are read.
#[derive(Debug)]
enum OpenSource {
    /// Files below `root`; the first `prefix` bytes of a key are no part of the path. The directory itself is held
    /// open, unless many are.
    Files { root: PathBuf, prefix: usize, directory: Option<File> },
    /// Ranges of a file that is held open: the user's own, or our spool of it.
    Held { section: Section, path: PathBuf, unit: Unit },
    /// Lines that were converted as they arrived: what became of each is a range of our spool.
    Converted { section: Section, path: PathBuf },
    /// Ranges of the user's file, which is opened for each.
    Reopened { seen: Box<Metadata>, path: PathBuf, unit: Unit },
}

/// Containers that are held open, and as many directories; of others each record is found by its path: a
/// process may have few files open, and a directory many containers.
pub const HELD: usize = 64;

/// Where the bytes of a record are.
#[derive(Debug)]
pub enum Place<'l> {
    /// They are a file of their own, at the path built in the caller's buffer.
    File,
    /// They are a range of a container.
    Range {
        /// The container, or our spool of it.
        file: &'l File,
        /// The offset of the first byte.
        start: u64,
        /// How many bytes.
        length: u64,
    },
    /// They are converted already: see [`Listing::converted`].
    Converted,
    /// They are a range of a container, at the path built in the caller's buffer.
    Reopen {
        /// What the container was like when it was listed.
        seen: &'l Metadata,
        /// The offset of the first byte.
        start: u64,
        /// How many bytes.
        length: u64,
    },
    /// They are not to be read.
    Refused(Refusal),
}

/// Where what became of a line is kept; it ends with the offset of the line in its container, eight bytes.
#[derive(Debug)]
pub struct Entry<'l> {
    /// The container that the record was in.
    pub container: &'l Path,
    /// Our spool.
    pub file: &'l File,
    /// The offset of the first byte.
    pub start: u64,
    /// How many bytes.
    pub length: usize,
}

/// The records of a corpus in rank order.
#[derive(Debug)]
pub struct Listing {
    arena: KeyArena,
    by_rank: Vec<KeyRef>,
    sources: Vec<OpenSource>,
    /// Whether any record was converted when it arrived.
    has_converted: bool,
    /// SHA-256 of the keys sorted bytewise, each followed by NUL.
    pub keys_sha256: [u8; 32],
    /// What lies in the sources and is not read: its key, and what it is.
    pub not_read: Arc<NameLog>,
    /// How much of that is named `*.json`, but is no regular file.
    pub not_regular: u64,
}

impl Listing {
    /// The number of records.
    pub fn len(&self) -> usize {
        self.by_rank.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.by_rank.is_empty()
    }

    /// The keys in the order of their bytes.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let mut keys = self.by_rank.clone();
        keys.sort_unstable_by(|one, other| self.arena.get(*one).cmp(self.arena.get(*other)));
        keys.into_iter().map(|key| self.arena.get(key))
    }

    /// The key at `position` in rank order, counted from 0.
    pub fn key(&self, position: usize) -> &[u8] {
        self.arena.get(self.by_rank[position])
    }

    /// How the record at `position` lies in its source.
    pub fn unit(&self, position: usize) -> Unit {
        match &self.sources[usize::from(self.arena.entry(self.by_rank[position]).source)] {
            OpenSource::Files { .. } => Unit::File,
            OpenSource::Converted { .. } => Unit::Line,
            OpenSource::Held { unit, .. } | OpenSource::Reopened { unit, .. } => *unit,
        }
    }

    /// What became of the record at `position`, if it was converted when it arrived.
    pub fn converted(&self, position: usize) -> Option<Entry<'_>> {
        if !self.has_converted {
            return None;
        }
        let entry = self.arena.entry(self.by_rank[position]);
        match (&self.sources[usize::from(entry.source)], entry.extent) {
            (OpenSource::Converted { section, path }, Some(Extent::Bytes(start, length))) => Some(Entry {
                container: path,
                file: &section.file,
                start: section.start + start,
                length: usize::try_from(length).expect("it was in memory"),
            }),
            _ => None,
        }
    }

    /// The file of the record at `position`, opened below its directory: no path is put together, and none is
    /// resolved from the root. `None` where that cannot be, and where it fails: the file's path says why.
    #[cfg(unix)]
    pub fn open_below(&self, position: usize) -> Option<File> {
        use rustix::fs::{Mode, OFlags, openat};
        let entry = self.arena.entry(self.by_rank[position]);
        match &self.sources[usize::from(entry.source)] {
            OpenSource::Files { prefix, directory: Some(directory), .. } => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                openat(directory, &entry.key[*prefix..], flags, Mode::empty()).map(File::from).ok()
            }
            _ => None,
        }
    }

    /// The file of the record at `position`, where a system opens files below a directory.
    #[cfg(not(unix))]
    pub fn open_below(&self, _position: usize) -> Option<File> {
        None
    }

    /// Where the record at `position` is. Its file, or its container, is named in `path`.
    pub fn place(&self, position: usize, path: &mut PathBuf) -> Place<'_> {
        let entry = self.arena.entry(self.by_rank[position]);
        path.as_mut_os_string().clear();
        let source = &self.sources[usize::from(entry.source)];
        if let OpenSource::Files { root, prefix, .. } = source {
            path.as_mut_os_string().push(root);
            path.push(key_as_path(&entry.key[*prefix..]));
            return Place::File;
        }
        let (OpenSource::Files { root: container, .. }
        | OpenSource::Held { path: container, .. }
        | OpenSource::Converted { path: container, .. }
        | OpenSource::Reopened { path: container, .. }) = source;
        path.as_mut_os_string().push(container);
        match (source, entry.extent.expect("a container's records have their places")) {
            (_, Extent::Refused(refusal)) => Place::Refused(refusal),
            (OpenSource::Held { section, .. }, Extent::Bytes(start, length)) => {
                Place::Range { file: &section.file, start: section.start + start, length }
            }
            (OpenSource::Reopened { seen, .. }, Extent::Bytes(start, length)) => {
                Place::Reopen { seen, start, length }
            }
            (OpenSource::Converted { .. }, _) => Place::Converted,
            (OpenSource::Files { .. }, _) => unreachable!("returned above"),
        }
    }
}

/// Converts every non-blank line of what is unpacked, up to a limit, and keeps in the store what became of each:
/// an [`Entry`] in the section that is returned.
pub type ConvertLines<'c> = dyn Fn(Plain<'_>, Option<&mut UnpackLimit>, &mut Store, FoundLine<'_>) -> Result<Section, Error>
    + Sync
    + 'c;

/// Gets the number of each line, from 0, and where its entry lies in the section, in the order of the lines.
pub type FoundLine<'f> = &'f mut (dyn FnMut(u64, Extent) -> Result<(), Error> + Send);

/// What to list.
pub struct Corpus<'c> {
    /// The sources in the order in which they were given.
    pub sources: &'c [Source],
    /// The output directory, if it exists: it is not entered where it lies inside a source.
    pub skip: Option<&'c Path>,
    /// What stands before all keys.
    pub within: &'c [u8],
    /// The seed of the ranks.
    pub seed: u64,
    /// How lines are converted when they arrive; `None` for whoever reads records by rank.
    pub convert: Option<&'c ConvertLines<'c>>,
    /// Whether files that could be read at random are converted as they arrive too.
    pub converts_plain_files: bool,
}

/// Lists every record of `corpus` and sorts by rank.
///
/// In a directory that is every `*.json`: a link to a file counts as a file; linked directories,
/// directories named `*.json` and hidden ones are not entered. Where its containers are read as well, their
/// keys begin with their own, without the suffix of a compression, and `/`. With several sources each key
/// begins with its source's name. Sorting runs in the current rayon pool.
///
/// # Errors
/// When a source cannot be listed or unpacked, two records have one key, or the run is stopped.
pub fn list(corpus: &Corpus<'_>, spool: &mut Spool, watch: &dyn Watch) -> Result<Listing, Error> {
    let mut builder = Builder::new(corpus, spool, watch);
    for (source, prefix) in corpus.sources.iter().zip(prefixes(corpus.sources)) {
        builder.add(source, &[corpus.within, &prefix].concat(), spool)?;
    }
    builder.sorted()
}

/// The most roots that [`list_inputs`] takes: containers are numbered behind them.
pub const MAX_ROOTS: u16 = MAX_SOURCES / 2;

/// Lists what a walk has found before, in whatever order, and sorts by rank. `roots` are the directories that records
/// lie below; `fetched` is what was fetched of each input that lies in a bucket.
///
/// # Errors
/// As [`list`]; [`Error::Changed`] where a container is not what it was.
pub fn list_inputs(
    corpus: &Corpus<'_>,
    roots: &[Root],
    inputs: &[Input],
    fetched: &[Option<Section>],
    spool: &mut Spool,
    watch: &dyn Watch,
) -> Result<Listing, Error> {
    let mut builder = Builder::new(corpus, spool, watch);
    for root in roots {
        let stored = address(&root.path).map(|_| spool.store.section()).transpose()?;
        builder.add_root(&root.path, root.prefix, stored.as_ref())?;
    }
    for (number, input) in inputs.iter().enumerate() {
        let fetched = fetched.get(number).and_then(Option::as_ref);
        match &input.what {
            What::Record => {
                let extent = fetched.map(|section| Extent::Bytes(section.start, section.length));
                builder.push(input.root, &input.key, extent)?;
            }
            What::Container(kind, path) => {
                let source = Source { path: path.clone(), kind: *kind };
                builder.add_container(&source, fetched, &input.key, spool)?;
            }
            What::Lines(path, range) => builder.add_lines(path, fetched, &input.key, *range)?,
        }
    }
    builder.sorted()
}

/// A listing in the making.
struct Builder<'w> {
    arena: KeyArena,
    sources: Vec<OpenSource>,
    not_read: NameLog,
    not_regular: u64,
    held: usize,
    corpus: &'w Corpus<'w>,
    held_directories: usize,
    watch: &'w dyn Watch,
}

impl<'w> Builder<'w> {
    fn new(corpus: &'w Corpus<'w>, spool: &Spool, watch: &'w dyn Watch) -> Self {
        Builder {
            arena: KeyArena::default(),
            sources: Vec::new(),
            not_read: NameLog::new(spool.dir()),
            not_regular: 0,
            held: 0,
            corpus,
            held_directories: 0,
            watch,
        }
    }

    fn sorted(self) -> Result<Listing, Error> {
        let Builder { arena, sources, not_read, not_regular, watch, corpus, .. } = self;
        watch.listed(arena.count as u64);
        let listing = sorted(arena, sources, corpus.seed)?;
        Ok(Listing { not_read: Arc::new(not_read), not_regular, ..listing })
    }

    /// Adds the directory `root`; the first `prefix` bytes of the keys below it are no part of a path. What was fetched of
    /// records in a bucket lies in the file of `stored`.
    fn add_root(&mut self, root: &Path, prefix: usize, stored: Option<&Section>) -> Result<u16, Error> {
        let number = self.number()?;
        if let Some(stored) = stored {
            let (section, path) = (Section { start: 0, ..stored.clone() }, root.to_owned());
            self.sources.push(OpenSource::Held { section, path, unit: Unit::File });
            return Ok(number);
        }
        let may_hold = cfg!(unix) && self.held_directories < HELD;
        let directory = may_hold.then(|| File::open(root).ok()).flatten();
        self.held_directories += usize::from(directory.is_some());
        self.sources.push(OpenSource::Files { root: root.to_owned(), prefix, directory });
        Ok(number)
    }

    /// Adds the lines of the file at `path` that lie in `range`.
    fn add_lines(
        &mut self,
        path: &Path,
        fetched: Option<&Section>,
        prefix: &[u8],
        range: LineRange,
    ) -> Result<(), Error> {
        let number = self.number()?;
        let source = Source { path: path.to_owned(), kind: SourceKind::Lines(Compression::None) };
        let LineRange { start, end, first } = range;
        let section = match fetched {
            Some(fetched) => fetched.clone(),
            None => {
                let Opened::AtRandom(file, _) = open(&source, None)? else {
                    return Err(Error::Changed { path: source.path });
                };
                Section { file: Arc::new(file), start, length: end - start }
            }
        };
        index_lines(&section, path, |line, extent| {
            self.push(number, &line_key(prefix, first + line), Some(extent))
        })?;
        self.sources.push(OpenSource::Held { section, path: path.to_owned(), unit: Unit::Line });
        Ok(())
    }

    fn add(&mut self, source: &Source, prefix: &[u8], spool: &mut Spool) -> Result<(), Error> {
        match source.kind {
            SourceKind::Directory(containers) => {
                let number = self.add_root(&source.path, prefix.len(), None)?;
                let directory = Directory { root: &source.path, prefix, containers, skip: self.corpus.skip };
                walk(&directory, &mut |path, key, found| self.add_found(number, path, key, found, spool))
            }
            SourceKind::Record => {
                // All records named by themselves are one source: there may be very many.
                let own = |open: &OpenSource| matches!(open, OpenSource::Files { root, .. } if root.as_os_str().is_empty());
                let number = match self.sources.iter().position(own) {
                    Some(known) => known as u16,
                    None => {
                        let number = self.number()?;
                        self.sources.push(OpenSource::Files {
                            root: PathBuf::new(),
                            prefix: 0,
                            directory: None,
                        });
                        number
                    }
                };
                let (key, found) = walk::record(&source.path)?;
                self.add_found(number, &source.path, &key, found, spool)
            }
            SourceKind::Lines(_) | SourceKind::Tar(_) => self.add_container(source, None, prefix, spool),
        }
    }

    /// The number of the next source.
    fn number(&self) -> Result<u16, Error> {
        let number = u16::try_from(self.sources.len()).ok().filter(|number| *number < MAX_SOURCES);
        number.ok_or(Error::TooManySources(self.sources.len()))
    }

    fn add_container(
        &mut self,
        source: &Source,
        fetched: Option<&Section>,
        prefix: &[u8],
        spool: &mut Spool,
    ) -> Result<(), Error> {
        let number = self.number()?;
        let path = source.path.clone();
        let is_lines = matches!(source.kind, SourceKind::Lines(_));
        let unit = if is_lines { Unit::Line } else { Unit::File };
        let convert = self.corpus.convert.filter(|_| is_lines);
        let opened = match (open(source, fetched)?, convert) {
            (Opened::Stream(file), Some(convert)) => {
                let plain = Plain::open(source, file)?;
                let found = &mut |line, extent| self.push(number, &line_key(prefix, line), Some(extent));
                let section = convert(plain, Some(&mut spool.limit), &mut spool.store, found)?;
                OpenSource::Converted { section, path }
            }
            (Opened::AtRandom(file, _), Some(convert)) if self.corpus.converts_plain_files => {
                let plain = Plain::open(source, Some(file))?;
                let found = &mut |line, extent| self.push(number, &line_key(prefix, line), Some(extent));
                let section = convert(plain, None, &mut spool.store, found)?;
                OpenSource::Converted { section, path }
            }
            (Opened::Stream(file), _) => {
                let section = spool.unpack(source, file, self.watch)?;
                self.index(number, source, prefix, &section)?;
                OpenSource::Held { section, path, unit }
            }
            (Opened::AtRandom(file, seen), _) => {
                let section = Section { file: Arc::new(file), start: 0, length: seen.len() };
                self.index(number, source, prefix, &section)?;
                self.held += 1;
                match self.held > HELD {
                    true => OpenSource::Reopened { seen: Box::new(seen), path, unit },
                    false => OpenSource::Held { section, path, unit },
                }
            }
        };
        self.sources.push(opened);
        Ok(())
    }

    fn push(&mut self, source: u16, key: &[u8], extent: Option<Extent>) -> Result<(), Error> {
        if key.len() > MAX_KEY_BYTES {
            let path = PathBuf::from(KeyText(&key[..100]).to_json());
            return Err(Error::Read { path, source: io::ErrorKind::InvalidFilename.into() });
        }
        self.arena.push(source, key, extent);
        if self.arena.count.is_multiple_of(4096) {
            self.watch.listed(self.arena.count as u64);
            self.watch.check_stop()?;
        }
        Ok(())
    }

    /// Names what is not read, by its key.
    fn pass_over(&mut self, kind: &'static str, key: &[u8]) -> Result<(), Error> {
        self.not_read.push(kind, key).map_err(Error::NameLog)?;
        if self.not_read.total().is_multiple_of(4096) { self.watch.check_stop() } else { Ok(()) }
    }

    fn index(&mut self, number: u16, source: &Source, prefix: &[u8], section: &Section) -> Result<(), Error> {
        let keyed = |name: &[u8]| [prefix, name].concat();
        match source.kind {
            SourceKind::Tar(_) => index_tar(section, &source.path, |member| match member {
                Member::Record(name, extent) => self.push(number, &keyed(name), Some(extent)),
                Member::NotRead(name, kind) => self.pass_over(kind, &keyed(name)),
            }),
            _ => index_lines(section, &source.path, |line, extent| {
                self.push(number, &line_key(prefix, line), Some(extent))
            }),
        }
    }

    fn add_found(
        &mut self,
        number: u16,
        path: &Path,
        key: &[u8],
        found: Found,
        spool: &mut Spool,
    ) -> Result<(), Error> {
        match found {
            Found::Record => self.push(number, key, None),
            Found::Container(kind) => {
                let source = Source { path: path.to_owned(), kind };
                self.add_container(&source, None, &container_prefix(key), spool)
            }
            Found::NotRead(kind, is_named_as_record) => {
                self.not_regular += u64::from(is_named_as_record);
                self.pass_over(kind, key)
            }
        }
    }
}

/// Enough of a file to tell a Git LFS pointer.
const LFS_POINTER_BYTES: usize = 64;

/// The key of the line of that number.
fn line_key(prefix: &[u8], line: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + 21);
    key.extend_from_slice(prefix);
    // A vector takes whatever is written to it.
    let _ = write!(key, "#{line}");
    key
}

/// A container when it is opened.
enum Opened {
    /// It can be read at random, and is like this.
    AtRandom(File, Metadata),
    /// It can be read once, in order; `None` for standard input.
    Stream(Option<File>),
}

/// Opens a source; one in a bucket is all of the file that it was fetched to.
fn open(source: &Source, fetched: Option<&Section>) -> Result<Opened, Error> {
    let failed = |error| Error::Read { path: source.path.clone(), source: error };
    if source.is_stdin() {
        return Ok(Opened::Stream(None));
    }
    let file = match fetched {
        Some(section) => section.file.try_clone(),
        None => File::open(&source.path),
    };
    let file = file.map_err(failed)?;
    let seen = file.metadata().map_err(failed)?;
    // A FIFO named like a container is read once, as standard input is.
    if !seen.is_file() {
        return Ok(Opened::Stream(Some(file)));
    }
    let mut beginning = [0; LFS_POINTER_BYTES];
    let read = read_at(&file, &mut beginning, 0).map_err(failed)?;
    if is_lfs_pointer(&beginning[..read]) {
        return Err(Error::LfsPointer(source.path.clone()));
    }
    // Where reading at an offset moves the file's own position.
    { &file }.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(match source.kind {
        SourceKind::Lines(Compression::None) | SourceKind::Tar(Compression::None) => {
            Opened::AtRandom(file, seen)
        }
        _ => Opened::Stream(Some(file)),
    })
}

/// A key and its rank while the listing is sorted.
struct Ranked {
    rank: Rank,
    key: KeyRef,
}

fn sorted(arena: KeyArena, sources: Vec<OpenSource>, seed: u64) -> Result<Listing, Error> {
    // Made to measure: a vector that doubles would take half as much again at its peak.
    let mut ranked = Vec::with_capacity(arena.count);
    ranked.extend(arena.iter().map(|key| Ranked { rank: Rank::default(), key }));
    // The place of the rank first holds the key's beginning, which decides nearly every comparison
    // without a look into the arena.
    ranked.par_iter_mut().for_each(|entry| entry.rank = beginning(arena.get(entry.key)));
    let by_rank_then_key =
        |a: &Ranked, b: &Ranked| a.rank.cmp(&b.rank).then_with(|| arena.get(a.key).cmp(arena.get(b.key)));
    ranked.par_sort_unstable_by(by_rank_then_key);
    if let Some(pair) = ranked.windows(2).find(|pair| arena.get(pair[0].key) == arena.get(pair[1].key)) {
        return Err(equal_keys(&arena, &sources, [pair[0].key, pair[1].key]));
    }
    let mut digest = Sha256::new();
    for entry in &ranked {
        digest.update(arena.get(entry.key));
        digest.update([0]);
    }
    let keys_sha256 = digest.finalize().into();
    let ranks = Ranks::new(seed);
    ranked.par_iter_mut().for_each(|entry| entry.rank = ranks.rank(arena.get(entry.key)));
    ranked.par_sort_unstable_by(by_rank_then_key);
    let mut by_rank: Vec<KeyRef> = ranked.into_iter().map(|entry| entry.key).collect();
    // Collected in the memory of the ranks, it would keep all of it.
    by_rank.shrink_to_fit();
    let has_converted = sources.iter().any(|source| matches!(source, OpenSource::Converted { .. }));
    Ok(Listing {
        arena,
        by_rank,
        sources,
        has_converted,
        keys_sha256,
        not_read: Arc::default(),
        not_regular: 0,
    })
}

fn equal_keys(arena: &KeyArena, sources: &[OpenSource], keys: [KeyRef; 2]) -> Error {
    let named = keys.map(|key| {
        let entry = arena.entry(key);
        match (&sources[usize::from(entry.source)], entry.extent) {
            (OpenSource::Files { root, prefix, .. }, _) => {
                root.join(key_as_path(&entry.key[*prefix..])).to_string_lossy().into_owned()
            }
            (
                OpenSource::Held { path, .. } | OpenSource::Reopened { path, .. },
                Some(Extent::Bytes(start, _)),
            ) => {
                format!("{} at byte {start}", path.display())
            }
            (OpenSource::Converted { section, path }, Some(extent)) => {
                format!("{}{}", path.display(), converted_at(section, extent))
            }
            (
                OpenSource::Held { path, .. }
                | OpenSource::Reopened { path, .. }
                | OpenSource::Converted { path, .. },
                _,
            ) => path.display().to_string(),
        }
    });
    let [first, second] = named;
    Error::EqualKeys { key: KeyText(arena.get(keys[0])).to_json(), first, second }
}

/// Where a record that was converted stood in its container, as far as that can be read again.
fn converted_at(section: &Section, extent: Extent) -> String {
    let Extent::Bytes(start, length) = extent else { return String::new() };
    let mut offset = [0; 8];
    let end = section.start + start + length;
    match read_exact_at(&section.file, &mut offset, end - 8) {
        Ok(()) => format!(" at byte {}", u64::from_le_bytes(offset)),
        Err(_) => String::new(),
    }
}

/// The first bytes of `key`, filled up with NULs, which sort before everything.
fn beginning(key: &[u8]) -> Rank {
    let mut beginning = Rank::default();
    let length = key.len().min(beginning.len());
    beginning[..length].copy_from_slice(&key[..length]);
    beginning
}

#[cfg(unix)]
fn key_as_path(key: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(key))
}

#[cfg(not(unix))]
fn key_as_path(key: &[u8]) -> std::borrow::Cow<'_, Path> {
    // A name with half a surrogate pair, which only Windows allows, is then not found: an error, not a loss.
    match String::from_utf8_lossy(key) {
        std::borrow::Cow::Borrowed(text) => std::borrow::Cow::Borrowed(Path::new(text)),
        std::borrow::Cow::Owned(text) => std::borrow::Cow::Owned(PathBuf::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::rank;

    #[test]
    fn keys_come_back_in_rank_order_across_blocks() {
        let mut arena = KeyArena::default();
        let keys: Vec<String> = (0..30_000).map(|n| format!("{n:0>60}.json")).collect();
        for key in &keys {
            arena.push(0, key.as_bytes(), None);
        }
        let listing = sorted(arena, Vec::new(), 7).unwrap();
        let mut expected: Vec<&str> = keys.iter().map(String::as_str).collect();
        expected.sort_by_key(|key| rank(7, key.as_bytes()));
        let listed: Vec<&str> =
            (0..listing.len()).map(|n| std::str::from_utf8(listing.key(n)).unwrap()).collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn equal_keys_are_an_error_that_names_both() {
        let mut arena = KeyArena::default();
        arena.push(0, b"a/x.json", None);
        arena.push(1, b"a/x.json", Some(Extent::Bytes(512, 2)));
        let section = Section { file: Arc::new(tempfile::tempfile().unwrap()), start: 0, length: 0 };
        let sources = vec![
            OpenSource::Files { root: "one/a".into(), prefix: 2, directory: None },
            OpenSource::Held { section, path: "two/a.tar".into(), unit: Unit::File },
        ];
        let error = sorted(arena, sources, 7).unwrap_err().to_string();
        assert!(error.contains("\"a/x.json\"") && error.contains("one/a/x.json"), "{error}");
        assert!(error.contains("two/a.tar at byte 512"), "{error}");
    }
}
