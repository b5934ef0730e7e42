//! Scores as a person reads them: aligned columns, bars, the worst by name.

use crate::screen::chart::Charset;
use ctxtune_engine::json::KeyText;
use ctxtune_engine::score::answer::Status;
use ctxtune_engine::score::gold::Form;
use ctxtune_engine::score::measure::Measure;
use ctxtune_engine::score::report::{Report, SetReport, Total};
use ctxtune_pipeline::text::{counted, grouped, percent};

/// Characters of a bar for one set, and for each of two.
const BAR: usize = 24;
const NARROW_BAR: usize = 5;

pub const ROWS: [(&str, Measure); 14] = [
    ("overall", Measure::Overall),
    ("structural", Measure::Structural),
    ("  JSON", Measure::Json),
    ("  usable context", Measure::Shape),
    ("  agents in steps", Measure::AgentsInSteps),
    ("  timesteps", Measure::Timesteps),
    ("same agents", Measure::SameAgents),
    ("same steps", Measure::SameSteps),
    ("states, exact", Measure::StateExact),
    ("states, F1", Measure::StateF1),
    ("observations, exact", Measure::ObservationsExact),
    ("observations, F1", Measure::ObservationsF1),
    ("actions, exact", Measure::ActionsExact),
    ("actions, F1", Measure::ActionsF1),
];

pub fn table(report: &Report, charset: Charset) -> Vec<String> {
    match report.sets.as_slice() {
        [first, second] => {
            let totals = report.difference.as_ref().map(|difference| &difference.totals);
            let mut lines =
                vec![format!("{:<19}  {:<12}  {:<12}  B - A, with its 95 % interval", "", "A", "B")];
            lines.extend(ROWS.iter().map(|(name, measure)| {
                let difference = totals.map(|totals| difference(totals[measure.index()]));
                let cells = [first, second].map(|set| {
                    let mean = set.total(*measure).mean;
                    format!("{mean:.4} {}", bar(mean, NARROW_BAR, charset))
                });
                format!("{name:<19}  {}  {}  {}", cells[0], cells[1], difference.unwrap_or_default())
            }));
            lines.iter().map(|line| line.trim_end().to_owned()).collect()
        }
        sets => {
            let mut lines = vec![format!("{:<19}  score   95 % interval", "")];
            let rows = sets.iter().flat_map(|set| ROWS.iter().map(move |row| (set, row)));
            lines.extend(rows.map(|(set, (name, measure))| {
                let Total { mean, interval } = set.total(*measure);
                let bar = bar(mean, BAR, charset);
                let line = format!("{name:<19}  {mean:.4}  {:.4} {:.4}  {bar}", interval.low, interval.high);
                line.trim_end().to_owned()
            }));
            lines
        }
    }
}

/// A difference with its interval, marked where that does not hold 0.
fn difference(total: Total) -> String {
    let ([mean, low, high], mark) = signed(total);
    format!("{mean}  {low} {high}{mark}")
}

/// A difference and the ends of its interval, and a star where that does not hold 0.
pub fn signed(Total { mean, interval }: Total) -> ([String; 3], &'static str) {
    let is_clear = interval.low > 0.0 || interval.high < 0.0;
    // What rounds to nothing has no sign.
    let signed = |value: f64| format!("{:+.4}", if value.abs() < 0.000_05 { 0.0 } else { value });
    ([mean, interval.low, interval.high].map(signed), if is_clear { " *" } else { "" })
}

/// `part` of `width` characters, to an eighth of one where there are characters for it.
fn bar(part: f64, width: usize, charset: Charset) -> String {
    let eighths = (part.clamp(0.0, 1.0) * (width * 8) as f64).round() as usize;
    let (full, rest) = (eighths / 8, eighths % 8);
    let filled = match charset {
        Charset::Ascii => "#".repeat(full + usize::from(rest >= 4)),
        Charset::Unicode => {
            let last = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][rest];
            format!("{}{last}", "█".repeat(full))
        }
    };
    format!("{filled:<width$}")
}

/// `36 valid, 2 invalid of 40 (95.0 %)…`: what became of the answers of a set.
pub fn coverage(set: &SetReport) -> String {
    let references: u64 = set.coverage.iter().sum();
    let valid = set.count(Status::Valid);
    let mut text =
        format!("{} of {} valid ({})", grouped(valid), grouped(references), percent(valid, references));
    for status in [Status::Invalid, Status::Unreadable, Status::Missing] {
        if set.count(status) > 0 {
            text.push_str(&format!(", {} {}", grouped(set.count(status)), status.as_str()));
        }
    }
    if !set.extra.is_empty() {
        text.push_str(&format!("; {} more without a reference", grouped(set.extra.len() as u64)));
    }
    text
}

pub fn references(report: &Report, shown: &str) -> String {
    let count = report.records.len() as u64;
    let mut text = match report.gold.form {
        Form::Records => format!("{} of {shown}", counted(count, "record")),
        Form::Prepared => format!("{} of the validation side of {shown}", counted(count, "record")),
    };
    if !report.gold.rejected.is_empty() {
        let rejected = counted(report.gold.rejected.len() as u64, "record");
        text.push_str(&format!("; {rejected} without a usable context left out"));
    }
    text
}

/// Lines under the table: notes on all sets, then what is worst and what is lacking in each, at most `limit`
/// keys of a kind. `names` are the sets' own.
pub fn notes(report: &Report, names: &[String], limit: usize) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(difference) = &report.difference {
        let records = counted(difference.records, "record");
        lines
            .push(format!("* the interval of the difference does not hold 0; on {records} that both answer"));
    }
    let shown = |keys: &[Vec<u8>]| named(keys, limit);
    if !report.gold.rejected.is_empty() {
        let keys: Vec<Vec<u8>> = report.gold.rejected.iter().map(|(key, _)| key.clone()).collect();
        lines.push(format!("no reference: {}", shown(&keys)));
    }
    if report.gold.unresolved > 0 {
        lines.push(format!("tags of references that stand for nothing: {}", grouped(report.gold.unresolved)));
    }
    for (index, (set, name)) in report.sets.iter().zip(names).enumerate() {
        let pairs = &set.pairs;
        lines.push(format!(
            "{name}: `none` on both sides: {} of {} observations, {} of {} actions",
            grouped(pairs.observations.none),
            grouped(pairs.observations.pairs),
            grouped(pairs.actions.none),
            grouped(pairs.actions.pairs)
        ));
        if set.unresolved > 0 {
            lines.push(format!("{name}: tags that stand for nothing: {}", grouped(set.unresolved)));
        }
        let worst = report.worst(index, limit);
        if !worst.is_empty() {
            lines.push(format!("{name}: worst"));
        }
        lines.extend(worst.into_iter().map(|record| {
            let answer = &record.answers[index];
            let overall = answer.scores[Measure::Overall.index()];
            let reason =
                answer.reason.as_ref().map(|reason| format!("  {}: {reason}", answer.status.as_str()));
            format!("  {overall:.4}  {}{}", KeyText(&record.key).to_json(), reason.unwrap_or_default())
        }));
        let missing = report.records.iter().filter(|record| record.answers[index].status == Status::Missing);
        let missing: Vec<Vec<u8>> = missing.map(|record| record.key.clone()).collect();
        let kinds = [("missing", &missing), ("without a reference", &set.extra)];
        for (what, keys) in kinds.into_iter().filter(|(_, keys)| !keys.is_empty()) {
            lines.push(format!("{name}: {what}: {}", shown(keys)));
        }
    }
    lines
}

/// The first `count` of `keys`, and how many more there are.
fn named(keys: &[Vec<u8>], count: usize) -> String {
    let mut named: Vec<String> = keys.iter().take(count).map(|key| KeyText(key).to_json()).collect();
    if keys.len() > count {
        named.push(format!("{} more", grouped((keys.len() - count) as u64)));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctxtune_engine::score::bootstrap::Interval;

    #[test]
    fn a_bar_is_as_long_as_its_part() {
        let check = |part: f64, unicode: &str, ascii: &str| {
            assert_eq!(bar(part, 4, Charset::Unicode), format!("{unicode:<4}"));
            assert_eq!(bar(part, 4, Charset::Ascii), format!("{ascii:<4}"));
        };
        check(0.0, "", "");
        check(1.0, "████", "####");
        check(0.5, "██", "##");
        check(0.55, "██▎", "##");
        check(0.65, "██▋", "###");
        check(-0.1, "", "");
        check(1.1, "████", "####");
    }

    #[test]
    fn a_difference_is_marked_where_it_is_clear() {
        let check = |mean: f64, low: f64, high: f64, expected: &str| {
            assert_eq!(difference(Total { mean, interval: Interval { low, high } }), expected);
        };
        check(0.1, 0.05, 0.2, "+0.1000  +0.0500 +0.2000 *");
        check(-0.1, -0.2, -0.05, "-0.1000  -0.2000 -0.0500 *");
        check(0.1, -0.05, 0.2, "+0.1000  -0.0500 +0.2000");
        check(-0.000_01, 0.0, 0.0, "+0.0000  +0.0000 +0.0000");
    }
}
