//! Compare-and-set and transactions.

use serde_json::{Value, json};

use crate::bed::Bed;

#[test]
fn a_change_can_ask_for_a_revision() {
    let bed = Bed::new();
    let set = |value: u32, revision: u64| json!({"scope": "s", "key": "k", "value": value, "if_revision": revision});
    let first = bed.call("set", set(1, 0))["revision"].as_u64().unwrap();
    assert_eq!(bed.revision("s", "k"), first);
    let (code, error) = bed.refusal("set", set(2, 0));
    assert_eq!(code, "REVISION_MISMATCH");
    assert_eq!(error.details.unwrap()["found"], first);
    bed.call("set", set(2, first));
    let (code, _) = bed.refusal("set", set(3, first));
    assert_eq!(code, "REVISION_MISMATCH");
    let (code, _) = bed.refusal("delete", json!({"scope": "s", "key": "k", "if_revision": first}));
    assert_eq!(code, "REVISION_MISMATCH");
    let ops = json!([{"type": "set", "path": "", "value": 9}]);
    let (code, _) = bed.refusal("update", json!({"scope": "s", "key": "k", "ops": ops, "if_revision": 0}));
    assert_eq!(code, "REVISION_MISMATCH");
    assert_eq!(bed.get("s", "k"), json!(2));
    let now = bed.revision("s", "k");
    assert_eq!(bed.call("delete", json!({"scope": "s", "key": "k", "if_revision": now})), json!(2));
    bed.call("set", set(4, 0));
}

#[test]
fn a_key_never_has_a_revision_twice() {
    let mut bed = Bed::new();
    let set = || bed.set("s", "k", json!("the same"))["revision"].as_u64().unwrap();
    let first = set();
    bed.call("delete", json!({"scope": "s", "key": "k"}));
    let second = set();
    assert!(second > first);
    for function in ["set", "delete"] {
        let request = json!({"scope": "s", "key": "k", "value": 1, "if_revision": first});
        assert_eq!(bed.refusal(function, request).0, "REVISION_MISMATCH", "it was deleted in between");
    }
    bed.call("delete", json!({"scope": "s", "key": "k"}));
    bed.restart();
    let third = bed.set("s", "k", json!("the same"))["revision"].as_u64().unwrap();
    assert!(third > second);
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let bed = Bed::new();
    bed.set("accounts", "a", json!({"n": 10}));
    let revision = bed.set("accounts", "b", json!({"n": 0}))["revision"].as_u64().unwrap();
    let transfer = |revision: u64| {
        json!({"operations": [
            {"type": "check", "scope": "accounts", "key": "b", "revision": revision},
            {"type": "update", "scope": "accounts", "key": "a", "ops": [{"type": "decrement", "path": "n", "by": 4}]},
            {"type": "update", "scope": "accounts", "key": "b", "ops": [{"type": "increment", "path": "n", "by": 4}]},
            {"type": "set", "scope": "log", "key": "1", "value": "moved"},
            {"type": "delete", "scope": "log", "key": "none"},
        ]})
    };
    let done = bed.call("transaction", transfer(revision));
    assert_eq!(done["results"][1], json!({"old_value": {"n": 10}, "new_value": {"n": 6}}));
    assert_eq!(done["results"][4], json!({"old_value": null, "new_value": null}));
    for (scope, key) in [("accounts", "a"), ("accounts", "b"), ("log", "1")] {
        assert_eq!(bed.revision(scope, key), done["revision"].as_u64().unwrap());
    }
    let (code, error) = bed.refusal("transaction", transfer(revision));
    assert_eq!(code, "REVISION_MISMATCH");
    assert_eq!(error.details.unwrap()["key"], "b");
    assert_eq!(bed.get("accounts", "a"), json!({"n": 6}), "a refused transaction changed something");
}

#[test]
fn later_operations_of_a_transaction_see_earlier_ones() {
    let bed = Bed::new();
    let done = bed.call("transaction", json!({"operations": [
        {"type": "set", "scope": "s", "key": "k", "value": {"n": 1}},
        {"type": "update", "scope": "s", "key": "k", "ops": [{"type": "increment", "path": "n", "by": 1}]},
        {"type": "delete", "scope": "s", "key": "k"},
        {"type": "set", "scope": "s", "key": "k", "value": "end"},
    ]}));
    let olds: Vec<Value> =
        done["results"].as_array().unwrap().iter().map(|done| done["old_value"].clone()).collect();
    assert_eq!(olds, [json!(null), json!({"n": 1}), json!({"n": 2}), json!(null)]);
    assert_eq!(bed.get("s", "k"), json!("end"));
}
