//! The few longest samples of a file, or of a run.

use crate::check::stats::Tokens;

/// How many are kept.
const KEPT: usize = 5;

/// A long sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Long {
    /// Bytes of its line.
    pub bytes: u64,
    /// Which path of the report it stands in.
    pub path: u32,
    /// Its line, counted from 1.
    pub line: u64,
    /// Its tokens.
    pub tokens: Tokens,
}

/// The five longest, the longest first; of equal ones the earlier.
#[derive(Debug, Clone, Default)]
pub struct Longest(Vec<Long>);

impl Longest {
    /// Takes the sample in `line` if it is among the longest. Lines come in ascending order.
    pub fn offer(&mut self, bytes: u64, line: u64, tokens: Tokens) {
        self.insert(Long { bytes, path: 0, line, tokens });
    }

    fn insert(&mut self, long: Long) {
        if self.0.len() == KEPT && self.0[KEPT - 1].bytes >= long.bytes {
            return;
        }
        let place = self.0.partition_point(|kept| kept.bytes >= long.bytes);
        self.0.insert(place, long);
        self.0.truncate(KEPT);
    }

    /// Takes over those of a later block of the file `path`, which begins behind `lines` lines.
    pub fn append(&mut self, later: Longest, path: u32, lines: u64) {
        for long in later.0 {
            self.insert(Long { path, line: long.line + lines, ..long });
        }
    }

    /// The samples, the longest first.
    pub fn samples(&self) -> &[Long] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stay_and_of_equals_the_earlier() {
        let mut run = Longest::default();
        for (path, lengths) in [(0, [3, 9, 3, 1]), (1, [9, 2, 8, 3])] {
            let mut block = Longest::default();
            (1..).zip(lengths).for_each(|(line, bytes)| block.offer(bytes, line, Tokens::default()));
            run.append(block, path, 10);
        }
        let seen: Vec<_> = run.samples().iter().map(|long| (long.bytes, long.path, long.line)).collect();
        assert_eq!(seen, [(9, 0, 12), (9, 1, 11), (8, 1, 13), (3, 0, 11), (3, 0, 13)]);
    }
}
