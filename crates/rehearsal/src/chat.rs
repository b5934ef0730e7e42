//! Chat, as the service speaks it: whole answers and streams of them, strict about the question.
//!
//! It knows no job: a trained model answers where it is deployed, or the script says so, and is refused
//! otherwise, as the service does. How often each prompt was asked is kept.

use serde_json::{Value, json};

use crate::imitation::{AnswerStyle, Completion, Question, Speaker, answer};
use crate::reply::{Content, Handled, Reply};
use crate::request::Now;
use crate::state::State;
use crate::{endpoints, models};

/// Characters of the answer in a frame of the stream.
const FRAME_CHARS: usize = 16;
/// The base model that can be asked but not trained.
const SERVERLESS: &str = "meta-llama/Meta-Llama-3.1-8B-Instruct";

pub fn completions(state: &mut State, body: &Value, now: Now) -> Handled {
    let model = body["model"].as_str().ok_or_else(|| Reply::missing("model"))?;
    let messages = body["messages"].as_array().filter(|messages| !messages.is_empty());
    let messages = messages.ok_or_else(|| Reply::field("messages", "`messages` is missing or empty"))?;
    let is_message = |message: &Value| message["role"].is_string() && !message["content"].is_null();
    if !messages.iter().all(is_message) {
        return Err(Reply::field("messages", "a message needs a role and content"));
    }
    check_parameters(body)?;
    let is_deployed = state.script.deployed_models.iter().any(|deployed| deployed == model)
        || endpoints::is_callable(state, model, now);
    let is_serverless = model == SERVERLESS || models::find(model).is_ok_and(|model| model.is_serverless);
    if !is_deployed && !is_serverless {
        let message = format!(
            "Unable to access non-serverless model {model}. Please create and start a dedicated endpoint for the model."
        );
        return Err(Reply::coded(400, "model_not_available", message));
    }
    let asked = messages.iter().rfind(|message| message["role"] == "user");
    let prompt = asked.and_then(|message| message["content"].as_str()).unwrap_or_default();
    let speaker = if is_deployed { Speaker::Tuned } else { Speaker::Base };
    let Completion { text, finish_reason } = complete(state, prompt, body, speaker);
    let prompt_tokens = body["messages"].to_string().len() / 4;
    let completion_tokens = text.len() / 4;
    let usage = json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    });
    let frame = json!({ "id": state.next_id("chat-"), "created": now.time.as_second(), "model": model });
    let reply = if body["stream"] == true { stream } else { whole };
    Ok(reply(frame, &text, finish_reason, usage))
}

/// The answer to `prompt`, in the style that the script has for the time of its number.
fn complete(state: &mut State, prompt: &str, body: &Value, speaker: Speaker) -> Completion {
    let count = state.prompts.entry(prompt.to_owned()).or_default();
    *count += 1;
    let number = *count;
    let styles = &state.script.answers;
    let style = styles.get(number as usize - 1).or(styles.last()).copied().unwrap_or(AnswerStyle::Plain);
    let items =
        &body["response_format"]["json_schema"]["schema"]["properties"]["socialized_context"]["items"];
    let wants_lists = items["properties"]["actions"]["type"] == "array";
    answer(Question { prompt, number, wants_lists }, style, speaker)
}

fn check_parameters(body: &Value) -> Result<(), Reply> {
    type Rule = (&'static str, &'static str, fn(&Value) -> bool);
    let rules: [Rule; 6] = [
        ("temperature", "a number from 0 to 2", |value| {
            value.as_f64().is_some_and(|value| (0.0..=2.0).contains(&value))
        }),
        ("top_p", "a number above 0, at most 1", |value| {
            value.as_f64().is_some_and(|value| value > 0.0 && value <= 1.0)
        }),
        ("max_tokens", "a whole number above 0", |value| value.as_u64().is_some_and(|value| value > 0)),
        ("seed", "a whole number", Value::is_u64),
        ("stop", "a list of strings", |value| {
            value.as_array().is_some_and(|texts| texts.iter().all(Value::is_string))
        }),
        ("response_format", "a JSON schema with a name", |format| {
            let schema = &format["json_schema"];
            format["type"] == "json_schema" && schema["name"].is_string() && schema["schema"].is_object()
        }),
    ];
    for (name, rule, fits) in rules {
        if body.get(name).is_some_and(|value| !fits(value)) {
            return Err(Reply::field(name, format!("`{name}` must be {rule}")));
        }
    }
    Ok(())
}

fn whole(mut frame: Value, answer: &str, finish_reason: &str, usage: Value) -> Reply {
    frame["object"] = json!("chat.completion");
    frame["prompt"] = json!([]);
    frame["choices"] = json!([{
        "index": 0,
        "finish_reason": finish_reason,
        "seed": 1,
        "logprobs": null,
        "message": { "role": "assistant", "content": answer, "tool_calls": [] },
    }]);
    frame["usage"] = usage;
    Reply::ok(&frame)
}

fn stream(mut frame: Value, answer: &str, finish_reason: &str, usage: Value) -> Reply {
    let characters: Vec<char> = answer.chars().collect();
    let pieces: Vec<String> = characters.chunks(FRAME_CHARS).map(|piece| piece.iter().collect()).collect();
    frame["object"] = json!("chat.completion.chunk");
    let mut frames = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let is_last = index + 1 == pieces.len();
        frame["choices"] = json!([{
            "index": 0,
            "text": piece,
            "delta": { "role": "assistant", "content": piece },
            "finish_reason": is_last.then_some(finish_reason),
            "seed": is_last.then_some(1),
        }]);
        frame["usage"] = json!(is_last.then_some(&usage));
        frames.push(format!("data: {frame}\n\n").into_bytes());
    }
    frames.push(b"data: [DONE]\n\n".to_vec());
    let reply = Reply { status: 200, headers: Vec::new(), content: Content::Frames(frames) };
    reply.with("Content-Type", "text/event-stream")
}
