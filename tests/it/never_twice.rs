//! A job is paid once: whatever becomes of the reply, whoever asks again, wherever and how often.

use std::process::Command;
use std::sync::{Arc, Mutex};

use ctxtune::session::clock::{ServerClock, SystemClock};
use ctxtune_pipeline::env;
use ctxtune_pipeline::signals::Signals;
use ctxtune_rehearsal::faults::{Action, Side, When};
use ctxtune_rehearsal::{Outcome as End, Script, Seen, Server, Stage};
use serde_json::{Value, json};

use crate::service::{JOBS, ledgers, rule, status, status_with_retry_after};
use crate::support::{self, Outcome, Rehearsal};

const SUBMIT: [&str; 3] = ["submit", "out", "--yes"];
const SUBMIT_NEW: [&str; 4] = ["submit", "out", "--yes", "--new-job"];

/// `submit` where the service lists a job as soon as it has accepted it.
fn submit(rehearsal: &Rehearsal, more: &[&str]) -> Outcome {
    let mut command = rehearsal.command(SUBMIT.iter().chain(more));
    command.env(env::CTXTUNE_GRACE_SECONDS, "0.05");
    Outcome::of(command)
}

fn create(when: When, action: Action) -> [ctxtune_rehearsal::faults::Rule; 1] {
    [rule(&format!("POST {JOBS}"), when, action)]
}

fn first() -> When {
    When::Nth(vec![1])
}

/// The id of the one job there is.
#[track_caller]
fn only_job(rehearsal: &Rehearsal) -> String {
    let jobs = rehearsal.jobs();
    assert_eq!(jobs.len(), 1, "{jobs:#?}");
    jobs[0]["id"].as_str().unwrap().to_owned()
}

#[track_caller]
fn check_one_job(rehearsal: &Rehearsal, printed: &str) {
    assert_eq!(printed.trim_end(), only_job(rehearsal));
    assert_eq!(rehearsal.server.jobs_created(), 1);
    rehearsal.check_protocol();
}

#[test]
fn a_job_whose_reply_is_lost_is_found_in_the_same_run() {
    let lost = [
        Action::LoseReply,
        Action::Reset(Side::After),
        Action::Body("<html>a proxy</html>".to_owned()),
        Action::Body("{}".to_owned()),
        Action::CutReply(20),
        Action::Status { status: 500, headers: Vec::new(), body: String::new(), side: Side::After },
        Action::Status { status: 409, headers: Vec::new(), body: String::new(), side: Side::After },
        Action::Status { status: 302, headers: Vec::new(), body: String::new(), side: Side::After },
    ];
    let rehearsal = Rehearsal::new().prepared(10);
    for action in lost {
        let before = rehearsal.server.jobs_created();
        rehearsal.fail(create(first(), action.clone()));
        let epochs = format!("--n-epochs={}", before + 1);
        let run = submit(&rehearsal, &["--json", &epochs]).expect(0);
        assert_eq!(rehearsal.server.jobs_created(), before + 1, "{action:?}");
        assert_eq!(rehearsal.creations(), before + 1, "{action:?}");
        let job = rehearsal.jobs().last().unwrap()["id"].clone();
        assert_eq!((&run.json()["job"], &run.json()["created"]), (&job, &json!(true)), "{action:?}");
    }
    rehearsal.check_protocol();
}

#[test]
fn a_request_of_unknown_outcome_is_not_sent_again_by_the_same_run() {
    let unknown =
        [status(500), status(502), status(503), status(408), status(504), Action::Reset(Side::Before)];
    let rehearsal = Rehearsal::new().prepared(10);
    for action in unknown {
        let before = (rehearsal.creations(), rehearsal.server.jobs_created());
        rehearsal.fail(create(first(), action.clone()));
        let epochs = format!("--n-epochs={}", before.1 + 1);
        let run = submit(&rehearsal, &["--json", &epochs]).expect(5);
        assert_eq!(rehearsal.creations(), before.0 + 1, "{action:?}");
        assert_eq!(run.json()["error"]["code"], "unknown_outcome", "{action:?}");
        let intents = rehearsal.ledgers().into_iter().filter(|run| run["state"] == "intent").count();
        assert_eq!(intents, 1, "{action:?}");
        // The next run lists twice, and then asks with the same tag.
        let again = submit(&rehearsal, &["--json", &epochs]).expect(0);
        let suffix = |seen: &Seen| serde_json::from_slice::<Value>(&seen.body).unwrap()["suffix"].clone();
        let asked = rehearsal.requests(&format!("POST {JOBS}"));
        let [.., one, two] = asked.as_slice() else { panic!("{}", asked.len()) };
        assert_eq!(suffix(one), suffix(two), "{action:?}");
        assert!(suffix(two).as_str().unwrap().ends_with(again.json()["tag"].as_str().unwrap()));
        assert_eq!(rehearsal.server.jobs_created(), before.1 + 1, "{action:?}");
    }
    rehearsal.check_protocol();
}

#[test]
fn what_was_certainly_not_accepted_is_asked_for_again_at_once() {
    for action in [status_with_retry_after(429), status(429), status_with_retry_after(503)] {
        let rehearsal = Rehearsal::new().prepared(10);
        rehearsal.fail(create(When::Nth(vec![1, 2]), action));
        let run = submit(&rehearsal, &[]).expect(0);
        assert_eq!(rehearsal.creations(), 3);
        check_one_job(&rehearsal, &run.stdout);
    }
}

#[test]
fn what_the_service_refuses_is_not_asked_for_again_and_leaves_no_open_question() {
    let rehearsal = Rehearsal::new().prepared(10);
    for (code, exit) in [(400, 1), (401, 4), (422, 1)] {
        rehearsal.fail(create(When::Always, status(code)));
        let before = rehearsal.creations();
        submit(&rehearsal, &[]).expect(exit);
        assert_eq!((rehearsal.creations() - before, rehearsal.server.jobs_created()), (1, 0));
        assert_eq!(rehearsal.ledgers()[0]["state"], "refused");
    }
    rehearsal.fail([]);
    let run = submit(&rehearsal, &[]).expect(0);
    check_one_job(&rehearsal, &run.stdout);
}

#[test]
fn a_list_that_lags_behind_is_no_reason_to_create_another_one() {
    let rehearsal = Rehearsal::new().prepared(10);
    let old = r#"{"data":[]}"#.to_owned();
    // The lists of a submission: before the plan, before the creation, and two after it.
    let lists = rule(&format!("GET {JOBS}"), When::Nth(vec![3, 4]), Action::Body(old));
    let [lost] = create(first(), Action::LoseReply);
    rehearsal.fail([lists, lost]);
    let run = submit(&rehearsal, &["--json"]).expect(5);
    assert_eq!(run.json()["error"]["code"], "unknown_outcome");
    assert_eq!(rehearsal.ledgers()[0]["state"], "intent");
    let found = submit(&rehearsal, &[]).expect(0);
    assert!(found.stderr.contains("found (pending)"), "{}", found.stderr);
    check_one_job(&rehearsal, &found.stdout);
    assert_eq!(rehearsal.ledgers()[0]["state"], "created");
}

#[test]
fn an_open_intent_waits_for_what_is_left_of_the_grace() {
    let rehearsal = Rehearsal::new().prepared(10);
    let old = r#"{"data":[]}"#.to_owned();
    let lists = rule(&format!("GET {JOBS}"), When::Nth(vec![3, 4, 5, 6]), Action::Body(old));
    let [lost] = create(first(), Action::LoseReply);
    rehearsal.fail([lists, lost]);
    submit(&rehearsal, &[]).expect(5);
    // The next run's lists: before the plan (5, old), then one (6, old), the grace, and another one.
    let found = submit(&rehearsal, &[]).expect(0);
    check_one_job(&rehearsal, &found.stdout);
    assert_eq!(rehearsal.creations(), 1);
}

#[test]
fn a_job_that_is_there_is_found_and_shown_by_how_it_is() {
    for (outcome, exit, words) in [
        (End::Completed, 0, "found (completed)"),
        (End::Error, 6, "scripted to fail"),
        (End::UserError, 6, "the training file cannot be used"),
    ] {
        let script = Script { job_seconds: 1000.0, verdict_seconds: 0.0, outcome, ..Script::default() };
        let rehearsal = Rehearsal::with(script).prepared(10);
        submit(&rehearsal, &[]).expect(0);
        submit(&rehearsal, &[]).expect(0);
        rehearsal.forward(1000.0);
        let run = submit(&rehearsal, &[]).expect(exit);
        assert!(run.stderr.contains(words), "{}", run.stderr);
        assert_eq!(rehearsal.creations(), 1);
        rehearsal.check_protocol();
    }
}

#[test]
fn a_cancelled_job_is_not_submitted_again_unasked() {
    let rehearsal = Rehearsal::new().prepared(10);
    let job = submit(&rehearsal, &[]).expect(0).stdout;
    rehearsal.ask(&format!("POST /v1/fine-tunes/{}/cancel", job.trim_end()), None);
    rehearsal.forward(100.0);
    submit(&rehearsal, &[]).expect(7);
    assert_eq!(rehearsal.creations(), 1);
    let new = submit(&rehearsal, &["--new-job"]).expect(0);
    assert_ne!(new.stdout, job);
    assert_eq!(rehearsal.server.jobs_created(), 2);
}

#[test]
fn a_new_job_is_another_attempt_with_another_tag_and_only_after_the_end() {
    for outcome in [End::Completed, End::Error, End::UserError] {
        let script = Script { job_seconds: 1000.0, verdict_seconds: 0.0, outcome, ..Script::default() };
        let rehearsal = Rehearsal::with(script).prepared(10);
        let first = submit(&rehearsal, &["--new-job", "--json"]).expect(0).json();
        let running = submit(&rehearsal, &["--new-job", "--json"]).expect(0);
        assert!(running.stderr.contains("--new-job starts none beside it"), "{}", running.stderr);
        assert_eq!(running.json()["job"], first["job"]);
        rehearsal.forward(1000.0);
        let second = submit(&rehearsal, &["--new-job", "--json"]).expect(0).json();
        assert_eq!((&second["attempt"], &second["created"]), (&json!(2), &json!(true)));
        assert_ne!((&second["tag"], &second["job"]), (&first["tag"], &first["job"]));
        // Without the flag the newest attempt is the one that is shown.
        let shown = submit(&rehearsal, &["--json"]).expect(0).json();
        assert_eq!(shown["job"], second["job"]);
        assert_eq!((rehearsal.server.jobs_created(), rehearsal.ledgers().len()), (2, 2));
        assert_eq!(rehearsal.files().len(), 2, "the files were there");
        rehearsal.check_protocol();
    }
}

#[test]
fn a_new_job_that_was_killed_and_is_repeated_is_not_a_third_one() {
    for seconds in [0.0, 1000.0] {
        let rehearsal = Rehearsal::new().prepared(10);
        submit(&rehearsal, &[]).expect(0);
        rehearsal.forward(1000.0);
        let mut killed = rehearsal.command(SUBMIT_NEW);
        killed.env(env::CTXTUNE_GRACE_SECONDS, "0.05");
        // The lists after the lost reply fail, as if the program had died there.
        let [lost] = create(first(), Action::LoseReply);
        let old = r#"{"data":[]}"#.to_owned();
        let lists = rule(&format!("GET {JOBS}"), When::Nth(vec![3, 4]), Action::Body(old));
        rehearsal.fail([lists, lost]);
        Outcome::of(killed).expect(5);
        assert_eq!(rehearsal.server.jobs_created(), 2);
        // Even where the second has ended meanwhile: nobody was told of it.
        rehearsal.forward(seconds);
        let run = submit(&rehearsal, &["--new-job", "--json"]).expect(0).json();
        assert_eq!(rehearsal.server.jobs_created(), 2, "after {seconds} s");
        assert_eq!(run["job"], rehearsal.jobs()[1]["id"], "after {seconds} s");
    }
}

#[test]
fn another_checkout_adopts_the_job_of_the_first() {
    let rehearsal = Rehearsal::new().prepared(10);
    let first = submit(&rehearsal, &[]).expect(0).stdout;
    std::fs::rename(rehearsal.dir.path("corpus"), rehearsal.dir.path("elsewhere")).unwrap();
    let there = |arguments: &[&str]| {
        Outcome::of({
            let mut command = rehearsal.command(arguments);
            command.env(env::XDG_STATE_HOME, rehearsal.dir.path("other state"));
            command
        })
        .expect(0)
    };
    there(&["prepare", "elsewhere", "-o", "checkout", "--no-sync"]);
    let run = there(&["submit", "checkout", "--yes"]);
    assert_eq!(run.stdout, first);
    assert_eq!((rehearsal.creations(), rehearsal.files().len()), (1, 2));
    assert_eq!(ledgers(&rehearsal.dir, "checkout")[0]["job"], first.trim_end());
    rehearsal.check_protocol();
}

#[test]
fn other_parameters_data_or_runs_of_an_agent_are_other_jobs() {
    let rehearsal = Rehearsal::new().prepared(10);
    submit(&rehearsal, &[]).expect(0);
    submit(&rehearsal, &["--learning-rate=2e-5"]).expect(0);
    submit(&rehearsal, &["--suffix=another"]).expect(0);
    let mut agent = rehearsal.command(SUBMIT);
    agent.env(env::WANDB_RUN_ID, "abc123");
    Outcome::of(agent).expect(0);
    rehearsal.dir.write("corpus/10.json", crate::support::record(10).to_string());
    rehearsal.dir.prepare(&[]).expect(0);
    submit(&rehearsal, &[]).expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 5);
    // As the first one, spelled differently.
    submit(&rehearsal, &["--suffix=another"]).expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 6, "the data is other data now");
    let tags: std::collections::BTreeSet<_> =
        rehearsal.ledgers().iter().map(|run| run["tag"].to_string()).collect();
    assert_eq!(tags.len(), 6);
}

/// The named values of the recipe in `docs/fine-tune.md`, from the body that was sent.
fn named(body: &Value, manifest: &Value) -> Value {
    let mut named = json!({
        "project": "proj-rehearsal", "attempt": 1, "train_sha256": manifest["train"]["sha256"],
        "val_sha256": manifest["val"]["sha256"], "base_model": body["model"],
        "lr_scheduler": body["lr_scheduler"]["lr_scheduler_type"],
        "train_on_inputs": body["training_method"]["train_on_inputs"],
        "early_stopping": body["early_stopping_enabled"],
    });
    let fields = named.as_object_mut().unwrap();
    let mut take = |from: &Value, renamed: &[(&str, &str)]| {
        for (sent, name) in renamed {
            fields.extend(from.get(*sent).map(|value| ((*name).to_owned(), value.clone())));
        }
    };
    let same = [
        "from_checkpoint",
        "n_epochs",
        "n_evals",
        "n_checkpoints",
        "batch_size",
        "learning_rate",
        "warmup_ratio",
        "max_grad_norm",
        "weight_decay",
        "packing",
        "random_seed",
        "max_seq_length",
        "gradient_accumulation_steps",
        "early_stopping_patience",
        "early_stopping_min_delta",
        "early_stopping_warmup_evals",
    ];
    take(body, &same.map(|name| (name, name)));
    let args = &body["lr_scheduler"]["lr_scheduler_args"];
    take(args, &[("min_lr_ratio", "min_lr_ratio"), ("num_cycles", "lr_num_cycles")]);
    if let Some(kind) = body.get("training_type") {
        take(&json!({ "lora": kind["type"] == "Lora" }), &[("lora", "lora")]);
        let lora = [
            ("lora_r", "lora_rank"),
            ("lora_alpha", "lora_alpha"),
            ("lora_dropout", "lora_dropout"),
            ("lora_trainable_modules", "lora_trainable_modules"),
        ];
        take(kind, &lora);
    }
    let suffix = body["suffix"].as_str().unwrap();
    take(&json!({ "suffix": suffix[..suffix.len() - 9] }), &[("suffix", "suffix")]);
    fields.retain(|_, value| !value.is_null());
    named
}

#[test]
fn the_documented_recipe_gives_the_tags_of_the_bodies_that_are_sent() {
    let Some(mut python) = support::python() else { return };
    let page = support::repository_text("docs/fine-tune.md");
    let blocks = page.split("```python\n").skip(1).map(|block| block.split_once("```").unwrap().0);
    let recipe = blocks.into_iter().find(|block| block.contains("def tag(")).unwrap();
    let rehearsal = Rehearsal::new();
    // Shards: their digest is that of their digests.
    rehearsal.dir.corpus(40).prepare(&["--shard-records=7"]).expect(0);
    let parent = rehearsal.ctxtune(["submit", "out", "--yes"]).expect(0).stdout;
    rehearsal.forward(1000.0);
    let checkpoint = format!("--from-checkpoint={}", parent.trim_end());
    let mut expected = Vec::new();
    let all: [&[&str]; 8] = [
        &["--n-epochs=2"],
        &["--learning-rate=2.5e-4", "--weight-decay=0.1", "--max-grad-norm=0", "--warmup-ratio=0.03"],
        &["--batch-size=16", "--lora-rank=8", "--lora-dropout=0.05", "--suffix=a_b.c"],
        &["--lora=false", "--packing=false", "--train-on-inputs=true", "--lr-scheduler=linear"],
        &["--early-stopping", "--n-evals=8", "--early-stopping-min-delta=0.001", "--max-seq-length=4096"],
        &["--random-seed=7", "--gradient-accumulation-steps=2", "--n-checkpoints=1", "--min-lr-ratio=1"],
        &[&checkpoint],
        &[&checkpoint, "--lora-rank=64", "--n-epochs=1"],
    ];
    for flags in all {
        let run = rehearsal.ctxtune(["submit", "out", "--yes", "--json"].iter().chain(flags)).expect(0);
        expected.push(run.json()["tag"].as_str().unwrap().to_owned());
    }
    let bodies = rehearsal.requests(&format!("POST {JOBS}"));
    let bodies = bodies.iter().skip(1).map(|seen| serde_json::from_slice::<Value>(&seen.body).unwrap());
    let manifest = rehearsal.dir.manifest();
    let named: Vec<Value> = bodies.map(|body| named(&body, &manifest)).collect();
    rehearsal.dir.write("named.json", json!(named).to_string());
    let program =
        format!("{recipe}\nimport json\nfor named in json.load(open('named.json')): print(tag(named))\n");
    let found = Outcome::of({
        python.arg("-c").arg(program).current_dir(rehearsal.dir.path(""));
        python
    });
    assert_eq!(found.expect(0).stdout.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn limits_and_names_that_the_service_changes_pay_for_no_job_again() {
    let rehearsal = Rehearsal::new().prepared(10);
    let first = submit(&rehearsal, &[]).expect(0);
    let mut limits = rehearsal.ask(
        "GET /v1/fine-tunes/models/limits?model_name=meta-llama%2FMeta-Llama-3.1-8B-Instruct-Reference",
        None,
    );
    limits["max_num_checkpoints"] = json!(2);
    limits["max_num_evals"] = json!(1);
    // Now the seed's model is tuned under its own name, too.
    let rule = rule("GET /v1/fine-tunes/models/limits", When::Always, Action::Body(limits.to_string()));
    rehearsal.fail([rule]);
    std::fs::remove_dir_all(rehearsal.dir.path("out/runs")).unwrap();
    let again = submit(&rehearsal, &[]).expect(0);
    assert_eq!(again.stdout, first.stdout);
    check_one_job(&rehearsal, &again.stdout);
    assert_eq!(rehearsal.creations(), 1);
    // The limit does hold for what is sent.
    let twin = "--base-model=meta-llama/Meta-Llama-3.1-8B-Instruct-Reference";
    submit(&rehearsal, &["--random-seed=1", twin]).expect(0);
    let sent = rehearsal.requests(&format!("POST {JOBS}"));
    let sent: Value = serde_json::from_slice(&sent.last().unwrap().body).unwrap();
    assert_eq!((&sent["n_checkpoints"], &sent["n_evals"]), (&json!(2), &json!(1)));
}

#[test]
fn of_two_jobs_with_one_tag_the_older_is_adopted_and_the_other_named() {
    let rehearsal = Rehearsal::new().prepared(10);
    submit(&rehearsal, &[]).expect(0);
    let body: Value = serde_json::from_slice(&rehearsal.requests(&format!("POST {JOBS}"))[0].body).unwrap();
    rehearsal.forward(5.0);
    let younger = rehearsal.ask("POST /v1/fine-tunes", Some(&body))["id"].clone();
    let older = rehearsal.jobs()[0]["id"].clone();
    for is_forgotten in [false, true] {
        if is_forgotten {
            std::fs::remove_dir_all(rehearsal.dir.path("out/runs")).unwrap();
        }
        let run = submit(&rehearsal, &["--json"]).expect(0);
        assert_eq!((&run.json()["job"], &run.json()["other_jobs"]), (&older, &json!([younger])));
        let cancel = format!("ctxtune cancel {}", younger.as_str().unwrap());
        assert!(run.stderr.contains(&cancel), "{}", run.stderr);
    }
    assert_eq!(rehearsal.server.jobs_created(), 2);
}

#[test]
fn a_list_without_suffixes_is_unclear_and_not_absent() {
    let rehearsal = Rehearsal::new().prepared(10);
    // Somebody else's job, of other data.
    submit(&rehearsal, &["--n-epochs=1"]).expect(0);
    std::fs::remove_dir_all(rehearsal.dir.path("out/runs")).unwrap();
    let hide = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        rehearsal.server.set_script(|script| script.faults.omit = names);
    };
    hide(&["suffix", "model_output_name"]);
    let run = submit(&rehearsal, &["--json"]).expect(5);
    assert_eq!(run.json()["error"]["code"], "unclear");
    assert_eq!(rehearsal.creations(), 1);
    // The name of the model carries the tag as well.
    hide(&["suffix"]);
    let found = submit(&rehearsal, &["--n-epochs=1"]).expect(0);
    check_one_job(&rehearsal, &found.stdout);
    // What the ledger knows needs no list.
    hide(&["suffix", "model_output_name"]);
    let known = submit(&rehearsal, &["--n-epochs=1"]).expect(0);
    assert_eq!(known.stdout, found.stdout);
    // Whoever has looked by himself may say so.
    submit(&rehearsal, &["--new-job"]).expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 2);
}

#[test]
fn a_list_that_cannot_be_had_creates_nothing() {
    let rehearsal = Rehearsal::new().prepared(10);
    for body in ["{}", "<html>", "[", r#"{"data":null}"#] {
        let list = rule(&format!("GET {JOBS}"), When::Always, Action::Body(body.to_owned()));
        rehearsal.fail([list]);
        submit(&rehearsal, &[]).expect(5);
    }
    rehearsal.fail([rule(&format!("GET {JOBS}"), When::Always, status(500))]);
    submit(&rehearsal, &[]).expect(5);
    assert_eq!(rehearsal.creations(), 0);
}

#[test]
fn what_belongs_to_another_origin_is_never_taken_for_ours() {
    let first = Rehearsal::new().prepared(10);
    let job = submit(&first, &[]).expect(0).stdout;
    let second = Rehearsal::new();
    let mut command = first.command(SUBMIT);
    command.env(env::TOGETHER_BASE_URL, second.server.url());
    let other = Outcome::of(command).expect(0).stdout;
    assert_ne!(job, other);
    assert_eq!((second.server.jobs_created(), second.files().len()), (1, 2));
    // Back at the first one, where everything is as it was.
    assert_eq!(submit(&first, &[]).expect(0).stdout, job);
    assert_eq!((first.server.jobs_created(), first.files().len()), (1, 2));
    let monitored = first.ctxtune(["submit", "out", "--yes", "--json"]).expect(0).json();
    assert_eq!(monitored["api"], first.server.url());
}

#[test]
fn what_belongs_to_another_project_is_never_taken_for_ours() {
    let rehearsal = Rehearsal::new().prepared(10);
    submit(&rehearsal, &[]).expect(0);
    let other = r#"{"project":{"id":"proj-other","name":"Other","slug":"other"}}"#.to_owned();
    rehearsal.fail([rule("GET /v3/whoami", When::Always, Action::Body(other))]);
    submit(&rehearsal, &[]).expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 2);
    let projects: Vec<_> = rehearsal.ledgers().iter().map(|run| run["account"]["project"].clone()).collect();
    assert!(projects.contains(&json!("proj-other")) && projects.contains(&json!("proj-rehearsal")));
}

#[test]
fn a_ledger_that_cannot_be_read_is_named_and_nothing_is_asked_for() {
    let rehearsal = Rehearsal::new().prepared(10);
    submit(&rehearsal, &[]).expect(0);
    let runs = rehearsal.dir.tree("out/runs");
    let ledger = format!("out/runs/{}", runs[0].0);
    for (path, content) in [
        (ledger.as_str(), "{\"schema\":"),
        (&ledger, "{}"),
        (&ledger, ""),
        ("out/uploads.json", "{\"schema\": \"other/9\", \"uploads\": []}"),
        ("out/uploads.json", "nonsense"),
    ] {
        let kept = rehearsal.dir.read(path);
        rehearsal.dir.write(path, content);
        // The uploads are looked at for a job that is not there yet.
        let epochs = if path == "out/uploads.json" { "--n-epochs=2" } else { "--n-epochs=3" };
        let run = submit(&rehearsal, &["--json", epochs]).expect(1);
        let message = run.json()["error"]["message"].to_string();
        assert!(message.contains(path), "{message}");
        assert_eq!(rehearsal.dir.read(path), content, "it is left for whoever looks at it");
        rehearsal.dir.write(path, kept);
    }
    assert_eq!(rehearsal.server.jobs_created(), 1);
    submit(&rehearsal, &[]).expect(0);
}

#[test]
fn where_the_intent_cannot_be_written_nothing_is_asked_for() {
    let rehearsal = Rehearsal::new().prepared(10);
    // A place that can be looked for, and not made.
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere/at/all", rehearsal.dir.path("out/runs")).unwrap();
    #[cfg(not(unix))]
    rehearsal.dir.write("out/runs", "");
    let run = submit(&rehearsal, &[]).expect(1);
    assert!(run.stderr.contains("out/runs"), "{}", run.stderr);
    assert_eq!(rehearsal.creations(), 0);
}

#[cfg(unix)]
#[test]
fn a_signal_in_the_middle_of_the_creation_leaves_an_intent_that_the_next_run_settles() {
    use std::process::Stdio;

    for stage in [Stage::Received, Stage::Acted] {
        let process = Arc::new(Mutex::new(None::<u32>));
        let watch = {
            let process = Arc::clone(&process);
            Arc::new(move |at, seen: &Seen| {
                if at == stage && seen.path == "/v1/fine-tunes" && seen.method == "POST" {
                    let Some(process) = process.lock().unwrap().take() else { return };
                    support::signal(process, "INT");
                }
            })
        };
        let script = Script { job_seconds: 1000.0, verdict_seconds: 0.0, ..Script::default() };
        let rehearsal = Rehearsal::watched(script, watch).prepared(10);
        // The reply comes too late for whoever was told to stop.
        rehearsal.fail(create(first(), Action::Hang(5.0)));
        let child = {
            let mut place = process.lock().unwrap();
            let mut command = rehearsal.command(SUBMIT);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            *place = Some(child.id());
            child
        };
        let run = Outcome::from(child.wait_with_output().unwrap()).expect(130);
        assert_eq!((run.stdout.as_str(), &rehearsal.ledgers()[0]["state"]), ("", &json!("intent")));
        let run = submit(&rehearsal, &[]).expect(0);
        check_one_job(&rehearsal, &run.stdout);
        assert_eq!(rehearsal.creations(), 1);
    }
}

#[test]
fn of_two_submissions_of_one_directory_the_second_fails_at_the_lock() {
    let second = Arc::new(Mutex::new(None::<Command>));
    let said = Arc::new(Mutex::new(None::<Outcome>));
    let watch = {
        let (second, said) = (Arc::clone(&second), Arc::clone(&said));
        Arc::new(move |stage, seen: &Seen| {
            if stage == Stage::Received && seen.path == "/v1/fine-tunes" && seen.method == "POST" {
                let command = second.lock().unwrap().take();
                *said.lock().unwrap() = command.map(Outcome::of);
            }
        })
    };
    let script = Script { job_seconds: 1000.0, verdict_seconds: 0.0, ..Script::default() };
    let rehearsal = Rehearsal::watched(script, watch).prepared(10);
    *second.lock().unwrap() = Some(rehearsal.command(SUBMIT));
    let first = submit(&rehearsal, &[]).expect(0);
    let second = said.lock().unwrap().take().unwrap().expect(1);
    assert!(second.stderr.contains("another run is at work in `out`"), "{}", second.stderr);
    check_one_job(&rehearsal, &first.stdout);
}

#[test]
fn a_server_that_is_not_there_creates_nothing_and_says_where_it_was_looked_for() {
    let rehearsal = Rehearsal::new().prepared(10);
    let gone = {
        let server = Server::start(
            Script::default(),
            Arc::new(ServerClock(Arc::new(SystemClock::new(Signals::default(), 1.0)))),
        );
        server.unwrap().url().to_owned()
    };
    let mut command = rehearsal.command(SUBMIT);
    command.env(env::TOGETHER_BASE_URL, &gone);
    let run = Outcome::of(command).expect(5);
    assert!(run.stderr.contains(&gone), "{}", run.stderr);
    assert_eq!(rehearsal.ledgers().len(), 0);
}
