//! The built-in worker `state`: values by scope and key, durable, with revisions, operations, transactions, scans, triggers
//! and watches. A worker like any other, written against the public SDK; [`State::start`] attaches it to an engine and
//! [`State`] ends it. It must not know who embeds it.
//!
//! Start with `core`, where a request becomes a commit and a commit becomes news; `plan` says what requests do, `pending`
//! how many writers of one key share a commit, `delivery` how functions of triggers hear of it. The README has the formats
//! on disk.

#![forbid(unsafe_code)]

mod change;
mod config;
mod core;
mod delivery;
mod error;
mod expiry;
mod functions;
mod keys;
mod lanes;
pub mod limits;
mod outbox;
mod pending;
mod plan;
mod reader;
mod record;
mod requests;
mod tables;
mod trigger;
mod watch;

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use ringway::Worker;
use ringway_store::Store;
use ringway_worker_kit::Bindings;

pub use config::{Config, ScopeConfig, ScopeDurability};
pub use error::StartError;
pub use ringway_worker_kit::Clock;

use crate::core::Core;

/// The worker, attached. Dropping it ends it.
#[derive(Debug)]
pub struct State {
    core: Arc<Core>,
    worker: Worker,
    timer: Mutex<Option<JoinHandle<()>>>,
}

impl State {
    /// Attaches to the engine at an address, takes up what the store has from before, registers functions and the trigger
    /// type. Costs a read of the events that wait for functions.
    ///
    /// # Errors
    /// A setting out of bounds, a store that cannot be read, an engine that is not there or has another such worker.
    pub fn start(address: &str, store: Arc<dyn Store>, config: Config) -> Result<Self, StartError> {
        Self::start_with_clock(address, store, config, Clock::system())
    }

    /// As [`State::start`], with a clock of the caller's.
    ///
    /// # Errors
    /// As [`State::start`].
    pub fn start_with_clock(
        address: &str,
        store: Arc<dyn Store>,
        config: Config,
        clock: Clock,
    ) -> Result<Self, StartError> {
        config.check().map_err(StartError::Config)?;
        let core = Arc::new(Core::new(store, config, clock)?);
        outbox::recover(&core)?;
        let worker = Worker::builder("state")
            .address(address)
            .description("Values by scope and key: durable, with revisions, triggers and watches")
            .connect()?;
        let state = Self { core: Arc::clone(&core), worker: worker.clone(), timer: Mutex::default() };
        let weak = Arc::downgrade(&core);
        core.clock.on_set(move || {
            if let Some(core) = weak.upgrade() {
                core.news.timer.look();
                core.news.delivery.look();
            }
        });
        delivery::start(&core, &worker)?;
        let core_of_timer = core;
        let timer = std::thread::Builder::new().name("state-expire".to_owned());
        let timer = timer.spawn(move || expiry::run(&core_of_timer, &worker))?;
        *state.timer.lock() = Some(timer);
        state.register()?;
        Ok(state)
    }

    fn register(&self) -> Result<(), StartError> {
        let (bindings, provider) = Bindings::provider(trigger::parse);
        let (weak, changed) = (Arc::downgrade(&self.core), bindings.clone());
        bindings.on_change(move || {
            if let Some(core) = weak.upgrade() {
                core.rebound(&changed);
            }
        });
        self.worker.register_trigger_type(trigger::spec(), provider)?;
        self.worker.register_all(functions::all(&Arc::downgrade(&self.core)))?;
        Ok(())
    }

    /// Leaves the engine and ends the threads, in order. What was acknowledged is in the store; events that were not taken
    /// yet wait there for the next start. Costs the time of the function of a trigger that runs just now to be given up.
    pub fn shut_down(&self) {
        self.core.news.delivery.stop();
        self.core.news.timer.stop();
        self.worker.shut_down();
        self.core.news.delivery.wait_for_end();
        outbox::settle(&self.core, None);
        if let Some(timer) = self.timer.lock().take() {
            // A thread that panicked has said so.
            drop(timer.join());
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.shut_down();
    }
}
