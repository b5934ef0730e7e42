//! Stories in, socialized contexts out, from a tuned model or any other that chats.
//!
//! The way of a story: `story` reads it, `prompt` fills the template that the model was trained with,
//! `request` is what is sent, `ask` asks until an answer is a context (`verdict`), and `many` does so
//! for every `question` of a source, within `pace` and `budget`, each into a `file` of its own.
//! Here the engine and the transport meet, and nowhere else. It knows no terminal and no variable.

pub mod ask;
pub mod batch;
pub mod budget;
pub mod file;
pub mod many;
pub mod pace;
pub mod prompt;
pub mod question;
pub mod request;
pub mod setup;
pub mod story;
pub mod verdict;
