//! A prepared directory becomes a job: what the model allows, the files, the price, a yes, and one creation.
//!
//! The order is the promise: nothing leaves the machine without a way to agree to the cost, nothing
//! is uploaded for values that the model refuses, and nothing is created that is there already.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::env;
use crate::failure::{Exit, Failure};
use crate::job::cost::{Beside, running_beside};
use crate::job::create::{Adopted, Known, Submission, is_to_be_watched};
use crate::job::data::verify;
use crate::job::expected::{Expected, ExpectedReport};
use crate::job::journal::{self, Started};
use crate::job::ledger::{Account, Run, RunState};
use crate::job::limits::{rows, sequence_length, settle};
use crate::job::parameters::{Files, Parameters, Settled};
use crate::job::plan::{Plan, refuse};
use crate::job::price::{Extent, Price, dollars_text};
use crate::job::tag::Identity;
use crate::job::uploads::{Uploaded, upload_sides};
use crate::job::wandb::Chosen;
use crate::job::wandb_run::{self, Announced};
use crate::job::{estimates, model, rates};
use crate::session::Session;
use crate::session::consent::Spending;
use crate::ui::Ui;
use ctxtune_engine::output::lock::OutputLock;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_service::together::jobs::{self, Estimate};
use ctxtune_service::together::{Ending, Job, JobId, last_error};
use ctxtune_service::{http, together};

pub struct Order {
    pub out: PathBuf,
    pub parameters: Parameters,
    pub spending: Spending,
    /// Whether an ended job is submitted again.
    pub renews: bool,
    /// Whether samples may be longer than the model's sequences, and are then cut.
    pub allows_truncation: bool,
    /// Whether steps are announced, as `finetune` does.
    pub announces_steps: bool,
    pub wandb: Chosen,
    pub budget: Option<Box<dyn Budget>>,
}

/// What several runs may spend together; OUT's lock is the caller's.
pub trait Budget {
    /// Counts a run's price before its job is asked for. Fails when the budget leaves no room for it.
    fn reserve(&self, out: &Path, price: &Price) -> Result<(), Failure>;
    fn note(&self, out: &Path, job: &Job) -> Result<(), Failure>;
}

pub struct Submitted {
    pub adopted: Adopted,
    pub account: Account,
    /// What it was held against: nothing where it was there before.
    pub price: Option<Price>,
    /// How long it was expected to take: likewise.
    pub expected: Option<Expected>,
    /// Other jobs of the output directory that ran when it was created.
    pub running: Vec<Beside>,
    /// What logs it to W&B, if nobody watches it.
    pub announced: Announced,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The job.
    pub job: JobId,
    /// Its status, as the service calls it.
    pub status: String,
    /// Whether this run created it; `false`: it was found.
    pub created: bool,
    /// Which attempt it is.
    pub attempt: u32,
    /// The tag of data and parameters, in which its suffix ends.
    pub tag: String,
    /// Younger jobs with the same tag.
    pub other_jobs: Vec<JobId>,
    /// The address of the service.
    pub api: String,
    /// The project whose job it is.
    pub project: String,
    /// The page of its run at W&B; `null` where this program has not made it.
    pub wandb_url: Option<String>,
    /// `monitor` or `together`; `null` where nothing logs it.
    pub logged_by: Option<&'static str>,
    /// Other jobs of the output directory that ran when it was created.
    pub running_jobs: Vec<RunningJob>,
    /// How long it is expected to take; `null` where it was found.
    pub expected_time: Option<ExpectedReport>,
    /// Its estimate; `null` where it was found.
    pub price: Option<Price>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunningJob {
    /// The job.
    pub job: JobId,
    /// Its status.
    pub status: String,
    /// What it has cost so far, in dollars; `null` where the service does not say.
    pub price_dollars: Option<f64>,
    /// Its estimate, in dollars; `null` where this machine does not know it.
    pub estimated_dollars: Option<f64>,
}

impl Submitted {
    pub fn report(&self) -> Report {
        let Submitted { adopted, account, price, expected, running, announced } = self;
        let running = running.iter().map(|Beside { job, estimated, .. }| RunningJob {
            job: job.id.clone(),
            status: job.status.as_str().to_owned(),
            price_dollars: job.price(),
            estimated_dollars: *estimated,
        });
        Report {
            job: adopted.job.id.clone(),
            status: adopted.job.status.as_str().to_owned(),
            created: adopted.is_new,
            attempt: adopted.attempt,
            tag: adopted.tag.clone(),
            other_jobs: adopted.others.clone(),
            api: account.api.clone(),
            project: account.project.clone(),
            wandb_url: announced.url.clone(),
            logged_by: announced.logged_by,
            running_jobs: running.collect(),
            expected_time: expected.as_ref().map(Expected::report),
            price: price.clone(),
        }
    }
}

/// Refuses where nobody can agree to spend and `out` knows of no job that could be resumed: before anything has
/// left the machine.
pub(crate) fn refuse_without_consent(spending: Spending, out: &Path) -> Result<(), Failure> {
    if spending == Spending::Impossible && Run::read_all(out)?.is_empty() {
        return Err(Spending::refusal());
    }
    Ok(())
}

/// Takes the prepared directory of `order` to a job that exists: the one that is there, or a new one.
pub fn submit(session: &Session, mut order: Order) -> Result<Submitted, Failure> {
    refuse_without_consent(order.spending, &order.out)?;
    // From here on the data is what this manifest says: no other run can publish in between.
    let _lock = match &order.budget {
        Some(_) => session.wait_for_lock(&order.out)?,
        None => OutputLock::acquire(&order.out)?,
    };
    let manifest = Manifest::read(&order.out)?;
    let account = session.account()?;
    let chosen =
        model::choose(&session.together, &mut order.parameters).map_err(|error| session.explain(error))?;
    let has_val = manifest.val.is_some();
    let settled = settle(order.parameters.clone(), &chosen.limits, has_val);
    let rows = rows(&settled, &chosen.limits, has_val);
    refuse(&rows, &chosen.limits)?;
    let wandb_run_id = session.environment.get(env::WANDB_RUN_ID);
    let identity = identity(&account, &manifest, &settled, wandb_run_id);
    let submission = Submission {
        together: &session.together,
        out: &order.out,
        account: &account,
        identity: &identity,
        grace: session.grace(),
        renews: order.renews,
        secret_fields: &order.wandb.secret_fields(),
    };
    let jobs = jobs::list(&session.together).map_err(|error| session.explain(error))?;
    let known = submission.find_among(&jobs).map_err(|error| session.explain(error))?;
    let (attempt, pending_since) = match known {
        Known::Job(adopted) => {
            let submitted = adopt(*adopted, account, &order, session)?;
            let known = wandb_run::Known {
                manifest: &manifest,
                settled: &settled,
                limits: &chosen.limits,
                price: None,
            };
            plan_run(session, &order, &known, &submitted.adopted.job)?;
            return Ok(submitted);
        }
        Known::Nothing { attempt, pending_since } => (attempt, pending_since),
    };
    if order.spending == Spending::Impossible {
        return Err(Spending::refusal());
    }
    warn_of_open_intents(&order.out, &account, &identity.tag(attempt), &*session.ui)?;
    let running = running_beside(&jobs, &order.out, &account, manifest.train.content().1)?;
    let plan = Plan {
        out: &order.out,
        manifest: &manifest,
        account: &account,
        chosen: &chosen,
        settled: &settled,
        rows: &rows,
        running: &running,
        jobs: &jobs,
    };
    let (uploaded, price) = upload_and_agree(session, &order, &plan)?;
    let suffix = format!("{}-{}", settled.parameters.suffix, identity.tag(attempt));
    let body = settled.body(files(&uploaded), &suffix);
    let adopted = submission.create(attempt, pending_since, body).map_err(|error| session.explain(error))?;
    let length = sequence_length(&settled, &chosen.limits);
    estimates::note(&order.out, &adopted.job.id, price.dollars, length, &*session.ui);
    let expected = Some(plan.expected(price.train_tokens));
    let submitted = Submitted {
        adopted,
        account,
        price: Some(price),
        expected,
        running,
        announced: Announced::default(),
    };
    write_journal(session, &order.out, &submitted);
    say_job(&submitted.adopted, &*session.ui);
    let known = wandb_run::Known {
        manifest: &manifest,
        settled: &settled,
        limits: &chosen.limits,
        price: submitted.price.as_ref(),
    };
    plan_run(session, &order, &known, &submitted.adopted.job)?;
    Ok(submitted)
}

fn upload_and_agree(
    session: &Session,
    order: &Order,
    plan: &Plan<'_>,
) -> Result<(Vec<Uploaded>, Price), Failure> {
    let Plan { manifest, settled, .. } = plan;
    let limits = &plan.chosen.limits;
    session.ui.plan(plan);
    // No sample may be longer than the model's sequences.
    let length = sequence_length(settled, limits).filter(|_| !order.allows_truncation);
    let report = verify(std::slice::from_ref(&order.out), Some(&limits.model_name), length, session)?;
    let extent = Extent::of(manifest, settled, limits);
    session.ui.label("tokens", &estimates::forecast(&report, manifest, settled, limits, session));
    if order.announces_steps {
        session.ui.step(2, "Uploading files to Together AI");
    }
    let uploaded = upload_sides(session, plan.account, &order.out, manifest)?;
    if order.announces_steps {
        session.ui.step(3, "Creating fine-tuning job");
    }
    let price = price(session, settled, files(&uploaded), extent)?;
    agree(order, &price, plan, session)?;
    if let Some(budget) = &order.budget {
        budget.reserve(&order.out, &price)?;
    }
    Ok((uploaded, price))
}

/// Keeps what the job's run at W&B is to be, and what it counts for in its budget.
fn plan_run(
    session: &Session,
    order: &Order,
    known: &wandb_run::Known<'_>,
    job: &Job,
) -> Result<(), Failure> {
    let mut config = wandb_run::config(known, job);
    config.extend(wandb_run::suggested(&session.environment));
    wandb_run::plan(session, &order.wandb, &order.out, config, job);
    order.budget.as_ref().map_or(Ok(()), |budget| budget.note(&order.out, job))
}

/// Names creations that an earlier run never learned the outcome of, and that this one is not about.
fn warn_of_open_intents(out: &Path, account: &Account, tag: &str, ui: &dyn Ui) -> Result<(), Failure> {
    let is_open = |run: &Run| run.state == RunState::Intent && run.account == *account && run.tag != tag;
    for run in Run::read_all(out)?.iter().filter(|run| is_open(run)) {
        ui.warn(&format!(
            "a job with other data or parameters was asked for at {}, and whether it was created is not known: look for a suffix ending in {} with `ctxtune jobs`",
            run.intended_at, run.tag
        ));
    }
    Ok(())
}

pub fn identity(
    account: &Account,
    manifest: &Manifest,
    settled: &Settled,
    wandb_run_id: Option<&str>,
) -> Identity {
    Identity {
        project: account.project.clone(),
        train_sha256: manifest.train.content().1.to_owned(),
        val_sha256: manifest.val.as_ref().map(|val| val.content().1.to_owned()),
        settled: settled.clone(),
        wandb_run_id: wandb_run_id.map(str::to_owned),
    }
}

pub fn files(uploaded: &[Uploaded]) -> Files<'_> {
    let id = |label: &str| uploaded.iter().find(|file| file.label == label).map(|file| file.file_id.as_str());
    Files { train: id("train").unwrap_or_default(), val: id("val") }
}

/// The service's estimate; that it cannot be had is no failure, but leaves the price unknown.
pub fn price(
    session: &Session,
    settled: &Settled,
    files: Files<'_>,
    extent: Extent,
) -> Result<Price, Failure> {
    Ok(match estimate(session, &settled.estimate_body(files))? {
        Ok(estimate) => Price::of(&estimate, settled, extent),
        Err(reason) => Price::unknown(reason),
    })
}

pub fn estimate(session: &Session, body: &Value) -> Result<Result<Estimate, String>, Failure> {
    match jobs::estimate(&session.together, body) {
        Err(error @ together::Error::Http(http::Error::Stopped)) => Err(session.explain(error)),
        asked => {
            if let Ok(estimate) = &asked {
                rates::note(session, body, estimate);
            }
            Ok(asked.map_err(|error| error.to_string()))
        }
    }
}

fn agree(order: &Order, price: &Price, plan: &Plan<'_>, session: &Session) -> Result<(), Failure> {
    session.ui.price(price);
    session.ui.expected(&plan.expected(price.train_tokens));
    session.ui.running(plan.running);
    wandb_run::say_handover(&order.wandb, &*session.ui);
    let cap = match order.spending {
        Spending::Agreed { max_cost } => max_cost,
        Spending::Asked | Spending::Impossible => None,
    };
    price.check(cap)?;
    if order.spending != Spending::Asked {
        return Ok(());
    }
    let question = match price.dollars {
        Some(dollars) => format!("Start this job for about {}?", dollars_text(dollars)),
        None => "Start this job, at a price nobody knows?".to_owned(),
    };
    let hint = "run it again to be asked again; the files stay at the service";
    session.confirm(&question, "the job was not started", hint)
}

fn adopt(adopted: Adopted, account: Account, order: &Order, session: &Session) -> Result<Submitted, Failure> {
    let job = &adopted.job;
    if is_to_be_watched(job) {
        if order.renews && job.status.ending().is_none() {
            session.ui.warn(&format!(
                "the job {} still runs, and --new-job starts none beside it; to replace it: ctxtune cancel {}",
                job.id, job.id
            ));
        }
        say_job(&adopted, &*session.ui);
        return Ok(Submitted {
            adopted,
            account,
            price: None,
            expected: None,
            running: Vec::new(),
            announced: Announced::default(),
        });
    }
    let (exit, code) = match job.status.ending() {
        Some(Ending::Cancelled) => (Exit::JobCancelled, "job_cancelled"),
        _ => (Exit::JobFailed, "job_failed"),
    };
    let said = last_words(session, job).map(|words| format!(": {words}")).unwrap_or_default();
    let message = format!("the job {} for this data and these parameters is {}{said}", job.id, job.status);
    let hint = format!("`ctxtune monitor {}` shows how it ended; --new-job pays for another one", job.id);
    Err(Failure::new(exit, code, message, hint))
}

/// What the service said at a job's end; a list of jobs leaves it out, and without it the end is plain.
fn last_words(session: &Session, job: &Job) -> Option<String> {
    let events = jobs::events(&session.together, &job.id).unwrap_or_default();
    last_error(&events).map(str::to_owned).filter(|words| !words.is_empty())
}

fn say_job(adopted: &Adopted, ui: &dyn Ui) {
    let job = &adopted.job;
    let how = match (adopted.is_new, adopted.attempt) {
        (true, 1) => "created".to_owned(),
        (true, attempt) => format!("created (attempt {attempt})"),
        (false, _) => format!("found ({}), no other job is started", job.status),
    };
    ui.done(&format!("fine-tuning job {how}: {}", job.id));
    for other in &adopted.others {
        ui.warn(&format!(
            "the job {other} has the same tag: this one is the older; if the other is not wanted: ctxtune cancel {other}"
        ));
    }
}

/// Keeps the job for `--last`; that this fails is said and changes nothing.
fn write_journal(session: &Session, out: &Path, submitted: &Submitted) {
    let Submitted { adopted, account, price, .. } = submitted;
    let Some(path) = session.environment.journal() else { return };
    let started = Started {
        job: adopted.job.id.clone(),
        api: account.api.clone(),
        started_at: session.clock.now().to_string(),
        output_dir: out.canonicalize().unwrap_or_else(|_| out.to_owned()).to_string_lossy().into_owned(),
        estimated_dollars: price.as_ref().and_then(|price| price.dollars),
    };
    if let Err(error) = journal::add(&path, &started) {
        let path = path.display();
        session.ui.warn(&format!("`--last` will not know the job: cannot write `{path}`: {error}"));
    }
}
