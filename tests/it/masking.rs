//! Keys are masked in messages; answers of models and data of the service are not changed by that.

use std::collections::BTreeSet;

use ctxtune_pipeline::env;
use ctxtune_rehearsal::Script;
use serde_json::{Value, json};

use crate::server::Server;
use crate::support::{Outcome, Rehearsal, at_once};

/// A story whose answer is a context; any other story's is not JSON.
const STORY: &str = "Ada came into the pantry. Bo was there.";

const OTHER: &str = "Nobody came.";

/// A key of 16 characters.
const LONG_KEY: &str = "sk-loc-012345678";

/// A context of more than 2,048 bytes, with the words of [`KEYS`] and what masking used to remove.
fn context() -> Value {
    let texts = json!({ "Ada": "none  of\r\n\tit, \u{200b}sk-local-012345 Ada", "Bo": "none\u{7}" });
    let steps: Vec<Value> = (0..20)
        .map(|step| json!({ "timestep": step.to_string(), "state": "none", "observations": texts, "actions": texts }))
        .collect();
    json!({ "agents_names": ["Ada", "Bo"], "socialized_context": steps })
}

/// Placeholders that users set where a server wants some key, and a key of 15 characters.
const KEYS: [&str; 4] = ["none", "Ada", "sk-local-012345", ""];

/// What is no context, also longer than 2,048 bytes.
fn words() -> String {
    format!("none  \u{1b}[31m sk-local-012345 \u{200b}{}", "no, Ada. ".repeat(300))
}

/// A server that speaks as OpenAI's does; `echo` is added to the words.
fn chat_server(echo: &'static str) -> Server {
    Server::start(move |exchange| {
        exchange.read_body();
        let body = exchange.request.json();
        let is_story = body["messages"].to_string().contains(STORY);
        let content = if is_story { context().to_string() } else { words() + echo };
        if body["stream"] == true {
            let frame = json!({ "choices": [{ "delta": { "content": content }, "finish_reason": "stop" }] });
            let frames = format!("data: {frame}\n\ndata: [DONE]\n\n");
            return exchange.reply(200, &[("Content-Type", "text/event-stream")], frames);
        }
        let message = json!({ "role": "assistant", "content": content });
        exchange.json(200, json!({ "choices": [{ "message": message, "finish_reason": "stop" }] }));
    })
}

/// The program, asking `server` with `key`.
fn ask(rehearsal: &Rehearsal, (server, key): (&Server, &str), arguments: &[&str]) -> Outcome {
    let url = server.url("");
    let mut command = rehearsal.command(arguments.iter().copied().chain(["--base-url", &url]));
    if !key.is_empty() {
        command.env(env::OPENAI_API_KEY, key);
    }
    Outcome::of(command)
}

fn file(rehearsal: &Rehearsal, name: &str) -> Value {
    serde_json::from_str(&rehearsal.dir.read(name)).unwrap()
}

#[test]
fn a_placeholder_key_changes_no_answer_in_a_pipe_a_document_or_a_stream() {
    let server = chat_server("");
    let rehearsal = Rehearsal::new();
    for key in KEYS {
        let asked = |arguments: &[&str]| {
            let arguments = [&["generate", "--model=tuned", "--attempts=1"], arguments].concat();
            ask(&rehearsal, (&server, key), &arguments)
        };
        let run = asked(&[STORY]).expect(0);
        assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap(), context(), "{key}");
        assert_eq!(asked(&[STORY, "--json"]).expect(0).json()["context"], context(), "{key}");
        let streamed = asked(&[STORY, "--stream"]).expect(0);
        assert!(streamed.stderr.contains(&context().to_string()), "{key}: {}", streamed.stderr);
        let invalid = asked(&[OTHER, "--json"]).expect(3);
        assert_eq!(invalid.json()["raw_answer"], words(), "{key}");
        assert!(asked(&[OTHER, "--stream"]).expect(3).stderr.contains(&words()), "{key}");
    }
}

#[test]
fn a_placeholder_key_changes_no_record_and_no_score() {
    let server = chat_server("");
    let rehearsal = Rehearsal::new();
    let mut stories = Vec::new();
    for (number, story) in [STORY, OTHER, STORY].into_iter().enumerate() {
        stories.push(json!({
            "story": format!("{story} ({number})"), "question": "q", "answer": "a", "socialized_context": context(),
        }));
    }
    for (number, story) in stories.iter().enumerate() {
        rehearsal.dir.write(format!("corpus/{number}.json"), story.to_string());
    }
    rehearsal.dir.prepare(&["--val-ratio=0.6"]).expect(0);
    let mut scores = Vec::new();
    for (number, key) in KEYS.into_iter().enumerate() {
        let gen_dir = format!("gen-{number}");
        let arguments =
            ["generate", "corpus", "--output-dir", &gen_dir, "--model=tuned", "--attempts=1", "--json"];
        ask(&rehearsal, (&server, key), &arguments).expect(3);
        for kept in ["0.json", "2.json"] {
            assert_eq!(
                file(&rehearsal, &format!("{gen_dir}/{kept}"))["socialized_context"],
                context(),
                "{key}"
            );
        }
        assert_eq!(file(&rehearsal, &format!("{gen_dir}/1.invalid.json"))["raw_answer"], words(), "{key}");
        let kept = format!("kept-{number}");
        let arguments =
            ["score", "--models=tuned", "--val=out", "--output-dir", &kept, "--attempts=1", "--json"];
        let run = ask(&rehearsal, (&server, key), &arguments).expect(0).json();
        scores.push(run["sets"][0]["scores"].clone());
    }
    assert!(scores[0]["overall"]["mean"].as_f64().unwrap() > 0.0, "{scores:?}");
    assert!(scores.iter().all(|score| *score == scores[0]), "{scores:?}");
}

#[test]
fn an_answer_with_a_long_key_is_refused_whole() {
    let server = chat_server(LONG_KEY);
    let rehearsal = Rehearsal::new();
    let asked = |arguments: &[&str]| {
        let arguments = [&["generate", "--model=tuned"], arguments].concat();
        ask(&rehearsal, (&server, LONG_KEY), &arguments)
    };
    for arguments in [&[OTHER, "--json"][..], &[OTHER, "--json", "--stream", "-v"]] {
        let before = server.requests().len();
        let run = asked(arguments).expect(3);
        let document = run.json();
        assert_eq!(document["error"]["code"], "invalid_answer", "{}", run.stdout);
        assert_eq!(document["raw_answer"], "", "{}", run.stdout);
        assert_eq!(server.requests().len() - before, 3, "asked again like after any other invalid answer");
        assert!(!run.stdout.contains(LONG_KEY) && !run.stderr.contains(LONG_KEY), "{}", run.stderr);
    }
    rehearsal.dir.write("corpus/a.json", json!({ "story": STORY }).to_string());
    rehearsal.dir.write("corpus/b.json", json!({ "story": OTHER }).to_string());
    let run = asked(&["corpus", "-o", "gen", "--json"]).expect(3).json();
    assert_eq!((&run["valid"], &run["invalid"]), (&json!(1), &json!(1)));
    assert_eq!(run["invalid_stories"][0]["code"], "echoes_key");
    let kept = file(&rehearsal, "gen/b.invalid.json");
    assert_eq!((&kept["raw_answer"], &kept["generated"]["invalid"]), (&json!(""), &json!("echoes_key")));
    let has_key = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(LONG_KEY);
    assert!(!rehearsal.dir.tree("gen").iter().any(|(_, bytes)| has_key(bytes)));
    // It is finished like any other, and known again.
    let before = server.requests().len();
    let again = asked(&["corpus", "-o", "gen", "--json"]).expect(3).json();
    assert_eq!(
        (&again["invalid_stories"][0]["code"], server.requests().len()),
        (&json!("echoes_key"), before)
    );
}

#[test]
fn names_ids_and_events_are_those_of_the_service_whatever_the_key() {
    let texts = |key: &str| {
        let script =
            Script { key: key.to_owned(), verdict_seconds: 0.0, job_seconds: 1.0, ..Script::default() };
        let rehearsal = Rehearsal::with(script);
        rehearsal.dir.corpus(12).prepare(&[]).expect(0);
        let run = |arguments: &[&str]| {
            let mut command = rehearsal.command(arguments);
            command.env(env::TOGETHER_API_KEY, key);
            Outcome::of(command).expect(0)
        };
        let job = run(&["submit", "out", "--yes", "--json"]).json();
        let monitored = run(&["monitor", "out", "--events"]).stdout;
        let listed = run(&["jobs", "--json"]).json();
        let kept = rehearsal.dir.read(format!("out/runs/{}.json", job["tag"].as_str().unwrap()));
        let files = run(&["files", "--json"]).json();
        let all = format!("{job}\n{monitored}\n{listed}\n{files}\n{kept}");
        assert!(!all.contains("[key]"), "{key}: {all}");
        // The last digits are the server's own, another time others.
        let model = listed["jobs"][0]["model"].as_str().unwrap();
        let files = files["files"].as_array().unwrap().iter();
        let names: BTreeSet<String> = files.map(|file| file["name"].as_str().unwrap().to_owned()).collect();
        (model[..model.len() - 8].to_owned(), names, monitored.lines().count() > 5)
    };
    let keys = [ctxtune_rehearsal::KEY, "rehearsal", "Job", "jsonl", "completed", "socialized"];
    let texts = at_once(keys, texts);
    let expected = &texts[0];
    assert!(expected.0.starts_with("rehearsal/") && expected.2, "{expected:?}");
    for (key, texts) in keys.iter().zip(&texts) {
        assert_eq!(texts, expected, "{key}");
    }
}
