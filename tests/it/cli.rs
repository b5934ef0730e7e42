//! The command line as scripts and people meet it: help, flags, streams, the JSON document.

use serde_json::{Value, json};

use crate::support::{Dir, repository};

const PREPARE: [&str; 5] = ["prepare", "corpus", "-o", "out", "--no-sync"];

fn manifest(dir: &Dir, output: &str) -> Value {
    serde_json::from_str(&dir.read(format!("{output}/manifest.json"))).unwrap()
}

#[test]
fn help_names_every_command_and_flag() {
    let dir = Dir::new();
    let check = |arguments: &[&str], named: &[&str]| {
        let help = dir.ctxtune(arguments).expect(0);
        assert_eq!(help.stderr, "");
        for name in named {
            assert!(help.stdout.contains(name), "{name} is not in {}", help.stdout);
        }
    };
    check(&["--help"], &["prepare", "completions", "--version"]);
    check(&["-h"], &["prepare", "completions"]);
    check(&["help"], &["prepare", "completions"]);
    check(&["completions", "--help"], &["bash", "zsh", "fish", "powershell"]);
    let flags = [
        "SOURCE",
        "--data-dir",
        "--output-dir",
        "--config-path",
        "--val-ratio",
        "--seed",
        "--group-by",
        "--shard-records",
        "--compress",
        "--template",
        "--max-rejects",
        "--strict",
        "--only-correct",
        "--max-record-bytes",
        "--threads",
        "--no-sync",
        "--dry-run",
        "--show",
        "--json",
        "--quiet",
        "--verbose",
        "Exit codes",
    ];
    check(&["prepare", "--help"], &flags);
    check(&["help", "prepare"], &flags);
}

#[test]
fn the_version_is_that_of_the_package() {
    let dir = Dir::new();
    for flag in ["-V", "--version"] {
        assert_eq!(
            dir.ctxtune([flag]).expect(0).stdout,
            concat!("ctxtune ", env!("CARGO_PKG_VERSION"), "\n")
        );
    }
}

#[test]
fn without_a_command_help_is_an_error() {
    let run = Dir::new().ctxtune([""; 0]).expect(2);
    assert!(run.stderr.contains("Usage:") && run.stdout.is_empty(), "{}", run.stderr);
}

#[test]
fn completions_know_the_commands() {
    let dir = Dir::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = dir.ctxtune(["completions", shell]).expect(0);
        assert!(script.stdout.contains("prepare") && script.stdout.contains("output-dir"), "{shell}");
        assert_eq!(script.stderr, "");
    }
    dir.ctxtune(["completions", "cmd.exe"]).expect(2);
}

#[test]
fn a_wrong_flag_is_refused_with_a_suggestion() {
    let dir = Dir::new();
    let check = |arguments: &[&str], expected: &str| {
        let run = dir.corpus(2).ctxtune(arguments).expect(2);
        assert!(run.stderr.contains(expected), "{}", run.stderr);
        assert_eq!(run.stdout, "");
        assert!(!dir.exists("out"));
    };
    check(&[&PREPARE[..], &["--val-ration=0.2"]].concat(), "--val-ratio");
    check(&[&PREPARE[..], &["--val_ration", "0.2"]].concat(), "--val-ratio");
    check(&["prepair", "corpus"], "prepare");
    check(&[&PREPARE[..], &["--val-ratio=1"]].concat(), "--val-ratio");
    check(&[&PREPARE[..], &["--val-ratio=-0.1"]].concat(), "--val-ratio");
    check(&[&PREPARE[..], &["--seed=x"]].concat(), "--seed");
    check(&[&PREPARE[..], &["--shard-records=0"]].concat(), "--shard-records");
    check(&[&PREPARE[..], &["--threads=0"]].concat(), "--threads");
    check(&[&PREPARE[..], &["--max-rejects=some"]].concat(), "--max-rejects");
    check(&[&PREPARE[..], &["--max-record-bytes=0"]].concat(), "max_record_bytes");
    check(&[&PREPARE[..], &["--strict", "--max-rejects=1"]].concat(), "cannot be used with");
    check(&[&PREPARE[..], &["-q", "-v"]].concat(), "cannot be used with");
    check(&[&PREPARE[..], &["--data-dir=corpus"]].concat(), "cannot be used with");
    check(&[&PREPARE[..], &["--template=nowhere.yaml"]].concat(), "`nowhere.yaml`");
}

#[test]
fn flags_may_have_underscores() {
    let dir = Dir::new();
    dir.corpus(10)
        .ctxtune(["prepare", "--data_dir=corpus", "--output_dir", "o_o", "--val_ratio=0.2"])
        .expect(0);
    assert_eq!(manifest(&dir, "o_o")["val"]["records"], 2);
}

#[test]
fn a_missing_corpus_is_a_usage_error() {
    let dir = Dir::new();
    dir.write("notes.txt", "{}");
    let check = |arguments: &[&str], code: &str, named: &str| {
        let run = dir.ctxtune([&["prepare", "-o", "out", "--json"], arguments].concat()).expect(2);
        assert_eq!(run.json()["error"]["code"], code);
        assert!(run.stderr.contains(named), "{}", run.stderr);
        assert!(!dir.exists("out"));
    };
    check(&[], "config", "--data-dir");
    check(&["nowhere"], "no_corpus", "`nowhere`");
    check(&["notes.txt"], "config", "`notes.txt`");
}

/// The seed's configuration file, in a directory laid out as the repository is.
fn with_config() -> Dir {
    let dir = Dir::new();
    dir.write("config.yaml", std::fs::read(repository("fixtures/finetune_config.yaml")).unwrap());
    dir.corpus(10);
    std::fs::create_dir(dir.path("fixtures")).unwrap();
    std::fs::rename(dir.path("corpus"), dir.path("fixtures/contexts")).unwrap();
    dir
}

#[test]
fn the_configuration_file_is_read() {
    for flag in ["--config-path=config.yaml", "--config=config.yaml", "--config_path=config.yaml"] {
        let dir = with_config();
        assert_eq!(dir.ctxtune(["prepare", flag]).expect(0).stdout, "out\n");
        let manifest = manifest(&dir, "out");
        assert_eq!(manifest["options"]["seed"], 42);
        assert_eq!((&manifest["train"]["records"], &manifest["val"]["records"]), (&json!(9), &json!(1)));
    }
}

#[test]
fn flags_win_over_the_configuration_file() {
    let dir = with_config();
    let flags = ["--val-ratio=0.5", "--seed=7", "--output-dir=other"];
    let run = dir.ctxtune([&["prepare", "--config=config.yaml"], &flags[..]].concat()).expect(0);
    assert_eq!(run.stdout, "other\n");
    let manifest = manifest(&dir, "other");
    assert_eq!(manifest["options"]["seed"], 7);
    assert_eq!((&manifest["train"]["records"], &manifest["val"]["records"]), (&json!(5), &json!(5)));
    assert!(!dir.exists("out"));
}

#[test]
fn an_unknown_key_of_the_configuration_is_refused_with_a_suggestion() {
    let dir = Dir::new();
    dir.corpus(2).write("config.yaml", "learning_rat: 1e-5\n");
    let run = dir.ctxtune([&PREPARE[..], &["--config=config.yaml", "--json"]].concat()).expect(2);
    assert_eq!(run.json()["error"]["hint"], "did you mean `learning_rate`?");
    assert!(
        run.stderr.contains("`learning_rat`") && run.stderr.contains("`learning_rate`"),
        "{}",
        run.stderr
    );
    assert!(!dir.exists("out"));
}

#[test]
fn stdout_is_the_output_directory_as_it_was_given() {
    let dir = Dir::new();
    dir.corpus(4);
    let absolute = dir.path("absolute");
    for output in ["out", "./out/", "a/b/../c d", absolute.to_str().unwrap()] {
        let run = dir.ctxtune(["prepare", "corpus", "--output-dir", output]).expect(0);
        assert_eq!(run.stdout, format!("{output}\n"));
        assert!(dir.path(output).join("manifest.json").exists());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn stdout_is_the_output_directory_even_if_it_is_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let dir = Dir::new();
    let output = std::ffi::OsStr::from_bytes(b"o\xff");
    let mut command = dir.corpus(4).command(["prepare", "corpus", "--output-dir"]);
    let run = command.arg(output).output().unwrap();
    assert_eq!(run.stdout, b"o\xff\n");
}

#[test]
fn a_dry_run_has_no_data_for_stdout() {
    let dir = Dir::new();
    let run = dir.corpus(4).ctxtune([&PREPARE[..], &["--dry-run"]].concat()).expect(0);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains("4 records") && run.stderr.contains("--dry-run"), "{}", run.stderr);
}

#[test]
fn quiet_says_nothing_but_errors() {
    let dir = Dir::new();
    dir.corpus(4).write("corpus/bad.json", "{");
    let quiet = [&PREPARE[..], &["-q"]].concat();
    let run = dir.ctxtune([&quiet[..], &["--max-rejects=1", "--show=1"]].concat()).expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", ""));
    let failed = dir.ctxtune([&quiet[..], &["--strict"]].concat()).expect(3);
    assert!(failed.stderr.starts_with("error: 1 of 5 records are rejected"), "{}", failed.stderr);
}

/// Seven rejects and seven directories named like records, beside good records.
fn with_oddities() -> Dir {
    let dir = Dir::new();
    dir.corpus(20);
    for number in 0..7 {
        dir.write(format!("corpus/bad{number}.json"), "{");
        std::fs::create_dir(dir.path(format!("corpus/odd{number}.json"))).unwrap();
    }
    dir
}

fn count_named(text: &str, stem: &str) -> usize {
    (0..7).filter(|number| text.contains(&format!("{stem}{number}.json"))).count()
}

#[test]
fn a_summary_names_the_first_few_and_counts_the_others() {
    let run = with_oddities().ctxtune([&PREPARE[..], &["--max-rejects=7"]].concat()).expect(0);
    assert_eq!(count_named(&run.stderr, "bad"), 5, "{}", run.stderr);
    assert_eq!(count_named(&run.stderr, "odd"), 5, "{}", run.stderr);
    assert!(run.stderr.contains("2 json_syntax") && run.stderr.contains("2 more"), "{}", run.stderr);
}

#[test]
fn verbose_names_everything_that_was_passed_over() {
    let run = with_oddities().ctxtune([&PREPARE[..], &["--max-rejects=7", "-v"]].concat()).expect(0);
    assert_eq!(count_named(&run.stderr, "odd"), 7, "{}", run.stderr);
}

#[test]
fn verbose_names_every_reject() {
    let dir = with_oddities();
    for (limit, code) in [("--max-rejects=7", 0), ("--strict", 3)] {
        let run = dir.ctxtune([&PREPARE[..], &[limit, "-v"]].concat()).expect(code);
        assert_eq!(count_named(&run.stderr, "bad"), 7, "{}", run.stderr);
    }
}

#[test]
fn a_dry_run_names_every_reject() {
    let dir = with_oddities();
    for (limit, code) in [("--max-rejects=7", 0), ("--strict", 3)] {
        let run = dir.ctxtune([&PREPARE[..], &[limit, "--dry-run"]].concat()).expect(code);
        assert_eq!(count_named(&run.stderr, "bad"), 7, "{}", run.stderr);
    }
}

/// Runs `prepare` with `flags` and `--json` and pins the document: the common fields, then `fields`.
#[track_caller]
fn check_document(dir: &Dir, flags: &[&str], exit: i32, fields: Value) -> Value {
    let run = dir.ctxtune([&PREPARE[..], flags, &["--json"]].concat()).expect(exit);
    run.document("prepare", fields)
}

fn fields_of_success() -> Value {
    let side = json!({
        "records": "integer", "bytes": "integer", "sha256": "string",
        "shards": [{ "file": "string", "records": "integer", "bytes": "integer", "sha256": "string" }],
    });
    json!({
        "output_dir": "string",
        "dry_run": "boolean",
        "published": "string",
        "counts": {
            "listed": "integer", "accepted": "integer", "rejected": "integer", "skipped": "integer",
            "not_regular": "integer",
            "rejected_by_code": {},
            "is_correct": { "true": "integer", "false": "integer", "missing": "integer" },
            "warnings": {
                "agent_missing_from_step": "integer", "agent_not_in_names": "integer",
                "mixed_tags": "integer", "special_tokens": "integer",
            },
        },
        "split": { "train": "integer", "val": "integer" },
        "leakage": { "val_sharing_story": "integer", "val_sharing_agents": "integer" },
        "grouping": "null",
        "rejects": [],
        "not_read_by_kind": {},
        "train": side,
        "val": side,
        "bytes_read": "integer",
        "seconds": "number",
        "not_read": [],
        "warned_records": [],
    })
}

#[test]
fn the_document_of_a_success_is_pinned() {
    let dir = Dir::new();
    dir.corpus(10);
    let document = check_document(&dir, &[], 0, fields_of_success());
    assert_eq!(document["output_dir"], "out");
    assert_eq!(document["dry_run"], false);
    assert_eq!(document["published"], "new");
    assert_eq!(document["split"], json!({ "train": 9, "val": 1 }));
    assert_eq!(document["train"], manifest(&dir, "out")["train"]);
    assert_eq!(document["counts"], manifest(&dir, "out")["counts"]);
}

#[test]
fn the_document_of_rejects_and_groups_is_pinned() {
    let dir = with_oddities();
    let mut fields = fields_of_success();
    fields["counts"]["rejected_by_code"] = json!({ "json_syntax": "integer" });
    fields["grouping"] = json!({ "groups": "integer", "train_groups": "integer", "deviation": "integer" });
    fields["rejects"] = json!([{ "key": "string", "code": "string", "reason": "string", "at": "string" }]);
    fields["not_read_by_kind"] = json!({ "directory": "integer" });
    fields["not_read"] = json!([{ "key": "string", "kind": "string" }]);
    let document = check_document(&dir, &["--max-rejects=7", "--group-by=agents"], 0, fields.clone());
    assert_eq!(document["counts"]["rejected_by_code"]["json_syntax"], 7);
    assert_eq!(document["not_read_by_kind"]["directory"], 7);
    assert_eq!(document["not_read"].as_array().unwrap().len(), 5);
    let document = check_document(&dir, &["--max-rejects=7", "-v"], 0, {
        fields["grouping"] = json!("null");
        fields
    });
    assert_eq!(document["not_read"].as_array().unwrap().len(), 7);
}

#[test]
fn the_document_of_a_dry_run_is_pinned() {
    let dir = Dir::new();
    dir.corpus(10);
    let mut fields = fields_of_success();
    for field in ["published", "train", "val"] {
        fields[field] = json!("null");
    }
    let document = check_document(&dir, &["--dry-run"], 0, fields);
    assert_eq!(document["dry_run"], true);
}

#[test]
fn the_document_of_too_many_rejects_is_pinned() {
    let dir = with_oddities();
    let mut fields = json!({
        "rejected_by_code": { "json_syntax": "integer" },
        "rejects": [{ "key": "string", "code": "string", "reason": "string", "at": "string" }],
        "rejects_file": "string",
    });
    let document = check_document(&dir, &["--strict"], 3, fields.clone());
    assert_eq!(document["error"]["code"], "rejects");
    assert_eq!(document["rejected_by_code"]["json_syntax"], 7);
    assert_eq!(document["rejects_file"], "out/rejects-failed.jsonl");
    fields["rejects_file"] = json!("null");
    let document = check_document(&dir, &["--strict", "--dry-run"], 3, fields);
    assert_eq!(document["rejects"].as_array().unwrap().len(), 7);
}

#[test]
fn the_document_of_another_failure_has_the_common_fields_only() {
    let dir = Dir::new();
    dir.corpus(1);
    let document = check_document(&dir, &[], 3, json!({}));
    assert_eq!(document["error"]["code"], "empty_side");
}

#[test]
fn the_document_of_a_usage_error_is_pinned() {
    let dir = Dir::new();
    let document = check_document(&dir, &["--nope"], 2, json!({}));
    assert_eq!(document["error"]["code"], "usage");
    let document = check_document(&dir, &["--seed=x"], 2, json!({}));
    assert!(document["error"]["message"].as_str().unwrap().contains("--seed"), "{document}");
}

#[test]
fn a_json_flag_behind_a_bare_double_dash_is_an_argument() {
    let run = Dir::new().ctxtune(["prepare", "--", "a", "--json"]).expect(2);
    assert_eq!(run.stdout, "");
}
