//! Servers and engines killed at random under load: what was acknowledged is there, what was refused is not, and nothing is
//! half.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ringway_store::{Batch, Durability, Scan, Store, StoreError};
use ringway_store_nats::testing::Server;
use ringway_store_nats::{NatsOptions, NatsStore};

use crate::tools::{dice, open, rounds};

const SERVER: &str = "RINGWAY_NATS_KILL_CHILD";

/// Writers at once.
const WRITERS: u8 = 3;

fn key(writer: u8, number: u64) -> Vec<u8> {
    [&[writer][..], &number.to_be_bytes()].concat()
}

fn pair(writer: u8, number: u64, length: usize) -> Batch {
    let (key, value) = (key(writer, number), vec![writer; length]);
    Batch::new().put("a", &key, value.clone()).put("b", &key, value)
}

fn keys(store: &impl Store, table: &str) -> BTreeSet<Vec<u8>> {
    store.scan(&Scan::table(table)).unwrap().into_iter().map(|entry| entry.key).collect()
}

#[test]
fn what_was_acknowledged_survives_a_killed_server() {
    let mut dice = dice();
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
                    // Now and then one that takes several messages.
                    let length = if number % 17 == 0 { 1 << 20 } else { 300 };
                    match store.commit(pair(writer, number, length), Durability::Durable) {
                        Ok(_) => drop(acknowledged.lock().insert(key(writer, number))),
                        Err(StoreError::Unavailable { .. }) => {
                            *refused.lock() += 1;
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        Err(error) => panic!("wanted a commit or a refusal, found: {error}"),
                    }
                    if let Some(old) = number.checked_sub(40) {
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

/// The child's life: each writer commits pairs and says each number that was acknowledged. Does nothing without its server,
/// as when all tests are run.
#[test]
fn child() {
    let Ok(server) = std::env::var(SERVER) else { return };
    let mut options = NatsOptions::new("shop");
    options.servers = vec![server];
    options.gather = Duration::from_millis(10);
    options.keep = Duration::from_millis(100);
    let (store, report) = NatsStore::open(options).unwrap();
    assert_eq!(report.damage, []);
    let numbers = |writer: u8| {
        let entries = store.scan(&Scan::table("a").prefix(&[writer])).unwrap();
        entries.last().map_or(0, |entry| u64::from_be_bytes(entry.key[1..].try_into().unwrap()) + 1)
    };
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, first) = (&store, numbers(writer));
            scope.spawn(move || {
                for number in first.. {
                    let length = if number % 17 == 0 { 1 << 20 } else { 300 };
                    let old = number.checked_sub(40).map(|old| key(writer, old));
                    let batch = old.into_iter().fold(pair(writer, number, length), |batch, old| {
                        batch.delete("a", &old).delete("b", &old)
                    });
                    store.commit(batch, Durability::Durable).unwrap();
                    let mut line = std::io::stdout().lock();
                    writeln!(line, "acknowledged {writer} {number}").unwrap();
                    line.flush().unwrap();
                }
            });
        }
    });
}

#[test]
fn what_was_acknowledged_survives_a_killed_engine() {
    let mut dice = dice();
    let server = Server::start();
    let mut expected = [None; WRITERS as usize];
    let mut total = 0;
    for round in 0..rounds(6) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["nats_kill::child", "--exact", "--nocapture"])
            .env(SERVER, server.url())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            lines.filter_map(|line| Some(line.split_once("acknowledged ")?.1.to_owned())).collect::<Vec<_>>()
        });
        std::thread::sleep(Duration::from_millis(200 + dice.below(500)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            // The last line may be cut short.
            let Some((writer, number)) = line.split_once(' ') else { continue };
            let (Ok(writer), Ok(number)) = (writer.parse::<usize>(), number.parse::<u64>()) else { continue };
            expected[writer] = expected[writer].max(Some(number));
            total += 1;
        }
        let (store, report) = open(&server, "shop");
        assert_eq!(report.damage, [], "round {round}");
        assert_eq!(keys(&store, "a"), keys(&store, "b"), "round {round}: a batch was cut in two");
        for writer in 0..WRITERS {
            let entries = store.scan(&Scan::table("a").prefix(&[writer])).unwrap();
            let numbers: Vec<u64> =
                entries.iter().map(|entry| u64::from_be_bytes(entry.key[1..].try_into().unwrap())).collect();
            let last = numbers.last().copied();
            assert!(last >= expected[usize::from(writer)], "round {round}: {last:?} of {expected:?}");
            let Some(last) = last else { continue };
            assert_eq!(numbers, (last.saturating_sub(39)..=last).collect::<Vec<_>>(), "round {round}: a gap");
        }
        assert_eq!(store.verify().unwrap(), [], "round {round}");
        store.close().unwrap();
    }
    println!("{total} commits acknowledged");
    assert!(total > 0, "no child lived long enough to commit");
}
