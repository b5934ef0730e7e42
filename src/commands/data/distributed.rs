//! `ctxtune distributed`: the steps of a preparation in parts, each by itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use serde_json::Map;

use crate::args::{MeansArgs, MissingArg, PlanArgs, StepCommand};
use crate::commands::data::prepare::{
    Ordered, Retry, asked, chosen, order, order_in, say_failed_prepare, succeed,
};
use crate::screen::prepared::Bar;
use crate::screen::report::Terminal;
use crate::session::stores::{stores, work};
use ctxtune_engine::parts::{self, Means, Missing, Plan, Record, Work, missing, ranges};
use ctxtune_engine::prepare::{Error, Mode, Purpose, Readers};
use ctxtune_pipeline::failure::{Exit, Failure};
use ctxtune_pipeline::job::data::{NAMED, threads};

/// Runs the command.
pub fn run(step: &StepCommand, terminal: &Terminal) -> Result<Exit, Failure> {
    let bar = Bar::new(terminal);
    let failed = |error: Error| terminal.signals.explain(Failure::of_parts(error));
    match step {
        StepCommand::Plan(args) => plan(args, &bar, terminal),
        StepCommand::Convert(args) => {
            let (means, work, plan) = loaded(&args.means, terminal).map_err(failed)?;
            let Some(plan) = plan else { return Ok(Exit::Done) };
            each(&args.part, "part", plan.body.parts, terminal, |part| {
                parts::convert(&work, &plan, part, &means, &bar).map_err(failed).map(line)
            })
        }
        StepCommand::Split(args) => {
            let (means, work, plan) = loaded(&args.means, terminal).map_err(failed)?;
            let Some(plan) = plan else { return Ok(Exit::Done) };
            match parts::split(&work, &plan, &means, &bar) {
                Ok(record) => Ok(deliver(line(record), terminal)),
                Err(error) => Ok(say_failed_prepare(error, Failure::of_parts, terminal)),
            }
        }
        StepCommand::Write(args) => {
            let (means, work, plan) = loaded(&args.means, terminal).map_err(failed)?;
            let Some(plan) = plan else { return Ok(Exit::Done) };
            let split = work.unless_over(&plan.id, parts::split_of(&work, &plan)).map_err(failed)?;
            let Some(split) = split else { return Ok(Exit::Done) };
            each(&args.shard, "shard", split.shards, terminal, |shard| {
                parts::write(&work, &plan, shard, &means, &bar).map_err(failed).map(line)
            })
        }
        StepCommand::Publish(args) => publish(&args.work_dir, bar, terminal),
        StepCommand::Status(args) => {
            let work = work(&args.work.work_dir, &*stores(terminal, None)).map_err(failed)?;
            let plan = Plan::load(&work).map_err(failed)?;
            let of = match args.missing {
                MissingArg::Parts => Missing::Parts,
                MissingArg::Shards => Missing::Shards,
            };
            let numbers = match plan {
                Some(plan) => {
                    let missing = work.unless_over(&plan.id, missing(&work, &plan, of));
                    missing.map_err(failed)?.unwrap_or_default()
                }
                None => Vec::new(),
            };
            Ok(terminal.deliver(format!("{}\n", ranges::show(&numbers)).as_bytes()))
        }
    }
}

/// Publishes the result in `dir`.
pub fn publish(dir: &Path, bar: Bar<'_>, terminal: &Terminal) -> Result<Exit, Failure> {
    let failed = |error: Error| terminal.signals.explain(Failure::of_parts(error));
    let means = here(terminal);
    let work = &work(dir, &*means.stores).map_err(failed)?;
    let start = Instant::now();
    let done = |plan: &Plan| {
        let output = plan.output(work).map_err(failed)?;
        Ok(terminal.succeed(Some(output.as_os_str().as_encoded_bytes()), Map::new()))
    };
    let Some(plan) = Plan::load(work).map_err(failed)? else {
        // It was killed while it cleared the directory.
        let published = Plan::published(work).map_err(failed)?;
        work.clear().map_err(failed)?;
        return published.map_or(Ok(Exit::Done), |plan| done(&plan));
    };
    let options = plan.options(work, &means).map_err(failed)?;
    let mut retry = Retry::new(terminal);
    let published = loop {
        match parts::publish(work, &plan, &means, &bar) {
            // Somebody else publishes it just now.
            Err(error @ Error::Lock(_)) => retry.wait(error).map_err(failed)?,
            result => break result.map_err(failed)?,
        }
    };
    drop(bar);
    match published {
        Some(prepared) => Ok(succeed(&options, &prepared, start.elapsed(), terminal)),
        None => done(&plan),
    }
}

/// All of this machine, and its temporary files.
pub fn here(terminal: &Terminal) -> Means {
    Means {
        threads: threads(),
        scratch: None,
        name_rejects: NAMED,
        readers: Readers::default(),
        stores: stores(terminal, None),
    }
}

fn means(args: &MeansArgs, terminal: &Terminal) -> Means {
    Means {
        threads: args.threads.unwrap_or_else(threads),
        scratch: args.scratch.scratch_dir.clone(),
        name_rejects: NAMED,
        readers: Readers::default(),
        stores: stores(terminal, args.scratch.scratch_dir.as_deref()),
    }
}

/// What a step works with: its means, the working directory, and the plan there, unless its result is published.
fn loaded(args: &MeansArgs, terminal: &Terminal) -> Result<(Means, Work, Option<Plan>), Error> {
    let means = means(args, terminal);
    let work = work(&args.work.work_dir, &*means.stores)?;
    let plan = Plan::load(&work)?;
    Ok((means, work, plan))
}

/// Does `step` with each of the numbers in `text`, which are below `end`, and delivers what it says.
fn each(
    text: &str,
    what: &str,
    end: u64,
    terminal: &Terminal,
    mut step: impl FnMut(u64) -> Result<Option<String>, Failure>,
) -> Result<Exit, Failure> {
    let numbers = ranges::parse(text, end).map_err(|reason| {
        let hint = "`ctxtune distributed status` lists what is missing";
        Failure::new(Exit::Usage, "usage", format!("--{what} {text}: {reason}"), hint)
    })?;
    for number in numbers {
        let exit = deliver(step(number)?, terminal);
        if exit != Exit::Done {
            return Ok(exit);
        }
    }
    Ok(Exit::Done)
}

/// The line of a record, if there is one.
fn line<R>(record: Option<Record<R>>) -> Option<String> {
    record.map(|record| record.line)
}

/// Delivers a line. Where there is none the result was published meanwhile, and nothing is left to say.
fn deliver(line: Option<String>, terminal: &Terminal) -> Exit {
    match line {
        Some(line) => terminal.deliver(format!("{line}\n").as_bytes()),
        None => Exit::Done,
    }
}

/// What a script is told of a plan.
#[derive(Serialize)]
struct PlanReport<'p> {
    /// Its digest.
    plan: &'p str,
    /// How many parts there are.
    parts: u64,
    /// Files and containers.
    inputs: u64,
    /// Their bytes.
    bytes: u64,
    /// Bytes of inputs a part.
    part_bytes: u64,
    /// WORK.
    work_dir: String,
    /// OUT.
    output_dir: String,
    /// How many files are not read, by kind.
    not_read_by_kind: &'p BTreeMap<String, u64>,
}

fn plan(args: &PlanArgs, bar: &Bar<'_>, terminal: &Terminal) -> Result<Exit, Failure> {
    if args.dry_run || args.show.is_some() {
        let flag = if args.dry_run { "--dry-run" } else { "--show" };
        let message = format!("{flag} needs converted records, and a plan has none");
        return Err(Failure::new(Exit::Usage, "usage", message, "try it with `ctxtune prepare`"));
    }
    let purpose = Purpose { mode: Mode::Publish, show: 0, name_rejects: NAMED };
    let resolved = chosen(&args.corpus).and_then(|choices| choices.resolve(purpose, threads()));
    let stores = stores(terminal, args.parts.scratch.scratch_dir.as_deref());
    let asked = asked(&args.corpus, &args.parts);
    let (ordered, work) =
        order_in(&args.corpus, args.work_dir.as_deref(), &asked, resolved, &stores, terminal)?;
    let planned = match &ordered {
        Ordered::Options(options) => {
            parts::plan_anew(&order(options, &args.parts, &*stores, &asked), &work, bar)
        }
        Ordered::Plan(plan, _) => Ok(Plan::clone(plan)),
    };
    let plan = match planned {
        Ok(plan) => plan,
        Err(error) => return Ok(say_failed_prepare(error, Failure::of_parts, terminal)),
    };
    let output = plan.output(&work).map_err(Failure::of_parts)?;
    let report = PlanReport {
        plan: &plan.id,
        parts: plan.body.parts,
        inputs: plan.body.inputs,
        bytes: plan.body.bytes,
        part_bytes: plan.body.part_bytes,
        work_dir: work.shown(),
        output_dir: output.to_string_lossy().into_owned(),
        not_read_by_kind: &plan.body.not_read_by_kind,
    };
    let line = serde_json::to_string(&report).expect("strings and numbers only");
    Ok(terminal.deliver(format!("{line}\n").as_bytes()))
}
