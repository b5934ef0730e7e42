//! The table before consent: what is trained on what, every value with its origin and its limit.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::screen::report::marked;
use crate::screen::report::{Terminal, counted, grouped, printable};
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_pipeline::job::cost::{Beside, Cost};
use ctxtune_pipeline::job::expected::{DOCUMENTED, Expected};
use ctxtune_pipeline::job::ledger::Account;
use ctxtune_pipeline::job::limits::Row;
use ctxtune_pipeline::job::model::Chosen;
use ctxtune_pipeline::job::parameters::Settled;
use ctxtune_pipeline::job::price::Price;
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_service::together::job::Job;
use ctxtune_service::together::jobs::Limits;

/// The widest column of values.
const VALUE_WIDTH: usize = 28;

/// What is about to be submitted.
pub struct Plan<'p> {
    /// The data.
    pub manifest: &'p Manifest,
    /// Whose job it will be.
    pub account: &'p Account,
    /// The model.
    pub chosen: &'p Chosen,
    /// The parameters.
    pub settled: &'p Settled,
    /// Them with their limits.
    pub rows: &'p [Row],
    /// Other jobs of the output directory that run.
    pub running: &'p [Beside],
    /// All jobs of the account.
    pub jobs: &'p [Job],
}

impl Plan<'_> {
    /// How long the job may take, whose training file has so many tokens.
    pub fn expected(&self, train_tokens: Option<u64>) -> Expected {
        Expected::of(self.jobs, &self.chosen.limits.model_name, train_tokens)
    }
}

/// Refuses values over the model's limits, each by key, value and bound.
///
/// # Errors
/// When there are such values.
pub fn refuse(rows: &[Row], limits: &Limits) -> Result<(), Failure> {
    let refused =
        rows.iter().filter_map(|row| Some(format!("{} (chosen by {})", row.refused()?, row.origin)));
    let refused: Vec<String> = refused.collect();
    if refused.is_empty() {
        return Ok(());
    }
    let message = format!("cannot be sent for {}: {}", limits.model_name, refused.join("; "));
    Err(Failure::new(
        Exit::Usage,
        "over_limit",
        message,
        "set them within their bounds, as flags or in the configuration file; nothing was uploaded",
    ))
}

/// Shows the plan to whoever is to agree to it.
pub fn show(plan: &Plan<'_>, out: &Path, terminal: &Terminal) {
    let val = plan.manifest.val.as_ref().map_or(0, |val| val.records);
    let data = format!(
        "{} training + {} validation examples of {}",
        grouped(plan.manifest.train.records),
        grouped(val),
        out.display()
    );
    terminal.label("data", &data);
    let parameters = &plan.settled.parameters;
    let model = parameters.from_checkpoint.as_ref().unwrap_or(&parameters.base_model);
    terminal.label("model", &format!("{} at {}", model, plan.account.api));
    if let Some(name) = &plan.chosen.replaced {
        terminal.say(&printable(&format!("          the tunable twin of {name}")));
    }
    if plan.chosen.is_download_only(parameters) {
        terminal
            .say("          trainable, but not deployable at Together: what is tuned can only be downloaded");
    }
    table(plan.rows, terminal);
}

fn table(rows: &[Row], terminal: &Terminal) {
    let width = |of: fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let keys = width(|row| row.key.len());
    // A model's name may stand out: the other rows need no room for it.
    let values = width(|row| row.value.chars().count()).min(VALUE_WIDTH);
    terminal.say(&format!("  {:<keys$}  {:<values$}  {:<7}  allowed", "key", "value", "from"));
    for row in rows {
        let line = format!(
            "  {:<keys$}  {:<values$}  {:<7}  {}",
            row.key,
            row.value,
            row.origin.to_string(),
            row.limit
        );
        terminal.say(printable(&line).trim_end());
    }
    for row in rows {
        if let Some(note) = row.note {
            terminal.say(&printable(&format!("  note: {} {}: {note}", row.key, row.value)));
        }
    }
}

/// Shows what the job will cost, as far as anybody can say.
pub fn show_price(price: &Price, terminal: &Terminal) {
    let tokens = match (price.train_tokens, price.eval_tokens) {
        (Some(train), Some(eval)) => {
            format!(" for {} tokens of training and {} of evaluation", grouped(train), grouped(eval))
        }
        (Some(train), None) => format!(" for {} tokens of training", grouped(train)),
        _ => String::new(),
    };
    let text = match (price.dollars, &price.reason) {
        (Some(dollars), _) => {
            format!("about {}{tokens}", dollars_text(dollars))
        }
        (None, Some(reason)) => format!("not known: {reason}"),
        (None, None) => "not known".to_owned(),
    };
    terminal.label("price", &text);
    if price.dollars.is_some() {
        terminal.say("          an estimate: --max-cost caps it, nothing caps the bill");
    }
    if let Some(basis) = &price.basis {
        terminal.say(&format!("          {basis}"));
    }
}

/// Shows how long the job may take.
pub fn show_expected(expected: &Expected, terminal: &Terminal) {
    terminal.label("time", &printable(&expected.to_string()));
    if expected.job.is_none() {
        terminal.say(&format!("          {DOCUMENTED}"));
    }
}

/// The same for a JSON document.
pub fn expected_value(expected: &Expected) -> Value {
    let seconds = |range: [Duration; 2]| range.map(|time| time.as_secs());
    json!({
        "queue_seconds": seconds(expected.queue), "training_seconds": seconds(expected.training),
        "from": if expected.job.is_some() { "job" } else { "published" },
        "job": expected.job.as_ref().map(|(job, _)| job.as_str()), "as_of": expected.as_of(),
    })
}

/// Shows what runs already and costs money, before more is agreed to.
pub fn show_running(running: &[Beside], terminal: &Terminal) {
    if running.is_empty() {
        return;
    }
    let differs =
        if running.iter().all(|beside| beside.has_same_data) { "parameters" } else { "data or parameters" };
    let named = running.iter().map(|Beside { job, estimated, .. }| {
        let price = marked(Cost::of(job, *estimated));
        let price = if price.is_empty() { "at a price that is not known".to_owned() } else { price };
        format!("{}, {price}", job.id)
    });
    let count = counted(running.len() as u64, "running job");
    let named = named.collect::<Vec<_>>().join("; ");
    terminal.label("running", &format!("{count} with other {differs}: {named}"));
}
