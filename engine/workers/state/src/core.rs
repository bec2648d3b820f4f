//! Where everything meets: a request becomes a plan, the plan a commit, the commit news for watchers, functions and the
//! timer. Owned by the worker, used by its functions and threads. It must not know how requests look on the wire.
//!
//! What follows a commit is done by the store's thread as part of the commit's end, so that it happens in the order of
//! commits, and also when whoever asked has gone. Nothing of that waits.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ringway::{TraceContext, Worker};
use ringway_store::{Batch, Commit, Durability, Scan, Store, StoreError};
use ringway_worker_kit::{Bindings, Clock};

use crate::change::{Change, Event};
use crate::config::Config;
use crate::delivery::Delivery;
use crate::error::WriteError;
use crate::expiry::Timer;
use crate::lanes::{self, Notice};
use crate::limits::TRIES_MAX;
use crate::pending::{Link, Pending};
use crate::plan::{self, Done, Limits, Operation};
use crate::tables;
use crate::trigger::{Filter, Index};
use crate::watch::Hub;

/// What happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) delivered: AtomicU64,
    pub(crate) attempts_failed: AtomicU64,
    pub(crate) set_aside: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    pub(crate) expired: AtomicU64,
}

/// Everything that hears of a commit. Held by commits under way: it must not hold the store, whose own thread lets them go.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) watch: Arc<Hub>,
    pub(crate) delivery: Delivery,
    pub(crate) timer: Timer,
    /// Events in the outbox, those of commits under way included.
    pub(crate) outbox: AtomicUsize,
    /// Targets that were told, which the store did not take.
    pub(crate) unsettled: Mutex<Vec<lanes::Told>>,
    pending: Pending,
}

/// What the functions and threads of the worker share. Whoever waits for a commit holds it weakly meanwhile, so that the
/// store is never let go on its own thread, nor after the worker has ended.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) news: Arc<News>,
    pub(crate) triggers: ArcSwap<Index>,
    /// Held while `triggers` is replaced.
    rebinding: Mutex<()>,
    pub(crate) counters: Counters,
    /// The number of the next event.
    next: AtomicU64,
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The commit that did it, or the last one before if nothing had to be done.
    pub(crate) revision: u64,
    /// One for each operation.
    pub(crate) done: Vec<Done>,
}

enum Attempt {
    Settled(Answer),
    Submitted(Commit, Vec<Done>),
}

impl Core {
    pub(crate) fn new(store: Arc<dyn Store>, config: Config, clock: Clock) -> Result<Self, StoreError> {
        let revision = store.snapshot()?.revision();
        let watch = Arc::new(Hub::new(revision, config.watch_entries_max, config.watch_bytes_max));
        let delivery = Delivery::new(config.delivery_threads);
        let mut next = 0;
        for table in [tables::OUTBOX, tables::UNDELIVERED] {
            let last = store.scan(&Scan::table(table).reverse().limit(1))?;
            let number = last.first().and_then(|entry| entry.key.first_chunk::<8>());
            next = next.max(number.map_or(0, |number| u64::from_be_bytes(*number) + 1));
        }
        Ok(Self {
            store,
            config,
            clock,
            news: Arc::new(News {
                watch,
                delivery,
                timer: Timer::default(),
                outbox: AtomicUsize::new(0),
                unsettled: Mutex::default(),
                pending: Pending::default(),
            }),
            triggers: ArcSwap::default(),
            rebinding: Mutex::default(),
            counters: Counters::default(),
            next: AtomicU64::new(next),
        })
    }

    /// Takes the triggers that are live now, and has those that were bound told of what waits for them.
    pub(crate) fn rebound(&self, bindings: &Bindings<Filter>) {
        let _in_order = self.rebinding.lock();
        let index = Arc::new(Index::of(&bindings.all()));
        let before = self.triggers.swap(Arc::clone(&index));
        self.news.delivery.bound(index.labels_beside(&before));
    }

    fn attempt(
        &self,
        worker: &Worker,
        operations: &[Operation],
        durability: Durability,
        trace: TraceContext,
    ) -> Result<Attempt, WriteError> {
        let now_ms = self.clock.now_ms();
        let limits = self.limits(now_ms);
        let mut held = self.news.pending.hold(operations.iter().map(|operation| &*operation.key));
        let snapshot = self.store.snapshot()?;
        let plan = plan::plan(operations, &*snapshot, &mut held, limits)?;
        let Some(batch) = plan.batch else {
            return Ok(Attempt::Settled(Answer { revision: snapshot.revision(), done: plan.done }));
        };
        let (batch, notices) = self.post(worker, batch, &plan.changes, (now_ms, trace))?;
        let mut links = Vec::with_capacity(plan.written.len());
        let mut expires_ms = None;
        for written in plan.written {
            let expiry = written.record.as_ref().and_then(crate::record::Record::expires_at_ms);
            expires_ms = expires_ms.into_iter().chain(expiry).min();
            // One that expects a revision beside commits under way is not what others should build on.
            if written.chained || held.head(&written.key).is_none() {
                links.push(held.put(&written.key, written.record));
            }
        }
        let after = After { news: Arc::clone(&self.news), links, changes: plan.changes, notices, expires_ms };
        let commit =
            self.store.start_then(batch, durability, Box::new(move |outcome| after.tell(outcome)))?;
        Ok(Attempt::Submitted(commit, plan.done))
    }

    fn limits(&self, now_ms: u64) -> Limits {
        Limits { now_ms, value_bytes_max: self.config.value_bytes_max }
    }

    /// Adds an event to the batch for each change that a trigger watches for.
    fn post(
        &self,
        worker: &Worker,
        mut batch: Batch,
        changes: &[Change],
        (created_ms, trace): (u64, TraceContext),
    ) -> Result<(Batch, Vec<Notice>), WriteError> {
        let mut notices = Vec::new();
        if !self.config.triggers_enabled {
            return Ok((batch, notices));
        }
        let triggers = self.triggers.load();
        for change in changes {
            let targets = triggers.targets(worker, change);
            if targets.is_empty() {
                continue;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let event = Event { created_ms, trace, targets, change: change.clone() };
            batch = batch.put(tables::OUTBOX, &number.to_be_bytes(), event.encode());
            let targets_in_all = u32::try_from(event.targets.len()).unwrap_or(u32::MAX);
            let (key, targets) = (Arc::clone(&change.key), (0..).zip(event.targets).collect());
            notices.push(Notice { number, key, targets, targets_in_all });
        }
        let waiting = self.news.outbox.fetch_add(notices.len(), Ordering::Relaxed);
        let max = self.config.outbox_entries_max;
        if !notices.is_empty() && waiting + notices.len() > max {
            self.news.outbox.fetch_sub(notices.len(), Ordering::Relaxed);
            let (oldest, retention_ms) = (self.news.delivery.oldest(), self.config.retention_ms);
            return Err(WriteError::OutboxFull { waiting, max, oldest, retention_ms });
        }
        Ok((batch, notices))
    }
}

/// Does what is asked, all of it or nothing. Ready when it is as durable as `durability` says. What functions are told of it
/// belongs to `trace`.
pub(crate) async fn write(
    core: &Weak<Core>,
    worker: &Worker,
    operations: &[Operation],
    durability: Durability,
    trace: TraceContext,
) -> Result<Answer, WriteError> {
    {
        // Looked at without a shard, and once, however often it is tried.
        let core = core.upgrade().ok_or(WriteError::Leaving)?;
        plan::check_values(operations, core.limits(core.clock.now_ms()))?;
    }
    for _ in 0..TRIES_MAX {
        let attempt =
            core.upgrade().ok_or(WriteError::Leaving)?.attempt(worker, operations, durability, trace)?;
        match attempt {
            Attempt::Settled(answer) => return Ok(answer),
            Attempt::Submitted(commit, done) => match commit.await {
                Ok(revision) => return Ok(Answer { revision, done }),
                // Another commit came between: the keys are not what the plan was made for.
                Err(StoreError::Precondition { .. }) => {}
                Err(error) => return Err(error.into()),
            },
        }
    }
    Err(WriteError::Contended(TRIES_MAX))
}

/// What follows a commit. Dropped untold if the store did not take the batch.
struct After {
    news: Arc<News>,
    links: Vec<Link>,
    changes: Vec<Change>,
    notices: Vec<Notice>,
    expires_ms: Option<u64>,
}

impl After {
    fn tell(mut self, outcome: &Result<u64, StoreError>) {
        if let Ok(revision) = outcome {
            let news = Arc::clone(&self.news);
            news.pending.end(std::mem::take(&mut self.links), false);
            news.watch.publish(*revision, std::mem::take(&mut self.changes));
            news.delivery.add(std::mem::take(&mut self.notices));
            news.timer.note(self.expires_ms);
        }
    }
}

impl Drop for After {
    /// Takes back what was said about a commit that did not happen.
    fn drop(&mut self) {
        self.news.pending.end(std::mem::take(&mut self.links), true);
        self.news.outbox.fetch_sub(self.notices.len(), Ordering::Relaxed);
    }
}
