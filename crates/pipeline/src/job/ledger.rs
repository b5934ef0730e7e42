//! What was uploaded and what was started, kept so that nothing is done or paid twice.
//!
//! `OUT/uploads.json` holds file ids by digest, `OUT/runs/<tag>.json` one job each and is never
//! written over by another job. Both belong to one account: another API origin or project never
//! matches. They hold no key and no signed URL. Each write is a file of its own, for the owner's
//! eyes, flushed and renamed into place, so that a ledger is whole or not there.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::job::seen::Seen;
use crate::job::tag::Identity;
use ctxtune_engine::output::manifest::Hex;
use ctxtune_service::together::{Ending, Job, JobId, Status};

pub(crate) const UPLOADS_FILE: &str = "uploads.json";
pub(crate) const RUNS_DIR: &str = "runs";
const UPLOADS_SCHEMA: &str = "ctxtune.uploads/1";
const RUN_SCHEMA: &str = "ctxtune.run/1";

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot {verb} `{path}`: {source}")]
    Io {
        /// `read` or `write`.
        verb: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("`{path}` is no ledger this version knows: {reason}")]
    Foreign { path: PathBuf, reason: String },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The API's origin.
    pub api: String,
    /// The project's id; empty where the service did not say.
    pub project: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadState {
    /// An upload in parts has begun; a later process aborts it.
    Begun {
        /// Its id at the service.
        upload_id: String,
    },
    /// The service has the bytes.
    Uploaded,
    /// The service found the file fit for training.
    Verified,
}

/// A file that went, or is going, to the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRecord {
    /// Whose it is.
    pub account: Account,
    /// The side's digest as the manifest has it.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Its name at the service.
    pub name: String,
    /// Its id.
    pub file_id: String,
    /// How far it has come.
    pub state: UploadState,
}

#[derive(Debug, Serialize, Deserialize)]
struct UploadsFile {
    schema: String,
    uploads: Vec<UploadRecord>,
}

#[derive(Debug)]
pub struct Uploads {
    path: PathBuf,
    records: Vec<UploadRecord>,
}

impl Uploads {
    /// Reads what `out` knows; nothing where it knows nothing.
    pub fn read(out: &Path) -> Result<Uploads, LedgerError> {
        let path = out.join(UPLOADS_FILE);
        let file: Option<UploadsFile> = read_ledger(&path)?;
        let records = match file {
            Some(file) if file.schema != UPLOADS_SCHEMA => return Err(foreign(&path, &file.schema)),
            Some(file) => file.uploads,
            None => Vec::new(),
        };
        Ok(Uploads { path, records })
    }

    pub fn find(&self, account: &Account, sha256: &str) -> Option<&UploadRecord> {
        self.records.iter().find(|record| record.account == *account && record.sha256 == sha256)
    }

    pub fn of<'u>(&'u self, account: &'u Account) -> impl Iterator<Item = &'u UploadRecord> {
        self.records.iter().filter(|record| record.account == *account)
    }

    /// Takes `record` in place of what was known of the same bytes, and writes it down.
    pub fn put(&mut self, record: UploadRecord) -> Result<(), LedgerError> {
        self.drop_record(&record.account, &record.sha256);
        self.records.push(record);
        self.write()
    }

    pub fn forget(&mut self, account: &Account, sha256: &str) -> Result<(), LedgerError> {
        self.drop_record(account, sha256);
        self.write()
    }

    fn drop_record(&mut self, account: &Account, sha256: &str) {
        self.records.retain(|record| record.account != *account || record.sha256 != sha256);
    }

    fn write(&self) -> Result<(), LedgerError> {
        let file = UploadsFile { schema: UPLOADS_SCHEMA.to_owned(), uploads: self.records.clone() };
        write_ledger(&self.path, &file)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    #[default]
    /// It was about to be asked for; whether the service made it is not known.
    Intent,
    /// The service said no: there is no such job.
    Refused,
    /// It exists.
    Created,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    schema: String,
    /// What the job's suffix ends in.
    pub tag: String,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// Whose it is.
    pub account: Account,
    /// How far its creation has come.
    pub state: RunState,
    /// When it was last about to be asked for (RFC 3339).
    pub intended_at: String,
    /// SHA-256 of the training side.
    pub train_sha256: String,
    /// SHA-256 of the validation side.
    pub val_sha256: Option<String>,
    /// The body of the creation, as it was sent.
    pub body: Value,
    /// Who chose the values of the body that are no defaults, by parameter: `flag`, `file`, `parent`. Nothing in a
    /// ledger that was written before that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origins: Option<BTreeMap<String, String>>,
    /// What was seen of its training when it was last watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    /// What the job was estimated at, in dollars, if that was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_dollars: Option<f64>,
    /// The longest sequence of its model in tokens, if that was known: what is longer is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_tokens: Option<u64>,
    /// The job.
    pub job: Option<JobId>,
    /// When the service created it (RFC 3339), as soon as that is known.
    #[serde(default)]
    pub created_at: Option<String>,
    /// The status that was seen last.
    pub status: Option<String>,
    /// The tuned model's name, as soon as it is known.
    pub model: Option<String>,
    /// The tuned model's object id, as soon as it is known.
    pub model_object: Option<String>,
    /// What the service said when it refused.
    pub refusal: Option<String>,
}

impl Run {
    /// A job that is about to be asked for.
    pub fn intent(account: &Account, identity: &Identity, attempt: u32, body: Value) -> Run {
        let origins = &identity.settled.parameters.origins;
        let origins = origins.iter().map(|(key, origin)| (key.clone(), origin.to_string()));
        Run {
            schema: RUN_SCHEMA.to_owned(),
            tag: identity.tag(attempt),
            attempt,
            account: account.clone(),
            train_sha256: identity.train_sha256.clone(),
            val_sha256: identity.val_sha256.clone(),
            body,
            origins: Some(origins.collect()),
            ..Run::default()
        }
    }

    /// The ledger of the job with this tag; nothing where there is none, or one of another account.
    pub fn read(out: &Path, account: &Account, tag: &str) -> Result<Option<Run>, LedgerError> {
        let run = Run::read_file(&run_path(out, account, tag)?)?;
        Ok(run.filter(|run| run.account == *account && run.tag == tag))
    }

    fn read_file(path: &Path) -> Result<Option<Run>, LedgerError> {
        match read_ledger::<Run>(path)? {
            Some(run) if run.schema != RUN_SCHEMA => Err(foreign(path, &run.schema)),
            run => Ok(run),
        }
    }

    /// All ledgers in `out`, the newest job at the end: by when the service created it, else by when it was
    /// asked for here. A job that was found has only the first.
    pub fn read_all(out: &Path) -> Result<Vec<Run>, LedgerError> {
        let dir = out.join(RUNS_DIR);
        let failed = |source| LedgerError::Io { verb: "read", path: dir.clone(), source };
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut runs = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                runs.extend(Run::read_file(&path)?);
            }
        }
        runs.sort_by_cached_key(|run| (run.moment(), run.tag.clone()));
        Ok(runs)
    }

    fn moment(&self) -> Option<Timestamp> {
        let read = |text: &str| text.parse().ok();
        self.created_at.as_deref().and_then(read).or_else(|| read(&self.intended_at))
    }

    /// Whether the job had ended when its status was last seen.
    pub fn ending(&self) -> Option<Ending> {
        self.status.as_deref().and_then(|status| Status::new(status).ending())
    }

    /// Writes down what `jobs` of the API at `api` say of themselves, where `out` knows them.
    pub(crate) fn note_all(out: &Path, api: &str, jobs: &[Job]) -> Result<(), LedgerError> {
        for known in Run::read_all(out)?.into_iter().filter(|run| run.account.api == api) {
            let job = jobs.iter().find(|job| known.job.as_ref() == Some(&job.id));
            let mut run = known.clone();
            job.into_iter().for_each(|job| run.note(job));
            if run != known {
                run.write(out)?;
            }
        }
        Ok(())
    }

    /// Writes down in `out` what was seen of the training of `job`, where it knows the job.
    pub(crate) fn note_seen(out: &Path, api: &str, job: &JobId, seen: &Seen) -> Result<(), LedgerError> {
        let is_of_job = |run: &Run| run.account.api == api && run.job.as_ref() == Some(job);
        for mut run in Run::read_all(out)?.into_iter().filter(is_of_job) {
            run.seen = Some(seen.clone());
            run.write(out)?;
        }
        Ok(())
    }

    /// Takes over what `job` says of itself. A job that has ended stays so: an answer that was on its way
    /// longer may be written down later.
    pub fn note(&mut self, job: &Job) {
        self.job = Some(job.id.clone());
        self.created_at = job.created_at().map(|at| at.to_string()).or(self.created_at.take());
        if self.ending().is_none() || job.status.ending().is_some() {
            self.status = Some(job.status.as_str().to_owned());
        }
        self.model = job.model_output_name().or(self.model.take());
        self.model_object = job.model_object_id().or(self.model_object.take());
    }

    pub fn write(&self, out: &Path) -> Result<(), LedgerError> {
        write_ledger(&run_path(out, &self.account, &self.tag)?, self)
    }
}

/// Where the ledger of `account` is: `<tag>.json`, unless that is of another one. The same project reached
/// by another address has the same tags, and an open intent must not be written over.
fn run_path(out: &Path, account: &Account, tag: &str) -> Result<PathBuf, LedgerError> {
    let path = out.join(RUNS_DIR).join(format!("{tag}.json"));
    match Run::read_file(&path)? {
        Some(other) if other.account != *account => {
            let digest = Sha256::digest(format!("{}\0{}", account.api, account.project));
            Ok(out.join(RUNS_DIR).join(format!("{tag}-{}.json", Hex(&digest[..4]))))
        }
        _ => Ok(path),
    }
}

fn foreign(path: &Path, schema: &str) -> LedgerError {
    LedgerError::Foreign { path: path.to_owned(), reason: format!("its schema is `{schema}`") }
}

pub(crate) fn read_ledger<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LedgerError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LedgerError::Io { verb: "read", path: path.to_owned(), source }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| LedgerError::Foreign { path: path.to_owned(), reason: error.to_string() })
}

/// Writes `value` to `path`, whole or not at all, also through a power loss.
pub(crate) fn write_ledger<T: Serialize>(path: &Path, value: &T) -> Result<(), LedgerError> {
    let attempt = || {
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        // The file is for its owner's eyes from the beginning: that is how temporary files are made.
        let mut file = tempfile::Builder::new().prefix(".ctxtune-ledger-").tempfile_in(dir)?;
        let mut json = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
        json.push(b'\n');
        file.write_all(&json)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_dir(dir)
    };
    attempt().map_err(|source| LedgerError::Io { verb: "write", path: path.to_owned(), source })
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
fn sync_dir(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::parameters::tests::{seed, settled};

    fn account(project: &str) -> Account {
        Account { api: "https://api".to_owned(), project: project.to_owned() }
    }

    fn identity() -> Identity {
        Identity {
            project: "p".to_owned(),
            train_sha256: "t".to_owned(),
            val_sha256: Some("v".to_owned()),
            settled: settled(seed()),
            wandb_run_id: None,
        }
    }

    #[test]
    fn a_ledger_is_for_its_owner_and_its_account() {
        let out = tempfile::tempdir().unwrap();
        let run = Run::intent(&account("p"), &identity(), 1, json!({}));
        run.write(out.path()).unwrap();
        assert_eq!(Run::read(out.path(), &account("p"), &run.tag).unwrap(), Some(run.clone()));
        assert_eq!(Run::read(out.path(), &account("other"), &run.tag).unwrap(), None);
        assert_eq!(Run::read(out.path(), &account("p"), "00000000").unwrap(), None);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let path = run_path(out.path(), &account("p"), &run.tag).unwrap();
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(out.path().join(RUNS_DIR)).unwrap().count(), 1, "no litter");
    }

    #[test]
    fn a_ledger_of_another_api_is_not_written_over() {
        let out = tempfile::tempdir().unwrap();
        let first = Run::intent(&account("p"), &identity(), 1, json!({}));
        first.write(out.path()).unwrap();
        let elsewhere = Account { api: "https://other".to_owned(), ..account("p") };
        let second = Run::intent(&elsewhere, &identity(), 1, json!({}));
        second.write(out.path()).unwrap();
        assert_eq!(Run::read(out.path(), &account("p"), &first.tag).unwrap(), Some(first.clone()));
        assert_eq!(Run::read(out.path(), &elsewhere, &first.tag).unwrap(), Some(second));
        assert_eq!(Run::read_all(out.path()).unwrap().len(), 2);
    }

    fn job(id: &str, status: &str, created_at: &str) -> Job {
        Job::read(&json!({ "id": id, "status": status, "created_at": created_at })).unwrap()
    }

    #[test]
    fn the_newest_job_is_the_one_that_the_service_created_last() {
        let out = tempfile::tempdir().unwrap();
        let write = |attempt: u32, intended_at: &str, created_at: Option<&str>| {
            let mut run = Run::intent(&account("p"), &identity(), attempt, json!({}));
            run.intended_at = intended_at.to_owned();
            if let Some(created_at) = created_at {
                run.note(&job(&format!("ft-{attempt}"), "pending", created_at));
            }
            run.write(out.path()).unwrap();
        };
        write(1, "2026-11-24T10:00:00Z", Some("2026-11-24T10:00:01Z"));
        // Found, not asked for here; its moment is written in another way.
        write(2, "", Some("2026-11-24T12:30:00.5+01:00"));
        write(3, "2026-11-24T10:30:00.25Z", None);
        write(4, "", None);
        // This machine's clock is a day ahead.
        write(5, "2026-11-25T09:00:00Z", Some("2026-11-24T09:00:00Z"));
        let attempts: Vec<u32> = Run::read_all(out.path()).unwrap().iter().map(|run| run.attempt).collect();
        assert_eq!(attempts, [4, 5, 1, 3, 2]);
    }

    #[test]
    fn what_the_service_says_of_a_job_is_written_down_where_the_job_is_known() {
        let out = tempfile::tempdir().unwrap();
        let mut run = Run::intent(&account("p"), &identity(), 1, json!({}));
        run.note(&job("ft-1", "pending", "2026-11-24T10:00:00Z"));
        run.write(out.path()).unwrap();
        let note = |api: &str, status: &str| {
            Run::note_all(out.path(), api, &[job("ft-0", "error", ""), job("ft-1", status, "")]).unwrap();
            Run::read_all(out.path()).unwrap().remove(0)
        };
        assert_eq!(note("https://elsewhere", "completed").status.as_deref(), Some("pending"));
        let noted = note("https://api", "completed");
        assert_eq!((noted.ending(), noted.created_at), (Some(Ending::Completed), run.created_at.clone()));
        // An older answer that comes later.
        assert_eq!(note("https://api", "running").ending(), Some(Ending::Completed));
        assert_eq!(std::fs::read_dir(out.path().join(RUNS_DIR)).unwrap().count(), 1);
        Run::note_all(&out.path().join("nowhere"), "https://api", &[]).unwrap();
    }

    #[test]
    fn a_ledger_of_before_created_at_is_read() {
        let out = tempfile::tempdir().unwrap();
        let run = Run::intent(&account("p"), &identity(), 1, json!({}));
        let mut value = serde_json::to_value(&run).unwrap();
        value.as_object_mut().unwrap().remove("created_at");
        write_ledger(&run_path(out.path(), &account("p"), &run.tag).unwrap(), &value).unwrap();
        assert_eq!(Run::read(out.path(), &account("p"), &run.tag).unwrap(), Some(run));
    }

    #[test]
    fn uploads_are_found_by_account_and_digest() {
        let out = tempfile::tempdir().unwrap();
        let mut uploads = Uploads::read(out.path()).unwrap();
        let record = UploadRecord {
            account: account("p"),
            sha256: "d".to_owned(),
            bytes: 3,
            name: "train.jsonl".to_owned(),
            file_id: "file-1".to_owned(),
            state: UploadState::Begun { upload_id: "u".to_owned() },
        };
        uploads.put(record.clone()).unwrap();
        uploads.put(UploadRecord { state: UploadState::Uploaded, ..record.clone() }).unwrap();
        let uploads = Uploads::read(out.path()).unwrap();
        assert_eq!(uploads.find(&account("p"), "d").unwrap().state, UploadState::Uploaded);
        assert_eq!(uploads.records.len(), 1, "the same bytes are known once");
        assert!(uploads.find(&account("q"), "d").is_none() && uploads.find(&account("p"), "e").is_none());
    }

    #[test]
    fn what_is_no_ledger_is_refused_by_name() {
        let out = tempfile::tempdir().unwrap();
        for text in ["{", "[]", r#"{"schema":"other/1","uploads":[]}"#] {
            std::fs::write(out.path().join(UPLOADS_FILE), text).unwrap();
            let error = Uploads::read(out.path()).unwrap_err().to_string();
            assert!(error.contains(UPLOADS_FILE) && error.contains("no ledger"), "{error}");
        }
    }
}
