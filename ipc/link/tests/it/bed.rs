//! Two drivers with a socket between them, and channels through both.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use ringway_ipc::arena::{Arena, ArenaConfig};
use ringway_ipc::channel::{Channel, ChannelConfig, KIND_RELEASE, LeaseGuard, Opening, Payload, Role};
use ringway_ipc::doorbell::Doorbell;
use ringway_ipc::frame::{Descriptor, Header, Inline};
use ringway_ipc::sys::socket::seqpacket_pair;
use ringway_link::News;
use ringway_link::driver::{Driver, DriverConfig, Link, Owner, Path};
use ringway_link::tunnel::{Gate, Open};

use super::sockets::{self, Between};

/// Longer than anything here takes; a test that waits for so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The topic by which one owner tells the other of a channel.
const OPENED: u64 = 77;

/// What an owner heard.
pub(crate) struct Ear {
    news: Mutex<mpsc::Sender<Heard>>,
}

#[derive(Debug)]
pub(crate) enum Heard {
    News(News),
    Over(String),
}

impl Owner for Ear {
    fn news(&self, news: News) {
        drop(self.news.lock().unwrap().send(Heard::News(news)));
    }

    fn over(&self, why: &ringway_link::fault::Ended) {
        drop(self.news.lock().unwrap().send(Heard::Over(why.to_string())));
    }
}

pub(crate) fn ear() -> (Arc<Ear>, mpsc::Receiver<Heard>) {
    let (news, heard) = mpsc::channel();
    (Arc::new(Ear { news: Mutex::new(news) }), heard)
}

/// How a pair of links is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) path: Path,
    pub(crate) sealed: bool,
}

pub(crate) const KINDS: [Kind; 4] = [
    Kind { path: Path::Epoll, sealed: false },
    Kind { path: Path::Uring, sealed: false },
    Kind { path: Path::Epoll, sealed: true },
    Kind { path: Path::Uring, sealed: true },
];

/// One side of the pair.
pub(crate) struct Side {
    pub(crate) link: Link,
    pub(crate) heard: mpsc::Receiver<Heard>,
    pub(crate) driver: Driver,
}

pub(crate) struct Pair {
    pub(crate) near: Side,
    pub(crate) far: Side,
    pub(crate) _between: Between,
}

pub(crate) fn config(path: Path) -> DriverConfig {
    DriverConfig { path, ping_every: Duration::from_millis(200), ..DriverConfig::default() }
}

impl Pair {
    pub(crate) fn new(kind: Kind) -> Self {
        Self::with(kind, config(kind.path))
    }

    pub(crate) fn with(kind: Kind, config: DriverConfig) -> Self {
        let (near, far, between) = sockets::pair();
        let (near_tls, far_tls) = if kind.sealed { seal(&near, &far) } else { (None, None) };
        let side = |stream: UnixStream, tls| {
            let driver = Driver::start(config.clone()).unwrap();
            assert_eq!(driver.path(), kind.path);
            let (owner, heard) = ear();
            let link = driver.add(OwnedFd::from(stream), tls, owner);
            Side { link, heard, driver }
        };
        Self { near: side(near, near_tls), far: side(far, far_tls), _between: between }
    }

    /// A channel from a caller at the near side to a callee at the far one.
    pub(crate) fn channel(&self, number: u32) -> (Peer, Peer) {
        self.gated(number, Arc::new(Open))
    }

    pub(crate) fn gated(&self, number: u32, gate: Arc<dyn Gate>) -> (Peer, Peer) {
        let id = u64::from(number);
        let (local, ours) = seqpacket_pair().unwrap();
        let callee_here = Opening::start(ours, Role::Callee, end(id, 2, 1, self.near.link.bell())).unwrap();
        self.near.link.add_channel(number, callee_here, Role::Callee, gate, true);
        self.near.link.message(OPENED, number.to_le_bytes().to_vec());
        let told = self.far.heard.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(told, Heard::News(News::Message { topic: OPENED, .. })), "{told:?}");
        let (far_local, far_ours) = seqpacket_pair().unwrap();
        let caller_there =
            Opening::start(far_ours, Role::Caller, end(id, 1, 2, self.far.link.bell())).unwrap();
        self.far.link.add_channel(number, caller_there, Role::Caller, Arc::new(Open), false);
        (Peer::open(local, Role::Caller, id, 1, 2), Peer::open(far_local, Role::Callee, id, 2, 1))
    }
}

pub(crate) fn end(channel: u64, worker: u64, peer_worker: u64, worker_bell: Doorbell) -> ChannelConfig {
    ChannelConfig {
        channel,
        worker,
        peer_worker,
        worker_bell,
        slot_count: 64,
        segment_bytes_max: 1 << 34,
        barrier_registered: false,
        barrier_before_sleep: false,
    }
}

/// A local peer of a tunnel.
pub(crate) struct Peer {
    pub(crate) channel: Arc<Channel>,
    pub(crate) arena: Arc<Arena>,
    bell: Doorbell,
}

impl Peer {
    pub(crate) fn open(socket: OwnedFd, role: Role, id: u64, worker: u64, other: u64) -> Self {
        let bell = Doorbell::new().unwrap();
        let mut opening = Opening::start(socket, role, end(id, worker, other, bell.clone())).unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            match opening.finish().unwrap() {
                Ok(channel) => {
                    let arena = Arena::new(ArenaConfig::default());
                    return Self { channel: Arc::new(channel), arena, bell };
                }
                Err(unfinished) => opening = unfinished,
            }
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// The next frame that is no release.
    pub(crate) fn take(&self) -> (Header, Inline) {
        self.take_within(PATIENCE).expect("a frame came")
    }

    pub(crate) fn take_within(&self, time: Duration) -> Option<(Header, Inline)> {
        let until = Instant::now() + time;
        let mut inline = Inline::default();
        loop {
            let mut lead = self.channel.try_lead().unwrap();
            if let Some(header) = lead.poll(&mut inline).unwrap() {
                drop(lead);
                if header.kind == KIND_RELEASE {
                    self.channel.take_release(&header, &inline).unwrap();
                    continue;
                }
                return Some((header, inline));
            }
            if Instant::now() > until {
                return None;
            }
            if lead.ask_for_bell(ringway_ipc::layout::ATTENTION_WORKER_BELL) {
                let _rung = self.bell.wait(Duration::from_millis(20));
            }
        }
    }

    /// Publishes, waiting for room.
    pub(crate) fn send(&self, header: &Header, inline: &Inline) {
        let until = Instant::now() + PATIENCE;
        while self.channel.send(header, inline).is_err() {
            assert!(Instant::now() < until && self.channel.close_reason().is_none());
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    pub(crate) fn block(&self, bytes: &[u8]) -> Payload {
        let mut loan = self.arena.loan(bytes.len(), 64).unwrap();
        loan.copy_from_slice(bytes);
        loan.freeze().into()
    }

    /// Publishes a frame with payloads; their descriptors lie inline.
    pub(crate) fn lend(&self, header: Header, payloads: Vec<Payload>) -> Vec<u32> {
        let mut inline = Inline::default();
        let mut leases = Vec::new();
        for (at, payload) in payloads.iter().enumerate() {
            let descriptor = Descriptor { dtype: 7, ndim: 1, ..self.channel.lend(payload.clone()).unwrap() };
            leases.push(descriptor.lease);
            inline.set_descriptor(at, &descriptor);
        }
        let attachments = u8::try_from(payloads.len()).unwrap();
        let header = Header { attachments, inline_len: u16::from(attachments) * 32, ..header };
        self.send(&header, &inline);
        leases
    }

    pub(crate) fn resolve(&self, descriptors: &[Descriptor]) -> (Vec<Payload>, Arc<LeaseGuard>) {
        let leases = descriptors.iter().map(|descriptor| descriptor.lease).collect();
        let guard = LeaseGuard::new(&self.channel, leases);
        let payloads = descriptors.iter().map(|place| self.channel.resolve(place, &guard).unwrap());
        (payloads.collect(), guard)
    }

    /// The payloads of a frame whose descriptors lie inline.
    pub(crate) fn payloads(&self, header: &Header, inline: &Inline) -> (Vec<Payload>, Arc<LeaseGuard>) {
        let descriptors: Vec<_> =
            (0..usize::from(header.attachments)).map(|at| inline.descriptor(at)).collect();
        self.resolve(&descriptors)
    }

    /// Waits until nothing is lent any more, taking releases.
    pub(crate) fn until_all_is_back(&self) {
        let until = Instant::now() + PATIENCE;
        while self.channel.stats().leases > 0 {
            assert!(Instant::now() < until, "{:?}", self.channel.stats());
            if let Some(frame) = self.take_within(Duration::from_millis(1)) {
                panic!("wanted nothing but releases, found {frame:?}");
            }
        }
        assert_eq!(self.arena.stats().live_blocks, 0);
    }

    pub(crate) fn until_closed(&self) {
        let until = Instant::now() + PATIENCE;
        while self.channel.read_socket().is_ok() {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Greets over the pair, as the owners of links do before they hand sockets over.
pub(crate) fn seal(
    near: &UnixStream,
    far: &UnixStream,
) -> (Option<rustls::Connection>, Option<rustls::Connection>) {
    let made = rcgen::generate_simple_self_signed(vec!["link".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let mut server = rustls::ServerConnection::new(Arc::new(server)).unwrap();
    let name = "link".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while server.is_handshaking() {
                server.complete_io(&mut &*far).unwrap();
            }
        });
        while client.is_handshaking() {
            client.complete_io(&mut &*near).unwrap();
        }
    });
    (Some(client.into()), Some(server.into()))
}
