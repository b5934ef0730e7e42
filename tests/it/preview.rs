//! `ctxtune preview` as a user runs it.

use serde_json::{Value, json};

use crate::support::{Dir, Outcome, Rehearsal};

fn prepared() -> Dir {
    let dir = Dir::new();
    dir.corpus(12);
    dir.ctxtune(["prepare", "corpus", "-o", "out", "--no-sync", "--val-ratio=0.25"]).expect(0);
    dir
}

fn samples(dir: &Dir, flags: &[&str]) -> Vec<Value> {
    let arguments = [&["preview", "out", "--json"], flags].concat();
    dir.ctxtune(arguments).expect(0).json()["samples"].as_array().unwrap().clone()
}

/// The spans of a sample for which `member` is true, as one text.
fn text(sample: &Value, member: &str) -> String {
    let messages = sample["messages"].as_array().unwrap().iter();
    let spans = messages.flat_map(|message| message["spans"].as_array().unwrap());
    spans.filter(|span| span[member] == true).map(|span| span["text"].as_str().unwrap()).collect()
}

#[test]
fn what_is_trained_is_the_assistants_text_with_its_end() {
    let dir = prepared();
    let line: Value = serde_json::from_str(dir.read("out/train.jsonl").lines().next().unwrap()).unwrap();
    let sample = &samples(&dir, &[])[0];
    let answer = line["messages"][2]["content"].as_str().unwrap();
    assert_eq!(text(sample, "is_trained"), format!("{answer}<|eot_id|>"));
    assert_eq!((&sample["line"], &sample["key"]), (&json!(1), &json!(dir.keys("train")[0])));
    let tokens =
        sample["messages"].as_array().unwrap().iter().map(|message| message["tokens"].as_u64().unwrap());
    assert_eq!(json!(tokens.sum::<u64>()), sample["tokens"]["high"]);
    assert_eq!(sample["is_truncated"], false);
}

#[test]
fn the_longest_samples_are_those_of_the_most_tokens_in_check() {
    let dir = prepared();
    let longest = samples(&dir, &["--longest", "-n", "3"]);
    let tokens: Vec<u64> = longest.iter().map(|sample| sample["tokens"]["high"].as_u64().unwrap()).collect();
    assert!(tokens.len() == 3 && tokens.is_sorted_by(|one, other| one >= other), "{tokens:?}");
    let check = dir.ctxtune(["check", "out/train.jsonl", "--json"]).expect(0).json();
    assert_eq!(check["estimated_tokens"]["max"][1], json!(tokens[0]));
}

#[test]
fn a_record_is_found_by_its_key_on_its_side() {
    let dir = prepared();
    let key = &dir.keys("val")[1];
    let found = samples(&dir, &["--split=validation", "--key", key]);
    assert_eq!((found.len(), &found[0]["key"], &found[0]["line"]), (1, &json!(key), &json!(2)));
    let missing = dir.ctxtune(["preview", "out", "--key", key]).expect(2);
    assert!(missing.stderr.contains("has no record"), "{}", missing.stderr);
    dir.ctxtune(["preview", "out/train.jsonl", "--key", key]).expect(2);
}

#[test]
fn brackets_stand_for_colours_and_what_is_cut_is_marked() {
    let dir = prepared();
    let run: Outcome = dir.ctxtune(["preview", "out", "--max-tokens=210"]).expect(0);
    for expected in ["<|begin_of_text|>", "[+", "[-", "-]", ", cut\n", "-- assistant, "] {
        assert!(run.stdout.contains(expected), "{expected}: {}", run.stdout);
    }
    assert!(!run.stdout.contains('\u{1b}'), "{}", run.stdout);
    assert!(
        run.stderr.contains("[+ trained +]") && run.stderr.contains("beyond 210 tokens"),
        "{}",
        run.stderr
    );
    let cut = &samples(&dir, &["--max-tokens=210"])[0];
    assert!(cut["is_truncated"] == true && !text(cut, "is_beyond").is_empty());
}

#[test]
fn a_sample_that_is_no_json_is_named_with_its_line() {
    let dir = Dir::new();
    dir.write("a.jsonl", "\n{\"messages\": \n");
    let run = dir.ctxtune(["preview", "a.jsonl"]).expect(3);
    assert!(run.stderr.contains("`a.jsonl`: line 2: "), "{}", run.stderr);
    dir.write("b.jsonl", "{\"input\": 1}\n");
    dir.ctxtune(["preview", "b.jsonl"]).expect(3);
    dir.ctxtune(["preview", "none.jsonl"]).expect(1);
}

#[test]
fn the_service_is_asked_about_what_was_uploaded() {
    let rehearsal = Rehearsal::new();
    let dir = &rehearsal.dir;
    dir.corpus(12);
    dir.prepare(&[]).expect(0);
    let preview = ["preview", "out", "-n", "2", "--service", "--json"];
    let early = rehearsal.ctxtune(preview).expect(2);
    assert!(early.stderr.contains("hint: upload it first"), "{}", early.stderr);
    rehearsal.ctxtune(["upload", "out"]).expect(0);
    let run = rehearsal.ctxtune(preview).expect(0).json();
    let service = run["service"].as_array().unwrap();
    assert_eq!(service.len(), 2);
    // A word is a token there, so that numbers differ; what is trained does not.
    let differences = service[0]["differences"].to_string();
    assert!(differences.contains("tokens: ") && !differences.contains("trained text"), "{differences}");
    rehearsal.ctxtune(["preview", "out", "--service", "--split=validation"]).expect(2);
}
