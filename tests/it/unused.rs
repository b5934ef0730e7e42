//! Values that nobody uses, through the program: they reject no record and change no byte.

use serde_json::{Value, json};

use crate::support::{Dir, record};

/// What only Python's `json` reads.
const ODD: [&str; 6] = [
    "NaN",
    "-Infinity",
    "[1e999, {\"a\": Infinity}]",
    "12345678901234567890123",
    r#""\ud83d x""#,
    "-0.5E-999",
];

/// The record `number` with `value` under `key` in each object whose keys have a meaning.
fn with(number: usize, key: &str, value: &str) -> String {
    let mut record = record(number);
    let marker = json!("the value");
    record[key] = marker.clone();
    record["socialized_context"][key] = marker.clone();
    record["socialized_context"]["socialized_context"][0][key] = marker;
    record.to_string().replace("\"the value\"", value)
}

#[test]
fn unused_values_reject_nothing_and_change_no_byte() {
    let plain = Dir::new();
    plain.corpus(ODD.len()).prepare(&[]).expect(0);
    let dir = Dir::new();
    for (number, value) in ODD.iter().enumerate() {
        dir.write(format!("corpus/{number}.json"), with(number, "logprobs", value));
    }
    for flags in [&[][..], &["--group-by", "story"]] {
        dir.prepare(flags).expect(0);
        plain.prepare(flags).expect(0);
        for file in ["train.jsonl", "val.jsonl", "keys.tsv", "rejects.jsonl"] {
            assert_eq!(dir.read(format!("out/{file}")), plain.read(format!("out/{file}")), "{file}");
        }
    }
}

#[test]
fn a_value_that_the_split_uses_rejects() {
    let dir = Dir::new();
    let codes = ["non_finite", "non_finite", "non_finite", "number_range", "lone_surrogate", "group_field"];
    for (number, value) in ODD.iter().enumerate() {
        dir.write(format!("corpus/{number}.json"), with(number, "source", value));
        dir.write(format!("corpus/{number}0.json"), with(number, "source", &format!("\"{number}\"")));
    }
    dir.prepare(&["--group-by", "source", "--max-rejects", "50%"]).expect(0);
    let rejects = dir.json_lines("out/rejects.jsonl");
    assert_eq!(rejects.len(), codes.len());
    for reject in &rejects {
        let number: usize = reject["key"].as_str().unwrap().trim_end_matches(".json").parse().unwrap();
        assert_eq!(reject["code"], codes[number], "{reject}");
    }
}

#[test]
fn the_words_are_those_of_check() {
    let dir = Dir::new();
    let texts = [(r#""\ud800""#, "lone_surrogate"), ("NaN", "non_finite")];
    dir.corpus(2);
    let mut lines = String::new();
    for (value, code) in texts {
        let record = record(0).to_string().replace("\"answer\":\"here\"", &format!("\"answer\":{value}"));
        assert!(record.contains(value));
        dir.write(format!("corpus/{code}.json"), record);
        lines.push_str(&format!("{{\"text\":\"a\",\"x\":{value}}}\n"));
    }
    dir.write("lines.jsonl", lines);
    dir.prepare(&["--max-rejects", "100%"]).expect(0);
    let document = dir.ctxtune(["check", "lines.jsonl", "--json"]).expect(3).json();
    let said = |of: &[Value], code: &str, field: &str| {
        of.iter().find(|one| one["code"] == code).unwrap()[field].as_str().unwrap().to_owned()
    };
    let findings = document["findings"].as_array().unwrap();
    for (_, code) in texts {
        let reason = said(&dir.json_lines("out/rejects.jsonl"), code, "reason");
        let message = said(findings, code, "message");
        assert!(message.starts_with(&format!("{reason}, at byte ")), "{message}");
    }
}

#[test]
fn score_reads_the_same_records() {
    let dir = Dir::new();
    for (number, value) in ODD.iter().enumerate() {
        dir.write(format!("gold/{number}.json"), with(number, "logprobs", value));
        dir.write(format!("generated/{number}.json"), with(number, "agents", value));
    }
    // A context that stands alone, and one whose story nobody asks for.
    let bare = |number| record(number)["socialized_context"].to_string();
    dir.write("gold/bare.json", bare(0).replacen('{', "{\"x\":NaN,", 1));
    dir.write("generated/bare.json", bare(0));
    dir.write("gold/story.json", record(1).to_string().replacen("\"story\":", "\"story\":NaN,\"s\":", 1));
    dir.write("generated/story.json", record(1).to_string());
    let document = dir.ctxtune(["score", "gold", "generated", "--json"]).expect(0).json();
    let records = document["records"].as_array().unwrap();
    assert_eq!(records.len(), ODD.len() + 2);
    for record in records {
        assert_eq!(record["answers"][0]["status"], "valid", "{record}");
    }
    // What is used is refused.
    dir.write("generated/0.json", with(0, "state", "NaN"));
    let document = dir.ctxtune(["score", "gold", "generated", "--json"]).expect(0).json();
    let answer = &document["records"][0]["answers"][0];
    assert_eq!(answer["status"], "invalid", "{answer}");
    assert!(answer["reason"].as_str().unwrap().starts_with("non_finite: "), "{answer}");
}
