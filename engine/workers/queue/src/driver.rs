//! The thread that owns the machine: takes in what happens, commits what the machine says, starts and gives up attempts,
//! and sleeps until the next event or alarm. It never waits for a commit or a call. Used by the functions, which ask it, and
//! by the runner, which tells it how attempts ended. It must not know what the functions are called.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use ringway::{Failure, HandlerResult};
use ringway_store::{Durability, Store, StoreError};
use ringway_worker_kit::Clock;
use ringway_worker_kit::crew::Task;

use crate::blobs::Shelf;
use crate::config::SubscriberSettings;
use crate::forget::{self, Forgetter};
use crate::functions::steps::Usages;
use crate::functions::wait::{self, Waits};
use crate::machine::{Machine, Outcome, Ticket, Token};
use crate::record::{Mode, SettingsRecord, Writes};
use crate::runner::{Runner, Target, Targets};
use crate::topics::{self, Topics};
use crate::triggers::Triggers;

/// Something to do with the core, on its thread.
type Job = Box<dyn FnOnce(&mut Core) + Send>;

/// What to do when a commit has ended.
pub(crate) type After = Box<dyn FnOnce(&mut Core, Result<(), StoreError>) + Send>;

enum Event {
    Job(Job),
    Committed(Ticket, Result<(), StoreError>),
    Ended(Token, Outcome),
}

#[derive(Default)]
struct Waiting {
    events: Vec<Event>,
    woken: bool,
    stopped: bool,
}

#[derive(Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

/// Tells the driver's thread what happened. Clones share it.
#[derive(Clone)]
pub(crate) struct Driver(Arc<Inbox>);

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Driver")
    }
}

/// Where the answer to a question goes.
#[derive(Debug)]
pub(crate) struct Answer<T>(async_channel::Sender<HandlerResult<T>>);

impl<T> Answer<T> {
    /// Gives the answer. Nobody may be waiting any more, which is fine.
    pub(crate) fn give(self, answer: HandlerResult<T>) {
        drop(self.0.try_send(answer));
    }

    /// Whether somebody still waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.0.is_closed()
    }
}

impl Driver {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    fn tell(&self, event: Event) {
        let mut waiting = self.0.waiting.lock();
        if !waiting.stopped {
            waiting.events.push(event);
            drop(waiting);
            self.0.came.notify_one();
        }
    }

    /// Says how an attempt ended.
    pub(crate) fn ended(&self, token: Token, outcome: Outcome) {
        self.tell(Event::Ended(token, outcome));
    }

    /// Has something done on the driver's thread.
    pub(crate) fn run(&self, job: impl FnOnce(&mut Core) + Send + 'static) {
        self.tell(Event::Job(Box::new(job)));
    }

    /// Has something done on the driver's thread, which sooner or later gives an answer.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Core, Answer<T>) + Send + 'static,
    ) -> HandlerResult<T> {
        let (give, answer) = async_channel::bounded(1);
        self.run(move |core| job(core, Answer(give)));
        let stopped =
            |_| Failure::with_code("QUEUE_STOPPED", "the queue has stopped: start the engine again");
        answer.recv().await.map_err(stopped)?
    }

    /// Has the thread look at the time again.
    pub(crate) fn wake(&self) {
        self.0.waiting.lock().woken = true;
        self.0.came.notify_one();
    }

    /// Ends the thread after what has been told so far.
    pub(crate) fn stop(&self) {
        self.0.waiting.lock().stopped = true;
        self.0.came.notify_one();
    }

    /// Starts the thread.
    pub(crate) fn start(&self, mut core: Core) -> std::io::Result<JoinHandle<()>> {
        let inbox = Arc::clone(&self.0);
        thread::Builder::new().name("queue".to_owned()).spawn(move || {
            core.settle();
            while let Some(events) = next_events(&inbox, &core) {
                events.into_iter().for_each(|event| core.handle(event));
                core.settle();
            }
        })
    }
}

/// Waits for events or for the next alarm; `None` when there is nothing left to do for ever.
fn next_events(inbox: &Inbox, core: &Core) -> Option<Vec<Event>> {
    let mut waiting = inbox.waiting.lock();
    loop {
        if !waiting.events.is_empty() || waiting.woken {
            waiting.woken = false;
            return Some(std::mem::take(&mut waiting.events));
        }
        if waiting.stopped && core.committing == 0 {
            return None;
        }
        let alarm = core.next_alarm();
        if alarm.is_some_and(|at| at <= core.now_ms()) {
            return Some(Vec::new());
        }
        core.clock.wait(&inbox.came, &mut waiting, alarm);
    }
}

/// What the driver's thread owns.
pub(crate) struct Core {
    pub(crate) machine: Machine,
    pub(crate) topics: Topics,
    /// What is bound, once that can be.
    pub(crate) triggers: Option<Triggers>,
    pub(crate) clock: Clock,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shelf: Arc<Shelf>,
    /// Keys whose message is being written, with the commit.
    pub(crate) claims: HashMap<Claim, Ticket>,
    /// Functions bound to each queue.
    bound: HashMap<String, usize>,
    /// Who waits until queues are empty.
    pub(crate) drains: Vec<(Vec<String>, Answer<()>)>,
    /// Who waits until a message has ended.
    pub(crate) waits: Waits,
    /// What attempts under way have kept of steps.
    pub(crate) step_usages: Usages,
    after: HashMap<Ticket, Vec<After>>,
    /// The first time at which something of a commit under way is to be forgotten.
    forget_at: HashMap<Ticket, u64>,
    /// Commits that the store has and has not told of.
    committing: usize,
    attempts: HashMap<Token, Task<()>>,
    forgetter: Forgetter,
    runner: Runner,
    driver: Driver,
}

/// A table and a key that one message has taken: a chosen id, or an idempotency key.
pub(crate) type Claim = (&'static str, Vec<u8>);

impl Core {
    pub(crate) fn new(
        machine: Machine,
        topics: Topics,
        clock: Clock,
        (store, shelf): (Arc<dyn Store>, Arc<Shelf>),
        runner: Runner,
        forgetter: Forgetter,
        driver: Driver,
    ) -> Self {
        Self {
            machine,
            topics,
            triggers: None,
            clock,
            store,
            shelf,
            claims: HashMap::new(),
            bound: HashMap::new(),
            drains: Vec::new(),
            waits: Waits::default(),
            step_usages: Usages::new(),
            after: HashMap::new(),
            forget_at: HashMap::new(),
            committing: 0,
            attempts: HashMap::new(),
            forgetter,
            runner,
            driver,
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// The queues that a name of a queue or topic stands for.
    pub(crate) fn resolve(&self, name: &str) -> Vec<String> {
        self.topics.resolve(name, |queue| self.machine.knows(queue))
    }

    /// How many functions are bound to a queue.
    pub(crate) fn bound_to(&self, queue: &str) -> usize {
        self.bound.get(queue).copied().unwrap_or(0)
    }

    /// Remembers that a function gets what is published; returns the queue with its copies. A new queue is held as that of
    /// its topic is.
    pub(crate) fn subscribe(&mut self, topic: &str, function: &str, settings: &SubscriberSettings) -> String {
        let (record, writes) = self.topics.subscribe(topic, function, settings);
        if let Some(writes) = writes {
            self.machine.keep(writes);
            let now_ms = self.now_ms();
            self.machine.subscribed(now_ms, &record);
            let (_, mode) = self.machine.settings(&topics::backlog(topic));
            if mode != Mode::Active && self.machine.settings(&record.queue).1 == Mode::Active {
                let held = SettingsRecord { mode, ..self.machine.record(&record.queue) };
                self.machine.configure(now_ms, &record.queue, &held);
            }
        }
        record.queue
    }

    /// Ends a subscription for good, as long as its trigger is not bound once more.
    pub(crate) fn unsubscribe(&mut self, topic: &str, function: &str) -> Option<Ticket> {
        let (record, writes) = self.topics.unsubscribe(topic, function)?;
        if let Some(triggers) = self.triggers.clone() {
            triggers.end(topic, function);
            triggers.apply(self);
        }
        Some(self.machine.end_subscription(&record.queue, writes))
    }

    /// Makes this what is bound.
    pub(crate) fn bind(&mut self, targets: Targets) {
        let now_ms = self.now_ms();
        let counts = targets.iter().map(|(queue, all)| (queue.clone(), all.len())).collect();
        let before = std::mem::replace(&mut self.bound, counts);
        let needs: Vec<(String, Vec<Vec<String>>)> = targets
            .iter()
            .map(|(queue, all)| (queue.clone(), all.iter().map(Target::needs).collect()))
            .collect();
        // First the functions, then the messages that wait for them.
        self.runner.set_targets(targets);
        for queue in before.keys().filter(|queue| !self.bound.contains_key(*queue)) {
            self.machine.set_bound(now_ms, queue, &[]);
        }
        for (queue, needs) in needs {
            self.machine.set_bound(now_ms, &queue, &needs);
        }
    }

    /// Looks anew for the functions that are missing.
    pub(crate) fn look_for_missing(&self) {
        self.runner.look_for(self.machine.missing(), &self.driver);
    }

    /// Has something done when a commit has ended.
    pub(crate) fn after(&mut self, ticket: Ticket, then: After) {
        self.after.entry(ticket).or_default().push(then);
    }

    fn next_alarm(&self) -> Option<u64> {
        self.machine.next_alarm()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Job(job) => job(self),
            Event::Committed(ticket, outcome) => {
                self.committing -= 1;
                self.committed(ticket, outcome);
            }
            Event::Ended(token, outcome) => {
                if let Some(task) = self.attempts.remove(&token) {
                    task.detach();
                }
                self.step_usages.remove(&token);
                self.machine.ended(self.clock.now_ms(), token, outcome);
            }
        }
    }

    fn committed(&mut self, ticket: Ticket, outcome: Result<(), StoreError>) {
        let now_ms = self.clock.now_ms();
        let forget_at = self.forget_at.remove(&ticket);
        match &outcome {
            Ok(()) => {
                self.machine.committed(now_ms, ticket);
                // Not before it is there: whoever looks too early would pass it.
                forget_at.into_iter().for_each(|at_ms| self.forgetter.note(at_ms));
            }
            Err(error) => {
                // What does not hold or does not fit will not do so later either; for the rest the store may get well.
                let refused = matches!(error, StoreError::Precondition { .. } | StoreError::TooLarge { .. });
                // Where senders are quicker than the disk, one that is sent back is no reason to hold up deliveries.
                let crowded = matches!(error, StoreError::Busy { .. }) && self.machine.is_arrival(ticket);
                let stalls = !refused && !crowded;
                if stalls && !self.machine.is_stalled() {
                    tracing::error!(%error, "the store takes nothing, nothing is delivered until it does");
                }
                self.machine.not_committed(now_ms, ticket, stalls);
            }
        }
        for then in self.after.remove(&ticket).unwrap_or_default() {
            then(self, outcome.clone());
        }
    }

    /// Does what the time asks for and everything that the machine says, until it says nothing more.
    fn settle(&mut self) {
        let now_ms = self.clock.now_ms();
        self.machine.tick(now_ms);
        loop {
            let output = self.machine.take_output();
            output.ended.iter().for_each(|ended| wait::tell(self, ended));
            self.shelf.collect(output.freed);
            if output.commits.is_empty() && output.deliveries.is_empty() && output.missing.is_empty() {
                output.aborts.iter().for_each(|token| self.abort(*token));
                break;
            }
            for (ticket, writes) in output.commits {
                self.commit(ticket, writes);
            }
            for token in output.aborts {
                self.abort(token);
            }
            for delivery in output.deliveries {
                let token = delivery.token;
                // Without a crew the worker is ending: the message is delivered after the next start.
                if let Some(task) = self.runner.start(delivery, self.driver.clone()) {
                    self.attempts.insert(token, task);
                }
            }
            self.runner.look_for(output.missing, &self.driver);
        }
        let Self { machine, drains, .. } = self;
        for number in (0..drains.len()).rev() {
            let (queues, answer) = &drains[number];
            if queues.iter().all(|queue| machine.is_empty(queue)) || !answer.is_awaited() {
                drains.swap_remove(number).1.give(Ok(()));
            }
        }
    }

    /// Dropping a task gives its call up, and the function is told.
    fn abort(&mut self, token: Token) {
        drop(self.attempts.remove(&token));
        self.step_usages.remove(&token);
    }

    fn commit(&mut self, ticket: Ticket, writes: Writes) {
        if let Some(at_ms) = forget::first_of(&writes) {
            self.forget_at.insert(ticket, at_ms);
        }
        let driver = self.driver.clone();
        let done = move |outcome: Result<u64, StoreError>| {
            driver.tell_surely(Event::Committed(ticket, outcome.map(drop)));
        };
        match self.store.submit(writes.into_batch(), Durability::Durable, Box::new(done)) {
            Ok(()) => self.committing += 1,
            Err(error) => self.committed(ticket, Err(error)),
        }
    }
}

impl Driver {
    /// As `tell`, also while the thread is ending: who waits for a commit that is under way still hears of it.
    fn tell_surely(&self, event: Event) {
        self.0.waiting.lock().events.push(event);
        self.0.came.notify_one();
    }
}
