//! What every workflow that speaks to the service needs: the client, the variables, the clock, a way to talk to people.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;

use crate::env;
use crate::failure::Failure;
use crate::job::journal;
use crate::job::ledger::{Account, Run};
use crate::job::progress::Progress;
use crate::job::seen::Seen;
use crate::job::upload::MULTIPART_THRESHOLD;
use crate::session::environment::Environment;
use crate::signals::Signals;
use crate::ui::Ui;
use ctxtune_engine::output::lock::OutputLock;
use ctxtune_service::Clock;
use ctxtune_service::http::{self, Client, proxy::Proxy, retry};
use ctxtune_service::together::{BaseUrl, BaseUrlError, DEFAULT_BASE_URL, Job, JobId, Together, jobs};

pub mod consent;
pub mod environment;
pub(crate) mod key;
pub(crate) mod netrc;
pub mod no_key;

const URL_HINT: &str =
    "write it as https://host, with or without /v1; http only for this machine, where a key is sent";

/// How long the service may take to list a job that it has accepted.
const GRACE: Duration = Duration::from_secs(60);
/// How often a lock that another run holds is tried again.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub struct Runtime {
    pub environment: Environment,
    pub signals: Signals,
    /// Time; a signal ends its waits.
    pub clock: Arc<dyn Clock>,
    /// The same time, which no signal stops: for what is still sent after one.
    pub unstopped: Arc<dyn Clock>,
    pub ui: Arc<dyn Ui>,
}

pub struct Session {
    pub together: Together,
    pub environment: Environment,
    pub signals: Signals,
    pub clock: Arc<dyn Clock>,
    pub unstopped: Arc<dyn Clock>,
    pub ui: Arc<dyn Ui>,
    /// The tokenizer that was named to count with.
    pub tokenizer: Option<String>,
}

impl Session {
    /// Reads where the service is, `base_url` before the variable, and with which key; connects to nothing yet.
    pub fn new(base_url: Option<&str>, runtime: Runtime) -> Result<Session, Failure> {
        let base = base_url_of(base_url, &runtime.environment)?;
        let key = runtime.environment.key(env::TOGETHER_API_KEY)?;
        let headers = custom_headers(&runtime.environment);
        Session::at(base, key, headers, runtime)
    }

    /// Another server than Together, which gets neither its key nor its headers.
    pub fn other(url: &str, runtime: Runtime) -> Result<Session, Failure> {
        let own = env::OPENAI_API_KEY;
        let (base, hint) = match runtime.environment.key(own)? {
            Some(_) => (BaseUrl::parse(url), format!("use https, or unset {own} to send no key to it")),
            None => (BaseUrl::parse_keyless(url), URL_HINT.to_owned()),
        };
        let base = base.map_err(|error| {
            let hint = if matches!(error, BaseUrlError::Insecure(_)) { hint } else { URL_HINT.to_owned() };
            Failure::usage("base_url", format!("--base-url: {error}"), hint)
        })?;
        Session::at(base, None, Vec::new(), runtime)
    }

    fn at(
        base: BaseUrl,
        key: Option<SecretString>,
        headers: Vec<(String, String)>,
        Runtime { environment, signals, clock, unstopped, ui }: Runtime,
    ) -> Result<Session, Failure> {
        environment.refuse_test_settings(&base)?;
        let settings = settings(&environment, http::Timeouts::DEFAULT)?;
        let client = Client::new(settings, Arc::clone(&clock), teller(&ui));
        let together = Together::new(client, base, key, headers);
        Ok(Session { together, environment, signals, clock, unstopped, ui, tokenizer: None })
    }

    /// What `act` makes of a session that no signal stops, for what is still sent after one; nothing where it is not
    /// done within `limit`.
    pub(crate) fn after_signal<T: Send + 'static>(
        &self,
        limit: Duration,
        act: impl FnOnce(&Session) -> T + Send + 'static,
    ) -> Result<Option<T>, Failure> {
        let runtime = Runtime {
            environment: self.environment.clone(),
            signals: Signals::default(),
            clock: Arc::clone(&self.unstopped),
            unstopped: Arc::clone(&self.unstopped),
            ui: Arc::clone(&self.ui),
        };
        let key = self.environment.key(env::TOGETHER_API_KEY)?;
        let session = Session::at(self.together.base().clone(), key, self.custom_headers(), runtime)?;
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            // Nobody listens any more when the time is over.
            let _ = send.send(act(&session));
        });
        Ok(receive.recv_timeout(limit).ok())
    }

    /// A client like that of the API, for a server whose answers take longer.
    pub fn client(&self, timeouts: http::Timeouts) -> Result<Client, Failure> {
        Ok(Client::new(settings(&self.environment, timeouts)?, Arc::clone(&self.clock), teller(&self.ui)))
    }

    pub(crate) fn custom_headers(&self) -> Vec<(String, String)> {
        custom_headers(&self.environment)
    }

    /// Whose files and jobs these are: asks the service, which also shows that the key is accepted.
    pub fn account(&self) -> Result<Account, Failure> {
        let identity = self.together.whoami().map_err(|error| self.explain(error))?;
        Ok(Account { api: self.together.base().origin(), project: identity.project_id.unwrap_or_default() })
    }

    /// Refuses where there is no key, before anything else is done.
    pub fn require_key(&self) -> Result<(), Failure> {
        match self.environment.get(env::TOGETHER_API_KEY) {
            Some(_) => Ok(()),
            None => Err(no_key::missing(&self.environment)),
        }
    }

    pub fn grace(&self) -> Duration {
        let seconds = self.environment.number(env::CTXTUNE_GRACE_SECONDS);
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(GRACE)
    }

    pub(crate) fn multipart_threshold(&self) -> u64 {
        let bytes = self.environment.number(env::CTXTUNE_MULTIPART_THRESHOLD);
        bytes.map_or(MULTIPART_THRESHOLD, |bytes| bytes as u64)
    }

    /// An error as the terminal shows it; what a signal ended ends as the signal says.
    pub fn explain(&self, error: impl Into<Failure>) -> Failure {
        let failure = self.signals.explain(error);
        if failure.code == key::NO_KEY { no_key::missing(&self.environment) } else { failure }
    }

    /// A yes to `question`; else the refusal, which says what was not done and what to do then.
    pub fn confirm(&self, question: &str, not_done: &str, hint: &str) -> Result<(), Failure> {
        match self.ui.ask(question) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::unspent("declined", format!("{not_done}: the answer was no"), hint)),
            Err(stopped) => Err(self.explain(stopped)),
        }
    }

    /// OUT's lock, as soon as the other runs leave it.
    pub(crate) fn wait_for_lock(&self, out: &Path) -> Result<OutputLock, Failure> {
        self.patiently(|| Ok(OutputLock::acquire(out)?))
    }

    /// Does `act`, again as long as another run holds OUT's lock.
    pub(crate) fn patiently<T>(&self, mut act: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        loop {
            match act() {
                Err(failure) if failure.code == "locked" => {
                    self.clock.wait(PATIENCE).map_err(|stopped| self.explain(stopped))?;
                }
                done => return done,
            }
        }
    }

    /// The job that `target` names: an output directory's newest job, or an id. Without a target the
    /// newest job that this machine started.
    pub fn job(&self, target: Option<&str>) -> Result<JobId, Failure> {
        let job = self.named_job(target)?;
        let started =
            self.environment.journal().and_then(|path| journal::started(&path, &job).ok().flatten());
        let started: Option<Timestamp> = started.and_then(|started| started.started_at.parse().ok());
        if let Some(age) = started.and_then(|at| Duration::try_from(self.clock.now().duration_since(at)).ok())
        {
            jobs::note_created(&self.together, &job, age);
        }
        Ok(job)
    }

    fn named_job(&self, target: Option<&str>) -> Result<JobId, Failure> {
        let api = self.together.base().origin();
        let Some(target) = target else { return self.last_job(&api) };
        let dir = Path::new(target);
        if !dir.is_dir() {
            let hint = "name a job's id (`ctxtune jobs` lists them) or a directory of `ctxtune prepare`";
            return JobId::new(target).ok_or_else(|| {
                Failure::usage("no_job", format!("`{target}` is neither a directory nor a job's id"), hint)
            });
        }
        let runs = Run::read_all(dir)?;
        let newest =
            runs.into_iter().filter(|run| run.account.api == api).filter_map(|run| run.job).next_back();
        newest.ok_or_else(|| {
            let message = format!("`{target}` knows no job at {api}");
            Failure::usage("no_job", message, "submit it with `ctxtune submit`, or name the job's id")
        })
    }

    /// The directory that knows `job`: the one that `target` names, else where this machine started it.
    pub fn directory_of(&self, target: Option<&Path>, job: &JobId) -> Option<PathBuf> {
        if let Some(dir) = target.filter(|target| target.is_dir()) {
            return Some(dir.to_owned());
        }
        let started = journal::started(&self.environment.journal()?, job).ok().flatten()?;
        Some(PathBuf::from(started.output_dir))
    }

    /// Writes the status of `job` to the ledger of its [`Session::directory_of`]. Later commands read it there;
    /// no spending depends on it, so that a failure is a warning.
    pub fn note_status(&self, target: Option<&Path>, job: &Job) {
        if let Some(out) = self.directory_of(target, &job.id) {
            self.note_in(&out, std::slice::from_ref(job));
        }
    }

    /// Writes the statuses of all these jobs to the ledgers of the directories in which this machine started them.
    pub fn note_statuses(&self, jobs: &[Job]) {
        let Some(path) = self.environment.journal() else { return };
        let started = journal::all(&path).unwrap_or_default();
        let known = started.into_iter().filter(|started| jobs.iter().any(|job| job.id == started.job));
        let directories: BTreeSet<PathBuf> = known.map(|started| PathBuf::from(started.output_dir)).collect();
        for out in directories {
            self.note_in(&out, jobs);
        }
    }

    /// The same of what was seen of its training.
    pub(crate) fn note_seen(&self, target: Option<&Path>, progress: &Progress) {
        let Some(job) = progress.job() else { return };
        self.note_status(target, job);
        let Some(out) = self.directory_of(target, &job.id) else { return };
        let seen = Seen::of(progress, self.clock.now());
        if let Err(error) = Run::note_seen(&out, &self.together.base().origin(), &job.id, &seen) {
            self.ui.warn(&error.to_string());
        }
    }

    fn note_in(&self, out: &Path, jobs: &[Job]) {
        if let Err(error) = Run::note_all(out, &self.together.base().origin(), jobs) {
            self.ui.warn(&error.to_string());
        }
    }

    fn last_job(&self, api: &str) -> Result<JobId, Failure> {
        let none =
            |reason: String| Failure::usage("no_job", reason, "name the job's id; `ctxtune jobs` lists them");
        let path =
            self.environment.journal().ok_or_else(|| none("there is no state directory".to_owned()))?;
        match journal::newest(&path, api) {
            Ok(Some(started)) => Ok(started.job),
            Ok(None) => Err(none(format!("this machine has started no job at {api}"))),
            Err(error) => Err(none(format!("cannot read `{}`: {error}", path.display()))),
        }
    }

    pub fn dashboard(&self, job: &JobId) -> String {
        format!("{}/fine-tuning/{job}", self.together.base().origin())
    }
}

fn settings(environment: &Environment, timeouts: http::Timeouts) -> Result<http::Settings, Failure> {
    let scale = environment.number(env::CTXTUNE_TIME_SCALE).unwrap_or(1.0);
    Ok(http::Settings {
        user_agent: concat!("ctxtune/", env!("CARGO_PKG_VERSION")).to_owned(),
        proxy: proxy(environment)?.map(|(_, proxy)| proxy),
        timeouts: stretched(timeouts, scale),
        policy: retry::Policy::DEFAULT,
    })
}

/// Who is told that a request failed and is sent again.
fn teller(ui: &Arc<dyn Ui>) -> Arc<dyn Fn(&retry::Notice) + Send + Sync> {
    let ui = Arc::clone(ui);
    Arc::new(move |notice: &retry::Notice| {
        ui.retry(&format!(
            "network: {}; trying again in {:.1} s ({} left)",
            notice.what,
            notice.after.as_secs_f64(),
            notice.tries_left
        ));
    })
}

/// How long a call may take by a clock on which time goes faster by `scale`: a test's haste is for waits.
fn stretched(timeouts: http::Timeouts, scale: f64) -> http::Timeouts {
    const LONGEST: Duration = Duration::from_secs(1_000_000);
    let stretched = |timeout: Duration| {
        let stretched = Duration::try_from_secs_f64(timeout.as_secs_f64() / scale);
        stretched.unwrap_or(LONGEST).min(LONGEST)
    };
    let http::Timeouts { connect, call, idle } = timeouts;
    http::Timeouts { connect: stretched(connect), call: stretched(call), idle: stretched(idle) }
}

/// Where the API is: `flag`, else the variable, else Together's.
pub fn base_url_of(flag: Option<&str>, environment: &Environment) -> Result<BaseUrl, Failure> {
    let variable = environment.get(env::TOGETHER_BASE_URL);
    let (url, place) = match (flag, variable) {
        (Some(url), _) => (url, "--base-url".to_owned()),
        (None, Some(url)) => (url, env::TOGETHER_BASE_URL.to_owned()),
        (None, None) => (DEFAULT_BASE_URL, String::new()),
    };
    let base = BaseUrl::parse(url)
        .map_err(|error| Failure::usage("base_url", format!("{place}: {error}"), URL_HINT))?;
    if flag.is_none() {
        refuse_strange_url(environment, &base)?;
    }
    Ok(base)
}

/// A `.env` comes with a checkout: it may not send the user's own key to a host of its choice.
fn refuse_strange_url(environment: &Environment, base: &BaseUrl) -> Result<(), Failure> {
    let is_of_file = !environment.is_of_process(env::TOGETHER_BASE_URL);
    let is_default = base.origin() == DEFAULT_BASE_URL || base.is_loopback();
    if is_default || !is_of_file || !environment.is_of_process(env::TOGETHER_API_KEY) {
        return Ok(());
    }
    let place = environment.place(env::TOGETHER_BASE_URL).unwrap_or_default();
    let message = format!(
        "{} in {place} would send the key of the environment to {}",
        env::TOGETHER_BASE_URL,
        base.origin()
    );
    let hint = "if that is meant, export the URL as well, or keep the key in the same file";
    Err(Failure::usage("base_url", message, hint))
}

/// The proxy that the service is reached through, and the variable that names it.
pub fn proxy(environment: &Environment) -> Result<Option<(&'static str, Proxy)>, Failure> {
    let either = |name: &str| environment.get(name).or_else(|| environment.get(&name.to_lowercase()));
    let Some((name, url)) = env::PROXIES.iter().find_map(|name| Some((*name, either(name)?))) else {
        return Ok(None);
    };
    let exceptions = either(env::NO_PROXY).unwrap_or_default();
    http::proxy::parse(url, exceptions).map(|proxy| Some((name, proxy))).map_err(|error| {
        let hint = "write it as http://host:port, or unset the variable";
        Failure::usage("proxy", format!("{name}: {error}"), hint)
    })
}

/// `Name: value`, one a line; what is no header is left out.
fn custom_headers(environment: &Environment) -> Vec<(String, String)> {
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().to_owned(), value.trim().to_owned())).filter(|(name, _)| !name.is_empty())
    };
    let text = environment.get(env::TOGETHER_CUSTOM_HEADERS).unwrap_or_default();
    text.lines().filter_map(header).collect()
}
