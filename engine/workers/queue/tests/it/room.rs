//! A disk without room: what cannot be written down is not begun, and goes on by itself when there is room.

use std::sync::Arc;

use ringway_store::Options;
use ringway_store::testing::faults::{Fault, Faults};
use ringway_worker_queue::{Clock, Config};
use serde_json::json;

use crate::stage::{Stage, next};

#[test]
fn nothing_is_run_whose_end_could_not_be_kept() {
    let faults = Faults::default();
    let files = Arc::new(faults.clone());
    // Little memory before the index, so that a full disk is felt soon.
    let options = Options { files, segment_bytes: 48 << 20, memory_bytes: 32 << 10, ..Options::default() };
    let stage = Stage::over(Config::default(), Clock::system(), options);
    let given = stage.accept("full::work");
    stage.call("queue::pause", json!({ "queue": "full" }));
    let request = |number: usize| json!({ "queue": "full", "function_id": "full::work", "data": [number, "x".repeat(900)] });
    let mut taken = Vec::new();
    for number in 0..20 {
        taken.push(stage.enqueue(request(number)));
    }
    faults.set(Some(Fault::Full));
    let error = loop {
        match stage.client.trigger_json("queue::enqueue", &request(taken.len())) {
            Ok(answer) => taken.push(answer["id"].as_str().unwrap().to_owned()),
            Err(error) => break error,
        }
        assert!(taken.len() < 10_000, "the disk was never full");
    };
    assert!(error.message.contains("full"), "{error}");
    // It cannot be written down that the queue goes on; that it does so is not the store's business.
    assert!(stage.client.trigger_json("queue::resume", &json!({ "queue": "full" })).is_err());
    let stats = stage.stats("full");
    assert_eq!((&stats["mode"], &stats["stalled"]), (&json!("active"), &json!(true)));
    for _ in 0..50 {
        assert_eq!(stage.stats("full")["running"], 0);
    }
    assert!(given.try_recv().is_err(), "it was run though its end cannot be kept");
    faults.set(None);
    for _ in &taken {
        next(&given);
    }
    for id in &taken {
        stage.until(id, "done");
    }
    assert_eq!(stage.stats("full")["stalled"], false);
}
