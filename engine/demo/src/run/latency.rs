//! What one small call costs between these very processes, beside the floors of the machine in the same run.

use std::time::Duration;

use ringway::{CallError, Failure, Message, Sampler, WaitMode, Worker};
use ringway_bench::floors::{FloorOptions, Floors, measure};
use ringway_bench::machine::Regime;
use ringway_bench::stats::{Clock, Summary, closed_loop};
use serde::{Deserialize, Serialize};

use super::{Demo, DemoError, tell};
use crate::calls::{Calls, RingCalls, ask};
use crate::socket::SocketCalls;
use crate::workers::{FLOOR, PING, PING_BYTES, socket_servers};

const DURING: &str = "measuring latency";
/// Untimed calls before a measurement.
const WARM_UP: u64 = 500;
/// Length of the small call's body.
pub(super) const PING_LENGTH: usize = 64;
/// The share of [`super::DemoOptions::latency_time`] that one run of a floor takes: each is run five times.
const FLOOR_SHARE: u32 = 5;

/// Percentiles of a small call, beside the floors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// 64 bytes there and back over rings, untraced; the caller spins.
    pub bytes_over_ring: Summary,
    /// The same with every call traced.
    pub traced_over_ring: Summary,
    /// 64 bytes there and back over rings, untraced, by a caller that waits as all do unless told otherwise.
    pub adaptive_over_ring: Summary,
    /// A number as JSON there and back over rings.
    pub json_over_ring: Summary,
    /// The same over a Unix socket.
    pub json_over_socket: Summary,
    /// What the machine itself takes.
    pub floors: Floors,
    /// Whether the two cores share a cache.
    pub regime: String,
}

impl Demo<'_> {
    pub(super) fn measure_latency(&self) -> Result<Latency, DemoError> {
        self.check(DURING)?;
        tell("measuring a small call beside the machine's floors");
        let explain = |error: CallError| self.explain(DURING, error);
        let clock = Clock::calibrate();
        let time = self.options.latency_time;
        // Each gone before the next is there, so that they do not spin against one another.
        let spinning = |sampler: Sampler| {
            let worker = Worker::builder("demo-latency").address(&self.setup.address).sampler(sampler);
            let worker = worker.wait_mode(WaitMode::Latency).connect()?;
            ping_bytes(&clock, time, &worker)
        };
        let bytes_over_ring = spinning(Sampler::never()).map_err(explain)?;
        let traced_over_ring = spinning(Sampler::always()).map_err(explain)?;
        let adaptive_over_ring = ping_bytes(&clock, time, &self.untraced).map_err(explain)?;
        let json_over_ring = ping_json(&clock, time, &RingCalls::new(&self.untraced)).map_err(explain)?;
        let socket = SocketCalls::new(socket_servers(&self.setup));
        let json_over_socket = ping_json(&clock, time, &socket).map_err(explain)?;
        self.check(DURING)?;
        let arguments = self.options.command.arguments.iter().cloned();
        let options = FloorOptions {
            run_time: time / FLOOR_SHARE,
            child_args: arguments.chain([FLOOR.into()]).collect(),
            ..FloorOptions::new()
        };
        let floors = measure(&options, &clock)?;
        let regime = Regime::of(floors.cache_line.summary.p50_ns).name().to_owned();
        Ok(Latency {
            bytes_over_ring,
            traced_over_ring,
            adaptive_over_ring,
            json_over_ring,
            json_over_socket,
            floors,
            regime,
        })
    }
}

fn ping_bytes(clock: &Clock, time: Duration, worker: &Worker) -> Result<Summary, CallError> {
    let handle = worker.handle(PING_BYTES);
    let message = Message::bytes(&[7; PING_LENGTH]);
    let run = closed_loop(clock, WARM_UP, time, || handle.call(&message).map(drop))?;
    Ok(run.latencies.summary())
}

fn ping_json(clock: &Clock, time: Duration, calls: &dyn Calls) -> Result<Summary, CallError> {
    let run = closed_loop(clock, WARM_UP, time, || {
        ask::<u64>(calls, PING, &7_u64).map(drop).map_err(Failure::into_error)
    })?;
    Ok(run.latencies.summary())
}
