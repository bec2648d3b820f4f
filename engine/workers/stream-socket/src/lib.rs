//! The socket for browsers that follow streams, as iii's clients know it: join a group or an item, get what is there, then
//! every event with its number, and after a drop go on behind the last one seen. A worker like any other over the public SDK:
//! it calls `stream::subscribe`, which reads a log at each subscriber's pace, so nothing here queues for a slow one.
//!
//! - [`StreamSocket`]: what runs, on a port of its own; its [`StreamSocket::router`] can be mounted under another's;
//! - `door`: who may connect; `client`: one connection; `subscription`: one stream of it; `frames`: what is said.
//!
//! It must not know how streams are kept.

#![forbid(unsafe_code)]

mod config;

pub mod frames;

mod counters;

mod subscription;

mod client;

mod socket;

mod door;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use parking_lot::Mutex;
use ringway::{CallError, Worker};
use ringway_worker_listen::{self as listen, BindError};
use tokio::runtime::Runtime;

pub use config::{Config, ConfigError, HTTP_PATH, PORT};
pub use counters::Counters;

use door::Place;

/// How long a client may take to say what it wants.
const HEAD: Duration = Duration::from_secs(10);

/// How long connections have to end when the worker does.
const PARTING: Duration = Duration::from_secs(2);

/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(2);

/// Why the worker could not be started.
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
    #[error("the stream socket could not be set up: {0}")]
    System(io::Error),
    /// An address cannot be listened on.
    #[error("{0}; `workers.stream-socket.port` names another port")]
    Bind(BindError),
}

/// The worker, attached. Dropping it ends it; browsers connect again when there is one.
#[derive(Debug)]
pub struct StreamSocket {
    place: Arc<Place>,
    address: Option<SocketAddr>,
    runtime: Mutex<Option<Runtime>>,
}

impl StreamSocket {
    /// Attaches to the engine at an address and listens. The usual port may be taken, by another engine: then it goes without
    /// one and says so in the log; a port that was asked for may not.
    ///
    /// # Errors
    /// [`StartError`]: the settings, an address, the engine or the system.
    pub fn start(address: &str, config: Config) -> Result<Self, StartError> {
        let bound = match listen::bind(config.check()?) {
            Ok(bound) => Some(bound),
            Err(error) if config.port.is_none() => {
                tracing::warn!(%error, "browsers cannot follow streams; `workers.stream-socket.port` names another port");
                None
            }
            Err(error) => return Err(StartError::Bind(error)),
        };
        let worker = Worker::builder("stream-socket")
            .address(address)
            .description("Lets browsers follow streams")
            // A subscription lasts as long as somebody listens.
            .default_timeout(None)
            .connect()?;
        let runtime = listen::runtime("ringway-browsers", config.threads).map_err(StartError::System)?;
        let place = Arc::new(Place::new(worker, config, runtime.handle().clone()));
        let address = bound.as_ref().and_then(|listener| listener.local_addr().ok());
        if let Some(listener) = bound {
            runtime.spawn(listen::serve(listener, "stream-socket", HEAD, door::router(&place)));
        }
        Ok(Self { place, address, runtime: Mutex::new(Some(runtime)) })
    }

    /// Where it listens; nowhere if the usual port was taken.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The same under another server: one route, `/`, that takes WebSockets. A server that says where a client connects from
    /// puts a `SocketAddr`, or axum's `ConnectInfo` of one, into the request's extensions.
    pub fn router(&self) -> Router {
        door::router(&self.place)
    }

    /// What there is, and what was done.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.place.counters.report(self.place.places.taken())
    }

    /// Leaves the engine and ends the connections.
    pub fn shut_down(&self) {
        if let Some(runtime) = self.runtime.lock().take() {
            self.place.close();
            // A runtime that ends drops its tasks, and with them what they were about to say.
            let until = Instant::now() + PARTING;
            while self.place.places.taken() > 0 && Instant::now() < until {
                std::thread::sleep(LOOK);
            }
            runtime.shutdown_background();
        }
        self.place.worker.shut_down();
    }
}

impl Drop for StreamSocket {
    fn drop(&mut self) {
        self.shut_down();
    }
}
