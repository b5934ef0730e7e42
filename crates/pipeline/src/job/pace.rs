//! When to ask next, and how long asking may fail: the numbers behind the polling.

use std::time::Duration;

use ctxtune_service::http::retry::scatter;

/// The first wait between two polls, and the one after a change.
const SHORTEST: Duration = Duration::from_secs(5);
/// What waits grow to while nothing changes: the pace of the service's own examples.
const LONGEST: Duration = Duration::from_secs(60);
/// What a fixed wait is at least.
const LEAST: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Something,
    Nothing,
}

#[derive(Debug)]
pub struct Pace {
    fixed: Option<Duration>,
    grown: Duration,
    seed: u64,
}

impl Pace {
    /// A pace with a `fixed` wait, or one that grows; `seed` is for the jitter.
    pub fn new(fixed: Option<Duration>, seed: u64) -> Pace {
        Pace { fixed, grown: SHORTEST, seed }
    }

    pub(crate) fn hurry(&mut self) {
        self.grown = SHORTEST;
    }

    /// The wait after a poll: jittered, so that many who began together do not ask together.
    pub fn next(&mut self, change: Change) -> Duration {
        self.seed = self.seed.wrapping_add(1);
        let random = scatter(self.seed);
        if let Some(fixed) = self.fixed {
            return fixed.mul_f64(0.9 + 0.2 * random).max(LEAST);
        }
        self.grown = match change {
            Change::Something => SHORTEST,
            Change::Nothing => self.grown.mul_f64(1.5).min(LONGEST),
        };
        self.grown.mul_f64(0.75 + 0.5 * random).clamp(SHORTEST.mul_f64(0.75), LONGEST)
    }
}

/// Since when polling has failed without a break.
#[derive(Debug, Default)]
pub(crate) struct Failing {
    pub since: Option<Duration>,
}

impl Failing {
    pub fn begin(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    /// Does not count `duration`, which is over `now`.
    pub(crate) fn forgive(&mut self, duration: Duration, now: Duration) {
        self.since = self.since.map(|since| since.saturating_add(duration).min(now));
    }

    /// How long it has lasted; zero where it does not fail.
    pub fn lasted(&self, now: Duration) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waits after `count` polls without and then one with a change, in seconds.
    fn waits(fixed: Option<f64>, count: usize) -> Vec<f64> {
        let mut pace = Pace::new(fixed.map(Duration::from_secs_f64), 7);
        let quiet = (0..count).map(|_| Change::Nothing).chain([Change::Something]);
        quiet.map(|change| pace.next(change).as_secs_f64()).collect()
    }

    #[test]
    fn waits_grow_to_a_minute_and_begin_again_after_a_change() {
        let waits = waits(None, 100);
        assert!(waits[..100].iter().all(|wait| (5.0..=60.0).contains(wait)), "{waits:?}");
        assert!(waits[10..100].iter().all(|wait| *wait >= 45.0), "{waits:?}");
        assert!((3.75..=6.25).contains(&waits[100]), "{waits:?}");
    }

    #[test]
    fn a_fixed_wait_is_within_a_tenth_and_never_nothing() {
        assert!(waits(Some(10.0), 100).iter().all(|wait| (9.0..=11.0).contains(wait)));
        assert!(waits(Some(0.0), 10).iter().all(|wait| *wait == 0.25));
    }

    #[test]
    fn forgiven_time_does_not_count() {
        let seconds = Duration::from_secs;
        let mut failing = Failing::default();
        failing.forgive(seconds(50), seconds(100));
        assert_eq!(failing.lasted(seconds(100)), Duration::ZERO);
        failing.begin(seconds(100));
        failing.begin(seconds(120));
        assert_eq!(failing.lasted(seconds(130)), seconds(30));
        failing.forgive(seconds(20), seconds(130));
        assert_eq!(failing.lasted(seconds(140)), seconds(20));
        failing.forgive(seconds(500), seconds(140));
        assert_eq!(failing.lasted(seconds(150)), seconds(10));
    }
}
