//! `ctxtune files`: the files of the project, newest first, and their deletion.
//!
//! The ledgers of output directories stay as they are: a file that is gone is uploaded again when it is needed.

use std::cmp::Reverse;

use crate::args::{FilesArgs, FilesCommand};
use crate::screen::report::{Terminal, fields};
use crate::screen::table::{Align, Cell, Table, moment};
use crate::session;
use ctxtune_pipeline::session::consent::ASK_AGAIN;
use ctxtune_pipeline::text::{counted, one_line, sized};
use ctxtune_pipeline::{Exit, Failure, Session, Ui};
use ctxtune_service::Stopped;
use ctxtune_service::together::file::{FileObject, Processing};
use ctxtune_service::together::{FileId, files};
use serde::Serialize;

const COLUMNS: [(&str, Align); 6] = [
    ("file", Align::Left),
    ("size", Align::Right),
    ("created (UTC)", Align::Left),
    ("purpose", Align::Left),
    ("processing", Align::Left),
    ("name", Align::Left),
];

pub fn run(args: &FilesArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    match &args.command {
        None | Some(FilesCommand::List) => list(args, terminal),
        Some(FilesCommand::Delete { ids, yes }) => {
            let asks = !yes;
            delete(args, (ids, asks), terminal)
        }
    }
}

fn list(args: &FilesArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let session = session::open(&args.remote, terminal)?;
    let mut listed = files::list(&session.together).map_err(|error| session.explain(error))?;
    listed.sort_by_key(|file| Reverse(file.created_at));
    if listed.is_empty() {
        terminal.say("no files");
    }
    let table = Table::new(&COLUMNS, listed.iter().map(row).collect()).for_stdout();
    let report = Listing { files: listed.iter().map(Listed::of).collect() };
    Ok(terminal.report(table.as_deref().map(str::as_bytes), &report))
}

/// How far the service is with a file, in a word, and its reason where it has one.
fn processing(file: &FileObject) -> (String, Option<&str>) {
    match &file.processing {
        Processing::Waiting(status) => (status.to_lowercase(), None),
        Processing::Completed => ("completed".to_owned(), None),
        Processing::Invalid(reason) => ("invalid".to_owned(), Some(reason)),
        Processing::Failed(reason) => ("failed".to_owned(), Some(reason)),
        Processing::Untold => (String::new(), None),
    }
}

fn row(file: &FileObject) -> Vec<Cell> {
    vec![
        Cell::new(file.id.as_str()),
        file.bytes.map_or_else(|| Cell::new(""), |bytes| Cell::of(&bytes.to_string(), &sized(bytes))),
        moment(file.created_at),
        Cell::new(&file.purpose),
        Cell::new(&processing(file).0),
        Cell::new(&file.filename),
    ]
}

#[derive(Serialize)]
struct Listing<'f> {
    /// The files of the project, the newest first.
    files: Vec<Listed<'f>>,
}

#[derive(Serialize)]
struct Listed<'f> {
    /// Its id.
    file_id: &'f FileId,
    /// Its name.
    name: &'f str,
    /// Its length in bytes; `null` where the service does not say.
    bytes: Option<u64>,
    /// When it was uploaded, as RFC 3339.
    created_at: Option<String>,
    /// What it is for, as the service calls it.
    purpose: &'f str,
    /// How far the service has processed it: `completed`, `invalid`, `failed` or a status of the service.
    processing: Option<String>,
    /// Why it is invalid or failed; `null` where it is not.
    reason: Option<&'f str>,
}

impl Listed<'_> {
    fn of(file: &FileObject) -> Listed<'_> {
        let (processing, reason) = processing(file);
        Listed {
            file_id: &file.id,
            name: &file.filename,
            bytes: file.bytes,
            created_at: file.created_at.map(|at| at.to_string()),
            purpose: &file.purpose,
            processing: Some(processing).filter(|words| !words.is_empty()),
            reason,
        }
    }
}

#[derive(Default, Serialize)]
struct Deletion {
    /// The ids of the files that are gone.
    deleted: Vec<FileId>,
    /// The files that were not deleted.
    failed: Vec<Undeleted>,
}

#[derive(Serialize)]
struct Undeleted {
    /// Its id.
    file_id: FileId,
    /// The code of the failure.
    code: &'static str,
    /// What failed.
    message: String,
    #[serde(skip)]
    failure: Failure,
}

impl Deletion {
    fn failed(&mut self, file_id: FileId, failure: Failure) {
        let (code, message) = (failure.code, failure.message.clone());
        self.failed.push(Undeleted { file_id, code, message, failure });
    }
}

fn delete(args: &FilesArgs, (ids, asks): (&[String], bool), terminal: &Terminal) -> Result<Exit, Failure> {
    let deletion = try_delete(args, (ids, asks), terminal)?;
    let lines: Vec<&str> = deletion.deleted.iter().map(FileId::as_str).collect();
    let text = lines.join("\n");
    let failures = deletion.failed.iter().map(|undeleted| &undeleted.failure);
    let Some(worst) = failures.max_by_key(|failure| badness(failure)) else {
        return Ok(terminal.report(Some(text.as_bytes()), &deletion));
    };
    if !terminal.flags().json && !text.is_empty() {
        terminal.deliver(format!("{text}\n").as_bytes());
    }
    let message = match deletion.failed.as_slice() {
        [_] => worst.message.clone(),
        all => {
            format!("{} were not deleted; the worst: {}", counted(all.len() as u64, "file"), worst.message)
        }
    };
    Ok(terminal.fail(&Failure { message, ..worst.clone() }, fields(&deletion)))
}

/// How much a failure says about the others that may follow.
fn badness(failure: &Failure) -> u8 {
    match failure.exit {
        Exit::Interrupted | Exit::Terminated => 4,
        Exit::Key => 3,
        Exit::Network => 2,
        Exit::Failed => 1,
        _ => 0,
    }
}

fn try_delete(
    args: &FilesArgs,
    (ids, asks): (&[String], bool),
    terminal: &Terminal,
) -> Result<Deletion, Failure> {
    let ids = ids.iter().map(|text| id(text)).collect::<Result<Vec<FileId>, Failure>>()?;
    if asks && !terminal.has_person() {
        let message = "this is not a terminal to ask at whether files are to be deleted";
        return Err(Failure::unspent("no_consent", message, "agree with --yes"));
    }
    let session = session::open(&args.remote, terminal)?;
    let mut deletion = Deletion::default();
    let found = find(&session, ids, &mut deletion, terminal)?;
    if found.is_empty() {
        return Ok(deletion);
    }
    if asks {
        let question = format!("Delete {}?", counted(found.len() as u64, "file"));
        session.confirm(&question, "nothing was deleted", ASK_AGAIN).map_err(|failure| {
            match failure.code {
                "declined" => failure,
                _ => Failure { hint: Some("nothing was deleted".to_owned()), ..failure },
            }
        })?;
    }
    for id in found {
        if terminal.signals.is_stopped() {
            deletion.failed(id, session.explain(Stopped));
            continue;
        }
        match files::delete(&session.together, &id) {
            Ok(()) => {
                terminal.say(&format!("{id} deleted"));
                deletion.deleted.push(id);
            }
            Err(error) => deletion.failed(id, session.explain(error)),
        }
    }
    Ok(deletion)
}

fn id(text: &str) -> Result<FileId, Failure> {
    FileId::new(text).ok_or_else(|| {
        let message = format!("`{text}` is no file's id; nothing was deleted");
        Failure::usage("no_file", message, "`ctxtune files` lists the files with their ids")
    })
}

/// Shows what is to be deleted; what is not there has failed before anybody is asked.
fn find(
    session: &Session,
    ids: Vec<FileId>,
    deletion: &mut Deletion,
    terminal: &Terminal,
) -> Result<Vec<FileId>, Failure> {
    let mut found = Vec::new();
    for id in ids {
        if found.contains(&id) {
            continue;
        }
        match files::retrieve(&session.together, &id) {
            Ok(file) => {
                let size = file.bytes.map(|bytes| format!(" ({})", sized(bytes))).unwrap_or_default();
                terminal.label("file", &format!("{id}  {}{size}", one_line(&file.filename)));
                found.push(id);
            }
            Err(error) if error.status() == Some(404) => {
                terminal.warn(&format!("{id} is not there"));
                deletion.failed(id, session.explain(error));
            }
            Err(error) => return Err(session.explain(error)),
        }
    }
    Ok(found)
}
