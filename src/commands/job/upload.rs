//! `ctxtune upload`: checks, brings each side to the service once, and prints the file ids.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::args::UploadArgs;
use crate::commands::data::check::verify;
use crate::exit::{Exit, Failure};
use crate::screen::report::{Terminal, printable, sized};
use crate::session::environment::Environment;
use crate::session::service::Service;
use crate::signals::Signals;
use ctxtune_engine::output::lock::OutputLock;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_pipeline::job::ledger::{Account, Uploads};
use ctxtune_pipeline::job::upload::{SideFile, Step, Uploader, loose_file, sides};
use ctxtune_service::together::file::{FileId, Processing};

const COMMAND: &str = "upload";

/// After so long a status is said that anybody would expect.
const LONG_WAIT: Duration = Duration::from_secs(30);

/// A file that is at the service.
pub struct Uploaded {
    /// What was uploaded.
    pub side: SideFile,
    /// Its id there.
    pub file_id: FileId,
}

/// Runs the command.
pub fn run(args: &UploadArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    match upload(args, signals, terminal) {
        Ok((uploaded, account)) => {
            let lines: Vec<String> = uploaded
                .iter()
                .map(|Uploaded { side, file_id }| format!("{}\t{file_id}", printable(&side.label)))
                .collect();
            terminal.succeed(COMMAND, Some(lines.join("\n").as_bytes()), document(&uploaded, &account))
        }
        Err(failure) => terminal.fail(COMMAND, &failure, Map::new()),
    }
}

fn upload(
    args: &UploadArgs,
    signals: &Signals,
    terminal: &Terminal,
) -> Result<(Vec<Uploaded>, Account), Failure> {
    let environment = Environment::read(None, terminal)?;
    let service = Service::new(&args.remote, environment, signals, terminal)?;
    verify(&args.paths, None, signals, terminal)?;
    let account = service.account()?;
    let mut uploaded = Vec::new();
    for path in &args.paths {
        if path.is_dir() {
            let _lock = OutputLock::acquire(path)?;
            let manifest = Manifest::read(path)?;
            uploaded.extend(upload_sides(&service, &account, (path, &manifest), terminal)?);
        } else {
            let side = loose_file(path, service.clock.as_ref()).map_err(|error| service.explain(error))?;
            let file_id = upload_side(&service, &account, &side, None, terminal)?;
            uploaded.push(Uploaded { side, file_id });
        }
    }
    Ok((uploaded, account))
}

/// Brings both sides of the prepared directory `out` to the service; its lock is the caller's.
///
/// # Errors
/// When one of them cannot be brought there, or is found unfit.
pub fn upload_sides(
    service: &Service,
    account: &Account,
    (out, manifest): (&Path, &Manifest),
    terminal: &Terminal,
) -> Result<Vec<Uploaded>, Failure> {
    let mut ledger = Uploads::read(out)?;
    let mut uploaded = Vec::new();
    for side in sides(out, manifest) {
        let file_id = upload_side(service, account, &side, Some(&mut ledger), terminal)?;
        uploaded.push(Uploaded { side, file_id });
    }
    Ok(uploaded)
}

fn upload_side(
    service: &Service,
    account: &Account,
    side: &SideFile,
    ledger: Option<&mut Uploads>,
    terminal: &Terminal,
) -> Result<FileId, Failure> {
    let bar = Bar::new(side, terminal);
    let uploader = Uploader {
        together: &service.together,
        account,
        multipart_threshold: service.multipart_threshold(),
        tell: &|step| bar.show(step),
    };
    let file_id = uploader.upload(side, ledger);
    bar.drawn.finish_and_clear();
    let file_id = file_id.map_err(|error| service.explain(error))?;
    let how = if bar.was_there.load(Ordering::Relaxed) { "is already there" } else { "uploaded" };
    terminal.done(&format!("{} {how}: {file_id} ({})", side.name, sized(side.bytes())));
    Ok(file_id)
}

/// Draws how an upload goes on.
struct Bar<'t> {
    drawn: ProgressBar,
    name: &'t str,
    terminal: &'t Terminal,
    was_there: AtomicBool,
    /// The status that was said last.
    said: Mutex<String>,
}

impl<'t> Bar<'t> {
    fn new(side: &'t SideFile, terminal: &'t Terminal) -> Self {
        let drawn = if terminal.may_draw() { ProgressBar::new(side.bytes()) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template(
            "{prefix} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left {msg}",
        );
        drawn.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        drawn.set_prefix(side.name.clone());
        Bar { drawn, name: &side.name, terminal, was_there: AtomicBool::new(false), said: Mutex::default() }
    }

    fn show(&self, step: Step<'_>) {
        match step {
            Step::Begun => {
                self.drawn.reset();
                self.drawn.set_position(0);
            }
            Step::Sent(bytes) => self.drawn.set_position(bytes),
            Step::AlreadyThere(_) => self.was_there.store(true, Ordering::Relaxed),
            Step::Waiting { status, waited } => self.show_status(status, waited),
            Step::Again { reason, after, left } => self.drawn.suspend(|| {
                self.terminal.warn(&printable(&format!(
                    "uploading {} failed: {reason}; again in {:.0} s ({left} left)",
                    self.name,
                    after.as_secs_f64()
                )));
            }),
        }
    }

    /// Without a bar a status is said where it is new here, or where it takes long: once.
    fn show_status(&self, status: &str, waited: Duration) {
        let is_known = Processing::is_known(status);
        let unknown = if is_known { "" } else { " (a status that is new here)" };
        let text = printable(&format!("the service is looking at it: {status}{unknown}"));
        self.drawn.set_message(text.clone());
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if self.drawn.is_hidden() && *said != status && (!is_known || waited >= LONG_WAIT) {
            status.clone_into(&mut said);
            self.terminal.say(&format!("{}: {text}", self.name));
        }
    }
}

fn document(uploaded: &[Uploaded], account: &Account) -> Map<String, Value> {
    let file = |Uploaded { side, file_id }: &Uploaded| {
        json!({
            "label": side.label, "name": side.name, "file_id": file_id.as_str(), "bytes": side.bytes(),
            "sha256": side.sha256,
        })
    };
    let mut fields = Map::new();
    fields.insert("api".to_owned(), account.api.clone().into());
    fields.insert("project".to_owned(), account.project.clone().into());
    fields.insert("uploads".to_owned(), uploaded.iter().map(file).collect());
    fields
}
