//! The environment as this program sees it: the process's variables over those of `.env` files.
//!
//! Read once into a map that is passed on; nothing is exported. A rehearsal makes one of its own,
//! so that it cannot see a real key. No value is ever shown, not even of a line that is not understood.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::env;
use crate::exit::{Exit, Failure};
use crate::screen::report::{Terminal, printable};
use crate::screen::shell;
use crate::session::dotenv;
use crate::session::key;
use ctxtune_pipeline::config::{ConfigError, ConfigFile};
use ctxtune_pipeline::value::at_home;
use ctxtune_service::together::BaseUrl;

/// Variables with where they come from.
#[derive(Clone, Default)]
pub struct Environment {
    process: BTreeMap<String, String>,
    files: Vec<(PathBuf, BTreeMap<String, String>)>,
}

impl Environment {
    /// The process's variables, then `.env` of the working directory, then the one beside the
    /// configuration file. A `.env` that others can read, and lines that are not understood, are warned about.
    ///
    /// # Errors
    /// When what cannot be read may name another service or another key than would be taken without it.
    pub fn read(config_path: Option<&Path>, terminal: &Terminal) -> Result<Environment, Failure> {
        let process = process_variables()?;
        let mut places = vec![PathBuf::from(".env")];
        let beside = config_path.and_then(Path::parent).filter(|dir| !dir.as_os_str().is_empty());
        places.extend(beside.map(|dir| dir.join(".env")).filter(|path| !is_same_file(path, &places[0])));
        let mut files = Vec::new();
        for path in places {
            if let Some(variables) = read_file(&path, &process, terminal)? {
                files.push((path, variables));
            }
        }
        Ok(Environment { process, files })
    }

    /// These variables, and of the process's only those that say which characters a terminal can show.
    pub fn rehearsal(variables: impl IntoIterator<Item = (&'static str, String)>) -> Environment {
        Environment::of(locales().chain(variables))
    }

    /// Only what says which characters a terminal can show.
    pub fn locale() -> Environment {
        Environment::of(locales())
    }

    /// Exactly these variables.
    pub fn of(variables: impl IntoIterator<Item = (&'static str, String)>) -> Environment {
        let process = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Environment { process, files: Vec::new() }
    }

    /// The value of `name`; an empty one is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.find(name).map(|(value, _)| value)
    }

    /// The path that `name` holds: no shell replaces `~/` in a `.env`.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        Some(at_home(Path::new(self.get(name)?), self.get(env::HOME).map(Path::new)))
    }

    /// The key that `name` holds, without the white space around it.
    ///
    /// # Errors
    /// When it cannot be a key.
    pub fn key(&self, name: &str) -> Result<Option<SecretString>, Failure> {
        let found = self.get(name).zip(self.place(name));
        found.map(|(value, place)| key::checked(value, &format!("{name} of {place}"))).transpose()
    }

    /// Where `name` has its value from, for people.
    pub fn place(&self, name: &str) -> Option<String> {
        self.find(name).map(|(_, file)| match file {
            Some(path) => format!("`{}`", path.display()),
            None => "the environment".to_owned(),
        })
    }

    /// Whether the process has `name` itself: libraries know no `.env`.
    pub fn is_of_process(&self, name: &str) -> bool {
        matches!(self.find(name), Some((_, None)))
    }

    fn find(&self, name: &str) -> Option<(&str, Option<&Path>)> {
        let process = std::iter::once((&self.process, None));
        let files = self.files.iter().map(|(path, variables)| (variables, Some(path.as_path())));
        process.chain(files).find_map(|(variables, path)| {
            let value = variables.get(name).filter(|value| !value.trim().is_empty())?;
            Some((value.as_str(), path))
        })
    }

    /// The number that a variable for tests holds.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.get(name)?.parse().ok()
    }

    /// Refuses a variable that is for tests, where requests go to the service at `url` on another machine.
    ///
    /// # Errors
    /// That refusal, by name.
    pub fn refuse_test_settings(&self, url: &BaseUrl) -> Result<(), Failure> {
        let set = env::FOR_TESTS.into_iter().find(|name| self.get(name).is_some());
        match set.filter(|_| !url.is_loopback()) {
            None => Ok(()),
            Some(name) => {
                let message = format!(
                    "`{name}` is for tests with a service on this machine, and {} is not",
                    url.as_str()
                );
                Err(Failure::new(
                    Exit::Usage,
                    "test_setting",
                    message,
                    format!("unset {name}, then run it again"),
                ))
            }
        }
    }

    /// Whether text for people may be more than ASCII.
    pub fn is_utf8(&self) -> bool {
        let locale = env::LOCALES.iter().find_map(|name| self.get(name)).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    }

    /// The file that lists the jobs this machine started; nowhere to be kept without a home.
    pub fn journal(&self) -> Option<PathBuf> {
        let state = match self.get(env::XDG_STATE_HOME).map(PathBuf::from).filter(|path| path.is_absolute()) {
            Some(state) => state,
            None => Path::new(self.get(env::HOME)?).join(".local/state"),
        };
        Some(state.join("ctxtune/jobs.jsonl"))
    }
}

fn locales() -> impl Iterator<Item = (&'static str, String)> {
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    let value = |name| std::env::var(name).ok();
    env::LOCALES.into_iter().filter_map(move |name| Some((name, value(name)?)))
}

/// The home directory, which `~/` stands for.
pub fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute())
}

/// The configuration file at `path`, if one is named.
///
/// # Errors
/// When it cannot be used.
pub fn config_file(path: Option<&Path>) -> Result<Option<ConfigFile>, ConfigError> {
    path.map(|path| ConfigFile::read(path, home().as_deref())).transpose()
}

/// The variables of the process whose names and values are text.
fn process_variables() -> Result<BTreeMap<String, String>, Failure> {
    let mut variables = BTreeMap::new();
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    let all = std::env::vars_os();
    for (name, value) in all {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => _ = variables.insert(name, value),
            Err(_) if env::SERVICES.iter().any(|service| name.starts_with(service)) => {
                let message = format!("the value of {name} in the environment is not UTF-8");
                return Err(Failure::new(Exit::Usage, "environment", message, "set it again, or unset it"));
            }
            Err(_) => {}
        }
    }
    Ok(variables)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| std::fs::canonicalize(path).ok();
    whole(one).is_some_and(|one| Some(one) == whole(other))
}

/// The variables of the file at `path`; nothing where there is no file.
fn read_file(
    path: &Path,
    process: &BTreeMap<String, String>,
    terminal: &Terminal,
) -> Result<Option<BTreeMap<String, String>>, Failure> {
    let shown = path.display();
    let Some(metadata) = std::fs::metadata(path).ok().filter(|metadata| is_readable(metadata.file_type()))
    else {
        return Ok(None);
    };
    warn_if_others_read(path, &metadata, terminal);
    let failed = |message: String, hint: &str| Failure::new(Exit::Usage, "dotenv", message, hint);
    let bytes = std::fs::read(path).map_err(|error| {
        let hint =
            "it may name the service and its key: give yourself permission to read it, or run elsewhere";
        failed(format!("cannot read `{shown}`: {error}"), hint)
    })?;
    let dotenv = dotenv::read(&bytes, process)
        .ok_or_else(|| failed(format!("`{shown}` is not UTF-8 text"), "save it as UTF-8, not as UTF-16"))?;
    // A line may hold a key: its number is shown, and nothing of it.
    for skipped in &dotenv.skipped {
        let line = skipped.line;
        if skipped.names_service {
            let services = env::SERVICES.join(", ");
            return Err(failed(
                format!("`{shown}:{line}` is not understood and contains a name with {services}"),
                "write the line as NAME=\"value\": without it another service or key would be used",
            ));
        }
        terminal.warn(&printable(&format!(
            "`{shown}:{line}` is not understood and skipped: write it as NAME=\"value\""
        )));
    }
    Ok(Some(dotenv.variables))
}

/// A file, or a FIFO: some managers of passwords serve `.env` as one. A directory is somebody's virtual environment.
fn is_readable(kind: std::fs::FileType) -> bool {
    #[cfg(unix)]
    if std::os::unix::fs::FileTypeExt::is_fifo(&kind) {
        return true;
    }
    kind.is_file()
}

#[cfg(unix)]
fn warn_if_others_read(path: &Path, metadata: &std::fs::Metadata, terminal: &Terminal) {
    use std::os::unix::fs::PermissionsExt;
    if metadata.permissions().mode() & 0o077 != 0 {
        let (shown, word) = (path.display(), shell::path(path));
        terminal
            .warn(&printable(&format!("others can read `{shown}`, which may hold keys: chmod 600 {word}")));
    }
}

#[cfg(not(unix))]
fn warn_if_others_read(_: &Path, _: &std::fs::Metadata, _: &Terminal) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_wins_over_files_and_an_empty_value_is_none() {
        let mut environment = Environment::of([("A", "process".to_owned()), ("B", " ".to_owned())]);
        let file = [("A", "file"), ("B", "file")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        environment.files.push((".env".into(), file.into()));
        assert_eq!((environment.get("A"), environment.get("B")), (Some("process"), Some("file")));
        assert_eq!(environment.place("A").as_deref(), Some("the environment"));
        assert_eq!(environment.place("B").as_deref(), Some("`.env`"));
        assert_eq!(environment.get("C"), None);
    }

    #[test]
    fn the_locale_decides_about_utf8() {
        let is_utf8 = |variables: &[(&'static str, &str)]| {
            Environment::of(variables.iter().map(|(name, value)| (*name, (*value).to_owned()))).is_utf8()
        };
        assert!(is_utf8(&[("LANG", "de_DE.UTF-8")]));
        assert!(is_utf8(&[("LANG", "C"), ("LC_ALL", "C.utf8")]));
        assert!(!is_utf8(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")]));
        assert!(!is_utf8(&[]));
    }

    #[test]
    fn the_journal_is_in_the_state_directory() {
        let journal = |name, value: &str| Environment::of([(name, value.to_owned())]).journal();
        assert_eq!(journal(env::XDG_STATE_HOME, "/s"), Some("/s/ctxtune/jobs.jsonl".into()));
        assert_eq!(journal(env::HOME, "/h"), Some("/h/.local/state/ctxtune/jobs.jsonl".into()));
        assert_eq!(Environment::default().journal(), None);
    }
}
