//! Slow subscribers, full queues, and what was said before one came.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::stage::Stage;

/// One message is with the function, which is held up; the rest wait.
fn slow(on_full: &str) -> Stage {
    let stage = Stage::new();
    stage.subscribe("slow", json!({"topic": "t", "queue_max": 2, "on_full": on_full})).unwrap();
    stage.diary.hold("slow", true);
    stage.publish("t", json!(0));
    stage.diary.of("slow", 1);
    stage
}

#[test]
fn a_slow_subscriber_delays_nobody_and_loses_what_its_trigger_says() {
    for (on_full, expected) in [("drop_oldest", [0, 3, 4]), ("drop_newest", [0, 1, 2])] {
        let stage = slow(on_full);
        stage.subscribe("quick", json!({"topic": "t"})).unwrap();
        for number in 1..=4 {
            stage.publish("t", json!(number));
        }
        assert_eq!(stage.diary.of("quick", 4), [1, 2, 3, 4]);
        assert_eq!(stage.until("slow", |found| found["waiting"] == 2)["dropped"], 2, "{on_full}");
        stage.diary.hold("slow", false);
        assert_eq!(stage.diary.of("slow", 3), expected, "{on_full}");
        stage.until("slow", |found| found["delivered"] == 3 && found["waiting"] == 0);
    }
}

#[test]
fn publishers_wait_for_a_subscriber_that_blocks_and_keep_their_order() {
    let stage = slow("block");
    stage.publish("t", json!(1));
    stage.publish("t", json!(2));
    let handle = stage.worker.handle("publish");
    let start = |number: u64| {
        let message = ringway::Message::json(&json!({"topic": "t", "data": number})).unwrap();
        handle.start(&message, &ringway::CallOptions::new()).unwrap()
    };
    let blocked = [start(3), start(4)];
    let (told, tells) = mpsc::channel();
    let waiter = thread::spawn(move || {
        for blocked in blocked {
            blocked.wait().unwrap();
            told.send(()).unwrap();
        }
    });
    // Nothing else can come before a function goes on.
    stage.until("slow", |found| found["waiting"] == 2);
    assert!(tells.recv_timeout(Duration::from_millis(50)).is_err());
    stage.diary.hold("slow", false);
    assert_eq!(stage.diary.of("slow", 5), [0, 1, 2, 3, 4]);
    waiter.join().unwrap();
    assert_eq!(tells.iter().count(), 2);
    assert_eq!(stage.until("slow", |found| found["delivered"] == 5)["dropped"], 0);
}

#[test]
fn a_publisher_that_gives_up_takes_its_message_back() {
    let stage = slow("block");
    stage.publish("t", json!(1));
    stage.publish("t", json!(2));
    let options = ringway::CallOptions::new().timeout(Duration::from_millis(20));
    let late = json!({"topic": "t", "data": "too late"});
    stage.worker.trigger_json_with("publish", &late, &options).unwrap_err();
    // Its handler is dropped when it hears of that; a further one then waits alone.
    stage.until("slow", |found| found["blocked"] == 0);
    stage.diary.hold("slow", false);
    stage.until("slow", |found| found["delivered"] == 3);
    stage.publish("t", json!(3));
    assert_eq!(stage.diary.of("slow", 4), [0, 1, 2, 3]);
}

#[test]
fn the_last_messages_are_replayed_to_those_who_ask() {
    let stage = Stage::new();
    for number in 0..10 {
        stage.publish(if number % 2 == 0 { "n.even" } else { "n.odd" }, json!(number));
    }
    stage.subscribe("none", json!({"topic": "n.*"})).unwrap();
    stage.subscribe("some", json!({"topic": "n.*", "replay": 3})).unwrap();
    stage.subscribe("even", json!({"topic": "n.even", "replay": 100})).unwrap();
    stage.publish("n.even", json!(10));
    assert_eq!(stage.diary.of("some", 4), [7, 8, 9, 10]);
    // Four of each topic are kept.
    assert_eq!(stage.diary.of("even", 5), [2, 4, 6, 8, 10]);
    assert_eq!(stage.diary.of("none", 1), [10]);
}

#[test]
fn a_subscription_that_is_bound_anew_keeps_what_waits_and_its_turn() {
    let stage = slow("drop_oldest");
    stage.publish("t", json!(1));
    stage.publish("t", json!(2));
    stage.bind("slow", json!({"topic": "t", "queue_max": 10, "replay": 4})).unwrap();
    stage.publish("t", json!(3));
    let found = stage.until("slow", |found| found["waiting"].as_u64() >= Some(3));
    assert_eq!((&found["waiting"], &found["delivering"]), (&json!(3), &json!(true)));
    // The first is still with the function, so the second is not there yet, nor is any that was replayed.
    assert_eq!(stage.diary.of("slow", 1), [0]);
    stage.diary.hold("slow", false);
    assert_eq!(stage.until("slow", |found| found["delivered"] == 4)["dropped"], 0);
    assert_eq!(stage.diary.of("slow", 4), [0, 1, 2, 3]);
    // Fewer may wait from now on: the oldest go.
    stage.diary.hold("slow", true);
    for number in 4..=8 {
        stage.publish("t", json!(number));
    }
    stage.diary.of("slow", 5);
    stage.bind("slow", json!({"topic": "t", "queue_max": 2})).unwrap();
    assert_eq!(stage.until("slow", |found| found["waiting"] == 2)["dropped"], 2);
    stage.diary.hold("slow", false);
    assert_eq!(stage.diary.of("slow", 7), [0, 1, 2, 3, 4, 7, 8]);
}

#[test]
fn publishers_who_wait_are_let_in_when_a_subscription_is_bound_anew() {
    for on_full in ["block", "drop_newest"] {
        let stage = slow("block");
        stage.publish("t", json!(1));
        stage.publish("t", json!(2));
        let worker = stage.worker.clone();
        let blocked = thread::spawn(move || {
            worker.trigger_json("publish", &json!({"topic": "t", "data": 3})).unwrap();
        });
        stage.until("slow", |found| found["blocked"] == 1);
        stage.bind("slow", json!({"topic": "t", "queue_max": 3, "on_full": on_full})).unwrap();
        blocked.join().unwrap();
        assert_eq!(stage.until("slow", |found| found["waiting"] == 3)["blocked"], 0);
        stage.diary.hold("slow", false);
        assert_eq!(stage.diary.of("slow", 4), [0, 1, 2, 3], "{on_full}");
    }
}

#[test]
fn nothing_is_lost_or_doubled_while_a_subscription_is_bound_anew() {
    const MESSAGES: usize = 400;
    let stage = Stage::new();
    let config = |queue_max: usize| json!({"topic": "flow.#", "queue_max": queue_max, "replay": 4});
    stage.subscribe("moving", config(100_000)).unwrap();
    let worker = stage.worker.clone();
    let publisher = thread::spawn(move || {
        for number in 0..MESSAGES {
            worker.trigger_json("publish", &json!({"topic": "flow.on", "data": number})).unwrap();
        }
    });
    for round in 1..=40 {
        stage.bind("moving", config(100_000 + round % 2)).unwrap();
    }
    publisher.join().unwrap();
    stage.until("moving", |found| found["waiting"] == 0 && found["delivering"] == false);
    let expected: Vec<usize> = (0..MESSAGES).collect();
    assert_eq!(stage.diary.of("moving", MESSAGES), expected);
}

#[test]
fn a_refused_change_ends_the_subscription_and_says_so() {
    let stage = Stage::new();
    stage.subscribe("changes", json!({"topic": "t"})).unwrap();
    let refused = stage.bind("changes", json!({"topic": "a.#.b"})).unwrap_err();
    assert!(refused.message.contains("the rest"), "{refused}");
    stage.until_gone("changes");
    stage.bind("changes", json!({"topic": "t"})).unwrap();
    stage.publish("t", json!(1));
    assert_eq!(stage.diary.of("changes", 1), [1]);
}
