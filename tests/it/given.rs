//! Files that are split already: `submit` and `finetune` take them as they are.

use ctxtune_rehearsal::Script;
use serde_json::json;

use crate::support::{Rehearsal, sha256};

/// Two files of chat lines with blank lines and another end, as people have them.
fn with_files() -> Rehearsal {
    let rehearsal = Rehearsal::with(Script { job_seconds: 0.1, verdict_seconds: 0.0, ..Script::default() });
    let dir = &rehearsal.dir;
    dir.chat_lines("own/chat.jsonl", 24);
    let lines: Vec<String> = dir.read("own/chat.jsonl").lines().map(without_topic).collect();
    dir.write("own/train.jsonl", format!("{}\r\n\n{}\n", lines[0], lines[1..20].join("\n")));
    dir.write("own/val.jsonl", lines[20..].join("\n"));
    rehearsal
}

fn without_topic(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    json!({ "messages": line["messages"] }).to_string()
}

#[test]
fn files_are_submitted_as_they_are_and_once() {
    let rehearsal = with_files();
    let dir = &rehearsal.dir;
    let submit = ["submit", "own/train.jsonl", "--val", "own/val.jsonl", "-o", "out", "--yes"];
    let job = rehearsal.ctxtune(submit).expect(0).stdout;
    for side in ["train", "val"] {
        assert_eq!(dir.read(format!("out/{side}.jsonl")), dir.read(format!("own/{side}.jsonl")));
    }
    let manifest = dir.manifest();
    assert_eq!((&manifest["train"]["records"], &manifest["val"]["records"]), (&json!(20), &json!(4)));
    assert_eq!(manifest["options"]["kind"], "files");
    assert_eq!(manifest["train"]["sha256"], sha256(dir.read("own/train.jsonl").as_bytes()));
    dir.ctxtune(["check", "out"]).expect(0);
    assert!(dir.read("out/README.md").contains("split by whoever made them"));
    // The same files, the directory they were taken to, and `finetune` are the same job.
    assert_eq!(rehearsal.ctxtune(submit).expect(0).stdout, job);
    assert_eq!(rehearsal.ctxtune(["submit", "out", "--yes"]).expect(0).stdout, job);
    let detached =
        ["finetune", "own/train.jsonl", "--val", "own/val.jsonl", "-o", "out", "--yes", "--detach"];
    assert_eq!(rehearsal.ctxtune(detached).expect(0).stdout, job);
    assert_eq!(rehearsal.server.jobs_created(), 1);
    let scored = rehearsal.ctxtune(["score", "out", "own"]).expect(3);
    assert!(scored.stderr.contains("whose lines have no keys of records"), "{}", scored.stderr);
    let reported = rehearsal.ctxtune(["report", "out", "-o", "r.html"]).expect(0);
    assert!(!reported.stderr.contains("keys.tsv"), "{}", reported.stderr);
    assert!(dir.read("r.html").contains("Files that were split already, as they are."));
    // The ledger is beside the data, as for a prepared directory.
    assert_eq!(dir.tree("out/runs").len(), 1);
}

#[test]
fn one_file_is_trained_on_without_validation() {
    let rehearsal = with_files();
    rehearsal.ctxtune(["submit", "own/train.jsonl", "-o", "out", "--yes"]).expect(0);
    assert_eq!(rehearsal.dir.manifest()["val"], json!(null));
    let finetune = ["finetune", "own/train.jsonl", "--as-is", "-o", "out", "--yes", "--poll", "1s"];
    rehearsal.ctxtune(finetune).expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 1);
}

#[test]
fn files_that_are_not_fit_change_nothing() {
    let rehearsal = with_files();
    let dir = &rehearsal.dir;
    dir.write("bad.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n");
    dir.write("text.jsonl", "{\"text\":\"a\"}\n");
    for (file, said) in [("bad.jsonl", "no_assistant"), ("text.jsonl", "does not hold chat lines")] {
        let run = rehearsal.ctxtune(["submit", file, "-o", "out", "--yes"]).expect(3);
        assert!(run.stderr.contains(said), "{}", run.stderr);
        assert!(!dir.exists("out"), "{file}");
    }
    assert_eq!(rehearsal.server.jobs_created(), 0);
}

#[test]
fn what_would_lose_or_shape_the_files_is_refused() {
    let rehearsal = with_files();
    let dir = &rehearsal.dir;
    dir.corpus(10).prepare(&[]).expect(0);
    let before = dir.tree("out");
    let run = rehearsal.ctxtune(["submit", "out/train.jsonl", "-o", "out", "--yes"]).expect(2);
    assert!(run.stderr.contains("ctxtune submit out"), "{}", run.stderr);
    assert_eq!(dir.tree("out"), before);
    let run = rehearsal.ctxtune(["submit", "own/train.jsonl", "-o", "own", "--yes"]).expect(2);
    assert!(run.stderr.contains("choose another --output-dir"), "{}", run.stderr);
    rehearsal.ctxtune(["submit", "out", "-o", "other", "--yes"]).expect(2);
    let run = rehearsal.ctxtune(["submit", "none.jsonl", "-o", "other", "--yes"]).expect(2);
    assert!(run.stderr.contains("expected one JSONL file to train on, got `none.jsonl`"), "{}", run.stderr);
    rehearsal.ctxtune(["submit", "--val", "own/val.jsonl", "--yes"]).expect(2);
    for flag in
        ["--limit=5", "--group-by=topic", "--val-ratio=0.2", "--chat", "--mix=own/val.jsonl=1", "--strict"]
    {
        let run =
            rehearsal.ctxtune(["finetune", "own/train.jsonl", "--as-is", "-o", "x", "--yes", flag]).expect(2);
        assert!(run.stderr.contains("the file is taken as it is"), "{}", run.stderr);
    }
    rehearsal.ctxtune(["finetune", "corpus", "--as-is", "-o", "x", "--yes"]).expect(2);
    // What the configuration says of preparing is for contexts.
    dir.write("c.yaml", "val_ratio: 0.2\ngroup_by: agents\noutput_dir: y\n");
    rehearsal.ctxtune(["submit", "own/train.jsonl", "--config-path", "c.yaml", "--yes"]).expect(0);
    assert!(dir.exists("y/train.jsonl"));
}
