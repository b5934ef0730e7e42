//! A deployment that this process holds: it stays up for its time, and no way out leaves it unsaid.
//!
//! A signal stops the clock of the client, which then sends nothing more: what must still be sent goes through
//! a second one, with a time limit instead of the signals.

use std::time::Duration;

use crate::deploy::running::{a_minute, say_stopped};
use crate::deploy::{DeployError, Deploying, Placed, Reach, abandon, bring_down};
use crate::failure::Failure;
use crate::job::monitor::spoken;
use crate::session::Session;
use crate::shell;
use crate::text::one_line;
use ctxtune_service::Stopped;
use ctxtune_service::together::endpoints::Endpoints;
use ctxtune_service::together::project::Project;

/// How long this process tries to stop a deployment after a signal.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How often a deployment whose time is over is tried to be stopped.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_secs(15);

pub(crate) struct Hold<'h> {
    pub session: &'h Session,
    pub project: &'h Project,
    pub endpoint: &'h str,
    pub name: &'h str,
    pub dollars_a_minute: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Stopped,
    /// It was not there, or nobody knows.
    Alone,
}

impl Hold<'_> {
    fn api(&self) -> Endpoints<'_> {
        Endpoints { together: &self.session.together, project: self.project }
    }

    pub(crate) fn deploying(&self) -> Deploying<'_> {
        Deploying {
            api: self.api(),
            endpoint: self.endpoint,
            name: self.name.to_owned(),
            grace: self.session.grace(),
        }
    }

    pub fn stop_command(&self) -> String {
        format!("ctxtune endpoints stop {}", shell::word(self.endpoint))
    }

    /// Stops what may run although something failed or a signal came, says so, and gives the failure with
    /// what to do then.
    pub(crate) fn abandon(&self, known: Option<&Placed>, failure: Failure) -> (Failure, Left) {
        self.session.ui.say(&format!("stopping {} (a second signal leaves it as it is)", self.name));
        let error = match self.last_words(known) {
            Ok(true) => {
                say_stopped(self.name, &*self.session.ui);
                return (failure, Left::Stopped);
            }
            Ok(false) => {
                self.session.ui.label("stopped", &format!("no {} is there", self.name));
                return (failure, Left::Alone);
            }
            Err(error) => error,
        };
        (self.unstopped(failure, &error.message), Left::Alone)
    }

    /// Says that it may run on, in a way that nobody overlooks.
    fn unstopped(&self, failure: Failure, why: &str) -> Failure {
        let command = self.stop_command();
        self.session.ui.warn(&one_line(&format!("{} could not be stopped: {why}", self.name)));
        let hint = format!(
            "it may still run, and costs {}: stop it with `{command}`",
            a_minute(self.dollars_a_minute)
        );
        Failure { hint: Some(hint), ..failure }
    }

    /// Asks for no machines through a client that no signal stops, only the time.
    fn last_words(&self, known: Option<&Placed>) -> Result<bool, Failure> {
        let (project, endpoint) = (self.project.clone(), self.endpoint.to_owned());
        let (name, known) = (self.name.to_owned(), known.cloned());
        let stopped = self.session.after_signal(LAST_WORDS, move |session| {
            let api = Endpoints { together: &session.together, project: &project };
            let deploying = Deploying { api, endpoint: &endpoint, name, grace: session.grace() };
            abandon(&deploying, known.as_ref()).map_err(DeployError::from)
        })?;
        match stopped {
            Some(stopped) => stopped.map_err(Failure::from),
            None => {
                let message = format!("no answer within {}", spoken(&LAST_WORDS));
                Err(Failure::network("network", message, self.stop_command()))
            }
        }
    }

    /// Stays for `time`, then stops it, unless it was ended from elsewhere.
    pub fn stay(&self, placed: &Placed, time: Duration) -> Result<(), (Failure, Left)> {
        match self.deploying().stay(placed, time) {
            Ok(true) => {
                self.session.ui.label("ended", &format!("{} was stopped from elsewhere", self.name));
                Ok(())
            }
            Ok(false) => {
                self.session.ui.label("over", &format!("{} is over", spoken(&time)));
                self.stop(placed)
            }
            Err(stopped) => Err(self.interrupted(placed, stopped)),
        }
    }

    fn interrupted(&self, placed: &Placed, stopped: Stopped) -> (Failure, Left) {
        let failure = Failure { hint: None, ..self.session.explain(stopped) };
        self.abandon(Some(placed), failure)
    }

    /// Stops it, as often as it takes: what runs costs money.
    fn stop(&self, placed: &Placed) -> Result<(), (Failure, Left)> {
        let mut tell = |name: &str| say_stopped(name, &*self.session.ui);
        let mut left = TRIES;
        loop {
            let error = match bring_down(self.api(), &placed.endpoint, Reach::Ours, &mut tell) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_stopped() => return Err(self.interrupted(placed, Stopped)),
                Err(error) => error,
            };
            left -= 1;
            let is_passing = matches!(&error, DeployError::Api(error) if error.is_passing());
            if !is_passing || left == 0 {
                let failure = Failure::from(error);
                let why = failure.message.clone();
                return Err((self.unstopped(failure, &why), Left::Alone));
            }
            self.session.ui.warn(&one_line(&format!("not stopped yet, trying again: {error}")));
            if let Err(stopped) = self.session.together.client().clock().wait(PAUSE) {
                return Err(self.interrupted(placed, stopped));
            }
        }
    }
}
