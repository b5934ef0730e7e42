//! One file a command: its arguments are resolved, the work is called, the result is shown.
//!
//! stdout is data, one line or one JSON document; stderr is for people.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use serde_json::Map;

use crate::args::{self, Cli, Command, DistributedCommand, with_dashes};
use crate::commands::data::{check, distributed, prepare, preview, score, slurm};
use crate::commands::job::{
    cancel, checkpoints, download, files, finetune, jobs, monitor, status, submit, sweep, upload, wandb_sync,
};
use crate::commands::model::{deploy, endpoints, generate, models};
use crate::screen::report::Terminal;
use crate::signals;
use ctxtune_engine::address::address;
use ctxtune_engine::source::Unsupported;
use ctxtune_pipeline::failure::conversion::remedy;
use ctxtune_pipeline::{Exit, Failure, Signals};

pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod init;
pub(crate) mod job;
pub(crate) mod machine;
pub(crate) mod model;
pub(crate) mod rehearse;
pub(crate) mod report;

/// Runs the program with `arguments`, the program's name first.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let arguments = with_dashes(arguments);
    let cli = match args::parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(explain_usage(&error, &arguments) as u8),
    };
    let caught = signals::catch();
    let signals = caught.as_ref().map_or_else(|_| Signals::default(), Signals::clone);
    let terminal = Terminal::new(cli.output, &cli.name, signals);
    let ran = match caught {
        Ok(_) => match address_among(&cli.command, &arguments) {
            Some(address) => Err(no_bucket(address)),
            None => carry_out(&cli.command, &terminal),
        },
        Err(error) => {
            let message = format!("cannot catch signals: {error}");
            Err(Failure { exit: Exit::Failed, code: "signals", message, hint: None })
        }
    };
    let exit = ran.unwrap_or_else(|failure| terminal.fail(&failure, Map::new()));
    ExitCode::from(exit as u8)
}

fn carry_out(command: &Command, terminal: &Terminal) -> Result<Exit, Failure> {
    match command {
        Command::Prepare(args) => prepare::run(args, terminal),
        Command::Distributed(args) => match &args.command {
            DistributedCommand::Step(step) => distributed::run(step, terminal),
            DistributedCommand::Slurm(args) => slurm::run(args, terminal),
        },
        Command::Check(args) => check::run(args, terminal),
        Command::Preview(args) => preview::run(args, terminal),
        Command::Upload(args) => upload::run(args, terminal),
        Command::Submit(args) => submit::run(args, terminal),
        Command::Monitor(args) => monitor::run(args, terminal),
        Command::Finetune(args) => finetune::run(args, terminal),
        Command::Status(args) => status::run(args, terminal),
        Command::Cancel(args) => cancel::run(args, terminal),
        Command::Jobs(args) => jobs::run(args, terminal),
        Command::Files(args) => files::run(args, terminal),
        Command::Checkpoints(args) => checkpoints::run(args, terminal),
        Command::Download(args) => download::run(args, terminal),
        Command::Deploy(args) => deploy::run(args, terminal),
        Command::Endpoints(args) => endpoints::run(args, terminal),
        Command::Doctor(args) => doctor::run(args, terminal),
        Command::Models(args) => models::run(args, terminal),
        Command::Init(args) => init::run(args, terminal),
        Command::Sweep(args) => sweep::run(args, terminal),
        Command::Report(args) => report::run(args, terminal),
        Command::Score(args) => score::run(args, terminal),
        Command::WandbSync(args) => wandb_sync::run(args, terminal),
        Command::Generate(args) => generate::run(args, terminal),
        Command::Rehearse(args) => rehearse::run(args, terminal),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "ctxtune", &mut script);
            Ok(terminal.deliver(&script))
        }
    }
}

/// The first argument that is an address in a bucket, of a command that reads files of this machine only.
fn address_among<'a>(command: &Command, arguments: &'a [OsString]) -> Option<&'a str> {
    if matches!(command, Command::Prepare(_) | Command::Distributed(_) | Command::Check(_)) {
        return None;
    }
    let values = arguments.iter().skip(2).filter_map(|argument| argument.to_str());
    let mut values = values.map(|value| value.split_once('=').map_or(value, |(_, value)| value));
    values.find(|value| address(Path::new(value)).is_some())
}

fn no_bucket(address: &str) -> Failure {
    let message = format!("`{address}` is in a bucket, and this command reads files of this machine");
    Failure::usage("no_file", message, remedy(Path::new(address), Unsupported::Url))
}

/// Prints what clap has to say: help and version to stdout, errors to stderr.
fn explain_usage(error: &clap::Error, arguments: &[OsString]) -> Exit {
    let mut flags = arguments.iter().take_while(|argument| *argument != "--");
    if error.use_stderr() && flags.any(|argument| argument == "--json") {
        let message = error.to_string();
        let mut lines = message.lines().filter(|line| !line.trim().is_empty());
        let first = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let failure = Failure::usage("usage", first, "see `ctxtune --help`");
        let flags = args::OutputFlags { json: true, quiet: true, verbose: false };
        let known = Cli::command();
        let command = arguments.iter().filter_map(|argument| argument.to_str());
        let command = command.skip(1).find(|name| known.find_subcommand(name).is_some());
        return Terminal::new(flags, command.unwrap_or_default(), Signals::default())
            .fail(&failure, Map::new());
    }
    // A closed pipe is no reason to complain: `ctxtune --help | head -1`.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}
