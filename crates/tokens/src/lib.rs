//! Counts the tokens of texts. Knows nothing of conversations but what Llama 3's template adds to them.
//!
//! [`Tokenizer::bound`] never counts fewer tokens than Llama 3 and what followed it has; [`read`] counts exactly,
//! with a file that came with a model. Special tokens that a text spells out are counted as the text that they are.

mod bpe;
pub mod chat;
mod class;
mod file;
mod split;
mod tokenizer;

pub use file::{Error, find_in_cache, read, written_bytes};
pub use tokenizer::{Count, Tokenizer};
