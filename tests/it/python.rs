//! The Python package in `python/`, from its source. `.ci/run` runs the same script with the installed wheel.

use std::path::Path;
use std::process::Command;

use crate::support::{Outcome, program, python, repository};

/// Where the program under test is.
fn bin() -> &'static Path {
    Path::new(program()).parent().unwrap()
}

fn python_with_package() -> Option<Command> {
    let mut command = python()?;
    command.env("PYTHONPATH", repository("python")).env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

#[test]
fn the_python_package_keeps_its_promises() {
    let Some(mut command) = python_with_package() else { return };
    command.arg(repository("tests/it/python_package.py")).arg(repository("")).arg(bin());
    let outcome = Outcome::of(command).expect(0);
    assert!(outcome.stderr.trim_end().ends_with("\nOK"), "{}", outcome.stderr);
}

/// In a notebook only Python gets the signal.
#[cfg(unix)]
#[test]
fn an_interrupted_python_returns_when_what_is_billed_has_stopped() {
    use std::process::Stdio;

    use ctxtune_pipeline::env;
    use serde_json::json;

    use crate::support::{Rehearsal, signal, wait_until};

    let (rehearsal, _) = Rehearsal::tuned(0.0);
    let Some(mut command) = python_with_package() else { return };
    rehearsal.lend_environment(&mut command);
    let script = "import os, signal, sys, ctxtune\n\
                  os.environ['PATH'] = sys.argv[1] + os.pathsep + os.environ['PATH']\n\
                  signal.signal(signal.SIGINT, signal.default_int_handler)\n\
                  try:\n    ctxtune.run('deploy', 'out', '--name=contexts', '--yes')\n\
                  except KeyboardInterrupt:\n    print('interrupted')";
    command.env(env::CTXTUNE_GRACE_SECONDS, "0.05").current_dir(rehearsal.dir.path(""));
    command.args(["-c", script]).arg(bin()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let messages = json!([{ "role": "user", "content": "Mia waits." }]);
    let question = json!({ "model": "rehearsal/contexts", "messages": messages });
    let answer = || rehearsal.ask("POST /v1/chat/completions", Some(&question));
    wait_until(&mut child, || !answer()["choices"].is_null());
    signal(child.id(), "INT");
    let outcome = Outcome::from(child.wait_with_output().unwrap()).expect(0);
    assert_eq!(outcome.stdout, "interrupted\n", "{}", outcome.stderr);
    assert!(answer()["choices"].is_null(), "{}", outcome.stderr);
}
