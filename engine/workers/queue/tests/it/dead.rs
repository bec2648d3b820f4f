//! Attempts that fail: waits, dead letters with the real error, redrive, discard, edit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringway::{CallError, ErrorCode, Failure};
use ringway_worker_queue::{Clock, Config};
use serde_json::{Value, json};

use crate::stage::{Stage, next};

#[test]
fn a_message_that_keeps_failing_is_kept_with_its_error_and_can_live_again() {
    let stage = Stage::configured(json!({ "d": { "max_retries": 2, "backoff_ms": 1 } }));
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let given = Stage::serve(&stage.client, "d::work", move |given| {
        if is_well.load(Ordering::SeqCst) {
            return Ok(Value::Null);
        }
        Err(Failure::with_code("CARD_DECLINED", format!("no money for {}", given.data)))
    });
    let id = stage.enqueue(json!({ "queue": "d", "function_id": "d::work", "data": 7 }));
    let numbers: Vec<Value> = (0..3).map(|_| next(&given).metadata["attempt"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let receipt = stage.until(&id, "dead");
    assert_eq!(receipt["error"], "CARD_DECLINED: no money for 7");
    assert_eq!(receipt["attempts"], 3);

    let list = stage.call("queue::dlq::messages", json!({ "topic": "d" }));
    let dead = &list[0];
    assert_eq!((&dead["id"], &dead["payload"], &dead["retries"]), (&json!(id), &json!(7), &json!(3)));
    assert_eq!(dead["error"], "CARD_DECLINED: no money for 7");
    assert_eq!(dead["attempts"].as_array().unwrap().len(), 3);
    assert_eq!(dead["trace_id"].as_str().unwrap().len(), 32);
    let topics = stage.call("queue::dlq::topics", Value::Null);
    assert_eq!(topics, json!([{ "topic": "d", "broker_type": "ringway", "message_count": 1 }]));

    stage.call("queue::dlq::edit", json!({ "message_id": id, "data": 8 }));
    well.store(true, Ordering::SeqCst);
    let one = json!({ "queue": "d", "message_id": id });
    assert_eq!(stage.call("iii::queue::redrive_message", one.clone())["redriven"], 1);
    let again = next(&given);
    assert_eq!((&again.data, &again.metadata["attempt"]), (&json!(8), &json!(1)));
    stage.until(&id, "done");
    assert_eq!(stage.call("iii::queue::redrive_message", one)["redriven"], 0);
    assert_eq!(stage.stats("d")["dlq_depth"], 0);
    let error = stage.fail("queue::dlq::edit", json!({ "message_id": id, "data": 9 }));
    assert_eq!(error.user_code.as_deref(), Some("NOT_DEAD"));
}

#[test]
fn all_dead_messages_live_again_or_one_is_thrown_away() {
    let stage = Stage::configured(json!({ "d": { "fatal_codes": ["BAD"] } }));
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let given = Stage::serve(&stage.client, "d::work", move |_| {
        if is_well.load(Ordering::SeqCst) { Ok(Value::Null) } else { Err(Failure::with_code("BAD", "x")) }
    });
    let ids: Vec<String> =
        (0..5).map(|n| stage.enqueue(json!({ "queue": "d", "function_id": "d::work", "data": n }))).collect();
    for id in &ids {
        assert_eq!(stage.until(id, "dead")["attempts"], 1, "the code says that no retry helps");
    }
    let discard = json!({ "queue": "d", "message_id": ids[0] });
    assert_eq!(stage.call("iii::queue::discard_message", discard)["redriven"], 1);
    stage.until(&ids[0], "discarded");
    well.store(true, Ordering::SeqCst);
    given.try_iter().for_each(drop);
    assert_eq!(stage.call("iii::queue::redrive", json!({ "topic": "d" }))["redriven"], 4);
    for id in &ids[1..] {
        stage.until(id, "done");
    }
    assert_eq!(given.try_iter().count(), 4);
    let none = stage.fail("iii::queue::redrive", json!({}));
    assert_eq!(none.user_code.as_deref(), Some("queue_not_set"));
}

#[test]
fn the_function_says_how_long_to_wait_and_what_waits_too_long_dies() {
    let stage = Stage::with(Config::default(), Clock::manual(1_000_000));
    let given = Stage::serve(&stage.client, "w::work", |_| {
        let error = CallError::new(ErrorCode::HandlerError, "slow down").with_user_code("LIMIT");
        Err(error.with_details(json!({ "retry_after_ms": 70_000 })).into())
    });
    let id = stage.enqueue(json!({ "queue": "w", "function_id": "w::work", "ttl_ms": 100_000 }));
    next(&given);
    assert_eq!(stage.until(&id, "delayed")["due_ms"], 1_070_000);
    stage.clock.set(stage.clock.now_ms() + 70_000);
    next(&given);
    stage.until(&id, "delayed");
    stage.clock.set(stage.clock.now_ms() + 30_000);
    let receipt = stage.until(&id, "dead");
    assert!(receipt["error"].as_str().unwrap().starts_with("EXPIRED"), "{receipt}");
}

#[test]
fn errors_with_a_code_of_their_own_are_tried_again_in_their_own_way() {
    let settings = json!({
        "max_retries": 5, "backoff_ms": 1000,
        "by_code": { "SLOW": { "backoff_ms": 60_000, "backoff_type": "fixed" }, "ONCE": { "max_retries": 1 } },
    });
    let config = serde_json::from_value(json!({ "queue_configs": { "c": settings } })).unwrap();
    let stage = Stage::with(config, Clock::manual(1_000_000));
    let given = Stage::serve(&stage.client, "c::work", |given| {
        Err(Failure::with_code(given.data.as_str().unwrap(), "no"))
    });
    let enqueue = |code: &str| stage.enqueue(json!({ "queue": "c", "function_id": "c::work", "data": code }));
    let (plain, slow, once) = (enqueue("PLAIN"), enqueue("SLOW"), enqueue("ONCE"));
    for (id, wait_ms) in [(&plain, 1000), (&slow, 60_000), (&once, 1000)] {
        next(&given);
        assert_eq!(stage.until(id, "delayed")["due_ms"], 1_000_000 + wait_ms);
    }
    stage.clock.set(1_001_000);
    assert_eq!(stage.until(&once, "dead")["attempts"], 2);
    stage.clock.set(1_060_000);
    for _ in 0..3 {
        next(&given);
    }
    while stage.call("queue::receipt", json!({ "id": slow }))["due_ms"] != 1_120_000 {
        std::thread::yield_now();
    }
}

#[test]
fn by_default_there_are_three_retries_each_after_twice_the_wait() {
    let stage = Stage::with(Config::default(), Clock::manual(1_000_000));
    let given = Stage::serve(&stage.client, "t::work", |_| Err(Failure::with_code("E", "no")));
    let id = stage.enqueue(json!({ "queue": "t", "function_id": "t::work" }));
    for (attempt, wait_ms) in [(1, 1000), (2, 2000), (3, 4000)] {
        assert_eq!(next(&given).metadata["attempt"], attempt);
        let due_ms = stage.clock.now_ms() + wait_ms;
        assert_eq!(stage.until(&id, "delayed")["due_ms"], due_ms);
        stage.clock.set(due_ms - 1);
        assert_eq!(stage.stats("t")["delayed"], 1);
        stage.clock.set(due_ms);
    }
    assert_eq!(next(&given).metadata["attempt"], 4);
    assert_eq!(stage.until(&id, "dead")["attempts"], 4);
}
