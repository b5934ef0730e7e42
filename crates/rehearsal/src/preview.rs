//! The first rows of a training file with their tokens. A word with the blank before it is a token here: nothing is
//! tokenized in a rehearsal, but what is trained and what is masked is as at the service.

use serde_json::{Value, json};

use crate::models;
use crate::reply::{Handled, Reply};
use crate::request::{Now, only, text};
use crate::state::State;

const MAX_SEQ_LENGTH: usize = 8192;
/// The label of a token that is not trained.
const MASKED: i64 = -100;

pub fn preview(state: &State, body: &Value, now: Now) -> Handled {
    only(body, &["model", "training_file", "top_k", "train_on_inputs", "training_method"])?;
    let model = text(body, "model")?;
    models::find(model)?;
    let id = text(body, "training_file")?;
    if body.get("training_method").is_some_and(|method| method != "sft") {
        return Err(Reply::field("training_method", "only `sft` can be previewed"));
    }
    let rows = match body.get("top_k") {
        None => 5,
        Some(rows) => rows
            .as_u64()
            .filter(|rows| (1..=100).contains(rows))
            .ok_or_else(|| Reply::field("top_k", "top_k must be between 1 and 100"))?,
    };
    let trains_on_inputs = body["train_on_inputs"].as_bool().unwrap_or(false);
    let missing = || Reply::field("training_file", format!("file `{id}` does not exist"));
    let file = state.file(id).ok_or_else(missing)?;
    if file.status(now) != Some("COMPLETED") {
        return Err(Reply::field("training_file", format!("file `{id}` is not validated")));
    }
    let (stored, _) = file.stored.as_ref().ok_or_else(missing)?;
    let lines = stored.kept.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let samples = lines.take(rows as usize).filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let rows: Vec<Value> = samples.map(|sample| row(&sample, trains_on_inputs)).collect();
    Ok(Reply::ok(&json!({
        "dataset_format": "conversation",
        "max_seq_length": MAX_SEQ_LENGTH,
        "model": model,
        "train_on_inputs": trains_on_inputs,
        "rows": rows,
    })))
}

fn row(sample: &Value, trains_on_inputs: bool) -> Value {
    let (mut tokens, mut labels) = (Vec::new(), Vec::new());
    let mut push = |text: &str, is_trained: bool| {
        labels.push(if is_trained { tokens.len() as i64 } else { MASKED });
        // As byte-level tokenizers write blanks.
        tokens.push(text.replace(' ', "\u{120}").replace('\n', "\u{10a}"));
    };
    push("<|begin_of_text|>", false);
    for message in sample["messages"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let role = message["role"].as_str().unwrap_or_default();
        let is_trained = (role == "assistant" || trains_on_inputs) && message["weight"] != 0;
        for marker in ["<|start_header_id|>", role, "<|end_header_id|>", "\n\n"] {
            push(marker, false);
        }
        let content = message["content"].as_str().unwrap_or_default().trim();
        let mut rest = content;
        while !rest.is_empty() {
            let first = rest.chars().next().map_or(0, char::len_utf8);
            let end = rest[first..].find([' ', '\n']).map_or(rest.len(), |at| at + first);
            push(&rest[..end], is_trained);
            rest = &rest[end..];
        }
        push("<|eot_id|>", is_trained);
    }
    let is_truncated = tokens.len() > MAX_SEQ_LENGTH;
    tokens.truncate(MAX_SEQ_LENGTH);
    labels.truncate(MAX_SEQ_LENGTH);
    let mut spans: Vec<[usize; 2]> = Vec::new();
    for at in (0..labels.len()).filter(|at| labels[*at] != MASKED) {
        match spans.last_mut() {
            Some(span) if span[1] == at => span[1] = at + 1,
            _ => spans.push([at, at + 1]),
        }
    }
    json!({
        "input_ids": (0..tokens.len()).collect::<Vec<_>>(),
        "num_tokens": tokens.len(),
        "num_trained_tokens": spans.iter().map(|span| span[1] - span[0]).sum::<usize>(),
        "labels": labels,
        "tokens": tokens,
        "trained_spans": spans,
        "truncated": is_truncated,
    })
}
