//! What the rules of a sample share: where they say what they found, and what they count.
//!
//! One judge a sample. It turns a rule's word into a finding with its line, adds up the
//! text for the estimate of tokens, and looks for special tokens in each text.

use memchr::memmem::Finder;

use crate::check::code::Code;
use crate::check::counter::{Counter, Texts};
use crate::check::finding::Findings;
use crate::check::stats::MESSAGE_WEIGHT;
use crate::check::tape::Fields;
use crate::special_token;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// The one who asks.
    User,
    /// The one who learns.
    Assistant,
    /// What a function gave back.
    Tool,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 4] = [Role::System, Role::User, Role::Assistant, Role::Tool];

    /// The role as it stands in a message.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }

    /// The role of that name.
    pub fn named(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// Finds what looks like a tokenizer's special token.
#[derive(Debug)]
pub struct SpecialTokens(Finder<'static>);

impl Default for SpecialTokens {
    fn default() -> Self {
        SpecialTokens(Finder::new("<|"))
    }
}

impl SpecialTokens {
    /// The first `<|name|>` in `text`, the shape of special tokens in the Llama and ChatML families.
    pub fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        // Almost no text holds the opening, and then this is all.
        let first = self.0.find(text.as_bytes())?;
        special_token::find(&text[first..])
    }
}

/// The judge of one sample.
#[derive(Debug)]
pub struct Judge<'s> {
    findings: &'s mut Findings,
    roles: &'s mut [u64; Role::ALL.len()],
    special_tokens: &'s SpecialTokens,
    line: u64,
    counter: Option<&'s dyn Counter>,
    texts: Texts,
    has_special_token: bool,
}

impl<'s> Judge<'s> {
    /// The judge of the sample in `line`, who writes to `findings` and counts messages in `roles`.
    pub fn new(
        findings: &'s mut Findings,
        roles: &'s mut [u64; Role::ALL.len()],
        special_tokens: &'s SpecialTokens,
        line: u64,
    ) -> Self {
        let texts = Texts::default();
        Judge { findings, roles, special_tokens, line, counter: None, texts, has_special_token: false }
    }

    /// The same judge, who has tokens counted.
    #[must_use]
    pub fn counting(self, counter: Option<&'s dyn Counter>) -> Self {
        Judge { counter, ..self }
    }

    /// Adds a finding.
    pub fn say(&mut self, code: Code, message: impl FnOnce() -> String) {
        self.findings.push(code, Some(self.line), message);
    }

    /// Takes note of a text that the model will see. `at` says where it stands.
    pub fn text(&mut self, text: &str, at: impl FnOnce() -> String) {
        self.texts.weight += text.len() as u64;
        if let Some(counter) = self.counter {
            let (tokens, is_about) = counter.text(text);
            self.texts.tokens += tokens;
            self.texts.is_about |= is_about;
        }
        if self.has_special_token {
            return;
        }
        if let Some(token) = self.special_tokens.find(text) {
            self.has_special_token = true;
            self.say(Code::SpecialToken, || format!("{} holds `{token}`", at()));
        }
    }

    /// Judges the keys of an object that is used. `at` says where it stands.
    pub fn keys(&mut self, fields: &Fields<'_, '_>, at: impl FnOnce() -> String) {
        if let Some(key) = fields.doubled() {
            self.say(Code::DuplicateKey, || {
                format!("{} has the key `{}` twice: only one of the two is read", at(), shortened(key))
            });
        }
    }

    /// Takes note of a message of `role`.
    pub fn message(&mut self, role: Option<Role>) {
        self.texts.weight += MESSAGE_WEIGHT;
        self.texts.messages += 1;
        self.texts.has_system_message |= role == Some(Role::System);
        if let Some(role) = role {
            self.roles[role as usize] += 1;
        }
    }

    /// Takes note of something that the model sees beside texts: nobody counts its tokens.
    pub fn uncounted(&mut self) {
        self.texts.is_about = true;
    }

    /// What the sample's texts come to.
    pub fn texts(&self) -> Texts {
        self.texts
    }
}

/// `text` for a message: at most forty characters of it.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"é".repeat(50)), format!("{}…", "é".repeat(40)));
    }
}
