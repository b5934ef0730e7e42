//! `ctxtune finetune`: the order of flags and file, the steps, and the watch of the job to its end.

use std::path::{Path, PathBuf};

use crate::args::FinetuneArgs;
use crate::commands::job::monitor::{self, Shown};
use crate::commands::job::submit::end_submitted;
use crate::screen::report::{Style, Terminal};
use crate::session;
use crate::session::environment::{self, configured};
use ctxtune_pipeline::finetune::{self, Order};
use ctxtune_pipeline::job::submit::Submitted;
use ctxtune_pipeline::job::tokens::TOKENIZER;
use ctxtune_pipeline::job::wandb::{self, Chosen, HOW_TO_LOG, Way, Why};
use ctxtune_pipeline::job::wandb_run;
use ctxtune_pipeline::session::consent::Spending;
use ctxtune_pipeline::sweep::agent::{Agency, cancel_unwanted};
use ctxtune_pipeline::text::printable;
use ctxtune_pipeline::{Environment, Exit, Failure, Session, Ui};

/// Where the seed's configuration file may be.
const CONFIG_PLACES: [&str; 2] = ["finetune_config.yaml", "training/finetune_config.yaml"];

pub fn run(args: &FinetuneArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let config_path = args.corpus.config_path.clone().or_else(find_config);
    let environment = environment::read(config_path.as_deref(), terminal)?;
    let run = Run { config_path: config_path.as_deref(), environment };
    finetune(args, run, terminal)
}

pub struct Run<'r> {
    pub config_path: Option<&'r Path>,
    pub environment: Environment,
}

/// The configuration file that is read where none is named.
pub fn find_config() -> Option<PathBuf> {
    CONFIG_PLACES.iter().map(PathBuf::from).find(|path| path.is_file())
}

pub fn finetune(args: &FinetuneArgs, run: Run<'_>, terminal: &Terminal) -> Result<Exit, Failure> {
    terminal.say(&terminal.paint(Style::Label, "Together AI Fine-Tuning Pipeline"));
    terminal.say(&match run.config_path {
        Some(path) => printable(&format!("settings from {}", path.display())),
        None => format!("settings: the defaults (no {})", CONFIG_PLACES.join(", no ")),
    });
    let (session, mut submitted, Place { out, wandb, agency }) = steps_to_job(args, run, terminal)?;
    let job = submitted.adopted.job.id.clone();
    if args.detach {
        submitted.announced = wandb_run::announce(&session, &wandb, &out, &submitted.adopted.job);
        return Ok(end_submitted(&submitted, terminal));
    }
    terminal.step(4, "Monitoring fine-tuning job");
    submitted.announced.logged_by = wandb.logged_by();
    let shown = Shown {
        out: Some(out.clone()),
        page: (!args.no_report).then(|| out.clone()),
        submitted: Some(submitted.report()),
        streams: false,
        wandb,
    };
    let exit = monitor::watch(&session, &job, &args.watch, shown, terminal);
    cancel_unwanted(&session, exit, &job);
    if let Some(agency) = agency.filter(|_| !session.signals.is_stopped()) {
        agency.settle(&session, &out, &job);
    }
    Ok(exit)
}

struct Place {
    out: PathBuf,
    wandb: Chosen,
    agency: Option<Agency>,
}

fn steps_to_job(
    args: &FinetuneArgs,
    Run { config_path, environment }: Run<'_>,
    terminal: &Terminal,
) -> Result<(Session, Submitted, Place), Failure> {
    monitor::try_picture(args.watch.svg.as_deref())?;
    let config = configured(config_path)?;
    let wandb = wandb::resolve(&args.wandb, config.file.as_ref(), &environment, terminal)?;
    if args.wandb.wandb.is_none() && matches!(wandb.way, Way::Off(Why::NoKey)) {
        terminal.say(&format!("W&B: there is no key, so nothing is logged; to log the job: {HOW_TO_LOG}"));
    }
    let agency = Agency::of(args.sweep_max_cost, &environment)?;
    let mut session = session::start(&args.remote, environment, terminal)?;
    session.tokenizer = args.tokenizer.tokenizer.clone().or_else(|| config.file.as_ref()?.text(TOKENIZER));
    let flags = args.corpus.choices.clone();
    let given = match args.as_is || args.val.is_some() {
        true => Some(flags.clone().given(args.val.clone(), config.data.clone())?),
        false => None,
    };
    let order = Order {
        given,
        data: flags.over(config.data),
        flags: args.choices.clone(),
        file: config.tune,
        spending: match &agency {
            Some(agency) => Spending::Agreed { max_cost: Some(agency.cap()) },
            None => Spending::of(args.spending.yes, args.spending.max_cost, terminal),
        },
        renews: args.spending.new_job,
        allows_truncation: args.allow_truncation,
        wandb: wandb.clone(),
        agency: agency.clone(),
    };
    let out = order.data.out();
    let submitted = finetune::finetune(&session, order)?;
    Ok((session, submitted, Place { out, wandb, agency }))
}
