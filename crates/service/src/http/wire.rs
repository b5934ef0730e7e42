//! One try of one call, on a thread of its own.
//!
//! The thread is what lets a signal end a call that hangs, in a name's resolution, a handshake or a read alike:
//! the caller looks at the clock twenty times a second and leaves the thread behind, which ends with its
//! timeouts or with the process. It owns all it needs; bytes, progress and the answer come back by messages.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use ureq::http::{HeaderValue, Request, Response, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Proxy, SendBody};

use crate::clock::Clock;
use crate::http::body::FileBody;
use crate::http::call::{Answer, Body, Call, Timeouts, without_query};
use crate::http::error::Error;
use crate::http::form;
use crate::http::watch::{Failure, MOST_KEPT, Message, Shared, Sink, Watch};

/// What is read of a file, and sent, at a time: a TLS record.
const CHUNK: usize = 16 << 10;
/// From this length on the server is asked before a file is sent, as it may refuse at once;
/// after the first mebibyte its refusal would be lost with the connection.
const ASKED_FROM: u64 = 1 << 20;

/// The library's agents, one for each set of timeouts. An agent reads the certificates of the system once.
pub struct Wire {
    calls: Agent,
    uploads: Agent,
    streams: Agent,
    timeouts: Timeouts,
}

impl Wire {
    /// Agents that follow no redirect, take any status as an answer, read no environment.
    pub fn new(user_agent: &str, proxy: Option<Proxy>, timeouts: Timeouts) -> Wire {
        let config = || {
            let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
            Agent::config_builder()
                .user_agent(user_agent)
                .accept_encoding("")
                .proxy(proxy.clone())
                .tls_config(tls)
                .max_redirects(0)
                .http_status_as_error(false)
                .timeout_resolve(Some(timeouts.connect))
                .timeout_connect(Some(timeouts.connect))
        };
        let calls = config().timeout_global(Some(timeouts.call)).build();
        let uploads = config()
            .timeout_per_write(Some(timeouts.idle))
            // The last bytes may wait long in buffers on the way.
            .timeout_recv_response(Some(timeouts.idle.saturating_mul(5)))
            .timeout_recv_body(Some(timeouts.call))
            .build();
        let streams = config()
            .timeout_per_read(Some(timeouts.idle))
            .timeout_per_write(Some(timeouts.idle))
            .timeout_recv_response(Some(timeouts.call))
            .build();
        Wire {
            calls: Agent::new_with_config(calls),
            uploads: Agent::new_with_config(uploads),
            streams: Agent::new_with_config(streams),
            timeouts,
        }
    }

    /// Tries `call` once; with a `sink`, the body of a 200 or 206 goes there.
    pub fn exchange(
        &self,
        clock: &dyn Clock,
        call: &Call<'_>,
        sink: Option<Sink<'_>>,
    ) -> Result<Answer, Error> {
        let is_asked = matches!(&call.body, Body::File(file, _) if file.len() >= ASKED_FROM);
        let expect = if is_asked { Expect::Asked } else { Expect::Nothing };
        let answer = self.exchange_once(clock, call, (expect, sink))?;
        // A server that cannot be asked says so, and is sent the file unasked.
        if answer.status == 417 && is_asked {
            return self.exchange_once(clock, call, (Expect::Nothing, None));
        }
        Ok(answer)
    }

    fn exchange_once(
        &self,
        clock: &dyn Clock,
        call: &Call<'_>,
        (expect, sink): (Expect, Option<Sink<'_>>),
    ) -> Result<Answer, Error> {
        if clock.is_stopped() {
            return Err(Error::Stopped);
        }
        let shared = Arc::new(Shared::default());
        let abandoned = Abandon(&shared);
        let keeps_body = sink.is_none();
        let errand = Errand {
            agent: self.agent(call, keeps_body).clone(),
            request: request(call, expect)?,
            sending: Sending::new(&call.body, &shared),
            keeps_body,
        };
        let (outbox, inbox) = sync_channel(4);
        let thread = thread::Builder::new().name("http".to_owned());
        thread.spawn(move || errand.run(&outbox)).map_err(|error| Error::NotSent {
            url: without_query(&call.url).to_owned(),
            reason: format!("cannot start a thread: {error}"),
        })?;
        let mut watch = Watch::new(self.timeouts, clock, call, &shared);
        let answer = watch.attend(&inbox, sink);
        drop(abandoned);
        answer
    }

    fn agent(&self, call: &Call<'_>, keeps_body: bool) -> &Agent {
        match call.body {
            Body::File(..) => &self.uploads,
            _ if keeps_body => &self.calls,
            _ => &self.streams,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Expect {
    Asked,
    Nothing,
}

fn request(call: &Call<'_>, expect: Expect) -> Result<Request<()>, Error> {
    let invalid =
        |reason: &str| Error::Invalid { url: without_query(&call.url).to_owned(), reason: reason.to_owned() };
    let mut builder = Request::builder().method(call.method.as_str()).uri(&call.url);
    for (name, value) in &call.headers {
        builder = builder.header(name, value);
    }
    builder = builder.header(header::CONNECTION, "close");
    if let Some(key) = call.key {
        let value = key.header().ok_or_else(|| invalid("the key has characters that no header may have"))?;
        builder = builder.header(header::AUTHORIZATION, value);
    }
    builder = match &call.body {
        Body::Json(_) => builder.header(header::CONTENT_TYPE, "application/json"),
        Body::Form(fields) => builder.header(header::CONTENT_TYPE, form::encode(fields).0),
        Body::File(file, _) => builder.header(header::CONTENT_LENGTH, file.len()),
        Body::Empty => builder,
    };
    if expect == Expect::Asked {
        builder = builder.header(header::EXPECT, "100-continue");
    }
    let request = builder.body(()).map_err(|error| invalid(&error.to_string()))?;
    let is_web = matches!(request.uri().scheme_str(), Some("http" | "https"));
    if !is_web || request.uri().host().is_none_or(str::is_empty) {
        return Err(invalid("it is no URL of a server"));
    }
    Ok(request)
}

/// Tells the thread, when it is dropped, that nobody waits any more.
struct Abandon<'s>(&'s Shared);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.0.is_abandoned.store(true, Ordering::Relaxed);
    }
}

enum Sending {
    Nothing,
    Bytes(Vec<u8>),
    File(FileBody, Arc<Shared>),
}

impl Sending {
    fn new(body: &Body<'_>, shared: &Arc<Shared>) -> Sending {
        match body {
            Body::Empty => Sending::Nothing,
            Body::Json(value) => Sending::Bytes(value.to_string().into_bytes()),
            Body::Form(fields) => Sending::Bytes(form::encode(fields).1),
            Body::File(file, _) => Sending::File((*file).clone(), Arc::clone(shared)),
        }
    }
}

struct Counted<R> {
    reader: R,
    shared: Arc<Shared>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.shared.is_abandoned.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for the answer"));
        }
        let most = buffer.len().min(CHUNK);
        let count = self.reader.read(&mut buffer[..most])?;
        self.shared.sent.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Failure {
        Failure::Library(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Library(error.into())
    }
}

struct Errand {
    agent: Agent,
    request: Request<()>,
    sending: Sending,
    keeps_body: bool,
}

impl Errand {
    fn run(self, outbox: &SyncSender<Message>) {
        let end = self.perform(outbox);
        // Where nobody listens any more there is nobody to tell.
        let _ = outbox.send(Message::End(end));
    }

    fn perform(self, outbox: &SyncSender<Message>) -> Result<Answer, Failure> {
        let has_length = !matches!(*self.request.method(), ureq::http::Method::GET);
        let (parts, ()) = self.request.into_parts();
        let response = match self.sending {
            // A POST without a body must say that it has none.
            Sending::Nothing if has_length => self.agent.run(Request::from_parts(parts, Vec::new()))?,
            Sending::Nothing => self.agent.run(Request::from_parts(parts, ()))?,
            Sending::Bytes(bytes) => self.agent.run(Request::from_parts(parts, bytes))?,
            Sending::File(file, shared) => {
                let reader = Counted { reader: file.open(), shared };
                self.agent.run(Request::from_parts(parts, SendBody::from_owned_reader(reader)))?
            }
        };
        let (mut answer, body) = head(response);
        if self.keeps_body || !matches!(answer.status, 200 | 206) {
            answer.body = keep(body.into_reader())?;
            return Ok(answer);
        }
        outbox.send(Message::Head(answer.clone())).map_err(|_| Failure::Unheard)?;
        forward(body.into_reader(), outbox)?;
        Ok(answer)
    }
}

fn head(response: Response<ureq::Body>) -> (Answer, ureq::Body) {
    let (parts, body) = response.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
    (Answer { status: parts.status.as_u16(), headers: headers.collect(), body: Vec::new() }, body)
}

fn keep(reader: impl Read) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    reader.take(MOST_KEPT + 1).read_to_end(&mut body)?;
    if body.len() as u64 > MOST_KEPT { Err(Failure::TooLarge) } else { Ok(body) }
}

fn forward(mut reader: impl Read, outbox: &SyncSender<Message>) -> Result<(), Failure> {
    loop {
        let mut bytes = vec![0; 64 << 10];
        let count = reader.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        bytes.truncate(count);
        outbox.send(Message::Bytes(bytes)).map_err(|_| Failure::Unheard)?;
    }
}
