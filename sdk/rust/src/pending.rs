//! The caller's table of calls in flight on one channel.
//!
//! An entry is named by index and generation, which travel in the frame and come back in the reply; a stale or made-up
//! number finds nothing. The thread that reads the reply ring completes entries for everybody; a waiting thread or
//! task is woken only if it said that it sleeps.
//!
//! States: `Free → Waiting → Done → Free`, and `Waiting → Abandoned → Free` for a call whose caller gave up, whose
//! entry stays taken until the callee has answered, so that late frames never reach a newer call.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::Waker;
use std::thread::Thread;

use parking_lot::Mutex;
use ringway_ipc::lock::SpinLock;
use ringway_protocol::{CallError, ErrorCode, InvocationId};

use crate::stream::Inbox;
use crate::wire::Received;

const CHUNK: usize = 64;

/// Calls in flight on one channel.
pub(crate) const PENDING_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    Free = 0,
    Waiting = 1,
    Done = 2,
    Abandoned = 3,
}

#[derive(Debug)]
enum Waiter {
    Thread(Thread),
    Task(Waker),
}

/// How a call ended, as the reader of the ring left it.
pub(crate) type Outcome = Result<Received, CallError>;

/// One call in flight.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    state: AtomicU32,
    generation: AtomicU32,
    /// Position of the request in the ring, for the exact answer to "was it started".
    position: AtomicU64,
    has_waiter: AtomicBool,
    has_leases: AtomicBool,
    has_stream: AtomicBool,
    /// A task awaits this call's stream, so the dispatcher reads the ring until the call ends.
    stream_task: AtomicBool,
    waiter: Mutex<Option<Waiter>>,
    leases: Mutex<Vec<u32>>,
    outcome: Mutex<Option<Outcome>>,
    stream: Mutex<Option<std::sync::Arc<Inbox>>>,
}

impl Entry {
    #[inline]
    pub(crate) fn is(&self, state: State) -> bool {
        self.state.load(Ordering::Acquire) == state as u32
    }

    pub(crate) fn set_position(&self, position: u64) {
        self.position.store(position, Ordering::Release);
    }

    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// Remembers the leases that the request carries.
    pub(crate) fn keep_leases(&self, leases: Vec<u32>) {
        if !leases.is_empty() {
            *self.leases.lock() = leases;
            self.has_leases.store(true, Ordering::Release);
        }
    }

    /// The request's leases, once.
    #[inline]
    pub(crate) fn take_leases(&self) -> Option<Vec<u32>> {
        if self.has_leases.load(Ordering::Acquire) { self.take_leases_slowly() } else { None }
    }

    #[cold]
    fn take_leases_slowly(&self) -> Option<Vec<u32>> {
        self.has_leases.store(false, Ordering::Release);
        Some(std::mem::take(&mut *self.leases.lock()))
    }

    pub(crate) fn set_stream(&self, inbox: std::sync::Arc<Inbox>) {
        *self.stream.lock() = Some(inbox);
        self.has_stream.store(true, Ordering::Release);
    }

    pub(crate) fn stream(&self) -> Option<std::sync::Arc<Inbox>> {
        if self.has_stream.load(Ordering::Acquire) { self.stream.lock().clone() } else { None }
    }

    /// Marks the stream as awaited by a task; `true` the first time.
    pub(crate) fn claim_stream_task(&self) -> bool {
        !self.stream_task.swap(true, Ordering::AcqRel)
    }

    /// Ends the wait of a call and wakes whoever sleeps on it. `false`: nobody waits any more.
    pub(crate) fn complete(&self, outcome: Outcome) -> bool {
        let mut place = self.outcome.lock();
        if !self.is(State::Waiting) {
            return false;
        }
        *place = Some(outcome);
        // SeqCst with `register`: either it sees the state, or we see the waiter.
        self.state.store(State::Done as u32, Ordering::SeqCst);
        drop(place);
        self.wake();
        true
    }

    /// Wakes whoever sleeps on this entry, so that it looks again.
    pub(crate) fn wake(&self) {
        if self.has_waiter.load(Ordering::SeqCst) {
            match self.waiter.lock().take() {
                Some(Waiter::Thread(thread)) => thread.unpark(),
                Some(Waiter::Task(waker)) => waker.wake(),
                None => {}
            }
        }
    }

    pub(crate) fn register_thread(&self) {
        *self.waiter.lock() = Some(Waiter::Thread(std::thread::current()));
        self.has_waiter.store(true, Ordering::SeqCst);
    }

    pub(crate) fn register_task(&self, waker: &Waker) {
        *self.waiter.lock() = Some(Waiter::Task(waker.clone()));
        self.has_waiter.store(true, Ordering::SeqCst);
    }

    /// Takes the outcome of a call that is done.
    pub(crate) fn take_outcome(&self) -> Option<Outcome> {
        self.outcome.lock().take()
    }

    /// Gives the call up. `false`: it was done already.
    pub(crate) fn abandon(&self) -> bool {
        let _no_completion_meanwhile = self.outcome.lock();
        let moved = self.state.compare_exchange(
            State::Waiting as u32,
            State::Abandoned as u32,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        moved.is_ok()
    }
}

/// The table of one channel.
#[derive(Debug)]
pub(crate) struct PendingTable {
    chunks: Box<[OnceLock<Box<[Entry; CHUNK]>>]>,
    free: SpinLock<Free>,
    taken: AtomicU32,
}

#[derive(Debug, Default)]
struct Free {
    returned: Vec<u32>,
    fresh: u32,
    closed: bool,
}

impl PendingTable {
    pub(crate) fn new() -> Self {
        Self {
            chunks: (0..PENDING_MAX / CHUNK).map(|_| OnceLock::new()).collect(),
            free: SpinLock::leaning(Free::default()),
            taken: AtomicU32::new(0),
        }
    }

    /// Calls in flight.
    #[inline]
    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes an entry, in state `Waiting`.
    #[inline]
    pub(crate) fn take(&self) -> Result<InvocationId, CallError> {
        let mut free = self.free.lock();
        if free.closed {
            return Err(CallError::new(ErrorCode::WorkerGone, "the channel is closed"));
        }
        let index = match free.returned.pop() {
            Some(index) => index,
            None if (free.fresh as usize) < PENDING_MAX => {
                free.fresh += 1;
                free.fresh - 1
            }
            None => {
                return Err(CallError::new(
                    ErrorCode::Busy,
                    format!("{PENDING_MAX} calls to this worker are in flight already; wait for some to end"),
                ));
            }
        };
        self.taken.store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        drop(free);
        let entry = self.entry(index);
        let generation = entry.generation.load(Ordering::Relaxed);
        entry.state.store(State::Waiting as u32, Ordering::Release);
        Ok(InvocationId::new(index, generation))
    }

    #[inline]
    fn entry(&self, index: u32) -> &Entry {
        let index = index as usize;
        &self.chunks[index / CHUNK].get_or_init(|| Box::new(std::array::from_fn(|_| Entry::default())))
            [index % CHUNK]
    }

    /// The entry of an invocation, if there is one of that generation.
    #[inline]
    pub(crate) fn find(&self, invocation: InvocationId) -> Option<&Entry> {
        let index = invocation.index() as usize;
        let entry = &self.chunks.get(index / CHUNK)?.get()?[index % CHUNK];
        let current = entry.generation.load(Ordering::Relaxed) == invocation.generation();
        (current && !entry.is(State::Free)).then_some(entry)
    }

    /// Gives an entry back, once: several threads may find at the same time that a channel is closed. Returns whether a
    /// task had awaited its stream.
    #[inline]
    pub(crate) fn give_back(&self, invocation: InvocationId) -> bool {
        let entry = self.entry(invocation.index());
        // Generations change under this lock alone, so whoever comes second finds another one.
        let mut free = self.free.lock();
        if entry.generation.load(Ordering::Relaxed) != invocation.generation() || entry.is(State::Free) {
            return false;
        }
        let waiter =
            if entry.has_waiter.load(Ordering::Relaxed) && entry.has_waiter.swap(false, Ordering::Relaxed) {
                entry.waiter.lock().take()
            } else {
                None
            };
        let mut stream = None;
        let mut stream_task = false;
        if entry.has_stream.load(Ordering::Relaxed) && entry.has_stream.swap(false, Ordering::Relaxed) {
            stream = entry.stream.lock().take();
            stream_task = entry.stream_task.swap(false, Ordering::AcqRel);
        }
        entry.generation.store(invocation.generation().wrapping_add(1), Ordering::Relaxed);
        entry.state.store(State::Free as u32, Ordering::Release);
        free.returned.push(invocation.index());
        self.taken.store(self.taken.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        drop(free);
        // Dropped outside the lock: a waker is somebody else's code.
        drop((waiter, stream));
        stream_task
    }

    /// Refuses new calls and returns the ones in flight.
    pub(crate) fn close(&self) -> Vec<InvocationId> {
        let mut free = self.free.lock();
        free.closed = true;
        let open = |index: u32| {
            let entry = self.entry(index);
            let open = entry.is(State::Waiting) || entry.is(State::Abandoned);
            open.then(|| InvocationId::new(index, entry.generation.load(Ordering::Relaxed)))
        };
        (0..free.fresh).filter_map(open).collect()
    }
}

#[cfg(test)]
mod tests;
