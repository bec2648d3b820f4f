//! What all connections share. It must not know how a connection is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringway::Worker;

use crate::channels::Channels;
use crate::config::Config;
use crate::otel::Telemetry;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Where the engine is.
    pub(crate) address: String,
    /// The settings.
    pub(crate) config: Config,
    /// The listener's own worker, which calls what belongs to no connection.
    pub(crate) worker: Worker,
    /// Streams beside calls.
    pub(crate) channels: Channels,
    /// What came as telemetry.
    pub(crate) telemetry: Telemetry,
    connections: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(address: &str, config: Config, worker: Worker) -> Arc<Self> {
        let (channels, telemetry) = (Channels::default(), Telemetry::default());
        let connections = AtomicUsize::new(0);
        Arc::new(Self { address: address.to_owned(), config, worker, channels, telemetry, connections })
    }

    /// A place for one more connection, or none.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let max = self.config.connections_max;
        let room = |count| (count < max).then_some(count + 1);
        let taken = self.connections.fetch_update(Ordering::AcqRel, Ordering::Acquire, room);
        taken.ok().map(|_| Admitted(Arc::clone(self)))
    }
}

/// The place of a connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Admitted(Arc<Shared>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}
