//! The thread that logs a run: lines are kept as they come, and sent when it is time.
//!
//! Separate so that nobody who watches a job ever waits for W&B, and so that a line is on the disk
//! before anybody is asked: what hangs loses nothing. It sends at most every 15 s, at once
//! at the beginning and at the end, gives a sign of life after 30 s, and after a failure waits longer and
//! longer, or as long as the server says. Of trouble it speaks once. Its time is the sum of its waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::http::retry;
use crate::wandb::history::{Entry, Spool};
use crate::wandb::run::{Alert, merged};
use crate::wandb::session::{Goal, Pushed, Session, SharedSpool, open};

const TICK: Duration = Duration::from_millis(100);
/// Between two requests, while there is time.
const PAUSE: Duration = Duration::from_secs(15);
/// Between two requests that together bring a long history.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// After which a sign of life is given.
const SILENCE: Duration = Duration::from_secs(30);
/// The wait after the first failure; it doubles.
const BACKOFF: Duration = Duration::from_secs(2);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Page {
        page: String,
        entity: Option<String>,
        project: String,
    },
    Trouble(String),
    /// A file or an alert failed, and is not retried.
    Refused(String),
    GivenUp(String),
    TakenOver,
    Stopped,
}

pub type Tell = Arc<dyn Fn(Said) + Send + Sync>;

#[derive(Default)]
struct Shared {
    is_leaving: AtomicBool,
    is_stopped: AtomicBool,
    is_taken_over: AtomicBool,
    page: Mutex<Option<String>>,
}

/// The thread, from outside.
pub struct Worker {
    ended: Receiver<()>,
    spool: SharedSpool,
    shared: Arc<Shared>,
    tell: Tell,
    is_online: bool,
    has_told_of_disk: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closed {
    /// The run's page, or the directory that it is in.
    pub page: Option<String>,
    pub unsent: u64,
}

pub struct Beginning {
    pub goal: Goal,
    pub spool: Spool,
    /// Time; no signal should stop it, so that the last lines go out.
    pub clock: Arc<dyn Clock>,
    pub tell: Tell,
}

impl Worker {
    pub fn start(beginning: Beginning) -> std::io::Result<Worker> {
        let (end, ended) = channel();
        let shared = Arc::<Shared>::default();
        let Beginning { goal, spool, clock, tell } = beginning;
        let is_online = matches!(goal, Goal::Online(_));
        let spool = Arc::new(Mutex::new(spool));
        let errand = Errand {
            session: Session::new(goal, Arc::clone(&spool), Arc::clone(&clock)),
            spool: Arc::clone(&spool),
            clock,
            tell: Arc::clone(&tell),
            shared: Arc::clone(&shared),
            stage: Stage::Watching,
            now: Duration::ZERO,
            due: Duration::ZERO,
            heard: None,
            failures: 0,
            has_told: Told::default(),
        };
        std::thread::Builder::new().name("wandb".to_owned()).spawn(move || {
            errand.run();
            // Nobody may wait any more.
            let _ = end.send(());
        })?;
        Ok(Worker { ended, spool, shared, tell, is_online, has_told_of_disk: false })
    }

    /// Adds lines, and the summary as it is with them: they are kept when this returns.
    pub fn log(&mut self, entries: Vec<Entry>, summary: Map<String, Value>) {
        self.keep(|spool| {
            spool.state.summary = summary;
            spool.append(entries).map(|_| ())
        });
    }

    pub fn describe(&mut self, config: &Map<String, Value>) {
        self.keep(|spool| {
            let config = merged(&spool.state.plan.config, config);
            if config == spool.state.plan.config {
                return Ok(());
            }
            spool.state.plan.config = config;
            spool.save()
        });
    }

    /// Notes that the job has ended, and watching with this exit code. `alert` is sent after the end.
    pub fn end(&mut self, exit: i32, alert: Option<Alert>) {
        self.keep(|spool| {
            let is_told = spool.state.exit == Some(exit) && spool.state.is_finished;
            spool.state.exit = Some(exit);
            spool.state.alert = alert.filter(|_| !is_told);
            spool.save()
        });
        self.shared.is_leaving.store(true, Ordering::Release);
    }

    /// That lines cannot be kept is said once; they are still in memory.
    fn keep(&mut self, act: impl FnOnce(&mut Spool) -> std::io::Result<()>) {
        let mut spool = open(&self.spool);
        if !spool.is_ours() {
            return;
        }
        if let Err(error) = act(&mut spool)
            && !std::mem::replace(&mut self.has_told_of_disk, true)
        {
            let what = format!("what is logged cannot be kept on this machine: {error}");
            (self.tell)(Said::Trouble(what));
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.shared.is_stopped.load(Ordering::Relaxed)
    }

    /// Lets it send what there is, waits for that at most so long, and says how it ended.
    pub fn close(mut self, longest: Duration) -> Closed {
        self.keep(|spool| spool.save());
        self.shared.is_leaving.store(true, Ordering::Release);
        // The thread ends in its own time, and no later than the program.
        let (Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) =
            self.ended.recv_timeout(longest);
        let page = self.shared.page.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_ours = self.is_online && !self.shared.is_taken_over.load(Ordering::Relaxed);
        let unsent = if is_ours { open(&self.spool).unsent_rows().len() as u64 } else { 0 };
        Closed { page, unsent }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Watching,
    /// No further ones come: what there is goes out at once.
    Leaving,
}

/// What was said and is not said again.
#[derive(Default)]
struct Told {
    page: bool,
    trouble: bool,
    stop: bool,
}

struct Errand {
    session: Session,
    spool: SharedSpool,
    clock: Arc<dyn Clock>,
    tell: Tell,
    shared: Arc<Shared>,
    stage: Stage,
    now: Duration,
    /// When the next request may go.
    due: Duration,
    heard: Option<Duration>,
    failures: u32,
    has_told: Told,
}

#[derive(PartialEq, Eq)]
enum Onward {
    Yes,
    Done,
}

impl Errand {
    fn run(mut self) {
        loop {
            self.look_up();
            if self.step() == Onward::Done || self.clock.wait(TICK).is_err() {
                return;
            }
            self.now += TICK;
        }
    }

    fn look_up(&mut self) {
        if self.stage == Stage::Watching && self.shared.is_leaving.load(Ordering::Acquire) {
            self.stage = Stage::Leaving;
            self.due = self.now;
        }
    }

    fn say(&self, said: Said) {
        (self.tell)(said);
    }

    fn step(&mut self) -> Onward {
        let owes = open(&self.spool).owes();
        if self.stage == Stage::Leaving && self.session.is_online() && !owes {
            self.note_page();
            return Onward::Done;
        }
        let no_alert = self.heard.is_none_or(|heard| self.now.saturating_sub(heard) >= SILENCE);
        if self.now < self.due || !(owes || no_alert || self.stage == Stage::Leaving) {
            return Onward::Yes;
        }
        let pushed = self.session.push();
        self.note_page();
        for what in self.session.take_refused() {
            self.say(Said::Refused(what));
        }
        match pushed {
            Ok(Pushed::Sent { has_more, is_stopped }) => {
                self.sent(is_stopped);
                if has_more && self.stage == Stage::Watching {
                    self.due = self.now + SHORT_PAUSE;
                }
                if has_more || self.stage == Stage::Watching { Onward::Yes } else { Onward::Done }
            }
            Ok(Pushed::Nothing) => {
                self.sent(false);
                if self.stage == Stage::Watching { Onward::Yes } else { Onward::Done }
            }
            Ok(Pushed::TakenOver) => {
                self.shared.is_taken_over.store(true, Ordering::Relaxed);
                self.say(Said::TakenOver);
                Onward::Done
            }
            Err(error) if error.is_permanent() => {
                self.say(Said::GivenUp(error.to_string()));
                Onward::Done
            }
            Err(error) => self.bear(&error),
        }
    }

    fn sent(&mut self, is_stopped: bool) {
        self.failures = 0;
        self.heard = Some(self.now);
        self.due = if self.stage == Stage::Watching { self.now + PAUSE } else { self.now };
        if is_stopped && !std::mem::replace(&mut self.has_told.stop, true) {
            self.shared.is_stopped.store(true, Ordering::Relaxed);
            self.say(Said::Stopped);
        }
    }

    fn note_page(&mut self) {
        let Some(page) = self.session.page().map(str::to_owned) else { return };
        if std::mem::replace(&mut self.has_told.page, true) {
            return;
        }
        let (entity, project) = self.session.place();
        let said = Said::Page { page: page.clone(), entity, project };
        *self.shared.page.lock().unwrap_or_else(PoisonError::into_inner) = Some(page);
        self.say(said);
    }

    /// A failure that may pass: it is said once, and the next try waits.
    fn bear(&mut self, error: &crate::wandb::Error) -> Onward {
        self.failures += 1;
        if !std::mem::replace(&mut self.has_told.trouble, true) {
            self.say(Said::Trouble(error.to_string()));
        }
        let longest = BACKOFF.saturating_mul(1 << (self.failures - 1).min(6)).min(LONGEST_BACKOFF);
        let jitter = retry::scatter(self.clock.now().as_nanosecond() as u64);
        let wait = longest.mul_f64(0.75 + jitter / 4.0);
        self.due = self.now
            + match error.retry_after() {
                Some(hint) => hint,
                // Somebody waits, and not for long.
                None if self.stage == Stage::Leaving => wait.min(SHORT_PAUSE),
                None => wait,
            };
        Onward::Yes
    }
}
