//! Items per second of one stream, from callee to caller. Used by [`crate::run()`]. It must not know how flow is controlled.

use std::time::Instant;

use anyhow::ensure;
use ringway::{CallOptions, Message, Sampler, Worker};

use super::{Bench, Copies};
use crate::callee::{Process, Role};
use crate::floors::Floors;
use crate::payload::{SMALL, STREAM};
use crate::report::{CaseResult, Cost, FloorName, Load, Wait};
use crate::stats::{CpuMeter, Recorder, Run, Runs};

/// Items between two readings of the clock.
const ITEMS_TIMED: u64 = 64;
/// Items that may be under way.
const WINDOW: u64 = 32;

/// Measures streams of small items; a latency is the mean time per item over 64 of them.
pub(crate) fn stream(bench: &Bench<'_>, floors: &Floors) -> anyhow::Result<Vec<CaseResult>> {
    let mut results = Vec::new();
    for wait in [Wait::Spin, Wait::Adaptive] {
        let name = format!("stream/bytes/handle/{}/{SMALL}", wait.name());
        if !bench.wants(&name) {
            continue;
        }
        (bench.progress)(&name);
        let callee = bench.start(Role::Serve { wait, cpu: Some(bench.cpus.callee) })?;
        let measured = bench.with_caller(wait, Sampler::never(), Some(bench.cpus.caller), |worker| {
            let (mut runs, mut cost) = (Runs::default(), Cost { cpu_s: 0.0, bytes_copied: Some(0) });
            for _ in 0..bench.rounds {
                one_run(bench, worker, &callee, &mut runs, &mut cost)?;
            }
            let load = Load::InFlight { calls: WINDOW };
            Ok(CaseResult::new(&name, SMALL as u64, load, &runs, cost))
        })?;
        results.push(measured.against(FloorName::StampRing, floors));
    }
    Ok(results)
}

fn one_run(
    bench: &Bench<'_>,
    worker: &Worker,
    callee: &Process,
    runs: &mut Runs,
    cost: &mut Cost,
) -> anyhow::Result<()> {
    let copies = Copies::of(worker);
    let copied = copies.read()?;
    let meter = CpuMeter::start(&[callee.pid()])?;
    let mut latencies = Recorder::new();
    let started = Instant::now();
    // Streams of a fixed length, one after the other, until the time is over.
    while started.elapsed() < bench.run_time {
        let (items, bytes) = (ITEMS_TIMED * 256, SMALL as u64);
        let request = [items.to_le_bytes(), bytes.to_le_bytes()].concat();
        let call = worker.handle(STREAM).stream(&Message::bytes(&request), &CallOptions::default())?;
        let (mut received, mut from) = (0, bench.clock.now());
        while let Some(item) = call.recv()? {
            ensure!(item.body().len() == SMALL, "an item has {} bytes", item.body().len());
            received += 1;
            if received % ITEMS_TIMED == 0 {
                let now = bench.clock.now();
                latencies.record_many(bench.clock.between(from, now) / ITEMS_TIMED, ITEMS_TIMED);
                from = now;
            }
        }
        ensure!(received == items, "{received} of {items} items came");
        call.end()?;
    }
    let elapsed = started.elapsed();
    cost.cpu_s += meter.used()?.as_secs_f64();
    let copied = copies.read()? - copied;
    cost.bytes_copied = cost.bytes_copied.map(|sum| sum + copied);
    runs.add(&Run { latencies, elapsed });
    Ok(())
}
