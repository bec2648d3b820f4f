//! Triggers of type `stream`: payload, filters, order, retries, restarts, what happened meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use ringway::{Failure, Function};
use ringway_worker_stream::Config;
use serde_json::{Value, json};

use crate::bed::{Bed, NOW_MS, PATIENCE, bind, hear, hear_traced, in_trace};

const HEAR: &str = "listener::hear";

fn data(told: &mpsc::Receiver<Value>) -> Value {
    told.recv_timeout(PATIENCE).unwrap()["event"]["data"].clone()
}

#[test]
fn a_function_is_told_in_the_shape_that_clients_know() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    let told = hear(&listener, HEAR);
    bind(&listener, "t", "stream", HEAR, json!({"stream_name": "s", "group_id": "g"})).unwrap();
    bed.call("append", json!({"stream_name": "s", "group_id": "other", "data": 1}));
    bed.call("append", json!({"stream_name": "t", "group_id": "g", "data": 1}));
    bed.set("k", json!(1));
    bed.set("k", json!(2));
    bed.delete("k");
    bed.delete("k");
    bed.call("send", json!({"stream_name": "s", "group_id": "g", "id": "k", "type": "x", "data": 3}));
    bed.append(json!(4));
    let wrapper = |sequence: u64, id: Value, event: Value| {
        json!({
            "type": "stream", "timestamp": NOW_MS, "streamName": "s", "groupId": "g", "id": id, "event": event,
            "sequence": sequence,
        })
    };
    for expected in [
        wrapper(1, json!("k"), json!({"type": "create", "data": 1})),
        wrapper(2, json!("k"), json!({"type": "update", "data": 2})),
        wrapper(3, json!("k"), json!({"type": "delete", "data": 2})),
        wrapper(4, json!("k"), json!({"type": "event", "event": {"type": "x", "data": 3}})),
        wrapper(5, json!(null), json!({"type": "append", "data": 4})),
    ] {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), expected);
    }
}

#[test]
fn filters_and_conditions_choose() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    let by_item = hear(&listener, "listener::item");
    let by_expression = hear(&listener, "listener::expression");
    let by_function = hear(&listener, "listener::function");
    let everywhere = hear(&listener, "listener::everywhere");
    listener
        .register(Function::json("listener::even", |_, told: Value| {
            Ok(told["event"]["data"].as_u64().unwrap_or(1).is_multiple_of(2))
        }))
        .unwrap();
    let bind = |id: &str, function: &str, config: Value| bind(&listener, id, "stream", function, config);
    bind("i", "listener::item", json!({"stream_name": "s", "item_id": "k"})).unwrap();
    bind("e", "listener::expression", json!({"stream_name": "s", "condition": "event.data > 2"})).unwrap();
    bind("f", "listener::function", json!({"condition_function_id": "listener::even"})).unwrap();
    bind("a", "listener::everywhere", json!({})).unwrap();
    for n in 1..=4 {
        bed.set(if n == 3 { "k" } else { "other" }, json!(n));
    }
    let heard = |told: &mpsc::Receiver<Value>, count: usize| {
        (0..count).map(|_| data(told).as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(heard(&everywhere, 4), [1, 2, 3, 4]);
    assert_eq!(heard(&by_expression, 2), [3, 4]);
    assert_eq!(heard(&by_function, 2), [2, 4]);
    assert_eq!(heard(&by_item, 1), [3]);
    bed.wait_until("lanes end", || bed.info()["worker"]["triggers"]["telling"] == 0);
    assert_eq!(bed.info()["worker"]["delivered"], 4 + 2 + 2 + 1, "those that a function did not want count");
    for told in [by_item, by_expression, by_function, everywhere] {
        assert!(told.try_recv().is_err(), "told of what it did not want");
    }
}

#[test]
fn a_wrong_trigger_is_refused_where_it_is_made() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    let check = |kind: &str, config: Value, words: &str| {
        let error = bind(&listener, "t", kind, HEAR, config).unwrap_err();
        assert!(error.message.contains(words), "{error}");
    };
    for kind in ["stream", "stream:join", "stream:leave"] {
        check(kind, json!({"stream_name": 7}), "`stream_name`");
        check(kind, json!([]), "an object");
        check(kind, json!({"condition": "data =="}), "data ==");
    }
    // One without a stream's name watches all of them, and the worker lives.
    let told = hear(&listener, HEAR);
    bind(&listener, "t", "stream", HEAR, Value::Null).unwrap();
    bed.append(json!(1));
    assert_eq!(data(&told), json!(1));
}

#[test]
fn each_group_is_told_in_order_under_many_writers() {
    const EACH: usize = 40;
    let bed = Bed::new();
    let listener = bed.another("listener");
    let told = hear(&listener, HEAR);
    bind(&listener, "t", "stream", HEAR, json!({"stream_name": "s"})).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let bed = &bed;
            scope.spawn(move || {
                for n in 0..EACH {
                    let group = (n % 3).to_string();
                    bed.call("append", json!({"stream_name": "s", "group_id": group, "data": writer}));
                }
            });
        }
    });
    let mut last = std::collections::HashMap::new();
    for _ in 0..4 * EACH {
        let told = told.recv_timeout(PATIENCE).unwrap();
        let sequence = told["sequence"].as_u64().unwrap();
        let before = last.insert(told["groupId"].to_string(), sequence).unwrap_or(0);
        assert_eq!(sequence, before + 1, "out of order");
    }
}

#[test]
fn a_function_that_fails_is_called_again_and_holds_up_no_other_group() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    let (tell, told) = mpsc::channel();
    let calls = AtomicUsize::new(0);
    let fails_twice = move |_: &ringway::Context, event: Value| {
        if event["groupId"] == "g" && calls.fetch_add(1, Ordering::SeqCst) < 2 {
            return Err(Failure::new("not yet"));
        }
        tell.send(event["event"]["data"].clone()).map_err(|_| Failure::new("nobody listens"))
    };
    listener.register(Function::json(HEAR, fails_twice)).unwrap();
    bind(&listener, "t", "stream", HEAR, json!({"stream_name": "s"})).unwrap();
    bed.append(json!(1));
    bed.append(json!(2));
    bed.call("append", json!({"stream_name": "s", "group_id": "other", "data": "other"}));
    let next = || told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(next(), json!("other"));
    for (failures, at_ms) in [(1, 100), (2, 300)] {
        bed.wait_until("it fails", || bed.info()["worker"]["attempts_failed"] == failures);
        bed.clock.set(NOW_MS + at_ms);
    }
    assert_eq!((next(), next()), (json!(1), json!(2)));
}

#[test]
fn entries_outlive_a_restart_and_find_the_trigger_again() {
    let mut bed = Bed::new();
    let listener = bed.another("listener");
    let works = Arc::new(AtomicBool::new(false));
    let (tell, told) = mpsc::channel();
    let working = Arc::clone(&works);
    let hear = move |_: &ringway::Context, event: Value| {
        if event["event"]["data"] != json!(0) && !working.load(Ordering::SeqCst) {
            return Err(Failure::new("not before the restart"));
        }
        tell.send(event["event"]["data"].clone()).map_err(|_| Failure::new("nobody listens"))
    };
    listener.register(Function::json(HEAR, hear)).unwrap();
    bed.append(json!("before it was bound"));
    bind(&listener, "first", "stream", HEAR, json!({"stream_name": "s", "group_id": "g"})).unwrap();
    for n in 0..5 {
        bed.append(json!(n));
    }
    bed.wait_until("one fails", || bed.info()["worker"]["attempts_failed"] == 1);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), json!(0));
    bed.stop();
    listener.unregister_trigger("first").unwrap();
    works.store(true, Ordering::SeqCst);
    bed.start();
    // What happens while nobody binds it is not lost either.
    bed.append(json!(5));
    assert!(told.try_recv().is_err(), "told without a trigger");
    // Another id and another order of fields, as an SDK may choose them at each start.
    bind(&listener, "second", "stream", HEAR, json!({"group_id": "g", "stream_name": "s"})).unwrap();
    for n in 1..=5 {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), json!(n), "told again, or not at all");
    }
    bed.wait_until("lanes end", || bed.info()["worker"]["triggers"]["telling"] == 0);
    assert!(told.try_recv().is_err());
}

#[test]
fn an_entry_that_nobody_takes_is_set_aside_in_the_end_and_the_next_is_told() {
    let bed = Bed::with(Config { trigger_retention_ms: 5000, ..Config::default() });
    let listener = bed.another("listener");
    bind(&listener, "t", "stream", HEAR, json!({"stream_name": "s"})).unwrap();
    bed.append(json!(1));
    bed.wait_until("it fails", || bed.info()["worker"]["attempts_failed"] == 1);
    bed.clock.set(NOW_MS + 5000);
    bed.wait_until("it is set aside", || bed.count("stream.undelivered") == 1);
    assert_eq!(bed.info()["worker"]["set_aside"], 1);
    let told = hear(&listener, HEAR);
    listener.wait_for(HEAR, PATIENCE).unwrap();
    bed.append(json!(2));
    // The worker may hear of the function later than the listener does.
    let mut now_ms = NOW_MS + 5000;
    let heard = loop {
        match told.recv_timeout(std::time::Duration::from_millis(50)) {
            Ok(event) => break event,
            Err(_) => {
                now_ms += 10;
                bed.clock.set(now_ms);
            }
        }
    };
    assert_eq!(heard["event"]["data"], json!(2));
}

#[test]
fn triggers_can_be_switched_off() {
    let bed = Bed::with(Config { triggers_enabled: false, ..Config::default() });
    let listener = bed.another("listener");
    let told = hear(&listener, HEAR);
    bind(&listener, "t", "stream", HEAR, json!({})).unwrap();
    bed.append(json!(1));
    assert_eq!(bed.info()["worker"]["triggers"], json!({"bound": 0, "remembered": 0, "telling": 0}));
    assert!(told.try_recv().is_err());
}

#[test]
fn what_is_told_belongs_to_the_trace_of_who_wrote_it() {
    let mut bed = Bed::new();
    let listener = bed.another("listener");
    let told = hear_traced(&listener, HEAR);
    bind(&listener, "t", "stream", HEAR, json!({"stream_name": "s"})).unwrap();
    let caller = bed.another("caller");
    let write = |function: &str, value: u8| {
        let (options, trace_id) = in_trace(value);
        let request = json!({"stream_name": "s", "group_id": "g", "item_id": "k", "data": value});
        caller.trigger_json_with(&format!("stream::{function}"), &request, &options).unwrap();
        trace_id
    };
    for (function, value, data) in [("set", 1, 1), ("append", 2, 2), ("delete", 3, 1)] {
        let trace_id = write(function, value);
        let (event, found) = told.next();
        assert_eq!((&event["event"]["data"], found), (&json!(data), trace_id), "{function}");
    }
    // What waits over a restart belongs there just as well.
    told.works(false);
    let last = write("append", 4);
    bed.stop();
    told.works(true);
    bed.start();
    assert_eq!(told.next().1, last);
}
