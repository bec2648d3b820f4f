//! One driver with a link, and in place of the other end a bare socket that says what a test likes.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ringway_ipc::channel::{Opening, Role};
use ringway_ipc::frame::{Descriptor, Header, Inline};
use ringway_ipc::sys::socket::seqpacket_pair;
use ringway_link::News;
use ringway_link::driver::{Driver, DriverConfig, Link, Path};
use ringway_link::tunnel::{Gate, Open};
use ringway_link::wire::{Class, HEAD_BYTES, Head};
use ringway_protocol::header::Kind as Frame;

use super::bed::{Heard, PATIENCE, Peer, ear, end};
use super::sockets::{self, Between};

/// See the module.
pub(crate) struct Raw {
    pub(crate) socket: UnixStream,
    pub(crate) link: Link,
    pub(crate) heard: mpsc::Receiver<Heard>,
    pub(crate) driver: Driver,
    _between: Between,
}

/// Pings so seldom that a test sees none but its own.
pub(crate) fn quiet(path: Path) -> DriverConfig {
    DriverConfig {
        path,
        ping_every: Duration::from_secs(600),
        silence_max: Duration::from_secs(600),
        ..DriverConfig::default()
    }
}

impl Raw {
    pub(crate) fn new(path: Path) -> Self {
        Self::with(quiet(path))
    }

    pub(crate) fn with(config: DriverConfig) -> Self {
        let mut raw = Self::unmeasured(config);
        raw.pong();
        raw
    }

    /// Answers the first ping: until then the owner of the link is told nothing.
    pub(crate) fn pong(&mut self) {
        let mut bytes = [0; HEAD_BYTES];
        self.socket.read_exact(&mut bytes).unwrap();
        let ping = Head::read(&bytes).unwrap();
        assert_eq!(ping.class, Class::Ping, "the first that is said");
        self.tell(Class::Pong, 0, [ping.words[0], 1]);
    }

    /// One that has not answered.
    pub(crate) fn unmeasured(config: DriverConfig) -> Self {
        let (near, socket, between) = sockets::pair();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let driver = Driver::start(config).unwrap();
        let (owner, heard) = ear();
        let link = driver.add(OwnedFd::from(near), None, owner);
        Self { socket, link, heard, driver, _between: between }
    }

    /// A channel whose local peer plays `role`, and which has told that it has room.
    pub(crate) fn channel(&mut self, number: u32, role: Role) -> Peer {
        self.gated(number, role, Arc::new(Open))
    }

    pub(crate) fn gated(&mut self, number: u32, role: Role, gate: Arc<dyn Gate>) -> Peer {
        let peer = self.silent(number, role, gate);
        let (head, _) = self.hear();
        assert_eq!((head.class, head.channel, head.words[0]), (Class::Credit, number, 256));
        peer
    }

    /// The same; what it tells is left to be read.
    fn silent(&self, number: u32, role: Role, gate: Arc<dyn Gate>) -> Peer {
        let id = u64::from(number);
        let (local, ours) = seqpacket_pair().unwrap();
        let opposite = if role == Role::Caller { Role::Callee } else { Role::Caller };
        let tunnel = Opening::start(ours, opposite, end(id, 2, 1, self.link.bell())).unwrap();
        self.link.add_channel(number, tunnel, opposite, gate, false);
        Peer::open(local, role, id, 1, 2)
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub(crate) fn tell<const N: usize>(&mut self, class: Class, channel: u32, words: [u64; N]) {
        self.say(&Head::of_words(class, channel, words).to_bytes());
    }

    /// The next head that is no ping, and what lies behind it: an inline area, or the bytes of a piece.
    pub(crate) fn hear(&mut self) -> (Head, Vec<u8>) {
        loop {
            let mut bytes = [0; HEAD_BYTES];
            self.socket.read_exact(&mut bytes).unwrap();
            let head = Head::read(&bytes).unwrap();
            let behind = match head.class {
                Class::Frame | Class::Large => u64::from(head.header().unwrap().inline_len),
                Class::Chunk => head.words[1],
                Class::Message => head.words[0],
                _ => 0,
            };
            let mut rest = vec![0; usize::try_from(behind).unwrap()];
            self.socket.read_exact(&mut rest).unwrap();
            if head.class != Class::Ping {
                return (head, rest);
            }
        }
    }

    /// All heads until the answer to a ping of this end: everything that was said before has had its effect by then.
    pub(crate) fn until_pong(&mut self) -> Vec<(Head, Vec<u8>)> {
        self.tell(Class::Ping, 0, [4711]);
        let mut all = Vec::new();
        loop {
            let (head, behind) = self.hear();
            if head.class == Class::Pong {
                assert_eq!(head.words[0], 4711);
                return all;
            }
            all.push((head, behind));
        }
    }

    /// Why the link ended; news before that are passed over.
    pub(crate) fn over(&self) -> String {
        self.hang_up();
        loop {
            match self.heard.recv_timeout(PATIENCE).unwrap() {
                Heard::Over(why) => return why,
                Heard::News(News::Message { .. } | News::ChannelOver { .. }) => {}
                Heard::News(other) => panic!("{other:?}"),
            }
        }
    }

    /// Reads until the link says no more, and hangs up too, for which it waits.
    pub(crate) fn hang_up(&self) {
        let _cut_short = (&self.socket).read_to_end(&mut Vec::new());
        let _cut_short = self.socket.shutdown(std::net::Shutdown::Write);
    }

    pub(crate) fn until_nothing_is_held(&self) {
        let until = std::time::Instant::now() + PATIENCE;
        while self.driver.arena_bytes().1 > 0 {
            assert!(std::time::Instant::now() < until, "{:?} bytes are held", self.driver.arena_bytes());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

pub(crate) fn call(invocation: u64) -> Header {
    Header { invocation, kind: Frame::Call.to_u8(), ..Header::default() }
}

/// A frame as it lies on the socket, without its payloads.
pub(crate) fn frame(class: Class, channel: u32, header: Header, inline: &[u8]) -> Vec<u8> {
    let header = Header { inline_len: u16::try_from(inline.len()).unwrap(), ..header };
    [&Head::of_frame(class, channel, &header).to_bytes()[..], inline].concat()
}

/// Descriptors of payloads of these lengths, as they lie inline.
pub(crate) fn descriptors(lens: &[u64]) -> Vec<u8> {
    let mut inline = Inline::default();
    for (at, len) in lens.iter().enumerate() {
        inline.set_descriptor(at, &Descriptor { len: *len, ..Descriptor::default() });
    }
    inline.bytes()[..lens.len() * 32].to_vec()
}

/// A frame with payloads of these lengths, which are to follow.
pub(crate) fn loaded(class: Class, channel: u32, header: Header, lens: &[u64]) -> Vec<u8> {
    let attachments = u8::try_from(lens.len()).unwrap();
    frame(class, channel, Header { attachments, ..header }, &descriptors(lens))
}

/// A piece of a transfer.
pub(crate) fn chunk(transfer: u64, bytes: &[u8]) -> Vec<u8> {
    [&Head::of_words(Class::Chunk, 0, [transfer, bytes.len() as u64]).to_bytes()[..], bytes].concat()
}

/// A piece of a message.
pub(crate) fn piece(topic: u64, bytes: &[u8], behind: u64) -> Vec<u8> {
    let head = Head::of_words(Class::Message, 0, [bytes.len() as u64, topic, behind]);
    [&head.to_bytes()[..], bytes].concat()
}
