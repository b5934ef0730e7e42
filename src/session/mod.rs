//! What a command is given from outside: variables, keys, clock, client, consent.

pub mod asking;
pub mod clock;
pub mod consent;
pub mod dotenv;
pub mod environment;
pub mod key;
pub mod netrc;
pub mod service;
