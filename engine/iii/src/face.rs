//! What runs: a runtime on threads of its own, a worker for what belongs to no connection, and a listener for each address.
//! It must not know what a connection says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringway::{CallError, Worker};
use ringway_worker_listen::{self as listen, BindError};
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::channels::{self, ChannelCounters, Channels};
use crate::config::{Config, ConfigError};
use crate::functions;
use crate::listener::{self, Place};
use crate::observers;
use crate::shared::Shared;

/// How long connections have to end when the listener ends.
const PARTING: Duration = Duration::from_secs(2);

/// How often channels that nobody took are looked for.
const EXPIRY: Duration = Duration::from_secs(60);

/// Why the listener could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be obeyed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The engine refused its worker, or there is none.
    #[error(transparent)]
    Engine(#[from] CallError),
    /// The system gives no more threads.
    #[error("the iii listener could not be set up: {0}")]
    System(io::Error),
    /// An address cannot be listened on.
    #[error("{0}; `workers.iii.port` names another port")]
    Bind(BindError),
}

/// What a listener has done beside passing messages on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FaceCounters {
    /// Of channels.
    pub channels: ChannelCounters,
    /// Frames of telemetry that were dropped, as there were too many.
    pub telemetry_dropped: u64,
    /// Frames of telemetry that the engine did not take in.
    pub telemetry_refused: u64,
}

/// The iii listener. Dropping it, or shutting it down, ends it; its clients connect again when there is one.
#[derive(Debug)]
pub struct Face {
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
}

impl Face {
    /// Attaches to the engine at an address and takes connections of iii's SDKs.
    ///
    /// # Errors
    /// [`StartError`]: what is wrong with the settings, an address that is taken, the engine or the system.
    pub fn start(address: &str, config: Config) -> Result<Self, StartError> {
        config.check()?;
        let mut bound = Vec::new();
        for (index, rules) in config.all().into_iter().enumerate() {
            match listen::bind(SocketAddr::new(rules.check()?, rules.port)) {
                Ok(listener) => bound.push((listener, rules)),
                // Nobody asked for this port in particular, and an engine is of use without it.
                Err(error) if index == 0 && config.port.is_none() => {
                    tracing::warn!(
                        %error,
                        "iii's SDKs cannot connect; `workers.iii.port` names another port, `workers.iii: false` ends this warning"
                    );
                }
                Err(error) => return Err(StartError::Bind(error)),
            }
        }
        let worker = Worker::builder("iii")
            .address(address)
            .description("Lets workers connect that use iii's SDKs")
            .connect()?;
        let threads = config.threads();
        let runtime = listen::runtime("ringway-iii", threads).map_err(StartError::System)?;
        let shared = Shared::new(address, config, worker, runtime.handle().clone());
        shared.worker.register_all(channels::functions(&shared.channels))?;
        shared.worker.register_all(functions::all())?;
        shared.worker.register_all(observers::functions(&shared))?;
        // Of several threads one waits for the sockets of all, and another that stayed awake would find nothing.
        if threads == 1 {
            let linger = Arc::clone(&shared.linger);
            runtime.spawn(async move { linger.run().await });
        }
        runtime.spawn(expire(shared.channels.clone()));
        let addresses = bound.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect();
        for (bound, rules) in bound {
            let head = Duration::from_millis(rules.handshake_timeout_ms);
            let router = listener::router(&Arc::new(Place { shared: Arc::clone(&shared), rules }));
            runtime.spawn(listen::serve(bound, "iii", head, router));
        }
        Ok(Self { runtime: Some(runtime), shared, addresses })
    }

    /// Where it listens; empty if the usual port was taken.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it has done beside passing messages on.
    #[must_use]
    pub fn counters(&self) -> FaceCounters {
        let (telemetry_dropped, telemetry_refused) = self.shared.telemetry.lost();
        FaceCounters { channels: self.shared.channels.counters(), telemetry_dropped, telemetry_refused }
    }

    /// Ends it, as dropping it does.
    pub fn shut_down(self) {
        drop(self);
    }
}

impl Drop for Face {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(PARTING);
        }
        self.shared.worker.shut_down();
    }
}

/// Forgets channels that nobody took, also while none is made.
async fn expire(channels: Channels) {
    let mut every = tokio::time::interval(EXPIRY);
    loop {
        every.tick().await;
        channels.expire();
    }
}
