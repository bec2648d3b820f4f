//! Engines of one project that see each other through a NATS server. Used by whoever starts the links of an engine.
//!
//! - [`NatsLinks`]: what runs; [`NatsSettings`]: what it is told; [`NatsStatus`]: what it knows, for people;
//! - [`roll`]: who is there and what they offer, as plain data with the time as an argument; [`message`]: what they say;
//! - `pipe`: the bytes of one link as messages; `bus`: the thread with the connection; `connect`: how it is made.
//!
//! # Trust model
//! Whoever may publish on the subjects of a project is an engine of it: keep them to an account, or to permissions, of their
//! own. An engine answers calls of what it offers alone, and registers what its settings let it call.
//!
//! # What this crate must not know
//! Channels, frames and workers' sockets: those are the links' business, here as everywhere.

#![forbid(unsafe_code)]

pub mod limits;

mod settings;

pub mod message;

pub mod roll;

mod pipe;

mod connect;

mod status;

mod bus;

pub use bus::{NatsLinks, StartError};
pub use connect::{SettingsError, check_project, check_server};
pub use settings::NatsSettings;
pub use status::{EngineStatus, NatsStatus};
