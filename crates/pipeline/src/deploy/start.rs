//! A deployment begins: what can be refused is refused first, the price by the minute is shown and agreed to before
//! anything is created, and whatever ends it says whether anything runs. What is there already is reused: a run that
//! was killed and is repeated pays once.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::deploy::hold::{Hold, Left};
use crate::deploy::running::{a_minute, costs, project};
use crate::deploy::{DeployError, Placed, name_of};
use crate::failure::{Exit, Failure};
use crate::job::mismatch::Mismatch;
use crate::job::model::{REFERENCE, gives_adapter_only};
use crate::job::monitor::spoken;
use crate::job::price::dollars_text;
use crate::session::Session;
use crate::session::consent::{ASK_AGAIN, Spending};
use crate::text::one_line;
use ctxtune_service::together::endpoints::{Deployment, NewDeployment};
use ctxtune_service::together::hardware::{Catalogue, Config, configs};
use ctxtune_service::together::project::Project;
use ctxtune_service::together::{Ending, Job, JobId, jobs};

/// Minutes without a request after which the service may be asked to stop something.
const IDLE_MINUTES: [u64; 2] = [30, 1440];
const ROUNDING: f64 = 1e-9;
/// The pause between two lines about a state that does not change.
const REPEAT: Duration = Duration::from_secs(120);

pub struct Order {
    /// The job, or a directory that knows it; nothing: the newest one of this machine.
    pub target: Option<String>,
    pub endpoint: String,
    pub config: Option<String>,
    /// How long it stays up; absent where nothing stops it.
    pub time: Option<Duration>,
    pub spending: Spending,
}

struct Plan<'s> {
    session: &'s Session,
    order: Order,
    project: Project,
    job: Job,
    model: String,
    config: Config,
    dollars_a_minute: Option<f64>,
    name: String,
    /// Where the job's directory holds other data now.
    mismatch: Option<Mismatch>,
}

pub struct DeployResult<'s> {
    plan: Plan<'s>,
    /// What is at the service: before the start what was found there.
    placed: Option<Placed>,
    pub callable: Option<String>,
    is_stopped: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The job.
    pub job: JobId,
    /// The endpoint's name.
    pub endpoint: String,
    /// Its id; `null` until it exists.
    pub endpoint_id: Option<String>,
    /// The deployment's name.
    pub deployment: String,
    /// Its id; `null` until it exists.
    pub deployment_id: Option<String>,
    /// What requests name as their model; `null` until it answers.
    pub model: Option<String>,
    /// Whether this run created the deployment.
    pub created: bool,
    /// What a minute costs, in dollars; `null` where that is not known.
    pub price_per_minute: Option<f64>,
    /// After how long this process stops it; `null`: never.
    pub stop_after_seconds: Option<f64>,
    /// After how many minutes without a request the service stops it; `null` where it does not say.
    pub idle_minutes: Option<u64>,
    /// Whether this run stopped it.
    pub stopped: bool,
    /// Only where the job's directory holds other data now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_mismatch: Option<Mismatch>,
}

/// Finds what is to be deployed, shows it, gets a yes, and deploys it until it answers. An error comes with how
/// far it was, where anything is known about it.
pub fn deploy(session: &Session, order: Order) -> Result<DeployResult<'_>, (Failure, Option<Box<Report>>)> {
    let plan = plan(session, order).map_err(|failure| (failure, None))?;
    let placed = plan.hold().deploying().find().map_err(|error| (session.explain(error), None))?;
    plan.show();
    let mut result = DeployResult { plan, placed, callable: None, is_stopped: false };
    let agreed = if result.is_running() { Ok(()) } else { result.plan.agree() };
    if let Err(failure) = agreed {
        let report = result.report();
        return Err((failure, Some(Box::new(report))));
    }
    if let Err(error) = result.start() {
        let failure = session.explain(error);
        let (failure, left) = result.plan.hold().abandon(result.placed.as_ref(), failure);
        result.is_stopped = left == Left::Stopped;
        let report = result.report();
        return Err((failure, Some(Box::new(report))));
    }
    result.say_up();
    Ok(result)
}

fn plan(session: &Session, order: Order) -> Result<Plan<'_>, Failure> {
    let id = session.job(order.target.as_deref())?;
    let job = jobs::retrieve(&session.together, &id).map_err(|error| session.explain(error))?;
    let target = order.target.as_deref().map(Path::new);
    session.note_status(target, &job);
    let mismatch = session.directory_of(target, &id).and_then(|out| Mismatch::of_job(&out, &id));
    let model = deployable(session, &job)?;
    let (project, _) = project(session)?;
    let fitting = configs(&session.together, &project, &model).map_err(|error| session.explain(error))?;
    let catalogue = Catalogue::look_up(&session.together);
    let config = choose(fitting, &catalogue, &job, order.config.as_deref())?;
    let dollars_a_minute = config.hardware.as_ref().and_then(|hardware| catalogue.dollars_a_minute(hardware));
    let name = name_of(&job.id);
    Ok(Plan { session, order, project, name, job, model, config, dollars_a_minute, mismatch })
}

/// The object of the job's model, where there is one that can be deployed.
fn deployable(session: &Session, job: &Job) -> Result<String, Failure> {
    let id = &job.id;
    if let Some(base) = job.model().filter(|base| base.ends_with(REFERENCE)) {
        let message = format!(
            "the job {id} tuned {base}, and what is tuned from a -Reference model cannot be deployed at Together"
        );
        let hint = format!(
            "`ctxtune download {id} --adapter --extract DIR` and serve it yourself; to deploy there, tune another --base-model (`ctxtune models`)"
        );
        return Err(Failure::usage("not_deployable", message, hint));
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
                    return Failure::usage("not_deployable", message, hint);
                }
                let message = format!("the service names no object of the model of the job {id}");
                Failure::failed("no_model_object", message, "try again a little later")
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
    job: &Job,
    wanted: Option<&str>,
) -> Result<Config, Failure> {
    let ids = fitting.iter().map(|config| config.id.clone()).collect::<Vec<_>>().join(", ");
    let refuse = |code, message: String, hint: &str| Err(Failure::usage(code, message, hint));
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

impl Plan<'_> {
    fn hold(&self) -> Hold<'_> {
        Hold {
            session: self.session,
            project: &self.project,
            endpoint: &self.order.endpoint,
            name: &self.name,
            dollars_a_minute: self.dollars_a_minute,
        }
    }

    /// What it costs until it is stopped.
    fn dollars(&self) -> Option<f64> {
        Some(costs(self.dollars_a_minute?, self.order.time?))
    }

    /// The service's own limit, where it allows one as long as the time.
    fn idle_minutes(&self) -> Option<u64> {
        let minutes = self.order.time?.as_secs().div_ceil(60);
        (IDLE_MINUTES[0]..=IDLE_MINUTES[1]).contains(&minutes).then_some(minutes)
    }

    fn show(&self) {
        let say = |label: &str, text: &str| self.session.ui.label(label, &one_line(text));
        say("job", &format!("{}  {}", self.job.id, self.job.model_output_name().unwrap_or_default()));
        say("endpoint", &self.order.endpoint);
        if let Some(mismatch) = &self.mismatch {
            mismatch.warn(&*self.session.ui);
        }
        let hardware = self.config.hardware.as_deref().unwrap_or("a machine that is not named");
        say("config", &format!("{} on {hardware}", self.config.id));
        let window = match (self.order.time, self.dollars()) {
            (Some(time), Some(dollars)) => format!(", {} for {}", dollars_text(dollars), spoken(&time)),
            _ => String::new(),
        };
        say(
            "price",
            &format!("{}{window}; getting ready may be billed too", a_minute(self.dollars_a_minute)),
        );
    }

    /// A yes to the price: from flags, or from whoever is at the terminal.
    fn agree(&self) -> Result<(), Failure> {
        let refuse = |code, message: String, hint: &str| Err(Failure::unspent(code, message, hint));
        match (self.order.spending, self.dollars()) {
            (Spending::Impossible, _) => refuse(
                "no_consent",
                "a deployment costs money by the minute, and this is not a terminal to ask at".to_owned(),
                "agree with --max-cost USD (a cap of what its time costs) or --yes",
            ),
            (Spending::Agreed { max_cost: Some(cap) }, Some(dollars)) if dollars > cap + ROUNDING => refuse(
                "over_max_cost",
                format!("its time costs {}, and --max-cost is {}", dollars_text(dollars), dollars_text(cap)),
                "raise --max-cost, or shorten --stop-after",
            ),
            (Spending::Agreed { max_cost: Some(_) }, None) => refuse(
                "no_estimate",
                "the price by the minute is not known, so that nothing can be held against --max-cost"
                    .to_owned(),
                "leave out --max-cost and answer yourself, or say --yes",
            ),
            (Spending::Agreed { .. }, _) => Ok(()),
            (Spending::Asked, _) => self.session.confirm(&self.question(), "nothing was deployed", ASK_AGAIN),
        }
    }

    fn question(&self) -> String {
        match (self.order.time, self.dollars()) {
            (Some(time), Some(dollars)) => {
                format!("Deploy it for {}, for about {}?", spoken(&time), dollars_text(dollars))
            }
            (Some(time), None) => format!("Deploy it for {}, at a price nobody knows?", spoken(&time)),
            (None, _) => {
                format!("Deploy it, at {}, until somebody stops it?", a_minute(self.dollars_a_minute))
            }
        }
    }
}

impl DeployResult<'_> {
    pub fn report(&self) -> Report {
        let deployment = self.placed.as_ref().map(|placed| &placed.deployment);
        Report {
            job: self.plan.job.id.clone(),
            endpoint: self.plan.order.endpoint.clone(),
            endpoint_id: self.placed.as_ref().map(|placed| placed.endpoint.id.clone()),
            deployment: self.plan.name.clone(),
            deployment_id: deployment.map(|deployment| deployment.id.clone()),
            model: self.callable.clone(),
            created: self.placed.as_ref().is_some_and(|placed| placed.is_new),
            price_per_minute: self.plan.dollars_a_minute,
            stop_after_seconds: self.plan.order.time.map(|time| time.as_secs_f64()),
            idle_minutes: deployment.and_then(|deployment| deployment.idle_minutes),
            stopped: self.is_stopped,
            data_mismatch: self.plan.mismatch.clone(),
        }
    }

    /// Stays for its time, then stops it; at once where it has none.
    pub fn stay(&mut self) -> Result<(), Failure> {
        let (Some(placed), Some(time)) = (self.placed.clone(), self.plan.order.time) else { return Ok(()) };
        let stayed = self.plan.hold().stay(&placed, time);
        self.is_stopped = !matches!(&stayed, Err((_, Left::Alone)));
        stayed.map_err(|(failure, _)| failure)
    }

    /// Whether it costs money already, so that going on spends nothing new.
    fn is_running(&self) -> bool {
        self.placed.as_ref().is_some_and(|placed| placed.deployment.is_up())
    }

    fn start(&mut self) -> Result<(), DeployError> {
        let Plan { session, name, model, config, .. } = &self.plan;
        let hold = self.plan.hold();
        let deploying = hold.deploying();
        let new = NewDeployment { name, model, config, idle_minutes: self.plan.idle_minutes() };
        let mut placed = match self.placed.clone().filter(|_| self.is_running()) {
            // Nobody was asked: whatever becomes of it meanwhile, nothing new is paid for.
            Some(found) => found,
            None => deploying.bring_up(&new)?,
        };
        self.placed = Some(placed.clone());
        let how = if placed.is_new { "created" } else { "found, and reused" };
        session.ui.label("deployed", &format!("{name} {how}"));
        let mut states = States::new(session);
        placed.deployment = deploying.wait(&placed, &mut |deployment| states.tell(deployment))?;
        self.placed = Some(placed.clone());
        placed.endpoint = deploying.route(&placed)?;
        let name = &placed.endpoint.name;
        self.callable = Some(match &self.plan.project.slug {
            Some(slug) if !name.contains('/') => format!("{slug}/{name}"),
            _ => name.clone(),
        });
        self.placed = Some(placed);
        Ok(())
    }

    fn say_up(&self) {
        let Some(placed) = &self.placed else { return };
        let (hold, ui) = (self.plan.hold(), &self.plan.session.ui);
        let price = a_minute(self.plan.dollars_a_minute);
        ui.label("ready", &format!("{} answers, and costs {price}", one_line(&placed.endpoint.name)));
        ui.label("stop", &hold.stop_command());
        let idle = placed
            .deployment
            .idle_minutes
            .map(|minutes| format!("after {minutes} min without a request the service stops it itself"));
        let Some(time) = self.plan.order.time else {
            ui.warn(&format!(
                "nothing stops it: it costs {price} until `{}`{}",
                hold.stop_command(),
                idle.map(|idle| format!("; {idle}")).unwrap_or_default()
            ));
            return;
        };
        let at = self.plan.session.clock.now().checked_add(time).map(|at| at.strftime("%F %RZ").to_string());
        let at = at.map(|at| format!(", at {at}")).unwrap_or_default();
        ui.label("until", &format!("in {}{at}, or a signal, this process stops it", spoken(&time)));
        let net = idle.map_or("nothing else does".to_owned(), |idle| format!("only {idle}"));
        ui.say(&format!("          if this process is killed or this machine is off by then, {net}"));
    }
}

/// Says what a deployment is doing when that changes, and now and then when it does not.
struct States<'c> {
    session: &'c Session,
    start: Duration,
    last: Option<(String, Duration)>,
}

impl<'c> States<'c> {
    fn new(session: &'c Session) -> States<'c> {
        States { session, start: session.clock.elapsed(), last: None }
    }

    fn tell(&mut self, deployment: &Deployment) {
        let words = match deployment.message.as_str() {
            "" => deployment.state.to_string(),
            message => format!("{}: {message}", deployment.state),
        };
        let now = self.session.clock.elapsed();
        let is_told =
            self.last.as_ref().is_some_and(|(last, at)| *last == words && now.saturating_sub(*at) < REPEAT);
        if !is_told {
            let waited = Duration::from_secs(now.saturating_sub(self.start).as_secs());
            self.session.ui.label("state", &one_line(&format!("{words} ({})", spoken(&waited))));
            self.last = Some((words, now));
        }
    }
}
