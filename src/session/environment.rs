//! Reads the environment: the process's variables and those of `.env` files, once. No value is ever shown, not even of a
//! line that is not understood.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::args::home;
use crate::screen::report::Terminal;
use crate::session::dotenv;
use ctxtune_pipeline::config::{ConfigError, ConfigFile, PrepareChoices, TuneChoices};
use ctxtune_pipeline::text::printable;
use ctxtune_pipeline::{Environment, Failure, env, shell};

/// The process's variables, then `.env` of the working directory, then the one beside the configuration file. A
/// `.env` that others can read, and lines that are not understood, are warned about. Fails when what cannot be
/// read may name another service or another key than would be taken without it.
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
    Ok(Environment { process, files, arguments: arguments() })
}

/// These variables, and of the process's only those that say which characters a terminal can show.
pub fn with_locale(variables: impl IntoIterator<Item = (&'static str, String)>) -> Environment {
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    let value = |name| std::env::var(name).ok();
    let locales = env::LOCALES.into_iter().filter_map(|name| Some((name, value(name)?)));
    Environment { arguments: arguments(), ..Environment::of(locales.chain(variables)) }
}

/// By how much waits are shortened, in tests; of commands that stay on this machine too.
pub fn time_scale() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    let scale = std::env::var(env::CTXTUNE_TIME_SCALE).ok();
    scale.and_then(|scale| scale.parse().ok()).unwrap_or(1.0)
}

/// Where the Hub's cache is, by the process's variables: all that commands need which stay on this machine. No `.env`
/// can stop them.
pub fn of_cache() -> Environment {
    of_process(&[env::HF_HUB_CACHE, env::HF_HOME, env::HOME])
}

/// What tasks of an engine run, by the process's variables.
pub fn of_engine() -> Environment {
    of_process(&[env::CTXTUNE_BIN, env::HOME])
}

fn of_process(names: &[&'static str]) -> Environment {
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    let value = |name| std::env::var(name).ok();
    Environment::of(names.iter().filter_map(|name| Some((*name, value(name)?))))
}

/// The process's variables about buckets, home and proxies. No `.env` is read for them: a checkout shall not say where
/// the user's own keys go.
#[cfg(feature = "cloud")]
pub fn of_stores() -> BTreeMap<String, String> {
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    let all = std::env::vars_os();
    let texts = all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(_, value)| !value.is_empty()).collect()
}

fn arguments() -> Vec<String> {
    std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

#[derive(Default)]
pub struct Configured {
    pub file: Option<ConfigFile>,
    pub data: PrepareChoices,
    pub tune: TuneChoices,
}

pub fn configured(path: Option<&Path>) -> Result<Configured, ConfigError> {
    let Some(file) = config_file(path)? else { return Ok(Configured::default()) };
    Ok(Configured { data: file.prepare_choices()?, tune: file.tune_choices()?, file: Some(file) })
}

pub fn config_file(path: Option<&Path>) -> Result<Option<ConfigFile>, ConfigError> {
    path.map(|path| ConfigFile::read(path, home().as_deref())).transpose()
}

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
                return Err(Failure::usage("environment", message, "set it again, or unset it"));
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
    let failed = |message: String, hint: &str| Failure::usage("dotenv", message, hint);
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
