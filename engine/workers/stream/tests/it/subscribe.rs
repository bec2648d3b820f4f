//! Subscriptions: snapshot and events, resuming, slow subscribers, who is let in, who has gone.

use ringway::{CallError, Function};
use ringway_worker_stream::Config;
use serde_json::{Value, json};

use crate::bed::{Bed, NOW_MS, PATIENCE, bind, hear, next};

fn event(stream: &ringway::StreamCall) -> (Value, u64) {
    let told = next(stream);
    (told["event"].clone(), told["sequence"].as_u64().unwrap())
}

fn refused(bed: &Bed, request: Value) -> CallError {
    bed.open("subscribe", request).end().unwrap_err()
}

#[test]
fn a_subscriber_is_given_a_snapshot_then_every_event() {
    let bed = Bed::new();
    bed.set("a", json!(1));
    bed.set("b", json!(2));
    let group = bed.open("subscribe", json!({"subscription_id": "mine"}));
    assert_eq!(
        next(&group),
        json!({"type": "subscribed", "subscription_id": "mine", "after_sequence": null})
    );
    assert_eq!(
        next(&group),
        json!({
            "type": "stream", "timestamp": NOW_MS, "streamName": "s", "groupId": "g", "id": null,
            "event": {"type": "sync", "data": [1, 2]}, "sequence": 2,
        })
    );
    let item = bed.open("subscribe", json!({"id": "b"}));
    assert_eq!(next(&item)["type"], "subscribed");
    assert_eq!(event(&item), (json!({"type": "sync", "data": 2}), 2));
    bed.set("a", json!(3));
    bed.set("b", json!(4));
    bed.call("send", json!({"stream_name": "s", "group_id": "g", "type": "x", "data": 5}));
    bed.delete("b");
    assert_eq!(event(&group), (json!({"type": "update", "data": 3}), 3));
    assert_eq!(event(&group), (json!({"type": "update", "data": 4}), 4));
    assert_eq!(event(&group), (json!({"type": "event", "event": {"type": "x", "data": 5}}), 5));
    assert_eq!(event(&group), (json!({"type": "delete", "data": 4}), 6));
    assert_eq!(event(&item), (json!({"type": "update", "data": 4}), 4));
    assert_eq!(event(&item), (json!({"type": "delete", "data": 4}), 6));
    assert_eq!(bed.call("unsubscribe", json!({"subscription_id": "mine"})), json!({"unsubscribed": true}));
    assert!(group.recv().unwrap().is_none(), "it goes on");
    assert_eq!(bed.call("unsubscribe", json!({"subscription_id": "mine"})), json!({"unsubscribed": false}));
}

#[test]
fn who_comes_back_misses_nothing_and_sees_nothing_twice() {
    let mut bed = Bed::new();
    for n in 1..=5 {
        bed.set("a", json!(n));
    }
    bed.restart();
    bed.set("a", json!(6));
    let resumed = bed.open("subscribe", json!({"after_sequence": 3}));
    assert_eq!(next(&resumed)["after_sequence"], 3);
    for n in 4..=6_u64 {
        assert_eq!(event(&resumed), (json!({"type": "update", "data": n}), n));
    }
    // A number that was never given is of another store, or an older copy.
    let strange = bed.open("subscribe", json!({"after_sequence": 99}));
    assert_eq!(next(&strange)["type"], "subscribed");
    assert_eq!(event(&strange).0["type"], "resync");
    assert_eq!(event(&strange), (json!({"type": "sync", "data": [6]}), 6));
}

#[test]
fn a_slow_subscriber_is_given_a_new_snapshot_and_harms_nobody() {
    let bed = Bed::with(Config { subscriber_lag_max: 50, ..Config::default() });
    let slow = bed.open("subscribe", json!({}));
    assert_eq!(next(&slow)["type"], "subscribed");
    let quick = bed.open("subscribe", json!({}));
    assert_eq!(next(&quick)["type"], "subscribed");
    assert_eq!((event(&slow).1, event(&quick).1), (0, 0));
    // More than its window holds and it may be behind; the other hears each at once.
    for n in 1..=200_u64 {
        bed.set("a", json!(n));
        assert_eq!(event(&quick).1, n);
    }
    let mut last = 0;
    let resync = loop {
        let (event, sequence) = event(&slow);
        if event["type"] == "resync" {
            break event;
        }
        assert_eq!(sequence, last + 1);
        last = sequence;
    };
    assert!(resync["data"]["missed"].as_u64().unwrap() > 50);
    assert_eq!(event(&slow), (json!({"type": "sync", "data": [200]}), 200));
    bed.set("a", json!(201));
    assert_eq!(event(&slow), (json!({"type": "update", "data": 201}), 201));
    assert_eq!(bed.info()["worker"]["resyncs"], 1);
}

#[test]
fn a_subscription_is_known_by_one_id() {
    let bed = Bed::new();
    let first = bed.open("subscribe", json!({"subscription_id": "mine"}));
    assert_eq!(next(&first)["type"], "subscribed");
    let error = refused(&bed, json!({"subscription_id": "mine"}));
    assert!(error.message.contains("already"), "{error}");
    drop(first);
    bed.wait_until("it is forgotten", || bed.info()["worker"]["subscriptions"] == 0);
    let again = bed.open("subscribe", json!({"subscription_id": "mine"}));
    assert_eq!(next(&again)["type"], "subscribed");
}

#[test]
fn functions_of_join_decide_and_those_of_leave_are_told() {
    let bed = Bed::new();
    let listener = bed.another("listener");
    listener
        .register(Function::json("gate::ask", |_, asked: Value| match asked["context"].as_str() {
            Some("friend") => Ok(json!({"unauthorized": false})),
            Some("stranger") => Ok(json!({"unauthorized": true})),
            Some("typing error") => Ok(json!({"unauthorised": true})),
            _ => Err(ringway::Failure::new("who is that")),
        }))
        .unwrap();
    let left = hear(&listener, "gate::left");
    bind(&listener, "j", "stream:join", "gate::ask", json!({"stream_name": "s", "group_id": "g"})).unwrap();
    bind(&listener, "o", "stream:join", "gate::nowhere", json!({"stream_name": "other"})).unwrap();
    bind(&listener, "l", "stream:leave", "gate::left", json!({"condition": "context == 'friend'"})).unwrap();
    for context in ["stranger", "typing error", "nobody"] {
        let error = refused(&bed, json!({"context": context}));
        assert_eq!(error.user_code.as_deref(), Some("STREAM_UNAUTHORIZED"), "{context}: {error}");
    }
    let friend = bed.open("subscribe", json!({"context": "friend", "subscription_id": "f", "id": "k"}));
    assert_eq!(next(&friend)["type"], "subscribed");
    // A gate that is not there keeps everybody out, where it was to be asked.
    let request = json!({"stream_name": "other", "group_id": "g"});
    let request = ringway::Message::json(&request).map_err(ringway::Failure::into_error).unwrap();
    let options = ringway::CallOptions::new().timeout(PATIENCE);
    let other = bed.client.handle("stream::subscribe").stream(&request, &options).unwrap();
    assert_eq!(other.end().unwrap_err().user_code.as_deref(), Some("STREAM_UNAUTHORIZED"));
    drop(friend);
    assert_eq!(
        left.recv_timeout(PATIENCE).unwrap(),
        json!({
            "subscription_id": "f", "stream_name": "s", "group_id": "g", "id": "k", "context": "friend",
        })
    );
    bed.wait_until("it is forgotten", || bed.info()["worker"]["subscriptions"] == 0);
    assert!(left.try_recv().is_err(), "those that were never let in do not leave");
}
