//! Two threads and what they share. The committer takes everything that waits, writes it to the log as one record, syncs
//! once, shows it, and tells everybody. The mover takes a full memory to the index meanwhile. Owned by `embedded`.
//!
//! Who writes what: `current` is written by the committer (revision, a new memory) and by the mover (the index), each
//! under its lock; readers copy it. A commit is shown only after it is on disk, so that nobody reads what a crash may
//! take back; `Ephemeral` ones excepted, which say so.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Release};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::batch::{Batch, Change, Durability};
use crate::embedded::{FORMAT, Options};
use crate::error::{StoreError, is_full};
use crate::index::Facts;
use crate::limits;
use crate::log::{self, Log};
use crate::memory::{Memory, Version};
use crate::metrics::Counters;
use crate::pair::Pair;
use crate::store::{Done, Value};
use crate::view::{At, View};

/// How often a full disk is looked at again. It costs one system call.
const FULL_RETRY: Duration = Duration::from_millis(200);

/// Room that stays free beside what a move to the index is expected to take.
const SPARE_BYTES: u64 = 4 << 20;

/// A batch that waits.
pub(crate) struct Job {
    batch: Batch,
    encoded: Vec<u8>,
    durability: Durability,
    done: Done,
}

impl Job {
    /// Encodes on the caller's thread, so that the committer only copies.
    pub(crate) fn new(batch: Batch, durability: Durability, done: Done) -> Self {
        let mut encoded = Vec::with_capacity(batch.bytes);
        log::encode(&batch.changes, &mut encoded);
        Self { batch, encoded, durability, done }
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    closing: bool,
    /// Why nothing is acknowledged any more.
    failed: Option<StoreError>,
}

#[derive(Default)]
struct Moving {
    frozen: Option<(Arc<Memory>, u64)>,
    /// Why the index cannot take it now.
    full: Option<String>,
    stop: bool,
    /// Leave everything as it is, as if the process had been killed.
    abandoned: bool,
}

/// What the threads and the callers share.
pub(crate) struct Core {
    pub(crate) folder: PathBuf,
    pub(crate) options: Options,
    pub(crate) counters: Arc<Counters>,
    pub(crate) current: RwLock<At>,
    pub(crate) released: Arc<AtomicU64>,
    queue: Mutex<Queue>,
    work: Condvar,
    room: Condvar,
    moving: Mutex<Moving>,
    to_move: Condvar,
    moved: Condvar,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Core").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn new(
        folder: PathBuf,
        options: Options,
        counters: Arc<Counters>,
        at: At,
        released: Arc<AtomicU64>,
    ) -> Self {
        Self {
            folder,
            options,
            counters,
            current: RwLock::new(at),
            released,
            queue: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            moving: Mutex::default(),
            to_move: Condvar::new(),
            moved: Condvar::new(),
        }
    }

    /// Puts a job behind the others.
    pub(crate) fn submit(&self, job: Job) -> Result<(), StoreError> {
        let mut queue = self.queue.lock();
        if let Some(failed) = &queue.failed {
            return Err(failed.clone());
        }
        if queue.closing {
            return Err(StoreError::Closed);
        }
        if queue.jobs.len() >= self.options.waiting_max || queue.bytes >= limits::WAITING_BYTES_MAX {
            return Err(StoreError::Busy { waiting: queue.jobs.len() });
        }
        queue.bytes += job.encoded.len();
        queue.jobs.push_back(job);
        let first = queue.jobs.len() == 1;
        drop(queue);
        if first {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Waits until a submit would not find the queue full.
    pub(crate) fn wait_for_room(&self) {
        let mut queue = self.queue.lock();
        while queue.failed.is_none()
            && !queue.closing
            && (queue.jobs.len() >= self.options.waiting_max || queue.bytes >= limits::WAITING_BYTES_MAX)
        {
            self.room.wait(&mut queue);
        }
    }

    /// Takes no more commits; the committer ends after those that wait.
    pub(crate) fn close(&self) {
        self.queue.lock().closing = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Lets the mover end, after the rest has moved or at once.
    pub(crate) fn stop_mover(&self, abandoned: bool) {
        let mut moving = self.moving.lock();
        moving.stop = true;
        moving.abandoned = abandoned;
        self.to_move.notify_all();
        self.moved.notify_all();
    }

    pub(crate) fn failure(&self) -> Option<StoreError> {
        self.queue.lock().failed.clone()
    }

    /// From here on nothing is acknowledged.
    fn fail(&self, reason: String) -> StoreError {
        let error = StoreError::Failed { reason };
        let waiting: Vec<Job> = {
            let mut queue = self.queue.lock();
            queue.failed.get_or_insert_with(|| error.clone());
            queue.bytes = 0;
            queue.jobs.drain(..).collect()
        };
        for job in waiting {
            (job.done)(Err(error.clone()));
        }
        self.work.notify_all();
        self.room.notify_all();
        self.moved.notify_all();
        error
    }

    fn full(&self, reason: String) -> StoreError {
        StoreError::DiskFull { folder: self.folder.clone(), reason }
    }

    /// The next group: everything that waits, within limits. `None` when the store ends.
    fn take(&self) -> Option<Vec<Job>> {
        let mut queue = self.queue.lock();
        while queue.jobs.is_empty() {
            if queue.closing || queue.failed.is_some() {
                return None;
            }
            self.work.wait(&mut queue);
        }
        let mut bytes = 0;
        let fits = queue.jobs.iter().take_while(|job| {
            let fits = bytes < limits::GROUP_BYTES_MAX;
            bytes += job.encoded.len();
            fits
        });
        let count = fits.count();
        let jobs: Vec<Job> = queue.jobs.drain(..count).collect();
        queue.bytes -= jobs.iter().map(|job| job.encoded.len()).sum::<usize>();
        drop(queue);
        self.room.notify_all();
        Some(jobs)
    }

    /// The committer's life.
    pub(crate) fn commit_all(&self, mut log: Log) {
        let mut record = Vec::new();
        // What was found in the log was brought to disk when it was opened.
        let mut synced = self.current.read().revision;
        while let Some(jobs) = self.take() {
            self.commit_group(jobs, &mut log, &mut record, &mut synced);
            self.freeze_if_full(&mut log);
        }
        // The mover takes the rest to the index, where nothing may be that the log can still lose.
        if self.failure().is_none() && !self.moving.lock().abandoned {
            drop(self.sync(&mut log));
        }
    }

    fn sync(&self, log: &mut Log) -> Result<(), StoreError> {
        log.sync().map_err(|error| self.fail(format!("the log cannot be brought to disk: {error}")))
    }

    fn commit_group(&self, jobs: Vec<Job>, log: &mut Log, record: &mut Vec<u8>, synced: &mut u64) {
        let begin = Instant::now();
        let at = self.current.read().clone();
        let mut pending = Pending { at: &at, changed: HashMap::new(), keep: false };
        pending.keep = jobs.iter().any(|job| job.batch.is_conditional());
        let mut revision = at.revision;
        let mut outcomes: Vec<(Done, Result<u64, StoreError>)> = Vec::with_capacity(jobs.len());
        let mut accepted: Vec<(u64, Vec<Change>)> = Vec::with_capacity(jobs.len());
        let mut durable = false;
        log::begin(record);
        for job in jobs {
            match pending.check(&job.batch) {
                Ok(()) => {
                    revision += 1;
                    durable |= job.durability == Durability::Durable;
                    record.extend_from_slice(&job.encoded);
                    pending.add(&job.batch.changes, revision);
                    accepted.push((revision, job.batch.changes));
                    outcomes.push((job.done, Ok(revision)));
                }
                Err(error) => {
                    Counters::add(&self.counters.refused, 1);
                    outcomes.push((job.done, Err(error)));
                }
            }
        }
        let written =
            if accepted.is_empty() { Ok(()) } else { self.write(log, record, &accepted, durable, synced) };
        if let Err(error) = written {
            // What the others were told to be there is not there, so that refusals would not be true either.
            for (done, _) in outcomes {
                done(Err(error.clone()));
            }
            return;
        }
        let count = accepted.len() as u64;
        if count > 0 {
            // Before anybody is told, so that whoever is told finds it counted.
            self.counters.count_latency(begin.elapsed());
        }
        for (revision, changes) in accepted {
            for change in changes {
                at.view.active.insert(change.key, revision, change.value);
            }
        }
        self.current.write().revision = revision;
        Counters::add(&self.counters.commits, count);
        self.counters.largest_group.fetch_max(count, std::sync::atomic::Ordering::Relaxed);
        for (done, outcome) in outcomes {
            done(outcome);
        }
    }

    fn write(
        &self,
        log: &mut Log,
        record: &mut Vec<u8>,
        accepted: &[(u64, Vec<Change>)],
        durable: bool,
        synced: &mut u64,
    ) -> Result<(), StoreError> {
        let (first, last) = (accepted[0].0, accepted[accepted.len() - 1].0);
        self.wait_for_the_mover()?;
        log::finish(record, first, u32::try_from(accepted.len()).unwrap_or(u32::MAX), *synced);
        if let Err(error) = log.make_room(record.len()) {
            if is_full(&error) {
                return Err(self.full(error.to_string()));
            }
            return Err(self.fail(format!("the log cannot be extended: {error}")));
        }
        log.append(record, first, last)
            .map_err(|error| self.fail(format!("the log cannot be written: {error}")))?;
        if durable {
            self.sync(log)?;
            *synced = last;
            Counters::add(&self.counters.syncs, 1);
        }
        Counters::add(&self.counters.groups, 1);
        Counters::add(&self.counters.bytes, record.len() as u64);
        Ok(())
    }

    /// While the disk is full, memory may grow to twice its size. Then the mover looks at the disk again first.
    fn wait_for_the_mover(&self) -> Result<(), StoreError> {
        if self.current.read().view.active.bytes() < 2 * self.options.memory_bytes {
            return Ok(());
        }
        let mut moving = self.moving.lock();
        if moving.frozen.is_some() && moving.full.take().is_some() {
            self.to_move.notify_all();
            while moving.frozen.is_some() && moving.full.is_none() && !moving.stop && self.failure().is_none()
            {
                self.moved.wait(&mut moving);
            }
        }
        moving.full.clone().map_or(Ok(()), |reason| Err(self.full(reason)))
    }

    /// Hands a full memory to the mover and begins another. Waits if the mover still has one.
    ///
    /// The log is synced before: an ephemeral commit that the index has in one of its files, and the log lost with the
    /// power, would leave the two files different for good, and its revision a hole in the log.
    fn freeze_if_full(&self, log: &mut Log) {
        if self.current.read().view.active.bytes() < self.options.memory_bytes || self.sync(log).is_err() {
            return;
        }
        let mut moving = self.moving.lock();
        while moving.frozen.is_some() {
            if moving.full.is_some() || moving.stop {
                return;
            }
            if self.failure().is_some() {
                return;
            }
            self.moved.wait(&mut moving);
        }
        self.freeze(&mut moving);
    }

    /// Hands the memory to the mover, which has none, and begins another.
    fn freeze(&self, moving: &mut Moving) {
        let mut current = self.current.write();
        let frozen = Arc::clone(&current.view.active);
        moving.frozen = Some((Arc::clone(&frozen), current.revision));
        let index = Arc::clone(&current.view.index);
        current.view = Arc::new(View { active: Arc::default(), frozen: Some(frozen), index });
        drop(current);
        self.to_move.notify_all();
    }

    /// Moves all of memory to the index before the threads begin. What there is no room for stays for the mover.
    pub(crate) fn move_now(&self, pair: &Pair) {
        let mut moving = self.moving.lock();
        self.freeze(&mut moving);
        let frozen = moving.frozen.clone();
        drop(moving);
        if let Some((memory, revision)) = frozen {
            self.move_one(pair, &memory, revision);
        }
    }

    /// The mover's life. On the way out it moves what is left.
    pub(crate) fn move_all(&self, pair: &Pair) {
        loop {
            let mut moving = self.moving.lock();
            while moving.frozen.is_none() && !moving.stop {
                self.to_move.wait(&mut moving);
            }
            if moving.abandoned || self.failure().is_some() {
                return;
            }
            let Some((memory, revision)) = moving.frozen.clone() else { break };
            drop(moving);
            if !self.move_one(pair, &memory, revision) {
                let mut moving = self.moving.lock();
                if moving.stop || self.failure().is_some() {
                    return;
                }
                self.to_move.wait_for(&mut moving, FULL_RETRY);
            }
        }
        let at = self.current.read().clone();
        if at.revision > self.released.load(std::sync::atomic::Ordering::Acquire) {
            self.move_one(pair, &at.view.active, at.revision);
        }
    }

    /// Moves a memory to both files of the index. False if there is no room, or the store has failed.
    fn move_one(&self, pair: &Pair, memory: &Arc<Memory>, revision: u64) -> bool {
        if let Err(reason) = self.room_for(pair, memory) {
            let mut moving = self.moving.lock();
            moving.full = Some(reason);
            self.moved.notify_all();
            return false;
        }
        let versions =
            || -> Box<dyn Iterator<Item = Version>> { Box::new(Newest::new(Arc::clone(memory), revision)) };
        let moved = pair.apply(versions, Facts { format: FORMAT, revision });
        let readers = moved.and_then(|()| pair.readers(Arc::clone(&self.counters)));
        let readers = match readers {
            Ok(readers) => readers,
            Err(reason) => {
                self.fail(format!("the index cannot be written: {reason}"));
                return false;
            }
        };
        let mut moving = self.moving.lock();
        let mut current = self.current.write();
        current.view = Arc::new(View {
            active: Arc::clone(&current.view.active),
            frozen: None,
            index: Arc::new(readers),
        });
        drop(current);
        moving.frozen = None;
        moving.full = None;
        self.released.store(revision, Release);
        self.moved.notify_all();
        Counters::add(&self.counters.checkpoints, 1);
        true
    }

    /// Whether the disk has room for a move. redb cannot go on after a write that found none, so it is asked before.
    fn room_for(&self, pair: &Pair, memory: &Memory) -> Result<(), String> {
        let free = self.options.files.free_bytes(&self.folder).map_err(|error| error.to_string())?;
        let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
        let whole: u64 = pair.paths.iter().map(length).sum();
        // At worst each entry lies in a page of its own, of which both files write a copy; and never more than all.
        let pages = (memory.len() as u64 * 2 * 4096).min(whole);
        let needed = pages + 4 * memory.bytes() as u64 + SPARE_BYTES;
        if free < needed {
            return Err(format!(
                "{free} bytes are free, {needed} are needed to move commits from memory to the index"
            ));
        }
        Ok(())
    }
}

/// What the group has changed so far, for the preconditions of the batches behind.
struct Pending<'a> {
    at: &'a At,
    changed: HashMap<Arc<[u8]>, Option<Value>>,
    /// Whether anybody will ask.
    keep: bool,
}

impl Pending<'_> {
    fn add(&mut self, changes: &[Change], revision: u64) {
        if self.keep {
            let now = |change: &Change| change.value.clone().map(|bytes| Value { revision, bytes });
            self.changed.extend(changes.iter().map(|change| (Arc::clone(&change.key), now(change))));
        }
    }

    fn check(&self, batch: &Batch) -> Result<(), StoreError> {
        batch.check(|key| match self.changed.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.at.get(key),
        })
    }
}

/// The newest version of each key of a memory, in order, without holding it all twice.
struct Newest {
    memory: Arc<Memory>,
    revision: u64,
    ready: std::vec::IntoIter<Version>,
    from: Option<Arc<[u8]>>,
    ended: bool,
}

impl Newest {
    fn new(memory: Arc<Memory>, revision: u64) -> Self {
        Self { memory, revision, ready: Vec::new().into_iter(), from: None, ended: false }
    }
}

impl Iterator for Newest {
    type Item = Version;

    fn next(&mut self) -> Option<Version> {
        use std::ops::Bound::{Excluded, Unbounded};
        const CHUNK: usize = 1024;
        if let Some(version) = self.ready.next() {
            return Some(version);
        }
        if self.ended {
            return None;
        }
        let from = self.from.clone();
        let from = from.as_deref().map_or(Unbounded, Excluded);
        let chunk = self.memory.versions(from, Unbounded, false, self.revision, CHUNK);
        self.ended = chunk.len() < CHUNK;
        self.from = chunk.last().map(|(key, _, _)| Arc::clone(key));
        self.ready = chunk.into_iter();
        self.ready.next()
    }
}
