//! Sets of numbers as people write them: `3,7-9`.

/// `numbers`, which ascend, as ranges: `3,7-9`.
pub fn show(numbers: &[u64]) -> String {
    let ranges = numbers.chunk_by(|one, other| one + 1 == *other);
    let shown: Vec<String> = ranges
        .map(|range| match range {
            [only] => only.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        })
        .collect();
    shown.join(",")
}

/// The numbers of `3,7-9` in order, each once; all are below `end`. No text has none.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(text: &str, end: u64) -> Result<Vec<u64>, String> {
    let mut numbers = Vec::new();
    for range in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| {
            let digits = Some(text).filter(|text| !text.starts_with('+'));
            digits
                .and_then(|text| text.parse().ok())
                .ok_or(format!("expected numbers such as 3,7-9, got `{text}`"))
        };
        let (first, last): (u64, u64) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("`{range}` ends before it begins"));
        }
        if last >= end {
            return Err(format!("there is no {last}: numbers are below {end}"));
        }
        numbers.extend(first..=last);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_given() {
        for numbers in [vec![], vec![0], vec![3, 7, 8, 9], vec![0, 1, 5]] {
            let shown = show(&numbers);
            assert_eq!(parse(&shown, 10).unwrap(), numbers, "{shown}");
        }
        assert_eq!(show(&[3, 7, 8, 9]), "3,7-9");
        assert_eq!(parse("7-9,3,8", 10).unwrap(), [3, 7, 8, 9]);
        for wrong in [",", "x", "1,", "3-1", "10", "0-10", "-1", "+1", "1-2-3"] {
            assert!(parse(wrong, 10).is_err(), "{wrong}");
        }
    }
}
