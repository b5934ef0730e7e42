//! A watched job on a terminal: one block of lines, redrawn, with the loss curve in it.
//!
//! What it shows is a pure function of what is known, the time and the size of the terminal; the canvas
//! draws it. At the end the curve and a summary stay in the scrollback.

use std::collections::VecDeque;
use std::time::Duration;

use console::{measure_text_width, truncate_str};
use jiff::Timestamp;

use crate::screen::canvas::{Canvas, Size};
use crate::screen::chart::{Charset, Frame, chart};
use crate::screen::curve::Curve;
use crate::screen::fold::folded;
use crate::screen::watch::{
    epochs, eval_loss, event, how, learning_rate, price, queue, steps, train_loss, trouble, woke,
};
use ctxtune_pipeline::job::monitor::{Screen, spoken};
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::job::progress::{News, Progress};
use ctxtune_pipeline::text::one_line;
use ctxtune_service::Clock;
use ctxtune_service::together::Ending;

/// How many happenings are kept to be shown.
const KEPT: usize = 8;
/// The lines about the job that are kept in the lowest terminal.
const MOST_HEAD: usize = 8;
/// The heights between which a curve is drawn.
const LOWEST_CURVE: usize = 7;
const HIGHEST_CURVE: usize = 18;

pub struct Block<'b> {
    canvas: Canvas,
    clock: &'b dyn Clock,
    charset: Charset,
    happened: VecDeque<String>,
    trouble: Option<String>,
    banner: Option<&'static str>,
}

struct Moment<'m> {
    now: Timestamp,
    next: Duration,
    happened: &'m VecDeque<String>,
    trouble: Option<&'m str>,
    banner: Option<&'static str>,
    size: Size,
    charset: Charset,
}

impl<'b> Block<'b> {
    pub fn new(canvas: Canvas, clock: &'b dyn Clock, charset: Charset) -> Block<'b> {
        Block { canvas, clock, charset, happened: VecDeque::new(), trouble: None, banner: None }
    }

    /// The same under a line that is always there.
    #[must_use]
    pub fn with_banner(self, banner: Option<&'static str>) -> Self {
        Block { banner, ..self }
    }

    fn note(&mut self, at: Option<Timestamp>, text: &str) {
        if self.happened.len() == KEPT {
            self.happened.pop_front();
        }
        self.happened.push_back(format!("{} {text}", at.unwrap_or_else(|| self.clock.now()).strftime("%TZ")));
    }

    fn draw(&self, progress: &Progress, next: Duration) {
        let moment = Moment {
            now: self.clock.now(),
            next,
            happened: &self.happened,
            trouble: self.trouble.as_deref(),
            banner: self.banner,
            size: self.canvas.size(),
            charset: self.charset,
        };
        self.canvas.draw(block(progress, &moment));
    }
}

impl Screen for Block<'_> {
    fn news(&mut self, progress: &Progress, news: &[News]) {
        self.trouble = None;
        for news in news {
            if let News::Event(happened) = news {
                self.note(happened.time(), &event(happened));
            }
        }
        self.draw(progress, Duration::ZERO);
    }

    fn waiting(&mut self, progress: &Progress, next_poll: Duration) {
        self.draw(progress, next_poll);
    }

    fn trouble(&mut self, what: &str, next: Duration) {
        self.trouble = Some(trouble(what, next));
    }

    fn slept(&mut self, slept: Duration) {
        self.note(None, &woke(slept));
    }

    fn finished(&mut self, progress: &Progress, ending: Ending) {
        let size = self.canvas.size();
        let frame =
            Frame { width: size.columns.saturating_sub(1), height: HIGHEST_CURVE, charset: self.charset };
        let curve = Curve::of(progress);
        let mut lines = if curve.ranges().is_some() { chart(&curve, &frame) } else { Vec::new() };
        let price = progress.price().map(|price| format!("price {}", dollars_text(price)));
        lines.extend(self.banner.map(str::to_owned));
        lines.extend(fitted([Some(how(ending).to_owned()), steps(progress), price], size.columns));
        lines.extend(fitted([train_loss(progress), eval_loss(progress)], size.columns));
        self.canvas.leave(&lines);
    }
}

/// The lines of the block, as many as the terminal has room for.
fn block(progress: &Progress, moment: &Moment<'_>) -> Vec<String> {
    let mut head = head(progress, moment);
    head.truncate(moment.size.rows.saturating_sub(1).max(MOST_HEAD));
    let room = moment.size.rows.saturating_sub(1 + head.len());
    let curve = Curve::of(progress);
    let has_curve = curve.ranges().is_some() && room >= LOWEST_CURVE;
    // Three of what happened, more where the curve leaves room.
    let height = if has_curve { room.saturating_sub(4).clamp(LOWEST_CURVE, HIGHEST_CURVE) } else { 0 };
    let frame = Frame { width: moment.size.columns.saturating_sub(1), height, charset: moment.charset };
    let drawn = if has_curve { chart(&curve, &frame) } else { Vec::new() };
    let count = room.saturating_sub(drawn.len()).min(moment.happened.len());
    let mut lines = head;
    lines.extend(drawn);
    let happened = moment.happened.iter().skip(moment.happened.len() - count);
    lines.extend(happened.map(|text| whole_words(text, moment.size.columns, moment.charset)));
    lines
}

/// The lines that are always there: who, how far, how well, how much.
fn head(progress: &Progress, moment: &Moment<'_>) -> Vec<String> {
    let mut lines: Vec<String> = moment.banner.map(str::to_owned).into_iter().collect();
    match progress.job() {
        Some(job) => {
            let unknown = if job.status.is_known() { "" } else { " (a status that is new here)" };
            let status = one_line(job.status.as_str());
            let texts = [
                format!("{status}{unknown}"),
                format!("next look in {}", spoken(&moment.next)),
                job.id.to_string(),
            ];
            lines.extend(fitted(texts.map(Some), moment.size.columns));
            lines.extend(job.model().map(|model| format!("model {}", one_line(&model))));
            let is_waiting = ["pending", "queued"].contains(&job.status.as_str());
            lines.extend(job.queue_depth().filter(|_| is_waiting).map(queue));
        }
        None => lines.push("asking for the job".to_owned()),
    }
    // On a few lines: its end says when the next try comes.
    let trouble = moment.trouble.map(|trouble| folded(trouble, moment.size.columns)).unwrap_or_default();
    lines.extend(trouble.lines().take(3).map(str::to_owned));
    lines.extend(fitted([bar(progress, moment), epochs(progress)], moment.size.columns));
    lines.extend(fitted([train_loss(progress), eval_loss(progress)], moment.size.columns));
    let left =
        progress.seconds_left(moment.now).map(|left| format!("about {} left of this stage", spoken(&left)));
    let elapsed = progress.elapsed(moment.now).map(|elapsed| format!("elapsed {}", spoken(&elapsed)));
    lines.extend(fitted([price(progress), elapsed, left, learning_rate(progress)], moment.size.columns));
    lines
}

/// These texts beside one another, on as few lines as have room for them whole.
fn fitted<const N: usize>(texts: [Option<String>; N], columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for text in texts.into_iter().flatten() {
        match lines.last_mut() {
            Some(line) if width_of(line) + 3 + width_of(&text) < columns => {
                *line = format!("{line}   {text}")
            }
            _ => lines.push(text),
        }
    }
    lines
}

/// `text` without the words that the terminal has no room for.
fn whole_words(text: &str, columns: usize, charset: Charset) -> String {
    if width_of(text) < columns {
        return text.to_owned();
    }
    let more = if charset == Charset::Unicode { "…" } else { "..." };
    let cut = truncate_str(text, columns.saturating_sub(2 + more.chars().count()), "");
    let end = cut.rfind(' ').unwrap_or(cut.len());
    format!("{} {more}", &cut[..end])
}

fn width_of(text: &str) -> usize {
    measure_text_width(text)
}

/// `████░░░░  step 120/300 (40 %)`.
fn bar(progress: &Progress, moment: &Moment<'_>) -> Option<String> {
    let text = steps(progress)?;
    let Some((step, total)) = progress.step().zip(progress.total_steps()).filter(|(_, total)| *total > 0)
    else {
        return Some(text);
    };
    let width = 24.min(moment.size.columns / 3);
    let filled = (step.min(total) as f64 / total as f64 * width as f64) as usize;
    let (full, empty) = match moment.charset {
        Charset::Unicode => ("█", "░"),
        Charset::Ascii => ("#", "."),
    };
    Some(format!("{}{}  {text}", full.repeat(filled), empty.repeat(width - filled)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use ctxtune_service::together::job::{Job, MetricRow};

    fn progress(job: Value) -> Progress {
        let rows: Vec<MetricRow> = (1..=40)
            .map(|step| {
                let loss = 4.0 / (1.0 + f64::from(step));
                MetricRow::read(&json!({ "train/global_step": step, "train/loss": loss, "train/epoch": 0.5 }))
            })
            .collect();
        let mut progress = Progress::default();
        progress.absorb_job(Job::read(&job).unwrap());
        progress.absorb_metrics(&rows);
        progress
    }

    fn running() -> Progress {
        progress(json!({
            "id": "ft-1", "status": "running", "model": "a/b", "n_epochs": 2, "total_steps": 80, "total_price": 420_000_000,
            "started_at": "2026-11-24T10:00:00Z", "progress": { "seconds_remaining": 120 },
        }))
    }

    fn drawn(progress: &Progress, columns: usize, rows: usize, charset: Charset) -> Vec<String> {
        let happened: VecDeque<String> =
            (0..8).map(|number| format!("10:00:0{number}Z event {number}")).collect();
        let moment = Moment {
            now: "2026-11-24T10:01:00Z".parse().unwrap(),
            next: Duration::from_millis(3_500),
            happened: &happened,
            trouble: None,
            banner: None,
            size: Size { columns, rows },
            charset,
        };
        block(progress, &moment)
    }

    #[test]
    fn the_block_says_who_how_far_how_well_and_how_much() {
        let lines = drawn(&running(), 80, 24, Charset::Ascii);
        let expected = [
            "running   next look in 4s   ft-1",
            "model a/b",
            "############............  step 40/80 (50 %)   epoch 0.50/2",
            "train loss 0.0976",
            "$0.42 so far   elapsed 1m   about 1m left of this stage",
        ];
        assert_eq!(lines[..5], expected);
        assert_eq!(lines[5], "loss   .. train");
        assert_eq!(lines.last().unwrap(), "10:00:07Z event 7");
    }

    #[test]
    fn at_80_columns_nothing_is_cut_inside_a_number_or_a_word() {
        let progress = progress(json!({
            "id": "ft-741fe6c4-a1ad-1c31-e8de-0c3be552e13c", "status": "rebalancing", "total_price": 7_500_000,
            "started_at": "2026-11-24T10:00:00Z", "progress": { "seconds_remaining": 3607 }, "n_epochs": 3,
        }));
        let mut progress = progress;
        let row = json!({ "train/global_step": 41, "train/loss": 0.5, "train/learning_rate": 3.956e-6 });
        progress.absorb_metrics(&[MetricRow::read(&row)]);
        let lines = drawn(&progress, 80, 24, Charset::Ascii);
        let expected = [
            "rebalancing (a status that is new here)   next look in 4s",
            "ft-741fe6c4-a1ad-1c31-e8de-0c3be552e13c",
            "step 41   epoch 0.50/3",
            "train loss 0.5000",
            "$0.0075 so far   elapsed 1m   about 59m 7s left of this stage",
            "learning rate 3.96e-6",
        ];
        assert_eq!(lines[..6], expected);
        let event =
            "10:00:00Z warning: the account of this project is near its limit, and its jobs may be held";
        let whole = "10:00:00Z warning: the account of this project is near its limit, and its";
        assert_eq!(whole_words(event, 80, Charset::Unicode), format!("{whole} …"));
        assert_eq!(whole_words(event, 80, Charset::Ascii), format!("{whole} ..."));
        assert_eq!(whole_words("short", 80, Charset::Ascii), "short");
    }

    #[test]
    fn it_fits_into_every_terminal() {
        let hostile = progress(json!({
            "id": "ft-1", "status": "queued\u{1b}[2J", "model": "m\u{9b}31m\nn".repeat(30), "queue_depth": 2,
        }));
        for progress in [running(), hostile, Progress::default()] {
            for rows in 1..60 {
                for columns in [1, 20, 40, 80, 200] {
                    let lines = drawn(&progress, columns, rows, Charset::Unicode);
                    let fits = lines.len() < rows.max(9);
                    assert!(fits, "{} lines in {rows} rows", lines.len());
                    assert!(lines.iter().all(|line| !line.contains(|c: char| c.is_control())), "{lines:?}");
                }
            }
        }
    }

    #[test]
    fn a_queue_is_shown_while_the_job_waits_in_it() {
        let queued = json!({ "id": "ft-1", "status": "queued", "queue_depth": 1 });
        let lines = |job: Value| drawn(&progress(job), 80, 24, Charset::Ascii);
        assert_eq!(lines(queued)[1], "queue: 1 job before it");
        let running = json!({ "id": "ft-1", "status": "running", "queue_depth": 1 });
        assert!(!lines(running).iter().any(|line| line.contains("queue")));
    }
}
