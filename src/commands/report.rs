//! `ctxtune report`: a page about output directories; and the pages that other commands write at their end.

use std::io::{self, Read, Write};
use std::path::Path;

use crate::args::ReportArgs;
use crate::commands::job::using::Use;
use crate::screen::checked::Bar;
use crate::screen::html::{MARK, Page, page};
use crate::screen::report::Terminal;
use crate::session;
use crate::session::clock::SystemClock;
use crate::session::environment;
use ctxtune_pipeline::report::job::Using;
use ctxtune_pipeline::report::{OutReport, gather, without_path};
use ctxtune_pipeline::text::{printable, sized};
use ctxtune_pipeline::{Environment, Exit, Failure, Session, env};
use ctxtune_service::Clock;
use ctxtune_service::together::{Ending, JobId};
use serde::Serialize;

/// The page that `finetune` and `sweep run` write into the output directory.
const BESIDE: &str = "report.html";

#[derive(Serialize)]
struct Report<'r> {
    /// The page.
    file: String,
    /// Its size in bytes.
    bytes: usize,
    /// The directories that it is about.
    outs: Vec<ReportedOut<'r>>,
}

#[derive(Serialize)]
struct ReportedOut<'r> {
    /// Its own name.
    name: &'r str,
    /// Samples of both splits.
    samples: u64,
    /// Its jobs, the newest first.
    jobs: Vec<&'r JobId>,
    /// The ids of its sweeps.
    sweeps: Vec<&'r str>,
    /// What is not on the page although it should be, and why.
    troubles: &'r [String],
}

pub fn run(args: &ReportArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let (outs, bytes) = write_report(args, terminal)?;
    let report = Report {
        file: args.output.to_string_lossy().into_owned(),
        bytes,
        outs: outs.iter().map(ReportedOut::of).collect(),
    };
    let line = args.output.as_os_str().as_encoded_bytes();
    terminal.label("report", &format!("{}, {}", args.output.display(), sized(bytes as u64)));
    Ok(terminal.report(Some(line), &report))
}

impl ReportedOut<'_> {
    fn of(out: &OutReport) -> ReportedOut<'_> {
        ReportedOut {
            name: &out.name,
            samples: out.data.lengths.samples,
            jobs: out.jobs.iter().map(|job| &job.id).collect(),
            sweeps: out.sweeps.iter().map(|sweep| sweep.id.as_str()).collect(),
            troubles: &out.troubles,
        }
    }
}

fn write_report(args: &ReportArgs, terminal: &Terminal) -> Result<(Vec<OutReport>, usize), Failure> {
    // Before anything that takes long.
    check_is_ours(&args.output).map_err(|error| unwritten(&args.output, &error))?;
    // What stays on this machine needs no `.env`, and is stopped by none.
    let session = match args.offline {
        true => None,
        false => {
            let environment = environment::read(None, terminal)?;
            let has_key = environment.get(env::TOGETHER_API_KEY).is_some();
            let session = session::start(&args.remote, environment, terminal)?;
            has_key.then_some(session)
        }
    };
    let mut outs = Vec::new();
    for out in &args.outs {
        let tokenizer = (None, &environment::of_cache());
        outs.push(gathered(out, session.as_ref(), tokenizer, terminal)?);
    }
    for trouble in outs.iter().flat_map(|out| &out.troubles) {
        terminal.warn(&printable(trouble));
    }
    let names: Vec<&str> = outs.iter().map(|out| out.name.as_str()).collect();
    let html = html(&names.join(", "), &outs, &SystemClock::new(terminal.signals.clone(), 1.0), terminal);
    write(&args.output, &html).map_err(|error| unwritten(&args.output, &error))?;
    Ok((outs, html.len()))
}

fn html(title: &str, outs: &[OutReport], clock: &dyn Clock, terminal: &Terminal) -> String {
    let written = clock.now().strftime("%F %TZ").to_string();
    page(&Page {
        title: &format!("Report of {title}"),
        written: &written,
        banner: terminal.banner(),
        outs,
        score: None,
    })
}

fn gathered(
    out: &Path,
    session: Option<&Session>,
    tokenizer: (Option<&str>, &Environment),
    terminal: &Terminal,
) -> Result<OutReport, Failure> {
    let mut report = gather(out, session, tokenizer, (&terminal.signals, &Bar::new(terminal)))?;
    // The model of a rehearsal never was.
    for job in report.jobs.iter_mut().filter(|_| terminal.banner().is_none()) {
        if job.job.status.ending() == Some(Ending::Completed) {
            let Use { note, commands, python } = Use::of(session, &job.job, Some(out));
            let own = |text: String| without_path(&text, out);
            job.using = Some(Using {
                note: own(note),
                commands: commands.into_iter().map(own).collect(),
                python: python.map(own),
            });
        }
    }
    Ok(report)
}

/// Writes OUT/report.html from what is on disk; trouble with it is one warning.
pub fn write_beside(session: &Session, out: &Path, terminal: &Terminal) {
    let path = out.join(BESIDE);
    let written = check_is_ours(&path).map_err(|error| error.to_string()).and_then(|()| {
        let tokenizer = (session.tokenizer.as_deref(), &session.environment);
        let report = gathered(out, None, tokenizer, terminal);
        let report = report.map_err(|failure| failure.message)?;
        let html = html(&report.name, std::slice::from_ref(&report), &*session.clock, terminal);
        write(&path, &html).map_err(|error| error.to_string())
    });
    match written {
        Ok(()) => terminal.label("report", &path.display().to_string()),
        Err(error) => terminal.warn(&printable(&format!("cannot write `{}`: {error}", path.display()))),
    }
}

/// Writes `html` to `path` whole, in place of what is there if that is a report. Fails when it is something
/// else, or cannot be written.
pub fn write(path: &Path, html: &str) -> io::Result<()> {
    check_is_ours(path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // To be shown to others, unlike what temporary files are made for.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.prefix(".ctxtune-report-").tempfile_in(dir)?;
    file.write_all(html.as_bytes())?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Whether a page may be written to `path`: nothing is there, or a report. Fails when something else is there.
pub fn check_is_ours(path: &Path) -> io::Result<()> {
    let mut begins = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => file.take(MARK.len() as u64).read_to_end(&mut begins)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match begins == MARK.as_bytes() {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "what is there is no report of ctxtune, and stays",
        )),
    }
}

pub fn unwritten(path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot write `{}`: {error}", path.display());
    let exit = if error.kind() == io::ErrorKind::AlreadyExists { Exit::Usage } else { Exit::Failed };
    Failure::new(exit, "write", message, "name another file in a directory that is writable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_replaces_a_report_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.html");
        write(&path, &format!("{MARK}1")).unwrap();
        write(&path, &format!("{MARK}2")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{MARK}2"));
        std::fs::write(&path, "<!doctype html>\nmine").unwrap();
        let error = write(&path, MARK).unwrap_err();
        assert_eq!(unwritten(&path, &error).exit, Exit::Usage);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "<!doctype html>\nmine");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
        assert!(write(&dir.path().join("no/report.html"), MARK).is_err());
    }
}
