//! What is said of a job while it is watched: one line a change, and the words the screens share.
//!
//! Text of the service is shown through [`one_line`] only, so that it can neither command the terminal
//! nor break a line. Nothing here asks or waits.

use std::io::Write;
use std::time::Duration;

use jiff::Timestamp;

use crate::screen::fold::folded;
use ctxtune_pipeline::job::monitor::{Screen, spoken};
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::job::progress::{News, Progress, TrainPoint};
use ctxtune_pipeline::text::{counted, grouped, loss, one_line};
use ctxtune_service::Clock;
use ctxtune_service::together::{Ending, Event};

/// Steps between two lines about training where nobody knows how many there are.
const STRIDE: u64 = 100;

/// One line a change, with the time of day; for logs and pipes.
pub struct Lines<'l> {
    out: Box<dyn Write + 'l>,
    clock: &'l dyn Clock,
    /// The width of the terminal that it is, if it is one.
    columns: Option<usize>,
    /// The part of training that was told of last.
    told: Option<u64>,
    last_trouble: String,
}

impl<'l> Lines<'l> {
    /// Lines on `out`, of any length unless it has so many `columns`.
    pub fn new(out: Box<dyn Write + 'l>, clock: &'l dyn Clock, columns: Option<usize>) -> Lines<'l> {
        Lines { out, clock, columns, told: None, last_trouble: String::new() }
    }

    fn say(&mut self, at: Option<Timestamp>, text: &str) {
        let at = at.unwrap_or_else(|| self.clock.now());
        // Nobody reads: nothing to be done, and no reason to fail.
        let line = format!("{} {text}", at.strftime("%F %TZ"));
        let line = match self.columns {
            Some(columns) => folded(&line, columns),
            None => line,
        };
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }

    fn say_train(&mut self, progress: &Progress, point: &TrainPoint) {
        let part = match progress.total_steps().filter(|total| *total > 0) {
            Some(total) => point.step.saturating_mul(10) / total,
            None => point.step / STRIDE,
        };
        if self.told.is_none_or(|told| part > told) {
            self.told = Some(part);
            let texts = [steps(progress), epochs(progress), train_loss(progress), learning_rate(progress)];
            self.say(None, &texts.into_iter().flatten().collect::<Vec<_>>().join(", "));
        }
    }
}

impl Screen for Lines<'_> {
    fn news(&mut self, progress: &Progress, news: &[News]) {
        self.last_trouble.clear();
        for news in news {
            match news {
                News::Status { to, .. } => {
                    let unknown =
                        if to.is_known() { "" } else { " (a status that is new here; watching on)" };
                    self.say(None, &format!("status: {}{unknown}", one_line(to.as_str())));
                }
                News::Queue(depth) => self.say(None, &queue(*depth)),
                News::Event(happened) => self.say(happened.time(), &event(happened)),
                News::Eval(point) => {
                    self.say(None, &format!("validation loss {} at step {}", loss(point.loss), point.step));
                }
                News::Train(_) => {}
            }
        }
        // Of many steps at once the last one says enough.
        let last =
            news.iter().rev().find_map(|news| if let News::Train(point) = news { Some(point) } else { None });
        if let Some(point) = last {
            self.say_train(progress, point);
        }
    }

    fn waiting(&mut self, _: &Progress, _: Duration) {}

    fn trouble(&mut self, what: &str, next: Duration) {
        // Half an hour of the same is one line.
        if self.last_trouble != what {
            what.clone_into(&mut self.last_trouble);
            self.say(None, &trouble(what, next));
        }
    }

    fn slept(&mut self, slept: Duration) {
        self.say(None, &woke(slept));
    }

    fn finished(&mut self, progress: &Progress, ending: Ending) {
        self.say(None, &ended(progress, ending));
    }
}

/// `step 120/300 (40 %)`.
pub fn steps(progress: &Progress) -> Option<String> {
    let step = progress.step()?;
    let Some(total) = progress.total_steps().filter(|total| *total > 0) else {
        return Some(format!("step {}", grouped(step)));
    };
    Some(format!("step {}/{} ({} %)", grouped(step), grouped(total), step.min(total) * 100 / total))
}

/// `epoch 1.20/3`.
pub fn epochs(progress: &Progress) -> Option<String> {
    let epoch = progress.epoch()?;
    let total = progress.job().and_then(|job| job.n_epochs()).map(|total| format!("/{total}"));
    Some(format!("epoch {epoch:.2}{}", total.unwrap_or_default()))
}

/// `train loss 1.2345`.
pub fn train_loss(progress: &Progress) -> Option<String> {
    Some(format!("train loss {}", loss(progress.train_loss()?)))
}

/// `validation loss 1.3456 at step 120 (best 1.3012 at step 100)`.
pub fn eval_loss(progress: &Progress) -> Option<String> {
    let (last, best) = (progress.last_eval()?, progress.best_eval()?);
    let text = format!("validation loss {} at step {}", loss(last.loss), grouped(last.step));
    let is_best = best.step == last.step;
    let best = format!(" (best {} at step {})", loss(best.loss), grouped(best.step));
    Some(if is_best { text } else { text + &best })
}

/// `learning rate 1.00e-5`.
pub fn learning_rate(progress: &Progress) -> Option<String> {
    let rate = progress.learning_rate()?;
    Some(if rate == 0.0 { "learning rate 0".to_owned() } else { format!("learning rate {rate:.2e}") })
}

/// `$0.42 so far`.
pub fn price(progress: &Progress) -> Option<String> {
    Some(format!("{} so far", dollars_text(progress.price()?)))
}

pub fn queue(depth: u64) -> String {
    format!("queue: {} before it", counted(depth, "job"))
}

pub fn event(event: &Event) -> String {
    let level = match event.level.as_str() {
        "" | "info" => String::new(),
        level => format!("{}: ", one_line(level)),
    };
    let step = event.step.map(|step| format!(" at step {}", grouped(step))).unwrap_or_default();
    let kind = if event.kind.is_empty() { "event" } else { &event.kind };
    let message = one_line(&event.message);
    let colon = if message.is_empty() { "" } else { ": " };
    format!("{level}{}{step}{colon}{message}", one_line(kind))
}

pub fn trouble(what: &str, next: Duration) -> String {
    format!("trouble: {}; trying again in {}", one_line(what), spoken(&next))
}

pub fn woke(slept: Duration) -> String {
    format!("this machine slept for {}; asking at once", spoken(&slept))
}

pub fn how(ending: Ending) -> &'static str {
    match ending {
        Ending::Completed => "the job is complete",
        Ending::Failed => "the job failed",
        Ending::Cancelled => "the job was cancelled",
    }
}

pub fn ended(progress: &Progress, ending: Ending) -> String {
    let price = progress.price().map(|price| format!("price {}", dollars_text(price)));
    let how = Some(how(ending).to_owned());
    let texts = [how, steps(progress), train_loss(progress), eval_loss(progress), price];
    texts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use ctxtune_service::clock::still::Still;
    use ctxtune_service::together::job::{Job, MetricRow};

    /// What lines say of what `act` tells them, without the time.
    fn said(act: impl FnOnce(&mut Lines<'_>)) -> Vec<String> {
        let mut out = Vec::new();
        act(&mut Lines::new(Box::new(&mut out), &Still, None));
        let text = String::from_utf8(out).unwrap();
        text.lines().map(|line| line.split_once("Z ").unwrap().1.to_owned()).collect()
    }

    fn row(step: u64) -> MetricRow {
        MetricRow::read(&json!({ "train/global_step": step, "train/loss": 1.5 }))
    }

    #[test]
    fn each_change_is_a_line_with_its_time() {
        let mut out = Vec::new();
        let mut progress = Progress::default();
        let mut lines = Lines::new(Box::new(&mut out), &Still, None);
        let mut news = progress.absorb_job(
            Job::read(&json!({ "id": "ft-1", "status": "on holiday", "queue_depth": 2 })).unwrap(),
        );
        let event = json!({
            "type": "CHECKPOINT_SAVE", "created_at": "2026-11-24T09:00:00Z", "step": 1200, "level": "Warning",
            "message": "saved\n\u{1b}[31m it",
        });
        news.extend(progress.absorb_events(vec![Event::read(&event)]));
        news.extend(
            progress
                .absorb_metrics(&[MetricRow::read(&json!({ "train/global_step": 9, "eval/loss": 0.25 }))]),
        );
        lines.news(&progress, &news);
        lines.slept(Duration::from_secs(7200));
        lines.finished(&progress, Ending::Failed);
        drop(lines);
        let expected = [
            "2026-11-24 10:00:00Z status: on holiday (a status that is new here; watching on)",
            "2026-11-24 10:00:00Z queue: 2 jobs before it",
            "2026-11-24 09:00:00Z warning: checkpoint_save at step 1,200: saved \\u{1b}[31m it",
            "2026-11-24 10:00:00Z validation loss 0.2500 at step 9",
            "2026-11-24 10:00:00Z this machine slept for 2h; asking at once",
            "2026-11-24 10:00:00Z the job failed, step 1,200, validation loss 0.2500 at step 9",
        ];
        assert_eq!(String::from_utf8(out).unwrap().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn training_is_a_line_a_tenth() {
        let job = json!({ "id": "ft-1", "status": "running", "total_steps": 500 });
        let lines = said(|lines| {
            let mut progress = Progress::default();
            progress.absorb_job(Job::read(&job).unwrap());
            for step in 1..=500 {
                let news = progress.absorb_metrics(&[row(step)]);
                lines.news(&progress, &news);
            }
        });
        assert_eq!(lines.len(), 11, "{lines:?}");
        assert_eq!(
            (lines[0].as_str(), lines[10].as_str()),
            ("step 1/500 (0 %), train loss 1.5000", "step 500/500 (100 %), train loss 1.5000")
        );
    }

    #[test]
    fn the_same_trouble_is_one_line_until_it_is_over() {
        let lines = said(|lines| {
            for _ in 0..30 {
                lines.trouble("no route", Duration::from_millis(4_200));
            }
            lines.trouble("reset", Duration::from_secs(60));
            lines.news(&Progress::default(), &[]);
            lines.trouble("reset", Duration::from_secs(60));
        });
        let reset = "trouble: reset; trying again in 1m";
        assert_eq!(lines, ["trouble: no route; trying again in 5s", reset, reset]);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [loss(0.0), loss(1.234_56), loss(1.5e-7), loss(-2.0)],
            ["0.0000", "1.2346", "1.500e-7", "-2.0000"]
        );
    }
}
