//! What makes a test four lines long: a directory of its own, and the program in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// A temporary directory that a test fills and looks into.
pub struct Dir(tempfile::TempDir);

impl Dir {
    pub fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, making the directories above it.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn read(&self, name: impl AsRef<Path>) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn exists(&self, name: impl AsRef<Path>) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// Writes `count` valid records `corpus/0.json`…
    pub fn corpus(&self, count: usize) -> &Dir {
        for number in 0..count {
            self.write(format!("corpus/{number}.json"), record(number).to_string());
        }
        self
    }

    /// The program with `arguments`, run in this directory.
    pub fn ctxtune<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        Outcome::of(self.command(arguments))
    }

    /// The same, not yet run.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).current_dir(self.0.path());
        command
    }

    /// Every file below `name` with its bytes, by its path.
    pub fn tree(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let root = self.path(name);
        let mut files: Vec<(String, Vec<u8>)> = walkdir::WalkDir::new(&root)
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| {
                let below = entry.path().strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                (below, std::fs::read(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }
}

/// The program under test.
pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_ctxtune")
}

/// How a run of the program ended.
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl Outcome {
    pub fn of(mut command: Command) -> Outcome {
        Outcome::from(command.output().unwrap())
    }

    /// Fails the test unless the run ended with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Outcome {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// stdout as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Outcome {
        Outcome {
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code(),
        }
    }
}

/// A small valid record; different numbers give different stories and, by five, agents.
pub fn record(number: usize) -> Value {
    let agent = format!("Agent{}", number % 5);
    json!({
        "story": format!("['{agent} opened door {number}.', 'It was open.']"),
        "question": "Where is it?",
        "answer": "here",
        "is_correct": true,
        "socialized_context": {
            "agents_names": [agent],
            "socialized_context": [{
                "timestep": "0",
                "state": "none",
                "observations": { &agent: "none" },
                "actions": { &agent: format!("opened door {number}") },
            }],
        },
    })
}

/// Says why a test proves nothing here.
pub fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

/// A directory of the shared data, or `None` (and a word) where there is none.
pub fn shared_data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    skip(&format!("../shared/data/{name} is not here"));
    None
}

/// A file or directory of the repository.
pub fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
