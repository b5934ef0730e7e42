//! The part of a whole that validates, or may be rejected: a decimal, kept as an exact fraction.

use std::fmt;
use std::str::FromStr;

/// A decimal part of a whole, kept as the fraction `numerator / denominator` so that
/// counts are exact: 0.1 is 1/10, not the nearest double.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    numerator: u64,
    denominator: u64,
}

impl Ratio {
    /// The part in percent: `5` and `0.25`, no sign, at most 100. `None` where it is not that.
    pub fn from_percent(text: &str) -> Option<Ratio> {
        let Ratio { numerator, denominator } = parse_decimal(text)?;
        let ratio = Ratio { numerator, denominator: denominator.checked_mul(100)? };
        (ratio.numerator <= ratio.denominator).then_some(ratio)
    }

    /// The part in percent as it was written.
    pub fn percent(self) -> Ratio {
        Ratio { numerator: self.numerator, denominator: self.denominator / 100 }
    }

    /// Whether there is nothing to validate with.
    pub fn is_zero(self) -> bool {
        self.numerator == 0
    }

    /// How many of `records` train when this is the part that validates: floor(N·(q−p)/q).
    pub fn train_count(self, records: u64) -> u64 {
        let rest = u128::from(self.denominator - self.numerator);
        let count = u128::from(records) * rest / u128::from(self.denominator);
        u64::try_from(count).expect("a part is not larger than the whole")
    }

    /// What the part is of `whole`, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        let part = u128::from(whole) * u128::from(self.numerator) / u128::from(self.denominator);
        u64::try_from(part).expect("a part is not larger than the whole")
    }

    /// The largest whole of which `rest` and these `parts` are not less; `None` where the parts leave nothing over.
    pub fn whole(rest: u64, parts: &[Ratio]) -> Option<u64> {
        // Powers of ten: each divides the largest.
        let common = parts.iter().map(|part| part.denominator).max().unwrap_or(1);
        let of_common = |part: &Ratio| u128::from(part.numerator) * u128::from(common / part.denominator);
        let left =
            u128::from(common).checked_sub(parts.iter().map(of_common).sum()).filter(|left| *left > 0)?;
        u64::try_from(u128::from(rest) * u128::from(common) / left).ok()
    }

    /// Whether `count` of `whole` is more than this part.
    pub fn is_exceeded_by(self, count: u64, whole: u64) -> bool {
        let (count, whole) = (u128::from(count), u128::from(whole));
        count * u128::from(self.denominator) > whole * u128::from(self.numerator)
    }
}

impl FromStr for Ratio {
    type Err = String;

    /// Reads a validation ratio: a decimal from 0 up to, but not including, 1.
    fn from_str(text: &str) -> Result<Ratio, String> {
        let explain = || "expected a decimal from 0 up to, but not including, 1".to_owned();
        let ratio = parse_decimal(text).ok_or_else(explain)?;
        if ratio.numerator >= ratio.denominator {
            return Err(explain());
        }
        Ok(ratio)
    }
}

impl fmt::Display for Ratio {
    /// The shortest decimal that is exactly this ratio.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.numerator / self.denominator)?;
        let mut rest = self.numerator % self.denominator;
        let mut scale = self.denominator;
        if rest > 0 {
            formatter.write_str(".")?;
        }
        while rest > 0 {
            scale /= 10;
            write!(formatter, "{}", rest / scale)?;
            rest %= scale;
        }
        Ok(())
    }
}

/// `12`, `0.5`, `.5` and `5e-2` as a fraction over a power of ten; at most 15 decimals.
fn parse_decimal(text: &str) -> Option<Ratio> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix('-')?.parse().ok()?),
        None => (text, 0u32),
    };
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{decimals}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut numerator: u64 = digits.parse().ok()?;
    let mut places = u32::try_from(decimals.len()).ok()?.checked_add(exponent)?;
    while places > 0 && numerator.is_multiple_of(10) {
        numerator /= 10;
        places -= 1;
    }
    // Fifteen places leave room for the 100 of a percentage in 64 bits.
    let denominator = if places <= 15 { 10u64.pow(places) } else { return None };
    Some(Ratio { numerator, denominator })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_counts_exactly_where_doubles_do_not() {
        let check = |ratio: &str, records, train| {
            assert_eq!(ratio.parse::<Ratio>().unwrap().train_count(records), train, "{ratio} of {records}");
        };
        check("0.1", 3533, 3179);
        check("0.1", 10, 9);
        check("0.1", 1, 0);
        check("0.9", 10, 1);
        check("0.7", 10, 3);
        check("0", 5, 5);
        check("1e-1", 10, 9);
        check(".25", 8, 6);
        check("0.3", 10, 7);
        check("0.1", u64::MAX, 16_602_069_666_338_596_453);
    }

    #[test]
    fn a_ratio_prints_as_the_shortest_decimal() {
        for (text, printed) in
            [("0.10", "0.1"), ("0", "0"), (".125", "0.125"), ("5e-2", "0.05"), ("0.0", "0")]
        {
            assert_eq!(text.parse::<Ratio>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn what_is_not_a_part_is_refused() {
        for text in ["1", "1.7", "-0.1", "", ".", "0,1", "abc", "nan", "1e5", "0.1234567890123456", "+0.1"] {
            assert!(text.parse::<Ratio>().is_err(), "{text}");
        }
    }
}
