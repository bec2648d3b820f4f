//! What many waiting messages cost: a message enqueued, delivered and acknowledged while 100 wait before it and while as
//! many as asked for do, and the memory that stays resident for each. Each number has an engine and a store of its own.
//! Used by [`crate::run()`]. It must not know how the queue keeps what it is given.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use anyhow::ensure;
use parking_lot::Mutex;
use ringway::{CallOptions, Function, Handle, Message};
use serde_json::{Value, json};

use super::keys::{json_message, resident_bytes};
use super::{Bench, Own, SIGHT_TIME_MAX};
use crate::report::{CaseResult, Cost, Load};
use crate::stats::{Recorder, Run, Runs};

/// The number of messages that every run has waiting.
const FEW: u64 = 100;
/// Bytes of a message's data.
const BYTES: usize = 64;
/// Calls under way at once, and attempts.
const IN_FLIGHT: usize = 64;
/// The queue, which gives to nobody until it is full enough.
const QUEUE: &str = "bench-waiting";

/// Measures with 100 messages waiting and with `many`.
pub(crate) fn waiting(bench: &Bench<'_>, many: u64) -> anyhow::Result<Vec<CaseResult>> {
    ensure!(many > FEW, "--waiting takes more than {FEW}, not {many}");
    let mut results: Vec<CaseResult> = Vec::new();
    for count in [FEW, many] {
        let name = format!("durable/message/waiting{count}");
        if bench.wants(&name) {
            let few = results.first().map(|few| few.calls_per_s);
            results.push(measure(bench, &name, count, few)?);
        }
    }
    Ok(results)
}

fn measure(bench: &Bench<'_>, name: &str, count: u64, few_per_s: Option<f64>) -> anyhow::Result<CaseResult> {
    let own = Own::start(&format!("waiting{count}"))?;
    let (client, listener) = (own.attach("bench-client")?, own.attach("bench-listener")?);
    let (sender, handled) = channel();
    let sender = Mutex::new(sender);
    let take = Function::json("bench::take", move |_, _: Value| {
        // Nobody is left to hear it when the run is over.
        let _over = sender.lock().send(());
        Ok(Value::Null)
    });
    listener.register(take.inline())?;
    for id in ["queue::enqueue", "queue::configure", "queue::pause", "bench::take"] {
        client.wait_for(id, SIGHT_TIME_MAX)?;
    }
    let settings = json!({ "concurrency": IN_FLIGHT });
    client.trigger_json("queue::configure", &json!({ "queue": QUEUE, "settings": settings }))?;
    client.trigger_json("queue::pause", &json!({ "queue": QUEUE }))?;
    let before = resident_bytes()?;
    let enqueue = client.handle("queue::enqueue");
    enqueue.bind()?;
    let message = json!({ "queue": QUEUE, "function_id": "bench::take", "data": "x".repeat(BYTES - 2) });
    let message = json_message(&message)?;
    fill(bench, &enqueue, &message, count)?;
    let after = resident_bytes()?;
    client.trigger_json("queue::resume", &json!({ "queue": QUEUE }))?;
    // What the first moments cost is no part of it.
    let pass = || one_out_one_in(bench, &enqueue, &message, &handled);
    pass()?;
    let mut runs = Runs::default();
    for round in 1..=bench.rounds {
        (bench.progress)(&format!("{name}, round {round} of {}", bench.rounds));
        runs.add(&pass()?);
    }
    listener.shut_down();
    client.shut_down();
    drop(own);
    let load = Load::InFlight { calls: IN_FLIGHT as u64 };
    let result = CaseResult::new(name, BYTES as u64, load, &runs, Cost::default());
    let per_message = after.saturating_sub(before) / count;
    let mut note = format!(
        "one enqueued for each that was handled, {count} before it; {per_message} bytes resident for each that waits"
    );
    if let Some(few_per_s) = few_per_s {
        let times = few_per_s / result.calls_per_s.max(f64::MIN_POSITIVE);
        note.push_str(&format!("; {times:.2} × the cost of a message with {FEW} waiting"));
    }
    Ok(result.with_note(note))
}

/// Enqueues as many.
fn fill(bench: &Bench<'_>, enqueue: &Handle, message: &Message, count: u64) -> anyhow::Result<()> {
    let (options, mut under_way) = (CallOptions::new(), VecDeque::new());
    for number in 0..count {
        if number % 250_000 == 0 && number > 0 {
            (bench.progress)(&format!("{number} of {count} messages wait"));
        }
        under_way.push_back(enqueue.start(message, &options)?);
        if under_way.len() >= IN_FLIGHT
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.wait()?;
        }
    }
    under_way.into_iter().try_for_each(|pending| pending.wait().map(drop))?;
    Ok(())
}

/// Enqueues one message for each that was handled, so that as many wait as before.
fn one_out_one_in(
    bench: &Bench<'_>,
    enqueue: &Handle,
    message: &Message,
    handled: &Receiver<()>,
) -> anyhow::Result<Run> {
    let options = CallOptions::new();
    let (mut under_way, mut latencies) = (VecDeque::new(), Recorder::new());
    let started = Instant::now();
    while started.elapsed() < bench.run_time || !under_way.is_empty() {
        if started.elapsed() < bench.run_time && under_way.len() < IN_FLIGHT {
            handled.recv_timeout(SIGHT_TIME_MAX)?;
            under_way.push_back((bench.clock.now(), enqueue.start(message, &options)?));
        } else if let Some((sent, pending)) = under_way.pop_front() {
            pending.wait()?;
            latencies.record(bench.clock.since(sent));
        }
    }
    Ok(Run { latencies, elapsed: started.elapsed() })
}
