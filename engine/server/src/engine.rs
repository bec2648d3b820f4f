//! The engine as its embedder sees it: started by a builder, stopped by a call or by dropping it. It installs no signal
//! handlers and leaves no thread behind.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Poll, Waker};
use parking_lot::Mutex;
use ringway::Worker;
use ringway_engine_core::{Config, Core, Event, Policy};
use ringway_ipc::packet::BindError;
use ringway_ipc::sys::process;
use ringway_protocol::ids::WorkerId;
use ringway_protocol::{CallError, ErrorCode};
use ringway_telemetry::otlp::{ConfigError, ExportConfig};
use ringway_telemetry::{Collector, Exporter};

use crate::builtin::{self, Builtin};
use crate::config::{EngineBuilder, Otlp};
use crate::control::{Control, Listeners, WAKER};
use crate::counters::CountersReport;
use crate::limits;
use crate::shared::{Command, Shared, clock_anchor, now_ns};
use crate::telemetry::Telemetry;

/// How often a drain looks whether it is cut short.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A control socket could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A zone's name is empty, too long or the engine's own.
    #[error(
        "wanted a zone name of 1 to {} bytes other than `default`, found `{zone}`",
        ringway_protocol::limits::NAME_BYTES_MAX
    )]
    Zone {
        /// The name.
        zone: String,
    },
    /// A control socket was named in a directory that is not there.
    #[error(
        "wanted a directory for the control socket {address}, found none at {}; make it (mode 0700), or name another address",
        directory.display()
    )]
    NoDirectory {
        /// The socket.
        address: String,
        /// Its directory.
        directory: PathBuf,
    },
    /// The `OTEL_…` variables ask for something that is not there.
    #[error("cannot export telemetry: {0}")]
    Otlp(#[from] ConfigError),
    /// The exporter did not start.
    #[error("cannot start the export of telemetry: {0}")]
    Export(#[source] io::Error),
    /// The engine's own worker could not attach.
    #[error("the engine's own worker cannot attach: {0}")]
    Builtin(#[source] Box<CallError>),
    /// Threads or descriptors ran out.
    #[error("cannot {step}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    telemetry: Telemetry,
    address: String,
    threads: Mutex<Vec<JoinHandle<()>>>,
    hurry: AtomicBool,
    /// Whether workers were told that it stops.
    announced: AtomicBool,
    builtin: Mutex<Option<Builtin>>,
}

impl Engine {
    /// Begins to describe an engine; [`EngineBuilder::start`] starts it.
    #[must_use]
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
    }

    pub(crate) fn start(builder: EngineBuilder) -> Result<Self, StartError> {
        builder.check()?;
        let failed = |step| move |source| StartError::System { step, source };
        let address = builder.control_address().as_str().to_owned();
        let listeners = Listeners::bind(&address, &builder)?;
        let exporter = match builder.otlp {
            Otlp::Environment => start_export()?,
            Otlp::Off => None,
        };
        let collector = Collector::new(builder.store_limits, clock_anchor(), exporter);
        let poll = Poll::new().map_err(failed("make a poll"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(failed("make a waker"))?;
        let engine_id = WorkerId::new(random());
        let core = Core::new(core_config(&builder, engine_id));
        let (shared, commands) = Shared::new(engine_id, core, collector, waker);
        let (telemetry, telemetry_thread) =
            Telemetry::start(Arc::clone(&shared)).map_err(failed("start the telemetry thread"))?;
        // From here on dropping the engine ends what was started.
        let engine = Self {
            shared: Arc::clone(&shared),
            telemetry: telemetry.clone(),
            address,
            threads: Mutex::new(vec![telemetry_thread]),
            hurry: AtomicBool::new(false),
            announced: AtomicBool::new(false),
            builtin: Mutex::new(None),
        };
        let control = Control::new(poll, Arc::clone(&shared), telemetry, commands, listeners)
            .map_err(failed("wait for the control socket"))?;
        let thread =
            std::thread::Builder::new().name("ringway-engine".to_owned()).spawn(move || control.run());
        engine.threads.lock().push(thread.map_err(failed("start the control thread"))?);
        let builtin =
            Builtin::start(&shared, &engine.address).map_err(|error| StartError::Builtin(Box::new(error)))?;
        *engine.builtin.lock() = Some(builtin);
        tracing::info!(address = engine.address, id = %engine_id, "the engine runs");
        Ok(engine)
    }

    /// Returns where workers attach.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Returns the id of the engine's own worker.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.shared.engine_id
    }

    /// Returns what the control plane counted.
    #[must_use]
    pub fn counters(&self) -> CountersReport {
        self.shared.counters.report()
    }

    /// Returns the store of traces and logs. Whoever holds its lock holds up the telemetry thread.
    #[must_use]
    pub fn collector(&self) -> Arc<Mutex<Collector>> {
        Arc::clone(&self.shared.collector)
    }

    /// Changes who may call what, from now on, also for channels that are open.
    pub fn set_policy(&self, policy: Policy) {
        self.shared.tell(Command::Event(Box::new(Event::PolicyChanged { policy })));
    }

    /// Begins to stop: accepts nobody any more, tells all workers, and waits until those of other processes have ended the
    /// calls that they work on, at most `drain`. Everything still answers meanwhile, so that what they have begun can be
    /// finished. Blocks. Returns whether all have ended.
    pub fn drain_workers(&self, drain: Duration) -> bool {
        let drain = drain.min(limits::DRAIN_MAX);
        let until = Instant::now() + drain;
        self.announce(drain);
        // A handle of its own: a call to a worker that does not answer must not hold the lock.
        let Some(own) = self.builtin.lock().as_ref().map(|builtin| builtin.worker.clone()) else {
            return true;
        };
        loop {
            if !self.foreign_workers().into_iter().any(|worker| is_busy(&own, worker)) {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now()).min(DRAIN_STEP);
            if left.is_zero() || self.hurry.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(left);
        }
    }

    /// The workers of other processes.
    fn foreign_workers(&self) -> Vec<WorkerId> {
        let own = std::process::id();
        let core = self.shared.core.read();
        let foreign = core
            .workers()
            .filter(|(_, worker)| worker.credentials.pid != own || worker.hello.remote.is_some());
        foreign.map(|(id, _)| id).collect()
    }

    /// Accepts nobody any more and tells all workers, once.
    fn announce(&self, drain: Duration) {
        if self.announced.swap(true, Ordering::Relaxed) {
            return;
        }
        self.shared.tell(Command::CloseListeners);
        let drain_ms = u64::try_from(drain.as_millis()).unwrap_or(u64::MAX);
        let reason = "the engine was told to stop".to_owned();
        self.shared.tell(Command::Event(Box::new(Event::Stopping { reason, drain_ms })));
    }

    /// Stops: accepts nobody any more, tells all workers, lets the engine's own worker finish its calls for at most
    /// `drain`, sends off what is to be exported, and ends all threads. Channels between workers stay open. Blocks. A second
    /// call does nothing.
    pub fn shutdown(&self, drain: Duration) {
        let threads = std::mem::take(&mut *self.threads.lock());
        if threads.is_empty() {
            return;
        }
        let drain = drain.min(limits::DRAIN_MAX);
        let begun = Instant::now();
        self.announce(drain);
        if let Some(builtin) = self.builtin.lock().take() {
            self.drain(&builtin, begun + drain);
            builtin.stop();
        }
        self.shared.tell(Command::Stop);
        self.telemetry.stop();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine panicked");
            }
        }
        let exporter = self.shared.collector.lock().take_exporter();
        if let Some(exporter) = exporter {
            let left = drain.saturating_sub(begun.elapsed()).max(Duration::from_millis(100));
            exporter.shutdown(left.min(limits::EXPORT_TIME_MAX));
        }
        tracing::info!(address = self.address, "the engine has stopped");
    }

    /// Waits until the engine's own worker has finished its calls, or `until`, or [`Self::stop_now`].
    fn drain(&self, builtin: &Builtin, until: Instant) {
        loop {
            let left = until.saturating_duration_since(Instant::now()).min(DRAIN_STEP);
            if builtin.worker.drain(left) || left.is_zero() || self.hurry.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Cuts a [`Self::shutdown`] or [`Self::drain_workers`] that is under way short.
    pub fn stop_now(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shutdown(Duration::ZERO);
    }
}

/// Whether a worker works on calls. One that is too busy to say so does; one that has gone does not.
fn is_busy(own: &Worker, worker: WorkerId) -> bool {
    match builtin::activity(own, worker) {
        Ok(calls) => calls > 0,
        Err(error) => error.code == ErrorCode::DeadlineExceeded,
    }
}

fn start_export() -> Result<Option<Exporter>, StartError> {
    let config = ExportConfig::from_env()?;
    for warning in &config.warnings {
        tracing::warn!(warning, "export of telemetry");
    }
    Exporter::start(&config).map_err(StartError::Export)
}

fn core_config(builder: &EngineBuilder, engine_id: WorkerId) -> Config {
    let anchor = clock_anchor();
    Config {
        engine_id,
        engine_pid: std::process::id(),
        engine_version: env!("CARGO_PKG_VERSION").to_owned(),
        unix_anchor_ms: anchor.unix_ns(0) / 1_000_000,
        zones: builder.zones(process::user_id()),
        policy: builder.policy.clone(),
        limits: builder.limits,
    }
}

/// A number that no other engine draws. The standard library's hash keys come from the system's random source.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(now_ns());
    hasher.finish().max(1)
}
