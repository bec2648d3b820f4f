//! Function 0 of every worker: what it holds and how it is doing. Read by `ringway shm` and `ringway top`.

use std::sync::{Arc, Weak};

use ringway_ipc::arena::Arena;
use ringway_ipc::channel::ChannelStats;
use ringway_protocol::{FunctionId, naming};
use serde_json::{Value, json};

use crate::callee::Registered;
use crate::counters::payload_counters;
use crate::function::Function;
use crate::memory::Zones;
use crate::message::Message;
use crate::worker::Inner;

/// Puts the function at index 0, where it is not part of the catalog.
pub(crate) fn install(inner: &Arc<Inner>) {
    let weak: Weak<Inner> = Arc::downgrade(inner);
    let mut function = Function::raw(naming::WORKER_INSPECT, move |_, _| {
        let report = weak.upgrade().map_or(Value::Null, |inner| report(&inner));
        Message::json(&report)
    })
    .inline()
    .internal();
    if let Ok(id) = FunctionId::new(naming::WORKER_INSPECT) {
        function.spec.id = id;
    }
    inner.functions.update(|slots| {
        if slots.is_empty() {
            slots.push(None);
        }
        slots[0] = Some(Arc::new(Registered::new(function)));
    });
}

/// What a worker holds and has moved.
pub(crate) fn report(inner: &Inner) -> Value {
    let counters = payload_counters();
    let (threads, blocked) = inner.pool.threads();
    let callees = inner.dispatcher.callees();
    let callers = inner.dispatcher.callers();
    let channels: Vec<Value> = callees
        .iter()
        .map(|callee| {
            channel(&callee.channel.stats(), "callee", callee.peer().get(), callee.running() as u64)
        })
        .chain(callers.iter().map(|caller| {
            channel(&caller.channel.stats(), "caller", caller.peer().get(), u64::from(caller.in_flight()))
        }))
        .collect();
    let zones = inner.zones.as_ref().map(Zones::arenas).unwrap_or_default();
    let zones: serde_json::Map<String, Value> =
        zones.iter().map(|(zone, held)| (zone.clone(), arena(held))).collect();
    json!({
        "worker_id": inner.id,
        "name": inner.name,
        "pid": std::process::id(),
        "wait_mode": inner.policy.mode().as_str(),
        "park_ns": inner.policy.park_ns(),
        "pressure": inner.policy.pressure(),
        "draining": inner.is_draining(),
        "panics": inner.panics(),
        "telemetry_lost": {"spans": inner.telemetry.lost().spans, "logs": inner.telemetry.lost().logs},
        "threads": {"pool": threads, "blocked": blocked},
        "arena": arena(&inner.arena),
        "zone_arenas": zones,
        "channels": channels,
        "payload_bytes": {"lent": counters.lent_bytes, "copied": counters.copied_bytes},
    })
}

fn arena(arena: &Arena) -> Value {
    let stats = arena.stats();
    let segments: Vec<Value> =
        arena.segments().iter().map(|(id, segment)| json!({"id": id, "bytes": segment.len()})).collect();
    json!({
        "segments": segments,
        "held_bytes": stats.held_bytes,
        "live_blocks": stats.live_blocks,
        "live_bytes": stats.live_bytes,
        "free_blocks": stats.free_blocks,
        "free_bytes": stats.free_bytes,
        "loans": stats.loans,
        "grows": stats.grows,
        "shrinks": stats.shrinks,
        "failures": stats.failures,
    })
}

fn channel(stats: &ChannelStats, role: &str, peer: u64, in_flight: u64) -> Value {
    json!({
        "role": role,
        "peer": format!("{peer:016x}"),
        "in_flight": in_flight,
        "sent": stats.sent,
        "received": stats.received,
        "leases": stats.leases,
        "lent_bytes": stats.lent_bytes,
        "segments_mapped": stats.segments_in,
        "segments_mapped_bytes": stats.segments_in_bytes,
        "segments_announced": stats.segments_out,
        "ring_bytes": stats.ring_bytes,
    })
}
