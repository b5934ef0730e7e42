//! `models` and `init`: what can be tuned, and a configuration to begin with.

use ctxtune_rehearsal::Script;
use serde_json::json;

use crate::support::{Dir, Rehearsal, faults as faults_of};

#[test]
fn models_that_can_be_deployed_come_first() {
    let rehearsal = Rehearsal::new();
    let names = |run: &str| -> Vec<String> {
        run.lines().map(|line| line.split('\t').take(2).collect::<Vec<_>>().join(" ")).collect()
    };
    let run = rehearsal.ctxtune(["models"]).expect(0);
    let expected = [
        "Qwen/Qwen3-0.6B yes",
        "Qwen/Qwen3-8B yes",
        "openai/gpt-oss-20b adapter",
        "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference no",
    ];
    assert_eq!(names(&run.stdout), expected);
    assert!(
        run.stdout
            .starts_with("Qwen/Qwen3-0.6B\tyes\tLoRA 64\t4096\nQwen/Qwen3-8B\tyes\tLoRA 64, full\t32768\n"),
        "{}",
        run.stdout
    );
    assert_eq!(names(&rehearsal.ctxtune(["models", "qwen"]).expect(0).stdout), expected[..2]);
    let one = rehearsal.ctxtune(["models", "qwen/qwen3-8b"]).expect(0);
    assert_eq!(names(&one.stdout), expected[1..2]);
    assert!(one.stderr.contains("max_num_epochs: 20"), "all its limits are shown: {}", one.stderr);
    let none = rehearsal.ctxtune(["models", "Qwen/Qwen3-9B"]).expect(2);
    assert!(none.stderr.contains("Qwen/Qwen3-8B"), "the nearest is named: {}", none.stderr);
}

#[test]
fn an_endpoint_is_priced_for_the_tuned_model_of_a_directory_or_by_the_cheapest_machine() {
    let rehearsal = Rehearsal::with(Script { job_seconds: 0.1, verdict_seconds: 0.0, ..Script::default() });
    rehearsal.dir.corpus(10).prepare(&[]).expect(0);
    let run = rehearsal.ctxtune(["models", "qwen", "--for", "out", "--json"]).expect(0);
    let model = json!({
        "name": "string", "deploy": "string", "lora": "boolean", "full": "boolean", "max_epochs": "integer",
        "max_lora_rank": "integer", "min_batch_size": "integer", "max_batch_size": "integer",
        "max_seq_length": "integer", "min_learning_rate": "number", "max_learning_rate": "number",
    });
    let document = run.json();
    for (key, kind) in model.as_object().unwrap() {
        let value = &document["models"][0][key];
        assert!(value.is_string() == (kind == "string") && !value.is_null(), "{key}: {value}");
    }
    crate::support::assert_listed(&document, "models");
    assert_eq!(document["endpoint"]["model"], json!(null));
    let cheapest = document["endpoint"]["dollars_an_hour"].as_f64().unwrap();
    let finetune = [
        "finetune",
        "corpus",
        "-o",
        "out",
        "--no-sync",
        "--yes",
        "--poll",
        "1s",
        "--base-model=Qwen/Qwen3-8B",
    ];
    let tuned = rehearsal.ctxtune(finetune).expect(0).stdout;
    let run = rehearsal.ctxtune(["models", "--for", "out"]).expect(0);
    let said = format!("${cheapest:.2} an hour for {}", tuned.trim());
    assert!(run.stderr.contains(&said), "{said} is not in {}", run.stderr);
    assert!(run.stderr.contains("Qwen/Qwen3-8B $"), "{}", run.stderr);
    let kept = rehearsal.dir.json_lines("state/ctxtune/rates.jsonl");
    assert_eq!((kept.len(), &kept[0]["model"], &kept[0]["lora"]), (1, &json!("Qwen/Qwen3-8B"), &json!(true)));
    let rate = kept[0]["dollars_per_million_tokens"].as_f64().unwrap();
    let models = rehearsal.ctxtune(["models", "--json"]).expect(0).json()["models"].clone();
    let rated = models.as_array().unwrap().iter().filter(|model| model["dollars_per_million_tokens"] == rate);
    assert_eq!(rated.map(|model| &model["name"]).collect::<Vec<_>>(), ["Qwen/Qwen3-8B"]);
    // Without a directory nothing but the models is asked for.
    assert_eq!(rehearsal.ctxtune(["models", "--json"]).expect(0).json()["endpoint"], json!(null));
}

#[test]
fn what_cannot_be_deployed_points_to_the_models() {
    let rehearsal = Rehearsal::new();
    rehearsal.dir.corpus(10).prepare(&[]).expect(0);
    let run = rehearsal.ctxtune(["submit", "out", "--yes"]).expect(0);
    assert!(run.stderr.contains("(`ctxtune models` lists others)"), "{}", run.stderr);
    let run = rehearsal.ctxtune(["doctor", "out"]);
    assert!(run.stderr.contains("ctxtune models lists them"), "{}", run.stderr);
}

#[test]
fn init_writes_a_file_that_changes_nothing_and_overwrites_none() {
    let dir = Dir::new();
    dir.corpus(10);
    assert_eq!(dir.ctxtune(["init"]).expect(0).stdout, "finetune_config.yaml\n");
    dir.prepare(&[]).expect(0);
    let before = dir.tree("out");
    dir.prepare(&["--config-path", "finetune_config.yaml"]).expect(0);
    assert_eq!(dir.tree("out"), before);
    let text = dir.read("finetune_config.yaml");
    let run = dir.ctxtune(["init", "--json"]).expect(1);
    assert_eq!(run.json()["error"]["code"], "foreign_file");
    assert_eq!(dir.read("finetune_config.yaml"), text);
    // A key is set by taking away the mark before it.
    dir.write("set.yaml", text.replace("\n#val_ratio: 0.1\n", "\nval_ratio: 0.3\n"));
    dir.prepare(&["--config-path", "set.yaml"]).expect(0);
    assert_eq!(dir.manifest()["val"]["records"], 3);
    let document = dir.ctxtune(["init", "-o", "new.yaml", "--json"]).expect(0).json();
    crate::support::assert_listed(&document, "init");
    dir.ctxtune(["init", "-o", "no/such/place.yaml"]).expect(1);
}

#[test]
fn a_catalogue_that_cannot_be_read_leaves_names_and_limits_to_decide() {
    let rehearsal = Rehearsal::new();
    let faults = r#"{"rules": [{"path": "/v2/supported-models", "do": {"status": 404}}]}"#;
    rehearsal.server.set_script(|script| script.faults = faults_of(faults));
    let run = rehearsal.ctxtune(["models"]).expect(0);
    assert!(run.stderr.contains("the models that can be deployed are not known"), "{}", run.stderr);
    assert!(run.stdout.contains("Qwen/Qwen3-8B\tyes\t"), "{}", run.stdout);
    assert!(run.stdout.contains("-Reference\tno\t"), "{}", run.stdout);
}
