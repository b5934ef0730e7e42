//! Errors of configuration, preparation, `check` and `score`: exit code, name, what to do.

use crate::config::ConfigError;
use crate::failure::conversion::{remedy, remedy_for_first, repacked};
use crate::failure::{Exit, Failure, ONLY_FLAGS};
use ctxtune_engine::output::lock::LockError;
use ctxtune_engine::output::manifest::ManifestError;
use ctxtune_engine::output::prepared::PreparedError;
use ctxtune_engine::source::{CONTAINER, LINKED_DIRECTORY};
use ctxtune_engine::storage::Unusable;
use ctxtune_engine::{check, prepare, score};

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        let hint = match &error {
            ConfigError::UnknownKey { key, suggestion, .. } => unknown_key_hint(key, suggestion.as_deref()),
            ConfigError::NoCorpus => {
                "name a directory: `ctxtune prepare DATA_DIR`, `--data-dir DATA_DIR`, or `data_dir:` in the configuration file".to_owned()
            }
            ConfigError::UnknownSource(_) => {
                "sources are directories, .json records, .jsonl and .ndjson, .tar (these also with .gz or .zst, .tgz, .tzst), and - for standard input"
                    .to_owned()
            }
            ConfigError::Unsupported { path, unsupported } => remedy(path, *unsupported),
            ConfigError::Template { .. } => "docs/templates.md describes templates; `fixtures/templates` has an example".to_owned(),
            ConfigError::Listed { path, .. } if path.to_string_lossy().contains(['*', '?', '[']) => {
                "patterns are not expanded in a list: let the shell write it, as in `ls contexts/*.json > FILE`".to_owned()
            }
            ConfigError::Listed { .. } => {
                "correct the list: its paths are relative to the working directory, each once".to_owned()
            }
            ConfigError::Read { .. } => "check the path and its permissions".to_owned(),
            ConfigError::Yaml { reason, .. } if reason.contains("UTF-8") => "save the file as UTF-8".to_owned(),
            ConfigError::Yaml { .. } => "correct that line".to_owned(),
            ConfigError::Value { .. } => "docs/fine-tune.md lists what each parameter may be, docs/prepare.md the other keys".to_owned(),
        };
        Failure::usage("config", error, hint)
    }
}

/// What to do with a key that the configuration file does not have: where it belongs, or what may be meant.
fn unknown_key_hint(key: &str, suggestion: Option<&str>) -> String {
    let variable = key.to_uppercase();
    let flag = key.replace('_', "-");
    if ["method", "metric", "parameters", "run_cap", "early_terminate", "program"].contains(&key) {
        "it belongs to the file of a sweep: `ctxtune sweep run SWEEP`".to_owned()
    } else if ["messages", "context"].contains(&key) {
        "it belongs to a template: `template: FILE`".to_owned()
    } else if variable.ends_with("_KEY") || variable.ends_with("_TOKEN") {
        format!("keys do not stand in this file: export {variable}, or write it into `.env`")
    } else if let Some((command, _)) = ONLY_FLAGS.iter().find(|(_, flags)| flags.contains(&flag.as_str())) {
        format!("it is a flag: `ctxtune {command} --{flag}`")
    } else {
        match suggestion {
            Some(known) => format!("did you mean `{known}`?"),
            None => "docs/prepare.md lists the keys under \"Configuration file\"".to_owned(),
        }
    }
}

/// What a store said, where it is what the error is about.
fn of_store(error: &prepare::Error) -> Option<(Exit, &'static str, String)> {
    use prepare::Error;
    let (Error::NoCorpus { source, .. }
    | Error::List { source, .. }
    | Error::Read { source, .. }
    | Error::Write { source, .. }
    | Error::Store { source, .. }) = error
    else {
        return None;
    };
    let (exit, code, hint) = match Unusable::within(source) {
        Some(Unusable::Address(_)) => {
            (Exit::Usage, "store_address", "check the address and the variables of the store")
        }
        Some(Unusable::NoBuckets(_)) => {
            (Exit::Usage, "no_cloud", "install a wheel or a release, or build it with `--features cloud`")
        }
        Some(Unusable::NoBucket { .. }) => (Exit::Usage, "no_bucket", "check its name, and AWS_ENDPOINT_URL"),
        Some(Unusable::Key { hint, .. }) => (Exit::Key, "store_key", hint.as_str()),
        None if source.kind() == std::io::ErrorKind::Interrupted => {
            (Exit::Interrupted, "interrupted", "run the same command again")
        }
        None => return None,
    };
    Some((exit, code, hint.to_owned()))
}

impl From<prepare::Error> for Failure {
    fn from(error: prepare::Error) -> Failure {
        if let Some((exit, code, hint)) = of_store(&error) {
            return Failure::new(exit, code, error, hint);
        }
        let (exit, code) = classify(&error);
        let hint = hint(&error);
        Failure::new(exit, code, error, hint)
    }
}

fn classify(error: &prepare::Error) -> (Exit, &'static str) {
    use prepare::Error;
    match error {
        Error::OutputIsCorpus(_) => (Exit::Usage, "output_is_corpus"),
        Error::NoCorpus { .. } => (Exit::Usage, "no_corpus"),
        Error::TooManySources(_) => (Exit::Usage, "too_many_sources"),
        Error::List { .. } | Error::Read { .. } => (Exit::Failed, "read"),
        Error::Write { .. } | Error::RejectLog(_) | Error::NameLog(_) => (Exit::Failed, "write"),
        Error::Lock(LockError::Held { .. }) => (Exit::Failed, "locked"),
        Error::Lock(LockError::Io { .. }) => (Exit::Failed, "lock"),
        Error::Manifest(ManifestError::Foreign { .. }) => (Exit::Failed, "foreign_manifest"),
        Error::Manifest(_) => (Exit::Failed, "read"),
        Error::Foreign { .. } => (Exit::Failed, "foreign_file"),
        Error::Threads(_) => (Exit::Failed, "threads"),
        Error::Changed { .. } => (Exit::Failed, "changed"),
        Error::Store { .. } | Error::NoRoom { .. } => (Exit::Network, "store"),
        Error::NotYet { .. } => (Exit::Network, "not_yet"),
        Error::NoPlan { .. } => (Exit::Usage, "no_plan"),
        Error::OtherPlan { .. } => (Exit::Usage, "other_plan"),
        Error::OtherResult { .. } => (Exit::Usage, "other_result"),
        Error::Altered { .. } => (Exit::Usage, "altered"),
        Error::Indivisible { .. } => (Exit::Usage, "indivisible"),
        Error::Misplaced { .. } | Error::OtherFileSystem { .. } => (Exit::Usage, "work_dir"),
        Error::Differ { .. } => (Exit::Failed, "differ"),
        Error::NothingListed { .. } => (Exit::Data, "nothing_listed"),
        Error::TooManyRejects { .. } | Error::NothingAccepted { .. } => (Exit::Data, "rejects"),
        Error::Mix { .. } => (Exit::Data, "mix"),
        Error::EmptySide { .. } => (Exit::Data, "empty_side"),
        Error::EqualKeys { .. } => (Exit::Data, "equal_keys"),
        Error::Damaged { .. } => (Exit::Data, "damaged"),
        Error::Repack { .. } => (Exit::Data, "repack"),
        Error::LfsPointer(_) => (Exit::Data, "lfs_pointer"),
        Error::SpoolLimit { .. } => (Exit::Data, "spool_limit"),
        Error::Interrupted => (Exit::Interrupted, "interrupted"),
    }
}

fn hint(error: &prepare::Error) -> String {
    use prepare::Error;
    match error {
        Error::List { .. } | Error::Read { .. } => return read_hint(error),
        Error::TooManyRejects { failed, .. } | Error::NothingAccepted { failed, .. } => {
            return rejects_hint(failed);
        }
        Error::Repack { path, repack } => {
            return repacked(path, *repack);
        }
        Error::LfsPointer(_) => "run `git lfs pull` where the file was cloned",
        Error::OutputIsCorpus(_) => "choose another --output-dir",
        Error::NoCorpus { .. } => "name the directory or the container that holds the records",
        Error::TooManySources(_) => "put the records into fewer containers",
        Error::Write { .. } => "free some space or choose another --output-dir, then run it again",
        Error::RejectLog(_) | Error::NameLog(_) => "free some space, then run it again",
        Error::Lock(LockError::Held { .. }) => "wait for that run to end, or choose another --output-dir",
        Error::Lock(LockError::Io { .. }) => "check the directory's permissions and free space",
        Error::Manifest(ManifestError::Foreign { .. }) | Error::Foreign { .. } => {
            "move that file away, or choose another --output-dir"
        }
        Error::Manifest(_) => "check the file's permissions",
        Error::Threads(_) => "use fewer --threads, or raise the limit on processes or memory",
        Error::Changed { .. } => "run it again when nothing writes to the corpus",
        Error::Store { .. } => "nothing was committed: run the same command again",
        Error::NoRoom { .. } => "free some space, or choose another --scratch-dir, then run it again",
        Error::NotYet { .. } => {
            "run that first, then this again; `ctxtune distributed status` lists what is missing"
        }
        Error::NoPlan { .. } => "make one with `ctxtune distributed plan`, or check --work-dir",
        Error::OtherPlan { .. } => "choose another --work-dir, or delete this one",
        Error::OtherResult { .. } => {
            "choose an empty --output-dir, or empty this one: nothing in a bucket is replaced"
        }
        Error::Altered { .. } => "delete the working directory and plan again",
        Error::Indivisible { .. } => "write it to a file first, or leave out --work-dir",
        Error::Misplaced { .. } => "choose a --work-dir beside the output",
        Error::OtherFileSystem { .. } => "choose a --work-dir beside the output: its files are moved there",
        Error::Differ { .. } => {
            "if an input changed, delete the working directory and plan again; else report this as a bug"
        }
        Error::NothingListed { root, not_read, .. } => {
            if let Some(remedy) = remedy_for_first(root.as_deref(), not_read) {
                return remedy;
            }
            let has = |kind: &str| not_read.by_kind().any(|(found, _)| found == kind);
            if has(CONTAINER) {
                "--containers reads the JSONL files and archives below a directory; or name them as sources"
            } else if has(LINKED_DIRECTORY) {
                "links to directories are not followed: name the directory itself as a source"
            } else {
                "records are files whose names end in `.json`, lines of JSON, or such files in an archive"
            }
        }
        Error::Mix { .. } => "ask for fewer lines, fix those that are rejected, or name another file",
        Error::EmptySide { .. } => "add records, or change --val-ratio or --group-by",
        Error::EqualKeys { first, second, .. } if first == second => "it is named twice: name it once",
        Error::EqualKeys { .. } => "rename one of them, or leave one source out",
        Error::Damaged { .. } => "make or fetch the container again; nothing of it was used",
        Error::SpoolLimit { .. } => "raise --max-spool-bytes if the source can be trusted",
        Error::Interrupted => "nothing was published; run the same command again",
    }
    .to_owned()
}

impl Failure {
    /// An error of work in parts as a failure: what may be otherwise when it is tried again ends with 5, what an input is
    /// ends with 3.
    pub fn of_parts(error: prepare::Error) -> Failure {
        use prepare::Error;
        let exit = exit_of_parts(&error);
        let has_plan = !matches!(error, Error::NothingListed { .. } | Error::NoCorpus { .. });
        let is_of_plan = of_store(&error).is_none();
        let mut failure = Failure { exit, ..error.into() };
        if exit == Exit::Data && has_plan && is_of_plan {
            let before = failure.hint.map(|hint| format!("{hint}, then ")).unwrap_or_default();
            let last = "delete the working directory: its plan keeps the inputs as they were";
            failure.hint = Some(format!("{before}{last}"));
        }
        failure
    }

    /// Whether work in parts that failed so may succeed when it is tried again.
    pub fn may_pass(error: &prepare::Error) -> bool {
        exit_of_parts(error) == Exit::Network
    }
}

fn exit_of_parts(error: &prepare::Error) -> Exit {
    use prepare::Error;
    use std::io::ErrorKind;
    if let Some((exit, ..)) = of_store(error) {
        return exit;
    }
    match error {
        Error::List { source, .. } | Error::Read { source, .. } => match source.kind() {
            ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::InvalidInput => Exit::Data,
            _ => Exit::Network,
        },
        Error::Changed { .. } => Exit::Data,
        Error::Write { .. } | Error::RejectLog(_) | Error::NameLog(_) => Exit::Network,
        Error::Lock(_) | Error::Threads(_) | Error::Manifest(ManifestError::Io { .. }) => Exit::Network,
        other => classify(other).0,
    }
}

impl From<check::Error> for Failure {
    fn from(error: check::Error) -> Failure {
        use check::Error;
        let (exit, code, hint) = match &error {
            Error::NotFile { .. } => {
                (Exit::Usage, "no_file", "name JSONL files, or a directory that `ctxtune prepare` made")
            }
            Error::Manifest(ManifestError::Missing(_)) => (
                Exit::Usage,
                "not_prepared",
                "name the files in it, or make it with `ctxtune prepare`; an interrupted run is completed by running it again",
            ),
            Error::Manifest(ManifestError::Foreign { .. }) => {
                (Exit::Data, "foreign_manifest", "prepare the directory again, or name the files in it")
            }
            Error::Manifest(ManifestError::Io { .. }) | Error::Read { .. } => {
                (Exit::Failed, "read", "check the file's permissions and the disk it is on")
            }
            Error::Unpack { .. } => (
                Exit::Failed,
                "write",
                "free some space where temporary files lie, or set TMPDIR to a directory with more",
            ),
            Error::Changed { .. } => {
                (Exit::Failed, "changed", "run it again when nothing writes to the file")
            }
            Error::Threads(_) => {
                (Exit::Failed, "threads", "use fewer --threads, or raise the limit on processes or memory")
            }
            Error::Interrupted => (Exit::Interrupted, "interrupted", "run the same command again"),
        };
        Failure::new(exit, code, error, hint)
    }
}

impl From<score::Error> for Failure {
    fn from(error: score::Error) -> Failure {
        use score::Error;
        let (exit, code, hint) = match error {
            Error::Records(error) => return error.into(),
            Error::Unsupported { ref path, unsupported } => {
                let hint = remedy(path, unsupported);
                return Failure::usage("unknown_source", error, hint);
            }
            Error::Absent(_) => (Exit::Usage, "no_file", "check the path"),
            Error::UnknownSource(_) => (
                Exit::Usage,
                "unknown_source",
                "records are in a directory, .jsonl, .ndjson or .tar (also with .gz or .zst, .tgz, .tzst), or - for standard input",
            ),
            Error::Prepared(error) => return error.into(),
            Error::NoReference { .. } => {
                (Exit::Data, "no_reference", "references are records with a `socialized_context`")
            }
            Error::NothingMatches { .. } => (
                Exit::Data,
                "nothing_matches",
                "answers have the keys of their references: the same path below the directory, the same line",
            ),
            Error::Threads(_) => {
                (Exit::Failed, "threads", "use fewer --threads, or raise the limit on processes or memory")
            }
            Error::Interrupted => (Exit::Interrupted, "interrupted", "run the same command again"),
        };
        Failure::new(exit, code, error, hint)
    }
}

impl From<PreparedError> for Failure {
    fn from(error: PreparedError) -> Failure {
        let (exit, code, hint) = match error {
            PreparedError::Records(error) => return error.into(),
            PreparedError::Read { .. } => {
                (Exit::Failed, "read", "check the file's permissions and the disk it is on")
            }
            PreparedError::NoValidation(_) => {
                (Exit::Data, "no_validation", "prepare it with a --val-ratio, or name the records themselves")
            }
            PreparedError::WithoutKeys(_) => {
                (Exit::Data, "without_keys", "name its `val.jsonl`: lines are then known by their numbers")
            }
            PreparedError::NotAsPrepared(_) => (Exit::Data, "not_as_prepared", "prepare the directory again"),
        };
        Failure::new(exit, code, error, hint)
    }
}

fn read_hint(error: &prepare::Error) -> String {
    let source = match error {
        prepare::Error::List { source, .. } | prepare::Error::Read { source, .. } => source,
        _ => return String::new(),
    };
    match source.kind() {
        std::io::ErrorKind::PermissionDenied => "give yourself permission to read it, or move it away",
        std::io::ErrorKind::NotFound => {
            "the corpus changed meanwhile: run it again when nothing writes to it"
        }
        _ if source.raw_os_error() == Some(24) => "raise the limit on open files (`ulimit -n`)",
        _ => "nothing was published; run it again when the file can be read",
    }
    .to_owned()
}

fn rejects_hint(failed: &prepare::FailedRejects) -> String {
    let limit = "or allow more with --max-rejects";
    match &failed.report {
        Some(report) => format!("every reason is in `{}`; fix those records, {limit}", report.display()),
        None if failed.rejects.is_empty() => "leave out --only-correct, or add records".to_owned(),
        None => format!("fix the records named above, {limit}"),
    }
}
