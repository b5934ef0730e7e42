//! Where and as whom a job is logged to Weights & Biases: flags, variables, files, defaults.
//!
//! A key that cannot be used is said aloud and then not used, since no trouble with W&B may stop a job; only a
//! key that is to be handed to somebody else, and is not there, is an error, and a text that cannot be a key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use crate::config::ConfigFile;
use crate::config::wandb::{By, WandbArgs};
use crate::failure::{Exit, Failure};
use crate::job::logging::DEFAULT_PROJECT;
use crate::session::environment::Environment;
use crate::session::{key, netrc};
use crate::ui::Ui;
use crate::{env, shell};
use ctxtune_service::http::{self, said};
use ctxtune_service::together::BaseUrl;
use ctxtune_service::wandb::Settings;
use ctxtune_service::wandb::host::{DEFAULT_BASE_URL, api_url, app_url, hosts, is_hosted};
use ctxtune_service::wandb::run::{Metadata, Plan};

struct FoundKey {
    key: SecretString,
    place: String,
}

#[derive(Clone)]
pub enum Way {
    /// This program does.
    Online {
        settings: Settings,
        place: String,
    },
    /// This program does, into a directory.
    Offline {
        /// What was said about where; nothing: the output directory.
        dir: Option<PathBuf>,
    },
    /// The service that trains does.
    Together {
        settings: Settings,
    },
    Off(Why),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// `--wandb off`.
    Flag,
    /// This variable, or the settings that `wandb` keeps.
    Disabled(&'static str),
    NoKey,
    /// The key or the base URL cannot be used.
    Unusable(String),
}

#[derive(Clone)]
pub struct Chosen {
    pub way: Way,
    /// Its place and names; what was not said is empty.
    pub plan: Plan,
}

/// What the flags, the variables and the files say.
pub fn resolve(
    args: &WandbArgs,
    file: Option<&ConfigFile>,
    environment: &Environment,
    ui: &dyn Ui,
) -> Result<Chosen, Failure> {
    let sources = Sources::of(environment);
    let of_file = |key| file.and_then(|file| file.text(key));
    let (project, name) = (of_file("wandb_project"), of_file("wandb_run_name"));
    let text = |name: &str| environment.get(name).map(str::to_owned);
    let plan = Plan {
        run: text(env::WANDB_RUN_ID).filter(|run| is_run_id(run, ui)).unwrap_or_default(),
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
        defaults: Metadata { notes: Some(command_line(environment)), ..Metadata::default() },
        no_alert: args.no_alert,
        uploads_data: args.wandb_data,
        ..Plan::default()
    };
    let way = way(args.wandb.unwrap_or(By::Native), &sources)?;
    if let Way::Online { settings, .. } = &way
        && let Ok(url) = BaseUrl::parse_keyless(&settings.base)
    {
        environment.refuse_test_settings(&url)?;
    }
    if let Some(strange) = strange_mode(&sources) {
        let name = env::WANDB_MODE;
        let text = format!("{name}: `{strange}` is not online, offline or disabled; logging is online");
        ui.warn(&text);
    }
    match (&way, args.wandb) {
        (Way::Off(Why::Unusable(reason)), Some(By::Together)) => return Err(unusable(reason)),
        (Way::Off(Why::NoKey), Some(By::Together)) => return Err(unusable("there is no key")),
        (Way::Off(Why::Unusable(reason)), _) => {
            ui.warn(&format!("W&B: {reason}; the job is not logged"));
        }
        (Way::Off(Why::NoKey), Some(_)) => {
            ui.warn(&format!("W&B: there is no key, so the job is not logged: {HOW_TO_LOG}"));
        }
        _ => {}
    }
    Ok(Chosen { way, plan })
}

fn command_line(environment: &Environment) -> String {
    shown_command(environment.arguments.iter().cloned(), environment)
}

/// A command line without private parts: a home directory is `~`, URLs have no query and no user, a key is `[key]`.
fn shown_command(arguments: impl Iterator<Item = String>, environment: &Environment) -> String {
    let keys = [env::TOGETHER_API_KEY, env::WANDB_API_KEY, env::OPENAI_API_KEY];
    let keys: Vec<&str> = keys.iter().filter_map(|name| environment.get(name)).map(str::trim).collect();
    let shown = arguments.skip(1).map(|argument| {
        let mut argument = without_home(&argument, environment.get(env::HOME));
        if let Some(at) = argument.find("://").map(|at| at + 3) {
            argument.truncate(http::without_query(&argument).len().max(at));
            let authority = argument[at..].split('/').next().unwrap_or_default();
            let user = authority.rfind('@').map_or(0, |end| end + 1);
            argument.replace_range(at..at + user, "");
        }
        shell::word(&said::printable(&argument, &keys))
    });
    std::iter::once("ctxtune".to_owned()).chain(shown).collect::<Vec<_>>().join(" ")
}

/// `text` with `~` for the home directory at the start of each path in it.
fn without_home(text: &str, home: Option<&str>) -> String {
    let home = home.map(|home| home.trim_end_matches('/')).filter(|home| !home.is_empty());
    let mut shown = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let begins_path =
            shown.chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '/');
        let length = if begins_path { home_length(rest, home) } else { 0 };
        if length > 0 {
            shown.push('~');
        }
        let step = if length > 0 { length } else { rest.chars().next().map_or(0, char::len_utf8) };
        if length == 0 {
            shown.push_str(&rest[..step]);
        }
        rest = &rest[step..];
    }
    shown
}

/// The length of the home directory at the start of `text`; 0 if there is none.
fn home_length(text: &str, home: Option<&str>) -> usize {
    let is_whole = |length: usize| text[length..].chars().next().is_none_or(|next| "/ :,\"'".contains(next));
    if let Some(home) = home.filter(|home| text.starts_with(home) && is_whole(home.len())) {
        return home.len();
    }
    for root in ["/home/", "/Users/"] {
        if let Some(below) = text.strip_prefix(root) {
            let name = below.find(['/', ' ', ':', ',']).unwrap_or(below.len());
            return if name > 0 { root.len() + name } else { 0 };
        }
    }
    let root = "/root";
    if text.starts_with(root) && is_whole(root.len()) { root.len() } else { 0 }
}

pub const HOW_TO_LOG: &str = "export WANDB_API_KEY=..., or run `wandb login`";

/// Who logs without any flag, and the base URL with its source: for `doctor`.
pub fn examine(environment: &Environment) -> Result<(Way, String), Failure> {
    let sources = Sources::of(environment);
    let server = server(&sources).map(|server| format!("{} ({})", server.base, server.from));
    Ok((way(By::Native, &sources)?, server.unwrap_or_default()))
}

fn mode(sources: &Sources<'_>) -> String {
    sources.get(env::WANDB_MODE, "mode").unwrap_or_default().to_ascii_lowercase()
}

fn strange_mode(sources: &Sources<'_>) -> Option<String> {
    let known = ["", "online", "run", "shared", "offline", "dryrun", "disabled"];
    Some(mode(sources)).filter(|mode| !known.contains(&mode.as_str()))
}

/// Whether a variable is true, as W&B's integrations read it.
fn is_true(text: &str) -> bool {
    ["1", "true", "yes", "on"].contains(&text.trim().to_ascii_lowercase().as_str())
}

fn way(by: By, sources: &Sources<'_>) -> Result<Way, Failure> {
    let mode = mode(sources);
    if by == By::Off {
        return Ok(Way::Off(Why::Flag));
    }
    if mode == "disabled" {
        return Ok(Way::Off(Why::Disabled(env::WANDB_MODE)));
    }
    if sources.environment.get(env::WANDB_DISABLED).is_some_and(is_true) {
        return Ok(Way::Off(Why::Disabled(env::WANDB_DISABLED)));
    }
    if by == By::Native && ["offline", "dryrun"].contains(&mode.as_str()) {
        return Ok(Way::Offline { dir: sources.environment.path(env::WANDB_DIR) });
    }
    let base = match server(sources) {
        Ok(server) => server.base,
        Err(reason) => return Ok(Way::Off(Why::Unusable(reason))),
    };
    let Some(FoundKey { key, place }) = key(sources.environment, &base)? else {
        return Ok(Way::Off(Why::NoKey));
    };
    let app = sources.environment.get(env::WANDB_APP_URL).map(|url| url.trim_end_matches('/').to_owned());
    let settings = Settings { app: app.unwrap_or_else(|| app_url(&base)), base, key };
    Ok(match by {
        By::Together => Way::Together { settings },
        _ => Way::Online { settings, place },
    })
}

fn unusable(reason: &str) -> Failure {
    let hint = format!("export {}, or leave out --wandb together", env::WANDB_API_KEY);
    Failure::new(Exit::Key, "wandb_key", format!("--wandb together: {reason}"), hint)
}

struct Server {
    /// Its base URL, without a slash at its end.
    base: String,
    /// Its source, for messages.
    from: String,
}

fn server(sources: &Sources<'_>) -> Result<Server, String> {
    let name = env::WANDB_BASE_URL;
    let (url, from) = match (sources.environment.get(name), sources.of_files("base_url")) {
        (Some(url), _) => {
            let place = sources.environment.place(name).unwrap_or_default();
            (url.to_owned(), format!("{name} of {place}"))
        }
        (None, Some(url)) => (url, "the settings of `wandb`".to_owned()),
        (None, None) => (DEFAULT_BASE_URL.to_owned(), "the default".to_owned()),
    };
    let base = BaseUrl::parse(&url).map_err(|error| error.to_string());
    let base = base.and_then(|base| api_url(base.as_str())).map_err(|reason| format!("{from}: {reason}"))?;
    Ok(Server { base, from })
}

/// The key for `base`: that of the environment, else the one that `wandb login` left.
fn key(environment: &Environment, base: &str) -> Result<Option<FoundKey>, Failure> {
    let name = env::WANDB_API_KEY;
    if let (Some(key), Some(place)) = (environment.key(name)?, environment.place(name)) {
        return Ok(Some(FoundKey { key, place: format!("{place} ({name})") }));
    }
    let Some(found) = netrc::find(environment, &hosts(base)) else { return Ok(None) };
    let entry = found.machine.map_or("the default entry".to_owned(), |host| format!("machine {host}"));
    let place = format!("{entry} of `{}`", found.path.display());
    let key = key::checked(found.key.expose_secret(), &format!("the key of {place}"))?;
    Ok(Some(FoundKey { key, place }))
}

impl Chosen {
    /// What logs a job that is watched: see [`Announced`](crate::job::wandb_run::Announced::logged_by).
    pub fn logged_by(&self) -> Option<&'static str> {
        match self.way {
            Way::Online { .. } | Way::Offline { .. } => Some("monitor"),
            Way::Together { .. } => Some("together"),
            Way::Off(_) => None,
        }
    }

    /// The fields that hand the logging over to the service that trains; `key` says how the key is written.
    pub(crate) fn handed_over(&self, key: impl Fn(&SecretString) -> String) -> Map<String, Value> {
        let Way::Together { settings } = &self.way else { return Map::new() };
        let project = Some(self.plan.project.as_str()).filter(|project| !project.is_empty());
        let base = Some(settings.base.as_str()).filter(|base| !is_hosted(base));
        let fields = [
            ("wandb_key", Some(key(&settings.key))),
            ("wandb_base_url", base.map(str::to_owned)),
            ("wandb_project_name", Some(project.unwrap_or(DEFAULT_PROJECT).to_owned())),
            ("wandb_name", self.plan.display_name.clone()),
            ("wandb_entity", self.plan.entity.clone()),
        ];
        fields.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text?)))).collect()
    }

    /// The same as it leaves this machine.
    pub(crate) fn secret_fields(&self) -> Map<String, Value> {
        self.handed_over(|key| key.expose_secret().to_owned())
    }
}

/// Whether W&B takes `run` as an id, and a file can bear its name.
fn is_run_id(run: &str, ui: &dyn Ui) -> bool {
    let is_strange = |character: char| "/\\#?%:".contains(character) || character.is_control();
    let is_id = !run.is_empty() && run.len() <= 128 && !run.starts_with('.') && !run.contains(is_strange);
    if !is_id {
        ui.warn(&format!("{}: `{run}` is no id of a run, and is left out", env::WANDB_RUN_ID));
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
    fn of(environment: &Environment) -> Sources<'_> {
        Sources { environment, files: settings_files(environment) }
    }

    fn get(&self, variable: &str, key: &str) -> Option<String> {
        self.environment.get(variable).map(|value| value.trim().to_owned()).or_else(|| self.of_files(key))
    }

    fn of_files(&self, key: &str) -> Option<String> {
        self.files.iter().find_map(|file| file.get(key)).cloned().filter(|value| !value.is_empty())
    }
}

fn settings_files(environment: &Environment) -> Vec<BTreeMap<String, String>> {
    let global = match (environment.path(env::WANDB_CONFIG_DIR), environment.get(env::HOME)) {
        (Some(dir), _) => Some(dir),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Who logs with these variables, in a word, and with which place and pages.
    fn seen(variables: &[(&'static str, &str)]) -> (String, String) {
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned()));
        match examine(&Environment::of(variables)).unwrap().0 {
            Way::Online { settings, .. } => (settings.base, settings.app),
            Way::Offline { .. } => ("offline".to_owned(), String::new()),
            Way::Together { .. } => ("together".to_owned(), String::new()),
            Way::Off(why) => ("off".to_owned(), format!("{why:?}")),
        }
    }

    #[test]
    fn the_hosted_service_has_one_place_for_pages() {
        let key = (env::WANDB_API_KEY, "k");
        let check = |base: Option<&str>, expected: &str| {
            let base = base.map(|base| (env::WANDB_BASE_URL, base));
            let variables: Vec<_> = [Some(key), base].into_iter().flatten().collect();
            let pages = "https://forge.coreweave.com/wandb".to_owned();
            assert_eq!(seen(&variables), (expected.to_owned(), pages), "{base:?}");
        };
        check(None, "https://api.forge.coreweave.com");
        check(Some("https://api.forge.coreweave.com/"), "https://api.forge.coreweave.com");
        check(Some("https://forge.coreweave.com/api/wandb/"), "https://api.forge.coreweave.com");
        check(Some("https://api.wandb.ai"), "https://api.wandb.ai");
        let page = seen(&[key, (env::WANDB_BASE_URL, "https://wandb.ai")]);
        assert!(page.0 == "off" && page.1.contains(DEFAULT_BASE_URL), "{page:?}");
        let own = seen(&[key, (env::WANDB_APP_URL, "https://pages.example/")]);
        assert_eq!(own.1, "https://pages.example");
    }

    #[test]
    fn logging_is_turned_off_as_the_integrations_of_wandb_are() {
        let key = (env::WANDB_API_KEY, "k");
        for truth in ["true", "TRUE", "1", "on", "Yes "] {
            let off = seen(&[key, (env::WANDB_DISABLED, truth)]);
            assert_eq!(off, ("off".to_owned(), "Disabled(\"WANDB_DISABLED\")".to_owned()), "{truth}");
        }
        for untruth in ["false", "0", "no", "off"] {
            assert_ne!(seen(&[key, (env::WANDB_DISABLED, untruth)]).0, "off", "{untruth}");
        }
        assert_eq!(seen(&[key, (env::WANDB_MODE, "Disabled")]).0, "off");
        assert_eq!(seen(&[]), ("off".to_owned(), "NoKey".to_owned()));
    }

    #[test]
    fn a_command_is_shown_without_homes_queries_and_keys() {
        let check = |arguments: &[&str], expected: &str| {
            let variables = [
                (env::HOME, "/cluster/home/mia/".to_owned()),
                (env::TOGETHER_API_KEY, "tgp_v1_0123456789".to_owned()),
            ];
            let arguments = ["/home/mia/bin/ctxtune"].iter().chain(arguments).map(|text| (*text).to_owned());
            assert_eq!(shown_command(arguments, &Environment::of(variables)), expected);
        };
        check(&["finetune", "corpus", "-o", "out"], "ctxtune finetune corpus -o out");
        check(&["finetune", "/cluster/home/mia/data"], "ctxtune finetune ~/data");
        check(&["--data-dir=/home/mia/data", "--svg", "/Users/mia"], "ctxtune --data-dir=~/data --svg ~");
        check(&["/root/x", "/rooted/x", "/cluster/home/miami"], "ctxtune ~/x /rooted/x /cluster/home/miami");
        check(&["/scratch/home/mia/x", "a/home/mia"], "ctxtune /scratch/home/mia/x a/home/mia");
        check(
            &["--base-url=https://host/v1?token=secret#x", "--wandb-project", "a b"],
            "ctxtune --base-url=https://host/v1 --wandb-project 'a b'",
        );
        check(&["--base-url=https://me:pass@host/v1"], "ctxtune --base-url=https://host/v1");
        check(
            &["rehearse", "--key", "tgp_v1_0123456789", "it's"],
            r"ctxtune rehearse --key '[key]' 'it'\''s'",
        );
    }

    #[test]
    fn a_key_of_either_host_is_found_for_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netrc");
        let place = |machine: &str, base: Option<&str>| {
            std::fs::write(&path, format!("machine {machine}\n  login user\n  password k\n")).unwrap();
            let netrc = Some((env::NETRC, path.display().to_string()));
            let base = base.map(|base| (env::WANDB_BASE_URL, base.to_owned()));
            match examine(&Environment::of([netrc, base].into_iter().flatten())).unwrap().0 {
                Way::Online { place, .. } => place,
                _ => String::new(),
            }
        };
        let forge = "api.forge.coreweave.com";
        let expected = |machine: &str| format!("machine {machine} of `{}`", path.display());
        assert_eq!(place(forge, None), expected(forge));
        assert_eq!(place("api.wandb.ai", None), expected("api.wandb.ai"));
        assert_eq!(place(forge, Some("https://api.wandb.ai")), expected(forge));
        assert_eq!(place(forge, Some("https://forge.coreweave.com/api/wandb")), expected(forge));
        assert_eq!(place(forge, Some("https://wandb.example.org")), "");
    }
}
