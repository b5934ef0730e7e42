//! `ctxtune models`: what can be tuned, whether it can be deployed, and its limits.

use crate::args::ModelsArgs;
use crate::screen::report::Terminal;
use crate::screen::table::{Align, Cell, Table};
use crate::session;
use ctxtune_pipeline::deploy::running::{EndpointCost, endpoint_cost};
use ctxtune_pipeline::job::models::{TunableModel, models};
use ctxtune_pipeline::job::price::dollars_text;
use ctxtune_pipeline::text::{grouped, printable};
use ctxtune_pipeline::{Exit, Failure};
use serde::Serialize;

/// The longest names leave room for no more on a terminal of 80 columns; `--json` has all limits.
const COLUMNS: [(&str, Align); 4] =
    [("model", Align::Left), ("deploy", Align::Left), ("training", Align::Left), ("tokens", Align::Right)];

#[derive(Serialize)]
struct Report {
    /// The models, those first that can be deployed.
    models: Vec<TunableModel>,
    /// What an endpoint costs; `null` without `--for`, and where the service tells no price.
    endpoint: Option<EndpointCost>,
}

pub fn run(args: &ModelsArgs, terminal: &Terminal) -> Result<Exit, Failure> {
    let report = look_up(args, terminal)?;
    let table = Table::new(&COLUMNS, report.models.iter().map(row).collect()).for_stdout();
    if let ([only], Some(_)) = (report.models.as_slice(), &args.name) {
        show(only, terminal);
    }
    if args.out.is_some() {
        let rated: Vec<String> = report.models.iter().filter_map(rate).collect();
        let unknown =
            || "no model was estimated on this machine yet: what a token costs is not known".to_owned();
        terminal.label("rate", &if rated.is_empty() { unknown() } else { rated.join("; ") });
        terminal.label("endpoint", &endpoint(report.endpoint.as_ref()));
    }
    Ok(terminal.report(table.as_deref().map(str::as_bytes), &report))
}

fn look_up(args: &ModelsArgs, terminal: &Terminal) -> Result<Report, Failure> {
    let session = session::open(&args.remote, terminal)?;
    let models = models(&session, args.name.as_deref())?;
    let endpoint = args.out.as_deref().and_then(|out| endpoint_cost(&session, out));
    Ok(Report { models, endpoint })
}

fn row(model: &TunableModel) -> Vec<Cell> {
    let tokens = model.max_seq_length;
    vec![
        Cell::new(&model.name),
        Cell::new(model.deploy),
        Cell::new(&training(model)),
        Cell::of(
            &tokens.map(|tokens| tokens.to_string()).unwrap_or_default(),
            &tokens.map(grouped).unwrap_or_default(),
        ),
    ]
}

fn rate(model: &TunableModel) -> Option<String> {
    let dollars = dollars_text(model.dollars_per_million_tokens?);
    let day = model.rate_seen_at.as_deref()?.split('T').next()?;
    Some(format!("{} {dollars} per million tokens, as estimated on {day}", model.name))
}

/// What can be trained: adapters up to a rank, all weights.
fn training(model: &TunableModel) -> String {
    let rank = model.max_lora_rank.map(|rank| format!(" {rank}")).unwrap_or_default();
    let ways = [(model.lora, format!("LoRA{rank}")), (model.full, "full".to_owned())];
    let ways: Vec<String> = ways.into_iter().filter_map(|(has, way)| has.then_some(way)).collect();
    ways.join(", ")
}

fn show(model: &TunableModel, terminal: &Terminal) {
    let Some(limits) = model.limits.as_object() else { return };
    for (key, value) in limits.iter().filter(|(key, _)| *key != "model_name") {
        terminal.say(&printable(&format!("  {key}: {value}")));
    }
}

fn endpoint(cost: Option<&EndpointCost>) -> String {
    let Some(EndpointCost { hardware, dollars_an_hour, model }) = cost else {
        return "what it costs is not known: the service tells no price".to_owned();
    };
    let price = dollars_text(*dollars_an_hour);
    match model {
        Some(model) => format!("{price} an hour for {model} on {hardware}, billed by the minute"),
        None => format!("from {price} an hour, on {hardware}, the cheapest machine; billed by the minute"),
    }
}
