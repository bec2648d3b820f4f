//! Channels: what one worker writes and another reads, beside their calls. A channel is made with two ends, each end is taken
//! once, over a WebSocket or by a native worker, and what is written is read in order, each message as it was written. Used by
//! the listener, by the built-in function that makes them and by whoever passes HTTP bodies on. It must not know what is said.
//!
//! - `pipe`: the queue between the two ends, bounded in messages and bytes;
//! - `socket`: an end over a WebSocket;
//! - `lent`: one that belongs to a call, and lasts as long as that;
//! - `functions`: an end, or a new channel, for native workers.
//!
//! A slow reader slows its writer and nobody else: what is queued is bounded for each channel and for all together. A channel
//! is forgotten when both ends are done with it, and five minutes after it was made unless both ends were taken by then.

mod functions;

mod lent;

mod pipe;

mod socket;

use std::collections::{HashMap, VecDeque};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringway::{ChannelPair, ChannelRef, Direction, WorkerId};
use serde::Serialize;
use uuid::Uuid;

pub use functions::functions;
pub(crate) use lent::Lent;
pub use pipe::{Item, Lost, Reader, Writer};
pub(crate) use socket::connect;

use pipe::{Budget, Pipe};

/// How much of everything channels may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelLimits {
    /// Messages that wait in a channel whose maker does not say.
    pub messages: usize,
    /// Messages that may wait in a channel, whatever its maker says.
    pub messages_max: usize,
    /// Bytes that may wait in a channel. A message that is alone may have more.
    pub bytes_max: usize,
    /// Bytes that may wait in all channels together, apart from one message for each channel that is being read.
    pub total_bytes_max: usize,
    /// Bytes of one message: no iii SDK reads more in one frame.
    pub message_bytes_max: usize,
    /// Channels at a time.
    pub channels_max: usize,
    /// Channels at a time that one worker has made.
    pub worker_channels_max: usize,
    /// How long both ends have to be taken.
    pub untaken_max: Duration,
}

impl Default for ChannelLimits {
    fn default() -> Self {
        Self {
            messages: 64,
            messages_max: 1024,
            bytes_max: 8 << 20,
            total_bytes_max: 256 << 20,
            message_bytes_max: 16 << 20,
            channels_max: 65_536,
            worker_channels_max: 16_384,
            untaken_max: Duration::from_secs(300),
        }
    }
}

/// Why no channel was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// There are too many.
    #[error(
        "{found} channels are open, no more are allowed: end some, or wait until those that nobody takes expire"
    )]
    Full {
        /// How many are open.
        found: usize,
    },
    /// The worker has too many.
    #[error(
        "this worker has made {found} channels that are still open, no more are allowed: end some of them"
    )]
    WorkerFull {
        /// How many of its are open.
        found: usize,
    },
}

/// Why an end of a channel cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TakeError {
    /// There is no such channel, or the key is not its key: the two cannot be told apart.
    #[error("Channel not found")]
    NotFound,
    /// Somebody has this end, or had it.
    #[error("this end of the channel was taken before, and each end can be taken once")]
    Taken,
}

/// What channels have done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ChannelCounters {
    /// Open now.
    pub open: usize,
    /// Bytes that wait in all of them now.
    pub bytes_waiting: usize,
    /// Made.
    pub created: u64,
    /// Not made, as there were too many.
    pub refused: u64,
    /// Forgotten because an end was never taken.
    pub expired: u64,
    /// Ends asked for that do not exist, with a wrong key, or taken before.
    pub denied: u64,
}

/// All channels of this engine. Cheap to clone: the clones share them.
#[derive(Debug, Clone)]
pub struct Channels {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: ChannelLimits,
    budget: Arc<Budget>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<String, Entry>,
    /// The ids by the time at which they were made. Those that are no longer open are skipped when their turn comes.
    by_age: VecDeque<(Instant, String)>,
    of_worker: HashMap<WorkerId, usize>,
    counters: ChannelCounters,
}

#[derive(Debug)]
struct Entry {
    key: String,
    pipe: Arc<Pipe>,
    maker: Option<WorkerId>,
}

impl Default for Channels {
    fn default() -> Self {
        Self::new(ChannelLimits::default())
    }
}

impl Channels {
    /// No channels yet.
    #[must_use]
    pub fn new(limits: ChannelLimits) -> Self {
        let budget = Arc::new(Budget::new(limits.total_bytes_max));
        Self { shared: Arc::new(Shared { limits, budget, state: Mutex::default() }) }
    }

    /// Makes a channel in which so many messages may wait, within the limits; as many as usual unless given.
    ///
    /// # Errors
    /// There are too many already, of this maker or of all.
    pub fn create(
        &self,
        maker: Option<WorkerId>,
        messages: Option<usize>,
    ) -> Result<ChannelPair, CreateError> {
        let messages = messages.unwrap_or(self.shared.limits.messages);
        self.make(Uuid::new_v4().to_string(), maker, messages, true)
    }

    /// Makes a channel of an id. One that `expires` is forgotten when its ends are not taken in time; any other is forgotten by
    /// whoever made it.
    fn make(
        &self,
        id: String,
        maker: Option<WorkerId>,
        messages: usize,
        expires: bool,
    ) -> Result<ChannelPair, CreateError> {
        let limits = self.shared.limits;
        let messages = messages.clamp(1, limits.messages_max);
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        let stale = state.take_stale(now, limits.untaken_max);
        let refused = state.room_for(maker, &limits).err();
        if let Some(error) = refused {
            state.counters.refused += 1;
            drop(state);
            expire(&stale);
            return Err(error);
        }
        // Ids have 122 random bits; the key has twice as many.
        let key = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let pipe = Arc::new(Pipe::new(messages, limits.bytes_max, Arc::clone(&self.shared.budget)));
        if let Some(maker) = maker {
            *state.of_worker.entry(maker).or_default() += 1;
        }
        if expires {
            state.by_age.push_back((now, id.clone()));
        }
        state.open.insert(id.clone(), Entry { key: key.clone(), pipe, maker });
        state.counters.created += 1;
        drop(state);
        expire(&stale);
        let end = |direction| ChannelRef { channel_id: id.clone(), access_key: key.clone(), direction };
        Ok(ChannelPair { writer: end(Direction::Write), reader: end(Direction::Read) })
    }

    /// Says whether there is a channel of this id with this key, without taking anything.
    #[must_use]
    pub fn contains(&self, id: &str, key: &str) -> bool {
        let mut state = self.shared.state.lock();
        let found = state.find(id, key).is_some();
        state.counters.denied += u64::from(!found);
        found
    }

    /// Takes the end that is written.
    ///
    /// # Errors
    /// There is no such channel, or its end was taken.
    pub fn take_writer(&self, id: &str, key: &str) -> Result<Writer, TakeError> {
        let pipe = self.take(id, key, Pipe::take_writer)?;
        Ok(Writer::new(pipe, self.forgetter(id)))
    }

    /// Takes the end that is read.
    ///
    /// # Errors
    /// As [`Channels::take_writer`].
    pub fn take_reader(&self, id: &str, key: &str) -> Result<Reader, TakeError> {
        let pipe = self.take(id, key, Pipe::take_reader)?;
        Ok(Reader::new(pipe, self.forgetter(id)))
    }

    fn take(&self, id: &str, key: &str, end: fn(&Pipe) -> bool) -> Result<Arc<Pipe>, TakeError> {
        let mut state = self.shared.state.lock();
        let found = state.find(id, key).ok_or(TakeError::NotFound);
        let taken = found.and_then(|pipe| if end(&pipe) { Ok(pipe) } else { Err(TakeError::Taken) });
        state.counters.denied += u64::from(taken.is_err());
        taken
    }

    /// Forgets a channel. Ends that were taken go on with what is there; those that were not can no longer be.
    fn forget(&self, id: &str) {
        let forgotten = self.shared.state.lock().remove(id);
        // Not under the registry's lock, as in `expire`.
        expire(forgotten.as_slice());
    }

    /// What an end does when it is done: the channel goes with the second.
    fn forgetter(&self, id: &str) -> Forgetter {
        Forgetter { shared: Arc::clone(&self.shared), id: id.to_owned() }
    }

    /// Forgets the channels of which an end was not taken in time; their other ends are told. Making a channel does so too;
    /// this is for a listener that calls it now and then.
    pub fn expire(&self) {
        let stale = self.shared.state.lock().take_stale(Instant::now(), self.shared.limits.untaken_max);
        expire(&stale);
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> ChannelLimits {
        self.shared.limits
    }

    /// What there is, and what was done.
    #[must_use]
    pub fn counters(&self) -> ChannelCounters {
        let state = self.shared.state.lock();
        let (open, bytes_waiting) = (state.open.len(), self.shared.budget.used());
        ChannelCounters { open, bytes_waiting, ..state.counters }
    }
}

/// Tells the ends of channels that are no more. Not under the registry's lock: an end that wakes may take it.
fn expire(stale: &[Arc<Pipe>]) {
    stale.iter().for_each(|pipe| pipe.expire());
}

impl State {
    fn find(&self, id: &str, key: &str) -> Option<Arc<Pipe>> {
        let entry = self.open.get(id)?;
        is_same(&entry.key, key).then(|| Arc::clone(&entry.pipe))
    }

    fn room_for(&self, maker: Option<WorkerId>, limits: &ChannelLimits) -> Result<(), CreateError> {
        let found = self.open.len();
        if found >= limits.channels_max {
            return Err(CreateError::Full { found });
        }
        let found = maker.and_then(|maker| self.of_worker.get(&maker)).copied().unwrap_or(0);
        if found >= limits.worker_channels_max {
            return Err(CreateError::WorkerFull { found });
        }
        Ok(())
    }

    /// Takes out what was made too long ago and is not in use at both ends. Constant for each channel ever made.
    fn take_stale(&mut self, now: Instant, untaken_max: Duration) -> Vec<Arc<Pipe>> {
        let mut stale = Vec::new();
        while self.by_age.front().is_some_and(|(made, _)| now.duration_since(*made) >= untaken_max) {
            let Some((_, id)) = self.by_age.pop_front() else { break };
            if self.open.get(&id).is_some_and(|entry| entry.pipe.is_untaken()) {
                stale.extend(self.remove(&id));
                self.counters.expired += 1;
            }
        }
        stale
    }

    fn remove(&mut self, id: &str) -> Option<Arc<Pipe>> {
        let entry = self.open.remove(id)?;
        if let Some(maker) = entry.maker
            && let Some(count) = self.of_worker.get_mut(&maker)
        {
            *count -= 1;
            if *count == 0 {
                self.of_worker.remove(&maker);
            }
        }
        Some(entry.pipe)
    }
}

/// Has a channel forgotten once both its ends are done.
#[derive(Debug)]
pub(super) struct Forgetter {
    shared: Arc<Shared>,
    id: String,
}

impl Forgetter {
    fn done(&self) {
        let mut state = self.shared.state.lock();
        if state.open.get(&self.id).is_some_and(|entry| entry.pipe.is_over()) {
            drop(state.remove(&self.id));
            // Most channels are short: what stands at the front is nearly always one of those that are gone.
            while state.by_age.front().is_some_and(|(_, id)| !state.open.contains_key(id)) {
                state.by_age.pop_front();
            }
        }
    }
}

/// Compares in a time that says nothing about where the texts differ.
pub(crate) fn is_same(ours: &str, theirs: &str) -> bool {
    let differ = |sum: u8, (a, b): (u8, u8)| black_box(sum | (a ^ b));
    ours.len() == theirs.len() && ours.bytes().zip(theirs.bytes()).fold(0, differ) == 0
}

#[cfg(test)]
mod tests;
