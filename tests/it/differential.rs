//! Random records, ten thousand at a time, against Python's own `json` and `ast`; see `differential.py`.

use crate::support::{Dir, Outcome, python, repository};

/// Runs a command of the oracle; fails with what it printed.
fn oracle(dir: &Dir, arguments: &[&str]) -> Option<String> {
    let mut python = python()?;
    python.arg(repository("tests/it/differential.py")).args(arguments).current_dir(dir.path(""));
    Some(Outcome::of(python).expect(0).stdout)
}

/// Ten thousand records, made with these further arguments: the oracle must agree with every one.
fn check(arguments: &[&str]) {
    let dir = Dir::new();
    let generate = ["generate", ".", "--records", "10000"];
    if oracle(&dir, &[&generate, arguments].concat()).is_none() {
        return;
    }
    dir.prepare(&["--max-rejects", "100%", "--threads", "2"]).expect(0);
    let accepted = dir.manifest()["counts"]["accepted"].as_u64().unwrap();
    assert!(accepted > 5000, "{accepted} of 10000 accepted");
    let report = oracle(&dir, &["compare", ".", "out"]).unwrap();
    assert!(report.contains("10000 records, 0 differences"), "{report}");
    assert!(report.contains(&format!("{accepted:8} accept")), "{report}");
}

#[test]
fn python_accepts_the_same_records_and_reads_the_same_texts() {
    check(&["--seed", "7"]);
}

#[test]
fn values_that_nobody_uses_are_read_as_python_reads_them() {
    let unused = ["--only", "not JSON where nobody uses it"];
    // Two of three are of the first kind.
    let kinds = [&unused[..], &unused, &["--only", "not JSON where it is used"]].concat();
    check(&[&["--seed", "8"], &kinds[..]].concat());
}
