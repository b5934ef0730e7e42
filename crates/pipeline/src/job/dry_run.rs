//! `submit --dry-run`: the requests of a submission as they would be sent, and none of them sent.
//!
//! What only the service can tell stands in angle brackets: its ids, its signed URLs, and the tag,
//! which the project's id is part of. Keys are `[key]`.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::job::expected::{Expected, ExpectedReport};
use crate::job::limits::{rows, settle};
use crate::job::parameters::Files;
use crate::job::plan::refuse;
use crate::job::submit::Order;
use crate::job::upload::{MULTIPART_THRESHOLD, sides};
use crate::session::base_url_of;
use crate::session::environment::Environment;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_service::Clock;
use ctxtune_service::together::jobs::Limits;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The requests, in their order.
    pub requests: Vec<Unsent>,
    /// The published times.
    pub expected_time: ExpectedReport,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unsent {
    /// The method.
    pub method: &'static str,
    /// The URL.
    pub url: String,
    /// The headers.
    pub headers: Map<String, Value>,
    /// The body: JSON, a text that says what it is, or `null`.
    pub body: Value,
}

pub fn requests(
    order: &Order,
    base_url: Option<&str>,
    clock: &dyn Clock,
    environment: &Environment,
) -> Result<Report, Failure> {
    let manifest = Manifest::read(&order.out)?;
    // What only the service knows is not enforced here.
    let limits = Limits::read("the model", &json!({}));
    let has_val = manifest.val.is_some();
    let settled = settle(order.parameters.clone(), &limits, has_val);
    refuse(&rows(&settled, &limits, has_val), &limits)?;
    let base = base_url_of(base_url, environment)?;
    let origin = base.origin();
    let origin = origin.as_str();
    let model = match &order.parameters.from_checkpoint {
        Some(checkpoint) => checkpoint.split(':').next().unwrap_or_default(),
        None => &order.parameters.base_model,
    };
    let limits_path = format!("/v1/fine-tunes/models/limits?model_name={model}");
    let mut requests = vec![
        api("GET", origin, "/v3/whoami", Value::Null),
        api("GET", origin, &limits_path, Value::Null),
        api("GET", origin, "/v1/fine-tunes", Value::Null),
    ];
    for side in sides(&order.out, &manifest) {
        let id = format!("<id of {}>", side.name);
        let checksum = side.checksum(clock)?;
        let form = json!({
            "purpose": "fine-tune", "file_name": side.name, "file_type": "jsonl", "checksum": checksum,
        });
        if side.bytes() > MULTIPART_THRESHOLD {
            requests.push(api("POST", origin, "/v1/files/multipart/initiate", form));
        } else {
            requests.push(api("POST", origin, "/v1/files", form));
            requests.push(Unsent {
                method: "PUT",
                url: format!("<signed URL of {}>", side.name),
                headers: header("content-length", side.bytes().to_string()),
                body: format!("<{} bytes of {}>", side.bytes(), side.name).into(),
            });
            requests.push(api("POST", origin, &format!("/v1/files/{id}/preprocess"), Value::Null));
        }
        requests.push(api("GET", origin, &format!("/v1/files/{id}"), Value::Null));
    }
    let files = Files { train: "<id of train.jsonl>", val: has_val.then_some("<id of val.jsonl>") };
    let suffix = format!("{}-<tag>", settled.parameters.suffix);
    requests.push(api("POST", origin, "/v1/fine-tunes/estimate-price", settled.estimate_body(files)));
    requests.push(api("GET", origin, "/v1/fine-tunes", Value::Null));
    let mut body = settled.body(files, &suffix);
    if let Some(body) = body.as_object_mut() {
        body.extend(order.wandb.handed_over(|_| "[key]".to_owned()));
    }
    requests.push(api("POST", origin, "/v1/fine-tunes", body));
    Ok(Report { requests, expected_time: Expected::published().report() })
}

fn api(method: &'static str, origin: &str, path: &str, body: Value) -> Unsent {
    let headers = header("authorization", "Bearer [key]".to_owned());
    Unsent { method, url: format!("{origin}{path}"), headers, body }
}

fn header(name: &str, value: String) -> Map<String, Value> {
    std::iter::once((name.to_owned(), value.into())).collect()
}
