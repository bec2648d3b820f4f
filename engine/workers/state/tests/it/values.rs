//! Set, get, delete, list, groups, scan, raw bytes, limits.

use ringway::{CallOptions, Encoding, Message};
use ringway_worker_state::{Config, ScopeConfig, ScopeDurability};
use serde_json::{Value, json};

use crate::bed::Bed;

#[test]
fn a_value_is_set_read_listed_and_deleted() {
    let bed = Bed::new();
    let first = bed.set("orders", "7", json!({"status": "new"}));
    assert_eq!((&first["old_value"], &first["new_value"]), (&Value::Null, &json!({"status": "new"})));
    let second =
        bed.call("set", json!({"scope": "orders", "key": "7", "data": [1, 2.50], "_caller_worker_id": "x"}));
    assert_eq!(second["old_value"], json!({"status": "new"}));
    assert_eq!(second["new_value"], json!([1, 2.5]));
    assert!(second["revision"].as_u64() > first["revision"].as_u64());
    assert_eq!(bed.get("orders", "7"), json!([1, 2.5]));
    bed.set("orders", "8", json!(null));
    bed.set("other", "8", json!("x"));
    assert_eq!(bed.call("list", json!({"scope": "orders"})), json!([[1, 2.5], null]));
    assert_eq!(bed.call("list", json!({"scope": "nothing"})), json!([]));
    assert_eq!(bed.call("list_groups", json!({})), json!({"groups": ["orders", "other"]}));
    assert_eq!(bed.call("delete", json!({"scope": "orders", "key": "7"})), json!([1, 2.5]));
    assert_eq!(bed.call("delete", json!({"scope": "orders", "key": "7"})), Value::Null);
    bed.call("delete", json!({"scope": "orders", "key": "8"}));
    assert_eq!(bed.call("list_groups", json!({})), json!({"groups": ["other"]}), "an empty scope is none");
}

#[test]
fn an_absent_value_is_no_result_and_null_is_one() {
    let bed = Bed::new();
    bed.set("s", "null", Value::Null);
    let body = |key: &str| {
        let request = Message::json(&json!({"scope": "s", "key": key})).unwrap();
        bed.client.handle("state::get").call(&request).unwrap().body().to_vec()
    };
    assert_eq!(body("null"), b"null");
    assert_eq!(body("absent"), b"");
    let with = |key: &str| bed.call("get", json!({"scope": "s", "key": key, "with_revision": true}));
    assert_eq!(with("absent"), json!({"value": null, "revision": 0}));
    assert!(with("null")["revision"].as_u64() > Some(0));
}

#[test]
fn names_may_hold_any_text() {
    let bed = Bed::new();
    let names = ["", "a", "a\0", "a\0b", "ä/::%", "\u{10ffff}", "\0\u{1}"];
    for (number, scope) in names.iter().enumerate() {
        for key in names {
            bed.set(scope, key, json!([number, key]));
        }
    }
    for (number, scope) in names.iter().enumerate() {
        for key in names {
            assert_eq!(bed.get(scope, key), json!([number, key]));
        }
        assert_eq!(bed.call("list", json!({"scope": scope})).as_array().unwrap().len(), names.len());
    }
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    assert_eq!(bed.call("list_groups", json!({})), json!({ "groups": sorted }));
}

#[test]
fn what_cannot_be_used_is_refused() {
    let bed = Bed::with(Config { value_bytes_max: 100, ops_max: 3, ..Config::default() });
    let check = |function: &str, request: Value, code: &str, words: &str| {
        let (found, error) = bed.refusal(function, request);
        assert_eq!(found, code, "{error}");
        assert!(error.message.contains(words), "{error}");
    };
    let set = |value: Value| json!({"scope": "s", "key": "k", "value": value});
    check("set", set(json!("x".repeat(99))), "VALUE_TOO_LARGE", "101 bytes, at most 100");
    check("set", json!({"scope": "s", "key": "k"}), "invalid_request", "no `value`");
    check("set", json!({"key": "k", "value": 1}), "invalid_request", "scope");
    check("set", json!({"scope": "s", "key": "k".repeat(3000), "value": 1}), "SET_ERROR", "bytes together");
    check("set", json!({"scope": "s", "key": "k", "value": 1, "ttl_ms": 0}), "invalid_request", "ttl_ms");
    check("get", json!({"scope": "s"}), "invalid_request", "key");
    check("get", json!({"scope": "s", "key": "k".repeat(3000)}), "GET_ERROR", "bytes together");
    check("delete", json!([]), "invalid_request", "does not fit");
    check("scan", json!({"scope": "s", "limit": 1001}), "invalid_request", "1 to 1000");
    check("scan", json!({"scope": "s", "cursor": "x"}), "invalid_request", "no cursor");
    check("scan", json!({"scope": "s", "prefix": "a", "from": "b"}), "invalid_request", "only one");
    check(
        "update",
        json!({"scope": "s", "key": "k", "ops": [{"type": "double"}]}),
        "invalid_request",
        "double",
    );
    let ops = vec![json!({"type": "remove", "path": "a"}); 4];
    check("update", json!({"scope": "s", "key": "k", "ops": ops}), "invalid_request", "at most 3");
    let text = "y".repeat(101);
    let ops = json!([{"type": "set", "path": "a", "value": text}]);
    check("update", json!({"scope": "s", "key": "k", "ops": ops}), "VALUE_TOO_LARGE", "at most 100");
    assert_eq!(bed.get("s", "k"), Value::Null);
}

#[test]
fn deep_values_are_refused_before_they_are_kept() {
    let bed = Bed::new();
    let text = format!("{{\"scope\":\"s\",\"key\":\"k\",\"value\":{}1{}}}", "[".repeat(500), "]".repeat(500));
    let request = Message::new(Encoding::Json, text.as_bytes());
    let error = bed.client.handle("state::set").call(&request).unwrap_err();
    assert_eq!(error.user_code.as_deref(), Some("SET_ERROR"), "{error}");
    assert_eq!(bed.get("s", "k"), Value::Null);
}

#[test]
fn updates_apply_their_operations() {
    let bed = Bed::new();
    let update = |key: &str, ops: Value| bed.call("update", json!({"scope": "s", "key": key, "ops": ops}));
    let made = update("k", json!([{"type": "increment", "path": "n", "by": 2}]));
    assert_eq!((&made["old_value"], &made["new_value"]), (&Value::Null, &json!({"n": 2})));
    assert_eq!(made.get("errors"), None);
    let mixed = update(
        "k",
        json!([
            {"type": "append", "path": "n", "value": 1},
            {"type": "set", "path": "a.b", "value": true},
        ]),
    );
    assert_eq!(mixed["new_value"], json!({"n": 2, "a.b": true}));
    assert_eq!(mixed["errors"][0]["op_index"], 0);
    assert_eq!(mixed["errors"][0]["code"], "append.type_mismatch");
    assert_eq!(bed.get("s", "k"), json!({"n": 2, "a.b": true}));
    let before = bed.revision("s", "k");
    let failed = update("k", json!([{"type": "append", "path": "n", "value": 1}]));
    assert_eq!(failed["new_value"], json!({"n": 2, "a.b": true}));
    assert_eq!(bed.revision("s", "k"), before, "an update of which nothing was applied wrote");
    update("none", json!([{"type": "append", "value": 1}]));
    assert_eq!(bed.revision("s", "none"), 0);
    let ops = json!([{"type": "set", "path": "x", "value": 1}, {"type": "append", "path": "n", "value": 1}]);
    let whole = bed.call("update", json!({"scope": "s", "key": "k", "ops": ops, "all_or_nothing": true}));
    assert_eq!(whole["new_value"], json!({"n": 2, "a.b": true}));
    assert_eq!(whole["errors"][0]["op_index"], 1);
}

#[test]
fn pages_of_a_scan_make_up_the_range() {
    let bed = Bed::new();
    for number in 0..25 {
        bed.set("s", &format!("k{number:02}"), json!(number));
    }
    bed.set("s", "l", json!("last"));
    bed.set("t", "k00", json!("other"));
    let all = |request: Value| -> Vec<String> {
        let mut keys = Vec::new();
        let mut request = request;
        loop {
            let page = bed.call("scan", request.clone());
            for entry in page["entries"].as_array().unwrap() {
                keys.push(entry["key"].as_str().unwrap().to_owned());
                assert_eq!(entry["revision"], bed.revision("s", keys.last().unwrap()));
            }
            if page["cursor"].is_null() {
                return keys;
            }
            assert!(page["entries"].as_array().unwrap().len() <= 4);
            request["cursor"] = page["cursor"].clone();
        }
    };
    let range = |from: usize, to: usize| (from..to).map(|n| format!("k{n:02}")).collect::<Vec<_>>();
    let backwards = |mut keys: Vec<String>| {
        keys.reverse();
        keys
    };
    assert_eq!(all(json!({"scope": "s", "prefix": "k", "limit": 4})), range(0, 25));
    assert_eq!(
        all(json!({"scope": "s", "prefix": "k", "limit": 4, "reverse": true})),
        backwards(range(0, 25))
    );
    assert_eq!(all(json!({"scope": "s", "from": "k05", "to": "k11", "limit": 4})), range(5, 11));
    assert_eq!(
        all(json!({"scope": "s", "from": "k05", "to": "k11", "limit": 4, "reverse": true})),
        backwards(range(5, 11))
    );
    assert_eq!(all(json!({"scope": "s", "from": "k20", "limit": 4})).last().unwrap(), "l");
    assert_eq!(all(json!({"scope": "s", "prefix": "k1", "limit": 4, "keys_only": true})), range(10, 20));
    assert_eq!(all(json!({"scope": "s", "from": "x", "to": "a", "limit": 4})), Vec::<String>::new());
    let page = bed.call("scan", json!({"scope": "s", "prefix": "l"}));
    assert_eq!(page["entries"][0]["value"], "last");
}

#[test]
fn raw_bytes_come_back_as_they_went() {
    let bed = Bed::new();
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let place = json!({"scope": "s", "key": "blob"});
    let options = CallOptions::new().metadata(place.clone());
    let set = bed.client.handle("state::set").call_with(&Message::bytes(&bytes), &options).unwrap();
    let set: Value = serde_json::from_slice(set.body()).unwrap();
    assert_eq!(set["bytes"], 100_000);
    let get = || bed.client.handle("state::get").call(&Message::json(&place).unwrap()).unwrap();
    assert_eq!((get().encoding(), get().body()), (Encoding::Bytes, &bytes[..]));
    // As an attachment, read where the caller wrote it.
    let mut loan = bed.client.loan(5000).unwrap();
    loan.fill(7);
    let request = Message::json(&place).unwrap().attach(ringway::Attachment::bytes(loan.freeze().into()));
    bed.client.handle("state::set").call(&request).unwrap();
    assert_eq!((get().encoding(), get().body()), (Encoding::Bytes, &[7_u8; 5000][..]));
    let (code, error) =
        bed.refusal("update", json!({"scope": "s", "key": "blob", "ops": [{"type": "remove", "path": "a"}]}));
    assert_eq!(code, "UPDATE_ERROR", "{error}");
    let bare = bed.client.handle("state::set").call(&Message::bytes(b"x")).unwrap_err();
    assert!(bare.message.contains("metadata"), "{bare}");
    bed.client.handle("state::set").call_with(&Message::bytes(&[0, 255]), &options).unwrap();
    assert_eq!(bed.call("list", json!({"scope": "s"})), json!([{"$bytes": "AP8="}]));
}

#[test]
fn a_scope_says_how_durable_it_is() {
    let ephemeral = ScopeConfig { durability: ScopeDurability::Ephemeral };
    let scopes = [("cache".to_owned(), ephemeral)].into();
    let bed = Bed::with(Config { scopes, ..Config::default() });
    assert_eq!(bed.call("info", json!({"scope": "cache"}))["durability"], "ephemeral");
    assert_eq!(bed.call("info", json!({"scope": "orders"}))["durability"], "durable");
    assert_eq!(bed.call("info", json!({}))["limits"]["ops_max"], 1000);
    let syncs = |scope: &str| {
        let before = bed.metrics().syncs;
        for n in 0..10 {
            bed.set(scope, &n.to_string(), json!(n));
        }
        assert_eq!(bed.get(scope, "9"), json!(9));
        bed.metrics().syncs - before
    };
    // Each of them is answered before the next is sent, so that none shares a sync.
    assert_eq!((syncs("cache"), syncs("orders")), (0, 10));
    let both = json!({"operations": [
        {"type": "set", "scope": "cache", "key": "a", "value": 1},
        {"type": "set", "scope": "orders", "key": "a", "value": 1},
    ]});
    let before = bed.metrics().syncs;
    bed.call("transaction", both);
    assert_eq!(bed.metrics().syncs, before + 1, "one durable key makes the whole durable");
}

#[test]
fn a_list_has_a_limit_and_says_so() {
    let bed = Bed::with(Config { list_bytes_max: 50, page_bytes_max: 30, ..Config::default() });
    for key in ["a", "b", "c"] {
        bed.set("s", key, json!("0123456789abcde"));
    }
    let (code, error) = bed.refusal("list", json!({"scope": "s"}));
    assert_eq!(code, "LIST_ERROR");
    assert!(error.message.contains("state::scan"), "{error}");
    let page = bed.call("scan", json!({"scope": "s"}));
    assert_eq!(page["entries"].as_array().unwrap().len(), 2);
    let rest = bed.call("scan", json!({"scope": "s", "cursor": page["cursor"]}));
    assert_eq!(rest["entries"][0]["key"], "c");
}
