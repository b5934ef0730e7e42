//! `ctxtune init`: a configuration file with every key, to begin with.

use std::fs::OpenOptions;
use std::io::{self, Write};

use crate::args::InitArgs;
use crate::screen::report::Terminal;
use ctxtune_pipeline::config::keys;
use ctxtune_pipeline::config::template::template;
use ctxtune_pipeline::{Exit, Failure, shell};
use serde::Serialize;

#[derive(Serialize)]
struct Report {
    /// The file.
    path: String,
    /// The keys in it.
    keys: Vec<String>,
}

pub fn run(args: &InitArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    if let Err(error) = write(args) {
        let path = args.output.display();
        let failure = match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let hint = "name another file with -o, or move this one away";
                Failure::failed("foreign_file", format!("`{path}` exists, and is not overwritten"), hint)
            }
            _ => {
                let hint = "check the directory, its permissions and its free space";
                Failure::failed("write", format!("cannot write `{path}`: {error}"), hint)
            }
        };
        return Err(failure);
    }
    let next = format!("ctxtune prepare SOURCE --config-path={}", shell::path(&args.output));
    terminal.label("next", &format!("set what you need in it, then {next}"));
    let report = Report { path: args.output.to_string_lossy().into_owned(), keys: keys() };
    Ok(terminal.report(Some(args.output.as_os_str().as_encoded_bytes()), &report))
}

fn write(args: &InitArgs) -> io::Result<()> {
    // A file that was not written whole is removed: it is this run's own.
    let mut file = OpenOptions::new().write(true).create_new(true).open(&args.output)?;
    file.write_all(template().as_bytes()).inspect_err(|_| {
        let _ = std::fs::remove_file(&args.output);
    })
}
