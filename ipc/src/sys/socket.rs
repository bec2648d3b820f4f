//! Unix sockets that carry file descriptors, and who is at the other end. Used by peer sockets and by the control socket
//! on both sides. It must not know what the messages say.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// The largest number of file descriptors in one message.
pub const MESSAGE_FDS_MAX: usize = 8;

/// `TCP_RTO_MAX_MS` of `linux/tcp.h`, which the `libc` crate does not have yet.
const TCP_RTO_MAX_MS: libc::c_int = 44;

const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(MESSAGE_FDS_MAX));

/// What a receive returned besides the bytes and descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes written to the buffers. Zero on a stream, or on a seqpacket socket without descriptors: the peer hung up.
    pub bytes: usize,
    /// The packet was longer than the buffers and its tail is lost.
    pub truncated: bool,
    /// More descriptors came than [`MESSAGE_FDS_MAX`], or this process has no room for them. The rest were closed by the
    /// kernel.
    pub fds_lost: bool,
}

/// Who is at the other end of a Unix socket, as the kernel noted when it was connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The peer's process id as seen from here; 0 if it lives in a namespace that we cannot see.
    pub pid: u32,
    /// The peer's user id.
    pub uid: u32,
    /// The peer's group id.
    pub gid: u32,
}

/// Makes a connected pair of sockets that keep message borders. Non-blocking, close-on-exec. Credentials of both ends
/// are those of the calling process.
///
/// # Errors
/// Too many open files.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::SEQPACKET)
}

/// Makes a connected pair of stream sockets. Non-blocking, close-on-exec.
///
/// # Errors
/// Too many open files.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SocketType::STREAM)
}

fn pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

/// Sends bytes, and descriptors with the first of them. Returns how many bytes went out, which on a stream may be fewer
/// than given; the descriptors went with them. Never raises SIGPIPE.
///
/// # Errors
/// `WouldBlock` when the socket is full, in whatever mode it is; `BrokenPipe` or `ConnectionReset` when the peer is gone;
/// `InvalidInput` for more than [`MESSAGE_FDS_MAX`] descriptors.
pub fn send(socket: impl AsFd, bytes: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.len() > MESSAGE_FDS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // By the call and not by the file's mode, which whoever made the socket may still change.
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match rustix::net::sendmsg(socket.as_fd(), bytes, &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Receives bytes into `bytes` and appends descriptors to `fds`, close-on-exec.
///
/// # Errors
/// `WouldBlock` when the socket holds nothing, in whatever mode it is; whatever else `recvmsg` reports.
pub fn receive(
    socket: impl AsFd,
    bytes: &mut [IoSliceMut<'_>],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = loop {
        match rustix::net::recvmsg(socket.as_fd(), bytes, &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    Ok(Received {
        bytes: message.bytes,
        truncated: message.flags.contains(ReturnFlags::TRUNC),
        fds_lost: message.flags.contains(ReturnFlags::CTRUNC),
    })
}

/// Closes a connected socket for both sides while its descriptor stays open: both ends read what was sent before, then
/// the end. Whoever waits on either of them wakes.
pub fn hang_up(socket: impl AsFd) {
    // Only a socket that was never connected or is closed already refuses this.
    let _gone_already = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

/// Returns who connected the other end of a Unix socket.
///
/// # Errors
/// A descriptor that is no connected Unix socket.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<Credentials> {
    // rustix turns the pid into a type that cannot hold 0, which the kernel reports for a peer in a foreign pid
    // namespace, so the call is made here.
    let zero = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let credentials = socket_option(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, zero)?;
    Ok(Credentials {
        pid: u32::try_from(credentials.pid).unwrap_or(0),
        uid: credentials.uid,
        gid: credentials.gid,
    })
}

/// Returns a pidfd of the process that connected the other end: news of its death that no reused process id can fake.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 6.5; `ESRCH` or `EINVAL` when the peer is gone already.
pub fn peer_pidfd(socket: impl AsFd) -> io::Result<OwnedFd> {
    let fd = socket_option(socket, libc::SOL_SOCKET, libc::SO_PEERPIDFD, -1_i32)?;
    if fd < 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: a successful SO_PEERPIDFD call opened this descriptor for us, and it is non-negative by the check above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads a fixed-size option. `T` is a plain C type made of integers, valid for any bits.
fn socket_option<T: Copy>(socket: impl AsFd, level: i32, name: i32, mut value: T) -> io::Result<T> {
    let wanted = mem::size_of::<T>();
    let mut bytes = libc::socklen_t::try_from(wanted).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel writes at most `bytes` bytes to `value`, which is that large and lives across the call.
    let result = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut bytes)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if usize::try_from(bytes).ok() != Some(wanted) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(value)
}

/// Bounds the pauses after which the system sends again what a TCP connection's other end has not acknowledged: they double
/// from one time to the next, up to two minutes without this. Returns whether this system knows such a bound (Linux 6.15).
///
/// # Errors
/// No TCP socket; less than a second.
pub fn set_retransmit_pause_max(socket: impl AsFd, pause: Duration) -> io::Result<bool> {
    let millis = i32::try_from(pause.as_millis()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let bytes = libc::socklen_t::try_from(size_of_val(&millis)).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel reads the `bytes` bytes of `millis`, which lives across the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_RTO_MAX_MS,
            (&raw const millis).cast(),
            bytes,
        )
    };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOPROTOOPT) { Ok(false) } else { Err(error) }
}

/// The shortest round trip of a TCP connection that the system has seen in the last minutes, in nanoseconds: of the network,
/// without anybody's being woken. None for another socket, and before there was one. Costs a system call.
#[must_use]
pub fn shortest_round_trip_ns(socket: impl AsFd) -> Option<u64> {
    // SAFETY: it is made of integers, for which zeros are values.
    let zero: libc::tcp_info = unsafe { mem::zeroed() };
    let info = socket_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, zero).ok()?;
    // The kernel's own word for not knowing is the largest number.
    let known = !matches!(info.tcpi_min_rtt, 0 | u32::MAX);
    known.then(|| u64::from(info.tcpi_min_rtt) * 1000)
}

#[cfg(test)]
mod tests;
