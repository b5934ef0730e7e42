//! The course of a job: its status, events, metrics and checkpoints after so many seconds.
//!
//! A pure function of the job's plan and the seconds since its creation: the server stores no progress, and a
//! test asks about any moment. Nothing here is trained; the losses fall as plausible ones do.

use crate::faults::chance;

/// Parts of a job's time: when a stage begins, when a job fails that is to fail, how long a cancellation takes.
const QUEUED: f64 = 0.04;
const RUNNING: f64 = 0.12;
const TRAINING: f64 = 0.15;
const COMPRESSING: f64 = 0.84;
const UPLOADING: f64 = 0.92;
const FAILING: f64 = 0.6;
const CANCELLING: f64 = 0.05;

/// How a job ends unless it is cancelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Outcome {
    #[default]
    Completed,
    /// With trouble on the server's side, in the middle of the training.
    Error,
    /// With trouble that the user made, in the middle of the training.
    UserError,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seconds: f64,
    pub steps: u64,
    pub epochs: u64,
    /// Evaluations, evenly spread.
    pub evals: u64,
    /// Checkpoints, evenly spread; the last one is the model.
    pub checkpoints: u64,
    /// The highest.
    pub learning_rate: f64,
    /// Part of the training in which the learning rate rises.
    pub warmup_ratio: f64,
    pub outcome: Outcome,
    pub cancelled: Option<f64>,
    pub seed: u64,
}

#[derive(Debug)]
pub struct Moment {
    pub status: &'static str,
    pub step: u64,
    pub epochs: u64,
    pub queue_depth: u64,
    /// Seconds that the training takes from its start, once it has started.
    pub training_seconds: Option<f64>,
}

/// What happened to a job. Seconds are those since its creation here, too.
#[derive(Debug, PartialEq)]
pub struct Event {
    pub second: f64,
    pub kind: &'static str,
    pub message: String,
    /// Steps done then; 0 where it does not matter.
    pub step: u64,
}

#[derive(Debug, PartialEq)]
pub struct Row {
    pub second: f64,
    /// From 1.
    pub step: u64,
    pub values: Values,
}

#[derive(Debug, PartialEq)]
pub enum Values {
    Train { epoch: f64, loss: f64, grad_norm: f64, learning_rate: f64 },
    Eval { loss: f64 },
}

#[derive(Debug, PartialEq)]
pub struct Checkpoint {
    pub second: f64,
    pub step: u64,
    /// Whether it is the model that the job ends with.
    pub is_final: bool,
}

impl Plan {
    /// The second at which its course ends, other than by being finished: cancelled or failed.
    fn stop(&self) -> Option<f64> {
        let failed = (self.outcome != Outcome::Completed).then_some(self.seconds * FAILING);
        match (self.cancelled, failed) {
            (Some(cancelled), Some(failed)) => Some(cancelled.min(failed)),
            (cancelled, failed) => cancelled.or(failed),
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.is_some() && self.stop() == self.cancelled
    }

    /// The part of the training that is done after a step.
    fn part(&self, step: u64) -> f64 {
        step as f64 / self.steps.max(1) as f64
    }

    fn second_of(&self, step: u64) -> f64 {
        self.seconds * (TRAINING + (COMPRESSING - TRAINING) * self.part(step))
    }

    fn steps_done(&self, second: f64) -> u64 {
        let second = second.min(self.stop().unwrap_or(f64::MAX));
        if self.seconds <= 0.0 {
            return self.steps;
        }
        let part = (second / self.seconds - TRAINING) / (COMPRESSING - TRAINING);
        // The tolerance gives a step the second that `second_of` computed for it.
        ((part.clamp(0.0, 1.0) * self.steps as f64 + 1e-6).floor() as u64).min(self.steps)
    }

    /// The steps at which `count` things happen that are evenly spread; the last at the end.
    fn spread(&self, count: u64) -> impl Iterator<Item = u64> + '_ {
        let steps = (1..=count).map(move |number| (self.steps * number).div_ceil(count.max(1)).max(1));
        let mut last = 0;
        // With more of them than steps, a step has one.
        steps.filter(move |step| std::mem::replace(&mut last, *step) != *step)
    }
}

pub fn moment(plan: &Plan, second: f64) -> Moment {
    let step = plan.steps_done(second);
    let part = if plan.seconds > 0.0 { second / plan.seconds } else { 1.0 };
    let stage = match part {
        _ if part < QUEUED => "pending",
        _ if part < RUNNING => "queued",
        _ if part < COMPRESSING => "running",
        _ if part < UPLOADING => "compressing",
        _ if part < 1.0 => "uploading",
        _ => "completed",
    };
    let status = match plan.stop().filter(|stop| second >= *stop) {
        None => stage,
        Some(stop) if plan.is_cancelled() && second < stop + plan.seconds * CANCELLING => "cancel_requested",
        Some(_) if plan.is_cancelled() => "cancelled",
        Some(_) if plan.outcome == Outcome::UserError => "user_error",
        Some(_) => "error",
    };
    Moment {
        status,
        step,
        epochs: step * plan.epochs / plan.steps.max(1),
        queue_depth: match status {
            "pending" => 2,
            "queued" if part < (QUEUED + RUNNING) / 2.0 => 1,
            _ => 0,
        },
        training_seconds: (part >= RUNNING).then_some(plan.seconds * (1.0 - RUNNING)),
    }
}

pub fn start(plan: &Plan) -> f64 {
    plan.seconds * RUNNING
}

pub fn is_terminal(status: &str) -> bool {
    ["completed", "cancelled", "error", "user_error"].contains(&status)
}

pub fn events(plan: &Plan, second: f64) -> Vec<Event> {
    // Of what happens at one moment, the end of the training is last.
    let mut events = milestones(plan);
    events.extend(stages(plan));
    events.sort_by(|left, right| left.second.total_cmp(&right.second));
    if let Some(stop) = plan.stop() {
        events.retain(|event| event.second < stop);
        events.extend(ending(plan, stop));
    }
    events.retain(|event| event.second <= second);
    events
}

fn event(second: f64, kind: &'static str, message: &str, step: u64) -> Event {
    Event { second, kind, message: message.to_owned(), step }
}

fn stages(plan: &Plan) -> Vec<Event> {
    let mut stages = vec![
        (0.0, "JOB_PENDING", "Fine-tune request received"),
        (RUNNING, "JOB_START", "Job started"),
        (0.125, "MODEL_DOWNLOADING", "Downloading the model"),
        (0.135, "MODEL_DOWNLOAD_COMPLETE", "The model is downloaded"),
        (0.136, "TRAINING_DATA_DOWNLOADING", "Downloading the training data"),
        (0.14, "TRAINING_DATA_DOWNLOAD_COMPLETE", "The training data is downloaded"),
        (TRAINING, "TRAINING_START", "Training started"),
        (COMPRESSING, "TRAINING_COMPLETE", "Training completed"),
        (COMPRESSING, "MODEL_COMPRESSING", "Compressing the model"),
        (UPLOADING, "MODEL_COMPRESSION_COMPLETE", "The model is compressed"),
        (UPLOADING, "MODEL_UPLOADING", "Uploading the model"),
        (0.99, "MODEL_UPLOAD_COMPLETE", "The model is uploaded"),
        (1.0, "JOB_COMPLETE", "Job finished"),
    ];
    if plan.evals > 0 {
        stages.push((0.141, "VALIDATION_DATA_DOWNLOADING", "Downloading the validation data"));
        stages.push((0.145, "VALIDATION_DATA_DOWNLOAD_COMPLETE", "The validation data is downloaded"));
    }
    let stages = stages.into_iter();
    stages.map(|(part, kind, message)| event(plan.seconds * part, kind, message, 0)).collect()
}

fn milestones(plan: &Plan) -> Vec<Event> {
    let mut events = Vec::new();
    for (index, step) in plan.spread(plan.epochs).enumerate() {
        let message = format!("Epoch {} of {} completed", index + 1, plan.epochs);
        events.push(event(plan.second_of(step), "EPOCH_COMPLETE", &message, step));
    }
    for (count, kind, message) in [
        (plan.evals, "EVAL_COMPLETE", "Evaluation completed"),
        (plan.checkpoints, "CHECKPOINT_SAVE", "Checkpoint saved"),
    ] {
        events.extend(plan.spread(count).map(|step| event(plan.second_of(step), kind, message, step)));
    }
    events
}

fn ending(plan: &Plan, stop: f64) -> Vec<Event> {
    let event = |second, kind, message| event(second, kind, message, plan.steps_done(stop));
    match plan.outcome {
        _ if plan.is_cancelled() => vec![
            event(stop, "CANCEL_REQUESTED", "Cancellation requested"),
            event(stop + plan.seconds * CANCELLING, "JOB_STOPPED", "Job stopped"),
        ],
        Outcome::UserError => {
            let message = "the training file cannot be used: this job was scripted to fail";
            vec![event(stop, "JOB_USER_ERROR", message)]
        }
        _ => vec![event(stop, "JOB_ERROR", "the training failed: this job was scripted to fail")],
    }
}

/// What has been measured up to `second`: by step, train before eval.
pub fn rows(plan: &Plan, second: f64) -> Vec<Row> {
    let done = plan.steps_done(second);
    let evals: Vec<u64> = plan.spread(plan.evals).collect();
    let mut rows = Vec::new();
    for step in 1..=done {
        rows.push(Row { second: plan.second_of(step), step, values: train_values(plan, step) });
        if evals.contains(&step) {
            let loss = expected_loss(plan, step) * 1.04 + 0.02 * noise(plan, step, 2);
            rows.push(Row { second: plan.second_of(step), step, values: Values::Eval { loss } });
        }
    }
    rows
}

fn train_values(plan: &Plan, step: u64) -> Values {
    let part = plan.part(step);
    let falling = 1.0 - 0.6 * part;
    Values::Train {
        epoch: part * plan.epochs as f64,
        loss: expected_loss(plan, step) + 0.12 * falling * noise(plan, step, 0),
        grad_norm: 0.4 + 1.2 * falling * (1.0 + 0.3 * noise(plan, step, 1)),
        learning_rate: learning_rate(plan, part),
    }
}

/// Falls from 2.1 by an exponential; the closer the learning rate to 2e-4, the lower it ends.
fn expected_loss(plan: &Plan, step: u64) -> f64 {
    let distance = (plan.learning_rate.max(1e-12) / 2e-4).log10().abs();
    let floor = 0.35 + 0.12 * distance + 0.05 * noise(plan, 0, 3);
    floor + (2.1 - floor) * (-4.0 * plan.part(step)).exp()
}

/// A linear rise, then half a cosine down to nothing.
fn learning_rate(plan: &Plan, part: f64) -> f64 {
    if part < plan.warmup_ratio {
        return plan.learning_rate * part / plan.warmup_ratio;
    }
    let rest = (part - plan.warmup_ratio) / (1.0 - plan.warmup_ratio).max(1e-9);
    plan.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * rest).cos())
}

/// Between -0.5 and 0.5.
fn noise(plan: &Plan, step: u64, series: u64) -> f64 {
    chance(&[plan.seed, step, series]) - 0.5
}

/// What has been saved up to `second`: a job that is not completed has no final one.
pub fn checkpoints(plan: &Plan, second: f64) -> Vec<Checkpoint> {
    let done = plan.steps_done(second);
    let is_completed = moment(plan, second).status == "completed";
    let saved = plan.spread(plan.checkpoints).filter(|step| *step <= done);
    let checkpoint = |step| Checkpoint { second: plan.second_of(step), step, is_final: step == plan.steps };
    saved.map(checkpoint).filter(|checkpoint| is_completed || !checkpoint.is_final).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            seconds: 100.0,
            steps: 30,
            epochs: 3,
            evals: 3,
            checkpoints: 2,
            learning_rate: 1e-5,
            warmup_ratio: 0.1,
            outcome: Outcome::Completed,
            cancelled: None,
            seed: 1,
        }
    }

    #[track_caller]
    fn check(plan: &Plan, expected: &[(f64, &str)]) {
        for (second, status) in expected {
            assert_eq!(moment(plan, *second).status, *status, "at {second} s");
        }
    }

    #[test]
    fn a_job_goes_through_the_documented_statuses() {
        let stages = [
            (0.0, "pending"),
            (5.0, "queued"),
            (12.0, "running"),
            (84.0, "compressing"),
            (92.0, "uploading"),
        ];
        check(&plan(), &stages);
        check(&plan(), &[(99.9, "uploading"), (100.0, "completed"), (1e9, "completed")]);
        check(&Plan { seconds: 0.0, ..plan() }, &[(0.0, "completed")]);
    }

    #[test]
    fn a_job_that_is_cancelled_or_fails_stops_there() {
        let cancelled = Plan { cancelled: Some(50.0), ..plan() };
        check(&cancelled, &[(49.0, "running"), (50.0, "cancel_requested"), (55.0, "cancelled")]);
        check(&Plan { outcome: Outcome::Error, ..plan() }, &[(59.0, "running"), (60.0, "error")]);
        check(&Plan { outcome: Outcome::UserError, ..plan() }, &[(60.0, "user_error")]);
        check(&Plan { outcome: Outcome::Error, ..cancelled.clone() }, &[(90.0, "cancelled")]);
        assert_eq!(moment(&cancelled, 99.0).step, moment(&cancelled, 50.0).step);
        assert_eq!(rows(&cancelled, 99.0), rows(&cancelled, 50.0));
        let kinds = |second| events(&cancelled, second).iter().map(|event| event.kind).collect::<Vec<_>>();
        assert_eq!(kinds(52.0).last(), Some(&"CANCEL_REQUESTED"));
        assert_eq!(kinds(60.0).last(), Some(&"JOB_STOPPED"));
    }

    #[test]
    fn what_has_happened_stays_and_the_rest_is_added() {
        let mut before = (Vec::new(), Vec::new(), Vec::new());
        for second in 0..=200 {
            let second = f64::from(second) / 2.0;
            let after = (events(&plan(), second), rows(&plan(), second), checkpoints(&plan(), second));
            assert!(after.0.starts_with(&before.0), "events at {second} s");
            assert!(after.1.starts_with(&before.1), "rows at {second} s");
            assert!(after.2.starts_with(&before.2), "checkpoints at {second} s");
            before = after;
        }
        let kinds = |kind| before.0.iter().filter(|event| event.kind == kind).count();
        assert_eq!([kinds("EPOCH_COMPLETE"), kinds("EVAL_COMPLETE"), kinds("CHECKPOINT_SAVE")], [3, 3, 2]);
        assert_eq!(before.0.first().map(|event| event.kind), Some("JOB_PENDING"));
        assert_eq!(before.0.last().map(|event| event.kind), Some("JOB_COMPLETE"));
        assert_eq!(before.1.len(), 33);
        assert_eq!(before.2.iter().map(|saved| saved.step).collect::<Vec<_>>(), [15, 30]);
    }

    #[test]
    fn the_loss_falls_and_the_learning_rate_rises_before_it_falls() {
        let rows = rows(&plan(), 100.0);
        let train: Vec<(f64, f64)> = rows
            .iter()
            .filter_map(|row| match row.values {
                Values::Train { loss, learning_rate, .. } => Some((loss, learning_rate)),
                Values::Eval { .. } => None,
            })
            .collect();
        assert!(train[0].0 > 1.5 && train[29].0 < 0.8, "{train:?}");
        assert!(train[0].1 < train[2].1 && train[2].1 > train[29].1, "{train:?}");
        assert!(rows.iter().all(|row| row.step >= 1 && row.step <= 30));
    }

    #[test]
    fn more_evaluations_than_steps_are_one_a_step() {
        let plan = Plan { evals: 100, checkpoints: 0, ..plan() };
        assert_eq!(plan.spread(100).count(), 30);
        assert_eq!(plan.spread(0).count(), 0);
        assert_eq!(rows(&plan, 100.0).len(), 60);
    }
}
