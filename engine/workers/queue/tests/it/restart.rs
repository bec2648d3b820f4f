//! What is on disk is there after the end of the worker, as after a crash of the process.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;

use ringway::{CallOptions, Function, Message, Worker};
use ringway_store::{Batch, Durability, Store};
use ringway_worker_queue::Clock;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, next};

#[test]
fn everything_acknowledged_is_delivered_after_a_crash() {
    let mut stage = Stage::new();
    // Nobody serves it yet: what is taken waits.
    let handle = stage.client.handle("queue::enqueue");
    let calls: Vec<_> = (0..200)
        .map(|n| {
            let request =
                json!({ "queue": "r", "function_id": "r::work", "data": n, "id": format!("id {n}") });
            handle.start(&Message::json(&request).unwrap(), &CallOptions::new()).unwrap()
        })
        .collect();
    for call in calls {
        call.wait().unwrap();
    }
    stage.restart();
    assert_eq!(stage.stats("r")["depth"], 200);
    let given = stage.accept("r::work");
    let found: BTreeSet<u64> = (0..200).map(|_| next(&given).data.as_u64().unwrap()).collect();
    assert_eq!(found, (0..200).collect());
    for n in 0..200 {
        stage.until(&format!("id {n}"), "done");
    }
    stage.restart();
    assert_eq!(stage.stats("r")["depth"], 0);
    assert!(given.try_recv().is_err(), "a message that had ended was delivered again");
    stage.until("id 7", "done");
}

#[test]
fn an_attempt_under_way_is_made_again_with_a_higher_token() {
    let mut stage = Stage::configured(json!({ "r": { "type": "fifo", "max_retries": 9, "backoff_ms": 1 } }));
    let (tell, told) = channel();
    let hold = Function::json_async("r::hold", move |context: ringway::Context, data: Value| {
        let tell = tell.clone();
        async move {
            tell.send((data.clone(), context.metadata().cloned().unwrap_or_default())).unwrap();
            if data == "first" {
                context.cancel_token().cancelled().await;
            }
            Ok(Value::Null)
        }
    });
    stage.client.register(hold).unwrap();
    let id = stage.enqueue(json!({ "queue": "r", "function_id": "r::hold", "data": "first" }));
    stage.enqueue(json!({ "queue": "r", "function_id": "r::hold", "data": "second" }));
    let (data, before) = told.recv_timeout(SOON).unwrap();
    assert_eq!(data, "first");
    stage.restart();
    let (data, after) = told.recv_timeout(SOON).unwrap();
    assert_eq!(data, "first", "the second did not overtake");
    assert!(after["fencing_token"].as_u64() > before["fencing_token"].as_u64());
    stage.call("queue::cancel", json!({ "id": id }));
    assert_eq!(told.recv_timeout(SOON).unwrap().0, "second");
}

#[test]
fn dead_letters_modes_and_settings_survive() {
    let mut stage = Stage::new();
    let settings = json!({ "max_retries": 0 });
    stage.call("queue::configure", json!({ "queue": "k", "settings": settings }));
    let given = Stage::serve(&stage.client, "k::work", |_| Err(ringway::Failure::with_code("E", "broken")));
    let id = stage.enqueue(json!({ "queue": "k", "function_id": "k::work", "data": 1 }));
    next(&given);
    stage.until(&id, "dead");
    stage.call("queue::pause", json!({ "queue": "k" }));
    stage.restart();
    let stats = stage.stats("k");
    assert_eq!((&stats["mode"], &stats["dlq_depth"]), (&json!("paused"), &json!(1)));
    stage.enqueue(json!({ "queue": "k", "function_id": "k::work", "data": 2 }));
    assert_eq!(stage.stats("k")["waiting"], 1);
    assert!(given.try_recv().is_err(), "it is paused after the restart too");
    assert_eq!(stats["config"]["max_retries"], 0);
    assert_eq!(stage.until(&id, "dead")["error"], "E: broken");
    assert_eq!(stage.call("queue::dlq::messages", json!({ "topic": "k" }))[0]["attempts"][0]["code"], "E");
}

#[test]
fn a_record_that_cannot_be_read_is_told_and_left_where_it_is() {
    let mut stage = Stage::new();
    let id = stage.enqueue(json!({ "queue": "u", "function_id": "u::work", "data": 1 }));
    stage.enqueue(json!({ "queue": "u", "function_id": "u::work", "data": 2 }));
    let seq = u64::from_str_radix(id.rsplit(':').next().unwrap(), 16).unwrap();
    let key = [b"u\0".as_slice(), &seq.to_be_bytes()].concat();
    let damaged: &[u8] = &[9, b'{'];
    let damage = key.clone();
    stage.restart_after(move |store| {
        let batch = Batch::new().put("queue.message", &damage, damaged);
        store.commit(batch, Durability::Durable).unwrap();
    });
    let told = stage.worker().unreadable();
    assert!(told.len() == 1 && told[0].contains("version 1, found 9"), "{told:?}");
    let given = stage.accept("u::work");
    assert_eq!(next(&given).data, 2, "its neighbour is delivered");
    assert_eq!(&*stage.store().get("queue.message", &key).unwrap().unwrap().bytes, damaged);
}

#[test]
fn a_worker_that_dies_gives_its_message_back() {
    let stage = Stage::configured(json!({ "w": { "backoff_ms": 3_600_000 } }));
    let doomed: Worker = stage.another("doomed");
    let (tell, told) = channel();
    let hold = Function::json_async("w::work", move |context: ringway::Context, _: Value| {
        let tell = tell.clone();
        async move {
            tell.send(()).unwrap();
            context.cancel_token().cancelled().await;
            Ok(Value::Null)
        }
    });
    doomed.register(hold).unwrap();
    let id = stage.enqueue(json!({ "queue": "w", "function_id": "w::work" }));
    told.recv_timeout(SOON).unwrap();
    drop(doomed);
    // At once, not after the hour that a failure would wait.
    let given = stage.accept("w::work");
    assert_eq!(next(&given).metadata["attempt"], 2);
    stage.until(&id, "done");
}

#[test]
fn a_delay_and_a_wait_between_attempts_are_kept_over_a_restart() {
    let mut stage = Stage::with(ringway_worker_queue::Config::default(), Clock::manual(1_000_000));
    let fails = Stage::serve(&stage.client, "d::fails", |_| Err(ringway::Failure::with_code("E", "no")));
    let given = stage.accept("d::work");
    let tried = stage.enqueue(json!({ "queue": "d", "function_id": "d::fails" }));
    next(&fails);
    stage.until(&tried, "delayed");
    let later = |more: Value| {
        let mut request = json!({ "queue": "d", "function_id": "d::work" });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stage.enqueue(request)
    };
    let first = later(json!({ "delay_ms": 5000, "data": 1 }));
    let second = later(json!({ "at": "1970-01-01T00:16:46Z", "data": 2 }));
    stage.restart();
    assert_eq!(stage.stats("d")["delayed"], 3);
    for (at_ms, data, id) in [(1_005_000, 1, first), (1_006_000, 2, second)] {
        stage.clock.set(at_ms - 1);
        assert_eq!(stage.until(&id, "delayed")["due_ms"], at_ms);
        stage.clock.set(at_ms);
        assert_eq!(next(&given).data, data);
    }
    assert_eq!(next(&fails).metadata["attempt"], 2);
}
