//! Money is spent, and data leaves the machine, only where somebody agreed to it.

use ctxtune_pipeline::env;
use ctxtune_rehearsal::Script;
use ctxtune_rehearsal::faults::{Action, When};
use serde_json::json;

use crate::service::{FILES, rule, status};
use crate::support::{Outcome, Rehearsal, record};

const ESTIMATE: &str = "POST /v1/fine-tunes/estimate-price$";

/// What the server says about the price, whatever is asked.
fn estimate(answer: &serde_json::Value) -> [ctxtune_rehearsal::faults::Rule; 1] {
    [rule(ESTIMATE, When::Always, Action::Body(answer.to_string()))]
}

/// `submit out` ended with `code`, nothing was created, and how many files went before.
#[track_caller]
fn check_refused(rehearsal: &Rehearsal, flags: &[&str], code: i32, error: &str) -> Outcome {
    let run = rehearsal.ctxtune(["submit", "out", "--json"].iter().chain(flags)).expect(code);
    assert_eq!(run.json()["error"]["code"], error, "{}", run.stderr);
    assert_eq!(rehearsal.creations(), 0);
    rehearsal.check_protocol();
    run
}

#[test]
fn without_consent_nothing_leaves_the_machine() {
    let rehearsal = Rehearsal::new().prepared(10);
    let run = check_refused(&rehearsal, &[], 9, "no_consent");
    assert!(run.stderr.contains("--max-cost") && run.stderr.contains("--yes"), "{}", run.stderr);
    check_refused(&rehearsal, &["--new-job"], 9, "no_consent");
    // Before the data is even prepared.
    rehearsal.ctxtune(["finetune", "corpus", "-o", "fresh"]).expect(9);
    assert!(!rehearsal.dir.exists("fresh"));
    assert_eq!(rehearsal.server.seen(), []);
}

#[test]
fn a_job_that_is_there_is_gone_on_with_unasked_but_another_one_is_not() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    let run = rehearsal.ctxtune(["submit", "out"]).expect(0);
    assert_eq!(run.stdout.trim_end(), job);
    let before = rehearsal.requests(&format!("POST {FILES}")).len();
    for flags in [&["--n-epochs=1"][..], &["--new-job", "--n-epochs=1"]] {
        rehearsal.ctxtune(["submit", "out"].iter().chain(flags)).expect(9);
    }
    rehearsal.forward(1000.0);
    rehearsal.ctxtune(["submit", "out", "--new-job"]).expect(9);
    assert_eq!(rehearsal.requests(&format!("POST {FILES}")).len(), before);
    assert_eq!(rehearsal.creations(), 1);
}

#[test]
fn the_estimate_is_held_against_the_cap() {
    let rehearsal = Rehearsal::new().prepared(10);
    let run = check_refused(&rehearsal, &["--max-cost=0.0001", "--yes"], 9, "over_max_cost");
    assert!(run.stderr.contains("nothing caps the bill"), "{}", run.stderr);
    assert_eq!(rehearsal.files().len(), 2, "the service prices files that it has");
    let run = rehearsal.ctxtune(["submit", "out", "--max-cost=1", "--json"]).expect(0).json();
    let price = run["price"]["estimated_dollars"].as_f64().unwrap();
    assert!(price > 0.0001 && price < 1.0, "{price}");
    assert_eq!(rehearsal.server.jobs_created(), 1);
}

#[test]
fn without_an_estimate_a_cap_is_not_kept_and_a_plain_yes_suffices() {
    let rehearsal = Rehearsal::new().prepared(10);
    for action in [
        Action::Body(json!({ "estimation_available": false, "unavailable_reason": "busy" }).to_string()),
        Action::Body(json!({ "estimation_available": true }).to_string()),
        Action::Body("{}".to_owned()),
        Action::Body("<html>".to_owned()),
        status(500),
        status(404),
    ] {
        rehearsal.fail([rule(ESTIMATE, When::Always, action)]);
        check_refused(&rehearsal, &["--max-cost=1000"], 9, "no_estimate");
    }
    let run = rehearsal.ctxtune(["submit", "out", "--yes", "--json"]).expect(0);
    assert_eq!(run.json()["price"]["estimated_dollars"], json!(null));
    assert!(run.stderr.contains("not known: "), "{}", run.stderr);
}

#[test]
fn what_the_account_may_not_spend_is_not_spent_in_any_case() {
    let rehearsal = Rehearsal::new().prepared(10);
    rehearsal.fail(estimate(&json!({
        "estimation_available": true, "estimated_total_price": 2.0, "estimated_train_token_count": 1000,
        "estimated_eval_token_count": 10, "user_limit": 1.0, "allowed_to_proceed": false,
    })));
    for flags in [&["--yes"][..], &["--max-cost=1000"], &["--yes", "--max-cost=1000"]] {
        let run = check_refused(&rehearsal, flags, 9, "not_allowed");
        assert!(run.stderr.contains("its limit is $1.00"), "{}", run.stderr);
    }
}

#[test]
fn without_packing_every_sample_costs_a_whole_sequence() {
    let rehearsal = Rehearsal::new().prepared(10);
    let cap = "--max-cost=0.05";
    let run = check_refused(&rehearsal, &[cap, "--packing=false"], 9, "over_max_cost");
    assert!(run.stderr.contains("packing is off: 30 samples of 8192 tokens"), "{}", run.stderr);
    // The server charges $0.48 a million tokens.
    let price = format!("${:.2}", 30.0 * 8192.0 * 0.48 / 1e6);
    assert!(run.stderr.contains(&price), "{price}: {}", run.stderr);
    rehearsal.ctxtune(["submit", "out", cap]).expect(0);
}

#[test]
fn a_value_over_a_limit_is_refused_before_anything_is_uploaded() {
    let rehearsal = Rehearsal::new().prepared(10);
    for (flag, key, bound) in [
        ("--lora-rank=128", "lora_rank", "64"),
        ("--n-epochs=21", "n_epochs", "20"),
        ("--n-evals=101", "n_evals", "100"),
        ("--n-checkpoints=21", "n_checkpoints", "20"),
        ("--learning-rate=0.5", "learning_rate", "0.01"),
        ("--batch-size=4", "batch_size", "8"),
        ("--batch-size=65", "batch_size", "64"),
        ("--max-seq-length=100000", "max_seq_length", "8192"),
        ("--suffix=a-suffix-with-more-characters-than-fit", "suffix", "31"),
    ] {
        let run = check_refused(&rehearsal, &["--yes", flag], 2, "over_limit");
        let value = flag.split_once('=').unwrap().1;
        for part in [key, value, bound, "chosen by flag"] {
            assert!(run.stderr.contains(part), "{flag}: {part}: {}", run.stderr);
        }
    }
    rehearsal.dir.write("rank.yaml", "lora_rank: 128\n");
    let run = check_refused(&rehearsal, &["--yes", "--config-path=rank.yaml"], 2, "over_limit");
    assert!(run.stderr.contains("lora_rank") && run.stderr.contains("chosen by file"), "{}", run.stderr);
    assert_eq!(rehearsal.requests("POST /").len(), 0);
}

#[test]
fn full_training_is_refused_where_the_model_does_not_support_it() {
    let rehearsal = Rehearsal::new().prepared(10);
    let small = "--base-model=Qwen/Qwen3-0.6B";
    let run = check_refused(&rehearsal, &["--yes", "--lora=false", small], 2, "over_limit");
    assert!(run.stderr.contains("lora"), "{}", run.stderr);
    rehearsal.ctxtune(["submit", "out", "--yes", "--lora=false", "--base-model=Qwen/Qwen3-8B"]).expect(0);
    let sent = &rehearsal.requests("POST /v1/fine-tunes$")[0].body;
    let sent: serde_json::Value = serde_json::from_slice(sent).unwrap();
    assert_eq!(sent["training_type"], json!({ "type": "Full" }));
}

#[test]
fn a_model_that_is_not_tuned_is_answered_with_the_nearest_name() {
    let rehearsal = Rehearsal::new().prepared(10);
    let run =
        check_refused(&rehearsal, &["--yes", "--base-model=qwen/qwen3-8b-instruct"], 2, "unknown_model");
    assert!(run.stderr.contains("Qwen/Qwen3-8B"), "{}", run.stderr);
    assert_eq!(rehearsal.requests("POST /").len(), 0);
}

#[test]
fn the_seeds_model_becomes_its_tunable_twin_and_that_is_said() {
    let rehearsal = Rehearsal::new().prepared(10);
    let run = rehearsal.ctxtune(["submit", "out", "--yes"]).expect(0);
    let model = "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference";
    assert_eq!(rehearsal.jobs()[0]["model"], model);
    for part in [model, "tunable twin", "can only be downloaded", "1e-5"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
}

/// The body of the last creation.
fn last_body(rehearsal: &Rehearsal) -> serde_json::Value {
    serde_json::from_slice(&rehearsal.requests("POST /v1/fine-tunes$").last().unwrap().body).unwrap()
}

#[test]
fn a_job_from_a_checkpoint_inherits_the_training_type_and_the_table_says_so() {
    let rehearsal = Rehearsal::new();
    let parent = rehearsal.submit(10, &["--lora-rank=8", "--lora-alpha=32"]);
    let trained = rehearsal.jobs()[0]["training_type"].clone();
    let checkpoint = format!("--from-checkpoint={parent}");
    let child = rehearsal.ctxtune(["submit", "out", "--yes", &checkpoint]).expect(0);
    let words: Vec<&str> = child
        .stderr
        .lines()
        .find(|line| line.contains("training_type"))
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(words, ["training_type", "inherited", "parent"]);
    assert!(!child.stderr.contains("lora_rank"), "{}", child.stderr);
    let body = last_body(&rehearsal);
    assert_eq!((body.get("training_type"), &body["from_checkpoint"]), (None, &json!(parent)));
    let estimate = rehearsal.requests(ESTIMATE);
    let estimate: serde_json::Value = serde_json::from_slice(&estimate.last().unwrap().body).unwrap();
    assert_eq!(estimate.get("training_type"), None);
    assert_eq!(rehearsal.jobs()[1]["training_type"], trained, "the server gives the parent's");
    rehearsal.check_protocol();
}

#[test]
fn a_job_from_a_checkpoint_sends_a_training_type_where_a_lora_key_was_set() {
    let rehearsal = Rehearsal::new();
    let parent = rehearsal.submit(10, &[]);
    let checkpoint = format!("--from-checkpoint={parent}");
    rehearsal.dir.write("lora.yaml", "lora_rank: 64\n");
    rehearsal.ctxtune(["submit", "out", "--yes", &checkpoint, "--config-path=lora.yaml"]).expect(0);
    assert_eq!(last_body(&rehearsal)["training_type"]["lora_r"], 64);
    // Another one than the parent's: the service refuses it, and there is no job.
    for flag in ["--lora-rank=8", "--lora-alpha=17", "--lora=false", "--lora-dropout=0.1"] {
        let run = rehearsal.ctxtune(["submit", "out", "--yes", "--json", &checkpoint, flag]).expect(1);
        assert!(run.json()["error"]["message"].to_string().contains("parent"), "{flag}: {}", run.stdout);
    }
    assert_eq!(rehearsal.server.jobs_created(), 2);
    rehearsal.check_protocol();
}

#[test]
fn a_model_into_which_lora_is_not_merged_is_said_before_consent() {
    let rehearsal = Rehearsal::new().prepared(10);
    let model = "--base-model=openai/gpt-oss-20b";
    let run = check_refused(&rehearsal, &[model, "--max-cost=0.0000001"], 9, "over_max_cost");
    let row = run.stderr.lines().find(|line| line.trim_start().starts_with("lora ")).unwrap();
    assert!(row.ends_with("adapter only"), "{row}");
    let run = rehearsal.ctxtune(["submit", "out", "--yes", "--base-model=Qwen/Qwen3-8B"]).expect(0);
    assert!(!run.stderr.contains("adapter only"), "{}", run.stderr);
}

#[test]
fn a_sample_longer_than_a_sequence_is_unfit_unless_it_may_be_cut() {
    let rehearsal = Rehearsal::new();
    let mut long = record(99);
    long["story"] = format!("Mia {}.", "walked and walked ".repeat(2000)).into();
    rehearsal.dir.write("corpus/long.json", long.to_string());
    let rehearsal = rehearsal.prepared(20);
    let short = "--max-seq-length=512";
    let run = rehearsal.ctxtune(["submit", "out", "--yes", short]).expect(3);
    assert!(run.stderr.contains("512"), "{}", run.stderr);
    assert_eq!(rehearsal.requests("POST /").len(), 0);
    rehearsal.ctxtune(["submit", "out", "--yes"]).expect(0);
    rehearsal.ctxtune(["submit", "out", "--yes", short, "--allow-truncation"]).expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 2);
}

#[test]
fn a_dry_run_shows_every_request_and_sends_none() {
    let rehearsal = Rehearsal::new().prepared(10);
    let secret = "tgp_v1_not_to_be_seen";
    let dry = |flags: &[&str]| {
        let mut command = rehearsal.command(["submit", "out", "--dry-run"].iter().chain(flags));
        command.env(env::TOGETHER_API_KEY, secret);
        let run = Outcome::of(command).expect(0);
        assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret));
        assert!(run.stdout.contains("[key]"), "{}", run.stdout);
        run
    };
    dry(&[]);
    let document = dry(&["--json", "--learning-rate=3e-4"]).json();
    assert_eq!(rehearsal.server.seen(), []);
    assert!(!rehearsal.dir.exists("state") && !rehearsal.dir.exists("out/uploads.json"));
    // What was shown is what is sent, but for what only the service knows.
    let shown = document["requests"].as_array().unwrap();
    rehearsal.ctxtune(["submit", "out", "--yes", "--learning-rate=3e-4"]).expect(0);
    let sent = rehearsal.requests("POST /v1/fine-tunes$")[0].body.clone();
    let mut sent: serde_json::Value = serde_json::from_slice(&sent).unwrap();
    let mut last = shown.last().unwrap()["body"].clone();
    for name in ["training_file", "validation_file", "suffix", "model"] {
        assert!(sent[name].is_string() && last[name].is_string(), "{name}");
        sent[name].take();
        last[name].take();
    }
    assert_eq!(last, sent);
    let lines = |method: &str| shown.iter().filter(|request| request["method"] == method).count();
    assert_eq!((lines("PUT"), lines("POST")), (2, 6), "{shown:#?}");
}

#[test]
fn an_amount_that_is_none_is_a_usage_error() {
    let rehearsal = Rehearsal::new().prepared(10);
    for amount in ["nan", "-1", "inf", "much", ""] {
        rehearsal.ctxtune(["submit", "out", &format!("--max-cost={amount}")]).expect(2);
    }
    assert_eq!(rehearsal.server.seen(), []);
}

#[test]
fn an_estimate_that_is_negative_or_not_a_number_passes_no_cap() {
    for dollars in ["-3", "-1e-9", "\"NaN\"", "\"-inf\"", "\"Infinity\"", "null"] {
        let rehearsal = Rehearsal::new().prepared(10);
        let answer = format!(r#"{{"estimation_available":true,"estimated_total_price":{dollars}}}"#);
        let strange = rule(ESTIMATE, When::Always, Action::Body(answer));
        rehearsal.server.set_script(|script| script.faults.rules.push(strange));
        check_refused(&rehearsal, &["--max-cost=1000"], 9, "no_estimate");
        rehearsal.ctxtune(["submit", "out", "--yes"]).expect(0);
        assert_eq!(rehearsal.server.jobs_created(), 1, "{dollars}");
    }
}

#[test]
fn other_jobs_of_the_directory_that_run_are_named_before_consent() {
    let rehearsal = Rehearsal::new().prepared(10);
    let submit = |flags: &[&str]| rehearsal.ctxtune([&["submit", "out", "--json"], flags].concat());
    let first = submit(&["--yes"]).expect(0).json();
    assert_eq!(first["running_jobs"], json!([]));
    let job = first["job"].as_str().unwrap();
    let estimate = first["price"]["estimated_dollars"].as_f64().unwrap();
    let others = |run: &Outcome, differs: &str| {
        run.stderr.contains(&format!("1 running job with other {differs}: {job}, ~$"))
    };
    // Before it is refused, too.
    let refused = submit(&["--n-epochs=1", "--max-cost=0.000001"]).expect(9);
    assert!(others(&refused, "parameters"), "{}", refused.stderr);
    let second = submit(&["--n-epochs=1", "--yes"]).expect(0);
    assert!(others(&second, "parameters"), "{}", second.stderr);
    let named = &second.json()["running_jobs"][0];
    assert_eq!((&named["job"], &named["status"]), (&json!(job), &json!("pending")));
    assert_eq!((&named["price_dollars"], &named["estimated_dollars"]), (&json!(0.0), &json!(estimate)));
    let cancelled = second.json()["job"].as_str().unwrap().to_owned();
    rehearsal.ctxtune(["cancel", &cancelled, "--yes"]).expect(0);
    rehearsal.forward(100.0);

    // A checkout without ledgers knows it by the file that it trains on.
    std::fs::remove_dir_all(rehearsal.dir.path("out/runs")).unwrap();
    let third = submit(&["--n-epochs=2", "--max-cost=0.000001"]).expect(9);
    let said = format!("1 running job with other parameters: {job}, at a price that is not known");
    assert!(third.stderr.contains(&said), "{}", third.stderr);

    // Prepared again, it is other data.
    submit(&["--yes"]).expect(0);
    rehearsal.dir.prepare(&["--seed=7"]).expect(0);
    let other = submit(&["--max-cost=0.000001"]).expect(9);
    let said = format!("1 running job with other data or parameters: {job}, ");
    assert!(other.stderr.contains(&said), "{}", other.stderr);
    rehearsal.forward(1000.0);
    let done = submit(&["--max-cost=0.000001"]).expect(9);
    assert!(!done.stderr.contains("running job"), "it has ended: {}", done.stderr);
}

#[test]
fn watching_ends_with_what_was_billed_and_what_was_estimated() {
    let rehearsal = Rehearsal::new().prepared(10);
    let submitted = rehearsal.ctxtune(["submit", "out", "--yes", "--json"]).expect(0).json();
    let estimate = &submitted["price"]["estimated_dollars"];
    let monitor = |flags: &[&str]| rehearsal.ctxtune([&["monitor", "--json"], flags].concat());
    let waiting = monitor(&["out", "--timeout=0.1"]).expect(8);
    assert_eq!(&waiting.json()["estimated_dollars"], estimate);
    assert!(waiting.stderr.contains("price     $0.00 so far, estimated $"), "{}", waiting.stderr);
    rehearsal.forward(1000.0);
    let job = submitted["job"].as_str().unwrap();
    for target in ["out", job, "--last"] {
        let done = monitor(&[target]).expect(0);
        assert_eq!(&done.json()["estimated_dollars"], estimate, "{target}");
        assert!(done.json()["price_dollars"].as_f64().unwrap() > 0.0);
        assert!(done.stderr.contains("price     billed $"), "{}", done.stderr);
    }
    // Neither its directory nor this machine's journal is there.
    let mut elsewhere = rehearsal.command(["monitor", job, "--json"]);
    elsewhere.env("XDG_STATE_HOME", rehearsal.dir.path("elsewhere"));
    let elsewhere = Outcome::of(elsewhere).expect(0);
    assert_eq!(elsewhere.json()["estimated_dollars"], json!(null));
    assert!(elsewhere.stderr.contains("no estimate is known"), "{}", elsewhere.stderr);

    let failed = rehearsal.ctxtune(["submit", "out", "--yes", "--json", "--n-epochs=1"]).expect(0).json();
    rehearsal.ctxtune(["cancel", failed["job"].as_str().unwrap(), "--yes"]).expect(0);
    rehearsal.forward(100.0);
    let cancelled = monitor(&[failed["job"].as_str().unwrap()]).expect(7);
    assert_eq!(cancelled.json()["estimated_dollars"], failed["price"]["estimated_dollars"]);
    assert!(cancelled.stderr.contains("price     billed $"), "{}", cancelled.stderr);
}

#[test]
fn the_expected_time_is_said_before_the_job_is_agreed_to() {
    let rehearsal =
        Rehearsal::with(Script { job_seconds: 1000.0, verdict_seconds: 0.0, ..Script::default() });
    rehearsal.dir.corpus(10).prepare(&[]).expect(0);
    let published =
        "time      5m to 30m in the queue, then 2h to 4h for 3 epochs: figures of 2025, not the service's";
    let dry = rehearsal.ctxtune(["submit", "out", "--dry-run", "--json"]).expect(0);
    assert!(dry.stderr.contains(published), "{}", dry.stderr);
    let expected = json!({
        "queue_seconds": [300, 1800], "training_seconds": [7200, 14400], "from": "published", "job": null,
        "as_of": "2025",
    });
    assert_eq!(dry.json()["expected_time"], expected);
    // Refused for its price: the time is said before that.
    let refused = rehearsal.ctxtune(["submit", "out", "--max-cost=0"]).expect(9);
    assert!(refused.stderr.contains(published), "{}", refused.stderr);
    let first = rehearsal.ctxtune(["submit", "out", "--yes", "--json"]).expect(0).json();
    assert_eq!(first["expected_time"], expected);
    // The same job again was not asked for.
    let again = rehearsal.ctxtune(["submit", "out", "--yes", "--json"]).expect(0);
    assert_eq!(again.json()["expected_time"], json!(null));
    // Once a job of this model is complete, it says how long one takes.
    rehearsal.forward(1000.0);
    let second = rehearsal.ctxtune(["submit", "out", "--yes", "--json", "--n-epochs=6"]).expect(0);
    let line = second.stderr.lines().find(|line| line.starts_with("time ")).unwrap().to_owned();
    let job = first["job"].as_str().unwrap();
    assert!(line.contains(&format!(": as {job} took, 20")), "{line}");
    let expected = &second.json()["expected_time"];
    assert_eq!((&expected["from"], &expected["job"]), (&json!("job"), &json!(job)));
    let seconds = |range: &str| expected[range][0].as_u64().unwrap();
    let (queue, training) = (seconds("queue_seconds"), seconds("training_seconds"));
    assert!((1..1000).contains(&queue), "{expected}");
    assert!((1000..2000).contains(&training), "twice the epochs: {expected}");
}
