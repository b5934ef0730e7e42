//! Chat, as the service speaks it: whole answers and streams of them, strict about the question.
//!
//! Separate from what is answered (`imitation`). It knows no job: a trained model answers where
//! it is deployed, or the script says so, and is refused otherwise, as the service does. How often each
//! prompt was asked is kept.

use serde_json::{Value, json};

use crate::imitation::{Asked, Manner, Said, Voice, answer};
use crate::reply::{Content, Reply};
use crate::state::{Now, State};
use crate::{endpoints, models};

/// Characters of the answer in a frame of the stream.
const FRAME_CHARS: usize = 16;

/// The base model that can be asked but not trained.
const SERVERLESS: &str = "meta-llama/Meta-Llama-3.1-8B-Instruct";

/// `POST /v1/chat/completions`.
///
/// # Errors
/// When the body is no request for chat, or the model cannot be asked.
pub fn completions(state: &mut State, body: &Value, now: Now) -> Result<Reply, Reply> {
    let model = body["model"].as_str().ok_or_else(|| Reply::field("model", "`model` is missing"))?;
    let messages = body["messages"].as_array().filter(|messages| !messages.is_empty());
    let messages = messages.ok_or_else(|| Reply::field("messages", "`messages` is missing or empty"))?;
    let is_message = |message: &&Value| message["role"].is_string() && !message["content"].is_null();
    if !messages.iter().all(|message| is_message(&message)) {
        return Err(Reply::field("messages", "a message needs a role and content"));
    }
    check_parameters(body)?;
    let is_deployed = state.script.deployed_models.iter().any(|deployed| deployed == model)
        || endpoints::is_callable(state, model, now);
    let is_serverless = model == SERVERLESS || models::find(model).is_some_and(|model| model.is_serverless);
    if !is_deployed && !is_serverless {
        let message = format!(
            "Unable to access non-serverless model {model}. Please create and start a dedicated endpoint for the model."
        );
        return Err(Reply::coded(400, "model_not_available", message));
    }
    let asked = messages.iter().rfind(|message| message["role"] == "user");
    let prompt = asked.and_then(|message| message["content"].as_str()).unwrap_or_default();
    let voice = if is_deployed { Voice::Tuned } else { Voice::Base };
    let said = say(state, (prompt, body), voice);
    let id = state.next_id("chat-");
    let frame = Frame { id, created: now.time.as_second(), model, finish_reason: said.finish_reason };
    let prompt_tokens = body["messages"].to_string().len() / 4;
    let completion_tokens = said.text.len() / 4;
    let usage = json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    });
    if body["stream"] == true {
        Ok(stream(&frame, &said.text, usage))
    } else {
        Ok(whole(&frame, &said.text, usage))
    }
}

/// The answer to `prompt`, in the manner that the script has for the time of its number.
fn say(state: &mut State, (prompt, body): (&str, &Value), voice: Voice) -> Said {
    let count = state.prompts.entry(prompt.to_owned()).or_default();
    *count += 1;
    let number = *count;
    let answers = &state.script.answers;
    let index = (number as usize - 1).min(answers.len().saturating_sub(1));
    let manner = answers.get(index).copied().unwrap_or(Manner::Plain);
    let items =
        &body["response_format"]["json_schema"]["schema"]["properties"]["socialized_context"]["items"];
    let wants_lists = items["properties"]["actions"]["type"] == "array";
    answer(Asked { prompt, number, wants_lists }, manner, voice)
}

/// Refuses parameters out of their bounds.
fn check_parameters(body: &Value) -> Result<(), Reply> {
    let refuse = |name: &str, rule: &str| Err(Reply::field(name, format!("`{name}` must be {rule}")));
    let number = |name: &str| body.get(name).map(|value| value.as_f64().unwrap_or(f64::NAN));
    if number("temperature").is_some_and(|value| !(0.0..=2.0).contains(&value)) {
        return refuse("temperature", "a number from 0 to 2");
    }
    if number("top_p").is_some_and(|value| !(value > 0.0 && value <= 1.0)) {
        return refuse("top_p", "a number above 0, at most 1");
    }
    if body.get("max_tokens").is_some_and(|value| value.as_u64().is_none_or(|value| value == 0)) {
        return refuse("max_tokens", "a whole number above 0");
    }
    if body.get("seed").is_some_and(|value| value.as_u64().is_none()) {
        return refuse("seed", "a whole number");
    }
    let is_texts = |value: &Value| value.as_array().is_some_and(|texts| texts.iter().all(Value::is_string));
    if body.get("stop").is_some_and(|value| !is_texts(value)) {
        return refuse("stop", "a list of strings");
    }
    let format = body.get("response_format");
    let is_schema = |format: &Value| {
        let schema = &format["json_schema"];
        format["type"] == "json_schema" && schema["name"].is_string() && schema["schema"].is_object()
    };
    match format {
        Some(format) if !is_schema(format) => refuse("response_format", "a JSON schema with a name"),
        _ => Ok(()),
    }
}

struct Frame<'m> {
    id: String,
    created: i64,
    model: &'m str,
    finish_reason: &'static str,
}

fn whole(frame: &Frame, answer: &str, usage: Value) -> Reply {
    Reply::json(
        200,
        &json!({
            "id": frame.id,
            "object": "chat.completion",
            "created": frame.created,
            "model": frame.model,
            "prompt": [],
            "choices": [{
                "index": 0,
                "finish_reason": frame.finish_reason,
                "seed": 1,
                "logprobs": null,
                "message": { "role": "assistant", "content": answer, "tool_calls": [] },
            }],
            "usage": usage,
        }),
    )
}

fn stream(frame: &Frame, answer: &str, usage: Value) -> Reply {
    let characters: Vec<char> = answer.chars().collect();
    let pieces: Vec<String> = characters.chunks(FRAME_CHARS).map(|piece| piece.iter().collect()).collect();
    let mut frames = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let is_last = index + 1 == pieces.len();
        let chunk = json!({
            "id": frame.id,
            "object": "chat.completion.chunk",
            "created": frame.created,
            "model": frame.model,
            "choices": [{
                "index": 0,
                "text": piece,
                "delta": { "role": "assistant", "content": piece },
                "finish_reason": if is_last { json!(frame.finish_reason) } else { Value::Null },
                "seed": if is_last { json!(1) } else { Value::Null },
            }],
            "usage": if is_last { usage.clone() } else { Value::Null },
        });
        frames.push(format!("data: {chunk}\n\n").into_bytes());
    }
    frames.push(b"data: [DONE]\n\n".to_vec());
    let headers = vec![("Content-Type".to_owned(), "text/event-stream".to_owned())];
    Reply { status: 200, headers, content: Content::Frames(frames) }
}
