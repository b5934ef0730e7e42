//! Creates a job once, whatever happens: the rules that keep a lost reply from being paid twice.
//!
//! The API knows no idempotency key, so a job carries a tag at the end of its suffix, made of all
//! that makes it the same job. Before any creation the jobs are listed, and one with the tag is
//! adopted, from whatever machine it came. The intent is on disk before the request leaves. An
//! answer that leaves open whether the job exists is settled by two lists a grace apart; where
//! they lack the tag nothing is created in the same run: a later one lists again, and only then
//! asks again, with the same tag. A list whose jobs show no suffix says nothing.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::job::ledger::{Account, LedgerError, Run, RunState};
use crate::job::parameters::Files;
use crate::job::tag::Identity;
use ctxtune_service::together::{self, Certainty, Ending, Job, JobId, Together, jobs};
use ctxtune_service::{Clock, Stopped};

/// How often a creation is asked for that was certainly not accepted.
const TRIES: u32 = 5;
/// The first wait between such tries; it doubles.
const BACKOFF: Duration = Duration::from_secs(1);
/// The pause between two lists of a run that need not wait for the grace.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// Attempts at the same job that are looked for; nobody pays for more.
const MOST_ATTEMPTS: u32 = 1_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// The API refused or cannot be reached; no job was created.
    #[error(transparent)]
    Api(#[from] together::Error),
    /// A ledger cannot be read or written; nothing was asked for.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("whether the job with the tag {tag} was created is not known: {reason}")]
    Unknown { tag: String, reason: String },
    #[error(
        "the service's list of jobs shows no suffixes: whether a job with the tag {tag} is there cannot be told"
    )]
    Unclear { tag: String },
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

pub(crate) struct Submission<'s> {
    pub together: &'s Together,
    pub out: &'s Path,
    pub account: &'s Account,
    pub identity: &'s Identity,
    /// How long the service may take to list a job that it has accepted.
    pub grace: Duration,
    /// Whether an ended job is submitted again, as the next attempt; else it is shown.
    pub renews: bool,
    /// Fields of the creation that are written down nowhere, such as the key of somebody else.
    pub secret_fields: &'s Map<String, Value>,
}

/// What is known of the job before anything is asked for.
#[derive(Debug, Clone)]
pub enum Known {
    Job(Box<Adopted>),
    /// It does not, and this attempt is the one to create.
    Nothing {
        attempt: u32,
        /// Whether an earlier run wrote its intent down and never learned what became of it.
        pending_since: Option<Timestamp>,
    },
}

#[derive(Debug, Clone)]
pub struct Adopted {
    pub job: Job,
    pub attempt: u32,
    pub tag: String,
    /// Younger jobs with the same tag: somebody was billed twice.
    pub others: Vec<JobId>,
    pub is_new: bool,
}

/// What a list of jobs says about one tag.
enum Sight {
    Found { oldest: Box<Job>, others: Vec<JobId> },
    Absent,
    Unclear,
}

impl Submission<'_> {
    fn ledger(&self, attempt: u32) -> Result<Option<Run>, LedgerError> {
        Run::read(self.out, self.account, &self.identity.tag(attempt))
    }

    /// Looks for the job at the service and in the ledgers. Fails when the service cannot be asked, or its
    /// answer leaves open whether the job exists.
    pub fn find(&self) -> Result<Known, CreateError> {
        self.find_among(&jobs::list(self.together)?)
    }

    /// The same, where the service has just listed all its `jobs`.
    pub(crate) fn find_among(&self, jobs: &[Job]) -> Result<Known, CreateError> {
        // A convenience for later commands: a ledger that is not this job's is no reason to stop.
        let _ = Run::note_all(self.out, &self.account.api, jobs);
        let mut latest: Option<Adopted> = None;
        // A job that an earlier run asked for and never learned of is shown before it is renewed.
        let mut renews = self.renews;
        for attempt in 1..=MOST_ATTEMPTS {
            let tag = self.identity.tag(attempt);
            let ledger = self.ledger(attempt)?;
            let found = match (sight(jobs, &tag), ledger.as_ref().and_then(|run| run.job.as_ref())) {
                (Sight::Found { oldest, others }, _) => Some((*oldest, others)),
                // Not listed any more, or without its suffix: the ledger knows better.
                (_, Some(id)) => {
                    let since = ledger.as_ref().and_then(intended);
                    let now = self.together.client().clock().now();
                    jobs::note_created(
                        self.together,
                        id,
                        since.map_or(Duration::MAX, |since| age(since, now)),
                    );
                    Some((jobs::retrieve(self.together, id)?, Vec::new()))
                }
                // To go on with a job that is known needs no list.
                (Sight::Unclear, None) if !self.renews && latest.is_none() => {
                    return Err(CreateError::Unclear { tag });
                }
                (Sight::Absent | Sight::Unclear, None) => None,
            };
            let is_open = ledger.as_ref().is_some_and(|run| run.state == RunState::Intent);
            if let Some((job, others)) = found {
                renews = self.renews && !is_open;
                self.note(attempt, &job, ledger)?;
                latest = Some(Adopted { job, attempt, tag, others, is_new: false });
                continue;
            }
            let pending = ledger.filter(|_| is_open);
            return Ok(match latest {
                // Never while it runs: a run that was killed and is repeated would else pay again.
                Some(latest) if pending.is_none() && !(renews && latest.job.status.ending().is_some()) => {
                    Known::Job(Box::new(latest))
                }
                _ => Known::Nothing { attempt, pending_since: pending.and_then(|run| intended(&run)) },
            });
        }
        latest
            .map(|latest| Known::Job(Box::new(latest)))
            .ok_or_else(|| CreateError::Unclear { tag: self.identity.tag(MOST_ATTEMPTS) })
    }

    fn note(&self, attempt: u32, job: &Job, ledger: Option<Run>) -> Result<(), LedgerError> {
        let known = ledger.clone();
        let mut run = ledger.unwrap_or_else(|| {
            let settled = &self.identity.settled;
            let body = settled.body(Files { train: "", val: None }, &settled.parameters.suffix);
            Run::intent(self.account, self.identity, attempt, body)
        });
        run.state = RunState::Created;
        run.note(job);
        if known.as_ref() == Some(&run) { Ok(()) } else { run.write(self.out) }
    }

    /// Creates the job of `attempt` with `body`, or finds that it is there. Fails when it was not created, or
    /// nobody can tell; the ledger then knows which of the two.
    pub fn create(
        &self,
        attempt: u32,
        pending_since: Option<Timestamp>,
        body: Value,
    ) -> Result<Adopted, CreateError> {
        let tag = self.identity.tag(attempt);
        let clock = self.together.client().clock();
        let adopted = match pending_since {
            // The service may still be about to show what an earlier run asked for.
            Some(since) => self.look_twice(&tag, self.grace.saturating_sub(age(since, clock.now())))?,
            None => match self.look(&tag) {
                // Asked for in so many words, and no request of ours is open.
                Err(CreateError::Unclear { .. }) if self.renews => None,
                looked => looked?,
            },
        };
        if let Some((job, others)) = adopted {
            let ledger = self.ledger(attempt)?;
            self.note(attempt, &job, ledger)?;
            return Ok(Adopted { job, attempt, tag, others, is_new: false });
        }
        let mut run = Run::intent(self.account, self.identity, attempt, body);
        run.intended_at = clock.now().to_string();
        run.write(self.out)?;
        let (job, others, is_new) = match self.ask(&mut run)? {
            Sent::Done(job) => (job, Vec::new(), true),
            Sent::Refused(error) => return Err(error.into()),
            Sent::Unknown(error) => {
                let reason = error.to_string();
                let seen = self.look_twice(&tag, self.grace);
                match seen.map_err(|error| unknown(&tag, &reason, &error))? {
                    Some((job, others)) => {
                        jobs::note_created(self.together, &job.id, Duration::ZERO);
                        (job, others, true)
                    }
                    None => return Err(CreateError::Unknown { tag, reason }),
                }
            }
        };
        self.note(attempt, &job, Some(run))?;
        Ok(Adopted { job, attempt, tag, others, is_new })
    }

    fn ask(&self, run: &mut Run) -> Result<Sent<Job>, CreateError> {
        let mut body = run.body.clone();
        if let Some(body) = body.as_object_mut() {
            body.extend(self.secret_fields.clone());
        }
        // A signal while it waits leaves an intent that a later run settles.
        let sent = send_once(self.together.client().clock(), || jobs::create(self.together, &body))?;
        if let Sent::Refused(error) = &sent {
            run.state = RunState::Refused;
            run.refusal = Some(error.to_string());
            run.write(self.out)?;
        }
        Ok(sent)
    }

    fn look(&self, tag: &str) -> Result<Option<(Job, Vec<JobId>)>, CreateError> {
        match sight(&jobs::list(self.together)?, tag) {
            Sight::Found { oldest, others } => Ok(Some((*oldest, others))),
            Sight::Absent => Ok(None),
            Sight::Unclear => Err(CreateError::Unclear { tag: tag.to_owned() }),
        }
    }

    /// Lists twice, `apart` or a short pause between the two.
    fn look_twice(&self, tag: &str, apart: Duration) -> Result<Option<(Job, Vec<JobId>)>, CreateError> {
        match self.look(tag)? {
            Some(found) => Ok(Some(found)),
            None => {
                self.together.client().clock().wait(apart.max(SECOND_LOOK))?;
                self.look(tag)
            }
        }
    }
}

/// What became of a request that must not be carried out twice.
pub(crate) enum Sent<T> {
    Done(T),
    Refused(together::Error),
    /// It may have been carried out.
    Unknown(together::Error),
}

/// Sends `request`, and again only where it was certainly not accepted.
pub(crate) fn send_once<T>(
    clock: &dyn Clock,
    mut request: impl FnMut() -> Result<T, together::Error>,
) -> Result<Sent<T>, Stopped> {
    let mut wait = BACKOFF;
    for left in (0..TRIES).rev() {
        let error = match request() {
            Ok(done) => return Ok(Sent::Done(done)),
            Err(error) => error,
        };
        match error.certainty() {
            Certainty::NotAccepted if left > 0 => {
                clock.wait(error.retry_after().unwrap_or(wait))?;
                wait *= 2;
            }
            Certainty::NotAccepted | Certainty::Refused => return Ok(Sent::Refused(error)),
            Certainty::Unknown if clock.is_stopped() => return Err(Stopped),
            Certainty::Unknown => return Ok(Sent::Unknown(error)),
        }
    }
    unreachable!("the last try returns")
}

fn unknown(tag: &str, reason: &str, error: &CreateError) -> CreateError {
    match error {
        CreateError::Stopped(stopped) => CreateError::Stopped(*stopped),
        error => CreateError::Unknown { tag: tag.to_owned(), reason: format!("{reason}; then {error}") },
    }
}

fn intended(run: &Run) -> Option<Timestamp> {
    // A ledger without a readable date is as old as can be: only the two lists then count.
    Some(run.intended_at.parse().unwrap_or(Timestamp::UNIX_EPOCH))
}

fn age(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// Whether the job carries `tag` at the end of its suffix or, where it shows none, of its model's name.
fn carries(job: &Job, tag: &str) -> bool {
    match job.suffix() {
        Some(suffix) => suffix.ends_with(&format!("-{tag}")),
        // Names put an id or a hash of their own behind the suffix.
        None => job.model_output_name().is_some_and(|name| name.contains(&format!("-{tag}"))),
    }
}

fn sight(jobs: &[Job], tag: &str) -> Sight {
    let mut found: Vec<&Job> = jobs.iter().filter(|job| carries(job, tag)).collect();
    found.sort_by_key(|job| (job.created_at(), job.id.clone()));
    match found.split_first() {
        Some((oldest, others)) => Sight::Found {
            oldest: Box::new((*oldest).clone()),
            others: others.iter().map(|job| job.id.clone()).collect(),
        },
        None if jobs.iter().any(|job| !job.names_suffix()) => Sight::Unclear,
        None => Sight::Absent,
    }
}

pub(crate) fn is_to_be_watched(job: &Job) -> bool {
    matches!(job.status.ending(), None | Some(Ending::Completed))
}
