//! Tokenizers as models come with them: `tokenizer.json` and `tokenizer.model`.
//!
//! Byte-level BPE with the split patterns of Llama 3, Qwen and GPT-2. What else a file may ask for is an error
//! that names it, since a count that leaves it out would be wrong without a word.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::bpe::{Bpe, MOST_TOKENS, Merges, NONE, Pairs, Vocabulary};
use crate::split::Pattern;
use crate::tokenizer::{CL100K_TOKENS, LLAMA_3_TOKENS, Tokenizer};

/// The files of a model's directory, the first that is there.
const NAMES: [&str; 3] = ["tokenizer.json", "tokenizer.model", "original/tokenizer.model"];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the tokenizer `{path}`: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{0}` has neither a tokenizer.json nor a tokenizer.model")]
    NoFile(PathBuf),
    #[error("`{path}` is no tokenizer: {reason}")]
    Malformed { path: PathBuf, reason: String },
    #[error("the tokenizer `{path}` needs {feature}, which is not supported")]
    Unsupported { path: PathBuf, feature: String },
}

/// The tokenizer that a `tokenizer.json` or a `tokenizer.model` holds, or a directory with one of them.
pub fn read(path: &Path) -> Result<Tokenizer, Error> {
    let path = &match path.is_dir() {
        true => NAMES.iter().map(|name| path.join(name)).find(|file| file.is_file()),
        false => Some(path.to_owned()),
    }
    .ok_or_else(|| Error::NoFile(path.to_owned()))?;
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let is_json = bytes.trim_ascii_start().starts_with(b"{");
    let read = if is_json { of_json(&bytes) } else { of_ranks(&bytes) };
    read.map_err(|refused| match refused {
        Refused::Malformed(reason) => Error::Malformed { path: path.clone(), reason },
        Refused::Unsupported(feature) => Error::Unsupported { path: path.clone(), feature },
    })
}

/// The directory of the Hub's model `id` in the local `cache`, if it holds a tokenizer.
pub fn find_in_cache(cache: &Path, id: &str) -> Option<PathBuf> {
    let model = cache.join(format!("models--{}", id.replace('/', "--")));
    let commit = std::fs::read_to_string(model.join("refs/main")).ok()?;
    let snapshot = model.join("snapshots").join(commit.trim());
    NAMES.iter().any(|name| snapshot.join(name).is_file()).then_some(snapshot)
}

enum Refused {
    Malformed(String),
    Unsupported(String),
}

fn malformed(reason: impl Into<String>) -> Refused {
    Refused::Malformed(reason.into())
}

fn unsupported(feature: impl Into<String>) -> Refused {
    Refused::Unsupported(feature.into())
}

/// Lines of a token in base64 and its rank, as OpenAI and Meta publish them. They name no pattern: it is Llama 3's
/// for its vocabulary, cl100k's for its own, and those are the same.
fn of_ranks(bytes: &[u8]) -> Result<Tokenizer, Refused> {
    let mut tokens = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let number = tokens.len();
        let read = std::str::from_utf8(line).ok().and_then(|line| {
            let (token, rank) = line.trim_end().rsplit_once(' ')?;
            Some((BASE64_STANDARD.decode(token).ok()?, rank.parse::<usize>().ok()?))
        });
        match read {
            Some((token, rank)) if rank == number => tokens.push(token),
            _ if number == 0 => {
                return Err(unsupported("SentencePiece or another format than lines of base64"));
            }
            _ => {
                return Err(malformed(format!(
                    "line {}: expected a token and its rank {number}",
                    number + 1
                )));
            }
        }
    }
    match tokens.len() {
        CL100K_TOKENS | LLAMA_3_TOKENS => {
            Ok(Tokenizer::ranked(Vocabulary::new(tokens.iter().map(Vec::as_slice))))
        }
        other => Err(unsupported(format!(
            "the split pattern of a vocabulary of {other} ranks, which the file does not tell; a tokenizer.json does"
        ))),
    }
}

#[derive(Deserialize)]
struct Json {
    normalizer: Option<Step>,
    pre_tokenizer: Option<Step>,
    model: Model,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Step {
    Sequence {
        #[serde(alias = "normalizers", alias = "pretokenizers")]
        steps: Vec<Step>,
    },
    Split {
        pattern: Words,
        behavior: String,
        #[serde(default)]
        invert: bool,
    },
    ByteLevel {
        #[serde(default)]
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(untagged)]
    Other {
        #[serde(rename = "type")]
        name: String,
    },
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
enum Words {
    Regex(String),
    String(String),
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    name: Option<String>,
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: BTreeMap<String, IgnoredAny>,
    #[serde(default)]
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair(String, String),
}

#[derive(Deserialize)]
struct Added {
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

/// A tokenizer as Hugging Face's library writes it.
fn of_json(bytes: &[u8]) -> Result<Tokenizer, Refused> {
    let json: Json = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    let is_composed = match steps(json.normalizer).as_slice() {
        [] => false,
        [Step::Nfc] => true,
        _ => return Err(unsupported("another normalizer than NFC")),
    };
    let pattern = pattern(&steps(json.pre_tokenizer))?;
    let mut added = Vec::new();
    for token in json.added_tokens.into_iter().filter(|token| !token.special) {
        if token.single_word || token.lstrip || token.rstrip {
            return Err(unsupported(format!("the added token `{}` with its blanks", token.content)));
        }
        added.push(token.content);
    }
    added.sort_by_key(|token| std::cmp::Reverse(token.len()));
    Ok(Tokenizer { bpe: bpe(json.model)?, pattern, is_composed, added, is_bound: false })
}

fn steps(step: Option<Step>) -> Vec<Step> {
    match step {
        None => Vec::new(),
        Some(Step::Sequence { steps: inner }) => {
            inner.into_iter().flat_map(|step| steps(Some(step))).collect()
        }
        Some(step) => vec![step],
    }
}

fn pattern(steps: &[Step]) -> Result<Pattern, Refused> {
    match steps {
        [Step::ByteLevel { add_prefix_space: false, use_regex: true }] => Ok(Pattern::Gpt2),
        [
            Step::Split { pattern: Words::Regex(regex), behavior, invert },
            Step::ByteLevel { add_prefix_space: false, use_regex: false },
        ] => {
            let is_plain = (behavior == "Isolated" && !invert) || (behavior == "Removed" && *invert);
            Pattern::of(regex)
                .filter(|_| is_plain)
                .ok_or_else(|| unsupported(format!("the split pattern `{regex}` ({behavior})")))
        }
        [Step::Split { pattern: Words::String(text), .. }, ..] => {
            Err(unsupported(format!("a split at `{text}`")))
        }
        _ => {
            let name = steps.iter().find_map(|step| match step {
                Step::Other { name } => Some(name.as_str()),
                _ => None,
            });
            Err(unsupported(format!("the pre-tokenizer {}", name.unwrap_or("that it describes"))))
        }
    }
}

fn bpe(model: Model) -> Result<Bpe, Refused> {
    let is_some = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let needs = match model.name.as_deref() {
        Some(name) if name != "BPE" => Some(format!("the model {name}")),
        _ if model.byte_fallback => Some("byte_fallback".to_owned()),
        _ if model.dropout.is_some_and(|dropout| dropout > 0.0) => Some("dropout".to_owned()),
        _ if is_some(&model.continuing_subword_prefix) => Some("continuing_subword_prefix".to_owned()),
        _ if is_some(&model.end_of_word_suffix) => Some("end_of_word_suffix".to_owned()),
        _ if model.vocab.len() > MOST_TOKENS => Some(format!("more than {MOST_TOKENS} tokens")),
        _ => None,
    };
    if let Some(feature) = needs {
        return Err(unsupported(feature));
    }
    // A token of other characters than bytes are written with is never met.
    let tokens: Vec<Vec<u8>> = model.vocab.keys().filter_map(|token| written_bytes(token)).collect();
    let vocabulary = Vocabulary::new(tokens.iter().map(Vec::as_slice));
    if let Some(byte) = (0..=255).find(|byte| vocabulary.get(&[*byte]) == NONE) {
        return Err(unsupported(format!("a vocabulary without the byte {byte}")));
    }
    let token =
        |text: &str| written_bytes(text).map(|bytes| vocabulary.get(&bytes)).filter(|token| *token != NONE);
    let mut merges = Vec::with_capacity(model.merges.len());
    for merge in &model.merges {
        let pair = match merge {
            Merge::Line(line) => line.split_once(' '),
            Merge::Pair(left, right) => Some((left.as_str(), right.as_str())),
        };
        let read = pair
            .and_then(|(left, right)| Some((token(left)?, token(right)?, token(&format!("{left}{right}"))?)));
        merges.push(read.ok_or_else(|| malformed(format!("merge {} is of no tokens", merges.len() + 1)))?);
    }
    let mut bpe = Bpe { vocabulary, merges: Merges::ByPair(Pairs::new(&merges)), whole: Vec::new() };
    // Where merges decide, a token stands for its bytes only if they make it of them.
    bpe.whole = bpe
        .vocabulary
        .tokens()
        .map(|token| {
            let mut parts = 0;
            bpe.join_all(token, |_| parts += 1);
            model.ignore_merges || parts == 1
        })
        .collect();
    Ok(bpe)
}

/// The bytes that byte-level tokenizers write as these characters: themselves where they can be seen, the others
/// from U+0100 on.
pub fn written_bytes(text: &str) -> Option<Vec<u8>> {
    text.chars()
        .map(|character| match u32::from(character) {
            seen @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(seen as u8),
            low @ 0x100..=0x120 => Some((low - 0x100) as u8),
            middle @ 0x121..=0x142 => Some((middle - 0x121 + 0x7f) as u8),
            0x143 => Some(0xad),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a tokenizer.json with these members changed.
    fn refused(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut json = serde_json::json!({
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "use_regex": true },
            "model": { "type": "BPE", "vocab": {}, "merges": [] },
        });
        for byte in 0..=255_u8 {
            let written = (0..0x180).filter_map(char::from_u32).map(String::from);
            let mut written = written.filter(|text| written_bytes(text) == Some(vec![byte]));
            json["model"]["vocab"][written.next().unwrap()] = byte.into();
        }
        change(&mut json);
        match of_json(json.to_string().as_bytes()) {
            Ok(tokenizer) => format!("{} tokens", tokenizer.count("ab").tokens),
            Err(Refused::Malformed(reason) | Refused::Unsupported(reason)) => reason,
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert_eq!(refused(|_| {}), "2 tokens");
        let check = |said: String, expected: &str| assert!(said.contains(expected), "{said}");
        check(refused(|json| json["normalizer"] = serde_json::json!({ "type": "NFKC" })), "normalizer");
        check(refused(|json| json["pre_tokenizer"]["type"] = "Metaspace".into()), "pre-tokenizer Metaspace");
        check(refused(|json| json["model"]["type"] = "Unigram".into()), "model Unigram");
        check(refused(|json| json["model"]["byte_fallback"] = true.into()), "byte_fallback");
        check(refused(|json| drop(json["model"]["vocab"].as_object_mut().unwrap().remove("a"))), "byte 97");
        check(
            refused(|json| json["model"]["merges"] = serde_json::json!(["a b"])),
            "merge 1 is of no tokens",
        );
        let split = serde_json::json!([
            { "type": "Split", "pattern": { "Regex": "\\w+" }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "use_regex": false },
        ]);
        let steps = serde_json::json!({ "type": "Sequence", "pretokenizers": split });
        check(refused(|json| json["pre_tokenizer"] = steps), "split pattern `\\w+` (Isolated)");
        assert!(
            matches!(of_ranks(b"\x0a\x0e\n"), Err(Refused::Unsupported(feature)) if feature.contains("SentencePiece"))
        );
        assert!(
            matches!(of_ranks(b"YQ== 0\nYg== 2\n"), Err(Refused::Malformed(reason)) if reason.contains("line 2"))
        );
    }

    #[test]
    fn a_model_is_found_in_the_cache_of_the_hub() {
        let cache = tempfile::tempdir().unwrap();
        let model = cache.path().join("models--meta-llama--Llama-3.1-8B");
        let snapshot = model.join("snapshots/abc");
        std::fs::create_dir_all(snapshot.join("original")).unwrap();
        std::fs::create_dir_all(model.join("refs")).unwrap();
        std::fs::write(model.join("refs/main"), "abc").unwrap();
        let find = || find_in_cache(cache.path(), "meta-llama/Llama-3.1-8B");
        assert_eq!(find(), None, "weights alone are no tokenizer");
        std::fs::write(snapshot.join("original/tokenizer.model"), "").unwrap();
        assert_eq!(find(), Some(snapshot));
    }
}
