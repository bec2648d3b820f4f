//! Everything acknowledged is there after a restart of worker and store.

use serde_json::{Value, json};

use crate::bed::Bed;

#[test]
fn values_revisions_and_scopes_outlive_a_restart() {
    let mut bed = Bed::new();
    bed.set("a", "1", json!({"x": [1, 2]}));
    bed.set("b", "1", json!("text"));
    bed.set("b", "2", json!(2));
    bed.call("delete", json!({"scope": "b", "key": "1"}));
    let revision = bed.revision("a", "1");
    bed.restart();
    assert_eq!(bed.get("a", "1"), json!({"x": [1, 2]}));
    assert_eq!(bed.get("b", "1"), Value::Null);
    assert_eq!(bed.revision("a", "1"), revision);
    assert_eq!(bed.call("list_groups", json!({})), json!({"groups": ["a", "b"]}));
    bed.call("set", json!({"scope": "a", "key": "1", "value": 3, "if_revision": revision}));
}

#[test]
fn a_value_of_another_version_is_reported_and_kept() {
    let bed = Bed::new();
    bed.set("s", "k", json!(1));
    let batch = ringway_store::Batch::new().put("state", b"s\0\0k", b"\x09\x00{}".to_vec());
    bed.store().commit(batch, ringway_store::Durability::Durable).unwrap();
    for (function, code) in [("get", "GET_ERROR"), ("delete", "DELETE_ERROR")] {
        let (found, error) = bed.refusal(function, json!({"scope": "s", "key": "k"}));
        assert_eq!(found, code);
        assert!(error.message.contains("format 9") && error.message.contains("`k`"), "{error}");
    }
    assert!(bed.store().get("state", b"s\0\0k").unwrap().is_some(), "it was dropped");
    bed.set("s", "l", json!(2));
    assert_eq!(bed.get("s", "l"), json!(2));
}
