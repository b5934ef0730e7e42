//! `ctxtune sweep`: the order of flags and files, what a sweep would try, and `sweep init` for W&B's own agent.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::{SweepArgs, SweepCommand, SweepInitArgs, SweepRunArgs};
use crate::commands::job::sweep_table::end;
use crate::screen::report::Terminal;
use crate::session;
use crate::session::environment::{self, configured};
use ctxtune_pipeline::config::wandb::WandbArgs;
use ctxtune_pipeline::job::parameters::PRICED;
use ctxtune_pipeline::job::wandb;
use ctxtune_pipeline::session::consent::Spending;
use ctxtune_pipeline::sweep::make::JobTemplate;
use ctxtune_pipeline::sweep::price::MOST_ESTIMATES;
use ctxtune_pipeline::sweep::start::{
    Chooser, Order, Wanted, check_metric, check_values, chooser, refuse_varied_flags, sweep, usage,
};
use ctxtune_pipeline::sweep::{Assignment, Domain, Runner, Sweep, shown_value, shown_values};
use ctxtune_pipeline::text::{counted, printable};
use ctxtune_pipeline::{Environment, Exit, Failure, env};

pub fn run(args: &SweepArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    match &args.command {
        SweepCommand::Run(args) => run_sweep(args, terminal),
        SweepCommand::Init(args) => init(args, terminal),
    }
}

/// The arguments about W&B with the sweep file's project and entity where neither a flag nor a variable
/// names one: that is W&B's own order.
fn wandb_args(args: &WandbArgs, sweep: &Sweep, environment: &Environment) -> WandbArgs {
    let of_file = |flag: &Option<String>, variable: &str, said: &Option<String>| {
        flag.clone().or_else(|| said.clone().filter(|_| environment.get(variable).is_none()))
    };
    WandbArgs {
        wandb_project: of_file(&args.wandb_project, env::WANDB_PROJECT, &sweep.project),
        wandb_entity: of_file(&args.wandb_entity, env::WANDB_ENTITY, &sweep.entity),
        ..args.clone()
    }
}

fn run_sweep(args: &SweepRunArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    if args.spending.new_job {
        let hint = "a failed run is run again with `ctxtune finetune --new-job`";
        return Err(usage("a sweep has no --new-job".to_owned(), hint));
    }
    let file = Sweep::read(&args.file, Runner::Native)?;
    check_metric(&file, terminal)?;
    refuse_varied_flags(&file, &args.choices)?;
    let config = configured(args.corpus.config_path.as_deref())?;
    let environment = environment::read(args.corpus.config_path.as_deref(), terminal)?;
    let wandb = wandb_args(&args.wandb, &file, &environment);
    let wandb = wandb::resolve(&wandb, config.file.as_ref(), &environment, terminal)?;
    let wanted = Wanted::of(&file, args.count, args.sweep_seed, chooser(&wandb))?;
    if args.dry_run {
        let template = JobTemplate::new(args.choices.clone(), config.tune.clone(), 42);
        return match chooser(&wandb) {
            Chooser::Own => {
                let draws = wanted.values.len();
                Ok(show_plan(&file, draws, &template.distinct(wanted.values)?, terminal))
            }
            Chooser::Wandb => show_space(&file, wanted.count, &template, terminal),
        };
    }
    let spending = Spending::of(args.spending.yes, args.spending.max_cost, terminal);
    if spending == Spending::Impossible {
        return Err(Spending::refusal());
    }
    let session = session::start(&args.remote, environment, terminal)?;
    let data = args.corpus.choices.clone().over(config.data);
    let order = Order {
        sweep: file,
        out: data.out(),
        data: args.corpus.choices.names_sources().then_some(data),
        flags: args.choices.clone(),
        file: config.tune,
        count: args.count,
        seed: args.sweep_seed,
        parallel: args.parallel,
        spending,
        wandb,
    };
    let ran = sweep(&session, order)?;
    Ok(end(&session, &ran, (args.svg.as_deref(), !args.no_report), terminal))
}

/// What a script is told of a sweep whose values are drawn here, before it is run.
#[derive(Serialize)]
struct PlanReport<'s> {
    /// `grid` or `random`.
    method: String,
    /// What runs would be ranked by.
    metric: &'s str,
    /// The runs, in their order.
    runs: Vec<Planned>,
}

#[derive(Serialize)]
struct Planned {
    /// The values that it would try.
    parameters: Map<String, Value>,
}

/// What a script is told of a sweep whose values W&B chooses, before it is run.
#[derive(Serialize)]
struct SpaceReport<'s> {
    /// `grid`, `random` or `bayes`.
    method: String,
    /// What runs would be ranked by.
    metric: &'s str,
    /// How many runs there are at most.
    count: usize,
    /// The parameters as the file has them.
    space: Option<&'s Value>,
    /// How many estimates would be requested; `null` where they are too many.
    estimates: Option<usize>,
}

#[derive(Serialize)]
struct InitReport {
    /// The file for `wandb sweep`.
    sweep: Map<String, Value>,
}

fn show_plan(sweep: &Sweep, draws: usize, values: &[Assignment], terminal: &Terminal) -> Exit {
    let line = |(index, values): (usize, &Assignment)| {
        printable(&format!("{}\t{}", index + 1, shown_values(values).replace("  ", "\t")))
    };
    let lines: Vec<String> = values.iter().enumerate().map(line).collect();
    let runs = counted(values.len() as u64, "run");
    match draws - values.len() {
        0 => terminal.say(&format!("{runs}; nothing was sent")),
        equal => terminal.say(&format!("{runs}, {equal} draws equal to another one; nothing was sent")),
    }
    let planned = |values: &Assignment| Planned { parameters: values.iter().cloned().collect() };
    let report = PlanReport {
        method: sweep.method.to_string(),
        metric: &sweep.metric.name,
        runs: values.iter().map(planned).collect(),
    };
    terminal.report(Some(lines.join("\n").as_bytes()), &report)
}

fn show_space(
    sweep: &Sweep,
    count: usize,
    template: &JobTemplate,
    terminal: &Terminal,
) -> Result<Exit, Failure> {
    check_values(sweep)?;
    let estimates = match sweep.combinations_of(&PRICED) {
        Some(combinations) => {
            Some(template.estimates(&combinations)?).filter(|count| *count <= MOST_ESTIMATES)
        }
        None => None,
    };
    let runs = counted(count as u64, "run");
    terminal.say(&format!("at most {runs}, whose values W&B chooses; nothing was sent"));
    terminal.label(
        "price",
        &match estimates {
            Some(estimates) => {
                let estimates = counted(estimates as u64, "estimate");
                format!(
                    "at most {count} times the dearest of {estimates}, which are asked for before the start"
                )
            }
            None => format!("not known: more than {MOST_ESTIMATES} different estimates; --yes only"),
        },
    );
    let line = |(name, domain): &(String, Domain)| printable(&format!("{name}\t{}", shown_domain(domain)));
    let lines: Vec<String> = sweep.parameters.iter().map(line).collect();
    let report = SpaceReport {
        method: sweep.method.to_string(),
        metric: &sweep.metric.name,
        count,
        space: sweep.document.get("parameters"),
        estimates,
    };
    Ok(terminal.report(Some(lines.join("\n").as_bytes()), &report))
}

fn shown_domain(domain: &Domain) -> String {
    let ends = |least: f64, most: f64| [least, most].map(|end| shown_value(&json!(end))).join(" to ");
    match domain {
        Domain::Values(values) => values.iter().map(shown_value).collect::<Vec<_>>().join(", "),
        Domain::IntUniform(least, most) => format!("{least} to {most}, integers"),
        Domain::Uniform(least, most) => ends(*least, *most),
        Domain::LogUniform(least, most) => format!("{}, logarithmic", ends(*least, *most)),
    }
}

/// The sweep with a `command` that runs this program, and a cap of its own.
fn init(args: &SweepInitArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let sweep = Sweep::read(&args.file, Runner::Agent)?;
    check_metric(&sweep, terminal)?;
    check_values(&sweep)?;
    let mut document = sweep.document.clone();
    let mut command = vec!["${env}".to_owned(), "ctxtune".to_owned(), "finetune".to_owned()];
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    command.push(format!("--data-dir={}", absolute(&args.data_dir).display()));
    command.push(format!("--output-dir={}", absolute(&args.output_dir).display()));
    if let Some(config) = &args.config_path {
        command.push(format!("--config-path={}", absolute(config).display()));
    }
    command.push(format!("--sweep-max-cost={}", args.max_cost));
    command.push("${args}".to_owned());
    document.insert("command".to_owned(), json!(command));
    let count = sweep.run_cap.map_or(args.count, |cap| cap.min(args.count));
    document.insert("run_cap".to_owned(), count.into());
    // The stock agent reads the program's name although the command says it all.
    document.entry("program").or_insert_with(|| "ctxtune".into());
    // JSON is YAML, and its numbers are numbers in every version of it.
    let text = for_python(&serde_json::to_string_pretty(&document).unwrap_or_default());
    terminal.label("next", "wandb sweep FILE, then wandb agent with what it prints");
    Ok(terminal.report(Some(text.as_bytes()), &InitReport { sweep: document }))
}

/// Indented JSON with numbers as YAML 1.1 reads them too: `1e-6` is text to it, `0.000001` is not.
/// Indented, every number stands alone on its line, behind its key or not.
fn for_python(json: &str) -> String {
    let line = |line: &str| {
        let start = line.rfind("\": ").map_or(line.len() - line.trim_start().len(), |at| at + 3);
        let (before, token) = line.split_at(start);
        let (number, comma) = token.strip_suffix(',').map_or((token, ""), |number| (number, ","));
        match number.parse::<f64>() {
            Ok(real) if number.contains('e') => format!("{before}{real}{comma}"),
            _ => line.to_owned(),
        }
    };
    json.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numbers_in_every_version_of_yaml() {
        let value = json!({ "a": [1e-6, 5, "1e-6", 2.5e-7], "b": 1e-5, "c": "x: 1e-6", "d": { "e": 0.5 } });
        let text = for_python(&serde_json::to_string_pretty(&value).unwrap());
        for part in ["0.000001,", " 5,", "\"1e-6\"", "0.00000025", "\"b\": 0.00001", "\"x: 1e-6\"", "0.5"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
