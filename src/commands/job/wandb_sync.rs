//! `ctxtune wandb-sync`: sends what is kept of runs on this machine, without the training service.
//!
//! It looks at every run first, and opens only those that are behind: to open a run is to take it
//! from a monitor that may still log it. A refused run is reported, and the others are sent. A run that was
//! never made and has no rows is only named: `ctxtune monitor` makes it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::args::WandbSyncArgs;
use crate::screen::report::{Terminal, fields};
use crate::session::clock::SystemClock;
use crate::session::environment;
use ctxtune_pipeline::config::wandb::WandbArgs;
use ctxtune_pipeline::job::wandb::{Chosen, HOW_TO_LOG, Way, Why, resolve};
use ctxtune_pipeline::job::wandb_run::{WANDB_DIR, connect, owner};
use ctxtune_pipeline::text::{counted, printable};
use ctxtune_pipeline::{Environment, Exit, Failure, Signals, env, shell};
use ctxtune_service::wandb::history::{Spool, State, known};
use ctxtune_service::wandb::run::JOB_KEY;
use ctxtune_service::wandb::session::{Goal, Pushed, Session};
use ctxtune_service::wandb::{Error, Settings, Wandb};
use ctxtune_service::{Clock, http};

const CALL: Duration = Duration::from_secs(60);
/// How often a request is tried, and the wait after the first failure, which doubles.
const TRIES: u32 = 5;
const BACKOFF: Duration = Duration::from_secs(2);
/// The longest wait that a server may ask for.
const LONGEST_HINT: Duration = Duration::from_secs(120);

#[derive(Serialize)]
struct Synced {
    /// Its id.
    run: String,
    /// How many rows were sent.
    rows: usize,
    /// Its page at W&B.
    page: String,
}

#[derive(Serialize)]
struct Refused {
    /// Its id.
    run: String,
    #[serde(flatten)]
    failure: Failure,
}

/// A run that was planned, and never made.
#[derive(Serialize)]
struct Unmade {
    /// Its id.
    run: String,
    /// The job that it would log.
    job: String,
}

#[derive(Default, Serialize)]
struct Outcome {
    /// Runs whose rows were sent.
    runs: Vec<Synced>,
    /// Runs that W&B refused, and why.
    refused: Vec<Refused>,
    /// Runs that do not exist at W&B yet.
    not_made: Vec<Unmade>,
}

pub fn run(args: &WandbSyncArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let mut outcome = Outcome::default();
    let result = sync_all(args, &mut outcome, terminal);
    let line = |synced: &Synced| printable(&format!("{}\t{}\t{}", synced.run, synced.rows, synced.page));
    let text: Vec<String> = outcome.runs.iter().map(line).collect();
    Ok(match result.err().or_else(|| outcome.refused.first().map(|refused| refused.failure.clone())) {
        None => {
            if outcome.runs.is_empty() && outcome.not_made.is_empty() {
                terminal.say("W&B: nothing is behind");
            }
            let text = text.join("\n");
            terminal.report((!text.is_empty()).then_some(text.as_bytes()), &outcome)
        }
        Some(failure) => {
            // The runs that were sent are printed although others failed.
            let text =
                if text.is_empty() || terminal.flags().json { String::new() } else { text.join("\n") + "\n" };
            let _ = terminal.deliver(text.as_bytes());
            terminal.fail(&failure, fields(&outcome))
        }
    })
}

fn sync_all(args: &WandbSyncArgs, outcome: &mut Outcome, terminal: &Terminal) -> Result<(), Failure> {
    let environment = environment::read(None, terminal)?;
    let dir = dir(args, &environment)?;
    let states = known(&dir).map_err(|error| {
        let message = format!("cannot read `{}`: {error}", dir.display());
        Failure::failed("read", message, "check the directory's permissions")
    })?;
    let ours = states.into_iter().filter(|state| !state.plan.is_elsewhere);
    let is_behind = |state: &State| Spool::look(Some(dir.clone()), state.clone()).owes();
    let (behind, rest): (Vec<State>, Vec<State>) = ours.partition(is_behind);
    for state in rest.into_iter().filter(|state| state.identity.is_none()) {
        let job = state.plan.config.get(JOB_KEY).and_then(Value::as_str).unwrap_or("JOB").to_owned();
        let run = state.plan.run;
        let text =
            format!("W&B: the run {run} was never made; `ctxtune monitor {job}` makes it and logs the job");
        terminal.say(&printable(&text));
        outcome.not_made.push(Unmade { run, job });
    }
    if behind.is_empty() {
        return Ok(());
    }
    let chosen = resolve(&WandbArgs::default(), None, &environment, terminal)?;
    let settings = settings(chosen)?;
    let scale = environment.number(env::CTXTUNE_TIME_SCALE).unwrap_or(1.0);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(terminal.signals.clone(), scale));
    for mut state in behind {
        let wandb = connect(settings.clone(), CALL, &environment, Arc::clone(&clock))?;
        relocate(&mut state, &environment);
        let run = state.plan.run.clone();
        match sync(wandb, (&dir, state), &clock, terminal) {
            Ok(synced) => outcome.runs.push(synced),
            // The key, the network or a signal: the other runs would fail too.
            Err(failure) if failure.exit != Exit::Failed => return Err(failure),
            Err(failure) => {
                terminal.warn(&printable(&format!("W&B: the run {run}: {}", failure.message)));
                outcome.refused.push(Refused { run, failure });
            }
        }
    }
    Ok(())
}

/// Applies `WANDB_ENTITY` and `WANDB_PROJECT` to a run that does not exist yet.
fn relocate(state: &mut State, environment: &Environment) {
    if state.identity.is_some() {
        return;
    }
    if let Some(entity) = environment.get(env::WANDB_ENTITY) {
        state.plan.entity = Some(entity.trim().to_owned());
    }
    if let Some(project) = environment.get(env::WANDB_PROJECT) {
        project.trim().clone_into(&mut state.plan.project);
    }
}

fn sync(
    wandb: Wandb,
    (dir, state): (&Path, State),
    clock: &Arc<dyn Clock>,
    terminal: &Terminal,
) -> Result<Synced, Failure> {
    let run = state.plan.run.clone();
    let place = (state.plan.entity.clone(), state.plan.project.clone());
    let failed = |error: &Error| failure(error, (dir, &state), &terminal.signals);
    let spool = Spool::open(Some(dir.to_owned()), state.plan.clone(), &owner(&**clock));
    let mut spool = spool.map_err(|error| failed(&Error::Disk(error)))?;
    (spool.state.plan.entity, spool.state.plan.project) = place;
    let rows = spool.unsent_rows().len();
    let spool = Arc::new(Mutex::new(spool));
    let mut session = Session::new(Goal::Online(Box::new(wandb)), spool, Arc::clone(clock));
    let sent = send(&mut session, &**clock);
    let refused = session.take_refused();
    for what in &refused {
        terminal.warn(&printable(&format!("W&B: the run {run}: {what}")));
    }
    sent.map_err(|error| failed(&error))?;
    if let Some(what) = refused.into_iter().find(|what| what.starts_with("the file")) {
        let hint = "run it again when the storage of W&B can be reached: rows are sent already";
        return Err(Failure::failed("refused", what, hint));
    }
    let page = session.page().unwrap_or_default().to_owned();
    terminal.say(&printable(&format!("W&B: {page}: {}", counted(rows as u64, "row"))));
    Ok(Synced { run, rows, page })
}

fn dir(args: &WandbSyncArgs, environment: &Environment) -> Result<PathBuf, Failure> {
    if let Some(out) = &args.output_dir {
        return Ok(out.join(WANDB_DIR));
    }
    let journal = environment.journal();
    journal.as_deref().and_then(|path| path.parent()).map(|dir| dir.join(WANDB_DIR)).ok_or_else(|| {
        Failure::usage("no_directory", "there is no state directory", "name the output directory")
    })
}

fn settings(chosen: Chosen) -> Result<Settings, Failure> {
    match chosen.way {
        Way::Online { settings, .. } | Way::Together { settings } => Ok(settings),
        Way::Offline { .. } | Way::Off(Why::Disabled(_)) => {
            let message = format!("{} or {} forbids it", env::WANDB_MODE, env::WANDB_DISABLED);
            let hint = format!("for this command alone: {}=online ctxtune wandb-sync", env::WANDB_MODE);
            Err(Failure::usage("wandb_mode", message, hint))
        }
        Way::Off(_) => Err(Failure::new(Exit::Key, "wandb_key", "there is no key of W&B", HOW_TO_LOG)),
    }
}

fn send(session: &mut Session, clock: &dyn Clock) -> Result<(), Error> {
    let mut failures = 0;
    loop {
        match session.push() {
            Ok(Pushed::Sent { has_more: true, .. }) => failures = 0,
            Ok(Pushed::Sent { has_more: false, .. } | Pushed::Nothing | Pushed::TakenOver) => {
                return Ok(());
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

fn failure(error: &Error, (dir, state): (&Path, &State), signals: &Signals) -> Failure {
    let again = "run it again: nothing is logged twice";
    match error {
        Error::Http(http::Error::Stopped) => {
            Failure::new(signals.exit(), "interrupted", "interrupted", again)
        }
        Error::Key { .. } => {
            Failure::new(Exit::Key, "wandb_key", error, format!("check {}", env::WANDB_API_KEY))
        }
        Error::Disk(_) => Failure::failed("write", error, "free some space, then run it again"),
        error if error.is_deleted() => {
            let job = state.plan.config.get(JOB_KEY).and_then(Value::as_str).unwrap_or("JOB");
            let files = shell::path(&dir.join(&state.plan.run));
            let hint = format!(
                "the run was deleted at W&B, which never takes its id again: to forget it, rm {files}.*; to log the job as a new run, {}=NEW_ID ctxtune monitor {job}",
                env::WANDB_RUN_ID
            );
            Failure::failed("deleted", error, hint)
        }
        error if error.is_permanent() => {
            let hint = "check WANDB_ENTITY and WANDB_PROJECT, and what W&B objects to, then run it again";
            Failure::failed("refused", error, hint)
        }
        error => Failure::network("network", error, again),
    }
}
