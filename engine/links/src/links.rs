//! The links of an engine, as whoever starts them sees them. It must not know how messages are passed on.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use ringway_access::{LinkAddress, check_exposure};
use ringway_link::driver::{Driver, Path};
use ringway_link::{Distance, LinkStats};
use ringway_protocol::WorkerId;

use crate::door::Door;
use crate::gateway::{Command, Gateway, Shared};
use crate::settings::Settings;

/// How long the connection that wakes the door may take.
const WAKE_MAX: Duration = Duration::from_millis(200);

/// Why links did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address would let others in whom nobody checks.
    #[error(transparent)]
    Exposed(#[from] ringway_access::doorkeeper::ExposureError),
    /// The address cannot be listened on.
    #[error("cannot listen for links on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Threads or descriptors ran out, or `io_uring` is refused where nothing else is allowed.
    #[error("cannot start links: {0}")]
    System(#[from] io::Error),
}

/// One link, for people.
#[derive(Debug, Clone)]
pub struct LinkStatus {
    /// Who is at its other end.
    pub name: String,
    /// How far away that is.
    pub distance: Distance,
    /// What it has carried.
    pub stats: LinkStats,
}

/// What runs. Dropping it ends all links.
pub struct Links {
    shared: Arc<Shared>,
    driver: Arc<Driver>,
    address: Option<SocketAddr>,
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Links {
    /// Listens, and attaches whoever is let in to the engine at `engine`.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(engine: &str, settings: Settings) -> Result<Self, StartError> {
        if let Some(address) = settings.listen {
            let exposed: LinkAddress = address.into();
            check_exposure(&exposed, settings.tls.is_some(), settings.doorkeeper.has_authentication())?;
        }
        let driver = Arc::new(Driver::start(settings.driver.clone())?);
        let gateway = Gateway::new(Arc::clone(&driver), engine)?;
        let shared = gateway.shared();
        let stop = Arc::new(AtomicBool::new(false));
        let mut links = Self {
            shared: Arc::clone(&shared),
            driver,
            address: None,
            stop: Arc::clone(&stop),
            threads: Mutex::default(),
        };
        let thread = std::thread::Builder::new().name("ringway-links".to_owned());
        links.threads.get_mut().push(thread.spawn(move || gateway.run())?);
        if let Some(address) = settings.listen {
            let listener =
                TcpListener::bind(address).map_err(|source| StartError::Bind { address, source })?;
            let bound = listener.local_addr()?;
            links.address = Some(bound);
            let door = Door { listener, settings, shared, engine_id: WorkerId::new(1), stop };
            let thread = std::thread::Builder::new().name("ringway-door".to_owned());
            links.threads.get_mut().push(thread.spawn(move || door.run())?);
            tracing::info!(address = %bound, path = links.driver.path().as_str(), "links are let in");
        }
        if let Some(why) = links.driver.why_not_uring() {
            tracing::info!(why, "links go by epoll, since io_uring is not to be had");
        }
        Ok(links)
    }

    /// Where remote workers dial.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// How bytes are moved.
    #[must_use]
    pub fn path(&self) -> Path {
        self.driver.path()
    }

    /// The links at this moment.
    #[must_use]
    pub fn status(&self) -> Vec<LinkStatus> {
        let known = self.shared.known.lock();
        let status = known.values().map(|known| LinkStatus {
            name: known.name.clone(),
            distance: known.link.distance(),
            stats: known.link.stats(),
        });
        status.collect()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.shared.tell(Command::Stop);
        if let Some(mut address) = self.address {
            if address.ip().is_unspecified() {
                address.set_ip(if address.is_ipv4() {
                    [127, 0, 0, 1].into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                });
            }
            // The door sits in an accept that nothing else ends.
            let _refused = TcpStream::connect_timeout(&address, WAKE_MAX);
        }
        for thread in std::mem::take(self.threads.get_mut()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the links panicked");
            }
        }
    }
}
