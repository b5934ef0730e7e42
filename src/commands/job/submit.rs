//! `ctxtune submit`: the order of flags and file, and the job's id on stdout.

use std::path::Path;

use crate::args::SubmitArgs;
use crate::screen::plan::show_expected;
use crate::screen::report::Terminal;
use crate::session;
use crate::session::environment::{self, Configured, configured};
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_pipeline::config::{ConfigError, PrepareChoices};
use ctxtune_pipeline::job::data::take_files;
use ctxtune_pipeline::job::dry_run::{self, Unsent};
use ctxtune_pipeline::job::expected::Expected;
use ctxtune_pipeline::job::submit::{Order, Submitted, submit};
use ctxtune_pipeline::job::tokens::TOKENIZER;
use ctxtune_pipeline::job::{wandb, wandb_run};
use ctxtune_pipeline::session::consent::Spending;
use ctxtune_pipeline::{Environment, Exit, Failure};
use serde_json::Value;

pub fn run(args: &SubmitArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    if args.dry_run { dry_run(args, terminal) } else { to_job(args, terminal) }
}

fn to_job(args: &SubmitArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let environment = environment::read(args.config_path.as_deref(), terminal)?;
    let order = order(args, &environment, terminal)?;
    let mut session = session::start(&args.remote, environment, terminal)?;
    let file = configured(args.config_path.as_deref())?.file;
    session.tokenizer = args.tokenizer.tokenizer.clone().or_else(|| file?.text(TOKENIZER));
    let (wandb, out) = (order.wandb.clone(), order.out.clone());
    let mut submitted = submit(&session, order)?;
    submitted.announced = wandb_run::announce(&session, &wandb, &out, &submitted.adopted.job);
    Ok(end_submitted(&submitted, terminal))
}

pub fn end_submitted(submitted: &Submitted, terminal: &Terminal) -> Exit {
    let job = &submitted.adopted.job.id;
    terminal.label("next", &format!("ctxtune monitor {job}"));
    terminal.report(Some(job.as_str().as_bytes()), &submitted.report())
}

fn order(args: &SubmitArgs, environment: &Environment, terminal: &Terminal) -> Result<Order, Failure> {
    let Configured { file, data, tune } = configured(args.config_path.as_deref())?;
    let is_file = |data: &&Path| {
        args.val.is_some() || data.is_file() || data.extension().is_some_and(|extension| extension == "jsonl")
    };
    let out = match args.data.as_deref().filter(is_file) {
        Some(train) => {
            let choices = PrepareChoices {
                sources: vec![train.to_owned()],
                output_dir: args.output_dir.clone(),
                ..PrepareChoices::default()
            };
            let given = choices.given(args.val.clone(), data)?;
            take_files(&given, terminal, &terminal.signals)?;
            given.output_dir
        }
        None if args.data.is_some() && args.output_dir.is_some() => {
            let reason =
                "OUT is named twice: it is prepared already, and is its own output directory".to_owned();
            return Err(
                ConfigError::Value { key: "output_dir".to_owned(), place: String::new(), reason }.into()
            );
        }
        None => {
            let named = args.data.clone().or_else(|| args.output_dir.clone());
            named.unwrap_or_else(|| data.out())
        }
    };
    let seed = Manifest::read(&out)?.options.seed;
    Ok(Order {
        out,
        parameters: args.choices.clone().resolve(tune, seed),
        spending: Spending::of(args.spending.yes, args.spending.max_cost, terminal),
        renews: args.spending.new_job,
        allows_truncation: args.allow_truncation,
        announces_steps: false,
        wandb: wandb::resolve(&args.wandb, file.as_ref(), environment, terminal)?,
        budget: None,
    })
}

/// The requests as they would be sent, on stdout or in the JSON document.
fn dry_run(args: &SubmitArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let environment = environment::read(args.config_path.as_deref(), terminal)?;
    let order = order(args, &environment, terminal)?;
    let clock = session::clock::SystemClock::new(terminal.signals.clone(), 1.0);
    let report = dry_run::requests(&order, args.remote.base_url.as_deref(), &clock, &environment)?;
    let text: Vec<String> = report.requests.iter().map(text).collect();
    show_expected(&Expected::published(), terminal);
    terminal.say("nothing was sent");
    Ok(terminal.report(Some(text.join("\n\n").as_bytes()), &report))
}

fn text(request: &Unsent) -> String {
    let shown = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let headers: String =
        request.headers.iter().map(|(name, value)| format!("\n{name}: {}", shown(value))).collect();
    let body = match &request.body {
        Value::Null => String::new(),
        Value::String(text) => format!("\n\n{text}"),
        body => format!("\n\n{}", serde_json::to_string_pretty(body).unwrap_or_default()),
    };
    format!("{} {}{headers}{body}", request.method, request.url)
}
