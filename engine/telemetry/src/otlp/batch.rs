//! A bounded queue in front of a thread that sends what it holds in batches.
//!
//! One runs for spans and one for logs, so that trouble with one signal does not hold up the other. Pushing never
//! waits for the network: a full queue drops and counts. An empty queue costs nothing: the thread sleeps until the
//! first item arrives. This file must not know what the items are; [`Signal`] does.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::config::{BatchConfig, SignalConfig};
use super::transport::{Attempt, Transport};

const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How items of one kind become a request body, and how to read the answer.
pub(super) trait Signal: Send + 'static {
    /// What is queued.
    type Item: Send + 'static;
    /// What the thread and the diagnostics call it.
    const NAME: &'static str;

    /// Encodes a batch as a protobuf request.
    fn encode(&self, items: &[Self::Item]) -> Vec<u8>;

    /// Reads how many items the collector rejected, and why, from the answer to a delivered batch.
    fn rejected(&self, answer: &[u8]) -> Option<(u64, String)>;
}

/// What became of the items of one signal so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct SignalCounters {
    /// Items that the collector took.
    pub exported: u64,
    /// Items dropped because the queue was full or closed.
    pub dropped: u64,
    /// Items given up after an answer that allows no retry, or after the last one.
    pub failed: u64,
    /// Items that the collector said it rejected within a batch that it took.
    pub rejected: u64,
    /// Attempts that were made again.
    pub retries: u64,
}

#[derive(Debug, Default)]
struct Counters {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    retries: AtomicU64,
}

#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<T>,
    /// When the oldest item arrived in a queue that was empty.
    since: Option<Instant>,
    flushing: bool,
    /// Items taken out and not yet settled.
    in_hand: usize,
    /// Set at shutdown: nothing more is taken in, and all work ends by then.
    stop_by: Option<Instant>,
    finished: bool,
}

#[derive(Debug)]
struct Shared<T> {
    queue: Mutex<Queue<T>>,
    /// Wakes the thread: an item came, a batch is full, a flush or the shutdown was asked for.
    work: Condvar,
    /// Wakes those who wait for a flush.
    settled: Condvar,
    counters: Counters,
    limits: BatchConfig,
}

/// The sending side of a signal's export thread.
#[derive(Debug)]
pub(super) struct Batcher<T> {
    shared: Arc<Shared<T>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<T: Send + 'static> Batcher<T> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The certificate file is unusable, or the system refuses a thread.
    pub(super) fn start<S: Signal<Item = T>>(signal: S, config: &SignalConfig) -> io::Result<Self> {
        let queue = Queue {
            items: VecDeque::new(),
            since: None,
            flushing: false,
            in_hand: 0,
            stop_by: None,
            finished: false,
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            work: Condvar::new(),
            settled: Condvar::new(),
            counters: Counters::default(),
            limits: config.batch.clone(),
        });
        let worker = Worker { shared: Arc::clone(&shared), transport: Transport::new(config)?, signal };
        let thread = thread::Builder::new().name(format!("otlp-{}", S::NAME)).spawn(move || worker.run())?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Queues an item, or drops and counts it where there is no room. Never waits for the network.
    pub(super) fn push(&self, item: T) {
        let mut queue = self.shared.queue.lock();
        if queue.stop_by.is_some() || queue.items.len() >= self.shared.limits.queue_items_max {
            self.shared.counters.dropped.fetch_add(1, Relaxed);
            return;
        }
        queue.items.push_back(item);
        let first = queue.items.len() == 1;
        if first {
            queue.since = Some(Instant::now());
        }
        if first || queue.items.len() == self.shared.limits.batch_items_max {
            self.shared.work.notify_one();
        }
    }

    /// Sends what is queued now, and waits until it is settled or the time is up. Says whether it was settled.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut queue = self.shared.queue.lock();
        queue.flushing = true;
        self.shared.work.notify_one();
        while !queue.finished && (queue.in_hand > 0 || !queue.items.is_empty()) {
            if self.shared.settled.wait_until(&mut queue, deadline).timed_out() {
                return queue.in_hand == 0 && queue.items.is_empty();
            }
        }
        true
    }

    /// Takes in nothing more, and lets the thread send what is left until `stop_by` at the latest.
    pub(super) fn stop(&self, stop_by: Instant) {
        self.shared.queue.lock().stop_by.get_or_insert(stop_by);
        self.shared.work.notify_all();
    }

    /// Waits until the thread has ended.
    pub(super) fn join(&self) {
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("an export thread panicked");
        }
    }

    pub(super) fn counters(&self) -> SignalCounters {
        let counters = &self.shared.counters;
        SignalCounters {
            exported: counters.exported.load(Relaxed),
            dropped: counters.dropped.load(Relaxed),
            failed: counters.failed.load(Relaxed),
            rejected: counters.rejected.load(Relaxed),
            retries: counters.retries.load(Relaxed),
        }
    }
}

/// What the thread owns.
struct Worker<S: Signal> {
    shared: Arc<Shared<S::Item>>,
    transport: Transport,
    signal: S,
}

/// Marks the queue as finished even if the thread should panic, so that nobody waits for it.
struct Finish<'a, T>(&'a Shared<T>);

impl<T> Drop for Finish<'_, T> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.finished = true;
        queue.stop_by.get_or_insert_with(Instant::now);
        self.0.settled.notify_all();
    }
}

impl<S: Signal> Worker<S> {
    fn run(self) {
        let _finish = Finish(&self.shared);
        while let Some(batch) = self.next_batch() {
            self.send(&batch);
            let mut queue = self.shared.queue.lock();
            queue.in_hand = 0;
            if queue.items.is_empty() {
                queue.flushing = false;
                self.shared.settled.notify_all();
            }
        }
    }

    /// Waits for a batch that is full, old enough or asked for; `None` once stopped and empty.
    fn next_batch(&self) -> Option<Vec<S::Item>> {
        let limits = &self.shared.limits;
        let mut queue = self.shared.queue.lock();
        loop {
            if queue.items.is_empty() {
                if queue.stop_by.is_some() {
                    return None;
                }
                queue.flushing = false;
                self.shared.settled.notify_all();
                self.shared.work.wait(&mut queue);
                continue;
            }
            let due = queue.since.map(|since| since + limits.schedule_delay);
            let now = Instant::now();
            let full = queue.items.len() >= limits.batch_items_max;
            if full || queue.flushing || queue.stop_by.is_some() || due.is_none_or(|due| due <= now) {
                return Some(self.take(&mut queue));
            }
            if let Some(due) = due {
                self.shared.work.wait_until(&mut queue, due);
            }
        }
    }

    fn take(&self, queue: &mut Queue<S::Item>) -> Vec<S::Item> {
        let count = queue.items.len().min(self.shared.limits.batch_items_max);
        let batch: Vec<_> = queue.items.drain(..count).collect();
        queue.in_hand = batch.len();
        queue.since = (!queue.items.is_empty()).then(Instant::now);
        batch
    }

    /// Sends a batch until it is taken, refused for good, or its time is up.
    fn send(&self, batch: &[S::Item]) {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let counters = &self.shared.counters;
        let body = self.transport.pack(self.signal.encode(batch));
        let batch_by = Instant::now() + self.shared.limits.export_timeout;
        let mut backoff = BACKOFF_FIRST;
        loop {
            let left = self.time_left(batch_by);
            if left.is_zero() {
                counters.failed.fetch_add(count, Relaxed);
                tracing::warn!(signal = S::NAME, items = count, "export ended: its time was up");
                return;
            }
            match self.transport.attempt(&body, left) {
                Attempt::Delivered(answer) => return self.delivered(count, &answer),
                Attempt::Refused(reason) => {
                    counters.failed.fetch_add(count, Relaxed);
                    tracing::warn!(signal = S::NAME, items = count, reason, "export refused");
                    return;
                }
                Attempt::TryAgain { reason, after } => {
                    let pause = after.unwrap_or_else(|| jittered(backoff));
                    if pause >= self.time_left(batch_by) {
                        counters.failed.fetch_add(count, Relaxed);
                        tracing::warn!(signal = S::NAME, items = count, reason, "export given up");
                        return;
                    }
                    tracing::debug!(signal = S::NAME, reason, ?pause, "export is tried again");
                    counters.retries.fetch_add(1, Relaxed);
                    self.pause(pause, batch_by);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    fn delivered(&self, count: u64, answer: &[u8]) {
        let counters = &self.shared.counters;
        let mut taken = count;
        if let Some((rejected, reason)) = self.signal.rejected(answer) {
            taken = count.saturating_sub(rejected);
            counters.rejected.fetch_add(rejected.min(count), Relaxed);
            tracing::warn!(signal = S::NAME, rejected, reason, "the collector took a batch in part");
        }
        counters.exported.fetch_add(taken, Relaxed);
    }

    fn time_left(&self, batch_by: Instant) -> Duration {
        let stop_by = self.shared.queue.lock().stop_by;
        let end = stop_by.map_or(batch_by, |stop_by| stop_by.min(batch_by));
        end.saturating_duration_since(Instant::now())
    }

    /// Sleeps between attempts; a shutdown that leaves less time cuts it short.
    fn pause(&self, pause: Duration, batch_by: Instant) {
        let until = Instant::now() + pause;
        let mut queue = self.shared.queue.lock();
        loop {
            let end = queue.stop_by.map_or(batch_by, |stop_by| stop_by.min(batch_by));
            if self.shared.work.wait_until(&mut queue, until.min(end)).timed_out() {
                return;
            }
        }
    }
}

/// Spreads retries over half to once and a half of `pause`, so that engines do not come back in step.
fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let percent = RandomState::new().build_hasher().finish() % 100;
    pause / 2 + pause * u32::try_from(percent).unwrap_or(0) / 100
}
