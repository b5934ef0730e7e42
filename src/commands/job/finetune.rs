//! `ctxtune finetune`: prepare, upload, submit, monitor, in the seed's four steps.
//!
//! Each step finds what an earlier run has done: the data unchanged, the files there, the job
//! running. So the same command goes on wherever it was stopped.

use std::path::{Path, PathBuf};

use serde_json::Map;

use crate::args::FinetuneArgs;
use crate::commands::data::prepare::prepare_corpus;
use crate::commands::job::agent::{Agency, cancel_unwanted, patiently};
use crate::commands::job::monitor::{self, Shown};
use crate::commands::job::submit::{self, Order, Steps, Truncation, refuse_without_consent};
use crate::commands::job::wandb::{self, Chosen, HOW_TO_LOG, Way, Why};
use crate::commands::job::wandb_run;
use crate::exit::{Exit, Failure};
use crate::screen::report::{Style, Terminal, printable};
use crate::session::consent::Spending;
use crate::session::environment::{Environment, config_file};
use crate::session::service::Service;
use crate::signals::Signals;
use ctxtune_pipeline::config::{PrepareChoices, TuneChoices};
use ctxtune_pipeline::job::create::Renewal;

/// Where the seed's configuration file may be.
const CONFIG_PLACES: [&str; 2] = ["finetune_config.yaml", "training/finetune_config.yaml"];

/// Runs the command.
pub fn run(args: &FinetuneArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    let config_path = args.corpus.config_path.clone().or_else(find_config);
    let environment = match Environment::read(config_path.as_deref(), terminal) {
        Ok(environment) => environment,
        Err(failure) => return terminal.fail("finetune", &failure, Map::new()),
    };
    let run = Run { command: "finetune", config_path: config_path.as_deref(), environment, signals };
    finetune(args, run, terminal)
}

/// Where a run's settings and keys come from.
pub struct Run<'r> {
    /// The command that the document names.
    pub command: &'static str,
    /// The configuration file.
    pub config_path: Option<&'r Path>,
    /// The variables.
    pub environment: Environment,
    /// The signals.
    pub signals: &'r Signals,
}

/// The configuration file that is read where none is named.
pub fn find_config() -> Option<PathBuf> {
    CONFIG_PLACES.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// Runs all steps.
pub fn finetune(args: &FinetuneArgs, run: Run<'_>, terminal: &mut Terminal) -> Exit {
    let command = run.command;
    terminal.say(&terminal.paint(Style::Label, "Together AI Fine-Tuning Pipeline"));
    terminal.say(&match run.config_path {
        Some(path) => printable(&format!("settings from {}", path.display())),
        None => format!("settings: the defaults (no {})", CONFIG_PLACES.join(", no ")),
    });
    let environment = run.environment.clone();
    let submitted = steps_to_job(args, run, terminal);
    let (service, mut submitted, Place { out, wandb, agency }) = match submitted {
        Ok(submitted) => submitted,
        Err(failure) => return terminal.fail(command, &failure, Map::new()),
    };
    let job = submitted.adopted.job.id.clone();
    if args.detach {
        let place = (out.as_path(), &submitted.adopted.job);
        submitted.announced = wandb_run::announce(&service, &wandb, place, terminal);
        let fields = submit::document(&submitted);
        terminal.label("next", &format!("ctxtune monitor {job}"));
        return terminal.succeed(command, Some(job.as_str().as_bytes()), fields);
    }
    Steps::Announced.announce(4, "Monitoring fine-tuning job", terminal);
    submitted.announced.logged_by = wandb.logged_by();
    let fields = submit::document(&submitted);
    let shown = Shown {
        command,
        out: Some(out.clone()),
        fields,
        events: monitor::Events::Silent,
        wandb,
        run_page: None,
    };
    let exit = monitor::watch(&service, &job, (&args.watch, shown), terminal);
    cancel_unwanted((exit, &job), (&args.remote, &environment), terminal);
    if let Some(agency) = agency.filter(|_| !service.signals.is_stopped()) {
        agency.settle(&service, (&out, &job), terminal);
    }
    exit
}

/// Where a job's data is, where it is logged, and which sweep it belongs to.
struct Place {
    out: PathBuf,
    wandb: Chosen,
    agency: Option<Agency>,
}

/// The steps up to a job that exists.
fn steps_to_job(
    args: &FinetuneArgs,
    Run { config_path, environment, signals, .. }: Run<'_>,
    terminal: &mut Terminal,
) -> Result<(Service, submit::Submitted, Place), Failure> {
    monitor::try_picture(args.watch.svg.as_deref())?;
    let file = config_file(config_path)?;
    let (data, tune) = match &file {
        Some(file) => (file.prepare_choices()?, file.tune_choices()?),
        None => (PrepareChoices::default(), TuneChoices::default()),
    };
    let wandb = wandb::resolve(&args.wandb, file.as_ref(), &environment, terminal)?;
    if args.wandb.wandb.is_none() && matches!(wandb.way, Way::Off(Why::NoKey)) {
        terminal.say(&format!("W&B: there is no key, so nothing is logged; to log the job: {HOW_TO_LOG}"));
    }
    let choices = args.corpus.choices.clone().over(data);
    let agency = Agency::of(args.sweep_max_cost, &environment)?;
    let service = Service::new(&args.remote, environment, signals, terminal)?;
    let spending = match &agency {
        Some(agency) => Spending::Agreed { max_cost: Some(agency.cap()) },
        None => Spending::of(&args.spending),
    };
    let out =
        choices.output_dir.clone().unwrap_or_else(|| ctxtune_pipeline::config::DEFAULT_OUTPUT_DIR.into());
    refuse_without_consent(spending, &out)?;
    service.require_key()?;
    Steps::Announced.announce(1, "Preparing data", terminal);
    let prepare = || prepare_corpus(choices.clone(), signals, terminal);
    let options = if agency.is_some() { patiently(&service, prepare)? } else { prepare()? };
    terminal.done("Data preparation complete");
    let order = Order {
        out: options.output_dir,
        parameters: args.choices.clone().resolve(tune, options.seed),
        spending,
        renewal: if args.spending.new_job { Renewal::New } else { Renewal::Keep },
        truncation: if args.allow_truncation { Truncation::Allowed } else { Truncation::Refused },
        steps: Steps::Announced,
        wandb: wandb.clone(),
        agency: agency.clone(),
    };
    let out = order.out.clone();
    let submitted = submit::submit(&service, order, terminal)?;
    Ok((service, submitted, Place { out, wandb, agency }))
}
