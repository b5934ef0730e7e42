//! What a preparation leaves: files of lines, rejects and keys, the manifest that vouches for them, and how all of it
//! is published at once or not at all.

pub(crate) mod card;
pub mod compress;
pub(crate) mod hex;
pub(crate) mod key_lines;
pub mod lock;
pub mod manifest;
pub mod prepared;
pub(crate) mod publish;
pub(crate) mod reserve;
pub(crate) mod shard;

pub use key_lines::KEYS;
