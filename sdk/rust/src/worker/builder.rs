//! Settings of a worker, and attaching with them.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use ringway_access::{Credentials, LinkAddress};
use ringway_ipc::arena::{Arena, ArenaConfig};
use ringway_ipc::channel::ChannelConfig;
use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::waiter::{SpinPolicy, WaitMode};
use ringway_protocol::control::{self as wire, Hello};
use ringway_protocol::{CallError, ErrorCode, WorkerId};
use serde_json::Value;

use crate::address::{self, CREDENTIALS_VARIABLE, ControlAddress};
use crate::callee::FunctionTable;
use crate::control::{Control, ControlConfig, Destination, Events};
use crate::dispatcher::{self, Dispatcher};
use crate::executor::{BoxFuture, Pool, Spawner};
use crate::memory::{ZoneOf, Zones, tell_of_freed_segments};
use crate::routes::Routes;
use crate::sampler::Sampler;
use crate::telemetry::Telemetry;
use crate::worker::{Generations, Inner, Leave, Worker, housekeeping};

/// Slots of a ring unless set otherwise: 64 KiB a direction.
const SLOT_COUNT: u32 = 256;

/// How long a call waits that names no time itself.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a channel of this worker's may lie idle before it is closed, and freed memory before it is given back.
const IDLE_CLOSE: Duration = Duration::from_secs(60);

/// Settings of a worker.
pub struct Builder {
    name: String,
    namespace: Option<String>,
    zone: Option<String>,
    description: Option<String>,
    metadata: Option<Value>,
    address: Option<String>,
    project: Option<String>,
    credentials: Option<Arc<Credentials>>,
    wait_mode: Option<WaitMode>,
    pin: Option<usize>,
    threads: usize,
    slot_count: u32,
    arena: ArenaConfig,
    default_timeout: Option<Duration>,
    attach_timeout: Duration,
    wait_for_engine: bool,
    reconnect: bool,
    sampler: Option<Sampler>,
    spawner: Option<Arc<Spawner>>,
    runtime: String,
    version: String,
    os: Option<String>,
    id: Option<WorkerId>,
    zone_of: Option<Arc<ZoneOf>>,
    idle_close: Option<Duration>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: None,
            zone: None,
            description: None,
            metadata: None,
            address: None,
            project: None,
            credentials: None,
            wait_mode: None,
            pin: None,
            threads: 64,
            slot_count: SLOT_COUNT,
            arena: ArenaConfig::default(),
            default_timeout: Some(DEFAULT_TIMEOUT),
            attach_timeout: Duration::from_secs(5),
            wait_for_engine: false,
            reconnect: true,
            sampler: None,
            spawner: None,
            runtime: "rust".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            os: None,
            id: None,
            zone_of: None,
            idle_close: Some(IDLE_CLOSE),
        }
    }

    /// Where the engine is: the path of its socket, `@name` for one without a file, or `ringway://host:port` for one on
    /// another host, which wants [`Self::credentials`]. The default is `RINGWAY_SOCKET`, then `RINGWAY_PROJECT` or `default`
    /// in the user's runtime directory.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// What opens the door of an engine on another host, as `ringway link new` writes it. Without it, the file that
    /// `RINGWAY_CREDENTIALS` names is read.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(Arc::new(credentials));
        self
    }

    /// The project whose engine is wanted, in the user's runtime directory.
    #[must_use]
    pub fn project(mut self, project: impl Into<String>) -> Self {
        self.project = Some(project.into());
        self
    }

    /// The namespace of all that this worker registers and calls; `default` unless set.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The zone to ask for.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// What the worker is for.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Anything its author wants to say.
    #[must_use]
    pub fn metadata(mut self, value: Value) -> Self {
        self.metadata = Some(value);
        self
    }

    /// How the worker waits; the environment variable `RINGWAY_WAIT` (`latency`, `balanced`, `efficient`) unless set.
    #[must_use]
    pub fn wait_mode(mut self, mode: WaitMode) -> Self {
        self.wait_mode = Some(mode);
        self
    }

    /// The core to pin the dispatcher's thread to, in `latency` mode.
    #[must_use]
    pub fn pin(mut self, core: usize) -> Self {
        self.pin = Some(core);
        self
    }

    /// Pooled handlers that run at once, not counting those that wait in nested calls.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Slots of each ring that this worker writes, a power of two from 2 to 65536.
    #[must_use]
    pub fn slot_count(mut self, slots: u32) -> Self {
        self.slot_count = slots;
        self
    }

    /// Sizes and limits of the worker's arena.
    #[must_use]
    pub fn arena(mut self, config: ArenaConfig) -> Self {
        self.arena = config;
        self
    }

    /// How long a call waits that names no time itself; `None` for ever. 30 s unless set.
    #[must_use]
    pub fn default_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.default_timeout = timeout;
        self
    }

    /// How long attaching may take. 5 s unless set.
    #[must_use]
    pub fn attach_timeout(mut self, timeout: Duration) -> Self {
        self.attach_timeout = timeout;
        self
    }

    /// Waits for an engine that is not there yet, as long as attaching may take.
    #[must_use]
    pub fn wait_for_engine(mut self) -> Self {
        self.wait_for_engine = true;
        self
    }

    /// Stays away when the engine goes, instead of attaching again when it is back.
    #[must_use]
    pub fn without_reconnect(mut self) -> Self {
        self.reconnect = false;
        self
    }

    /// How long a channel that this worker opened may lie idle before it is closed and its memory given back; `None` for
    /// ever. 60 s unless set. The next call opens it again.
    #[must_use]
    pub fn idle_close(mut self, after: Option<Duration>) -> Self {
        self.idle_close = after;
        self
    }

    /// Which calls are traced; as the `OTEL_TRACES_SAMPLER` variables say unless set.
    #[must_use]
    pub fn sampler(mut self, sampler: Sampler) -> Self {
        self.sampler = Some(sampler);
        self
    }

    /// Runs async handlers on a runtime of the user's: `.spawner(move |future| { handle.spawn(future); })` with a tokio
    /// handle. Without it they run on the worker's own threads, polled first where they arrive.
    #[must_use]
    pub fn spawner(mut self, spawn: impl Fn(BoxFuture) + Send + Sync + 'static) -> Self {
        self.spawner = Some(Arc::new(spawn));
        self
    }

    /// What the worker is written in, for bindings.
    #[must_use]
    pub fn runtime(mut self, runtime: impl Into<String>) -> Self {
        self.runtime = runtime.into();
        self
    }

    /// The version of the SDK that the worker uses, for bindings.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// The operating system that the worker runs on, where it is not this one's.
    #[must_use]
    pub fn os(mut self, os: impl Into<String>) -> Self {
        self.os = Some(os.into());
        self
    }

    /// The worker's id, for whoever has to know it before it is attached. All others draw one at each start.
    #[doc(hidden)]
    #[must_use]
    pub fn id(mut self, id: WorkerId) -> Self {
        self.id = Some(id);
        self
    }

    /// Keeps the zones of its peers apart, for the engine, whose own worker alone talks to several: what is sent to one
    /// zone never lies in memory that another can read.
    #[doc(hidden)]
    #[must_use]
    pub fn zone_of(mut self, zone_of: impl Fn(WorkerId) -> Option<String> + Send + Sync + 'static) -> Self {
        self.zone_of = Some(Arc::new(zone_of));
        self
    }

    /// Attaches.
    ///
    /// # Errors
    /// `engine_unavailable` when no engine answers, or what the engine refused the worker with.
    pub fn connect(self) -> Result<Worker, CallError> {
        let failed = |error: std::io::Error| {
            CallError::new(ErrorCode::OutOfMemory, format!("the worker could not be set up: {error}"))
        };
        let address = address::control_address(self.address.as_deref(), self.project.as_deref());
        let destination = destination(&address, self.credentials)?;
        let mode = self.wait_mode.unwrap_or_else(|| {
            std::env::var("RINGWAY_WAIT").ok().and_then(|word| WaitMode::parse(&word)).unwrap_or_default()
        });
        let id = self.id.unwrap_or_else(random_id);
        let bell = Doorbell::new().map_err(failed)?;
        let barrier_registered = ringway_ipc::sys::barrier::register();
        // An efficient worker parks at once, so its producers rather pay for a fence than it for a barrier.
        let barrier_before_sleep = barrier_registered && mode != WaitMode::Efficient;
        let policy = Arc::new(SpinPolicy::new(mode));
        let telemetry = Telemetry::new(id);
        let sampler = self.sampler.unwrap_or_else(Sampler::from_environment);
        let namespace =
            self.namespace.unwrap_or_else(|| ringway_protocol::naming::NAMESPACE_DEFAULT.to_owned());
        let inner = Arc::new(Inner {
            id,
            name: self.name.clone(),
            namespace: namespace.clone(),
            functions: FunctionTable::default(),
            routes: Routes::default(),
            dispatcher: Dispatcher::new(bell.clone(), Arc::clone(&policy)),
            policy,
            zones: self.zone_of.map(|zone_of| Zones::new(zone_of, self.arena.clone())),
            arena: Arena::new(self.arena),
            pool: Pool::new("ringway", self.threads),
            spawner: self.spawner,
            telemetry: Arc::clone(&telemetry),
            sampler,
            default_timeout: self.default_timeout,
            barrier_before_sleep,
            pin: self.pin,
            engine_id: AtomicU64::new(0),
            _latency_hold: (mode == WaitMode::Latency)
                .then(|| ringway_ipc::sys::machine::hold_latency(0).ok())
                .flatten(),
            control: OnceLock::new(),
            providers: Mutex::default(),
            awaited: Mutex::default(),
            adopting: Mutex::default(),
            registering: Mutex::new(Generations::default()),
            draining: AtomicBool::new(false),
            panics: AtomicU64::new(0),
        });
        crate::inspect::install(&inner);
        tell_of_freed_segments(&inner.arena, Arc::downgrade(&inner));
        if let Some(zones) = &inner.zones {
            zones.belong_to(&inner);
        }
        dispatcher::start(&inner).map_err(failed)?;
        // From here on the worker leaves properly even when attaching fails.
        let leave = Arc::new(Leave(Arc::clone(&inner)));

        let hello = Hello {
            namespace,
            runtime: self.runtime,
            sdk_version: self.version,
            zone: self.zone,
            description: self.description,
            metadata: self.metadata,
            wait_mode: match mode {
                WaitMode::Latency => wire::WaitMode::Latency,
                WaitMode::Balanced => wire::WaitMode::Balanced,
                WaitMode::Efficient => wire::WaitMode::Efficient,
            },
            started_at_ms: ringway_ipc::clock::unix_ns() / 1_000_000,
            ..Hello::new(id, self.name, std::process::id())
        };
        let channel = ChannelConfig {
            channel: 0,
            worker: id.get(),
            peer_worker: 0,
            worker_bell: bell,
            slot_count: self.slot_count,
            segment_bytes_max: ringway_ipc::limits::SEGMENT_BYTES_MAX,
            barrier_registered,
            barrier_before_sleep,
        };
        let hello = Hello { os: self.os.unwrap_or_else(|| hello.os.clone()), ..hello };
        let config = ControlConfig {
            address,
            destination: destination.map(|(address, credentials)| {
                let links = Arc::clone(&inner.dispatcher.links);
                Destination { address, credentials, links }
            }),
            hello,
            telemetry: Some(telemetry),
            channel,
            attach_timeout: self.attach_timeout,
            wait_for_engine: self.wait_for_engine,
            reconnect: self.reconnect,
        };
        let events: Weak<Inner> = Arc::downgrade(&inner);
        let events: Weak<dyn Events> = events;
        let control = Control::start(config, events)?;
        let _first = inner.control.set(control);
        if let Some(after) = self.idle_close {
            housekeeping::start(&inner, after);
        }
        Ok(Worker { inner, _leave: Some(leave) })
    }
}

/// The link to dial, if the address is one of another host.
fn destination(
    address: &ControlAddress,
    credentials: Option<Arc<Credentials>>,
) -> Result<Option<(LinkAddress, Arc<Credentials>)>, CallError> {
    if !address.is_link() {
        return Ok(None);
    }
    let bad = |error: String| CallError::new(ErrorCode::InvalidRequest, error);
    let parsed: LinkAddress = address
        .as_str()
        .parse()
        .map_err(|error: ringway_access::address::AddressError| bad(error.to_string()))?;
    let credentials = match (credentials, std::env::var_os(CREDENTIALS_VARIABLE)) {
        (Some(credentials), _) => credentials,
        (None, Some(path)) if !path.is_empty() => {
            let path = std::path::PathBuf::from(path);
            let read = Credentials::from_file(&path);
            Arc::new(read.map_err(|error| bad(format!("{CREDENTIALS_VARIABLE}: {error}")))?)
        }
        _ => Arc::default(),
    };
    Ok(Some((parsed, credentials)))
}

fn random_id() -> WorkerId {
    loop {
        let id = crate::sampler::random_u64();
        if id != 0 {
            return WorkerId::new(id);
        }
    }
}
