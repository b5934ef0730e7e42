//! `ctxtune submit`: what the model allows, the files, the price, a yes, and one job.
//!
//! The order is the promise: nothing leaves the machine without a way to agree to the cost, nothing
//! is uploaded for values that the model refuses, and nothing is created that is there already.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::args::SubmitArgs;
use crate::commands::data::check::verify;
use crate::commands::job::agent::{Agency, wait_for_lock};
use crate::commands::job::dry_run;
use crate::commands::job::estimates;
use crate::commands::job::upload::{Uploaded, upload_sides};
use crate::commands::job::wandb::{self, Chosen};
use crate::commands::job::wandb_run::{self, Announced};
use crate::env;
use crate::exit::{Exit, Failure};
use crate::screen::plan;
use crate::screen::report::{Style, Terminal, printable};
use crate::session::clock::SystemClock;
use crate::session::consent::{Spending, ask};
use crate::session::environment::{Environment, config_file};
use crate::session::service::Service;
use crate::signals::Signals;
use ctxtune_engine::output::lock::OutputLock;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_pipeline::config::{ConfigFile, DEFAULT_OUTPUT_DIR, TuneChoices};
use ctxtune_pipeline::job::cost::{Beside, running_beside};
use ctxtune_pipeline::job::create::{Adopted, Known, Renewal, Submission, is_to_be_watched};
use ctxtune_pipeline::job::expected::Expected;
use ctxtune_pipeline::job::journal::{self, Started};
use ctxtune_pipeline::job::ledger::{Account, Run, RunState};
use ctxtune_pipeline::job::limits::{rows, settle};
use ctxtune_pipeline::job::model;
use ctxtune_pipeline::job::parameters::{Files, Parameters, Settled};
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::job::price::{Extent, Price};
use ctxtune_pipeline::job::tag::Identity;
use ctxtune_service::together::job::{Ending, Job, last_error};
use ctxtune_service::together::jobs::{self, Estimate, Limits};

const COMMAND: &str = "submit";

/// What is to be submitted, and how.
pub struct Order {
    /// The prepared directory.
    pub out: PathBuf,
    /// What the job is asked to do.
    pub parameters: Parameters,
    /// How spending is agreed to.
    pub spending: Spending,
    /// Whether an ended job is submitted again.
    pub renewal: Renewal,
    /// Whether samples may be longer than the model's sequences.
    pub truncation: Truncation,
    /// Whether steps are announced, as `finetune` does.
    pub steps: Steps,
    /// Where it is logged.
    pub wandb: Chosen,
    /// Its place in a sweep of W&B's agent.
    pub agency: Option<Agency>,
}

/// Whether samples may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    /// No: a longer sample is unfit.
    Refused,
    /// Yes.
    Allowed,
}

/// Whether the steps of the whole pipeline are announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// They are.
    Announced,
    /// They are not.
    Silent,
}

impl Steps {
    /// Announces a step of `finetune` on stderr.
    pub fn announce(self, number: u32, what: &str, terminal: &Terminal) {
        if self == Steps::Announced {
            terminal.say("");
            let banner = terminal.banner().map(|banner| format!(" ({banner})")).unwrap_or_default();
            let step = terminal.paint(Style::Label, &format!("Step {number}: {what}"));
            terminal.say(&format!("{step}{banner}"));
        }
    }
}

/// A job that exists, and how it came about.
pub struct Submitted {
    /// The job.
    pub adopted: Adopted,
    /// Whose it is.
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

/// Runs the command.
pub fn run(args: &SubmitArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    let ordered = Environment::read(args.config_path.as_deref(), terminal)
        .and_then(|environment| Ok((order(args, &environment, terminal)?, environment)));
    if args.dry_run {
        let clock = SystemClock::new(signals.clone(), 1.0);
        let requests = ordered
            .and_then(|(order, environment)| dry_run::requests(&order, &args.remote, &clock, &environment));
        return match requests {
            Ok(requests) => dry_run::show(&requests, terminal),
            Err(failure) => terminal.fail(COMMAND, &failure, Map::new()),
        };
    }
    let submitted = ordered.and_then(|(order, environment)| {
        let service = Service::new(&args.remote, environment, signals, terminal)?;
        let (wandb, out) = (order.wandb.clone(), order.out.clone());
        let mut submitted = submit(&service, order, terminal)?;
        let place = (out.as_path(), &submitted.adopted.job);
        submitted.announced = wandb_run::announce(&service, &wandb, place, terminal);
        Ok(submitted)
    });
    match submitted {
        Ok(submitted) => {
            let job = &submitted.adopted.job.id;
            terminal.label("next", &format!("ctxtune monitor {job}"));
            terminal.succeed(COMMAND, Some(job.as_str().as_bytes()), document(&submitted))
        }
        Err(failure) => terminal.fail(COMMAND, &failure, Map::new()),
    }
}

fn order(args: &SubmitArgs, environment: &Environment, terminal: &Terminal) -> Result<Order, Failure> {
    let file = config_file(args.config_path.as_deref())?;
    let chosen = match &file {
        Some(file) => file.tune_choices()?,
        None => TuneChoices::default(),
    };
    let data = file.as_ref().map(ConfigFile::prepare_choices).transpose()?.unwrap_or_default();
    let out = args.output_dir.clone().or(data.output_dir).unwrap_or_else(|| DEFAULT_OUTPUT_DIR.into());
    let seed = Manifest::read(&out)?.options.seed;
    Ok(Order {
        out,
        parameters: args.choices.clone().resolve(chosen, seed),
        spending: Spending::of(&args.spending),
        renewal: if args.spending.new_job { Renewal::New } else { Renewal::Keep },
        truncation: if args.allow_truncation { Truncation::Allowed } else { Truncation::Refused },
        steps: Steps::Silent,
        wandb: wandb::resolve(&args.wandb, file.as_ref(), environment, terminal)?,
        agency: None,
    })
}

/// Refuses where nobody can agree to spend and `out` knows of no job that could be gone on with.
///
/// # Errors
/// That refusal; nothing has left the machine.
pub fn refuse_without_consent(spending: Spending, out: &Path) -> Result<(), Failure> {
    if spending == Spending::Impossible && Run::read_all(out)?.is_empty() {
        return Err(Spending::refusal());
    }
    Ok(())
}

/// Takes the prepared directory of `order` to a job that exists: the one that is there, or a new one.
///
/// # Errors
/// When there is no job in the end, or it has failed or was cancelled before this run.
pub fn submit(service: &Service, mut order: Order, terminal: &Terminal) -> Result<Submitted, Failure> {
    refuse_without_consent(order.spending, &order.out)?;
    // From here on the data is what this manifest says: no other run can publish in between.
    let _lock = match &order.agency {
        Some(_) => wait_for_lock(&order.out, service)?,
        None => OutputLock::acquire(&order.out)?,
    };
    let manifest = Manifest::read(&order.out)?;
    let account = service.account()?;
    let chosen =
        model::choose(&service.together, &mut order.parameters).map_err(|error| service.explain(error))?;
    let has_val = manifest.val.is_some();
    let settled = settle(order.parameters.clone(), &chosen.limits, has_val);
    let rows = rows(&settled, &chosen.limits, has_val);
    plan::refuse(&rows, &chosen.limits)?;
    let wandb_run_id = service.environment.get(env::WANDB_RUN_ID);
    let identity = identity(&account, &manifest, &settled, wandb_run_id);
    let submission = Submission {
        together: &service.together,
        out: &order.out,
        account: &account,
        identity: &identity,
        grace: service.grace(),
        renewal: order.renewal,
        secret_fields: &order.wandb.secret_fields(),
    };
    let jobs = jobs::list(&service.together).map_err(|error| service.explain(error))?;
    let known = submission.find_among(&jobs).map_err(|error| service.explain(error))?;
    let (attempt, pending_since) = match known {
        Known::Job(adopted) => {
            let submitted = go_on(*adopted, account, (&order, service), terminal)?;
            let known = wandb_run::Known {
                manifest: &manifest,
                settled: &settled,
                limits: &chosen.limits,
                price: None,
            };
            plan_run((&order, service), &known, &submitted.adopted.job, terminal)?;
            return Ok(submitted);
        }
        Known::Nothing { attempt, pending_since } => (attempt, pending_since),
    };
    if order.spending == Spending::Impossible {
        return Err(Spending::refusal());
    }
    warn_of_open_intents(&order.out, &account, &identity.tag(attempt), terminal)?;
    let running = running_beside(&jobs, &order.out, (&account, &manifest.train.sha256))?;
    let plan = plan::Plan {
        manifest: &manifest,
        account: &account,
        chosen: &chosen,
        settled: &settled,
        rows: &rows,
        running: &running,
        jobs: &jobs,
    };
    let (uploaded, price) = bring_and_agree(service, &order, &plan, terminal)?;
    let suffix = format!("{}-{}", settled.parameters.suffix, identity.tag(attempt));
    let body = settled.body(files(&uploaded), &suffix);
    let adopted = submission.create(attempt, pending_since, body).map_err(|error| service.explain(error))?;
    estimates::note(&order.out, (&adopted.job.id, price.dollars), terminal);
    let expected = Some(plan.expected(price.train_tokens));
    let submitted = Submitted {
        adopted,
        account,
        price: Some(price),
        expected,
        running,
        announced: Announced::default(),
    };
    write_journal(service, &order.out, &submitted, terminal);
    say_job(&submitted.adopted, terminal);
    let known = wandb_run::Known {
        manifest: &manifest,
        settled: &settled,
        limits: &chosen.limits,
        price: submitted.price.as_ref(),
    };
    plan_run((&order, service), &known, &submitted.adopted.job, terminal)?;
    Ok(submitted)
}

/// Shows the plan, brings checked data to the service, and gets a yes to the price.
fn bring_and_agree(
    service: &Service,
    order: &Order,
    plan: &plan::Plan<'_>,
    terminal: &Terminal,
) -> Result<(Vec<Uploaded>, Price), Failure> {
    let (manifest, settled, limits) = (plan.manifest, plan.settled, &plan.chosen.limits);
    plan::show(plan, &order.out, terminal);
    check(order, settled, limits, (&service.signals, terminal))?;
    order.steps.announce(2, "Uploading files to Together AI", terminal);
    let uploaded = upload_sides(service, plan.account, (&order.out, manifest), terminal)?;
    order.steps.announce(3, "Creating fine-tuning job", terminal);
    let price = price(service, settled, files(&uploaded), extent(manifest, settled, limits))?;
    agree(order, (&price, plan), service, terminal)?;
    if let Some(agency) = &order.agency {
        agency.reserve(&order.out, &price)?;
    }
    Ok((uploaded, price))
}

/// Keeps what the job's run at W&B is to be, and what it counts for in its sweep.
fn plan_run(
    (order, service): (&Order, &Service),
    known: &wandb_run::Known<'_>,
    job: &Job,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let mut config = wandb_run::config(known, job);
    config.extend(wandb_run::suggested(&service.environment));
    wandb_run::plan(service, &order.wandb, (&order.out, config), job, terminal);
    order.agency.as_ref().map_or(Ok(()), |agency| agency.note(&order.out, job))
}

/// Names creations that an earlier run never learned the outcome of, and that this one is not about.
fn warn_of_open_intents(
    out: &Path,
    account: &Account,
    tag: &str,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let is_open = |run: &Run| run.state == RunState::Intent && run.account == *account && run.tag != tag;
    for run in Run::read_all(out)?.iter().filter(|run| is_open(run)) {
        terminal.warn(&printable(&format!(
            "a job with other data or parameters was asked for at {}, and whether it was created is not known: look for a suffix ending in {} with `ctxtune jobs`",
            run.intended_at, run.tag
        )));
    }
    Ok(())
}

/// What makes a job over this data the same job.
pub fn identity(
    account: &Account,
    manifest: &Manifest,
    settled: &Settled,
    wandb_run_id: Option<&str>,
) -> Identity {
    Identity {
        project: account.project.clone(),
        train_sha256: manifest.train.sha256.clone(),
        val_sha256: manifest.val.as_ref().map(|val| val.sha256.clone()),
        settled: settled.clone(),
        wandb_run_id: wandb_run_id.map(str::to_owned),
    }
}

/// The data itself: fit, as the manifest says, and no sample longer than the model's sequences.
fn check(
    order: &Order,
    settled: &Settled,
    limits: &Limits,
    (signals, terminal): (&Signals, &Terminal),
) -> Result<(), Failure> {
    let length = sequence_length(settled, limits).filter(|_| order.truncation == Truncation::Refused);
    verify(std::slice::from_ref(&order.out), length, signals, terminal)
}

/// The longest sequence that is trained on, in tokens, if anybody knows.
pub fn sequence_length(settled: &Settled, limits: &Limits) -> Option<u64> {
    settled.parameters.max_seq_length.or(limits.max_seq_length)
}

/// The ids of both sides.
pub fn files(uploaded: &[Uploaded]) -> Files<'_> {
    let id =
        |label: &str| uploaded.iter().find(|file| file.side.label == label).map(|file| file.file_id.as_str());
    Files { train: id("train").unwrap_or_default(), val: id("val") }
}

/// How many samples of how many tokens the data has at the most.
pub fn extent(manifest: &Manifest, settled: &Settled, limits: &Limits) -> Extent {
    Extent {
        train_samples: manifest.train.records,
        val_samples: manifest.val.as_ref().map_or(0, |val| val.records),
        max_seq_length: sequence_length(settled, limits),
    }
}

/// The service's estimate; that it cannot be had is no failure, but leaves the price unknown.
///
/// # Errors
/// When a signal comes.
pub fn price(
    service: &Service,
    settled: &Settled,
    files: Files<'_>,
    extent: Extent,
) -> Result<Price, Failure> {
    Ok(match estimate(service, &settled.estimate_body(files))? {
        Ok(estimate) => Price::of(&estimate, settled, extent),
        Err(reason) => Price::unknown(reason),
    })
}

/// What the service estimates for this body, or why it does not.
///
/// # Errors
/// When a signal comes.
pub fn estimate(service: &Service, body: &Value) -> Result<Result<Estimate, String>, Failure> {
    match jobs::estimate(&service.together, body) {
        Err(error)
            if matches!(
                error,
                ctxtune_service::together::Error::Http(ctxtune_service::http::Error::Stopped)
            ) =>
        {
            Err(service.explain(error))
        }
        asked => Ok(asked.map_err(|error| error.to_string())),
    }
}

/// A yes to the price: from flags, or from whoever is at the terminal.
fn agree(
    order: &Order,
    (price, plan): (&Price, &plan::Plan<'_>),
    service: &Service,
    terminal: &Terminal,
) -> Result<(), Failure> {
    plan::show_price(price, terminal);
    plan::show_expected(&plan.expected(price.train_tokens), terminal);
    plan::show_running(plan.running, terminal);
    wandb_run::say_handover(&order.wandb, terminal);
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
    match ask(&question, &service.signals, terminal) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(
            Exit::Unspent,
            "declined",
            "the job was not started: the answer was no",
            "run it again to be asked again; the files stay at the service",
        )),
        Err(stopped) => Err(service.explain(stopped)),
    }
}

/// What a re-run does about the job that is there.
fn go_on(
    adopted: Adopted,
    account: Account,
    (order, service): (&Order, &Service),
    terminal: &Terminal,
) -> Result<Submitted, Failure> {
    let job = &adopted.job;
    if is_to_be_watched(job) {
        if order.renewal == Renewal::New && job.status.ending().is_none() {
            terminal.warn(&printable(&format!(
                "the job {} still runs, and --new-job starts none beside it; to replace it: ctxtune cancel {}",
                job.id, job.id
            )));
        }
        say_job(&adopted, terminal);
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
    let said = last_words(service, job).map(|words| format!(": {words}")).unwrap_or_default();
    let message = format!("the job {} for this data and these parameters is {}{said}", job.id, job.status);
    let hint = format!("`ctxtune monitor {}` shows how it ended; --new-job pays for another one", job.id);
    Err(Failure::new(exit, code, message, hint))
}

/// What the service said at a job's end; a list of jobs leaves it out, and without it the end is plain.
fn last_words(service: &Service, job: &Job) -> Option<String> {
    let events = jobs::events(&service.together, &job.id).unwrap_or_default();
    last_error(&events).map(str::to_owned).filter(|words| !words.is_empty())
}

fn say_job(adopted: &Adopted, terminal: &Terminal) {
    let job = &adopted.job;
    let how = match (adopted.is_new, adopted.attempt) {
        (true, 1) => "created".to_owned(),
        (true, attempt) => format!("created (attempt {attempt})"),
        (false, _) => format!("found ({}), no other job is started", job.status),
    };
    terminal.done(&format!("fine-tuning job {how}: {}", job.id));
    for other in &adopted.others {
        terminal.warn(&printable(&format!(
            "the job {other} has the same tag: this one is the older; if the other is not wanted: ctxtune cancel {other}"
        )));
    }
}

/// Keeps the job for `--last`; that this fails is said and changes nothing.
fn write_journal(service: &Service, out: &Path, submitted: &Submitted, terminal: &Terminal) {
    let Submitted { adopted, account, price, .. } = submitted;
    let Some(path) = service.environment.journal() else { return };
    let started = Started {
        job: adopted.job.id.clone(),
        api: account.api.clone(),
        started_at: service.clock.now().to_string(),
        output_dir: out.canonicalize().unwrap_or_else(|_| out.to_owned()).to_string_lossy().into_owned(),
        estimated_dollars: price.as_ref().and_then(|price| price.dollars),
    };
    if let Err(error) = journal::add(&path, &started) {
        terminal.warn(&printable(&format!(
            "`--last` will not know the job: cannot write `{}`: {error}",
            path.display()
        )));
    }
}

/// The fields of the JSON document beside the common ones.
pub fn document(submitted: &Submitted) -> Map<String, Value> {
    let Submitted { adopted, account, price, expected, running, announced } = submitted;
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("job", adopted.job.id.as_str().into());
    put("status", adopted.job.status.as_str().into());
    put("created", adopted.is_new.into());
    put("attempt", adopted.attempt.into());
    put("tag", adopted.tag.clone().into());
    put("other_jobs", adopted.others.iter().map(|job| Value::from(job.as_str())).collect());
    put("api", account.api.clone().into());
    put("project", account.project.clone().into());
    put("wandb_url", announced.url.clone().into());
    put("logged_by", announced.logged_by.into());
    let running = running.iter().map(|Beside { job, estimated, .. }| {
        json!({
            "job": job.id.as_str(), "status": job.status.as_str(),
            "price_dollars": job.price(), "estimated_dollars": estimated,
        })
    });
    put("running_jobs", running.collect());
    put("expected_time", expected.as_ref().map_or(Value::Null, plan::expected_value));
    put(
        "price",
        price.as_ref().map_or(Value::Null, |price| {
            json!({
                "estimated_dollars": price.dollars, "unknown_because": price.reason, "basis": price.basis,
                "train_tokens": price.train_tokens, "eval_tokens": price.eval_tokens,
            })
        }),
    );
    fields
}
