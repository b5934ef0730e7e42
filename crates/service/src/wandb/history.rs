//! A run's lines on this machine: those that were sent and those that were not, in two files.
//!
//! The file of lines is the truth of what stands at which offset: a row gets its offset when it is
//! appended, before it is sent, so that sending it again after a lost answer writes the same again.
//! Beside it stands how far sending has come. Whoever opens a run takes its files over: the one
//! that had them open writes into nothing from then on, and sees it in time.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::http::body::{FileBody, Part};
use crate::wandb::RunIdentity;
use crate::wandb::logged::{Key, Logged, Writer};
use crate::wandb::run::{Alert, Found, Plan, merged};

const SCHEMA: &str = "ctxtune.wandb/1";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A row of the history.
    Row(Key, Map<String, Value>),
    /// A line of the console.
    Line(String),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    schema: String,
    /// What the run is to be.
    pub plan: Plan,
    /// The run, once it is known to exist.
    pub identity: Option<RunIdentity>,
    /// The process that has the files.
    pub owner: String,
    /// As whom this machine wrote to the service, the last and the one before.
    pub writers: Vec<Writer>,
    /// The offset of the first row in the file, and of the first that was not sent.
    pub rows: Span,
    /// The same of lines of the console.
    pub lines: Span,
    /// The `_step` of the first row in the file.
    pub first_step: u64,
    /// What the run was told before the first line in the file.
    pub before: String,
    /// The summary, but what the sending adds.
    pub summary: Map<String, Value>,
    /// When the job was created, in seconds since 1970: where `_runtime` begins.
    pub began: f64,
    /// How the job's watching ended, once it has.
    pub exit: Option<i32>,
    /// Whether the service knows that.
    pub is_finished: bool,
    /// The directory of the run that another program may upload.
    pub offline: Option<String>,
    /// Files of the run.
    pub files: Vec<RunFile>,
    /// The alert about its end, until sending it was tried.
    pub alert: Option<Alert>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFile {
    /// Its name at W&B.
    pub name: String,
    /// Its path, relative to the directory of this state.
    pub path: PathBuf,
    /// Whether it is uploaded.
    pub is_sent: bool,
    /// Whether this process does not retry it.
    #[serde(skip)]
    pub is_given_up: bool,
}

impl RunFile {
    fn new(name: &str, path: PathBuf) -> RunFile {
        RunFile { name: name.to_owned(), path, is_sent: false, is_given_up: false }
    }
}

/// The name of the manifest, in the output directory and as a file of the run.
pub const MANIFEST: &str = "manifest.json";

/// Offsets of lines in a file of the service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first that is here.
    pub first: u64,
    /// The first that was not sent.
    pub unsent: u64,
}

/// The lines of a run and how far they have come.
#[derive(Debug)]
pub struct Spool {
    dir: Option<PathBuf>,
    file: Option<File>,
    pub state: State,
    rows: Vec<(Key, Map<String, Value>)>,
    lines: Vec<String>,
    logged: Logged,
}

/// The runs of which `dir` knows, by id.
pub fn known(dir: &Path) -> io::Result<Vec<State>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut states = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            states.extend(read_state(&path));
        }
    }
    states.sort_by(|one, other| one.plan.run.cmp(&other.plan.run));
    Ok(states)
}

/// Writes down what a run is to be, or what is new of its configuration where `dir` knows of it, with the
/// manifest of its data; nothing is sent and nobody disturbed.
pub fn remember(dir: &Path, plan: Plan, began: f64, manifest: Option<&[u8]>) -> io::Result<State> {
    let path = state_path(dir, &plan.run);
    let known = read_state(&path);
    let mut state = match known.clone() {
        Some(mut known) => {
            known.plan.config = merged(&known.plan.config, &plan.config);
            known
        }
        None => State { schema: SCHEMA.to_owned(), plan, began, ..State::default() },
    };
    if let Some(bytes) = manifest.filter(|_| state.files.is_empty()) {
        let copy = manifest_copy(&state.plan.run);
        write_whole(&dir.join(&copy), &mut |out| out.write_all(bytes))?;
        state.files.push(RunFile::new(MANIFEST, copy));
    }
    if known.as_ref() != Some(&state) {
        write_state(&path, &state)?;
    }
    Ok(state)
}

/// The copy of the manifest that the job was made of: the output directory may be prepared again.
fn manifest_copy(run: &str) -> PathBuf {
    PathBuf::from(format!("{run}.manifest"))
}

pub fn note_identity(dir: &Path, run: &str, identity: &RunIdentity) -> io::Result<()> {
    let path = state_path(dir, run);
    let Some(mut state) = read_state(&path) else { return Ok(()) };
    state.identity = Some(identity.clone());
    write_state(&path, &state)
}

fn state_path(dir: &Path, run: &str) -> PathBuf {
    dir.join(format!("{run}.json"))
}

fn read_state(path: &Path) -> Option<State> {
    let state: State = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some(state).filter(|state| state.schema == SCHEMA)
}

fn write_state(path: &Path, state: &State) -> io::Result<()> {
    write_whole(path, &mut |file| serde_json::to_writer_pretty(file, state).map_err(io::Error::other))
}

/// Writes a file whole or not at all, for its owner's eyes; gives the file, to be written on.
pub(crate) fn write_whole(
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    replace(path, write).map(|_| ())
}

fn replace(path: &Path, write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<File> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::Builder::new().prefix(".ctxtune-wandb-").tempfile_in(dir)?;
    let mut buffered = io::BufWriter::new(&mut file);
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.persist(path).map_err(|error| error.error)
}

impl Spool {
    /// Opens the run of `plan` in `dir`, or one that only this process knows where `dir` is nothing,
    /// and takes its files over for `owner`. What is known of the run wins over `plan`.
    pub fn open(dir: Option<PathBuf>, plan: Plan, owner: &str) -> io::Result<Spool> {
        let path = dir.as_ref().map(|dir| state_path(dir, &plan.run));
        let known = path.as_deref().and_then(read_state);
        let mut state = known.unwrap_or_else(|| State { plan, ..State::default() });
        SCHEMA.clone_into(&mut state.schema);
        let mut spool = Spool::look(dir, state);
        owner.clone_into(&mut spool.state.owner);
        if let Some(path) = spool.path("json") {
            write_state(&path, &spool.state)?;
        }
        spool.write_entries()?;
        Ok(spool)
    }

    /// The lines of the run of `state` in `dir`, to be looked at: the files stay whose they are.
    pub fn look(dir: Option<PathBuf>, state: State) -> Spool {
        let mut spool =
            Spool { dir, file: None, state, rows: Vec::new(), lines: Vec::new(), logged: Logged::default() };
        for entry in spool.read_entries() {
            match entry {
                Entry::Row(key, row) => spool.rows.push((key, row)),
                Entry::Line(line) => spool.lines.push(line),
            }
        }
        spool.recount();
        spool
    }

    fn path(&self, ending: &str) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(format!("{}.{ending}", self.state.plan.run)))
    }

    /// The lines of the file; one that was cut off in the middle is none.
    fn read_entries(&self) -> Vec<Entry> {
        let bytes = self.path("jsonl").and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        lines.map_while(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// Writes all lines into a new file, and goes on writing there.
    fn write_entries(&mut self) -> io::Result<()> {
        let Some(path) = self.path("jsonl") else { return Ok(()) };
        let rows = self.rows.iter().map(|(key, row)| Entry::Row(key.clone(), row.clone()));
        let mut entries = rows.chain(self.lines.iter().cloned().map(Entry::Line));
        let file = replace(&path, &mut |out| entries.try_for_each(|entry| write_entry(out, &entry)))?;
        self.file = Some(file);
        Ok(())
    }

    fn recount(&mut self) {
        self.logged = Logged::read(&self.state.before);
        self.rows.iter().for_each(|(key, _)| {
            self.logged.insert(key);
        });
        self.lines.iter().for_each(|line| {
            self.logged.insert_line(line);
        });
    }

    /// What the run was told once the next `rows` and `lines` are sent.
    pub(crate) fn logged_after(&self, rows: usize, lines: usize) -> Logged {
        let (unsent_rows, unsent_lines) = (self.unsent_rows().len(), self.unsent_lines().len());
        if (rows, lines) == (unsent_rows, unsent_lines) {
            return self.logged.clone();
        }
        let mut logged = Logged::read(&self.state.before);
        let (rows, lines) = (self.rows.len() - unsent_rows + rows, self.lines.len() - unsent_lines + lines);
        self.rows[..rows].iter().for_each(|(key, _)| {
            logged.insert(key);
        });
        self.lines[..lines].iter().for_each(|line| {
            logged.insert_line(line);
        });
        logged
    }

    pub fn rows(&self) -> impl Iterator<Item = &Map<String, Value>> {
        self.rows.iter().map(|(_, row)| row)
    }

    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    pub fn unsent_rows(&self) -> &[(Key, Map<String, Value>)] {
        &self.rows[index(self.state.rows).min(self.rows.len())..]
    }

    pub(crate) fn unsent_lines(&self) -> &[String] {
        &self.lines[index(self.state.lines).min(self.lines.len())..]
    }

    /// Whether the service is owed something: lines, the end, or files of a run that it has.
    pub fn owes(&self) -> bool {
        self.owes_lines() || (self.state.identity.is_some() && self.next_file().is_some())
    }

    /// Whether the service is owed lines, or the end.
    pub(crate) fn owes_lines(&self) -> bool {
        let owes_end = self.state.exit.is_some() && !self.state.is_finished;
        owes_end || !self.unsent_rows().is_empty() || !self.unsent_lines().is_empty()
    }

    /// The index of the first file that is still to be sent.
    pub(crate) fn next_file(&self) -> Option<usize> {
        self.dir.as_ref()?;
        self.state.files.iter().position(|file| !file.is_sent && !file.is_given_up)
    }

    /// Adds files of the run's output directory by name.
    pub fn attach(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if self.state.files.iter().all(|file| file.name != name) {
                let path = Path::new("..").join(&name);
                self.state.files.push(RunFile::new(&name, path));
            }
        }
    }

    /// The copy of the manifest that the job was made of, where this machine has it.
    pub fn manifest(&self) -> Option<PathBuf> {
        let of_run = |file: &&RunFile| file.name == MANIFEST;
        let file = self.state.files.iter().find(of_run)?;
        Some(self.dir.as_ref()?.join(&file.path))
    }

    /// The bytes of a file of the run. Fails when it cannot be read, or is not the data of the job: the reason.
    pub(crate) fn file_body(&self, index: usize) -> Result<FileBody, String> {
        let (Some(dir), Some(file)) = (&self.dir, self.state.files.get(index)) else {
            return Err("it is nowhere".to_owned());
        };
        let path = dir.join(&file.path);
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))
        };
        if file.name != MANIFEST {
            let then = self.manifest().ok_or("nothing is known of the job's data")?;
            if read(&then)? != read(&dir.join("..").join(MANIFEST))? {
                return Err("the directory was prepared again since the job was made".to_owned());
            }
        }
        let metadata = std::fs::metadata(&path);
        let len = metadata.map_err(|error| format!("cannot read `{}`: {error}", path.display()))?.len();
        Ok(FileBody { parts: vec![Part { path, packing: None, start: 0, len }] })
    }

    /// Whether no other process has taken the files over.
    pub fn is_ours(&self) -> bool {
        let Some(path) = self.path("json") else { return true };
        read_state(&path).is_none_or(|state| state.owner == self.state.owner)
    }

    /// Adds what is new of `entries`, to the memory in any case; whether there was any.
    pub fn append(&mut self, entries: Vec<Entry>) -> io::Result<bool> {
        let (mut text, mut has_new) = (Vec::new(), false);
        for entry in entries {
            let entry = match entry {
                Entry::Row(key, mut row) if self.logged.insert(&key) => {
                    row.insert("_step".to_owned(), self.next_step().into());
                    self.rows.push((key.clone(), row.clone()));
                    Entry::Row(key, row)
                }
                Entry::Line(line) if self.logged.insert_line(&line) => {
                    self.lines.push(line.clone());
                    Entry::Line(line)
                }
                _ => continue,
            };
            has_new = true;
            write_entry(&mut text, &entry)?;
        }
        if let Some(file) = &mut self.file {
            file.write_all(&text)?;
        }
        Ok(has_new)
    }

    /// The `_step` that the next row gets.
    pub(crate) fn next_step(&self) -> u64 {
        self.state.first_step + self.rows.len() as u64
    }

    pub(crate) fn note_sent(&mut self, rows: usize, lines: usize) {
        self.state.rows.unsent += rows as u64;
        self.state.lines.unsent += lines as u64;
    }

    /// Puts what is here, and not at the service, behind what is there.
    pub(crate) fn rebase(&mut self, found: &Found) -> io::Result<()> {
        let mut logged = Logged::of(&found.summary);
        self.state.before = logged.text();
        self.rows.retain(|(key, _)| logged.insert(key));
        self.lines.retain(|line| logged.insert_line(line));
        self.state.rows = Span { first: found.rows, unsent: found.rows };
        self.state.lines = Span { first: found.lines, unsent: found.lines };
        self.state.first_step = found.next_step;
        for ((_, row), step) in self.rows.iter_mut().zip(found.next_step..) {
            row.insert("_step".to_owned(), step.into());
        }
        self.logged = logged;
        self.write_entries()?;
        self.save()
    }

    /// Writes down how far it has come, as long as the files are ours.
    pub fn save(&self) -> io::Result<()> {
        match self.path("json").filter(|_| self.is_ours()) {
            Some(path) => write_state(&path, &self.state),
            None => Ok(()),
        }
    }
}

fn index(span: Span) -> usize {
    usize::try_from(span.unsent.saturating_sub(span.first)).unwrap_or(usize::MAX)
}

fn write_entry(out: &mut dyn Write, entry: &Entry) -> io::Result<()> {
    let mut line = serde_json::to_vec(entry).map_err(io::Error::other)?;
    line.push(b'\n');
    out.write_all(&line)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan() -> Plan {
        Plan { run: "r".to_owned(), ..Plan::default() }
    }

    fn row(step: u64) -> Entry {
        let row = json!({ "train/step": step });
        Entry::Row(Key::Point("train".to_owned(), step), row.as_object().unwrap().clone())
    }

    fn open(dir: &Path) -> Spool {
        Spool::open(Some(dir.to_owned()), plan(), "one").unwrap()
    }

    /// (`_step`, `train/step`) of the rows that were not sent.
    #[track_caller]
    fn check(spool: &Spool, expected: &[(u64, u64)]) {
        let number = |row: &Map<String, Value>, key: &str| row[key].as_u64().unwrap();
        let rows = spool.unsent_rows().iter();
        let rows: Vec<_> = rows.map(|(_, row)| (number(row, "_step"), number(row, "train/step"))).collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_row_is_kept_once_in_order_and_through_a_death() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        assert!(spool.append(vec![row(1), row(2), row(1), Entry::Line("a".to_owned())]).unwrap());
        assert!(!spool.append(vec![row(2), Entry::Line("a".to_owned())]).unwrap());
        spool.note_sent(1, 0);
        spool.save().unwrap();
        spool.append(vec![row(3)]).unwrap();
        drop(spool);
        let path = dir.path().join("r.jsonl");
        let mut text = std::fs::read(&path).unwrap();
        text.extend(br#"{"row":[{"point":["train",4"#);
        std::fs::write(&path, text).unwrap();
        let mut spool = open(dir.path());
        check(&spool, &[(1, 2), (2, 3)]);
        assert_eq!(spool.unsent_lines(), ["a"]);
        spool.append(vec![row(3), row(4)]).unwrap();
        check(&open(dir.path()), &[(1, 2), (2, 3), (3, 4)]);
    }

    #[test]
    fn what_stands_at_the_service_is_not_sent_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        spool.append(vec![row(1), row(2), row(3), row(4)]).unwrap();
        let mut logged = Logged::default();
        for step in [1, 3] {
            logged.insert(&Key::Point("train".to_owned(), step));
        }
        let summary = json!({ crate::wandb::logged::LOGGED_KEY: logged.text() });
        let summary = summary.as_object().unwrap().clone();
        spool.rebase(&Found { summary, rows: 9, next_step: 12, ..Found::default() }).unwrap();
        check(&spool, &[(12, 2), (13, 4)]);
        assert_eq!(spool.state.rows, Span { first: 9, unsent: 9 });
        let mut spool = open(dir.path());
        assert!(!spool.append(vec![row(1), row(2), row(3), row(4)]).unwrap());
        spool.append(vec![row(5)]).unwrap();
        check(&spool, &[(12, 2), (13, 4), (14, 5)]);
    }

    #[test]
    fn whoever_opens_a_run_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut old = open(dir.path());
        old.append(vec![row(1)]).unwrap();
        let mut new = Spool::open(Some(dir.path().to_owned()), plan(), "two").unwrap();
        assert!(!old.is_ours() && new.is_ours());
        old.append(vec![row(2)]).unwrap();
        new.append(vec![row(3)]).unwrap();
        check(&open(dir.path()), &[(0, 1), (1, 3)]);
    }

    #[test]
    fn the_manifest_of_a_job_stays_and_data_goes_up_only_while_it_is_the_same() {
        let out = tempfile::tempdir().unwrap();
        let dir = out.path().join("wandb");
        std::fs::write(out.path().join(MANIFEST), "one").unwrap();
        std::fs::write(out.path().join("train.jsonl"), "{}").unwrap();
        remember(&dir, plan(), 5.0, Some(b"one")).unwrap();
        remember(&dir, plan(), 5.0, Some(b"two")).unwrap();
        let mut spool = open(&dir);
        assert!(!spool.owes(), "a run that nobody has made is owed nothing");
        spool.attach(["train.jsonl".to_owned()]);
        spool.attach(["train.jsonl".to_owned()]);
        let names: Vec<&str> = spool.state.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, [MANIFEST, "train.jsonl"]);
        assert_eq!(std::fs::read(spool.manifest().unwrap()).unwrap(), b"one");
        assert_eq!([0, 1].map(|index| spool.file_body(index).unwrap().len()), [3, 2]);
        std::fs::write(out.path().join(MANIFEST), "other").unwrap();
        assert!(spool.file_body(0).is_ok() && spool.file_body(1).unwrap_err().contains("prepared again"));
        std::fs::remove_file(out.path().join("train.jsonl")).unwrap();
        std::fs::write(out.path().join(MANIFEST), "one").unwrap();
        assert!(spool.file_body(1).unwrap_err().contains("train.jsonl"));
        let identity = RunIdentity {
            entity: "e".to_owned(),
            project: "p".to_owned(),
            name: "r".to_owned(),
            storage_id: "s".to_owned(),
            url: "u".to_owned(),
        };
        spool.state.identity = Some(identity);
        assert!(spool.owes() && !spool.owes_lines() && spool.next_file() == Some(0));
        spool.state.files[0].is_sent = true;
        spool.state.files[1].is_given_up = true;
        assert!(!spool.owes());
        spool.save().unwrap();
        assert_eq!(open(&dir).next_file(), Some(1), "another process tries again");
    }

    #[test]
    fn without_a_directory_it_lives_in_memory() {
        let mut spool = Spool::open(None, plan(), "one").unwrap();
        spool.append(vec![row(1)]).unwrap();
        assert!(spool.is_ours() && spool.owes());
        check(&spool, &[(0, 1)]);
        spool.note_sent(1, 0);
        assert!(!spool.owes());
    }

    #[test]
    fn a_plan_is_written_down_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        remember(dir.path(), plan(), 5.0, None).unwrap();
        let other = Plan { project: "other".to_owned(), ..plan() };
        assert_eq!(remember(dir.path(), other, 6.0, None).unwrap().began, 5.0);
        assert_eq!(known(dir.path()).unwrap().len(), 1);
        assert!(known(&dir.path().join("none")).unwrap().is_empty());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = dir.path().join("r.json").metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
