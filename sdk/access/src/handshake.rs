//! What two ends of a link say to each other before the first frame: who they are, a challenge, a proof, and yes or no.
//! Blocking, over any `Read + Write`. Used by whoever dials ([`connect`]) and whoever listens ([`identify`]). It must
//! not know how the link goes on.
//!
//! ```text
//!   client                                             server
//!     ── hello { kind, id, name, release, nonce, clock } ──►
//!     ◄── challenge { nonce }                       (or refused)
//!     ── proof { token, signature } ──►
//!     ◄── accepted { link, limits, grant, clock, … }  or refused
//! ```
//!
//! The signature is the token's holder's. It covers both messages before it, thus both nonces, the token, and what only
//! the two ends of the TLS session below know: a proof that was recorded, or passed on by a server in between, is good
//! nowhere else. Whoever comes by a certificate or from this host may need no token; the proof is empty then.
//!
//! Each message is a frame: `RWLK`, `u16` version, `u16` zero, `u32` length, all little-endian, then JSON.

use std::io;

use ringway_protocol::{CallError, ErrorCode};

mod client;

mod frame;

mod message;

mod proof;

mod server;

pub use client::{Accepted, connect};
pub use frame::{FRAME_BYTES_MAX, HANDSHAKE_VERSION, MAGIC};
pub use message::{ClockReading, Introduction, PeerKind};
pub use server::{Arrival, Candidate, Peer, identify};

use crate::text::NoRandomnessError;

/// Why a handshake ended without a link. The connection is of no use then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer speaks something else.
    #[error("wanted a handshake of a link, found bytes that begin with {found:02x?}")]
    Magic {
        /// Its first four bytes.
        found: [u8; 4],
    },
    /// The peer speaks another version of the handshake.
    #[error(
        "wanted version {HANDSHAKE_VERSION} of the handshake, found {found}; use the same release on both ends"
    )]
    Version {
        /// Its version.
        found: u16,
    },
    /// A field that this version leaves at zero is not.
    #[error("wanted zero in the reserved field of a handshake, found {found}")]
    Reserved {
        /// What it is.
        found: u16,
    },
    /// A message is longer than this step allows, or than can be sent.
    #[error("wanted a handshake message of at most {limit} bytes, found {found}")]
    TooLong {
        /// How long it may be.
        limit: usize,
        /// How long it is.
        found: usize,
    },
    /// The peer closed the connection between two messages.
    #[error("the peer closed the connection where {wanted} was wanted")]
    Closed {
        /// What should have come.
        wanted: &'static str,
    },
    /// The peer closed the connection within a message.
    #[error("the peer closed the connection in the middle of {wanted}")]
    Torn {
        /// What had begun.
        wanted: &'static str,
    },
    /// A message is no JSON, or not the one that was wanted.
    #[error("wanted {wanted} as JSON, found something else: {problem}")]
    Message {
        /// What should have come.
        wanted: &'static str,
        /// Where it is wrong.
        problem: String,
    },
    /// A field of a message has a value that it may not have.
    #[error("wanted {wanted} in the field `{field}` of a handshake, found something else")]
    Field {
        /// Its name.
        field: &'static str,
        /// What it may be.
        wanted: &'static str,
    },
    /// The deadline passed first.
    #[error("the handshake was not done by its deadline: {wanted} was wanted")]
    DeadlinePassed {
        /// What was waited for.
        wanted: &'static str,
    },
    /// The server said no; this is what it said.
    #[error("the server refused the link: {0}")]
    Refused(CallError),
    /// This side said no, and said so to the peer.
    #[error("the peer was refused: {0}")]
    Denied(CallError),
    /// The client's credentials are a token without a key to prove it with.
    #[error("wanted the private key that goes with the token, found none in the credentials")]
    KeyMissing,
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomnessError),
    /// The connection broke.
    #[error("the connection broke during the handshake: {0}")]
    Broken(#[source] io::Error),
}

impl HandshakeError {
    /// Returns the error under the stable code that users see.
    #[must_use]
    pub fn to_call_error(&self) -> CallError {
        let code = match self {
            Self::Refused(error) | Self::Denied(error) => return error.clone(),
            Self::Version { .. } => ErrorCode::IncompatibleVersion,
            Self::DeadlinePassed { .. } => ErrorCode::DeadlineExceeded,
            Self::KeyMissing | Self::Random(_) => ErrorCode::Forbidden,
            Self::Closed { .. } | Self::Torn { .. } | Self::Broken(_) => ErrorCode::EngineUnavailable,
            _ => ErrorCode::ProtocolViolation,
        };
        CallError::new(code, self.to_string())
    }

    /// Whether the peer, as far as it goes by this protocol, can be told why.
    const fn can_be_told(&self) -> bool {
        matches!(
            self,
            Self::Version { .. }
                | Self::Reserved { .. }
                | Self::TooLong { .. }
                | Self::Message { .. }
                | Self::Field { .. }
                | Self::Denied(_)
        )
    }
}
