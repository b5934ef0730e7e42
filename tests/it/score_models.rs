//! Two models asked about the same validation records, and their answers side by side.

use std::collections::BTreeSet;

use ctxtune_engine::record::TextField;
use ctxtune_pipeline::env;
use ctxtune_pipeline::generate::story::Story;
use ctxtune_rehearsal::faults::{Action, When};
use ctxtune_rehearsal::{AnswerStyle, KEY, Script, corpus};
use serde_json::{Value, json};

use crate::service::{rule, status};
use crate::support::{Outcome, Rehearsal};

const CHAT: &str = "POST /v1/chat/completions";

const BASE: &str = "Qwen/Qwen3-8B";

/// A tuned model that somebody has deployed.
const TUNED: &str = "me/contexts";

const MODELS: &str = "Qwen/Qwen3-8B,together_ai/me/contexts";

/// A server with both models, and a directory prepared from 24 records, five of which validate.
fn scene(answers: &[AnswerStyle]) -> Rehearsal {
    let deployed_models = vec![TUNED.to_owned()];
    let rehearsal =
        Rehearsal::with(Script { answers: answers.to_vec(), deployed_models, ..Script::default() });
    corpus::write(&rehearsal.dir.path("corpus")).unwrap();
    rehearsal.dir.prepare(&["--val-ratio=0.2"]).expect(0);
    rehearsal
}

/// `score --models BASE,TUNED --val out` with these flags.
fn compare(rehearsal: &Rehearsal, flags: &[&str]) -> Outcome {
    rehearsal.ctxtune(["score", "--models", MODELS, "--val", "out"].iter().chain(flags))
}

/// What the user says in each of these bodies or training lines.
fn prompts(bodies: &[Value]) -> BTreeSet<String> {
    let user = |body: &Value| {
        let messages = body["messages"].as_array().unwrap();
        let message = messages.iter().find(|message| message["role"] == "user").unwrap();
        message["content"].as_str().unwrap().to_owned()
    };
    bodies.iter().map(user).collect()
}

/// The bodies of all questions, with their model.
fn asked(rehearsal: &Rehearsal) -> Vec<(String, Value)> {
    let seen = rehearsal.requests(CHAT);
    let body = |body: &[u8]| -> Value { serde_json::from_slice(body).unwrap() };
    let with_model = |body: Value| (body["model"].as_str().unwrap().to_owned(), body);
    seen.iter().map(|seen| with_model(body(&seen.body))).collect()
}

#[test]
fn two_models_are_asked_what_they_were_trained_on_and_stand_side_by_side() {
    let rehearsal = scene(&[]);
    let run = compare(&rehearsal, &["--yes"]).expect(0);
    let trained = prompts(&rehearsal.dir.json_lines("out/val.jsonl"));
    assert_eq!(trained.len(), 5);
    for model in [BASE, TUNED] {
        let bodies: Vec<Value> =
            asked(&rehearsal).into_iter().filter(|(of, _)| of == model).map(|(_, body)| body).collect();
        assert_eq!((bodies.len(), prompts(&bodies)), (5, trained.clone()), "{model}");
        assert!(bodies.iter().all(|body| body["temperature"] == 0.0 && body["seed"] == 42), "{model}");
    }
    for said in [
        "model     Qwen/Qwen3-8B at http://127.0.0.1:",
        "generated A = Qwen/Qwen3-8B: 5 of 5 valid",
        "generated B = me/contexts: 5 of 5 valid",
        "B - A, with its 95 % interval",
    ] {
        assert!(run.stderr.contains(said), "{said}: {}", run.stderr);
    }
    // The very numbers of the same answers, scored as files.
    let files = ["score", "out", "out/generated/Qwen--Qwen3-8B", "out/generated/me--contexts"];
    assert_eq!(rehearsal.ctxtune(files).expect(0).stdout, run.stdout);
    let [base, tuned] = [0, 1]
        .map(|column| -> f64 { run.stdout.trim_end().split('\t').nth(column).unwrap().parse().unwrap() });
    assert!(0.0 < base && base < tuned && tuned < 1.0, "{}", run.stdout);
    // What was generated is what `prepare` reads, story included.
    rehearsal.ctxtune(["prepare", "out/generated/me--contexts", "-o", "again", "--no-sync"]).expect(0);
    let lines = ["train", "val"].map(|side| rehearsal.dir.json_lines(&format!("again/{side}.jsonl")));
    assert_eq!(prompts(&lines.concat()), trained);
    assert_eq!(rehearsal.server.violations(), Vec::<String>::new());
}

#[test]
fn kept_answers_are_records_with_their_story_whatever_the_template() {
    for (message, is_exact) in [
        ("{story}|{question}", true),
        ("{question}<>{story}", true),
        ("{story} {question}", false),
        ("{story}{question}", false),
        ("{question}", false),
    ] {
        let rehearsal = scene(&[]);
        let template = format!(
            "messages: [{{role: user, content: '{message}'}}, {{role: assistant, content: '{{context}}'}}]"
        );
        rehearsal.dir.write("template.yaml", template);
        rehearsal.dir.prepare(&["--val-ratio=0.2", "--template=template.yaml"]).expect(0);
        let read = |bytes: &[u8]| {
            let story = Story::read(bytes).unwrap();
            (story.text.clone(), story.get(TextField::Question).map(str::to_owned))
        };
        let keys = rehearsal.dir.keys("val");
        let sources: BTreeSet<(String, Option<String>)> =
            keys.iter().map(|key| read(rehearsal.dir.read(format!("corpus/{key}")).as_bytes())).collect();
        let score = ["score", "--models", TUNED, "--val=out", "--yes"];
        rehearsal.ctxtune(score).expect(0);
        // All are read again, and the same template makes the same prompts of them.
        let again = [
            "prepare",
            "out/generated/me--contexts",
            "-o=again",
            "--template=template.yaml",
            "--strict",
            "--no-sync",
        ];
        rehearsal.ctxtune(again).expect(0);
        let lines = ["train", "val"].map(|side| rehearsal.dir.json_lines(&format!("again/{side}.jsonl")));
        assert_eq!(
            prompts(&lines.concat()),
            prompts(&rehearsal.dir.json_lines("out/val.jsonl")),
            "{message}"
        );
        let kept = rehearsal.dir.tree("out/generated/me--contexts");
        assert_eq!(kept.len(), 5);
        for (_, bytes) in &kept {
            let record: Value = serde_json::from_slice(bytes).unwrap();
            let is_guessed = record["generated"]["story_from"] == "prompt";
            assert_eq!(is_guessed, !is_exact, "{message}: {record}");
        }
        if is_exact {
            let kept: BTreeSet<(String, Option<String>)> =
                kept.iter().map(|(_, bytes)| read(bytes)).collect();
            assert_eq!(kept, sources, "{message}");
        }
    }
}

#[test]
fn records_named_like_invalid_answers_and_long_ones_are_scored_beside_the_others() {
    let rehearsal = scene(&[]);
    std::fs::remove_dir_all(rehearsal.dir.path("out")).unwrap();
    let record = |name: &str| {
        let step =
            json!({ "timestep": "0", "state": "s", "observations": { "A": "o" }, "actions": { "A": "a" } });
        json!({
            "story": format!("{name} came."), "question": "q", "answer": "a",
            "socialized_context": { "agents_names": ["A"], "socialized_context": [step] },
        })
    };
    let longer = format!("{}.json", "n".repeat(243));
    for name in ["x.json", "x.invalid.json", "y.json", &longer, "t.json"] {
        rehearsal.dir.write(format!("names/{name}"), record(name).to_string());
    }
    // By this seed `t.json` trains, and `x.invalid.json` is asked about before `x.json` is.
    let prepare = ["prepare", "names", "-o=out", "--val-ratio=0.8", "--seed=13", "--no-sync"];
    rehearsal.ctxtune(prepare).expect(0);
    assert_eq!(rehearsal.dir.keys("val"), ["y.json", "x.invalid.json", "x.json", &longer]);
    for limit in ["--limit=1", "--limit=2", "--limit=5"] {
        let arguments = ["score", "--models", TUNED, "--val=out", "--yes", "--json", limit];
        rehearsal.ctxtune(arguments).expect(0);
    }
    let run = rehearsal.ctxtune(["score", "--models", TUNED, "--val=out", "--json"]).expect(0).json();
    assert_eq!((&run["asked"][0]["valid"], &run["asked"][0]["rejected"]), (&json!(3), &json!(1)));
    assert_eq!(asked(&rehearsal).len(), 3, "each is asked once, whatever the limit was");
    let coverage = json!({ "valid": 3, "invalid": 0, "unreadable": 0, "missing": 1 });
    assert_eq!(run["sets"][0]["coverage"], coverage);
}

#[test]
fn what_was_answered_is_not_asked_again() {
    let rehearsal = scene(&[]);
    // The second model is not there yet.
    rehearsal.server.set_script(|script| script.deployed_models = Vec::new());
    let run = compare(&rehearsal, &["--yes", "--json", "--concurrency=1"]).expect(2);
    assert_eq!(run.json()["error"]["code"], "model_not_available");
    assert_eq!((&run.json()["asked"][0]["valid"], &run.json()["asked"][1]["left"]), (&json!(5), &json!(5)));
    assert!(run.json()["error"]["hint"].as_str().unwrap().contains("ctxtune deploy"), "{}", run.stdout);
    rehearsal.server.set_script(|script| script.deployed_models = vec![TUNED.to_owned()]);
    let before = asked(&rehearsal).len();
    let first = compare(&rehearsal, &["--yes"]).expect(0);
    assert!(asked(&rehearsal)[before..].iter().all(|(model, _)| model == TUNED));
    assert_eq!(asked(&rehearsal).len(), before + 5);
    // Nothing is left to pay for: no yes is needed.
    assert_eq!(compare(&rehearsal, &[]).expect(0).stdout, first.stdout);
    assert_eq!(asked(&rehearsal).len(), before + 5);
    // Another pair shares what one of them has answered.
    rehearsal.ctxtune(["score", "--models", TUNED, "--val", "out"]).expect(0);
    assert_eq!(asked(&rehearsal).len(), before + 5);
}

#[test]
fn another_model_under_the_same_name_is_asked_anew() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    let score = || {
        let deploy = ["deploy", "out", "--name=contexts", "--yes", "--detach"];
        rehearsal.ctxtune(deploy).expect(0);
        let models = ["score", "--models=rehearsal/contexts", "--val=out", "--yes", "--json"];
        rehearsal.ctxtune(models).expect(0).json()["asked"][0]["requests"].as_u64().unwrap()
    };
    let first = score();
    assert!(first > 0);
    assert_eq!(score(), 0);
    rehearsal.ctxtune(["endpoints", "stop", "contexts"]).expect(0);
    assert_eq!(score(), 0, "the same model, deployed again");
    rehearsal.ctxtune(["endpoints", "stop", "contexts"]).expect(0);
    rehearsal.ctxtune(["submit", "out", "--yes", "--n-epochs=1", "--base-model=Qwen/Qwen3-8B"]).expect(0);
    rehearsal.forward(1000.0);
    assert_eq!(score(), first);
    // An answer of weights that nobody knows is not paid for again.
    rehearsal.fail([rule("GET /v2", When::Always, status(403))]);
    let models = ["score", "--models=rehearsal/contexts", "--val=out", "--yes", "--json"];
    assert_eq!(rehearsal.ctxtune(models).expect(0).json()["asked"][0]["requests"], 0);
}

#[test]
fn nothing_is_asked_without_consent_or_beyond_the_cap() {
    let rehearsal = scene(&[]);
    let check = |flags: &[&str], exit: i32, code: &str| {
        let run = compare(&rehearsal, &[&["--json"], flags].concat()).expect(exit);
        assert_eq!(run.json()["error"]["code"], code, "{}", run.stderr);
    };
    check(&[], 9, "no_consent");
    check(&["--max-cost=1"], 9, "no_price");
    check(&["--max-cost=0.000001", "--price-per-million=1"], 9, "over_max_cost");
    assert_eq!(asked(&rehearsal), []);
    // One cap for both models: the first spends most of it.
    let flags = ["--max-cost=0.01", "--price-per-million=1", "--concurrency=1"];
    check(&flags, 9, "over_max_cost");
    let models = |model: &str| asked(&rehearsal).iter().filter(|(of, _)| of == model).count();
    assert_eq!(models(BASE), 5);
    assert!(models(TUNED) < 5, "{}", models(TUNED));
    compare(&rehearsal, &["--max-cost=1", "--price-per-million=1"]).expect(0);
}

#[test]
fn an_answer_that_is_no_context_counts_nothing() {
    let rehearsal = scene(&[AnswerStyle::Words]);
    let run = compare(&rehearsal, &["--yes", "--attempts=2", "--json"]).expect(0);
    let document = run.json();
    assert_eq!(
        document["sets"][1]["coverage"],
        json!({ "valid": 0, "invalid": 5, "unreadable": 0, "missing": 0 })
    );
    assert_eq!(document["sets"][1]["scores"]["overall"]["mean"], 0.0);
    assert_eq!(asked(&rehearsal).len(), 20);
    rehearsal.server.set_script(|script| script.answers = Vec::new());
    compare(&rehearsal, &[]).expect(0);
    assert_eq!(asked(&rehearsal).len(), 20, "they are finished");
    let run = compare(&rehearsal, &["--retry-invalid", "--yes", "--json"]).expect(0);
    assert_eq!(run.json()["sets"][1]["coverage"]["valid"], 5);
}

#[test]
fn trouble_on_the_way_is_gone_on_from() {
    let rehearsal = scene(&[]);
    rehearsal.fail([rule(CHAT, When::Every(4), status(503)), rule(CHAT, When::Every(7), Action::LoseReply)]);
    compare(&rehearsal, &["--yes"]).expect(0);
    rehearsal.fail([rule(CHAT, When::Always, status(401))]);
    let run = compare(&rehearsal, &["--yes", "--limit=3", "-o", "elsewhere", "--json"]).expect(4);
    assert_eq!(
        (&run.json()["asked"][0]["left"], run.json()["asked"].as_array().unwrap().len()),
        (&json!(3), 1)
    );
    rehearsal.fail([]);
    compare(&rehearsal, &["--yes", "--limit=3", "-o", "elsewhere"]).expect(0);
    assert_eq!(rehearsal.dir.tree("elsewhere/me--contexts").len(), 3);
}

#[cfg(target_os = "linux")]
#[test]
fn that_a_server_is_asked_over_plain_http_is_said_once_for_both_models() {
    let rehearsal = scene(&[]);
    rehearsal.server.set_script(|script| script.key = String::new());
    let url = rehearsal.server.url().replace("127.0.0.1", "0.0.0.0");
    let mut command =
        rehearsal.command(["score", "--models", MODELS, "--val", "out", "--yes", "--base-url", &url]);
    command.env_remove(env::CTXTUNE_TIME_SCALE);
    assert_eq!(Outcome::of(command).expect(0).stderr.matches("http is not encrypted").count(), 1);
}

#[test]
fn a_server_on_this_machine_is_asked_without_a_yes_and_without_the_together_key() {
    let rehearsal = scene(&[]);
    let url = format!("--base-url={}", rehearsal.server.url());
    let mut command = rehearsal.command(["score", "--models", MODELS, "--val", "out", &url]);
    command.env(env::TOGETHER_API_KEY, "the-together-key").env(env::OPENAI_API_KEY, KEY);
    Outcome::of(command).expect(0);
    let seen = rehearsal.server.seen();
    assert_eq!(seen.len(), 10, "only chat");
    assert!(seen.iter().all(|seen| seen.authorization.as_deref() == Some(&format!("Bearer {KEY}"))));
}

#[test]
fn a_limit_takes_the_first_validation_lines() {
    let rehearsal = scene(&[]);
    let run = compare(&rehearsal, &["--yes", "--limit=2", "--json"]).expect(0);
    let rows = rehearsal.dir.key_rows();
    let first: BTreeSet<String> =
        rows.iter().filter(|row| row.side == "val").take(2).map(|row| row.key.clone()).collect();
    let records = run.json()["records"].as_array().unwrap().clone();
    let scored = records.iter().map(|record| record["key"].as_str().unwrap().to_owned());
    assert_eq!(scored.collect::<BTreeSet<_>>(), first);
    assert_eq!(asked(&rehearsal).len(), 4);
    compare(&rehearsal, &["--yes", "--limit=100"]).expect(0);
    assert_eq!(asked(&rehearsal).len(), 10);
    // Answers to the other lines are no answers without a reference.
    let again = compare(&rehearsal, &["--limit=2", "--json"]).expect(0).json();
    assert_eq!(again["sets"][0]["extra"], json!([]));
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_is_asked() {
    let rehearsal = scene(&[]);
    let check = |arguments: &[&str], words: &str| {
        let run = rehearsal.ctxtune(["score"].iter().chain(arguments)).expect(2);
        assert!(run.stderr.contains(words), "{arguments:?}: {}", run.stderr);
    };
    check(&["--models", "a,b,c", "--val=out", "--yes"], "names 3 models");
    check(&["--models", "a/b,a--b", "--val=out", "--yes"], "would have one directory");
    check(&["--models", "a,a", "--val=out", "--yes"], "names `a` twice");
    check(&["--models", "a,b"], "--val");
    check(&["--val", "out"], "--models");
    check(&["out", "corpus", "--models=a", "--val=out"], "cannot be used with");
    check(&["out", "corpus", "--concurrency=2"], "cannot be used with");
    check(&["out", "corpus", "--limit=2"], "cannot be used with");
    check(&["out"], "<GEN>");
    check(&["--models", "a", "--val=corpus", "--yes"], "holds no prepared data");
    assert_eq!(asked(&rehearsal), []);
}

#[test]
fn the_document_says_what_was_asked() {
    let rehearsal = scene(&[]);
    let shape = |one: &Value| crate::support::shape(one);
    let run = compare(&rehearsal, &["--yes", "--json", "--price-per-million=1"]).expect(0);
    let document = run.json();
    let expected = json!({
        "model": "string", "server": "string", "template": "string", "output_dir": "string", "valid": "integer",
        "invalid": "integer", "rejected": "integer", "left": "integer", "finished_before": "integer", "nulls": "integer",
        "requests": "integer", "repeated": "integer", "dollars": "number", "dollars_of_lost_answers": "number",
        "usage": { "prompt_tokens": "integer", "completion_tokens": "integer", "total_tokens": "integer" },
        "seconds": "number", "invalid_stories": [], "rejected_records": [],
    });
    for (asked, model) in document["asked"].as_array().unwrap().iter().zip([BASE, TUNED]) {
        assert_eq!((&asked["model"], shape(asked)), (&json!(model), expected.clone()));
        let tokens = asked["usage"]["total_tokens"].as_f64().unwrap();
        assert_eq!(asked["dollars"], tokens / 1e6, "each model's own");
    }
    let offline = rehearsal.ctxtune(["score", "out", "corpus", "--json"]).expect(0).json();
    assert_eq!(offline["asked"], Value::Null);
    assert!(crate::support::repository_text("docs/reference/json.md").contains("`asked`"));
}
