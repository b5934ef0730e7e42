//! Watching a job over the wire: the rehearsal server, thousands of polls, and a clock that nobody waits for.

use std::sync::Arc;
use std::time::Duration;

use ctxtune::session::clock::ServerClock;
use ctxtune_rehearsal::faults::{Action, Faults, Rule, Side, When};
use ctxtune_rehearsal::{KEY, Outcome, Script, Server};
use ctxtune_service::clock::Clock;
use ctxtune_service::http::body::{FileBody, Part};
use ctxtune_service::http::retry::Policy;
use ctxtune_service::http::{Client, Settings, Timeouts};

use ctxtune_pipeline::job::monitor::{
    BUDGET, Cause, Finished, MonitorError, MonitorOptions, Screen, monitor,
};
use ctxtune_pipeline::job::progress::{News, Progress};
use ctxtune_service::together::files::{self, Upload};
use ctxtune_service::together::job::{Ending, JobId};
use ctxtune_service::together::{BaseUrl, Together, jobs};
use secrecy::SecretString;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::FakeClock;

/// What a screen was told.
#[derive(Default)]
struct Record {
    news: Vec<News>,
    troubles: Vec<String>,
    /// Polls that worked.
    polls: usize,
    finished: usize,
}

impl Screen for Record {
    fn news(&mut self, _: &Progress, news: &[News]) {
        self.polls += 1;
        self.news.extend_from_slice(news);
    }

    fn waiting(&mut self, _: &Progress, _: Duration) {}

    fn trouble(&mut self, what: &str, _: Duration) {
        self.troubles.push(what.to_owned());
    }

    fn slept(&mut self, slept: Duration) {
        panic!("nobody slept: {slept:?}");
    }

    fn finished(&mut self, _: &Progress, _: Ending) {
        self.finished += 1;
    }
}

/// A server with a job, and a client of it.
struct Stand {
    server: Server,
    clock: Arc<FakeClock>,
    together: Together,
    job: JobId,
}

const OPTIONS: MonitorOptions = MonitorOptions { poll: None, timeout: None, budget: BUDGET };

impl Stand {
    fn new(script: Script) -> Stand {
        let clock = FakeClock::at(1_795_514_400);
        let server = Server::start(script, Arc::new(ServerClock(clock.clone()))).unwrap();
        let together = connect(&server, &clock, KEY);
        let ids = ["train", "validation"].map(|side| hand_over(&together, side));
        clock.wait(Duration::from_secs(60)).unwrap();
        let body = json!({
            "training_file": ids[0], "validation_file": ids[1], "model": "Qwen/Qwen3-8B", "n_epochs": 6,
            "n_evals": 6, "n_checkpoints": 3, "learning_rate": 1e-5, "batch_size": "max",
        });
        let job = jobs::create(&together, &body).unwrap().id;
        Stand { server, clock, together, job }
    }

    fn watch(&self, options: &MonitorOptions) -> (Result<Finished, MonitorError>, Record) {
        let mut record = Record::default();
        (monitor(&self.together, &self.job, options, &mut record), record)
    }
}

fn connect(server: &Server, clock: &Arc<FakeClock>, key: &str) -> Together {
    let settings = Settings {
        user_agent: "ctxtune-tests".to_owned(),
        proxy: None,
        timeouts: Timeouts::DEFAULT,
        policy: Policy::DEFAULT,
    };
    let client = Client::new(settings, Arc::clone(clock) as Arc<dyn Clock>, Arc::new(|_| ()));
    Together::new(client, BaseUrl::parse(server.url()).unwrap(), Some(SecretString::from(key)), Vec::new())
}

/// Uploads a small file; gives its id.
fn hand_over(together: &Together, word: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.jsonl");
    let line = json!({ "messages": [{ "role": "user", "content": word }, { "role": "assistant", "content": "yes" }] });
    let text = format!("{line}\n").repeat(20);
    std::fs::write(&path, &text).unwrap();
    let digest: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    let body = FileBody { parts: vec![Part { path, packing: None, start: 0, len: text.len() as u64 }] };
    let upload = Upload { name: "data.jsonl", body: &body, sha256: &digest, progress: &|_| () };
    files::hand_over(together, &upload).unwrap().id().as_str().to_owned()
}

fn rule(when: When, action: Action) -> Rule {
    Rule { method: Some("GET".to_owned()), path: "/v1/fine-tunes".to_owned(), when, times: None, action }
}

fn status(status: u16) -> Action {
    Action::Status { status, headers: Vec::new(), body: String::new(), side: Side::Before }
}

#[test]
fn three_thousand_polls_with_faults_lose_and_double_nothing() {
    let late = Action::Status {
        status: 503,
        headers: vec![("Retry-After".to_owned(), "7".to_owned())],
        body: String::new(),
        side: Side::Before,
    };
    let actions = [
        status(500),
        status(429),
        late,
        Action::Reset(Side::Before),
        Action::LoseReply,
        Action::CutReply(40),
        Action::Body("<html><title>welcome to the hotel</title>".to_owned()),
    ];
    let faults = Faults {
        // Seven at 5 % after another: 30 % in all.
        rules: actions.map(|action| rule(When::Rate(0.05), action)).to_vec(),
        seed: 11,
        shuffle_events: true,
        double_events: true,
        statuses: vec![(2_000.0, "rebalancing".to_owned())],
        omit: vec!["queue_depth".to_owned()],
        nan_metrics: true,
    };
    let stand = Stand::new(Script { job_seconds: 36_500.0, faults, ..Script::default() });
    let options = MonitorOptions { poll: Some(Duration::from_secs(10)), ..OPTIONS };
    let (ended, record) = stand.watch(&options);
    let Finished { progress, ending } = ended.unwrap();
    assert_eq!((ending, record.finished), (Ending::Completed, 1));
    let polls = record.polls + record.troubles.iter().filter(|told| told.contains("cannot ask")).count();
    assert!(polls >= 3_000, "{polls} polls");
    assert!(record.troubles.len() > 50, "{} troubles", record.troubles.len());

    stand.server.set_script(|script| script.faults = Faults::default());
    let events = jobs::events(&stand.together, &stand.job).unwrap();
    assert_eq!(progress.events(), events);
    let rows = jobs::metrics(&stand.together, &stand.job, None).unwrap();
    let steps: Vec<u64> =
        rows.iter().filter(|row| row.learning_rate.is_some()).filter_map(|row| row.step).collect();
    assert_eq!(progress.train().map(|point| point.step).collect::<Vec<_>>(), steps);
    let losses: Vec<f64> = rows.iter().filter_map(|row| row.eval_loss).collect();
    assert_eq!(progress.eval().map(|point| point.loss).collect::<Vec<_>>(), losses);

    let count = |is_it: fn(&News) -> bool| record.news.iter().filter(|news| is_it(news)).count();
    assert_eq!(count(|news| matches!(news, News::Event(_))), events.len());
    assert_eq!(count(|news| matches!(news, News::Train(_))), steps.len());
    assert_eq!(count(|news| matches!(news, News::Eval(_))), 6);
    let is_unknown = |news: &News| matches!(news, News::Status { to, .. } if to.as_str() == "rebalancing");
    assert_eq!(count(is_unknown), 1);
    assert_eq!(stand.server.violations(), Vec::<String>::new());
}

#[test]
fn every_ending_is_reported() {
    let check = |outcome: Outcome, expected: Ending| {
        let stand = Stand::new(Script { job_seconds: 3_600.0, outcome, ..Script::default() });
        let (ended, record) = stand.watch(&OPTIONS);
        assert_eq!((ended.unwrap().ending, record.troubles), (expected, Vec::new()));
    };
    check(Outcome::Completed, Ending::Completed);
    check(Outcome::Error, Ending::Failed);
    check(Outcome::UserError, Ending::Failed);
    let stand = Stand::new(Script { job_seconds: 3_600.0, ..Script::default() });
    stand.clock.wait(Duration::from_secs(1_800)).unwrap();
    jobs::cancel(&stand.together, &stand.job).unwrap();
    assert_eq!(stand.watch(&OPTIONS).0.unwrap().ending, Ending::Cancelled);
}

#[test]
fn a_refusal_ends_it_with_the_first_answer() {
    let stand = Stand::new(Script::default());
    let check = |together: &Together, job: &str, expected: u16| {
        let before = stand.server.seen().len();
        let job = JobId::new(job).unwrap();
        let error = monitor(together, &job, &OPTIONS, &mut Record::default()).unwrap_err();
        let Cause::Refused { source, .. } = &error.cause else { panic!("{error}") };
        assert_eq!((source.status(), stand.server.seen().len() - before), (Some(expected), 1));
    };
    check(&connect(&stand.server, &stand.clock, "another-key"), stand.job.as_str(), 401);
    check(&stand.together, "ft-unknown", 404);
    stand.server.set_script(|script| script.faults.rules = vec![rule(When::Always, status(403))]);
    check(&stand.together, stand.job.as_str(), 403);
}

#[test]
fn a_server_that_is_gone_is_given_up_after_the_budget() {
    let stand = Stand::new(Script { job_seconds: 1e6, ..Script::default() });
    stand.server.set_script(|script| script.faults.rules = vec![rule(When::Always, status(502))]);
    let before = stand.clock.elapsed();
    let (ended, record) = stand.watch(&OPTIONS);
    let error = ended.unwrap_err();
    let Cause::Lost { lasted, .. } = &error.cause else { panic!("{error}") };
    assert!((BUDGET..BUDGET + Duration::from_secs(120)).contains(lasted), "{lasted:?}");
    assert!(stand.clock.elapsed() - before >= BUDGET && record.troubles.len() > 10);
}

#[test]
fn the_timeout_leaves_the_job_alone() {
    let stand = Stand::new(Script { job_seconds: 1e6, ..Script::default() });
    let options = MonitorOptions { timeout: Some(Duration::from_secs(4 * 3_600)), ..OPTIONS };
    let before = stand.clock.elapsed();
    let error = stand.watch(&options).0.unwrap_err();
    assert!(matches!(error.cause, Cause::TimedOut { .. }), "{error}");
    let took = (stand.clock.elapsed() - before).as_secs_f64();
    assert!((4.0 * 3_600.0..4.0 * 3_600.0 + 10.0).contains(&took), "{took}");
    assert!(stand.server.seen().iter().all(|seen| !seen.path.ends_with("/cancel")));
}

#[test]
fn a_job_that_is_denied_just_after_its_creation_is_asked_for_again() {
    let denied = |times: usize| rule(When::Nth((1..=times as u64).collect()), status(404));
    let stand = Stand::new(Script { job_seconds: 3_600.0, ..Script::default() });
    stand.server.set_script(|script| script.faults.rules = vec![denied(7)]);
    let (ended, record) = stand.watch(&OPTIONS);
    assert_eq!((ended.unwrap().ending, record.troubles), (Ending::Completed, Vec::new()));
    // Two minutes later a 404 is one.
    let stand = Stand::new(Script { job_seconds: 3_600.0, ..Script::default() });
    stand.clock.wait(Duration::from_secs(120)).unwrap();
    stand.server.set_script(|script| script.faults.rules = vec![denied(7)]);
    let error = stand.watch(&OPTIONS).0.unwrap_err();
    assert!(matches!(&error.cause, Cause::Refused { source, .. } if source.status() == Some(404)), "{error}");
}
