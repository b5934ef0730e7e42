//! The result as the library sees it that people train with: `datasets.load_dataset("OUT")`.

use serde_json::json;

use crate::support::{Dir, Outcome, python, record, skip, texts_of};

/// Prints rows, first and last messages by split; 77 where the library is not installed.
const LOAD: &str = r#"
import json, sys
try:
    from datasets import load_dataset
    if sys.argv[2] == "zst":
        import zstandard
except ImportError:
    sys.exit(77)
splits = load_dataset(sys.argv[1])
print(json.dumps({name: [len(rows), rows[0]["messages"], rows[-1]["messages"]] for name, rows in splits.items()}))
"#;

/// What the library finds in `out`: rows, first and last texts of both sides. `None` without it.
fn load(dir: &Dir, compress: &str) -> Option<serde_json::Value> {
    let mut python = python()?;
    python.args(["-c", LOAD, "out", compress]).current_dir(dir.path(""));
    // Nothing from the network, nothing left behind.
    python.env("HF_HUB_OFFLINE", "1").env("HF_HOME", dir.path("cache"));
    let outcome = Outcome::of(python);
    if outcome.code == Some(77) {
        skip("python", "this Python has no `datasets`, or no `zstandard`");
        return None;
    }
    Some(outcome.expect(0).json())
}

fn check(dir: &Dir, options: &[&str], train: usize, val: usize) {
    for (compress, flags) in [("", &[][..]), ("gz", &["--compress=gz"]), ("zst", &["--compress=zst"])] {
        dir.prepare(&[options, flags].concat()).expect(0);
        if let Some(found) = load(dir, compress) {
            check_loaded(dir, &found, train, val);
        }
    }
}

fn check_loaded(dir: &Dir, found: &serde_json::Value, train: usize, val: usize) {
    let names: Vec<&String> = found.as_object().unwrap().keys().collect();
    assert_eq!(names, ["train", "validation"]);
    for (split, side, rows) in [("train", "train", train), ("validation", "val", val)] {
        let keys = dir.keys(side);
        let messages = |text: usize| texts_of(&json!({ "messages": found[split][text] }));
        assert_eq!(found[split][0], rows, "{split}");
        assert_eq!(messages(1), dir.texts(&keys[0]), "{split}");
        assert_eq!(messages(2), dir.texts(&keys[rows - 1]), "{split}");
        assert_eq!(found[split][1][2]["role"], "assistant");
    }
}

#[test]
fn load_dataset_reads_the_default_result() {
    let dir = Dir::new();
    // What lies beside the result is no part of it.
    dir.corpus(20).write("out/notes.jsonl", "{\"not\": \"ours\"}\n");
    check(&dir, &[], 18, 2);
}

#[test]
fn load_dataset_reads_shards_in_their_order() {
    let dir = Dir::new();
    let mut odd = record(0);
    odd["story"] = json!("Zoë \u{2028} said: 😀");
    dir.corpus(20).write("corpus/0.json", odd.to_string());
    check(&dir, &["--val-ratio", "0.3", "--shard-records", "4"], 14, 6);
}
