//! Opens and reads files before their turn, on threads of its own, where that takes long.
//!
//! Converters read their files themselves: from the page cache that takes microseconds. Where they measure
//! that it takes longer (a network file system, a cold disk), readers start, as many as hide the measured
//! latency, and end again where reads have become fast. A reader takes the beginning of a file and hands it
//! over; it may only decline: whatever it cannot read is read again by a converter, which says what is wrong.
//! So neither the result nor an error depends on it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};
use std::time::Duration;

use crate::error::Error;
use crate::record::reject::RejectReason;
use crate::source::list::{Listing, Place};
use crate::source::read::Effort;
use crate::source::records::RecordBytes;
use crate::watch::Watch;

/// Larger than most records. The rest of a larger one is read by its converter.
const HEAD_BYTES: usize = 32 << 10;

/// Heads that are being read or wait for their converter: half of what may wait in memory, see `window`.
const HEADS: usize = 128;

/// The most readers there are.
const MAX_READERS: usize = 64;

/// Less is not worth a thread that waits.
const SLOW: Duration = Duration::from_micros(250);

/// About what it takes to convert a record: how often a converter wants the next one.
const CONVERSION: Duration = Duration::from_micros(20);

/// Reads of which the fastest is the latency: one that was kept waiting by other work says nothing.
const SAMPLE: usize = 4;

/// A reader needs no deep stack.
const STACK_BYTES: usize = 128 << 10;

/// The order in which the records of a pass are visited, chunk by chunk.
pub trait Visits: Sync {
    /// How many chunks there are.
    fn chunks(&self) -> usize;
    /// The numbers of the visits in `chunk`.
    fn of_chunk(&self, chunk: usize) -> Range<usize>;
    /// The position in rank order of the record of this visit.
    fn position(&self, visit: usize) -> u32;
}

/// One visit of a pass.
#[derive(Debug, Clone, Copy)]
pub struct Visit {
    /// The chunk it belongs to.
    pub chunk: usize,
    /// Its number.
    pub number: usize,
    /// The position of its record in rank order.
    pub position: u32,
}

/// The beginning of a file.
struct Head {
    buffer: Vec<u8>,
    length: usize,
    /// The file, where there may be more of it.
    rest: Option<File>,
}

impl Head {
    /// Reads the beginning of the file at `path` into `buffer`.
    fn read(path: &Path, mut buffer: Vec<u8>) -> io::Result<Head> {
        let mut file = File::open(path)?;
        buffer.resize(HEAD_BYTES, 0);
        let length = file.read(&mut buffer)?;
        let rest = (length == buffer.len()).then_some(file);
        Ok(Head { buffer, length, rest })
    }
}

/// Calls `convert` with the readers of one pass, which end with it.
pub fn with_readers<T>(
    listing: &Listing,
    visits: &dyn Visits,
    converters: usize,
    watch: &dyn Watch,
    convert: impl FnOnce(&ReadAhead<'_>) -> T,
) -> T {
    let ahead = Ahead {
        listing,
        visits,
        converters,
        watch,
        claimed: (0..visits.chunks())
            .map(|chunk| Claimed(AtomicUsize::new(visits.of_chunk(chunk).start)))
            .collect(),
        state: Mutex::new(State {
            heads: BTreeMap::new(),
            spare: Vec::new(),
            first_chunk: 0,
            readers: 0,
            is_over: false,
        }),
        read: Condvar::new(),
        taken: Condvar::new(),
    };
    std::thread::scope(|scope| {
        let _end = End { ahead: &ahead, only_on_panic: false };
        convert(&ReadAhead { ahead: &ahead, start: &|latency| ahead.start_readers(scope, latency) })
    })
}

/// The readers of a pass, if there are any.
pub struct ReadAhead<'r> {
    ahead: &'r Ahead<'r>,
    /// Starts as many as a latency asks for.
    start: &'r (dyn Fn(Duration) + Sync),
}

impl<'r> ReadAhead<'r> {
    /// What one converter reads with.
    pub fn turns(&'r self) -> Turns<'r> {
        Turns { readers: self, chunk: usize::MAX, latency: Latency::default() }
    }
}

/// One converter's reads: what was read ahead, and else by itself.
pub struct Turns<'r> {
    readers: &'r ReadAhead<'r>,
    chunk: usize,
    /// Of the first reads of the chunk.
    latency: Latency,
}

impl Turns<'_> {
    /// Gets the record of `visit` to the start of the buffer of `bytes`, as [`RecordBytes::read`] does. The
    /// visits of a chunk come in their order, and all to one converter.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn read(
        &mut self,
        visit: Visit,
        bytes: &mut RecordBytes<'_>,
    ) -> Result<Result<usize, RejectReason>, Error> {
        let ahead = self.readers.ahead;
        if visit.chunk != self.chunk {
            (self.chunk, self.latency) = (visit.chunk, Latency::default());
        }
        let is_own = ahead.claimed[visit.chunk].claim(visit.number);
        match if is_own { None } else { ahead.wait_for(visit.number) } {
            Some(head) => {
                let read = bytes.read_on(visit.position as usize, &head.buffer[..head.length], head.rest);
                ahead.lock().spare.push(head.buffer);
                read
            }
            None if self.latency.is_known() => bytes.read(visit.position as usize, Effort::OneRead),
            None => self.read_timed(visit, bytes),
        }
    }

    /// Passes over `visit`, whose record is no file.
    pub fn pass(&mut self, visit: Visit) {
        let ahead = self.readers.ahead;
        if !ahead.claimed[visit.chunk].claim(visit.number) {
            // Declined by the reader that has claimed it.
            ahead.wait_for(visit.number);
        }
    }

    fn read_timed(
        &mut self,
        visit: Visit,
        bytes: &mut RecordBytes<'_>,
    ) -> Result<Result<usize, RejectReason>, Error> {
        let watch = self.readers.ahead.watch;
        let start = watch.elapsed();
        let read = bytes.read(visit.position as usize, Effort::OneRead)?;
        // The rest of a large record says nothing of how long it takes to get to it.
        if read.as_ref().is_ok_and(|length| *length < HEAD_BYTES) {
            self.latency.add(watch.elapsed().saturating_sub(start));
            if self.latency.is_known() {
                (self.readers.start)(self.latency.fastest);
            }
        }
        Ok(read)
    }
}

/// How many readers keep `converters` busy where a read takes `latency`.
fn readers_for(latency: Duration, converters: usize) -> usize {
    if latency < SLOW {
        return 0;
    }
    let visits = usize::try_from(latency.as_nanos() / CONVERSION.as_nanos()).unwrap_or(usize::MAX);
    visits.saturating_mul(converters).min(MAX_READERS)
}

/// How long some reads in a row take.
struct Latency {
    reads: usize,
    fastest: Duration,
}

impl Default for Latency {
    fn default() -> Self {
        Latency { reads: 0, fastest: Duration::MAX }
    }
}

impl Latency {
    fn add(&mut self, duration: Duration) {
        self.reads += 1;
        self.fastest = self.fastest.min(duration);
    }

    fn is_known(&self) -> bool {
        self.reads == SAMPLE
    }
}

/// The first visit of a chunk that nobody has claimed; on a cache line of its own, since each converter
/// counts in another one.
#[repr(align(64))]
struct Claimed(AtomicUsize);

impl Claimed {
    /// Whether `visit` was the next one, and is the caller's now.
    fn claim(&self, visit: usize) -> bool {
        self.0.compare_exchange(visit, visit + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// What readers and converters share.
struct Ahead<'r> {
    listing: &'r Listing,
    visits: &'r dyn Visits,
    converters: usize,
    watch: &'r dyn Watch,
    /// By chunk.
    claimed: Vec<Claimed>,
    state: Mutex<State>,
    /// A head was read.
    read: Condvar,
    /// A head was taken.
    taken: Condvar,
}

struct State {
    /// By visit.
    heads: BTreeMap<usize, HeadState>,
    spare: Vec<Vec<u8>>,
    /// All visits of the chunks before this one are claimed.
    first_chunk: usize,
    readers: usize,
    is_over: bool,
}

/// What became of a visit that a reader has claimed.
enum HeadState {
    Reading,
    Read(Head),
    Declined,
}

impl Ahead<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A poisoned lock means a panic elsewhere, which the scope carries to the caller.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts as many readers as `latency` asks for, or as the system allows.
    fn start_readers<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, latency: Duration) {
        let needed = readers_for(latency, self.converters);
        if needed == 0 {
            return;
        }
        let mut state = self.lock();
        while state.readers < needed {
            let reader = Builder::new().name(format!("read-{}", state.readers)).stack_size(STACK_BYTES);
            if reader.spawn_scoped(scope, || self.run_reader()).is_err() {
                return;
            }
            state.readers += 1;
        }
    }

    /// The head of a visit that a reader has claimed; `None` where it has declined.
    fn wait_for(&self, visit: usize) -> Option<Head> {
        let is_reading =
            |state: &mut State| matches!(state.heads.get(&visit), Some(HeadState::Reading)) && !state.is_over;
        let waited = self.read.wait_while(self.lock(), is_reading);
        let outcome = waited.unwrap_or_else(PoisonError::into_inner).heads.remove(&visit);
        self.taken.notify_one();
        match outcome {
            Some(HeadState::Read(head)) => Some(head),
            _ => None,
        }
    }

    fn run_reader(&self) {
        let _end_on_panic = End { ahead: self, only_on_panic: true };
        let mut path = PathBuf::new();
        let mut latency = Latency::default();
        while let Some((visit, buffer)) = self.claim(&latency) {
            if latency.is_known() {
                latency = Latency::default();
            }
            let start = self.watch.elapsed();
            let outcome = match self.listing.place(self.visits.position(visit) as usize, &mut path) {
                Place::File => Head::read(&path, buffer).map_or(HeadState::Declined, HeadState::Read),
                _ => HeadState::Declined,
            };
            latency.add(self.watch.elapsed().saturating_sub(start));
            self.lock().heads.insert(visit, outcome);
            self.read.notify_all();
        }
    }

    /// The next visit for a reader whose last reads took `latency`, and room for what it reads; `None` where
    /// it is to end.
    fn claim(&self, latency: &Latency) -> Option<(usize, Vec<u8>)> {
        let is_full = |state: &mut State| state.heads.len() >= HEADS && !state.is_over;
        let mut state = self.taken.wait_while(self.lock(), is_full).unwrap_or_else(PoisonError::into_inner);
        let is_fast = latency.is_known() && latency.fastest < SLOW / 2;
        let visit = if state.is_over || is_fast { None } else { self.next(&mut state) };
        match visit {
            Some(visit) => {
                state.heads.insert(visit, HeadState::Reading);
                Some((visit, state.spare.pop().unwrap_or_default()))
            }
            None => {
                state.readers -= 1;
                None
            }
        }
    }

    /// Claims the first visit that nobody has claimed.
    fn next(&self, state: &mut State) -> Option<usize> {
        while let Some(claimed) = self.claimed.get(state.first_chunk) {
            let end = self.visits.of_chunk(state.first_chunk).end;
            let visit = claimed.0.load(Ordering::Relaxed);
            if visit >= end {
                state.first_chunk += 1;
            } else if claimed.claim(visit) {
                return Some(visit);
            }
        }
        None
    }
}

/// Ends the readers: with the pass, or where one of them panics and a converter would wait for it.
struct End<'a, 'r> {
    ahead: &'a Ahead<'r>,
    only_on_panic: bool,
}

impl Drop for End<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() || !self.only_on_panic {
            self.ahead.lock().is_over = true;
            self.ahead.taken.notify_all();
            self.ahead.read.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::record::reject::Code;
    use crate::source::list::{Corpus, list};
    use crate::source::spool::Spool;
    use crate::source::{Containers, Source};

    /// A clock that goes on by so much whenever somebody looks at it.
    struct Clock {
        step: Duration,
        looks: AtomicU64,
    }

    impl Watch for Clock {
        fn listed(&self, _: u64) {}
        fn converted(&self, _: u64, _: u64, _: u64) {}
        fn publishing(&self, _: &str) {}
        fn is_stopped(&self) -> bool {
            false
        }
        fn elapsed(&self) -> Duration {
            self.step * self.looks.fetch_add(1, Ordering::Relaxed) as u32
        }
    }

    /// Chunks of fifty records in rank order.
    struct InOrder(usize);

    impl Visits for InOrder {
        fn chunks(&self) -> usize {
            self.0.div_ceil(50)
        }
        fn of_chunk(&self, chunk: usize) -> Range<usize> {
            chunk * 50..self.0.min(chunk * 50 + 50)
        }
        fn position(&self, visit: usize) -> u32 {
            visit as u32
        }
    }

    const FILES: usize = 400;

    /// Files of which every seventh is longer than a head, and every hundredth than a record may be.
    fn content(number: usize) -> Vec<u8> {
        let length = match number {
            number if number % 100 == 99 => 300_000,
            number if number % 7 == 6 => HEAD_BYTES + number,
            number => number,
        };
        vec![number as u8; length]
    }

    /// Reads a directory of files one by one, where each look at the clock moves it by `step`, and expects what each
    /// file reads as. The most readers there were.
    fn most_readers(step: Duration) -> usize {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..FILES {
            std::fs::write(dir.path().join(format!("{number}.json")), content(number)).unwrap();
        }
        let watch = Clock { step, looks: AtomicU64::new(0) };
        let sources = [Source::of(dir.path(), Containers::Skip).unwrap()];
        let corpus = Corpus {
            sources: &sources,
            skip: None,
            within: b"",
            seed: 7,
            convert: None,
            converts_plain_files: false,
        };
        let listing = list(&corpus, &mut Spool::new(None, 0), &watch).unwrap();
        std::fs::remove_file(dir.path().join("123.json")).unwrap();
        let visits = InOrder(listing.len());
        let mut most = 0;
        with_readers(&listing, &visits, 2, &watch, |readers| {
            let (mut turns, mut bytes) = (readers.turns(), RecordBytes::new(&listing, 200_000));
            for chunk in 0..visits.chunks() {
                for number in visits.of_chunk(chunk) {
                    let read = turns.read(Visit { chunk, number, position: number as u32 }, &mut bytes);
                    let key = std::str::from_utf8(listing.key(number)).unwrap();
                    let expected = content(key.strip_suffix(".json").unwrap().parse().unwrap());
                    assert_eq!(read.is_err(), key == "123.json", "{key}");
                    match read {
                        Ok(Ok(length)) => assert!(bytes.buffer()[..length] == expected, "{key}"),
                        Ok(Err(reason)) => {
                            assert_eq!((reason.code, expected.len()), (Code::TooLarge, 300_000))
                        }
                        Err(Error::Read { path, .. }) => assert_eq!(path, dir.path().join("123.json")),
                        Err(error) => panic!("{error}"),
                    }
                    most = most.max(readers.ahead.lock().readers);
                }
            }
        });
        most
    }

    #[test]
    fn as_many_readers_as_hide_the_latency() {
        let check = |micros, readers| assert_eq!(readers_for(Duration::from_micros(micros), 2), readers);
        check(249, 0);
        check(250, 24);
        check(500, 50);
        check(1_000_000_000, MAX_READERS);
    }

    #[test]
    fn no_reader_starts_where_reads_are_fast() {
        assert_eq!(most_readers(Duration::from_micros(249)), 0);
    }

    #[test]
    fn readers_start_where_reads_are_slow_and_change_nothing() {
        assert_eq!(most_readers(Duration::from_millis(4)), MAX_READERS);
    }
}
