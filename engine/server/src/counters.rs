//! What the control plane counts: one number for each limit and each way a connection can end. Written by the control
//! thread, read by whoever asks. It must not know what is done about a number.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// The numbers as they grow.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)+
        }

        /// The numbers at one moment, since the engine's start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct CountersReport {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Counters {
            pub(crate) fn report(&self) -> CountersReport {
                CountersReport { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Calls into other zones.
    relayed_calls,
    /// Those that the policy did not allow.
    relayed_forbidden,
    /// Those that ended in another error.
    relayed_errors,
    /// Bytes of their requests, replies and streamed items: each was copied from one zone's memory into another's.
    relayed_bytes,
    /// Connections that were accepted.
    connections_accepted,
    /// Connections that are open now.
    connections_open,
    /// Connections refused for their user.
    refused_user,
    /// Connections refused since there were too many.
    refused_limit,
    /// Connections closed since their first message did not come in time.
    refused_silent,
    /// How often the process had no descriptor left for a connection.
    accept_failures,
    /// Messages that came.
    messages_in,
    /// Messages that were sent.
    messages_out,
    /// Workers that attached, again or for the first time.
    attaches,
    /// Workers that left in peace.
    goodbyes,
    /// Workers that died.
    deaths,
    /// Workers that were put out.
    expulsions,
    /// Messages or bytes that the protocol does not allow.
    violations,
    /// Workers put out since they did not read what was sent to them.
    slow_readers,
    /// Channels that were opened.
    channels_opened,
    /// Channels that were not opened since memory or descriptors ran out.
    channels_failed,
    /// Permission pages that exist now.
    permission_pages,
    /// Telemetry records that were taken in.
    telemetry_records,
    /// Telemetry records that were none.
    telemetry_malformed,
    /// Telemetry rings dropped since their worker broke them.
    telemetry_rings_broken,
    /// How often the telemetry thread was woken from its sleep.
    telemetry_wakes,
    /// Log lines of which nobody was told though somebody is bound to them, since there were too many; and of each binding,
    /// what it could not be told.
    records_untold,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

/// Adds some.
pub(crate) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

/// Sets what is true now.
pub(crate) fn set(counter: &AtomicU64, number: usize) {
    counter.store(number as u64, Ordering::Relaxed);
}
