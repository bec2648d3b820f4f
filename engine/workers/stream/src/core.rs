//! Where everything meets: a request becomes a plan, the plan a commit, the commit news for subscribers, triggers and the
//! janitor. Owned by the worker, used by its functions and futures. It must not know how requests look on the wire.
//!
//! What follows a commit is done by the store's thread as part of the commit's end, so that it happens in the order of
//! commits, and also when whoever asked has gone. Nothing of that waits.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_channel::{Receiver, bounded};
use ringway::TraceContext;
use ringway_store::{Store, StoreError};
use ringway_worker_kit::Spawner;
use ringway_worker_kit::alarm::Bell;

use crate::ahead::Groups;
use crate::config::Config;
use crate::delivery::Delivery;
use crate::error::Refusal;
use crate::gate::Gate;
use crate::hub::Hub;
use crate::janitor::{Timer, is_over};
use crate::limits::TRIES_MAX;
use crate::place::Place;
use crate::plan::{self, Act, Outcome, Terms};
use crate::registry::Registry;
use crate::{reader, tables};

/// What happened since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) delivered: AtomicU64,
    pub(crate) attempts_failed: AtomicU64,
    pub(crate) set_aside: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) trimmed: AtomicU64,
    pub(crate) resyncs: AtomicU64,
}

/// Everything that hears of a commit. Held by commits under way: it must not hold the store, whose own thread lets them go.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) hub: Arc<Hub>,
    pub(crate) delivery: Delivery,
    pub(crate) timer: Timer,
}

/// What the functions and futures of the worker share. Whoever waits for a commit holds it weakly meanwhile, so that the
/// store is never let go on its own thread, nor after the worker has ended.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) config: Config,
    pub(crate) bell: Bell,
    pub(crate) spawner: Spawner,
    pub(crate) news: Arc<News>,
    pub(crate) counters: Counters,
    /// Who may subscribe.
    pub(crate) gate: Gate,
    /// Who subscribes and who tails, now.
    pub(crate) registry: Arc<Registry>,
    /// Groups that are new begin after this number, so that none is given twice under one name.
    pub(crate) floor: AtomicU64,
    groups: Groups,
    marks: AtomicU64,
}

enum Attempt {
    Settled(Vec<Outcome>),
    Submitted(Receiver<Result<u64, StoreError>>, Vec<Outcome>),
}

impl Core {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        config: Config,
        bell: Bell,
        spawner: Spawner,
        news: News,
        gate: Gate,
    ) -> Result<Self, Refusal> {
        let (table, key) = tables::FLOOR;
        let floor = store
            .get(table, key)?
            .and_then(|value| value.bytes.first_chunk().map(|at| u64::from_le_bytes(*at)));
        Ok(Self {
            store,
            config,
            bell,
            spawner,
            news: Arc::new(news),
            counters: Counters::default(),
            gate,
            registry: Arc::default(),
            floor: AtomicU64::new(floor.unwrap_or(0)),
            groups: Groups::default(),
            // Other than those of the last start, whose heads may still lie there.
            marks: AtomicU64::new(RandomState::new().hash_one(())),
        })
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.bell.clock().now_ms()
    }

    fn attempt(&self, place: &Place, acts: &[Act], trace: TraceContext) -> Result<Attempt, Refusal> {
        let mut held = self.groups.hold(place, || reader::head(&*self.store.snapshot()?, place))?;
        let ahead = held.ahead();
        let terms = Terms {
            now_ms: self.now_ms(),
            mark: self.marks.fetch_add(1, Ordering::Relaxed),
            floor: self.floor.load(Ordering::Relaxed),
            rules: self.config.rules(&place.stream),
            value_bytes_max: self.config.value_bytes_max,
            backlog_max: self.config.backlog_max,
            trace,
        };
        let plan = plan::plan(acts, place, ahead, &*self.store.snapshot()?, terms)?;
        let Some(batch) = plan.batch else { return Ok(Attempt::Settled(plan.outcomes)) };
        let (number, link) = ahead.next();
        let (tell, told) = bounded(1);
        let (news, of, grown, expires_ms) =
            (Arc::clone(&self.news), place.clone(), plan.told, plan.expires_ms);
        let over = plan.head.is_some_and(|head| is_over(&head, &terms.rules));
        let done = move |outcome: Result<u64, StoreError>| {
            match &outcome {
                Ok(_) => link.end(number),
                Err(_) => link.tear(),
            }
            if outcome.is_ok() && grown {
                news.hub.publish(&of);
                news.delivery.publish(&of);
            }
            if outcome.is_ok() {
                news.timer.note(expires_ms);
            }
            if grown && over {
                news.timer.over(&of);
            }
            // Whoever asked may have gone.
            let _told = tell.try_send(outcome);
        };
        self.store.submit(batch, terms.rules.durability, Box::new(done))?;
        ahead.submitted(plan.head, plan.items);
        Ok(Attempt::Submitted(told, plan.outcomes))
    }
}

/// Does what is asked of a group, all of it or nothing, as a part of `trace`. Ready when it is as durable as the rules of the
/// stream say.
pub(crate) async fn write(
    core: &Weak<Core>,
    place: &Place,
    acts: &[Act],
    trace: TraceContext,
) -> Result<Vec<Outcome>, Refusal> {
    for _ in 0..TRIES_MAX {
        let attempt = core.upgrade().ok_or(Refusal::Leaving)?.attempt(place, acts, trace)?;
        match attempt {
            Attempt::Settled(outcomes) => return Ok(outcomes),
            Attempt::Submitted(told, outcomes) => match told.recv().await {
                Ok(Ok(_)) => return Ok(outcomes),
                // A commit before this one failed: the group is not what the plan was made for.
                Ok(Err(StoreError::Precondition { .. })) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(Refusal::Leaving),
            },
        }
    }
    Err(Refusal::Contended(TRIES_MAX))
}
