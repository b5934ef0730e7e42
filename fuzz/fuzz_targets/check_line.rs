//! A training file of any bytes through `check`: it ends, says the same each time and on any number of threads,
//! and passes nothing that is not JSON with messages.

#![no_main]

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;

use ctxtune_engine::check::finding::Keep;
use ctxtune_engine::check::{Options, Watch, check};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

struct Unwatched;

impl Watch for Unwatched {
    fn expects(&self, _: u64) {}
    fn checked(&self, _: u64) {}
    fn is_stopped(&self) -> bool {
        false
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::Builder::new().suffix(".jsonl").tempfile().expect("there is room for a file");
    file.write_all(bytes).expect("there is room for an input");
    let (passed, said) = verdict(file.path(), 1);
    assert_eq!((passed, said), verdict(file.path(), 2));
    if !passed {
        return;
    }
    let text = std::str::from_utf8(bytes).expect("what passes is UTF-8");
    for line in text.split('\n').filter(|line| !line.trim().is_empty()) {
        let sample: Value = serde_json::from_str(line).expect("what passes is JSON");
        assert!(sample.is_object(), "{line}");
    }
});

/// Whether the file passes, and what is found in it.
fn verdict(path: &Path, threads: usize) -> (bool, String) {
    let options = Options {
        paths: vec![path.to_owned()],
        threads: NonZeroUsize::new(threads).expect("at least one"),
        keep: Keep::All,
        max_tokens: None,
        counter: None,
    };
    let report = check(&options, &Unwatched).expect("a file that is there is checked");
    (report.is_passed(), format!("{:?} {:?}", report.files, report.findings))
}
