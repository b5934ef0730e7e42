//! Decides whether a call is tried again, and after how long.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Tries in all, the first one included.
    pub tries: u32,
    /// The longest delay before the second try; it doubles with each try.
    pub base: Duration,
    /// The longest delay that is ours to choose.
    pub cap: Duration,
    /// The longest delay that a server may ask for; more is cut down to it.
    pub longest_hint: Duration,
}

impl Policy {
    pub const DEFAULT: Policy = Policy {
        tries: 5,
        base: Duration::from_millis(500),
        cap: Duration::from_secs(30),
        longest_hint: Duration::from_secs(60),
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Status {
        status: u16,
        retry_after: Option<Duration>,
    },
    /// The request certainly did not arrive.
    NotSent,
    Lost,
    Permanent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Stop,
    Again { after: Duration },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub what: String,
    /// Tries left, the coming one included.
    pub tries_left: u32,
    pub after: Duration,
}

/// Whether to try again after `tries_done` tries; `jitter` is a number in `0.0..1.0`.
///
/// The delay is the one that the server asks for, at most [`Policy::longest_hint`]; else
/// anything up to a bound that doubles with each try (full jitter), at most [`Policy::cap`].
pub fn decide(policy: &Policy, tries_done: u32, outcome: Outcome, jitter: f64) -> Decision {
    let hint = match outcome {
        Outcome::Status { status, retry_after } if is_passing(status) => retry_after,
        Outcome::NotSent | Outcome::Lost => None,
        Outcome::Status { .. } | Outcome::Permanent => return Decision::Stop,
    };
    if tries_done >= policy.tries {
        return Decision::Stop;
    }
    let after = match hint {
        Some(hint) => hint.min(policy.longest_hint),
        None => {
            let doublings = tries_done.saturating_sub(1).min(20);
            policy.base.saturating_mul(1 << doublings).min(policy.cap).mul_f64(jitter.clamp(0.0, 1.0))
        }
    };
    Decision::Again { after }
}

/// Whether a status may be another one next time: 408, 429, and 500 and above but 501.
pub fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502..=599)
}

/// The delay that an answer asks for: `retry-after-ms`, else `Retry-After` in seconds, which
/// may have a fraction, or as a date. A date that is past asks for none at all, not for zero.
pub(crate) fn parse_retry_after(headers: &[(String, String)], now: Timestamp) -> Option<Duration> {
    let header = |name: &str| {
        headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let seconds = |text: &str| text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    if let Some(delay) = header("retry-after-ms").and_then(seconds) {
        return Some(delay / 1000);
    }
    let text = header("retry-after")?;
    seconds(text).or_else(|| Duration::try_from(parse_date(text)?.duration_since(now)).ok())
}

/// A date as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    rfc2822::parse(text.trim()).ok().map(|date| date.timestamp())
}

/// `seed` as a number in `0.0..1.0`; neighbouring seeds lie far apart (SplitMix64).
pub fn scatter(seed: u64) -> f64 {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> Outcome {
        Outcome::Status { status, retry_after: None }
    }

    #[test]
    fn of_all_statuses_only_passing_ones_are_tried_again() {
        for code in 100..=599 {
            let again = decide(&Policy::DEFAULT, 1, status(code), 0.5) != Decision::Stop;
            let expected = code == 408 || code == 429 || (code >= 500 && code != 501);
            assert_eq!(again, expected, "{code}");
        }
    }

    #[test]
    fn failures_of_the_network_are_tried_again_and_permanent_ones_are_not() {
        let again = |outcome| decide(&Policy::DEFAULT, 1, outcome, 0.0) != Decision::Stop;
        assert!(again(Outcome::NotSent) && again(Outcome::Lost) && !again(Outcome::Permanent));
    }

    #[test]
    fn the_tries_are_bounded() {
        let policy = Policy { tries: 3, ..Policy::DEFAULT };
        let tries = (1..).take_while(|tries| decide(&policy, *tries, status(503), 0.5) != Decision::Stop);
        assert_eq!(tries.count(), 2);
        let hinted = Outcome::Status { status: 503, retry_after: Some(Duration::ZERO) };
        assert_eq!(decide(&policy, 3, hinted, 0.5), Decision::Stop);
    }

    #[test]
    fn delays_lie_between_zero_and_a_bound_that_doubles_up_to_the_cap() {
        let after = |tries: u32, jitter: f64| {
            let policy = Policy { tries: u32::MAX, ..Policy::DEFAULT };
            match decide(&policy, tries, Outcome::Lost, jitter) {
                Decision::Again { after } => after,
                Decision::Stop => panic!("no further try after {tries}"),
            }
        };
        let bounds = [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000].map(Duration::from_millis);
        for (tries, bound) in (1..).zip(bounds) {
            assert_eq!(after(tries, 1.0), bound, "{tries}");
            assert_eq!(after(tries, 0.0), Duration::ZERO);
            assert_eq!(after(tries, 0.25), bound / 4);
        }
        assert_eq!(after(u32::MAX - 1, 1.0), Policy::DEFAULT.cap);
        assert_eq!(after(1, f64::NAN.max(7.0)), Duration::from_millis(500));
    }

    #[test]
    fn the_delay_that_a_server_asks_for_is_kept_up_to_a_bound() {
        let check = |hint: u64, expected: u64| {
            let outcome = Outcome::Status { status: 429, retry_after: Some(Duration::from_secs(hint)) };
            let after = Duration::from_secs(expected);
            assert_eq!(decide(&Policy::DEFAULT, 1, outcome, 0.9), Decision::Again { after });
        };
        check(0, 0);
        check(7, 7);
        check(60, 60);
        check(86_400, 60);
    }

    #[test]
    fn retry_after_is_read_in_every_spelling() {
        let now = parse_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let check = |headers: &[(&str, &str)], milliseconds: Option<u64>| {
            let headers: Vec<(String, String)> =
                headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let expected = milliseconds.map(Duration::from_millis);
            assert_eq!(parse_retry_after(&headers, now), expected, "{headers:?}");
        };
        check(&[("retry-after", "3")], Some(3000));
        check(&[("Retry-After", " 0.25 ")], Some(250));
        check(&[("retry-after", "0")], Some(0));
        check(&[("retry-after", "9"), ("retry-after-ms", "1500")], Some(1500));
        check(&[("retry-after", "9"), ("retry-after-ms", "soon")], Some(9000));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], Some(30_000));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT")], None);
        check(&[("retry-after", "-5")], None);
        check(&[("retry-after", "NaN")], None);
        check(&[("retry-after", "inf")], None);
        check(&[("retry-after", "1e300")], None);
        check(&[("retry-after", "tomorrow")], None);
        check(&[("retry-after", "")], None);
        check(&[], None);
    }

    #[test]
    fn drawn_numbers_are_spread_over_the_unit() {
        let drawn: Vec<f64> = (0..1000).map(scatter).collect();
        assert!(drawn.iter().all(|number| (0.0..1.0).contains(number)));
        let low = drawn.iter().filter(|number| **number < 0.5).count();
        assert!((400..600).contains(&low), "{low} of 1000 are low");
    }
}
