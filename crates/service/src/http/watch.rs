//! The caller's side of a call: hears what its thread says, and ends it in time.
//!
//! A signal ends a call within a second; a peer that moves a byte now and then ends by the least that must
//! move.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::clock::Clock;
use crate::http::call::{Answer, Body, Call, Method, Piece, Timeouts, without_query};
use crate::http::error::Error;

/// The largest answer that is kept.
pub(crate) const MOST_KEPT: u64 = 16 << 20;
/// How often the caller looks up while a call hangs.
const TICK: Duration = Duration::from_millis(50);
/// How many looks a POST is given to bring its answer after a signal: an answer spares the
/// next run the question whether it arrived.
const GRACE: u32 = 20;
/// What must move within [`Timeouts::idle`]: one read of a file.
const LEAST_MOVED: u64 = 16 << 10;

pub type Sink<'s> = &'s mut dyn FnMut(Piece<'_>) -> io::Result<()>;

#[derive(Default)]
pub struct Shared {
    pub sent: AtomicU64,
    pub is_abandoned: AtomicBool,
}

pub enum Message {
    Head(Answer),
    Bytes(Vec<u8>),
    End(Result<Answer, Failure>),
}

pub enum Failure {
    Library(ureq::Error),
    TooLarge,
    Unheard,
}

/// The caller's side: hears the thread, looks for signals, and at whether anything moves.
pub struct Watch<'w> {
    timeouts: Timeouts,
    clock: &'w dyn Clock,
    call: &'w Call<'w>,
    shared: &'w Shared,
    /// Bytes of the answer that went to the sink.
    received: u64,
    /// The bytes moved at the last look that counted, and when that was.
    moved: (u64, Duration),
    looks_since_signal: u32,
}

impl<'w> Watch<'w> {
    pub fn new(
        timeouts: Timeouts,
        clock: &'w dyn Clock,
        call: &'w Call<'w>,
        shared: &'w Shared,
    ) -> Watch<'w> {
        let moved = (0, clock.elapsed());
        Watch { timeouts, clock, call, shared, received: 0, moved, looks_since_signal: 0 }
    }

    pub(crate) fn attend(
        &mut self,
        inbox: &Receiver<Message>,
        mut sink: Option<Sink<'_>>,
    ) -> Result<Answer, Error> {
        let mut give = |piece: Piece<'_>| match &mut sink {
            Some(sink) => sink(piece).map_err(|source| Error::Sink { source }),
            None => Ok(()),
        };
        let mut is_streaming = false;
        loop {
            match inbox.recv_timeout(TICK) {
                Ok(Message::Head(answer)) => {
                    is_streaming = true;
                    self.moved = (0, self.clock.elapsed());
                    give(Piece::Head(&answer))?;
                }
                Ok(Message::Bytes(bytes)) => {
                    self.received += bytes.len() as u64;
                    give(Piece::Bytes(&bytes))?;
                }
                Ok(Message::End(end)) => {
                    self.report_progress();
                    return end.map_err(|failure| self.error(failure));
                }
                Err(RecvTimeoutError::Timeout) => self.report_progress(),
                Err(RecvTimeoutError::Disconnected) => return Err(self.lost("the call broke down")),
            }
            self.look_for_signal()?;
            self.look_at_pace(is_streaming)?;
        }
    }

    fn report_progress(&self) {
        if let Body::File(_, progress) = &self.call.body {
            progress(self.shared.sent.load(Ordering::Relaxed));
        }
    }

    fn look_for_signal(&mut self) -> Result<(), Error> {
        if !self.clock.is_stopped() {
            return Ok(());
        }
        self.looks_since_signal += 1;
        let is_owed_an_answer = self.call.method == Method::Post;
        if is_owed_an_answer && self.looks_since_signal < GRACE { Ok(()) } else { Err(Error::Stopped) }
    }

    /// A peer that takes or gives a byte a second outwits a timeout for each read and write.
    fn look_at_pace(&mut self, is_streaming: bool) -> Result<(), Error> {
        let sent = self.shared.sent.load(Ordering::Relaxed);
        let is_sending = matches!(&self.call.body, Body::File(file, _) if sent < file.len());
        let now = self.clock.elapsed();
        let moved = sent + self.received;
        let (moved_before, since) = self.moved;
        if now.saturating_sub(since) < self.timeouts.idle {
            return Ok(());
        }
        if (is_sending || is_streaming) && moved < moved_before + LEAST_MOVED {
            let seconds = self.timeouts.idle.as_secs_f64();
            return Err(self.lost(&format!("only {} bytes moved in {seconds} s", moved - moved_before)));
        }
        self.moved = (moved, now);
        Ok(())
    }

    fn lost(&self, reason: &str) -> Error {
        Error::Lost { url: without_query(&self.call.url).to_owned(), reason: reason.to_owned() }
    }

    fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::Library(error) => Error::from_library(error, &self.call.url, &self.timeouts),
            Failure::TooLarge => {
                Error::TooLarge { url: without_query(&self.call.url).to_owned(), limit: MOST_KEPT }
            }
            Failure::Unheard => Error::Stopped,
        }
    }
}
