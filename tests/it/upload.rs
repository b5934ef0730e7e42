//! Files reach the service whole, once, and found fit, whatever happens on the way.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use ctxtune_pipeline::env;
use ctxtune_rehearsal::faults::{Action, Side, When};
use ctxtune_rehearsal::{Script, Seen, Stage};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::service::{FILES, STORAGE, rule, status};
use crate::support::{self, Outcome, Rehearsal};

fn put(when: When, action: Action) -> [ctxtune_rehearsal::faults::Rule; 1] {
    [rule(&format!("PUT {STORAGE}"), when, action)]
}

/// The ids of a run's uploads, by name.
#[track_caller]
fn ids(run: &Outcome) -> Vec<(String, String)> {
    let lines = run.stdout.lines().map(|line| line.split_once('\t').unwrap());
    lines.map(|(label, id)| (label.to_owned(), id.to_owned())).collect()
}

/// The server has both sides of `out` once each, whole, and under the ids that were printed.
#[track_caller]
fn check_uploaded(rehearsal: &Rehearsal, run: &Outcome) {
    let files = rehearsal.files();
    let manifest = rehearsal.dir.manifest();
    assert_eq!(files.len(), 2, "{files:#?}");
    for (label, id) in ids(run) {
        let file = files.iter().find(|file| file["id"] == id.as_str()).unwrap();
        assert_eq!(file["filename"], format!("{label}.jsonl"));
        let bytes: u64 = manifest[&label]["shards"]
            .as_array()
            .unwrap()
            .iter()
            .map(|shard| shard["bytes"].as_u64().unwrap())
            .sum();
        assert_eq!(file["bytes"], bytes);
    }
    rehearsal.check_protocol();
}

#[test]
fn an_upload_that_is_cut_is_sent_whole_to_a_fresh_url() {
    for percent in [0.0, 1.0, 50.0, 99.0, 100.0] {
        let rehearsal = Rehearsal::new().prepared(10);
        rehearsal.fail(put(When::Nth(vec![1, 2]), Action::ResetAfterPercent(percent)));
        let run = rehearsal.ctxtune(["upload", "out"]).expect(0);
        check_uploaded(&rehearsal, &run);
        let urls: BTreeSet<String> =
            rehearsal.requests(&format!("PUT {STORAGE}")).into_iter().map(|seen| seen.path).collect();
        assert_eq!(urls.len(), 4, "{percent} %: three for train, one for val: {urls:?}");
        assert_eq!(rehearsal.requests(&format!("POST {FILES}")).len(), 4, "{percent} %");
        assert!(run.stderr.contains("(2 left)") && run.stderr.contains("(1 left)"), "{}", run.stderr);
    }
}

#[test]
fn a_reply_of_the_storage_that_is_lost_or_no_success_is_another_try() {
    for action in [
        Action::LoseReply,
        Action::Reset(Side::Before),
        Action::Reset(Side::After),
        status(500),
        status(503),
        // A signed URL that has expired.
        status(403),
    ] {
        let rehearsal = Rehearsal::new().prepared(10);
        rehearsal.fail(put(When::Nth(vec![1, 3]), action.clone()));
        let run = rehearsal.ctxtune(["upload", "out"]).expect(0);
        check_uploaded(&rehearsal, &run);
        assert_eq!(rehearsal.requests(&format!("PUT {STORAGE}")).len(), 4, "{action:?}");
    }
}

#[test]
fn an_upload_that_never_works_ends_after_three_hand_offs() {
    for action in [Action::ResetAfterPercent(50.0), Action::LoseReply, status(500)] {
        let rehearsal = Rehearsal::new().prepared(10);
        rehearsal.fail(put(When::Always, action));
        let run = rehearsal.ctxtune(["upload", "out", "--json"]).expect(5);
        assert_eq!(rehearsal.requests(&format!("PUT {STORAGE}")).len(), 3);
        assert_eq!(rehearsal.requests(&format!("POST {FILES}")).len(), 3);
        let message = run.json()["error"]["message"].to_string();
        assert!(message.contains("cannot upload `train.jsonl`"), "{message}");
        // A signed URL is a secret: its signature is in nobody's words.
        assert!(!message.contains("signature=") && !run.stderr.contains("signature="), "{}", run.stderr);
        rehearsal.fail([]);
        let run = rehearsal.ctxtune(["upload", "out"]).expect(0);
        check_uploaded(&rehearsal, &run);
    }
}

#[test]
fn what_is_there_is_not_uploaded_again() {
    let rehearsal = Rehearsal::new().prepared(10);
    let first = rehearsal.ctxtune(["upload", "out"]).expect(0);
    let puts = rehearsal.requests(&format!("PUT {STORAGE}")).len();
    let second = rehearsal.ctxtune(["upload", "out"]).expect(0);
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(rehearsal.requests(&format!("POST {FILES}")).len(), 2, "the ledger knows them");
    // Without the ledger the service knows them.
    std::fs::remove_file(rehearsal.dir.path("out/uploads.json")).unwrap();
    let third = rehearsal.ctxtune(["upload", "out"]).expect(0);
    assert_eq!(first.stdout, third.stdout);
    assert!(third.stderr.contains("train.jsonl is already there"), "{}", third.stderr);
    assert_eq!(rehearsal.requests(&format!("PUT {STORAGE}")).len(), puts);
    // What the service has lost is brought again.
    rehearsal.ask(&format!("DELETE /v1/files/{}", ids(&first)[0].1), None);
    let fourth = rehearsal.ctxtune(["upload", "out"]).expect(0);
    check_uploaded(&rehearsal, &fourth);
    assert_eq!(rehearsal.requests(&format!("PUT {STORAGE}")).len(), puts + 1);
}

#[test]
fn data_that_has_changed_since_it_was_prepared_is_not_sent() {
    for (name, change) in [
        ("out/train.jsonl", "appended"),
        ("out/val.jsonl", "changed"),
        ("out/train.jsonl", "cut"),
        ("out/val.jsonl", "gone"),
    ] {
        let rehearsal = Rehearsal::new().prepared(20);
        let text = rehearsal.dir.read(name);
        let path = rehearsal.dir.path(name);
        match change {
            "appended" => std::fs::write(path, format!("{text}{}", text.lines().next().unwrap())).unwrap(),
            "changed" => std::fs::write(path, text.replacen("opened", "closed", 1)).unwrap(),
            "cut" => std::fs::write(path, &text[..text.len() / 2]).unwrap(),
            _ => std::fs::remove_file(path).unwrap(),
        }
        for command in [&["upload", "out"][..], &["submit", "out", "--yes"]] {
            let run = rehearsal.ctxtune(command).expect(3);
            assert!(run.stderr.contains(name), "{change}: {}", run.stderr);
        }
        assert_eq!(rehearsal.requests("POST /").len(), 0, "{change}");
    }
}

#[test]
fn shards_are_one_file_at_the_service() {
    let rehearsal = Rehearsal::new();
    rehearsal.dir.corpus(40).prepare(&["--shard-records=7"]).expect(0);
    let manifest = rehearsal.dir.manifest();
    assert!(manifest["train"]["shards"].as_array().unwrap().len() > 3);
    rehearsal.fail(put(When::Nth(vec![1]), Action::ResetAfterPercent(60.0)));
    let run = rehearsal.ctxtune(["upload", "out", "--json"]).expect(0).json();
    let announced = rehearsal.requests(&format!("POST {FILES}"));
    for (side, puts) in [("train", 1), ("val", 2)] {
        let body = &rehearsal.requests(&format!("PUT {STORAGE}"))[puts].body;
        let digest: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
        // The service compares the joined bytes; the manifest's digest is that of the shards' digests.
        assert!(String::from_utf8_lossy(&announced[puts].body).contains(&digest), "{side}");
        let is_one = manifest[side]["shards"].as_array().unwrap().len() == 1;
        assert_eq!(digest == manifest[side]["sha256"], is_one, "{side}");
        let upload = &run["uploads"][puts - 1];
        assert_eq!((&upload["label"], &upload["sha256"]), (&json!(side), &manifest[side]["sha256"]));
    }
    assert_eq!(rehearsal.files().len(), 2);
    // The ledger knows them by the manifest's digest: nothing is read or announced again.
    rehearsal.ctxtune(["upload", "out"]).expect(0);
    assert_eq!(rehearsal.requests(&format!("POST {FILES}")).len(), announced.len());
    rehearsal.check_protocol();
}

#[test]
fn the_same_records_in_shards_and_in_one_file_are_one_file_at_the_service() {
    let rehearsal = Rehearsal::new();
    rehearsal.dir.corpus(40).prepare(&["--shard-records=7"]).expect(0);
    let sharded = rehearsal.ctxtune(["upload", "out"]).expect(0);
    rehearsal.dir.ctxtune(["prepare", "corpus", "-o", "whole", "--no-sync"]).expect(0);
    let whole = rehearsal.ctxtune(["upload", "whole"]).expect(0);
    assert_eq!(sharded.stdout, whole.stdout);
    assert_eq!(rehearsal.files().len(), 2);
}

#[test]
fn a_shard_that_changes_between_the_check_and_the_upload_is_not_sent() {
    let place = Arc::new(Mutex::new(None::<std::path::PathBuf>));
    let watch = {
        let place = Arc::clone(&place);
        Arc::new(move |stage, seen: &Seen| {
            // The first request comes after the check.
            if stage == Stage::Received && seen.path == "/v3/whoami" {
                let Some(path) = place.lock().unwrap().take() else { return };
                let text = std::fs::read_to_string(&path).unwrap();
                std::fs::write(&path, text.replacen("opened", "closed", 1)).unwrap();
            }
        })
    };
    let rehearsal = Rehearsal::watched(Script { verdict_seconds: 0.0, ..Script::default() }, watch);
    rehearsal.dir.corpus(40).prepare(&["--shard-records=7"]).expect(0);
    let shard = rehearsal.dir.manifest()["train"]["shards"][1]["file"].as_str().unwrap().to_owned();
    *place.lock().unwrap() = Some(rehearsal.dir.path("out").join(&shard));
    let run = rehearsal.ctxtune(["upload", "out", "--json"]).expect(3);
    assert_eq!(run.json()["error"]["code"], "changed");
    assert!(run.stderr.contains(&shard), "{}", run.stderr);
    assert_eq!(rehearsal.requests("POST /").len(), 0);
}

#[test]
fn a_file_over_the_threshold_goes_in_parts() {
    let rehearsal = Rehearsal::new().prepared(10);
    rehearsal.fail(put(When::Nth(vec![1, 2]), status(500)));
    let mut command = rehearsal.command(["upload", "out"]);
    command.env(env::CTXTUNE_MULTIPART_THRESHOLD, "10");
    let run = Outcome::of(command).expect(0);
    check_uploaded(&rehearsal, &run);
    assert_eq!(rehearsal.requests(&format!("POST {FILES}")).len(), 0);
    assert_eq!(
        rehearsal.requests("POST /v1/files/multipart/initiate").len(),
        2,
        "a part is repeated by itself"
    );
    assert_eq!(rehearsal.requests("POST /v1/files/multipart/complete").len(), 2);
}

#[test]
fn parts_of_a_killed_run_are_aborted_and_begun_anew() {
    let victim = Arc::new(Mutex::new(None::<Child>));
    let watch = {
        let victim = Arc::clone(&victim);
        Arc::new(move |stage, seen: &Seen| {
            if stage == Stage::Acted && seen.is_storage {
                // It was stored before its first request could be answered.
                if let Some(mut child) = victim.lock().unwrap().take() {
                    child.kill().unwrap();
                    child.wait().unwrap();
                }
            }
        })
    };
    let script = Script { verdict_seconds: 0.0, ..Script::default() };
    let rehearsal = Rehearsal::watched(script, watch).prepared(10);
    let upload = || {
        let mut command = rehearsal.command(["upload", "out"]);
        command.env(env::CTXTUNE_MULTIPART_THRESHOLD, "10");
        command
    };
    let stdout = {
        // Whoever strikes waits for the child to be there.
        let mut place = victim.lock().unwrap();
        let mut child = upload().stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        *place = Some(child);
        stdout
    };
    assert_eq!(std::io::read_to_string(stdout).unwrap(), "");
    let ledger: Value = serde_json::from_str(&rehearsal.dir.read("out/uploads.json")).unwrap();
    let begun = &ledger["uploads"][0];
    let upload_id = begun["state"]["begun"]["upload_id"].as_str().unwrap();
    assert!(!rehearsal.dir.read("out/uploads.json").contains("signature"), "signed URLs are not kept");
    let run = Outcome::of(upload()).expect(0);
    let aborts = rehearsal.requests("POST /v1/files/multipart/abort");
    let aborted: Vec<Value> = aborts.iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect();
    assert_eq!(aborted, [json!({ "upload_id": upload_id, "file_id": begun["file_id"] })]);
    check_uploaded(&rehearsal, &run);
    assert_eq!(rehearsal.requests("POST /v1/files/multipart/initiate").len(), 3);
}

#[test]
fn parts_that_the_service_has_forgotten_are_begun_anew() {
    let rehearsal = Rehearsal::new().prepared(10);
    rehearsal.ctxtune(["upload", "out"]).expect(0);
    let mut ledger: Value = serde_json::from_str(&rehearsal.dir.read("out/uploads.json")).unwrap();
    ledger["uploads"][0]["state"] = json!({ "begun": { "upload_id": "upload-gone" } });
    rehearsal.dir.write("out/uploads.json", ledger.to_string());
    let run = rehearsal.ctxtune(["upload", "out"]).expect(0);
    check_uploaded(&rehearsal, &run);
}

#[test]
fn what_the_service_finds_unfit_is_traced_to_its_record() {
    let rehearsal = Rehearsal::new();
    rehearsal.dir.corpus(40).prepare(&["--shard-records=7"]).expect(0);
    let verdict = json!({
        "id": "file-x", "filename": "train.jsonl", "processing_status": "INVALID_FORMAT",
        "validation_report": { "valid": false, "error": "line 17: message 1 has \u{1b}[31mno content" },
    });
    rehearsal.fail([rule("GET /v1/files/", When::Nth(vec![1, 2, 3]), Action::Body(verdict.to_string()))]);
    let key = rehearsal.dir.keys("train")[16].clone();
    for command in [&["upload", "out", "--json"][..], &["submit", "out", "--yes", "--json"]] {
        let run = rehearsal.ctxtune(command).expect(3);
        assert_eq!(run.json()["error"]["code"], "invalid_file");
        let record = format!("(record \"{key}\")");
        assert!(run.stderr.contains("line 17") && run.stderr.contains(&record), "{key}: {}", run.stderr);
        assert!(!run.stderr.contains('\u{1b}'), "{}", run.stderr);
    }
    assert_eq!(rehearsal.creations(), 0);
}

#[test]
fn a_file_that_nobody_judges_is_waited_for_and_not_for_ever() {
    let rehearsal = Rehearsal::new().prepared(10);
    let waiting = json!({ "id": "file-x", "filename": "train.jsonl", "processing_status": "PROCESSING" });
    rehearsal.fail([rule("GET /v1/files/", When::Nth(vec![1, 2, 3]), Action::Body(waiting.to_string()))]);
    let run = rehearsal.ctxtune(["upload", "out"]).expect(0);
    check_uploaded(&rehearsal, &run);
    assert_eq!(rehearsal.requests("GET /v1/files/").len(), 5);
}

#[test]
fn loose_files_are_uploaded_as_they_are_named() {
    let rehearsal = Rehearsal::new().prepared(20);
    rehearsal.dir.write("a b.jsonl", rehearsal.dir.read("out/train.jsonl"));
    rehearsal.dir.write("more/val.jsonl", rehearsal.dir.read("out/val.jsonl"));
    let run = rehearsal.ctxtune(["upload", "a b.jsonl", "more/val.jsonl"]).expect(0);
    let labels: Vec<String> = ids(&run).into_iter().map(|(label, _)| label).collect();
    assert_eq!(labels, ["a b.jsonl", "more/val.jsonl"]);
    let names: Vec<Value> = rehearsal.files().iter().map(|file| file["filename"].clone()).collect();
    assert_eq!(names, ["a b.jsonl", "val.jsonl"]);
    let again = rehearsal.ctxtune(["upload", "a b.jsonl", "more/val.jsonl"]).expect(0);
    assert_eq!(again.stdout, run.stdout);
    assert_eq!(rehearsal.files().len(), 2);
    rehearsal.check_protocol();
    // Our own judgement comes before the service's.
    rehearsal.dir.write("bad.jsonl", "{\"messages\": []}\n");
    let before = rehearsal.server.seen().len();
    rehearsal.ctxtune(["upload", "bad.jsonl"]).expect(3);
    rehearsal.ctxtune(["upload", "gone.jsonl"]).expect(2);
    assert_eq!(rehearsal.server.seen().len(), before);
}

#[test]
fn a_storage_that_sends_on_gets_the_whole_body_again() {
    let rehearsal = Rehearsal::new().prepared(10);
    rehearsal.fail(put(When::Nth(vec![1, 2]), Action::Redirect("{storage}{path}".to_owned())));
    let run = rehearsal.ctxtune(["upload", "out"]).expect(0);
    check_uploaded(&rehearsal, &run);
    let puts = rehearsal.requests(&format!("PUT {STORAGE}"));
    assert_eq!(puts.len(), 4, "two hops and two files");
    assert!(puts[..3].iter().all(|seen| seen.body == puts[0].body));
    assert_eq!(rehearsal.requests(&format!("POST {FILES}")).len(), 2);
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_stalled_upload_at_once() {
    let started = Arc::new(Mutex::new(None::<u32>));
    let watch = {
        let started = Arc::clone(&started);
        Arc::new(move |stage, seen: &Seen| {
            if stage == Stage::Received && seen.is_storage {
                support::signal(started.lock().unwrap().unwrap(), "INT");
            }
        })
    };
    let script = Script { verdict_seconds: 0.0, ..Script::default() };
    let rehearsal = Rehearsal::watched(script, watch).prepared(10);
    rehearsal.fail(put(When::Always, Action::Hang(20.0)));
    let child = {
        let mut place = started.lock().unwrap();
        let mut command = rehearsal.command(["upload", "out"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        *place = Some(child.id());
        child
    };
    let start = std::time::Instant::now();
    Outcome::from(child.wait_with_output().unwrap()).expect(130);
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn a_file_that_is_denied_just_after_its_upload_is_asked_for_again() {
    let rehearsal = Rehearsal::new().prepared(10);
    rehearsal.fail([
        rule("GET /v1/files/", When::Nth(vec![1, 2, 4]), status(404)),
        rule("POST /v1/files/*/preprocess", When::Nth(vec![1, 3]), status(404)),
    ]);
    let run = rehearsal.ctxtune(["upload", "out"]).expect(0);
    check_uploaded(&rehearsal, &run);
    assert_eq!(rehearsal.requests(&format!("PUT {STORAGE}")).len(), 2, "nothing is sent twice");
}

#[test]
fn a_status_of_a_file_that_is_new_here_or_stays_long_is_said_off_a_terminal() {
    let check = |status: &str, times: u64, expected: &[&str]| {
        let rehearsal = Rehearsal::new().prepared(10);
        let file = json!({ "id": "file-x", "filename": "train.jsonl", "processing_status": status });
        let when = When::Nth((1..=times).collect());
        rehearsal.fail([rule("GET /v1/files/", when, Action::Body(file.to_string()))]);
        let mut command = rehearsal.command(["upload", "out"]);
        // Slow enough that a busy machine makes no minute of a moment.
        command.env(env::CTXTUNE_TIME_SCALE, if times > 3 { "0.02" } else { "0.2" });
        let run = Outcome::of(command).expect(0);
        let said: Vec<&str> = run.stderr.lines().filter(|line| line.contains("checking it")).collect();
        assert_eq!(said, expected, "{}", run.stderr);
    };
    let unknown = "train.jsonl: the service is checking it: SCANNING (a status that is new here)";
    check("SCANNING", 3, &[unknown]);
    check("QUEUED", 3, &[]);
    check("QUEUED", 14, &["train.jsonl: the service is checking it: QUEUED"]);
}

#[test]
fn a_page_of_a_proxy_in_place_of_the_storage_is_no_upload() {
    let rehearsal = Rehearsal::new().prepared(10);
    let page = Action::Status {
        status: 200,
        headers: Vec::new(),
        body: "<html><title>Log in</title></html>".to_owned(),
        side: Side::Before,
    };
    rehearsal.fail(put(When::Nth(vec![1]), page.clone()));
    check_uploaded(&rehearsal, &rehearsal.ctxtune(["upload", "out"]).expect(0));
    let rehearsal = Rehearsal::new().prepared(10);
    rehearsal.fail(put(When::Always, page));
    let run = rehearsal.ctxtune(["upload", "out"]).expect(5);
    assert!(run.stderr.contains("a proxy or a login page: Log in"), "{}", run.stderr);
    assert!(!run.stderr.contains("signature"), "the URL is a secret: {}", run.stderr);
}
