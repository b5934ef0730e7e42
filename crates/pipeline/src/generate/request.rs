//! What is sent for one story: the messages, the parameters as they were set, the context's schema.
//!
//! The digest that tells a finished story from another one is made of the same parts: a change of any of them
//! is another request.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use ctxtune_engine::line::example::Message;
use ctxtune_engine::line::template::Form;
use ctxtune_engine::output::manifest::Hex;

#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    pub model: String,
    /// From 0 upward.
    pub temperature: f64,
    /// Above 0, at most 1; the server's own where it is absent.
    pub top_p: Option<f64>,
    /// The longest answer in tokens.
    pub max_tokens: u64,
    /// The seed of the first try; each further one of the same story takes the next number.
    pub seed: Option<u64>,
    pub stop: Vec<String>,
    /// The form that the answer's schema asks for; no schema is sent where it is absent.
    pub schema: Option<Form>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Whole,
    Stream,
    /// It is streamed, and the server is told to say what it took: not all say it by themselves.
    StreamWithUsage,
}

impl Parameters {
    /// The body that asks `messages`, for the try of this number, counted from 1.
    pub fn body(&self, messages: &[Message], attempt: u32, delivery: Delivery) -> Value {
        let mut body = self.common(messages);
        if let Some(seed) = self.seed {
            body.insert("seed".to_owned(), seed.wrapping_add(u64::from(attempt.max(1) - 1)).into());
        }
        if delivery != Delivery::Whole {
            body.insert("stream".to_owned(), true.into());
        }
        if delivery == Delivery::StreamWithUsage {
            body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        }
        Value::Object(body)
    }

    /// SHA-256 of all that decides what is asked, in lower-case hexadecimal digits. The server's
    /// address is no part of it, nor is the number of attempts.
    pub fn digest(&self, messages: &[Message]) -> String {
        let mut body = self.common(messages);
        body.insert("seed".to_owned(), self.seed.into());
        let mut hasher = Sha256::new();
        hasher.update(b"ctxtune.generate/1\0");
        hasher.update(Value::Object(body).to_string());
        Hex(&hasher.finalize()).to_string()
    }

    fn common(&self, messages: &[Message]) -> Map<String, Value> {
        let message = |message: &Message| json!({ "role": message.role, "content": message.content });
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
        put("model", self.model.clone().into());
        put("messages", messages.iter().map(message).collect());
        put("temperature", self.temperature.into());
        put("max_tokens", self.max_tokens.into());
        if let Some(top_p) = self.top_p {
            put("top_p", top_p.into());
        }
        if !self.stop.is_empty() {
            put("stop", self.stop.clone().into());
        }
        if let Some(form) = self.schema {
            let schema = json!({ "name": "socialized_context", "schema": schema(form) });
            put("response_format", json!({ "type": "json_schema", "json_schema": schema }));
        }
        body
    }
}

/// The JSON schema of a context whose observations and actions have this form.
pub fn schema(form: Form) -> Value {
    let texts = match form {
        Form::Object => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Form::List => json!({ "type": "array", "items": { "type": "string" } }),
    };
    json!({
        "type": "object",
        "properties": {
            "agents_names": { "type": "array", "items": { "type": "string" }, "minItems": 1 },
            "socialized_context": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "timestep": { "type": "string" },
                        "state": { "type": "string" },
                        "observations": texts.clone(),
                        "actions": texts,
                    },
                    "required": ["timestep", "state", "observations", "actions"],
                    "additionalProperties": false,
                },
            },
        },
        "required": ["agents_names", "socialized_context"],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Parameters {
        Parameters {
            model: "m".to_owned(),
            temperature: 0.7,
            top_p: None,
            max_tokens: 4096,
            seed: None,
            stop: Vec::new(),
            schema: Some(Form::Object),
        }
    }

    fn messages(text: &str) -> Vec<Message> {
        vec![Message { role: "user".to_owned(), content: text.to_owned() }]
    }

    #[test]
    fn what_is_not_set_is_not_sent() {
        let body = Parameters { schema: None, ..parameters() }.body(&messages("s"), 1, Delivery::Whole);
        let expected = json!({
            "model": "m", "messages": [{ "role": "user", "content": "s" }], "temperature": 0.7, "max_tokens": 4096,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn what_is_set_is_sent_exactly() {
        let parameters = Parameters {
            temperature: 0.0,
            top_p: Some(0.9),
            seed: Some(7),
            stop: vec!["\n\n".to_owned()],
            schema: Some(Form::List),
            ..parameters()
        };
        let body = parameters.body(&messages("s"), 3, Delivery::StreamWithUsage);
        assert_eq!(
            (&body["temperature"], &body["top_p"], &body["seed"]),
            (&json!(0.0), &json!(0.9), &json!(9))
        );
        assert_eq!((&body["stop"], &body["stream"]), (&json!(["\n\n"]), &json!(true)));
        assert_eq!(body["response_format"]["type"], "json_schema");
        let step =
            &body["response_format"]["json_schema"]["schema"]["properties"]["socialized_context"]["items"];
        assert_eq!(step["properties"]["actions"]["type"], "array");
        assert_eq!(parameters.body(&messages("s"), 1, Delivery::Stream).get("stream_options"), None);
    }

    #[test]
    fn the_digest_depends_on_everything_that_is_asked() {
        let digest = |parameters: Parameters, text: &str| parameters.digest(&messages(text));
        let base = digest(parameters(), "s");
        assert_eq!(base, digest(parameters(), "s"));
        let mut digests = vec![base, digest(parameters(), "t")];
        digests.push(digest(Parameters { model: "n".to_owned(), ..parameters() }, "s"));
        digests.push(digest(Parameters { temperature: 0.8, ..parameters() }, "s"));
        digests.push(digest(Parameters { top_p: Some(1.0), ..parameters() }, "s"));
        digests.push(digest(Parameters { max_tokens: 1, ..parameters() }, "s"));
        digests.push(digest(Parameters { seed: Some(0), ..parameters() }, "s"));
        digests.push(digest(Parameters { stop: vec!["x".to_owned()], ..parameters() }, "s"));
        digests.push(digest(Parameters { schema: None, ..parameters() }, "s"));
        digests.push(digest(Parameters { schema: Some(Form::List), ..parameters() }, "s"));
        let count = digests.len();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }
}
