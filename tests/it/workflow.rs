//! Workflows in this process: a session with a clock that is advanced, and a person whose answers are written down
//! before. What only a process can show (signals, streams, exit codes) is tested elsewhere.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ctxtune::session::clock::ServerClock;
use ctxtune_engine::check;
use ctxtune_engine::prepare::{self, Options, Prepared};
use ctxtune_pipeline::config::wandb::WandbArgs;
use ctxtune_pipeline::config::{PrepareChoices, TuneChoices};
use ctxtune_pipeline::env;
use ctxtune_pipeline::failure::{Exit, Failure};
use ctxtune_pipeline::finetune::{self, finetune};
use ctxtune_pipeline::job::cost::Beside;
use ctxtune_pipeline::job::expected::Expected;
use ctxtune_pipeline::job::plan::Plan;
use ctxtune_pipeline::job::price::Price;
use ctxtune_pipeline::job::submit::Submitted;
use ctxtune_pipeline::job::wandb;
use ctxtune_pipeline::session::consent::Spending;
use ctxtune_pipeline::session::environment::Environment;
use ctxtune_pipeline::session::{Runtime, Session};
use ctxtune_pipeline::signals::Signals;
use ctxtune_pipeline::sweep::start::{self, sweep};
use ctxtune_pipeline::sweep::{Runner, Sweep};
use ctxtune_pipeline::ui::{Detail, Progress, StatusLine, Ui};
use ctxtune_rehearsal::{KEY, Script, Server};
use ctxtune_service::clock::Stopped;

use crate::support::{Dir, FakeClock};

/// A person who answers as it was written down, and remembers what was shown.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<bool>>,
    shown: Mutex<Vec<String>>,
}

impl Scripted {
    fn answering(answers: &[bool]) -> Arc<Scripted> {
        Arc::new(Scripted { answers: Mutex::new(answers.iter().copied().collect()), ..Scripted::default() })
    }

    fn note(&self, text: impl Into<String>) {
        self.shown.lock().unwrap().push(text.into());
    }

    fn shown(&self) -> Vec<String> {
        self.shown.lock().unwrap().clone()
    }

    /// Where something with this beginning was shown.
    #[track_caller]
    fn place(&self, beginning: &str) -> usize {
        let shown = self.shown();
        let place = shown.iter().position(|text| text.starts_with(beginning));
        place.unwrap_or_else(|| panic!("`{beginning}` was not shown: {shown:#?}"))
    }
}

/// Nothing is drawn, and nothing stops.
struct Undrawn;

impl prepare::Watch for Undrawn {
    fn listed(&self, _: u64) {}
    fn converted(&self, _: u64, _: u64, _: u64) {}
    fn publishing(&self, _: &str) {}
    fn is_stopped(&self) -> bool {
        false
    }
}

impl check::Watch for Undrawn {
    fn expects(&self, _: u64) {}
    fn checked(&self, _: u64) {}
    fn is_stopped(&self) -> bool {
        false
    }
}

impl Progress for Undrawn {
    fn at(&self, _: u64) {}
    fn waiting(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn is_drawn(&self) -> bool {
        false
    }
}

impl StatusLine for Undrawn {
    fn show(&self, _: &str) {}
    fn is_redrawn(&self) -> bool {
        false
    }
}

impl Ui for Scripted {
    fn say(&self, text: &str) {
        self.note(text);
    }
    fn done(&self, text: &str) {
        self.note(format!("done {text}"));
    }
    fn warn(&self, text: &str) {
        self.note(format!("warning {text}"));
    }
    fn label(&self, label: &str, text: &str) {
        self.note(format!("{label} {text}"));
    }
    fn retry(&self, text: &str) {
        self.note(format!("retry {text}"));
    }
    fn step(&self, number: u32, what: &str) {
        self.note(format!("step {number} {what}"));
    }
    fn plan(&self, plan: &Plan<'_>) {
        self.note(format!("plan {}", plan.manifest.train.records));
    }
    fn price(&self, price: &Price) {
        self.note(format!("price {:?}", price.dollars));
    }
    fn expected(&self, _: &Expected) {}
    fn running(&self, _: &[Beside]) {}
    fn has_person(&self) -> bool {
        true
    }
    fn ask(&self, question: &str) -> Result<bool, Stopped> {
        self.note(format!("question {question}"));
        Ok(self.answers.lock().unwrap().pop_front().expect("an answer for every question"))
    }
    fn watch_prepare<'u>(&'u self) -> Box<dyn prepare::Watch + 'u> {
        Box::new(Undrawn)
    }
    fn prepared(&self, _: &Options, prepared: &Prepared, _: Duration) {
        self.note(format!("prepared {}", prepared.train_records));
    }
    fn not_prepared(&self, error: &prepare::Error) {
        self.note(format!("not prepared {error}"));
    }
    fn watch_check<'u>(&'u self) -> Box<dyn check::Watch + 'u> {
        Box::new(Undrawn)
    }
    fn findings(&self, _: &check::Report) {}
    fn detail(&self) -> Detail {
        Detail::Normal
    }
    fn status_line<'u>(&'u self) -> Box<dyn StatusLine + 'u> {
        Box::new(Undrawn)
    }
    fn progress(&self, _: &str, _: u64) -> Box<dyn Progress> {
        Box::new(Undrawn)
    }
}

/// A directory with records, and a server on whose clock no second passes by itself.
struct Scene {
    dir: Dir,
    server: Server,
    clock: Arc<FakeClock>,
}

impl Scene {
    fn new() -> Scene {
        let clock = FakeClock::at(1_795_000_000);
        let script = Script { job_seconds: 100.0, verdict_seconds: 0.0, ..Script::default() };
        let server =
            Server::start_watched(0, script, Arc::new(ServerClock(clock.clone())), Arc::new(|_, _| ()))
                .unwrap();
        let dir = Dir::new();
        dir.corpus(40);
        Scene { dir, server, clock }
    }

    fn session(&self, ui: &Arc<Scripted>) -> Session {
        let environment = Environment::of([
            (env::TOGETHER_API_KEY, KEY.to_owned()),
            (env::TOGETHER_BASE_URL, self.server.url().to_owned()),
            (env::XDG_STATE_HOME, self.dir.path("state").to_string_lossy().into_owned()),
        ]);
        let (clock, ui) = (self.clock.clone(), ui.clone());
        let runtime =
            Runtime { environment, signals: Signals::default(), unstopped: clock.clone(), clock, ui };
        Session::new(None, runtime).unwrap()
    }

    fn data(&self) -> PrepareChoices {
        PrepareChoices {
            sources: vec![self.dir.path("corpus")],
            output_dir: Some(self.dir.path("out")),
            ..PrepareChoices::default()
        }
    }

    /// `finetune` up to a job, with consent by question.
    fn finetune(&self, ui: &Arc<Scripted>) -> Result<Submitted, Failure> {
        let session = self.session(ui);
        let order = finetune::Order {
            given: None,
            data: self.data(),
            flags: TuneChoices::default(),
            file: TuneChoices::default(),
            spending: Spending::of(false, None, &**ui),
            renews: false,
            allows_truncation: false,
            wandb: wandb::resolve(&WandbArgs::default(), None, &session.environment, &**ui).unwrap(),
            agency: None,
        };
        finetune(&session, order)
    }
}

#[test]
fn data_and_price_are_shown_before_the_question_and_a_no_creates_no_job() {
    let scene = Scene::new();
    let ui = Scripted::answering(&[false]);
    let failure = scene.finetune(&ui).err().unwrap();
    assert_eq!((failure.exit, failure.code), (Exit::Unspent, "declined"));
    let order = ["step 1", "prepared 36", "plan 36", "step 2", "step 3", "price Some", "question"];
    let places: Vec<usize> = order.iter().map(|beginning| ui.place(beginning)).collect();
    assert!(places.is_sorted(), "{:#?}", ui.shown());
    assert_eq!(scene.server.jobs_created(), 0);
}

#[test]
fn a_yes_is_asked_for_once_and_the_same_order_finds_its_job() {
    let scene = Scene::new();
    let first = scene.finetune(&Scripted::answering(&[true])).unwrap_or_else(|failure| panic!("{failure:?}"));
    let (report, again) = (first.report(), scene.finetune(&Scripted::answering(&[])));
    assert!(report.created && report.price.is_some(), "{report:?}");
    let again = again.unwrap_or_else(|failure| panic!("{failure:?}")).report();
    assert_eq!((&again.job, again.created, again.price), (&report.job, false, None));
    assert_eq!(scene.server.jobs_created(), 1);
}

#[test]
fn a_sweep_runs_to_its_end_without_a_second_of_real_time() {
    let scene = Scene::new();
    let ui = Scripted::answering(&[]);
    let session = scene.session(&ui);
    let text =
        "method: grid\nmetric: {name: val/loss, goal: minimize}\nparameters: {n_epochs: {values: [1, 2]}}\n";
    let order = start::Order {
        sweep: Sweep::parse(text, Runner::Native).unwrap(),
        out: scene.dir.path("out"),
        data: Some(scene.data()),
        flags: TuneChoices::default(),
        file: TuneChoices::default(),
        count: None,
        seed: 42,
        parallel: 1,
        spending: Spending::Agreed { max_cost: Some(1000.0) },
        wandb: wandb::resolve(&WandbArgs::default(), None, &session.environment, &*ui).unwrap(),
    };
    let ran = sweep(&session, order).unwrap_or_else(|failure| panic!("{failure:?}: {:#?}", ui.shown()));
    assert!(ran.failure.is_none(), "{:?}", ran.failure);
    let statuses: Vec<_> = ran.ended.book.trials.iter().map(|trial| trial.status.as_deref()).collect();
    assert_eq!(statuses, [Some("completed"), Some("completed")]);
    assert_eq!(ran.ended.book.ranking(ran.runs.metric.goal).len(), 2);
    assert_eq!(scene.server.jobs_created(), 2);
}
