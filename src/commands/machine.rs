//! What `doctor` looks at on this machine: certificates, keys, directories.
//!
//! Keys are looked at and never shown; a directory that is there gets one temporary file, which is removed, and
//! one that is not there is not made.

use std::io;
use std::path::Path;

use crate::screen::finding::{Finding, Level};
use ctxtune_engine::output::manifest::{Manifest, ManifestError};
use ctxtune_pipeline::job::wandb::{HOW_TO_LOG, Way, Why, examine};
use ctxtune_pipeline::session::no_key;
use ctxtune_pipeline::text::grouped;
use ctxtune_pipeline::{Environment, Exit, Failure, env, shell};

pub fn certificates(environment: &Environment) -> Finding {
    let name = env::SSL_CERT_FILE;
    let Some(path) = environment.get(name) else { return Finding::ok("those of the system") };
    if !environment.is_of_process(name) {
        let said = format!("{name} stands in a `.env`, which TLS does not read");
        return Finding::warn(said, format!("export {name}={}", shell::word(path)));
    }
    let hint = format!("point {name} to certificates in PEM form, or unset it");
    match std::fs::read(path) {
        Err(error) => Finding::fail(Exit::Network, format!("{name}: cannot read `{path}`: {error}"), hint),
        Ok(bytes) if memchr::memmem::find(&bytes, b"-----BEGIN").is_none() => {
            Finding::fail(Exit::Network, format!("{name}: `{path}` holds no certificate in PEM form"), hint)
        }
        Ok(_) => Finding::ok(format!("`{path}` ({name})")),
    }
}

/// Whether there is a key, and whether it looks like one; it is never shown.
pub fn key(environment: &Environment) -> Finding {
    let name = env::TOGETHER_API_KEY;
    let (Some(key), Some(place)) = (environment.get(name), environment.place(name)) else {
        return Finding::of(no_key::missing(environment));
    };
    if let Err(failure) = environment.key(name) {
        return Finding::of(failure);
    }
    let said = format!("{name} of {place}");
    match oddity(key) {
        Some((odd, hint)) => Finding::warn(format!("{said}: {odd}"), hint),
        None => Finding::ok(said),
    }
}

/// What is odd about a key's shape, and what to do.
fn oddity(key: &str) -> Option<(&'static str, &'static str)> {
    let bare = key.trim();
    let quotes = ['"', '\'', '`'];
    if bare.starts_with(quotes) || bare.ends_with(quotes) {
        Some(("it has quotation marks", "take them away: they are part of the value"))
    } else if bare.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
        Some(("it begins with `Bearer`", "leave only the key"))
    } else if bare.contains(' ') {
        Some(("it has blanks in it", "copy it again"))
    } else if bare == "your-together-api-key" {
        Some(("it is the placeholder of the instructions", "put your own key in its place"))
    } else {
        None
    }
}

/// Whether the output directory can be written to; one that is not there is not made.
pub fn output(out: &Path) -> Finding {
    let shown = out.display();
    let hint = "choose another output directory, or fix its permissions";
    match std::fs::metadata(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::ok(format!("`{shown}` is not there yet: `ctxtune prepare` makes it"))
        }
        Err(error) => Finding::fail(Exit::Failed, format!("cannot check `{shown}`: {error}"), hint),
        Ok(metadata) if !metadata.is_dir() => {
            Finding::fail(Exit::Failed, format!("`{shown}` is no directory"), hint)
        }
        Ok(_) => match touch(out) {
            Ok(()) => Finding::ok(format!("`{shown}` can be written to")),
            Err(error) => Finding::fail(Exit::Failed, format!("cannot write to `{shown}`: {error}"), hint),
        },
    }
}

/// Makes a temporary file in `dir` and removes it.
fn touch(dir: &Path) -> io::Result<()> {
    tempfile::Builder::new().prefix(".ctxtune-doctor-").tempfile_in(dir)?.close()
}

pub fn data(out: &Path) -> Finding {
    match Manifest::read(out) {
        Ok(manifest) => {
            let val = manifest.val.as_ref().map_or(0, |val| val.records);
            let train = grouped(manifest.train.records);
            Finding::ok(format!("prepared: {train} training + {} validation examples", grouped(val)))
        }
        Err(ManifestError::Missing(_)) => {
            let hint = format!("ctxtune prepare DATA_DIR --output-dir {}", shell::path(out));
            Finding::warn("not prepared yet", hint)
        }
        Err(error) => {
            let failure = Failure::from(error);
            Finding { level: Level::Warn, said: failure.message, hint: failure.hint }
        }
    }
}

/// Whether jobs are logged to Weights & Biases: at which host, and with a key from where. It is never shown.
pub fn wandb(environment: &Environment) -> Finding {
    let (way, server) = match examine(environment) {
        Ok(found) => found,
        Err(failure) => return Finding::of(failure),
    };
    match way {
        Way::Online { place, .. } => {
            Finding::ok(format!("jobs are logged to {server}, with the key of {place}"))
        }
        Way::Offline { .. } => Finding::ok(format!("jobs are logged offline ({}=offline)", env::WANDB_MODE)),
        Way::Together { .. } | Way::Off(Why::Flag) => Finding::off("jobs are not logged"),
        Way::Off(Why::Disabled(name)) => Finding::off(format!("jobs are not logged: {name} turns it off")),
        Way::Off(Why::NoKey) => {
            Finding::off(format!("no key for {server}, so jobs are not logged; to log them: {HOW_TO_LOG}"))
        }
        Way::Off(Why::Unusable(reason)) => {
            Finding::warn(format!("jobs are not logged: {reason}"), "correct it, or unset the variable")
        }
    }
}

pub fn state(journal: Option<&Path>) -> Finding {
    let Some(dir) = journal.and_then(Path::parent) else {
        let hint = format!("set {} or {}", env::XDG_STATE_HOME, env::HOME);
        return Finding::warn("there is no home directory: `--last` will know no job", hint);
    };
    let shown = dir.display();
    if !dir.exists() {
        return Finding::ok(format!("`{shown}`, made with the first job"));
    }
    match touch(dir) {
        Ok(()) => Finding::ok(format!("`{shown}`")),
        Err(error) => Finding::warn(
            format!("cannot write to `{shown}`: {error}; `--last` will know no new job"),
            "fix its permissions",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_an_odd_shape_is_noticed() {
        let check = |key: &str, expected: Option<&str>| {
            let odd = oddity(key).map(|(odd, _)| odd);
            assert_eq!(odd.is_some(), expected.is_some(), "{key}: {odd:?}");
            assert!(odd.unwrap_or_default().contains(expected.unwrap_or_default()), "{key}: {odd:?}");
        };
        check("tgp_v1_0123-abc", None);
        check("\"tgp_v1\"", Some("quotation"));
        check(" tgp_v1\n", None);
        check("tgp v1", Some("blanks"));
        check("Bearer tgp_v1", Some("Bearer"));
        check("your-together-api-key", Some("placeholder"));
    }
}
