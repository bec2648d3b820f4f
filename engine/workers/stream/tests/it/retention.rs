//! What is removed: old entries, and what is left of groups; and what is kept for triggers that were not told yet.

use ringway_store::{Batch, Scan};
use ringway_worker_stream::{Config, StreamConfig};
use serde_json::{Value, json};

use crate::bed::{Bed, NOW_MS, PATIENCE, bind, hear};

const HEAR: &str = "listener::hear";

fn entries(bed: &Bed) -> u64 {
    bed.info()["entries"].as_u64().unwrap()
}

#[test]
fn a_log_is_kept_within_its_count_and_bytes() {
    let few = StreamConfig { retention_entries: Some(10), ..StreamConfig::default() };
    let small = StreamConfig { retention_bytes: Some(2000), ..StreamConfig::default() };
    let streams = [("s".to_owned(), few), ("small".to_owned(), small)].into();
    let bed = Bed::with(Config { streams, ..Config::default() });
    for n in 1..=50 {
        bed.append(json!(n));
    }
    bed.wait_until("it is trimmed", || entries(&bed) <= 11);
    let read = bed.read(json!({"from_offset": 2}));
    let first = read["first_offset"].as_u64().unwrap();
    assert!((40..=41).contains(&first), "{first}");
    assert_eq!((&read["missed"], &read["entries"][0]["offset"]), (&json!(first - 2), &json!(first)));
    assert_eq!(read["entries"][0]["data"], json!(first));
    for _ in 0..20 {
        bed.call("append", json!({"stream_name": "small", "data": "x".repeat(300)}));
    }
    let info = || bed.call("info", json!({"stream_name": "small"}));
    bed.wait_until("it is trimmed", || info()["log_bytes"].as_u64().unwrap() <= 2250);
    let left = info()["entries"].as_u64().unwrap();
    assert!((4..=7).contains(&left), "{left}");
    // What the head says is what is there.
    let counted: usize = bed.read(json!({"limit": 1000}))["entries"].as_array().unwrap().len();
    assert_eq!(counted as u64, entries(&bed));
}

#[test]
fn a_reader_is_told_of_what_it_missed() {
    let config = StreamConfig { retention_ms: Some(1000), ..StreamConfig::default() };
    let bed = Bed::with(Config { default: config, retention_check_ms: 100, ..Config::default() });
    bed.append(json!(1));
    bed.call("commit", json!({"stream_name": "s", "group_id": "g", "consumer": "c", "offset": 1}));
    bed.append(json!(2));
    bed.append(json!(3));
    bed.clock.set(NOW_MS + 900);
    bed.append(json!(4));
    bed.clock.set(NOW_MS + 1500);
    bed.wait_until("three are removed", || entries(&bed) == 1);
    let read = bed.read(json!({"consumer": "c"}));
    assert_eq!((&read["missed"], &read["entries"][0]["data"]), (&json!(2), &json!(4)));
    let tail = bed.open("tail", json!({"from_offset": 2}));
    assert_eq!(crate::bed::next(&tail)["type"], "tailing");
    assert_eq!(crate::bed::next(&tail), json!({"type": "gap", "missed": 2, "first_offset": 4}));
    assert_eq!(crate::bed::next(&tail)["data"], 4);
    let subscriber = bed.open("subscribe", json!({"after_sequence": 1}));
    assert_eq!(crate::bed::next(&subscriber)["type"], "subscribed");
    assert_eq!(crate::bed::next(&subscriber)["event"]["type"], "resync");
}

#[test]
fn nothing_is_left_of_a_group_that_is_gone_and_its_numbers_are_not_given_again() {
    let config = StreamConfig { retention_ms: Some(1000), ..StreamConfig::default() };
    let mut bed = Bed::with(Config { default: config, retention_check_ms: 100, ..Config::default() });
    bed.set("a", json!(1));
    bed.append(json!(2));
    bed.call("commit", json!({"stream_name": "s", "group_id": "g", "consumer": "c", "offset": 1}));
    bed.delete("a");
    assert_eq!(bed.call("logs", json!({}))["groups"][0]["last_offset"], 3);
    bed.clock.set(NOW_MS + 2000);
    let tables = ["stream.head", "stream.log", "stream.item", "stream.cursor", "stream.expiry"];
    bed.wait_until("nothing is left", || tables.iter().all(|table| bed.count(table) == 0));
    bed.restart();
    assert_eq!(bed.set("a", json!(1))["version"], 4, "a version was given again");
    assert_eq!(bed.call("append", json!({"stream_name": "new", "data": 1})), json!({"offset": 4}));
}

#[test]
fn entries_are_kept_for_a_trigger_until_it_was_told() {
    let few = StreamConfig { retention_entries: Some(2), ..StreamConfig::default() };
    let bed =
        Bed::with(Config { default: few, backlog_max: 20, retention_check_ms: 100, ..Config::default() });
    let listener = bed.another("listener");
    bind(&listener, "t", "stream", HEAR, json!({"stream_name": "s"})).unwrap();
    for n in 1..=22 {
        bed.append(json!(n));
    }
    let (code, error) = bed.refusal("append", json!({"stream_name": "s", "group_id": "g", "data": 23}));
    assert!(code == "BACKLOG_FULL" && error.message.contains("backlog_max"), "{error}");
    bed.call("append", json!({"stream_name": "other", "data": "is not in the way"}));
    let told = hear(&listener, HEAR);
    let mut now_ms = NOW_MS;
    for n in 1..=22 {
        // The next attempt is due at some time.
        let heard: Value = loop {
            match told.recv_timeout(std::time::Duration::from_millis(50)) {
                Ok(heard) => break heard,
                Err(_) => {
                    now_ms += 1000;
                    bed.clock.set(now_ms);
                }
            }
        };
        assert_eq!(heard["event"]["data"], json!(n));
    }
    bed.wait_until("they are removed", || {
        bed.clock.set(bed.clock.now_ms() + 100);
        entries(&bed) <= 2
    });
    bed.append(json!(23));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap()["event"]["data"], json!(23));
}

#[test]
fn a_trigger_that_nobody_binds_any_more_is_forgotten() {
    let few = StreamConfig { retention_entries: Some(2), ..StreamConfig::default() };
    let config =
        Config { default: few, trigger_retention_ms: 5000, retention_check_ms: 100, ..Config::default() };
    let bed = Bed::with(config);
    let listener = bed.another("listener");
    let told = hear(&listener, HEAR);
    bind(&listener, "t", "stream", HEAR, json!({"stream_name": "s"})).unwrap();
    bed.append(json!(1));
    told.recv_timeout(PATIENCE).unwrap();
    bed.wait_until("its place is written", || bed.count("stream.cursor") == 1);
    listener.unregister_trigger("t").unwrap();
    bed.wait_until("it is gone", || bed.info()["worker"]["triggers"]["bound"] == 0);
    for n in 2..=10 {
        bed.append(json!(n));
    }
    assert!(entries(&bed) >= 9, "they wait for it to come back");
    bed.clock.set(NOW_MS + 6000);
    bed.wait_until("it is forgotten", || bed.count("stream.trigger") == 0 && bed.count("stream.cursor") == 0);
    bed.wait_until("they are removed", || {
        bed.clock.set(bed.clock.now_ms() + 100);
        entries(&bed) <= 2
    });
}

/// Settings under which everything is old after a second.
fn brief() -> Config {
    let brief = StreamConfig { retention_ms: Some(1000), ..StreamConfig::default() };
    Config { default: brief, trigger_retention_ms: 5000, retention_check_ms: 100, ..Config::default() }
}

/// Appends to a group, and gives whether nothing is left of it.
fn append_to<'a>(bed: &'a Bed, group: &'static str) -> impl Fn() -> bool + 'a {
    bed.call("append", json!({"stream_name": "s", "group_id": group, "data": 1}));
    let head = [b"s\0\0", group.as_bytes(), b"\0\0"].concat();
    move || bed.store().get("stream.head", &head).unwrap().is_none()
}

#[test]
fn what_is_damaged_does_not_keep_the_rest() {
    let bed = Bed::with(brief());
    for item in ["k", "l"] {
        let set = json!({"stream_name": "s", "group_id": "g", "item_id": item, "data": 1, "ttl_ms": 500});
        bed.call("set", set);
    }
    let _damaged = append_to(&bed, "a");
    let is_gone = append_to(&bed, "other");
    bed.trouble.damage(b"s\0\0g\0\0k");
    bed.trouble.damage(&[&b"s\0\0a\0\0"[..], &1_u64.to_be_bytes()].concat());
    bed.clock.set(NOW_MS + 2000);
    bed.wait_until("the other item expires", || bed.count("stream.item") == 1);
    bed.wait_until("the other group is trimmed", is_gone);
    assert!(bed.info()["worker"]["unreadable"].as_u64().unwrap() > 0);
    bed.trouble.mend();
    bed.wait_until("nothing is left", || {
        bed.clock.set(bed.clock.now_ms() + 1000);
        bed.count("stream.head") == 0
    });
}

#[test]
fn a_trigger_is_remembered_as_long_as_its_places_are_there() {
    let bed = Bed::with(brief());
    let listener = bed.another("listener");
    let told = hear(&listener, HEAR);
    bind(&listener, "t", "stream", HEAR, json!({"stream_name": "s", "group_id": "g"})).unwrap();
    bed.append(json!(1));
    told.recv_timeout(PATIENCE).unwrap();
    bed.wait_until("its place is written", || bed.count("stream.cursor") == 1);
    listener.unregister_trigger("t").unwrap();
    bed.wait_until("it is gone", || bed.info()["worker"]["triggers"]["bound"] == 0);
    let is_gone = append_to(&bed, "other");
    let cursor = Scan::table("stream.cursor");
    bed.trouble.damage(&bed.store().scan(&cursor).unwrap()[0].key);
    bed.clock.set(NOW_MS + 6000);
    bed.wait_until("the other group is looked at, after triggers", is_gone);
    assert_eq!(bed.count("stream.trigger"), 1, "its number would be given to another, with its place");
    bed.trouble.mend();
    bed.wait_until("nothing is left", || {
        bed.clock.set(bed.clock.now_ms() + 1000);
        bed.count("stream.trigger") == 0 && bed.count("stream.cursor") == 0
    });
}

#[test]
fn a_group_that_is_written_while_it_is_forgotten_keeps_its_readers() {
    let bed = Bed::with(brief());
    let head_key = b"s\0\0g\0\0";
    bed.append(json!(1));
    let head = bed.store().get("stream.head", head_key).unwrap().unwrap().bytes;
    bed.call("commit", json!({"stream_name": "s", "group_id": "g", "consumer": "c", "offset": 1}));
    // As by somebody who appends, reads and commits between the look at the group and its end.
    bed.trouble.get_ahead("stream.cursor", Batch::new().put("stream.head", head_key, head));
    bed.clock.set(NOW_MS + 2000);
    bed.wait_until("it is about to be forgotten", || bed.trouble.got_ahead());
    let is_gone = append_to(&bed, "other");
    bed.clock.set(NOW_MS + 4000);
    bed.wait_until("the next look has ended", is_gone);
    assert_eq!((bed.count("stream.head"), bed.count("stream.cursor")), (1, 1));
}
