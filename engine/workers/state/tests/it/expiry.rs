//! Values with a time to live: absent at that moment, removed by the timer, told as deleted.

use std::sync::mpsc;

use ringway::Function;
use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway_store::Scan;
use serde_json::{Value, json};

use crate::bed::{Bed, NOW_MS, PATIENCE};

/// A worker that passes on what a trigger on scope `s` tells it.
fn listen(bed: &Bed) -> (ringway::Worker, mpsc::Receiver<Value>) {
    let (tell, told) = mpsc::channel();
    let listener = bed.another("listener");
    listener
        .register(Function::json("listener::hear", move |_, event: Value| {
            tell.send(event).unwrap();
            Ok(())
        }))
        .unwrap();
    let mut trigger = TriggerSpec::new("hear", "state", FunctionId::new("listener::hear").unwrap());
    trigger.config = json!({"scope": "s"});
    listener.register_trigger(trigger).unwrap();
    (listener, told)
}

fn entries(bed: &Bed) -> (usize, usize) {
    let count = |table: &str| bed.store().scan(&Scan::table(table)).unwrap().len();
    (count("state"), count("state.expiry"))
}

#[test]
fn a_value_expires_at_its_time_and_is_told_as_deleted() {
    let bed = Bed::new();
    let (_listener, told) = listen(&bed);
    bed.call("set", json!({"scope": "s", "key": "k", "value": 1, "ttl_ms": 1000}));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap()["event_type"], "state:created");
    assert_eq!(entries(&bed), (1, 1));
    bed.clock.set(NOW_MS + 999);
    assert_eq!(bed.get("s", "k"), json!(1));
    let page = bed.call("scan", json!({"scope": "s"}));
    assert_eq!(page["entries"][0]["expires_at_ms"], NOW_MS + 1000);
    bed.clock.set(NOW_MS + 1000);
    assert_eq!(bed.get("s", "k"), Value::Null);
    assert_eq!(bed.call("list", json!({"scope": "s"})), json!([]));
    assert_eq!(bed.call("list_groups", json!({})), json!({"groups": []}));
    assert_eq!(bed.call("scan", json!({"scope": "s"}))["entries"], json!([]));
    let deleted = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&deleted["event_type"], &deleted["old_value"]), (&json!("state:deleted"), &json!(1)));
    assert_eq!(entries(&bed), (0, 0));
}

#[test]
fn a_value_that_is_written_again_has_the_expiry_of_the_last_time() {
    let bed = Bed::new();
    let set = |value: u32, ttl_ms: Option<u64>| {
        bed.call("set", json!({"scope": "s", "key": "k", "value": value, "ttl_ms": ttl_ms}))
    };
    set(1, Some(1000));
    set(2, Some(5000));
    bed.clock.set(NOW_MS + 1000);
    assert_eq!(bed.get("s", "k"), json!(2));
    bed.call(
        "update",
        json!({"scope": "s", "key": "k", "ops": [{"type": "increment", "path": "", "by": 1}]}),
    );
    assert_eq!(entries(&bed), (1, 1));
    bed.clock.set(NOW_MS + 5000);
    assert_eq!(bed.get("s", "k"), Value::Null, "an update took the expiry away");
    set(4, None);
    assert_eq!(entries(&bed), (1, 0));
    bed.clock.set(NOW_MS + 50_000);
    assert_eq!(bed.get("s", "k"), json!(4));
}

#[test]
fn an_expired_value_is_absent_for_writers_too() {
    let bed = Bed::new();
    bed.call("set", json!({"scope": "s", "key": "k", "value": 1, "ttl_ms": 10}));
    bed.clock.set(NOW_MS + 10);
    let set = bed.call("set", json!({"scope": "s", "key": "k", "value": 2, "if_revision": 0}));
    assert_eq!(set["old_value"], Value::Null);
    assert_eq!(bed.get("s", "k"), json!(2));
}

#[test]
fn what_expired_while_nobody_was_there_is_removed_at_the_start() {
    let mut bed = Bed::new();
    for key in 0..10 {
        bed.call("set", json!({"scope": "s", "key": key.to_string(), "value": 1, "ttl_ms": 1000 + key}));
    }
    bed.stop();
    bed.clock.set(NOW_MS + 1004);
    bed.start();
    assert_eq!(bed.call("list", json!({"scope": "s"})).as_array().unwrap().len(), 5);
    let (_listener, told) = listen(&bed);
    bed.clock.set(NOW_MS + 2000);
    for _ in 0..5 {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap()["event_type"], "state:deleted");
    }
    assert_eq!(entries(&bed), (0, 0));
}
