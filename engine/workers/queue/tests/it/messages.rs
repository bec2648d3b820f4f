//! Taking messages: receipts, ids, idempotency, delays, priorities, limits, the queue's modes.

use std::collections::HashSet;
use std::sync::mpsc::channel;

use ringway::{CallOptions, Function, Message, TraceContext};
use ringway_worker_queue::{Clock, Config};
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, next};

#[test]
fn a_message_is_delivered_and_its_receipt_says_so() {
    let stage = Stage::new();
    let given = stage.accept("orders::take");
    let trace: TraceContext = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
    let request = json!({ "queue": "orders", "function_id": "orders::take", "data": { "n": 7 } });
    let options = CallOptions::new().parent(trace);
    let receipt = stage.client.trigger_json_with("queue::enqueue", &request, &options).unwrap();
    let it = next(&given);
    assert_eq!(it.data, json!({ "n": 7 }));
    assert_eq!(it.metadata["message_id"], receipt["id"]);
    assert_eq!((&it.metadata["attempt"], &it.metadata["status"]), (&json!(1), &json!("first")));
    assert_eq!(it.trace_id, trace.trace_id.to_string(), "the attempt belongs to the sender's trace");
    let done = stage.until(receipt["id"].as_str().unwrap(), "done");
    assert_eq!(done["attempts"], 1);
    let unknown = stage.fail("queue::receipt", json!({ "id": "orders:ffff" }));
    assert_eq!(unknown.user_code.as_deref(), Some("NOT_FOUND"));
}

#[test]
fn long_data_arrives_whole() {
    let stage = Stage::new();
    let given = stage.accept("blobs::take");
    let text = "ring".repeat(300_000);
    let id = stage.enqueue(json!({ "queue": "blobs", "function_id": "blobs::take", "data": text }));
    assert_eq!(next(&given).data, json!(text));
    stage.until(&id, "done");
}

#[test]
fn bad_requests_are_refused_and_say_what_was_wanted() {
    let stage = Stage::new();
    let check = |request: Value, word: &str| {
        let error = stage.fail("queue::enqueue", request);
        assert!(error.message.contains(word), "{error}");
    };
    check(json!({ "data": 1 }), "name of a queue");
    check(json!({ "queue": "topic/x" }), "topic/");
    check(json!({ "queue": "a\u{1}" }), "control characters");
    check(json!({ "queue": "a", "priority": 10 }), "0 to 9");
    check(json!({ "queue": "a", "function_id": "no such" }), "white space");
    check(json!({ "queue": "a", "at": "tomorrow" }), "2030-01-31T08:00:00Z");
    check(json!({ "queue": "a", "at": "2030-01-31T08:00:00Z", "delay_ms": 1 }), "both");
    assert_eq!(stage.stats("a")["depth"], 0);
}

#[test]
fn many_at_once_with_one_key_are_one_message() {
    let stage = Stage::new();
    let given = stage.accept("pay::once");
    let request = json!({
        "queue": "pay", "function_id": "pay::once", "data": 1, "idempotency_key": "invoice 7",
    });
    let message = Message::json(&request).unwrap();
    let handle = stage.client.handle("queue::enqueue");
    let calls: Vec<_> = (0..32).map(|_| handle.start(&message, &CallOptions::new()).unwrap()).collect();
    let answers: Vec<Value> =
        calls.into_iter().map(|call| serde_json::from_slice(call.wait().unwrap().body()).unwrap()).collect();
    let ids: HashSet<String> = answers.iter().map(|answer| answer["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer["duplicate"] == false).count(), 1);
    next(&given);
    stage.until(answers[0]["id"].as_str().unwrap(), "done");
    let late = stage.call("queue::enqueue", request);
    assert_eq!((&late["duplicate"], &late["status"]), (&json!(true), &json!("done")));
    assert!(given.try_recv().is_err(), "it was delivered twice");
}

#[test]
fn an_idempotency_key_is_forgotten_after_its_retention() {
    let stage = Stage::with(Config::default(), Clock::manual(1_000_000));
    let given = stage.accept("pay::again");
    let request = json!({
        "queue": "pay", "function_id": "pay::again", "id": "mine", "idempotency_key": "k",
        "idempotency_retention_ms": 5_000,
    });
    assert_eq!(stage.call("queue::enqueue", request.clone())["id"], "mine");
    next(&given);
    stage.until("mine", "done");
    stage.clock.set(stage.clock.now_ms() + 4_999);
    assert_eq!(stage.call("queue::enqueue", request)["duplicate"], true);
    stage.clock.set(stage.clock.now_ms() + 2);
    let other = json!({ "queue": "pay", "function_id": "pay::again", "idempotency_key": "k" });
    assert_eq!(stage.call("queue::enqueue", other)["duplicate"], false);
    next(&given);
}

#[test]
fn delays_and_times_are_kept() {
    let stage = Stage::with(Config::default(), Clock::manual(1_000_000));
    let given = stage.accept("later::run");
    let later = |more: Value| {
        let mut request = json!({ "queue": "later", "function_id": "later::run" });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stage.enqueue(request)
    };
    let second = later(json!({ "delay_ms": 500, "data": 2 }));
    let third = later(json!({ "at": "1970-01-01T00:16:41Z", "data": 3 }));
    later(json!({ "data": 1 }));
    assert_eq!(next(&given).data, 1);
    let receipt = stage.call("queue::receipt", json!({ "id": second }));
    assert_eq!((&receipt["status"], &receipt["due_ms"]), (&json!("delayed"), &json!(1_000_500)));
    stage.clock.set(stage.clock.now_ms() + 499);
    assert_eq!(stage.stats("later")["delayed"], 2);
    stage.clock.set(stage.clock.now_ms() + 1);
    assert_eq!(next(&given).data, 2);
    stage.clock.set(stage.clock.now_ms() + 500);
    assert_eq!(next(&given).data, 3);
    stage.until(&third, "done");
}

#[test]
fn priorities_go_first_and_a_paused_queue_gives_nothing() {
    let stage = Stage::configured(json!({ "vip": { "concurrency": 1 } }));
    let given = stage.accept("vip::serve");
    stage.call("queue::pause", json!({ "queue": "vip" }));
    for (priority, data) in [(0, "d"), (5, "b"), (0, "e"), (9, "a"), (5, "c")] {
        stage.enqueue(
            json!({ "queue": "vip", "function_id": "vip::serve", "priority": priority, "data": data }),
        );
    }
    assert_eq!(stage.stats("vip")["waiting"], 5);
    assert!(given.try_recv().is_err());
    assert_eq!(stage.call("queue::resume", json!({ "queue": "vip" }))["mode"], "active");
    let order: Vec<Value> = (0..5).map(|_| next(&given).data).collect();
    assert_eq!(order, ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_full_queue_refuses_and_a_draining_one_ends_empty() {
    let stage = Stage::configured(json!({ "small": { "max_messages": 2, "concurrency": 1 } }));
    let (go, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let given = Stage::serve(&stage.client, "small::hold", move |_| {
        wait.lock().unwrap().recv().unwrap();
        Ok(Value::Null)
    });
    let request = json!({ "queue": "small", "function_id": "small::hold" });
    stage.enqueue(request.clone());
    next(&given);
    stage.enqueue(request.clone());
    assert_eq!(stage.fail("queue::enqueue", request.clone()).user_code.as_deref(), Some("QUEUE_FULL"));
    let drain = Message::json(&json!({ "queue": "small" })).unwrap();
    let drain = stage.client.handle("queue::drain").start(&drain, &CallOptions::new().timeout(SOON)).unwrap();
    while stage.stats("small")["mode"] != "draining" {
        std::thread::yield_now();
    }
    let refused = stage.fail("queue::enqueue", request.clone());
    assert_eq!(refused.user_code.as_deref(), Some("QUEUE_DRAINING"));
    go.send(()).unwrap();
    go.send(()).unwrap();
    drain.wait().unwrap();
    assert_eq!(stage.stats("small")["depth"], 0);
    stage.call("queue::resume", json!({ "queue": "small" }));
    stage.enqueue(request);
    go.send(()).unwrap();
}

#[test]
fn a_cancelled_message_is_not_delivered_and_a_running_one_is_told() {
    let stage = Stage::configured(json!({ "c": { "concurrency": 1 } }));
    let (told, hears) = channel();
    let slow = Function::json_async("c::slow", move |context: ringway::Context, _: Value| {
        let told = told.clone();
        async move {
            told.send("began").unwrap();
            let _tells = TellsWhenDropped(told);
            context.cancel_token().cancelled().await;
            Ok(Value::Null)
        }
    });
    stage.client.register(slow).unwrap();
    let running = stage.enqueue(json!({ "queue": "c", "function_id": "c::slow" }));
    let waiting = stage.enqueue(json!({ "queue": "c", "function_id": "c::slow" }));
    assert_eq!(hears.recv_timeout(SOON).unwrap(), "began");
    assert_eq!(stage.call("queue::cancel", json!({ "id": waiting }))["cancelled"], true);
    assert_eq!(stage.call("queue::cancel", json!({ "id": running }))["cancelled"], true);
    assert_eq!(hears.recv_timeout(SOON).unwrap(), "ended");
    for id in [running, waiting] {
        stage.until(&id, "cancelled");
        assert_eq!(stage.call("queue::cancel", json!({ "id": id }))["cancelled"], false);
    }
    assert!(hears.try_recv().is_err(), "the cancelled message was delivered");
}

struct TellsWhenDropped(std::sync::mpsc::Sender<&'static str>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        let _nobody_listens = self.0.send("ended");
    }
}

#[test]
fn a_receipt_tells_each_state_and_is_kept_for_an_hour() {
    let stage = Stage::with(Config::default(), Clock::manual(1_000_000));
    let (go, wait) = channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    stage.call("queue::pause", json!({ "queue": "r" }));
    let given = Stage::serve(&stage.client, "r::work", move |_| {
        wait.lock().unwrap().recv().unwrap();
        Ok(Value::Null)
    });
    let id = stage.enqueue(json!({ "queue": "r", "function_id": "r::work", "id": "mine" }));
    assert_eq!(stage.until(&id, "waiting")["attempts"], 0);
    stage.call("queue::resume", json!({ "queue": "r" }));
    next(&given);
    assert_eq!(stage.until(&id, "running")["attempts"], 1);
    go.send(()).unwrap();
    let done = stage.until(&id, "done");
    assert_eq!((&done["attempts"], &done["ended_ms"]), (&json!(1), &json!(1_000_000)));
    stage.clock.set(1_000_000 + 3_600_000);
    stage.until(&id, "done");
    stage.clock.set(1_000_000 + 3_600_001);
    let gone = || stage.client.trigger_json("queue::receipt", &json!({ "id": id })).err();
    let error = loop {
        match gone() {
            Some(error) => break error,
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(error.user_code.as_deref(), Some("NOT_FOUND"));
}
