//! What has been spent, and whether the next request may be paid for.
//!
//! Separate because a cap is a promise: before a request leaves, the most that it can cost is set
//! aside, and one that could break the cap does not leave. What a server does not say, or what was
//! lost on the way, counts as that most. Tokens are what is counted; a price makes dollars of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ctxtune_service::together::chat::{Charge, Usage};
use ctxtune_service::{Clock, Stopped};

/// How often a request that waits for others to be settled looks again.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub struct Budget {
    /// Dollars a million tokens.
    price: Option<f64>,
    /// In dollars.
    cap: Option<f64>,
    spent: Mutex<Spent>,
    is_over: AtomicBool,
    is_closed: AtomicBool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// As servers said.
    pub known: Usage,
    /// The most that unknown charges can be.
    pub unknown: u64,
    reserved: u64,
}

impl Spent {
    #[must_use]
    pub fn since(self, before: Spent) -> Spent {
        Spent {
            known: Usage {
                prompt_tokens: self.known.prompt_tokens - before.known.prompt_tokens,
                completion_tokens: self.known.completion_tokens - before.known.completion_tokens,
            },
            unknown: self.unknown - before.unknown,
            reserved: self.reserved,
        }
    }

    fn most(&self) -> u64 {
        self.known.total().saturating_add(self.unknown).saturating_add(self.reserved)
    }
}

impl Budget {
    /// A budget of `cap` dollars at `price` dollars a million tokens; without one of them there is no limit.
    pub fn new(price: Option<f64>, cap: Option<f64>) -> Budget {
        Budget { price, cap, ..Budget::default() }
    }

    pub fn dollars(&self, tokens: u64) -> Option<f64> {
        Some(self.price? * tokens as f64 / 1e6)
    }

    pub fn spent(&self) -> Spent {
        *self.lock()
    }

    /// Whether a request did not leave for the cap's sake.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Lets no further request leave: the run has ended for another reason.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Sets aside `most` tokens for a request. Where they are there only if others come out cheaper, waits for
    /// those. Fails when the cap forbids it, which [`Budget::is_over`] then tells; when it is closed, or a
    /// signal comes.
    pub fn reserve(&self, most: u64, clock: &dyn Clock) -> Result<(), Stopped> {
        loop {
            if self.is_over() || self.is_closed.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            {
                let mut spent = self.lock();
                let wanted = spent.most().saturating_add(most);
                let is_within = match (self.cap, self.dollars(wanted)) {
                    (Some(cap), Some(dollars)) => dollars <= cap,
                    _ => true,
                };
                if is_within {
                    spent.reserved += most;
                    return Ok(());
                }
                if spent.reserved == 0 {
                    self.is_over.store(true, Ordering::Relaxed);
                    return Err(Stopped);
                }
            }
            clock.wait(LOOK)?;
        }
    }

    /// Takes what the request, for which `most` tokens were set aside, really cost.
    pub fn settle(&self, most: u64, charge: Charge) {
        let mut spent = self.lock();
        spent.reserved = spent.reserved.saturating_sub(most);
        match charge {
            Charge::Nothing => {}
            Charge::Known(usage) => {
                spent.known.prompt_tokens += usage.prompt_tokens;
                spent.known.completion_tokens += usage.completion_tokens;
            }
            Charge::Unknown => spent.unknown += most,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    /// A clock on which nothing can be waited for.
    struct NoClock;

    impl Clock for NoClock {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            Duration::ZERO
        }

        fn wait(&self, _: Duration) -> Result<(), Stopped> {
            Err(Stopped)
        }

        fn is_stopped(&self) -> bool {
            true
        }
    }

    fn usage(prompt_tokens: u64, completion_tokens: u64) -> Charge {
        Charge::Known(Usage { prompt_tokens, completion_tokens })
    }

    #[test]
    fn a_request_that_could_break_the_cap_does_not_leave() {
        let budget = Budget::new(Some(1.0), Some(3.0));
        budget.reserve(2_000_000, &NoClock).unwrap();
        assert_eq!(budget.reserve(2_000_000, &NoClock), Err(Stopped), "it would wait for the other");
        assert!(!budget.is_over());
        budget.settle(2_000_000, usage(200_000, 300_000));
        budget.reserve(2_000_000, &NoClock).unwrap();
        budget.settle(2_000_000, Charge::Unknown);
        assert_eq!(budget.reserve(500_001, &NoClock), Err(Stopped));
        assert!(budget.is_over());
        let spent = budget.spent();
        assert_eq!((spent.known.total(), spent.unknown, spent.reserved), (500_000, 2_000_000, 0));
        assert_eq!(budget.dollars(2_500_000), Some(2.5));
    }

    #[test]
    fn without_a_cap_or_a_price_everything_may_leave() {
        for (price, cap) in [(None, Some(0.0)), (Some(9.0), None), (None, None)] {
            let budget = Budget::new(price, cap);
            budget.reserve(u64::MAX / 2, &NoClock).unwrap();
            budget.settle(u64::MAX / 2, Charge::Nothing);
            assert_eq!(budget.spent(), Spent::default());
        }
    }
}
