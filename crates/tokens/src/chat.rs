//! What Llama 3's chat template adds to the texts of a conversation.

use crate::tokenizer::{Count, Tokenizer};

/// What a message adds: two headers with the role between them, two line ends, and the end of the turn.
pub const MESSAGE_TOKENS: u64 = 5;
/// The token that begins a text.
pub const START_TOKENS: u64 = 1;
/// The most that the dates add: a system message of their own.
pub const DATES_TOKENS: u64 = 32;
/// What the template of 3.1 and later puts before the system message, with any date.
pub const DATES: &str = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";

/// Whether a model's template says dates; nothing for one whose vocabulary is not known to be Llama 3's.
///
/// Names as the Hub and services write them; what follows these beginnings is size and kind.
pub fn llama_3_dates(model: &str) -> Option<bool> {
    let name = model.strip_prefix("meta-llama/")?;
    let name = name.strip_prefix("Meta-").unwrap_or(name);
    let is_of = |versions: &[&str]| {
        versions.iter().any(|version| name.strip_prefix(version).is_some_and(|rest| rest.starts_with('-')))
    };
    match name {
        _ if is_of(&["Llama-3.1", "Llama-3.2", "Llama-3.3"]) => Some(true),
        _ if is_of(&["Llama-3"]) => Some(false),
        _ => None,
    }
}

/// The tokens of a message's text. The template takes the blanks around it away, which can make more tokens of
/// it, and a service may not: the more counts.
pub fn message_text(tokenizer: &Tokenizer, text: &str) -> Count {
    let count = tokenizer.count(text);
    let trimmed = text.trim();
    if trimmed.len() == text.len() {
        return count;
    }
    let trimmed = tokenizer.count(trimmed);
    Count { tokens: count.tokens.max(trimmed.tokens), is_about: count.is_about }
}

/// The tokens of the dates, measured with `tokenizer`.
pub fn dates(tokenizer: &Tokenizer, has_system_message: bool) -> u64 {
    let message = if has_system_message { 0 } else { MESSAGE_TOKENS };
    (tokenizer.count(DATES).tokens + message).min(DATES_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_with_llama_3s_vocabulary_are_known_by_name() {
        let check = |model: &str, expected| assert_eq!(llama_3_dates(model), expected, "{model}");
        check("meta-llama/Meta-Llama-3.1-8B-Instruct-Reference", Some(true));
        check("meta-llama/Llama-3.3-70B-Instruct", Some(true));
        check("meta-llama/Meta-Llama-3-8B-Instruct", Some(false));
        check("meta-llama/Llama-4-Scout-17B-16E-Instruct", None);
        check("meta-llama/Llama-2-7b-chat-hf", None);
        check("meta-llama/Llama-30B", None);
        check("Qwen/Qwen3-8B", None);
    }

    #[test]
    fn dates_and_blanks_are_counted() {
        let bound = Tokenizer::bound();
        assert_eq!((dates(&bound, false), dates(&bound, true)), (25, 20));
        let count = |text: &str| message_text(&bound, text).tokens;
        assert_eq!(count(" hello \n"), bound.count(" hello \n").tokens);
        // One token with its blank, and more without.
        let (with, without) = (bound.count(" Hegel").tokens, bound.count("Hegel").tokens);
        assert!(with < without && count(" Hegel") == without, "{with} {without}");
    }
}
