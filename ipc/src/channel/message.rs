//! What the two ends of a channel tell each other over their peer socket: four messages of 32 bytes, some with
//! descriptors. Nothing here acts on a message.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::socket;

const BYTES: usize = 32;

/// One message. On the wire: `kind: u32, version: u32, value: u32, more: u32, 0…`, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// First message of each end, with its segment, its worker's doorbell and, from a caller, its channel's doorbell.
    End,
    /// A segment that payloads will lie in, with its descriptor.
    Segment { key: u32 },
    /// No payload lies in this segment any more.
    SegmentGone { key: u32 },
    /// The end is closed. `reading`: what it was lent is still read there.
    Goodbye { reason: u32, reading: bool },
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The peer closed its end or died.
    #[error("the peer hung up")]
    HungUp,
    /// Not a message of this version.
    #[error("not a peer message of version {}", crate::layout::LAYOUT_VERSION)]
    Nonsense,
    /// The socket failed.
    #[error("the peer socket failed")]
    Io(#[from] io::Error),
}

fn word(bytes: &[u8; BYTES], at: usize) -> u32 {
    let quarter: [u8; 4] = bytes[at * 4..at * 4 + 4].try_into().unwrap_or_default();
    u32::from_le_bytes(quarter)
}

impl Message {
    fn encode(self) -> [u8; BYTES] {
        let (kind, value, more) = match self {
            Self::End => (1u32, 0, 0),
            Self::Segment { key } => (2, key, 0),
            Self::SegmentGone { key } => (3, key, 0),
            Self::Goodbye { reason, reading } => (4, reason, u32::from(reading)),
        };
        let mut bytes = [0; BYTES];
        let words = [kind, crate::layout::LAYOUT_VERSION, value, more];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; BYTES]) -> Option<Self> {
        if word(bytes, 1) != crate::layout::LAYOUT_VERSION {
            return None;
        }
        let value = word(bytes, 2);
        match word(bytes, 0) {
            1 => Some(Self::End),
            2 => Some(Self::Segment { key: value }),
            3 => Some(Self::SegmentGone { key: value }),
            4 => Some(Self::Goodbye { reason: value, reading: word(bytes, 3) != 0 }),
            _ => None,
        }
    }

    pub(crate) fn send(self, to: impl AsFd, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        socket::send(to, &[IoSlice::new(&self.encode())], fds).map(drop)
    }

    /// The next message, or `None` when none waits.
    pub(crate) fn receive(from: impl AsFd) -> Result<Option<(Self, Vec<OwnedFd>)>, MessageError> {
        let mut bytes = [0; BYTES];
        let mut fds = Vec::new();
        let received = match socket::receive(from, &mut [IoSliceMut::new(&mut bytes)], &mut fds) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(MessageError::HungUp),
            Err(error) => return Err(error.into()),
        };
        if received.bytes == 0 && fds.is_empty() {
            return Err(MessageError::HungUp);
        }
        if received.bytes != BYTES || received.truncated || received.fds_lost {
            return Err(MessageError::Nonsense);
        }
        let message = Self::decode(&bytes).ok_or(MessageError::Nonsense)?;
        Ok(Some((message, fds)))
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_socket() {
        let (here, there) = socket::seqpacket_pair().unwrap();
        let all = [
            Message::End,
            Message::Segment { key: 7 },
            Message::SegmentGone { key: u32::MAX },
            Message::Goodbye { reason: 3, reading: false },
            Message::Goodbye { reason: 3, reading: true },
        ];
        for message in all {
            message.send(&here, &[]).unwrap();
            assert_eq!(Message::receive(&there).unwrap().map(|(message, _)| message), Some(message));
        }
        assert!(Message::receive(&there).unwrap().is_none());
        socket::send(&here, &[IoSlice::new(&[9; 32])], &[]).unwrap();
        assert!(matches!(Message::receive(&there), Err(MessageError::Nonsense)));
        socket::send(&here, &[IoSlice::new(&[0; 40])], &[]).unwrap();
        assert!(matches!(Message::receive(&there), Err(MessageError::Nonsense)));
        drop(here);
        assert!(matches!(Message::receive(&there), Err(MessageError::HungUp)));
    }
}
