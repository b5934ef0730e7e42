//! Runs chunks of work on all threads of a pool and hands the results on in order, with
//! bounded memory.
//!
//! Chunks are given out one after the other, each to whoever is free; whoever completes
//! the next one in order hands it to the sink together with all that wait behind it.
//! (`par_iter` splits into far-apart ranges, which stalls an ordered, bounded sink.) Two
//! bounds hold the window: chunks given out, and bytes that wait. It knows neither records
//! nor files.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard};

use rayon::ThreadPool;

/// Bytes that may wait for their turn. As many may be read ahead where storage is slow, see `ahead`.
const WINDOW_BYTES: usize = 4 << 20;

/// Beyond this, a chunk waits for its turn and passes on what it has before it goes on:
/// a chunk of huge records must not be held whole.
const PART_BYTES: usize = 1 << 20;

/// What a chunk becomes: something with a size that can be emptied and used again.
pub trait Batch: Send {
    /// Bytes it holds.
    fn bytes(&self) -> usize;
    /// Makes it empty, keeping its room where that is of ordinary size.
    fn clear(&mut self);
}

/// Runs `work(worker, chunk, batch, part)` for each chunk from 0 on and gives the batches to `sink` in the
/// order of the chunks.
///
/// `worker` makes the state of one thread. `feed(worker, chunk)` fetches what the thread needs for its next
/// chunk, or says that there is none; it runs for one chunk at a time, in their order. `work` calls `part`
/// between records: it empties a batch that has grown large. The first error ends everything and is returned.
///
/// # Errors
/// The first error of `feed`, `work` or `sink`.
pub fn run_in_order<W, B, E>(
    pool: &ThreadPool,
    worker: impl Fn() -> W + Sync,
    new_batch: impl Fn() -> B + Sync,
    feed: impl FnMut(&mut W, usize) -> Result<Next, E> + Send,
    work: impl Fn(&mut W, usize, &mut B, &dyn Fn(&mut B) -> Result<(), E>) -> Result<(), E> + Sync,
    sink: impl FnMut(&B) -> Result<(), E> + Send,
) -> Result<(), E>
where
    B: Batch,
    E: Send + Stopped,
{
    let window = Window {
        state: Mutex::new(State {
            claimed: 0,
            next: 0,
            ready: BTreeMap::new(),
            ready_bytes: 0,
            spare: Vec::new(),
            sink_is_busy: false,
            failure: None,
            is_fed: false,
            is_over: false,
        }),
        changed: Condvar::new(),
        feed: Mutex::new(feed),
        sink: Mutex::new(sink),
        // Enough that a slow chunk does not stall the others, few enough to stay small.
        depth: pool.current_num_threads() + 2,
    };
    pool.broadcast(|_| {
        let _end_all_on_panic = EndOnPanic(&window);
        let mut worker = worker();
        while let Some(chunk) = window.claim(&mut worker) {
            let mut batch = window.spare().unwrap_or_else(&new_batch);
            let part = |batch: &mut B| match batch.bytes() > PART_BYTES {
                true => window.pass_part(chunk, batch),
                false => Ok(()),
            };
            let done = work(&mut worker, chunk, &mut batch, &part);
            if let Err(error) = done.and_then(|()| window.complete(chunk, batch)) {
                window.fail(error);
            }
        }
    });
    let state = window.state.into_inner().expect("a panic would have come through broadcast");
    state.failure.map_or(Ok(()), Err)
}

/// Whether there is another chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There is.
    Chunk,
    /// There is none.
    End,
}

impl Next {
    /// For one of so many chunks.
    pub fn of(chunk: usize, chunks: usize) -> Next {
        if chunk < chunks { Next::Chunk } else { Next::End }
    }
}

/// The error with which a worker leaves when another one has failed.
pub trait Stopped {
    /// An error that is never shown, since the first failure is.
    fn stopped() -> Self;
}

impl Stopped for io::Error {
    fn stopped() -> Self {
        io::ErrorKind::Interrupted.into()
    }
}

struct State<B, E> {
    claimed: usize,
    /// The chunk whose turn it is.
    next: usize,
    ready: BTreeMap<usize, B>,
    ready_bytes: usize,
    spare: Vec<B>,
    sink_is_busy: bool,
    failure: Option<E>,
    /// Whether there is no other chunk.
    is_fed: bool,
    is_over: bool,
}

struct Window<B, E, F, S> {
    state: Mutex<State<B, E>>,
    changed: Condvar,
    feed: Mutex<F>,
    sink: Mutex<S>,
    depth: usize,
}

impl<B, E, F, S> Window<B, E, F, S> {
    fn lock(&self) -> MutexGuard<'_, State<B, E>> {
        // A poisoned lock means a panic elsewhere, which broadcast carries to the caller.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<B, E>>) -> MutexGuard<'a, State<B, E>> {
        self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn end(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    fn fail(&self, error: E) {
        let mut state = self.lock();
        if !state.is_over {
            state.failure = Some(error);
        }
        drop(state);
        self.end();
    }
}

impl<B: Batch, E: Stopped, F, S: FnMut(&B) -> Result<(), E>> Window<B, E, F, S> {
    /// The next chunk for this thread, once the window has room for it.
    fn claim<W>(&self, worker: &mut W) -> Option<usize>
    where
        F: FnMut(&mut W, usize) -> Result<Next, E>,
    {
        // Who waits for room keeps the others from the feed: there is none for them either.
        let mut feed = self.feed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let chunk = self.wait_for_room()?;
        match feed(worker, chunk) {
            Ok(Next::Chunk) => {
                self.lock().claimed += 1;
                return Some(chunk);
            }
            Ok(Next::End) => self.lock().is_fed = true,
            Err(error) => self.fail(error),
        }
        None
    }

    /// The number of the next chunk.
    fn wait_for_room(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.is_over || state.is_fed {
                return None;
            }
            let is_first = state.claimed == state.next;
            let has_room = state.claimed < state.next + self.depth && state.ready_bytes < WINDOW_BYTES;
            if is_first || has_room {
                return Some(state.claimed);
            }
            state = self.wait(state);
        }
    }

    fn spare(&self) -> Option<B> {
        self.lock().spare.pop()
    }

    fn give(&self, batch: &B) -> Result<(), E> {
        let mut sink = self.sink.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sink(batch)
    }

    /// Waits for the turn of `chunk` and hands on what it has so far.
    fn pass_part(&self, chunk: usize, batch: &mut B) -> Result<(), E> {
        let mut state = self.lock();
        while state.next != chunk || state.sink_is_busy {
            if state.is_over {
                return Err(E::stopped());
            }
            state = self.wait(state);
        }
        drop(state);
        // It is this chunk's turn, so no other thread touches the sink.
        self.give(batch)?;
        batch.clear();
        Ok(())
    }

    fn complete(&self, chunk: usize, batch: B) -> Result<(), E> {
        let mut state = self.lock();
        state.ready_bytes += batch.bytes();
        state.ready.insert(chunk, batch);
        if state.sink_is_busy {
            // Whoever is at the sink looks again before it leaves.
            return Ok(());
        }
        while let Some(mut batch) = self.take_next(&mut state) {
            state.sink_is_busy = true;
            drop(state);
            let bytes = batch.bytes();
            let given = self.give(&batch);
            batch.clear();
            state = self.lock();
            state.sink_is_busy = false;
            given?;
            state.next += 1;
            state.ready_bytes -= bytes;
            state.spare.push(batch);
            self.changed.notify_all();
        }
        Ok(())
    }

    fn take_next(&self, state: &mut State<B, E>) -> Option<B> {
        if state.is_over {
            return None;
        }
        let next = state.next;
        state.ready.remove(&next)
    }
}

/// Frees the other threads when this one panics, so that the panic can travel.
struct EndOnPanic<'w, B, E, F, S>(&'w Window<B, E, F, S>);

impl<B, E, F, S> Drop for EndOnPanic<'_, B, E, F, S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug, PartialEq)]
    enum TestError {
        At(usize),
        Stopped,
    }

    impl Stopped for TestError {
        fn stopped() -> Self {
            TestError::Stopped
        }
    }

    impl Batch for Vec<u8> {
        fn bytes(&self) -> usize {
            self.len()
        }

        fn clear(&mut self) {
            Vec::clear(self);
        }
    }

    fn pool(threads: usize) -> ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    /// Each chunk gives `records` records of `size` bytes; returns the bytes in sink order.
    fn run(
        threads: usize,
        chunks: usize,
        records: usize,
        size: usize,
        fail_at: Option<usize>,
    ) -> Result<Vec<u8>, TestError> {
        let mut written = Vec::new();
        run_in_order(
            &pool(threads),
            || (),
            Vec::new,
            |(), chunk| Ok(Next::of(chunk, chunks)),
            |(), chunk, batch: &mut Vec<u8>, part| {
                for _ in 0..records {
                    batch.resize(batch.len() + size, chunk as u8);
                    part(batch)?;
                }
                if fail_at == Some(chunk) { Err(TestError::At(chunk)) } else { Ok(()) }
            },
            |batch: &Vec<u8>| {
                written.extend_from_slice(batch);
                Ok(())
            },
        )?;
        Ok(written)
    }

    #[test]
    fn chunks_arrive_in_order_on_any_number_of_threads() {
        for threads in [1, 2, 5] {
            for (chunks, records, size) in [(0, 1, 1), (1, 3, 10), (100, 3, 10), (6, 3, 700_000)] {
                let expected: Vec<u8> =
                    (0..chunks).flat_map(|chunk| vec![chunk as u8; records * size]).collect();
                assert!(
                    run(threads, chunks, records, size, None).unwrap() == expected,
                    "{threads} {chunks} {size}"
                );
            }
        }
    }

    #[test]
    fn the_first_error_ends_all_threads() {
        for threads in [1, 2, 5] {
            for size in [1, 2 << 20] {
                assert_eq!(run(threads, 100, 1, size, Some(3)), Err(TestError::At(3)));
            }
        }
    }

    #[test]
    fn the_window_bounds_what_waits() {
        let alive = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        run_in_order(
            &pool(4),
            || (),
            Vec::new,
            |(), chunk| Ok(Next::of(chunk, 500)),
            |(), chunk, batch: &mut Vec<u8>, _| {
                let now = alive.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                batch.push(chunk as u8);
                Ok::<(), TestError>(())
            },
            |_: &Vec<u8>| {
                alive.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            },
        )
        .unwrap();
        assert!(most.load(Ordering::SeqCst) <= 4 + 2, "{most:?} chunks at once");
    }

    #[test]
    fn a_thread_works_on_what_it_was_fed() {
        for threads in [1, 2, 5] {
            let mut rest = (0..20).collect::<Vec<u8>>().into_iter();
            let mut written = Vec::new();
            let ran = run_in_order(
                &pool(threads),
                || 0,
                Vec::new,
                |fed, _| {
                    Ok(rest.next().map_or(Next::End, |byte| {
                        *fed = byte;
                        Next::Chunk
                    }))
                },
                |fed, _, batch: &mut Vec<u8>, _| {
                    batch.push(*fed);
                    Ok::<(), TestError>(())
                },
                |batch: &Vec<u8>| {
                    written.extend_from_slice(batch);
                    Ok(())
                },
            );
            assert_eq!((ran, written), (Ok(()), (0..20).collect()));
        }
    }

    #[test]
    fn a_panic_travels_to_the_caller() {
        let caught = std::panic::catch_unwind(|| {
            run_in_order(
                &pool(3),
                || (),
                Vec::new,
                |(), chunk| Ok(Next::of(chunk, 50)),
                |(), chunk, batch: &mut Vec<u8>, _| {
                    assert!(chunk != 7, "chunk seven");
                    batch.push(0);
                    Ok::<(), TestError>(())
                },
                |_: &Vec<u8>| Ok(()),
            )
        });
        assert!(caught.is_err());
    }
}
