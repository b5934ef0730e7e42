//! Says whether an uploaded file is fit for training, as the service does after the upload.
//!
//! Not the rules of `check`, on purpose: a server that judged by the client's own rules would find nothing that
//! the client overlooked. It must not know how the file arrived.

use serde_json::{Value, json};

#[derive(Debug)]
pub struct Verdict {
    pub samples: u64,
    /// Why it cannot be used, with the line.
    pub error: Option<String>,
    /// `CONVERSATION`, `INSTRUCTION`, `GENERAL` or `PREFERENCE_OPENAI`.
    pub format: Option<&'static str>,
}

impl Verdict {
    pub fn status(&self) -> &'static str {
        if self.error.is_some() { "INVALID_FORMAT" } else { "COMPLETED" }
    }

    pub fn report(&self, file_id: &str) -> Value {
        let mut report = json!({ "valid": self.error.is_none(), "file_id": file_id, "nlines": self.samples });
        if let Some(error) = &self.error {
            report["error_type"] = json!("INVALID_FORMAT");
            report["error"] = json!(error);
        }
        if let Some(format) = self.format {
            report["dataset_format"] = json!(format);
        }
        report
    }
}

/// Judges JSONL. Of a file that was not kept whole, the lines that were.
pub fn verdict(bytes: &[u8], is_whole: bool) -> Verdict {
    let mut verdict = Verdict { samples: 0, error: None, format: None };
    let mut lines = bytes.split(|byte| *byte == b'\n').enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let is_cut = !is_whole && lines.peek().is_none();
        if line.trim_ascii().is_empty() || is_cut {
            continue;
        }
        match (format_of(line), verdict.format) {
            (Ok(format), known) if known.is_none_or(|known| known == format) => verdict.format = Some(format),
            (judged, known) => {
                let other =
                    |format| format!("is {format}, the lines before are {}", known.unwrap_or_default());
                let reason = judged.map_or_else(|reason| reason, other);
                verdict.error = Some(format!("line {}: {reason}", index + 1));
                return verdict;
            }
        }
        verdict.samples += 1;
    }
    if verdict.samples == 0 {
        verdict.error = Some("the file has no samples".to_owned());
    }
    verdict
}

fn format_of(line: &[u8]) -> Result<&'static str, String> {
    let sample: Value = serde_json::from_slice(line).map_err(|error| format!("is no JSON: {error}"))?;
    let Some(fields) = sample.as_object() else { return Err("is no JSON object".to_owned()) };
    let has = |name: &str| fields.contains_key(name);
    match () {
        () if has("messages") => messages(&sample["messages"]).map(|()| "CONVERSATION"),
        () if has("prompt") && has("completion") => Ok("INSTRUCTION"),
        () if has("input") && has("preferred_output") => Ok("PREFERENCE_OPENAI"),
        () if has("text") => Ok("GENERAL"),
        () => Err("has none of the known columns: messages, prompt and completion, text".to_owned()),
    }
}

fn messages(messages: &Value) -> Result<(), String> {
    let Some(messages) = messages.as_array().filter(|messages| !messages.is_empty()) else {
        return Err("`messages` is no list of messages".to_owned());
    };
    let mut has_answer = false;
    for (index, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if !["system", "user", "assistant", "tool"].contains(&role) {
            return Err(format!("message {index} has no known role"));
        }
        let is_call = role == "assistant" && !message["tool_calls"].is_null();
        if !is_call && !message["content"].is_string() && !message["content"].is_array() {
            return Err(format!("message {index} has no content"));
        }
        has_answer |= role == "assistant";
    }
    if has_answer { Ok(()) } else { Err("has no message of the assistant".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;

    #[track_caller]
    fn check(text: &str, expected: Result<u64, &str>) {
        let verdict = verdict(text.as_bytes(), true);
        match expected {
            Ok(samples) => assert_eq!((verdict.error, verdict.samples), (None, samples)),
            Err(part) => {
                assert!(verdict.error.as_ref().is_some_and(|error| error.contains(part)), "{verdict:?}")
            }
        }
    }

    #[test]
    fn a_file_is_judged_line_by_line() {
        check(&format!("{GOOD}\n\n{GOOD}\n"), Ok(2));
        check("{\"text\":\"a\"}", Ok(1));
        check("", Err("no samples"));
        check(&format!("{GOOD}\n[1]\n"), Err("line 2: is no JSON object"));
        check(&format!("{GOOD}\n\n{{\n"), Err("line 3: is no JSON"));
        check("{\"messages\":[]}", Err("line 1: `messages` is no list"));
        check(
            "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
            Err("line 1: has no message of the assistant"),
        );
        check(
            "{\"messages\":[{\"role\":\"bot\",\"content\":\"a\"}]}",
            Err("line 1: message 0 has no known role"),
        );
        check(
            &format!("{GOOD}\n{{\"text\":\"a\"}}"),
            Err("line 2: is GENERAL, the lines before are CONVERSATION"),
        );
    }

    #[test]
    fn of_a_file_that_was_not_kept_whole_the_cut_line_does_not_count() {
        let text = format!("{GOOD}\n{{\"mess");
        assert_eq!(verdict(text.as_bytes(), false).samples, 1);
        assert!(verdict(text.as_bytes(), true).error.is_some());
    }
}
