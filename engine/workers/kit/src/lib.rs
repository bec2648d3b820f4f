//! What the built-in workers have in common: live triggers, their conditions, deliveries, errors of the store. Used by every
//! crate beside this one. It must not know what any of those workers is for.

#![forbid(unsafe_code)]

pub mod bindings;
pub mod clock;
pub mod condition;
pub mod crew;
pub mod deliver;
pub mod failure;

pub use bindings::{Binding, Bindings};
pub use clock::Clock;
pub use condition::Condition;
pub use crew::{Crew, Spawner};
pub use deliver::{Delivered, deliver, deliver_async};
pub use failure::store_failure;
