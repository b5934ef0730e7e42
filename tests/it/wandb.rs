//! Runs at Weights & Biases: every row once and in order, whatever happens, and nothing else disturbed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use ctxtune_pipeline::env;
use ctxtune_rehearsal::faults::{Action, Rule, Side, When};
use ctxtune_rehearsal::{Script, WANDB_KEY, WandbAlert, WandbRun};
use serde_json::{Value, json};

use crate::service::{Stranger, faults, rule, status, status_with_retry_after};
use crate::support::{Dir, Outcome, Rehearsal, at_once, python, repository, sha256, skip};

const FINETUNE: [&str; 6] = ["finetune", "corpus", "-o", "out", "--no-sync", "--yes"];

/// The steps of a job with ten records, and those of its evaluations.
const STEPS: u64 = 30;
const EVALUATIONS: [u64; 3] = [10, 20, 30];

/// A server whose jobs end after so many seconds, and ten records.
fn rehearsal(job_seconds: f64) -> Rehearsal {
    let rehearsal = Rehearsal::with(Script { job_seconds, verdict_seconds: 0.0, ..Script::default() });
    rehearsal.dir.corpus(10);
    rehearsal
}

impl Rehearsal {
    /// The program, which also knows W&B and a key of it.
    fn logged<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.command(arguments);
        command.env(env::WANDB_API_KEY, WANDB_KEY).env(env::WANDB_BASE_URL, self.server.url());
        command
    }

    /// The same on another machine: in a directory and with a state of its own.
    fn elsewhere<A: AsRef<OsStr>>(&self, dir: &Dir, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.logged(arguments);
        command.current_dir(dir.path("")).env(env::XDG_STATE_HOME, dir.path("state"));
        command
    }

    /// Submits ten records without logging anything; the job's id.
    fn submit_quietly(&self) -> String {
        self.dir.prepare(&[]).expect(0);
        self.ctxtune(["submit", "out", "--yes"]).expect(0).stdout.trim_end().to_owned()
    }

    /// The one run there is.
    #[track_caller]
    fn run(&self) -> WandbRun {
        let mut runs = self.server.wandb_runs();
        assert_eq!(runs.len(), 1, "{runs:#?}");
        runs.remove(0)
    }

    /// That the one run has every point once and in order, and ended with `exit`.
    #[track_caller]
    fn check_run(&self, exit: i64) -> WandbRun {
        let run = self.run();
        check_points(&run);
        assert_eq!(run.exit_code, Some(exit), "{run:#?}");
        assert_eq!(run.state, if exit == 0 { "finished" } else { "failed" });
        assert_eq!(self.server.violations(), Vec::<String>::new());
        run
    }

    /// Rules for W&B and nothing else.
    fn spoil_wandb(&self, when: &When, action: &Action) {
        let rule = |path: &str| Rule {
            method: None,
            path: path.to_owned(),
            when: when.clone(),
            times: None,
            action: action.clone(),
        };
        self.server.set_script(|script| script.faults = faults([rule("/graphql"), rule("/files/")]));
    }

    fn heal(&self) {
        self.server.set_script(|script| script.faults = faults([]));
    }
}

/// The steps of the rows that have this metric, in the order of the history.
fn steps(run: &WandbRun, metric: &str) -> Vec<u64> {
    let rows = run.history.iter().filter(|row| !row[metric].is_null());
    rows.map(|row| row["train/step"].as_u64().unwrap()).collect()
}

#[track_caller]
fn check_points(run: &WandbRun) {
    assert_eq!(steps(run, "train/loss"), (1..=STEPS).collect::<Vec<_>>());
    assert_eq!(steps(run, "val/loss"), EVALUATIONS);
    assert_eq!(steps(run, "eval/loss"), EVALUATIONS);
    let mut log = run.log.clone();
    log.sort();
    log.dedup();
    assert_eq!(log.len(), run.log.len(), "an event is there twice: {:#?}", run.log);
}

/// A child and where its stderr goes; it is killed with the test.
struct Watching<'w> {
    child: Child,
    dir: &'w Dir,
    name: String,
}

impl<'w> Watching<'w> {
    fn start(mut command: Command, dir: &'w Dir, name: &str) -> Watching<'w> {
        let stderr = File::create(dir.path(name)).unwrap();
        let stdout = File::create(dir.path(format!("{name}.stdout"))).unwrap();
        let child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        Watching { child, dir, name: name.to_owned() }
    }

    /// Waits until `is_so`, as long as it runs.
    #[track_caller]
    fn until(&mut self, is_so: impl Fn(&str) -> bool) {
        let end = Instant::now() + Duration::from_secs(30);
        while !is_so(&self.said()) {
            assert!(Instant::now() < end && self.child.try_wait().unwrap().is_none(), "{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn said(&self) -> String {
        self.dir.read(&self.name)
    }

    #[track_caller]
    fn expect(mut self, code: i32) -> String {
        assert_eq!(self.child.wait().unwrap().code(), Some(code), "{}", self.said());
        self.said()
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_job_is_logged_with_all_that_it_shows() {
    let rehearsal = rehearsal(0.4);
    let mut command = rehearsal.logged(FINETUNE);
    let named = [(env::WANDB_NAME, "first"), (env::WANDB_TAGS, "a, b"), (env::WANDB_RUN_GROUP, "g")];
    command.envs(named).args(["--wandb-project", "p 1"]);
    let run = Outcome::of(command).expect(0);
    let logged = rehearsal.check_run(0);
    let tag = rehearsal.ledgers()[0]["tag"].as_str().unwrap().to_owned();
    let url = format!("{}/rehearsal/p%201/runs/{tag}", rehearsal.server.url());
    assert!(run.stderr.contains(&format!("W&B: {url}\n")), "{}", run.stderr);
    assert!(run.stderr.contains("key from the environment (WANDB_API_KEY); entity rehearsal, project p 1"));
    let names = (logged.project.as_str(), logged.name.as_str(), logged.display_name.as_str());
    assert_eq!(names, ("p 1", tag.as_str(), "first"));
    assert_eq!((logged.tags.join(","), logged.group.as_deref()), ("a,b".to_owned(), Some("g")));
    check_config(&rehearsal, &logged);
    check_summary(&rehearsal, &logged);
    let statuses: Vec<&str> = logged.history.iter().filter_map(|row| row["status"].as_str()).collect();
    assert!(statuses.len() > 1 && statuses.last() == Some(&"completed"), "{statuses:?}");
    assert!(logged.log.iter().any(|line| line.contains("job_complete")), "{:#?}", logged.log);
}

#[track_caller]
fn check_summary(rehearsal: &Rehearsal, logged: &WandbRun) {
    let (job, summary) = (&rehearsal.jobs()[0], &logged.summary);
    assert_eq!((&summary["model"], &summary["job_id"]), (&job["model_output_name"], &job["id"]));
    assert_eq!((&summary["status"], &summary["train/step"]), (&json!("completed"), &json!(STEPS)));
    let losses = logged.history.iter().map(|row| &row["val/loss"]);
    let losses: Vec<&Value> = losses.filter(|loss| !loss.is_null()).collect();
    let best = losses.iter().map(|loss| loss.as_f64().unwrap()).fold(f64::INFINITY, f64::min);
    assert_eq!((&summary["val/loss"], &summary["best_val_loss"]), (losses[2], &json!(best)));
    assert!(summary["duration_seconds"].as_f64().unwrap() > 0.0 && summary["_runtime"].is_number());
}

#[track_caller]
fn check_config(rehearsal: &Rehearsal, logged: &WandbRun) {
    let config = |key: &str| &logged.config[key]["value"];
    let job = &rehearsal.jobs()[0];
    let expected = [
        ("train_file_id", job["training_file"].clone()),
        ("val_file_id", job["validation_file"].clone()),
        ("n_epochs", json!(3)),
        ("learning_rate", json!(1e-5)),
        ("batch_size", json!("max")),
        ("lora", json!(true)),
        ("lora_rank", json!(64)),
        ("lora_alpha", json!(16)),
        ("template", json!("chatml")),
    ];
    for (key, value) in expected {
        assert_eq!(config(key), &value, "{key}");
    }
    let manifest = rehearsal.dir.manifest();
    assert_eq!(config("data")["train"]["sha256"], manifest["train"]["sha256"]);
    assert_eq!(config("split")["seed"], 42);
    assert_eq!(config("leakage"), &manifest["leakage"]);
    assert_eq!(config("_wandb")["m"][0]["1"], "train/step");
    assert_eq!(config("resolved")["batch_size"], job["batch_size"]);
    assert!(config("resolved")["train_tokens"].as_u64() > config("resolved")["eval_tokens"].as_u64());
    let link = config("job_page").as_str().unwrap().to_owned();
    let id = job["id"].as_str().unwrap();
    assert_eq!(link, format!("[{id}]({}/fine-tuning/{id})", rehearsal.server.url()));
    assert_eq!(config("_wandb")["pinned_keys"], json!(["job_page"]));
}

/// The one alert about the run.
#[track_caller]
fn the_alert(run: &WandbRun) -> &WandbAlert {
    assert_eq!(run.alerts.len(), 1, "{:#?}", run.alerts);
    &run.alerts[0]
}

#[test]
fn a_run_says_every_parameter_and_what_it_is() {
    let rehearsal = rehearsal(0.4);
    let home = rehearsal.dir.path("");
    let mut command = rehearsal.logged(FINETUNE);
    let flags = [
        "--n-epochs=3",
        "--n-evals=3",
        "--n-checkpoints=3",
        "--learning-rate=0.0001",
        "--batch-size=8",
        "--lora-dropout=0.25",
        "--lora-trainable-modules=q_proj,v_proj",
        "--min-lr-ratio=0.125",
        "--lr-num-cycles=0.75",
        "--warmup-ratio=0.0625",
        "--weight-decay=0.5",
        "--max-grad-norm=2",
        "--packing=true",
        "--max-seq-length=4096",
        "--gradient-accumulation-steps=2",
        "--train-on-inputs=false",
        "--random-seed=7",
        "--suffix=mine",
    ];
    let svg = format!("--svg={}", home.join("loss.svg").display());
    command.args(flags).arg(svg).env(env::HOME, &home);
    Outcome::of(command).expect(0);
    let run = rehearsal.check_run(0);
    let expected = json!({
        "n_epochs": 3, "n_evals": 3, "n_checkpoints": 3, "learning_rate": 0.0001, "batch_size": 8,
        "lora": true, "lora_rank": 64, "lora_alpha": 16, "lora_dropout": 0.25,
        "lora_trainable_modules": "q_proj,v_proj", "lr_scheduler": "cosine", "min_lr_ratio": 0.125,
        "lr_num_cycles": 0.75, "warmup_ratio": 0.0625, "weight_decay": 0.5, "max_grad_norm": 2.0,
        "packing": true, "max_seq_length": 4096, "gradient_accumulation_steps": 2, "train_on_inputs": false,
        "random_seed": 7, "suffix": "mine", "early_stopping": false, "early_stopping_patience": null,
        "early_stopping_min_delta": null, "early_stopping_warmup_evals": null, "from_checkpoint": null,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&run.config[key]["value"], value, "{key}");
    }
    let job = &rehearsal.jobs()[0];
    assert_eq!(run.config["base_model"]["value"], job["model"]);
    let resolved = &run.config["resolved"]["value"];
    let known = ["batch_size", "max_seq_length", "total_steps"].map(|key| resolved[key].as_u64());
    assert_eq!(known, [Some(8), Some(4096), Some(STEPS)], "{resolved}");
    assert_eq!(resolved["token_count"], job["token_count"]);
    assert_eq!(run.display_name, job["suffix"].as_str().unwrap());
    assert_eq!(run.job_type.as_deref(), Some("fine-tune"));
    let model = job["model"].as_str().unwrap().rsplit('/').next().unwrap();
    assert_eq!(run.tags, ["ctxtune", "lora", model]);
    let notes = run.notes.as_deref().unwrap();
    assert!(notes.starts_with("ctxtune finetune corpus -o out --no-sync --yes --n-epochs=3"), "{notes}");
    assert!(notes.ends_with("--svg=~/loss.svg"), "{notes}");
    check_checkpoints(&run);
}

#[track_caller]
fn check_checkpoints(run: &WandbRun) {
    let saved = run.summary["checkpoints"].as_array().unwrap();
    let steps: BTreeSet<u64> = saved.iter().map(|saved| saved["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, BTreeSet::from(EVALUATIONS));
    assert!(saved.iter().all(|saved| saved["path"].as_str().unwrap().starts_with("s3://rehearsal/")));
    let best = &run.summary["best_checkpoint"];
    assert_eq!(best["step"], run.summary["best_val_step"]);
    assert!(saved.contains(best), "{best}");
}

#[test]
fn what_somebody_says_of_a_run_wins_over_the_defaults() {
    let rehearsal = rehearsal(0.2);
    let mut command = rehearsal.logged(FINETUNE);
    let said = [
        (env::WANDB_NOTES, "my notes"),
        (env::WANDB_TAGS, "mine"),
        (env::WANDB_JOB_TYPE, "try"),
        (env::WANDB_NAME, "my name"),
    ];
    command.envs(said);
    Outcome::of(command).expect(0);
    let run = rehearsal.check_run(0);
    assert_eq!((run.notes.as_deref(), run.job_type.as_deref()), (Some("my notes"), Some("try")));
    assert_eq!((run.display_name.as_str(), run.tags), ("my name", vec!["mine".to_owned()]));
}

#[test]
fn the_manifest_goes_up_and_the_data_only_where_that_was_said() {
    for flags in [vec![], vec!["--wandb-data"]] {
        let rehearsal = rehearsal(0.3);
        Outcome::of(rehearsal.logged(FINETUNE.iter().chain(&flags))).expect(0);
        let run = rehearsal.check_run(0);
        let mut expected = vec!["manifest.json"];
        if !flags.is_empty() {
            expected.extend(["train.jsonl", "val.jsonl", "README.md", "keys.tsv"]);
        }
        assert_eq!(run.files, expected);
        for (name, digest) in &run.digests {
            assert_eq!(digest, &sha256(rehearsal.dir.read(format!("out/{name}")).as_bytes()), "{name}");
        }
    }
}

#[test]
fn the_manifest_of_a_job_is_the_one_that_it_was_made_of() {
    let rehearsal = rehearsal(1000.0);
    rehearsal.dir.prepare(&[]).expect(0);
    Outcome::of(rehearsal.logged(["submit", "out", "--yes", "--wandb-data"])).expect(0);
    let manifest = rehearsal.dir.read("out/manifest.json");
    rehearsal.dir.prepare(&["--seed", "7"]).expect(0);
    rehearsal.forward(1000.0);
    let run = Outcome::of(rehearsal.logged(["monitor", "out"])).expect(0);
    let logged = rehearsal.check_run(0);
    assert_eq!(logged.files, ["manifest.json"]);
    assert_eq!(logged.digests["manifest.json"], sha256(manifest.as_bytes()));
    assert!(
        run.stderr.contains("train.jsonl was not uploaded: the directory was prepared again"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_storage_that_refuses_costs_no_row() {
    for (action, is_final) in [(status(403), true), (Action::Reset(Side::Before), false)] {
        let rehearsal = rehearsal(0.6);
        let refuse = Rule {
            method: Some("PUT".to_owned()),
            path: "/wandb/".to_owned(),
            when: When::Always,
            times: None,
            action,
        };
        rehearsal.server.set_script(|script| script.faults = faults([refuse]));
        let run = Outcome::of(rehearsal.logged(FINETUNE)).expect(0);
        assert!(
            !is_final || run.stderr.contains("manifest.json was not uploaded: upload of a file: 403"),
            "{}",
            run.stderr
        );
        assert!(!run.stderr.contains("signature"), "{}", run.stderr);
        let logged = rehearsal.check_run(0);
        assert!(logged.files.is_empty() && logged.alerts.len() == 1);
        rehearsal.heal();
        Outcome::of(rehearsal.logged(["wandb-sync", "out"])).expect(0);
        let logged = rehearsal.check_run(0);
        assert_eq!((logged.files, logged.alerts.len()), (vec!["manifest.json".to_owned()], 1));
    }
}

#[test]
fn the_end_of_a_job_is_told_once() {
    let rehearsal = rehearsal(0.3);
    Outcome::of(rehearsal.logged(FINETUNE)).expect(0);
    let run = rehearsal.check_run(0);
    let (alert, job) = (the_alert(&run), &rehearsal.jobs()[0]);
    let (suffix, model) = (job["suffix"].as_str().unwrap(), job["model_output_name"].as_str().unwrap());
    assert_eq!((alert.severity.as_str(), &alert.title), ("INFO", &format!("completed: {suffix}")));
    assert!(alert.text.contains(model) && alert.text.contains("validation loss: "), "{}", alert.text);
    Outcome::of(rehearsal.logged(["monitor", "out"])).expect(0);
    let other = Dir::new();
    Outcome::of(rehearsal.elsewhere(&other, ["monitor", job["id"].as_str().unwrap()])).expect(0);
    the_alert(&rehearsal.run());
}

#[test]
fn nobody_is_told_where_that_was_not_wanted_or_the_run_is_part_of_a_sweep() {
    for flags in [vec!["--no-alert"], vec![]] {
        let rehearsal = rehearsal(0.2);
        let mut command = rehearsal.logged(FINETUNE.iter().chain(&flags));
        if flags.is_empty() {
            let config = "{method: grid, parameters: {n_epochs: {values: [3]}}}";
            let query =
                format!("mutation {{ upsertSweep(input: {{config: \"{config}\"}}) {{ sweep {{ name }} }} }}");
            let made = rehearsal.graphql(&query);
            let sweep = made["data"]["upsertSweep"]["sweep"]["name"].as_str().unwrap().to_owned();
            command.env(env::WANDB_SWEEP_ID, sweep).env(env::WANDB_PROJECT, "rehearsal");
        }
        Outcome::of(command).expect(0);
        assert_eq!(rehearsal.run().alerts, [], "{flags:?}");
    }
}

#[test]
fn the_page_of_a_run_is_in_the_status_of_its_job() {
    let rehearsal = rehearsal(0.2);
    let run = Outcome::of(rehearsal.logged(FINETUNE.iter().chain(&["--json"]))).expect(0);
    let page = run.json()["wandb_url"].as_str().unwrap().to_owned();
    let job = rehearsal.jobs()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(run.stderr.matches(&page).count(), 2, "at the beginning and at the end: {}", run.stderr);
    for target in ["out", &job] {
        let status = rehearsal.ctxtune(["status", target, "--json"]).expect(0);
        assert_eq!(status.json()["wandb_url"], page, "{target}");
        assert!(rehearsal.ctxtune(["status", target]).expect(0).stderr.contains(&page));
    }
}

/// A run into a fault that heals, at the latest before `wandb-sync`; what was said.
#[track_caller]
fn check_fault(when: When, action: Action) -> String {
    let rehearsal = rehearsal(0.6);
    rehearsal.spoil_wandb(&when, &action);
    let run = Outcome::of(rehearsal.logged(FINETUNE)).expect(0);
    assert_eq!(rehearsal.creations(), 1);
    let model = rehearsal.jobs()[0]["model_output_name"].as_str().unwrap().to_owned();
    assert_eq!(run.stdout, format!("{model}\n"));
    rehearsal.heal();
    let synced = Outcome::of(rehearsal.logged(["wandb-sync", "out"])).expect(0);
    rehearsal.check_run(0);
    let again = Outcome::of(rehearsal.logged(["wandb-sync", "out"])).expect(0);
    assert_eq!(again.stdout, "", "nothing is behind");
    let run_then = rehearsal.run();
    assert_eq!(run_then.files, ["manifest.json"]);
    assert!(run_then.alerts.len() < 2, "{:#?}", run_then.alerts);
    assert_eq!(rehearsal.server.jobs_created(), 1);
    format!("{}\n{}", run.stderr, synced.stdout)
}

#[test]
fn a_server_that_is_down_costs_no_row() {
    let reset = Action::Reset(Side::Before);
    let whens = [When::Nth(vec![1, 2, 3]), When::Nth(vec![3, 4]), When::Every(2), When::Always];
    let said = at_once(whens, |when| check_fault(when, reset.clone())).pop().unwrap();
    assert_eq!(said.matches("W&B: no answer").count(), 1, "one warning in all: {said}");
    assert!(said.contains("rows not sent yet") && said.contains("\thttp"), "{said}");
}

#[test]
fn a_server_that_says_no_or_later_costs_no_row() {
    let faults = [
        (When::Always, status(401)),
        (When::Nth(vec![1, 4]), status(500)),
        (When::Nth(vec![2]), status_with_retry_after(429)),
        (When::Every(3), status_with_retry_after(429)),
        (When::Always, status(403)),
        (When::Always, status(500)),
    ];
    let said = at_once(faults, |(when, action)| check_fault(when, action)).swap_remove(0);
    assert!(said.contains("does not accept the key"), "{said}");
}

#[test]
fn a_lost_answer_doubles_no_row() {
    let page = || Action::Body("<html>".to_owned());
    let faults = [
        (When::Always, page()),
        (When::Nth(vec![1, 2, 3, 4]), Action::LoseReply),
        (When::Every(2), Action::LoseReply),
        (When::Every(2), Action::Reset(Side::After)),
        (When::Every(3), Action::CutReply(3)),
        (When::Nth(vec![2, 5]), page()),
    ];
    let said = at_once(faults, |(when, action)| check_fault(when, action)).swap_remove(0);
    assert!(said.contains("answers with a web page and is not the API: a proxy or a login page"), "{said}");
}

#[test]
fn a_run_that_is_denied_just_after_its_creation_is_logged_all_the_same() {
    let rehearsal = rehearsal(0.6);
    let denied = rule("POST /files/", When::Nth(vec![1, 2]), status(404));
    rehearsal.server.set_script(|script| script.faults = faults([denied]));
    let run = Outcome::of(rehearsal.logged(FINETUNE)).expect(0);
    assert!(!run.stderr.contains("rows not sent yet"), "{}", run.stderr);
    rehearsal.check_run(0);
}

#[test]
fn a_slow_server_holds_nobody_up() {
    let rehearsal = rehearsal(0.4);
    rehearsal.spoil_wandb(&When::Always, &Action::Hang(5.0));
    let start = Instant::now();
    let run = Outcome::of(rehearsal.logged(FINETUNE)).expect(0);
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    assert!(run.stderr.contains("rows not sent yet"), "{}", run.stderr);
    rehearsal.heal();
    Outcome::of(rehearsal.logged(["wandb-sync", "out"])).expect(0);
    rehearsal.check_run(0);
}

#[test]
fn a_monitor_that_is_killed_is_gone_on_with_from_anywhere() {
    for is_elsewhere in [false, true] {
        let rehearsal = rehearsal(1000.0);
        let job = rehearsal.submit_quietly();
        rehearsal.forward(500.0);
        let command = rehearsal.logged(["monitor", "out"]);
        let mut watching = Watching::start(command, &rehearsal.dir, "stderr");
        watching.until(|_| rehearsal.server.wandb_runs().iter().any(|run| run.history.len() > 10));
        drop(watching);
        let half = rehearsal.run();
        assert_eq!(half.state, "running");
        rehearsal.forward(600.0);
        let other = Dir::new();
        let command = match is_elsewhere {
            true => rehearsal.elsewhere(&other, ["monitor", &job]),
            false => rehearsal.logged(["monitor", "out"]),
        };
        Outcome::of(command).expect(0);
        let whole = rehearsal.check_run(0);
        assert_eq!(whole.history[..half.history.len()], half.history, "what was there stays");
        // Watched once more, from a third machine, nothing is added.
        let third = Dir::new();
        let run = Outcome::of(rehearsal.elsewhere(&third, ["monitor", &job])).expect(0);
        assert!(run.stderr.contains("W&B: http"), "{}", run.stderr);
        let again = rehearsal.check_run(0);
        assert_eq!((again.history, again.requests), (whole.history, whole.requests));
    }
}

#[test]
fn of_two_monitors_the_older_one_stops_logging_and_says_so() {
    for is_elsewhere in [true, false] {
        let rehearsal = rehearsal(1000.0);
        let job = rehearsal.submit_quietly();
        rehearsal.forward(500.0);
        let older = rehearsal.logged(["monitor", "out"]);
        let mut older = Watching::start(older, &rehearsal.dir, "older");
        older.until(|_| rehearsal.server.wandb_runs().iter().any(|run| run.history.len() > 10));
        let other = Dir::new();
        let newer = match is_elsewhere {
            true => rehearsal.elsewhere(&other, ["monitor", &job]),
            false => rehearsal.logged(["monitor", "out"]),
        };
        let mut newer = Watching::start(newer, &rehearsal.dir, "newer");
        newer.until(|said| said.contains("W&B: http"));
        rehearsal.forward(100.0);
        older.until(|said| said.contains("another monitor logs this run now"));
        rehearsal.forward(500.0);
        older.expect(0);
        let said = newer.expect(0);
        assert!(!said.contains("another monitor"), "{said}");
        rehearsal.check_run(0);
    }
}

#[test]
fn numbers_that_are_none_are_left_out() {
    let rehearsal = rehearsal(0.4);
    rehearsal.server.set_script(|script| {
        script.faults.nan_metrics = true;
        script.faults.shuffle_events = true;
        script.faults.double_events = true;
    });
    Outcome::of(rehearsal.logged(FINETUNE)).expect(0);
    let run = rehearsal.run();
    assert_eq!((run.exit_code, rehearsal.server.violations()), (Some(0), Vec::new()));
    assert!(run.history.iter().all(|row| row.as_object().unwrap().values().all(|value| *value != "NaN")));
    let mut seen = steps(&run, "train/loss");
    let count = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

#[test]
fn a_failed_job_is_a_failed_run() {
    let rehearsal = rehearsal(0.4);
    rehearsal.server.set_script(|script| script.outcome = ctxtune_rehearsal::Outcome::Error);
    Outcome::of(rehearsal.logged(FINETUNE)).expect(6);
    let run = rehearsal.run();
    assert_eq!((run.state.as_str(), run.exit_code), ("failed", Some(6)));
    assert_eq!(the_alert(&run).severity, "ERROR");
}

#[test]
fn stop_cancels_the_job_only_where_that_was_asked_for() {
    for (flags, code) in [(vec![], 0), (vec!["--cancel-on-stop"], 7)] {
        let rehearsal = rehearsal(2.0);
        rehearsal.server.set_script(|script| script.wandb_stop = true);
        let run = Outcome::of(rehearsal.logged(FINETUNE.iter().chain(&flags))).expect(code);
        assert!(run.stderr.contains("W&B: Stop was pressed"), "{}", run.stderr);
        assert_eq!(rehearsal.run().exit_code, Some(i64::from(code)));
    }
}

#[test]
fn a_submission_makes_the_run_and_a_refused_one_does_not() {
    let rehearsal = rehearsal(1000.0);
    rehearsal.dir.prepare(&[]).expect(0);
    let refuse = Rule {
        method: Some("POST".to_owned()),
        path: "/v1/fine-tunes$".to_owned(),
        when: When::Always,
        times: None,
        action: status(400),
    };
    rehearsal.server.set_script(|script| script.faults = faults([refuse]));
    let submit = || rehearsal.logged(["submit", "out", "--yes", "--json"]);
    Outcome::of(submit()).expect(1);
    assert!(rehearsal.server.wandb_runs().is_empty() && !rehearsal.dir.exists("out/wandb"));
    rehearsal.heal();
    let run = Outcome::of(submit()).expect(0);
    let logged = rehearsal.run();
    assert!(run.stderr.contains("W&B: http") && logged.history.is_empty());
    check_config(&rehearsal, &logged);
    let url = run.json()["wandb_url"].as_str().unwrap().to_owned();
    assert!(url.ends_with(&format!("/runs/{}", logged.name)), "{url}");
    let again = Outcome::of(submit()).expect(0);
    assert_eq!(again.json()["wandb_url"], url);
    rehearsal.forward(1000.0);
    Outcome::of(rehearsal.logged(["monitor", "out"])).expect(0);
    check_config(&rehearsal, &rehearsal.check_run(0));
}

#[test]
fn a_submission_says_what_logs_the_job_while_nobody_watches_it() {
    let rehearsal = rehearsal(1000.0);
    rehearsal.dir.prepare(&[]).expect(0);
    let check = |flags: &[&str], logged_by: Value, said: &str| {
        for command in [
            &["submit", "out", "--yes", "--json"][..],
            &["finetune", "corpus", "-o=out", "--detach", "--yes", "--no-sync", "--json"],
        ] {
            let run = Outcome::of(rehearsal.logged([command, flags].concat())).expect(0);
            assert_eq!(run.json()["logged_by"], logged_by, "{command:?} {flags:?}");
            assert!(run.stderr.contains(said), "{}", run.stderr);
            assert_eq!(run.stderr.contains("metrics are"), logged_by == "monitor", "{}", run.stderr);
            assert_eq!(run.stderr.contains("W&B"), !logged_by.is_null(), "{}", run.stderr);
        }
    };
    check(&[], json!("monitor"), "metrics are sent only while `ctxtune monitor ft-");
    check(&["--n-epochs=1", "--wandb=together"], json!("together"), "Together logs this job itself");
    check(&["--n-epochs=2", "--wandb=off"], Value::Null, "");
    let mut offline = rehearsal.logged(["submit", "out", "--yes", "--json", "--n-epochs=4"]);
    offline.env(env::WANDB_MODE, "offline");
    let offline = Outcome::of(offline).expect(0);
    assert!(offline.stderr.contains("metrics are written to a local run only while"), "{}", offline.stderr);
    assert_eq!(offline.json()["logged_by"], "monitor");
}

#[test]
fn a_run_that_could_not_be_made_is_made_by_the_monitor() {
    let rehearsal = rehearsal(1000.0);
    rehearsal.dir.prepare(&[]).expect(0);
    rehearsal.spoil_wandb(&When::Always, &Action::Reset(Side::Before));
    let run = Outcome::of(rehearsal.logged(["submit", "out", "--yes"])).expect(0);
    assert!(run.stderr.contains("makes the run"), "{}", run.stderr);
    rehearsal.heal();
    rehearsal.forward(1000.0);
    Outcome::of(rehearsal.logged(["monitor", "out"])).expect(0);
    check_config(&rehearsal, &rehearsal.check_run(0));
}

/// Runs in an environment that is changed, with a W&B that hears nothing; what was said.
#[track_caller]
fn check_silence(is_kept: bool, change: impl Fn(&mut Command)) -> String {
    let rehearsal = rehearsal(0.2);
    let stranger = Stranger::new();
    let mut command = rehearsal.logged(FINETUNE);
    command.env(env::WANDB_BASE_URL, &stranger.url);
    change(&mut command);
    let run = Outcome::of(command).expect(0);
    assert_eq!(stranger.heard(), "", "{}", run.stderr);
    assert!(rehearsal.server.wandb_runs().is_empty());
    assert_eq!(rehearsal.dir.exists("out/wandb"), is_kept);
    run.stderr
}

#[test]
fn nobody_is_asked_without_a_key_or_where_it_is_off() {
    let said = check_silence(false, |command| {
        command.env_remove(env::WANDB_API_KEY);
    });
    assert_eq!(said.matches("export WANDB_API_KEY").count(), 1, "how to turn it on, once: {said}");
    for (name, value) in [(env::WANDB_MODE, "disabled"), (env::WANDB_DISABLED, "true")] {
        let said = check_silence(false, |command| {
            command.env(name, value);
        });
        assert!(!said.contains("W&B"), "it was turned off on purpose: {said}");
    }
    check_silence(false, |command| {
        command.args(["--wandb", "off"]);
    });
    check_silence(true, |command| {
        command.env(env::WANDB_MODE, "offline");
    });
    let said = check_silence(false, |command| {
        command.env(env::WANDB_BASE_URL, "http://wandb.example.org");
    });
    assert!(said.contains("WANDB_BASE_URL"), "{said}");
}

#[test]
fn white_space_around_the_key_is_no_part_of_it() {
    let rehearsal = rehearsal(0.2);
    let mut command = rehearsal.logged(FINETUNE);
    command.env(env::WANDB_API_KEY, format!(" {WANDB_KEY}\n"));
    Outcome::of(command).expect(0);
    rehearsal.check_run(0);
}

#[test]
fn the_key_that_wandb_login_leaves_is_found() {
    let rehearsal = rehearsal(0.2);
    let host = rehearsal.server.url().trim_start_matches("http://").to_owned();
    rehearsal.dir.write(".netrc", format!("machine {host}\n  login user\n  password {WANDB_KEY}\n"));
    rehearsal.dir.write(".config/wandb/settings", "[default]\nproject = of-settings\n");
    let mut command = rehearsal.logged(FINETUNE);
    command.env_remove(env::WANDB_API_KEY).env(env::HOME, rehearsal.dir.path(""));
    let run = Outcome::of(command).expect(0);
    assert!(run.stderr.contains(".netrc`; entity rehearsal, project of-settings"), "{}", run.stderr);
    rehearsal.check_run(0);
}

#[test]
fn the_configuration_file_names_project_and_run() {
    let rehearsal = rehearsal(0.2);
    rehearsal.dir.write("c.yaml", "wandb_project: of-file\nwandb_run_name: of-file\n");
    let mut command = rehearsal.logged(FINETUNE);
    command.args(["--config-path", "c.yaml", "--wandb-run-name", "of-flag"]);
    command.env(env::WANDB_RUN_ID, "chosen-1");
    Outcome::of(command).expect(0);
    let run = rehearsal.check_run(0);
    assert_eq!([run.project, run.display_name, run.name], ["of-file", "of-flag", "chosen-1"]);
}

#[test]
fn the_key_is_handed_over_only_where_that_was_said() {
    let rehearsal = rehearsal(0.2);
    let flags = ["--wandb", "together", "--wandb-project", "theirs"];
    let run = Outcome::of(rehearsal.logged(FINETUNE.iter().chain(&flags))).expect(0);
    assert!(run.stderr.contains("your key is sent to Together"), "{}", run.stderr);
    assert!(rehearsal.server.wandb_runs().is_empty(), "never both");
    let creation = &rehearsal.requests("POST /v1/fine-tunes$")[0];
    let body: Value = serde_json::from_slice(&creation.body).unwrap();
    assert_eq!((&body["wandb_key"], &body["wandb_project_name"]), (&json!(WANDB_KEY), &json!("theirs")));
    Outcome::of(rehearsal.logged(["monitor", "out"])).expect(0);
    assert!(rehearsal.server.wandb_runs().is_empty(), "never both");
    check_secrecy(&rehearsal, &[&run]);
    let dry = ["submit", "out", "--dry-run", "--wandb", "together"];
    let dry = Outcome::of(rehearsal.logged(dry)).expect(0);
    assert!(dry.stdout.contains(r#""wandb_key": "[key]""#), "{}", dry.stdout);
    let mut command = rehearsal.logged(FINETUNE.iter().chain(&["--wandb", "together"]));
    command.env_remove(env::WANDB_API_KEY);
    Outcome::of(command).expect(4);
}

/// That the key stands in no file and in no output.
#[track_caller]
fn check_secrecy(rehearsal: &Rehearsal, runs: &[&Outcome]) {
    for run in runs {
        assert!(!run.stderr.contains(WANDB_KEY) && !run.stdout.contains(WANDB_KEY));
    }
    for (name, bytes) in rehearsal.dir.tree("") {
        assert!(!String::from_utf8_lossy(&bytes).contains(WANDB_KEY), "{name}");
    }
}

#[test]
fn the_key_is_seen_nowhere() {
    let rehearsal = rehearsal(0.3);
    rehearsal.spoil_wandb(&When::Nth(vec![2]), &Action::EchoKey);
    let run = Outcome::of(rehearsal.logged(FINETUNE.iter().chain(&["--verbose"]))).expect(0);
    let basic = rehearsal.server.seen().into_iter().find(|seen| seen.path == "/graphql").unwrap();
    let basic = basic.authorization.unwrap().trim_start_matches("Basic ").to_owned();
    assert!(!run.stderr.contains(&basic) && run.stderr.contains("[key]"), "{}", run.stderr);
    rehearsal.heal();
    let synced = Outcome::of(rehearsal.logged(["wandb-sync", "out", "--json"])).expect(0);
    check_secrecy(&rehearsal, &[&run, &synced]);
    rehearsal.check_run(0);
    let of_together = rehearsal.server.seen().into_iter().filter(|seen| seen.path.starts_with("/v"));
    let mut headers = of_together.flat_map(|seen| seen.headers);
    assert!(headers.all(|(_, value)| !value.contains(&basic)));
}

#[test]
fn an_offline_run_is_uploaded_by_wandb_itself_or_by_us() {
    let rehearsal = rehearsal(0.3);
    let mut command = rehearsal.logged(FINETUNE);
    command.env(env::WANDB_MODE, "offline").env_remove(env::WANDB_API_KEY);
    let run = Outcome::of(command).expect(0);
    let tree = rehearsal.dir.tree("out/wandb");
    let is_run = |name: &&String| name.starts_with("offline-run-") && name.ends_with(".wandb");
    let names: Vec<&String> = tree.iter().map(|(name, _)| name).filter(is_run).collect();
    assert_eq!(names.len(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("W&B: out/wandb/offline-run-"), "{}", run.stderr);
    let path = format!("out/wandb/{}", names[0]);
    if upload(&rehearsal, &path) {
        let run = rehearsal.check_run(0);
        assert_eq!(run.digests["manifest.json"], sha256(rehearsal.dir.read("out/manifest.json").as_bytes()));
        assert_eq!((run.job_type.as_deref(), run.tags[0].as_str()), (Some("fine-tune"), "ctxtune"));
        assert_eq!(run.config["_wandb"]["value"]["pinned_keys"], json!(["job_page"]));
        assert_eq!(run.config["lora_rank"]["value"], 64);
        assert!(run.summary["best_val_loss"].is_number(), "{}", run.summary);
    }
}

#[test]
fn an_offline_run_is_sent_without_any_other_program() {
    let rehearsal = rehearsal(0.3);
    let mut command = rehearsal.logged(FINETUNE);
    command.env(env::WANDB_MODE, "offline");
    Outcome::of(command).expect(0);
    Outcome::of(rehearsal.logged(["wandb-sync", "out"])).expect(0);
    check_config(&rehearsal, &rehearsal.check_run(0));
}

#[test]
fn a_run_that_is_refused_keeps_no_other_one_back() {
    let rehearsal = rehearsal(0.2);
    let offline = |run: &str, entity: &str, epochs: &str| {
        let mut command = rehearsal.logged(FINETUNE.iter().chain(&[epochs]));
        let variables = [(env::WANDB_MODE, "offline"), (env::WANDB_RUN_ID, run), (env::WANDB_ENTITY, entity)];
        command.envs(variables);
        Outcome::of(command).expect(0);
    };
    offline("a", "nobody", "--n-epochs=3");
    offline("b", "rehearsal", "--n-epochs=2");
    offline("c", "nobody", "--n-epochs=1");
    let synced = Outcome::of(rehearsal.logged(["wandb-sync", "out"])).expect(1);
    assert!(synced.stdout.starts_with("b\t") && synced.stdout.lines().count() == 1, "{}", synced.stdout);
    assert!(synced.stderr.contains("entity nobody not found"), "{}", synced.stderr);
    assert_eq!(rehearsal.run().name, "b");
    let document = Outcome::of(rehearsal.logged(["wandb-sync", "out", "--json"])).expect(1).json();
    let refused = document["refused"].as_array().unwrap();
    let names: Vec<&str> = refused.iter().map(|refused| refused["run"].as_str().unwrap()).collect();
    assert_eq!((names, &document["runs"]), (vec!["a", "c"], &json!([])));
    // Where they go is said anew.
    let mut command = rehearsal.logged(["wandb-sync", "out"]);
    command.env(env::WANDB_ENTITY, "rehearsal").env(env::WANDB_PROJECT, "elsewhere");
    Outcome::of(command).expect(0);
    let places: Vec<(String, String)> =
        rehearsal.server.wandb_runs().into_iter().map(|run| (run.name, run.project)).collect();
    let place = |name: &str, project: &str| (name.to_owned(), project.to_owned());
    let usual = "social-world-model-finetuning";
    assert_eq!(places, [place("b", usual), place("a", "elsewhere"), place("c", "elsewhere")]);
}

#[test]
fn of_a_deleted_run_it_says_what_to_do() {
    let rehearsal = rehearsal(1000.0);
    rehearsal.dir.prepare(&[]).expect(0);
    Outcome::of(rehearsal.logged(["submit", "out", "--yes"])).expect(0);
    let run = rehearsal.run().name;
    assert!(rehearsal.server.delete_wandb_run(&run));
    rehearsal.forward(1000.0);
    let watched = Outcome::of(rehearsal.logged(["monitor", "out"])).expect(0);
    assert!(watched.stderr.contains("previously created and deleted"), "{}", watched.stderr);
    let synced = Outcome::of(rehearsal.logged(["wandb-sync", "out", "--json"])).expect(1);
    let error = &synced.json()["error"];
    assert_eq!(error["code"], "deleted");
    let job = rehearsal.jobs()[0]["id"].as_str().unwrap().to_owned();
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains(&format!("rm out/wandb/{run}.*")), "{hint}");
    assert!(hint.contains(&format!("WANDB_RUN_ID=NEW_ID ctxtune monitor {job}")), "{hint}");
    // What it says works.
    let mut command = rehearsal.logged(["monitor", "out"]);
    Outcome::of({
        command.env(env::WANDB_RUN_ID, "again");
        command
    })
    .expect(0);
    assert_eq!(rehearsal.check_run(0).name, "again");
    for (name, _) in rehearsal.dir.tree("out/wandb") {
        if name.starts_with(&format!("{run}.")) {
            std::fs::remove_file(rehearsal.dir.path("out/wandb").join(name)).unwrap();
        }
    }
    Outcome::of(rehearsal.logged(["wandb-sync", "out"])).expect(0);
}

#[test]
fn a_run_that_was_never_made_is_named_with_its_job() {
    let rehearsal = rehearsal(1000.0);
    rehearsal.dir.prepare(&[]).expect(0);
    rehearsal.spoil_wandb(&When::Always, &Action::Reset(Side::Before));
    Outcome::of(rehearsal.logged(["submit", "out", "--yes"])).expect(0);
    rehearsal.heal();
    let synced = Outcome::of(rehearsal.logged(["wandb-sync", "out", "--json"])).expect(0);
    let job = &rehearsal.jobs()[0]["id"];
    let tag = &rehearsal.ledgers()[0]["tag"];
    assert_eq!(synced.json()["not_made"], json!([{ "run": tag, "job": job }]));
    assert!(
        synced.stderr.contains(&format!("ctxtune monitor {}", job.as_str().unwrap())),
        "{}",
        synced.stderr
    );
    assert!(rehearsal.server.wandb_runs().is_empty());
}

/// Has the real `wandb sync` upload the run at `path`; whether it is here.
fn upload(rehearsal: &Rehearsal, path: &str) -> bool {
    let Some(python) = python() else { return false };
    let program = python.get_program().to_owned();
    let version = Command::new(&program).args(["-c", "import wandb; print(wandb.__version__)"]).output();
    if !version.is_ok_and(|output| output.status.success()) {
        skip("python", "Python has no wandb");
        return false;
    }
    let mut sync = Command::new(&program);
    sync.args(["-m", "wandb", "sync", path]).current_dir(rehearsal.dir.path(""));
    sync.env(env::WANDB_API_KEY, WANDB_KEY).env(env::WANDB_BASE_URL, rehearsal.server.url());
    sync.env(env::HOME, rehearsal.dir.path("")).env_remove(env::WANDB_MODE);
    let output = sync.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// The name of every document of ours.
fn documents() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in std::fs::read_dir(repository("crates/service/src/wandb")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for kind in ["\"query ", "\"mutation "] {
            let ends = text.match_indices(kind).map(|(start, _)| &text[start + kind.len()..]);
            names.extend(ends.map(|rest| rest.split([' ', '(']).next().unwrap().to_owned()));
        }
    }
    names
}

#[test]
fn what_is_asked_of_wandb_is_valid_graphql() {
    let rehearsal = rehearsal(0.2);
    Outcome::of(rehearsal.logged(FINETUNE)).expect(0);
    rehearsal.dir.write(
        "sweep.yaml",
        "{method: random, metric: {name: val/loss, goal: minimize}, parameters: {n_epochs: {values: [1, 2]}}}",
    );
    // The second time it looks for what the first has run.
    for count in ["--count=1", "--count=2"] {
        let fixed = ["sweep", "run", "sweep.yaml", "--data-dir=corpus", "--output-dir=out", "--no-sync"];
        Outcome::of(rehearsal.logged(fixed.iter().chain(&["--yes", count]))).expect(0);
    }
    let bodies = rehearsal.requests("POST /graphql$").into_iter().map(|seen| seen.body);
    let bodies: Vec<Value> = bodies.map(|body| serde_json::from_slice(&body).unwrap()).collect();
    let asked = bodies.iter().map(|body| body["operationName"].as_str().unwrap().to_owned());
    assert_eq!(asked.collect::<BTreeSet<_>>(), documents());
    let Some(mut check) = python() else { return };
    let lines: String = bodies.iter().map(|body| format!("{body}\n")).collect();
    rehearsal.dir.write("bodies.jsonl", lines);
    check.arg(repository("tests/it/wandb_schema.py")).arg(repository("tests/it/wandb_schema.graphql"));
    check.stdin(File::open(rehearsal.dir.path("bodies.jsonl")).unwrap());
    let checked = Outcome::of(check);
    if checked.code == Some(77) {
        return skip("python", "this Python has no `graphql-core`");
    }
    assert_eq!(checked.expect(0).stdout, "");
}
