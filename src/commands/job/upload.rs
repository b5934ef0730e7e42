//! `ctxtune upload`: a line a file, its label and its id.

use crate::args::UploadArgs;
use crate::screen::report::Terminal;
use crate::session::{environment, start};
use ctxtune_pipeline::job::uploads::{Uploaded, upload};
use ctxtune_pipeline::text::printable;
use ctxtune_pipeline::{Exit, Failure};

pub fn run(args: &UploadArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let session = start(&args.remote, environment::read(None, terminal)?, terminal)?;
    let report = upload(&session, &args.paths)?;
    let line = |Uploaded { label, file_id, .. }: &Uploaded| format!("{}\t{file_id}", printable(label));
    let lines: Vec<String> = report.uploads.iter().map(line).collect();
    Ok(terminal.report(Some(lines.join("\n").as_bytes()), &report))
}
