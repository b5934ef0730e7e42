//! The commands about jobs and files that exist, against a server on this machine.

use std::io::Read;
use std::process::Stdio;

use ctxtune_rehearsal::faults::{Action, When};
use ctxtune_rehearsal::{Outcome, Script};
use serde_json::{Value, json};

use crate::service::rule;
use crate::support::{self, Dir, Rehearsal};

/// Requests that would change something at the service.
fn changes(rehearsal: &Rehearsal) -> Vec<String> {
    let seen = rehearsal.server.seen();
    let changing = seen.iter().filter(|seen| !["GET", "HEAD"].contains(&seen.method.as_str()));
    changing.map(|seen| format!("{} {}", seen.method, seen.path)).collect()
}

/// How many requests of this method went to a path that holds `part`.
fn count(rehearsal: &Rehearsal, method: &str, part: &str) -> usize {
    rehearsal.server.seen().iter().filter(|seen| seen.method == method && seen.path.contains(part)).count()
}

/// Has the server behave as a faults file says.
fn spoil(rehearsal: &Rehearsal, faults: &str) {
    rehearsal.server.set_script(|script| script.faults = support::faults(faults));
}

#[test]
fn a_submission_reaches_the_server_of_the_test() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    assert!(job.starts_with("ft-"), "{job}");
    assert_eq!((rehearsal.server.jobs_created(), rehearsal.server.violations()), (1, Vec::new()));
    assert!(rehearsal.dir.exists("state/ctxtune/jobs.jsonl"));
    rehearsal.forward(1000.0);
    let model = rehearsal.ctxtune(["monitor", "out"]).expect(0).stdout;
    assert!(model.contains("socialized-context-generator"), "{model}");
}

#[test]
fn every_command_says_in_its_help_what_stdout_and_the_exit_codes_are() {
    let dir = Dir::new();
    for command in
        ["status", "cancel", "jobs", "files", "checkpoints", "download", "deploy", "endpoints", "doctor"]
    {
        let help = dir.ctxtune([command, "--help"]).expect(0).stdout;
        assert!(help.contains("Examples:") && help.contains("Exit codes: 0"), "{help}");
        assert!(help.contains("--base-url") && help.contains("--json"), "{help}");
        assert!(command == "doctor" || help.contains("stdout:"), "{help}");
    }
}

#[test]
fn nothing_is_asked_without_a_key() {
    let rehearsal = Rehearsal::new();
    let lines = ["status ft-1", "cancel ft-1 --yes", "jobs", "files", "files delete file-1 --yes"];
    for line in lines.into_iter().chain([
        "checkpoints ft-1",
        "download ft-1",
        "deploy ft-1 --name contexts --yes",
        "endpoints",
        "endpoints stop contexts",
    ]) {
        let mut command = rehearsal.command(line.split(' '));
        command.env_remove("TOGETHER_API_KEY");
        let run = support::Outcome::of(command).expect(4);
        assert!(run.stderr.contains("TOGETHER_API_KEY environment variable not set"), "{}", run.stderr);
        assert_eq!(run.stdout, "");
    }
    assert!(rehearsal.server.seen().is_empty());
}

#[test]
fn a_job_that_is_not_there_is_a_usage_error() {
    let rehearsal = Rehearsal::new();
    for line in ["status ft-none", "cancel ft-none --yes", "checkpoints ft-none", "download ft-none"] {
        let run = rehearsal.ctxtune(line.split(' ')).expect(2);
        assert!(run.stderr.contains("404") && run.stderr.contains("ctxtune jobs"), "{}", run.stderr);
    }
    rehearsal.ctxtune(["status", "../x"]).expect(2);
    rehearsal.ctxtune(["status", "--last"]).expect(2);
    rehearsal.ctxtune(["status"]).expect(2);
}

/// The fields that every look at a job has, with the types of those that may be missing.
fn summary(started: &str) -> Value {
    json!({
        "job": "string", "status": "string", "created_at": "string", "started_at": started,
        "base_model": "string", "model": "string",
    })
}

fn status_fields(changed: &Value) -> Value {
    let mut fields = summary("string");
    let more = json!({
        "url": "string", "model_object": "null", "queue_depth": "integer", "step": "integer",
        "total_steps": "integer", "epoch": "number", "n_epochs": "integer", "train_loss": "number",
        "eval_loss": { "step": "integer", "loss": "number" }, "price_dollars": "number",
        "estimated_dollars": "number", "early_stopped": "boolean", "files": { "train": "string", "val": "string" }, "endpoints": [],
        "wandb_url": "null",
    });
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fields.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
    fields
}

#[test]
fn a_status_is_a_word_and_a_screen_whatever_it_is() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    let look = |status: &str, said: &[&str]| {
        for target in [&["status", &job], &["status", "out"], &["status", "--last"]] {
            let run = rehearsal.ctxtune(target).expect(0);
            assert_eq!(run.stdout, format!("{status}\n"));
            for said in said {
                assert!(run.stderr.contains(said), "{said}: {}", run.stderr);
            }
        }
    };
    look("pending", &["queue     2 before it", "$0.00 so far", "ctxtune monitor ft-"]);
    rehearsal.forward(500.0);
    look(
        "running",
        &["step 15/30 (50 %), epoch 1.50/3", "train loss", "validation loss", "/fine-tuning/ft-"],
    );
    rehearsal.forward(500.0);
    look("completed", &["object    ml_", "ctxtune download ft-", "--adapter", "step 30/30"]);
}

#[test]
fn the_document_of_a_status_is_pinned() {
    let rehearsal = Rehearsal::new();
    rehearsal.submit(10, &[]);
    let look = || rehearsal.ctxtune(["status", "out", "--json"]).expect(0);
    let pending = json!({
        "started_at": "null", "step": "null", "total_steps": "integer", "train_loss": "null",
        "eval_loss": "null",
    });
    look().document("status", status_fields(&pending));
    rehearsal.forward(500.0);
    let document = look().document("status", status_fields(&json!({})));
    assert_eq!((&document["step"], &document["total_steps"]), (&json!(15), &json!(30)));
    rehearsal.forward(500.0);
    look().document("status", status_fields(&json!({ "model_object": "string" })));
    let failed = rehearsal.ctxtune(["status", "ft-none", "--json"]).expect(2);
    assert_eq!(failed.document("status", json!({}))["error"]["code"], "not_found");
}

#[test]
fn a_failed_a_cancelled_and_an_unknown_status_are_looks_too() {
    let script = Script { job_seconds: 1000.0, outcome: Outcome::Error, ..Script::default() };
    let rehearsal = Rehearsal::with(Script { verdict_seconds: 0.0, ..script });
    let job = rehearsal.submit(10, &[]);
    spoil(&rehearsal, "statuses: { 200: \"on \\e[31mholiday\" }");
    rehearsal.forward(300.0);
    let run = rehearsal.ctxtune(["status", &job]).expect(0);
    assert_eq!(run.stdout, "on \\u{1b}[31mholiday\n");
    assert!(run.stderr.contains("new here") && !run.stderr.contains('\u{1b}'), "{}", run.stderr);
    rehearsal.forward(700.0);
    let run = rehearsal.ctxtune(["status", &job]).expect(0);
    assert_eq!(run.stdout, "error\n");
    assert!(run.stderr.contains("shows how it ended"), "{}", run.stderr);
}

#[test]
fn a_status_does_not_depend_on_events_and_metrics() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    rehearsal.forward(500.0);
    spoil(&rehearsal, "rules: [{ path: /v1/fine-tunes/*/events, do: { status: 404 } }]");
    let run = rehearsal.ctxtune(["status", &job]).expect(0);
    assert_eq!(run.stdout, "running\n");
    assert!(run.stderr.contains("warning: how far it is cannot be told"), "{}", run.stderr);
}

#[test]
fn a_cancellation_needs_a_yes_and_is_not_asked_for_twice() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    let before = rehearsal.server.seen().len();
    let refused = rehearsal.ctxtune(["cancel", &job]).expect(9);
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    assert_eq!(rehearsal.server.seen().len(), before, "nothing is asked");
    let refused = rehearsal.ctxtune(["cancel", "out", "--yes"]).expect(2);
    assert!(refused.stderr.contains("is a directory"), "{}", refused.stderr);

    rehearsal.forward(500.0);
    let run = rehearsal.ctxtune(["cancel", &job, "--yes"]).expect(0);
    assert_eq!(run.stdout, "cancel_requested\n");
    for said in
        [job.as_str(), "running", "so far", "billed", "socialized-context-generator", "ctxtune monitor"]
    {
        assert!(run.stderr.contains(said), "{said}: {}", run.stderr);
    }
    let again = rehearsal.ctxtune(["cancel", &job, "--yes"]).expect(1);
    assert!(again.stderr.contains("is being cancelled already"), "{}", again.stderr);
    rehearsal.forward(500.0);
    let again = rehearsal.ctxtune(["cancel", &job, "--yes"]).expect(1);
    assert!(again.stderr.contains("is cancelled already"), "{}", again.stderr);
    assert_eq!(count(&rehearsal, "POST", "/cancel"), 1);
}

#[test]
fn a_job_that_has_ended_is_not_cancelled() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    rehearsal.forward(1000.0);
    let run = rehearsal.ctxtune(["cancel", &job, "--yes"]).expect(1);
    assert!(run.stderr.contains("is complete"), "{}", run.stderr);
    assert_eq!((run.stdout.as_str(), count(&rehearsal, "POST", "/cancel")), ("", 0));
}

#[test]
fn a_cancellation_whose_reply_was_lost_is_found_done() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    spoil(&rehearsal, "rules: [{ path: /v1/fine-tunes/*/cancel, nth: [1], do: { lose_reply: true } }]");
    let run = rehearsal.ctxtune(["cancel", &job, "--yes"]).expect(0);
    assert_eq!(run.stdout, "cancel_requested\n");
    assert_eq!(count(&rehearsal, "POST", "/cancel"), 2);
}

#[test]
fn a_refused_cancellation_has_the_words_of_the_service() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    spoil(
        &rehearsal,
        "rules: [{ path: /v1/fine-tunes/*/cancel, do: { status: 400, body: 'not on Sundays' } }]",
    );
    let run = rehearsal.ctxtune(["cancel", &job, "--yes"]).expect(1);
    assert!(run.stderr.contains("not on Sundays"), "{}", run.stderr);
}

#[test]
fn the_documents_of_a_cancellation_are_pinned() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    let fields = json!({ "job": "string", "status": "string", "price_dollars": "number" });
    let cancel = |flags: &[&str]| rehearsal.ctxtune([&["cancel", &job, "--json"], flags].concat());
    let refused = cancel(&[]).expect(9).document("cancel", json!({}));
    assert_eq!(refused["error"]["code"], "no_consent");
    let done = cancel(&["--yes"]).expect(0).document("cancel", fields.clone());
    assert_eq!(done["status"], "cancel_requested");
    let refused = cancel(&["--yes"]).expect(1).document("cancel", fields);
    assert_eq!(refused["error"]["code"], "not_running");
}

#[test]
fn jobs_are_lines_newest_first() {
    let rehearsal = Rehearsal::new();
    let none = rehearsal.ctxtune(["jobs"]).expect(0);
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "no jobs\n"));
    let first = rehearsal.submit(10, &[]);
    rehearsal.forward(100.0);
    let second = rehearsal.submit(10, &["--n-epochs", "2"]);
    let run = rehearsal.ctxtune(["jobs"]).expect(0);
    let rows: Vec<Vec<&str>> = run.stdout.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), [second.as_str(), &first]);
    assert_eq!((rows[0].len(), rows[0][1], rows[1][1]), (6, "pending", "queued"));
    assert!(rows[0][2].ends_with('Z') && rows[0][2] > rows[1][2], "{}", run.stdout);
    assert!(rows.iter().all(|row| row[3].starts_with('~')), "{}", run.stdout);
    assert_eq!(rows[0][4], "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference");
    assert!(rows[0][5].starts_with("rehearsal/"), "{}", run.stdout);

    let run = rehearsal.ctxtune(["jobs", "-n", "1"]).expect(0);
    assert_eq!(run.stdout.lines().count(), 1);
    assert!(run.stderr.starts_with("1 of 2 jobs; -n 0 shows all\ntotal "), "{}", run.stderr);
    assert_eq!(rehearsal.ctxtune(["jobs", "-n", "0"]).expect(0).stdout.lines().count(), 2);

    let document = rehearsal.ctxtune(["jobs", "-n1", "--json"]).expect(0);
    let mut job = summary("null");
    job["price_dollars"] = "number".into();
    job["estimated_dollars"] = "number".into();
    let totals =
        json!({ "billed_dollars": "number", "estimated_dollars": "number", "unpriced_jobs": "integer" });
    let fields = json!({ "total": "integer", "jobs": [job], "since": "null", "totals": totals });
    let document = document.document("jobs", fields);
    assert_eq!((&document["total"], &document["jobs"][0]["job"]), (&json!(2), &json!(second)));
}

#[test]
fn jobs_have_prices_and_a_total_in_which_estimates_are_apart() {
    let rehearsal = Rehearsal::new();
    rehearsal.dir.corpus(10).prepare(&[]).expect(0);
    let submit = |flags: &[&str]| {
        let run = rehearsal.ctxtune([&["submit", "out", "--yes", "--json"], flags].concat()).expect(0).json();
        (run["job"].as_str().unwrap().to_owned(), run["price"]["estimated_dollars"].as_f64().unwrap())
    };
    let (first, _) = submit(&[]);
    rehearsal.forward(1000.0);
    let (second, estimate) = submit(&["--n-epochs=2"]);
    let jobs = |flags: &[&str]| rehearsal.ctxtune([&["jobs", "--json"], flags].concat()).expect(0).json();
    let all = jobs(&["-n1"]);
    let ids = |document: &Value| -> Vec<String> {
        let jobs = document["jobs"].as_array().unwrap();
        jobs.iter().map(|job| job["job"].as_str().unwrap().to_owned()).collect()
    };
    // The total is that of all jobs, however many are listed.
    assert_eq!((&all["total"], ids(&all)), (&json!(2), vec![second.clone()]));
    let billed = jobs(&[])["jobs"][1]["price_dollars"].as_f64().unwrap();
    assert!(billed > 0.0 && estimate > 0.0);
    let totals = json!({ "billed_dollars": billed, "estimated_dollars": estimate, "unpriced_jobs": 0 });
    assert_eq!(all["totals"], totals);
    let job = &all["jobs"][0];
    assert_eq!((&job["price_dollars"], &job["estimated_dollars"]), (&json!(0.0), &json!(estimate)));
    let lines = rehearsal.ctxtune(["jobs"]).expect(0);
    let prices: Vec<&str> = lines.stdout.lines().map(|line| line.split('\t').nth(3).unwrap()).collect();
    assert_eq!(prices, [format!("~{estimate:.4}"), format!("{billed:.4}")]);

    // Only those created since then are listed and added up.
    let created = all["jobs"][0]["created_at"].as_str().unwrap();
    let newer = jobs(&["--since", created]);
    assert_eq!((ids(&newer), &newer["total"]), (vec![second.clone()], &json!(1)));
    assert_eq!((&newer["totals"]["billed_dollars"], &newer["since"]), (&json!(0.0), &json!(created)));
    assert_eq!(ids(&jobs(&["--since=2000-01-01"])), [second.clone(), first]);
    assert_eq!(jobs(&["--since=2999-01-01"])["total"], 0);
    for wrong in ["--since=yesterday", "--since=2026-13-01", "--since="] {
        rehearsal.ctxtune(["jobs", wrong]).expect(2);
    }

    // Another machine knows no estimate, and says so.
    let mut elsewhere = rehearsal.command(["jobs", "--json"]);
    elsewhere.env("XDG_STATE_HOME", rehearsal.dir.path("elsewhere"));
    let totals = support::Outcome::of(elsewhere).expect(0).json()["totals"].clone();
    let expected = json!({ "billed_dollars": billed, "estimated_dollars": 0.0, "unpriced_jobs": 1 });
    assert_eq!(totals, expected);
}

#[test]
fn a_list_bears_strange_entries_and_commands_no_terminal() {
    let rehearsal = Rehearsal::new();
    let jobs = json!({ "data": [
        { "status": "queued" },
        { "id": "ft-1", "status": "a\tb", "model": "m\u{1b}]0;x\u{7}\nn", "created_at": "long ago" },
        { "id": "ft-2", "created_at": 1_795_514_400, "model": null },
    ]});
    let rule = json!({ "rules": [{ "path": "/v1/fine-tunes", "do": { "body": jobs.to_string() } }] });
    spoil(&rehearsal, &rule.to_string());
    let run = rehearsal.ctxtune(["jobs"]).expect(0);
    let expected = "ft-2\t\t2026-11-24T10:00:00Z\t\t\t\nft-1\ta b\t\t\tm\\u{1b}]0;x\\u{7} n\t\n";
    assert_eq!(run.stdout, expected);
    // A job without a date is counted where a date is asked for.
    let since = rehearsal.ctxtune(["jobs", "--since=2026-11-24"]).expect(0);
    assert!(
        since.stdout.starts_with("ft-2\t") && since.stderr.contains("1 job without a date"),
        "{}",
        since.stderr
    );
    spoil(&rehearsal, "rules: [{ path: /v1/fine-tunes, do: { body: '<html>' } }]");
    rehearsal.ctxtune(["jobs"]).expect(5);
}

#[test]
fn a_reader_that_has_gone_is_no_trouble() {
    let rehearsal = Rehearsal::new();
    rehearsal.submit(10, &[]);
    for line in ["jobs", "files", "status out", "jobs --json"] {
        let mut child =
            rehearsal.command(line.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{line}: {stderr}");
        assert!(!stderr.contains("error"), "{stderr}");
    }
}

/// Uploads `out` and gives the ids of its training and its validation file.
#[track_caller]
fn uploaded(rehearsal: &Rehearsal) -> [String; 2] {
    rehearsal.dir.corpus(10).prepare(&[]).expect(0);
    let run = rehearsal.ctxtune(["upload", "out"]).expect(0);
    let ids: Vec<String> =
        run.stdout.lines().map(|line| line.split('\t').nth(1).unwrap().to_owned()).collect();
    ids.try_into().unwrap()
}

#[test]
fn files_are_lines() {
    let rehearsal = Rehearsal::new();
    let none = rehearsal.ctxtune(["files"]).expect(0);
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "no files\n"));
    let [train, _] = uploaded(&rehearsal);
    let run = rehearsal.ctxtune(["files", "list"]).expect(0);
    assert_eq!(run.stdout, rehearsal.ctxtune(["files"]).expect(0).stdout);
    let line = run.stdout.lines().find(|line| line.starts_with(&train)).unwrap();
    let row: Vec<&str> = line.split('\t').collect();
    let bytes = rehearsal.dir.read("out/train.jsonl").len().to_string();
    assert_eq!([row[1], row[3], row[4], row[5]], [&bytes, "fine-tune", "completed", "train.jsonl"]);
    let file = json!({
        "file_id": "string", "name": "string", "bytes": "integer", "created_at": "string",
        "purpose": "string", "processing": "string", "reason": "null",
    });
    let document = rehearsal.ctxtune(["files", "--json"]).expect(0);
    document.document("files", json!({ "files": [file] }));
}

#[test]
fn a_deletion_needs_a_yes_and_heals_at_the_next_upload() {
    let rehearsal = Rehearsal::new();
    let [train, val] = uploaded(&rehearsal);
    let before = rehearsal.server.seen().len();
    let refused = rehearsal.ctxtune(["files", "delete", &train]).expect(9);
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    rehearsal.ctxtune(["files", "delete", &train, "../x", "--yes"]).expect(2);
    assert_eq!(rehearsal.server.seen().len(), before, "nothing is asked");

    let ledger = rehearsal.dir.read("out/uploads.json");
    let run = rehearsal.ctxtune(["files", "delete", &train, &train, "--yes"]).expect(0);
    assert_eq!(run.stdout, format!("{train}\n"));
    assert!(run.stderr.contains("train.jsonl") && run.stderr.contains("deleted"), "{}", run.stderr);
    assert_eq!(rehearsal.dir.read("out/uploads.json"), ledger);
    assert!(!rehearsal.ctxtune(["files"]).expect(0).stdout.contains(&train));
    let [again, same] = uploaded(&rehearsal);
    assert!(again != train && same == val, "{again} {same}");
}

#[test]
fn the_worst_of_several_deletions_is_the_exit_code() {
    let rehearsal = Rehearsal::new();
    let [train, val] = uploaded(&rehearsal);
    let delete = |ids: &[&str]| rehearsal.ctxtune([&["files", "delete", "--yes", "--json"], ids].concat());
    let fields = |failed: Value| json!({ "deleted": ["string"], "failed": failed });
    let failure = json!([{ "file_id": "string", "code": "string", "message": "string" }]);
    let run = delete(&["file-none", &train]).expect(2);
    let document = run.document("files", fields(failure.clone()));
    assert_eq!(document["deleted"], json!([train]));
    assert_eq!(document["failed"][0]["code"], "not_found");

    let [train, _] = uploaded(&rehearsal);
    let rule = format!("rules: [{{ method: DELETE, path: /v1/files/{val}, do: {{ status: 500 }} }}]");
    spoil(&rehearsal, &rule);
    let run = delete(&["file-none", &val, &train]).expect(5);
    let document = run.document("files", fields(failure));
    assert_eq!(
        (document["deleted"].clone(), document["failed"].as_array().unwrap().len()),
        (json!([train]), 2)
    );
    spoil(&rehearsal, "");
    let run = delete(&[&val]).expect(0);
    run.document("files", fields(json!([])));
}

#[test]
fn checkpoints_are_lines_the_last_step_first() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    let none = rehearsal.ctxtune(["checkpoints", &job]).expect(0);
    assert_eq!(none.stdout, "");
    assert!(none.stderr.contains("no checkpoint"), "{}", none.stderr);
    rehearsal.forward(1000.0);
    let run = rehearsal.ctxtune(["checkpoints", "out"]).expect(0);
    let rows: Vec<Vec<&str>> = run.stdout.lines().map(|line| line.split('\t').collect()).collect();
    let short: Vec<[&str; 2]> = rows.iter().map(|row| [row[0], row[2]]).collect();
    assert_eq!(short, [["30", "model"], ["30", "adapter"], ["20", "adapter"], ["10", "adapter"]]);
    assert!(rows.iter().all(|row| row[1].ends_with('Z') && row[3].starts_with("s3://")), "{}", run.stdout);
    let checkpoint = json!({
        "step": "integer", "created_at": "string", "kind": "string", "label": "string", "path": "string",
        "object_id": "string",
    });
    let fields = json!({ "job": "string", "checkpoints": [checkpoint] });
    rehearsal.ctxtune(["checkpoints", "out", "--json"]).expect(0).document("checkpoints", fields);
}

/// A job that is complete.
fn completed(flags: &[&str]) -> (Rehearsal, String) {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, flags);
    rehearsal.forward(1000.0);
    (rehearsal, job)
}

/// The names in an archive.
fn members(rehearsal: &Rehearsal, path: &str) -> Vec<String> {
    let bytes = std::fs::read(rehearsal.dir.path(path)).unwrap();
    let mut archive = tar::Archive::new(std::io::Cursor::new(zstd::decode_all(&bytes[..]).unwrap()));
    let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
    names.collect()
}

#[test]
fn weights_come_under_a_name_that_says_what_they_are() {
    let (rehearsal, job) = completed(&[]);
    let fetch = |flags: &[&str]| {
        let run = rehearsal.ctxtune([&["download", "out"], flags].concat()).expect(0);
        let path = run.stdout.trim_end().to_owned();
        assert!(run.stderr.contains(&format!("tar --zstd -xf {path}")), "{}", run.stderr);
        path
    };
    let short = &job[3..11];
    let path = fetch(&[]);
    assert!(path.starts_with("Meta-Llama-3.1-8B-Instruct-Reference-"), "{path}");
    assert!(path.ends_with(&format!("{short}-merged.tar.zst")), "{path}");
    assert_eq!(members(&rehearsal, &path), ["config.json", "model.safetensors"]);
    let path = fetch(&["--adapter"]);
    assert!(path.ends_with(&format!("{short}-adapter.tar.zst")), "{path}");
    assert_eq!(members(&rehearsal, &path)[1], "adapter_model.safetensors");
    let path = fetch(&["--adapter", "--checkpoint", "10"]);
    assert!(path.ends_with(&format!("{short}-step-10-adapter.tar.zst")), "{path}");
    std::fs::create_dir(rehearsal.dir.path("models")).unwrap();
    let path = fetch(&["-o", "models"]);
    assert!(path.starts_with("models/Meta") && path.ends_with("-merged.tar.zst"), "{path}");
    assert_eq!(fetch(&["-o", "models/mine.tar.zst"]), "models/mine.tar.zst");
    assert!(rehearsal.dir.tree("").iter().all(|(name, _)| !name.ends_with(".part")));
    assert!(rehearsal.server.violations().is_empty());
}

#[test]
fn where_lora_is_not_merged_the_adapter_is_what_comes() {
    let (rehearsal, job) = completed(&["--base-model=openai/gpt-oss-20b"]);
    let shown = rehearsal.ask(&format!("GET /v1/fine-tunes/{job}"), None);
    assert_eq!((shown.get("model_object_id"), shown["adapter_object_id"].is_string()), (None, true));
    let kinds = rehearsal.ctxtune(["checkpoints", "out"]).expect(0).stdout;
    assert!(kinds.lines().all(|line| line.split('\t').nth(2) == Some("adapter")), "{kinds}");
    let document = rehearsal.ctxtune(["download", "out", "--json"]).expect(0).json();
    assert_eq!(document["checkpoint"], "adapter");
    assert_eq!(members(&rehearsal, document["file"].as_str().unwrap())[1], "adapter_model.safetensors");
    // Before its end a job's ids say nothing, but its model's limits do.
    let step = rehearsal.ctxtune(["download", "out", "--checkpoint=10", "--json"]).expect(0).json();
    assert_eq!(step["checkpoint"], "adapter");
    let merged = rehearsal.ctxtune(["download", "out", "--merged", "--json"]).expect(2).json();
    assert_eq!(merged["error"]["code"], "no_merged");
    spoil(&rehearsal, "rules: [{ path: /v1/fine-tunes/models/limits, do: { status: 404 } }]");
    let document = rehearsal.ctxtune(["download", "out", "-o", "again", "--json"]).expect(0).json();
    assert_eq!(document["checkpoint"], "adapter", "the job's own ids say so");
    assert!(rehearsal.server.violations().is_empty());
    spoil(&rehearsal, "");
    let deploy = rehearsal.ctxtune(["deploy", "out", "--name=contexts", "--yes", "--json"]).expect(2).json();
    assert_eq!(deploy["error"]["code"], "not_deployable");
    assert!(deploy["error"]["message"].to_string().contains("adapter only"), "{deploy}");
    assert_eq!(changes(&rehearsal).iter().filter(|line| line.contains("endpoints")).count(), 0);
    let monitor = rehearsal.ctxtune(["monitor", "out"]).expect(0);
    assert!(!monitor.stderr.contains("ctxtune deploy"), "{}", monitor.stderr);
}

#[test]
fn weights_that_are_there_are_not_fetched_again_and_nothing_else_is_written_over() {
    let (rehearsal, job) = completed(&[]);
    let run = rehearsal.ctxtune(["download", &job]).expect(0);
    let path = run.stdout.trim_end();
    let before = std::fs::read(rehearsal.dir.path(path)).unwrap();
    let asked = count(&rehearsal, "GET", "/v1/finetune/download");
    let again = rehearsal.ctxtune(["download", &job]).expect(0);
    assert_eq!(again.stdout, run.stdout);
    assert!(again.stderr.contains("already there"), "{}", again.stderr);
    assert_eq!(count(&rehearsal, "GET", "/v1/finetune/download"), asked + 1, "only its length is asked for");
    assert_eq!(std::fs::read(rehearsal.dir.path(path)).unwrap(), before);

    rehearsal.dir.write(path, "mine");
    let refused = rehearsal.ctxtune(["download", &job]).expect(1);
    assert!(refused.stderr.contains("4 bytes") && refused.stderr.contains("--output"), "{}", refused.stderr);
    assert_eq!((refused.stdout.as_str(), rehearsal.dir.read(path).as_str()), ("", "mine"));
    std::fs::create_dir_all(rehearsal.dir.path("d").join(path)).unwrap();
    rehearsal.ctxtune(["download", &job, "-o", "d"]).expect(1);
}

#[test]
fn a_download_that_was_cut_goes_on() {
    let (rehearsal, job) = completed(&[]);
    let whole = rehearsal.ctxtune(["download", &job, "-o", "whole"]).expect(0);
    spoil(&rehearsal, "rules: [{ path: /v1/finetune/download, nth: [2, 3], do: { cut_reply: 50000 } }]");
    let cut = rehearsal.ctxtune(["download", &job, "-o", "cut"]).expect(0);
    assert_eq!((whole.stdout.as_str(), cut.stdout.as_str()), ("whole\n", "cut\n"));
    let read = |name: &str| std::fs::read(rehearsal.dir.path(name)).unwrap();
    assert_eq!(read("whole"), read("cut"));
    let seen = rehearsal.server.seen();
    let range = |name: &str| seen.last().unwrap().headers.iter().find(|(known, _)| known == name).cloned();
    assert_eq!(range("range").map(|(_, value)| value).as_deref(), Some("bytes=100000-"));
}

#[test]
fn weights_that_are_not_there_are_explained() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    rehearsal.forward(500.0);
    let check = |flags: &[&str], exit: i32, said: &str| {
        let run = rehearsal.ctxtune([&["download", &job], flags].concat()).expect(exit);
        assert!(run.stderr.contains(said), "{said}: {}", run.stderr);
        assert_eq!(run.stdout, "");
    };
    check(&[], 8, "ctxtune monitor ft-");
    check(&["--checkpoint", "11"], 2, "ctxtune checkpoints ft-");
    check(&["--adapter", "--merged"], 2, "cannot be used with");
    assert_eq!(rehearsal.dir.tree("").iter().filter(|(name, _)| name.contains(".tar")).count(), 0);
    rehearsal.ctxtune(["download", &job, "--checkpoint", "10", "--adapter"]).expect(0);
    rehearsal.ctxtune(["cancel", &job, "--yes"]).expect(0);
    rehearsal.forward(100.0);
    check(&[], 7, "ctxtune checkpoints ft-");
}

#[test]
fn a_job_that_trained_all_weights_has_no_adapter() {
    let (rehearsal, job) = completed(&["--lora=false"]);
    let run = rehearsal.ctxtune(["download", &job]).expect(0);
    assert!(run.stdout.ends_with("-full.tar.zst\n"), "{}", run.stdout);
    let refused = rehearsal.ctxtune(["download", &job, "--adapter"]).expect(2);
    assert!(refused.stderr.contains("trains all weights"), "{}", refused.stderr);
}

#[test]
fn the_documents_of_a_download_are_pinned() {
    let (rehearsal, job) = completed(&[]);
    let fields = |step: &str| {
        json!({
            "job": "string", "checkpoint": "string", "step": step, "file": "string", "bytes": "integer",
            "already_there": "boolean", "directory": "null", "base_model": "null", "lora_rank": "null",
            "next_commands": ["string"],
        })
    };
    let fetch = |flags: &[&str]| rehearsal.ctxtune([&["download", &job, "--json"], flags].concat());
    let document = fetch(&[]).expect(0).document("download", fields("null"));
    assert_eq!((&document["checkpoint"], &document["already_there"]), (&json!("merged"), &json!(false)));
    let document = fetch(&["--adapter", "--checkpoint=10"]).expect(0).document("download", fields("integer"));
    assert_eq!((&document["checkpoint"], &document["step"]), (&json!("adapter"), &json!(10)));
    let document = fetch(&["--checkpoint=11"]).expect(2).document("download", json!({}));
    assert_eq!(document["error"]["code"], "no_checkpoint");
}

#[test]
fn looking_changes_nothing_at_the_service() {
    let (rehearsal, job) = completed(&[]);
    let before = changes(&rehearsal);
    for line in ["status out", "jobs", "files", "checkpoints out", "download out", "doctor out"] {
        rehearsal.ctxtune(line.split(' ')).expect(0);
    }
    rehearsal.ctxtune(["cancel", &job, "--yes"]).expect(1);
    assert_eq!(changes(&rehearsal), before);
}

#[cfg(unix)]
#[test]
fn a_signal_keeps_what_was_downloaded() {
    let (rehearsal, job) = completed(&[]);
    spoil(&rehearsal, "rules: [{ path: /v1/finetune/download, nth: [2], do: { trickle: 1 } }]");
    let mut command = rehearsal.command(["download", &job, "-o", "weights"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let part = rehearsal.dir.path("weights.part");
    let written = || std::fs::metadata(&part).map_or(0, |metadata| metadata.len());
    support::wait_until(&mut child, || written() > 0);
    support::signal(child.id(), "INT");
    let run = support::Outcome::from(child.wait_with_output().unwrap()).expect(130);
    assert!(run.stderr.contains("resumes where it stopped"), "{}", run.stderr);
    assert!(written() > 0 && !rehearsal.dir.exists("weights"));
    let kept = written();
    rehearsal.ctxtune(["download", &job, "-o", "weights"]).expect(0);
    let seen = rehearsal.server.seen();
    let range = seen.last().unwrap().headers.iter().find(|(name, _)| name == "range");
    assert_eq!(range.unwrap().1, format!("bytes={kept}-"));
}

#[test]
fn a_web_page_in_place_of_any_service_is_named_with_its_url_and_what_to_do() {
    let page = || Action::Body("<!DOCTYPE html><html><title>Hotel</title></html>".to_owned());
    let check = |rehearsal: &Rehearsal, url: &str, path: &str, arguments: &[&str]| {
        let run = rehearsal.ctxtune(arguments.iter().chain(&["--json"])).expect(5);
        assert_eq!(run.json()["error"]["code"], "not_the_api", "{}", run.stderr);
        let error = run.json()["error"].clone();
        let message = error["message"].as_str().unwrap();
        let expected = format!("{path}: the answer is a web page and not the API: a proxy or a login page");
        assert!(message.contains(url) && message.contains(&expected), "{message}");
        // Of an archive nothing is read but the head.
        assert!(message.ends_with(": Hotel") || path.ends_with("/download"), "{message}");
        assert!(error["hint"].as_str().unwrap().starts_with(&format!("open {url} in a browser")), "{error}");
    };
    let (rehearsal, job) = Rehearsal::tuned(0.0);
    let url = rehearsal.server.url().to_owned();
    let submit = ["submit", "out", "--yes", "--n-epochs=7"];
    let generate = ["generate", "Mia left.", "--model=m"];
    let [monitor, download] = [["status", &job], ["download", &job]];
    let cases: [(&str, &[&str]); 8] = [
        ("/v3/whoami", &submit),
        ("/v1/fine-tunes/models/limits", &submit),
        ("/v1/fine-tunes", &["jobs"]),
        ("/v1/files", &["files"]),
        ("/v1/finetune/download", &download),
        (&format!("/v1/fine-tunes/{job}"), &monitor),
        ("/v1/chat/completions", &generate),
        ("/v1/chat/completions", &[&generate[..], &["--stream"]].concat()),
    ];
    for (path, arguments) in cases {
        let method = if path.contains("chat") { "POST" } else { "GET" };
        rehearsal.fail([rule(&format!("{method} {path}$"), When::Always, page())]);
        check(&rehearsal, &url, path, arguments);
    }
    assert!(!rehearsal.dir.tree("").iter().any(|(name, _)| name.ends_with(".part") || name.contains(".tar")));
    // A server of somebody else.
    let other = crate::server::Server::saying(200, &[], "<html><title>Hotel</title></html>");
    let base = other.url("");
    let base = base.trim_end_matches('/');
    check(
        &rehearsal,
        base,
        "/v1/chat/completions",
        &["generate", "Mia left.", "--model=m", "--base-url", base],
    );
}
