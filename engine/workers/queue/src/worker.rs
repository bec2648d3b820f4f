//! The worker itself: reads back what is on disk, attaches, registers, and ends in order. Used by whoever runs an engine.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use ringway::protocol::control::TriggerSpec;
use ringway::{CallError, Context, Function, Worker};
use ringway_protocol::{FunctionId, naming};
use ringway_store::{Batch, Durability, Scan, Store, StoreError};
use ringway_worker_kit::{Clock, Crew};
use serde_json::Value;

use crate::blobs::Shelf;
use crate::config::{Config, SettingsError};
use crate::driver::{Core, Driver};
use crate::forget::Forgetter;
use crate::functions;
use crate::machine::{Machine, Tables};
use crate::record::{self, Numbers, Unreadable};
use crate::runner::Runner;
use crate::topics::Topics;
use crate::triggers::Triggers;

/// The function that hears of new functions.
const FUNCTIONS_CHANGED: &str = "queue::functions-changed";

/// Entries that are read at once at the start.
const PAGE: usize = 1024;

/// Why the worker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be obeyed.
    #[error("the queue cannot start: {0}")]
    Settings(#[from] SettingsError),
    /// The store refused.
    #[error("the queue cannot start: {0}")]
    Store(#[from] StoreError),
    /// What is on disk cannot be read as a whole.
    #[error("the queue cannot start: {0}")]
    Unreadable(String),
    /// The worker could not attach or register.
    #[error("the queue cannot attach: {0}")]
    Attach(#[from] Box<CallError>),
    /// A thread could not be started.
    #[error("the queue cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<CallError> for StartError {
    fn from(error: CallError) -> Self {
        Self::Attach(Box::new(error))
    }
}

/// What runs.
#[derive(Debug)]
struct Threads {
    driver: JoinHandle<()>,
    /// Those that attempts run on.
    crew: Crew,
    forgetting: JoinHandle<()>,
}

/// The built-in queue. Dropping it ends it.
#[derive(Debug)]
pub struct Queue {
    worker: Worker,
    driver: Driver,
    forgetter: Forgetter,
    threads: Mutex<Option<Threads>>,
    shelf: Arc<Shelf>,
    unreadable: Vec<String>,
}

impl Queue {
    /// Reads back every message that has not ended, attaches to the engine at `address`, and delivers. Costs a read of the
    /// index of what waits, and one commit.
    ///
    /// # Errors
    /// [`StartError`] says what is missing.
    pub fn start(address: &str, store: Arc<dyn Store>, config: Config) -> Result<Self, StartError> {
        Self::start_with(address, store, config, Clock::system())
    }

    /// As [`Queue::start`], by another clock.
    ///
    /// # Errors
    /// As [`Queue::start`].
    pub fn start_with(
        address: &str,
        store: Arc<dyn Store>,
        config: Config,
        clock: Clock,
    ) -> Result<Self, StartError> {
        config.check()?;
        let threads = config.delivery_threads;
        let shelf = Shelf::new(&store, config.blob_bytes_min);
        let first = reserve(&*store)?;
        let mut machine = Machine::new(config, first, clock.now_ms() ^ first.token.rotate_left(32));
        let tables = Stored(&*store);
        let whole = |error: Unreadable| StartError::Unreadable(error.to_string());
        let (topics, mut unreadable) = Topics::recover(&tables).map_err(whole)?;
        for (_, _, subscription) in topics.iter() {
            machine.subscribed(clock.now_ms(), subscription);
        }
        unreadable.extend(machine.recover(clock.now_ms(), &tables).map_err(whole)?);
        let unreadable: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
        for error in &unreadable {
            tracing::error!(error, "left as it is");
        }
        let worker = Worker::builder("queue")
            .address(address)
            .description("durable messages, topics and dead letters")
            // An attempt lasts as long as its queue lets it.
            .default_timeout(None)
            .connect()?;
        let crew = Crew::start("queue", threads)?;
        let runner = Runner::new(worker.clone(), Arc::clone(&store), crew.spawner());
        let driver = Driver::new();
        let (of_core, waker) = (driver.clone(), driver.clone());
        clock.on_set(move || waker.wake());
        let forgetter = Forgetter::default();
        let kept = (Arc::clone(&store), Arc::clone(&shelf));
        let core = Core::new(machine, topics, clock.clone(), kept, runner, forgetter.clone(), of_core);
        let forgetting = forgetter.start(store, clock)?;
        let thread = match driver.start(core) {
            Ok(thread) => thread,
            Err(error) => {
                forgetter.stop();
                return Err(error.into());
            }
        };
        // From here on dropping the queue ends what was started.
        let threads = Threads { driver: thread, crew, forgetting };
        let queue = Self { worker, driver, forgetter, threads: Mutex::new(Some(threads)), shelf, unreadable };
        queue.register()?;
        queue.driver.run(|core| {
            let now_ms = core.now_ms();
            core.machine.start_all(now_ms);
        });
        Ok(queue)
    }

    fn register(&self) -> Result<(), CallError> {
        self.worker.register_all(functions::all(&self.driver, &self.shelf))?;
        match self.worker.register_all(functions::reserved(&self.driver, &self.shelf)) {
            Ok(()) => {}
            // Only what lives in the engine's process may have these names.
            Err(error) if error.code == ringway::ErrorCode::RegistrationConflict => {
                tracing::warn!(%error, "the queue runs apart from the engine: the enqueue action does not reach it");
            }
            Err(error) => return Err(error),
        }
        let driver = self.driver.clone();
        let changed = Function::json(FUNCTIONS_CHANGED, move |_: &Context, _: Value| {
            driver.run(|core| core.look_for_missing());
            Ok(Value::Null)
        });
        self.worker.register(changed.internal().description("hears of new functions"))?;
        let id = FunctionId::new(FUNCTIONS_CHANGED)
            .map_err(|error| CallError::new(ringway::ErrorCode::InvalidRegistration, error.to_string()))?;
        Triggers::register(&self.worker, &self.driver)?;
        let kind = naming::TRIGGER_FUNCTIONS_AVAILABLE;
        self.worker.register_trigger(TriggerSpec::new(FUNCTIONS_CHANGED, kind, id))
    }

    /// What was on disk and could not be read, each with its table and key. It was left where it is.
    #[must_use]
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// Ends: commits that are under way are waited for, attempts are given up and will be made again. Dropping does the
    /// same.
    pub fn shut_down(&self) {
        self.driver.stop();
        let threads = self.threads.lock().take();
        self.forgetter.stop();
        if let Some(Threads { driver, crew, forgetting }) = threads {
            // The driver first: those that wait for it may hear of its last commits. One that panicked has said so.
            let _panicked = driver.join();
            drop(crew);
            let _panicked = forgetting.join();
        }
        self.shelf.close();
        self.worker.shut_down();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Takes the first numbers that may be given out, and notes on disk that a block of them will be.
fn reserve(store: &dyn Store) -> Result<Numbers, StartError> {
    let read = |key: &[u8]| store.get(record::META, key);
    let unreadable = |error: Unreadable| StartError::Unreadable(error.to_string());
    let first: Numbers = match (read(record::NUMBERS)?, read(record::EPOCH)?) {
        (Some(value), _) => {
            record::decode(record::META, record::NUMBERS, &value.bytes).map_err(unreadable)?
        }
        (None, Some(value)) => Numbers::after_epoch(
            record::decode(record::META, record::EPOCH, &value.bytes).map_err(unreadable)?,
        ),
        (None, None) => Numbers { seq: 1, token: 1 },
    };
    let batch = Batch::new().put(record::META, record::NUMBERS, record::encode(&first.after_block()));
    store.commit(batch, Durability::Durable)?;
    Ok(first)
}

/// The tables of a store, page by page.
pub(crate) struct Stored<'s>(pub(crate) &'s dyn Store);

impl Tables for Stored<'_> {
    fn each(&self, table: &'static str, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Unreadable> {
        use std::ops::Bound::{Excluded, Unbounded};
        let failed = |error| Unreadable::new(table, b"", error);
        let snapshot = self.0.snapshot().map_err(failed)?;
        let mut last: Option<Vec<u8>> = None;
        loop {
            let from = last.as_deref().map_or(Unbounded, Excluded);
            let scan = Scan::table(table).range(from, Unbounded).limit(PAGE);
            let page = snapshot.scan(&scan).map_err(failed)?;
            let Some(end) = page.last().map(|entry| entry.key.clone()) else { return Ok(()) };
            for entry in page {
                each(&entry.key, &entry.value.bytes);
            }
            last = Some(end);
        }
    }
}
