//! `ctxtune upload`: a line a file, its label and its id.

use serde_json::Map;

use crate::args::UploadArgs;
use crate::screen::report::Terminal;
use crate::session::{environment, start};
use ctxtune_pipeline::failure::{Exit, Failure};
use ctxtune_pipeline::job::uploads::{Report, Uploaded, upload};
use ctxtune_pipeline::signals::Signals;
use ctxtune_pipeline::text::printable;

const COMMAND: &str = "upload";

/// Runs the command.
pub fn run(args: &UploadArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    match uploaded(args, signals, terminal) {
        Ok(report) => {
            let line =
                |Uploaded { label, file_id, .. }: &Uploaded| format!("{}\t{file_id}", printable(label));
            let lines: Vec<String> = report.uploads.iter().map(line).collect();
            terminal.report(COMMAND, Some(lines.join("\n").as_bytes()), &report)
        }
        Err(failure) => terminal.fail(COMMAND, &failure, Map::new()),
    }
}

fn uploaded(args: &UploadArgs, signals: &Signals, terminal: &Terminal) -> Result<Report, Failure> {
    upload(&start(&args.remote, environment::read(None, terminal)?, signals, terminal)?, &args.paths)
}
