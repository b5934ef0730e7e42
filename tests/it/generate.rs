//! Contexts of stories from a model that chats: one, many, over a bad network, killed and gone on with.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use ctxtune_engine::line::template::Form;
use ctxtune_pipeline::env;
use ctxtune_pipeline::generate::ask::{Effort, Outcome as Asked};
use ctxtune_pipeline::generate::file::{Origin, text};
use ctxtune_pipeline::generate::story::Story;
use ctxtune_pipeline::generate::verdict::{judge_completion, reformed};
use ctxtune_rehearsal::faults::{Action, Faults, Rule, Side, When};
use ctxtune_rehearsal::{AnswerStyle, KEY, Script, Seen, Server, Stage};
use ctxtune_service::together::chat::Completion;
use serde_json::{Value, json};

use crate::service::{rule, status, status_with_retry_after};
use crate::support::{Dir, Outcome, Rehearsal, repository, shape, shared_data, texts_of};

const CHAT: &str = "POST /v1/chat/completions";

const MODEL: &str = "Qwen/Qwen3-8B";

const STORY: &str = "Mia entered the lounge. Noah left it!";

/// What the server's model says about that story.
const CONTEXT: &str = r#"{"agents_names": ["Mia", "Noah"], "socialized_context": [{"timestep": "0", "state": "none", "observations": {"Mia": "none", "Noah": "none"}, "actions": {"Mia": "Mia entered the lounge.", "Noah": "none"}}, {"timestep": "1", "state": "Mia entered the lounge.", "observations": {"Mia": "<same_as_last_action />", "Noah": "<same_as_last_action />"}, "actions": {"Mia": "none", "Noah": "Noah left it!"}}]}"#;

fn server(answers: &[AnswerStyle]) -> Rehearsal {
    Rehearsal::with(Script { answers: answers.to_vec(), ..Script::default() })
}

/// `generate --model` with these arguments.
fn ask(rehearsal: &Rehearsal, arguments: &[&str]) -> Outcome {
    rehearsal.ctxtune(["generate", "--model", MODEL].iter().chain(arguments))
}

/// `generate corpus -o gen --yes` with these flags.
fn ask_many(rehearsal: &Rehearsal, flags: &[&str]) -> Outcome {
    ask(rehearsal, &[&["corpus", "-o", "gen", "--yes"], flags].concat())
}

/// Writes `count` stories, each with names and sentences of its own.
fn stories(dir: &Dir, count: usize) {
    let lines: Vec<String> = (0..count)
        .map(|number| {
            let story = format!("Ada{number} opened door {number}. Ben{number} saw it. Nobody spoke.");
            json!({ "story": story, "id": number }).to_string()
        })
        .collect();
    dir.write("stories.jsonl", lines.join("\n"));
}

/// The bodies of all questions that the server was asked.
fn asked(rehearsal: &Rehearsal) -> Vec<Value> {
    let seen = rehearsal.requests("POST /v1/chat/completions");
    seen.iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect()
}

fn record(dir: &Dir, name: &str) -> Value {
    serde_json::from_str(&dir.read(name)).unwrap()
}

#[test]
fn one_story_is_answered_however_it_is_given_and_shown() {
    let rehearsal = server(&[]);
    rehearsal.dir.write("story.txt", STORY);
    let list = "['Mia entered the lounge.', 'Noah left it!']";
    for arguments in
        [&[STORY][..], &[list], &["--story-file", "story.txt"], &[STORY, "--stream"], &["--", STORY]]
    {
        let run = ask(&rehearsal, arguments).expect(0);
        assert_eq!(run.stdout, format!("{CONTEXT}\n"), "{arguments:?}");
        let is_shown = run.stderr.contains("\"agents_names\":");
        assert_eq!(is_shown, arguments.contains(&"--stream"), "{}", run.stderr);
    }
    let mut command =
        rehearsal.command(["generate", "--model", "together_ai/Qwen/Qwen3-8B", "-", "--form=list"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(STORY.as_bytes()).unwrap();
    let run = Outcome::from(child.wait_with_output().unwrap()).expect(0);
    assert!(
        run.stdout.contains(r#""actions": ["Mia: Mia entered the lounge.", "Noah: none"]"#),
        "{}",
        run.stdout
    );
    assert!(run.stderr.contains("is Qwen/Qwen3-8B"), "{}", run.stderr);
    assert_eq!(rehearsal.server.violations(), Vec::<String>::new());
}

#[test]
fn the_parameters_are_sent_as_they_are_set_and_nothing_else() {
    let rehearsal = server(&[]);
    ask(&rehearsal, &[STORY]).expect(0);
    let flags = [
        "--temperature=0",
        "--top-p=0.9",
        "--max-tokens=77",
        "--seed=5",
        "--stop=END",
        "--stop=\n",
        "--no-schema",
    ];
    ask(&rehearsal, &[&[STORY][..], &flags].concat()).expect(0);
    let [plain, set] = asked(&rehearsal).try_into().unwrap();
    let names: Vec<&String> = plain.as_object().unwrap().keys().collect();
    assert_eq!(names, ["model", "messages", "temperature", "max_tokens", "response_format"]);
    assert_eq!((&plain["temperature"], &plain["max_tokens"]), (&json!(0.7), &json!(4096)));
    let roles: Vec<&str> = plain["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["system", "user"], "the template's, without the assistant");
    assert_eq!(set["stop"], json!(["END", "\n"]));
    let numbers =
        json!([set["temperature"], set["top_p"], set["max_tokens"], set["seed"], set["response_format"]]);
    assert_eq!(numbers, json!([0.0, 0.9, 77, 5, null]));
    for wrong in
        ["--temperature=2.1", "--top-p=0", "--max-tokens=0", "--attempts=0", "--rpm=0", "--concurrency=0"]
    {
        ask(&rehearsal, &[STORY, wrong]).expect(2);
    }
}

#[test]
fn every_way_to_answer_is_taken_or_asked_again() {
    use AnswerStyle::{Cut, Fenced, Invalid, List, Plain, Words};
    for (answers, requests) in [
        (&[Fenced][..], 1),
        (&[List], 1),
        (&[Cut, Fenced], 2),
        (&[Words, Invalid, List], 3),
        (&[Invalid, Plain], 2),
    ] {
        for stream in [&["--stream", "--seed=7"][..], &["--seed=7"]] {
            let rehearsal = server(answers);
            let run = ask(&rehearsal, &[&[STORY][..], stream].concat()).expect(0);
            assert_eq!(run.stdout, format!("{CONTEXT}\n"), "{answers:?}");
            let seeds: Vec<Value> = asked(&rehearsal).iter().map(|body| body["seed"].clone()).collect();
            let expected: Vec<Value> = (7..7 + requests).map(Value::from).collect();
            assert_eq!(seeds, expected, "{answers:?}: another answer has another seed");
        }
    }
}

#[test]
fn an_answer_that_is_never_a_context_ends_with_the_reason_and_the_answer() {
    for (manner, attempts, reason) in [
        (AnswerStyle::Cut, "3", "3 answers: the answer was cut at max_tokens (finish_reason: length)"),
        (AnswerStyle::Words, "1", "1 answer: the answer is not JSON"),
        (AnswerStyle::Invalid, "2", "2 answers: observations of step 1 lack `Mia`"),
    ] {
        let rehearsal = server(&[manner]);
        let run = ask(&rehearsal, &[STORY, "--attempts", attempts]).expect(3);
        assert!(run.stdout.is_empty() && run.stderr.contains(reason), "{}", run.stderr);
        assert!(run.stderr.contains("the last answer was: "), "{}", run.stderr);
        assert_eq!(asked(&rehearsal).len().to_string(), attempts);
    }
}

/// The document of a single story.
fn one_document() -> Value {
    json!({
        "model": "string", "server": "string", "template": "string", "attempts": "integer",
        "requests": "integer", "repeated": "integer", "finish_reason": "string",
        "usage": {
            "prompt_tokens": "integer", "completion_tokens": "integer", "total_tokens": "integer",
        },
        "dollars": "null", "raw_answer": "null", "context": "null",
    })
}

/// The fields of a document that are its command's own.
fn own_fields(run: &Outcome) -> Value {
    assert_eq!(run.stdout.matches('\n').count(), 1, "one line: {}", run.stdout);
    let mut document = run.json();
    assert_eq!((&document["schema"], &document["command"]), (&json!("ctxtune.cli/1"), &json!("generate")));
    assert_eq!((&document["ok"], &document["exit"]), (&json!(run.code == Some(0)), &json!(run.code)));
    for common in ["schema", "command", "ok", "exit", "error"] {
        document.as_object_mut().unwrap().shift_remove(common).unwrap();
    }
    document
}

#[test]
fn the_documents_are_pinned() {
    let rehearsal = server(&[]);
    let run = ask(&rehearsal, &[STORY, "--json", "--price-per-million=2"]).expect(0);
    let fields = own_fields(&run);
    assert_eq!(fields["context"], serde_json::from_str::<Value>(CONTEXT).unwrap());
    let mut expected = one_document();
    expected["dollars"] = json!("number");
    let mut got = shape(&fields);
    got["context"] = json!("null");
    assert_eq!(got, expected);

    let rehearsal = server(&[AnswerStyle::Words]);
    let run = ask(&rehearsal, &[STORY, "--json"]).expect(3);
    let mut expected = one_document();
    expected["raw_answer"] = json!("string");
    assert_eq!(shape(&own_fields(&run)), expected);
    assert_eq!(run.json()["error"]["code"], "invalid_answer");

    rehearsal.dir.write("corpus/a.json", json!({ "story": STORY }).to_string());
    rehearsal.dir.write("corpus/b.json", "{");
    rehearsal.dir.write("corpus/.git/c.json", "{");
    let run = ask_many(&rehearsal, &["--json"]).expect(3);
    let named = json!([{ "key": "string", "code": "string", "reason": "string" }]);
    let expected = json!({
        "model": "string", "server": "string", "template": "string", "output_dir": "string", "valid": "integer",
        "invalid": "integer", "rejected": "integer", "left": "integer", "finished_before": "integer", "nulls": "integer",
        "requests": "integer", "repeated": "integer", "usage": one_document()["usage"], "dollars": "null",
        "dollars_of_lost_answers": "null", "seconds": "number", "invalid_stories": named, "rejected_records": named,
        "not_read_by_kind": { "hidden": "integer" }, "not_read": [{ "key": "string", "kind": "string" }],
    });
    let fields = own_fields(&run);
    assert_eq!(shape(&fields), expected);
    assert_eq!(fields["invalid_stories"][0]["key"], "a.json");
    assert_eq!(fields["not_read"], json!([{ "key": ".git", "kind": "hidden" }]));
    assert_eq!(
        (&fields["rejected_records"][0]["code"], &fields["requests"]),
        (&json!("json_syntax"), &json!(3))
    );
}

#[test]
fn stories_in_containers_below_a_directory_are_asked_about_on_request() {
    let rehearsal = server(&[]);
    let dir = &rehearsal.dir;
    dir.write("corpus/sub/x.jsonl", format!("{}\n", json!({ "story": STORY })));
    let run = ask_many(&rehearsal, &["--json"]).expect(3);
    assert_eq!(own_fields(&run)["not_read"], json!([{ "key": "sub/x.jsonl", "kind": "container" }]));
    let run = ask_many(&rehearsal, &["--containers", "--json"]).expect(0);
    assert_eq!(own_fields(&run)["valid"], 1);
    assert_eq!(record(dir, "gen/sub/x.jsonl/#0.json")["story"], STORY);
    let scored = dir.ctxtune(["score", "gen", "gen", "--containers", "--json", "-q"]).expect(0);
    assert_eq!(scored.json()["sets"][0]["coverage"]["valid"], 1);
}

#[test]
fn what_is_generated_is_what_prepare_reads() {
    let rehearsal = server(&[AnswerStyle::List]);
    let contexts = repository("fixtures/contexts");
    let contexts = contexts.to_str().unwrap();
    let run = ask(&rehearsal, &[contexts, "-o", "gen", "--yes"]).expect(0);
    assert_eq!(run.stdout, "gen\n");
    let dir = &rehearsal.dir;
    dir.ctxtune(["prepare", "gen", "-o", "out", "--no-sync", "--strict"]).expect(0);
    assert_eq!(dir.keys("train").len() + dir.keys("val").len(), 24);
    for key in ["0.json", "second_order/3.json"] {
        let generated = record(dir, &format!("gen/{key}"));
        let original: Value =
            serde_json::from_str(&std::fs::read_to_string(format!("{contexts}/{key}")).unwrap()).unwrap();
        let [_, user, assistant]: [String; 3] = dir.texts(key).try_into().unwrap();
        let trained: Value = serde_json::from_str(&assistant).unwrap();
        assert_eq!(trained, generated["socialized_context"], "{key}");
        for field in ["story", "question", "answer", "is_correct"] {
            assert_eq!(generated[field], original[field], "{key}: {field} is carried");
        }
        assert_ne!(generated["socialized_context"], original["socialized_context"]);
        let prompts = rehearsal.server.prompts();
        assert!(prompts.iter().any(|(prompt, _)| *prompt == user), "{key}: asked as it is trained");
    }
}

/// The file of a record whose context was answered by a model, as lists.
fn as_generated(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let story = Story::read(bytes).map_err(|reason| reason.reason)?;
    let context = story.fields.iter().find(|field| field.name == "socialized_context").unwrap().json.get();
    let answer = reformed(context, Form::List).map_err(|flaw| flaw.reason)?;
    let said = Completion { content: Some(answer.clone()), ..Completion::default() };
    let context = judge_completion(&said).map_err(|flaw| flaw.reason)?;
    let outcome = Asked { context: Ok(context), raw: answer, finish_reason: None };
    let origin = Origin { key: b"k", model: "m", weights: None, template: "t", digest: "d" };
    Ok(text(&origin, &story, &Effort::default(), &outcome).unwrap())
}

#[test]
fn a_context_that_goes_through_an_answer_is_trained_as_before() {
    let dir = Dir::new();
    let contexts = repository("fixtures/contexts");
    for entry in walkdir::WalkDir::new(&contexts).into_iter().map(Result::unwrap) {
        if entry.file_type().is_file() {
            let below = entry.path().strip_prefix(&contexts).unwrap();
            dir.write(
                Path::new("gen").join(below),
                as_generated(&std::fs::read(entry.path()).unwrap()).unwrap(),
            );
        }
    }
    for (source, out) in [(contexts.to_str().unwrap(), "before"), ("gen", "after")] {
        dir.ctxtune(["prepare", source, "-o", out, "--no-sync", "--strict"]).expect(0);
    }
    for side in ["train.jsonl", "val.jsonl"] {
        assert_eq!(dir.read(format!("before/{side}")), dir.read(format!("after/{side}")), "{side}");
    }
}

#[test]
fn real_contexts_are_judged_to_be_contexts() {
    let Some(archive) = shared_data("contexts_tomi_train_3533.tar.gz") else { return };
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(archive).unwrap()));
    let mut reasons = Vec::new();
    let mut count = 0;
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if name.ends_with(".json") {
            count += 1;
            reasons.extend(as_generated(&bytes).err().map(|reason| format!("{name}: {reason}")));
        }
    }
    assert_eq!((count, reasons), (3_533, Vec::<String>::new()));
}

/// A server that fails a fifth of all requests, in six ways.
fn bad_network(answers: &[AnswerStyle]) -> Script {
    let html = Action::Body("<html><title>Login</title></html>".to_owned());
    let actions = [
        Action::Reset(Side::Before),
        Action::LoseReply,
        status(500),
        status_with_retry_after(429),
        Action::CutReply(40),
        html,
    ];
    // Each rule sees what the ones before it have let through.
    let rules = actions.into_iter().map(|action| rule(CHAT, When::Rate(0.036), action));
    let faults = Faults { rules: rules.collect(), seed: 11, ..Faults::default() };
    Script { answers: answers.to_vec(), faults, ..Script::default() }
}

#[test]
fn five_hundred_stories_over_a_bad_network_end_complete_and_each_once() {
    let rehearsal = Rehearsal::with(bad_network(&[AnswerStyle::Mixed, AnswerStyle::Plain]));
    stories(&rehearsal.dir, 500);
    let many = ["stories.jsonl", "-o", "gen", "--yes", "--json", "--concurrency=16"];
    let run = ask(&rehearsal, &many).expect(0);
    let document = run.json();
    assert_eq!((&document["valid"], &document["left"]), (&json!(500), &json!(0)));
    let failed = document["repeated"].as_u64().unwrap();
    assert!(
        (60..260).contains(&failed),
        "a fifth of the requests fail: {failed} of {}",
        document["requests"]
    );
    let tree = rehearsal.dir.tree("gen");
    assert_eq!(tree.len(), 500, "one file a story and nothing else");
    let mut stories = BTreeSet::new();
    for (name, text) in &tree {
        let record: Value = serde_json::from_slice(text).unwrap();
        let number = record["id"].as_u64().unwrap();
        assert_eq!(*name, format!("#{number}.json"));
        assert_eq!(record["socialized_context"]["agents_names"][0], format!("Ada{number}"), "its own answer");
        stories.insert(record["story"].as_str().unwrap().to_owned());
    }
    assert_eq!((stories.len(), rehearsal.server.prompts().len()), (500, 500));
    assert_eq!(rehearsal.server.violations(), Vec::<String>::new());

    let before = asked(&rehearsal).len();
    let run = ask(&rehearsal, &many).expect(0);
    assert_eq!((&run.json()["finished_before"], &run.json()["requests"]), (&json!(500), &json!(0)));
    assert_eq!(asked(&rehearsal).len(), before, "a second run asks nothing");
    assert_eq!(rehearsal.dir.tree("gen"), tree);
    rehearsal.dir.ctxtune(["prepare", "gen", "-o", "out", "--no-sync", "--strict"]).expect(0);
}

/// A child to be killed when the server has carried out so many requests.
struct Victim {
    after: usize,
    child: Mutex<Option<Child>>,
    born: Condvar,
}

impl Victim {
    fn strike(&self, stage: Stage, seen: &Seen) {
        if stage != Stage::Acted || seen.number != self.after {
            return;
        }
        let mut child = self.child.lock().unwrap();
        while child.is_none() {
            child = self.born.wait(child).unwrap();
        }
        child.as_mut().unwrap().kill().unwrap();
    }
}

#[test]
fn killed_and_repeated_it_asks_about_no_finished_story_again() {
    for after in [0, 7, 23, 38] {
        let victim = Arc::new(Victim { after, child: Mutex::default(), born: Condvar::new() });
        let watched = Arc::clone(&victim);
        let watch = Arc::new(move |stage, seen: &Seen| watched.strike(stage, seen));
        let rehearsal = Rehearsal::watched(Script::default(), watch);
        stories(&rehearsal.dir, 40);
        let many = ["generate", "stories.jsonl", "-o", "gen", "--yes", "--model", MODEL, "--concurrency=3"];
        let child = rehearsal.command(many).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        *victim.child.lock().unwrap() = Some(child);
        victim.born.notify_all();
        let killed = loop {
            let mut child = victim.child.lock().unwrap();
            if let Some(status) = child.as_mut().unwrap().try_wait().unwrap() {
                break status;
            }
            drop(child);
            std::thread::yield_now();
        };
        assert_eq!(killed.code(), None, "it was killed");
        let finished: Vec<(String, Vec<u8>)> =
            rehearsal.dir.tree("gen").into_iter().filter(|(name, _)| name.starts_with('#')).collect();
        assert!(finished.len() <= after + 1, "{} files after {after} requests", finished.len());
        let count = |finished: &(String, Vec<u8>)| {
            let record: Value = serde_json::from_slice(&finished.1).expect("whole, or not there");
            let story = record["story"].as_str().unwrap();
            rehearsal.server.prompts().iter().find(|(prompt, _)| prompt.ends_with(story)).unwrap().1
        };
        let before: Vec<u64> = finished.iter().map(count).collect();
        rehearsal.ctxtune(many).expect(0);
        let tree = rehearsal.dir.tree("gen");
        assert_eq!(tree.len(), 40, "no litter is left");
        assert_eq!(finished.iter().map(count).collect::<Vec<_>>(), before, "asked no more");
        assert!(finished.iter().all(|file| tree.contains(file)), "and left as they were");
        let asked: u64 = rehearsal.server.prompts().iter().map(|(_, count)| count).sum();
        assert!(asked <= 40 + 3, "{asked}: only what was on its way is asked twice");
    }
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_promptly_and_keeps_what_is_finished() {
    let rehearsal = server(&[]);
    rehearsal.fail([rule(CHAT, When::Nth((10..60).collect()), Action::Hang(1e4))]);
    stories(&rehearsal.dir, 20);
    let many = ["generate", "stories.jsonl", "-o", "gen", "--yes", "--model", MODEL, "--concurrency=2"];
    let mut child = rehearsal.command(many).stderr(Stdio::piped()).spawn().unwrap();
    while rehearsal.server.seen().len() < 11 {
        std::thread::yield_now();
    }
    let kill = ["-c", "kill -s TERM \"$0\"", &child.id().to_string()].map(str::to_owned);
    assert!(Command::new("sh").args(kill).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(rehearsal.dir.tree("gen").len(), 9, "the answers before");
    rehearsal.fail([]);
    let run = rehearsal.ctxtune(many).expect(0);
    assert!(run.stderr.contains("20: 9 finished before, 11 to generate"), "{}", run.stderr);
}

#[test]
fn a_story_without_a_context_is_finished_too_unless_somebody_wants_it_again() {
    let rehearsal = server(&[AnswerStyle::Words, AnswerStyle::Invalid, AnswerStyle::Cut, AnswerStyle::Plain]);
    rehearsal.dir.write("corpus/a/b.json", json!({ "story": STORY, "x": 1 }).to_string());
    let run = ask_many(&rehearsal, &[]).expect(3);
    assert!(run.stderr.contains("1 story ended without a context"), "{}", run.stderr);
    assert!(run.stderr.contains("\"a/b.json\": the answer was cut at max_tokens"), "{}", run.stderr);
    let invalid = record(&rehearsal.dir, "gen/a/b.invalid.json");
    assert_eq!((&invalid["story"], &invalid["x"]), (&json!(STORY), &json!(1)));
    assert!(invalid["reason"].as_str().unwrap().contains("finish_reason: length"));
    assert!(invalid["raw_answer"].as_str().unwrap().starts_with("{\"agents_names\""));
    assert_eq!(invalid.get("socialized_context"), None, "`prepare` rejects it by name");
    assert_eq!(
        (&invalid["generated"]["invalid"], &invalid["generated"]["attempts"]),
        (&json!("cut"), &json!(3))
    );

    ask_many(&rehearsal, &[]).expect(3);
    assert_eq!(asked(&rehearsal).len(), 3, "nothing is asked again");
    ask_many(&rehearsal, &["--retry-invalid"]).expect(0);
    assert_eq!(asked(&rehearsal).len(), 4);
    let names: Vec<String> = rehearsal.dir.tree("gen").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a/b.json"]);
}

#[test]
fn a_record_named_like_an_invalid_answer_does_not_share_a_file_with_its_neighbour() {
    let rehearsal = server(&[AnswerStyle::Plain]);
    let story =
        |name: &str| json!({ "story": format!("{name} entered the lounge. Noah left it."), "of": name });
    for name in ["x.json", "x.invalid.json", "y.invalid.json", "z.json"] {
        rehearsal.dir.write(format!("corpus/{name}"), story(name).to_string());
    }
    let files = |expected: &[(&str, &str)]| {
        let tree = rehearsal.dir.tree("gen");
        let found: Vec<(String, Value)> = tree
            .iter()
            .map(|(name, _)| (name.clone(), record(&rehearsal.dir, &format!("gen/{name}"))["of"].clone()))
            .collect();
        let expected: Vec<(String, Value)> =
            expected.iter().map(|(name, of)| ((*name).to_owned(), json!(of))).collect();
        assert_eq!(found, expected);
    };
    // All invalid first, then all valid, then known.
    rehearsal.server.set_script(|script| script.answers = vec![AnswerStyle::Words]);
    let run = ask_many(&rehearsal, &["--json", "--attempts=1"]).expect(3).json();
    assert_eq!((&run["invalid"], &run["rejected"], &run["requests"]), (&json!(4), &json!(0), &json!(4)));
    files(&[
        ("x.invalid.json", "x.json"),
        ("x.invalid.json.invalid.json", "x.invalid.json"),
        ("y.invalid.json", "y.invalid.json"),
        ("z.invalid.json", "z.json"),
    ]);
    rehearsal.server.set_script(|script| script.answers = Vec::new());
    let run = ask_many(&rehearsal, &["--json", "--retry-invalid"]).expect(0).json();
    assert_eq!((&run["valid"], &run["requests"]), (&json!(4), &json!(4)));
    files(&[
        ("x.invalid.json.json", "x.invalid.json"),
        ("x.json", "x.json"),
        ("y.json", "y.invalid.json"),
        ("z.json", "z.json"),
    ]);
    let run = ask_many(&rehearsal, &["--json"]).expect(0).json();
    assert_eq!((&run["finished_before"], &run["requests"]), (&json!(4), &json!(0)));
}

#[test]
fn a_record_whose_answer_can_have_no_file_is_named_and_the_others_are_asked() {
    let rehearsal = server(&[]);
    let story = json!({ "story": STORY }).to_string();
    let [longest, longer] = [242, 243].map(|length| format!("{}.json", "n".repeat(length)));
    let mut archive = tar::Builder::new(Vec::new());
    let member = |name: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(story.len() as u64);
        header.set_mode(0o600);
        (header, name.to_owned())
    };
    let deep = format!("{}/a.json", "d".repeat(256));
    // The last two would need one name for a file and for a directory.
    for name in ["a.json", &longest, &longer, &deep, "b.json", "b.json/c.json"] {
        let (mut header, name) = member(name);
        archive.append_data(&mut header, name, story.as_bytes()).unwrap();
    }
    rehearsal.dir.write("stories.tar", archive.into_inner().unwrap());
    let many = ["generate", "stories.tar", "-o", "gen", "--yes", "--model", MODEL, "--json"];
    for requests in [3, 0] {
        let run = rehearsal.ctxtune(many).expect(3).json();
        assert_eq!((&run["error"]["code"], &run["requests"]), (&json!("rejects"), &json!(requests)));
        assert_eq!((&run["valid"], &run["rejected"]), (&json!(3), &json!(3)));
        let rejected = run["rejected_records"].as_array().unwrap();
        let codes: BTreeSet<(&str, bool)> = rejected
            .iter()
            .map(|one| (one["code"].as_str().unwrap(), one["key"].as_str().unwrap().starts_with('b')))
            .collect();
        assert_eq!(codes, BTreeSet::from([("long_name", false), ("name_taken", true)]), "{rejected:?}");
    }
    assert!(rehearsal.dir.exists(format!("gen/{longest}")));
}

#[test]
fn another_request_is_asked_and_what_is_not_ours_stays() {
    let rehearsal = server(&[]);
    rehearsal.dir.write("corpus/a.json", json!({ "story": STORY }).to_string());
    for (flags, requests) in [(&[][..], 1), (&["--seed=1"], 2), (&["--seed=1"], 2), (&["--temperature=0"], 3)]
    {
        ask_many(&rehearsal, flags).expect(0);
        assert_eq!(asked(&rehearsal).len(), requests, "{flags:?}");
    }
    rehearsal.dir.write("corpus/a.json", json!({ "story": "Ada slept." }).to_string());
    ask_many(&rehearsal, &[]).expect(0);
    assert_eq!(record(&rehearsal.dir, "gen/a.json")["socialized_context"]["agents_names"], json!(["Ada"]));

    rehearsal.dir.write("gen/a.json", "{\"story\": \"mine\"}");
    let run = ask_many(&rehearsal, &[]).expect(1);
    assert!(run.stderr.contains("gen/a.json` is in the way"), "{}", run.stderr);
    assert_eq!(rehearsal.dir.read("gen/a.json"), "{\"story\": \"mine\"}");
    ask(&rehearsal, &["corpus", "-o", "corpus", "--yes"]).expect(2);
    assert_eq!(asked(&rehearsal).len(), 4);
}

#[test]
fn what_cannot_be_asked_about_is_named_and_the_rest_is_asked() {
    let rehearsal = server(&[]);
    let lines = [
        json!({ "story": STORY }).to_string(),
        "{\"question\": \"no story\"}".to_owned(),
        "not json".to_owned(),
        json!({ "story": ["Ada woke.", "Ben slept."] }).to_string(),
    ];
    rehearsal.dir.write("more.jsonl", lines.join("\n"));
    rehearsal.dir.write("corpus/x.json", json!({ "story": "['Eve left.'" }).to_string());
    rehearsal.dir.write("corpus/y.json", "{\"story\": NaN}");
    let run = ask(&rehearsal, &["more.jsonl", "corpus", "-o", "gen", "--yes", "-q"]).expect(3);
    assert!(run.stderr.contains("4 stories could not be requested"), "{}", run.stderr);
    let names: Vec<String> = rehearsal.dir.tree("gen").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["more.jsonl/#0.json", "more.jsonl/#3.json"]);
    assert_eq!(record(&rehearsal.dir, "gen/more.jsonl/#3.json")["generated"]["key"], "more.jsonl/#3");
}

#[test]
fn what_is_no_json_in_a_carried_field_is_written_as_null_and_counted() {
    let rehearsal = server(&[]);
    let old = r#"{"agents_names": [NaN], "socialized_context": "\ud800"}"#;
    let odd = r#""loss": NaN, "logprobs": [-1.5, -Infinity, {"t": "\udc00"}], "big": 1e999"#;
    rehearsal
        .dir
        .write("corpus/a.json", format!(r#"{{"story": "{STORY}", {odd}, "socialized_context": {old}}}"#));
    let run = ask_many(&rehearsal, &["--json"]).expect(0);
    assert_eq!((&run.json()["nulls"], &run.json()["valid"]), (&json!(3), &json!(1)));
    let written = rehearsal.dir.read("gen/a.json");
    let compact = written.replace([' ', '\n'], "");
    let expected = r#""loss":null,"logprobs":[-1.5,null,{"t":null}],"big":1e999,"socialized_context":{"#;
    assert!(compact.contains(expected), "{written}");
    rehearsal.ctxtune(["prepare", "gen", "-o", "out", "--val-ratio", "0"]).expect(0);
}

#[test]
fn the_template_is_the_one_that_was_trained_with() {
    let rehearsal = server(&[]);
    let template = repository("fixtures/templates/list-indent2.yaml");
    let template = template.to_str().unwrap();
    rehearsal.dir.corpus(10).prepare(&["--template", template]).expect(0);
    ask(&rehearsal, &[STORY, "--out", "out"]).expect(0);
    let run = ask(&rehearsal, &[STORY, "--out", "out", "--template", "chatml"]).expect(0);
    assert!(run.stderr.contains("`out` was prepared with another template"), "{}", run.stderr);
    let run = ask(&rehearsal, &[STORY, "--out", "out", "--template", template]).expect(0);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    let bodies = asked(&rehearsal);
    let roles = |body: &Value| body["messages"].as_array().unwrap().len();
    assert_eq!((roles(&bodies[0]), roles(&bodies[1])), (1, 2));
    let trained = rehearsal.dir.json_lines("out/train.jsonl");
    let (before, _) =
        texts_of(&trained[0])[0].split_once("Agent").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(bodies[0]["messages"][0]["content"].as_str().unwrap().starts_with(&before));
    let step =
        &bodies[0]["response_format"]["json_schema"]["schema"]["properties"]["socialized_context"]["items"];
    assert_eq!(step["properties"]["actions"]["type"], "array", "in the form that was trained");
    ask(&rehearsal, &[STORY, "--out", "nowhere"]).expect(2);
}

#[test]
fn a_template_that_asks_for_a_question_needs_one() {
    let rehearsal = server(&[]);
    rehearsal.dir.write(
        "q.yaml",
        "messages:\n- {role: user, content: '{story} {question}'}\n- {role: assistant, content: '{context}'}\n",
    );
    let run = ask(&rehearsal, &[STORY, "--template", "q.yaml"]).expect(2);
    assert!(run.stderr.contains("asks for {question}, and the story has none"), "{}", run.stderr);
    rehearsal.dir.write("corpus/a.json", json!({ "story": STORY, "question": "Why?" }).to_string());
    ask_many(&rehearsal, &["--template", "q.yaml"]).expect(0);
    assert_eq!(asked(&rehearsal)[0]["messages"][0]["content"], format!("{STORY} Why?"));
}

#[test]
fn the_tuned_model_is_known_and_its_refusal_says_what_to_do() {
    let rehearsal = Rehearsal::new();
    let run = rehearsal.ctxtune(["generate", STORY, "--out", "out"]).expect(2);
    assert!(run.stderr.contains("holds no prepared data") || run.stderr.contains("knows no tuned model"));
    let job = rehearsal.submit(10, &["--base-model=Qwen/Qwen3-8B"]);
    let run = rehearsal.ctxtune(["generate", STORY, "--out", "out"]).expect(2);
    assert!(
        run.stderr.contains(&format!("the job {job} was pending when it was last asked for")),
        "{}",
        run.stderr
    );
    rehearsal.forward(2000.0);
    let model = rehearsal.ctxtune(["monitor", "out"]).expect(0).stdout.trim_end().to_owned();
    let run = rehearsal.ctxtune(["generate", STORY, "--out", "out", "--json"]).expect(2);
    assert_eq!(run.json()["error"]["code"], "model_not_available");
    let hint = run.json()["error"]["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains(&format!("`ctxtune deploy {job} --name EP`")), "{hint}");
    rehearsal.server.set_script(|script| script.deployed_models = vec![model.clone()]);
    let run = rehearsal.ctxtune(["generate", STORY, "--out", "out"]).expect(0);
    assert!(run.stderr.contains(&model), "{}", run.stderr);
    assert!(run.stdout.starts_with("{\"agents_names\": [\"Mia\", \"Noah\"]"), "{}", run.stdout);
}

#[test]
fn a_base_that_cannot_be_deployed_is_to_be_served_elsewhere() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    rehearsal.forward(2000.0);
    rehearsal.ctxtune(["monitor", "out"]).expect(0);
    let run = rehearsal.ctxtune(["generate", STORY, "--out", "out"]).expect(2);
    let how = format!("`ctxtune download {job} --adapter --extract DIR`");
    assert!(run.stderr.contains(&how), "{}", run.stderr);
    let reference = "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference";
    let run = rehearsal.ctxtune(["generate", STORY, "--model", reference]).expect(2);
    assert!(run.stderr.contains("can be tuned and not asked"), "{}", run.stderr);
    // In many stories the first refusal of that kind ends the run.
    let many = ["generate", "corpus", "-o", "gen", "--yes", "--model", "nobody/knows", "--concurrency=1"];
    let before = asked(&rehearsal).len();
    let run = rehearsal.ctxtune(many).expect(2);
    assert!(run.stderr.contains("10 stories are left"), "{}", run.stderr);
    assert_eq!(asked(&rehearsal).len(), before + 1);
}

/// A server of another kind than Together, which takes this key; an empty one means none.
fn stranger(key: &str) -> (Rehearsal, Server) {
    let other = Rehearsal::with(Script { key: key.to_owned(), ..Script::default() });
    let Rehearsal { server, .. } = other;
    (self::server(&[]), server)
}

#[test]
fn another_server_never_sees_the_together_key() {
    for key in ["", "sk-other"] {
        let (rehearsal, other) = stranger(key);
        rehearsal.dir.write("corpus/a.json", json!({ "story": STORY }).to_string());
        let url = format!("{}/v1", other.url());
        let run = |arguments: &[&str]| {
            let mut command = rehearsal.command(["generate", "--base-url", &url, "--model", MODEL]);
            command.args(arguments).env(env::TOGETHER_CUSTOM_HEADERS, "X-Secret: of-together");
            if !key.is_empty() {
                command.env(env::OPENAI_API_KEY, key);
            }
            Outcome::of(command)
        };
        let one = run(&[STORY, "--stream"]).expect(0);
        assert_eq!(one.stdout, format!("{CONTEXT}\n"));
        let said = if key.is_empty() { "without a key" } else { "with OPENAI_API_KEY of the environment" };
        assert!(one.stderr.contains(said), "{}", one.stderr);
        // On this machine nobody has to agree.
        run(&["corpus", "-o", "gen"]).expect(0);
        assert_eq!(other.seen().len(), 2);
        let streamed: Value = serde_json::from_slice(&other.seen()[0].body).unwrap();
        assert_eq!(streamed["stream_options"], json!({ "include_usage": true }));
        for seen in other.seen() {
            assert_eq!(seen.path, "/v1/chat/completions");
            assert_eq!(seen.authorization, (!key.is_empty()).then(|| format!("Bearer {key}")));
            assert!(!format!("{:?}", seen.headers).contains("of-together"), "{:?}", seen.headers);
        }
        assert_eq!(rehearsal.server.seen(), [], "Together is not asked anything");
    }
}

#[test]
fn the_together_key_is_not_sent_elsewhere_under_another_name() {
    let (rehearsal, other) = stranger(KEY);
    let mut command = rehearsal.command(["generate", "--base-url", other.url(), "--model", MODEL, STORY]);
    command.env(env::OPENAI_API_KEY, KEY);
    let run = Outcome::of(command).expect(2);
    assert!(run.stderr.contains("is the Together key, which is not sent to"), "{}", run.stderr);
    let run = rehearsal.ctxtune(["generate", "--base-url", other.url(), "--model", MODEL, STORY]).expect(4);
    assert!(run.stderr.contains("set OPENAI_API_KEY"), "{}", run.stderr);
    assert!(other.seen().iter().all(|seen| seen.authorization.is_none()));
    rehearsal.ctxtune(["generate", "--base-url", other.url(), STORY]).expect(2);
}

/// On Linux 0.0.0.0 reaches this machine; to the program it is a host like any other.
#[cfg(target_os = "linux")]
#[test]
fn a_node_of_a_cluster_is_asked_over_plain_http_where_no_key_is_sent() {
    let (rehearsal, other) = stranger("");
    rehearsal.dir.write("corpus/a.json", json!({ "story": STORY }).to_string());
    let url = other.url().replace("127.0.0.1", "0.0.0.0");
    let run = |arguments: &[&str], key: Option<&str>| {
        let mut command = rehearsal.command(["generate", "--base-url", &url, "--model", MODEL]);
        command.args(arguments).envs(key.map(|key| (env::OPENAI_API_KEY, key)));
        command.env_remove(env::CTXTUNE_TIME_SCALE);
        Outcome::of(command)
    };
    for arguments in [&[STORY][..], &["corpus", "-o", "gen", "--yes"]] {
        let run = run(arguments, None).expect(0);
        assert_eq!(run.stderr.matches("http is not encrypted").count(), 1, "{}", run.stderr);
    }
    let seen = other.seen();
    assert!(seen.len() == 2 && seen.iter().all(|seen| seen.authorization.is_none()));
    let run = run(&[STORY, "--json"], Some("sk-other")).expect(2);
    assert_eq!(run.json()["error"]["code"], "base_url");
    assert!(run.stderr.contains("unset OPENAI_API_KEY"), "{}", run.stderr);
    assert_eq!(other.seen().len(), 2);
    assert_eq!(rehearsal.server.seen(), [], "Together is not asked anything");
}

#[test]
fn the_key_is_in_no_output_and_in_no_file() {
    const SECRET: &str = "tgp_v1_3xAmPlE-oNlY_9f8e7d6c5b4a3210";
    let faults: [Option<Action>; 4] = [
        None,
        Some(Action::EchoKey),
        Some(Action::Body(format!(
            "{{\"choices\":[{{\"message\":{{\"content\":\"your key is {SECRET}\"}},\"finish_reason\":\"stop\"}}]}}"
        ))),
        Some(Action::Body(
            ["tgp_v1_3xAm", "PlE-oNlY_9f8e", "7d6c5b4a3210"]
                .map(|part| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{part}\"}}}}]}}\n\n"))
                .concat()
                + "data: [DONE]\n\n",
        )),
    ];
    for fault in faults {
        let rehearsal = Rehearsal::with(Script { key: SECRET.to_owned(), ..Script::default() });
        rehearsal.dir.write("corpus/a.json", json!({ "story": STORY }).to_string());
        rehearsal.fail(fault.iter().map(|action| rule(CHAT, When::Always, action.clone())));
        // What it cuts into pieces itself a server can say in any way; only a stream's pieces are ours to join.
        let is_in_pieces = matches!(&fault, Some(Action::Body(text)) if text.starts_with("data: "));
        let runs = [
            &[STORY, "--stream"][..],
            &[STORY, "--json"],
            &["corpus", "-o", "gen", "--yes", "-v"],
            &["corpus", "-o", "gen", "--yes", "--json"],
        ];
        for arguments in runs.into_iter().take(if is_in_pieces { 1 } else { 4 }) {
            let mut command = rehearsal.command(["generate", "--model", MODEL]);
            command.args(arguments).env(env::TOGETHER_API_KEY, SECRET);
            let run = Outcome::of(command);
            let files: Vec<String> = rehearsal
                .dir
                .tree("")
                .into_iter()
                .map(|(name, text)| format!("{name} {}", String::from_utf8_lossy(&text)))
                .collect();
            for part in ["3xAmPlE", "oNlY_9f8e", "5b4a3210"] {
                let all = format!("{}{}{}", run.stdout, run.stderr, files.concat());
                assert!(!all.contains(part), "{fault:?} {arguments:?}: {part} in {all}");
            }
            assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        }
    }
}

#[test]
fn many_stories_are_paid_for_only_after_a_yes() {
    let rehearsal = server(&[]);
    stories(&rehearsal.dir, 20);
    let many = |flags: &[&str]| ask(&rehearsal, &[&["stories.jsonl", "-o", "gen"], flags].concat());
    let refused = many(&["--json"]).expect(9);
    assert_eq!(refused.json()["error"]["code"], "no_consent");
    let refused = many(&["--max-cost=1", "--json"]).expect(9);
    assert_eq!(refused.json()["error"]["code"], "no_price");
    let refused = many(&["--max-cost=0", "--price-per-million=1", "--json"]).expect(9);
    assert_eq!(refused.json()["error"]["code"], "over_max_cost");
    assert_eq!(asked(&rehearsal), Vec::<Value>::new());
    // An answer can take 4,096 tokens and its prompt; 20 of them do not fit, as some takes what is left.
    let cap = ["--max-cost=0.006", "--price-per-million=1", "--json"];
    let capped = many(&cap).expect(9).json();
    assert_eq!(capped["error"]["code"], "over_max_cost");
    let (valid, left) = (capped["valid"].as_u64().unwrap(), capped["left"].as_u64().unwrap());
    assert!(valid > 0 && left > 0 && valid + left == 20, "{capped}");
    assert!(capped["dollars"].as_f64().unwrap() <= 0.006, "{capped}");
    assert!(capped["error"]["message"].as_str().unwrap().starts_with(&format!("{left} stories are left")));
    many(&["--max-cost=1", "--price-per-million=1"]).expect(0);
    assert_eq!(asked(&rehearsal).len(), 20, "each once");
    // Nothing is left to be agreed to.
    many(&[]).expect(0);
}

#[test]
fn a_server_that_is_gone_or_refuses_the_key_ends_the_run() {
    let rehearsal = server(&[]);
    stories(&rehearsal.dir, 30);
    let many = ["stories.jsonl", "-o", "gen", "--yes", "--concurrency=2"];
    rehearsal.fail([rule(CHAT, When::Always, status(401))]);
    let run = ask(&rehearsal, &many).expect(4);
    assert!(run.stderr.contains("30 stories are left"), "{}", run.stderr);
    assert!(asked(&rehearsal).len() <= 2);
    rehearsal.fail([rule(CHAT, When::Always, status(503))]);
    let before = asked(&rehearsal).len();
    let run = ask(&rehearsal, &many).expect(5);
    assert!(run.stderr.contains("no finished story is requested twice"), "{}", run.stderr);
    let requests = asked(&rehearsal).len() - before;
    assert!((40..=60).contains(&requests), "{requests}: it does not go through all of them");
    rehearsal.fail([rule(CHAT, When::Always, status(400))]);
    let run = ask(&rehearsal, &many).expect(1);
    assert!(run.stderr.contains("stories are left"), "{}", run.stderr);
    rehearsal.fail([]);
    ask(&rehearsal, &many).expect(0);
    assert_eq!(rehearsal.dir.tree("gen").len(), 30, "what was refused is asked again");
}

#[test]
fn a_story_that_the_server_refuses_does_not_end_the_others() {
    let rehearsal = server(&[]);
    stories(&rehearsal.dir, 12);
    rehearsal.fail([rule(CHAT, When::Nth(vec![3, 5, 6, 9]), status(422))]);
    let many = ["stories.jsonl", "-o", "gen", "--yes", "--concurrency=1"];
    let run = ask(&rehearsal, &many).expect(3);
    assert!(run.stderr.contains("4 stories ended without a context"), "{}", run.stderr);
    let run = ask(&rehearsal, &many).expect(0);
    assert!(run.stderr.contains("12: 8 finished before, 4 to generate"), "{}", run.stderr);
}

#[test]
fn a_stream_that_breaks_off_is_asked_for_again() {
    let frame = "data: {\"choices\":[{\"delta\":{\"content\":\"{\"}}]}\n\n";
    let error = format!("{frame}data: {{\"error\":{{\"message\":\"overloaded\"}}}}\n\n");
    for action in [
        Action::CutReply(100),
        Action::CutReply(0),
        Action::Body(frame.to_owned()),
        Action::Body(error.clone()),
        Action::Body(String::new()),
        Action::LoseReply,
        status(500),
    ] {
        let rehearsal = server(&[]);
        rehearsal.fail([rule(CHAT, When::Nth(vec![1, 2]), action.clone())]);
        let run = ask(&rehearsal, &[STORY, "--stream"]).expect(0);
        assert_eq!(run.stdout, format!("{CONTEXT}\n"), "{action:?}");
        assert_eq!(asked(&rehearsal).len(), 3, "{action:?}");
        assert!(run.stderr.contains("trying again in"), "{action:?}: {}", run.stderr);
    }
    let rehearsal = server(&[]);
    rehearsal.fail([rule(CHAT, When::Always, Action::Body(error))]);
    let run = ask(&rehearsal, &[STORY, "--stream"]).expect(5);
    assert!(run.stderr.contains("the server ended the stream: overloaded"), "{}", run.stderr);
    assert_eq!(asked(&rehearsal).len(), 5);
    rehearsal.fail([Rule { times: None, ..rule(CHAT, When::Always, Action::Trickle(0)) }]);
    ask(&rehearsal, &[STORY, "--stream"]).expect(0);
}

#[test]
fn requests_keep_to_their_rate() {
    let rehearsal = server(&[]);
    stories(&rehearsal.dir, 7);
    // A fiftieth of the time: six intervals of ten seconds, one of them free.
    let many = ["stories.jsonl", "-o", "gen", "--yes", "--rpm=6", "--json"];
    let run = ask(&rehearsal, &many).expect(0);
    let seconds = run.json()["seconds"].as_f64().unwrap();
    assert!(seconds >= 59.0, "{seconds} by the program's clock");
}

#[test]
fn one_story_is_told_from_many() {
    let rehearsal = server(&[]);
    rehearsal.dir.corpus(2);
    let run = ask(&rehearsal, &["corpus"]).expect(2);
    assert!(run.stderr.contains("is a source of stories, not a story"), "{}", run.stderr);
    ask(&rehearsal, &["Mia", "left."]).expect(2);
    ask(&rehearsal, &[]).expect(2);
    ask(&rehearsal, &[" "]).expect(2);
    ask(&rehearsal, &["--story-file", "nowhere"]).expect(2);
    ask(&rehearsal, &["corpus", "-o", "gen", "--stream"]).expect(2);
    assert_eq!(rehearsal.server.seen(), []);
    let mut command = rehearsal.command(["generate", STORY, "--model", MODEL]);
    command.env_remove(env::TOGETHER_API_KEY);
    Outcome::of(command).expect(4);
}

/// A server whose every answer is this choice.
fn choosing(choice: Value) -> crate::server::Server {
    crate::server::Server::start(move |exchange| {
        exchange.read_body();
        exchange.json(200, json!({ "choices": [choice] }));
    })
}

#[test]
fn a_refusal_a_content_filter_and_parts_are_called_by_their_names() {
    let rehearsal = Rehearsal::new();
    stories(&rehearsal.dir, 2);
    let refusal = json!({ "message": { "content": null, "refusal": "I cannot talk about Ada." } });
    let filter = json!({ "message": { "content": "" }, "finish_reason": "content_filter" });
    let parts = json!({ "message": { "content": [{ "type": "image_url", "image_url": { "url": "x" } }] } });
    for (choice, code, reason) in [
        (refusal, "refusal", "the model refused to answer: I cannot talk about Ada."),
        (filter, "content_filter", "the server's content filter withheld the answer"),
        (parts, "content_parts", "only parts of other types: image_url"),
    ] {
        let server = choosing(choice);
        let url = server.url("");
        let common = ["--model=m", "--attempts=1", "--base-url", &url];
        let one = rehearsal.ctxtune(["generate", "Ada left."].iter().chain(&common)).expect(3);
        assert!(one.stderr.contains(reason), "{code}: {}", one.stderr);
        assert!(
            !one.stderr.contains("empty") && !one.stderr.contains("the last answer was"),
            "{}",
            one.stderr
        );
        let many = ["generate", "stories.jsonl", "-o", code, "--yes", "--json"];
        let many = rehearsal.ctxtune(many.iter().chain(&common)).expect(3).json();
        assert_eq!((&many["invalid_stories"][0]["code"], &many["invalid"]), (&json!(code), &json!(2)));
    }
    let context = crate::support::record(1)["socialized_context"].to_string();
    let (one, other) = context.split_at(20);
    let text = |text: &str| json!({ "type": "text", "text": text });
    let server = choosing(json!({ "message": { "content": [text(one), text(other)] } }));
    let url = server.url("");
    let joined = rehearsal.ctxtune(["generate", "Ada left.", "--model=m", "--base-url", &url]).expect(0);
    assert_eq!(joined.json(), crate::support::record(1)["socialized_context"]);
}
