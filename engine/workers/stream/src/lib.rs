//! The built-in worker `stream`: items in groups, and a log with offsets for each group, durable, with triggers, consumers and
//! subscriptions. A worker like any other, written against the public SDK; [`Stream::start`] attaches it to an engine and
//! [`Stream`] ends it. It must not know who embeds it.
//!
//! Start with `core`, where a request becomes a commit and a commit becomes news; `plan` says what requests do, `ahead` how
//! many writers of one group share a commit, `delivery` how functions of triggers hear of it. The README has the formats on
//! disk.

#![forbid(unsafe_code)]

mod ahead;
mod backend;
mod config;
mod core;
mod delivery;
mod error;
mod functions;
mod gate;
mod hub;
mod janitor;
pub mod limits;
mod place;
mod plan;
mod reader;
mod record;
mod registry;
mod requests;
mod tables;
mod trigger;
mod wrapper;

use std::sync::Arc;

use parking_lot::Mutex;
use ringway::Worker;
use ringway_store::Store;
use ringway_worker_kit::{Alarm, Bindings, Crew};

pub use config::{Config, StreamConfig, StreamDurability};
pub use error::StartError;
pub use ringway_worker_kit::Clock;

use crate::core::{Core, News};
use crate::delivery::Delivery;
use crate::gate::Gate;
use crate::janitor::Timer;

/// The worker, attached. Dropping it ends it.
#[derive(Debug)]
pub struct Stream {
    core: Arc<Core>,
    worker: Worker,
    /// The threads, until it is shut down: those that run futures, and the one that wakes them.
    threads: Mutex<Option<(Crew, Alarm)>>,
}

impl Stream {
    /// Attaches to the engine at an address, takes up what the store has from before, registers functions and the trigger
    /// types. Costs a read of the triggers that were bound.
    ///
    /// # Errors
    /// A setting out of bounds, a store that cannot be read, an engine that is not there or has another such worker.
    pub fn start(address: &str, store: Arc<dyn Store>, config: Config) -> Result<Self, StartError> {
        Self::start_with_clock(address, store, config, Clock::system())
    }

    /// As [`Stream::start`], with a clock of the caller's.
    ///
    /// # Errors
    /// As [`Stream::start`].
    pub fn start_with_clock(
        address: &str,
        store: Arc<dyn Store>,
        config: Config,
        clock: Clock,
    ) -> Result<Self, StartError> {
        config.check().map_err(StartError::Config)?;
        let alarm = Alarm::start("stream-alarm", clock)?;
        let crew = Crew::start("stream", config.threads)?;
        let spawner = crew.spawner();
        let (timer, nudged) = Timer::new();
        let (hub, delivery) = (Arc::default(), Delivery::new(spawner.clone()));
        let (join, asked) = Bindings::provider(trigger::parse);
        let (leave, told) = Bindings::provider(trigger::parse);
        let news = News { hub, delivery, timer };
        let core = Core::new(store, config, alarm.bell(), spawner.clone(), news, Gate { join, leave })?;
        let core = Arc::new(core);
        core.news.delivery.recover(&core)?;
        let worker = Worker::builder("stream")
            .address(address)
            .description("Items in groups, and logs with offsets: durable, with triggers and subscriptions")
            .connect()?;
        core.news.delivery.attach(Arc::downgrade(&core), worker.clone());
        // From here on, dropping it ends it.
        let stream = Self { core, worker, threads: Mutex::new(Some((crew, alarm))) };
        spawner.spawn(janitor::run(Arc::downgrade(&stream.core), nudged));
        let (bindings, fired) = Bindings::provider(trigger::parse);
        if stream.core.config.triggers_enabled {
            let (weak, changed) = (Arc::downgrade(&stream.core), bindings.clone());
            bindings.on_change(move || {
                if let Some(core) = weak.upgrade() {
                    core.news.delivery.follow(&core, &changed);
                }
            });
        }
        let [of_entries, of_joins, of_leaves] = trigger::specs();
        stream.worker.register_trigger_type(of_entries, fired)?;
        stream.worker.register_trigger_type(of_joins, asked)?;
        stream.worker.register_trigger_type(of_leaves, told)?;
        stream.worker.register_all(functions::all(&Arc::downgrade(&stream.core)))?;
        Ok(stream)
    }

    /// Leaves the engine and ends the threads, in order. What was acknowledged is in the store; entries that triggers were
    /// not told of yet wait there for the next start.
    pub fn shut_down(&self) {
        self.worker.shut_down();
        // The crew first: what it runs waits for the alarm, not the other way round.
        if let Some((crew, alarm)) = self.threads.lock().take() {
            drop(crew);
            drop(alarm);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shut_down();
    }
}
