//! Keys by host, from the file that `curl`, `ftp` and `wandb login` share.
//!
//! Read as Python's `netrc` does, since that is what wrote the entry: quotes, backslashes, comments
//! where a keyword is due, macros passed over, the last entry of a host wins, `default` serves a
//! host without one. What is not understood is passed over; nothing of it is ever shown.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::env;
use crate::session::environment::Environment;
use crate::value::at_home;

const NAMES: [&str; 2] = [".netrc", "_netrc"];

pub struct Found {
    pub path: PathBuf,
    /// The host whose entry it is; nothing: that of every host without one.
    pub machine: Option<String>,
    pub key: SecretString,
}

/// The password for the first of `hosts` that has one: in the file of `NETRC`, else in the one at home.
pub fn find(environment: &Environment, hosts: &[&str]) -> Option<Found> {
    let places = match (environment.get(env::NETRC), environment.get(env::HOME)) {
        (Some(named), home) => vec![at_home(Path::new(named), home.map(Path::new))],
        (None, Some(home)) => NAMES.iter().map(|name| Path::new(home).join(name)).collect(),
        (None, None) => Vec::new(),
    };
    places.into_iter().find_map(|path| {
        let bytes = std::fs::read(&path).ok()?;
        let (machine, password) = password(&String::from_utf8_lossy(&bytes), hosts)?;
        Some(Found { path, machine, key: SecretString::from(password) })
    })
}

/// The password that `text` holds for the first of `hosts` that has one, and that host; else the default.
fn password(text: &str, hosts: &[&str]) -> Option<(Option<String>, String)> {
    let mut tokens = Tokens(text);
    let (mut found, mut default) = (vec![None; hosts.len()], None);
    // Whom the entry that is read is for.
    let mut entry = Entry::Other;
    while let Some(keyword) = tokens.keyword() {
        match keyword.as_str() {
            "machine" => {
                let machine = tokens.next()?;
                let index = hosts.iter().position(|host| machine.eq_ignore_ascii_case(host));
                entry = index.map_or(Entry::Other, Entry::Host);
            }
            "default" => entry = Entry::Default,
            "macdef" => {
                tokens.skip_macro();
                entry = Entry::Other;
            }
            "login" | "user" | "account" => {
                tokens.next();
            }
            "password" => {
                let password = tokens.next().filter(|password| !password.trim().is_empty());
                match entry {
                    Entry::Host(index) => found[index] = password.or(found[index].take()),
                    Entry::Default => default = password.or(default),
                    Entry::Other => {}
                }
            }
            _ => {}
        }
    }
    let mut of_hosts = hosts.iter().zip(found);
    let own = of_hosts.find_map(|(host, password)| Some((Some((*host).to_owned()), password?)));
    own.or(default.map(|password| (None, password)))
}

#[derive(Clone, Copy)]
enum Entry {
    /// This one of the hosts that are looked for.
    Host(usize),
    /// Every host without an entry.
    Default,
    Other,
}

struct Tokens<'t>(&'t str);

impl Tokens<'_> {
    /// The next word; comments are none.
    fn keyword(&mut self) -> Option<String> {
        loop {
            self.0 = self.0.trim_start();
            if !self.0.starts_with('#') {
                return self.next();
            }
            self.0 = self.0.split_once('\n')?.1;
        }
    }

    /// The next word, whatever it begins with; quotes and backslashes are resolved.
    fn next(&mut self) -> Option<String> {
        self.0 = self.0.trim_start();
        let mut word = String::new();
        let mut characters = self.0.char_indices();
        let is_quoted = self.0.starts_with('"');
        if is_quoted {
            characters.next();
        }
        let mut rest = "";
        while let Some((at, character)) = characters.next() {
            let is_end = if is_quoted { character == '"' } else { character.is_whitespace() };
            if is_end {
                rest = &self.0[at + character.len_utf8()..];
                break;
            }
            match character {
                '\\' => word.extend(characters.next().map(|(_, escaped)| escaped)),
                character => word.push(character),
            }
        }
        let is_word = is_quoted || !self.0.is_empty();
        self.0 = rest;
        is_word.then_some(word)
    }

    /// Passes over a macro, which ends at an empty line.
    fn skip_macro(&mut self) {
        let end = ["\n\n", "\n\r\n"].iter().filter_map(|end| Some(self.0.find(end)? + end.len())).min();
        self.0 = end.map_or("", |end| &self.0[end..]);
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const HOST: &str = "api.wandb.ai";

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let found = password(text, &[HOST]).map(|(_, password)| password);
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn an_entry_is_found_on_one_line_or_several() {
        check("machine api.wandb.ai login user password k1", Some("k1"));
        check("machine api.wandb.ai\n  login user\n\tpassword k1\n", Some("k1"));
        check(
            "machine a login b password c\r\nmachine api.wandb.ai\r\nlogin u\r\npassword k1\r\n",
            Some("k1"),
        );
        check("machine API.wandb.ai password k1 login user", Some("k1"));
        check("machine api.wandb.ai login user account a password k1", Some("k1"));
    }

    #[test]
    fn other_hosts_and_broken_entries_give_nothing() {
        check("", None);
        check("machine", None);
        check("machine api.wandb.ai login user", None);
        check("machine api.wandb.ai login user password", None);
        check("machine api.wandb.ai login user password \"\"", None);
        check("machine wandb.ai password k1", None);
        check("machine api.wandb.ai.example password k1", None);
        check("password k1", None);
    }

    #[test]
    fn quotes_and_backslashes_are_resolved() {
        check(r#"machine "api.wandb.ai" login "a b" password "k \"1\"""#, Some("k \"1\""));
        check(r"machine api.wandb.ai login u password k\ 1\\", Some(r"k 1\"));
        check("machine api.wandb.ai login password password k1", Some("k1"));
    }

    #[test]
    fn comments_are_passed_over_and_a_password_may_begin_like_one() {
        check("# machine api.wandb.ai password no\nmachine api.wandb.ai # note\n password k1", Some("k1"));
        check("machine api.wandb.ai login u password #k1", Some("#k1"));
        check("#", None);
    }

    #[test]
    fn the_last_entry_wins_and_the_default_only_where_there_is_none() {
        check("machine api.wandb.ai password k1\nmachine api.wandb.ai password k2", Some("k2"));
        check("default login u password d\nmachine api.wandb.ai password k1", Some("k1"));
        check("machine a password b\ndefault login u password d", Some("d"));
    }

    #[test]
    fn the_first_host_with_an_entry_wins_over_the_others_and_over_the_default() {
        let check = |text: &str, expected: Option<(Option<&str>, &str)>| {
            let found = password(text, &["new.example", HOST]);
            let found = found.as_ref().map(|(machine, key)| (machine.as_deref(), key.as_str()));
            assert_eq!(found, expected, "{text}");
        };
        let (old, new) = ("machine api.wandb.ai password k1\n", "machine new.example password k2\n");
        check(&format!("{old}{new}"), Some((Some("new.example"), "k2")));
        check(&format!("{old}default password d"), Some((Some(HOST), "k1")));
        check("default password d", Some((None, "d")));
        check("machine new.example login user\nmachine api.wandb.ai password k1", Some((Some(HOST), "k1")));
        check("machine other.example password k3", None);
    }

    #[test]
    fn macros_are_passed_over() {
        check(
            "macdef init\nmachine api.wandb.ai password no\n\nmachine api.wandb.ai password k1",
            Some("k1"),
        );
        check("machine api.wandb.ai password k1\nmacdef init\npassword no\n", Some("k1"));
    }

    #[test]
    fn the_variable_wins_over_the_home_directory() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, key: &str| {
            std::fs::write(home.path().join(name), format!("machine {HOST} password {key}")).unwrap();
        };
        let found = |named: Option<&str>| {
            let home = (env::HOME, home.path().to_string_lossy().into_owned());
            let named = named.map(|named| (env::NETRC, named.to_owned()));
            let environment = Environment::of(std::iter::once(home).chain(named));
            find(&environment, &[HOST]).map(|found| found.key.expose_secret().to_owned())
        };
        assert_eq!(found(None), None);
        write("_netrc", "k2");
        assert_eq!(found(None).as_deref(), Some("k2"));
        write(".netrc", "k1");
        write("other", "k3");
        assert_eq!(found(None).as_deref(), Some("k1"));
        assert_eq!(found(Some("~/other")).as_deref(), Some("k3"));
        assert_eq!(found(Some("/nowhere")), None);
        assert!(find(&Environment::default(), &[HOST]).is_none());
    }
}
