//! Who is at the other end of a link, and what they may do. A link is a TCP connection between a remote worker and an
//! engine, or between two engines; off loopback it is encrypted and both ends prove who they are.
//!
//! Where to start: `handshake` is what both ends say before the first frame, `doorkeeper` whom a server lets in, `token`
//! what an issuer says of a holder, `grant` what a peer may do. `issue` makes everything that a new link needs, and
//! `credentials` is the file that its client is given.
//!
//! Whom is trusted with what: an issuer's key with every grant; the authority of client certificates with every common
//! name that the doorkeeper knows; the other end of a connection with nothing. All that it sends is checked before it
//! is used, within limits of memory and time. A token is no secret of its own: it is good for the holder of the key
//! that it names, in the one TLS session that the holder signed.
//!
//! This crate must not know frames, catalogs or the engine.

#![forbid(unsafe_code)]

mod text;

pub mod file;

pub mod key;

pub mod grant;

pub mod token;

pub mod address;

pub mod limited;

pub mod tls;

pub mod doorkeeper;

pub mod credentials;

pub mod handshake;

pub mod dial;

pub mod issue;

pub use address::LinkAddress;
pub use credentials::Credentials;
pub use dial::{DialError, Dialled, dial};
pub use doorkeeper::{Doorkeeper, Identity, check_exposure};
pub use grant::Grant;
pub use handshake::{Accepted, HandshakeError, Peer};
pub use key::{IdentityKey, PublicKey};
pub use text::{NoRandomnessError, utc};
