//! Every request of a run fails in every way once, or the program dies at it: one job comes of it.
//!
//! The requests of one clean run are counted; then each of them has a run of its own for each fault,
//! repeated until it succeeds, as a person or a script would.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use ctxtune_pipeline::env;
use ctxtune_rehearsal::faults::{Action, Faults, Rule, Side, When};
use ctxtune_rehearsal::{Script, Seen, Stage};

use crate::service::status_with_retry_after;
use crate::support::{Rehearsal, Tree, at_once};

const FINETUNE: [&str; 6] = ["finetune", "corpus", "-o", "out", "--no-sync", "--yes"];

/// Runs until a fault is got over, the one that meets it included.
const MOST_RUNS: usize = 4;

/// Requests after the creation that are tried too; watching goes on alike.
const WATCHED: usize = 4;

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    LoseReply,
    ResetBefore,
    ResetAfter,
    ServerError,
    TooMany,
    KilledBefore,
    KilledAfter,
}

const FAULTS: [Fault; 7] = [
    Fault::LoseReply,
    Fault::ResetBefore,
    Fault::ResetAfter,
    Fault::ServerError,
    Fault::TooMany,
    Fault::KilledBefore,
    Fault::KilledAfter,
];

impl Fault {
    /// What the server does, and at what the program dies.
    fn of(self) -> (Option<Action>, Option<Stage>) {
        let error =
            || Action::Status { status: 500, headers: Vec::new(), body: String::new(), side: Side::Before };
        match self {
            Fault::LoseReply => (Some(Action::LoseReply), None),
            Fault::ResetBefore => (Some(Action::Reset(Side::Before)), None),
            Fault::ResetAfter => (Some(Action::Reset(Side::After)), None),
            Fault::ServerError => (Some(error()), None),
            Fault::TooMany => (Some(status_with_retry_after(429)), None),
            Fault::KilledBefore => (None, Some(Stage::Received)),
            Fault::KilledAfter => (None, Some(Stage::Acted)),
        }
    }
}

/// The program under test, to be killed at one stage of one request.
struct Victim {
    at: Option<(Stage, usize)>,
    way: Way,
    child: Mutex<Option<Child>>,
    born: Condvar,
}

impl Victim {
    fn strike(&self, stage: Stage, seen: &Seen) {
        if self.at != Some((stage, seen.number)) {
            return;
        }
        let mut child = self.child.lock().unwrap();
        while child.is_none() {
            child = self.born.wait(child).unwrap();
        }
        let child = child.as_mut().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Runs the command of `rehearsal` within reach: its exit code, and what it printed.
    fn run(&self, rehearsal: &Rehearsal) -> (Option<i32>, String) {
        let mut command = rehearsal.command(FINETUNE);
        command.env(env::CTXTUNE_GRACE_SECONDS, "0.05");
        command.env(env::CTXTUNE_MULTIPART_THRESHOLD, (self.way as u32).to_string());
        command.stdout(Stdio::piped()).stderr(File::create(rehearsal.dir.path("stderr")).unwrap());
        let mut child = command.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        *self.child.lock().unwrap() = Some(child);
        self.born.notify_all();
        let mut printed = String::new();
        stdout.read_to_string(&mut printed).unwrap();
        let ended = self.child.lock().unwrap().take().unwrap().wait().unwrap();
        (ended.code(), printed)
    }
}

/// How files go to the service: the size above which they go in parts.
#[derive(Debug, Clone, Copy)]
enum Way {
    Whole = 1 << 30,
    InParts = 10,
}

/// A server one of whose requests, counted from 0, meets `fault`.
fn scene(way: Way, fault: Option<(usize, Fault)>) -> (Rehearsal, Arc<Victim>) {
    let (action, stage) = fault.map(|(_, fault)| fault.of()).unwrap_or_default();
    let number = fault.map_or(0, |(number, _)| number);
    let rule = |action| Rule {
        method: None,
        path: "/".to_owned(),
        when: When::Nth(vec![number as u64 + 1]),
        times: None,
        action,
    };
    let victim = Arc::new(Victim {
        at: stage.map(|stage| (stage, number)),
        way,
        child: Mutex::default(),
        born: Condvar::new(),
    });
    let faults = Faults { rules: action.into_iter().map(rule).collect(), ..Faults::default() };
    let script = Script { job_seconds: 0.3, verdict_seconds: 0.0, faults, ..Script::default() };
    let watched = Arc::clone(&victim);
    let rehearsal =
        Rehearsal::watched(script, Arc::new(move |stage, seen: &Seen| watched.strike(stage, seen)));
    rehearsal.dir.corpus(10);
    (rehearsal, victim)
}

/// Runs into the fault and on to success; what is wrong then.
fn trial(way: Way, fault: (usize, Fault), clean: &Tree) -> Result<(), String> {
    let (rehearsal, victim) = scene(way, Some(fault));
    let mut codes = Vec::new();
    let printed = loop {
        let (code, printed) = victim.run(&rehearsal);
        codes.push(code);
        if code == Some(0) {
            break printed;
        }
        let stderr = rehearsal.dir.read("stderr");
        let may_fail = match fault.1 {
            Fault::KilledBefore | Fault::KilledAfter => code.is_none() && codes.len() == 1,
            _ => code == Some(5),
        };
        if !may_fail || codes.len() == MOST_RUNS || stderr.contains("panicked") {
            return Err(format!("exit codes {codes:?}: {stderr}"));
        }
    };
    let expect = |is_so: bool, what: String| if is_so { Ok(()) } else { Err(what) };
    expect(rehearsal.server.jobs_created() == 1, format!("{} jobs", rehearsal.server.jobs_created()))?;
    let names: Vec<_> = rehearsal.files().iter().map(|file| file["filename"].clone()).collect();
    expect(names == ["train.jsonl", "val.jsonl"], format!("the files are {names:?}"))?;
    let violations = rehearsal.server.violations();
    expect(violations.is_empty(), format!("{violations:?}"))?;
    let model = rehearsal.jobs()[0]["model_output_name"].as_str().unwrap().to_owned();
    expect(printed == format!("{model}\n"), format!("printed {printed:?}, the model is {model}"))?;
    check_ledgers(&rehearsal, &model)?;
    expect(rehearsal.dir.result("out", &[]).as_ref() == Some(clean), "the data has changed".to_owned())
}

/// One whole ledger of the one job, and uploads that are all known to be fit.
fn check_ledgers(rehearsal: &Rehearsal, model: &str) -> Result<(), String> {
    let runs = rehearsal.ledgers();
    let [run] = runs.as_slice() else { return Err(format!("{} ledgers", runs.len())) };
    let uploads: serde_json::Value = serde_json::from_str(&rehearsal.dir.read("out/uploads.json")).unwrap();
    let uploads = uploads["uploads"].as_array().unwrap();
    let is_told = run["state"] == "created" && run["status"] == "completed" && run["model"] == model;
    let is_fit = uploads.len() == 2 && uploads.iter().all(|upload| upload["state"] == "verified");
    if is_told && is_fit { Ok(()) } else { Err(format!("ledgers: {run:#} {uploads:#?}")) }
}

/// Tries every fault at each request that `is_tried`, by its number and that of the creation.
#[track_caller]
fn try_all(way: Way, is_tried: impl Fn(&Seen, usize) -> bool) {
    let (rehearsal, victim) = scene(way, None);
    assert_eq!(victim.run(&rehearsal).0, Some(0), "{}", rehearsal.dir.read("stderr"));
    let clean = rehearsal.dir.result("out", &[]).unwrap();
    let requests = rehearsal.server.seen();
    let is_creation = |seen: &Seen| (&*seen.method, &*seen.path) == ("POST", "/v1/fine-tunes");
    let creation = requests.iter().position(is_creation).unwrap();
    let tried = requests.iter().filter(|seen| is_tried(seen, creation)).map(|seen| seen.number);
    let faults: Vec<_> = tried.flat_map(|number| FAULTS.map(|fault| (number, fault))).collect();
    assert!(creation > 10 && faults.len() > 40, "{creation}, {}", faults.len());
    let failed = |fault: (usize, Fault)| {
        let Seen { method, path, .. } = &requests[fault.0];
        let what = trial(way, fault, &clean).err()?;
        Some(format!("request {} ({method} {path}), {:?}: {what}", fault.0, fault.1))
    };
    let failures: Vec<String> = at_once(faults, failed).into_iter().flatten().collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn whatever_request_fails_there_is_one_job_in_the_end() {
    try_all(Way::Whole, |seen, creation| seen.number <= creation + WATCHED);
}

#[test]
fn whatever_request_fails_a_file_in_parts_is_there_once_in_the_end() {
    try_all(Way::InParts, |seen, _| seen.is_storage || seen.path.contains("/files/"));
}

/// Runs of the program that a network this bad may take.
const PATIENCE: usize = 30;

/// A network where two requests of five go wrong, differently for each seed, until the job is done.
fn bad_network(seed: u64) -> Result<(), String> {
    let (rehearsal, victim) = scene(Way::Whole, None);
    let faults =
        [Fault::LoseReply, Fault::ResetBefore, Fault::ResetAfter, Fault::ServerError, Fault::TooMany];
    let rule = |fault: Fault| Rule {
        method: None,
        path: "/".to_owned(),
        when: When::Rate(0.1),
        times: None,
        action: fault.of().0.unwrap(),
    };
    rehearsal.server.set_script(|script| {
        script.faults = Faults { rules: faults.map(rule).into(), seed, ..Faults::default() };
    });
    let mut codes = Vec::new();
    while codes.last() != Some(&Some(0)) {
        codes.push(victim.run(&rehearsal).0);
        let is_borne = matches!(codes.last(), Some(Some(0 | 5)));
        if !is_borne || codes.len() == PATIENCE {
            return Err(format!("exit codes {codes:?}: {}", rehearsal.dir.read("stderr")));
        }
    }
    rehearsal.server.set_script(|script| script.faults = Faults::default());
    let seen = (rehearsal.server.jobs_created(), rehearsal.files().len(), rehearsal.server.violations());
    if seen == (1, 2, Vec::new()) { Ok(()) } else { Err(format!("jobs, files, breaches: {seen:?}")) }
}

#[test]
fn on_a_bad_network_there_is_one_job_in_the_end() {
    let failed = |seed| bad_network(seed).err().map(|what| format!("seed {seed}: {what}"));
    let failed: Vec<String> = at_once(1..=8, failed).into_iter().flatten().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
