//! `ctxtune deploy`: the order of the flags, and the model's name on stdout as soon as it answers.

use crate::args::{DeployArgs, StopAfter};
use crate::screen::report::{Terminal, fields};
use crate::session;
use crate::signals::catch_hang_up;
use ctxtune_pipeline::deploy::start::{Order, deploy};
use ctxtune_pipeline::session::consent::Spending;
use ctxtune_pipeline::text::one_line;
use ctxtune_pipeline::{Exit, Failure, Session};

pub fn run(args: &DeployArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let (session, order) = order(args, terminal)?;
    let is_held = order.time.is_some();
    let mut result = match deploy(&session, order) {
        Ok(result) => result,
        Err((failure, report)) => {
            return Ok(terminal.fail(&failure, report.as_deref().map(fields).unwrap_or_default()));
        }
    };
    let model = one_line(result.callable.as_deref().unwrap_or_default());
    if !is_held {
        return Ok(terminal.report(Some(model.as_bytes()), &result.report()));
    }
    if !terminal.flags().json {
        terminal.deliver(format!("{model}\n").as_bytes());
    }
    Ok(match result.stay() {
        Ok(()) => terminal.report(None, &result.report()),
        Err(failure) => terminal.fail(&failure, fields(&result.report())),
    })
}

fn order(args: &DeployArgs, terminal: &Terminal) -> Result<(Session, Order), Failure> {
    let time = match args.stop_after {
        StopAfter::Time(time) if !args.detach => Some(time),
        _ => None,
    };
    if time.is_none() && args.max_cost.is_some() {
        let message = "--max-cost holds against the time until it is stopped, and nothing stops it";
        return Err(Failure::usage("usage", message, "give --stop-after a time, or say --yes"));
    }
    catch_hang_up(&terminal.signals).map_err(|error| {
        let message = format!("cannot catch the end of the terminal: {error}");
        Failure { exit: Exit::Failed, code: "signals", message, hint: None }
    })?;
    let session = session::open(&args.remote, terminal)?;
    let order = Order {
        target: args.job.target.clone(),
        endpoint: args.name.clone(),
        config: args.config.clone(),
        time,
        spending: Spending::of(args.yes, args.max_cost, terminal),
    };
    Ok((session, order))
}
