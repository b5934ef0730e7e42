//! One program's writing of one run: finds it or makes it, sends what is unsent, gives way.
//!
//! Separate from the thread that decides when: each call is one step that may fail and be taken
//! again, and none keeps anybody from adding lines meanwhile. Before each request the run is looked up, and whoever finds a later writer there stops.
//! A batch bears its rows, and the summary that says which rows those are, in one request: a
//! program that goes on elsewhere finds both or neither.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::http::SETTLING;
use crate::wandb::history::{Spool, State, write_whole};
use crate::wandb::logged::{LOGGED_KEY, Logged, WRITER_KEY, Writer};
use crate::wandb::offline::{self, Offline};
use crate::wandb::run::{self, Found, Plan, send_alert};
use crate::wandb::{Error, RunIdentity, Wandb, files};

/// How often a file is tried by one process.
const FILE_TRIES: u32 = 3;
const MOST_LINES: usize = 1000;
/// The most bytes of rows in a request, well below what the service takes.
const MOST_BYTES: usize = 1 << 20;

pub enum Goal {
    Online(Box<Wandb>),
    /// Into a directory below this one, for another program to upload.
    Offline(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It sent something, or has given up sending it.
    Sent {
        has_more: bool,
        is_stopped: bool,
    },
    Nothing,
    /// Another program writes the run now.
    TakenOver,
}

enum Stage {
    New,
    /// The run was looked at, and is there if this holds something.
    Seen(String, Option<Box<Found>>),
    Entered(Writer, Box<RunIdentity>),
}

/// Lines that one thread adds and another one sends.
pub type SharedSpool = Arc<Mutex<Spool>>;

/// The lines, to be looked at or added to: never while somebody is asked.
pub fn open(spool: &SharedSpool) -> MutexGuard<'_, Spool> {
    spool.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Session {
    goal: Goal,
    spool: SharedSpool,
    clock: Arc<dyn Clock>,
    stage: Stage,
    is_summary_due: bool,
    /// The configuration as the service has it, once the run is ours to write.
    config: Map<String, Value>,
    file_failures: u32,
    /// Messages about what failed and is not retried.
    refused: Vec<String>,
    page: Option<String>,
    /// When this process made the run, or took it over.
    created: Option<Duration>,
}

impl Session {
    pub fn new(goal: Goal, spool: SharedSpool, clock: Arc<dyn Clock>) -> Session {
        let page = open(&spool).state.identity.as_ref().map(|identity| identity.url.clone());
        Session {
            goal,
            spool,
            clock,
            stage: Stage::New,
            is_summary_due: false,
            config: Map::new(),
            file_failures: 0,
            refused: Vec::new(),
            page,
            created: None,
        }
    }

    pub(crate) fn is_online(&self) -> bool {
        matches!(self.goal, Goal::Online(_))
    }

    /// The run's page, or the directory that it is in, as soon as that is known.
    pub fn page(&self) -> Option<&str> {
        self.page.as_deref()
    }

    /// Whose it is and in which project, as far as that is known.
    pub fn place(&self) -> (Option<String>, String) {
        let spool = open(&self.spool);
        let (identity, plan) = (&spool.state.identity, &spool.state.plan);
        match (identity, &self.stage) {
            (Some(identity), _) => (Some(identity.entity.clone()), identity.project.clone()),
            (None, Stage::Seen(entity, _)) => (Some(entity.clone()), plan.project.clone()),
            (None, _) => (plan.entity.clone(), plan.project.clone()),
        }
    }

    /// Messages, since the last call, about a file or an alert that failed and is not retried.
    pub fn take_refused(&mut self) -> Vec<String> {
        std::mem::take(&mut self.refused)
    }

    /// One step: a batch, a file, or a sign of life where there is nothing to send. Fails when the service
    /// refuses or cannot be asked: the step may be taken again, unless that is permanent.
    pub fn push(&mut self) -> Result<Pushed, Error> {
        self.step().map_err(|error| match error {
            Error::Refused { what, host, status: 404, .. } if self.is_settling() => {
                Error::NotYet { what, host }
            }
            error => error,
        })
    }

    /// Whether the run was created a moment ago, so that a 404 says nothing yet.
    fn is_settling(&self) -> bool {
        self.created.is_some_and(|created| self.clock.elapsed().saturating_sub(created) < SETTLING)
    }

    fn step(&mut self) -> Result<Pushed, Error> {
        if !open(&self.spool).is_ours() {
            return Ok(Pushed::TakenOver);
        }
        let wandb = match &self.goal {
            Goal::Online(wandb) => wandb,
            Goal::Offline(root) => {
                let root = root.clone();
                return self.export(root);
            }
        };
        match &self.stage {
            // The state of this machine says that the service has all.
            Stage::New if self.is_done() => return Ok(Pushed::Nothing),
            Stage::New => {
                let state = open(&self.spool).state.clone();
                let (entity, found) = look(wandb, &state)?;
                self.join(entity, found)?;
            }
            Stage::Seen(..) => {}
            Stage::Entered(writer, identity) => {
                let summary = run::summary(wandb, identity)?;
                let theirs = summary.as_ref().and_then(Writer::of);
                if theirs.as_ref() > Some(writer) {
                    return Ok(Pushed::TakenOver);
                }
                self.is_summary_due |= theirs.as_ref() != Some(writer);
                self.update_config()?;
                let spool = open(&self.spool);
                let file = spool.next_file().filter(|_| !self.is_summary_due && !spool.owes_lines());
                drop(spool);
                return match file {
                    Some(file) => self.send_file(file),
                    None => self.send(),
                };
            }
        }
        // A run that was told of its end is not opened again for nothing.
        if self.is_done() {
            return Ok(Pushed::Nothing);
        }
        if let Err(error) = self.enter() {
            // By the next try somebody else may have been there.
            self.stage = Stage::New;
            return Err(error);
        }
        self.send()
    }

    fn is_done(&self) -> bool {
        let spool = open(&self.spool);
        spool.state.is_finished && !spool.owes()
    }

    fn join(&mut self, entity: String, found: Option<Found>) -> Result<(), Error> {
        let mut spool = open(&self.spool);
        let theirs = found.as_ref().and_then(|found| Writer::of(&found.summary));
        let was_us = theirs.is_some_and(|writer| spool.state.writers.contains(&writer));
        let exit = found.as_ref().and_then(|found| Logged::of(&found.summary).exit);
        let is_same_end = spool.state.exit.is_none() || spool.state.exit == exit;
        spool.state.is_finished = exit.is_some() && is_same_end;
        if spool.state.is_finished {
            // Whoever sent the end has sent the alert.
            spool.state.alert = None;
        }
        if !was_us {
            spool.rebase(found.as_ref().unwrap_or(&Found::default()))?;
        }
        if let (Some(_), Goal::Online(wandb), None) = (&found, &self.goal, &self.page) {
            let plan = located(&spool.state);
            self.page = Some(run::url(wandb.app(), [&entity, &plan.project, &plan.run]));
        }
        drop(spool);
        self.stage = Stage::Seen(entity, found.map(Box::new));
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Error> {
        let (Goal::Online(wandb), Stage::Seen(entity, found)) = (&self.goal, &self.stage) else {
            return Ok(());
        };
        let (plan, owner) = {
            let spool = open(&self.spool);
            (located(&spool.state), spool.state.owner.clone())
        };
        let config = match found {
            Some(found) => {
                Some(run::merged(&found.config, &plan.config)).filter(|config| *config != found.config)
            }
            None => Some(plan.config.clone()),
        };
        let known = found.as_ref().map(|found| found.config.clone());
        let config_there = config.clone().or(known).unwrap_or_default();
        let identity = run::upsert(wandb, entity, &plan.for_run(found.as_deref()), config.as_ref())?;
        let before = found.as_ref().and_then(|found| Writer::of(&found.summary));
        let writer = Writer { generation: before.map_or(0, |writer| writer.generation) + 1, id: owner };
        let mut spool = open(&self.spool);
        let writers = &mut spool.state.writers;
        writers.push(writer.clone());
        let old = writers.len().saturating_sub(2);
        writers.drain(..old);
        spool.state.identity = Some(identity.clone());
        spool.state.is_finished = false;
        // Before anything is sent under this name: a lost answer is recognized by it.
        spool.save()?;
        drop(spool);
        self.page = Some(identity.url.clone());
        self.created = Some(self.clock.elapsed());
        self.is_summary_due = true;
        self.config = config_there;
        self.stage = Stage::Entered(writer, Box::new(identity));
        Ok(())
    }

    fn update_config(&mut self) -> Result<(), Error> {
        let (Goal::Online(wandb), Stage::Entered(_, identity)) = (&self.goal, &self.stage) else {
            return Ok(());
        };
        let plan = open(&self.spool).state.plan.clone();
        let config = run::merged(&self.config, &plan.config);
        if config != self.config {
            let bare = Plan {
                run: plan.run,
                project: identity.project.clone(),
                sweep: plan.sweep,
                metrics: plan.metrics,
                ..Plan::default()
            };
            run::upsert(wandb, &identity.entity, &bare, Some(&config))?;
            self.config = config;
        }
        Ok(())
    }

    /// Uploads a file. One that is refused, or fails too often, is not retried by this process.
    fn send_file(&mut self, index: usize) -> Result<Pushed, Error> {
        let (Goal::Online(wandb), Stage::Entered(_, identity)) = (&self.goal, &self.stage) else {
            return Ok(Pushed::Nothing);
        };
        let (name, body) = {
            let spool = open(&self.spool);
            let name = spool.state.files.get(index).map(|file| file.name.clone()).unwrap_or_default();
            (name, spool.file_body(index))
        };
        let done = match body {
            Ok(body) => match files::upload(wandb, identity, &name, &body) {
                Err(error) if !error.is_permanent() && self.file_failures + 1 < FILE_TRIES => {
                    self.file_failures += 1;
                    return Err(error);
                }
                done => done.map_err(|error| error.to_string()),
            },
            Err(reason) => Err(reason),
        };
        self.file_failures = 0;
        let mut spool = open(&self.spool);
        if let Some(file) = spool.state.files.get_mut(index) {
            file.is_sent = done.is_ok();
            file.is_given_up = done.is_err();
        }
        spool.save()?;
        let has_more = spool.owes();
        drop(spool);
        self.refused.extend(done.err().map(|reason| format!("the file {name} was not uploaded: {reason}")));
        Ok(Pushed::Sent { has_more, is_stopped: false })
    }

    fn send(&mut self) -> Result<Pushed, Error> {
        let (Goal::Online(wandb), Stage::Entered(writer, identity)) = (&self.goal, &self.stage) else {
            return Ok(Pushed::Nothing);
        };
        let (batch, body) = {
            let spool = open(&self.spool);
            let batch = Batch::of(&spool);
            let body = self.body(&spool, &batch, writer);
            (batch, body)
        };
        let heard = wandb.stream(identity, &body)?;
        let mut spool = open(&self.spool);
        spool.note_sent(batch.rows.len(), batch.lines.len());
        self.is_summary_due = false;
        spool.state.is_finished |= batch.exit.is_some();
        // Removed before it is sent, so that it is never sent twice.
        let alert = spool.state.alert.take_if(|_| batch.exit.is_some());
        spool.save()?;
        let has_more = spool.owes();
        drop(spool);
        let place = [&identity.entity, &identity.project, &identity.name].map(String::as_str);
        if let Some(Err(error)) = alert.map(|alert| send_alert(wandb, place, &alert)) {
            self.refused.push(format!("no alert was sent: {error}"));
        }
        Ok(Pushed::Sent { has_more, is_stopped: heard.is_stopped })
    }

    fn body(&self, spool: &Spool, batch: &Batch, writer: &Writer) -> Value {
        let state = &spool.state;
        let (rows, lines) = (batch.rows.len(), batch.lines.len());
        if rows + lines == 0 && !self.is_summary_due && batch.exit.is_none() {
            return json!({});
        }
        let mut logged = spool.logged_after(rows, lines);
        logged.exit = batch.exit;
        let mut summary = state.summary.clone();
        let now = self.clock.now().as_nanosecond() as f64 / 1e9;
        let runtime = (now - state.began).max(0.0);
        let first_unsent = state.rows.unsent - state.rows.first;
        let own = [
            ("_step", json!((state.first_step + first_unsent + rows as u64).saturating_sub(1))),
            ("_timestamp", json!(now)),
            ("_runtime", json!(runtime)),
            ("_wandb", json!({ "runtime": runtime as u64 })),
            (LOGGED_KEY, json!(logged.text())),
            (WRITER_KEY, json!(writer.text())),
        ];
        summary.extend(own.map(|(key, value)| (key.to_owned(), value)));
        let mut files = Map::new();
        let mut put = |name: &str, offset: u64, content: Vec<String>| {
            if !content.is_empty() {
                files.insert(name.to_owned(), json!({ "offset": offset, "content": content }));
            }
        };
        put("wandb-history.jsonl", state.rows.unsent, batch.rows.clone());
        put("output.log", state.lines.unsent, batch.lines.clone());
        put("wandb-summary.json", 0, vec![Value::Object(summary).to_string()]);
        let mut body = json!({ "files": files });
        if let Some(code) = batch.exit {
            body["complete"] = json!(true);
            body["exitcode"] = json!(code);
        }
        body
    }

    /// Writes the run anew as the file that `wandb sync` uploads, with its files beside it.
    fn export(&mut self, root: PathBuf) -> Result<Pushed, Error> {
        let mut spool = open(&self.spool);
        let run = spool.state.plan.run.clone();
        let began = self.clock.now().strftime("%Y%m%d_%H%M%S").to_string();
        let name = spool.state.offline.get_or_insert_with(|| format!("offline-run-{began}-{run}"));
        let dir = root.join(name);
        while let Some(index) = spool.next_file() {
            let copied = copy(&spool, index, &dir.join("files"));
            let file = &mut spool.state.files[index];
            // Copied, not uploaded: `is_sent` stays false for `wandb-sync`.
            file.is_given_up = true;
            let reason =
                copied.err().map(|reason| format!("the file {} was not copied: {reason}", file.name));
            self.refused.extend(reason);
        }
        spool.save()?;
        let state = &spool.state;
        let is_there = |name: &&str| dir.join("files").join(name).is_file();
        let files = state.files.iter().map(|file| file.name.as_str()).filter(is_there).collect();
        let mut summary = state.summary.clone();
        summary.insert("_step".to_owned(), spool.next_step().saturating_sub(1).into());
        let path = dir.join(format!("run-{run}.wandb"));
        write_whole(&path, &mut |out| {
            let run = Offline {
                plan: &state.plan,
                began: state.began,
                rows: Box::new(spool.rows()),
                lines: spool.lines(),
                summary: &summary,
                exit: state.exit,
                files: Vec::clone(&files),
            };
            offline::write(run, out)
        })?;
        self.page = Some(dir.display().to_string());
        Ok(Pushed::Sent { has_more: false, is_stopped: false })
    }
}

fn copy(spool: &Spool, index: usize, dir: &Path) -> Result<(), String> {
    let body = spool.file_body(index)?;
    let to = dir.join(&spool.state.files[index].name);
    let copied = write_whole(&to, &mut |out| std::io::copy(&mut body.open(), out).map(drop));
    copied.map_err(|error| format!("cannot write `{}`: {error}", to.display()))
}

struct Batch {
    rows: Vec<String>,
    lines: Vec<String>,
    /// The exit code, with the last of the lines.
    exit: Option<i32>,
}

impl Batch {
    fn of(spool: &Spool) -> Batch {
        let mut bytes = 0;
        let rows = spool.unsent_rows().iter().take(MOST_LINES).map(|(_, row)| json!(row).to_string());
        let rows: Vec<String> = rows
            .take_while(|row| {
                bytes += row.len();
                bytes <= MOST_BYTES
            })
            .collect();
        let lines: Vec<String> = spool.unsent_lines().iter().take(MOST_LINES).cloned().collect();
        let is_last = rows.len() == spool.unsent_rows().len() && lines.len() == spool.unsent_lines().len();
        let exit = spool.state.exit.filter(|_| is_last && !spool.state.is_finished);
        Batch { rows, lines, exit }
    }
}

/// The plan, with the place where the run already is.
fn located(state: &State) -> Plan {
    let mut plan = state.plan.clone();
    if let Some(identity) = &state.identity {
        plan.entity = Some(identity.entity.clone());
        plan.project.clone_from(&identity.project);
    }
    plan
}

fn look(wandb: &Wandb, state: &State) -> Result<(String, Option<Found>), Error> {
    let own = run::viewer(wandb)?;
    let plan = located(state);
    let entity = plan.entity.clone().unwrap_or(own);
    let found = run::find(wandb, &entity, &plan)?;
    Ok((entity, found))
}
