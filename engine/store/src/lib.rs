//! What Ringway keeps: ordered byte keys in named tables, changed by atomic batches, read through snapshots.
//!
//! [`Store`] is the trait that durable workers are written against; [`Embedded`] implements it in one folder of one
//! machine. A batch committed as [`Durability::Durable`] is on disk when its revision is told. This crate must not know
//! queues, scopes or schedules: a value is bytes.
//!
//! Start with [`store`], then [`embedded`]; `log` and `index` say how bytes lie on disk. [`parts`] is for those who keep
//! the trait's promise elsewhere.

#![forbid(unsafe_code)]

pub mod backup;
pub mod batch;
pub mod blobs;
mod committer;
pub mod embedded;
pub mod error;
pub mod files;
mod index;
mod keys;
pub mod limits;
mod lock;
mod log;
mod memory;
pub mod metrics;
mod pair;
pub mod parts;
pub mod report;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod told;
mod view;

pub use batch::{Batch, Change, Durability, Precondition};
pub use blobs::{BlobError, BlobId, Blobs};
pub use embedded::{Embedded, Options};
pub use error::{OpenError, StoreError};
pub use metrics::Metrics;
pub use report::{Damage, OpenReport};
pub use store::{Commit, Entry, Scan, Snapshot, Store, Value};
