//! Connections: accepts them, reads requests, has them carried out, and spoils what a fault says.
//!
//! Separate from the meaning of a request, which is a function of the state: here are threads,
//! sockets and the order of things. No lock is held while a socket or a watcher is waited for.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::faults::{Action, Side};
use crate::reply::{Content, Reply};
use crate::state::{KEPT_BYTES, Now, Request, State};
use crate::wire::{Appetite, Body, Framing, Head, WireError, read_body, read_head, wired, write_continue};
use crate::{Seen, Stage, Watch, form, route};

/// Bytes of a request's body that [`Seen`] keeps.
const SEEN_BYTES: usize = 1 << 20;

/// A pause after an accept that failed, for want of descriptors for example.
const PAUSE: Duration = Duration::from_millis(50);

/// Which of the two origins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The API.
    Api,
    /// The storage, which must never see the key.
    Storage,
}

/// What all threads share.
pub struct Shared {
    /// Behind a lock that is held for one request's work at a time.
    pub state: Mutex<State>,
    /// For dates, courses, and waits of faults.
    pub clock: Arc<dyn Clock>,
    /// Told of every request.
    pub watch: Watch,
    /// Whether the server is being dropped.
    pub is_over: AtomicBool,
    /// Open connections by number, to be shut down in the end.
    pub connections: Mutex<BTreeMap<u64, TcpStream>>,
}

impl Shared {
    /// The state. A panic of another thread does not make it unusable.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open connections.
    pub fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        Now { elapsed: self.clock.elapsed(), time: self.clock.now() }
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
        let _ = std::thread::Builder::new().spawn(move || converse(&shared, stream, origin));
    }
}

/// How a connection goes on after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Again,
    Close,
    Reset,
}

fn converse(shared: &Shared, stream: TcpStream, origin: Origin) {
    // Frames and trickled bytes are to leave at once.
    let _ = stream.set_nodelay(true);
    let (Ok(read), Ok(kept)) = (stream.try_clone(), stream.try_clone()) else { return };
    let id = {
        let mut connections = shared.connections();
        let id = connections.last_key_value().map_or(0, |(last, _)| last + 1);
        connections.insert(id, kept);
        id
    };
    let mut line = Line { shared, origin, reader: BufReader::with_capacity(64 << 10, read), writer: stream };
    let next = loop {
        if shared.is_over.load(Ordering::SeqCst) {
            break Next::Close;
        }
        match line.exchange() {
            Ok(Next::Again) => {}
            Ok(next) => break next,
            Err(WireError::Malformed(message)) => {
                shared.state().accuse(format!("malformed request: {message}"));
                let _ = line.send(&Reply::error(400, message), &Manner::Whole);
                break Next::Close;
            }
            Err(WireError::Io(_)) => break Next::Close,
        }
    };
    match next {
        Next::Reset => reset(&line.writer),
        _ => {
            let _ = line.writer.shutdown(Shutdown::Write);
        }
    }
    // The last of its descriptors closes the connection, so this one goes before `line`.
    shared.connections().remove(&id);
}

/// Makes closing the connection a reset.
#[cfg(unix)]
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Without a way to reset, the connection is at least cut in both directions.
#[cfg(not(unix))]
fn reset(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}

/// How a reply goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Whole,
    /// So many bytes of the body.
    Cut(u64),
    /// So long before each byte.
    Trickle(Duration),
}

/// One connection.
struct Line<'s> {
    shared: &'s Shared,
    origin: Origin,
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Line<'_> {
    /// One request and its reply.
    fn exchange(&mut self) -> Result<Next, WireError> {
        let Some(head) = read_head(&mut self.reader)? else { return Ok(Next::Close) };
        let framing = head.framing()?;
        let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
        let (path, query) = (path.to_owned(), form::urlencoded(query));
        let (number, action) = self.arrive(&head, &path);
        if head.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            write_continue(&mut self.writer)?;
        }
        let appetite = Appetite { keep: KEPT_BYTES, limit: limit(action.as_ref(), framing) };
        let body = read_body(&mut self.reader, framing, appetite)?;
        self.note(number, &body);
        self.shared.tell(Stage::Received, number);
        if !body.is_whole {
            return Ok(Next::Reset);
        }
        let is_kept_alive = head.is_kept_alive;
        let request = Request { head, path, query, body };
        let next = self.carry_out(number, &request, action)?;
        Ok(if next == Next::Again && !is_kept_alive { Next::Close } else { next })
    }

    /// Records a request whose head is read, and decides what goes wrong with it.
    fn arrive(&self, head: &Head, path: &str) -> (usize, Option<Action>) {
        let mut state = self.shared.state();
        let state = &mut *state;
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
        let action = state.script.faults.decide(&mut state.counts, number, (&head.method, path));
        (number, action.cloned())
    }

    fn note(&self, number: usize, body: &Body) {
        let seen = &mut self.shared.state().seen[number];
        seen.body = body.kept[..body.kept.len().min(SEEN_BYTES)].to_vec();
        seen.body_bytes = body.bytes;
    }

    fn carry_out(
        &mut self,
        number: usize,
        request: &Request,
        action: Option<Action>,
    ) -> Result<Next, WireError> {
        let acts = !matches!(
            action,
            Some(
                Action::Reset(Side::Before)
                    | Action::Status { side: Side::Before, .. }
                    | Action::Redirect(_)
                    | Action::EchoKey
            )
        );
        let mut reply = Reply::error(500, "not carried out");
        if acts {
            reply = self.act(request);
            self.shared.tell(Stage::Acted, number);
        }
        let mut manner = Manner::Whole;
        match action {
            None => {}
            Some(Action::ResetAfterBytes(_) | Action::ResetAfterPercent(_)) => {}
            Some(Action::Reset(_)) => return Ok(Next::Reset),
            Some(Action::LoseReply) => return Ok(Next::Close),
            Some(Action::Hang(seconds)) => {
                let duration = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
                if !self.shared.clock.wait(duration) {
                    return Ok(Next::Close);
                }
            }
            Some(Action::CutReply(bytes)) => manner = Manner::Cut(bytes),
            Some(Action::Trickle(milliseconds)) => {
                manner = Manner::Trickle(Duration::from_millis(milliseconds));
            }
            Some(other) => reply = self.substitute(request, other),
        }
        self.shared.state().seen[number].status = reply.status;
        self.send(&reply, &manner)?;
        Ok(if matches!(manner, Manner::Cut(_)) { Next::Close } else { Next::Again })
    }

    fn act(&self, request: &Request) -> Reply {
        let now = self.shared.now();
        let mut state = self.shared.state();
        match self.origin {
            Origin::Api => route::api(&mut state, request, now),
            Origin::Storage => route::storage(&mut state, request),
        }
    }

    /// The answer that a fault puts in the place of the real one.
    fn substitute(&self, request: &Request, action: Action) -> Reply {
        match action {
            Action::Status { status, headers, body, .. } => {
                let reply = match body.as_str() {
                    "" => Reply::error(status, "this request was scripted to fail"),
                    text => Reply::bytes(status, content_type(text), text.as_bytes().to_vec()),
                };
                headers.into_iter().fold(reply, |reply, (name, value)| reply.with(&name, value))
            }
            Action::Body(text) => Reply::bytes(200, content_type(&text), text.into_bytes()),
            Action::Redirect(url) => {
                let state = self.shared.state();
                let url = url.replace("{api}", &state.api).replace("{storage}", &state.storage);
                let reply = Reply { status: 307, headers: Vec::new(), content: Content::Whole(Vec::new()) };
                reply.with("Location", url.replace("{path}", &request.head.target))
            }
            _ => {
                let key = request.head.header("authorization").unwrap_or_default();
                Reply::error(400, format!("cannot understand the request with Authorization: {key}"))
            }
        }
    }

    fn send(&mut self, reply: &Reply, manner: &Manner) -> Result<(), WireError> {
        let wired = wired(reply, self.shared.clock.now());
        match manner {
            Manner::Whole => {
                self.writer.write_all(&[wired.head, wired.body].concat())?;
            }
            Manner::Cut(bytes) => {
                let cut = usize::try_from(*bytes).unwrap_or(usize::MAX).min(wired.body.len());
                self.writer.write_all(&[&wired.head, &wired.body[..cut]].concat())?;
            }
            Manner::Trickle(pause) => {
                for byte in wired.head.iter().chain(&wired.body) {
                    self.writer.write_all(&[*byte])?;
                    let is_over = self.shared.is_over.load(Ordering::SeqCst);
                    if !self.shared.clock.wait(*pause) || is_over {
                        break;
                    }
                }
            }
        }
        Ok(())
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
