//! Calls between workers of one engine: every shape of function, every way to call.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ringway::{
    Attachment, CallOptions, Context, DType, Encoding, ErrorCode, Failure, Function, Message, Sampler,
    Started, View, WaitMode, Worker,
};
use ringway_engine::Engine;
use ringway_telemetry::store::TraceFilter;
use ringway_telemetry::trace::{Work, assemble};
use ringway_tests::local::engine_at;
use serde_json::{Value, json};

#[derive(
    Debug,
    Clone,
    PartialEq,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
struct Order {
    id: u64,
    item: String,
    amounts: Vec<u32>,
}

#[derive(
    Debug,
    Clone,
    PartialEq,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
struct Total {
    id: u64,
    sum: u64,
}

struct Pair {
    _engine: Engine,
    callee: Worker,
    caller: Worker,
}

fn pair_in(mode: WaitMode) -> Pair {
    let engine = engine_at();
    let worker = |name: &str| {
        let builder =
            Worker::builder(name).address(engine.address()).wait_mode(mode).sampler(Sampler::never());
        builder.default_timeout(Some(Duration::from_secs(20))).connect().unwrap()
    };
    let (callee, caller) = (worker("callee"), worker("caller"));
    Pair { _engine: engine, callee, caller }
}

fn pair() -> Pair {
    pair_in(WaitMode::Balanced)
}

fn serve(pair: &Pair, function: Function) {
    let id = function_id(&function);
    pair.callee.register(function).unwrap();
    pair.caller.wait_for(&id, Duration::from_secs(10)).unwrap();
}

fn function_id(function: &Function) -> String {
    function.id().to_owned()
}

fn total() -> Function {
    Function::typed("orders::total", |_, order: View<'_, Order>| {
        Ok(Total {
            id: order.id.to_native(),
            sum: order.amounts.iter().map(|amount| u64::from(amount.to_native())).sum(),
        })
    })
}

fn order() -> Order {
    Order { id: 7, item: "bolts".into(), amounts: vec![1, 2, 3] }
}

#[test]
fn what_is_registered_can_be_called_at_once() {
    let pair = pair();
    for round in 0..50 {
        let id = format!("fresh::f{round}");
        pair.callee.register(Function::json(&id, |_, number: u64| Ok(number + 1))).unwrap();
        assert_eq!(pair.caller.trigger_json(&id, &json!(round)).unwrap(), json!(round + 1), "{id}");
    }
    let error = pair.caller.trigger_json("fresh::never", &json!(0)).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
}

#[test]
fn typed_by_name_and_by_handle_in_every_mode() {
    for mode in [WaitMode::Balanced, WaitMode::Efficient, WaitMode::Latency] {
        for function in [total(), total().inline(), total().pooled()] {
            let pair = pair_in(mode);
            serve(&pair, function);
            let sum: Total = pair.caller.trigger("orders::total", &order()).unwrap();
            assert_eq!(sum, Total { id: 7, sum: 6 });
            let handle = pair.caller.function::<Order, Total>("orders::total");
            for id in 0..200 {
                let reply = handle.call(&Order { id, ..order() }).unwrap();
                assert_eq!(reply.archived().expect("archived bytes between Rust workers").id, id);
            }
        }
    }
}

#[test]
fn one_registration_serves_json_too() {
    let pair = pair();
    serve(&pair, total());
    let answer =
        pair.caller.trigger_json("orders::total", &json!({"id": 1, "item": "x", "amounts": [4, 5]})).unwrap();
    assert_eq!(answer, json!({"id": 1, "sum": 9}));
    let error = pair.caller.trigger_json("orders::total", &json!({"id": "one"})).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert!(error.message.contains("invalid type"), "{error}");
}

#[test]
fn large_values_travel_in_blocks() {
    let pair = pair();
    serve(&pair, total());
    let order = Order { id: 1, item: "y".repeat(100_000), amounts: vec![1; 50_000] };
    let sum: Total = pair.caller.trigger("orders::total", &order).unwrap();
    assert_eq!(sum.sum, 50_000);
}

#[test]
fn errors_reach_the_caller() {
    let pair = pair();
    serve(
        &pair,
        Function::json("fails::always", |_, (): ()| -> Result<(), Failure> {
            Err(Failure::with_code("E42", "no luck"))
        }),
    );
    serve(
        &pair,
        Function::json("fails::io", |_, (): ()| -> Result<(), Failure> {
            Err(std::io::Error::other("disk on fire"))?
        }),
    );
    serve(
        &pair,
        Function::json("fails::panics", |_, (): ()| -> Result<(), Failure> { panic!("as the test wants") })
            .inline(),
    );
    let error = pair.caller.trigger_json("fails::always", &Value::Null).unwrap_err();
    assert_eq!((error.code, error.user_code.as_deref()), (ErrorCode::HandlerError, Some("E42")));
    assert_eq!(error.function.as_deref(), Some("fails::always"));
    let error = pair.caller.trigger_json("fails::io", &Value::Null).unwrap_err();
    assert!(error.message.contains("disk on fire"), "{error}");
    for _ in 0..3 {
        let error = pair.caller.trigger_json("fails::panics", &Value::Null).unwrap_err();
        assert_eq!(error.code, ErrorCode::HandlerPanicked, "and the worker lives");
    }
    let error = pair.caller.trigger_json("nobody::home", &Value::Null).unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
}

#[test]
fn deadlines_end_calls_and_tell_the_handler() {
    let pair = pair();
    let (told, hears) = mpsc::channel();
    let told = parking_lot::Mutex::new(told);
    serve(
        &pair,
        Function::json("slow::sleep", move |context: &ringway::Context, (): ()| {
            assert!(context.remaining().is_some());
            for _ in 0..2000 {
                if context.is_cancelled() {
                    told.lock().send(()).unwrap();
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        }),
    );
    let options = CallOptions::new().timeout(Duration::from_millis(50));
    let error = pair.caller.trigger_json_with("slow::sleep", &Value::Null, &options).unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    hears.recv_timeout(Duration::from_secs(10)).expect("the handler was told");
    futures_lite::future::block_on(async {
        let error = pair.caller.trigger_json_async("slow::sleep", &Value::Null, &options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    });
    hears.recv_timeout(Duration::from_secs(10)).expect("the handler was told");
}

struct SaysWhenDropped(mpsc::Sender<()>);

impl Drop for SaysWhenDropped {
    fn drop(&mut self) {
        let _receiver_may_be_gone = self.0.send(());
    }
}

#[test]
fn dropping_a_call_drops_its_async_handler() {
    let pair = pair();
    let (told, hears) = mpsc::channel();
    let told = parking_lot::Mutex::new(told);
    serve(
        &pair,
        Function::json_async("slow::forever", move |_, (): ()| {
            let guard = SaysWhenDropped(told.lock().clone());
            async move {
                std::future::pending::<()>().await;
                drop(guard);
                Ok(())
            }
        }),
    );
    let pending =
        pair.caller.handle("slow::forever").start(&Message::json(&()).unwrap(), &CallOptions::new()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    drop(pending);
    hears.recv_timeout(Duration::from_secs(10)).expect("the handler's future was dropped");
}

#[test]
fn async_both_sides() {
    let pair = pair();
    serve(
        &pair,
        Function::json_async("async::twice", |context: ringway::Context, n: u64| async move {
            let once =
                context.worker().trigger_json_async("async::once", &json!(n), &CallOptions::new()).await?;
            Ok(once.as_u64().unwrap_or(0) * 2)
        }),
    );
    pair.caller.register(Function::json("async::once", |_, n: u64| Ok(n + 1))).unwrap();
    pair.callee.wait_for("async::once", Duration::from_secs(10)).unwrap();
    futures_lite::future::block_on(async {
        for n in 0..50u64 {
            let answer =
                pair.caller.trigger_json_async("async::twice", &json!(n), &CallOptions::new()).await.unwrap();
            assert_eq!(answer, json!((n + 1) * 2));
        }
    });
}

#[test]
fn many_calls_in_flight_from_many_threads() {
    let pair = pair();
    serve(&pair, total().inline());
    let handle = pair.caller.function::<Order, Total>("orders::total");
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let handle = handle.clone();
            scope.spawn(move || {
                let mut window = std::collections::VecDeque::new();
                for n in 0..2000u64 {
                    let id = thread * 1_000_000 + n;
                    window.push_back((id, handle.start(&Order { id, ..order() }).unwrap()));
                    if window.len() == 16 {
                        let (id, pending) = window.pop_front().unwrap();
                        assert_eq!(pending.wait().unwrap().value().unwrap(), Total { id, sum: 6 });
                    }
                }
                for (id, pending) in window {
                    assert_eq!(pending.wait().unwrap().value().unwrap(), Total { id, sum: 6 });
                }
            });
        }
    });
}

#[test]
fn nested_and_mutually_recursive_calls_end() {
    for inline in [true, false] {
        let pair = pair();
        let countdown = |id: &str, other: &'static str| {
            let function = Function::json(id, move |context: &ringway::Context, n: u64| {
                if n == 0 {
                    return Ok(0);
                }
                let below = context.worker().trigger_json(other, &json!(n - 1))?;
                Ok(below.as_u64().unwrap_or(0) + 1)
            });
            if inline { function.inline() } else { function.pooled() }
        };
        pair.callee.register(countdown("ping::count", "pong::count")).unwrap();
        pair.caller.register(countdown("pong::count", "ping::count")).unwrap();
        pair.caller.wait_for("ping::count", Duration::from_secs(10)).unwrap();
        pair.callee.wait_for("pong::count", Duration::from_secs(10)).unwrap();
        assert_eq!(
            pair.caller.trigger_json("ping::count", &json!(40)).unwrap(),
            json!(40),
            "inline: {inline}"
        );
    }
}

/// The obvious small program: connect, ask, leave, and then read.
#[test]
fn an_answer_outlives_the_worker_that_asked_for_it() {
    let pair = pair();
    serve(
        &pair,
        Function::raw("big::answer", |_, _| Ok(Message::from_vec(Encoding::Bytes, vec![1; 700_000]))),
    );
    let kept = pair.caller.handle("big::answer").call(&Message::empty()).unwrap();
    let callee = pair.callee.clone();
    drop(pair.caller);
    // Until the callee has seen that it left, and then some.
    for _ in 0..100 {
        let mut loan = callee.loan(700_000).unwrap();
        loan.fill(2);
        drop(loan);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(kept.body().iter().all(|byte| *byte == 1), "it was written over");
}

/// Whoever only reads items must not take what a handler had sent before it failed for all there is.
#[test]
fn a_stream_whose_handler_fails_does_not_just_end() {
    let pair = pair();
    serve(
        &pair,
        Function::stream("fails::midway", |_, _, _, output| {
            output.send(Message::bytes(b"one"))?;
            Err(ringway::Failure::with_code("HALF", "that was not all"))
        }),
    );
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    serve(
        &pair,
        Function::stream("ends::early", move |_, _, _, output| {
            output.send(Message::bytes(b"one"))?;
            output.finish();
            let _told = wait.lock().recv_timeout(Duration::from_secs(10));
            Ok(Message::bytes(b"later"))
        }),
    );
    let stream = |id: &str| pair.caller.handle(id).stream(&Message::empty(), &CallOptions::new()).unwrap();
    for _ in 0..100 {
        let call = stream("fails::midway");
        assert_eq!(call.recv().unwrap().unwrap().body(), b"one");
        assert_eq!(call.recv().unwrap_err().user_code.as_deref(), Some("HALF"));
        assert_eq!(call.end().unwrap_err().user_code.as_deref(), Some("HALF"));
    }
    let call = stream("ends::early");
    assert_eq!(call.recv().unwrap().unwrap().body(), b"one");
    assert!(call.recv().unwrap().is_none(), "said by the handler, which still runs");
    go_on.send(()).unwrap();
    assert_eq!(call.end().unwrap().body(), b"later");
}

#[test]
fn streams_flow_both_ways_under_control() {
    let pair = pair();
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    serve(
        &pair,
        Function::stream("tokens::echo", move |_, request, input, output| {
            assert_eq!(request.body(), b"go");
            let mut count = 0u64;
            while let Some(item) = input.recv()? {
                count += 1;
                output.send(item)?;
                seen.fetch_max(1, Ordering::Relaxed);
            }
            Message::json(&count)
        }),
    );
    let mut call =
        pair.caller.handle("tokens::echo").stream(&Message::bytes(b"go"), &CallOptions::new()).unwrap();
    std::thread::scope(|scope| {
        let call = &mut call;
        scope.spawn(move || {
            for n in 0..500u32 {
                call.send(Message::new(Encoding::Bytes, &n.to_le_bytes())).unwrap();
                if n >= 16 {
                    let item = call.recv().unwrap().expect("an item for each");
                    assert_eq!(item.body(), (n - 16).to_le_bytes());
                }
            }
            call.finish();
            let mut rest = 0;
            while call.recv().unwrap().is_some() {
                rest += 1;
            }
            assert_eq!(rest, 16);
        });
    });
    assert_eq!(call.end().unwrap().body(), b"500");
    assert_eq!(most.load(Ordering::Relaxed), 1);
}

#[test]
fn a_handler_streams_to_an_async_reader() {
    let pair = pair();
    serve(
        &pair,
        Function::stream_async("tokens::count", |_, _request, _input, output| async move {
            for n in 0..200u32 {
                output.send_async(Message::json(&n)?).await?;
            }
            output.finish();
            Ok(Message::empty())
        }),
    );
    futures_lite::future::block_on(async {
        let call =
            pair.caller.handle("tokens::count").stream(&Message::empty(), &CallOptions::new()).unwrap();
        let mut next = 0;
        while let Some(item) = call.recv_async().await.unwrap() {
            assert_eq!(item.body(), next.to_string().as_bytes());
            next += 1;
        }
        assert_eq!(next, 200);
        call.end_async().await.unwrap();
    });
}

#[test]
fn a_function_streams_to_callers_who_ask_for_it_alone() {
    let pair = pair();
    let plain = async |_: Context, request: Message| Message::json(&request.body().len());
    serve(
        &pair,
        Function::json_text_or_stream_async("tokens::maybe", plain, |_, _, input, output| async move {
            while let Some(item) = input.recv_async().await? {
                output.send_async(item).await?;
            }
            Message::json("streamed")
        }),
    );
    let handle = pair.caller.handle("tokens::maybe");
    assert_eq!(handle.streams(), Some((true, true)));
    let request = Message::json(&[1, 2]).unwrap();
    assert_eq!(handle.call(&request).unwrap().body(), b"5");
    let mut call = handle.stream(&request, &CallOptions::new()).unwrap();
    call.send(Message::bytes(b"item")).unwrap();
    call.finish();
    assert_eq!(call.recv().unwrap().unwrap().body(), b"item");
    assert_eq!(call.end().unwrap().body(), b"\"streamed\"");
    let told = pair.caller.trigger_json("engine::functions::info", &json!({"function_id": "tokens::maybe"}));
    let told = told.unwrap();
    let streams = ["streams_in", "streams_out", "streams_optional"].map(|field| told[field] == true);
    assert_eq!(streams, [false, false, true], "{told}");
}

#[test]
fn loans_are_read_in_place_kept_and_forwarded() {
    let pair = pair();
    let kept = Arc::new(parking_lot::Mutex::new(None));
    let keeper = Arc::clone(&kept);
    serve(
        &pair,
        Function::raw("blob::keep", move |_, request| {
            *keeper.lock() = request.payload().cloned();
            Ok(Message::empty())
        })
        .inline(),
    );
    serve(
        &pair,
        Function::raw("blob::echo", |_, request| {
            Ok(Message::from_payload(
                Encoding::Bytes,
                request.payload().cloned().ok_or_else(|| Failure::invalid("no payload"))?,
            ))
        })
        .inline(),
    );
    let mut loan = pair.caller.loan(1 << 20).unwrap();
    loan.fill(9);
    let message = Message::from_loan(Encoding::Bytes, loan);
    pair.caller.handle("blob::keep").call(&message).unwrap();
    assert!(kept.lock().as_ref().unwrap().iter().all(|byte| *byte == 9), "readable after the call");
    let back = pair.caller.handle("blob::echo").call(&message).unwrap();
    assert!(back.body().iter().all(|byte| *byte == 9));
    drop(back);
    drop(message);
    *kept.lock() = None;
    // Returns travel on the ring; an ordinary call brings them in.
    for _ in 0..100 {
        pair.caller.handle("blob::keep").call(&Message::empty()).unwrap();
        let held = pair.caller.inspect(pair.caller.id());
        drop(held);
    }
}

#[test]
fn tensors_keep_type_and_shape() {
    let pair = pair();
    serve(
        &pair,
        Function::raw("tensor::shape", |_, request| {
            let tensors: Vec<Value> = request
                .attachments()
                .iter()
                .map(|part| json!([part.dtype().as_str(), part.shape()]))
                .collect();
            Message::json(&tensors)
        }),
    );
    let mut message = Message::json(&json!({"model": "m"})).unwrap();
    for rows in 1..=9u64 {
        let loan = pair.caller.loan(usize::try_from(rows).unwrap() * 3 * 4).unwrap();
        message = message.attach(Attachment::tensor(loan.freeze().into(), DType::F32, &[rows, 3]).unwrap());
    }
    let reply = pair.caller.handle("tensor::shape").call(&message).unwrap();
    let shapes: Value = serde_json::from_slice(reply.body()).unwrap();
    assert_eq!(shapes[8], json!(["f32", [9, 3]]));
    assert_eq!(shapes.as_array().unwrap().len(), 9, "more descriptors than fit a slot");
}

#[test]
fn replicas_share_the_load_and_a_drained_one_loses_nothing() {
    let engine = engine_at();
    let connect = |name: &str| {
        Worker::builder(name).address(engine.address()).sampler(Sampler::never()).connect().unwrap()
    };
    let caller = connect("caller");
    let counts: Vec<Arc<AtomicUsize>> = (0..3).map(|_| Arc::default()).collect();
    let workers: Vec<Worker> = counts
        .iter()
        .map(|count| {
            let (worker, count) = (connect("replica"), Arc::clone(count));
            let function = Function::json("work::do", move |_, n: u64| {
                count.fetch_add(1, Ordering::Relaxed);
                Ok(n)
            });
            worker.register(function).unwrap();
            worker
        })
        .collect();
    assert!(caller.wait_until(Duration::from_secs(10), |catalog| {
        catalog.functions.iter().filter(|f| f.id.as_str() == "work::do").count() == 3
    }));
    for n in 0..300u64 {
        assert_eq!(caller.trigger_json("work::do", &json!(n)).unwrap(), json!(n));
        if n == 150 {
            assert!(workers[0].drain(Duration::from_secs(10)));
        }
    }
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) > 20), "{counts:?}");
    drop(workers);
    let error = caller.trigger_json("work::do", &json!(1)).unwrap_err();
    assert!(matches!(error.code, ErrorCode::NotFound | ErrorCode::WorkerGone), "{error}");
    assert_ne!(error.started, Some(Started::Maybe));
}

#[test]
fn sends_arrive_without_a_reply() {
    let pair = pair();
    let (told, hears) = mpsc::channel();
    let told = parking_lot::Mutex::new(told);
    serve(
        &pair,
        Function::json("log::note", move |_, n: u64| {
            told.lock().send(n).unwrap();
            Ok(())
        }),
    );
    for n in 0..100u64 {
        pair.caller.send_json("log::note", &json!(n)).unwrap();
    }
    let mut got: Vec<u64> = (0..100).map(|_| hears.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, (0..100).collect::<Vec<_>>());
}

#[test]
fn metadata_and_baggage_travel() {
    let pair = pair();
    serve(
        &pair,
        Function::json("meta::read", |context: &ringway::Context, (): ()| {
            Ok(
                json!({"meta": context.metadata(), "tenant": context.baggage().and_then(|b| b.get("tenant").map(str::to_owned))}),
            )
        }),
    );
    let mut baggage = ringway::Baggage::default();
    baggage.set("tenant", "acme").unwrap();
    let options = CallOptions::new().metadata(json!({"try": 1})).baggage(baggage);
    let answer = pair.caller.trigger_json_with("meta::read", &Value::Null, &options).unwrap();
    assert_eq!(answer, json!({"meta": {"try": 1}, "tenant": "acme"}));
}

#[test]
fn a_pipeline_answers_in_order_and_gives_up_what_is_left() {
    let pair = pair();
    serve(&pair, total());
    // Slow for the first of every ten, so that the pool finishes them in another order.
    let slow = Function::json("orders::slow", |_, id: u64| {
        std::thread::sleep(Duration::from_micros(if id.is_multiple_of(10) { 2_000 } else { 10 }));
        Ok(id)
    });
    serve(&pair, slow.pooled());

    let function = pair.caller.function::<Order, Total>("orders::total");
    let mut pipeline = function.pipeline();
    assert!(pipeline.recv().is_none(), "nothing is in flight");
    let (mut submitted, mut received) = (0, 0);
    while received < 2_000 {
        while submitted < 2_000 && pipeline.in_flight() < 64 {
            pipeline.submit(&Order { id: submitted, ..order() }).unwrap();
            submitted += 1;
        }
        let reply = pipeline.recv().unwrap().unwrap();
        assert_eq!(reply.value().unwrap(), Total { id: received, sum: 6 });
        received += 1;
    }

    let handle = pair.caller.handle("orders::slow");
    let mut pipeline = handle.pipeline();
    for id in 0..200_u64 {
        pipeline.submit(&Message::json(&id).unwrap()).unwrap();
    }
    for id in 0..100_u64 {
        let reply = pipeline.recv().unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<u64>(reply.body()).unwrap(), id);
    }
    drop(pipeline);
    // The channel is as before: what was given up does not stand in the way.
    assert_eq!(pair.caller.trigger_json("orders::slow", &json!(5)).unwrap(), json!(5));
}

#[test]
fn a_pipeline_says_of_each_call_how_it_ended_and_finds_the_next_replica() {
    let engine = engine_at();
    let connect = |name: &str| Worker::builder(name).address(engine.address()).connect().unwrap();
    let caller = connect("caller");
    let (began, begun) = mpsc::channel();
    let held = move || {
        let began = parking_lot::Mutex::new(began);
        Function::json("orders::held", move |context: &ringway::Context, ()| {
            let _counted = began.lock().send(());
            while !context.is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })
    };
    let first = connect("first");
    first.register_all(vec![held().pooled(), total()]).unwrap();
    caller.wait_for("orders::held", Duration::from_secs(10)).unwrap();

    let handle = caller.handle("orders::held");
    let mut pipeline = handle.pipeline();
    for _ in 0..10 {
        pipeline.submit(&Message::empty()).unwrap();
    }
    begun.recv_timeout(Duration::from_secs(10)).unwrap();
    first.shut_down();
    for call in 0..10 {
        let error = pipeline.recv().unwrap().unwrap_err();
        assert_eq!((error.code, error.function.as_deref()), (ErrorCode::WorkerGone, Some("orders::held")));
        // The first had begun; of the others each says whether it may have.
        assert!(error.started.is_some() && (call > 0 || error.started == Some(Started::Maybe)), "{error}");
    }

    let function = caller.function::<Order, Total>("orders::total");
    let mut pipeline = function.pipeline();
    let second = connect("second");
    second.register(total()).unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while pipeline.submit(&order()).is_err() {
        assert!(std::time::Instant::now() < until, "the second replica never showed");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(pipeline.recv().unwrap().unwrap().value().unwrap().sum, 6);
}

/// Calls over every shape from a plain thread, from a handler on the dispatcher's thread, from a pooled one and from an
/// async one, all of one worker.
#[test]
fn a_worker_calls_itself() {
    let engine = engine_at();
    let worker =
        Worker::builder("alone").address(engine.address()).sampler(Sampler::always()).connect().unwrap();
    let down = |id: &str, own: &'static str| {
        Function::json(id, move |context: &ringway::Context, n: u64| {
            assert_eq!(context.caller(), context.worker().id());
            if n == 0 {
                return Ok(0);
            }
            Ok(context.worker().trigger_json(own, &json!(n - 1))?.as_u64().unwrap_or(0) + 1)
        })
    };
    worker
        .register_all(vec![
            total().inline(),
            down("self::inline", "self::inline").inline(),
            down("self::pooled", "self::pooled").pooled(),
            Function::json_async("self::async", |context: ringway::Context, n: u64| async move {
                let (n, options) = (json!(n), CallOptions::new());
                let once = context.worker().trigger_json_async("self::inline", &n, &options).await?;
                Ok(once.as_u64().unwrap_or(0) + 1)
            }),
            Function::stream("self::stream", |_, request, input, output| {
                while let Some(item) = input.recv()? {
                    output.send(item)?;
                }
                Ok(request)
            }),
        ])
        .unwrap();
    worker.wait_for("self::stream", Duration::from_secs(10)).unwrap();
    for id in ["self::inline", "self::pooled"] {
        assert_eq!(worker.trigger_json(id, &json!(20)).unwrap(), json!(20), "{id}");
    }
    let (five, options) = (json!(5), CallOptions::new());
    let answer = worker.trigger_json_async("self::async", &five, &options);
    assert_eq!(futures_lite::future::block_on(answer).unwrap(), json!(6));
    let large = Order { amounts: vec![1; 100_000], ..order() };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let handle = worker.function::<Order, Total>("orders::total");
                for _ in 0..50 {
                    assert_eq!(handle.call(&order()).unwrap().value().unwrap().sum, 6);
                    assert_eq!(handle.call(&large).unwrap().value().unwrap().sum, 100_000);
                }
            });
        }
    });
    let mut call =
        worker.handle("self::stream").stream(&Message::bytes(b"end"), &CallOptions::new()).unwrap();
    for n in 0..20u8 {
        call.send(Message::bytes(&[n])).unwrap();
    }
    call.finish();
    for n in 0..20u8 {
        assert_eq!(call.recv().unwrap().expect("an item for each").body(), [n]);
    }
    assert_eq!(call.end().unwrap().body(), b"end");
    hops_of(&engine, "self::pooled", 21);
    let held = worker.inspect(worker.id()).unwrap();
    let roles: Vec<_> = held["channels"].as_array().unwrap().iter().map(|channel| &channel["role"]).collect();
    assert!(roles.contains(&&json!("caller")) && roles.contains(&&json!("callee")), "{held}");
}

/// Waits until the last trace of a function has so many hops, and checks that they are nested.
fn hops_of(engine: &Engine, function: &str, wanted: usize) {
    let until = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let collector = engine.collector();
        let collector = collector.lock();
        let filter = TraceFilter { function: Some(function.into()), limit: 1, ..TraceFilter::default() };
        let last = collector.store().traces(&filter).first().map(|summary| summary.trace_id);
        let trace = last.and_then(|id| collector.store().trace(id)).map(assemble);
        drop(collector);
        let whole = |row: &ringway_telemetry::trace::Row| matches!(&row.work, Work::Hop { client, server } if client.end_ns.is_some() && server.end_ns.is_some());
        if let Some(trace) = trace.filter(|trace| trace.rows.len() == wanted && trace.rows.iter().all(whole))
        {
            let depths: Vec<usize> = trace.rows.iter().map(|row| row.depth).collect();
            assert_eq!(depths, (0..wanted).collect::<Vec<_>>());
            return;
        }
        assert!(std::time::Instant::now() < until, "the trace of {function} does not become whole");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whoever waits for an item, or for leave to send one, waits no longer than the call may take.
#[test]
fn a_stream_ends_at_its_deadline() {
    let pair = pair();
    serve(
        &pair,
        Function::stream("slow::stream", |context, _, _, _| {
            while !context.is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(Message::empty())
        }),
    );
    let handle = pair.caller.handle("slow::stream");
    let options = CallOptions::new().timeout(Duration::from_millis(50));
    let call = handle.stream(&Message::empty(), &options).unwrap();
    assert_eq!(call.recv().unwrap_err().code, ErrorCode::DeadlineExceeded);
    let call = handle.stream(&Message::empty(), &options).unwrap();
    let sent = (0..1000).map(|_| call.send(Message::bytes(b"x"))).find_map(Result::err);
    assert_eq!(sent.map(|error| error.code), Some(ErrorCode::DeadlineExceeded));
    let call = handle.stream(&Message::empty(), &options).unwrap();
    let received = futures_lite::future::block_on(call.recv_async());
    assert_eq!(received.unwrap_err().code, ErrorCode::DeadlineExceeded);
}

/// A callee that lives and reads nothing is an error after the default timeout, also for a call that names none.
#[test]
fn a_full_ring_is_an_error_in_time() {
    let engine = engine_at();
    let connect = |name: &str| {
        let builder = Worker::builder(name).address(engine.address()).sampler(Sampler::never());
        builder.default_timeout(Some(Duration::from_millis(300))).connect().unwrap()
    };
    let (callee, caller) = (connect("callee"), connect("caller"));
    let (release, held) = mpsc::channel::<()>();
    let held = parking_lot::Mutex::new(held);
    // Blocks the thread that reads the ring, as an inline handler must not.
    let stuck = Function::raw("stuck::call", move |_, _| {
        let _released = held.lock().recv();
        Ok(Message::empty())
    });
    callee.register(stuck.inline()).unwrap();
    caller.wait_for("stuck::call", Duration::from_secs(10)).unwrap();
    let handle = caller.handle("stuck::call");
    let mut pending = Vec::new();
    let error = loop {
        match handle.start(&Message::empty(), &CallOptions::new()) {
            Ok(call) => pending.push(call),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, ErrorCode::Busy, "{error}");
    assert!(pending.len() > 200, "only {} calls fitted the ring", pending.len());
    drop(release);
    for call in pending {
        call.wait().unwrap();
    }
}

/// What drops a handler's future tells its caller, who would wait in vain.
#[test]
fn a_future_that_its_runtime_drops_ends_its_call() {
    let engine = engine_at();
    let callee = Worker::builder("callee").address(engine.address()).spawner(drop).connect().unwrap();
    callee.register(Function::raw_async("lost::call", |_, _| std::future::pending())).unwrap();
    let caller = Worker::builder("caller").address(engine.address()).connect().unwrap();
    caller.wait_for("lost::call", Duration::from_secs(10)).unwrap();
    let error = caller.trigger_json("lost::call", &json!(0)).unwrap_err();
    assert_eq!(error.code, ErrorCode::HandlerError, "{error}");
    assert!(error.message.contains("dropped before it ended"), "{error}");
}

#[test]
fn a_replica_that_takes_its_function_back_and_forth_loses_no_call() {
    const ROUNDS: usize = 300;
    let engine = engine_at();
    let worker = |name: &str| Worker::builder(name).address(engine.address()).connect().unwrap();
    let (first, second, caller) = (worker("first"), worker("second"), worker("caller"));
    let echo = || Function::json("replica::echo", |_, number: u64| Ok(number));
    second.register(echo()).unwrap();
    caller.wait_for("replica::echo", Duration::from_secs(10)).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut number = 0;
                    while !over.load(Ordering::Acquire) {
                        let answer = caller.trigger_json("replica::echo", &json!(number));
                        match answer {
                            Ok(found) => assert_eq!(found, json!(number)),
                            Err(error) => return Some(error),
                        }
                        number += 1;
                    }
                    None
                })
            })
            .collect();
        for _ in 0..ROUNDS {
            first.register(echo()).unwrap();
            std::thread::sleep(Duration::from_micros(500));
            first.unregister("replica::echo").unwrap();
        }
        over.store(true, Ordering::Release);
        for caller in callers {
            assert_eq!(caller.join().unwrap(), None);
        }
    });
}
