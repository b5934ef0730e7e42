//! What README says is so: its commands run, and its tables leave nothing out.

use std::collections::BTreeSet;

use ctxtune::prepare::reject::Code;

use crate::support::{Dir, repository};

/// The commands whose flags a reader may look up.
const COMMANDS: [&str; 9] =
    ["prepare", "check", "upload", "submit", "monitor", "finetune", "generate", "score", "rehearse"];

fn readme() -> String {
    std::fs::read_to_string(repository("README.md")).unwrap()
}

/// The first cells of all table rows; one cell can name several codes.
fn first_cells(readme: &str) -> BTreeSet<String> {
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    rows.flat_map(|(cell, _)| cell.split(", ").map(|code| code.trim_matches('`').to_owned())).collect()
}

#[test]
fn the_first_command_of_a_newcomer_shows_the_whole_pipeline() {
    let rehearse = "cargo run --release -- rehearse";
    assert_eq!(readme().lines().find(|line| line.starts_with("cargo ")), Some(rehearse));
    let outcome = Dir::new().ctxtune(["rehearse", "--job-seconds", "0.5"]).expect(0);
    for step in [
        "Step 1: Preparing data",
        "Step 2: Up",
        "Step 3: Cr",
        "Step 4: Mon",
        "Step 5: Us",
        "nothing is trained",
    ] {
        assert!(outcome.stderr.contains(step), "{step}: {}", outcome.stderr);
    }
    assert_eq!(outcome.stdout.matches('\n').count(), 1, "the model's name: {}", outcome.stdout);
    assert!(outcome.stdout.starts_with("rehearsal/"), "{}", outcome.stdout);
}

#[test]
fn the_two_commands_of_a_newcomer_stand_there_and_work() {
    let readme = readme();
    let command = |line: &str| assert!(readme.lines().any(|found| found == line), "README lacks `{line}`");
    command("cargo test");
    let prepare = "cargo run --release -- prepare fixtures/contexts --output-dir out";
    command(prepare);

    let contexts = repository("fixtures/contexts");
    let (_, arguments) = prepare.split_once(" -- ").unwrap();
    let arguments = arguments.split(' ').map(|argument| match argument {
        "fixtures/contexts" => contexts.to_str().unwrap(),
        other => other,
    });
    let dir = Dir::new();
    let outcome = dir.ctxtune(arguments).expect(0);
    assert_eq!(outcome.stdout, "out\n");
    assert_eq!(dir.keys("train").len() + dir.keys("val").len(), 24);
    assert!(readme.contains("the 24 example records"));
}

#[test]
fn every_flag_is_explained() {
    for command in COMMANDS {
        explains_flags_of(command);
    }
}

fn explains_flags_of(command: &str) {
    let help = Dir::new().ctxtune([command, "--help"]).expect(0).stdout;
    let is_flag = |word: &&str| word.starts_with("--") && word.len() > 2;
    let flags: BTreeSet<&str> = help
        .split(|character: char| !character.is_ascii_alphanumeric() && character != '-')
        .filter(is_flag)
        .filter(|flag| *flag != "--help")
        .collect();
    assert!(flags.contains("--json"), "{command}: {flags:?}");
    let readme = readme();
    for flag in flags {
        let key = flag.trim_start_matches('-').replace('-', "_");
        let ways = [format!("`{flag}`"), format!("`{flag} "), format!("`{flag}="), format!("`{key}`")];
        assert!(ways.iter().any(|way| readme.contains(way)), "{flag} of `{command}`");
    }
}

#[test]
fn every_exit_code_and_reject_code_is_explained() {
    let cells = first_cells(&readme());
    for exit in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "130", "143"] {
        assert!(cells.contains(exit), "exit code {exit}");
    }
    for code in Code::ALL {
        assert!(cells.contains(code.as_str()), "reject code {code}");
    }
}
