//! The process and its surroundings: signals, closed and full streams, terminals.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Dir, Outcome, PATIENCE, Tree, names, program, signal, skip, wait_until};

const PREPARE: [&str; 5] = ["prepare", "corpus", "-o", "out", "--no-sync"];

/// A run is to end this soon after a signal.
const PROMPT: Duration = Duration::from_secs(2);

/// The exit code of `child`, which is to end promptly.
#[track_caller]
fn end_promptly(child: &mut Child) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if start.elapsed() > PROMPT {
            child.kill().unwrap();
            panic!("still running {PROMPT:?} after the signal");
        }
        std::thread::yield_now();
    }
}

/// A corpus that keeps one thread busy for seconds, nearly all of it links to one record, and
/// an old result of its first 20 records.
fn long_corpus() -> (Dir, Tree) {
    let dir = Dir::new();
    dir.corpus(20).ctxtune(PREPARE).expect(0);
    let steps: Vec<_> = (0..200).map(|step| format!(r#"{{"timestep": {step}, "state": "none", "observations": {{"Mia": "none"}}, "actions": {{"Mia": "none"}}}}"#)).collect();
    let record = dir.write(
        "corpus/long.json",
        format!(
            r#"{{"story": "Mia waits.", "question": "", "answer": "", "socialized_context": {{"agents_names": ["Mia"], "socialized_context": [{}]}}}}"#,
            steps.join(",")
        ),
    );
    for number in 0..10_000 {
        std::fs::hard_link(&record, dir.path(format!("corpus/long{number}.json"))).unwrap();
    }
    let old = dir.tree("out");
    (dir, old)
}

#[test]
fn a_signal_ends_a_conversion_and_keeps_the_old_result() {
    let (dir, old) = long_corpus();
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let mut command = dir.command([&PREPARE[..], &["--threads=1", "--json"]].concat());
        let mut run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let is_converting = || {
            let shard = dir.path("out/.ctxtune-staging/train-00000.jsonl");
            shard.metadata().is_ok_and(|shard| shard.len() > 0)
        };
        wait_until(&mut run, is_converting);
        signal(run.id(), name);
        assert_eq!(end_promptly(&mut run), Some(code), "SIG{name}");
        let said = Outcome::from(run.wait_with_output().unwrap()).expect(code);
        assert_eq!(said.json()["exit"], code);
        assert_eq!(said.json()["error"]["code"], "interrupted");
        assert_eq!(names(&dir.tree("out")), names(&old));
        assert_eq!(dir.tree("out"), old);
    }
}

#[test]
fn a_signal_early_in_a_first_run_leaves_no_directory() {
    let (dir, _) = long_corpus();
    let arguments = ["prepare", "corpus", "-o", "first", "--threads=1", "-q"];
    let mut run = dir.command(arguments).stderr(Stdio::null()).spawn().unwrap();
    wait_until(&mut run, || dir.exists("first/.ctxtune-staging"));
    signal(run.id(), "TERM");
    assert_eq!(end_promptly(&mut run), Some(143));
    assert!(!dir.exists("first"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_does_not_wait_for_a_slow_disk() {
    let dir = Dir::new();
    dir.corpus(20).ctxtune(["prepare", "corpus", "-o", "out", "--seed=2"]).expect(0);
    let old = dir.tree("out");
    let mut strace = Command::new("strace");
    // Each sync takes five seconds.
    strace.args(["-f", "-qq", "-o", "strace.log", "--trace=fsync", "--inject=fsync:delay_enter=5000000"]);
    strace.args([program(), "prepare", "corpus", "-o", "out"]).current_dir(dir.path(""));
    let Ok(mut run) = strace.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        return skip("strace", "strace is not here");
    };
    let start = Instant::now();
    while !std::fs::read_to_string(dir.path("strace.log")).is_ok_and(|log| log.contains("fsync(")) {
        if run.try_wait().unwrap().is_some() {
            return skip("strace", "strace may not trace");
        }
        assert!(start.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    let holder = dir.read("out/.ctxtune.lock");
    let process = holder.split(' ').nth(1).unwrap();
    let start = Instant::now();
    signal(process, "INT");
    // It has ended once only its exit code is left of it; strace tells that after the delay.
    let has_ended = || {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"));
        status.is_ok_and(|status| status.contains("State:\tZ"))
    };
    wait_until(&mut run, has_ended);
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    assert_eq!(dir.tree("out"), old);
    assert_eq!(run.wait().unwrap().code(), Some(130));
}

/// Runs `script` in a shell, with the program and `arguments` as `"$@"`.
fn sh(dir: &Dir, script: &str, arguments: &[&str]) -> Outcome {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh", program()]).args(arguments).current_dir(dir.path(""));
    Outcome::of(shell)
}

#[test]
fn closed_streams_are_no_reason_to_fail() {
    let dir = Dir::new();
    dir.corpus(10);
    for script in ["exec \"$@\" >&-", "exec \"$@\" 2>&-", "exec \"$@\" <&-", "exec \"$@\" <&- >&- 2>&-"] {
        for flags in [&[][..], &["--json"], &["--show=1", "-v"]] {
            sh(&dir, script, &[&PREPARE, flags].concat()).expect(0);
            assert!(dir.result("out", &[]).is_some(), "{script}");
            std::fs::remove_dir_all(dir.path("out")).unwrap();
        }
    }
}

#[test]
fn closed_streams_do_not_hide_a_failure() {
    let dir = Dir::new();
    dir.corpus(10).write("corpus/bad.json", "{");
    for script in ["exec \"$@\" >&-", "exec \"$@\" 2>&-", "exec \"$@\" <&- >&- 2>&-"] {
        sh(&dir, script, &[&PREPARE[..], &["--strict", "--json"]].concat()).expect(3);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_stdout_is_a_failure_and_a_full_stderr_is_not() {
    let dir = Dir::new();
    dir.corpus(10);
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for arguments in [&PREPARE[..], &["prepare", "corpus", "-o", "out", "--json"], &["completions", "zsh"]] {
        let run = dir.command(arguments).stdout(full()).output().unwrap();
        let run = Outcome::from(run).expect(1);
        assert!(run.stderr.contains("No space left on device"), "{}", run.stderr);
    }
    assert!(dir.result("out", &[]).is_some());
    let run = dir.command(PREPARE).stderr(full()).output().unwrap();
    assert_eq!(Outcome::from(run).expect(0).stdout, "out\n");
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let dir = Dir::new();
    dir.corpus(10);
    let json = [&PREPARE[..], &["--json"]].concat();
    for arguments in [&PREPARE[..], &json, &["completions", "bash"], &["prepare", "--help"], &["--version"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = dir.command(arguments);
        command.stdout(writer);
        Outcome::of(command).expect(0);
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = dir.command(PREPARE);
    command.stderr(writer);
    assert_eq!(Outcome::of(command).expect(0).stdout, "out\n");
}

#[test]
fn what_is_no_terminal_gets_no_escape_sequences() {
    let dir = Dir::new();
    dir.corpus(10).write("corpus/bad\u{1b}[31m.json", "\u{1b}[31m");
    for flags in [&["--max-rejects=9", "--show=1"][..], &["--strict"], &["--max-rejects=9", "--json", "-v"]] {
        let run = dir.ctxtune([&PREPARE[..], flags].concat());
        assert!(run.stderr.contains("bad\\u{1b}[31m.json"), "{}", run.stderr);
        assert!(!run.stderr.contains('\u{1b}') && !run.stdout.contains('\u{1b}'), "{}", run.stderr);
    }
}

#[test]
fn shown_examples_name_their_roles() {
    let dir = Dir::new();
    dir.corpus(10);
    let run = dir.ctxtune([&PREPARE[..], &["--show=1"]].concat()).expect(0);
    let roles: Vec<&str> = run.stderr.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(roles, ["[system]", "[user]", "[assistant]"]);
    assert_eq!(run.stdout, "out\n");
    let none = dir.ctxtune(PREPARE).expect(0);
    assert!(!none.stderr.contains("[system]"), "{}", none.stderr);
}

/// What a run says on a terminal of its own, both streams together.
fn on_a_terminal(dir: &Dir, environment: Option<(&str, &str)>, flags: &[&str]) -> Option<String> {
    const PTY: &str = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut python = Command::new("python3");
    python.args(["-c", PTY, program()]).args(PREPARE).args(flags).current_dir(dir.path(""));
    python.stdin(Stdio::null()).env_remove("NO_COLOR").env("TERM", "xterm").envs(environment);
    match python.output() {
        Ok(output) => Some(Outcome::from(output).expect(0).stdout),
        Err(_) => {
            skip("python", "python3 is not here");
            None
        }
    }
}

/// The beginning of a colour, other than the sequences that move and erase.
const COLOUR: &str = "\u{1b}[1;";

#[test]
fn a_terminal_gets_a_bar_and_colours() {
    let dir = Dir::new();
    dir.corpus(300);
    let Some(said) = on_a_terminal(&dir, None, &["--show=1"]) else { return };
    assert!(said.contains("300/300 "), "{said}");
    assert!(said.contains("\u{1b}[1;33m[assistant]"), "{said}");
    assert!(said.ends_with("out\r\n"), "{said}");
    // The bar is erased before the summary is said.
    let (_, summary) = said.split_once("found").unwrap();
    assert!(!summary.contains("\u{1b}[2K"), "{summary}");
}

#[test]
fn no_color_turns_colour_off_but_not_the_bar() {
    let dir = Dir::new();
    dir.corpus(300);
    let Some(said) = on_a_terminal(&dir, Some(("NO_COLOR", "1")), &["--show=1"]) else { return };
    assert!(!said.contains(COLOUR), "{said}");
    assert!(said.contains("300/300 ") && said.contains("[assistant]"), "{said}");
    let said = on_a_terminal(&dir, Some(("NO_COLOR", "")), &[]).unwrap();
    assert!(said.contains(COLOUR), "an empty NO_COLOR means nothing: {said}");
}

#[test]
fn quiet_draws_nothing_on_a_terminal() {
    let dir = Dir::new();
    dir.corpus(300);
    let Some(said) = on_a_terminal(&dir, None, &["-q"]) else { return };
    assert_eq!(said, "out\r\n");
}
