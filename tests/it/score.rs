//! `score` as a user runs it: golden tables, an oracle in Python, every form of input, exit codes.
//!
//! `fixtures/score` holds references, answers of two models, and what `score` says of them;
//! `BLESS=1 cargo test --test it score` writes that anew.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Dir, Outcome, Tree, python, record, repository, shared_data};

/// The program in the directory of the fixtures, on a terminal that knows ASCII only.
fn on_fixtures(arguments: &[&str]) -> Command {
    let mut command = Dir::new().command(["score"].iter().chain(arguments));
    command.current_dir(repository("fixtures/score")).env("LC_ALL", "C");
    command
}

/// Holds `found` against the fixture `name`.
#[expect(clippy::disallowed_methods, reason = "whoever blesses says so in the environment")]
fn check_golden(name: &str, found: &str) {
    let path = repository("fixtures/score").join(name);
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{name}: found\n{found}\nexpected\n{expected}");
}

#[test]
fn the_scores_of_two_models_are_the_golden_ones() {
    let dir = Dir::new();
    let rows = dir.path("rows.tsv");
    let run = Outcome::of(on_fixtures(&["gold", "base", "tuned", "--per-record", rows.to_str().unwrap()]));
    let run = run.expect(0);
    check_golden("two.txt", &run.stderr);
    check_golden("two.tsv", &dir.read("rows.tsv"));
    assert_eq!(run.stdout, "0.2731\t0.7829\n");
    let mut document = Outcome::of(on_fixtures(&["gold", "base", "tuned", "--json", "-q"])).expect(0).json();
    assert!(document["seconds"].is_f64());
    document["seconds"] = Value::Null;
    check_golden("two.json", &format!("{document:#}\n"));
}

#[test]
fn the_scores_of_one_model_are_the_golden_ones() {
    let run = Outcome::of(on_fixtures(&["gold", "tuned"])).expect(0);
    check_golden("one.txt", &run.stderr);
    assert_eq!(run.stdout, "0.7829\n");
}

#[test]
fn bars_are_finer_where_the_terminal_knows_unicode() {
    let mut command = on_fixtures(&["gold", "tuned"]);
    command.env("LC_ALL", "C.UTF-8");
    let run = Outcome::of(command).expect(0);
    // 0.7829 of 24 characters are 18 and 6 eighths.
    assert!(run.stderr.contains(&format!("{}▊\n", "█".repeat(18))), "{}", run.stderr);
}

/// Runs a command of the oracle; fails with what it printed.
fn oracle(dir: &Dir, arguments: &[&str]) -> Option<String> {
    let mut python = python()?;
    python.arg(repository("tests/it/score.py")).args(arguments).current_dir(dir.path(""));
    Some(Outcome::of(python).expect(0).stdout)
}

#[test]
fn python_computes_the_same_scores_from_their_definitions() {
    let dir = Dir::new();
    if oracle(&dir, &["generate", ".", "--records", "3000", "--seed", "11"]).is_none() {
        return;
    }
    let run = dir.ctxtune(["score", "gold", "a", "b", "--json", "-q", "--resamples", "60"]).expect(0);
    dir.write("document.json", run.stdout);
    let report = oracle(&dir, &["compare", "."]).unwrap();
    assert!(report.ends_with(", 0 differences\n"), "{report}");
    let valid: u64 = report.trim().split(' ').nth(2).unwrap().parse().unwrap();
    assert!(valid > 3000, "{report}");
}

/// The fixtures in a directory of their own: `gold`, `base` and `tuned`.
fn fixtures() -> Dir {
    let dir = Dir::new();
    for side in ["gold", "base", "tuned"] {
        let files = std::fs::read_dir(repository("fixtures/score").join(side)).unwrap().map(Result::unwrap);
        let tree: Tree = files
            .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
            .collect();
        dir.plant(side, &tree);
    }
    dir
}

/// The document of a scoring, without what may differ.
fn document(dir: &Dir, arguments: &[&str]) -> Value {
    let mut document = dir.ctxtune(["score", "--json", "-q"].iter().chain(arguments)).expect(0).json();
    document["seconds"] = Value::Null;
    document
}

#[test]
fn threads_change_nothing_and_a_seed_only_the_intervals() {
    let dir = fixtures();
    let one = document(&dir, &["gold", "base", "tuned", "--threads", "1"]);
    for threads in ["2", "3", "8"] {
        assert_eq!(document(&dir, &["gold", "base", "tuned", "--threads", threads]), one);
    }
    let other = document(&dir, &["gold", "base", "tuned", "--seed", "43", "--resamples", "50"]);
    assert_eq!(other["records"], one["records"]);
    let overall = |document: &Value, end: &str| document["sets"][1]["scores"]["overall"][end].clone();
    assert_eq!(overall(&other, "mean"), overall(&one, "mean"));
    assert_ne!(other["sets"], one["sets"]);
}

#[test]
fn a_context_agrees_with_itself_whatever_it_is_packed_in() {
    let dir = Dir::new();
    dir.corpus(12);
    let lines: Vec<String> = (0..12).map(|number| record(number).to_string()).collect();
    dir.write("corpus.jsonl", lines.join("\n"));
    dir.write("same.ndjson", lines.join("\n\n"));
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all("corpus", dir.path("corpus")).unwrap();
    dir.write("corpus.tar", archive.into_inner().unwrap());
    for (number, line) in lines.iter().enumerate() {
        // A line's answer has the line's key, and so a name that ends in `.json`.
        dir.write(format!("answers/#{number}.json"), line);
    }
    for (gold, generated) in [
        ("corpus", "corpus"),
        ("corpus.jsonl", "same.ndjson"),
        ("corpus.jsonl", "answers"),
        ("corpus.tar", "corpus.tar"),
    ] {
        let run = dir.ctxtune(["score", gold, generated]).expect(0);
        assert_eq!(run.stdout, "1.0000\n", "{gold} {generated}: {}", run.stderr);
        assert!(run.stderr.contains("12 of 12 valid"), "{}", run.stderr);
        assert!(!run.stderr.contains("worst"), "{}", run.stderr);
    }
}

#[test]
fn a_prepared_directory_gives_its_validation_side() {
    let template = "messages: [{role: user, content: '{story} {}'}, {role: assistant, content: \"Here:\\n{context}\\n\"}]\ncontext: {form: list, indent: 2, ascii: true}";
    for options in [&["--val-ratio=0.5"][..], &["--val-ratio=0.5", "--shard-records=3", "--template=t.yaml"]]
    {
        let dir = Dir::new();
        dir.write("t.yaml", template);
        dir.corpus(20).prepare(options).expect(0);
        let found = document(&dir, &["out", "corpus"]);
        assert_eq!(found["gold"]["form"], "prepared");
        let mut keys = dir.keys("val");
        keys.sort();
        let scored: Vec<&str> = found["records"]
            .as_array()
            .unwrap()
            .iter()
            .map(|record| record["key"].as_str().unwrap())
            .collect();
        assert_eq!(scored, keys);
        assert_eq!(found["sets"][0]["scores"]["overall"]["mean"], 1.0);
        assert_eq!(found["sets"][0]["extra"].as_array().unwrap().len(), 10);
    }
}

#[test]
fn a_prepared_directory_that_was_changed_is_refused() {
    let check = |change: &dyn Fn(&Dir), code: i32, name: &str| {
        let dir = Dir::new();
        dir.corpus(10).prepare(&["--val-ratio=0.5"]).expect(0);
        change(&dir);
        let run = dir.ctxtune(["score", "out", "corpus", "--json", "-q"]).expect(code);
        assert_eq!(run.json()["error"]["code"], name, "{}", run.stdout);
    };
    let edit = |dir: &Dir, name: &str, change: &dyn Fn(String) -> String| {
        dir.write(name, change(dir.read(name)));
    };
    check(
        &|dir| edit(dir, "out/keys.tsv", &|text| text.replace("val\t1\t", "val\t9\t")),
        3,
        "not_as_prepared",
    );
    check(
        &|dir| edit(dir, "out/keys.tsv", &|text| text.replace("val\t1\t", "train\t1\t")),
        3,
        "not_as_prepared",
    );
    check(&|dir| edit(dir, "out/val.jsonl", &|text| text.lines().skip(1).collect()), 3, "not_as_prepared");
    check(&|dir| std::fs::remove_file(dir.path("out/keys.tsv")).unwrap(), 1, "read");
    let dir = Dir::new();
    dir.corpus(10).prepare(&["--val-ratio=0"]).expect(0);
    let run = dir.ctxtune(["score", "out", "corpus", "--json", "-q"]).expect(3);
    assert_eq!(run.json()["error"]["code"], "no_validation");
}

#[test]
fn a_score_below_the_least_fails_and_is_told_all_the_same() {
    let dir = fixtures();
    let run = dir.ctxtune(["score", "gold", "base", "tuned", "--min-score", "0.7828"]).expect(0);
    assert_eq!(run.stdout, "0.2731\t0.7829\n");
    let run = dir.ctxtune(["score", "gold", "base", "tuned", "--min-score", "0.783"]).expect(3);
    assert_eq!(run.stdout, "0.2731\t0.7829\n");
    assert!(run.stderr.contains("the overall score is 0.7829, below 0.783"), "{}", run.stderr);
    let run = dir.ctxtune(["score", "gold", "tuned", "--min-score", "1", "--json", "-q"]).expect(3).json();
    assert_eq!(run["error"]["code"], "below_min_score");
    assert_eq!((&run["min_score"], run["records"].as_array().unwrap().len()), (&json!(1.0), 5));
    for wrong in ["1.1", "-0.1", "nan", "x"] {
        let flag = format!("--min-score={wrong}");
        dir.ctxtune(["score", "gold", "tuned", &flag]).expect(2);
    }
}

#[test]
fn where_there_is_nothing_to_compare_no_score_is_made_up() {
    let dir = fixtures();
    dir.write("empty/readme.txt", "");
    dir.write("useless/a.json", "{}");
    dir.write("other/b.json", record(1).to_string());
    let check = |arguments: [&str; 2], exit: i32, code: &str, message: &str| {
        let run = dir.ctxtune(["score", "--json", "-q"].iter().chain(&arguments)).expect(exit);
        let error = &run.json()["error"];
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().unwrap().contains(message), "{error}");
    };
    check(["gold", "other"], 3, "nothing_matches", "nothing in `other` answers any of 5 records of `gold`");
    check(["gold", "empty"], 3, "nothing_matches", "`empty`");
    check(
        ["empty", "gold"],
        3,
        "no_reference",
        "no record of `empty` can be a reference: there is none; not read: `readme.txt` (other ending)",
    );
    check(["useless", "gold"], 3, "no_reference", "a.json: missing_key");
    check(["absent", "gold"], 2, "no_file", "`absent` does not exist");
    check(["gold", "absent.jsonl"], 2, "no_file", "`absent.jsonl` does not exist");
    dir.write("what.txt", "");
    check(["what.txt", "gold"], 2, "unknown_source", "`what.txt`");
    dir.ctxtune(["score", "gold"]).expect(2);
    dir.ctxtune(["score", "gold", "base", "tuned", "tuned"]).expect(2);
    dir.ctxtune(["score", "gold", "base", "--resamples", "0"]).expect(2);
    let run = dir.ctxtune(["score", "gold", "tuned", "--per-record", "nowhere/rows.tsv"]).expect(1);
    assert!(run.stderr.contains("cannot write `nowhere/rows.tsv`"), "{}", run.stderr);
}

#[cfg(unix)]
#[test]
fn an_answer_that_cannot_be_read_counts_as_nothing() {
    let dir = fixtures();
    std::fs::remove_file(dir.path("tuned/kettle.json")).unwrap();
    // Reading fails for every user, also for one whom permissions do not bind.
    std::os::unix::fs::symlink("/proc/self/mem", dir.path("tuned/kettle.json")).unwrap();
    let found = document(&dir, &["gold", "tuned"]);
    let answer = &found["records"][1]["answers"][0];
    if cfg!(target_os = "linux") {
        assert_eq!(
            (&found["records"][1]["key"], &answer["status"]),
            (&json!("kettle.json"), &json!("unreadable"))
        );
        assert_eq!(answer["scores"]["json"], 0.0);
        assert!(answer["reason"].as_str().unwrap().contains("cannot read"), "{answer}");
    }
}

#[test]
fn quiet_says_nothing_and_verbose_names_everything() {
    let dir = fixtures();
    for number in 0..8 {
        dir.write(format!("tuned/more{number}.json"), "{}");
    }
    let run = dir.ctxtune(["score", "gold", "tuned", "-q"]).expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("0.7829\n", ""));
    let named =
        |run: &Outcome| (0..8).filter(|number| run.stderr.contains(&format!("more{number}.json"))).count();
    assert_eq!(named(&dir.ctxtune(["score", "gold", "tuned"]).expect(0)), 5);
    assert_eq!(named(&dir.ctxtune(["score", "gold", "tuned", "-v"]).expect(0)), 8);
}

#[test]
fn what_is_not_read_is_named_for_each_source() {
    let dir = fixtures();
    dir.write("gold/.git/0.json", "{}");
    dir.write("tuned/notes.txt", "");
    let run = dir.ctxtune(["score", "gold", "tuned", "--json"]).expect(0);
    let expected = json!([
        { "path": "gold", "by_kind": { "hidden": 1 }, "names": [{ "key": ".git", "kind": "hidden" }] },
        {
            "path": "tuned", "by_kind": { "other ending": 1 },
            "names": [{ "key": "notes.txt", "kind": "other ending" }],
        },
    ]);
    assert_eq!(run.json()["not_read"], expected);
    for line in ["  .git: hidden", "  notes.txt: other ending"] {
        assert!(run.stderr.lines().any(|said| said == line), "{line}: {}", run.stderr);
    }
    assert_eq!(run.json()["gold"]["references"], 5);
}

#[test]
fn the_terminal_is_not_commanded_by_an_answer() {
    let dir = fixtures();
    dir.write("tuned/cafe.invalid.json", r#"{"reason": "\u001b[31m red\nline"}"#);
    std::fs::remove_file(dir.path("tuned/cafe.json")).unwrap();
    let run = dir.ctxtune(["score", "gold", "tuned"]).expect(0);
    assert!(run.stderr.contains("red\\nline"), "{}", run.stderr);
    let is_command = |character: char| character != '\n' && character.is_control();
    assert!(!run.stderr.contains(is_command), "{}", run.stderr);
}

#[test]
fn published_contexts_agree_with_themselves() {
    for data in ["sample", "real_contexts"] {
        let Some(path) = shared_data(data) else { continue };
        let path = path.to_str().unwrap();
        let found = document(&Dir::new(), &[path, path]);
        for measure in ["state_f1", "observations_exact", "actions_exact", "same_agents", "agents_in_steps"] {
            assert_eq!(found["sets"][0]["scores"][measure]["mean"], 1.0, "{data} {measure}");
        }
        assert_eq!(found["sets"][0]["unresolved_tags"], 0, "{data}");
    }
}
