//! What the tests of submission share: rules for faults, and the server asked without the program.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use ctxtune_rehearsal::faults::{Action, Faults, Rule, Side, When};
use ctxtune_rehearsal::{KEY, Seen, Server};
use serde_json::Value;

use crate::support::{Dir, Rehearsal};

/// The path of a creation, and of the list of jobs.
pub const JOBS: &str = "/v1/fine-tunes$";
/// The path that an upload begins with, and of the list of files.
pub const FILES: &str = "/v1/files$";
/// The paths of the storage.
pub const STORAGE: &str = "/storage";

/// A rule for `GET /v1/fine-tunes$` and the like.
pub fn rule(line: &str, when: When, action: Action) -> Rule {
    let (method, path) = line.split_once(' ').unwrap();
    Rule { method: Some(method.to_owned()), path: path.to_owned(), when, times: None, action }
}

/// These rules and nothing else.
pub fn faults(rules: impl IntoIterator<Item = Rule>) -> Faults {
    Faults { rules: rules.into_iter().collect(), ..Faults::default() }
}

/// Another answer, instead of what was asked.
pub fn status(status: u16) -> Action {
    Action::Status { status, headers: Vec::new(), body: String::new(), side: Side::Before }
}

/// The same, and when to come back.
pub fn status_with_retry_after(status: u16) -> Action {
    let headers = vec![("Retry-After".to_owned(), "1".to_owned())];
    Action::Status { status, headers, body: String::new(), side: Side::Before }
}

impl Rehearsal {
    /// From now on these rules, counted anew.
    pub fn fail(&self, rules: impl IntoIterator<Item = Rule>) {
        self.server.set_script(|script| script.faults = faults(rules));
    }

    /// Gives another program the environment of [`Rehearsal::command`].
    pub fn lend_environment(&self, command: &mut Command) {
        for (name, value) in self.command([""; 0]).get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }

    /// `out` with this many training and validation examples of small records.
    #[track_caller]
    pub fn prepared(self, count: usize) -> Rehearsal {
        self.dir.corpus(count).prepare(&[]).expect(0);
        self
    }

    /// The requests so far that began with this line: `POST /v1/fine-tunes$`.
    pub fn requests(&self, line: &str) -> Vec<Seen> {
        let (method, path) = line.split_once(' ').unwrap();
        let is_asked = |seen: &Seen| {
            let asked = seen.path.split('?').next().unwrap_or_default();
            seen.method == method
                && match path.strip_suffix('$') {
                    Some(whole) => asked == whole,
                    None => asked.starts_with(path),
                }
        };
        self.server.seen().into_iter().filter(is_asked).collect()
    }

    /// How many creations were asked for.
    pub fn creations(&self) -> usize {
        self.requests(&format!("POST {JOBS}")).len()
    }

    /// The jobs of the server, oldest first.
    pub fn jobs(&self) -> Vec<Value> {
        ask(&self.server, "GET /v1/fine-tunes", None)["data"].as_array().unwrap().clone()
    }

    /// The files whose upload came to an end.
    pub fn files(&self) -> Vec<Value> {
        ask(&self.server, "GET /v1/files", None)["data"].as_array().unwrap().clone()
    }

    /// Asks for something, as another client would.
    pub fn ask(&self, line: &str, body: Option<&Value>) -> Value {
        ask(&self.server, line, body)
    }

    /// What W&B answers to this document of GraphQL, as another client would ask.
    pub fn graphql(&self, query: &str) -> Value {
        // `api` and the key, in base64.
        let key = "Authorization: Basic YXBpOnJlaGVhcnNhbHJlaGVhcnNhbHJlaGVhcnNhbHJlaGVhcnNhbHJlaGU=";
        ask_with(key, &self.server, "POST /graphql", Some(&serde_json::json!({ "query": query })))
    }

    /// The ledgers of the jobs of `out`, by tag.
    pub fn ledgers(&self) -> Vec<Value> {
        ledgers(&self.dir, "out")
    }

    /// The one violation-free server that every test of submission wants to see in the end.
    #[track_caller]
    pub fn check_protocol(&self) {
        assert_eq!(self.server.violations(), Vec::<String>::new());
    }
}

/// The ledgers of the jobs of the directory `out`, by tag.
pub fn ledgers(dir: &Dir, out: &str) -> Vec<Value> {
    if !dir.exists(format!("{out}/runs")) {
        return Vec::new();
    }
    let tree = dir.tree(&format!("{out}/runs"));
    tree.iter().map(|(_, text)| serde_json::from_slice(text).unwrap()).collect()
}

fn ask(server: &Server, line: &str, body: Option<&Value>) -> Value {
    ask_with(&format!("Authorization: Bearer {KEY}"), server, line, body)
}

fn ask_with(key: &str, server: &Server, line: &str, body: Option<&Value>) -> Value {
    let body = body.map(Value::to_string).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    let mut stream = TcpStream::connect(server.url().trim_start_matches("http://")).unwrap();
    let head = format!("{line} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{key}\r\n{kind}");
    write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
}

/// Somebody else's server, who writes down every byte and answers 200 with `{}`.
pub struct Stranger {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Stranger {
    pub fn new() -> Stranger {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let record = Arc::clone(&heard);
        // It ends with the process of the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let record = Arc::clone(&record);
                std::thread::spawn(move || listen(stream, &record));
            }
        });
        Stranger { url, heard }
    }

    /// All that was said to it.
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

fn listen(mut stream: TcpStream, record: &Mutex<Vec<u8>>) {
    let mut told = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        record.lock().unwrap().extend(&piece[..count]);
        told.extend(&piece[..count]);
        if is_whole(&told) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
            return;
        }
    }
}

/// Whether a request has come to its end.
fn is_whole(told: &[u8]) -> bool {
    let text = String::from_utf8_lossy(told).to_ascii_lowercase();
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let start = told.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |start| start + 4);
    told.len() >= start + length.map_or(0, |length| length.parse().unwrap())
}
