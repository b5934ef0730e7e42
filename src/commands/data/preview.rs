//! `ctxtune preview`: samples as the model sees them, on stdout.

use serde::Serialize;

use crate::args::{PreviewArgs, Split};
use crate::commands::data::check::{Counting, counting};
use crate::screen::preview::{Borders, Marks, draw, legend};
use crate::screen::report::Terminal;
use crate::session;
use crate::session::environment;
use ctxtune_engine::check::counter::Counter;
use ctxtune_pipeline::job::tokens::counter_or_about;
use ctxtune_pipeline::preview::{Order, Pick, ServiceSample, ShownSample, at_service, samples};
use ctxtune_pipeline::{Exit, Failure};

/// What the service says of the samples: of the model that it tunes under this name.
fn ask(
    args: &PreviewArgs,
    counting: &Counting,
    trains_on_inputs: bool,
    samples: &[ShownSample],
    terminal: &Terminal,
) -> Result<Vec<ServiceSample>, Failure> {
    if args.split == Split::Validation || !args.path.is_dir() {
        let message = "the service shows samples of an uploaded training side only";
        return Err(Failure::usage("usage", message, "name the directory that `prepare` wrote"));
    }
    let environment = environment::read(args.counting.config_path.as_deref(), terminal)?;
    let session = session::start(&args.remote, environment, terminal)?;
    at_service(&session, &args.path, &counting.model, trains_on_inputs, samples)
}

#[derive(Serialize)]
struct Report {
    /// How tokens were counted: `exact`, `at_most` (the highest is certain) or `about`.
    token_method: &'static str,
    /// The tokenizer that was used; `null`: the program's own.
    tokenizer: Option<String>,
    /// Whether the model's chat template is known; else signs stand for its markers.
    is_template_known: bool,
    /// Tokens of a sequence; `null` where no limit is known.
    max_tokens: Option<u64>,
    /// The samples.
    samples: Vec<ShownSample>,
    /// What the service makes of them, with `--service`; `null` without it.
    service: Option<Vec<ServiceSample>>,
}

pub fn run(args: &PreviewArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let counting = counting(&args.counting)?;
    let model = counter_or_about(counting.tokenizer.as_deref(), &counting.model, &counting.environment)?;
    let pick = match &args.key {
        Some(key) => Pick::Key(key.clone()),
        None if args.longest => Pick::Longest(args.number.get()),
        None => Pick::First(args.number.get()),
    };
    let max_tokens = args.max_tokens.or_else(|| counting.text("max_seq_length")?.parse().ok());
    let order = Order {
        path: args.path.clone(),
        is_validation: args.split == Split::Validation,
        pick,
        max_tokens,
        trains_on_inputs: counting.text("train_on_inputs").is_some_and(|value| value == "true"),
    };
    let samples = samples(&order, &model)?;
    let service = match args.service {
        true => Some(ask(args, &counting, order.trains_on_inputs, &samples, terminal)?),
        false => None,
    };
    let marks = if terminal.paints_stdout() { Marks::Colours } else { Marks::Brackets };
    let method = model.method();
    let borders = if terminal.flags().verbose { Borders::Shown } else { Borders::Hidden };
    for line in legend(&model, max_tokens, marks, borders) {
        terminal.say(&line);
    }
    let drawn: Vec<String> = samples.iter().map(|sample| draw(sample, method, marks, borders)).collect();
    for sample in service.iter().flatten() {
        let said = match sample.differences.as_slice() {
            [] => "the same as here".to_owned(),
            differences => differences.join("; "),
        };
        terminal.label("service", &format!("line {}: {said}", sample.line));
    }
    let report = Report {
        token_method: method.as_str(),
        tokenizer: model.path.as_ref().map(|path| path.display().to_string()),
        is_template_known: model.llama_3_dates().is_some(),
        max_tokens,
        samples,
        service,
    };
    Ok(terminal.report(Some(drawn.join("\n").trim_end().as_bytes()), &report))
}
