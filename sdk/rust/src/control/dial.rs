//! Dialling another host: the connection, encryption, and the handshake. Blocks. Used by [`super::remote`], on a thread of
//! its own. It must not know what the link is for.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ringway_access::handshake::{self, ClockReading, Introduction, PeerKind};
use ringway_access::limited::Limited;
use ringway_access::{HandshakeError, check_exposure};
use ringway_ipc::clock::{now_ns, unix_ns};
use ringway_protocol::CallError;
use rustls::Connection;

use super::remote::{Caller, Destination};

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// The other end said no, or this one may not dial there.
    #[error(transparent)]
    Refused(CallError),
    /// The network.
    #[error("cannot reach `{address}`: {source}")]
    Connect { address: String, source: io::Error },
    /// Encryption or the handshake.
    #[error("no link to `{address}`: {problem}")]
    Handshake { address: String, problem: String },
}

/// The clocks of this host.
fn clocks() -> ClockReading {
    ClockReading { monotonic_ns: now_ns(), unix_ms: unix_ns() / 1_000_000 }
}

/// Connects and greets, within a time.
pub(super) fn dial(
    destination: &Destination,
    caller: &Caller,
    timeout: Duration,
) -> Result<(OwnedFd, Option<Connection>), DialError> {
    let Destination { address, credentials } = destination;
    let deadline = Instant::now() + timeout;
    let exposed = check_exposure(address, credentials.tls.is_some(), credentials.has_authentication());
    exposed.map_err(|error| {
        DialError::Refused(CallError::new(ringway_protocol::ErrorCode::Forbidden, error.to_string()))
    })?;
    let reach = |source| DialError::Connect { address: address.to_string(), source };
    let socket = connect(address.host(), address.port(), deadline).map_err(reach)?;
    socket.set_nodelay(true).map_err(reach)?;
    let me = Introduction {
        kind: PeerKind::Worker,
        id: caller.worker,
        name: caller.name.clone(),
        release: caller.release.clone(),
    };
    let failed = |error: HandshakeError| match error {
        HandshakeError::Refused(error) => DialError::Refused(error),
        other => DialError::Handshake { address: address.to_string(), problem: other.to_string() },
    };
    let limited = Limited::new(socket, deadline);
    match &credentials.tls {
        None => {
            let mut limited = limited;
            handshake::connect(&mut limited, &me, credentials, None, &clocks, deadline).map_err(failed)?;
            Ok((limited.into_inner().map_err(reach)?.into(), None))
        }
        Some(tls) => {
            let broken = |problem: String| DialError::Handshake { address: address.to_string(), problem };
            let mut secured =
                tls.connect(address.host(), limited).map_err(|error| broken(error.to_string()))?;
            let binding = secured.binding;
            handshake::connect(&mut secured.stream, &me, credentials, Some(&binding), &clocks, deadline)
                .map_err(failed)?;
            let (connection, limited) = secured.stream.into_parts();
            Ok((limited.into_inner().map_err(reach)?.into(), Some(connection.into())))
        }
    }
}

/// The first address of a host that answers.
fn connect(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}
