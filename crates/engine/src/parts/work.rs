//! The working directory of a preparation in parts: what lies in it, and who may believe what.
//!
//! | object | what |
//! |---|---|
//! | `plan.json` | the plan: options, roots, digests of the next two |
//! | `plan/*.listing`, `plan/*.index` | the inputs, part by part; a row for each part |
//! | `parts/*` | what a part became: lines, rows, keys, rejects |
//! | `split/*` | the rejects, the places of the shards in every part, the lines that are mixed in |
//! | `shards/*` | a shard's lines, and its part of `keys.tsv` |
//! | `logs/*` | what the tasks of Slurm say, and their exit codes; nobody here reads them |
//! | `done/part-00003.json`, `done/split.json`, `done/shard-00000.json` | commit records |
//! | `published` | the plan again: its result is published, and what is left here serves nobody |
//!
//! Objects have names that hold their digests, so that attempts at the same work write the same object. A commit
//! record is put where there is none, and comes last: what none names does not exist for anybody.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::output::manifest::{FileDigest, Hex};
use crate::parts::ranges;
use crate::storage::{LocalStorage, NewObject, Object, Storage};

/// The plan.
pub const PLAN: &str = "plan.json";

/// The mark that is left by publication.
pub const PUBLISHED: &str = "published";

/// Directories of what is written here, in the order in which they may go.
const DIRECTORIES: [&str; 6] = ["parts", "split", "shards", "logs", "plan", "done"];

/// So many objects of a bucket are removed before the mark is looked for again: as many as one request takes.
const CLEARED_AT_ONCE: usize = 1000;

/// A working directory.
#[derive(Debug, Clone)]
pub struct Work {
    /// What it lies in.
    pub storage: Arc<dyn Storage>,
    dir: Option<PathBuf>,
}

/// A part, a shard, or the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The conversion of the part of this number.
    Part(u64),
    /// The split.
    Split,
    /// The writing of the shard of this number.
    Shard(u64),
}

impl Step {
    /// The name of its commit record.
    pub fn record(self) -> String {
        match self {
            Step::Part(part) => format!("done/part-{part:05}.json"),
            Step::Split => "done/split.json".to_owned(),
            Step::Shard(shard) => format!("done/shard-{shard:05}.json"),
        }
    }
}

impl Work {
    /// The directory `dir` of this machine.
    pub fn local(dir: &Path) -> Work {
        Work { storage: Arc::new(LocalStorage::new(dir)), dir: Some(dir.to_owned()) }
    }

    /// What lies in a store, below a place of its own.
    pub fn remote(storage: Arc<dyn Storage>) -> Work {
        Work { storage, dir: None }
    }

    /// The directory, if it is one of this machine.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// The place as people write it.
    pub fn shown(&self) -> String {
        self.storage.shown("")
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// The system's.
    pub fn create(&self) -> Result<(), Error> {
        let Some(dir) = &self.dir else { return Ok(()) };
        for name in DIRECTORIES {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).map_err(|source| Error::Write { path, source })?;
        }
        Ok(())
    }

    /// What the store said of the object `name`.
    pub fn failed(&self, name: &str) -> impl FnOnce(io::Error) -> Error {
        let object = self.storage.shown(name);
        |source| Error::Store { object, source }
    }

    /// The bytes of a small object; `None` where there is none.
    ///
    /// # Errors
    /// The store's.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.storage.get(name).map_err(self.failed(name))
    }

    /// Begins an object whose digest is taken on the way.
    ///
    /// # Errors
    /// The store's.
    pub fn begin(&self) -> Result<DigestObject<'_>, Error> {
        let object = self.storage.begin().map_err(self.failed(""))?;
        Ok(DigestObject { work: self, object, digest: Sha256::new(), bytes: 0 })
    }

    /// The commit record of `step` of the plan `plan`, if it is done.
    ///
    /// # Errors
    /// When it cannot be read, or is none of that plan.
    pub fn record<R: Content>(&self, step: Step, plan: &str) -> Result<Option<Record<R>>, Error> {
        let name = step.record();
        let Some(bytes) = self.get(&name)? else { return Ok(None) };
        let altered = |reason: String| Error::Altered { object: self.storage.shown(&name), reason };
        let content: R = serde_json::from_slice(&bytes).map_err(|error| altered(error.to_string()))?;
        if content.plan() != plan {
            return Err(altered("it is of another plan".to_owned()));
        }
        let line = String::from_utf8(bytes).map_err(|error| altered(error.to_string()))?;
        Ok(Some(Record { content, line: line.trim_end().to_owned() }))
    }

    /// Hands the commit records of the first `count` steps of a kind to `each`, by their numbers.
    ///
    /// # Errors
    /// [`Error::NotYet`], where some are missing: all of them; as [`Work::record`]; those of `each`.
    pub fn each_record<R: Content>(
        &self,
        count: u64,
        step: fn(u64) -> Step,
        plan: &str,
        each: &mut dyn FnMut(u64, Record<R>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut missing = Vec::new();
        for number in 0..count {
            match self.record(step(number), plan)? {
                Some(record) => each(number, record)?,
                None => missing.push(number),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let what = if matches!(step(0), Step::Shard(_)) { "shard" } else { "part" };
        Err(Error::NotYet { what: format!("{what} {} of `{}`", ranges::show(&missing), self.shown()) })
    }

    /// What `step` of the plan `plan` leaves: as it was committed before, or as `make` makes it now. `None` where the
    /// result was published meanwhile: then nothing is left of this attempt.
    ///
    /// # Errors
    /// Those of `make`; the store's; [`Error::Differ`] where another attempt left something else.
    pub fn attempt<R: Content>(
        &self,
        step: Step,
        plan: &str,
        is_durable: bool,
        make: impl FnOnce() -> Result<R, Error>,
    ) -> Result<Option<Record<R>>, Error> {
        let mut made = None;
        let done = self.record(step, plan).and_then(|done| match done {
            Some(done) => Ok(done),
            None => {
                self.make_directories(plan)?;
                let content = made.insert(make()?);
                // Nothing of a plan that is over is put among what belongs to the next one.
                if self.is_over(plan)? {
                    return Err(Error::NoPlan { work: self.shown() });
                }
                self.commit(step, plan, content, is_durable)
            }
        });
        // Only then may somebody have taken away what this attempt stands on.
        if self.is_over(plan).unwrap_or(false) {
            self.withdraw::<R>(step, plan, made.iter().flat_map(Content::objects))?;
            return Ok(None);
        }
        if let (Err(Error::Differ { .. }), Some(made)) = (&done, &made) {
            // What both have in common has one name.
            let kept = self.record::<R>(step, plan)?;
            let kept: Vec<&str> = kept.iter().flat_map(|record| record.content.objects()).collect();
            let own = made.objects().into_iter().filter(|name| !kept.contains(name));
            own.for_each(|name| drop(self.delete(name)));
        }
        done.map(Some)
    }

    /// Makes the directories that are missing, where `plan` is not over: who took away what was before it may have found
    /// them empty.
    fn make_directories(&self, plan: &str) -> Result<(), Error> {
        let Some(dir) =
            self.dir.as_ref().filter(|dir| DIRECTORIES.iter().any(|name| !dir.join(name).exists()))
        else {
            return Ok(());
        };
        if !self.is_over(plan)? {
            DIRECTORIES.iter().for_each(|name| drop(std::fs::create_dir(dir.join(name))));
        }
        Ok(())
    }

    fn commit<R: Content>(
        &self,
        step: Step,
        plan: &str,
        content: &R,
        is_durable: bool,
    ) -> Result<Record<R>, Error> {
        let name = step.record();
        let mut line = serde_json::to_string(content).expect("strings and numbers only");
        line.push('\n');
        self.storage.put_new(&name, line.as_bytes(), is_durable).map_err(self.failed(&name))?;
        // Read again in any case: a store that cannot put so tells several attempts that theirs is the one.
        match self.record(step, plan)? {
            Some(record) if record.line == line.trim_end() => Ok(record),
            Some(_) => Err(Error::Differ { record: self.storage.shown(&name) }),
            None => Err(Error::NotYet { what: format!("`{}`", self.storage.shown(&name)) }),
        }
    }

    /// Removes what an attempt has made after its plan was over, and the directories that are empty then. Where the next
    /// plan is there already, which may be the same one again, its own clearing does that: both call alike what is alike.
    fn withdraw<'o, R: Content>(
        &self,
        step: Step,
        plan: &str,
        objects: impl Iterator<Item = &'o str>,
    ) -> Result<(), Error> {
        let mut remove = |name: &str| match (self.get(PLAN)?, self.get(PUBLISHED)?) {
            (Some(_), None) => Ok(()),
            _ => self.delete(name),
        };
        objects.into_iter().try_for_each(&mut remove)?;
        if matches!(self.record::<R>(step, plan), Ok(Some(_))) {
            remove(&step.record())?;
        }
        self.remove_directories();
        Ok(())
    }

    /// Whether the result of `plan` is published, or the whole place is gone, as it then goes, or has another plan.
    ///
    /// # Errors
    /// The store's.
    pub fn is_over(&self, plan: &str) -> Result<bool, Error> {
        let is_this = |text: Vec<u8>| text.starts_with(plan_start(plan).as_bytes());
        Ok(self.get(PUBLISHED)?.is_some() || !self.get(PLAN)?.is_some_and(is_this))
    }

    /// What `result` is; `None` instead of an error where `plan` is over meanwhile, which is why.
    ///
    /// # Errors
    /// That of `result`.
    pub fn unless_over<T>(&self, plan: &str, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Err(error) if !matches!(error, Error::Interrupted) && self.is_over(plan).unwrap_or(false) => {
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        self.storage.delete(name).map_err(self.failed(name))
    }

    /// Removes everything that is written here, the plan last but for the mark; a directory only where nothing else
    /// lies in it. Ends where the mark is gone: then somebody else has done it, and the next plan may be here.
    ///
    /// # Errors
    /// The store's.
    pub fn clear(&self) -> Result<(), Error> {
        let mut names = Vec::new();
        for directory in DIRECTORIES {
            let prefix = format!("{directory}/");
            let mut list = |object: Object| {
                names.extend(Some(object.name).filter(|name| is_ours(name)));
                Ok(())
            };
            self.storage.list(&prefix, &mut list).map_err(self.failed(&prefix))?;
        }
        names.push(PLAN.to_owned());
        // The next plan may be the same one, and call its objects alike.
        for some in names.chunks(if self.dir.is_some() { 1 } else { CLEARED_AT_ONCE }) {
            if self.get(PUBLISHED)?.is_none() {
                return Ok(());
            }
            self.storage.delete_all(some).map_err(self.failed(""))?;
        }
        if self.get(PUBLISHED)?.is_none() {
            return Ok(());
        }
        self.storage.end_unfinished().map_err(self.failed(""))?;
        if let Some(dir) = &self.dir {
            self.remove_unfinished(dir);
        }
        self.remove_directories();
        self.delete(PUBLISHED)?;
        self.remove_directories();
        Ok(())
    }

    /// Removes the directories that are empty.
    pub fn remove_directories(&self) {
        let Some(dir) = &self.dir else { return };
        DIRECTORIES.iter().for_each(|name| drop(std::fs::remove_dir(dir.join(name))));
        // No system removes `.`.
        let _ = std::path::absolute(dir).and_then(std::fs::remove_dir);
    }

    /// Removes what killed attempts left: they had not come to its end, so no record names it.
    fn remove_unfinished(&self, dir: &Path) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(crate::storage::UNFINISHED.as_bytes()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// Whether an object is called as those are that are written here: a user's file beside them stays.
fn is_ours(name: &str) -> bool {
    let has_digest = |name: &str| {
        let digest = name.rsplit_once('-').map(|(_, digest)| digest);
        digest.is_some_and(|digest| digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    match name.split_once('/') {
        Some(("done", record)) => {
            let is_numbered = ["part-", "shard-"].iter().any(|start| record.starts_with(start));
            record == "split.json" || is_numbered && record.ends_with(".json")
        }
        // `JOB_TASK.log` and `JOB_TASK.exit`.
        Some(("logs", file)) => {
            let numbers = file.strip_suffix(".log").or_else(|| file.strip_suffix(".exit"));
            numbers.is_some_and(|numbers| numbers.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_'))
        }
        _ => has_digest(name),
    }
}

/// How the text of a plan begins.
pub fn plan_start(plan: &str) -> String {
    format!("{{\"plan\":\"{plan}\",")
}

/// What a commit record says.
pub trait Content: Serialize + DeserializeOwned {
    /// The plan that it belongs to.
    fn plan(&self) -> &str;

    /// The objects that it names.
    fn objects(&self) -> Vec<&str>;
}

/// A commit record.
#[derive(Debug, Clone)]
pub struct Record<R> {
    /// What it says.
    pub content: R,
    /// Its line, without the newline.
    pub line: String,
}

/// An object in the making.
pub struct DigestObject<'w> {
    work: &'w Work,
    object: Box<dyn NewObject + 'w>,
    digest: Sha256,
    /// Bytes so far.
    pub bytes: u64,
}

impl DigestObject<'_> {
    /// Ends it as `directory/name-DIGEST`, and gives that name with size and digest.
    ///
    /// # Errors
    /// The store's.
    pub fn finish(self, prefix: &str, is_durable: bool) -> Result<(String, FileDigest), Error> {
        let sha256 = Hex(&self.digest.finalize()).to_string();
        let name = format!("{prefix}-{}", &sha256[..32]);
        self.object.finish(&name, is_durable).map_err(self.work.failed(&name))?;
        Ok((name, FileDigest { bytes: self.bytes, sha256 }))
    }

    /// Adds `bytes`.
    ///
    /// # Errors
    /// The store's.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.write_all(bytes).map_err(self.work.failed(""))
    }
}

impl Write for DigestObject<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.object.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.object.flush()
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Made {
        plan: String,
        objects: Vec<String>,
    }

    impl Content for Made {
        fn plan(&self) -> &str {
            &self.plan
        }

        fn objects(&self) -> Vec<&str> {
            self.objects.iter().map(String::as_str).collect()
        }
    }

    /// A working directory with the plan `plan`.
    fn planned(dir: &Path, plan: &str) -> Work {
        let work = Work::local(&dir.join("work"));
        work.create().unwrap();
        work.storage.put_new(PLAN, plan_start(plan).as_bytes(), false).unwrap();
        work
    }

    fn make(work: &Work, plan: &str, texts: &[&str]) -> Result<Made, Error> {
        let put = |text: &&str| {
            let mut object = work.begin()?;
            object.add(text.as_bytes())?;
            object.finish("parts/x", false).map(|(name, _)| name)
        };
        Ok(Made { plan: plan.to_owned(), objects: texts.iter().map(put).collect::<Result<_, _>>()? })
    }

    fn files(work: &Work) -> Vec<String> {
        let mut names = Vec::new();
        for prefix in ["", "parts/", "done/"] {
            let mut each = |object: Object| {
                names.push(object.name);
                Ok(())
            };
            work.storage.list(prefix, &mut each).unwrap();
        }
        names
    }

    const STEP: Step = Step::Part(0);

    #[test]
    fn an_attempt_that_ends_after_all_was_cleared_leaves_nothing() {
        // Its object is made before the directory goes, or after.
        for is_before in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let work = planned(dir.path(), "a");
            let late = work.attempt(STEP, "a", false, || {
                let made = is_before.then(|| make(&work, "a", &["1"]));
                work.storage.put_new(PUBLISHED, b"", false).unwrap();
                work.clear().unwrap();
                made.unwrap_or_else(|| make(&work, "a", &["1"]))
            });
            assert!(late.unwrap().is_none());
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn an_attempt_that_ends_while_it_is_cleared_takes_its_own_away() {
        let dir = tempfile::tempdir().unwrap();
        let work = planned(dir.path(), "a");
        let late = work.attempt(STEP, "a", false, || {
            work.storage.put_new(PUBLISHED, b"", false).unwrap();
            make(&work, "a", &["1"])
        });
        assert!(late.unwrap().is_none());
        assert_eq!(files(&work), [PLAN, PUBLISHED]);
        work.clear().unwrap();
        assert!(!dir.path().join("work").exists());
    }

    #[test]
    fn an_attempt_of_a_plan_that_is_over_puts_nothing_into_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let work = planned(dir.path(), "a");
        let late = work.attempt(STEP, "a", false, || {
            work.storage.put_new(PUBLISHED, b"", false).unwrap();
            work.clear().unwrap();
            planned(dir.path(), "b");
            let next = work.attempt(STEP, "b", false, || make(&work, "b", &["2"])).unwrap().unwrap();
            assert_eq!(next.content.plan, "b");
            make(&work, "a", &["1"])
        });
        assert!(late.unwrap().is_none());
        let record = work.record::<Made>(STEP, "b").unwrap().unwrap();
        assert!(files(&work).contains(&record.content.objects[0]));
        work.storage.put_new(PUBLISHED, b"", false).unwrap();
        work.clear().unwrap();
        assert!(!dir.path().join("work").exists());
    }

    #[test]
    fn an_attempt_of_a_plan_that_is_over_takes_nothing_from_the_same_plan_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let work = planned(dir.path(), "a");
        let made = make(&work, "a", &["1"]).unwrap();
        work.commit(STEP, "a", &made, false).unwrap();
        let kept = files(&work);
        work.withdraw::<Made>(STEP, "a", made.objects().into_iter()).unwrap();
        assert_eq!(files(&work), kept);
    }

    #[test]
    fn of_two_attempts_that_differ_the_first_keeps_all_it_has_made() {
        let dir = tempfile::tempdir().unwrap();
        let work = planned(dir.path(), "a");
        let second = work.attempt(STEP, "a", false, || {
            work.attempt(STEP, "a", false, || make(&work, "a", &["1", "2"]))?;
            make(&work, "a", &["2", "3"])
        });
        assert!(matches!(second, Err(Error::Differ { .. })), "{second:?}");
        let first = work.record::<Made>(STEP, "a").unwrap().unwrap().content;
        let mut objects: Vec<&str> = first.objects();
        objects.sort_unstable();
        assert_eq!(files(&work), [&[PLAN], &objects[..], &["done/part-00000.json"]].concat());
    }

    #[test]
    fn a_directory_that_was_taken_away_is_made_again_as_long_as_its_plan_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let work = planned(dir.path(), "a");
        work.remove_directories();
        work.attempt(STEP, "a", false, || make(&work, "a", &["1"])).unwrap().unwrap();
        assert_eq!(files(&work).len(), 3);
    }

    #[test]
    fn clearing_ends_where_somebody_else_has_done_it() {
        let dir = tempfile::tempdir().unwrap();
        let work = planned(dir.path(), "a");
        work.clear().unwrap();
        assert_eq!(files(&work), [PLAN]);
    }
}
