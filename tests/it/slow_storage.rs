//! Files are read ahead where opening one takes long. That they are not elsewhere is a test of `ahead`, with a
//! clock of its own: whatever watches a real run makes its opens slow.

use std::collections::BTreeSet;
use std::process::Command;

use crate::support::{Dir, Outcome, program, skip};

/// The threads that have opened records.
fn threads_that_open(trace: &str) -> BTreeSet<&str> {
    let opens = trace.lines().filter(|line| line.contains("corpus/") && line.contains(".json\""));
    opens.map(|line| line.split(' ').next().unwrap()).collect()
}

#[test]
fn more_threads_open_files_where_that_takes_long() {
    let works = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        return skip("strace", "strace is not here, or may not trace");
    }
    let dir = Dir::new();
    dir.corpus(400).ctxtune(["prepare", "corpus", "-o", "plain", "--no-sync"]).expect(0);
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-qq",
        "--trace=openat",
        "--inject=openat:delay_enter=4000",
        "-o",
        "trace",
        program(),
    ]);
    strace.args(["prepare", "corpus", "-o", "out", "--no-sync", "--threads", "2"]).current_dir(dir.path(""));
    Outcome::of(strace).expect(0);
    let trace = dir.read("trace");
    let threads = threads_that_open(&trace).len();
    assert!((10..=66).contains(&threads), "{threads} threads have opened files");
    assert!(dir.tree("plain") == dir.tree("out"), "plain and out differ");
}
