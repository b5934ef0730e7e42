//! Whether something asked the run to stop, and with which exit code it ends then. The program sets the flags from
//! signals; nothing below it catches any.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::{Exit, Failure};

/// The signals that ask a run to stop; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    pub interrupt: Arc<AtomicBool>,
    /// SIGTERM came, or what is taken for it.
    pub terminate: Arc<AtomicBool>,
}

impl Signals {
    pub fn is_stopped(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed) || self.terminate.load(Ordering::Relaxed)
    }

    pub fn exit(&self) -> Exit {
        if self.terminate.load(Ordering::Relaxed) { Exit::Terminated } else { Exit::Interrupted }
    }

    /// An error as a failure; what a signal ended ends as the signal says.
    pub fn explain(&self, error: impl Into<Failure>) -> Failure {
        let failure = error.into();
        let exit = if failure.exit == Exit::Interrupted { self.exit() } else { failure.exit };
        Failure { exit, ..failure }
    }
}
