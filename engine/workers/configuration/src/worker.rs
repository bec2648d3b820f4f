//! The worker itself: attaches, registers, owns the thread that delivers, and ends all of it in order. It must not know
//! what its functions do.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ringway::{CallError, Worker};
use ringway_store::Store;
use ringway_worker_kit::{Bindings, Clock};

use crate::config::Config;
use crate::entries::Entries;
use crate::store::Shelf;
use crate::{functions, trigger};

/// The worker's name.
const NAME: &str = "configuration";

/// How long calls may end, and changes be told, when the worker is shut down.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Why the worker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It could not attach, or a function or trigger type was refused.
    #[error("the worker `{NAME}` cannot serve: {0}")]
    Attach(#[from] Box<CallError>),
    /// There is no thread to be had.
    #[error("the worker `{NAME}` cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl From<CallError> for StartError {
    fn from(error: CallError) -> Self {
        Self::Attach(Box::new(error))
    }
}

/// The running worker. Dropping it shuts it down.
#[derive(Debug)]
pub struct Configuration {
    worker: Worker,
    entries: Arc<Entries>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Configuration {
    /// Attaches to the engine at an address and serves from a store. When this returns, its functions can be called.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind.
    pub fn start(address: &str, store: Arc<dyn Store>, config: Config) -> Result<Self, StartError> {
        Self::start_with(address, store, config, Clock::system())
    }

    /// As [`Configuration::start`], with the time that versions carry.
    ///
    /// # Errors
    /// As [`Configuration::start`].
    pub fn start_with(
        address: &str,
        store: Arc<dyn Store>,
        config: Config,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let builder = Worker::builder(NAME).address(address);
        let worker = builder.description("configurations, checked and versioned").connect()?;
        let config = Arc::new(ArcSwap::from_pointee(config));
        let entries = Arc::new(Entries { shelf: Shelf(store), events: Arc::default(), config, clock });
        let (bindings, provider) = Bindings::provider(trigger::watch);
        let thread = deliverer(&worker, &entries, bindings).map_err(StartError::Thread)?;
        // From here on dropping it ends the thread.
        let started = Self { worker, entries, thread: Mutex::new(Some(thread)) };
        started.worker.register_trigger_type(trigger::spec(), provider)?;
        started.worker.register_all(functions::all(&started.entries))?;
        Ok(started)
    }

    /// Puts other settings into force, for calls that begin from now on.
    pub fn reconfigure(&self, config: Config) {
        self.entries.config.store(Arc::new(config));
    }

    /// Ends in order: takes no new calls, lets those that run end and changes be told, for five seconds each at most, and
    /// leaves. A second call does nothing.
    pub fn shut_down(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        if !self.worker.drain(END_WITHIN) {
            tracing::warn!("calls of the worker `{NAME}` had not ended when it left");
        }
        self.entries.events.end(END_WITHIN);
        // Ends the call that a slow function still holds.
        self.worker.shut_down();
        if thread.join().is_err() {
            tracing::error!("the thread that tells of changes panicked");
        }
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn deliverer(
    worker: &Worker,
    entries: &Entries,
    bindings: Bindings<trigger::Watch>,
) -> io::Result<JoinHandle<()>> {
    let (worker, events) = (worker.clone(), Arc::clone(&entries.events));
    let config = Arc::clone(&entries.config);
    let timeout = move || Duration::from_millis(config.load().delivery_timeout_ms);
    let deliver = move || events.deliver_all(&worker, &bindings, &timeout);
    thread::Builder::new().name("configuration".to_owned()).spawn(deliver)
}
