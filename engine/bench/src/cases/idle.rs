//! What a running engine costs when nothing happens: the engine, this process and eight workers that were called once,
//! left alone. Used by [`crate::run()`]. It must not know why anybody would wake up.

use std::time::{Duration, Instant};

use ringway::{Message, Sampler};

use super::{Bench, SIGHT_TIME_MAX};
use crate::callee::{Process, Role, crowd_function};
use crate::payload::{SMALL, check, stamp};
use crate::report::{CaseResult, Cost, Load, Wait};
use crate::stats::{CpuMeter, Runs};

/// Idle workers.
const WORKERS: usize = 8;
/// How long the last calls may resound before the meter starts.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Measures the processor time of engine and workers while nobody calls.
pub(crate) fn idle(bench: &Bench<'_>) -> anyhow::Result<Vec<CaseResult>> {
    let name = format!("idle/engine+{WORKERS}workers");
    if !bench.wants(&name) {
        return Ok(Vec::new());
    }
    (bench.progress)(&name);
    // One process each, with channels open to all of them, as in a system at night.
    let role = |first| Role::Crowd { wait: Wait::Adaptive, first, workers: 1, functions: 2 };
    let processes: Vec<Process> =
        (0..WORKERS).map(|first| bench.start(role(first))).collect::<anyhow::Result<_>>()?;
    let caller = bench.builder("bench-caller", Wait::Adaptive, Sampler::never()).connect()?;
    for worker in 0..WORKERS {
        let id = crowd_function(worker, 1);
        caller.wait_for(&id, SIGHT_TIME_MAX)?;
        let mut request = [0; SMALL];
        stamp(&mut request, 1);
        check(caller.handle(&id).call(&Message::bytes(&request))?.body(), 1)?;
    }
    std::thread::sleep(SETTLE_TIME);
    let pids: Vec<u32> = processes.iter().map(Process::pid).collect();
    let meter = CpuMeter::start(&pids)?;
    let started = Instant::now();
    std::thread::sleep(Duration::from_secs(if bench.quick { 3 } else { 10 }));
    let (cpu_s, wall) = (meter.used()?.as_secs_f64(), started.elapsed());
    let cost = Cost { cpu_s, bytes_copied: None };
    let result = CaseResult::new(&name, 0, Load::Closed, &Runs::default(), cost);
    let seconds = wall.as_secs_f64();
    let note = format!("{:.2} ms of processor time in {seconds:.1} s", cpu_s * 1e3);
    Ok(vec![result.with_cpu_share(cpu_s, seconds).with_note(note)])
}
