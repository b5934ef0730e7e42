//! A deployment that this process holds: it stays up for its time, and no way out leaves it unsaid.
//!
//! Separate from `deploy`, which brings it up. A signal stops the clock of the client, which then
//! sends nothing more: what must still be sent goes through a second one, with a time limit
//! instead of the signals.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::args::RemoteArgs;
use crate::commands::model::endpoints::{a_minute, say_stopped};
use crate::screen::report::Terminal;
use crate::session;
use ctxtune_pipeline::deploy::{DeployError, Deploying, Placed, Reach, abandon, bring_down};
use ctxtune_pipeline::failure::{Exit, Failure};
use ctxtune_pipeline::job::monitor::spoken;
use ctxtune_pipeline::session::Session;
use ctxtune_pipeline::shell;
use ctxtune_pipeline::signals::Signals;
use ctxtune_pipeline::text::one_line;
use ctxtune_service::clock::Stopped;
use ctxtune_service::together::project::Project;

/// How long this process tries to stop a deployment after a signal.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How often a deployment whose time is over is tried to be stopped.
const TRIES: u32 = 40;

/// The pause between two such tries.
const PAUSE: Duration = Duration::from_secs(15);

/// What is held, and how.
pub struct Hold<'h> {
    /// The service.
    pub session: &'h Session,
    /// How to reach it anew.
    pub remote: &'h RemoteArgs,
    /// Whose endpoints.
    pub project: &'h Project,
    /// The endpoint's name.
    pub endpoint: &'h str,
    /// The deployment's name.
    pub name: &'h str,
    /// What a minute costs.
    pub dollars_a_minute: Option<f64>,
}

/// What became of a deployment that this process gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It was stopped.
    Stopped,
    /// It was not there, or nobody knows.
    Alone,
}

impl Hold<'_> {
    /// What is brought up and down.
    pub fn deploying(&self) -> Deploying<'_> {
        Deploying {
            together: &self.session.together,
            project: self.project,
            endpoint: self.endpoint,
            name: self.name.to_owned(),
            grace: self.session.grace(),
        }
    }

    /// The command that stops it.
    pub fn stop_command(&self) -> String {
        format!("ctxtune endpoints stop {}", shell::word(self.endpoint))
    }

    /// Stops what may run although something failed or a signal came, says so, and gives the failure with
    /// what to do then.
    pub fn abandon(&self, known: Option<&Placed>, failure: Failure, terminal: &Terminal) -> (Failure, Left) {
        terminal.say(&format!("stopping {} (a second signal leaves it as it is)", self.name));
        let error = match self.last_words(known, terminal) {
            Ok(true) => {
                say_stopped(self.name, terminal);
                return (failure, Left::Stopped);
            }
            Ok(false) => {
                terminal.label("stopped", &format!("no {} is there", self.name));
                return (failure, Left::Alone);
            }
            Err(error) => error,
        };
        (self.unstopped(failure, &error.message, terminal), Left::Alone)
    }

    /// Says that it may run on, in a way that nobody overlooks.
    fn unstopped(&self, failure: Failure, why: &str, terminal: &Terminal) -> Failure {
        let command = self.stop_command();
        terminal.warn(&one_line(&format!("{} could not be stopped: {why}", self.name)));
        let hint = format!(
            "it may still run, and costs {}: stop it with `{command}`",
            a_minute(self.dollars_a_minute)
        );
        Failure { hint: Some(hint), ..failure }
    }

    /// Asks for no machines through a client that no signal stops, only the time.
    fn last_words(&self, known: Option<&Placed>, terminal: &Terminal) -> Result<bool, Failure> {
        let limit = Signals::default();
        let session = session::start(self.remote, self.session.environment.clone(), &limit, terminal)?;
        std::thread::spawn(move || {
            std::thread::sleep(LAST_WORDS);
            limit.interrupt.store(true, Ordering::Relaxed);
        });
        let deploying = Deploying { together: &session.together, ..self.deploying() };
        abandon(&deploying, known).map_err(|error| match DeployError::from(error) {
            error if error.is_stopped() => {
                let message = format!("no answer within {}", spoken(&LAST_WORDS));
                Failure::new(Exit::Network, "network", message, self.stop_command())
            }
            error => error.into(),
        })
    }

    /// Stays for `time`, then stops it, unless it was ended from elsewhere.
    ///
    /// # Errors
    /// When it was ended by a signal, or cannot be stopped; what is left then is said.
    pub fn stay(&self, placed: &Placed, time: Duration, terminal: &Terminal) -> Result<(), (Failure, Left)> {
        match self.deploying().stay(placed, time) {
            Ok(true) => {
                terminal.label("ended", &format!("{} was stopped from elsewhere", self.name));
                Ok(())
            }
            Ok(false) => {
                terminal.label("over", &format!("{} is over", spoken(&time)));
                self.stop(placed, terminal)
            }
            Err(stopped) => Err(self.interrupted(placed, stopped, terminal)),
        }
    }

    fn interrupted(&self, placed: &Placed, stopped: Stopped, terminal: &Terminal) -> (Failure, Left) {
        let failure = Failure { hint: None, ..self.session.explain(stopped) };
        self.abandon(Some(placed), failure, terminal)
    }

    /// Stops it, as often as it takes: what runs costs money.
    fn stop(&self, placed: &Placed, terminal: &Terminal) -> Result<(), (Failure, Left)> {
        let mut tell = |name: &str| say_stopped(name, terminal);
        let together = &self.session.together;
        let mut left = TRIES;
        loop {
            let what = (&placed.endpoint, Reach::Ours);
            let error = match bring_down(together, self.project, what, &mut tell) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_stopped() => return Err(self.interrupted(placed, Stopped, terminal)),
                Err(error) => error,
            };
            left -= 1;
            let is_passing = matches!(&error, DeployError::Api(error) if error.is_passing());
            if !is_passing || left == 0 {
                let failure = Failure::from(error);
                let why = failure.message.clone();
                return Err((self.unstopped(failure, &why, terminal), Left::Alone));
            }
            terminal.warn(&one_line(&format!("not stopped yet, trying again: {error}")));
            if let Err(stopped) = together.client().clock().wait(PAUSE) {
                return Err(self.interrupted(placed, stopped, terminal));
            }
        }
    }
}
