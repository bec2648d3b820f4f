//! The cron worker: calls functions when a schedule says so. Each slot of a schedule is fired once, across restarts, steps of
//! the clock and the nights in which clocks are changed. Started by whoever runs an engine; a worker like any other.
//!
//! Where to start: [`schedule`] says when a job is due, `job` what becomes of each slot, `scheduler` has the thread that
//! waits, `record` what lies on disk. This crate must not know the engine.

#![forbid(unsafe_code)]

pub mod config;

pub mod schedule;

pub mod functions;

mod expression;

mod ledger;

mod job;

mod record;

mod clock;

mod delivery;

mod scheduler;

use std::sync::Arc;
use std::thread::JoinHandle;

use ringway::protocol::control::TriggerTypeSpec;
use ringway::{CallError, Worker};
use ringway_store::{Store, StoreError};
use ringway_worker_kit::{Bindings, Crew};
use serde_json::json;

pub use clock::Clock;
pub use config::Config;
pub use expression::{EXPRESSION_BYTES_MAX, ExpressionError};

use config::{Bound, JobConfig};
use scheduler::Scheduler;

/// The trigger type that this worker provides.
pub const TRIGGER_TYPE: &str = "cron";

/// Why the worker could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The engine refused it, or there is none.
    #[error(transparent)]
    Engine(#[from] CallError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives no more threads or descriptors.
    #[error("the cron worker could not be set up: {0}")]
    System(#[from] std::io::Error),
    /// The configuration names no time zone.
    #[error(
        "`timezone` of the cron worker is `{0}`: a name of the IANA database is wanted, such as `Europe/Berlin`"
    )]
    Zone(String),
}

/// The cron worker. Dropping it, or shutting it down, ends it in order: nothing new is fired, functions that run may end for
/// a while, then it leaves the engine.
#[derive(Debug)]
pub struct Cron {
    scheduler: Arc<Scheduler>,
    timer: Option<JoinHandle<()>>,
    _crew: Crew,
}

impl Cron {
    /// Attaches to the engine at an address and serves the trigger type `cron` and the functions `cron::*`.
    ///
    /// # Errors
    /// [`StartError`]: the engine or the store refuses, or the configuration names no time zone.
    pub fn start(address: &str, store: Arc<dyn Store>, config: Config) -> Result<Self, StartError> {
        Self::start_with(address, store, config, Clock::machine()?)
    }

    /// As [`Cron::start`], by a clock of one's own.
    ///
    /// # Errors
    /// As [`Cron::start`].
    pub fn start_with(
        address: &str,
        store: Arc<dyn Store>,
        config: Config,
        clock: Clock,
    ) -> Result<Self, StartError> {
        config.check()?;
        let crew = Crew::start("ringway-cron", config.threads)?;
        let zone = config.timezone.clone();
        let (bindings, provider) = Bindings::provider(move |value| Bound::parse(value, &zone));
        let scheduler = Scheduler::new(clock, config, store, bindings.clone(), crew.spawner());
        scheduler.forget()?;
        let worker = Worker::builder("cron")
            .address(address)
            .description("Calls functions when their schedule says so")
            .default_timeout(None)
            .connect()?;
        scheduler.attach(worker.clone());
        let life = Arc::clone(&scheduler);
        let timer = std::thread::Builder::new().name("ringway-cron".to_owned()).spawn(move || life.live())?;
        // From here on, dropping it ends it.
        let cron = Self { scheduler, timer: Some(timer), _crew: crew };
        let listener = Arc::downgrade(&cron.scheduler);
        bindings.on_change(move || {
            if let Some(scheduler) = listener.upgrade() {
                scheduler.bindings_changed();
            }
        });
        worker.register_all(functions::all(&cron.scheduler))?;
        worker.register_trigger_type(trigger_type(), provider)?;
        Ok(cron)
    }

    /// Ends it, as dropping it does.
    pub fn shut_down(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(timer) = self.timer.take() else { return };
        self.scheduler.stop();
        let _panicked = timer.join();
        if let Some(worker) = self.scheduler.detach() {
            worker.shut_down();
        }
    }
}

impl Drop for Cron {
    fn drop(&mut self) {
        self.end();
    }
}

fn trigger_type() -> TriggerTypeSpec {
    let text = |description: &str| json!({"type": "string", "description": description});
    TriggerTypeSpec {
        id: TRIGGER_TYPE.to_owned(),
        description: "Calls a function when a schedule says so; `config.expression` is the schedule"
            .to_owned(),
        configuration_schema: Some(schemars::schema_for!(JobConfig).to_value()),
        request_schema: Some(json!({
            "type": "object",
            "properties": {
                "trigger": {"const": "cron"},
                "job_id": text("The trigger's id"),
                "scheduled_time": text("The slot, RFC 3339: the same whenever it is delivered"),
                "actual_time": text("When the function was called, RFC 3339"),
            },
            "required": ["trigger", "job_id", "scheduled_time", "actual_time"],
        })),
        response_schema: None,
    }
}
