//! `ctxtune rehearse`: the whole pipeline against a server on this machine, or only that server.
//!
//! Separate from the server, which prints nothing. Every screen says that nothing is trained. The
//! pipeline is `finetune` itself, in an environment made here: it cannot see a real key, and knows
//! no address but the loopback's. With `--serve` the base URL is the one line on stdout.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::args::{FinetuneArgs, RehearseArgs, ScoreArgs, of_line};
use crate::commands::data::score::report;
use crate::commands::data::score_models::{self, Answered};
use crate::commands::job::finetune;
use crate::screen::report::{Style, Terminal};
use crate::session::clock::{ServerClock, SystemClock};
use crate::session::environment;
use ctxtune_engine::yaml;
use ctxtune_pipeline::config::argument;
use ctxtune_pipeline::job::ledger::Run;
use ctxtune_pipeline::job::logging::DEFAULT_PROJECT;
use ctxtune_pipeline::job::model::REFERENCE;
use ctxtune_pipeline::text::{counted, printable};
use ctxtune_pipeline::{Environment, Exit, Failure, Ui, env};
use ctxtune_rehearsal::faults::Faults;
use ctxtune_rehearsal::{ENTITY, Script, Server, WANDB_KEY, corpus};
use ctxtune_service::Clock;

const BANNER: &str = "REHEARSAL: nothing is trained or paid for";
/// How often the pipeline looks at its job, which takes seconds.
const POLL: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(86_400);
const MOST: usize = 20;

pub fn run(args: &RehearseArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let terminal = terminal.clone().with_banner(BANNER);
    if args.serve { serve(args, &terminal) } else { rehearse(args, &terminal) }
}

/// Runs `finetune` against a server of this process.
fn rehearse(args: &RehearseArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let server = start(args, terminal)?;
    let failed = |error: io::Error| {
        let message = format!("cannot write the corpus of the rehearsal: {error}");
        Failure::failed("write", message, "free some space in the directory for temporary files")
    };
    let room = tempfile::tempdir().map_err(failed)?;
    let corpus = match &args.source {
        Some(source) => source.clone(),
        None => {
            let corpus = room.path().join("contexts");
            corpus::write(&corpus).map_err(failed)?;
            corpus
        }
    };
    let out = args.output_dir.clone().unwrap_or_else(|| room.path().join("out"));
    terminal.say(&terminal.paint(Style::Notice, BANNER));
    let environment = environment::with_locale([
        (env::TOGETHER_API_KEY, args.key.clone()),
        (env::TOGETHER_BASE_URL, server.url().to_owned()),
        (env::XDG_STATE_HOME, room.path().to_string_lossy().into_owned()),
        (env::WANDB_API_KEY, WANDB_KEY.to_owned()),
        (env::WANDB_BASE_URL, server.url().to_owned()),
        // Said here, lest the settings that `wandb` keeps in the working directory say it.
        (env::WANDB_ENTITY, ENTITY.to_owned()),
        (env::WANDB_PROJECT, DEFAULT_PROJECT.to_owned()),
        (env::WANDB_MODE, "online".to_owned()),
    ]);
    let line = ["--yes".into(), argument("output_dir", &out), "--".into(), corpus.into_os_string()];
    let mut finetune_args: FinetuneArgs = of_line(line)?;
    finetune_args.corpus.choices.containers = args.containers;
    finetune_args.watch.poll = Some(POLL);
    finetune_args.watch.svg.clone_from(&args.svg);
    let config_path = args.config_path.as_deref();
    let run = finetune::Run { config_path, environment: environment.clone() };
    let ran = finetune::finetune(&finetune_args, run, terminal);
    let exit = match ran.unwrap_or_else(|failure| terminal.fail(&failure, Map::new())) {
        Exit::Done => use_it((&server, &out), &environment, terminal),
        exit => exit,
    };
    if args.output_dir.is_none() {
        terminal.say("the result was in a temporary directory and is gone; --output-dir keeps it");
    }
    terminal.say(&terminal.paint(Style::Notice, BANNER));
    Ok(exit)
}

/// Uses the model, after the one document of the run: what fails here is only said.
fn use_it(place: (&Server, &Path), environment: &Environment, terminal: &Terminal) -> Exit {
    match use_model(place, environment, terminal) {
        Ok(()) => Exit::Done,
        // A split without validation is a choice, and the rehearsal of it went well.
        Err(failure) if failure.code == "no_validation" => {
            terminal.say("no validation records: there is nothing to ask the model about");
            Exit::Done
        }
        Err(failure) => {
            terminal.warn(&printable(&format!("the tuned model could not be used: {}", failure.message)));
            failure.hint.iter().for_each(|hint| terminal.say(&printable(&format!("hint: {hint}"))));
            failure.exit
        }
    }
}

/// Asks the model of the newest job in `out`, and its base, about validation records. For real the model would have to
/// be deployed, for money, or be served by somebody; here the server lets it answer at once, and says so.
fn use_model(
    (server, out): (&Server, &Path),
    environment: &Environment,
    terminal: &Terminal,
) -> Result<(), Failure> {
    terminal.step(5, "Using the tuned model");
    let runs = Run::read_all(out)?;
    let is_here = |run: &&Run| run.account.api == server.url();
    let run = runs.iter().rev().find(is_here);
    let Some((run, tuned)) = run.and_then(|run| Some((run, run.model.clone()?))) else {
        return Err(Failure::failed("no_model", "the job has no model", "run it again"));
    };
    let trained = run.body["model"].as_str().unwrap_or_default();
    let base = trained.trim_end_matches(REFERENCE).to_owned();
    let for_real = if trained == base {
        "`ctxtune deploy JOB --name EP` deploys it, billed by the minute"
    } else {
        "what is tuned from a -Reference model is downloaded, `ctxtune download JOB --adapter --extract DIR`, and served by yourself"
    };
    terminal.say(&format!("it answers here at once; for real {for_real}"));
    server.set_script(|script| script.deployed_models = vec![tuned.clone()]);
    let models = argument("models", format!("{base},{tuned}"));
    let limit = argument("limit", MOST.to_string());
    let args: ScoreArgs =
        of_line(["--yes".into(), "--concurrency=4".into(), models, argument("val", out), limit])?;
    let mut answered = Answered::default();
    score_models::ask((&args, out), environment, &mut answered, terminal)?;
    show_one(&answered, terminal);
    report(&args, environment, &answered, terminal)?;
    terminal.say("both models' answers are imitated: not a measure of tuning");
    Ok(())
}

fn show_one(answered: &Answered, terminal: &Terminal) {
    let record = answered.example.as_ref().and_then(|path| std::fs::read(path).ok());
    let Some(record) = record else { return };
    let record: Value = serde_json::from_slice(&record).unwrap_or_default();
    let say = |line: &str| terminal.say(&printable(line));
    terminal.label("story", &printable(record["story"].as_str().unwrap_or_default()));
    let context = &record["socialized_context"];
    say(&format!("{{\"agents_names\": {}, \"socialized_context\": [", context["agents_names"]));
    let steps = context["socialized_context"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (index, step) in steps.iter().enumerate() {
        let comma = if index + 1 == steps.len() { "" } else { "," };
        say(&format!("  {step}{comma}"));
    }
    say("]}");
}

fn start(args: &RehearseArgs, terminal: &Terminal) -> Result<Server, Failure> {
    let faults = args.faults.as_deref().map(read_faults).transpose()?.unwrap_or_default();
    let script = Script { key: args.key.clone(), job_seconds: args.job_seconds, faults, ..Script::default() };
    let clock = ServerClock(Arc::new(SystemClock::new(terminal.signals.clone(), 1.0)));
    Server::start_watched(args.port, script, Arc::new(clock), Arc::new(|_, _| ())).map_err(|error| {
        let message = format!("cannot serve on 127.0.0.1:{}: {error}", args.port);
        Failure::failed("serve", message, "choose another --port, or 0 for a free one")
    })
}

fn serve(args: &RehearseArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let server = start(args, terminal)?;
    let clock = SystemClock::new(terminal.signals.clone(), 1.0);
    let rules = match &args.faults {
        Some(path) => format!("; faults from {}", path.display()),
        None => String::new(),
    };
    terminal.say(&printable(&format!("{BANNER}{rules}")));
    terminal.say(&printable(&format!(
        "clients need TOGETHER_BASE_URL={} TOGETHER_API_KEY={}",
        server.url(),
        args.key
    )));
    let wandb = format!("and for W&B WANDB_BASE_URL={} WANDB_API_KEY={WANDB_KEY}", server.url());
    terminal.say(&printable(&wandb));
    announce(server.url()).map_err(|error| {
        let message = format!("cannot write to standard output: {error}");
        Failure { exit: Exit::Failed, code: "write", message, hint: None }
    })?;
    while clock.wait(LONG).is_ok() {}
    let violations = server.violations();
    for violation in &violations {
        terminal.warn(&printable(&format!("violation: {violation}")));
    }
    let (requests, jobs) = (server.seen().len() as u64, server.jobs_created() as u64);
    let violations = counted(violations.len() as u64, "violation");
    terminal.say(&format!("{}, {}, {violations}", counted(requests, "request"), counted(jobs, "job")));
    Ok(terminal.signals.exit())
}

/// The one line on stdout; whoever started the server waits for it.
fn announce(url: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{url}")?;
    out.flush()
}

fn read_faults(path: &Path) -> Result<Faults, Failure> {
    let hint = "`fixtures/faults.yaml` shows every fault there is";
    let refused = |code: &'static str, error: String| {
        let message = format!("cannot use the faults in `{}`: {error}", path.display());
        Failure::usage(code, message, hint)
    };
    let text = std::fs::read(path).map_err(|error| refused("read", error.to_string()))?;
    let text = yaml::text(text).map_err(|reason| refused("read", reason))?;
    yaml::parse(&text).map_err(|reason| refused("faults", reason))
}
