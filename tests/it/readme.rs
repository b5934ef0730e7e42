//! What README says is so: its commands run, and its tables leave nothing out.

use std::collections::BTreeSet;

use ctxtune::prepare::reject::Code;

use crate::support::{Dir, repository};

fn readme() -> String {
    std::fs::read_to_string(repository("README.md")).unwrap()
}

/// The first cells of all table rows; one cell can name several codes.
fn first_cells(readme: &str) -> BTreeSet<String> {
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    rows.flat_map(|(cell, _)| cell.split(", ").map(|code| code.trim_matches('`').to_owned())).collect()
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
fn every_flag_of_prepare_is_explained() {
    let help = Dir::new().ctxtune(["prepare", "--help"]).expect(0).stdout;
    let is_flag = |word: &&str| word.starts_with("--") && word.len() > 2;
    let flags: BTreeSet<&str> = help
        .split(|character: char| !character.is_ascii_alphanumeric() && character != '-')
        .filter(is_flag)
        .filter(|flag| *flag != "--help")
        .collect();
    assert!(flags.contains("--output-dir") && flags.contains("--json"), "{flags:?}");
    let readme = readme();
    for flag in flags {
        assert!(readme.contains(&format!("`{flag}`")) || readme.contains(&format!("`{flag} ")), "{flag}");
    }
}

#[test]
fn every_exit_code_and_reject_code_is_explained() {
    let cells = first_cells(&readme());
    for exit in ["0", "1", "2", "3", "130", "143"] {
        assert!(cells.contains(exit), "exit code {exit}");
    }
    for code in Code::ALL {
        assert!(cells.contains(code.as_str()), "reject code {code}");
    }
}
