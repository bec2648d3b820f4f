//! A store that refuses for a while, around the real one: slots wait until they can be written down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringway_store::store::Done;
use ringway_store::{Batch, Durability, Snapshot, Store, StoreError};
use serde_json::{Value, json};

use crate::stage::{START, Stage, slot};

#[derive(Debug)]
struct Refusing {
    inner: Arc<dyn Store>,
    full: Arc<AtomicBool>,
    /// Whether the refusal comes at once, or when the commit ends.
    late: bool,
}

impl Store for Refusing {
    fn submit(&self, batch: Batch, durability: Durability, done: Done) -> Result<(), StoreError> {
        if !self.full.load(Ordering::Acquire) {
            return self.inner.submit(batch, durability, done);
        }
        let full = StoreError::DiskFull { folder: "/data".into(), reason: "no space left".to_owned() };
        if self.late {
            std::thread::spawn(move || done(Err(full)));
            return Ok(());
        }
        Err(full)
    }

    fn wait_for_room(&self) {
        self.inner.wait_for_room();
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.inner.snapshot()
    }
}

#[test]
fn a_slot_that_cannot_be_written_down_is_fired_when_it_can() {
    for late in [false, true] {
        let full = Arc::new(AtomicBool::new(false));
        let switch = Arc::clone(&full);
        let stage = Stage::over(|inner| Arc::new(Refusing { inner, full: switch, late }));
        stage.bind("patient", json!({"expression": "* * * * *"})).unwrap();
        full.store(true, Ordering::Release);
        stage.set(60);
        let job = stage.until(|job| job["problem"] != Value::Null && job["running"] == 0, "a complaint");
        assert!(job["problem"].as_str().unwrap().contains("the disk of /data is full"), "{job}");
        assert_eq!((&job["waiting"], stage.diary.payloads().len()), (&json!(1), 0));
        let refused = stage.call("cron::pause", &json!({"id": "patient"})).unwrap_err();
        assert!(refused.message.contains("full"), "{refused}");
        stage.call("cron::resume", &json!({"id": "patient"})).unwrap_err();
        assert_eq!(stage.job("patient")["paused"], false);
        full.store(false, Ordering::Release);
        stage.clock.set(START + 61_001);
        assert_eq!(stage.diary.slots(1), [slot(60)]);
        assert_eq!(stage.settled("patient")["problem"], Value::Null);
    }
}
