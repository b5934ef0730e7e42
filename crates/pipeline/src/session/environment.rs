//! The variables of a run with where each comes from: the process's over those of `.env` files.
//!
//! They are read elsewhere, once, and passed on; nothing is exported. A rehearsal makes a map of its own, so that it
//! cannot see a real key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::env;
use crate::failure::Failure;
use crate::session::key;
use crate::value::at_home;
use ctxtune_service::together::BaseUrl;

#[derive(Clone, Default)]
pub struct Environment {
    /// Those of the process, which win.
    pub process: BTreeMap<String, String>,
    /// Those of files, the first of which wins.
    pub files: Vec<(PathBuf, BTreeMap<String, String>)>,
    /// The command line, the program's name first.
    pub arguments: Vec<String>,
}

impl Environment {
    /// Exactly these variables.
    pub fn of(variables: impl IntoIterator<Item = (&'static str, String)>) -> Environment {
        let process = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Environment { process, ..Environment::default() }
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

    pub fn number(&self, name: &str) -> Option<f64> {
        self.get(name)?.parse().ok()
    }

    /// Refuses a variable that is for tests, where requests go to the service at `url` on another machine.
    pub fn refuse_test_settings(&self, url: &BaseUrl) -> Result<(), Failure> {
        let set = env::FOR_TESTS.into_iter().find(|name| self.get(name).is_some());
        match set.filter(|_| !url.is_loopback()) {
            None => Ok(()),
            Some(name) => {
                let message = format!(
                    "`{name}` is for tests with a service on this machine, and {} is not",
                    url.as_str()
                );
                Err(Failure::usage("test_setting", message, format!("unset {name}, then run it again")))
            }
        }
    }

    /// Whether text for people may be more than ASCII.
    pub fn is_utf8(&self) -> bool {
        let locale = env::LOCALES.iter().find_map(|name| self.get(name)).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    }

    /// The file with what tokens cost; nowhere to be kept without a home.
    pub fn rates(&self) -> Option<PathBuf> {
        self.journal().map(|jobs| jobs.with_file_name("rates.jsonl"))
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
