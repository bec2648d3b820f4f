//! Servers and engines killed at random under load: what was acknowledged is there, what was refused is not, and nothing is
//! half.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ringway_store::testing::dice::{Dice, rounds};
use ringway_store::testing::killed::{self, Acknowledged, WRITERS, key, pair};
use ringway_store::{Batch, Durability, Scan, Store, StoreError};
use ringway_store_nats::testing::Server;
use ringway_store_nats::{NatsOptions, NatsStore};

use crate::tools::open;

const SERVER: &str = "RINGWAY_NATS_KILL_CHILD";

/// Pairs of each writer that are not removed.
const KEPT: u64 = 40;

/// Bytes of a value: now and then one that takes several messages.
fn length(number: u64) -> usize {
    if number.is_multiple_of(17) { 1 << 20 } else { 300 }
}

fn keys(store: &impl Store, table: &str) -> BTreeSet<Vec<u8>> {
    store.scan(&Scan::table(table)).unwrap().into_iter().map(|entry| entry.key).collect()
}

#[test]
fn what_was_acknowledged_survives_a_killed_server() {
    let mut dice = Dice::of_environment();
    let mut server = Server::start();
    let (store, _) = open(&server, "shop");
    let stop = AtomicBool::new(false);
    let acknowledged: Mutex<BTreeSet<Vec<u8>>> = Mutex::default();
    let refused = Mutex::new(0_u64);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, stop, acknowledged, refused) = (&store, &stop, &acknowledged, &refused);
            scope.spawn(move || {
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    match store.commit(pair(writer, number, length(number)), Durability::Durable) {
                        Ok(_) => drop(acknowledged.lock().insert(key(writer, number))),
                        Err(StoreError::Unavailable { .. }) => {
                            *refused.lock() += 1;
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        Err(error) => panic!("wanted a commit or a refusal, found: {error}"),
                    }
                    if let Some(old) = number.checked_sub(KEPT) {
                        let key = key(writer, old);
                        let batch = Batch::new().delete("a", &key).delete("b", &key);
                        match store.commit(batch, Durability::Durable) {
                            Ok(_) => drop(acknowledged.lock().remove(&key)),
                            Err(StoreError::Unavailable { .. }) => {}
                            Err(error) => panic!("wanted a commit or a refusal, found: {error}"),
                        }
                    }
                }
            });
        }
        for _ in 0..rounds(6) {
            std::thread::sleep(Duration::from_millis(100 + dice.below(300)));
            server.kill();
            // Sometimes long enough for refusals.
            std::thread::sleep(Duration::from_millis(dice.below(500)));
            server.restart();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let acknowledged = acknowledged.into_inner();
    println!("{} acknowledged and kept, {} refused", acknowledged.len(), refused.into_inner());
    assert!(!acknowledged.is_empty());
    let check = |store: &NatsStore| {
        assert_eq!(keys(store, "a"), keys(store, "b"), "a batch was cut in two");
        // Both ways: everything acknowledged is there, and nothing else.
        assert_eq!(keys(store, "a"), acknowledged);
    };
    check(&store);
    store.close().unwrap();
    let (store, report) = open(&server, "shop");
    assert_eq!(report.damage, []);
    check(&store);
    assert_eq!(store.verify().unwrap(), []);
}

/// The child's life. Does nothing without its server, as when all tests are run.
#[test]
fn child() {
    let Ok(server) = std::env::var(SERVER) else { return };
    let mut options = NatsOptions::new("shop");
    options.servers = vec![server];
    options.gather = Duration::from_millis(10);
    options.keep = Duration::from_millis(100);
    let (store, report) = NatsStore::open(options).unwrap();
    assert_eq!(report.damage, []);
    killed::live(&store, KEPT, length);
}

#[test]
fn what_was_acknowledged_survives_a_killed_engine() {
    let (mut dice, server, mut acknowledged) =
        (Dice::of_environment(), Server::start(), Acknowledged::default());
    for round in 0..rounds(6) {
        let life = Duration::from_millis(200 + dice.below(500));
        acknowledged.by_child("nats_kill::child", (SERVER, server.url().as_ref()), life);
        let (store, report) = open(&server, "shop");
        assert_eq!(report.damage, [], "round {round}");
        acknowledged.assert_kept(&store, KEPT, &format!("round {round}"));
        assert_eq!(store.verify().unwrap(), [], "round {round}");
        store.close().unwrap();
    }
    println!("{} commits acknowledged", acknowledged.total);
    assert!(acknowledged.total > 0, "no child lived long enough to commit");
}
