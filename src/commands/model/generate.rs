//! `ctxtune generate`: the socialized context of a story, from a tuned model, asked as it was trained.
//!
//! One story here: it needs no yes, as it costs next to nothing. Many are `generate_many`'s.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use crate::args::GenerateArgs;
use crate::commands::model::generate_many;
use crate::screen::report::{Terminal, fields};
use crate::session::{environment, runtime};
use ctxtune_engine::line::example::Message;
use ctxtune_engine::source::{Containers, Source};
use ctxtune_pipeline::generate::ask::{Asker, Effort, Outcome, Show, most_tokens};
use ctxtune_pipeline::generate::budget::Budget;
use ctxtune_pipeline::generate::pace::Pace;
use ctxtune_pipeline::generate::prompt::{self, PromptError};
use ctxtune_pipeline::generate::request::Delivery;
use ctxtune_pipeline::generate::setup::{Choice, Sampling, Setup, UsageReport, budget, over_budget, server};
use ctxtune_pipeline::generate::story::Story;
use ctxtune_pipeline::generate::verdict::{Fault, reformed};
use ctxtune_pipeline::job::mismatch::Mismatch;
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::text::printable;
use ctxtune_pipeline::{Exit, Failure};

/// The longest story that is read from a file or standard input, in bytes.
const MOST_BYTES: u64 = 64 << 20;

pub fn run(args: &GenerateArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    if args.show_prompt {
        let shown = shown_prompt(args, terminal)?;
        let line = json!(shown.messages).to_string();
        return Ok(terminal.report(Some(line.as_bytes()), &shown));
    }
    let budget = budget(&args.asking)?;
    if let Some(dir) = &args.output_dir {
        return generate_many::run(args, &setup(args, &budget, terminal)?, dir, terminal);
    }
    let story = story(args)?;
    one(args, &story, &setup(args, &budget, terminal)?, terminal)
}

#[derive(Serialize)]
struct ShownPrompt {
    /// The template of the prompt.
    template: String,
    /// The messages, in their order.
    messages: Vec<Message>,
}

/// The prompt for the one story that the arguments name: without a key, a model or the network.
fn shown_prompt(args: &GenerateArgs, terminal: &Terminal) -> Result<ShownPrompt, Failure> {
    let story = story(args)?;
    let (template, _) = choice(args).template(terminal)?;
    let messages = prompt::messages(&template, &story).map_err(prompt_failure)?;
    Ok(ShownPrompt { template: template.name, messages })
}

fn prompt_failure(error: PromptError) -> Failure {
    let hint = "ask with --output-dir about a record that has it, or with another --template";
    Failure::usage("prompt", error, hint)
}

fn choice(args: &GenerateArgs) -> Choice<'_> {
    Choice {
        model: args.model.as_deref(),
        out: args.out.as_deref(),
        template: args.template.as_deref(),
        base_url: args.asking.base_url.as_deref(),
    }
}

fn setup(args: &GenerateArgs, budget: &Arc<Budget>, terminal: &Terminal) -> Result<Setup, Failure> {
    let environment = environment::read(None, terminal)?;
    let session = server(&args.asking, runtime(environment, terminal))?;
    let sampling = Sampling { temperature: args.temperature, top_p: args.top_p, seed: args.seed };
    let setup = Setup::new(session, &choice(args), &args.asking, sampling, budget)?;
    setup.say();
    if let Some(mismatch) = &setup.mismatch {
        mismatch.warn(terminal);
    }
    setup.warn_if_in_clear();
    Ok(setup)
}

fn story(args: &GenerateArgs) -> Result<Story, Failure> {
    let usage = |code, message: String, hint: &str| Failure::usage(code, message, hint);
    let text = match (&args.story_file, args.inputs.as_slice()) {
        (Some(path), _) => read(path)?,
        (None, [input]) if input == Path::new("-") => read(input)?,
        (None, [input]) => typed(input)?,
        (None, inputs) => {
            let message = format!("{} stories at once need a place to go", inputs.len());
            return Err(usage(
                "no_output_dir",
                message,
                "quote the story, or name sources with --output-dir GEN",
            ));
        }
    };
    Story::of(&text).map_err(|reason| {
        let hint = "a story is prose, or a list of sentences such as ['Mia left.', 'Noah ran.']";
        usage("story", format!("the story cannot be used: {}", reason.reason), hint)
    })
}

fn typed(input: &Path) -> Result<String, Failure> {
    let is_source = input.exists() && Source::of(input, Containers::Skip).is_some();
    if is_source {
        let message = format!("`{}` is a source of stories, not a story", input.display());
        let hint = "add --output-dir GEN, or name a file with one story with --story-file";
        return Err(Failure::usage("no_output_dir", message, hint));
    }
    let text = input.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage("story", "the story is not UTF-8", "write it as UTF-8"))
}

fn read(path: &Path) -> Result<String, Failure> {
    let read = || {
        let mut bytes = Vec::new();
        if path == Path::new("-") {
            std::io::stdin().lock().take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        } else {
            std::fs::File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        }
        if bytes.len() as u64 > MOST_BYTES {
            return Err(std::io::Error::other(format!("it is longer than {MOST_BYTES} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8"))
    };
    read().map_err(|error| {
        let message = format!("cannot read a story from `{}`: {error}", path.display());
        Failure::usage("story", message, "check the path")
    })
}

fn one(args: &GenerateArgs, story: &Story, setup: &Setup, terminal: &Terminal) -> Result<Exit, Failure> {
    let messages = prompt::messages(&setup.template, story).map_err(prompt_failure)?;
    let asker = Asker {
        chat: &setup.target.chat,
        parameters: &setup.parameters,
        attempts: args.asking.attempts.get(),
        delivery: if args.stream { setup.target.streamed() } else { Delivery::Whole },
        pace: &Pace::new(args.asking.rpm),
        budget: &setup.budget,
    };
    let mut screen = Screen { terminal: terminal.clone(), has_begun_line: false };
    let (effort, outcome) = asker.ask(&messages, &mut |show| screen.show(&show));
    screen.end_line();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            let body = setup.parameters.body(&messages, 1, Delivery::Whole);
            let failure = failure(setup, error, most_tokens(&body, setup.parameters.max_tokens));
            return Ok(terminal.fail(&failure, fields(&Report::of(setup, &effort, None))));
        }
    };
    let context = outcome.context.as_ref().map_err(Clone::clone);
    let context = context.and_then(|context| reformed(context, args.form.into()));
    let mut report = Report::of(setup, &effort, Some(&outcome));
    Ok(match context {
        Ok(context) => {
            report.context = serde_json::from_str(&context).unwrap_or(Value::Null);
            terminal.label("took", &took(setup, &effort));
            setup.target.say_running(&setup.session);
            terminal.report(Some(context.as_bytes()), &report)
        }
        Err(flaw) => {
            let raw = outcome.raw.trim();
            if !raw.is_empty() {
                terminal.say(&printable(&format!("the last answer was: {raw}")));
            }
            let hint = match flaw.fault {
                Fault::EchoesKey => {
                    "the server returns the key it was sent: replace that key, or ask another server"
                }
                Fault::Refusal | Fault::ContentFilter => {
                    "change the story, or ask another model: the same question is likely to be refused again"
                }
                Fault::ContentParts => "ask a model that answers with text",
                _ => "ask again, or with more --attempts; where it was cut with more --max-tokens",
            };
            let message = format!("no context in {}: {}", answers(effort.attempts), flaw.reason);
            let failure = Failure::data("invalid_answer", message, hint);
            terminal.fail(&failure, fields(&report))
        }
    })
}

fn answers(count: u32) -> String {
    format!("{count} answer{}", if count == 1 { "" } else { "s" })
}

fn failure(setup: &Setup, error: ctxtune_service::together::Error, most_tokens: u64) -> Failure {
    if setup.budget.is_over() {
        return over_budget(setup, most_tokens);
    }
    setup.target.explain(&setup.session, error, "run the same command again")
}

fn took(setup: &Setup, effort: &Effort) -> String {
    let mut parts = vec![answers(effort.attempts)];
    if let Some(usage) = effort.usage {
        parts.push(format!("{} tokens", ctxtune_pipeline::text::grouped(usage.total())));
        parts.extend(setup.budget.dollars(usage.total()).map(dollars_text));
    }
    if effort.repeats > 0 {
        parts.push(format!("{} repeated without an answer", effort.repeats));
    }
    parts.join(", ")
}

#[derive(Serialize)]
struct Report {
    /// The model.
    model: String,
    /// Where it was asked.
    server: String,
    /// The template of the prompt.
    template: String,
    /// Answers that were read.
    attempts: u32,
    /// Requests that were made.
    requests: u64,
    /// Those among them that repeated one without an answer.
    repeated: u64,
    /// Why the last answer ended, as the server says it.
    finish_reason: Option<String>,
    /// Tokens; `null` where the server does not say.
    usage: Option<UsageReport>,
    /// What they cost, in dollars, at `--price-per-million`; `null` without it.
    dollars: Option<f64>,
    /// The last answer where it is not a context, else `null`.
    raw_answer: Option<String>,
    /// The context, in the form of `--form`; `null` where there is none.
    context: Value,
    /// Only where the directory of the model's data holds other data now.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_mismatch: Option<Mismatch>,
}

impl Report {
    fn of(setup: &Setup, effort: &Effort, outcome: Option<&Outcome>) -> Report {
        let flaw = outcome.and_then(|outcome| outcome.context.as_ref().err());
        Report {
            model: setup.parameters.model.clone(),
            server: setup.target.chat.base().origin(),
            template: setup.template.name.clone(),
            attempts: effort.attempts,
            requests: effort.requests,
            repeated: effort.repeats,
            finish_reason: outcome.and_then(|outcome| outcome.finish_reason.clone()),
            usage: effort.usage.map(UsageReport::of),
            dollars: effort.usage.and_then(|usage| setup.budget.dollars(usage.total())),
            raw_answer: flaw.and(outcome).map(|outcome| outcome.raw.clone()),
            context: Value::Null,
            data_mismatch: setup.mismatch.clone(),
        }
    }
}

struct Screen {
    terminal: Terminal,
    has_begun_line: bool,
}

impl Screen {
    fn show(&mut self, show: &Show<'_>) {
        match show {
            Show::Begin => self.end_line(),
            Show::Text(text) => {
                self.terminal.piece(text);
                self.has_begun_line = !text.ends_with('\n');
            }
            Show::Flawed(flaw) => {
                self.end_line();
                self.terminal.warn(&printable(&format!("{}; asking again", flaw.reason)));
            }
        }
    }

    fn end_line(&mut self) {
        if std::mem::take(&mut self.has_begun_line) {
            self.terminal.piece("\n");
        }
    }
}
