//! One story, asked about until an answer is a context or the attempts are used up.
//!
//! Two loops, kept apart: the transport's, which repeats a request that brought no answer, and this
//! one, which asks again after an answer that is no context. Both are bounded, and every request of
//! both waits for its turn and its money first.

use serde_json::Value;

use crate::generate::budget::Budget;
use crate::generate::pace::Pace;
use crate::generate::request::{Delivery, Parameters};
use crate::generate::verdict::{Flaw, judge_completion};
use ctxtune_engine::line::example::Message;
use ctxtune_service::Stopped;
use ctxtune_service::together::Error;
use ctxtune_service::together::chat::{Beat, Chat, Usage};

#[derive(Debug)]
pub struct Asker<'a> {
    pub chat: &'a Chat,
    pub parameters: &'a Parameters,
    /// How often at most, where answers are no contexts; from 1.
    pub attempts: u32,
    pub delivery: Delivery,
    pub pace: &'a Pace,
    pub budget: &'a Budget,
}

#[derive(Debug)]
pub enum Show<'s> {
    /// An answer begins anew: what was shown of the one before does not count.
    Begin,
    Text(&'s str),
    /// An answer was no context, and another one is asked for.
    Flawed(&'s Flaw),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effort {
    pub requests: u64,
    /// Those of them that repeated one without an answer.
    pub repeats: u64,
    pub attempts: u32,
    /// What the answers took, as far as the server says.
    pub usage: Option<Usage>,
}

impl Effort {
    #[must_use]
    pub fn and(self, other: Effort) -> Effort {
        let usage = match (self.usage, other.usage) {
            (Some(one), Some(other)) => Some(Usage {
                prompt_tokens: one.prompt_tokens + other.prompt_tokens,
                completion_tokens: one.completion_tokens + other.completion_tokens,
            }),
            (one, other) => one.or(other),
        };
        Effort {
            requests: self.requests + other.requests,
            repeats: self.repeats + other.repeats,
            attempts: self.attempts + other.attempts,
            usage,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The context as JSON in the form `object`, or what is wrong with the last answer.
    pub context: Result<String, Flaw>,
    /// The last answer as it came; empty where it was discarded for the key in it.
    pub raw: String,
    pub finish_reason: Option<String>,
}

impl Asker<'_> {
    /// Asks about a story, whose prompt is `messages`. What it took is known also where it failed.
    pub fn ask(
        &self,
        messages: &[Message],
        show: &mut dyn FnMut(Show<'_>),
    ) -> (Effort, Result<Outcome, Error>) {
        let mut effort = Effort::default();
        for attempt in 1.. {
            let body = self.parameters.body(messages, attempt, self.delivery);
            let completion = match self.one(&body, &mut effort, show) {
                Ok(completion) => completion,
                Err(error) => return (effort, Err(error)),
            };
            let took = Effort { attempts: 1, usage: completion.usage, ..Effort::default() };
            effort = effort.and(took);
            let context = judge_completion(&completion);
            match &context {
                Err(flaw) if attempt < self.attempts => show(Show::Flawed(flaw)),
                _ => {
                    let finish_reason = completion.finish_reason;
                    let raw = completion.content.unwrap_or_default();
                    return (effort, Ok(Outcome { context, raw, finish_reason }));
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    /// One question, as often as the transport repeats it.
    fn one(
        &self,
        body: &Value,
        effort: &mut Effort,
        show: &mut dyn FnMut(Show<'_>),
    ) -> Result<ctxtune_service::together::chat::Completion, Error> {
        let most = most_tokens(body, self.parameters.max_tokens);
        let clock = self.chat.client().clock();
        let mut tries = 0;
        let mut tell = |beat: Beat<'_>| -> Result<(), Stopped> {
            match beat {
                Beat::Asking => {
                    self.pace.take(clock)?;
                    self.budget.reserve(most, clock)?;
                    tries += 1;
                    show(Show::Begin);
                }
                Beat::Asked(charge) => self.budget.settle(most, charge),
                Beat::Text(text) => show(Show::Text(text)),
            }
            Ok(())
        };
        let completion = self.chat.ask(body, &mut tell);
        effort.requests += tries;
        effort.repeats += tries.saturating_sub(1);
        completion
    }
}

/// The most tokens that a request can take: a token has at least one byte, and the template adds some a message and
/// its dates.
pub fn most_tokens(body: &Value, max_tokens: u64) -> u64 {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let bytes: usize =
        messages.iter().map(|message| message["content"].as_str().unwrap_or_default().len() + 16).sum();
    (bytes as u64 + 32).saturating_add(max_tokens)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_byte_of_a_prompt_may_be_a_token() {
        let body = json!({ "messages": [{ "role": "user", "content": "é é" }] });
        assert_eq!(most_tokens(&body, 100), 5 + 16 + 32 + 100);
    }
}
