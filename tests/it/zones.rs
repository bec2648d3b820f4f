//! Calls from one zone into another, through the engine: what passes, what is refused, what ends when somebody dies, and
//! that no zone holds memory or descriptors of another.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ringway::{
    Attachment, CallOptions, Context, DType, Encoding, ErrorCode, Failure, Function, Message, Sampler,
    Started, Worker, payload_counters,
};
use ringway_engine::{Engine, ZoneSocket};
use ringway_engine_core::{Action, Policy, Rule};
use ringway_telemetry::store::TraceFilter;
use ringway_telemetry::trace::{Work, assemble};
use ringway_tests::local;
use ringway_tests::member::Member;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// An engine with a second zone, a worker in each.
struct Border {
    engine: Engine,
    door: String,
    inside: Worker,
    boxed: Worker,
}

fn rules() -> Vec<Rule> {
    vec![
        Rule::new(Action::Allow, "sandbox", "open::*"),
        Rule::new(Action::Allow, "sandbox", "some::*").with_caller("reader"),
    ]
}

fn border() -> Border {
    let door = local::address();
    let builder = Engine::builder().address(local::address());
    let builder = builder.zone_socket(ZoneSocket::new("sandbox", &door)).policy(Policy::new(rules()));
    let engine = builder.start().unwrap();
    let inside = connect("inside", engine.address());
    let boxed = connect("boxed", &door);
    Border { engine, door, inside, boxed }
}

fn connect(name: &str, address: &str) -> Worker {
    let builder = Worker::builder(name).address(address).sampler(Sampler::never());
    builder.default_timeout(Some(Duration::from_secs(60))).connect().unwrap()
}

impl Border {
    fn serve(&self, function: Function) {
        let id = function.id().to_owned();
        self.inside.register(function).unwrap();
        self.boxed.wait_for(&id, PATIENCE).unwrap();
    }
}

fn echo(id: &str) -> Function {
    Function::raw(id, |_, request| Ok(Message::new(request.encoding(), request.body())))
}

#[test]
fn what_the_policy_allows_passes_with_all_that_travels_beside_it() {
    let border = border();
    border.serve(Function::json("open::told", |context: &Context, n: u64| {
        let tenant = context.baggage().and_then(|baggage| baggage.get("tenant").map(str::to_owned));
        assert!(context.remaining().is_some());
        Ok(json!({"n": n, "meta": context.metadata(), "tenant": tenant}))
    }));
    border.serve(Function::json("open::fails", |_, (): ()| -> Result<(), Failure> {
        Err(Failure::with_code("E42", "no luck"))
    }));
    let mut baggage = ringway::Baggage::default();
    baggage.set("tenant", "acme").unwrap();
    let options = CallOptions::new().metadata(json!({"try": 1})).baggage(baggage).timeout(PATIENCE);
    let answer = border.boxed.trigger_json_with("open::told", &json!(7), &options).unwrap();
    assert_eq!(answer, json!({"n": 7, "meta": {"try": 1}, "tenant": "acme"}));
    let error = border.boxed.trigger_json("open::fails", &Value::Null).unwrap_err();
    assert_eq!((error.code, error.user_code.as_deref()), (ErrorCode::HandlerError, Some("E42")));
    let catalog = border.boxed.catalog();
    let told = catalog.functions.iter().find(|function| function.id.as_str() == "open::told").unwrap();
    assert_eq!(told.relay.as_ref().map(|relay| relay.zone.as_str()), Some("default"));
    assert_eq!(told.worker, border.engine.id());
}

#[test]
fn what_it_does_not_allow_is_refused_at_each_call() {
    let border = border();
    let ran = Arc::new(AtomicUsize::new(0));
    let counted = |id: &str| {
        let ran = Arc::clone(&ran);
        Function::json(id, move |_, (): ()| {
            ran.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    };
    border.inside.register(counted("secret::f")).unwrap();
    border.serve(counted("some::f"));
    let error = border.boxed.trigger_json("secret::f", &Value::Null).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound, "not even shown");
    let error = border.boxed.trigger_json("some::f", &Value::Null).unwrap_err();
    assert_eq!(
        error.code,
        ErrorCode::Forbidden,
        "shown to the zone, allowed to another worker of it: {error}"
    );
    assert_eq!(ran.load(Ordering::Relaxed), 0);
    let reader = connect("reader", &border.door);
    reader.wait_for("some::f", PATIENCE).unwrap();
    reader.trigger_json("some::f", &Value::Null).unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 1);
    let counters = border.engine.counters();
    assert_eq!((counters.relayed_calls, counters.relayed_forbidden), (2, 1));
}

#[test]
fn another_zone_may_ask_the_engine_about_itself_and_no_more() {
    let border = border();
    border.inside.register(echo("secret::f")).unwrap();
    border.serve(echo("open::f"));
    border.serve(echo("some::f"));
    border.boxed.register(echo("boxed::f")).unwrap();
    let ask = |id: &str, input: Value| border.boxed.trigger_json(id, &input);
    let named = |list: &Value, field: &str| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|entry| entry[field].as_str().unwrap().to_owned()).collect()
    };
    let functions = ask("engine::functions::list", Value::Null).unwrap();
    assert_eq!(
        named(&functions["functions"], "function_id"),
        BTreeSet::from(["boxed::f".to_owned(), "open::f".to_owned()])
    );
    let workers = ask("engine::workers::list", Value::Null).unwrap();
    let both = BTreeSet::from(["boxed".to_owned(), "engine".to_owned()]);
    assert_eq!(named(&workers["workers"], "name"), both);
    assert_eq!(ask("engine::health::check", Value::Null).unwrap()["workers"], 2);
    let memory = ask("engine::memory::list", Value::Null).unwrap();
    assert_eq!(named(&memory["workers"], "name"), BTreeSet::from(["boxed".to_owned()]));
    assert!(memory["engine"]["permission_pages"].is_null(), "{memory}");
    let told = |id: &str| ask("engine::functions::info", json!({"function_id": id})).unwrap_err();
    let (hidden, absent, shown) = (told("secret::f"), told("no::such"), told("some::f"));
    assert_eq!((hidden.code, hidden.user_code), (absent.code, absent.user_code));
    assert_eq!(hidden.message.replace("secret::f", ""), absent.message.replace("no::such", ""));
    assert_eq!(shown.code, ErrorCode::Forbidden, "shown to the zone: {shown}");
    for closed in
        ["engine::traces::list", "engine::logs::list", "engine::metrics::list", "engine::traces::clear"]
    {
        assert_eq!(ask(closed, Value::Null).unwrap_err().code, ErrorCode::NotFound, "{closed}");
    }
    border.boxed.trigger_json("engine::workers::register", &json!({"name": "reader"})).unwrap();
    border.boxed.trigger_json("some::f", &Value::Null).unwrap();
    border.engine.set_policy(Policy::new(vec![Rule::new(Action::Deny, "sandbox", "engine::*")]));
    let gone = |catalog: &ringway::protocol::control::Catalog| {
        !catalog.functions.iter().any(|function| function.id.as_str() == "engine::functions::list")
    };
    assert!(border.boxed.wait_until(PATIENCE, gone));
    assert_eq!(ask("engine::functions::list", Value::Null).unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn a_permission_that_is_taken_back_ends_with_the_next_call() {
    let border = border();
    let ran = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ran);
    border.serve(Function::json("open::f", move |_, (): ()| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }));
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let begun = Instant::now();
                    loop {
                        match border.boxed.trigger_json("open::f", &Value::Null) {
                            Ok(_) => assert!(begun.elapsed() < PATIENCE, "never refused"),
                            Err(error) => break error,
                        }
                    }
                })
            })
            .collect();
        while ran.load(Ordering::Relaxed) < 200 {
            std::thread::yield_now();
        }
        border.engine.set_policy(Policy::default());
        for caller in callers {
            let error = caller.join().unwrap();
            assert!(matches!(error.code, ErrorCode::Forbidden | ErrorCode::NotFound), "{error}");
        }
    });
    let before = ran.load(Ordering::Relaxed);
    for _ in 0..50 {
        border.boxed.trigger_json("open::f", &Value::Null).unwrap_err();
    }
    assert_eq!(ran.load(Ordering::Relaxed), before, "nothing runs any more");
    border.engine.set_policy(Policy::new(rules()));
    border.boxed.wait_for("open::f", PATIENCE).unwrap();
    border.boxed.trigger_json("open::f", &Value::Null).unwrap();
}

#[test]
fn a_large_payload_is_copied_once_each_way() {
    const BYTES: usize = 64 << 20;
    let border = border();
    border.serve(Function::raw("open::back", |_, request| {
        let payload = request.payload().cloned().ok_or_else(|| Failure::invalid("no payload"))?;
        Ok(Message::from_payload(Encoding::Bytes, payload))
    }));
    let mut loan = border.boxed.loan(BYTES).unwrap();
    for (chunk, number) in loan.chunks_exact_mut(8).zip(0u64..) {
        chunk.copy_from_slice(&number.to_le_bytes());
    }
    let message = Message::from_loan(Encoding::Bytes, loan);
    let (copied, counted) = (payload_counters().copied_bytes, border.engine.counters().relayed_bytes);
    let reply = border.boxed.handle("open::back").call(&message).unwrap();
    assert!(reply.body() == message.body(), "the bytes are the same");
    assert!(payload_counters().copied_bytes - copied >= 2 * BYTES as u64);
    assert_eq!(border.engine.counters().relayed_bytes - counted, 2 * BYTES as u64);
    let held = border.inside.trigger_json("engine::memory::list", &json!({})).unwrap();
    let engine =
        held["workers"].as_array().unwrap().iter().find(|worker| worker["name"] == "engine").unwrap();
    let zones = engine["memory"]["zone_arenas"].as_object().unwrap();
    assert_eq!(zones.keys().collect::<Vec<_>>(), ["default", "sandbox"], "{engine}");
    assert!(zones.values().all(|arena| arena["loans"].as_u64() > Some(0)), "{engine}");
}

#[test]
fn tensors_pass_with_type_and_shape() {
    let border = border();
    border.serve(Function::raw("open::shape", |_, request| {
        let tensors: Vec<Value> = request
            .attachments()
            .iter()
            .map(|part| json!([part.dtype().as_str(), part.shape(), part.payload().len()]))
            .collect();
        Message::json(&tensors)
    }));
    let mut message = Message::json(&json!({"model": "m"})).unwrap();
    for rows in 1..=9u64 {
        let loan = border.boxed.loan(usize::try_from(rows).unwrap() * 3 * 4).unwrap();
        message = message.attach(Attachment::tensor(loan.freeze().into(), DType::F32, &[rows, 3]).unwrap());
    }
    let reply = border.boxed.handle("open::shape").call(&message).unwrap();
    let shapes: Value = serde_json::from_slice(reply.body()).unwrap();
    assert_eq!((&shapes[8], shapes.as_array().unwrap().len()), (&json!(["f32", [9, 3], 108]), 9));
}

#[test]
fn many_calls_of_many_threads() {
    let border = border();
    border.serve(echo("open::echo"));
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let handle = border.boxed.handle("open::echo");
            scope.spawn(move || {
                for n in 0..125u64 {
                    // Inside the slot, and in a block.
                    let len = if n % 2 == 0 { 8 } else { 1000 };
                    let mut body = vec![u8::try_from(n % 251).unwrap(); len];
                    body[..8].copy_from_slice(&(thread << 32 | n).to_le_bytes());
                    assert_eq!(handle.call(&Message::bytes(&body)).unwrap().body(), body);
                }
            });
        }
    });
    assert_eq!(border.engine.counters().relayed_calls, 1000);
}

#[test]
fn streams_flow_through_both_ways() {
    let border = border();
    border.serve(Function::stream("open::tokens", |_, request, input, output| {
        let mut count = 0u64;
        while let Some(item) = input.recv()? {
            count += 1;
            output.send(item)?;
        }
        if request.body() == b"fail" {
            return Err(Failure::with_code("E7", "after the stream"));
        }
        Message::json(&count)
    }));
    for (word, large) in [("go", false), ("go", true), ("fail", false)] {
        let handle = border.boxed.handle("open::tokens");
        let mut call = handle.stream(&Message::bytes(word.as_bytes()), &CallOptions::new()).unwrap();
        let item = |n: u32| {
            let mut bytes = vec![1; if large { 5000 } else { 4 }];
            bytes[..4].copy_from_slice(&n.to_le_bytes());
            bytes
        };
        for n in 0..200u32 {
            call.send(Message::bytes(&item(n))).unwrap();
            if n >= 16 {
                assert_eq!(call.recv().unwrap().expect("an item for each").body(), item(n - 16));
            }
        }
        call.finish();
        for n in 184..200u32 {
            assert_eq!(call.recv().unwrap().expect("the rest").body(), item(n));
        }
        match call.end() {
            Ok(reply) => assert_eq!(reply.body(), b"200"),
            Err(error) => assert_eq!((word, error.user_code.as_deref()), ("fail", Some("E7")), "{error}"),
        }
    }
}

#[test]
fn deadlines_and_cancellation_reach_the_handler() {
    let border = border();
    let (told, hears) = mpsc::channel();
    let told = parking_lot::Mutex::new(told);
    border.serve(Function::json("open::sleep", move |context: &Context, (): ()| {
        for _ in 0..4000 {
            if context.is_cancelled() {
                told.lock().send(()).unwrap();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }));
    let options = CallOptions::new().timeout(Duration::from_millis(100));
    let error = border.boxed.trigger_json_with("open::sleep", &Value::Null, &options).unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    hears.recv_timeout(PATIENCE).expect("the handler was told of the end of its time");
    let handle = border.boxed.handle("open::sleep");
    let pending = handle.start(&Message::json(&()).unwrap(), &CallOptions::new()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    drop(pending);
    hears.recv_timeout(PATIENCE).expect("the handler was told that its caller gave up");
}

#[test]
fn sends_pass_without_a_reply() {
    let border = border();
    let (told, hears) = mpsc::channel();
    let told = parking_lot::Mutex::new(told);
    border.serve(Function::json("open::note", move |_, n: u64| {
        told.lock().send(n).unwrap();
        Ok(())
    }));
    for n in 0..100u64 {
        border.boxed.send_json("open::note", &json!(n)).unwrap();
    }
    let mut got: Vec<u64> = (0..100).map(|_| hears.recv_timeout(PATIENCE).unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, (0..100).collect::<Vec<_>>());
}

#[test]
fn replicas_that_come_and_go_are_followed() {
    let border = border();
    border.serve(Function::json("open::who", |context: &Context, (): ()| {
        Ok(context.worker().name().to_owned())
    }));
    let second = connect("second", border.engine.address());
    second
        .register(Function::json("open::who", |context: &Context, (): ()| {
            Ok(context.worker().name().to_owned())
        }))
        .unwrap();
    let mut seen = BTreeSet::new();
    let begun = Instant::now();
    while seen.len() < 2 {
        seen.insert(border.boxed.trigger_json("open::who", &Value::Null).unwrap().to_string());
        assert!(begun.elapsed() < PATIENCE, "{seen:?}");
    }
    for n in 0..200 {
        if n == 50 {
            assert!(border.inside.drain(PATIENCE));
        }
        let who = border.boxed.trigger_json("open::who", &Value::Null).unwrap();
        assert!(n <= 50 || who == "second", "{who} takes no new calls");
    }
    drop(second);
    border.inside.shut_down();
    assert!(border.boxed.wait_until(PATIENCE, |catalog| {
        catalog.functions.iter().all(|function| function.id.as_str() != "open::who")
    }));
    let error = border.boxed.trigger_json("open::who", &Value::Null).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
}

#[test]
fn a_traced_call_shows_the_hop_through_the_engine() {
    let border = border();
    border.serve(echo("open::echo"));
    let traced =
        Worker::builder("traced").address(&border.door).sampler(Sampler::always()).connect().unwrap();
    traced.wait_for("open::echo", PATIENCE).unwrap();
    traced.handle("open::echo").call(&Message::bytes(b"x")).unwrap();
    let begun = Instant::now();
    loop {
        let collector = border.engine.collector();
        let collector = collector.lock();
        let filter = TraceFilter { function: Some("open::echo".into()), limit: 1, ..TraceFilter::default() };
        let last = collector.store().traces(&filter).first().map(|summary| summary.trace_id);
        let trace = last.and_then(|id| collector.store().trace(id)).map(assemble);
        drop(collector);
        if let Some(trace) = trace.filter(|trace| trace.spans == 4 && trace.live_count() == 0) {
            let hops: Vec<_> = trace
                .rows
                .iter()
                .map(|row| {
                    let Work::Hop { client, server } = &row.work else { panic!("{trace:?}") };
                    (row.depth, &*client.name, client.worker.name.as_str(), server.worker.name.as_str())
                })
                .collect();
            let expected = [(0, "open::echo", "traced", "engine"), (1, "open::echo", "engine", "inside")];
            assert_eq!(hops, expected);
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "the trace does not become whole");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a process maps or holds open of anonymous shared memory, by the kernel's number of each.
fn shared_memory(pid: u32) -> BTreeSet<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mapped = maps.lines().filter(|line| line.contains("/memfd:ringway"));
    let mut found: BTreeSet<u64> =
        mapped.filter_map(|line| line.split_whitespace().nth(4)?.parse().ok()).collect();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let name = fs::read_link(entry.path()).unwrap_or_default();
        if name.to_string_lossy().contains("memfd:ringway")
            && let Ok(memory) = fs::metadata(entry.path())
        {
            found.insert(memory.ino());
        }
    }
    found
}

#[test]
fn no_zone_holds_memory_of_another_and_a_death_ends_its_calls() {
    let border = border();
    let mut callee = Member::start(&["callee", border.engine.address(), "open"]);
    let neighbour = Member::start(&["callee", border.engine.address(), "open-too"]);
    border.boxed.wait_for("open::stream", PATIENCE).unwrap();
    // Calls of every shape, blocks and streams among them, that end with the right answers before it says so.
    let caller = Member::start(&["caller", &border.door, "open", "loop"]);
    let friend = Member::start(&["caller", border.engine.address(), "open-too", "loop"]);
    std::thread::sleep(Duration::from_millis(300));
    let (of_callee, of_caller) = (shared_memory(callee.pid()), shared_memory(caller.pid()));
    assert!(of_callee.len() > 3 && of_caller.len() > 3, "{of_callee:?} {of_caller:?}");
    let both: Vec<_> = of_callee.intersection(&of_caller).collect();
    assert!(both.is_empty(), "zones share {both:?}");
    let within: Vec<_> =
        shared_memory(neighbour.pid()).intersection(&shared_memory(friend.pid())).copied().collect();
    assert!(!within.is_empty(), "neighbours of one zone do share, so the look finds what there is");
    drop(friend);

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let calls = scope.spawn(|| {
            let handle = border.boxed.handle("open::slow");
            let mut errors = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                if let Err(error) = handle.call(&Message::bytes(&[1; 8])) {
                    errors.push(error);
                    break;
                }
            }
            errors
        });
        let slow = border.boxed.handle("open::die-queue");
        let begun = Instant::now();
        let error = slow.call(&Message::bytes(&[0; 8])).unwrap_err();
        assert_eq!((error.code, error.started), (ErrorCode::WorkerGone, Some(Started::Maybe)), "{error}");
        assert!(begun.elapsed() < PATIENCE, "ended by the death, not by its time");
        stop.store(true, Ordering::Relaxed);
        for error in calls.join().unwrap() {
            assert!(matches!(error.code, ErrorCode::WorkerGone | ErrorCode::NotFound), "{error}");
        }
    });
    assert!(border.boxed.wait_until(PATIENCE, |catalog| {
        catalog.functions.iter().all(|function| function.id.as_str() != "open::slow")
    }));
    callee.kill_and_wait();
}
