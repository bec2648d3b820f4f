//! Streams beside a call: items from the callee, from the caller, or both, with flow control by credits.
//!
//! Each direction starts with a window of [`WINDOW`] items. The receiver gives credits back as it consumes, so neither
//! side ever holds more than a window of items that nobody reads, and a slow reader slows the writer and nobody else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use ringway_ipc::frame::Header;
use ringway_protocol::header::Kind;
use ringway_protocol::{CallError, ErrorCode};

use crate::message::Message;
use crate::wire::Received;

/// Items that may be under way in one direction.
pub(crate) const WINDOW: u32 = 32;

/// How long a blocked reader or writer sleeps before it looks again by itself.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// What one end of a stream has received: items, credits, the end.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug)]
struct State {
    items: VecDeque<Received>,
    /// Items that this end may still send.
    credits: u32,
    /// Items consumed and not yet credited to the peer.
    owed: u32,
    /// The peer will send no more items.
    finished: bool,
    /// The call is over.
    over: Option<Option<CallError>>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What an end of a stream waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// An item, or the end.
    Item,
    /// Leave to send an item, or the end.
    Credit,
}

impl State {
    fn meets(&self, need: Need) -> bool {
        match need {
            Need::Item => !self.items.is_empty() || self.finished || self.over.is_some(),
            Need::Credit => self.credits > 0 || self.over.is_some(),
        }
    }
}

/// The peer sent more than it had credits for, or items after the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overrun;

impl Inbox {
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            items: VecDeque::new(),
            credits: WINDOW,
            owed: 0,
            finished: false,
            over: None,
            reader: None,
            writer: None,
        };
        Arc::new(Self { state: Mutex::new(state), news: Condvar::new() })
    }

    /// Takes a stream frame of the peer.
    pub(crate) fn take_frame(&self, received: Received) -> Result<(), Overrun> {
        let mut state = self.state.lock();
        match Kind::try_from(received.header.kind) {
            Ok(Kind::StreamData) => {
                if state.finished || state.items.len() + state.owed as usize >= 2 * WINDOW as usize {
                    return Err(Overrun);
                }
                state.items.push_back(received);
            }
            Ok(Kind::StreamEnd) => state.finished = true,
            Ok(Kind::Credit) => {
                let credits = state.credits.saturating_add(received.header.function);
                if credits > WINDOW {
                    return Err(Overrun);
                }
                state.credits = credits;
            }
            _ => return Err(Overrun),
        }
        self.announce(state);
        Ok(())
    }

    /// The call is over; items that came before are still to be read.
    pub(crate) fn end(&self, error: Option<CallError>) {
        let mut state = self.state.lock();
        state.over.get_or_insert(error);
        self.announce(state);
    }

    fn announce(&self, mut state: MutexGuard<'_, State>) {
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        self.news.notify_all();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// The next item with the credits to return for it, `None` after the last; the outer `None` means: not yet.
    fn next(&self) -> Option<Result<Option<(Received, u32)>, CallError>> {
        let mut state = self.state.lock();
        if let Some(item) = state.items.pop_front() {
            state.owed += 1;
            let credit = if state.owed >= WINDOW / 2 { std::mem::take(&mut state.owed) } else { 0 };
            return Some(Ok(Some((item, credit))));
        }
        match &state.over {
            Some(Some(error)) => Some(Err(error.clone())),
            Some(None) => Some(Ok(None)),
            None if state.finished => Some(Ok(None)),
            None => None,
        }
    }

    fn spend_credit(&self) -> Option<Result<(), CallError>> {
        let mut state = self.state.lock();
        match &state.over {
            Some(Some(error)) => return Some(Err(error.clone())),
            Some(None) => return Some(Err(CallError::new(ErrorCode::StreamClosed, "the call is over"))),
            None => {}
        }
        (state.credits > 0).then(|| {
            state.credits -= 1;
            Ok(())
        })
    }

    /// Sleeps until another thread delivers what `need` asks for, at most as long as a careful sleeper does.
    pub(crate) fn sleep(&self, need: Need) {
        let mut state = self.state.lock();
        if !state.meets(need) {
            let _timed_out = self.news.wait_for(&mut state, SLEEP_MAX);
        }
    }

    /// Whether `need` is met.
    pub(crate) fn meets(&self, need: Need) -> bool {
        self.state.lock().meets(need)
    }

    fn register_reader(&self, waker: &Waker) {
        self.state.lock().reader = Some(waker.clone());
    }

    fn register_writer(&self, waker: &Waker) {
        self.state.lock().writer = Some(waker.clone());
    }
}

/// How one end of a stream reaches the other: the caller's end leads the reply ring while it waits, the callee's end is
/// told by its dispatcher.
pub(crate) trait Carrier: Send + Sync + std::fmt::Debug {
    /// Publishes a frame of the stream.
    fn publish(&self, header: Header, message: Message) -> Result<(), CallError>;
    /// Waits until `inbox` meets `need`, or for a while.
    fn wait(&self, inbox: &Inbox, need: Need);
    /// Has the task woken when there is news.
    fn watch(&self, waker: &Waker);
}

/// Reads the items that the other end streams.
#[derive(Debug, Clone)]
pub struct StreamReader {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) invocation: u64,
}

impl StreamReader {
    /// The next item, or `None` after the last. Blocks.
    ///
    /// # Errors
    /// The error that ended the call: `cancelled`, `worker_gone`, or the other side's.
    pub fn recv(&self) -> Result<Option<Message>, CallError> {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.carrier.wait(&self.inbox, Need::Item);
        }
    }

    /// The next item, or `None` after the last.
    ///
    /// # Errors
    /// As [`StreamReader::recv`].
    pub async fn recv_async(&self) -> Result<Option<Message>, CallError> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&self, cx: &mut TaskContext<'_>) -> Poll<Result<Option<Message>, CallError>> {
        if let Some(next) = self.take() {
            return Poll::Ready(next);
        }
        self.inbox.register_reader(cx.waker());
        self.carrier.watch(cx.waker());
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    fn take(&self) -> Option<Result<Option<Message>, CallError>> {
        let next = self.inbox.next()?;
        Some(match next {
            Ok(Some((received, credit))) => {
                if credit > 0 {
                    let header = Header {
                        invocation: self.invocation,
                        kind: Kind::Credit.to_u8(),
                        function: credit,
                        ..Header::default()
                    };
                    // A channel that is gone ends the stream by itself.
                    let _gone = self.carrier.publish(header, Message::empty());
                }
                Ok(Some(received.into_message()))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        })
    }
}

/// Sends items to the other end. [`StreamWriter::finish`] ends this direction at once. Dropping a caller's does the same;
/// dropping a handler's leaves the end to what the handler returns, so that an error is not taken for a regular end.
#[derive(Debug)]
pub struct StreamWriter {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) invocation: u64,
    pub(crate) finished: bool,
    /// It is a handler's: the reply ends the stream in any case.
    pub(crate) is_answered: bool,
}

impl StreamWriter {
    fn header(&self, kind: Kind) -> Header {
        Header { invocation: self.invocation, kind: kind.to_u8(), ..Header::default() }
    }

    /// Sends an item; blocks while the reader is a window behind.
    ///
    /// # Errors
    /// The error that ended the call, or `stream_closed` when it is over.
    pub fn send(&self, message: Message) -> Result<(), CallError> {
        loop {
            if let Some(spent) = self.inbox.spend_credit() {
                spent?;
                return self.carrier.publish(self.header(Kind::StreamData), message);
            }
            self.carrier.wait(&self.inbox, Need::Credit);
        }
    }

    /// Sends an item; waits while the reader is a window behind.
    ///
    /// # Errors
    /// As [`StreamWriter::send`].
    pub async fn send_async(&self, message: Message) -> Result<(), CallError> {
        std::future::poll_fn(|cx| {
            if let Some(spent) = self.inbox.spend_credit() {
                return Poll::Ready(spent);
            }
            self.inbox.register_writer(cx.waker());
            self.carrier.watch(cx.waker());
            self.inbox.spend_credit().map_or(Poll::Pending, Poll::Ready)
        })
        .await?;
        self.carrier.publish(self.header(Kind::StreamData), message)
    }

    /// Says that no more items follow.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if !self.finished {
            self.finished = true;
            // A channel that is gone ends the stream by itself.
            let _gone = self.carrier.publish(self.header(Kind::StreamEnd), Message::empty());
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !self.is_answered {
            self.end();
        }
    }
}
