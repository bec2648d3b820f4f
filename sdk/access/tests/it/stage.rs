//! What the tests stand on: an authority, two ends that meet over a pair of sockets, and a stream that plays a part.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringway_access::handshake::{
    Accepted, Arrival, ClockReading, HandshakeError, Introduction, Peer, PeerKind, connect, identify,
};
use ringway_access::issue::{Authority, ClientRequest};
use ringway_access::tls::Binding;
use ringway_access::{Credentials, Doorkeeper, Grant};
use ringway_protocol::WorkerId;
use serde_json::json;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// The time, once for each test that asks: TLS reads the clock by itself.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub(crate) fn clock() -> ClockReading {
    ClockReading { monotonic_ns: 7, unix_ms: now_s() * 1000 }
}

pub(crate) fn authority() -> Authority {
    Authority::new("links", now_s(), DAY).unwrap()
}

pub(crate) fn request(name: &str) -> ClientRequest<'_> {
    ClientRequest {
        name,
        grant: Grant::default().with_call("orders::*"),
        address: None,
        server_name: Some("localhost"),
        pin: None,
        with_certificate: false,
        lifetime: DAY,
    }
}

pub(crate) fn credentials(authority: &Authority, request: &ClientRequest<'_>) -> Credentials {
    Credentials::parse(&authority.client(request, now_s()).unwrap().credentials).unwrap()
}

pub(crate) fn doorkeeper(authority: &Authority) -> Doorkeeper {
    Doorkeeper::default().with_issuer(authority.issuer().public())
}

pub(crate) fn worker() -> Introduction {
    let name = "edge-7".to_owned();
    Introduction { kind: PeerKind::Worker, id: WorkerId::new(7), name, release: "0.1.0".to_owned() }
}

pub(crate) fn engine() -> Introduction {
    let name = "engine".to_owned();
    Introduction { kind: PeerKind::Engine, id: WorkerId::new(1), name, release: "0.1.0".to_owned() }
}

pub(crate) fn near() -> Arrival {
    Arrival::plain(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
}

pub(crate) fn far() -> Arrival {
    Arrival::plain(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 1)))
}

/// What a server does with whoever comes: lets in all whom the doorkeeper does.
pub(crate) fn serve<S: Read + Write>(
    stream: &mut S,
    doorkeeper: &Doorkeeper,
    arrival: &Arrival,
) -> Result<Peer, HandshakeError> {
    let candidate = identify(stream, doorkeeper, arrival, &clock, soon())?;
    candidate.accept(stream, &engine(), 42, json!({ "frame_bytes_max": 1024 }), &clock)
}

pub(crate) fn dial<S: Read + Write>(
    stream: &mut S,
    credentials: &Credentials,
    binding: Option<&Binding>,
) -> Result<Accepted, HandshakeError> {
    connect(stream, &worker(), credentials, binding, &clock, soon())
}

/// Runs both ends, each in a thread of its own, and returns what either came to.
pub(crate) fn meet<A: Send, B>(
    server: impl FnOnce(UnixStream) -> A + Send,
    client: impl FnOnce(UnixStream) -> B,
) -> (A, B) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| server(ours));
        let client = client(theirs);
        (server.join().unwrap(), client)
    })
}

/// A whole handshake without TLS.
pub(crate) fn shake(
    doorkeeper: &Doorkeeper,
    arrival: &Arrival,
    credentials: &Credentials,
) -> (Result<Peer, HandshakeError>, Result<Accepted, HandshakeError>) {
    meet(
        |mut stream| serve(&mut stream, doorkeeper, arrival),
        |mut stream| dial(&mut stream, credentials, None),
    )
}

/// Plays a part that was written before, whatever it is told.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) says: io::Cursor<Vec<u8>>,
    pub(crate) hears: Vec<u8>,
}

impl Script {
    pub(crate) fn new(says: impl Into<Vec<u8>>) -> Self {
        Self { says: io::Cursor::new(says.into()), hears: Vec::new() }
    }
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.says.read(buffer)
    }
}

impl Write for Script {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.hears.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes down what passes through.
#[derive(Debug)]
pub(crate) struct Recorder<S> {
    pub(crate) stream: S,
    pub(crate) said: Vec<u8>,
    pub(crate) heard: Vec<u8>,
}

impl<S> Recorder<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, said: Vec::new(), heard: Vec::new() }
    }
}

impl<S: Read> Read for Recorder<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.heard.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

impl<S: Write> Write for Recorder<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(buffer)?;
        self.said.extend_from_slice(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A message as it goes over the wire.
pub(crate) fn frame(json: &str) -> Vec<u8> {
    frame_of(1, json)
}

pub(crate) fn frame_of(version: u16, json: &str) -> Vec<u8> {
    let length = u32::try_from(json.len()).unwrap();
    [b"RWLK", &version.to_le_bytes()[..], &[0, 0], &length.to_le_bytes(), json.as_bytes()].concat()
}

/// The JSON of each message in a recording.
pub(crate) fn messages(mut bytes: &[u8]) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first_chunk::<12>() {
        let length = u32::from_le_bytes(prefix[8..].try_into().unwrap()) as usize;
        found.push(serde_json::from_slice(&rest[..length]).unwrap());
        bytes = &rest[length..];
    }
    found
}
