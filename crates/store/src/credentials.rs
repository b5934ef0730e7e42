//! Who we are to S3: what variables say, else what the AWS CLI says of a profile, else the machine itself.
//!
//! The library knows variables, web identities, containers and instances, and no profiles: their many kinds (single
//! sign-on, assumed roles, processes) are asked of the program that knows them all.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use ctxtune_engine::storage::Unusable;
use object_store::aws::AwsCredential;
use object_store::{CredentialProvider, Error};
use serde::Deserialize;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::failure::KEY_HINT;
use crate::settings::Settings;

/// How long the AWS CLI may take: it may ask another service.
const LONGEST: Duration = Duration::from_secs(60);

/// Variables with which the library finds credentials by itself.
const FOUND_BY: [&str; 6] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SKIP_SIGNATURE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// Whether variables say who we are, or where to ask.
pub fn is_named(settings: &Settings) -> bool {
    FOUND_BY.iter().any(|name| settings.variable(name).is_some())
}

/// The profile to ask the AWS CLI for, where no variable says who we are: a named one, or the default one where there
/// is one.
pub fn profile(settings: &Settings) -> Option<Profile> {
    if is_named(settings) {
        return None;
    }
    let name = settings.variable("AWS_PROFILE").or_else(|| settings.variable("AWS_DEFAULT_PROFILE"));
    let file = |variable: &str, name: &str| {
        let in_home = || Some(settings.home.as_ref()?.join(".aws").join(name));
        let path = settings.variable(variable).map(PathBuf::from).or_else(in_home)?;
        std::fs::read_to_string(path).ok()
    };
    let has_default = || {
        let files = [file("AWS_CONFIG_FILE", "config"), file("AWS_SHARED_CREDENTIALS_FILE", "credentials")];
        files.iter().flatten().any(|text| text.lines().any(|line| line.trim() == "[default]"))
    };
    (name.is_some() || has_default()).then(|| Profile {
        name: name.map(str::to_owned),
        aws: settings.aws.clone(),
        now: settings.now,
        known: Mutex::new(None),
    })
}

/// A profile of the AWS CLI.
#[derive(Debug)]
pub struct Profile {
    name: Option<String>,
    aws: OsString,
    now: fn() -> SystemTime,
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    credential: Arc<AwsCredential>,
    /// From when on a new one is asked for, and when this one ends; `None` for keys that do not end.
    ends: Option<(SystemTime, SystemTime)>,
}

/// What `aws configure export-credentials` prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Exported {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<String>,
}

#[async_trait]
impl CredentialProvider for Profile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut known = self.known.lock().await;
        let now = (self.now)();
        if let Some(known) = &*known
            && known.ends.is_none_or(|(renewed, _)| now < renewed)
        {
            return Ok(known.credential.clone());
        }
        match (self.export().await, &*known) {
            (Ok(exported), _) => {
                // A time that cannot be read is past: they are asked for each time.
                let ends = exported.expiration.map(|end| {
                    let end = end.parse::<jiff::Timestamp>().map_or(0, |end| end.as_second());
                    let end = UNIX_EPOCH + Duration::from_secs(end.max(0).unsigned_abs());
                    (now + end.duration_since(now).unwrap_or_default().mul_f32(0.8), end)
                });
                let credential = Arc::new(AwsCredential {
                    key_id: exported.access_key_id,
                    secret_key: exported.secret_access_key,
                    token: exported.session_token,
                });
                *known = Some(Known { credential: credential.clone(), ends });
                Ok(credential)
            }
            // The old one is good for some minutes yet.
            (Err(_), Some(Known { credential, ends: Some((_, end)) })) if now < *end => {
                Ok(credential.clone())
            }
            (Err(error), _) => Err(Error::Unauthenticated { path: String::new(), source: Box::new(error) }),
        }
    }
}

impl Profile {
    async fn export(&self) -> Result<Exported, Unusable> {
        let mut command = Command::new(&self.aws);
        command.args(["configure", "export-credentials", "--format", "process"]);
        command.args(self.name.iter().flat_map(|name| ["--profile", name]));
        command.stdin(Stdio::null()).kill_on_drop(true);
        let failed = |said: &str| {
            let profile = self.name.as_deref().unwrap_or("default");
            let message = format!("no credentials of the profile `{profile}`: {said}");
            Unusable::Key { message, hint: KEY_HINT.to_owned() }
        };
        let output = match tokio::time::timeout(LONGEST, command.output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(failed("the AWS CLI, `aws`, which knows profiles, is not here"));
            }
            Ok(Err(error)) => return Err(failed(&format!("cannot run `aws`: {error}"))),
            Err(_) => return Err(failed("`aws configure export-credentials` does not end")),
        };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(
                said.trim().lines().last().unwrap_or("`aws configure export-credentials` failed"),
            ));
        }
        // What it printed is not shown, whatever it is.
        serde_json::from_slice(&output.stdout)
            .map_err(|_| failed("`aws configure export-credentials` did not print them"))
    }
}
