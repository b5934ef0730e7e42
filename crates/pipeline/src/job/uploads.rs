//! Both sides of a prepared directory, or loose files, uploaded once each, with progress.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::failure::Failure;
use crate::job::data::verify;
use crate::job::ledger::{Account, Uploads};
use crate::job::upload::{SideFile, Step, Uploader, loose_file, sides};
use crate::session::Session;
use crate::text::sized;
use crate::ui::{Progress, Ui};
use ctxtune_engine::output::lock::OutputLock;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_service::together::FileId;
use ctxtune_service::together::file::Processing;

/// After so long a status is said that anybody would expect.
const LONG_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Uploaded {
    /// `train`, `val`, or the name of a loose file.
    pub label: String,
    /// What it is called there.
    pub name: String,
    /// Its id there.
    pub file_id: FileId,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The address of the service.
    pub api: String,
    /// The project whose files these are.
    pub project: String,
    /// The files, in the order in which they were named.
    pub uploads: Vec<Uploaded>,
}

/// Checks `paths`, prepared directories and JSONL files, and uploads what is not there yet.
pub fn upload(session: &Session, paths: &[PathBuf]) -> Result<Report, Failure> {
    verify(paths, None, None, session)?;
    let account = session.account()?;
    let mut uploads = Vec::new();
    for path in paths {
        if path.is_dir() {
            let _lock = OutputLock::acquire(path)?;
            let manifest = Manifest::read(path)?;
            uploads.extend(upload_sides(session, &account, path, &manifest)?);
        } else {
            let side = loose_file(path, session.clock.as_ref()).map_err(|error| session.explain(error))?;
            uploads.push(upload_side(session, &account, side, None)?);
        }
    }
    Ok(Report { api: account.api, project: account.project, uploads })
}

/// Uploads both sides of the prepared directory `out`; its lock is the caller's.
pub(crate) fn upload_sides(
    session: &Session,
    account: &Account,
    out: &Path,
    manifest: &Manifest,
) -> Result<Vec<Uploaded>, Failure> {
    let mut ledger = Uploads::read(out)?;
    let sides = sides(out, manifest).into_iter();
    sides.map(|side| upload_side(session, account, side, Some(&mut ledger))).collect()
}

fn upload_side(
    session: &Session,
    account: &Account,
    side: SideFile,
    ledger: Option<&mut Uploads>,
) -> Result<Uploaded, Failure> {
    let shown = Shown {
        progress: session.ui.progress(&side.name, side.bytes()),
        name: &side.name,
        ui: &*session.ui,
        was_there: AtomicBool::new(false),
        said: Mutex::default(),
    };
    let uploader = Uploader {
        together: &session.together,
        account,
        multipart_threshold: session.multipart_threshold(),
        tell: &|step| shown.show(step),
    };
    let file_id = uploader.upload(&side, ledger).map_err(|error| session.explain(error));
    let was_there = shown.was_there.load(Ordering::Relaxed);
    drop(shown);
    let file_id = file_id?;
    let how = if was_there { "is already there" } else { "uploaded" };
    session.ui.done(&format!("{} {how}: {file_id} ({})", side.name, sized(side.bytes())));
    let bytes = side.bytes();
    Ok(Uploaded { label: side.label, name: side.name, file_id, bytes, sha256: side.sha256 })
}

struct Shown<'t> {
    progress: Box<dyn Progress>,
    name: &'t str,
    ui: &'t dyn Ui,
    was_there: AtomicBool,
    said: Mutex<String>,
}

impl Shown<'_> {
    fn show(&self, step: Step<'_>) {
        match step {
            Step::Begun => self.progress.at(0),
            Step::Sent(bytes) => self.progress.at(bytes),
            Step::AlreadyThere => self.was_there.store(true, Ordering::Relaxed),
            Step::Waiting { status, waited } => self.show_status(status, waited),
            Step::Again { reason, after, left } => self.progress.warn(&format!(
                "uploading {} failed: {reason}; again in {:.0} s ({left} left)",
                self.name,
                after.as_secs_f64()
            )),
        }
    }

    /// Where nothing is drawn a status is said if it is new here, or if it takes long: once.
    fn show_status(&self, status: &str, waited: Duration) {
        let is_known = Processing::is_known(status);
        let unknown = if is_known { "" } else { " (a status that is new here)" };
        let text = format!("the service is checking it: {status}{unknown}");
        self.progress.waiting(&text);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.progress.is_drawn() && *said != status && (!is_known || waited >= LONG_WAIT) {
            status.clone_into(&mut said);
            self.ui.say(&format!("{}: {text}", self.name));
        }
    }
}
