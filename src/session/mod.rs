//! What the program gives a workflow: variables, time, and a session with the service.

use std::sync::Arc;

use crate::args::RemoteArgs;
use crate::screen::report::Terminal;
use crate::session::clock::SystemClock;
use ctxtune_pipeline::session::Runtime;
use ctxtune_pipeline::{Environment, Failure, Session, Signals, env};

pub mod clock;
pub mod dotenv;
pub(crate) mod environment;
pub(crate) mod stores;

pub(crate) fn runtime(environment: Environment, terminal: &Terminal) -> Runtime {
    let scale = environment.number(env::CTXTUNE_TIME_SCALE).unwrap_or(1.0);
    Runtime {
        environment,
        signals: terminal.signals.clone(),
        clock: Arc::new(SystemClock::new(terminal.signals.clone(), scale)),
        unstopped: Arc::new(SystemClock::new(Signals::default(), scale)),
        ui: terminal.ui(),
    }
}

pub(crate) fn start(
    args: &RemoteArgs,
    environment: Environment,
    terminal: &Terminal,
) -> Result<Session, Failure> {
    Session::new(args.base_url.as_deref(), runtime(environment, terminal))
}

/// The session of a command that needs no configuration file, with its key at hand.
pub(crate) fn open(args: &RemoteArgs, terminal: &Terminal) -> Result<Session, Failure> {
    let session = start(args, environment::read(None, terminal)?, terminal)?;
    session.require_key()?;
    Ok(session)
}
