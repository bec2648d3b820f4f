//! Where messages go: to functions that are not there yet, and to what is bound to a queue.

use serde_json::{Value, json};

use crate::stage::{Stage, next};

#[test]
fn a_message_waits_for_its_function_without_using_up_attempts() {
    let stage = Stage::configured(json!({ "a": { "max_retries": 0, "concurrency": 1 } }));
    let id = stage.enqueue(json!({ "queue": "a", "function_id": "a::late", "data": 1 }));
    while stage.stats("a")["parked"] != 1 {
        std::thread::yield_now();
    }
    let present = stage.accept("a::there");
    stage.enqueue(json!({ "queue": "a", "function_id": "a::there", "data": 2 }));
    assert_eq!(next(&present).data, 2, "others are not held up");
    let late = stage.accept("a::late");
    assert_eq!(next(&late).metadata["attempt"], 1);
    stage.until(&id, "done");
}

#[test]
fn what_names_no_function_goes_to_what_is_bound() {
    let stage = Stage::new();
    stage.enqueue(json!({ "queue": "q", "data": { "n": 1 } }));
    let given = stage.accept("q::bound");
    stage.bind("t1", "queue", "q::bound", json!({ "queue": "q" })).unwrap();
    assert_eq!(next(&given).data, json!({ "n": 1 }), "it came before the binding");
    stage.enqueue(json!({ "queue": "q", "data": { "n": 2 } }));
    assert_eq!(next(&given).data, json!({ "n": 2 }));
    stage.client.unregister_trigger("t1").unwrap();
    let topics = |wanted: u64| {
        let all = stage.call("queue::topics", Value::Null);
        all.as_array()
            .unwrap()
            .iter()
            .any(|topic| topic["name"] == "q" && topic["subscriber_count"] == wanted)
    };
    while !topics(0) {
        std::thread::yield_now();
    }
    stage.enqueue(json!({ "queue": "q", "data": { "n": 3 } }));
    assert!(given.try_recv().is_err());
    stage.bind("t1", "queue", "q::bound", json!({ "queue": "q" })).unwrap();
    assert_eq!(next(&given).data, json!({ "n": 3 }));
    let refused = stage.bind("t2", "queue", "q::bound", json!({})).unwrap_err();
    assert!(refused.message.contains("name of a queue"), "{refused}");
}

#[test]
fn the_enqueue_action_reaches_it_and_iii_s_names_answer() {
    let stage = Stage::new();
    let given = Stage::serve(&stage.client, "f::work", |_| Ok(Value::Null));
    let call = |id: &str, request: Value| stage.client.trigger_json(id, &request).unwrap();
    let action = json!({ "queue": "q", "function_id": "f::work", "data": { "n": 1 }, "messageReceiptId": "receipt-1" });
    call("engine::queue::enqueue", action);
    assert_eq!(next(&given).data, json!({ "n": 1 }));
    assert!(call("engine::queue::list_topics", json!({})).is_array());
    assert_eq!(call("engine::queue::topic_stats", json!({ "topic": "q" }))["dlq_depth"], 0);
    assert_eq!(call("engine::queue::dlq_topics", json!({})), json!([]));
    assert_eq!(call("engine::queue::dlq_messages", json!({ "topic": "q" })), json!([]));
    assert_eq!(call("queue::receipt", json!({ "id": "receipt-1" }))["id"], "receipt-1");
}

#[test]
fn keys_share_a_queue_each_with_its_own_limit() {
    let fairness = json!({ "key_field": "tenant", "concurrency": 1 });
    let stage = Stage::configured(json!({ "f": { "concurrency": 10, "fairness": fairness } }));
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let given = Stage::serve(&stage.client, "f::work", move |given| {
        if given.data["tenant"] == "greedy" {
            wait.lock().unwrap().recv().unwrap();
        }
        Ok(Value::Null)
    });
    for tenant in ["greedy", "greedy", "greedy", "modest"] {
        stage.enqueue(json!({ "queue": "f", "function_id": "f::work", "data": { "tenant": tenant } }));
    }
    // Two threads handle these two, and either may be the first to say so.
    let mut first =
        [next(&given), next(&given)].map(|given| given.data["tenant"].as_str().unwrap().to_owned());
    first.sort();
    assert_eq!(first, ["greedy", "modest"], "one of the greedy runs, and nobody waits for it");
    while stage.stats("f")["running"] != 1 {
        std::thread::yield_now();
    }
    for _ in 0..2 {
        go.send(()).unwrap();
        assert_eq!(next(&given).data["tenant"], "greedy");
    }
    go.send(()).unwrap();
}

#[test]
fn what_is_bound_to_a_function_that_is_not_there_waits_for_it() {
    let stage = Stage::configured(json!({ "q": { "max_retries": 0 } }));
    let id = stage.enqueue(json!({ "queue": "q", "data": 1 }));
    stage
        .bind("t1", "queue", "q::late", json!({ "queue": "q", "condition_function_id": "q::decides" }))
        .unwrap();
    // Parked means that nobody tries again and again.
    while stage.stats("q")["parked"] != 1 {
        std::thread::yield_now();
    }
    let late = stage.accept("q::late");
    let decides = stage.accept("q::decides");
    assert_eq!(next(&late).metadata["attempt"], 1, "no attempt was used up");
    next(&decides);
    stage.until(&id, "done");
}

#[test]
fn of_several_that_are_bound_those_that_are_there_get_the_messages() {
    let stage = Stage::configured(json!({ "q": { "max_retries": 0 } }));
    let given = stage.accept("q::here");
    stage.bind("t1", "queue", "q::absent", json!({ "queue": "q" })).unwrap();
    stage.bind("t2", "queue", "q::here", json!({ "queue": "q" })).unwrap();
    for number in 0..6 {
        let id = stage.enqueue(json!({ "queue": "q", "data": number }));
        assert_eq!((&next(&given).data, &next_attempt(&stage, &id)), (&json!(number), &json!(1)));
    }
}

fn next_attempt(stage: &Stage, id: &str) -> Value {
    stage.until(id, "done")["attempts"].clone()
}

#[test]
fn keys_have_rates_of_their_own() {
    // A second for each key between two of its messages; the clock stands still unless it is set.
    let fairness = json!({ "key_field": "tenant", "rate_per_second": 1.0 });
    let config = json!({ "queue_configs": { "f": { "concurrency": 10, "fairness": fairness } } });
    let clock = ringway_worker_queue::Clock::manual(1_000_000);
    let stage = Stage::with(serde_json::from_value(config).unwrap(), clock);
    let given = stage.accept("f::work");
    let ids = [("a", 1), ("b", 1), ("a", 2), ("b", 2)].map(|(tenant, number)| {
        let data = json!({ "tenant": tenant, "n": number });
        stage.enqueue(json!({ "queue": "f", "function_id": "f::work", "data": data }))
    });
    let both = |given: &std::sync::mpsc::Receiver<crate::stage::Given>, number: u64| {
        let mut found = [next(given), next(given)].map(|given| given.data);
        found.sort_by_key(|data| data["tenant"].to_string());
        assert_eq!(found, ["a", "b"].map(|tenant| json!({ "tenant": tenant, "n": number })));
    };
    both(&given, 1);
    ids[..2].iter().for_each(|id| drop(stage.until(id, "done")));
    assert_eq!(stage.stats("f")["waiting"], 2);
    assert!(given.try_recv().is_err(), "one second is not over for either");
    stage.clock.set(stage.clock.now_ms() + 1000);
    both(&given, 2);
}

#[test]
fn a_queue_has_a_rate() {
    let config = json!({ "queue_configs": { "r": { "concurrency": 10, "rate_per_second": 2.0 } } });
    let clock = ringway_worker_queue::Clock::manual(1_000_000);
    let stage = Stage::with(serde_json::from_value(config).unwrap(), clock);
    let given = stage.accept("r::work");
    let ids = [0, 1, 2]
        .map(|number| stage.enqueue(json!({ "queue": "r", "function_id": "r::work", "data": number })));
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(next(&given).data, number);
        stage.until(id, "done");
        assert_eq!(stage.stats("r")["waiting"], 2 - number);
        stage.clock.set(stage.clock.now_ms() + 499);
        assert_eq!(stage.stats("r")["waiting"], 2 - number, "half a second between two");
        stage.clock.set(stage.clock.now_ms() + 1);
    }
}

#[test]
fn a_key_of_twice_the_weight_has_twice_the_turns() {
    let fairness = json!({ "key_field": "tenant", "weights": { "big": 2.0 } });
    let stage = Stage::configured(json!({ "f": { "concurrency": 1, "fairness": fairness } }));
    let given = stage.accept("f::work");
    stage.call("queue::pause", json!({ "queue": "f" }));
    for _ in 0..12 {
        for tenant in ["small", "big"] {
            let data = json!({ "tenant": tenant });
            stage.enqueue(json!({ "queue": "f", "function_id": "f::work", "data": data }));
        }
    }
    stage.call("queue::resume", json!({ "queue": "f" }));
    let first: Vec<Value> = (0..12).map(|_| next(&given).data["tenant"].clone()).collect();
    let big = first.iter().filter(|tenant| **tenant == "big").count();
    assert!((7..=9).contains(&big), "8 of 12: {first:?}");
}
