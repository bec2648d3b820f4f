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

mod queue;
mod recover;
mod steps;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ringway_store::BlobId;
use serde_json::value::RawValue;

use crate::blobs;
use crate::config::{Config, QueueSettings};
use crate::record::{self, Forget, Mode, Place, Writes};
use queue::{BOUND, Entry, NEVER, Queue, State};

pub(crate) use recover::Tables;

/// A commit under way.
pub(crate) type Ticket = u64;

/// A lease: rises with each attempt, over restarts too, so that whoever keeps the highest that he saw can refuse a late one.
pub(crate) type Token = u64;

/// Records of failed attempts that are kept of one message.
const ATTEMPTS_KEPT: u32 = 20;

/// Queues, those of topics included. Each takes some hundred bytes of memory for as long as the worker runs.
const QUEUES_MAX: usize = 100_000;

/// How long until a commit is tried again that failed for want of room, in milliseconds.
const AGAIN_MS: u64 = 1000;

/// A message to take.
#[derive(Debug, Clone)]
pub(crate) struct New {
    pub(crate) queue: String,
    /// Everything but the data.
    pub(crate) head: record::Head,
    pub(crate) data: Box<RawValue>,
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
    /// There is no such function, or nothing is bound; which counts as no attempt either.
    Absent,
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
    End { queue: usize, seq: u64, done: Option<record::DoneRecord>, freed: Option<BlobId>, writes: Writes },
    Revival(Vec<Arrival>),
    Discard(Vec<(usize, u64)>, Vec<BlobId>),
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
    next: u64,
    next_token: u64,
    next_ticket: Ticket,
    queues: Vec<Queue>,
    names: HashMap<Arc<str>, usize>,
    functions: Vec<Arc<str>>,
    function_numbers: HashMap<Arc<str>, u32>,
    absent: HashSet<u32>,
    leases: HashMap<Token, (usize, u64)>,
    pending: HashMap<Ticket, Pending>,
    /// Ends that there was no room for, by the time of the next attempt.
    again: BTreeMap<(u64, Ticket), Pending>,
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
    /// A machine without messages. `epoch` is higher than at every start before, and on disk.
    pub(crate) fn new(config: Config, epoch: u64, seed: u64) -> Self {
        Self {
            config,
            next: epoch << 40,
            next_token: epoch << 32,
            next_ticket: 0,
            queues: Vec::new(),
            names: HashMap::new(),
            functions: Vec::new(),
            function_numbers: HashMap::new(),
            absent: HashSet::new(),
            leases: HashMap::new(),
            pending: HashMap::new(),
            again: BTreeMap::new(),
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
        std::mem::take(&mut self.output)
    }

    /// When to call [`Machine::tick`] again, if nothing happens before.
    pub(crate) fn next_alarm(&self) -> Option<u64> {
        let queues = self.alarms.first().map(|(at, _)| *at);
        let again = self.again.first_key_value().map(|((at, _), _)| *at);
        [queues, again].into_iter().flatten().min()
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
        while let Some(entry) = self.again.first_entry() {
            if entry.key().0 > now_ms {
                break;
            }
            let pending = entry.remove();
            if let Pending::End { writes, .. } = &pending {
                let writes = writes.clone();
                self.commit(pending, writes);
            }
        }
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
        let mut writes = Writes::default();
        let mut arrivals = Vec::with_capacity(new.len());
        let mut places = Vec::with_capacity(new.len());
        for message in new {
            let queue = self.queue(&message.queue);
            let place = Place { queue: Arc::clone(&self.queues[queue].name), seq: self.next };
            self.next += 1;
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
        self.pending.insert(ticket, pending);
        self.output.commits.push((ticket, writes));
        ticket
    }

    /// A batch is on disk.
    pub(crate) fn committed(&mut self, now_ms: u64, ticket: Ticket) {
        match self.pending.remove(&ticket) {
            Some(Pending::Arrival(arrivals)) => {
                let mut touched = BTreeSet::new();
                for (queue, seq, entry, lane) in arrivals {
                    self.queues[queue].arriving -= 1;
                    self.insert(queue, seq, entry, &lane, now_ms);
                    touched.insert(queue);
                }
                touched.into_iter().for_each(|queue| self.run(queue, now_ms));
            }
            Some(Pending::Revival(revived)) => {
                let mut touched = BTreeSet::new();
                for (queue, seq, entry, lane) in revived {
                    self.handled.remove(&(queue, seq));
                    self.queues[queue].dead -= 1;
                    self.insert(queue, seq, entry, &lane, now_ms);
                    touched.insert(queue);
                }
                touched.into_iter().for_each(|queue| self.run(queue, now_ms));
            }
            Some(Pending::End { queue, seq, done, freed, .. }) => {
                self.output.freed.extend(freed);
                self.queues[queue].remove(seq, now_ms);
                self.queues[queue].dead += usize::from(done.is_none());
                let place = Place { queue: Arc::clone(&self.queues[queue].name), seq };
                self.output.ended.push(Ended { place, done });
                self.run(queue, now_ms);
            }
            Some(Pending::Discard(discarded, freed)) => {
                self.output.freed.extend(freed);
                for (queue, seq) in discarded {
                    self.handled.remove(&(queue, seq));
                    self.queues[queue].dead -= 1;
                }
            }
            Some(Pending::Note) | None => {}
        }
    }

    fn insert(&mut self, queue: usize, seq: u64, mut entry: Entry, lane: &str, now_ms: u64) {
        entry.lane = self.queues[queue].lane(lane);
        self.queues[queue].insert(seq, entry, now_ms);
    }

    /// A batch was not written. `again`: there was no room, and there may be later.
    pub(crate) fn not_committed(&mut self, now_ms: u64, ticket: Ticket, again: bool) {
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
                }
            }
            Some(Pending::Discard(discarded, _)) => {
                for place in discarded {
                    self.handled.remove(&place);
                }
            }
            // The message stays as it is: not on lease and not to be started, until its end can be written.
            Some(end @ Pending::End { .. }) if again => {
                self.again.insert((now_ms + AGAIN_MS, ticket), end);
            }
            Some(Pending::End { .. } | Pending::Note) | None => {}
        }
    }

    // ---- attempts ----

    /// Starts what may start.
    fn run(&mut self, queue: usize, now_ms: u64) {
        for seq in self.queues[queue].tick(now_ms) {
            let attempts = self.queues[queue].entries.get(&seq).map_or(0, |entry| entry.attempts);
            let message = "it waited longer than it was to live".to_owned();
            let dead = record::DeadRecord { at_ms: now_ms, attempts, code: "EXPIRED".into(), message };
            self.bury(queue, seq, &dead, Writes::default(), now_ms);
        }
        let absent = &self.absent;
        while let Some(seq) = self.queues[queue].start(now_ms, |function| absent.contains(&function)) {
            let at = &self.queues[queue];
            let Some(entry) = at.entries.get(&seq) else { break };
            let token = self.next_token;
            self.next_token += 1;
            self.leases.insert(token, (queue, seq));
            self.output.deliveries.push(Delivery {
                token,
                place: Place { queue: Arc::clone(&at.name), seq },
                attempt: entry.attempts + 1,
                attempts_max: at.settings.max_retries.saturating_add(1),
                timeout_ms: at.settings.timeout_ms,
            });
        }
        let alarm = self.queues[queue].next_alarm(now_ms);
        let set = self.queues[queue].alarm_ms;
        if alarm != set {
            self.alarms.remove(&(set, queue));
            if alarm != NEVER {
                self.alarms.insert((alarm, queue));
            }
            self.queues[queue].alarm_ms = alarm;
        }
    }

    /// An attempt is over. One that was given up before is ignored.
    pub(crate) fn ended(&mut self, now_ms: u64, token: Token, outcome: Outcome) {
        let Some((queue, seq)) = self.leases.remove(&token) else { return };
        match outcome {
            Outcome::Succeeded => {
                self.finish(queue, seq, record::End::Done, now_ms);
            }
            Outcome::NotStarted { after_ms } => {
                self.queues[queue].release(seq, now_ms.saturating_add(after_ms), now_ms);
            }
            Outcome::Absent => {
                if let Some(entry) = self.queues[queue].entries.get(&seq)
                    && entry.function != BOUND
                    && self.absent.insert(entry.function)
                {
                    self.output.missing.push(self.functions[entry.function as usize].to_string());
                }
                self.queues[queue].release(seq, now_ms, now_ms);
            }
            Outcome::Failed(failed) => self.fail(queue, seq, failed, now_ms),
        }
        self.run(queue, now_ms);
    }

    fn fail(&mut self, queue: usize, seq: u64, failed: Failed, now_ms: u64) {
        let Self { queues, dice, .. } = self;
        let at = &mut queues[queue];
        let place = Place { queue: Arc::clone(&at.name), seq };
        let settings = &at.settings;
        let Some(entry) = at.entries.get_mut(&seq) else { return };
        entry.attempts = entry.attempts.saturating_add(1);
        let attempts = entry.attempts;
        let wait = failed.retry_after_ms.unwrap_or_else(|| settings.backoff_after(attempts, || dice.f64()));
        let due_ms = now_ms.saturating_add(wait);
        let fatal = failed.fatal || settings.fatal_codes.contains(&failed.code);
        let hopeless = fatal || attempts > settings.max_retries || entry.expires_ms <= now_ms;
        let Failed { code, message, .. } = failed;
        let attempt = record::AttemptRecord { at_ms: now_ms, due_ms, code, message };
        let mut writes = Writes::default();
        writes.put(record::ATTEMPT, place.attempt_key(attempts), &attempt);
        if attempts > ATTEMPTS_KEPT {
            writes.delete(record::ATTEMPT, place.attempt_key(attempts - ATTEMPTS_KEPT));
        }
        if hopeless {
            let record::AttemptRecord { code, message, .. } = attempt;
            let dead = record::DeadRecord { at_ms: now_ms, attempts, code, message };
            self.bury(queue, seq, &dead, writes, now_ms);
        } else {
            at.release(seq, due_ms, now_ms);
            self.commit(Pending::Note, writes);
        }
    }

    fn bury(&mut self, queue: usize, seq: u64, dead: &record::DeadRecord, mut writes: Writes, now_ms: u64) {
        let place = Place { queue: Arc::clone(&self.queues[queue].name), seq };
        writes.put(record::DEAD, place.key(), dead);
        // Its record names it, for whoever revives or discards it.
        self.blobs.remove(&(queue, seq));
        self.queues[queue].end(seq, now_ms);
        let again = writes.clone();
        self.commit(Pending::End { queue, seq, done: None, freed: None, writes: again }, writes);
    }

    fn finish(&mut self, queue: usize, seq: u64, end: record::End, now_ms: u64) -> Option<Ticket> {
        let at = &mut self.queues[queue];
        let entry = at.entries.get(&seq)?;
        let place = Place { queue: Arc::clone(&at.name), seq };
        let attempts = entry.attempts + u32::from(end == record::End::Done);
        let done = record::DoneRecord {
            end,
            at_ms: now_ms,
            attempts,
            receipt: entry.receipt.as_deref().map(Into::into),
            steps: self.stepped.remove(&(queue, seq)),
        };
        let mut writes = Writes::default();
        erase(&mut writes, &place, entry.long, entry.attempts);
        write_end(&mut writes, &place, &done, self.config.receipt_retention_ms);
        at.end(seq, now_ms);
        let freed = self.blobs.remove(&(queue, seq));
        if let Some(id) = &freed {
            blobs::let_go(&mut writes, &place, id);
        }
        let again = writes.clone();
        Some(self.commit(Pending::End { queue, seq, done: Some(done), freed, writes: again }, writes))
    }

    /// Ends a message that is to be delivered, whatever is under way. `None` if there is none, or its end is being written.
    pub(crate) fn cancel(&mut self, now_ms: u64, place: &Place) -> Option<Ticket> {
        let queue = *self.names.get(&place.queue)?;
        let state = self.queues[queue].entries.get(&place.seq)?.state;
        if state == State::Ending {
            return None;
        }
        if state == State::Running {
            let lease = self.leases.iter().find(|(_, at)| **at == (queue, place.seq));
            let token = *lease?.0;
            self.leases.remove(&token);
            self.output.aborts.push(token);
        }
        let ticket = self.finish(queue, place.seq, record::End::Cancelled, now_ms);
        self.run(queue, now_ms);
        ticket
    }

    // ---- dead messages ----

    /// Says whether a dead message may be touched: nothing else is being done with it.
    pub(crate) fn is_dead(&self, place: &Place) -> bool {
        self.names.get(&place.queue).is_some_and(|queue| {
            !self.handled.contains(&(*queue, place.seq))
                && !self.queues[*queue].entries.contains_key(&place.seq)
        })
    }

    /// Lets dead messages live again, with all their attempts, one after the other with `every_ms` between them. Each
    /// comes with its record as it is on disk.
    pub(crate) fn revive(
        &mut self,
        now_ms: u64,
        dead: Vec<(Place, record::Head, record::DeadRecord)>,
        every_ms: u64,
    ) -> (Ticket, usize) {
        let mut writes = Writes::default();
        let mut revived = Vec::new();
        for (place, mut head, dead) in dead {
            if !self.is_dead(&place) {
                continue;
            }
            let queue = self.queue(&place.queue);
            let number = u64::try_from(revived.len()).unwrap_or(u64::MAX);
            let due_ms = if every_ms == 0 { 0 } else { now_ms.saturating_add(number * every_ms) };
            let expires_ms = 0;
            if (head.due_ms, head.expires_ms) != (due_ms, expires_ms) {
                (head.due_ms, head.expires_ms) = (due_ms, expires_ms);
                writes.put(record::MESSAGE, place.key(), &head);
            }
            writes.delete(record::DEAD, place.key());
            erase_attempts(&mut writes, &place, dead.attempts);
            let entry = self.entry_of(&head, head.is_long());
            self.note_blob(queue, place.seq, &head);
            self.handled.insert((queue, place.seq));
            revived.push((queue, place.seq, entry, head.lane.as_str().into()));
        }
        let count = revived.len();
        (self.commit(Pending::Revival(revived), writes), count)
    }

    /// Throws dead messages away. Each comes with its record as it is on disk.
    pub(crate) fn discard(
        &mut self,
        now_ms: u64,
        dead: Vec<(Place, record::Head, record::DeadRecord)>,
    ) -> (Ticket, usize) {
        let mut writes = Writes::default();
        let (mut discarded, mut freed) = (Vec::new(), Vec::new());
        for (place, head, dead) in dead {
            if !self.is_dead(&place) {
                continue;
            }
            let queue = self.queue(&place.queue);
            let end = record::End::Discarded;
            let long = head.is_long();
            let (at_ms, attempts, receipt) = (now_ms, dead.attempts, head.receipt);
            let steps = self.stepped.remove(&(queue, place.seq));
            let done = record::DoneRecord { end, at_ms, attempts, receipt, steps };
            writes.delete(record::DEAD, place.key());
            if let Some(blob) = &head.blob {
                blobs::let_go(&mut writes, &place, &blob.id);
                freed.push(blob.id);
            }
            erase(&mut writes, &place, long, dead.attempts);
            write_end(&mut writes, &place, &done, self.config.receipt_retention_ms);
            self.handled.insert((queue, place.seq));
            discarded.push((queue, place.seq));
        }
        let count = discarded.len();
        (self.commit(Pending::Discard(discarded, freed), writes), count)
    }

    // ---- what surrounds the messages ----

    /// Changes settings or mode of a queue, and writes both down.
    pub(crate) fn configure(&mut self, now_ms: u64, name: &str, record: &record::SettingsRecord) -> Ticket {
        let mut writes = Writes::default();
        writes.put(record::SETTINGS, name.as_bytes().to_vec(), record);
        self.records.insert(name.to_owned(), record.clone());
        let settings = record.settings.clone().unwrap_or_else(|| self.config.of(name));
        self.apply(now_ms, name, settings);
        let queue = self.queue(name);
        self.queues[queue].mode = record.mode;
        self.run(queue, now_ms);
        self.commit(Pending::Note, writes)
    }

    /// Changes the settings of a queue. What changes how messages stand in lanes is for an empty queue.
    pub(crate) fn apply(&mut self, now_ms: u64, name: &str, settings: QueueSettings) {
        let queue = self.queue(name);
        self.queues[queue].settings = settings;
        self.queues[queue].refresh_all(now_ms);
        self.run(queue, now_ms);
    }

    /// The settings that a queue has without any by function.
    pub(crate) fn settings_of_file(&self, name: &str) -> QueueSettings {
        self.config.of(name)
    }

    /// What was set of a queue by function.
    pub(crate) fn record(&self, name: &str) -> record::SettingsRecord {
        self.records.get(name).cloned().unwrap_or_default()
    }

    /// Writes something down that no message depends on.
    pub(crate) fn write(&mut self, writes: Writes) -> Ticket {
        self.commit(Pending::Note, writes)
    }

    /// Whether a queue was ever used or set.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Gives the queue of a subscription the settings that its trigger asks for. Its type stays while it holds messages,
    /// which stand in lanes by it.
    pub(crate) fn subscribed(&mut self, now_ms: u64, subscription: &record::SubscriptionRecord) {
        let name = &subscription.queue;
        let mut settings = subscription.settings.over(self.config.of(name));
        let (old, _) = self.settings(name);
        if settings.kind != old.kind && !self.is_empty(name) {
            tracing::warn!(
                queue = name,
                "its `type` cannot change while it holds messages, and stays as it is"
            );
            settings.kind = old.kind;
        }
        self.apply(now_ms, name, settings);
    }

    /// Settings and mode of a queue; those of a queue that was never used are those of its name.
    pub(crate) fn settings(&self, name: &str) -> (QueueSettings, Mode) {
        match self.names.get(name) {
            Some(queue) => (self.queues[*queue].settings.clone(), self.queues[*queue].mode),
            None => (self.config.of(name), Mode::Active),
        }
    }

    /// Says whether something is bound to a queue, for messages that name no function.
    pub(crate) fn set_bound(&mut self, now_ms: u64, name: &str, bound: bool) {
        let queue = self.queue(name);
        self.queues[queue].bound = bound;
        if bound {
            self.queues[queue].unpark(BOUND, now_ms);
            self.run(queue, now_ms);
        }
    }

    /// Functions that were not there and may be looked for.
    pub(crate) fn missing(&self) -> Vec<String> {
        self.absent.iter().map(|number| self.functions[*number as usize].to_string()).collect()
    }

    /// A function that was not there is there.
    pub(crate) fn found(&mut self, now_ms: u64, function: &str) {
        let Some(number) = self.function_numbers.get(function).copied() else { return };
        if self.absent.remove(&number) {
            for queue in 0..self.queues.len() {
                self.queues[queue].unpark(number, now_ms);
                self.run(queue, now_ms);
            }
        }
    }

    /// How a message stands that is to be delivered.
    pub(crate) fn standing(&self, place: &Place) -> Option<Standing> {
        let queue = &self.queues[*self.names.get(&place.queue)?];
        let entry = queue.entries.get(&place.seq)?;
        let running = matches!(entry.state, State::Running | State::Ending);
        Some(Standing { running, attempts: entry.attempts, due_ms: entry.due_ms })
    }

    /// Names of the queues, in order.
    pub(crate) fn names(&self) -> BTreeSet<Arc<str>> {
        self.names.keys().cloned().collect()
    }

    /// Counts of a queue.
    pub(crate) fn counts(&self, name: &str) -> Counts {
        let Some(queue) = self.names.get(name).map(|queue| &self.queues[*queue]) else {
            return Counts::default();
        };
        Counts {
            waiting: queue.count(State::Waiting),
            delayed: queue.count(State::Delayed),
            parked: queue.count(State::Parked),
            running: queue.count(State::Running),
            dead: queue.dead,
        }
    }

    /// Whether a queue holds messages or is about to.
    pub(crate) fn is_empty(&self, name: &str) -> bool {
        self.names
            .get(name)
            .is_none_or(|queue| self.queues[*queue].entries.is_empty() && self.queues[*queue].arriving == 0)
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
        head.data = Some(data);
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
    for attempt in attempts.saturating_sub(ATTEMPTS_KEPT) + 1..=attempts {
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
