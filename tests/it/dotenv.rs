//! `.env` files: read as python-dotenv reads them, and what a line that is not understood does to a command.
//!
//! The comparison needs Python with `python-dotenv` 1.2.4 or later, named by `CTXTUNE_PYTHON`.

use ctxtune::session::dotenv;
use serde_json::{Value, json};

use crate::support::{Dir, Outcome, Rehearsal, python, repository, skip};

#[test]
fn generated_files_are_read_as_python_dotenv_reads_them() {
    let Some(mut version) = python() else { return };
    let newer = "import importlib.metadata as m; v = m.version('python-dotenv'); \
                 assert tuple(map(int, v.split('.')[:3])) >= (1, 2, 4)";
    if !version.args(["-c", newer]).output().unwrap().status.success() {
        return skip(
            "python",
            "`python-dotenv` 1.2.4 is not importable: pip install python-dotenv, and name its Python in CTXTUNE_PYTHON",
        );
    }
    let mut generator = python().unwrap();
    let output =
        generator.arg(repository("tests/it/dotenv_files.py")).args(["20271127", "12000"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let process = [("HOME", "/home/mia"), ("EMPTY", ""), ("A", "process")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let (mut files, mut whole, mut with_variables, mut differ) = (0, 0, 0, Vec::new());
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let theirs: Value = serde_json::from_str(line).unwrap();
        let ours = dotenv::read(theirs["text"].as_str().unwrap().as_bytes(), &process).unwrap();
        let skipped: Vec<usize> = ours.skipped.iter().map(|skipped| skipped.line).collect();
        files += 1;
        whole += u32::from(skipped.is_empty());
        with_variables += u32::from(!ours.variables.is_empty());
        let ours = json!({ "variables": ours.variables, "skipped": skipped });
        if ours["variables"] != theirs["variables"] || ours["skipped"] != theirs["skipped"] {
            differ.push(format!("ours:   {ours}\ntheirs: {theirs}"));
        }
    }
    assert!(
        differ.is_empty(),
        "{} of {files} differ:\n{}",
        differ.len(),
        differ[..differ.len().min(5)].join("\n")
    );
    assert_eq!(files, 12000);
    assert!(whole > 3000 && files - whole > 3000, "{whole} of {files} are understood whole");
    assert!(with_variables > 6000, "{with_variables} of {files} have a variable");
}

/// `submit --dry-run` beside a `.env`, with a key of the environment.
fn dry_run(dir: &Dir, dotenv: impl AsRef<[u8]>) -> Outcome {
    dir.write(".env", dotenv);
    let mut command = dir.command(["submit", "out", "--dry-run"]);
    command.env("TOGETHER_API_KEY", "tgp_v1_from_the_shell").env_remove("TOGETHER_BASE_URL");
    Outcome::of(command)
}

fn prepared() -> Dir {
    let dir = Dir::new();
    dir.corpus(12).prepare(&["--val-ratio", "0.2"]).expect(0);
    dir
}

#[test]
fn a_line_that_is_not_understood_hides_none_of_those_that_follow() {
    let dir = prepared();
    let url = "TOGETHER_BASE_URL=http://127.0.0.1:9\n";
    let lines: [(&[u8], Option<&str>); 8] = [
        (b"GREETING=\"hello world\"\n", None),
        (b"GREETING=hello world\n", None),
        (b"MY-VAR=1\n", None),
        (b"MSG=it's fine\n", None),
        (b"OPTS={\"a\": 1}\n", None),
        (b"\xef\xbb\xbfA=1\n", None),
        (b"A=1\r\n\r\nsecret words\r\n", Some("`.env:3`")),
        (b"NAME=Ren\xe9\n", Some("`.env:1`")),
    ];
    for (line, skipped) in lines {
        let run = dry_run(&dir, [line, url.as_bytes()].concat()).expect(0);
        assert!(run.stdout.starts_with("GET http://127.0.0.1:9/v3/whoami"), "{}", run.stdout);
        let warnings: Vec<&str> = run.stderr.lines().filter(|line| line.contains("not understood")).collect();
        assert_eq!(warnings.len(), usize::from(skipped.is_some()), "{}", run.stderr);
        assert!(run.stderr.contains(skipped.unwrap_or_default()), "{}", run.stderr);
        assert!(!run.stderr.contains("secret words") && !run.stderr.contains("Ren"), "{}", run.stderr);
    }
}

#[test]
fn a_line_about_a_service_that_is_not_understood_stops_the_command() {
    let dir = prepared();
    for line in [
        "TOGETHER_BASE_URL http://127.0.0.1:9/secret",
        "export TOGETHER_BASE_URL: secret",
        "A=1\nA='secret' TOGETHER_API_KEY='secret'",
        "WANDB_MODE disabled # secret",
        "OPENAI_API_KEY secret",
        "HF_TOKEN secret",
    ] {
        let run = dry_run(&dir, format!("{line}\nB=2\n")).expect(2);
        let at = line.lines().count();
        assert!(run.stderr.contains(&format!("`.env:{at}` is not understood")), "{}", run.stderr);
        assert!(!run.stderr.contains("secret") && run.stdout.is_empty(), "{}{}", run.stderr, run.stdout);
    }
    let utf16: Vec<u8> = "\u{feff}TOGETHER_BASE_URL=x\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(dry_run(&dir, utf16).expect(2).stderr.contains("UTF-16"));
}

#[test]
fn every_command_that_speaks_to_a_service_stops_there_before_it_asks() {
    let rehearsal = Rehearsal::new();
    rehearsal.dir.corpus(12).prepare(&[]).expect(0);
    rehearsal.dir.write(".env", "TOGETHER_BASE_URL http://127.0.0.1:9\n");
    for arguments in [
        &["finetune", "corpus", "-o", "out", "--yes"][..],
        &["upload", "out"],
        &["submit", "out", "--yes"],
        &["monitor", "ft-1"],
        &["status", "ft-1"],
        &["jobs"],
        &["doctor"],
        &["generate", "--model", "m", "Mia left."],
        &["score", "--models", "m", "--val", "out", "--yes"],
        &["wandb-sync", "out"],
    ] {
        let run = rehearsal.ctxtune(arguments).expect(2);
        assert!(run.stderr.contains("`.env:1` is not understood"), "{arguments:?}: {}", run.stderr);
    }
    assert!(rehearsal.server.seen().is_empty());
}

#[test]
fn a_dry_run_reads_the_file_beside_the_configuration_as_submit_does() {
    let dir = prepared();
    dir.write("training/c.yaml", "n_epochs: 2\n");
    dir.write("training/.env", "TOGETHER_BASE_URL=http://127.0.0.1:9\nnot understood\n");
    let submit = |config: &str| {
        let mut command = dir.command(["submit", "out", "--dry-run", "--config-path", config]);
        command.env_remove("TOGETHER_BASE_URL");
        Outcome::of(command).expect(0)
    };
    let run = submit("training/c.yaml");
    assert!(run.stdout.starts_with("GET http://127.0.0.1:9/v3/whoami"), "{}", run.stdout);
    assert_eq!(run.stderr.matches("training/.env:2").count(), 1, "{}", run.stderr);
    // The file of the working directory is not read a second time for a configuration in it.
    dir.write("c.yaml", "n_epochs: 2\n");
    dir.write(".env", "not understood\n");
    assert_eq!(submit("./c.yaml").stderr.matches(".env:1").count(), 1);
}

#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_read_stops_the_command_and_a_directory_does_not() {
    use std::os::unix::fs::PermissionsExt;
    let dir = prepared();
    let path = dir.write(".env", "TOGETHER_BASE_URL=http://127.0.0.1:9\n");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&path).is_ok() {
        skip("user", "root reads every file");
    } else {
        let run = Outcome::of(dir.command(["submit", "out", "--dry-run"])).expect(2);
        assert!(run.stderr.contains("cannot read `.env`"), "{}", run.stderr);
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    dir.ctxtune(["submit", "out", "--dry-run"]).expect(0);
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_not_taken_for_an_absent_one() {
    use std::os::unix::ffi::OsStrExt;
    let dir = prepared();
    let mut command = dir.command(["submit", "out", "--dry-run"]);
    command.env("TOGETHER_BASE_URL", std::ffi::OsStr::from_bytes(b"http://127.0.0.1:9/\xff"));
    let run = Outcome::of(command).expect(2);
    assert!(run.stderr.contains("TOGETHER_BASE_URL") && run.stdout.is_empty(), "{}", run.stderr);
}
