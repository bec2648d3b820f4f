//! Who comes: accepts connections, and has each greeted on a thread of its own, a few at a time and within a time, so that
//! whoever says nothing holds up nobody. Used by [`crate::links`]. It must not know what links are for.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use ringway_access::handshake::{self, Arrival as Came, ClockReading, Introduction};
use ringway_access::limited::Limited;
use ringway_access::{Doorkeeper, HandshakeError, Peer};
use ringway_ipc::clock::now_ns;

use crate::gateway::{Arrival, Command, Shared};
use crate::limits;
use crate::settings::Settings;

/// See the module.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) settings: Settings,
    /// In place of the one in the settings, which it was at first.
    pub(crate) doorkeeper: Arc<Mutex<Arc<Doorkeeper>>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) me: Introduction,
    pub(crate) stop: Arc<AtomicBool>,
}

/// Why somebody was not let in.
#[derive(Debug, thiserror::Error)]
enum DoorError {
    #[error(transparent)]
    Tls(#[from] ringway_access::tls::TlsError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Socket(#[from] io::Error),
}

pub(crate) fn clocks() -> ClockReading {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ClockReading { monotonic_ns: now_ns(), unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX) }
}

impl Door {
    /// Accepts until it is told to stop, which a connection of one's own lets it see.
    pub(crate) fn run(self) {
        let door = Arc::new(self);
        let greeting = Arc::new(AtomicUsize::new(0));
        loop {
            let accepted = door.listener.accept();
            if door.stop.load(Ordering::Acquire) {
                return;
            }
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "cannot accept a link; trying again soon");
                    std::thread::sleep(limits::ACCEPT_PAUSE);
                    continue;
                }
            };
            let links = door.shared.known.lock().len();
            if greeting.load(Ordering::Relaxed) >= limits::HANDSHAKES_MAX || links >= limits::LINKS_MAX {
                tracing::warn!(%peer, links, "too many links or handshakes at a time; one was let go");
                continue;
            }
            greeting.fetch_add(1, Ordering::Relaxed);
            let (here, count) = (Arc::clone(&door), Arc::clone(&greeting));
            let spawned = std::thread::Builder::new().name("ringway-greet".to_owned()).spawn(move || {
                if let Err(error) = here.greet(socket, peer) {
                    tracing::warn!(%peer, %error, "a link was not let in");
                }
                count.fetch_sub(1, Ordering::Relaxed);
            });
            if let Err(error) = spawned {
                greeting.fetch_sub(1, Ordering::Relaxed);
                tracing::error!(%error, "cannot greet a link");
            }
        }
    }

    fn greet(&self, socket: TcpStream, from: SocketAddr) -> Result<(), DoorError> {
        let deadline = Instant::now() + limits::HANDSHAKE_MAX;
        self.settings.connection.apply(&socket)?;
        let limited = Limited::new(socket, deadline);
        let (peer, socket, tls) = match &self.settings.tls {
            None => {
                let mut stream = limited;
                let peer = self.identify(&mut stream, &Came::plain(from), deadline)?;
                (peer, stream.into_inner()?, None)
            }
            Some(tls) => {
                let mut secured = tls.accept(limited)?;
                let arrival = Came::secured(from, &secured);
                let peer = self.identify(&mut secured.stream, &arrival, deadline)?;
                let (connection, limited) = secured.stream.into_parts();
                (peer, limited.into_inner()?, Some(Box::new(connection.into())))
            }
        };
        self.shared.tell(Command::Arrived(Box::new(Arrival {
            socket: socket.into(),
            tls,
            introduction: peer.introduction,
            identity: Some(peer.identity),
            grant: peer.grant,
            expires_s: peer.expires_s,
            host: from,
            over: None,
        })));
        Ok(())
    }

    fn identify<S: io::Read + io::Write>(
        &self,
        stream: &mut S,
        arrival: &Came,
        deadline: Instant,
    ) -> Result<Peer, HandshakeError> {
        let doorkeeper = Arc::clone(&self.doorkeeper.lock());
        let candidate = handshake::identify(stream, &doorkeeper, arrival, &clocks, deadline)?;
        candidate.accept(stream, &self.me, 0, serde_json::Value::Null, &clocks)
    }
}
