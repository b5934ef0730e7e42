//! A watched job as a stream of JSON objects, one a line, for programs.
//!
//! Its field names are a contract. The service's texts are carried whole; control characters are escaped, so
//! that a terminal shows them harmlessly. Each line is flushed, and a reader that has gone closes the screen.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use ctxtune_pipeline::job::monitor::Screen;
use ctxtune_pipeline::job::progress::{News, Progress};
use ctxtune_service::Clock;
use ctxtune_service::together::Ending;

/// JSON objects, each with `type`, `at` and `job`.
pub struct Ndjson<'n> {
    out: Box<dyn Write + 'n>,
    clock: &'n dyn Clock,
    job: String,
    error: Option<io::Error>,
}

impl<'n> Ndjson<'n> {
    pub fn new(out: Box<dyn Write + 'n>, clock: &'n dyn Clock, job: &str) -> Ndjson<'n> {
        Ndjson { out, clock, job: job.to_owned(), error: None }
    }

    /// What ended the stream: nothing where all was written, or where the reader has gone. Fails where
    /// something else kept a line from being written, such as a full disk.
    pub fn result(&mut self) -> io::Result<()> {
        match self.error.take() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }

    fn write(&mut self, kind: &str, fields: Value) {
        if self.error.is_some() {
            return;
        }
        let at = self.clock.now().strftime("%FT%TZ").to_string();
        let mut object = json!({ "type": kind, "at": at, "job": self.job });
        if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
            object.extend(fields);
        }
        let line = harmless(&object.to_string());
        self.error = writeln!(self.out, "{line}").and_then(|()| self.out.flush()).err();
    }
}

/// `json` with the control characters that JSON allows in a text, escaped.
fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_control() {
            text.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            text.push(character);
        }
    }
    text
}

impl Screen for Ndjson<'_> {
    fn news(&mut self, _: &Progress, news: &[News]) {
        for news in news {
            match news {
                News::Status { from, to } => {
                    let from = from.as_ref().map(|status| status.as_str());
                    self.write("status", json!({ "from": from, "to": to.as_str() }));
                }
                News::Queue(depth) => self.write("queue", json!({ "depth": depth })),
                News::Event(event) => {
                    let fields = json!({
                        "created_at": event.created_at, "kind": event.kind, "level": event.level, "message": event.message,
                        "step": event.step, "total_steps": event.total_steps, "checkpoint_path": event.checkpoint_path,
                    });
                    self.write("event", fields);
                }
                News::Train(point) => {
                    let fields = json!({
                        "step": point.step, "epoch": point.epoch, "loss": point.loss,
                        "learning_rate": point.learning_rate, "grad_norm": point.grad_norm,
                    });
                    self.write("train", fields);
                }
                News::Eval(point) => self.write("eval", json!({ "step": point.step, "loss": point.loss })),
            }
        }
    }

    fn waiting(&mut self, _: &Progress, _: Duration) {}

    fn trouble(&mut self, what: &str, next: Duration) {
        self.write("trouble", json!({ "message": what, "next_seconds": next.as_secs_f64() }));
    }

    fn slept(&mut self, slept: Duration) {
        self.write("slept", json!({ "seconds": slept.as_secs() }));
    }

    fn finished(&mut self, progress: &Progress, ending: Ending) {
        let job = progress.job();
        let ending = match ending {
            Ending::Completed => "completed",
            Ending::Failed => "failed",
            Ending::Cancelled => "cancelled",
        };
        let fields = json!({
            "ending": ending,
            "status": job.map(|job| job.status.as_str()),
            "step": progress.step(),
            "total_steps": progress.total_steps(),
            "train_loss": progress.train_loss(),
            "eval_loss": progress.last_eval().map(|point| point.loss),
            "best_eval_loss": progress.best_eval().map(|point| point.loss),
            "best_eval_step": progress.best_eval().map(|point| point.step),
            "price": progress.price(),
            "model_output_name": job.and_then(|job| job.model_output_name()),
            "model_object_id": job.and_then(|job| job.model_object_id()),
        });
        self.write("finished", fields);
    }

    fn is_closed(&self) -> bool {
        self.error.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctxtune_service::clock::still::Still;
    use ctxtune_service::together::job::{Event, Job, MetricRow};

    /// A reader that goes after the first line, or a disk that is full then.
    struct Ending(io::ErrorKind, usize);

    impl Write for Ending {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.1 += 1;
            if self.1 > 1 { Err(self.0.into()) } else { Ok(()) }
        }
    }

    #[test]
    fn every_change_is_one_object_on_a_line() {
        let mut progress = Progress::default();
        let job = json!({ "id": "ft-1", "status": "completed", "total_price": 500_000_000, "model_output_name": "a/b" });
        let mut news = progress.absorb_job(Job::read(&job).unwrap());
        news.extend(progress.absorb_events(vec![Event::read(
            &json!({ "type": "job_error", "message": "a\u{1b}\u{9b}\nb" }),
        )]));
        news.extend(progress.absorb_metrics(&[
            MetricRow::read(&json!({ "train/global_step": 2, "train/loss": 1.5 })),
            MetricRow::read(&json!({ "train/global_step": 2, "eval/loss": 1.75 })),
        ]));
        let mut out = Vec::new();
        let mut screen = Ndjson::new(Box::new(&mut out), &Still, "ft-1");
        screen.news(&progress, &news);
        screen.trouble("gone", Duration::from_secs(5));
        screen.slept(Duration::from_secs(60));
        screen.finished(&progress, ctxtune_service::together::job::Ending::Completed);
        assert!(!screen.is_closed() && screen.result().is_ok());
        drop(screen);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(r#""message":"a\u001b\u009b\nb""#), "{text}");
        let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<&str> = objects.iter().map(|object| object["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["status", "event", "train", "eval", "trouble", "slept", "finished"]);
        assert!(
            objects.iter().all(|object| object["job"] == "ft-1" && object["at"] == "2026-11-24T10:00:00Z")
        );
        assert_eq!((&objects[3]["loss"], &objects[6]["price"]), (&json!(1.75), &json!(0.5)));
        assert_eq!(objects[6]["model_output_name"], "a/b");
    }

    #[test]
    fn a_reader_that_goes_closes_it_quietly_and_a_full_disk_is_told() {
        let check = |kind: io::ErrorKind, is_told: bool| {
            let mut screen = Ndjson::new(Box::new(Ending(kind, 0)), &Still, "ft-1");
            screen.slept(Duration::ZERO);
            assert!(!screen.is_closed());
            screen.slept(Duration::ZERO);
            assert!(screen.is_closed());
            assert_eq!(screen.result().is_err(), is_told);
        };
        check(io::ErrorKind::BrokenPipe, false);
        check(io::ErrorKind::StorageFull, true);
    }
}
