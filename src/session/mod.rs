//! What a command is given from outside: variables, keys, clock, client, consent.

pub mod clock;
pub(crate) mod consent;
pub mod dotenv;
pub(crate) mod environment;
pub(crate) mod key;
pub(crate) mod netrc;
pub(crate) mod service;
