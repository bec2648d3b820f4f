//! The iii listener: iii's published SDKs connect to it unchanged, and each connection is a worker of this engine. Used by
//! the list of built-in workers. It must not know the engine: it attaches to an address as any worker does.
//!
//! - [`Face`]: what runs: a runtime of its own, and a listener for each address;
//! - `listener`: sockets, routes, who may connect; `socket`: the WebSocket of a request;
//! - `session`: one worker's connection; [`channels`]: streams beside calls.

#![forbid(unsafe_code)]

pub mod config;

mod limits;

mod socket;

pub mod channels;

mod shared;

mod listener;

mod session;

mod otel;

mod face;

pub use channels::Channels;
pub use config::Config;
pub use face::{Face, FaceCounters, StartError};
