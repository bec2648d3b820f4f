//! Topics, wildcards, queues and conditions, as publishers and subscribers see them.

use std::sync::{Arc, mpsc};
use std::thread;

use ringway::{CallOptions, Context, Failure, Function, SpanId, TraceContext, TraceId, Worker};
use serde_json::{Value, json};

use crate::stage::Stage;

#[test]
fn a_message_goes_to_all_who_want_its_topic_as_it_is() {
    let stage = Stage::new();
    for (name, topic) in
        [("exact", "orders.new"), ("one", "orders.*"), ("rest", "#"), ("other", "orders/new")]
    {
        stage.subscribe(name, json!({ "topic": topic })).unwrap();
    }
    let answer = stage
        .worker
        .trigger_json("publish", &json!({"topic": "orders.new", "data": {"n": [1, null]}}))
        .unwrap();
    assert_eq!(answer, Value::Null);
    stage.publish("orders/new", json!("slash"));
    stage.publish("elsewhere", Value::Null);
    let first = json!({"n": [1, null]});
    assert_eq!(stage.diary.of("exact", 1), std::slice::from_ref(&first));
    assert_eq!(stage.diary.of("one", 1), std::slice::from_ref(&first));
    assert_eq!(stage.diary.of("rest", 3), [first, json!("slash"), Value::Null]);
    assert_eq!(stage.diary.of("other", 1), [json!("slash")]);
    let counted = |name: &str| stage.until(name, |found| found["delivering"] == false)["delivered"].clone();
    assert_eq!([counted("exact"), counted("one"), counted("rest"), counted("other")], [1, 1, 3, 1]);
}

#[test]
fn one_who_leaves_takes_nobody_along() {
    let stage = Stage::new();
    stage.subscribe("stays", json!({"topic": "news"})).unwrap();
    stage.subscribe("leaves", json!({"topic": "news"})).unwrap();
    stage.publish("news", json!(1));
    stage.diary.of("leaves", 1);
    stage.worker.unregister_trigger("leaves").unwrap();
    stage.until_gone("leaves");
    stage.publish("news", json!(2));
    assert_eq!(stage.diary.of("stays", 2), [1, 2]);
    assert_eq!(stage.diary.of("leaves", 1), [1]);
}

#[test]
fn conditions_are_asked() {
    let stage = Stage::new();
    stage.subscribe("large", json!({"topic": "sizes", "condition": "event > 10"})).unwrap();
    stage.subscribe("asks", json!({"topic": "sizes", "condition_function_id": "test::is_even"})).unwrap();
    let is_even = |_: &_, number: u64| Ok(number.is_multiple_of(2));
    stage.worker.register(ringway::Function::json("test::is_even", is_even)).unwrap();
    for number in [5, 12, 11, 4] {
        stage.publish("sizes", json!(number));
    }
    assert_eq!(stage.diary.of("large", 2), [12, 11]);
    assert_eq!(stage.diary.of("asks", 2), [12, 4]);
    let done = |name: &str| stage.until(name, |found| found["skipped"] == 2 && found["delivered"] == 2);
    assert_eq!((&done("large")["failed"], &done("asks")["failed"]), (&json!(0), &json!(0)));
}

#[test]
fn each_subscriber_sees_each_publisher_in_order() {
    let stage = Stage::new();
    for name in ["a", "b"] {
        stage.subscribe(name, json!({"topic": "flow.#", "queue_max": 100_000})).unwrap();
    }
    let address = Arc::new(stage.address.clone());
    let publishers = ["x", "y"].map(|publisher| {
        let address = Arc::clone(&address);
        thread::spawn(move || {
            let worker = Worker::builder(publisher).address(address.as_str()).connect().unwrap();
            worker.wait_for("publish", std::time::Duration::from_secs(30)).unwrap();
            for number in 0..500 {
                worker
                    .send_json("publish", &json!({"topic": "flow.x", "data": [publisher, number]}))
                    .unwrap();
            }
            // A call comes after what was sent before.
            worker.trigger_json("publish", &json!({"topic": "flow.y", "data": [publisher, 500]})).unwrap();
        })
    });
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    let (a, b) = (stage.diary.of("a", 1002), stage.diary.of("b", 1002));
    for publisher in ["x", "y"] {
        let numbers: Vec<u64> =
            a.iter().filter(|found| found[0] == publisher).map(|found| found[1].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..=500).collect::<Vec<_>>(), "{publisher}");
    }
    assert_eq!(a, b, "one order for all");
}

#[test]
fn what_does_not_fit_is_refused_with_a_reason() {
    let stage = Stage::new();
    for request in [json!({"data": 1}), json!({"topic": "", "data": 1})] {
        let refused = stage.worker.trigger_json("publish", &request).unwrap_err();
        assert_eq!(refused.user_code.as_deref(), Some("topic_not_set"), "{refused}");
    }
    for (config, words) in [
        (json!({}), "topic"),
        (json!({"topic": ""}), "empty"),
        (json!({"topic": "a.#.b"}), "the rest"),
        (json!({"topic": "a", "queue_max": 0}), "queue_max"),
        (json!({"topic": "a", "on_full": "explode"}), "explode"),
        (json!({"topic": "a", "tpoic": "b"}), "tpoic"),
    ] {
        let refused = stage.subscribe("refused", config.clone()).unwrap_err();
        assert!(refused.message.contains(words), "{config}: {refused}");
    }
}

#[test]
fn what_subscribers_do_belongs_to_the_trace_of_who_published() {
    let stage = Stage::new();
    let (tell, told) = mpsc::channel();
    let hear = move |context: &Context, _: Value| {
        tell.send(context.trace().trace_id).map_err(|_| Failure::new("nobody listens"))
    };
    stage.worker.register(Function::json("test::traced", hear)).unwrap();
    stage.bind("traced", json!({"topic": "news"})).unwrap();
    for number in [1, 2] {
        let trace_id = TraceId::from_bytes([number; 16]);
        let parent = TraceContext { trace_id, span_id: SpanId::from_bytes([number; 8]), flags: 1 };
        let options = CallOptions::new().parent(parent);
        stage.worker.trigger_json_with("publish", &json!({"topic": "news"}), &options).unwrap();
        assert_eq!(told.recv_timeout(std::time::Duration::from_secs(30)), Ok(trace_id));
    }
}
