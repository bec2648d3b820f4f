//! The built-in worker `http-functions`: functions that somebody else serves over HTTP. Whoever registers one says where it is
//! and what proves who asks; a call becomes a request, the response its result. iii's listener registers here what its clients
//! register with an `invocation`. A worker like any other, written against the public SDK; it must not know who embeds it.
//!
//! - `spec`: what such a function is; `rules` and `addresses`: which are allowed;
//! - `connector`: where the address behind a name is checked, when it is connected to;
//! - [`Outbound`]: requests and results, attempts, errors;
//! - `registry`: which functions there are; `functions`: how to change that.

#![forbid(unsafe_code)]

mod addresses;

mod config;

mod rules;

mod spec;

mod connector;

mod outbound;

mod registry;

mod functions;

use std::sync::Arc;

use parking_lot::Mutex;
use ringway::{CallError, Worker};
use ringway_store::{Store, StoreError};
use tokio::runtime::Runtime;

pub use addresses::ParseNetworkError;
pub use config::{Config, ConfigError, Security};
pub use connector::Resolver;
pub use outbound::{Asked, Outbound, OutboundError};
pub use spec::{Auth, Environment, Invocation, Method, SpecError, Target};

use registry::Registry;

/// The worker's name.
const NAME: &str = "http-functions";

/// Threads that wait for sockets.
const THREADS: usize = 2;

/// Why the worker could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be obeyed.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// A function of the settings cannot be called so.
    #[error("the function `{id}` of the settings: {reason}")]
    Function {
        /// Its id.
        id: String,
        /// Why.
        reason: SpecError,
    },
    /// The engine refused it, or there is none.
    #[error(transparent)]
    Engine(#[from] CallError),
    /// The store cannot be read.
    #[error("cannot read the functions that were registered: {0}")]
    Store(#[from] StoreError),
    /// The system gives no more threads.
    #[error("the worker for functions over HTTP could not be set up: {0}")]
    System(#[from] std::io::Error),
}

/// The worker, attached. Dropping it ends it.
#[derive(Debug)]
pub struct HttpFunctions {
    registry: Arc<Registry>,
    runtime: Mutex<Option<Runtime>>,
}

impl HttpFunctions {
    /// Attaches to the engine at an address and registers its functions, those of the settings, and those that were registered
    /// to stay.
    ///
    /// # Errors
    /// [`StartError`]: the settings, the store, the engine or the system.
    pub fn start(address: &str, store: Arc<dyn Store>, config: Config) -> Result<Self, StartError> {
        Self::start_with(address, store, config, Environment::of_process(), Resolver::of_system())
    }

    /// As [`HttpFunctions::start`], with variables and names of the caller's.
    ///
    /// # Errors
    /// As [`HttpFunctions::start`].
    pub fn start_with(
        address: &str,
        store: Arc<dyn Store>,
        config: Config,
        environment: Environment,
        resolver: Resolver,
    ) -> Result<Self, StartError> {
        let outbound = Outbound::new(&config, environment, resolver)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("ringway-http-fn")
            .enable_all()
            .build()?;
        let worker = Worker::builder(NAME)
            .address(address)
            .description("Functions that are served over HTTP elsewhere")
            .connect()?;
        let registry = Registry::new(address, worker.clone(), store, outbound, runtime.handle().clone());
        // From here on, dropping it ends it.
        let started = Self { registry: Arc::new(registry), runtime: Mutex::new(Some(runtime)) };
        for (id, invocation) in config.functions {
            let refused = started.registry.register_fixed(&id, invocation);
            refused.map_err(|reason| StartError::Function { id, reason })??;
        }
        started.registry.restore()?;
        worker.register_all(functions::all(&started.registry))?;
        Ok(started)
    }

    /// Leaves the engine and ends the threads. Requests that are under way are ended.
    pub fn shut_down(&self) {
        self.registry.shut_down();
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for HttpFunctions {
    fn drop(&mut self) {
        self.shut_down();
    }
}
