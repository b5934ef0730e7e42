//! `rehearse` as somebody without an account runs it: it ends well, and touches nothing outside.

use std::process::Command;
use std::time::{Duration, Instant};

use ctxtune_pipeline::env;

use crate::service::Stranger;
use crate::support::{Dir, Outcome, skip};

/// The program in an environment full of what it must not use: a key, a place to send it, proxies.
fn rehearse(dir: &Dir, stranger: &Stranger, arguments: &[&str]) -> Command {
    let mut command = dir.command(["rehearse"].iter().chain(arguments));
    dir.write(".env", format!("TOGETHER_API_KEY={REAL_KEY}\nTOGETHER_BASE_URL={}\n", stranger.url));
    dir.write("home/.netrc", format!("machine api.wandb.ai login user password {REAL_KEY}\n"));
    for name in env::PROXIES.iter().chain(&["HTTP_PROXY"]) {
        command.env(name, &stranger.url).env(name.to_lowercase(), &stranger.url);
    }
    for name in [env::NO_PROXY, env::CTXTUNE_TIME_SCALE, env::SSL_CERT_FILE] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env(env::TOGETHER_API_KEY, REAL_KEY).env(env::TOGETHER_BASE_URL, &stranger.url);
    command
        .env(env::WANDB_API_KEY, REAL_KEY)
        .env(env::HOME, dir.path("home"))
        .env_remove(env::XDG_STATE_HOME);
    command
}

const REAL_KEY: &str = "tgp_v1_a-real-one-0123456789";

const BANNER: &str = "REHEARSAL";

#[track_caller]
fn check(run: Outcome, dir: &Dir, stranger: &Stranger) -> Outcome {
    let run = run.expect(0);
    assert_eq!(stranger.heard(), "");
    assert!(run.stdout.starts_with("rehearsal/"), "{}", run.stdout);
    let said = run.stdout.clone() + &run.stderr;
    assert!(!said.contains(REAL_KEY), "{said}");
    // Every screen: before the first step, at each step, and at the end.
    let steps: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with("Step ")).collect();
    assert_eq!(steps.len(), 5, "{}", run.stderr);
    assert!(steps.iter().all(|step| step.contains(BANNER)), "{steps:?}");
    assert!(run.stderr.matches(BANNER).count() >= 7, "{}", run.stderr);
    assert!(run.stderr.trim_end().lines().last().unwrap().contains(BANNER), "{}", run.stderr);
    for left in ["home/.local", "training", "state"] {
        assert!(!dir.exists(left), "{left}");
    }
    run
}

#[test]
fn it_ends_well_and_soon_whatever_the_environment_holds() {
    let (dir, stranger) = (Dir::new(), Stranger::new());
    let start = Instant::now();
    let run = Outcome::of(rehearse(&dir, &stranger, &[]));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    check(run, &dir, &stranger);
    let names: Vec<String> = dir.tree("").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [".env", "home/.netrc"]);
}

#[test]
fn it_ends_with_a_context_and_the_scores_of_the_tuned_model_and_its_base() {
    let (dir, stranger) = (Dir::new(), Stranger::new());
    for (flags, base, for_real) in [
        (&[][..], "meta-llama/Meta-Llama-3.1-8B-Instruct", "`ctxtune download JOB --adapter --extract DIR`"),
        (&["--config-path=config.yaml"], "Qwen/Qwen3-8B", "`ctxtune deploy JOB --name EP`"),
    ] {
        dir.write("config.yaml", "base_model: Qwen/Qwen3-8B\n");
        let flags = [&["-o", "kept", "--job-seconds=0.5"], flags].concat();
        let run = check(Outcome::of(rehearse(&dir, &stranger, &flags)), &dir, &stranger);
        let (_, end) = run.stderr.split_once("Step 5: Using the tuned model").unwrap();
        let tuned = run.stdout.trim_end();
        for said in [
            for_real,
            "story     Nora and Ben are unpacking the shopping in the kitchen.",
            "{\"agents_names\": [\"Nora\",\"Ben\"], \"socialized_context\": [\n  {\"timestep\":\"0\"",
            &format!("generated A = {base}: 3 of 3 valid"),
            &format!("generated B = {tuned}: 3 of 3 valid"),
        ] {
            assert!(end.contains(said), "{said}: {end}");
        }
        let overall = end.lines().find(|line| line.starts_with("overall ")).unwrap();
        let scores: Vec<f64> = overall.split(' ').filter_map(|word| word.parse().ok()).take(2).collect();
        assert!(0.0 < scores[0] && scores[0] < scores[1], "{overall}");
    }
}

#[test]
fn a_model_that_cannot_be_used_is_said_after_the_one_document() {
    let (dir, stranger) = (Dir::new(), Stranger::new());
    dir.write("faults.yaml", "rules:\n  - { path: /v1/chat/completions, every: 1, do: { status: 403 } }\n");
    let flags = ["--faults=faults.yaml", "--job-seconds=0.5", "--json"];
    let run = Outcome::of(rehearse(&dir, &stranger, &flags)).expect(4);
    assert_eq!(run.json()["status"], "completed");
    assert!(
        run.stderr.contains("warning: the tuned model could not be used: 3 stories are left"),
        "{}",
        run.stderr
    );
}

#[test]
fn ones_own_records_are_rehearsed_and_kept_with_their_picture() {
    let (dir, stranger) = (Dir::new(), Stranger::new());
    dir.corpus(12);
    let flags = ["corpus", "-o", "kept", "--svg=curve.svg", "--job-seconds=1"];
    check(Outcome::of(rehearse(&dir, &stranger, &flags)), &dir, &stranger);
    assert!(dir.result("kept", &[]).is_some() && dir.read("curve.svg").starts_with("<svg"));
    // The real pipeline takes nothing that was rehearsed for its own: another origin.
    assert!(dir.read("kept/uploads.json").contains("http://127.0.0.1:"));
}

#[test]
fn faults_that_pass_change_nothing_in_the_end() {
    let (dir, stranger) = (Dir::new(), Stranger::new());
    dir.write(
        "faults.yaml",
        "rules:\n  - { method: POST, path: /v1/fine-tunes$, nth: [1], do: { status: 429 } }\n\
         \x20 - { path: /v1/fine-tunes/ft-, every: 3, do: { status: 503 } }\n\
         \x20 - { method: PUT, path: /storage, nth: [1], do: { reset_after_percent: 50 } }\n",
    );
    let run = Outcome::of(rehearse(&dir, &stranger, &["--faults=faults.yaml", "--job-seconds=1"]));
    let run = check(run, &dir, &stranger);
    assert!(run.stderr.contains("uploading train.jsonl failed"), "{}", run.stderr);
}

/// Every address that is connected to, bound, or sent to in a log of `strace`.
fn addresses(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("AF_INET")).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn it_opens_no_socket_beyond_the_loopback_and_no_file_with_keys() {
    let (dir, stranger) = (Dir::new(), Stranger::new());
    let inner = rehearse(&dir, &stranger, &["--job-seconds=1"]);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "strace.log", "--trace=%network,open,openat,openat2"]);
    strace.arg(inner.get_program()).args(inner.get_args()).current_dir(dir.path(""));
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    let Ok(run) = strace.output() else { return skip("strace", "strace is not here") };
    let log = std::fs::read_to_string(dir.path("strace.log")).unwrap_or_default();
    if !log.contains("openat") {
        return skip("strace", "strace may not trace");
    }
    Outcome::from(run).expect(0);
    let beyond: Vec<&str> = addresses(&log)
        .into_iter()
        .filter(|line| {
            let is_made = line.contains("socket(");
            !is_made && !line.contains("\"127.0.0.1\"")
        })
        .collect();
    assert_eq!(beyond, Vec::<&str>::new());
    assert!(!addresses(&log).is_empty());
    assert_eq!(stranger.heard(), "");
    for name in [".env", ".netrc", "resolv.conf"] {
        assert!(!log.contains(&format!("{name}\"")), "{name} was opened");
    }
}
