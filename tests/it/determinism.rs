//! The same records, seed, ratio and template give the same bytes, on any machine.
//!
//! `fixtures/golden` holds whole results. `BLESS=1 cargo test --test it determinism` writes
//! them anew; a change there is a change of the format, and CHANGELOG has to say so.

use ctxtune_engine::split::rank;

use crate::support::{Dir, Outcome, Tree, assert_same_tree, python, record, repository};

/// The files below a directory of the repository.
fn repository_tree(name: &str) -> Tree {
    let root = repository(name);
    let below = |entry: walkdir::DirEntry| {
        let path = entry.path().strip_prefix(&root).unwrap();
        let names: Vec<_> = path.iter().map(|name| name.to_str().unwrap()).collect();
        (names.join("/"), std::fs::read(entry.path()).unwrap())
    };
    let entries = walkdir::WalkDir::new(&root).into_iter().map(Result::unwrap);
    let mut files: Tree = entries.filter(|entry| entry.file_type().is_file()).map(below).collect();
    files.sort();
    files
}

/// Prepares the example records in `fixtures/{corpus}` with `options` and holds the result against `fixtures/golden/{name}`.
#[expect(clippy::disallowed_methods, reason = "whoever blesses says so in the environment")]
fn check_golden(name: &str, corpus: &str, options: &[&str]) {
    let dir = Dir::new();
    dir.plant("corpus", &repository_tree(&format!("fixtures/{corpus}")));
    dir.prepare(options).expect(0);
    let golden = repository("fixtures/golden").join(name);
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        let _ = std::fs::remove_dir_all(&golden);
        dir.plant(golden.to_str().unwrap(), &dir.tree("out"));
    }
    let expected = repository_tree(&format!("fixtures/golden/{name}"));
    assert_same_tree(&dir.tree("out"), &expected, "BLESS=1 accepts the change");
}

#[test]
fn the_default_result_is_the_golden_one() {
    check_golden("default", "contexts", &[]);
}

#[test]
fn the_grouped_and_sharded_result_is_the_golden_one() {
    let template = repository("fixtures/templates/list-indent2.yaml");
    let template = template.to_str().unwrap();
    check_golden(
        "grouped-sharded",
        "contexts",
        &["--group-by", "agents", "--shard-records", "5", "--template", template],
    );
}

#[test]
fn a_pilot_with_general_lines_is_the_golden_one() {
    let general = repository("fixtures/chat/general.jsonl");
    let mix = format!("{}=25%", general.display());
    check_golden("pilot-mixed", "contexts", &["--limit", "8", "--mix", &mix, "--max-rejects", "1"]);
}

#[test]
fn chat_lines_in_groups_are_the_golden_ones() {
    let options =
        ["--chat", "--containers", "--group-by", "topic", "--val-ratio", "0.3", "--max-rejects", "1"];
    check_golden("chat-grouped", "chat", &options);
}

/// Some hundred records, every seventh of them bad, written in the order of `numbers`.
fn mixed_corpus(dir: &Dir, numbers: impl Iterator<Item = usize>) {
    for number in numbers {
        let content = if number % 7 == 3 { "{".to_owned() } else { record(number).to_string() };
        dir.write(format!("corpus/{}/{number}.json", number % 3), content);
    }
}

/// Enough for several batches on either side.
const RECORDS: usize = 700;

const OPTIONS: &[&[&str]] = &[
    &["--val-ratio", "0.4"],
    &["--val-ratio", "0.4", "--shard-records", "50"],
    &["--val-ratio", "0.4", "--group-by", "agents"],
];

/// What `options` make of the corpus.
fn result(dir: &Dir, options: &[&str], more: &[&str]) -> Tree {
    let _ = std::fs::remove_dir_all(dir.path("out"));
    dir.prepare(&[options, more, &["--max-rejects", "20%"]].concat()).expect(0);
    dir.tree("out")
}

#[test]
fn threads_change_no_byte() {
    let dir = Dir::new();
    mixed_corpus(&dir, 0..RECORDS);
    for options in OPTIONS {
        let expected = result(&dir, options, &["--threads", "1"]);
        for threads in ["2", "3", "8"] {
            let found = result(&dir, options, &["--threads", threads]);
            assert_same_tree(&found, &expected, &format!("{threads} threads, {options:?}"));
        }
    }
}

#[test]
fn neither_the_order_of_creation_nor_the_place_changes_a_byte() {
    let (dir, elsewhere) = (Dir::new(), Dir::new());
    mixed_corpus(&dir, 0..RECORDS);
    // 701 is prime: its steps meet every number once, far from in order.
    mixed_corpus(&elsewhere, (1..=RECORDS).map(|step| step * 367 % 701 - 1));
    assert!(elsewhere.tree("corpus") == dir.tree("corpus"));
    for options in OPTIONS {
        let expected = result(&dir, options, &[]);
        assert_same_tree(&result(&elsewhere, options, &[]), &expected, "another place");
    }
    let (corpus, out) = (elsewhere.path("corpus"), elsewhere.path("absolute/out"));
    let arguments = ["prepare", "--output-dir", out.to_str().unwrap(), "--max-rejects", "20%"];
    dir.ctxtune(arguments.iter().chain(OPTIONS[0]).copied().chain([corpus.to_str().unwrap()])).expect(0);
    assert_same_tree(&elsewhere.tree("absolute/out"), &result(&dir, OPTIONS[0], &[]), "absolute paths");
}

#[test]
fn a_rejected_record_leaves_no_trace_in_the_examples() {
    let (dir, clean) = (Dir::new(), Dir::new());
    mixed_corpus(&dir, 0..RECORDS);
    mixed_corpus(&clean, (0..RECORDS).filter(|number| number % 7 != 3));
    let examples = |mut tree: Tree| {
        tree.retain(|(name, _)| name == "keys.tsv" || name.starts_with("train") || name.starts_with("val"));
        tree
    };
    for options in OPTIONS {
        let found = examples(result(&dir, options, &[]));
        assert!(found.len() >= 3);
        assert_same_tree(&found, &examples(result(&clean, options, &[])), &format!("{options:?}"));
    }
    // There were rejects among the ranks of either side.
    result(&dir, OPTIONS[0], &[]);
    let cut = rank(42, dir.keys("train").last().unwrap().as_bytes());
    let rejects = dir.json_lines("out/rejects.jsonl");
    let below =
        rejects.iter().filter(|line| rank(42, line["key"].as_str().unwrap().as_bytes()) < cut).count();
    assert!(below > 10 && rejects.len() - below > 10, "{below} of {}", rejects.len());
}

#[test]
fn the_split_follows_from_its_definition_alone() {
    let dir = Dir::new();
    mixed_corpus(&dir, 0..100);
    let mut wrong = record(0);
    wrong["is_correct"] = false.into();
    dir.write("corpus/wrong.json", wrong.to_string());
    for hidden in [".git/0.json", "._wrong.json", "__MACOSX/0.json", "sub/.hidden.json"] {
        dir.write(format!("corpus/{hidden}"), record(0).to_string());
    }
    for options in [
        &[][..],
        &["--seed", "18446744073709551615", "--val-ratio", "0.25"],
        &["--group-by", "agents", "--val-ratio", "0.4"],
        &["--group-by", "story", "--only-correct"],
        &["--group-by", "answer", "--val-ratio", "0"],
        &["--group-by", "agents", "--val-ratio", "0.4", "--limit", "11"],
    ] {
        let Some(mut python) = python() else { return };
        result(&dir, options, &[]);
        python.arg(repository("scripts/split.py")).arg("corpus").args(options);
        python.args(["--rejects", "out/rejects.jsonl"]).current_dir(dir.path(""));
        let rows = dir.key_rows().into_iter().map(|row| format!("{}\t\"{}\"\n", row.side, row.key));
        assert_eq!(Outcome::of(python).expect(0).stdout, rows.collect::<String>(), "{options:?}");
    }
}

#[test]
fn an_output_inside_the_corpus_is_never_read() {
    let dir = Dir::new();
    dir.corpus(30);
    let expected = result(&dir, &[], &[]);
    for _ in 0..2 {
        // Its manifest ends in `.json` too.
        dir.ctxtune(["prepare", "corpus", "-o", "corpus/inside", "--no-sync"]).expect(0);
        assert_same_tree(&dir.tree("corpus/inside"), &expected, "inside");
    }
    let again = dir.ctxtune(["prepare", "corpus", "-o", "./corpus/../corpus/inside/", "--json"]).expect(0);
    assert_eq!(again.json()["published"], "unchanged");
}

#[test]
fn shards_joined_are_the_unsharded_file() {
    let dir = Dir::new();
    dir.corpus(100);
    let whole = result(&dir, &["--val-ratio", "0.3"], &[]);
    let content = |tree: &Tree, side: &str| -> Vec<u8> {
        tree.iter().filter(|(name, _)| name.starts_with(side)).flat_map(|(_, bytes)| bytes.clone()).collect()
    };
    for (records, train, val) in [("1", 70, 30), ("7", 10, 5), ("64", 2, 1), ("70", 1, 1), ("1000", 1, 1)] {
        let sharded = result(&dir, &["--val-ratio", "0.3", "--shard-records", records], &[]);
        let count = |side: &str| sharded.iter().filter(|(name, _)| name.starts_with(side)).count();
        assert_eq!((count("train-"), count("val-")), (train, val), "{records} a shard");
        for side in ["train", "val"] {
            assert!(content(&sharded, side) == content(&whole, side), "{side}, {records} a shard");
        }
    }
}
