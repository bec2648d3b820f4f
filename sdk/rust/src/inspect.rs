//! Function 0 of every worker: what it holds and how it is doing. Read by `ringway shm` and `ringway top`.

use std::sync::{Arc, Weak};

use ringway_ipc::channel::ChannelStats;
use ringway_protocol::{FunctionId, naming};
use serde_json::{Value, json};

use crate::callee::Registered;
use crate::counters::payload_counters;
use crate::function::Function;
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

fn report(inner: &Inner) -> Value {
    let arena = inner.arena.stats();
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
    let segments: Vec<Value> = inner
        .arena
        .segments()
        .iter()
        .map(|(id, segment)| json!({"id": id, "bytes": segment.len()}))
        .collect();
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
        "arena": {
            "segments": segments,
            "held_bytes": arena.held_bytes,
            "live_blocks": arena.live_blocks,
            "live_bytes": arena.live_bytes,
            "free_blocks": arena.free_blocks,
            "free_bytes": arena.free_bytes,
            "loans": arena.loans,
            "grows": arena.grows,
            "shrinks": arena.shrinks,
            "failures": arena.failures,
        },
        "channels": channels,
        "payload_bytes": {"lent": counters.lent_bytes, "copied": counters.copied_bytes},
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
