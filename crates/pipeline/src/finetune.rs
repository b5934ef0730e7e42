//! `finetune`: prepare, upload, submit, in the seed's steps, up to a job that exists.
//!
//! Each step finds what an earlier run has done: the data unchanged, the files there, the job
//! running. So the same order resumes wherever it was stopped.

use crate::config::{PrepareChoices, TuneChoices};
use crate::failure::Failure;
use crate::job::data::{prepare_corpus, take_files};
use crate::job::submit::{self, Budget, Submitted, refuse_without_consent, submit};
use crate::job::wandb::Chosen;
use crate::session::Session;
use crate::session::consent::Spending;
use crate::sweep::agent::Agency;
use ctxtune_engine::prepare::GivenFiles;

pub struct Order {
    pub data: PrepareChoices,
    /// Files that are data already, in their place.
    pub given: Option<GivenFiles>,
    pub flags: TuneChoices,
    pub file: TuneChoices,
    pub spending: Spending,
    pub renews: bool,
    pub allows_truncation: bool,
    pub wandb: Chosen,
    /// Its place in a sweep of W&B's agent.
    pub agency: Option<Agency>,
}

pub fn finetune(session: &Session, order: Order) -> Result<Submitted, Failure> {
    refuse_without_consent(order.spending, &order.data.out())?;
    session.require_key()?;
    session.ui.step(1, "Preparing data");
    let prepare = || match &order.given {
        Some(given) => {
            take_files(given, &*session.ui, &session.signals).map(|()| (given.output_dir.clone(), given.seed))
        }
        None => prepare_corpus(order.data.clone(), session).map(|options| (options.output_dir, options.seed)),
    };
    let (out, seed) = if order.agency.is_some() { session.patiently(prepare)? } else { prepare()? };
    session.ui.done("Data preparation complete");
    let budget = order.agency.map(|agency| Box::new(agency) as Box<dyn Budget>);
    let order = submit::Order {
        out,
        parameters: order.flags.resolve(order.file, seed),
        spending: order.spending,
        renews: order.renews,
        allows_truncation: order.allows_truncation,
        announces_steps: true,
        wandb: order.wandb,
        budget,
    };
    submit(session, order)
}
