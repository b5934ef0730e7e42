//! `ctxtune deploy`: a finished job's model under a name that requests can give, for a time.
//!
//! The order is the promise: what can be refused is refused first, the price by the minute is shown
//! and agreed to before anything is created, and whatever ends the command says whether anything
//! runs. What is there already is gone on with: a run that was killed and is repeated pays once.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::args::{DeployArgs, StopAfter};
use crate::commands::model::endpoints::{a_minute, costs, project};
use crate::commands::model::hold::{Hold, Left};
use crate::screen::report::Terminal;
use crate::session;
use crate::signals::catch_hang_up;
use ctxtune_pipeline::deploy::{DeployError, Placed, name_of};
use ctxtune_pipeline::failure::{Exit, Failure};
use ctxtune_pipeline::job::mismatch::Mismatch;
use ctxtune_pipeline::job::model::{REFERENCE, gives_adapter_only};
use ctxtune_pipeline::job::monitor::spoken;
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::session::Session;
use ctxtune_pipeline::session::consent::Spending;
use ctxtune_pipeline::signals::Signals;
use ctxtune_pipeline::text::one_line;
use ctxtune_pipeline::ui::Ui;
use ctxtune_service::clock::Clock;
use ctxtune_service::together::endpoints::{Deployment, NewDeployment};
use ctxtune_service::together::hardware::{Catalogue, Config, configs};
use ctxtune_service::together::job::{Ending, Job};
use ctxtune_service::together::jobs;
use ctxtune_service::together::project::Project;

const COMMAND: &str = "deploy";

/// Minutes without a request after which the service may be asked to stop something.
const IDLE_MINUTES: [u64; 2] = [30, 1440];

/// What the arithmetic of prices may add.
const ROUNDING: f64 = 1e-9;

/// The pause between two lines about a state that does not change.
const REPEAT: Duration = Duration::from_secs(120);

/// What is to be deployed, how, and at what price.
struct Plan {
    session: Session,
    project: Project,
    job: Job,
    model: String,
    config: Config,
    dollars_a_minute: Option<f64>,
    /// How long it stays up; absent where nothing stops it.
    time: Option<Duration>,
    found: Option<Placed>,
    name: String,
    /// Where the job's directory holds other data now.
    mismatch: Option<Mismatch>,
}

impl Plan {
    fn hold<'p>(&'p self, args: &'p DeployArgs) -> Hold<'p> {
        Hold {
            session: &self.session,
            remote: &args.remote,
            project: &self.project,
            endpoint: &args.name,
            name: &self.name,
            dollars_a_minute: self.dollars_a_minute,
        }
    }

    /// What it costs until it is stopped.
    fn dollars(&self) -> Option<f64> {
        Some(costs(self.dollars_a_minute?, self.time?))
    }

    /// The service's own limit, where it allows one as long as the time.
    fn idle_minutes(&self) -> Option<u64> {
        let minutes = self.time?.as_secs().div_ceil(60);
        (IDLE_MINUTES[0]..=IDLE_MINUTES[1]).contains(&minutes).then_some(minutes)
    }

    /// Whether it costs money already, so that going on spends nothing new.
    fn is_running(&self) -> bool {
        let found = self.found.as_ref().map(|placed| &placed.deployment);
        found.is_some_and(|deployment| deployment.is_up())
    }
}

/// What came of it, for the document.
#[derive(Default)]
struct Came {
    placed: Option<Placed>,
    model: Option<String>,
    is_stopped: bool,
}

/// Runs the command.
pub fn run(args: &DeployArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    let plan = match plan(args, signals, terminal) {
        Ok(plan) => plan,
        Err(failure) => return terminal.fail(COMMAND, &failure, Map::new()),
    };
    let mut came = Came { placed: plan.found.clone(), ..Came::default() };
    show(&plan, args, terminal);
    if let Err(failure) = agree(&plan, args, terminal) {
        return terminal.fail(COMMAND, &failure, document(&plan, args, &came));
    }
    let hold = plan.hold(args);
    if let Err(error) = bring_up(&plan, &hold, &mut came, terminal) {
        let failure = plan.session.explain(error);
        let (failure, left) = hold.abandon(came.placed.as_ref(), failure, terminal);
        came.is_stopped = left == Left::Stopped;
        return terminal.fail(COMMAND, &failure, document(&plan, args, &came));
    }
    let Some(placed) = came.placed.clone() else { return Exit::Failed };
    say_up(&plan, &hold, &placed, terminal);
    let model = one_line(came.model.as_deref().unwrap_or_default());
    let Some(time) = plan.time else {
        return terminal.succeed(COMMAND, Some(model.as_bytes()), document(&plan, args, &came));
    };
    if !terminal.voice().json {
        terminal.deliver(COMMAND, format!("{model}\n").as_bytes());
    }
    match hold.stay(&placed, time, terminal) {
        Ok(()) => {
            came.is_stopped = true;
            terminal.succeed(COMMAND, None, document(&plan, args, &came))
        }
        Err((failure, left)) => {
            came.is_stopped = left == Left::Stopped;
            terminal.fail(COMMAND, &failure, document(&plan, args, &came))
        }
    }
}

/// Asks all that costs nothing.
fn plan(args: &DeployArgs, signals: &Signals, terminal: &Terminal) -> Result<Plan, Failure> {
    let time = match args.stop_after {
        StopAfter::Time(time) if !args.detach => Some(time),
        _ => None,
    };
    if time.is_none() && args.max_cost.is_some() {
        let message = "--max-cost holds against the time until it is stopped, and nothing stops it";
        return Err(Failure::new(Exit::Usage, "usage", message, "give --stop-after a time, or say --yes"));
    }
    catch_hang_up(signals).map_err(|error| {
        let message = format!("cannot catch the end of the terminal: {error}");
        Failure { exit: Exit::Failed, code: "signals", message, hint: None }
    })?;
    let session = session::open(&args.remote, signals, terminal)?;
    let id = session.job(args.target.as_deref())?;
    let job = jobs::retrieve(&session.together, &id).map_err(|error| session.explain(error))?;
    let target = args.target.as_deref().map(Path::new);
    session.note_status(target, &job);
    let mismatch = session.directory_of(target, &id).and_then(|out| Mismatch::of_job(&out, &id));
    let model = deployable(&session, &job)?;
    let (project, _) = project(&session)?;
    let fitting = configs(&session.together, &project, &model).map_err(|error| session.explain(error))?;
    let catalogue = Catalogue::look_up(&session.together);
    let config = choose(fitting, &catalogue, (&job, args.config.as_deref()))?;
    let dollars_a_minute = config.hardware.as_ref().and_then(|hardware| catalogue.dollars_a_minute(hardware));
    let name = name_of(&job.id);
    let mut plan =
        Plan { session, project, job, model, config, dollars_a_minute, time, found: None, name, mismatch };
    plan.found = plan.hold(args).deploying().find().map_err(|error| plan.session.explain(error))?;
    Ok(plan)
}

/// The object of the job's model, where there is one that can be deployed.
fn deployable(session: &Session, job: &Job) -> Result<String, Failure> {
    let id = &job.id;
    if let Some(base) = job.model().filter(|base| base.ends_with(REFERENCE)) {
        let message = format!(
            "the job {id} tuned {base}, and what is tuned from a -Reference model cannot be deployed at Together"
        );
        let hint = format!(
            "`ctxtune download {id} --adapter --extract DIR` and serve it yourself; to deploy there, tune another --base-model"
        );
        return Err(Failure::new(Exit::Usage, "not_deployable", message, hint));
    }
    let (exit, code, hint) = match job.status.ending() {
        Some(Ending::Completed) => {
            return job.model_object_id().ok_or_else(|| {
                if gives_adapter_only(&session.together, job) {
                    let base = job.model().unwrap_or_default();
                    let message = format!(
                        "the job {id} has an adapter only: LoRA is not merged into {base}, and there is no model to deploy"
                    );
                    let hint = format!("`ctxtune download {id} --extract DIR` and serve the adapter with its base model");
                    return Failure::new(Exit::Usage, "not_deployable", message, hint);
                }
                let message = format!("the service names no object of the model of the job {id}");
                Failure::new(Exit::Failed, "no_model_object", message, "try again a little later")
            });
        }
        Some(Ending::Failed) => {
            (Exit::JobFailed, "job_failed", format!("ctxtune monitor {id} shows how it ended"))
        }
        Some(Ending::Cancelled) => {
            (Exit::JobCancelled, "job_cancelled", format!("ctxtune checkpoints {id} lists what was kept"))
        }
        None => (Exit::JobRunning, "job_running", format!("ctxtune monitor {id} waits for its end")),
    };
    let message = format!("the job {id} has no finished model: it is {}", job.status);
    Err(Failure::new(exit, code, message, hint))
}

/// The configuration that was named, the only one, or the cheapest.
fn choose(
    fitting: Vec<Config>,
    catalogue: &Catalogue,
    (job, wanted): (&Job, Option<&str>),
) -> Result<Config, Failure> {
    let ids = fitting.iter().map(|config| config.id.clone()).collect::<Vec<_>>().join(", ");
    let refuse = |code, message: String, hint: &str| Err(Failure::new(Exit::Usage, code, message, hint));
    if fitting.is_empty() {
        let base = job.model().unwrap_or_default();
        let message = format!("the service has no configuration to deploy what was tuned from {base}");
        let hint = format!(
            "`ctxtune download {} --extract DIR` and serve it yourself, or tune another --base-model",
            job.id
        );
        return refuse("not_deployable", message, &hint);
    }
    if let Some(wanted) = wanted {
        let hint = format!("there are {ids}");
        return match fitting.into_iter().find(|config| config.id == wanted) {
            Some(config) => Ok(config),
            None => refuse("no_config", format!("no configuration of this model is called {wanted}"), &hint),
        };
    }
    let price = |config: &Config| catalogue.dollars_a_minute(config.hardware.as_deref()?);
    let (whole, adapters): (Vec<Config>, Vec<Config>) =
        fitting.into_iter().partition(|config| !config.is_for_adapters);
    let mut left = if whole.is_empty() { adapters } else { whole };
    if left.len() > 1 && left.iter().all(|config| price(config).is_none()) {
        let message = format!("several configurations fit, at prices that are not known: {ids}");
        return refuse("several_configs", message, "choose one with --config");
    }
    // Of equal prices the first, in the order of the service.
    let of = |config: &Config| price(config).unwrap_or(f64::INFINITY);
    let cheapest = (0..left.len()).min_by(|a, b| of(&left[*a]).total_cmp(&of(&left[*b])));
    Ok(left.swap_remove(cheapest.unwrap_or(0)))
}

fn show(plan: &Plan, args: &DeployArgs, terminal: &Terminal) {
    let say = |label: &str, text: &str| terminal.label(label, &one_line(text));
    say("job", &format!("{}  {}", plan.job.id, plan.job.model_output_name().unwrap_or_default()));
    say("endpoint", &args.name);
    if let Some(mismatch) = &plan.mismatch {
        mismatch.warn(terminal);
    }
    let hardware = plan.config.hardware.as_deref().unwrap_or("a machine that is not named");
    say("config", &format!("{} on {hardware}", plan.config.id));
    let window = match (plan.time, plan.dollars()) {
        (Some(time), Some(dollars)) => format!(", {} for {}", dollars_text(dollars), spoken(&time)),
        _ => String::new(),
    };
    say("price", &format!("{}{window}; getting ready may be billed too", a_minute(plan.dollars_a_minute)));
}

/// A yes to the price: from flags, or from whoever is at the terminal.
fn agree(plan: &Plan, args: &DeployArgs, terminal: &Terminal) -> Result<(), Failure> {
    if plan.is_running() {
        return Ok(());
    }
    let refuse = |code, message: String, hint: &str| Err(Failure::new(Exit::Unspent, code, message, hint));
    match (Spending::of(args.yes, args.max_cost, terminal), plan.dollars()) {
        (Spending::Impossible, _) => refuse(
            "no_consent",
            "a deployment costs money by the minute, and nobody is at a terminal to agree to it".to_owned(),
            "agree with --max-cost USD (a cap of what its time costs) or --yes",
        ),
        (Spending::Agreed { max_cost: Some(cap) }, Some(dollars)) if dollars > cap + ROUNDING => refuse(
            "over_max_cost",
            format!("its time costs {}, and --max-cost is {}", dollars_text(dollars), dollars_text(cap)),
            "raise --max-cost, or shorten --stop-after",
        ),
        (Spending::Agreed { max_cost: Some(_) }, None) => refuse(
            "no_estimate",
            "the price by the minute is not known, so that nothing can be held against --max-cost".to_owned(),
            "leave out --max-cost and answer yourself, or say --yes",
        ),
        (Spending::Agreed { .. }, _) => Ok(()),
        (Spending::Asked, _) => match terminal.ask(&question(plan), &plan.session.signals) {
            Ok(true) => Ok(()),
            Ok(false) => refuse(
                "declined",
                "nothing was deployed: the answer was no".to_owned(),
                "run it again to be asked again",
            ),
            Err(stopped) => Err(plan.session.explain(stopped)),
        },
    }
}

fn question(plan: &Plan) -> String {
    match (plan.time, plan.dollars()) {
        (Some(time), Some(dollars)) => {
            format!("Deploy it for {}, for about {}?", spoken(&time), dollars_text(dollars))
        }
        (Some(time), None) => format!("Deploy it for {}, at a price nobody knows?", spoken(&time)),
        (None, _) => format!("Deploy it, at {}, until somebody stops it?", a_minute(plan.dollars_a_minute)),
    }
}

/// Brings it up until it answers; `came` knows how far it went.
fn bring_up(plan: &Plan, hold: &Hold<'_>, came: &mut Came, terminal: &Terminal) -> Result<(), DeployError> {
    let deploying = hold.deploying();
    let new = NewDeployment {
        name: &plan.name,
        model: &plan.model,
        config: &plan.config,
        idle_minutes: plan.idle_minutes(),
    };
    let mut placed = match plan.found.clone().filter(|_| plan.is_running()) {
        // Nobody was asked: whatever becomes of it meanwhile, nothing new is paid for.
        Some(found) => found,
        None => deploying.bring_up(&new)?,
    };
    came.placed = Some(placed.clone());
    let how = if placed.is_new { "created" } else { "found, and gone on with" };
    terminal.label("deployed", &format!("{} {how}", plan.name));
    let mut states = States::new(plan.session.clock.as_ref());
    placed.deployment = deploying.wait(&placed, &mut |deployment| states.tell(deployment, terminal))?;
    came.placed = Some(placed.clone());
    placed.endpoint = deploying.route(&placed)?;
    let name = &placed.endpoint.name;
    came.model = Some(match &plan.project.slug {
        Some(slug) if !name.contains('/') => format!("{slug}/{name}"),
        _ => name.clone(),
    });
    came.placed = Some(placed);
    Ok(())
}

/// Says what a deployment is doing when that changes, and now and then when it does not.
struct States<'c> {
    clock: &'c dyn Clock,
    start: Duration,
    last: Option<(String, Duration)>,
}

impl<'c> States<'c> {
    fn new(clock: &'c dyn Clock) -> States<'c> {
        States { clock, start: clock.elapsed(), last: None }
    }

    fn tell(&mut self, deployment: &Deployment, terminal: &Terminal) {
        let words = match deployment.message.as_str() {
            "" => deployment.state.to_string(),
            message => format!("{}: {message}", deployment.state),
        };
        let now = self.clock.elapsed();
        let is_told =
            self.last.as_ref().is_some_and(|(last, at)| *last == words && now.saturating_sub(*at) < REPEAT);
        if !is_told {
            let waited = Duration::from_secs(now.saturating_sub(self.start).as_secs());
            terminal.label("state", &one_line(&format!("{words} ({})", spoken(&waited))));
            self.last = Some((words, now));
        }
    }
}

/// How it is called, what it costs, and what stops it.
fn say_up(plan: &Plan, hold: &Hold<'_>, placed: &Placed, terminal: &Terminal) {
    let price = a_minute(plan.dollars_a_minute);
    terminal.label("ready", &format!("{} answers, and costs {price}", one_line(&placed.endpoint.name)));
    terminal.label("stop", &hold.stop_command());
    let idle = placed
        .deployment
        .idle_minutes
        .map(|minutes| format!("after {minutes} min without a request the service stops it itself"));
    let Some(time) = plan.time else {
        terminal.warn(&format!(
            "nothing stops it: it costs {price} until `{}`{}",
            hold.stop_command(),
            idle.map(|idle| format!("; {idle}")).unwrap_or_default()
        ));
        return;
    };
    let at = plan.session.clock.now().checked_add(time).map(|at| at.strftime("%F %RZ").to_string());
    let at = at.map(|at| format!(", at {at}")).unwrap_or_default();
    terminal.label("until", &format!("in {}{at}, or a signal, this process stops it", spoken(&time)));
    let net = idle.map_or("nothing else does".to_owned(), |idle| format!("only {idle}"));
    terminal.say(&format!("          if this process is killed or this machine is off by then, {net}"));
}

/// The fields of the JSON document beside the common ones.
fn document(plan: &Plan, args: &DeployArgs, came: &Came) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    let deployment = came.placed.as_ref().map(|placed| &placed.deployment);
    put("job", plan.job.id.as_str().into());
    put("endpoint", args.name.clone().into());
    put("endpoint_id", came.placed.as_ref().map(|placed| placed.endpoint.id.clone()).into());
    put("deployment", plan.name.clone().into());
    put("deployment_id", deployment.map(|deployment| deployment.id.clone()).into());
    put("model", came.model.clone().into());
    put("created", came.placed.as_ref().is_some_and(|placed| placed.is_new).into());
    put("price_per_minute", plan.dollars_a_minute.into());
    put("stop_after_seconds", plan.time.map(|time| time.as_secs_f64()).into());
    put("idle_minutes", deployment.and_then(|deployment| deployment.idle_minutes).into());
    put("stopped", came.is_stopped.into());
    Mismatch::add(plan.mismatch.as_ref(), &mut fields);
    fields
}
