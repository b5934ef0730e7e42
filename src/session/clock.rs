//! The real clock: time of day, time that goes on while the machine sleeps, waits that a signal ends.
//!
//! The one place that reads a clock of the system for what waits. It must not wait longer than a step without
//! looking at the signals.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use ctxtune_pipeline::Signals;
use ctxtune_service::{Clock, Stopped};

/// The longest sleep between two looks at the signals.
const STEP: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct SystemClock {
    signals: Signals,
    scale: f64,
    #[cfg(not(unix))]
    start: std::time::Instant,
}

impl SystemClock {
    /// A clock that `signals` stop. Every wait is multiplied by `scale`, and time elapses faster by as
    /// much: 1 outside of tests.
    pub fn new(signals: Signals, scale: f64) -> SystemClock {
        SystemClock {
            signals,
            scale: scale.max(1e-9),
            #[cfg(not(unix))]
            start: std::time::Instant::now(),
        }
    }
}

impl SystemClock {
    #[cfg(unix)]
    fn real(&self) -> Duration {
        // On Linux the monotonic clock stands still while the machine sleeps; this one does not.
        #[cfg(target_os = "linux")]
        const ID: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        const ID: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(ID);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    }

    #[cfg(not(unix))]
    fn real(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The clock of a rehearsal server, which is that of the program that starts it.
pub struct ServerClock(pub Arc<dyn Clock>);

impl ctxtune_rehearsal::clock::Clock for ServerClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait(&self, duration: Duration) -> bool {
        self.0.wait(duration).is_ok()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        let scaled = Duration::try_from_secs_f64(self.real().as_secs_f64() / self.scale);
        scaled.unwrap_or(Duration::MAX)
    }

    fn wait(&self, duration: Duration) -> Result<(), Stopped> {
        // A wait too long for a duration is for ever.
        let scaled = Duration::try_from_secs_f64(duration.as_secs_f64() * self.scale);
        let end = self.real().saturating_add(scaled.unwrap_or(Duration::MAX));
        loop {
            if self.is_stopped() {
                return Err(Stopped);
            }
            let left = end.saturating_sub(self.real());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(STEP));
        }
    }

    fn is_stopped(&self) -> bool {
        self.signals.is_stopped()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn time_goes_forward() {
        let clock = SystemClock::new(Signals::default(), 1.0);
        let before = clock.elapsed();
        assert!(clock.elapsed() >= before);
        assert!(clock.now() > Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn a_wait_is_scaled() {
        let clock = SystemClock::new(Signals::default(), 0.0);
        assert_eq!(clock.wait(Duration::from_secs(86_400)), Ok(()));
    }

    #[test]
    fn a_signal_ends_a_wait_of_any_length() {
        let signals = Signals::default();
        let clock = SystemClock::new(signals.clone(), 1.0);
        signals.terminate.store(true, Ordering::Relaxed);
        assert!(clock.is_stopped());
        assert_eq!(clock.wait(Duration::MAX), Err(Stopped));
    }
}
