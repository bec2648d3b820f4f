//! Remote workers: those of other hosts, which reach this engine over a link and are here what they would be on this host.
//! Used by whoever starts the built-in workers.
//!
//! For each of them this crate attaches to the engine as that worker, with its id and its name: the engine knows no other
//! kind. What it says to the engine is passed on, within what it was granted; its channels end here, and go on over the
//! link.
//!
//! - [`Links`]: what runs;
//! - `door`: who comes, and the handshake;
//! - `gateway`: the thread that passes messages on; `proxy`: one remote worker there.
//!
//! It must not know the engine: it attaches to an address as any worker does.

#![forbid(unsafe_code)]

pub mod limits;

mod settings;

mod callable;

mod proxy;

mod gateway;

mod door;

mod links;

pub use links::{LinkStatus, Links, StartError};
pub use settings::Settings;
