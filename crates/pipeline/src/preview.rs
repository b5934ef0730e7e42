//! Samples as the model sees them: with the template's markers, what is trained, and what lies beyond the limit.
//!
//! Data only. Which tokens the service really trains it says itself after an upload; this is what its documentation
//! says: the assistant's messages, unless a weight of 0 masks one or inputs are trained, too.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::job::ledger::Uploads;
use crate::job::model;
use crate::job::parameters::Parameters;
use crate::job::tokens::ModelTokens;
use crate::session::Session;
use crate::shell;
use ctxtune_engine::check::counter::{Counter, Texts};
use ctxtune_engine::check::stats::{MESSAGE_WEIGHT, Tokens};
use ctxtune_engine::output::manifest::Manifest;
use ctxtune_engine::source::unpack::open_plain;
use ctxtune_engine::special_token;
use ctxtune_service::together::jobs::{self, TokenizedRow};
use ctxtune_tokens::chat::DATES;
use ctxtune_tokens::written_bytes;

#[derive(Debug, Clone)]
pub struct Order {
    /// A directory of `prepare`, or a JSONL file.
    pub path: PathBuf,
    /// Whether those of the validation side are meant; of a directory only.
    pub is_validation: bool,
    pub pick: Pick,
    /// Tokens of a sequence: what is behind them is cut.
    pub max_tokens: Option<u64>,
    pub trains_on_inputs: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    First(usize),
    /// So many of the most tokens, the longest first.
    Longest(usize),
    /// That of the record with this key; of a directory only.
    Key(String),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownSample {
    /// Its file.
    pub file: String,
    /// Its line, from 1.
    pub line: u64,
    /// Its source record's key; `null` where it is not known.
    pub key: Option<String>,
    /// Its tokens: the lowest number and the highest.
    pub tokens: Tokens,
    /// Tokens that are trained and not cut, as they are counted here.
    pub trained_tokens: u64,
    /// Whether it is longer than the limit.
    pub is_truncated: bool,
    /// Its messages; one of the template's own is among them where there is one.
    pub messages: Vec<ShownMessage>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownMessage {
    /// Who speaks.
    pub role: String,
    /// Its tokens with its markers, as they are counted here.
    pub tokens: u64,
    /// Its text, in pieces that are treated alike.
    pub spans: Vec<Span>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Span {
    /// What it is.
    pub kind: Kind,
    /// Whether the model learns to write it.
    pub is_trained: bool,
    /// Whether it is cut, since it lies beyond the limit.
    pub is_beyond: bool,
    /// Its text.
    pub text: String,
    /// Its tokens, as they are counted here.
    pub tokens: u64,
    /// Where its tokens end, in bytes of the text; of markers none. A token may end within a character.
    pub token_ends: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The template's own.
    Marker,
    /// The data's.
    Text,
    /// The data's, and most readers take it for a special token.
    SpecialToken,
}

/// The samples that `order` names, with their tokens as `model` counts them.
pub fn samples(order: &Order, model: &ModelTokens) -> Result<Vec<ShownSample>, Failure> {
    let data = Data::open(order)?;
    let mut found: Vec<(u64, Place, Value)> = Vec::new();
    match &order.pick {
        Pick::First(count) => data.each(|place, line| {
            if found.len() < *count {
                found.push((0, place, parsed(line, &data, place)?));
            }
            Ok(if found.len() < *count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?,
        Pick::Longest(count) => data.each(|place, line| {
            let sample = parsed(line, &data, place)?;
            let tokens = model.sample(&texts(&sample, model)).high;
            let at = found.partition_point(|(longer, ..)| *longer >= tokens);
            if at < *count {
                found.insert(at, (tokens, place, sample));
                found.truncate(*count);
            }
            Ok(ControlFlow::Continue(()))
        })?,
        Pick::Key(key) => {
            let wanted = data.place_of(key)?;
            data.each(|place, line| {
                if place != wanted {
                    return Ok(ControlFlow::Continue(()));
                }
                found.push((0, place, parsed(line, &data, place)?));
                Ok(ControlFlow::Break(()))
            })?;
        }
    }
    if found.is_empty() {
        return Err(failed("there is no sample in it", &order.path));
    }
    let mut keys = data.keys(found.iter().map(|(_, place, _)| *place).collect())?;
    found
        .into_iter()
        .map(|(_, place, sample)| {
            let file = data.files[place.0].display().to_string();
            let key = keys.remove(&place);
            shown(&sample, order, model)
                .map(|shown| ShownSample { file, line: place.1, key, ..shown })
                .map_err(|reason| failed(&reason, &data.files[place.0]))
        })
        .collect()
}

fn failed(reason: &str, path: &Path) -> Failure {
    let hint = "`ctxtune check` says what is wrong with it";
    Failure::data("preview", format!("cannot preview `{}`: {reason}", path.display()), hint)
}

fn unread(path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot read `{}`: {error}", path.display());
    Failure::failed("preview", message, "check the path and its permissions")
}

/// A file of the data by its number, and a line of it from 1.
type Place = (usize, u64);

fn parsed(line: &[u8], data: &Data, place: Place) -> Result<Value, Failure> {
    serde_json::from_slice(line)
        .map_err(|error| failed(&format!("line {}: {error}", place.1), &data.files[place.0]))
}

/// One side of a directory, or a file.
struct Data {
    files: Vec<PathBuf>,
    /// The table of keys, and what it calls the side.
    keys: Option<(PathBuf, &'static str)>,
}

impl Data {
    fn open(order: &Order) -> Result<Data, Failure> {
        if !order.path.is_dir() {
            return Ok(Data { files: vec![order.path.clone()], keys: None });
        }
        let manifest = Manifest::read(&order.path)?;
        let (side, name) = match order.is_validation {
            false => (Some(&manifest.train), "train"),
            true => (manifest.val.as_ref(), "val"),
        };
        let side = side.ok_or_else(|| failed("it has no validation side", &order.path))?;
        let files = side.shards.iter().map(|shard| order.path.join(&shard.file)).collect();
        Ok(Data { files, keys: Some((order.path.join("keys.tsv"), name)) })
    }

    fn each(
        &self,
        mut take: impl FnMut(Place, &[u8]) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        for (file, path) in self.files.iter().enumerate() {
            let flow = each_line(path, |number, line| match line.trim_ascii() {
                [] => Ok(ControlFlow::Continue(())),
                line => take((file, number), line),
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Hands every row of the side in the table of keys to `take`: where the sample is, and the record's key.
    fn each_key(&self, mut take: impl FnMut(Place, String) -> ControlFlow<()>) -> Result<(), Failure> {
        let Some((table, side)) = &self.keys else { return Ok(()) };
        let _over = each_line(table, |_, row| {
            let read = std::str::from_utf8(row).ok().and_then(|row| {
                let mut columns = row.trim_end_matches('\n').splitn(4, '\t');
                let is_of_side = columns.next()? == *side;
                let line = columns.next()?.parse().ok()?;
                let shard = Path::new(columns.next()?);
                let file = self.files.iter().position(|file| file.file_name() == shard.file_name())?;
                let key = columns.next()?;
                // A key with undecodable bytes is no string to this reader: it stands as it is written.
                let key = serde_json::from_str(key).unwrap_or_else(|_| key.to_owned());
                is_of_side.then_some(((file, line), key))
            });
            Ok(read.map_or(ControlFlow::Continue(()), |(place, key)| take(place, key)))
        })?;
        Ok(())
    }

    fn place_of(&self, key: &str) -> Result<Place, Failure> {
        let mut found = None;
        self.each_key(|place, other| {
            found = (other == key).then_some(place);
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        found.ok_or_else(|| {
            let (message, hint) = match &self.keys {
                Some((table, side)) => (
                    format!("`{}` has no record `{key}` on the side {side}", table.display()),
                    "keys.tsv lists all keys; --split validation shows the other side",
                ),
                None => {
                    ("a file knows no keys of records".to_owned(), "name the directory that `prepare` wrote")
                }
            };
            Failure::usage("no_such_key", message, hint)
        })
    }

    fn keys(&self, places: Vec<Place>) -> Result<BTreeMap<Place, String>, Failure> {
        let mut keys = BTreeMap::new();
        self.each_key(|place, key| {
            if places.contains(&place) {
                keys.insert(place, key);
            }
            if keys.len() == places.len() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(keys)
    }
}

fn each_line(
    path: &Path,
    mut take: impl FnMut(u64, &[u8]) -> Result<ControlFlow<()>, Failure>,
) -> Result<ControlFlow<()>, Failure> {
    let file = open_plain(path).map_err(|error| unread(path, &error))?;
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(|error| unread(path, &error))? == 0 {
            break;
        }
        if take(number, &line)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// A text of a sample, and whose it is.
struct Turn {
    role: String,
    text: String,
    is_trained: bool,
    is_about: bool,
}

/// The messages of a sample of any format but preferences.
fn turns(sample: &Value, trains_on_inputs: bool) -> Result<Vec<Turn>, String> {
    let turn = |role: &str, text: &Value, is_trained: bool| Turn {
        role: role.to_owned(),
        text: text.as_str().unwrap_or_default().to_owned(),
        is_trained,
        is_about: true,
    };
    if let Some(messages) = sample["messages"].as_array() {
        return Ok(messages.iter().map(|message| message_turn(message, trains_on_inputs)).collect());
    }
    match (&sample["text"], &sample["prompt"], &sample["completion"]) {
        (text @ Value::String(_), ..) => Ok(vec![turn("text", text, true)]),
        (_, prompt @ Value::String(_), completion @ Value::String(_)) => {
            Ok(vec![turn("prompt", prompt, trains_on_inputs), turn("completion", completion, true)])
        }
        _ => Err("only samples with `messages`, `text` or `prompt` and `completion` are shown".to_owned()),
    }
}

fn message_turn(message: &Value, trains_on_inputs: bool) -> Turn {
    let role = message["role"].as_str().unwrap_or_default();
    let mut is_about = message.get("tool_calls").is_some();
    let mut text = match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            is_about |= parts.iter().any(|part| part["text"].is_null());
            parts.iter().map(|part| part["text"].as_str().unwrap_or("[image]")).collect()
        }
        _ => String::new(),
    };
    if let Some(calls) = message.get("tool_calls") {
        text.push_str(&calls.to_string());
    }
    let is_masked = message["weight"].as_f64() == Some(0.0);
    let is_trained = (role == "assistant" || trains_on_inputs) && !is_masked;
    Turn { role: role.to_owned(), text, is_trained, is_about }
}

fn texts(sample: &Value, model: &ModelTokens) -> Texts {
    let mut texts = Texts::default();
    for turn in turns(sample, false).unwrap_or_default() {
        let (tokens, is_about) = model.text(&turn.text);
        texts.tokens += tokens;
        texts.weight += turn.text.len() as u64 + MESSAGE_WEIGHT;
        texts.messages += 1;
        texts.has_system_message |= turn.role == "system";
        texts.is_about |= is_about || turn.is_about;
    }
    texts
}

fn shown(sample: &Value, order: &Order, model: &ModelTokens) -> Result<ShownSample, String> {
    let turns = turns(sample, order.trains_on_inputs)?;
    let marked = Marked::new(model, order.max_tokens);
    let messages = marked.messages(&turns);
    let tokens = model.sample(&texts(sample, model));
    let spans = || messages.iter().flat_map(|message| &message.spans);
    let trained = spans().filter(|span| span.is_trained && !span.is_beyond);
    Ok(ShownSample {
        file: String::new(),
        line: 0,
        key: None,
        tokens,
        trained_tokens: trained.map(|span| span.tokens).sum(),
        is_truncated: spans().any(|span| span.is_beyond),
        messages,
    })
}

struct Marked<'m> {
    model: &'m ModelTokens,
    /// Tokens that there is still room for.
    room: u64,
    spans: Vec<Span>,
}

impl<'m> Marked<'m> {
    fn new(model: &'m ModelTokens, limit: Option<u64>) -> Self {
        Marked { model, room: limit.unwrap_or(u64::MAX), spans: Vec::new() }
    }

    /// The messages between the template's markers: Llama 3's where it is known, else signs for some.
    fn messages(mut self, turns: &[Turn]) -> Vec<ShownMessage> {
        let dates = self.model.llama_3_dates();
        let mut messages = Vec::new();
        if dates.is_some() {
            self.marker("<|begin_of_text|>", 1, false);
        }
        let has_system_message = turns.iter().any(|turn| turn.role == "system");
        if dates == Some(true) && !has_system_message {
            self.open("system");
            self.dates();
            self.close(false);
            self.end("system", &mut messages);
        }
        for turn in turns {
            self.open(&turn.role);
            if dates == Some(true) && turn.role == "system" {
                self.dates();
            }
            self.text(&turn.text, turn.is_trained);
            self.close(turn.is_trained);
            self.end(&turn.role, &mut messages);
        }
        messages
    }

    fn open(&mut self, role: &str) {
        match self.model.llama_3_dates() {
            Some(_) => self.marker(&format!("<|start_header_id|>{role}<|end_header_id|>\n\n"), 4, false),
            None => self.marker(&format!("<{role}>\n"), 3, false),
        }
    }

    fn dates(&mut self) {
        let tokens = self.model.tokenizer.count(DATES).tokens;
        self.marker(DATES, tokens, false);
    }

    fn close(&mut self, is_trained: bool) {
        match self.model.llama_3_dates() {
            Some(_) => self.marker("<|eot_id|>", 1, is_trained),
            None => self.marker("\n</>", 2, is_trained),
        }
    }

    fn end(&mut self, role: &str, messages: &mut Vec<ShownMessage>) {
        let spans = std::mem::take(&mut self.spans);
        let tokens = spans.iter().map(|span| span.tokens).sum();
        messages.push(ShownMessage { role: role.to_owned(), tokens, spans });
    }

    fn marker(&mut self, text: &str, tokens: u64, is_trained: bool) {
        let is_beyond = tokens > self.room;
        self.room = self.room.saturating_sub(tokens);
        let (kind, text, token_ends) = (Kind::Marker, text.to_owned(), Vec::new());
        self.spans.push(Span { kind, is_trained, is_beyond, text, tokens, token_ends });
    }

    /// The text in pieces: what fits, what does not, and in both what looks like a special token.
    fn text(&mut self, text: &str, is_trained: bool) {
        let mut ends = self.model.tokenizer.ends(text);
        if ends.last().is_some_and(|last| *last != text.len()) {
            // It was composed first: the borders are those of another text.
            ends = vec![text.len()];
        }
        let fitting = usize::try_from(self.room).unwrap_or(usize::MAX).min(ends.len());
        let fits_to = if fitting == ends.len() {
            text.len()
        } else {
            fitting.checked_sub(1).map_or(0, |last| ends[last])
        };
        let fits_to = (0..=fits_to).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.room = self.room.saturating_sub(ends.len() as u64);
        let mut at = 0;
        while at < text.len() {
            let limit = if at < fits_to { fits_to } else { text.len() };
            let special = special_token::find(&text[at..limit]);
            let start = special.and_then(|token| Some(at + text[at..limit].find(token)?));
            let (kind, end) = match (special, start) {
                (Some(token), Some(start)) if start == at => (Kind::SpecialToken, at + token.len()),
                (_, Some(start)) => (Kind::Text, start),
                _ => (Kind::Text, limit),
            };
            let within = ends.iter().filter(|token| (at + 1..=end).contains(*token));
            let token_ends: Vec<usize> = within.map(|token| token - at).collect();
            let tokens = token_ends.len() as u64;
            let (is_beyond, text) = (at >= fits_to, text[at..end].to_owned());
            self.spans.push(Span { kind, is_trained, is_beyond, text, tokens, token_ends });
            at = end;
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceSample {
    /// Its line, from 1.
    pub line: u64,
    /// Its tokens after it was cut.
    pub num_tokens: u64,
    /// Those that are trained.
    pub num_trained_tokens: u64,
    /// Whether it was cut.
    pub is_truncated: bool,
    /// Where it and what is shown here differ, in words.
    pub differences: Vec<String>,
}

/// Asks the service how it would train the first `samples` of the directory `out`, which is uploaded, on `model`.
pub fn at_service(
    session: &Session,
    out: &Path,
    model: &str,
    trains_on_inputs: bool,
    samples: &[ShownSample],
) -> Result<Vec<ServiceSample>, Failure> {
    let manifest = Manifest::read(out)?;
    let account = session.account()?;
    let mut parameters = Parameters::of_defaults();
    parameters.base_model = model.to_owned();
    let chosen = model::choose(&session.together, &mut parameters).map_err(|error| session.explain(error))?;
    let model = &chosen.limits.model_name;
    let uploads = Uploads::read(out)?;
    let mut of_train = uploads.of(&account).filter(|upload| upload.sha256 == manifest.train.content().1);
    let Some(upload) = of_train.next() else {
        let message = format!("the training side of `{}` is not at {}", out.display(), account.api);
        let hint = format!("upload it first (free of charge): ctxtune upload {}", shell::path(out));
        return Err(Failure::usage("not_uploaded", message, hint));
    };
    let rows = samples.iter().map(|sample| sample.line).max().unwrap_or_default();
    let rows = jobs::preview(&session.together, model, &upload.file_id, rows, trains_on_inputs);
    let rows = rows.map_err(|error| session.explain(error))?;
    let at_line = |sample: &ShownSample| (sample.line as usize).checked_sub(1).and_then(|at| rows.get(at));
    Ok(samples.iter().filter_map(|sample| Some(compared(sample, at_line(sample)?))).collect())
}

fn compared(sample: &ShownSample, row: &TokenizedRow) -> ServiceSample {
    let mut differences = Vec::new();
    let mut differ = |what: &str, here: String, there: String| {
        if here != there {
            differences.push(format!("{what}: {there} at the service, {here} here"));
        }
    };
    let spans = || sample.messages.iter().flat_map(|message| &message.spans);
    let kept: u64 = spans().filter(|span| !span.is_beyond).map(|span| span.tokens).sum();
    differ("tokens", kept.to_string(), row.token_count.to_string());
    differ("trained tokens", sample.trained_tokens.to_string(), row.trained_count.to_string());
    let cut = |is_truncated: bool| if is_truncated { "cut" } else { "whole" }.to_owned();
    differ("length", cut(sample.is_truncated), cut(row.is_truncated));
    let here: String =
        spans().filter(|span| span.is_trained && !span.is_beyond).map(|span| span.text.as_str()).collect();
    let trained = row.trained_spans.iter().filter_map(|(from, to)| row.tokens.get(*from..*to));
    let there: String = trained.flatten().map(|token| seen(token)).collect();
    if here != there {
        let at = here.bytes().zip(there.bytes()).take_while(|(one, other)| one == other).count();
        let behind = |text: &str| {
            let start = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            format!("`{}`", text[start..].chars().take(30).collect::<String>())
        };
        differ(&format!("trained text from byte {at}"), behind(&here), behind(&there));
    }
    let (line, num_tokens) = (sample.line, row.token_count);
    let (num_trained_tokens, is_truncated) = (row.trained_count, row.is_truncated);
    ServiceSample { line, num_tokens, num_trained_tokens, is_truncated, differences }
}

/// The text of a token as byte-level tokenizers write it; a token of half a character stays as it is written.
fn seen(token: &str) -> String {
    let bytes = written_bytes(token).and_then(|bytes| String::from_utf8(bytes).ok());
    bytes.unwrap_or_else(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::tokens::counter_or_about;
    use crate::session::environment::Environment;

    fn preview(sample: &Value, model: &str, max_tokens: Option<u64>) -> ShownSample {
        let model = counter_or_about(None, model, &Environment::default()).unwrap();
        let order = Order {
            path: PathBuf::new(),
            is_validation: false,
            pick: Pick::First(1),
            max_tokens,
            trains_on_inputs: false,
        };
        shown(sample, &order, &model).unwrap()
    }

    fn chat() -> Value {
        json!({ "messages": [
            { "role": "user", "content": "Who?" },
            { "role": "assistant", "content": "Mia <|eot_id|> left the room." },
        ]})
    }

    /// The texts that are trained, or cut.
    fn of(sample: &ShownSample, which: fn(&Span) -> bool) -> String {
        let spans = sample.messages.iter().flat_map(|message| &message.spans);
        spans.filter(|span| which(span)).map(|span| span.text.as_str()).collect()
    }

    #[test]
    fn the_assistants_text_and_its_end_are_trained_and_all_tokens_add_up() {
        let sample = preview(&chat(), "meta-llama/Meta-Llama-3.1-8B-Instruct", None);
        assert_eq!(of(&sample, |span| span.is_trained), "Mia <|eot_id|> left the room.<|eot_id|>");
        let roles: Vec<&str> = sample.messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant"], "the template says dates");
        assert_eq!(sample.messages.iter().map(|message| message.tokens).sum::<u64>(), sample.tokens.high);
        assert_eq!(of(&sample, |span| span.kind == Kind::SpecialToken), "<|eot_id|>");
        assert!(!sample.is_truncated);
    }

    #[test]
    fn what_the_service_does_otherwise_is_said_in_words() {
        let sample = preview(&chat(), "meta-llama/Meta-Llama-3-8B-Instruct", None);
        let text = "Mia <|eot_id|> left the room.<|eot_id|>";
        let written = text.replace(' ', "\u{120}");
        let row = TokenizedRow {
            tokens: vec!["x".to_owned(), written],
            trained_spans: vec![(1, 2)],
            token_count: sample.tokens.high,
            trained_count: sample.trained_tokens,
            is_truncated: false,
        };
        assert_eq!(compared(&sample, &row).differences, [""; 0]);
        let other = TokenizedRow { trained_spans: vec![(0, 2)], is_truncated: true, ..row };
        let said = compared(&sample, &other).differences;
        assert_eq!(said[0], "length: cut at the service, whole here");
        assert!(said[1].starts_with("trained text from byte 0: `xMia <|eot"), "{said:?}");
    }

    #[test]
    fn what_lies_behind_the_limit_is_cut_at_a_token() {
        let whole = preview(&chat(), "meta-llama/Meta-Llama-3-8B-Instruct", None).tokens.high;
        let cut = preview(&chat(), "meta-llama/Meta-Llama-3-8B-Instruct", Some(whole - 3));
        assert!(cut.is_truncated);
        assert_eq!(of(&cut, |span| span.is_beyond), " room.<|eot_id|>");
        assert_eq!(cut.messages.iter().map(|message| message.tokens).sum::<u64>(), whole);
    }

    #[test]
    fn a_weight_of_0_masks_an_answer_and_an_unknown_template_has_signs_for_it() {
        let mut sample = chat();
        sample["messages"][1]["weight"] = json!(0);
        let sample = preview(&sample, "Qwen/Qwen3-8B", None);
        assert_eq!(of(&sample, |span| span.is_trained), "");
        assert!(of(&sample, |span| span.kind == Kind::Marker).starts_with("<user>"), "{sample:?}");
        assert!(sample.tokens.low < sample.tokens.high);
    }
}
