//! Workers of other hosts, which reach this engine over a link and are here what they would be on this host: those that
//! dialled it themselves, and those of other engines. Used by whoever starts the built-in workers.
//!
//! For each of them this crate attaches to the engine as that worker, with its id and its name: the engine knows no other
//! kind. Their channels end here, and go on over the link. What they may call and register is what their link was granted.
//!
//! - [`Links`]: what runs;
//! - `door`: who comes, and the handshake; `dialler`: other engines, dialled until they answer;
//! - `gateway`: the thread that passes messages on; `proxy`: one remote worker there; `peer`: one other engine, with what it
//!   offers; `watch`: what this one has to offer, `offers`: what of that others are told;
//! - [`Bus`]: engines that are not dialled one by one, but are behind something that knows them all.
//!
//! It must not know the engine: it attaches to an address as any worker does.

#![forbid(unsafe_code)]

pub mod limits;

mod settings;

mod callable;

mod offers;

mod attach;

mod watch;

mod proxy;

mod peer;

mod bus;

mod gateway;

mod door;

mod dialler;

mod links;

pub use bus::{Bus, BusInlet, BusSettings};
pub use links::{LinkStatus, Links, StartError};
pub use settings::{PeerSettings, Settings};
