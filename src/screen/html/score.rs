//! The section about scores: the totals with their intervals, and the worst answers beside their references.

use crate::screen::html::markup::{Html, clipped};
use crate::screen::scoreboard::{ROWS, coverage, signed};
use crate::screen::svg::{Measured, intervals};
use ctxtune_engine::json::KeyText;
use ctxtune_engine::score::aligned::{Aligned, Pair};
use ctxtune_engine::score::measure::Measure;
use ctxtune_engine::score::report::{Report, SetReport, Total};
use ctxtune_pipeline::report::without_path;
use ctxtune_pipeline::text::{counted, key_text};

/// Steps of a record that are shown, and characters of a text.
const STEPS: usize = 60;
const SHOWN: usize = 1_000;

/// Scores, and what is shown of the worst answers.
pub struct ScoreSection<'s> {
    pub gold: String,
    pub names: &'s [String],
    pub report: &'s Report,
    /// The worst answers of each set, the worst first.
    pub worst: Vec<Vec<Aligned>>,
    /// Where all of it is from: no page names these places.
    pub sources: Vec<&'s std::path::Path>,
}

pub(super) fn section(html: &mut Html, score: &ScoreSection<'_>) {
    let ScoreSection { report, names, .. } = score;
    // Names of models are long.
    let letters: Vec<String> = match names.len() {
        1 => vec!["score".to_owned()],
        _ => ["A", "B"].map(str::to_owned).to_vec(),
    };
    let overall = |set: &SetReport| format!("{:.4}", set.total(Measure::Overall).mean);
    let tiles: Vec<(&str, String)> =
        letters.iter().map(String::as_str).zip(report.sets.iter().map(overall)).collect();
    html.tiles(&tiles);
    html.soft(&format!("Overall scores, from 0 to 1, against {}.", score.gold));
    let rows = letters.iter().zip(names.iter().zip(&report.sets));
    let rows = rows.map(|(letter, (name, set))| vec![letter.clone(), name.clone(), coverage(set)]);
    html.table("Answers.", &["", "set", "usable"], rows);
    let measured = ROWS.map(|(name, measure)| Measured {
        name: name.trim(),
        sets: report
            .sets
            .iter()
            .map(|set| set.total(measure))
            .map(|Total { mean, interval }| [interval.low, mean, interval.high])
            .collect(),
    });
    let drawn = intervals(&measured, &letters, "Scores with their intervals");
    html.figure(&drawn, "Means with their 95 % intervals.");
    totals(html, report, &letters);
    for (index, (letter, worst)) in letters.iter().zip(&score.worst).enumerate() {
        if !worst.is_empty() {
            let of = if names.len() > 1 { format!(" of {letter}") } else { String::new() };
            html.of("h3", &format!("The worst answers{of}"));
            html.within("p class=\"soft\"", |html| {
                html.text("What only the reference has is ").of("del", "marked so");
                html.text(", what only the answer has ").of("ins", "so").text(". Tags are resolved.");
            });
        }
        for (rank, aligned) in worst.iter().enumerate() {
            let Some(record) = report.records.iter().find(|record| record.key == aligned.key) else {
                continue;
            };
            let answer = &record.answers[index];
            html.within(if rank == 0 { "details open" } else { "details" }, |html| {
                let key = key_text(&KeyText(&aligned.key).to_json());
                let overall = answer.scores[Measure::Overall.index()];
                html.of("summary", &format!("{key}: {overall:.4}"));
                if let Some(reason) = &answer.reason {
                    let reason =
                        score.sources.iter().fold(reason.clone(), |said, path| without_path(&said, path));
                    html.note(&format!("{}: {reason}", answer.status.as_str()));
                }
                show(html, aligned);
            });
        }
    }
}

fn totals(html: &mut Html, report: &Report, letters: &[String]) {
    let mut columns = vec!["measure".to_owned()];
    for letter in letters {
        columns.extend([format!("#{letter}"), "#95 % interval".to_owned()]);
    }
    let is_compared = report.difference.is_some();
    columns.extend(is_compared.then(|| "#B - A, its 95 % interval".to_owned()));
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let rows = ROWS.iter().map(|(name, measure)| {
        let mut row = vec![name.trim().to_owned()];
        for set in &report.sets {
            let Total { mean, interval } = set.total(*measure);
            row.extend([format!("{mean:.4}"), format!("{:.4} to {:.4}", interval.low, interval.high)]);
        }
        let of_two = report.difference.as_ref();
        row.extend(of_two.map(|of_two| {
            let ([mean, low, high], star) = signed(of_two.totals[measure.index()]);
            format!("{mean} ({low} to {high}){star}")
        }));
        row
    });
    let records = counted(report.records.len() as u64, "reference");
    let star = report.difference.as_ref().map(|of_two| {
        let both = counted(of_two.records, "record");
        format!("; the difference over the {both} that both answer, * where its interval does not hold 0")
    });
    let star = star.unwrap_or_default();
    html.table(&format!("Means over {records}{star}."), &columns, rows.collect::<Vec<_>>());
}

fn show(html: &mut Html, aligned: &Aligned) {
    let columns = ["step", "", "reference", "answer"];
    html.open_table("Step by step; where both are the same, once.", &columns);
    for (step, pairs) in aligned.steps.iter().take(STEPS).enumerate() {
        for (index, Pair { what, gold, answer }) in pairs.iter().enumerate() {
            let [gold, answer] = [gold, answer].map(|text| text.as_deref().map(|text| clipped(text, SHOWN)));
            html.within("tr", |html| {
                html.of("td", &if index == 0 { step.to_string() } else { String::new() });
                html.of("td", what);
                match (&gold, &answer) {
                    (Some(gold), Some(answer)) if gold == answer => {
                        html.of("td class=\"soft\" colspan=\"2\"", gold);
                    }
                    _ => {
                        let [left, right] = differing(
                            gold.as_deref().unwrap_or_default(),
                            answer.as_deref().unwrap_or_default(),
                        );
                        cell(html, "del", left, gold.is_some());
                        cell(html, "ins", right, answer.is_some());
                    }
                }
            });
        }
    }
    html.close_table();
    if aligned.steps.len() > STEPS {
        let more = counted((aligned.steps.len() - STEPS) as u64, "more step");
        html.soft(&format!("And {more}."));
    }
}

fn cell(html: &mut Html, mark: &'static str, [before, middle, after]: [&str; 3], is_there: bool) {
    html.within("td class=\"half\"", |html| {
        if !is_there {
            html.of("span class=\"soft\"", "(none)");
            return;
        }
        html.text(before);
        if !middle.is_empty() {
            html.raw("<").raw(mark).raw(">").text(middle).raw("</").raw(mark).raw(">");
        }
        html.text(after);
    });
}

/// Both texts in three parts: the words that they begin with alike, those that differ, those that they end with alike.
fn differing<'t>(one: &'t str, other: &'t str) -> [[&'t str; 3]; 2] {
    let words = |text: &'t str| text.split_inclusive(' ').collect::<Vec<_>>();
    let (left, right) = (words(one), words(other));
    let shortest = left.len().min(right.len());
    let start = (0..shortest).take_while(|index| left[*index] == right[*index]).count();
    let is_alike = |back: &usize| left[left.len() - 1 - back] == right[right.len() - 1 - back];
    let end = (0..shortest - start).take_while(is_alike).count();
    let bytes = |words: &[&str]| words.iter().map(|word| word.len()).sum::<usize>();
    [(one, left), (other, right)].map(|(text, words)| {
        let (before, rest) = text.split_at(bytes(&words[..start]));
        let (middle, after) = rest.split_at(rest.len() - bytes(&words[words.len() - end..]));
        [before, middle, after]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_that_differ_are_found() {
        let [left, right] = differing("the box is in the hall", "the bag is in the hall");
        assert_eq!((left, right), (["the ", "box ", "is in the hall"], ["the ", "bag ", "is in the hall"]));
        assert_eq!(differing("", "a b"), [["", "", ""], ["", "a b", ""]]);
        assert_eq!(differing("a a", "a a a")[1].concat(), "a a a");
        assert_eq!(differing("same", "same")[0], ["same", "", ""]);
    }

    #[test]
    fn a_difference_is_marked_and_escaped() {
        let pair = |gold: Option<&str>, answer: Option<&str>| Pair {
            what: "Mia sees".to_owned(),
            gold: gold.map(str::to_owned),
            answer: answer.map(str::to_owned),
        };
        let steps = vec![vec![
            pair(Some("a <b> box"), Some("a <i> box")),
            pair(None, Some("x")),
            pair(Some("y"), Some("y")),
        ]];
        let mut html = Html::default();
        show(&mut html, &Aligned { key: Vec::new(), steps });
        assert!(
            html.0.contains("a <del>&lt;b&gt; </del>box") && html.0.contains("a <ins>&lt;i&gt; </ins>box"),
            "{html:?}"
        );
        assert!(html.0.contains("(none)") && html.0.contains("colspan=\"2\">y</td>"), "{html:?}");
    }
}
