//! `ctxtune check OUT`: a prepared directory is what its manifest says, or it is told what is not.

use serde_json::Value;

use crate::support::Dir;

/// A directory with `out` prepared from 60 records, in shards of 25.
fn prepared() -> Dir {
    let dir = Dir::new();
    dir.corpus(60).ctxtune(["prepare", "corpus", "-o", "out", "--shard-records", "25"]).expect(0);
    dir
}

/// What is said of `out`: `file:line code key`.
fn said(dir: &Dir, code: i32) -> Vec<String> {
    let report = dir.ctxtune(["check", "out", "--json"]).expect(code).json();
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|found| {
            let text = |field: &str| found[field].as_str().unwrap_or("-").to_owned();
            let line = found["line"].as_u64().map_or("-".to_owned(), |line| line.to_string());
            format!("{}:{line} {} {}", text("file").replace('\\', "/"), text("code"), text("key"))
        })
        .collect()
}

/// The key of a line of a shard, from `keys.tsv`.
fn key_of(dir: &Dir, shard: &str, line: usize) -> String {
    let keys = dir.read("out/keys.tsv");
    let row =
        keys.lines().find(|row| row.split('\t').nth(1) == Some(&line.to_string()) && row.contains(shard));
    serde_json::from_str(row.unwrap().split('\t').nth(3).unwrap()).unwrap()
}

const FIRST: &str = "out/train-00000-of-00003.jsonl";

#[test]
fn a_fresh_result_is_clean() {
    let dir = prepared();
    let outcome = dir.ctxtune(["check", "out"]).expect(0);
    assert_eq!(outcome.stdout, "out\n");
    for line in ["structure    passed", "conversation passed", "messages 60", "assistant 60", "0 samples"] {
        assert!(outcome.stderr.contains(line), "{line}: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("warning"), "{}", outcome.stderr);
    let report = dir.ctxtune(["check", "out", "--json"]).expect(0).json();
    assert_eq!((report["files"].as_array().unwrap().len(), &report["samples"]), (4, &60.into()));
    // The longest samples are named by the records they came from.
    for long in report["longest"].as_array().unwrap() {
        let shard = long["file"]
            .as_str()
            .unwrap()
            .trim_start_matches("out")
            .trim_start_matches(['/', '\\'])
            .to_owned();
        assert_eq!(long["key"], key_of(&dir, &shard, long["line"].as_u64().unwrap() as usize));
    }
}

#[test]
fn a_result_without_shards_or_validation_is_clean() {
    let dir = Dir::new();
    dir.corpus(9).ctxtune(["prepare", "corpus", "-o", "out", "--val-ratio", "0"]).expect(0);
    assert_eq!(said(&dir, 0), Vec::<String>::new());
}

#[test]
fn a_damaged_shard_is_found_with_the_record_of_each_line() {
    let dir = prepared();
    let shard = dir.read(FIRST);
    let lines: Vec<&str> = shard.lines().collect();
    let damaged = shard.replacen(lines[6], &lines[6].replacen("\"user\"", "\"uzer\"", 1), 1);
    dir.write(FIRST, damaged);
    let key = key_of(&dir, "train-00000", 7);
    assert_eq!(said(&dir, 3), [format!("{FIRST}:- changed_file -"), format!("{FIRST}:7 role {key}")]);
    let outcome = dir.ctxtune(["check", "out"]).expect(3);
    assert!(outcome.stderr.contains(&format!("(record \"{key}\")")), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("prepare the directory again"), "{}", outcome.stderr);
}

#[test]
fn a_shard_with_a_line_more_is_not_mapped() {
    let dir = prepared();
    let shard = dir.read(FIRST);
    dir.write(FIRST, format!("{{\"text\": \n{shard}"));
    let expected = ["- record_count -", "- changed_file -", "1 json_syntax -"];
    assert_eq!(said(&dir, 3), expected.map(|said| format!("{FIRST}:{said}")));
}

#[test]
fn a_missing_shard_is_found() {
    let dir = prepared();
    std::fs::remove_file(dir.path(FIRST)).unwrap();
    assert_eq!(said(&dir, 3), [format!("{FIRST}:- missing_file -")]);
    std::fs::remove_file(dir.path("out/keys.tsv")).unwrap();
    assert_eq!(
        said(&dir, 3),
        [format!("{FIRST}:- missing_file -"), "out/keys.tsv:- missing_file -".to_owned()]
    );
}

#[test]
fn a_changed_file_beside_the_shards_is_found_and_the_readme_is_the_users() {
    let dir = prepared();
    dir.write("out/README.md", "mine");
    assert_eq!(said(&dir, 0), Vec::<String>::new());
    dir.write("out/rejects.jsonl", "{}\n");
    assert_eq!(said(&dir, 3), ["out/rejects.jsonl:- changed_file -"]);
}

#[cfg(target_os = "linux")]
#[test]
fn keys_that_are_not_utf8_and_rows_that_are_damaged_are_borne() {
    use std::os::unix::ffi::OsStringExt;
    let dir = Dir::new();
    let name = std::ffi::OsString::from_vec(b"corpus/caf\xe9.json".to_vec());
    dir.write(name, crate::support::record(1).to_string());
    dir.ctxtune(["prepare", "corpus", "-o", "out", "--val-ratio", "0"]).expect(0);
    let report = dir.ctxtune(["check", "out", "--json"]).expect(0).json();
    assert_eq!(report["longest"][0]["key"], "caf\\xe9.json");
    for key in ["\"a\\", "\"\\é\"", "a", "", "[1]"] {
        dir.write("out/keys.tsv", format!("split\tline\tshard\tkey\ntrain\t1\ttrain.jsonl\t{key}\n"));
        let report = dir.ctxtune(["check", "out", "--json"]).expect(3).json();
        assert_eq!(report["longest"][0]["key"], Value::Null, "{key}");
    }
}

#[test]
fn an_edited_manifest_is_found() {
    let dir = prepared();
    let original: Value = serde_json::from_str(&dir.read("out/manifest.json")).unwrap();
    let check = |edit: &dyn Fn(&mut Value), expected: &[&str]| {
        let mut manifest = original.clone();
        edit(&mut manifest);
        dir.write("out/manifest.json", manifest.to_string());
        assert_eq!(said(&dir, 3), expected);
    };
    let sum = "out/manifest.json:- manifest_sum -";
    let changed = format!("{FIRST}:- changed_file -");
    check(&|manifest| manifest["train"]["sha256"] = "0".repeat(64).into(), &[sum]);
    check(&|manifest| manifest["train"]["shards"][0]["sha256"] = "0".repeat(64).into(), &[sum, &changed]);
    check(&|manifest| manifest["train"]["bytes"] = 1.into(), &[sum]);
    check(&|manifest| manifest["counts"]["accepted"] = 61.into(), &[sum]);
    let counted = format!("{FIRST}:- record_count -");
    check(&|manifest| manifest["train"]["shards"][0]["records"] = 24.into(), &[sum, &counted]);
    check(&|manifest| manifest["train"]["shards"][0]["bytes"] = 1.into(), &[sum, &changed]);
    let renamed = "out/train.jsonl:- missing_file -";
    check(&|manifest| manifest["train"]["shards"][0]["file"] = "train.jsonl".into(), &[renamed]);
}

#[test]
fn what_is_no_manifest_is_refused() {
    let dir = prepared();
    dir.write("out/manifest.json", "{\"schema\": \"another/1\"}");
    let outcome = dir.ctxtune(["check", "out", "--json"]).expect(3);
    assert_eq!(outcome.json()["error"]["code"], "foreign_manifest");
}
