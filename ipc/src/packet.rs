//! Packets with file descriptors over a Unix stream socket: the transport of the control socket, for both of its ends.
//!
//! A packet is `u32 length, u32 descriptor count`, both little-endian, then `length` bytes; its descriptors ride with the
//! system call that carries its first byte. Nothing here blocks, except [`PacketStream::connect`] while the other side has
//! no room. It must not know what the bytes say.
//!
//! What a peer can do: send any bytes and descriptors at any pace, hang up anywhere, or never read. Memory grows with the
//! bytes that came, not with what a length announces; descriptors that belong to no packet are an error; what waits for a
//! slow reader is bounded.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::sys::socket::{self, Credentials, MESSAGE_FDS_MAX};

mod address;
mod listener;

pub use listener::{Access, BindError, PacketListener};

/// The most bytes of one packet, its prefix apart.
pub const PACKET_BYTES_MAX: usize = 64 << 20;
/// The most bytes that wait for a slow reader, unless [`PacketStream::limit_queue`] says otherwise: the largest packet and
/// a quarter of it.
pub const QUEUED_BYTES_MAX: usize = 80 << 20;
/// The length and the descriptor count.
const PREFIX_BYTES: usize = 8;
/// How much is read at a time.
const READ_BYTES: usize = 64 << 10;
/// How many packets go out with one system call.
const WRITE_PACKETS: usize = 32;

const _: () = assert!(PACKET_BYTES_MAX + PREFIX_BYTES <= QUEUED_BYTES_MAX);

/// Why a packet could not be sent or received. After a receive error the stream is of no use any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// The peer closed the socket, between two packets.
    #[error("the other side hung up")]
    HungUp,
    /// The peer closed the socket inside a packet.
    #[error("the other side hung up after {found} bytes of a packet")]
    Torn {
        /// The bytes that came.
        found: usize,
    },
    /// A packet is too long.
    #[error("a packet has at most {PACKET_BYTES_MAX} bytes, found {found}")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// A packet has too many descriptors.
    #[error("a packet has at most {MESSAGE_FDS_MAX} file descriptors, found {found}")]
    TooManyFds {
        /// Their number.
        found: usize,
    },
    /// Descriptors did not come with the packet that announced them.
    #[error("a packet announced {wanted} file descriptors and {found} came")]
    FdsMissing {
        /// The number announced.
        wanted: usize,
        /// The number that came.
        found: usize,
    },
    /// Descriptors came that no packet announced.
    #[error("{found} file descriptors came that no packet announced")]
    FdsUnasked {
        /// Their number.
        found: usize,
    },
    /// The kernel dropped descriptors: too many came, or this process has no room for them.
    #[error(
        "file descriptors were lost: more came than {MESSAGE_FDS_MAX}, or this process has too many open files"
    )]
    FdsLost,
    /// The peer reads too slowly.
    #[error("{queued} bytes wait for a slow reader, {queued_max} may")]
    SlowReader {
        /// What would wait.
        queued: usize,
        /// The limit.
        queued_max: usize,
    },
    /// The system refused.
    #[error("cannot use the control socket: {0}")]
    System(#[from] io::Error),
}

/// What came: the bytes of a packet and its descriptors.
pub type Packet = (Vec<u8>, Vec<OwnedFd>);

/// A packet on its way out.
#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    fds: Vec<Arc<OwnedFd>>,
}

/// One end of a connection. Non-blocking.
#[derive(Debug)]
pub struct PacketStream {
    socket: OwnedFd,
    outgoing: VecDeque<Outgoing>,
    /// How many bytes of the first outgoing packet are out. Its descriptors went with the first of them.
    sent: usize,
    queued: usize,
    queued_max: usize,
    /// Bytes that came; `taken` of them belong to packets handed out.
    incoming: Vec<u8>,
    taken: usize,
    incoming_fds: VecDeque<OwnedFd>,
}

impl PacketStream {
    /// Takes over a connected, non-blocking stream socket.
    #[must_use]
    pub const fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            outgoing: VecDeque::new(),
            sent: 0,
            queued: 0,
            queued_max: QUEUED_BYTES_MAX,
            incoming: Vec::new(),
            taken: 0,
            incoming_fds: VecDeque::new(),
        }
    }

    /// Connects to a listener: a path, or an abstract name after `@`. Waits up to five seconds while the listener's queue
    /// is full.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` when nobody listens, `TimedOut` when the queue stays full, `InvalidInput` for a
    /// name that is too long.
    pub fn connect(address: &str) -> io::Result<Self> {
        Ok(Self::new(address::connect(address)?))
    }

    /// Sets how many bytes may wait for a slow reader.
    pub const fn limit_queue(&mut self, bytes_max: usize) {
        self.queued_max = bytes_max;
    }

    /// Returns who is at the other end.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn credentials(&self) -> io::Result<Credentials> {
        socket::peer_credentials(&self.socket)
    }

    /// Appends a packet to what goes out with the next [`Self::flush`]. Descriptors are kept open until then.
    ///
    /// # Errors
    /// [`PacketError::TooLong`], [`PacketError::TooManyFds`] or [`PacketError::SlowReader`]; nothing was appended.
    pub fn queue(&mut self, bytes: &[u8], fds: Vec<Arc<OwnedFd>>) -> Result<(), PacketError> {
        let too_long = PacketError::TooLong { found: bytes.len() };
        let Ok(length) = u32::try_from(bytes.len()) else { return Err(too_long) };
        if bytes.len() > PACKET_BYTES_MAX {
            return Err(too_long);
        }
        if fds.len() > MESSAGE_FDS_MAX {
            return Err(PacketError::TooManyFds { found: fds.len() });
        }
        let fd_count = u32::try_from(fds.len()).map_err(|_| PacketError::TooManyFds { found: fds.len() })?;
        let queued = self.queued + PREFIX_BYTES + bytes.len();
        if queued > self.queued_max {
            return Err(PacketError::SlowReader { queued, queued_max: self.queued_max });
        }
        let mut packet = Vec::with_capacity(PREFIX_BYTES + bytes.len());
        packet.extend_from_slice(&length.to_le_bytes());
        packet.extend_from_slice(&fd_count.to_le_bytes());
        packet.extend_from_slice(bytes);
        self.queued = queued;
        self.outgoing.push_back(Outgoing { bytes: packet, fds });
        Ok(())
    }

    /// Sends as much as the socket takes, and says whether everything is out.
    ///
    /// # Errors
    /// `BrokenPipe` or `ConnectionReset` when the peer is gone; what it sent before may still be received.
    pub fn flush(&mut self) -> io::Result<bool> {
        while !self.outgoing.is_empty() {
            match self.send_some() {
                Ok(bytes) => self.mark_sent(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Sends the first packet and those after it that have no descriptors, with one system call.
    fn send_some(&self) -> io::Result<usize> {
        let mut packets = self.outgoing.iter();
        let Some(first) = packets.next() else { return Ok(0) };
        let mut parts = vec![IoSlice::new(&first.bytes[self.sent..])];
        let plain = packets.take_while(|packet| packet.fds.is_empty()).take(WRITE_PACKETS - 1);
        parts.extend(plain.map(|packet| IoSlice::new(&packet.bytes)));
        let fds: Vec<BorrowedFd<'_>> = match self.sent {
            0 => first.fds.iter().map(AsFd::as_fd).collect(),
            _ => Vec::new(),
        };
        socket::send(&self.socket, &parts, &fds)
    }

    fn mark_sent(&mut self, mut bytes: usize) {
        self.queued = self.queued.saturating_sub(bytes);
        while let Some(first) = self.outgoing.front_mut() {
            let left = first.bytes.len() - self.sent;
            if bytes < left {
                self.sent += bytes;
                if self.sent > 0 {
                    first.fds.clear();
                }
                return;
            }
            bytes -= left;
            self.sent = 0;
            self.outgoing.pop_front();
        }
    }

    /// Whether packets wait for the socket to become writable.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Returns how many bytes wait for the socket to become writable.
    #[must_use]
    pub const fn queued_bytes(&self) -> usize {
        self.queued
    }

    /// Returns the next packet, or none while more bytes are wanted. With an edge-triggered poll, call it until it
    /// returns none.
    ///
    /// # Errors
    /// [`PacketError::HungUp`] at the end of the stream; anything else means that the peer broke the protocol or the
    /// system failed.
    pub fn receive(&mut self) -> Result<Option<Packet>, PacketError> {
        loop {
            if let Some(packet) = self.take_packet()? {
                return Ok(Some(packet));
            }
            if !self.read_some()? {
                return Ok(None);
            }
        }
    }

    /// Cuts the next whole packet from the bytes that came.
    fn take_packet(&mut self) -> Result<Option<Packet>, PacketError> {
        let rest = &self.incoming[self.taken..];
        // Descriptors come with the first byte of their packet, and a read ends where descriptors were: what is here
        // belongs to the packets that have begun.
        let Some((&[a, b, c, d, e, f, g, h], rest)) = rest.split_first_chunk::<PREFIX_BYTES>() else {
            return self.check_unasked(if rest.is_empty() { 0 } else { MESSAGE_FDS_MAX }).map(|()| None);
        };
        let (length, wanted) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let (length, wanted) = (length as usize, wanted as usize);
        if length > PACKET_BYTES_MAX {
            return Err(PacketError::TooLong { found: length });
        }
        if wanted > MESSAGE_FDS_MAX {
            return Err(PacketError::TooManyFds { found: wanted });
        }
        let found = self.incoming_fds.len();
        if found < wanted {
            return Err(PacketError::FdsMissing { wanted, found });
        }
        let Some(bytes) = rest.get(..length) else {
            return self.check_unasked(wanted).map(|()| None);
        };
        let packet = (bytes.to_vec(), self.incoming_fds.drain(..wanted).collect());
        self.taken += PREFIX_BYTES + length;
        Ok(Some(packet))
    }

    fn check_unasked(&self, announced_max: usize) -> Result<(), PacketError> {
        match self.incoming_fds.len().saturating_sub(announced_max) {
            0 => Ok(()),
            found => Err(PacketError::FdsUnasked { found }),
        }
    }

    /// Reads once, and says whether anything came.
    fn read_some(&mut self) -> Result<bool, PacketError> {
        self.incoming.drain(..self.taken);
        self.taken = 0;
        if self.incoming.is_empty() {
            // A large packet's memory is not kept for the small ones after it.
            self.incoming.shrink_to(READ_BYTES);
        }
        let old = self.incoming.len();
        self.incoming.resize(old + READ_BYTES, 0);
        let mut fds = Vec::new();
        let received =
            socket::receive(&self.socket, &mut [IoSliceMut::new(&mut self.incoming[old..])], &mut fds);
        let bytes = received.as_ref().map_or(0, |received| received.bytes);
        self.incoming.truncate(old + bytes);
        self.incoming_fds.extend(fds);
        match received {
            Ok(received) if received.fds_lost => Err(PacketError::FdsLost),
            Ok(received) if received.bytes > 0 => Ok(true),
            Ok(_) => Err(self.hung_up()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(self.hung_up()),
            Err(error) => Err(error.into()),
        }
    }

    const fn hung_up(&self) -> PacketError {
        match self.incoming.len() - self.taken {
            0 => PacketError::HungUp,
            found => PacketError::Torn { found },
        }
    }
}

impl AsFd for PacketStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
