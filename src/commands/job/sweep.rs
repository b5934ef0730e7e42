//! `ctxtune sweep`: what a sweep would try and cost, agreed to once, and `sweep init` for W&B's own agent.
//!
//! Every combination is held against the model's limits, and the whole is priced, before the first job
//! is started. The runs themselves are `sweep_run`'s.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::args::{SweepArgs, SweepCommand, SweepInitArgs, SweepRunArgs, WandbArgs};
use crate::commands::data::check::verify;
use crate::commands::data::prepare::prepare_corpus;
use crate::commands::job::submit::{files, sequence_length};
use crate::commands::job::sweep_make::Maker;
use crate::commands::job::sweep_price::{MOST_ESTIMATES, Quote, agree, price_book, price_space};
use crate::commands::job::sweep_run::{Runs, Suggestions, run_all};
use crate::commands::job::upload::upload_sides;
use crate::commands::job::wandb::{self, Chosen, Way};
use crate::commands::job::wandb_run;
use crate::env;
use crate::exit::{Exit, Failure};
use crate::screen::report::{Terminal, counted, printable};
use crate::session::consent::Spending;
use crate::session::environment::{Environment, config_file};
use crate::session::service::Service;
use crate::signals::Signals;
use ctxtune_engine::output::lock::OutputLock;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_pipeline::config::{ConfigFile, DEFAULT_OUTPUT_DIR, PrepareChoices, TuneChoices};
use ctxtune_pipeline::job::logging::DEFAULT_PROJECT;
use ctxtune_pipeline::job::parameters::PRICED;
use ctxtune_pipeline::sweep::book::{Book, SWEEPS_DIR, Trial, sweep_id};
use ctxtune_pipeline::sweep::{Assignment, Domain, Goal, Method, Runner, Sweep, SweepError};
use ctxtune_service::wandb::sweep::{self as wandb_sweep, PendingRun};

const COMMAND: &str = "sweep";

/// The most runs of a sweep.
const MOST_RUNS: usize = 10_000;

/// What a call of W&B may take before the start.
const WANDB_CALL: Duration = Duration::from_secs(20);

impl From<SweepError> for Failure {
    fn from(error: SweepError) -> Failure {
        let hint = "docs/sweeps.md lists the keys of a sweep file; nothing was sent";
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

/// How many runs there are at the most, where the command line or the file says.
fn count(sweep: &Sweep, args: &SweepRunArgs) -> Option<usize> {
    let count = args.count.into_iter().chain(sweep.run_cap).min();
    count.map(|count| usize::try_from(count).unwrap_or(usize::MAX))
}

/// Who chooses the values of the runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chooser {
    /// This program.
    Own,
    /// W&B.
    Wandb,
}

/// What a sweep tries.
struct Wanted {
    /// The values of all runs, in their order; where W&B chooses them, what is held against the limits.
    values: Vec<Assignment>,
    /// Runs at the most.
    count: usize,
}

impl Wanted {
    fn of(sweep: &Sweep, args: &SweepRunArgs, chooser: Chooser) -> Result<Wanted, Failure> {
        let hint = "give every parameter `values`, or use `method: random` with --count";
        if let Some(count) = count(sweep, args).filter(|count| *count > MOST_RUNS) {
            let message = format!("a sweep must have between 1 and {MOST_RUNS} runs, got {count}");
            return Err(usage(message, "lower --count, or `run_cap`"));
        }
        let grid = || sweep.grid().map_err(|reason| usage(reason, hint));
        let count = count(sweep, args);
        let values = match (sweep.method, count, chooser) {
            (Method::Grid, None, _) | (Method::Grid, _, Chooser::Wandb) => grid()?,
            (Method::Grid, Some(count), Chooser::Own) => grid()?.into_iter().take(count).collect(),
            (Method::Random | Method::Bayes, None, _) => {
                let message = format!("`method: {}` has no end of its own", sweep.method);
                return Err(usage(message, "say how many runs: --count N"));
            }
            (Method::Random | Method::Bayes, Some(_), Chooser::Wandb) => sweep.probes(),
            (Method::Random, Some(count), Chooser::Own) => {
                (0..count as u64).map(|number| sweep.draw(args.sweep_seed, number)).collect()
            }
            (Method::Bayes, Some(_), Chooser::Own) => {
                return Err(usage(
                    "`method: bayes` is W&B's: it learns from the runs it has seen".to_owned(),
                    "log to W&B (export WANDB_API_KEY), or use `method: grid` or `random`",
                ));
            }
        };
        let count = match sweep.method {
            Method::Grid => values.len().min(count.unwrap_or(usize::MAX)),
            Method::Random | Method::Bayes => count.unwrap_or_default(),
        };
        Ok(Wanted { values, count })
    }
}

/// Refuses a metric that no run has, and warns where the worst run would win.
fn check_metric(sweep: &Sweep, terminal: &Terminal) -> Result<(), Failure> {
    let known = ["val/loss", "eval/loss", "train/loss"];
    if known.contains(&sweep.metric.name.as_str()) {
        if sweep.metric.goal == Goal::Maximize {
            let name = &sweep.metric.name;
            terminal.warn(&format!(
                "`metric.goal: maximize` ranks the run with the highest {name} first, which is the worst one; use minimize"
            ));
        }
        return Ok(());
    }
    let message = format!("`metric.name` is `{}`, which no run has", sweep.metric.name);
    Err(usage(message, "the metrics are val/loss (also eval/loss) and train/loss"))
}

/// Refuses a flag for a parameter that the sweep varies: it would have no effect.
fn refuse_varied_flags(sweep: &Sweep, flags: &TuneChoices) -> Result<(), Failure> {
    let is_varied = |key: &&str| sweep.parameters.iter().any(|(name, _)| name == key);
    let Some(key) = flags.keys().find(is_varied) else { return Ok(()) };
    let message = format!("--{} is set, and the sweep varies `{key}`", key.replace('_', "-"));
    Err(usage(message, "leave out the flag, or set the value in the sweep file: `value: ...`"))
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

/// What the command line and the file say, and the data it is about.
struct Setting {
    config: Option<ConfigFile>,
    file: TuneChoices,
    out: PathBuf,
    has_source: bool,
    data: PrepareChoices,
}

fn setting(args: &SweepRunArgs) -> Result<Setting, Failure> {
    let config = config_file(args.corpus.config_path.as_deref())?;
    let (data, file) = match &config {
        Some(config) => (config.prepare_choices()?, config.tune_choices()?),
        None => Default::default(),
    };
    let flags = args.corpus.choices.clone();
    let has_source = flags.names_sources();
    let data = flags.over(data);
    let out = data.output_dir.clone().unwrap_or_else(|| DEFAULT_OUTPUT_DIR.into());
    Ok(Setting { config, file, out, has_source, data })
}

fn run_sweep(args: &SweepRunArgs, signals: &Signals, terminal: &mut Terminal) -> Result<Exit, Failure> {
    if args.spending.new_job {
        let hint = "a failed run is run again with `ctxtune finetune --new-job`";
        return Err(usage("a sweep has no --new-job".to_owned(), hint));
    }
    let sweep = Sweep::read(&args.file, Runner::Native)?;
    check_metric(&sweep, terminal)?;
    refuse_varied_flags(&sweep, &args.choices)?;
    let setting = setting(args)?;
    let environment = Environment::read(args.corpus.config_path.as_deref(), terminal)?;
    let wandb = wandb_args(&args.wandb, &sweep, &environment);
    let chosen = wandb::resolve(&wandb, setting.config.as_ref(), &environment, terminal)?;
    let online = if matches!(chosen.way, Way::Online { .. }) { Chooser::Wandb } else { Chooser::Own };
    let wanted = Wanted::of(&sweep, args, online)?;
    let maker = |seed| Maker::new(args.choices.clone(), setting.file.clone(), seed);
    if args.dry_run {
        return match online {
            Chooser::Own => {
                let draws = wanted.values.len();
                Ok(show_plan((&sweep, draws), &maker(42).distinct(wanted.values)?, terminal))
            }
            Chooser::Wandb => show_space(&sweep, wanted.count, &maker(42), terminal),
        };
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
    let mut runs = Runs::new(setting.out, service.account()?, manifest, maker);
    runs.name.clone_from(&sweep.name);
    runs.metric = sweep.metric.clone();
    runs.parallel = args.parallel.max(1);
    runs.cap = args.spending.max_cost;
    runs.svg.clone_from(&args.svg);
    let from = Origin { sweep: &sweep, args, chosen: &chosen, online };
    start(&from, (service, runs), spending, terminal)
}

/// What a sweep comes from.
struct Origin<'f> {
    sweep: &'f Sweep,
    args: &'f SweepRunArgs,
    chosen: &'f Chosen,
    /// Who chooses the values of a sweep that begins now.
    online: Chooser,
}

/// Prices, asks, and runs a sweep that can be run.
fn start(
    from: &Origin<'_>,
    (service, mut runs): (Service, Runs),
    spending: Spending,
    terminal: &mut Terminal,
) -> Result<Exit, Failure> {
    let sweep = from.sweep;
    let document = Value::Object(sweep.document.clone());
    let id = sweep_id(&document, &runs.maker.identity(&runs.manifest));
    // Two processes would each count what they spend themselves.
    let _lock = lock_sweep(&runs.out, &id)?;
    let mut book = match Book::read(&runs.out, &id)? {
        Some(book) => book,
        None => Book::new(id, Vec::new()),
    };
    if book.wandb_sweep.is_some() && from.online == Chooser::Own {
        // Values of our own would be other jobs than those that W&B chose, and paid for again.
        let hint = "go on with it at W&B, or take another --output-dir";
        return Err(usage("W&B chose this sweep's values so far, and is off now".to_owned(), hint));
    }
    let has_begun = !book.trials.is_empty() && book.wandb_sweep.is_none();
    let chooser = if has_begun { Chooser::Own } else { from.online };
    let wanted = Wanted::of(sweep, from.args, chooser)?;
    check_all(&service, &runs, &wanted.values)?;
    if chooser == Chooser::Own {
        plan_trials(&service, &runs, &mut book, &wanted.values)?;
    }
    upload(&service, &mut runs, &wanted.values, terminal)?;
    let more = wanted.count.saturating_sub(book.trials.len());
    let to_choose = match (chooser, more) {
        (Chooser::Wandb, 1..) => Some((more, price_space(&service, &runs, sweep, terminal)?)),
        _ => None,
    };
    let unknown = price_book(&service, &runs, &mut book, terminal)?;
    let quote = Quote::of(&book, to_choose, unknown);
    agree((&runs, &book, &quote), spending, &service, terminal)?;
    if chooser == Chooser::Wandb {
        begin_suggestions(&service, &mut runs, &mut book, (from, wanted.count), terminal)?;
    }
    book.write(&runs.out)?;
    Ok(run_all(&service, runs, (book, &quote), terminal))
}

/// The sweep's own lock: it is held until the last run has ended, while OUT's is held for each submission.
fn lock_sweep(out: &Path, id: &str) -> Result<OutputLock, Failure> {
    let dir = out.join(SWEEPS_DIR);
    let failed = |error| {
        let message = format!("cannot make the directory `{}`: {error}", dir.display());
        Failure::new(Exit::Failed, "lock", message, "check the permissions of the output directory")
    };
    std::fs::create_dir_all(&dir).map_err(failed)?;
    Ok(OutputLock::acquire_named(&dir, id)?)
}

/// Brings the runs of `book` that have no job in line with `wanted`: each job once. What may exist already
/// stays.
fn plan_trials(
    service: &Service,
    runs: &Runs,
    book: &mut Book,
    wanted: &[Assignment],
) -> Result<(), Failure> {
    // A smaller --count leaves out runs that were not started, a larger one adds runs.
    book.trials.retain(|trial| !trial.is_free() || wanted.contains(&trial.values));
    for values in wanted {
        let is_there = book.trials.iter().any(|trial| trial.values == *values);
        // With another --sweep-seed the runs of the former one count, too.
        if !is_there && book.trials.len() < wanted.len() {
            book.trials.push(Trial::new(values.clone()));
        }
    }
    let has_val = runs.manifest.val.is_some();
    let mut keys = Vec::new();
    for trial in &book.trials {
        keys.push(runs.maker.make(service, &trial.values, has_val)?.key);
    }
    // Equal draws are one job: the run that has it, or else the first one.
    let stays = |index: usize| {
        let same = (0..keys.len()).filter(|other| keys[*other] == keys[index]);
        let first = same
            .min_by_key(|other| (book.trials[*other].job.is_none(), book.trials[*other].is_free(), *other));
        book.trials[index].job.is_some() || first == Some(index)
    };
    let kept: Vec<usize> = (0..keys.len()).filter(|index| stays(*index)).collect();
    book.trials = kept.into_iter().map(|index| book.trials[index].clone()).collect();
    Ok(())
}

/// Checks the data and brings it to the service, once for all runs.
fn upload(
    service: &Service,
    runs: &mut Runs,
    values: &[Assignment],
    terminal: &Terminal,
) -> Result<(), Failure> {
    let _lock = OutputLock::acquire(&runs.out)?;
    let has_val = runs.manifest.val.is_some();
    let mut shortest = None;
    for values in values {
        let of = runs.maker.make(service, values, has_val)?;
        let length = sequence_length(&of.settled, &of.limits);
        shortest = shortest.into_iter().chain(length).min();
    }
    verify(std::slice::from_ref(&runs.out), shortest, &service.signals, terminal)?;
    let uploaded = upload_sides(service, &runs.account, (&runs.out, &runs.manifest), terminal)?;
    let ids = files(&uploaded);
    (runs.train_file, runs.val_file) = (ids.train.to_owned(), ids.val.map(str::to_owned));
    Ok(())
}

/// Has W&B choose the values: makes the sweep there, or goes on with the one that is there.
fn begin_suggestions(
    service: &Service,
    runs: &mut Runs,
    book: &mut Book,
    (from, count): (&Origin<'_>, usize),
    terminal: &Terminal,
) -> Result<(), Failure> {
    let Way::Online { settings, .. } = &from.chosen.way else { return Ok(()) };
    let wandb = wandb_run::connect(
        settings.clone(),
        WANDB_CALL,
        &service.environment,
        std::sync::Arc::clone(&service.clock),
    )?;
    let failed = |what: &'static str| {
        move |error: ctxtune_service::wandb::Error| {
            let hint = "run it again when W&B answers, or with --wandb off; no job was started";
            Failure::new(Exit::Network, "wandb", format!("cannot {what} at W&B: {error}"), hint)
        }
    };
    let sweep = match book.wandb_sweep.clone() {
        Some(sweep) => {
            let pending = wandb_sweep::pending(&wandb, &sweep).map_err(failed("look up the sweep's runs"))?;
            take_pending((service, runs), book, (from.sweep, pending, count), terminal)?;
            sweep
        }
        None => {
            let mut document = from.sweep.document.clone();
            document.insert("run_cap".to_owned(), count.into());
            let plan = &from.chosen.plan;
            let project = if plan.project.is_empty() { DEFAULT_PROJECT } else { &plan.project };
            let entity = plan.entity.clone().unwrap_or_default();
            let made = wandb_sweep::create(&wandb, (&entity, project), &document);
            made.map_err(failed("make the sweep"))?
        }
    };
    book.wandb_sweep = Some(sweep.clone());
    terminal.label("W&B", &sweep.url);
    runs.suggestions = Some(Suggestions { wandb, sweep, chosen: from.chosen.clone(), count });
    Ok(())
}

/// Takes the runs into the book that W&B suggested and that did not arrive: it does not suggest them again.
fn take_pending(
    (service, runs): (&Service, &Runs),
    book: &mut Book,
    (sweep, pending, count): (&Sweep, Vec<PendingRun>, usize),
    terminal: &Terminal,
) -> Result<(), Failure> {
    for PendingRun { run, values } in pending {
        let is_known = book.trials.iter().any(|trial| trial.wandb_run_id.as_ref() == Some(&run));
        if is_known || book.trials.len() >= count {
            continue;
        }
        let is_varied = |key: &str| sweep.parameters.iter().any(|(name, _)| name == key);
        let values: Assignment = values.into_iter().filter(|(key, _)| is_varied(key)).collect();
        let taken = if values.len() == sweep.parameters.len() {
            runs.suggested(service, run.clone(), values)
        } else {
            Err(usage("W&B does not show all of its values".to_owned(), ""))
        };
        match taken {
            Ok(trial) => {
                terminal
                    .say(&printable(&format!("W&B suggested the run {run} earlier, and nobody began it")));
                book.trials.push(trial);
            }
            Err(failure) if failure.exit == Exit::Usage => {
                let why = failure.message;
                terminal.warn(&printable(&format!(
                    "the run {run}, which W&B suggested earlier, is not begun: {why}"
                )));
            }
            Err(failure) => return Err(failure),
        }
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

fn show_plan((sweep, draws): (&Sweep, usize), values: &[Assignment], terminal: &mut Terminal) -> Exit {
    let line = |(index, values): (usize, &Assignment)| {
        printable(&format!("{}\t{}", index + 1, shown_values(values).replace("  ", "\t")))
    };
    let lines: Vec<String> = values.iter().enumerate().map(line).collect();
    let runs = counted(values.len() as u64, "run");
    match draws - values.len() {
        0 => terminal.say(&format!("{runs}; nothing was sent")),
        equal => terminal.say(&format!("{runs}, {equal} draws equal to another one; nothing was sent")),
    }
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

/// What a sweep is whose values W&B chooses, and what bounds its price.
fn show_space(sweep: &Sweep, count: usize, maker: &Maker, terminal: &mut Terminal) -> Result<Exit, Failure> {
    check_values(sweep)?;
    let estimates = match sweep.combinations_of(&PRICED) {
        Some(combinations) => Some(maker.estimates(&combinations)?).filter(|count| *count <= MOST_ESTIMATES),
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
    let mut fields = Map::new();
    fields.insert("method".to_owned(), sweep.method.to_string().into());
    fields.insert("metric".to_owned(), sweep.metric.name.clone().into());
    fields.insert("count".to_owned(), count.into());
    fields.insert("space".to_owned(), sweep.document.get("parameters").cloned().unwrap_or_default());
    fields.insert("estimates".to_owned(), estimates.into());
    Ok(terminal.succeed(COMMAND, Some(lines.join("\n").as_bytes()), fields))
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

/// `learning_rate=1e-5  n_epochs=3`.
pub fn shown_values(values: &Assignment) -> String {
    let one = |(key, value): &(String, Value)| format!("{key}={}", shown_value(value));
    values.iter().map(one).collect::<Vec<_>>().join("  ")
}

fn shown_value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(real) if number.is_f64() && real != 0.0 && real.abs() < 1e-3 => format!("{real:e}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// Refuses a sweep over what is no parameter of a job, or over values that cannot be its.
fn check_values(sweep: &Sweep) -> Result<(), Failure> {
    let unfit = |reason| usage(reason, "a sweep varies parameters of the job; data is prepared once");
    for (name, domain) in &sweep.parameters {
        for value in domain.extremes() {
            TuneChoices::of_values(&[(name.clone(), value)]).map_err(unfit)?;
        }
    }
    sweep.drawn_elsewhere.iter().try_for_each(|name| TuneChoices::check_key(name).map_err(unfit))
}

/// The sweep with a `command` that runs this program, and a cap of its own.
fn init(args: &SweepInitArgs, terminal: &mut Terminal) -> Result<Exit, Failure> {
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
