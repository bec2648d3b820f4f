//! Watching from a revision on.

use ringway_worker_state::Config;
use serde_json::{Value, json};

use crate::bed::{Bed, next};

#[test]
fn a_watcher_sees_every_change_from_its_revision_on() {
    let bed = Bed::new();
    bed.set("s", "a1", json!(1));
    let from = bed.call("scan", json!({"scope": "s"}))["revision"].as_u64().unwrap();
    bed.set("s", "a1", json!(2));
    bed.set("s", "b", json!("not watched"));
    bed.set("t", "a1", json!("not watched"));
    let stream = bed.open("watch", json!({"scope": "s", "prefix": "a", "from_revision": from}));
    assert_eq!(next(&stream), json!({"type": "watching", "revision": from}));
    let change = next(&stream);
    assert_eq!(change["event_type"], "state:updated");
    assert_eq!((&change["old_value"], &change["new_value"]), (&json!(1), &json!(2)));
    assert_eq!(change["revision"], bed.revision("s", "a1"));
    let all = bed.open("watch", json!({}));
    assert_eq!(next(&all)["type"], "watching");
    bed.call("delete", json!({"scope": "s", "key": "a1"}));
    for stream in [&stream, &all] {
        let change = next(stream);
        assert_eq!((&change["event_type"], &change["key"]), (&json!("state:deleted"), &json!("a1")));
    }
}

#[test]
fn a_watcher_that_is_too_slow_is_told() {
    let bed = Bed::with(Config { watch_entries_max: 100, ..Config::default() });
    let stream = bed.open("watch", json!({"scope": "s"}));
    assert_eq!(next(&stream)["type"], "watching");
    let ops: Vec<Value> =
        (0..100).map(|n| json!({"type": "set", "scope": "s", "key": n.to_string(), "value": n})).collect();
    for _ in 0..5 {
        bed.call("transaction", json!({ "operations": ops }));
    }
    let error = loop {
        match stream.recv() {
            Ok(Some(_)) => {}
            // The stream may end before its call says why.
            Ok(None) => break stream.end().unwrap_err(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.user_code.as_deref(), Some("WATCH_BEHIND"), "{error}");
    let old = bed
        .open("watch", json!({"scope": "s", "from_revision": 0}))
        .recv()
        .and_then(|_| bed.open("watch", json!({"scope": "s", "from_revision": 0})).end());
    assert_eq!(old.unwrap_err().user_code.as_deref(), Some("WATCH_BEHIND"));
    let future = bed.open("watch", json!({"from_revision": 1_u64 << 60})).end().unwrap_err();
    assert_eq!(future.user_code.as_deref(), Some("WATCH_BEHIND"), "{future}");
    let bare = bed.open("watch", json!({"prefix": "a"})).end().unwrap_err();
    assert!(bare.message.contains("`scope`"), "{bare}");
}
