//! The section about a sweep.

use crate::screen::curve::{Across, Curve, Drawn, Scale, Series};
use crate::screen::html::markup::Html;
use crate::screen::svg::{COLOURS, Size, figure};
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::report::SweepReport;
use ctxtune_pipeline::sweep::book::Trial;
use ctxtune_pipeline::sweep::{Goal, shown_value};
use ctxtune_pipeline::text::{grouped, loss};
use serde_json::Value;

/// As many different values as stand side by side; more are numbers on an axis.
const NAMED: usize = 8;
/// How many times the least the greatest value is where an axis has powers.
const WIDE: f64 = 20.0;

pub(super) fn section(html: &mut Html, sweep: &SweepReport) {
    let SweepReport { metric, order, ranked, book, .. } = sweep;
    let best = order.first().filter(|_| *ranked > 0).map(|index| &book.trials[*index]);
    let mut tiles = vec![("runs", grouped(book.trials.len() as u64)), ("ranked by", metric.name.clone())];
    tiles.extend(best.and_then(Trial::ranked_by).map(|point| ("best", loss(point.value))));
    tiles.push(("spent", dollars_text(book.spent())));
    tiles.extend(best.and_then(|best| best.model.clone()).map(|model| ("best model", model)));
    html.tiles(&tiles);
    table(html, sweep);
    let curve = Curve::of_sweep(&book.trials, &metric.name);
    if curve.ranges().is_some() {
        let caption =
            format!("{} of all runs by step. Values: with the pointer, or the arrow keys.", metric.name);
        html.figure(&figure(&curve, "The runs over one another", Size::whole(420.0)), &caption);
    }
    html.within("div class=\"two\"", |html| {
        for key in sweep.varied() {
            if let Some(curve) = against(sweep, key) {
                html.figure(
                    &figure(&curve, &format!("{key} against {}", metric.name), Size::half()),
                    &format!("{key} against {}; the ring is the best run.", metric.name),
                );
            }
        }
    });
}

fn table(html: &mut Html, sweep: &SweepReport) {
    let SweepReport { metric, order, ranked, book, .. } = sweep;
    let better = if metric.goal == Goal::Minimize { "lower" } else { "higher" };
    let caption = format!(
        "The runs, best first: a {better} {} is better. A run counts by its best step where that has a checkpoint, else by its last one.",
        metric.name
    );
    let varied = sweep.varied();
    let value = format!("#{}", metric.name);
    let mut columns = vec!["#rank", "run", &value, "#step"];
    columns.extend(&varied);
    columns.extend(["#price", "status", "model"]);
    html.open_table(&caption, &columns);
    for (rank, index) in order.iter().enumerate() {
        let trial = &book.trials[*index];
        let is_best = rank == 0 && *ranked > 0;
        html.within(if is_best { "tr class=\"best\"" } else { "tr" }, |html| {
            html.of("td class=\"num\"", &if rank < *ranked { (rank + 1).to_string() } else { "–".to_owned() });
            html.within("td class=\"whole\"", |html| {
                // The colour of its curve: the numbers beside it say the same.
                html.picture(&format!("<svg class=\"key\" viewBox=\"0 0 9 9\" aria-hidden=\"true\"><rect width=\"9\" height=\"9\" fill=\"{}\"/></svg>", colour(sweep, *index)));
                html.text(&(index + 1).to_string());
                if is_best {
                    html.raw(" ").of("span class=\"mark\"", "best");
                }
            });
            let point = trial.ranked_by();
            html.of("td class=\"num\"", &point.map(|point| loss(point.value)).unwrap_or_default());
            html.of("td class=\"num\"", &point.map(|point| grouped(point.step)).unwrap_or_default());
            for key in &varied {
                html.of("td", &value_of(trial, key).map(shown_value).unwrap_or_default());
            }
            html.of("td class=\"num\"", &trial.price.map(dollars_text).unwrap_or_default());
            html.of("td", trial.status.as_deref().unwrap_or("not started"));
            html.of("td", trial.model.as_deref().unwrap_or_default());
        });
    }
    html.close_table();
}

/// The colour of a run's curve: curves without a point have none.
fn colour(sweep: &SweepReport, index: usize) -> &'static str {
    let drawn = sweep.book.trials[..index].iter().filter(|trial| !trial.curve.is_empty()).count();
    if sweep.book.trials[index].curve.is_empty() { "none" } else { COLOURS[drawn % COLOURS.len()] }
}

fn value_of<'t>(trial: &'t Trial, key: &str) -> Option<&'t Value> {
    trial.values.iter().find(|(known, _)| known == key).map(|(_, value)| value)
}

/// The metric of each run by its value of `key`; nothing where no run has both.
fn against(sweep: &SweepReport, key: &str) -> Option<Curve> {
    let trials = sweep.book.trials.iter().enumerate();
    let tried: Vec<(usize, &Value, f64)> = trials
        .filter_map(|(index, trial)| Some((index, value_of(trial, key)?, trial.ranked_by()?.value)))
        .collect();
    let mut names: Vec<(Option<f64>, String)> =
        tried.iter().map(|(_, value, _)| (value.as_f64(), shown_value(value))).collect();
    names.sort_by(|one, other| {
        one.0.partial_cmp(&other.0).unwrap_or(std::cmp::Ordering::Equal).then(one.1.cmp(&other.1))
    });
    names.dedup_by(|one, other| one.1 == other.1);
    let numbers: Option<Vec<f64>> = names.iter().map(|(number, _)| *number).collect();
    let ends = numbers.as_ref().and_then(|numbers| Some((*numbers.first()?, *numbers.last()?)));
    let scale = match ends {
        Some((least, most)) if names.len() > NAMED && least > 0.0 && most / least >= WIDE => Scale::Log,
        Some(_) if names.len() > NAMED => Scale::Real,
        _ => Scale::Names(names.into_iter().map(|(_, name)| name).collect()),
    };
    let at = |value: &Value| match &scale {
        Scale::Names(names) => names.iter().position(|name| *name == shown_value(value)).unwrap_or(0) as f64,
        Scale::Log => value.as_f64().unwrap_or(f64::NAN).log10(),
        Scale::Real | Scale::Whole => value.as_f64().unwrap_or(f64::NAN),
    };
    // A series a run, so that each has its colour and, under the pointer, its number.
    let best = sweep.order.first().filter(|_| sweep.ranked > 0);
    let series = |(index, value, metric): &(usize, &Value, f64)| {
        let drawn = if Some(index) == best { Drawn::Ringed } else { Drawn::Scatter };
        Series::new(&format!("run {}", index + 1), drawn, [(at(value), *metric)])
    };
    let series: Vec<Series> = tried.iter().map(series).collect();
    let across = Across { name: key.to_owned(), scale: scale.clone() };
    let curve = Curve::new(across, &sweep.metric.name, series);
    curve.ranges().is_some().then_some(curve)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use ctxtune_pipeline::sweep::Metric;
    use ctxtune_pipeline::sweep::book::{Book, Point};

    fn sweep(values: &[Value]) -> SweepReport {
        let values: Vec<_> = values.iter().map(|value| vec![("p".to_owned(), value.clone())]).collect();
        let mut book = Book::new("0a".to_owned(), values);
        for (index, trial) in book.trials.iter_mut().enumerate() {
            trial.last = Some(Point { step: 4, value: index as f64 });
        }
        let metric = Metric { name: "val/loss".to_owned(), goal: Goal::Minimize };
        SweepReport {
            id: "0a".to_owned(),
            metric,
            order: (0..book.trials.len()).collect(),
            ranked: book.trials.len(),
            book,
        }
    }

    #[test]
    fn few_values_stand_side_by_side_and_many_on_an_axis_of_their_kind() {
        let of = |values: Vec<Value>| against(&sweep(&values), "p").unwrap();
        let few = of(vec![json!(1e-4), json!(1e-5), json!(1e-4)]);
        assert_eq!(few.across.scale, Scale::Names(vec!["1e-5".to_owned(), "1e-4".to_owned()]));
        assert_eq!(few.series.iter().map(|series| series.points[0].0).collect::<Vec<_>>(), [1.0, 0.0, 1.0]);
        let many = of((0..9).map(|index| json!(10_f64.powi(-index))).collect());
        assert_eq!((many.across.scale, many.series[3].points[0].0.round()), (Scale::Log, -3.0));
        assert_eq!(of((1..=9).map(|rank| json!(rank)).collect()).across.scale, Scale::Real);
        assert_eq!(
            of(vec![json!("cosine"), json!("linear")]).across.scale,
            Scale::Names(vec!["cosine".to_owned(), "linear".to_owned()])
        );
        assert!(against(&sweep(&[]), "p").is_none());
    }

    #[test]
    fn the_best_run_is_marked_and_every_text_is_escaped() {
        let mut html = Html::default();
        section(&mut html, &sweep(&[json!("<b>"), json!("y")]));
        assert!(html.0.contains("<tr class=\"best\"><td class=\"num\">1</td>"), "{html:?}");
        assert_eq!(html.0.matches("class=\"mark\"").count(), 1);
        assert!(html.0.contains("&lt;b&gt;") && !html.0.contains("<b>"), "{html:?}");
    }
}
