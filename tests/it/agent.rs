//! A run that W&B's own agent asked for: one budget for all, patience with OUT's lock, SIGTERM.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use ctxtune_engine::output::lock::OutputLock;
use ctxtune_pipeline::env;
use ctxtune_rehearsal::{Script, Seen, Stage};

use crate::support::{self, Outcome, Rehearsal};

fn scene() -> Rehearsal {
    let rehearsal = Rehearsal::with(Script { job_seconds: 0.2, verdict_seconds: 0.0, ..Script::default() });
    rehearsal.dir.corpus(10);
    rehearsal
}

/// `finetune` as the agent starts it.
fn agent_run(rehearsal: &Rehearsal, run: &str, flags: &[&str]) -> Command {
    let fixed = ["finetune", "--data-dir=corpus", "--output-dir=out", "--no-sync", "--wandb=off"];
    let mut command = rehearsal.command(fixed.iter().chain(flags));
    command.env(env::WANDB_SWEEP_ID, "sweep1").env(env::WANDB_RUN_ID, run).stdin(Stdio::null());
    command
}

/// What one run of this corpus is estimated at, in dollars.
fn estimate(rehearsal: &Rehearsal) -> f64 {
    let command = agent_run(rehearsal, "probe", &["--sweep-max-cost=100", "--n_epochs=1", "--json"]);
    let run = Outcome::of(command).expect(0);
    run.json()["price"]["estimated_dollars"].as_f64().unwrap()
}

#[test]
fn runs_of_a_sweep_share_one_budget() {
    let rehearsal = scene();
    let one = estimate(&rehearsal);
    // The probe has spent one of two.
    let cap = format!("--sweep-max-cost={}", 2.5 * one);
    let run =
        |name: &str, epochs: &str| Outcome::of(agent_run(&rehearsal, name, &[&cap, epochs, "--seed=42"]));
    run("second", "--n_epochs=1").expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 2);
    let refused = run("third", "--n_epochs=1").expect(9);
    assert!(refused.stderr.contains("the sweep has spent"), "{}", refused.stderr);
    assert_eq!(rehearsal.server.jobs_created(), 2);
    // A run that is repeated goes on, whatever is left.
    run("second", "--n_epochs=1").expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 2, "each run has its own job, once");
}

#[test]
fn a_cap_of_a_sweep_needs_the_agent() {
    let rehearsal = scene();
    let run = rehearsal.ctxtune(["finetune", "--data-dir=corpus", "--sweep-max-cost=3", "--json"]).expect(2);
    assert_eq!(run.json()["error"]["code"], "no_agent");
    assert!(rehearsal.server.seen().is_empty());
}

#[test]
fn a_run_waits_for_the_others_to_leave_the_directory() {
    let rehearsal = scene();
    std::fs::create_dir(rehearsal.dir.path("out")).unwrap();
    let lock = OutputLock::acquire(&rehearsal.dir.path("out")).unwrap();
    let mut command = agent_run(&rehearsal, "first", &["--sweep-max-cost=100"]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("Step 1")));
    drop(lock);
    let rest: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success(), "{rest:#?}");
    assert_eq!(rehearsal.server.jobs_created(), 1);
}

#[cfg(unix)]
#[test]
fn the_agents_sigterm_cancels_the_job_and_anybody_elses_does_not() {
    for (agent, cancelled) in [(true, 1), (false, 0)] {
        // The third look at the job comes from the monitor: the signal finds it watching.
        let (send, receive) = std::sync::mpsc::channel();
        let watch = move |stage: Stage, seen: &Seen| {
            if stage == Stage::Acted && seen.method == "GET" && seen.path.ends_with("/events") {
                let _ = send.send(());
            }
        };
        let script = Script { job_seconds: 1000.0, verdict_seconds: 0.0, ..Script::default() };
        let rehearsal = Rehearsal::watched(script, Arc::new(watch));
        rehearsal.dir.corpus(10);
        let flags: &[&str] = if agent { &["--sweep-max-cost=100"] } else { &["--yes"] };
        let mut command = agent_run(&rehearsal, "first", flags);
        if !agent {
            command.env_remove(env::WANDB_SWEEP_ID);
        }
        let child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        receive.recv().unwrap();
        support::signal(child.id(), "TERM");
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(143), "{said}");
        let is_cancel = |seen: &Seen| seen.method == "POST" && seen.path.ends_with("/cancel");
        let cancels = rehearsal.server.seen().iter().filter(|seen| is_cancel(seen)).count();
        assert_eq!(cancels, cancelled, "{said}");
        assert_eq!(said.contains("the agent ended this run"), agent, "{said}");
    }
}

#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_locked_at_all_is_not_waited_for() {
    let rehearsal = scene();
    // A directory in the place of the lock's file.
    std::fs::create_dir_all(rehearsal.dir.path("out").join(ctxtune_engine::output::lock::FILE_NAME)).unwrap();
    let run = Outcome::of(agent_run(&rehearsal, "first", &["--sweep-max-cost=100", "--json"])).expect(1);
    assert_eq!(run.json()["error"]["code"], "lock");
}
