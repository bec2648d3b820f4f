//! Carries channels over a socket: a caller here and a callee elsewhere each talk to a channel of their own host, and what
//! they publish travels between with the same header.
//!
//! # Where to start
//! - [`wire`]: what lies on the socket;
//! - [`driver`]: the thread that moves it, by `io_uring` or epoll; what users of this crate talk to;
//! - `session`: one link as plain data; `tunnel`: one channel of it; `outgoing`: what goes first.
//!
//! # Trust model
//! Whoever is at the other end was let in by the owner of the link, and may still say anything: every head is checked, every
//! count bounded, and what no correct end says closes the link with a reason ([`fault::Fault`]). It is not told where memory
//! lies, and its payloads lie in memory of this process before anybody sees them.
//!
//! # What this crate must not know
//! Functions and names, who may do what (a [`tunnel::Gate`] says that), how somebody is greeted.
#![expect(
    unsafe_code,
    reason = "io_uring is given addresses of memory that must stay until it has done; docs/unsafe.md has every place"
)]

pub mod limits;

pub mod wire;

pub mod fault;

mod clock;
mod pace;

mod outgoing;
mod parcel;

mod incoming;

pub mod tunnel;

mod session;

mod line;

pub mod connection;

pub mod driver;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

pub use clock::Distance;
pub use session::{LinkStats, News};
