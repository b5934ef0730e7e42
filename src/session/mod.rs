//! What the program gives a workflow: variables, time, and a session with the service.

use std::sync::Arc;

use crate::args::RemoteArgs;
use crate::screen::report::Terminal;
use crate::session::clock::SystemClock;
use ctxtune_pipeline::env;
use ctxtune_pipeline::failure::Failure;
use ctxtune_pipeline::session::environment::Environment;
use ctxtune_pipeline::session::{Runtime, Session};
use ctxtune_pipeline::signals::Signals;

pub mod clock;
pub mod dotenv;
pub(crate) mod environment;

pub(crate) fn runtime(environment: Environment, signals: &Signals, terminal: &Terminal) -> Runtime {
    let scale = environment.number(env::CTXTUNE_TIME_SCALE).unwrap_or(1.0);
    Runtime {
        environment,
        signals: signals.clone(),
        clock: Arc::new(SystemClock::new(signals.clone(), scale)),
        unstopped: Arc::new(SystemClock::new(Signals::default(), scale)),
        ui: terminal.ui(),
    }
}

pub(crate) fn start(
    args: &RemoteArgs,
    environment: Environment,
    signals: &Signals,
    terminal: &Terminal,
) -> Result<Session, Failure> {
    Session::new(args.base_url.as_deref(), runtime(environment, signals, terminal))
}

/// The session of a command that needs no configuration file, with its key at hand.
pub(crate) fn open(args: &RemoteArgs, signals: &Signals, terminal: &Terminal) -> Result<Session, Failure> {
    let session = start(args, environment::read(None, terminal)?, signals, terminal)?;
    session.require_key()?;
    Ok(session)
}
