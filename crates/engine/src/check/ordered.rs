//! Runs the blocks of a file on all threads and hands the results on in the order of the file.
//!
//! One shared counter gives out blocks; whoever completes the next one in order hands it
//! on together with all that wait behind it. Results are small (counts, a few findings),
//! so nothing holds back a thread that is ahead. It knows neither lines nor files.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::ThreadPool;

/// Runs `work(worker, block)` for each block in `0..blocks` and gives the results to `sink` in that
/// order, until it breaks. The workers come back, in no particular order.
///
/// # Errors
/// The first error of `work`.
pub fn in_order<W: Send, R: Send, E: Send>(
    pool: &ThreadPool,
    blocks: usize,
    worker: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, usize) -> Result<R, E> + Sync,
    sink: impl FnMut(R) -> ControlFlow<()> + Send,
) -> Result<Vec<W>, E> {
    let next_block = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    let queue = Mutex::new(Queue { next: 0, waiting: BTreeMap::new(), failure: None, sink });
    let workers = pool.broadcast(|_| {
        let mut worker = worker();
        while !is_over.load(Ordering::Relaxed) {
            let block = next_block.fetch_add(1, Ordering::Relaxed);
            if block >= blocks {
                break;
            }
            let result = work(&mut worker, block);
            // A poisoned lock means a panic elsewhere, which broadcast carries to the caller.
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.hand_on(block, result).is_break() {
                is_over.store(true, Ordering::Relaxed);
            }
        }
        worker
    });
    let queue = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    queue.failure.map_or(Ok(workers), Err)
}

struct Queue<R, E, S> {
    /// The block whose turn it is.
    next: usize,
    waiting: BTreeMap<usize, R>,
    failure: Option<E>,
    sink: S,
}

impl<R, E, S: FnMut(R) -> ControlFlow<()>> Queue<R, E, S> {
    fn hand_on(&mut self, block: usize, result: Result<R, E>) -> ControlFlow<()> {
        match result {
            Ok(result) => self.waiting.insert(block, result),
            Err(error) => {
                self.failure.get_or_insert(error);
                return ControlFlow::Break(());
            }
        };
        while let Some(result) = self.waiting.remove(&self.next) {
            self.next += 1;
            if (self.sink)(result).is_break() {
                // Nothing that is still under way will have its turn.
                self.next = usize::MAX;
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(
        threads: usize,
        blocks: usize,
        sink: impl FnMut(usize) -> ControlFlow<()> + Send,
    ) -> Result<(), usize> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let work = |_: &mut (), block: usize| if block == 77 { Err(block) } else { Ok(block * 2) };
        in_order(&pool, blocks, || (), work, sink).map(|_| ())
    }

    #[test]
    fn results_come_in_order_on_any_number_of_threads() {
        for threads in [1, 2, 5] {
            let mut seen = Vec::new();
            run(threads, 77, |result| {
                seen.push(result);
                ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(seen, (0..77).map(|block| block * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_failure_or_a_break_ends_it() {
        assert_eq!(run(3, 100, |_| ControlFlow::Continue(())), Err(77));
        let mut seen = 0;
        let result = run(3, 70, |_| {
            seen += 1;
            if seen == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((result, seen), (Ok(()), 5));
    }
}
