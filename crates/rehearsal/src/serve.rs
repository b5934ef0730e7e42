//! Connections: accepts them, reads requests, has them carried out, and does to them what a fault says.
//!
//! No lock is held while a socket or a watcher is waited for.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::faults::Action;
use crate::reply::Reply;
use crate::request::{Now, Request};
use crate::state::State;
use crate::wire::{Framing, Head, read_body, read_head, wired};
use crate::{Seen, Stage, Watch, form, route};

const SEEN_BYTES: usize = 1 << 20;
/// A pause after an accept that failed, for want of descriptors for example.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Api,
    /// It must never see the key.
    Storage,
}

pub struct Shared {
    /// Behind a lock that is held for one request's work at a time.
    pub state: Mutex<State>,
    pub clock: Arc<dyn Clock>,
    pub watch: Watch,
    pub is_over: AtomicBool,
    /// Open connections by number, to be shut down in the end.
    pub connections: Mutex<BTreeMap<u64, TcpStream>>,
}

impl Shared {
    /// The state. A panic of another thread does not make it unusable.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, stage: Stage, number: usize) {
        let seen = self.state().seen[number].clone();
        (self.watch)(stage, &seen);
    }
}

/// Accepts connections until the server is dropped; each has a thread.
pub fn accept(shared: &Arc<Shared>, listener: &TcpListener, origin: Origin) {
    for connection in listener.incoming() {
        if shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = connection else {
            shared.clock.wait(PAUSE);
            continue;
        };
        let shared = Arc::clone(shared);
        // Without a thread the connection is closed, and the client may try again.
        let _ = std::thread::Builder::new().spawn(move || serve(&shared, stream, origin));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Keep,
    Close,
    Reset,
}

fn serve(shared: &Shared, stream: TcpStream, origin: Origin) {
    // Frames and trickled bytes are to leave at once.
    let _ = stream.set_nodelay(true);
    let (Ok(read), Ok(kept)) = (stream.try_clone(), stream.try_clone()) else { return };
    let id = {
        let mut connections = shared.connections();
        let id = connections.last_key_value().map_or(0, |(last, _)| last + 1);
        connections.insert(id, kept);
        id
    };
    let reader = BufReader::with_capacity(64 << 10, read);
    let mut connection = Connection { shared, origin, reader, writer: stream };
    let next = loop {
        if shared.is_over.load(Ordering::SeqCst) {
            break Next::Close;
        }
        match connection.exchange() {
            Ok(Next::Keep) => {}
            Ok(next) => break next,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                shared.state().record_violation(format!("malformed request: {error}"));
                let _ = connection.send(&Reply::error(400, error.to_string()), None);
                break Next::Close;
            }
            Err(_) => break Next::Close,
        }
    };
    match next {
        Next::Reset => reset(&connection.writer),
        _ => {
            let _ = connection.writer.shutdown(Shutdown::Write);
        }
    }
    // The last of its descriptors closes the connection, so this one goes before those of `connection`.
    shared.connections().remove(&id);
}

#[cfg(unix)]
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Without a way to reset, the connection is at least cut in both directions.
#[cfg(not(unix))]
fn reset(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}

struct Connection<'s> {
    shared: &'s Shared,
    origin: Origin,
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Connection<'_> {
    fn exchange(&mut self) -> io::Result<Next> {
        let Some(head) = read_head(&mut self.reader)? else { return Ok(Next::Close) };
        let framing = head.framing()?;
        let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
        let (path, query) = (path.to_owned(), form::urlencoded(query));
        let (number, action) = self.arrive(&head, &path);
        if head.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = read_body(&mut self.reader, framing, limit(action.as_ref(), framing))?;
        {
            let seen = &mut self.shared.state().seen[number];
            seen.body = body.kept[..body.kept.len().min(SEEN_BYTES)].to_vec();
            seen.body_bytes = body.bytes;
        }
        self.shared.tell(Stage::Received, number);
        if !body.is_whole {
            return Ok(Next::Reset);
        }
        let is_kept_alive = head.is_kept_alive;
        let request = Request { head, path, query, body };
        let next = self.carry_out(number, &request, action.as_ref())?;
        Ok(if next == Next::Keep && !is_kept_alive { Next::Close } else { next })
    }

    /// Records a request whose head is read, and decides what goes wrong with it.
    fn arrive(&self, head: &Head, path: &str) -> (usize, Option<Action>) {
        let state = &mut *self.shared.state();
        let number = state.seen.len();
        state.seen.push(Seen {
            number,
            method: head.method.clone(),
            path: head.target.clone(),
            authorization: head.header("authorization").map(str::to_owned),
            headers: head.headers.clone(),
            body: Vec::new(),
            body_bytes: 0,
            is_storage: self.origin == Origin::Storage,
            status: 0,
        });
        if self.origin == Origin::Storage {
            route::guard_key(state, &head.headers, path);
        }
        let action = state.script.faults.decide(&mut state.counts, number, &head.method, path);
        (number, action.cloned())
    }

    fn carry_out(&mut self, number: usize, request: &Request, action: Option<&Action>) -> io::Result<Next> {
        let mut reply = Reply::error(500, "not carried out");
        if action.is_none_or(Action::lets_act) {
            reply = self.act(request);
            self.shared.tell(Stage::Acted, number);
        }
        match action {
            Some(Action::Reset(_)) => return Ok(Next::Reset),
            Some(Action::LoseReply) => return Ok(Next::Close),
            Some(Action::Hang(seconds)) => {
                let duration = Duration::try_from_secs_f64(*seconds).unwrap_or(Duration::MAX);
                if !self.shared.clock.wait(duration) {
                    return Ok(Next::Close);
                }
            }
            Some(action) => reply = self.replaced(request, action).unwrap_or(reply),
            None => {}
        }
        self.shared.state().seen[number].status = reply.status;
        self.send(&reply, action)?;
        Ok(if matches!(action, Some(Action::CutReply(_))) { Next::Close } else { Next::Keep })
    }

    fn act(&self, request: &Request) -> Reply {
        let now = Now { elapsed: self.shared.clock.elapsed(), time: self.shared.clock.now() };
        let mut state = self.shared.state();
        match self.origin {
            Origin::Api => route::api(&mut state, request, now),
            Origin::Storage => route::storage(&mut state, request),
        }
    }

    /// The answer that a fault puts in the place of the real one.
    fn replaced(&self, request: &Request, action: &Action) -> Option<Reply> {
        Some(match action {
            Action::Status { status, headers, body, .. } => {
                let reply = match body.as_str() {
                    "" => Reply::error(*status, "this request was scripted to fail"),
                    text => Reply::bytes(*status, content_type(text), text.as_bytes().to_vec()),
                };
                headers.iter().fold(reply, |reply, (name, value)| reply.with(name, value))
            }
            Action::Body(text) => Reply::bytes(200, content_type(text), text.clone().into_bytes()),
            Action::Redirect(url) => {
                let state = self.shared.state();
                let url = url.replace("{api}", &state.api).replace("{storage}", &state.storage);
                Reply::redirect(307, url.replace("{path}", &request.head.target))
            }
            Action::EchoKey => {
                let key = request.head.header("authorization").unwrap_or_default();
                Reply::error(400, format!("cannot understand the request with Authorization: {key}"))
            }
            _ => return None,
        })
    }

    fn send(&mut self, reply: &Reply, action: Option<&Action>) -> io::Result<()> {
        let (head, mut body) = wired(reply, self.shared.clock.now());
        match action {
            Some(Action::Trickle(milliseconds)) => {
                let pause = Duration::from_millis(*milliseconds);
                for byte in head.iter().chain(&body) {
                    self.writer.write_all(&[*byte])?;
                    let is_over = self.shared.is_over.load(Ordering::SeqCst);
                    if !self.shared.clock.wait(pause) || is_over {
                        break;
                    }
                }
                return Ok(());
            }
            Some(Action::CutReply(bytes)) => body.truncate(usize::try_from(*bytes).unwrap_or(usize::MAX)),
            _ => {}
        }
        self.writer.write_all(&[head, body].concat())
    }
}

/// After how many bytes of the body a fault ends the reading.
fn limit(action: Option<&Action>, framing: Framing) -> Option<u64> {
    match (action?, framing) {
        (Action::ResetAfterBytes(bytes), _) => Some(*bytes),
        (Action::ResetAfterPercent(part), Framing::Length(bytes)) => {
            Some((bytes as f64 * part / 100.0) as u64)
        }
        (Action::ResetAfterPercent(_), _) => Some(0),
        _ => None,
    }
}

fn content_type(text: &str) -> &'static str {
    match text.trim_start().as_bytes().first() {
        Some(b'<') => "text/html",
        Some(b'{' | b'[') => "application/json",
        _ => "text/plain",
    }
}
