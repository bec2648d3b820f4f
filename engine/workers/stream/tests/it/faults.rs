//! A disk that is full, one that fails, and an engine whose machine loses power: what was acknowledged is there, and what was
//! refused is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringway_store::Options;
use ringway_store::files::Disk;
use ringway_store::testing::dice::Dice;
use ringway_store::testing::faults::{Fault, Faults};
use ringway_store::testing::power::Power;
use ringway_worker_stream::Config;
use serde_json::{Value, json};

use crate::bed::Bed;

#[test]
fn writers_on_a_full_disk_are_refused_and_go_on_when_there_is_room() {
    let faults = Faults::default();
    // Memory that is full at once, so that the store soon needs room for more files.
    let options = Options { files: Arc::new(faults.clone()), memory_bytes: 32 << 10, ..Options::default() };
    let mut bed = Bed::on(options, Config::default());
    let mut acknowledged = vec![bed.append(json!("x"))];
    faults.set(Some(Fault::Full));
    let large = json!({"stream_name": "s", "group_id": "g", "data": "x".repeat(1 << 12)});
    // Until what the log has in reserve is used up.
    let error = loop {
        match bed.try_call("append", large.clone()) {
            Ok(done) => acknowledged.push(done["offset"].as_u64().unwrap()),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 1000, "the disk never fills");
    };
    assert!(error.message.contains("full"), "{error}");
    // Several at once: each is refused, and none builds on another's.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(bed.try_call("append", large.clone()).is_err()));
        }
    });
    faults.set(None);
    acknowledged.push(bed.append(json!("after")));
    assert_eq!(acknowledged, (1..=acknowledged.len() as u64).collect::<Vec<_>>(), "a number is missing");
    bed.restart();
    let info = bed.info();
    assert_eq!(info["last_offset"], json!(acknowledged.len()));
    let last = bed.read(json!({"from_offset": acknowledged.len()}));
    assert_eq!(last["entries"][0]["data"], "after");
}

#[test]
fn a_disk_that_fails_acknowledges_nothing_more() {
    let faults = Faults::default();
    let options = Options { files: Arc::new(faults.clone()), ..Options::default() };
    let bed = Bed::on(options, Config::default());
    bed.set("a", json!(1));
    faults.set(Some(Fault::Sync));
    let set = json!({"stream_name": "s", "group_id": "g", "item_id": "a", "data": 2});
    for _ in 0..3 {
        let (code, error) = bed.refusal("set", set.clone());
        assert!(code == "STREAM_SET_ERROR" && error.message.contains("disk"), "{error}");
    }
    faults.set(None);
}

#[test]
fn a_record_of_another_version_is_reported_and_kept() {
    let bed = Bed::new();
    bed.set("k", json!(1));
    let batch = ringway_store::Batch::new().put("stream.item", b"s\0\0g\0\0k", b"\x09{}".to_vec());
    bed.store().commit(batch, ringway_store::Durability::Durable).unwrap();
    for (function, code) in [("get", "STREAM_GET_ERROR"), ("delete", "STREAM_DELETE_ERROR")] {
        let item = json!({"stream_name": "s", "group_id": "g", "item_id": "k"});
        let (found, error) = bed.refusal(function, item);
        assert_eq!(found, code);
        assert!(error.message.contains("format 9") && error.message.contains("`k`"), "{error}");
    }
    assert_eq!(bed.count("stream.item"), 1, "it was dropped");
    bed.set("l", json!(2));
    assert_eq!((bed.get("l"), bed.get("m")), (json!(2), Value::Null));
}

pub(crate) const WRITERS: usize = 3;

pub(crate) fn named(writer: usize) -> Value {
    json!({"stream_name": "s", "group_id": writer.to_string()})
}

pub(crate) fn with(mut request: Value, more: &[(&str, Value)]) -> Value {
    more.iter().for_each(|(name, value)| request[*name] = value.clone());
    request
}

/// Each writer sets an item and appends to its group, until the power goes. Notes the last number that was acknowledged.
fn work(bed: &Bed, acknowledged: &[AtomicU64; WRITERS]) {
    std::thread::scope(|scope| {
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            scope.spawn(move || {
                for number in acknowledged.load(Ordering::SeqCst) + 1.. {
                    let set = with(named(writer), &[("item_id", json!("k")), ("data", json!(number))]);
                    let append = with(named(writer), &[("data", json!(number))]);
                    if bed.try_call("set", set).is_err() || bed.try_call("append", append).is_err() {
                        break;
                    }
                    acknowledged.store(number, Ordering::SeqCst);
                }
            });
        }
    });
}

/// What a group's log holds, in order and without gaps.
fn log(bed: &Bed, writer: usize) -> Vec<Value> {
    let mut entries = Vec::new();
    loop {
        let from = entries.len() + 1;
        let page =
            bed.call("read", with(named(writer), &[("from_offset", json!(from)), ("limit", json!(1000))]));
        let found = page["entries"].as_array().unwrap();
        if found.is_empty() {
            assert_eq!(page["last_offset"], json!(from - 1), "the head says something else than the log");
            return entries;
        }
        entries.extend(found.iter().cloned());
        assert_eq!(entries.last().unwrap()["offset"], json!(entries.len()), "a gap");
    }
}

/// The last entry's data among those of some types.
fn last(log: &[Value], types: &[&str]) -> Value {
    let of_type = log.iter().rev().find(|entry| types.contains(&entry["type"].as_str().unwrap()));
    of_type.map_or(Value::Null, |entry| entry["data"].clone())
}

/// A group's log, which has to be whole, and to tell of the item as it is.
pub(crate) fn check(bed: &Bed, writer: usize) -> Vec<Value> {
    let log = log(bed, writer);
    let item = bed.call("get", with(named(writer), &[("item_id", json!("k"))]));
    assert_eq!(item, last(&log, &["create", "update"]), "item and log differ");
    log
}

#[test]
fn what_was_acknowledged_survives_power_cuts_and_items_fit_their_log() {
    let mut bed = Bed::new();
    let mut dice = Dice::new(5);
    let acknowledged: [AtomicU64; WRITERS] = Default::default();
    for round in 0..5 {
        bed.stop();
        let power = Power::new(bed.folder(), dice.below(1500) + 300).unwrap();
        bed.options.files = Arc::new(power.clone());
        bed.start();
        work(&bed, &acknowledged);
        assert!(power.is_off(), "writers were refused while there was power");
        bed.end().abandon();
        power.cut(bed.folder(), &mut dice).unwrap();
        bed.options.files = Arc::new(Disk);
        bed.start();
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let wanted = acknowledged.load(Ordering::SeqCst);
            let log = check(&bed, writer);
            let found = last(&log, &["append"]).as_u64().unwrap_or(0);
            assert!(found >= wanted, "round {round}: {wanted} was acknowledged, {found} is there");
            let set = last(&log, &["create", "update"]).as_u64().unwrap_or(0);
            acknowledged.store(found.max(set), Ordering::SeqCst);
        }
    }
    assert!(
        acknowledged.iter().all(|number| number.load(Ordering::SeqCst) > 0),
        "nothing was ever acknowledged"
    );
}
