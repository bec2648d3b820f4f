//! Durable topics: a copy for each subscriber, kept for those that are away, and for the first before there is one.

use serde_json::{Value, json};

use crate::stage::{Stage, next};

fn publish(stage: &Stage, topic: &str, data: Value) {
    stage.call("iii::durable::publish", json!({ "topic": topic, "data": data }));
}

#[test]
fn each_subscriber_gets_its_own_copy_and_the_first_what_came_before() {
    let stage = Stage::new();
    publish(&stage, "news", json!({ "n": 0 }));
    let (a, b) = (stage.accept("a::hear"), stage.accept("b::hear"));
    stage.bind("ta", "durable:subscriber", "a::hear", json!({ "topic": "news" })).unwrap();
    assert_eq!(next(&a).data, json!({ "n": 0 }));
    stage.bind("tb", "durable:subscriber", "b::hear", json!({ "topic": "news" })).unwrap();
    publish(&stage, "news", json!({ "n": 1 }));
    assert_eq!(next(&a).data, json!({ "n": 1 }));
    assert_eq!(next(&b).data, json!({ "n": 1 }));
    let topics = stage.call("queue::topics", Value::Null);
    let listed = json!({ "name": "news", "broker_type": "ringway", "subscriber_count": 2, "mode": "active" });
    assert_eq!(topics, json!([listed]));
    let none = stage.fail("iii::durable::publish", json!({ "data": 1 }));
    assert_eq!(none.user_code.as_deref(), Some("topic_not_set"));
}

#[test]
fn a_subscriber_that_is_away_finds_its_copies_also_after_a_restart() {
    let mut stage = Stage::new();
    let given = stage.accept("a::hear");
    stage.bind("ta", "durable:subscriber", "a::hear", json!({ "topic": "news" })).unwrap();
    publish(&stage, "news", json!(1));
    assert_eq!(next(&given).data, 1);
    // One whose end the queue has not heard of yet is delivered again after the restart.
    while stage.stats("news")["depth"] != 0 {
        std::thread::yield_now();
    }
    stage.client.unregister_trigger("ta").unwrap();
    publish(&stage, "news", json!(2));
    stage.restart();
    publish(&stage, "news", json!(3));
    stage.bind("ta", "durable:subscriber", "a::hear", json!({ "topic": "news" })).unwrap();
    let mut found = [next(&given).data, next(&given).data];
    found.sort_by_key(Value::as_u64);
    assert_eq!(found, [2, 3]);
    let ended = json!({ "topic": "news", "function_id": "a::hear" });
    assert_eq!(stage.call("queue::unsubscribe", ended.clone())["removed"], true);
    assert_eq!(stage.call("queue::unsubscribe", ended)["removed"], false);
}

#[test]
fn a_condition_decides_and_settings_of_a_subscription_hold() {
    let stage = Stage::new();
    let given = Stage::serve(&stage.client, "a::hear", |_| Err(ringway::Failure::with_code("E", "no")));
    let config = json!({
        "topic": "t", "condition": "amount > 5",
        "queue_config": { "maxRetries": 1, "backoffDelayMs": 1, "type": "fifo" },
    });
    stage.bind("ta", "durable:subscriber", "a::hear", config).unwrap();
    publish(&stage, "t", json!({ "amount": 1 }));
    publish(&stage, "t", json!({ "amount": 9 }));
    for attempt in [1, 2] {
        let given = next(&given);
        assert_eq!((&given.data["amount"], &given.metadata["attempt"]), (&json!(9), &json!(attempt)));
    }
    while stage.stats("t")["dlq_depth"] != 1 {
        std::thread::yield_now();
    }
    assert_eq!(stage.stats("t")["depth"], 0);
    let wrong =
        stage.bind("tb", "durable:subscriber", "a::hear", json!({ "topic": "t", "condition": "a ==" }));
    assert!(wrong.is_err());
}

#[test]
fn a_topic_is_held_as_a_whole_with_those_that_come_later() {
    let stage = Stage::new();
    let (a, b, c) = (stage.accept("a::hear"), stage.accept("b::hear"), stage.accept("c::hear"));
    let topic = json!({ "topic": "news" });
    stage.bind("ta", "durable:subscriber", "a::hear", topic.clone()).unwrap();
    stage.bind("tb", "durable:subscriber", "b::hear", topic.clone()).unwrap();
    let hold = |how: &str| stage.call(how, json!({ "queue": "news" }));
    let mode = || stage.call("queue::topics", Value::Null)[0]["mode"].clone();
    assert_eq!(hold("queue::pause")["mode"], "paused");
    assert_eq!((mode(), stage.stats("news")["mode"].clone()), (json!("paused"), json!("paused")));
    assert_eq!(
        stage.call("queue::topics", Value::Null).as_array().unwrap().len(),
        1,
        "no queue of that name was made"
    );
    stage.bind("tc", "durable:subscriber", "c::hear", topic).unwrap();
    publish(&stage, "news", json!(1));
    assert_eq!(stage.stats("news")["waiting"], 3);
    assert!([&a, &b, &c].iter().all(|given| given.try_recv().is_err()), "it is paused");
    assert_eq!(hold("queue::drain")["mode"], "draining");
    for given in [&a, &b, &c] {
        assert_eq!(next(given).data, 1);
    }
    assert_eq!((mode(), stage.stats("news")["depth"].clone()), (json!("draining"), json!(0)));
    let refused = stage.fail("iii::durable::publish", json!({ "topic": "news", "data": 2 }));
    assert_eq!(refused.user_code.as_deref(), Some("QUEUE_DRAINING"));
    assert_eq!(hold("queue::resume")["mode"], "active");
    publish(&stage, "news", json!(3));
    for given in [&a, &b, &c] {
        assert_eq!(next(given).data, 3);
    }
}

#[test]
fn a_drain_that_is_called_off_says_so() {
    let stage = Stage::new();
    stage.enqueue(json!({ "queue": "q", "function_id": "q::nobody" }));
    let drain = ringway::Message::json(&json!({ "queue": "q" })).unwrap();
    let drain = stage.client.handle("queue::drain").start(&drain, &ringway::CallOptions::new()).unwrap();
    while stage.stats("q")["mode"] != "draining" {
        std::thread::yield_now();
    }
    // It waits by now, or finds that somebody was quicker; it hears of the end of it either way.
    for _ in 0..20 {
        assert_eq!(stage.stats("q")["depth"], 1);
    }
    stage.call("queue::resume", json!({ "queue": "q" }));
    let ended = drain.wait();
    assert_eq!(ended.unwrap_err().user_code.as_deref(), Some("DRAIN_ENDED"));
}

#[test]
fn a_subscription_that_was_ended_stays_so_until_it_is_bound_anew() {
    let stage = Stage::new();
    let a = stage.accept("a::hear");
    let topic = json!({ "topic": "news" });
    stage.bind("ta", "durable:subscriber", "a::hear", topic.clone()).unwrap();
    stage.call("queue::pause", json!({ "queue": "news" }));
    publish(&stage, "news", json!("old"));
    let ended = json!({ "topic": "news", "function_id": "a::hear" });
    assert_eq!(stage.call("queue::unsubscribe", ended)["removed"], true);
    stage.call("queue::resume", json!({ "queue": "news" }));
    assert_eq!(stage.stats("news")["depth"], 0, "no copy is kept for it");
    // Another trigger comes; that of the ended subscription is still there.
    stage.accept("b::hear");
    stage.bind("tb", "queue", "b::hear", json!({ "queue": "other" })).unwrap();
    let topics = stage.call("queue::topics", Value::Null);
    let news = topics.as_array().unwrap().iter().find(|topic| topic["name"] == "news").unwrap();
    assert_eq!(news["subscriber_count"], 0, "it was not revived: {topics}");
    publish(&stage, "news", json!("between"));
    stage.client.unregister_trigger("ta").unwrap();
    stage.bind("ta", "durable:subscriber", "a::hear", topic).unwrap();
    assert_eq!(next(&a).data, "between", "what nobody had is for the first that comes");
    publish(&stage, "news", json!("new"));
    assert_eq!(next(&a).data, "new");
    assert!(a.try_recv().is_err());
}
