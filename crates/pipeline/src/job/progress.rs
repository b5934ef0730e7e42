//! What is known of a job, gathered from answers that overlap, repeat and come in any order.
//!
//! Pure: answers in, what is new out. It asks nobody and knows no clock: the time of day is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use ctxtune_service::together::{Ending, Event, Job, MetricRow, Status, whole};

/// How many steps before the last known one are asked for again.
///
/// The row of an evaluation bears the step at which it began and arrives when it is over. The trainer
/// stands still meanwhile, so hardly a train row overtakes it; ten is ample and costs ten rows a
/// poll. What is later still comes with the whole fetch after the job's end.
const OVERLAP: u64 = 10;

#[derive(Debug, Clone, Default)]
pub struct Progress {
    job: Option<Job>,
    events: Vec<Event>,
    seen: BTreeSet<(String, String, Option<u64>, String)>,
    train: BTreeMap<u64, TrainPoint>,
    eval: BTreeMap<u64, EvalPoint>,
}

/// What training showed at one step; the fields of later rows for the same step win.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TrainPoint {
    pub step: u64,
    /// Epochs, with a fraction.
    pub epoch: Option<f64>,
    pub loss: Option<f64>,
    pub learning_rate: Option<f64>,
    pub grad_norm: Option<f64>,
    /// When, in nanoseconds since 1970.
    pub timestamp_ns: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EvalPoint {
    /// The step it was made at.
    pub step: u64,
    /// The loss.
    pub loss: f64,
    /// When, in nanoseconds since 1970.
    #[serde(skip)]
    pub timestamp_ns: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// The status, seen first or changed.
    Status {
        /// What it was; nothing at first.
        from: Option<Status>,
        to: Status,
    },
    /// How many jobs stand before it now.
    Queue(u64),
    Event(Event),
    Train(TrainPoint),
    Eval(EvalPoint),
}

impl Progress {
    pub fn absorb_job(&mut self, job: Job) -> Vec<News> {
        let before = self.job.replace(job);
        let Some(now) = &self.job else { return Vec::new() };
        let mut news = Vec::new();
        let from = before.as_ref().map(|job| job.status.clone());
        if from.as_ref() != Some(&now.status) {
            news.push(News::Status { from, to: now.status.clone() });
        }
        let depth = now.queue_depth();
        if let Some(depth) = depth.filter(|_| depth != before.and_then(|job| job.queue_depth())) {
            news.push(News::Queue(depth));
        }
        news
    }

    /// Takes events, known ones among them, in any order; gives the new ones in the order of time.
    pub fn absorb_events(&mut self, events: Vec<Event>) -> Vec<News> {
        let mut new: Vec<Event> =
            events.into_iter().filter(|event| self.seen.insert(event.identity())).collect();
        new.sort_by_cached_key(order);
        for event in &new {
            let at = self.events.partition_point(|known| order(known) <= order(event));
            self.events.insert(at, event.clone());
        }
        new.into_iter().map(News::Event).collect()
    }

    /// Takes rows of metrics, known ones among them; gives the new and the corrected points.
    pub fn absorb_metrics(&mut self, rows: &[MetricRow]) -> Vec<News> {
        let mut news = Vec::new();
        for row in rows {
            news.extend(self.absorb_train(row));
        }
        let first = rows.iter().filter(|row| is_train(row)).find_map(|row| row.step);
        let mut before = self.last_step_before(first);
        for row in rows {
            if is_train(row) {
                before = row.step.or(before);
            }
            news.extend(self.absorb_eval(row, before));
        }
        news
    }

    fn absorb_train(&mut self, row: &MetricRow) -> Option<News> {
        let step = row.step.filter(|_| is_train(row))?;
        let known = self.train.get(&step).copied();
        let old = known.unwrap_or(TrainPoint { step, ..TrainPoint::default() });
        let point = TrainPoint {
            step,
            epoch: row.epoch.or(old.epoch),
            loss: row.train_loss.or(old.loss),
            learning_rate: row.learning_rate.or(old.learning_rate),
            grad_norm: row.grad_norm.or(old.grad_norm),
            timestamp_ns: row.timestamp_ns.or(old.timestamp_ns),
        };
        self.train.insert(step, point);
        (known != Some(point)).then_some(News::Train(point))
    }

    /// `before` is the step of the train row before it in the answer.
    fn absorb_eval(&mut self, row: &MetricRow, before: Option<u64>) -> Option<News> {
        let loss = row.eval_loss?;
        let step = row.step.or_else(|| self.step_at(row.timestamp_ns?)).or(before)?;
        let point = EvalPoint { step, loss, timestamp_ns: row.timestamp_ns };
        let known = self.eval.insert(step, point);
        let is_new = known.is_none_or(|known| known.loss != loss);
        is_new.then_some(News::Eval(point))
    }

    /// The last train step at a moment; nothing where rows bear no times.
    fn step_at(&self, timestamp_ns: i64) -> Option<u64> {
        let is_before = |point: &&TrainPoint| point.timestamp_ns.is_some_and(|time| time <= timestamp_ns);
        self.train.values().rev().find(is_before).map(|point| point.step)
    }

    fn last_step_before(&self, step: Option<u64>) -> Option<u64> {
        self.train.range(..step.unwrap_or(u64::MAX)).next_back().map(|(step, _)| *step)
    }

    pub fn job(&self) -> Option<&Job> {
        self.job.as_ref()
    }

    pub fn events(&self) -> &[Event] {
        &self.events
    }

    pub fn train(&self) -> impl DoubleEndedIterator<Item = &TrainPoint> {
        self.train.values()
    }

    pub fn eval(&self) -> impl DoubleEndedIterator<Item = &EvalPoint> {
        self.eval.values()
    }

    pub fn step(&self) -> Option<u64> {
        let last = self.train.keys().chain(self.eval.keys()).max().copied();
        let told = self.events.iter().filter_map(|event| event.step).max();
        last.max(told).max(self.of_job(&["steps_completed"]))
    }

    /// The number of steps that training takes; nothing before the service says it or the job is done.
    pub fn total_steps(&self) -> Option<u64> {
        let told = self.events.iter().filter_map(|event| event.total_steps).max();
        let told = told.or_else(|| self.of_job(&["total_steps"]));
        let is_done = self.job.as_ref().is_some_and(|job| job.status.ending() == Some(Ending::Completed));
        match told {
            Some(total) => Some(total.max(self.step().unwrap_or(0))),
            None => self.step().filter(|_| is_done),
        }
    }

    fn of_job(&self, keys: &[&str]) -> Option<u64> {
        whole(&self.job.as_ref()?.object, keys).filter(|count| *count > 0)
    }

    /// Epochs trained, with a fraction where metrics have one.
    pub fn epoch(&self) -> Option<f64> {
        let last = self.train.values().rev().find_map(|point| point.epoch);
        last.or_else(|| Some(self.job.as_ref()?.epochs_completed()? as f64))
    }

    pub fn train_loss(&self) -> Option<f64> {
        self.train.values().rev().find_map(|point| point.loss)
    }

    pub fn learning_rate(&self) -> Option<f64> {
        self.train.values().rev().find_map(|point| point.learning_rate)
    }

    pub fn last_eval(&self) -> Option<EvalPoint> {
        self.eval.values().next_back().copied()
    }

    /// The evaluation with the lowest loss; of equal ones the first.
    pub fn best_eval(&self) -> Option<EvalPoint> {
        self.eval.values().min_by(|a, b| a.loss.total_cmp(&b.loss)).copied()
    }

    pub fn price(&self) -> Option<f64> {
        self.job.as_ref()?.price()
    }

    /// How long the job has run; nothing before it started and after it ended.
    pub fn elapsed(&self, now: Timestamp) -> Option<Duration> {
        let job = self.job.as_ref().filter(|job| job.status.ending().is_none())?;
        let elapsed = now.duration_since(job.started_at()?).as_secs();
        // A clock that is behind the service's knows no elapsed time.
        u64::try_from(elapsed).ok().map(Duration::from_secs)
    }

    /// How long the current stage goes on, by the service's estimate; nothing once that is used up.
    pub fn seconds_left(&self, now: Timestamp) -> Option<Duration> {
        let job = self.job.as_ref().filter(|job| job.status.ending().is_none())?;
        let left = job.stage_seconds()? - now.duration_since(job.started_at()?).as_secs_f64();
        Duration::try_from_secs_f64(left).ok().filter(|left| !left.is_zero())
    }

    /// Where to go on reading metrics; nothing for all of them.
    pub(crate) fn next_step_from(&self) -> Option<u64> {
        let next = self.train.keys().next_back()? + 1;
        Some(next.saturating_sub(OVERLAP)).filter(|from| *from > 0)
    }

    /// Whether every row that a finished job owes is here, as far as the job says what it owes.
    pub fn is_complete(&self) -> bool {
        let Some(job) = &self.job else { return false };
        let has_validation = job.file_ids().1.is_some();
        let owed = whole(&job.object, &["n_evals"]).filter(|_| has_validation).unwrap_or(0);
        self.eval.len() as u64 >= owed
    }
}

/// Whether a row is one of training. Its numbers may all be missing; an evaluation's row can bear an
/// epoch, and training's names without values.
fn is_train(row: &MetricRow) -> bool {
    let has_values = row.train_loss.is_some() || row.learning_rate.is_some() || row.grad_norm.is_some();
    let is_of_training = |name: &String| {
        name.starts_with("train/")
            && !["train/global_step", "train/step", "train/epoch"].contains(&name.as_str())
    };
    let mut names = row.object.as_object().into_iter().flat_map(|row| row.keys());
    has_values || (row.eval_loss.is_none() && names.any(is_of_training))
}

/// The order of events: by time, and within one moment by what can only come after what.
///
/// Equal times are common where whole seconds are written, and the order in which answers come must
/// not decide: the rest of the key is what an event says.
fn order(event: &Event) -> (Option<Timestamp>, usize, u64, usize, String, String) {
    let before = ["job_pending", "job_start", "model_download", "training_data", "validation_data", "wandb"];
    let during = ["training_start", "epoch_complete", "eval_complete", "checkpoint_save"];
    let after = ["training_complete", "model_compress", "compressing", "model_upload", "job_", "refund"];
    let place = |kinds: &[&str]| kinds.iter().position(|kind| event.kind.starts_with(kind));
    let (phase, rank) = match (place(&before), place(&after)) {
        (Some(rank), _) => (0, rank),
        (None, Some(rank)) => (2, rank),
        (None, None) => (1, place(&during).unwrap_or(during.len())),
    };
    let step = event.step.filter(|_| phase == 1).unwrap_or(0);
    let rank = rank * 2 + usize::from(event.kind.ends_with("_complete"));
    (event.time(), phase, step, rank, event.kind.clone(), event.message.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(object: Value) -> Job {
        Job::read(&object).unwrap()
    }

    fn rows(rows: Value) -> Vec<MetricRow> {
        rows.as_array().unwrap().iter().map(MetricRow::read).collect()
    }

    fn event(kind: &str, at: &str, step: u64) -> Event {
        Event::read(
            &json!({ "type": kind, "created_at": at, "step": step, "total_steps": 30, "message": kind }),
        )
    }

    /// Rows absorbed one answer after the other; gives train and eval points as (step, loss).
    #[track_caller]
    fn check(answers: &[Value], train: &[(u64, f64)], eval: &[(u64, f64)]) -> Progress {
        let mut progress = Progress::default();
        for answer in answers {
            progress.absorb_metrics(&rows(answer.clone()));
        }
        let trained: Vec<_> = progress.train().filter_map(|point| Some((point.step, point.loss?))).collect();
        let evaluated: Vec<_> = progress.eval().map(|point| (point.step, point.loss)).collect();
        assert_eq!((trained.as_slice(), evaluated.as_slice()), (train, eval));
        progress
    }

    /// Deterministically shuffled.
    fn shuffled<T: Clone>(items: &[T], seed: usize) -> Vec<T> {
        let mut rest = items.to_vec();
        let mut shuffled = Vec::new();
        while !rest.is_empty() {
            shuffled.push(rest.remove((seed * 7919 + rest.len() * 31) % rest.len()));
        }
        shuffled
    }

    #[test]
    fn shuffled_and_doubled_events_give_the_same_progress() {
        let same = "2026-11-24T10:00:05Z";
        let events = vec![
            event("job_pending", "2026-11-24T10:00:00Z", 0),
            event("job_start", "2026-11-24T10:00:00.5Z", 0),
            event("model_downloading", same, 0),
            event("model_download_complete", same, 0),
            event("training_start", same, 0),
            event("epoch_complete", same, 10),
            event("checkpoint_save", same, 10),
            event("checkpoint_save", same, 20),
            event("training_complete", same, 30),
            event("model_upload_complete", same, 0),
            event("job_complete", "2026-11-24T10:00:06Z", 0),
        ];
        for seed in 0..200 {
            let mut progress = Progress::default();
            let doubled = [events.clone(), events.clone()].concat();
            let mut count = 0;
            for part in shuffled(&doubled, seed).chunks(1 + seed % 5) {
                count += progress.absorb_events(part.to_vec()).len();
            }
            assert_eq!(progress.events(), events, "seed {seed}");
            assert_eq!((count, progress.total_steps()), (events.len(), Some(30)));
        }
    }

    #[test]
    fn events_without_a_time_come_first_and_hashes_tell_equal_ones_apart() {
        let mut progress = Progress::default();
        let mut hashed = event("warning", "2026-11-24T10:00:00Z", 3);
        hashed.hash = "a".to_owned();
        let other = Event { hash: "b".to_owned(), ..hashed.clone() };
        let undated = event("info", "soon", 0);
        let news = progress.absorb_events(vec![hashed.clone(), other, undated.clone(), hashed]);
        assert_eq!((news.len(), progress.events().len()), (3, 3));
        assert_eq!(progress.events()[0], undated);
    }

    #[test]
    fn rows_that_come_again_are_no_news_and_late_ones_are() {
        let mut progress = Progress::default();
        let answer = json!([
            { "train/global_step": 1, "train/loss": 2.0 }, { "train/global_step": 2, "train/loss": 1.5 },
        ]);
        assert_eq!(progress.absorb_metrics(&rows(answer.clone())).len(), 2);
        assert!(progress.absorb_metrics(&rows(answer)).is_empty());
        let late = rows(json!([{ "train/global_step": 1, "eval/loss": 1.9 }]));
        assert!(matches!(progress.absorb_metrics(&late)[..], [News::Eval(EvalPoint { step: 1, .. })]));
        assert!(progress.absorb_metrics(&late).is_empty());
        let corrected = rows(json!([{ "train/global_step": 2, "train/loss": 1.25 }]));
        assert!(matches!(progress.absorb_metrics(&corrected)[..], [News::Train(_)]));
        assert_eq!((progress.train_loss(), progress.step()), (Some(1.25), Some(2)));
    }

    #[test]
    fn train_and_eval_of_one_step_are_kept_apart() {
        check(
            &[json!([
                { "train/global_step": 4, "train/loss": 2.0, "eval/loss": null },
                { "train/global_step": 4, "train/loss": null, "eval/loss": 3.0 },
                { "train/global_step": 8, "train/loss": 1.0, "eval/loss": 1.5 },
            ])],
            &[(4, 2.0), (8, 1.0)],
            &[(4, 3.0), (8, 1.5)],
        );
    }

    #[test]
    fn an_evaluation_without_a_step_takes_the_train_row_before_it() {
        let first = json!([
            { "train/global_step": 1, "train/loss": 3.0 }, { "eval/loss": 9.0 },
            { "train/global_step": 2, "train/loss": 2.0 },
        ]);
        check(std::slice::from_ref(&first), &[(1, 3.0), (2, 2.0)], &[(1, 9.0)]);
        // In a later answer, before the first train row: the last one known before that.
        let second = json!([{ "eval/loss": 8.0 }, { "train/global_step": 3, "train/loss": 1.0 }]);
        check(&[first.clone(), second], &[(1, 3.0), (2, 2.0), (3, 1.0)], &[(1, 9.0), (2, 8.0)]);
        check(&[first, json!([{ "eval/loss": 7.0 }])], &[(1, 3.0), (2, 2.0)], &[(1, 9.0), (2, 7.0)]);
        check(&[json!([{ "eval/loss": 7.0 }])], &[], &[]);
        // Times tell better than the order.
        let timed = json!([
            { "eval/loss": 5.0, "timestamp": 150 }, { "train/global_step": 1, "train/loss": 3.0, "timestamp": 100 },
            { "train/global_step": 2, "train/loss": 2.0, "timestamp": 200 },
        ]);
        check(&[timed], &[(1, 3.0), (2, 2.0)], &[(1, 5.0)]);
    }

    #[test]
    fn what_is_no_number_is_a_gap_and_takes_nothing_away() {
        let progress = check(
            &[
                json!([{ "train/global_step": 1, "train/loss": 3.0, "train/learning_rate": 1e-5 }]),
                json!([{ "train/global_step": 1, "train/loss": "NaN" }, { "train/global_step": 2, "train/loss": null }]),
                json!([{}, [], null, { "train/loss": 1.0 }, { "train/global_step": 7, "train/epoch": 1.0 }]),
            ],
            &[(1, 3.0)],
            &[],
        );
        assert_eq!((progress.step(), progress.learning_rate()), (Some(2), Some(1e-5)));
    }

    #[test]
    fn reading_goes_on_a_little_before_the_end() {
        let mut progress = Progress::default();
        assert_eq!(progress.next_step_from(), None);
        let row = |step: u64| rows(json!([{ "train/global_step": step, "train/loss": 1.0 }]));
        progress.absorb_metrics(&row(9));
        assert_eq!(progress.next_step_from(), None);
        progress.absorb_metrics(&row(40));
        assert_eq!(progress.next_step_from(), Some(31));
    }

    #[test]
    fn the_best_evaluation_is_the_first_of_the_lowest() {
        let progress = check(
            &[json!([
                { "train/global_step": 30, "eval/loss": 0.5 }, { "train/global_step": 10, "eval/loss": 0.75 },
                { "train/global_step": 20, "eval/loss": 0.5 }, { "train/global_step": 40, "eval/loss": 0.625 },
            ])],
            &[],
            &[(10, 0.75), (20, 0.5), (30, 0.5), (40, 0.625)],
        );
        assert_eq!(progress.best_eval().map(|point| point.step), Some(20));
        assert_eq!(progress.last_eval().map(|point| point.step), Some(40));
    }

    #[test]
    fn a_change_of_status_or_queue_is_news_once() {
        let mut progress = Progress::default();
        let queued = json!({ "id": "ft-1", "status": "queued", "queue_depth": 3 });
        assert_eq!(progress.absorb_job(job(queued.clone())).len(), 2);
        assert!(progress.absorb_job(job(queued)).is_empty());
        let news = progress.absorb_job(job(json!({ "id": "ft-1", "status": "Paused" })));
        let (from, to) = (Some(Status::new("queued")), Status::new("paused"));
        assert_eq!(news, [News::Status { from, to }]);
    }

    #[test]
    fn what_is_left_counts_from_the_start_of_the_job() {
        let check = |object: Value, expected: Option<u64>| {
            let mut progress = Progress::default();
            progress.absorb_job(job(object));
            let now = "2026-11-24T10:10:00Z".parse().unwrap();
            assert_eq!(progress.seconds_left(now), expected.map(Duration::from_secs));
        };
        let started = "2026-11-24T10:00:00Z";
        let running = |progress: Value| json!({ "id": "a", "status": "running", "started_at": started, "progress": progress });
        check(running(json!({ "estimate_available": true, "seconds_remaining": 900 })), Some(300));
        check(running(json!({ "seconds_remaining": 600 })), None);
        check(running(json!({ "seconds_remaining": 60 })), None);
        check(running(json!({ "estimate_available": false, "seconds_remaining": 900 })), None);
        check(running(json!({ "seconds_remaining": 1e300 })), None);
        check(running(Value::Null), None);
        check(json!({ "id": "a", "status": "running", "progress": { "seconds_remaining": 900 } }), None);
    }

    #[test]
    fn the_total_is_what_the_service_says() {
        let mut progress = Progress::default();
        progress.absorb_metrics(&rows(json!([{ "train/global_step": 12, "train/loss": 1.0 }])));
        progress.absorb_job(job(json!({ "id": "a", "status": "running", "epochs_completed": 2 })));
        assert_eq!((progress.step(), progress.total_steps(), progress.epoch()), (Some(12), None, Some(2.0)));
        progress.absorb_job(job(json!({ "id": "a", "status": "completed" })));
        assert_eq!(progress.total_steps(), Some(12));
        progress.absorb_events(vec![event("training_start", "2026-11-24T10:00:00Z", 0)]);
        assert_eq!(progress.total_steps(), Some(30));
    }

    #[test]
    fn a_job_owes_its_evaluations_where_it_has_validation_data() {
        let check = |object: Value, expected: bool| {
            let mut progress = Progress::default();
            progress.absorb_metrics(&rows(json!([{ "train/global_step": 5, "eval/loss": 1.0 }])));
            progress.absorb_job(job(object));
            assert_eq!(progress.is_complete(), expected);
        };
        check(json!({ "id": "a", "status": "completed", "n_evals": 2, "validation_file": "file-1" }), false);
        check(json!({ "id": "a", "status": "completed", "n_evals": 1, "validation_file": "file-1" }), true);
        check(json!({ "id": "a", "status": "completed", "n_evals": 2, "validation_file": "" }), true);
        check(json!({ "id": "a", "status": "completed" }), true);
    }
}
