//! A job's run at Weights & Biases, from its submission to its end: made, logged, spoken of.
//!
//! The run is made once the job exists: a refused job leaves none, and whoever watches a job whose submission
//! was killed makes it then. Whatever goes wrong is a line on stderr and changes nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::env;
use crate::failure::{Exit, Failure};
use crate::job::journal;
use crate::job::limits::sequence_length;
use crate::job::logging::{Logger, Logging, find, settled};
use crate::job::monitor::Screen;
use crate::job::parameters::{BatchSize, Files, Settled};
use crate::job::price::Price;
use crate::job::progress::{News, Progress};
use crate::job::run_config::{INHERITED, job_keys, of_job, parameters, under_resolved};
use crate::job::wandb::{Chosen, Way};
use crate::session::environment::Environment;
use crate::session::{Session, proxy};
use crate::text::counted;
use crate::ui::Ui;
use ctxtune_engine::output::manifest::{Hex, Manifest, Side};
use ctxtune_service::Clock;
use ctxtune_service::http::{self, Client, retry};
use ctxtune_service::together::jobs::{self, Limits};
use ctxtune_service::together::{Ending, Job, JobId, Tries, whole};
use ctxtune_service::wandb::history::{MANIFEST, State, note_identity, remember};
use ctxtune_service::wandb::run::{Plan, make};
use ctxtune_service::wandb::session::Goal;
use ctxtune_service::wandb::worker::{Closed, Said, Tell};
use ctxtune_service::wandb::{Settings, Wandb};

pub const WANDB_DIR: &str = "wandb";
/// What `submit` waits for W&B at most, for each of its three questions.
const SUBMIT_CALL: Duration = Duration::from_secs(5);
/// What a call may take while a job is watched.
const CALL: Duration = Duration::from_secs(20);
/// What `monitor` waits for the last lines; and after a signal.
const FAREWELL: Duration = Duration::from_millis(4500);
const HASTY_FAREWELL: Duration = Duration::from_secs(1);

/// W&B as `settings` say; what fails is said by whoever asks.
pub fn connect(
    settings: Settings,
    call: Duration,
    environment: &Environment,
    clock: Arc<dyn Clock>,
) -> Result<Wandb, Failure> {
    let transport = http::Settings {
        user_agent: concat!("ctxtune/", env!("CARGO_PKG_VERSION")).to_owned(),
        proxy: proxy(environment)?.map(|(_, proxy)| proxy),
        timeouts: http::Timeouts {
            connect: call.min(http::Timeouts::DEFAULT.connect),
            call,
            ..http::Timeouts::DEFAULT
        },
        policy: retry::Policy { tries: 1, ..retry::Policy::DEFAULT },
    };
    Ok(Wandb::new(Client::new(transport, clock, Arc::new(|_| ())), settings))
}

/// What tells this process from every other one.
pub fn owner(clock: &dyn Clock) -> String {
    let seed = format!("{} {} {:?}", clock.now().as_nanosecond(), std::process::id(), clock.elapsed());
    Hex(&Sha256::digest(seed)[..8]).to_string()
}

pub struct Known<'k> {
    pub manifest: &'k Manifest,
    pub settled: &'k Settled,
    pub limits: &'k Limits,
    pub price: Option<&'k Price>,
}

/// The config of a job's run: every parameter by its key in the configuration file, derived values, and the
/// data's digests.
pub fn config(known: &Known<'_>, job: &Job) -> Map<String, Value> {
    let Known { manifest, settled, limits, price } = *known;
    let options = &manifest.options;
    let side = |side: &Side| {
        let (bytes, sha256) = side.content();
        json!({ "examples": side.records, "bytes": bytes, "sha256": sha256 })
    };
    let body = settled.body(Files { train: "", val: None }, &settled.parameters.suffix);
    let mut config = parameters(&body);
    // Values inherited from a checkpoint are known from the job only.
    let of_job = of_job(job);
    for key in INHERITED {
        if config[key].is_null() {
            config.insert(key.to_owned(), of_job[key].clone());
        }
    }
    config.extend(job_keys(job));
    let tokens = |of: fn(&Price) -> Option<u64>| price.and_then(of);
    config.extend(under_resolved([
        ("batch_size", batch_size(settled, limits, job)),
        ("max_seq_length", sequence_length(settled, limits)),
        ("train_tokens", tokens(|price| price.train_tokens)),
        ("eval_tokens", tokens(|price| price.eval_tokens)),
    ]));
    let mut data = json!({
        "data": { "train": side(&manifest.train), "val": manifest.val.as_ref().map(side), "keys_sha256": manifest.keys_sha256 },
        "split": { "seed": options.seed, "val_ratio": options.val_ratio, "group_by": options.group_by },
        "leakage": manifest.leakage,
        "template": manifest.template.as_ref().map(|template| &template.name),
    });
    if let Some(limit) = options.limit {
        data["split"]["limit"] = limit.into();
    }
    config.extend(data.as_object().cloned().unwrap_or_default());
    config
}

/// The batch size: from the job, else as set, else the model's maximum.
fn batch_size(settled: &Settled, limits: &Limits, job: &Job) -> Option<u64> {
    let kind = if settled.parameters.lora { &limits.lora } else { &limits.full };
    let asked = match settled.parameters.batch_size {
        BatchSize::Samples(samples) => Some(samples),
        BatchSize::Max => kind.as_ref().and_then(|limits| limits.max_batch_size),
    };
    whole(&job.object, &["batch_size"]).or(asked)
}

/// The job's page as a Markdown link.
fn job_page(session: &Session, job: &JobId) -> Map<String, Value> {
    let link = format!("[{job}]({})", session.dashboard(job));
    std::iter::once(("job_page".to_owned(), link.into())).collect()
}

/// The values that W&B's agent suggests, exactly as they came: the service refuses a categorical value in
/// another dress. Nothing where no agent set `WANDB_SWEEP_PARAM_PATH`.
pub fn suggested(environment: &Environment) -> Map<String, Value> {
    let file = environment.get(env::WANDB_SWEEP_PARAM_PATH).map(std::fs::read_to_string);
    file.and_then(Result::ok).map(|text| suggested_in(&text)).unwrap_or_default()
}

/// `key:` and under it `value: …`, as Python writes it.
fn suggested_in(text: &str) -> Map<String, Value> {
    let document: Value = serde_saphyr::from_str(text).unwrap_or_default();
    let fields = document.as_object().into_iter().flatten();
    let suggested = fields.filter_map(|(key, field)| {
        let value = field.get("value")?;
        let token = text.split_once(&format!("{key}:\n  value: "));
        let token = token.and_then(|(_, rest)| rest.lines().next()).unwrap_or_default().trim();
        // To Python's YAML `1e-6` is text, and a number is `1.0e-06`.
        let is_text = value.is_f64() && token.contains('e') && !token.contains('.');
        Some((key.clone(), if is_text { token.into() } else { value.clone() }))
    });
    suggested.collect()
}

/// Writes down in `out` what the run of `job` is to be, so that any later command can make it.
pub fn plan(session: &Session, chosen: &Chosen, out: &Path, mut config: Map<String, Value>, job: &Job) {
    if matches!(chosen.way, Way::Off(_)) {
        return;
    }
    config.extend(job_page(session, &job.id));
    let mut plan = settled(chosen.plan.clone(), None, job);
    plan.config = config;
    plan.is_elsewhere = matches!(chosen.way, Way::Together { .. });
    let began = job.created_at().map_or(0.0, |at| at.as_nanosecond() as f64 / 1e9);
    let manifest = std::fs::read(out.join(MANIFEST)).ok();
    if let Err(error) = remember(&out.join(WANDB_DIR), plan, began, manifest.as_deref()) {
        session.ui.warn(&format!("W&B: cannot write to `{}`: {error}", out.join(WANDB_DIR).display()));
    }
}

/// The page of the job's run, if this machine knows it.
pub fn page(session: &Session, job: &Job, out: Option<&Path>) -> Option<String> {
    let state = find(&place(session, &job.id, out)?, &Plan::default(), job)?;
    state.identity.map(|identity| identity.url)
}

/// What logs a job that was submitted and is not watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announced {
    pub url: Option<String>,
    /// `monitor`: `ctxtune monitor`, while it runs; `together`: the service itself; absent where nothing does.
    pub logged_by: Option<&'static str>,
}

/// Makes the run of a job that was submitted and is not watched; says where it is, and what logs to it.
pub fn announce(session: &Session, chosen: &Chosen, out: &Path, job: &Job) -> Announced {
    let dir = out.join(WANDB_DIR);
    let plan = settled(chosen.plan.clone(), None, job);
    let state = match &chosen.way {
        Way::Off(_) => return Announced::default(),
        _ => remember(&dir, plan, 0.0, None).ok(),
    };
    let is_elsewhere = state.as_ref().is_some_and(|state| state.plan.is_elsewhere);
    if is_elsewhere || matches!(chosen.way, Way::Together { .. }) {
        let logs = "Together logs this job itself, from the start; `ctxtune monitor` sends nothing";
        session.ui.label("W&B", logs);
        return Announced { url: None, logged_by: Some("together") };
    }
    let url = state.and_then(|state| make_run(session, chosen, &dir, &state, job));
    let logs = match &chosen.way {
        Way::Offline { .. } => format!(
            "metrics are written to a local run only while `ctxtune monitor {}` runs; it adds those from before",
            job.id
        ),
        _ => format!(
            "metrics are sent only while `ctxtune monitor {}` runs; it sends those from before, too. \
             With --wandb together the session logs a job itself",
            job.id
        ),
    };
    session.ui.label("W&B", &logs);
    Announced { url, logged_by: Some("monitor") }
}

fn make_run(session: &Session, chosen: &Chosen, dir: &Path, state: &State, job: &Job) -> Option<String> {
    let Way::Online { settings, place } = &chosen.way else { return None };
    let say = |text: String| session.ui.say(&text);
    if let Some(identity) = &state.identity {
        say(format!("W&B: {}", identity.url));
        return Some(identity.url.clone());
    }
    let wandb =
        connect(settings.clone(), SUBMIT_CALL, &session.environment, Arc::clone(&session.clock)).ok()?;
    match make(&wandb, &state.plan) {
        Ok(identity) => {
            say(format!("W&B: {}", identity.url));
            say(format!("     key from {place}; entity {}, project {}", identity.entity, identity.project));
            // Should it not be kept, the next one to ask finds the run by its name.
            let _ = note_identity(dir, &state.plan.run, &identity);
            Some(identity.url)
        }
        Err(error) => {
            session.ui.warn(&format!("W&B: {error}; `ctxtune monitor {}` makes the run", job.id));
            None
        }
    }
}

/// Where lines about `job` are kept: in its output directory, wherever that is named.
fn place(session: &Session, job: &JobId, out: Option<&Path>) -> Option<PathBuf> {
    let journal = session.environment.journal();
    let started = journal.as_deref().and_then(|path| journal::started(path, job).ok().flatten());
    let known = started.map(|started| PathBuf::from(started.output_dir)).filter(|dir| dir.is_dir());
    let out = out.map(Path::to_owned).or(known);
    out.or_else(|| Some(journal?.parent()?.to_owned())).map(|dir| dir.join(WANDB_DIR))
}

/// Logs a watched job, and cancels it where Stop is pressed and that was asked for.
pub struct Log<'l> {
    logger: Logger,
    session: &'l Session,
    job: JobId,
    on_stop: OnStop,
    has_asked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    Cancel,
    Report,
}

impl<'l> Log<'l> {
    /// Begins to log `job`; nothing where it is not to be logged.
    pub fn begin(
        session: &'l Session,
        chosen: &Chosen,
        on_stop: OnStop,
        job: &JobId,
        out: Option<&Path>,
    ) -> Option<Log<'l>> {
        let clock = Arc::clone(&session.unstopped);
        let dir = place(session, job, out);
        let (goal, from) = match &chosen.way {
            Way::Online { settings, place } => {
                let wandb = connect(settings.clone(), CALL, &session.environment, Arc::clone(&clock)).ok()?;
                (Goal::Online(Box::new(wandb)), Some(place.clone()))
            }
            Way::Offline { dir: chosen } => {
                let root = chosen.as_ref().map(|root| root.join(WANDB_DIR)).or_else(|| dir.clone());
                (Goal::Offline(root.unwrap_or_else(|| WANDB_DIR.into())), None)
            }
            Way::Together { .. } | Way::Off(_) => return None,
        };
        let mut plan = chosen.plan.clone();
        plan.config.extend(job_page(session, job));
        let logging = Logging {
            goal,
            dir,
            plan,
            job_page: session.dashboard(job),
            owner: owner(&*clock),
            exit_code,
            clock,
            tell: tell(Arc::clone(&session.ui), from, job.clone(), on_stop),
        };
        Some(Log { logger: Logger::new(logging), session, job: job.clone(), on_stop, has_asked: false })
    }

    /// Lets the last lines go out, a few seconds long, and says what is still here.
    pub fn close(self) -> Closed {
        let longest = if self.session.signals.is_stopped() { HASTY_FAREWELL } else { FAREWELL };
        let closed = self.logger.close(longest).unwrap_or_default();
        if closed.unsent > 0 {
            let rows = counted(closed.unsent, "row");
            self.session.ui.say(&format!(
                "W&B: {rows} not sent yet; the next monitor or `ctxtune wandb-sync` sends them"
            ));
        }
        closed
    }

    /// Cancels the job, once a poll until that has worked.
    fn heed_stop(&mut self, progress: &Progress) {
        let is_over = progress
            .job()
            .is_none_or(|job| job.status.ending().is_some() || job.status.as_str() == "cancel_requested");
        if self.on_stop == OnStop::Report || self.has_asked || is_over || !self.logger.is_stopped() {
            return;
        }
        self.has_asked = true;
        if let Err(error) = jobs::cancel(&self.session.together, &self.job) {
            self.session.ui.say(&format!("cannot cancel the job {}: {error}", self.job));
        }
    }
}

impl Screen for Log<'_> {
    fn news(&mut self, progress: &Progress, news: &[News]) {
        self.logger.news(progress, news);
        self.has_asked = false;
        self.heed_stop(progress);
    }

    fn waiting(&mut self, progress: &Progress, _: Duration) {
        self.heed_stop(progress);
    }

    fn trouble(&mut self, _: &str, _: Duration) {}
    fn slept(&mut self, _: Duration) {}

    fn finished(&mut self, progress: &Progress, ending: Ending) {
        // Without the list the summary has no checkpoints; nothing else depends on it.
        if self.logger.is_logging()
            && let Ok(checkpoints) = jobs::checkpoints(&self.session.together, &self.job, Tries::One)
        {
            self.logger.note_checkpoints(checkpoints);
        }
        self.logger.finished(progress, ending);
    }
}

/// How `monitor` ends after a job that ended so.
fn exit_code(ending: Ending) -> i32 {
    let exit = match ending {
        Ending::Completed => Exit::Done,
        Ending::Failed => Exit::JobFailed,
        Ending::Cancelled => Exit::JobCancelled,
    };
    exit as i32
}

fn tell(ui: Arc<dyn Ui>, from: Option<String>, job: JobId, on_stop: OnStop) -> Tell {
    Arc::new(move |said| match said {
        Said::Page { page, entity, project } => {
            ui.say(&format!("W&B: {page}"));
            if let Some(from) = &from {
                let entity = entity.map(|entity| format!("entity {entity}, ")).unwrap_or_default();
                ui.say(&format!("     key from {from}; {entity}project {project}"));
            }
        }
        Said::Trouble(what) => ui.say(&format!("W&B: {what}; lines are kept and sent when it works again")),
        Said::Refused(what) => ui.say(&format!("W&B: {what}")),
        Said::GivenUp(what) => ui.say(&format!("W&B: {what}; lines are kept, and no longer sent")),
        Said::TakenOver => ui.say("W&B: another monitor logs this run now; this one no longer does"),
        Said::Stopped => match on_stop {
            OnStop::Cancel => ui.say(&format!("W&B: Stop was pressed; the job {job} is cancelled")),
            OnStop::Report => ui.say(&format!(
                "W&B: Stop was pressed; the job runs on: `ctxtune cancel {job}`, or --cancel-on-stop"
            )),
        },
    })
}

/// Says, before anything is agreed to, that the key is handed over.
pub(crate) fn say_handover(chosen: &Chosen, ui: &dyn Ui) {
    if let Way::Together { .. } = &chosen.way {
        let project = chosen.handed_over(|_| String::new());
        let project = project.get("wandb_project_name").and_then(Value::as_str).unwrap_or_default();
        ui.label(
            "W&B",
            &format!(
                "your key is sent to Together, which keeps it and logs the job itself (project {project})"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggested_values_are_echoed_in_the_dress_they_came_in() {
        let text = "batch_size:\n  value: max\nlearning_rate:\n  value: 1.0e-06\nlora:\n  value: true\n\
            lora_rank:\n  value: 32\nwandb_version: 1\nwarmup_ratio:\n  value: 1e-6\n";
        let expected = json!({
            "batch_size": "max", "learning_rate": 1e-6, "lora": true, "lora_rank": 32, "warmup_ratio": "1e-6",
        });
        assert_eq!(Value::Object(suggested_in(text)), expected);
        assert!(suggested_in("- no mapping").is_empty() && suggested_in("{").is_empty());
        assert!(suggested(&Environment::default()).is_empty());
    }
}
