//! Real records: 3,533 contexts of ToMi stories, and three that language models wrote.
//!
//! They are not part of this repository: without `../shared/data` these tests skip.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use ctxtune_engine::split::rank;

use crate::support::{Dir, Outcome, assert_same_tree, python, record, repository, shared_data, skip};

const RECORDS: usize = 3533;

/// The directory of the 3,533 records, unpacked once; `None` (and a word) where they are not to be had.
pub fn corpus() -> Option<&'static Path> {
    static CORPUS: OnceLock<Option<PathBuf>> = OnceLock::new();
    CORPUS.get_or_init(unpack).as_deref()
}

fn unpack() -> Option<PathBuf> {
    let archive = shared_data("contexts_tomi_train_3533.tar.gz")?;
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let corpus = place.join(format!("tomi-{}", archive.metadata().unwrap().len()));
    if !corpus.exists() {
        let unpacked = tempfile::tempdir_in(place).unwrap();
        let tar = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(unpacked.path()).status();
        if !tar.is_ok_and(|status| status.success()) {
            skip("tar", "there is no `tar` that unpacks the records");
            return None;
        }
        // Another test run may have been faster.
        if std::fs::rename(unpacked.path(), &corpus).is_ok() {
            let _ = unpacked.keep();
        }
    }
    assert_eq!(std::fs::read_dir(&corpus).unwrap().count(), RECORDS);
    Some(corpus)
}

fn prepare(dir: &Dir, corpus: &Path, more: &[&str]) -> Outcome {
    let arguments = ["prepare", corpus.to_str().unwrap(), "-o", "out", "--no-sync", "--strict"];
    dir.ctxtune(arguments.iter().chain(more)).expect(0)
}

/// The numbers of the records of one side in the order of its lines.
fn numbers(dir: &Dir, side: &str) -> Vec<u32> {
    dir.keys(side).iter().map(|key| key.trim_end_matches(".json").parse().unwrap()).collect()
}

#[test]
fn the_split_and_its_leakage_are_those_of_the_vectors() {
    let Some(corpus) = corpus() else { return };
    let dir = Dir::new();
    let stderr = prepare(&dir, corpus, &[]).stderr;

    let (train, val) = (numbers(&dir, "train"), numbers(&dir, "val"));
    assert_eq!((train.len(), val.len()), (3179, 354));
    assert_eq!(train[..5], [1511, 3411, 2137, 3, 3246]);
    assert_eq!(train[3177..], [3426, 1702]);
    assert_eq!(val[..3], [2532, 407, 2242]);
    assert_eq!(val[352..], [1627, 3449]);

    let manifest = dir.manifest();
    assert_eq!(manifest["leakage"], json!({ "val_sharing_story": 0, "val_sharing_agents": 259 }));
    assert_eq!((&manifest["train"]["records"], &manifest["val"]["records"]), (&json!(3179), &json!(354)));
    assert_eq!(manifest["counts"]["rejected"], 0);
    assert!(dir.read("out/rejects.jsonl").is_empty());
    for words in [
        "354 of them with is_correct: false (--only-correct leaves them out)",
        "story 0 of 354 (0.0 %), set of agents 259 of 354 (73.2 %) (--group-by agents removes it)",
    ] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
}

/// The names of a record's agents as the key of its group.
fn agents_key(corpus: &Path, number: u32) -> String {
    let record: Value =
        serde_json::from_slice(&std::fs::read(corpus.join(format!("{number}.json"))).unwrap()).unwrap();
    let names = record["socialized_context"]["agents_names"].as_array().unwrap();
    let mut names: Vec<&str> = names.iter().map(|name| name.as_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    json!(names).to_string()
}

#[test]
fn a_split_by_agents_is_that_of_the_vector_and_leaks_none() {
    let Some(corpus) = corpus() else { return };
    let dir = Dir::new();
    let stderr = prepare(&dir, corpus, &["--group-by", "agents"]).stderr;

    let (train, val) = (numbers(&dir, "train"), numbers(&dir, "val"));
    assert_eq!((train.len(), val.len()), (3178, 355));
    assert_eq!(val[..3], [2532, 728, 3406]);
    let manifest = dir.manifest();
    assert_eq!(manifest["grouping"], json!({ "groups": 1849, "train_groups": 1672, "deviation": -1 }));
    assert_eq!(manifest["leakage"], json!({ "val_sharing_story": 0, "val_sharing_agents": 0 }));
    assert!(stderr.contains("1,672 of 1,849 groups train, -1 records from the exact count"), "{stderr}");

    let groups = |side: &[u32]| -> Vec<String> { side.iter().map(|n| agents_key(corpus, *n)).collect() };
    let (mut train, val) = (groups(&train), groups(&val));
    train.sort_unstable();
    assert!(val.iter().all(|group| train.binary_search(group).is_err()));
    let first = train.iter().min_by_key(|group| rank(42, group.as_bytes()));
    assert_eq!(first.unwrap(), r#"["Alexander","Mia","Oliver"]"#);
}

#[test]
fn neither_threads_nor_listing_order_nor_place_change_a_byte() {
    let Some(corpus) = corpus() else { return };
    let dir = Dir::new();
    prepare(&dir, corpus, &["--threads", "1"]);
    let expected = dir.tree("out");
    for threads in ["2", "5"] {
        std::fs::remove_dir_all(dir.path("out")).unwrap();
        prepare(&dir, corpus, &["--threads", threads]);
        assert_same_tree(&dir.tree("out"), &expected, &format!("{threads} threads"));
    }
    std::fs::create_dir_all(dir.path("another/place")).unwrap();
    // 3533 is prime: its multiples meet every record once, far from in order.
    for step in 0..RECORDS {
        let name = format!("{}.json", step * 1234 % RECORDS);
        std::fs::copy(corpus.join(&name), dir.path("another/place").join(&name)).unwrap();
    }
    std::fs::remove_dir_all(dir.path("out")).unwrap();
    prepare(&dir, &dir.path("another/place"), &[]);
    assert_same_tree(&dir.tree("out"), &expected, "a shuffled copy in another place");
}

/// What has to stand in the answer: the context's own two keys, and each step's own four.
fn expected_context(context: &Value) -> Value {
    let texts = |value: &Value| match value {
        Value::Array(items) => {
            let pairs = items.iter().map(|item| item.as_str().unwrap().split_once(':').unwrap());
            pairs.map(|(agent, text)| (agent.trim().to_owned(), json!(text.trim()))).collect()
        }
        object => object.clone(),
    };
    let step = |(index, step): (usize, &Value)| {
        json!({
            "timestep": step.get("timestep").cloned().unwrap_or_else(|| json!(index.to_string())),
            "state": step["state"],
            "observations": texts(&step["observations"]),
            "actions": texts(&step["actions"]),
        })
    };
    let steps = context["socialized_context"].as_array().unwrap().iter().enumerate();
    json!({
        "agents_names": context["agents_names"],
        "socialized_context": steps.map(step).collect::<Vec<_>>(),
    })
}

#[test]
fn every_answer_parses_to_the_context_of_its_record() {
    let Some(corpus) = corpus() else { return };
    let dir = Dir::new();
    prepare(&dir, corpus, &[]);
    let mut compared = 0;
    for side in ["train", "val"] {
        let examples = dir.json_lines(&format!("out/{side}.jsonl"));
        for (key, example) in dir.keys(side).iter().zip(&examples) {
            let record: Value = serde_json::from_slice(&std::fs::read(corpus.join(key)).unwrap()).unwrap();
            let answer = example["messages"][2]["content"].as_str().unwrap();
            let answer: Value = serde_json::from_str(answer).unwrap();
            // As text, since equal maps may differ in the order of their keys.
            assert_eq!(
                answer.to_string(),
                expected_context(&record["socialized_context"]).to_string(),
                "{key}"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, RECORDS);
}

#[test]
fn a_few_lines_of_python_recompute_the_split() {
    let Some(corpus) = corpus() else { return };
    for options in [&[][..], &["--group-by", "agents"], &["--group-by", "story", "--seed", "7"]] {
        let Some(mut python) = python() else { return };
        let dir = Dir::new();
        prepare(&dir, corpus, options);
        let split = Outcome::of({
            python.arg(repository("scripts/split.py")).arg(corpus).args(options);
            python
        });
        let rows = dir.key_rows().into_iter().map(|row| format!("{}\t\"{}\"\n", row.side, row.key));
        assert!(split.expect(0).stdout == rows.collect::<String>(), "{options:?}");
    }
}

/// Prepares `corpus` in the upstream layout with this user text and has Python compare every message.
fn check_upstream(dir: &Dir, corpus: &Path, user_text: &str, records: usize) {
    let Some(mut python) = python() else { return };
    let template = json!({
        "messages": [
            { "role": "user", "content": user_text },
            { "role": "assistant", "content": "{context}" },
        ],
        "context": { "form": "list", "indent": 2, "ascii": true },
    });
    // JSON is YAML, and this test owes nothing to the way we write YAML.
    dir.write("upstream.yaml", template.to_string());
    dir.write("user.txt", user_text);
    prepare(dir, corpus, &["--template", "upstream.yaml"]);
    python.arg(repository("tests/it/upstream.py")).arg(corpus);
    python.arg(dir.path("out")).arg(dir.path("user.txt"));
    assert_eq!(Outcome::of(python).expect(0).stdout.trim(), records.to_string());
}

#[test]
fn the_upstream_layout_is_what_pythons_json_dumps_gives() {
    let (Some(corpus), Some(prompts)) = (corpus(), shared_data("upstream/prompts.json")) else { return };
    let prompts: Value = serde_json::from_slice(&std::fs::read(prompts).unwrap()).unwrap();
    let prompt = |name: &str| prompts[name].as_str().unwrap();
    let user_text =
        format!("{}\n\n{{story}}\n\nFollow this schema:\n{}", prompt("task"), prompt("format_instructions"));
    assert!(user_text.contains("{\"$defs\": {"), "the braces of a schema are in it");
    check_upstream(&Dir::new(), corpus, &user_text, RECORDS);
}

#[test]
fn the_upstream_layout_holds_beyond_ascii() {
    let dir = Dir::new();
    let odd =
        "é e\u{301} 😀 \u{7f} \u{80} \u{2028} \u{ffff} \0 \u{1b} \u{8} \u{c} \n\r\t \" \\ / <b> {story}";
    for number in 0..3 {
        let mut told = record(number);
        let step = &mut told["socialized_context"]["socialized_context"][0];
        step["state"] = json!(odd);
        step["actions"] =
            if number == 0 { json!([format!(" Zoë 李 : {odd}")]) } else { json!({ odd: odd }) };
        if number == 1 {
            step["observations"] = json!({});
        }
        dir.write(format!("corpus/{number}.json"), told.to_string());
    }
    check_upstream(&dir, &dir.path("corpus"), "Ünder {story} {{story}} {question", 3);
}

#[test]
fn contexts_that_models_wrote_convert_in_both_forms_and_without_timesteps() {
    let Some(contexts) = shared_data("real_contexts") else { return };
    let dir = Dir::new();
    let (mut lists, mut objects, mut without_timestep) = (0, 0, 0);
    let mut expected = Vec::new();
    for entry in std::fs::read_dir(contexts).unwrap() {
        let path = entry.unwrap().path();
        let context: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let step = &context["socialized_context"][0];
        lists += usize::from(step["observations"].is_array());
        objects += usize::from(step["observations"].is_object());
        without_timestep += usize::from(step.get("timestep").is_none());
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut told = record(0);
        told["socialized_context"] = context.clone();
        dir.write(format!("corpus/{name}"), told.to_string());
        expected.push((name, expected_context(&context)));
    }
    assert_eq!((lists, objects, without_timestep), (2, 1, 1));
    dir.prepare(&["--strict"]).expect(0);
    for (name, context) in expected {
        let answer: Value = serde_json::from_str(dir.texts(&name).last().unwrap()).unwrap();
        assert_eq!(answer.to_string(), context.to_string(), "{name}");
    }
}
