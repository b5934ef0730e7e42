//! A tuned model under a name: brought up once, agreed to, held for its time, and never left unsaid.

use std::process::{Child, Command, Stdio};

use ctxtune_pipeline::env;
use ctxtune_rehearsal::faults::{Action, Side, When};
use serde_json::{Value, json};

use crate::service::{rule, status, status_with_retry_after};
use crate::support::{self, Outcome, Rehearsal, wait_until};

const ENDPOINTS: &str = "/v2/projects/proj-rehearsal/endpoints$";
const DEPLOYMENTS: &str = "/v2/projects/proj-rehearsal/endpoints/*/deployments";
const DEPLOYMENT: &str = "/v2/projects/proj-rehearsal/endpoints/*/deployments/*";

/// `deploy out --name contexts` with `flags`, not yet run.
fn deploy(rehearsal: &Rehearsal, flags: &[&str]) -> Command {
    let mut command = rehearsal.command(["deploy", "out", "--name", "contexts"].iter().chain(flags));
    command.env(env::CTXTUNE_GRACE_SECONDS, "0.05");
    command
}

fn run(rehearsal: &Rehearsal, flags: &[&str]) -> Outcome {
    Outcome::of(deploy(rehearsal, flags))
}

/// The deployments of the server.
fn deployments(rehearsal: &Rehearsal) -> Vec<Value> {
    let endpoints = rehearsal.ask("GET /v2/projects/proj-rehearsal/endpoints", None);
    let endpoints = endpoints["data"].as_array().unwrap().clone();
    endpoints.iter().flat_map(|endpoint| endpoint["deployments"].as_array().unwrap().clone()).collect()
}

/// Nothing is deployed any more.
#[track_caller]
fn check_nothing_is_left(rehearsal: &Rehearsal) {
    assert_eq!(deployments(rehearsal), Vec::<Value>::new());
}

/// How many machines all deployments are asked to have.
fn machines(rehearsal: &Rehearsal) -> u64 {
    deployments(rehearsal).iter().map(|one| one["autoscaling"]["maxReplicas"].as_u64().unwrap()).sum()
}

/// Whether chat answers for `model`.
fn answers(rehearsal: &Rehearsal, model: &str) -> bool {
    let body = json!({ "model": model, "messages": [{ "role": "user", "content": "Mia waits." }] });
    !rehearsal.ask("POST /v1/chat/completions", Some(&body))["choices"].is_null()
}

/// How many requests that cost money were sent.
fn creations(rehearsal: &Rehearsal) -> usize {
    let posts = rehearsal.requests("POST /v2/projects/proj-rehearsal/endpoints/");
    posts.iter().filter(|seen| seen.path.ends_with("/deployments")).count()
}

/// A run in the background, with pipes.
fn spawn(rehearsal: &Rehearsal, flags: &[&str]) -> Child {
    deploy(rehearsal, flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends a signal to a run, and gives what it said until its end.
fn end(child: Child, signal: &str) -> Outcome {
    support::signal(child.id(), signal);
    Outcome::from(child.wait_with_output().unwrap())
}

#[test]
fn a_tuned_model_gets_a_name_for_a_time() {
    let (rehearsal, job) = Rehearsal::tuned(0.2);
    assert!(!answers(&rehearsal, "rehearsal/contexts"));
    let run = run(&rehearsal, &["--yes", "--stop-after", "20s"]).expect(0);
    assert_eq!(run.stdout, "rehearsal/contexts\n");
    for said in [
        &*job,
        "cr_whole on 1xnvidia-h100-80gb",
        "$0.0600 a minute ($3.60 an hour), $0.02 for 20s",
        "state     provisioning",
        "state     ready",
        "ctxtune endpoints stop contexts",
        "nothing else does",
        "20s is over",
        "scaled to zero",
    ] {
        assert!(run.stderr.contains(said), "{said}: {}", run.stderr);
    }
    assert_eq!(rehearsal.server.deployments_created(), 1);
    check_nothing_is_left(&rehearsal);
    assert!(!answers(&rehearsal, "rehearsal/contexts"));
    rehearsal.check_protocol();
}

#[test]
fn a_detached_deployment_answers_and_says_that_nothing_stops_it() {
    let (rehearsal, _) = Rehearsal::tuned(0.1);
    for flags in [&["--yes", "--detach"][..], &["--yes", "--stop-after", "never"]] {
        let run = run(&rehearsal, flags).expect(0);
        assert_eq!(run.stdout, "rehearsal/contexts\n");
        let warning = "warning: nothing stops it: it costs $0.0600 a minute ($3.60 an hour) until `ctxtune endpoints stop contexts`";
        assert!(run.stderr.contains(warning), "{}", run.stderr);
        assert!(answers(&rehearsal, "rehearsal/contexts"));
    }
    assert_eq!((rehearsal.server.deployments_created(), creations(&rehearsal)), (1, 1));
    assert_eq!(deployments(&rehearsal)[0]["inactiveTimeout"], 0);
}

#[test]
fn the_service_is_asked_to_stop_it_too_where_it_can() {
    let check = |time: &str, minutes: u64| {
        let (rehearsal, _) = Rehearsal::tuned(0.0);
        let mut child = spawn(&rehearsal, &["--yes", "--json", "--stop-after", time]);
        wait_until(&mut child, || answers(&rehearsal, "rehearsal/contexts"));
        assert_eq!(deployments(&rehearsal)[0]["inactiveTimeout"], minutes, "{time}");
        let idle = end(child, "TERM").expect(143).json()["idle_minutes"].clone();
        assert_eq!(idle, if minutes > 0 { json!(minutes) } else { Value::Null }, "{time}");
    };
    check("1h", 60);
    check("24h", 1440);
    check("25h", 0);
    check("29m", 0);
}

#[test]
fn what_is_tuned_from_a_reference_model_is_refused_in_one_way() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &[]);
    for _ in 0..2 {
        let run = run(&rehearsal, &["--yes", "--json"]).expect(2);
        let error = run.document("deploy", json!({}))["error"].clone();
        assert_eq!(error["code"], "not_deployable");
        assert!(error["hint"].as_str().unwrap().contains(&format!("ctxtune download {job} --adapter")));
        rehearsal.forward(1000.0);
    }
    assert!(rehearsal.requests("POST /v2").is_empty());
}

#[test]
fn a_job_must_be_complete() {
    let rehearsal = Rehearsal::new();
    let job = rehearsal.submit(10, &["--base-model=Qwen/Qwen3-8B"]);
    let refused = run(&rehearsal, &["--yes"]).expect(8);
    assert!(refused.stderr.contains(&format!("ctxtune monitor {job}")), "{}", refused.stderr);
    rehearsal.ctxtune(["cancel", &job, "--yes"]).expect(0);
    rehearsal.forward(1000.0);
    run(&rehearsal, &["--yes"]).expect(7);
    rehearsal.ctxtune(["deploy", "out", "--name", "Not/Fit", "--yes"]).expect(2);
    rehearsal.ctxtune(["deploy", "out", "--yes"]).expect(2);
    assert!(rehearsal.requests("POST /v2").is_empty());
}

#[test]
fn nothing_is_deployed_without_consent() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    let check = |flags: &[&str], exit: i32, code: &str| {
        let run = run(&rehearsal, &[&["--json"], flags].concat()).expect(exit);
        assert_eq!(run.json()["error"]["code"], code, "{}", run.stderr);
    };
    check(&[], 9, "no_consent");
    check(&["--detach"], 9, "no_consent");
    check(&["--max-cost=3.59"], 9, "over_max_cost");
    check(&["--max-cost=10", "--stop-after=3h", "--yes"], 9, "over_max_cost");
    check(&["--max-cost=10", "--stop-after=never"], 2, "usage");
    check(&["--max-cost=10", "--detach"], 2, "usage");
    let catalogue = "GET /v2/public/inference-instance-types";
    rehearsal.fail([rule(catalogue, When::Always, status(404))]);
    check(&["--max-cost=1000"], 9, "no_estimate");
    let changes = rehearsal.requests("PATCH /v2").len() + rehearsal.requests("POST /v2").len();
    assert_eq!(changes, 0);
    let run = run(&rehearsal, &["--yes", "--detach"]).expect(0);
    assert!(run.stderr.contains("a price that is not known"), "{}", run.stderr);
}

#[test]
fn a_price_within_the_cap_is_consent() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    run(&rehearsal, &["--max-cost=0.02", "--stop-after=20"]).expect(0);
    assert_eq!(rehearsal.server.deployments_created(), 1);
}

#[test]
fn a_deployment_whose_reply_is_lost_is_paid_once() {
    let lost = [
        Action::LoseReply,
        Action::Reset(Side::After),
        Action::Body("<html>a proxy</html>".to_owned()),
        Action::Status { status: 500, headers: Vec::new(), body: String::new(), side: Side::After },
        Action::Status { status: 409, headers: Vec::new(), body: String::new(), side: Side::After },
    ];
    for action in lost {
        for line in [format!("POST {ENDPOINTS}"), format!("POST {DEPLOYMENTS}")] {
            let (rehearsal, _) = Rehearsal::tuned(0.0);
            rehearsal.fail([rule(&line, When::Nth(vec![1]), action.clone())]);
            run(&rehearsal, &["--yes", "--detach"]).expect(0);
            let created = (rehearsal.server.deployments_created(), creations(&rehearsal));
            assert_eq!(created, (1, 1), "{line} {action:?}");
            assert!(answers(&rehearsal, "rehearsal/contexts"), "{line} {action:?}");
        }
    }
}

#[test]
fn a_creation_of_unknown_outcome_is_not_sent_again_by_the_same_run() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    let line = format!("POST {DEPLOYMENTS}");
    for action in [status(500), status(504), Action::Reset(Side::Before)] {
        let before = creations(&rehearsal);
        rehearsal.fail([rule(&line, When::Nth(vec![1]), action)]);
        let run = run(&rehearsal, &["--yes", "--json"]).expect(5);
        assert_eq!(run.json()["error"]["code"], "unknown_outcome");
        assert_eq!(run.json()["stopped"], false);
        assert_eq!(creations(&rehearsal), before + 1);
    }
    rehearsal.fail([rule(&line, When::Nth(vec![1, 2]), status_with_retry_after(429))]);
    run(&rehearsal, &["--yes", "--detach"]).expect(0);
    assert_eq!(rehearsal.server.deployments_created(), 1);
    assert_eq!(rehearsal.requests(&format!("POST {ENDPOINTS}")).len(), 1, "the endpoint was there");
}

#[test]
fn a_run_that_was_killed_goes_on_with_the_same_deployment_unasked() {
    let (rehearsal, _) = Rehearsal::tuned(0.3);
    let mut child = spawn(&rehearsal, &["--yes"]);
    wait_until(&mut child, || rehearsal.server.deployments_created() == 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(machines(&rehearsal), 1);
    let run = run(&rehearsal, &["--stop-after", "20s"]).expect(0);
    assert_eq!(run.stdout, "rehearsal/contexts\n");
    assert!(run.stderr.contains("found, and reused"), "{}", run.stderr);
    assert_eq!((rehearsal.server.deployments_created(), creations(&rehearsal)), (1, 1));
    check_nothing_is_left(&rehearsal);
}

#[test]
fn a_stopped_deployment_is_brought_up_again_only_with_consent() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    run(&rehearsal, &["--yes", "--detach"]).expect(0);
    // Removing fails, so that it stays there, stopped.
    rehearsal.fail([rule(&format!("DELETE {DEPLOYMENT}"), When::Always, status(400))]);
    let stopped = rehearsal.ctxtune(["endpoints", "stop", "contexts"]).expect(0);
    assert!(stopped.stderr.contains("stays, and costs nothing"), "{}", stopped.stderr);
    assert_eq!((stopped.stdout.as_str(), machines(&rehearsal)), ("", 0));
    run(&rehearsal, &["--detach"]).expect(9);
    assert_eq!(machines(&rehearsal), 0);
    run(&rehearsal, &["--detach", "--yes"]).expect(0);
    assert_eq!((machines(&rehearsal), rehearsal.server.deployments_created()), (1, 1));
    assert!(answers(&rehearsal, "rehearsal/contexts"));
}

#[test]
fn a_signal_stops_what_this_process_holds() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let (rehearsal, _) = Rehearsal::tuned(0.0);
        let mut child = spawn(&rehearsal, &["--yes", "--json"]);
        wait_until(&mut child, || answers(&rehearsal, "rehearsal/contexts"));
        let run = end(child, signal).expect(code);
        let document = run.json();
        assert_eq!((&document["stopped"], &document["error"]["code"]), (&json!(true), &json!("interrupted")));
        assert!(run.stderr.contains("scaled to zero"), "{}", run.stderr);
        assert_eq!(machines(&rehearsal), 0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_end_of_the_terminal_is_a_signal_unless_nohup_says_otherwise() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    let mut child = spawn(&rehearsal, &["--yes", "--json"]);
    wait_until(&mut child, || answers(&rehearsal, "rehearsal/contexts"));
    let document = end(child, "HUP").expect(143).json();
    assert_eq!((&document["stopped"], machines(&rehearsal)), (&json!(true), 0));

    let inner = deploy(&rehearsal, &["--yes"]);
    let mut nohup = Command::new("nohup");
    nohup.arg(inner.get_program()).args(inner.get_args()).current_dir(rehearsal.dir.path(""));
    inner.get_envs().for_each(|(name, value)| _ = nohup.env(name, value.unwrap_or_default()));
    let mut child = nohup.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(&mut child, || answers(&rehearsal, "rehearsal/contexts"));
    support::signal(child.id(), "HUP");
    // It goes on: what ends it is the signal after that.
    let run = end(child, "INT").expect(130);
    assert!(run.stderr.contains("scaled to zero"), "{}", run.stderr);
}

#[test]
fn a_signal_stops_what_is_not_ready_yet() {
    let (rehearsal, _) = Rehearsal::tuned(10_000.0);
    for flags in [&["--yes"][..], &["--yes", "--detach"]] {
        let mut child = spawn(&rehearsal, flags);
        wait_until(&mut child, || machines(&rehearsal) == 1);
        let run = end(child, "TERM").expect(143);
        assert_eq!((run.stdout.as_str(), machines(&rehearsal)), ("", 0), "{}", run.stderr);
    }
    assert_eq!(rehearsal.server.deployments_created(), 1);
}

#[test]
fn a_signal_stops_what_was_asked_for_and_never_answered() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    rehearsal.fail([rule(&format!("POST {DEPLOYMENTS}"), When::Nth(vec![1]), Action::Hang(30.0))]);
    let mut child = spawn(&rehearsal, &["--yes", "--json"]);
    wait_until(&mut child, || rehearsal.server.deployments_created() == 1);
    let run = end(child, "INT").expect(130);
    assert_eq!((&run.json()["stopped"], machines(&rehearsal)), (&json!(true), 0), "{}", run.stderr);
}

#[test]
fn what_cannot_be_stopped_is_said_and_how_to_stop_it() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    let mut child = spawn(&rehearsal, &["--yes", "--json"]);
    wait_until(&mut child, || answers(&rehearsal, "rehearsal/contexts"));
    rehearsal.fail([rule(&format!("PATCH {DEPLOYMENT}"), When::Always, status(500))]);
    let run = end(child, "INT").expect(130);
    let document = run.json();
    let hint = "it may still run, and costs $0.0600 a minute ($3.60 an hour): stop it with `ctxtune endpoints stop contexts`";
    assert_eq!((&document["error"]["hint"], &document["stopped"]), (&json!(hint), &json!(false)));
    assert!(run.stderr.contains("could not be stopped"), "{}", run.stderr);
    assert_eq!(machines(&rehearsal), 1);
}

#[test]
fn what_is_over_is_stopped_as_soon_as_the_service_lets_it() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    rehearsal.fail([rule(&format!("PATCH {DEPLOYMENT}"), When::Nth((1..=7).collect()), status(500))]);
    let over = run(&rehearsal, &["--stop-after=10", "--yes"]).expect(0);
    assert!(over.stderr.contains("not stopped yet, trying again"), "{}", over.stderr);
    check_nothing_is_left(&rehearsal);
    // A refusal is for good.
    rehearsal.fail([rule(&format!("PATCH {DEPLOYMENT}"), When::Always, status(403))]);
    let refused = run(&rehearsal, &["--stop-after=10", "--yes"]).expect(4);
    assert!(refused.stderr.contains("stop it with `ctxtune endpoints stop contexts`"), "{}", refused.stderr);
    assert_eq!(machines(&rehearsal), 1);
}

#[test]
fn a_deployment_that_fails_or_takes_too_long_is_stopped() {
    let (rehearsal, _) = Rehearsal::tuned(10_000.0);
    let failed = json!({
        "id": "dep_x", "name": "rehearsal/contexts/x", "autoscaling": { "minReplicas": 1, "maxReplicas": 1 },
        "status": { "state": "DEPLOYMENT_STATE_FAILED", "message": "no\u{1b}[31m capacity" },
    });
    let look = format!("GET {DEPLOYMENT}");
    rehearsal.fail([rule(&look, When::Always, Action::Body(failed.to_string()))]);
    let run = run(&rehearsal, &["--yes", "--json"]).expect(1);
    let ended = |document: &Value| (document["error"]["code"].clone(), document["stopped"].clone());
    assert_eq!(ended(&run.json()), (json!("deployment_failed"), json!(true)));
    assert!(run.stderr.contains("no\\u{1b}[31m capacity"), "{}", run.stderr);
    assert_eq!(machines(&rehearsal), 0);

    rehearsal.fail([]);
    let mut command = deploy(&rehearsal, &["--yes", "--json"]);
    command.env(env::CTXTUNE_TIME_SCALE, "0.0005");
    let document = Outcome::of(command).expect(5).json();
    assert_eq!(ended(&document), (json!("not_ready"), json!(true)));
    assert_eq!(machines(&rehearsal), 0);
}

#[test]
fn trouble_while_it_is_waited_for_is_waited_out() {
    let (rehearsal, _) = Rehearsal::tuned(0.3);
    let look = format!("GET {DEPLOYMENT}");
    rehearsal.fail([
        rule(&look, When::Nth(vec![1]), status(502)),
        rule(&look, When::Nth(vec![2]), Action::LoseReply),
        rule("PATCH /v2/projects/proj-rehearsal/endpoints/*", When::Nth(vec![1]), Action::LoseReply),
    ]);
    run(&rehearsal, &["--yes", "--detach"]).expect(0);
    assert!(answers(&rehearsal, "rehearsal/contexts"));
}

/// A deployment that another program made, at an endpoint of this name.
fn foreign(rehearsal: &Rehearsal, endpoint: &str) {
    let path = "/v2/projects/proj-rehearsal/endpoints";
    let endpoint = rehearsal.ask(&format!("POST {path}"), Some(&json!({ "name": endpoint })));
    let job = rehearsal.jobs()[0]["id"].as_str().unwrap().to_owned();
    let model = rehearsal.ask(&format!("GET /v1/fine-tunes/{job}"), None)["model_object_id"].clone();
    let body = json!({
        "name": "by-hand", "model": format!("projects/proj-rehearsal/models/{}", model.as_str().unwrap()),
        "config": "projects/proj-public/configs/cr_whole",
        "autoscaling": { "minReplicas": 1, "maxReplicas": 1 },
    });
    let path = format!("POST {path}/{}/deployments", endpoint["id"].as_str().unwrap());
    assert!(rehearsal.ask(&path, Some(&body))["id"].is_string());
}

#[test]
fn one_name_is_one_model_and_only_what_is_ours_is_stopped_unless_typed() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    foreign(&rehearsal, "contexts");
    let refused = run(&rehearsal, &["--yes", "--json"]).expect(2);
    assert_eq!(refused.json()["error"]["code"], "endpoint_in_use");
    let listed = rehearsal.ctxtune(["endpoints"]).expect(0).stdout;
    assert!(listed.ends_with("\tby-hand\tctxtune endpoints stop contexts --all\n"), "{listed}");
    let stopped = rehearsal.ctxtune(["endpoints", "stop", "contexts"]).expect(0);
    assert!(stopped.stderr.contains("by-hand still runs"), "{}", stopped.stderr);
    assert_eq!(machines(&rehearsal), 1);
    rehearsal.ctxtune(["endpoints", "stop", "contexts", "--all"]).expect(0);
    assert_eq!((machines(&rehearsal), deployments(&rehearsal).len()), (0, 1), "it is not removed");
    run(&rehearsal, &["--yes", "--detach"]).expect(0);
}

#[test]
fn another_model_that_comes_under_the_name_at_the_same_time_is_not_crossed() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    foreign(&rehearsal, "contexts");
    let nothing = Action::Body(r#"{"object":"list","data":[],"next_cursor":null}"#.to_owned());
    rehearsal.fail([rule(&format!("GET {DEPLOYMENTS}$"), When::Nth(vec![1]), nothing)]);
    let document = run(&rehearsal, &["--yes", "--json"]).expect(2).json();
    assert_eq!((&document["error"]["code"], &document["stopped"]), (&json!("endpoint_in_use"), &json!(true)));
    let split =
        rehearsal.ask("GET /v2/projects/proj-rehearsal/endpoints", None)["data"][0]["trafficSplit"].clone();
    assert_eq!((split, machines(&rehearsal)), (json!([]), 1), "only the other one runs, and was not touched");
}

#[test]
fn what_runs_is_listed_with_its_price_and_the_way_to_stop_it() {
    let (rehearsal, job) = Rehearsal::tuned(0.0);
    let none = rehearsal.ctxtune(["endpoints", "list"]).expect(0);
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "nothing runs\n"));
    run(&rehearsal, &["--yes", "--detach"]).expect(0);
    let listed = rehearsal.ctxtune(["endpoints", "list"]).expect(0).stdout;
    let row: Vec<&str> = listed.trim_end().split('\t').collect();
    let name = format!("ctxtune-{}", &job[3..11]);
    assert_eq!(row[..3], ["rehearsal/contexts", "ready", "0.0600"]);
    assert_eq!(row[5..], [&*name, "ctxtune endpoints stop contexts"]);

    let status = rehearsal.ctxtune(["status", "out"]).expect(0);
    let said = "rehearsal/contexts is ready, at $0.0600 a minute ($3.60 an hour)";
    assert!(status.stderr.contains(&format!("running   {said}")), "{}", status.stderr);
    assert!(status.stderr.contains("stop      ctxtune endpoints stop contexts"), "{}", status.stderr);
    assert_eq!(status.stdout, "completed\n");
    let doctor = rehearsal.ctxtune(["doctor", "out"]).expect(0);
    assert!(doctor.stderr.contains(said), "{}", doctor.stderr);
    assert!(doctor.stderr.contains("to stop: ctxtune endpoints stop contexts"), "{}", doctor.stderr);

    for endpoint in ["contexts", "rehearsal/contexts"] {
        let stopped = rehearsal.ctxtune(["endpoints", "stop", endpoint]).expect(0);
        let expected = if endpoint == "contexts" { format!("{name}\n") } else { String::new() };
        assert_eq!(stopped.stdout, expected);
    }
    check_nothing_is_left(&rehearsal);
    rehearsal.ctxtune(["endpoints", "stop", "nowhere"]).expect(2);
    rehearsal.check_protocol();
}

#[test]
fn what_runs_is_listed_with_the_dollars_so_far() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    let none = rehearsal.ctxtune(["endpoints", "--json"]).expect(0).json();
    let nothing = json!({ "dollars_so_far": 0.0, "price_per_minute": 0.0, "unpriced_endpoints": 0 });
    assert_eq!(none["totals"], nothing);
    run(&rehearsal, &["--yes", "--detach"]).expect(0);
    rehearsal.forward(6000.0);
    // A hundred minutes at six cents, by the service's clock, and what the test has taken since.
    let is_about_six = |dollars: f64| (5.99..6.5).contains(&dollars);
    let document = rehearsal.ctxtune(["endpoints", "--json"]).expect(0).json();
    let so_far = document["endpoints"][0]["dollars_so_far"].as_f64().unwrap();
    assert!(is_about_six(so_far), "{document}");
    assert_eq!(document["totals"]["dollars_so_far"], so_far);
    assert_eq!(document["totals"]["price_per_minute"], document["endpoints"][0]["price_per_minute"]);
    let listed = rehearsal.ctxtune(["endpoints"]).expect(0);
    let cell = listed.stdout.split('\t').nth(3).unwrap();
    assert!(is_about_six(cell.parse().unwrap()), "{}", listed.stdout);
    assert!(listed.stderr.starts_with("total     about $6."), "{}", listed.stderr);
}

#[test]
fn the_directory_of_a_deployed_model_says_whom_to_ask() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    let generate = ["generate", "Mia left. Noah ran.", "--out", "out"];
    rehearsal.ctxtune(generate).expect(2);
    run(&rehearsal, &["--yes", "--detach"]).expect(0);
    let asked = rehearsal.ctxtune(generate).expect(0);
    assert!(asked.stderr.contains("model     rehearsal/contexts at "), "{}", asked.stderr);
    // One that is not told where the model answers asks for it by its own name.
    rehearsal.fail([rule("GET /v2", When::Always, status(403))]);
    let asked = rehearsal.ctxtune(generate).expect(2);
    assert!(asked.stderr.contains("ctxtune deploy"), "{}", asked.stderr);
}

#[test]
fn who_asks_the_model_is_told_what_runs() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    run(&rehearsal, &["--yes", "--detach"]).expect(0);
    rehearsal.dir.write("stories.jsonl", "{\"story\": \"Mia left. Noah ran.\"}\n");
    let one = ["generate", "Mia left. Noah ran.", "--model", "rehearsal/contexts"];
    let many = ["generate", "stories.jsonl", "-o", "gen", "--model", "rehearsal/contexts", "--yes"];
    let score = ["score", "--models", "rehearsal/contexts", "--val", "out", "--yes"];
    for arguments in [&one[..], &many[..], &score[..]] {
        let asked = rehearsal.ctxtune(arguments).expect(0);
        let said = "running   rehearsal/contexts is ready, at $0.0600 a minute ($3.60 an hour), about $";
        assert!(asked.stderr.contains(said), "{}", asked.stderr);
        assert!(asked.stderr.contains("stop      ctxtune endpoints stop contexts\n"), "{}", asked.stderr);
    }
    let before = rehearsal.requests("GET /v2").len();
    let elsewhere = ["--base-url", rehearsal.server.url()];
    let mut command = rehearsal.command([&one[..], &elsewhere].concat());
    command.env_remove(env::TOGETHER_API_KEY).env(env::OPENAI_API_KEY, "rehearsal-key");
    Outcome::of(command).expect(0);
    assert_eq!(rehearsal.requests("GET /v2").len(), before, "another server is not asked about endpoints");
}

#[test]
fn a_look_at_a_job_depends_on_no_endpoints() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    for action in [status(404), status(403), status(500), Action::Body("<html>".to_owned())] {
        rehearsal.fail([rule("GET /v2", When::Always, action)]);
        let before = rehearsal.server.seen().len();
        let document = rehearsal.ctxtune(["status", "out", "--json"]).expect(0).json();
        assert_eq!(document["endpoints"], Value::Null);
        let asked = rehearsal.server.seen().split_off(before);
        assert_eq!(asked.iter().filter(|seen| seen.path.starts_with("/v2")).count(), 1, "it is asked once");
        let doctor = rehearsal.ctxtune(["doctor", "out"]).expect(0);
        assert!(doctor.stderr.contains("the service does not tell"), "{}", doctor.stderr);
    }
}

#[test]
fn a_stop_from_elsewhere_ends_the_one_that_holds() {
    // What cannot be removed is there, stopped; else it is gone.
    for rules in [vec![rule(&format!("DELETE {DEPLOYMENT}"), When::Always, status(400))], Vec::new()] {
        let (rehearsal, _) = Rehearsal::tuned(0.0);
        let mut child = spawn(&rehearsal, &["--yes"]);
        wait_until(&mut child, || answers(&rehearsal, "rehearsal/contexts"));
        rehearsal.fail(rules);
        rehearsal.ctxtune(["endpoints", "stop", "contexts"]).expect(0);
        let run = Outcome::from(child.wait_with_output().unwrap()).expect(0);
        assert!(run.stderr.contains("was stopped from elsewhere"), "{}", run.stderr);
    }
}

#[test]
fn the_documents_are_pinned() {
    let (rehearsal, _) = Rehearsal::tuned(0.0);
    let fields = |stop_after: &str, id: &str| {
        json!({
            "job": "string", "endpoint": "string", "endpoint_id": id, "deployment": "string",
            "deployment_id": id, "model": id, "created": "boolean", "price_per_minute": "number",
            "stop_after_seconds": stop_after, "idle_minutes": "null", "stopped": "boolean",
        })
    };
    let refused = run(&rehearsal, &["--json"]).expect(9);
    refused.document("deploy", fields("number", "null"));
    let up = run(&rehearsal, &["--yes", "--detach", "--json"]).expect(0);
    let up = up.document("deploy", fields("null", "string"));
    assert_eq!((&up["model"], &up["created"]), (&json!("rehearsal/contexts"), &json!(true)));

    let list = || rehearsal.ctxtune(["endpoints", "--json"]).expect(0);
    let running = json!([{
        "endpoint": "string", "endpoint_id": "string", "model": "string", "deployment": "string",
        "deployment_id": "string", "state": "string", "replicas": "integer", "price_per_minute": "number",
        "dollars_so_far": "number", "created_at": "string", "stop": "string",
    }]);
    let totals = json!({
        "dollars_so_far": "number", "price_per_minute": "number", "unpriced_endpoints": "integer",
    });
    let fields = |running: &Value| json!({ "endpoints": running, "totals": totals });
    list().document("endpoints", fields(&running));
    let status = rehearsal.ctxtune(["status", "out", "--json"]).expect(0).json();
    // That one costs more from moment to moment.
    let [status, list_again] = [status, list().json()].map(|mut document| {
        document["endpoints"][0]["dollars_so_far"].take();
        document["endpoints"].clone()
    });
    assert_eq!(status, list_again);

    let stop = || rehearsal.ctxtune(["endpoints", "stop", "contexts", "--json"]).expect(0);
    let stopped = |names: Value| {
        json!({
            "endpoint": "string", "endpoint_id": "string", "stopped": names, "removed": names, "left": [],
        })
    };
    stop().document("endpoints", stopped(json!(["string"])));
    stop().document("endpoints", stopped(json!([])));
    list().document("endpoints", fields(&json!([])));
}
