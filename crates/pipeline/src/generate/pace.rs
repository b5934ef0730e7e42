//! When the next request may leave, where only so many a minute are wanted: a token bucket.
//!
//! It holds one second's worth, and at least one request.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ctxtune_service::{Clock, Stopped};

#[derive(Debug)]
pub struct Pace {
    /// From one request to the next; nothing where there is no limit.
    interval: Option<Duration>,
    /// When the bucket would be full again.
    full_at: Mutex<Option<Duration>>,
}

impl Pace {
    /// At most so many requests a minute; any number without a limit.
    pub fn new(requests_per_minute: Option<f64>) -> Pace {
        let interval = requests_per_minute.and_then(|rate| Duration::try_from_secs_f64(60.0 / rate).ok());
        Pace { interval, full_at: Mutex::new(None) }
    }

    /// Waits for the next request's turn; turns are given in the order in which they are asked for.
    pub fn take(&self, clock: &dyn Clock) -> Result<(), Stopped> {
        let Some(interval) = self.interval else { return Ok(()) };
        let wait = {
            let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = clock.elapsed();
            let later = full_at.unwrap_or(now).max(now).saturating_add(interval);
            *full_at = Some(later);
            later.saturating_sub(now).saturating_sub(interval.max(Duration::from_secs(1)))
        };
        if wait.is_zero() { Ok(()) } else { clock.wait(wait) }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    /// A clock that goes only when somebody waits.
    #[derive(Default)]
    struct FakeClock(Mutex<Duration>);

    impl Clock for FakeClock {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn wait(&self, duration: Duration) -> Result<(), Stopped> {
            *self.0.lock().unwrap() += duration;
            Ok(())
        }

        fn is_stopped(&self) -> bool {
            false
        }
    }

    fn check(rate: Option<f64>, requests: u32, seconds: u64) {
        let clock = FakeClock::default();
        let pace = Pace::new(rate);
        for _ in 0..requests {
            pace.take(&clock).unwrap();
        }
        assert_eq!(clock.elapsed().as_secs(), seconds, "{rate:?}");
    }

    #[test]
    fn no_more_than_the_rate_leave() {
        check(None, 10_000, 0);
        check(Some(60.0), 1, 0);
        check(Some(60.0), 61, 60);
        check(Some(6.0), 7, 60);
        check(Some(600.0), 610, 60);
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let clock = FakeClock::default();
        let pace = Pace::new(Some(120.0));
        pace.take(&clock).unwrap();
        clock.wait(Duration::from_secs(3600)).unwrap();
        for _ in 0..2 {
            pace.take(&clock).unwrap();
        }
        assert_eq!(clock.elapsed(), Duration::from_secs(3600));
        pace.take(&clock).unwrap();
        assert_eq!(clock.elapsed(), Duration::from_millis(3_600_500));
    }
}
