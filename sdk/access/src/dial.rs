//! Dialling another host: the connection, encryption, and the handshake. Blocks. Used by whoever begins a link, on a thread
//! of its own. It must not know what the link is for.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use ringway_protocol::{CallError, ErrorCode};
use rustls::Connection;

use crate::address::LinkAddress;
use crate::credentials::Credentials;
use crate::doorkeeper::check_exposure;
use crate::handshake::{self, Accepted, ClockReading, HandshakeError, Introduction};
use crate::limited::Limited;

/// How long one address may take to answer: the system itself would ask again only after a second, and then after two and
/// more, by when whoever was away may be back.
const CONNECT_MAX: Duration = Duration::from_millis(1500);

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The other end said no, or this one may not dial there.
    #[error(transparent)]
    Refused(CallError),
    /// The network.
    #[error("cannot reach `{address}`: {source}")]
    Connect {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Encryption or the handshake.
    #[error("no link to `{address}`: {problem}")]
    Handshake {
        /// Where.
        address: String,
        /// What was wrong.
        problem: String,
    },
}

/// A connection whose two ends have greeted each other.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub socket: TcpStream,
    /// Encryption, if the credentials have it.
    pub tls: Option<Connection>,
    /// What the other end said.
    pub accepted: Accepted,
}

/// Connects and greets until a deadline, at the first of the host's addresses that answers. `prepare` is given the connection
/// before the first byte.
///
/// # Errors
/// [`DialError`]. What off loopback would not be both encrypted and authenticated is refused before anything is sent.
pub fn dial(
    address: &LinkAddress,
    credentials: &Credentials,
    me: &Introduction,
    clock: &dyn Fn() -> ClockReading,
    prepare: &dyn Fn(&TcpStream) -> io::Result<()>,
    deadline: Instant,
) -> Result<Dialled, DialError> {
    let exposed = check_exposure(address, credentials.tls.is_some(), credentials.has_authentication());
    exposed.map_err(|error| DialError::Refused(CallError::new(ErrorCode::Forbidden, error.to_string())))?;
    let reach = |source| DialError::Connect { address: address.to_string(), source };
    let socket = connect(address.host(), address.port(), deadline).map_err(reach)?;
    prepare(&socket).map_err(reach)?;
    let failed = |error: HandshakeError| match error {
        HandshakeError::Refused(error) => DialError::Refused(error),
        other => DialError::Handshake { address: address.to_string(), problem: other.to_string() },
    };
    let mut limited = Limited::new(socket, deadline);
    let Some(tls) = &credentials.tls else {
        let accepted =
            handshake::connect(&mut limited, me, credentials, None, clock, deadline).map_err(failed)?;
        return Ok(Dialled { socket: limited.into_inner().map_err(reach)?, tls: None, accepted });
    };
    let broken = |problem: String| DialError::Handshake { address: address.to_string(), problem };
    let mut secured = tls.connect(address.host(), limited).map_err(|error| broken(error.to_string()))?;
    let binding = secured.binding;
    let accepted = handshake::connect(&mut secured.stream, me, credentials, Some(&binding), clock, deadline);
    let accepted = accepted.map_err(failed)?;
    let (connection, limited) = secured.stream.into_parts();
    Ok(Dialled { socket: limited.into_inner().map_err(reach)?, tls: Some(connection.into()), accepted })
}

/// The first address of a host that answers.
fn connect(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left.min(CONNECT_MAX)) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}
