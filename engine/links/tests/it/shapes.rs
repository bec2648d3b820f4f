//! Every shape of a call, in both directions over a link: what holds between workers of one host holds here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ringway::{
    Attachment, Baggage, CallOptions, Context, DType, Encoding, ErrorCode, Failure, Function, Message, Worker,
};
use ringway_access::Grant;
use serde_json::{Value, json};

use crate::stage::{PATIENCE, Stage, until, wait_for};

/// Has each of the two serve and the other call: what a test asserts has to hold both ways.
fn both_ways(test: impl Fn(&Worker, &Worker)) {
    for stage in Stage::all(&Grant::everything()) {
        let (local, remote) = (stage.local("local"), stage.remote("remote"));
        test(&local, &remote);
        test(&remote, &local);
    }
}

fn serve(callee: &Worker, caller: &Worker, function: Function) {
    let id = function.id().to_owned();
    callee.register(function).unwrap();
    // Of the two, the one that served last is meant.
    wait_for(caller, &id);
    until("the function is known at one worker alone", || {
        caller.handle(&id).sole_worker() == Some(callee.id())
    });
}

fn item(number: u32) -> Message {
    Message::new(Encoding::Bytes, &number.to_le_bytes())
}

#[test]
fn streams_flow_both_ways_under_control() {
    both_ways(|callee, caller| {
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let function = Function::stream("tokens::echo", move |_, request, input, output| {
            assert_eq!(request.body(), b"go");
            let mut echoed = 0u64;
            while let Some(item) = input.recv()? {
                echoed += 1;
                output.send(item)?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Message::json(&echoed)
        });
        serve(callee, caller, function);
        let mut call =
            caller.handle("tokens::echo").stream(&Message::bytes(b"go"), &CallOptions::new()).unwrap();
        for number in 0..500u32 {
            call.send(item(number)).unwrap();
            if number >= 16 {
                assert_eq!(call.recv().unwrap().unwrap().body(), (number - 16).to_le_bytes());
            }
        }
        call.finish();
        let mut rest = 0;
        while call.recv().unwrap().is_some() {
            rest += 1;
        }
        assert_eq!((rest, call.end().unwrap().body()), (16, &b"500"[..]));
        assert_eq!(sent.load(Ordering::Relaxed), 500);
        callee.unregister("tokens::echo").unwrap();
    });
}

/// A reader that does not read holds the writer up after a window, and hears everything once it reads.
#[test]
fn a_stream_waits_for_its_reader() {
    both_ways(|callee, caller| {
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let function = Function::stream("tokens::count", move |_, _, _, output| {
            for number in 0..300u32 {
                output.send(item(number))?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Message::empty())
        });
        serve(callee, caller, function);
        let call = caller.handle("tokens::count").stream(&Message::empty(), &CallOptions::new()).unwrap();
        until("the window is full", || sent.load(Ordering::Relaxed) == 32);
        // Nothing to wait for: what must not happen does not.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(sent.load(Ordering::Relaxed), 32, "a window of items and no more");
        for number in 0..300u32 {
            assert_eq!(call.recv().unwrap().unwrap().body(), number.to_le_bytes());
        }
        assert!(call.recv().unwrap().is_none());
        call.end().unwrap();
        callee.unregister("tokens::count").unwrap();
    });
}

#[test]
fn items_of_a_stream_may_be_large() {
    both_ways(|callee, caller| {
        let function = Function::stream("blobs::echo", |_, _, input, output| {
            while let Some(item) = input.recv()? {
                output.send(Message::bytes(item.body()))?;
            }
            Ok(Message::empty())
        });
        serve(callee, caller, function);
        let mut call = caller.handle("blobs::echo").stream(&Message::empty(), &CallOptions::new()).unwrap();
        for round in 0..20u8 {
            let len = if round % 2 == 0 { 300_000 } else { 10 };
            call.send(Message::from_vec(Encoding::Bytes, vec![round; len])).unwrap();
        }
        call.finish();
        for round in 0..20u8 {
            let item = call.recv().unwrap().unwrap();
            let len = if round % 2 == 0 { 300_000 } else { 10 };
            assert!(item.body().len() == len && item.body().iter().all(|byte| *byte == round), "{round}");
        }
        call.end().unwrap();
        callee.unregister("blobs::echo").unwrap();
    });
}

#[test]
fn a_call_that_is_dropped_is_cancelled_at_the_other_end() {
    both_ways(|callee, caller| {
        let (begun, cancelled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let wait = {
            let (begun, cancelled) = (Arc::clone(&begun), Arc::clone(&cancelled));
            move |context: &Context| {
                begun.fetch_add(1, Ordering::Relaxed);
                while !context.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                cancelled.fetch_add(1, Ordering::Relaxed);
                Ok(Message::empty())
            }
        };
        let counts = (Arc::clone(&begun), Arc::clone(&cancelled));
        let function = Function::raw_async("slow::wait", move |context, _| {
            let (begun, cancelled) = (Arc::clone(&counts.0), Arc::clone(&counts.1));
            async move {
                begun.fetch_add(1, Ordering::Relaxed);
                let _dropped_or_told = Counts(cancelled);
                context.cancel_token().cancelled().await;
                Ok(Message::empty())
            }
        });
        serve(callee, caller, function);
        let polls = wait.clone();
        serve(callee, caller, Function::raw("slow::poll", move |context, _| polls(context)).pooled());
        serve(callee, caller, Function::stream("slow::stream", move |context, _, _, _| wait(context)));
        let options = CallOptions::new().timeout(PATIENCE * 3);
        let is_over = |count: usize, what: &str| {
            until(what, || cancelled.load(Ordering::Relaxed) == count);
        };
        for (count, id) in [(1, "slow::poll"), (2, "slow::wait")] {
            let pending = caller.handle(id).start(&Message::empty(), &options).unwrap();
            until("it has begun", || begun.load(Ordering::Relaxed) == count);
            drop(pending);
            is_over(count, id);
        }
        let call = caller.handle("slow::stream").stream(&Message::empty(), &options).unwrap();
        until("it has begun", || begun.load(Ordering::Relaxed) == 3);
        drop(call);
        is_over(3, "slow::stream");
        for id in ["slow::wait", "slow::poll", "slow::stream"] {
            callee.unregister(id).unwrap();
        }
    });
}

/// Counts when it is dropped.
struct Counts(Arc<AtomicUsize>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn deadlines_reach_the_handler_and_end_the_call() {
    both_ways(|callee, caller| {
        let function = Function::json("deadline::left", |context, _: Value| {
            Ok(context.remaining().map(|left| left.as_secs()))
        });
        serve(callee, caller, function);
        let options = CallOptions::new().timeout(Duration::from_secs(1000));
        let told = caller.trigger_json_with("deadline::left", &json!(null), &options).unwrap();
        let left = told.as_u64().unwrap();
        assert!((900..=1000).contains(&left), "{left} s of 1000 are left");
        let cancelled = Arc::new(AtomicUsize::new(0));
        let hears = Arc::clone(&cancelled);
        let function = Function::json("deadline::pass", move |context, _: Value| {
            while !context.is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
            hears.fetch_add(1, Ordering::Relaxed);
            Ok(0)
        });
        serve(callee, caller, function.pooled());
        let options = CallOptions::new().timeout(Duration::from_millis(60));
        let error = caller.trigger_json_with("deadline::pass", &json!(null), &options).unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error}");
        until("the handler hears of it", || cancelled.load(Ordering::Relaxed) == 1);
        for id in ["deadline::left", "deadline::pass"] {
            callee.unregister(id).unwrap();
        }
    });
}

#[test]
fn sends_arrive_and_nobody_waits() {
    both_ways(|callee, caller| {
        let sum = Arc::new(AtomicU64::new(0));
        let adds = Arc::clone(&sum);
        let function = Function::json("sends::add", move |_, number: u64| {
            adds.fetch_add(number, Ordering::Relaxed);
            Ok(())
        });
        serve(callee, caller, function);
        for number in 1..=1000u64 {
            caller.send_json("sends::add", &json!(number)).unwrap();
        }
        until("all have arrived", || sum.load(Ordering::Relaxed) == 500_500);
        callee.unregister("sends::add").unwrap();
    });
}

#[test]
fn attachments_of_any_number_arrive_in_order() {
    both_ways(|callee, caller| {
        let function = Function::raw("tensors::swap", |context, request| {
            let mut reply = Message::new(Encoding::Bytes, request.body());
            for attachment in request.attachments().iter().rev() {
                let mut loan = context.worker().loan(attachment.payload().len().try_into().unwrap())?;
                loan.copy_from_slice(attachment.payload());
                let payload = loan.freeze().into();
                reply = reply.attach(match attachment.dtype() {
                    DType::Opaque => Attachment::bytes(payload),
                    dtype => Attachment::tensor(payload, dtype, attachment.shape())?,
                });
            }
            Ok(reply)
        });
        serve(callee, caller, function);
        for (count, each) in [(1, 8), (5, 64), (40, 1000), (200, 4), (250, 4096), (30, 100_000)] {
            let mut request = Message::bytes(b"all of them");
            for at in 0..count {
                let mut loan = caller.loan(each).unwrap();
                loan.fill(u8::try_from(at).unwrap());
                let shape = [2, each as u64 / 8];
                let payload = loan.freeze().into();
                request = request.attach(if each % 8 == 0 {
                    Attachment::tensor(payload, DType::F32, &shape).unwrap()
                } else {
                    Attachment::bytes(payload)
                });
            }
            let reply = caller.handle("tensors::swap").call(&request).unwrap();
            assert_eq!((reply.body(), reply.attachments().len()), (&b"all of them"[..], count));
            for (attachment, at) in reply.attachments().iter().zip((0..count).rev()) {
                let value = u8::try_from(at).unwrap();
                assert!(attachment.payload().len() == each as u64);
                assert!(attachment.payload().iter().all(|byte| *byte == value), "{count} × {each}: {at}");
                if each % 8 == 0 {
                    assert_eq!(attachment.dtype(), DType::F32);
                    assert_eq!(attachment.shape(), [2, each as u64 / 8]);
                }
            }
        }
        callee.unregister("tensors::swap").unwrap();
    });
}

#[test]
fn metadata_and_baggage_go_along() {
    both_ways(|callee, caller| {
        let function = Function::json("meta::tell", |context, _: Value| {
            let baggage = context.baggage().map(Baggage::format);
            Ok(json!([context.metadata(), baggage]))
        });
        serve(callee, caller, function);
        for long in [1, 40_000] {
            let metadata = json!({"tenant": "t".repeat(long)});
            let baggage = Baggage::parse("region=eu,tier=gold").unwrap();
            let options = CallOptions::new().metadata(metadata.clone()).baggage(baggage);
            let told = caller.trigger_json_with("meta::tell", &json!(1), &options).unwrap();
            assert_eq!(told[0], metadata);
            assert!(told[1].as_str().unwrap().contains("tier=gold"), "{told}");
        }
        callee.unregister("meta::tell").unwrap();
    });
}

#[test]
fn a_handler_that_panics_or_fails_says_so_and_the_next_call_is_served() {
    both_ways(|callee, caller| {
        let function = Function::json("odd::only", |_, number: u64| match number {
            13 => panic!("unlucky"),
            even if even % 2 == 0 => Err(Failure::invalid(format!("{even} is even"))),
            odd => Ok(odd),
        });
        serve(callee, caller, function);
        for _ in 0..3 {
            let error = caller.trigger_json("odd::only", &json!(13)).unwrap_err();
            assert_eq!(error.code, ErrorCode::HandlerPanicked, "{error}");
            assert!(error.message.contains("unlucky"), "{error}");
            let error = caller.trigger_json("odd::only", &json!(4)).unwrap_err();
            assert_eq!((error.code, &*error.message), (ErrorCode::InvalidRequest, "4 is even"));
            assert_eq!(caller.trigger_json("odd::only", &json!(7)).unwrap(), json!(7));
        }
        callee.unregister("odd::only").unwrap();
    });
}

#[test]
fn nested_and_mutually_recursive_calls_end() {
    for stage in Stage::all(&Grant::everything()) {
        let (local, remote) = (stage.local("local"), stage.remote("remote"));
        let down = |next: &'static str| {
            move |context: &Context, depth: u64| -> Result<u64, Failure> {
                if depth == 0 {
                    return Ok(0);
                }
                let told = context.worker().trigger_json(next, &json!(depth - 1))?;
                Ok(told.as_u64().unwrap() + 1)
            }
        };
        local.register(Function::json("ping::down", down("pong::down")).pooled()).unwrap();
        remote.register(Function::json("pong::down", down("ping::down")).pooled()).unwrap();
        wait_for(&local, "pong::down");
        wait_for(&remote, "ping::down");
        std::thread::scope(|scope| {
            for worker in [&local, &remote] {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for depth in [0, 1, 2, 9] {
                            let told = worker.trigger_json("ping::down", &json!(depth)).unwrap();
                            assert_eq!(told, json!(depth));
                        }
                    });
                }
            }
        });
    }
}
