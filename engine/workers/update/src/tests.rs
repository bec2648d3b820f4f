//! Tables of what each operation does, and properties over any operations on any value.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Op, apply};

fn ops(ops: Value) -> Vec<Op> {
    serde_json::from_value(ops).unwrap()
}

/// What one operation makes of a value, or the code with which it is left out.
fn check(before: Value, op: Value, expected: Result<Value, &str>) {
    let outcome = apply(Some(before.clone()), &ops(json!([op])));
    match expected {
        Ok(after) => {
            assert_eq!((outcome.value, outcome.errors, outcome.applied), (after, vec![], 1), "{op}");
        }
        Err(code) => {
            assert_eq!(outcome.errors.len(), 1, "{op} gave {}", outcome.value);
            assert_eq!((outcome.errors[0].code.as_str(), outcome.errors[0].op_index), (code, 0), "{op}");
            assert_eq!((outcome.value, outcome.applied), (before, 0), "{op} failed and changed something");
        }
    }
}

#[test]
fn set_writes_one_place() {
    let set = |path: Value, value: Value| json!({"type": "set", "path": path, "value": value});
    check(json!({"a": 1}), set(json!("b"), json!(2)), Ok(json!({"a": 1, "b": 2})));
    check(json!({}), set(json!("a.b"), json!(2)), Ok(json!({"a.b": 2})));
    check(json!({"a": 1}), set(json!(""), json!([1])), Ok(json!([1])));
    check(json!({"a": 1}), set(json!([]), json!([1])), Ok(json!([1])));
    check(json!({}), json!({"type": "set", "path": "a"}), Ok(json!({"a": null})));
    check(json!({}), set(json!(["a", "b"]), json!(2)), Ok(json!({"a": {"b": 2}})));
    check(json!([1]), set(json!("b"), json!(2)), Err("set.target_not_object"));
    check(json!(null), set(json!("b"), json!(2)), Err("set.target_not_object"));
    check(json!({"a": 1}), set(json!(["a", "b"]), json!(2)), Err("set.target_not_object"));
    check(json!({"a": 1}), set(json!(["a", "b", "c"]), json!(2)), Err("set.target_not_object"));
}

#[test]
fn merge_writes_each_key() {
    let merge = |path: Value, value: Value| json!({"type": "merge", "path": path, "value": value});
    let plain = |value: Value| json!({"type": "merge", "value": value});
    check(json!({"a": 1, "b": 1}), plain(json!({"b": 2, "c": 3})), Ok(json!({"a": 1, "b": 2, "c": 3})));
    check(json!({"a": {"x": 1}}), plain(json!({"a": {"y": 1}})), Ok(json!({"a": {"y": 1}})));
    check(json!({"a": {"x": 1}}), merge(json!("a"), json!({"y": 1})), Ok(json!({"a": {"x": 1, "y": 1}})));
    check(json!({}), merge(json!(""), json!({"y": 1})), Ok(json!({"y": 1})));
    check(json!({}), merge(json!([]), json!({"y": 1})), Ok(json!({"y": 1})));
    check(json!({"n": 1}), merge(json!(["n", "m"]), json!({"z": 1})), Ok(json!({"n": {"m": {"z": 1}}})));
    check(json!({}), merge(json!("a.b"), json!({})), Ok(json!({"a.b": {}})));
    check(json!({}), plain(json!([1])), Err("merge.value.not_an_object"));
    check(json!("text"), plain(json!({"a": 1})), Err("merge.target_not_object"));
    check(json!({}), plain(json!({"__proto__": 1})), Err("merge.value.proto_polluted"));
    check(json!({}), plain(json!({"a": {"constructor": 1}})), Ok(json!({"a": {"constructor": 1}})));
}

#[test]
fn merge_has_limits() {
    let keys = |count: usize| -> Value { (0..count).map(|n| (format!("k{n}"), json!(n))).collect() };
    let plain = |value: Value| json!({"type": "merge", "value": value});
    check(json!({}), plain(keys(1024)), Ok(keys(1024)));
    check(json!({}), plain(keys(1025)), Err("merge.value.too_many_keys"));
    let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }));
    check(json!({}), plain(deep(16)), Ok(deep(16)));
    check(json!({}), plain(deep(17)), Err("merge.value.too_deep"));
}

#[test]
fn numbers_keep_their_kind() {
    let inc = |path: Value, by: i64| json!({"type": "increment", "path": path, "by": by});
    let dec = |path: Value, by: i64| json!({"type": "decrement", "path": path, "by": by});
    check(json!({"n": 1}), inc(json!("n"), 2), Ok(json!({"n": 3})));
    check(json!({"n": 1.5}), inc(json!("n"), 2), Ok(json!({"n": 3.5})));
    check(json!({"n": 2.0}), dec(json!("n"), 2), Ok(json!({"n": 0.0})));
    check(json!({}), inc(json!("n"), 2), Ok(json!({"n": 2})));
    check(json!({}), dec(json!("n"), 2), Ok(json!({"n": -2})));
    check(json!({}), inc(json!(["a", "n"]), 2), Ok(json!({"a": {"n": 2}})));
    check(json!(5), inc(json!(""), 2), Ok(json!(7)));
    check(json!({"n": i64::MAX}), inc(json!("n"), 1), Ok(json!({"n": 1_u64 << 63})));
    check(json!({"n": u64::MAX}), inc(json!("n"), 1), Err("increment.overflow"));
    check(json!({"n": i64::MIN}), dec(json!("n"), 1), Err("decrement.overflow"));
    check(json!({}), dec(json!("n"), i64::MIN), Ok(json!({"n": 1_u64 << 63})));
    check(json!({"n": "1"}), inc(json!("n"), 1), Err("increment.not_number"));
    check(json!({"n": null}), dec(json!("n"), 1), Err("decrement.not_number"));
    check(json!({}), inc(json!(""), 1), Err("increment.not_number"));
    check(json!([]), inc(json!("n"), 1), Err("increment.target_not_object"));
}

#[test]
fn append_adds_to_the_end() {
    let append = |path: Value, value: Value| json!({"type": "append", "path": path, "value": value});
    let plain = |value: Value| json!({"type": "append", "value": value});
    check(json!({"l": [1]}), append(json!("l"), json!(2)), Ok(json!({"l": [1, 2]})));
    check(json!({"l": [1]}), append(json!("l"), json!([2])), Ok(json!({"l": [1, [2]]})));
    check(json!({"s": "a"}), append(json!("s"), json!("b")), Ok(json!({"s": "ab"})));
    check(json!({}), append(json!("s"), json!("b")), Ok(json!({"s": "b"})));
    check(json!({"s": null}), append(json!("s"), json!("b")), Ok(json!({"s": "b"})));
    check(json!({}), append(json!("s"), json!(1)), Ok(json!({"s": [1]})));
    check(json!({}), append(json!(["s"]), json!("b")), Ok(json!({"s": "b"})));
    check(json!({}), append(json!(["a", "s"]), json!("b")), Ok(json!({"a": {"s": ["b"]}})));
    check(json!({"a": {"s": "x"}}), append(json!(["a", "s"]), json!("b")), Ok(json!({"a": {"s": "xb"}})));
    check(json!([1]), plain(json!(2)), Ok(json!([1, 2])));
    check(json!(null), plain(json!("a")), Ok(json!("a")));
    check(json!({}), plain(json!("a")), Err("append.type_mismatch"));
    check(json!({"s": "a"}), append(json!("s"), json!(1)), Err("append.type_mismatch"));
    check(json!({"s": 1}), append(json!("s"), json!(1)), Err("append.type_mismatch"));
    check(json!(1), append(json!("s"), json!(1)), Err("append.target_not_object"));
    check(json!({"a": 1}), append(json!(["a", "s"]), json!(1)), Err("append.target_not_object"));
}

#[test]
fn remove_takes_one_place() {
    let remove = |path: Value| json!({"type": "remove", "path": path});
    check(json!({"a": 1, "b": 2}), remove(json!("a")), Ok(json!({"b": 2})));
    check(json!({"b": 2}), remove(json!("a")), Ok(json!({"b": 2})));
    check(json!({"b": 2}), remove(json!("")), Ok(json!(null)));
    check(json!({"a": {"b": 1}}), remove(json!(["a", "b"])), Ok(json!({"a": {}})));
    check(json!({}), remove(json!(["a", "b"])), Ok(json!({})));
    check(json!([]), remove(json!("a")), Err("remove.target_not_object"));
    // The others keep their order.
    let outcome = apply(Some(json!({"a": 1, "b": 2, "c": 3})), &ops(json!([remove(json!("a"))])));
    assert_eq!(outcome.value.to_string(), r#"{"b":2,"c":3}"#);
}

#[test]
fn paths_have_limits() {
    for (op, mut body) in [
        ("set", json!({"value": 1})),
        ("merge", json!({"value": {}})),
        ("increment", json!({"by": 1})),
        ("decrement", json!({"by": 1})),
        ("append", json!({"value": 1})),
        ("remove", json!({})),
    ] {
        body["type"] = json!(op);
        let mut with = |path: Value, code: &str| {
            body["path"] = path;
            check(json!({}), body.clone(), Err(&format!("{op}.path.{code}")));
        };
        with(json!(vec!["a"; 33]), "too_deep");
        with(json!("a".repeat(257)), "segment_too_long");
        with(json!(["a", ""]), "empty_segment");
        for name in ["__proto__", "constructor", "prototype"] {
            with(json!(name), "proto_polluted");
            with(json!(["a", name]), "proto_polluted");
        }
    }
    let long = json!(vec!["a".repeat(256); 32]);
    let outcome = apply(None, &ops(json!([{"type": "set", "path": long, "value": 1}])));
    assert_eq!(outcome.errors, []);
}

#[test]
fn a_list_goes_on_past_a_failure() {
    let list = ops(json!([
        {"type": "set", "path": "x.y", "value": 2},
        {"type": "append", "path": "list", "value": "s"},
        {"type": "increment", "path": "list", "by": 1},
        {"type": "append", "path": "list", "value": "t"},
        {"type": "merge", "path": ["n", "m"], "value": {"z": 1}},
        {"type": "remove", "path": "a"},
    ]));
    let outcome = apply(Some(json!({"a": 1})), &list);
    assert_eq!(outcome.value, json!({"list": "st", "n": {"m": {"z": 1}}, "x.y": 2}));
    assert_eq!(outcome.applied, 5);
    assert_eq!(
        outcome.errors.iter().map(|error| (error.op_index, error.code.as_str())).collect::<Vec<_>>(),
        [(2, "increment.not_number")]
    );
}

#[test]
fn strangers_are_not_read() {
    for strange in [
        json!([{"type": "double", "path": "a"}]),
        json!([{"type": "increment", "path": "a", "by": 1.5}]),
        json!([{"type": "increment", "path": "a"}]),
        json!([{"type": "set", "value": 1}]),
        json!([{"type": "set", "path": 7, "value": 1}]),
    ] {
        assert!(serde_json::from_value::<Vec<Op>>(strange.clone()).is_err(), "{strange}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-c]", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}

fn any_op() -> impl Strategy<Value = Value> {
    let path = prop_oneof![
        "[a-c]?".prop_map(Value::from),
        proptest::collection::vec("[a-c]", 0..4).prop_map(Value::from),
        Just(json!("__proto__")),
    ];
    let name = proptest::sample::select(vec!["set", "merge", "increment", "decrement", "append", "remove"]);
    (name, path, any_value(), any::<i64>())
        .prop_map(|(name, path, value, by)| json!({"type": name, "path": path, "value": value, "by": by}))
}

proptest! {
    /// Every operation is applied or reported, and one that is reported changes nothing.
    #[test]
    fn an_operation_works_or_does_nothing(before in any_value(), op in any_op()) {
        let outcome = apply(Some(before.clone()), &ops(json!([op])));
        prop_assert_eq!(outcome.applied + outcome.errors.len(), 1);
        if outcome.applied == 0 {
            prop_assert_eq!(outcome.value, before);
        }
    }

    /// A list does what its operations do one after the other.
    #[test]
    fn a_list_is_its_operations_in_order(
        before in any_value(),
        list in proptest::collection::vec(any_op(), 0..6),
    ) {
        let together = apply(Some(before.clone()), &ops(json!(list)));
        let mut value = before;
        let mut applied = 0;
        for op in list {
            let outcome = apply(Some(value), &ops(json!([op])));
            value = outcome.value;
            applied += outcome.applied;
        }
        prop_assert_eq!((together.value, together.applied), (value, applied));
    }
}
