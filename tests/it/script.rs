//! The pipeline as a shell script: `scripts/prepare_and_submit.sh` against the server.

use std::process::Command;

use ctxtune_rehearsal::{Outcome as End, Script};

use crate::support::{Outcome, Rehearsal, program, repository, repository_text, skip};

/// A server whose jobs take this long and end like this, and ten records in `my corpus`.
fn scene(job_seconds: f64, outcome: End) -> Rehearsal {
    let script = Script { job_seconds, verdict_seconds: 0.0, outcome, ..Script::default() };
    let rehearsal = Rehearsal::with(script);
    rehearsal.dir.corpus(10);
    std::fs::rename(rehearsal.dir.path("corpus"), rehearsal.dir.path("my corpus")).unwrap();
    rehearsal
}

/// The script with `arguments`, in the environment of `rehearsal`.
fn run(rehearsal: &Rehearsal, arguments: &[&str]) -> Option<Outcome> {
    for tool in ["bash", "jq"] {
        let found = Command::new(tool).arg("--version").output();
        if !found.is_ok_and(|found| found.status.success()) {
            skip(tool, &format!("{tool} is not here"));
            return None;
        }
    }
    let mut command = Command::new("bash");
    command.arg(repository("scripts/prepare_and_submit.sh")).args(arguments);
    rehearsal.lend_environment(&mut command);
    command.env("CTXTUNE", program()).current_dir(rehearsal.dir.path(""));
    Some(Outcome::of(command))
}

#[test]
fn the_script_ends_with_the_models_name_and_goes_on_where_it_stopped() {
    let rehearsal = scene(0.3, End::Completed);
    let Some(first) = run(&rehearsal, &["my corpus", "out"]) else { return };
    let first = first.expect(0);
    assert_eq!(first.stdout.trim_end(), rehearsal.jobs()[0]["model_output_name"]);
    for part in ["prepared: 9 training examples", "uploaded: train.jsonl file-", "job: ft-"] {
        assert!(first.stderr.contains(part), "{part}: {}", first.stderr);
    }
    let again = run(&rehearsal, &["my corpus", "out", "--max-cost", "1"]).unwrap().expect(0);
    assert_eq!(again.stdout, first.stdout);
    assert_eq!(rehearsal.server.jobs_created(), 1);
    rehearsal.check_protocol();
}

#[test]
fn the_documented_lines_stop_what_they_deployed_however_they_end() {
    if Command::new("bash").arg("--version").output().is_err() {
        return skip("bash", "bash is not here");
    }
    let page = repository_text("docs/scripting.md");
    let blocks = page.split("```bash\n").filter_map(|block| Some(block.split_once("```")?.0));
    let lines = blocks.into_iter().find(|block| block.contains("trap ")).unwrap();
    let (rehearsal, _) = Rehearsal::tuned(0.1);
    rehearsal.dir.write("stories.jsonl", "{\"story\": \"Mia left. Noah ran.\"}\n");
    let run = |lines: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("ctxtune() {{ \"$CTXTUNE\" \"$@\"; }}\n{lines}")]);
        rehearsal.lend_environment(&mut command);
        command.env("CTXTUNE", program()).current_dir(rehearsal.dir.path(""));
        Outcome::of(command)
    };
    let stopped = |run: &Outcome| {
        assert!(run.stderr.contains("scaled to zero"), "{}", run.stderr);
        assert_eq!(rehearsal.ctxtune(["endpoints"]).expect(0).stdout, "");
    };
    let failed = run(&lines.replace("--min-score 0.3", "--min-score 1")).expect(3);
    stopped(&failed);
    assert!(!rehearsal.dir.exists("gen"));
    let whole = run(&lines.replace("--min-score 0.3", "--min-score 0")).expect(0);
    stopped(&whole);
    assert!(rehearsal.dir.exists("gen/#0.json"));
    assert_eq!(rehearsal.dir.read("scores.tsv").matches('\t').count(), 1);
}

#[test]
fn the_script_tells_a_failed_job_from_one_that_still_runs() {
    let rehearsal = scene(0.3, End::Error);
    let Some(failed) = run(&rehearsal, &["my corpus", "out"]) else { return };
    let failed = failed.expect(6);
    assert!(failed.stderr.contains("--new-job pays for another one"), "{}", failed.stderr);
    assert_eq!(failed.stdout, "");

    let rehearsal = scene(1000.0, End::Completed);
    let flags = ["my corpus", "out", "--n-epochs", "2", "--", "--timeout", "0.5"];
    let running = run(&rehearsal, &flags).unwrap().expect(8);
    assert!(running.stderr.contains("still runs: "), "{}", running.stderr);
    let job = rehearsal.jobs()[0].clone();
    assert_eq!(job["n_epochs"], 2);
    rehearsal.ask(&format!("POST /v1/fine-tunes/{}/cancel", job["id"].as_str().unwrap()), None);
    rehearsal.forward(1000.0);
    // Now `submit` itself says so.
    run(&rehearsal, &flags).unwrap().expect(7);
}

#[test]
fn the_script_ends_with_the_code_of_the_step_that_failed() {
    let rehearsal = scene(0.3, End::Completed);
    let Some(usage) = run(&rehearsal, &[]) else { return };
    assert!(usage.expect(2).stderr.contains("DATA_DIR OUT"));
    let help = run(&rehearsal, &["--help"]).unwrap().expect(0);
    assert!(help.stdout.contains("Exit codes:") && !help.stdout.contains("set -euo"), "{}", help.stdout);
    run(&rehearsal, &["nowhere", "out"]).unwrap().expect(2);
    let poor = run(&rehearsal, &["my corpus", "out", "--max-cost=0.00001"]).unwrap().expect(9);
    assert!(poor.stderr.contains("--max-cost"), "{}", poor.stderr);
    run(&rehearsal, &["my corpus", "out", "--lora-rank=128"]).unwrap().expect(2);
    assert_eq!(rehearsal.server.jobs_created(), 0);
    // A file that no longer is what was prepared; `prepare` itself would mend it.
    rehearsal.fail([crate::service::rule(
        "PUT /storage",
        ctxtune_rehearsal::faults::When::Always,
        crate::service::status(500),
    )]);
    std::fs::write(rehearsal.dir.path("my corpus/10.json"), crate::support::record(10).to_string()).unwrap();
    run(&rehearsal, &["my corpus", "out"]).unwrap().expect(5);
}
