//! How sure a mean is: percentile intervals from records drawn again and again.
//!
//! A resample is as many records as there are, drawn with replacement. Its draws come from a
//! generator of our own (splitmix64, its state the first 8 bytes, big-endian, of
//! SHA-256(`"{seed}:resample:{number}"`); a draw is the high half of its product with the number of records),
//! so that the interval is the same on any machine, on any number of threads, and in any language.
//! Equal draws for every measure and for every set of the same records: differences stay paired.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// The means of a 95 % interval of resamples: from the 2.5th to the 97.5th percentile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    /// The seed.
    pub seed: u64,
    /// How many resamples, at least one.
    pub resamples: u32,
}

const LOW: f64 = 0.025;
const HIGH: f64 = 0.975;

/// The mean of each column of `rows`, of which there is at least one.
pub fn means<const N: usize>(rows: &[[f64; N]]) -> [f64; N] {
    let mut sums = [0.0; N];
    for row in rows {
        add(&mut sums, row);
    }
    sums.map(|sum| sum / rows.len() as f64)
}

/// The interval of the mean of each column of `rows`, of which there is at least one. Draws in the
/// current rayon pool; `None` as soon as `is_stopped`.
pub fn intervals<const N: usize>(
    rows: &[[f64; N]],
    draws: Draws,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Option<[Interval; N]> {
    let resampled: Option<Vec<[f64; N]>> = (0..draws.resamples)
        .into_par_iter()
        .map(|number| (!is_stopped()).then(|| resample(rows, Generator::new(draws.seed, number))))
        .collect();
    let resampled = resampled?;
    let mut column = Vec::with_capacity(resampled.len());
    Some(std::array::from_fn(|measure| {
        column.clear();
        column.extend(resampled.iter().map(|means| means[measure]));
        column.sort_unstable_by(f64::total_cmp);
        Interval { low: quantile(&column, LOW), high: quantile(&column, HIGH) }
    }))
}

fn resample<const N: usize>(rows: &[[f64; N]], mut generator: Generator) -> [f64; N] {
    let mut sums = [0.0; N];
    for _ in rows {
        add(&mut sums, &rows[generator.below(rows.len())]);
    }
    sums.map(|sum| sum / rows.len() as f64)
}

fn add<const N: usize>(sums: &mut [f64; N], row: &[f64; N]) {
    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
}

/// Between the two nearest of `sorted`, in proportion.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let below = place.floor();
    let (low, high) = (sorted[below as usize], sorted[place.ceil() as usize]);
    low + (high - low) * (place - below)
}

/// splitmix64.
#[derive(Debug, Clone)]
struct Generator(u64);

impl Generator {
    fn new(seed: u64, number: u32) -> Generator {
        let digest = Sha256::digest(format!("{seed}:resample:{number}"));
        let state = digest.first_chunk::<8>().expect("a digest has 32 bytes");
        Generator(u64::from_be_bytes(*state))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(values: &[f64], draws: Draws) -> Interval {
        let rows: Vec<[f64; 1]> = values.iter().map(|value| [*value]).collect();
        intervals(&rows, draws, &|| false).unwrap()[0]
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // The published first outputs for the state 0.
        let mut generator = Generator(0);
        assert_eq!([generator.next(), generator.next()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        assert!((0..1000).all(|_| generator.below(7) < 7));
        assert_eq!(generator.below(1), 0);
    }

    #[test]
    fn an_interval_is_known_where_it_can_be() {
        let draws = Draws { seed: 42, resamples: 1000 };
        assert_eq!(interval(&[0.3], draws), Interval { low: 0.3, high: 0.3 });
        assert_eq!(interval(&[0.0, 1.0], draws), Interval { low: 0.0, high: 1.0 });
        // Of 100 fair coins the 95 % lie within 2 standard deviations: 0.5 ± 0.1.
        let coins: Vec<f64> = (0..100).map(|number| f64::from(number % 2)).collect();
        let found = interval(&coins, draws);
        assert!((found.low - 0.4).abs() < 0.021 && (found.high - 0.6).abs() < 0.021, "{found:?}");
        let other = interval(&coins, Draws { seed: 43, ..draws });
        assert!((other.low - found.low).abs() < 0.03, "{other:?}");
    }

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        assert_eq!(quantile(&[1.0], 0.975), 1.0);
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 3.0, 4.0], 0.5), 2.0);
        assert!((quantile(&[0.0, 1.0], 0.025) - 0.025).abs() < 1e-12);
    }

    #[test]
    fn a_stop_is_heard() {
        assert_eq!(intervals(&[[1.0]], Draws { seed: 1, resamples: 5 }, &|| true), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn an_interval_holds_the_mean_on_any_number_of_threads(
            values in proptest::collection::vec(0.0..=1.0f64, 1..60), seed in 0u64..9
        ) {
            let draws = Draws { seed, resamples: 1000 };
            let rows: Vec<[f64; 2]> = values.iter().map(|value| [*value, -value]).collect();
            let [mean, _] = means(&rows);
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| intervals(&rows, draws, &|| false).unwrap())
            };
            let [up, down] = on(1);
            prop_assert!(up.low <= mean + 1e-12 && mean <= up.high + 1e-12, "{:?} {}", up, mean);
            prop_assert!((up.low + down.high).abs() < 1e-9 && (up.high + down.low).abs() < 1e-9);
            prop_assert_eq!([up, down], on(3));
        }
    }
}
