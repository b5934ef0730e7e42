//! What makes a test four lines long: a directory of its own, and the program in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ctxtune::session::clock::{ServerClock, SystemClock};
use ctxtune_pipeline::env;
use ctxtune_pipeline::signals::Signals;
use ctxtune_rehearsal::faults::Faults;
use ctxtune_rehearsal::{KEY, Script, Server, Watch};
use ctxtune_service::clock::{Clock, Stopped};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Files with their bytes, by path.
pub type Tree = Vec<(String, Vec<u8>)>;

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

    /// Writes `count` chat lines to the file `name`, each with its number and one of four topics.
    pub fn chat_lines(&self, name: &str, count: usize) -> &Dir {
        let line = |number: usize| {
            let message =
                |role: &str, mark: char| json!({ "role": role, "content": format!("{name} {number}{mark}") });
            let messages = [message("user", '?'), message("assistant", '.')];
            json!({ "messages": messages, "topic": format!("t{}", number % 4) }).to_string()
        };
        self.write(name, (0..count).map(line).collect::<Vec<_>>().join("\n"));
        self
    }

    /// The program with `arguments`, run in this directory.
    pub fn ctxtune<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        Outcome::of(self.command(arguments))
    }

    /// The same, not yet run.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(program());
        // A tokenizer that somebody has fetched would count otherwise.
        command.args(arguments).current_dir(self.0.path()).env(env::HF_HUB_CACHE, self.path("hub"));
        command
    }

    /// `prepare corpus -o out --no-sync` and `more`, run in this directory.
    pub fn prepare(&self, more: &[&str]) -> Outcome {
        self.ctxtune(["prepare", "corpus", "-o", "out", "--no-sync"].iter().chain(more))
    }

    /// The lines of a JSONL file.
    pub fn json_lines(&self, name: &str) -> Vec<Value> {
        self.read(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The manifest of `out`.
    pub fn manifest(&self) -> Value {
        serde_json::from_str(&self.read("out/manifest.json")).unwrap()
    }

    /// The rows of `out/keys.tsv`.
    pub fn key_rows(&self) -> Vec<KeyRow> {
        let keys = self.read("out/keys.tsv");
        let mut lines = keys.lines();
        assert_eq!(lines.next(), Some("split\tline\tshard\tkey"));
        lines.map(KeyRow::parse).collect()
    }

    /// The keys of one side of `out` in the order of its lines.
    pub fn keys(&self, side: &str) -> Vec<String> {
        self.key_rows().into_iter().filter(|row| row.side == side).map(|row| row.key).collect()
    }

    /// The texts of the messages in `out` that were made from the record `key`.
    #[track_caller]
    pub fn texts(&self, key: &str) -> Vec<String> {
        let row = self.key_rows().into_iter().find(|row| row.key == key);
        let row = row.unwrap_or_else(|| panic!("no example of {key}"));
        let shard = unpacked(&row.shard, std::fs::read(self.path("out").join(&row.shard)).unwrap());
        let shard = String::from_utf8(shard).unwrap();
        texts_of(&serde_json::from_str(shard.lines().nth(row.line - 1).unwrap()).unwrap())
    }

    /// Every file below `name` with its bytes, by its path.
    pub fn tree(&self, name: &str) -> Tree {
        let root = self.path(name);
        let mut files: Tree = walkdir::WalkDir::new(&root)
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

    /// Makes `name` a directory with exactly these files.
    pub fn plant(&self, name: &str, tree: &Tree) {
        let root = self.path(name);
        if root.exists() {
            std::fs::remove_dir_all(&root).unwrap();
        }
        std::fs::create_dir_all(&root).unwrap();
        for (file, content) in tree {
            self.write(root.join(file), content);
        }
    }

    /// The files that the manifest in `name` vouches for, and the manifest; `None` without one.
    ///
    /// Sizes and digests are checked here, without the product's code. `foreign` are files that
    /// the manifest names though they are the user's own; they are left out.
    #[track_caller]
    pub fn result(&self, name: &str, foreign: &[&str]) -> Option<Tree> {
        let text = std::fs::read(self.path(name).join("manifest.json")).ok()?;
        let manifest: Value = serde_json::from_slice(&text).unwrap();
        let mut files = vec![("manifest.json".to_owned(), text)];
        let mut take = |file: &str, vouched: &Value| {
            let content = std::fs::read(self.path(name).join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert_eq!(vouched["bytes"], content.len() as u64, "{file}");
            assert_eq!(vouched["sha256"], sha256(&content), "{file}");
            files.push((file.to_owned(), content.clone()));
            content
        };
        for side in [&manifest["train"], &manifest["val"]].into_iter().filter(|side| !side.is_null()) {
            let shards = side["shards"].as_array().unwrap();
            let mut take = |file: &str, shard| unpacked(file, take(file, shard));
            let joined: Vec<u8> =
                shards.iter().flat_map(|shard| take(shard["file"].as_str().unwrap(), shard)).collect();
            let digests: String =
                shards.iter().map(|shard| format!("{}\n", shard["sha256"].as_str().unwrap())).collect();
            let only = || json!(shards[0]["sha256"]);
            let expected = if shards.len() == 1 { only() } else { sha256(digests.as_bytes()).into() };
            assert_eq!(side["sha256"], expected);
            let lines = joined.iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!(side["records"], lines as u64);
        }
        for (file, vouched) in manifest["files"].as_object().unwrap() {
            if !foreign.contains(&file.as_str()) {
                take(file, vouched);
            }
        }
        files.sort();
        Some(files)
    }
}

/// What the file `name` unpacks to; itself where it is not compressed.
pub fn unpacked(name: &str, content: Vec<u8>) -> Vec<u8> {
    let mut plain = Vec::new();
    match Path::new(name).extension().and_then(OsStr::to_str) {
        Some("zst") => zstd::decode_all(&content[..]).unwrap(),
        Some("gz") => {
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&content[..]), &mut plain).unwrap();
            plain
        }
        _ => content,
    }
}

/// The names of a tree's files, for messages that can be read.
pub fn names(tree: &Tree) -> Vec<&str> {
    tree.iter().map(|(name, _)| name.as_str()).collect()
}

pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fails at the first file that two trees do not share, or the first line in which it differs.
#[track_caller]
pub fn assert_same_tree(found: &Tree, expected: &Tree, what: &str) {
    assert_eq!(names(found), names(expected), "{what}: the files");
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        let lines = |bytes: &[u8]| -> Vec<String> {
            String::from_utf8_lossy(bytes).split('\n').map(str::to_owned).collect()
        };
        if found != expected {
            let (found, expected) = (lines(found), lines(expected));
            let at = found.iter().zip(&expected).position(|(one, other)| one != other);
            let at = at.unwrap_or(found.len().min(expected.len()));
            let line = |of: &[String]| of.get(at).cloned().unwrap_or_else(|| "nothing".to_owned());
            panic!("{what}: {name}, line {}:\n{}\nexpected:\n{}", at + 1, line(&found), line(&expected));
        }
    }
}

/// A row of `keys.tsv`.
pub struct KeyRow {
    pub side: String,
    pub line: usize,
    pub shard: String,
    pub key: String,
}

impl KeyRow {
    fn parse(row: &str) -> KeyRow {
        let [side, line, shard, key]: [&str; 4] = row.split('\t').collect::<Vec<_>>().try_into().unwrap();
        KeyRow {
            side: side.to_owned(),
            line: line.parse().unwrap(),
            shard: shard.to_owned(),
            key: serde_json::from_str(key).unwrap(),
        }
    }
}

/// The texts of an example's messages.
pub fn texts_of(example: &Value) -> Vec<String> {
    let messages = example["messages"].as_array().unwrap();
    messages.iter().map(|message| message["content"].as_str().unwrap().to_owned()).collect()
}

/// Python 3 as `CTXTUNE_PYTHON` or the search path has it, or `None` (and a word) where there is none.
#[expect(clippy::disallowed_methods, reason = "a test asks which Python it may use")]
pub fn python() -> Option<Command> {
    let name = std::env::var_os("CTXTUNE_PYTHON").unwrap_or_else(|| "python3".into());
    match Command::new(&name).arg("--version").output() {
        Ok(output) if output.status.success() => Some(Command::new(name)),
        _ => {
            skip("python", "there is no Python 3");
            None
        }
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

    /// stdout as the document of `command`, which is one line, has the common fields and then exactly
    /// `fields`: each with the name of its type. `docs/reference/json.md` lists them all under the command.
    #[track_caller]
    pub fn document(&self, command: &str, fields: Value) -> Value {
        assert_eq!(self.stdout.matches('\n').count(), 1, "one line: {}", self.stdout);
        let document = self.json();
        assert_listed(&document, command);
        let exit = self.code.unwrap();
        assert_eq!(document["schema"], "ctxtune.cli/1");
        assert_eq!(document["command"], command);
        assert_eq!(document["ok"], exit == 0);
        assert_eq!(document["exit"], exit);
        let error = match exit {
            0 => json!("null"),
            _ => json!({ "code": "string", "message": "string", "hint": "string" }),
        };
        let common = json!({
            "schema": "string", "command": "string", "ok": "boolean", "exit": "integer", "error": error,
        });
        let mut expected = common.as_object().unwrap().clone();
        expected.extend(fields.as_object().unwrap().clone());
        let (got, expected) = (shape(&document), Value::Object(expected));
        assert!(got == expected, "got {got:#}\nexpected {expected:#}");
        document
    }
}

/// Fails unless `docs/reference/json.md` lists every field of the document of `command`, and those within.
#[track_caller]
pub fn assert_listed(document: &Value, command: &str) {
    let reference = repository_text("docs/reference/json.md");
    let section = |heading: &str| {
        let is_it = |section: &&str| section.lines().next() == Some(heading);
        reference.split("\n## ").find(is_it).unwrap_or_else(|| panic!("json.md lacks {heading}")).to_owned()
    };
    let listed = section("Common fields") + &section(command);
    let missing = unlisted("", document, &listed);
    assert!(missing.is_empty(), "json.md does not list {missing:?} of {command}");
}

/// The fields below `prefix` that are not `listed`. An object of which no field is listed has names of its data.
fn unlisted(prefix: &str, value: &Value, listed: &str) -> Vec<String> {
    match value {
        Value::Array(items) => {
            items.iter().flat_map(|item| unlisted(&format!("{prefix}[]"), item, listed)).collect()
        }
        Value::Object(fields) if prefix.is_empty() || listed.contains(&format!("`{prefix}.")) => {
            let below = |(name, value): (&String, &Value)| {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                if !listed.contains(&format!("| `{path}` |")) {
                    return vec![path];
                }
                unlisted(&path, value, listed)
            };
            fields.iter().flat_map(below).collect()
        }
        _ => Vec::new(),
    }
}

/// A document with the name of its type in place of each value.
pub fn shape(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "boolean".into(),
        Value::Number(number) => if number.is_f64() { "number" } else { "integer" }.into(),
        Value::String(_) => "string".into(),
        Value::Array(values) => values.first().map(shape).into_iter().collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
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

/// A server that speaks the API, and a directory whose program speaks to it.
pub struct Rehearsal {
    pub dir: Dir,
    pub server: Server,
    clock: Arc<AheadClock>,
}

impl Rehearsal {
    /// Verdicts come at once; jobs take 1,000 seconds, which pass only in [`Rehearsal::forward`].
    pub fn new() -> Rehearsal {
        Rehearsal::with(Script { job_seconds: 1000.0, verdict_seconds: 0.0, ..Script::default() })
    }

    /// A server that behaves like `script`.
    pub fn with(script: Script) -> Rehearsal {
        Rehearsal::watched(script, Arc::new(|_, _| ()))
    }

    /// The same, with `watch` told of every request.
    pub fn watched(script: Script, watch: Watch) -> Rehearsal {
        let clock = Arc::new(AheadClock {
            system: SystemClock::new(Signals::default(), 1.0),
            ahead: Mutex::default(),
        });
        let server = Server::start_watched(0, script, Arc::new(ServerClock(clock.clone())), watch).unwrap();
        Rehearsal { dir: Dir::new(), server, clock }
    }

    /// Lets this many seconds pass for the server.
    pub fn forward(&self, seconds: f64) {
        *self.clock.ahead.lock().unwrap() += Duration::from_secs_f64(seconds);
    }

    /// The program with `arguments`, not yet run: it knows this server and its key, keeps its state in
    /// the directory, waits a fiftieth, and sees nothing of whoever runs the tests.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.dir.command(arguments);
        for name in env::PROXIES.iter().chain([&env::NO_PROXY]) {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        let strange = [
            env::HOME,
            "USERPROFILE",
            "NETRC",
            env::SSL_CERT_FILE,
            env::TOGETHER_CUSTOM_HEADERS,
            env::TOGETHER_CREDENTIALS_PATH,
            env::XDG_CONFIG_HOME,
            env::OPENAI_API_KEY,
            env::WANDB_API_KEY,
            env::WANDB_RUN_ID,
            env::WANDB_BASE_URL,
            env::WANDB_APP_URL,
            env::WANDB_ENTITY,
            env::WANDB_PROJECT,
            env::WANDB_NAME,
            env::WANDB_RUN_GROUP,
            env::WANDB_JOB_TYPE,
            env::WANDB_TAGS,
            env::WANDB_NOTES,
            env::WANDB_MODE,
            env::WANDB_DISABLED,
            env::WANDB_DIR,
            env::WANDB_CONFIG_DIR,
            env::WANDB_SWEEP_ID,
            env::WANDB_SWEEP_PARAM_PATH,
        ];
        for name in strange {
            command.env_remove(name);
        }
        command
            .env(env::TOGETHER_BASE_URL, self.server.url())
            .env(env::TOGETHER_API_KEY, KEY)
            .env(env::XDG_STATE_HOME, self.dir.path("state"))
            .env(env::CTXTUNE_TIME_SCALE, "0.02")
            .env("LC_ALL", "C.UTF-8");
        command
    }

    /// The same, run.
    pub fn ctxtune<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Outcome {
        Outcome::of(self.command(arguments))
    }

    /// A server with a complete job, in `out`, of a base model that can be deployed; deployments take this
    /// long. Gives the job's id, too.
    #[track_caller]
    pub fn tuned(deployment_seconds: f64) -> (Rehearsal, String) {
        let script =
            Script { job_seconds: 1000.0, verdict_seconds: 0.0, deployment_seconds, ..Script::default() };
        let rehearsal = Rehearsal::with(script);
        let job = rehearsal.submit(10, &["--base-model=Qwen/Qwen3-8B"]);
        rehearsal.forward(1000.0);
        (rehearsal, job)
    }

    /// Prepares `out` from `count` records and submits it with `flags`; gives the job's id.
    #[track_caller]
    pub fn submit(&self, count: usize, flags: &[&str]) -> String {
        self.dir.corpus(count).prepare(&[]).expect(0);
        let run = self.ctxtune(["submit", "out", "--yes"].iter().chain(flags)).expect(0);
        run.stdout.trim_end().to_owned()
    }
}

/// What `check` gives for each of these cases, a few of them at a time: they wait for a server more than they work.
pub fn at_once<C: Send, T: Send>(
    cases: impl IntoIterator<Item = C>,
    check: impl Fn(C) -> T + Sync,
) -> Vec<T> {
    let queue = Mutex::new(cases.into_iter().enumerate().collect::<Vec<_>>().into_iter());
    let work = || {
        let next = || queue.lock().unwrap().next();
        std::iter::from_fn(next).map(|(number, case)| (number, check(case))).collect::<Vec<_>>()
    };
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let workers = [(); 4].map(|()| scope.spawn(work));
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Only a hang takes longer.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `is_so`, as long as `child` runs.
pub fn wait_until(child: &mut Child, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended too early");
        assert!(start.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

/// Sends a signal, by its name, to the process with this number.
pub fn signal(process: impl std::fmt::Display, signal: &str) {
    // A shell's own `kill`: the program of that name is not everywhere.
    let kill = ["-c", r#"kill -s "$0" "$1""#, signal, &process.to_string()];
    assert!(Command::new("sh").args(kill).status().unwrap().success());
}

/// What a faults file with this text says.
pub fn faults(text: &str) -> Faults {
    ctxtune_engine::yaml::parse(text).unwrap()
}

/// The system's clock, which can be put forward.
struct AheadClock {
    system: SystemClock,
    ahead: Mutex<Duration>,
}

impl Clock for AheadClock {
    fn now(&self) -> Timestamp {
        self.system.now() + *self.ahead.lock().unwrap()
    }

    fn elapsed(&self) -> Duration {
        self.system.elapsed() + *self.ahead.lock().unwrap()
    }

    fn wait(&self, duration: Duration) -> Result<(), Stopped> {
        self.system.wait(duration)
    }

    fn is_stopped(&self) -> bool {
        self.system.is_stopped()
    }
}

/// A clock that goes only when somebody waits or says so.
pub struct FakeClock {
    start: Timestamp,
    passed: Mutex<Duration>,
}

impl FakeClock {
    /// It is that second of Unix time.
    pub fn at(second: i64) -> Arc<FakeClock> {
        Arc::new(FakeClock { start: Timestamp::from_second(second).unwrap(), passed: Mutex::default() })
    }

    /// Lets this many seconds pass.
    pub fn advance(&self, seconds: f64) {
        *self.passed.lock().unwrap() += Duration::from_secs_f64(seconds);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        self.start + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        *self.passed.lock().unwrap()
    }

    fn wait(&self, duration: Duration) -> Result<(), Stopped> {
        *self.passed.lock().unwrap() += duration;
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        false
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

/// Says why a test proves nothing here: `need` is missing. Fails where `CTXTUNE_REQUIRE` lists that, as CI does with
/// what it has installed.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a test asks what must be there")]
pub fn skip(need: &str, why: &str) {
    let required = std::env::var("CTXTUNE_REQUIRE").unwrap_or_default();
    assert!(required.split(',').all(|name| name != need), "CTXTUNE_REQUIRE lists `{need}`: {why}");
    eprintln!("skipped: {why}");
}

/// A small file system in memory, for as long as it lives.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(path: &Path, options: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "ctxtune"]).arg(path).output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(SmallDisk(path.to_owned()));
        }
        skip("system", "no file system can be mounted here");
        None
    }

    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }

    /// Free blocks and inodes.
    pub fn free(&self) -> String {
        let stat = Command::new("stat").args(["-f", "-c", "%f %d"]).arg(&self.0).output().unwrap();
        String::from_utf8(stat.stdout).unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A directory of the shared data, or `None` (and a word) where there is none.
pub fn shared_data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    skip("data", &format!("../shared/data/{name} is not here"));
    None
}

/// The text of a file of the repository.
#[track_caller]
pub fn repository_text(name: &str) -> String {
    std::fs::read_to_string(repository(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The keys of a job's parameters, as the flags of `submit` have them.
pub fn training_keys() -> Vec<String> {
    let root = ctxtune::args::command();
    let flags = root.find_subcommand("submit").unwrap().get_arguments();
    let is_of_training = |flag: &&clap::Arg| flag.get_help_heading() == Some("Training");
    flags.filter(is_of_training).map(|flag| flag.get_id().to_string()).collect()
}

/// A file or directory of the repository.
pub fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
