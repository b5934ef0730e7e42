//! `ctxtune rehearse`: serves the API on this machine, so that any client can be tried against it.
//!
//! Separate from the server, which prints nothing. What it says on stderr makes plain that
//! nothing is trained; the base URL is the one line on stdout.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;

use crate::cli::Signals;
use crate::cli::args::RehearseArgs;
use crate::cli::clock::SystemClock;
use crate::cli::exit::{Exit, Failure};
use crate::cli::report::{Terminal, counted, printable};
use crate::clock::Clock;
use crate::rehearsal::faults::{self, Faults};
use crate::rehearsal::{Script, Server};

const COMMAND: &str = "rehearse";

/// Longer than anybody rehearses.
const LONG: Duration = Duration::from_secs(86_400);

/// Runs the command.
pub fn run(args: &RehearseArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    match serve(args, signals, terminal) {
        Ok(exit) => exit,
        Err(failure) => terminal.fail(COMMAND, &failure, Map::new()),
    }
}

fn serve(args: &RehearseArgs, signals: &Signals, terminal: &Terminal) -> Result<Exit, Failure> {
    let faults = args.faults.as_deref().map(read_faults).transpose()?.unwrap_or_default();
    let script = Script { key: args.key.clone(), job_seconds: args.job_seconds, faults, ..Script::default() };
    let clock = Arc::new(SystemClock::new(signals.clone(), 1.0));
    let server =
        Server::start_on(args.port, script, Arc::clone(&clock) as Arc<dyn Clock>).map_err(|error| {
            let message = format!("cannot serve on 127.0.0.1:{}: {error}", args.port);
            Failure::new(Exit::Failed, "serve", message, "choose another --port, or 0 for a free one")
        })?;
    let rules = match &args.faults {
        Some(path) => format!("; faults from {}", path.display()),
        None => String::new(),
    };
    terminal.say(&printable(&format!(
        "this is a rehearsal: nothing leaves the machine, nothing is trained, nothing is paid for{rules}"
    )));
    terminal.say(&printable(&format!(
        "clients need TOGETHER_BASE_URL={} TOGETHER_API_KEY={}",
        server.url(),
        args.key
    )));
    announce(server.url()).map_err(|error| Failure {
        exit: Exit::Failed,
        code: "write",
        message: format!("cannot write to standard output: {error}"),
        hint: None,
    })?;
    while clock.wait(LONG).is_ok() {}
    let violations = server.violations();
    for violation in &violations {
        terminal.warn(&printable(&format!("violation: {violation}")));
    }
    let (requests, jobs) = (server.seen().len() as u64, server.jobs_created() as u64);
    let violations = counted(violations.len() as u64, "violation");
    terminal.say(&format!("{}, {}, {violations}", counted(requests, "request"), counted(jobs, "job")));
    Ok(signals.exit())
}

/// The one line on stdout; whoever started the server waits for it.
fn announce(url: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{url}")?;
    out.flush()
}

fn read_faults(path: &Path) -> Result<Faults, Failure> {
    let hint = "`fixtures/faults.yaml` shows every fault there is";
    let refused = |code: &'static str, error: String| {
        let message = format!("cannot use the faults in `{}`: {error}", path.display());
        Failure::new(Exit::Usage, code, message, hint)
    };
    let text = std::fs::read_to_string(path).map_err(|error| refused("read", error.to_string()))?;
    faults::parse(&text).map_err(|error| refused("faults", error.to_string()))
}
