//! A scripted HTTP server on the loopback, and a clock that does not wait.
//!
//! The server does what the test's function says with each connection, down to the byte, as
//! most faults are none that a server library would commit.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ctxtune_service::clock::{Clock, Stopped};
use ctxtune_service::http::retry::{Notice, Policy};
use ctxtune_service::http::{Client, Settings, Timeouts};
use jiff::Timestamp;

/// Enough for whatever is not meant to time out, on a busy machine too.
pub const PATIENT: Timeouts = Timeouts {
    connect: Duration::from_secs(20),
    call: Duration::from_secs(20),
    idle: Duration::from_secs(20),
};
/// For what is meant to time out.
pub const HASTY: Timeouts = Timeouts {
    connect: Duration::from_secs(20),
    call: Duration::from_millis(300),
    idle: Duration::from_millis(200),
};

/// A request as it came, its body as far as it was read.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// What `method target` is, for comparisons.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// A connection whose request's head has been read.
pub struct Exchange {
    /// How many requests came before, over all connections.
    pub index: usize,
    pub request: Request,
    pub stream: TcpStream,
    /// What came after the head.
    early: Vec<u8>,
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Exchange {
    /// Reads the announced body.
    pub fn read_body(&mut self) {
        let length = self.request.header("content-length").map_or(0, |text| text.parse().unwrap());
        self.read_of_body(length);
    }

    /// Reads that many bytes of the body.
    pub fn read_of_body(&mut self, length: usize) {
        if self.request.header("expect").is_some() && self.early.is_empty() {
            self.send("HTTP/1.1 100 Continue\r\n\r\n");
        }
        let mut body = std::mem::take(&mut self.early);
        let missing = length.saturating_sub(body.len()) as u64;
        let _ = (&self.stream).take(missing).read_to_end(&mut body);
        self.request.body = body;
        self.record();
    }

    /// Shows the request to the test, before the client has its answer.
    fn record(&self) {
        let mut requests = self.requests.lock().unwrap();
        if requests.len() <= self.index {
            requests.resize(self.index + 1, Request::default());
        }
        requests[self.index] = self.request.clone();
    }

    /// Sends bytes, if the client still listens.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Answers: a line such as `HTTP/1.1 200 OK`, the length, and each of `headers`.
    pub fn reply(&mut self, status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) {
        self.read_rest();
        let body = body.as_ref();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.send(format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n{headers}\r\n", body.len()));
        self.send(body);
    }

    /// Answers with JSON.
    pub fn json(&mut self, status: u16, body: impl std::fmt::Display) {
        self.reply(status, &[("Content-Type", "application/json")], body.to_string());
    }

    /// A URL on this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Holds the connection until the client leaves.
    pub fn hang(&mut self) {
        let _ = std::io::copy(&mut self.stream, &mut std::io::sink());
    }

    /// Sends `bytes` again and again, every 20 ms, until the client leaves.
    pub fn trickle(&mut self, bytes: &[u8]) {
        while self.pause(20) && self.stream.write_all(bytes).is_ok() {}
    }

    /// Listens for so many milliseconds; whether the client is still there.
    pub fn pause(&mut self, milliseconds: u64) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(milliseconds))).unwrap();
        match self.stream.peek(&mut [0]) {
            Ok(count) => count > 0,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    /// Reads the body where nobody has yet.
    fn read_rest(&mut self) {
        if self.request.body.is_empty() {
            self.read_body();
        }
    }
}

/// The server; it ends when it is dropped.
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Server {
    /// Serves each connection by `act`, on a thread of its own. The connection closes when
    /// `act` returns.
    pub fn start(act: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
            is_over: Arc::default(),
        };
        let (requests, connections) = (Arc::clone(&server.requests), Arc::clone(&server.connections));
        let (is_over, port) = (Arc::clone(&server.is_over), server.address.port());
        let (act, begun) = (Arc::new(act), Arc::new(AtomicUsize::new(0)));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                connections.fetch_add(1, Ordering::SeqCst);
                let (act, requests, begun) = (Arc::clone(&act), Arc::clone(&requests), Arc::clone(&begun));
                thread::spawn(move || {
                    let Some((request, early)) = read_head(&stream) else { return };
                    let index = begun.fetch_add(1, Ordering::SeqCst);
                    let mut exchange = Exchange { index, request, stream, early, port, requests };
                    exchange.record();
                    act(&mut exchange);
                });
            }
        });
        server
    }

    /// Answers every request with that.
    pub fn saying(status: u16, headers: &'static [(&str, &str)], body: &'static str) -> Server {
        Server::start(move |exchange| exchange.reply(status, headers, body))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests so far, in the order of their beginnings.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// `METHOD target` of each request so far.
    pub fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn read_head(mut stream: &TcpStream) -> Option<(Request, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).ok()?;
        bytes.extend_from_slice(&buffer[..count]);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        match head.parse(&bytes).ok()? {
            httparse::Status::Partial if count == 0 => return None,
            httparse::Status::Partial => {}
            httparse::Status::Complete(length) => {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                let named = head.headers.iter().map(|it| (it.name.to_ascii_lowercase(), text(it.value)));
                let request = Request {
                    method: head.method.unwrap().to_owned(),
                    target: head.path.unwrap().to_owned(),
                    headers: named.collect(),
                    body: Vec::new(),
                };
                return Some((request, bytes[length..].to_vec()));
            }
        }
    }
}

/// A clock whose waits are written down instead of waited.
pub struct TestClock {
    begun: Instant,
    waits: Mutex<Vec<Duration>>,
    is_stopped: AtomicBool,
}

impl TestClock {
    pub fn new() -> Arc<TestClock> {
        let (waits, is_stopped) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(TestClock { begun: Instant::now(), waits, is_stopped })
    }

    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
    }

    pub fn waits(&self) -> Vec<Duration> {
        self.waits.lock().unwrap().clone()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        "2026-11-24T10:00:00Z".parse::<Timestamp>().unwrap() + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        self.begun.elapsed() + self.waits().iter().sum::<Duration>()
    }

    fn wait(&self, duration: Duration) -> Result<(), Stopped> {
        self.waits.lock().unwrap().push(duration);
        if self.is_stopped() { Err(Stopped) } else { Ok(()) }
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }
}

/// A client, its clock, and what it told.
pub struct Asker {
    pub client: Client,
    pub clock: Arc<TestClock>,
    pub told: Arc<Mutex<Vec<Notice>>>,
}

/// A client with the usual policy.
pub fn asker(timeouts: Timeouts, proxy: Option<ureq::Proxy>) -> Asker {
    let (clock, told) = (TestClock::new(), Arc::new(Mutex::new(Vec::new())));
    let settings =
        Settings { user_agent: "ctxtune-test/1".to_owned(), proxy, timeouts, policy: Policy::DEFAULT };
    let hearer = Arc::clone(&told);
    let tell = Arc::new(move |notice: &Notice| hearer.lock().unwrap().push(notice.clone()));
    let client = Client::new(settings, Arc::clone(&clock) as Arc<dyn Clock>, tell);
    Asker { client, clock, told }
}
