//! One queue in memory: an entry for each message, the lanes that they stand in, and which lane has the next turn. A
//! lane is a message group of a fifo queue, or the share of a key of a standard one; most standard queues have one lane.
//! Used by the machine; it must not know what is written to disk.
//!
//! Invariants:
//! - I1: a message is on lease (`Running`) at most once; only [`Queue::start`] makes it so, from `Waiting`.
//! - I2: in a fifo queue a lane holds all of its messages until their end is on disk, and only its first may start.
//! - I3: `eligible` holds the rank of exactly those lanes whose first message may start now.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::config::{QueueSettings, QueueType};
use crate::record::Mode;

/// Stands for "whatever is bound to the queue" among the numbers of functions.
pub(super) const BOUND: u32 = u32::MAX;

/// Never.
pub(super) const NEVER: u64 = u64::MAX;

/// A turn of a lane of weight 1.
const TURN: f64 = 1_048_576.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// May start when it is its lane's turn.
    Waiting,
    /// Not before `due_ms`.
    Delayed,
    /// Not before its function is there.
    Parked,
    /// An attempt is under way.
    Running,
    /// Its end is being written.
    Ending,
}

/// What is kept in memory of a message that is to be delivered.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    pub(super) priority: u8,
    /// Its data has a record of its own.
    pub(super) long: bool,
    /// It counts among its lane's calls under way.
    pub(super) holds_lane: bool,
    pub(super) attempts: u32,
    pub(super) function: u32,
    pub(super) lane: u32,
    pub(super) due_ms: u64,
    pub(super) expires_ms: u64,
    pub(super) receipt: Option<Box<str>>,
}

/// The order of turns: priority from high to low, turns taken, age.
type Rank = (u8, u64, u64, u32);

#[derive(Debug, Default)]
struct Lane {
    key: Arc<str>,
    /// By priority from high to low, then by age; in a fifo queue by age.
    messages: BTreeSet<(u8, u64)>,
    /// Messages that stand in it, those under way included.
    members: usize,
    running: usize,
    turns: u64,
    next_at_us: u64,
    rank: Option<Rank>,
}

/// One queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: Arc<str>,
    pub(super) settings: QueueSettings,
    pub(super) mode: Mode,
    /// What is bound to it: of each binding, the functions that it needs.
    pub(super) bindings: Vec<Vec<u32>>,
    /// Messages with lower numbers were for a subscription that has ended.
    pub(super) ended_below: u64,
    pub(super) entries: HashMap<u64, Entry>,
    /// Messages whose arrival is being written.
    pub(super) arriving: usize,
    pub(super) running: usize,
    pub(super) dead: usize,
    /// When the machine was told to look at it again.
    pub(super) alarm_ms: u64,
    lanes: Vec<Lane>,
    free_lanes: Vec<u32>,
    lane_of: HashMap<Arc<str>, u32>,
    eligible: BTreeSet<Rank>,
    delayed: BTreeSet<(u64, u64)>,
    expiring: BTreeSet<(u64, u64)>,
    paced: BTreeSet<(u64, u32)>,
    parked: HashMap<u32, BTreeSet<u64>>,
    turns: u64,
    next_at_us: u64,
}

impl Queue {
    pub(super) fn new(name: Arc<str>, settings: QueueSettings) -> Self {
        Self {
            name,
            settings,
            mode: Mode::Active,
            bindings: Vec::new(),
            ended_below: 0,
            entries: HashMap::new(),
            arriving: 0,
            running: 0,
            dead: 0,
            alarm_ms: NEVER,
            lanes: Vec::new(),
            free_lanes: Vec::new(),
            lane_of: HashMap::new(),
            eligible: BTreeSet::new(),
            delayed: BTreeSet::new(),
            expiring: BTreeSet::new(),
            paced: BTreeSet::new(),
            parked: HashMap::new(),
            turns: 0,
            next_at_us: 0,
        }
    }

    pub(super) fn is_fifo(&self) -> bool {
        self.settings.kind == QueueType::Fifo
    }

    /// The lane of a key, made if there is none.
    pub(super) fn lane(&mut self, key: &str) -> u32 {
        if let Some(lane) = self.lane_of.get(key) {
            return *lane;
        }
        let key: Arc<str> = key.into();
        let lane = Lane { key: Arc::clone(&key), turns: self.turns, ..Lane::default() };
        let id = match self.free_lanes.pop() {
            Some(id) => {
                self.lanes[id as usize] = lane;
                id
            }
            None => {
                self.lanes.push(lane);
                u32::try_from(self.lanes.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.lane_of.insert(key, id);
        id
    }

    /// Takes a message in. Its state follows from its time.
    pub(super) fn insert(&mut self, seq: u64, mut entry: Entry, now_ms: u64) {
        let lane = entry.lane;
        entry.state = State::Waiting;
        if entry.expires_ms != NEVER {
            self.expiring.insert((entry.expires_ms, seq));
        }
        self.lanes[lane as usize].members += 1;
        if self.is_fifo() {
            self.lanes[lane as usize].messages.insert((0, seq));
        }
        self.entries.insert(seq, entry);
        self.make_wait(seq, now_ms);
        self.refresh(lane, now_ms);
    }

    /// Lets a message wait for its time or for its turn.
    fn make_wait(&mut self, seq: u64, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        if entry.due_ms > now_ms {
            entry.state = State::Delayed;
            self.delayed.insert((entry.due_ms, seq));
            return;
        }
        entry.state = State::Waiting;
        let (lane, key) = (entry.lane, (9 - entry.priority.min(9), seq));
        if !self.is_fifo() {
            let lane = &mut self.lanes[lane as usize];
            if lane.messages.is_empty() && lane.running == 0 {
                lane.turns = lane.turns.max(self.turns);
            }
            lane.messages.insert(key);
        }
    }

    /// Takes a message that is not under way out of everything that could start it.
    fn take_back(&mut self, seq: u64) {
        let fifo = self.is_fifo();
        let Some(entry) = self.entries.get(&seq) else { return };
        match entry.state {
            State::Delayed => {
                self.delayed.remove(&(entry.due_ms, seq));
            }
            State::Parked => {
                if let Some(parked) = self.parked.get_mut(&entry.function) {
                    parked.remove(&seq);
                }
            }
            State::Waiting if !fifo => {
                let key = (9 - entry.priority.min(9), seq);
                self.lanes[entry.lane as usize].messages.remove(&key);
            }
            State::Waiting | State::Running | State::Ending => {}
        }
    }

    /// Works out anew whether a lane may have a turn.
    fn refresh(&mut self, id: u32, now_ms: u64) {
        let fifo = self.is_fifo();
        let limit = match &self.settings.fairness {
            _ if fifo => 1,
            Some(fairness) if fairness.concurrency > 0 => fairness.concurrency,
            _ => usize::MAX,
        };
        let now_us = now_ms.saturating_mul(1000);
        let lane = &mut self.lanes[id as usize];
        if let Some(rank) = lane.rank.take() {
            self.eligible.remove(&rank);
        }
        if lane.next_at_us > now_us {
            self.paced.insert((lane.next_at_us, id));
            return;
        }
        if lane.members == 0 {
            self.lane_of.remove(&lane.key);
            *lane = Lane::default();
            self.free_lanes.push(id);
            return;
        }
        let Some(&(_, seq)) = lane.messages.first() else { return };
        let Some(entry) = self.entries.get(&seq) else { return };
        if entry.state != State::Waiting || lane.running >= limit {
            return;
        }
        let rank = (9 - entry.priority.min(9), lane.turns, seq, id);
        lane.rank = Some(rank);
        self.eligible.insert(rank);
    }

    /// Does what the time asks for; returns the messages that have waited too long.
    pub(super) fn tick(&mut self, now_ms: u64) -> Vec<u64> {
        while let Some(&(due, seq)) = self.delayed.first() {
            if due > now_ms {
                break;
            }
            self.delayed.pop_first();
            self.make_wait(seq, now_ms);
            if let Some(lane) = self.entries.get(&seq).map(|entry| entry.lane) {
                self.refresh(lane, now_ms);
            }
        }
        while let Some(&(at_us, lane)) = self.paced.first() {
            if at_us > now_ms.saturating_mul(1000) {
                break;
            }
            self.paced.pop_first();
            // A lane that was given back meanwhile has nothing to be refreshed.
            if self.lane_of.get(&self.lanes[lane as usize].key) == Some(&lane) {
                self.refresh(lane, now_ms);
            }
        }
        let mut expired = Vec::new();
        while let Some(&(at, seq)) = self.expiring.first() {
            if at > now_ms {
                break;
            }
            self.expiring.pop_first();
            // What is under way is not cut short: if it fails it is not tried again.
            let waits = self
                .entries
                .get(&seq)
                .is_some_and(|entry| matches!(entry.state, State::Waiting | State::Delayed | State::Parked));
            if waits {
                expired.push(seq);
            }
        }
        expired
    }

    /// Puts the next message on lease, if there is one whose turn it is. `absent` says which functions are not there.
    pub(super) fn start(&mut self, now_ms: u64, absent: impl Fn(u32) -> bool) -> Option<u64> {
        let now_us = now_ms.saturating_mul(1000);
        if self.mode == Mode::Paused || self.running >= self.settings.concurrency {
            return None;
        }
        if self.next_at_us > now_us {
            return None;
        }
        loop {
            let &(_, _, seq, lane) = self.eligible.first()?;
            let fifo = self.is_fifo();
            let entry = self.entries.get_mut(&seq)?;
            let function = entry.function;
            let is_missing = |needed: &Vec<u32>| needed.iter().any(|function| absent(*function));
            let missing =
                if function == BOUND { self.bindings.iter().all(is_missing) } else { absent(function) };
            if missing {
                self.take_back(seq);
                if let Some(entry) = self.entries.get_mut(&seq) {
                    entry.state = State::Parked;
                }
                self.parked.entry(function).or_default().insert(seq);
                self.refresh(lane, now_ms);
                continue;
            }
            entry.state = State::Running;
            entry.holds_lane = true;
            let key = (9 - entry.priority.min(9), seq);
            self.running += 1;
            self.next_at_us =
                self.next_at_us.max(now_us).saturating_add(interval_us(self.settings.rate_per_second));
            let (weight, rate) = self.share(lane);
            let lane_at = &mut self.lanes[lane as usize];
            if !fifo {
                lane_at.messages.remove(&key);
            }
            lane_at.running += 1;
            self.turns = self.turns.max(lane_at.turns);
            lane_at.turns = lane_at.turns.saturating_add(turn_of(weight));
            lane_at.next_at_us = lane_at.next_at_us.max(now_us).saturating_add(interval_us(rate));
            self.refresh(lane, now_ms);
            return Some(seq);
        }
    }

    /// Weight and rate of a lane.
    fn share(&self, lane: u32) -> (f64, f64) {
        let Some(fairness) = &self.settings.fairness else { return (1.0, 0.0) };
        let weight = fairness.weights.get(&*self.lanes[lane as usize].key);
        (weight.copied().unwrap_or(1.0), fairness.rate_per_second)
    }

    /// Lets a message whose attempt is over wait for the next one.
    pub(super) fn release(&mut self, seq: u64, due_ms: u64, now_ms: u64) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        entry.due_ms = due_ms;
        entry.holds_lane = false;
        let lane = entry.lane;
        if entry.expires_ms != NEVER {
            // Its alarm may have gone off while it was under way.
            self.expiring.insert((entry.expires_ms, seq));
        }
        self.running -= 1;
        self.lanes[lane as usize].running -= 1;
        self.make_wait(seq, now_ms);
        self.refresh(lane, now_ms);
    }

    /// Notes that a message's end is being written: it starts no more.
    pub(super) fn end(&mut self, seq: u64, now_ms: u64) {
        self.take_back(seq);
        let fifo = self.is_fifo();
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        let was_running = entry.state == State::Running;
        entry.state = State::Ending;
        let lane = entry.lane;
        if was_running {
            self.running -= 1;
            // In a fifo queue the next may not start before this end is on disk.
            if !fifo {
                entry.holds_lane = false;
                self.lanes[lane as usize].running -= 1;
            }
        }
        self.refresh(lane, now_ms);
    }

    /// Forgets a message whose end is on disk.
    pub(super) fn remove(&mut self, seq: u64, now_ms: u64) {
        let Some(entry) = self.entries.remove(&seq) else { return };
        if entry.expires_ms != NEVER {
            self.expiring.remove(&(entry.expires_ms, seq));
        }
        let lane = &mut self.lanes[entry.lane as usize];
        lane.members -= 1;
        if entry.holds_lane {
            lane.running -= 1;
        }
        lane.messages.remove(&(0, seq));
        self.refresh(entry.lane, now_ms);
    }

    /// Lets those wait that were parked for a function.
    pub(super) fn unpark(&mut self, function: u32, now_ms: u64) {
        for seq in self.parked.remove(&function).unwrap_or_default() {
            let Some(entry) = self.entries.get_mut(&seq) else { continue };
            let lane = entry.lane;
            entry.state = State::Waiting;
            self.make_wait(seq, now_ms);
            self.refresh(lane, now_ms);
        }
    }

    /// Works out every lane anew, after other settings.
    pub(super) fn refresh_all(&mut self, now_ms: u64) {
        let lanes: Vec<u32> = self.lane_of.values().copied().collect();
        for lane in lanes {
            self.refresh(lane, now_ms);
        }
    }

    /// When there is something to do that no event will tell of.
    pub(super) fn next_alarm(&self, now_ms: u64) -> u64 {
        let first = |set: &BTreeSet<(u64, u64)>| set.first().map_or(NEVER, |(at, _)| *at);
        let paced = self.paced.first().map_or(NEVER, |(at_us, _)| at_us.div_ceil(1000));
        let may_start = self.mode != Mode::Paused && self.running < self.settings.concurrency;
        let held_up = may_start && !self.eligible.is_empty() && self.next_at_us > now_ms.saturating_mul(1000);
        let rate = if held_up { self.next_at_us.div_ceil(1000) } else { NEVER };
        first(&self.delayed).min(first(&self.expiring)).min(paced).min(rate)
    }

    /// Messages in a state.
    pub(super) fn count(&self, state: State) -> usize {
        match state {
            State::Delayed => self.delayed.len(),
            State::Parked => self.parked.values().map(BTreeSet::len).sum(),
            State::Running => self.running,
            State::Waiting | State::Ending => {
                self.entries.len() - self.delayed.len() - self.count(State::Parked) - self.running
            }
        }
    }
}

/// Microseconds between starts; none for no limit.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is from 0 to 1e6")]
fn interval_us(rate_per_second: f64) -> u64 {
    if rate_per_second > 0.0 { (1e6 / rate_per_second) as u64 } else { 0 }
}

/// What a turn costs a lane of a weight.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a weight is from 0.001 to 1000")]
fn turn_of(weight: f64) -> u64 {
    (TURN / weight) as u64
}
