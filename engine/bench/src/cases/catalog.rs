//! A large catalog: whether 10,000 functions of 200 workers make a call slower, and how soon all of them know of a new
//! one. Used by [`crate::run()`]. It must not know how the news travels.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Context;
use ringway::{CallOptions, Failure, Function, Message, Sampler, Worker};

use super::{Bench, SIGHT_TIME_MAX, Series, visit};
use crate::callee::{Process, Role, crowd_function, crowd_sight};
use crate::floors::Floors;
use crate::payload::{SMALL, answer, check, stamp};
use crate::report::{Address, Case, CaseResult, Cost, Encoding, FloorName, Load, Wait};
use crate::stats::{CpuMeter, Recorder, Run, Runs, paced_loop};

/// Workers of the large catalog.
const WORKERS: usize = 200;
/// Functions of each of them.
const FUNCTIONS: usize = 50;
/// How long the catalog must be left alone after the last change before calls are timed.
const SETTLE_TIME: Duration = Duration::from_millis(500);
/// New functions whose news are timed.
const FRESH: usize = 5;
/// How long all workers are given to begin waiting for a new function.
const WATCH_TIME: Duration = Duration::from_millis(300);

const ONE: &str = "catalog/1/name/spin/64";
const ALL: &str = "catalog/10000/name/spin/64";
const ROTATING: &str = "catalog/10000/rotating/park/64";
const SIGHT: &str = "catalog/10000/register_to_callable";

/// Measures a call with a small catalog, then with a large one, then the small one again, so that a machine that slows
/// down meanwhile is not taken for a slow catalog.
pub(crate) fn catalog(bench: &Bench<'_>, floors: &Floors) -> anyhow::Result<Vec<CaseResult>> {
    if ![ONE, ALL, ROTATING, SIGHT].iter().any(|name| bench.wants(name)) {
        return Ok(Vec::new());
    }
    let case = Case {
        encoding: Encoding::Typed,
        address: Address::Name,
        wait: Wait::Spin,
        bytes: SMALL as u64,
        variant: None,
    };
    let (mut one, mut all) = (Series::new(case), Series::new(case));
    let rounds = |series: &mut Series, count| {
        (0..count).try_for_each(|_| visit(bench, Wait::Spin, std::slice::from_mut(series)))
    };
    (bench.progress)(ONE);
    rounds(&mut one, bench.rounds.div_ceil(2))?;
    (bench.progress)("catalog/10000, starting 200 workers");
    let crowd = gather(bench)?;
    (bench.progress)(ALL);
    rounds(&mut all, bench.rounds)?;
    let watcher = bench.builder("bench-watcher", Wait::Adaptive, Sampler::never()).connect()?;
    let rotating = rotating(bench, &watcher, &crowd)?;
    (bench.progress)(SIGHT);
    let sight = sight(bench, &watcher)?;
    watcher.shut_down();
    disperse(crowd);
    rounds(&mut one, bench.rounds - bench.rounds.div_ceil(2))?;
    Ok(vec![
        one.result(floors, Some(ONE)),
        all.result(floors, Some(ALL)).with_note("the callee's functions and 10,000 of 200 idle workers"),
        rotating.against(FloorName::Eventfd, floors),
        sight,
    ])
}

/// Starts the workers and waits until the engine has all of their functions and it is quiet again. A quick run puts
/// ten into each process; otherwise each is a process of its own.
fn gather(bench: &Bench<'_>) -> anyhow::Result<Vec<Process>> {
    let workers = if bench.quick { 10 } else { 1 };
    let role = |first| Role::Crowd { wait: Wait::Park, first, workers, functions: FUNCTIONS };
    let starting = (0..WORKERS).step_by(workers);
    let starting: Vec<Process> = starting
        .map(|first| Process::launch(&bench.hidden, bench.engine.address(), role(first)))
        .collect::<anyhow::Result<_>>()?;
    let crowd = starting.into_iter().map(Process::ready).collect();
    std::thread::sleep(SETTLE_TIME);
    crowd
}

/// Ends all at once, so that they leave together.
fn disperse(mut crowd: Vec<Process>) {
    crowd.iter_mut().for_each(Process::dismiss);
    drop(crowd);
    std::thread::sleep(SETTLE_TIME);
}

/// Calls every function of every worker by name in turn. All of them sleep, so this is held against a wake-up; it shows
/// what it costs to touch two hundred processes, not what routing costs.
fn rotating(bench: &Bench<'_>, watcher: &Worker, crowd: &[Process]) -> anyhow::Result<CaseResult> {
    (bench.progress)(ROTATING);
    let mut names = VecDeque::with_capacity(WORKERS * FUNCTIONS);
    for function in 1..FUNCTIONS {
        names.extend((0..WORKERS).map(|worker| crowd_function(worker, function)));
    }
    for name in names.iter().take(WORKERS) {
        watcher.wait_for(name, SIGHT_TIME_MAX)?;
        watcher.handle(name).bind()?;
    }
    let pids: Vec<u32> = crowd.iter().map(Process::pid).collect();
    let meter = CpuMeter::start(&pids)?;
    let (mut sequence, mut request, mut runs) = (0_u64, [0; SMALL], Runs::default());
    for _ in 0..bench.rounds {
        runs.add(&paced_loop(
            bench.clock,
            bench.run_time,
            || (),
            || {
                sequence += 1;
                stamp(&mut request, sequence);
                names.rotate_left(1);
                let reply = watcher.handle(&names[0]).call(&Message::bytes(&request))?;
                check(reply.body(), sequence)
            },
        )?);
    }
    let cost = Cost { cpu_s: meter.used()?.as_secs_f64(), bytes_copied: None };
    let result = CaseResult::new(ROTATING, SMALL as u64, Load::Closed, &runs, cost);
    Ok(result.with_note("the next function of the next worker each time; callees asleep, caller adaptive"))
}

/// Registers new functions. A latency is the time from the return of `register` to the moment at which one worker can
/// call the function, so the maximum is the slowest of all workers; those that knew before the return count as 1 ns.
fn sight(bench: &Bench<'_>, watcher: &Worker) -> anyhow::Result<CaseResult> {
    let registrar = bench.builder("bench-registrar", Wait::Adaptive, Sampler::never()).connect()?;
    let options = CallOptions::new().timeout(SIGHT_TIME_MAX);
    let mut runs = Runs::default();
    for fresh in 0..FRESH {
        let id = format!("fresh::f{fresh}");
        let question = Message::json(&id).map_err(Failure::into_error)?;
        let asked: Vec<_> = (0..WORKERS)
            .map(|worker| Ok(watcher.handle(&crowd_sight(worker)).start(&question, &options)?))
            .collect::<anyhow::Result<_>>()?;
        std::thread::sleep(WATCH_TIME);
        let started = std::time::Instant::now();
        registrar.register(Function::raw(&id, |_, request| Ok(Message::bytes(&answer(request.body())))))?;
        let returned_ns = ringway_ipc::clock::now_ns();
        let mut latencies = Recorder::new();
        for pending in asked {
            let seen_ns: u64 = serde_json::from_slice(pending.wait()?.body())?;
            latencies.record(seen_ns.saturating_sub(returned_ns).max(1));
        }
        runs.add(&Run { latencies, elapsed: started.elapsed() });
        // It can be called, not only seen.
        let mut request = [0; SMALL];
        stamp(&mut request, 1);
        check(watcher.handle(&id).call(&Message::bytes(&request))?.body(), 1)
            .context("a new function did not answer")?;
    }
    registrar.shut_down();
    // The median of maxima would hide the slowest.
    let slowest = runs.curve().last().map_or(0, |(_, slowest_ns)| *slowest_ns);
    let mut result = CaseResult::new(SIGHT, 0, Load::Closed, &runs, Cost::default());
    result.latency.max_ns = slowest;
    Ok(result.with_note(format!("{FRESH} new functions, each seen by {WORKERS} workers")))
}
