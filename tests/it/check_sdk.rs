//! `ctxtune check` against the client's own check: the same verdict on hundreds of files, field by field.
//!
//! Needs Python with `together` 3.1.1, named by `CTXTUNE_PYTHON`: `pip install together==3.1.1`.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use crate::support::{Dir, python, repository, skip};

/// Where the two differ on purpose.
struct Difference {
    /// The first word of the names of the files that show it.
    family: &'static str,
    /// What the client says: that the check passes, or the exception it raises (`RecursionError`
    /// comes sooner or later, depending on the version of Python).
    client: &'static [&'static str],
    /// The code with which this program refuses the second line; empty where it passes.
    code: &'static str,
}

/// The same table is in `docs/check.md`, with the reasons.
const DIFFERENCES: [Difference; 4] = [
    // Python reads them; JSON, and so a strict server, does not know them.
    Difference { family: "nonfinite", client: &["passed"], code: "non_finite" },
    // Python reads half a character; no UTF-8 can write it.
    Difference { family: "surrogate", client: &["passed"], code: "lone_surrogate" },
    // Python gives up with an exception at a depth that its version decides; here it is 10,000.
    Difference { family: "deep", client: &["passed", "RecursionError"], code: "" },
    Difference { family: "abyss", client: &["passed", "RecursionError"], code: "too_deep" },
];

const FIELDS: [&str; 8] = [
    "is_check_passed",
    "file_size",
    "utf8",
    "load_json",
    "line_type",
    "has_min_samples",
    "num_samples",
    "first_bad_line",
];

#[test]
fn the_verdict_on_structure_is_the_clients() {
    let (Some(generator), Some(client)) = (python(), python_with_together()) else { return };
    let dir = Dir::new();
    let files = dir.path("files");
    run(generator, "generate", &files);
    let client: Map<String, Value> = serde_json::from_str(&run(client, "judge", &files)).unwrap();
    let names: Vec<&String> = client.keys().collect();
    assert!(names.len() >= 200, "only {} files", names.len());

    let paths = names.iter().map(|name| files.join(name).into_os_string());
    let arguments = ["check".into(), "--json".into()].into_iter().chain(paths);
    let report = dir.ctxtune(arguments).expect(3).json();
    let ours = report["files"].as_array().unwrap();
    assert_eq!(ours.len(), names.len());

    let mut faults = Vec::new();
    let mut seen = [0; DIFFERENCES.len()];
    for (name, ours) in names.iter().zip(ours) {
        let family = name.split('-').next().unwrap();
        match DIFFERENCES.iter().position(|difference| difference.family == family) {
            None => faults.extend(fault_of(name, &client[*name], &ours["structure"])),
            Some(index) => {
                seen[index] += 1;
                let said = codes_of(&report, ours["file"].as_str().unwrap());
                faults.extend(fault_of_difference(&DIFFERENCES[index], name, &client[*name], ours, &said));
            }
        }
    }
    assert!(seen.iter().all(|files| *files > 1), "each difference is seen: {seen:?}");
    assert!(faults.is_empty(), "{} of {} differ:\n{}", faults.len(), names.len(), faults.join("\n"));
    eprintln!(
        "{} files, {} of them in {} families that differ on purpose",
        names.len(),
        seen.iter().sum::<u32>(),
        seen.len()
    );
}

fn fault_of(name: &str, client: &Value, ours: &Value) -> Option<String> {
    let differing: Vec<String> = FIELDS
        .iter()
        .filter(|field| client[**field] != ours[**field])
        .map(|field| format!("{field}: client {}, ours {}", client[*field], ours[*field]))
        .collect();
    if let Some(raised) = client.get("raised") {
        return Some(format!("{name}: the client raised {raised}"));
    }
    (!differing.is_empty()).then(|| format!("{name}: {}", differing.join("; ")))
}

fn fault_of_difference(
    difference: &Difference,
    name: &str,
    client: &Value,
    ours: &Value,
    said: &[(String, Value)],
) -> Option<String> {
    let client = match client["raised"].as_str() {
        Some(raised) => raised,
        None if client["is_check_passed"] == true => "passed",
        None => "failed",
    };
    let structure = &ours["structure"];
    let is_expected = match difference.code {
        "" => said.is_empty() && structure["is_check_passed"] == true,
        code => {
            structure["first_bad_line"] == 2
                && !said.is_empty()
                && said.iter().all(|(found, line)| found == code && *line == 2)
        }
    };
    (!is_expected || !difference.client.contains(&client))
        .then(|| format!("{name}: client {client}, ours {structure}, findings {said:?}"))
}

/// What is said about the structure of `file`: codes and lines.
fn codes_of(report: &Value, file: &str) -> Vec<(String, Value)> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["file"] == file && finding["stage"] == "structure")
        .map(|finding| (finding["code"].as_str().unwrap().to_owned(), finding["line"].clone()))
        .collect()
}

/// A Python that has the client, or `None` (and a word).
pub fn python_with_together() -> Option<Command> {
    let probe = "import together; assert together.__version__ == '3.1.1'";
    match python()?.args(["-c", probe]).output() {
        Ok(output) if output.status.success() => python(),
        _ => {
            skip(
                "python",
                "`together` 3.1.1 is not importable: pip install together==3.1.1, and name its Python in CTXTUNE_PYTHON",
            );
            None
        }
    }
}

fn run(mut python: Command, what: &str, files: &Path) -> String {
    let script = repository("tests/it/check_sdk.py");
    let output = python.arg(script).arg(what).arg(files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
