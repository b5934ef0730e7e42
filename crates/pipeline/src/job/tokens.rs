//! Which tokenizer counts for a model, and what its chat template adds.
//!
//! A user's own file is exact; one that the Hub's cache holds for the model is found there. Without one, models with
//! Llama 3's vocabulary get a bound, and all others an estimate from bytes. Nothing is fetched.

use std::path::{Path, PathBuf};

use crate::env;
use crate::failure::Failure;
use crate::job::model::REFERENCE;
use crate::session::environment::Environment;
use ctxtune_engine::check::counter::{Counter, Method, Texts};
use ctxtune_engine::check::stats::{Tokens, estimate};
use ctxtune_tokens::chat::{DATES_TOKENS, MESSAGE_TOKENS, START_TOKENS, dates, llama_3_dates, message_text};
use ctxtune_tokens::{Tokenizer, find_in_cache, read};

/// The key, and the flag, that name a tokenizer.
pub const TOKENIZER: &str = "tokenizer";
/// What a message costs beside its text where the template is not known.
const UNKNOWN_MESSAGE_TOKENS: (u64, u64) = (3, 6);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Llama 3's; from 3.1 on it says dates.
    Llama3 {
        has_dates: bool,
    },
    Unknown,
}

#[derive(Debug)]
pub struct ModelTokens {
    pub tokenizer: Tokenizer,
    /// Where it was found; none of the program's own.
    pub path: Option<PathBuf>,
    framing: Framing,
    /// What the dates add to a conversation without a system message, and to one with it.
    dates: [u64; 2],
}

/// What counts for `model`: `named` (a file, a directory or a name on the Hub), else what the cache holds for it,
/// else a bound; nothing where there is none.
pub fn counter(
    named: Option<&str>,
    model: &str,
    environment: &Environment,
) -> Result<Option<ModelTokens>, Failure> {
    if let Some(named) = named {
        let path = place_of(named, environment)?;
        let tokenizer = read(&path).map_err(|error| {
            let hint = "name another file, or leave it out to have tokens estimated";
            Failure::usage("tokenizer", error.to_string(), hint)
        })?;
        return Ok(Some(ModelTokens::new(tokenizer, Some(path), model)));
    }
    let cached = cache(environment)
        .and_then(|cache| names_of(model).into_iter().find_map(|name| find_in_cache(&cache, &name)));
    // One that cannot be used is as good as none: nobody asked for it.
    if let Some((path, tokenizer)) = cached.and_then(|path| Some((path.clone(), read(&path).ok()?))) {
        return Ok(Some(ModelTokens::new(tokenizer, Some(path), model)));
    }
    Ok(llama_3_dates(model).map(|_| ModelTokens::new(Tokenizer::bound(), None, model)))
}

/// The same; where there is none, what splits texts at about the same places.
pub fn counter_or_about(
    named: Option<&str>,
    model: &str,
    environment: &Environment,
) -> Result<ModelTokens, Failure> {
    let found = counter(named, model, environment)?;
    Ok(found.unwrap_or_else(|| ModelTokens::new(Tokenizer::bound(), None, model)))
}

fn place_of(named: &str, environment: &Environment) -> Result<PathBuf, Failure> {
    let path = crate::value::at_home(Path::new(named), environment.get(env::HOME).map(Path::new));
    if path.exists() {
        return Ok(path);
    }
    let cache = cache(environment);
    if let Some(found) = cache.as_deref().and_then(|cache| find_in_cache(cache, named)) {
        return Ok(found);
    }
    let looked = cache.map(|cache| format!(" and no model in `{}`", cache.display())).unwrap_or_default();
    let message = format!("the tokenizer `{named}` is no file, no directory{looked}");
    let hint = "name a tokenizer.json or tokenizer.model, or fetch it first: hf download NAME tokenizer.json";
    Err(Failure::usage("tokenizer", message, hint))
}

/// Where the Hub's library keeps what it has fetched.
fn cache(environment: &Environment) -> Option<PathBuf> {
    environment
        .path(env::HF_HUB_CACHE)
        .or_else(|| Some(environment.path(env::HF_HOME)?.join("hub")))
        .or_else(|| Some(environment.path(env::HOME)?.join(".cache/huggingface/hub")))
}

/// The names that the Hub has for a model of the service: it calls one `-Reference` that can only be tuned, and the
/// Hub has renamed some.
fn names_of(model: &str) -> Vec<String> {
    let name = model.strip_suffix(REFERENCE).unwrap_or(model).to_owned();
    let renamed = name.replace("/Meta-Llama-3.1-", "/Llama-3.1-");
    if renamed == name { vec![name] } else { vec![name, renamed] }
}

impl ModelTokens {
    fn new(tokenizer: Tokenizer, path: Option<PathBuf>, model: &str) -> ModelTokens {
        let framing = match llama_3_dates(model) {
            Some(has_dates) if tokenizer.is_bound() => Framing::Llama3 { has_dates },
            // A file of this vocabulary for a model that is none of those: as the newer ones do it.
            known if tokenizer.has_llama_3_vocabulary() => {
                Framing::Llama3 { has_dates: known.unwrap_or(true) }
            }
            _ => Framing::Unknown,
        };
        let dates = match framing {
            Framing::Llama3 { has_dates: true } => [false, true].map(|has| dates(&tokenizer, has)),
            _ => [0, 0],
        };
        ModelTokens { tokenizer, path, framing, dates }
    }

    /// The most tokens of a prompt of these messages, each a role and a text; none that is certain without a bound
    /// or a tokenizer.
    pub fn at_most<'t>(&self, messages: impl IntoIterator<Item = (&'t str, &'t str)>) -> u64 {
        let mut texts = Texts::default();
        for (role, text) in messages {
            let (tokens, is_about) = self.text(text);
            texts.tokens += if is_about { text.len() as u64 } else { tokens };
            texts.messages += 1;
            texts.has_system_message |= role == "system";
        }
        self.sample(&texts).high
    }

    /// Whether the model's chat template is known here, and whether it says dates.
    pub fn llama_3_dates(&self) -> Option<bool> {
        match self.framing {
            Framing::Llama3 { has_dates } => Some(has_dates),
            Framing::Unknown => None,
        }
    }

    pub fn described(&self) -> String {
        match (&self.path, self.method()) {
            (Some(path), Method::Exact) => format!("counted with {}", path.display()),
            (Some(path), _) => format!("texts counted with {}, the template estimated", path.display()),
            (None, Method::AtMost) => "at most, by Llama 3's first 100,256 merges".to_owned(),
            (None, _) => "an estimate".to_owned(),
        }
    }
}

impl Counter for ModelTokens {
    fn method(&self) -> Method {
        match self.framing {
            Framing::Unknown => Method::About,
            Framing::Llama3 { .. } if self.tokenizer.is_bound() => Method::AtMost,
            Framing::Llama3 { .. } => Method::Exact,
        }
    }

    fn text(&self, text: &str) -> (u64, bool) {
        let count = message_text(&self.tokenizer, text);
        (count.tokens, count.is_about)
    }

    fn sample(&self, texts: &Texts) -> Tokens {
        let (low, high) = match self.framing {
            Framing::Llama3 { .. } => {
                let around = MESSAGE_TOKENS * texts.messages + START_TOKENS;
                let around = around + self.dates[usize::from(texts.has_system_message)];
                (around, around)
            }
            Framing::Unknown => {
                let (least, most) = UNKNOWN_MESSAGE_TOKENS;
                (least * texts.messages, most * texts.messages + START_TOKENS + DATES_TOKENS)
            }
        };
        let counted = Tokens { low: texts.tokens + low, high: texts.tokens + high };
        let guess = estimate(texts.weight);
        let is_about = texts.is_about || (self.tokenizer.is_bound() && self.framing == Framing::Unknown);
        match (is_about, self.tokenizer.is_bound()) {
            (true, _) => Tokens { low: guess.low.min(counted.low), high: guess.high.max(counted.high) },
            (false, true) => Tokens { low: guess.low.min(counted.high), high: counted.high },
            (false, false) => counted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(tokens: u64, weight: u64) -> Texts {
        Texts { tokens, weight, messages: 2, ..Texts::default() }
    }

    #[test]
    fn a_bound_has_an_estimate_below_it_and_what_is_uncertain_is_a_range() {
        let model = counter(None, "meta-llama/Llama-3.3-70B-Instruct", &Environment::default());
        let model = model.unwrap().unwrap();
        assert_eq!(model.method(), Method::AtMost);
        // Two messages, the beginning, and the dates with a message of their own.
        assert_eq!(model.sample(&texts(100, 400)), Tokens { low: 80, high: 100 + 10 + 1 + 25 });
        assert_eq!(model.sample(&texts(10, 9000)), Tokens { low: 46, high: 46 });
        let is_about = Texts { is_about: true, has_system_message: true, ..texts(100, 400) };
        assert_eq!(model.sample(&is_about), Tokens { low: 80, high: 160 });
    }

    #[test]
    fn a_model_of_another_vocabulary_has_an_estimate_only() {
        assert!(counter(None, "Qwen/Qwen3-8B", &Environment::default()).unwrap().is_none());
        let missing = counter(Some("no/such"), "Qwen/Qwen3-8B", &Environment::default()).unwrap_err();
        assert!(missing.message.contains("`no/such` is no file"), "{}", missing.message);
    }

    #[test]
    fn the_hub_has_other_names_than_the_service() {
        assert_eq!(
            names_of("meta-llama/Meta-Llama-3.1-8B-Instruct-Reference"),
            ["meta-llama/Meta-Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"]
        );
        assert_eq!(names_of("Qwen/Qwen3-8B"), ["Qwen/Qwen3-8B"]);
    }
}
