//! Which job a directory means, how it is, and whether the data in the directory is what it was trained on.

use ctxtune_rehearsal::Script;
use ctxtune_rehearsal::faults::{Action, When};
use serde_json::{Value, json};

use crate::service::rule;
use crate::support::{Outcome, Rehearsal, record};

const BASE: &str = "--base-model=Qwen/Qwen3-8B";
const STORY: &str = "Mia left. Noah ran.";

/// The status of each job in the ledgers of `out`, by job.
fn statuses(rehearsal: &Rehearsal) -> Vec<(String, String)> {
    let text = |run: &Value, field: &str| run[field].as_str().unwrap_or_default().to_owned();
    let mut all: Vec<_> =
        rehearsal.ledgers().iter().map(|run| (text(run, "job"), text(run, "status"))).collect();
    all.sort();
    all
}

/// The tuned model's name of each job, oldest first.
fn models(rehearsal: &Rehearsal) -> Vec<String> {
    rehearsal.jobs().iter().map(|job| job["model_output_name"].as_str().unwrap().to_owned()).collect()
}

/// Prepares `out` again, with a record more.
fn prepare_again(rehearsal: &Rehearsal) -> Outcome {
    rehearsal.dir.write("corpus/more.json", record(77).to_string());
    rehearsal.dir.prepare(&["--json"]).expect(0)
}

/// Both digests of the sides in `out`.
fn prepared(rehearsal: &Rehearsal) -> Value {
    let manifest = rehearsal.dir.manifest();
    json!({ "train": manifest["train"]["sha256"], "val": manifest["val"]["sha256"] })
}

/// `document` names the job and both data, and the words on stderr begin with their digests.
#[track_caller]
fn check_named(run: &Outcome, job: &str, trained: &Value, prepared: &Value) {
    let expected = json!({ "job": job, "trained": trained, "prepared": prepared });
    assert_eq!(run.json()["data_mismatch"], expected, "{}", run.stderr);
    for digest in [&trained["train"], &prepared["train"], &trained["val"], &prepared["val"]] {
        let short = &digest.as_str().unwrap()[..12];
        assert!(run.stderr.contains(short) && run.stderr.contains(job), "{short}: {}", run.stderr);
    }
}

#[test]
fn a_directory_means_the_job_that_the_service_created_last() {
    let rehearsal = Rehearsal::new();
    let older = rehearsal.submit(10, &[BASE]);
    rehearsal.forward(5.0);
    let newer = rehearsal.submit(10, &[BASE, "--n-epochs=1"]);
    // Another checkout finds both, the newer one first.
    std::fs::remove_dir_all(rehearsal.dir.path("out/runs")).unwrap();
    for flags in [&["--n-epochs=1"][..], &[]] {
        rehearsal.ctxtune(["submit", "out", "--yes", BASE].iter().chain(flags)).expect(0);
    }
    let means = |expected: &str| {
        let found = rehearsal.ctxtune(["status", "out", "--json"]).expect(0).json()["job"].clone();
        assert_eq!(found, expected);
    };
    means(&newer);
    // One that is started here is newer than both, and an older one that is found again stays older.
    rehearsal.forward(5.0);
    let newest = rehearsal.submit(10, &[BASE, "--n-epochs=2"]);
    assert_eq!(rehearsal.server.jobs_created(), 3);
    std::fs::remove_file(rehearsal.dir.path("state/ctxtune/jobs.jsonl")).unwrap();
    rehearsal.ctxtune(["submit", "out", "--yes", BASE]).expect(0);
    means(&newest);
    assert!(older != newer && newer != newest);
}

#[test]
fn every_command_that_learns_a_status_writes_it_down() {
    let lines = ["status JOB", "status out", "status --last", "jobs", "cancel JOB --yes", "download JOB"];
    let more = ["download out", "monitor JOB", "monitor out", "submit out --yes", "deploy JOB --name=ep"];
    for line in lines.into_iter().chain(more) {
        let rehearsal = Rehearsal::new();
        let job = rehearsal.submit(10, &[BASE]);
        rehearsal.forward(1000.0);
        assert_eq!(statuses(&rehearsal), [(job.clone(), "pending".to_owned())]);
        let line = line.replace("JOB", &job);
        let submit = line.starts_with("submit").then_some(BASE);
        let run = rehearsal.ctxtune(line.split(' ').chain(submit));
        assert!(!run.stderr.contains("warning: cannot"), "{line}: {}", run.stderr);
        assert_eq!(statuses(&rehearsal), [(job, "completed".to_owned())], "{line}: {}", run.stderr);
    }
    // A submission of another job lists those that are there.
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[BASE]);
    rehearsal.forward(1000.0);
    rehearsal.submit(10, &[BASE, "--n-epochs=1"]);
    assert!(statuses(&rehearsal).contains(&(job, "completed".to_owned())));
}

#[test]
fn the_runs_of_a_sweep_are_written_down_as_they_ended() {
    let script = Script { job_seconds: 0.2, verdict_seconds: 0.0, ..Script::default() };
    let rehearsal = Rehearsal::with(script);
    rehearsal.dir.corpus(10);
    let sweep =
        "method: grid\nmetric: {name: val/loss, goal: minimize}\nparameters:\n  n_epochs: {values: [1, 2]}\n";
    rehearsal.dir.write("sweep.yaml", sweep);
    let line = "sweep run sweep.yaml --data-dir=corpus --output-dir=out --no-sync --yes";
    rehearsal.ctxtune(line.split(' ')).expect(0);
    let ended: Vec<String> = statuses(&rehearsal).into_iter().map(|(_, status)| status).collect();
    assert_eq!(ended, ["completed", "completed"]);
}

#[test]
fn a_cancellation_is_written_down() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    rehearsal.ctxtune(["cancel", &job, "--yes"]).expect(0);
    assert_eq!(statuses(&rehearsal), [(job.clone(), "cancel_requested".to_owned())]);
    rehearsal.forward(1000.0);
    rehearsal.ctxtune(["cancel", &job, "--yes"]).expect(1);
    assert_eq!(statuses(&rehearsal), [(job, "cancelled".to_owned())]);
}

#[test]
fn a_ledger_that_cannot_be_written_ends_no_look() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    for ledger in rehearsal.dir.tree("out/runs") {
        rehearsal.dir.write(format!("out/runs/{}", ledger.0), "{");
    }
    for line in [vec!["status", &job], vec!["jobs"]] {
        let run = rehearsal.ctxtune(&line).expect(0);
        assert!(run.stderr.contains("out/runs/"), "{}", run.stderr);
    }
    std::fs::remove_dir_all(rehearsal.dir.path("out")).unwrap();
    let run = rehearsal.ctxtune(["status", &job]).expect(0);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    assert!(!rehearsal.dir.exists("out"));
}

#[test]
fn the_model_of_the_newest_job_is_asked_though_nobody_watched_it() {
    let rehearsal = Rehearsal::new();
    rehearsal.submit(10, &[BASE]);
    rehearsal.forward(1000.0);
    rehearsal.ctxtune(["monitor", "out"]).expect(0);
    let newer = rehearsal.submit(10, &[BASE, "--n-epochs=1"]);
    let models = models(&rehearsal);
    rehearsal.server.set_script(|script| script.deployed_models = models.clone());
    let ask = || rehearsal.ctxtune(["generate", STORY, "--out", "out", "--json"]).expect(0);
    // While it runs, the older one is asked, and that is said.
    let run = ask();
    assert_eq!(run.json()["model"], models[0]);
    assert!(run.stderr.contains(&newer), "{}", run.stderr);
    rehearsal.forward(1000.0);
    let run = ask();
    assert_eq!(run.json()["model"], models[1]);
    assert!(!run.stderr.contains(&newer), "{}", run.stderr);
    // Where the service does not say how it is, the ledger does.
    let newest = rehearsal.submit(10, &[BASE, "--n-epochs=2"]);
    rehearsal.forward(1000.0);
    let broken = Action::Body("<html>".to_owned());
    rehearsal.fail([rule(&format!("GET /v1/fine-tunes/{newest}$"), When::Always, broken)]);
    assert_eq!(ask().json()["model"], models[1]);
}

#[test]
fn whoever_uses_a_job_is_told_where_its_data_was_prepared_again() {
    let (rehearsal, job) = Rehearsal::tuned(0.1);
    let trained = prepared(&rehearsal);
    let model = models(&rehearsal).remove(0);
    rehearsal.server.set_script(|script| script.deployed_models = vec![model.clone()]);
    rehearsal.dir.write("stories/a.json", json!({ "story": STORY }).to_string());
    let commands = || {
        let mut runs = Vec::new();
        for line in [
            &["download", "out", "--json"][..],
            &["download", &job, "--json"],
            &["deploy", "out", "--name=ep", "--yes", "--detach", "--json"],
            &["generate", STORY, "--out", "out", "--json"],
            &["generate", STORY, "--out", "out", "--model", &model, "--json"],
            &["generate", "stories", "-o", "gen", "--yes", "--out", "out", "--json"],
        ] {
            runs.push(rehearsal.ctxtune(line).expect(0));
        }
        runs
    };
    for run in commands() {
        assert_eq!(run.json().get("data_mismatch"), None);
    }
    let again = prepare_again(&rehearsal);
    let now = prepared(&rehearsal);
    assert_ne!(trained, now);
    check_named(&again, &job, &trained, &now);
    for run in commands() {
        check_named(&run, &job, &trained, &now);
    }
    // As it was: nothing is wrong any more.
    std::fs::remove_file(rehearsal.dir.path("corpus/more.json")).unwrap();
    assert_eq!(rehearsal.dir.prepare(&["--json"]).expect(0).json().get("data_mismatch"), None);
    for run in commands() {
        assert_eq!(run.json().get("data_mismatch"), None);
    }
    // Without validation data the data is other data, too.
    let run = rehearsal.dir.prepare(&["--json", "--val-ratio=0"]).expect(0);
    let named = run.json()["data_mismatch"].clone();
    assert_eq!((&named["trained"], &named["prepared"]["val"]), (&trained, &Value::Null));
}

#[test]
fn validation_records_of_other_data_are_scored_only_where_that_is_asked_for() {
    let (rehearsal, job) = Rehearsal::tuned(0.1);
    let trained = prepared(&rehearsal);
    let model = models(&rehearsal).remove(0);
    let deployed = vec![model.clone(), "me/elsewhere".to_owned()];
    rehearsal.server.set_script(|script| script.deployed_models = deployed.clone());
    let score = |models: &str, flags: &[&str]| {
        rehearsal
            .ctxtune(["score", "--val", "out", "--yes", "--json", "--models", models].iter().chain(flags))
    };
    let both = format!("Qwen/Qwen3-8B,{model}");
    assert_eq!(score(&both, &[]).expect(0).json().get("data_mismatch"), None);
    prepare_again(&rehearsal);
    let now = prepared(&rehearsal);
    let asked = |rehearsal: &Rehearsal| rehearsal.requests("POST /v1/chat/completions").len();
    let before = asked(&rehearsal);
    // A name that OUT does not know may be any job's: the newest counts.
    for models in [both.as_str(), &model, "me/elsewhere"] {
        let run = score(models, &[]).expect(3);
        assert_eq!(run.json()["error"]["code"], "data_mismatch");
        check_named(&run, &job, &trained, &now);
    }
    assert_eq!(asked(&rehearsal), before, "nothing was paid for");
    let run = score(&both, &["--allow-mismatch"]).expect(0);
    check_named(&run, &job, &trained, &now);
    assert!(asked(&rehearsal) > before);
    // The model of a job on this data is fine, whatever the newest job was trained on.
    let own = rehearsal.ctxtune(["submit", "out", "--yes", BASE]).expect(0).stdout;
    rehearsal.forward(1000.0);
    rehearsal.ctxtune(["monitor", own.trim_end()]).expect(0);
    std::fs::remove_file(rehearsal.dir.path("corpus/more.json")).unwrap();
    rehearsal.dir.prepare(&[]).expect(0);
    assert_eq!(score(&both, &[]).expect(0).json().get("data_mismatch"), None);
    assert_eq!(score("me/elsewhere", &[]).expect(3).json()["data_mismatch"]["job"], own.trim_end());
}

#[test]
fn an_endpoint_is_known_by_the_weights_behind_it() {
    let (rehearsal, _) = Rehearsal::tuned(0.1);
    let up = rehearsal.ctxtune(["deploy", "out", "--name=ep", "--yes", "--detach"]).expect(0);
    let endpoint = up.stdout.trim_end().to_owned();
    prepare_again(&rehearsal);
    let newer = rehearsal.ctxtune(["submit", "out", "--yes", BASE]).expect(0).stdout;
    std::fs::remove_file(rehearsal.dir.path("corpus/more.json")).unwrap();
    rehearsal.dir.prepare(&[]).expect(0);
    let score = |model: &str| {
        let line = ["score", "--val", "out", "--yes", "--json", "--models", model];
        rehearsal.ctxtune(line)
    };
    // The newest job was trained on other data, but the endpoint runs the older one's model.
    score(&endpoint).expect(0);
    let refused = score("Qwen/Qwen3-8B").expect(3).json();
    assert_eq!(refused["data_mismatch"]["job"], newer.trim_end());
}
