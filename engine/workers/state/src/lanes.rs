//! Which event is told to whom next: as plain data, without threads, clock or store. Owned by `delivery`, which holds it
//! behind a lock. It must not know how anybody is told.
//!
//! A lane is what one trigger is to be told of one key. It is ready, with a thread, waiting for a time after a failure, or
//! parked until its trigger is bound; whoever takes it from one of these puts it into another. A trigger has at most half
//! of the threads.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// A target of an event: its place among those of the event, and the label of the trigger.
pub(crate) type Target = (u32, Arc<str>);

/// An event that has just come into the outbox.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub(crate) number: u64,
    pub(crate) key: Arc<[u8]>,
    /// Those that are still to be told.
    pub(crate) targets: Vec<Target>,
    /// How many there were when it was written.
    pub(crate) targets_in_all: u32,
}

/// What one trigger is to be told of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    pub(crate) label: Arc<str>,
    key: Arc<[u8]>,
}

/// A lane that a thread has, with the event that is next in it.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) lane: Arc<Lane>,
    pub(crate) number: u64,
    /// Which target of the event the lane's trigger is.
    pub(crate) target: u32,
    /// How many there are.
    pub(crate) targets_in_all: u32,
    /// Attempts that have failed.
    pub(crate) failures: u32,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The trigger has been told, or is not to be.
    Told,
    /// Nobody can be told: the event stays in the store for a person to look at.
    Unreadable,
    /// The function failed, or could not be reached.
    Failed { retry_at_ms: u64 },
    /// Nobody has bound the trigger, who wants to be told until then.
    Unbound { until_ms: u64 },
}

/// A target that has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) number: u64,
    pub(crate) target: u32,
    pub(crate) targets_in_all: u32,
    /// Whether nobody else is to be told of the event.
    pub(crate) last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ready,
    Taken,
    /// Until this time, or until the trigger is bound anew: that brings back functions that were away.
    Later(u64),
    /// Until the trigger is bound, or this time.
    Parked(u64),
}

#[derive(Debug)]
struct Waiting {
    /// Events by number, with the place of the trigger among their targets.
    events: VecDeque<(u64, u32)>,
    failures: u32,
    place: Place,
    /// The timer that will look at this lane: its time and number.
    timer: Option<(u64, u64)>,
}

/// The lanes of one trigger that are ready, and how many of its lanes a thread has.
#[derive(Debug, Default)]
struct Line {
    ready: VecDeque<Arc<Lane>>,
    taken: usize,
    /// Whether it stands in `Lanes::turns`.
    listed: bool,
}

/// An event that somebody is still to be told of.
#[derive(Debug)]
struct Open {
    targets: Vec<Target>,
    targets_in_all: u32,
    /// Somebody could not be told: it stays in the store.
    kept: bool,
}

/// All lanes.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: HashMap<Arc<Lane>, Waiting>,
    /// By the trigger's label, those with a lane that is ready or taken.
    lines: HashMap<Arc<str>, Line>,
    /// The labels of lines that may have a thread, each once; the first is next.
    turns: VecDeque<Arc<str>>,
    /// Threads that one trigger may have.
    share: usize,
    /// By the trigger's label, lanes that wait for a time or are parked.
    apart: HashMap<Arc<str>, HashSet<Arc<Lane>>>,
    /// Lanes by the time when they are to be looked at; those that have left their place meanwhile included.
    later: BinaryHeap<Reverse<(u64, u64)>>,
    timed: HashMap<u64, Arc<Lane>>,
    timers: u64,
    open: BTreeMap<u64, Open>,
}

impl Lanes {
    /// No lanes; a trigger may have `share` threads.
    pub(crate) fn new(share: usize) -> Self {
        Self { share, ..Self::default() }
    }

    /// Takes an event, newer than all before.
    pub(crate) fn push(&mut self, notice: Notice) {
        let Notice { number, key, targets, targets_in_all } = notice;
        for (target, label) in &targets {
            let lane = Arc::new(Lane { label: Arc::clone(label), key: Arc::clone(&key) });
            match self.lanes.get_mut(&lane) {
                Some(waiting) => waiting.events.push_back((number, *target)),
                None => {
                    let events = VecDeque::from([(number, *target)]);
                    let waiting = Waiting { events, failures: 0, place: Place::Ready, timer: None };
                    self.lanes.insert(Arc::clone(&lane), waiting);
                    self.make_ready(lane);
                }
            }
        }
        if !targets.is_empty() {
            self.open.insert(number, Open { targets, targets_in_all, kept: false });
        }
    }

    /// Whether some lane is ready and may have a thread.
    pub(crate) fn has_more(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Takes the lane whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<Taken> {
        let label = self.turns.pop_front()?;
        let line = self.lines.get_mut(&label)?;
        line.listed = false;
        let lane = line.ready.pop_front()?;
        line.taken += 1;
        self.list(&label);
        let waiting = self.lanes.get_mut(&lane)?;
        waiting.place = Place::Taken;
        let (number, target) = *waiting.events.front()?;
        let failures = waiting.failures;
        let targets_in_all = self.open.get(&number)?.targets_in_all;
        Some(Taken { lane, number, target, targets_in_all, failures })
    }

    /// Makes ready what has waited long enough; gives the time of the next.
    pub(crate) fn wake(&mut self, now_ms: u64) -> Option<u64> {
        while let Some(Reverse((due_ms, timer))) = self.later.peek().copied() {
            if due_ms > now_ms {
                return Some(due_ms);
            }
            self.later.pop();
            let Some(lane) = self.timed.remove(&timer) else { continue };
            let Some(waiting) = self.lanes.get_mut(&lane) else { continue };
            if waiting.timer == Some((due_ms, timer)) {
                waiting.timer = None;
            }
            if waiting.place == Place::Later(due_ms) || waiting.place == Place::Parked(due_ms) {
                self.come_back(&lane);
            }
        }
        None
    }

    /// A trigger with this label was bound: those of its lanes that wait are ready.
    pub(crate) fn bound(&mut self, label: &str) {
        let lanes = self.apart.get(label).into_iter().flatten().cloned().collect::<Vec<_>>();
        lanes.iter().for_each(|lane| self.come_back(lane));
    }

    /// Puts a lane back after an attempt; gives the target that has been told, if one has. `is_bound` is asked about a
    /// trigger that was found unbound: it may have been bound since, and whoever bound it did not find the lane parked.
    pub(crate) fn put_back(
        &mut self,
        taken: &Taken,
        ended: Ended,
        is_bound: impl FnOnce(&str) -> bool,
    ) -> Option<Told> {
        let lane = &taken.lane;
        if let Some(line) = self.lines.get_mut(&lane.label) {
            line.taken -= 1;
        }
        let mut told = None;
        match ended {
            Ended::Told => told = self.advance(lane, false),
            Ended::Unreadable => {
                self.advance(lane, true);
            }
            Ended::Failed { retry_at_ms } => {
                if let Some(waiting) = self.lanes.get_mut(lane) {
                    waiting.failures = waiting.failures.saturating_add(1);
                }
                self.postpone(lane, Place::Later(retry_at_ms));
            }
            Ended::Unbound { .. } if is_bound(&lane.label) => self.come_back(lane),
            Ended::Unbound { until_ms } => self.postpone(lane, Place::Parked(until_ms)),
        }
        self.list(&lane.label);
        told
    }

    /// The label of a trigger that the oldest event waits for.
    pub(crate) fn oldest(&self) -> Option<&str> {
        self.open.values().next().and_then(|open| open.targets.first()).map(|(_, label)| &**label)
    }

    fn make_ready(&mut self, lane: Arc<Lane>) {
        let label = Arc::clone(&lane.label);
        self.lines.entry(Arc::clone(&label)).or_default().ready.push_back(lane);
        self.list(&label);
    }

    /// Gives a line its turn, if it may have a thread and needs one.
    fn list(&mut self, label: &Arc<str>) {
        let Some(line) = self.lines.get_mut(label) else { return };
        if !line.listed && !line.ready.is_empty() && line.taken < self.share {
            line.listed = true;
            self.turns.push_back(Arc::clone(label));
        } else if line.ready.is_empty() && line.taken == 0 {
            self.lines.remove(label);
        }
    }

    /// Makes a lane ready that was apart, or with a thread.
    fn come_back(&mut self, lane: &Arc<Lane>) {
        if let Some(lanes) = self.apart.get_mut(&lane.label) {
            lanes.remove(lane);
            if lanes.is_empty() {
                self.apart.remove(&lane.label);
            }
        }
        if let Some(waiting) = self.lanes.get_mut(lane) {
            waiting.place = Place::Ready;
            self.make_ready(Arc::clone(lane));
        }
    }

    fn postpone(&mut self, lane: &Arc<Lane>, place: Place) {
        let Some(waiting) = self.lanes.get_mut(lane) else { return };
        waiting.place = place;
        self.apart.entry(Arc::clone(&lane.label)).or_default().insert(Arc::clone(lane));
        let (Place::Later(due_ms) | Place::Parked(due_ms)) = place else { return };
        // A lane that is parked again and again has one timer all the while.
        if waiting.timer.is_none_or(|(timer_ms, _)| timer_ms != due_ms) {
            self.timers += 1;
            waiting.timer = Some((due_ms, self.timers));
            self.later.push(Reverse((due_ms, self.timers)));
            self.timed.insert(self.timers, Arc::clone(lane));
        }
    }

    /// Goes on to a lane's next event. Says what is known of the one before.
    fn advance(&mut self, lane: &Arc<Lane>, kept: bool) -> Option<Told> {
        let waiting = self.lanes.get_mut(lane)?;
        let (number, target) = waiting.events.pop_front()?;
        waiting.failures = 0;
        if waiting.events.is_empty() {
            self.lanes.remove(lane);
        } else {
            waiting.place = Place::Ready;
            self.make_ready(Arc::clone(lane));
        }
        let open = self.open.get_mut(&number)?;
        open.kept |= kept;
        open.targets.retain(|(other, _)| *other != target);
        let ended = open.targets.is_empty();
        let told = Told { number, target, targets_in_all: open.targets_in_all, last: ended && !open.kept };
        if ended {
            self.open.remove(&number);
        }
        Some(told)
    }
}

#[cfg(test)]
mod tests;
