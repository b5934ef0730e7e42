//! The table before consent: what is trained on what, every value with its origin and its limit.

use crate::screen::report::Terminal;
use ctxtune_pipeline::job::cost::{Beside, Cost};
use ctxtune_pipeline::job::expected::{DOCUMENTED, Expected};
use ctxtune_pipeline::job::limits::Row;
use ctxtune_pipeline::job::plan::Plan;
use ctxtune_pipeline::job::price::{Price, dollars_text};
use ctxtune_pipeline::text::{counted, grouped, marked, printable};

const VALUE_WIDTH: usize = 28;

pub fn show(plan: &Plan<'_>, terminal: &Terminal) {
    let val = plan.manifest.val.as_ref().map_or(0, |val| val.records);
    let data = format!(
        "{} training + {} validation examples of {}",
        grouped(plan.manifest.train.records),
        grouped(val),
        plan.out.display()
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
            .say("          trainable, but not deployable at Together: what is tuned can only be downloaded (`ctxtune models` lists others)");
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

pub fn show_expected(expected: &Expected, terminal: &Terminal) {
    terminal.label("time", &printable(&expected.to_string()));
    if expected.job.is_none() {
        terminal.say(&format!("          {DOCUMENTED}"));
    }
}

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
