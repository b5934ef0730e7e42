//! Merges sorted streams into one.
//!
//! What it holds is a few bytes a stream beside the streams themselves. Where two entries are equal the earlier
//! stream comes first, so that the result is one.

use std::cmp::Ordering;

use crate::error::Error;

/// A sorted stream, at one of its entries or behind the last one.
pub trait Stream {
    /// Whether there is no entry any more.
    fn is_over(&self) -> bool;

    /// How the entry of this stream compares to that of another; neither is over.
    fn compare(&self, other: &Self) -> Ordering;

    /// Goes to the next entry.
    ///
    /// # Errors
    /// When it cannot be read.
    fn advance(&mut self) -> Result<(), Error>;
}

/// Sorted streams as one: a heap of those that are not over, the one with the least entry first.
pub struct Merge<S> {
    streams: Vec<S>,
    heap: Vec<u32>,
}

impl<S: Stream> Merge<S> {
    /// Merges `streams`, each at its first entry.
    pub fn new(streams: Vec<S>) -> Merge<S> {
        let heap = (0..streams.len() as u32).filter(|index| !streams[*index as usize].is_over()).collect();
        let mut merge = Merge { streams, heap };
        (0..merge.heap.len() / 2).rev().for_each(|place| merge.sift_down(place));
        merge
    }

    /// The number of the stream with the least entry, and that stream.
    pub fn peek(&self) -> Option<(usize, &S)> {
        let first = *self.heap.first()? as usize;
        Some((first, &self.streams[first]))
    }

    /// All streams.
    pub fn streams(&self) -> &[S] {
        &self.streams
    }

    /// Goes to the next entry.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn advance(&mut self) -> Result<(), Error> {
        let Some(&first) = self.heap.first() else { return Ok(()) };
        self.streams[first as usize].advance()?;
        if self.streams[first as usize].is_over() {
            self.heap.swap_remove(0);
        }
        self.sift_down(0);
        Ok(())
    }

    fn is_before(&self, one: u32, other: u32) -> bool {
        self.streams[one as usize].compare(&self.streams[other as usize]).then(one.cmp(&other)).is_lt()
    }

    fn sift_down(&mut self, mut place: usize) {
        loop {
            let mut least = place;
            for child in [2 * place + 1, 2 * place + 2] {
                if child < self.heap.len() && self.is_before(self.heap[child], self.heap[least]) {
                    least = child;
                }
            }
            if least == place {
                return;
            }
            self.heap.swap(place, least);
            place = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Numbers(Vec<u8>);

    impl Stream for Numbers {
        fn is_over(&self) -> bool {
            self.0.is_empty()
        }

        fn compare(&self, other: &Self) -> Ordering {
            self.0[0].cmp(&other.0[0])
        }

        fn advance(&mut self) -> Result<(), Error> {
            self.0.remove(0);
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn entries_come_sorted_and_equal_ones_by_their_stream(
            mut streams in proptest::collection::vec(proptest::collection::vec(0u8..9, 0..7), 0..9)
        ) {
            streams.iter_mut().for_each(|stream| stream.sort_unstable());
            let mut expected: Vec<(u8, usize)> = streams
                .iter()
                .enumerate()
                .flat_map(|(index, stream)| stream.iter().map(move |number| (*number, index)))
                .collect();
            expected.sort_unstable();
            let mut merge = Merge::new(streams.into_iter().map(Numbers).collect());
            let mut found = Vec::new();
            while let Some((index, stream)) = merge.peek() {
                found.push((stream.0[0], index));
                merge.advance().unwrap();
            }
            prop_assert_eq!(found, expected);
        }
    }
}
