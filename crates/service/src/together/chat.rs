//! Chat: a body in, a whole answer out, also where it comes as a stream.
//!
//! Chat has a host of its own, and any server that speaks as OpenAI's does can be asked instead: with another
//! key or none, and never with our headers. A question may arrive twice without harm but its small price, so it
//! is repeated like a read; whoever asks hears of every try, and may hold it back. What an answer says is not
//! judged here. See <https://docs.together.ai/reference/chat-completions-1>.

use std::{fmt, io};

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::clock::Stopped;
use crate::http::said::{has_key, is_long, printable};
use crate::http::sse::{Event, Stream};
use crate::http::{self, Body, Call, Client, Key, Method, Piece};
use crate::together::error::Asked;
use crate::together::job::{text, whole};
use crate::together::{BaseUrl, Error, framed_by_us};
use ctxtune_python_json as python_json;

/// Where Together answers, unless its API is asked for elsewhere.
pub const INFERENCE_URL: &str = "https://api-inference.together.ai";
const PATH: &str = "/v1/chat/completions";
/// Bytes of a stream that are searched for a key again with what comes next.
const LOOK_BACK: usize = 1024;

pub struct Chat {
    client: Client,
    base: BaseUrl,
    key: Option<SecretString>,
    headers: Vec<(String, String)>,
}

impl fmt::Debug for Chat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Chat {{ {} }}", self.base)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

impl Usage {
    pub fn total(self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completion {
    /// Its text, whole and unchanged; absent where it has the key in it, if that is
    /// [long](crate::http::said::LONG_KEY): such a text is neither kept nor shown, and never edited.
    pub content: Option<String>,
    /// The model's words where it refuses to answer.
    pub refusal: Option<String>,
    /// The types of the parts of its content that are no text, in their order.
    pub other_parts: Vec<String>,
    /// Why it ends: `stop`, `eos`, `length`, `content_filter`.
    pub finish_reason: Option<String>,
    /// What it took, where the server says so.
    pub usage: Option<Usage>,
}

/// What a try is charged for, as far as anybody can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// Nothing: it did not arrive, or was refused.
    Nothing,
    Known(Usage),
    /// It may have been answered, and the answer was lost or does not say.
    Unknown,
}

#[derive(Debug)]
pub enum Beat<'b> {
    /// A try is about to be sent; it waits until this returns.
    Asking,
    Asked(Charge),
    /// The next piece of a streamed answer; it may be another one's beginning after a failed try.
    Text(&'b str),
}

/// Who hears of it, and may end it.
pub type Tell<'t> = &'t mut dyn FnMut(Beat<'_>) -> Result<(), Stopped>;

impl Chat {
    /// The server at `base`, asked through `client`. `headers` go along but for those that frame or
    /// authorize a request.
    pub fn new(
        client: Client,
        base: BaseUrl,
        key: Option<SecretString>,
        mut headers: Vec<(String, String)>,
    ) -> Chat {
        headers.retain(|(name, _)| !framed_by_us(name));
        Chat { client, base, key, headers }
    }

    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Puts the question `body`, as often as the client's policy allows, until there is a whole answer.
    /// With `"stream": true` in it the answer comes in pieces, and is whole all the same.
    pub fn ask(&self, body: &Value, tell: Tell<'_>) -> Result<Completion, Error> {
        let url = format!("{}{PATH}", self.base);
        let mut outcome = None;
        let result = self.client.retry(&format!("POST {url}"), &mut || {
            tell(Beat::Asking).map_err(|_| http::Error::Stopped)?;
            let tried = self.attempt(&url, body, tell);
            tell(Beat::Asked(tried.charge)).map_err(|_| http::Error::Stopped)?;
            outcome = tried.outcome;
            tried.transport
        });
        match (result, outcome) {
            (Err(http::Error::Stopped), _) => Err(http::Error::Stopped.into()),
            (_, Some(outcome)) => outcome,
            (Err(error), None) => Err(error.into()),
            (Ok(answer), None) => Err(self.asked(&url).unreadable("it is none", &answer)),
        }
    }

    fn attempt(&self, url: &str, body: &Value, tell: Tell<'_>) -> Tried {
        let mut headers = self.headers.clone();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("accept")) {
            headers.push(("accept".to_owned(), "application/json, text/event-stream".to_owned()));
        }
        let key = self.key.as_ref().map(Key::Bearer);
        let call = Call { method: Method::Post, url: url.to_owned(), key, headers, body: Body::Json(body) };
        if body["stream"] == true { self.streamed(&call, tell) } else { self.whole(&call) }
    }

    fn secrets(&self) -> Vec<&str> {
        self.key.iter().map(|key| key.expose_secret()).collect()
    }

    fn asked<'a>(&'a self, url: &'a str) -> Asked<'a> {
        let now = self.client.clock().now();
        Asked { method: Method::Post, url, secrets: self.secrets(), now }
    }

    fn whole(&self, call: &Call<'_>) -> Tried {
        let answer = match self.client.send(call) {
            Ok(answer) => answer,
            Err(error) => return Tried::failed(error),
        };
        let asked = self.asked(&call.url);
        if !answer.is_success() {
            return Tried::refused(asked.refused(&answer), answer);
        }
        let read = asked.content(&answer).and_then(|value| {
            completion(&value, &asked.secrets)
                .ok_or_else(|| asked.unreadable("it has no choice with a message", &answer))
        });
        match read {
            Ok(completion) => Tried::answered(completion, answer),
            Err(error) => Tried::unreadable(error, &call.url),
        }
    }

    fn streamed(&self, call: &Call<'_>, tell: Tell<'_>) -> Tried {
        let mut stream = Stream::default();
        let mut pieces = Pieces::new(self.secrets());
        let over = || io::Error::other("nothing more is wanted of the stream");
        // The beginning of the answer, where it is a web page in place of a stream.
        let mut head: Option<http::Answer> = None;
        let mut page = None;
        let result = self.client.stream(call, &mut |piece| {
            let bytes = match piece {
                Piece::Head(answer) => {
                    head = Some(answer.clone());
                    return Ok(());
                }
                Piece::Bytes(bytes) => bytes,
            };
            if let Some(mut answer) = head.take() {
                let is_stream = [&b"data"[..], b"event", b":"].iter().any(|field| bytes.starts_with(field));
                answer.body = bytes.to_vec();
                page = Some(answer).filter(|answer| !is_stream && answer.is_page());
            }
            if page.is_some() {
                return Err(over());
            }
            if let Err(error) = stream.push(bytes, &mut |event| pieces.take(event)) {
                pieces.failure.get_or_insert_with(|| error.to_string());
            }
            pieces.tell(tell).map_err(|_| over())?;
            if pieces.is_over() { Err(over()) } else { Ok(()) }
        });
        match result {
            Ok(answer) if !answer.is_success() => {
                return Tried::refused(self.asked(&call.url).refused(&answer), answer);
            }
            // We ended it ourselves, for one of the reasons that `pieces` knows, or were asked to.
            Ok(_) | Err(http::Error::Sink { .. }) => {}
            Err(error) => return Tried::failed(error),
        }
        if pieces.is_stopped {
            return Tried::failed(http::Error::Stopped);
        }
        if let Some(page) = page {
            return Tried::unreadable(self.asked(&call.url).page(&page), &call.url);
        }
        stream.finish(&mut |event| pieces.take(event));
        // What is held back for the sake of a key is shown in the end.
        let _ = pieces.tell_rest(tell);
        match pieces.end() {
            Ok(completion) => {
                Tried::answered(completion, http::Answer { status: 200, headers: vec![], body: vec![] })
            }
            Err(reason) => {
                let reason = printable(&reason, &self.secrets());
                let error = self.asked(&call.url).broken_off(reason);
                Tried::unreadable(error, &call.url)
            }
        }
    }
}

/// One try: what the retry loop must know of it, and what it means.
struct Tried {
    transport: Result<http::Answer, http::Error>,
    /// Nothing where the transport says it all.
    outcome: Option<Result<Completion, Error>>,
    charge: Charge,
}

impl Tried {
    fn answered(completion: Completion, answer: http::Answer) -> Tried {
        let charge = completion.usage.map_or(Charge::Unknown, Charge::Known);
        Tried { transport: Ok(answer), outcome: Some(Ok(completion)), charge }
    }

    fn refused(error: Error, answer: http::Answer) -> Tried {
        // A gateway that lost patience does not know what was done behind it.
        let charge = if matches!(answer.status, 408 | 502 | 504) { Charge::Unknown } else { Charge::Nothing };
        Tried { transport: Ok(answer), outcome: Some(Err(error)), charge }
    }

    /// A success that says nothing: another try may be better.
    fn unreadable(error: Error, url: &str) -> Tried {
        let url = http::without_query(url).to_owned();
        let transport = Err(http::Error::Lost { url, reason: reason_of(&error) });
        Tried { transport, outcome: Some(Err(error)), charge: Charge::Unknown }
    }

    fn failed(error: http::Error) -> Tried {
        let charge = match error {
            http::Error::NotSent { .. } | http::Error::Tls { .. } | http::Error::Invalid { .. } => {
                Charge::Nothing
            }
            _ => Charge::Unknown,
        };
        Tried { transport: Err(error), outcome: None, charge }
    }
}

fn reason_of(error: &Error) -> String {
    match error {
        Error::Unreadable { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}

fn completion(value: &Value, secrets: &[&str]) -> Option<Completion> {
    let choice = value.get("choices")?.get(0)?;
    let message = choice.get("message")?;
    let said = Said::of(message);
    let has_key = said.texts().any(|text| has_key(text, secrets));
    Some(Completion {
        content: (!has_key).then_some(said.text),
        refusal: said.refusal.filter(|_| !has_key),
        other_parts: said.other_parts.into_iter().filter(|_| !has_key).collect(),
        finish_reason: finish_reason(choice, secrets),
        usage: usage(value),
    })
}

#[derive(Default)]
struct Said {
    text: String,
    refusal: Option<String>,
    other_parts: Vec<String>,
}

impl Said {
    /// Reads a message whose content is one text, or a list of parts of which those of type `text` are joined.
    fn of(message: &Value) -> Said {
        let mut said = Said { refusal: text(message, &["refusal"]), ..Said::default() };
        let Some(parts) = message.get("content").and_then(Value::as_array) else {
            said.text = text(message, &["content"]).unwrap_or_default();
            return said;
        };
        for part in parts {
            match text(part, &["type"]) {
                Some(kind) if kind == "text" => said.text += &text(part, &["text"]).unwrap_or_default(),
                Some(kind) => said.other_parts.push(kind),
                None => said.other_parts.push("without a type".to_owned()),
            }
        }
        said
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let others = self.refusal.iter().chain(&self.other_parts).map(String::as_str);
        std::iter::once(self.text.as_str()).chain(others)
    }
}

fn without_key(content: String, secrets: &[&str]) -> Option<String> {
    (!has_key(&content, secrets)).then_some(content)
}

fn finish_reason(choice: &Value, secrets: &[&str]) -> Option<String> {
    text(choice, &["finish_reason"]).and_then(|reason| without_key(reason, secrets))
}

fn usage(value: &Value) -> Option<Usage> {
    let usage = value.get("usage")?;
    let prompt_tokens = whole(usage, &["prompt_tokens"])?;
    let completion_tokens = whole(usage, &["completion_tokens"]).unwrap_or(0);
    Some(Usage { prompt_tokens, completion_tokens })
}

#[derive(Default)]
struct Pieces<'s> {
    secrets: Vec<&'s str>,
    said: Said,
    finish_reason: Option<String>,
    usage: Option<Usage>,
    /// Bytes of the content that were shown.
    shown: usize,
    is_done: bool,
    is_stopped: bool,
    failure: Option<String>,
}

impl<'s> Pieces<'s> {
    fn new(mut secrets: Vec<&'s str>) -> Pieces<'s> {
        secrets.retain(|secret| is_long(secret));
        Pieces { secrets, ..Pieces::default() }
    }

    fn is_over(&self) -> bool {
        self.is_done || self.failure.is_some()
    }

    fn take(&mut self, event: Event) {
        if self.is_over() {
            return;
        }
        if event.data.trim_ascii() == b"[DONE]" {
            self.is_done = true;
            return;
        }
        let Some(frame) = python_json::read(&event.data) else {
            self.failure = Some("a frame of the stream is no JSON".to_owned());
            return;
        };
        if let Some(error) = frame.get("error").filter(|error| !error.is_null()) {
            let words = text(error, &["message"]).or_else(|| error.as_str().map(str::to_owned));
            let words = words.unwrap_or_else(|| error.to_string());
            self.failure = Some(format!("the server ended the stream: {words}"));
            return;
        }
        if event.name == "error" {
            self.failure = Some("the server ended the stream with an error".to_owned());
            return;
        }
        self.usage = usage(&frame).or(self.usage);
        // The last frame may have no choice, only the usage.
        let Some(choice) = frame.get("choices").and_then(|choices| choices.get(0)) else { return };
        let piece = choice.get("delta").map(Said::of).unwrap_or_default();
        self.said.text += &piece.text;
        self.said.other_parts.extend(piece.other_parts);
        if let Some(words) = piece.refusal {
            *self.said.refusal.get_or_insert_default() += &words;
        }
        self.finish_reason = finish_reason(choice, &self.secrets).or(self.finish_reason.take());
    }

    /// Shows what has come, but for an end that may be the beginning of an echoed key; nothing more
    /// where there is such a key.
    fn tell(&mut self, tell: Tell<'_>) -> Result<(), Stopped> {
        let held_back = self.secrets.iter().map(|secret| secret.len().saturating_sub(1)).max().unwrap_or(0);
        let end = self.boundary_before(self.said.text.len().saturating_sub(held_back));
        self.tell_until(end, tell)
    }

    fn tell_rest(&mut self, tell: Tell<'_>) -> Result<(), Stopped> {
        self.tell_until(self.said.text.len(), tell)
    }

    fn boundary_before(&self, mut index: usize) -> usize {
        while !self.said.text.is_char_boundary(index) {
            index -= 1;
        }
        index
    }

    fn tell_until(&mut self, end: usize, tell: Tell<'_>) -> Result<(), Stopped> {
        // A key that begins in what is shown already has control characters in it, and not many.
        let from = self.boundary_before(self.shown.saturating_sub(LOOK_BACK));
        if end <= self.shown || has_key(&self.said.text[from..], &self.secrets) {
            return Ok(());
        }
        let told = tell(Beat::Text(&self.said.text[self.shown..end]));
        self.shown = end;
        self.is_stopped |= told.is_err();
        told
    }

    fn end(self) -> Result<Completion, String> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if !self.is_done {
            return Err("the stream ended without [DONE]".to_owned());
        }
        let has_key = self.said.texts().any(|text| has_key(text, &self.secrets));
        let said = if has_key { Said::default() } else { self.said };
        Ok(Completion {
            content: (!has_key).then_some(said.text),
            refusal: said.refusal,
            other_parts: said.other_parts,
            finish_reason: self.finish_reason,
            usage: self.usage,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stream(parts: &[&[u8]], secrets: Vec<&str>) -> (Result<Completion, String>, String) {
        let mut stream = Stream::default();
        let mut pieces = Pieces::new(secrets);
        let mut shown = String::new();
        let mut tell = |beat: Beat<'_>| {
            if let Beat::Text(text) = beat {
                shown.push_str(text);
            }
            Ok(())
        };
        for part in parts {
            stream.push(part, &mut |event| pieces.take(event)).unwrap();
            pieces.tell(&mut tell).unwrap();
        }
        stream.finish(&mut |event| pieces.take(event));
        pieces.tell_rest(&mut tell).unwrap();
        (pieces.end(), shown)
    }

    const USUAL: &str = concat!(
        ": hello\r\n\r\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\r\n\r\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"{\\\"Zoë\\\": \"},\"finish_reason\":null}],\"usage\":null}\r\n\r\n",
        "data: {\"choices\":[{\"delta\":\r\ndata: {\"content\":\"\\\"😀é\\\"}\"},\"finish_reason\":\"stop\"}]}\r\n\r\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9,\"total_tokens\":16}}\n\n",
        "data: [DONE]\n\n",
    );

    #[test]
    fn a_stream_cut_at_any_byte_gives_the_same_answer() {
        let expected = Completion {
            content: Some("{\"Zoë\": \"😀é\"}".to_owned()),
            refusal: None,
            other_parts: Vec::new(),
            finish_reason: Some("stop".to_owned()),
            usage: Some(Usage { prompt_tokens: 7, completion_tokens: 9 }),
        };
        let bytes = USUAL.as_bytes();
        for at in 0..=bytes.len() {
            for secrets in [vec![], vec!["a-long-key-of-somebody"]] {
                let (answer, shown) = stream(&[&bytes[..at], &bytes[at..]], secrets);
                assert_eq!(answer.as_ref(), Ok(&expected), "cut at {at}");
                assert_eq!(Some(shown), expected.content, "cut at {at}");
            }
        }
        let (answer, shown) = stream(&bytes.chunks(1).collect::<Vec<_>>(), vec!["secret"]);
        assert_eq!((answer.unwrap(), Some(shown)), (expected.clone(), expected.content));
    }

    #[test]
    fn a_stream_that_ends_at_any_byte_before_done_is_incomplete() {
        let whole = USUAL.find("data: [DONE]").unwrap() + "data: [DONE]".len();
        for end in 0..USUAL.len() {
            let (answer, _) = stream(&[&USUAL.as_bytes()[..end]], vec![]);
            assert_eq!(answer.is_ok(), end >= whole, "ended at {end}");
        }
    }

    #[test]
    fn an_error_in_the_stream_is_a_failure() {
        let check = |text: &str, expected: &str| {
            let (answer, _) = stream(&[text.as_bytes()], vec![]);
            let reason = answer.unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        };
        check("data: {\"error\":{\"message\":\"overloaded\"}}\n\ndata: [DONE]\n\n", "overloaded");
        check("data: {\"error\":\"no more\"}\n\n", "no more");
        check("event: error\ndata: {\"code\":1}\n\n", "with an error");
        check("data: {\"choi\n\n", "no JSON");
        check("data: \u{1}\n\n", "no JSON");
        check("<html>", "without [DONE]");
    }

    #[test]
    fn an_echoed_key_is_neither_shown_nor_kept() {
        let frame =
            |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        let text = ["it is tg", "p_v1_se", "cret-01, is it"].map(frame).concat() + "data: [DONE]\n\n";
        for at in 0..text.len() {
            let (answer, shown) =
                stream(&[&text.as_bytes()[..at], &text.as_bytes()[at..]], vec!["tgp_v1_secret-01"]);
            assert_eq!(answer.unwrap().content, None);
            assert!("it is ".starts_with(&shown), "{shown}");
        }
    }

    #[test]
    fn a_placeholder_key_changes_no_answer() {
        let content = format!("none \u{200b}\r\n\ttgp-local {}\u{7} none", "ü  ".repeat(2000));
        for secrets in [vec!["none"], vec!["tgp-local"], vec!["ü  ü  ü  ü  ü"], vec![""]] {
            let frame = json!({ "choices": [{ "delta": { "content": content } }] });
            let (answer, shown) =
                stream(&[format!("data: {frame}\n\ndata: [DONE]\n\n").as_bytes()], secrets.clone());
            assert_eq!((answer.unwrap().content.as_ref(), &shown), (Some(&content), &content), "{secrets:?}");
            let whole =
                json!({ "choices": [{ "message": { "content": content }, "finish_reason": "none" }] });
            let read = completion(&whole, &secrets).unwrap();
            assert_eq!(
                (read.content.as_ref(), read.finish_reason.as_deref()),
                (Some(&content), Some("none"))
            );
        }
        let whole = json!({ "choices": [{ "message": { "content": "it is tgp_v1_secret-01, is it" } }] });
        assert_eq!(completion(&whole, &["tgp_v1_secret-01"]).unwrap().content, None);
    }

    #[test]
    fn refusals_and_parts_are_told_apart_from_silence() {
        let message = json!({ "refusal": "I cannot.", "content": null });
        let parts = json!({ "content": [
            { "type": "text", "text": "{\"a\":" }, { "type": "image_url" }, {}, { "type": "text", "text": " 1}" },
        ] });
        for (message, text, refusal, others) in [
            (message, "", Some("I cannot."), &[][..]),
            (parts, "{\"a\": 1}", None, &["image_url", "without a type"]),
            (json!({ "content": "x", "refusal": null }), "x", None, &[]),
        ] {
            let whole = completion(&json!({ "choices": [{ "message": message }] }), &[]).unwrap();
            let frame = json!({ "choices": [{ "delta": message }] });
            let (streamed, shown) =
                stream(&[format!("data: {frame}\n\ndata: [DONE]\n\n").as_bytes()], vec![]);
            assert_eq!(streamed.as_ref(), Ok(&whole));
            assert_eq!((whole.content.as_deref(), shown.as_str()), (Some(text), text));
            assert_eq!(
                (whole.refusal.as_deref(), whole.other_parts),
                (refusal, others.iter().map(|other| (*other).to_owned()).collect())
            );
        }
        let echo = json!({ "choices": [{ "message": { "refusal": "not for tgp_v1_secret-01" } }] });
        let read = completion(&echo, &["tgp_v1_secret-01"]).unwrap();
        assert_eq!((read.content, read.refusal), (None, None));
    }

    #[test]
    fn an_answer_is_read_leniently() {
        let check = |json: &str, expected: Option<(&str, Option<&str>, Option<u64>)>| {
            let found = completion(&serde_json::from_str(json).unwrap(), &[]);
            let found =
                found.map(|found| (found.content, found.finish_reason, found.usage.map(Usage::total)));
            let expected = expected
                .map(|(content, reason, total)| (Some(content.to_owned()), reason.map(str::to_owned), total));
            assert_eq!(found, expected, "{json}");
        };
        check(
            r#"{"choices":[{"finish_reason":"length","message":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
            Some(("x", Some("length"), Some(3))),
        );
        check(
            r#"{"choices":[{"message":{"content":null,"tool_calls":[]}}],"usage":null}"#,
            Some(("", None, None)),
        );
        check(r#"{"choices":[]}"#, None);
        check(r#"{"error":{"message":"x"}}"#, None);
        check("[]", None);
    }
}
