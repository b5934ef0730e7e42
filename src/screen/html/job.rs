//! The sections about jobs.

use jiff::{SignedDuration, Timestamp};

use crate::screen::curve::{Across, Curve, Drawn, Mark, Series};
use crate::screen::html::markup::Html;
use crate::screen::svg::{Size, figure};
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::job::seen::Seen;
use ctxtune_pipeline::report::OutReport;
use ctxtune_pipeline::report::job::{JobReport, Source, Using};
use ctxtune_pipeline::text::{grouped, loss};

pub(super) fn sections(html: &mut Html, contents: &mut Vec<(String, String)>, out: &OutReport, of: &str) {
    let mut jobs = out.jobs.iter().filter(|job| !job.is_of_sweep);
    if let Some(newest) = jobs.next() {
        html.heading(contents, &format!("Job {}{of}", newest.id));
        section(html, newest);
    }
    // Those of a sweep are rows of its table.
    for job in jobs {
        html.within("details", |html| {
            html.of(
                "summary",
                &format!("An earlier job: {}, {}", job.id, job.status.as_deref().unwrap_or("status unknown")),
            );
            section(html, job);
        });
    }
}

fn section(html: &mut Html, job: &JobReport) {
    let seen = job.seen.as_ref();
    let mut tiles = vec![("status", job.status.clone().unwrap_or_else(|| "not known".to_owned()))];
    tiles.extend(job.price_dollars().map(|price| ("billed", dollars_text(price))));
    tiles.extend(job.estimated_dollars.map(|dollars| ("estimated", dollars_text(dollars))));
    tiles.extend(seen.and_then(duration).map(|duration| ("duration", duration)));
    tiles.extend(seen.and_then(Seen::best).map(|best| ("best validation loss", loss(best.loss))));
    tiles.extend(seen.and_then(|seen| seen.total_steps).map(|steps| ("steps", grouped(steps))));
    tiles.extend(job.base.clone().map(|base| ("base model", base)));
    tiles.extend(job.model.clone().map(|model| ("tuned model", model)));
    html.tiles(&tiles);
    if job.has_other_data {
        html.note("The directory was prepared again since: this job was trained on other data.");
    }
    let asked = match (job.source, seen) {
        (Source::Service, Some(seen)) => format!("As the service said at {}.", moment(&seen.at)),
        (Source::Ledger, Some(seen)) => {
            format!("From the job's ledger, as it was last watched at {}.", moment(&seen.at))
        }
        _ => "Nothing was measured that is known here: with a key, the report asks the service.".to_owned(),
    };
    html.soft(&asked);
    if let Some(seen) = seen {
        curves(html, seen);
    }
    parameters(html, job);
    if let Some(using) = &job.using {
        show_using(html, using);
    }
}

fn moment(text: &str) -> String {
    text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), |at| at.strftime("%F %TZ").to_string())
}

fn duration(seen: &Seen) -> Option<String> {
    let read = |text: &Option<String>| text.as_deref()?.parse::<Timestamp>().ok();
    let took = read(&seen.ended_at)?.duration_since(read(&seen.started_at)?);
    Some(format!("{:#}", SignedDuration::from_secs(took.as_secs())))
}

fn curves(html: &mut Html, seen: &Seen) {
    let train = seen.train.iter().filter_map(|step| Some((step.step, step.loss?)));
    let mut losses = Curve::losses(train, seen.eval.iter().map(|point| (point.step, point.loss)));
    let best = seen.best();
    let others = seen.checkpoints.iter().filter(|step| best.is_none_or(|best| best.step != **step));
    let saved = others.map(|step| Mark { at: *step as f64, label: String::new(), is_best: false });
    losses.marks.extend(saved);
    losses.marks.extend(best.map(|best| Mark {
        at: best.step as f64,
        label: format!("best {} at step {}", loss(best.loss), best.step),
        is_best: true,
    }));
    if losses.ranges().is_none() {
        return;
    }
    let mut caption = "Training and validation loss by step".to_owned();
    if !seen.checkpoints.is_empty() {
        caption.push_str("; dotted: a checkpoint was saved");
    }
    if seen.steps > seen.train.len() as u64 {
        let stretch =
            format!("; of {} steps, the least and the greatest loss of each stretch", grouped(seen.steps));
        caption.push_str(&stretch);
    }
    html.figure(
        &figure(&losses, "Loss by step", Size::whole(380.0)),
        &format!("{caption}. Values: with the pointer, or the arrow keys."),
    );
    let rates = seen.train.iter().filter_map(|step| Some((step.step as f64, step.learning_rate?)));
    let mut rate = Curve::new(Across::steps(), "learning rate", vec![Series::new("", Drawn::Line, rates)]);
    rate.marks.clear();
    if rate.ranges().is_some() {
        html.figure(&figure(&rate, "Learning rate by step", Size::whole(210.0)), "Learning rate by step.");
    }
    if !seen.eval.is_empty() {
        let rows = seen.eval.iter().map(|point| {
            let train =
                seen.train.iter().rev().find(|step| step.step <= point.step).and_then(|step| step.loss);
            let is_best = best.is_some_and(|best| best.step == point.step);
            let is_saved = seen.checkpoints.contains(&point.step);
            let notes = [(is_best, "best"), (is_saved, "checkpoint")];
            let notes: Vec<&str> = notes.iter().filter(|(is, _)| *is).map(|(_, note)| *note).collect();
            vec![grouped(point.step), loss(point.loss), train.map(loss).unwrap_or_default(), notes.join(", ")]
        });
        html.table(
            "Evaluations.",
            &["#step", "#validation loss", "#train loss", ""],
            rows.collect::<Vec<_>>(),
        );
    }
}

fn parameters(html: &mut Html, job: &JobReport) {
    html.of("h3", "Parameters");
    let rows = job.parameters.iter().map(|parameter| {
        let origin = parameter.origin.clone().unwrap_or_else(|| "not kept".to_owned());
        vec![parameter.key.clone(), parameter.value.clone(), origin]
    });
    html.table("What the job was asked to do, and who chose it.", &["parameter", "value", "chosen by"], rows);
}

fn show_using(html: &mut Html, using: &Using) {
    html.of("h3", "Use the model").paragraph(&format!("{}.", using.note.trim_end_matches('.')));
    if !using.commands.is_empty() {
        html.of("pre", &using.commands.join("\n"));
    }
    if let Some(python) = &using.python {
        html.of("pre", python);
    }
}
