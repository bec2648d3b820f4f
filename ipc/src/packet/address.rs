//! Names of Unix sockets as users write them: a path, or an abstract name after `@`. Used by the two ends of a connection.
//! It must not know who listens there.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// How long to wait for a listener whose queue is full.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const CONNECT_PAUSE: Duration = Duration::from_millis(1);

/// Reads an address.
pub(super) fn parse(address: &str) -> io::Result<SocketAddrUnix> {
    let parsed = match address.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => SocketAddrUnix::new(address),
    };
    parsed.map_err(|error| {
        let text = format!("the socket address {address} cannot be used, at most 107 bytes can: {error}");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// Makes a stream socket: non-blocking, close-on-exec.
pub(super) fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Connects; waits while the listener's queue is full.
pub(super) fn connect(address: &str) -> io::Result<OwnedFd> {
    let parsed = parse(address)?;
    let begun = Instant::now();
    loop {
        let socket = stream_socket()?;
        match rustix::net::connect(&socket, &parsed) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if begun.elapsed() < CONNECT_TIME_MAX => std::thread::sleep(CONNECT_PAUSE),
            Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}
