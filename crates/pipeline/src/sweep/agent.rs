//! A run that W&B's own agent asked for: nobody is at a terminal, others share its directory and its budget,
//! and SIGTERM means that the job is not wanted any more.
//!
//! The budget is one file of all runs of a sweep, `OUT/sweeps/<sweep>.json`, changed under OUT's lock only.

use std::path::Path;
use std::time::Duration;

use crate::env;
use crate::failure::{Exit, Failure};
use crate::job::price::{Price, dollars_text};
use crate::job::submit::Budget;
use crate::session::Session;
use crate::session::environment::Environment;
use crate::sweep::book::{Book, Trial};
use ctxtune_service::together::{Job, JobId, jobs};

/// What the agent leaves a run after SIGTERM is 30 s; ours are done before.
const FAREWELL: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Agency {
    sweep: String,
    run: String,
    cap: f64,
}

impl Agency {
    /// The place that the agent's variables name, where the command line has the sweep's cap. Fails when there
    /// is a cap and no agent.
    pub fn of(cap: Option<f64>, environment: &Environment) -> Result<Option<Agency>, Failure> {
        let Some(cap) = cap else { return Ok(None) };
        let name =
            |variable: &str| environment.get(variable).and_then(JobId::new).map(|name| name.to_string());
        match (name(env::WANDB_SWEEP_ID), name(env::WANDB_RUN_ID)) {
            (Some(sweep), Some(run)) => Ok(Some(Agency { sweep, run, cap })),
            _ => Err(Failure::usage(
                "no_agent",
                format!(
                    "--sweep-max-cost is for the runs of `wandb agent`: {} and {} are not set",
                    env::WANDB_SWEEP_ID,
                    env::WANDB_RUN_ID
                ),
                "by hand, use --max-cost",
            )),
        }
    }

    /// What the whole sweep may cost, in dollars.
    pub fn cap(&self) -> f64 {
        self.cap
    }

    fn book(&self, out: &Path) -> Result<Book, Failure> {
        Ok(Book::read(out, &self.sweep)?.unwrap_or_else(|| Book::new(self.sweep.clone(), Vec::new())))
    }

    /// Writes down the final price of the run's job. What fails leaves the estimate
    /// counted, which is the safe side.
    pub fn settle(&self, session: &Session, out: &Path, job: &JobId) {
        let settled =
            jobs::retrieve(&session.together, job).map_err(|error| session.explain(error)).and_then(|job| {
                let _lock = session.wait_for_lock(out)?;
                self.note(out, &job)
            });
        if let Err(failure) = settled {
            session.ui.warn(&format!("the sweep's budget counts an estimate: {}", failure.message));
        }
    }
}

impl Budget for Agency {
    fn reserve(&self, out: &Path, price: &Price) -> Result<(), Failure> {
        let mut book = self.book(out)?;
        if book.trials.iter().any(|trial| trial.wandb_run_id.as_ref() == Some(&self.run)) {
            return Ok(());
        }
        if !book.has_room_for(price.dollars, Some(self.cap)) {
            let estimate = price.dollars.map_or("an unknown price".to_owned(), dollars_text);
            let message = format!(
                "the sweep has spent or reserved {} of {}, and this run is estimated at {estimate}",
                dollars_text(book.spent()),
                dollars_text(self.cap)
            );
            let hint = "raise --max-cost of `ctxtune sweep init`, or leave the sweep at what it has tried";
            return Err(Failure::unspent("over_max_cost", message, hint));
        }
        let mut trial = Trial::new(Vec::new());
        trial.wandb_run_id = Some(self.run.clone());
        trial.estimate = price.dollars;
        trial.status = Some(Trial::INTENDED.to_owned());
        book.trials.push(trial);
        Ok(book.write(out)?)
    }

    fn note(&self, out: &Path, job: &Job) -> Result<(), Failure> {
        let mut book = self.book(out)?;
        let mine = book.trials.iter_mut().find(|trial| trial.wandb_run_id.as_ref() == Some(&self.run));
        if let Some(trial) = mine {
            trial.job = Some(job.id.clone());
            trial.status = Some(job.status.as_str().to_owned());
            trial.price = job.price();
            trial.model = job.model_output_name();
            book.write(out)?;
        }
        Ok(())
    }
}

/// After SIGTERM under an agent: nobody wants the job, so that it is cancelled, within the time that the
/// agent leaves. This process's own client sends nothing any more: another one does.
pub fn cancel_unwanted(session: &Session, exit: Exit, job: &JobId) {
    if exit != Exit::Terminated || session.environment.get(env::WANDB_SWEEP_ID).is_none() {
        return;
    }
    let id = job.clone();
    let cancelled = session.after_signal(FAREWELL, move |session| jobs::cancel(&session.together, &id));
    let said = match cancelled {
        Err(_) => return,
        Ok(Some(Ok(cancelled))) => format!("the agent ended this run: the job {job} is {}", cancelled.status),
        Ok(Some(Err(error))) => format!(
            "the agent ended this run, and the job {job} could not be cancelled: {error}; ctxtune cancel {job}"
        ),
        Ok(None) => format!(
            "the agent ended this run, and cancelling the job {job} was not answered in time: ctxtune cancel {job}"
        ),
    };
    session.ui.say(&said);
}
