//! Closes channels that nobody uses and gives memory back that nobody needs.
//!
//! Runs on the control thread, twice in the time after which something counts as idle, so an idle worker wakes every
//! half minute. A call that meets a channel at the moment of its closing opens a new one; it was never started.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ringway_ipc::channel::CloseReason;
use ringway_ipc::clock::now_ns;

use crate::worker::Inner;

/// Free payload memory that an idle worker keeps warm, in bytes.
const KEEP_BYTES: u64 = 64 << 20;

/// What was seen half the time ago.
#[derive(Debug, Default)]
struct Seen {
    /// Frames sent and received on each channel, by its address.
    channels: HashMap<usize, (u64, u64)>,
    loans: u64,
}

pub(super) fn start(inner: &Arc<Inner>, after: Duration) {
    again(Arc::downgrade(inner), after / 2, Seen::default());
}

fn again(inner: Weak<Inner>, every: Duration, seen: Seen) {
    let Some(strong) = inner.upgrade() else { return };
    let at_ns = now_ns().saturating_add(u64::try_from(every.as_nanos()).unwrap_or(u64::MAX));
    let task = move || {
        let Some(strong) = inner.upgrade() else { return };
        let seen = look(&strong, &seen);
        drop(strong);
        again(inner, every, seen);
    };
    strong.schedule(at_ns, Box::new(task));
}

fn look(inner: &Arc<Inner>, before: &Seen) -> Seen {
    let mut seen = Seen { loans: inner.arena.stats().loans, ..Seen::default() };
    for caller in inner.dispatcher.callers().iter() {
        let stats = caller.channel.stats();
        let (place, traffic) = (Arc::as_ptr(&caller.channel).addr(), (stats.sent, stats.received));
        let unchanged = before.channels.get(&place) == Some(&traffic);
        // A payload of the peer's that is still read here keeps its channel, for its return.
        let held = Arc::weak_count(&caller.channel) > 0 || stats.leases > 0;
        if unchanged && caller.in_flight() == 0 && !held {
            tracing::debug!(target: "ringway", peer = caller.channel.peer_worker(), "an idle channel is closed");
            inner.close_idle(caller);
        } else {
            seen.channels.insert(place, traffic);
        }
    }
    if let Some(zones) = &inner.zones {
        zones.trim(KEEP_BYTES);
    }
    if seen.loans == before.loans && before.loans > 0 {
        inner.arena.trim(KEEP_BYTES);
    }
    seen
}

impl Inner {
    fn close_idle(&self, caller: &Arc<crate::caller::CallerChannel>) {
        let link = self.routes.link(caller.peer());
        if link.caller.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, caller)) {
            link.caller.store(None);
        }
        caller.channel.close(CloseReason::Local);
        self.clear_up(&caller.channel);
        if let Ok(control) = self.control() {
            control.forget(&caller.channel);
        }
    }
}
