//! Integration tests: the program as a user runs it, one binary, one topic a file.
//!
//! What needs `../shared/data`, Python packages or tools that may be absent says that it
//! skips, and passes.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says when it skips"
)]

mod support;
