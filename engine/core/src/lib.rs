//! What the engine knows, as plain data: catalog, zones, policy, views, channels, bindings. The engine's
//! server feeds it with what happened and carries out what it answers; simulations do the same without any
//! socket. It must not know the time (an argument), nor sockets, memory or threads.
//!
//! Start with [`Core::handle`]: events in, effects out. [`Core::query`] answers the built-in listings.

#![forbid(unsafe_code)]

mod bindings;
mod catalog;
mod channels;
mod core;
mod effect;
mod event;
mod listing;
mod policy;
mod relay;
mod view;
mod zones;

pub use catalog::{FunctionKey, Replica, Worker};
pub use core::{Config, Core, LISTING_FUNCTIONS};
pub use effect::Effect;
pub use event::{Announcement, ConnectionId, Credentials, Event};
pub use policy::{Action, Pattern, Policy, Rule};
pub use relay::RelayTarget;
pub use zones::{Zone, Zones};
