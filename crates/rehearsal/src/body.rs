//! The JSON body of a request: an object, whose fields are asked for by name and type.

use serde_json::Value;

use crate::reply::Reply;
use crate::request::Request;

pub fn json(request: &Request) -> Result<Value, Reply> {
    let content_type = request.head.header("content-type").unwrap_or_default();
    if !content_type.to_ascii_lowercase().starts_with("application/json") {
        return Err(Reply::error(400, format!("content type `{content_type}` is not application/json")));
    }
    match serde_json::from_slice(&request.body.kept) {
        Ok(body @ Value::Object(_)) => Ok(body),
        Ok(_) => Err(Reply::error(400, "the body is no JSON object")),
        Err(error) => Err(Reply::error(400, format!("the body is no JSON: {error}"))),
    }
}

/// Refuses fields that are not `known`.
pub fn only(body: &Value, known: &[&str]) -> Result<(), Reply> {
    let mut fields = body.as_object().into_iter().flat_map(|fields| fields.keys());
    fields.find(|name| !known.contains(&name.as_str())).map_or(Ok(()), |name| Err(Reply::unknown(name)))
}

pub fn text<'b>(body: &'b Value, name: &str) -> Result<&'b str, Reply> {
    let wrong = || Reply::field(name, format!("`{name}` is missing or no string"));
    body[name].as_str().ok_or_else(wrong)
}

pub fn number(body: &Value, name: &str) -> Result<u64, Reply> {
    let wrong = || Reply::field(name, format!("`{name}` is missing or no number of things"));
    body[name].as_u64().ok_or_else(wrong)
}
