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
    assert_eq!(topics, json!([{ "name": "news", "broker_type": "ringway", "subscriber_count": 2 }]));
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
