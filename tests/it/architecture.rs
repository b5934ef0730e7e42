//! The shape of the source, read from `src/`: which module may know which, and what none may do.
//!
//! ARCHITECTURE.md says why. The reading is as simple as rustfmt's output allows: a block
//! ends at a closing brace with the indentation of its first line.

use std::collections::BTreeSet;

use crate::support::repository;

/// A Rust file below `src/`.
struct Module {
    /// Its path below `src/`, with `/`.
    path: String,
    text: String,
}

impl Module {
    /// The lines before its tests, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines_before_tests()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(number, line)| (number, line.split_once(" // ").map_or(line, |(code, _)| code)))
    }

    /// Numbered from 1.
    fn lines_before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_code = |line: &&str| *line != "#[cfg(test)]";
        self.text.lines().take_while(is_code).enumerate().map(|(index, line)| (index + 1, line))
    }

    /// The part of the crate it belongs to: `prepare` for `prepare/list.rs`, `json` for `json.rs`.
    fn part(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Every path into the crate that its code names, without `crate::`.
    fn edges(&self) -> Vec<String> {
        let code: String = self.code().map(|(_, line)| format!("{}\n", line.trim_start())).collect();
        // `main.rs` sees the library from outside.
        let root = if self.path == "main.rs" { "ctxtune::" } else { "crate::" };
        code.match_indices(root).flat_map(|(start, _)| expand(&code[start + root.len()..])).collect()
    }
}

/// The paths that a path with braces stands for: `a::{b, c::{d, e}}` for `a::b`, `a::c::d`, `a::c::e`.
fn expand(code: &str) -> Vec<String> {
    let is_of_path = |character: char| character.is_alphanumeric() || "_:*".contains(character);
    let end = code.find(|character| !is_of_path(character)).unwrap_or(code.len());
    let (path, rest) = code.split_at(end);
    let Some(inside) = rest.strip_prefix('{') else { return vec![path.to_owned()] };
    let mut paths = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (index, character) in inside.char_indices() {
        let ends_item = depth == 0 && matches!(character, ',' | '}');
        if ends_item && !inside[start..index].trim().is_empty() {
            paths.extend(
                expand(inside[start..index].trim()).into_iter().map(|inner| format!("{path}{inner}")),
            );
        }
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
        if ends_item {
            start = index + 1;
        }
    }
    paths
}

#[test]
fn braces_in_a_path_are_expanded() {
    assert_eq!(expand("json::KeyText;"), ["json::KeyText"]);
    assert_eq!(expand("a::{b, c::{\nd, e\n},\n};"), ["a::b", "a::c::d", "a::c::e"]);
    assert_eq!(expand("{a::{self, B}, c};"), ["a::self", "a::B", "c"]);
    assert_eq!(expand("cli::run(arguments)"), ["cli::run"]);
}

fn modules() -> Vec<Module> {
    let root = repository("src");
    let files = walkdir::WalkDir::new(&root).sort_by_file_name().into_iter().map(Result::unwrap);
    let modules: Vec<Module> = files
        .filter(|file| file.path().extension().is_some_and(|extension| extension == "rs"))
        .map(|file| Module {
            path: file.path().strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/"),
            text: std::fs::read_to_string(file.path()).unwrap(),
        })
        .collect();
    assert!(modules.len() > 20, "src/ has {} modules", modules.len());
    modules
}

/// Fails with every offence there is, one a line.
#[track_caller]
fn expect_none(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

/// Every line of code in `modules` that `is_offence`, by its place.
fn offences<'m>(
    modules: impl IntoIterator<Item = &'m Module>,
    is_offence: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for module in modules {
        let lines = module.code().filter(|(_, line)| is_offence(line));
        found.extend(lines.map(|(number, line)| format!("src/{}:{number}: {}", module.path, line.trim())));
    }
    found
}

/// Whether `word` occurs in `line` as a word of its own.
fn has_word(line: &str, word: &str) -> bool {
    let is_of_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(start, _)| {
        !line[..start].ends_with(is_of_word) && !line[start + word.len()..].starts_with(is_of_word)
    })
}

/// Which parts of the crate a part may know besides itself. Imports point down.
fn may_know(part: &str) -> &'static [&'static str] {
    match part {
        // The front page names every part, and nothing else.
        "lib" => &[],
        "main" => &["cli"],
        "cli" => &[
            "check",
            "clock",
            "config",
            "env",
            "generate",
            "http",
            "json",
            "lock",
            "manifest",
            "prepare",
            "rehearsal",
            "score",
            "together",
            "tune",
            "wandb",
            "yaml",
        ],
        "config" => &["prepare", "tune", "yaml"],
        "generate" => {
            &["answer_file", "clock", "http", "json", "manifest", "prepare", "python_json", "together"]
        }
        "tune" => &["clock", "http", "manifest", "together", "wandb", "yaml"],
        "wandb" => &["clock", "http", "python_json"],
        "together" => &["clock", "http", "python_json"],
        "http" => &["clock", "python_json"],
        "rehearsal" => &["clock", "yaml"],
        "check" => &["manifest", "python_json", "special_token"],
        "score" => &["answer_file", "manifest", "prepare"],
        "prepare" => {
            &["answer_file", "lock", "manifest", "json", "mask", "python_json", "special_token", "yaml"]
        }
        "manifest" => &["json"],
        "json" => &["mask"],
        "answer_file" | "env" | "mask" | "python_json" | "special_token" | "clock" | "lock" | "yaml" => &[],
        _ => {
            panic!("`{part}` is a new part of the crate: say here, and in ARCHITECTURE.md, what it may know")
        }
    }
}

#[test]
fn imports_point_down() {
    let mut offences = Vec::new();
    for module in modules() {
        let allowed = may_know(module.part());
        for edge in module.edges() {
            let known = edge.split("::").next().unwrap();
            if known != module.part() && !allowed.contains(&known) {
                offences.push(format!("src/{} may not know `{edge}`", module.path));
            }
        }
    }
    expect_none(offences);
}

#[test]
fn edges_are_seen() {
    // Should the reading break, the tests beside this one would allow everything.
    let modules = modules();
    let edges = |path: &str| modules.iter().find(|module| module.path == path).unwrap().edges();
    assert!(edges("main.rs").contains(&"cli::run".to_owned()));
    assert!(edges("cli/mod.rs").contains(&"cli::exit::Exit".to_owned()));
    assert!(edges("config/prepare.rs").contains(&"prepare::split::Ratio".to_owned()));
}

#[test]
fn paths_go_through_the_root() {
    // `super::` and `self::` would be edges that nobody guards.
    expect_none(offences(&modules(), |line| line.contains("super::") || has_word(line, "self::")));
}

#[test]
fn the_configuration_knows_only_the_option_types_of_the_engine() {
    let options = [
        "group",
        "reject",
        "source",
        "split",
        "template",
        "Durability",
        "Mode",
        "Options",
        "Purpose",
        "Readers",
    ];
    let mut offences = Vec::new();
    for module in modules().iter().filter(|module| module.part() == "config") {
        let edges = module.edges();
        let known = edges.iter().filter_map(|edge| edge.strip_prefix("prepare::"));
        let strange = known.filter(|name| !options.contains(&name.split("::").next().unwrap()));
        offences.extend(strange.map(|name| format!("src/{} knows `prepare::{name}`", module.path)));
    }
    expect_none(offences);
}

#[test]
fn the_engine_knows_no_network_clock_environment_or_terminal() {
    let engine: Vec<Module> = modules()
        .into_iter()
        .filter(|module| ["prepare", "check", "score"].contains(&module.part()))
        .collect();
    let paths =
        ["std::net", "std::env", "process::exit", "process::Command", "indicatif", "clap", "signal_hook"];
    // As words, since `use std::{env, net}` names them without their path.
    // Not `stdin`: a source can be standard input.
    let words = ["SystemTime", "Instant", "TcpStream", "stdout", "stderr", "IsTerminal"];
    expect_none(offences(&engine, |line| {
        paths.iter().any(|path| line.contains(path)) || words.iter().any(|word| has_word(line, word))
    }));
    expect_none(offences(&engine, |line| {
        line.contains("std::{") && (has_word(line, "env") || has_word(line, "net"))
    }));
}

#[test]
fn only_the_terminal_reads_the_environment_and_the_clock() {
    let below: Vec<Module> =
        modules().into_iter().filter(|module| !["cli", "main"].contains(&module.part())).collect();
    let reads = ["env::var", "env::vars", "env::args", "SystemTime::now", "Instant::now"];
    expect_none(offences(&below, |line| reads.iter().any(|read| line.contains(read))));
}

#[test]
fn every_module_opens_with_what_it_is() {
    let has_header = |module: &Module| module.text.starts_with("//! ");
    expect_none(
        modules().iter().filter(|module| !has_header(module)).map(|module| module.path.clone()).collect(),
    );
}

#[test]
fn every_file_is_on_the_map() {
    let map = std::fs::read_to_string(repository("ARCHITECTURE.md")).unwrap();
    let is_named = |module: &Module| {
        let file = module.path.rsplit('/').next().unwrap();
        let folder = module.path.rsplit_once('/').map(|(folder, _)| format!("{folder}/"));
        map.contains(&format!("`{file}`")) && folder.is_none_or(|folder| map.contains(&folder))
    };
    let missing = modules().into_iter().filter(|module| !is_named(module));
    expect_none(missing.map(|module| format!("ARCHITECTURE.md does not name {}", module.path)).collect());
}

#[test]
fn the_map_names_no_file_that_is_gone() {
    let map = std::fs::read_to_string(repository("ARCHITECTURE.md")).unwrap();
    let modules = modules();
    let there: BTreeSet<&str> = modules.iter().filter_map(|module| module.path.rsplit('/').next()).collect();
    let rows = map.lines().filter(|line| line.starts_with('|'));
    let named = rows.flat_map(|row| row.split('`')).filter(|name| name.ends_with(".rs"));
    expect_none(named.filter(|name| !there.contains(name)).map(str::to_owned).collect());
}

#[test]
fn nothing_is_unsafe_unfinished_or_unwrapped() {
    let words = ["unsafe", "todo!", "unimplemented!", "dbg!"];
    expect_none(offences(&modules(), |line| {
        words.iter().any(|word| line.contains(word)) || line.contains(".unwrap()")
    }));
}
