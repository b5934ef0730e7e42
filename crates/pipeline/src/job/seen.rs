//! What was seen of a training: what the ledger of a job keeps for a report that is written without the service.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::job::progress::{EvalPoint, Progress, TrainPoint};

/// Steps that are kept; more cannot be told apart in a picture.
const MOST_STEPS: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// When (RFC 3339).
    pub at: String,
    /// The steps of the whole training, as far as they are known.
    pub total_steps: Option<u64>,
    /// How many steps had a loss or a learning rate.
    pub steps: u64,
    /// Those steps, of many the least and the greatest loss of each stretch.
    pub train: Vec<SeenStep>,
    /// The evaluations, by step.
    pub eval: Vec<EvalPoint>,
    /// The steps at which a checkpoint was saved.
    pub checkpoints: Vec<u64>,
    /// The price so far, or the final one, in dollars.
    pub price_dollars: Option<f64>,
    /// When training began (RFC 3339).
    pub started_at: Option<String>,
    /// When the job ended (RFC 3339); nothing while it runs.
    pub ended_at: Option<String>,
    /// Whether early stopping ended it.
    pub is_early_stopped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SeenStep {
    /// Its number, from 1.
    pub step: u64,
    /// The loss.
    pub loss: Option<f64>,
    /// The learning rate.
    pub learning_rate: Option<f64>,
}

impl Seen {
    pub fn of(progress: &Progress, at: Timestamp) -> Seen {
        let step = |point: &TrainPoint| SeenStep {
            step: point.step,
            loss: point.loss,
            learning_rate: point.learning_rate,
        };
        let has_values = |seen: &SeenStep| seen.loss.is_some() || seen.learning_rate.is_some();
        let train: Vec<SeenStep> = progress.train().map(step).filter(has_values).collect();
        let saved = progress.events().iter().filter(|event| event.kind.starts_with("checkpoint_save"));
        let mut checkpoints: Vec<u64> = saved.filter_map(|event| event.step).collect();
        checkpoints.sort_unstable();
        checkpoints.dedup();
        let job = progress.job();
        let ended = job.filter(|job| job.status.ending().is_some());
        Seen {
            at: at.to_string(),
            total_steps: progress.total_steps(),
            steps: train.len() as u64,
            train: thinned(train, MOST_STEPS, |step| step.loss.unwrap_or(f64::NAN)),
            eval: progress.eval().copied().collect(),
            checkpoints,
            price_dollars: progress.price(),
            started_at: job.and_then(|job| job.started_at()).map(|at| at.to_string()),
            ended_at: ended.and_then(|job| job.updated_at()).map(|at| at.to_string()),
            is_early_stopped: job.is_some_and(|job| job.is_early_stopped()),
        }
    }

    /// The evaluation with the lowest loss; of equal ones the first.
    pub fn best(&self) -> Option<EvalPoint> {
        self.eval.iter().min_by(|one, other| one.loss.total_cmp(&other.loss)).copied()
    }
}

/// About `most` of `points`: of each stretch the least and the greatest by `value`, in their order.
pub fn thinned<T: Copy>(points: Vec<T>, most: usize, value: impl Fn(&T) -> f64) -> Vec<T> {
    if points.len() <= most {
        return points;
    }
    let mut kept = Vec::with_capacity(most);
    for stretch in points.chunks(points.len().div_ceil((most / 2).max(1))) {
        let by_value = |one: &usize, other: &usize| value(&stretch[*one]).total_cmp(&value(&stretch[*other]));
        let least = (0..stretch.len()).min_by(by_value);
        let most = (0..stretch.len()).max_by(by_value);
        let mut ends: Vec<usize> = least.into_iter().chain(most).collect();
        ends.sort_unstable();
        ends.dedup();
        kept.extend(ends.into_iter().map(|index| stretch[index]));
    }
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use ctxtune_service::together::job::{Event, Job, MetricRow};

    #[test]
    fn what_was_seen_is_kept_whole_and_of_many_steps_the_extremes() {
        let mut progress = Progress::default();
        let job = json!({
            "id": "ft-1", "status": "completed", "total_price": 4_200_000_000_u64, "total_steps": 5000,
            "started_at": "2026-11-24T10:00:00Z", "updated_at": "2026-11-24T10:05:00Z",
        });
        progress.absorb_job(Job::read(&job).unwrap());
        let saved = json!({ "type": "CHECKPOINT_SAVE", "created_at": "2026-11-24T10:01:00Z", "step": 40 });
        progress.absorb_events(vec![Event::read(&saved)]);
        let loss = |step: u64| if step == 777 { 9.0 } else { 1.0 + (step % 7) as f64 };
        let row = |step: u64| {
            MetricRow::read(
                &json!({ "train/global_step": step, "train/loss": loss(step), "train/learning_rate": 1e-5 }),
            )
        };
        progress.absorb_metrics(&(1..=5000).map(row).collect::<Vec<_>>());
        for (step, loss) in [(40, 2.0), (80, 1.0), (120, 1.0)] {
            progress
                .absorb_metrics(&[MetricRow::read(&json!({ "train/global_step": step, "eval/loss": loss }))]);
        }
        let seen = Seen::of(&progress, "2026-11-24T11:00:00Z".parse().unwrap());
        assert_eq!((seen.steps, seen.total_steps, &seen.checkpoints[..]), (5000, Some(5000), &[40][..]));
        assert!(seen.train.len() <= MOST_STEPS && seen.train.is_sorted_by_key(|step| step.step));
        assert!(seen.train.iter().any(|step| step.step == 777), "the one high loss is kept");
        assert_eq!(seen.best().map(|best| best.step), Some(80));
        assert_eq!((seen.price_dollars, seen.ended_at.as_deref()), (Some(4.2), Some("2026-11-24T10:05:00Z")));
        let read: Seen = serde_json::from_value(json!(seen)).unwrap();
        assert_eq!((read.train, read.eval.len()), (seen.train, 3));
    }
}
