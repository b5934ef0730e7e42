//! What every command that speaks to the service needs: the client, the clock, the account.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;

use crate::args::RemoteArgs;
use crate::env;
use crate::exit::{Exit, Failure};
use crate::screen::canvas::Canvas;
use crate::screen::report::{Terminal, printable};
use crate::session::clock::SystemClock;
use crate::session::environment::Environment;
use crate::session::key;
use crate::signals::Signals;
use ctxtune_pipeline::job::journal;
use ctxtune_pipeline::job::ledger::{Account, Run};
use ctxtune_service::clock::Clock;
use ctxtune_service::http::{self, Client, retry};
use ctxtune_service::together::job::{Job, JobId};
use ctxtune_service::together::{BaseUrl, BaseUrlError, DEFAULT_BASE_URL, Together, jobs};

/// How a base URL is written.
const URL_HINT: &str =
    "write it as https://host, with or without /v1; http only for this machine, where a key is sent";

/// How long the service may take to list a job that it has accepted.
const GRACE: Duration = Duration::from_secs(60);

/// A service to speak to.
pub struct Service {
    /// Its API.
    pub together: Together,
    /// The variables of this run.
    pub environment: Environment,
    /// The signals of this run.
    pub signals: Signals,
    /// Time.
    pub clock: Arc<dyn Clock>,
    notices: Arc<Mutex<Notices>>,
}

/// Where notices of the transport go: that a single try failed and another one follows. They come from
/// several threads.
pub enum Notices {
    /// To stderr.
    Said,
    /// Above the lines that are redrawn.
    Above(Canvas),
    /// Nowhere: whoever watches for hours is told once that it fails, by a screen. What else is said goes
    /// above the lines that are redrawn, where there are any.
    Unsaid(Option<Canvas>),
}

/// Says a line of text, from whatever thread.
pub type Voice = Arc<dyn Fn(&str) + Send + Sync>;

fn voice(notices: &Arc<Mutex<Notices>>, terminal: &Terminal) -> Voice {
    let (terminal, notices) = (terminal.clone(), Arc::clone(notices));
    Arc::new(move |text| {
        let text = printable(text);
        match &*notices.lock().unwrap_or_else(PoisonError::into_inner) {
            Notices::Above(canvas) | Notices::Unsaid(Some(canvas)) => canvas.print_above(&text),
            Notices::Said | Notices::Unsaid(None) => terminal.say(&text),
        }
    })
}

impl Service {
    /// Reads where the service is and with which key, and connects to nothing yet.
    ///
    /// # Errors
    /// When the URL or a proxy cannot be used, or the key is none.
    pub fn new(
        args: &RemoteArgs,
        environment: Environment,
        signals: &Signals,
        terminal: &Terminal,
    ) -> Result<Service, Failure> {
        let base = base_url(args, &environment)?;
        let key = environment.key(env::TOGETHER_API_KEY)?;
        let headers = custom_headers(environment.get(env::TOGETHER_CUSTOM_HEADERS).unwrap_or_default());
        Service::at((base, key, headers), environment, signals, terminal)
    }

    /// Another server than Together, which gets neither its key nor its headers.
    ///
    /// # Errors
    /// When the URL or a proxy cannot be used, or the key for it is none.
    pub fn other(
        url: &str,
        environment: Environment,
        signals: &Signals,
        terminal: &Terminal,
    ) -> Result<Service, Failure> {
        let own = env::OPENAI_API_KEY;
        let (base, hint) = match environment.key(own)? {
            Some(_) => (BaseUrl::parse(url), format!("use https, or unset {own} to send no key to it")),
            None => (BaseUrl::parse_keyless(url), URL_HINT.to_owned()),
        };
        let base = base.map_err(|error| {
            let hint = if matches!(error, BaseUrlError::Insecure(_)) { hint } else { URL_HINT.to_owned() };
            Failure::new(Exit::Usage, "base_url", format!("--base-url: {error}"), hint)
        })?;
        Service::at((base, None, Vec::new()), environment, signals, terminal)
    }

    fn at(
        (base, key, headers): (BaseUrl, Option<SecretString>, Vec<(String, String)>),
        environment: Environment,
        signals: &Signals,
        terminal: &Terminal,
    ) -> Result<Service, Failure> {
        environment.refuse_test_settings(&base)?;
        let scale = environment.number(env::CTXTUNE_TIME_SCALE).unwrap_or(1.0);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(signals.clone(), scale));
        let notices = Arc::new(Mutex::new(Notices::Said));
        let settings = settings(&environment, http::Timeouts::DEFAULT)?;
        let client = Client::new(settings, Arc::clone(&clock), teller(&notices, terminal));
        let together = Together::new(client, base, key, headers);
        Ok(Service { together, environment, signals: signals.clone(), clock, notices })
    }

    /// A client like that of the API, for a server whose answers take longer.
    ///
    /// # Errors
    /// When a proxy cannot be used.
    pub fn client(&self, timeouts: http::Timeouts, terminal: &Terminal) -> Result<Client, Failure> {
        let settings = settings(&self.environment, timeouts)?;
        Ok(Client::new(settings, Arc::clone(&self.clock), teller(&self.notices, terminal)))
    }

    /// The headers that go to the service with every call.
    pub fn custom_headers(&self) -> Vec<(String, String)> {
        custom_headers(self.environment.get(env::TOGETHER_CUSTOM_HEADERS).unwrap_or_default())
    }

    /// The service of a command that needs no configuration file, with its key at hand.
    ///
    /// # Errors
    /// When the URL or a proxy cannot be used, or there is no key.
    pub fn open(args: &RemoteArgs, signals: &Signals, terminal: &Terminal) -> Result<Service, Failure> {
        let environment = Environment::read(None, terminal)?;
        let service = Service::new(args, environment, signals, terminal)?;
        service.require_key()?;
        Ok(service)
    }

    /// Whose files and jobs these are: asks the service, which also shows that the key is accepted.
    ///
    /// # Errors
    /// When the key is refused or the service cannot be reached.
    pub fn account(&self) -> Result<Account, Failure> {
        let identity = self.together.whoami().map_err(|error| self.explain(error))?;
        Ok(Account { api: self.together.base().origin(), project: identity.project_id.unwrap_or_default() })
    }

    /// Says something, from whatever thread, above the lines that are drawn at the time.
    pub fn voice(&self, terminal: &Terminal) -> Voice {
        voice(&self.notices, terminal)
    }

    /// From now on notices of the transport go there.
    pub fn send_notices(&self, notices: Notices) {
        *self.notices.lock().unwrap_or_else(PoisonError::into_inner) = notices;
    }

    /// Refuses where there is no key, before anything else is done.
    ///
    /// # Errors
    /// That refusal, which says what to export.
    pub fn require_key(&self) -> Result<(), Failure> {
        match self.environment.get(env::TOGETHER_API_KEY) {
            Some(_) => Ok(()),
            None => Err(key::missing(&self.environment)),
        }
    }

    /// How long the service may take to list a job that it has accepted.
    pub fn grace(&self) -> Duration {
        let seconds = self.environment.number(env::CTXTUNE_GRACE_SECONDS);
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(GRACE)
    }

    /// Above how many bytes a file goes in parts.
    pub fn multipart_threshold(&self) -> u64 {
        let bytes = self.environment.number(env::CTXTUNE_MULTIPART_THRESHOLD);
        bytes.map_or(ctxtune_pipeline::job::upload::MULTIPART_THRESHOLD, |bytes| bytes as u64)
    }

    /// An error as the terminal shows it; what a signal ended ends as the signal says.
    pub fn explain(&self, error: impl Into<Failure>) -> Failure {
        let mut failure = error.into();
        if failure.code == key::NO_KEY {
            return key::missing(&self.environment);
        }
        if failure.exit == Exit::Interrupted {
            failure.exit = self.signals.exit();
        }
        failure
    }

    /// The job that `target` names: an output directory's newest job, or an id. Without a target the
    /// newest job that this machine started.
    ///
    /// # Errors
    /// When there is no such job.
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
                Failure::new(
                    Exit::Usage,
                    "no_job",
                    format!("`{target}` is neither a directory nor a job's id"),
                    hint,
                )
            });
        }
        let runs = Run::read_all(dir)?;
        let newest =
            runs.into_iter().filter(|run| run.account.api == api).filter_map(|run| run.job).next_back();
        newest.ok_or_else(|| {
            let message = format!("`{target}` knows no job at {api}");
            Failure::new(
                Exit::Usage,
                "no_job",
                message,
                "submit it with `ctxtune submit`, or name the job's id",
            )
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

    /// Writes the status of `job` to the ledger of its [`Service::directory_of`]. Later commands read it there;
    /// no spending depends on it, so that a failure is a warning.
    pub fn note_status(&self, target: Option<&Path>, job: &Job, terminal: &Terminal) {
        if let Some(out) = self.directory_of(target, &job.id) {
            self.note_in(&out, std::slice::from_ref(job), terminal);
        }
    }

    /// Writes the statuses of all these jobs to the ledgers of the directories in which this machine started them.
    pub fn note_statuses(&self, jobs: &[Job], terminal: &Terminal) {
        let Some(path) = self.environment.journal() else { return };
        let started = journal::all(&path).unwrap_or_default();
        let known = started.into_iter().filter(|started| jobs.iter().any(|job| job.id == started.job));
        let directories: BTreeSet<PathBuf> = known.map(|started| PathBuf::from(started.output_dir)).collect();
        for out in directories {
            self.note_in(&out, jobs, terminal);
        }
    }

    fn note_in(&self, out: &Path, jobs: &[Job], terminal: &Terminal) {
        if let Err(error) = Run::note_all(out, &self.together.base().origin(), jobs) {
            terminal.warn(&printable(&error.to_string()));
        }
    }

    fn last_job(&self, api: &str) -> Result<JobId, Failure> {
        let none = |reason: String| {
            Failure::new(Exit::Usage, "no_job", reason, "name the job's id; `ctxtune jobs` lists them")
        };
        let path =
            self.environment.journal().ok_or_else(|| none("there is no state directory".to_owned()))?;
        match journal::newest(&path, api) {
            Ok(Some(started)) => Ok(started.job),
            Ok(None) => Err(none(format!("this machine has started no job at {api}"))),
            Err(error) => Err(none(format!("cannot read `{}`: {error}", path.display()))),
        }
    }

    /// The page of a job.
    pub fn dashboard(&self, job: &JobId) -> String {
        format!("{}/fine-tuning/{job}", self.together.base().origin())
    }
}

/// What a client of this environment needs to know.
fn settings(environment: &Environment, timeouts: http::Timeouts) -> Result<http::Settings, Failure> {
    let scale = environment.number(env::CTXTUNE_TIME_SCALE).unwrap_or(1.0);
    Ok(http::Settings {
        user_agent: concat!("ctxtune/", env!("CARGO_PKG_VERSION")).to_owned(),
        proxy: proxy(environment)?.map(|(_, proxy)| proxy),
        timeouts: stretched(timeouts, scale),
        policy: retry::Policy::DEFAULT,
    })
}

/// Who is told that a try failed.
fn teller(notices: &Arc<Mutex<Notices>>, terminal: &Terminal) -> Arc<dyn Fn(&retry::Notice) + Send + Sync> {
    let (voice, shared) = (voice(notices, terminal), Arc::clone(notices));
    Arc::new(move |notice: &retry::Notice| {
        if matches!(*shared.lock().unwrap_or_else(PoisonError::into_inner), Notices::Unsaid(_)) {
            return;
        }
        voice(&format!(
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

/// Where the API is.
///
/// # Errors
/// When it cannot be used.
pub fn base_url(args: &RemoteArgs, environment: &Environment) -> Result<BaseUrl, Failure> {
    let variable = environment.get(env::TOGETHER_BASE_URL);
    let (url, place) = match (&args.base_url, variable) {
        (Some(url), _) => (url.as_str(), "--base-url".to_owned()),
        (None, Some(url)) => (url, env::TOGETHER_BASE_URL.to_owned()),
        (None, None) => (DEFAULT_BASE_URL, String::new()),
    };
    let base = BaseUrl::parse(url)
        .map_err(|error| Failure::new(Exit::Usage, "base_url", format!("{place}: {error}"), URL_HINT))?;
    refuse_strange_url(args, environment, &base)?;
    Ok(base)
}

/// A `.env` comes with a checkout: it may not send the user's own key to a host of its choice.
fn refuse_strange_url(args: &RemoteArgs, environment: &Environment, base: &BaseUrl) -> Result<(), Failure> {
    let is_of_file = args.base_url.is_none() && !environment.is_of_process(env::TOGETHER_BASE_URL);
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
    Err(Failure::new(Exit::Usage, "base_url", message, hint))
}

/// The proxy that the service is reached through, and the variable that names it.
///
/// # Errors
/// When it cannot be used.
pub fn proxy(environment: &Environment) -> Result<Option<(&'static str, ureq::Proxy)>, Failure> {
    let either = |name: &str| environment.get(name).or_else(|| environment.get(&name.to_lowercase()));
    let Some((name, url)) = env::PROXIES.iter().find_map(|name| Some((*name, either(name)?))) else {
        return Ok(None);
    };
    let exceptions = either(env::NO_PROXY).unwrap_or_default();
    http::proxy::parse(url, exceptions).map(|proxy| Some((name, proxy))).map_err(|error| {
        let hint = "write it as http://host:port, or unset the variable";
        Failure::new(Exit::Usage, "proxy", format!("{name}: {error}"), hint)
    })
}

/// `Name: value`, one a line; what is no header is left out.
fn custom_headers(text: &str) -> Vec<(String, String)> {
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().to_owned(), value.trim().to_owned())).filter(|(name, _)| !name.is_empty())
    };
    text.lines().filter_map(header).collect()
}
