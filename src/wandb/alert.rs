//! Word about a run to its owner, by mail or wherever the owner has it sent.
//!
//! One mutation, as the real client sends it. Who sends it, sends it at most once.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::wandb::{Error, Operation, Wandb};

const NOTIFY: Operation = Operation {
    name: "NotifyScriptableRunAlert",
    text: "mutation NotifyScriptableRunAlert($input: NotifyScriptableRunAlertInput!) {
           notifyScriptableRunAlert(input: $input) { success } }",
};

/// The most characters of a title.
const MOST_TITLE: usize = 63;

/// How long the service keeps a second alert of one title back.
const PAUSE: Duration = Duration::from_secs(60 * 60);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// All is well.
    Info,
    /// It may not be what is meant.
    Warn,
    /// It failed.
    Error,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The subject; what is too long for the service is cut off.
    pub title: String,
    /// The text; not empty.
    pub text: String,
    /// How bad it is.
    pub severity: Severity,
}

/// Sends `alert` about the run of this entity, project and id.
///
/// # Errors
/// When W&B refuses or cannot be asked.
pub fn send(wandb: &Wandb, [entity, project, run]: [&str; 3], alert: &Alert) -> Result<(), Error> {
    let title: String = alert.title.chars().take(MOST_TITLE).collect();
    let input = json!({
        "entityName": entity, "projectName": project, "runName": run,
        "title": title, "text": alert.text, "severity": alert.severity,
        "waitDuration": PAUSE.as_millis() as u64,
    });
    wandb.graphql(NOTIFY, &json!({ "input": input })).map(drop)
}
