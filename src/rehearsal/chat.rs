//! Chat: answers with a small context that is valid, whole or as a stream.
//!
//! Separate because it is the one part that imitates a model. It knows no job; a trained model
//! that nobody deployed is refused, as the service does.

use serde_json::{Map, Value, json};

use crate::rehearsal::models;
use crate::rehearsal::reply::{Content, Reply};
use crate::rehearsal::state::{Now, State};

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
    if model != SERVERLESS && models::find(model).is_none_or(|model| !model.is_serverless) {
        let message = format!(
            "Unable to access non-serverless model {model}. Please create and start a dedicated endpoint for the model."
        );
        return Err(Reply::coded(400, "model_not_available", message));
    }
    let asked = messages.iter().rfind(|message| message["role"] == "user");
    let answer = context(asked.and_then(|message| message["content"].as_str()).unwrap_or_default());
    let frame = Frame { id: state.next_id("chat-"), created: now.time.as_second(), model };
    let usage = json!({
        "prompt_tokens": body["messages"].to_string().len() / 4,
        "completion_tokens": answer.len() / 4,
        "total_tokens": (body["messages"].to_string().len() + answer.len()) / 4,
    });
    if body["stream"] == true {
        Ok(stream(&frame, &answer, usage))
    } else {
        Ok(whole(&frame, &answer, usage))
    }
}

struct Frame<'m> {
    id: String,
    created: i64,
    model: &'m str,
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
                "finish_reason": "stop",
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
                "finish_reason": if is_last { json!("stop") } else { Value::Null },
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

/// A context of one step about the names in `prompt`.
fn context(prompt: &str) -> String {
    let words = prompt.split(|character: char| !character.is_alphabetic());
    let is_name = |word: &&str| {
        let mut characters = word.chars();
        characters.next().is_some_and(char::is_uppercase)
            && characters.as_str().chars().count() > 1
            && characters.all(char::is_lowercase)
    };
    let skipped = ["The", "Story", "Question", "Where", "What", "Who", "How", "You", "Your", "Given"];
    let mut names: Vec<&str> = Vec::new();
    for word in words.filter(is_name).filter(|word| !skipped.contains(word)) {
        if !names.contains(&word) && names.len() < 3 {
            names.push(word);
        }
    }
    if names.is_empty() {
        names.push("Mia");
    }
    let state: String = prompt.split_whitespace().take(8).collect::<Vec<_>>().join(" ");
    let by_name = |text: &str| -> Map<String, Value> {
        names.iter().map(|name| ((*name).to_owned(), json!(text.replace("{name}", name)))).collect()
    };
    json!({
        "agents_names": names,
        "socialized_context": [{
            "timestep": "0",
            "state": state,
            "observations": by_name("{name} sees what happens."),
            "actions": by_name("none"),
        }],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_about_the_names_in_the_prompt() {
        let context: Value = serde_json::from_str(&context("Story: Mia met Oliver. Where is Mia?")).unwrap();
        assert_eq!(context["agents_names"], json!(["Mia", "Oliver"]));
        assert!(context["socialized_context"][0]["observations"]["Oliver"].is_string());
    }
}
