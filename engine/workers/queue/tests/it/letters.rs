//! Dead letters as a person sees to them: browsing by filter and page, some of them sent again or thrown away, edits while
//! somebody else is at the same message, and records that cannot be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use ringway::{Failure, Function};
use ringway_store::blobs::HOLD;
use ringway_store::{Batch, Durability, Scan, Store};
use ringway_worker_queue::{Clock, Config, QueueSettings};
use serde_json::{Value, json};

use crate::stage::{Given, Stage, next};

/// A stage with dead messages 0 to n; those with odd numbers died of `ODD`, the others of `EVEN`, 1 s after one another.
fn with_dead(count: u64) -> (Stage, Vec<String>, Receiver<Given>, Arc<AtomicBool>) {
    let queues = json!({ "queue_configs": { "d": { "fatal_codes": ["ODD", "EVEN"] } } });
    let config: Config = serde_json::from_value(queues).unwrap();
    let stage = Stage::with(config, Clock::manual(1_000_000));
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let answer = move |given: &Given| {
        if is_well.load(Ordering::SeqCst) {
            return Ok(Value::Null);
        }
        let number = given.data["n"].as_u64().unwrap();
        let code = if number % 2 == 1 { "ODD" } else { "EVEN" };
        Err(Failure::with_code(code, format!("Number {number} broke")))
    };
    let given = Stage::serve(&stage.client, "d::work", answer);
    let mut ids = Vec::new();
    for n in 0..count {
        let id = stage.enqueue(json!({ "queue": "d", "function_id": "d::work", "data": { "n": n } }));
        stage.until(&id, "dead");
        ids.push(id);
        stage.clock.set(stage.clock.now_ms() + 1000);
    }
    given.try_iter().for_each(drop);
    (stage, ids, given, well)
}

fn numbers(list: &Value) -> Vec<u64> {
    let all = list["messages"].as_array().unwrap();
    all.iter().map(|message| message["payload"]["n"].as_u64().unwrap()).collect()
}

#[test]
fn dead_letters_are_listed_by_filter_page_after_page() {
    let (stage, ..) = with_dead(7);
    let list = |more: Value| {
        let mut request = json!({ "queue": "d" });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stage.call("queue::dlq::list", request)
    };
    let all = list(json!({}));
    assert_eq!((numbers(&all), &all["cursor"]), (vec![6, 5, 4, 3, 2, 1, 0], &Value::Null));
    assert_eq!(all["messages"][0]["code"], "EVEN");
    assert_eq!(numbers(&list(json!({ "code": "ODD" }))), [5, 3, 1]);
    assert_eq!(numbers(&list(json!({ "text": "number 4" }))), [4]);
    assert_eq!(numbers(&list(json!({ "function_id": "d::work", "code": "ODD", "text": "3" }))), [3]);
    assert!(numbers(&list(json!({ "function_id": "d::other" }))).is_empty());
    // They died at 1000 s, 1001 s, and so on.
    let between = json!({ "after": "1970-01-01T00:16:42Z", "before": "1970-01-01T00:16:44Z" });
    assert_eq!(numbers(&list(between)), [3, 2]);
    let mut cursor = Value::Null;
    let mut found = Vec::new();
    loop {
        let page = list(json!({ "code": "EVEN", "limit": 3, "cursor": cursor }));
        found.push(numbers(&page));
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(found.concat(), [6, 4, 2, 0]);
    assert_eq!(found[0], [6, 4, 2], "a page is as long as was asked for");
    let first = list(json!({ "code": "EVEN", "limit": 2 }));
    assert!(first["cursor"].is_string());
    let second = list(json!({ "code": "EVEN", "limit": 2, "cursor": first["cursor"] }));
    assert_eq!((numbers(&second), &second["cursor"]), (vec![2, 0], &Value::Null), "nothing follows");
    let wrong = stage.fail("queue::dlq::list", json!({ "queue": "d", "before": "noon" }));
    assert!(wrong.message.contains("before") && wrong.message.contains("noon"), "{wrong}");
    let wrong = stage.fail("queue::dlq::list", json!({ "queue": "d", "cursor": "noon" }));
    assert!(wrong.message.contains("cursor"), "{wrong}");
}

#[test]
fn some_are_sent_again_or_thrown_away_and_the_others_stay() {
    let (stage, ids, given, well) = with_dead(8);
    let dead = || stage.stats("d")["dlq_depth"].clone();
    let refused = stage.fail("queue::dlq::discard", json!({ "queue": "d" }));
    assert!(refused.message.contains("all: true"), "{refused}");
    let some = json!({ "queue": "d", "code": "ODD", "text": "number 1" });
    assert_eq!(stage.call("queue::dlq::discard", some)["discarded"], 1);
    stage.until(&ids[1], "discarded");
    well.store(true, Ordering::SeqCst);
    let named = json!({ "queue": "d", "message_ids": [ids[0], ids[0], "d:ffff"] });
    assert_eq!(
        stage.call("iii::queue::redrive", named)["redriven"],
        1,
        "each once, and what is not there is nothing"
    );
    assert_eq!(next(&given).data["n"], 0);
    assert_eq!(dead(), 6);
    // One at once, the others a minute after one another.
    let apart = json!({ "queue": "d", "code": "ODD", "interval_ms": 60_000 });
    assert_eq!(stage.call("iii::queue::redrive", apart)["redriven"], 3);
    for number in [3, 5, 7] {
        assert_eq!(next(&given).data["n"], number);
        assert!(given.try_recv().is_err(), "the next is not due");
        stage.clock.set(stage.clock.now_ms() + 60_000);
    }
    assert_eq!(dead(), 3);
    assert_eq!(stage.call("queue::dlq::discard", json!({ "queue": "d", "all": true }))["discarded"], 3);
    assert_eq!(dead(), 0);
    assert!(given.try_recv().is_err());
}

#[test]
fn an_edit_that_was_answered_is_what_is_delivered() {
    let (stage, ids, given, _) = with_dead(1);
    let id = &ids[0];
    // Long and short data take turns, since they lie in different records.
    for round in 1..150_u64 {
        let pad = if round % 2 == 0 { String::new() } else { "x".repeat(3000) };
        let edit = json!({ "message_id": id, "data": { "n": round * 2, "pad": pad } });
        // What lives again waits, so that it cannot die once more before the edit comes to it.
        stage.call("queue::pause", json!({ "queue": "d" }));
        let edited = std::thread::scope(|scope| {
            let edited = scope.spawn(|| stage.client.trigger_json("queue::dlq::edit", &edit).is_ok());
            // The interval has the redrive write the message anew.
            let request = json!({ "queue": "d", "interval_ms": 1 });
            while stage.call("iii::queue::redrive", request.clone())["redriven"] == 0 {
                std::thread::yield_now();
            }
            edited.join().unwrap()
        });
        stage.call("queue::resume", json!({ "queue": "d" }));
        let found = next(&given).data;
        if edited {
            assert_eq!(
                (&found["n"], &found["pad"]),
                (&json!(round * 2), &json!(pad)),
                "the edit was answered"
            );
        }
        stage.until(id, "dead");
    }
    assert_eq!(stage.call("queue::dlq::discard", json!({ "queue": "d", "all": true }))["discarded"], 1);
    for table in ["queue.message", "queue.body", "queue.dead", "queue.attempt"] {
        let left = stage.store().scan(&ringway_store::Scan::table(table)).unwrap();
        assert!(left.is_empty(), "{table}: {left:?}");
    }
}

#[test]
fn what_cannot_be_read_is_listed_as_such_and_hides_nothing() {
    let mut stage = Stage::configured(json!({ "u": { "fatal_codes": ["E"] } }));
    let long = "ring".repeat(1000);
    let fail = |stage: &Stage| {
        let fails = Function::json("u::work", |_: &ringway::Context, _: Value| {
            Err::<Value, _>(Failure::with_code("E", "no"))
        });
        stage.client.register(fails).unwrap();
    };
    fail(&stage);
    let mut ids = Vec::new();
    for data in [json!(1), json!(2), json!(long), json!(4)] {
        let id = stage.enqueue(json!({ "queue": "u", "function_id": "u::work", "data": data }));
        stage.until(&id, "dead");
        ids.push(id);
    }
    let key = |id: &str| {
        let seq = u64::from_str_radix(id.rsplit(':').next().unwrap(), 16).unwrap();
        [b"u\0".as_slice(), &seq.to_be_bytes()].concat()
    };
    let keys: Vec<Vec<u8>> = ids.iter().map(|id| key(id)).collect();
    stage.restart_after(|store| {
        let batch = Batch::new()
            .put("queue.dead", &keys[0], &b"\x01{not json"[..])
            .put("queue.message", &keys[1], &b"\x01\xff\xfe"[..])
            .put("queue.body", &keys[2], &b"\x01\xff\x00\x7f"[..]);
        store.commit(batch, Durability::Durable).unwrap();
    });
    let list = stage.call("queue::dlq::list", json!({ "queue": "u" }))["messages"].clone();
    let by_offset = stage.call("queue::dlq::messages", json!({ "topic": "u" }));
    assert_eq!(by_offset, list, "both tell the same");
    let found: Vec<&Value> = list.as_array().unwrap().iter().rev().collect();
    assert_eq!(found.iter().map(|it| it["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    assert_eq!((&found[0]["payload"], found[0]["unreadable"].is_string()), (&json!(1), true));
    assert_eq!(found[1]["payload_base64"], "Af/+", "the bytes of the record that it lies in");
    assert_eq!((&found[2]["payload"], &found[2]["payload_base64"]), (&Value::Null, &json!("/wB/")));
    assert_eq!(found[2]["error"], "E: no");
    assert_eq!((&found[3]["payload"], found[3].get("unreadable")), (&json!(4), None));
    // Those that can be read live again; what cannot is counted, and can be thrown away.
    let redriven = stage.call("iii::queue::redrive", json!({ "queue": "u" }));
    assert_eq!((&redriven["redriven"], &redriven["unreadable"]), (&json!(3), &json!(1)));
    let thrown = json!({ "queue": "u", "message_ids": [ids[1]] });
    assert_eq!(stage.call("queue::dlq::discard", thrown)["discarded"], 1);
    assert!(stage.store().get("queue.message", &keys[1]).unwrap().is_none());
}

#[test]
fn what_cannot_be_read_leaves_nothing_behind_when_it_is_discarded() {
    let many = QueueSettings { max_retries: 24, ..QueueSettings::default() };
    let queue_configs = [("u".to_owned(), many)].into();
    let config = Config { blob_bytes_min: 1000, queue_configs, ..Config::default() };
    let mut stage = Stage::with(config, Clock::system());
    let fails = Function::json("u::work", |_: &ringway::Context, _: Value| {
        Err::<Value, _>(Failure::with_code("E", "no").retry_after(Duration::ZERO))
    });
    stage.client.register(fails).unwrap();
    let data = json!("ring".repeat(1000));
    let id = stage.enqueue(json!({ "queue": "u", "function_id": "u::work", "data": data }));
    stage.until(&id, "dead");
    let count = |stage: &Stage, table: &str| stage.store().scan(&Scan::table(table)).unwrap().len();
    assert_eq!((count(&stage, "queue.attempt"), count(&stage, HOLD)), (20, 1), "the last 20 of 25");
    let seq = u64::from_str_radix(id.rsplit(':').next().unwrap(), 16).unwrap();
    let key = [b"u\0".as_slice(), &seq.to_be_bytes()].concat();
    stage.restart_after(|store| {
        let batch = Batch::new().put("queue.dead", &key, &b"\x01{not json"[..]).put(
            "queue.message",
            &key,
            &b"\x01\xff\xfe"[..],
        );
        store.commit(batch, Durability::Durable).unwrap();
    });
    let all = json!({ "queue": "u", "all": true });
    assert_eq!(stage.call("queue::dlq::discard", all)["discarded"], 1);
    for table in ["queue.attempt", "queue.message", "queue.dead", HOLD] {
        assert_eq!(count(&stage, table), 0, "{table}");
    }
}
