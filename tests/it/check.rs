//! `ctxtune check` as a user runs it: what it finds, where, and how it ends.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::support::{Dir, Outcome};

const GOOD: &str =
    r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;

/// A valid sample that is like no other.
fn sample(number: usize) -> String {
    GOOD.replace("\"a\"", &format!("\"question {number}\""))
}

/// The codes and lines of all findings of a run with `--json`.
fn found(outcome: &Outcome) -> Vec<(String, Option<u64>)> {
    let report = outcome.json();
    let findings = report["findings"].as_array().unwrap().iter();
    findings.map(|found| (found["code"].as_str().unwrap().to_owned(), found["line"].as_u64())).collect()
}

#[track_caller]
fn check(content: impl AsRef<[u8]>, expected: &[(&str, Option<u64>)]) {
    let dir = Dir::new();
    dir.write("a.jsonl", content);
    let outcome = dir.ctxtune(["check", "a.jsonl", "--json"]);
    let expected: Vec<_> = expected.iter().map(|(code, line)| ((*code).to_owned(), *line)).collect();
    assert_eq!(found(&outcome), expected, "{}", outcome.stdout);
}

/// Twelve faults among good samples, blank lines and foreign line ends: line, code, words.
const PLANTED: [(u64, &str, &str, &str); 12] = [
    (3, "json_syntax", r#"{"messages": [}"#, "at byte 15"),
    (5, "not_object", r#"["messages"]"#, "a list where an object is expected"),
    (6, "lone_surrogate", r#"{"text": "\ud800"}"#, "half of a character"),
    (8, "no_format", r#"{"question": "a"}"#, "`question`"),
    (9, "extra_column", r#"{"text": "a", "id": 7}"#, "`id`"),
    (
        11,
        "role",
        r#"{"messages": [{"role": "human", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
        "`human`",
    ),
    (
        12,
        "alternation",
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
        "messages[1]",
    ),
    (14, "no_assistant", r#"{"messages": [{"role": "user", "content": "a"}]}"#, "the assistant"),
    (
        15,
        "content",
        r#"{"messages": [{"role": "user", "content": 7}, {"role": "assistant", "content": "b"}]}"#,
        "a number",
    ),
    (
        16,
        "weight",
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 2}]}"#,
        "0 nor 1",
    ),
    (
        18,
        "image",
        r#"{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}, {"role": "assistant", "content": [{"type": "text", "text": "b"}]}]}"#,
        "https://example.org",
    ),
    (20, "encoding", "{\"text\": \"caf\u{e9}\"}", "0xe9"),
];

fn planted() -> Vec<u8> {
    let mut content = Vec::new();
    for line in 1..=21 {
        match PLANTED.iter().find(|(planted, ..)| *planted == line) {
            // As Latin-1, in which the last fault is not UTF-8.
            Some((_, _, fault, _)) => content.extend(fault.chars().map(|character| character as u8)),
            None if line == 7 => content.extend("\u{3000} \t".bytes()),
            None if line == 13 => {}
            None => content.extend(sample(line as usize).bytes()),
        }
        content.extend_from_slice(if line % 3 == 0 { b"\r\n" } else { b"\n" });
    }
    content
}

#[test]
fn twelve_planted_faults_are_named_with_their_lines() {
    let dir = Dir::new();
    dir.write("planted.jsonl", planted());
    let outcome = dir.ctxtune(["check", "planted.jsonl"]).expect(3);
    assert_eq!(outcome.stdout, "");
    for (line, code, _, words) in PLANTED {
        let place = format!("planted.jsonl:{line}: {code}: ");
        let said = outcome.stderr.lines().find(|said| said.starts_with(&place));
        let said = said.unwrap_or_else(|| panic!("{place} is not in {}", outcome.stderr));
        assert!(said.contains(words), "{said}");
    }

    let outcome = dir.ctxtune(["check", "planted.jsonl", "--json"]).expect(3);
    let report = outcome.json();
    // The samples of other formats are found to be that, too.
    let findings = report["findings"].as_array().unwrap().iter();
    let errors: Vec<(u64, &str)> = findings
        .filter(|found| found["code"] != "mixed_formats" && found["level"] == "error")
        .map(|found| (found["line"].as_u64().unwrap(), found["code"].as_str().unwrap()))
        .collect();
    let expected: Vec<(u64, &str)> = PLANTED.iter().map(|(line, code, ..)| (*line, *code)).collect();
    assert_eq!(errors, expected);
    assert_eq!(report["counts"]["mixed_formats"]["count"], 2);
    assert_eq!(report["files"][0]["lines"], 21);
    assert_eq!(report["files"][0]["blank_lines"], 2);
    assert_eq!(report["error"]["code"], "check_failed");
}

#[test]
fn the_same_is_found_on_any_number_of_threads_and_across_blocks() {
    let dir = Dir::new();
    let mut content = String::new();
    for line in 1..=40_000 {
        content.push_str(&if line % 9_000 == 0 {
            format!("{{\"text\": 1, \"weight\": {line}}}")
        } else {
            sample(line)
        });
        content.push('\n');
    }
    dir.write("a.jsonl", &content);
    let report = |threads: &str| {
        let mut report = dir.ctxtune(["check", "a.jsonl", "--json", "--threads", threads]).expect(3).json();
        report["seconds"].take();
        report
    };
    let single = report("1");
    let lines: Vec<_> =
        single["findings"].as_array().unwrap().iter().map(|found| found["line"].as_u64()).collect();
    let expected: Vec<_> = [9, 18, 27, 36].iter().flat_map(|line| [Some(line * 1000); 2]).collect();
    assert_eq!(lines, expected);
    assert_eq!(single["samples"], 40_000);
    assert_eq!(single, report("2"));
    assert_eq!(single, report("5"));
}

#[test]
fn a_file_has_one_format() {
    check(format!("{{\"text\": \"a\"}}\n{GOOD}\n\n{{\"text\": \"b\"}}\n"), &[("mixed_formats", Some(2))]);
    // A sample without a format does not decide.
    check(
        format!("{{\"x\": 1}}\n{GOOD}\n{{\"text\": \"b\"}}\n"),
        &[("no_format", Some(1)), ("mixed_formats", Some(3))],
    );
}

#[test]
fn what_python_takes_is_taken() {
    let deep = format!("{{\"text\": \"a\", \"weight\": {}}}", "9".repeat(400));
    check(&deep, &[]);
    check("{\"text\": \"a\", \"weight\": 1e999}", &[]);
    check(
        format!("{{\"text\": \"a\", \"x\": {}{}}}", "[".repeat(5000), "]".repeat(5000)),
        &[("extra_column", Some(1))],
    );
    check(format!("{{\"text\": \"a\", \"weight\": {}}}", "9".repeat(5000)), &[("number_range", Some(1))]);
    check(
        "{\"text\": \"\\ud800\", \"weight\": NaN}",
        &[("lone_surrogate", Some(1)), ("non_finite", Some(1)), ("weight", Some(1))],
    );
}

#[test]
fn files_that_are_none_are_said_to_be_so() {
    check("", &[("empty_file", None)]);
    check(" \n\u{2028}\n", &[("no_samples", None)]);
    let dir = Dir::new();
    dir.write("a.json", GOOD);
    assert_eq!(
        found(&dir.ctxtune(["check", "a.json", "--json"]).expect(3)),
        [("extension".to_owned(), None)]
    );
    let outcome = dir.ctxtune(["check", "nothing.jsonl", "--json"]).expect(2);
    assert_eq!(outcome.json()["error"]["code"], "no_file");
    std::fs::create_dir(dir.path("empty")).unwrap();
    let outcome = dir.ctxtune(["check", "empty", "--json"]).expect(2);
    assert_eq!(outcome.json()["error"]["code"], "not_prepared");
    dir.ctxtune(["check"]).expect(2);
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_opened() {
    let dir = Dir::new();
    let pipe = dir.path("a.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let outcome = dir.ctxtune(["check", "a.jsonl"]).expect(2);
    assert!(outcome.stderr.contains("a pipe, a device"), "{}", outcome.stderr);
}

#[cfg(unix)]
#[test]
fn the_sizes_of_uploads_are_known() {
    let dir = Dir::new();
    // Sparse: nothing of it is on the disk, and the first is not read.
    let file = std::fs::File::create(dir.path("a.jsonl")).unwrap();
    file.set_len(53_794_465_383).unwrap();
    assert_eq!(
        found(&dir.ctxtune(["check", "a.jsonl", "--json"]).expect(3)),
        [("file_too_large".to_owned(), None)]
    );
    let report = dir.ctxtune(["check", "a.jsonl", "--json"]).expect(3).json();
    assert_eq!(report["files"][0]["structure"]["is_check_passed"], false);
    assert_eq!(report["limits"]["single_upload_bytes"], 5_368_709_120_u64);
}

#[test]
fn duplicates_are_named_within_a_file_and_across_files() {
    let dir = Dir::new();
    let (one, two, three) = (sample(1), sample(2), sample(3));
    dir.write("a.jsonl", format!("{one}\n\n  {two}\n{one}\n{{\"x\n{{\"x\n"));
    dir.write("b.jsonl", format!("{three}\n{two}\n{one}\n"));
    let report = dir.ctxtune(["check", "a.jsonl", "b.jsonl", "--json"]).expect(3).json();
    let duplicates: Vec<String> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|found| found["code"] == "duplicate")
        .map(|found| {
            format!(
                "{}:{} {}",
                found["file"].as_str().unwrap(),
                found["line"],
                found["message"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        duplicates,
        [
            "a.jsonl:4 the same sample as line 1",
            "b.jsonl:2 the same sample as a.jsonl:3",
            "b.jsonl:3 the same sample as a.jsonl:1",
        ]
    );
    // They are no error.
    dir.write("c.jsonl", format!("{one}\n{one}\n"));
    let outcome = dir.ctxtune(["check", "c.jsonl"]).expect(0);
    assert!(outcome.stderr.contains("c.jsonl:2: duplicate: the same sample as line 1"), "{}", outcome.stderr);
}

#[test]
fn few_are_named_and_all_are_counted() {
    let dir = Dir::new();
    let mut content = String::new();
    for number in 0..8 {
        writeln!(content, "{{\"text\": {number}}}").unwrap();
        writeln!(content, "{{\"text\": \"the same\"}}").unwrap();
    }
    dir.write("a.jsonl", content);
    let outcome = dir.ctxtune(["check", "a.jsonl"]).expect(3);
    let named = |outcome: &Outcome, code: &str| {
        outcome.stderr.lines().filter(|line| line.contains(&format!(": {code}: "))).count()
    };
    assert_eq!((named(&outcome, "content"), named(&outcome, "duplicate")), (5, 5));
    assert!(outcome.stderr.contains("  and 3 more"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("  and 2 more"), "{}", outcome.stderr);
    let outcome = dir.ctxtune(["check", "a.jsonl", "-v"]).expect(3);
    assert_eq!((named(&outcome, "content"), named(&outcome, "duplicate")), (8, 7));
    let outcome = dir.ctxtune(["check", "a.jsonl", "-q"]).expect(3);
    assert_eq!(outcome.stderr.lines().count(), 2, "error and hint: {}", outcome.stderr);
    let outcome = dir.ctxtune(["check", "a.jsonl", "--json"]).expect(3);
    assert_eq!(found(&outcome).len(), 15);
    assert_eq!((named(&outcome, "content"), named(&outcome, "duplicate")), (5, 5));
    assert_eq!(
        outcome.json()["counts"]["content"],
        json!({ "stage": "conversation", "level": "error", "count": 8 })
    );
}

#[test]
fn every_bad_line_is_in_the_document() {
    let dir = Dir::new();
    dir.write("a.jsonl", "{]\n".repeat(300));
    let outcome = dir.ctxtune(["check", "a.jsonl", "--json"]).expect(3);
    let expected: Vec<_> = (1..=300).map(|line| ("json_syntax".to_owned(), Some(line))).collect();
    assert_eq!(found(&outcome), expected);
}

#[test]
fn stdout_is_the_paths_and_nothing_else() {
    let dir = Dir::new();
    dir.write("a.jsonl", sample(1));
    dir.write("b c.jsonl", sample(2));
    let outcome = dir.ctxtune(["check", "a.jsonl", "b c.jsonl"]).expect(0);
    assert_eq!(outcome.stdout, "a.jsonl\nb c.jsonl\n");
    assert!(outcome.stderr.contains("structure    passed"), "{}", outcome.stderr);
    let outcome = dir.ctxtune(["check", "a.jsonl", "-q"]).expect(0);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("a.jsonl\n", ""));
}

#[test]
fn the_document_has_its_fields() {
    let dir = Dir::new();
    dir.write("a.jsonl", format!("{GOOD}\n\n"));
    let mut report = dir.ctxtune(["check", "a.jsonl", "--json", "--max-tokens", "100"]).expect(0).json();
    assert!(report["seconds"].take().is_number());
    let length = GOOD.len();
    let quantiles = |value: Value| json!({ "min": value, "p10": value, "p50": value, "p90": value, "p95": value, "p99": value, "max": value, "mean": value });
    assert_eq!(
        report,
        json!({
            "schema": "ctxtune.cli/1",
            "command": "check",
            "ok": true,
            "exit": 0,
            "error": null,
            "paths": ["a.jsonl"],
            "files": [{
                "file": "a.jsonl",
                "bytes": length + 2,
                "lines": 2,
                "blank_lines": 1,
                "samples": 1,
                "structure": {
                    "is_check_passed": true,
                    "file_size": length + 2,
                    "utf8": true,
                    "load_json": true,
                    "line_type": true,
                    "has_min_samples": true,
                    "num_samples": 1,
                    "first_bad_line": null,
                },
                "conversation": { "is_check_passed": true },
                "formats": { "text": 0, "messages": 1, "prompt+completion": 0, "preference": 0 },
                "roles": { "system": 0, "user": 1, "assistant": 1, "tool": 0 },
            }],
            "samples": 1,
            "errors": 0,
            "warnings": 0,
            "counts": {},
            "findings": [],
            "length_bytes": quantiles(json!(length)),
            // Two texts of a token each, two messages, the beginning, and the dates with a message of their own.
            "token_method": "at_most",
            "estimated_tokens": quantiles(json!([7, 38])),
            "total_tokens": [7, 38],
            "about_samples": 0,
            "histogram": [{ "from": length, "to": length, "samples": 1 }],
            "token_histogram": [{ "from": 38, "to": 38, "samples": 1 }],
            "longest": [{ "file": "a.jsonl", "line": 1, "key": null, "bytes": length, "estimated_tokens": [7, 38] }],
            "limits": { "single_upload_bytes": 5_368_709_120_u64, "file_bytes": 53_794_465_382_u64, "max_tokens": 100 },
            "seconds": null,
        })
    );
}

/// A tokenizer without merges: every byte is a token.
const BYTES: &str = r#"{
    "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "use_regex": true },
    "model": { "type": "BPE", "vocab": {VOCAB}, "merges": [] }
}"#;

fn bytes_tokenizer() -> String {
    let seen = (0x21..=0x7e).chain(0xa1..=0xac).chain(0xae..=0xff);
    let written = seen.chain(0x100..=0x143).filter_map(char::from_u32).enumerate();
    let vocab: serde_json::Map<String, Value> =
        written.map(|(number, character)| (character.to_string(), number.into())).collect();
    BYTES.replace("{VOCAB}", &Value::Object(vocab).to_string())
}

#[test]
fn a_tokenizer_is_named_by_flag_by_key_or_found_in_the_cache() {
    let dir = Dir::new();
    dir.write("a.jsonl", format!("{GOOD}\n"));
    dir.write("own/tokenizer.json", bytes_tokenizer());
    dir.write("finetune.yaml", "base_model: Qwen/Qwen3-8B\ntokenizer: own\n");
    let tokens = |flags: &[&str], cache: &str| {
        let mut command = dir.command(["check", "a.jsonl", "--json"].iter().chain(flags));
        command.env("HF_HUB_CACHE", dir.path(cache));
        let run = Outcome::of(command).expect(0).json();
        (run["token_method"].as_str().unwrap().to_owned(), run["total_tokens"].clone())
    };
    let about = "about".to_owned();
    // Two texts of a byte, two messages of 3 to 6 tokens, and what may begin: the template is not known.
    let counted = (about.clone(), json!([8, 47]));
    assert_eq!(tokens(&["--base-model=Qwen/Qwen3-8B"], "none"), (about.clone(), json!([7, 13])));
    assert_eq!(tokens(&["--base-model=Qwen/Qwen3-8B", "--tokenizer=own"], "none"), counted);
    assert_eq!(tokens(&["--config=finetune.yaml"], "none"), counted);
    assert_eq!(tokens(&["--no-tokens"], "none"), (about, json!([7, 13])));
    dir.write("hub/models--Qwen--Qwen3-8B/refs/main", "c0ffee");
    dir.write("hub/models--Qwen--Qwen3-8B/snapshots/c0ffee/tokenizer.json", bytes_tokenizer());
    assert_eq!(tokens(&["--base-model=Qwen/Qwen3-8B"], "hub"), counted);
    assert_eq!(tokens(&["--tokenizer=Qwen/Qwen3-8B"], "hub"), counted);
    let missing = dir.ctxtune(["check", "a.jsonl", "--tokenizer=no/such"]).expect(2);
    assert!(missing.stderr.contains("the tokenizer `no/such` is no file"), "{}", missing.stderr);
    dir.write("bad.json", bytes_tokenizer().replace("ByteLevel", "Metaspace"));
    let bad = dir.ctxtune(["check", "a.jsonl", "--tokenizer=bad.json"]).expect(2);
    assert!(bad.stderr.contains("needs the pre-tokenizer Metaspace"), "{}", bad.stderr);
}

#[test]
fn a_broken_env_file_keeps_nobody_from_a_check() {
    let dir = Dir::new();
    dir.write("a.jsonl", format!("{GOOD}\n"));
    dir.write(".env", "TOGETHER_API_KEY='open\n");
    for command in ["check", "preview"] {
        let run = dir.ctxtune([command, "a.jsonl"]).expect(0);
        assert!(!run.stderr.contains(".env"), "{}", run.stderr);
    }
}

/// A bound over the limit only warns; what is over by the lowest estimate fails.
#[test]
fn a_bound_over_the_limit_warns() {
    let dir = Dir::new();
    let line = GOOD.replace("\"b\"", &format!("\"{}\"", "word ".repeat(100)));
    dir.write("a.jsonl", format!("{line}\n"));
    let run = |limit: &str, code| {
        found(&dir.ctxtune(["check", "a.jsonl", "--json", "--max-tokens", limit]).expect(code))
    };
    assert_eq!(run("1000", 0), []);
    assert_eq!(run("110", 0), [("near_max_tokens".to_owned(), Some(1))]);
    assert_eq!(run("100", 3), [("over_max_tokens".to_owned(), Some(1))]);
}

#[test]
fn samples_over_the_limit_of_tokens_fail() {
    let dir = Dir::new();
    // 15 bytes for the message and 985 of text: 200 to 400 tokens.
    dir.write("a.jsonl", format!("{{\"text\": \"{}\"}}\n{{\"text\": \"b\"}}\n", "a".repeat(985)));
    let run = |limit: &str, code| {
        found(&dir.ctxtune(["check", "a.jsonl", "--json", "--no-tokens", "--max-tokens", limit]).expect(code))
    };
    assert_eq!(run("400", 0), []);
    assert_eq!(run("399", 0), [("near_max_tokens".to_owned(), Some(1))]);
    assert_eq!(run("200", 0), [("near_max_tokens".to_owned(), Some(1))]);
    assert_eq!(run("199", 3), [("over_max_tokens".to_owned(), Some(1))]);
}

#[test]
fn warnings_do_not_fail() {
    let content = [
        GOOD.replace("\"b\"", "\" \""),
        GOOD.replace("\"b\"", "\"b<|eot_id|>\""),
        r#"{"messages": [{"role": "assistant", "content": "b"}]}"#.to_owned(),
    ];
    let dir = Dir::new();
    dir.write("a.jsonl", content.join("\n"));
    let outcome = dir.ctxtune(["check", "a.jsonl", "--json"]).expect(0);
    let expected = [("empty_assistant", 1), ("special_token", 2), ("role_order", 3)];
    assert_eq!(found(&outcome), expected.map(|(code, line)| (code.to_owned(), Some(line))));
}

#[test]
fn the_terminal_is_not_commanded() {
    let dir = Dir::new();
    dir.write("a.jsonl", "{\"\u{7f}\\u001b[31m\": 1}\n");
    let outcome = dir.ctxtune(["check", "a.jsonl"]).expect(3);
    assert!(
        outcome.stderr.chars().all(|character| character == '\n' || !character.is_control()),
        "{}",
        outcome.stderr
    );
}
