//! The terminal: reads the command line, runs one command, prints, and gives the exit code.
//!
//! Only this module and its children print, exit, or read the environment. stdout is
//! data, one line or one JSON document; stderr is for people.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::CommandFactory;

use crate::cli::args::{Cli, Command, with_dashes};
use crate::cli::exit::{Exit, Failure};
use crate::cli::report::Terminal;

mod agent;
pub mod args;
mod asking;
mod batch;
pub mod block;
mod cancel;
pub mod canvas;
pub mod chart;
mod check;
mod checkpoints;
pub mod clock;
mod consent;
mod conversion;
pub mod curve;
mod deploy;
mod doctor;
pub mod dotenv;
mod download;
mod dry_run;
mod endpoints;
mod environment;
mod estimates;
pub mod exit;
mod explain;
mod files;
mod finding;
mod finetune;
mod generate;
mod generate_many;
mod hold;
mod jobs;
mod key;
mod machine;
mod mismatch;
mod monitor;
mod names;
pub mod ndjson;
mod netrc;
pub mod overlay;
mod plan;
mod prepare;
mod rehearse;
mod rehearse_use;
pub mod report;
mod score;
mod score_models;
mod scoreboard;
mod service;
mod shell;
mod status;
mod submit;
pub mod svg;
mod sweep;
mod sweep_make;
mod sweep_price;
mod sweep_run;
mod sweep_table;
mod table;
mod upload;
mod using;
mod wandb;
mod wandb_run;
mod wandb_sync;
pub mod watch;

/// Runs the program with `arguments`, the program's name first.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let arguments = with_dashes(arguments);
    let cli = match args::parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(explain_usage(&error, &arguments) as u8),
    };
    let mut terminal = Terminal::new(cli.command.voice());
    let name = cli.command.name();
    let signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(error) => {
            let failure = Failure {
                exit: Exit::Failed,
                code: "signals",
                message: format!("cannot catch signals: {error}"),
                hint: None,
            };
            return ExitCode::from(terminal.fail(name, &failure, serde_json::Map::new()) as u8);
        }
    };
    let exit = match &cli.command {
        Command::Prepare(args) => prepare::run(args, &signals, &mut terminal),
        Command::Check(args) => check::run(args, &signals, &mut terminal),
        Command::Upload(args) => upload::run(args, &signals, &mut terminal),
        Command::Submit(args) => submit::run(args, &signals, &mut terminal),
        Command::Monitor(args) => monitor::run(args, &signals, &mut terminal),
        Command::Finetune(args) => finetune::run(args, &signals, &mut terminal),
        Command::Status(args) => status::run(args, &signals, &mut terminal),
        Command::Cancel(args) => cancel::run(args, &signals, &mut terminal),
        Command::Jobs(args) => jobs::run(args, &signals, &mut terminal),
        Command::Files(args) => files::run(args, &signals, &mut terminal),
        Command::Checkpoints(args) => checkpoints::run(args, &signals, &mut terminal),
        Command::Download(args) => download::run(args, &signals, &mut terminal),
        Command::Deploy(args) => deploy::run(args, &signals, &mut terminal),
        Command::Endpoints(args) => endpoints::run(args, &signals, &mut terminal),
        Command::Doctor(args) => doctor::run(args, &signals, &mut terminal),
        Command::Sweep(args) => sweep::run(args, &signals, &mut terminal),
        Command::Score(args) => score::run(args, &signals, &mut terminal),
        Command::WandbSync(args) => wandb_sync::run(args, &signals, &mut terminal),
        Command::Generate(args) => generate::run(args, &signals, &mut terminal),
        Command::Rehearse(args) => rehearse::run(args, &signals, &mut terminal),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "ctxtune", &mut script);
            terminal.deliver(name, &script)
        }
    };
    ExitCode::from(exit as u8)
}

/// Prints what clap has to say: help and version to stdout, errors to stderr.
fn explain_usage(error: &clap::Error, arguments: &[OsString]) -> Exit {
    let mut flags = arguments.iter().take_while(|argument| *argument != "--");
    if error.use_stderr() && flags.any(|argument| argument == "--json") {
        let message = error.to_string();
        let mut lines = message.lines().filter(|line| !line.trim().is_empty());
        let first = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let failure = Failure::new(Exit::Usage, "usage", first, "see `ctxtune --help`");
        let voice = args::Voice { json: true, quiet: true, verbose: false };
        let known = Cli::command();
        let command = arguments.iter().filter_map(|argument| argument.to_str());
        let command = command.skip(1).find(|name| known.find_subcommand(name).is_some());
        return Terminal::new(voice).fail(command.unwrap_or_default(), &failure, serde_json::Map::new());
    }
    // A closed pipe is no reason to complain: `ctxtune --help | head -1`.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}

/// The signals that ask a run to stop. A second one of its kind ends it at once.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    interrupt: Arc<AtomicBool>,
    terminate: Arc<AtomicBool>,
}

impl Signals {
    /// Begins to catch SIGINT and SIGTERM, and makes a file over the size limit an error, not a death.
    fn catch() -> std::io::Result<Signals> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let signals = Signals::default();
        catch(SIGINT, Exit::Interrupted, &signals.interrupt)?;
        catch(SIGTERM, Exit::Terminated, &signals.terminate)?;
        #[cfg(unix)]
        signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        Ok(signals)
    }

    /// Begins to take the end of the terminal for SIGTERM, for a command whose end costs money to miss. Not where
    /// whoever started it has said that it outlives the terminal (`nohup`), nor where that cannot be known.
    ///
    /// # Errors
    /// When it cannot be caught.
    pub fn catch_hang_up(&self) -> std::io::Result<()> {
        #[cfg(target_os = "linux")]
        if !ignores_hang_up() {
            catch(signal_hook::consts::SIGHUP, Exit::Terminated, &self.terminate)?;
        }
        Ok(())
    }

    /// Whether one was caught.
    pub fn is_stopped(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed) || self.terminate.load(Ordering::Relaxed)
    }

    /// The exit code of the one that was caught.
    pub fn exit(&self) -> Exit {
        if self.terminate.load(Ordering::Relaxed) { Exit::Terminated } else { Exit::Interrupted }
    }
}

/// Lets `signal` raise `flag`, and end the process where that is up already.
fn catch(signal: i32, exit: Exit, flag: &Arc<AtomicBool>) -> std::io::Result<()> {
    signal_hook::flag::register_conditional_shutdown(signal, exit as i32, Arc::clone(flag))?;
    signal_hook::flag::register(signal, Arc::clone(flag)).map(|_| ())
}

/// Whether this process was started to ignore SIGHUP, which the system tells as the lowest bit of a mask.
#[cfg(target_os = "linux")]
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // What cannot be known is left as it was.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask & 1 == 1)
}
