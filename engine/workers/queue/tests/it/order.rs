//! Order within groups, across retries and restarts, and limits of what runs at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringway::Failure;
use serde_json::{Value, json};

use crate::stage::{Stage, next};

#[test]
fn groups_keep_their_order_while_their_messages_fail() {
    let stage = Stage::configured(json!({
        "ledger": { "type": "fifo", "message_group_field": "account", "backoff_ms": 5, "max_retries": 5 },
    }));
    let tries: Mutex<HashMap<String, u32>> = Mutex::default();
    let given = Stage::serve(&stage.client, "ledger::book", move |given| {
        let mut tries = tries.lock().unwrap();
        let tried = tries.entry(given.data.to_string()).or_default();
        *tried += 1;
        // Every third message fails twice.
        let wants = if given.data["n"].as_u64().unwrap() % 3 == 0 { 3 } else { 1 };
        if *tried < wants { Err(Failure::with_code("NOT_YET", "try again")) } else { Ok(Value::Null) }
    });
    let accounts = ["a", "b", "c"];
    for n in 0..12 {
        for account in accounts {
            stage.enqueue(json!({
                "queue": "ledger", "function_id": "ledger::book", "data": { "account": account, "n": n },
            }));
        }
    }
    let mut seen: HashMap<String, Vec<u64>> = HashMap::new();
    // 8 of 12 once, 4 of 12 three times, for three accounts.
    for _ in 0..(8 + 4 * 3) * 3 {
        let given = next(&given);
        let n = given.data["n"].as_u64().unwrap();
        seen.entry(given.data["account"].as_str().unwrap().to_owned()).or_default().push(n);
    }
    for account in accounts {
        let order = &seen[account];
        assert!(order.is_sorted(), "{account}: {order:?}");
    }
    let missing = json!({ "queue": "ledger", "function_id": "ledger::book", "data": { "n": 1 } });
    let error = stage.fail("queue::enqueue", missing);
    assert_eq!(error.user_code.as_deref(), Some("MESSAGE_GROUP_MISSING"));
}

#[test]
fn no_more_run_at_once_than_the_queue_allows() {
    let stage = Stage::configured(json!({ "wide": { "concurrency": 4 } }));
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, seen) = (Arc::clone(&running), Arc::clone(&most));
    let given = Stage::serve(&stage.client, "wide::run", move |_| {
        let count = now.fetch_add(1, Ordering::SeqCst) + 1;
        seen.fetch_max(count, Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_millis(5));
        now.fetch_sub(1, Ordering::SeqCst);
        Ok(Value::Null)
    });
    for n in 0..40 {
        stage.enqueue(json!({ "queue": "wide", "function_id": "wide::run", "data": n }));
    }
    for _ in 0..40 {
        next(&given);
    }
    let most = most.load(Ordering::SeqCst);
    assert!((1..=4).contains(&most), "{most} at once");
}
