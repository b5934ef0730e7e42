//! The thread that logs a run: takes lines whenever they come, sends them when it is time.
//!
//! Separate so that nobody who watches a job ever waits for W&B. It sends at most every 15 s, at once
//! at the beginning and at the end, gives a sign of life after 30 s, and after a failure waits longer and
//! longer, or as long as the server says. Of trouble it speaks once. Its time is the sum of its waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::Clock;
use crate::http::retry;
use crate::wandb::history::{Entry, Spool};
use crate::wandb::session::{Goal, Pushed, Session};

/// How often it looks up.
const TICK: Duration = Duration::from_millis(100);

/// Between two requests, while there is time.
const PAUSE: Duration = Duration::from_secs(15);

/// Between two requests that together bring a long history.
const SHORT_PAUSE: Duration = Duration::from_secs(1);

/// After which a sign of life is given.
const SILENCE: Duration = Duration::from_secs(30);

/// The wait after the first failure; it doubles.
const BACKOFF: Duration = Duration::from_secs(2);

/// The longest wait after a failure.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// What happens, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The run is there, or the directory it is written to.
    Page {
        /// Its address, or the directory.
        page: String,
        /// Whose it is.
        entity: Option<String>,
        /// The project.
        project: String,
    },
    /// It does not work for now.
    Trouble(String),
    /// It does not work, and will not.
    GivenUp(String),
    /// Another program writes the run.
    TakenOver,
    /// Somebody pressed Stop.
    Stopped,
}

/// Who is told.
pub type Tell = Arc<dyn Fn(Said) + Send + Sync>;

/// What the thread is given.
enum Message {
    /// Lines, and the summary as it is with them.
    News(Vec<Entry>, Map<String, Value>),
    /// The job has ended, and so does the watching: with this exit code.
    End(i32),
}

/// What both sides see.
#[derive(Default)]
struct Shared {
    is_stopped: AtomicBool,
    unsent: AtomicU64,
    page: std::sync::Mutex<Option<String>>,
}

/// The thread, from outside.
pub struct Worker {
    sender: Sender<Message>,
    ended: Receiver<()>,
    shared: Arc<Shared>,
}

/// How the logging ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closed {
    /// The run's page, or the directory that it is in.
    pub page: Option<String>,
    /// Rows that were not sent.
    pub unsent: u64,
}

/// What the thread needs.
pub struct Beginning {
    /// Where lines go.
    pub goal: Goal,
    /// The run's lines.
    pub spool: Spool,
    /// Time; no signal should stop it, so that the last lines go out.
    pub clock: Arc<dyn Clock>,
    /// Who is told.
    pub tell: Tell,
}

impl Worker {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(beginning: Beginning) -> std::io::Result<Worker> {
        let (sender, inbox) = channel();
        let (end, ended) = channel();
        let shared = Arc::<Shared>::default();
        let Beginning { goal, spool, clock, tell } = beginning;
        let session = Session::new(goal, spool, Arc::clone(&clock));
        let errand = Errand {
            session,
            clock,
            tell,
            shared: Arc::clone(&shared),
            stage: Stage::Watching,
            now: Duration::ZERO,
            due: Duration::ZERO,
            heard: Duration::ZERO,
            failures: 0,
            has_told: Told::default(),
        };
        std::thread::Builder::new().name("wandb".to_owned()).spawn(move || {
            errand.run(&inbox);
            // Nobody may wait any more.
            let _ = end.send(());
        })?;
        Ok(Worker { sender, ended, shared })
    }

    /// Gives it lines, and the summary as it is with them.
    pub fn log(&self, entries: Vec<Entry>, summary: Map<String, Value>) {
        // A thread that has given up for good takes nothing.
        let _ = self.sender.send(Message::News(entries, summary));
    }

    /// Tells it that the job has ended.
    pub fn end(&self, exit: i32) {
        let _ = self.sender.send(Message::End(exit));
    }

    /// Whether somebody pressed Stop on the run's page.
    pub fn is_stopped(&self) -> bool {
        self.shared.is_stopped.load(Ordering::Relaxed)
    }

    /// Lets it send what there is, waits for that at most so long, and says how it ended.
    pub fn close(self, longest: Duration) -> Closed {
        drop(self.sender);
        // The thread ends in its own time, and no later than the program.
        let (Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) =
            self.ended.recv_timeout(longest);
        let page = self.shared.page.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        Closed { page, unsent: self.shared.unsent.load(Ordering::Relaxed) }
    }
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Lines come.
    Watching,
    /// No further ones come: what there is goes out at once.
    Leaving,
}

/// What was said and is not said again.
#[derive(Default)]
struct Told {
    page: bool,
    trouble: bool,
    disk: bool,
    stop: bool,
}

/// The thread, from inside.
struct Errand {
    session: Session,
    clock: Arc<dyn Clock>,
    tell: Tell,
    shared: Arc<Shared>,
    stage: Stage,
    now: Duration,
    /// When the next request may go.
    due: Duration,
    /// When the last one went.
    heard: Duration,
    failures: u32,
    has_told: Told,
}

/// Whether it goes on.
#[derive(PartialEq, Eq)]
enum Onward {
    Yes,
    /// There is no more to be done.
    Done,
    /// Lines are only kept.
    GivenUp,
}

impl Errand {
    fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            self.listen(inbox);
            self.note_unsent();
            match self.step() {
                Onward::Yes => {}
                Onward::Done => return,
                Onward::GivenUp => break,
            }
            if self.clock.wait(TICK).is_err() {
                return;
            }
            self.now += TICK;
        }
        // The lines are kept all the same, for a later run.
        while self.stage == Stage::Watching {
            self.listen(inbox);
            self.note_unsent();
            if self.clock.wait(TICK).is_err() {
                return;
            }
        }
        self.note_disk(|errand| errand.session.spool.save());
    }

    /// Takes what has come.
    fn listen(&mut self, inbox: &Receiver<Message>) {
        loop {
            match inbox.try_recv() {
                Ok(Message::News(entries, summary)) => {
                    self.session.spool.state.summary = summary;
                    self.note_disk(|errand| errand.session.spool.append(entries).map(|_| ()));
                }
                Ok(Message::End(exit)) => {
                    self.session.spool.state.exit = Some(exit);
                    self.leave();
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.leave();
                    return;
                }
            }
        }
    }

    fn leave(&mut self) {
        if self.stage == Stage::Watching {
            self.stage = Stage::Leaving;
            self.due = self.now;
            // Should nothing go out any more, a later run finds how far the job was.
            self.note_disk(|errand| errand.session.spool.save());
        }
    }

    /// That lines cannot be kept is said once; they are still in memory.
    fn note_disk(&mut self, act: impl FnOnce(&mut Errand) -> std::io::Result<()>) {
        if !self.session.spool.is_ours() {
            return;
        }
        if let Err(error) = act(self)
            && !std::mem::replace(&mut self.has_told.disk, true)
        {
            self.say(Said::Trouble(format!("what is logged cannot be kept on this machine: {error}")));
        }
    }

    fn note_unsent(&self) {
        let is_online = self.session.is_online();
        let unsent = if is_online { self.session.spool.unsent_rows().len() as u64 } else { 0 };
        self.shared.unsent.store(unsent, Ordering::Relaxed);
    }

    fn say(&self, said: Said) {
        (self.tell)(said);
    }

    /// A request, if it is time for one.
    fn step(&mut self) -> Onward {
        let is_silent = self.now.saturating_sub(self.heard) >= SILENCE;
        let is_first = self.heard.is_zero() && self.failures == 0;
        let has_reason = self.session.spool.owes() || is_silent || is_first || self.stage == Stage::Leaving;
        if self.now < self.due || !has_reason {
            return Onward::Yes;
        }
        if self.stage == Stage::Leaving && self.session.is_online() && !self.session.spool.owes() {
            self.note_page();
            return Onward::Done;
        }
        let pushed = self.session.push();
        self.note_unsent();
        self.note_page();
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
                self.shared.unsent.store(0, Ordering::Relaxed);
                self.say(Said::TakenOver);
                Onward::Done
            }
            Err(error) if error.is_permanent() => {
                self.say(Said::GivenUp(error.to_string()));
                Onward::GivenUp
            }
            Err(error) => self.bear(&error),
        }
    }

    fn sent(&mut self, is_stopped: bool) {
        self.failures = 0;
        self.heard = self.now.max(TICK);
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
        let said =
            Said::Page { page: page.clone(), entity: entity.map(str::to_owned), project: project.to_owned() };
        *self.shared.page.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(page);
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
