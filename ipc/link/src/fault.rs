//! Why a link or one of its channels ended. Used by everybody here; the codes travel in [`crate::wire::Class::Goodbye`].
//! It must not know who is told.

use std::io;

/// What the other end said that no correct one says. The link is closed: nothing behind it could be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Bytes that are no head.
    #[error(
        "wanted a head that begins with `RL`, found {found:02x?}; the other end does not speak this protocol, or lost count of its bytes"
    )]
    Magic {
        /// The first two.
        found: [u8; 2],
    },
    /// Another version.
    #[error("wanted version {} of the link's format, found {found}", crate::wire::VERSION)]
    Version {
        /// Which.
        found: u8,
    },
    /// A class that does not exist.
    #[error("wanted a known class of heads, found {found}")]
    Class {
        /// Which.
        found: u8,
    },
    /// A frame whose parts do not fit a slot.
    #[error("a frame's sizes do not fit its slot")]
    Sizes,
    /// A table of descriptors that is none.
    #[error("a frame's table of descriptors is none")]
    Table,
    /// More payload bytes behind a frame than may be.
    #[error(
        "{found} bytes of payload behind one frame; a frame carries at most {}",
        crate::limits::COPIED_BYTES_MAX
    )]
    Copied {
        /// How many.
        found: u64,
    },
    /// A payload larger than any may be.
    #[error("a payload of {found} bytes; the largest has {}", ringway_ipc::limits::BLOCK_BYTES_MAX)]
    Payload {
        /// Its bytes.
        found: u64,
    },
    /// A piece of a transfer that was not announced, or a piece too long for it.
    #[error("a piece of {bytes} bytes for transfer {transfer}, which does not take it")]
    Chunk {
        /// The transfer.
        transfer: u64,
        /// The bytes.
        bytes: u64,
    },
    /// Too many transfers at a time.
    #[error("more than {} transfers at a time", crate::limits::TRANSFERS_MAX)]
    Transfers,
    /// More frames than there was room for.
    #[error("channel {channel} was sent more frames than it has room for")]
    Frames {
        /// The channel.
        channel: u32,
    },
    /// A count that goes backwards or too far.
    #[error("a count of what was taken is not possible")]
    Count,
    /// A message longer than any may be.
    #[error("a message of {found} bytes; the longest has {}", crate::limits::MESSAGE_BYTES_MAX)]
    Message {
        /// Its bytes.
        found: u64,
    },
    /// What was encrypted cannot be read.
    #[error("the encrypted bytes are broken")]
    Encryption,
    /// The owner of this end could make nothing of a message.
    #[error("a message means nothing")]
    Nonsense,
    /// The other end goes on asking and does not read.
    #[error("the other end does not read what it is sent")]
    Unread,
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The owner of this end closed it.
    #[error("closed here")]
    Local,
    /// The other end said goodbye.
    #[error("the other end closed the link")]
    Goodbye,
    /// The other end said that this one broke the protocol.
    #[error("the other end found this one at fault (code {code})")]
    Accused {
        /// Its word for what.
        code: u64,
    },
    /// The socket ended without a goodbye.
    #[error("the connection was cut")]
    Cut,
    /// Nothing was heard for too long.
    #[error("nothing was heard from the other end for {seconds} s")]
    Silent {
        /// How long, in seconds.
        seconds: u64,
    },
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Socket(#[from] io::Error),
    /// The other end broke the protocol.
    #[error("the other end broke the protocol: {0}")]
    Fault(#[from] Fault),
}

impl Ended {
    /// The number that tells the other end why: 0 for an end in peace.
    #[must_use]
    pub fn code(&self) -> u64 {
        match self {
            Self::Fault(fault) => fault.code(),
            _ => 0,
        }
    }
}

impl Fault {
    /// A number for the other end's log.
    #[must_use]
    pub fn code(self) -> u64 {
        match self {
            Self::Magic { .. } => 1,
            Self::Version { .. } => 2,
            Self::Class { .. } => 3,
            Self::Sizes => 4,
            Self::Table => 5,
            Self::Copied { .. } => 6,
            Self::Payload { .. } => 7,
            Self::Chunk { .. } => 8,
            Self::Transfers => 9,
            Self::Frames { .. } => 10,
            Self::Count => 11,
            Self::Message { .. } => 12,
            Self::Encryption => 13,
            Self::Nonsense => 14,
            Self::Unread => 15,
        }
    }
}
