//! Many stories, each asked about once, however often the run is begun.
//!
//! First a look without the network: which stories are finished, which cannot be asked about, and what
//! the rest may take at most. Then threads that take one story after the other. A story without an
//! answer goes to the end of the queue a few times; many in a row mean that the server is gone, and end
//! the run, which the next one takes up.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::generate::ask::{Asker, Effort, Outcome, Show, most_tokens};
use crate::generate::file::{NoPlace, Origin, Output, Place, Standing, nulls, standing, text};
use crate::generate::question::{Question, Questions};
use crate::generate::request::{Delivery, Parameters};
use crate::generate::verdict::{Fault, Flaw};
use ctxtune_engine::json::KeyText;
use ctxtune_engine::line::template::Template;
use ctxtune_engine::prepare;
use ctxtune_service::{Clock, http, together};

/// How often a story that gets no answer is taken up in one run; each time the transport tries several times.
const ROUNDS: u32 = 4;
/// So many stories are refused, and none was answered: it is not the stories.
const REFUSED_AT_FIRST: u64 = 3;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Source(#[from] prepare::Error),
    #[error("cannot {verb} `{path}`: {source}")]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("`{0}` is in the way: this tool did not make it, and does not overwrite it")]
    Foreign(PathBuf),
    #[error("no record in the sources")]
    Nothing,
    #[error("interrupted")]
    Stopped,
}

/// A story that there is something to say of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its key as a JSON string.
    pub key: String,
    pub code: &'static str,
    pub reason: String,
}

impl Named {
    fn new(key: &[u8], code: &'static str, reason: impl Into<String>) -> Named {
        Named { key: KeyText(key).to_json(), code, reason: reason.into() }
    }
}

#[derive(Debug)]
pub struct Plan<'p> {
    pub questions: &'p Questions,
    pub template: &'p Template,
    pub parameters: &'p Parameters,
    /// What the model's name stands for, where that is known.
    pub weights: Option<&'p str>,
    pub dir: &'p Path,
    pub retry: Retry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    Nothing,
    Invalid,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// The positions of stories to be asked about.
    pub todo: Vec<u32>,
    pub there: u64,
    /// Stories that were asked about and have none.
    pub invalid: Vec<Named>,
    pub rejected: Vec<Named>,
    /// The most tokens that one answer to each can take.
    pub most_tokens: u64,
}

struct Asked {
    question: Question,
    place: Place,
    digest: String,
}

impl Plan<'_> {
    /// Looks at every record and its file. Nothing is sent.
    pub fn scan(&self, clock: &dyn Clock) -> Result<Scan, Error> {
        let mut scan = Scan::default();
        let mut taken = Taken::default();
        for position in 0..self.questions.len() {
            if position % 64 == 0 && clock.is_stopped() {
                return Err(Error::Stopped);
            }
            let key = self.questions.key(position);
            let asked = match self.read(position)? {
                Ok(asked) => asked,
                Err(named) => {
                    scan.rejected.push(named);
                    continue;
                }
            };
            if let Err(path) = taken.take(&asked.place) {
                let reason = format!("`{}` is the file of another story: rename one of them", path.display());
                scan.rejected.push(Named::new(key, "name_taken", reason));
                continue;
            }
            let standing = match standing(&asked.place, &asked.digest, self.weights) {
                Ok(standing) => standing,
                Err(error) if is_about_the_name(&error) => {
                    let reason = format!("`{}` cannot be read: {error}", asked.place.valid.display());
                    scan.rejected.push(Named::new(key, NoPlace::LongName.as_str(), reason));
                    continue;
                }
                Err(source) => return Err(Error::File { verb: "read", path: asked.place.valid, source }),
            };
            match standing {
                Standing::Foreign(path) => return Err(Error::Foreign(path)),
                Standing::Valid => scan.there += 1,
                Standing::Invalid(flaw) if self.retry == Retry::Nothing => {
                    scan.invalid.push(Named::new(key, flaw.fault.as_str(), flaw.reason));
                }
                Standing::Invalid(_) | Standing::Open => {
                    let body = self.parameters.body(&asked.question.messages, 1, Delivery::Whole);
                    scan.most_tokens += most_tokens(&body, self.parameters.max_tokens);
                    scan.todo.push(position as u32);
                }
            }
        }
        if self.questions.is_empty() { Err(Error::Nothing) } else { Ok(scan) }
    }

    fn read(&self, position: usize) -> Result<Result<Asked, Named>, Error> {
        let key = self.questions.key(position);
        let question = match self.questions.read(position, self.template)? {
            Ok(question) => question,
            Err(none) => return Ok(Err(Named::new(key, none.code, none.reason))),
        };
        let place = match self.questions.place(self.dir, position) {
            Ok(place) => place,
            Err(none) => return Ok(Err(Named::new(key, none.as_str(), none.to_string()))),
        };
        let digest = self.parameters.digest(&question.messages);
        Ok(Ok(Asked { question, place, digest }))
    }
}

#[derive(Default)]
struct Taken(BTreeSet<PathBuf>);

impl Taken {
    /// Takes both paths of `place`; gives one that another record has, or that would have to be a directory and
    /// a file.
    fn take(&mut self, place: &Place) -> Result<(), PathBuf> {
        for path in [&place.valid, &place.invalid] {
            // What is below a path follows it in this order.
            let below = self.0.range::<PathBuf, _>(path..).next().filter(|next| next.starts_with(path));
            let above = path.ancestors().find(|above| self.0.contains(*above));
            if let Some(other) = below.map(PathBuf::as_path).or(above) {
                return Err(other.to_owned());
            }
        }
        self.0.extend([place.valid.clone(), place.invalid.clone()]);
        Ok(())
    }
}

/// Whether a file cannot be read since no file can have that name there: of one record, not of the directory.
fn is_about_the_name(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidFilename | io::ErrorKind::NotADirectory)
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub total: u64,
    pub valid: u64,
    pub invalid: Vec<Named>,
    /// Values of carried fields that are no JSON, and were written as `null`.
    pub nulls: u64,
    pub effort: Effort,
}

impl Tally {
    pub fn finished(&self) -> u64 {
        self.valid + self.invalid.len() as u64
    }
}

#[derive(Debug)]
pub enum End {
    Done,
    /// The next request could have cost more than is allowed.
    OverBudget,
    /// The server does not answer, or refuses all.
    Server(together::Error),
    /// A file cannot be read or written, or somebody asked the program to stop.
    Local(Error),
}

pub struct Run<'r> {
    pub plan: &'r Plan<'r>,
    pub asker: &'r Asker<'r>,
    pub output: &'r Output,
    pub concurrency: NonZeroUsize,
    /// Told after every story, from whatever thread.
    pub tell: &'r (dyn Fn(&Tally) + Sync),
}

#[derive(Default)]
struct State {
    /// Positions, and how often each was taken up.
    queue: VecDeque<(u32, u32)>,
    tally: Tally,
    refused: u64,
    /// Stories without an answer since the last one with one.
    unanswered_in_a_row: usize,
    /// The last error of a story that was given up.
    given_up: Option<together::Error>,
    end: Option<End>,
}

impl Run<'_> {
    pub fn run(&self, todo: &[u32]) -> (Tally, End) {
        let state = Mutex::new(State {
            queue: todo.iter().map(|position| (*position, 0)).collect(),
            tally: Tally { total: todo.len() as u64, ..Tally::default() },
            ..State::default()
        });
        std::thread::scope(|scope| {
            for number in 0..self.concurrency.get().min(todo.len()) {
                let state = &state;
                let work = move || self.work(number, state);
                if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, work) {
                    let threads = Error::Source(prepare::Error::Threads(error));
                    // One thread is enough to go on with.
                    if number == 0 {
                        self.end(&mut lock(state), End::Local(threads));
                    }
                    break;
                }
            }
        });
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let end = match (state.end, state.given_up) {
            (Some(end), _) => end,
            (None, Some(error)) => End::Server(error),
            (None, None) => End::Done,
        };
        (state.tally, end)
    }

    fn work(&self, number: usize, state: &Mutex<State>) {
        loop {
            let next = {
                let mut state = lock(state);
                if state.end.is_some() { None } else { state.queue.pop_front() }
            };
            let Some((position, round)) = next else { return };
            let Answered { effort, end, nulls } = match self.one(number, position as usize) {
                Ok(answered) => answered,
                Err(error) => {
                    self.end(&mut lock(state), End::Local(error));
                    return;
                }
            };
            let mut state = lock(state);
            state.tally.effort = state.tally.effort.and(effort);
            state.tally.nulls += nulls;
            match end {
                Ended::Valid => {
                    state.tally.valid += 1;
                    state.unanswered_in_a_row = 0;
                }
                Ended::Invalid(named) => {
                    state.tally.invalid.push(named);
                    state.unanswered_in_a_row = 0;
                }
                Ended::Refused(named, error) => self.refused(&mut state, named, error),
                Ended::Unanswered(error) => self.unanswered(&mut state, position, round, error),
            }
            (self.tell)(&state.tally);
        }
    }

    fn refused(&self, state: &mut State, named: Named, error: together::Error) {
        state.refused += 1;
        state.tally.invalid.push(named);
        if state.refused >= REFUSED_AT_FIRST && state.refused == state.tally.finished() {
            self.end(state, End::Server(error));
        }
    }

    fn unanswered(&self, state: &mut State, position: u32, round: u32, error: together::Error) {
        let is_stop = matches!(error, together::Error::Http(http::Error::Stopped));
        if is_stop && self.asker.budget.is_over() {
            return self.end(state, End::OverBudget);
        }
        if is_stop {
            return self.end(state, End::Local(Error::Stopped));
        }
        if !error.is_passing() {
            return self.end(state, End::Server(error));
        }
        state.unanswered_in_a_row += 1;
        if state.unanswered_in_a_row >= 2 * self.concurrency.get() + 4 {
            return self.end(state, End::Server(error));
        }
        if round + 1 < ROUNDS {
            state.queue.push_back((position, round + 1));
        } else {
            state.given_up = Some(error);
        }
    }

    /// The first end counts; requests of other threads that have not left do not leave any more.
    fn end(&self, state: &mut State, end: End) {
        self.asker.budget.close();
        state.end.get_or_insert(end);
    }

    fn one(&self, number: usize, position: usize) -> Result<Answered, Error> {
        let key = self.plan.questions.key(position);
        // It was read once: what is refused now has changed.
        let changed = |named: Named| {
            Error::Source(prepare::Error::Changed { path: named.key.trim_matches('"').into() })
        };
        let asked = self.plan.read(position)?.map_err(changed)?;
        let (effort, outcome) = self.asker.ask(&asked.question.messages, &mut |_: Show<'_>| {});
        let (outcome, refusal) = match outcome {
            Ok(outcome) => (outcome, None),
            Err(error) if is_about_one_story(&error) => {
                let flaw = Flaw { fault: Fault::Refused, reason: error.to_string() };
                (Outcome { context: Err(flaw), raw: String::new(), finish_reason: None }, Some(error))
            }
            Err(error) => return Ok(Answered { effort, end: Ended::Unanswered(error), nulls: 0 }),
        };
        self.write(number, key, &asked, &effort, &outcome)?;
        let end = match (outcome.context, refusal) {
            (Ok(_), _) => Ended::Valid,
            (Err(flaw), None) => Ended::Invalid(Named::new(key, flaw.fault.as_str(), flaw.reason)),
            (Err(flaw), Some(error)) => {
                Ended::Refused(Named::new(key, flaw.fault.as_str(), flaw.reason), error)
            }
        };
        Ok(Answered { effort, end, nulls: nulls(&asked.question.story) })
    }

    fn write(
        &self,
        number: usize,
        key: &[u8],
        asked: &Asked,
        effort: &Effort,
        outcome: &Outcome,
    ) -> Result<(), Error> {
        let origin = Origin {
            key,
            model: &self.plan.parameters.model,
            weights: self.plan.weights,
            template: &self.plan.template.name,
            digest: &asked.digest,
        };
        let fault = outcome.context.as_ref().err().map(|flaw| flaw.fault);
        let put = || {
            let text = text(&origin, &asked.question.story, effort, outcome).map_err(io::Error::other)?;
            self.output.put(number, &asked.place, fault, &text)
        };
        put().map_err(|source| Error::File { verb: "write", path: asked.place.valid.clone(), source })
    }
}

struct Answered {
    effort: Effort,
    end: Ended,
    nulls: u64,
}

enum Ended {
    Valid,
    Invalid(Named),
    Refused(Named, together::Error),
    Unanswered(together::Error),
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the server's no is about this story (it may be too long), not about the model or the key.
fn is_about_one_story(error: &together::Error) -> bool {
    matches!(error.status(), Some(400 | 413 | 422)) && !is_about_the_model(error)
}

/// Whether the server says that nobody can ask the model as it is.
pub(crate) fn is_about_the_model(error: &together::Error) -> bool {
    let together::Error::Refused { status: 400..=404, said, .. } = error else { return false };
    let said = said.to_ascii_lowercase();
    ["model_not_available", "non-serverless", "dedicated_endpoint_not_running", "model_not_found"]
        .iter()
        .any(|word| said.contains(word))
}
