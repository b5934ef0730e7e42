//! `submit --dry-run`: the requests of a submission as they would be sent, and none of them sent.
//!
//! What only the service can tell stands in angle brackets: its ids, its signed URLs, and the tag,
//! which the project's id is part of. Keys are `[key]`.

use serde_json::{Map, Value, json};

use crate::args::RemoteArgs;
use crate::commands::job::submit::Order;
use crate::exit::{Exit, Failure};
use crate::screen::plan;
use crate::screen::report::Terminal;
use crate::session::environment::Environment;
use crate::session::service::base_url;
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_pipeline::job::expected::Expected;
use ctxtune_pipeline::job::limits::{rows, settle};
use ctxtune_pipeline::job::parameters::Files;
use ctxtune_pipeline::job::upload::{MULTIPART_THRESHOLD, sides};
use ctxtune_service::clock::Clock;
use ctxtune_service::together::jobs::Limits;

/// A request that is not sent.
pub struct Unsent {
    method: &'static str,
    url: String,
    headers: Vec<(&'static str, String)>,
    body: Value,
}

/// The requests of `order`, in their order.
///
/// # Errors
/// When the directory is not prepared or has changed since, or a value cannot be sent whatever the model.
pub fn requests(
    order: &Order,
    remote: &RemoteArgs,
    clock: &dyn Clock,
    environment: &Environment,
) -> Result<Vec<Unsent>, Failure> {
    let manifest = Manifest::read(&order.out)?;
    // What only the service knows is not enforced here.
    let limits = Limits::read("the model", &json!({}));
    let has_val = manifest.val.is_some();
    let settled = settle(order.parameters.clone(), &limits, has_val);
    plan::refuse(&rows(&settled, &limits, has_val), &limits)?;
    let base = base_url(remote, environment)?;
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
                headers: vec![("content-length", side.bytes().to_string())],
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
    Ok(requests)
}

fn api(method: &'static str, origin: &str, path: &str, body: Value) -> Unsent {
    let headers = vec![("authorization", "Bearer [key]".to_owned())];
    Unsent { method, url: format!("{origin}{path}"), headers, body }
}

/// Prints the requests on stdout, or in the JSON document.
pub fn show(requests: &[Unsent], terminal: &mut Terminal) -> Exit {
    let value = |request: &Unsent| {
        let headers: Map<String, Value> =
            request.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
        json!({ "method": request.method, "url": request.url, "headers": headers, "body": request.body })
    };
    let mut fields = Map::new();
    fields.insert("requests".to_owned(), requests.iter().map(value).collect());
    let text: Vec<String> = requests.iter().map(text).collect();
    let expected = Expected::published();
    fields.insert("expected_time".to_owned(), plan::expected_value(&expected));
    plan::show_expected(&expected, terminal);
    terminal.say("nothing was sent");
    terminal.succeed("submit", Some(text.join("\n\n").as_bytes()), fields)
}

fn text(request: &Unsent) -> String {
    let headers: String = request.headers.iter().map(|(name, value)| format!("\n{name}: {value}")).collect();
    let body = match &request.body {
        Value::Null => String::new(),
        Value::String(text) => format!("\n\n{text}"),
        body => format!("\n\n{}", serde_json::to_string_pretty(body).unwrap_or_default()),
    };
    format!("{} {}{headers}{body}", request.method, request.url)
}
