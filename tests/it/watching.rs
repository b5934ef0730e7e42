//! `monitor` as a user runs it: how it ends, what it prints where, and that it leaves the job alone.

#[cfg(unix)]
use std::process::{Command, Stdio};
#[cfg(unix)]
use std::sync::{Arc, Mutex};

use ctxtune_pipeline::env;
use ctxtune_rehearsal::faults::{Action, When};
use ctxtune_rehearsal::{Outcome as End, Script};
#[cfg(unix)]
use ctxtune_rehearsal::{Seen, Stage};
use serde_json::Value;

use crate::service::{rule, status};
use crate::support::{self, Outcome, Rehearsal, program};

/// A job of this many seconds that ends like this, submitted.
fn scene(job_seconds: f64, outcome: End) -> (Rehearsal, String) {
    let script = Script { job_seconds, verdict_seconds: 0.0, outcome, ..Script::default() };
    let rehearsal = Rehearsal::with(script);
    let job = rehearsal.submit(10, &[]);
    (rehearsal, job)
}

/// A job that is over.
fn over(outcome: End) -> (Rehearsal, String) {
    let scene = scene(1000.0, outcome);
    scene.0.forward(1000.0);
    scene
}

#[test]
fn a_completed_job_ends_with_its_models_name_on_stdout() {
    let (rehearsal, job) = over(End::Completed);
    let model = rehearsal.jobs()[0]["model_output_name"].as_str().unwrap().to_owned();
    for target in [&[job.as_str()][..], &["out"], &["--last"]] {
        let run = rehearsal.ctxtune(["monitor"].iter().chain(target)).expect(0);
        assert_eq!(run.stdout, format!("{model}\n"));
        let object = format!("ml_{}", job[3..].replace('-', ""));
        for part in [&object, &format!("ctxtune download {job}"), "/fine-tuning/", "validation loss"] {
            assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
        }
    }
    let run = &rehearsal.ledgers()[0];
    assert_eq!((&run["status"], &run["model"]), (&"completed".into(), &model.into()));
    // Whoever watches only reads.
    let others = rehearsal.server.seen();
    let creation = others.iter().position(|seen| seen.path == "/v1/fine-tunes" && seen.method == "POST");
    assert!(others[creation.unwrap() + 1..].iter().all(|seen| seen.method == "GET"));
    rehearsal.check_protocol();
}

#[test]
fn a_failed_job_ends_with_the_servers_words_and_what_is_left() {
    for (outcome, words) in [(End::Error, "the training failed"), (End::UserError, "cannot be used")] {
        let (rehearsal, job) = over(outcome);
        let run = rehearsal.ctxtune(["monitor", "out", "--json"]).expect(6);
        assert_eq!(run.json()["error"]["code"], "job_failed");
        let train = rehearsal.files()[0]["id"].as_str().unwrap().to_owned();
        for part in [words, &train, "billed", "reached", "ctxtune submit out --new-job", &job] {
            assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
        }
        let events = run.stderr.lines().filter(|line| line.starts_with("event ")).count();
        assert_eq!(events, 5);
        assert_eq!(rehearsal.ctxtune(["monitor", &job]).expect(6).stdout, "");
    }
}

#[test]
fn a_cancelled_job_ends_with_its_own_exit_code() {
    let (rehearsal, job) = scene(1000.0, End::Completed);
    rehearsal.forward(500.0);
    rehearsal.ask(&format!("POST /v1/fine-tunes/{job}/cancel"), None);
    rehearsal.forward(500.0);
    let run = rehearsal.ctxtune(["monitor", &job, "--json"]).expect(7);
    assert_eq!(run.json()["error"]["code"], "job_cancelled");
}

#[test]
fn who_stops_waiting_is_told_how_to_go_on() {
    let (rehearsal, job) = scene(1000.0, End::Completed);
    let run = rehearsal.ctxtune(["monitor", &job, "--timeout=1", "--poll=10"]).expect(8);
    assert!(run.stderr.contains(&format!("ctxtune monitor {job}")), "{}", run.stderr);
    assert_eq!(run.stdout, "");
    assert_eq!(rehearsal.requests("POST /v1/fine-tunes/").len(), 1, "only the estimate");
}

#[test]
fn what_no_waiting_mends_ends_at_once() {
    let (rehearsal, job) = scene(1000.0, End::Completed);
    rehearsal.ctxtune(["monitor", "ft-00000000-0000"]).expect(2);
    rehearsal.ctxtune(["monitor", "no/such/job"]).expect(2);
    rehearsal.ctxtune(["monitor"]).expect(2);
    rehearsal.ctxtune(["monitor", "corpus"]).expect(2);
    let mut wrong = rehearsal.command(["monitor", &job]);
    wrong.env(env::TOGETHER_API_KEY, "wrong");
    Outcome::of(wrong).expect(4);
    let mut fresh = rehearsal.command(["monitor", "--last"]);
    fresh.env(env::XDG_STATE_HOME, rehearsal.dir.path("elsewhere"));
    Outcome::of(fresh).expect(2);
}

#[test]
fn what_may_pass_is_waited_out() {
    let (rehearsal, job) = scene(0.5, End::Completed);
    let line = format!("GET /v1/fine-tunes/{job}");
    rehearsal.fail([
        rule(&format!("{line}/events"), When::Every(2), status(503)),
        rule(&format!("{line}/metrics"), When::Every(3), Action::Body("<html>".to_owned())),
        rule(&format!("{line}$"), When::Nth((1..=12).collect()), status(500)),
    ]);
    let run = rehearsal.ctxtune(["monitor", &job]).expect(0);
    assert!(run.stderr.contains("trouble: "), "{}", run.stderr);
}

#[test]
fn what_lasts_for_half_an_hour_ends_the_watching_and_not_the_job() {
    let (rehearsal, job) = scene(1000.0, End::Completed);
    rehearsal.fail([rule("GET /v1/fine-tunes/ft-", When::Always, status(503))]);
    let mut command = rehearsal.command(["monitor", &job]);
    command.env(env::CTXTUNE_TIME_SCALE, "0.002");
    let run = Outcome::of(command).expect(5);
    assert!(run.stderr.lines().count() < 20, "half an hour of the same is one line: {}", run.stderr);
    assert!(run.stderr.contains("nothing was heard of it for 3"), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("the job still runs; to resume watching: ctxtune monitor {job}")));
    assert!(rehearsal.requests("GET /v1/fine-tunes/ft-").len() > 50);
}

#[test]
fn the_stream_of_events_is_json_and_has_everything_once() {
    let (rehearsal, _) = scene(1.0, End::Completed);
    rehearsal.server.set_script(|script| {
        script.faults.shuffle_events = true;
        script.faults.double_events = true;
        script.faults.nan_metrics = true;
        script.faults.statuses = vec![(0.3, "on_holiday".to_owned())];
    });
    let run = rehearsal.ctxtune(["monitor", "out", "--events"]).expect(0);
    let lines: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["at"].is_string() && line["job"].is_string()));
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
    let steps = |kind: &str| of(kind).iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(steps("train"), (1..=30).collect::<Vec<_>>());
    assert_eq!(steps("eval"), [10, 20, 30]);
    let kinds: Vec<String> = of("event").iter().map(|line| line["kind"].to_string()).collect();
    let once: std::collections::BTreeSet<(String, String)> =
        of("event").iter().map(|line| (line["kind"].to_string(), line["step"].to_string())).collect();
    assert_eq!(once.len(), kinds.len(), "{kinds:?}");
    for kind in ["job_start", "training_complete", "job_complete", "checkpoint_save"] {
        assert!(kinds.contains(&format!("\"{kind}\"")), "{kind}: {kinds:?}");
    }
    let statuses: Vec<&Value> = of("status").iter().map(|line| &line["to"]).collect();
    assert_eq!(statuses.last(), Some(&&"completed".into()));
    assert_eq!(lines.last().unwrap()["type"], "finished");
    assert_eq!(lines.last().unwrap()["ending"], "completed");
    rehearsal.check_protocol();
}

#[test]
fn a_status_that_is_new_here_is_shown_and_is_no_end() {
    let (rehearsal, job) = scene(0.6, End::Completed);
    let odd = "on\u{1b}[2J holiday".to_owned();
    rehearsal.server.set_script(|script| script.faults.statuses = vec![(0.1, odd)]);
    let run = rehearsal.ctxtune(["monitor", &job, "--poll=1"]).expect(0);
    assert!(run.stderr.contains("a status that is new here"), "{}", run.stderr);
    assert!(!run.stderr.contains('\u{1b}'), "{}", run.stderr);
}

#[test]
fn the_picture_is_written_however_it_ends() {
    for (outcome, exit) in [(End::Completed, 0), (End::Error, 6)] {
        let (rehearsal, job) = over(outcome);
        rehearsal.ctxtune(["monitor", &job, "--svg", "curve.svg"]).expect(exit);
        let svg = rehearsal.dir.read("curve.svg");
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    }
}

#[test]
fn a_picture_that_cannot_be_written_is_an_error_before_the_job() {
    let rehearsal = Rehearsal::new();
    rehearsal.dir.corpus(10);
    let svg = "--svg=no/such/place.svg";
    let run = rehearsal.ctxtune(["finetune", "corpus", "-o", "out", "--yes", svg]).expect(2);
    assert!(run.stderr.contains("no/such/place.svg"), "{}", run.stderr);
    assert_eq!(rehearsal.server.seen(), []);
    rehearsal.ctxtune(["monitor", "ft-1", svg]).expect(2);
    assert_eq!(rehearsal.server.seen(), []);
}

#[test]
fn no_event_follows_the_status_that_ends_the_job() {
    let (rehearsal, job) = over(End::Completed);
    let run = rehearsal.ctxtune(["monitor", &job]).expect(0);
    let ended = run.stderr.find("status: completed").unwrap();
    let last_event = run.stderr.rfind("job_complete").unwrap();
    assert!(last_event < ended, "{}", run.stderr);
}

#[test]
fn detached_it_ends_with_the_job_and_goes_on_later() {
    let rehearsal = Rehearsal::new();
    rehearsal.dir.corpus(10);
    let finetune = ["finetune", "corpus", "-o", "out", "--no-sync", "--yes"];
    let job = rehearsal.ctxtune(finetune.iter().chain(&["--detach"])).expect(0).stdout;
    assert_eq!(job.trim_end(), rehearsal.jobs()[0]["id"]);
    rehearsal.forward(1000.0);
    let model = rehearsal.ctxtune(finetune).expect(0).stdout;
    assert_eq!(model.trim_end(), rehearsal.jobs()[0]["model_output_name"]);
    assert_eq!(rehearsal.server.jobs_created(), 1);
}

#[cfg(unix)]
#[test]
fn a_signal_while_watching_leaves_the_job_alone() {
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let watching = Arc::new(Mutex::new(None::<u32>));
        let watch = {
            let watching = Arc::clone(&watching);
            Arc::new(move |stage, seen: &Seen| {
                let is_watched = stage == Stage::Acted && seen.path.ends_with("/events");
                // `None` once it has its signal, and while the job is still being submitted.
                let Some(process) = watching.lock().unwrap().filter(|_| is_watched) else { return };
                support::signal(process, name);
            })
        };
        let script = Script { job_seconds: 1000.0, verdict_seconds: 0.0, ..Script::default() };
        let rehearsal = Rehearsal::watched(script, watch);
        let job = rehearsal.submit(10, &[]);
        let child = {
            let mut place = watching.lock().unwrap();
            let mut command = rehearsal.command(["monitor", "out"]);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            *place = Some(child.id());
            child
        };
        let run = Outcome::from(child.wait_with_output().unwrap()).expect(code);
        *watching.lock().unwrap() = None;
        assert!(run.stderr.contains(&format!("ctxtune monitor {job}")), "{}", run.stderr);
        assert_eq!(rehearsal.requests("POST /v1/fine-tunes/ft-").len(), 0);
        assert_eq!(rehearsal.jobs()[0]["status"], "pending");
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let (rehearsal, _) = scene(1.0, End::Completed);
    let mut shell = Command::new("sh");
    rehearsal.lend_environment(&mut shell);
    let script = r#"{ "$0" monitor out --events -q; echo "ended $?" >&2; } | head -1"#;
    shell.args(["-c", script, program()]).current_dir(rehearsal.dir.path(""));
    let run = Outcome::of(shell).expect(0);
    assert_eq!(run.stdout.lines().count(), 1);
    assert_eq!(run.stderr, "ended 0\n");
}

#[test]
fn endings_in_other_words_are_endings_in_every_command() {
    for (status, code) in [("Succeeded", 0), ("FAILED", 6), ("expired", 6), ("Canceled", 7)] {
        let (rehearsal, job) = over(End::Completed);
        rehearsal.server.set_script(|script| script.faults.statuses = vec![(1000.0, status.to_owned())]);
        let plain = status.to_lowercase();
        assert_eq!(rehearsal.ctxtune(["status", &job]).expect(0).stdout, format!("{plain}\n"));
        let jobs = rehearsal.ctxtune(["jobs"]).expect(0);
        assert!(jobs.stdout.contains(&plain) && !jobs.stderr.contains("new here"), "{}", jobs.stderr);
        let run = rehearsal.ctxtune(["monitor", "out"]).expect(code);
        assert!(!run.stderr.contains("new here"), "{}", run.stderr);
        if status == "expired" {
            assert!(run.stderr.contains(&format!("the job {job} expired")), "{}", run.stderr);
        }
        // The same data again finds it, and does not wait for it.
        rehearsal.ctxtune(["submit", "out", "--yes"]).expect(code);
        rehearsal.ctxtune(["cancel", &job, "--yes"]);
        assert_eq!(rehearsal.requests(&format!("POST /v1/fine-tunes/{job}/cancel")), []);
        let download = rehearsal.ctxtune(["download", &job, "--adapter"]);
        assert_eq!(download.code == Some(0), code == 0, "{}", download.stderr);
        assert_eq!(rehearsal.server.jobs_created(), 1);
        // A model is asked for by its directory where its job is complete.
        let asked = rehearsal.ctxtune(["generate", "Mia left.", "--out", "out"]);
        assert!(!asked.stderr.contains("was succeeded when it was last asked for"), "{}", asked.stderr);
        // Its price is final.
        let run = rehearsal.ctxtune(["monitor", "out"]).expect(code);
        assert!(run.stderr.contains("billed $"), "{}", run.stderr);
    }
}

#[test]
fn a_complete_job_without_a_models_name_ends_with_1_and_says_so() {
    let (rehearsal, job) = over(End::Completed);
    rehearsal.server.set_script(|script| script.faults.omit = vec!["model_output_name".to_owned()]);
    let run = rehearsal.ctxtune(["monitor", "out", "--json"]).expect(1);
    let document = run.json();
    assert_eq!((&document["error"]["code"], &document["model"]), (&"no_model_name".into(), &Value::Null));
    assert_eq!(rehearsal.ctxtune(["monitor", "out"]).expect(1).stdout, "");
    assert!(run.stderr.contains(&format!("ctxtune status {job}")), "{}", run.stderr);
    let status = rehearsal.ctxtune(["status", "out"]).expect(0);
    assert!(status.stderr.contains("the service gives no name of it"), "{}", status.stderr);
    rehearsal.check_protocol();
}

#[test]
fn a_job_that_another_process_has_just_created_may_be_denied_for_a_moment() {
    let (rehearsal, job) = scene(1.0, End::Completed);
    rehearsal.fail([rule("GET /v1/fine-tunes/ft-", When::Nth(vec![1, 2, 3]), status(404))]);
    let run = rehearsal.ctxtune(["monitor", &job]).expect(0);
    // A port may have these digits, too.
    assert!(!run.stderr.contains(" 404 "), "{}", run.stderr);
    let unknown = rehearsal.ctxtune(["monitor", "ft-unknown"]).expect(2);
    assert!(unknown.stderr.contains(" 404 "), "{}", unknown.stderr);
}
