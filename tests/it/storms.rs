//! Too much of everything: calls that call on at random, more workers than cores, readers that are slow, rings that are
//! full, arenas at their limit, and one payload of 4 GiB. Everything must end, with the right answer or with the error
//! that names the limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ringway::{
    ArenaConfig, CallOptions, Context, Encoding, ErrorCode, Function, Message, Sampler, WaitMode, Worker,
};
use ringway_engine::Engine;
use ringway_tests::census::{cpu_seconds, memory_available};
use ringway_tests::dice::Dice;
use ringway_tests::effort;
use ringway_tests::local;
use ringway_tests::member::Member;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

fn connect(engine: &Engine, name: &str) -> Worker {
    let builder = Worker::builder(name).address(engine.address()).sampler(Sampler::never());
    builder.default_timeout(Some(Duration::from_secs(120))).connect().unwrap()
}

/// Calls two random others, one level less deep, and adds up how many calls there were.
fn storm_function(own: usize, others: usize, placement: usize) -> Function {
    let calls = Arc::new(AtomicU64::new(own as u64));
    let function = Function::json(&format!("storm::w{own}"), move |context: &Context, depth: u64| {
        if depth == 0 {
            return Ok(1);
        }
        let mut dice = Dice::new(calls.fetch_add(0x9e37_79b9, Ordering::Relaxed));
        let mut total = 1;
        for _ in 0..2 {
            // Not itself: a worker has no channel to itself.
            let step = 1 + usize::try_from(dice.below(others as u64 - 1)).unwrap_or(0);
            let next = format!("storm::w{}", (own + step) % others);
            total += context.worker().trigger_json(&next, &json!(depth - 1))?.as_u64().unwrap_or(0);
        }
        Ok(total)
    });
    match placement % 3 {
        0 => function.inline(),
        1 => function.pooled(),
        _ => function,
    }
}

/// A random graph of calls over six workers of all placements, from many threads. A worker may call its caller, and
/// whoever waits for it.
#[test]
fn nested_calls_end_in_any_graph() {
    const WORKERS: usize = 6;
    const DEPTH: u64 = 6;
    let engine = local::engine_at();
    let workers: Vec<Worker> = (0..WORKERS).map(|number| connect(&engine, &format!("w{number}"))).collect();
    for (number, worker) in workers.iter().enumerate() {
        worker.register(storm_function(number, WORKERS, number)).unwrap();
    }
    for worker in &workers {
        for number in 0..WORKERS {
            worker.wait_for(&format!("storm::w{number}"), PATIENCE).unwrap();
        }
    }
    let rounds = effort::rounds(8);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..24usize {
            let worker = &workers[thread % WORKERS];
            scope.spawn(move || {
                for round in 0..rounds {
                    let step = 1 + usize::try_from(round).unwrap() % (WORKERS - 1);
                    let first = (thread + step) % WORKERS;
                    let total = worker.trigger_json(&format!("storm::w{first}"), &json!(DEPTH)).unwrap();
                    assert_eq!(total, json!((2u64 << DEPTH) - 1), "every call of the tree was made once");
                }
            });
        }
    });
    let calls = 24 * rounds * ((2 << DEPTH) - 1);
    println!("{calls} nested calls in {:.2} s", begun.elapsed().as_secs_f64());
}

/// Four processes for each core, all calling all the time, with the default way to wait: all make progress.
#[test]
fn workers_outnumber_cores_four_to_one() {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let address = local::address();
    let engine = Member::start(&["engine", &address]);
    let members: Vec<Member> = (0..cores * 4)
        .map(|number| Member::start(&["callee", &address, &format!("crowd{number}")]))
        .collect();
    let caller = Worker::builder("caller").address(&address).sampler(Sampler::never()).connect().unwrap();
    let counts: Vec<AtomicU64> = members.iter().map(|_| AtomicU64::new(0)).collect();
    let time = Duration::from_secs(2);
    let cpu_before: f64 = members.iter().map(|member| cpu_seconds(member.pid())).sum();
    std::thread::scope(|scope| {
        for (number, count) in counts.iter().enumerate() {
            let caller = &caller;
            scope.spawn(move || {
                let handle = caller.handle(&format!("crowd{number}::inline"));
                caller.wait_for(handle.id(), PATIENCE).unwrap();
                let until = Instant::now() + time;
                while Instant::now() < until {
                    handle.call(&Message::bytes(&[1; 8])).unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let cpu: f64 = members.iter().map(|member| cpu_seconds(member.pid())).sum::<f64>() - cpu_before;
    let counts: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let total: u64 = counts.iter().sum();
    println!(
        "{} callees on {cores} cores: {total} calls in {time:?}, {cpu:.2} CPU-seconds of callees; each {counts:?}",
        counts.len()
    );
    let fair = total / counts.len() as u64;
    assert!(counts.iter().all(|count| *count > 0 && *count * 20 >= fair), "somebody starves: {counts:?}");
    drop(engine);
}

/// A stream whose reader is slow holds its writer back: no more than a window is ever on its way.
#[test]
fn a_slow_reader_holds_the_writer_back() {
    const ITEMS: usize = 3000;
    let engine = local::engine_at();
    let (writer, reader) = (connect(&engine, "writer"), connect(&engine, "reader"));
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    writer
        .register(Function::stream("flood::items", move |_, _, _, output| {
            for item in 0..ITEMS {
                output.send(Message::bytes(&item.to_le_bytes()))?;
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Message::empty())
        }))
        .unwrap();
    reader.wait_for("flood::items", PATIENCE).unwrap();
    let call = reader.handle("flood::items").stream(&Message::empty(), &CallOptions::new()).unwrap();
    let mut ahead_max = 0;
    for item in 0..ITEMS {
        if item % 100 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        ahead_max = ahead_max.max(sent.load(Ordering::Relaxed).saturating_sub(item));
        assert_eq!(call.recv().unwrap().expect("an item").body(), item.to_le_bytes());
    }
    assert!(call.recv().unwrap().is_none());
    call.end().unwrap();
    println!("the writer was at most {ahead_max} items ahead");
    assert!(ahead_max < ITEMS / 2, "nothing held the writer back: {ahead_max} items ahead");
}

/// A ring of four slots, and a callee that takes its time: callers wait for room, and a caller without time is told.
#[test]
fn a_full_ring_makes_callers_wait() {
    let engine = local::engine_at();
    let callee = connect(&engine, "callee");
    let builder = Worker::builder("caller").address(engine.address()).slot_count(4).sampler(Sampler::never());
    let caller = builder.default_timeout(Some(Duration::from_secs(120))).connect().unwrap();
    callee
        .register(
            Function::raw("slow::work", |_, request| {
                std::thread::sleep(Duration::from_micros(300));
                Ok(Message::bytes(request.body()))
            })
            .inline(),
        )
        .unwrap();
    caller.wait_for("slow::work", PATIENCE).unwrap();
    let handle = caller.handle("slow::work");
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let handle = &handle;
            scope.spawn(move || {
                let call =
                    |number: u64| handle.start(&Message::bytes(&number.to_le_bytes()), &CallOptions::new());
                let pending: Vec<_> =
                    (0..64).map(|number| (number, call(thread << 32 | number).unwrap())).collect();
                for (number, pending) in pending {
                    assert_eq!(pending.wait().unwrap().body(), (thread << 32 | number).to_le_bytes());
                }
            });
        }
    });
    callee
        .register(
            Function::raw("slow::stuck", |_, _| {
                std::thread::sleep(Duration::from_millis(500));
                Ok(Message::empty())
            })
            .inline(),
        )
        .unwrap();
    caller.wait_for("slow::stuck", PATIENCE).unwrap();
    let options = CallOptions::new().timeout(Duration::from_millis(60));
    let stuck = caller.handle("slow::stuck");
    let outcomes: Vec<_> = (0..12).map(|_| stuck.start(&Message::empty(), &options)).collect();
    let refused =
        outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).next().expect("no room for all of them");
    assert_eq!(refused.code, ErrorCode::Busy, "{refused}");
    drop(outcomes);
    assert_eq!(handle.call(&Message::bytes(b"later")).unwrap().body(), b"later", "and it goes on");
}

/// An arena at its limit says so by name, and works again when something came back.
#[test]
fn an_arena_at_its_limit_recovers() {
    let engine = local::engine_at();
    let callee = connect(&engine, "callee");
    callee.register(Function::raw("take::it", |_, request| Message::json(&request.body().len()))).unwrap();
    let config = ArenaConfig { bytes_max: 8 << 20, keep_bytes: 8 << 20, ..ArenaConfig::default() };
    let builder = Worker::builder("caller").address(engine.address()).arena(config).sampler(Sampler::never());
    let caller = builder.connect().unwrap();
    caller.wait_for("take::it", PATIENCE).unwrap();
    for _ in 0..effort::rounds(20) {
        let mut held = Vec::new();
        let refused = loop {
            match caller.loan(500_000) {
                Ok(loan) => held.push(loan),
                Err(error) => break error,
            }
            assert!(held.len() < 64, "the limit was never reached");
        };
        assert_eq!(refused.code, ErrorCode::OutOfMemory);
        assert!(
            refused.message.contains("8388608") || refused.message.contains("8 MiB"),
            "names its limit: {refused}"
        );
        // A value that would need a block of its own fails in the same way, and leaves the call's place free.
        let large = Message::bytes(&vec![1; 600_000]);
        let error = caller.handle("take::it").call(&large).unwrap_err();
        assert_eq!(error.code, ErrorCode::OutOfMemory, "{error}");
        held.clear();
        assert_eq!(
            caller.handle("take::it").call(&large).unwrap().body(),
            b"600000",
            "what came back is used again"
        );
    }
}

/// One call with 4 GiB in it, read where it was written.
#[test]
fn a_payload_of_four_gib_travels_in_one_call() {
    const BYTES: usize = 4 << 30;
    let free = memory_available();
    if free < 10 << 30 {
        println!("skipped: 10 GiB of free memory are wanted, {} MiB are there", free >> 20);
        return;
    }
    let engine = local::engine_at();
    let address = engine.address().to_owned();
    let member = Member::start(&["callee", &address, "far"]);
    let config = ArenaConfig { bytes_max: 6 << 30, ..ArenaConfig::default() };
    let caller = Worker::builder("caller")
        .address(&address)
        .arena(config)
        .sampler(Sampler::never())
        .connect()
        .unwrap();
    caller.wait_for("far::inline", PATIENCE).unwrap();
    let begun = Instant::now();
    let mut loan = caller.loan(BYTES).unwrap();
    // Not every byte: what is not touched costs the kernel a page all the same, and an unoptimised loop minutes.
    loan[..8].copy_from_slice(&7u64.to_le_bytes());
    loan[BYTES - 1] = 9;
    let copied = ringway::payload_counters().copied_bytes;
    let reply = caller.handle("far::inline").call(&Message::from_loan(Encoding::Bytes, loan)).unwrap();
    assert_eq!(reply.body(), 7u64.to_le_bytes());
    println!("4 GiB in one call: {:.2} s with making the memory", begun.elapsed().as_secs_f64());
    assert_eq!(ringway::payload_counters().copied_bytes, copied, "nothing was copied");
    drop(member);
}

/// An engine and eight workers that nobody calls. A busy loop anywhere would be a whole core.
#[test]
fn idle_workers_cost_next_to_nothing() {
    let address = local::address();
    let engine = Member::start(&["engine", &address]);
    let members: Vec<Member> =
        (0..8).map(|number| Member::start(&["callee", &address, &format!("idle{number}")])).collect();
    let caller = Worker::builder("caller").address(&address).wait_mode(WaitMode::Balanced).connect().unwrap();
    for number in 0..8 {
        let id = format!("idle{number}::inline");
        caller.wait_for(&id, PATIENCE).unwrap();
        // Once busy, so that whatever spins has a reason to have begun.
        (0..50u64)
            .for_each(|call| drop(caller.handle(&id).call(&Message::bytes(&call.to_le_bytes())).unwrap()));
    }
    std::thread::sleep(Duration::from_millis(500));
    let seconds = Duration::from_secs(if effort::rounds(1) > 1 { 10 } else { 3 });
    let pids = || std::iter::once(&engine).chain(&members).map(Member::pid);
    let before: Vec<f64> = pids().map(cpu_seconds).collect();
    std::thread::sleep(seconds);
    let spent: Vec<f64> = pids().map(cpu_seconds).zip(before).map(|(after, before)| after - before).collect();
    let share = spent.iter().sum::<f64>() / seconds.as_secs_f64();
    println!(
        "idle for {seconds:?}: engine {:.4} s, workers {:.4} s of CPU: {:.3} % of a core",
        spent[0],
        spent[1..].iter().sum::<f64>(),
        share * 100.0
    );
    assert!(share < 0.2, "something does not sleep: {spent:?}");
    drop(caller);
}
