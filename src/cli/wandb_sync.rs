//! `ctxtune wandb-sync`: sends what is kept of runs on this machine, without the training service.
//!
//! It looks at every run first, and opens only those that are behind: to open a run is to take it
//! from a monitor that may still log it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, json};

use crate::cli::Signals;
use crate::cli::args::{WandbArgs, WandbSyncArgs};
use crate::cli::clock::SystemClock;
use crate::cli::environment::Environment;
use crate::cli::exit::{Exit, Failure};
use crate::cli::report::{Terminal, counted, printable};
use crate::cli::wandb::{Chosen, Way, resolve};
use crate::cli::wandb_run::{WANDB_DIR, connect, owner};
use crate::clock::Clock;
use crate::env;
use crate::http;
use crate::wandb::history::{Spool, State, known};
use crate::wandb::session::{Goal, Pushed, Session};
use crate::wandb::{Error, Settings};

const COMMAND: &str = "wandb-sync";

/// What a request may take.
const CALL: Duration = Duration::from_secs(60);

/// How often a request is tried, and the wait after the first failure, which doubles.
const TRIES: u32 = 5;
const BACKOFF: Duration = Duration::from_secs(2);

/// The longest wait that a server may ask for.
const LONGEST_HINT: Duration = Duration::from_secs(120);

/// A run that was behind.
struct Synced {
    run: String,
    page: String,
    rows: usize,
}

/// Runs the command.
pub fn run(args: &WandbSyncArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    let mut synced = Vec::new();
    let result = sync_all(args, signals, (&mut synced, terminal));
    let line = |synced: &Synced| printable(&format!("{}\t{}\t{}", synced.run, synced.rows, synced.page));
    let text: Vec<String> = synced.iter().map(line).collect();
    let runs =
        synced.iter().map(|synced| json!({ "run": synced.run, "rows": synced.rows, "page": synced.page }));
    let mut fields = Map::new();
    fields.insert("runs".to_owned(), runs.collect());
    match result {
        Ok(()) => {
            if synced.is_empty() {
                terminal.say("W&B: nothing is behind");
            }
            let text = text.join("\n");
            terminal.succeed(COMMAND, (!text.is_empty()).then_some(text.as_bytes()), fields)
        }
        Err(failure) => terminal.fail(COMMAND, &failure, fields),
    }
}

fn sync_all(
    args: &WandbSyncArgs,
    signals: &Signals,
    (synced, terminal): (&mut Vec<Synced>, &Terminal),
) -> Result<(), Failure> {
    let environment = Environment::read(None, terminal)?;
    let dir = dir(args, &environment)?;
    let states = known(&dir).map_err(|error| {
        let message = format!("cannot read `{}`: {error}", dir.display());
        Failure::new(Exit::Failed, "read", message, "check the directory's permissions")
    })?;
    let is_behind =
        |state: &State| !state.plan.is_elsewhere && Spool::look(Some(dir.clone()), state.clone()).owes();
    let behind: Vec<State> = states.into_iter().filter(is_behind).collect();
    if behind.is_empty() {
        return Ok(());
    }
    let chosen = resolve(&WandbArgs::default(), None, &environment, terminal)?;
    let settings = settings(chosen)?;
    let scale = environment.number(env::CTXTUNE_TIME_SCALE).unwrap_or(1.0);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(signals.clone(), scale));
    for state in behind {
        let wandb = connect(settings.clone(), CALL, &environment, Arc::clone(&clock))?;
        let spool = Spool::open(Some(dir.clone()), state.plan, &owner(&*clock));
        let spool = spool.map_err(|error| failure(&Error::Disk(error), signals))?;
        let (rows, run) = (spool.unsent_rows().len(), spool.state.plan.run.clone());
        let spool = Arc::new(Mutex::new(spool));
        let session = Session::new(Goal::Online(Box::new(wandb)), spool, Arc::clone(&clock));
        let done = send(session, &*clock).map_err(|error| failure(&error, signals))?;
        let page = done.page().unwrap_or_default().to_owned();
        terminal.say(&printable(&format!("W&B: {page}: {}", counted(rows as u64, "row"))));
        synced.push(Synced { run, page, rows });
    }
    Ok(())
}

fn dir(args: &WandbSyncArgs, environment: &Environment) -> Result<PathBuf, Failure> {
    if let Some(out) = &args.output_dir {
        return Ok(out.join(WANDB_DIR));
    }
    let journal = environment.journal();
    journal.as_deref().and_then(|path| path.parent()).map(|dir| dir.join(WANDB_DIR)).ok_or_else(|| {
        Failure::new(Exit::Usage, "no_directory", "there is no state directory", "name the output directory")
    })
}

fn settings(chosen: Chosen) -> Result<Settings, Failure> {
    match chosen.way {
        Way::Online { settings, .. } | Way::Together { settings } => Ok(settings),
        Way::Offline { .. } | Way::Off(_) => {
            let message = format!("there is no key of W&B, or {} forbids it", env::WANDB_MODE);
            let hint = format!("export {}, or run `wandb login`", env::WANDB_API_KEY);
            Err(Failure::new(Exit::Key, "wandb_key", message, hint))
        }
    }
}

/// Sends until nothing is behind.
fn send(mut session: Session, clock: &dyn Clock) -> Result<Session, Error> {
    let mut failures = 0;
    loop {
        match session.push() {
            Ok(Pushed::Sent { has_more: true, .. }) => failures = 0,
            Ok(Pushed::Sent { has_more: false, .. } | Pushed::Nothing | Pushed::TakenOver) => {
                return Ok(session);
            }
            Err(error) => {
                failures += 1;
                if error.is_permanent() || failures == TRIES {
                    return Err(error);
                }
                let wait = error.retry_after().map(|hint| hint.min(LONGEST_HINT));
                if clock.wait(wait.unwrap_or(BACKOFF * (1 << (failures - 1)))).is_err() {
                    return Err(Error::Http(http::Error::Stopped));
                }
            }
        }
    }
}

fn failure(error: &Error, signals: &Signals) -> Failure {
    let again = "run it again: nothing is logged twice";
    match error {
        Error::Http(http::Error::Stopped) => {
            Failure::new(signals.exit(), "interrupted", "interrupted", again)
        }
        Error::Key { .. } => {
            Failure::new(Exit::Key, "wandb_key", error, format!("check {}", env::WANDB_API_KEY))
        }
        Error::Disk(_) => Failure::new(Exit::Failed, "write", error, "free some space, then run it again"),
        error if error.is_permanent() => {
            Failure::new(Exit::Failed, "refused", error, "mend what W&B objects to, then run it again")
        }
        error => Failure::new(Exit::Network, "network", error, again),
    }
}
