//! One function in several processes: balancing, draining, and a death in the middle.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "showing something is what an example is for")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::ensure;
use ringway::{CallError, ErrorCode, Function, Worker};
use ringway_example_stage::{Stage, until_told_to_leave};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(10);
/// Calls of all threads together.
const CALLS: u32 = 1200;
const THREADS: u32 = 8;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Counted {
    primes: usize,
    process: u32,
}

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("replica") => serve(&Worker::connect("counter")?),
        Some(other) => anyhow::bail!("wanted replica or nothing, found {other}"),
        None => {
            let stage = Stage::open()?;
            call(&stage, &Worker::builder("caller").address(stage.address()).connect()?)
        }
    }
}

/// Serves `primes::count` until told to leave, and then finishes what it has begun.
fn serve(worker: &Worker) -> anyhow::Result<()> {
    worker.register_all(vec![
        Function::json("primes::count", |_, below: usize| {
            Ok(Counted { primes: primes(below), process: std::process::id() })
        })
        .description("Counts the primes below a number")
        .idempotent(),
        // Not idempotent, as far as its callers know, and slow: whoever dies during it leaves a question.
        Function::json("primes::ponder", |_, (): ()| {
            std::thread::sleep(PATIENCE);
            Ok(std::process::id())
        })
        .pooled(),
    ])?;
    until_told_to_leave()?;
    ensure!(worker.drain(PATIENCE), "calls were still running");
    worker.shut_down();
    Ok(())
}

/// The sieve of Eratosthenes.
fn primes(below: usize) -> usize {
    let mut composite = vec![false; below];
    let mut count = 0;
    for number in 2..below {
        if !composite[number] {
            count += 1;
            (number * number..below).step_by(number).for_each(|multiple| composite[multiple] = true);
        }
    }
    count
}

fn call(stage: &Stage, worker: &Worker) -> anyhow::Result<()> {
    let [first, second, third] = [stage.start("replica")?, stage.start("replica")?, stage.start("replica")?];
    wait_for_replicas(worker, 3)?;
    println!("3 replicas");

    let done = AtomicU32::new(0);
    let after = |calls: u32| {
        while done.load(Ordering::Relaxed) < calls {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let (first_pid, second_pid) = (first.pid(), second.pid());
    let outcome = std::thread::scope(|scope| -> anyhow::Result<_> {
        let callers: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| count_primes(worker, &done))).collect();
        after(CALLS / 4);
        let fourth = stage.start("replica")?;
        wait_for_replicas(worker, 4)?;
        println!("one joined");
        after(CALLS / 2);
        first.leave()?;
        println!("one drained and left");
        after(3 * CALLS / 4);
        second.kill()?;
        println!("one was killed");
        let mut by_process = BTreeMap::<u32, u32>::new();
        for caller in callers {
            let counted = caller.join().map_err(|_| anyhow::anyhow!("a caller panicked"))??;
            counted.into_iter().for_each(|process| *by_process.entry(process).or_default() += 1);
        }
        Ok((by_process, fourth))
    });
    let (by_process, fourth) = outcome?;
    println!("{} calls, {} answers", CALLS, by_process.values().sum::<u32>());
    for (name, process) in
        [("left", first_pid), ("killed", second_pid), ("stayed", third.pid()), ("joined", fourth.pid())]
    {
        ensure!(by_process.contains_key(&process), "the replica that {name} was never called");
    }
    println!("every replica had its share");
    drop(fourth);
    wait_for_replicas(worker, 1)?;
    lose(worker, third)
}

/// Counts primes until all calls are made; returns the process that answered each.
fn count_primes(worker: &Worker, done: &AtomicU32) -> anyhow::Result<Vec<u32>> {
    let mut processes = Vec::new();
    for _ in 0..CALLS / THREADS {
        let counted = worker.trigger_json("primes::count", &json!(10_000))?;
        let counted: Counted = serde_json::from_value(counted)?;
        ensure!(counted.primes == 1229, "{} primes below 10,000", counted.primes);
        processes.push(counted.process);
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(processes)
}

/// Kills the last replica during a call that may not be repeated.
fn lose(worker: &Worker, last: ringway_example_stage::Actor) -> anyhow::Result<()> {
    let error: CallError = std::thread::scope(|scope| {
        let call = scope.spawn(|| worker.trigger_json("primes::ponder", &json!(null)));
        std::thread::sleep(Duration::from_millis(200));
        last.kill()?;
        let outcome = call.join().map_err(|_| anyhow::anyhow!("the caller panicked"))?;
        outcome.err().ok_or_else(|| anyhow::anyhow!("a dead process has answered"))
    })?;
    ensure!(error.code == ErrorCode::WorkerGone, "{error}");
    println!("not idempotent: {} ({})", error.code.as_str(), started(&error));
    Ok(())
}

fn started(error: &CallError) -> &'static str {
    match error.started {
        Some(ringway::Started::Maybe) => "it may have been started",
        Some(ringway::Started::No) => "it was not started",
        None => "who knows",
    }
}

fn wait_for_replicas(worker: &Worker, count: usize) -> anyhow::Result<()> {
    let is_there = worker.wait_until(PATIENCE, |catalog| {
        catalog.functions.iter().filter(|function| function.id.as_str() == "primes::count").count() == count
    });
    ensure!(is_there, "wanted {count} replicas, found {}", worker.handle("primes::count").replicas());
    Ok(())
}
