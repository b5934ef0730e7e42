//! How a check comes to the tokens of a sample: the caller's counter, or an estimate from its bytes.
//!
//! The engine has no tokenizer, and each model has its own. What a conversation is wrapped in is the counter's
//! knowledge, too.

use std::fmt::Debug;

use crate::check::stats::Tokens;

/// How tokens were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// With the model's tokenizer: the lowest number is the highest.
    Exact,
    /// With a vocabulary that never counts fewer: the highest number holds, the lowest is an estimate.
    AtMost,
    /// From bytes: both are estimates.
    About,
}

impl Method {
    /// The method as it stands in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Exact => "exact",
            Method::AtMost => "at_most",
            Method::About => "about",
        }
    }
}

/// What the texts of a sample come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Texts {
    /// Their bytes, with what messages cost beside them: see [`estimate`](crate::check::stats::estimate).
    pub weight: u64,
    /// Their tokens, where somebody counts.
    pub tokens: u64,
    /// Messages.
    pub messages: u64,
    /// Whether one of them is the system's.
    pub has_system_message: bool,
    /// Whether there is more than the texts of a conversation, or a text's tokens are not certain.
    pub is_about: bool,
}

/// Counts the tokens of samples, on any thread.
pub trait Counter: Debug + Send + Sync {
    /// How it counts a plain conversation.
    fn method(&self) -> Method;
    /// The tokens of one text, and whether that is not certain.
    fn text(&self, text: &str) -> (u64, bool);
    /// The tokens of a sample of these texts.
    fn sample(&self, texts: &Texts) -> Tokens;
}
