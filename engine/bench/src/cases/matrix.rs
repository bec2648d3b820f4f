//! Several callers and several callees at once: threads of this process that call one function with as many replicas as
//! there are callees. Nobody is pinned and everybody waits adaptively, since they may outnumber the processors. Used by
//! [`crate::run()`]. It must not know how a replica is chosen.

use std::time::Instant;

use anyhow::{Context, anyhow};
use ringway::{Sampler, Worker};

use super::{Bench, SIGHT_TIME_MAX};
use crate::callee::{Process, Role};
use crate::floors::Floors;
use crate::payload::{SMALL, TYPED, Words, check_words};
use crate::report::{CaseResult, Cost, FloorName, Load, Wait};
use crate::stats::{CpuMeter, Run, Runs, closed_loop};

/// Calls before a thread is timed.
const WARM_UP: u64 = 500;

/// Measures every pairing; a latency is one call's, the rate is that of all callers together.
pub(crate) fn matrix(bench: &Bench<'_>, floors: &Floors) -> anyhow::Result<Vec<CaseResult>> {
    let sizes: &[usize] = if bench.quick { &[1, 2] } else { &[1, 2, 4] };
    let mut results = Vec::new();
    for &callees in sizes {
        let name =
            |callers| format!("matrix/typed/handle/adaptive/{SMALL}/callers{callers}/callees{callees}");
        if !sizes.iter().any(|&callers| bench.wants(&name(callers))) {
            continue;
        }
        let role = Role::Serve { wait: Wait::Adaptive, cpu: None };
        let processes: Vec<Process> =
            (0..callees).map(|_| bench.start(role)).collect::<anyhow::Result<_>>()?;
        let worker = bench.builder("bench-caller", Wait::Adaptive, Sampler::never()).connect()?;
        worker.wait_for(TYPED, SIGHT_TIME_MAX)?;
        let handle = worker.handle(TYPED);
        worker.wait_until(SIGHT_TIME_MAX, |_| handle.replicas() == callees);
        handle.bind()?;
        for &callers in sizes.iter().filter(|&&callers| bench.wants(&name(callers))) {
            (bench.progress)(&name(callers));
            let (runs, cost) = one_pairing(bench, &worker, &processes, callers)?;
            let result = CaseResult::new(&name(callers), SMALL as u64, Load::Closed, &runs, cost);
            results.push(result.against(FloorName::CacheLine, floors));
        }
    }
    Ok(results)
}

fn one_pairing(
    bench: &Bench<'_>,
    worker: &Worker,
    callees: &[Process],
    callers: usize,
) -> anyhow::Result<(Runs, Cost)> {
    let pids: Vec<u32> = callees.iter().map(Process::pid).collect();
    let (mut runs, mut cpu_s) = (Runs::default(), 0.0);
    for _ in 0..bench.rounds {
        let meter = CpuMeter::start(&pids)?;
        let started = Instant::now();
        let all = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..callers).map(|_| scope.spawn(|| call(bench, worker))).collect();
            let ended = threads.into_iter().map(|thread| {
                thread.join().map_err(|_| anyhow!("a calling thread panicked")).and_then(|run| run)
            });
            ended.collect::<anyhow::Result<Vec<Run>>>()
        })?;
        cpu_s += meter.used()?.as_secs_f64();
        let mut all = all.into_iter();
        let mut together = all.next().context("no caller")?;
        for run in all {
            together.latencies.merge(&run.latencies);
            together.elapsed = together.elapsed.max(run.elapsed);
        }
        together.elapsed = together.elapsed.min(started.elapsed());
        runs.add(&together);
    }
    Ok((runs, Cost { cpu_s, bytes_copied: None }))
}

fn call(bench: &Bench<'_>, worker: &Worker) -> anyhow::Result<Run> {
    let function = worker.function::<Words, Words>(TYPED);
    let mut sequence = 0;
    closed_loop(bench.clock, WARM_UP, bench.run_time, || {
        sequence += 1;
        let reply = function.call(&Words::request(sequence))?;
        let words = reply.archived().context("the answer is no archive")?.words;
        check_words(words[0].to_native(), words[7].to_native(), sequence)
    })
}
