//! `--mix`: general chat lines among the training lines, chosen and placed by rank.

use ctxtune_engine::split::rank;
use serde_json::json;

use crate::support::{Dir, assert_same_tree};

/// A chat line that says which one it is.
fn general(name: &str, number: usize) -> String {
    json!({ "messages": [
        { "role": "user", "content": format!("{name} {number}?") },
        { "role": "assistant", "content": format!("{name} {number}.") },
    ] })
    .to_string()
}

fn with_general(records: usize, lines: usize) -> Dir {
    let dir = Dir::new();
    dir.corpus(records);
    let text: Vec<String> = (0..lines).map(|number| general("general", number)).collect();
    dir.write("general.jsonl", text.join("\n"));
    dir
}

/// The keys of the usable lines of `general.jsonl` by rank.
fn ranked(lines: impl Iterator<Item = usize>) -> Vec<String> {
    let mut keys: Vec<String> = lines.map(|number| format!("mix/general.jsonl/#{number}")).collect();
    keys.sort_by_key(|key| rank(42, key.as_bytes()));
    keys
}

#[test]
fn lines_are_chosen_and_placed_by_rank_and_nothing_else_moves() {
    let dir = with_general(100, 60);
    for way in [&[][..], &["--group-by", "agents"], &["--limit", "40"], &["--shard-records", "16"]] {
        dir.prepare(way).expect(0);
        let records = dir.keys("train");
        let validation: Vec<(String, Vec<u8>)> =
            dir.tree("out").into_iter().filter(|(name, _)| name.starts_with("val")).collect();
        let val_keys = dir.keys("val");
        let run = dir.prepare(&[way, &["--mix", "general.jsonl=10%"]].concat()).expect(0);
        assert!(dir.result("out", &[]).is_some());
        dir.ctxtune(["check", "out"]).expect(0);
        let all = dir.keys("train");
        let (mixed, others): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|key| key.starts_with("mix/"));
        // floor(0.1 · floor(records / 0.9))
        let count = records.len() * 10 / 9 / 10;
        assert_eq!(others, records, "{way:?}");
        assert_eq!(mixed, ranked(0..60)[..count], "{way:?}");
        let mut places: Vec<usize> = (0..all.len()).collect();
        places.sort_by_key(|place| rank(42, format!("mix@{place}").as_bytes()));
        let mut places = places[..count].to_vec();
        places.sort_unstable();
        let found: Vec<usize> = (0..all.len()).filter(|place| all[*place].starts_with("mix/")).collect();
        assert_eq!(found, places, "{way:?}");
        for key in &mixed {
            let number: usize = key.rsplit('#').next().unwrap().parse().unwrap();
            assert_eq!(dir.texts(key), [format!("general {number}?"), format!("general {number}.")]);
        }
        assert_eq!(dir.texts(&records[0])[2][..1], *"{", "a record's answer is where its key says");
        let same: Vec<(String, Vec<u8>)> =
            dir.tree("out").into_iter().filter(|(name, _)| name.starts_with("val")).collect();
        assert_same_tree(&same, &validation, "validation");
        assert_eq!(dir.keys("val"), val_keys);
        let said = &dir.manifest()["mix"][0];
        assert_eq!((&said["file"], &said["asked"]), (&json!("general.jsonl"), &json!("10%")));
        assert_eq!((&said["records"], &said["listed"]), (&json!(count), &json!(60)));
        assert!(run.stderr.contains(&format!("+ {count} mixed in + ")), "{}", run.stderr);
        assert!(
            dir.read("out/README.md").contains(&format!("{count} of the training lines are general chat"))
        );
    }
}

#[test]
fn threads_change_no_byte_and_rejects_are_passed_over_and_named() {
    let dir = Dir::new();
    dir.corpus(60);
    let line =
        |number: usize| if number.is_multiple_of(9) { "{}".to_owned() } else { general("general", number) };
    dir.write("general.jsonl", (0..400).map(line).collect::<Vec<_>>().join("\n"));
    let mix = ["--mix", "general.jsonl=200", "--max-rejects", "10%"];
    let result = |threads: &str| {
        dir.prepare(&[&mix[..], &["--threads", threads]].concat()).expect(0);
        dir.tree("out")
    };
    let expected = result("1");
    for threads in ["2", "5"] {
        assert_same_tree(&result(threads), &expected, threads);
    }
    let order = ranked(0..400);
    let is_bad = |key: &&String| key.rsplit('#').next().unwrap().parse::<usize>().unwrap() % 9 == 0;
    let usable: Vec<&String> = order.iter().filter(|key| !is_bad(key)).take(200).collect();
    let last = order.iter().position(|key| key == usable[199]).unwrap();
    let passed: Vec<&String> = order[..last].iter().filter(is_bad).collect();
    let mixed: Vec<String> = dir.keys("train").into_iter().filter(|key| key.starts_with("mix/")).collect();
    assert!(mixed.iter().eq(usable));
    let rejects = dir.json_lines("out/rejects.jsonl");
    assert!(rejects.iter().map(|reject| reject["key"].as_str().unwrap()).eq(passed.iter().copied()));
    let manifest = dir.manifest();
    assert_eq!(manifest["mix"][0]["rejected"], passed.len());
    assert_eq!(manifest["counts"]["rejected"], 0, "of the records none is rejected");
    let run = dir.prepare(&["--mix", "general.jsonl=200"]).expect(3);
    assert!(
        run.stderr.contains("lines are rejected, and the limit is 5%: mix/general.jsonl/#"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_compressed_file_is_mixed_in_as_its_plain_lines_are() {
    let dir = with_general(60, 60);
    dir.prepare(&["--mix", "general.jsonl=20"]).expect(0);
    let plain = dir.tree("out");
    let packed = zstd::encode_all(dir.read("general.jsonl").as_bytes(), 1).unwrap();
    dir.write("general.jsonl.zst", packed);
    dir.prepare(&["--mix", "general.jsonl.zst=20"]).expect(0);
    assert_same_tree(&dir.tree("out"), &plain, "packed");
}

#[test]
fn several_files_are_mixed_in_and_too_few_lines_are_an_error() {
    let dir = with_general(60, 30);
    dir.write("b/general.jsonl", (0..30).map(|number| general("b", number)).collect::<Vec<_>>().join("\n"));
    let run = dir.prepare(&["--mix", "general.jsonl=6", "--mix", "b/general.jsonl=20%", "--json"]).expect(0);
    // 54 records and 6 lines are 80 % of 75.
    assert_eq!(run.json()["mix"][1]["records"], 15);
    assert_eq!(run.json()["split"]["train"], 75);
    assert_eq!(dir.keys("train").iter().filter(|key| key.starts_with("mix/b/general.jsonl/#")).count(), 15);
    let run = dir.prepare(&["--mix", "general.jsonl=31"]).expect(3);
    assert!(run.stderr.contains("30 of its 30 lines are usable, and 31 are asked for"), "{}", run.stderr);
    let run = dir.prepare(&["--mix", "general.jsonl=99.99999999999999999%"]).expect(2);
    assert!(run.stderr.contains("expected a number of lines"), "{}", run.stderr);
    let run = dir.prepare(&["--mix", "general.jsonl=99.9999999999999%"]).expect(3);
    assert!(run.stderr.contains("30 of its 30 lines are usable"), "{}", run.stderr);
    for (mix, said) in [
        ("general.jsonl", "expected FILE=COUNT"),
        ("general.jsonl=x", "expected a number of lines"),
        ("general.jsonl=100%", "less than 100 %"),
        ("none.jsonl=5", "expected a .jsonl file"),
        ("corpus=5", "expected a .jsonl file"),
    ] {
        let run = dir.prepare(&["--mix", mix]).expect(2);
        assert!(run.stderr.contains(said), "{mix}: {}", run.stderr);
    }
}

#[test]
fn a_report_counts_the_records_of_a_pilot_without_what_is_mixed_in() {
    let dir = with_general(100, 60);
    dir.prepare(&["--limit", "40", "--mix", "general.jsonl=10"]).expect(0);
    dir.ctxtune(["report", "out", "-o", "r.html"]).expect(0);
    let report = dir.read("r.html");
    assert!(report.contains("--limit leaves the first 40 of 90 training records"), "{report}");
}

#[test]
fn a_dry_run_shows_the_lines_that_would_be_written() {
    let dir = with_general(40, 30);
    let mix = ["--mix", "general.jsonl=40%", "--show", "20"];
    let dry = dir.prepare(&[&mix[..], &["--dry-run"]].concat()).expect(0).stderr;
    assert!(!dir.exists("out"));
    dir.prepare(&mix).expect(0);
    let mut shown = 0;
    for (index, key) in dir.keys("train").iter().enumerate() {
        if key.starts_with("mix/") {
            let [question, _] = &dir.texts(key)[..] else { panic!("a general line has two messages") };
            assert_eq!(dry.contains(question), index < 20, "{index}: {question}");
            shown += usize::from(index < 20);
        }
    }
    assert!((3..20).contains(&shown) && dry.matches(" of train").count() == 20, "{shown} {dry}");
}

#[test]
fn a_chat_corpus_is_mixed_with_others_and_what_they_ask_is_leakage_too() {
    let dir = Dir::new();
    let lines: Vec<String> = (0..40).map(|number| general("own", number)).collect();
    dir.write("own.jsonl", lines.join("\n"));
    dir.write("same.jsonl", lines.join("\n"));
    dir.chat_lines("other.jsonl", 10);
    dir.write(
        "c.yaml",
        "data_dir: own.jsonl\nchat: true\noutput_dir: out\nmix: same.jsonl=40,other.jsonl=3\nval_ratio: 0.25\n",
    );
    let run = dir.ctxtune(["prepare", "--config-path", "c.yaml"]).expect(0);
    assert_eq!(dir.manifest()["leakage"]["val_sharing_text"], 10);
    assert_eq!(dir.manifest()["train"]["records"], 73);
    // What is left out of a mixed line is said as of a record.
    assert_eq!(dir.manifest()["mix"][1]["warnings"], json!({ "other_columns": 3 }));
    assert!(
        run.stderr.contains("3 of 10 lines of other.jsonl in train (3 asked for), 3 other_columns"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("  mix/other.jsonl/#"), "{}", run.stderr);
}
