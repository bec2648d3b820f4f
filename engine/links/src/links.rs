//! The links of an engine, as whoever starts them sees them. It must not know how messages are passed on.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use ringway_access::handshake::{Introduction, PeerKind};
use ringway_access::{Credentials, Doorkeeper, LinkAddress, check_exposure};
use ringway_link::driver::{Driver, Path};
use ringway_link::{Distance, LinkStats};
use ringway_protocol::{CallError, WorkerId};

use crate::bus::{BusInlet, BusSettings};
use crate::dialler::Dialler;
use crate::door::Door;
use crate::gateway::{Command, Gateway, Shared};
use crate::settings::Settings;
use crate::watch::Watch;

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
    /// The engine of this host did not take the links in.
    #[error("links cannot attach to their engine: {0}")]
    Engine(#[source] Box<CallError>),
    /// A file of credentials for another engine cannot be used.
    #[error("cannot dial {address}: {source}")]
    Credentials {
        /// The other engine.
        address: LinkAddress,
        /// What is wrong.
        source: Box<ringway_access::credentials::CredentialsError>,
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
    /// The worker's id, or the engine's.
    pub id: WorkerId,
    /// Whether that is an engine with workers behind it.
    pub is_engine: bool,
    /// The other host.
    pub host: SocketAddr,
    /// The token by which it was let in, if it was by one.
    pub token_id: Option<String>,
    /// When what it was let in by ends, in seconds since 1970.
    pub expires_s: Option<u64>,
    /// How far away that is.
    pub distance: Distance,
    /// What it has carried.
    pub stats: LinkStats,
}

/// What runs. Dropping it ends all links.
pub struct Links {
    shared: Arc<Shared>,
    driver: Arc<Driver>,
    doorkeeper: Arc<Mutex<Arc<Doorkeeper>>>,
    address: Option<SocketAddr>,
    engine_id: WorkerId,
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
        settings.connection.check()?;
        let driver = Arc::new(Driver::start(settings.driver.clone())?);
        let watch =
            Watch::new(engine, &settings.name).map_err(|error| StartError::Engine(Box::new(error)))?;
        let me = Introduction {
            kind: PeerKind::Engine,
            id: watch.engine_id,
            name: settings.name.clone(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let gateway = Gateway::new(Arc::clone(&driver), engine, watch, settings.offer.clone())?;
        let shared = gateway.shared();
        let stop = Arc::new(AtomicBool::new(false));
        let doorkeeper = Arc::new(Mutex::new(Arc::clone(&settings.doorkeeper)));
        let mut links = Self {
            shared: Arc::clone(&shared),
            driver,
            doorkeeper: Arc::clone(&doorkeeper),
            address: None,
            engine_id: me.id,
            stop: Arc::clone(&stop),
            threads: Mutex::default(),
        };
        let thread = std::thread::Builder::new().name("ringway-links".to_owned());
        links.threads.get_mut().push(thread.spawn(move || gateway.run())?);
        for peer in &settings.peers {
            let credentials = peer.credentials.as_deref().map(Credentials::from_file).transpose();
            let credentials = credentials.map_err(|source| {
                let (address, source) = (peer.address.clone(), Box::new(source));
                StartError::Credentials { address, source }
            })?;
            let dialler = Dialler {
                settings: peer.clone(),
                credentials: credentials.unwrap_or_default(),
                connection: settings.connection.clone(),
                me: me.clone(),
                shared: Arc::clone(&shared),
                stop: Arc::clone(&stop),
            };
            let thread = std::thread::Builder::new().name("ringway-dial".to_owned());
            links.threads.get_mut().push(thread.spawn(move || dialler.run())?);
        }
        if let Some(address) = settings.listen {
            let listener =
                TcpListener::bind(address).map_err(|source| StartError::Bind { address, source })?;
            let bound = listener.local_addr()?;
            links.address = Some(bound);
            let door = Door { listener, settings, doorkeeper, shared, me, stop };
            let thread = std::thread::Builder::new().name("ringway-door".to_owned());
            links.threads.get_mut().push(thread.spawn(move || door.run())?);
            tracing::info!(address = %bound, path = links.driver.path().as_str(), "links are let in");
        }
        if let Some(why) = links.driver.why_not_uring() {
            tracing::info!(why, "links go by epoll, since io_uring is not to be had");
        }
        Ok(links)
    }

    /// Has this engine see those behind a bus, and be seen by them, until [`BusInlet::leave`]. One bus at a time.
    #[must_use]
    pub fn join(&self, settings: BusSettings) -> BusInlet {
        self.shared.tell(Command::JoinBus(Box::new(settings)));
        BusInlet { shared: Arc::clone(&self.shared) }
    }

    /// The id of the engine whose links these are.
    #[must_use]
    pub fn engine_id(&self) -> WorkerId {
        self.engine_id
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

    /// Why not by `io_uring`, where that was tried.
    #[must_use]
    pub fn why_not_uring(&self) -> Option<&str> {
        self.driver.why_not_uring()
    }

    /// Sets who is let in from now on, and closes the links whose tokens have been revoked. What the others may do stays as it
    /// was when they came.
    ///
    /// Somebody may be greeted by the one before while this is done; setting the same one again finds them.
    pub fn set_doorkeeper(&self, doorkeeper: Doorkeeper) {
        let revoked: Vec<String> = doorkeeper.revocations().ids().map(str::to_owned).collect();
        *self.doorkeeper.lock() = Arc::new(doorkeeper);
        if !revoked.is_empty() {
            self.shared.tell(Command::Revoke(revoked));
        }
    }

    /// The links at this moment.
    #[must_use]
    pub fn status(&self) -> Vec<LinkStatus> {
        let known = self.shared.known.lock();
        let status = known.values().map(|known| LinkStatus {
            name: known.name.clone(),
            id: known.id,
            is_engine: known.is_engine,
            host: known.host,
            token_id: known.token_id.clone(),
            expires_s: known.expires_s,
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
