//! Where and as whom a job is logged to Weights & Biases: flags, variables, files, defaults.
//!
//! Separate from the logging: nothing here asks anybody. A key that cannot be used is said aloud and
//! then not used, since no trouble with W&B may stop a job; only a key that is to be handed to
//! somebody else, and is not there, is an error, and a text that cannot be a key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use crate::cli::args::{By, WandbArgs};
use crate::cli::environment::Environment;
use crate::cli::exit::{Exit, Failure};
use crate::cli::key;
use crate::cli::netrc;
use crate::cli::report::{Terminal, printable};
use crate::config::ConfigFile;
use crate::env;
use crate::together::BaseUrl;
use crate::wandb::run::Plan;
use crate::wandb::{DEFAULT_BASE_URL, Settings, app_url};

/// A key and where it comes from.
#[derive(Clone)]
pub struct FoundKey {
    /// The key.
    pub key: SecretString,
    /// Where it comes from, for people.
    pub place: String,
}

/// Who logs, and with what.
#[derive(Clone)]
pub enum Way {
    /// This program does.
    Online {
        /// Where and as whom.
        settings: Settings,
        /// Where the key comes from.
        place: String,
    },
    /// This program does, into a directory.
    Offline {
        /// What was said about where; nothing: the output directory.
        dir: Option<PathBuf>,
    },
    /// The service that trains does.
    Together {
        /// Where and as whom.
        settings: Settings,
    },
    /// Nobody does.
    Off,
}

/// What was chosen about a run.
#[derive(Clone)]
pub struct Chosen {
    /// Who logs.
    pub way: Way,
    /// Its place and names; what was not said is empty.
    pub plan: Plan,
}

/// What the flags, the variables and the files say.
///
/// # Errors
/// When the key is to be handed over and there is none, or the configuration file is wrong.
pub fn resolve(
    args: &WandbArgs,
    file: Option<&ConfigFile>,
    environment: &Environment,
    terminal: &Terminal,
) -> Result<Chosen, Failure> {
    let sources = Sources { environment, files: settings_files(environment) };
    let of_file = |key| file.map_or(Ok(None), |file| file.get::<String>(key));
    let (project, name) = (of_file("wandb_project")?, of_file("wandb_run_name")?);
    let text = |name: &str| environment.get(name).map(str::to_owned);
    let plan = Plan {
        run: text(env::WANDB_RUN_ID).filter(|run| is_run_id(run, terminal)).unwrap_or_default(),
        entity: args.wandb_entity.clone().or_else(|| sources.get(env::WANDB_ENTITY, "entity")),
        project: (args.wandb_project.clone().or_else(|| text(env::WANDB_PROJECT)))
            .or(project)
            .or_else(|| sources.of_files("project"))
            .unwrap_or_default(),
        display_name: args.wandb_run_name.clone().or_else(|| text(env::WANDB_NAME)).or(name),
        group: text(env::WANDB_RUN_GROUP),
        job_type: text(env::WANDB_JOB_TYPE),
        tags: tags(environment.get(env::WANDB_TAGS).unwrap_or_default()),
        notes: text(env::WANDB_NOTES),
        sweep: text(env::WANDB_SWEEP_ID),
        ..Plan::default()
    };
    Ok(Chosen { way: way(args, &sources, terminal)?, plan })
}

fn way(args: &WandbArgs, sources: &Sources<'_>, terminal: &Terminal) -> Result<Way, Failure> {
    let warn = |text: &str| terminal.warn(&printable(text));
    let mode = sources.get(env::WANDB_MODE, "mode").unwrap_or_default().to_ascii_lowercase();
    let by = args.wandb.unwrap_or(By::Native);
    match (by, mode.as_str()) {
        (By::Off, _) | (_, "disabled") => return Ok(Way::Off),
        (By::Native, "offline" | "dryrun") => {
            let dir = sources.environment.get(env::WANDB_DIR).map(PathBuf::from);
            return Ok(Way::Offline { dir });
        }
        (_, "" | "online" | "run" | "shared" | "offline" | "dryrun") => {}
        (_, strange) => {
            warn(&format!(
                "{}: `{strange}` is not online, offline or disabled; online it is",
                env::WANDB_MODE
            ));
        }
    }
    let base = match base(sources) {
        Ok(base) => base,
        Err(reason) if by == By::Together => return Err(unusable(&reason)),
        Err(reason) => {
            warn(&format!("W&B: {reason}; the job is not logged"));
            return Ok(Way::Off);
        }
    };
    let Some(FoundKey { key, place }) = key(sources.environment, &base)? else {
        return no_key(args.wandb, terminal);
    };
    let app = sources.environment.get(env::WANDB_APP_URL).map(|url| url.trim_end_matches('/').to_owned());
    let settings = Settings { app: app.unwrap_or_else(|| app_url(&base)), base, key };
    Ok(match by {
        By::Together => Way::Together { settings },
        _ => Way::Online { settings, place },
    })
}

fn no_key(by: Option<By>, terminal: &Terminal) -> Result<Way, Failure> {
    match by {
        Some(By::Together) => Err(unusable("there is no key")),
        Some(_) => {
            let name = env::WANDB_API_KEY;
            terminal.warn(&format!(
                "W&B: there is no key, and the job is not logged: export {name}, or run `wandb login`"
            ));
            Ok(Way::Off)
        }
        None => Ok(Way::Off),
    }
}

fn unusable(reason: &str) -> Failure {
    let hint = format!("export {}, or leave out --wandb together", env::WANDB_API_KEY);
    Failure::new(Exit::Key, "wandb_key", format!("--wandb together: {reason}"), hint)
}

/// Where W&B is, without a slash at its end.
fn base(sources: &Sources<'_>) -> Result<String, String> {
    let Some(url) = sources.get(env::WANDB_BASE_URL, "base_url") else {
        return Ok(DEFAULT_BASE_URL.to_owned());
    };
    match BaseUrl::parse(&url) {
        Ok(base) => Ok(base.as_str().to_owned()),
        Err(error) => Err(format!("{}: {error}", env::WANDB_BASE_URL)),
    }
}

/// The key for `base`: that of the environment, else the one that `wandb login` left.
///
/// # Errors
/// When there is one that cannot be a key.
pub fn key(environment: &Environment, base: &str) -> Result<Option<FoundKey>, Failure> {
    let name = env::WANDB_API_KEY;
    if let (Some(key), Some(place)) = (environment.key(name)?, environment.place(name)) {
        return Ok(Some(FoundKey { key, place: format!("{place} ({name})") }));
    }
    let host = base.split_once("://").map_or(base, |(_, host)| host);
    let host = host.split('/').next().unwrap_or_default();
    let Some((path, key)) = netrc::find(environment, host) else { return Ok(None) };
    let place = format!("`{}`", path.display());
    let key = key::checked(key.expose_secret(), &format!("the key for {host} in {place}"))?;
    Ok(Some(FoundKey { key, place }))
}

impl Chosen {
    /// What logs a job that is watched: see [`Announced`](crate::cli::wandb_run::Announced::logged_by).
    pub fn logged_by(&self) -> Option<&'static str> {
        match self.way {
            Way::Online { .. } | Way::Offline { .. } => Some("monitor"),
            Way::Together { .. } => Some("together"),
            Way::Off => None,
        }
    }

    /// The fields that hand the logging over to the service that trains; `key` says how the key is written.
    pub fn handed_over(&self, key: impl Fn(&SecretString) -> String) -> Map<String, Value> {
        let Way::Together { settings } = &self.way else { return Map::new() };
        let project = Some(self.plan.project.as_str()).filter(|project| !project.is_empty());
        let base = Some(settings.base.as_str()).filter(|base| *base != DEFAULT_BASE_URL);
        let fields = [
            ("wandb_key", Some(key(&settings.key))),
            ("wandb_base_url", base.map(str::to_owned)),
            ("wandb_project_name", Some(project.unwrap_or(crate::tune::logging::DEFAULT_PROJECT).to_owned())),
            ("wandb_name", self.plan.display_name.clone()),
            ("wandb_entity", self.plan.entity.clone()),
        ];
        fields.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text?)))).collect()
    }

    /// The same as it leaves this machine.
    pub fn secret_fields(&self) -> Map<String, Value> {
        self.handed_over(|key| key.expose_secret().to_owned())
    }
}

/// Whether W&B takes `run` as an id, and a file can bear its name.
fn is_run_id(run: &str, terminal: &Terminal) -> bool {
    let is_strange = |character: char| "/\\#?%:".contains(character) || character.is_control();
    let is_id = !run.is_empty() && run.len() <= 128 && !run.starts_with('.') && !run.contains(is_strange);
    if !is_id {
        terminal
            .warn(&printable(&format!("{}: `{run}` is no id of a run, and is left out", env::WANDB_RUN_ID)));
    }
    is_id
}

fn tags(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

/// Variables, and the settings that `wandb` keeps, the nearer first.
struct Sources<'s> {
    environment: &'s Environment,
    files: Vec<BTreeMap<String, String>>,
}

impl Sources<'_> {
    fn get(&self, variable: &str, key: &str) -> Option<String> {
        self.environment.get(variable).map(|value| value.trim().to_owned()).or_else(|| self.of_files(key))
    }

    fn of_files(&self, key: &str) -> Option<String> {
        self.files.iter().find_map(|file| file.get(key)).cloned().filter(|value| !value.is_empty())
    }
}

fn settings_files(environment: &Environment) -> Vec<BTreeMap<String, String>> {
    let global = match (environment.get(env::WANDB_CONFIG_DIR), environment.get(env::HOME)) {
        (Some(dir), _) => Some(PathBuf::from(dir)),
        (None, Some(home)) => Some(Path::new(home).join(".config/wandb")),
        (None, None) => None,
    };
    let places = [Some(PathBuf::from("wandb")), global].into_iter().flatten();
    places.filter_map(|dir| Some(settings(&std::fs::read_to_string(dir.join("settings")).ok()?))).collect()
}

/// The section `[default]` of an INI file.
fn settings(text: &str) -> BTreeMap<String, String> {
    let mut section = "";
    let mut values = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim();
        } else if let Some((key, value)) = line.split_once(['=', ':'])
            && section == "default"
            && !line.starts_with(['#', ';'])
        {
            values.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    values
}
