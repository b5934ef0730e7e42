//! Settings as people write them: `~/`, values that YAML guesses, keys of other files, printed commands.

use std::process::Command;

use ctxtune_pipeline::env;

use crate::support::{Dir, Outcome, Rehearsal, program};

/// The program with `arguments` and a home directory of its own.
fn at_home(dir: &Dir, arguments: &[&str]) -> Outcome {
    let mut command = dir.command(arguments);
    command.env(env::HOME, dir.path("home")).env("USERPROFILE", dir.path("home"));
    Outcome::of(command)
}

#[test]
fn a_tilde_is_the_home_directory_in_flags_and_in_the_file() {
    let dir = Dir::new();
    dir.corpus(5);
    dir.plant("home/ctx", &dir.tree("corpus"));
    at_home(&dir, &["prepare", "corpus", "--output-dir=~/flag", "--no-sync"]).expect(0);
    dir.write("c.yaml", "data_dir: ~/ctx\noutput_dir: ~/file\n");
    at_home(&dir, &["prepare", "--config=c.yaml", "--no-sync"]).expect(0);
    at_home(&dir, &["prepare", "~/ctx", "-o~/source", "--no-sync"]).expect(0);
    for place in ["flag", "file", "source"] {
        assert!(dir.exists(format!("home/{place}/manifest.json")), "{place}");
    }
    at_home(&dir, &["check", "~/flag"]).expect(0);
    assert!(!dir.exists("~"));
}

/// What a printed command does that is typed as it stands.
#[cfg(unix)]
fn typed(dir: &Dir, command: &str) -> Outcome {
    let directory = std::path::Path::new(program()).parent().unwrap();
    let mut shell = Command::new("sh");
    let path = format!("{}:/usr/bin:/bin", directory.display());
    shell.args(["-c", command]).current_dir(dir.path("")).env("PATH", path);
    Outcome::of(shell)
}

#[cfg(unix)]
#[test]
fn a_printed_command_can_be_typed_whatever_the_path() {
    let dir = Dir::new();
    dir.corpus(5);
    for out in ["my out", "it's", "$HOME", "a;b", "-out", "ü*", "(x)"] {
        let output = format!("--output-dir={out}");
        let run = at_home(&dir, &["prepare", "corpus", &output, "--no-sync"]).expect(0);
        let next = run.stderr.lines().find_map(|line| line.strip_prefix("next")).unwrap().trim();
        assert!(next.starts_with("ctxtune check "), "{next}");
        typed(&dir, next).expect(0);
    }
}

#[cfg(unix)]
#[test]
fn a_printed_command_of_a_job_can_be_typed_whatever_the_path() {
    use ctxtune_rehearsal::{Outcome, Script};
    let rehearsal = Rehearsal::with(Script {
        outcome: Outcome::Error,
        job_seconds: 0.1,
        verdict_seconds: 0.0,
        ..Script::default()
    });
    rehearsal.dir.corpus(10);
    let run = rehearsal.ctxtune(["finetune", "corpus", "-o", "my out", "--yes", "--poll", "1s"]).expect(6);
    assert!(run.stderr.contains("ctxtune submit 'my out' --new-job"), "{}", run.stderr);
}

#[test]
fn a_key_of_another_place_is_sent_there() {
    let dir = Dir::new();
    let check = |yaml: &str, hint: &str| {
        dir.write("c.yaml", yaml);
        let run = dir.ctxtune(["prepare", "--config-path", "c.yaml"]).expect(2);
        assert!(run.stderr.contains(hint) && !run.stderr.contains("secret"), "{}", run.stderr);
    };
    check("lr: 1e-5\n", "did you mean `learning_rate`?");
    check("wandb_entity: my-team\n", "--wandb-entity");
    check("max_cost: 5\n", "`ctxtune finetune --max-cost`");
    check("show: 5\n", "`ctxtune prepare --show`");
    check("model: m\n", "did you mean `base_model`?");
    check("output: out\n", "did you mean `output_dir`?");
    check("method: grid\nparameters: {}\n", "ctxtune sweep run");
    check("messages: []\n", "template");
    check("together_api_key: secret\n", "export TOGETHER_API_KEY");
    check("hf_token: secret\n", "export HF_TOKEN");
}

#[test]
fn a_file_in_another_encoding_is_said_to_be() {
    let dir = Dir::new();
    let utf16: Vec<u8> = "\u{feff}seed: 7\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for name in ["c.yaml", "t.yaml", "s.yaml"] {
        dir.write(name, &utf16);
    }
    dir.corpus(5);
    for arguments in [
        &["prepare", "--config-path", "c.yaml"][..],
        &["prepare", "corpus", "--template", "t.yaml"],
        &["sweep", "run", "s.yaml", "--dry-run"],
    ] {
        let run = dir.ctxtune(arguments).expect(2);
        assert!(run.stderr.contains("expected UTF-8 text, got UTF-16"), "{}", run.stderr);
    }
}

#[test]
fn a_sweep_takes_whole_floats_and_sends_other_keys_to_the_configuration_file() {
    let rehearsal = Rehearsal::new();
    rehearsal.dir.corpus(10).prepare(&[]).expect(0);
    let sweep = |parameter: &str, exit: i32| {
        rehearsal.dir.write("s.yaml", format!("method: grid\nparameters:\n  {parameter}\n"));
        rehearsal.ctxtune(["sweep", "run", "s.yaml", "-o", "out", "--dry-run", "--wandb", "off"]).expect(exit)
    };
    sweep("n_epochs: {values: [2.0, 3.0]}", 0);
    let run = sweep("n_epochs: {values: [2.5]}", 2);
    assert!(run.stderr.contains("`n_epochs`: expected a whole number, got `2.5`"), "{}", run.stderr);
    let run = sweep("val_ratio: {values: [0.1, 0.2]}", 2);
    assert!(
        run.stderr.contains("in the configuration file") && !run.stderr.contains("did you mean"),
        "{}",
        run.stderr
    );
}

#[test]
fn what_is_for_tests_is_refused_where_a_service_is_on_another_machine() {
    let rehearsal = Rehearsal::new();
    rehearsal.dir.corpus(10).prepare(&[]).expect(0);
    for name in env::FOR_TESTS {
        // No address of this name is ever asked for: the refusal comes first.
        for (url, value) in
            [(env::TOGETHER_BASE_URL, "https://api.invalid"), (env::WANDB_BASE_URL, "https://wandb.invalid")]
        {
            let mut command = rehearsal.command(["doctor"]);
            if url == env::WANDB_BASE_URL {
                command = rehearsal.command(["submit", "out", "--yes"]);
                command.env(env::WANDB_API_KEY, "k".repeat(40));
            }
            command.env(url, value).env_remove(env::CTXTUNE_TIME_SCALE).env(name, "1");
            let outcome = Outcome::of(command).expect(2);
            assert!(outcome.stderr.contains(&format!("`{name}` is for tests")), "{}", outcome.stderr);
            assert!(outcome.stderr.contains(&format!("unset {name}")), "{}", outcome.stderr);
        }
    }
    assert_eq!(rehearsal.server.seen(), [], "refused before anything is sent");
}
