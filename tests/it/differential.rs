//! Ten thousand random records against Python's own `json` and `ast`; see `differential.py`.

use crate::support::{Dir, Outcome, python, repository};

/// Runs a command of the oracle; fails with what it printed.
fn oracle(dir: &Dir, arguments: &[&str]) -> Option<String> {
    let mut python = python()?;
    python.arg(repository("tests/it/differential.py")).args(arguments).current_dir(dir.path(""));
    Some(Outcome::of(python).expect(0).stdout)
}

#[test]
fn python_accepts_the_same_records_and_reads_the_same_texts() {
    let dir = Dir::new();
    if oracle(&dir, &["generate", ".", "--records", "10000", "--seed", "7"]).is_none() {
        return;
    }
    dir.prepare(&["--max-rejects", "100%", "--threads", "2"]).expect(0);
    let accepted = dir.manifest()["counts"]["accepted"].as_u64().unwrap();
    assert!(accepted > 5000, "{accepted} of 10000 accepted");
    let report = oracle(&dir, &["compare", ".", "out"]).unwrap();
    assert!(report.contains("10000 records, 0 differences"), "{report}");
    assert!(report.contains(&format!("{accepted:8} accept")), "{report}");
}
