//! Values with a time to live: absent at that moment, removed by the timer, told as deleted.

use std::sync::{Arc, mpsc};

use ringway_store::store::{Done, Joined};
use ringway_store::{
    Batch, Durability, Embedded, Entry, Options, Scan, Snapshot, Store, StoreError, Value as Stored,
};
use ringway_worker_state::Config;
use serde_json::{Value, json};

use crate::bed::{Bed, NOW_MS, PATIENCE, bind, hear};

/// A worker that passes on what a trigger on scope `s` tells it.
fn listen(bed: &Bed) -> (ringway::Worker, mpsc::Receiver<Value>) {
    let listener = bed.another("listener");
    let told = hear(&listener, "listener::hear");
    bind(&listener, "hear", "state", "listener::hear", json!({"scope": "s"})).unwrap();
    (listener, told)
}

fn entries(bed: &Bed) -> (usize, usize) {
    (bed.count("state"), bed.count("state.expiry"))
}

#[test]
fn a_value_expires_at_its_time_and_is_told_as_deleted() {
    let bed = Bed::new();
    let (_listener, told) = listen(&bed);
    bed.call("set", json!({"scope": "s", "key": "k", "value": 1, "ttl_ms": 1000}));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap()["event_type"], "state:created");
    assert_eq!(entries(&bed), (1, 1));
    bed.clock.set(NOW_MS + 999);
    assert_eq!(bed.get("s", "k"), json!(1));
    let page = bed.call("scan", json!({"scope": "s"}));
    assert_eq!(page["entries"][0]["expires_at_ms"], NOW_MS + 1000);
    bed.clock.set(NOW_MS + 1000);
    assert_eq!(bed.get("s", "k"), Value::Null);
    assert_eq!(bed.call("list", json!({"scope": "s"})), json!([]));
    assert_eq!(bed.call("list_groups", json!({})), json!({"groups": []}));
    assert_eq!(bed.call("scan", json!({"scope": "s"}))["entries"], json!([]));
    let deleted = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&deleted["event_type"], &deleted["old_value"]), (&json!("state:deleted"), &json!(1)));
    assert_eq!(entries(&bed), (0, 0));
}

#[test]
fn a_value_that_is_written_again_has_the_expiry_of_the_last_time() {
    let bed = Bed::new();
    let set = |value: u32, ttl_ms: Option<u64>| {
        bed.call("set", json!({"scope": "s", "key": "k", "value": value, "ttl_ms": ttl_ms}))
    };
    set(1, Some(1000));
    set(2, Some(5000));
    bed.clock.set(NOW_MS + 1000);
    assert_eq!(bed.get("s", "k"), json!(2));
    bed.call(
        "update",
        json!({"scope": "s", "key": "k", "ops": [{"type": "increment", "path": "", "by": 1}]}),
    );
    assert_eq!(entries(&bed), (1, 1));
    bed.clock.set(NOW_MS + 5000);
    assert_eq!(bed.get("s", "k"), Value::Null, "an update took the expiry away");
    set(4, None);
    assert_eq!(entries(&bed), (1, 0));
    bed.clock.set(NOW_MS + 50_000);
    assert_eq!(bed.get("s", "k"), json!(4));
}

#[test]
fn an_expired_value_is_absent_for_writers_too() {
    let bed = Bed::new();
    bed.call("set", json!({"scope": "s", "key": "k", "value": 1, "ttl_ms": 10}));
    bed.clock.set(NOW_MS + 10);
    let set = bed.call("set", json!({"scope": "s", "key": "k", "value": 2, "if_revision": 0}));
    assert_eq!(set["old_value"], Value::Null);
    assert_eq!(bed.get("s", "k"), json!(2));
}

#[test]
fn what_expired_while_nobody_was_there_is_removed_at_the_start() {
    let mut bed = Bed::new();
    for key in 0..10 {
        bed.call("set", json!({"scope": "s", "key": key.to_string(), "value": 1, "ttl_ms": 1000 + key}));
    }
    bed.stop();
    bed.clock.set(NOW_MS + 1004);
    bed.start();
    assert_eq!(bed.call("list", json!({"scope": "s"})).as_array().unwrap().len(), 5);
    let (_listener, told) = listen(&bed);
    bed.clock.set(NOW_MS + 2000);
    for _ in 0..5 {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap()["event_type"], "state:deleted");
    }
    assert_eq!(entries(&bed), (0, 0));
}

/// Waits until so many values are still to expire, while time passes.
fn wait_for_expiries(bed: &Bed, count: usize) {
    let until = std::time::Instant::now() + PATIENCE;
    while entries(bed).1 != count {
        assert!(std::time::Instant::now() < until, "{:?} are left", entries(bed));
        bed.clock.set(bed.clock.now_ms() + 1000);
        std::thread::yield_now();
    }
}

#[test]
fn expiry_goes_on_when_the_outbox_has_room_again() {
    let config = Config { outbox_entries_max: 1, retention_ms: u64::MAX, ..Config::default() };
    let bed = Bed::with(config);
    bed.call("set", json!({"scope": "s", "key": "k", "value": 1, "ttl_ms": 1000}));
    let listener = bed.another("listener");
    bind(&listener, "hear", "state", "listener::hear", json!({"scope": "s"})).unwrap();
    // The one event that there is room for waits for a function that is not there.
    bed.set("s", "other", json!(1));
    bed.clock.set(NOW_MS + 1000);
    let full = bed.refusal("set", json!({"scope": "s", "key": "third", "value": 1})).1;
    assert!(full.message.contains("outbox_entries_max"), "{full}");
    assert_eq!(entries(&bed), (2, 1), "it expired without an event");
    let told = hear(&listener, "listener::hear");
    wait_for_expiries(&bed, 0);
    assert_eq!(
        [(); 2].map(|()| told.recv_timeout(PATIENCE).unwrap()["key"].clone()),
        [json!("other"), json!("k")]
    );
}

/// A store in which the value of one key cannot be read.
#[derive(Debug)]
struct Rotten(Arc<Embedded>);

#[derive(Debug)]
struct RottenSnapshot(Box<dyn Snapshot>);

impl Snapshot for RottenSnapshot {
    fn revision(&self) -> u64 {
        self.0.revision()
    }

    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        if table == "state" && key.ends_with(b"rotten") {
            let (table, key) = (table.to_owned(), key.to_vec());
            return Err(StoreError::Corrupt { table, key, reason: "for a test".to_owned() });
        }
        self.0.get(table, key)
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<Entry>, StoreError> {
        self.0.scan(scan)
    }

    fn all(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<Joined>, StoreError> {
        self.0.all(after, limit)
    }
}

impl Store for Rotten {
    fn submit(&self, batch: Batch, durability: Durability, done: Done) -> Result<(), StoreError> {
        self.0.submit(batch, durability, done)
    }

    fn wait_for_room(&self) {
        self.0.wait_for_room();
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(RottenSnapshot(self.0.snapshot()?)))
    }
}

#[test]
fn a_value_that_cannot_be_read_keeps_no_other_from_expiring() {
    let mut bed = Bed::on(Options::default(), Config::default(), |store| store);
    for (key, ttl_ms) in [("before", 1000), ("rotten", 1001), ("behind", 1002), ("late", 5000)] {
        bed.call("set", json!({"scope": "s", "key": key, "value": 1, "ttl_ms": ttl_ms}));
    }
    bed.stop();
    bed.wrap(|store| Arc::new(Rotten(store)));
    bed.start();
    bed.clock.set(NOW_MS + 1002);
    wait_for_expiries(&bed, 1);
    bed.call("set", json!({"scope": "s", "key": "later", "value": 1, "ttl_ms": 1000}));
    wait_for_expiries(&bed, 1);
    assert_eq!(bed.call("info", json!({}))["unreadable"], 1, "reported more than once");
}
