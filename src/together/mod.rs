//! The provider's API, one file a subject.

pub mod job;
