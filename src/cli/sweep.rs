//! `ctxtune sweep`: what a sweep would try and cost, agreed to once, and `sweep init` for W&B's own agent.
//!
//! Every combination is held against the model's limits, and the whole is priced, before the first job
//! is started. The runs themselves are `sweep_run`'s.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::Signals;
use crate::cli::args::{SweepArgs, SweepCommand, SweepInitArgs, SweepRunArgs};
use crate::cli::check::verify;
use crate::cli::consent::{Spending, ask};
use crate::cli::environment::Environment;
use crate::cli::exit::{Exit, Failure};
use crate::cli::prepare::prepare_corpus;
use crate::cli::report::{Terminal, counted, printable};
use crate::cli::service::Service;
use crate::cli::submit::{files, sequence_length};
use crate::cli::sweep_make::{Combination, Maker};
use crate::cli::sweep_run::{Runs, Suggestions, run_all};
use crate::cli::upload::upload_sides;
use crate::cli::wandb::{self, Chosen, Way};
use crate::cli::wandb_run;
use crate::config::{ConfigFile, DEFAULT_OUTPUT_DIR, PrepareChoices, TuneChoices};
use crate::lock::OutputLock;
use crate::manifest::Manifest;
use crate::tune::book::{Book, Trial, sweep_id};
use crate::tune::logging::DEFAULT_PROJECT;
use crate::tune::sweep::{Assignment, Method, Sweep, SweepError};
use crate::wandb::sweep as wandb_sweep;

const COMMAND: &str = "sweep";

/// What a call of W&B may take before the start.
const WANDB_CALL: Duration = Duration::from_secs(20);

impl From<SweepError> for Failure {
    fn from(error: SweepError) -> Failure {
        let hint = "README shows a sweep; the keys are those of W&B: method, metric, parameters";
        Failure::new(Exit::Usage, "sweep_file", error, hint)
    }
}

/// Runs the command.
pub fn run(args: &SweepArgs, signals: &Signals, terminal: &mut Terminal) -> Exit {
    let ran = match &args.command {
        SweepCommand::Run(args) => run_sweep(args, signals, terminal),
        SweepCommand::Init(args) => init(args, terminal),
    };
    ran.unwrap_or_else(|failure| terminal.fail(COMMAND, &failure, Map::new()))
}

fn usage(message: String, hint: &str) -> Failure {
    Failure::new(Exit::Usage, "sweep", message, hint)
}

/// How many runs there are at the most, where somebody said.
fn count(sweep: &Sweep, args: &SweepRunArgs) -> Option<usize> {
    args.count.or(sweep.run_cap).map(|count| usize::try_from(count).unwrap_or(usize::MAX))
}

fn grid(sweep: &Sweep, args: &SweepRunArgs) -> Result<Vec<Assignment>, Failure> {
    let hint = "give every parameter `values`, or use `method: random` with --count";
    let grid = sweep.grid().map_err(|reason| usage(reason, hint))?;
    Ok(grid.into_iter().take(count(sweep, args).unwrap_or(usize::MAX)).collect())
}

/// The values of all runs, in their order, where this program chooses them.
fn assignments(sweep: &Sweep, args: &SweepRunArgs) -> Result<Vec<Assignment>, Failure> {
    match (sweep.method, count(sweep, args)) {
        (Method::Grid, _) => grid(sweep, args),
        (Method::Random, Some(count)) => {
            Ok((0..count as u64).map(|number| sweep.draw(args.sweep_seed, number)).collect())
        }
        (Method::Random | Method::Bayes, None) => Err(usage(
            format!("`method: {}` has no end of its own", sweep.method),
            "say how many runs: --count N",
        )),
        (Method::Bayes, Some(_)) => Err(usage(
            "`method: bayes` is W&B's: it learns from the runs it has seen".to_owned(),
            "log to W&B (export WANDB_API_KEY), or use `method: grid` or `random`",
        )),
    }
}

/// What is checked before the start, and how many runs there will be, where W&B chooses the values.
fn expected(sweep: &Sweep, args: &SweepRunArgs) -> Result<(Vec<Assignment>, usize), Failure> {
    if sweep.method == Method::Grid {
        let grid = grid(sweep, args)?;
        let count = grid.len();
        return Ok((grid, count));
    }
    match count(sweep, args) {
        Some(count) => Ok((sweep.probes(), count)),
        None => Err(usage(
            format!("`method: {}` has no end of its own", sweep.method),
            "say how many runs: --count N",
        )),
    }
}

fn check_metric(sweep: &Sweep) -> Result<(), Failure> {
    let known = ["val/loss", "eval/loss", "train/loss"];
    if known.contains(&sweep.metric.name.as_str()) {
        return Ok(());
    }
    let message = format!("`metric.name` is `{}`, which no run has", sweep.metric.name);
    Err(usage(message, "the metrics are val/loss (also eval/loss) and train/loss"))
}

/// What the command line and the file say, and the data it is about.
struct Setting {
    config: Option<ConfigFile>,
    file: TuneChoices,
    out: PathBuf,
    has_source: bool,
    data: PrepareChoices,
}

fn setting(args: &SweepRunArgs) -> Result<Setting, Failure> {
    let config = args.corpus.config_path.as_deref().map(ConfigFile::read).transpose()?;
    let (data, file) = match &config {
        Some(config) => (config.prepare_choices()?, config.tune_choices()?),
        None => Default::default(),
    };
    let flags = args.corpus.choices();
    let has_source = !flags.sources.is_empty() || flags.files_from.is_some();
    let data = flags.over(data);
    let out = data.output_dir.clone().unwrap_or_else(|| DEFAULT_OUTPUT_DIR.into());
    Ok(Setting { config, file, out, has_source, data })
}

fn run_sweep(args: &SweepRunArgs, signals: &Signals, terminal: &mut Terminal) -> Result<Exit, Failure> {
    if args.spending.new_job {
        let hint = "a failed run is run again with `ctxtune finetune --new-job`";
        return Err(usage("a sweep has no --new-job".to_owned(), hint));
    }
    let sweep = Sweep::read(&args.file)?;
    check_metric(&sweep)?;
    let setting = setting(args)?;
    let environment = Environment::read(args.corpus.config_path.as_deref(), terminal)?;
    let chosen = wandb::resolve(&args.wandb, setting.config.as_ref(), &environment, terminal)?;
    let is_suggested = matches!(chosen.way, Way::Online { .. });
    let (values, count) = if is_suggested {
        expected(&sweep, args)?
    } else {
        let values = assignments(&sweep, args)?;
        let count = values.len();
        (values, count)
    };
    let maker = |seed| Maker::new(args.choices.clone(), setting.file.clone(), seed);
    if args.dry_run {
        // Whatever the data, a value that is no parameter is one nowhere.
        values.iter().try_for_each(|values| maker(42).parameters(values).map(|_| ()))?;
        return Ok(show_plan(&sweep, &values, terminal));
    }
    let spending = Spending::of(&args.spending);
    if spending == Spending::Impossible {
        return Err(Spending::refusal());
    }
    let service = Service::new(&args.remote, environment, signals, terminal)?;
    service.require_key()?;
    if setting.has_source {
        prepare_corpus(setting.data.clone(), signals, terminal)?;
    }
    let manifest = Manifest::read(&setting.out)?;
    let maker = maker(manifest.options.seed);
    let runs = Runs::new(setting.out, service.account()?, manifest, maker);
    check_all(&service, &runs, &values)?;
    let wanted = Wanted { sweep: &sweep, chosen: &chosen, values, count };
    start(args, (service, runs), &wanted, (spending, is_suggested), terminal)
}

/// Prices, asks, and runs a sweep that can be run.
fn start(
    args: &SweepRunArgs,
    (service, mut runs): (Service, Runs),
    wanted: &Wanted<'_>,
    (spending, is_suggested): (Spending, bool),
    terminal: &mut Terminal,
) -> Result<Exit, Failure> {
    let document = Value::Object(wanted.sweep.document.clone());
    let id = sweep_id(&document, &runs.maker.identity(), &runs.manifest.train.sha256);
    let mut book = match Book::read(&runs.out, &id)? {
        Some(book) => book,
        None => Book::new(id, Vec::new()),
    };
    if book.wandb_sweep.is_some() && !is_suggested {
        // Values of our own would be other jobs than those that W&B chose, and paid for again.
        let hint = "go on with it at W&B, or take another --output-dir";
        return Err(usage("W&B chose this sweep's values so far, and is off now".to_owned(), hint));
    }
    let is_suggested = is_suggested && (book.trials.is_empty() || book.wandb_sweep.is_some());
    if !is_suggested {
        // A larger --count adds runs to those that are there.
        for added in wanted.values.iter().skip(book.trials.len()) {
            book.trials.push(Trial::new(added.clone()));
        }
    }
    let open = price_all(&service, &mut runs, &mut book, wanted, terminal)?;
    agree(&book, &open, (spending, &service), terminal)?;
    if is_suggested {
        begin_suggestions(&service, &mut runs, &mut book, wanted, terminal)?;
    }
    book.write(&runs.out)?;
    runs.metric = wanted.sweep.metric.clone();
    runs.parallel = args.parallel.max(1);
    runs.cap = args.spending.max_cost;
    runs.svg.clone_from(&args.svg);
    Ok(run_all(&service, runs, book, terminal))
}

/// What is to be tried: the values of all runs or, where W&B chooses them, what it could choose.
struct Wanted<'w> {
    sweep: &'w Sweep,
    chosen: &'w Chosen,
    values: Vec<Assignment>,
    count: usize,
}

/// Has W&B choose the values: makes the sweep there, or goes on with the one that is there.
fn begin_suggestions(
    service: &Service,
    runs: &mut Runs,
    book: &mut Book,
    wanted: &Wanted<'_>,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let Way::Online { settings, .. } = &wanted.chosen.way else { return Ok(()) };
    let wandb = wandb_run::connect(
        settings.clone(),
        WANDB_CALL,
        &service.environment,
        std::sync::Arc::clone(&service.clock),
    )?;
    if book.wandb_sweep.is_none() {
        let mut document = wanted.sweep.document.clone();
        document.insert("run_cap".to_owned(), wanted.count.into());
        let plan = &wanted.chosen.plan;
        let project = if plan.project.is_empty() { DEFAULT_PROJECT } else { &plan.project };
        let entity = plan.entity.clone().unwrap_or_default();
        let made = wandb_sweep::create(&wandb, (&entity, project), &document);
        book.wandb_sweep = Some(made.map_err(|error| {
            let hint = "run it again when W&B answers, or with --wandb off; no job was started";
            Failure::new(Exit::Network, "wandb", format!("cannot make the sweep at W&B: {error}"), hint)
        })?);
    }
    if let Some(sweep) = &book.wandb_sweep {
        terminal.label("W&B", &sweep.url);
        runs.suggestions = Some(Suggestions {
            wandb,
            sweep: sweep.clone(),
            chosen: wanted.chosen.clone(),
            count: wanted.count,
        });
    }
    Ok(())
}

/// Holds every combination against its model's limits.
fn check_all(service: &Service, runs: &Runs, values: &[Assignment]) -> Result<(), Failure> {
    let mut refused: Vec<String> = Vec::new();
    for values in values {
        for said in runs.maker.make(service, values, runs.manifest.val.is_some())?.refused {
            if !refused.contains(&said) {
                refused.push(said);
            }
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    let message = format!("the sweep asks for what the model refuses: {}", refused.join("; "));
    let hint = "cut the lists of values to the bounds; nothing was uploaded or started";
    Err(Failure::new(Exit::Usage, "over_limit", message, hint))
}

/// Brings the data to the service, once for all, and asks what each run will cost: the estimates of the
/// runs that are still to start.
fn price_all(
    service: &Service,
    runs: &mut Runs,
    book: &mut Book,
    Wanted { values, count, .. }: &Wanted<'_>,
    terminal: &Terminal,
) -> Result<Vec<Option<f64>>, Failure> {
    let _lock = OutputLock::acquire(&runs.out)?;
    let has_val = runs.manifest.val.is_some();
    let made: Vec<Combination> =
        values.iter().map(|values| runs.maker.make(service, values, has_val)).collect::<Result<_, _>>()?;
    let longest = made.iter().filter_map(|of| sequence_length(&of.settled, &of.limits)).min();
    verify(std::slice::from_ref(&runs.out), longest, &service.signals, terminal)?;
    let uploaded = upload_sides(service, &runs.account, (&runs.out, &runs.manifest), terminal)?;
    let ids = files(&uploaded);
    (runs.train_file, runs.val_file) = (ids.train.to_owned(), ids.val.map(str::to_owned));
    let estimates: Vec<Option<f64>> =
        made.iter().map(|combination| runs.estimate(service, combination)).collect::<Result<_, _>>()?;
    if book.trials.is_empty() || book.wandb_sweep.is_some() {
        // Nobody knows yet what will be suggested: the dearest of what could be.
        let left = count.saturating_sub(book.trials.iter().filter(|trial| trial.job.is_some()).count());
        let dearest = estimates.iter().copied().reduce(|one, other| Some(one?.max(other?))).flatten();
        return Ok(if estimates.len() == left { estimates } else { vec![dearest; left] });
    }
    for (trial, estimate) in book.trials.iter_mut().zip(estimates).filter(|(trial, _)| trial.job.is_none()) {
        trial.estimate = estimate;
    }
    Ok(book.trials.iter().filter(|trial| trial.job.is_none()).map(|trial| trial.estimate).collect())
}

/// A yes to the whole sweep.
fn agree(
    book: &Book,
    estimates: &[Option<f64>],
    (spending, service): (Spending, &Service),
    terminal: &Terminal,
) -> Result<(), Failure> {
    let known: f64 = estimates.iter().flatten().sum();
    let total = book.spent() + known;
    let unknown = estimates.iter().filter(|estimate| estimate.is_none()).count();
    let started = book.trials.iter().filter(|trial| trial.job.is_some()).count();
    let total_runs = counted((started + estimates.len()) as u64, "run");
    terminal.label("sweep", &format!("{total_runs}, {} of them still to start", estimates.len()));
    let gap = if unknown > 0 { format!(", and {unknown} at a price nobody knows") } else { String::new() };
    terminal.label(
        "price",
        &format!("about ${total:.2} for the whole sweep, ${:.2} of it spent or running{gap}", book.spent()),
    );
    if estimates.is_empty() {
        return Ok(());
    }
    match spending {
        Spending::Agreed { max_cost: Some(cap) } if unknown > 0 || total > cap + 1e-9 => {
            let message = format!("the sweep is estimated at ${total:.2}{gap}, and --max-cost is ${cap:.2}");
            let hint =
                "raise --max-cost, or try less: --count N, fewer values, fewer epochs; nothing was started";
            Err(Failure::new(Exit::Unspent, "over_max_cost", message, hint))
        }
        Spending::Asked => {
            match ask(&format!("Start this sweep for about ${total:.2}?"), &service.signals, terminal) {
                Ok(true) => Ok(()),
                Ok(false) => {
                    let hint = "run it again to be asked again";
                    Err(Failure::new(
                        Exit::Unspent,
                        "declined",
                        "the sweep was not started: the answer was no",
                        hint,
                    ))
                }
                Err(stopped) => Err(service.explain(stopped)),
            }
        }
        _ => Ok(()),
    }
}

fn show_plan(sweep: &Sweep, values: &[Assignment], terminal: &mut Terminal) -> Exit {
    let line = |(index, values): (usize, &Assignment)| {
        printable(&format!("{}\t{}", index + 1, shown_values(values).replace("  ", "\t")))
    };
    let lines: Vec<String> = values.iter().enumerate().map(line).collect();
    terminal.say(&format!("{}; nothing was sent", counted(values.len() as u64, "run")));
    let mut fields = Map::new();
    let object = |values: &Assignment| values.iter().cloned().collect::<Map<String, Value>>();
    fields.insert("method".to_owned(), sweep.method.to_string().into());
    fields.insert("metric".to_owned(), sweep.metric.name.clone().into());
    fields.insert(
        "runs".to_owned(),
        values.iter().map(|values| json!({ "parameters": object(values) })).collect(),
    );
    terminal.succeed(COMMAND, Some(lines.join("\n").as_bytes()), fields)
}

/// `learning_rate=1e-5  n_epochs=3`.
pub fn shown_values(values: &Assignment) -> String {
    let one = |(key, value): &(String, Value)| match value {
        Value::String(text) => format!("{key}={text}"),
        Value::Number(number) => match number.as_f64() {
            Some(real) if number.is_f64() && real != 0.0 && real.abs() < 1e-3 => format!("{key}={real:e}"),
            _ => format!("{key}={number}"),
        },
        other => format!("{key}={other}"),
    };
    values.iter().map(one).collect::<Vec<_>>().join("  ")
}

/// The sweep with a `command` that runs this program, and a cap of its own.
fn init(args: &SweepInitArgs, terminal: &mut Terminal) -> Result<Exit, Failure> {
    let sweep = Sweep::read(&args.file)?;
    check_metric(&sweep)?;
    let values: Vec<Assignment> = vec![sweep.draw(42, 0)];
    for values in &values {
        TuneChoices::of_values(values)
            .map_err(|reason| usage(reason, "a sweep varies parameters of the job; data is prepared once"))?;
    }
    if !(args.max_cost.is_finite() && args.max_cost >= 0.0) {
        return Err(usage(
            format!("--max-cost is {}", args.max_cost),
            "it is an amount in dollars, from 0 upward",
        ));
    }
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
    document.insert("run_cap".to_owned(), args.count.into());
    // The stock agent reads the program's name although the command says it all.
    document.entry("program").or_insert_with(|| "ctxtune".into());
    // JSON is YAML, and its numbers are numbers in every version of it.
    let text = for_python(&serde_json::to_string_pretty(&document).unwrap_or_default());
    terminal.label("next", "wandb sweep FILE, then wandb agent with what it prints");
    let mut fields = Map::new();
    fields.insert("sweep".to_owned(), Value::Object(document));
    Ok(terminal.succeed(COMMAND, Some(text.as_bytes()), fields))
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

    #[test]
    fn values_are_shown_as_people_write_them() {
        let values = vec![("learning_rate".to_owned(), json!(1e-5)), ("batch_size".to_owned(), json!("max"))];
        assert_eq!(shown_values(&values), "learning_rate=1e-5  batch_size=max");
    }
}
