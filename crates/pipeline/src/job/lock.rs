//! The lock of an output directory where several runs take turns.

use std::path::Path;
use std::time::Duration;

use crate::failure::Failure;
use crate::session::Session;
use ctxtune_engine::output::lock::OutputLock;

/// How often a lock that another run holds is tried again.
const PATIENCE: Duration = Duration::from_millis(500);

/// OUT's lock, as soon as the other runs leave it.
pub(crate) fn wait_for_lock(out: &Path, session: &Session) -> Result<OutputLock, Failure> {
    patiently(session, || Ok(OutputLock::acquire(out)?))
}

/// Does `act`, again as long as another run holds OUT's lock.
pub(crate) fn patiently<T>(
    session: &Session,
    mut act: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    loop {
        match act() {
            Err(failure) if failure.code == "locked" => {
                session.clock.wait(PATIENCE).map_err(|stopped| session.explain(stopped))?;
            }
            done => return done,
        }
    }
}
