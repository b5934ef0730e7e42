//! The arguments of `models` and `init`: what can be tuned, and a file to begin with.

use std::path::PathBuf;

use clap::Args;

use crate::args::RemoteArgs;

const MODELS_HELP: &str = "\
Examples:
  ctxtune models
  ctxtune models Qwen/Qwen3-8B
  ctxtune models llama --for out

stdout: a line a model, those first that can be tuned and then deployed: \
`name<TAB>deploy<TAB>training<TAB>tokens` (training: `LoRA` with its highest rank, `full`); a table on a terminal.
Exit codes: 0 done, 2 no such model, 4 key, 5 network, 130 SIGINT, 143 SIGTERM.";

/// The arguments of `models`.
#[derive(Debug, Args)]
#[command(after_help = MODELS_HELP)]
pub struct ModelsArgs {
    /// Only models whose name contains this; a whole name shows all limits of the model
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Also show what tokens cost, by the last estimates on this machine, and an endpoint an hour; that of
    /// OUT's tuned model where it has one
    #[arg(long = "for", value_name = "OUT")]
    pub out: Option<PathBuf>,
    /// Which service to speak to.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

const INIT_HELP: &str = "\
Examples:
  ctxtune init
  ctxtune init -o settings.yaml

Every key with its meaning, its range and its default, commented out. Asks nothing, and overwrites nothing.
stdout: the file.
Exit codes: 0 done, 1 the file exists or cannot be written, 2 usage.";

/// The arguments of `init`.
#[derive(Debug, Args)]
#[command(after_help = INIT_HELP)]
pub struct InitArgs {
    /// The file to write
    #[arg(short, long, value_name = "FILE", default_value = "finetune_config.yaml")]
    pub output: PathBuf,
}
