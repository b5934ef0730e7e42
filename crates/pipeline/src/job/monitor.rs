//! Watches a job until it ends: asks, gathers what is new, waits, and tells a screen.
//!
//! Nothing here can harm the job: it only reads. What fails here and may pass ends nothing before a long budget
//! is used up; sleep of the machine counts for the timeout and not for that budget. It retries no single
//! request, which is the transport's, and knows no clock but the one it is given.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;

use crate::job::pace::{Change, Failing, Pace};
use crate::job::progress::{News, Progress};
use ctxtune_service::together::{Ending, Error, Event, Job, JobId, MetricRow, Together, jobs};
use ctxtune_service::{Clock, Stopped};

/// How long polling may fail without a break before it is given up, unless somebody says otherwise.
pub const BUDGET: Duration = Duration::from_secs(30 * 60);
/// How often a screen may redraw while it waits.
const STEP: Duration = Duration::from_millis(250);
/// What a wait may take beyond its length before it is a sleep of the machine.
const SUSPENDED: Duration = Duration::from_secs(30);
/// What no call takes on a machine that is awake: five tries of a minute and four waits of a minute.
const LONGEST_CALL: Duration = Duration::from_secs(10 * 60);
/// How often the last events and rows are asked for, and the wait in between: evaluations arrive late.
const LAST_TRIES: usize = 4;
const LAST_PAUSE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
pub struct MonitorOptions {
    /// A fixed wait between polls; nothing: 5 s, growing to 60 s while nothing changes.
    pub poll: Option<Duration>,
    /// When to stop waiting, sleep of the machine included.
    pub timeout: Option<Duration>,
    pub budget: Duration,
}

/// What watches the watching: a terminal, a stream of lines, a record in a test.
pub trait Screen {
    /// After every poll that worked, also with nothing new.
    fn news(&mut self, progress: &Progress, news: &[News]);
    /// About four times a second between polls.
    fn waiting(&mut self, progress: &Progress, next_poll: Duration);
    /// Something failed that ends nothing; the next try comes after `next`.
    fn trouble(&mut self, what: &str, next: Duration);
    fn slept(&mut self, slept: Duration);
    fn finished(&mut self, progress: &Progress, ending: Ending);

    /// Whether nobody reads any more, so that watching has no purpose.
    fn is_closed(&self) -> bool {
        false
    }
}

#[derive(Debug)]
pub struct Finished {
    pub progress: Progress,
    pub ending: Ending,
}

/// Why watching stopped before the job ended. The job runs on.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct MonitorError {
    pub progress: Box<Progress>,
    pub cause: Cause,
}

#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error("cannot watch job `{job}`: {source}")]
    Refused { job: JobId, source: Box<Error> },
    #[error("cannot watch job `{job}`: nothing was heard of it for {}: {source}", spoken(.lasted))]
    Lost {
        job: JobId,
        /// How long it failed, sleep of the machine not counted.
        lasted: Duration,
        source: Box<Error>,
    },
    #[error("stopped waiting for job `{job}` after {}", spoken(.after))]
    TimedOut { job: JobId, after: Duration },
    #[error("interrupted")]
    Stopped,
    #[error("nobody reads the output")]
    Closed,
}

impl From<Stopped> for Cause {
    fn from(_: Stopped) -> Cause {
        Cause::Stopped
    }
}

/// A duration as people write it, in whole seconds, rounded up: `1h 30m`.
pub fn spoken(duration: &Duration) -> String {
    let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    format!("{:#}", SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

struct Api<'a> {
    job: &'a dyn Fn() -> Result<Job, Error>,
    events: &'a dyn Fn() -> Result<Vec<Event>, Error>,
    metrics: &'a dyn Fn(Option<u64>) -> Result<Vec<MetricRow>, Error>,
}

/// Watches `job` until it ends. Fails where the service refuses for good, polling fails for longer than the
/// budget, the timeout passes, a signal comes, or the screen closes. The job runs on in each case.
pub fn monitor(
    together: &Together,
    job: &JobId,
    options: &MonitorOptions,
    screen: &mut dyn Screen,
) -> Result<Finished, MonitorError> {
    let api = Api {
        job: &|| jobs::retrieve(together, job),
        events: &|| unless_settling(together, job, jobs::events(together, job)),
        metrics: &|from| unless_settling(together, job, jobs::metrics(together, job, from)),
    };
    let mut watch = Watch::new(job, api, together.client().clock(), options);
    watch.finish(screen)
}

/// The answer, or nothing yet where the service does not know a job that was created a moment ago.
fn unless_settling<T>(
    together: &Together,
    job: &JobId,
    answer: Result<Vec<T>, Error>,
) -> Result<Vec<T>, Error> {
    match answer {
        Err(error) if error.status() == Some(404) && jobs::is_settling(together, job) => Ok(Vec::new()),
        answer => answer,
    }
}

struct Watch<'w> {
    job: &'w JobId,
    api: Api<'w>,
    clock: &'w dyn Clock,
    options: &'w MonitorOptions,
    start: Duration,
    progress: Progress,
    pace: Pace,
    failing: Failing,
    woke: bool,
    troubled: BTreeSet<&'static str>,
}

impl<'w> Watch<'w> {
    fn new(job: &'w JobId, api: Api<'w>, clock: &'w dyn Clock, options: &'w MonitorOptions) -> Self {
        let start = clock.elapsed();
        let seed = clock.now().as_nanosecond() as u64 ^ start.as_nanos() as u64;
        Watch {
            job,
            api,
            clock,
            options,
            start,
            progress: Progress::default(),
            pace: Pace::new(options.poll, seed),
            failing: Failing::default(),
            woke: false,
            troubled: BTreeSet::new(),
        }
    }

    fn finish(&mut self, screen: &mut dyn Screen) -> Result<Finished, MonitorError> {
        let ended = self.follow(screen);
        let progress = std::mem::take(&mut self.progress);
        match ended {
            Ok(ending) => Ok(Finished { progress, ending }),
            Err(cause) => Err(MonitorError { progress: Box::new(progress), cause }),
        }
    }

    fn follow(&mut self, screen: &mut dyn Screen) -> Result<Ending, Cause> {
        loop {
            let next = self.poll(screen)?;
            if let Some(ending) = self.ending() {
                self.read_the_last(ending, screen)?;
                screen.finished(&self.progress, ending);
                return Ok(ending);
            }
            let left = self.left();
            self.expect_time(left)?;
            self.rest(left.map_or(next, |left| left.min(next)), screen)?;
            // After a sleep the job may long be done: one look before the timeout counts.
            if !self.woke {
                self.expect_time(self.left())?;
            }
        }
    }

    fn ending(&self) -> Option<Ending> {
        self.progress.job()?.status.ending()
    }

    fn left(&self) -> Option<Duration> {
        let end = self.start.saturating_add(self.options.timeout?);
        Some(end.saturating_sub(self.clock.elapsed()))
    }

    fn expect_time(&self, left: Option<Duration>) -> Result<(), Cause> {
        if left.is_none_or(|left| !left.is_zero()) {
            return Ok(());
        }
        Err(Cause::TimedOut { job: self.job.clone(), after: self.clock.elapsed().saturating_sub(self.start) })
    }

    /// One poll; gives the wait until the next.
    fn poll(&mut self, screen: &mut dyn Screen) -> Result<Duration, Cause> {
        let began = self.clock.elapsed();
        let answer = (self.api.job)();
        self.notice_sleep(began, LONGEST_CALL, screen);
        match answer {
            Ok(job) => {
                self.failing = Failing::default();
                self.woke = false;
                let news = self.progress.absorb_job(job);
                self.read_parts(news, screen)
            }
            Err(error) => self.bear(error, began, screen),
        }
    }

    /// A poll that failed: ends the watching where no waiting helps or the budget is used up.
    fn bear(&mut self, error: Error, began: Duration, screen: &mut dyn Screen) -> Result<Duration, Cause> {
        if self.clock.is_stopped() {
            return Err(Cause::Stopped);
        }
        let job = self.job.clone();
        // Once it has worked, a broken handshake is trouble of the place: a hotel's network answers
        // for everybody until somebody logs in.
        let is_of_the_place = self.progress.job().is_some() && matches!(error, Error::Http(_));
        if !error.is_passing() && !is_of_the_place {
            return Err(Cause::Refused { job, source: Box::new(error) });
        }
        let now = self.clock.elapsed();
        if std::mem::take(&mut self.woke) {
            self.failing.forgive(now.saturating_sub(began), now);
        } else {
            self.failing.begin(began);
        }
        let lasted = self.failing.lasted(now);
        if lasted >= self.options.budget && self.failing.since.is_some() {
            return Err(Cause::Lost { job, lasted, source: Box::new(error) });
        }
        let next = self.pace.next(Change::Nothing);
        screen.trouble(&format!("cannot ask for the job: {error}"), next);
        Ok(next)
    }

    /// Reads events and metrics. That they fail is told, and is no failure of the poll.
    fn read_parts(&mut self, mut news: Vec<News>, screen: &mut dyn Screen) -> Result<Duration, Cause> {
        // What came too late for the overlap comes with a last, whole fetch.
        let from = if self.ending().is_some() { None } else { self.progress.next_step_from() };
        let began = self.clock.elapsed();
        let events = (self.api.events)();
        self.notice_sleep(began, LONGEST_CALL, screen);
        let mut troubles = Vec::new();
        let events = match self.note("events", events, &mut troubles)? {
            Some(events) => events,
            // The job's object may hold them too.
            None => self.progress.job().map(Job::events).unwrap_or_default(),
        };
        news.extend(self.progress.absorb_events(events));
        let began = self.clock.elapsed();
        let rows = (self.api.metrics)(from);
        self.notice_sleep(began, LONGEST_CALL, screen);
        let rows = self.note("metrics", rows, &mut troubles)?;
        news.extend(self.progress.absorb_metrics(&rows.unwrap_or_default()));
        // Everything else happened before the status that ended the job.
        news.sort_by_key(|news| matches!(news, News::Status { to, .. } if to.ending().is_some()));
        let next = self.pace.next(if news.is_empty() { Change::Nothing } else { Change::Something });
        screen.news(&self.progress, &news);
        for trouble in troubles {
            screen.trouble(&trouble, next);
        }
        Ok(next)
    }

    /// The answer, if there is one; a failure is told of once, until that part works again.
    fn note<T>(
        &mut self,
        part: &'static str,
        answer: Result<T, Error>,
        troubles: &mut Vec<String>,
    ) -> Result<Option<T>, Cause> {
        match answer {
            Ok(answer) => {
                self.troubled.remove(part);
                Ok(Some(answer))
            }
            Err(_) if self.clock.is_stopped() => Err(Cause::Stopped),
            Err(error) => {
                if self.troubled.insert(part) {
                    troubles.push(format!("cannot read the job's {part}: {error}"));
                }
                Ok(None)
            }
        }
    }

    /// After the end: asks again while rows or the model's name are owed, a few times.
    fn read_the_last(&mut self, ending: Ending, screen: &mut dyn Screen) -> Result<(), Cause> {
        for _ in 1..LAST_TRIES {
            let is_named = self.progress.job().is_some_and(|job| job.model_output_name().is_some());
            let has_all = ending != Ending::Completed || (is_named && self.progress.is_complete());
            if self.troubled.is_empty() && has_all {
                break;
            }
            self.rest(LAST_PAUSE, screen)?;
            if !is_named && let Ok(job) = (self.api.job)() {
                self.progress.absorb_job(job);
            }
            self.read_parts(Vec::new(), screen)?;
        }
        Ok(())
    }

    /// Waits, in steps, so that the screen can redraw; a sleep of the machine ends it.
    fn rest(&mut self, duration: Duration, screen: &mut dyn Screen) -> Result<(), Cause> {
        let mut left = duration;
        while !left.is_zero() {
            screen.waiting(&self.progress, left);
            if screen.is_closed() {
                return Err(Cause::Closed);
            }
            let step = left.min(STEP);
            let began = self.clock.elapsed();
            self.clock.wait(step)?;
            self.notice_sleep(began, step, screen);
            left = if self.woke { Duration::ZERO } else { left - step };
        }
        Ok(())
    }

    /// Sees that the machine slept, where something that began at `began` took far longer than `planned`.
    fn notice_sleep(&mut self, began: Duration, planned: Duration, screen: &mut dyn Screen) {
        let slept = self.clock.elapsed().saturating_sub(began).saturating_sub(planned);
        if slept > SUSPENDED {
            self.woke = true;
            self.failing.forgive(slept, self.clock.elapsed());
            self.pace.hurry();
            screen.slept(slept);
        }
    }
}

/// Several screens as one. It is closed as soon as one of them is.
pub struct Several<'s>(pub Vec<&'s mut dyn Screen>);

impl Screen for Several<'_> {
    fn news(&mut self, progress: &Progress, news: &[News]) {
        self.0.iter_mut().for_each(|screen| screen.news(progress, news));
    }

    fn waiting(&mut self, progress: &Progress, next_poll: Duration) {
        self.0.iter_mut().for_each(|screen| screen.waiting(progress, next_poll));
    }

    fn trouble(&mut self, what: &str, next: Duration) {
        self.0.iter_mut().for_each(|screen| screen.trouble(what, next));
    }

    fn slept(&mut self, slept: Duration) {
        self.0.iter_mut().for_each(|screen| screen.slept(slept));
    }

    fn finished(&mut self, progress: &Progress, ending: Ending) {
        self.0.iter_mut().for_each(|screen| screen.finished(progress, ending));
    }

    fn is_closed(&self) -> bool {
        self.0.iter().any(|screen| screen.is_closed())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::sync::Mutex;

    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    /// Time that passes only while somebody waits, and jumps once, as over a sleep of the machine.
    struct FakeClock {
        elapsed: Mutex<Duration>,
        sleep: Option<(Duration, Duration)>,
        stop: Duration,
    }

    impl FakeClock {
        fn new() -> FakeClock {
            FakeClock { elapsed: Mutex::new(Duration::ZERO), sleep: None, stop: Duration::MAX }
        }

        fn pass(&self, duration: Duration) {
            let mut elapsed = self.elapsed.lock().unwrap();
            let (before, after) = (*elapsed, *elapsed + duration);
            let slept = self.sleep.filter(|(at, _)| before <= *at && *at < after).map(|(_, slept)| slept);
            *elapsed = after + slept.unwrap_or_default();
        }
    }

    impl Clock for FakeClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_second(1_795_514_400 + self.elapsed().as_secs() as i64).unwrap()
        }

        fn elapsed(&self) -> Duration {
            *self.elapsed.lock().unwrap()
        }

        fn wait(&self, duration: Duration) -> Result<(), Stopped> {
            self.pass(duration);
            if self.is_stopped() { Err(Stopped) } else { Ok(()) }
        }

        fn is_stopped(&self) -> bool {
            self.elapsed() >= self.stop
        }
    }

    /// What a screen was told, and the waits that were planned.
    #[derive(Default)]
    struct Record {
        news: Vec<News>,
        said: Vec<String>,
        redraws: u64,
        closes_after: Option<u64>,
    }

    impl Screen for Record {
        fn news(&mut self, _: &Progress, news: &[News]) {
            self.news.extend_from_slice(news);
        }

        fn waiting(&mut self, _: &Progress, _: Duration) {
            self.redraws += 1;
        }

        fn trouble(&mut self, what: &str, _: Duration) {
            self.said.push(what.to_owned());
        }

        fn slept(&mut self, slept: Duration) {
            self.said.push(format!("slept {}", spoken(&slept)));
        }

        fn finished(&mut self, _: &Progress, ending: Ending) {
            self.said.push(format!("{ending:?}"));
        }

        fn is_closed(&self) -> bool {
            self.closes_after.is_some_and(|redraws| self.redraws > redraws)
        }
    }

    fn passing() -> Error {
        let [url, reason, said] = ["u", "cut short", ""].map(str::to_owned);
        Error::Unreadable { method: "GET", url, reason, said }
    }

    const OPTIONS: MonitorOptions = MonitorOptions { poll: None, timeout: None, budget: BUDGET };

    /// A service: the answers to each question, by the number of the question and the time.
    struct Service<'s> {
        clock: FakeClock,
        job: &'s dyn Fn(usize, u64) -> Result<Value, Error>,
        events: &'s dyn Fn(usize) -> Result<Vec<Event>, Error>,
        metrics: &'s dyn Fn(usize, Option<u64>) -> Result<Value, Error>,
        polls: RefCell<Vec<Duration>>,
        /// Which question takes how long.
        hangs: Option<(usize, Duration)>,
    }

    impl<'s> Service<'s> {
        fn new(job: &'s dyn Fn(usize, u64) -> Result<Value, Error>) -> Service<'s> {
            let clock = FakeClock::new();
            let polls = RefCell::default();
            Service {
                clock,
                job,
                events: &|_| Ok(Vec::new()),
                metrics: &|_, _| Ok(json!([])),
                polls,
                hangs: None,
            }
        }

        /// Watches; gives the end and what the screen was told.
        fn watch(&self, options: &MonitorOptions) -> (Result<Finished, MonitorError>, Record) {
            self.watch_on(options, Record::default())
        }

        fn watch_on(
            &self,
            options: &MonitorOptions,
            mut screen: Record,
        ) -> (Result<Finished, MonitorError>, Record) {
            let counts = [Cell::new(0), Cell::new(0)];
            let count = |index: usize| counts[index].replace(counts[index].get() + 1);
            let job = JobId::new("ft-1").unwrap();
            let api = Api {
                job: &|| {
                    let number = self.polls.borrow().len();
                    let now = self.clock.elapsed();
                    self.polls.borrow_mut().push(now);
                    self.hangs
                        .filter(|(hanging, _)| *hanging == number)
                        .inspect(|(_, long)| self.clock.pass(*long));
                    (self.job)(number, now.as_secs()).map(|object| Job::read(&object).unwrap())
                },
                events: &|| (self.events)(count(0)),
                metrics: &|from| {
                    let rows = (self.metrics)(count(1), from)?;
                    Ok(rows.as_array().unwrap().iter().map(MetricRow::read).collect())
                },
            };
            let ended = Watch::new(&job, api, &self.clock, options).finish(&mut screen);
            (ended, screen)
        }

        /// The waits between polls, in seconds.
        fn waits(&self) -> Vec<f64> {
            let polls = self.polls.borrow();
            polls.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
        }
    }

    fn with_status(status: &str) -> Value {
        json!({ "id": "ft-1", "status": status, "model_output_name": "a/b" })
    }

    #[test]
    fn a_complete_job_is_asked_a_few_times_for_its_models_name() {
        let polls = |named_from: usize| {
            let job = |number: usize, _| {
                let name = if number < named_from { json!(null) } else { json!("a/b") };
                Ok(json!({ "id": "ft-1", "status": "completed", "model_output_name": name }))
            };
            let service = Service::new(&job);
            let finished = service.watch(&OPTIONS).0.unwrap();
            let name = finished.progress.job().unwrap().model_output_name();
            (service.polls.borrow().len(), name.is_some())
        };
        assert_eq!((polls(0), polls(2), polls(9)), ((1, true), (3, true), (LAST_TRIES, false)));
    }

    #[test]
    fn only_the_last_statuses_end_it() {
        let running =
            ["pending", "queued", "running", "paused for tea", "model_downloading", "cancel_requested"];
        let check = |last: &str, expected: Ending| {
            let service = |number: usize, _| Ok(with_status(running.get(number).copied().unwrap_or(last)));
            let service = Service::new(&service);
            let (ended, screen) = service.watch(&OPTIONS);
            let finished = ended.unwrap();
            assert_eq!((finished.ending, service.polls.borrow().len()), (expected, running.len() + 1));
            assert_eq!(
                (screen.news.len(), screen.said.as_slice()),
                (running.len() + 1, &[format!("{expected:?}")][..])
            );
            assert_eq!(finished.progress.job().unwrap().status.as_str(), last.to_lowercase());
        };
        check("COMPLETED", Ending::Completed);
        check("error", Ending::Failed);
        check("user_error", Ending::Failed);
        check("cancelled", Ending::Cancelled);
        check("Succeeded", Ending::Completed);
        check("FAILED", Ending::Failed);
        check("expired", Ending::Failed);
        check("canceled", Ending::Cancelled);
    }

    #[test]
    fn waits_grow_while_nothing_changes_and_are_short_after_a_change() {
        let service = |number: usize, _| {
            Ok(with_status(if number < 20 {
                "queued"
            } else if number < 22 {
                "running"
            } else {
                "completed"
            }))
        };
        let service = Service::new(&service);
        service.watch(&OPTIONS).0.unwrap();
        let waits = service.waits();
        assert!((3.75..6.25).contains(&waits[0]), "{waits:?}");
        assert!(waits[10..20].iter().all(|wait| (45.0..=60.0).contains(wait)), "{waits:?}");
        assert!((3.75..6.25).contains(&waits[20]), "{waits:?}");
        assert!(waits.iter().any(|wait| wait.fract() != 0.0), "there is no jitter: {waits:?}");
    }

    #[test]
    fn a_fixed_wait_is_jittered_by_a_tenth() {
        let service = |number: usize, _| Ok(with_status(if number < 50 { "running" } else { "completed" }));
        let service = Service::new(&service);
        service.watch(&MonitorOptions { poll: Some(Duration::from_secs(20)), ..OPTIONS }).0.unwrap();
        let waits = service.waits();
        assert!(waits.iter().all(|wait| (18.0..=22.0).contains(wait)), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait < 19.5) && waits.iter().any(|wait| *wait > 20.5), "{waits:?}");
    }

    #[test]
    fn the_timeout_counts_and_the_job_is_left_alone() {
        let service = Service::new(&|_, _| Ok(with_status("running")));
        let timeout = Some(Duration::from_secs(3600));
        let error = service.watch(&MonitorOptions { timeout, ..OPTIONS }).0.unwrap_err();
        assert!(matches!(error.cause, Cause::TimedOut { after, .. } if after.as_secs() == 3600), "{error}");
        assert_eq!(error.to_string(), "stopped waiting for job `ft-1` after 1h");
        assert!(error.progress.job().is_some());
        let service = Service::new(&|_, _| Ok(with_status("running")));
        let once = MonitorOptions { timeout: Some(Duration::ZERO), ..OPTIONS };
        assert!(matches!(service.watch(&once).0.unwrap_err().cause, Cause::TimedOut { .. }));
        assert_eq!(service.polls.borrow().len(), 1);
    }

    #[test]
    fn a_timeout_over_a_sleep_is_noticed_after_one_more_look() {
        let timeout = MonitorOptions { timeout: Some(Duration::from_secs(3600)), ..OPTIONS };
        let sleep = Some((Duration::from_secs(100), Duration::from_secs(7200)));
        let mut service = Service::new(&|_, _| Ok(with_status("running")));
        service.clock.sleep = sleep;
        let (ended, screen) = service.watch(&timeout);
        assert!(matches!(ended.unwrap_err().cause, Cause::TimedOut { .. }));
        assert_eq!(screen.said, ["slept 2h"]);
        assert!(service.polls.borrow().last().unwrap().as_secs() >= 7300);
        let mut done =
            Service::new(&|_, now| Ok(with_status(if now < 7000 { "running" } else { "completed" })));
        done.clock.sleep = sleep;
        assert_eq!(done.watch(&timeout).0.unwrap().ending, Ending::Completed);
    }

    #[test]
    fn after_a_sleep_it_asks_at_once() {
        let mut service =
            Service::new(&|_, now| Ok(with_status(if now < 7000 { "running" } else { "completed" })));
        service.clock.sleep = Some((Duration::from_secs(100), Duration::from_secs(7200)));
        let (ended, screen) = service.watch(&OPTIONS);
        assert_eq!((ended.unwrap().ending, screen.said[0].as_str()), (Ending::Completed, "slept 2h"));
        assert!(*service.polls.borrow().last().unwrap() < Duration::from_secs(7301));
    }

    #[test]
    fn a_call_that_a_sleep_broke_uses_up_nothing_of_the_budget() {
        let job = |number: usize, _| match number {
            0 => Ok(with_status("running")),
            1 => Err(passing()),
            _ => Ok(with_status("completed")),
        };
        let mut service = Service::new(&job);
        service.hangs = Some((1, Duration::from_secs(7200)));
        let (ended, screen) = service.watch(&OPTIONS);
        assert_eq!(ended.unwrap().ending, Ending::Completed);
        assert_eq!(screen.said[0], "slept 1h 50m", "less what a call may take");
    }

    #[test]
    fn a_sleep_in_the_middle_of_trouble_uses_up_nothing_of_the_budget() {
        let service = |_, now: u64| if now < 20_000 { Err(passing()) } else { Ok(with_status("completed")) };
        let mut service = Service::new(&service);
        service.clock.sleep = Some((Duration::from_secs(600), Duration::from_secs(18_500)));
        assert_eq!(service.watch(&OPTIONS).0.unwrap().ending, Ending::Completed);
    }

    #[test]
    fn trouble_ends_it_only_after_the_budget_without_a_break() {
        let service = Service::new(&|_, _| Err(passing()));
        let (ended, screen) = service.watch(&OPTIONS);
        let error = ended.unwrap_err();
        assert!(
            matches!(error.cause, Cause::Lost { lasted, .. } if lasted >= BUDGET && lasted < BUDGET + Duration::from_secs(61))
        );
        assert!(
            error.to_string().starts_with("cannot watch job `ft-1`: nothing was heard of it for 30m"),
            "{error}"
        );
        assert!(
            screen.said.len() > 20 && screen.said[0].starts_with("cannot ask for the job: "),
            "{:?}",
            screen.said
        );
        // One answer in twenty minutes is enough.
        let flapping = |_, now: u64| match now {
            86_400.. => Ok(with_status("completed")),
            now if now % 1200 < 60 => Ok(with_status("running")),
            _ => Err(passing()),
        };
        assert!(Service::new(&flapping).watch(&OPTIONS).0.is_ok());
    }

    #[test]
    fn a_refusal_ends_it_at_once() {
        let service = Service::new(&|_, _| Err(Error::NoKey));
        let error = service.watch(&OPTIONS).0.unwrap_err();
        assert!(matches!(error.cause, Cause::Refused { source, .. } if matches!(*source, Error::NoKey)));
        assert_eq!(service.polls.borrow().len(), 1);
    }

    #[test]
    fn a_broken_handshake_ends_it_only_at_first() {
        let tls = || {
            let [url, reason] = ["u", "unknown issuer"].map(str::to_owned);
            Error::Http(ctxtune_service::http::Error::Tls { url, reason })
        };
        let first = |_, _| Err(tls());
        let error = Service::new(&first).watch(&OPTIONS).0.unwrap_err();
        assert!(matches!(error.cause, Cause::Refused { .. }));
        let later = |number: usize, _| match number {
            0 => Ok(with_status("running")),
            1..5 => Err(tls()),
            _ => Ok(with_status("completed")),
        };
        assert!(Service::new(&later).watch(&OPTIONS).0.is_ok());
    }

    #[test]
    fn events_and_metrics_that_fail_are_told_of_once_and_end_nothing() {
        let job = |number: usize, _| {
            let events = json!([{ "type": "job_start", "created_at": "2026-11-24T10:00:00Z" }]);
            let status = if number < 12 { "running" } else { "completed" };
            Ok(json!({ "id": "ft-1", "status": status, "events": events, "model_output_name": "a/b" }))
        };
        let mut service = Service::new(&job);
        service.events = &|number| if number < 4 || number == 8 { Err(passing()) } else { Ok(Vec::new()) };
        service.metrics = &|_, _| Err(Error::NoKey);
        let (ended, screen) = service.watch(&OPTIONS);
        assert_eq!(ended.unwrap().progress.events().len(), 1);
        let told = |part: &str| screen.said.iter().filter(|said| said.contains(part)).count();
        assert_eq!((told("the job's events"), told("the job's metrics")), (2, 1), "{:?}", screen.said);
    }

    #[test]
    fn metrics_are_read_onward_and_whole_at_the_end() {
        let job = |number: usize, _| {
            let status = if number < 6 { "running" } else { "completed" };
            Ok(json!({
                "id": "ft-1", "status": status, "validation_file": "file-2", "n_evals": 2, "model_output_name": "a/b",
            }))
        };
        let asked = RefCell::new(Vec::new());
        let metrics = |number: usize, from: Option<u64>| {
            asked.borrow_mut().push(from);
            let train = (1..=20 * (number.min(5) as u64 + 1))
                .map(|step| json!({ "train/global_step": step, "train/loss": 1.0 }));
            let eval = [(7, 3), (8, 120)].into_iter().filter(|(since, _)| number >= *since);
            let eval = eval.map(|(_, step)| json!({ "train/global_step": step, "eval/loss": 0.5 }));
            let rows = train.chain(eval).filter(|row| row["train/global_step"].as_u64() >= from);
            Ok(Value::Array(rows.collect()))
        };
        let mut service = Service::new(&job);
        service.metrics = &metrics;
        let finished = service.watch(&OPTIONS).0.unwrap();
        assert_eq!(finished.progress.train().count(), 120);
        assert_eq!(finished.progress.eval().map(|point| point.step).collect::<Vec<_>>(), [3, 120]);
        let onward = [None, Some(11), Some(31), Some(51), Some(71), Some(91), None, None, None];
        assert_eq!(*asked.borrow(), onward);
    }

    #[test]
    fn a_signal_ends_it_in_the_middle_of_a_wait() {
        let mut service = Service::new(&|_, _| Ok(with_status("running")));
        service.clock.stop = Duration::from_secs(61);
        let error = service.watch(&OPTIONS).0.unwrap_err();
        assert!(matches!(error.cause, Cause::Stopped) && error.to_string() == "interrupted");
        assert!(service.clock.elapsed() < Duration::from_secs(62));
        // Also where the call itself was stopped.
        let mut service = Service::new(&|_, _| Err(passing()));
        service.clock.stop = Duration::ZERO;
        assert!(matches!(service.watch(&OPTIONS).0.unwrap_err().cause, Cause::Stopped));
    }

    #[test]
    fn a_screen_that_closes_ends_it() {
        let service = Service::new(&|_, _| Ok(with_status("running")));
        let screen = Record { closes_after: Some(7), ..Record::default() };
        assert!(matches!(service.watch_on(&OPTIONS, screen).0.unwrap_err().cause, Cause::Closed));
    }

    #[test]
    fn a_screen_may_redraw_four_times_a_second() {
        let service = |_, now: u64| Ok(with_status(if now < 60 { "running" } else { "completed" }));
        let service = Service::new(&service);
        let redraws = service.watch(&OPTIONS).1.redraws as f64;
        let waited = service.clock.elapsed().as_secs_f64();
        assert!((waited * 4.0..waited * 4.0 + 10.0).contains(&redraws), "{redraws} in {waited} s");
    }
}
