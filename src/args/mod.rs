//! The command line as clap reads it. Help texts are here; what the words mean is `config`'s.

use std::any::TypeId;
use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use ctxtune_pipeline::Failure;
use ctxtune_pipeline::value::at_home;

mod data;
mod deploy;
mod distributed;
mod generate;
mod inspect;
mod job;
mod remote;
mod score;
mod sweep;

pub(crate) use data::{CheckArgs, CorpusArgs, CountingArgs, PartsArgs, PrepareArgs, PreviewArgs, Split};
pub(crate) use deploy::{DeployArgs, EndpointsArgs, EndpointsCommand, StopAfter};
pub(crate) use distributed::{
    DistributedArgs, DistributedCommand, MeansArgs, MissingArg, PlanArgs, SlurmArgs, StepCommand,
};
pub(crate) use generate::GenerateArgs;
pub(crate) use inspect::{InitArgs, ModelsArgs, RehearseArgs, ReportArgs};
pub(crate) use job::{
    CancelArgs, CheckpointsArgs, DownloadArgs, FilesArgs, FilesCommand, JobArgs, JobsArgs, MonitorArgs,
    WandbSyncArgs, WatchArgs,
};
pub(crate) use remote::{DoctorArgs, FinetuneArgs, RemoteArgs, SpendingArgs, SubmitArgs, UploadArgs};
pub(crate) use score::ScoreArgs;
pub(crate) use sweep::{SweepArgs, SweepCommand, SweepInitArgs, SweepRunArgs};

/// Turns a corpus of socialized-context JSONs into a fine-tuned model.
#[derive(Debug, Parser)]
#[command(name = "ctxtune", version, about, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) output: OutputFlags,
    #[command(subcommand)]
    pub(crate) command: Command,
    /// The command as it is typed.
    #[arg(skip)]
    pub(crate) name: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Convert a corpus to train and validation JSONL (offline)
    Prepare(Box<PrepareArgs>),
    /// Prepare on many machines, part by part (offline)
    Distributed(Box<DistributedArgs>),
    /// Check JSONL files before training (offline)
    Check(Box<CheckArgs>),
    /// Show samples: what is trained, masked and cut (offline)
    Preview(Box<PreviewArgs>),
    /// Upload prepared data (free of charge)
    Upload(Box<UploadArgs>),
    /// Upload prepared data and start a fine-tuning job (asks first)
    Submit(Box<SubmitArgs>),
    /// Watch a job until it ends, from any machine
    Monitor(Box<MonitorArgs>),
    /// Prepare, upload, submit and monitor; run it again to resume
    Finetune(Box<FinetuneArgs>),
    /// Show the status of one job
    Status(JobArgs),
    /// Cancel a job; completed steps are billed
    Cancel(CancelArgs),
    /// List the jobs of the project
    Jobs(JobsArgs),
    /// List or delete the files of the project
    Files(FilesArgs),
    /// List the checkpoints of a job
    Checkpoints(CheckpointsArgs),
    /// Download the weights of a completed job
    Download(DownloadArgs),
    /// Deploy a tuned model (billed per minute; asks first)
    Deploy(Box<DeployArgs>),
    /// List running deployments, or stop them
    Endpoints(EndpointsArgs),
    /// Check keys, network, clock and settings; creates nothing
    Doctor(Box<DoctorArgs>),
    /// List the models that can be tuned, and which can be deployed
    Models(ModelsArgs),
    /// Write a configuration file with every key and its default
    Init(InitArgs),
    /// Run a hyperparameter sweep within one budget (asks first)
    Sweep(Box<SweepArgs>),
    /// Score generated contexts against reference contexts
    Score(Box<ScoreArgs>),
    /// Send rows to Weights & Biases that could not be sent before
    WandbSync(WandbSyncArgs),
    /// Generate contexts for stories with a tuned model
    Generate(Box<GenerateArgs>),
    /// Try the whole pipeline on this machine; nothing is trained
    Rehearse(Box<RehearseArgs>),
    /// Write a page about data, jobs and sweeps
    Report(Box<ReportArgs>),
    /// Print the completion script of a shell
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

const COMPLETIONS_HELP: &str = "\
Examples:
  ctxtune completions zsh > ~/.zfunc/_ctxtune
  ctxtune completions fish > ~/.config/fish/completions/ctxtune.fish";

/// The commands by what a user wants to do, in the order of the work.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Data", &["init", "prepare", "distributed", "check", "preview"]),
    ("Train", &["finetune", "upload", "submit", "monitor", "cancel", "sweep", "wandb-sync", "rehearse"]),
    ("Use", &["generate", "score", "deploy", "endpoints", "download"]),
    ("Inspect", &["models", "report", "status", "jobs", "files", "checkpoints", "doctor", "completions"]),
];

/// The command line, its commands grouped in the help, and `~/` the home directory wherever a path is taken.
pub fn command() -> clap::Command {
    let command = at_home_in_paths(Cli::command());
    let mut groups = String::new();
    for (heading, names) in GROUPS {
        groups.push_str(&format!("{heading}:\n"));
        for subcommand in names.iter().filter_map(|name| command.find_subcommand(name)) {
            let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
            groups.push_str(&format!("  {:<12} {about}\n", subcommand.get_name()));
        }
        groups.push('\n');
    }
    let template =
        format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}Options:\n{{options}}");
    command.help_template(template)
}

/// Reads a command line, or gives what clap has to say: a usage error, or help and version that were asked for.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command()))?;
    matches.subcommand_name().unwrap_or_default().clone_into(&mut cli.name);
    match cli.conflict() {
        None => Ok(cli),
        Some((one, other)) => {
            let message = format!("the argument '{one}' cannot be used with '{other}'");
            Err(command().error(ErrorKind::ArgumentConflict, message))
        }
    }
}

impl Cli {
    /// Two arguments that exclude each other: clap does not see it where one stands before the command.
    fn conflict(&self) -> Option<(&'static str, &'static str)> {
        match &self.command {
            _ if self.output.quiet && self.output.verbose => Some(("--quiet", "--verbose")),
            Command::Monitor(args) if self.output.json && args.events => Some(("--events", "--json")),
            Command::Completions { .. } if self.output.json => Some(("--json", "completions")),
            _ => None,
        }
    }
}

/// How much a command says, and in which form.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct OutputFlags {
    /// Print one JSON document on stdout, also on failure
    #[arg(long, help_heading = "Output", global = true)]
    pub(crate) json: bool,
    /// Say nothing but errors on stderr
    #[arg(short, long, help_heading = "Output", conflicts_with = "verbose", global = true)]
    pub(crate) quiet: bool,
    /// Name everything a summary would only count
    #[arg(short, long, help_heading = "Output", global = true)]
    pub(crate) verbose: bool,
}

/// Makes `~/` the home directory in every argument that is a path: no shell replaces it in `--flag=~/x`.
fn at_home_in_paths(command: clap::Command) -> clap::Command {
    // The inputs of `generate` may be stories.
    let is_path = |argument: &clap::Arg| {
        argument.get_value_parser().type_id() == TypeId::of::<PathBuf>() && argument.get_id() != "inputs"
    };
    let at_home = PathBufValueParser::new().map(|path| at_home(&path, home().as_deref()));
    let expanding = |argument: clap::Arg| match is_path(&argument) {
        true => argument.value_parser(at_home.clone()),
        false => argument,
    };
    command.mut_args(expanding).mut_subcommands(at_home_in_paths)
}

/// A job's id, or a directory, in which `~/` is the home directory.
fn target(text: &str) -> Result<String, Infallible> {
    Ok(at_home(Path::new(text), home().as_deref()).to_str().unwrap_or(text).to_owned())
}

/// Lets every flag be written with underscores, as the keys of the configuration file are:
/// `--val_ratio=0.1` becomes `--val-ratio=0.1`. Values, and all behind a bare `--`, stay.
pub fn with_dashes(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut is_flag_zone = true;
    let dashed = |argument: OsString| {
        let Some(text) = argument.to_str().filter(|text| text.starts_with("--")) else { return argument };
        match text.split_once('=') {
            Some((name, value)) => format!("{}={value}", name.replace('_', "-")).into(),
            None => text.replace('_', "-").into(),
        }
    };
    let each = |argument: OsString| {
        is_flag_zone &= argument != "--";
        if is_flag_zone { dashed(argument) } else { argument }
    };
    arguments.into_iter().map(each).collect()
}

/// The arguments of a command that another command runs, from its command line without the names.
pub(crate) fn of_line<A: Args>(line: impl IntoIterator<Item = OsString>) -> Result<A, Failure> {
    let command = A::augment_args(clap::Command::new("ctxtune").no_binary_name(true));
    let read = command.try_get_matches_from(line).and_then(|matches| A::from_arg_matches(&matches));
    read.map_err(|error| Failure::usage("usage", error, "see `ctxtune --help`"))
}

/// The home directory, which `~/` stands for.
pub(crate) fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| home.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_that_is_no_key_of_the_file_is_known_as_a_flag() {
        let mut cli = Cli::command();
        cli.build();
        for (name, flags) in ctxtune_pipeline::failure::ONLY_FLAGS {
            let command = cli.find_subcommand(name).unwrap();
            let keys = ctxtune_pipeline::config::keys();
            let longs = command.get_arguments().filter(|flag| !flag.is_hide_set() && flag.get_id() != "help");
            let longs = longs.filter_map(|flag| flag.get_long().map(str::to_owned));
            let only: Vec<String> = longs.filter(|flag| !keys.contains(&flag.replace('-', "_"))).collect();
            for flag in flags {
                assert!(only.iter().any(|known| known == flag), "{name} has no --{flag}, or it is a key");
            }
            for flag in only {
                let is_known = ctxtune_pipeline::failure::ONLY_FLAGS
                    .iter()
                    .any(|(_, flags)| flags.contains(&flag.as_str()));
                assert!(is_known, "--{flag} of {name} is no key: add it to ONLY_FLAGS");
            }
        }
    }

    #[test]
    fn every_command_is_in_one_group_of_the_help() {
        let command = Cli::command();
        let mut names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        names.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, names);
        let help = super::command().render_help().to_string();
        let too_wide: Vec<&str> = help.lines().filter(|line| line.len() >= 80).collect();
        assert!(too_wide.is_empty(), "{too_wide:?}");
        for (heading, names) in GROUPS {
            let start = help.find(&format!("\n{heading}:\n")).unwrap();
            assert!(help[start..].contains(&format!("\n  {:<12} ", names[0])), "{help}");
        }
    }

    #[test]
    fn output_flags_stand_before_the_command_or_behind_it_and_exclude_what_they_did() {
        let read = |line: &str| parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in ["x --json -q check a", "x check a --json -q", "x --json files list -q"] {
            let output = read(line).unwrap().output;
            assert!(output.json && output.quiet && !output.verbose, "{line}");
        }
        for line in [
            "x -q check a -v",
            "x check a -q -v",
            "x --json monitor a --events",
            "x monitor a --events --json",
            "x --json completions zsh",
        ] {
            assert_eq!(read(line).unwrap_err().kind(), ErrorKind::ArgumentConflict, "{line}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// What each command makes of `value` for each of its arguments that takes one, by name: the matches, else
    /// what was said. Whatever else the command requires is not asked for.
    fn with_each_argument(
        value: &str,
        mut check: impl FnMut(&str, &clap::Arg, Result<clap::ArgMatches, String>),
    ) {
        let mut commands: Vec<clap::Command> = vec![command()];
        commands[0].build();
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            let arguments: Vec<clap::Arg> = command
                .get_arguments()
                .filter(|argument| argument.get_action().takes_values())
                .cloned()
                .collect();
            for argument in arguments {
                let words = match argument.get_long() {
                    Some(name) => vec![format!("--{name}={value}")],
                    None => vec![value.to_owned(); argument.get_index().unwrap_or(1)],
                };
                let name = format!("{} {}", command.get_name(), argument.get_id());
                let bare =
                    command.clone().no_binary_name(true).subcommand_required(false).ignore_errors(true);
                let strict = command.clone().no_binary_name(true).ignore_errors(false);
                let is_about_value = |error: &clap::Error| {
                    matches!(
                        error.kind(),
                        clap::error::ErrorKind::ValueValidation | clap::error::ErrorKind::InvalidValue
                    )
                };
                let said = match strict.try_get_matches_from(&words) {
                    Err(error) if is_about_value(&error) => Err(error.to_string()),
                    _ => Ok(bare.try_get_matches_from(&words).unwrap()),
                };
                check(&name, &argument, said);
            }
        }
    }

    #[test]
    fn a_tilde_in_a_path_is_the_home_directory_wherever_a_path_is_taken() {
        let mut paths = 0;
        with_each_argument("~/x", |name, argument, said| {
            if argument.get_value_parser().type_id() != std::any::TypeId::of::<PathBuf>()
                || name == "generate inputs"
            {
                return;
            }
            let matches = said.unwrap();
            let path = matches.get_many::<PathBuf>(argument.get_id().as_str()).and_then(Iterator::last);
            assert_eq!(path, Some(&home().unwrap().join("x")), "{name}");
            paths += 1;
        });
        assert!(paths > 30, "{paths}");
        let arguments = ["ctxtune", "status", "~/out"].map(OsString::from);
        let Command::Status(args) = parse(&arguments).unwrap().command else { panic!() };
        assert_eq!(args.job.target.as_deref(), home().unwrap().join("out").to_str());
    }

    #[test]
    fn a_wrong_value_is_never_said_in_the_words_of_a_library() {
        let words = [
            "invalid digit",
            "invalid float",
            "cannot parse",
            "number would be",
            "number too",
            "floating point",
        ];
        let (mut numbers, mut said_so) = (0, Vec::new());
        for value in ["x", "0", "-1", "1.5", "99999999999999999999999"] {
            with_each_argument(value, |name, _, said| {
                if let Err(said) = said {
                    assert!(!words.iter().any(|word| said.contains(word)), "{name}: {said}");
                    assert!(said.contains("expected") || said.contains("possible values"), "{name}: {said}");
                    numbers += usize::from(value == "x");
                    said_so.push(name.to_owned());
                }
            });
        }
        assert!(numbers > 60, "{numbers}: {said_so:?}");
    }

    #[test]
    fn flags_may_have_underscores() {
        let dashed = |arguments: &[&str]| -> Vec<String> {
            let arguments = with_dashes(arguments.iter().map(OsString::from).collect());
            arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
        };
        assert_eq!(
            dashed(&["x", "--val_ratio=0.1", "--output_dir", "a_b", "--data_dir=c_d", "-o", "--", "--e_f"]),
            ["x", "--val-ratio=0.1", "--output-dir", "a_b", "--data-dir=c_d", "-o", "--", "--e_f"]
        );
    }
}
