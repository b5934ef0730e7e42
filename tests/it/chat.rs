//! Chat lines: `--chat` takes lines with `messages` as they are, split and checked like everything else.

use ctxtune_rehearsal::Script;
use serde_json::{Value, json};

use crate::support::{Dir, Rehearsal, assert_same_tree, names};

/// Lines of which no two are written in the same way.
fn lines(count: usize) -> Vec<String> {
    let line = |number: usize| {
        let system = if number.is_multiple_of(3) {
            r#"{"role": "system", "content": "Be \u0062rief."}, "#
        } else {
            ""
        };
        let topic = number % 4;
        let more = if number.is_multiple_of(2) { r#", "weight": 1e0"# } else { "" };
        format!(
            r#"{{"topic": "t{topic}",  "messages": [{system}{{"role":"user","content":"q {number} \/ é"}},  {{"content": "a\n{number}", "role": "assistant"}}]{more}}}"#
        )
    };
    (0..count).map(line).collect()
}

fn with_lines(lines: &[String]) -> Dir {
    let dir = Dir::new();
    dir.write("chat.jsonl", lines.join("\n"));
    dir
}

fn prepare(dir: &Dir, more: &[&str]) -> crate::support::Outcome {
    dir.ctxtune(["prepare", "chat.jsonl", "--chat", "-o", "out", "--no-sync"].iter().chain(more))
}

/// The training line that a source line becomes: its columns as they are written there.
fn expected(line: &str) -> String {
    let messages = &line[line.find("\"messages\": ").unwrap() + 12..=line.rfind(']').unwrap()];
    let weight = if line.contains("weight") { ",\"weight\":1e0" } else { "" };
    format!("{{\"messages\":{messages}{weight}}}")
}

#[test]
fn lines_are_carried_as_they_are_into_the_same_split() {
    let lines = lines(50);
    let dir = with_lines(&lines);
    let run = prepare(&dir, &["--val-ratio", "0.2"]).expect(0);
    assert!(run.stderr.contains("50 records with columns other than messages"), "{}", run.stderr);
    for row in dir.key_rows() {
        let number: usize = row.key.strip_prefix('#').unwrap().parse().unwrap();
        let out = dir.read(format!("out/{}", row.shard));
        assert_eq!(out.lines().nth(row.line - 1).unwrap(), expected(&lines[number]));
    }
    let manifest = dir.manifest();
    assert_eq!((&manifest["options"]["kind"], &manifest["template"]), (&json!("chat"), &Value::Null));
    assert_eq!((&manifest["train"]["records"], &manifest["val"]["records"]), (&json!(40), &json!(10)));
    assert_eq!(manifest["leakage"], json!({ "val_sharing_text": 0 }));
    assert_eq!(manifest["counts"]["warnings"]["other_columns"], 50);
    dir.ctxtune(["check", "out"]).expect(0);
    // The split is that of the keys alone.
    let mut ranked: Vec<String> = (0..50).map(|number| format!("#{number}")).collect();
    ranked.sort_by_key(|key| ctxtune_engine::split::rank(42, key.as_bytes()));
    assert_eq!(dir.keys("train"), ranked[..40]);
    assert!(dir.read("out/README.md").contains("# Chat lines as training data"));
    let asked = dir.ctxtune(["generate", "--out", "out", "--show-prompt", "Mia left."]).expect(0);
    assert!(asked.stderr.contains("has not seen the built-in prompt"), "{}", asked.stderr);
}

#[test]
fn neither_threads_nor_packing_change_a_byte() {
    let dir = with_lines(&lines(300));
    for way in [
        &[][..],
        &["--group-by", "topic", "--val-ratio", "0.3"],
        &["--shard-records", "64", "--limit", "100"],
    ] {
        prepare(&dir, way).expect(0);
        let result = dir.tree("out");
        for threads in ["1", "2", "5"] {
            prepare(&dir, &[way, &["--threads", threads]].concat()).expect(0);
            assert_same_tree(&dir.tree("out"), &result, &format!("{way:?}, {threads} threads"));
        }
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, dir.read("chat.jsonl").as_bytes()).unwrap();
        dir.write("packed.jsonl.gz", gzip.finish().unwrap());
        let arguments = ["prepare", "packed.jsonl.gz", "--chat", "-o", "packed", "--no-sync"];
        dir.ctxtune(arguments.iter().chain(way)).expect(0);
        assert_same_tree(&dir.tree("packed"), &result, &format!("{way:?}, packed"));
    }
}

#[test]
fn groups_of_a_field_lie_on_one_side() {
    let mut lines = lines(40);
    lines.push(
        r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#.to_owned(),
    );
    lines.push(lines[0].replace("\"t0\"", "7"));
    let dir = with_lines(&lines);
    let run = prepare(&dir, &["--group-by", "topic", "--val-ratio", "0.25", "--max-rejects", "2"]).expect(0);
    assert!(!run.stderr.contains("with columns other"), "the field of the group is known: {}", run.stderr);
    let topic = |key: &String| key[1..].parse::<usize>().unwrap() % 4;
    let [train, val] = ["train", "val"]
        .map(|side| dir.keys(side).iter().map(topic).collect::<std::collections::BTreeSet<_>>());
    assert!((train.len(), val.len()) == (3, 1) && train.is_disjoint(&val), "{train:?} {val:?}");
    let rejects = dir.json_lines("out/rejects.jsonl");
    let codes: Vec<&Value> = rejects.iter().map(|reject| &reject["code"]).collect();
    assert_eq!(codes, ["group_field", "group_field"]);
}

#[test]
fn a_line_that_is_not_fit_is_rejected_by_the_name_that_check_gives_it() {
    let message = |role: &str, content: &str| format!(r#"{{"role": "{role}", "content": {content}}}"#);
    let chat = |messages: &[String]| format!(r#"{{"messages": [{}]}}"#, messages.join(", "));
    let (user, assistant) = (message("user", "\"a\""), message("assistant", "\"b\""));
    let cases = [
        ("missing_key", r#"{"text": "a"}"#.to_owned()),
        ("wrong_type", "7".to_owned()),
        ("json_syntax", "{\"messages\": [}".to_owned()),
        ("duplicate_key", r#"{"messages": [], "messages": []}"#.to_owned()),
        ("messages", chat(&[])),
        ("role", chat(&[user.clone(), message("uzer", "\"a\"")])),
        ("alternation", chat(&[user.clone(), user.clone(), assistant.clone()])),
        ("no_assistant", chat(std::slice::from_ref(&user))),
        ("content", chat(&[user.clone(), message("assistant", "7")])),
        ("lone_surrogate", chat(&[user.clone(), message("assistant", "\"\\ud800\"")])),
        ("non_finite", chat(&[user.clone(), message("assistant", "NaN")])),
        ("weight", chat(&[user.clone(), assistant.clone()]).replace("]}", "], \"weight\": -1}")),
        ("tools", chat(&[user.clone(), assistant.clone()]).replace("]}", "], \"tools\": 1}")),
        ("missing_key", crate::support::record(1).to_string()),
    ];
    let mut all = lines(20);
    all.extend(cases.iter().map(|(_, line)| line.clone()));
    let dir = with_lines(&all);
    prepare(&dir, &["--max-rejects", "50%"]).expect(0);
    let rejects = dir.json_lines("out/rejects.jsonl");
    for (index, (code, line)) in cases.iter().enumerate() {
        let reject = rejects.iter().find(|reject| reject["key"] == format!("#{}", 20 + index));
        assert_eq!(reject.map(|reject| reject["code"].clone()), Some(json!(code)), "{line}");
    }
    let at = |code: &str| rejects.iter().find(|reject| reject["code"] == code).unwrap();
    assert_eq!(at("alternation")["at"], "messages[1]");
    assert!(
        rejects.iter().any(|reject| reject["reason"]
            == "a context, to be prepared without --chat, and not a chat line: missing")
    );
    assert_eq!(rejects.len(), cases.len());
    prepare(&dir, &[]).expect(3);
    // What check calls an error of a sample is a reject, and nothing else is.
    let accepted: Vec<&str> = dir.key_rows().iter().map(|_| "").collect();
    assert_eq!(accepted.len(), 20);
}

#[test]
fn files_of_a_directory_are_lines_whatever_their_layout() {
    let dir = Dir::new();
    let lines = lines(12);
    for (number, line) in lines.iter().enumerate() {
        let indented = line.replace(", ", ",\r\n  ");
        dir.write(format!("chats/{number}.json"), format!("\u{feff}{indented}\n"));
    }
    dir.ctxtune(["prepare", "chats", "--chat", "-o", "out", "--no-sync", "--val-ratio", "0.25"]).expect(0);
    dir.ctxtune(["check", "out"]).expect(0);
    let row = dir.key_rows().into_iter().find(|row| row.key == "3.json").unwrap();
    let out = dir.read(format!("out/{}", row.shard));
    let line = out.lines().nth(row.line - 1).unwrap();
    assert_eq!(line, expected(&lines[3].replace(", ", ",    ")));
}

#[test]
fn a_line_with_parts_and_calls_is_carried_and_shown_too() {
    let dir = Dir::new();
    let line = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"weather?"}]},{"role":"assistant","content":[],"tool_calls":[{"function":{"name":"look","arguments":"{}"}}]}],"tools":[{"type":"function"}]}"#;
    dir.write("chat.jsonl", format!("{line}\n{}", lines(9).join("\n")));
    let run = prepare(&dir, &["--val-ratio", "0", "--show", "10"]).expect(0);
    assert!(dir.read("out/train.jsonl").lines().any(|found| found == line));
    assert!(run.stderr.contains(line), "{}", run.stderr);
}

#[test]
fn chat_lines_and_contexts_are_never_mixed() {
    let dir = with_lines(&lines(3));
    let run = dir.ctxtune(["prepare", "chat.jsonl", "-o", "out"]).expect(3);
    assert!(
        run.stderr.contains("a chat line, which --chat takes as it is, and not a context: missing"),
        "{}",
        run.stderr
    );
    for (flag, said) in [
        (&["--group-by", "story"][..], "`group_by` with `chat`"),
        (&["--group-by", "agents"], "`group_by` with `chat`"),
        (&["--template", "chatml"], "`template` with `chat`"),
        (&["--only-correct"], "`only_correct` with `chat`"),
    ] {
        let run = prepare(&dir, flag).expect(2);
        assert!(run.stderr.contains(said), "{}", run.stderr);
    }
}

#[test]
fn validation_lines_that_ask_what_training_lines_ask_are_counted() {
    let ask = |number: usize| {
        json!({ "messages": [
            { "role": "system", "content": format!("{number}") },
            { "role": "user", "content": format!("q{}", number / 2) },
            { "role": "assistant", "content": format!("a{number}") },
        ] })
        .to_string()
    };
    let dir = with_lines(&(0..40).map(ask).collect::<Vec<_>>());
    let run = prepare(&dir, &["--val-ratio", "0.25"]).expect(0);
    let train: Vec<usize> =
        dir.keys("train").iter().map(|key| key[1..].parse::<usize>().unwrap() / 2).collect();
    let is_shared = |key: &&String| train.contains(&(key[1..].parse::<usize>().unwrap() / 2));
    let shared = dir.keys("val").iter().filter(is_shared).count();
    assert!(shared > 3);
    assert_eq!(dir.manifest()["leakage"]["val_sharing_text"], shared);
    assert!(run.stderr.contains(&format!("user messages {shared} of 10")), "{}", run.stderr);
}

#[test]
fn a_job_is_tuned_on_chat_lines() {
    let rehearsal = Rehearsal::with(Script { job_seconds: 0.1, verdict_seconds: 0.0, ..Script::default() });
    rehearsal.dir.write("chat.jsonl", lines(20).join("\n"));
    rehearsal.dir.write("c.yaml", "data_dir: chat.jsonl\nchat: true\noutput_dir: out\n");
    let arguments =
        ["finetune", "--config-path", "c.yaml", "--yes", "--poll", "1s", "--base-model=Qwen/Qwen3-8B"];
    let run = rehearsal.ctxtune(arguments).expect(0);
    assert!(
        run.stderr.contains("the built-in prompt: put one like those of your chat lines"),
        "{}",
        run.stderr
    );
    assert!(names(&rehearsal.dir.tree("out")).contains(&"train.jsonl"));
}
