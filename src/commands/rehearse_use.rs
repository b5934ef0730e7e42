//! The end of a rehearsal: what was "trained" is used, and scored beside its base.
//!
//! Separate from the pipeline before it, which is `finetune` itself. For real the model would have to be
//! deployed, for money, or be served by somebody; here the server lets it answer at once, and says so.

use std::num::NonZeroUsize;
use std::path::Path;

use serde_json::Value;

use crate::args::ScoreArgs;
use crate::commands::data::score::report;
use crate::commands::data::score_models::{self, Answered};
use crate::screen::report::Terminal;
use ctxtune_pipeline::failure::{Exit, Failure};
use ctxtune_pipeline::job::ledger::Run;
use ctxtune_pipeline::job::model::REFERENCE;
use ctxtune_pipeline::session::environment::Environment;
use ctxtune_pipeline::signals::Signals;
use ctxtune_pipeline::text::printable;
use ctxtune_pipeline::ui::Ui;
use ctxtune_rehearsal::Server;

/// Records that are asked about at most.
const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(19);

/// Asks the model of the newest job in `out`, and its base, about validation records.
///
/// # Errors
/// When they cannot be asked, or the answers not be scored.
pub fn use_model(
    (server, out): (&Server, &Path),
    (environment, signals): (&Environment, &Signals),
    terminal: &Terminal,
) -> Result<(), Failure> {
    terminal.step(5, "Using the tuned model");
    let runs = Run::read_all(out)?;
    let is_here = |run: &&Run| run.account.api == server.url();
    let run = runs.iter().rev().find(is_here);
    let Some((run, tuned)) = run.and_then(|run| Some((run, run.model.clone()?))) else {
        return Err(Failure::new(Exit::Failed, "no_model", "the job has no model", "run it again"));
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
    let args = ScoreArgs::of_models(vec![base, tuned], out.to_owned(), MOST);
    let mut answered = Answered::default();
    score_models::ask((&args, out), (environment, signals), &mut answered, terminal)?;
    show_one(&answered, terminal);
    report(&args, (environment, signals), &answered, terminal)?;
    terminal.say("both models' answers are imitated: not a measure of tuning");
    Ok(())
}

/// Shows what the second model said about the first record.
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
