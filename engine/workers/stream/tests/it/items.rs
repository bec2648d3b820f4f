//! Items in groups: the shapes and codes that iii's clients know, versions, times to live, caps, names of any kind.

use serde_json::{Value, json};

use crate::bed::{Bed, NOW_MS};
use ringway_worker_stream::{Config, StreamConfig};

fn item(stream: &str, group: &str, item: &str) -> Value {
    json!({"stream_name": stream, "group_id": group, "item_id": item})
}

#[test]
fn the_shapes_are_those_of_the_reference() {
    let bed = Bed::new();
    assert_eq!(
        bed.set("a", json!({"n": 1})),
        json!({"old_value": null, "new_value": {"n": 1}, "version": 1})
    );
    assert_eq!(bed.set("a", json!(2))["old_value"], json!({"n": 1}));
    assert_eq!(bed.get("a"), json!(2));
    assert_eq!(bed.get("b"), Value::Null);
    let ops = json!([{"type": "set", "path": "x", "value": 1}, {"type": "increment", "path": "x", "by": 2}]);
    let mut update = item("s", "g", "u");
    update["ops"] = ops;
    let updated = bed.call("update", update.clone());
    assert_eq!((&updated["old_value"], &updated["new_value"]), (&Value::Null, &json!({"x": 3})));
    assert_eq!(updated.get("errors"), None);
    update["ops"] = json!([{"type": "increment", "path": "x", "by": 1}, {"type": "merge", "value": 7}]);
    let partly = bed.call("update", update);
    assert_eq!((&partly["new_value"], &partly["errors"][0]["op_index"]), (&json!({"x": 4}), &json!(1)));
    let list = bed.call("list", json!({"stream_name": "s", "group_id": "g"}));
    assert_eq!(list, json!([2, {"x": 4}]));
    assert_eq!(bed.call("list_groups", json!({"stream_name": "s"})), json!(["g"]));
    assert_eq!(
        bed.call("list_all", json!({})),
        json!({"stream": [{"id": "s", "groups": ["g"]}], "count": 1})
    );
    assert_eq!(bed.delete("a"), json!({"old_value": 2}));
    assert_eq!(bed.delete("a"), json!({"old_value": null}));
    let send = json!({"stream_name": "s", "group_id": "g", "type": "t", "data": 1});
    assert_eq!(bed.call("send", send), Value::Null);
}

#[test]
fn emptied_groups_vanish_and_names_never_collide() {
    let bed = Bed::new();
    let names = [("a:b", "c", "d"), ("a", "b:c", "d"), ("a", "b", "c:d"), ("a\0", "", ""), ("", "a\0", "")];
    for (number, (stream, group, id)) in names.iter().enumerate() {
        let mut set = item(stream, group, id);
        set["data"] = json!(number);
        bed.call("set", set);
    }
    for (number, (stream, group, id)) in names.iter().enumerate() {
        assert_eq!(bed.call("get", item(stream, group, id)), json!(number));
    }
    assert_eq!(bed.call("list_groups", json!({"stream_name": "a"})), json!(["b", "b:c"]));
    assert_eq!(bed.call("list_all", json!({}))["count"], 4);
    bed.call("delete", item("a", "b", "c:d"));
    assert_eq!(bed.call("list_groups", json!({"stream_name": "a"})), json!(["b:c"]));
    bed.call("delete", item("a", "b:c", "d"));
    assert_eq!(bed.call("list_groups", json!({"stream_name": "a"})), json!([]));
    assert_eq!(bed.call("list_all", json!({}))["count"], 3);
}

#[test]
fn pages_have_ids_and_end() {
    let bed = Bed::new();
    for number in 0..25 {
        bed.set(&format!("{number:02}"), json!(number));
    }
    let mut seen = Vec::new();
    let mut request = json!({"stream_name": "s", "group_id": "g", "limit": 10});
    loop {
        let page = bed.call("list", request.clone());
        assert_eq!(page["sequence"], 25);
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item["version"], json!(item["data"].as_u64().unwrap() + 1));
            seen.push(item["id"].as_str().unwrap().to_owned());
        }
        if page["cursor"].is_null() {
            break;
        }
        request["cursor"] = page["cursor"].clone();
    }
    assert_eq!(seen, (0..25).map(|number| format!("{number:02}")).collect::<Vec<_>>());
    let (code, _) = bed.refusal("list", json!({"stream_name": "s", "group_id": "g", "limit": 0}));
    assert_eq!(code, "invalid_request");
    let (code, _) = bed.refusal("list", json!({"stream_name": "s", "group_id": "g", "cursor": "x"}));
    assert_eq!(code, "invalid_request");
}

#[test]
fn versions_guard_changes_and_are_never_given_twice() {
    let bed = Bed::new();
    let set = |value: u64, version: u64| {
        let mut set = item("s", "g", "k");
        (set["data"], set["if_version"]) = (json!(value), json!(version));
        bed.try_call("set", set)
    };
    let first = set(1, 0).unwrap()["version"].as_u64().unwrap();
    assert_eq!(set(2, 0).unwrap_err().user_code.as_deref(), Some("VERSION_MISMATCH"));
    let error = set(2, first + 1).unwrap_err();
    assert_eq!(error.details.unwrap()["found"], json!(first));
    bed.delete("k");
    let again = set(1, 0).unwrap()["version"].as_u64().unwrap();
    assert!(again > first, "an item that was deleted and made again looks like the old one");
    assert!(set(2, first).is_err());
    let mut get = item("s", "g", "k");
    get["with_version"] = json!(true);
    assert_eq!(bed.call("get", get.clone()), json!({"data": 1, "version": again}));
    get["item_id"] = json!("absent");
    assert_eq!(bed.call("get", get), json!({"data": null, "version": 0}));
}

#[test]
fn many_writers_of_one_item_lose_nothing() {
    const EACH: usize = 50;
    let bed = Bed::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let mut update = item("s", "g", "k");
                    update["ops"] = json!([{"type": "increment", "path": "n", "by": 1}]);
                    bed.call("update", update);
                }
            });
        }
    });
    assert_eq!(bed.get("k"), json!({"n": 8 * EACH}));
    let read = bed.read(json!({"limit": 1000}));
    let counted: Vec<u64> = read["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["data"]["n"].as_u64().unwrap())
        .collect();
    assert_eq!(counted, (1..=8 * EACH as u64).collect::<Vec<_>>(), "the log has them in another order");
}

#[test]
fn an_item_expires_at_its_time_and_is_told_as_deleted() {
    let chat = StreamConfig { ttl_ms: Some(500), ..StreamConfig::default() };
    let bed = Bed::with(Config { streams: [("chat".to_owned(), chat)].into(), ..Config::default() });
    let mut set = item("s", "g", "k");
    (set["data"], set["ttl_ms"]) = (json!(1), json!(1000));
    bed.call("set", set.clone());
    let mut short = item("chat", "g", "k");
    short["data"] = json!(1);
    bed.call("set", short);
    bed.clock.set(NOW_MS + 999);
    assert_eq!(bed.get("k"), json!(1));
    assert_eq!(bed.call("get", item("chat", "g", "k")), Value::Null, "the stream's own time to live");
    bed.clock.set(NOW_MS + 1000);
    assert_eq!(bed.get("k"), Value::Null);
    assert_eq!(bed.call("list_all", json!({}))["count"], 0);
    bed.wait_until("both are removed", || bed.count("stream.item") == 0 && bed.count("stream.expiry") == 0);
    let entries = bed.read(json!({}))["entries"].clone();
    assert_eq!((&entries[1]["type"], &entries[1]["data"]), (&json!("delete"), &json!(1)));
    set["ttl_ms"] = json!(0);
    assert_eq!(bed.refusal("set", set).0, "invalid_request");
}

#[test]
fn an_item_that_is_written_again_has_the_expiry_of_the_last_time() {
    let bed = Bed::new();
    let set = |value: u64, ttl_ms: Option<u64>| {
        let mut set = item("s", "g", "k");
        (set["data"], set["ttl_ms"]) = (json!(value), json!(ttl_ms));
        bed.call("set", set)
    };
    set(1, Some(1000));
    set(2, Some(5000));
    bed.clock.set(NOW_MS + 1000);
    assert_eq!(bed.get("k"), json!(2));
    set(3, None);
    bed.clock.set(NOW_MS + 60_000);
    assert_eq!((bed.get("k"), bed.count("stream.expiry")), (json!(3), 0));
    set(4, Some(10));
    bed.clock.set(NOW_MS + 60_010);
    // Whoever writes before the janitor has looked finds nothing there either.
    assert_eq!(set(5, None)["old_value"], Value::Null);
}

#[test]
fn caps_hold_and_say_so() {
    let config = StreamConfig { items_max: Some(2), item_bytes_max: Some(100), ..StreamConfig::default() };
    let bed = Bed::with(Config { default: config, value_bytes_max: 1000, ..Config::default() });
    bed.set("a", json!(1));
    bed.set("b", json!(1));
    let mut third = item("s", "g", "c");
    third["data"] = json!(1);
    let (code, error) = bed.refusal("set", third.clone());
    assert!(code == "GROUP_FULL" && error.message.contains("items_max"), "{error}");
    bed.set("a", json!(2));
    bed.delete("a");
    bed.call("set", third);
    let mut large = item("s", "g", "b");
    large["data"] = json!("x".repeat(200));
    let (code, error) = bed.refusal("set", large.clone());
    assert!(code == "GROUP_FULL" && error.message.contains("item_bytes_max"), "{error}");
    large["data"] = json!("x".repeat(2000));
    assert_eq!(bed.refusal("set", large).0, "VALUE_TOO_LARGE");
    let info = bed.info();
    assert_eq!((&info["items"], &info["item_bytes"]), (&json!(2), &json!(4)));
}

#[test]
fn wrong_requests_are_refused_with_words() {
    let bed = Bed::new();
    let check = |function: &str, request: Value, code: &str, words: &str| {
        let (found, error) = bed.refusal(function, request);
        assert!(found == code && error.message.contains(words), "{function}: {found}: {error}");
    };
    check("set", item("s", "g", "k"), "invalid_request", "`data`");
    check("set", json!({"stream_name": "s"}), "invalid_request", "group_id");
    check("get", item("s", "g", &"k".repeat(3000)), "STREAM_GET_ERROR", "shorter");
    check(
        "list",
        json!({"stream_name": "s".repeat(3000), "group_id": ""}),
        "STREAM_GET_GROUP_ERROR",
        "shorter",
    );
    let mut deep = item("s", "g", "k");
    deep["data"] = serde_json::from_str(&format!("{}{}", "[".repeat(121), "]".repeat(121))).unwrap();
    check("set", deep, "STREAM_SET_ERROR", "levels deep");
    let mut ops = item("s", "g", "k");
    ops["ops"] = json!(vec![json!({"type": "set", "path": "a", "value": 1}); 1001]);
    check("update", ops, "invalid_request", "ops_max");
    check("append", json!({"stream_name": "s"}), "invalid_request", "`data`");
    check(
        "commit",
        json!({"stream_name": "s", "consumer": "c", "offset": 1}),
        "invalid_request",
        "last entry",
    );
    check(
        "read",
        json!({"stream_name": "s", "from_offset": 1, "from_time_ms": 1}),
        "invalid_request",
        "only one",
    );
}
