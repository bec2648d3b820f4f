//! Many writers at once: none is lost, none starves, and they share commits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use parking_lot::Mutex;
use ringway_store::store::Done;
use ringway_store::testing::faults::{Fault, Faults};
use ringway_store::{Batch, Durability, Embedded, Options, Snapshot, Store, StoreError};
use ringway_worker_state::Config;
use serde_json::json;

use crate::bed::Bed;

#[test]
fn sixty_four_writers_of_one_key_lose_nothing() {
    const WRITERS: usize = 64;
    const EACH: usize = 20;
    let bed = Bed::new();
    let together = Barrier::new(WRITERS);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                together.wait();
                for _ in 0..EACH {
                    let ops = json!([{"type": "increment", "path": "n", "by": 1}]);
                    bed.call("update", json!({"scope": "s", "key": "k", "ops": ops}));
                }
            });
        }
    });
    assert_eq!(bed.get("s", "k"), json!({"n": WRITERS * EACH}));
    let metrics = bed.metrics();
    assert!(metrics.refused == 0, "a writer had to begin anew: {metrics:?}");
    assert!(metrics.largest_group > 1, "writers of one key wait for a disk each: {metrics:?}");
}

#[test]
fn one_of_many_wins_each_revision() {
    const WRITERS: usize = 16;
    const ROUNDS: u64 = 10;
    let bed = Bed::new();
    let wins = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                loop {
                    let found = bed.call("get", json!({"scope": "s", "key": "k", "with_revision": true}));
                    let n = found["value"].as_u64().unwrap_or(0);
                    if n == ROUNDS {
                        return;
                    }
                    let request =
                        json!({"scope": "s", "key": "k", "value": n + 1, "if_revision": found["revision"]});
                    match bed.try_call("set", request) {
                        Ok(_) => drop(wins.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => {
                            assert_eq!(error.user_code.as_deref(), Some("REVISION_MISMATCH"), "{error}");
                        }
                    }
                }
            });
        }
    });
    assert_eq!(wins.into_inner(), ROUNDS, "two won the same revision, or one who was told so did not");
}

#[test]
fn transfers_between_keys_keep_the_sum() {
    const WRITERS: u64 = 12;
    let bed = Bed::new();
    for key in 0..4 {
        bed.set("s", &key.to_string(), json!({"n": 100}));
    }
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let bed = &bed;
            scope.spawn(move || {
                for round in 0..10 {
                    let (from, to) = ((writer + round) % 4, (writer + 2 * round + 1) % 4);
                    let op = |key: u64, by: i64| {
                        json!({"type": "update", "scope": "s", "key": key.to_string(),
                               "ops": [{"type": "increment", "path": "n", "by": by}]})
                    };
                    bed.call("transaction", json!({"operations": [op(from, -1), op(to, 1)]}));
                }
            });
        }
    });
    let all = bed.call("list", json!({"scope": "s"}));
    let sum: i64 = all.as_array().unwrap().iter().map(|value| value["n"].as_i64().unwrap()).sum();
    assert_eq!(sum, 400);
}

#[test]
fn a_disk_that_is_full_for_a_while_loses_nothing_that_was_acknowledged() {
    const WRITERS: usize = 16;
    let faults = Faults::default();
    let options = Options { files: Arc::new(faults.clone()), memory_bytes: 32 << 10, ..Options::default() };
    let bed = Bed::on(options, Config::default(), |store| store);
    bed.set("s", "k", json!({"n": 0, "padding": "x".repeat(1000)}));
    let (acknowledged, refused, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let ops = json!([{"type": "increment", "path": "n", "by": 1}]);
                    match bed.try_call("update", json!({"scope": "s", "key": "k", "ops": ops})) {
                        Ok(_) => acknowledged.fetch_add(1, Ordering::SeqCst),
                        Err(error) => {
                            assert_eq!(error.user_code.as_deref(), Some("UPDATE_ERROR"), "{error}");
                            assert!(error.message.contains("full"), "{error}");
                            refused.fetch_add(1, Ordering::SeqCst)
                        }
                    };
                }
            });
        }
        let reach = |counter: &AtomicU64, more: u64| {
            let from = counter.load(Ordering::SeqCst);
            while counter.load(Ordering::SeqCst) < from + more {
                std::thread::yield_now();
            }
        };
        for _ in 0..3 {
            reach(&acknowledged, 50);
            faults.set(Some(Fault::Full));
            reach(&refused, 50);
            faults.set(None);
        }
        reach(&acknowledged, 50);
        over.store(true, Ordering::SeqCst);
    });
    assert_eq!(bed.get("s", "k")["n"], json!(acknowledged.into_inner()));
}

/// What the next batch meets.
#[derive(Default)]
enum Turn {
    #[default]
    Open,
    /// It is held.
    Closed,
    /// The one that is held is refused before it.
    Held(Done),
}

/// A store that refuses a batch only after the next has come.
struct Turnstile {
    store: Arc<Embedded>,
    turn: Arc<Mutex<Turn>>,
}

impl std::fmt::Debug for Turnstile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Turnstile")
    }
}

impl Store for Turnstile {
    fn submit(&self, batch: Batch, durability: Durability, done: Done) -> Result<(), StoreError> {
        let mut turn = self.turn.lock();
        match std::mem::take(&mut *turn) {
            Turn::Open => {}
            Turn::Closed => {
                *turn = Turn::Held(done);
                return Ok(());
            }
            Turn::Held(held) => {
                held(Err(StoreError::DiskFull { folder: "here".into(), reason: "for a test".to_owned() }));
            }
        }
        self.store.submit(batch, durability, done)
    }

    fn wait_for_room(&self) {
        self.store.wait_for_room();
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.store.snapshot()
    }
}

#[test]
fn who_builds_on_a_change_that_fails_builds_anew() {
    let turn = Arc::new(Mutex::new(Turn::Open));
    let shared = Arc::clone(&turn);
    let bed = Bed::on(Options::default(), Config::default(), move |store| {
        Arc::new(Turnstile { store, turn: Arc::clone(&shared) })
    });
    let add = |by: u32| {
        let ops = json!([{"type": "increment", "path": "n", "by": by}]);
        bed.try_call("update", json!({"scope": "s", "key": "k", "ops": ops}))
    };
    add(1).unwrap();
    *turn.lock() = Turn::Closed;
    std::thread::scope(|scope| {
        let first = scope.spawn(|| add(10));
        while !matches!(*turn.lock(), Turn::Held(_)) {
            std::thread::yield_now();
        }
        let second = add(100).unwrap();
        assert_eq!((&second["old_value"], &second["new_value"]), (&json!({"n": 1}), &json!({"n": 101})));
        assert!(first.join().unwrap().unwrap_err().message.contains("full"));
    });
    assert_eq!(bed.get("s", "k"), json!({"n": 101}));
}
