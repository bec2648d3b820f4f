//! The queue between the two ends of a channel, and the ends. Tied to no runtime, since native workers have none. It must not
//! know how an end is reached.
//!
//! A message is let in if the channel has room for it, in messages and bytes, and if all channels together have. A channel
//! that is being read always has room for one: so each goes on at its reader's pace, however much lies in channels that
//! nobody reads, and whatever the size of a message.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::Forgetter;

/// One message of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Text.
    Text(Utf8Bytes),
    /// Bytes.
    Binary(Bytes),
}

impl Item {
    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.as_str().len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why the other end does not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// Nobody reads any more.
    #[error("the reader of the channel has gone")]
    Reader,
    /// The writer went without saying that it was done.
    #[error("the writer of the channel has gone before it was done: {0}")]
    Writer(String),
    /// The other end never came.
    #[error("nobody took the other end of the channel in time")]
    Expired,
}

/// Bytes that wait in all channels.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
    freed: Notify,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max, freed: Notify::new() }
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes bytes; says no where there are not so many left, unless they are needed anyhow. A count, which orders nothing.
    fn take(&self, bytes: usize, anyhow: bool) -> bool {
        let more = |used: usize| (anyhow || used + bytes <= self.max).then_some(used + bytes);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.freed.notify_waiters();
    }
}

/// What has become of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Nobody has it yet.
    Free,
    /// Somebody has it.
    Taken,
    /// Whoever had it is done.
    Done,
}

#[derive(Debug)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    writer: Side,
    reader: Side,
    /// How the writing ended, once it has.
    end: Option<Result<(), Lost>>,
    expired: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pipe {
    state: Mutex<State>,
    messages_max: usize,
    bytes_max: usize,
    budget: Arc<Budget>,
    /// News for the one reader.
    for_reader: Notify,
    /// News for the one writer.
    for_writer: Notify,
}

impl Pipe {
    pub(super) fn new(messages_max: usize, bytes_max: usize, budget: Arc<Budget>) -> Self {
        let state = State {
            items: VecDeque::new(),
            bytes: 0,
            writer: Side::Free,
            reader: Side::Free,
            end: None,
            expired: false,
        };
        let (for_reader, for_writer) = (Notify::new(), Notify::new());
        Self { state: Mutex::new(state), messages_max, bytes_max, budget, for_reader, for_writer }
    }

    pub(super) fn take_writer(&self) -> bool {
        take(&mut self.state.lock().writer)
    }

    pub(super) fn take_reader(&self) -> bool {
        let taken = take(&mut self.state.lock().reader);
        // A writer that waits for room has some more now.
        self.for_writer.notify_one();
        taken
    }

    /// Whether an end was never taken.
    pub(super) fn is_untaken(&self) -> bool {
        let state = self.state.lock();
        state.writer == Side::Free || state.reader == Side::Free
    }

    /// Whether both ends are done.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.writer == Side::Done && state.reader == Side::Done
    }

    /// Ends it because an end was never taken.
    pub(super) fn expire(&self) {
        let mut state = self.state.lock();
        state.expired = true;
        // Nobody can read this any more.
        if state.reader == Side::Free {
            self.clear(&mut state);
        }
        drop(state);
        self.for_reader.notify_one();
        self.for_writer.notify_one();
    }

    fn clear(&self, state: &mut State) {
        state.items = VecDeque::new();
        self.budget.give_back(std::mem::take(&mut state.bytes));
    }

    /// Puts an item; it stays where it is while there is no room.
    fn put(&self, item: &mut Option<Item>) -> Option<Result<(), Lost>> {
        let mut state = self.state.lock();
        if let Some(lost) = state.reader_lost() {
            return Some(Err(lost));
        }
        let bytes = item.as_ref().map_or(0, Item::len);
        let alone = state.items.is_empty();
        let fits = alone || state.items.len() < self.messages_max && state.bytes + bytes <= self.bytes_max;
        if !fits || !self.budget.take(bytes, alone && state.reader == Side::Taken) {
            return None;
        }
        state.bytes += bytes;
        state.items.extend(item.take());
        drop(state);
        self.for_reader.notify_one();
        Some(Ok(()))
    }

    /// Takes an item, or the end; nothing while neither is there.
    fn get(&self) -> Option<Result<Option<Item>, Lost>> {
        let mut state = self.state.lock();
        if let Some(item) = state.items.pop_front() {
            let bytes = item.len();
            state.bytes -= bytes;
            drop(state);
            self.budget.give_back(bytes);
            self.for_writer.notify_one();
            return Some(Ok(Some(item)));
        }
        match &state.end {
            Some(Ok(())) => Some(Ok(None)),
            Some(Err(lost)) => Some(Err(lost.clone())),
            None if state.expired => Some(Err(Lost::Expired)),
            None => None,
        }
    }
}

fn take(side: &mut Side) -> bool {
    let free = *side == Side::Free;
    if free {
        *side = Side::Taken;
    }
    free
}

impl State {
    fn reader_lost(&self) -> Option<Lost> {
        match self.reader {
            Side::Done => Some(Lost::Reader),
            Side::Free if self.expired => Some(Lost::Expired),
            _ => None,
        }
    }
}

/// The end that is written. Dropped before it is finished, it tells the reader that something is missing.
#[derive(Debug)]
pub struct Writer {
    pipe: Arc<Pipe>,
    forgetter: Forgetter,
    ended: bool,
}

impl Writer {
    pub(super) fn new(pipe: Arc<Pipe>, forgetter: Forgetter) -> Self {
        Self { pipe, forgetter, ended: false }
    }

    /// Writes a message; waits while there is no room. Given up before it is ready, it has written nothing.
    ///
    /// # Errors
    /// Nobody reads any more, or nobody came to.
    pub async fn send(&self, item: Item) -> Result<(), Lost> {
        let mut item = Some(item);
        loop {
            // Registered before the look, so that nothing is missed between look and wait.
            let mut freed = pin!(self.pipe.budget.freed.notified());
            freed.as_mut().enable();
            if let Some(put) = self.pipe.put(&mut item) {
                return put;
            }
            let _woken = future::select(pin!(self.pipe.for_writer.notified()), freed).await;
        }
    }

    /// Ready when writing on is of no use.
    pub async fn lost(&self) -> Lost {
        loop {
            if let Some(lost) = self.pipe.state.lock().reader_lost() {
                return lost;
            }
            self.pipe.for_writer.notified().await;
        }
    }

    /// Says that everything was written.
    pub fn finish(mut self) {
        self.end(Ok(()));
    }

    /// Says that no more will come, and why, though not everything was written.
    pub fn break_off(mut self, why: impl Into<String>) {
        self.end(Err(Lost::Writer(why.into())));
    }

    fn end(&mut self, how: Result<(), Lost>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let mut state = self.pipe.state.lock();
        state.end = Some(how);
        state.writer = Side::Done;
        drop(state);
        self.pipe.for_reader.notify_one();
        self.forgetter.done();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end(Err(Lost::Writer("it was dropped".to_owned())));
    }
}

/// The end that is read. Dropped, it tells the writer that nobody reads any more.
#[derive(Debug)]
pub struct Reader {
    pipe: Arc<Pipe>,
    forgetter: Forgetter,
}

impl Reader {
    pub(super) fn new(pipe: Arc<Pipe>, forgetter: Forgetter) -> Self {
        Self { pipe, forgetter }
    }

    /// The next message, or none after the last. Waits for it; given up before it is ready, it has taken nothing.
    ///
    /// # Errors
    /// The writer did not finish, or nobody came to write.
    pub async fn recv(&self) -> Result<Option<Item>, Lost> {
        loop {
            if let Some(got) = self.pipe.get() {
                return got;
            }
            self.pipe.for_reader.notified().await;
        }
    }

    /// The next message if it is there already.
    pub(super) fn recv_now(&self) -> Option<Item> {
        // The end is left for whoever waits: it is there as often as it is looked for.
        self.pipe.get()?.ok().flatten()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.reader = Side::Done;
        self.pipe.clear(&mut state);
        drop(state);
        self.pipe.for_writer.notify_one();
        self.forgetter.done();
    }
}
