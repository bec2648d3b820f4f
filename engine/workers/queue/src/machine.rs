//! The queue as a state machine. What happens goes in with the time: messages come, attempts end, commits end. What is to
//! be done comes out: changes to commit, attempts to start, attempts to give up. It has no clock, no store and no thread,
//! so that any order of events, and a crash at any point, can be played in a test. Used by the driver; it must not know
//! who asked, how a call is made, or what a commit costs.
//!
//! Every transition is one batch, so that a crash lies before or after it:
//!
//! | transition | batch | a crash before it is on disk leaves |
//! |---|---|---|
//! | comes | message, data, receipt, idempotency key | nothing; the sender was told nothing |
//! | starts | none | a waiting message: a lease is only in memory |
//! | fails, is to be tried again | attempt | a waiting message with one failure less |
//! | fails for good, expires | attempt, reason | a waiting message |
//! | succeeds, is cancelled | message, data, attempts go; the end comes | a waiting message, delivered again |
//! | is redriven | reason and attempts go | a dead message |
//! | a subscription ends | it goes, and which messages were its own is noted | a subscription as it was |
//!
//! While the store takes nothing, nothing is started: see `stall`.

mod attempts;
mod dead;
mod numbers;
mod queue;
mod recover;
mod settings;
mod stall;
mod steps;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ringway_store::BlobId;
use serde_json::value::RawValue;

use crate::blobs;
use crate::config::Config;
use crate::record::{self, Forget, Mode, Numbers, Place, Writes};
use numbers::Reserve;
use queue::{BOUND, Entry, NEVER, Queue, State};
use stall::Stall;

pub(crate) use dead::Dead;
pub(crate) use recover::Tables;

/// A commit under way.
pub(crate) type Ticket = u64;

/// A lease: rises with each attempt, over restarts too, so that whoever keeps the highest that he saw can refuse a late one.
pub(crate) type Token = u64;

/// Records of failed attempts that are kept of one message.
const ATTEMPTS_KEPT: u32 = 20;

/// Queues, those of topics included. Each takes some hundred bytes of memory for as long as the worker runs.
const QUEUES_MAX: usize = 100_000;

/// A message to take.
#[derive(Debug, Clone)]
pub(crate) struct New {
    pub(crate) queue: String,
    /// Everything but the data.
    pub(crate) head: record::Head,
    /// Shared, since each subscriber of a topic takes the same.
    pub(crate) data: Arc<RawValue>,
    /// Its idempotency key, and until when.
    pub(crate) idempotency: Option<(String, u64)>,
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(
        "queue `{queue}` holds {max} messages, which is all it takes: wait until some are done, or raise `max_messages`"
    )]
    Full { queue: String, max: usize },
    #[error(
        "queue `{queue}` is draining and takes no messages: use `queue::resume` to have it take some again"
    )]
    Draining { queue: String },
    #[error(
        "there are {max} queues, which is all there can be, and `{queue}` is not one of them: use one that is there"
    )]
    TooMany { queue: String, max: usize },
    #[error("the store is behind: no more messages are taken until it has noted their numbers; try again")]
    Behind,
}

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) code: String,
    pub(crate) message: String,
    /// The wait that the function asked for, in milliseconds.
    pub(crate) retry_after_ms: Option<u64>,
    /// No further attempt can succeed.
    pub(crate) fatal: bool,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    Failed(Failed),
    /// It certainly did not begin, which counts as no attempt; to be tried again after so many milliseconds.
    NotStarted {
        after_ms: u64,
    },
    /// These functions are not there, or nothing is bound; which counts as no attempt either.
    Absent(Vec<String>),
}

/// An attempt to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) token: Token,
    pub(crate) place: Place,
    /// Counted from 1.
    pub(crate) attempt: u32,
    pub(crate) attempts_max: u32,
    /// 0 for no limit.
    pub(crate) timeout_ms: u64,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Batches, to be committed in this order.
    pub(crate) commits: Vec<(Ticket, Writes)>,
    pub(crate) deliveries: Vec<Delivery>,
    /// Attempts that nobody waits for any more.
    pub(crate) aborts: Vec<Token>,
    /// Functions that are not there; the machine wants to hear when they are.
    pub(crate) missing: Vec<String>,
    /// Messages whose end is on disk.
    pub(crate) ended: Vec<Ended>,
    /// Blobs that a message held and holds no more.
    pub(crate) freed: Vec<BlobId>,
}

/// A message that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) place: Place,
    /// How; `None` for one that is dead, whose reason is on disk.
    pub(crate) done: Option<record::DoneRecord>,
}

/// A message that comes, or comes back: its queue, its number, and the key of its lane.
type Arrival = (usize, u64, Entry, Arc<str>);

/// What a commit is for.
#[derive(Debug)]
enum Pending {
    Arrival(Vec<Arrival>),
    /// Messages of a queue that are no longer to be delivered: done, or all of them dead.
    End {
        queue: usize,
        ended: Vec<(u64, Option<record::DoneRecord>)>,
        freed: Vec<BlobId>,
        writes: Writes,
    },
    Revival(Vec<Arrival>),
    Discard(Vec<(usize, u64)>, Vec<BlobId>),
    /// What holds in memory already and is written until it is on disk; then the messages of a queue end that came before
    /// a number.
    Kept {
        writes: Writes,
        ended: Option<(usize, u64)>,
    },
    Reserve(Numbers),
    Note,
}

/// How a message stands that is to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) running: bool,
    /// Attempts that have failed.
    pub(crate) attempts: u32,
    /// Not to be delivered before.
    pub(crate) due_ms: u64,
}

/// Counts of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) waiting: usize,
    pub(crate) delayed: usize,
    /// Whose function is not there.
    pub(crate) parked: usize,
    pub(crate) running: usize,
    pub(crate) dead: usize,
}

/// All queues.
#[derive(Debug)]
pub(crate) struct Machine {
    config: Config,
    numbers: Reserve,
    next_ticket: Ticket,
    queues: Vec<Queue>,
    names: HashMap<Arc<str>, usize>,
    functions: Vec<Arc<str>>,
    function_numbers: HashMap<Arc<str>, u32>,
    absent: HashSet<u32>,
    /// When functions are looked for again that could not be looked for.
    looks: BTreeSet<(u64, u32)>,
    leases: HashMap<Token, (usize, u64)>,
    pending: HashMap<Ticket, Pending>,
    /// The newest commit of each record that is kept in memory too.
    kept: HashMap<(&'static str, Vec<u8>), Ticket>,
    stall: Stall,
    /// Dead messages with which something is being done.
    handled: HashSet<(usize, u64)>,
    /// What messages hold that are to be delivered.
    blobs: HashMap<(usize, u64), BlobId>,
    /// Messages that have not ended and have results of steps.
    stepped: HashSet<(usize, u64)>,
    /// What was set by function.
    records: HashMap<String, record::SettingsRecord>,
    alarms: BTreeSet<(u64, usize)>,
    dice: fastrand::Rng,
    output: Output,
}

impl Machine {
    /// A machine without messages. `first` are numbers that were never given out; on disk is that a block of them will be.
    pub(crate) fn new(config: Config, first: Numbers, seed: u64) -> Self {
        Self {
            config,
            numbers: Reserve::new(first),
            next_ticket: 0,
            queues: Vec::new(),
            names: HashMap::new(),
            functions: Vec::new(),
            function_numbers: HashMap::new(),
            absent: HashSet::new(),
            looks: BTreeSet::new(),
            leases: HashMap::new(),
            pending: HashMap::new(),
            kept: HashMap::new(),
            stall: Stall::default(),
            handled: HashSet::new(),
            blobs: HashMap::new(),
            stepped: HashSet::new(),
            records: HashMap::new(),
            alarms: BTreeSet::new(),
            dice: fastrand::Rng::with_seed(seed),
            output: Output::default(),
        }
    }

    /// What is to be done since the last time.
    pub(crate) fn take_output(&mut self) -> Output {
        self.reserve();
        std::mem::take(&mut self.output)
    }

    /// When to call [`Machine::tick`] again, if nothing happens before.
    pub(crate) fn next_alarm(&self) -> Option<u64> {
        let queues = self.alarms.first().map(|(at, _)| *at);
        let looks = self.looks.first().map(|(at, _)| *at);
        [queues, looks, self.stall.alarm()].into_iter().flatten().min()
    }

    /// Does what the time asks for.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        while let Some(&(at, queue)) = self.alarms.first() {
            if at > now_ms {
                break;
            }
            self.alarms.pop_first();
            self.queues[queue].alarm_ms = NEVER;
            self.run(queue, now_ms);
        }
        while let Some(&(at, function)) = self.looks.first() {
            if at > now_ms {
                break;
            }
            self.looks.pop_first();
            if self.absent.contains(&function) {
                self.output.missing.push(self.functions[function as usize].to_string());
            }
        }
        self.probe(now_ms);
    }

    // ---- messages come ----

    /// Takes messages, all or none. They are there when the commit has ended.
    pub(crate) fn enqueue(&mut self, new: Vec<New>) -> Result<(Ticket, Vec<Place>), Refused> {
        for message in &new {
            if !self.knows(&message.queue) && self.queues.len() >= QUEUES_MAX {
                return Err(Refused::TooMany { queue: message.queue.clone(), max: QUEUES_MAX });
            }
            let queue = self.queue(&message.queue);
            let queue = &self.queues[queue];
            let name = || message.queue.clone();
            if queue.mode == Mode::Draining {
                return Err(Refused::Draining { queue: name() });
            }
            let max = queue.settings.max_messages;
            let held = queue.entries.len() + queue.arriving;
            let coming = new.iter().filter(|other| other.queue == message.queue).count();
            if held + coming > max {
                return Err(Refused::Full { queue: name(), max });
            }
        }
        if self.numbers.seqs_left() < new.len() {
            return Err(Refused::Behind);
        }
        let mut writes = Writes::default();
        let mut arrivals = Vec::with_capacity(new.len());
        let mut places = Vec::with_capacity(new.len());
        for message in new {
            let queue = self.queue(&message.queue);
            let Some(seq) = self.numbers.seq() else { return Err(Refused::Behind) };
            let place = Place { queue: Arc::clone(&self.queues[queue].name), seq };
            self.queues[queue].arriving += 1;
            let long = message.head.blob.is_none() && message.data.get().len() > record::INLINE_BYTES_MAX;
            let entry = self.entry_of(&message.head, long);
            self.note_blob(queue, place.seq, &message.head);
            arrivals.push((queue, place.seq, entry, message.head.lane.as_str().into()));
            write_message(&mut writes, &place, message);
            places.push(place);
        }
        Ok((self.commit(Pending::Arrival(arrivals), writes), places))
    }

    fn entry_of(&mut self, head: &record::Head, long: bool) -> Entry {
        Entry {
            state: State::Waiting,
            priority: head.priority,
            long,
            holds_lane: false,
            attempts: 0,
            function: head.function.as_deref().map_or(BOUND, |function| self.function(function)),
            lane: 0,
            due_ms: head.due_ms,
            expires_ms: if head.expires_ms == 0 { NEVER } else { head.expires_ms },
            receipt: head.receipt.as_deref().map(Into::into),
        }
    }

    fn note_blob(&mut self, queue: usize, seq: u64, head: &record::Head) {
        if let Some(blob) = &head.blob {
            self.blobs.insert((queue, seq), blob.id);
        }
    }

    fn function(&mut self, id: &str) -> u32 {
        if let Some(number) = self.function_numbers.get(id) {
            return *number;
        }
        let id: Arc<str> = id.into();
        let number = u32::try_from(self.functions.len()).unwrap_or(BOUND - 1);
        self.functions.push(Arc::clone(&id));
        self.function_numbers.insert(id, number);
        number
    }

    /// The number of a queue, which is made if there is none.
    fn queue(&mut self, name: &str) -> usize {
        if let Some(queue) = self.names.get(name) {
            return *queue;
        }
        let name: Arc<str> = name.into();
        self.queues.push(Queue::new(Arc::clone(&name), self.config.of(&name)));
        self.names.insert(name, self.queues.len() - 1);
        self.queues.len() - 1
    }

    // ---- commits end ----

    fn commit(&mut self, pending: Pending, writes: Writes) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if let Pending::Kept { writes, .. } = &pending {
            for change in &writes.changes {
                self.kept.insert(change.place(), ticket);
            }
        }
        self.pending.insert(ticket, pending);
        self.output.commits.push((ticket, writes));
        ticket
    }

    /// A batch is on disk.
    pub(crate) fn committed(&mut self, now_ms: u64, ticket: Ticket) {
        self.happened(now_ms, ticket);
        // Only now: a message that this commit has brought back may be the one that goes first.
        self.store_works(now_ms);
    }

    /// What a batch does that is on disk.
    fn happened(&mut self, now_ms: u64, ticket: Ticket) {
        match self.pending.remove(&ticket) {
            Some(Pending::Arrival(arrivals)) => {
                for (queue, ..) in &arrivals {
                    self.queues[*queue].arriving -= 1;
                }
                self.insert_all(arrivals, now_ms);
            }
            Some(Pending::Revival(revived)) => {
                for (queue, seq, ..) in &revived {
                    self.handled.remove(&(*queue, *seq));
                    self.queues[*queue].dead -= 1;
                }
                self.insert_all(revived, now_ms);
            }
            Some(Pending::End { queue, ended, freed, .. }) => {
                self.output.freed.extend(freed);
                for (seq, done) in ended {
                    self.queues[queue].remove(seq, now_ms);
                    self.queues[queue].dead += usize::from(done.is_none());
                    let place = Place { queue: Arc::clone(&self.queues[queue].name), seq };
                    self.output.ended.push(Ended { place, done });
                }
                self.run(queue, now_ms);
            }
            Some(Pending::Discard(discarded, freed)) => {
                self.output.freed.extend(freed);
                for (queue, seq) in discarded {
                    self.handled.remove(&(queue, seq));
                    self.stepped.remove(&(queue, seq));
                    self.queues[queue].dead -= 1;
                }
            }
            Some(Pending::Kept { ended, .. }) => {
                self.kept.retain(|_, newest| *newest != ticket);
                if let Some((queue, below)) = ended {
                    self.queues[queue].ended_below = below;
                    self.end_those_below(queue, now_ms);
                }
            }
            Some(Pending::Reserve(numbers)) => self.reserved(numbers, now_ms),
            Some(Pending::Note) | None => {}
        }
    }

    fn insert_all(&mut self, arrivals: Vec<Arrival>, now_ms: u64) {
        let mut touched = BTreeSet::new();
        let mut ended = BTreeSet::new();
        for (queue, seq, entry, lane) in arrivals {
            if seq < self.queues[queue].ended_below {
                ended.insert(queue);
            }
            self.insert(queue, seq, entry, &lane, now_ms);
            touched.insert(queue);
        }
        // Before anything may start.
        ended.into_iter().for_each(|queue| self.end_those_below(queue, now_ms));
        touched.into_iter().for_each(|queue| self.run(queue, now_ms));
    }

    fn insert(&mut self, queue: usize, seq: u64, mut entry: Entry, lane: &str, now_ms: u64) {
        entry.lane = self.queues[queue].lane(lane);
        self.queues[queue].insert(seq, entry, now_ms);
    }

    /// Whether a commit is of messages that come.
    pub(crate) fn is_arrival(&self, ticket: Ticket) -> bool {
        matches!(self.pending.get(&ticket), Some(Pending::Arrival(_)))
    }

    /// A batch was not written. `again`: the store takes nothing now, and may later.
    pub(crate) fn not_committed(&mut self, now_ms: u64, ticket: Ticket, again: bool) {
        if again {
            self.store_refuses(now_ms);
        }
        match self.pending.remove(&ticket) {
            Some(Pending::Arrival(arrivals)) => {
                for (queue, seq, ..) in arrivals {
                    self.queues[queue].arriving -= 1;
                    self.blobs.remove(&(queue, seq));
                }
            }
            Some(Pending::Revival(revived)) => {
                for (queue, seq, ..) in revived {
                    self.handled.remove(&(queue, seq));
                    self.blobs.remove(&(queue, seq));
                }
            }
            Some(Pending::Discard(discarded, _)) => {
                for place in discarded {
                    self.handled.remove(&place);
                }
            }
            // The messages stay as they are: not on lease and not to be started, until their end can be written.
            Some(end @ (Pending::End { .. } | Pending::Kept { .. })) if again => self.stall.keep(ticket, end),
            Some(Pending::Kept { .. }) => self.kept.retain(|_, newest| *newest != ticket),
            Some(Pending::Reserve(_)) => self.numbers.not_reserved(),
            Some(Pending::End { .. } | Pending::Note) | None => {}
        }
    }
}

fn write_message(writes: &mut Writes, place: &Place, message: New) {
    let New { mut head, data, idempotency, .. } = message;
    if let Some(receipt) = &head.receipt {
        let at = record::ReceiptRecord { queue: place.queue.to_string(), seq: place.seq };
        writes.put(record::RECEIPT, receipt.as_bytes().to_vec(), &at);
    }
    if let Some((key, expires_ms)) = idempotency {
        let key = record::pair_key(&place.queue, &key);
        let id = head.receipt.clone().unwrap_or_else(|| place.id());
        writes.put(record::IDEMPOTENCY, key.clone(), &record::IdempotencyRecord { id, expires_ms });
        writes.forget(expires_ms, &Forget::Idempotency(key));
    }
    if let Some(blob) = &head.blob {
        blobs::hold(writes, place, &blob.id);
    } else if data.get().len() > record::INLINE_BYTES_MAX {
        writes.put_bytes(record::BODY, place.key(), record::encode_body(&data));
    } else {
        head.data = Some((*data).to_owned());
    }
    writes.put(record::MESSAGE, place.key(), &head);
}

fn erase(writes: &mut Writes, place: &Place, long: bool, attempts: u32) {
    writes.delete(record::MESSAGE, place.key());
    if long {
        writes.delete(record::BODY, place.key());
    }
    erase_attempts(writes, place, attempts);
}

fn erase_attempts(writes: &mut Writes, place: &Place, attempts: u32) {
    for attempt in attempts.saturating_sub(ATTEMPTS_KEPT).saturating_add(1)..=attempts {
        writes.delete(record::ATTEMPT, place.attempt_key(attempt));
    }
}

fn write_end(writes: &mut Writes, place: &Place, done: &record::DoneRecord, retention_ms: u64) {
    // Steps are forgotten by the record that says so.
    if retention_ms == 0 && !done.steps {
        if let Some(receipt) = &done.receipt {
            writes.delete(record::RECEIPT, receipt.as_bytes().to_vec());
        }
        return;
    }
    writes.put(record::DONE, place.key(), done);
    writes.forget(done.at_ms.saturating_add(retention_ms), &Forget::Done(place.key()));
}

#[cfg(test)]
mod tests;
