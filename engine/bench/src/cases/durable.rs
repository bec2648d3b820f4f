//! What durability costs: messages enqueued and values set by many at once, held against one `fdatasync` after the other
//! on the same disk in the same run; reading a value, held against a routed call; the way of a message from its receipt to
//! its handler. Used by [`crate::run()`]. It must not know how the workers keep what they are given.

use std::collections::VecDeque;
use std::io::{Seek as _, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringway::{CallOptions, Function, Handle, Message, Worker};
use ringway_config::Settings;
use ringway_ipc::clock::now_ns;
use ringway_workers::{Workers, silent_sections};
use serde_json::{Value, json};

use super::{Bench, SIGHT_TIME_MAX, attach};
use crate::report::{CaseResult, Cost, Load, time_text};
use crate::stats::{Recorder, Run, Runs, closed_loop};

/// Producers at once.
const PRODUCERS: usize = 64;
/// Bytes that one serial sync writes, and about as many as a message or a value has.
const BYTES: usize = 256;
/// Untimed calls before a run is timed.
const WARM_UP: u64 = 20;

const FLOOR: &str = "durable/fdatasync/serial";
const ENQUEUE: &str = "durable/enqueue/inflight64";
const SET: &str = "durable/state-set/inflight64";
const ROUTED: &str = "durable/routed-call";
const GET: &str = "durable/state-get";
const HANDLER: &str = "durable/receipt-to-handler";

/// Measures on a folder of its own below the current one's temporary folder.
pub(crate) fn durable(bench: &Bench<'_>) -> anyhow::Result<Vec<CaseResult>> {
    if ![FLOOR, ENQUEUE, SET, ROUTED, GET, HANDLER].iter().any(|name| bench.wants(name)) {
        return Ok(Vec::new());
    }
    let folder = tempfile::tempdir()?;
    let settings = Settings::defaults(&silent_sections())?;
    let _workers = Workers::start(bench.engine.address(), &folder.path().join("store"), &settings)?;
    // They and the built-in workers wait as `RINGWAY_WAIT` says.
    let client = attach(bench.engine.address(), "bench-client")?;
    let (heard, listener) = listen(bench)?;
    for id in ["queue::enqueue", "state::set", "state::get", "bench::take", "bench::routed"] {
        client.wait_for(id, SIGHT_TIME_MAX)?;
        client.handle(id).bind()?;
    }
    let (mut floor, mut enqueue, mut set) = (Runs::default(), Runs::default(), Runs::default());
    let (mut routed, mut get, mut handler) = (Runs::default(), Runs::default(), Runs::default());
    let body = "x".repeat(BYTES);
    let message = |number: u64| json!({ "queue": "bench", "function_id": "bench::take", "data": { "number": number, "body": body } });
    let value =
        |number: u64| json!({ "scope": "bench", "key": format!("k{}", number % 4096), "value": body });
    let wants = |name: &str| bench.wants(name);
    // In turns, so that what the disk does to one it does to all.
    for round in 1..=bench.rounds {
        (bench.progress)(&format!("durable, round {round} of {}", bench.rounds));
        floor.add(&serial_syncs(bench, folder.path())?);
        if wants(ENQUEUE) {
            let enqueued = in_flight(bench, &client.handle("queue::enqueue"), message)?;
            // What is still being delivered would slow down what is measured next.
            for _ in 0..enqueued.latencies.count() {
                heard.recv_timeout(SIGHT_TIME_MAX)?;
            }
            enqueue.add(&enqueued);
        }
        if wants(SET) {
            set.add(&in_flight(bench, &client.handle("state::set"), value)?);
        }
        if wants(GET) || wants(ROUTED) {
            client.trigger_json("state::set", &value(7))?;
            let key = json!({ "scope": "bench", "key": "k7" });
            get.add(&one_by_one(bench, &client.handle("state::get"), &key)?);
            routed.add(&one_by_one(bench, &client.handle("bench::routed"), &json!(body))?);
        }
        if wants(HANDLER) {
            handler.add(&to_the_handler(bench, &client, &heard)?);
        }
    }
    listener.shut_down();
    let serial = floor.summary().p50_ns;
    let against_sync = |result: CaseResult| {
        #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
        let times = result.calls_per_s * serial as f64 / 1e9;
        let note = format!("{times:.1} × the rate of one sync after the other ({})", time_text(serial));
        result.with_note(note)
    };
    let cost = Cost::default();
    let closed = |name, runs: &Runs| CaseResult::new(name, BYTES as u64, Load::Closed, runs, cost);
    let many = |name, runs: &Runs| {
        against_sync(CaseResult::new(
            name,
            BYTES as u64,
            Load::InFlight { calls: PRODUCERS as u64 },
            runs,
            cost,
        ))
    };
    let mut results = vec![
        closed(FLOOR, &floor)
            .with_note("256 bytes overwritten and synced, one after the other, in the same folder"),
    ];
    for (name, runs) in [(ENQUEUE, &enqueue), (SET, &set)] {
        results.extend((!runs.is_empty()).then(|| many(name, runs)));
    }
    if !get.is_empty() {
        let routed = closed(ROUTED, &routed);
        let get = closed(GET, &get);
        #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
        let times = get.latency.p50_ns as f64 / routed.latency.p50_ns.max(1) as f64;
        results.push(
            routed.with_note("a function in JSON that answers with as many bytes, in the same process"),
        );
        results.push(get.with_note(format!("{times:.2} × the routed call")));
    }
    if !handler.is_empty() {
        let note = "from the enqueuer's receipt to the first line of the handler, 1 ns if before; workers wait as RINGWAY_WAIT says";
        results.push(closed(HANDLER, &handler).with_note(note));
    }
    Ok(results)
}

/// A worker with the function that messages are for, which tells when it was begun, and one to compare with.
fn listen(bench: &Bench<'_>) -> anyhow::Result<(Receiver<u64>, Worker)> {
    let worker = attach(bench.engine.address(), "bench-listener")?;
    let (sender, heard) = channel();
    let sender = Mutex::new(sender);
    let take = Function::json("bench::take", move |_, _: Value| {
        let begun = now_ns();
        // Nobody is left to hear it when the run is over.
        let _over = sender.lock().send(begun);
        Ok(Value::Null)
    });
    let routed = Function::json("bench::routed", |_, value: Value| Ok(value));
    worker.register_all(vec![take.inline(), routed.inline()])?;
    Ok((heard, worker))
}

/// The floor: one write and one sync after the other.
fn serial_syncs(bench: &Bench<'_>, folder: &std::path::Path) -> anyhow::Result<Run> {
    let mut file = std::fs::File::create(folder.join("floor"))?;
    let bytes = [0x5a; BYTES];
    file.write_all(&bytes)?;
    file.sync_all()?;
    closed_loop(bench.clock, 5, bench.run_time, || {
        file.rewind()?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        Ok(())
    })
}

/// As many calls as there are producers under way, all the time.
fn in_flight(bench: &Bench<'_>, handle: &Handle, request: impl Fn(u64) -> Value) -> anyhow::Result<Run> {
    let options = CallOptions::new();
    let (mut waiting, mut latencies, mut number) = (VecDeque::new(), Recorder::new(), 0);
    let started = Instant::now();
    while started.elapsed() < bench.run_time || !waiting.is_empty() {
        while waiting.len() < PRODUCERS && started.elapsed() < bench.run_time {
            number += 1;
            let message = Message::json(&request(number)).map_err(ringway::Failure::into_error)?;
            waiting.push_back((bench.clock.now(), handle.start(&message, &options)?));
        }
        if let Some((sent, pending)) = waiting.pop_front() {
            pending.wait()?;
            latencies.record(bench.clock.since(sent));
        }
    }
    Ok(Run { latencies, elapsed: started.elapsed() })
}

fn one_by_one(bench: &Bench<'_>, handle: &Handle, request: &Value) -> anyhow::Result<Run> {
    let message = Arc::new(Message::json(request).map_err(ringway::Failure::into_error)?);
    closed_loop(bench.clock, WARM_UP, bench.run_time, || {
        handle.call(&message)?;
        Ok(())
    })
}

/// Messages one at a time, each after the one before has been handled.
fn to_the_handler(bench: &Bench<'_>, client: &Worker, heard: &Receiver<u64>) -> anyhow::Result<Run> {
    let request = json!({ "queue": "bench-alone", "function_id": "bench::take", "data": {} });
    let (mut latencies, started) = (Recorder::new(), Instant::now());
    heard.try_iter().for_each(drop);
    while started.elapsed() < bench.run_time {
        client.trigger_json("queue::enqueue", &request)?;
        let receipt = now_ns();
        let begun = heard.recv_timeout(SIGHT_TIME_MAX)?;
        latencies.record(begun.saturating_sub(receipt).max(1));
        // Both sides go to sleep in between.
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(Run { latencies, elapsed: started.elapsed() })
}
