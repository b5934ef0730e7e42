//! Alerts about a run, which W&B sends to its owner by mail or Slack.
//!
//! One mutation, with the fields of the real client. The caller makes sure that an alert is sent at most once.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::wandb::{Error, Operation, Wandb};

const NOTIFY: Operation = Operation {
    name: "NotifyScriptableRunAlert",
    text: "mutation NotifyScriptableRunAlert($input: NotifyScriptableRunAlertInput!) {
           notifyScriptableRunAlert(input: $input) { success } }",
};

const MOST_TITLE: usize = 63;
/// How long W&B suppresses another alert with the same title.
const PAUSE: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// `INFO`
    Info,
    /// `WARN`
    Warn,
    /// `ERROR`
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The title; cut to the service's limit.
    pub title: String,
    /// The text; not empty.
    pub text: String,
    /// Its level.
    pub severity: Severity,
}

pub fn send(wandb: &Wandb, [entity, project, run]: [&str; 3], alert: &Alert) -> Result<(), Error> {
    let title: String = alert.title.chars().take(MOST_TITLE).collect();
    let input = json!({
        "entityName": entity, "projectName": project, "runName": run,
        "title": title, "text": alert.text, "severity": alert.severity,
        "waitDuration": PAUSE.as_millis() as u64,
    });
    wandb.graphql(NOTIFY, &json!({ "input": input })).map(drop)
}
