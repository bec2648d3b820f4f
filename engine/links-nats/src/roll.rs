//! Who is there and what they offer: one engine's part in the catalog's protocol, as plain data. Used by the thread with the
//! connection, and by the simulation of many engines. Events go in with the time as an argument, effects come out. It must not
//! know NATS, nor a clock.
//!
//! Messages may be lost, and those of different subjects may pass each other; those of one engine on one subject come in
//! order. So every change has a number, and whoever sees a gap, or a beat with a higher number, asks for the state.
//!
//! States are long, and everybody may want everybody's at once: after a start of all hosts, or after the server was away. So a
//! newcomer's greeting is answered with a beat, which is short, and states are asked for, a few at a time: what is on its way to
//! an engine is bounded by what it has asked for, and it asks the later again the longer it waits.
//!
//! - I1: what an engine is told to offer here is what it offered at some number, and every later change in order.
//! - I2: a change costs one message, whatever the number of engines; a beat costs one for each of them, and they beat the
//!   slower the more there are.
//! - I3: no more than [`ASKS_MAX`] engines are asked at a time, and each again only after a pause that doubles.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use ringway_protocol::WorkerId;
use ringway_protocol::control::{CatalogFunction, CatalogWorker, Change, WorkerStatus};

use crate::limits::{
    ANSWER_FOR_EACH, ASK_AGAIN, ASK_DOUBLED_MAX, ASKS_MAX, BEAT_FOR_EACH, BEAT_MIN, BEATS_MISSED_MAX,
    HELD_MAX, REMEMBERED,
};
use crate::message::{Message, cut};

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// All engines, in order with what else they are told.
    All,
    /// All engines, who answer.
    Everybody,
    /// One engine.
    One(WorkerId),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a message.
    Send(To, Vec<u8>),
    /// An engine offers this: all of it with `reset`, else what has changed.
    Offered {
        /// Who.
        engine: WorkerId,
        /// What it is called.
        name: String,
        /// Everything before is gone.
        reset: bool,
        /// The changes.
        changes: Vec<Change>,
    },
    /// Nothing is heard of an engine.
    Silent(WorkerId),
    /// It is heard of again, and offers what it did.
    Back(WorkerId),
    /// It has left.
    Gone(WorkerId),
}

/// See the module.
#[derive(Debug)]
pub struct Roll {
    engine: WorkerId,
    name: String,
    run: u64,
    /// Changes told.
    sequence: u64,
    workers: BTreeMap<WorkerId, CatalogWorker>,
    functions: BTreeMap<(WorkerId, u32), CatalogFunction>,
    others: BTreeMap<WorkerId, Other>,
    /// Who is to be told that this engine is here, and when.
    answers: BTreeMap<WorkerId, Duration>,
    /// Who is to be asked.
    wanted: BTreeSet<WorkerId>,
    /// Who was asked, and when it is to be asked again.
    asked: BTreeMap<WorkerId, Duration>,
    /// Who was asked last: from there on goes the round, so that not all engines ask the same one first.
    asked_last: WorkerId,
    beat_at: Duration,
    /// Whether the others have been greeted: nothing is told before.
    greeted: bool,
    piece_bytes: usize,
}

/// Another engine.
#[derive(Debug)]
struct Other {
    name: String,
    run: u64,
    /// Up to which number it is known what it offers; none: not at all.
    known: Option<u64>,
    heard_at: Duration,
    every: Duration,
    silent: bool,
    /// How many times it was asked and did not answer.
    asks: u32,
    /// Its last beat had a lower number than what is known of it.
    doubted: bool,
    /// Of a state that has not come whole: its number, the next part, what came.
    parts: Option<(u64, u32, Vec<Change>)>,
    /// Changes behind a gap.
    held: BTreeMap<u64, Vec<Change>>,
}

impl Roll {
    /// An engine that has told nothing. `run`: a number that no other run of it has. `piece_bytes`: how long a message may be.
    #[must_use]
    pub fn new(engine: WorkerId, name: &str, run: u64, piece_bytes: usize) -> Self {
        Self {
            engine,
            name: name.to_owned(),
            run,
            sequence: 0,
            workers: BTreeMap::new(),
            functions: BTreeMap::new(),
            others: BTreeMap::new(),
            answers: BTreeMap::new(),
            wanted: BTreeSet::new(),
            asked: BTreeMap::new(),
            asked_last: engine,
            beat_at: Duration::ZERO,
            greeted: false,
            piece_bytes,
        }
    }

    /// How often this engine says that it is there.
    #[must_use]
    pub fn every(&self) -> Duration {
        let others = u32::try_from(self.others.len()).unwrap_or(u32::MAX);
        BEAT_MIN.max(BEAT_FOR_EACH.saturating_mul(others))
    }

    /// Engines whose offers are known and that are not silent.
    #[must_use]
    pub fn heard(&self) -> usize {
        self.others.values().filter(|other| other.known.is_some() && !other.silent).count()
    }

    /// What is known of an engine: up to which of its numbers, and whether it is silent.
    #[must_use]
    pub fn known(&self, engine: WorkerId) -> Option<(u64, bool)> {
        self.others.get(&engine).and_then(|other| other.known.map(|known| (known, other.silent)))
    }

    /// Changes that this engine has told.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What this engine offers has changed.
    pub fn offer(&mut self, reset: bool, changes: Vec<Change>) -> Vec<Effect> {
        if reset {
            self.workers.clear();
            self.functions.clear();
        }
        changes.iter().for_each(|change| self.keep(change));
        if !self.greeted {
            return Vec::new();
        }
        if reset {
            self.sequence += 1;
            return self.state(To::All);
        }
        let mut effects = Vec::new();
        for changes in cut(changes, self.piece_bytes) {
            self.sequence += 1;
            let (engine, run, sequence) = (self.engine, self.run, self.sequence);
            let message = Message::Changes { engine, run, sequence, changes };
            effects.push(Effect::Send(To::All, message.encode()));
        }
        effects
    }

    fn keep(&mut self, change: &Change) {
        match change {
            Change::WorkerAdded { worker } | Change::WorkerChanged { worker } => {
                self.workers.insert(worker.id, worker.clone());
            }
            Change::WorkerDraining { id } => {
                if let Some(worker) = self.workers.get_mut(id) {
                    worker.status = WorkerStatus::Draining;
                }
            }
            Change::WorkerGone { id, .. } => {
                self.workers.remove(id);
                self.functions.retain(|(worker, _), _| worker != id);
            }
            Change::FunctionAdded { function } => {
                self.functions.insert((function.worker, function.index), function.clone());
            }
            Change::FunctionRemoved { worker, index, .. } => {
                self.functions.remove(&(*worker, *index));
            }
            _ => {}
        }
    }

    fn state(&self, to: To) -> Vec<Effect> {
        let workers = self.workers.values().map(|worker| Change::WorkerAdded { worker: worker.clone() });
        let functions = self.functions.values();
        let functions = functions.map(|function| Change::FunctionAdded { function: function.clone() });
        let parts = cut(workers.chain(functions).collect(), self.piece_bytes);
        let count = parts.len();
        let every_ms = millis(self.every());
        let messages = (0..).zip(parts).map(|(part, changes)| Message::State {
            engine: self.engine,
            name: self.name.clone(),
            run: self.run,
            sequence: self.sequence,
            part,
            last: part as usize + 1 == count,
            every_ms,
            changes,
        });
        messages.map(|message| Effect::Send(to, message.encode())).collect()
    }

    fn beat(&mut self, now: Duration) -> Effect {
        self.beat_at = now + self.every();
        self.here(To::All)
    }

    fn here(&self, to: To) -> Effect {
        let message = Message::Here {
            engine: self.engine,
            name: self.name.clone(),
            run: self.run,
            sequence: self.sequence,
            every_ms: millis(self.every()),
        };
        Effect::Send(to, message.encode())
    }

    /// The server can be reached, for the first time or again.
    pub fn connected(&mut self, now: Duration) -> Vec<Effect> {
        if std::mem::replace(&mut self.greeted, true) {
            // Whoever has missed something sees that, and so does this engine as it hears the others.
            return vec![self.beat(now)];
        }
        let hello = Message::Hello { engine: self.engine, name: self.name.clone() };
        let mut effects = self.state(To::All);
        effects.push(Effect::Send(To::Everybody, hello.encode()));
        self.beat_at = now + self.every();
        effects
    }

    /// What to say at an end.
    pub fn leave(&mut self) -> Vec<Effect> {
        self.greeted = false;
        vec![Effect::Send(To::All, Message::Gone { engine: self.engine, run: self.run }.encode())]
    }

    /// When [`Roll::tick`] is due.
    #[must_use]
    pub fn due(&self) -> Duration {
        self.answers.values().chain(self.asked.values()).copied().fold(self.beat_at, Duration::min)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !self.greeted {
            self.beat_at = now + BEAT_MIN;
            return effects;
        }
        effects.extend(self.answer(now));
        let late: Vec<WorkerId> =
            self.asked.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for engine in late {
            self.asked.remove(&engine);
            self.wanted.insert(engine);
        }
        effects.extend(self.ask(now));
        if now >= self.beat_at {
            effects.push(self.beat(now));
            self.count_silent(now, &mut effects);
        }
        effects
    }

    /// While the server cannot be reached nobody is heard; what is due then is to see that.
    pub fn tick_alone(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.beat_at = now + BEAT_MIN;
        self.answers.clear();
        // Whose state is wanted, its next beat shows.
        self.wanted.clear();
        self.asked.clear();
        self.count_silent(now, &mut effects);
        effects
    }

    fn count_silent(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let (wanted, asked) = (&mut self.wanted, &mut self.asked);
        self.others.retain(|engine, other| {
            let silence = now.saturating_sub(other.heard_at);
            if silence > other.every * BEATS_MISSED_MAX {
                // Its next beat shows whether its state is wanted.
                wanted.remove(engine);
                asked.remove(engine);
                if !std::mem::replace(&mut other.silent, true) {
                    effects.push(Effect::Silent(*engine));
                }
            }
            if silence > REMEMBERED {
                effects.push(Effect::Gone(*engine));
            }
            silence <= REMEMBERED
        });
    }

    /// An engine cannot be reached, whatever was heard of it.
    pub fn unreachable(&mut self, engine: WorkerId) -> Vec<Effect> {
        let Some(other) = self.others.get_mut(&engine) else { return Vec::new() };
        if std::mem::replace(&mut other.silent, true) { Vec::new() } else { vec![Effect::Silent(engine)] }
    }

    /// Somebody is there of whom nothing else may be known.
    pub fn met(&mut self, engine: WorkerId, name: &str, now: Duration) -> Vec<Effect> {
        if engine == self.engine || self.others.contains_key(&engine) {
            return Vec::new();
        }
        self.others.insert(engine, Other::new(name, 0, now));
        self.want(engine, now)
    }

    /// A message came.
    pub fn take(&mut self, message: Message, now: Duration) -> Vec<Effect> {
        match message {
            Message::Hello { engine, .. } if engine != self.engine => {
                // Everybody answers, so not all at once; and with a beat, by which the other sees whom to ask.
                let others = u32::try_from(self.others.len()).unwrap_or(u32::MAX);
                let spread = ANSWER_FOR_EACH.saturating_mul(others.saturating_sub(20));
                let share = (self.run ^ engine.get()).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
                let share = u32::try_from(share).unwrap_or(0);
                self.answers.insert(engine, now + spread * share / 0x1_0000);
                self.answer(now)
            }
            Message::Ask { engine, .. } if engine != self.engine => {
                self.answers.remove(&engine);
                self.state(To::One(engine))
            }
            Message::State { engine, name, run, sequence, part, last, every_ms, changes }
                if engine != self.engine =>
            {
                let mut effects = Vec::new();
                let other = self.hear(engine, &name, run, now);
                other.every = clamp(every_ms);
                if other.known.is_some_and(|known| known >= sequence) {
                    // It came by another way first.
                    effects.extend(other.back(engine));
                } else {
                    other.take_state(engine, sequence, part, last, changes, &mut effects);
                }
                if other.known.is_some_and(|known| known >= sequence) {
                    effects.extend(self.no_longer_want(engine, now));
                } else if let Some(at) = self.asked.get_mut(&engine) {
                    // It is on its way.
                    *at = (*at).max(now + ASK_AGAIN);
                }
                effects
            }
            Message::Changes { engine, run, sequence, changes } if engine != self.engine => {
                let name = self.others.get(&engine).map_or(String::new(), |other| other.name.clone());
                let other = self.hear(engine, &name, run, now);
                match other.known.map(|known| known + 1) {
                    Some(next) if sequence < next => Vec::new(),
                    Some(next) if sequence == next => {
                        other.known = Some(sequence);
                        let back = other.back(engine);
                        let offered = Effect::Offered { engine, name, reset: false, changes };
                        back.into_iter().chain([offered]).collect()
                    }
                    _ => {
                        if other.held.len() < HELD_MAX {
                            other.held.insert(sequence, changes);
                        }
                        self.want(engine, now)
                    }
                }
            }
            Message::Here { engine, name, run, sequence, every_ms } if engine != self.engine => {
                let other = self.hear(engine, &name, run, now);
                other.every = clamp(every_ms);
                match other.known {
                    Some(known) if known == sequence => {
                        other.doubted = false;
                        other.back(engine).into_iter().collect()
                    }
                    // A beat may pass a change, or somebody else has told of changes that it did not make.
                    Some(known) if known > sequence && !std::mem::replace(&mut other.doubted, true) => {
                        Vec::new()
                    }
                    Some(known) if known > sequence => {
                        (other.known, other.doubted) = (None, false);
                        self.want(engine, now)
                    }
                    _ => self.want(engine, now),
                }
            }
            Message::Gone { engine, run } => {
                self.answers.remove(&engine);
                let same = self.others.get(&engine).is_some_and(|other| other.run == run || other.run == 0);
                if same && engine != self.engine {
                    self.others.remove(&engine);
                    let mut effects = vec![Effect::Gone(engine)];
                    effects.extend(self.no_longer_want(engine, now));
                    return effects;
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Tells those whose time has come that this engine is here.
    fn answer(&mut self, now: Duration) -> Vec<Effect> {
        if !self.greeted {
            return Vec::new();
        }
        let due = self.answers.iter().filter(|(_, at)| **at <= now);
        let due: Vec<WorkerId> = due.map(|(engine, _)| *engine).collect();
        self.answers.retain(|_, at| *at > now);
        due.into_iter().map(|engine| self.here(To::One(engine))).collect()
    }

    /// Notes that an engine was heard. If it runs anew, what it offered before is no longer known.
    fn hear(&mut self, engine: WorkerId, name: &str, run: u64, now: Duration) -> &mut Other {
        let other = self.others.entry(engine).or_insert_with(|| Other::new(name, run, now));
        other.heard_at = now;
        if !name.is_empty() && other.name != name {
            name.clone_into(&mut other.name);
        }
        if other.run != run {
            other.run = run;
            other.known = None;
            other.asks = 0;
            other.doubted = false;
            other.parts = None;
            other.held.clear();
        }
        other
    }

    /// The state of an engine is not known: it is asked when its turn comes.
    fn want(&mut self, engine: WorkerId, now: Duration) -> Vec<Effect> {
        if self.asked.contains_key(&engine) {
            return Vec::new();
        }
        self.wanted.insert(engine);
        self.ask(now)
    }

    /// The state of an engine has come, or never will.
    fn no_longer_want(&mut self, engine: WorkerId, now: Duration) -> Vec<Effect> {
        self.wanted.remove(&engine);
        self.asked.remove(&engine);
        self.ask(now)
    }

    /// Asks those whose turn it is.
    fn ask(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.asked.len() < ASKS_MAX {
            let behind = (Bound::Excluded(self.asked_last), Bound::Unbounded);
            let next = self.wanted.range(behind).next().or_else(|| self.wanted.first()).copied();
            let Some(engine) = next else { break };
            self.wanted.remove(&engine);
            let Some(other) = self.others.get_mut(&engine) else { continue };
            self.asked_last = engine;
            self.asked.insert(engine, now + ASK_AGAIN * 2u32.pow(other.asks.min(ASK_DOUBLED_MAX)));
            other.asks += 1;
            let message = Message::Ask { engine: self.engine, name: self.name.clone() };
            effects.push(Effect::Send(To::One(engine), message.encode()));
        }
        effects
    }
}

impl Other {
    fn new(name: &str, run: u64, now: Duration) -> Self {
        Self {
            name: name.to_owned(),
            run,
            known: None,
            heard_at: now,
            every: BEAT_MIN,
            silent: false,
            asks: 0,
            doubted: false,
            parts: None,
            held: BTreeMap::new(),
        }
    }

    fn back(&mut self, engine: WorkerId) -> Option<Effect> {
        std::mem::take(&mut self.silent).then_some(Effect::Back(engine))
    }

    fn take_state(
        &mut self,
        engine: WorkerId,
        sequence: u64,
        part: u32,
        last: bool,
        changes: Vec<Change>,
        effects: &mut Vec<Effect>,
    ) {
        let mut all = match self.parts.take() {
            _ if part == 0 => Vec::new(),
            Some((of, next, all)) if of == sequence && next == part => all,
            // A part was lost: the next beat shows that it is not known.
            other => {
                self.parts = other;
                return;
            }
        };
        all.extend(changes);
        if !last {
            self.parts = Some((sequence, part + 1, all));
            return;
        }
        self.known = Some(sequence);
        self.doubted = false;
        self.asks = 0;
        self.silent = false;
        let name = self.name.clone();
        effects.push(Effect::Offered { engine, name, reset: true, changes: all });
        self.held.retain(|number, _| *number > sequence);
        while let Some(known) = self.known
            && let Some(changes) = self.held.remove(&(known + 1))
        {
            self.known = Some(known + 1);
            let name = self.name.clone();
            effects.push(Effect::Offered { engine, name, reset: false, changes });
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What another engine says of its beats, within reason.
fn clamp(every_ms: u64) -> Duration {
    Duration::from_millis(every_ms).clamp(BEAT_MIN, REMEMBERED / BEATS_MISSED_MAX)
}
