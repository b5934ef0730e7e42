//! What README and `docs/` say is so: commands run, links resolve, tables leave nothing out, words are plain.
//!
//! The pages are read as simply as they are written: fences of three backticks, headings with `#`.

use std::collections::BTreeSet;

use clap::Command;
use ctxtune::args;
use ctxtune_engine::record::reject::Code;

use crate::support::{Dir, Rehearsal, assert_listed, repository, repository_text, training_keys};

#[path = "../../examples/reference.rs"]
#[allow(dead_code, reason = "the example has a `main`")]
mod reference;

#[path = "../../examples/manuals.rs"]
#[allow(dead_code, reason = "the example has a `main`")]
mod manuals;

#[path = "../../examples/reference_json.rs"]
#[allow(dead_code, reason = "the example has a `main`")]
mod reference_json;

/// Before a fence whose commands no test can run: they speak to a service with the reader's own key.
const NEEDS_ACCOUNT: &str = "<!-- needs an account -->";

/// Before a fence that no test runs for another reason, which follows: it compiles, installs or measures.
const NOT_RUN: &str = "<!-- not run: ";

/// The page that is generated from the help, whose words are those of the help.
const CLI: &str = "docs/reference/cli.md";

/// The page that is generated from the types that are printed.
const JSON: &str = "docs/reference/json.md";

struct Page {
    /// Its path in the repository, with `/`.
    name: String,
    text: String,
}

/// A fence of a page.
struct Fence {
    language: String,
    /// The line before it that is not blank.
    before: String,
    text: String,
}

impl Page {
    fn read(name: &str) -> Page {
        Page { name: name.to_owned(), text: repository_text(name) }
    }

    fn fences(&self) -> Vec<Fence> {
        let mut fences: Vec<Fence> = Vec::new();
        let (mut is_open, mut before) = (false, "");
        for line in self.text.lines() {
            match line.trim_start().strip_prefix("```") {
                Some(_) if is_open => is_open = false,
                Some(language) => {
                    let text = String::new();
                    fences.push(Fence { language: language.to_owned(), before: before.to_owned(), text });
                    is_open = true;
                }
                None if is_open => fences.last_mut().unwrap().text.push_str(&format!("{line}\n")),
                None => {}
            }
            if !line.trim().is_empty() {
                before = line;
            }
        }
        assert!(!is_open, "{}: a fence is not closed", self.name);
        fences
    }

    fn commands(&self) -> Vec<Fence> {
        self.fences()
            .into_iter()
            .filter(|fence| ["bash", "console", "sh"].contains(&&*fence.language))
            .collect()
    }

    /// The lines outside fences.
    fn prose(&self) -> Vec<&str> {
        let mut is_open = false;
        let is_prose = |line: &&str| {
            let is_fence = line.trim_start().starts_with("```");
            is_open ^= is_fence;
            !is_open && !is_fence
        };
        self.text.lines().filter(is_prose).collect()
    }

    /// What is written as code in the prose.
    fn spans(&self) -> Vec<String> {
        // A span may go over the end of a line, and not over the end of a paragraph.
        let prose = self.prose().join("\n");
        let paragraphs = prose.split("\n\n").map(|paragraph| paragraph.replace('\n', " ").replace("``", ""));
        paragraphs
            .flat_map(|text| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// The anchors of its headings, as they are made where the pages are shown.
    fn anchors(&self) -> Vec<String> {
        let headings = self.prose().into_iter().filter_map(|line| {
            let text = line.trim_start_matches('#');
            (text.len() < line.len() && text.starts_with(' ')).then_some(text.trim())
        });
        let keep = |character: char| match character {
            ' ' => Some('-'),
            '-' | '_' => Some(character),
            character if character.is_alphanumeric() => Some(character),
            _ => None,
        };
        headings.map(|heading| heading.to_lowercase().chars().filter_map(keep).collect()).collect()
    }
}

/// README and every page below `docs/`.
fn pages() -> Vec<Page> {
    let files = walkdir::WalkDir::new(repository("docs")).sort_by_file_name().into_iter().map(Result::unwrap);
    let is_page = |path: &std::path::Path| path.extension().is_some_and(|extension| extension == "md");
    let names = files
        .filter(|file| is_page(file.path()))
        .map(|file| file.path().strip_prefix(repository("")).unwrap().to_string_lossy().replace('\\', "/"));
    let pages: Vec<Page> =
        ["README.md".to_owned()].into_iter().chain(names).map(|name| Page::read(&name)).collect();
    assert!(pages.len() > 15, "docs/ has {} pages", pages.len());
    pages
}

/// Fails with every offence there is, one a line.
#[track_caller]
fn expect_none(offences: Vec<String>) {
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn readme_is_read_in_five_minutes() {
    let readme = repository_text("README.md");
    let (lines, words) = (readme.lines().count(), readme.split_whitespace().count());
    assert!(lines <= 200 && words <= 1500, "{lines} lines, {words} words");
}

#[test]
fn the_first_command_without_an_account_shows_the_whole_pipeline() {
    let readme = repository_text("README.md");
    assert!(readme.lines().any(|line| line == "ctxtune rehearse"));
    assert!(readme.contains("rehearsal: nothing was trained"));
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
fn the_examples_of_readme_are_there_and_work() {
    let readme = repository_text("README.md");
    let prepare = "ctxtune prepare fixtures/contexts --output-dir out";
    assert!(readme.lines().any(|line| line == prepare), "README lacks `{prepare}`");
    assert!(readme.contains("the 24 example records") && readme.contains("`cargo test`"));

    let contexts = repository("fixtures/contexts");
    let arguments = prepare.split(' ').skip(1).map(|argument| match argument {
        "fixtures/contexts" => contexts.to_str().unwrap(),
        other => other,
    });
    let dir = Dir::new();
    let outcome = dir.ctxtune(arguments).expect(0);
    assert_eq!(outcome.stdout, "out\n");
    assert_eq!(dir.keys("train").len() + dir.keys("val").len(), 24);
}

#[test]
fn the_reference_of_the_command_line_is_the_one_of_today() {
    assert!(reference::page() == repository_text(CLI), "{CLI} is out of date: run scripts/reference.sh");
}

#[test]
fn the_reference_of_the_json_documents_is_the_one_of_today() {
    assert!(
        reference_json::page() == repository_text(JSON),
        "{JSON} is out of date: run scripts/reference.sh"
    );
}

#[test]
fn every_field_of_the_json_documents_has_a_meaning() {
    let page = reference_json::page();
    let unexplained: Vec<&str> = page.lines().filter(|row| row.ends_with("|  |")).collect();
    assert!(unexplained.is_empty(), "fields without a doc comment: {unexplained:?}");
}

#[test]
fn every_exit_code_and_reject_code_is_explained() {
    let cells = |page: &str| -> BTreeSet<String> {
        let text = repository_text(page);
        let rows = text.lines().filter(|line| line.starts_with('|'));
        let cells = rows.flat_map(|row| row.split('|')).flat_map(|cell| cell.split(", "));
        cells.map(|code| code.trim().trim_matches('`').to_owned()).collect()
    };
    for page in ["README.md", "docs/scripting.md"] {
        let cells = cells(page);
        for exit in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "130", "143"] {
            assert!(cells.contains(exit), "exit code {exit} in {page}");
        }
    }
    let cells = cells("docs/rejects.md");
    for code in Code::ALL {
        assert!(cells.contains(code.as_str()), "reject code {code}");
    }
}

#[test]
fn every_parameter_of_a_job_is_explained() {
    let spans: BTreeSet<String> = Page::read("docs/fine-tune.md").spans().into_iter().collect();
    let missing = training_keys().into_iter().filter(|key| !spans.contains(key));
    expect_none(missing.map(|key| format!("docs/fine-tune.md does not explain `{key}`")).collect());
}

#[test]
fn every_command_has_a_manual_page_and_every_shell_a_completion_script() {
    let dir = Dir::new();
    manuals::write(&dir.path("")).unwrap();
    let files = |folder: &str| -> BTreeSet<String> {
        let files = std::fs::read_dir(dir.path(folder)).unwrap().map(Result::unwrap);
        files.map(|file| file.file_name().into_string().unwrap()).collect()
    };
    let pages: BTreeSet<String> = manual_pages(&args::command(), "ctxtune").into_iter().collect();
    assert_eq!(files("man"), pages);
    let scripts = ["_ctxtune", "_ctxtune.ps1", "ctxtune.bash", "ctxtune.elv", "ctxtune.fish"];
    let scripts: BTreeSet<String> = scripts.map(str::to_owned).into();
    assert_eq!(files("completions"), scripts);
    assert!(dir.read("man/ctxtune-sweep-run.1").contains(r"\-\-max\-cost"));
}

/// The names of the pages of `command`, which is called `name`, and of the commands below it.
fn manual_pages(command: &Command, name: &str) -> Vec<String> {
    let below = command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
    let below = below.flat_map(|below| manual_pages(below, &format!("{name}-{}", below.get_name())));
    below.chain([format!("{name}.1")]).collect()
}

/// What installs a program or runs it once, from a registry where it is given no file.
const INSTALLERS: [&str; 8] = [
    "pip install",
    "uv add",
    "uv tool install",
    "uv tool run",
    "uvx",
    "pipx install",
    "pipx run",
    "cargo install",
];

/// The part of `text` that installs our program by its name alone, if there is one.
fn by_bare_name(text: &str) -> Option<String> {
    let is_bare = |word: &str| {
        let rest = word.trim_matches(['"', '\'']).strip_prefix("ctxtune");
        rest.is_some_and(|rest| {
            rest.is_empty() || rest.starts_with(['=', '<', '>', '~', '!', '@', '[', '.', ','])
        })
    };
    let commands = text.split(['\n', '`', ';', '|', '&', '#']);
    let mut commands = commands.map(|command| command.split_whitespace().collect::<Vec<_>>().join(" "));
    commands.find(|command| {
        let mut given = INSTALLERS.iter().filter_map(|name| Some(command.split_once(*name)?.1));
        !command.contains("--from ") && given.any(|given| given.split(' ').any(is_bare))
    })
}

/// Nobody has published it: what a registry has under this name is somebody else's.
#[test]
fn no_page_installs_by_bare_name() {
    for bare in [
        "pip install -U ctxtune",
        "uv pip install 'ctxtune==0.1'",
        "try `uvx ctxtune rehearse`",
        "x && uvx ctxtune",
    ] {
        assert!(by_bare_name(bare).is_some(), "{bare}");
    }
    let files = "pip install ./ctxtune-0.1.0-py3-none-any.whl\nuvx --from dist/ctxtune.whl ctxtune rehearse\ncargo install --path .";
    assert_eq!(by_bare_name(files), None);
    let others =
        ["CONTRIBUTING.md", "CHANGELOG.md", "python/ctxtune/__init__.py", "scripts/wheel.sh"].map(Page::read);
    let found = pages().into_iter().chain(others);
    expect_none(
        found.filter_map(|page| Some(format!("{}: {}", page.name, by_bare_name(&page.text)?))).collect(),
    );
}

#[test]
fn every_field_of_the_documents_of_a_job_is_listed() {
    let (rehearsal, _) = Rehearsal::tuned(0.1);
    let base = "--base-model=Qwen/Qwen3-8B";
    for call in [
        &["check", "out"][..],
        &["upload", "out"],
        &["submit", "out", base],
        &["submit", "out", base, "--dry-run"],
        &["monitor", "out"],
        &["wandb-sync", "out"],
        &["generate", "--model=Qwen/Qwen3-8B", "Mia left. Noah ran."],
        &["generate", "--show-prompt", "Mia left. Noah ran."],
        &["generate", "corpus", "-o", "gen", "--model=Qwen/Qwen3-8B", "--yes"],
        &["score", "out", "gen"],
    ] {
        let run = rehearsal.ctxtune([call, &["--json", "-q"]].concat()).expect(0);
        assert_listed(&run.json(), call[0]);
    }
}

#[test]
fn every_link_and_anchor_resolves() {
    let mut offences = Vec::new();
    let pages = || pages().into_iter().chain([Page::read("ARCHITECTURE.md")]);
    for page in pages() {
        for line in page.prose() {
            let text: String = line.split('`').step_by(2).collect();
            for target in text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)) {
                if target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let (path, anchor) = target.split_once('#').map_or((target, None), |(p, a)| (p, Some(a)));
                let folder = page.name.rsplit_once('/').map_or("", |(folder, _)| folder);
                let name = if path.is_empty() { page.name.clone() } else { joined(folder, path) };
                let anchored = || Page::read(&name).anchors().iter().any(|known| Some(&**known) == anchor);
                if !repository(&name).exists() || anchor.is_some() && !anchored() {
                    offences.push(format!("{}: {target}", page.name));
                }
            }
        }
    }
    expect_none(offences);
}

/// The path that `path` means in `folder`.
fn joined(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The words of every `ctxtune …` in the commands of a shell, as far as they are its own.
fn calls(shell: &str) -> Vec<Vec<String>> {
    let shell = shell.replace("\\\n", " ");
    let is_of_word = |character: char| character.is_alphanumeric() || "-_/.`".contains(character);
    let starts = shell.match_indices("ctxtune ").filter(|(at, _)| !shell[..*at].ends_with(is_of_word));
    starts.map(|(at, _)| words(&shell[at..])).collect()
}

/// The words of a shell's command up to its end, without their quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for character in command.chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            (None, '\n' | ')' | '|' | '>' | '<' | ';' | '&' | '#') => break,
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().unwrap().push(character),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn calls_are_seen() {
    let calls = calls("# ctxtune\nA=$(ctxtune a \"b c\" --d=1) || ctxtune e \\\n  f >g  # h\n./ctxtune x\n");
    assert_eq!(calls, [vec!["ctxtune", "a", "b c", "--d=1"], vec!["ctxtune", "e", "f"]]);
}

#[test]
fn every_command_in_a_fence_is_one_that_the_program_takes() {
    let mut offences = Vec::new();
    for page in pages() {
        for call in page.commands().iter().flat_map(|fence| calls(&fence.text)) {
            let arguments: Vec<_> = call.iter().map(Into::into).collect();
            if let Err(error) = args::command().try_get_matches_from(args::with_dashes(arguments)) {
                offences.push(format!("{}: {}: {error}", page.name, call.join(" ")));
            }
        }
    }
    expect_none(offences);
}

/// Flags in these pages that are those of other programs, where a span begins with them.
const FLAGS_OF_OTHERS: [&str; 8] = [
    "--address",
    "--cpus-per-task",
    "--features",
    "--include",
    "--max-lora-rank",
    "--pip",
    "--private",
    "--task-timeout",
];

#[test]
fn every_flag_and_command_in_the_text_exists() {
    let mut root = args::command();
    root.build();
    let all = flags(&root);
    let mut offences = Vec::new();
    for page in pages().iter().filter(|page| page.name != CLI) {
        for span in page.spans() {
            let mut words =
                span.split([' ', '[', ']', '(', ')', '|']).filter(|word| !word.is_empty()).peekable();
            let mut known = &all;
            let of_command;
            if words.next_if_eq(&"ctxtune").is_some() {
                let mut command = &root;
                while let Some(below) = words.peek().and_then(|word| command.find_subcommand(word)) {
                    command = below;
                    words.next();
                }
                if command.get_name() == "ctxtune" && words.peek().is_some_and(|word| !word.starts_with('-'))
                {
                    offences.push(format!("{}: `{span}` is no command", page.name));
                }
                of_command = flags(command);
                known = &of_command;
            } else if !span.starts_with("--") {
                continue;
            }
            for word in words.filter(|word| word.starts_with("--") && word.len() > 2) {
                let flag = word.split('=').next().unwrap().replace('_', "-");
                if !known.contains(&flag) && !FLAGS_OF_OTHERS.contains(&&*flag) {
                    offences.push(format!("{}: {flag} of `{span}`", page.name));
                }
            }
        }
    }
    expect_none(offences);
}

/// The flags of `command` and of the commands below it.
fn flags(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?)));
    own.chain(command.get_subcommands().flat_map(flags)).collect()
}

/// The words that these pages do without (words of our own that nobody searches for), as words or parts of sentences.
const BANNED: [&str; 54] = [
    "bring",
    "brings",
    "bringing",
    "brought",
    "a yes",
    "agree to spend",
    "agreed to",
    "nobody agreed",
    "asked anew",
    "anew",
    "asked about",
    "ask about",
    "asks about",
    "asking about",
    "part that validates",
    "part that trains",
    "bear",
    "bears",
    "samples a step",
    "gradients are clipped",
    "clips gradients",
    "name says of",
    "it is 1 to",
    "share a sequence",
    "hand-off",
    "hand-offs",
    "handed over",
    "hands over",
    "handed to",
    "go on",
    "goes on",
    "gone on",
    "went on",
    "going on",
    "given no machines",
    "gets no machines",
    "a look",
    "look at",
    "looks at",
    "looked at",
    "looking at",
    "looked into",
    "in so many words",
    "whole or not at all",
    "whole memory",
    "mend",
    "mends",
    "mended",
    "nobody is at",
    "progress to bear",
    "by lot",
    "drawn by",
    "spoken to",
    "speaks as",
];

#[test]
fn words_are_those_that_a_reader_would_search_for() {
    let mut offences = Vec::new();
    for page in pages().iter().filter(|page| page.name != CLI) {
        // What the program prints is not said here: fences of `text` show it.
        let shown: String =
            page.fences().iter().filter(|fence| fence.language != "text").map(|f| &*f.text).collect();
        let text = as_words(&format!("{}\n{shown}", page.prose().join("\n")));
        let found = BANNED.iter().filter(|banned| text.contains(&format!(" {banned} ")));
        offences.extend(found.map(|banned| format!("{}: \"{banned}\"", page.name)));
    }
    expect_none(offences);
}

/// `text` in lower case as words between single blanks.
fn as_words(text: &str) -> String {
    let text = text.to_lowercase();
    let words = text.split(|character: char| !character.is_alphanumeric() && character != '-');
    format!(" {} ", words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
}

#[test]
fn help_and_errors_do_without_them_too() {
    let mut offences = Vec::new();
    let mut check = |place: &str, text: &str| {
        let words = as_words(text);
        let found = BANNED.iter().filter(|banned| words.contains(&format!(" {banned} ")));
        offences.extend(found.map(|banned| format!("{place}: \"{banned}\" in \"{text}\"")));
    };
    check(CLI, &std::fs::read_to_string(repository(CLI)).unwrap());
    let mut texts = 0;
    for root in ["src", "crates"] {
        for file in walkdir::WalkDir::new(repository(root)).into_iter().map(Result::unwrap) {
            let path = file.path().to_string_lossy().into_owned();
            // The rehearsal speaks as the services do.
            if !path.ends_with(".rs") || path.contains("rehearsal/") {
                continue;
            }
            let code = std::fs::read_to_string(file.path()).unwrap();
            let code = code.split("#[cfg(test)]").next().unwrap();
            let is_code = |line: &&str| !line.trim_start().starts_with("//");
            let code: String = code.lines().filter(is_code).map(|line| format!("{line}\n")).collect();
            for text in literals(&code) {
                texts += 1;
                check(&path, &text);
            }
        }
    }
    assert!(texts > 2000, "the program has {texts} texts");
    expect_none(offences);
}

/// The string literals of Rust code, as they are written.
fn literals(code: &str) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), code);
    while let Some(start) = rest.find('"') {
        // A character that is a quotation mark begins no text.
        if rest[..start].ends_with('\'') && rest[start..].starts_with("\"'") {
            rest = &rest[start + 2..];
            continue;
        }
        let text = &rest[start + 1..];
        let mut is_escaped = false;
        let end = text.find(|character| {
            let is_end = character == '"' && !is_escaped;
            is_escaped = character == '\\' && !is_escaped;
            is_end
        });
        let end = end.unwrap_or(text.len());
        found.push(text[..end].to_owned());
        rest = text.get(end + 1..).unwrap_or_default();
    }
    found
}

#[test]
fn commands_that_are_not_run_say_why() {
    let mut offences = Vec::new();
    for page in pages() {
        for fence in page.commands().iter().filter(|fence| fence.before.starts_with(NOT_RUN)) {
            if fence.text.lines().any(|line| line.starts_with("ctxtune ")) {
                offences
                    .push(format!("{}: only an account keeps a command of ours from being run", page.name));
            }
        }
        let is_marker = |line: &&&str| line.trim_start().starts_with("<!--");
        let known = |line: &&&str| **line == NEEDS_ACCOUNT || line.starts_with(NOT_RUN);
        let prose = page.prose();
        let unknown = prose.iter().filter(is_marker).filter(|line| !known(line));
        offences.extend(unknown.map(|line| format!("{}: {line}", page.name)));
    }
    expect_none(offences);
}

#[cfg(unix)]
mod run {
    //! The commands of the pages, in a shell, in a directory with the examples, beside the server.

    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process;

    use super::{NEEDS_ACCOUNT, NOT_RUN, pages};
    use crate::support::{Outcome, Rehearsal, program, repository, skip};

    /// The program under its name; a rehearsal's job is as short as it can be, and says no less.
    const CTXTUNE: &str = r#"#!/bin/sh
case "$1" in rehearse) set -- "$@" --job-seconds 0.5 ;; esac
exec "$CTXTUNE" "$@"
"#;

    #[test]
    fn every_command_in_a_fence_runs_or_needs_an_account() {
        for tool in ["bash", "jq", "parallel"] {
            let found = process::Command::new(tool).arg("--version").output();
            if !found.is_ok_and(|found| found.status.success()) {
                return skip(tool, &format!("{tool} is not here"));
            }
        }
        let mut count = 0;
        for page in pages() {
            let is_run = |before: &str| before != NEEDS_ACCOUNT && !before.starts_with(NOT_RUN);
            let fences: Vec<_> = page.commands().into_iter().filter(|fence| is_run(&fence.before)).collect();
            if fences.is_empty() {
                continue;
            }
            let rehearsal = Rehearsal::new();
            let dir = &rehearsal.dir;
            symlink(repository("fixtures"), dir.path("fixtures")).unwrap();
            symlink(repository("fixtures/contexts"), dir.path("contexts")).unwrap();
            dir.chat_lines("chat.jsonl", 20).chat_lines("general.jsonl", 200);
            let ctxtune = dir.write("bin/ctxtune", CTXTUNE);
            std::fs::set_permissions(ctxtune, PermissionsExt::from_mode(0o755)).unwrap();
            for fence in fences {
                let mut command = process::Command::new("bash");
                command.args(["-c", &format!("set -euo pipefail\nPATH=$PWD/bin:$PATH\n{}", fence.text)]);
                rehearsal.lend_environment(&mut command);
                command.env("CTXTUNE", program()).current_dir(dir.path(""));
                let run = Outcome::of(command);
                assert_eq!(run.code, Some(0), "{}: {}\n{}", page.name, fence.text, run.stderr);
                count += 1;
            }
        }
        assert!(count > 10, "only {count} fences were run");
    }
}
