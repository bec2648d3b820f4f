//! The iii listener: iii's published SDKs connect to it unchanged, and each connection is a worker of this engine. Used by
//! the list of built-in workers. It must not know the engine: it attaches to an address as any worker does.
//!
//! - [`Face`]: what runs: a runtime of its own, and a listener for each address;
//! - `listener`: sockets, routes, who may connect; `socket`: the WebSocket of a request;
//! - `connection` and `outbox`: one socket, read and written without anybody waiting for it;
//! - [`protocol`]: the messages, as text; `session`: one worker, what it says and is asked.
//! - `observers`: functions that are called after each call of another one;
//! - [`channels`]: streams beside calls; `otel`: what SDKs report.

#![forbid(unsafe_code)]

pub mod config;

mod limits;

pub mod protocol;

mod socket;

pub mod channels;

mod outbox;

mod linger;

mod connection;

mod rbac;

mod functions;

mod observers;

mod shared;

mod listener;

mod session;

mod otel;

mod face;

pub use channels::Channels;
pub use config::Config;
pub use face::{Face, FaceCounters, StartError};
