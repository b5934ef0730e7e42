//! The shape of the source: what the compiler does not see. It guards the arrows between crates; this, those between
//! the folders of one crate, and what no crate below the terminal may do.
//!
//! ARCHITECTURE.md says why.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::repository;

/// A Rust file of one of the crates.
struct Module {
    /// Its path in the repository, with `/`: `src/cli/mod.rs`, `crates/engine/src/json.rs`.
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

    /// The crate it belongs to, as its folder is called; `ctxtune` for the package at the root.
    fn crate_name(&self) -> &str {
        self.path.strip_prefix("crates/").map_or("ctxtune", |path| path.split('/').next().unwrap())
    }

    /// The part of its crate: `prepare` for `crates/engine/src/prepare/list.rs`, `json` for `crates/engine/src/json.rs`.
    fn part(&self) -> &str {
        let (_, path) = self.path.split_once("src/").unwrap();
        path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Every path into the crate that its code names, without `crate::`.
    fn edges(&self) -> Vec<String> {
        let code: String = self.code().map(|(_, line)| format!("{}\n", line.trim_start())).collect();
        // `main.rs` sees the library from outside.
        let root = if self.path == "src/main.rs" { "ctxtune::" } else { "crate::" };
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
    let root = repository("");
    let roots = ["src", "crates"].map(|name| root.join(name));
    let files =
        roots.iter().flat_map(|root| walkdir::WalkDir::new(root).sort_by_file_name()).map(Result::unwrap);
    let modules: Vec<Module> = files
        .filter(|file| file.path().extension().is_some_and(|extension| extension == "rs"))
        .map(|file| Module {
            path: file.path().strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/"),
            text: std::fs::read_to_string(file.path()).unwrap(),
        })
        .collect();
    assert!(modules.len() > 200, "the crates have {} modules", modules.len());
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
        found.extend(lines.map(|(number, line)| format!("{}:{number}: {}", module.path, line.trim())));
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

/// Which crates of ours a crate may know; `rehearsal` is known to the terminal, which starts it, and to tests.
const CRATES: [(&str, &[&str]); 8] = [
    ("ctxtune", &["engine", "pipeline", "rehearsal", "service", "store"]),
    ("store", &["engine"]),
    ("pipeline", &["engine", "python-json", "service", "tokens"]),
    ("service", &["python-json"]),
    ("engine", &["python-json"]),
    ("python-json", &[]),
    ("rehearsal", &[]),
    ("tokens", &[]),
];

/// Which parts of its crate a part may know besides itself. Imports point down.
fn may_know(part: &str) -> &'static [&'static str] {
    match part {
        "main" => &["commands"],
        "commands" => &["args", "screen", "session", "signals"],
        "session" => &["args", "config", "env", "failure", "job", "screen", "signals", "text", "ui", "value"],
        "screen" => &["args"],
        // The pipeline: what a failure says of every error below, and what a workflow needs beside its order.
        "failure" => &["config", "deploy", "env", "generate", "job", "session", "shell"],
        "signals" => &["failure"],
        "slurm" => &["failure", "shell"],
        "ui" => &["job", "signals"],
        "text" => &["job"],
        "job" => &["config", "env", "failure", "session", "shell", "signals", "text", "ui", "value"],
        "sweep" => &["config", "env", "failure", "job", "session", "text", "ui"],
        "deploy" => &["failure", "job", "session", "shell", "text", "ui"],
        "generate" => &["config", "deploy", "env", "failure", "job", "session", "text", "ui"],
        "preview" => &["failure", "job", "session", "shell"],
        "report" => &["failure", "job", "preview", "session", "signals", "sweep", "text"],
        "finetune" => &["config", "failure", "job", "session", "sweep"],
        "config" => &["job", "value"],
        "wandb" | "together" => &["clock", "http"],
        "http" => &["clock"],
        // The store: a place over a client, and what it does with many requests at once.
        "bucket" => &["address", "client", "connector", "list", "read", "runner", "settings", "upload"],
        "read" | "upload" => &["client", "runner"],
        "client" => &["address", "connector", "failure", "list", "s3", "settings"],
        "list" => &["failure", "s3"],
        "s3" => &["address", "connector", "credentials", "failure", "settings"],
        "credentials" => &["failure", "settings"],
        "connector" => &["settings"],
        "check" => &["output", "read_buffer", "source", "special_token"],
        "score" => &["answer_file", "error", "line", "output", "prepare", "record", "source", "watch"],
        "prepare" => &[
            "address",
            "check",
            "error",
            "json",
            "line",
            "output",
            "parallel",
            "ratio",
            "read_buffer",
            "record",
            "source",
            "special_token",
            "split",
            "watch",
        ],
        "parts" => &[
            "address",
            "error",
            "json",
            "line",
            "output",
            "prepare",
            "read_buffer",
            "record",
            "source",
            "split",
            "storage",
            "watch",
        ],
        "storage" => &["source"],
        "output" => &["answer_file", "error", "json", "parallel", "record", "source", "watch"],
        "source" => &["address", "error", "json", "read_buffer", "record", "split", "watch"],
        "line" => &["json", "record", "yaml"],
        "split" => &["class", "json", "ratio", "record"],
        "tokenizer" => &["bpe", "class", "split"],
        "file" => &["bpe", "split", "tokenizer"],
        "chat" => &["tokenizer"],
        "record" => &["json", "mask", "ratio"],
        // An error names what any folder has found.
        "error" => &["output", "parallel", "ratio", "record", "source"],
        "watch" => &["error"],
        "json" => &["mask"],
        _ => &[],
    }
}

#[test]
fn the_crates_know_each_other_in_one_direction() {
    for (name, allowed) in CRATES {
        let path =
            if name == "ctxtune" { "Cargo.toml".to_owned() } else { format!("crates/{name}/Cargo.toml") };
        let manifest = std::fs::read_to_string(repository(&path)).unwrap();
        let (_, dependencies) = manifest.split_once("\n[dependencies]\n").unwrap();
        let dependencies = dependencies.split("\n[").next().unwrap();
        let ours = dependencies.lines().filter_map(|line| line.strip_prefix("ctxtune-")?.split(' ').next());
        let mut ours: Vec<&str> = ours.collect();
        ours.sort_unstable();
        assert_eq!(ours, allowed, "{path}");
    }
    let folders = std::fs::read_dir(repository("crates")).unwrap().count();
    assert_eq!(folders + 1, CRATES.len(), "a crate below crates/ is new: say above what it may know");
}

#[test]
fn the_engine_and_the_rehearsal_need_no_network_client_and_no_terminal() {
    for (package, own_server) in [("ctxtune-engine", false), ("ctxtune-rehearsal", true)] {
        let tree = std::process::Command::new(env!("CARGO"))
            .args([
                "tree",
                "--package",
                package,
                "--edges",
                "normal",
                "--prefix",
                "none",
                "--locked",
                "--offline",
            ])
            .current_dir(repository(""))
            .output()
            .unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let tree = String::from_utf8(tree.stdout).unwrap();
        let packages: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(packages.contains("serde_json"), "{tree}");
        for banned in ["ureq", "rustls", "ring", "indicatif", "console", "clap", "tokio", "hyper"] {
            assert!(!packages.contains(banned), "{package} needs {banned}");
        }
        assert_eq!(packages.contains("httparse"), own_server, "{package}");
    }
}

#[test]
fn only_the_store_brings_an_async_runtime_and_only_with_the_feature_cloud() {
    let packages = |more: &[&str]| {
        let tree = ["tree", "--edges", "normal", "--prefix", "none", "--locked", "--offline", "--package"];
        let mut cargo = std::process::Command::new(env!("CARGO"));
        let tree = cargo.args(tree).args(more).current_dir(repository("")).output().unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let tree = String::from_utf8(tree.stdout).unwrap();
        tree.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<BTreeSet<String>>()
    };
    let (plain, cloud) = (packages(&["ctxtune"]), packages(&["ctxtune", "--features", "cloud"]));
    for package in ["ctxtune-store", "object_store", "reqwest", "tokio", "chrono"] {
        assert!(!plain.contains(package) && cloud.contains(package), "{package}");
    }
    assert!(plain.contains("ureq") && !cloud.contains("aws-lc-sys"));
}

#[test]
fn imports_point_down() {
    let mut offences = Vec::new();
    for module in modules() {
        let allowed = may_know(module.part());
        // A crate of one part has no arrows of its own to guard.
        if ["rehearsal", "python-json"].contains(&module.crate_name()) {
            continue;
        }
        for edge in module.edges() {
            let known = edge.split("::").next().unwrap();
            if known != module.part() && !allowed.contains(&known) {
                offences.push(format!("{} may not know `{edge}`", module.path));
            }
        }
    }
    expect_none(offences);
}

/// The file of its crate that a path into it leads to: the longest beginning of the path that is a module.
fn file_of<'m>(modules: &'m [Module], from: &Module, edge: &str) -> Option<&'m Module> {
    let parts: Vec<&str> = edge.split("::").filter(|part| *part != "self").collect();
    (1..=parts.len()).rev().find_map(|length| {
        let path = parts[..length].join("/");
        modules.iter().find(|module| {
            let (_, own) = module.path.split_once("src/").unwrap();
            let own = own.trim_end_matches(".rs").trim_end_matches("/mod");
            module.crate_name() == from.crate_name() && own == path
        })
    })
}

#[test]
fn no_file_imports_one_that_imports_it() {
    let modules = modules();
    let imported = |module: &Module| -> BTreeSet<&str> {
        let files = module.edges().into_iter().filter_map(|edge| file_of(&modules, module, &edge));
        files.map(|file| file.path.as_str()).filter(|path| *path != module.path).collect()
    };
    let imports: BTreeMap<&str, BTreeSet<&str>> =
        modules.iter().map(|module| (module.path.as_str(), imported(module))).collect();
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 800, "too few imports are seen");
    let mut circles = Vec::new();
    for path in imports.keys() {
        let (mut reached, mut next) = (BTreeSet::new(), vec![*path]);
        while let Some(path) = next.pop() {
            next.extend(imports[path].iter().filter(|path| reached.insert(**path)));
        }
        if reached.contains(path) {
            circles.push(format!("{path} is imported by what it imports"));
        }
    }
    expect_none(circles);
}

#[test]
fn no_folder_of_the_engine_knows_itself_through_others() {
    let is_folder = |part: &str| repository("crates/engine/src").join(part).is_dir();
    let mut knows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for module in modules() {
        if module.crate_name() == "engine" && is_folder(module.part()) {
            let known =
                module.edges().into_iter().filter_map(|edge| Some(edge.split("::").next()?.to_owned()));
            let others = known.filter(|known| known != module.part() && is_folder(known));
            knows.entry(module.part().to_owned()).or_default().extend(others);
        }
    }
    assert!(knows.len() > 5, "the engine has the folders {knows:?}");
    // Whoever knows nobody goes, again and again: circles stay, with whoever leads to one.
    while let Some(lowest) = knows.iter().find_map(|(part, others)| others.is_empty().then(|| part.clone())) {
        knows.remove(&lowest);
        knows.values_mut().for_each(|others| {
            others.remove(&lowest);
        });
    }
    expect_none(knows.iter().map(|(part, others)| format!("`{part}` knows {others:?}")).collect());
}

#[test]
fn edges_are_seen() {
    // Should the reading break, the tests beside this one would allow everything.
    let modules = modules();
    let edges = |path: &str| modules.iter().find(|module| module.path == path).unwrap().edges();
    assert!(edges("src/main.rs").contains(&"commands::run".to_owned()));
    assert!(edges("src/commands/mod.rs").contains(&"screen::report::Terminal".to_owned()));
    assert!(edges("crates/engine/src/check/mod.rs").iter().any(|edge| edge.starts_with("output::manifest")));
}

#[test]
fn paths_go_through_the_root() {
    // `super::` and `self::` would be edges that nobody guards.
    expect_none(offences(&modules(), |line| line.contains("super::") || has_word(line, "self::")));
}

#[test]
fn the_engine_knows_no_network_clock_environment_or_terminal() {
    let engine: Vec<Module> =
        modules().into_iter().filter(|module| module.crate_name() == "engine").collect();
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
        modules().into_iter().filter(|module| module.crate_name() != "ctxtune").collect();
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
fn the_map_names_every_folder_and_none_that_is_gone() {
    let map = std::fs::read_to_string(repository("ARCHITECTURE.md")).unwrap();
    let modules = modules();
    let folders: BTreeSet<String> =
        modules.iter().map(|module| format!("{}/", module.path.rsplit_once('/').unwrap().0)).collect();
    let missing = folders.iter().filter(|folder| !map.contains(&format!("`{folder}`")));
    expect_none(missing.map(|folder| format!("ARCHITECTURE.md does not name `{folder}`")).collect());
    let named = map.lines().filter(|line| line.starts_with('|')).flat_map(|row| row.split('`'));
    let gone = named.filter(|name| {
        name.contains('/') && !name.contains(' ') && !repository(name.trim_end_matches('/')).exists()
    });
    expect_none(gone.map(|name| format!("ARCHITECTURE.md names `{name}`, which is not there")).collect());
}

#[test]
fn nothing_is_unsafe_unfinished_or_unwrapped() {
    let words = ["unsafe", "todo!", "unimplemented!", "dbg!"];
    expect_none(offences(&modules(), |line| {
        words.iter().any(|word| line.contains(word)) || line.contains(".unwrap()")
    }));
}
