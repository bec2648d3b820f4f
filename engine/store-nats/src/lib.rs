//! The store on NATS: what [`ringway_store::Store`] promises, kept by `JetStream` instead of a folder.
//!
//! A stream is the log: every group of commits is one record in it, written behind the one before or not at all. A
//! key-value bucket is the index: it gets the newest form of what has changed a little later, so that others can read it
//! and the log can be cut. Everything is in memory too; reads never ask the server. One engine has a store at a time.
//! This crate must not know queues, scopes or schedules: a value is bytes.
//!
//! Start with [`store`]; `claim` says who may write, `writer` how a commit is kept, `mover` how the bucket follows, `load`
//! how it is all read again.

#![forbid(unsafe_code)]

pub mod access;
pub mod error;
pub mod limits;
pub mod options;

mod names;

mod messages;

mod map;

mod core;
mod link;

mod claim;
mod load;
mod mover;
mod writer;

pub mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::OpenError;
pub use options::{Identity, NatsOptions, Tls};
pub use store::NatsStore;
