//! Errors of the service and of submission as the terminal shows them: exit code, name, what to do.

use crate::deploy::DeployError;
use crate::env::{TOGETHER_API_KEY, TOGETHER_BASE_URL};
use crate::failure::{Exit, Failure};
use crate::generate::many::Error as BatchError;
use crate::job::create::CreateError;
use crate::job::ledger::LedgerError;
use crate::job::model::ModelError;
use crate::job::price::NotWithin;
use crate::job::upload::UploadError;
use crate::session::key;
use ctxtune_engine::output::lock::LockError;
use ctxtune_engine::output::manifest::ManifestError;
use ctxtune_engine::prepare;
use ctxtune_service::together::unpack::UnpackError;
use ctxtune_service::together::{self, DEFAULT_BASE_URL};
use ctxtune_service::{Stopped, http};

const AGAIN: &str = "run the same command again: nothing is uploaded or billed twice";

impl From<Stopped> for Failure {
    fn from(_: Stopped) -> Failure {
        Failure::new(Exit::Interrupted, "interrupted", "interrupted", AGAIN)
    }
}

impl From<together::Error> for Failure {
    fn from(error: together::Error) -> Failure {
        Failure::from(&error)
    }
}

impl From<&together::Error> for Failure {
    fn from(error: &together::Error) -> Failure {
        use together::Error;
        match error {
            Error::NoKey => Failure::new(
                Exit::Key,
                key::NO_KEY,
                format!("{TOGETHER_API_KEY} environment variable not set"),
                format!(
                    "export {TOGETHER_API_KEY}=\"your-together-api-key\", or add {TOGETHER_API_KEY}=… to `.env`"
                ),
            ),
            Error::Http(http) => http_failure(http),
            Error::Refused { status, .. } => refused(error, *status),
            Error::Write { .. } => Failure::failed(
                "write",
                error,
                "free some space or choose another place, then run it again: it resumes where it stopped",
            ),
            Error::Page { url, .. } => page_failure(error, url),
            Error::Unreadable { .. } => Failure::network(
                "unreadable",
                error,
                format!("check {TOGETHER_BASE_URL} and the proxy, then run it again"),
            ),
        }
    }
}

fn http_failure(error: &http::Error) -> Failure {
    use http::Error;
    let (exit, code, hint) = match error {
        Error::NotSent { .. } => {
            (Exit::Network, "network", "check the network, the proxy and the base URL, then run it again")
        }
        Error::Tls { .. } => (
            Exit::Network,
            "tls",
            "check this machine's clock; behind a proxy that reads traffic, point SSL_CERT_FILE to its certificates",
        ),
        Error::Invalid { .. } => (Exit::Failed, "request", "check the base URL and TOGETHER_CUSTOM_HEADERS"),
        Error::Lost { .. } => (Exit::Network, "network", AGAIN),
        Error::TooLarge { .. } => {
            (Exit::Network, "too_large", "check the base URL: no answer of the API is so long")
        }
        Error::File { .. } => (Exit::Failed, "read", "run it again when nothing writes to the file"),
        Error::Sink { .. } => {
            (Exit::Failed, "write", "free some space, then run it again: it resumes where it stopped")
        }
        Error::Stopped => return Stopped.into(),
    };
    Failure::new(exit, code, error, hint)
}

/// Something on the way answers with a page for people.
fn page_failure(error: impl ToString, url: &str) -> Failure {
    let host = url.split('/').take(3).collect::<Vec<_>>().join("/");
    let hint = format!(
        "open {host} in a browser on this machine and log in to the network if it asks; else check the base URL and \
         the proxy (HTTPS_PROXY, NO_PROXY); then run it again"
    );
    Failure::network("not_the_api", error, hint)
}

fn refused(error: &together::Error, status: u16) -> Failure {
    let keys = format!("check {TOGETHER_API_KEY}: {DEFAULT_BASE_URL} shows the keys of your account");
    let (exit, code, hint) = match status {
        401 if error.to_string().contains("/files") => (
            Exit::Key,
            "key_refused",
            format!("{keys}; for an upload it may also mean that the free credits are used up"),
        ),
        401 | 403 => (Exit::Key, "key_refused", keys),
        404 => (
            Exit::Usage,
            "not_found",
            "check the id; `ctxtune jobs` and `ctxtune files` list what is there".to_owned(),
        ),
        408 | 429 | 500.. => (Exit::Network, "service", format!("wait a little; {AGAIN}")),
        300..=399 => {
            (Exit::Network, "redirect", format!("check {TOGETHER_BASE_URL}: the API does not redirect"))
        }
        _ => (Exit::Failed, "refused", "change what the service objects to, then run it again".to_owned()),
    };
    Failure::new(exit, code, error, hint)
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Failure {
        let (code, hint) = match &error {
            LedgerError::Io { verb: "write", .. } => {
                ("write", "free some space or fix the permissions, then run it again")
            }
            LedgerError::Io { .. } => ("read", "fix the file's permissions, then run it again"),
            LedgerError::Foreign { .. } => (
                "foreign_ledger",
                "do not delete it while its job runs; move it away if it is not ours, then run it again",
            ),
        };
        Failure::failed(code, error, hint)
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Failure {
        let (code, hint) = match &error {
            LockError::Held { .. } => ("locked", "wait for that run to end"),
            LockError::Io { .. } => ("lock", "check the directory's permissions and free space"),
        };
        Failure::failed(code, error, hint)
    }
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Failure {
        let (exit, code, hint) = match &error {
            ManifestError::Missing(_) => (
                Exit::Usage,
                "not_prepared",
                "make it with `ctxtune prepare`; an interrupted run is completed by running it again",
            ),
            ManifestError::Foreign { .. } => (Exit::Data, "foreign_manifest", "prepare the directory again"),
            ManifestError::Io { .. } => (Exit::Failed, "read", "check the file's permissions"),
        };
        Failure::new(exit, code, error, hint)
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Failure {
        match error {
            ModelError::Api(error) => error.into(),
            ModelError::Unknown { ref nearest, .. } => {
                let hint = match nearest.as_slice() {
                    [] => "name a job or a tuned model of this project".to_owned(),
                    names => format!("tunable names that look like it: {}", names.join(", ")),
                };
                Failure::usage("unknown_model", error, hint)
            }
        }
    }
}

impl From<UploadError> for Failure {
    fn from(error: UploadError) -> Failure {
        let (exit, code, hint) = match &error {
            UploadError::Api { source, .. } => return upload_failure(&error, source),
            UploadError::Ledger(_) => {
                let UploadError::Ledger(ledger) = error else { unreachable!("it was just seen") };
                return ledger.into();
            }
            UploadError::Stopped(stopped) => return (*stopped).into(),
            UploadError::Read { .. } => {
                (Exit::Failed, "read", "check the file's permissions and the disk it is on")
            }
            UploadError::Changed { .. } => {
                (Exit::Data, "changed", "prepare the directory again, and leave its files as they are")
            }
            UploadError::TooLarge { .. } => (Exit::Data, "file_too_large", "prepare fewer records"),
            UploadError::Invalid { .. } => (
                Exit::Data,
                "invalid_file",
                "fix the record or the template, prepare again, and upload again",
            ),
            UploadError::Failed { .. } => {
                (Exit::Network, "service", "run it again: the file is uploaded once more")
            }
            UploadError::StillWaiting { .. } => (
                Exit::Network,
                "still_waiting",
                "run it again later: the file is there and is not uploaded twice",
            ),
        };
        Failure::new(exit, code, error, hint)
    }
}

fn upload_failure(error: &UploadError, source: &together::Error) -> Failure {
    let failure = match source {
        together::Error::Refused { status, .. } => refused(source, *status),
        together::Error::Http(http) => http_failure(http),
        together::Error::NoKey => return together::Error::NoKey.into(),
        together::Error::Page { url, .. } => page_failure(source, url),
        together::Error::Unreadable { .. } | together::Error::Write { .. } => {
            Failure::network("unreadable", source, AGAIN)
        }
    };
    if failure.exit == Exit::Interrupted {
        failure
    } else {
        Failure { message: error.to_string(), ..failure }
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Failure {
        match error {
            CreateError::Api(error) => error.into(),
            CreateError::Ledger(error) => error.into(),
            CreateError::Stopped(stopped) => stopped.into(),
            CreateError::Unknown { .. } => Failure::network(
                "unknown_outcome",
                error,
                "run the same command again: it looks for the job first, and asks for it only if it is not there",
            ),
            CreateError::Unclear { .. } => Failure::network(
                "unclear",
                error,
                "check your jobs in the dashboard; if it is not there, --new-job submits without this check",
            ),
        }
    }
}

impl From<DeployError> for Failure {
    fn from(error: DeployError) -> Failure {
        let (exit, code, hint) = match error {
            DeployError::Api(error) => return error.into(),
            DeployError::Stopped(stopped) => return stopped.into(),
            DeployError::Unknown { .. } => (
                Exit::Network,
                "unknown_outcome",
                "run the same command again: it looks for the deployment first; `ctxtune endpoints` lists what runs",
            ),
            DeployError::Shared { .. } => (
                Exit::Usage,
                "endpoint_in_use",
                "choose another --name, or stop what runs there: `ctxtune endpoints` shows how",
            ),
            DeployError::Failed { .. } => (
                Exit::Failed,
                "deployment_failed",
                "remove it with `ctxtune endpoints stop EP`, then deploy it again, perhaps with another --config",
            ),
            DeployError::Ended { .. } => {
                (Exit::Failed, "stopped_elsewhere", "run it again to deploy it again")
            }
            DeployError::Late { .. } => {
                (Exit::Network, "not_ready", "run it again later, perhaps with another --config")
            }
        };
        Failure::new(exit, code, error, hint)
    }
}

impl From<NotWithin> for Failure {
    fn from(error: NotWithin) -> Failure {
        let (code, hint) = match &error {
            NotWithin::Above { .. } => {
                ("over_max_cost", "raise --max-cost, or train less: fewer epochs, fewer records")
            }
            NotWithin::NoEstimate(_) => {
                ("no_estimate", "leave out --max-cost and answer yourself, or say --yes")
            }
            NotWithin::NotAllowed(_) => ("not_allowed", "raise the limit of your account, or train less"),
        };
        Failure::unspent(code, error, hint)
    }
}

impl From<UnpackError> for Failure {
    fn from(error: UnpackError) -> Failure {
        let (exit, code, hint) = match &error {
            UnpackError::Exists(_) => {
                (Exit::Failed, "in_the_way", Some("move it away, or name another directory"))
            }
            UnpackError::Type(_) | UnpackError::Read { .. } => {
                (Exit::Failed, "archive", Some("remove the archive, then run it again"))
            }
            UnpackError::Member { .. } => {
                (Exit::Failed, "archive", Some("nothing was unpacked; the archive is kept"))
            }
            UnpackError::Write { .. } => {
                (Exit::Failed, "write", Some("make room, or name another directory, then run it again"))
            }
            UnpackError::Stopped => (Exit::Interrupted, "interrupted", Some("run the same command again")),
        };
        Failure { exit, code, message: error.to_string(), hint: hint.map(str::to_owned) }
    }
}

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Failure {
        match error {
            BatchError::Source(prepare::Error::Interrupted) | BatchError::Stopped => Stopped.into(),
            BatchError::Source(error) => error.into(),
            BatchError::File { verb: "read", .. } => {
                Failure::failed("read", &error, "fix the file's permissions, then run it again")
            }
            BatchError::File { .. } => Failure::failed(
                "write",
                &error,
                "free some space or fix the permissions, then run it again: what is finished stays",
            ),
            BatchError::Foreign(_) => {
                Failure::failed("foreign_file", &error, "move that file away, or choose another --output-dir")
            }
            BatchError::Nothing => Failure::data(
                "nothing_listed",
                &error,
                "stories are in files whose names end in `.json`, in lines of JSON, or in an archive",
            ),
        }
    }
}
