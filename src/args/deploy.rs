//! The arguments of the commands that bring a tuned model up under a name, and down again.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::args::RemoteArgs;
use crate::args::job::{NamedJob, duration};
use ctxtune_pipeline::value::dollars;

const DEPLOY_HELP: &str = "\
Examples:
  ctxtune deploy out --name contexts
  ctxtune deploy ft-0123abcd --name contexts --stop-after 2h --max-cost 10
  MODEL=$(ctxtune deploy --last --name contexts --yes --detach)

stdout: the name that requests give as their model, as soon as it answers. Without --detach the command \
stays, and stops the deployment when the time is over or at a signal. Run again, it reuses the same.
Exit codes: 0 done, 1 failed, 2 usage or a model that cannot be deployed, 4 key, 5 network or not ready in \
time, 6 the job failed, 7 it was cancelled, 8 it still runs, 9 refused to spend, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = DEPLOY_HELP)]
pub struct DeployArgs {
    #[command(flatten)]
    pub job: NamedJob,
    /// The endpoint's name: lower-case letters, digits and dashes; it is created where it is not there
    #[arg(long, value_name = "EP", value_parser = name)]
    pub name: String,
    /// The configuration to run it with (`cr_…`) [default: the one whose price is lowest]
    #[arg(long, value_name = "ID")]
    pub config: Option<String>,
    /// Stop it this long after it is ready, or never
    #[arg(long, value_name = "DURATION|never", default_value = "1h", value_parser = stop_after)]
    pub stop_after: StopAfter,
    /// End as soon as it is ready: nothing stops it then but `ctxtune endpoints stop`
    #[arg(long, conflicts_with = "stop_after")]
    pub detach: bool,
    /// Deploy without asking
    #[arg(short, long, help_heading = "Money")]
    pub yes: bool,
    /// Deploy without asking if the time until it is stopped costs at most this; not for what never stops
    #[arg(long, value_name = "USD", value_parser = dollars, conflicts_with = "detach", help_heading = "Money")]
    pub max_cost: Option<f64>,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// When a deployment is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopAfter {
    /// This long after it is ready.
    Time(Duration),
    /// Not by this program.
    Never,
}

fn stop_after(text: &str) -> Result<StopAfter, String> {
    if text == "never" {
        return Ok(StopAfter::Never);
    }
    duration(text).map(StopAfter::Time).map_err(|expected| format!("{expected}, or `never`"))
}

fn name(text: &str) -> Result<String, String> {
    let is_of_name =
        |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-';
    if !text.is_empty() && text.len() <= 63 && text.chars().all(is_of_name) {
        Ok(text.to_owned())
    } else {
        Err("expected at most 63 lower-case letters, digits and dashes".to_owned())
    }
}

const ENDPOINTS_HELP: &str = "\
Examples:
  ctxtune endpoints
  ctxtune endpoints stop contexts

stdout: a line a running deployment, `model<TAB>state<TAB>dollars a minute<TAB>dollars so far<TAB>created<TAB>\
deployment<TAB>stop command`; a table on a terminal. `stop` never asks; it prints the deployments that it removed.
Exit codes: 0 done, 1 failed, 2 no such endpoint, 4 key, 5 network, 130 SIGINT, 143 SIGTERM.";

#[derive(Debug, Args)]
#[command(after_help = ENDPOINTS_HELP)]
pub struct EndpointsArgs {
    /// What to do; without it the running ones are listed.
    #[command(subcommand)]
    pub command: Option<EndpointsCommand>,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What to do with endpoints.
#[derive(Debug, Subcommand)]
pub enum EndpointsCommand {
    /// List what runs, with its price
    List,
    /// Stop what ctxtune deployed there, and remove it; the name stays
    Stop {
        /// The endpoint's name or id
        #[arg(value_name = "EP")]
        endpoint: String,
        /// Stop also what ctxtune did not deploy; that is not removed
        #[arg(long)]
        all: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_must_be_typed() {
        assert_eq!(stop_after("2h"), Ok(StopAfter::Time(Duration::from_secs(7200))));
        assert_eq!(stop_after("never"), Ok(StopAfter::Never));
        for text in ["0", "", "no", "-1h"] {
            assert!(stop_after(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_can_stand_in_a_url() {
        assert!(name("contexts-2").is_ok());
        for text in ["", "a/b", "A", "a b", "ä", &"a".repeat(64)] {
            assert!(name(text).is_err(), "{text}");
        }
    }
}
