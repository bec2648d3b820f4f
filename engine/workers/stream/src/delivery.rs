//! Tells the functions of `stream` triggers what happened. The log of a group is what they are told from: a trigger is a
//! reader of it, whose place is written down when its function has answered. So an entry is written once, however many
//! triggers there are, and functions hear of every entry at least once and in order, over restarts too. Told by `core` as
//! commits end.
//!
//! A lane is what one trigger is to be told of one group: a future that lives while there is something to tell. A function
//! that fails holds up its own lane only, and a future that waits holds no thread.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use ringway::{CallError, CallOptions, Worker};
use ringway_store::{Batch, Commit, Durability, Scan};
use ringway_worker_kit::{Binding, Bindings, Condition, Delivered, Spawner, deliver_async};

use crate::core::Core;
use crate::error::Refusal;
use crate::place::{Place, Reader};
use crate::reader::{self, Found};
use crate::record::{Cursor, Entry, Known};
use crate::trigger::{self, Filter};
use crate::{tables, wrapper};

/// Entries that a lane reads at once, and their bytes.
const READ_ENTRIES: usize = 64;
const READ_BYTES: usize = 1 << 20;

/// How long a log that cannot be read is left alone, in milliseconds.
const RETRY_MS: u64 = 1000;

/// A live trigger.
#[derive(Debug, Clone)]
struct Target {
    number: u64,
    binding: Arc<Binding<Filter>>,
}

#[derive(Debug, Default)]
struct State {
    /// Every trigger that is or was bound, by number.
    known: HashMap<u64, Known>,
    by_label: HashMap<Arc<str>, u64>,
    live: HashMap<u64, Arc<Target>>,
    by_stream: HashMap<Arc<str>, Vec<Arc<Target>>>,
    everywhere: Vec<Arc<Target>>,
    /// Lanes that live, with whether there are entries that they may not have seen.
    lanes: HashMap<(u64, Place), bool>,
    /// Triggers that are forgotten and of which the store still has something.
    gone: HashSet<u64>,
    next: u64,
}

/// The lanes, and the triggers that they are for.
#[derive(Debug)]
pub(crate) struct Delivery {
    state: Mutex<State>,
    spawner: Spawner,
    /// What lanes need, as soon as the worker is attached.
    means: OnceLock<(Weak<Core>, Worker)>,
}

impl Delivery {
    pub(crate) fn new(spawner: Spawner) -> Self {
        Self { state: Mutex::default(), spawner, means: OnceLock::new() }
    }

    /// Reads the triggers that were bound before the start: until they are bound again nobody binds them.
    pub(crate) fn recover(&self, core: &Core) -> Result<(), Refusal> {
        let now_ms = core.now_ms();
        let mut state = self.state.lock();
        for entry in core.store.scan(&Scan::table(tables::TRIGGERS))? {
            let Some(number) = tables::number(&entry.key) else { continue };
            state.next = state.next.max(number + 1);
            match Known::decode(&entry.value.bytes) {
                Ok(mut known) => {
                    if known.unbound_ms == 0 {
                        known.unbound_ms = now_ms.max(1);
                        save(core, number, &known);
                    }
                    state.by_label.insert(Arc::clone(&known.label), number);
                    state.known.insert(number, known);
                }
                Err(error) => {
                    tracing::error!(number, %error, "what is known of a trigger cannot be read and stays there");
                    core.counters.unreadable.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn attach(&self, core: Weak<Core>, worker: Worker) {
        // It is attached once.
        drop(self.means.set((core, worker)));
    }

    /// Follows the triggers that are bound. One that is new is told of what is committed from now on; one that was bound
    /// before goes on where it was.
    pub(crate) fn follow(&self, core: &Core, bindings: &Bindings<Filter>) {
        let now_ms = core.now_ms();
        let Ok(revision) = core.store.snapshot().map(|snapshot| snapshot.revision()) else { return };
        let mut begun = Vec::new();
        let mut state = self.state.lock();
        let all = bindings.all();
        let mut live = HashMap::new();
        for binding in all.iter() {
            let label = trigger::label(binding);
            let number = state.number(&label);
            let known = state.known.entry(number).or_insert_with(|| Known {
                since: revision,
                unbound_ms: 1,
                stream: binding.config.stream.clone(),
                group: binding.config.group.clone(),
                label,
            });
            if known.unbound_ms > 0 {
                known.unbound_ms = 0;
                // Written before any entry that comes after, so that a crash cannot leave that one alone.
                save(core, number, known);
                begun.push(number);
            }
            live.insert(number, Arc::new(Target { number, binding: Arc::clone(binding) }));
        }
        for (number, known) in &mut state.known {
            if known.unbound_ms == 0 && !live.contains_key(number) {
                known.unbound_ms = now_ms.max(1);
                save(core, *number, known);
            }
        }
        state.index(live);
        drop(state);
        for number in begun {
            self.catch_up(number);
        }
    }

    /// Looks for groups with entries that a trigger has not been told of.
    fn catch_up(&self, number: u64) {
        let Some((core, _)) = self.means.get().cloned() else { return };
        self.spawner.spawn(async move {
            let Some(core) = core.upgrade() else { return };
            let delivery = &core.news.delivery;
            let Some(since) = delivery.state.lock().known.get(&number).map(|known| known.since) else { return };
            let Some(target) = delivery.live(number) else { return };
            let stream = target.binding.config.stream.clone();
            let looked = reader::heads(&core, stream.as_deref(), None, |place, _, revision| {
                if revision > since && target.binding.config.covers(&place) {
                    delivery.begin(&target, &place);
                }
                true
            });
            if let Err(error) = looked {
                tracing::warn!(trigger = target.binding.id, %error, "a trigger is told late of what was before it");
            }
        });
    }

    fn live(&self, number: u64) -> Option<Arc<Target>> {
        self.state.lock().live.get(&number).cloned()
    }

    /// The log of a group has grown. Waits for nobody.
    pub(crate) fn publish(&self, place: &Place) {
        let targets: Vec<Arc<Target>> = {
            let state = self.state.lock();
            let of_stream = state.by_stream.get(&place.stream);
            let covers = |target: &&Arc<Target>| target.binding.config.covers(place);
            of_stream.into_iter().flatten().chain(&state.everywhere).filter(covers).cloned().collect()
        };
        targets.iter().for_each(|target| self.begin(target, place));
    }

    fn begin(&self, target: &Target, place: &Place) {
        let Some((core, worker)) = self.means.get() else { return };
        let lane = (target.number, place.clone());
        match self.state.lock().lanes.entry(lane.clone()) {
            std::collections::hash_map::Entry::Occupied(mut lane) => {
                *lane.get_mut() = true;
                return;
            }
            std::collections::hash_map::Entry::Vacant(lane) => lane.insert(false),
        };
        let lane = Lane { core: Weak::clone(core), worker: worker.clone(), number: lane.0, place: lane.1 };
        self.spawner.spawn(lane.run());
    }

    /// Ends a lane, unless there is news for it.
    fn end(&self, number: u64, place: &Place, anyway: bool) -> bool {
        let mut state = self.state.lock();
        let lane = (number, place.clone());
        match state.lanes.get_mut(&lane) {
            Some(news) if *news && !anyway => {
                *news = false;
                false
            }
            _ => {
                state.lanes.remove(&lane);
                true
            }
        }
    }

    /// The triggers that are or were bound and watch a group, with the revision after which they are told.
    pub(crate) fn watching(&self, place: &Place) -> Vec<(u64, u64)> {
        let state = self.state.lock();
        let watching = |(_, known): &(&u64, &Known)| {
            trigger::covers(known.stream.as_deref(), known.group.as_deref(), place)
        };
        state.known.iter().filter(watching).map(|(number, known)| (*number, known.since)).collect()
    }

    /// Forgets triggers that nobody has bound for too long; gives the numbers of all of which the store has something.
    pub(crate) fn forget_old(&self, core: &Core, now_ms: u64) -> HashSet<u64> {
        let before_ms = now_ms.saturating_sub(core.config.trigger_retention_ms);
        let mut state = self.state.lock();
        let old = |known: &Known| known.unbound_ms > 0 && known.unbound_ms < before_ms;
        let gone: Vec<u64> =
            state.known.iter().filter(|(_, known)| old(known)).map(|(number, _)| *number).collect();
        for number in gone {
            let label = state.known.remove(&number).map(|known| known.label);
            // After a crash the label may be that of one that was bound since.
            if let Some(label) = label.filter(|label| state.by_label.get(label) == Some(&number)) {
                state.by_label.remove(&label);
            }
            state.gone.insert(number);
        }
        state.gone.clone()
    }

    /// The store has nothing of these any more.
    pub(crate) fn forgotten(&self, gone: &HashSet<u64>) {
        self.state.lock().gone.retain(|number| !gone.contains(number));
    }

    /// Triggers that are bound, those that are only remembered, lanes that live.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        (state.live.len(), state.known.len() - state.live.len(), state.lanes.len())
    }
}

impl State {
    fn number(&mut self, label: &Arc<str>) -> u64 {
        if let Some(number) = self.by_label.get(label) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        self.by_label.insert(Arc::clone(label), number);
        number
    }

    fn index(&mut self, live: HashMap<u64, Arc<Target>>) {
        self.by_stream.clear();
        self.everywhere.clear();
        for target in live.values() {
            match &target.binding.config.stream {
                Some(stream) => {
                    self.by_stream.entry(Arc::clone(stream)).or_default().push(Arc::clone(target));
                }
                None => self.everywhere.push(Arc::clone(target)),
            }
        }
        self.live = live;
    }
}

/// Writes down what is known of a trigger. Waits for nobody.
fn save(core: &Core, number: u64, known: &Known) {
    let batch = Batch::new().put(tables::TRIGGERS, &number.to_be_bytes(), known.encode());
    if let Err(error) = core.store.start(batch, Durability::Durable) {
        tracing::error!(trigger = %known.label, %error, "a trigger is not remembered over a crash");
    }
}

/// What one trigger is to be told of one group.
struct Lane {
    core: Weak<Core>,
    worker: Worker,
    number: u64,
    place: Place,
}

/// Why a lane ends before its entries do.
enum Over {
    /// The worker is leaving.
    Left,
    /// Nobody binds the trigger any more.
    Unbound,
    /// The store does not give or take something.
    Store(Refusal),
}

impl Lane {
    async fn run(self) {
        let mut written = None;
        loop {
            let ended = self.tell_all(&mut written).await;
            if let Some(written) = written.take() {
                // Whoever reads next where this was is to find it. One that failed is told of by the store.
                drop(written.await);
            }
            let Some(core) = self.core.upgrade() else { return };
            let anyway = matches!(ended, Err(Over::Unbound));
            if let Err(Over::Store(error)) = ended {
                tracing::warn!(stream = %self.place.stream, group = %self.place.group, %error, "triggers are told later");
                let bell = core.bell.clone();
                drop(core);
                let again_ms = bell.clock().now_ms().saturating_add(RETRY_MS);
                bell.at(again_ms).await;
                continue;
            }
            if matches!(ended, Err(Over::Left)) {
                return;
            }
            if core.news.delivery.end(self.number, &self.place, anyway) {
                // Bound again between its last look and its end: whoever did so found the lane still there.
                if anyway && let Some(target) = core.news.delivery.live(self.number) {
                    core.news.delivery.begin(&target, &self.place);
                }
                return;
            }
        }
    }

    fn core(&self) -> Result<Arc<Core>, Over> {
        self.core.upgrade().ok_or(Over::Left)
    }

    /// The number of the last entry that the trigger has been told of, or is not to be.
    fn position(&self) -> Result<u64, Over> {
        let core = self.core()?;
        let read = || -> Result<u64, Refusal> {
            let snapshot = core.store.snapshot()?;
            if let Some(cursor) = reader::cursor(&*snapshot, &self.place, &Reader::Trigger(self.number))? {
                return Ok(cursor.done);
            }
            let Some(head) = reader::head(&*snapshot, &self.place)? else { return Ok(0) };
            let watching = core.news.delivery.watching(&self.place);
            let since =
                watching.iter().find(|(number, _)| *number == self.number).map_or(0, |(_, since)| *since);
            Ok(reader::first_entry(&*snapshot, &self.place, &head, |found| found.revision > since)?
                .saturating_sub(1))
        };
        read().map_err(Over::Store)
    }

    /// Tells everything that is there. What is written last, and may be under way still, is left to the caller.
    async fn tell_all(&self, commit: &mut Option<Commit>) -> Result<(), Over> {
        let mut done = self.position()?;
        let mut written = done;
        loop {
            let entries = {
                let core = self.core()?;
                let snapshot = core.store.snapshot().map_err(|error| Over::Store(error.into()))?;
                reader::entries(&*snapshot, &self.place, done + 1, READ_ENTRIES, READ_BYTES)
                    .map_err(Over::Store)?
            };
            let read = entries.len();
            for found in entries {
                let sequence = found.sequence;
                if self.tell(found).await? {
                    *commit = Some(self.note(sequence)?);
                    written = sequence;
                }
                done = sequence;
            }
            if read == 0 {
                // Entries that it does not want are not looked at again after a restart, nor kept for it.
                if done > written {
                    *commit = Some(self.note(done)?);
                }
                return Ok(());
            }
        }
    }

    fn note(&self, done: u64) -> Result<Commit, Over> {
        let core = self.core()?;
        let key = self.place.reader(&Reader::Trigger(self.number));
        let key = key.map_err(|error| Over::Store(Refusal::Name(error)))?;
        let cursor = Cursor { done, time_ms: core.now_ms() };
        // Should this be lost in a crash, the function is told once more.
        let batch = Batch::new().put(tables::CURSORS, &key, cursor.encode());
        core.store.start(batch, Durability::Ephemeral).map_err(|error| Over::Store(error.into()))
    }

    /// Tells one entry, again and again if need be. Whether there was anything to tell.
    async fn tell(&self, found: Found) -> Result<bool, Over> {
        let sequence = found.sequence;
        let entry = match found.entry {
            Ok(entry) => entry,
            Err(error) => {
                tracing::error!(group = %self.place.group, sequence, %error, "an entry cannot be read; later ones are told");
                self.core()?.counters.unreadable.fetch_add(1, Ordering::Relaxed);
                return Ok(false);
            }
        };
        let Ok(payload) = wrapper::told(&self.place, sequence, &entry) else { return Ok(false) };
        let mut failures = 0_u32;
        loop {
            let Some(target) = self.core()?.news.delivery.live(self.number) else {
                return Err(Over::Unbound);
            };
            let binding = &target.binding;
            if !binding.config.wants(entry.item.as_deref()) || !self.fits(binding, &payload) {
                return Ok(false);
            }
            let timeout = Duration::from_millis(self.core()?.config.delivery_timeout_ms);
            let options = CallOptions::new().timeout(timeout).parent(entry.trace);
            let ended = deliver_async(&self.worker, binding, &payload, options).await;
            let core = self.core()?;
            let error = match ended {
                // Its place is written down with that of the next that is wanted, or at the end.
                Ok(Delivered::Skipped) => return Ok(false),
                Ok(Delivered::Answered(_)) => {
                    core.counters.delivered.fetch_add(1, Ordering::Relaxed);
                    return Ok(true);
                }
                Err(error) => error,
            };
            core.counters.attempts_failed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(trigger = binding.id, %error, "a function of a stream trigger will be called again");
            let now_ms = core.now_ms();
            if entry.time_ms.saturating_add(core.config.trigger_retention_ms) <= now_ms {
                set_aside(&core, self, sequence, &entry, &error).map_err(Over::Store)?;
                return Ok(true);
            }
            let factor = 1_u64.checked_shl(failures.min(40)).unwrap_or(u64::MAX);
            let pause_ms = core.config.retry_ms.saturating_mul(factor).min(core.config.retry_ms_max);
            failures = failures.saturating_add(1);
            let bell = core.bell.clone();
            drop(core);
            bell.at(now_ms.saturating_add(pause_ms)).await;
        }
    }

    /// Whether the expression of a condition, if it has one, holds. One that cannot be worked out is reported and does not.
    fn fits(&self, binding: &Binding<Filter>, payload: &serde_json::Value) -> bool {
        if !matches!(binding.condition, Condition::Expression(_)) {
            return true;
        }
        binding.condition.holds(&self.worker, payload).unwrap_or_else(|error| {
            tracing::warn!(trigger = binding.id, %error, "the condition does not fit this entry");
            false
        })
    }
}

/// Keeps an entry that was not taken in time where a person finds it.
fn set_aside(
    core: &Core,
    lane: &Lane,
    sequence: u64,
    entry: &Entry,
    error: &CallError,
) -> Result<(), Refusal> {
    let key = [&*lane.place.entry(sequence), &lane.number.to_be_bytes()].concat();
    let batch = Batch::new().put(tables::UNDELIVERED, &key, entry.encode());
    drop(core.store.start(batch, Durability::Durable)?);
    let (stream, group) = (&lane.place.stream, &lane.place.group);
    tracing::warn!(%stream, %group, sequence, %error, "an entry was not taken in time and is set aside");
    core.counters.set_aside.fetch_add(1, Ordering::Relaxed);
    Ok(())
}
