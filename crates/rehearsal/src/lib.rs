//! A server on the loopback that speaks the API, for trying the whole pipeline without an account.
//!
//! Separate from the clients, whose types it does not share: what both sides believe must be on
//! the wire. It is strict about what it gets, keeps everything in memory, trains nothing, and
//! can be told to fail in any way a network can. It must never be reachable from another machine.
//!
//! The way of a request: `serve` accepts, `wire` reads, `faults` decides, `route` finds the
//! handler (`files`, `multipart`, `jobs`, `progress`, `download`, `endpoints`, `chat` with `imitation`;
//! `wandb` has its own paths and key), `reply` is written. What a handler refuses is the `Err` of its
//! result; what only a broken client does is recorded as a violation, too.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::clock::Clock;
use crate::faults::Count;
use crate::serve::{Origin, Shared};
use crate::state::State;

pub use crate::course::Outcome;
pub use crate::imitation::AnswerStyle;
pub use crate::state::wandb::{WandbAlert, WandbRun, WandbSweep};
pub use crate::wandb::ids::ENTITY;

mod chat;
pub mod clock;
pub mod corpus;
mod course;
mod download;
mod endpoints;
pub mod faults;
mod files;
mod form;
mod imitation;
mod jobs;
mod models;
mod multipart;
mod order;
mod preview;
mod progress;
mod reply;
mod request;
mod route;
mod serve;
mod state;
mod verdict;
mod wandb;
mod wire;

/// The one key that is accepted, unless a script names another.
pub const KEY: &str = "rehearsal-key";
/// The one key of the W&B part, whose clients want at least 40 characters.
pub const WANDB_KEY: &str = "rehearsalrehearsalrehearsalrehearsalrehe";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Prices {
    #[default]
    ByTokens,
    /// From $1 to $20, decided by this seed and by what the price is estimated of: more training may cost less.
    Random(u64),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// The only key that is accepted; an empty one means that there is none, and none may be sent.
    pub key: String,
    pub job_seconds: f64,
    /// How long a job is not in the list of jobs yet.
    pub listing_seconds: f64,
    pub prices: Prices,
    /// How long a file waits for its verdict.
    pub verdict_seconds: f64,
    /// How long a deployment takes until it answers; half as long until it has stopped.
    pub deployment_seconds: f64,
    pub faults: faults::Faults,
    pub outcome: Outcome,
    pub deployed_models: Vec<String>,
    /// How a prompt is answered the first time, the second time, and so on; the last one stays. Empty:
    /// always plainly.
    pub answers: Vec<AnswerStyle>,
    /// Whether every stream of a run is told that Stop was pressed.
    pub wandb_stop: bool,
}

impl Default for Script {
    fn default() -> Script {
        Script {
            key: KEY.to_owned(),
            job_seconds: 5.0,
            listing_seconds: 0.0,
            prices: Prices::ByTokens,
            verdict_seconds: 0.3,
            deployment_seconds: 2.0,
            faults: faults::Faults::default(),
            outcome: Outcome::Completed,
            deployed_models: Vec::new(),
            answers: Vec::new(),
            wandb_stop: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// From 0, in order of arrival.
    pub number: usize,
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
    pub headers: Vec<(String, String)>,
    /// The first MiB of the body.
    pub body: Vec<u8>,
    pub body_bytes: u64,
    pub is_storage: bool,
    /// The status that was sent; 0 when no reply was.
    pub status: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Received,
    Acted,
}

/// What is told of every request; it may block, and then the request waits.
pub type Watch = Arc<dyn Fn(Stage, &Seen) + Send + Sync>;

/// A running server. Dropping it closes every connection.
pub struct Server {
    shared: Arc<Shared>,
    url: String,
    addresses: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts one on a free port of 127.0.0.1.
    pub fn start(script: Script, clock: Arc<dyn Clock>) -> io::Result<Server> {
        Server::start_watched(0, script, clock, Arc::new(|_, _| ()))
    }

    /// Starts one whose API is on this port, where 0 is a free one, and which tells `watch` of every request:
    /// after it was read, and after it was carried out but before the reply.
    pub fn start_watched(
        port: u16,
        script: Script,
        clock: Arc<dyn Clock>,
        watch: Watch,
    ) -> io::Result<Server> {
        let api = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let storage = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addresses = vec![api.local_addr()?, storage.local_addr()?];
        let url = format!("http://{}", addresses[0]);
        let counts = vec![Count::default(); script.faults.rules.len()];
        let storage_url = format!("http://{}", addresses[1]);
        let state = State { script, api: url.clone(), storage: storage_url, counts, ..State::default() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            clock,
            watch,
            is_over: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let mut server = Server { shared, url, addresses, threads: Vec::new() };
        for (listener, origin) in [(api, Origin::Api), (storage, Origin::Storage)] {
            let shared = Arc::clone(&server.shared);
            let accept = move || serve::accept(&shared, &listener, origin);
            server.threads.push(std::thread::Builder::new().spawn(accept)?);
        }
        Ok(server)
    }

    /// `http://127.0.0.1:PORT`, without a slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Every request so far, in order of arrival, to the API and to the storage.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    pub fn jobs_created(&self) -> usize {
        self.shared.state().jobs_created
    }

    /// What all jobs cost when they are complete, in dollars.
    pub fn billed_dollars(&self) -> f64 {
        self.shared.state().jobs.iter().map(|job| job.nano_dollars).sum::<u64>() as f64 / 1e9
    }

    pub fn deployments_created(&self) -> usize {
        self.shared.state().deployments_created
    }

    pub fn violations(&self) -> Vec<String> {
        self.shared.state().violations.clone()
    }

    /// Every prompt that chat was asked, and how often it was answered.
    pub fn prompts(&self) -> Vec<(String, u64)> {
        self.shared.state().prompts.iter().map(|(prompt, count)| (prompt.clone(), *count)).collect()
    }

    pub fn wandb_runs(&self) -> Vec<WandbRun> {
        wandb::wandb_runs(&self.shared.state())
    }

    pub fn wandb_sweeps(&self) -> Vec<WandbSweep> {
        wandb::wandb_sweeps(&self.shared.state())
    }

    /// Deletes the run of this name, as somebody does on its page; whether there was one.
    pub fn delete_wandb_run(&self, name: &str) -> bool {
        wandb::delete_run(&mut self.shared.state(), name)
    }

    /// Changes how the server behaves from now on. Rules that change are counted anew.
    pub fn set_script(&self, change: impl FnOnce(&mut Script)) {
        let mut state = self.shared.state();
        let rules = state.script.faults.rules.clone();
        change(&mut state.script);
        if state.script.faults.rules != rules {
            state.counts = vec![Count::default(); state.script.faults.rules.len()];
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for address in &self.addresses {
            // Wakes the thread that accepts.
            drop(TcpStream::connect(address));
        }
        for connection in self.shared.connections().values() {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
