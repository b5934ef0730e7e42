//! What a watched job shows, as rows, lines and a summary of a W&B run.
//!
//! A screen that waits for nothing: what is new becomes rows, and a thread of `wandb` takes them. Rows are
//! known by what they are about, so that those that come again, from whatever process, are logged once. Which
//! run it is follows from the job alone: its id is the tag at the end of the job's suffix.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::job::monitor::Screen;
use crate::job::progress::{EvalPoint, News, Progress, TrainPoint};
use crate::job::run_config::{self, of_job, resolved, split_tag};
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_service::Clock;
use ctxtune_service::together::{Checkpoint, Ending, Event, Job};
use ctxtune_service::wandb::history::{Entry, Spool, State, known};
use ctxtune_service::wandb::logged::Key;
use ctxtune_service::wandb::run::{Metadata, Plan, merged};
use ctxtune_service::wandb::session::Goal;
use ctxtune_service::wandb::worker::{Beginning, Closed, Said, Tell, Worker};

/// The metrics that are drawn over the first of them.
pub(crate) const METRICS: [&str; 7] = [
    "train/step",
    "train/loss",
    "train/learning_rate",
    "train/grad_norm",
    "train/epoch",
    "eval/loss",
    "val/loss",
];

pub(crate) struct Logging {
    pub goal: Goal,
    /// Where they are kept; nothing: in memory.
    pub dir: Option<PathBuf>,
    /// What was chosen about the run: its place and its names. Its id, where that was chosen too.
    pub plan: Plan,
    /// What tells this process from every other one.
    pub owner: String,
    /// The exit code of whoever watches a job that ended so.
    pub exit_code: fn(Ending) -> i32,
    pub job_page: String,
    /// Time that no signal stops.
    pub clock: Arc<dyn Clock>,
    pub tell: Tell,
}

pub(crate) struct Logger {
    stage: Stage,
    exit_code: fn(Ending) -> i32,
    job_page: String,
    clock: Arc<dyn Clock>,
    began: f64,
    no_alert: bool,
    checkpoints: Vec<Checkpoint>,
}

enum Stage {
    Waiting(Box<Logging>),
    Logging(Worker),
    Off,
}

impl Logger {
    /// Logs as `logging` says, from the first look at the job on.
    pub fn new(logging: Logging) -> Logger {
        Logger {
            exit_code: logging.exit_code,
            job_page: logging.job_page.clone(),
            clock: Arc::clone(&logging.clock),
            stage: Stage::Waiting(Box::new(logging)),
            began: 0.0,
            no_alert: false,
            checkpoints: Vec::new(),
        }
    }

    pub(crate) fn note_checkpoints(&mut self, checkpoints: Vec<Checkpoint>) {
        self.checkpoints = checkpoints;
    }

    pub(crate) fn is_logging(&self) -> bool {
        matches!(self.stage, Stage::Logging(_))
    }

    pub fn is_stopped(&self) -> bool {
        matches!(&self.stage, Stage::Logging(worker) if worker.is_stopped())
    }

    /// Lets what is there go out, for at most so long. Nothing where no run was begun.
    pub fn close(self, longest: Duration) -> Option<Closed> {
        match self.stage {
            Stage::Logging(worker) => Some(worker.close(longest)),
            Stage::Waiting(_) | Stage::Off => None,
        }
    }

    fn begin(&mut self, job: &Job) {
        let logging = match std::mem::replace(&mut self.stage, Stage::Off) {
            Stage::Waiting(logging) => logging,
            begun => {
                self.stage = begun;
                return;
            }
        };
        let tell = Arc::clone(&logging.tell);
        self.began = began(job, &*self.clock);
        match begin(*logging, job, self.began) {
            Ok(Some((worker, no_alert))) => {
                (self.stage, self.no_alert) = (Stage::Logging(worker), no_alert);
            }
            Ok(None) => {}
            Err(error) => tell(Said::GivenUp(format!("the job is not logged: {error}"))),
        }
    }

    fn entry(&self, key: Key, at: Option<Timestamp>, fields: Vec<(&str, Value)>) -> Entry {
        let at = at.unwrap_or_else(|| self.clock.now()).as_nanosecond() as f64 / 1e9;
        let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
        let mut row: Map<String, Value> = fields.map(|(name, value)| (name.to_owned(), value)).collect();
        row.insert("_timestamp".to_owned(), json!(at));
        row.insert("_runtime".to_owned(), json!((at - self.began).max(0.0)));
        Entry::Row(key, row)
    }

    fn train(&self, point: &TrainPoint) -> Entry {
        let fields = vec![
            ("train/loss", json!(point.loss)),
            ("train/learning_rate", json!(point.learning_rate)),
            ("train/grad_norm", json!(point.grad_norm)),
            ("train/epoch", json!(point.epoch)),
            ("train/step", json!(point.step)),
        ];
        self.entry(Key::Point("train".to_owned(), point.step), time(point.timestamp_ns), fields)
    }

    fn eval(&self, point: &EvalPoint) -> Entry {
        let loss = json!(point.loss);
        let fields = vec![("eval/loss", loss.clone()), ("val/loss", loss), ("train/step", json!(point.step))];
        self.entry(Key::Point("eval".to_owned(), point.step), time(point.timestamp_ns), fields)
    }

    fn change(&self, name: &str, value: Value) -> Entry {
        self.entry(Key::Change(name.to_owned(), value.clone()), None, vec![(name, value)])
    }

    /// Rows in the order of steps, an evaluation behind its training; then what has no step.
    fn entries(&self, progress: &Progress, news: &[News]) -> Vec<Entry> {
        let mut points: Vec<(u64, u8, Entry)> = Vec::new();
        let mut others = Vec::new();
        for news in news {
            match news {
                News::Train(point) => points.push((point.step, 0, self.train(point))),
                News::Eval(point) => points.push((point.step, 1, self.eval(point))),
                News::Status { to, .. } => others.push(self.change("status", json!(to.as_str()))),
                News::Event(event) => others.push(Entry::Line(line(event))),
                News::Queue(_) => {}
            }
        }
        points.sort_by_key(|(step, kind, _)| (*step, *kind));
        if let Some(price) = progress.price() {
            others.push(self.change("price", json!(price)));
        }
        points.into_iter().map(|(_, _, entry)| entry).chain(others).collect()
    }
}

impl Screen for Logger {
    fn news(&mut self, progress: &Progress, news: &[News]) {
        if let Some(job) = progress.job() {
            self.begin(job);
        }
        let entries = self.entries(progress, news);
        if let Stage::Logging(worker) = &mut self.stage {
            worker.describe(&resolved(progress));
            if !entries.is_empty() {
                worker.log(entries, summary(progress));
            }
        }
    }

    fn waiting(&mut self, _: &Progress, _: Duration) {}
    fn trouble(&mut self, _: &str, _: Duration) {}

    fn slept(&mut self, _: Duration) {}

    fn finished(&mut self, progress: &Progress, ending: Ending) {
        if let Stage::Logging(worker) = &mut self.stage {
            let mut summary = summary(progress);
            summary.extend(run_config::checkpoints(&self.checkpoints, progress));
            worker.describe(&resolved(progress));
            worker.log(Vec::new(), summary);
            let alert = run_config::alert(progress, ending, Some(&self.job_page)).filter(|_| !self.no_alert);
            worker.end((self.exit_code)(ending), alert);
        }
    }
}

/// Starts the thread, and says whether no alert is sent; nothing where the training service logs the job.
fn begin(logging: Logging, job: &Job, began: f64) -> std::io::Result<Option<(Worker, bool)>> {
    let Logging { goal, dir, plan, owner, clock, tell, .. } = logging;
    let state = dir.as_deref().and_then(|dir| find(dir, &plan, job));
    let known = state.map(|state| state.plan);
    if known.as_ref().is_some_and(|known| known.is_elsewhere) || is_logged_elsewhere(job) {
        return Ok(None);
    }
    let plan = settled(plan, known, job);
    let mut spool = match Spool::open(dir, plan.clone(), &owner) {
        Ok(spool) => spool,
        Err(error) => {
            tell(Said::Trouble(format!("what is logged cannot be kept on this machine: {error}")));
            Spool::open(None, plan.clone(), &owner)?
        }
    };
    // A sweep has one alert, not one for each run.
    let no_alert = plan.no_alert || plan.sweep.is_some();
    if plan.uploads_data
        && let Some(manifest) = spool.manifest().and_then(|path| Manifest::read_file(&path).ok().flatten())
    {
        spool.attach(data_files(&manifest));
    }
    spool.state.plan = plan;
    spool.state.began = began;
    Ok(Some((Worker::start(Beginning { goal, spool, clock, tell })?, no_alert)))
}

/// The prepared files except the manifest: texts, keys and reports. Empty files are skipped.
fn data_files(manifest: &Manifest) -> Vec<String> {
    let sides = std::iter::once(&manifest.train).chain(&manifest.val);
    let shards = sides.flat_map(|side| &side.shards).map(|shard| (shard.file.clone(), shard.bytes));
    let others = manifest.files.iter().map(|(name, file)| (name.clone(), file.bytes));
    shards.chain(others).filter(|(_, bytes)| *bytes > 0).map(|(name, _)| name).collect()
}

/// What this machine knows of the run of `job`; `plan` names the run, or leaves it to the job.
pub fn find(dir: &std::path::Path, plan: &Plan, job: &Job) -> Option<State> {
    let tag = tag(job);
    let states = known(dir).unwrap_or_default();
    let is_it = |state: &State| match plan.run.as_str() {
        "" => state.plan.tag == tag,
        run => state.plan.run == run,
    };
    states.into_iter().find(is_it)
}

/// The run that `job` is logged as: what was chosen now, over what was known, over what the job says.
pub fn settled(chosen: Plan, known: Option<Plan>, job: &Job) -> Plan {
    let known = known.unwrap_or_default();
    let tag = tag(job);
    let text = |chosen: String, known: String, otherwise: &str| {
        [chosen, known].into_iter().find(|text| !text.is_empty()).unwrap_or_else(|| otherwise.to_owned())
    };
    Plan {
        run: text(chosen.run, known.run, &tag),
        tag,
        entity: chosen.entity.or(known.entity),
        project: text(chosen.project, known.project, DEFAULT_PROJECT),
        display_name: chosen.display_name.or(known.display_name),
        group: chosen.group.or(known.group),
        job_type: chosen.job_type.or(known.job_type),
        tags: if chosen.tags.is_empty() { known.tags } else { chosen.tags },
        notes: chosen.notes.or(known.notes),
        defaults: if known.defaults == Metadata::default() {
            run_config::metadata(job, chosen.defaults.notes)
        } else {
            known.defaults
        },
        sweep: chosen.sweep.or(known.sweep),
        config: merged(&if known.config.is_empty() { of_job(job) } else { known.config }, &chosen.config),
        metrics: METRICS.map(str::to_owned).to_vec(),
        is_elsewhere: false,
        no_alert: chosen.no_alert || known.no_alert,
        uploads_data: chosen.uploads_data || known.uploads_data,
    }
}

/// The project of runs about which nothing was said: the seed's.
pub const DEFAULT_PROJECT: &str = "social-world-model-finetuning";

/// What the job's suffix ends in, or its id where that is no tag of ours.
pub fn tag(job: &Job) -> String {
    let suffix = job.suffix().unwrap_or_default();
    split_tag(&suffix).1.map_or_else(|| job.id.to_string(), str::to_owned)
}

fn is_logged_elsewhere(job: &Job) -> bool {
    let is_said =
        |key: &&str| job.object.get(*key).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    ["wandb_url", "wandb_project_name"].iter().any(is_said)
}

/// What a run's page shows first: the last values, the best, and in the end what there is now.
fn summary(progress: &Progress) -> Map<String, Value> {
    let job = progress.job();
    let (last, best) = (progress.last_eval(), progress.best_eval());
    let eval = json!(last.map(|point| point.loss));
    let fields = [
        ("train/step", json!(progress.step())),
        ("train/loss", json!(progress.train_loss())),
        ("train/learning_rate", json!(progress.learning_rate())),
        ("train/grad_norm", json!(progress.train().rev().find_map(|point| point.grad_norm))),
        ("train/epoch", json!(progress.epoch())),
        ("eval/loss", eval.clone()),
        ("val/loss", eval),
        ("best_val_loss", json!(best.map(|point| point.loss))),
        ("best_val_step", json!(best.map(|point| point.step))),
        ("price", json!(progress.price())),
        ("status", json!(job.map(|job| job.status.as_str()))),
        ("job_id", json!(job.map(|job| job.id.as_str()))),
        ("model", json!(job.and_then(Job::model_output_name))),
        ("duration_seconds", json!(job.and_then(duration))),
        ("token_count", json!(job.and_then(Job::token_count).filter(|count| *count > 0))),
    ];
    let known = fields.into_iter().filter(|(_, value)| !value.is_null());
    known.map(|(key, value)| (key.to_owned(), value)).collect()
}

fn duration(job: &Job) -> Option<f64> {
    job.status.ending()?;
    Some(job.updated_at()?.duration_since(job.created_at()?).as_secs_f64())
}

/// When the job was created: the same on every machine.
fn began(job: &Job, clock: &dyn Clock) -> f64 {
    job.created_at().unwrap_or_else(|| clock.now()).as_nanosecond() as f64 / 1e9
}

fn time(timestamp_ns: Option<i64>) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(timestamp_ns?)).ok()
}

fn line(event: &Event) -> String {
    let step = event.step.map(|step| format!(" at step {step}")).unwrap_or_default();
    let words: Vec<&str> = event.message.split_whitespace().collect();
    let level = if event.level.is_empty() { "info" } else { &event.level };
    format!("{} {level} {}{step}: {}", event.created_at, event.kind, words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctxtune_service::clock::still::Still;
    use ctxtune_service::together::job::MetricRow;

    fn job(more: Value) -> Job {
        let mut object = json!({
            "id": "ft-1", "status": "running", "created_at": "2026-11-24T09:00:00Z", "total_price": 500_000_000,
            "suffix": "socialized-context-generator-0123abcd", "model": "m", "n_epochs": 3,
            "training_type": { "type": "Lora", "lora_r": 64, "lora_alpha": 16 },
        });
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Job::read(&object).unwrap()
    }

    fn logger() -> Logger {
        let began = "2026-11-24T09:00:00Z".parse::<Timestamp>().unwrap().as_second() as f64;
        Logger {
            stage: Stage::Off,
            exit_code: |_| 0,
            job_page: String::new(),
            clock: Arc::new(Still),
            began,
            no_alert: false,
            checkpoints: Vec::new(),
        }
    }

    /// What the rows are about, in their order.
    fn keys(entries: &[Entry]) -> Vec<String> {
        let key = |entry: &Entry| match entry {
            Entry::Row(Key::Point(kind, step), _) => format!("{kind} {step}"),
            Entry::Row(Key::Change(name, value), _) => format!("{name}={value}"),
            Entry::Line(line) => line.clone(),
        };
        entries.iter().map(key).collect()
    }

    #[test]
    fn rows_are_in_the_order_of_steps_and_a_late_evaluation_is_welcome() {
        let mut progress = Progress::default();
        let rows = |rows: Value| -> Vec<MetricRow> {
            rows.as_array().unwrap().iter().map(MetricRow::read).collect()
        };
        let mut news = progress.absorb_job(job(json!({})));
        news.extend(progress.absorb_metrics(&rows(json!([
            { "train/global_step": 2, "train/loss": 1.5 }, { "train/global_step": 1, "train/loss": 2.5 },
            { "train/global_step": 1, "eval/loss": 2.25 },
        ]))));
        let entries = logger().entries(&progress, &news);
        assert_eq!(keys(&entries), ["train 1", "eval 1", "train 2", "status=\"running\"", "price=0.5"]);
        let late = rows(
            json!([{ "train/global_step": 1, "eval/loss": 2.0 }, { "train/global_step": 3, "train/loss": "NaN" }]),
        );
        let news = progress.absorb_metrics(&late);
        assert_eq!(keys(&logger().entries(&progress, &news)), ["eval 1", "train 3", "price=0.5"]);
    }

    #[test]
    fn a_row_has_what_is_known_and_its_own_time() {
        let point = TrainPoint {
            step: 4,
            loss: Some(1.5),
            timestamp_ns: Some(1_795_514_400_500_000_000),
            ..TrainPoint::default()
        };
        let logger = logger();
        let Entry::Row(_, row) = logger.train(&point) else { panic!("it is a row") };
        let expected = json!({
            "train/loss": 1.5, "train/step": 4, "_timestamp": 1_795_514_400.5, "_runtime": 3600.5,
        });
        assert_eq!(Value::Object(row), expected);
        let Entry::Row(_, row) = logger.eval(&EvalPoint { step: 4, loss: 2.0, timestamp_ns: None }) else {
            panic!("it is a row")
        };
        assert_eq!(
            (&row["eval/loss"], &row["val/loss"], &row["train/step"]),
            (&json!(2.0), &json!(2.0), &json!(4))
        );
        assert_eq!(row["_runtime"], 3600.0);
    }

    #[test]
    fn the_run_follows_from_the_job_alone() {
        let check = |suffix: &str, run: &str| {
            let job = job(json!({ "suffix": suffix }));
            assert_eq!(settled(Plan::default(), None, &job).run, run);
        };
        check("socialized-context-generator-0123abcd", "0123abcd");
        check("0123abcd", "0123abcd");
        check("socialized-context-generator", "ft-1");
        check("a-0123abcg", "ft-1");
        let chosen = Plan { run: "r".to_owned(), project: "p".to_owned(), ..Plan::default() };
        let known = Plan {
            run: "k".to_owned(),
            project: "q".to_owned(),
            notes: Some("n".to_owned()),
            ..Plan::default()
        };
        let plan = settled(chosen, Some(known), &job(json!({})));
        assert_eq!((plan.run.as_str(), plan.project.as_str(), plan.notes.as_deref()), ("r", "p", Some("n")));
        assert_eq!((&plan.config["lora_rank"], &plan.config["base_model"]), (&json!(64), &json!("m")));
        assert_eq!(settled(Plan::default(), None, &job(json!({}))).project, DEFAULT_PROJECT);
        let words = &plan.defaults;
        assert_eq!(words.display_name.as_deref(), Some("socialized-context-generator-0123abcd"));
        let again = settled(Plan::default(), Some(plan.clone()), &job(json!({ "suffix": "other-0123abcd" })));
        assert_eq!(again.defaults, plan.defaults, "what was said at the submission stays");
    }

    #[test]
    fn a_job_that_the_service_logs_is_not_logged_twice() {
        assert!(!is_logged_elsewhere(&job(json!({ "wandb_url": "", "wandb_project_name": null }))));
        assert!(is_logged_elsewhere(&job(json!({ "wandb_url": "https://wandb.ai/e/p/runs/r" }))));
        assert!(is_logged_elsewhere(&job(json!({ "wandb_project_name": "p" }))));
    }

    #[test]
    fn the_summary_has_the_last_the_best_and_in_the_end_the_model() {
        let mut progress = Progress::default();
        progress.absorb_job(job(json!({
            "status": "completed", "updated_at": "2026-11-24T09:30:00Z", "model_output_name": "a/b",
        })));
        let rows = [(1, 1.0), (2, 0.5), (3, 0.75)];
        let row = |(step, loss)| MetricRow::read(&json!({ "train/global_step": step, "eval/loss": loss }));
        progress.absorb_metrics(&rows.map(row));
        let summary = summary(&progress);
        assert_eq!((&summary["val/loss"], &summary["eval/loss"]), (&json!(0.75), &json!(0.75)));
        assert_eq!((&summary["best_val_loss"], &summary["best_val_step"]), (&json!(0.5), &json!(2)));
        assert_eq!((&summary["model"], &summary["duration_seconds"]), (&json!("a/b"), &json!(1800.0)));
        assert!(summary.get("train/loss").is_none(), "what is not known is not said");
    }
}
