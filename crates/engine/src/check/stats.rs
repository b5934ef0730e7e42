//! Lengths of samples in a few kilobytes, however many samples there are.
//!
//! A histogram with 64 steps to each doubling gives any quantile to within 1.6 %. Token
//! counts are ranges, since without a tokenizer they are estimates from lengths.

use serde::Serialize;

/// Steps to each doubling.
const STEPS: u64 = 64;

/// What a message costs beside its text, counted in bytes of text: three tokens at best, six at worst.
pub const MESSAGE_WEIGHT: u64 = 15;

/// How often each length occurred.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    least: u64,
    most: u64,
}

/// One bar of a drawn histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// The least length in it, in bytes.
    pub from: u64,
    /// The greatest length in it, in bytes.
    pub to: u64,
    /// How many samples.
    pub samples: u64,
}

impl Histogram {
    /// Adds a length.
    pub fn record(&mut self, length: u64) {
        let bucket = bucket_of(length);
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.least = if self.count == 0 { length } else { self.least.min(length) };
        self.most = self.most.max(length);
        self.count += 1;
        self.sum += u128::from(length);
    }

    /// Adds all lengths of `other`.
    pub fn merge(&mut self, other: &Histogram) {
        if other.count == 0 {
            return;
        }
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(bucket, more)| *bucket += more);
        self.least = if self.count == 0 { other.least } else { self.least.min(other.least) };
        self.most = self.most.max(other.most);
        self.count += other.count;
        self.sum += other.sum;
    }

    /// How many lengths there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All lengths together.
    pub fn sum(&self) -> u64 {
        u64::try_from(self.sum).unwrap_or(u64::MAX)
    }

    /// The shortest; 0 of none.
    pub fn least(&self) -> u64 {
        self.least
    }

    /// The longest; 0 of none.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// The mean, rounded down; 0 of none.
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(u128::from(self.count)).map_or(0, |mean| mean as u64)
    }

    /// The length that `percent` per cent do not exceed: exact below 64, else at most 1.6 % too
    /// high. 0 of none.
    pub fn quantile(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, samples) in self.buckets.iter().enumerate() {
            seen += samples;
            if seen >= rank {
                return (least_of(bucket + 1) - 1).clamp(self.least, self.most);
            }
        }
        self.most
    }

    /// At most `limit` bars from the shortest length to the longest, each wider than the one before
    /// by the same factor.
    pub fn bars(&self, limit: usize) -> Vec<Bar> {
        let (first, last) = (bucket_of(self.least), bucket_of(self.most));
        if self.count == 0 {
            return Vec::new();
        }
        let width = (last + 1 - first).div_ceil(limit.max(1));
        let bar = |start: usize| Bar {
            from: least_of(start).max(self.least),
            to: (least_of(start + width) - 1).min(self.most),
            samples: self.buckets[start..(start + width).min(last + 1)].iter().sum(),
        };
        (first..=last).step_by(width).map(bar).collect()
    }
}

/// The bucket that holds `length`.
fn bucket_of(length: u64) -> usize {
    if length < STEPS {
        return length as usize;
    }
    let shift = u64::from(length.ilog2() - STEPS.ilog2());
    (shift * STEPS + (length >> shift)) as usize
}

/// The least length in `bucket`.
fn least_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    (STEPS + bucket % STEPS) << shift
}

/// A number of tokens, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// The fewest.
    pub low: u64,
    /// The most.
    pub high: u64,
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, more: Tokens) {
        self.low += more.low;
        self.high += more.high;
    }
}

/// Tokens of many samples.
#[derive(Debug, Clone, Default)]
pub struct TokenLengths {
    /// The fewest of each.
    pub low: Histogram,
    /// The most of each.
    pub high: Histogram,
    /// Samples of which they are not certain although they were counted.
    pub about: u64,
}

impl TokenLengths {
    /// Adds a sample.
    pub fn record(&mut self, tokens: Tokens, is_about: bool) {
        self.low.record(tokens.low);
        self.high.record(tokens.high);
        self.about += u64::from(is_about);
    }

    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &TokenLengths) {
        self.low.merge(&other.low);
        self.high.merge(&other.high);
        self.about += other.about;
    }

    /// The tokens of all samples.
    pub fn total(&self) -> Tokens {
        Tokens { low: self.low.sum(), high: self.high.sum() }
    }
}

/// The tokens of a sample whose texts have `weight` bytes, with [`MESSAGE_WEIGHT`] more a message: five bytes a
/// token, as in plain English, to two and a half, as in dense JSON.
pub fn estimate(weight: u64) -> Tokens {
    Tokens { low: weight.div_ceil(5), high: (weight * 2).div_ceil(5) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lengths: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        lengths.into_iter().for_each(|length| histogram.record(length));
        histogram
    }

    #[test]
    fn each_length_lies_in_its_bucket() {
        for length in (0..5000).chain([1 << 20, (1 << 30) + 12345, u64::from(u32::MAX), 1 << 40]) {
            let bucket = bucket_of(length);
            assert!(least_of(bucket) <= length && length < least_of(bucket + 1), "{length}");
        }
    }

    #[test]
    fn quantiles_are_near_the_true_ones() {
        let histogram = of((1..=10_000).rev());
        assert_eq!((histogram.least(), histogram.most(), histogram.mean()), (1, 10_000, 5000));
        for percent in [1, 25, 50, 90, 99, 100] {
            let (exact, found) = (percent * 100, histogram.quantile(percent));
            assert!(exact <= found && found <= exact + exact / 60 + 1, "{percent}: {found}");
        }
        assert_eq!((of([]).quantile(50), of([7]).quantile(1), of([5, 9]).quantile(50)), (0, 7, 5));
    }

    #[test]
    fn parts_make_the_whole() {
        let mut merged = of([1, 500, 9]);
        merged.merge(&of([]));
        merged.merge(&of([70_000]));
        let whole = of([1, 9, 500, 70_000]);
        assert_eq!((merged.count(), merged.least(), merged.most()), (4, 1, 70_000));
        assert_eq!(merged.bars(8), whole.bars(8));
    }

    #[test]
    fn bars_hold_everything_once() {
        for lengths in [vec![5], vec![100, 100_000], (1..3000).collect()] {
            let histogram = of(lengths.iter().copied());
            let bars = histogram.bars(8);
            assert!(bars.len() <= 8);
            assert_eq!(bars.iter().map(|bar| bar.samples).sum::<u64>(), lengths.len() as u64);
            assert_eq!((bars[0].from, bars[bars.len() - 1].to), (histogram.least(), histogram.most()));
        }
        assert!(of([]).bars(8).is_empty());
    }
}
