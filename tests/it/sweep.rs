//! Sweeps by this program: with values of its own and with W&B's, within one cap, once.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ctxtune_pipeline::env;
use ctxtune_rehearsal::faults::{Action, Rule, Side, When};
use ctxtune_rehearsal::{Script, Seen, Stage, WANDB_KEY};
use serde_json::{Value, json};

use crate::support::{self, Outcome, Rehearsal};

/// The seed's sweep with fewer values, its rank list cut to the model's cap.
const SWEEP: &str = "program: training/finetune_socialized_context.py
method: METHOD
metric:
  name: val/loss
  goal: minimize
parameters:
  learning_rate:
    values: [1e-6, 5e-5]
  n_epochs:
    values: [2, 3]
  lora_rank:
    values: [32]
";

/// Jobs that take no time.
pub fn quick() -> Script {
    Script { job_seconds: 0.2, verdict_seconds: 0.0, ..Script::default() }
}

fn scene(method: &str) -> Rehearsal {
    with(method, Rehearsal::with(quick()))
}

fn with(method: &str, rehearsal: Rehearsal) -> Rehearsal {
    rehearsal.dir.corpus(10);
    rehearsal.dir.write("sweep.yaml", SWEEP.replace("METHOD", method));
    rehearsal
}

/// `sweep run sweep.yaml` over the corpus, as nobody at a terminal runs it.
pub fn sweep(rehearsal: &Rehearsal, flags: &[&str]) -> Command {
    let fixed = ["sweep", "run", "sweep.yaml", "--data-dir=corpus", "--output-dir=out", "--no-sync"];
    let mut command = rehearsal.command(fixed.iter().chain(flags));
    command.env("NETRC", "/nonexistent").stdin(Stdio::null());
    command
}

fn run(rehearsal: &Rehearsal, flags: &[&str]) -> Outcome {
    Outcome::of(sweep(rehearsal, flags))
}

fn with_wandb(rehearsal: &Rehearsal, flags: &[&str]) -> Outcome {
    let mut command = sweep(rehearsal, flags);
    log_in(rehearsal, &mut command);
    Outcome::of(command)
}

/// Gives the command the key of the server's W&B, which then chooses the values.
pub fn log_in(rehearsal: &Rehearsal, command: &mut Command) {
    command.env(env::WANDB_API_KEY, WANDB_KEY).env(env::WANDB_BASE_URL, rehearsal.server.url());
}

/// What all four runs are estimated at together.
fn total(rehearsal: &Rehearsal) -> f64 {
    let refused = run(rehearsal, &["--max-cost=0", "--json"]).expect(9);
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    let amount = message.split('$').nth(1).unwrap();
    amount[..amount.find(',').unwrap()].parse().unwrap()
}

#[test]
fn jobs_that_run_beside_a_sweep_are_named_before_consent() {
    let rehearsal = with("grid", Rehearsal::with(Script { job_seconds: 1000.0, ..quick() }));
    let none = run(&rehearsal, &["--max-cost=0"]).expect(9);
    assert!(!none.stderr.contains("running job"), "{}", none.stderr);
    // How long each run may take is said before the question.
    let time = "each run, at most 1 at a time:\ntime      5m to 30m in the queue, then 2h to 4h for 3 epochs";
    assert!(none.stderr.contains(time), "{}", none.stderr);
    let submit = ["submit", "out", "--yes", "--json", "--n-epochs=1"];
    let job = rehearsal.ctxtune(submit).expect(0).json()["job"].as_str().unwrap().to_owned();
    let refused = run(&rehearsal, &["--max-cost=0"]).expect(9);
    let said = format!("1 running job with other parameters: {job}, ~$");
    assert!(refused.stderr.contains(&said), "{}", refused.stderr);
}

#[test]
fn what_the_runs_of_a_sweep_were_estimated_at_is_kept() {
    let rehearsal = scene("grid");
    let document = run(&rehearsal, &["--yes", "--json"]).expect(0).json();
    for trial in document["runs"].as_array().unwrap() {
        let kept = rehearsal.ledgers().into_iter().find(|run| run["job"] == trial["job"]).unwrap();
        assert_eq!(kept["estimated_dollars"], trial["estimated_dollars"], "{trial}");
    }
}

#[test]
fn a_grid_runs_to_a_ranked_table_with_one_job_a_combination() {
    let rehearsal = scene("grid");
    let outcome = run(&rehearsal, &["--yes", "--parallel=2", "--svg=curves.svg", "--json"]).expect(0);
    let document = outcome.document("sweep", json!({
        "sweep": "string", "name": "null", "metric": "string", "quoted_dollars": "number",
        "spent_dollars": "number",
        "runs": [{
            "run": "integer", "rank": "integer",
            "parameters": { "learning_rate": "number", "n_epochs": "integer", "lora_rank": "integer" },
            "job": "string", "status": "string", "value": "number", "step": "integer",
            "last": { "step": "integer", "value": "number" }, "best": { "step": "integer", "value": "number" },
            "estimated_dollars": "number", "price_dollars": "number", "model": "string",
        }],
    }));
    let runs = document["runs"].as_array().unwrap();
    assert_eq!((runs.len(), rehearsal.server.jobs_created()), (4, 4));
    let ranks: BTreeSet<u64> = runs.iter().map(|run| run["rank"].as_u64().unwrap()).collect();
    assert_eq!(ranks, (1..=4).collect());
    let by_rank = |rank: u64| runs.iter().find(|run| run["rank"] == rank).unwrap()["value"].as_f64().unwrap();
    assert!(by_rank(1) <= by_rank(2) && by_rank(2) <= by_rank(3) && by_rank(3) <= by_rank(4));
    assert!(rehearsal.dir.read("curves.svg").contains("<polyline"));
    assert!(rehearsal.server.violations().is_empty(), "{:?}", rehearsal.server.violations());
    // Again: everything is there.
    let again = run(&rehearsal, &["--yes"]).expect(0);
    assert!(again.stdout.starts_with("rehearsal/"), "{}", again.stdout);
    assert_eq!(rehearsal.server.jobs_created(), 4);
}

#[test]
fn a_plan_above_the_cap_starts_nothing() {
    let rehearsal = scene("grid");
    assert!(total(&rehearsal) > 0.0);
    assert_eq!(rehearsal.server.jobs_created(), 0);
    run(&rehearsal, &["--max-cost=100"]).expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 4);
}

#[test]
fn nobody_is_asked_nothing_is_sent_without_consent() {
    let rehearsal = scene("grid");
    run(&rehearsal, &[]).expect(9);
    run(&rehearsal, &["--dry-run"]).expect(0);
    assert!(rehearsal.server.seen().is_empty());
}

#[test]
fn a_value_over_the_cap_of_the_model_is_refused_before_anything_is_uploaded() {
    let rehearsal = scene("grid");
    rehearsal.dir.write("sweep.yaml", SWEEP.replace("METHOD", "grid").replace("[32]", "[32, 64, 128]"));
    let refused = run(&rehearsal, &["--yes"]).expect(2);
    assert!(refused.stderr.contains("`lora_rank` must be between 1 and 64, got 128"), "{}", refused.stderr);
    rehearsal.dir.write("sweep.yaml", SWEEP.replace("METHOD", "grid").replace("lora_rank", "lora_rnk"));
    let refused = run(&rehearsal, &["--yes"]).expect(2);
    assert!(refused.stderr.contains("did you mean `lora_rank`"), "{}", refused.stderr);
    assert!(!rehearsal.server.seen().iter().any(|seen| seen.path.starts_with("/v1/files")));
}

#[test]
fn methods_without_an_end_need_a_count_and_bayes_needs_wandb() {
    let rehearsal = scene("random");
    assert!(run(&rehearsal, &["--yes"]).expect(2).stderr.contains("--count"));
    run(&rehearsal, &["--yes", "--count=2"]).expect(0);
    let rehearsal = scene("bayes");
    assert!(run(&rehearsal, &["--yes", "--count=2"]).expect(2).stderr.contains("W&B"));
    assert!(with_wandb(&rehearsal, &["--yes"]).expect(2).stderr.contains("--count"));
    assert_eq!(rehearsal.server.jobs_created(), 0);
}

#[test]
fn a_refused_creation_stops_the_sweep_and_a_second_run_goes_on() {
    let rehearsal = scene("grid");
    let (headers, body) = (Vec::new(), String::new());
    let refuse = Rule {
        method: Some("POST".to_owned()),
        path: "/v1/fine-tunes$".to_owned(),
        when: When::Nth(vec![2]),
        times: None,
        action: Action::Status { status: 400, headers, body, side: Side::Before },
    };
    rehearsal.server.set_script(|script| script.faults.rules.push(refuse));
    run(&rehearsal, &["--yes"]).expect(1);
    assert_eq!(rehearsal.server.jobs_created(), 1);
    run(&rehearsal, &["--yes"]).expect(0);
    assert_eq!(rehearsal.server.jobs_created(), 4);
}

/// A sweep file with these lines before the seed's, and this method.
fn write_sweep(rehearsal: &Rehearsal, method: &str, lines: &str) {
    rehearsal.dir.write("sweep.yaml", format!("{lines}{}", SWEEP.replace("METHOD", method)));
}

#[test]
fn what_a_file_says_and_is_not_carried_out_is_refused_before_anything_is_sent() {
    let rehearsal = scene("grid");
    let check = |text: &str, named: &str| {
        rehearsal.dir.write("sweep.yaml", text);
        for flags in [&["--yes", "--count=2", "--json"][..], &["--dry-run", "--count=2", "--json"]] {
            for run in [run(&rehearsal, flags), with_wandb(&rehearsal, flags)] {
                let run = run.expect(2);
                assert_eq!(run.json()["error"]["code"], "sweep_file");
                assert!(run.json()["error"]["message"].as_str().unwrap().contains(named), "{}", run.stdout);
            }
        }
    };
    let before = |line: &str| format!("{line}\n{}", SWEEP.replace("METHOD", "random"));
    check(&before("early_terminate: {type: hyperband, min_iter: 3}"), "`early_terminate`");
    check(&before("controller: {type: local}"), "`controller`");
    check(&before("scheduler: {engine: wandb}"), "`scheduler`");
    check(&before("projekt: mine"), "did you mean `project`?");
    check(&SWEEP.replace("METHOD", "random").replace("goal: minimize", "target: 0.5"), "`metric.target`");
    let inside = |definition: &str| SWEEP.replace("METHOD", "random").replace("values: [32]", definition);
    check(&inside("values: [16, 32]\n    probabilities: [0.9, 0.1]"), "`probabilities`");
    check(&inside("parameters: {a: {value: 1}}"), "nested");
    check(&inside("distribution: q_uniform\n    min: 8\n    max: 64"), "`q_uniform`");
    check(&inside("min: 8\n    max: 64.5"), "`parameters.lora_rank`");
    check(&inside("value: 32\n    step: 2"), "`step`");
    assert!(rehearsal.server.seen().is_empty());
}

#[test]
fn project_entity_and_name_of_the_file_are_honoured_below_flags_and_variables() {
    let place = |lines: &str, variable: Option<&str>, flags: &[&str]| {
        let rehearsal = scene("grid");
        write_sweep(&rehearsal, "grid", lines);
        let mut command = sweep(&rehearsal, &[&["--yes", "--count=1", "--json"], flags].concat());
        log_in(&rehearsal, &mut command);
        command.envs(variable.map(|project| (env::WANDB_PROJECT, project)));
        let run = Outcome::of(command).expect(0);
        let made = rehearsal.server.wandb_sweeps().remove(0);
        assert_eq!(rehearsal.server.wandb_runs()[0].project, made.project);
        (made.project, made.config["name"].clone(), run.json()["name"].clone())
    };
    let file = "project: ablation\nentity: rehearsal\nname: ranks\n";
    assert_eq!(place(file, None, &[]), ("ablation".to_owned(), json!("ranks"), json!("ranks")));
    assert_eq!(place(file, Some("from-variable"), &[]).0, "from-variable");
    assert_eq!(place(file, Some("from-variable"), &["--wandb-project=from-flag"]).0, "from-flag");
    // A team that the key has no access to is refused by W&B, and never replaced by the key's own.
    let rehearsal = scene("grid");
    write_sweep(&rehearsal, "grid", "entity: another-team\n");
    with_wandb(&rehearsal, &["--yes", "--count=1"]).expect(5);
    assert_eq!((rehearsal.server.wandb_sweeps().len(), rehearsal.server.jobs_created()), (0, 0));
}

#[test]
fn maximizing_a_loss_is_warned_about_before_consent() {
    let rehearsal = scene("grid");
    rehearsal.dir.write("sweep.yaml", SWEEP.replace("METHOD", "grid").replace("minimize", "maximize"));
    for (flags, code) in [(&["--dry-run"][..], 0), (&[], 9), (&["--max-cost=0"], 9)] {
        let run = run(&rehearsal, flags).expect(code);
        assert!(run.stderr.contains("goal: maximize"), "{}", run.stderr);
    }
    assert_eq!(rehearsal.server.jobs_created(), 0);
    let run = run(&rehearsal, &["--yes", "--json"]).expect(0).json();
    let best = run["runs"].as_array().unwrap().iter().find(|run| run["rank"] == 1).unwrap();
    assert!(
        run["runs"].as_array().unwrap().iter().all(|run| run["value"].as_f64() <= best["value"].as_f64())
    );
}

#[test]
fn a_flag_for_a_parameter_that_the_sweep_varies_is_refused() {
    let rehearsal = scene("grid");
    for flag in ["--n-epochs=3", "--learning_rate=1e-4", "--lora-rank=8"] {
        for more in ["--yes", "--dry-run"] {
            run(&rehearsal, &[flag, more]).expect(2);
            with_wandb(&rehearsal, &[flag, more]).expect(2);
        }
    }
    assert!(rehearsal.server.seen().is_empty());
    let plan = run(&rehearsal, &["--lora-alpha=8", "--dry-run", "--json"]).expect(0);
    assert_eq!(plan.json()["runs"].as_array().unwrap().len(), 4);
}

#[test]
fn a_sweep_for_the_agent_may_say_what_wandb_itself_carries_out() {
    let rehearsal = scene("random");
    let init = || {
        let fixed =
            ["sweep", "init", "sweep.yaml", "--data-dir=corpus", "-o", "out", "--count=2", "--max-cost=9"];
        rehearsal.ctxtune(fixed)
    };
    let lines = "early_terminate: {type: hyperband, min_iter: 3}\nproject: mine\nname: ranks\n";
    let text = format!("{lines}{}", SWEEP.replace("METHOD", "random"));
    rehearsal
        .dir
        .write("sweep.yaml", text.replace("values: [32]", "values: [16, 32]\n    probabilities: [0.9, 0.1]"));
    let made: Value = serde_json::from_str(&init().expect(0).stdout).unwrap();
    assert_eq!(made["early_terminate"]["min_iter"], 3);
    assert_eq!(
        (&made["project"], &made["name"], &made["run_cap"]),
        (&json!("mine"), &json!("ranks"), &json!(2))
    );
    assert_eq!(made["parameters"]["lora_rank"]["probabilities"], json!([0.9, 0.1]));
    for (from, to) in [
        ("values: [32]", "parameters: {a: {value: 1}}"),
        ("values: [32]", "values: [many]"),
        ("lora_rank", "lora_rnk"),
        ("program:", "programme:"),
    ] {
        rehearsal.dir.write("sweep.yaml", text.replace(from, to));
        init().expect(2);
    }
}

#[test]
fn a_dry_run_shows_combinations_of_its_own_and_the_space_of_wandb() {
    let rehearsal = scene("grid");
    let own = run(&rehearsal, &["--dry-run", "--count=3"]).expect(0);
    assert_eq!(own.stdout.lines().count(), 3);
    let random = SWEEP.replace("METHOD", "random").replace("values: [32]", "min: 8\n    max: 64");
    rehearsal.dir.write("sweep.yaml", random);
    let space = with_wandb(&rehearsal, &["--dry-run", "--count=3"]).expect(0);
    assert_eq!(space.stdout, "learning_rate\t1e-6, 5e-5\nn_epochs\t2, 3\nlora_rank\t8 to 64, integers\n");
    assert!(space.stderr.contains("at most 3 times the dearest of 114 estimates"), "{}", space.stderr);
    let shown = with_wandb(&rehearsal, &["--dry-run", "--count=3", "--json"]).expect(0);
    let document = shown.document(
        "sweep",
        json!({
            "method": "string", "metric": "string", "count": "integer", "estimates": "integer",
            "space": {
                "learning_rate": { "values": ["number"] }, "n_epochs": { "values": ["integer"] },
                "lora_rank": { "min": "integer", "max": "integer" },
            },
        }),
    );
    assert_eq!((&document["count"], &document["estimates"]), (&json!(3), &json!(114)));
    assert!(rehearsal.server.seen().is_empty());
}

/// Every run's rows, by kind and step.
fn rows(run: &ctxtune_rehearsal::WandbRun) -> Vec<(&'static str, u64)> {
    let kinds = ["train/loss", "eval/loss"];
    let row = |row: &Value| {
        let kind = kinds.into_iter().find(|kind| row.get(*kind).is_some())?;
        Some((kind, row["train/step"].as_u64()?))
    };
    run.history.iter().filter_map(row).collect()
}

#[test]
fn wandb_suggests_values_and_every_row_arrives_once() {
    for method in ["grid", "random", "bayes"] {
        let rehearsal = scene(method);
        with_wandb(&rehearsal, &["--yes", "--count=4", "--parallel=2"]).expect(0);
        let runs = rehearsal.server.wandb_runs();
        let sweeps = rehearsal.server.wandb_sweeps();
        assert_eq!((runs.len(), sweeps.len()), (4, 1), "{method}");
        assert_eq!(sweeps[0].state, "FINISHED", "{method}");
        for run in &runs {
            assert_eq!(
                (run.state.as_str(), run.sweep.as_deref()),
                ("finished", Some(sweeps[0].name.as_str()))
            );
            let rows = rows(run);
            let distinct: BTreeSet<_> = rows.iter().collect();
            assert_eq!(distinct.len(), rows.len(), "{method}: {rows:?}");
            assert!(rows.iter().any(|(kind, _)| *kind == "eval/loss"), "{method}");
            assert!(run.summary["val/loss"].is_f64(), "{method}: {}", run.summary);
        }
        assert!(rehearsal.server.violations().is_empty(), "{:?}", rehearsal.server.violations());
        assert!(runs.iter().all(|run| run.project == sweeps[0].project));
        let alerts: Vec<_> = runs.iter().flat_map(|run| &run.alerts).collect();
        assert_eq!(alerts.len(), 1, "one of the sweep, none of its jobs: {alerts:#?}");
        assert_eq!(alerts[0].title, format!("sweep {} ended", sweeps[0].name));
        assert!(alerts[0].text.contains("4 of 4 runs ended"), "{}", alerts[0].text);
        // Once more nothing ends, and nobody is told.
        with_wandb(&rehearsal, &["--yes", "--count=4"]).expect(0);
        assert_eq!(rehearsal.server.wandb_runs().iter().map(|run| run.alerts.len()).sum::<usize>(), 1);
        // Without W&B the same sweep would be other jobs.
        if method != "bayes" {
            run(&rehearsal, &["--yes", "--count=4"]).expect(2);
            assert_eq!(rehearsal.server.jobs_created(), 4, "{method}");
        }
    }
}

#[cfg(unix)]
#[test]
fn killed_anywhere_a_sweep_goes_on_without_a_second_job() {
    for wandb in [false, true] {
        let child: Arc<Mutex<Option<u32>>> = Arc::default();
        let is_done = Arc::new(AtomicBool::new(false));
        let (process, done) = (Arc::clone(&child), Arc::clone(&is_done));
        // The second job exists, and nobody is told.
        let created = Mutex::new(0);
        let watch = move |stage: Stage, seen: &Seen| {
            let is_create = seen.method == "POST" && seen.path == "/v1/fine-tunes" && stage == Stage::Acted;
            if !is_create || done.load(Ordering::SeqCst) {
                return;
            }
            let mut created = created.lock().unwrap();
            *created += 1;
            if *created == 2 {
                done.store(true, Ordering::SeqCst);
                support::signal(process.lock().unwrap().unwrap(), "KILL");
            }
        };
        let rehearsal = with("grid", Rehearsal::watched(quick(), Arc::new(watch)));
        let command = || {
            let mut command = sweep(&rehearsal, &["--yes"]);
            command.env(env::CTXTUNE_GRACE_SECONDS, "0.05");
            if wandb {
                log_in(&rehearsal, &mut command);
            }
            command
        };
        let started = {
            let mut slot = child.lock().unwrap();
            let started = command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            *slot = Some(started.id());
            started
        };
        let mut started = started;
        assert!(!started.wait().unwrap().success());
        assert!(is_done.load(Ordering::SeqCst));
        Outcome::of(command()).expect(0);
        assert_eq!(rehearsal.server.jobs_created(), 4, "with W&B: {wandb}");
    }
}
