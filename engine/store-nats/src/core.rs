//! What callers, writer and mover share: the batches that wait, everything as of now, the keys that the bucket does not have
//! yet. It must not know the server.
//!
//! Who writes what: callers append to the queue, the writer takes from it and alone changes `now`; `changed` grows with
//! `now`, under one lock, and is taken as a whole by the mover.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use parking_lot::{Condvar, Mutex, RwLock};
use ringway_store::parts::Record;
use ringway_store::store::Done;
use ringway_store::{Batch, Damage, StoreError, limits};
use tokio::sync::{Notify, watch};

use crate::limits::PART_BYTES;
use crate::map::{At, Held};

/// A batch that waits.
pub(crate) struct Job {
    pub(crate) batch: Batch,
    pub(crate) done: Done,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    closing: bool,
    /// Why nothing is taken for now.
    away: Option<StoreError>,
    /// Why nothing is acknowledged any more.
    ended: Option<StoreError>,
}

/// What a look at everything found.
pub(crate) type Verified = Result<Vec<Damage>, StoreError>;

/// How a key differs from what the bucket has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    /// How many messages the bucket may have of it.
    pub(crate) there: usize,
    /// The first message of the log that the bucket lacks for it.
    pub(crate) since: u64,
}

/// Keys that differ from what the bucket has.
pub(crate) type Changed = HashMap<Arc<[u8]>, Behind>;

/// What has changed since the mover looked.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) changed: Changed,
    /// What the mover is at, so that a key that changes meanwhile is known to be there in either form.
    pub(crate) moving: Changed,
    /// The last message of the log that `now` has, and the first of the last record.
    pub(crate) log_seq: u64,
    pub(crate) record_seq: u64,
}

/// Shared by everybody.
pub(crate) struct Core {
    queue: Mutex<Queue>,
    waiting_max: usize,
    work: Notify,
    room: Condvar,
    now: RwLock<At>,
    news: Mutex<News>,
    /// Wakes the mover.
    pub(crate) changed: Notify,
    /// The writer has ended.
    written: AtomicBool,
    /// Who waits for a look at everything.
    asked: Mutex<Option<Vec<Sender<Verified>>>>,
    /// Set when what cannot be finished is not to be waited for.
    hurry: watch::Sender<bool>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn new(waiting_max: usize, at: At, news: News) -> Self {
        Self {
            queue: Mutex::default(),
            waiting_max,
            work: Notify::new(),
            room: Condvar::new(),
            now: RwLock::new(at),
            news: Mutex::new(news),
            changed: Notify::new(),
            written: AtomicBool::new(false),
            asked: Mutex::new(Some(Vec::new())),
            hurry: watch::Sender::new(false),
        }
    }

    fn is_full(&self, queue: &Queue) -> bool {
        queue.jobs.len() >= self.waiting_max || queue.bytes >= limits::WAITING_BYTES_MAX
    }

    /// Puts a job behind the others.
    pub(crate) fn submit(&self, job: Job) -> Result<(), StoreError> {
        let mut queue = self.queue.lock();
        if let Some(error) = queue.ended.as_ref().or(queue.away.as_ref()) {
            return Err(error.clone());
        }
        if queue.closing {
            return Err(StoreError::Closed);
        }
        if self.is_full(&queue) {
            return Err(StoreError::Busy { waiting: queue.jobs.len() });
        }
        queue.bytes += job.batch.bytes();
        queue.jobs.push_back(job);
        drop(queue);
        self.work.notify_one();
        Ok(())
    }

    /// Waits until a submit would not find the queue full.
    pub(crate) fn wait_for_room(&self) {
        let mut queue = self.queue.lock();
        while queue.ended.is_none() && queue.away.is_none() && !queue.closing && self.is_full(&queue) {
            self.room.wait(&mut queue);
        }
    }

    /// Returns when a batch waits; false when the store ends and none does.
    pub(crate) async fn until_work(&self) -> bool {
        loop {
            {
                let queue = self.queue.lock();
                if !queue.jobs.is_empty() {
                    return true;
                }
                if queue.closing || queue.ended.is_some() {
                    return false;
                }
            }
            self.work.notified().await;
        }
    }

    /// Returns when no batch waits.
    pub(crate) async fn until_idle(&self) {
        while !self.queue.lock().jobs.is_empty() {
            self.work.notified().await;
        }
    }

    /// Takes what fits in one message of the log, and at least one.
    pub(crate) fn take(&self) -> Vec<Job> {
        let mut queue = self.queue.lock();
        let mut bytes = 0;
        let mut jobs = Vec::new();
        while let Some(job) = queue.jobs.front() {
            bytes += job.batch.bytes();
            if bytes > PART_BYTES && !jobs.is_empty() {
                break;
            }
            jobs.extend(queue.jobs.pop_front());
        }
        queue.bytes -= jobs.iter().map(|job| job.batch.bytes()).sum::<usize>();
        drop(queue);
        self.room.notify_all();
        jobs
    }

    /// Refuses whatever waits and whatever comes, until `back` is called.
    pub(crate) fn away(&self, reason: String) {
        self.refuse(|queue| {
            let error = StoreError::Unavailable { reason };
            queue.away = Some(error.clone());
            error
        });
    }

    pub(crate) fn back(&self) {
        self.queue.lock().away = None;
    }

    /// From here on nothing is acknowledged. The first reason stays.
    pub(crate) fn end(&self, error: StoreError) {
        tracing::error!(%error, "the store on NATS acknowledges nothing any more");
        self.refuse(|queue| queue.ended.get_or_insert(error).clone());
        self.hurry.send_replace(true);
        self.changed.notify_one();
    }

    fn refuse(&self, why: impl FnOnce(&mut Queue) -> StoreError) {
        let (waiting, error) = {
            let mut queue = self.queue.lock();
            let error = why(&mut queue);
            queue.bytes = 0;
            (std::mem::take(&mut queue.jobs), error)
        };
        self.room.notify_all();
        self.work.notify_one();
        for job in waiting {
            (job.done)(Err(error.clone()));
        }
    }

    pub(crate) fn ended(&self) -> Option<StoreError> {
        self.queue.lock().ended.clone()
    }

    /// Takes no more batches; those that wait are still written.
    pub(crate) fn close(&self) {
        self.queue.lock().closing = true;
        self.room.notify_all();
        self.work.notify_one();
        self.changed.notify_one();
    }

    /// The writer says that it has ended.
    pub(crate) fn all_written(&self) {
        self.written.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    pub(crate) fn is_all_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    /// Returns when the writer has ended. For the mover, which is the one that is woken.
    pub(crate) async fn until_all_written(&self) {
        while !self.is_all_written() {
            self.changed.notified().await;
        }
    }

    /// From now on nothing waits for a server that is away.
    pub(crate) fn hurry(&self) {
        self.hurry.send_replace(true);
    }

    /// Returns when what cannot be finished is not to be waited for.
    pub(crate) async fn until_hurry(&self) {
        // The sender is our own.
        let _is_true = self.hurry.subscribe().wait_for(|hurry| *hurry).await.is_ok();
    }

    /// Everything as of now.
    pub(crate) fn now(&self) -> At {
        self.now.read().clone()
    }

    /// Shows what the log has: everything as of then, the keys that differ from before, and the messages of the record.
    pub(crate) fn show<'a>(
        &self,
        at: At,
        keys: impl Iterator<Item = &'a Arc<[u8]>>,
        record: RangeInclusive<u64>,
    ) {
        let mut news = self.news.lock();
        let mut now = self.now.write();
        for key in keys {
            if news.changed.contains_key(key) {
                continue;
            }
            let before = now.map.get(&**key).map_or(0, Held::parts);
            let there = news.moving.get(key).map_or(before, |moving| before.max(moving.there));
            news.changed.insert(Arc::clone(key), Behind { there, since: *record.start() });
        }
        (news.record_seq, news.log_seq) = (*record.start(), *record.end());
        *now = at;
        drop(now);
        drop(news);
        self.changed.notify_one();
    }

    /// What the bucket is to have: the keys, and everything as of now.
    pub(crate) fn take_news(&self) -> (Changed, At) {
        let mut news = self.news.lock();
        let at = self.now();
        let changed = std::mem::take(&mut news.changed);
        // A key may grow on its way, and then has as many messages as either form.
        let most = |(key, behind): (&Arc<[u8]>, &Behind)| {
            let now = at.map.get(&**key).map_or(0, Held::parts);
            (Arc::clone(key), Behind { there: now.max(behind.there), since: behind.since })
        };
        news.moving = changed.iter().map(most).collect();
        (changed, at)
    }

    /// The bucket has these keys as they were when they were taken.
    pub(crate) fn moved<'a>(&self, keys: impl Iterator<Item = &'a Arc<[u8]>>) {
        let mut news = self.news.lock();
        for key in keys {
            news.moving.remove(key);
        }
    }

    /// What was taken last and not moved waits again; how much of it the bucket has is not known.
    pub(crate) fn put_back(&self) {
        let mut news = self.news.lock();
        for (key, behind) in std::mem::take(&mut news.moving) {
            let there = news.changed.entry(key).or_insert(behind);
            *there = Behind { there: there.there.max(behind.there), since: there.since.min(behind.since) };
        }
    }

    /// The first message of the log that is needed: what the bucket lacks, and what comes.
    pub(crate) fn needed_from(&self) -> u64 {
        let news = self.news.lock();
        let behind = news.changed.values().chain(news.moving.values()).map(|behind| behind.since);
        behind.min().unwrap_or(news.log_seq + 1)
    }

    /// The first message of the last record, which stays in the log in any case: it says the revision.
    pub(crate) fn last_record(&self) -> u64 {
        self.news.lock().record_seq
    }

    /// Has the mover look at everything.
    pub(crate) fn ask(&self, tell: Sender<Verified>) {
        // Without a mover, whoever asks finds that nobody tells.
        if let Some(asked) = &mut *self.asked.lock() {
            asked.push(tell);
        }
        self.changed.notify_one();
    }

    pub(crate) fn asked(&self) -> Vec<Sender<Verified>> {
        self.asked.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// There is no mover any more.
    pub(crate) fn ask_nobody(&self) {
        *self.asked.lock() = None;
    }

    /// Whether the bucket may have an older form of a key.
    pub(crate) fn is_changed(&self, key: &[u8]) -> bool {
        self.news.lock().changed.contains_key(key)
    }

    /// How many keys wait for the mover.
    pub(crate) fn changed_count(&self) -> usize {
        self.news.lock().changed.len()
    }
}

/// Puts batches into one record.
pub(crate) fn record<'a>(first: u64, batches: impl Iterator<Item = &'a Batch>) -> Vec<u8> {
    let mut record = Record::begin();
    batches.for_each(|batch| record.add(batch));
    record.finish(first)
}
