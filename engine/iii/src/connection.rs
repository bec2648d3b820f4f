//! One socket, driven by one task: reads what comes, writes what waits, asks whether the client is there. Reading goes on
//! while writing waits for the client, and what answers a ping waits behind a bounded amount of other data. It must not
//! know what is said.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, Stream};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use crate::limits::{FRAGMENT_BYTES, FRAME_BYTES_MAX, PARTING};
use crate::linger::Linger;
use crate::outbox::{Out, Outgoing};
use crate::socket::Socket;

/// Bytes that are handed to the socket before it is waited until they are written.
const BATCH_BYTES: usize = 256 << 10;

/// A socket and what is to be written to it.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    out: Outgoing,
    /// Bytes handed over since everything was last written.
    batch: usize,
    /// Whether there may be something in the socket that is not written.
    unwritten: bool,
    /// Fragments of a long message that are still to be sent, the next one last.
    fragments: Vec<Bytes>,
    pings: Interval,
    idle: Duration,
    /// When it last waited for more after something came.
    heard: Instant,
    /// Messages since then.
    taken: usize,
    linger: Arc<Linger>,
    closing: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum News {
    /// A message came.
    Message(Message),
    /// The connection is over.
    Over,
}

impl Connection {
    pub(crate) fn new(
        socket: Socket,
        out: Outgoing,
        ping: Duration,
        idle: Duration,
        linger: Arc<Linger>,
    ) -> Self {
        let mut pings = tokio::time::interval_at(Instant::now() + ping, ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            socket,
            out,
            batch: 0,
            unwritten: false,
            fragments: Vec::new(),
            pings,
            idle,
            heard: Instant::now(),
            taken: 0,
            linger,
            closing: None,
        }
    }

    /// Writes what waits until something comes.
    pub(crate) async fn next(&mut self) -> News {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        if self.out.is_too_much() {
            return Poll::Ready(News::Over);
        }
        if self.has_failed_to_write(cx) {
            return Poll::Ready(News::Over);
        }
        // After writing, which may have begun it: the time runs from then on.
        if let Some(closing) = &mut self.closing
            && closing.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(News::Over);
        }
        match Pin::new(&mut self.socket).poll_next(cx) {
            Poll::Pending if self.rest(cx) => Poll::Ready(News::Over),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(message))) => {
                self.taken += 1;
                // A ping's answer is in the socket now and goes out before the next thing is read.
                if message.is_ping() || message.is_close() {
                    self.unwritten = true;
                    if self.has_failed_to_write(cx) {
                        return Poll::Ready(News::Over);
                    }
                }
                Poll::Ready(News::Message(message))
            }
            Poll::Ready(Some(Err(error))) => {
                if !matches!(error, Error::ConnectionClosed) {
                    tracing::debug!(%error, "a connection ended");
                }
                // What was wrong with what came is told by a close, if the client still reads.
                let _as_far_as_possible = self.write(cx);
                Poll::Ready(News::Over)
            }
            Poll::Ready(None) => Poll::Ready(News::Over),
        }
    }

    /// Nothing more has come: looks after the time; says whether the connection is over.
    fn rest(&mut self, cx: &mut Context<'_>) -> bool {
        if self.taken > 0 {
            self.heard = Instant::now();
            self.linger.note(std::mem::take(&mut self.taken), self.heard.into_std());
        }
        self.look_after_silence(cx)
    }

    /// Asks a client that is silent whether it is there; says whether it has been silent for too long.
    fn look_after_silence(&mut self, cx: &mut Context<'_>) -> bool {
        while self.pings.poll_tick(cx).is_ready() {
            let silent = self.heard.elapsed();
            if silent >= self.idle {
                tracing::info!(?silent, "a client of the iii listener is silent; its connection is closed");
                return true;
            }
            if self.hand_over(Message::Ping(Bytes::new())).is_err() || self.has_failed_to_write(cx) {
                return true;
            }
        }
        false
    }

    fn hand_over(&mut self, message: Message) -> Result<(), Error> {
        self.unwritten = true;
        Pin::new(&mut self.socket).start_send(message)
    }

    /// Writes as much as goes; says whether the connection ended by that.
    fn has_failed_to_write(&mut self, cx: &mut Context<'_>) -> bool {
        let written = self.write(cx);
        if let Err(error) = &written {
            tracing::debug!(%error, "a connection ended while it was written to");
        }
        written.is_err()
    }

    /// Writes as much as goes.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        loop {
            let more = self.batch < BATCH_BYTES && self.closing.is_none() && self.fill(cx)?;
            if more {
                continue;
            }
            if !self.unwritten {
                return Ok(());
            }
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.out.written(self.batch);
                    let full = self.batch >= BATCH_BYTES;
                    (self.batch, self.unwritten) = (0, false);
                    if !full {
                        return Ok(());
                    }
                }
                Poll::Ready(Err(Error::ConnectionClosed)) => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Hands the next thing to the socket; says whether there was one.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        if let Some(fragment) = self.fragments.pop() {
            let last = self.fragments.is_empty();
            self.batch += fragment.len();
            let frame = Frame::message(fragment, OpCode::Data(Data::Continue), last);
            self.hand_over(Message::Frame(frame))?;
            return Ok(true);
        }
        match self.out.poll_next(cx) {
            Poll::Ready(Out::Text(text)) if text.len() > FRAME_BYTES_MAX => {
                let mut rest = Bytes::from(text);
                let first = rest.split_to(FRAGMENT_BYTES);
                while !rest.is_empty() {
                    let fragment = rest.split_to(FRAGMENT_BYTES.min(rest.len()));
                    self.fragments.push(fragment);
                }
                self.fragments.reverse();
                self.batch += first.len();
                let frame = Frame::message(first, OpCode::Data(Data::Text), false);
                self.hand_over(Message::Frame(frame))?;
                Ok(true)
            }
            Poll::Ready(Out::Text(text)) => {
                self.batch += text.len();
                self.hand_over(Message::text(text))?;
                Ok(true)
            }
            Poll::Ready(Out::Close) => {
                self.hand_over(Message::Close(None))?;
                self.closing = Some(Box::pin(tokio::time::sleep(PARTING)));
                Ok(true)
            }
            Poll::Pending => Ok(false),
        }
    }
}
