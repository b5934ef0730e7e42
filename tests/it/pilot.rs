//! `--limit`: a pilot is the beginning of the whole, measured against the same validation records.

use crate::support::{Dir, KeyRow, Tree, assert_same_tree, record};

/// Records of which every seventh is bad, so that lines move between the ends of both sides.
const RECORDS: usize = 300;

/// How a corpus is prepared, and how many of its records then train.
const WAYS: &[(&[&str], usize)] = &[
    (&["--val-ratio", "0.4"], 154),
    (&["--val-ratio", "0.4", "--shard-records", "50"], 154),
    (&["--val-ratio", "0"], 257),
    (&["--val-ratio", "0.4", "--group-by", "agents"], 0),
    (&["--val-ratio", "0.4", "--group-by", "story", "--shard-records", "20"], 0),
];

fn corpus() -> Dir {
    let dir = Dir::new();
    for number in 0..RECORDS {
        let content = if number % 7 == 3 { "{".to_owned() } else { record(number).to_string() };
        dir.write(format!("corpus/{number}.json"), content);
    }
    dir
}

/// The lines of one side and the keys of their records, in order, and what the other side and the rest is.
struct Pilot {
    lines: Vec<String>,
    keys: Vec<String>,
    validation: Tree,
}

fn prepared(dir: &Dir, way: &[&str], more: &[&str]) -> Pilot {
    let _ = std::fs::remove_dir_all(dir.path("out"));
    dir.prepare(&[way, more, &["--max-rejects", "20%"]].concat()).expect(0);
    assert!(dir.result("out", &[]).is_some(), "the manifest's digests are those of the files");
    dir.ctxtune(["check", "out"]).expect(0);
    let train = |row: &KeyRow| row.side == "train";
    let rows: Vec<KeyRow> = dir.key_rows().into_iter().filter(train).collect();
    let line =
        |row: &KeyRow| dir.read(format!("out/{}", row.shard)).lines().nth(row.line - 1).unwrap().to_owned();
    let lines: Vec<String> = rows.iter().map(line).collect();
    let manifest = dir.manifest();
    assert_eq!(manifest["train"]["records"], lines.len());
    let mut validation = dir.tree("out");
    validation.retain(|(name, _)| name.starts_with("val") || name == "rejects.jsonl");
    let keys = dir
        .read("out/keys.tsv")
        .lines()
        .filter(|row| row.starts_with("val\t"))
        .collect::<Vec<_>>()
        .join("\n");
    validation.push(("keys".to_owned(), keys.into_bytes()));
    Pilot { lines, keys: rows.into_iter().map(|row| row.key).collect(), validation }
}

#[test]
fn a_pilot_is_the_beginning_of_all_training_lines_and_validates_the_same() {
    let dir = corpus();
    for (way, expected) in WAYS {
        let whole = prepared(&dir, way, &[]);
        let count = whole.lines.len();
        assert!(*expected == 0 || count == *expected, "{count} of {way:?}");
        for limit in [1, 19, 20, 21, 50, 100, count - 1, count, count + 5] {
            let kept = limit.min(count);
            let pilot = prepared(&dir, way, &["--limit", &limit.to_string()]);
            assert_eq!(pilot.keys, whole.keys[..kept], "{way:?}, {limit}");
            assert_eq!(pilot.lines, whole.lines[..kept], "{way:?}, {limit}");
            assert_same_tree(&pilot.validation, &whole.validation, &format!("{way:?}, {limit}"));
            let manifest = dir.manifest();
            assert_eq!(manifest["options"]["limit"], limit);
            let beyond = manifest["counts"].get("beyond_limit").map_or(0, |count| count.as_u64().unwrap());
            assert_eq!(beyond as usize, count - kept);
        }
    }
}

#[test]
fn threads_change_no_byte_of_a_pilot() {
    let dir = corpus();
    for (way, _) in WAYS {
        let result = |threads: &str| {
            prepared(&dir, way, &["--limit", "60", "--threads", threads]);
            dir.tree("out")
        };
        let expected = result("1");
        for threads in ["2", "5"] {
            assert_same_tree(&result(threads), &expected, &format!("{threads} threads, {way:?}"));
        }
    }
}

#[test]
fn a_pilot_says_how_many_records_it_leaves_out() {
    let dir = Dir::new();
    dir.corpus(20);
    dir.write("c.yaml", "limit: 5\n");
    let run = dir.prepare(&["--config-path", "c.yaml"]).expect(0);
    assert!(run.stderr.contains("5 train (the first of 18: --limit) + 2 validation"), "{}", run.stderr);
    assert!(dir.read("out/README.md").contains("Of 18 training records the first 5 by rank are here"));
    let document =
        dir.prepare(&["--config-path", "c.yaml", "--limit", "7", "--dry-run", "--show", "9", "--json"]);
    let document = document.expect(0).json();
    assert_eq!(document["split"], serde_json::json!({ "train": 7, "val": 2 }));
    assert_eq!(document["counts"]["beyond_limit"], 11);
    let run = dir.prepare(&["--limit", "2", "--dry-run", "--show", "9"]).expect(0);
    assert!(run.stderr.contains("example 2 of train") && !run.stderr.contains("example 3"), "{}", run.stderr);
    // What is not trained on leaks nothing.
    let leakage = |limit: &str| {
        dir.prepare(&["--limit", limit, "--val-ratio", "0.5"]).expect(0);
        dir.manifest()["leakage"]["val_sharing_agents"].as_u64().unwrap()
    };
    assert!(leakage("1") < leakage("10"));
    dir.prepare(&["--limit", "0"]).expect(2);
}
