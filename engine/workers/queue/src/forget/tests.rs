//! The forgetter against a store: it keeps pace, misses nothing that comes late, and leaves alone what was taken again.

use parking_lot::Mutex;
use ringway_store::store::Done;
use ringway_store::{Embedded, Options, Snapshot, Value};
use tempfile::TempDir;

use super::*;
use crate::record::{DoneRecord, End, IdempotencyRecord, Place, ReceiptRecord};

const NOW: u64 = 1_000_000;

fn open() -> (TempDir, Arc<Embedded>) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 48 << 20, ..Options::default() };
    let store = Embedded::open(folder.path(), options).unwrap().0;
    (folder, Arc::new(store))
}

fn commit(store: &dyn Store, writes: Writes) {
    store.commit(writes.into_batch(), Durability::Ephemeral).unwrap();
}

/// The end of a message, to be forgotten at a time.
fn done(writes: &mut Writes, seq: u64, at_ms: u64) {
    let place = Place::new("q", seq);
    let id = format!("id {seq}");
    let record =
        DoneRecord { end: End::Done, at_ms: 1, attempts: 1, receipt: Some(id.clone()), steps: false };
    writes.put(record::DONE, place.key(), &record);
    writes.put(record::RECEIPT, id.into_bytes(), &ReceiptRecord { queue: "q".into(), seq });
    writes.forget(at_ms, &Forget::Done(place.key()));
}

fn key(writes: &mut Writes, expires_ms: u64) {
    let key = record::pair_key("q", "k");
    writes.put(record::IDEMPOTENCY, key.clone(), &IdempotencyRecord { id: "q:1".into(), expires_ms });
    writes.forget(expires_ms, &Forget::Idempotency(key));
}

fn count(store: &dyn Store, table: &str) -> usize {
    store.scan(&Scan::table(table)).unwrap().len()
}

#[test]
fn it_keeps_pace_with_whatever_is_enqueued() {
    let (_folder, store) = open();
    let all = 3 * AT_ONCE as u64 + 7;
    for first in (0..all).step_by(1000) {
        let mut writes = Writes::default();
        (first..all.min(first + 1000)).for_each(|seq| done(&mut writes, seq, NOW - 1));
        commit(&*store, writes);
    }
    // The clock stands still: no number of messages needs a second one to be forgotten.
    let (forgetter, clock) = (Forgetter::default(), Clock::manual(NOW));
    let thread = forgetter.start(store.clone(), clock).unwrap();
    while [record::EXPIRY, record::DONE, record::RECEIPT].iter().any(|table| count(&*store, table) > 0) {
        std::thread::yield_now();
    }
    forgetter.stop();
    thread.join().unwrap();
}

#[test]
fn what_is_noted_late_for_an_earlier_time_is_not_passed_over() {
    let (_folder, store) = open();
    let (forgetter, clock) = (Forgetter::default(), Clock::manual(NOW));
    let mut writes = Writes::default();
    done(&mut writes, 1, NOW - 100);
    done(&mut writes, 2, NOW + 5000);
    commit(&*store, writes);
    let thread = forgetter.start(store.clone(), clock.clone()).unwrap();
    while count(&*store, record::DONE) > 1 {
        std::thread::yield_now();
    }
    // Its commit took longer than those of later times.
    let mut writes = Writes::default();
    done(&mut writes, 3, NOW - 5000);
    let at_ms = first_of(&writes).unwrap();
    commit(&*store, writes);
    forgetter.note(at_ms);
    clock.set(NOW + 2 * PAUSE_MS);
    while count(&*store, record::DONE) > 1 {
        std::thread::yield_now();
    }
    assert_eq!(count(&*store, record::RECEIPT), 1, "the one that is not over");
    forgetter.stop();
    thread.join().unwrap();
}

/// A store in which somebody takes the key again as soon as the forgetter has read it.
#[derive(Debug)]
struct Renewing(Arc<Embedded>, Mutex<bool>);

impl Store for Renewing {
    fn submit(&self, batch: Batch, durability: Durability, done: Done) -> Result<(), StoreError> {
        self.0.submit(batch, durability, done)
    }

    fn wait_for_room(&self) {
        self.0.wait_for_room();
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.0.snapshot()
    }

    fn get(&self, table: &str, at: &[u8]) -> Result<Option<Value>, StoreError> {
        let read = self.0.get(table, at);
        if table == record::IDEMPOTENCY && !std::mem::replace(&mut *self.1.lock(), true) {
            let mut writes = Writes::default();
            key(&mut writes, NOW + 1000);
            commit(&*self.0, writes);
        }
        read
    }
}

#[test]
fn a_key_that_is_taken_again_meanwhile_stays() {
    let (_folder, store) = open();
    let mut writes = Writes::default();
    key(&mut writes, NOW - 1);
    commit(&*store, writes);
    let renewing = Renewing(store.clone(), Mutex::new(false));
    let mut passed = Vec::new();
    let met = forget(&renewing, &mut passed, NOW);
    assert!(matches!(met, Err(StoreError::Precondition { .. })), "it has changed since it was read");
    assert!(matches!(forget(&renewing, &mut passed, NOW), Ok(Found::Until(Some(at))) if at == NOW + 1000));
    assert_eq!(count(&*store, record::IDEMPOTENCY), 1);
    assert_eq!(count(&*store, record::EXPIRY), 1, "when the new one is to be forgotten");
    forget(&renewing, &mut passed, NOW + 1001).map(drop).unwrap();
    assert_eq!(count(&*store, record::IDEMPOTENCY), 0);
}

#[test]
fn an_id_that_another_message_has_now_stays() {
    let (_folder, store) = open();
    let mut writes = Writes::default();
    done(&mut writes, 1, NOW - 1);
    writes.put(record::RECEIPT, b"id 1".to_vec(), &ReceiptRecord { queue: "q".into(), seq: 9 });
    commit(&*store, writes);
    forget(&*store, &mut Vec::new(), NOW).map(drop).unwrap();
    assert_eq!((count(&*store, record::DONE), count(&*store, record::RECEIPT)), (0, 1));
}
