//! Any requests in any order, against a map and a list in memory, over restarts.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config as Runner, TestRunner};
use serde_json::{Value, json};

use crate::bed::{Bed, NOW_MS};

#[derive(Debug, Clone)]
enum Step {
    Set { item: usize, value: u32, ttl_ms: Option<u64> },
    SetIf { item: usize, value: u32, right: bool },
    Delete { item: usize },
    Increment { item: usize },
    Append { value: u32 },
    Send { value: u32 },
    Pass { ms: u64 },
    Restart,
}

const ITEMS: [&str; 4] = ["", "a", "a\0", "b"];

fn step() -> impl Strategy<Value = Step> {
    let item = 0..ITEMS.len();
    prop_oneof![
        4 => (item.clone(), any::<u32>(), proptest::option::of(1..100_u64))
            .prop_map(|(item, value, ttl_ms)| Step::Set { item, value, ttl_ms }),
        2 => (item.clone(), any::<u32>(), any::<bool>())
            .prop_map(|(item, value, right)| Step::SetIf { item, value, right }),
        2 => item.clone().prop_map(|item| Step::Delete { item }),
        2 => item.prop_map(|item| Step::Increment { item }),
        2 => any::<u32>().prop_map(|value| Step::Append { value }),
        1 => any::<u32>().prop_map(|value| Step::Send { value }),
        2 => (1..80_u64).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Restart),
    ]
}

/// What there should be: items with the time of their expiry, and what the log tells but for the ends of items that expired,
/// whose place among the others is the janitor's.
#[derive(Debug, Default)]
struct Model {
    now_ms: u64,
    items: BTreeMap<String, (Value, Option<u64>)>,
    log: Vec<(&'static str, Value)>,
    expired: usize,
}

impl Model {
    fn get(&self, item: &str) -> Value {
        self.items.get(item).map_or(Value::Null, |(value, _)| value.clone())
    }

    fn put(&mut self, item: &str, value: Value, expires: Option<u64>) {
        let kind = if self.items.contains_key(item) { "update" } else { "create" };
        self.log.push((kind, value.clone()));
        self.items.insert(item.to_owned(), (value, expires));
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let (now_ms, before) = (self.now_ms, self.items.len());
        self.items.retain(|_, (_, expires)| expires.is_none_or(|expires| expires > now_ms));
        self.expired += before - self.items.len();
    }
}

fn request(item: usize) -> Value {
    json!({"stream_name": "s", "group_id": "g", "item_id": ITEMS[item]})
}

fn take(bed: &mut Bed, model: &mut Model, step: &Step) {
    match step {
        Step::Set { item, value, ttl_ms } => {
            let mut set = request(*item);
            (set["data"], set["ttl_ms"]) = (json!(value), json!(ttl_ms));
            assert_eq!(bed.call("set", set)["old_value"], model.get(ITEMS[*item]));
            model.put(ITEMS[*item], json!(value), ttl_ms.map(|ttl_ms| model.now_ms + ttl_ms));
        }
        Step::SetIf { item, value, right } => {
            let mut get = request(*item);
            get["with_version"] = json!(true);
            let version = bed.call("get", get)["version"].as_u64().unwrap() + u64::from(!*right);
            let mut set = request(*item);
            (set["data"], set["if_version"]) = (json!(value), json!(version));
            if *right {
                bed.call("set", set);
                model.put(ITEMS[*item], json!(value), None);
            } else {
                assert_eq!(bed.refusal("set", set).0, "VERSION_MISMATCH");
            }
        }
        Step::Delete { item } => {
            let old = bed.call("delete", request(*item))["old_value"].clone();
            assert_eq!(old, model.get(ITEMS[*item]));
            if model.items.remove(ITEMS[*item]).is_some() {
                model.log.push(("delete", old));
            }
        }
        Step::Increment { item } => {
            let mut update = request(*item);
            update["ops"] = json!([{"type": "increment", "path": "", "by": 1}]);
            let done = bed.call("update", update);
            match model.items.get(ITEMS[*item]).cloned() {
                Some((value, expires)) => {
                    model.put(ITEMS[*item], json!(value.as_u64().unwrap() + 1), expires);
                }
                None => assert_eq!(done["errors"][0]["code"], "increment.not_number"),
            }
        }
        Step::Append { value } => {
            bed.append(json!(value));
            model.log.push(("append", json!(value)));
        }
        Step::Send { value } => {
            bed.call("send", json!({"stream_name": "s", "group_id": "g", "type": "t", "data": value}));
            model.log.push(("event", json!(value)));
        }
        Step::Pass { ms } => {
            model.pass(*ms);
            bed.clock.set(model.now_ms);
        }
        Step::Restart => bed.restart(),
    }
}

/// What the log tells, less as many ends of items as expired; offsets have no gaps.
fn check_log(bed: &Bed, model: &Model) {
    bed.wait_until("what expired is removed", || {
        bed.info()["last_offset"].as_u64() == Some((model.log.len() + model.expired) as u64)
    });
    let read = bed.read(json!({"limit": 1000}));
    let entries = read["entries"].as_array().unwrap();
    let mut expected = model.log.iter().peekable();
    let mut ends = 0;
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!(entry["offset"], json!(number + 1));
        let kind = entry["type"].as_str().unwrap();
        match expected.peek() {
            Some((wanted, data)) if *wanted == kind && entry["data"] == *data => drop(expected.next()),
            wanted => {
                assert_eq!(kind, "delete", "{entry} instead of {wanted:?}");
                ends += 1;
            }
        }
    }
    assert_eq!((expected.next(), ends), (None, model.expired));
}

#[test]
fn any_requests_do_what_a_map_and_a_list_would() {
    let mut runner = TestRunner::new(Runner { cases: 6, failure_persistence: None, ..Runner::default() });
    let steps = proptest::collection::vec(step(), 1..40);
    runner
        .run(&steps, |steps| {
            let mut bed = Bed::new();
            let mut model = Model { now_ms: NOW_MS, ..Model::default() };
            for step in &steps {
                take(&mut bed, &mut model, step);
                let expected: Vec<Value> = model.items.values().map(|(value, _)| value.clone()).collect();
                let list = bed.call("list", json!({"stream_name": "s", "group_id": "g"}));
                assert_eq!(list, json!(expected), "after {step:?}");
                let groups = bed.call("list_groups", json!({"stream_name": "s"}));
                assert_eq!(groups.as_array().unwrap().is_empty(), expected.is_empty(), "after {step:?}");
            }
            check_log(&bed, &model);
            let info = bed.info();
            let bytes: usize =
                model.items.iter().map(|(id, (value, _))| id.len() + value.to_string().len()).sum();
            assert_eq!((&info["items"], &info["item_bytes"]), (&json!(model.items.len()), &json!(bytes)));
            Ok(())
        })
        .unwrap();
}
