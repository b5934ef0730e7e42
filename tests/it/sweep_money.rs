//! What a sweep may cost: quoted at the dearest, counted before it is billed, never above the cap.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use ctxtune_pipeline::env;
use ctxtune_rehearsal::faults::{Action, Side, When};
use ctxtune_rehearsal::{Prices, Script, Seen, Stage};
use serde_json::{Value, json};

use crate::service::{JOBS, faults, rule, status};
use crate::support::{self, Outcome, PATIENCE, Rehearsal, at_once};
use crate::sweep::{log_in, quick, sweep};

const ESTIMATES: &str = "POST /v1/fine-tunes/estimate-price$";

/// A server with this script, and a sweep over `n_epochs` and `lora_rank`.
fn scene(script: Script, method: &str, [epochs, ranks]: [&str; 2]) -> Rehearsal {
    with(Rehearsal::with(script), method, [epochs, ranks])
}

fn with(rehearsal: Rehearsal, method: &str, [epochs, ranks]: [&str; 2]) -> Rehearsal {
    rehearsal.dir.corpus(10);
    let text = format!(
        "method: {method}\nmetric: {{name: val/loss}}\nparameters:\n  n_epochs: {epochs}\n  lora_rank: {ranks}\n"
    );
    rehearsal.dir.write("sweep.yaml", text);
    rehearsal
}

fn by_wandb(rehearsal: &Rehearsal, flags: &[&str]) -> Command {
    let mut command = sweep(rehearsal, flags);
    log_in(rehearsal, &mut command);
    command
}

/// What a refused sweep was estimated at, in dollars and cents.
fn quote(command: Command) -> f64 {
    let refused = Outcome::of(command).expect(9);
    assert_eq!(refused.json()["error"]["code"], "over_max_cost", "{}", refused.stderr);
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    let amount = message.split('$').nth(1).unwrap();
    amount[..amount.find(',').unwrap()].parse().unwrap()
}

/// What the service estimates for a job of so many epochs and this rank, with one evaluation an epoch.
fn estimate(rehearsal: &Rehearsal, epochs: u64, rank: u64) -> f64 {
    let file = |name: &str| {
        let files = rehearsal.files();
        let file = files.iter().find(|file| file["filename"].as_str().unwrap().contains(name)).unwrap();
        file["id"].clone()
    };
    let training_type = json!({
        "type": "Lora", "lora_r": rank, "lora_alpha": 16, "lora_dropout": 0.0, "lora_trainable_modules": "all-linear",
    });
    let body = json!({
        "training_file": file("train"), "validation_file": file("val"), "n_epochs": epochs, "n_evals": epochs,
        "training_method": { "method": "sft", "train_on_inputs": "auto" }, "training_type": training_type,
        "model": "meta-llama/Meta-Llama-3.1-8B-Instruct-Reference",
    });
    rehearsal.ask("POST /v1/fine-tunes/estimate-price", Some(&body))["estimated_total_price"]
        .as_f64()
        .unwrap()
}

#[test]
fn a_quote_is_the_dearest_that_wandb_could_choose_for_every_run() {
    for seed in 0..3 {
        let script = Script { prices: Prices::Random(seed), ..quick() };
        let rehearsal = scene(script, "random", ["{values: [1, 20]}", "{values: [32, 64]}"]);
        rehearsal.server.set_script(|script| script.faults.seed = seed);
        let mut dearest = 0.0;
        for count in 2..=5 {
            let quote = quote(by_wandb(&rehearsal, &["--max-cost=0", "--json", &format!("--count={count}")]));
            let all = [(1, 32), (1, 64), (20, 32), (20, 64)];
            dearest =
                all.map(|(epochs, rank)| estimate(&rehearsal, epochs, rank)).into_iter().fold(0.0, f64::max);
            assert!((quote - f64::from(count) * dearest).abs() < 0.005, "{quote}: {count} times {dearest}");
        }
        let run =
            Outcome::of(by_wandb(&rehearsal, &["--yes", "--count=4", "--parallel=2", "--json"])).expect(0);
        assert_eq!(run.json()["quoted_dollars"].as_f64().unwrap(), 4.0 * dearest);
        assert!(rehearsal.server.billed_dollars() <= 4.0 * dearest);
    }
}

#[test]
fn every_distinct_estimate_is_asked_for_once() {
    let script = Script { prices: Prices::Random(1), ..quick() };
    let rehearsal = scene(script, "random", ["{min: 1, max: 4}", "{values: [8, 16, 16]}"]);
    Outcome::of(by_wandb(&rehearsal, &["--max-cost=1000", "--count=5", "--parallel=3"])).expect(0);
    let bodies: Vec<Vec<u8>> = rehearsal.requests(ESTIMATES).into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies.len(), 8, "suggestions are among what was priced");
    assert_eq!(bodies.iter().collect::<BTreeSet<_>>().len(), 8);
}

#[test]
fn a_space_with_too_many_estimates_has_no_price_that_a_cap_could_hold() {
    let ranks: Vec<u64> = (8..18).collect();
    let spaces = [
        // 20 times 10 are 200, and one rank more is too many.
        (["{min: 1, max: 20}".to_owned(), format!("{{values: {ranks:?}}}")], 200),
        (["{min: 1, max: 20}".to_owned(), "{min: 8, max: 18}".to_owned()], 0),
        (["{value: 1}".to_owned(), "{value: 8}\n  lora_dropout: {min: 0.0, max: 0.5}".to_owned()], 0),
    ];
    for ([epochs, ranks], asked) in spaces {
        let rehearsal = scene(quick(), "random", [&epochs, &ranks]);
        let refused = Outcome::of(by_wandb(&rehearsal, &["--count=2", "--max-cost=0", "--json"])).expect(9);
        let code = if asked > 0 { "over_max_cost" } else { "no_estimate" };
        assert_eq!(refused.json()["error"]["code"], code, "{}", refused.stderr);
        assert_eq!(rehearsal.requests(ESTIMATES).len(), asked);
        if asked == 0 {
            let refused =
                Outcome::of(by_wandb(&rehearsal, &["--count=2", "--max-cost=1e9", "--yes"])).expect(9);
            assert!(refused.stderr.contains("200"), "{}", refused.stderr);
            assert_eq!(rehearsal.server.jobs_created(), 0);
            let run = Outcome::of(by_wandb(&rehearsal, &["--count=2", "--yes", "--json"])).expect(0);
            assert_eq!(run.json()["quoted_dollars"], Value::Null);
            assert_eq!(rehearsal.server.jobs_created(), 2);
        }
    }
}

#[test]
fn more_runs_of_our_own_than_are_priced_have_no_known_price() {
    let dropout = "{value: 8}\n  lora_dropout: {min: 0.0, max: 0.5}";
    let rehearsal = scene(quick(), "random", ["{value: 1}", dropout]);
    let asked = |count: u64| {
        let refused =
            Outcome::of(sweep(&rehearsal, &["--max-cost=0", "--json", &format!("--count={count}")]));
        let code = refused.expect(9).json()["error"]["code"].clone();
        (code, rehearsal.requests(ESTIMATES).len())
    };
    assert_eq!(asked(201), (json!("no_estimate"), 0));
    assert_eq!(asked(200), (json!("over_max_cost"), 200));
    Outcome::of(sweep(&rehearsal, &["--yes", "--count=10001"])).expect(2);
    Outcome::of(sweep(&rehearsal, &["--yes", "--count=0"])).expect(2);
}

#[test]
fn equal_draws_of_our_own_are_one_job_and_those_of_wandb_are_not() {
    let one = ["{values: [1, 1]}", "{value: 32}"];
    let rehearsal = scene(quick(), "random", one);
    let plan = Outcome::of(sweep(&rehearsal, &["--count=3", "--dry-run"])).expect(0);
    assert_eq!(plan.stdout.lines().count(), 1);
    let run =
        Outcome::of(sweep(&rehearsal, &["--count=3", "--parallel=3", "--yes", "--json"])).expect(0).json();
    assert_eq!((run["runs"].as_array().unwrap().len(), rehearsal.server.jobs_created()), (1, 1));
    assert_eq!(run["quoted_dollars"].as_f64().unwrap(), estimate(&rehearsal, 1, 32));
    let rehearsal = scene(quick(), "random", one);
    Outcome::of(by_wandb(&rehearsal, &["--count=3", "--parallel=3", "--yes"])).expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 3);
    // The same job by other words: a name that stands for another one.
    let seed = "meta-llama/Meta-Llama-3.1-8B-Instruct";
    let names = format!("{{value: 8}}\n  base_model: {{values: [{seed}, {seed}-Reference]}}");
    let rehearsal = scene(quick(), "grid", ["{value: 1}", &names]);
    Outcome::of(sweep(&rehearsal, &["--parallel=2", "--yes"])).expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 1);
}

#[test]
fn another_count_adds_runs_or_leaves_out_what_was_not_started() {
    let rehearsal = scene(quick(), "grid", ["{values: [1, 2, 3, 4]}", "{value: 32}"]);
    rehearsal.fail([rule(&format!("POST {JOBS}"), When::Nth(vec![2]), status(400))]);
    Outcome::of(sweep(&rehearsal, &["--yes"])).expect(1);
    assert_eq!(rehearsal.server.jobs_created(), 1);
    let run = Outcome::of(sweep(&rehearsal, &["--yes", "--count=2", "--json"])).expect(0);
    assert_eq!((run.json()["runs"].as_array().unwrap().len(), rehearsal.server.jobs_created()), (2, 2));
    Outcome::of(sweep(&rehearsal, &["--yes", "--count=3"])).expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 3);
}

#[test]
fn other_draws_of_the_same_sweep_are_not_more_runs_than_its_count() {
    let rehearsal = scene(quick(), "random", ["{min: 1, max: 20}", "{min: 8, max: 64}"]);
    for _ in 0..2 {
        for seed in ["--sweep-seed=1", "--sweep-seed=2"] {
            Outcome::of(sweep(&rehearsal, &["--yes", "--count=2", seed])).expect(0);
            assert_eq!(rehearsal.server.jobs_created(), 2);
        }
    }
}

#[test]
fn two_processes_do_not_run_the_same_sweep_at_once() {
    let script = Script { job_seconds: 1000.0, ..quick() };
    let rehearsal = scene(script, "grid", ["{values: [1, 2]}", "{value: 32}"]);
    let mut command = sweep(&rehearsal, &["--yes"]);
    let mut first = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // It watches its first job, and has left the output directory to others.
    let is_watched = |seen: &Seen| seen.path.ends_with("/events");
    support::wait_until(&mut first, || rehearsal.server.seen().iter().any(is_watched));
    let second = Outcome::of(sweep(&rehearsal, &["--yes", "--json"])).expect(1).json();
    assert_eq!(second["error"]["code"], "locked");
    assert!(second["error"]["message"].as_str().unwrap().contains("out/sweeps"), "{second}");
    // Another sweep over the same data is not kept out.
    let text = rehearsal.dir.read("sweep.yaml").replace("[1, 2]", "[3]");
    rehearsal.dir.write("sweep.yaml", text);
    let refused = Outcome::of(sweep(&rehearsal, &["--max-cost=0", "--json"])).expect(9);
    assert_eq!(refused.json()["error"]["code"], "over_max_cost");
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_late_answer_to_one_creation_does_not_hold_up_the_other_runs() {
    // The first creation is answered when the second one has arrived, or never.
    let arrived = Arc::new((Mutex::new(0), Condvar::new()));
    let met = Arc::new(AtomicBool::new(false));
    let (place, is_met) = (Arc::clone(&arrived), Arc::clone(&met));
    let watch = move |stage: Stage, seen: &Seen| {
        if seen.method != "POST" || seen.path != "/v1/fine-tunes" || stage != Stage::Received {
            return;
        }
        let (count, changed) = &*place;
        let mut count = count.lock().unwrap();
        *count += 1;
        changed.notify_all();
        if *count == 1 {
            let waited = changed.wait_timeout_while(count, PATIENCE, |count| *count < 2).unwrap();
            is_met.store(*waited.0 == 2, Ordering::SeqCst);
        }
    };
    let rehearsal = Rehearsal::watched(quick(), Arc::new(watch));
    let rehearsal = with(rehearsal, "grid", ["{values: [1, 2]}", "{value: 32}"]);
    Outcome::of(sweep(&rehearsal, &["--yes", "--parallel=2"])).expect(0);
    assert!(met.load(Ordering::SeqCst));
    assert_eq!(rehearsal.server.jobs_created(), 2);
}

#[test]
fn the_grace_of_a_lost_answer_does_not_hold_up_the_other_runs() {
    let rehearsal = scene(quick(), "grid", ["{values: [1, 2]}", "{value: 32}"]);
    // It is not listed while the run waits, so that its outcome stays open.
    rehearsal.server.set_script(|script| script.listing_seconds = 1000.0);
    rehearsal.fail([rule(&format!("POST {JOBS}"), When::Nth(vec![1]), Action::LoseReply)]);
    let mut command = sweep(&rehearsal, &["--yes", "--parallel=2", "--json"]);
    // 5 seconds of this machine.
    command.env(env::CTXTUNE_GRACE_SECONDS, "250");
    let run = Outcome::of(command).expect(5).json();
    let mut states: Vec<&str> =
        run["runs"].as_array().unwrap().iter().map(|run| run["status"].as_str().unwrap()).collect();
    states.sort_unstable();
    assert_eq!(states, ["completed", "intended"]);
    // What may exist is counted.
    let total = estimate(&rehearsal, 1, 32) + estimate(&rehearsal, 2, 32);
    assert!((run["spent_dollars"].as_f64().unwrap() - total).abs() < 1e-9, "{run}");
    rehearsal.server.set_script(|script| script.listing_seconds = 0.0);
    Outcome::of(sweep(&rehearsal, &["--yes"])).expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 2);
}

#[test]
fn what_was_started_at_a_price_that_is_not_known_leaves_no_room_under_a_cap() {
    let rehearsal = scene(quick(), "grid", ["{values: [1, 2]}", "{value: 32}"]);
    let lost = rule(&format!("POST {JOBS}"), When::Nth(vec![1]), Action::Reset(Side::Before));
    let unknown = rule(ESTIMATES, When::Always, Action::Body(r#"{"estimated_total_price":-1}"#.to_owned()));
    rehearsal.fail([lost, unknown.clone()]);
    let mut command = sweep(&rehearsal, &["--yes"]);
    command.env(env::CTXTUNE_GRACE_SECONDS, "0.05");
    Outcome::of(command).expect(5);
    rehearsal.fail([unknown]);
    let refused = Outcome::of(sweep(&rehearsal, &["--max-cost=1e9", "--json"])).expect(9);
    assert_eq!(refused.json()["error"]["code"], "no_estimate");
    assert_eq!(rehearsal.server.jobs_created(), 0);
}

/// Numbers of a seed, each from 0 to below `bound`.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

const CASES: u64 = 10;

#[test]
fn whatever_is_lost_or_late_no_sweep_costs_more_than_its_quote_or_its_cap() {
    at_once(0..CASES, |case| {
        let mut dice = Dice(case * 7919 + 1);
        dice.below(2);
        let script = Script {
            job_seconds: 0.1,
            prices: Prices::Random(case),
            listing_seconds: dice.of(&[0.0, 0.0, 0.2]),
            ..quick()
        };
        let epochs =
            dice.of(&["{values: [1, 20]}", "{values: [3, 1, 2, 3]}", "{min: 1, max: 6}", "{value: 4}"]);
        let ranks = dice.of(&["{values: [32, 64]}", "{values: [8, 16, 64]}", "{value: 16}"]);
        let method = dice.of(&["grid", "random", "bayes"]);
        let is_by_wandb = method == "bayes" || dice.below(2) == 0;
        let (count, parallel) = (2 + dice.below(4), 1 + dice.below(4));
        let rehearsal = scene(script, method, [epochs, ranks]);
        let what = format!(
            "case {case}: {method} {epochs} {ranks} {count} runs, {parallel} at a time, {is_by_wandb}"
        );
        let run = |cap: f64| {
            let (cap, count, parallel) =
                (format!("--max-cost={cap}"), format!("--count={count}"), format!("--parallel={parallel}"));
            let flags = [cap.as_str(), &count, &parallel, "--json"];
            let mut command =
                if is_by_wandb { by_wandb(&rehearsal, &flags) } else { sweep(&rehearsal, &flags) };
            // 0.4 seconds of this machine: a job is listed before they are over.
            command.env(env::CTXTUNE_GRACE_SECONDS, "20");
            command
        };
        let quoted = quote(run(0.0));
        quote(run(quoted * 0.9));
        assert_eq!(rehearsal.server.jobs_created(), 0, "{what}");
        let action = dice.of(&[0, 1, 2, 3, 4]);
        let actions = [
            Action::LoseReply,
            Action::Hang(0.2),
            Action::Status { status: 503, headers: Vec::new(), body: String::new(), side: Side::After },
            Action::Reset(Side::After),
            Action::Reset(Side::Before),
        ];
        let mut broken = faults([rule(&format!("POST {JOBS}"), When::Rate(0.5), actions[action].clone())]);
        broken.seed = case;
        rehearsal.server.set_script(|script| script.faults = broken);
        // Half a cent for the quote that is shown.
        let cap = quoted + 0.005;
        let mut tries = 0;
        loop {
            let outcome = Outcome::of(run(cap));
            let billed = rehearsal.server.billed_dollars();
            assert!(billed <= cap, "{what}: ${billed} under --max-cost {cap}\n{}", outcome.stderr);
            if outcome.code == Some(0) {
                let document = outcome.json();
                let of = |key: &str| document[key].as_f64().unwrap();
                assert!(
                    of("quoted_dollars") + 1e-6 >= billed && of("spent_dollars") + 1e-6 >= billed,
                    "{what}"
                );
                assert!(rehearsal.server.jobs_created() as u64 <= count, "{what}");
                assert!(
                    outcome.stderr.matches("not started").count() == 0 || method == "grid",
                    "{}",
                    outcome.stderr
                );
                break;
            }
            let outcome = outcome.expect(5);
            tries += 1;
            assert!(tries < 9, "{what}\n{}", outcome.stderr);
            if tries == 5 {
                rehearsal.server.set_script(|script| script.faults = faults([]));
            }
        }
        assert!(rehearsal.server.violations().is_empty(), "{:?}", rehearsal.server.violations());
    });
}

#[cfg(unix)]
#[test]
fn a_suggestion_that_did_not_arrive_is_looked_up_and_begun_once() {
    for lost in 1..=3 {
        // The answer with the suggestion of this number never arrives.
        let child: Arc<Mutex<Option<u32>>> = Arc::default();
        let (process, suggested) = (Arc::clone(&child), AtomicUsize::new(0));
        let watch = move |stage: Stage, seen: &Seen| {
            let is_asked = String::from_utf8_lossy(&seen.body).contains("AgentHeartbeat");
            if stage == Stage::Acted && is_asked && suggested.fetch_add(1, Ordering::SeqCst) + 1 == lost {
                support::signal(process.lock().unwrap().unwrap(), "KILL");
            }
        };
        let rehearsal = Rehearsal::watched(quick(), Arc::new(watch));
        let rehearsal = with(rehearsal, "random", ["{min: 1, max: 6}", "{values: [8, 16]}"]);
        let command = || by_wandb(&rehearsal, &["--max-cost=100", "--count=3", "--json"]);
        let mut started = {
            let mut slot = child.lock().unwrap();
            let started = command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            *slot = Some(started.id());
            started
        };
        assert!(!started.wait().unwrap().success());
        let pending =
            |state: &str| rehearsal.server.wandb_runs().iter().filter(|run| run.state == state).count();
        assert_eq!(pending("pending"), 1);
        for _ in 0..2 {
            let run = Outcome::of(command()).expect(0).json();
            assert_eq!(run["runs"].as_array().unwrap().len(), 3);
            assert_eq!((rehearsal.server.jobs_created(), pending("finished"), pending("pending")), (3, 3, 0));
        }
        // Each run of W&B has the values and the job of one of ours.
        let jobs: BTreeSet<String> = rehearsal
            .server
            .wandb_runs()
            .iter()
            .map(|run| run.config["job_id"]["value"].to_string())
            .collect();
        assert_eq!(jobs.len(), 3);
        assert!(rehearsal.server.violations().is_empty(), "{:?}", rehearsal.server.violations());
    }
}

#[test]
fn a_pending_run_without_its_values_or_beyond_the_count_is_not_begun() {
    let rehearsal = scene(quick(), "random", ["{values: [1, 2]}", "{value: 16}"]);
    Outcome::of(by_wandb(&rehearsal, &["--yes", "--count=2"])).expect(0);
    let sweep = rehearsal.server.wandb_sweeps().remove(0);
    let (name, project) = (&sweep.name, &sweep.project);
    let runs = || rehearsal.server.wandb_runs().into_iter().map(|run| run.state).collect::<Vec<_>>();
    // Another client's run of this sweep, which says nothing of its values.
    rehearsal.graphql(&format!(
        r#"mutation {{ upsertBucket(input: {{ name: "strange", modelName: "{project}", sweep: "{name}", state: "pending" }}) {{ inserted }} }}"#
    ));
    assert_eq!(runs(), ["finished", "finished", "pending"]);
    let full = Outcome::of(by_wandb(&rehearsal, &["--yes", "--count=2"])).expect(0);
    assert!(!full.stderr.contains("strange"), "{}", full.stderr);
    let more = Outcome::of(by_wandb(&rehearsal, &["--yes", "--count=3"])).expect(0);
    assert!(more.stderr.contains("the run strange"), "{}", more.stderr);
    assert_eq!((rehearsal.server.jobs_created(), runs()[2].as_str()), (2, "pending"));
}
