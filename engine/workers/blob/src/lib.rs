//! The built-in blob worker: large bytes by reference, named by their hash, kept while somebody holds them. The files are the
//! store's; here are the functions. Used by whoever runs an engine; it must not know the engine, nor what a blob means.
#![forbid(unsafe_code)]

mod functions;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use ringway::{CallError, Worker};
use ringway_store::Store;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use functions::Lent;

/// Settings of the worker.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The longest blob that `blob::put` and `blob::put_stream` take, in bytes. Default 1,073,741,824, at most four times that.
    pub bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { bytes_max: 1 << 30 }
    }
}

/// Why the worker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be obeyed.
    #[error("the blob worker cannot start: wanted `bytes_max` from 1 to {max}, found {found}")]
    Settings {
        /// What was found.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// The worker could not attach or register.
    #[error("the blob worker cannot attach: {0}")]
    Attach(#[from] Box<CallError>),
}

impl From<CallError> for StartError {
    fn from(error: CallError) -> Self {
        Self::Attach(Box::new(error))
    }
}

/// The built-in blob worker. Dropping it ends it.
#[derive(Debug)]
pub struct Blob {
    worker: Worker,
    /// The functions have it only during a call, so that it ends with this.
    _store: Arc<dyn Store>,
}

impl Blob {
    /// Attaches to the engine at `address` and serves the blobs of a store. With one that keeps none, as on NATS, every call
    /// is refused, with the reason.
    ///
    /// # Errors
    /// [`StartError`] says what is missing.
    pub fn start(address: &str, store: Arc<dyn Store>, config: Config) -> Result<Self, StartError> {
        let max = ringway_store::limits::BLOB_BYTES_MAX;
        if !(1..=max).contains(&config.bytes_max) {
            return Err(StartError::Settings { found: config.bytes_max, max });
        }
        let worker = Worker::builder("blob")
            .address(address)
            .description("keeps large bytes by reference")
            .connect()?;
        // From here on, dropping it ends it.
        let lent = Lent(Arc::downgrade(&store));
        let blob = Self { worker, _store: store };
        let mut all = functions::all(&lent, config.bytes_max);
        all.extend(streams::all(&lent, config.bytes_max));
        blob.worker.register_all(all)?;
        Ok(blob)
    }

    /// Ends it, as dropping it does.
    pub fn shut_down(self) {
        drop(self);
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        // Calls under way have the store: they end, or find it gone.
        self.worker.drain(Duration::from_secs(5));
        self.worker.shut_down();
    }
}
