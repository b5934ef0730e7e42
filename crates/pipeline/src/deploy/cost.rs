//! What an endpoint costs an hour, before one is deployed.

use std::path::Path;

use serde::Serialize;

use crate::job::ledger::Run;
use crate::session::Session;
use ctxtune_service::together::hardware::{Catalogue, configs};
use ctxtune_service::together::project::Project;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndpointCost {
    /// The machine.
    pub hardware: String,
    /// Dollars an hour while it is deployed.
    pub dollars_an_hour: f64,
    /// The tuned model whose machine it is; `null` where it is the cheapest of the service.
    pub model: Option<String>,
}

/// What an endpoint of the newest tuned model of `out` costs; where there is none, or its machine is not known, what
/// the cheapest machine costs. Nothing where the service tells no price: nothing is guessed.
pub fn endpoint_cost(session: &Session, out: &Path) -> Option<EndpointCost> {
    let catalogue = Catalogue::look_up(&session.together);
    let of_model = || {
        let runs = Run::read_all(out).ok()?;
        let run = runs.into_iter().rev().find(|run| run.model_object.is_some())?;
        let project = Project::of(&session.together.whoami().ok()?)?;
        let fitting = configs(&session.together, &project, run.model_object.as_deref()?).ok()?;
        let config = fitting.into_iter().find(|config| !config.is_for_adapters)?;
        let hardware = config.hardware?;
        let dollars_an_hour = catalogue.dollars_a_minute(&hardware)? * 60.0;
        Some(EndpointCost { hardware, dollars_an_hour, model: run.model })
    };
    let cheapest = || {
        let (hardware, dollars_an_hour) = catalogue.cheapest()?;
        Some(EndpointCost { hardware: hardware.to_owned(), dollars_an_hour, model: None })
    };
    of_model().or_else(cheapest)
}
