//! Logs: offsets, reading from anywhere, consumers, tails, restarts.

use std::collections::BTreeSet;

use ringway_worker_stream::{Config, StreamConfig, StreamDurability};
use serde_json::{Value, json};

use crate::bed::{Bed, NOW_MS, next};

fn offsets(read: &Value) -> Vec<u64> {
    read["entries"].as_array().unwrap().iter().map(|entry| entry["offset"].as_u64().unwrap()).collect()
}

#[test]
fn offsets_grow_by_one_and_outlive_a_restart() {
    let mut bed = Bed::new();
    assert_eq!((1..=5).map(|n| bed.append(json!(n))).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    bed.restart();
    assert_eq!(bed.append(json!(6)), 6);
    let read = bed.read(json!({}));
    let data: Vec<&Value> = read["entries"].as_array().unwrap().iter().map(|entry| &entry["data"]).collect();
    assert_eq!(data, [&json!(1), &json!(2), &json!(3), &json!(4), &json!(5), &json!(6)]);
    assert_eq!(
        (&read["next_offset"], &read["last_offset"], &read["missed"]),
        (&json!(7), &json!(6), &json!(0))
    );
    assert_eq!(read["entries"][0]["type"], "append");
    // The group without a name is another one.
    assert_eq!(bed.call("append", json!({"stream_name": "s", "data": null})), json!({"offset": 1}));
}

#[test]
fn reading_begins_anywhere_and_goes_page_by_page() {
    let bed = Bed::new();
    for n in 0..30_u64 {
        bed.clock.set(NOW_MS + 10 * n);
        bed.append(json!(n));
    }
    let mut from = json!(0);
    let mut seen = Vec::new();
    loop {
        let page = bed.read(json!({"from_offset": from, "limit": 7}));
        seen.extend(offsets(&page));
        if page["entries"].as_array().unwrap().is_empty() {
            break;
        }
        from = page["next_offset"].clone();
    }
    assert_eq!(seen, (1..=30).collect::<Vec<_>>());
    for (time_ms, first) in [(0, Some(1)), (100, Some(11)), (101, Some(12)), (290, Some(30)), (291, None)] {
        let read = bed.read(json!({"from_time_ms": NOW_MS + time_ms, "limit": 1}));
        assert_eq!(offsets(&read).first().copied(), first, "{time_ms}");
    }
    // A clock that is set back does not disturb the order of times.
    bed.clock.set(NOW_MS);
    bed.append(json!("late"));
    let last = bed.read(json!({"from_offset": 31}))["entries"][0]["timestamp"].clone();
    assert_eq!(last, NOW_MS + 290);
    assert_eq!(bed.read(json!({"from_offset": 99}))["entries"], json!([]));
}

#[test]
fn appends_are_on_disk_when_they_are_acknowledged_and_share_the_disk() {
    let fast = StreamConfig { durability: Some(StreamDurability::Ephemeral), ..StreamConfig::default() };
    let bed = Bed::with(Config { streams: [("fast".to_owned(), fast)].into(), ..Config::default() });
    let before = bed.metrics().syncs;
    for n in 0..5 {
        bed.append(json!(n));
    }
    let durable = bed.metrics().syncs;
    assert!(durable >= before + 5, "{before} to {durable}: one was acknowledged without a sync");
    for n in 0..5 {
        bed.call("append", json!({"stream_name": "fast", "data": n}));
    }
    assert_eq!(bed.metrics().syncs, durable, "an ephemeral stream waited for the disk");
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for n in 0..20 {
                    bed.append(json!(n));
                }
            });
        }
    });
    let seen: BTreeSet<u64> = offsets(&bed.read(json!({"limit": 1000}))).into_iter().collect();
    assert_eq!(seen.len(), 325);
    assert!(bed.metrics().syncs < durable + 320, "every append had a sync of its own");
}

#[test]
fn consumers_go_on_where_they_were() {
    let mut bed = Bed::new();
    for n in 0..10 {
        bed.append(json!(n));
    }
    let read = |bed: &Bed, consumer: &str| offsets(&bed.read(json!({"consumer": consumer, "limit": 4})));
    assert_eq!(read(&bed, "a"), [1, 2, 3, 4]);
    let commit = |bed: &Bed, offset: u64| {
        bed.call("commit", json!({"stream_name": "s", "group_id": "g", "consumer": "a", "offset": offset}))
    };
    assert_eq!(commit(&bed, 4), json!({"committed": 4}));
    bed.restart();
    assert_eq!(read(&bed, "a"), [5, 6, 7, 8]);
    assert_eq!(read(&bed, "b"), [1, 2, 3, 4]);
    let consumers = bed.call("consumers", json!({"stream_name": "s", "group_id": "g"}));
    assert_eq!(
        consumers,
        json!({"consumers": [{"consumer": "a", "committed": 4, "behind": 6, "timestamp": NOW_MS}], "last_offset": 10})
    );
    commit(&bed, 0);
    assert_eq!(read(&bed, "a"), [1, 2, 3, 4]);
}

#[test]
fn a_tail_follows_the_log_and_members_take_turns() {
    let bed = Bed::new();
    bed.append(json!("before"));
    let plain = bed.open("tail", json!({}));
    assert_eq!(next(&plain), json!({"type": "tailing", "next_offset": 2}));
    let first = bed.open("tail", json!({"consumer": "c"}));
    assert_eq!(next(&first)["next_offset"], 1);
    assert_eq!(next(&first)["data"], "before");
    let second = bed.open("tail", json!({"consumer": "c"}));
    bed.append(json!("after"));
    assert_eq!(
        (next(&plain)["data"].clone(), next(&first)["data"].clone()),
        (json!("after"), json!("after"))
    );
    bed.call("commit", json!({"stream_name": "s", "group_id": "g", "consumer": "c", "offset": 1}));
    // The next member takes over what the first has not committed.
    drop(first);
    assert_eq!(next(&second), json!({"type": "tailing", "next_offset": 2}));
    assert_eq!(next(&second)["data"], "after");
    let past = bed.open("tail", json!({"from_offset": 1}));
    assert_eq!((next(&past)["next_offset"].clone(), next(&past)["offset"].clone()), (json!(1), json!(1)));
}
