//! What is there after closing and opening, what others read in the bucket, and what happens when they write there.

use std::time::Duration;

use ringway_store::{Batch, Damage, Durability, Scan, Store, StoreError};
use ringway_store_nats::NatsStore;
use ringway_store_nats::testing::{Server, wait_for};

use crate::tools::{Stranger, bytes, open};

const DURABLE: Durability = Durability::Durable;

#[test]
fn what_is_kept_can_be_read_in_the_bucket() {
    let server = Server::start();
    let (store, _) = open(&server, "shop");
    let stranger = Stranger::at(&server);
    let batch = Batch::new().put("state", b"orders/7", &b"paid"[..]).put("state", b"orders 8", &b"open"[..]);
    store.commit(batch, DURABLE).unwrap();
    let read = |key: &str| stranger.read("ringway-shop", key);
    assert_eq!(wait_for(|| read("state.orders/7")), b"paid");
    assert_eq!(wait_for(|| read("state.orders=208")), b"open");
    store.commit(Batch::new().delete("state", b"orders/7"), DURABLE).unwrap();
    wait_for(|| read("state.orders/7").is_none().then_some(()));
    assert!(read("ringway-owner").is_some_and(|owner| owner.ends_with(b" on \n") || owner.contains(&b' ')));
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn everything_is_there_after_opening_again() {
    let server = Server::start();
    let long_key = vec![7; 2048];
    let large = |byte: u8| vec![byte; 3 << 20];
    let mut last = 0;
    for round in 0..3_u8 {
        let (store, report) = open(&server, "shop");
        assert_eq!(report.damage, []);
        if round > 0 {
            assert_eq!(report.revision, last);
            assert_eq!(bytes(&store, "t", &long_key), Some(vec![round - 1]));
            let found = bytes(&store, "t", b"large");
            assert_eq!(found, Some(if round == 1 { large(0) } else { vec![1] }));
        }
        let batch = Batch::new().put("t", &long_key, vec![round]).put("t", b"", vec![round]);
        store
            .commit(batch.put("t", b"large", if round == 0 { large(0) } else { vec![round] }), DURABLE)
            .unwrap();
        for number in 0..200_u32 {
            let key = [&[round][..], &number.to_be_bytes()].concat();
            last = store.commit(Batch::new().put("t", &key, vec![round; 100]), DURABLE).unwrap();
        }
        assert_eq!(store.verify().unwrap(), []);
        if round == 1 {
            // As by a crash: nothing more is written.
            store.close().unwrap();
        } else {
            drop(store);
        }
    }
    let (store, _) = open(&server, "shop");
    assert_eq!(store.scan(&Scan::table("t")).unwrap().len(), 3 * 200 + 3);
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn the_log_is_cut_and_revisions_go_on() {
    let server = Server::start();
    let stranger = Stranger::at(&server);
    let (store, _) = open(&server, "shop");
    let mut last = 0;
    for number in 0..300_u32 {
        let key = number.to_be_bytes();
        store.commit(Batch::new().put("t", &key, vec![0; 100]), DURABLE).unwrap();
        last = store.commit(Batch::new().delete("t", &key), DURABLE).unwrap();
    }
    wait_for(|| (stranger.count("ringway-shop-log") < 100).then_some(()));
    store.close().unwrap();
    let (store, report) = open(&server, "shop");
    assert!(report.replayed < 300, "{report:?}");
    assert_eq!(report.revision, last, "though nothing is left that has a revision");
    assert_eq!(store.scan(&Scan::table("t")).unwrap(), []);
    assert!(store.commit(Batch::new(), DURABLE).unwrap() > last);
}

#[test]
fn what_the_bucket_has_half_is_taken_from_the_log() {
    let server = Server::start();
    let stranger = Stranger::at(&server);
    let mut options = server.options("shop");
    options.keep = Duration::from_secs(300);
    let value = vec![7; 2 << 20];
    let (store, _) = NatsStore::open(options.clone()).unwrap();
    store.commit(Batch::new().put("t", b"large", &b"before"[..]), DURABLE).unwrap();
    store.commit(Batch::new().put("t", b"large", value.clone()), DURABLE).unwrap();
    store.close().unwrap();
    // As by a crash between the messages of a pass.
    stranger.remove("KV_ringway-shop", "$KV.ringway-shop.t.large.1");
    let (store, _) = NatsStore::open(options.clone()).unwrap();
    assert_eq!(bytes(&store, "t", b"large").as_ref(), Some(&value));
    store.close().unwrap();
    let (store, _) = NatsStore::open(options).unwrap();
    assert_eq!(store.verify().unwrap(), [], "the bucket has it again");
    assert_eq!(bytes(&store, "t", b"large"), Some(value));
}

#[test]
fn what_others_write_in_the_bucket_is_told_and_never_served() {
    let server = Server::start();
    let stranger = Stranger::at(&server);
    let (store, _) = open(&server, "shop");
    let put =
        |key: &[u8], value: &[u8]| store.commit(Batch::new().put("t", key, value.to_vec()), DURABLE).unwrap();
    put(b"a", b"1");
    put(b"b", b"1");
    wait_for(|| stranger.read("ringway-shop", "t.b"));
    stranger.publish("$KV.ringway-shop.t.a", "forged");
    stranger.publish("$KV.ringway-shop.odd", "thing");
    let damage = store.verify().unwrap();
    assert_eq!(damage.len(), 2, "{damage:?}");
    // Ours goes on behind theirs, and its log is cut.
    put(b"b", b"2");
    wait_for(|| stranger.read("ringway-shop", "t.b").filter(|value| value == b"2"));
    put(b"c", b"1");
    wait_for(|| (stranger.count("ringway-shop-log") <= 2).then_some(()));
    assert_eq!(bytes(&store, "t", b"a"), Some(b"1".to_vec()), "memory has it still");
    store.close().unwrap();
    let (store, report) = open(&server, "shop");
    let table = String::new();
    assert!(
        report.damage.iter().any(|damage| matches!(damage, Damage::Entry { table: found, key, .. } if *found == table && key == b"odd")),
        "{report:?}"
    );
    assert!(matches!(store.get("t", b"a"), Err(StoreError::Corrupt { .. })));
    assert_eq!(bytes(&store, "t", b"b"), Some(b"2".to_vec()));
    // Writing it anew mends it.
    store.commit(Batch::new().put("t", b"a", &b"3"[..]), DURABLE).unwrap();
    assert_eq!(bytes(&store, "t", b"a"), Some(b"3".to_vec()));
}
