//! Values as people, Python and YAML write them, from text: of the configuration file and of flags alike.

use std::fmt;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The largest whole number up to which a double holds every one.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A whole number, also as Python writes a float that is one: `3.0`.
pub fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    if let Ok(value) = text.parse() {
        return Ok(value);
    }
    let plain = plain(text);
    match plain.parse::<T>() {
        Ok(value) => Ok(value),
        Err(_) => Err(match plain.parse::<i128>() {
            Err(_) => "expected a whole number",
            Ok(..0) => "expected a whole number, not below 0",
            Ok(0) => "expected a whole number, at least 1",
            Ok(_) => "expected a smaller whole number",
        }
        .to_owned()),
    }
}

/// A whole number, at least 1.
pub fn positive(text: &str) -> Result<u64, String> {
    whole(text).map(NonZeroU64::get)
}

pub fn number(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| "expected a number such as 3, 0.1 or 1e-5".to_owned())
}

/// A truth value as YAML and Python write it.
pub fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("expected `true` or `false`".to_owned()),
    }
}

/// A value of its own kind, in which a whole number may be written as `3.0`.
pub fn parsed<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    let failed = |error: T::Err| error.to_string();
    text.parse().or_else(|error| plain(text).parse().map_err(|_| failed(error)))
}

/// `3.0` and `3e0` as `3`; anything else as it is.
fn plain(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(number) if number.fract() == 0.0 && number.abs() <= EXACT => format!("{}", number as i64),
        _ => text.to_owned(),
    }
}

/// `path` with `~` and `~/` at its beginning replaced by the home directory, where there is one: a shell
/// does so for `--flag ~/x`, and not for `--flag=~/x` or for a file.
pub fn at_home(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(below), Some(home)) if below.as_os_str().is_empty() => home.to_owned(),
        (Ok(below), Some(home)) => home.join(below),
        _ => path.to_owned(),
    }
}

pub fn ruled(text: &str, rule: &str, is_allowed: impl Fn(f64) -> bool) -> Result<f64, String> {
    text.parse().ok().filter(|number| is_allowed(*number)).ok_or_else(|| format!("expected a number {rule}"))
}

/// An amount in dollars: finite and not negative.
pub fn dollars(text: &str) -> Result<f64, String> {
    let amount = text.trim_start_matches('$').parse().ok();
    let amount = amount.filter(|amount: &f64| amount.is_finite() && *amount >= 0.0);
    amount.ok_or_else(|| "expected an amount in dollars, 0 or more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::parameters::BatchSize;

    #[test]
    fn a_float_that_is_whole_is_a_whole_number() {
        let check = |text: &str, expected: Result<u64, &str>| {
            assert_eq!(whole::<u64>(text), expected.map_err(str::to_owned), "{text}");
        };
        check("3", Ok(3));
        check("3.0", Ok(3));
        check("1e3", Ok(1000));
        check("0", Ok(0));
        check("18446744073709551615", Ok(u64::MAX));
        check("3.5", Err("expected a whole number"));
        check("none", Err("expected a whole number"));
        check("nan", Err("expected a whole number"));
        check("-1", Err("expected a whole number, not below 0"));
        check("18446744073709551616", Err("expected a smaller whole number"));
        assert_eq!(whole::<NonZeroU64>("0.0").unwrap_err(), "expected a whole number, at least 1");
        assert_eq!(whole::<u16>("70000").unwrap_err(), "expected a smaller whole number");
        assert_eq!(parsed::<BatchSize>("16.0"), Ok(BatchSize::Samples(16)));
        assert!(parsed::<BatchSize>("16.5").unwrap_err().starts_with("expected `max`"));
    }

    #[test]
    fn a_number_is_finite() {
        assert_eq!((number("1e-5"), number("3")), (Ok(1e-5), Ok(3.0)));
        for text in ["", ".nan", "nan", "inf", "10%", "fast", "1,5"] {
            assert!(number(text).unwrap_err().starts_with("expected a number"), "{text}");
        }
    }

    #[test]
    fn a_tilde_is_the_home_directory_and_no_other_is() {
        let check = |path: &str, expected: &str| {
            assert_eq!(at_home(Path::new(path), Some(Path::new("/home/mia"))), Path::new(expected), "{path}");
        };
        check("~/ctx", "/home/mia/ctx");
        check("~", "/home/mia");
        check("~/", "/home/mia");
        check("~other/ctx", "~other/ctx");
        check("ctx/~/x", "ctx/~/x");
        check("./~/x", "./~/x");
        assert_eq!(at_home(Path::new("~/ctx"), None), Path::new("~/ctx"));
    }
}
