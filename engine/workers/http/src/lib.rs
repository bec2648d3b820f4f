//! The HTTP front door: triggers of type `http` bind functions to paths. A request finds its route in an immutable tree, is
//! held against limits, authentication and whatever else its route wants, and becomes a call of the function; what comes back
//! becomes the answer.
//!
//! Where to start: `door` is the way of a request, `exchange` what happens to one of a route, `routes` how a route is found,
//! `config` what can be set. `request` and `response` have the shapes of iii. This crate must not know the engine.

#![forbid(unsafe_code)]

pub mod config;

pub mod routes;

pub mod webhook;

mod problem;

mod body;

mod rate;

mod proxy;

mod cors;

mod auth;

mod route;

mod request;

mod response;

mod call;

mod middleware;

mod idempotency;

mod exchange;

mod streams;

mod socket;

mod files;

mod openapi;

mod mount;

mod finish;

mod door;

mod serve;

mod tls;

mod admin;

mod trigger;

#[cfg(fuzzing)]
pub mod fuzzing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use parking_lot::Mutex;
use ringway::protocol::control::TriggerTypeSpec;
use ringway::{CallError, WaitMode, Worker};
use ringway_store::Store;
use ringway_worker_kit::Clock;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};

pub use config::{Config, ConfigError};
pub use mount::Mounts;

use config::route::RouteConfig;
use door::Door;
use idempotency::Ledger;
use serve::Ending;
use tls::Certificates;
use trigger::Provider;

/// The trigger type that this worker provides.
pub const TRIGGER_TYPE: &str = "http";

/// How often what was remembered long enough is forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// Why the worker could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings are wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// It cannot listen there.
    #[error("cannot listen at {address}: {reason}; choose another `{key}`, or end what listens there")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: std::io::Error,
        /// The setting that says so.
        key: &'static str,
    },
    /// A certificate or a key cannot be used.
    #[error("`tls`: {0}")]
    Tls(String),
    /// The engine refused it, or there is none.
    #[error(transparent)]
    Engine(#[from] CallError),
    /// The system gives no more threads.
    #[error("the HTTP worker could not be set up: {0}")]
    System(#[from] std::io::Error),
}

/// The HTTP front door. Dropping it, or shutting it down, ends it, in peace if requests end in time.
#[derive(Debug)]
pub struct Http {
    door: Arc<Door>,
    runtime: Option<Runtime>,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    tell: watch::Sender<bool>,
    left: Mutex<mpsc::Receiver<()>>,
}

impl Http {
    /// Listens, attaches to the engine at an address, and provides the trigger type `http`. What is remembered of requests
    /// goes into the store.
    ///
    /// # Errors
    /// [`StartError`]: the settings are wrong, somebody listens there, the engine refuses.
    pub fn start(address: &str, store: Arc<dyn Store>, config: Config) -> Result<Self, StartError> {
        Self::start_with(address, store, config, Clock::system())
    }

    /// As [`Self::start`], with a clock for what is remembered.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        address: &str,
        store: Arc<dyn Store>,
        config: Config,
        clock: Clock,
    ) -> Result<Self, StartError> {
        Self::begin(address, store, config, clock, Mounts::default())
    }

    /// As [`Self::start`], with routers of others, which may come and go while it runs.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_mounting(
        address: &str,
        store: Arc<dyn Store>,
        config: Config,
        mounts: Mounts,
    ) -> Result<Self, StartError> {
        Self::begin(address, store, config, Clock::system(), mounts)
    }

    fn begin(
        address: &str,
        store: Arc<dyn Store>,
        config: Config,
        clock: Clock,
        mounts: Mounts,
    ) -> Result<Self, StartError> {
        config.check()?;
        mounts.set_public(config.behind_proxy || !config.host.is_loopback());
        let certificates =
            config.tls.as_ref().map(Certificates::read).transpose().map_err(StartError::Tls)?;
        let certificates = certificates.map(Arc::new);
        let runtime = Builder::new_multi_thread()
            .worker_threads(config.threads())
            .thread_name("ringway-http")
            .enable_all()
            .build()?;
        let listener = listen(&runtime, SocketAddr::new(config.host, config::PORT), config.port, "port")?;
        let address_there = listener.local_addr()?;
        let admin = if config.admin.enabled {
            let usual = SocketAddr::new(config.admin.host, config::ADMIN_PORT);
            Some(listen(&runtime, usual, config.admin.port, "admin.port")?)
        } else {
            None
        };
        let admin_there = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        let worker = Worker::builder("http")
            .address(address)
            .description("Calls functions for requests of HTTP")
            .default_timeout(None)
            // Many requests wait at a time, and what they wait for goes over a socket: a spin would take the time of those who
            // answer, and a barrier before each sleep would interrupt them.
            .wait_mode(WaitMode::Efficient)
            .connect()?;
        let ledger = Ledger::new(store, clock.clone());
        let sweeper = ledger.clone();
        let door = Door::new(config, worker.clone(), ledger, clock, mounts).map_err(ConfigError)?;
        let door = Arc::new(door);
        let (tell, told) = watch::channel(false);
        let (left, gone) = mpsc::channel(1);
        let ending = Ending { told, left };
        runtime.spawn(serve::accept(listener, Arc::clone(&door), certificates.clone(), ending.clone()));
        if let Some(admin) = admin {
            runtime.spawn(admin::accept(admin, Arc::clone(&door), ending));
        }
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                while sweeper.sweep().await {}
            }
        });
        if let Some(certificates) = certificates {
            let every = door.config.tls.as_ref().map_or(SWEEP, |tls| Duration::from_millis(tls.reload_ms));
            runtime.spawn(async move {
                loop {
                    tokio::time::sleep(every).await;
                    let certificates = Arc::clone(&certificates);
                    let _panicked = tokio::task::spawn_blocking(move || certificates.look()).await;
                }
            });
        }
        let http = Self {
            door: Arc::clone(&door),
            runtime: Some(runtime),
            address: address_there,
            admin: admin_there,
            tell,
            left: Mutex::new(gone),
        };
        worker.register_all(trigger::functions(&door, address_there))?;
        worker.register_trigger_type(
            TriggerTypeSpec {
                id: TRIGGER_TYPE.to_owned(),
                description: "Calls a function for requests of HTTP with a method and a path".to_owned(),
                configuration_schema: Some(schemars::schema_for!(RouteConfig).to_value()),
                request_schema: None,
                response_schema: None,
            },
            Provider::new(&door),
        )?;
        tracing::info!(target: "ringway", address = %address_there, admin = ?admin_there, "HTTP is served");
        Ok(http)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is asked whether it lives.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Serves a router below a path: see [`Mounts::mount`].
    pub fn mount(&self, path: &str, router: Router) {
        self.door.mounts.mount(path, router);
    }

    /// Ends it, as dropping it does.
    pub fn shut_down(self) {
        drop(self);
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.door.is_ending.store(true, Ordering::Relaxed);
        let _nobody_listens = self.tell.send(true);
        if let Some(runtime) = self.runtime.take() {
            let patience = Duration::from_millis(self.door.config.drain_ms_max);
            let mut left = self.left.lock();
            // When nobody serves any more, nobody holds the other end.
            let ended = runtime.block_on(async { tokio::time::timeout(patience, left.recv()).await });
            if ended.is_err() {
                tracing::warn!(target: "ringway", "requests went on for longer than they may at the end, and were cut short");
            }
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
        self.door.worker.shut_down();
    }
}

/// Listens at an address with the port that is set, or with the usual one; where that is taken, and nobody asked for it, with
/// any that is free, so that several engines run on one machine.
fn listen(
    runtime: &Runtime,
    usual: SocketAddr,
    port: Option<u16>,
    key: &'static str,
) -> Result<TcpListener, StartError> {
    let address = SocketAddr::new(usual.ip(), port.unwrap_or_else(|| usual.port()));
    match runtime.block_on(TcpListener::bind(address)) {
        Ok(listener) => Ok(listener),
        Err(reason) if port.is_none() && reason.kind() == std::io::ErrorKind::AddrInUse => {
            let free = SocketAddr::new(usual.ip(), 0);
            let listener = runtime.block_on(TcpListener::bind(free));
            let listener = listener.map_err(|reason| StartError::Listen { address: free, reason, key })?;
            let there = listener.local_addr()?;
            tracing::warn!(target: "ringway", taken = %address, address = %there, "another port was taken; set `{key}` for a certain one");
            Ok(listener)
        }
        Err(reason) => Err(StartError::Listen { address, reason, key }),
    }
}
