//! Every command's help ends with examples, which a shell runs as they stand there.
//!
//! Names that only the service gives, such as a job's id, are replaced by those of the rehearsal server.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ctxtune::args::command;
use ctxtune_pipeline::env;
use ctxtune_rehearsal::{Script, WANDB_KEY};

use crate::pty::PERSON;
use crate::s3::Moto;
use crate::support::{Dir, Outcome, Rehearsal, program, python, record, signal};

/// Commands about a job that is complete, in an order that leaves the next one what it needs.
const OF_A_JOB: [&str; 17] = [
    "models",
    "status",
    "report",
    "monitor",
    "jobs",
    "checkpoints",
    "download",
    "doctor",
    "deploy",
    "generate",
    "score",
    "endpoints",
    "wandb-sync",
    "upload",
    "check",
    "files",
    "cancel",
];

/// Commands that begin with data.
const OF_DATA: [&str; 10] = [
    "init",
    "preview",
    "prepare",
    "distributed",
    "submit",
    "finetune",
    "sweep",
    "sweep run",
    "sweep init",
    "completions",
];

/// What costs money or cannot be undone, and is asked about where no flag agrees to it.
const ASKED: [&str; 5] = ["submit out", "finetune", "cancel", "files delete", "deploy"];

/// The examples in the help of `command`.
#[track_caller]
fn examples(command: &str) -> Vec<String> {
    let help = Dir::new().ctxtune(command.split(' ').chain(["--help"])).expect(0).stdout;
    let (_, examples) = help.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{command}: {help}"));
    let lines: Vec<&str> = examples.lines().take_while(|line| !line.is_empty()).collect();
    assert!(lines.len() >= 2, "{command}: {lines:?}");
    for line in &lines {
        assert!(line.starts_with("  ") && line.contains("ctxtune ") && line.len() < 80, "{command}: {line}");
    }
    lines.iter().map(|line| line.trim().to_owned()).collect()
}

/// Every file that an example names.
fn scene() -> Rehearsal {
    let script = Script {
        job_seconds: 0.1,
        verdict_seconds: 0.0,
        deployment_seconds: 0.0,
        deployed_models: vec!["my-project/contexts".to_owned()],
        ..Script::default()
    };
    let rehearsal = Rehearsal::with(script);
    let dir = &rehearsal.dir;
    dir.corpus(20);
    dir.chat_lines("chat.jsonl", 20).chat_lines("general.jsonl", 200);
    let records = dir.tree("corpus");
    for copy in ["contexts", "in", "generated", "base", "tuned"] {
        dir.plant(copy, &records);
    }
    let lines =
        |from: usize| (from..from + 10).map(|number| format!("{}\n", record(number))).collect::<String>();
    dir.write("more.jsonl.zst", zstd::encode_all(lines(100).as_bytes(), 1).unwrap());
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all("", dir.path("corpus")).unwrap();
    let tar = tar.into_inner().unwrap();
    dir.write("contexts.tar", &tar);
    dir.write("downloads/contexts.tar", &tar);
    dir.write("stories.jsonl", lines(200));
    dir.write("story.txt", "Mia entered the lounge. Noah left the lounge.");
    dir.write("training/finetune_config.yaml", "base_model: Qwen/Qwen3-8B\ndata_dir: contexts\n");
    let sweep = "method: grid\nmetric: { name: val/loss, goal: minimize }\nparameters:\n  n_epochs: { values: [1, 2] }\n";
    dir.write("sweep.yaml", sweep);
    dir.write("s.yml", sweep);
    for home in [".zfunc", ".config/fish/completions"] {
        std::fs::create_dir_all(dir.path("home").join(home)).unwrap();
    }
    std::fs::create_dir(dir.path("bin")).unwrap();
    std::os::unix::fs::symlink(program(), dir.path("bin/ctxtune")).unwrap();
    dir.ctxtune(["prepare", "contexts", "-o", "out", "--no-sync"]).expect(0);
    for side in ["train.jsonl", "val.jsonl"] {
        dir.write(side, dir.read(format!("out/{side}")));
    }
    rehearsal
}

/// Gives `command` what a person's shell would have.
fn lend(rehearsal: &Rehearsal, command: &mut Command, time_scale: &str) {
    rehearsal.lend_environment(command);
    #[expect(clippy::disallowed_methods, reason = "the shell's own programs are where they are")]
    let path = std::env::var("PATH").unwrap();
    command
        .current_dir(rehearsal.dir.path(""))
        .env("PATH", format!("{}:{path}", rehearsal.dir.path("bin").display()))
        .env(env::HOME, rehearsal.dir.path("home"))
        .env(env::WANDB_API_KEY, WANDB_KEY)
        .env(env::WANDB_BASE_URL, rehearsal.server.url())
        .env(env::CTXTUNE_TIME_SCALE, time_scale)
        .env("TERM", "dumb");
}

/// Runs `line` in a shell; at a terminal, with somebody who says yes, where it asks.
fn run(rehearsal: &Rehearsal, line: &str, time_scale: &str) -> Option<Outcome> {
    let asks = ASKED.iter().any(|command| line.starts_with(&format!("ctxtune {command}")))
        && !["--yes", "--max-cost", "--dry-run"].iter().any(|flag| line.contains(flag));
    let mut command = if asks {
        let mut command = python()?;
        command.args(["-c", PERSON, "y\\n", "[y/N] ", "/bin/sh"]);
        command
    } else {
        Command::new("/bin/sh")
    };
    lend(rehearsal, &mut command, time_scale);
    command.args(["-c", line]);
    Some(Outcome::of(command))
}

#[track_caller]
fn check(rehearsal: &Rehearsal, line: &str, time_scale: &str) {
    let Some(outcome) = run(rehearsal, line, time_scale) else { return };
    assert_eq!(outcome.code, Some(0), "{line}\nstdout: {}\nstderr: {}", outcome.stdout, outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{line}: {}", outcome.stderr);
}

#[test]
fn the_examples_about_a_job_run() {
    let rehearsal = scene();
    let other = Rehearsal::with(Script {
        key: "of-another".to_owned(),
        deployed_models: vec!["contexts".to_owned()],
        ..Script::default()
    });
    let submit = |flags: &[&str]| {
        let submit = ["submit", "out", "--yes", "--base-model=Qwen/Qwen3-8B"];
        let job = rehearsal.ctxtune([&submit[..], flags].concat()).expect(0);
        job.stdout.trim_end().to_owned()
    };
    let mut job = submit(&[]);
    rehearsal.ctxtune(["monitor", &job]).expect(0);
    let checkpoints = rehearsal.ctxtune(["checkpoints", &job]).expect(0).stdout;
    let step = checkpoints.split('\t').next().unwrap();
    for command in OF_A_JOB {
        for (number, line) in examples(command).into_iter().enumerate() {
            let mut line = line.replace("http://gpu7:8000", other.server.url());
            if command == "cancel" {
                rehearsal.server.set_script(|script| script.job_seconds = 1000.0);
                // One that is being cancelled is still found.
                job = submit(&["--new-job", &format!("--n-epochs={}", number + 1)]);
                line = line.replace("$JOB", &job);
            }
            if command == "files" {
                let files: Vec<String> =
                    rehearsal.files().iter().map(|file| file["id"].as_str().unwrap().to_owned()).collect();
                line = line.replace("file-0123abcd", &files[0]).replace("file-4567ef01", &files[1]);
            }
            line =
                line.replace("ft-0123abcd", &job).replace("--checkpoint 40", &format!("--checkpoint {step}"));
            if command == "generate" {
                line = format!("export OPENAI_API_KEY=of-another; {line}");
            }
            check(&rehearsal, &line, "0.0001");
        }
    }
    assert!(rehearsal.server.violations().is_empty(), "{:?}", rehearsal.server.violations());
}

#[test]
fn the_examples_about_data_run() {
    let rehearsal = scene();
    for command in OF_DATA {
        for mut line in examples(command) {
            if line.contains("s3://bucket/") {
                let Some(moto) = Moto::get() else { continue };
                moto.upload("bucket", "contexts/", &rehearsal.dir.path("contexts"));
                line = moto.export() + &line;
            }
            check(&rehearsal, &line, "0.02");
        }
    }
    assert!(rehearsal.server.violations().is_empty(), "{:?}", rehearsal.server.violations());
}

#[test]
fn the_examples_of_a_rehearsal_run() {
    let rehearsal = scene();
    for line in examples("rehearse") {
        if !line.contains("--serve") {
            check(&rehearsal, &format!("{line} --job-seconds 0.2"), "1");
            continue;
        }
        let mut command = Command::new("/bin/sh");
        lend(&rehearsal, &mut command, "1");
        let line = format!("exec {}", line.replace("8080", "0"));
        command.args(["-c", &line]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "{line}: {url}");
        signal(child.id(), "TERM");
        Outcome::from(child.wait_with_output().unwrap()).expect(143);
    }
}

#[test]
fn every_command_has_examples_that_are_run() {
    let command = command();
    let mut names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    let mut run: Vec<&str> =
        OF_A_JOB.into_iter().chain(OF_DATA).chain(["rehearse"]).filter(|name| !name.contains(' ')).collect();
    names.sort_unstable();
    run.sort_unstable();
    assert_eq!(run, names);
}
