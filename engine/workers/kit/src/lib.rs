//! What the built-in workers have in common: live triggers, their conditions, deliveries, threads and times, names in keys,
//! requests in JSON, errors of the store. Used by every crate beside this one. It must not know what any of those workers is for.

#![forbid(unsafe_code)]

pub mod alarm;
pub mod bindings;
pub mod clock;
pub mod condition;
pub mod crew;
pub mod deliver;
pub mod failure;
pub mod json;
pub mod names;
pub mod text;

pub use alarm::Alarm;
pub use bindings::{Binding, Bindings};
pub use clock::Clock;
pub use condition::Condition;
pub use crew::{Crew, Spawner};
pub use deliver::{Delivered, deliver, deliver_async};
pub use failure::store_failure;
